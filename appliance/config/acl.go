package config

import (
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

// An AccessList is the entries of one name in their order.
type AccessList struct {
	Line    int // of its first entry
	Name    string
	Entries []ACE
}

// An ACE is one entry of an access list, with what objects and groups stand for
// in place of them. It means the packets from one of Srcs to one of Dsts that
// are of one of Services; none of a list means no packet. A remark is an entry
// that matches nothing: see IsRemark. The lists may be shared and must not be
// changed.
type ACE struct {
	Line        int
	Permit      bool
	Srcs, Dsts  []AddrSpec
	Services    []Service
	Log         bool
	LogDisabled bool   // log disable: nothing is logged of it
	LogLevel    int    // syslog severity 0 to 7 if Log; 6 by default
	LogInterval int    // seconds between two messages of one flow; 300 by default
	TimeRange   string // the time-range in which it holds; "" is always
	Inactive    bool
	Remark      string
	Text        string // the line, words divided by one space

	times *TimeRange
	names aceNames
}

// aceNames are what an entry says, until its names are resolved.
type aceNames struct {
	src, dst           AddrSpec
	srcGroup, dstGroup string // object-group network
	srcIf, dstIf       string // interface, whose address it is

	service            string // object service
	services           string // object-group service or protocol
	proto              uint8  // if there is neither
	sports, dports     []PortSpec
	sportGroup         string // object-group service with a protocol
	dportGroup         string // the same, or object-group icmp-type
	icmpType, icmpCode int
}

// Active reports whether the entry matches at all now, whose time zone must be
// that of the box: it is not inactive, and its time range holds.
func (e ACE) Active(now time.Time) bool {
	return !e.Inactive && (e.times == nil || e.times.Active(now))
}

// Times returns the time range of the entry, nil if it has none.
func (e ACE) Times() *TimeRange { return e.times }

// IsRemark reports whether e is only a remark.
func (e ACE) IsRemark() bool { return e.Remark != "" }

// An AddrSpec is the addresses of one end of an ACE. The zero AddrSpec
// contains none.
type AddrSpec struct {
	From, To netip.Addr // inclusive
	Any      bool
	Object   string // the object network it was named by; From and To are resolved
}

// Contains reports whether a is among the addresses.
func (s AddrSpec) Contains(a netip.Addr) bool {
	return s.Any || s.From.IsValid() && s.From.Compare(a) <= 0 && a.Compare(s.To) <= 0
}

// A PortSpec is the ports of one end of an ACE. The zero PortSpec is any.
type PortSpec struct {
	From, To uint16 // inclusive
	Not      bool   // all but From to To (neq)
}

// IsAny reports whether s contains every port.
func (s PortSpec) IsAny() bool { return s == PortSpec{} }

// Contains reports whether port is among the ports.
func (s PortSpec) Contains(port uint16) bool {
	return s.IsAny() || (s.From <= port && port <= s.To) != s.Not
}

const (
	aclAddress = "{any|any4|any6|host <addr>|<net:addr> <mask>|object <name>|object-group <group:netgroup>|interface <if>}"
	aclPorts   = "eq <port>|neq <port>|lt <port>|gt <port>|range <from:port> <to:port>"
)

// accessCommands are access lists. (reference/asa-cli.md, section 6.)
func accessCommands() []command {
	list := []command{
		cmd("access-list <name> [line <number:1-2147483647>] remark <text:line>", each.spelled(placedEntry), parseRemark),
		cmd("access-list <name> [line <number:1-2147483647>] [extended] {permit|deny} "+
			"{<proto>|object <service:name>|object-group <services:svcgroup>} "+
			"src="+aclAddress+" [sport={"+aclPorts+"|object-group <group:portgroup>}] dst="+aclAddress+
			" [dport={"+aclPorts+"|object-group <group:portgroup>}|<type:icmptype> [<code:0-255>]]"+
			" [log [default|disable|<level> [interval <seconds:1-600>]|interval <seconds:1-600>]]"+
			" [time-range <time:name>] [inactive]", each.spelled(placedEntry), parseACE),
		cmd("access-group <name> {in|out} interface <if>", by("access-group $3 $5"), parseAccessGroup),
		cmd("access-group <name> in interface <if> per-user-override", by("access-group $3 $5"), func(p *parser, a cli.Args) {
			parseAccessGroup(p, a)
			p.run.Lines[p.line-1].Why = "per-user-override: no user has an access list of his own"
		}),
		cmd("access-group <name> global", by("access-group $3 $5"), parseAccessGroup),
	}
	list = append(list, inert("it is for routing protocols and VPN, which are not here; interfaces and classes take extended lists only",
		"access-list <name> {standard|webtype} <rest:line>")...)
	list = append(list, notYet("users and security groups in an access list",
		"access-list <name> [line <number:1-2147483647>] [extended] {permit|deny} <proto> {security-group|object-group-security|user|user-group|object-group-user} <rest:line>")...)
	list = append(list, notYet("an access list of this kind", "access-list <name> ethertype <rest:line>")...)
	return append(list, notYet("access-group with this option",
		"access-group <name> in interface <if> control-plane", "access-group <name> {out|global} <rest:line>")...)
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
	p.addACE(a, ACE{Remark: a.Get("text")})
}

const (
	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17

	defaultLogLevel    = 6
	defaultLogInterval = 300 // seconds
)

func parseACE(p *parser, a cli.Args) {
	for _, what := range []string{"src.any6", "dst.any6"} {
		if a.Has(what) {
			p.refuse(a.Token(what), "", "%s", notSupported(a.Get(what)+" in an access list"))
			return
		}
	}
	e := ACE{Permit: a.Has("permit"), Inactive: a.Has("inactive"), LogLevel: defaultLogLevel, TimeRange: a.Get("time"),
		LogInterval: a.Int("seconds", defaultLogInterval)}
	n := &e.names
	n.service, n.services = a.Get("service"), a.Get("services")
	proto := -1
	if a.Has("proto") {
		proto, _ = parseProto(a.Get("proto"))
		n.proto = uint8(proto)
	}
	n.srcGroup, n.srcIf = a.Get("src.group"), a.Get("src.if")
	n.dstGroup, n.dstIf = a.Get("dst.group"), a.Get("dst.if")
	n.sportGroup, n.dportGroup = a.Get("sport.group"), a.Get("dport.group")
	n.icmpType, n.icmpCode = -1, -1
	var ok1, ok2, ok3, ok4 bool
	n.src, ok1 = p.aclAddress(a, "src.")
	n.dst, ok2 = p.aclAddress(a, "dst.")
	n.sports, ok3 = p.portList(a, "sport.")
	n.dports, ok4 = p.portList(a, "dport.")
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return
	}
	ports := n.sports != nil || n.dports != nil || n.sportGroup != ""
	if proto >= 0 && proto != protoTCP && proto != protoUDP && (ports || n.dportGroup != "" && proto != protoICMP) {
		p.refuse(a.Token("proto"), "", "%s has no ports; only tcp and udp have", a.Get("proto"))
		return
	}
	if a.Has("type") {
		if proto != protoICMP {
			p.refuse(a.Token("type"), "", "%s stands where only icmp has a type; after tcp and udp write eq and the port", a.Get("type"))
			return
		}
		n.icmpType, _ = parseICMP(a.Get("type"))
		n.icmpCode = a.Int("code", -1)
	}
	if n.service != "" && (ports || n.dportGroup != "") {
		p.refuse(a.Token("service"), "", "object %s has its ports itself; write none after the addresses", n.service)
		return
	}
	e.Log, e.LogDisabled = a.Has("log") && !a.Has("disable"), a.Has("disable")
	if a.Has("level") {
		e.LogLevel, _ = parseLevel(a.Get("level"))
	}
	p.addACE(a, e)
}

