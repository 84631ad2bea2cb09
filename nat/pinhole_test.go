package nat_test

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// claim claims p, handles it, and returns how it leaves and why.
func claim(t testing.TB, tab *nat.Table, p *stack.Packet) string {
	t.Helper()
	c, from := tab.Claim(p)
	if c == nil {
		return "no pinhole"
	}
	if v := c.Handle(p, from); v != stack.Forward {
		return v.String()
	}
	return fmt.Sprintf("%s: %v by %v", c.Reason, p.Flow(), p.Out)
}

func TestPinholeSpecificity(t *testing.T) {
	mta := "203.0.113.20:20000"
	hole := func(name string, in *stack.Interface, src netip.AddrPort) nat.Pinhole {
		return nat.Pinhole{In: in, Match: stack.Flow{Proto: stack.UDP, Src: src, Dst: ap(mta)}, Out: inside, Reason: name,
			To: stack.Flow{Dst: ap("10.20.0.11:30000")}}
	}
	none := netip.AddrPort{}
	host := netip.AddrPortFrom(addr("198.51.100.7"), 0)
	port := netip.AddrPortFrom(netip.Addr{}, 5000)
	// Narrower ones last, so that their place in time does not help them.
	holes := []nat.Pinhole{
		hole("any", nil, none), hole("any again", nil, none), hole("any on outside", outside, none),
		hole("port", nil, port), hole("host", nil, host), hole("host on dmz", dmz, host),
		hole("exact", nil, ap("198.51.100.7:5000")),
	}
	tests := []struct {
		in   *stack.Interface
		src  string
		want string
	}{
		{outside, "198.51.100.7:5000", "exact"},
		{outside, "198.51.100.7:5001", "host"},
		{dmz, "198.51.100.7:5001", "host on dmz"},
		{outside, "198.51.100.8:5000", "port"},
		{outside, "198.51.100.8:5001", "any on outside"},
		{inside, "198.51.100.8:5001", "any"},
	}
	for _, tt := range tests {
		tab := newTable(t, nat.TableConfig{})
		for _, h := range holes {
			tab.Expect(h)
		}
		want := fmt.Sprintf("%s: udp %s -> 10.20.0.11:30000 by inside", tt.want, tt.src)
		if got := claim(t, tab, udp(t, tt.in, start, tt.src, mta)); got != want {
			t.Errorf("from %s on %v: %s, want %s", tt.src, tt.in, got, want)
		}
		if n := tab.Pinholes(); n != len(holes)-1 {
			t.Errorf("%d pinholes left, want %d", n, len(holes)-1)
		}
	}
	// All are used up by packets of different sources, in order of rank.
	tab := newTable(t, nat.TableConfig{})
	for _, h := range holes {
		tab.Expect(h)
	}
	for i, name := range []string{"any on outside", "any", "any again", ""} {
		src := fmt.Sprintf("198.51.100.9:%d", 6000+i)
		want := fmt.Sprintf("%s: udp %s -> 10.20.0.11:30000 by inside", name, src)
		if name == "" {
			want = "no pinhole"
		}
		if got := claim(t, tab, udp(t, outside, start, src, mta)); got != want {
			t.Errorf("packet %d: %s, want %s", i, got, want)
		}
	}
}

func TestPinholeOpensConnection(t *testing.T) {
	w := &watcher{verdict: stack.Forward}
	route := func(dst netip.Addr) *stack.Interface {
		if inside.Addr.Contains(dst) {
			return inside
		}
		return nil
	}
	tests := []struct {
		name        string
		out         *stack.Interface
		to          stack.Flow
		there, back string
	}{
		{"as it came", outside, stack.Flow{}, "udp 198.51.100.7:5000 -> 203.0.113.20:20000", "udp 203.0.113.20:20000 -> 198.51.100.7:5000"},
		{"to a host", nil, stack.Flow{Dst: ap("10.20.0.60:0")},
			"udp 198.51.100.7:5000 -> 10.20.0.60:20000", "udp 203.0.113.20:20000 -> 198.51.100.7:5000"},
		{"from a port", inside, stack.Flow{Src: netip.AddrPortFrom(netip.Addr{}, 7000), Dst: ap("10.20.0.60:30000")},
			"udp 198.51.100.7:7000 -> 10.20.0.60:30000", "udp 203.0.113.20:20000 -> 198.51.100.7:5000"},
		{"all of it", nil, flow(stack.UDP, "10.20.0.20:40000", "10.20.0.60:30000"),
			"udp 10.20.0.20:40000 -> 10.20.0.60:30000", "udp 203.0.113.20:20000 -> 198.51.100.7:5000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.packets = 0
			tab := newTable(t, nat.TableConfig{Route: route})
			h := tab.Expect(nat.Pinhole{
				Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:20000")}, Out: tt.out, To: tt.to,
				Handler: w, Idle: 7 * time.Second, Mark: "m", Reason: "RTP",
			})
			p := udp(t, outside, start, "198.51.100.7:5000", "203.0.113.20:20000")
			out := tt.out
			if out == nil {
				out = inside
			}
			if got, want := claim(t, tab, p), fmt.Sprintf("RTP: %s by %v", tt.there, out); got != want {
				t.Fatalf("first packet: %s, want %s", got, want)
			}
			back := packet(t, out, start, p.Flow().Reverse(), stack.TCPHeader{}, "")
			if got, want := send(t, tab, back), tt.back+" by outside"; got != want {
				t.Errorf("answer: %s, want %s", got, want)
			}
			c := h.Conn()
			if c == nil || c.Hole != h || c.Timeout() != 7*time.Second || c.Flags() != "m" || w.packets != 2 || h.Open() {
				t.Fatalf("connection %+v, %d packets, open %v", c, w.packets, h.Open())
			}
			if tab.Pinholes() != 0 || tab.Len() != 1 {
				t.Errorf("%d pinholes, %d connections", tab.Pinholes(), tab.Len())
			}
			h.Close()
			if c.Closed() {
				t.Error("closing a used pinhole closed the connection")
			}
			if rs := newRules(t); !rs.Keeps(c) {
				t.Error("Keeps refuses a pinhole's connection")
			}
		})
	}
}

