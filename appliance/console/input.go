package console

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"
)

// errIdle ends a session whose user has typed nothing for too long.
var errIdle = errors.New("console: idle for too long")

// An Input is where consoles read what is typed, one after the other: a console
// that is left begins anew on the same Input. Its Reader is read only when a
// console waits for a byte, on a goroutine that lives until the Reader fails or
// Close.
type Input struct {
	want  chan struct{}
	got   chan typed
	asked bool // a byte has been asked for and is yet to come
	more  bool // the byte after the last one is here already
}

type typed struct {
	b    byte
	more bool
	err  error
}

// NewInput returns the Input of r.
func NewInput(r io.Reader) *Input {
	in := &Input{want: make(chan struct{}, 1), got: make(chan typed, 1)}
	go func() {
		buf := bufio.NewReader(r)
		for range in.want {
			b, err := buf.ReadByte()
			in.got <- typed{b, buf.Buffered() > 0, err}
		}
	}()
	return in
}

// Close lets the goroutine end once its Reader returns.
func (in *Input) Close() { close(in.want) }

// read returns the next byte, errIdle if it does not come within idle (0: for
// ever), or the error of ctx.
func (in *Input) read(ctx context.Context, idle time.Duration) (byte, error) {
	if !in.asked {
		in.asked = true
		in.want <- struct{}{}
	}
	var late <-chan time.Time
	if idle > 0 {
		t := time.NewTimer(idle)
		defer t.Stop()
		late = t.C
	}
	select {
	case x := <-in.got:
		in.asked = x.err != nil // an end stays
		in.more = x.more
		if x.err != nil {
			in.got <- x
		}
		return x.b, x.err
	case <-late:
		return 0, errIdle
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
