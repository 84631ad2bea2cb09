package appliance_test

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"patchbay/stack"
)

// This is NAT and access lists the slow way: lists walked from top to bottom, as
// the reference tells it (asa-cli.md, sections 1, 3, 5 and 6), with none of the
// box's own code for it.

// A span is addresses or ports from the first to the last; the zero span is any.
type span struct{ from, to uint32 }

func (s span) any() bool            { return s == span{} }
func (s span) has(n uint32) bool    { return s.any() || s.from <= n && n <= s.to }
func (s span) size() uint32         { return s.to - s.from + 1 }
func (s span) at(n uint32) uint32   { return s.from + n }
func (s span) with(n uint32) uint32 { return n - s.from }

// to is what n, which s has, is in t.
func (s span) shift(n uint32, t span) uint32 {
	if s.any() || t.any() {
		return n
	}
	return t.at(s.with(n))
}

// An end is an address and port.
type end struct{ addr, port uint32 }

func endOf(a netip.AddrPort) end {
	b := a.Addr().As4()
	return end{binary.BigEndian.Uint32(b[:]), uint32(a.Port())}
}

func (e end) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, e.addr))), uint16(e.port))
}

// A modelRule is one translation.
type modelRule struct {
	section      int
	name         string // of an object, which decides in section 2
	real, mapped string // nameif, "" any
	kind         string // "static", "identity", "dynamic", "refuse"

	src, to        span   // of a static rule
	toPort, ofPort span   // its ports, mapped and real
	proto          string // "" every one

	ranges, singles []span // of a dynamic one: given away whole; by ports
	byInterface     bool   // then ports of the interface's address
	round, extended bool
	flat            span // where a port that is not kept comes from

	peer, peerInside          span // as the world has it, and as the real side does
	peerPorts, peerPortInside span
	policy                    bool // the peer is never translated
	oneWay, outOnly           bool // nat 0; unidirectional
}

func (r *modelRule) about(proto string) bool { return r.proto == "" || r.proto == proto }

// bothWays says that the mapped side may open.
func (r *modelRule) bothWays() bool {
	return (r.kind == "static" || r.kind == "identity") && !r.oneWay && !r.outOnly
}

// twice says that the rule has the real side use names of its own for peers.
func (r *modelRule) twice() bool { return !r.policy && (!r.peer.any() || !r.peerPorts.any()) }

// owns says that e is a real end of r, knows that p is a peer of it, as the
// world has it.
func (r *modelRule) owns(e end) bool  { return r.src.has(e.addr) && r.ofPort.has(e.port) }
func (r *modelRule) knows(p end) bool { return r.peer.has(p.addr) && r.peerPorts.has(p.port) }

func (r *modelRule) mappedOf(e end) end {
	if r.kind == "identity" {
		return e
	}
	return end{r.src.shift(e.addr, r.to), r.ofPort.shift(e.port, r.toPort)}
}

func (r *modelRule) realOf(e end) (end, bool) {
	to := r.to
	if r.kind == "identity" {
		to = r.src
	}
	return end{to.shift(e.addr, r.src), r.toPort.shift(e.port, r.ofPort)}, to.has(e.addr) && r.toPort.has(e.port)
}

// A modelEntry is one entry of an access list.
type modelEntry struct {
	permit, inactive bool
	proto            string // "ip": every one
	srcs, dsts       []span // none is any
	ports            []span // of the destination
}

type modelList []modelEntry

func (l modelList) permits(proto string, src, dst end) (permit, decided bool) {
	has := func(list []span, n uint32) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(s span) bool { return s.has(n) })
	}
	for _, e := range l {
		if !e.inactive && (e.proto == "ip" || e.proto == proto) && has(e.srcs, src.addr) && has(e.dsts, dst.addr) && has(e.ports, dst.port) {
			return e.permit, true
		}
	}
	return false, false
}

type modelInterface struct {
	name  string
	level int
	addr  uint32
	net   span
}

// A model is a box: what its configuration says, and what it has given away.
type model struct {
	interfaces   []modelInterface // the first is where everything else is
	rules        []modelRule      // in order of search
	in, out      map[string]modelList
	global       modelList
	inter, intra bool
	control      bool // nat-control
	asCarried    bool // access lists are about addresses as packets carry them

	ports  map[portKey]end // whose they are
	given  map[givenKey]uint32
	turn   map[string]uint32 // of pools that go round
	nextOf map[span]uint32   // of ranges that are given away
	homes  map[homeKey]uint32
}

// A homeKey is a host in a pool of several addresses, where it stays with one.
type homeKey struct {
	pool string
	host uint32
}

type portKey struct {
	proto string
	at    end
	peer  end // of extended PAT
}

type givenKey struct {
	of   span
	host uint32
}

