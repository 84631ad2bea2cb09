// Package logging is the ASA's logging: messages with numbers and severities,
// which go to the buffer, the console, sessions that watch, and syslog hosts,
// each by a level or list of its own. A Log is fed by log/slog through its
// Handler, and by Message where a record would cost too much.
//
// What a reader may get wrong: whoever logs never waits. What goes to a host or
// the console is queued, and what a full queue does not take is lost and
// counted. And the number of a message is that of the ASA where it has one; our
// own are from 990001 (numbers.go), and 990000 is whatever has none.
package logging

import (
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Config is what a Log is made from, beside its Settings. Its zero value
// works.
type Config struct {
	Now func() time.Time // of messages; nil: time.Now

	// Console takes what "logging console" lets through, line by line, on a
	// goroutine of its own; nil: there is no console. It also gets messages of
	// ConsoleLevel and more severe whatever the Settings say; 0 is none.
	Console      io.Writer
	ConsoleLevel int

	Also slog.Handler // gets each record that Handler gets, too; or nil

	Dial Dialer    // nil: hosts cannot be reached
	TLS  TLSConfig // nil: hosts that are secure cannot be reached

	DialMail MailDialer // nil: mail servers cannot be reached

	Retry time.Duration // before a host that is down is tried again, at first; 0: DefaultRetry
}

// A Log takes messages and hands them to its destinations. Any number of
// goroutines may use it. It is made by New.
type Log struct {
	cfg  Config
	view atomic.Pointer[view]
	down atomic.Int64 // TCP hosts that do not answer

	mu      sync.Mutex
	started bool
	closed  bool
	buffer  ring
	counts  [destinations]uint64
	monitor []*Monitor
	console *sink
	senders []*sender
	mailer  *mailer
}

// New returns a Log that has Settings{}: it keeps nothing. Close ends it.
func New(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Retry == 0 {
		cfg.Retry = DefaultRetry
	}
	l := &Log{cfg: cfg}
	if cfg.Console != nil {
		l.console = newSink(cfg.Console)
	}
	l.mailer = newMailer(l)
	l.view.Store(newView(Settings{}, Names{}, l.consoleLevel()))
	return l
}

// consoleLevel is the level that the console has in any case, -1 for none.
func (l *Log) consoleLevel() int {
	if l.cfg.Console == nil || l.cfg.ConsoleLevel == 0 {
		return -1
	}
	return l.cfg.ConsoleLevel
}

// Configure makes s what the Log goes by. Hosts that s has as before go on;
// what waits for others is lost. What the buffer holds stays, as far as there is
// room.
func (l *Log) Configure(s Settings, names Names) {
	v := newView(s.withDefaults(), names, l.consoleLevel())
	l.mu.Lock()
	l.view.Store(v)
	l.buffer.resize(v.set.BufferSize)
	l.mailer.configure(v)
	var gone []*sender
	if !l.closed {
		var hosts []Host
		if v.set.Enable {
			hosts = v.set.Hosts
		}
		var kept []*sender
		for _, x := range l.senders {
			if slices.Contains(hosts, x.host) {
				kept = append(kept, x)
			} else {
				gone = append(gone, x)
			}
		}
		for _, h := range hosts {
			i := slices.IndexFunc(kept, func(x *sender) bool { return x.host == h })
			if i < 0 {
				x := newSender(l, h)
				if kept = append(kept, x); l.started {
					x.start()
				}
				i = len(kept) - 1
			}
			kept[i].queue.resize(v.set.Queue)
		}
		l.senders = kept
	}
	l.mu.Unlock()
	for _, x := range gone {
		x.stop(false)
	}
}

// Start has hosts sent what waits for them, now that they can be reached.
func (l *Log) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.started || l.closed {
		return
	}
	l.started = true
	l.mailer.start()
	for _, x := range l.senders {
		x.start()
	}
}

