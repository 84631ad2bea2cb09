package config

import (
	"net/netip"
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
	outside   bool   // also toward interfaces of a higher level
	connMax   int
	udpMax    int
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
		cmd("static <pair> {<mapped:addr>|interface} {<real:addr> [netmask <mask>]|access-list <acl:name>}"+limits, each, parseStatic),
		cmd("static <pair> proto={tcp|udp} {<mapped:addr>|interface} <mappedport:port> <real:addr> <realport:port> [netmask <mask>]"+limits, each, parseStatic),
		cmd("static <pair> proto={tcp|udp} {<mapped:addr>|interface} <mappedport:port> access-list <acl:name>"+limits, each, parseStatic),
		cmd("global <in:paren> <id:1-2147483647> {interface|<range:addrrange> [netmask <mask>]}", each, parseGlobal),
		cmd("nat <in:paren> <id:0-2147483647> {{<net:addr>|0} [<mask>|0]|access-list <acl:name>} [outside]"+limits, each.spelled(spellZeros), parseLegacyNAT),
		cmd("nat-control", one, func(p *parser, a cli.Args) {
			if p.old(a.Token("nat-control")) {
				p.run.NATControl = p.line
			}
		}),
		cmd("no nat-control", one, func(p *parser, a cli.Args) { p.run.NATControl = 0 }),
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
	n.ConnMax, n.EmbryonicMax, n.UDPMax = a.Int("limit.conns", 0), a.Int("limit.embryonic", 0), a.Int("limit.udpconns", 0)
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
			if v == 0 && a.Has(name) {
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
		connMax: a.Int("limit.conns", 0), udpMax: a.Int("limit.udpconns", 0), embryonic: a.Int("limit.embryonic", 0), outside: a.Has("outside")}
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
