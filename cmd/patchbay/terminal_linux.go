package main

import (
	"os"
	"syscall"
	"unsafe"
)

const quitSignal = syscall.SIGQUIT

// rawTerminal has a terminal hand over each key as it is, but for Ctrl-\, and
// returns what undoes that. (termios(3).)
func rawTerminal(f *os.File) (restore func() error, err error) {
	var was syscall.Termios
	if err := ioctl(f, syscall.TCGETS, unsafe.Pointer(&was)); err != nil {
		return nil, errNoTerminal
	}
	raw := was
	raw.Iflag &^= syscall.ICRNL | syscall.INLCR | syscall.IGNCR | syscall.IXON | syscall.ISTRIP
	raw.Lflag &^= syscall.ICANON | syscall.ECHO | syscall.IEXTEN
	for _, c := range []int{syscall.VINTR, syscall.VSUSP} {
		raw.Cc[c] = 0 // no key
	}
	raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	if err := ioctl(f, syscall.TCSETS, unsafe.Pointer(&raw)); err != nil {
		return nil, err
	}
	return func() error { return ioctl(f, syscall.TCSETS, unsafe.Pointer(&was)) }, nil
}

// terminalSize is the size of a terminal in characters, 0 if it is not known.
func terminalSize(f *os.File) (cols, rows int) {
	var size struct{ rows, cols, x, y uint16 }
	if ioctl(f, syscall.TIOCGWINSZ, unsafe.Pointer(&size)) != nil {
		return 0, 0
	}
	return int(size.cols), int(size.rows)
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
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
