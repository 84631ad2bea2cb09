package nat_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/nat"
	"patchbay/stack"
)

// dynamicNAT is "nat (inside,outside) dynamic POOL interface" with a range of
// two addresses.
func dynamicNAT() nat.Rule {
	return nat.Rule{Name: "one-to-one", Real: inside, Mapped: outside, Kind: nat.Dynamic, Pool: nat.OneToOne,
		Source: subnet("10.20.0.0/24"), MappedSource: nat.Range(addr("203.0.113.40"), addr("203.0.113.41")), MappedInterface: true}
}

// first opens the connection of a first packet from inside, and returns it with
// what the server sees as its source.
func first(t testing.TB, tab *nat.Table, rs *nat.Rules, pat *nat.PAT, at time.Time, proto stack.Proto, src, dst string) (*nat.Conn, netip.AddrPort) {
	t.Helper()
	f := flow(proto, src, dst)
	var p *stack.Packet
	if proto == stack.TCP || proto == stack.UDP {
		p = packet(t, inside, at, f, stack.TCPHeader{Flags: syn}, "")
	} else {
		p = bare(t, inside, at, f)
	}
	s, v := rs.Translate(inside, outside, f, nil, pat)
	if v != stack.Forward {
		t.Fatalf("Translate(%v) = %v", f, v)
	}
	c, _, v := tab.Open(p, nat.Opening{Out: outside, Server: stack.Flow{Proto: proto, Src: s.Mapped, Dst: f.Dst}, Source: s})
	if v != stack.Forward {
		t.Fatalf("Open(%v) = %v", f, v)
	}
	return c, s.Mapped
}

// bare is a packet of a protocol without ports.
func bare(t testing.TB, in *stack.Interface, at time.Time, f stack.Flow) *stack.Packet {
	t.Helper()
	b := stack.AppendUDP(nil, f, []byte("payload"))
	sum := uint32(b[10])<<8 + uint32(b[11]) + uint32(b[9]) - uint32(f.Proto)
	b[9] = byte(f.Proto)
	sum = sum>>16 + sum&0xffff
	b[10], b[11] = byte(sum>>8), byte(sum)
	return parsed(t, in, at, b)
}

func TestDynamicNATOneToOne(t *testing.T) {
	rs := newRules(t, dynamicNAT())
	pat := nat.NewPAT(chance())
	tab := newTable(t, nat.TableConfig{PAT: pat, Timeouts: nat.Timeouts{
		UDP: time.Minute, Conn: time.Hour, Other: time.Minute, Embryonic: time.Minute, Xlate: 3 * time.Hour, PATXlate: 30 * time.Second}})

	a1, m1 := first(t, tab, rs, pat, start, stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060")
	a2, m2 := first(t, tab, rs, pat, start, stack.TCP, "10.20.0.60:80", "198.51.100.8:443")
	a3, m3 := first(t, tab, rs, pat, start, 50, "10.20.0.60:0", "198.51.100.9:0") // ESP
	_, m4 := first(t, tab, rs, pat, start, stack.UDP, "10.20.0.61:5060", "198.51.100.7:5060")
	b5, m5 := first(t, tab, rs, pat, start, stack.UDP, "10.20.0.62:5060", "198.51.100.7:5060")
	got := []netip.AddrPort{m1, m2, m3, m4, m5}
	want := []netip.AddrPort{ap("203.0.113.40:5060"), ap("203.0.113.40:80"), ap("203.0.113.40:0"), ap("203.0.113.41:5060"), ap("203.0.113.2:5060")}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Fatalf("mapped (-want +got):\n%s", diff)
	}
	if _, v := rs.Translate(inside, outside, flow(50, "10.20.0.62:0", "198.51.100.9:0"), nil, pat); v != stack.DropNAT {
		t.Errorf("ESP with only the interface left: %v, want %v", v, stack.DropNAT)
	}
	if in, out := pat.Len(); in != 3 || out != 0 {
		t.Errorf("Len() = %d, %d; want 3 in use", in, out)
	}
	var flags []string
	for _, x := range tab.Xlates(rs) {
		flags = append(flags, x.Flags())
	}
	if diff := cmp.Diff([]string{"i", "i", "ri"}, flags); diff != "" {
		t.Errorf("flags of xlates (-want +got):\n%s", diff)
	}

	// The ESP of the server comes back to the host, by addresses alone.
	back := bare(t, outside, start, flow(50, "198.51.100.9:0", "203.0.113.40:0"))
	if c, from := tab.Lookup(back); c != a3 || from != nat.Server || c.Handle(back, from) != stack.Forward || back.Flow().Dst != ap("10.20.0.60:0") {
		t.Errorf("ESP back: %v of %p, becomes %v", from, c, back.Flow())
	}

	// The address stays with its host for "timeout xlate".
	a1.Close()
	a2.Close()
	a3.Close()
	if m, ok := pat.LookupAddr(addr("10.20.0.60"), dynamicNAT().MappedSource); !ok || m != addr("203.0.113.40") {
		t.Errorf("LookupAddr after Close = %v, %v", m, ok)
	}
	tab.Expire(start.Add(time.Hour))
	if s, v := rs.Translate(inside, outside, flow(stack.UDP, "10.20.0.70:1", "198.51.100.7:1"), nil, pat); v != stack.Forward || s.Mapped.Addr() != patAddr && s.Mapped.Addr() != addr("203.0.113.41") {
		t.Errorf("another host while the address lingers = %v, %v", s.Mapped, v)
	} else {
		s.Lease.Release()
	}
	_, m := first(t, tab, rs, pat, start.Add(time.Hour), stack.UDP, "10.20.0.60:1", "198.51.100.7:1")
	if m != ap("203.0.113.40:1") {
		t.Errorf("the same host = %v", m)
	}
	b5.Close()
	for _, h := range []int{2, 6, 7} {
		tab.Expire(start.Add(time.Duration(h) * time.Hour))
	}
	if in, out := pat.Len(); tab.Len() != 0 || in != 0 || out != 0 {
		t.Errorf("in the end %d connections, %d and %d xlates", tab.Len(), in, out)
	}
	l, ok := pat.TakeAddr(addr("10.20.0.99"), dynamicNAT().MappedSource, func(a netip.Addr) bool { return a == addr("203.0.113.41") })
	if !ok || l.Mapped().Addr() != addr("203.0.113.40") {
		t.Errorf("TakeAddr with one held back = %v, %v", l.Mapped(), ok)
	}
	if l, ok := pat.TakeAddr(addr("10.20.0.98"), dynamicNAT().MappedSource, func(a netip.Addr) bool { return a == addr("203.0.113.41") }); ok {
		t.Errorf("TakeAddr with none left = %v", l.Mapped())
	}
}

