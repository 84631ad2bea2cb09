package nat

import (
	"net/netip"
	"slices"

	"patchbay/stack"
)

// on reports whether a rule for the interface rule (nil is any) is about i.
func on(rule, i *stack.Interface) bool { return rule == nil || rule == i }

// Untranslate returns the real destination of the first packet of f, which
// arrived on in, and the rule that says so. Without a rule ok is false and the
// destination is real as it is. Nothing is counted or opened.
func (rs *Rules) Untranslate(in *stack.Interface, f stack.Flow) (real netip.AddrPort, r *Rule, ok bool) {
	for w := rs.about(&rs.un, f.Dst.Addr()); w.next(); {
		if dst, ok := w.rule.untranslate(in, f); ok {
			return dst, w.rule, true
		}
	}
	return f.Dst, nil, false
}

// untranslate is Untranslate by one rule: first for a packet from its mapped
// side, then for one from its real side to a peer that has another address or
// port there.
func (r *Rule) untranslate(in *stack.Interface, f stack.Flow) (netip.AddrPort, bool) {
	if r.answersBack() && on(r.Mapped, in) && r.destHas(f.Src, f.Proto) {
		if dst, ok := r.realOf(f.Dst, f.Proto); ok {
			return dst, true
		}
	}
	if r.movesDest() && on(r.Real, in) && (r.Service == 0 || r.Service == f.Proto) &&
		r.MappedDest.Contains(f.Dst.Addr()) && r.MappedDestPorts.has(f.Dst.Port()) && r.sourceHas(f.Src, f.Proto) {
		return netip.AddrPortFrom(r.MappedDest.shift(f.Dst.Addr(), r.Dest),
			r.MappedDestPorts.shift(f.Dst.Port(), r.DestPorts)), true
	}
	return netip.AddrPort{}, false
}

// movesDest reports whether the real side knows peers of r by MappedDest or
// MappedDestPorts, even if these are the same as Dest and DestPorts.
func (r *Rule) movesDest() bool {
	return !r.Policy && (!r.MappedDest.IsAny() || r.MappedDestPorts != PortRange{})
}

// has reports whether port is in p, where the zero range is all ports.
func (p PortRange) has(port uint16) bool { return p == PortRange{} || p.Contains(port) }

// shift returns the port that has the place in to that port has in p.
func (p PortRange) shift(port uint16, to PortRange) uint16 {
	if p == (PortRange{}) || to == (PortRange{}) {
		return port
	}
	return port - p.From + to.From
}

// realOf returns the real end that a static rule shows as mapped.
func (r *Rule) realOf(mapped netip.AddrPort, proto stack.Proto) (netip.AddrPort, bool) {
	m := r.mapped()
	if !m.Contains(mapped.Addr()) || r.Service != 0 && r.Service != proto || !r.MappedPorts.has(mapped.Port()) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(m.shift(mapped.Addr(), r.Source), r.MappedPorts.shift(mapped.Port(), r.RealPorts)), true
}

// sourceHas reports whether r translates the real end.
func (r *Rule) sourceHas(real netip.AddrPort, proto stack.Proto) bool {
	return r.Source.Contains(real.Addr()) && (r.Service == 0 || r.Service == proto) && r.RealPorts.has(real.Port())
}

// destHas reports whether peer, as the world has it, is one that r is about.
func (r *Rule) destHas(peer netip.AddrPort, proto stack.Proto) bool {
	return r.Dest.Contains(peer.Addr()) && (r.Service == 0 || r.Service == proto) && r.DestPorts.has(peer.Port())
}

// mappedOf returns what a static rule shows of the real end.
func (r *Rule) mappedOf(real netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(r.Source.shift(real.Addr(), r.mapped()), r.RealPorts.shift(real.Port(), r.MappedPorts))
}

// A Source is the outcome of Translate: what the server sees of the client.
type Source struct {
	Mapped netip.AddrPort // the source itself if there is no rule
	Rule   *Rule          // nil: not translated
	Lease  Lease          // what a dynamic rule gave; zero for others
}

