package config

import (
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

const maxEntryServices = 1 << 20 // services of all entries of access lists together

// resolve puts what names stand for in place of them, when all is read.
func (p *parser) resolve() {
	for i := range p.run.Groups {
		p.expand(i, 0)
	}
	for i := range p.run.AccessLists {
		for j := range p.run.AccessLists[i].Entries {
			p.resolveACE(&p.run.AccessLists[i].Entries[j])
		}
	}
	p.resolveNAT()
	for i := range p.run.Interfaces {
		x := &p.run.Interfaces[i]
		base, _, _ := strings.Cut(x.Hardware, ".")
		x.Down = slices.ContainsFunc(p.run.Interfaces, func(o Interface) bool { return o.Shutdown && (o.Hardware == x.Hardware || o.Hardware == base) })
	}
}

// resolved returns the addresses of the object called name in the current
// line, or refuses the line.
func (p *parser) resolved(name string) (AddrSpec, bool) {
	i, ok := p.objects[name]
	var why string
	switch {
	case p.run.broken[stanza{inObject, name}]:
		return AddrSpec{}, false // its own line is reported
	case !ok:
		why = "there is no object network %s; " + nearestOf(name, p.run.objectNames())
	case p.run.Objects[i].FQDN != "":
		why = "object %s has a name in place of an address: not supported yet by this version in NAT and access lists"
	case !p.run.Objects[i].From.IsValid():
		why = "object %s has no address; give it a host, subnet or range line"
	default:
		o := &p.run.Objects[i]
		return AddrSpec{From: o.From, To: o.To, Object: name, Any: o.Subnet.IsValid() && o.Subnet.Bits() == 0}, true
	}
	p.refuse(p.word(name), "V04", why, name)
	return AddrSpec{}, false
}

func (r *Running) objectNames() []string {
	var names []string
	for _, o := range r.Objects {
		names = append(names, o.Name)
	}
	return names
}

func (r *Running) groupNames() []string {
	var names []string
	for _, g := range r.Groups {
		names = append(names, g.Name)
	}
	return names
}

// serviceOf returns the service of the object service called name in the
// current line, or refuses the line.
func (p *parser) serviceOf(name string) (Service, bool) {
	o := p.run.ServiceObject(name)
	switch {
	case p.run.broken[stanza{inServiceObject, name}]:
	case o == nil:
		var names []string
		for _, o := range p.run.ServiceObjects {
			names = append(names, o.Name)
		}
		p.refuse(p.word(name), "V04", "there is no object service %s; %s", name, nearestOf(name, names))
	case !o.Defined:
		p.refuse(p.word(name), "V04", "object service %s has no service line", name)
	default:
		return o.Service, true
	}
	return Service{}, false
}

// whole returns the object group called name, of a kind, in the current line,
// or refuses the line.
func (p *parser) whole(name string, kinds ...GroupKind) (*ObjectGroup, bool) {
	i, ok := p.groups[name]
	switch {
	case !ok:
		p.refuse(p.word(name), "V04", "there is no object-group %s; %s", name, nearestOf(name, p.run.groupNames()))
	case !slices.Contains(kinds, p.run.Groups[i].Kind):
		p.refuse(p.word(name), "", "object-group %s is of kind %v, and here stands one of kind %v", name, p.run.Groups[i].Kind, kinds[0])
	case p.run.Groups[i].state != groupWhole: // its own line is reported
	default:
		return &p.run.Groups[i], true
	}
	return nil, false
}

// expand fills the lists of a group with those of its members.
func (p *parser) expand(i, depth int) {
	g := &p.run.Groups[i]
	if g.state != groupNew {
		return
	}
	g.state = groupOpen
	ok := !p.run.broken[stanza{groupMode(g.Kind), g.Name}]
	var list expansion
	for _, m := range g.Members {
		p.at(m.Line)
		switch {
		case m.Group != "":
			ok = p.expandGroup(g, m, depth, &list) && ok
		case g.Kind == NetworkGroup && m.Object != "":
			spec, found := p.resolved(m.Object)
			list.addAddrs(spec)
			ok = ok && found
		case g.Kind == NetworkGroup:
			list.addAddrs(m.Addr)
		case m.Object != "":
			s, found := p.serviceOf(m.Object)
			list.addServices(s)
			ok = ok && found
		case g.Proto != "":
			list.addPorts(m.Ports)
		default:
			list.addServices(m.Services...)
		}
	}
	g.state = groupFailed
	p.members += list.size()
	switch {
	case !ok:
		return
	case p.members > maxMembers:
		p.at(g.Line)
		p.refuse(p.word(g.Name), "", "the object-groups up to here have more than %d members together", maxMembers)
		return
	}
	g.Addrs, g.Ports, g.Services, g.state = list.addrs, list.ports, list.services, groupWhole
}

// expandGroup adds the members of the group that m names.
func (p *parser) expandGroup(g *ObjectGroup, m GroupMember, depth int, list *expansion) bool {
	i, ok := p.groups[m.Group]
	if ok {
		switch inner := &p.run.Groups[i]; {
		case inner.state == groupOpen:
			p.refuse(p.word(m.Group), "", "object-group %s would contain itself", m.Group)
			return false
		case inner.Kind != g.Kind || inner.Proto != g.Proto && inner.Proto != "":
			p.refuse(p.word(m.Group), "", "object-group %s is of another kind than %s; a group contains groups of its own kind", m.Group, g.Name)
			return false
		case depth >= maxNesting:
			p.refuse(p.word(m.Group), "", "object-groups are nested more than %d deep", maxNesting)
			return false
		}
		line := p.line
		p.expand(i, depth+1)
		p.at(line)
	}
	inner, ok := p.whole(m.Group, g.Kind)
	if !ok {
		return false
	}
	list.addAddrs(inner.Addrs...)
	list.addPorts(inner.Ports...)
	list.addServices(inner.Services...)
	return true
}

func groupMode(k GroupKind) modeID {
	return [...]modeID{inNetworkGroup, inServiceGroup, inProtocolGroup, inICMPGroup}[k]
}

// An expansion collects members, each once.
type expansion struct {
	addrs    []AddrSpec
	ports    []PortSpec
	services []Service
	seen     map[any]bool
}

func (x *expansion) size() int { return len(x.addrs) + len(x.ports) + len(x.services) }

// first reports whether key is new.
func (x *expansion) first(key any) bool {
	if x.seen == nil {
		x.seen = make(map[any]bool)
	}
	if x.seen[key] {
		return false
	}
	x.seen[key] = true
	return true
}

func (x *expansion) addAddrs(list ...AddrSpec) {
	for _, s := range list {
		if x.first([2]any{s.From, s.To}) {
			x.addrs = append(x.addrs, s)
		}
	}
}

func (x *expansion) addPorts(list ...PortSpec) {
	for _, s := range list {
		if x.first(s) {
			x.ports = append(x.ports, s)
		}
	}
}

func (x *expansion) addServices(list ...Service) {
	type key struct {
		proto              uint8
		src, dst           PortSpec
		icmpType, icmpCode int
	}
	for _, s := range list {
		k := key{proto: s.Proto, icmpType: s.ICMPType, icmpCode: s.ICMPCode}
		if len(s.SrcPorts) > 0 { // of an object there is one at most
			k.src = s.SrcPorts[0]
		}
		if len(s.DstPorts) > 0 {
			k.dst = s.DstPorts[0]
		}
		if x.first(k) {
			x.services = append(x.services, s)
		}
	}
}

// at makes an earlier line the current one, for findings.
func (p *parser) at(line int) { p.line, p.text = line, p.run.Lines[line-1].Text }

// word finds the last word of the current line that is text.
func (p *parser) word(text string) cli.Token { return lastWord(p.text, text) }
