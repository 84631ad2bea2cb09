package config

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"patchbay/appliance/cli"
)

const (
	aclAddress = "{any|any4|any6|host <addr>|<net:addr> <mask>|object <name>|object-group <group:name>|interface <if>}"
	aclPorts   = "eq <port>|neq <port>|lt <port>|gt <port>|range <from:port> <to:port>"
)

// accessCommands are objects, translations and access lists. (reference/asa-cli.md,
// sections 4 to 6.)
func accessCommands() []command {
	list := []command{
		cmd("object network <name>", func(p *parser, a cli.Args) {
			p.enter(inObject, findOrAdd(&p.run.Objects, func(o *Object) bool { return o.Name == a.Get("name") },
				func() Object { return Object{Line: p.line, Name: a.Get("name")} }))
		}),
		cmd("access-list <name> [line <number:1-2147483647>] remark <text:line>", parseRemark),
		cmd("access-list <name> [line <number:1-2147483647>] [extended] {permit|deny} "+
			"{<proto>|object <service:name>|object-group <services:name>} "+
			"src="+aclAddress+" [sport={"+aclPorts+"}] dst="+aclAddress+
			" [dport={"+aclPorts+"|object-group <group:name>}|<type:icmptype> [<code:0-255>]]"+
			" [log [default|disable|<level> [interval <seconds:1-600>]|interval <seconds:1-600>]]"+
			" [time-range <time:name>] [inactive]", parseACE),
		cmd("access-group <name> {in|out} interface <if>", parseAccessGroup),
		cmd("access-group <name> global", parseAccessGroup),
	}
	list = append(list, notYet("object-group", "object-group <rest:line>")...)
	list = append(list, notYet("object service", "object service <rest:line>")...)
	list = append(list, notYet("twice NAT (nat outside of an object)", "nat [<pair>] [<n:1-2147483647>] [after-auto] source <rest:line>")...)
	list = append(list, notYet("NAT of before 8.3 (static, global, nat, nat-control); let an ASA of 8.4 or later convert it",
		"static <pair> <rest:line>", "global <if:word> <rest:line>", "nat <if:word> <id:0-2147483647> <rest:line>", "nat-control")...)
	list = append(list, notYet("an access list of this kind", "access-list <name> {standard|ethertype|webtype} <rest:line>")...)
	return append(list, notYet("access-group with this option",
		"access-group <name> in interface <if> {per-user-override|control-plane}", "access-group <name> {out|global} <rest:line>")...)
}

func objectCommands() []command {
	list := []command{
		cmd("host <addr>", parseObjectAddress),
		cmd("subnet <net:addr> <mask>", parseObjectAddress),
		cmd("range <from:addr> <to:addr>", parseObjectAddress),
		cmd("fqdn [v4] <dns:fqdn>", parseObjectAddress),
		cmd("description <text:line>", func(p *parser, a cli.Args) { p.object().Description = a.Get("text") }),
		cmd("nat <pair> static {<mapped:addr>|<object:name>|interface} [no-proxy-arp|route-lookup]..."+
			" [service {tcp|udp} <realport:port> <mappedport:port>] [no-proxy-arp|route-lookup]...", parseObjectNAT),
		cmd("nat <pair> dynamic {<mapped:addr>|<object:name> [interface]|interface}", parseObjectNAT),
	}
	return append(list, notYet("object NAT with this option", "nat <pair> static {<mapped:word>|interface} {dns|net-to-net|ipv6|service sctp} [<rest:line>]",
		"nat <pair> dynamic {pat-pool|<mapped:word> {dns|pat-pool}|interface {dns|ipv6}} [<rest:line>]", "fqdn v6 <name:word>",
		"no <rest:line>")...)
}

// object returns the object that the mode is about.
func (p *parser) object() *Object { return &p.run.Objects[p.item] }