// sorted puts the rules in the order of search.
func sorted(rules []modelRule) []modelRule {
	rules = slices.Clone(rules)
	slices.SortStableFunc(rules, func(a, b modelRule) int {
		if a.section != b.section || a.section != 2 {
			return cmp.Compare(a.section, b.section)
		}
		dynamic := func(r modelRule) int {
			if r.kind == "dynamic" {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(dynamic(a), dynamic(b)), cmp.Compare(a.src.size(), b.src.size()),
			cmp.Compare(a.src.from, b.src.from), strings.Compare(a.name, b.name))
	})
	return rules
}

func at(want, is string) bool { return want == "" || want == is }

func (m *model) named(name string) modelInterface {
	return m.interfaces[slices.IndexFunc(m.interfaces, func(i modelInterface) bool { return i.name == name })]
}

// behind returns where a is, by the routes.
func (m *model) behind(a uint32) string {
	for _, i := range m.interfaces {
		if i.net.has(a) {
			return i.name
		}
	}
	return m.interfaces[0].name
}

// reaches says that what leaves by an interface finds a: there is a route by it,
// and for addresses of the networks of others it is the default one.
func (m *model) reaches(out string, a uint32) bool {
	return out == m.interfaces[0].name || m.behind(a) == out
}

// A modelFate is what the model says of a first packet.
type modelFate struct {
	out      string
	src, dst end // as it leaves
	dynamic  *modelRule
	drop     stack.Verdict // or Forward
}

// first decides about the first packet of a connection. A port that has to be
// chosen by chance is left 0 in src: see choice.
func (m *model) first(in, proto string, src, dst end) modelFate {
	drop := func(v stack.Verdict) modelFate { return modelFate{drop: v} }
	carried := dst

	// What is the destination really?
	var un *modelRule
	for i := range m.rules {
		r := &m.rules[i]
		if !r.about(proto) {
			continue
		}
		if r.bothWays() && at(r.mapped, in) && r.knows(src) {
			if e, ok := r.realOf(dst); ok {
				un, dst = r, e
				break
			}
		}
		if r.twice() && r.kind != "refuse" && at(r.real, in) && r.owns(src) && r.peerInside.has(dst.addr) && r.peerPortInside.has(dst.port) {
			un, dst = r, end{r.peerInside.shift(dst.addr, r.peer), r.peerPortInside.shift(dst.port, r.peerPorts)}
			break
		}
	}

	// Where to?
	out := ""
	switch {
	case un == nil && slices.ContainsFunc(m.interfaces, func(i modelInterface) bool { return i.addr == dst.addr }):
		return drop(stack.DropNoService)
	case un != nil && un.real == in:
		out = un.mapped
	case un != nil:
		out = un.real
	}
	if out == "" {
		out = m.behind(dst.addr)
	}

	// May it?
	from, to := m.named(in), m.named(out)
	if in == out && !m.intra || in != out && from.level == to.level && !m.inter {
		return drop(stack.DropSecurityLevel)
	}
	asked := dst
	if m.asCarried {
		asked = carried
	}
	inList, has := m.in[in]
	permit, decided := inList.permits(proto, src, asked)
	if !decided && m.global != nil {
		permit, decided = m.global.permits(proto, src, asked)
	}
	switch {
	case !has && m.global == nil && from.level < to.level:
		return drop(stack.DropSecurityLevel)
	case (has || m.global != nil) && !(decided && permit):
		return drop(stack.DropACL)
	}
	outList, has := m.out[out]
	if !m.asCarried && has {
		if permit, _ := outList.permits(proto, src, dst); !permit {
			return drop(stack.DropACL)
		}
	}

	// As whom?
	var by *modelRule
	peer := false
	for i := range m.rules {
		r := &m.rules[i]
		if !r.about(proto) {
			continue
		}
		if at(r.real, in) && at(r.mapped, out) && r.owns(src) && r.knows(dst) {
			by = r
			break
		}
		if r.bothWays() && r.twice() && at(r.mapped, in) && at(r.real, out) && r.knows(src) && r.owns(dst) {
			by, peer = r, true
			break
		}
	}
	if by != nil && by.kind == "refuse" {
		return drop(stack.DropNoTranslation)
	}

	// Would an answer come back the same way?
	var answer *modelRule
	for i := range m.rules {
		r := &m.rules[i]
		if r.outOnly || !r.about(proto) {
			continue
		}
		if at(r.real, out) && at(r.mapped, in) && r.owns(dst) && r.knows(src) ||
			r == by && r.twice() && at(r.real, in) && at(r.mapped, out) {
			answer = r
			break
		}
	}
	if answer != un {
		return drop(stack.DropNATReverse)
	}
	if m.control && m.lacks(from, to, by, un) {
		return drop(stack.DropNoTranslation)
	}
	f := modelFate{out: out, src: src, dst: dst, drop: stack.Forward}
	switch {
	case by == nil:
	case peer:
		f.src = end{by.peer.shift(src.addr, by.peerInside), by.peerPorts.shift(src.port, by.peerPortInside)}
	case by.kind != "dynamic":
		f.src = by.mappedOf(src)
	default:
		f.dynamic = by
		var ok bool
		if f.src, ok = m.give(by, proto, out, src, dst); !ok {
			return drop(stack.DropNAT)
		}
	}
	return f
}

// lacks says that nat-control wants a rule that is not there.
func (m *model) lacks(from, to modelInterface, by, un *modelRule) bool {
	dynamic := func(higher bool) bool {
		return slices.ContainsFunc(m.rules, func(r modelRule) bool {
			return (r.kind == "dynamic" || r.kind == "refuse") && r.real == from.name && (!higher || m.named(r.mapped).level > from.level)
		})
	}
	switch {
	case from.level > to.level:
		return by == nil
	case from.level < to.level:
		return un == nil || by == nil && dynamic(true)
	}
	return by == nil && dynamic(false)
}

// give says what the dynamic rule r gives to a host, and keeps it but for a port
// that is chosen by chance.
func (m *model) give(r *modelRule, proto, out string, src, dst end) (end, bool) {
	for _, s := range r.ranges {
		if a, ok := m.given[givenKey{s, src.addr}]; ok {
			return end{a, src.port}, true
		}
	}
	for _, s := range r.ranges {
		for n := range s.size() {
			n = (m.nextOf[s] + n) % s.size()
			a := s.at(n)
			if m.named(out).addr == a || m.staticHas(out, a) || slices.Contains(m.all(), a) {
				continue
			}
			m.given[givenKey{s, src.addr}] = a
			m.nextOf[s] = (n + 1) % s.size()
			return end{a, src.port}, true
		}
	}
	var peer end
	if r.extended {
		peer = dst
	}
	var addrs []uint32
	for _, s := range r.singles {
		for n := range s.size() {
			addrs = append(addrs, s.at(n))
		}
	}
	if len(addrs) > 0 {
		return m.port(r, proto, out, src, peer, addrs)
	}
	if r.byInterface {
		return m.port(&modelRule{}, proto, out, src, end{}, []uint32{m.named(r.mapped).addr})
	}
	return end{}, false
}

// all returns the addresses that were given away.
func (m *model) all() []uint32 {
	var list []uint32
	for _, a := range m.given {
		list = append(list, a)
	}
	return list
}

func (m *model) staticHas(out string, a uint32) bool {
	return slices.ContainsFunc(m.rules, func(r modelRule) bool {
		_, ok := r.realOf(end{a, r.toPort.from})
		return (r.kind == "static" || r.kind == "identity") && at(r.mapped, out) && ok && !(r.kind == "identity" && r.src.any())
	})
}

// port is give for PAT. There are so few packets that no range is ever used up.
func (m *model) port(r *modelRule, proto, out string, src, peer end, addrs []uint32) (end, bool) {
	first, pool := uint32(0), ""
	for _, s := range r.singles {
		pool += string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, s.from), s.to))
	}
	if r.round {
		first = m.turn[pool]
	}
	a := addrs[first]
	if home, ok := m.homes[homeKey{pool, src.addr}]; ok {
		a = home
	} else if len(addrs) > 1 {
		m.homes[homeKey{pool, src.addr}] = a
		if r.round {
			m.turn[pool] = (first + 1) % uint32(len(addrs))
		}
	}
	for k, e := range m.ports {
		if k.proto == proto && k.at.addr == a && e == src && k.peer == peer {
			return k.at, true // has it
		}
	}
	if !m.free(proto, out, end{a, src.port}, peer) {
		return end{a, 0}, true
	}
	m.ports[portKey{proto, end{a, src.port}, peer}] = src
	return end{a, src.port}, true
}

