package sip

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
)

// A placeBinder is a clockBinder that knows where the ends are.
type placeBinder struct{ clockBinder }

func (b *placeBinder) Place(end nat.End) string {
	if end == nat.Client {
		return "outside:198.51.100.7/5060"
	}
	return "inside:10.20.0.11/5060"
}

// logOf returns a logger and where it writes its lines, without their time.
func logOf() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), &b
}

func TestMatches(t *testing.T) {
	as := func(method string) string { return strings.ReplaceAll(full, "OPTIONS", method) }
	long := strings.Replace(full, "sip:1001@203.0.113.10", "sip:"+strings.Repeat("1", 100)+"@203.0.113.10", 1)
	tel := strings.Replace(full, "<sip:1001@203.0.113.10>", "<tel:+"+strings.Repeat("1", 100)+">", 1)
	sdp := strings.Replace(full, "Content-Length: 0", "c: application/SDP;x=y\nContent-Length: 5", 1) + "v=0\n"
	answer := strings.Replace(full, "OPTIONS sip:1002@203.0.113.10 SIP/2.0", "SIP/2.0 200 OK", 1)
	tests := []struct {
		name, msg string
		m         Match
		found     bool
	}{
		{"method", full, Match{Kind: MatchMethod, Method: "OPTIONS"}, true},
		{"another", full, Match{Kind: MatchMethod, Method: "INVITE"}, false},
		{"not another", full, Match{Kind: MatchMethod, Method: "INVITE", Not: true}, true},
		{"of an answer", answer, Match{Kind: MatchMethod, Method: "OPTIONS"}, false},
		{"not of an answer", answer, Match{Kind: MatchMethod, Method: "INVITE", Not: true}, false},
		{"unknown method", as("FROB"), Match{Kind: MatchMethod}, true},
		{"in lower case", as("options"), Match{Kind: MatchMethod}, true},
		{"known method", as("PUBLISH"), Match{Kind: MatchMethod}, false},
		{"length", sdp, Match{Kind: MatchLength, Over: 4}, true},
		{"length, not over", sdp, Match{Kind: MatchLength, Over: 5}, false},
		{"length, no body", full, Match{Kind: MatchLength}, false},
		{"not over length", sdp, Match{Kind: MatchLength, Over: 5, Not: true}, true},
		{"type", sdp, Match{Kind: MatchSDP}, true},
		{"no type", full, Match{Kind: MatchSDP}, false},
		{"not the type", full, Match{Kind: MatchSDP, Not: true}, true},
		{"uri", long, Match{Kind: MatchURI, Over: 100}, true},
		{"uri, shorter", full, Match{Kind: MatchURI, Over: 100}, false},
		{"uri in the start line", full, Match{Kind: MatchURI, Over: len("sip:1002@203.0.113.1")}, true},
		{"tel", tel, Match{Kind: MatchTel, Over: 100}, true},
		{"tel, of sip", long, Match{Kind: MatchTel, Over: 50}, false},
		{"sip, of tel", tel, Match{Kind: MatchURI, Over: 50}, false},
		{"not tel", long, Match{Kind: MatchTel, Over: 50, Not: true}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.m.Act = inspect.Drop
			e := &Engine{Client: UDP, Server: UDP, NAT: true, Map: Map{Matches: []Match{tt.m}}}
			_, msg, err := e.Split(wire(tt.msg), true)
			if err != nil {
				t.Fatal(err)
			}
			_, err = e.NewSession(&placeBinder{}).Inspect(nil, msg, nat.Client)
			if found := errors.Is(err, ErrMatch) && errors.Is(err, inspect.ErrDrop); found != tt.found {
				t.Errorf("%v: %v, want found %v", &tt.m, err, tt.found)
			}
		})
	}
}

// TestMatchOrder has the first match that ends the message be the last.
func TestMatchOrder(t *testing.T) {
	log, lines := logOf()
	s := (&Engine{NAT: true, Log: log, Map: Map{Matches: []Match{
		{Kind: MatchMethod, Method: "INVITE", Act: inspect.Reset | inspect.Log},
		{Kind: MatchMethod, Method: "OPTIONS", Act: inspect.Log},
		{Kind: MatchURI, Over: 5, Act: inspect.DropConnection | inspect.Log},
		{Kind: MatchMethod, Method: "OPTIONS", Act: inspect.Drop | inspect.Log},
	}}}).NewSession(&placeBinder{})
	_, err := s.Inspect(nil, wire(full), nat.Client)
	if !errors.Is(err, ErrMatch) || errors.Is(err, inspect.ErrDrop) || !errors.Is(err, inspect.ErrRule) {
		t.Errorf("Inspect() = %v, want the end of the connection", err)
	}
	want := `level=INFO msg="%ASA-6-607003: SIP Classification: Received Request OPTIONS from outside:198.51.100.7/5060 to inside:10.20.0.11/5060; matched request-method options"
level=WARN msg="%ASA-4-607002: SIP Classification: Dropped connection for Request OPTIONS from outside:198.51.100.7/5060 to inside:10.20.0.11/5060; matched uri sip length gt 5"
`
	if lines.String() != want {
		t.Errorf("log\n%swant\n%s", lines, want)
	}
}

