package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A pty is a program on a terminal of its own, and who sits at it.
type pty struct {
	t      testing.TB
	master *os.File
	exited chan error

	mu  sync.Mutex
	out bytes.Buffer
	at  int // of out has been read
}

// startPTY runs a program on a new terminal of 80 columns.
func startPTY(t testing.TB, args ...string) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	var n, unlock uint32
	size := [4]uint16{24, 80}
	for _, c := range []struct {
		request uintptr
		arg     unsafe.Pointer
	}{{syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)}, {syscall.TIOCGPTN, unsafe.Pointer(&n)}, {syscall.TIOCSWINSZ, unsafe.Pointer(&size)}} {
		if err := ioctl(master, c.request, c.arg); err != nil {
			t.Fatal(err)
		}
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	p := &pty{t: t, master: master, exited: make(chan error, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.out.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() { p.exited <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		master.Close()
		if t.Failed() {
			t.Logf("on the terminal:\n%s", p.out.String())
		}
	})
	return p
}

// typed types keys and waits until the terminal has shown want after what was
// waited for before.
func (p *pty) typed(keys, want string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		new := p.out.String()[p.at:]
		i := strings.Index(new, want)
		if i >= 0 {
			p.at += i + len(want)
		}
		p.mu.Unlock()
		switch {
		case i >= 0:
			return
		case time.Now().After(deadline):
			p.t.Fatalf("after %q the terminal has not shown %q, but %q", keys, want, new)
		}
	}
}

// left waits until the program has ended.
func (p *pty) left() error {
	select {
	case err := <-p.exited:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the program runs on")
	}
}

// TestConsole sits at the console of an empty box: editing, help, paging, a
// configuration that is kept, a reload that finds it, SSH with it, and the end.
func TestConsole(t *testing.T) {
	flash := filepath.Join(t.TempDir(), "flash")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	p := startPTY(t, "run", "--flash", flash, "--ssh", addr, "--log-level", "error")
	p.typed("", "Type help or '?' for a list of available commands.\r\n")
	p.typed("", "patchbay> ")
	p.typed("en\t", "patchbay> enable ")
	p.typed("\r", "Password: ")
	p.typed("\r", "patchbay# ")
	p.typed("show clo?", "  clock  The box's time")
	p.typed("", "patchbay# show clo")
	p.typed("\x01\x0bconf t\r", "patchbay(config)# ")
	p.typed("hostnxx\b\bame edge\r", "edge(config)# ")
	p.typed("username ann password anns-secret privilege 15\r", "edge(config)# ")
	p.typed("aaa authentication ssh console LOCAL\raaa authorization exec LOCAL auto-enable\r", "LOCAL auto-enable\r\n")
	p.typed("inter\x03", "edge(config)# ")
	p.typed("\x1a", "edge# ")
	p.typed("terminal pager 4\rshow run\r", "<--- More --->")
	p.typed(" ", "<--- More --->")
	p.typed("q", "edge# ")
	p.typed("terminal pager 24\rwrite memory\r", "[OK]")
	p.typed("\x1b[A\x1b[A\x1b[A\x1b[B\x15reload\r", "Proceed with reload? [confirm]")
	p.typed("\r", "Type help or '?'")
	p.typed("", "edge> ")

	if _, err := exec.LookPath("ssh"); err == nil {
		ask := filepath.Join(t.TempDir(), "askpass")
		if err := os.WriteFile(ask, []byte("#!/bin/sh\necho anns-secret\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(addr)
		cmd := exec.Command("ssh", "-F", "none", "-p", port, "-l", "ann", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
			"127.0.0.1", "show running-config | include hostname")
		cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "hostname edge\n" {
			t.Errorf("ssh box show running-config: %v\n%s", err, out)
		}
	}
	out, err := exec.Command(program(t), "exec", "--flash", flash, "show", "running-config", "|", "count", "^username").CombinedOutput()
	if err != nil || string(out) != "Number of lines which match regexp = 1\n" {
		t.Errorf("patchbay exec: %v\n%s", err, out)
	}
	p.typed("exit\r", "Press Enter to get started")
	p.typed("\r", "edge> ")
	p.typed("\x1c", "") // Ctrl-\
	if err := p.left(); err != nil {
		t.Errorf("after Ctrl-\\: %v", err)
	}
}
