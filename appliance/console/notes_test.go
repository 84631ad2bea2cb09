package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// only returns the one session that there is.
func (b *testBox) only(t *testing.T) *Session {
	t.Helper()
	b.Box.mu.Lock()
	defer b.Box.mu.Unlock()
	for s := range b.sessions {
		return s
	}
	t.Fatal("there is no session")
	return nil
}

// until waits until the console has shown something that ends in want.
func (y *typist) until(t *testing.T, want string) {
	t.Helper()
	got := ""
	for range 20_000 {
		if got += y.take(); strings.HasSuffix(got, want) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("the console shows\n%q\nwant the end\n%q", got, want)
}

// Messages are shown to who asks for them, above the line that is being typed.
func TestTerminalMonitor(t *testing.T) {
	b := newTestBox(t, "")
	b.enter(t, "logging enable", "logging monitor notifications")
	say := func(level int, text string) { b.opt.App.Syslog().Message(990000, level, text) }
	y := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 80)
	y.press("")
	say(3, "nobody watches")
	y.press("terminal monitor\r")
	y.press("show\x02\x02") // with the cursor on "o"
	say(6, "not of that level")
	say(4, "a \x1b message")
	y.until(t, "\r        \r%ASA-4-990000: a \\x1b message\r\npb# show\b\b")
	if got, want := plain(y.press("\x05 clock\r")), "pb# "; !strings.HasSuffix(got, "\n"+want) {
		t.Errorf("the command shows %q, want %q at its end", got, want)
	}
	y.press("terminal no monitor\r")
	say(3, "nobody watches")
	y.press("terminal monitor\r")
	if got := y.press("disable\r"); strings.Contains(got, "nobody") {
		t.Errorf("a message is shown to nobody: %q", got)
	}
	say(3, "not allowed")
	if got := y.press("show curpriv\r"); strings.Contains(got, "not allowed") {
		t.Errorf("a message is shown to a user who may not ask for it: %q", got)
	}
}

// Nothing is shown amid a page or a command; on what is no terminal a prompt
// follows.
func TestNotesWait(t *testing.T) {
	b := newTestBox(t, "")
	y := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	y.press("terminal pager 5\r")
	y.press("show running-config\r")
	b.only(t).t.notes.put("now")
	if got := y.press("\r"); strings.Contains(got, "now") || !strings.HasSuffix(got, more) {
		t.Errorf("amid a page: %q", got)
	}
	if got := plain(y.press("q")); !strings.HasSuffix(got, "\nnow\npb# ") {
		t.Errorf("after it: %q", got)
	}
	y.press("exit\r")

	y = sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, false, 0)
	y.press("show cl")
	b.only(t).t.notes.put("now")
	y.until(t, "\nnow\npb# ")
	if got, want := y.press("ock\n"), "09:00:00.000 UTC Mon Mar 2 2026\npb# "; got != want {
		t.Errorf("the rest of the line gives %q, want %q", got, want)
	}
}

// Lines that nobody reads are bounded and counted, and none can command a
// terminal.
func TestNotesBound(t *testing.T) {
	n := newNotes()
	var want []string
	for k := range maxNotes + 7 {
		n.put(fmt.Sprintf("\x1b[2J%d\r", k))
		if k < maxNotes {
			want = append(want, fmt.Sprintf("?[2J%d?", k))
		}
	}
	want = append(want, "7 lines lost: they came faster than they are shown")
	if diff := cmp.Diff(n.take(), want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if got := n.take(); got != nil {
		t.Errorf("they are shown twice: %q", got)
	}
}

// Debug is the session's own and ends with it.
func TestDebugSession(t *testing.T) {
	b := newTestBox(t, "")
	one := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	one.press("debug sip\r")
	two := sit(t, b.Box, Who{From: "198.51.100.7", Level: maxPrivilege}, true, 0)
	two.press("debug skinny\r")
	for _, tt := range []struct {
		y    *typist
		want string
	}{{one, "debug sip\n"}, {two, "debug skinny\n"}} {
		if got, want := plain(tt.y.press("show debug\r")), "show debug\n"+tt.want+"pb# "; got != want {
			t.Errorf("show debug: %q, want %q", got, want)
		}
	}
	one.press("exit\r")
	three := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	three.press("")
	if got, want := plain(three.press("show debug\r")), "show debug\npb# "; got != want {
		t.Errorf("show debug of who has asked for none: %q, want %q", got, want)
	}
}
