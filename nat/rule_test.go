package nat_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/nat"
	"patchbay/stack"
)

func host(s string) nat.Object { return nat.Host(addr(s)) }

func subnet(s string) nat.Object { return nat.Subnet(netip.MustParsePrefix(s)) }

// rulesA is the nat commands of reference configs/a-nonsecure-single.cfg.
func rulesA() []nat.Rule {
	return []nat.Rule{
		{Name: "inside-net", Real: inside, Mapped: outside, Kind: nat.Dynamic,
			Source: subnet("10.20.0.0/24"), MappedInterface: true},
		{Name: "cucm-a", Real: inside, Mapped: outside,
			Source: host("10.20.0.11"), MappedSource: host("203.0.113.10")},
	}
}

// rulesC is some of configs/c-static-pat.cfg.
func rulesC() []nat.Rule {
	pat := func(name, real string, realPort, mappedPort uint16) nat.Rule {
		return nat.Rule{Name: name, Real: inside, Mapped: outside, Source: host(real), MappedInterface: true,
			Service: stack.TCP, RealPort: realPort, MappedPort: mappedPort}
	}
	return []nat.Rule{
		pat("cucm2-sccps", "10.20.0.12", 2443, 7443),
		pat("cucm1-sccps", "10.20.0.11", 2443, 2443),
		pat("cucm1-sips", "10.20.0.11", 5061, 5061),
		{Name: "tftp2", Real: inside, Mapped: outside, Source: host("10.20.0.22"), MappedSource: host("203.0.113.5")},
	}
}

