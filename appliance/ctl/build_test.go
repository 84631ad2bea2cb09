package ctl

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"patchbay/appliance/pki"
)

// store returns a Store whose nth key is the same in all tests, to spare the
// time of making them.
func store(t testing.TB, dir string) *pki.Store { return storeFrom(t, dir, 0) }

// storeFrom is store with keys from number next on.
func storeFrom(t testing.TB, dir string, next int) *pki.Store {
	t.Helper()
	s, err := pki.Open(dir, pki.Options{NewKey: func(bits int) (*rsa.PrivateKey, error) {
		next++
		return testKey(next, bits)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var testKeys sync.Map

func testKey(n, bits int) (*rsa.PrivateKey, error) {
	id := [2]int{n, bits}
	if k, ok := testKeys.Load(id); ok {
		return k.(*rsa.PrivateKey), nil
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err == nil {
		testKeys.Store(id, k)
	}
	return k, err
}

func enroll(t testing.TB, s *pki.Store, req pki.EnrollRequest) *pki.Identity {
	t.Helper()
	req.Now = now
	if req.Bits == 0 {
		req.Bits = 1024
	}
	id, err := s.Enroll(req)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func identities(set *TokenSet) []*pki.Identity {
	var ids []*pki.Identity
	for _, x := range set.SASTs {
		ids = append(ids, x.Identity)
	}
	return ids
}

func certs(ids []*pki.Identity) []*x509.Certificate {
	var list []*x509.Certificate
	for _, id := range ids {
		list = append(list, id.Cert)
	}
	return list
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	s := store(t, dir)
	set, err := Tokens(s, "myctl", 2, "example.com", now)
	if err != nil {
		t.Fatal(err)
	}
	internal, sasts := set.Internal, identities(set)
	var got []string
	for _, id := range append([]*pki.Identity{internal}, sasts...) {
		c := id.Cert
		got = append(got, fmt.Sprintln(id, c.SignatureAlgorithm, c.PublicKey.(*rsa.PublicKey).Size(), c.DNSNames, len(c.SerialNumber.Bytes()), c.IsCA))
	}
	want := []string{
		"_internal_PP_myctl (CN=_internal_PP_myctl) SHA1-RSA 256 [_internal_PP_myctl.example.com] 8 false\n",
		"_internal_PP_myctl_SAST_0 (CN=_internal_PP_myctl_SAST_0) SHA1-RSA 256 [] 8 false\n",
		"_internal_PP_myctl_SAST_1 (CN=_internal_PP_myctl_SAST_1) SHA1-RSA 256 [] 8 false\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Tokens (-want +got):\n%s", diff)
	}

	// After a restart, with one token more: the old ones stay.
	set2, err := Tokens(store(t, dir), "myctl", 3, "other.example.com", now.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	internal2, sasts2 := set2.Internal, identities(set2)
	if !internal.Cert.Equal(internal2.Cert) || !sasts[0].Cert.Equal(sasts2[0].Cert) || !sasts[1].Cert.Equal(sasts2[1].Cert) || len(sasts2) != 3 {
		t.Error("tokens were replaced")
	}

	for _, n := range []int{0, 6, -1} {
		if _, err := Tokens(s, "myctl", n, "", now); err == nil {
			t.Errorf("%d tokens were accepted", n)
		}
	}
	if _, err := Tokens(s, strings.Repeat("x", 60), 1, "", now); err == nil {
		t.Error("a name that makes too long a trustpoint was accepted")
	}

	// A token whose file is damaged, or whose key is gone, is not made anew.
	path := filepath.Join(dir, "trustpoint-_internal_PP_myctl_SAST_1.pem")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	set, err = Tokens(store(t, dir), "myctl", 2, "", now)
	if err != nil || len(set.SASTs) != 1 || len(set.Lost) != 1 || !errors.Is(set.Lost[0], pki.ErrDamaged) {
		t.Errorf("one token damaged: %+v, %v; want the other", set, err)
	}
	if err := os.Remove(filepath.Join(dir, "key-_internal_PP_myctl_SAST_0.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := Tokens(store(t, dir), "myctl", 1, "", now); !errors.Is(err, pki.ErrNotFound) {
		t.Errorf("token without key: %v, want ErrNotFound", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "key-_internal_PP_myctl_SAST_0.pem")); err == nil {
		t.Error("a key was made for a certificate that has another")
	}
}

func TestBuild(t *testing.T) {
	s := store(t, t.TempDir())
	set, err := Tokens(s, "myctl", 2, "example.com", now)
	if err != nil {
		t.Fatal(err)
	}
	internal, sasts := set.Internal, identities(set)
	ucm := enroll(t, s, pki.EnrollRequest{Name: "ucm", Subject: "CN=ucm,OU=Voice,O=Example,L=Berlin,ST=BE,C=DE"})
	capf := enroll(t, s, pki.EnrollRequest{Name: "capf", Subject: "CN=CAPF-e41e7d87"})
	a, b := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")
	records, err := Assemble([]Entry{
		{Role: CCM, Cert: ucm.Cert, Addr: a, Domain: "example.com"},
		{Role: TFTP, Cert: ucm.Cert, Addr: a, Domain: "example.com"},
		{Role: CCMTFTP, Cert: ucm.Cert, Addr: b},
		{Role: CAPF, Cert: capf.Cert, Addr: netip.MustParseAddr("203.0.113.12")},
	}, nil, internal)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []Digest{0, SHA512} {
		p := Params{SASTs: certs(sasts), Records: records, Signer: sasts[1], Time: now, Digest: digest}
		data, err := Build(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Build(p)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("built again it differs (%v)", err)
		}
		f, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Verify(); err != nil {
			t.Error(err)
		}
		if want := max(digest, SHA1); f.Header.Digest != want || f.Header.Length%4 != 0 || f.Header.Modulus != 2 || f.Header.Version != [2]byte{1, 2} {
			t.Errorf("header %+v, want %v", f.Header, want)
		}
		if f.Header.SignerName != f.Records[1].SubjectName || f.Header.CAName != f.Records[1].IssuerName || !bytes.Equal(f.Header.Serial, f.Records[1].Serial) {
			t.Error("the header does not name its signer as the record does")
		}
		var got []string
		for _, r := range f.Records {
			got = append(got, fmt.Sprintf("%v|%s|%s|%v", r.Role, r.DNSName, r.SubjectName, r.IP))
		}
		want := []string{
			"System Administrator Security Token||CN=_internal_PP_myctl_SAST_0|invalid IP",
			"System Administrator Security Token||CN=_internal_PP_myctl_SAST_1|invalid IP",
			"CCM+TFTP|_internal_PP_myctl.example.com|CN=_internal_PP_myctl|203.0.113.10",
			"CCM+TFTP|_internal_PP_myctl.example.com|CN=_internal_PP_myctl|203.0.113.11",
			"CCM|ucm.example.com|CN=ucm;OU=Voice;O=Example;L=Berlin;ST=BE;C=DE|203.0.113.10",
			"TFTP|ucm.example.com|CN=ucm;OU=Voice;O=Example;L=Berlin;ST=BE;C=DE|203.0.113.10",
			"CCM+TFTP|ucm|CN=ucm;OU=Voice;O=Example;L=Berlin;ST=BE;C=DE|203.0.113.11",
			"CAPF|CAPF-e41e7d87|CN=CAPF-e41e7d87|203.0.113.12",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
		// The two invariants, for either choice of the TLS server's certificate.
		if !f.Trusts(internal.Cert, TFTP, CCMTFTP) || !f.Trusts(internal.Cert, CCM, CCMTFTP) || !f.Trusts(ucm.Cert, CCM, CCMTFTP) {
			t.Error("phones would not trust what the box shows")
		}
		if f.Trusts(capf.Cert, CCM, CCMTFTP, TFTP) || f.Trusts(sasts[0].Cert, CCM, CCMTFTP, TFTP) {
			t.Error("phones would trust what is not the box's")
		}

		sgn, err := BuildSigned("SEP001122334455.cnf.xml.sgn", []byte("<device/>\n"), internal, now, digest)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := ParseSigned(sgn)
		if err != nil {
			t.Fatal(err)
		}
		if err := signed.VerifyBy(f); err != nil {
			t.Error(err)
		}
		if string(signed.Payload) != "<device/>\n" || signed.Header.FileName != "SEP001122334455.cnf.xml.sgn" || signed.Header.Version != [2]byte{1, 0} {
			t.Errorf("signed file %+v", signed)
		}
	}
}

// TestVerifyBy: a phone takes a later file from any token of its file, whichever
// signed that one, and from nobody else's.
func TestVerifyBy(t *testing.T) {
	build := func(dir string, key, signer int) *File {
		s := storeFrom(t, dir, key)
		set, err := Tokens(s, "c", 2, "", now)
		if err != nil {
			t.Fatal(err)
		}
		internal, sasts := set.Internal, identities(set)
		r, err := NewRecord(CCMTFTP, internal.Cert, "", netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		data, err := Build(Params{SASTs: certs(sasts), Records: []Record{r}, Signer: sasts[signer], Time: now})
		if err != nil {
			t.Fatal(err)
		}
		f, err := Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	dir := t.TempDir()
	first, second, stranger := build(dir, 0, 0), build(dir, 0, 1), build(t.TempDir(), 10, 0)
	if err := second.VerifyBy(first); err != nil {
		t.Error(err)
	}
	if err := stranger.VerifyBy(first); err == nil {
		t.Error("a stranger's file was accepted")
	}
	// The stranger copies the serial number of our token.
	forged := *stranger
	forged.Header.Serial = first.Records[0].Serial
	if err := forged.VerifyBy(first); err == nil {
		t.Error("a forged file was accepted")
	}
	// A record whose public key is not its certificate's verifies nothing.
	mixed := *first
	mixed.Records = append([]Record(nil), first.Records...)
	mixed.Records[0].PublicKey = stranger.Records[0].PublicKey
	if err := mixed.Verify(); err == nil {
		t.Error("a record with two keys verified")
	}
}

func TestBuildRefuses(t *testing.T) {
	s := store(t, t.TempDir())
	id := enroll(t, s, pki.EnrollRequest{Name: "a", Subject: "CN=a"})
	other := enroll(t, s, pki.EnrollRequest{Name: "b", Subject: "CN=b"})
	odd := enroll(t, s, pki.EnrollRequest{Name: "c", Subject: "CN=c", Bits: 3072})
	rec := func(role Role) Record {
		r, err := NewRecord(role, other.Cert, "", netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	sast := []*x509.Certificate{id.Cert}
	many := make([]Record, MaxRecords)
	for i := range many {
		many[i] = rec(CCM)
	}
	big := rec(CCM)
	big.DER = make([]byte, 60000)
	tests := []struct {
		name string
		p    Params
	}{
		{"no token", Params{Signer: id, Time: now}},
		{"six tokens", Params{SASTs: []*x509.Certificate{id.Cert, id.Cert, id.Cert, id.Cert, id.Cert, id.Cert}, Signer: id, Time: now}},
		{"no signer", Params{SASTs: sast, Time: now}},
		{"signer is no token", Params{SASTs: sast, Signer: other, Time: now}},
		{"foreign token", Params{SASTs: sast, Signer: id, Time: now, Records: []Record{rec(SAST)}}},
		{"two CAPF records", Params{SASTs: sast, Signer: id, Time: now, Records: []Record{rec(CAPF), rec(CAPF)}}},
		{"too many records", Params{SASTs: sast, Signer: id, Time: now, Records: many}},
		{"too large", Params{SASTs: sast, Signer: id, Time: now, Records: []Record{big, big, big}}},
		{"no time", Params{SASTs: sast, Signer: id}},
		{"time after 2106", Params{SASTs: sast, Signer: id, Time: time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC)}},
		{"digest", Params{SASTs: sast, Signer: id, Time: now, Digest: 9}},
		{"SHA-256", Params{SASTs: sast, Signer: id, Time: now, Digest: SHA256}},
		{"key of 3072 bits", Params{SASTs: []*x509.Certificate{odd.Cert}, Signer: odd, Time: now}},
		{"file name", Params{SASTs: sast, Signer: id, Time: now, FileName: "a\x00b"}},
	}
	for _, tt := range tests {
		if _, err := Build(tt.p); err == nil || !strings.HasPrefix(err.Error(), "ctl: building: ") {
			t.Errorf("%s: %v, want an error", tt.name, err)
		}
	}
	if _, err := BuildSigned("a.sgn", make([]byte, MaxPayload+1), id, now, 0); err == nil {
		t.Error("an oversized payload was signed")
	}
	if _, err := BuildSigned("", nil, id, now, 0); err == nil {
		t.Error("a file without name was signed")
	}
	if _, err := BuildSigned(strings.Repeat("x", maxFileName+1), nil, id, now, 0); err == nil {
		t.Error("a name that no request holds was signed")
	}
}

func TestAssemble(t *testing.T) {
	s := store(t, t.TempDir())
	internal := enroll(t, s, pki.EnrollRequest{Name: "_internal_PP_c", Subject: "CN=_internal_PP_c"})
	ucm := enroll(t, s, pki.EnrollRequest{Name: "ucm", FQDN: "ucm.example.com"})
	a := netip.MustParseAddr("203.0.113.10")
	show := func(list []Record) (out []string) {
		for _, r := range list {
			out = append(out, fmt.Sprintf("%v|%s|%s|%v", r.Role, r.DNSName, r.SubjectName, r.IP))
		}
		return out
	}
	vec, err := Parse(vector(t, "vector-ctl.b64"))
	if err != nil {
		t.Fatal(err)
	}
	noIP := &File{Records: []Record{vec.Records[1]}}
	noIP.Records[0].IP = netip.Addr{}
	tests := []struct {
		name    string
		entries []Entry
		cluster *File
		want    []string // nil for an error
	}{
		{"the entry is the internal trustpoint's", []Entry{{Role: CCM, Cert: internal.Cert, Addr: a, Domain: "example.com"}}, nil,
			[]string{"CCM+TFTP|_internal_PP_c.example.com|CN=_internal_PP_c|203.0.113.10"}},
		{"the same entry twice", []Entry{{Role: CCM, Cert: ucm.Cert, Addr: a}, {Role: CCM, Cert: ucm.Cert, Addr: a}}, nil, []string{
			"CCM+TFTP|_internal_PP_c|CN=_internal_PP_c|203.0.113.10", "CCM|ucm.example.com|CN=ucm.example.com|203.0.113.10"}},
		{"cluster's file", nil, vec, []string{
			"CCM+TFTP|_internal_PP_c|CN=_internal_PP_c|203.0.113.10",
			"CCM+TFTP|_internal_PP_ctl1.example.com|CN=_internal_PP_ctl1;OU=STG;O=Example|203.0.113.10"}},
		{"cluster's file without addresses", nil, noIP, []string{
			"CCM+TFTP|_internal_PP_ctl1.example.com|CN=_internal_PP_c|invalid IP",
			"CCM+TFTP|_internal_PP_ctl1.example.com|CN=_internal_PP_ctl1;OU=STG;O=Example|invalid IP"}},
		{"nothing", nil, nil, nil},
		{"CAPF alone", []Entry{{Role: CAPF, Cert: ucm.Cert, Addr: a}}, nil, nil},
		{"no certificate", []Entry{{Role: CCM, Addr: a}}, nil, nil},
		{"no address", []Entry{{Role: CCM, Cert: ucm.Cert}}, nil, nil},
		{"token as entry", []Entry{{Role: SAST, Cert: ucm.Cert, Addr: a}}, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Assemble(tt.entries, tt.cluster, internal)
			if (err == nil) != (tt.want != nil) {
				t.Fatalf("Assemble: %v, want %v", err, tt.want)
			}
			if diff := cmp.Diff(tt.want, show(got)); diff != "" {
				t.Errorf("Assemble (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewRecordRefuses(t *testing.T) {
	s := store(t, t.TempDir())
	id := enroll(t, s, pki.EnrollRequest{Name: "a", Subject: "CN=a"})
	if _, err := NewRecord(CCM, id.Cert, "a\x00b", netip.Addr{}); err == nil {
		t.Error("a DNS name with NUL was accepted")
	}
	if _, err := NewRecord(CCM, id.Cert, strings.Repeat("a", 256), netip.Addr{}); err == nil {
		t.Error("a DNS name of 256 bytes was accepted")
	}
	big := *id.Cert
	big.Raw = make([]byte, 65530)
	if _, err := NewRecord(CCM, &big, "", netip.Addr{}); err == nil {
		t.Error("a certificate that does not fit was accepted")
	}
	r, err := NewRecord(CCM, id.Cert, "", netip.MustParseAddr("::ffff:203.0.113.10"))
	if err != nil || r.IP != netip.MustParseAddr("203.0.113.10") {
		t.Errorf("mapped address became %v, %v", r.IP, err)
	}
}

func TestRoleOf(t *testing.T) {
	for word, want := range map[string]Role{"cucm": CCM, "cucm-tftp": CCMTFTP, "tftp": TFTP, "capf": CAPF} {
		if got, err := RoleOf(word); got != want || err != nil {
			t.Errorf("RoleOf(%q) = %v, %v; want %v", word, got, err, want)
		}
	}
	if _, err := RoleOf("sast"); err == nil {
		t.Error(`RoleOf("sast") was accepted`)
	}
}

func BenchmarkBuildSigned(b *testing.B) {
	s := store(b, b.TempDir())
	id := enroll(b, s, pki.EnrollRequest{Name: "a", Subject: "CN=a", Bits: 2048})
	payload := make([]byte, 8<<10)
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := BuildSigned("SEP001122334455.cnf.xml.sgn", payload, id, now, 0); err != nil {
			b.Fatal(err)
		}
	}
}
