package console

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// A tty is a pseudo-terminal in raw mode, as consoles have it. (pty(7).)
type tty struct {
	master, slave *os.File

	mu      sync.Mutex
	cond    *sync.Cond
	written int // bytes, to slave
	read    int // of them, from master
	out     []byte
	err     error // of reading
}

func control(f *os.File, request uintptr, arg unsafe.Pointer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	}); err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// openTTY returns a pseudo-terminal, until the test ends.
func openTTY(t testing.TB) *tty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	var n, unlock uint32
	for _, err := range []error{
		control(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)),
		control(master, syscall.TIOCGPTN, unsafe.Pointer(&n)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Without O_NONBLOCK a Close would wait for a Read.
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var mode syscall.Termios
	if err := control(slave, syscall.TCGETS, unsafe.Pointer(&mode)); err != nil {
		t.Fatal(err)
	}
	mode.Iflag &^= syscall.ICRNL | syscall.INLCR | syscall.IGNCR | syscall.IXON | syscall.ISTRIP
	mode.Oflag &^= syscall.OPOST
	mode.Lflag &^= syscall.ICANON | syscall.ECHO | syscall.IEXTEN | syscall.ISIG
	mode.Cc[syscall.VMIN], mode.Cc[syscall.VTIME] = 1, 0
	if err := control(slave, syscall.TCSETS, unsafe.Pointer(&mode)); err != nil {
		t.Fatal(err)
	}
	x := &tty{master: master, slave: slave}
	x.cond = sync.NewCond(&x.mu)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			x.mu.Lock()
			x.out = append(x.out, buf[:n]...)
			x.read += n
			x.err = err
			x.cond.Broadcast()
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		slave.Close() // fails the Read of master
		<-done
		master.Close()
	})
	return x
}

// Write is what the console shows.
func (x *tty) Write(b []byte) (int, error) {
	x.mu.Lock()
	x.written += len(b)
	x.mu.Unlock()
	return x.slave.Write(b)
}

// take returns what has come out of the terminal since it was asked last, once all
// has that the console wrote.
func (x *tty) take() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for x.read < x.written && x.err == nil {
		x.cond.Wait()
	}
	out := string(x.out)
	x.out = nil
	return out
}

// sitAtTTY is sit at a pseudo-terminal.
func sitAtTTY(t testing.TB, b *Box, who Who) *typist {
	t.Helper()
	x := openTTY(t)
	y := &typist{keys: x.master, screen: x}
	y.talk(t, b, x.slave, x, who, true, 0)
	return y
}

// TestTranscriptsPTY is TestTranscripts through a real terminal of the host's.
func TestTranscriptsPTY(t *testing.T) {
	transcripts(t, func(t *testing.T, b *Box, who Who, terminal bool) *typist {
		if !terminal {
			t.Skip("is of a pipe")
		}
		return sitAtTTY(t, b, who)
	})
}
