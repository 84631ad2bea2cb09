package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 7, 12, 0, 5, 678_000_000, time.UTC)

func at() time.Time { return noon }

// all is Settings whose buffer takes everything.
func all() Settings { return Settings{Enable: true, Buffered: AtLevel(7)} }

// newLog returns a Log that ends with the test.
func newLog(t testing.TB, cfg Config, s Settings) *Log {
	if cfg.Now == nil {
		cfg.Now = at
	}
	l := New(cfg)
	t.Cleanup(l.Close)
	l.Configure(s, Names{Host: "pb", Device: deviceOf(s)})
	return l
}

func deviceOf(s Settings) string {
	if s.Device.Kind == "string" {
		return s.Device.Value
	}
	return ""
}

// Lines as the buffer and hosts have them.
// (reference/asa-cli-show-debug.md, section 5.)
func TestFormat(t *testing.T) {
	const text = "Built inbound UDP connection 1 for outside:198.51.100.7/4000 (198.51.100.7/4000) to inside:10.20.0.11/53 (203.0.113.10/53)"
	box := Device{Kind: "string", Value: "box1"}
	tests := []struct {
		name string
		s    Settings
		h    Host
		line string // of the buffer
		sent string // to a host
		wire string // to the host over TCP
	}{
		{"bare", Settings{}, Host{}, "%ASA-6-302015: " + text, "<166>%ASA-6-302015: " + text, "<166>%ASA-6-302015: " + text + "\n"},
		{"timestamp", Settings{Timestamp: true}, Host{}, "Nov 07 2026 12:00:05: %ASA-6-302015: " + text,
			"<166>Nov 07 2026 12:00:05: %ASA-6-302015: " + text, "<166>Nov 07 2026 12:00:05: %ASA-6-302015: " + text + "\n"},
		{"device", Settings{Device: box}, Host{}, "%ASA-6-302015: " + text, "<166>box1 : %ASA-6-302015: " + text, "<166>box1 : %ASA-6-302015: " + text + "\n"},
		{"timestamp and device", Settings{Timestamp: true, Device: box, Facility: 16}, Host{}, "Nov 07 2026 12:00:05: %ASA-6-302015: " + text,
			"<134>Nov 07 2026 12:00:05 box1 : %ASA-6-302015: " + text, "<134>Nov 07 2026 12:00:05 box1 : %ASA-6-302015: " + text + "\n"},
		{"timestamp rfc5424", Settings{Timestamp: true, RFC5424: true}, Host{}, "2026-11-07T12:00:05Z: %ASA-6-302015: " + text,
			"<166>2026-11-07T12:00:05Z: %ASA-6-302015: " + text, "<166>2026-11-07T12:00:05Z: %ASA-6-302015: " + text + "\n"},
		{"format rfc5424", Settings{}, Host{RFC5424: true}, "%ASA-6-302015: " + text,
			"<166>1 2026-11-07T12:00:05.678000Z pb patchbay - 302015 - %ASA-6-302015: " + text,
			"195 <166>1 2026-11-07T12:00:05.678000Z pb patchbay - 302015 - %ASA-6-302015: " + text},
		{"format rfc5424 and device", Settings{Device: Device{Kind: "string", Value: "box one"}}, Host{RFC5424: true}, "%ASA-6-302015: " + text,
			"<166>1 2026-11-07T12:00:05.678000Z box_one patchbay - 302015 - %ASA-6-302015: " + text,
			"200 <166>1 2026-11-07T12:00:05.678000Z box_one patchbay - 302015 - %ASA-6-302015: " + text},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Enable, tt.s.Buffered = true, AtLevel(6)
			l := newLog(t, Config{}, tt.s)
			l.Message(302015, 6, text)
			if diff := cmp.Diff([]string{tt.line}, l.Lines()); diff != "" {
				t.Errorf("buffer (-want +got):\n%s", diff)
			}
			m := message{noon, 302015, 6, text}
			sent := m.sent(l.view.Load(), tt.h)
			if sent != tt.sent {
				t.Errorf("sent %q\nwant %q", sent, tt.sent)
			}
			if got := framed(sent, tt.h); got != tt.wire {
				t.Errorf("on the wire %q\nwant %q", got, tt.wire)
			}
		})
	}
}

