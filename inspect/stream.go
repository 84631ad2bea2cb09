package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/nat"
)

// What a Stream holds to when its Limits are zero.
const (
	DefaultMessage    = 64 * 1024        // bytes that may wait for the end of a message
	DefaultReassembly = 60 * time.Second // "timeout tcp-proxy-reassembly 0:01:00"
	DefaultWrite      = 30 * time.Second // for a peer that does not read
	DefaultIdle       = time.Hour        // "timeout conn 1:00:00"
)

const (
	readLen   = 2 * 1024 // bytes that a quiet direction keeps to read into
	maxNoRead = 100      // reads in a row that may return neither bytes nor an error
)

// Limits bounds what one conversation may hold and how long it may wait. A
// zero field is the default of that name; a negative time is no limit.
type Limits struct {
	Message    int           // bytes that wait in one direction for the end of a message
	Reassembly time.Duration // a half message waits for the rest, from its first byte
	Write      time.Duration // one Write
	Idle       time.Duration // no byte in either direction
}

// Stats counts what one end of a conversation sent.
type Stats struct {
	Messages uint64 // passed on, edited or not
	Dropped  uint64 // ended by ErrDrop
	In       uint64 // bytes read from the end
	Out      uint64 // bytes written to the other one in their place
	Waiting  int64  // bytes read that wait for the end of a message
}

// A Stream is one proxied TCP conversation through a session of an engine.
// Fill the fields, then call Run once. A Stream must not be copied.
type Stream struct {
	Client net.Conn // to the phone
	Server net.Conn // to the call manager
	Engine Engine
	Binder Binder
	Limits Limits
	Log    *slog.Logger // for dropped messages; nil for none
	Count  *Counters    // or nil

	// Watch hears what the session said of each message, which is borrowed; nil
	// for nobody. The conversation waits for it.
	Watch func(msg []byte, from nat.End, err error)

	ends [2]endState

	mu      sync.Mutex // one message at a time
	session Session
}

// endState is what Run keeps of the direction that starts at one end.
type endState struct {
	messages, dropped, in, out atomic.Uint64
	waiting                    atomic.Int64
	last                       atomic.Int64 // time of the last read, Unix ns
}

// Stats returns what from has sent so far. It may be called at any time.
func (s *Stream) Stats(from nat.End) Stats {
	e := &s.ends[from&1]
	return Stats{
		Messages: e.messages.Load(),
		Dropped:  e.dropped.Load(),
		In:       e.in.Load(),
		Out:      e.out.Load(),
		Waiting:  e.waiting.Load(),
	}
}

// Expire ends the calls that nobody answered in time. It may be called at any
// time.
func (s *Stream) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.session.(Expirer); ok {
		e.Expire(now)
	}
}

// Calls returns the calls of the conversation at now. It may be called at any
// time.
func (s *Stream) Calls(now time.Time) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.session.(Lister); ok {
		return l.Calls(nil, now)
	}
	return nil
}

// Run passes messages both ways until one end closes, which is no error; until
// an end breaks a limit or sends what is no message; until the session fails;
// or until ctx is done. What was read and inspected before the end is written.
// On return both connections are closed, the session is closed, and no
// goroutine is left.
func (s *Stream) Run(ctx context.Context) error {
	s.mu.Lock()
	s.session = s.Engine.NewSession(s.Binder)
	s.mu.Unlock()
	defer s.end()
	defer s.closeConns()
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.closeConns()
	})
	defer func() {
		if !stop() {
			<-stopped
		}
	}()

	now := time.Now().UnixNano()
	s.ends[nat.Client].last.Store(now)
	s.ends[nat.Server].last.Store(now)

	errs := make(chan error, 1) // of the end that finished first
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		s.pass(nat.Server, errs)
	}()
	s.pass(nat.Client, errs)
	wg.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("inspect: conversation ended: %w", context.Cause(ctx))
	}
	return <-errs
}

// end closes the session.
func (s *Stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session.Close()
	s.session = nil
}

// pass runs one direction. The first to end reports why and ends the other.
func (s *Stream) pass(from nat.End, errs chan<- error) {
	err := s.pump(from)
	if errors.Is(err, ErrReset) {
		for _, c := range []net.Conn{s.Client, s.Server} {
			if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
				_ = l.SetLinger(0) // a reset where the connection can
			}
		}
	}
	select {
	case errs <- err:
	default: // the other direction was first; this one only met the closed connection
	}
	s.closeConns()
}

func (s *Stream) closeConns() {
	s.Client.Close()
	s.Server.Close()
}

