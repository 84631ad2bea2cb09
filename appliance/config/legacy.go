package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"patchbay/appliance/cli"
)

// legacy is the NAT of before 8.3 as it is written, until convertLegacy makes
// rules of it. (reference/asa-cli.md, section 5.3.)
type legacy struct {
	statics []legacyStatic
	nats    []legacyNAT
	globals []legacyGlobal
	line    int // of the first of any of them, or of nat-control; 0 if there is none
}

type legacyStatic struct {
	natLine
	list string // access list whose sources are mapped for its destinations, "" if an address stands there
}

type legacyNAT struct {
	line      int
	iface     string
	id        int // 0 translates nothing
	prefix    netip.Prefix
	list      string // access list in place of prefix
	connMax   int
	embryonic int
	dns       bool
}

type legacyGlobal struct {
	line  int
	iface string
	id    int
	addrs AddrSpec // not valid for the interface's address
}

// legacyCommands are NAT of before 8.3.
func legacyCommands() []command {
	const limits = " [dns|norandomseq|limit={[tcp] <conns:0-65535> [<embryonic:0-65535>]|udp <udpconns:0-65535>}]..."
	return []command{
		cmd("static <pair> {<mapped:addr>|interface} {<real:addr> [netmask <mask>]|access-list <acl:name>}"+limits, parseStatic),
		cmd("static <pair> proto={tcp|udp} {<mapped:addr>|interface} <mappedport:port> <real:addr> <realport:port> [netmask <mask>]"+limits, parseStatic),
		cmd("global <in:paren> <id:1-2147483647> {interface|<range:addrrange> [netmask <mask>]}", parseGlobal),
		cmd("nat <in:paren> <id:0-2147483647> {{<net:addr>|0} [<mask>|0]|access-list <acl:name>} [outside]"+limits, parseLegacyNAT),
		cmd("nat-control", func(p *parser, a cli.Args) {
			if p.old(a.Token("nat-control")) {
				p.run.NATControl = p.line
			}
		}),
		cmd("no nat-control", func(p *parser, a cli.Args) { p.run.NATControl = 0 }),
	}
}

// before83 reports whether the version line says a version in which NAT and
// access lists had their old form; known is false if there is none.
func (p *parser) before83() (old, known bool) {
	major, minor, ok := versionOf(p.run.Version)
	return ok && (major < 8 || major == 8 && minor < 3), ok
}

// versionOf reads "9.1(7)" as 9, 1.
func versionOf(v string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(v, ".")
	second, _, _ := strings.Cut(rest, "(")
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	return major, minor, err1 == nil && err2 == nil
}

// old notes a line of before 8.3. It refuses it in a file of a later version.
func (p *parser) old(tok cli.Token) bool {
	if old, known := p.before83(); known && !old {
		p.refuse(tok, "", "%s is NAT of before 8.3, and this file is of %s; write nat in an object network", tok.Text, p.run.Version)
		return false
	}
	if p.legacy.line == 0 {
		p.legacy.line = p.line
	}
	return true
}

// classMask returns how long the mask of an address is that has none written:
// by its class, or 32 of a host in that network.
func classMask(a netip.Addr) int {
	n := 24
	switch b := a.As4()[0]; {
	case b < 128:
		n = 8
	case b < 192:
		n = 16
	}
	if netip.PrefixFrom(a, n).Masked().Addr() != a {
		return 32
	}
	return n
}

