package inspect_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"patchbay/inspect"
	"patchbay/nat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is an engine whose messages end in a newline. What the client sends
// becomes upper case, what the server sends gets a ">" in front. A line that
// begins with '-' is dropped, one with '!' ends the conversation and one with
// '?' is no message.
type lines struct {
	closed *atomic.Int32
}

func (l lines) Split(data []byte, atEOF bool) (int, []byte, error) {
	if len(data) > 0 && data[0] == '?' {
		return 0, nil, errors.New("no message")
	}
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	return 0, nil, nil
}

func (l lines) NewSession(b inspect.Binder) inspect.Session { return l }
func (l lines) Close()                                      { l.closed.Add(1) }

func (l lines) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	switch msg[0] {
	case '-':
		return append(dst, "garbage that must not be sent"...), fmt.Errorf("lines: %w", inspect.ErrDrop)
	case '!':
		return dst, errFatal
	}
	if from == nat.Client {
		return append(dst, bytes.ToUpper(msg)...), nil
	}
	return append(append(dst, '>'), msg...), nil
}

var errFatal = errors.New("fatal line")

// talk is a Stream that runs between two connections of a test.
type talk struct {
	*inspect.Stream
	phone, ucm net.Conn // the far ends
	closed     atomic.Int32
	cancel     context.CancelCauseFunc
	done       chan error
}

func start(t *testing.T, limits inspect.Limits, pair func() (net.Conn, net.Conn)) *talk {
	t.Helper()
	c := &talk{done: make(chan error, 1)}
	var client, server net.Conn
	c.phone, client = pair()
	server, c.ucm = pair()
	c.Stream = &inspect.Stream{
		Client: client,
		Server: server,
		Engine: lines{&c.closed},
		Limits: limits,
		Log:    slog.New(slog.DiscardHandler),
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancelCause(t.Context())
	go func() { c.done <- c.Run(ctx) }()
	return c
}

// finish waits for Run and checks what it promises.
func (c *talk) finish(t *testing.T) error {
	t.Helper()
	err := <-c.done
	if n := c.closed.Load(); n != 1 {
		t.Errorf("session closed %d times", n)
	}
	for _, conn := range []net.Conn{c.Client, c.Server} {
		if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("connection still open after Run: Write gives %v", err)
		}
	}
	c.phone.Close()
	c.ucm.Close()
	c.cancel(nil)
	return err
}

// read returns the next n bytes of conn.
func read(t *testing.T, conn net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatalf("reading %d bytes: %v", n, err)
	}
	return string(b)
}

func send(t *testing.T, conn net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(conn, s); err != nil {
		t.Fatalf("writing %q: %v", s, err)
	}
}

func loopback(t *testing.T) func() (net.Conn, net.Conn) {
	return func() (net.Conn, net.Conn) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

func TestStream(t *testing.T) {
	for name, pair := range map[string]func() (net.Conn, net.Conn){"pipe": net.Pipe, "tcp": loopback(t)} {
		t.Run(name, func(t *testing.T) {
			c := start(t, inspect.Limits{}, pair)
			send(t, c.phone, "hello\n")
			if got := read(t, c.ucm, 6); got != "HELLO\n" {
				t.Errorf("ucm got %q", got)
			}
			send(t, c.ucm, "well\nhello\n")
			if got := read(t, c.phone, 13); got != ">well\n>hello\n" {
				t.Errorf("phone got %q", got)
			}
			c.ucm.Close()
			if rest, err := io.ReadAll(c.phone); len(rest) != 0 || err != nil {
				t.Errorf("phone read %q, %v at the end", rest, err)
			}
			if err := c.finish(t); err != nil {
				t.Errorf("Run = %v", err)
			}
			if got, want := c.Stats(nat.Client), (inspect.Stats{Messages: 1, In: 6, Out: 6}); got != want {
				t.Errorf("Stats(client) = %+v, want %+v", got, want)
			}
			if got, want := c.Stats(nat.Server), (inspect.Stats{Messages: 2, In: 11, Out: 13}); got != want {
				t.Errorf("Stats(server) = %+v, want %+v", got, want)
			}
		})
	}
}

func TestStreamByteByByte(t *testing.T) {
	c := start(t, inspect.Limits{}, net.Pipe)
	go func() {
		for _, b := range []byte("one\ntwo\nthree\n") {
			c.phone.Write([]byte{b})
		}
		c.phone.Close()
	}()
	got, err := io.ReadAll(c.ucm)
	if string(got) != "ONE\nTWO\nTHREE\n" || err != nil {
		t.Errorf("ucm got %q, %v", got, err)
	}
	if err := c.finish(t); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// countingConn counts calls of Write.
type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func TestStreamWritesOncePerRead(t *testing.T) {
	var writes atomic.Int32
	c := start(t, inspect.Limits{}, func() (net.Conn, net.Conn) {
		a, b := net.Pipe()
		return countingConn{a, &writes}, b
	})
	whole := strings.Repeat("message\n", 100)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// One Write on a pipe of 800 bytes is one Read of the Stream.
		c.phone.(countingConn).Conn.Write([]byte(whole + "half"))
	}()
	if got := read(t, c.ucm, len(whole)); got != strings.ToUpper(whole) {
		t.Errorf("ucm got %q", got)
	}
	<-sent
	if n := writes.Load(); n != 1 {
		t.Errorf("%d writes for one read", n)
	}
	c.cancel(errors.New("enough"))
	if err := c.finish(t); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Run = %v, want the cause", err)
	}
}

