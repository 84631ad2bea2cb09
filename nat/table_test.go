package nat_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/nat"
	"patchbay/stack"
)

// send looks p up, handles it and returns how it leaves.
func send(t testing.TB, tab *nat.Table, p *stack.Packet) string {
	t.Helper()
	c, from := tab.Lookup(p)
	if c == nil {
		return "no connection"
	}
	v := c.Handle(p, from)
	if v != stack.Forward {
		return v.String()
	}
	return fmt.Sprintf("%v by %v", p.Flow(), p.Out)
}

func TestTableTranslatesBothWays(t *testing.T) {
	tests := []struct {
		name           string
		client, server stack.Flow
		there, back    string
	}{
		{"UDP to the UCM",
			flow(stack.UDP, "198.51.100.7:5000", "203.0.113.10:69"), flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:69"),
			"udp 198.51.100.7:5000 -> 10.20.0.11:69 by inside", "udp 203.0.113.10:69 -> 198.51.100.7:5000 by outside"},
		{"both ends",
			flow(stack.UDP, "198.51.100.7:5000", "203.0.113.10:69"), flow(stack.UDP, "10.20.0.1:6000", "10.20.0.11:70"),
			"udp 10.20.0.1:6000 -> 10.20.0.11:70 by inside", "udp 203.0.113.10:69 -> 198.51.100.7:5000 by outside"},
		{"ping",
			flow(stack.ICMP, "198.51.100.7:77", "203.0.113.10:0"), flow(stack.ICMP, "198.51.100.7:78", "10.20.0.11:0"),
			"icmp 198.51.100.7:78 -> 10.20.0.11:0 by inside", "icmp 203.0.113.10:0 -> 198.51.100.7:77 by outside"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable(t, nat.TableConfig{})
			first := packet(t, outside, start, tt.client, stack.TCPHeader{}, "")
			if got := send(t, tab, first); got != "no connection" {
				t.Fatalf("before Open: %s", got)
			}
			c := open(t, tab, first, inside, tt.server)
			if v := c.Handle(first, nat.Client); v != stack.Forward {
				t.Fatalf("Handle = %v", v)
			}
			there := packet(t, outside, start, tt.client, stack.TCPHeader{}, "there")
			if got := send(t, tab, there); got != tt.there {
				t.Errorf("there: %s, want %s", got, tt.there)
			}
			back := packet(t, inside, start.Add(time.Second), tt.server.Reverse(), stack.TCPHeader{}, "answer")
			if got := send(t, tab, back); got != tt.back {
				t.Errorf("back: %s, want %s", got, tt.back)
			}
			// What left parses again: the checksums are right.
			parsed(t, inside, start, there.Data())
			parsed(t, outside, start, back.Data())
			// The same flow on another interface is another one.
			if got := send(t, tab, packet(t, dmz, start, tt.client, stack.TCPHeader{}, "")); got != "no connection" {
				t.Errorf("on dmz: %s", got)
			}
			if c.Client() != tt.client || c.Server() != tt.server || !c.Translated() || !c.Up() {
				t.Errorf("Conn: %v, %v, translated %v, up %v", c.Client(), c.Server(), c.Translated(), c.Up())
			}
			if n, b := c.Counters(nat.Client); n != 2 || b != 5 {
				t.Errorf("client sent %d packets, %d bytes; want 2, 5", n, b)
			}
			if n, b := c.Counters(nat.Server); n != 1 || b != 6 {
				t.Errorf("server sent %d packets, %d bytes; want 1, 6", n, b)
			}
			if d := c.Idle(start.Add(3 * time.Second)); d != 2*time.Second {
				t.Errorf("idle %v, want 2s", d)
			}
			if tab.Len() != 1 || c.ID != 1 || c.Opened != start {
				t.Errorf("Len %d, ID %d, opened %v", tab.Len(), c.ID, c.Opened)
			}
			c.Close()
			c.Close()
			if tab.Len() != 0 || tab.Most() != 1 || !c.Closed() {
				t.Errorf("after Close: Len %d, Most %d", tab.Len(), tab.Most())
			}
			if got := send(t, tab, packet(t, outside, start, tt.client, stack.TCPHeader{}, "")); got != "no connection" {
				t.Errorf("after Close: %s", got)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	tcp := flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443")
	seg := func(flags uint8) *stack.Packet {
		return packet(t, outside, start, tcp, stack.TCPHeader{Flags: flags}, "")
	}
	ping := flow(stack.ICMP, "198.51.100.7:0", "10.20.0.11:9")
	unreachable := parsed(t, outside, start, stack.AppendICMPError(nil,
		udp(t, outside, start, "10.20.0.11:5060", "198.51.100.7:5060"), addr("198.51.100.1"), stack.ICMPUnreachable, 1, 0))
	tests := []struct {
		name string
		p    *stack.Packet
		want stack.Verdict
	}{
		{"SYN", seg(stack.FlagSYN), stack.Forward},
		{"SYN-ACK", seg(stack.FlagSYN | stack.FlagACK), stack.DropTCPNotSYN},
		{"ACK", seg(stack.FlagACK), stack.DropTCPNotSYN},
		{"RST", seg(stack.FlagRST), stack.DropTCPNotSYN},
		{"SYN-FIN", seg(stack.FlagSYN | stack.FlagFIN), stack.DropTCPNotSYN},
		{"echo reply", packet(t, outside, start, ping, stack.TCPHeader{}, ""), stack.DropICMP},
		{"ICMP error", unreachable, stack.DropICMP},
	}
	for _, tt := range tests {
		tab, pat := newTable(t, nat.TableConfig{}), nat.NewPAT(chance())
		l, _ := pat.Take(stack.TCP, tcp.Src, patAddr, nil)
		c, _, v := tab.Open(tt.p, nat.Opening{Out: inside, Server: tt.p.Flow(), Source: nat.Source{Lease: l}})
		if v != tt.want || (c != nil) != (v == stack.Forward) {
			t.Errorf("%s: Open = %v, %v; want %v", tt.name, c, v, tt.want)
		}
		// The lease is the connection's, or free.
		if _, leased := pat.Lookup(stack.TCP, tcp.Src, patAddr); leased != (c != nil) {
			t.Errorf("%s: leased %v", tt.name, leased)
		}
		if c != nil {
			c.Close()
		}
		if _, leased := pat.Lookup(stack.TCP, tcp.Src, patAddr); leased {
			t.Errorf("%s: leased after Close", tt.name)
		}
	}
}

func TestOpenClash(t *testing.T) {
	tab, pat := newTable(t, nat.TableConfig{}), nat.NewPAT(chance())
	first := udp(t, inside, start, "10.20.0.60:4000", "198.51.100.7:53")
	server := flow(stack.UDP, "203.0.113.2:4000", "198.51.100.7:53")
	take := func(src string) nat.Source {
		l, _ := pat.Take(stack.UDP, ap(src), patAddr, nil)
		return nat.Source{Mapped: l.Mapped(), Lease: l}
	}
	c, _, v := tab.Open(first, nat.Opening{Out: outside, Server: server, Source: take("10.20.0.60:4000")})
	if v != stack.Forward {
		t.Fatal(v)
	}
	// The same packet again, as by a goroutine that lost the race.
	again, from, v := tab.Open(first, nat.Opening{Out: outside, Server: server, Source: take("10.20.0.60:4000")})
	if again != c || from != nat.Client || v != stack.Forward {
		t.Errorf("Open again = %p, %v, %v; want %p, client", again, from, v, c)
	}
	// The answer, which another goroutine took for a first packet.
	answer := udp(t, outside, start, "198.51.100.7:53", "203.0.113.2:4000")
	again, from, v = tab.Open(answer, nat.Opening{Out: inside, Server: first.Flow().Reverse()})
	if again != c || from != nat.Server || v != stack.Forward {
		t.Errorf("Open of the answer = %p, %v, %v; want %p, server", again, from, v, c)
	}
	// Another client that would look the same to the server.
	other := udp(t, inside, start, "10.20.0.61:4000", "198.51.100.7:53")
	if c2, _, v := tab.Open(other, nat.Opening{Out: outside, Server: server}); v != stack.DropNAT || c2 != nil {
		t.Errorf("Open of a clash = %v, %v; want %v", c2, v, stack.DropNAT)
	}
	if tab.Len() != 1 {
		t.Errorf("Len = %d, want 1", tab.Len())
	}
	c.Close()
	if m, ok := pat.Lookup(stack.UDP, ap("10.20.0.60:4000"), patAddr); ok {
		t.Errorf("%v is still leased", m)
	}
	if _, _, v := tab.Open(other, nat.Opening{Out: outside, Server: server}); v != stack.Forward {
		t.Errorf("Open after Close = %v", v)
	}
}

func TestLimits(t *testing.T) {
	syn := func(src string) *stack.Packet {
		return packet(t, outside, start, flow(stack.TCP, src, "10.20.0.11:2443"), stack.TCPHeader{Flags: stack.FlagSYN}, "")
	}
	try := func(tab *nat.Table, p *stack.Packet) (*nat.Conn, stack.Verdict) {
		c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: p.Flow()})
		return c, v
	}
	t.Run("in all", func(t *testing.T) {
		tab := newTable(t, nat.TableConfig{MaxConns: 2})
		c, _ := try(tab, syn("198.51.100.1:1"))
		try(tab, syn("198.51.100.2:1"))
		if _, v := try(tab, syn("198.51.100.3:1")); v != stack.DropLimit {
			t.Errorf("third: %v", v)
		}
		c.Close()
		if _, v := try(tab, syn("198.51.100.3:1")); v != stack.Forward {
			t.Errorf("third after Close: %v", v)
		}
	})
	t.Run("per client", func(t *testing.T) {
		tab := newTable(t, nat.TableConfig{MaxPerClient: 1})
		c, _ := try(tab, syn("198.51.100.1:1"))
		if _, v := try(tab, syn("198.51.100.1:2")); v != stack.DropHostLimit {
			t.Errorf("second: %v", v)
		}
		if _, v := try(tab, syn("198.51.100.2:1")); v != stack.Forward {
			t.Errorf("another client: %v", v)
		}
		c.Close()
		if _, v := try(tab, syn("198.51.100.1:2")); v != stack.Forward {
			t.Errorf("second after Close: %v", v)
		}
	})
	t.Run("embryonic", func(t *testing.T) {
		tab := newTable(t, nat.TableConfig{MaxEmbryonic: 1})
		p := syn("198.51.100.1:1")
		c, _ := try(tab, p)
		if _, v := try(tab, syn("198.51.100.1:2")); v != stack.DropEmbryonic {
			t.Errorf("second: %v", v)
		}
		if _, _, v := tab.Open(udp(t, outside, start, "198.51.100.1:1", "10.20.0.11:69"),
			nat.Opening{Out: inside, Server: flow(stack.UDP, "198.51.100.1:1", "10.20.0.11:69")}); v != stack.Forward {
			t.Errorf("UDP: %v", v)
		}
		f := c.Client()
		send(t, tab, p)
		send(t, tab, packet(t, inside, start, f.Reverse(), stack.TCPHeader{Flags: stack.FlagSYN | stack.FlagACK, Ack: 1}, ""))
		send(t, tab, packet(t, outside, start, f, stack.TCPHeader{Flags: stack.FlagACK, Seq: 1, Ack: 1}, ""))
		d, v := try(tab, syn("198.51.100.1:2"))
		if v != stack.Forward {
			t.Errorf("second after the first is up: %v", v)
		}
		c.Close()
		if _, v := try(tab, syn("198.51.100.1:3")); v != stack.DropEmbryonic {
			t.Errorf("third: %v", v)
		}
		d.Close()
		if _, v := try(tab, syn("198.51.100.1:3")); v != stack.Forward {
			t.Errorf("third after Close: %v", v)
		}
	})
	t.Run("embryonic in all", func(t *testing.T) {
		tab := newTable(t, nat.TableConfig{MaxHalfOpen: 2})
		c, _ := try(tab, syn("198.51.100.1:1"))
		try(tab, syn("198.51.100.2:1"))
		if _, v := try(tab, syn("198.51.100.3:1")); v != stack.DropEmbryonic || tab.HalfOpen() != 2 {
			t.Errorf("third: %v, %d half open", v, tab.HalfOpen())
		}
		tab.Expire(start.Add(31 * time.Second))
		if n := tab.HalfOpen(); n != 0 || !c.Closed() {
			t.Errorf("after the embryonic timeout: %d half open", n)
		}
		if _, v := try(tab, syn("198.51.100.3:1")); v != stack.Forward || tab.HalfOpen() != 1 {
			t.Errorf("third after the timeout: %v", v)
		}
	})
}

// watcher is a Handler that counts.
type watcher struct {
	mu      sync.Mutex
	packets int
	closed  []uint64
	verdict stack.Verdict
}

func (w *watcher) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.packets++
	return w.verdict
}

