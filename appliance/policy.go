package appliance

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// A policy is a policy-map that a service-policy line has put to work.
type policy struct {
	name    string
	on      *stack.Interface // nil: global
	line    int              // of the service-policy line
	classes []*class
}

// A class is one class in a policy, and what is done to its traffic.
type class struct {
	name     string
	match    matcher
	inspects []*inspection
	rates    [2]*rate    // police, by direction; nil: none
	limits   *nat.Limits // set connection, or nil
}

// A matcher says what traffic a class is.
type matcher struct {
	kind     config.MatchKind
	proto    stack.Proto
	from, to uint16          // destination ports, inclusive
	list     *nat.AccessList // of kind MatchACL
}

// matches reports whether a packet of q is of the class. For default-inspection-traffic each inspection knows its own ports.
func (m *matcher) matches(q *nat.Query) bool {
	f := &q.Flow
	switch m.kind {
	case config.MatchAny, config.MatchDefault:
		return true
	case config.MatchPort:
		return f.Proto == m.proto && m.from <= f.Dst.Port() && f.Dst.Port() <= m.to
	case config.MatchACL:
		e := m.list.Find(q)
		return e != nil && e.Permit
	}
	return false
}

// defaultPorts are default-inspection-traffic, by protocol. (reference/asa-cli.md,
// section 8.5.)
var defaultPorts = map[string]uint16{"skinny": 2000, "sip": 5060, "tftp": 69}

// takes reports whether an inspection in a class of kind can take f: it is of
// a transport that the protocol has and, by default, to its port.
func (x *inspection) takes(kind config.MatchKind, f stack.Flow) bool {
	switch x.protocol {
	case "sip":
		if f.Proto != stack.TCP && (f.Proto != stack.UDP || x.phoneProxy) {
			return false
		}
	case "skinny":
		if f.Proto != stack.TCP {
			return false
		}
	case "tftp":
		if f.Proto != stack.UDP {
			return false
		}
	case "icmp":
		return f.Proto == stack.ICMP
	}
	return kind != config.MatchDefault || f.Dst.Port() == defaultPorts[x.protocol]
}

// inspection returns the inspection of a connection from in to out; nil if there
// is none. Classes of in, and global ones, are asked about its first packet as
// here, those of out as there; see decision.seen.
//
// Policies are asked in the ASA's order: that of the interface by which the
// packet came, that of the one by which it leaves, the global one; and in each
// the first class that the packet is of and that inspects it. So an interface's
// inspection wins over the global one. The phone proxy is for packets that come
// in by the interface of its policy only, for that is where its phones are.
// (reference/asa-cli.md, section 8.5.)
func (p *plan) inspection(in, out *stack.Interface, here, there *nat.Query) *inspection {
	if len(p.policies) == 0 {
		return nil
	}
	if x := p.policies[in].inspection(here, false); x != nil {
		return x
	}
	if out != in {
		if x := p.policies[out].inspection(there, true); x != nil {
			return x
		}
	}
	return p.policies[nil].inspection(here, false)
}

// inspection returns that of the first class that inspects a packet of q; leaving
// says that the packet leaves by the interface of the policy.
func (pol *policy) inspection(q *nat.Query, leaving bool) *inspection {
	if pol == nil {
		return nil
	}
	for _, c := range pol.classes {
		if len(c.inspects) == 0 || !c.match.matches(q) {
			continue
		}
		for _, x := range c.inspects {
			if !(leaving && x.phoneProxy) && x.takes(c.match.kind, q.Flow) {
				return x
			}
		}
	}
	return nil
}

