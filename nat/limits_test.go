package nat_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/nat"
	"patchbay/stack"
)

// bucket is a policer that lets exactly n packets of 33 bytes pass.
func bucket(n int64) *stack.Policer {
	return stack.NewPolicer(stack.PolicerConfig{Rate: 1, Burst: 33 * n})
}

// TestPolicing: each end's packets are held to the rates of where they arrive
// and of where they leave, and to no others.
func TestPolicing(t *testing.T) {
	f := flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:69")
	tests := []struct {
		name           string
		treat          nat.Treatment
		client, server int // of five packets each, how many pass
	}{
		{"nothing", nat.Treatment{}, 5, 5},
		{"client, where it arrives", nat.Treatment{Police: [2]nat.Policing{{Arrive: bucket(2)}}}, 2, 5},
		{"client, where it leaves", nat.Treatment{Police: [2]nat.Policing{{Leave: bucket(2)}}}, 2, 5},
		{"client, the lower of both", nat.Treatment{Police: [2]nat.Policing{{Arrive: bucket(3), Leave: bucket(2)}}}, 2, 5},
		{"server", nat.Treatment{Police: [2]nat.Policing{nat.Server: {Arrive: bucket(1)}}}, 5, 1},
		{"both", nat.Treatment{Police: [2]nat.Policing{{Leave: bucket(4)}, {Leave: bucket(3)}}}, 4, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable(t, nat.TableConfig{})
			p := udp(t, outside, start, "198.51.100.7:5000", "10.20.0.11:69")
			c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: f, Treat: &tt.treat})
			if v != stack.Forward {
				t.Fatal(v)
			}
			var passed [2]int
			for i := range 5 {
				for from, p := range []*stack.Packet{p, udp(t, inside, start, "10.20.0.11:69", "198.51.100.7:5000")} {
					if from == 0 && i > 0 {
						p = udp(t, outside, start, "198.51.100.7:5000", "10.20.0.11:69")
					}
					switch v := c.Handle(p, nat.End(from)); v {
					case stack.Forward:
						passed[from]++
					case stack.DropRate:
					default:
						t.Fatalf("packet %d of %v: %v", i, nat.End(from), v)
					}
				}
			}
			if passed != [2]int{tt.client, tt.server} {
				t.Errorf("%v passed, want %d and %d", passed, tt.client, tt.server)
			}
			if n, _ := c.Counters(nat.Client); n != uint64(tt.client) {
				t.Errorf("the connection counts %d of the client's packets, want %d", n, tt.client)
			}
		})
	}
}

// TestPolicedFirstPacket: one that is over the rate leaves no connection, no
// count and no port behind.
func TestPolicedFirstPacket(t *testing.T) {
	tab := newTable(t, nat.TableConfig{MaxPerClient: 1})
	treat := &nat.Treatment{Police: [2]nat.Policing{{Leave: bucket(1)}}, Limits: nat.NewLimits(nat.LimitsConfig{Max: 5})}
	first := udp(t, outside, start, "198.51.100.7:5000", "10.20.0.11:69")
	c, _, v := tab.Open(first, nat.Opening{Out: inside, Server: first.Flow(), Treat: treat})
	if v != stack.Forward || c.Handle(first, nat.Client) != stack.Forward {
		t.Fatalf("first: %v", v)
	}
	c.Close()
	next := udp(t, outside, start, "198.51.100.7:5001", "10.20.0.11:69")
	if _, _, v := tab.Open(next, nat.Opening{Out: inside, Server: next.Flow(), Treat: treat}); v != stack.DropRate {
		t.Errorf("over the rate: %v, want %v", v, stack.DropRate)
	}
	if tab.Len() != 0 || treat.Limits.Count() != (nat.LimitsCount{}) {
		t.Errorf("%d connections are left, %+v in the class", tab.Len(), treat.Limits.Count())
	}
}