func (w *watcher) ConnClosed(c *nat.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = append(w.closed, c.ID)
}

func TestTimeouts(t *testing.T) {
	to := nat.DefaultTimeouts()
	to.Other = 0
	tests := []struct {
		name  string
		proto stack.Proto
		idle  time.Duration // of the Opening
		want  time.Duration // 0: never
	}{
		{"udp", stack.UDP, 0, 2 * time.Minute},
		{"udp with its own", stack.UDP, 30 * time.Minute, 30 * time.Minute},
		{"icmp", stack.ICMP, 0, 2 * time.Second},
		{"tcp", stack.TCP, 0, 30 * time.Second},
		{"tcp with its own", stack.TCP, time.Hour, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log []string
			tab := newTable(t, nat.TableConfig{Timeouts: to,
				Opened: func(c *nat.Conn) { log = append(log, "opened") },
				Closed: func(c *nat.Conn, reason string) { log = append(log, reason) }})
			f := flow(tt.proto, "198.51.100.7:5000", "10.20.0.11:69")
			if tt.proto == stack.ICMP {
				f.Dst = ap("10.20.0.11:0")
			}
			w := &watcher{verdict: stack.Forward}
			p := packet(t, outside, start, f, stack.TCPHeader{Flags: stack.FlagSYN}, "")
			c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: f, Handler: w, Idle: tt.idle})
			if v != stack.Forward || c.Timeout() != tt.want {
				t.Fatalf("Open = %v, timeout %v; want %v", v, c.Timeout(), tt.want)
			}
			tab.Expire(start.Add(tt.want))
			if got := send(t, tab, packet(t, outside, start.Add(tt.want), f, stack.TCPHeader{Flags: stack.FlagSYN}, "")); got == "no connection" {
				t.Errorf("gone after %v", tt.want)
			}
			// That packet was the last. Lookup is exact, without Expire.
			end := start.Add(2 * tt.want)
			if c, _ := tab.Lookup(packet(t, outside, end, f, stack.TCPHeader{Flags: stack.FlagSYN}, "")); c == nil {
				t.Errorf("gone %v after the last packet", tt.want)
			}
			if c, _ := tab.Lookup(packet(t, outside, end.Add(1), f, stack.TCPHeader{Flags: stack.FlagSYN}, "")); c != nil {
				t.Errorf("there more than %v after the last packet", tt.want)
			}
			if tab.Len() != 1 {
				t.Errorf("Len = %d before Expire", tab.Len())
			}
			tab.Expire(end.Add(2 * time.Second))
			if tab.Len() != 0 || len(w.closed) != 1 || w.packets != 1 {
				t.Errorf("after Expire: Len %d, closed %d, packets %d", tab.Len(), len(w.closed), w.packets)
			}
			reason := nat.ReasonIdle
			if tt.proto == stack.TCP {
				reason = nat.ReasonSYN
			}
			if diff := cmp.Diff([]string{"opened", reason}, log); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenReplacesExpired(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	f := flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:69")
	old := open(t, tab, packet(t, outside, start, f, stack.TCPHeader{}, ""), inside, f)
	late := packet(t, outside, start.Add(time.Hour), f, stack.TCPHeader{}, "")
	now := open(t, tab, late, inside, f)
	if now == old || !old.Closed() || tab.Len() != 1 {
		t.Errorf("Open = the old one %v, old closed %v, Len %d", now == old, old.Closed(), tab.Len())
	}
	if c, _ := tab.Lookup(late); c != now {
		t.Errorf("Lookup = %p, want %p", c, now)
	}
}

// TestExpireLong follows connections with a timeout far beyond the wheel, seen
// now and then, through jumps of the clock.
func TestExpireLong(t *testing.T) {
	tab := newTable(t, nat.TableConfig{Timeouts: nat.Timeouts{UDP: 1000 * time.Second}})
	f := func(i int) stack.Flow {
		return stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(addr("198.51.100.7"), uint16(1024+i)), Dst: ap("10.20.0.11:69")}
	}
	const n = 10_000 // more than one Expire looks at
	for i := range n {
		at := start.Add(time.Duration(i%10) * time.Second)
		open(t, tab, packet(t, outside, at, f(i), stack.TCPHeader{}, ""), inside, f(i))
	}
	for s := 0; s <= 1000; s += 7 {
		tab.Expire(start.Add(time.Duration(s) * time.Second))
	}
	if tab.Len() != n {
		t.Fatalf("after 1000 s: %d connections, want %d", tab.Len(), n)
	}
	// Keep every tenth.
	for i := 9; i < n; i += 10 {
		send(t, tab, packet(t, outside, start.Add(1005*time.Second), f(i), stack.TCPHeader{}, ""))
	}
	for s := 1000; s <= 1015; s++ {
		tab.Expire(start.Add(time.Duration(s) * time.Second))
	}
	if tab.Len() != n/10 {
		t.Fatalf("after 1015 s: %d connections, want %d", tab.Len(), n/10)
	}
	tab.Expire(start.Add(24 * time.Hour))
	if tab.Len() != 0 {
		t.Errorf("after a day: %d connections", tab.Len())
	}
	tab.Expire(start) // the clock back
	open(t, tab, packet(t, outside, start, f(0), stack.TCPHeader{}, ""), inside, f(0))
	if tab.Len() != 1 {
		t.Errorf("Len = %d after the clock went back", tab.Len())
	}
}

