package appliance_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A boxMaker makes configurations of small boxes by chance, and their models.
type boxMaker struct {
	*rand.Rand
	m       *model
	rules   []modelRule
	objects strings.Builder // what comes first
	lines   strings.Builder
	n       int // of names
	block   uint32
}

// The addresses of the small world: hosts behind each interface, addresses they
// are mapped to, names of peers inside.
const (
	insideHosts  = 0x0a14000a // 10.20.0.10
	dmzHosts     = 0xc0a8010a // 192.168.1.10
	outsideHosts = 0xc633640a // 198.51.100.10
	mappedHosts  = 0xcb00710a // 203.0.113.10
	pools        = 0xcb007140 // 203.0.113.64: each rule has some of its own
	aliases      = 0x0a63000a // 10.99.0.10
)

func newBoxMaker(rnd *rand.Rand) *boxMaker {
	g := &boxMaker{Rand: rnd, block: pools, m: &model{
		interfaces: []modelInterface{
			{"outside", 0, 0xcb007102, span{0xcb007100, 0xcb0071ff}},
			{"inside", 100, 0x0a140001, span{0x0a140000, 0x0a1400ff}},
			{"dmz", 50, 0xc0a80101, span{0xc0a80100, 0xc0a801ff}},
		},
		in: make(map[string]modelList), out: make(map[string]modelList),
		ports: make(map[portKey]end), given: make(map[givenKey]uint32), turn: make(map[string]uint32),
		nextOf: make(map[span]uint32), homes: make(map[homeKey]uint32),
	}}
	if g.IntN(4) == 0 {
		g.m.interfaces[2].level = 100
	}
	return g
}

func (g *boxMaker) one(n int) bool { return g.IntN(n) == 0 }

// quad writes an address.
func quad(a uint32) string { return end{a, 0}.addrPort().Addr().String() }

// some returns size addresses from about base on.
func (g *boxMaker) some(base uint32, size int) span {
	a := base + uint32(g.IntN(6))
	return span{a, a + uint32(size) - 1}
}

// pool returns size addresses that no other rule has.
func (g *boxMaker) pool(size int) span {
	s := span{g.block, g.block + uint32(size) - 1}
	g.block += uint32(size)
	return s
}

// object defines a network object of s, and returns its name; "any" for any.
func (g *boxMaker) object(s span) string {
	if s.any() {
		return "any"
	}
	g.n++
	fmt.Fprintf(&g.objects, "object network o%d\n", g.n)
	if s.size() == 1 && g.one(2) {
		fmt.Fprintf(&g.objects, " host %s\n", quad(s.from))
	} else {
		fmt.Fprintf(&g.objects, " range %s %s\n", quad(s.from), quad(s.to))
	}
	return fmt.Sprint("o", g.n)
}

// group defines an object group of ranges, and returns its name.
func (g *boxMaker) group(list []span) string {
	var members []string
	for _, s := range list {
		members = append(members, " network-object object "+g.object(s)+"\n")
	}
	g.n++
	fmt.Fprintf(&g.objects, "object-group network g%d\n%s", g.n, strings.Join(members, ""))
	return fmt.Sprint("g", g.n)
}

// service defines a service object, and returns its name.
func (g *boxMaker) service(proto string, src, dst span) string {
	g.n++
	fmt.Fprintf(&g.objects, "object service s%d\n service %s", g.n, proto)
	if !src.any() {
		fmt.Fprintf(&g.objects, " source range %d %d", src.from, src.to)
	}
	if !dst.any() {
		fmt.Fprintf(&g.objects, " destination range %d %d", dst.from, dst.to)
	}
	g.objects.WriteByte('\n')
	return fmt.Sprint("s", g.n)
}

// port returns size ports of those that packets have.
func (g *boxMaker) port(size int) span {
	p := uint32(1024 + g.IntN(5))
	return span{p, p + uint32(size) - 1}
}

func (g *boxMaker) proto() string { return [...]string{"tcp", "udp"}[g.IntN(2)] }

