package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// The control socket is how another program has a running box do commands of
// EXEC mode. A client sends one line; the answer is frames:
//
//	0      1        5
//	+------+--------+------------
//	| kind | length | bytes ...
//	+------+--------+------------
//
// of output, and at the end one that says how it went. Numbers are big-endian.
const (
	frameOutput  = 'o'
	frameRefused = 'e' // why the command was not done, or not to its end
	frameDone    = 'k'

	frameHeader = 5       // bytes
	maxFrame    = 1 << 20 // bytes; of output a frame has as much as one Write
)

const (
	controlName    = "exec.sock" // in the flash directory
	maxControl     = 8           // clients at once
	maxControlLine = 1024        // bytes that are read of a client; the box takes fewer
	controlWait    = 10 * time.Second
)

// An execFunc does a command and writes what it shows to w; when ctx ends it stops.
type execFunc func(ctx context.Context, w io.Writer, line string) error

// A control serves the socket.
type control struct {
	path string
	exec execFunc
	log  *slog.Logger

	// watch has show called with what debug shows, until stop is; nil: there is
	// no debug.
	watch func(show func(line string)) (stop func())

	ln   *net.UnixListener
	ctx  context.Context // of commands; Close ends it
	stop context.CancelFunc
	busy chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
}

// listenControl makes the socket at path, which its owner only may use. One that
// a box left behind is replaced, one that a box listens on is not.
func listenControl(path string, exec execFunc, watch func(func(string)) func(), log *slog.Logger) (*control, error) {
	if err := replaceStale(path); err != nil {
		return nil, fmt.Errorf("--socket %s: %w", path, err)
	}
	var ln *net.UnixListener
	err := private(func() (err error) {
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("--socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("--socket: %w", err)
	}
	c := &control{path: path, exec: exec, watch: watch, log: log, ln: ln, busy: make(chan struct{}, maxControl), conns: make(map[net.Conn]struct{})}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.wg.Add(1)
	go c.serve()
	return c, nil
}

// replaceStale removes a socket that nobody listens on.
func replaceStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file that is no socket; give another path or remove it")
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return errors.New("another box listens on it; give another path, or end that box")
	}
	return os.Remove(path)
}

// Close ends the socket, its clients and what is done for them, and removes it.
func (c *control) Close() error {
	err := c.ln.Close() // removes the file
	c.stop()
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	for conn := range conns {
		conn.Close()
	}
	c.wg.Wait()
	return err
}

// serve takes clients until Close.
func (c *control) serve() {
	defer c.wg.Done()
	for {
		conn, err := c.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			c.log.Warn("control socket", "reason", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, which passes
			continue
		}
		if !c.enter(conn) {
			conn.Close()
			return
		}
		select {
		case c.busy <- struct{}{}:
			c.wg.Add(1)
			go func() {
				defer c.wg.Done()
				defer func() { <-c.busy }()
				defer c.leave(conn)
				c.answer(conn)
			}()
		default:
			w := &frameWriter{conn}
			w.frame(frameRefused, fmt.Appendf(nil, "ERROR: %d clients are served already; try again", maxControl))
			// What is not read would take the answer from the client.
			conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			io.CopyN(io.Discard, conn, maxControlLine)
			c.leave(conn)
		}
	}
}

// enter notes a client, so that Close ends it; it reports false after Close.
func (c *control) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		return false
	}
	c.conns[conn] = struct{}{}
	return true
}

func (c *control) leave(conn net.Conn) {
	conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// answer does the one command of a client. A client that is silent, or does not
// take what it asked for, is left; with one that goes away the command ends.
func (c *control) answer(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(controlWait))
	r := bufio.NewReader(io.LimitReader(conn, maxControlLine))
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	conn.SetReadDeadline(time.Time{})
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer cancel()
		conn.Read(make([]byte, 1)) // nothing more is to come; leave ends it
	}()
	w := &frameWriter{conn}
	if err := c.exec(ctx, w, line[:len(line)-1]); err != nil {
		w.frame(frameRefused, []byte(err.Error()))
		return
	}
	if c.watch != nil && isDebug(line) {
		c.follow(ctx, conn, w)
		return
	}
	w.frame(frameDone, nil)
}

// isDebug reports whether a command that the box has done has debug show
// something.
func isDebug(line string) bool {
	f := strings.Fields(line)
	return len(f) > 1 && strings.HasPrefix("debug", strings.ToLower(f[0]))
}

// follow shows a client what debug shows, until it leaves or takes no more. What
// is on stays on.
func (c *control) follow(ctx context.Context, conn net.Conn, w *frameWriter) {
	stop := c.watch(func(line string) {
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			conn.Close()
		}
	})
	defer stop()
	<-ctx.Done()
}

// A frameWriter writes output as frames.
type frameWriter struct{ conn net.Conn }

func (w *frameWriter) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		part := b[n:min(len(b), n+maxFrame)]
		if err := w.frame(frameOutput, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(b), nil
}

func (w *frameWriter) frame(kind byte, b []byte) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(controlWait)); err != nil {
		return err
	}
	h := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b)))
	_, err := (&net.Buffers{h, b}).WriteTo(w.conn)
	return err
}

// A refusedError is why the box did not do a command, in its own words.
type refusedError string

func (e refusedError) Error() string { return string(e) }

// askControl has the box at the socket do a command and writes its output to w
// as it comes. A command that was refused is a refusedError.
func askControl(ctx context.Context, path, line string, w io.Writer) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("no box listens there (is \"patchbay run\" up, with this --socket?): %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, unsaid := io.WriteString(conn, line+"\n") // an answer may be there all the same
	r := bufio.NewReader(conn)
	for {
		var h [frameHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return fmt.Errorf("the box went away: %w", errors.Join(unsaid, err, context.Cause(ctx)))
		}
		n := binary.BigEndian.Uint32(h[1:])
		if n > maxFrame {
			return fmt.Errorf("a frame of %d bytes: %s is no box", n, path)
		}
		switch h[0] {
		case frameOutput:
			if _, err := io.CopyN(w, r, int64(n)); err != nil {
				return err
			}
		case frameRefused:
			why := make([]byte, n)
			if _, err := io.ReadFull(r, why); err != nil {
				return err
			}
			return refusedError(why)
		case frameDone:
			return nil
		default:
			return fmt.Errorf("a frame of kind %#x: %s is no box", h[0], path)
		}
	}
}