func TestSetTimeouts(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	to := nat.DefaultTimeouts()
	to.UDP = 0
	tab.SetTimeouts(to)
	f := flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:69")
	c := open(t, tab, packet(t, outside, start, f, stack.TCPHeader{}, ""), inside, f)
	tab.Expire(start.Add(365 * 24 * time.Hour))
	if c.Timeout() != 0 || tab.Len() != 1 {
		t.Errorf("timeout %v, Len %d; want one that never ends", c.Timeout(), tab.Len())
	}
}

func TestClearAndRevise(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	old := newRules(t, rulesA()...)
	pat := nat.NewPAT(chance())
	start := func(in, out *stack.Interface, f stack.Flow) {
		t.Helper()
		p := packet(t, in, start, f, stack.TCPHeader{}, "")
		dst, un, _ := old.Untranslate(in, f)
		f.Dst = dst
		s, v := old.Translate(in, out, f, un, pat)
		if v != stack.Forward {
			t.Fatal(v)
		}
		f.Src = s.Mapped
		if _, _, v := tab.Open(p, nat.Opening{Out: out, Server: f, UnRule: un, Source: s}); v != stack.Forward {
			t.Fatal(v)
		}
	}
	start(outside, inside, flow(stack.UDP, "198.51.100.7:5000", "203.0.113.10:69"))
	start(outside, inside, flow(stack.UDP, "198.51.100.8:5000", "203.0.113.10:69"))
	start(inside, outside, flow(stack.UDP, "10.20.0.60:4000", "198.51.100.9:53"))
	start(inside, outside, flow(stack.UDP, "10.20.0.11:5060", "198.51.100.7:5060"))
	start(dmz, inside, flow(stack.UDP, "192.168.1.80:4000", "10.20.0.60:53"))

	var got []string
	for _, x := range tab.Xlates(old) {
		got = append(got, fmt.Sprintf("%v %v:%v to %v:%v %s %d", x.Proto, x.From, x.Real, x.To, x.Mapped, x.Flags(), x.Conns))
	}
	want := []string{
		"0 inside:10.20.0.11:0 to outside:203.0.113.10:0 s 3",
		"udp inside:10.20.0.60:4000 to outside:203.0.113.2:4000 ri 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Xlates (-want +got):\n%s", diff)
	}
	hits := make(map[string][2]uint64)
	for _, r := range old.All() {
		tr, un := r.Hits()
		hits[r.Name] = [2]uint64{tr, un}
	}
	if diff := cmp.Diff(map[string][2]uint64{"cucm-a": {1, 2}, "inside-net": {1, 0}}, hits); diff != "" {
		t.Errorf("hits (-want +got):\n%s", diff)
	}

	if n := tab.Clear(func(c *nat.Conn) bool { return c.Client().Src.Addr() == addr("198.51.100.8") }); n != 1 || tab.Len() != 4 {
		t.Errorf("Clear = %d, Len %d; want 1, 4", n, tab.Len())
	}
	same := newRules(t, append(rulesC()[:1], rulesA()...)...)
	if n := tab.Revise(same.Keeps); n != 0 {
		t.Errorf("Revise ended %d, want none", n)
	}
	moved := rulesA()
	moved[1].MappedSource = host("203.0.113.11")
	if n := tab.Revise(newRules(t, moved...).Keeps); n != 2 || tab.Len() != 2 {
		t.Errorf("Revise for a moved UCM ended %d, Len %d; want 2, 2", n, tab.Len())
	}
	if n := tab.Revise(newRules(t).Keeps); n != 1 || tab.Len() != 1 {
		t.Errorf("Revise without rules ended %d, Len %d; want 1, 1", n, tab.Len())
	}
	if _, ok := pat.Lookup(stack.UDP, ap("10.20.0.60:4000"), patAddr); ok {
		t.Error("the PAT port is still leased")
	}
	n := 0
	tab.Conns(func(c *nat.Conn) bool { n++; return true })
	if n != 1 {
		t.Errorf("Conns calls %d times, want 1", n)
	}
}