// pair chooses the interfaces of a rule, and real addresses behind the one.
func (g *boxMaker) pair(size int) (real, mapped string, src span) {
	switch g.IntN(8) {
	case 0:
		return "dmz", "outside", g.some(dmzHosts, size)
	case 1:
		return "inside", "dmz", g.some(insideHosts, size)
	case 2:
		return "outside", "inside", g.some(outsideHosts, size)
	}
	return "inside", "outside", g.some(insideHosts, size)
}

// many returns more hosts than s, as a rule.
func (g *boxMaker) many(s span) span {
	if g.one(3) {
		return s
	}
	return span{s.from, s.from + 7}
}

// text is the interfaces of r as a nat line has them.
func (r *modelRule) text() string {
	is := func(name string) string {
		if name == "" {
			return "any"
		}
		return name
	}
	return "(" + is(r.real) + "," + is(r.mapped) + ")"
}

// pooled makes r dynamic, and returns what stands after the word. twice is for
// outside of an object.
func (g *boxMaker) pooled(r *modelRule) string {
	r.kind = "dynamic"
	text := ""
	switch g.IntN(6) {
	case 0:
		r.byInterface = true
		return "interface"
	case 1:
		r.singles = []span{g.pool(1)}
		return g.object(r.singles[0])
	case 2:
		r.ranges = []span{g.pool(2)}
		text = g.object(r.ranges[0])
	case 3:
		r.ranges, r.singles = []span{g.pool(2), g.pool(2)}, []span{g.pool(1)}
		text = g.group([]span{r.ranges[0], r.singles[0], r.ranges[1]})
	default:
		r.singles = []span{g.pool(2), g.pool(1 + g.IntN(2))}
		text = "pat-pool " + g.group(r.singles)
		if r.round = g.one(2); r.round {
			text += " round-robin"
		}
		if r.extended = g.one(3); r.extended {
			text += " extended"
		}
		if g.one(3) {
			r.flat = span{1024, 65535}
			text += " flat"
			if g.one(2) {
				r.flat.from = 1
				text += " include-reserve"
			}
		}
	}
	if r.byInterface = g.one(2); r.byInterface {
		text += " interface"
	}
	return text
}

// objectRule adds a rule of section 2.
func (g *boxMaker) objectRule() {
	size := 1 + g.IntN(3)
	r := modelRule{section: 2}
	r.real, r.mapped, r.src = g.pair(size)
	text := ""
	switch g.IntN(4) {
	case 0:
		r.src = g.many(r.src)
		text = "dynamic " + g.pooled(&r)
	case 1:
		r.kind, text = "identity", "static "+g.object(r.src)
	default:
		r.kind, r.to = "static", g.some(mappedHosts, size)
		if g.one(3) {
			r.to = g.some(pools, size) // of what others give away
		}
		text = "static " + g.object(r.to)
		if size == 1 && g.one(2) {
			if g.one(2) {
				i := g.m.named(r.mapped)
				r.to, text = span{i.addr, i.addr}, "static interface"
			}
			r.proto, r.ofPort, r.toPort = g.proto(), g.port(1), g.port(1)
			text += fmt.Sprintf(" service %s %d %d", r.proto, r.ofPort.from, r.toPort.from)
		}
	}
	if r.kind != "dynamic" && r.proto == "" && g.one(6) {
		r.mapped = "" // any
	}
	r.name = g.object(r.src)
	fmt.Fprintf(&g.lines, "object network %s\n nat %s %s\n", r.name, r.text(), text)
	g.rules = append(g.rules, r)
}

