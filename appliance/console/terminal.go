package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"
)

// errQuit is what a command gets that writes on after its reader has had enough.
var errQuit = errors.New("console: the rest is not wanted")

// A Transport is what a session talks through.
type Transport struct {
	In  *Input
	Out io.Writer

	// Terminal says that there is one, which echoes nothing: the session does,
	// edits lines, and pages. Without it what is typed is a stream of lines and
	// only what is shown comes back.
	Terminal bool
	Size     func() (cols, rows int) // of the terminal, 0 is not known; may be nil
}

// more is shown where a page is full.
const more = "<--- More --->"

// A terminal is what a session writes to and reads from.
type terminal struct {
	Transport
	ctx  context.Context
	idle func() time.Duration // how long to wait for a key; 0: for ever
	edit editor

	notes  *notes
	typing bool // a line is being typed, in whose place notes may be shown

	running context.Context // of the command that runs, else ctx

	page int    // lines of a page; 0: no paging
	row  int    // lines written since the last wait
	quit bool   // the reader has had enough
	part bool   // the line that was written last has no end yet
	echo []byte // of keys, yet to be shown
	err  error
}

func newTerminal(ctx context.Context, t Transport, idle func() time.Duration) *terminal {
	x := &terminal{Transport: t, ctx: ctx, running: ctx, idle: idle, notes: newNotes()}
	x.edit = editor{w: echoWriter{x}, next: x.next}
	return x
}

func (t *terminal) next() (byte, error) {
	if !t.In.more() {
		t.flush()
	}
	var told <-chan struct{}
	if t.typing {
		told = t.notes.wake
	}
	return t.In.read(t.running, t.idle(), told, t.tell)
}

// flush shows the echo that has been kept back.
func (t *terminal) flush() {
	if len(t.echo) > 0 {
		rawWriter{t}.Write(nil)
	}
}

// maxEcho is how much echo is kept back, in bytes.
const maxEcho = 1024

// echoWriter keeps back what a key shows while the next key is here already, so
// that a text which is pasted is not shown in a packet for each of its letters.
type echoWriter struct{ t *terminal }

func (w echoWriter) Write(b []byte) (int, error) {
	if !w.t.In.more() || len(w.t.echo)+len(b) > maxEcho {
		return rawWriter(w).Write(b)
	}
	w.t.echo = append(w.t.echo, b...)
	return len(b), w.t.err
}

// begin is called before each command: a page begins.
func (t *terminal) begin() { t.row, t.quit = 0, false }

// breakable has Ctrl-C end t.running, with errInterrupt for its cause, until end is
// called. Without a terminal Ctrl-C is a byte like any other.
func (t *terminal) breakable() (end func()) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	t.running = ctx
	if t.Terminal {
		t.In.onBreak(func() { cancel(errInterrupt) })
	}
	return func() {
		t.In.onBreak(nil)
		t.running = t.ctx
		cancel(nil)
	}
}

// lastWords is how many bytes a command that was broken off may still show: how
// far a ping has come, not the rest of a table.
const lastWords = 512

// An untilWriter writes until ctx ends, and then no more than lastWords before it
// fails with the cause: who shows much finds out, whatever a filter lets through.
type untilWriter struct {
	ctx   context.Context
	w     io.Writer
	after int // bytes written since ctx ended
}

func (u *untilWriter) Write(b []byte) (int, error) {
	if u.ctx.Err() != nil {
		if u.after += len(b); u.after > lastWords {
			return 0, context.Cause(u.ctx)
		}
	}
	return u.w.Write(b)
}

// rawWriter writes without paging.
type rawWriter struct{ t *terminal }

func (w rawWriter) Write(b []byte) (int, error) {
	n := len(b)
	if len(w.t.echo) > 0 {
		b = append(w.t.echo, b...)
		w.t.echo = nil
	}
	if w.t.err == nil && len(b) > 0 {
		w.t.part = b[len(b)-1] != '\n'
		if w.t.Terminal {
			b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
		}
		_, w.t.err = w.t.Out.Write(b)
	}
	return n, w.t.err
}

