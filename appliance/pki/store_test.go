package pki

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.Damaged(); len(errs) != 0 {
		t.Fatalf("Open(%s): damaged %v", dir, errs)
	}
	return s
}

func enroll(t *testing.T, s *Store, req EnrollRequest) *Identity {
	t.Helper()
	if req.Now.IsZero() {
		req.Now = now
	}
	if req.Bits == 0 {
		req.Bits = 1024
	}
	id, err := s.Enroll(req)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestEnrollSurvivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "flash", "pki")
	s := open(t, dir)
	id := enroll(t, s, EnrollRequest{Name: "_internal_PP_myctl", Subject: "CN=_internal_PP_myctl,O=Example", FQDN: "_internal_PP_myctl.example.com"})
	c := id.Cert
	if c.SignatureAlgorithm != x509.SHA1WithRSA {
		t.Errorf("signature algorithm %v, want SHA1-RSA", c.SignatureAlgorithm)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Error(err)
	}
	if n := len(c.SerialNumber.Bytes()); n != serialLen || c.SerialNumber.Sign() <= 0 {
		t.Errorf("serial %v of %d bytes, want %d", c.SerialNumber, n, serialLen)
	}
	if want := now.AddDate(10, 0, 0); !c.NotAfter.Equal(want) {
		t.Errorf("valid until %v, want %v", c.NotAfter, want)
	}
	if want := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment; c.KeyUsage != want {
		t.Errorf("key usage %b, want %b", c.KeyUsage, want)
	}
	if c.IsCA || !cmp.Equal(c.DNSNames, []string{"_internal_PP_myctl.example.com"}) {
		t.Errorf("CA %v, DNS names %v", c.IsCA, c.DNSNames)
	}
	if got := Name(c.RawSubject); got != "CN=_internal_PP_myctl,O=Example" {
		t.Errorf("subject %s", got)
	}
	if bytes.Contains(c.RawSubject, append([]byte{asn1.TagPrintableString, 18}, "_internal"...)) {
		t.Error("subject with '_' is a PrintableString, which old and new parsers refuse")
	}
	if err := s.GenerateRSA("spare", 1024); err != nil {
		t.Fatal(err)
	}

	again := open(t, dir)
	id2, err := again.Identity("_internal_PP_myctl")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(id.DER, id2.DER) || !id.Key.(*rsa.PrivateKey).Equal(id2.Key) {
		t.Error("certificate or key is another after a restart")
	}
	var labels []string
	for _, k := range again.Keys() {
		labels = append(labels, fmt.Sprint(k.Label, " ", k.Bits))
	}
	if diff := cmp.Diff([]string{"_internal_PP_myctl 1024", "spare 1024"}, labels); diff != "" {
		t.Errorf("Keys (-want +got):\n%s", diff)
	}

	if _, err := again.Enroll(EnrollRequest{Name: "_internal_PP_myctl", Subject: "CN=x", Now: now}); !errors.Is(err, ErrExists) {
		t.Errorf("second Enroll: %v, want ErrExists", err)
	}
	id3 := enroll(t, again, EnrollRequest{Name: "_internal_PP_myctl", Subject: "CN=x", Replace: true})
	if !id3.Key.(*rsa.PrivateKey).Equal(id.Key) || bytes.Equal(id3.DER, id.DER) {
		t.Error("Replace must keep the key pair and change the certificate")
	}
}

func TestFileModes(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp"})
	if err := os.Chmod(filepath.Join(dir, "key-tp.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	got := map[string]string{}
	filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		rel, _ := filepath.Rel(dir, path)
		got[rel] = fi.Mode().String()
		return err
	})
	want := map[string]string{".": "drwx------", "key-tp.pem": "-rw-------", "trustpoint-tp.pem": "-rw-------"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("modes (-want +got):\n%s", diff)
	}
}

