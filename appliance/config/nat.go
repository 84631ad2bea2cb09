package config

import (
	"net/netip"
	"slices"

	"patchbay/appliance/cli"
)

// The sections of the NAT table, searched in this order. (reference/asa-cli.md,
// section 5.2.)
const (
	ManualNAT    = 1 // twice NAT, and what becomes of static lines of before 8.3
	AutoNAT      = 2 // object NAT
	AfterAutoNAT = 3 // twice NAT after-auto, and what becomes of nat and global lines of before 8.3
)

const (
	maxRulesOfLine = 4096    // NAT rules that a line with object groups becomes
	maxMoreRules   = 1 << 16 // and all such lines together, beyond one for each
)

// A NATRule is one translation, whole in itself: what objects stand for is in
// place of their names. A line that names object groups becomes several, one
// for each piece that is one range on both sides, with the same Line.
// (reference/asa-cli.md, section 5.)
//
// Running.NAT has those of sections 1 and 3 in the order in which they are to
// be searched, with "nat ... LINE" obeyed; those of section 2 are in the order
// of the text and must be sorted. Sections are mixed as in the text.
//
// Ranges are inclusive, and any address is 0.0.0.0 to 255.255.255.255. Of a
// rule that was refused RealFrom is not valid.
type NATRule struct {
	Line             int
	Section          int    // ManualNAT, AutoNAT or AfterAutoNAT
	Object           string // the object network it stands in; "" of sections 1 and 3
	RealIf, MappedIf string // "" is any
	Static           bool   // else dynamic
	Legacy           bool   // made of lines of before 8.3

	// RealFrom to RealTo are the source's addresses, MappedFrom to MappedTo
	// those they are mapped to. Of a static rule there are as many, the first
	// to the first; the same on both sides is identity. With MappedInterface
	// and no mapped range the address is that of MappedIf.
	RealFrom, RealTo     netip.Addr
	MappedFrom, MappedTo netip.Addr
	MappedAddr           netip.Addr // MappedFrom if it is one address
	MappedObject         string     // the object or group named as mapped, "" if an address stood there
	MappedInterface      bool       // the interface's address; beside a range, when that is used up

	// Of a dynamic rule. Pool is all ranges of an object group in its order,
	// nil where MappedFrom to MappedTo is all there is. Without PATPool an ASA
	// gives addresses of ranges away one to one and maps by ports to single
	// ones (dynamic NAT); with it, and to one address, by ports always.
	Pool           []AddrSpec
	PATPool        bool // pat-pool
	RoundRobin     bool // of a PAT pool: another address for each new host
	Extended       bool // of a PAT pool: ports are counted for each destination
	Flat           bool // of a PAT pool: 1024 to 65535 is one range of ports
	IncludeReserve bool // beside Flat: from port 1

	// The destination to which a rule of section 1 or 3 is narrowed, none if
	// DestFrom is not valid. The real side sends to MappedDestFrom to
	// MappedDestTo, and the packets go to DestFrom to DestTo, as many.
	// MappedDestInterface says that the former is the address of RealIf.
	DestFrom, DestTo             netip.Addr
	MappedDestFrom, MappedDestTo netip.Addr
	MappedDestInterface          bool

	// Proto is "tcp" or "udp" of a rule with service, else "" and there are no
	// ports. RealPort and MappedPort are those of the source where it is one
	// port (static PAT), else 0. SrcPorts to MappedSrcPorts and DstPorts to
	// MappedDstPorts are ranges of the same length; zero is any, kept as it is.
	// As with addresses, the real side sends to MappedDstPorts.
	Proto                    string
	RealPort, MappedPort     uint16
	SrcPorts, MappedSrcPorts PortSpec
	DstPorts, MappedDstPorts PortSpec
	NoProxyARP, RouteLookup  bool
	DNS                      bool // addresses in answers of the DNS are translated as well
	NetToNet                 bool // of IPv4 as without
	Unidirectional           bool // the mapped side does not open connections
	Inactive                 bool // as if it were not there
	Description              string

	// Of lines of before 8.3. NoGlobal says that MappedIf has no global line of
	// the rule's number, and what the rule matches is dropped. OneWay is of an
	// identity rule whose mapped side does not reach the real one at all. The
	// limits are connections of one host, TCP, UDP and half-open TCP; 0 is none.
	NoGlobal                      bool
	OneWay                        bool
	ConnMax, UDPMax, EmbryonicMax int
}

