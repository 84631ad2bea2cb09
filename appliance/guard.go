package appliance

import (
	"cmp"
	"sync/atomic"

	"patchbay/appliance/config"
	"patchbay/stack"
)

// A guard is what an interface refuses whatever access lists say.
type guard struct {
	reverse    bool          // ip verify reverse-path
	refused    atomic.Uint64 // packets whose source is not behind it
	management bool          // management-only

	fragments stack.FragmentLimits // fragment
}

// compileGuards finds what interfaces refuse.
func (p *plan) compileGuards(r *config.Running, byName map[string]*stack.Interface) {
	p.guards = make(map[*stack.Interface]*guard)
	for _, i := range r.Interfaces {
		if si := byName[i.Name]; si != nil {
			p.guards[si] = &guard{management: i.ManagementOnly}
		}
	}
	for _, v := range r.ReversePaths {
		if g := p.guards[byName[v.Interface]]; g != nil {
			g.reverse = true
		}
	}
	for _, f := range r.Fragments {
		for i, g := range p.guards {
			if f.Interface == "" || f.Interface == i.Name {
				g.fragments = stack.FragmentLimits{
					Size: cmp.Or(f.Size, g.fragments.Size), Chain: cmp.Or(f.Chain, g.fragments.Chain),
					Timeout: cmp.Or(f.Timeout, g.fragments.Timeout),
				}
			}
		}
	}
	p.leastMSS, p.mostMSS = r.TCPMSS.Minimum, r.TCPMSS.Maximum
}

// spoofed reports whether no packet that arrives at in may have the source of
// f: it is an address of the box, or the interface wants the route to the source
// to lead back out of it and it does not. The first packet of a connection is
// asked about, and each that has none; those that follow are of the connection
// only if they arrive where the first did. (The ASA's command reference, ip
// verify reverse-path; RFC 3704, section 2.2.)
func (p *plan) spoofed(in *stack.Interface, f stack.Flow) bool {
	src := f.Src.Addr()
	if p.ownedBy(src) != nil || p.isMTA(src) != nil {
		return true
	}
	if g := p.guards[in]; g == nil || !g.reverse {
		return false
	}
	back, _, ok := p.routes.Lookup(src)
	return !ok || back != in
}

// management reports whether in or out is for the box itself only, so that
// nothing passes between them. The ASA counts what it refuses then as acl-drop.
// (The ASA's command reference, show asp drop: acl-drop, 3.)
func (p *plan) management(in, out *stack.Interface) bool {
	for _, i := range [...]*stack.Interface{in, out} {
		if g := p.guards[i]; g != nil && g.management {
			return true
		}
	}
	return false
}

// limitMSS brings the maximum segment size that the TCP SYN p offers within
// what "sysopt connection tcpmss" says and the MTUs on its way allow. What the
// box itself says or is told has sizes of its own.
func (p *plan) limitMSS(q *stack.Packet) {
	if q.In.IsIdentity() || q.Out.IsIdentity() {
		return
	}
	most := min(q.Out.Link.MTU(), q.In.Link.MTU()) - ipTCPHeader
	if p.mostMSS > 0 {
		most = min(most, p.mostMSS)
	}
	most = min(max(most, 0), stack.MaxPacket)
	q.ClampMSS(uint16(min(p.leastMSS, most)), uint16(most))
}