// Stop sends hosts that are up what waits for them, but not for long, and then
// sends no more. Messages still go to the other destinations.
func (l *Log) Stop() {
	l.mu.Lock()
	l.started = false
	l.closed = true
	senders := l.senders
	l.mu.Unlock()
	var done sync.WaitGroup
	for _, x := range senders {
		done.Go(func() { x.stop(true) })
	}
	l.mailer.stop()
	done.Wait()
}

// Close is Stop, and ends the console when it has been written. Messages after
// that go to the buffer only.
func (l *Log) Close() {
	l.Stop()
	l.mu.Lock()
	c := l.console
	l.console = nil
	for _, m := range l.monitor {
		close(m.lines)
	}
	l.monitor = nil
	l.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Wants reports whether any destination takes a message, whose severity is
// level by default. It costs next to nothing: ask before formatting.
func (l *Log) Wants(number, level int) bool {
	v := l.view.Load()
	return v.takers(number, v.level(number, level)) != 0
}

// Message logs one message: number and the severity that it has by default, and
// its text. Characters of the text that would break the line are escaped.
func (l *Log) Message(number, level int, text string) {
	v := l.view.Load()
	level = v.level(number, level)
	to := v.takers(number, level)
	if to == 0 {
		return
	}
	m := message{l.cfg.Now().UTC(), number, level, clean(text)}
	line := m.line(v)
	// A message that arrives during Configure may go by the settings before.
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range destinations {
		if to&(1<<d) != 0 {
			l.counts[d]++
		}
	}
	if to&(1<<Buffer) != 0 {
		l.buffer.add(Entry{m.at, m.level, m.number, m.text, line})
	}
	if to&(1<<Console) != 0 && l.console != nil {
		l.console.put(line)
	}
	if to&(1<<Sessions) != 0 {
		for _, x := range l.monitor {
			x.put(line)
		}
	}
	if to&(1<<Hosts) != 0 {
		for _, x := range l.senders {
			x.put(m, v)
		}
	}
	if to&(1<<Mail) != 0 {
		l.mailer.put(m, v)
	}
}

// IsHost reports whether messages are sent to addr, over TCP or over UDP: by mail
// or as to a syslog host.
func (l *Log) IsHost(addr netip.AddrPort, tcp bool) bool {
	v := l.view.Load()
	if v.mail && tcp && addr.Port() == MailPort {
		return true
	}
	for _, h := range v.set.Hosts {
		if h.Port == addr.Port() && h.Addr == addr.Addr() && (h.Transport != UDP) == tcp {
			return true
		}
	}
	return false
}

// HostDown reports whether a TCP host does not answer and so no new connection
// may open: "logging permit-hostdown" is not set.
func (l *Log) HostDown() bool { return l.down.Load() > 0 && !l.view.Load().set.PermitHostDown }

// A Monitor gets the messages of "logging monitor" as lines, without their end.
// A session that does not keep up loses some.
type Monitor struct {
	log   *Log
	lines chan string
	lost  uint64 // guarded by log.mu
}

// monitorRoom is how many lines wait for a session.
const monitorRoom = 256

// Monitor begins to watch. Close ends it.
func (l *Log) Monitor() *Monitor {
	m := &Monitor{log: l, lines: make(chan string, monitorRoom)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		close(m.lines)
		return m
	}
	l.monitor = append(l.monitor, m)
	return m
}

// Lines returns the channel of the lines, which is closed when there are no
// more.
func (m *Monitor) Lines() <-chan string { return m.lines }

// Lost returns how many lines were not taken.
func (m *Monitor) Lost() uint64 {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return m.lost
}

// Close ends watching.
func (m *Monitor) Close() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if i := slices.Index(m.log.monitor, m); i >= 0 {
		m.log.monitor = slices.Delete(m.log.monitor, i, i+1)
		close(m.lines)
	}
}

func (m *Monitor) put(line string) {
	select {
	case m.lines <- line:
	default:
		m.lost++
	}
}