// Identity reports whether n is a static rule that translates nothing: it keeps
// packets from the rules after it.
func (n *NATRule) Identity() bool {
	return n.Static && n.MappedFrom.IsValid() && n.RealFrom == n.MappedFrom && n.SrcPorts == n.MappedSrcPorts
}

// label names the rule in messages.
func (n *NATRule) label() string {
	switch {
	case n.Object != "":
		return "object " + n.Object
	case n.RealFrom == n.RealTo:
		return n.RealFrom.String()
	}
	return n.RealFrom.String() + "-" + n.RealTo.String()
}

// A natLine is a nat line as it is written.
type natLine struct {
	rule               NATRule
	real, mapped       string // objects or groups; "" is any
	dest, mappedDest   string
	service1, service2 string     // objects: real source and mapped destination, then the other way round
	mappedAddr         netip.Addr // an address written out
	identity           bool       // mapped to what it is
	noMapped           bool       // to the interface only
	narrowed           bool       // there is a destination

	// In place of names, of before 8.3.
	reals, mappeds, dests []AddrSpec
}

const (
	poolOptions  = "[round-robin|extended|flat [include-reserve]|interface]..."
	twiceOptions = " [dns|net-to-net|unidirectional|no-proxy-arp|route-lookup|inactive]... [description <text:line>]"
)

// twiceNATCommands are NAT outside of an object. (reference/asa-cli.md, section 5.2.)
func twiceNATCommands() []command {
	const (
		head = "nat [<pair>] [<number:1-2147483647>] [after-auto [<number:1-2147483647>]] source "
		dest = " [destination static mdest={any|<name>|interface} dest={any|<name>}]" +
			" [service <service1:name> <service2:name>]" + twiceOptions
	)
	list := []command{
		cmd(head+"static real={any|<name>} mapped={any|<name>|interface}"+dest, each.spelled(placedNAT), parseTwiceNAT),
		cmd(head+"dynamic real={any|<name>} {mapped={<name> [interface]|interface}|pat-pool <pool:name> "+poolOptions+"}"+dest, each.spelled(placedNAT), parseTwiceNAT),
	}
	return append(list, notYet("NAT to IPv6", head+"{static|dynamic} <real:word> interface ipv6 [<rest:line>]")...)
}

// objectNATCommands are NAT in an object. (reference/asa-cli.md, section 5.1.)
func objectNATCommands() []command {
	const options = " [no-proxy-arp|route-lookup|dns|net-to-net]..."
	list := []command{
		cmd("nat <pair> static {<mapped:addr>|<object:name>|interface}"+options+
			" [service {tcp|udp} <realport:port> <mappedport:port>]"+options, by("nat"), parseObjectNAT),
		cmd("nat <pair> dynamic {<mapped:addr>|<object:name> [interface]|interface|pat-pool <pool:name> "+poolOptions+"} [dns]", by("nat"), parseObjectNAT),
	}
	return append(list, notYet("object NAT with this option", "nat <pair> static {<mapped:word>|interface} {ipv6|service sctp} [<rest:line>]",
		"nat <pair> dynamic interface ipv6 [<rest:line>]")...)
}

// natOptions reads what every form of nat may have.
func natOptions(a cli.Args) NATRule {
	n := NATRule{
		Static: !a.Has("dynamic"), PATPool: a.Has("pat-pool"), RoundRobin: a.Has("round-robin"), Extended: a.Has("extended"),
		Flat: a.Has("flat"), IncludeReserve: a.Has("include-reserve"), NoProxyARP: a.Has("no-proxy-arp"),
		RouteLookup: a.Has("route-lookup"), DNS: a.Has("dns"), NetToNet: a.Has("net-to-net"),
		Unidirectional: a.Has("unidirectional"), Inactive: a.Has("inactive"), Description: a.Get("text"),
	}
	if a.Has("pair") {
		n.RealIf, n.MappedIf, _ = parsePair(a.Get("pair"))
	}
	return n
}

