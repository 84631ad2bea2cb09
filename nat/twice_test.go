package nat_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

func one(port uint16) nat.PortRange { return nat.PortRange{From: port, To: port} }

// TestTwiceNATWithService is both ends' addresses and ports at once, each way.
func TestTwiceNATWithService(t *testing.T) {
	both := nat.Rule{Section: nat.ManualSection, Name: "both", Real: inside, Mapped: outside,
		Source: host("10.20.0.11"), MappedSource: host("203.0.113.30"),
		Dest: host("198.51.100.50"), MappedDest: host("10.99.0.50"),
		Service: stack.TCP, RealPorts: nat.PortRange{From: 5060, To: 5069}, MappedPorts: nat.PortRange{From: 7060, To: 7069},
		DestPorts: one(443), MappedDestPorts: one(8443)}
	dynamic := nat.Rule{Section: nat.AfterAutoSection, Name: "dynamic", Real: inside, Mapped: outside, Kind: nat.Dynamic,
		Source: subnet("10.20.0.0/24"), MappedInterface: true,
		Dest: host("198.51.100.60"), MappedDest: host("10.99.0.60"), Service: stack.UDP, DestPorts: one(69), MappedDestPorts: one(6969)}
	identity := nat.Rule{Section: nat.ManualSection, Name: "identity", Real: inside, Mapped: outside, Kind: nat.Identity, RouteLookup: true,
		Source: host("10.20.0.12"), Dest: host("198.51.100.70"), MappedDest: host("198.51.100.70"),
		Service: stack.TCP, DestPorts: one(80), MappedDestPorts: one(80)}
	rs := newRules(t, append(rulesA(), both, dynamic, identity)...)
	tests := []struct {
		name    string
		in, out *stack.Interface
		f       stack.Flow
		server  stack.Flow
		un, src string
	}{
		{"out", inside, outside, flow(stack.TCP, "10.20.0.11:5061", "10.99.0.50:8443"), flow(stack.TCP, "203.0.113.30:7061", "198.51.100.50:443"), "both", "both"},
		{"in", outside, inside, flow(stack.TCP, "198.51.100.50:443", "203.0.113.30:7069"), flow(stack.TCP, "10.99.0.50:8443", "10.20.0.11:5069"), "both", "both"},
		{"in from another port", outside, inside, flow(stack.TCP, "198.51.100.50:444", "203.0.113.30:7069"), flow(stack.TCP, "198.51.100.50:444", "203.0.113.30:7069"), "", ""},
		{"out by another protocol", inside, outside, flow(stack.UDP, "10.20.0.11:5061", "10.99.0.50:8443"), flow(stack.UDP, "203.0.113.10:5061", "10.99.0.50:8443"), "", "cucm-a"},
		{"dynamic", inside, outside, flow(stack.UDP, "10.20.0.60:4000", "10.99.0.60:6969"), flow(stack.UDP, "203.0.113.2:4000", "198.51.100.60:69"), "dynamic", "inside-net"},
		{"identity", inside, outside, flow(stack.TCP, "10.20.0.12:4000", "198.51.100.70:80"), flow(stack.TCP, "10.20.0.12:4000", "198.51.100.70:80"), "identity", "identity"},
	}
	name := func(r *nat.Rule) string {
		if r == nil {
			return ""
		}
		return r.Name
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.f
			dst, un, _ := rs.Untranslate(tt.in, f)
			f.Dst = dst
			s, v := rs.Translate(tt.in, tt.out, f, un, nat.NewPAT(chance()))
			if tt.name == "dynamic" { // section 2 has the source first, so the answers would not come back
				if v != stack.DropNATReverse || name(un) != tt.un {
					t.Fatalf("%v by %q, want %v by %q", v, name(un), stack.DropNATReverse, tt.un)
				}
				return
			}
			got := stack.Flow{Proto: f.Proto, Src: s.Mapped, Dst: dst}
			if v != stack.Forward || got != tt.server || name(un) != tt.un || name(s.Rule) != tt.src {
				t.Errorf("%v becomes %v, %v by %q and %q; want %v by %q and %q", tt.f, got, v, name(un), name(s.Rule), tt.server, tt.un, tt.src)
			}
		})
	}
	alone := newRules(t, dynamic)
	f := flow(stack.UDP, "10.20.0.60:4000", "10.99.0.60:6969")
	dst, un, _ := alone.Untranslate(inside, f)
	f.Dst = dst
	if s, v := alone.Translate(inside, outside, f, un, nat.NewPAT(chance())); v != stack.Forward || s.Mapped != ap("203.0.113.2:4000") || dst != ap("198.51.100.60:69") {
		t.Errorf("dynamic alone: %v to %v, %v", s.Mapped, dst, v)
	}
	for _, r := range rs.All() {
		if r.Name == "identity" && r.Other(outside) != nil || r.Name == "both" && r.Other(outside) != inside {
			t.Errorf("rule %s: Other(outside) = %v", r.Name, r.Other(outside))
		}
	}
}