func parseObjectAddress(p *parser, a cli.Args) {
	o := p.object()
	o.Line = p.line
	o.From, o.To, o.Subnet, o.FQDN = netip.Addr{}, netip.Addr{}, netip.Prefix{}, ""
	switch {
	case a.Has("host"):
		o.From, _ = p.addr(a.Get("addr"))
		o.To, o.Subnet = o.From, netip.PrefixFrom(o.From, 32)
	case a.Has("subnet"):
		if prefix, ok := p.prefix(a.Token("net"), a.Token("mask")); ok {
			o.From, o.To, o.Subnet = prefix.Addr(), lastAddr(prefix), prefix
		}
	case a.Has("range"):
		from, _ := p.addr(a.Get("from"))
		to, _ := p.addr(a.Get("to"))
		if to.Less(from) {
			p.refuse(a.Token("to"), "", "the range ends before it begins: %v is below %v", to, from)
			return
		}
		o.From, o.To = from, to
	default:
		o.FQDN = a.Get("dns")
	}
}

func parseObjectNAT(p *parser, a cli.Args) {
	o := p.object()
	rule := NATRule{Line: p.line, Object: o.Name, Static: a.Has("static"), NoProxyARP: a.Has("no-proxy-arp"), RouteLookup: a.Has("route-lookup")}
	rule.RealIf, rule.MappedIf, _ = parsePair(a.Get("pair"))
	rule.MappedInterface = a.Has("interface")
	rule.MappedObject = a.Get("object")
	if a.Has("mapped") {
		rule.MappedAddr, _ = p.addr(a.Get("mapped"))
	}
	if a.Has("service") {
		rule.Proto = "tcp"
		if a.Has("udp") {
			rule.Proto = "udp"
		}
		for name, port := range map[string]*uint16{"realport": &rule.RealPort, "mappedport": &rule.MappedPort} {
			n, _ := parsePort(a.Get(name))
			if n == 0 {
				p.refuse(a.Token(name), "", "port 0 cannot be translated: 1 to 65535")
			}
			*port = uint16(n)
		}
	}
	if before := find(p.run.NAT, func(n *NATRule) bool { return n.Object == o.Name }); before != nil {
		p.refuse(a.Token("nat"), "V63", "object %s has a nat line already (line %d), and an object has one; "+
			"make another object with the same address", o.Name, before.Line)
		return
	}
	if rule.MappedInterface && rule.MappedIf == "" {
		p.refuse(a.Token("interface"), "", "interface needs the name of the mapped interface in place of any, as in (inside,outside)")
		return
	}
	p.run.NAT = append(p.run.NAT, rule)
}

// accessList returns the index of the access list of a name, which may be new.
func (p *parser) accessList(name string) int {
	return findOrAdd(&p.run.AccessLists, func(l *AccessList) bool { return l.Name == name },
		func() AccessList { return AccessList{Line: p.line, Name: name} })
}

// addACE puts e at the place that "line" names, or at the end.
func (p *parser) addACE(a cli.Args, e ACE) {
	var words []string
	for _, t := range cli.Split(p.text) {
		words = append(words, t.Text)
	}
	e.Line, e.Text = p.line, strings.Join(words, " ")
	l := &p.run.AccessLists[p.accessList(a.Get("name"))]
	at := len(l.Entries)
	if n := a.Int("number", 0); n > 0 {
		at = min(at, n-1)
	}
	l.Entries = append(l.Entries, ACE{})
	copy(l.Entries[at+1:], l.Entries[at:])
	l.Entries[at] = e
}

func parseRemark(p *parser, a cli.Args) {
	p.addACE(a, ACE{Remark: a.Get("text"), ICMPType: -1, ICMPCode: -1})
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

func parseACE(p *parser, a cli.Args) {
	for _, what := range []string{"object-group", "service", "time-range", "src.object-group", "dst.object-group", "dport.object-group",
		"src.any6", "dst.any6", "src.interface", "dst.interface"} {
		if a.Has(what) {
			p.refuse(a.Token(what), "", "%s", notSupported(a.Get(what)+" in an access list"))
			return
		}
	}
	e := ACE{Permit: a.Has("permit"), ICMPType: -1, ICMPCode: -1, Inactive: a.Has("inactive"), LogLevel: 6}
	proto, _ := parseProto(a.Get("proto"))
	e.Proto = uint8(proto)
	var ok1, ok2, ok3, ok4 bool
	e.Src, ok1 = p.aclAddress(a, "src.")
	e.Dst, ok2 = p.aclAddress(a, "dst.")
	e.SrcPorts, ok3 = p.aclPorts(a, "sport.")
	e.DstPorts, ok4 = p.aclPorts(a, "dport.")
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return
	}
	if proto != protoTCP && proto != protoUDP && !(e.SrcPorts.IsAny() && e.DstPorts.IsAny()) {
		p.refuse(a.Token("proto"), "", "%s has no ports; only tcp and udp have", a.Get("proto"))
		return
	}
	if a.Has("type") {
		if proto != protoICMP {
			p.refuse(a.Token("type"), "", "%s stands where only icmp has a type; after tcp and udp write eq and the port", a.Get("type"))
			return
		}
		e.ICMPType, _ = parseICMP(a.Get("type"))
		e.ICMPCode = a.Int("code", -1)
	}
	e.Log = a.Has("log") && !a.Has("disable")
	if a.Has("level") {
		e.LogLevel, _ = parseLevel(a.Get("level"))
	}
	p.addACE(a, e)
}