func parseObjectNAT(p *parser, a cli.Args) {
	o := p.object()
	line := natLine{rule: natOptions(a), real: o.Name, mapped: a.Get("object")}
	n := &line.rule
	n.Line, n.Section, n.Object = p.line, AutoNAT, o.Name
	n.MappedInterface = a.Has("interface")
	if n.PATPool {
		line.mapped = a.Get("pool")
	}
	if a.Has("mapped") {
		line.mappedAddr, _ = p.addr(a.Get("mapped"))
	}
	line.noMapped = line.mapped == "" && !line.mappedAddr.IsValid()
	if a.Has("service") {
		n.Proto = "tcp"
		if a.Has("udp") {
			n.Proto = "udp"
		}
		for name, port := range map[string]*uint16{"realport": &n.RealPort, "mappedport": &n.MappedPort} {
			v, _ := parsePort(a.Get(name))
			if v == 0 {
				p.refuse(a.Token(name), "", "port 0 cannot be translated: 1 to 65535")
			}
			*port = uint16(v)
		}
		n.SrcPorts = PortSpec{From: n.RealPort, To: n.RealPort}
		n.MappedSrcPorts = PortSpec{From: n.MappedPort, To: n.MappedPort}
	}
	if before, ok := p.objectNAT[o.Name]; ok {
		p.refuse(a.Token("nat"), "V63", "object %s has a nat line already (line %d), and an object has one; "+
			"make another object with the same address", o.Name, before)
		return
	}
	p.objectNAT[o.Name] = p.line
	if p.mappedInterface(a.Token("interface"), n) {
		p.nat = append(p.nat, line)
	}
}

// mappedInterface refuses "interface" of a rule for any mapped interface.
func (p *parser) mappedInterface(tok cli.Token, n *NATRule) bool {
	if n.MappedInterface && n.MappedIf == "" {
		p.refuse(tok, "", "interface needs the name of the mapped interface in place of any, as in (inside,outside)")
		return false
	}
	return true
}

func parseTwiceNAT(p *parser, a cli.Args) {
	line := natLine{rule: natOptions(a), real: a.Get("real.name"), mapped: a.Get("mapped.name"),
		mappedDest: a.Get("mdest.name"), dest: a.Get("dest.name"), service1: a.Get("service1"), service2: a.Get("service2")}
	n := &line.rule
	n.Line, n.Section = p.line, ManualNAT
	if a.Has("after-auto") {
		n.Section = AfterAutoNAT
	}
	n.MappedInterface = a.Has("mapped.interface") || a.Has("interface")
	if n.PATPool {
		line.mapped = a.Get("pool")
	}
	line.noMapped = a.Has("mapped.interface") && line.mapped == ""
	line.identity = line.mapped == "" && !line.noMapped
	n.MappedDestInterface = a.Has("mdest.interface")
	line.narrowed = n.MappedDestInterface || line.mappedDest != "" || line.dest != ""
	switch {
	case line.identity && line.real != "":
		p.refuse(a.Token("mapped.any"), "", "object %s cannot be mapped to any; name it twice to leave it as it is", line.real)
		return
	case !p.mappedInterface(a.Token("source"), n):
		return
	case n.MappedDestInterface && n.RealIf == "":
		p.refuse(a.Token("mdest.interface"), "", "interface as destination needs the name of the real interface in place of any, as in (inside,outside)")
		return
	}
	at, nth := len(p.nat), a.Int("number", 0)
	if nth > 0 {
		for i, l := range p.nat {
			if l.rule.Section == n.Section {
				if nth--; nth == 0 {
					at = i
					break
				}
			}
		}
	}
	p.nat = slices.Insert(p.nat, at, line)
}

// resolveNAT makes the rules of the lines. A line that cannot be one leaves a
// rule without real addresses.
func (p *parser) resolveNAT() {
	p.convertLegacy()
	for _, l := range p.nat {
		p.at(l.rule.Line)
		rules, ok := p.rulesOf(&l)
		if !ok {
			n := l.rule
			n.RealFrom, n.RealTo = netip.Addr{}, netip.Addr{}
			rules = []NATRule{n}
		}
		p.run.NAT = append(p.run.NAT, rules...)
	}
}

