package sip

import (
	"errors"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
)

// A clockBinder is a quietBinder with a time, that counts releases.
type clockBinder struct {
	quietBinder
	now      time.Time
	released []string
}

func (b *clockBinder) Now() time.Time         { return b.now }
func (b *clockBinder) Release(call, _ string) { b.released = append(b.released, call) }

const full = `OPTIONS sip:1002@203.0.113.10 SIP/2.0
Via: SIP/2.0/UDP 192.168.1.50:5060;branch=z9hG4bKa
Max-Forwards: 70
From: <sip:1001@203.0.113.10>;tag=1
To: <sip:1002@203.0.113.10>
Call-ID: a
CSeq: 1 OPTIONS
User-Agent: Cisco-CP7941G/9.3
Alert-Info: <http://192.168.1.9/ring.raw>
Content-Length: 0

`

func TestMap(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(full, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(full, old, new, 1)
	}
	as := func(method string) string { return strings.ReplaceAll(full, "OPTIONS", method) }
	tests := []struct {
		name, msg string
		m         Map
		rule      error // nil: passes
		drop      bool  // the message only
		reset     bool
	}{
		{"nothing asked", change("Max-Forwards: 70\n", ""), Map{}, nil, false, false},
		{"hops", full, Map{MaxForwards: inspect.Drop}, nil, false, false},
		{"no Max-Forwards", change("Max-Forwards: 70\n", ""), Map{MaxForwards: inspect.Drop}, nil, false, false},
		{"Max-Forwards 0", change("70", "0"), Map{MaxForwards: inspect.Drop | inspect.Log}, ErrMaxForwards, true, false},
		{"Max-Forwards of words", change("70", "many"), Map{MaxForwards: inspect.DropConnection}, ErrMaxForwards, false, false},
		{"reset", change("70", "0"), Map{MaxForwards: inspect.Reset}, ErrMaxForwards, false, true},
		{"log", change("70", "0"), Map{MaxForwards: inspect.Log}, nil, false, false},
		{"default map", change("70", "0"), DefaultMap(), ErrMaxForwards, true, false},
		{"strict, good", full, Map{StrictHeader: inspect.Drop}, nil, false, false},
		{"strict, two From", change("To: ", "From: <sip:x@203.0.113.10>;tag=2\nTo: "), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, no To", change("To: <sip:1002@203.0.113.10>\n", ""), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, no tag", change(";tag=1", ""), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, CSeq", change("CSeq: 1 ", "CSeq: 3000000000 "), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, 256 hops", change("70", "256"), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, INVITE without Contact", as("INVITE"), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"strict, answer without tag", change("OPTIONS sip:1002@203.0.113.10 SIP/2.0", "SIP/2.0 200 OK"), Map{StrictHeader: inspect.Drop}, ErrHeader, true, false},
		{"message", as("MESSAGE"), Map{NoIM: true}, ErrIM, true, false},
		{"presence", strings.Replace(as("SUBSCRIBE"), "Content-L", "Event: presence.winfo;x=1\nContent-L", 1), Map{NoIM: true}, ErrIM, true, false},
		{"other event", strings.Replace(as("SUBSCRIBE"), "Content-L", "Event: message-summary\nContent-L", 1), Map{NoIM: true}, nil, false, false},
		{"stray BYE", as("BYE"), Map{State: inspect.Drop}, ErrState, true, false},
		{"stray CANCEL", as("CANCEL"), Map{State: inspect.Drop}, ErrState, true, false},
		{"stray answer", change("OPTIONS sip:1002@203.0.113.10 SIP/2.0", "SIP/2.0 200 OK"), Map{State: inspect.Drop}, ErrState, true, false},
		{"first INVITE", as("INVITE"), Map{State: inspect.Drop}, nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := (&Engine{NAT: true, Map: tt.m}).NewSession(quietBinder{})
			_, err := s.Inspect(nil, wire(tt.msg), nat.Client)
			if (err == nil) != (tt.rule == nil) || tt.rule != nil && !errors.Is(err, tt.rule) {
				t.Fatalf("Inspect() = %v, want %v", err, tt.rule)
			}
			if errors.Is(err, inspect.ErrDrop) != tt.drop || errors.Is(err, inspect.ErrReset) != tt.reset {
				t.Errorf("Inspect() = %v, want drop %v, reset %v", err, tt.drop, tt.reset)
			}
		})
	}
}

