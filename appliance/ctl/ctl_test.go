package ctl

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func vector(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// The worked examples of reference/ctl-file.md, section 8, and
// reference/signed-files.md, section 6; other implementations verified both.
func TestVectorCTL(t *testing.T) {
	data := vector(t, "vector-ctl.b64")
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(); err != nil {
		t.Error(err)
	}
	h := &f.Header
	if h.Length != 0x120 || h.SignerName != "CN=_internal_PP_ctl1_SAST_0;OU=STG;O=Example" || h.CAName != h.SignerName ||
		hex.EncodeToString(h.Serial) != "5ca1ab1e" || h.Digest != SHA1 || h.Modulus != 1 || h.FileName != FileName ||
		!h.Time.Equal(time.Date(2009, 5, 5, 8, 59, 44, 0, time.UTC)) || h.sigStart != 0x86 || h.sigEnd != 0x109 {
		t.Errorf("header %+v", h)
	}
	if len(f.Records) != 2 {
		t.Fatalf("%d records, want 2", len(f.Records))
	}
	if r := f.Records[0]; r.Role != SAST || r.DNSName != "" || r.IP.IsValid() || len(r.DER) != 0x23c {
		t.Errorf("record 1 %+v", r)
	}
	if r := f.Records[1]; r.Role != CCMTFTP || r.DNSName != "_internal_PP_ctl1.example.com" || r.IP != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("record 2 %+v", r)
	}

	again := h.appendTo(nil, true)
	unsigned := h.appendTo(nil, false)
	for i := range f.Records {
		again = f.Records[i].appendTo(again)
	}
	if !bytes.Equal(again, data) {
		t.Errorf("encoded again it differs:\n got %x\nwant %x", again, data)
	}
	sum := sha1.Sum(append(unsigned, data[h.Length:]...))
	if got := hex.EncodeToString(sum[:]); got != "a744601c730172eb391c032fa4cec6e4fafd2512" {
		t.Errorf("digest of the signed range %s", got)
	}
	for i := range f.Records { // the certificate alone gives every other element
		r := &f.Records[i]
		cert, err := r.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		made, err := NewRecord(r.Role, cert, r.DNSName, r.IP)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(made.appendTo(nil), r.appendTo(nil)) {
			t.Errorf("record %d made of its certificate differs", i+1)
		}
	}
	golden(t, "vector-ctl.txt", f.String())
}

func TestVectorSigned(t *testing.T) {
	data := vector(t, "vector-sgn.b64")
	f, err := Parse(vector(t, "vector-ctl.b64"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigned(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyBy(f); err != nil {
		t.Error(err)
	}
	signer, err := f.Records[1].Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(signer); err != nil {
		t.Error(err)
	}
	token, err := f.Records[0].Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(token); err == nil {
		t.Error("the token's certificate verified it")
	}
	if got := string(s.Payload); got != "<device><deviceSecurityMode>3</deviceSecurityMode></device>\r\n" {
		t.Errorf("payload %q", got)
	}
	if s.Header.FileName != "SEP001122334455.cnf.xml.sgn" || s.Header.Length != 0x124 {
		t.Errorf("header %+v", s.Header)
	}
	if again := append(s.Header.appendTo(nil, true), s.Payload...); !bytes.Equal(again, data) {
		t.Errorf("encoded again it differs:\n got %x\nwant %x", again, data)
	}
	if !IsSigned(data) || IsSigned(s.Payload) || IsSigned(data[:minHeader-1]) {
		t.Error("IsSigned")
	}
	golden(t, "vector-sgn.txt", s.String())

	tftpOnly := &File{Records: []Record{f.Records[0]}}
	if err := s.VerifyBy(tftpOnly); err == nil {
		t.Error("a CTL file without its record verified it")
	}
	capf := &File{Records: []Record{f.Records[1]}}
	capf.Records[0].Role = CAPF
	if err := s.VerifyBy(capf); err == nil {
		t.Error("a record in the role CAPF verified it")
	}
}

// TestEveryByteCounts changes each byte in turn: no change may verify, except in
// tag 11, which is not to be trusted but is signed all the same.
func TestEveryByteCounts(t *testing.T) {
	data := vector(t, "vector-ctl.b64")
	for i := range data {
		data[i] ^= 1
		if f, err := Parse(data); err == nil && f.Verify() == nil {
			// The certificate in a SAST record is covered too, so nothing is left.
			t.Errorf("byte %#x changed and the file verifies", i)
		}
		data[i] ^= 1
	}
	sgn := vector(t, "vector-sgn.b64")
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sgn {
		sgn[i] ^= 1
		if s, err := ParseSigned(sgn); err == nil && s.VerifyBy(f) == nil {
			t.Errorf("byte %#x changed and the signed file verifies", i)
		}
		sgn[i] ^= 1
	}
}

func TestParseRefuses(t *testing.T) {
	good := vector(t, "vector-ctl.b64")
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	put := func(off int, v ...byte) []byte {
		return edit(func(b []byte) []byte { copy(b[off:], v); return b })
	}
	insert := func(off int, v ...byte) []byte {
		return edit(func(b []byte) []byte {
			b = append(b[:off:off], append(v, b[off:]...)...)
			if off < 0x120 {
				binary.BigEndian.PutUint16(b[8:], uint16(0x120+len(v)))
			}
			return b
		})
	}
	tests := []struct {
		name string
		data []byte
		want string // in the error
	}{
		{"empty", nil, "0 bytes"},
		{"nine bytes", good[:9], "9 bytes"},
		{"first tag", put(0, 2), "tags 2 and 2"},
		{"second tag", put(5, 3), "tags 1 and 3"},
		{"length of the version", put(2, 3), "first lengths"},
		{"header longer than the file", put(8, 0xff, 0xff), "length 65535"},
		{"header shorter than itself", put(8, 0, 9), "length 9"},
		{"header that ends in an element", put(8, 0, 0x80), "exceeds"},
		{"nested overrun", put(0x0e, 0xff), "exceeds"},
		{"container overrun", put(0x0b, 0xff), "exceeds"},
		{"two signatures", insert(0x109, 12, 0, 1, 7), "twice"},
		{"two serials", insert(0x109, 5, 0, 1, 7), "twice"},
		{"no signature", put(0x86, 99), "tag 12 is missing"},
		{"digest of two bytes", insert(0x109, 10, 0, 2, 0, 0), "tag 10"},
		{"NUL in the file name", put(0x10e, 0), "NUL"},
		{"record length 4", put(0x123, 0, 4), "record 1: length 4"},
		{"record past the end", put(0x123, 0xff, 0xff), "record 1: length 65535"},
		{"record overrun", put(0x126, 0xff), "record 1"},
		{"record without role", put(0x159, 99), "no role"},
		{"record with two roles", edit(func(b []byte) []byte { b[0x129] = 4; return b }), "tag 4"},
		{"address of five bytes", edit(func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[0x4e9:], 0x3cf)
			b[len(b)-5]++
			return append(b, 0)
		}), "address of 5"},
		{"trailing byte", append(bytes.Clone(good), 0), "record 3"},
		{"cut", good[:len(good)-1], "record 2"},
		{"too large", make([]byte, MaxSize+1), "over"},
		{"too many records", func() []byte {
			b := bytes.Clone(good[:0x120])
			for range MaxRecords + 1 {
				b = append(b, 1, 0, 2, 0, 10, 4, 0, 2, 0, 1)
			}
			return b
		}(), "over 100 records"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.data)
			if err == nil || !strings.HasPrefix(err.Error(), "ctl: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, %v; want an error with %q", f, err, tt.want)
			}
		})
	}
}