func TestNewRulesRefusesServices(t *testing.T) {
	good := nat.Rule{Section: nat.ManualSection, Real: inside, Mapped: outside, Source: host("10.20.0.11"), MappedSource: host("203.0.113.30"),
		Service: stack.TCP, RealPorts: one(1), MappedPorts: one(2), DestPorts: one(3), MappedDestPorts: one(4)}
	if _, err := nat.NewRules([]nat.Rule{good}); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(r *nat.Rule){
		"sizes":                   func(r *nat.Rule) { r.MappedPorts.To++ },
		"backwards":               func(r *nat.Rule) { r.DestPorts.To, r.MappedDestPorts.To = 2, 3 },
		"half":                    func(r *nat.Rule) { r.MappedDestPorts = nat.PortRange{} },
		"port 0":                  func(r *nat.Rule) { r.RealPorts.From, r.MappedPorts.From = 0, 1 },
		"object":                  func(r *nat.Rule) { r.Section = nat.AutoSection },
		"identity":                func(r *nat.Rule) { r.Kind, r.MappedSource = nat.Identity, nat.Object{} },
		"dynamic":                 func(r *nat.Rule) { r.Kind = nat.Dynamic },
		"static pool":             func(r *nat.Rule) { r.Pool = nat.OneToOne },
		"one to one of interface": func(r *nat.Rule) { *r = rulesA()[0]; r.Pool = nat.OneToOne },
		"no protocol":             func(r *nat.Rule) { r.Service = 0 },
	} {
		r := good
		edit(&r)
		if _, err := nat.NewRules([]nat.Rule{r}); err == nil {
			t.Errorf("%s: NewRules(%+v) = nil", name, r)
		}
	}
}

// convert is one end's way through a rule, the slow way: the place among the
// addresses and ports from, and what has that place in to.
func convert(a netip.AddrPort, from, to nat.Object, fromPorts, toPorts nat.PortRange) (netip.AddrPort, bool) {
	m, found := a.Addr(), from == nat.Object{}
	if !found {
		x, y := from.From, to.From
		for ; ; x, y = x.Next(), y.Next() {
			if x == a.Addr() {
				m, found = y, true
			}
			if x == from.To {
				break
			}
		}
	}
	port := a.Port()
	if fromPorts != (nat.PortRange{}) {
		found = found && port >= fromPorts.From && port <= fromPorts.To
		port += toPorts.From - fromPorts.From
	}
	return netip.AddrPortFrom(m, port), found
}

// allModel is Rules of every kind the slow way: every rule is asked in turn.
type allModel []nat.Rule

func (m allModel) shown(r nat.Rule) nat.Object {
	switch {
	case r.Kind == nat.Identity:
		return r.Source
	case r.MappedInterface && r.MappedSource == nat.Object{}:
		return nat.Host(r.Mapped.Addr.Addr())
	}
	return r.MappedSource
}

// ends reports whether real and peer, as the world has it, are the ends of r.
func (m allModel) ends(r nat.Rule, proto stack.Proto, real, peer netip.AddrPort) bool {
	_, a := convert(real, r.Source, r.Source, r.RealPorts, r.RealPorts)
	_, b := convert(peer, r.Dest, r.Dest, r.DestPorts, r.DestPorts)
	return a && b && (r.Service == 0 || r.Service == proto)
}