// aclAddress reads the addresses of one end. Objects are resolved when all is read.
func (p *parser) aclAddress(a cli.Args, end string) (AddrSpec, bool) {
	switch {
	case a.Has(end + "any"), a.Has(end + "any4"):
		return AddrSpec{Any: true, From: netip.AddrFrom4([4]byte{}), To: netip.AddrFrom4([4]byte{255, 255, 255, 255})}, true
	case a.Has(end + "host"):
		addr, _ := p.addr(a.Get(end + "addr"))
		return AddrSpec{From: addr, To: addr}, true
	case a.Has(end + "net"):
		prefix, ok := p.prefix(a.Token(end+"net"), a.Token(end+"mask"))
		if !ok {
			return AddrSpec{}, false
		}
		return AddrSpec{From: prefix.Addr(), To: lastAddr(prefix), Any: prefix.Bits() == 0}, true
	}
	return AddrSpec{Object: a.Get(end + "name")}, true
}

func (p *parser) aclPorts(a cli.Args, end string) (PortSpec, bool) {
	var spec PortSpec
	tok := a.Token(end + "port")
	from, _ := parsePort(tok.Text)
	to := from
	switch {
	case a.Has(end + "eq"):
	case a.Has(end + "neq"):
		spec.Not = true
	case a.Has(end + "lt"):
		from, to = 0, to-1
	case a.Has(end + "gt"):
		from, to = from+1, 65535
	case a.Has(end + "range"):
		tok = a.Token(end + "to")
		from, _ = parsePort(a.Get(end + "from"))
		to, _ = parsePort(tok.Text)
	default:
		return PortSpec{}, true
	}
	if from > to || to == 0 {
		p.refuse(tok, "", "these ports match nothing that can be sent; ports are 1 to 65535")
		return PortSpec{}, false
	}
	spec.From, spec.To = uint16(from), uint16(to)
	return spec, true
}

func parseAccessGroup(p *parser, a cli.Args) {
	g := AccessGroup{Line: p.line, Name: a.Get("name"), Direction: "in", Interface: a.Get("if")}
	switch {
	case a.Has("out"):
		g.Direction = "out"
	case a.Has("global"):
		g.Direction = "global"
	}
	if before := find(p.run.AccessGroups, func(o *AccessGroup) bool {
		return o.Direction == g.Direction && o.Interface == g.Interface
	}); before != nil {
		p.refuse(a.Token("access-group"), "", "line %d has put access list %s there already; there is one for each interface and direction",
			before.Line, before.Name)
		return
	}
	p.run.AccessGroups = append(p.run.AccessGroups, g)
}

// resolve puts the addresses of objects in place of their names.
func (p *parser) resolve() {
	for i := range p.run.NAT {
		p.resolveNAT(&p.run.NAT[i])
	}
	for i := range p.run.AccessLists {
		for j := range p.run.AccessLists[i].Entries {
			e := &p.run.AccessLists[i].Entries[j]
			p.resolveSpec(&e.Src, e.Line)
			p.resolveSpec(&e.Dst, e.Line)
		}
	}
}