// TestPinholeTreated: a connection that a pinhole opens is of a class, too.
func TestPinholeTreated(t *testing.T) {
	treat := &nat.Treatment{Police: [2]nat.Policing{{Leave: bucket(1)}}}
	var got string
	tab := newTable(t, nat.TableConfig{Treat: func(p *stack.Packet, real stack.Flow, out *stack.Interface) *nat.Treatment {
		got = fmt.Sprintf("%v: %v by %v", p.Flow(), real, out)
		return treat
	}})
	tab.Expect(nat.Pinhole{Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.10:20000")}, Out: inside,
		To: stack.Flow{Proto: stack.UDP, Dst: ap("10.20.0.60:24000")}})
	p := udp(t, outside, start, "198.51.100.7:5000", "203.0.113.10:20000")
	f := p.Flow()
	c, from := tab.Claim(p)
	if v := c.Handle(p, from); v != stack.Forward {
		t.Fatal(v)
	}
	if want := "udp 198.51.100.7:5000 -> 203.0.113.10:20000: udp 198.51.100.7:5000 -> 10.20.0.60:24000 by inside"; got != want {
		t.Errorf("asked about %s, want %s", got, want)
	}
	p.SetFlow(f)
	if v := c.Handle(p, from); v != stack.DropRate {
		t.Errorf("second packet: %v, want %v", v, stack.DropRate)
	}
}

func TestClassLimits(t *testing.T) {
	synFrom := func(src string) *stack.Packet {
		return packet(t, outside, start, flow(stack.TCP, src, "10.20.0.11:2443"), stack.TCPHeader{Flags: syn}, "")
	}
	tests := []struct {
		name string
		cfg  nat.LimitsConfig
		udp  bool
		want []stack.Verdict // of the connections of a, a, b, a
		n    nat.LimitsCount
	}{
		{"none", nat.LimitsConfig{}, false, []stack.Verdict{1, 1, 1, 1}, nat.LimitsCount{Conns: 4, Embryonic: 4}},
		{"in the class", nat.LimitsConfig{Max: 2}, false,
			[]stack.Verdict{1, 1, stack.DropLimit, stack.DropLimit}, nat.LimitsCount{Conns: 2, Embryonic: 2, Dropped: 2}},
		{"of one client", nat.LimitsConfig{MaxPerClient: 1}, false,
			[]stack.Verdict{1, stack.DropHostLimit, 1, stack.DropHostLimit}, nat.LimitsCount{Conns: 2, Embryonic: 2, HostDropped: 2}},
		{"embryonic", nat.LimitsConfig{MaxEmbryonic: 2}, false,
			[]stack.Verdict{1, 1, stack.DropEmbryonic, stack.DropEmbryonic}, nat.LimitsCount{Conns: 2, Embryonic: 2, EmbryonicDropped: 2}},
		{"embryonic of one client", nat.LimitsConfig{MaxEmbryonicPerClient: 2}, false,
			[]stack.Verdict{1, 1, 1, stack.DropEmbryonic}, nat.LimitsCount{Conns: 3, Embryonic: 3, EmbryonicDropped: 1}},
		{"UDP is never embryonic", nat.LimitsConfig{MaxEmbryonic: 1, Max: 3}, true,
			[]stack.Verdict{1, 1, 1, stack.DropLimit}, nat.LimitsCount{Conns: 3, Dropped: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable(t, nat.TableConfig{})
			treat := &nat.Treatment{Limits: nat.NewLimits(tt.cfg)}
			var conns []*nat.Conn
			var got []stack.Verdict
			for _, src := range []string{"198.51.100.1:1", "198.51.100.1:2", "198.51.100.2:1", "198.51.100.1:3"} {
				p := synFrom(src)
				if tt.udp {
					p = udp(t, outside, start, src, "10.20.0.11:69")
				}
				c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: p.Flow(), Treat: treat})
				got = append(got, v)
				if c != nil {
					conns = append(conns, c)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.n, treat.Limits.Count()); diff != "" {
				t.Errorf("count (-want +got):\n%s", diff)
			}
			if n := treat.Limits.Count().Conns; tab.Len() != n {
				t.Errorf("%d connections in the table, %d in the class", tab.Len(), n)
			}
			for _, c := range conns {
				c.Close()
			}
			if c := treat.Limits.Count(); c.Conns != 0 || c.Embryonic != 0 {
				t.Errorf("after the end of all: %+v", c)
			}
			if tab.HalfOpen() != 0 {
				t.Errorf("after the end of all: %d half open", tab.HalfOpen())
			}
		})
	}
}