func TestMask(t *testing.T) {
	s := (&Engine{NAT: true, Map: Map{Software: inspect.Mask, URINonSIP: inspect.Mask | inspect.Log}}).NewSession(quietBinder{})
	got := mustInspect(t, s, nat.Client, full)
	if strings.Contains(got, "User-Agent") || strings.Contains(got, "Alert-Info") || !strings.Contains(got, "CSeq: 1 OPTIONS") {
		t.Errorf("leaves as\n%s", got)
	}
	keep := strings.Replace(full, "http://192.168.1.9/ring.raw", "sip:ring@example.com", 1)
	if got := mustInspect(t, s, nat.Client, keep); !strings.Contains(got, "Alert-Info: <sip:ring@example.com>") {
		t.Errorf("leaves as\n%s", got)
	}
}

func TestNonSIP(t *testing.T) {
	e := &Engine{Client: UDP, Server: UDP, NAT: true, Map: Map{NonSIP: true}}
	s := e.NewSession(quietBinder{})
	for _, data := range []string{"\x00\x01", "hello\r\n", "word"} {
		n, msg, err := e.Split([]byte(data), true)
		if n != len(data) || err != nil {
			t.Fatalf("Split(%q) = %d, %v", data, n, err)
		}
		out, err := s.Inspect(nil, msg, nat.Client)
		if string(out) != data || err != nil {
			t.Errorf("Inspect(%q) = %q, %v", data, out, err)
		}
	}
}

// TestState lets a whole call through with state-checking.
func TestState(t *testing.T) {
	s := (&Engine{NAT: true, Map: Map{State: inspect.Drop}}).NewSession(quietBinder{})
	as := func(method string) string { return strings.ReplaceAll(full, "OPTIONS", method) }
	mustInspect(t, s, nat.Client, as("INVITE"))
	ok := strings.Replace(as("INVITE"), "INVITE sip:1002@203.0.113.10 SIP/2.0", "SIP/2.0 200 OK", 1)
	ok = strings.Replace(ok, "<sip:1002@203.0.113.10>", "<sip:1002@203.0.113.10>;tag=2", 1)
	mustInspect(t, s, nat.Server, ok)
	mustInspect(t, s, nat.Client, as("ACK"))
	mustInspect(t, s, nat.Client, as("BYE"))
}

// TestTimers ends calls by time: one that rings for too long, and one whose
// CANCEL nobody answers.
func TestTimers(t *testing.T) {
	b := &clockBinder{now: time.Unix(1e9, 0)}
	s := (&Engine{Client: UDP, Server: UDP, NAT: true, InviteTimeout: 3 * time.Minute, DisconnectTimeout: 2 * time.Minute}).NewSession(b)
	invite := func(id string) string {
		return request("INVITE", id, offerBody("m=audio 4000 RTP/AVP 0\n"))
	}
	expect := func(after time.Duration, want ...string) {
		t.Helper()
		b.now = b.now.Add(after)
		s.(inspect.Expirer).Expire(b.now)
		if strings.Join(b.released, " ") != strings.Join(want, " ") {
			t.Errorf("after %v released %q, want %q", after, b.released, want)
		}
	}
	mustInspect(t, s, nat.Client, invite("one"))
	expect(2 * time.Minute)
	mustInspect(t, s, nat.Client, invite("two"))
	mustInspect(t, s, nat.Client, request("CANCEL", "two", ""))
	expect(90*time.Second, "one")
	expect(31*time.Second, "one", "two")
	expect(time.Hour, "one", "two")
}

// TestPrivate hides an address that nothing translates from a display.
func TestPrivate(t *testing.T) {
	msg := strings.Replace(full, "User-Agent: Cisco-CP7941G/9.3", "Remote-Party-ID: <sip:1001@192.168.7.7>", 1)
	s := (&Engine{NAT: true, Map: Map{Private: true}}).NewSession(quietBinder{})
	if got := mustInspect(t, s, nat.Client, msg); strings.Contains(got, "192.168.7.7") || !strings.Contains(got, "<sip:1001@"+quietClient.Addr().String()+">") {
		t.Errorf("leaves as\n%s", got)
	}
}