func TestUntranslateAndTranslate(t *testing.T) {
	a, c := newRules(t, rulesA()...), newRules(t, rulesC()...)
	// Twice NAT: the UCM reaches a peer by an inside name, and is known to it
	// by an address of its own.
	twice := newRules(t, append(rulesA(), nat.Rule{
		Section: nat.ManualSection, Name: "twice", Real: inside, Mapped: outside,
		Source: host("10.20.0.11"), MappedSource: host("203.0.113.30"),
		Dest: host("198.51.100.50"), MappedDest: host("10.99.0.50"),
	})...)
	identity := newRules(t, append(rulesA(), nat.Rule{
		Section: nat.ManualSection, Name: "identity", Real: inside, Mapped: outside, Kind: nat.Identity,
		Source: subnet("10.20.0.0/24"), Dest: subnet("198.51.100.128/25"), MappedDest: subnet("198.51.100.128/25"),
	})...)
	oneway := newRules(t, nat.Rule{
		Section: nat.ManualSection, Name: "oneway", Real: inside, Mapped: outside, Unidirectional: true,
		Source: host("10.20.0.11"), MappedSource: host("203.0.113.10"),
	})
	tests := []struct {
		name    string
		rs      *nat.Rules
		in, out *stack.Interface
		f       stack.Flow
		server  stack.Flow // as it leaves, if it does
		un, src string     // names of the rules
		v       stack.Verdict
	}{
		{"phone to UCM", a, outside, inside,
			flow(stack.TCP, "198.51.100.7:5000", "203.0.113.10:2443"),
			flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443"), "cucm-a", "", stack.Forward},
		{"UCM to phone", a, inside, outside,
			flow(stack.UDP, "10.20.0.11:5060", "198.51.100.7:5060"),
			flow(stack.UDP, "203.0.113.10:5060", "198.51.100.7:5060"), "", "cucm-a", stack.Forward},
		{"inside host to Internet", a, inside, outside,
			flow(stack.UDP, "10.20.0.60:4000", "198.51.100.7:53"),
			flow(stack.UDP, "203.0.113.2:4000", "198.51.100.7:53"), "", "inside-net", stack.Forward},
		{"ping the UCM", a, outside, inside,
			flow(stack.ICMP, "198.51.100.7:77", "203.0.113.10:0"),
			flow(stack.ICMP, "198.51.100.7:77", "10.20.0.11:0"), "cucm-a", "", stack.Forward},
		{"real address of the UCM", a, outside, inside,
			flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443"), stack.Flow{}, "", "", stack.DropNATReverse},
		{"real address behind PAT", a, outside, inside,
			flow(stack.TCP, "198.51.100.7:5000", "10.20.0.60:80"), stack.Flow{}, "", "", stack.DropNATReverse},
		{"real address from dmz", a, dmz, inside,
			flow(stack.TCP, "192.168.1.80:5000", "10.20.0.11:2443"),
			flow(stack.TCP, "192.168.1.80:5000", "10.20.0.11:2443"), "", "", stack.Forward},
		{"mapped address from dmz", a, dmz, outside,
			flow(stack.TCP, "192.168.1.80:5000", "203.0.113.10:2443"),
			flow(stack.TCP, "192.168.1.80:5000", "203.0.113.10:2443"), "", "", stack.Forward},

		{"static PAT in", c, outside, inside,
			flow(stack.TCP, "198.51.100.7:5000", "203.0.113.2:7443"),
			flow(stack.TCP, "198.51.100.7:5000", "10.20.0.12:2443"), "cucm2-sccps", "", stack.Forward},
		{"static PAT, port that has no rule", c, outside, inside,
			flow(stack.TCP, "198.51.100.7:5000", "203.0.113.2:7444"),
			flow(stack.TCP, "198.51.100.7:5000", "203.0.113.2:7444"), "", "", stack.Forward},
		{"static PAT, other protocol", c, outside, inside,
			flow(stack.UDP, "198.51.100.7:5000", "203.0.113.2:7443"),
			flow(stack.UDP, "198.51.100.7:5000", "203.0.113.2:7443"), "", "", stack.Forward},
		{"static PAT out", c, inside, outside,
			flow(stack.TCP, "10.20.0.12:2443", "198.51.100.7:5000"),
			flow(stack.TCP, "203.0.113.2:7443", "198.51.100.7:5000"), "", "cucm2-sccps", stack.Forward},
		{"static PAT out, another port", c, inside, outside,
			flow(stack.TCP, "10.20.0.12:2444", "198.51.100.7:5000"),
			flow(stack.TCP, "10.20.0.12:2444", "198.51.100.7:5000"), "", "", stack.Forward},

		{"twice out", twice, inside, outside,
			flow(stack.UDP, "10.20.0.11:5060", "10.99.0.50:5060"),
			flow(stack.UDP, "203.0.113.30:5060", "198.51.100.50:5060"), "twice", "twice", stack.Forward},
		{"twice in", twice, outside, inside,
			flow(stack.UDP, "198.51.100.50:5060", "203.0.113.30:5060"),
			flow(stack.UDP, "10.99.0.50:5060", "10.20.0.11:5060"), "twice", "twice", stack.Forward},
		{"twice, another peer", twice, outside, inside,
			flow(stack.UDP, "198.51.100.51:5060", "203.0.113.30:5060"),
			flow(stack.UDP, "198.51.100.51:5060", "203.0.113.30:5060"), "", "", stack.Forward},
		{"twice, the peer at the object's address", twice, outside, inside,
			flow(stack.UDP, "198.51.100.50:5060", "203.0.113.10:5060"), stack.Flow{}, "cucm-a", "", stack.DropNATReverse},
		{"not twice", twice, inside, outside,
			flow(stack.UDP, "10.20.0.11:5060", "198.51.100.51:5060"),
			flow(stack.UDP, "203.0.113.10:5060", "198.51.100.51:5060"), "", "cucm-a", stack.Forward},

		{"identity out", identity, inside, outside,
			flow(stack.UDP, "10.20.0.60:5060", "198.51.100.200:5060"),
			flow(stack.UDP, "10.20.0.60:5060", "198.51.100.200:5060"), "identity", "identity", stack.Forward},
		{"identity in", identity, outside, inside,
			flow(stack.UDP, "198.51.100.200:5060", "10.20.0.60:5060"),
			flow(stack.UDP, "198.51.100.200:5060", "10.20.0.60:5060"), "identity", "identity", stack.Forward},

		{"unidirectional out", oneway, inside, outside,
			flow(stack.UDP, "10.20.0.11:5060", "198.51.100.7:5060"),
			flow(stack.UDP, "203.0.113.10:5060", "198.51.100.7:5060"), "", "oneway", stack.Forward},
		{"unidirectional in", oneway, outside, inside,
			flow(stack.UDP, "198.51.100.7:5060", "203.0.113.10:5060"),
			flow(stack.UDP, "198.51.100.7:5060", "203.0.113.10:5060"), "", "", stack.Forward},
	}
	name := func(r *nat.Rule) string {
		if r == nil {
			return ""
		}
		return r.Name
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst, un, ok := tt.rs.Untranslate(tt.in, tt.f)
			if name(un) != tt.un || ok != (un != nil) {
				t.Fatalf("Untranslate(%v, %v) by %q, %v; want by %q", tt.in, tt.f, name(un), ok, tt.un)
			}
			f := tt.f
			f.Dst = dst
			for _, pat := range []*nat.PAT{nil, nat.NewPAT(chance())} {
				s, v := tt.rs.Translate(tt.in, tt.out, f, un, pat)
				if v != tt.v || name(s.Rule) != tt.src {
					t.Fatalf("Translate(%v, %v, %v) = %v by %q, want %v by %q", tt.in, tt.out, f, v, name(s.Rule), tt.v, tt.src)
				}
				if v != stack.Forward {
					continue
				}
				got := stack.Flow{Proto: f.Proto, Src: s.Mapped, Dst: dst}
				if got != tt.server {
					t.Errorf("%v becomes %v, want %v", tt.f, got, tt.server)
				}
				s.Lease.Release()
			}
		})
	}
}

