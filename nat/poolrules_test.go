package nat_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/nat"
	"patchbay/stack"
)

// poolRule is "nat (inside,outside) source dynamic any pat-pool POOL".
func poolRule(edit func(r *nat.Rule)) nat.Rule {
	r := nat.Rule{Name: "pool", Real: inside, Mapped: outside, Kind: nat.Dynamic, Source: subnet("10.20.0.0/24"), MappedSource: host("203.0.113.40")}
	edit(&r)
	return r
}

// give translates the first packet of a flow from inside, "" if it cannot.
func give(t *testing.T, rs *nat.Rules, pat *nat.PAT, f stack.Flow) (string, nat.Lease) {
	t.Helper()
	s, v := rs.Translate(inside, outside, f, nil, pat)
	switch v {
	case stack.Forward:
		return s.Mapped.String(), s.Lease
	case stack.DropNAT:
		return "", nat.Lease{}
	}
	t.Fatalf("Translate(%v) = %v", f, v)
	return "", nat.Lease{}
}

// A port that is taken for one peer is not given to an end that has it for
// every peer, nor the other way round.
func TestExtendedBesidePlain(t *testing.T) {
	extended := newRules(t, poolRule(func(r *nat.Rule) { r.Extended = true }))
	plain := newRules(t, poolRule(func(*nat.Rule) {}))
	pat := nat.NewPAT(chance())
	one, l1 := give(t, extended, pat, flow(stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060"))
	two, l2 := give(t, extended, pat, flow(stack.UDP, "10.20.0.61:5060", "198.51.100.8:5060"))
	if one != "203.0.113.40:5060" || two != one {
		t.Fatalf("extended: %s and %s, want the same port for two peers", one, two)
	}
	three, l3 := give(t, plain, pat, flow(stack.UDP, "10.20.0.62:5060", "198.51.100.9:5060"))
	if three == one || three == "" {
		t.Errorf("a port that is taken for some peers given to an end for all: %q", three)
	}
	l1.Release()
	four, l4 := give(t, plain, pat, flow(stack.UDP, "10.20.0.63:5060", "198.51.100.9:5060"))
	if four == one {
		t.Errorf("the port of one peer is given to all while it is another's")
	}
	l2.Release()
	five, l5 := give(t, plain, pat, flow(stack.UDP, "10.20.0.64:5060", "198.51.100.9:5060"))
	if five != one {
		t.Errorf("the port that nobody has any more: %s, want %s", five, one)
	}
	six, l6 := give(t, extended, pat, flow(stack.UDP, "10.20.0.65:5060", "198.51.100.7:5060"))
	if six == one || six == "" {
		t.Errorf("a port that an end has for all given for one peer: %q", six)
	}
	for _, l := range []nat.Lease{l3, l4, l5, l6} {
		l.Release()
	}
	if in, out := pat.Len(); in+out != 0 {
		t.Errorf("in the end %d and %d leases", in, out)
	}
}

// TestFlat: where a port that is taken is replaced from.
func TestFlat(t *testing.T) {
	for _, tt := range []struct {
		name    string
		edit    func(r *nat.Rule)
		port    uint16
		in      nat.PortRange
		below1k bool // some are
	}{
		{"not flat", func(*nat.Rule) {}, 600, nat.PortRange{From: 512, To: 1023}, true},
		{"flat", func(r *nat.Rule) { r.Flat = true }, 600, nat.PortRange{From: 1024, To: 65535}, false},
		{"flat, high port", func(r *nat.Rule) { r.Flat = true }, 5060, nat.PortRange{From: 1024, To: 65535}, false},
		{"include-reserve", func(r *nat.Rule) { r.Flat, r.IncludeReserve = true, true }, 5060, nat.PortRange{From: 1, To: 65535}, true},
	} {
		rs, pat := newRules(t, poolRule(tt.edit)), nat.NewPAT(chance())
		below := false
		for i := range 500 {
			real := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(i)}), tt.port)
			if i > 255 {
				real = netip.AddrPortFrom(real.Addr(), tt.port+1)
			}
			s, v := rs.Translate(inside, outside, stack.Flow{Proto: stack.UDP, Src: real, Dst: ap("198.51.100.7:53")}, nil, pat)
			if v != stack.Forward {
				t.Fatalf("%s: packet %d: %v", tt.name, i, v)
			}
			p := s.Mapped.Port()
			if i == 0 && p != tt.port {
				t.Errorf("%s: a free port was not kept: %d became %d", tt.name, tt.port, p)
			}
			if i > 0 && p != real.Port() && !tt.in.Contains(p) {
				t.Fatalf("%s: %d became %d, which is not of %v", tt.name, real.Port(), p, tt.in)
			}
			below = below || i > 0 && p < 1024 && p != real.Port()
		}
		if below != tt.below1k {
			t.Errorf("%s: ports below 1024 given: %v, want %v", tt.name, below, tt.below1k)
		}
	}
}

