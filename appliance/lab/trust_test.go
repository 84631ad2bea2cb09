package lab

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func decode64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(s, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenCTL(t *testing.T) {
	b := decode64(t, goldenCTL)
	if sum := sha1.Sum(b); hex.EncodeToString(sum[:]) != "23f1fd3a7e4449abd72dca9f8493fb5ccf0dabd1" {
		t.Fatalf("golden file has SHA-1 %x", sum)
	}
	if sum := md5.Sum(b); hex.EncodeToString(sum[:]) != "fbadd0ebda1be7d329c4ff8ed2f0a653" {
		t.Fatalf("golden file has MD5 %x", sum)
	}
	c, err := ParseCTL(b)
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		Role         int
		DNS, Subject string
		Serial       string
		Addr         string
	}
	var got []record
	for _, r := range c.Records {
		addr := ""
		if r.Addr.IsValid() {
			addr = r.Addr.String()
		}
		got = append(got, record{r.Role, r.DNS, r.Subject, hex.EncodeToString(r.Serial), addr})
	}
	want := []record{
		{RoleSAST, "", "CN=_internal_PP_ctl1_SAST_0;OU=STG;O=Example", "5ca1ab1e", ""},
		{RoleCCMTFTP, "_internal_PP_ctl1.example.com", "CN=_internal_PP_ctl1;OU=STG;O=Example", "0badcafe", "203.0.113.10"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("records (-want +got):\n%s", d)
	}
	if c.Version != [2]byte{1, 2} || c.File != "CTLFile.tlv" || !c.Time.Equal(time.Date(2009, 5, 5, 8, 59, 44, 0, time.UTC)) {
		t.Errorf("version % x, file %q, time %v", c.Version, c.File, c.Time)
	}
	if len(c.signed) != 2097 {
		t.Errorf("signed range of %d bytes, want 2097", len(c.signed))
	}
	if sum := sha1.Sum(c.signed); hex.EncodeToString(sum[:]) != "a744601c730172eb391c032fa4cec6e4fafd2512" {
		t.Errorf("signed range has SHA-1 %x", sum)
	}

	var trust Trust
	must(t, trust.Install(b))
	if !trust.Signs() {
		t.Error("golden CTL has no TFTP server that signs")
	}
	if err := trust.CheckServer(c.Records[1].Cert); err != nil {
		t.Error(err)
	}
	if err := trust.CheckServer(c.Records[0].Cert); err == nil {
		t.Error("the SAST may be the server")
	}
	if err := trust.CheckAddress(netip.MustParseAddr("203.0.113.10"), RoleCCMTFTP); err != nil {
		t.Error(err)
	}
	if err := trust.CheckAddress(netip.MustParseAddr("203.0.113.11"), RoleCCMTFTP); err == nil {
		t.Error("unknown address is known")
	}
	must(t, trust.Install(b)) // the same again is signed by an installed SAST
}

func TestInstallRefuses(t *testing.T) {
	b := decode64(t, goldenCTL)
	for _, off := range []int{0x118, 0x11e, 0x120 + 300, len(b) - 1, 0x90} {
		x := bytes.Clone(b)
		x[off] ^= 1
		var trust Trust
		if err := trust.Install(x); err == nil {
			t.Errorf("bit flipped at %#x is not noticed", off)
		}
		if trust.CTL() != nil {
			t.Errorf("bit flipped at %#x: the file is installed", off)
		}
	}
}

func TestOtherSignerIsRefused(t *testing.T) {
	first, second := newTestSigner(t, 1), newTestSigner(t, 2)
	var trust Trust
	must(t, trust.Install(first.ctl("203.0.113.10")))
	installed := trust.CTL()
	if err := trust.Install(second.ctl("203.0.113.10")); err == nil {
		t.Error("a CTL of an unknown SAST replaces the installed one")
	}
	if trust.CTL() != installed {
		t.Error("a refused CTL changed the installed one")
	}
	if _, err := trust.Open("x.sgn", second.sign("x.sgn", []byte("x"))); err == nil {
		t.Error("a file of an unknown signer is taken")
	}
	trust.Erase()
	must(t, trust.Install(second.ctl("203.0.113.10")))
}

func TestGoldenSignedFile(t *testing.T) {
	var trust Trust
	must(t, trust.Install(decode64(t, goldenCTL)))
	b := decode64(t, goldenSigned)
	const name = "SEP001122334455.cnf.xml.sgn"
	got, err := trust.Open(name, b)
	if err != nil {
		t.Fatal(err)
	}
	if want := "<device><deviceSecurityMode>3</deviceSecurityMode></device>\r\n"; string(got) != want {
		t.Errorf("payload %q, want %q", got, want)
	}
	if _, err := trust.Open("SEP001122334466.cnf.xml.sgn", b); err == nil {
		t.Error("a file signed for another name is taken")
	}
	for off := range b {
		x := bytes.Clone(b)
		x[off] ^= 0x20
		if _, err := trust.Open(name, x); err == nil && !(off >= 0x6f && off < 0x78) {
			// the tags of containers and the modulus code may be read laxly,
			// but they are signed
			t.Errorf("bit flipped at %#x is not noticed", off)
		} else if err == nil {
			t.Errorf("bit flipped at %#x in the signature info is not noticed", off)
		}
	}
	var none Trust
	if _, err := none.Open(name, b); err == nil {
		t.Error("a phone without a CTL verifies a file")
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	good := decode64(t, goldenSigned)
	edit := func(f func([]byte) []byte) []byte { return f(bytes.Clone(good)) }
	tests := []struct {
		name string
		data []byte
	}{
		{"empty", nil},
		{"first tag", edit(func(b []byte) []byte { b[0] = 2; return b })},
		{"second tag", edit(func(b []byte) []byte { b[5] = 3; return b })},
		{"header beyond file", edit(func(b []byte) []byte { binary.BigEndian.PutUint16(b[8:], 0xffff); return b })},
		{"header too short", edit(func(b []byte) []byte { binary.BigEndian.PutUint16(b[8:], 9); return b })},
		{"element beyond header", edit(func(b []byte) []byte { b[0x0e] = 0xff; return b })},
		{"cut in the header", good[:0x100]},
		{"not signed", []byte("<device></device>")},
	}
	for _, tt := range tests {
		if _, _, err := parseHeader(tt.data); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func FuzzParseCTL(f *testing.F) {
	f.Add(decode64(f, goldenCTL))
	f.Add(decode64(f, goldenSigned))
	f.Add([]byte{1, 0, 2, 1, 2, 2, 0, 2, 0, 10})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCTL(b)
		if err != nil {
			return
		}
		if len(c.signed)+len(c.signature)+3 != len(b) {
			t.Errorf("%d bytes signed and %d of signature in %d", len(c.signed), len(c.signature), len(b))
		}
		var trust Trust
		if trust.Install(b) == nil && trust.CTL() == nil {
			t.Error("installed, but not there")
		}
	})
}