// free says that a port may be given away.
func (m *model) free(proto, out string, e, peer end) bool {
	for k := range m.ports {
		if k.proto == proto && k.at == e && (k.peer == end{} || peer == end{} || k.peer == peer) {
			return false
		}
	}
	return !slices.ContainsFunc(m.rules, func(r modelRule) bool {
		return r.kind == "static" && r.proto == proto && !r.toPort.any() && at(r.mapped, out) && r.to.has(e.addr) && r.toPort.has(e.port)
	})
}

// chosen says whether the port that the box chose is one it may choose, and
// keeps it.
func (m *model) chosen(f modelFate, proto string, src end, port uint32) bool {
	in := span{1024, 65535}
	switch {
	case !f.dynamic.flat.any() && f.src.addr != m.named(f.out).addr:
		in = f.dynamic.flat
	case src.port < 512:
		in = span{1, 511}
	case src.port < 1024:
		in = span{512, 1023}
	}
	var peer end
	if f.dynamic.extended && slices.ContainsFunc(f.dynamic.singles, func(s span) bool { return s.has(f.src.addr) }) {
		peer = f.dst
	}
	e := end{f.src.addr, port}
	if !in.has(port) || !m.free(proto, f.out, e, peer) {
		return false
	}
	m.ports[portKey{proto, e, peer}] = src
	return true
}