// twiceRule adds a rule of section 1 or 3.
func (g *boxMaker) twiceRule() {
	size := 1 + g.IntN(3)
	r := modelRule{section: 1}
	line := ""
	if g.one(3) {
		r.section, line = 3, "after-auto "
	}
	r.real, r.mapped, r.src = g.pair(size)
	dynamic := g.one(4)
	if dynamic {
		r.src = g.many(r.src)
	}
	real := g.object(r.src)
	switch {
	case dynamic:
		line += "source dynamic " + real + " " + g.pooled(&r)
	case g.one(3):
		r.kind = "identity"
		line += "source static " + real + " " + real
	default:
		r.kind, r.to = "static", g.some(mappedHosts, size)
		line += "source static " + real + " " + g.object(r.to)
	}
	if g.one(2) {
		base, n := uint32(outsideHosts), 1+g.IntN(2)
		if r.mapped == "dmz" {
			base = dmzHosts
		}
		r.peer = g.some(base, n)
		peer := g.object(r.peer)
		r.peerInside = r.peer
		inside := peer
		if g.one(2) {
			r.peerInside = g.some(aliases, n)
			inside = g.object(r.peerInside)
		}
		line += " destination static " + inside + " " + peer
	}
	if g.one(3) {
		n := 1 + g.IntN(2)
		r.proto = g.proto()
		if r.kind == "static" && g.one(2) {
			r.ofPort, r.toPort = g.port(n), g.port(n)
		}
		if r.ofPort.any() || g.one(2) {
			r.peerPorts, r.peerPortInside = g.port(n), g.port(n)
		}
		line += " service " + g.service(r.proto, r.ofPort, r.peerPortInside) + " " + g.service(r.proto, r.toPort, r.peerPorts)
	}
	if r.kind != "dynamic" && g.one(6) {
		r.outOnly = true
		line += " unidirectional"
	}
	fmt.Fprintf(&g.lines, "nat %s %s\n", r.text(), line)
	g.rules = append(g.rules, r)
}

// list writes an access list, and returns it.
func (g *boxMaker) list(name string) modelList {
	list := modelList{}
	addrs := func() (string, []span) {
		base := [...]uint32{insideHosts, dmzHosts, outsideHosts, mappedHosts, pools}[g.IntN(5)]
		switch g.IntN(4) {
		case 0:
			one := g.some(base, 1)
			return "host " + quad(one.from), []span{one}
		case 1:
			two := []span{g.some(base, 3), g.some(insideHosts, 2)}
			return "object-group " + g.group(two), two
		case 2:
			net := base &^ 7
			return quad(net) + " 255.255.255.248", []span{{net, net + 7}}
		}
		return "any", nil
	}
	for range 1 + g.IntN(5) {
		e := modelEntry{permit: !g.one(3), inactive: g.one(8), proto: [...]string{"ip", "tcp", "udp"}[g.IntN(3)]}
		verb := "deny"
		if e.permit {
			verb = "permit"
		}
		var src, dst, rest string
		src, e.srcs = addrs()
		dst, e.dsts = addrs()
		if e.proto != "ip" && g.one(2) {
			p := g.port(2)
			e.ports, rest = []span{p}, fmt.Sprintf(" range %d %d", p.from, p.to)
			if g.one(3) {
				e.ports, rest = []span{{0, p.from - 1}, {p.from + 1, 65535}}, fmt.Sprintf(" neq %d", p.from)
			}
		}
		if e.inactive {
			rest += " inactive"
		}
		fmt.Fprintf(&g.lines, "access-list %s extended %s %s %s %s%s\n", name, verb, e.proto, src, dst, rest)
		list = append(list, e)
	}
	if g.one(2) {
		fmt.Fprintf(&g.lines, "access-list %s extended permit ip any any\n", name)
		list = append(list, modelEntry{permit: true, proto: "ip"})
	}
	return list
}

// access puts access lists on interfaces.
func (g *boxMaker) access() {
	for _, i := range g.m.interfaces {
		if !g.one(3) {
			g.m.in[i.name] = g.list(i.name + "_in")
			fmt.Fprintf(&g.lines, "access-group %s_in in interface %[1]s\n", i.name)
		}
		if g.one(6) {
			g.m.out[i.name] = g.list(i.name + "_out")
			fmt.Fprintf(&g.lines, "access-group %s_out out interface %[1]s\n", i.name)
		}
	}
	if g.one(6) {
		g.m.global = g.list("everywhere")
		g.lines.WriteString("access-group everywhere global\n")
	}
}

