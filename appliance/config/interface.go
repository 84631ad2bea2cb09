package config

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

const defaultMTU = 1500 // bytes

// interfaceGlobals are interfaces, routes and what is said of interfaces by name.
// (reference/asa-cli.md, section 3.)
func interfaceGlobals() []command {
	list := []command{
		cmd("interface <hardware:word> [<unit:word>]", each.opens(inInterface).spelled(spellHardware), parseInterface),
		cmd("[no] same-security-traffic permit {inter-interface|intra-interface}", each, func(p *parser, a cli.Args) {
			if a.Has("inter-interface") {
				p.run.SameSecurityInter = !a.Has("no")
			} else {
				p.run.SameSecurityIntra = !a.Has("no")
			}
		}),
		cmd("mtu <if> <bytes:64-65535>", by("mtu $if"), func(p *parser, a cli.Args) {
			if i := p.namedInterface(a.Token("if")); i != nil {
				i.MTU = a.Int("bytes", defaultMTU)
			}
		}),
		cmd("ip verify reverse-path interface <if>", each, func(p *parser, a cli.Args) {
			if !slices.ContainsFunc(p.run.ReversePaths, func(r ReversePath) bool { return r.Interface == a.Get("if") }) {
				p.run.ReversePaths = append(p.run.ReversePaths, ReversePath{p.line, a.Get("if")})
			}
		}),
		cmd("fragment {size <packets:1-30000>|chain <fragments:1-8200>|timeout <seconds:1-30>} [<if>]", by("fragment $2 $if"), func(p *parser, a cli.Args) {
			p.run.Fragments = append(p.run.Fragments, Fragments{Line: p.line, Interface: a.Get("if"),
				Size: a.Int("packets", 0), Chain: a.Int("fragments", 0), Timeout: time.Duration(a.Int("seconds", 0)) * time.Second})
		}),
		cmd("sysopt noproxyarp <if>", each, func(p *parser, a cli.Args) {
			if i := p.namedInterface(a.Token("if")); i != nil && !slices.Contains(p.run.NoProxyARP, i.Name) {
				p.run.NoProxyARP = append(p.run.NoProxyARP, i.Name)
			}
		}),
		cmd("sysopt connection tcpmss [minimum] <bytes:0-65535>", by("sysopt connection tcpmss $minimum"), parseTCPMSS),
		cmd("no sysopt connection tcpmss [minimum] [<bytes:0-65535>]", by("sysopt connection tcpmss $minimum"), parseTCPMSS),
		cmd("route <if> <dest:addr> <mask> <gateway:addr> [<metric:1-255>] [track <n:1-500>]", by("route $if $dest $mask $gateway").spelled(spellMetric), parseRoute),
		cmd("icmp {permit|deny} {any|host <one:addr>|<addr> <mask>} [<type:icmptype>] <if>", each, parseICMPRule),
	}
	list = append(list, inert("fragments are always put together here", "fragment reassembly {full|virtual} [<if>]")...)
	list = append(list, command{Syntax: "route <if> <dest:addr> <mask> <gateway:addr> [<metric:1-255>] tunneled",
		Do: action{inert: "it is for what comes out of VPN tunnels, and there is no VPN", form: each}})
	return append(list, notYet("a route to Null0; deny the network in an access list", "route <if> <dest:addr> <mask> null0 [<metric:1-255>]")...)
}

func interfaceCommands() []command {
	list := []command{
		cmd("nameif <name>", one, parseNameif),
		cmd("no nameif", one, func(p *parser, a cli.Args) { p.iface().Name = "" }),
		cmd("security-level <level:0-100>", one, func(p *parser, a cli.Args) {
			p.iface().Level, p.iface().levelSet = a.Int("level", 0), true
		}),
		cmd("no security-level", one, func(p *parser, a cli.Args) { p.iface().Level, p.iface().levelSet = 0, false }),
		cmd("ip address <addr> <mask> [standby <other:addr>]", one, parseInterfaceAddress),
		cmd("no ip address", one, func(p *parser, a cli.Args) { p.iface().Addr = netip.Prefix{} }),
		cmd("[no] shutdown", one, func(p *parser, a cli.Args) { p.iface().Shutdown = !a.Has("no") }),
		cmd("vlan <id:1-4094>", one, parseVLAN),
		cmd("[no] management-only", one, func(p *parser, a cli.Args) { p.iface().ManagementOnly = !a.Has("no") }),
		cmd("description <text:line>", one, func(p *parser, a cli.Args) { p.iface().Description = a.Get("text") }),
	}
	list = append(list, inert("the driver's link is as the host made it", "speed <rest:line>", "duplex <rest:line>",
		"no speed", "no duplex", "flowcontrol <rest:line>", "no flowcontrol <rest:line>")...)
	list = append(list, idleInterfaceCommands()...)
	return append(list, notYet("this of an interface", "ip address {dhcp|pppoe} [<rest:line>]",
		"mac-address <rest:line>", "no <rest:line>")...)
}

// iface returns the interface that the mode is about.
func (p *parser) iface() *Interface { return &p.run.Interfaces[p.item] }

// namedInterface returns the interface that tok names. It refuses the line if
// there is none.
func (p *parser) namedInterface(tok cli.Token) *Interface {
	i := p.run.Interface(tok.Text)
	if i == nil {
		p.refuse(tok, "V04", "no interface is named %s yet; %s", tok.Text, nearestOf(tok.Text, p.run.interfaceNames()))
	}
	return i
}

func (r *Running) interfaceNames() []string {
	var names []string
	for _, i := range r.Interfaces {
		if i.Name != "" {
			names = append(names, i.Name)
		}
	}
	return names
}

