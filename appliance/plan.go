package appliance

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// A plan is what a configuration means to a packet. It never changes: a new
// configuration makes a new plan, whole or not at all.
type plan struct {
	running *config.Running
	service *phoneService // the phone proxy at work, or nil

	interfaces  []*stack.Interface // those with nameif and address, in order
	routes      *stack.Routes
	rules       *nat.Rules
	levels      nat.Levels
	lists       map[string]*nat.AccessList           // all there are, by name
	in, out     map[*stack.Interface]*nat.AccessList // access-group
	global      *nat.AccessList                      // access-group NAME global
	mapped      bool                                 // lists and classes are about addresses as packets carry them, as before 8.3
	icmp        map[*stack.Interface][]icmpRule
	mtas        []mta
	policies    map[*stack.Interface]*policy // service-policy; nil is global
	inspections []*inspection                // of all policies
	rated       bool                         // one of them polices
	limited     bool                         // one of them limits connections
	guards      map[*stack.Interface]*guard  // of each interface
	phone       *phonePlan
	timeouts    nat.Timeouts
	notes       func() map[*nat.Entry]entryNote // of lists, for the log; made once, when first asked for

	leastMSS, mostMSS int // sysopt connection tcpmss, bytes; 0 is no limit
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
// are the interfaces' links by nameif. What is in r as it was when old was made
// goes on: interfaces, counts, engines. old may be nil.
func compile(r *config.Running, links map[string]stack.Link, old *plan) (*plan, error) {
	p := &plan{
		running: r,
		in:      make(map[*stack.Interface]*nat.AccessList),
		out:     make(map[*stack.Interface]*nat.AccessList),
		icmp:    make(map[*stack.Interface][]icmpRule),
	}
	p.mapped = r.MappedACL
	p.levels = nat.Levels{Inter: r.SameSecurityInter, Intra: r.SameSecurityIntra}
	p.timeouts = timeouts(r.Timeouts)
	byName := make(map[string]*stack.Interface)
	for _, i := range r.Interfaces {
		if i.Name == "" || i.Down || !i.Addr.IsValid() {
			continue
		}
		l, ok := links[i.Name]
		if !ok {
			return nil, fmt.Errorf("appliance: interface %s (%s:%d) has no link: give --link %s=DRIVER:DEVICE", i.Name, r.File, i.Line, i.Name)
		}
		si := old.same(&stack.Interface{Name: i.Name, Level: i.Level, Addr: i.Addr, Link: l})
		byName[i.Name] = si
		p.interfaces = append(p.interfaces, si)
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
	p.notes = sync.OnceValue(p.makeNotes)
	p.compileGuards(r, byName)
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
	if old != nil {
		p.inherit(old)
	}
	return p, nil
}

func timeouts(t config.Timeouts) nat.Timeouts {
	n := nat.DefaultTimeouts()
	n.Conn, n.HalfClosed, n.UDP, n.ICMP = t.Conn, t.HalfClosed, t.UDP, t.ICMP
	n.SCTP, n.Xlate, n.PATXlate = t.SCTP, t.Xlate, t.PATXlate
	n.SIP, n.SIPMedia, n.SIPInvite, n.SIPDisconnect = t.SIP, t.SIPMedia, t.SIPInvite, t.SIPDisconnect
	n.SIPProvisionalMedia, n.TCPProxyReassembly = t.SIPProvisionalMedia, t.TCPProxyReassembly
	return n
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
// mapped and media-termination address there. "sysopt noproxyarp" is about the
// mapped ones.
func (p *plan) answers(i *stack.Interface, a netip.Addr) bool {
	if m := p.isMTA(a); m != nil && m.on == i {
		return true
	}
	return !slices.Contains(p.running.NoProxyARP, i.Name) && p.rules.Owns(i, a)
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
