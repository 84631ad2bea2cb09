package console

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"patchbay/appliance/config"
)

// exec does commands at a privileged console without a terminal, and returns what
// they show.
func (b *testBox) exec(t *testing.T, lines ...string) string {
	t.Helper()
	in := NewInput(strings.NewReader(strings.Join(lines, "\n") + "\n"))
	defer in.Close()
	var out bytes.Buffer
	b.Serve(t.Context(), Transport{In: in, Out: &out}, Who{From: fromConsole, Level: maxPrivilege})
	return out.String()
}

// TestDir lists files and hides those that are the box's own.
func TestDir(t *testing.T) {
	b := newTestBox(t, "hostname pb\n")
	dir := b.opt.Store.Dir()
	for name, text := range map[string]string{"a.cfg": "hostname a\n", "binary.bin": "\x1b[2J", "startup-config": "hostname b\n", "ssh_host_ed25519_key": "secret", "key-x.pem": "secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := b.exec(t, "dir", "show disk0:", "more disk0:/binary.bin", "more disk0:/a.cfg", "more disk0:/key-x.pem", "more flash:/ssh_host_ed25519_key.new", "delete /noconfirm disk0:/ssh_host_ed25519_key")
	if n := len(regexp.MustCompile(`\d+ +-rwx +11 +\d\d:\d\d:\d\d \w{3} \d\d \d{4} +a\.cfg\n`).FindAllString(out, -1)); n != 2 {
		t.Errorf("a.cfg is listed %d times in\n%s", n, out)
	}
	for _, hidden := range []string{"startup-config\n", "ed25519_key\n", "key-x.pem\n", "secret", "\x1b"} {
		if strings.Contains(out, hidden) {
			t.Errorf("%q is shown in\n%s", hidden, out)
		}
	}
	if !strings.Contains(out, "binary.bin is not text: 4 bytes") || !strings.Contains(out, "# hostname a\n") {
		t.Errorf("more shows\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, "ssh_host_ed25519_key")); err != nil {
		t.Error(err)
	}
}

// TestTechSupport shows everything that helps, and no secret.
func TestTechSupport(t *testing.T) {
	b := newTestBox(t, "hostname pb\nenable password t0psecret\nusername ann password t0psecret privilege 15\n"+
		"tunnel-group 198.51.100.21 ipsec-attributes\n ikev1 pre-shared-key t0psecret\naaa-server T (inside) host 10.20.0.60\n key t0psecret\nntp authentication-key 1 md5 t0psecret\n")
	out := b.exec(t, "show tech-support")
	for _, want := range []string{"------------------ show version ------------------", "------------------ show asp drop ------------------", "------------------ show running-config ------------------",
		"\nhostname pb\n", "\n ikev1 pre-shared-key *********\n", "\n key *********\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "t0psecret") || strings.Contains(out, "$sha512") {
		t.Errorf("a secret is shown:\n%s", out)
	}
	// Every command of it is one.
	for _, line := range techSupport {
		if _, err := allCommands().Match(line, nil); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, found := config.Load("tech", strings.NewReader(out[strings.Index(out, ": Saved"):]), true); config.Errors(found) > 0 {
		t.Errorf("the configuration in it cannot be read: %v", found)
	}
}

// What comes to flash comes whole or not at all, and shows that it does.
func TestReceive(t *testing.T) {
	b := newTestBox(t, "hostname pb\n")
	store := b.opt.Store
	data := bytes.Repeat([]byte("system"), 100_000)
	var marks bytes.Buffer
	if n, err := store.ReceiveFlash("new.bin", &marked{r: bytes.NewReader(data), w: &marks}); n != int64(len(data)) || err != nil {
		t.Fatal(n, err)
	}
	if got, err := os.ReadFile(filepath.Join(store.Dir(), "new.bin")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes on flash, %v; want %d", len(got), err, len(data))
	}
	if marks.String() != "!!!" {
		t.Errorf("marks %q", &marks)
	}
	if _, err := store.ReceiveFlash("half.bin", io.MultiReader(bytes.NewReader(data), iotest.ErrReader(io.ErrUnexpectedEOF))); err == nil {
		t.Error("half a file: no error")
	}
	files, err := os.ReadDir(store.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "new.bin" && f.Type().IsRegular() {
			t.Errorf("half a file left %s", f.Name())
		}
	}
	for _, name := range []string{"../a.bin", ".a", "a/b"} {
		if _, err := store.ReceiveFlash(name, bytes.NewReader(data)); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}