func TestPinholeRefuses(t *testing.T) {
	match := flow(stack.UDP, "198.51.100.7:5000", "203.0.113.20:20000")
	p := func() *stack.Packet { return packet(t, outside, start, match, stack.TCPHeader{}, "") }

	tab := newTable(t, nat.TableConfig{})
	h := tab.Expect(nat.Pinhole{Match: match})
	if got := claim(t, tab, p()); got != stack.DropNoRoute.String() || !h.Open() {
		t.Errorf("without a route: %s, open %v", got, h.Open())
	}

	tab = newTable(t, nat.TableConfig{MaxConns: 1})
	h = tab.Expect(nat.Pinhole{Match: match, Out: inside})
	other := udp(t, outside, start, "198.51.100.8:1", "10.20.0.11:69")
	c := open(t, tab, other, inside, other.Flow())
	if got := claim(t, tab, p()); got != stack.DropLimit.String() || !h.Open() {
		t.Errorf("at the limit: %s, open %v", got, h.Open())
	}
	c.Close()
	if got := claim(t, tab, p()); got != ": "+match.String()+" by inside" {
		t.Errorf("below the limit: %s", got)
	}

	tab = newTable(t, nat.TableConfig{})
	tcp := match
	tcp.Proto = stack.TCP
	h = tab.Expect(nat.Pinhole{Match: tcp, Out: inside})
	if got := claim(t, tab, packet(t, outside, start, tcp, stack.TCPHeader{Flags: ack}, "")); got != stack.DropTCPNotSYN.String() || !h.Open() {
		t.Errorf("TCP without SYN: %s, open %v", got, h.Open())
	}

	for _, bad := range []nat.Pinhole{
		{Match: stack.Flow{Dst: match.Dst}},
		{Match: stack.Flow{Proto: stack.UDP}},
		{Match: match, Standing: true},
	} {
		h := tab.Expect(bad)
		if h.Open() {
			t.Errorf("Expect(%+v) is open", bad)
		}
		h.Close()
	}

	tab = newTable(t, nat.TableConfig{MaxPinholes: 1})
	a, b := tab.Expect(nat.Pinhole{Match: match, Out: inside}), tab.Expect(nat.Pinhole{Match: match, Out: inside})
	if !a.Open() || b.Open() || tab.Pinholes() != 1 {
		t.Errorf("at the limit of pinholes: open %v and %v, %d", a.Open(), b.Open(), tab.Pinholes())
	}
}

func TestPinholeExpires(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	w := &watcher{verdict: stack.Forward}
	match := stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:20000")}
	at := func(d time.Duration) *stack.Packet {
		return udp(t, outside, start.Add(d), fmt.Sprintf("198.51.100.7:%d", 5000+d/time.Second), "203.0.113.20:20000")
	}
	for _, standing := range []bool{false, true} {
		h := tab.Expect(nat.Pinhole{Match: match, Out: inside, Handler: w, Standing: standing, Expires: start.Add(10 * time.Second)})
		forever := tab.Expect(nat.Pinhole{Match: match, Out: inside, Handler: w, Standing: standing, Reason: "forever"})
		if c, _ := tab.Claim(at(10*time.Second + 1)); c != forever.Conn() {
			t.Errorf("standing %v: too late, yet claimed", standing)
		}
		if !h.Open() {
			t.Errorf("standing %v: closed before Expire", standing)
		}
		tab.Expire(start.Add(10 * time.Second))
		if !h.Open() {
			t.Errorf("standing %v: closed too early", standing)
		}
		tab.Expire(start.Add(10*time.Second + 1))
		if h.Open() || standing && !h.Conn().Closed() {
			t.Errorf("standing %v: open after Expire", standing)
		}
		h.Close()
		forever.Close()
		if tab.Pinholes() != 0 {
			t.Errorf("standing %v: %d pinholes left", standing, tab.Pinholes())
		}
	}
	if len(w.closed) != 2 {
		t.Errorf("%d endpoints closed, want 2", len(w.closed))
	}
}

