package appliance

import (
	"fmt"
	"net/netip"
	"slices"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// A plan is what a configuration means to a packet. It never changes: a new
// configuration makes a new plan, whole or not at all.
type plan struct {
	interfaces  []*stack.Interface // those with nameif and address, in order
	routes      *stack.Routes
	rules       *nat.Rules
	levels      nat.Levels
	lists       map[string]*nat.AccessList           // all there are, by name
	in, out     map[*stack.Interface]*nat.AccessList // access-group
	global      *nat.AccessList                      // access-group NAME global
	icmp        map[*stack.Interface][]icmpRule
	mtas        []mta
	policies    map[*stack.Interface]*policy // service-policy; nil is global
	inspections []*inspection                // of all policies
	phone       *phonePlan
	timeouts    nat.Timeouts
}

type icmpRule struct {
	permit bool
	from   nat.Object
	typ    int // -1 is any
}

// An mta is a media termination address. on is nil for a global one outside
// every subnet; strict says that packets must come in by on.
type mta struct {
	addr   netip.Addr
	on     *stack.Interface
	strict bool
}

// A phonePlan is the applied phone-proxy instance.
type phonePlan struct {
	config  *config.PhoneProxy
	ctl     *config.CTLFile
	tls     *config.TLSProxy
	media   *config.MediaTermination
	servers []tftpServer
}

type tftpServer struct {
	real netip.AddrPort
	on   *stack.Interface
}

// compile makes the plan of r, which Validate has found without error. links
// are the interfaces' links by nameif; an interface without one is not there.
func compile(r *config.Running, links map[string]stack.Link) (*plan, error) {
	p := &plan{
		in:   make(map[*stack.Interface]*nat.AccessList),
		out:  make(map[*stack.Interface]*nat.AccessList),
		icmp: make(map[*stack.Interface][]icmpRule),
	}
	p.levels = nat.Levels{Inter: r.SameSecurityInter, Intra: r.SameSecurityIntra}
	p.timeouts = timeouts(r.Timeouts)
	byName := make(map[string]*stack.Interface)
	for _, i := range r.Interfaces {
		if i.Name == "" || i.Shutdown || !i.Addr.IsValid() {
			continue
		}
		l, ok := links[i.Name]
		if !ok {
			return nil, fmt.Errorf("appliance: interface %s (%s:%d) has no link: give --link %s=DRIVER:DEVICE", i.Name, r.File, i.Line, i.Name)
		}
		si := &stack.Interface{Name: i.Name, Level: i.Level, Addr: i.Addr, Link: l}
		byName[i.Name] = si
		p.interfaces = append(p.interfaces, si)
	}
	for name := range links {
		if byName[name] == nil {
			return nil, fmt.Errorf("appliance: link for %q: the configuration has no interface of that nameif that is up and has an address", name)
		}
	}
	routes := stack.Connected(p.interfaces...)
	for _, rt := range r.Routes {
		if i := byName[rt.Interface]; i != nil {
			routes = append(routes, stack.Route{Prefix: rt.Prefix, Interface: i, Gateway: rt.Gateway, Metric: rt.Metric})
		}
	}
	p.routes = stack.NewRoutes(routes)
	var err error
	if p.rules, err = compileRules(r, byName); err != nil {
		return nil, err
	}
	p.compileLists(r, byName)
	for _, c := range r.ICMP {
		if i := byName[c.Interface]; i != nil {
			rule := icmpRule{permit: c.Permit, typ: c.Type}
			if c.Prefix.IsValid() {
				rule.from = nat.Subnet(c.Prefix)
			} else {
				rule.from = nat.Range(c.From, c.To)
			}
			p.icmp[i] = append(p.icmp[i], rule)
		}
	}
	if err := p.compilePolicies(r, byName); err != nil {
		return nil, err
	}
	return p, nil
}

func timeouts(t config.Timeouts) nat.Timeouts {
	n := nat.DefaultTimeouts()
	n.Conn, n.HalfClosed, n.UDP, n.ICMP = t.Conn, t.HalfClosed, t.UDP, t.ICMP
	n.Xlate, n.PATXlate = t.Xlate, t.PATXlate
	n.SIP, n.SIPMedia, n.SIPInvite, n.SIPDisconnect = t.SIP, t.SIPMedia, t.SIPInvite, t.SIPDisconnect
	n.SIPProvisionalMedia, n.TCPProxyReassembly = t.SIPProvisionalMedia, t.TCPProxyReassembly
	return n
}

func compileRules(r *config.Running, byName map[string]*stack.Interface) (*nat.Rules, error) {
	var rules []nat.Rule
	for i := range r.NAT {
		if !r.NAT[i].Inactive {
			rule := compileRule(&r.NAT[i], byName)
			rule.Ref = i
			rules = append(rules, rule)
		}
	}
	rs, err := nat.NewRules(rules)
	if err != nil {
		return nil, fmt.Errorf("appliance: %s: %w", r.File, err)
	}
	return rs, nil
}

func compileRule(n *config.NATRule, byName map[string]*stack.Interface) nat.Rule {
	rule := nat.Rule{
		Section: n.Section, Name: "object network " + n.Object, Kind: nat.Dynamic,
		Real: byName[n.RealIf], Mapped: byName[n.MappedIf],
		Source: object(n.Object, n.RealFrom, n.RealTo), MappedInterface: n.MappedInterface,
		Dest: object("", n.DestFrom, n.DestTo), MappedDest: object("", n.MappedDestFrom, n.MappedDestTo),
		RealPort: n.RealPort, MappedPort: n.MappedPort,
		DestPorts: portRange(n.DstPorts), MappedDestPorts: portRange(n.MappedDstPorts),
		NoProxyARP: n.NoProxyARP, RouteLookup: n.RouteLookup,
		Unidirectional: n.Unidirectional, NetToNet: n.NetToNet,
	}
	if n.Section != config.AutoNAT {
		rule.Name = fmt.Sprintf("nat line %d", n.Line)
	}
	if n.MappedFrom.IsValid() {
		rule.MappedSource = object(n.MappedObject, n.MappedFrom, n.MappedTo)
	}
	switch {
	case n.Static && n.Identity():
		rule.Kind, rule.MappedSource = nat.Identity, nat.Object{}
	case n.Static:
		rule.Kind = nat.Static
	case !n.PATPool && n.MappedFrom.IsValid() && n.MappedFrom != n.MappedTo:
		rule.Pool = nat.OneToOne // a range without pat-pool: an address for each host
	}
	if rule.RealPort == 0 && rule.MappedPort == 0 {
		rule.RealPorts, rule.MappedPorts = portRange(n.SrcPorts), portRange(n.MappedSrcPorts)
	}
	switch n.Proto {
	case "tcp":
		rule.Service = stack.TCP
	case "udp":
		rule.Service = stack.UDP
	}
	return rule
}

// object returns the addresses from to to; all of them, or none given, is any.
func object(name string, from, to netip.Addr) nat.Object {
	if !from.IsValid() || from == netip.IPv4Unspecified() && to == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return nat.Object{}
	}
	return nat.Object{Name: name, From: from, To: to}
}