func parseStatic(p *parser, a cli.Args) {
	if !p.old(a.Token("static")) {
		return
	}
	var s legacyStatic
	n := &s.rule
	n.Line, n.Section, n.Static, n.Legacy = p.line, ManualNAT, true, true
	n.RealIf, n.MappedIf, _ = parsePair(a.Get("pair"))
	n.MappedInterface, n.DNS = a.Has("interface"), a.Has("dns")
	n.ConnMax, n.EmbryonicMax = a.Int("limit.conns", 0), a.Int("limit.embryonic", 0)
	n.ConnMax = max(n.ConnMax, a.Int("limit.udpconns", 0))
	s.noMapped = n.MappedInterface
	if a.Has("mapped") {
		s.mappedAddr, _ = p.addr(a.Get("mapped"))
	}
	s.list = a.Get("acl")
	if n.RealIf == "" || n.MappedIf == "" {
		p.refuse(a.Token("pair"), "", "static needs the names of two interfaces, as in (inside,outside)")
		return
	}
	if a.Has("real") {
		real, _ := p.addr(a.Get("real"))
		bits := classMask(real)
		if a.Has("mask") {
			bits, _ = parseMask(a.Get("mask"))
		}
		prefix := netip.PrefixFrom(real, bits)
		if a.Has("mappedport") {
			bits = 32
		}
		if bits < 32 && (prefix.Masked().Addr() != real || s.mappedAddr.IsValid() && netip.PrefixFrom(s.mappedAddr, bits).Masked().Addr() != s.mappedAddr) {
			p.refuse(a.Token("real"), "", "a netmask of %d ones needs the addresses of networks on both sides", bits)
			return
		}
		s.reals = []AddrSpec{{From: real, To: lastAddr(netip.PrefixFrom(real, bits))}}
	}
	if a.Has("mappedport") {
		n.Proto = "tcp"
		if a.Has("proto.udp") {
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
	p.legacy.statics = append(p.legacy.statics, s)
}

func parseGlobal(p *parser, a cli.Args) {
	if !p.old(a.Token("global")) {
		return
	}
	g := legacyGlobal{line: p.line, iface: strings.Trim(a.Get("in"), "()"), id: a.Int("id", 0)}
	if a.Has("range") {
		g.addrs, _ = p.addrRange(a.Get("range"))
	}
	p.legacy.globals = append(p.legacy.globals, g)
}

func parseLegacyNAT(p *parser, a cli.Args) {
	if !p.old(a.Token("nat")) {
		return
	}
	n := legacyNAT{line: p.line, iface: strings.Trim(a.Get("in"), "()"), id: a.Int("id", 0), list: a.Get("acl"), dns: a.Has("dns"),
		connMax: max(a.Int("limit.conns", 0), a.Int("limit.udpconns", 0)), embryonic: a.Int("limit.embryonic", 0)}
	n.prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 0)
	if a.Has("net") {
		addr, _ := p.addr(a.Get("net"))
		bits := classMask(addr)
		if addr.IsUnspecified() {
			bits = 0
		}
		if a.Has("mask") {
			bits, _ = parseMask(a.Get("mask"))
		}
		n.prefix = netip.PrefixFrom(addr, bits)
		if n.prefix.Masked() != n.prefix {
			p.refuse(a.Token("net"), "", "IP address,mask <%v,%s> doesn't pair: the network is %v", addr, a.Get("mask"), n.prefix.Masked().Addr())
			return
		}
	}
	p.legacy.nats = append(p.legacy.nats, n)
}

// addrRange reads "A" or "A-B".
func (p *parser) addrRange(word string) (AddrSpec, error) {
	first, last, isRange := strings.Cut(word, "-")
	if a, err := p.addr(word); err == nil { // a label may have a "-"
		return AddrSpec{From: a, To: a}, nil
	} else if !isRange {
		return AddrSpec{}, err
	}
	from, err := p.addr(first)
	if err != nil {
		return AddrSpec{}, err
	}
	to, err := p.addr(last)
	if err != nil {
		return AddrSpec{}, err
	}
	if to.Less(from) {
		return AddrSpec{}, errOrder(word)
	}
	return AddrSpec{From: from, To: to}, nil
}

// errOrder is a range that ends before it begins.
type errOrder string

func (e errOrder) Error() string { return string(e) + " ends before it begins" }

// convertLegacy makes nat lines of what was written before 8.3, in the order in
// which an ASA of before 8.3 searched: exemptions (nat 0 access-list), static
// lines, nat with an access list, nat by the longest prefix.
func (p *parser) convertLegacy() {
	old, known := p.before83()
	p.run.MappedACL = old || !known && p.legacy.line > 0
	if p.legacy.line > 0 && len(p.nat) > 0 {
		p.at(p.legacy.line)
		p.refuse(cli.Split(p.text)[0], "", "NAT of before 8.3 here and of 8.3 and later in line %d cannot be together", p.nat[0].rule.Line)
		return
	}
	for _, n := range p.legacy.nats {
		if n.id == 0 && n.list != "" {
			p.listNAT(n)
		}
	}
	for _, s := range p.legacy.statics {
		if s.list == "" {
			p.nat = append(p.nat, s.natLine)
		} else {
			p.listStatic(s)
		}
	}
	for _, n := range p.legacy.nats {
		if n.id > 0 && n.list != "" {
			p.listNAT(n)
		}
	}
	var regular []legacyNAT
	for _, n := range p.legacy.nats {
		if n.list == "" {
			regular = append(regular, n)
		}
	}
	slices.SortStableFunc(regular, func(a, b legacyNAT) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	for _, n := range regular {
		reals := []AddrSpec{{From: n.prefix.Addr(), To: lastAddr(n.prefix), Any: n.prefix.Bits() == 0}}
		p.dynamic(n, AfterAutoNAT, reals, nil)
	}
}

// dynamic adds what a nat line means for sources to one range of destinations,
// nil for all: a rule to each interface with a global line of its number.
func (p *parser) dynamic(n legacyNAT, section int, reals, dests []AddrSpec) {
	rule := NATRule{Line: n.line, Section: section, RealIf: n.iface, Legacy: true, ConnMax: n.connMax, EmbryonicMax: n.embryonic, DNS: n.dns}
	if n.id == 0 {
		rule.Static, rule.Unidirectional = true, dests == nil // of an exemption both sides open
		p.nat = append(p.nat, natLine{rule: rule, reals: reals, identity: true, narrowed: dests != nil, dests: dests})
		return
	}
	var to []string
	for _, g := range p.legacy.globals {
		if g.id == n.id && !slices.Contains(to, g.iface) {
			to = append(to, g.iface)
		}
	}
	if to == nil {
		p.at(n.line)
		p.warn(p.word(strconv.Itoa(n.id)), "", "there is no global line of number %d, so nothing is translated by this one", n.id)
	}
	for _, iface := range to {
		l := natLine{rule: rule, reals: reals, narrowed: dests != nil, dests: dests, noMapped: true}
		l.rule.MappedIf = iface
		for _, ranges := range []bool{true, false} { // ranges are used up first
			for _, g := range p.legacy.globals {
				switch {
				case g.id != n.id || g.iface != iface:
				case !g.addrs.From.IsValid():
					l.rule.MappedInterface = true
				case (g.addrs.From != g.addrs.To) == ranges:
					l.mappeds, l.noMapped = append(l.mappeds, g.addrs), false
				}
			}
		}
		p.nat = append(p.nat, l)
	}
}

// listNAT adds what a nat line with an access list means.
func (p *parser) listNAT(n legacyNAT) {
	entries, ok := p.natList(n.line, n.list)
	if !ok {
		return
	}
	for _, e := range entries {
		for _, d := range e.Dsts {
			p.dynamic(n, ManualNAT, e.Srcs, []AddrSpec{d})
		}
	}
}

// listStatic adds what a static line with an access list means: all its
// entries have the same sources.
func (p *parser) listStatic(s legacyStatic) {
	entries, ok := p.natList(s.rule.Line, s.list)
	if !ok {
		return
	}
	for _, e := range entries {
		if !slices.Equal(e.Srcs, entries[0].Srcs) {
			p.at(s.rule.Line)
			p.refuse(p.word(s.list), "", "the entries of access list %s have different sources, which cannot all be mapped to the one", s.list)
			return
		}
		l := s.natLine
		l.reals, l.dests, l.narrowed = e.Srcs, e.Dsts, true
		p.nat = append(p.nat, l)
	}
}

// natList returns the entries of an access list of a NAT line, which may say
// addresses only.
func (p *parser) natList(line int, name string) ([]ACE, bool) {
	p.at(line)
	l := p.run.AccessList(name)
	if l == nil {
		var names []string
		for _, l := range p.run.AccessLists {
			names = append(names, l.Name)
		}
		p.refuse(p.word(name), "V04", "there is no access list %s; %s", name, nearestOf(name, names))
		return nil, false
	}
	var list []ACE
	for _, e := range l.Entries {
		switch {
		case e.IsRemark() || e.Inactive || len(e.Services) == 0: // nothing, or refused
		case !e.Permit || len(e.Services) != 1 || e.Services[0].Proto != 0 || e.TimeRange != "":
			p.refuse(p.word(name), "", "line %d of access list %s is not permit ip: deny and ports in the access list of NAT are not supported yet by this version", e.Line, name)
			return nil, false
		default:
			list = append(list, e)
		}
	}
	return list, true
}