// TestStreamLongMessages sends messages far longer than the first buffer, cut
// at awkward places.
func TestStreamLongMessages(t *testing.T) {
	c := start(t, inspect.Limits{}, loopback(t))
	var sent bytes.Buffer
	for i, n := range []int{1, 4095, 4096, 4097, 0, 8191, 60000, 65534, 3} {
		sent.WriteString(strings.Repeat(string(rune('a'+i)), n) + "\n")
	}
	go func() {
		for b := sent.Bytes(); len(b) > 0; {
			n := min(1013, len(b))
			c.phone.Write(b[:n])
			b = b[n:]
		}
		c.phone.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c.ucm)
	if want := bytes.ToUpper(sent.Bytes()); !bytes.Equal(got, want) || err != nil {
		t.Errorf("ucm got %d bytes, %v; want %d", len(got), err, len(want))
	}
	if err := c.finish(t); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestStreamEnds(t *testing.T) {
	tests := []struct {
		name string
		sent string // by the phone, before it closes
		got  string // by the ucm, before it sees the end
		err  error
		text string // in the error
	}{
		{"nothing", "", "", nil, ""},
		{"whole messages", "a\nb\n", "A\nB\n", nil, ""},
		{"half a message", "a\nbcd", "A\n", io.ErrUnexpectedEOF, "3 bytes"},
		{"dropped message", "a\n-b\nc\n", "A\nC\n", nil, ""},
		{"fatal message", "a\n!b\nc\n", "A\n", errFatal, "from client"},
		{"no message", "a\n?", "A\n", nil, "no message"},
		{"too long", "a\n" + strings.Repeat("x", 2000), "A\n", nil, "longer than 1000 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, inspect.Limits{Message: 1000}, loopback(t))
			send(t, c.phone, tt.sent)
			c.phone.(*net.TCPConn).CloseWrite()
			if got, _ := io.ReadAll(c.ucm); string(got) != tt.got {
				t.Errorf("ucm got %q, want %q", got, tt.got)
			}
			err := c.finish(t)
			if tt.err == nil && tt.text == "" && err != nil {
				t.Errorf("Run = %v", err)
			}
			if tt.err != nil && !errors.Is(err, tt.err) || tt.text != "" && (err == nil || !strings.Contains(err.Error(), tt.text)) {
				t.Errorf("Run = %v, want %v with %q", err, tt.err, tt.text)
			}
			if tt.name == "dropped message" && c.Stats(nat.Client).Dropped != 1 {
				t.Errorf("Stats = %+v, want one dropped", c.Stats(nat.Client))
			}
		})
	}
}