// Ranges one after the other, then single addresses' ports, then the interface.
func TestOneToOneThenPorts(t *testing.T) {
	rs := newRules(t, poolRule(func(r *nat.Rule) {
		r.Pool, r.MappedInterface = nat.OneToOne, true
		r.MappedSource = nat.Range(addr("203.0.113.40"), addr("203.0.113.41"))
		r.More = []nat.Object{nat.Range(addr("203.0.113.50"), addr("203.0.113.51"))}
		r.Overload = []nat.Object{host("203.0.113.60"), host("203.0.113.61")}
	}), nat.Rule{Name: "static", Real: inside, Mapped: outside, Source: host("10.20.0.200"), MappedSource: host("203.0.113.50")})
	pat := nat.NewPAT(chance())
	ask := func(host byte, port uint16) string {
		s, _ := give(t, rs, pat, stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, host}), port), Dst: ap("198.51.100.7:53")})
		return s
	}
	var got []string
	for h := range byte(5) {
		got = append(got, ask(h, 99))
	}
	want := []string{"203.0.113.40:99", "203.0.113.41:99", "203.0.113.51:99", "203.0.113.60:99", "203.0.113.60:"} // .50 is a static rule's
	if !strings.HasPrefix(got[4], want[4]) || got[4] == got[3] {
		t.Errorf("the second at the single address has %s", got[4])
	}
	if diff := cmp.Diff(want[:4], got[:4]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a := ask(2, 5060); a != "203.0.113.51:5060" {
		t.Errorf("another connection of the third host has %s", a)
	}
	for port := range uint16(511) { // all the low ones of both single addresses
		ask(100, port+1)
		ask(101, port+1)
	}
	if a := ask(102, 300); a != "203.0.113.2:300" {
		t.Errorf("when all is used up: %s, want the interface", a)
	}
	if s, v := rs.Translate(inside, outside, flow(50, "10.20.0.102:0", "198.51.100.9:0"), nil, pat); v != stack.DropNAT {
		t.Errorf("ESP when all is used up = %v, %v", s.Mapped, v)
	}
}