func TestDynamicNATAvoidsStatic(t *testing.T) {
	rs := newRules(t, dynamicNAT(), nat.Rule{Name: "server", Real: inside, Mapped: outside,
		Source: host("10.20.0.11"), MappedSource: host("203.0.113.40")})
	s, v := rs.Translate(inside, outside, flow(stack.UDP, "10.20.0.60:1", "198.51.100.7:1"), nil, nat.NewPAT(chance()))
	if v != stack.Forward || s.Mapped != ap("203.0.113.41:1") {
		t.Errorf("Translate = %v, %v; want 203.0.113.41, for 203.0.113.40 is a server's", s.Mapped, v)
	}
}

func TestPATLingers(t *testing.T) {
	rs := newRules(t, rulesA()...)
	pat := nat.NewPAT(chance())
	tab := newTable(t, nat.TableConfig{PAT: pat})
	c, m := first(t, tab, rs, pat, start, stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060")
	if m != ap("203.0.113.2:5060") {
		t.Fatalf("mapped to %v", m)
	}
	c.Close()
	other := func() netip.AddrPort {
		s, _ := rs.Translate(inside, outside, flow(stack.UDP, "10.20.0.61:5060", "198.51.100.7:5060"), nil, pat)
		s.Lease.Release()
		return s.Mapped
	}
	if got := other(); got == m {
		t.Errorf("port given to another at once")
	}
	xs := tab.Xlates(rs)
	if last := xs[len(xs)-2]; last.Real != ap("10.20.0.60:5060") || last.Conns != 0 || last.Until.Sub(start) != 30*time.Second || last.Flags() != "ri" {
		t.Errorf("Xlates: %+v with flags %q, want one that lingers for 30 s", last, last.Flags())
	}
	// Its own end comes back to it, and the wait begins anew.
	c, again := first(t, tab, rs, pat, start.Add(20*time.Second), stack.UDP, "10.20.0.60:5060", "198.51.100.9:5060")
	if again != m {
		t.Errorf("the same end gets %v, had %v", again, m)
	}
	c.Close()
	tab.Expire(start.Add(40 * time.Second))
	if _, n := pat.Len(); n != 1 {
		t.Errorf("%d linger after 20 s, want 1", n)
	}
	tab.Expire(start.Add(51 * time.Second))
	if got := other(); got != m {
		t.Errorf("after pat-xlate another gets %v, want %v", got, m)
	}
	if n := pat.Flush(); n != 1 {
		t.Errorf("Flush() = %d, want 1", n)
	}
	if in, n := pat.Len(); in != 0 || n != 0 {
		t.Errorf("after Flush %d and %d", in, n)
	}
}

func TestPATPool(t *testing.T) {
	rule := nat.Rule{Name: "pool", Real: inside, Mapped: outside, Kind: nat.Dynamic, Pool: nat.PATRoundRobin,
		MappedSource: nat.Range(addr("203.0.113.40"), addr("203.0.113.42"))}
	tests := []struct {
		name string
		use  nat.PoolUse
		want []string // for the sources below
	}{
		{"in order", nat.PATInOrder, []string{"203.0.113.40:5060", "203.0.113.40:5061", "203.0.113.40:7000", "203.0.113.40:5062", "203.0.113.40:5063"}},
		{"round robin", nat.PATRoundRobin, []string{"203.0.113.40:5060", "203.0.113.41:5061", "203.0.113.40:7000", "203.0.113.42:5062", "203.0.113.40:5063"}},
	}
	sources := []string{"10.20.0.60:5060", "10.20.0.61:5061", "10.20.0.60:7000", "10.20.0.62:5062", "10.20.0.63:5063"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rule.Pool = tt.use
			rs, pat := newRules(t, rule), nat.NewPAT(chance())
			var leases []nat.Lease
			for i, src := range sources {
				s, v := rs.Translate(inside, outside, flow(stack.UDP, src, "198.51.100.7:53"), nil, pat)
				if v != stack.Forward || s.Mapped != ap(tt.want[i]) {
					t.Errorf("%s becomes %v, %v; want %s", src, s.Mapped, v, tt.want[i])
				}
				leases = append(leases, s.Lease)
			}
			for _, l := range leases {
				l.Release()
			}
			if in, n := pat.Len(); in != 0 || n != 0 {
				t.Errorf("%d and %d are left", in, n)
			}
			// With all ports gone the host is bound to no address.
			if s, v := rs.Translate(inside, outside, flow(stack.UDP, "10.20.0.60:1", "198.51.100.7:53"), nil, pat); v != stack.Forward ||
				tt.use == nat.PATRoundRobin && s.Mapped != ap("203.0.113.41:1") {
				t.Errorf("after Release: %v, %v", s.Mapped, v)
			}
		})
	}
}