// TestStreamEndless offers 10 MB without the end of a message.
func TestStreamEndless(t *testing.T) {
	c := start(t, inspect.Limits{}, loopback(t))
	b := bytes.Repeat([]byte("x"), 10<<20)
	n, err := c.phone.Write(b)
	if err == nil {
		// All of it fit into the kernel's buffers: the end must still come.
		_, err = c.phone.Read(b[:1])
	}
	if err == nil {
		t.Errorf("phone wrote %d bytes and its connection lives", n)
	}
	if err := c.finish(t); err == nil || !strings.Contains(err.Error(), "longer than 65536 bytes") {
		t.Errorf("Run = %v", err)
	}
	if in := c.Stats(nat.Client).In; in > inspect.DefaultMessage {
		t.Errorf("%d bytes held", in)
	}
}

func TestStreamHalfMessageTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{}, net.Pipe)
		begin := time.Now()
		// A drip of bytes does not extend the wait, nor does the other end.
		go func() {
			for {
				if _, err := c.phone.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(7 * time.Second)
			}
		}()
		go io.Copy(io.Discard, c.phone)
		go func() {
			for {
				if _, err := c.ucm.Write([]byte("busy\n")); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		}()
		err := c.finish(t)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "9 bytes from client waited 1m0s") {
			t.Errorf("Run = %v", err)
		}
		if d := time.Since(begin); d != inspect.DefaultReassembly {
			t.Errorf("ended after %v", d)
		}
		time.Sleep(time.Minute) // the writers see the end
	})
}

// TestStreamSlowMessages: each half message has a minute of its own.
func TestStreamSlowMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{}, net.Pipe)
		go func() {
			for range 5 {
				c.phone.Write([]byte("end\nbegin"))
				time.Sleep(59 * time.Second)
			}
			c.phone.Write([]byte("\n"))
			c.phone.Close()
		}()
		want := "END\n" + strings.Repeat("BEGINEND\n", 4) + "BEGIN\n"
		if got, err := io.ReadAll(c.ucm); string(got) != want || err != nil {
			t.Errorf("ucm got %q, %v", got, err)
		}
		if err := c.finish(t); err != nil {
			t.Errorf("Run = %v", err)
		}
		synctest.Wait()
	})
}

func TestStreamIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{Idle: time.Minute}, net.Pipe)
		go io.Copy(io.Discard, c.ucm)
		begin := time.Now()
		go func() {
			for range 10 { // the phone alone keeps both directions alive
				c.phone.Write([]byte("keepalive\n"))
				time.Sleep(50 * time.Second)
			}
		}()
		err := c.finish(t)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "no byte from either end for 1m0s") {
			t.Errorf("Run = %v", err)
		}
		if d := time.Since(begin); d != 9*50*time.Second+time.Minute {
			t.Errorf("ended after %v", d)
		}
		synctest.Wait()
		time.Sleep(time.Minute) // for the phone's last sleep
	})
}

func TestStreamPeerDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{}, net.Pipe)
		begin := time.Now()
		go c.phone.Write([]byte("hello\n")) // the ucm never reads
		err := c.finish(t)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "writing 6 bytes to server") {
			t.Errorf("Run = %v", err)
		}
		if d := time.Since(begin); d != inspect.DefaultWrite {
			t.Errorf("ended after %v", d)
		}
		synctest.Wait()
	})
}

func TestStreamNoLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{Reassembly: -1, Write: -1, Idle: -1}, net.Pipe)
		go func() {
			c.phone.Write([]byte("half"))
			time.Sleep(48 * time.Hour)
			c.phone.Write([]byte("\n"))
			c.phone.Close()
		}()
		time.Sleep(72 * time.Hour) // the write waits as long
		if got, err := io.ReadAll(c.ucm); string(got) != "HALF\n" || err != nil {
			t.Errorf("ucm got %q, %v", got, err)
		}
		if err := c.finish(t); err != nil {
			t.Errorf("Run = %v", err)
		}
		synctest.Wait()
	})
}

func TestStreamCancel(t *testing.T) {
	c := start(t, inspect.Limits{}, loopback(t))
	send(t, c.phone, "half")
	c.cancel(context.Canceled)
	if err := c.finish(t); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}

func TestStreamCanceledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var closed atomic.Int32
	_, client := net.Pipe()
	_, server := net.Pipe()
	s := &inspect.Stream{Client: client, Server: server, Engine: lines{&closed}}
	if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	if closed.Load() != 1 {
		t.Errorf("session closed %d times", closed.Load())
	}
}