// TestClassCounts: whatever connections do, the counts of a class go back to
// zero, and never below.
func TestClassCounts(t *testing.T) {
	rnd := newRand()
	limits := nat.NewLimits(nat.LimitsConfig{Max: 20, MaxEmbryonic: 10, MaxPerClient: 8, MaxEmbryonicPerClient: 4})
	treat := &nat.Treatment{Limits: limits}
	tab := newTable(t, nat.TableConfig{})
	now := start
	for range 5000 {
		now = now.Add(time.Duration(rnd.IntN(2000)) * time.Millisecond)
		randomPacket(t, tab, rnd, now, treat)
		if rnd.IntN(4) == 0 {
			tab.Expire(now)
		}
		c := limits.Count()
		if c.Conns != tab.Len() || c.Embryonic != tab.HalfOpen() || c.Embryonic < 0 || c.Conns > 20 || c.Embryonic > 10 {
			t.Fatalf("%+v, and %d in the table, %d half open", c, tab.Len(), tab.HalfOpen())
		}
	}
	tab.Expire(now.Add(2 * time.Hour))
	if c := limits.Count(); c.Conns != 0 || c.Embryonic != 0 || c.Dropped+c.HostDropped+c.EmbryonicDropped == 0 {
		t.Errorf("at the end: %+v; want no connections, and some refused before", c)
	}
}

// randomPacket has one of a few clients or the server say something.
func randomPacket(t *testing.T, tab *nat.Table, rnd *rand.Rand, now time.Time, treat *nat.Treatment) {
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + rnd.IntN(4))}), uint16(1000+rnd.IntN(8)))
	f := stack.Flow{Proto: stack.TCP, Src: src, Dst: ap("10.20.0.11:2443")}
	in, h := outside, stack.TCPHeader{Seq: 100, Flags: syn}
	switch rnd.IntN(6) {
	case 0, 1:
	case 2:
		in, f, h = inside, f.Reverse(), stack.TCPHeader{Seq: 500, Ack: 101, Flags: syn | ack}
	case 3:
		h = stack.TCPHeader{Seq: 101, Ack: 501, Flags: ack}
	case 4:
		h = stack.TCPHeader{Seq: 101, Ack: 501, Flags: fin | ack}
	case 5:
		in, f, h = inside, f.Reverse(), stack.TCPHeader{Seq: 501, Ack: 101, Flags: rst | ack}
	}
	p := packet(t, in, now, f, h, "")
	c, from := tab.Lookup(p)
	if c == nil {
		if in == inside {
			return
		}
		if c, from, _ = tab.Open(p, nat.Opening{Out: inside, Server: f, Treat: treat}); c == nil {
			return
		}
	}
	c.Handle(p, from)
}

func TestClassTimeouts(t *testing.T) {
	to := nat.DefaultTimeouts()
	tests := []struct {
		name  string
		cfg   nat.LimitsConfig
		proto stack.Proto
		idle  time.Duration // of the Opening
		want  [3]time.Duration
	}{
		{"none", nat.LimitsConfig{}, stack.TCP, 0, [3]time.Duration{to.Embryonic, to.Conn, to.HalfClosed}},
		{"all", nat.LimitsConfig{Embryonic: 5 * time.Second, Idle: time.Minute, HalfClosed: 7 * time.Second}, stack.TCP, 0,
			[3]time.Duration{5 * time.Second, time.Minute, 7 * time.Second}},
		{"never", nat.LimitsConfig{Embryonic: nat.Never, Idle: nat.Never, HalfClosed: nat.Never}, stack.TCP, 0, [3]time.Duration{}},
		{"before that of an inspection", nat.LimitsConfig{Idle: time.Minute}, stack.TCP, 30 * time.Minute,
			[3]time.Duration{to.Embryonic, time.Minute, to.HalfClosed}},
		{"UDP", nat.LimitsConfig{Embryonic: 5 * time.Second, Idle: time.Minute}, stack.UDP, 0, [3]time.Duration{time.Minute}},
		{"UDP, idle of TCP only", nat.LimitsConfig{Idle: time.Minute, IdleTCP: true}, stack.UDP, 0, [3]time.Duration{to.UDP}},
		{"UDP never", nat.LimitsConfig{Idle: nat.Never}, stack.UDP, 0, [3]time.Duration{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable(t, nat.TableConfig{})
			f := flow(tt.proto, "198.51.100.7:5000", "10.20.0.11:69")
			client := func(flags uint8, seq, ack uint32) *stack.Packet {
				return packet(t, outside, start, f, stack.TCPHeader{Seq: seq, Ack: ack, Flags: flags}, "")
			}
			p := client(syn, 100, 0)
			c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: f, Idle: tt.idle,
				Treat: &nat.Treatment{Limits: nat.NewLimits(tt.cfg)}})
			if v != stack.Forward || c.Timeout() != tt.want[0] {
				t.Fatalf("Open: %v, timeout %v; want %v", v, c.Timeout(), tt.want[0])
			}
			if tt.proto != stack.TCP {
				return
			}
			c.Handle(p, nat.Client)
			c.Handle(packet(t, inside, start, f.Reverse(), stack.TCPHeader{Seq: 500, Ack: 101, Flags: syn | ack}, ""), nat.Server)
			c.Handle(client(ack, 101, 501), nat.Client)
			if c.Timeout() != tt.want[1] {
				t.Errorf("established: timeout %v, want %v", c.Timeout(), tt.want[1])
			}
			c.Handle(client(fin|ack, 101, 501), nat.Client)
			if c.Timeout() != tt.want[2] {
				t.Errorf("half closed: timeout %v, want %v", c.Timeout(), tt.want[2])
			}
		})
	}
}