func TestDynamicAvoidsStaticPorts(t *testing.T) {
	rs := newRules(t, append(rulesC(), rulesA()[0])...)
	pat := nat.NewPAT(chance())
	f := flow(stack.TCP, "10.20.0.60:7443", "198.51.100.7:80")
	s, v := rs.Translate(inside, outside, f, nil, pat)
	if v != stack.Forward || s.Mapped.Addr() != patAddr || s.Mapped.Port() == 7443 || s.Mapped.Port() < 1024 {
		t.Errorf("Translate(%v) = %v, %v; want another high port of %v", f, s.Mapped, v, patAddr)
	}
	f.Proto = stack.UDP
	s, v = rs.Translate(inside, outside, f, nil, pat)
	if v != stack.Forward || s.Mapped.Port() != 7443 {
		t.Errorf("Translate(%v) = %v, %v; want port 7443", f, s.Mapped, v)
	}
}

func TestDynamicPoolOverflows(t *testing.T) {
	rs := newRules(t, nat.Rule{Name: "pool", Real: inside, Mapped: outside, Kind: nat.Dynamic,
		MappedSource: nat.Range(addr("203.0.113.40"), addr("203.0.113.41")), MappedInterface: true})
	pat := nat.NewPAT(chance())
	var got []string
	for i := range 3*512 + 1 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}), 600)
		s, v := rs.Translate(inside, outside, stack.Flow{Proto: stack.UDP, Src: src, Dst: ap("198.51.100.7:53")}, nil, pat)
		if i == 3*512 {
			if v != stack.DropNAT {
				t.Errorf("Translate with all ports taken = %v, %v; want %v", s.Mapped, v, stack.DropNAT)
			}
			break
		}
		if v != stack.Forward {
			t.Fatalf("Translate %d = %v", i, v)
		}
		if a := s.Mapped.Addr().String(); !slices.Contains(got, a) {
			got = append(got, a)
		}
	}
	if diff := cmp.Diff([]string{"203.0.113.40", "203.0.113.41", "203.0.113.2"}, got); diff != "" {
		t.Errorf("addresses in order of use (-want +got):\n%s", diff)
	}
}

