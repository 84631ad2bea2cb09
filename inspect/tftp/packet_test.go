package tftp

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

func TestParseRequest(t *testing.T) {
	tests := []struct {
		name string
		data string
		want Request
		err  error
	}{
		{"plain", "\x00\x01CTLSEP001122334455.tlv\x00octet\x00", Request{Op: OpRead, Name: "CTLSEP001122334455.tlv", Mode: "octet"}, nil},
		{"mode in any case", "\x00\x01a\x00OcTeT\x00", Request{Op: OpRead, Name: "a", Mode: "octet"}, nil},
		{"old 79xx with one more NUL", "\x00\x01OS79XX.TXT\x00octet\x00\x00", Request{Op: OpRead, Name: "OS79XX.TXT", Mode: "octet"}, nil},
		{"padded with NULs", "\x00\x01a\x00octet\x00\x00\x00\x00\x00", Request{Op: OpRead, Name: "a", Mode: "octet"}, nil},
		{"options", "\x00\x01a\x00octet\x00blksize\x001428\x00TSIZE\x000\x00", Request{Op: OpRead, Name: "a", Mode: "octet",
			Options: []Option{{"blksize", "1428"}, {"TSIZE", "0"}}}, nil},
		{"options, then a NUL", "\x00\x01a\x00octet\x00tsize\x000\x00\x00", Request{Op: OpRead, Name: "a", Mode: "octet",
			Options: []Option{{"tsize", "0"}}}, nil},
		{"option with an empty value", "\x00\x01a\x00octet\x00x\x00\x00tsize\x000\x00", Request{Op: OpRead, Name: "a", Mode: "octet",
			Options: []Option{{"x", ""}, {"tsize", "0"}}}, nil},
		{"write", "\x00\x02a\x00netascii\x00", Request{Op: OpWrite, Name: "a", Mode: "netascii"}, nil},
		{"empty", "", Request{}, errOp},
		{"one byte", "\x00", Request{}, errOp},
		{"data", "\x00\x03\x00\x01", Request{}, errOp},
		{"no name", "\x00\x01", Request{}, errString},
		{"name without NUL", "\x00\x01abc", Request{}, errString},
		{"no mode", "\x00\x01abc\x00", Request{}, errString},
		{"mode without NUL", "\x00\x01abc\x00octet", Request{}, errString},
		{"option without value", "\x00\x01a\x00octet\x00tsize\x00", Request{}, errOption},
		{"value without NUL", "\x00\x01a\x00octet\x00tsize\x000", Request{}, errOption},
		{"option without name", "\x00\x01a\x00octet\x00\x000\x00", Request{}, errOption},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseRequest([]byte(tt.data))
			if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, tt.err) {
				t.Errorf("ParseRequest(%q): error %v, want %v; (-want +got)\n%s", tt.data, err, tt.err, diff)
			}
		})
	}
}

func TestPackets(t *testing.T) {
	if got, want := AppendData(nil, 0xfffe, []byte("ab")), "\x00\x03\xff\xfeab"; string(got) != want {
		t.Errorf("AppendData = %q, want %q", got, want)
	}
	if got, want := AppendAck(nil, 258), "\x00\x04\x01\x02"; string(got) != want {
		t.Errorf("AppendAck = %q, want %q", got, want)
	}
	e := &Error{CodeNotFound, "File not found"}
	if got, want := e.AppendTo(nil), "\x00\x05\x00\x01File not found\x00"; string(got) != want {
		t.Errorf("Error.AppendTo = %q, want %q", got, want)
	}
	if got, want := AppendOptions(nil, []Option{{"tsize", "7"}}), "\x00\x06tsize\x007\x00"; string(got) != want {
		t.Errorf("AppendOptions = %q, want %q", got, want)
	}
	for _, b := range []string{"", "\x00", "\x00\x03\x00", "\x00\x04\x00", "\x00\x05\x01"} {
		_, _, derr := ParseData([]byte(b))
		_, aerr := ParseAck([]byte(b))
		_, eerr := ParseError([]byte(b))
		if derr == nil || aerr == nil || eerr == nil {
			t.Errorf("%q parsed: data %v, ack %v, error %v", b, derr, aerr, eerr)
		}
	}
	long, err := ParseError([]byte("\x00\x05\x00\x00" + strings.Repeat("x", 400)))
	if err != nil || len(long.Msg) != maxMessage {
		t.Errorf("ParseError of a long message without NUL: %v, %v", long, err)
	}
}

func TestIsNotFound(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&Error{CodeNotFound, "x"}, true},
		{&Error{CodeAccess, "x"}, false},
		{NotFound(), true},
		{fs.ErrNotExist, true},
		{ErrNoAnswer, false},
		{nil, false},
	} {
		if got := IsNotFound(tt.err); got != tt.want {
			t.Errorf("IsNotFound(%v) = %v", tt.err, got)
		}
	}
}

