package console

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errIdle ends a session whose user has typed nothing for too long.
var errIdle = errors.New("console: idle for too long")

// maxAhead is how many bytes may be typed before a console wants them. What is
// over waits in the Reader.
const maxAhead = 4096

// An Input is where consoles read what is typed, one after the other: a console
// that is left begins anew on the same Input. Its Reader is read all the time, so
// that Ctrl-C is seen while a command runs, on a goroutine that lives until the
// Reader fails or the first read after Close returns.
type Input struct {
	wake chan struct{} // has room for one: something has come
	room chan struct{} // the same: there is room in ahead
	quit chan struct{}

	mu      sync.Mutex
	ahead   []byte // typed and yet to be read
	err     error  // behind ahead
	waiting bool   // a console waits for a byte
	broken  func() // is told of a Ctrl-C for which no console waits; nil: it is a byte

	taken  int        // bytes read, and those of a Ctrl-C
	change *sync.Cond // if set, is told of waiting and taken: for tests
}

// NewInput returns the Input of r.
func NewInput(r io.Reader) *Input {
	in := newInput()
	go in.fill(r)
	return in
}

func newInput() *Input {
	return &Input{wake: make(chan struct{}, 1), room: make(chan struct{}, 1), quit: make(chan struct{})}
}

// Close lets the goroutine end once its Reader returns.
func (in *Input) Close() { close(in.quit) }

// fill reads r until it fails.
func (in *Input) fill(r io.Reader) {
	buf := make([]byte, 1024)
	for {
		n, err := r.Read(buf)
		in.mu.Lock()
		for _, b := range buf[:n] {
			in.typed(b)
		}
		full := len(in.ahead) >= maxAhead
		in.err = err
		in.mu.Unlock()
		signal(in.wake)
		if err != nil {
			return
		}
		for full {
			select {
			case <-in.quit:
				return
			case <-in.room:
			}
			in.mu.Lock()
			full = len(in.ahead) >= maxAhead
			in.mu.Unlock()
		}
		select {
		case <-in.quit:
			return
		default:
		}
	}
}

// breaks reports whether a byte is Ctrl-C or the "escape sequence" that a ping
// speaks of, Ctrl-Shift-6.
func breaks(b byte) bool { return b == 'c'&0x1f || b == '^'&0x1f }

// typed takes one byte. A Ctrl-C that breaks off a command takes with it what was
// typed before it, as on any terminal.
func (in *Input) typed(b byte) {
	if breaks(b) && in.broken != nil && !in.waiting {
		in.taken += len(in.ahead) + 1
		in.ahead = nil
		in.broken()
		return
	}
	in.ahead = append(in.ahead, b)
}

// onBreak has broken called at each Ctrl-C for which no console waits, and must
// not call the Input; nil ends that.
func (in *Input) onBreak(broken func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.broken = broken
}

// read returns the next byte, errIdle if it does not come within idle (0: for
// ever), or the error of ctx. Meanwhile each signal on told has tell called; nil is
// none.
func (in *Input) read(ctx context.Context, idle time.Duration, told <-chan struct{}, tell func()) (byte, error) {
	var late <-chan time.Time
	defer in.wait(false)
	for {
		if b, ok, err := in.next(); ok || err != nil {
			return b, err
		}
		if idle > 0 && late == nil {
			t := time.NewTimer(idle)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-in.wake:
		case <-told:
			tell()
		case <-late:
			return 0, errIdle
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// next returns a byte that has been typed, or the end. If there is neither, the
// console waits.
func (in *Input) next() (b byte, ok bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.ahead) == 0 {
		if in.err == nil {
			in.waitLocked(true)
		}
		return 0, false, in.err
	}
	b = in.ahead[0]
	in.ahead = in.ahead[1:]
	in.taken++
	in.waitLocked(false) // at once, or who looks now takes it for waiting for the next
	signal(in.room)
	return b, true, nil
}

// more reports whether the next byte is here already.
func (in *Input) more() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.ahead) > 0
}

// wait sets whether a console waits.
func (in *Input) wait(waiting bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.waitLocked(waiting)
}

func (in *Input) waitLocked(waiting bool) {
	in.waiting = waiting
	if in.change != nil {
		in.change.Broadcast()
	}
}

// signal wakes who waits for c, now or next.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