// nearestOf tells which of names may have been meant by name.
func nearestOf(name string, names []string) string {
	if near := cli.Nearest(name, names); near != "" {
		return "is it " + near + "?"
	}
	if len(names) == 0 {
		return "there is none at all"
	}
	return "there is " + orList(names)
}

func parseInterface(p *parser, a cli.Args) {
	name, sub, err := parseHardware(a.Get("hardware"), a.Get("unit"))
	if err != nil {
		p.refuse(a.Token("hardware"), "", "%v", err)
		return
	}
	i := findOrAdd(&p.run.Interfaces, func(i *Interface) bool { return i.Hardware == name }, func() Interface {
		return Interface{Line: p.line, Hardware: name, MTU: defaultMTU}
	})
	p.enter(inInterface, i)
	if base, _, _ := strings.Cut(name, "."); sub && find(p.run.Interfaces, func(i *Interface) bool { return i.Hardware == base }) == nil {
		p.refuse(a.Token("hardware"), "", "there is no interface %s for the sub-interface %s; define it before", base, name)
	}
}

func parseNameif(p *parser, a cli.Args) {
	name, i := a.Token("name"), p.iface()
	if name.Text == "any" || name.Text == "global" {
		p.refuse(name, "", "%s is a word of the language and cannot name an interface", name.Text)
		return
	}
	if other := p.run.Interface(name.Text); other != nil && other != i {
		p.refuse(name, "", "%s has the name %s already (line %d); name each interface differently", other.Hardware, name.Text, other.Line)
		return
	}
	i.Name = name.Text
	if !i.levelSet && name.Text == "inside" {
		i.Level = 100
	}
}

func parseInterfaceAddress(p *parser, a cli.Args) {
	addr, _ := p.addr(a.Get("addr"))
	n, _ := parseMask(a.Get("mask"))
	prefix := netip.PrefixFrom(addr, n)
	switch {
	case addr.IsMulticast() || addr.IsLoopback() || addr.IsUnspecified() || addr.As4()[0] >= 240:
		p.refuse(a.Token("addr"), "", "%v cannot be the address of an interface", addr)
	case n < 8:
		p.refuse(a.Token("mask"), "", "a mask of %d ones is too short for an interface", n)
	case n < 31 && addr == prefix.Masked().Addr():
		p.refuse(a.Token("addr"), "", "%v is the address of the network itself; give the interface one inside of %v", addr, prefix.Masked())
	case n < 31 && addr == lastAddr(prefix):
		p.refuse(a.Token("addr"), "", "%v is the broadcast address of %v; give the interface one inside of it", addr, prefix.Masked())
	default:
		p.iface().Addr = prefix
	}
	if a.Has("standby") {
		p.warn(a.Token("standby"), "", "the standby address is not used: this version has no failover")
	}
}

// lastAddr returns the last address of prefix.
func lastAddr(prefix netip.Prefix) netip.Addr {
	b := prefix.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | uint32(uint64(1)<<(32-prefix.Bits())-1)
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func parseVLAN(p *parser, a cli.Args) {
	if !strings.Contains(p.iface().Hardware, ".") {
		p.refuse(a.Token("vlan"), "", "%s is not a sub-interface; only those, as in %[1]s.20, have a vlan", p.iface().Hardware)
		return
	}
	p.iface().VLAN = a.Int("id", 0)
}

// prefix reads an address and mask that must agree. It refuses the line if the
// address has ones where the mask has none.
func (p *parser) prefix(addr, mask cli.Token) (netip.Prefix, bool) {
	a, _ := p.addr(addr.Text)
	n, _ := parseMask(mask.Text)
	prefix := netip.PrefixFrom(a, n)
	if prefix.Masked() != prefix {
		p.refuse(addr, "", "IP address,mask <%v,%s> doesn't pair: the network is %v, or write mask 255.255.255.255 for the one host",
			a, mask.Text, prefix.Masked().Addr())
		return netip.Prefix{}, false
	}
	return prefix, true
}

func parseRoute(p *parser, a cli.Args) {
	prefix, ok := p.prefix(a.Token("dest"), a.Token("mask"))
	gateway, _ := p.addr(a.Get("gateway"))
	if ok {
		p.run.Routes = append(p.run.Routes, Route{p.line, a.Get("if"), prefix, gateway, a.Int("metric", 1)})
	}
	if a.Has("track") {
		p.warn(a.Token("track"), "", "routes are not tracked in this version: this one stays when what lies behind it cannot be reached")
	}
}

const defaultTCPMSS = 1380 // bytes, the ASA's

func parseTCPMSS(p *parser, a cli.Args) {
	m := &p.run.TCPMSS
	m.Line = p.line
	n := a.Int("bytes", 0)
	if a.Has("minimum") {
		m.Minimum = n
		if a.Has("no") {
			m.Minimum = 0
		}
		return
	}
	m.Maximum = n
	if a.Has("no") {
		m.Maximum = defaultTCPMSS
	}
}

func parseICMPRule(p *parser, a cli.Args) {
	rule := ICMPRule{Line: p.line, Permit: a.Has("permit"), Type: -1, Interface: a.Get("if"), Prefix: netip.MustParsePrefix("0.0.0.0/0")}
	switch {
	case a.Has("host"):

		addr, _ := p.addr(a.Get("one"))
		rule.Prefix = netip.PrefixFrom(addr, 32)
	case a.Has("addr"):
		var ok bool
		if rule.Prefix, ok = p.prefix(a.Token("addr"), a.Token("mask")); !ok {
			return
		}
	}
	if a.Has("type") {
		rule.Type, _ = parseICMP(a.Get("type"))
	}
	rule.From, rule.To = rule.Prefix.Addr(), lastAddr(rule.Prefix)
	p.run.ICMP = append(p.run.ICMP, rule)
}