func TestRulesOrder(t *testing.T) {
	r := func(section int, name string, kind nat.Kind, source nat.Object) nat.Rule {
		return nat.Rule{Section: section, Name: name, Real: inside, Mapped: outside, Kind: kind,
			Source: source, MappedSource: source}
	}
	rs := newRules(t,
		r(3, "z-last", nat.Static, host("10.20.0.1")),
		r(3, "a-last", nat.Static, host("10.20.0.1")),
		r(0, "dyn-net", nat.Dynamic, subnet("10.20.0.0/24")),
		r(0, "dyn-host", nat.Dynamic, host("10.20.0.9")),
		r(2, "net", nat.Static, subnet("10.20.0.0/24")),
		r(2, "high", nat.Static, host("10.20.0.11")),
		r(2, "low-b", nat.Static, host("10.20.0.2")),
		r(2, "low-a", nat.Static, host("10.20.0.2")),
		r(2, "range", nat.Identity, nat.Range(addr("10.20.0.1"), addr("10.20.0.2"))),
		r(1, "z-first", nat.Dynamic, subnet("10.0.0.0/8")),
		r(1, "a-first", nat.Static, host("10.20.0.3")),
	)
	var got []string
	for _, r := range rs.All() {
		got = append(got, r.Name)
	}
	want := []string{"z-first", "a-first", "low-a", "low-b", "high", "range", "net", "dyn-host", "dyn-net", "z-last", "a-last"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestNewRulesRefuses(t *testing.T) {
	good := rulesC()[0]
	bare := &stack.Interface{Name: "bare"}
	edit := func(f func(r *nat.Rule)) []nat.Rule {
		r := good
		f(&r)
		return []nat.Rule{r}
	}
	tests := []struct {
		name  string
		rules []nat.Rule
		err   string // part of it
	}{
		{"same mapped port twice", []nat.Rule{good, func() nat.Rule {
			r := good
			r.Name, r.Source = "other", host("10.20.0.77")
			return r
		}()}, `port 7443 of 203.0.113.2 is taken by rule "cucm2-sccps"`},
		{"section", edit(func(r *nat.Rule) { r.Section = 4 }), "section 4"},
		{"sizes", edit(func(r *nat.Rule) { r.Source = subnet("10.20.0.0/24") }), "256 addresses"},
		{"no mapped address", edit(func(r *nat.Rule) { r.MappedInterface = false }), "static to no address"},
		{"interface without address", edit(func(r *nat.Rule) { r.Mapped = bare }), "bare"},
		{"any interface's address", edit(func(r *nat.Rule) { r.Mapped = nil }), "none"},
		{"port without protocol", edit(func(r *nat.Rule) { r.Service = 0 }), "without a protocol"},
		{"protocol without port", edit(func(r *nat.Rule) { r.MappedPort = 0 }), "to 0"},
		{"protocol that has no ports", edit(func(r *nat.Rule) { r.Service = stack.ICMP }), "no ports"},
		{"dynamic with service", edit(func(r *nat.Rule) { r.Kind = nat.Dynamic }), "dynamic rule"},
		{"dynamic to nothing", []nat.Rule{{Name: "d", Kind: nat.Dynamic}}, "dynamic to no address"},
		{"IPv6", edit(func(r *nat.Rule) { r.Source = host("2001:db8::1") }), "not IPv4"},
		{"backwards", edit(func(r *nat.Rule) { r.Source = nat.Range(addr("10.0.0.2"), addr("10.0.0.1")) }), "backwards"},
		{"destination in section 2", edit(func(r *nat.Rule) { r.Dest, r.MappedDest = host("198.51.100.1"), host("198.51.100.1") }), "destination"},
		{"destination sizes", edit(func(r *nat.Rule) { r.Section, r.Dest = 1, host("198.51.100.1") }), "destination"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := nat.NewRules(tt.rules)
			if err == nil || !strings.HasPrefix(err.Error(), "nat: rule ") || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("NewRules = %v, want an error with %q", err, tt.err)
			}
		})
	}
}