// decide returns the flow with its destination real, the names of the rules,
// what a static rule makes of the source, and the verdict.
func (m allModel) decide(in, out *stack.Interface, f stack.Flow) (real stack.Flow, un, src string, source netip.AddrPort, v stack.Verdict) {
	twice := func(r nat.Rule) bool { return r.MappedDest != nat.Object{} || r.MappedDestPorts != nat.PortRange{} }
	at := func(want, i *stack.Interface) bool { return want == nil || want == i }
	back := func(r nat.Rule) bool { return r.Kind != nat.Dynamic && !r.Unidirectional }
	for _, r := range m {
		if a, ok := convert(f.Dst, m.shown(r), r.Source, r.MappedPorts, r.RealPorts); ok && back(r) && at(r.Mapped, in) && m.ends(r, f.Proto, a, f.Src) {
			f.Dst, un = a, r.Name
			break
		}
		if a, ok := convert(f.Dst, r.MappedDest, r.Dest, r.MappedDestPorts, r.DestPorts); ok && twice(r) && at(r.Real, in) && m.ends(r, f.Proto, f.Src, a) {
			f.Dst, un = a, r.Name
			break
		}
	}
	source = f.Src
	for _, r := range m {
		if at(r.Real, in) && at(r.Mapped, out) && m.ends(r, f.Proto, f.Src, f.Dst) {
			src = r.Name
			if r.Kind != nat.Dynamic {
				source, _ = convert(f.Src, r.Source, m.shown(r), r.RealPorts, r.MappedPorts)
			}
			break
		}
		if twice(r) && back(r) && at(r.Mapped, in) && at(r.Real, out) && m.ends(r, f.Proto, f.Dst, f.Src) {
			src = r.Name
			source, _ = convert(f.Src, r.Dest, r.MappedDest, r.DestPorts, r.MappedDestPorts)
			break
		}
	}
	// Would the answer come back the way it went?
	answer := ""
	for _, r := range m {
		if r.Unidirectional {
			continue
		}
		if at(r.Real, out) && at(r.Mapped, in) && m.ends(r, f.Proto, f.Dst, f.Src) ||
			r.Name == src && twice(r) && at(r.Real, in) && at(r.Mapped, out) {
			answer = r.Name
			break
		}
	}
	if answer != un {
		return f, un, src, source, stack.DropNATReverse
	}
	return f, un, src, source, stack.Forward
}

// randomRules returns n rules of all kinds in a small world, in an order that
// NewRules keeps: all are manual.
func randomRules(rnd *rand.Rand, n int) []nat.Rule {
	ifs := []*stack.Interface{inside, inside, outside, dmz}
	some := func(net [3]byte, size int) nat.Object {
		n := rnd.IntN(8)
		return nat.Range(netip.AddrFrom4([4]byte{net[0], net[1], net[2], byte(n)}), netip.AddrFrom4([4]byte{net[0], net[1], net[2], byte(n + size - 1)}))
	}
	ports := func(size int) nat.PortRange {
		p := uint16(1024 + rnd.IntN(6))
		return nat.PortRange{From: p, To: p + uint16(size) - 1}
	}
	var rules []nat.Rule
	for i := range n {
		size := 1 + rnd.IntN(3)
		r := nat.Rule{Section: nat.ManualSection, Name: fmt.Sprint("r", i), Real: ifs[rnd.IntN(2)], Mapped: ifs[1+rnd.IntN(3)],
			Source: some([3]byte{10, 20, 0}, size), MappedSource: some([3]byte{203, 0, 113}, size),
			Unidirectional: rnd.IntN(8) == 0, NoProxyARP: rnd.IntN(2) == 0}
		switch rnd.IntN(6) {
		case 0:
			r.Kind, r.Pool, r.MappedInterface = nat.Dynamic, nat.PoolUse(rnd.IntN(3)), rnd.IntN(2) == 0
		case 1:
			r.Kind, r.MappedSource = nat.Identity, nat.Object{}
		case 2, 3:
			r.Service, r.RealPorts, r.MappedPorts = stack.TCP, ports(size), ports(size)
		}
		if rnd.IntN(2) == 0 {
			size := 1 + rnd.IntN(2)
			r.Dest, r.MappedDest = some([3]byte{198, 51, 100}, size), some([3]byte{10, 99, 0}, size)
			if rnd.IntN(2) == 0 {
				r.MappedDest = r.Dest
			}
			if rnd.IntN(2) == 0 {
				r.Service, r.DestPorts, r.MappedDestPorts = stack.TCP, ports(size), ports(size)
			}
		}
		if rnd.IntN(10) == 0 && !r.MappedInterface {
			r.Mapped = nil
		}
		rules = append(rules, r)
	}
	return rules
}