// What records become.
func TestHandler(t *testing.T) {
	l := newLog(t, Config{}, all())
	log := slog.New(l.Handler())
	log.Info("%ASA-6-725002: Device completed SSL handshake", "from", netip.MustParseAddrPort("198.51.100.7:1"))
	log.Warn("%ASA-5-111008: User 'x' executed the 'y' command.")
	log.Info("phone connected", "phone", "SEP001122334455")
	log.With("phone", "SEP001122334455").WithGroup("leg").Error("phone refused", "reason", "no certificate", slog.Group("a", "b", 1), "empty", "")
	log.Debug("TFTP: read of \"x\"")
	log.Info("%ASA-9-725002: no level")
	log.Info("%ASA-6-72500: short")
	log.Log(context.Background(), slog.LevelInfo+2, "said nowhere")
	log.Info("a\nb\x00\xff%ASA-1-1: \u202e", "k", "v\n")
	want := []string{
		"%ASA-6-725002: Device completed SSL handshake from=198.51.100.7:1",
		"%ASA-5-111008: User 'x' executed the 'y' command.",
		"%ASA-6-990110: phone connected phone=SEP001122334455",
		`%ASA-3-990108: phone refused phone=SEP001122334455 leg.reason="no certificate" leg.a.b=1 leg.empty=""`,
		`%ASA-7-990007: TFTP: read of "x"`,
		"%ASA-6-990000: %ASA-9-725002: no level",
		"%ASA-6-990000: %ASA-6-72500: short",
		"%ASA-5-990000: said nowhere",
		`%ASA-6-990000: a\x0ab\x00\xff%ASA-1-1: \xe2\x80\xae k="v\n"`,
	}
	if diff := cmp.Diff(want, l.Lines()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Destinations, by level and list; messages that are turned off or moved.
func TestFilters(t *testing.T) {
	s := Settings{
		Enable: true, Buffered: Filter{On: true, List: "calls"}, Trap: AtLevel(4), Monitor: AtLevel(0),
		Lists: []List{{"calls", []Part{{Level: 4, Class: "session"}, {From: 725001, To: 725002}, {Level: 1}}}, {"other", []Part{{Level: 7}}}},
		Messages: []Change{{Number: 106015, Disabled: true}, {Number: 302013, Moved: true, Level: 0},
			{Number: 106023, Moved: true, Level: 7}},
	}
	tests := []struct {
		number, level int
		to            uint
	}{
		{302013, 6, 1<<Buffer | 1<<Hosts | 1<<Sessions}, // moved up
		{302014, 6, 0},
		{106023, 4, 0}, // moved down
		{106100, 4, 1<<Buffer | 1<<Hosts},
		{106015, 1, 0}, // off
		{725001, 6, 1 << Buffer},
		{725003, 6, 0},
		{717009, 3, 1 << Hosts},
		{717009, 1, 1<<Buffer | 1<<Hosts},
		{446001, 4, 1 << Hosts},
	}
	l := newLog(t, Config{}, s)
	off := s
	off.Enable = false
	o := newLog(t, Config{}, off)
	for _, tt := range tests {
		v := l.view.Load()
		if got := v.takers(tt.number, v.level(tt.number, tt.level)); got != tt.to {
			t.Errorf("%d at %d goes to %06b, want %06b", tt.number, tt.level, got, tt.to)
		}
		if got := l.Wants(tt.number, tt.level); got != (tt.to != 0) {
			t.Errorf("Wants(%d, %d) = %v", tt.number, tt.level, got)
		}
		if o.Wants(tt.number, tt.level) {
			t.Errorf("without logging enable %d is wanted", tt.number)
		}
	}
}

// Enabled must not refuse what Handle would take, for any filter.
func TestEnabled(t *testing.T) {
	ctx := context.Background()
	for level := -1; level <= 7; level++ {
		s := Settings{Enable: true}
		if level >= 0 {
			s.Buffered = AtLevel(level)
		}
		l := newLog(t, Config{}, s)
		h := l.Handler()
		for severity, record := range map[int]slog.Level{0: slog.LevelError, 3: slog.LevelError, 4: slog.LevelWarn, 5: slog.LevelInfo, 6: slog.LevelInfo, 7: slog.LevelDebug} {
			if severity <= level && !h.Enabled(ctx, record) {
				t.Errorf("level %d: a record of severity %d is not enabled", level, severity)
			}
		}
		if level < 0 && h.Enabled(ctx, slog.LevelError) {
			t.Error("a log with no destination is enabled")
		}
		if level < 7 && h.Enabled(ctx, slog.LevelDebug) {
			t.Errorf("level %d: debug is enabled", level)
		}
	}
	s := Settings{Enable: true, Console: AtLevel(3), Messages: []Change{{Number: 725012, Moved: true, Level: 3}}}
	var out syncBuffer
	l := newLog(t, Config{Console: &out}, s)
	if !l.Handler().Enabled(ctx, slog.LevelDebug) {
		t.Error("a message that is moved up is not enabled")
	}
	slog.New(l.Handler()).Debug("%ASA-7-725012: Device chooses cipher : AES128-SHA")
	l.Close()
	if got := out.String(); got != "%ASA-3-725012: Device chooses cipher : AES128-SHA\n" {
		t.Errorf("console: %q", got)
	}
}

func TestBufferWraps(t *testing.T) {
	s := all()
	s.BufferSize = 4096
	l := newLog(t, Config{}, s)
	for i := range 1000 {
		l.Message(990000, 6, fmt.Sprintf("message %d %s", i, strings.Repeat("x", i%97)))
	}
	size := 0
	lines := l.Lines()
	for _, x := range lines {
		size += len(x) + 1
	}
	if size > 4096 || size < 4096-200 {
		t.Errorf("the buffer holds %d bytes", size)
	}
	for i, x := range lines {
		if want := fmt.Sprintf("%%ASA-6-990000: message %d ", 1000-len(lines)+i); !strings.HasPrefix(x, want) {
			t.Errorf("line %d is %q, want %q", i, x, want)
		}
	}
	if got := l.Status().Counts[Buffer]; got != 1000 {
		t.Errorf("%d messages counted", got)
	}
	l.ClearBuffer()
	if got := l.Lines(); len(got) != 0 {
		t.Errorf("after clear: %q", got)
	}
	l.Message(990000, 6, "again")
	if got := l.Lines(); len(got) != 1 {
		t.Errorf("after clear and one message: %q", got)
	}
}

func TestLongText(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 5000), strings.Repeat("\x00", 5000), strings.Repeat("é", 800), strings.Repeat("\xff", 300) + strings.Repeat("y", 900)} {
		got := clean(text)
		if len(got) > maxText || len(got) < maxText-8 || !strings.HasSuffix(got, "...") {
			t.Errorf("clean(%.8q ...) is %d bytes, ends in %q", text, len(got), got[len(got)-8:])
		}
	}
	if text := strings.Repeat("x", maxText); clean(text) != text {
		t.Error("a text of the most bytes is cut")
	}
}