func TestOwns(t *testing.T) {
	quiet := rulesC()[3]
	quiet.Name, quiet.NoProxyARP = "quiet", true
	quiet.Source, quiet.MappedSource = host("10.20.0.23"), host("203.0.113.6")
	anyif := nat.Rule{Name: "anyif", Real: inside, Source: host("10.20.0.24"), MappedSource: host("203.0.113.7")}
	all := nat.Rule{Section: nat.ManualSection, Name: "all", Real: dmz, Mapped: outside, Kind: nat.Identity}
	rs := newRules(t, append(append(rulesA(), rulesC()...), quiet, anyif, all)...)
	tests := []struct {
		i    *stack.Interface
		a    string
		want bool
	}{
		{outside, "203.0.113.10", true},
		{outside, "203.0.113.5", true},
		{outside, "203.0.113.2", false}, // the link's business
		{outside, "203.0.113.6", false},
		{outside, "203.0.113.7", true},
		{outside, "203.0.113.11", false},
		{outside, "10.20.0.11", false},
		{inside, "203.0.113.10", false},
		{inside, "10.20.0.11", false},
		{dmz, "203.0.113.7", false}, // not in the subnet there
		{dmz, "192.168.1.80", false},
	}
	for _, tt := range tests {
		if got := rs.Owns(tt.i, addr(tt.a)); got != tt.want {
			t.Errorf("Owns(%v, %s) = %v", tt.i, tt.a, got)
		}
	}
	var got []string
	for _, o := range rs.MappedAddrs(outside) {
		got = append(got, o.String())
	}
	if diff := cmp.Diff([]string{"203.0.113.10", "203.0.113.5", "203.0.113.7"}, got); diff != "" {
		t.Errorf("MappedAddrs(outside) (-want +got):\n%s", diff)
	}
	if got := rs.MappedAddrs(inside); len(got) != 0 {
		t.Errorf("MappedAddrs(inside) = %v", got)
	}
}

func TestMappedOfAndRealOf(t *testing.T) {
	rs := newRules(t, append(rulesC(), rulesA()...)...)
	mapped := []struct {
		real    string
		in, out *stack.Interface
		proto   stack.Proto
		want    string // "" is not ok
	}{
		{"10.20.0.11:5060", inside, outside, stack.UDP, "203.0.113.10:5060"},
		{"10.20.0.11:2443", inside, outside, stack.TCP, "203.0.113.10:2443"}, // "cucm-a" sorts before "cucm1-sccps"
		{"10.20.0.12:2443", inside, outside, stack.TCP, "203.0.113.2:7443"},
		{"10.20.0.12:2000", inside, outside, stack.TCP, ""}, // inside-net is dynamic
		{"10.20.0.22:0", inside, outside, stack.UDP, "203.0.113.5:0"},
		{"10.20.0.60:4000", inside, outside, stack.UDP, ""},
		{"10.20.0.60:4000", inside, dmz, stack.UDP, "10.20.0.60:4000"},
		{"198.51.100.7:5060", outside, inside, stack.UDP, "198.51.100.7:5060"},
	}
	for _, tt := range mapped {
		got, ok := rs.MappedOf(ap(tt.real), tt.in, tt.out, tt.proto)
		if s := got.String(); ok != (tt.want != "") || ok && s != tt.want {
			t.Errorf("MappedOf(%s, %v, %v, %v) = %v, %v; want %q", tt.real, tt.in, tt.out, tt.proto, got, ok, tt.want)
		}
	}
	real := []struct {
		mapped string
		in     *stack.Interface
		proto  stack.Proto
		want   string
	}{
		{"203.0.113.10:5060", outside, stack.UDP, "10.20.0.11:5060"},
		{"203.0.113.10:0", outside, stack.UDP, "10.20.0.11:0"},
		{"203.0.113.2:7443", outside, stack.TCP, "10.20.0.12:2443"},
		{"203.0.113.2:7443", outside, stack.UDP, ""},
		{"203.0.113.2:4000", outside, stack.UDP, ""},
		{"203.0.113.10:5060", inside, stack.UDP, ""},
	}
	for _, tt := range real {
		got, ok := rs.RealOf(ap(tt.mapped), tt.in, tt.proto)
		if ok != (tt.want != "") || ok && got.String() != tt.want {
			t.Errorf("RealOf(%s, %v, %v) = %v, %v; want %q", tt.mapped, tt.in, tt.proto, got, ok, tt.want)
		}
	}
}