// resolved returns the addresses of the object called name in a line, or
// refuses the line.
func (p *parser) resolved(name string, line int) (from, to netip.Addr, ok bool) {
	p.at(line)
	o := p.run.Object(name)
	var why string
	switch {
	case p.run.broken[stanza{inObject, name}]:
		return from, to, false // its own line is reported
	case o == nil:
		why = "there is no object network %s; " + nearestOf(name, p.run.objectNames())
	case o.FQDN != "":
		why = "object %s has a name in place of an address: not supported yet by this version in NAT and access lists"
	case !o.From.IsValid():
		why = "object %s has no address; give it a host, subnet or range line"
	default:
		return o.From, o.To, true
	}
	p.refuse(p.word(name), "V04", why, name)
	return from, to, false
}

func (r *Running) objectNames() []string {
	var names []string
	for _, o := range r.Objects {
		names = append(names, o.Name)
	}
	return names
}

// at makes an earlier line the current one, for findings.
func (p *parser) at(line int) { p.line, p.text = line, p.run.Lines[line-1].Text }

// word finds the last word of the current line that is text.
func (p *parser) word(text string) cli.Token { return lastWord(p.text, text) }

func lastWord(line, text string) cli.Token {
	words := cli.Split(line)
	for i := len(words) - 1; i >= 0; i-- {
		if words[i].Text == text {
			return words[i]
		}
		if j := strings.Index(words[i].Text, text); text != "" && j >= 0 && words[i].Text[0] == '(' {
			return cli.Token{Text: text, Col: words[i].Col + j}
		}
	}
	return cli.Token{}
}

func (p *parser) resolveSpec(s *AddrSpec, line int) {
	if s.Object != "" {
		s.From, s.To, _ = p.resolved(s.Object, line)
	}
}

// resolveNAT fills the addresses of a rule. One that cannot be has no real
// addresses after it.
func (p *parser) resolveNAT(n *NATRule) {
	if !p.resolveRule(n) {
		n.RealFrom, n.RealTo = netip.Addr{}, netip.Addr{}
	}
}

func (p *parser) resolveRule(n *NATRule) (ok bool) {
	if n.RealFrom, n.RealTo, ok = p.resolved(n.Object, n.Line); !ok {
		return false
	}
	p.at(n.Line)
	size := span(n.RealFrom, n.RealTo)
	switch {
	case n.MappedObject != "":
		if n.MappedFrom, n.MappedTo, ok = p.resolved(n.MappedObject, n.Line); !ok {
			return false
		}
		if n.Static && span(n.MappedFrom, n.MappedTo) != size {
			p.refuse(p.word(n.MappedObject), "", "object %s is %d addresses and %s is %d; a static rule needs as many on both sides",
				n.Object, size, n.MappedObject, span(n.MappedFrom, n.MappedTo))
			return false
		}
	case n.MappedAddr.IsValid() && n.Static:
		n.MappedFrom = n.MappedAddr
		if n.MappedTo, ok = advance(n.MappedFrom, size-1); !ok {
			p.refuse(p.word(n.MappedAddr.String()), "", "object %s is %d addresses, and there are not so many from %v on", n.Object, size, n.MappedFrom)
			return false
		}
	case n.MappedAddr.IsValid():
		n.MappedFrom, n.MappedTo = n.MappedAddr, n.MappedAddr
	case n.MappedInterface && n.Static && size != 1:
		p.refuse(p.word("interface"), "", "object %s is %d addresses, and the interface is one; make it a host or the rule dynamic", n.Object, size)
		return false
	}
	if n.Static && n.Proto != "" && size != 1 {
		p.refuse(p.word("service"), "", "object %s is %d addresses; service translates one host", n.Object, size)
		return false
	}
	n.MappedAddr = netip.Addr{}
	if n.MappedFrom == n.MappedTo {
		n.MappedAddr = n.MappedFrom
	}
	return true
}

// span is how many addresses there are from a to b.
func span(a, b netip.Addr) int64 { return toInt(b) - toInt(a) + 1 }

func toInt(a netip.Addr) int64 {
	b := a.As4()
	return int64(binary.BigEndian.Uint32(b[:]))
}

// advance returns the address n after a, false if there is none.
func advance(a netip.Addr, n int64) (netip.Addr, bool) {
	if !a.IsValid() {
		return netip.Addr{}, false
	}
	v := toInt(a) + n
	if v > 1<<32-1 {
		return netip.Addr{}, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v))
	return netip.AddrFrom4(b), true
}