// ranges returns the addresses of the object or object group called name in
// the current line, or refuses the line. "" is any.
func (p *parser) ranges(name string) ([]AddrSpec, bool) {
	if name == "" {
		return []AddrSpec{anyAddr()}, true
	}
	if _, ok := p.objects[name]; !ok {
		if _, ok := p.groups[name]; ok {
			g, ok := p.whole(name, NetworkGroup)
			if !ok {
				return nil, false
			}
			return g.Addrs, p.notEmpty(g)
		}
	}
	spec, ok := p.resolved(name)
	return []AddrSpec{spec}, ok
}

// size is how many addresses list has.
func size(list []AddrSpec) int64 {
	n := int64(0)
	for _, s := range list {
		n += span(s.From, s.To)
	}
	return n
}

// rulesOf returns the rules that a line means.
func (p *parser) rulesOf(l *natLine) ([]NATRule, bool) {
	n := l.rule
	n.MappedObject = l.mapped
	real, ok := l.reals, true
	if real == nil {
		if real, ok = p.ranges(l.real); !ok {
			return nil, false
		}
	}
	mapped := real // of an identity rule
	switch {
	case l.mappeds != nil:
		mapped = l.mappeds
	case l.mapped != "":
		if mapped, ok = p.ranges(l.mapped); !ok {
			return nil, false
		}
	case l.mappedAddr.IsValid():
		last := l.mappedAddr
		if n.Static {
			if last, ok = advance(l.mappedAddr, size(real)-1); !ok {
				p.refuse(p.word(l.mappedAddr.String()), "", "%d addresses are to be mapped, and there are not so many from %v on", size(real), l.mappedAddr)
				return nil, false
			}
		}
		mapped = []AddrSpec{{From: l.mappedAddr, To: last}}
	case l.noMapped:
		mapped = nil
	}
	if !p.sizes(l, real, mapped) || !p.natServices(l, &n) {
		return nil, false
	}
	dests := []addrPair{{}}
	if l.narrowed {
		if dests, ok = p.natDestinations(l); !ok {
			return nil, false
		}
	}
	var sources []addrPair
	switch {
	case n.Static && mapped != nil:
		sources = pair(real, mapped)
	default:
		for _, r := range real {
			s := addrPair{real: r}
			if mapped != nil {
				s.mapped = mapped[0]
			}
			sources = append(sources, s)
		}
		if len(mapped) > 1 {
			n.Pool = mapped
		}
	}
	if len(sources)*len(dests) > maxRulesOfLine {
		p.refuse(cli.Token{}, "", "the object-groups of this line make %d rules of it: %d at most", len(sources)*len(dests), maxRulesOfLine)
		return nil, false
	}
	if p.moreRules += len(sources)*len(dests) - 1; p.moreRules > maxMoreRules {
		p.refuse(cli.Token{}, "", "the object-groups of NAT lines up to here make more than %d rules", maxMoreRules)
		return nil, false
	}
	var rules []NATRule
	for _, s := range sources {
		for _, d := range dests {
			r := n
			r.RealFrom, r.RealTo, r.MappedFrom, r.MappedTo = s.real.From, s.real.To, s.mapped.From, s.mapped.To
			r.DestFrom, r.DestTo, r.MappedDestFrom, r.MappedDestTo = d.real.From, d.real.To, d.mapped.From, d.mapped.To
			if r.MappedFrom == r.MappedTo && len(r.Pool) == 0 {
				r.MappedAddr = r.MappedFrom
			}
			rules = append(rules, r)
		}
	}
	return rules, true
}

// sizes refuses a static line with more addresses on one side.
func (p *parser) sizes(l *natLine, real, mapped []AddrSpec) bool {
	n := &l.rule
	r := size(real)
	what := "object " + l.real
	if l.real == "" {
		what = "the source"
	}
	switch {
	case !n.Static:
	case mapped == nil && r != 1:
		p.refuse(p.word("interface"), "", "%s is %d addresses, and the interface is one; make it a host or the rule dynamic", what, r)
		return false
	case mapped != nil && size(mapped) != r:
		p.refuse(p.word(l.mapped), "", "%s is %d addresses and %s is %d; a static rule needs as many on both sides",
			what, r, l.mapped, size(mapped))
		return false
	case n.Object != "" && n.Proto != "" && r != 1:
		p.refuse(p.word("service"), "", "%s is %d addresses; service translates one host", what, r)
		return false
	}
	return true
}

