package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// openssl runs the program in dir and returns what it writes.
func openssl(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs the openssl program")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// exported is an identity with its CA in the form that openssl reads.
func exported(t testing.TB, dir string) (ca, leaf authority) {
	t.Helper()
	ca = issue(t, authority{}, certSpec{cn: "Example CA", ca: true})
	leaf = issue(t, ca, certSpec{cn: "_internal_PP_ctl_SAST_0"})
	der, err := x509.MarshalPKCS8PrivateKey(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	write(t, dir, "leaf.pem", FormatCertificate(leaf.cert))
	write(t, dir, "ca.pem", FormatCertificate(ca.cert))
	return ca, leaf
}

// TestImportPKCS12 reads files of openssl in the ciphers of old ASAs and of new
// programs.
func TestImportPKCS12(t *testing.T) {
	dir := t.TempDir()
	ca, leaf := exported(t, dir)
	tests := []struct {
		name string
		args []string
	}{
		{"RC2-40 and 3DES, as old ASAs export", []string{"-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"}},
		{"3DES", []string{"-legacy", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"}},
		{"one iteration", []string{"-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1", "-noiter", "-nomaciter"}},
		{"RC2-128", []string{"-legacy", "-certpbe", "PBE-SHA1-RC2-128", "-keypbe", "PBE-SHA1-RC2-128"}},
		{"AES-256", []string{"-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC", "-macalg", "sha256"}},
		{"AES-128, 600,000 iterations", []string{"-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC", "-iter", "600000"}},
		{"certificates in the clear", []string{"-certpbe", "NONE"}},
	}
	forms := map[string]func([]byte) []byte{
		"DER":          func(der []byte) []byte { return der },
		"ASA's export": func(der []byte) []byte { return append([]byte("\nExported pkcs12 follows:\n"), FormatPKCS12(der)...) },
		"base64 and quit": func(der []byte) []byte {
			s := base64.StdEncoding.EncodeToString(der)
			return []byte("  " + s[:64] + "\r\n" + s[64:] + "\nquit\n")
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			der := openssl(t, dir, append([]string{"pkcs12", "-export", "-inkey", "key.pem", "-in", "leaf.pem", "-certfile", "ca.pem",
				"-passout", "pass:cisco 123"}, tt.args...)...)
			for form, make := range forms {
				flash := t.TempDir()
				s := open(t, flash)
				got, err := s.ImportPKCS12("tp", "cisco 123", make(der))
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if !got.Trustpoint.CA.Equal(ca.cert) || len(got.Unused) != 0 {
					t.Errorf("%s: CA %v, unused %d", form, got.Trustpoint.CA, len(got.Unused))
				}
				if _, err := s.ImportPKCS12("tp", "cisco 123", make(der)); err != nil {
					t.Errorf("%s: again: %v", form, err)
				}
				id, err := open(t, flash).Identity("tp") // after a restart
				if err != nil || !id.Cert.Equal(leaf.cert) || !samePublic(id.Key.Public(), leaf.key.Public()) {
					t.Errorf("%s: identity %v, %v", form, id, err)
				}
			}
			s := open(t, t.TempDir())
			if _, err := s.ImportPKCS12("tp", "cisco 124", der); !errors.Is(err, ErrPassphrase) {
				t.Errorf("wrong passphrase: %v", err)
			} else if strings.Contains(err.Error(), "124") {
				t.Errorf("the error has the passphrase: %v", err)
			}
			if len(s.Keys()) != 0 || len(s.Trustpoints()) != 0 {
				t.Error("a refused file left something")
			}
		})
	}
}

func TestImportPKCS12Refuses(t *testing.T) {
	dir := t.TempDir()
	_, leaf := exported(t, dir)
	good := openssl(t, dir, "pkcs12", "-export", "-inkey", "key.pem", "-in", "leaf.pem", "-passout", "pass:secret99")
	noKey := openssl(t, dir, "pkcs12", "-export", "-nokeys", "-in", "ca.pem", "-passout", "pass:secret99")
	slow := openssl(t, dir, "pkcs12", "-export", "-inkey", "key.pem", "-in", "leaf.pem", "-passout", "pass:secret99", "-iter", "1")
	// 02 01 01, one iteration, becomes 02 04 7fffffff: what takes an hour.
	slow = bytes.Replace(slow, []byte{0x02, 0x01, 0x01, 0x30}, []byte{0x02, 0x04, 0x7f, 0xff, 0xff, 0xff, 0x30}, 1)
	s := open(t, t.TempDir())
	enroll(t, s, EnrollRequest{Name: "taken", Subject: "CN=taken"})
	for _, tt := range []struct {
		name, tp string
		data     []byte
		want     string
	}{
		{"empty", "tp", nil, "neither base64 nor DER"},
		{"text", "tp", []byte("hello"), "neither base64 nor DER"},
		{"a certificate", "tp", FormatCertificate(leaf.cert), `PEM file of "CERTIFICATE"`},
		{"a certificate in DER", "tp", leaf.cert.Raw, "not PKCS #12"},
		{"broken base64", "tp", []byte("-----BEGIN PKCS12-----\n!!\n-----END PKCS12-----\n"), "base64 is broken"},
		{"cut", "tp", good[:len(good)-40], "not PKCS #12"},
		{"indefinite length", "tp", []byte{0x30, 0x80, 0x02, 0x01, 0x03, 0, 0}, "indefinite"},
		{"no key", "tp", noKey, "crypto ca authenticate"},
		{"another identity there", "taken", good, "already exists"},
		{"bad name", "a b", good, "space"},
		{"too large", "tp", make([]byte, maxFile+1), "over"},
	} {
		_, err := s.ImportPKCS12(tt.tp, "secret99", tt.data)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret99") {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	if err := checkWork(slow, 0); err == nil && bytes.Contains(slow, []byte{0x7f, 0xff, 0xff, 0xff, 0x30}) {
		t.Error("a file of 2^31 iterations was accepted")
	}
	if got := s.Trustpoints(); len(got) != 1 || len(s.Keys()) != 1 {
		t.Errorf("refused files left %v", got)
	}
}

// TestCheckWork: a salt and the iterations behind it are seen at any depth.
func TestCheckWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		der  []byte
		ok   bool
	}{
		{"few", []byte{0x30, 0x06, 0x04, 0x01, 0xaa, 0x02, 0x01, 0x01}, true},
		{"2^31-1", []byte{0x30, 0x09, 0x04, 0x01, 0xaa, 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff}, false},
		{"too large for an int", []byte{0x30, 0x0e, 0x04, 0x01, 0xaa, 0x02, 0x09, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8}, false},
		{"within octets", []byte{0x30, 0x0d, 0x04, 0x0b, 0x30, 0x09, 0x04, 0x01, 0xaa, 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff}, false},
		{"no salt before", []byte{0x30, 0x06, 0x02, 0x04, 0x7f, 0xff, 0xff, 0xff}, true},
	} {
		if err := checkWork(tt.der, 0); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestExportPKCS12: openssl and the store itself read what is exported.
func TestExportPKCS12(t *testing.T) {
	dir := t.TempDir()
	s := open(t, t.TempDir())
	id := enroll(t, s, EnrollRequest{Name: "_internal_PP_ctl_SAST_0", Subject: "CN=_internal_PP_ctl_SAST_0"})
	for _, legacy := range []bool{false, true} {
		der, err := s.ExportPKCS12(id.Trustpoint, "cisco123", legacy)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "out.p12", der)
		args := []string{"pkcs12", "-in", "out.p12", "-passin", "pass:cisco123", "-nodes"}
		if legacy {
			args = append(args, "-legacy")
		}
		text := openssl(t, dir, args...)
		if !bytes.Contains(text, FormatCertificate(id.Cert)) || !bytes.Contains(text, []byte("BEGIN PRIVATE KEY")) {
			t.Errorf("legacy %v: openssl reads\n%s", legacy, text)
		}
		other := open(t, t.TempDir())
		if _, err := other.ImportPKCS12(id.Trustpoint, "cisco123", FormatPKCS12(der)); err != nil {
			t.Fatal(err)
		}
		if got, err := other.Identity(id.Trustpoint); err != nil || !got.Cert.Equal(id.Cert) {
			t.Errorf("legacy %v: imported again: %v, %v", legacy, got, err)
		}
	}
	if _, err := s.ExportPKCS12(id.Trustpoint, "", false); err == nil {
		t.Error("exported without a passphrase")
	}
	if _, err := s.ExportPKCS12("none", "cisco123", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("no trustpoint: %v", err)
	}
}

func FuzzPKCS12(f *testing.F) {
	s, err := Open(f.TempDir(), Options{})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.Enroll(EnrollRequest{Name: "a", Subject: "CN=a", Bits: 1024, Now: now}); err != nil {
		f.Fatal(err)
	}
	for _, legacy := range []bool{false, true} {
		der, err := s.ExportPKCS12("a", "pass", legacy)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		f.Add(FormatPKCS12(der))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := openPKCS12(data, "pass")
		if err == nil && (got.key == nil || !samePublic(got.key.Public(), got.cert.PublicKey)) {
			t.Error("opened without a key of the certificate")
		}
	})
}