// TestAllRulesModel compares rule sets of every kind with the model, opens what
// they translate, sends the answer, and ends with nothing left.
func TestAllRulesModel(t *testing.T) {
	rnd := newRand()
	ifs := []*stack.Interface{inside, outside, dmz}
	nets := [][3]byte{{10, 20, 0}, {203, 0, 113}, {198, 51, 100}, {10, 99, 0}}
	end := func() netip.AddrPort {
		n := nets[rnd.IntN(4)]
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{n[0], n[1], n[2], byte(rnd.IntN(9))}), uint16(1024+rnd.IntN(8)))
	}
	opened, drops, dynamic := 0, 0, 0
	for round := range 400 {
		rules := randomRules(rnd, 1+rnd.IntN(24))
		rs, err := nat.NewRules(rules)
		if err != nil {
			continue // two that claim one port
		}
		pat := nat.NewPAT(chance())
		tab := newTable(t, nat.TableConfig{PAT: pat})
		held := make(map[stack.Flow]netip.AddrPort) // mapped sources of dynamic rules, and whose they are
		for range 120 {
			f := stack.Flow{Proto: stack.TCP, Src: end(), Dst: end()}
			if rnd.IntN(3) == 0 {
				f.Proto = stack.UDP
			}
			in, out := ifs[rnd.IntN(3)], ifs[rnd.IntN(3)]
			if rnd.IntN(2) == 0 { // where most rules are
				in, out = inside, ifs[1+rnd.IntN(2)]
				f.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(rnd.IntN(9))}), f.Src.Port())
			}
			real, wantUn, wantSrc, source, wantV := allModel(rules).decide(in, out, f)
			dst, un, ok := rs.Untranslate(in, f)
			g := f
			g.Dst = dst
			s, v := rs.Translate(in, out, g, un, pat)
			if g != real || ok != (wantUn != "") || ok && un.Name != wantUn || v != wantV && v != stack.DropNAT {
				t.Fatalf("%v from %v to %v: dst %v by %v, %v; model says %v by %q, %v; rules:\n%+v", f, in, out, dst, un, v, real.Dst, wantUn, wantV, rules)
			}
			if v != stack.Forward {
				drops++
				continue
			}
			isDynamic := s.Rule != nil && s.Rule.Kind == nat.Dynamic
			if (s.Rule != nil) != (wantSrc != "") || s.Rule != nil && s.Rule.Name != wantSrc || !isDynamic && s.Mapped != source {
				t.Fatalf("%v from %v to %v: source %v by %v; model says %v by %q; rules:\n%+v", f, in, out, s.Mapped, s.Rule, source, wantSrc, rules)
			}
			if isDynamic {
				dynamic++
				r := s.Rule
				inPool := r.MappedSource.Contains(s.Mapped.Addr())
				if !inPool && (!r.MappedInterface || s.Mapped.Addr() != r.Mapped.Addr.Addr()) {
					t.Fatalf("%v mapped to %v, which rule %+v does not have", f, s.Mapped, r)
				}
				if inPool && r.Pool == nat.OneToOne && s.Mapped.Addr() != out.Addr.Addr() && s.Mapped.Port() != f.Src.Port() || s.Mapped.Port() < 1024 {
					t.Fatalf("%v mapped to %v by %+v", f, s.Mapped, r)
				}
				if r.Pool != nat.OneToOne || s.Mapped.Addr() == out.Addr.Addr() {
					k := stack.Flow{Proto: f.Proto, Src: s.Mapped}
					if was, ok := held[k]; ok && was != f.Src {
						t.Fatalf("%v has %v, given to %v as well", was, s.Mapped, f.Src)
					}
					held[k] = f.Src
				}
			}
			p := packet(t, in, start, f, stack.TCPHeader{Flags: syn}, "")
			server := stack.Flow{Proto: f.Proto, Src: s.Mapped, Dst: dst}
			c, _, v := tab.Open(p, nat.Opening{Out: out, Server: server, UnRule: un, Source: s})
			if v != stack.Forward || c.Client() != f || c.Server() != server || c.In != in || c.Out != out {
				continue // two conversations with one server's flow
			}
			opened++
			if !rs.Keeps(c) {
				t.Fatalf("rules do not keep what they opened: %v, %v; rules:\n%+v", f, server, rules)
			}
			if v := c.Handle(p, nat.Client); v != stack.Forward || p.Flow() != server {
				t.Fatalf("%v leaves as %v, %v; want %v", f, p.Flow(), v, server)
			}
			back := packet(t, out, start, server.Reverse(), stack.TCPHeader{Flags: syn | ack, Ack: 1}, "")
			if got, end := tab.Lookup(back); got != c || end != nat.Server && server.Reverse() != f {
				t.Fatalf("the answer to %v is not found", server)
			} else if v := c.Handle(back, nat.Server); v != stack.Forward || back.Flow() != f.Reverse() {
				t.Fatalf("the answer to %v arrives as %v, %v; want %v", f, back.Flow(), v, f.Reverse())
			}
		}
		if round%2 == 0 {
			tab.Clear(func(*nat.Conn) bool { return true })
		}
		tab.Expire(start.Add(time.Hour))
		if in, _ := pat.Len(); tab.Len() != 0 || tab.HalfOpen() != 0 || in != 0 {
			t.Fatalf("in the end %d connections, %d half open, %d xlates", tab.Len(), tab.HalfOpen(), in)
		}
		tab.Expire(start.Add(5 * time.Hour))
		if _, n := pat.Len(); n != 0 || slices.ContainsFunc(tab.Xlates(rs), func(x nat.Xlate) bool { return x.Rule.Kind == nat.Dynamic }) {
			t.Fatalf("in the end %d xlates linger", n)
		}
	}
	if opened < 1000 || drops < 1000 || dynamic < 300 {
		t.Errorf("%d opened, %d drops, %d dynamic: the world is too large", opened, drops, dynamic)
	}
}
