package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"patchbay/appliance/console"
)

// A hostTerminal is the terminal that "patchbay run" was started on, given to the
// box's console. It has no in if there is none.
type hostTerminal struct {
	file    *os.File
	in      *console.Input
	restore func() error
}

// openTerminal takes f for the console if it is a terminal and that is wanted.
func openTerminal(f *os.File, wanted bool) (*hostTerminal, error) {
	if !wanted {
		return new(hostTerminal), nil
	}
	restore, err := rawTerminal(f)
	if errors.Is(err, errNoTerminal) {
		return new(hostTerminal), nil
	}
	if err != nil {
		return nil, err
	}
	return &hostTerminal{f, console.NewInput(f), restore}, nil
}

// errNoTerminal is what rawTerminal says of a file that is none.
var errNoTerminal = errors.New("standard input is no terminal")

// stopped returns a context that ends with Ctrl-\, which a console leaves to the
// host.
func (t *hostTerminal) stopped(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.in == nil {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, quitSignal)
}

// transport is the terminal for a console.
func (t *hostTerminal) transport() console.Transport {
	return console.Transport{In: t.in, Out: cooked{os.Stdout}, Terminal: true, Size: func() (int, int) { return terminalSize(t.file) }}
}

// cooked writes to a terminal that makes CR LF of LF itself: what the box logs
// goes there too.
type cooked struct{ w io.Writer }

func (c cooked) Write(b []byte) (int, error) {
	if _, err := c.w.Write(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close leaves the terminal as it was.
func (t *hostTerminal) Close() error {
	if t.in == nil {
		return nil
	}
	t.in.Close()
	return t.restore()
}