func TestInherit(t *testing.T) {
	old, tab := newRules(t, rulesA()...), newTable(t, nat.TableConfig{})
	f := flow(stack.UDP, "198.51.100.7:5000", "203.0.113.10:69")
	dst, un, _ := old.Untranslate(outside, f)
	p := packet(t, outside, start, f, stack.TCPHeader{}, "")
	if _, _, v := tab.Open(p, nat.Opening{Out: inside, Server: stack.Flow{Proto: f.Proto, Src: f.Src, Dst: dst}, UnRule: un}); v != stack.Forward {
		t.Fatal(v)
	}
	now := newRules(t, append(rulesC(), rulesA()...)...)
	now.Inherit(old)
	for _, r := range now.All() {
		tr, un := r.Hits()
		if want := map[string]uint64{"cucm-a": 1}[r.Name]; tr != 0 || un != want {
			t.Errorf("rule %s: hits %d, %d; want 0, %d", r.Name, tr, un, want)
		}
	}
}

// model is Rules the slow way: object rules only, address by address.
type model struct{ rules []nat.Rule }

func newModel(rules []nat.Rule) model {
	m := model{slices.Clone(rules)}
	slices.SortFunc(m.rules, func(a, b nat.Rule) int { return strings.Compare(m.key(a), m.key(b)) })
	return m
}

func (m model) key(r nat.Rule) string {
	kind := "1static"
	if r.Kind == nat.Dynamic {
		kind = "2dynamic"
	}
	return fmt.Sprintf("%s %012d %x %s", kind, r.Source.Size(), r.Source.From.As4(), r.Name)
}

// mapped returns what a static rule shows of a real end.
func (m model) mapped(r nat.Rule, real netip.AddrPort, proto stack.Proto) (netip.AddrPort, bool) {
	if r.Kind == nat.Dynamic {
		return netip.AddrPort{}, false
	}
	to := r.MappedSource.From
	if r.Kind == nat.Identity {
		to = r.Source.From
	}
	if r.MappedInterface {
		to = r.Mapped.Addr.Addr()
	}
	for a := r.Source.From; ; a, to = a.Next(), to.Next() {
		switch {
		case a == real.Addr() && r.Service == 0:
			return netip.AddrPortFrom(to, real.Port()), true
		case a == real.Addr() && r.Service == proto && r.RealPort == real.Port():
			return netip.AddrPortFrom(to, r.MappedPort), true
		case a == r.Source.To:
			return netip.AddrPort{}, false
		}
	}
}

func (m model) translates(r nat.Rule, in, out *stack.Interface, src netip.AddrPort, proto stack.Proto) bool {
	if r.Real != nil && r.Real != in || r.Mapped != nil && r.Mapped != out {
		return false
	}
	if r.Kind == nat.Dynamic {
		return r.Source.Contains(src.Addr())
	}
	_, ok := m.mapped(r, src, proto)
	return ok
}

