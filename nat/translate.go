package nat

import (
	"net/netip"

	"patchbay/stack"
)

// on reports whether a rule for the interface rule (nil is any) is about i.
func on(rule, i *stack.Interface) bool { return rule == nil || rule == i }

// Untranslate returns the real destination of the first packet of f, which
// arrived on in, and the rule that says so. Without a rule ok is false and the
// destination is real as it is. Nothing is counted or opened.
func (rs *Rules) Untranslate(in *stack.Interface, f stack.Flow) (real netip.AddrPort, r *Rule, ok bool) {
	for _, r := range rs.rules {
		if dst, ok := r.untranslate(in, f); ok {
			return dst, r, true
		}
	}
	return f.Dst, nil, false
}

// untranslate is Untranslate by one rule: first for a packet from its mapped
// side, then for one from its real side to a peer that has another address.
func (r *Rule) untranslate(in *stack.Interface, f stack.Flow) (netip.AddrPort, bool) {
	if r.Kind != Dynamic && !r.Unidirectional && on(r.Mapped, in) && r.Dest.Contains(f.Src.Addr()) {
		if dst, ok := r.realOf(f.Dst, f.Proto); ok {
			return dst, true
		}
	}
	if !r.MappedDest.IsAny() && on(r.Real, in) &&
		r.MappedDest.Contains(f.Dst.Addr()) && r.sourceHas(f.Src, f.Proto) {
		a := r.MappedDest.shift(f.Dst.Addr(), r.Dest)
		return netip.AddrPortFrom(a, f.Dst.Port()), true
	}
	return netip.AddrPort{}, false
}

// realOf returns the real end that a static rule shows as mapped.
func (r *Rule) realOf(mapped netip.AddrPort, proto stack.Proto) (netip.AddrPort, bool) {
	m := r.mapped()
	if !m.Contains(mapped.Addr()) {
		return netip.AddrPort{}, false
	}
	port := mapped.Port()
	if r.Service != 0 {
		if r.Service != proto || r.MappedPort != port {
			return netip.AddrPort{}, false
		}
		port = r.RealPort
	}
	return netip.AddrPortFrom(m.shift(mapped.Addr(), r.Source), port), true
}

// sourceHas reports whether r translates the real end.
func (r *Rule) sourceHas(real netip.AddrPort, proto stack.Proto) bool {
	return r.Source.Contains(real.Addr()) &&
		(r.Service == 0 || r.Service == proto && r.RealPort == real.Port())
}

// mappedOf returns what a static rule shows of the real end.
func (r *Rule) mappedOf(real netip.AddrPort) netip.AddrPort {
	port := real.Port()
	if r.Service != 0 {
		port = r.MappedPort
	}
	return netip.AddrPortFrom(r.Source.shift(real.Addr(), r.mapped()), port)
}

// A Source is the outcome of Translate: what the server sees of the client.
type Source struct {
	Mapped netip.AddrPort // the source itself if there is no rule
	Rule   *Rule          // nil: not translated
	Lease  Lease          // the port of a dynamic rule; zero for others
}

