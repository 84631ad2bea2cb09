package config

import (
	"cmp"
	"slices"
	"strconv"

	"patchbay/appliance/cli"
)

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
	for _, g := range p.legacy.globals {
		p.at(g.line)
		p.namedInterface(p.word(g.iface))
	}
	for _, n := range p.legacy.nats {
		p.at(n.line)
		p.namedInterface(p.word(n.iface))
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
		if n.id > 0 {
			p.outermost(n)
		}
		if n.list == "" {
			regular = append(regular, n)
		}
	}
	slices.SortStableFunc(regular, func(a, b legacyNAT) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	for _, n := range regular {
		l := natLine{reals: []AddrSpec{{From: n.prefix.Addr(), To: lastAddr(n.prefix), Any: n.prefix.Bits() == 0}}}
		l.rule.Section = AfterAutoNAT
		p.dynamic(n, l)
	}
}

// outermost warns, as an ASA does, of a nat line on the interface of the lowest
// level that does not say "outside".
func (p *parser) outermost(n legacyNAT) {
	real := p.run.Interface(n.iface)
	if n.outside || real == nil {
		return
	}
	for i := range p.run.Interfaces {
		if x := &p.run.Interfaces[i]; x.Name != "" && x != real && x.Level <= real.Level {
			return
		}
	}
	if len(p.run.Interfaces) > 1 {
		p.at(n.line)
		p.warn(p.word(n.iface), "", "binding inside nat statement to outermost interface %s; the keyword outside is probably missing", n.iface)
	}
}

// towards returns the interfaces that a nat line may be about, by nameif: those
// of a level not above its own, or all of them with "outside"; itself if traffic
// may leave by the interface it came in by.
func (p *parser) towards(n legacyNAT) []string {
	real := p.run.Interface(n.iface)
	var names []string
	for i := range p.run.Interfaces {
		x := &p.run.Interfaces[i]
		if real == nil || x.Name == "" || x == real && !p.run.SameSecurityIntra {
			continue
		}
		if n.outside || x.Level <= real.Level {
			names = append(names, x.Name)
		}
	}
	return names
}

// dynamic adds what a nat line means for the sources, and perhaps destinations,
// of l: a rule to each interface with a global line of its number, and one that
// refuses to each other that it is about.
func (p *parser) dynamic(n legacyNAT, l natLine) {
	r := &l.rule
	r.Line, r.RealIf, r.Legacy, r.DNS = n.line, n.iface, true, n.dns
	r.ConnMax, r.UDPMax, r.EmbryonicMax = n.connMax, n.udpMax, n.embryonic
	if n.id == 0 {
		r.Static, l.identity = true, true
		if n.list != "" { // both sides open through an exemption
			p.nat = append(p.nat, l)
			return
		}
		r.OneWay = true
		for _, r.MappedIf = range p.towards(n) {
			if r.MappedIf != n.iface {
				p.nat = append(p.nat, l)
			}
		}
		return
	}
	if !slices.ContainsFunc(p.legacy.globals, func(g legacyGlobal) bool { return g.id == n.id }) {
		p.at(n.line)
		p.warn(p.word(strconv.Itoa(n.id)), "", "there is no global line of number %d, so what this line matches is dropped", n.id)
	}
	for _, iface := range p.towards(n) {
		l := l
		l.noMapped, l.rule.MappedIf, l.rule.NoGlobal = true, iface, true
		for _, ranges := range []bool{true, false} { // ranges are used up first
			for _, g := range p.legacy.globals {
				switch {
				case g.id != n.id || g.iface != iface:
					continue
				case !g.addrs.From.IsValid():
					l.rule.MappedInterface = true
				case (g.addrs.From != g.addrs.To) == ranges:
					l.mappeds, l.noMapped = append(l.mappeds, g.addrs), false
				}
				l.rule.NoGlobal = false
			}
		}
		p.nat = append(p.nat, l)
	}
}

// listNAT adds what a nat line with an access list means.
func (p *parser) listNAT(n legacyNAT) {
	for _, e := range p.natList(n.line, n.list) {
		if !e.src.IsAny() {
			p.refuseEntry(n.line, n.list, e.line, "names ports of the source, which a dynamic rule chooses itself")
			return
		}
		l := natLine{reals: e.srcs, narrowed: true}
		l.rule.Section = ManualNAT
		e.narrow(&l.rule)
		for _, d := range e.dsts {
			l.dests = []AddrSpec{d}
			p.dynamic(n, l)
		}
	}
}

