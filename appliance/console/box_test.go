package console

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
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

	lookups chan string // names that are looked up, in vain until who asks gives up
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
	return newTestBoxOn(t, text, func(*config.Interface) (stack.Link, error) { a, _ := link.Pair(1500); return a, nil })
}

// newTestBoxOn is newTestBox on links of the caller's.
func newTestBoxOn(t testing.TB, text string, open func(*config.Interface) (stack.Link, error)) *testBox {
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
	b := &testBox{lookups: make(chan string, 1), disk: newFrailDisk(), now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	log := slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, _ := c.Running()
	app, err := appliance.New(r, appliance.Options{
		Open: open, Store: store, Now: b.clock, Rand: rand.NewChaCha8([32]byte{1}),
		Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
			b.lookups <- host
			<-ctx.Done()
			return nil, ctx.Err()
		},
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
	input *Input
	keys  io.Writer // to input
	typed int       // bytes
	over  bool      // the session is; guarded by input.mu

	screen interface{ take() string } // what is shown; nil: out

	mu  sync.Mutex
	out []byte
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
	y.push(keys)
	return y.pause()
}

// push types keys and waits for nothing.
func (y *typist) push(keys string) {
	y.typed += len(keys)
	io.WriteString(y.keys, keys)
}

// pause waits until the console has read all and wants more.
func (y *typist) pause() string {
	y.input.mu.Lock()
	for !(y.input.waiting && y.input.taken == y.typed) && !y.over {
		y.input.change.Wait()
	}
	y.input.mu.Unlock()
	return y.take()
}

// take returns what has been shown since it was asked last.
func (y *typist) take() string {
	if y.screen != nil {
		return y.screen.take()
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	out := string(y.out)
	y.out = nil
	return out
}

func (y *typist) left() bool {
	y.input.mu.Lock()
	defer y.input.mu.Unlock()
	return y.over
}

// sit begins a session for a typist.
func sit(t testing.TB, b *Box, who Who, terminal bool, cols int) *typist {
	t.Helper()
	r, w := io.Pipe()
	y := &typist{keys: w}
	y.talk(t, b, r, y, who, terminal, cols)
	t.Cleanup(func() { w.Close() }) // before the session's end is waited for
	return y
}

// talk begins a session that reads r and writes w.
func (y *typist) talk(t testing.TB, b *Box, r io.Reader, w io.Writer, who Who, terminal bool, cols int) {
	y.input = newInput()
	y.input.change = sync.NewCond(&y.input.mu)
	go y.input.fill(r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr := Transport{In: y.input, Out: w, Terminal: terminal, Size: func() (int, int) { return cols, 24 }}
		if err := b.Serve(ctx, tr, who); err != nil && err != io.EOF && ctx.Err() == nil {
			t.Errorf("Serve: %v", err)
		}
		y.input.mu.Lock()
		y.over = true
		y.input.change.Broadcast()
		y.input.mu.Unlock()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		y.input.Close()
	})
}
