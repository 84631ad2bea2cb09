package nat_test

import (
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

const (
	fin, syn, rst, ack = stack.FlagFIN, stack.FlagSYN, stack.FlagRST, stack.FlagACK
)

// A segment of a conversation, and what must be true after it.
type segment struct {
	from     nat.End
	flags    uint8
	seq, ack uint32
	data     string
	verdict  stack.Verdict // 0: Forward
	show     string        // flags of "show conn"
	timeout  time.Duration
	over     bool
}

// handshake opens the conversations below: client data from 101, server data
// from 501. It ends with the flags that up has.
func handshake(wait, answered, up string) []segment {
	return []segment{
		{nat.Client, syn, 100, 0, "", 0, wait, 30 * time.Second, false},
		{nat.Server, syn | ack, 500, 101, "", 0, answered, 30 * time.Second, false},
		{nat.Client, ack, 101, 501, "", 0, up, time.Hour, false},
	}
}

func TestTCP(t *testing.T) {
	in := handshake("SaAB", "aB", "UB")
	out := handshake("saA", "A", "U")
	tests := []struct {
		name            string
		client, server  *stack.Interface
		segments        []segment
		reason          string
		clientB, serveB uint64 // bytes
	}{
		{"from outside, client ends", outside, inside, append(in,
			segment{nat.Client, ack, 101, 501, "hello", 0, "UIB", time.Hour, false},
			segment{nat.Server, ack, 501, 106, "hi", 0, "UIOB", time.Hour, false},
			segment{nat.Client, fin | ack, 106, 503, "", 0, "UFIOB", 10 * time.Minute, false},
			segment{nat.Server, ack, 503, 106, "more", 0, "UFIOB", 10 * time.Minute, false}, // not yet of the FIN
			segment{nat.Server, fin | ack, 507, 107, "", 0, "UfFrIOB", 10 * time.Minute, false},
			segment{nat.Client, ack, 107, 508, "", 0, "UfFRrIOB", 0, true},
		), nat.ReasonFINs, 5, 6},
		{"from inside, server ends with data on the FIN", inside, outside, append(out,
			segment{nat.Server, fin | ack, 501, 101, "bye", 0, "UFI", 10 * time.Minute, false},
			segment{nat.Client, ack, 101, 505, "", 0, "UFrI", 10 * time.Minute, false},
			segment{nat.Client, fin | ack, 101, 505, "", 0, "UfFrI", 10 * time.Minute, false},
			segment{nat.Server, ack, 505, 102, "", 0, "UfFRrI", 0, true},
		), nat.ReasonFINs, 0, 3},
		{"refused", outside, inside, []segment{
			in[0],
			{nat.Server, rst | ack, 0, 101, "", 0, "SaAB", 0, true},
		}, nat.ReasonResetInside, 0, 0},
		{"reset by the client", outside, inside, append(in,
			segment{nat.Client, rst, 101, 0, "", 0, "UB", 0, true},
		), nat.ReasonResetOutside, 0, 0},
		{"reset by the client inside", inside, outside, append(out,
			segment{nat.Client, rst, 101, 0, "", 0, "U", 0, true},
		), nat.ReasonResetInside, 0, 0},
		{"out of turn", outside, inside, []segment{
			in[0],
			{nat.Client, ack, 101, 1, "early", stack.DropTCPState, "SaAB", 30 * time.Second, false},
			{nat.Server, ack, 1, 1, "early", stack.DropTCPState, "SaAB", 30 * time.Second, false},
			{nat.Client, fin | ack, 101, 1, "", stack.DropTCPState, "SaAB", 30 * time.Second, false},
			in[0], // again: the first was lost
			{nat.Server, ack, 900, 700, "", 0, "SaAB", 30 * time.Second, false}, // of an older connection
			in[1],
			in[2],
		}, "", 0, 0},
		{"sequence numbers that wrap", outside, inside, []segment{
			{nat.Client, syn, 0xfffffffd, 0, "", 0, "SaAB", 30 * time.Second, false},
			{nat.Server, syn | ack, 0xffffffff, 0xfffffffe, "", 0, "aB", 30 * time.Second, false},
			{nat.Client, ack, 0xfffffffe, 0, "", 0, "UB", time.Hour, false},
			{nat.Client, fin | ack, 0xfffffffe, 0, "abc", 0, "UFIB", 10 * time.Minute, false}, // up to 2
			{nat.Server, fin | ack, 0, 0xffffffff, "", 0, "UfFIB", 10 * time.Minute, false},
			{nat.Server, ack, 1, 2, "", 0, "UfFrIB", 10 * time.Minute, false},
			{nat.Client, ack, 2, 1, "", 0, "UfFRrIB", 0, true},
		}, nat.ReasonFINs, 3, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reason := ""
			tab := newTable(t, nat.TableConfig{Closed: func(_ *nat.Conn, r string) { reason = r }})
			client := flow(stack.TCP, "198.51.100.7:5000", "203.0.113.10:2443")
			server := flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443")
			var c *nat.Conn
			for i, s := range tt.segments {
				f, where := client, tt.client
				if s.from == nat.Server {
					f, where = server.Reverse(), tt.server
				}
				p := packet(t, where, start, f, stack.TCPHeader{Seq: s.seq, Ack: s.ack, Flags: s.flags}, s.data)
				if i == 0 {
					c = open(t, tab, p, tt.server, server)
				}
				got, from := tab.Lookup(p)
				if got != c || from != s.from {
					t.Fatalf("segment %d: Lookup = %p, %v; want %p, %v", i, got, from, c, s.from)
				}
				want := s.verdict
				if want == 0 {
					want = stack.Forward
				}
				if v := c.Handle(p, from); v != want {
					t.Fatalf("segment %d: Handle = %v, want %v", i, v, want)
				}
				if got := c.Flags(); got != s.show {
					t.Errorf("segment %d: flags %q, want %q", i, got, s.show)
				}
				if c.Timeout() != s.timeout || c.Closed() != s.over {
					t.Errorf("segment %d: timeout %v, closed %v; want %v, %v", i, c.Timeout(), c.Closed(), s.timeout, s.over)
				}
				if want == stack.Forward {
					parsed(t, p.Out, start, p.Data())
				}
			}
			if reason != tt.reason {
				t.Errorf("closed for %q, want %q", reason, tt.reason)
			}
			_, cb := c.Counters(nat.Client)
			_, sb := c.Counters(nat.Server)
			if cb != tt.clientB || sb != tt.serveB {
				t.Errorf("%d and %d bytes, want %d and %d", cb, sb, tt.clientB, tt.serveB)
			}
		})
	}
}