// leg is a Handler for Standing pinholes: it sends all packets to one place.
type leg struct {
	to      stack.Flow
	packets atomic.Uint64
}

func (l *leg) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	l.packets.Add(1)
	p.SetFlow(l.to)
	return stack.Forward
}

func TestStanding(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	l := &leg{to: flow(stack.UDP, "10.20.0.20:20002", "10.20.0.60:30000")}
	h := tab.Expect(nat.Pinhole{
		In: outside, Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:20000")}, Out: inside,
		Handler: l, Standing: true, Reason: "SRTP SEP020000000001", Mark: "m",
	})
	routed := tab.Expect(nat.Pinhole{
		Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:20002")}, Handler: l, Standing: true,
	})
	for i := range 100 {
		p := udp(t, outside, start.Add(time.Duration(i)*time.Second), fmt.Sprintf("198.51.100.%d:5000", i), "203.0.113.20:20000")
		if got, want := claim(t, tab, p), "SRTP SEP020000000001: udp 10.20.0.20:20002 -> 10.20.0.60:30000 by inside"; got != want {
			t.Fatalf("packet %d: %s, want %s", i, got, want)
		}
	}
	c := h.Conn()
	if n, b := c.Counters(nat.Client); n != 100 || b != 500 || l.packets.Load() != 100 {
		t.Errorf("%d packets, %d bytes, %d handled", n, b, l.packets.Load())
	}
	if !c.Seen().Equal(start.Add(99*time.Second)) || tab.Len() != 0 || c.ID != 0 || c.Flags() != "m" || c.Timeout() != 0 {
		t.Errorf("seen %v, Len %d, ID %d, flags %q, timeout %v", c.Seen(), tab.Len(), c.ID, c.Flags(), c.Timeout())
	}
	if got := claim(t, tab, udp(t, inside, start, "198.51.100.7:5000", "203.0.113.20:20000")); got != "no pinhole" {
		t.Errorf("on another interface: %s", got)
	}
	if got := claim(t, tab, udp(t, outside, start, "198.51.100.7:5000", "203.0.113.20:20002")); got != ": udp 10.20.0.20:20002 -> 10.20.0.60:30000 by none" {
		t.Errorf("without Out: %s", got)
	}
	n := 0
	tab.Holes(func(*nat.Hole) bool { n++; return true })
	if n != 2 || tab.Pinholes() != 2 {
		t.Errorf("%d and %d pinholes, want 2", n, tab.Pinholes())
	}
	h.Close()
	h.Close()
	routed.Close()
	if !c.Closed() || tab.Pinholes() != 0 {
		t.Errorf("after Close: closed %v, %d pinholes", c.Closed(), tab.Pinholes())
	}
	if got := claim(t, tab, udp(t, outside, start, "198.51.100.7:5000", "203.0.113.20:20000")); got != "no pinhole" {
		t.Errorf("after Close: %s", got)
	}
}

// TestPinholesConcurrent books, claims and closes pinholes from several
// goroutines; each is used once at most.
func TestPinholesConcurrent(t *testing.T) {
	tab := newTable(t, nat.TableConfig{})
	l := &leg{to: flow(stack.UDP, "10.20.0.20:20002", "10.20.0.60:30000")}
	var booked, used, never atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				dst := netip.AddrPortFrom(addr("203.0.113.20"), uint16(20000+i%10))
				if g%2 == 0 {
					h := tab.Expect(nat.Pinhole{Match: stack.Flow{Proto: stack.UDP, Dst: dst}, Out: inside,
						To: stack.Flow{Dst: ap("10.20.0.60:30000")}, Expires: start.Add(time.Minute)})
					booked.Add(1)
					s := tab.Expect(nat.Pinhole{Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:30000")}, Out: inside,
						Handler: l, Standing: true})
					if i%3 == 0 {
						h.Close()
						if h.Conn() == nil {
							never.Add(1)
						}
					}
					s.Close()
					continue
				}
				p := udp(t, outside, start, fmt.Sprintf("198.51.100.%d:%d", g, 1024+i), dst.String())
				if c, from := tab.Claim(p); c != nil {
					if v := c.Handle(p, from); v != stack.Forward {
						t.Errorf("Handle = %v", v)
					}
					used.Add(1)
				}
				q := udp(t, outside, start, fmt.Sprintf("198.51.100.%d:%d", g, 1024+i), "203.0.113.20:30000")
				if c, from := tab.Claim(q); c != nil && c.Handle(q, from) != stack.Forward {
					t.Error("the endpoint drops")
				}
			}
		})
	}
	wg.Wait()
	if int(used.Load()) != tab.Len() {
		t.Errorf("%d pinholes used, %d connections", used.Load(), tab.Len())
	}
	tab.Expire(start.Add(time.Hour))
	tab.Expire(start.Add(time.Hour))
	if tab.Pinholes() != 0 || tab.Len() != 0 {
		t.Errorf("%d pinholes and %d connections in the end", tab.Pinholes(), tab.Len())
	}
	if booked.Load() != 1000 || used.Load() > 1000 {
		t.Errorf("%d booked, %d used, %d closed unused", booked.Load(), used.Load(), never.Load())
	}
}