// TestDamaged cuts and changes files in every way that a failing flash does, and
// checks that nothing of that name is taken for absent, or written over.
func TestDamaged(t *testing.T) {
	fresh := t.TempDir()
	s := open(t, fresh)
	enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp", KeyPair: "kp"})
	if _, err := s.Authenticate("tp", caFixture(t).pem()); err != nil {
		t.Fatal(err)
	}
	read := func(file string) []byte {
		data, err := os.ReadFile(filepath.Join(fresh, file))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	tp, key := read("trustpoint-tp.pem"), read("key-kp.pem")
	secondBlock := bytes.LastIndex(tp, []byte("-----BEGIN"))
	tests := []struct {
		name, file string
		data       []byte
	}{
		{"empty", "trustpoint-tp.pem", nil},
		{"half", "trustpoint-tp.pem", tp[:len(tp)/2]},
		{"cut at a block", "trustpoint-tp.pem", tp[:secondBlock]},
		{"one byte", "trustpoint-tp.pem", bytes.Replace(tp, []byte("MII"), []byte("MIJ"), 1)},
		{"another's", "trustpoint-tp.pem", key},
		{"key empty", "key-kp.pem", nil},
		{"key half", "key-kp.pem", key[:len(key)/2]},
		{"key of zeros", "key-kp.pem", make([]byte, len(key))},
		{"key too long", "key-kp.pem", make([]byte, maxFile+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, data := range map[string][]byte{"trustpoint-tp.pem": tp, "key-kp.pem": key, tt.file: tt.data} {
				if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			errs := s.Damaged()
			if len(errs) != 1 || !errors.Is(errs[0], ErrDamaged) || !strings.Contains(errs[0].Error(), filepath.Join(dir, tt.file)) {
				t.Fatalf("Damaged() = %v, want one error naming %s", errs, tt.file)
			}
			if _, err := s.Identity("tp"); !errors.Is(err, ErrDamaged) {
				t.Errorf("Identity: %v, want ErrDamaged", err)
			}
			for _, replace := range []bool{false, true} {
				if _, err := s.Enroll(EnrollRequest{Name: "tp", Subject: "CN=tp", KeyPair: "kp", Bits: 1024, Now: now, Replace: replace}); err == nil {
					t.Errorf("Enroll with Replace %v went ahead", replace)
				}
			}
			if strings.HasPrefix(tt.file, keyPrefix) {
				if err := s.GenerateRSA("kp", 1024); !errors.Is(err, ErrDamaged) {
					t.Errorf("GenerateRSA: %v, want ErrDamaged", err)
				}
			} else if _, err := s.Authenticate("tp", caFixture(t).pem()); !errors.Is(err, ErrDamaged) {
				t.Errorf("Authenticate: %v, want ErrDamaged", err)
			}
			if data, _ := os.ReadFile(filepath.Join(dir, tt.file)); !bytes.Equal(data, tt.data) {
				t.Error("damaged file was changed")
			}
		})
	}
}

// TestForeignName renames a whole file: its content names another trustpoint.
func TestForeignName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	enroll(t, s, EnrollRequest{Name: "a", Subject: "CN=a", KeyPair: "k"})
	if err := os.Rename(filepath.Join(dir, "trustpoint-a.pem"), filepath.Join(dir, "trustpoint-b.pem")); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Identity("b"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Identity(b): %v, want ErrDamaged", err)
	}
}

func TestWrongKey(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	enroll(t, s, EnrollRequest{Name: "a", Subject: "CN=a", KeyPair: "k"})
	if err := s.GenerateRSA("other", 1024); err != nil {
		t.Fatal(err)
	}
	data, err := formatKey("k", s.keys["other"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key-k.pem"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Identity("a"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Identity with another key: %v, want ErrDamaged", err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	enroll(t, s, EnrollRequest{Name: "a", Subject: "CN=a", KeyPair: "k"})
	if err := s.RemoveKey("k"); !errors.Is(err, ErrInUse) {
		t.Errorf("RemoveKey: %v, want ErrInUse", err)
	}
	if err := s.RemoveTrustpoint("a"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveKey("k"); err != nil {
		t.Error(err)
	}
	if err := s.RemoveTrustpoint("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second RemoveTrustpoint: %v, want ErrNotFound", err)
	}
	if s = open(t, dir); len(s.Keys())+len(s.Trustpoints()) != 0 {
		t.Error("something is left after a restart")
	}
}

func TestKeysNeverPrint(t *testing.T) {
	s := open(t, t.TempDir())
	id := enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp"})
	d := id.Key.(*rsa.PrivateKey).D.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if out := fmt.Sprintf(verb, id); strings.Contains(out, d[:20]) || !strings.Contains(out, "CN=tp") {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

func TestNames(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"", "a b", "a\nb", strings.Repeat("x", 65), "a\xff"} {
		if _, err := s.Authenticate(name, caFixture(t).pem()); err == nil {
			t.Errorf("trustpoint %q was accepted", name)
		}
	}
	names := []string{"../../etc/passwd", ".", "..", "a/b", "<Default-RSA-Key>", "a%2Fb", "é", strings.Repeat("/", 64)}
	for _, name := range names {
		if _, err := s.Authenticate(name, caFixture(t).pem()); err != nil {
			t.Errorf("trustpoint %q: %v", name, err)
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != len(names) {
		t.Errorf("%d files (%v), want %d", len(entries), err, len(names))
	}
	s = open(t, s.dir)
	for _, name := range names {
		if tp, err := s.Trustpoint(name); err != nil || tp.Name != name {
			t.Errorf("Trustpoint(%q) = %q, %v", name, tp.Name, err)
		}
	}
}

func TestGenerateRSA(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bits := range []int{1, 512, 768, 1025, 8192, -1} {
		if err := s.GenerateRSA("k", bits); err == nil {
			t.Errorf("%d bits were accepted", bits)
		}
	}
	fixed := caFixture(t).key
	s.newKey = func(bits int) (*rsa.PrivateKey, error) { return fixed, nil }
	if err := s.GenerateRSA("k", 1024); err != nil {
		t.Fatal(err)
	}
	if !samePublic(s.keys["k"].Public(), fixed.Public()) {
		t.Error("the key is not NewKey's")
	}
	if err := s.GenerateRSA("k2", 2048); err == nil {
		t.Error("a key of another size was accepted")
	}
	if err := s.GenerateRSA("k", 1024); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
}

// TestDeterminism: the same chance and time give the same certificate.
func TestDeterminism(t *testing.T) {
	key := caFixture(t).key
	var der [2][]byte
	for i := range der {
		s, err := Open(t.TempDir(), Options{
			Rand:   bytes.NewReader(bytes.Repeat([]byte{0xff, 3}, 64)),
			NewKey: func(int) (*rsa.PrivateKey, error) { return key, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		der[i] = enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp"}).DER
	}
	if !bytes.Equal(der[0], der[1]) {
		t.Error("certificates differ")
	}
}

func TestAuthenticate(t *testing.T) {
	ca := caFixture(t)
	b64 := base64.StdEncoding.EncodeToString(ca.cert.Raw)
	var lines strings.Builder
	for i := 0; i < len(b64); i += 64 {
		lines.WriteString(b64[i:min(i+64, len(b64))] + "\r\n")
	}
	tests := []struct {
		name string
		data string
		ok   bool
	}{
		{"PEM", string(ca.pem()), true},
		{"PEM after a text", "Cisco Manufacturing CA\n" + string(ca.pem()) + "quit\n", true},
		{"DER", string(ca.cert.Raw), true},
		{"base64", b64, true},
		{"base64 in lines with quit", lines.String() + "quit\n", true},
		{"empty", "", false},
		{"quit", "quit\n", false},
		{"PEM cut", string(ca.pem()[:200]), false},
		{"DER cut", string(ca.cert.Raw[:200]), false},
		{"base64 cut", b64[:400], false},
		{"two", string(ca.pem()) + string(ca.pem()), false},
		{"key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(ca.key)})), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			cert, err := s.Authenticate("ca", []byte(tt.data))
			if (err == nil) != tt.ok {
				t.Fatalf("Authenticate: %v, want success %v", err, tt.ok)
			}
			if !tt.ok {
				if len(s.Anchors()) != 0 {
					t.Error("an anchor was installed")
				}
				return
			}
			if !cert.Equal(ca.cert) || len(s.Anchors()) != 1 || s.Anchors()[0].Trustpoint != "ca" {
				t.Errorf("anchors %v", s.Anchors())
			}
			if _, err := s.Authenticate("ca", []byte(tt.data)); err != nil {
				t.Errorf("same again: %v", err)
			}
			if _, err := s.Authenticate("ca", issue(t, authority{}, certSpec{cn: "other", ca: true}).pem()); !errors.Is(err, ErrExists) {
				t.Errorf("another: %v, want ErrExists", err)
			}
			if got := open(t, s.dir).Anchors(); len(got) != 1 || !got[0].Cert.Equal(ca.cert) {
				t.Errorf("after a restart: %v", got)
			}
		})
	}
}

func TestImportCADir(t *testing.T) {
	dir := t.TempDir()
	a, b := caFixture(t), issue(t, authority{}, certSpec{cn: "CAPF-e41e7d87"})
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("Cisco_Manufacturing_CA.pem", a.pem())
	write("CAPF.der", b.cert.Raw)
	write("bundle.crt", append(a.pem(), b.pem()...))
	write("notes.txt", []byte("not a certificate"))
	s := open(t, t.TempDir())
	for range 2 { // the second time nothing is left to do
		if _, err := s.ImportCADir(dir); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, a := range open(t, s.dir).Anchors() {
		got = append(got, a.Trustpoint+" "+a.Cert.Subject.CommonName)
	}
	want := []string{"CAPF CAPF-e41e7d87", "Cisco_Manufacturing_CA Cisco Manufacturing CA",
		"bundle Cisco Manufacturing CA", "bundle_2 CAPF-e41e7d87"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("anchors (-want +got):\n%s", diff)
	}
	if one, err := ReadCAs(filepath.Join(dir, "CAPF.der")); err != nil || len(one) != 1 || one[0].Trustpoint != "CAPF" {
		t.Errorf("ReadCAs of a file: %v, %v", one, err)
	}
	write("broken.pem", a.pem()[:100])
	if _, err := s.ImportCADir(dir); err == nil || !strings.Contains(err.Error(), "broken.pem") {
		t.Errorf("broken file: %v, want an error that names it", err)
	}
}

func TestSetIdentity(t *testing.T) {
	s := open(t, t.TempDir())
	ca := caFixture(t)
	if err := s.ImportKey("k", ca.key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetIdentity("tp", "k", ca.cert); err != nil {
		t.Error(err)
	}
	if err := s.GenerateRSA("k2", 1024); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetIdentity("tp2", "k2", ca.cert); err == nil {
		t.Error("certificate of another key was accepted")
	}
	if _, err := s.SetIdentity("tp2", "none", ca.cert); !errors.Is(err, ErrNotFound) {
		t.Errorf("no key: %v, want ErrNotFound", err)
	}
}

// FuzzFiles feeds both file formats of the store; the seeds carry a right sum,
// and the fuzzed bytes are sealed too, so that what follows the sum is reached.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(`patchbay-trustpoint 1 "a" "k" identity ca` + "\n"))
	f.Add([]byte(`patchbay-key 1 "a"` + "\n-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sealed := seal(bytes.NewBuffer(bytes.Clone(data)))
		if tp, err := parseTrustpoint(sealed); err == nil {
			again, err := parseTrustpoint(formatTrustpoint(tp))
			if err != nil || again.Name != tp.Name || again.KeyPair != tp.KeyPair {
				t.Errorf("trustpoint %+v does not survive: %v", tp, err)
			}
		}
		if _, key, err := parseKey(sealed); err == nil && key == nil {
			t.Error("no key and no error")
		}
		if certs, err := parseCertificates(data); err == nil && len(certs) == 0 {
			t.Error("no certificate and no error")
		}
	})
}

func FuzzParseSubject(f *testing.F) {
	f.Add("CN=ucm.example.com,OU=Voice,O=Example,C=DE")
	f.Add(`CN="Example, Inc.",O=a\,b`)
	f.Add("CN=x,,")
	f.Add(`EA=a@example.com,\`)
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseSubject(s)
		if err != nil {
			return
		}
		der, err := asn1.Marshal(name)
		if err != nil {
			t.Fatalf("ParseSubject(%q) cannot be encoded: %v", s, err)
		}
		if len(Name(der)) > maxPrinted+8 {
			t.Errorf("Name of %q is %d bytes", s, len(Name(der)))
		}
	})
}

func TestParseSubject(t *testing.T) {
	tests := []struct {
		in, want string // want as Name gives it; "" for an error
	}{
		{"CN=cucm_tftp_server", "CN=cucm_tftp_server"},
		{"CN=ucm.example.com,OU=Voice,O=Example,L=Berlin,ST=BE,C=DE", "CN=ucm.example.com,OU=Voice,O=Example,L=Berlin,ST=BE,C=DE"},
		{" cn = a , o = Example Corp ", "CN=a,O=Example Corp"},
		{`CN=a,O="Example, Inc."`, `CN=a,O=Example\, Inc.`},
		{`CN=a,O=Example\, Inc.`, `CN=a,O=Example\, Inc.`},
		{"CN=a,OU=x,OU=y", "CN=a,OU=x,OU=y"},
		{"CN=a=b", "CN=a=b"},
		{"", ""},
		{"CN", ""},
		{"CN=", ""},
		{"CN=a,", ""},
		{"CN=a,FOO=b", ""},
		{"C=DEU", ""},
		{"C=D1", ""},
		{`CN="a`, ""},
		{`CN=a\`, ""},
		{"CN=a\x00", ""},
		{"CN=" + strings.Repeat("x", 65), ""},
		{"O=" + strings.Repeat("x", maxSubject), ""},
		{"EA=é@example.com", ""},
	}
	for _, tt := range tests {
		name, err := ParseSubject(tt.in)
		if (err == nil) != (tt.want != "") {
			t.Errorf("ParseSubject(%q): %v, want %q", tt.in, err, tt.want)
			continue
		}
		if err != nil {
			continue
		}
		der, err := asn1.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := Name(der); got != tt.want {
			t.Errorf("ParseSubject(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestEnrollRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	tests := []struct {
		name string
		req  EnrollRequest
	}{
		{"no name", EnrollRequest{Subject: "CN=a", Now: now}},
		{"no subject", EnrollRequest{Name: "a", Now: now}},
		{"no time", EnrollRequest{Name: "a", Subject: "CN=a"}},
		{"MD5", EnrollRequest{Name: "a", Subject: "CN=a", Now: now, SignatureAlgorithm: x509.MD5WithRSA}},
		{"FQDN", EnrollRequest{Name: "a", Subject: "CN=a", FQDN: "a b", Now: now}},
		{"FQDN with empty label", EnrollRequest{Name: "a", Subject: "CN=a", FQDN: "a..b", Now: now}},
		{"years", EnrollRequest{Name: "a", Subject: "CN=a", Now: now, Years: 51}},
	}
	for _, tt := range tests {
		tt.req.Bits = 1024
		if _, err := s.Enroll(tt.req); err == nil {
			t.Errorf("%s: was accepted", tt.name)
		}
	}
	id := enroll(t, s, EnrollRequest{Name: "fqdn", FQDN: "ucm.example.com", SignatureAlgorithm: x509.SHA256WithRSA})
	if id.Cert.Subject.CommonName != "ucm.example.com" || id.Cert.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("got %v, %v", id, id.Cert.SignatureAlgorithm)
	}
	if sum := sha1.Sum(id.DER); !bytes.Equal(id.DER, id.Cert.Raw) || sum == [20]byte{} {
		t.Error("DER is not the certificate")
	}
}