func TestICMPErrors(t *testing.T) {
	client := flow(stack.UDP, "198.51.100.7:5000", "203.0.113.10:69")
	server := flow(stack.UDP, "10.20.0.1:6000", "10.20.0.11:70")
	tests := []struct {
		name   string
		in     *stack.Interface
		quoted stack.Flow
		src    string
		from   nat.End
		outer  string
		inner  stack.Flow
	}{
		{"UCM says port unreachable", inside, server, "10.20.0.11", nat.Server,
			"icmp 203.0.113.10:0 -> 198.51.100.7:0 by outside", client},
		{"router before the UCM", inside, server, "10.20.0.254", nat.Server,
			"icmp 203.0.113.10:0 -> 198.51.100.7:0 by outside", client},
		{"phone says port unreachable", outside, client.Reverse(), "198.51.100.7", nat.Client,
			"icmp 10.20.0.1:0 -> 10.20.0.11:0 by inside", server.Reverse()},
		{"router before the phone", outside, client.Reverse(), "198.51.100.1", nat.Client,
			"icmp 10.20.0.1:0 -> 10.20.0.11:0 by inside", server.Reverse()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable(t, nat.TableConfig{})
			c := open(t, tab, packet(t, outside, start, client, stack.TCPHeader{}, ""), inside, server)
			quoted := packet(t, tt.in, start, tt.quoted, stack.TCPHeader{}, "hello")
			p := parsed(t, tt.in, start.Add(time.Second), stack.AppendICMPError(nil, quoted, addr(tt.src), stack.ICMPUnreachable, 3, 0))
			if c, _ := tab.Lookup(p); c != nil {
				t.Error("Lookup finds a connection for an ICMP error")
			}
			got, from := tab.LookupQuoted(p)
			if got != c || from != tt.from {
				t.Fatalf("LookupQuoted = %p, %v; want %p, %v", got, from, c, tt.from)
			}
			if v := c.HandleError(p, from); v != stack.Forward {
				t.Fatalf("HandleError = %v", v)
			}
			if s := fmt.Sprintf("%v by %v", p.Flow(), p.Out); s != tt.outer {
				t.Errorf("error goes %s, want %s", s, tt.outer)
			}
			if f, ok := parsed(t, p.Out, start, p.Data()).Quoted(); !ok || f != tt.inner {
				t.Errorf("quotes %v, want %v", f, tt.inner)
			}
			if !c.Seen().Equal(start) {
				t.Error("an error keeps the connection alive")
			}
		})
	}
	tab := newTable(t, nat.TableConfig{})
	p := udp(t, outside, start, "198.51.100.7:5000", "203.0.113.10:69")
	if c, _ := tab.LookupQuoted(p); c != nil {
		t.Error("LookupQuoted finds a connection for UDP")
	}
	c := open(t, tab, p, inside, server)
	if v := c.HandleError(p, nat.Client); v != stack.DropICMP {
		t.Errorf("HandleError for UDP = %v", v)
	}
}