// What was leased for a packet that is dropped after all is free at once; what
// lingered before goes on to.
func TestCancel(t *testing.T) {
	rs := newRules(t, poolRule(func(*nat.Rule) {}))
	whole := newRules(t, poolRule(func(r *nat.Rule) {
		r.Pool, r.MappedSource = nat.OneToOne, nat.Range(addr("203.0.113.50"), addr("203.0.113.51"))
	}))
	pat := nat.NewPAT(chance())
	pat.SetTimeouts(nat.DefaultTimeouts())
	f := flow(stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060")
	for _, rs := range []*nat.Rules{rs, whole} {
		_, l := give(t, rs, pat, f)
		l.Cancel()
		if in, out := pat.Len(); in != 0 || out != 0 {
			t.Errorf("after Cancel %d in use, %d linger", in, out)
		}
		_, l = give(t, rs, pat, f)
		_, again := give(t, rs, pat, f)
		again.Cancel()
		if in, out := pat.Len(); in != 1 || out != 0 {
			t.Errorf("after Cancel of the second %d in use, %d linger", in, out)
		}
		l.Release()
		_, again = give(t, rs, pat, f)
		again.Cancel()
		if in, out := pat.Len(); in != 0 || out != 1 {
			t.Errorf("after Cancel of one that lingered %d in use, %d linger", in, out)
		}
		pat.Flush()
	}
	// A Table that cannot open a connection cancels.
	tab := newTable(t, nat.TableConfig{PAT: pat, MaxConns: 1})
	first(t, tab, rs, pat, start, stack.UDP, "10.20.0.60:5060", "198.51.100.7:5060")
	s, v := rs.Translate(inside, outside, flow(stack.UDP, "10.20.0.61:5060", "198.51.100.7:5060"), nil, pat)
	if v != stack.Forward {
		t.Fatal(v)
	}
	p := packet(t, inside, start, flow(stack.UDP, "10.20.0.61:5060", "198.51.100.7:5060"), stack.TCPHeader{}, "")
	if _, _, v := tab.Open(p, nat.Opening{Out: outside, Server: stack.Flow{Proto: stack.UDP, Src: s.Mapped, Dst: ap("198.51.100.7:5060")}, Source: s}); v != stack.DropLimit {
		t.Errorf("Open past the limit: %v", v)
	}
	if in, out := pat.Len(); in != 1 || out != 0 {
		t.Errorf("after a refused connection %d in use, %d linger; want 1, 0", in, out)
	}
}

// Limits of a rule count each host behind it, of both ends, until the last
// connection is gone, and a new table of rules goes on counting.
func TestHostLimits(t *testing.T) {
	limited := func() []nat.Rule {
		l := &nat.HostLimits{TCP: 2, UDP: 1, Embryonic: 1}
		return []nat.Rule{
			{Name: "a", Real: inside, Mapped: outside, Source: host("10.20.0.11"), MappedSource: host("203.0.113.11"), Limits: l},
			{Name: "b", Real: inside, Mapped: outside, Source: host("10.20.0.12"), MappedSource: host("203.0.113.12"), Limits: l},
		}
	}
	rs := newRules(t, limited()...)
	tab := newTable(t, nat.TableConfig{})
	open := func(in *stack.Interface, proto stack.Proto, src, dst string) (*nat.Conn, stack.Verdict) {
		t.Helper()
		f := flow(proto, src, dst)
		p := packet(t, in, start, f, stack.TCPHeader{Flags: syn, Seq: 1}, "")
		out := inside
		if in == inside {
			out = outside
		}
		real, un, _ := rs.Untranslate(in, f)
		f.Dst = real
		s, v := rs.Translate(in, out, f, un, nil)
		if v != stack.Forward {
			t.Fatal(v)
		}
		c, _, v := tab.Open(p, nat.Opening{Out: out, Server: stack.Flow{Proto: proto, Src: s.Mapped, Dst: real}, UnRule: un, Source: s})
		if c != nil {
			c.Handle(p, nat.Client)
		}
		return c, v
	}
	up := func(c *nat.Conn) {
		c.Handle(packet(t, c.Out, start, c.Server().Reverse(), stack.TCPHeader{Flags: syn | ack, Seq: 50, Ack: 2}, ""), nat.Server)
		c.Handle(packet(t, c.In, start, c.Client(), stack.TCPHeader{Flags: ack, Seq: 2, Ack: 51}, ""), nat.Client)
	}
	expect := func(want, got stack.Verdict, what string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	a1, v := open(outside, stack.TCP, "198.51.100.7:4000", "203.0.113.11:80")
	expect(stack.Forward, v, "first")
	_, v = open(outside, stack.TCP, "198.51.100.8:4000", "203.0.113.11:80")
	expect(stack.DropEmbryonic, v, "a second half-open one")
	_, v = open(outside, stack.TCP, "198.51.100.8:4000", "203.0.113.12:80")
	expect(stack.Forward, v, "of another host")
	up(a1)
	a2, v := open(inside, stack.TCP, "10.20.0.11:4000", "198.51.100.9:80")
	expect(stack.Forward, v, "that the host opens, when the first is up")
	up(a2)
	_, v = open(outside, stack.TCP, "198.51.100.8:4001", "203.0.113.11:80")
	expect(stack.DropLimit, v, "a third of TCP")

	now := newRules(t, limited()...)
	now.Inherit(rs)
	rs = now
	_, v = open(outside, stack.TCP, "198.51.100.8:4001", "203.0.113.11:80")
	expect(stack.DropLimit, v, "the same with new rules")
	a1.Close()
	_, v = open(outside, stack.TCP, "198.51.100.8:4001", "203.0.113.11:80")
	expect(stack.Forward, v, "when one has ended")
	_, v = open(outside, stack.UDP, "198.51.100.7:4000", "203.0.113.11:53")
	expect(stack.Forward, v, "UDP")
	_, v = open(outside, stack.UDP, "198.51.100.8:4000", "203.0.113.11:53")
	expect(stack.DropLimit, v, "a second of UDP")

	limits := rs.All()[0].Limits
	if n, half := limits.Conns(); n != 4 || half != 2 {
		t.Errorf("Conns() = %d, %d half-open; want 4, 2", n, half)
	}
	tab.Expire(start.Add(3 * time.Hour))
	tab.Clear(func(*nat.Conn) bool { return true })
	if n, half := limits.Conns(); n != 0 || half != 0 {
		t.Errorf("in the end Conns() = %d, %d", n, half)
	}
}

// What before 8.3 was dropped without a translation.
func TestControl(t *testing.T) {
	peer := &stack.Interface{Name: "peer", Level: dmz.Level, Addr: netip.MustParsePrefix("192.168.7.1/24")}
	rules := []nat.Rule{
		{Section: nat.ManualSection, Name: "static", Real: inside, Mapped: dmz, Kind: nat.Identity, Source: host("10.20.0.11"), Policy: true},
		{Section: nat.AfterAutoSection, Name: "nat 0", Real: inside, Mapped: outside, Kind: nat.Identity, OneWay: true, Source: host("10.20.0.12")},
		{Section: nat.AfterAutoSection, Name: "no global", Real: inside, Mapped: dmz, Kind: nat.Dynamic, Refuse: true, Source: subnet("10.20.0.0/25")},
		{Section: nat.AfterAutoSection, Name: "nat", Real: inside, Mapped: outside, Kind: nat.Dynamic, MappedInterface: true, Source: subnet("10.20.0.0/25")},
		{Section: nat.AfterAutoSection, Name: "peers", Real: peer, Mapped: dmz, Kind: nat.Dynamic, MappedInterface: true, Source: host("192.168.7.9")},
		{Section: nat.AfterAutoSection, Name: "outside", Real: outside, Mapped: dmz, Kind: nat.Dynamic, MappedInterface: true, Source: host("198.51.100.7")},
		{Section: nat.ManualSection, Name: "server", Real: dmz, Mapped: outside, Source: host("192.168.1.9"), MappedSource: host("203.0.113.9")},
	}
	plain, control := newRules(t, rules...), newRules(t, rules...)
	control.Control()
	for _, tt := range []struct {
		in, out       *stack.Interface
		src, dst      string
		plain, strict stack.Verdict
	}{
		{inside, outside, "10.20.0.50:1", "198.51.100.7:1", stack.Forward, stack.Forward},
		{inside, outside, "10.20.0.200:1", "198.51.100.7:1", stack.Forward, stack.DropNoTranslation},
		{inside, outside, "10.20.0.12:1", "198.51.100.7:1", stack.Forward, stack.Forward},
		{outside, inside, "198.51.100.7:1", "10.20.0.12:1", stack.DropNATReverse, stack.DropNATReverse},
		{inside, dmz, "10.20.0.50:1", "192.168.1.9:1", stack.DropNoTranslation, stack.DropNoTranslation},
		{dmz, inside, "192.168.1.9:1", "10.20.0.50:1", stack.DropNATReverse, stack.DropNATReverse},
		{inside, dmz, "10.20.0.11:1", "192.168.1.9:1", stack.Forward, stack.Forward},
		{dmz, inside, "192.168.1.9:1", "10.20.0.11:1", stack.Forward, stack.Forward},
		{dmz, inside, "192.168.1.9:1", "10.20.0.200:1", stack.Forward, stack.DropNoTranslation},
		{peer, dmz, "192.168.7.9:1", "192.168.1.8:1", stack.Forward, stack.Forward},
		{peer, dmz, "192.168.7.8:1", "192.168.1.8:1", stack.Forward, stack.DropNoTranslation},
		{dmz, peer, "192.168.1.8:1", "192.168.7.8:1", stack.Forward, stack.Forward}, // dmz has no dynamic rule
		{outside, dmz, "198.51.100.7:1", "203.0.113.9:1", stack.Forward, stack.Forward},
		{outside, dmz, "198.51.100.8:1", "203.0.113.9:1", stack.Forward, stack.DropNoTranslation},
	} {
		var got [2]stack.Verdict
		for i, rs := range []*nat.Rules{plain, control} {
			f := flow(stack.UDP, tt.src, tt.dst)
			real, un, _ := rs.Untranslate(tt.in, f)
			f.Dst = real
			_, got[i] = rs.Translate(tt.in, tt.out, f, un, nat.NewPAT(chance()))
		}
		if want := [2]stack.Verdict{tt.plain, tt.strict}; got != want {
			t.Errorf("%s from %v to %s on %v: %v without and with nat-control, want %v", tt.src, tt.in, tt.dst, tt.out, got, want)
		}
	}
}

func TestNewRulesRefusesPools(t *testing.T) {
	for name, edit := range map[string]func(r *nat.Rule){
		"include-reserve alone": func(r *nat.Rule) { r.IncludeReserve = true },
		"overload of ports":     func(r *nat.Rule) { r.Overload = []nat.Object{host("203.0.113.60")} },
		"one to one and flat":   func(r *nat.Rule) { r.Pool, r.Flat = nat.OneToOne, true },
		"any among more":        func(r *nat.Rule) { r.More = []nat.Object{{}} },
		"more without a first": func(r *nat.Rule) {
			r.MappedSource, r.MappedInterface, r.More = nat.Object{}, true, []nat.Object{host("203.0.113.60")}
		},
		"IPv6 among more":        func(r *nat.Rule) { r.More = []nat.Object{host("2001:db8::1")} },
		"refused with addresses": func(r *nat.Rule) { r.Refuse = true },
		"one way and dynamic":    func(r *nat.Rule) { r.OneWay = true },
		"one way and static":     func(r *nat.Rule) { r.OneWay, r.Kind, r.Source = true, nat.Static, host("10.20.0.9") },
		"a pool of a static":     func(r *nat.Rule) { r.Kind, r.Source, r.Extended = nat.Static, host("10.20.0.9"), true },
		"policy that translates": func(r *nat.Rule) {
			r.Section, r.Policy, r.Dest, r.MappedDest = nat.ManualSection, true, host("198.51.100.7"), host("10.99.0.7")
		},
	} {
		if _, err := nat.NewRules([]nat.Rule{poolRule(edit)}); err == nil {
			t.Errorf("%s: NewRules = nil", name)
		}
	}
}

// The box answers ARP for what pools give away, or no answer would come back.
func TestOwnsPools(t *testing.T) {
	rs := newRules(t, poolRule(func(r *nat.Rule) {
		r.Pool, r.MappedInterface = nat.OneToOne, true
		r.MappedSource = nat.Range(addr("203.0.113.40"), addr("203.0.113.41"))
		r.More, r.Overload = []nat.Object{nat.Range(addr("203.0.113.50"), addr("203.0.113.51"))}, []nat.Object{host("203.0.113.60")}
	}), poolRule(func(r *nat.Rule) {
		r.Section, r.Name, r.NoProxyARP, r.MappedSource = nat.ManualSection, "quiet", true, host("203.0.113.70")
	}))
	for a, want := range map[string]bool{
		"203.0.113.40": true, "203.0.113.51": true, "203.0.113.60": true, "203.0.113.2": false, "203.0.113.42": false, "203.0.113.70": false,
	} {
		if got := rs.Owns(outside, addr(a)); got != want {
			t.Errorf("Owns(outside, %s) = %v", a, got)
		}
		if rs.Owns(inside, addr(a)) {
			t.Errorf("Owns(inside, %s) = true", a)
		}
	}
}
