package appliance

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// compileRules makes the rule table. The rules of one line share their limits.
func compileRules(r *config.Running, byName map[string]*stack.Interface) (*nat.Rules, error) {
	var rules []nat.Rule
	limits := make(map[nat.HostLimits]*nat.HostLimits) // of the line at hand
	for i := range r.NAT {
		n := &r.NAT[i]
		if n.Inactive {
			continue
		}
		if i > 0 && r.NAT[i-1].Line != n.Line {
			clear(limits)
		}
		rule := compileRule(n, byName)
		rule.Ref = i
		if l := (nat.HostLimits{TCP: n.ConnMax, UDP: n.UDPMax, Embryonic: n.EmbryonicMax}); l != (nat.HostLimits{}) {
			if limits[l] == nil {
				limits[l] = &l
			}
			rule.Limits = limits[l]
		}
		rules = append(rules, rule)
	}
	rs, err := nat.NewRules(rules)
	if err != nil {
		return nil, fmt.Errorf("appliance: %s: %w", r.File, err)
	}
	if r.NATControl > 0 {
		rs.Control()
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
		Unidirectional: n.Unidirectional, NetToNet: n.NetToNet, Policy: n.Legacy, OneWay: n.OneWay, Refuse: n.NoGlobal,
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
	default:
		compilePool(&rule, n)
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

// compilePool makes the pool of a dynamic rule. Without pat-pool, ranges of
// addresses are given away one to one, and what single addresses there are serve
// with ports those for whom nothing is left.
func compilePool(rule *nat.Rule, n *config.NATRule) {
	list := n.Pool
	if list == nil && n.MappedFrom.IsValid() {
		list = []config.AddrSpec{{From: n.MappedFrom, To: n.MappedTo}}
	}
	var ranges, singles []nat.Object
	for _, s := range list {
		if o := object("", s.From, s.To); s.From != s.To && !n.PATPool {
			ranges = append(ranges, o)
		} else {
			singles = append(singles, o)
		}
	}
	switch {
	case len(ranges) > 0:
		rule.Pool, rule.Overload = nat.OneToOne, singles
	case n.RoundRobin:
		rule.Pool, ranges = nat.PATRoundRobin, singles
	default:
		ranges = singles
	}
	if n.PATPool {
		rule.Extended, rule.Flat, rule.IncludeReserve = n.Extended, n.Flat, n.IncludeReserve
	}
	if len(ranges) > 0 {
		ranges[0].Name = rule.MappedSource.Name
		rule.MappedSource, rule.More = ranges[0], ranges[1:]
	}
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
				Log: a.Log, LogLevel: a.LogLevel, LogInterval: time.Duration(a.LogInterval) * time.Second,
				Inactive: a.Inactive, Text: a.Text,
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