// forward returns what becomes of f, or the drop. The universe is the ends
// that a real address may have.
func (m model) forward(in, out *stack.Interface, f stack.Flow, universe []netip.AddrPort) (stack.Flow, stack.Verdict) {
	un := ""
search:
	for _, r := range m.rules {
		if r.Mapped != nil && r.Mapped != in {
			continue
		}
		for _, real := range universe {
			if to, ok := m.mapped(r, real, f.Proto); ok && to == f.Dst {
				f.Dst, un = real, r.Name
				break search
			}
		}
	}
	back := ""
	for _, r := range m.rules {
		if m.translates(r, out, in, f.Dst, f.Proto) {
			back = r.Name
			break
		}
	}
	if back != un {
		return stack.Flow{}, stack.DropNATReverse
	}
	for _, r := range m.rules {
		if !m.translates(r, in, out, f.Src, f.Proto) {
			continue
		}
		if r.Kind == nat.Dynamic {
			f.Src = netip.AddrPortFrom(r.Mapped.Addr.Addr(), f.Src.Port())
		} else {
			f.Src, _ = m.mapped(r, f.Src, f.Proto)
		}
		break
	}
	return f, stack.Forward
}

// TestRulesModel compares Rules with the model on random rules and flows in a
// world small enough for most of them to meet.
func TestRulesModel(t *testing.T) {
	rnd := newRand()
	ifs := []*stack.Interface{inside, outside, dmz}
	ports := []uint16{69, 2443, 7443}
	inAddr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 20, 0, byte(rnd.IntN(8))}) }
	outAddr := func() netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(8))}) }
	var universe []netip.AddrPort
	for _, port := range ports {
		for i := range 16 {
			universe = append(universe, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(i)}), port))
		}
	}
	drops, changed := 0, 0
	for range 2000 {
		var rules []nat.Rule
		for i := range 1 + rnd.IntN(6) {
			r := nat.Rule{Name: fmt.Sprint("r", i), Real: ifs[rnd.IntN(3)], Mapped: ifs[rnd.IntN(3)]}
			n := byte(rnd.IntN(3)) // one address to three
			from, to := inAddr(), outAddr()
			r.Source = nat.Range(from, netip.AddrFrom4([4]byte{10, 20, 0, from.As4()[3] + n}))
			r.MappedSource = nat.Range(to, netip.AddrFrom4([4]byte{203, 0, 113, to.As4()[3] + n}))
			switch rnd.IntN(4) {
			case 0:
				r.Kind, r.MappedSource, r.MappedInterface = nat.Dynamic, nat.Object{}, true
			case 1:
				r.Kind = nat.Identity
				r.MappedSource = nat.Object{}
			case 2:
				r.Service, r.RealPort, r.MappedPort = stack.TCP, ports[rnd.IntN(3)], ports[rnd.IntN(3)]
				if n == 0 && rnd.IntN(2) == 0 {
					r.MappedSource, r.MappedInterface = nat.Object{}, true
				}
			}
			if r.Kind != nat.Dynamic && !r.MappedInterface && rnd.IntN(4) == 0 {
				r.Mapped = nil
			}
			rules = append(rules, r)
		}
		rs, err := nat.NewRules(rules)
		if err != nil {
			continue // two that claim one port
		}
		m := newModel(rules)
		for range 50 {
			src, dst := inAddr(), outAddr()
			if rnd.IntN(2) == 0 {
				src, dst = dst, src
			}
			if rnd.IntN(4) == 0 {
				dst = inAddr()
			}
			f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(src, ports[rnd.IntN(3)]), Dst: netip.AddrPortFrom(dst, ports[rnd.IntN(3)])}
			if rnd.IntN(2) == 0 {
				f.Proto = stack.UDP
			}
			in, out := ifs[rnd.IntN(3)], ifs[rnd.IntN(3)]
			want, wantV := m.forward(in, out, f, universe)

			got := f
			dst2, un, _ := rs.Untranslate(in, f)
			got.Dst = dst2
			s, v := rs.Translate(in, out, got, un, nil)
			got.Src = s.Mapped
			if v != stack.Forward {
				got = stack.Flow{}
				drops++
			} else if got != f {
				changed++
			}
			if v != wantV || got != want {
				t.Fatalf("%v from %v to %v = %v, %v; model says %v, %v; rules:\n%+v", f, in, out, got, v, want, wantV, rules)
			}
		}
	}
	if drops < 1000 || changed < 1000 {
		t.Errorf("%d drops and %d translations: the world is too large", drops, changed)
	}
}
