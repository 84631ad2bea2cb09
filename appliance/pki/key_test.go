package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestECDSA(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, bits := range []int{256, 384, 521, 0} {
		if err := s.GenerateECDSA(fmt.Sprint("e", bits), bits); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.GenerateECDSA("e", 224); err == nil {
		t.Error("a curve of 224 bits was accepted")
	}
	if err := s.GenerateECDSA("e256", 256); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
	id := enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp", KeyPair: "e256"})
	if id.Cert.SignatureAlgorithm != x509.ECDSAWithSHA256 || id.Cert.KeyUsage != x509.KeyUsageDigitalSignature {
		t.Errorf("certificate: %v, usage %b", id.Cert.SignatureAlgorithm, id.Cert.KeyUsage)
	}
	s = open(t, dir) // a restart
	var got []string
	for _, k := range s.Keys() {
		got = append(got, fmt.Sprintf("%s %s %d", k.Label, k.Kind(), k.Bits))
	}
	if diff := cmp.Diff([]string{"e0 ecdsa 384", "e256 ecdsa 256", "e384 ecdsa 384", "e521 ecdsa 521"}, got); diff != "" {
		t.Errorf("Keys (-want +got):\n%s", diff)
	}
	again, err := s.Identity("tp")
	if err != nil || !samePublic(again.Key.Public(), id.Cert.PublicKey) {
		t.Errorf("after a restart: %v, %v", again, err)
	}
	der, err := s.ExportPKCS12("tp", "pass", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, t.TempDir()).ImportPKCS12("tp", "pass", der); err != nil {
		t.Errorf("its own export: %v", err)
	}
}

func TestRenameTrustpoint(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := enroll(t, s, EnrollRequest{Name: "a", Subject: "CN=a"})
	enroll(t, s, EnrollRequest{Name: "b", Subject: "CN=b"})
	if err := s.RenameTrustpoint("a", "b"); !errors.Is(err, ErrExists) {
		t.Errorf("to a name that is taken: %v", err)
	}
	if err := s.RenameTrustpoint("none", "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	if err := s.RenameTrustpoint("a", "c d"); err == nil {
		t.Error("to a name with a space")
	}
	if err := s.RenameTrustpoint("a", "c"); err != nil {
		t.Fatal(err)
	}
	// A power failure left the old name too.
	if _, err := s.SetIdentity("a", "a", id.Cert); err != nil {
		t.Fatal(err)
	}
	if err := s.RenameTrustpoint("a", "c"); err != nil {
		t.Errorf("again after a power failure: %v", err)
	}
	s = open(t, dir)
	if _, err := s.Trustpoint("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old name: %v", err)
	}
	if got, err := s.Identity("c"); err != nil || !got.Cert.Equal(id.Cert) {
		t.Errorf("the new name: %v, %v", got, err)
	}
}

func TestExpiring(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Authenticate("ca", issue(t, authority{}, certSpec{cn: "ends", ca: true, from: now, to: now.Add(10 * 24 * time.Hour)}).cert.Raw); err != nil {
		t.Fatal(err)
	}
	enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp", Years: 1})
	for _, tt := range []struct {
		after time.Duration
		want  []string
	}{
		{0, []string{"ca true false"}},
		{11 * 24 * time.Hour, []string{"ca true true"}},
		{360 * 24 * time.Hour, []string{"ca true true", "tp false false"}},
		{-100 * 24 * time.Hour, nil},
	} {
		var got []string
		for _, e := range s.Expiring(now.Add(tt.after), 60*24*time.Hour) {
			got = append(got, fmt.Sprint(e.Trustpoint, " ", e.CA, " ", e.Left < 0))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", tt.after, diff)
		}
	}
}

func TestFlash(t *testing.T) {
	s := open(t, t.TempDir())
	enroll(t, s, EnrollRequest{Name: "tp", Subject: "CN=tp"})
	if err := s.WriteFlash("disk0:/old.tlv", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"disk0:/old.tlv", "disk0:old.tlv", "flash:/old.tlv", "old.tlv"} {
		if data, err := s.ReadFlash(path); err != nil || string(data) != "hello" {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
	if _, err := s.ReadFlash("disk0:/none.tlv"); !errors.Is(err, ErrNotFound) {
		t.Errorf("none: %v", err)
	}
	for _, path := range []string{"", ".", "..", "disk0:/", "disk0:/../etc/passwd", "/etc/passwd", "a/b", `a\b`, "disk1:/old.tlv", ".hidden",
		"key-tp.pem", "disk0:/trustpoint-tp.pem"} {
		if _, err := s.ReadFlash(path); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("reading %q: %v", path, err)
		}
		if err := s.WriteFlash(path, nil); err == nil {
			t.Errorf("wrote %q", path)
		}
	}
	if _, err := open(t, s.Dir()).Identity("tp"); err != nil {
		t.Error(err)
	}
}