// Translate translates the source of the first packet of f on its way from in
// to out. The destination of f is real already, un-NATed by un or, if un is
// nil, by no rule. Without a rule for it the source stays.
//
// The answers of the server must come back the way they went: if the rule for
// them is not un, the verdict is DropNATReverse. So the ASA treats a packet
// from outside to the real address of a translated host.
//
// A dynamic rule takes a port from pat, which the caller must hand to
// Table.Open or Release. With pat nil, nothing is taken and the port is the
// source's own; that is for tracing. No port left is DropNAT.
func (rs *Rules) Translate(in, out *stack.Interface, f stack.Flow, un *Rule, pat *PAT) (Source, stack.Verdict) {
	r := rs.source(in, out, f)
	if rs.reverse(in, out, f, r) != un {
		return Source{}, stack.DropNATReverse
	}
	switch {
	case r == nil:
		return Source{Mapped: f.Src}, stack.Forward
	case !on(r.Real, in) || !on(r.Mapped, out) || !r.sourceHas(f.Src, f.Proto) || !r.Dest.Contains(f.Dst.Addr()):
		// From the mapped side: the peer gets the address the real side
		// knows it by.
		a := r.Dest.shift(f.Src.Addr(), r.MappedDest)
		return Source{netip.AddrPortFrom(a, f.Src.Port()), r, Lease{}}, stack.Forward
	case r.Kind != Dynamic:
		return Source{r.mappedOf(f.Src), r, Lease{}}, stack.Forward
	}
	m := r.mapped()
	if pat == nil {
		return Source{netip.AddrPortFrom(m.From, f.Src.Port()), r, Lease{}}, stack.Forward
	}
	for a := m.From; m.Contains(a); a = a.Next() {
		if l, ok := rs.take(pat, f, out, a); ok {
			return Source{l.Mapped(), r, l}, stack.Forward
		}
	}
	if r.MappedInterface && m != Host(r.Mapped.Addr.Addr()) {
		if l, ok := rs.take(pat, f, out, r.Mapped.Addr.Addr()); ok {
			return Source{l.Mapped(), r, l}, stack.Forward
		}
	}
	return Source{}, stack.DropNAT
}

// take leases a port of the mapped address a that no static rule has there.
func (rs *Rules) take(pat *PAT, f stack.Flow, out *stack.Interface, a netip.Addr) (Lease, bool) {
	return pat.Take(f.Proto, f.Src, a, func(port uint16) bool {
		for _, r := range rs.rules {
			if r.Service == f.Proto && r.MappedPort == port && on(r.Mapped, out) && r.mapped().Contains(a) {
				return true
			}
		}
		return false
	})
}

// source returns the rule that translates the source of f on its way from in
// to out: from the rule's real side, or a peer's from its mapped side.
func (rs *Rules) source(in, out *stack.Interface, f stack.Flow) *Rule {
	for _, r := range rs.rules {
		if on(r.Real, in) && on(r.Mapped, out) && r.sourceHas(f.Src, f.Proto) && r.Dest.Contains(f.Dst.Addr()) {
			return r
		}
		if r.Kind != Dynamic && !r.Unidirectional && !r.Dest.IsAny() &&
			on(r.Mapped, in) && on(r.Real, out) &&
			r.Dest.Contains(f.Src.Addr()) && r.sourceHas(f.Dst, f.Proto) {
			return r
		}
	}
	return nil
}

// reverse returns the rule that un-NATs the destination of f in the mind of
// its answers: the one that would translate their source. src is the rule of
// the source of f; a rule about both ends counts for either.
func (rs *Rules) reverse(in, out *stack.Interface, f stack.Flow, src *Rule) *Rule {
	for _, r := range rs.rules {
		if r.Unidirectional {
			continue
		}
		if on(r.Real, out) && on(r.Mapped, in) && r.sourceHas(f.Dst, f.Proto) && r.Dest.Contains(f.Src.Addr()) {
			return r
		}
		if r == src && !r.MappedDest.IsAny() && on(r.Real, in) && on(r.Mapped, out) {
			return r
		}
	}
	return nil
}

// MappedOf returns how out knows the end real on in, for an address inside a
// message; port 0 stays 0. Without a rule that is real itself. It reports false
// if only a connection could tell: the rule is dynamic. Rules for one peer do
// not apply, nor rules for one port if the port is 0. Nothing is opened.
func (rs *Rules) MappedOf(real netip.AddrPort, in, out *stack.Interface, proto stack.Proto) (mapped netip.AddrPort, ok bool) {
	for _, r := range rs.rules {
		if !on(r.Real, in) || !on(r.Mapped, out) || !r.Dest.IsAny() || !r.sourceHas(real, proto) {
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
	for _, r := range rs.rules {
		if r.Kind == Dynamic || r.Unidirectional || !on(r.Mapped, in) || !r.Dest.IsAny() {
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
	return c.lease.pat != nil && (s.Rule.mapped().Contains(a) ||
		s.Rule.MappedInterface && a == s.Rule.Mapped.Addr.Addr())
}
