package console

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// A testBox is a box on wires in memory, with its disk, log and clock.
type testBox struct {
	*Box
	disk *frailDisk

	mu       sync.Mutex
	log      bytes.Buffer
	now      time.Time
	reloaded int
}

func (b *testBox) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *testBox) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

func (b *testBox) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *testBox) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// newTestBox returns the box of a configuration, by default testdata/box.cfg.
func newTestBox(t testing.TB, text string) *testBox {
	t.Helper()
	if text == "" {
		data, err := os.ReadFile("testdata/box.cfg")
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	c, found := config.Load("box.cfg", strings.NewReader(text), false)
	if config.Errors(found) > 0 {
		t.Fatalf("the configuration is refused: %v", found)
	}
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBox{disk: newFrailDisk(), now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	log := slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, _ := c.Running()
	app, err := appliance.New(r, appliance.Options{
		Open:  func(*config.Interface) (stack.Link, error) { a, _ := link.Pair(1500); return a, nil },
		Store: store, Now: b.clock, Rand: rand.NewChaCha8([32]byte{1}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	b.Box, err = NewBox(Options{
		App: app, Text: c, Startup: NewStartup(b.disk), Store: store, Now: b.clock, Rand: rand.NewChaCha8([32]byte{2}), Rounds: 1000, Log: log,
		Reload: func() { b.mu.Lock(); b.reloaded++; b.mu.Unlock() },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A typist types at a console and sees what it shows. It knows when the console
// waits for a key.
type typist struct {
	mu      sync.Mutex
	cond    *sync.Cond
	in      []byte
	out     []byte
	waiting bool // for a key
	closed  bool // nothing more is typed
	over    bool // the session is
}

func newTypist() *typist {
	y := new(typist)
	y.cond = sync.NewCond(&y.mu)
	return y
}

func (y *typist) Read(p []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for len(y.in) == 0 {
		if y.closed {
			return 0, io.EOF
		}
		y.waiting = true
		y.cond.Broadcast()
		y.cond.Wait()
	}
	n := copy(p, y.in)
	y.in = y.in[n:]
	return n, nil
}

func (y *typist) Write(p []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.out = append(y.out, p...)
	return len(p), nil
}

// press types keys, waits until the console wants more, and returns what it
// showed meanwhile.
func (y *typist) press(keys string) string {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.in = append(y.in, keys...)
	y.waiting = y.waiting && keys == ""
	y.cond.Broadcast()
	for !y.waiting && !y.over {
		y.cond.Wait()
	}
	out := string(y.out)
	y.out = nil
	return out
}

func (y *typist) end() {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.closed = true
	y.cond.Broadcast()
}

// sit begins a session for a typist.
func sit(t testing.TB, b *Box, who Who, terminal bool, cols int) *typist {
	t.Helper()
	y := newTypist()
	in := NewInput(y)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr := Transport{In: in, Out: y, Terminal: terminal, Size: func() (int, int) { return cols, 24 }}
		if err := b.Serve(context.Background(), tr, who); err != nil && err != io.EOF {
			t.Errorf("Serve: %v", err)
		}
		y.mu.Lock()
		y.over = true
		y.cond.Broadcast()
		y.mu.Unlock()
	}()
	t.Cleanup(func() {
		y.end()
		<-done
		in.Close()
	})
	return y
}