// finish returns the configuration, of a version.
func (g *boxMaker) finish(version string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "ASA Version %s\n", version)
	for k, i := range g.m.interfaces {
		fmt.Fprintf(&text, "interface GigabitEthernet0/%d\n nameif %s\n security-level %d\n ip address %s 255.255.255.0\n", k, i.name, i.level, quad(i.addr))
	}
	if g.m.inter = g.one(2); g.m.inter {
		text.WriteString("same-security-traffic permit inter-interface\n")
	}
	if g.m.intra {
		text.WriteString("same-security-traffic permit intra-interface\n")
	}
	text.WriteString("route outside 0.0.0.0 0.0.0.0 203.0.113.1 1\n")
	g.m.rules = sorted(g.rules)
	return text.String() + g.objects.String() + g.lines.String()
}

// newBox makes a box of 8.3 or later.
func (g *boxMaker) newBox() string {
	g.m.intra = g.one(2)
	for range 1 + g.IntN(8) {
		if g.one(2) {
			g.objectRule()
		} else {
			g.twiceRule()
		}
	}
	g.access()
	return g.finish("9.1(7)")
}

// oldBox makes a box of before 8.3: exemptions, static lines, nat with an access
// list, nat by network.
func (g *boxMaker) oldBox() string {
	g.m.intra, g.m.asCarried = g.one(2), true
	g.m.control = g.one(3)
	if g.m.control {
		g.lines.WriteString("nat-control\n")
	}
	type global struct {
		iface string
		id    int
		addrs span // zero: the interface
	}
	var globals []global
	for range g.IntN(5) {
		x := global{iface: [...]string{"outside", "outside", "dmz", "inside"}[g.IntN(4)], id: 1 + g.IntN(2)}
		word := "interface"
		if !g.one(3) {
			x.addrs = g.pool(1 + g.IntN(2))
			word = quad(x.addrs.from)
			if x.addrs.size() > 1 {
				word += "-" + quad(x.addrs.to)
			}
		}
		fmt.Fprintf(&g.lines, "global (%s) %d %s\n", x.iface, x.id, word)
		globals = append(globals, x)
	}
	var exempt, static, policy []modelRule
	peer := func() (string, span, span, string) {
		s := g.some(outsideHosts, 1)
		if g.one(3) {
			p := g.port(1)
			return fmt.Sprintf("tcp %%s host %s eq %d", quad(s.from), p.from), s, p, "tcp"
		}
		return "ip %s host " + quad(s.from), s, span{}, ""
	}
	dynamic := func(real string, outside bool, id int, src span, set func(r *modelRule)) []modelRule {
		var list []modelRule
		for _, i := range g.m.interfaces {
			if i.name == real && !g.m.intra || i.level > g.m.named(real).level && !outside {
				continue
			}
			r := modelRule{section: 3, real: real, mapped: i.name, kind: "refuse", src: src, policy: true}
			for _, x := range globals {
				if x.id != id || x.iface != i.name {
					continue
				}
				switch r.kind = "dynamic"; {
				case x.addrs.any():
					r.byInterface = true
				case x.addrs.size() > 1:
					r.ranges = append(r.ranges, x.addrs)
				default:
					r.singles = append(r.singles, x.addrs)
				}
			}
			set(&r)
			list = append(list, r)
		}
		return list
	}
	for range g.IntN(6) {
		mapped := [...]string{"outside", "outside", "dmz"}[g.IntN(3)]
		g.n++
		switch g.IntN(5) {
		case 0: // exemption
			src, dst := g.some(insideHosts, 1), g.some(outsideHosts, 1)
			fmt.Fprintf(&g.lines, "access-list l%d permit ip host %s host %s\nnat (inside) 0 access-list l%[1]d\n", g.n, quad(src.from), quad(dst.from))
			exempt = append(exempt, modelRule{section: 1, real: "inside", kind: "identity", src: src, peer: dst, peerInside: dst, policy: true})
		case 1: // a host, or two
			n := 1 << g.IntN(2)
			src, to := span{insideHosts &^ 1, 0}, span{mappedHosts &^ 1, 0}
			src.from += 2 * uint32(g.IntN(3))
			to.from += 2 * uint32(g.IntN(3))
			src.to, to.to = src.from+uint32(n)-1, to.from+uint32(n)-1
			fmt.Fprintf(&g.lines, "static (inside,%s) %s %s netmask 255.255.255.%d\n", mapped, quad(to.from), quad(src.from), 256-n)
			static = append(static, modelRule{section: 1, real: "inside", mapped: mapped, kind: "static", src: src, to: to, policy: true})
		case 2: // a port
			r := modelRule{section: 1, real: "inside", mapped: mapped, kind: "static", policy: true, src: g.some(insideHosts, 1),
				to: g.some(mappedHosts, 1), proto: g.proto(), ofPort: g.port(1), toPort: g.port(1)}
			word := quad(r.to.from)
			if i := g.m.named(mapped); g.one(2) {
				r.to, word = span{i.addr, i.addr}, "interface"
			}
			fmt.Fprintf(&g.lines, "static (inside,%s) %s %s %d %s %d netmask 255.255.255.255\n", mapped, r.proto, word, r.toPort.from, quad(r.src.from), r.ofPort.from)
			static = append(static, r)
		case 3: // static for a peer
			r := modelRule{section: 1, real: "inside", mapped: mapped, kind: "static", policy: true, src: g.some(insideHosts, 1), to: g.some(mappedHosts, 1)}
			var entry string
			entry, r.peer, r.peerPorts, r.proto = peer()
			r.peerInside, r.peerPortInside = r.peer, r.peerPorts
			fmt.Fprintf(&g.lines, "access-list l%d permit "+entry+"\nstatic (inside,%s) %s access-list l%[1]d\n", g.n, "host "+quad(r.src.from), mapped, quad(r.to.from))
			static = append(static, r)
		case 4: // dynamic for a peer
			src := span{insideHosts &^ 7, insideHosts&^7 + 7}
			entry, p, ports, proto := peer()
			id := 1 + g.IntN(2)
			fmt.Fprintf(&g.lines, "access-list l%d permit "+entry+"\nnat (inside) %d access-list l%[1]d\n", g.n, quad(src.from)+" 255.255.255.248", id)
			policy = append(policy, dynamic("inside", false, id, src, func(r *modelRule) {
				r.section, r.peer, r.peerInside, r.peerPorts, r.peerPortInside, r.proto = 1, p, p, ports, ports, proto
			})...)
		}
	}
	var regular []modelRule
	for _, bits := range []int{29, 24, 0} { // the longest first
		if g.one(2) {
			continue
		}
		real, base, outside, word := "inside", uint32(insideHosts), false, ""
		if g.one(4) {
			real, base = "dmz", dmzHosts
			if outside = g.one(2); outside {
				word = " outside"
			}
		}
		size := uint32(uint64(1)<<(32-bits) - 1)
		src := span{base &^ size, base | size}
		id := g.IntN(3)
		fmt.Fprintf(&g.lines, "nat (%s) %d %s %s%s\n", real, id, quad(src.from), quad(^size), word)
		if bits == 0 {
			src = span{}
		}
		if id > 0 {
			regular = append(regular, dynamic(real, outside, id, src, func(*modelRule) {})...)
			continue
		}
		for _, i := range g.m.interfaces {
			if i.name != real && (outside || i.level <= g.m.named(real).level) {
				regular = append(regular, modelRule{section: 3, real: real, mapped: i.name, kind: "identity", src: src, policy: true, oneWay: true})
			}
		}
	}
	for _, list := range [][]modelRule{exempt, static, policy, regular} {
		g.rules = append(g.rules, list...)
	}
	g.access()
	return g.finish("8.0(4)")
}
