package guest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

// newTestMachine is a machine whose appliance is another program, and a function that
// returns what is on its console.
func newTestMachine(t *testing.T, program string) (*machine, func() string) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "console")
	console, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { console.Close() })
	m := &machine{program: program, run: dir, console: console, look: func() {}, power: make(chan struct{})}
	t.Cleanup(func() {
		if m.fifo != 0 {
			unix.Close(m.fifo)
		}
	})
	return m, func() string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
}

// until waits for a text on a console.
func until(t *testing.T, console func() string, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(console(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q on the console:\n%s", text, console())
		}
	}
}

// watching has a machine watch, and returns where it says how it is to end.
func (m *machine) watching(t *testing.T, links <-chan netlink.LinkUpdate) (chan<- os.Signal, <-chan int) {
	t.Helper()
	signals, how := make(chan os.Signal, 16), make(chan int, 1)
	go func() { how <- m.watch("", signals, links) }()
	return signals, how
}

func ends(t *testing.T, how <-chan int, want int) {
	t.Helper()
	select {
	case got := <-how:
		if got != want {
			t.Errorf("the machine ends by %#x, want %#x", got, want)
		}
	case <-time.After(patience):
		t.Fatal("the machine does not end")
	}
}

// An appliance that cannot even be started is started again and again; a button
// that is pressed meanwhile ends the machine all the same, for there is no end of
// the appliance to wait for.
func TestPowerInCrashLoop(t *testing.T) {
	m, console := newTestMachine(t, "/nonexistent")
	power := make(chan struct{}, 1)
	m.power = power
	_, how := m.watching(t, nil)
	until(t, console, "starting the appliance")
	power <- struct{}{}
	ends(t, how, unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// "reload" ends the appliance, and whether its message or its end is seen first the
// machine starts again.
func TestReloadSeenLate(t *testing.T) {
	m, console := newTestMachine(t, "/nonexistent")
	name := filepath.Join(t.TempDir(), "notify")
	var err error
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	defer m.notify.Close()
	_, how := m.watching(t, nil)
	until(t, console, "starting the appliance") // it does not run
	c, err := net.Dial("unixgram", name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("X_PATCHBAY_RELOAD=1")); err != nil {
		t.Fatal(err)
	}
	ends(t, how, unix.LINUX_REBOOT_CMD_RESTART)
}

// When the kernel has told more of network devices than was read it tells nothing
// any more: the machine asks anew, and does not spin.
func TestLinksLost(t *testing.T) {
	m, _ := newTestMachine(t, "/nonexistent")
	power := make(chan struct{}, 1)
	m.power = power
	var looks atomic.Int32
	spins := make(chan struct{})
	m.look = func() {
		if looks.Add(1) == 1000 {
			close(spins)
		}
	}
	links := make(chan netlink.LinkUpdate)
	close(links)
	_, how := m.watching(t, links)
	select {
	case <-spins:
		t.Error("it spins")
	case <-time.After(2 * firstBackoff):
	}
	power <- struct{}{}
	ends(t, how, unix.LINUX_REBOOT_CMD_POWER_OFF)
	if looks.Load() < 2 {
		t.Errorf("it looked at the cards %d times", looks.Load())
	}
}

func TestUnlessPressed(t *testing.T) {
	power := make(chan struct{}, 1)
	m := &machine{power: power}
	if got := m.unlessPressed(unix.LINUX_REBOOT_CMD_RESTART); got != unix.LINUX_REBOOT_CMD_RESTART {
		t.Errorf("not pressed: %#x", got)
	}
	power <- struct{}{}
	if got := m.unlessPressed(unix.LINUX_REBOOT_CMD_RESTART); got != unix.LINUX_REBOOT_CMD_POWER_OFF {
		t.Errorf("pressed: %#x", got)
	}
}

// A drive's files are somebody else's: none of them keeps the machine from coming up.
func TestDriveConfig(t *testing.T) {
	const limit = 1 << 20
	for _, tt := range []struct {
		name       string
		make       func(dir string) error
		text, file string
		fault      string
	}{
		{"nothing", func(string) error { return nil }, "", "", ""},
		{"user-data", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "user-data"), []byte("hostname a\n"), 0o600)
		}, "hostname a\n", "user-data", ""},
		{"a FIFO", func(dir string) error { return unix.Mkfifo(filepath.Join(dir, "day0-config"), 0o600) }, "", "day0-config", "no ordinary file"},
		{"a directory", func(dir string) error { return os.Mkdir(filepath.Join(dir, "user-data"), 0o700) }, "", "user-data", "no ordinary file"},
		{"a link", func(dir string) error { return os.Symlink("/dev/zero", filepath.Join(dir, "user-data")) }, "", "user-data", "symbolic link"},
		{"huge", func(dir string) error {
			err := os.WriteFile(filepath.Join(dir, "user-data"), nil, 0o600)
			if err == nil {
				err = os.Truncate(filepath.Join(dir, "user-data"), 1<<40)
			}
			return err
		}, "", "user-data", "more than 1024 KB"},
	} {
		dir := t.TempDir()
		if err := tt.make(dir); err != nil {
			t.Fatal(err)
		}
		type result struct {
			text, file string
			err        error
		}
		done := make(chan result, 1)
		go func() {
			text, file, err := driveConfig(dir, limit)
			done <- result{text, file, err}
		}()
		select {
		case r := <-done:
			if r.text != tt.text || r.file != tt.file || (r.err != nil) != (tt.fault != "") || r.err != nil && !strings.Contains(r.err.Error(), tt.fault) {
				t.Errorf("%s: %q, %q, %v; want %q in %s, %q", tt.name, r.text, r.file, r.err, tt.text, tt.file, tt.fault)
			}
		case <-time.After(patience):
			t.Fatalf("%s: it hangs", tt.name)
		}
	}
}

