package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/pki"
)

// runPKI does a command of "patchbay pki" with a passphrase on standard input.
func runPKI(pass string, args ...string) (string, error) {
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetIn(strings.NewReader(pass + "\n"))
	c.SetArgs(append([]string{"pki"}, args...))
	err := c.Execute()
	return out.String(), err
}

func TestPKI(t *testing.T) {
	old, dir := t.TempDir(), t.TempDir()
	store, err := pki.Open(old, pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := store.Enroll(pki.EnrollRequest{Name: "_internal_PP_c_SAST_0", Subject: "CN=_internal_PP_c_SAST_0", Bits: 1024, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sast0.p12")
	for _, legacy := range []string{"--legacy=false", "--legacy"} {
		os.Remove(file)
		if out, err := runPKI("open sesame", "export", "--flash", old, legacy, id.Trustpoint, file); err != nil {
			t.Fatalf("export: %v\n%s", err, out)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the file is %v, %v; want for its owner alone", st.Mode(), err)
		}
		if _, err := runPKI("open sesame", "export", "--flash", old, id.Trustpoint, file); err == nil {
			t.Error("a file was overwritten")
		}
		flash := t.TempDir()
		if out, err := runPKI("sesame", "import", "--flash", flash, id.Trustpoint, file); err == nil || !strings.Contains(err.Error(), "passphrase does not open") ||
			strings.Contains(out+err.Error(), "sesame") {
			t.Errorf("wrong passphrase: %v\n%s", err, out)
		}
		if err := os.WriteFile(filepath.Join(dir, "pass"), []byte("open sesame\r\nmore\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := runPKI("", "import", "--flash", flash, "--passphrase-file", filepath.Join(dir, "pass"), id.Trustpoint, file); err != nil ||
			!strings.Contains(out, "INFO: trustpoint _internal_PP_c_SAST_0: CN=_internal_PP_c_SAST_0, until ") {
			t.Errorf("import: %v\n%s", err, out)
		}
		if out, err := runPKI("", "list", "--flash", flash); err != nil || !strings.Contains(out, "key pair _internal_PP_c_SAST_0: RSA, 1024 bits\n") {
			t.Errorf("list: %v\n%s", err, out)
		}
	}
	if out, err := runPKI("", "remove", "--flash", old, id.Trustpoint); err != nil {
		t.Errorf("remove: %v\n%s", err, out)
	}
	if out, err := runPKI("", "list", "--flash", old); err != nil || out != "" {
		t.Errorf("list after remove: %v\n%s", err, out)
	}
	if _, err := runPKI("", "remove", "--flash", old, id.Trustpoint); !errors.Is(err, pki.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := store.Enroll(pki.EnrollRequest{Name: id.Trustpoint, Subject: "CN=again", KeyPair: "other", Bits: 1024, Now: time.Now(), Replace: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := runPKI(strings.Repeat("x", 2000), "export", "--flash", old, id.Trustpoint, filepath.Join(dir, "long.p12")); err == nil {
		t.Error("a passphrase of 2,000 bytes was accepted")
	}
}