// TestIdleReset: both ends of an established connection that was idle for too
// long hear of it, with a segment that each must believe. Nobody hears of others.
func TestIdleReset(t *testing.T) {
	client := flow(stack.TCP, "198.51.100.7:5000", "203.0.113.10:2443")
	server := flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443")
	tests := []struct {
		name  string
		reset bool
		up    bool
		want  []string
	}{
		{"established", true, true, []string{
			"to client: tcp 203.0.113.10:2443 > 198.51.100.7:5000 RA seq 503 ack 106",
			"to server: tcp 198.51.100.7:5000 > 10.20.0.11:2443 RA seq 106 ack 503",
			nat.ReasonIdle}},
		{"without reset", false, true, []string{nat.ReasonIdle}},
		{"embryonic", true, false, []string{nat.ReasonSYN}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tab := newTable(t, nat.TableConfig{
				Reset: func(c *nat.Conn) {
					for _, to := range []nat.End{nat.Client, nat.Server} {
						p := parsed(t, inside, start, c.AppendReset(nil, to))
						got = append(got, fmt.Sprintf("to %v: tcp %v > %v RA seq %d ack %d", to, p.Flow().Src, p.Flow().Dst, p.TCPSeq(), p.TCPAck()))
						if p.TCPFlags() != rst|ack {
							t.Errorf("flags %#x, want RST and ACK", p.TCPFlags())
						}
					}
				},
				Closed: func(_ *nat.Conn, reason string) { got = append(got, reason) },
			})
			k := func(from nat.End, flags uint8, seq, ackNo uint32, data string) {
				f, in := client, outside
				if from == nat.Server {
					f, in = server.Reverse(), inside
				}
				p := packet(t, in, start, f, stack.TCPHeader{Seq: seq, Ack: ackNo, Flags: flags}, data)
				c, end := tab.Lookup(p)
				if c == nil {
					var v stack.Verdict
					if c, end, v = tab.Open(p, nat.Opening{Out: inside, Server: server, Treat: &nat.Treatment{Limits: nat.NewLimits(nat.LimitsConfig{
						Idle: time.Minute, Reset: tt.reset})}}); v != stack.Forward {
						t.Fatal(v)
					}
				}
				if v := c.Handle(p, end); v != stack.Forward {
					t.Fatalf("%v seq %d: %v", from, seq, v)
				}
			}
			k(nat.Client, syn, 100, 0, "")
			k(nat.Server, syn|ack, 500, 101, "")
			if tt.up {
				k(nat.Client, ack, 101, 501, "hello")
				k(nat.Server, ack, 501, 106, "hi")
			}
			tab.Expire(start.Add(62 * time.Second))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestPolicedAllocations(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	p := udp(t, outside, start, "198.51.100.7:5000", "10.20.0.11:69")
	f := p.Flow()
	wide := stack.NewPolicer(stack.PolicerConfig{Rate: stack.MaxPoliceRate, Burst: stack.MaxPoliceBurst})
	c, from, _ := tab.Open(p, nat.Opening{Out: inside, Server: f, Treat: &nat.Treatment{
		Police: [2]nat.Policing{{Arrive: wide, Leave: bucket(1)}}, Limits: nat.NewLimits(nat.LimitsConfig{})}})
	if n := testing.AllocsPerRun(1000, func() {
		c.Handle(p, from) // the first passes, the others do not
		p.SetFlow(f)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