// TestParseLenient: what phones accept from other writers, we read.
func TestParseLenient(t *testing.T) {
	// Order 04, 06, 05 and tag 28 after tag 2, no DNS name, no address, an
	// unknown tag, and no time; modulus code wrong.
	h := Header{Version: [2]byte{1, 2}, SignerVersion: [2]byte{1, 1}, SignerName: "CN=a", Serial: []byte{1}, CAName: "CN=a", Digest: SHA1, Modulus: 9, Signature: make([]byte, 64)}
	data := h.appendTo(nil, true)
	data = append(data, 1, 0, 2, 0, 18, 4, 0, 2, 0, 21, 200, 0, 1, 5, 6, 0, 1, 9)
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.Records[0]; r.Role != TVS || !bytes.Equal(r.Serial, []byte{9}) {
		t.Errorf("record %+v", r)
	}
	if f.Header.SignerVersion != [2]byte{1, 1} || !f.Header.Time.IsZero() || f.Header.Modulus != 9 || len(f.Header.Signature) != 64 {
		t.Errorf("header %+v", f.Header)
	}
	if err := f.Verify(); err == nil {
		t.Error("it verifies")
	}
	if !strings.Contains(f.String(), "NOT verified") {
		t.Error("printed as verified")
	}
}

func FuzzParse(f *testing.F) {
	good := vector(f, "vector-ctl.b64")
	f.Add(good)
	f.Add(good[:0x120])
	f.Add([]byte{1, 0, 2, 1, 2, 2, 0, 2, 0, 10})
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		if file.Header.sigEnd > file.Header.Length || !bytes.Equal(data[file.Header.sigStart+elementHead:file.Header.sigEnd], file.Header.Signature) {
			t.Errorf("signature at %d to %d of a header of %d", file.Header.sigStart, file.Header.sigEnd, file.Header.Length)
		}
		n := file.Header.Length
		for _, r := range file.Records {
			n += r.length
		}
		if n != len(data) {
			t.Errorf("header and records are %d bytes of %d", n, len(data))
		}
		file.Verify()
		if s := file.String(); strings.ContainsAny(s, "\x00\x1b") {
			t.Errorf("print holds control characters: %q", s)
		}
		again := file.Header.appendTo(nil, true)
		if h, err := parseHeader(again); err == nil {
			h.sigStart, h.sigEnd, file.Header.sigStart, file.Header.sigEnd = 0, 0, 0, 0
			file.Header.Encrypted = false
			if diff := cmp.Diff(file.Header, h, cmp.AllowUnexported(Header{})); diff != "" {
				t.Errorf("header encoded again (-want +got):\n%s", diff)
			}
		}
	})
}

func FuzzParseSigned(f *testing.F) {
	good := vector(f, "vector-sgn.b64")
	f.Add(good)
	f.Add(good[:0x124])
	ctlFile, err := Parse(vector(f, "vector-ctl.b64"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSigned(data)
		if err != nil {
			return
		}
		if s.VerifyBy(ctlFile) == nil && !bytes.Equal(data, good) {
			t.Errorf("%x verifies", data)
		}
		if !bytes.HasSuffix(data, s.Payload) || len(s.Payload)+s.Header.Length != len(data) {
			t.Error("payload is not what follows the header")
		}
		if out := s.String(); strings.ContainsAny(out, "\x00\x1b") {
			t.Errorf("print holds control characters: %q", out)
		}
	})
}