// An addrPair is a range and the range of the same size it is mapped to.
type addrPair struct{ real, mapped AddrSpec }

// pair cuts two lists of the same size into pairs of ranges, the first address
// to the first.
func pair(real, mapped []AddrSpec) []addrPair {
	var list []addrPair
	real, mapped = slices.Clone(real), slices.Clone(mapped)
	for len(real) > 0 && len(mapped) > 0 {
		r, m := &real[0], &mapped[0]
		n := min(span(r.From, r.To), span(m.From, m.To))
		x := addrPair{*r, *m}
		x.real.To, _ = advance(r.From, n-1)
		x.mapped.To, _ = advance(m.From, n-1)
		list = append(list, x)
		if x.real.To == r.To {
			real = real[1:]
		} else {
			r.From, _ = advance(r.From, n)
		}
		if x.mapped.To == m.To {
			mapped = mapped[1:]
		} else {
			m.From, _ = advance(m.From, n)
		}
	}
	return list
}

// natDestinations returns the destinations of a line and what the real side
// sends to for them.
func (p *parser) natDestinations(l *natLine) ([]addrPair, bool) {
	if l.dests != nil {
		return pair(l.dests, l.dests), true
	}
	real, ok1 := p.ranges(l.dest)
	mapped, ok2 := real, true
	switch {
	case l.rule.MappedDestInterface:
		i := p.run.Interface(l.rule.RealIf)
		if i == nil || !i.Addr.IsValid() {
			p.refuse(p.word("interface"), "", "interface %s has no address", l.rule.RealIf)
			return nil, false
		}
		mapped = []AddrSpec{{From: i.Addr.Addr(), To: i.Addr.Addr()}}
	default:
		mapped, ok2 = p.ranges(l.mappedDest)
	}
	if !ok1 || !ok2 {
		return nil, false
	}
	if size(real) != size(mapped) {
		p.refuse(p.word("destination"), "", "the destination is %d addresses and is mapped to %d; there must be as many on both sides", size(real), size(mapped))
		return nil, false
	}
	return pair(real, mapped), true
}

// natServices reads the two service objects of a line.
func (p *parser) natServices(l *natLine, n *NATRule) bool {
	if l.service1 == "" {
		return true
	}
	one, ok1 := p.serviceOf(l.service1)
	two, ok2 := p.serviceOf(l.service2)
	if !ok1 || !ok2 {
		return false
	}
	switch {
	case one.Proto != two.Proto:
		p.refuse(p.word(l.service2), "", "object services %s and %s are of two protocols", l.service1, l.service2)
		return false
	case one.Proto == protoTCP:
		n.Proto = "tcp"
	case one.Proto == protoUDP:
		n.Proto = "udp"
	default:
		p.refuse(p.word(l.service1), "", "object service %s is not of tcp or udp, and NAT translates only their ports", l.service1)
		return false
	}
	ok := true
	set := func(real, mapped []PortSpec, toReal, toMapped *PortSpec) {
		if len(real) == 0 && len(mapped) == 0 {
			return
		}
		if len(real) == 0 || len(mapped) == 0 || real[0].Not || mapped[0].Not || real[0].To-real[0].From != mapped[0].To-mapped[0].From {
			p.refuse(p.word(l.service2), "", "object services %s and %s need as many source and as many destination ports, without neq", l.service1, l.service2)
			ok = false
			return
		}
		*toReal, *toMapped = real[0], mapped[0]
	}
	set(one.SrcPorts, two.SrcPorts, &n.SrcPorts, &n.MappedSrcPorts)
	if ok {
		set(two.DstPorts, one.DstPorts, &n.DstPorts, &n.MappedDstPorts)
	}
	switch {
	case !ok:
		return false
	case n.SrcPorts.IsAny() && n.DstPorts.IsAny():
		p.refuse(p.word(l.service1), "", "object service %s names no ports", l.service1)
		return false
	case !n.Static && !n.SrcPorts.IsAny():
		p.refuse(p.word(l.service1), "", "a dynamic rule chooses source ports itself; object service %s may have a destination only", l.service1)
		return false
	}
	if n.SrcPorts.From == n.SrcPorts.To && !n.SrcPorts.IsAny() {
		n.RealPort, n.MappedPort = n.SrcPorts.From, n.MappedSrcPorts.From
	}
	return true
}
