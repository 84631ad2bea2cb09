package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// runExec runs "patchbay exec" in this program.
func runExec(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	c := root()
	var stdout, stderr bytes.Buffer
	c.SetOut(&stdout)
	c.SetErr(&stderr)
	c.SetArgs(append([]string{"exec"}, args...))
	err = c.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// serveControl listens for the test's time.
func serveControl(t *testing.T, path string, do execFunc) *control {
	t.Helper()
	c, err := listenControl(path, do, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// asProcess is set in the process that is "patchbay exec".
const asProcess = "PATCHBAY_TEST_EXEC"

// TestExecProcess is "patchbay exec" as a program of its own.
func TestExecProcess(t *testing.T) {
	socket, ok := os.LookupEnv(asProcess)
	if !ok {
		t.Skip("it is run by TestExec")
	}
	os.Args = append([]string{"patchbay", "exec", "--socket", socket}, strings.Fields(os.Getenv(asProcess+"_LINE"))...)
	main()
}

// A box that runs does commands of another process, shows what it refuses, and
// takes its socket away when it ends.
func TestExec(t *testing.T) {
	flash := t.TempDir()
	store, err := pki.Open(flash, pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := "hostname box\ninterface GigabitEthernet0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\n" +
		"interface GigabitEthernet0/1\n nameif inside\n ip address 10.20.0.1 255.255.255.0\n"
	r, findings := config.Check("box.cfg", strings.NewReader(text))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	outside, _ := link.Pair(1500)
	inside, _ := link.Pair(1500)
	a, err := appliance.New(r, appliance.Options{Links: map[string]stack.Link{"outside": outside, "inside": inside}, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(flash, controlName)
	c := serveControl(t, socket, func(ctx context.Context, w io.Writer, line string) error { return a.ExecContext(ctx, w, line, nil) })
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error)
	go func() { ran <- a.Run(ctx) }()

	if info, err := os.Lstat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v: %v", info.Mode(), err)
	}
	out, _, err := runExec(t, "--flash", flash, "sh", "conn", "count")
	if err != nil || out != "0 in use, 0 most used\n" {
		t.Errorf("show conn count: %q, %v", out, err)
	}
	out, _, err = runExec(t, "--flash", flash, "show conn count | json")
	if err != nil || out != "{\n  \"in_use\": 0,\n  \"most_used\": 0\n}\n" {
		t.Errorf("show conn count | json: %q, %v", out, err)
	}
	_, said, err := runExec(t, "--flash", flash, "show", "conn", "bogus", "|", "json")
	if !errors.Is(err, errReported) || !strings.Contains(said, "          ^\nERROR: % Invalid input detected at '^' marker.\n") {
		t.Errorf("show conn bogus | json: %q, %v", said, err)
	}
	_, said, err = runExec(t, "--flash", flash, "show", "con", "bogus")
	if !errors.Is(err, errReported) || said != "ERROR: % Invalid input detected at '^' marker.\n" && !strings.Contains(said, "         ^\nERROR: % Invalid input detected at '^' marker.\n") {
		t.Errorf("show con bogus: %q, %v", said, err)
	}

	process := func(line string) (string, int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestExecProcess$")
		cmd.Env = append(os.Environ(), asProcess+"="+socket, asProcess+"_LINE="+line)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("%s: %v", line, err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := process("show interface ip brief"); code != 0 || !strings.Contains(out, "203.0.113.2") {
		t.Errorf("show interface ip brief: exit %d\n%s", code, out)
	}
	if out, code := process("show frobnication"); code != 1 || !strings.Contains(out, "ERROR: %") {
		t.Errorf("show frobnication: exit %d, want 1\n%s", code, out)
	}

	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, _, err := runExec(t, "--flash", flash, "show", "clock"); err == nil || errors.Is(err, errReported) {
		t.Errorf("without a box: %v", err)
	}
}

// Long output comes whole and as it is written.
func TestControlStreams(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	want := strings.Repeat("0123456789abcde\n", 200_000) // 3.2 MB
	first := make(chan bool)
	serveControl(t, socket, func(_ context.Context, w io.Writer, line string) error {
		io.WriteString(w, line+"\n")
		<-first
		_, err := io.WriteString(w, want)
		return err
	})
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		err := askControl(t.Context(), socket, "show all", w)
		w.Close()
		done <- err
	}()
	b := make([]byte, len("show all\n"))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "show all\n" {
		t.Fatalf("first output %q, %v", b, err)
	}
	close(first)
	got, err := io.ReadAll(r)
	if string(got) != want || err != nil {
		t.Errorf("%d bytes, want %d: %v", len(got), len(want), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Clients that are many, silent, endless or gone do no harm.
func TestControlBadClients(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	hold := make(chan bool)
	c := serveControl(t, socket, func(_ context.Context, w io.Writer, line string) error {
		if line == "hold" {
			<-hold
		}
		_, err := fmt.Fprintln(w, line)
		return err
	})
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	endless := dial()
	endless.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(endless, strings.Repeat("a", 2*maxControlLine))
	if b, _ := io.ReadAll(endless); len(b) != 0 { // closed, perhaps by a reset
		t.Errorf("an endless line was answered with %q", b)
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(c.busy) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) // its place is free a moment after it is told
	}
	for range maxControl {
		io.WriteString(dial(), "hold\n")
	}
	for len(c.busy) < maxControl && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	var refused refusedError
	if err := askControl(t.Context(), socket, "one more", io.Discard); !errors.As(err, &refused) {
		t.Errorf("client %d: %v, want to be refused", maxControl+1, err)
	}
	close(hold)
	var out bytes.Buffer
	for {
		out.Reset()
		err := askControl(t.Context(), socket, "after", &out)
		if err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if out.String() != "after\n" {
		t.Errorf("after they left: %q", out.String())
	}
	silent := dial()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	silent.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent client after Close: %v", err)
	}
}

// A socket that was left behind is replaced; one in use and other files are not.
func TestControlStale(t *testing.T) {
	dir := t.TempDir()
	do := func(context.Context, io.Writer, string) error { return nil }
	path := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	c := serveControl(t, path, do)
	if _, err := listenControl(path, do, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a socket in use was taken")
	}
	if err := askControl(t.Context(), path, "x", io.Discard); err != nil {
		t.Errorf("the first box lost its socket: %v", err)
	}
	c.Close()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(file, do, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, _ := os.ReadFile(file); string(b) != "keys" {
		t.Errorf("the file is now %q", b)
	}
	if _, err := listenControl(filepath.Join(dir, "none", "s"), do, nil, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a socket in no directory")
	}
}

// A command that takes time ends with its client, and with the socket.
func TestExecStops(t *testing.T) {
	socket := filepath.Join(t.TempDir(), controlName)
	began, ended := make(chan bool, 2), make(chan bool, 2)
	c := serveControl(t, socket, func(ctx context.Context, _ io.Writer, _ string) error {
		began <- true
		<-ctx.Done()
		ended <- true
		return ctx.Err()
	})
	ask := func(ctx context.Context) {
		go askControl(ctx, socket, "ping 10.20.0.99", io.Discard)
		<-began
	}
	wait := func(what string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal(what)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ask(ctx)
	cancel()
	wait("it goes on without its client")
	ask(t.Context())
	c.Close()
	wait("it goes on without the socket")
}
