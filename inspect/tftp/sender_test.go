package tftp

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNegotiate(t *testing.T) {
	tests := []struct {
		name string
		opts []Option
		size int64
		want []Option
	}{
		{"none", nil, 100, nil},
		{"blksize", []Option{{"blksize", "1024"}}, 100, []Option{{"blksize", "1024"}}},
		{"blksize over the MTU", []Option{{"blksize", "8192"}}, 100, []Option{{"blksize", "1468"}}},
		{"blksize too small", []Option{{"blksize", "7"}}, 100, nil},
		{"blksize too large", []Option{{"blksize", "65465"}}, 100, nil},
		{"blksize no number", []Option{{"blksize", "big"}}, 100, nil},
		{"negative", []Option{{"blksize", "-8"}}, 100, nil},
		{"any case, echoed as asked", []Option{{"BlkSize", "512"}}, 100, []Option{{"BlkSize", "512"}}},
		{"tsize", []Option{{"tsize", "0"}}, 12345, []Option{{"tsize", "12345"}}},
		{"tsize of an unknown size", []Option{{"tsize", "0"}}, -1, nil},
		{"timeout", []Option{{"timeout", "255"}}, 1, []Option{{"timeout", "255"}}},
		{"timeout 0", []Option{{"timeout", "0"}}, 1, nil},
		{"timeout 256", []Option{{"timeout", "256"}}, 1, nil},
		{"windowsize is not known", []Option{{"windowsize", "8"}, {"tsize", "0"}}, 5, []Option{{"tsize", "5"}}},
		{"asked twice", []Option{{"blksize", "100"}, {"BLKSIZE", "200"}}, 5, []Option{{"blksize", "100"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSender(nil, phoneAddr, File{Size: tt.size}, Request{Mode: "octet", Options: tt.opts}, DefaultMaxBlock, DefaultWaits())
			if diff := cmp.Diff(tt.want, s.oack); diff != "" {
				t.Errorf("options (-want +got)\n%s", diff)
			}
		})
	}
}