// listStatic adds what a static line with an access list means: all its
// entries have the same sources.
func (p *parser) listStatic(s legacyStatic) {
	entries := p.natList(s.rule.Line, s.list)
	for _, e := range entries {
		l := s.natLine
		n := &l.rule
		one := PortSpec{From: e.src.From, To: e.src.From}
		switch {
		case !slices.Equal(e.srcs, entries[0].srcs):
			p.at(n.Line)
			p.refuse(p.word(s.list), "", "the entries of access list %s have different sources, which cannot all be mapped to the one", s.list)
			return
		case n.MappedPort == 0 && !e.src.IsAny():
			p.refuseEntry(n.Line, s.list, e.line, "names ports of the source, and the static line no port to map them to")
			return
		case n.MappedPort != 0 && (e.proto != n.Proto || e.src.IsAny() || e.src != one || size(e.srcs) != 1):
			p.refuseEntry(n.Line, s.list, e.line, "is not of one "+n.Proto+" port of one host, as a static line with a port needs it: permit "+n.Proto+" host A eq PORT")
			return
		}
		mapped := n.MappedSrcPorts
		e.narrow(n)
		if n.MappedPort != 0 {
			n.RealPort, n.SrcPorts, n.MappedSrcPorts = e.src.From, e.src, mapped
			if n.DstPorts == everyPort {
				n.DstPorts, n.MappedDstPorts = PortSpec{}, PortSpec{}
			}
		}
		l.reals, l.dests, l.narrowed = e.srcs, e.dsts, true
		p.nat = append(p.nat, l)
	}
}

// A natEntry is an entry of an access list of a NAT line.
type natEntry struct {
	line       int
	srcs, dsts []AddrSpec
	proto      string // "tcp", "udp" or "", every one
	src, dst   PortSpec
}

// everyPort stands for the ports of a protocol where a rule must name some.
var everyPort = PortSpec{From: 1, To: 65535}

// narrow makes n a rule for the protocol and destination ports of e.
func (e *natEntry) narrow(n *NATRule) {
	if e.proto == "" {
		return
	}
	n.Proto, n.DstPorts = e.proto, e.dst
	if e.dst.IsAny() {
		n.DstPorts = everyPort
	}
	n.MappedDstPorts = n.DstPorts
}

func (p *parser) refuseEntry(line int, list string, entry int, why string) {
	p.at(line)
	p.refuse(p.word(list), "", "line %d of access list %s %s", entry, list, why)
}

// natList returns the entries of an access list of a NAT line, nil after it has
// refused the line.
func (p *parser) natList(line int, name string) []natEntry {
	p.at(line)
	l := p.run.AccessList(name)
	if l == nil {
		var names []string
		for _, l := range p.run.AccessLists {
			names = append(names, l.Name)
		}
		p.refuse(p.word(name), "V04", "there is no access list %s; %s", name, nearestOf(name, names))
		return nil
	}
	var list []natEntry
	for i := range l.Entries {
		e := &l.Entries[i]
		switch {
		case e.IsRemark() || e.Inactive:
			continue
		case !e.Permit:
			p.refuseEntry(line, name, e.Line, "is deny: "+notSupported("that in the access list of NAT"))
			return nil
		case e.TimeRange != "":
			p.refuseEntry(line, name, e.Line, "has a time-range, which does not hold for NAT")
			return nil
		}
		for _, s := range e.Services {
			proto := ""
			switch s.Proto {
			case 0:
			case protoTCP:
				proto = "tcp"
			case protoUDP:
				proto = "udp"
			default:
				p.refuseEntry(line, name, e.Line, "is not of ip, tcp or udp, and NAT with an access list is for these")
				return nil
			}
			for _, src := range portsOf(s.SrcPorts) {
				for _, dst := range portsOf(s.DstPorts) {
					list = append(list, natEntry{line: e.Line, srcs: e.Srcs, dsts: e.Dsts, proto: proto, src: src, dst: dst})
				}
			}
			if len(list) > maxRulesOfLine {
				p.at(line)
				p.refuse(p.word(name), "", "access list %s makes more than %d rules of this line", name, maxRulesOfLine)
				return nil
			}
		}
	}
	return list
}

// portsOf returns the ranges of a list of ports, with "neq" as those around it:
// one of any for an empty list.
func portsOf(list []PortSpec) []PortSpec {
	if len(list) == 0 {
		return []PortSpec{{}}
	}
	var ranges []PortSpec
	for _, s := range list {
		switch {
		case s.Not && s.From > 1:
			ranges = append(ranges, PortSpec{From: 1, To: s.From - 1})
			fallthrough
		case s.Not:
			if s.To < 65535 {
				ranges = append(ranges, PortSpec{From: s.To + 1, To: 65535})
			}
		case !s.IsAny():
			ranges = append(ranges, PortSpec{From: max(1, s.From), To: s.To})
		default:
			ranges = append(ranges, s)
		}
	}
	return ranges
}