// What somebody else wrote does nothing to the terminal.
func TestSayPlain(t *testing.T) {
	m := &machine{}
	m.say(alarm, "a\nb %s.", "\x1b]0;x\x07 \x7f \xff \u009b2J ä")
	if want := "<3>a; b ?]0;x? ? ? ?2J ä.\n"; len(m.said) != 1 || m.said[0] != want {
		t.Errorf("said %q, want %q", m.said, want)
	}
}

// A startup configuration that cannot be is not read into memory.
func TestReadStartup(t *testing.T) {
	name := filepath.Join(t.TempDir(), "startup-config")
	if _, err := readStartup(name); !os.IsNotExist(err) {
		t.Errorf("none: %v", err)
	}
	if err := os.WriteFile(name, []byte("hostname a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readStartup(name); got != "hostname a\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	if got, err := readStartup(name); err == nil {
		t.Errorf("1 TiB: %d bytes, no error", len(got))
	}
}

func TestExtent(t *testing.T) {
	super := make([]byte, 1024)
	super[4], super[24] = 100, 2
	if has, want, size, err := extent(super, 8000); has != 100 || want != 1000 || size != 4096 || err != nil {
		t.Errorf("%d, %d, %d, %v; want 100, 1000, 4096", has, want, size, err)
	}
	super[24], super[25] = 0xff, 0xff // 1024 << 65535 is 0
	if _, _, _, err := extent(super, 8000); err == nil {
		t.Error("a superblock that cannot be: no error")
	}
}

func TestBeside(t *testing.T) {
	list := []block{
		{name: "sda"}, {name: "sda1", disk: "sda", part: "esp"},
		{name: "vda"}, {name: "vda2", disk: "vda", part: "esp"}, {name: "vda3", disk: "vda", part: "disk0"},
		{name: "vdb"}, {name: "vdb1", disk: "vdb", part: "disk0"},
	}
	for other, want := range map[string]string{"vda3": "vda2", "vdb1": "", "none": ""} {
		got := ""
		if b := beside(list, other, "esp"); b != nil {
			got = b.name
		}
		if got != want {
			t.Errorf("beside %s: %q, want %q", other, got, want)
		}
	}
}
