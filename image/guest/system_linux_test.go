package guest

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/image/disk"
)

// testKey is a key of a number, and its public part.
func testKey(n byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	return key, key.Public().(ed25519.PublicKey)
}

// testSystem is a system of a name, large enough to be cut in several places.
func testSystem(name string) disk.System {
	return disk.System{Kernel: bytes.Repeat([]byte(name+" kernel "), 500), Initrd: bytes.Repeat([]byte(name+" initrd "), 500), Version: name}
}

func bundle(t *testing.T, s disk.System, key ed25519.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := disk.WriteBundle(&b, s, key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newESP is an ESP with a system in slot a, and GRUB's environment.
func newESP(t *testing.T, env disk.Env) esp {
	t.Helper()
	e := esp(t.TempDir())
	for _, dir := range []string{"grub", disk.SlotDir} {
		if err := os.Mkdir(filepath.Join(string(e), dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b, err := env.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	e.write(t, disk.EnvFile, b)
	if err := e.install(bytes.NewReader(bundle(t, testSystem("first"), nil)), disk.SlotA, testSystem("first").ID(), testSystem("first").ID()[:32]+" 0"); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e esp) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(e), name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// env is GRUB's environment, as GRUB takes it: what is damaged is empty.
func (e esp) env(t *testing.T) disk.Env {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(string(e), disk.EnvFile))
	if err != nil {
		t.Fatal(err)
	}
	env, _ := disk.ParseEnv(b)
	return env
}

// holds returns the Version of the system in a slot: "" if it is not whole.
func (e esp) holds(t *testing.T, slot string) string {
	t.Helper()
	kernel, _ := os.ReadFile(filepath.Join(e.slot(slot), disk.KernelFile))
	initrd, _ := os.ReadFile(filepath.Join(e.slot(slot), disk.InitrdFile))
	for _, name := range []string{"first", "second", "third"} {
		if s := testSystem(name); bytes.Equal(s.Kernel, kernel) && bytes.Equal(s.Initrd, initrd) && sameSystem(e.id(slot), s.ID()[:32]) {
			return name
		}
	}
	return ""
}

// mounted is machine.withESP for one that is mounted already.
func (e esp) mounted(f func(esp) error) error { return f(e) }

// A memoryFile is a file of a time.
type memoryFile struct {
	*bytes.Reader
	written time.Time
}

func fileOf(data []byte, written time.Time) memoryFile {
	return memoryFile{bytes.NewReader(data), written}
}

func (f memoryFile) Stat() (os.FileInfo, error) { return fileTime{written: f.written}, nil }

// A fileTime is when a file was written; nothing else is asked of it.
type fileTime struct {
	os.FileInfo
	written time.Time
}

func (f fileTime) ModTime() time.Time { return f.written }

// A cutReader has its power cut after so many bytes of its second reading.
type cutReader struct {
	memoryFile
	after int
	again bool
}

var errCut = errors.New("the power is cut")

func (c *cutReader) Seek(off int64, whence int) (int64, error) {
	c.again = true
	return c.memoryFile.Seek(off, whence)
}

func (c *cutReader) Read(b []byte) (int, error) {
	if !c.again {
		return c.memoryFile.Read(b)
	}
	if c.after == 0 {
		return 0, errCut
	}
	n, err := c.memoryFile.Read(b[:min(len(b), c.after)])
	c.after -= n
	return n, err
}

// However far an installation has come when the power is cut, what GRUB starts next
// is a whole system, and the next start does the installation.
func TestUpgradeCut(t *testing.T) {
	data := bundle(t, testSystem("second"), nil)
	now := time.Unix(1800000000, 0)
	for _, tt := range []struct {
		name    string
		env     disk.Env
		running string // where "first" is
	}{
		{"from slot a", disk.Env{disk.EnvGood: disk.SlotA}, disk.SlotA},
		{"from slot b", disk.Env{disk.EnvGood: disk.SlotB}, disk.SlotB},
		// GRUB found slot a not readable and started b.
		{"from slot b, and a was meant", disk.Env{disk.EnvGood: disk.SlotA}, disk.SlotB},
	} {
		for after := 0; after < len(data); after += 500 {
			e := newESP(t, tt.env)
			if tt.running == disk.SlotB {
				if err := os.Rename(e.slot(disk.SlotA), e.slot(disk.SlotB)); err != nil {
					t.Fatal(err)
				}
			}
			m := &machine{}
			restart, err := m.upgrade(e.mounted, tt.running, "disk0:/x", &cutReader{fileOf(data, now), after, false})
			if restart || !errors.Is(err, errCut) {
				t.Fatalf("%s, after %d bytes: %v, %v", tt.name, after, restart, err)
			}
			if env := e.env(t); env[disk.EnvTry] != "" || e.holds(t, env[disk.EnvGood]) != "first" {
				t.Errorf("%s, after %d bytes: GRUB has %v, and slot %s %q", tt.name, after, env, env[disk.EnvGood], e.holds(t, env[disk.EnvGood]))
			}
			if restart, err := m.upgrade(e.mounted, tt.running, "disk0:/x", fileOf(data, now)); !restart || err != nil {
				t.Fatalf("%s, after %d bytes, again: %v, %v", tt.name, after, restart, err)
			}
			to := disk.Other(tt.running)
			if env := e.env(t); env[disk.EnvTry] != to || env[disk.EnvGood] != tt.running || e.holds(t, to) != "second" || e.holds(t, tt.running) != "first" {
				t.Errorf("%s, after %d bytes, again: GRUB has %v, slot %s %q", tt.name, after, env, to, e.holds(t, to))
			}
		}
	}
}

// An environment that is damaged, which GRUB does without, does not keep a box from
// being upgraded.
func TestUpgradeEnvironment(t *testing.T) {
	data := bundle(t, testSystem("second"), nil)
	for name, damaged := range map[string][]byte{
		"empty": nil, "short": []byte("# GRUB"), "zeros": make([]byte, disk.EnvSize), "long": bytes.Repeat([]byte("x"), 3000),
		"too long": append(append([]byte("# GRUB Environment Block\ngood=b\n"), bytes.Repeat([]byte("#"), disk.EnvSize)...), 0),
	} {
		e := newESP(t, disk.Env{})
		e.write(t, disk.EnvFile, damaged)
		m := &machine{}
		if restart, err := m.upgrade(e.mounted, disk.SlotA, "disk0:/x", fileOf(data, time.Now())); !restart || err != nil {
			t.Errorf("%s: %v, %v", name, restart, err)
		}
		if env := e.env(t); env[disk.EnvGood] != disk.SlotA || env[disk.EnvTry] != disk.SlotB {
			t.Errorf("%s: GRUB has %v", name, env)
		}
	}
}

// Only what is signed by a key that is trusted gets into a slot, where there are
// such keys; and what says why not, before a slot is touched.
func TestUpgradeSigned(t *testing.T) {
	key1, public1 := testKey(1)
	key2, public2 := testKey(2)
	stranger, _ := testKey(3)
	second := testSystem("second")
	broken := bundle(t, second, key1)
	broken[600] ^= 1
	for _, tt := range []struct {
		name    string
		keys    disk.Keys
		keysErr error
		data    []byte
		fault   string // "": it is installed
		said    string
	}{
		{"no keys, not signed", nil, nil, bundle(t, second, nil), "", "bundles are not authenticated"},
		{"no keys, signed", nil, nil, bundle(t, second, key1), "", "bundles are not authenticated"},
		{"signed", disk.Keys{public1}, nil, bundle(t, second, key1), "", "in slot b: second, signed by the key " + disk.KeyID(public1)},
		{"signed by the other", disk.Keys{public1, public2}, nil, bundle(t, second, key2), "", "signed by the key " + disk.KeyID(public2)},
		{"not signed", disk.Keys{public1}, nil, bundle(t, second, nil), "it is not signed", ""},
		{"signed by a stranger", disk.Keys{public1, public2}, nil, bundle(t, second, stranger), "which is not trusted here", ""},
		{"keys that cannot be read", nil, errors.New("no keys"), bundle(t, second, key1), "no keys", ""},
		{"damaged", disk.Keys{public1}, nil, broken, "initrd is damaged", ""},
		{"cut", disk.Keys{public1}, nil, broken[:2000], "EOF", ""},
		{"what runs already, by a stranger", disk.Keys{public1}, nil, bundle(t, testSystem("first"), stranger), "none", ""},
	} {
		e := newESP(t, disk.Env{disk.EnvGood: disk.SlotA})
		if err := e.install(bytes.NewReader(bundle(t, testSystem("third"), nil)), disk.SlotB, testSystem("third").ID(), "x"); err != nil {
			t.Fatal(err)
		}
		m := &machine{keys: tt.keys, keysErr: tt.keysErr}
		restart, err := m.upgrade(e.mounted, disk.SlotA, "disk0:/x", fileOf(tt.data, time.Now()))
		switch {
		case tt.fault == "none":
			if restart || err != nil {
				t.Errorf("%s: %v, %v", tt.name, restart, err)
			}
		case tt.fault != "":
			if restart || err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%s: %v, %v; want %q", tt.name, restart, err, tt.fault)
			}
		case !restart || err != nil || e.holds(t, disk.SlotB) != "second":
			t.Errorf("%s: %v, %v, slot b has %q", tt.name, restart, err, e.holds(t, disk.SlotB))
		}
		if tt.fault != "" {
			if kernel, _ := os.ReadFile(filepath.Join(e.slot(disk.SlotB), disk.KernelFile)); !bytes.Equal(kernel, testSystem("third").Kernel) || e.env(t)[disk.EnvTry] != "" {
				t.Errorf("%s: slot b was touched, or is to be tried: %v", tt.name, e.env(t))
			}
		}
		if said := strings.Join(m.said, ""); !strings.Contains(said, tt.said) {
			t.Errorf("%s: said %q, want %q", tt.name, said, tt.said)
		}
	}
}

// A file that becomes another between its two readings is not installed as what it
// was.
func TestUpgradeChanged(t *testing.T) {
	key, public := testKey(1)
	e := newESP(t, disk.Env{disk.EnvGood: disk.SlotA})
	m := &machine{keys: disk.Keys{public}}
	f := &twoFaced{[]memoryFile{fileOf(bundle(t, testSystem("second"), key), time.Now()), fileOf(bundle(t, testSystem("third"), nil), time.Now())}}
	if restart, err := m.upgrade(e.mounted, disk.SlotA, "disk0:/x", f); restart || err == nil || e.env(t)[disk.EnvTry] != "" || e.id(disk.SlotB) != "" {
		t.Errorf("%v, %v; GRUB has %v", restart, err, e.env(t))
	}
}

// A twoFaced is another file after each Seek.
type twoFaced struct{ files []memoryFile }

func (f *twoFaced) Read(b []byte) (int, error) { return f.files[0].Read(b) }

func (f *twoFaced) Stat() (os.FileInfo, error) { return f.files[0].Stat() }

func (f *twoFaced) Seek(int64, int) (int64, error) {
	f.files = f.files[1:]
	return 0, nil
}

// What did not come up is not tried again, unless it is copied again; and nothing is
// installed while something is tried.
func TestUpgradeTried(t *testing.T) {
	data := bundle(t, testSystem("second"), nil)
	at := time.Unix(1800000000, 0)
	e := newESP(t, disk.Env{disk.EnvGood: disk.SlotA, envFailed: testSystem("second").ID()[:32] + " 1800000000"})
	m := &machine{}
	if restart, err := m.upgrade(e.mounted, disk.SlotA, "disk0:/x", fileOf(data, at)); restart || err == nil || !strings.Contains(err.Error(), "did not come up") {
		t.Errorf("what has failed: %v, %v", restart, err)
	}
	if restart, err := m.upgrade(e.mounted, disk.SlotA, "disk0:/x", fileOf(data, at.Add(time.Second))); !restart || err != nil {
		t.Errorf("what has failed, copied again: %v, %v", restart, err)
	}
	if restart, err := m.upgrade(e.mounted, disk.SlotB, "disk0:/x", fileOf(bundle(t, testSystem("third"), nil), at)); restart || err != nil || e.env(t)[disk.EnvGood] != disk.SlotA {
		t.Errorf("while one is tried: %v, %v, GRUB has %v", restart, err, e.env(t))
	}
}
