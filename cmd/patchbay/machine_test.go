//go:build linux

package main

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A lockedBuffer is written by the program while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// What the machine says is logged, by its priority; a writer comes and goes.
func TestHearMachine(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "machine")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	end, err := hearMachine(fifo, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"<3>the flash is full\n", "<4>a module\n<6>slot a\n", "no priority\n"} {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, want := range []string{
		`level=ERROR msg=machine reason="the flash is full"`, `level=WARN msg=machine reason="a module"`,
		`level=INFO msg=machine reason="slot a"`, `level=ERROR msg=machine reason="no priority"`,
	} {
		await(t, want+" is not logged", func() bool { return strings.Contains(out.String(), want) })
	}
	end()
	if _, err := hearMachine(fifo+".none", slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a FIFO that is not there: no error")
	}
}

// A box in a machine of its own tells process 1 that it is up and that it lives,
// waits for devices that are not there, and leaves it to the machine to start again.
func TestRunInMachine(t *testing.T) {
	dir := t.TempDir()
	fifo, socket := filepath.Join(dir, "machine"), filepath.Join(dir, "notify")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "100000")
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 1024)
		for {
			told.SetReadDeadline(time.Now().Add(patience))
			n, err := told.Read(b)
			if err != nil {
				t.Fatalf("%s is not heard: %v", want, err)
			}
			if string(b[:n]) == want {
				return
			}
		}
	}
	config := filepath.Join(dir, "box.cfg")
	text := "hostname pb\nlogging enable\nlogging buffered informational\ninterface Management0/0\n nameif management\n security-level 90\n ip address 192.0.2.1 255.255.255.0\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flash := filepath.Join(dir, "flash")
	c := root()
	c.SetArgs([]string{"run", "--config", config, "--flash", flash, "--machine", fifo, "--console=false", "--link", "Management0/0=packet:pbnone0"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(t.Context()) }()
	hear("READY=1")
	hear("WATCHDOG=1")
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "<4>said by the machine\n")
	f.Close()
	show := func(command string) string {
		var out bytes.Buffer
		if err := askControl(t.Context(), filepath.Join(flash, controlName), command, &out); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	await(t, "what the machine said is not logged", func() bool { return strings.Contains(show("show logging"), "said by the machine") })
	if got := show("show logging"); !strings.Contains(got, "%ASA-4-411002: Line protocol on Interface Management0/0, changed state to down") {
		t.Errorf("show logging does not tell of the device that is not there:\n%s", got)
	}
	if got := show("show interface management"); !strings.Contains(got, "line protocol is down") || !strings.Contains(got, "pbnone0") {
		t.Errorf("show interface management:\n%s", got)
	}
	var out bytes.Buffer
	if err := askControl(t.Context(), filepath.Join(flash, controlName), "reload noconfirm", &out); err != nil {
		t.Logf("reload: %v", err) // the box may go before it has answered
	}
	hear("X_PATCHBAY_RELOAD=1")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the program does not end")
	}
}
