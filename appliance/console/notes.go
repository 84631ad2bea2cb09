package console

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"patchbay/appliance/cli"
)

// maxNotes is how many lines wait for a session.
const maxNotes = 256

// notes are lines that a session is shown without having asked just now: messages
// of the log, and what debug shows. They wait until nothing else is being shown.
// Any number of goroutines may put.
type notes struct {
	wake chan struct{} // has room for one: there are some

	mu    sync.Mutex
	lines []string
	lost  int
}

func newNotes() *notes { return &notes{wake: make(chan struct{}, 1)} }

// put adds a line, or counts it as lost. A terminal must not obey what a line
// carries.
func (n *notes) put(line string) {
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, line)
	n.mu.Lock()
	if len(n.lines) < maxNotes {
		n.lines = append(n.lines, line)
	} else {
		n.lost++
	}
	n.mu.Unlock()
	signal(n.wake)
}

// take returns the lines that wait, and says how many are lost.
func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := n.lines
	if n.lost > 0 {
		lines = append(lines, fmt.Sprintf("%d lines lost: they came faster than they are shown", n.lost))
	}
	n.lines, n.lost = nil, 0
	return lines
}

// tell shows the notes that wait. Where a line is being typed they take its place
// and it is written anew below.
func (t *terminal) tell() {
	lines := t.notes.take()
	if len(lines) == 0 {
		return
	}
	w := rawWriter{t}
	switch {
	case t.typing && t.Terminal:
		t.edit.away()
	case t.typing:
		io.WriteString(w, "\n")
	}
	io.WriteString(w, strings.Join(lines, "\n")+"\n")
	switch {
	case t.typing && t.Terminal:
		t.edit.again()
	case t.typing:
		io.WriteString(w, t.edit.prompt)
	}
}

// away leaves a line of the screen for something else: it wipes out the prompt and
// what is typed, or begins another where that may be longer than one line.
func (e *editor) away() {
	n := utf8.RuneCountInString(e.prompt) + len(e.shown)
	if n >= e.cols {
		io.WriteString(e.w, "\n")
		return
	}
	io.WriteString(e.w, "\r"+strings.Repeat(" ", n)+"\r")
}

// terminalMonitor begins or ends showing the session the messages of "logging
// monitor".
func terminalMonitor(s *Session, _ io.Writer, a cli.Args) error {
	s.unmonitor()
	if a.Has("no") {
		return nil
	}
	m := s.box.opt.App.Syslog().Monitor()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var lost uint64
		for line := range m.Lines() {
			s.t.notes.put(line)
			if n := m.Lost(); n > lost {
				s.t.notes.put(fmt.Sprintf("%d messages lost: they came faster than they are shown", n-lost))
				lost = n
			}
		}
	}()
	s.unmonitor = func() {
		m.Close()
		<-done
		s.unmonitor = func() {}
	}
	return nil
}