// pump reads what from sends and writes what the other end must get.
func (s *Stream) pump(from nat.End) error {
	src := s.conn(from)
	state := &s.ends[from]
	limit := s.Limits.Message
	if limit <= 0 {
		limit = DefaultMessage
	}
	reassembly := orDefault(s.Limits.Reassembly, DefaultReassembly)
	idle := orDefault(s.Limits.Idle, DefaultIdle)

	small := min(readLen, limit)
	buf := make([]byte, 0, small) // read and not yet passed on
	var out []byte                // inspected and not yet written
	var half time.Time            // when the message at the front of buf began
	empty := 0                    // reads in a row without a byte
	defer func() {
		s.Count.lose(len(buf))
		s.Count.wait(-int(state.waiting.Swap(0)))
	}()

	for {
		var wait time.Time // zero: for ever
		waiting := len(buf) > 0 && reassembly > 0
		switch {
		case waiting:
			wait = half.Add(reassembly)
		case idle > 0:
			wait = s.lastRead().Add(idle)
		}
		// On a connection that is closed already, Read says so better.
		if err := src.SetReadDeadline(wait); errors.Is(err, os.ErrNoDeadline) {
			return fmt.Errorf("inspect: reading from %v: %w", from, err)
		}

		n, rerr := src.Read(buf[len(buf):cap(buf)])
		now := time.Now()
		if n > 0 {
			empty = 0
			state.last.Store(now.UnixNano())
			state.in.Add(uint64(n))
			if len(buf) == 0 {
				half = now
			}
			buf = buf[:len(buf)+n]
		} else if rerr == nil {
			if empty++; empty == maxNoRead {
				return fmt.Errorf("inspect: reading from %v: %w", from, io.ErrNoProgress)
			}
		}
		if n > 0 || rerr == io.EOF {
			used, inspected, ierr := s.inspect(out[:0], buf, from, rerr == io.EOF)
			werr := s.write(inspected, from)
			if ierr != nil || werr != nil {
				buf = buf[used:]
				return errors.Join(ierr, werr)
			}
			out = inspected
			if used > 0 {
				half = now
			}
			buf = resize(buf, used, small, limit)
			if cap(out) > 2*small {
				out = nil
			}
			s.Count.wait(len(buf) - int(state.waiting.Swap(int64(len(buf)))))
			if len(buf) == cap(buf) {
				return fmt.Errorf("inspect: message from %v is longer than %d bytes", from, limit)
			}
		}

		switch {
		case rerr == nil:
		case rerr == io.EOF:
			if len(buf) > 0 {
				return fmt.Errorf("inspect: %v ended after %d bytes of a message: %w", from, len(buf), io.ErrUnexpectedEOF)
			}
			return nil
		case passed(wait, now, rerr) && waiting:
			return fmt.Errorf("inspect: %d bytes from %v waited %v for the rest of their message: %w", len(buf), from, reassembly, rerr)
		case passed(wait, now, rerr) && time.Since(s.lastRead()) < idle:
			// The other direction was busy meanwhile.
		case passed(wait, now, rerr):
			return fmt.Errorf("inspect: no byte from either end for %v: %w", idle, rerr)
		default:
			return fmt.Errorf("inspect: reading from %v: %w", from, rerr)
		}
	}
}

// passed reports whether err says, at now, that the deadline has passed. The
// netstack's connections have an error of their own for it.
func passed(deadline, now time.Time, err error) bool {
	var late net.Error
	return !deadline.IsZero() && !now.Before(deadline) && errors.As(err, &late) && late.Timeout()
}

// inspect passes the whole messages in data through the session. See Pass.
func (s *Stream) inspect(dst, data []byte, from nat.End, atEOF bool) (int, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := &s.ends[from]
	return Pass(s.Engine, s.session, dst, data, from, atEOF, func(msg []byte, err error) {
		s.Count.Note(err)
		if s.Watch != nil {
			s.Watch(msg, from, err)
		}
		switch {
		case err == nil:
			state.messages.Add(1)
		case errors.Is(err, ErrDrop):
			state.dropped.Add(1)
			if s.Log != nil && !errors.Is(err, ErrRule) {
				s.Log.Warn("message dropped", "from", from.String(), "client", s.Client.RemoteAddr(), "bytes", len(msg), "err", err)
			}
		}
	})
}

// write sends what from's messages became to the other end.
func (s *Stream) write(b []byte, from nat.End) error {
	if len(b) == 0 {
		return nil
	}
	dst := s.conn(from.Other())
	var deadline time.Time
	if limit := orDefault(s.Limits.Write, DefaultWrite); limit > 0 {
		deadline = time.Now().Add(limit)
	}
	err := dst.SetWriteDeadline(deadline)
	if err == nil {
		var n int
		n, err = dst.Write(b)
		s.ends[from].out.Add(uint64(n))
	}
	if err != nil {
		return fmt.Errorf("inspect: writing %d bytes to %v: %w", len(b), from.Other(), err)
	}
	return nil
}

func (s *Stream) conn(e nat.End) net.Conn {
	if e == nat.Client {
		return s.Client
	}
	return s.Server
}

// lastRead returns when a byte last came from either end.
func (s *Stream) lastRead() time.Time {
	return time.Unix(0, max(s.ends[nat.Client].last.Load(), s.ends[nat.Server].last.Load()))
}

// resize drops the first used bytes of buf and returns the rest with room to
// read into: a quiet direction keeps small bytes, a long message doubles them
// up to limit. Only a rest of limit bytes leaves no room.
func resize(buf []byte, used, small, limit int) []byte {
	rest := buf[used:]
	size := small
	for size <= len(rest) && size < limit {
		size = min(2*size, limit)
	}
	to := buf[:0]
	if size != cap(buf) {
		to = make([]byte, 0, size)
	}
	return append(to, rest...)
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