func portRange(s config.PortSpec) nat.PortRange { return nat.PortRange{From: s.From, To: s.To} }

func (p *plan) compileLists(r *config.Running, byName map[string]*stack.Interface) {
	lists := make(map[string]*nat.AccessList)
	for i := range r.AccessLists {
		lists[r.AccessLists[i].Name] = compileList(&r.AccessLists[i])
	}
	p.lists = lists
	for _, g := range r.AccessGroups {
		switch g.Direction {
		case "in":
			p.in[byName[g.Interface]] = lists[g.Name]
		case "out":
			p.out[byName[g.Interface]] = lists[g.Name]
		case "global":
			p.global = lists[g.Name]
		}
	}
}

func compileList(l *config.AccessList) *nat.AccessList {
	var entries []*nat.Entry
	groups := make(map[*config.AddrSpec][]nat.Object) // lists that entries share
	for _, a := range l.Entries {
		if a.IsRemark() || len(a.Srcs) == 0 || len(a.Dsts) == 0 {
			continue
		}
		for _, s := range a.Services {
			e := &nat.Entry{
				Permit: a.Permit, Proto: stack.Proto(s.Proto),
				Src: addresses(a.Srcs, groups), Dst: addresses(a.Dsts, groups),
				SrcPorts: ports(s.SrcPorts), DstPorts: ports(s.DstPorts),
				Log: a.Log, Inactive: a.Inactive, Text: a.Text,
			}
			if s.ICMPType >= 0 {
				t := uint8(s.ICMPType)
				e.ICMPType = &t
			}
			if s.ICMPCode >= 0 {
				c := uint8(s.ICMPCode)
				e.ICMPCode = &c
			}
			if t := a.Times(); t != nil {
				e.When = timeRange(t)
			}
			entries = append(entries, e)
		}
	}
	return nat.NewAccessList(l.Name, entries)
}