// The console gets errors whatever the settings, and is never waited for.
func TestConsole(t *testing.T) {
	r, w := io.Pipe() // nobody reads yet
	l := New(Config{Now: at, Console: w, ConsoleLevel: 3})
	for range consoleRoom + 10 {
		l.Message(717009, 3, "x")
		l.Message(302013, 6, "y")
	}
	st := l.Status()
	if st.Counts[Console] != consoleRoom+10 || st.Console == 0 {
		t.Errorf("%d messages, %d dropped", st.Counts[Console], st.Console)
	}
	var got bytes.Buffer
	done := make(chan struct{})
	go func() { io.Copy(&got, r); close(done) }()
	l.Close()
	w.Close()
	<-done
	if n := strings.Count(got.String(), "%ASA-3-717009: x\n"); n != consoleRoom+10-int(st.Console) {
		t.Errorf("%d lines written", n)
	}
}

func TestMonitor(t *testing.T) {
	l := newLog(t, Config{}, Settings{Enable: true, Monitor: AtLevel(6)})
	m, slow := l.Monitor(), l.Monitor()
	for i := range monitorRoom + 5 {
		l.Message(302013, 6, "x")
		if i < 3 {
			if got := <-m.Lines(); got != "%ASA-6-302013: x" {
				t.Errorf("line %q", got)
			}
		}
	}
	l.Message(725012, 7, "x")
	if got := slow.Lost(); got != 5 {
		t.Errorf("the slow session lost %d lines, want 5", got)
	}
	if got := l.Status().Sessions; got != 2 {
		t.Errorf("%d sessions", got)
	}
	m.Close()
	m.Close()
	l.Close()
	n := 0
	for range slow.Lines() {
		n++
	}
	if n != monitorRoom {
		t.Errorf("%d lines waited", n)
	}
	if _, ok := <-l.Monitor().Lines(); ok {
		t.Error("a session of a closed log gets lines")
	}
}