// badSplit claims more than there is, or a message of no bytes.
type badSplit struct {
	lines
	n int
}

func (b badSplit) Split(data []byte, atEOF bool) (int, []byte, error) {
	return b.n, data[:0], nil
}

func TestStreamBadSplit(t *testing.T) {
	for _, n := range []int{-1, 0, 100} {
		var closed atomic.Int32
		phone, client := net.Pipe()
		_, server := net.Pipe()
		s := &inspect.Stream{Client: client, Server: server, Engine: badSplit{lines{&closed}, n}}
		go phone.Write([]byte("hello"))
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "split 5 bytes") {
			t.Errorf("Run with advance %d = %v", n, err)
		}
	}
}

// emptyConn reads nothing, for ever.
type emptyConn struct{ net.Conn }

func (emptyConn) Read([]byte) (int, error) { return 0, nil }

func TestStreamNoProgress(t *testing.T) {
	var closed atomic.Int32
	_, client := net.Pipe()
	_, server := net.Pipe()
	s := &inspect.Stream{Client: emptyConn{client}, Server: server, Engine: lines{&closed}}
	if err := s.Run(t.Context()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Run = %v", err)
	}
}

// BenchmarkStream passes one message of 20 bytes through a pipe.
func BenchmarkStream(b *testing.B) {
	phone, client := net.Pipe()
	server, ucm := net.Pipe()
	var closed atomic.Int32
	s := &inspect.Stream{Client: client, Server: server, Engine: lines{&closed}, Limits: inspect.Limits{Reassembly: -1, Write: -1, Idle: -1}}
	done := make(chan error, 1)
	go func() { done <- s.Run(b.Context()) }()
	msg, got := []byte("0123456789012345678\n"), make([]byte, 20)
	b.ReportAllocs()
	for b.Loop() {
		phone.Write(msg)
		if _, err := io.ReadFull(ucm, got); err != nil {
			b.Fatal(err)
		}
	}
	phone.Close()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	ucm.Close()
}

// TestCounters shares counters between conversations: what passed, what was
// dropped and reset, the bytes that wait and those that waited in vain.
func TestCounters(t *testing.T) {
	rules := map[string]error{
		"drop\n":  inspect.Drop.Refuse(errors.New("rule")),
		"reset\n": inspect.Reset.Refuse(errors.New("rule")),
	}
	var count inspect.Counters
	run := func(send string, want inspect.Count) {
		t.Helper()
		phone, client := net.Pipe()
		server, ucm := net.Pipe()
		s := &inspect.Stream{Client: client, Server: server, Engine: ruleEngine{rules}, Binder: nil, Count: &count}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Run(context.Background())
		}()
		go io.Copy(io.Discard, ucm)
		phone.Write([]byte(send))
		deadline := time.Now().Add(10 * time.Second)
		for count.Count() != want && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if got := count.Count(); got != want {
			t.Errorf("after %q: %+v, want %+v", send, got, want)
		}
		phone.Close()
		<-done
		ucm.Close()
	}
	run("one\ntwo\ndrop\nhal", inspect.Count{Messages: 3, Dropped: 1, Waiting: 3})
	if got, want := count.Count(), (inspect.Count{Messages: 3, Dropped: 1, Lost: 3}); got != want {
		t.Errorf("after the end: %+v, want %+v", got, want)
	}
	run("three\nreset\nnever", inspect.Count{Messages: 5, Dropped: 2, Reset: 1, Lost: 8})
}

// A ruleEngine reads lines, and ends those that rules has.
type ruleEngine struct{ rules map[string]error }

func (ruleEngine) Split(data []byte, atEOF bool) (int, []byte, error) {
	n := bytes.IndexByte(data, '\n') + 1
	if n == 0 {
		return 0, nil, nil
	}
	return n, data[:n:n], nil
}
func (e ruleEngine) NewSession(inspect.Binder) inspect.Session { return ruleSession(e) }

type ruleSession ruleEngine

func (s ruleSession) Inspect(dst, msg []byte, _ nat.End) ([]byte, error) {
	return append(dst, msg...), s.rules[string(msg)]
}
func (ruleSession) Close() {}