// compilePolicies finds what the service policies put into effect.
func (p *plan) compilePolicies(r *config.Running, byName map[string]*stack.Interface) error {
	p.policies = make(map[*stack.Interface]*policy)
	for _, sp := range r.ServicePolicies {
		pm := r.PolicyMap(sp.Policy)
		if pm == nil || sp.Interface != "" && byName[sp.Interface] == nil {
			continue
		}
		pol := &policy{name: sp.Policy, on: byName[sp.Interface], line: sp.Line}
		for i := range pm.Classes {
			c, err := p.compileClass(r, &pm.Classes[i], pol, byName)
			if err != nil {
				return err
			}
			if c != nil {
				pol.classes = append(pol.classes, c)
			}
		}
		// class-default is the last wherever it is written: all else is.
		slices.SortStableFunc(pol.classes, func(a, b *class) int { return cmp.Compare(a.last(), b.last()) })
		p.policies[pol.on] = pol
	}
	return nil
}

// classDefault is the class of what is in no other.
const classDefault = "class-default"

// last is 1 for the class that is asked after all others, else 0.
func (c *class) last() int {
	if c.name == classDefault {
		return 1
	}
	return 0
}

// compileClass makes what pc, a class of pol, means; nil for nothing.
func (p *plan) compileClass(r *config.Running, pc *config.PolicyClass, pol *policy, byName map[string]*stack.Interface) (*class, error) {
	c := &class{name: pc.Class}
	cm := r.ClassMap(pc.Class)
	switch {
	case pc.Class == classDefault:
		c.match.kind = config.MatchAny
	case cm == nil:
		return nil, nil
	default:
		c.match = matcher{kind: cm.Match.Kind, proto: stack.UDP, from: cm.Match.From, to: cm.Match.To}
		if cm.Match.Proto == "tcp" {
			c.match.proto = stack.TCP
		}
		if cm.Match.Kind == config.MatchACL {
			l := r.AccessList(cm.Match.ACL)
			if l == nil {
				return nil, nil
			}
			c.match.list = compileList(l)
		}
	}
	for i := range pc.Inspects {
		in := &pc.Inspects[i]
		if in.PhoneProxy != "" {
			if err := p.applyPhoneProxy(r, in.PhoneProxy, byName); err != nil {
				return nil, err
			}
		}
		x := newInspection(r, in)
		if x == nil {
			continue
		}
		x.class, x.policy = c, pol
		c.inspects = append(c.inspects, x)
		p.inspections = append(p.inspections, x)
	}
	p.compileRates(c, pc, pol)
	return c, nil
}

// applyPhoneProxy readies the one instance. Validate has seen that its parts
// are there.
func (p *plan) applyPhoneProxy(r *config.Running, name string, byName map[string]*stack.Interface) error {
	if p.phone != nil {
		return nil
	}
	pp := r.PhoneProxy(name)
	if pp == nil {
		return fmt.Errorf("appliance: phone-proxy %s does not exist", name)
	}
	ph := &phonePlan{
		config: pp, ctl: r.CTL(pp.CTL), tls: r.TLSProxy(pp.TLSProxy), media: r.MediaTermination(pp.MediaTermination),
	}
	if ph.ctl == nil || ph.tls == nil || ph.media == nil || len(pp.TFTPServers) == 0 {
		return fmt.Errorf("appliance: phone-proxy %s needs a media termination, a TLS proxy, a CTL file and a TFTP server before a service policy applies it", name)
	}
	for _, s := range pp.TFTPServers {
		ph.servers = append(ph.servers, tftpServer{netip.AddrPortFrom(s.Addr, s.Port), byName[s.Interface]})
	}
	for _, a := range ph.media.Addrs {
		m := mta{addr: a.Addr, on: byName[a.Interface], strict: a.Interface != ""}
		if m.on == nil {
			m.on = p.subnetOf(a.Addr)
		}
		p.mtas = append(p.mtas, m)
	}
	p.phone = ph
	return nil
}

// phonesOn reports whether phones of the phone proxy come in by i.
func (p *plan) phonesOn(i *stack.Interface) bool {
	return p.phone != nil && slices.ContainsFunc(p.inspections, func(x *inspection) bool {
		return x.phoneProxy && (x.policy.on == nil || x.policy.on == i)
	})
}