// TestParameterLog is the log of the parameters: what was done, to whom, why.
func TestParameterLog(t *testing.T) {
	tests := []struct {
		m         Map
		msg, want string
	}{
		{Map{MaxForwards: inspect.Drop | inspect.Log}, strings.Replace(full, "70", "0", 1),
			`level=WARN msg="%ASA-4-607002: SIP Parameter: Dropped Request OPTIONS from inside:10.20.0.11/5060 to outside:198.51.100.7/5060; max-forwards-validation: Max-Forwards is 0"`},
		{Map{MaxForwards: inspect.Drop}, strings.Replace(full, "70", "0", 1), ``},
		{Map{Software: inspect.Mask | inspect.Log}, full,
			`level=WARN msg="%ASA-4-607002: SIP Parameter: Masked header flags for Request OPTIONS from inside:10.20.0.11/5060 to outside:198.51.100.7/5060; software-version: User-Agent"`},
		{Map{StrictHeader: inspect.Log}, strings.Replace(full, "Max-Forwards: 70\n", "", 1),
			`level=INFO msg="%ASA-6-607003: SIP Parameter: Received Request OPTIONS from inside:10.20.0.11/5060 to outside:198.51.100.7/5060; strict-header-validation: Mandatory header field max-forwards is missing"`},
		{Map{State: inspect.Reset | inspect.Log}, strings.Replace(full, "OPTIONS sip:1002@203.0.113.10 SIP/2.0", "SIP/2.0 183 X", 1),
			`level=WARN msg="%ASA-4-607002: SIP Parameter: Reset connection for Response 183 from inside:10.20.0.11/5060 to outside:198.51.100.7/5060; state-checking: answer to no request"`},
	}
	for _, tt := range tests {
		log, lines := logOf()
		s := (&Engine{NAT: true, Log: log, Map: tt.m}).NewSession(&placeBinder{})
		s.Inspect(nil, wire(tt.msg), nat.Server)
		if got := strings.TrimSuffix(lines.String(), "\n"); got != tt.want {
			t.Errorf("log\n%s\nwant\n%s", got, tt.want)
		}
	}
}

// TestRate lets so many messages a second pass, of all conversations together.
func TestRate(t *testing.T) {
	e := &Engine{NAT: true, Map: Map{Matches: []Match{{Kind: MatchMethod, Method: "OPTIONS", Rate: NewRate(3)}}}}
	b := &placeBinder{clockBinder{now: time.Unix(1000, 0)}}
	one, two := e.NewSession(b), e.NewSession(b)
	count := func() (n int) {
		for _, s := range []inspect.Session{one, two, one, two} {
			if _, err := s.Inspect(nil, wire(full), nat.Client); err == nil {
				n++
			} else if !errors.Is(err, inspect.ErrDrop) {
				t.Errorf("Inspect() = %v", err)
			}
		}
		return n
	}
	for i, want := range []int{3, 0, 3, 3, 0} {
		if i == 2 || i == 3 {
			b.now = b.now.Add(time.Second)
		}
		if i == 4 {
			b.now = b.now.Add(-500 * time.Millisecond) // another interface's clock
		}
		if got := count(); got != want {
			t.Errorf("round %d: %d messages pass, want %d", i, got, want)
		}
	}
}

func TestRateWithAction(t *testing.T) {
	e := &Engine{NAT: true, Map: Map{Matches: []Match{{Kind: MatchSDP, Not: true, Rate: NewRate(1), Act: inspect.DropConnection}}}}
	s := e.NewSession(&placeBinder{})
	mustInspect(t, s, nat.Client, full)
	if _, err := s.Inspect(nil, wire(full), nat.Client); err == nil || errors.Is(err, inspect.ErrDrop) {
		t.Errorf("Inspect() = %v, want the end of the connection", err)
	}
}

// TestNotQuiteSIP holds traffic-non-sip to what has no mark of SIP.
func TestNotQuiteSIP(t *testing.T) {
	e := &Engine{Client: UDP, Server: UDP, NAT: true, Map: DefaultMap()}
	for _, data := range []string{
		"INVITE  sip:a@203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/UDP 10.20.0.11\r\n\r\n",
		" INVITE sip:a@203.0.113.10 SIP/2.0\r\n\r\n",
		"\x00\r\nINVITE sip:a@203.0.113.10 sip/2.0\r\n\r\n",
		"INVITE sip:a@203.0.113.10 SIP/3.0\r\n\r\n",
		"SIP/2.0 999999 What\r\n\r\n",
		"INVITE sip:a@203.0.113.10 SIP/2.0",
	} {
		if n, msg, err := e.Split([]byte(data), true); err == nil {
			t.Errorf("Split(%q) = %d, %q; want an error", data, n, msg)
		}
	}
}

func BenchmarkMatches(b *testing.B) {
	e := &Engine{Client: UDP, Server: UDP, NAT: true, Map: DefaultMap()}
	e.Map.Matches = []Match{
		{Kind: MatchMethod, Act: inspect.Drop}, {Kind: MatchLength, Over: 4000, Act: inspect.Drop},
		{Kind: MatchURI, Over: 200, Act: inspect.Drop}, {Kind: MatchMethod, Method: "OPTIONS", Rate: NewRate(1 << 31)},
	}
	s := e.NewSession(&placeBinder{clockBinder{now: time.Unix(1000, 0)}})
	msg := wire(full)
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Inspect(out, msg, nat.Client); err != nil {
			b.Fatal(err)
		}
	}
}