// Translate translates the source of the first packet of f on its way from in
// to out. The destination of f is real already, un-NATed by un or, if un is
// nil, by no rule. Without a rule for it the source stays.
//
// The answers of the server must come back the way they went: if the rule for
// them is not un, the verdict is DropNATReverse. So the ASA treats a packet
// from outside to the real address of a translated host. With Control, and for
// a rule that says Refuse, a host without a translation is DropNoTranslation.
//
// A dynamic rule takes a port or an address from pat, which the caller must
// hand to Table.Open or Release. With pat nil, nothing is taken, the port is the
// source's own and the address the first there is; that is for tracing. Nothing
// left is DropNAT.
func (rs *Rules) Translate(in, out *stack.Interface, f stack.Flow, un *Rule, pat *PAT) (Source, stack.Verdict) {
	r, peer := rs.sourceRule(in, out, f)
	switch {
	case r != nil && r.Refuse:
		return Source{}, stack.DropNoTranslation
	case rs.reverse(in, out, f, r) != un:
		return Source{}, stack.DropNATReverse
	case rs.control.forbids(in, out, r, un):
		return Source{}, stack.DropNoTranslation
	case r == nil:
		return Source{Mapped: f.Src}, stack.Forward
	case peer: // gets the address that the real side knows it by
		a := netip.AddrPortFrom(r.Dest.shift(f.Src.Addr(), r.MappedDest), r.DestPorts.shift(f.Src.Port(), r.MappedDestPorts))
		return Source{a, r, Lease{}}, stack.Forward
	case r.Kind != Dynamic:
		return Source{r.mappedOf(f.Src), r, Lease{}}, stack.Forward
	case pat == nil:
		return Source{netip.AddrPortFrom(r.mapped().From, f.Src.Port()), r, Lease{}}, stack.Forward
	}
	l, ok := rs.give(r, in, out, f, pat)
	if !ok {
		return Source{}, stack.DropNAT
	}
	m := l.Mapped()
	if l.x.pool == nil { // a whole address
		m = netip.AddrPortFrom(m.Addr(), f.Src.Port())
	}
	return Source{m, r, l}, stack.Forward
}

// give leases what the dynamic rule r maps the source of f to: of a OneToOne
// rule an address, then a port of Overload; else a port of the pool; and when
// that is used up a port of the interface.
func (rs *Rules) give(r *Rule, in, out *stack.Interface, f stack.Flow, pat *PAT) (Lease, bool) {
	use := xlateUse{rule: r, from: in, to: out}
	k := taking{proto: f.Proto, real: f.Src, use: use, avoid: func(a netip.Addr, port uint16) bool {
		return rs.hasStaticPort(out, staticPort{f.Proto, a, port})
	}}
	if r.Pool == OneToOne {
		if l, ok := pat.takeAddr(f.Src.Addr(), r.pool, use, func(a netip.Addr) bool { return rs.hasStatic(out, a) }); ok {
			return l, true
		}
		if l, ok := pat.takePool(&k, r.overload, false); ok {
			return l, true
		}
	} else {
		k := k
		r.ask(&k, f.Dst)
		if l, ok := pat.takePool(&k, r.pool, r.Pool == PATRoundRobin); ok {
			return l, true
		}
	}
	if r.MappedInterface && !r.pool.contains(r.Mapped.Addr.Addr()) {
		return pat.take(&k, r.Mapped.Addr.Addr())
	}
	return Lease{}, false
}

// ask narrows k to what the pool of r gives toward the server dst.
func (r *Rule) ask(k *taking, dst netip.AddrPort) {
	if r.Extended {
		k.peer = dst
	}
	if r.Flat {
		k.flat = PortRange{1024, 65535}
		if r.IncludeReserve {
			k.flat.From = 1
		}
	}
}

// hasStaticPort reports whether static PAT on out shows k.
func (rs *Rules) hasStaticPort(out *stack.Interface, k staticPort) bool {
	for _, r := range rs.static[k] {
		if on(r.Mapped, out) {
			return true
		}
	}
	for _, r := range rs.wide {
		if r.Service == k.proto && r.MappedPorts.Contains(k.port) && on(r.Mapped, out) && r.mapped().Contains(k.addr) {
			return true
		}
	}
	return false
}

// hasStatic reports whether a, of a dynamic rule's addresses, is not for hosts:
// it is the interface's own, or a static rule shows it on out.
func (rs *Rules) hasStatic(out *stack.Interface, a netip.Addr) bool {
	if a == out.Addr.Addr() {
		return true
	}
	for w := rs.about(&rs.shown, a); w.next(); {
		r := w.rule
		if r.Kind != Dynamic && on(r.Mapped, out) && !r.mapped().IsAny() && r.mapped().Contains(a) {
			return true
		}
	}
	return false
}