// aclAddress reads the addresses of one end but those of groups and interfaces.
func (p *parser) aclAddress(a cli.Args, end string) (AddrSpec, bool) {
	switch {
	case a.Has(end + "any"), a.Has(end + "any4"):
		return anyAddr(), true
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

func anyAddr() AddrSpec {
	return AddrSpec{Any: true, From: netip.AddrFrom4([4]byte{}), To: netip.AddrFrom4([4]byte{255, 255, 255, 255})}
}

// portList reads the ports of one end: nil if nothing is said of them.
func (p *parser) portList(a cli.Args, end string) ([]PortSpec, bool) {
	spec, ok := p.aclPorts(a, end)
	if !ok || spec.IsAny() {
		return nil, ok
	}
	return []PortSpec{spec}, true
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

// resolveACE puts what names stand for in place of them. An entry that is
// refused keeps empty lists.
func (p *parser) resolveACE(e *ACE) {
	if e.IsRemark() {
		return
	}
	p.at(e.Line)
	n := e.names
	if e.TimeRange != "" {
		e.times = p.run.TimeRange(e.TimeRange)
		switch {
		case p.run.broken[stanza{inTimeRange, e.TimeRange}]:
			return
		case e.times == nil:
			var names []string
			for _, t := range p.run.TimeRanges {
				names = append(names, t.Name)
			}
			p.refuse(p.word(e.TimeRange), "V04", "there is no time-range %s; %s", e.TimeRange, nearestOf(e.TimeRange, names))
			return
		}
	}
	srcs, ok1 := p.entryAddrs(n.src, n.srcGroup, n.srcIf)
	dsts, ok2 := p.entryAddrs(n.dst, n.dstGroup, n.dstIf)
	services, ok3 := p.entryServices(n)
	if !ok1 || !ok2 || !ok3 {
		return
	}
	if p.services += len(services); p.services > maxEntryServices {
		p.refuse(cli.Token{}, "", "the access lists up to here have more than %d services together", maxEntryServices)
		return
	}
	e.Srcs, e.Dsts, e.Services = srcs, dsts, services
}

func (p *parser) entryAddrs(spec AddrSpec, group, iface string) ([]AddrSpec, bool) {
	switch {
	case group != "":
		g, ok := p.whole(group, NetworkGroup)
		if !ok {
			return nil, false
		}
		return g.Addrs, p.notEmpty(g)
	case iface != "":
		i := p.namedInterface(p.word(iface))
		if i == nil {
			return nil, false
		}
		if !i.Addr.IsValid() {
			p.refuse(p.word(iface), "", "interface %s has no address", iface)
			return nil, false
		}
		return []AddrSpec{{From: i.Addr.Addr(), To: i.Addr.Addr()}}, true
	case spec.Object != "":
		spec, ok := p.resolved(spec.Object)
		return []AddrSpec{spec}, ok
	}
	return []AddrSpec{spec}, true
}

// notEmpty refuses the current line if g has no members.
func (p *parser) notEmpty(g *ObjectGroup) bool {
	if len(g.Addrs)+len(g.Ports)+len(g.Services) > 0 {
		return true
	}
	p.refuse(p.word(g.Name), "", "object-group %s is empty", g.Name)
	return false
}

// entryServices returns what kinds of packets an entry means.
func (p *parser) entryServices(n aceNames) ([]Service, bool) {
	list := []Service{{Proto: n.proto, ICMPType: n.icmpType, ICMPCode: n.icmpCode}}
	switch {
	case n.service != "":
		s, ok := p.serviceOf(n.service)
		return []Service{s}, ok
	case n.services != "":
		g, ok := p.whole(n.services, ServiceGroup, ProtocolGroup)
		if !ok || !p.notEmpty(g) {
			return nil, false
		}
		if g.Proto != "" {
			p.refuse(p.word(g.Name), "", "object-group %s lists ports of %s; write the protocol here and the group after the destination", g.Name, g.Proto)
			return nil, false
		}
		if n.sports == nil && n.dports == nil && n.sportGroup == "" && n.dportGroup == "" {
			return g.Services, true
		}
		if g.Kind == ServiceGroup {
			p.refuse(p.word(g.Name), "", "object-group %s has its ports itself; write none after the addresses", g.Name)
			return nil, false
		}
		list = append([]Service(nil), g.Services...)
	}
	for _, end := range []struct {
		group string
		ports *[]PortSpec
	}{{n.sportGroup, &n.sports}, {n.dportGroup, &n.dports}} {
		if end.group == "" {
			continue
		}
		g, ok := p.whole(end.group, ServiceGroup, ICMPGroup)
		if !ok || !p.notEmpty(g) {
			return nil, false
		}
		if g.Kind == ICMPGroup && n.services == "" && n.proto == protoICMP {
			return g.Services, true
		}
		if g.Proto == "" || !g.holds(list) {
			p.refuse(p.word(g.Name), "", "object-group %s has no ports of the protocol of this line", g.Name)
			return nil, false
		}
		*end.ports = g.Ports
	}
	for i := range list {
		s := &list[i]
		if (n.sports != nil || n.dports != nil) && s.Proto != protoTCP && s.Proto != protoUDP {
			p.refuse(p.word(n.services), "", "object-group %s has a protocol without ports; only tcp and udp have", n.services)
			return nil, false
		}
		s.SrcPorts, s.DstPorts = n.sports, n.dports
	}
	return list, true
}

// holds reports whether the ports of g are of every protocol of list.
func (g *ObjectGroup) holds(list []Service) bool {
	for _, s := range list {
		ok := s.Proto == protoTCP && g.Proto != "udp" || s.Proto == protoUDP && g.Proto != "tcp"
		if !ok {
			return false
		}
	}
	return true
}

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
