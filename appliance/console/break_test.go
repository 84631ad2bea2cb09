package console

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// slowTrustpoint is the configuration of a CA whose name is looked up for ever.
var slowTrustpoint = []string{"crypto ca trustpoint far", "enrollment url http://ca.example:80"}

// await returns what a box has begun to look up.
func (b *testBox) await(t *testing.T) string {
	t.Helper()
	select {
	case name := <-b.lookups:
		return name
	case <-time.After(time.Minute):
		t.Fatal("the command asks nobody")
	}
	return ""
}

// slowly begins a command that takes for ever at a console.
func slowly(t *testing.T, b *testBox) *typist {
	t.Helper()
	b.enter(t, slowTrustpoint...)
	y := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	y.press("")
	y.push("crypto ca authenticate far nointeractive\r")
	if got, want := b.await(t), "ca.example"; got != want {
		t.Fatalf("the command looks up %q, want %q", got, want)
	}
	return y
}

// Ctrl-C breaks off a command, with what was typed ahead of it; what is typed
// after it is read.
func TestCtrlC(t *testing.T) {
	for _, key := range []string{"\x03", "\x1e"} {
		testBreak(t, key)
	}
}

func testBreak(t *testing.T, key string) {
	t.Helper()
	y := slowly(t, newTestBox(t, ""))
	y.push("show clock\r" + key + "show curpriv\r")
	got := plain(y.pause())
	want := "pb# show curpriv\nUsername : enable_15\nCurrent privilege level : 15\nCurrent Mode/s : P_PRIV\npb# "
	if !strings.HasSuffix(got, "far nointeractive\n"+want) {
		t.Errorf("the key %q gives\n%s\nwant\n%s", key, got, want)
	}
}

// Without a Ctrl-C what was typed ahead waits for the command's end, and is
// bounded.
func TestTypedAhead(t *testing.T) {
	in := newInput()
	defer in.Close()
	r, w := io.Pipe()
	go in.fill(r)
	in.onBreak(func() { t.Error("Ctrl-C is seen that nobody has typed") })
	typed := make(chan struct{})
	go func() {
		defer close(typed)
		for range 3 * maxAhead / 8 {
			io.WriteString(w, "12345678")
		}
		w.Close()
	}()
	n := 0
	for {
		_, err := in.read(t.Context(), time.Minute, nil, nil)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
		in.mu.Lock()
		if len(in.ahead) > maxAhead+1024 {
			t.Errorf("%d bytes wait, want %d at most", len(in.ahead), maxAhead+1024)
		}
		in.mu.Unlock()
	}
	<-typed
	if n != 3*maxAhead {
		t.Errorf("%d bytes are read, want %d", n, 3*maxAhead)
	}
}

// The end of a connection ends the command that it runs.
func TestHangUp(t *testing.T) {
	b := newTestBox(t, "")
	b.enter(t, slowTrustpoint...)
	ctx, cancel := context.WithCancel(context.Background())
	in := NewInput(strings.NewReader(""))
	defer in.Close()
	done := make(chan bool)
	go func() {
		done <- b.Do(ctx, Transport{In: in, Out: io.Discard}, Who{From: "198.51.100.7", Level: maxPrivilege}, "crypto ca authenticate far nointeractive")
	}()
	b.await(t)
	cancel()
	select {
	case ok := <-done:
		if ok {
			t.Error("the command that was broken off is said to be done")
		}
	case <-time.After(time.Minute):
		t.Error("the command goes on for nobody")
	}
}

// What is shown after a command was broken off is its last words, not a table.
func TestLastWords(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	var out strings.Builder
	w := &untilWriter{ctx: ctx, w: &out}
	rows := strings.Repeat("x", 4*lastWords)
	if _, err := io.WriteString(w, rows); err != nil {
		t.Error(err)
	}
	cancel(errInterrupt)
	if _, err := io.WriteString(w, "Success rate"); err != nil {
		t.Errorf("last words: %v", err)
	}
	if _, err := io.WriteString(w, rows); err != errInterrupt {
		t.Errorf("the rest: %v, want %v", err, errInterrupt)
	}
	if got, want := out.String(), rows+"Success rate"; got != want {
		t.Errorf("%d bytes are shown, want %d", len(got), len(want))
	}
}

// A console that has taken a key does not wait, before it is told so.
func TestTakenIsNotWaiting(t *testing.T) {
	in := newInput()
	if _, ok, err := in.next(); ok || err != nil || !in.waiting {
		t.Fatalf("nothing is typed: %v, %v, waiting %v", ok, err, in.waiting)
	}
	in.typed('q')
	if b, ok, _ := in.next(); b != 'q' || !ok || in.waiting {
		t.Errorf("next = %q, %v; waiting %v", b, ok, in.waiting)
	}
}