// timeRange makes what a packet's time is held against. The box's clock is UTC.
func timeRange(t *config.TimeRange) *nat.TimeRange {
	r := &nat.TimeRange{Name: t.Name, Start: t.Start, End: t.End}
	for _, p := range t.Periods {
		r.Periods = append(r.Periods, nat.Period{From: nat.WeekMinute(p.From), To: nat.WeekMinute(p.To)})
	}
	return r
}

// addresses returns the objects of a list, nil if they are any; shared has
// those of lists already seen.
func addresses(list []config.AddrSpec, shared map[*config.AddrSpec][]nat.Object) []nat.Object {
	if slices.ContainsFunc(list, func(s config.AddrSpec) bool { return s.Any }) {
		return nil
	}
	objects, ok := shared[&list[0]]
	if !ok {
		for _, s := range list {
			objects = append(objects, nat.Object{Name: s.Object, From: s.From, To: s.To})
		}
		shared[&list[0]] = objects
	}
	return objects
}

// ports returns the ranges of a list, nil if they are any. It turns "neq" into
// the ranges around it.
func ports(list []config.PortSpec) []nat.PortRange {
	var rs []nat.PortRange
	for _, s := range list {
		if s.IsAny() {
			return nil
		}
		if !s.Not {
			rs = append(rs, nat.PortRange{From: s.From, To: s.To})
			continue
		}
		if s.From > 0 {
			rs = append(rs, nat.PortRange{From: 0, To: s.From - 1})
		}
		if s.To < 65535 {
			rs = append(rs, nat.PortRange{From: s.To + 1, To: 65535})
		}
	}
	return rs
}

// subnetOf returns the interface whose subnet holds a, or nil.
func (p *plan) subnetOf(a netip.Addr) *stack.Interface {
	i := slices.IndexFunc(p.interfaces, func(i *stack.Interface) bool { return i.Addr.Contains(a) })
	if i < 0 {
		return nil
	}
	return p.interfaces[i]
}

// named returns the interface of a nameif, or nil.
func (p *plan) named(name string) *stack.Interface {
	i := slices.IndexFunc(p.interfaces, func(i *stack.Interface) bool { return i.Name == name })
	if i < 0 {
		return nil
	}
	return p.interfaces[i]
}

// mtaOn returns the media termination address for the hosts on i.
func (p *plan) mtaOn(i *stack.Interface) (mta, bool) {
	for _, m := range p.mtas {
		if m.on == i || !m.strict {
			return m, true
		}
	}
	return mta{}, false
}

// isMTA returns the media termination address a.
func (p *plan) isMTA(a netip.Addr) *mta {
	for i := range p.mtas {
		if p.mtas[i].addr == a {
			return &p.mtas[i]
		}
	}
	return nil
}

// ownedBy returns the interface whose own address a is, or nil.
func (p *plan) ownedBy(a netip.Addr) *stack.Interface {
	for _, i := range p.interfaces {
		if i.Addr.Addr() == a {
			return i
		}
	}
	return nil
}

// answers reports whether the box answers ARP for a on i: proxy ARP for every
// mapped and media-termination address there.
func (p *plan) answers(i *stack.Interface, a netip.Addr) bool {
	if m := p.isMTA(a); m != nil && m.on == i {
		return true
	}
	return p.rules.Owns(i, a)
}

// permitsICMP decides by the icmp rules of i, which hold for its own address
// and its media termination address. (reference/asa-cli.md, section 9.4.)
func (p *plan) permitsICMP(i *stack.Interface, from netip.Addr, typ uint8) bool {
	rules := p.icmp[i]
	for _, r := range rules {
		if r.from.Contains(from) && (r.typ < 0 || r.typ == int(typ)) {
			return r.permit
		}
	}
	return len(rules) == 0
}

// tftpFor returns the TFTP server of the phone proxy that a request from in
// means, with its destination real already; nil if it is none of them.
func (p *plan) tftpFor(in *stack.Interface, f stack.Flow) *tftpServer {
	if p.phone == nil || f.Proto != stack.UDP {
		return nil
	}
	for i := range p.phone.servers {
		s := &p.phone.servers[i]
		if s.real == f.Dst && s.on != in && p.phonesOn(in) {
			return s
		}
	}
	return nil
}