// What another handler gets is its own affair.
func TestAlso(t *testing.T) {
	var out syncBuffer
	l := newLog(t, Config{Also: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})}, Settings{})
	log := slog.New(l.Handler()).With("a", 1)
	log.Info("one")
	log.WithGroup("g").Warn("two", "b", 2)
	if got := out.String(); strings.Contains(got, "one") || !strings.Contains(got, "level=WARN msg=two a=1 g.b=2") {
		t.Errorf("%q", got)
	}
}

func TestMessageStatus(t *testing.T) {
	l := newLog(t, Config{}, Settings{Messages: []Change{{Number: 106023, Disabled: true}, {Number: 302013, Moved: true, Level: 3}}})
	want := []MessageStatus{{106023, 4, 4, false}, {302013, 6, 3, true}, {302014, 6, 6, true}, {999999, -1, -1, true}}
	for _, w := range want {
		if got := l.MessageStatus(w.Number); got != w {
			t.Errorf("MessageStatus(%d) = %+v, want %+v", w.Number, got, w)
		}
	}
}

func TestOwnNumbers(t *testing.T) {
	seen := make(map[int]string)
	for text, n := range own {
		if seen[n] != "" || n <= unnumbered || n > 999999 {
			t.Errorf("%q has number %d; %q", text, n, seen[n])
		}
		seen[n] = text
	}
}

// Nothing is formatted or kept for what nobody wants.
func TestWantsCostsNothing(t *testing.T) {
	l := newLog(t, Config{}, Settings{Enable: true, Buffered: AtLevel(4), Messages: []Change{{Number: 106023, Disabled: true}}})
	if n := testing.AllocsPerRun(100, func() {
		if l.Wants(302013, 6) || l.Wants(106023, 4) {
			t.Fatal("it is wanted")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("%ASA-6-302013: Built", "k", "v")
	f.Add("%ASA-6-302013:", "", "\n")
	f.Add("\xff\x00", "a b", strings.Repeat("\u2028", 900))
	f.Fuzz(func(t *testing.T, msg, key, value string) {
		s := all()
		s.BufferSize = 1 << 20
		l := New(Config{Now: at})
		l.Configure(s, Names{Host: value, Device: key})
		slog.New(l.Handler()).Info(msg, key, value)
		lines := l.Lines()
		if len(lines) != 1 {
			t.Fatalf("%d lines", len(lines))
		}
		m := message{noon, 302013, 6, clean(msg)}
		for _, line := range append(lines, m.sent(l.view.Load(), Host{RFC5424: true})) {
			if strings.ContainsFunc(line, unprintable) {
				t.Errorf("unprintable: %q", line)
			}
			if len(line) > maxText+400 {
				t.Errorf("%d bytes", len(line))
			}
		}
		if !strings.HasPrefix(lines[0], "%ASA-") || lines[0][13:15] != ": " {
			t.Errorf("line %q", lines[0])
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// dialLoopback dials the host's port on loopback.
func dialLoopback(ctx context.Context, h Host) (net.Conn, error) {
	network := "tcp"
	if h.Transport == UDP {
		network = "udp"
	}
	var d net.Dialer
	return d.DialContext(ctx, network, netip.AddrPortFrom(h.Addr, h.Port).String())
}