// TestICMPErrorThroughPAT sends an error about a packet of each end through PAT,
// from a router and from the end itself.
func TestICMPErrorThroughPAT(t *testing.T) {
	rs, pat := newRules(t, rulesA()...), nat.NewPAT(chance())
	tab := newTable(t, nat.TableConfig{})
	first(t, tab, rs, pat, start, stack.UDP, "10.20.0.61:5060", "198.51.100.9:5060") // has the port already
	c, m := first(t, tab, rs, pat, start, stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060")
	if m.Port() == 5060 {
		t.Fatal("no port translation")
	}
	tests := []struct {
		name     string
		in, out  *stack.Interface
		quoted   stack.Flow // as it left the box
		router   string
		src, dst string     // of the error as it leaves
		client   stack.Flow // what it quotes then
	}{
		{"router outside", outside, inside, c.Server(), "192.0.2.1", "192.0.2.1", "10.20.0.60", c.Client()},
		{"server itself", outside, inside, c.Server(), "198.51.100.7", "198.51.100.7", "10.20.0.60", c.Client()},
		{"router inside", inside, outside, c.Client().Reverse(), "10.20.0.254", "203.0.113.2", "198.51.100.7", c.Server().Reverse()},
		{"client itself", inside, outside, c.Client().Reverse(), "10.20.0.60", "203.0.113.2", "198.51.100.7", c.Server().Reverse()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := packet(t, tt.in, start, tt.quoted, stack.TCPHeader{}, "hello")
			p := parsed(t, tt.in, start, stack.AppendICMPError(nil, q, addr(tt.router), 3, 3, 0))
			got, from := tab.LookupQuoted(p)
			if got != c {
				t.Fatalf("LookupQuoted finds %p, want %p", got, c)
			}
			if v := c.HandleError(p, from); v != stack.Forward {
				t.Fatalf("HandleError = %v", v)
			}
			p = parsed(t, p.Out, start, p.Data()) // its checksums are right
			inner, ok := p.Quoted()
			if p.In != tt.out || p.Flow().Src.Addr() != addr(tt.src) || p.Flow().Dst.Addr() != addr(tt.dst) || !ok || inner != tt.client {
				t.Errorf("error from %v to %v by %v about %v; want %s to %s by %v about %v",
					p.Flow().Src, p.Flow().Dst, p.In, inner, tt.src, tt.dst, tt.out, tt.client)
			}
		})
	}
}