func TestHandlerVerdict(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	w := &watcher{verdict: stack.DropInspect}
	p := udp(t, outside, start, "198.51.100.7:5060", "203.0.113.10:5060")
	c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: flow(stack.UDP, "198.51.100.7:5060", "10.20.0.11:5060"), Handler: w, Mark: "T"})
	if v != stack.Forward {
		t.Fatal(v)
	}
	if v := c.Handle(p, nat.Client); v != stack.DropInspect || p.Out != nil {
		t.Errorf("Handle = %v, Out %v", v, p.Out)
	}
	if c.Flags() != "T" {
		t.Errorf("Flags = %q", c.Flags())
	}
}

// TestTableConcurrent opens, uses and ends connections from several goroutines
// while another expires and a third lists.
func TestTableConcurrent(t *testing.T) {
	var opened, closed sync.Map
	tab := newTable(t, nat.TableConfig{
		Timeouts: nat.Timeouts{UDP: 3 * time.Second},
		Opened:   func(c *nat.Conn) { opened.Store(c.ID, true) },
		Closed: func(c *nat.Conn, _ string) {
			if _, twice := closed.LoadOrStore(c.ID, true); twice {
				t.Errorf("connection %d closed twice", c.ID)
			}
		},
	})
	rs, pat := newRules(t, rulesA()...), nat.NewPAT(chance())
	var workers, others sync.WaitGroup
	for g := range 4 {
		workers.Go(func() {
			p := stack.NewPacket(256)
			// Two goroutines each share their flows, so that they race to open.
			for i := range 3000 {
				f := stack.Flow{Proto: stack.UDP,
					Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(50 + i%7)}), uint16(4000+i%90+1000*(g/2))),
					Dst: ap("198.51.100.7:53")}
				p.Reset()
				p.SetData(stack.AppendUDP(nil, f, []byte("x")))
				p.Parse()
				p.In, p.Time = inside, start.Add(time.Duration(i)*10*time.Millisecond)
				c, from := tab.Lookup(p)
				if c == nil {
					s, v := rs.Translate(inside, outside, f, nil, pat)
					if v != stack.Forward {
						t.Errorf("Translate(%v) = %v", f, v)
						return
					}
					if c, from, v = tab.Open(p, nat.Opening{Out: outside,
						Server: stack.Flow{Proto: f.Proto, Src: s.Mapped, Dst: f.Dst}, Source: s}); v != stack.Forward {
						t.Errorf("Open(%v) = %v", f, v)
						return
					}
				}
				if v := c.Handle(p, from); v != stack.Forward || p.Out != outside || p.Flow().Src.Addr() != patAddr {
					t.Errorf("Handle(%v) = %v, leaves as %v by %v", f, v, p.Flow(), p.Out)
					return
				}
				if i%11 == 0 {
					c.Close()
				}
			}
		})
	}
	done := make(chan struct{})
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				tab.Expire(start.Add(time.Duration(i%30) * time.Second))
			}
		}
	})
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				tab.Conns(func(c *nat.Conn) bool { c.Counters(nat.Client); c.Flags(); return true })
				tab.Xlates(rs)
			}
		}
	})
	workers.Wait()
	close(done)
	others.Wait()
	tab.Clear(func(*nat.Conn) bool { return true })
	if tab.Len() != 0 {
		t.Errorf("Len = %d in the end", tab.Len())
	}
	n := 0
	opened.Range(func(id, _ any) bool {
		n++
		if _, ok := closed.Load(id); !ok {
			t.Errorf("connection %d never closed", id)
		}
		return true
	})
	if n < 4*90 {
		t.Errorf("only %d connections opened", n)
	}
	for i := range 7 {
		for port := uint16(4000); port < 6000; port++ {
			a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(50 + i)}), port)
			if m, ok := pat.Lookup(stack.UDP, a, patAddr); ok {
				t.Fatalf("%v still has %v", a, m)
			}
		}
	}
}

