package logging

import (
	"slices"
	"time"
)

// A Status is how a Log fares.
type Status struct {
	Settings Settings
	Names    Names
	Counts   [destinations]uint64 // messages that a destination took
	Console  uint64               // of those that the console was too slow for
	Sessions int                  // that watch
	Hosts    []HostStatus
	Mail     MailStatus
}

// Count returns how many messages d took.
func (s *Status) Count(d Destination) uint64 { return s.Counts[d] }

// Status returns how l fares.
func (l *Log) Status() Status {
	l.mu.Lock()
	v := l.view.Load()
	s := Status{Settings: v.set, Names: v.names, Counts: l.counts, Sessions: len(l.monitor)}
	senders := slices.Clone(l.senders)
	if c := l.console; c != nil {
		c.queue.mu.Lock()
		s.Console = c.queue.lost
		c.queue.mu.Unlock()
	}
	l.mu.Unlock()
	s.Mail = l.mailer.status()
	for _, x := range senders {
		s.Hosts = append(s.Hosts, x.status())
	}
	return s
}

// An Entry is a message in the buffer.
type Entry struct {
	Time     time.Time // UTC
	Severity int       // 0, emergencies, to 7, debugging
	Number   int
	Text     string // one line of printable characters
	Line     string // the whole, as it was written when it came
}

// Entries returns what the buffer holds, the oldest first.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.buffer.kept)
}

// Lines returns the lines of Entries.
func (l *Log) Lines() []string {
	var lines []string
	for _, e := range l.Entries() {
		lines = append(lines, e.Line)
	}
	return lines
}

// ClearBuffer empties the buffer.
func (l *Log) ClearBuffer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buffer = ring{size: l.buffer.size}
}

// A MessageStatus is what becomes of the message of a number.
type MessageStatus struct {
	Number         int
	Default, Level int // severities; Default is -1 if it is not known
	Enabled        bool
}

// MessageStatus returns what becomes of a message.
func (l *Log) MessageStatus(number int) MessageStatus {
	v := l.view.Load()
	s := MessageStatus{Number: number, Default: -1, Enabled: !v.changes[number].Disabled}
	if d, ok := defaults[number]; ok {
		s.Default = d
	}
	s.Level = v.level(number, s.Default)
	return s
}