func TestCleanName(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"SEP001122334455.cnf.xml.sgn", "SEP001122334455.cnf.xml.sgn"},
		{"English_United_States/mk-sccp.jar", "English_United_States/mk-sccp.jar"},
		{`Desktops\320x196x4\List.xml`, "Desktops/320x196x4/List.xml"},
		{"a..b", "a..b"},
		{strings.Repeat("n", MaxName), strings.Repeat("n", MaxName)},
		{strings.Repeat("n", MaxName+1), ""},
		{"", ""},
		{"/etc/passwd", ""},
		{`\etc\passwd`, ""},
		{"../x", ""},
		{"a/../x", ""},
		{`a\..\x`, ""},
		{"a/..", ""},
		{"..", ""},
		{"./a", ""},
		{"a//b", ""},
		{"a/", ""},
		{"C:/x", ""},
		{"c:x", ""},
		{"a/C:", ""},
		{"a\nb", ""},
		{"a\x00b", ""},
		{"a\x7fb", ""},
	} {
		got, err := CleanName(tt.name)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("CleanName(%q) = %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestNetascii(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"a\nb", "a\r\nb"},
		{"\n", "\r\n"},
		{"a\rb", "a\r\x00b"},
		{"\r\n", "\r\x00\r\n"},
	} {
		got, err := io.ReadAll(newNetascii(iotestOneByte{strings.NewReader(tt.in)}))
		if string(got) != tt.want || err != nil {
			t.Errorf("netascii of %q = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return o.r.Read(p[:1])
}

// TestCaptures parses every TFTP packet of the captures that others made.
func TestCaptures(t *testing.T) {
	for _, tt := range []struct {
		file string
		ops  map[Op]int
		name string
	}{
		{"tftp-read-512-blocks.pcap", map[Op]int{OpRead: 1, OpData: 49, OpAck: 49}, "rfc1350.txt"},
		{"tftp-write.pcap", map[Op]int{OpWrite: 1, OpData: 49, OpAck: 50}, "rfc1350.txt"},
		{"tftp-option-ack-null-link.pcap", map[Op]int{OpRead: 1, OpOptions: 1, OpData: 2, OpAck: 3}, "hello.txt"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			f, err := os.Open("../../../shared/pcaps/" + tt.file)
			if err != nil {
				t.Skipf("capture %s is not here", tt.file)
			}
			defer f.Close()
			r, err := pcapgo.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[Op]int)
			for {
				data, _, err := r.ReadPacketData()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				p := gopacket.NewPacket(data, r.LinkType(), gopacket.Default)
				udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
				if !ok {
					continue
				}
				b := udp.Payload
				got[OpOf(b)]++
				again := reparse(t, b)
				if !bytes.Equal(again, b) {
					t.Errorf("packet % x came back as % x", b, again)
				}
				if op := OpOf(b); op == OpRead || op == OpWrite {
					if req, _ := ParseRequest(b); req.Name != tt.name || req.Mode != "octet" {
						t.Errorf("request %+v, want %s in octet", req, tt.name)
					}
				}
			}
			if diff := cmp.Diff(tt.ops, got); diff != "" {
				t.Errorf("packets (-want +got)\n%s", diff)
			}
		})
	}
}

// reparse parses b and returns it as we would have written it.
func reparse(t *testing.T, b []byte) []byte {
	t.Helper()
	switch OpOf(b) {
	case OpRead, OpWrite:
		r, err := ParseRequest(b)
		if err != nil {
			t.Fatal(err)
		}
		return r.AppendTo(nil)
	case OpData:
		block, data, err := ParseData(b)
		if err != nil {
			t.Fatal(err)
		}
		return AppendData(nil, block, data)
	case OpAck:
		block, err := ParseAck(b)
		if err != nil {
			t.Fatal(err)
		}
		return AppendAck(nil, block)
	case OpError:
		e, err := ParseError(b)
		if err != nil {
			t.Fatal(err)
		}
		return e.AppendTo(nil)
	case OpOptions:
		o, err := ParseOptions(b)
		if err != nil {
			t.Fatal(err)
		}
		return AppendOptions(nil, o)
	}
	t.Fatalf("unknown packet % x", b)
	return nil
}

func FuzzPacket(f *testing.F) {
	for _, s := range []string{
		"", "\x00\x01a\x00octet\x00", "\x00\x01OS79XX.TXT\x00octet\x00\x00",
		"\x00\x02a\x00octet\x00blksize\x001428\x00", "\x00\x03\x00\x01abc", "\x00\x04\x00\x01",
		"\x00\x05\x00\x01File not found\x00", "\x00\x06tsize\x0012\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil {
			again, err := ParseRequest(r.AppendTo(nil))
			if diff := cmp.Diff(r, again); err != nil || diff != "" {
				t.Errorf("request %+v comes back with %v\n%s", r, err, diff)
			}
			if clean, err := CleanName(r.Name); err == nil {
				if again, err := CleanName(clean); err != nil || again != clean || strings.HasPrefix(clean, "/") || strings.Contains("/"+clean+"/", "/../") {
					t.Errorf("CleanName(%q) = %q, then %q, %v", r.Name, clean, again, err)
				}
			}
		}
		if o, err := ParseOptions(b); err == nil {
			again, err := ParseOptions(AppendOptions(nil, o))
			if diff := cmp.Diff(o, again); err != nil || diff != "" {
				t.Errorf("options %+v come back with %v\n%s", o, err, diff)
			}
		}
		if block, data, err := ParseData(b); err == nil && !bytes.Equal(AppendData(nil, block, data), b) {
			t.Errorf("data % x comes back different", b)
		}
		if e, err := ParseError(b); err == nil {
			if again, err := ParseError(e.AppendTo(nil)); err != nil || *again != *e {
				t.Errorf("error %v comes back as %v, %v", e, again, err)
			}
		}
		ParseAck(b)
	})
}