// TestTableModel runs random opens, closes and lookups against a map.
func TestTableModel(t *testing.T) {
	rnd := newRand()
	tab := newTable(t, nat.TableConfig{})
	type at struct {
		in *stack.Interface
		f  stack.Flow
	}
	want := make(map[at]*nat.Conn)
	var conns []*nat.Conn
	for range 60_000 {
		f := stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(addr("198.51.100.7"), uint16(1024+rnd.IntN(3000))),
			Dst: netip.AddrPortFrom(addr("203.0.113.10"), uint16(5060+rnd.IntN(2)))}
		server := f
		server.Dst = netip.AddrPortFrom(addr("10.20.0.11"), 69) // some clash
		p := packet(t, outside, start, f, stack.TCPHeader{}, "")
		switch rnd.IntN(8) {
		case 0, 1, 2:
			c, _, v := tab.Open(p, nat.Opening{Out: inside, Server: server})
			old, other := want[at{outside, f}], want[at{inside, server.Reverse()}]
			switch {
			case old != nil:
				if c != old || v != stack.Forward {
					t.Fatalf("Open(%v) = %p, %v; want the old %p", f, c, v, old)
				}
			case other != nil:
				if v != stack.DropNAT {
					t.Fatalf("Open(%v) = %v, want %v", f, v, stack.DropNAT)
				}
			default:
				if v != stack.Forward {
					t.Fatalf("Open(%v) = %v", f, v)
				}
				want[at{outside, f}], want[at{inside, server.Reverse()}] = c, c
				conns = append(conns, c)
			}
		case 3, 4:
			if len(conns) == 0 {
				continue
			}
			i := rnd.IntN(len(conns))
			c := conns[i]
			conns[i] = conns[len(conns)-1]
			conns = conns[:len(conns)-1]
			delete(want, at{outside, c.Client()})
			delete(want, at{inside, c.Server().Reverse()})
			c.Close()
		default:
			if c, from := tab.Lookup(p); c != want[at{outside, f}] || c != nil && from != nat.Client {
				t.Fatalf("Lookup(%v) = %p, %v; want %p", f, c, from, want[at{outside, f}])
			}
			back := packet(t, inside, start, server.Reverse(), stack.TCPHeader{}, "")
			if c, from := tab.Lookup(back); c != want[at{inside, server.Reverse()}] || c != nil && from != nat.Server {
				t.Fatalf("Lookup(%v) = %p, %v; want %p", server.Reverse(), c, from, want[at{inside, server.Reverse()}])
			}
		}
		if tab.Len() != len(conns) {
			t.Fatalf("Len = %d, want %d", tab.Len(), len(conns))
		}
	}
	if len(conns) < 100 {
		t.Errorf("only %d connections in the end", len(conns))
	}
}

func TestNewTableWithoutChance(t *testing.T) {
	_, err := nat.NewTable(nat.TableConfig{Rand: strings.NewReader("short")})
	if err == nil || !strings.HasPrefix(err.Error(), "nat: table: ") {
		t.Errorf("NewTable = %v", err)
	}
}
