package console

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
)

// TestImportedCertificates imports PKCS #12 files, at the console and while the
// box does not run: what comes is in the running configuration as an ASA has it,
// serial number, rows of hexadecimal and quit, and is the same when it is loaded.
func TestImportedCertificates(t *testing.T) {
	old, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p12 := make(map[string][]byte)
	for _, name := range []string{"sast0", "server"} {
		if err := old.GenerateRSA(name, 1024); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Enroll(pki.EnrollRequest{Name: name, Subject: "CN=" + name, KeyPair: name, Now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}); err != nil {
			t.Fatal(err)
		}
		if p12[name], err = old.ExportPKCS12(name, "secret", true); err != nil {
			t.Fatal(err)
		}
	}

	b := newTestBox(t, "hostname pb\ncrypto ca trustpoint server\n enrollment terminal\n")
	in := NewInput(strings.NewReader("crypto ca import sast0 pkcs12 secret\n" + inRows(p12["sast0"]) + "quit\n"))
	defer in.Close()
	var out bytes.Buffer
	b.Serve(t.Context(), Transport{In: in, Out: &out}, Who{From: fromConsole, Level: maxPrivilege})
	want, _ := old.Trustpoint("sast0")
	text := b.Text().String()
	if !strings.Contains(text, "crypto ca trustpoint sast0\n keypair sast0\n") {
		t.Fatalf("the trustpoint is not in the configuration:\n%s\n%s", text, &out)
	}
	chain := section(t, b.Text(), "crypto", "ca", "certificate", "chain", "sast0")
	lines := strings.Split(strings.TrimSpace(chain), "\n")
	serial := hex.EncodeToString(want.Identity.SerialNumber.Bytes())
	if len(lines) < 5 || !strings.HasSuffix(lines[1], " certificate "+serial) && !strings.HasSuffix(lines[1], " certificate 00"+serial) || lines[len(lines)-1] != "  quit" {
		t.Fatalf("the chain is\n%s", chain)
	}
	der, err := hex.DecodeString(strings.Join(strings.Fields(strings.Join(lines[2:len(lines)-1], " ")), ""))
	if err != nil || !bytes.Equal(der, want.Identity.Raw) {
		t.Errorf("the rows are not the certificate (%v):\n%s", err, chain)
	}
	again, found := config.Load("again", strings.NewReader(text), false)
	if config.Errors(found) > 0 || !again.Equal(b.Text()) {
		t.Errorf("loaded again it is another text: %v", found)
	}

	// While the box does not run.
	if _, err := b.opt.Store.ImportPKCS12("server", "secret", p12["server"]); err != nil {
		t.Fatal(err)
	}
	restarted, err := NewBox(b.opt)
	if err != nil {
		t.Fatal(err)
	}
	if chain := section(t, restarted.Text(), "crypto", "ca", "certificate", "chain", "server"); strings.Count(chain, "\n certificate ") != 1 {
		t.Errorf("after a start the chain is\n%s\n%s", chain, b.logged())
	}
}

// inRows writes data in base64, as "crypto ca export" shows it.
func inRows(data []byte) string {
	var b strings.Builder
	for text := base64.StdEncoding.EncodeToString(data); len(text) > 0; {
		n := min(64, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return b.String()
}

func section(t *testing.T, text config.Text, words ...string) string {
	t.Helper()
	var b strings.Builder
	if err := text.Render(&b, false, words...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
