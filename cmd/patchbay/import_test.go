package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImport: what import writes passes check, and the report names the file of
// PKCS#12 that was found. What is no configuration is an error.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.Mkdir(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"keys/cucm_trustpoint.p12": "",
		"nothing.txt":              "what is this\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := root()
		c.SetArgs(args)
		c.SetOut(&out)
		c.SetErr(&out)
		err := c.Execute()
		return out.String(), err
	}
	cfg, report := filepath.Join(dir, "out.cfg"), filepath.Join(dir, "report.md")
	const asa = "../../appliance/config/testdata/corpus/phone-proxy-wizard-82.cfg"
	if out, err := run("import", asa, "--pkcs12", keys, "--out", cfg, "--report", report); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	if out, err := run("check", cfg); err != nil || !strings.Contains(out, ", 0 errors,") {
		t.Errorf("check: %v\n%s", err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil || !strings.Contains(string(text), "cucm_trustpoint.p12") {
		t.Errorf("report: %v\n%s", err, text)
	}
	if _, err := run("import", filepath.Join(dir, "nothing.txt")); err == nil || !strings.Contains(err.Error(), "no line of it") {
		t.Errorf("import of no configuration: %v", err)
	}
}