// Write shows what a command has to show, a page at a time.
func (t *terminal) Write(b []byte) (int, error) {
	if !t.Terminal || t.page == 0 {
		return rawWriter{t}.Write(b)
	}
	n := len(b)
	for len(b) > 0 {
		if t.quit {
			return 0, errQuit
		}
		if t.row >= t.page-1 {
			if err := t.wait(); err != nil {
				return 0, err
			}
			continue
		}
		i := bytes.IndexByte(b, '\n') + 1
		if i == 0 {
			i = len(b)
		} else {
			t.row++
		}
		if _, err := (rawWriter{t}).Write(b[:i]); err != nil {
			return 0, err
		}
		b = b[i:]
	}
	return n, nil
}

// wait shows that there is more, until a key says how much: space for a page,
// Enter for a line, q for nothing.
func (t *terminal) wait() error {
	defer func(typing bool) { t.typing = typing }(t.typing)
	t.typing = false
	w := rawWriter{t}
	io.WriteString(w, more)
	for {
		k, err := t.edit.key()
		if err != nil {
			return err
		}
		switch k {
		case ' ', 'f', ctrl('f'):
			t.row = 0
		case '\r', '\n':
			t.row--
		case 'q', 'Q', ctrl('c'), ctrl('z'):
			t.quit = true
		default:
			continue
		}
		blank := bytes.Repeat([]byte(" "), len(more))
		w.Write([]byte("\r" + string(blank) + "\r"))
		return t.err
	}
}

// line reads a line after a prompt. On what is no terminal the prompt is written
// all the same: scripts wait for it.
func (t *terminal) line(prompt, prefill string) (string, error) {
	t.tell()
	t.typing = true
	defer func() { t.typing = false }()
	if t.Terminal {
		if t.Size != nil {
			t.edit.cols, _ = t.Size()
		}
		defer t.flush()
		return t.edit.edit(prompt, prefill)
	}
	t.edit.prompt = prompt
	io.WriteString(rawWriter{t}, prompt)
	var line []byte
	for {
		b, err := t.next()
		switch {
		case err == io.EOF && len(line) > 0:
			return string(line), nil // its last line has no end
		case err != nil:
			return "", err
		case b == '\n':
			return string(bytes.TrimRight(line, "\r")), t.err
		case len(line) <= maxLine:
			line = append(line, b)
		}
	}
}

// ask reads an answer that is no command: it is not in the history and "?" is a
// character. A secret is shown as stars.
func (t *terminal) ask(prompt string, secret bool) (string, error) {
	help, complete, history := t.edit.help, t.edit.complete, t.edit.history
	t.edit.help, t.edit.complete, t.edit.history, t.edit.secret = nil, nil, nil, secret
	defer func() {
		t.edit.help, t.edit.complete, t.edit.history, t.edit.secret = help, complete, history, false
	}()
	return t.line(prompt, "")
}

// confirm asks whether to go on. Enter and "y" are yes.
func (t *terminal) confirm(question string) (bool, error) {
	if !t.Terminal {
		s, err := t.line(question+" [confirm]", "")
		return err == nil && (s == "" || s[0]|0x20 == 'y'), err
	}
	io.WriteString(rawWriter{t}, question+" [confirm]")
	for {
		k, err := t.edit.key()
		if err != nil {
			return false, err
		}
		switch k {
		case '\r', '\n', ' ':
			io.WriteString(rawWriter{t}, "\n")
			return true, nil
		case 'y', 'Y', 'n', 'N':
			io.WriteString(rawWriter{t}, string(k)+"\n")
			return k|0x20 == 'y', nil
		case 'q', ctrl('c'), ctrl('z'):
			io.WriteString(rawWriter{t}, "\n")
			return false, nil
		}
	}
}

// yes asks until the answer is yes or no.
func (t *terminal) yes(question string) (bool, error) {
	for {
		answer, err := t.ask(question, false)
		if err != nil {
			return false, err
		}
		switch strings.ToLower(strings.TrimSpace(answer)) {
		case "yes", "y":
			return true, nil
		case "no", "n":
			return false, nil
		}
		io.WriteString(rawWriter{t}, "% Please answer 'yes' or 'no'.\n")
	}
}