// sourceRule returns the rule that translates the source of f on its way from
// in to out: from the rule's real side, or a peer's from its mapped side.
func (rs *Rules) sourceRule(in, out *stack.Interface, f stack.Flow) (r *Rule, peer bool) {
	for w := rs.about(&rs.source, f.Src.Addr()); w.next(); {
		r := w.rule
		if on(r.Real, in) && on(r.Mapped, out) && r.sourceHas(f.Src, f.Proto) && r.destHas(f.Dst, f.Proto) {
			return r, false
		}
		if r.answersBack() && r.movesDest() && on(r.Mapped, in) && on(r.Real, out) &&
			r.destHas(f.Src, f.Proto) && r.sourceHas(f.Dst, f.Proto) {
			return r, true
		}
	}
	return nil, false
}

// reverse returns the rule that un-NATs the destination of f in the mind of
// its answers: the one that would translate their source. src is the rule of
// the source of f; a rule about both ends counts for either.
func (rs *Rules) reverse(in, out *stack.Interface, f stack.Flow, src *Rule) *Rule {
	both := src != nil && !src.Unidirectional && src.movesDest() && on(src.Real, in) && on(src.Mapped, out)
	for w := rs.about(&rs.real, f.Dst.Addr()); w.next(); {
		r := w.rule
		if both && r.place >= src.place {
			break
		}
		if !r.Unidirectional && on(r.Real, out) && on(r.Mapped, in) && r.sourceHas(f.Dst, f.Proto) && r.destHas(f.Src, f.Proto) {
			return r
		}
	}
	if both {
		return src
	}
	return nil
}

// narrow reports whether r is for some peers only.
func (r *Rule) narrow() bool { return !r.Dest.IsAny() || r.DestPorts != PortRange{} }

// MappedOf returns how out knows the end real on in, for an address inside a
// message; port 0 stays 0. Without a rule that is real itself. It reports false
// if only a connection could tell: the rule is dynamic. Rules for one peer do
// not apply, nor rules for one port if the port is 0. Nothing is opened.
func (rs *Rules) MappedOf(real netip.AddrPort, in, out *stack.Interface, proto stack.Proto) (mapped netip.AddrPort, ok bool) {
	for w := rs.about(&rs.real, real.Addr()); w.next(); {
		r := w.rule
		if !on(r.Real, in) || !on(r.Mapped, out) || r.narrow() || r.Refuse || !r.sourceHas(real, proto) {
			continue
		}
		if r.Kind == Dynamic {
			return netip.AddrPort{}, false
		}
		m := r.mappedOf(real)
		if real.Port() == 0 {
			m = netip.AddrPortFrom(m.Addr(), 0)
		}
		return m, true
	}
	return real, true
}

// RealOf returns the real end that a packet from in reaches under the address
// mapped, for an address inside a message; ok is false if no static rule says
// so. Rules for one peer do not apply, nor rules for one port if the port is 0.
func (rs *Rules) RealOf(mapped netip.AddrPort, in *stack.Interface, proto stack.Proto) (real netip.AddrPort, ok bool) {
	for w := rs.about(&rs.shown, mapped.Addr()); w.next(); {
		r := w.rule
		if !r.answersBack() || !on(r.Mapped, in) || r.narrow() {
			continue
		}
		if real, ok := r.realOf(mapped, proto); ok {
			return real, true
		}
	}
	return netip.AddrPort{}, false
}

// Keeps reports whether rs would still translate c as it was when it opened,
// so that a connection may outlive a change of the rules. Connections that a
// pinhole opened were never asked and are kept. Those of the box itself, whose
// In or Out is identity, are not for Keeps: no rule is about them.
func (rs *Rules) Keeps(c *Conn) bool {
	if c.Hole != nil {
		return true
	}
	f := c.Client()
	dst, un, _ := rs.Untranslate(c.In, f)
	if dst != c.Server().Dst {
		return false
	}
	f.Dst = dst
	s, v := rs.Translate(c.In, c.Out, f, un, nil)
	if v != stack.Forward {
		return false
	}
	if s.Rule == nil || s.Rule.Kind != Dynamic {
		return c.lease.pat == nil && s.Mapped == c.Server().Src
	}
	a := c.Server().Src.Addr()
	return c.lease.pat != nil && slices.ContainsFunc(s.Rule.shown(), func(o Object) bool { return o.Contains(a) })
}
