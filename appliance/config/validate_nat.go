package config

import (
	"net/netip"
	"slices"
)

// mapped returns the addresses that a rule maps to. A rule to an interface has
// that interface's address.
func (v *validator) mapped(n *NATRule) (from, to netip.Addr) {
	if n.MappedFrom.IsValid() || !n.MappedInterface {
		return n.MappedFrom, n.MappedTo
	}
	if i := v.run.Interface(n.MappedIf); i != nil {
		return i.Addr.Addr(), i.Addr.Addr()
	}
	return netip.Addr{}, netip.Addr{}
}

// fixed reports whether n maps the same for everybody, so that it tells where a
// server is.
func (n *NATRule) fixed() bool {
	return n.RealFrom.IsValid() && !n.Inactive && !n.DestFrom.IsValid() && !n.RealFrom.IsUnspecified()
}

func within(a, from, to netip.Addr) bool {
	return from.IsValid() && from.Compare(a) <= 0 && a.Compare(to) <= 0
}

// mapping returns a rule that maps something to addr, a static one if there
// is; nil if none does.
func (v *validator) mapping(addr netip.Addr) *NATRule {
	var found *NATRule
	for i := range v.run.NAT {
		n := &v.run.NAT[i]
		if from, to := v.mapped(n); n.fixed() && within(addr, from, to) && (found == nil || n.Static && !found.Static) {
			found = n
		}
	}
	return found
}

// static returns a static rule whose real address is addr, nil if there is none.
func (v *validator) static(addr netip.Addr) *NATRule {
	return find(v.run.NAT, func(n *NATRule) bool { return n.Static && n.fixed() && within(addr, n.RealFrom, n.RealTo) })
}

// real returns the real address that a static rule maps to addr.
func (v *validator) real(n *NATRule, addr netip.Addr) netip.Addr {
	from, _ := v.mapped(n)
	a, _ := advance(n.RealFrom, toInt(addr)-toInt(from))
	return a
}

// reals returns every real address that is known as addr: those statically
// mapped to it, or addr itself if there is none.
func (v *validator) reals(addr netip.Addr) []netip.Addr {
	var list []netip.Addr
	for i := range v.run.NAT {
		n := &v.run.NAT[i]
		if from, to := v.mapped(n); n.Static && n.fixed() && within(addr, from, to) {
			list = append(list, v.real(n, addr))
		}
	}
	if list == nil {
		list = append(list, addr)
	}
	return list
}

func (v *validator) translations() {
	for i := range v.run.NAT {
		n := &v.run.NAT[i]
		for _, name := range []string{n.RealIf, n.MappedIf} {
			if name != "" {
				v.needInterface(n.Line, name)
			}
		}
		if !n.RealFrom.IsValid() || n.Inactive || n.DestFrom.IsValid() {
			continue // reported by Parse, without effect, or for some destinations only
		}
		v.ownAddress(n)
	}
	v.claims()
}

// claims compares each two static rules that map to the same address. It goes
// through them by their first mapped address and keeps those that reach on.
func (v *validator) claims() {
	type claim struct {
		rule     int
		from, to netip.Addr
	}
	var list, open []claim
	for i := range v.run.NAT {
		if n := &v.run.NAT[i]; n.Static && n.RealFrom.IsValid() && !n.Inactive && !n.DestFrom.IsValid() && (n.Section == AutoNAT || n.Legacy) {
			if from, to := v.mapped(n); from.IsValid() {
				list = append(list, claim{i, from, to})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b claim) int { return a.from.Compare(b.from) })
	for _, c := range list {
		open = slices.DeleteFunc(open, func(o claim) bool { return o.to.Less(c.from) })
		for _, o := range open {
			v.claimTwice(&v.run.NAT[min(o.rule, c.rule)], &v.run.NAT[max(o.rule, c.rule)])
		}
		open = append(open, c)
	}
}

// ownAddress refuses a rule that would take all of an interface's own address.
func (v *validator) ownAddress(n *NATRule) {
	if !n.Static || n.Proto != "" || n.Identity() {
		return
	}
	from, to := v.mapped(n)
	for _, i := range v.run.Interfaces {
		if !i.Addr.IsValid() || !within(i.Addr.Addr(), from, to) || n.MappedIf != "" && n.MappedIf != i.Name {
			continue
		}
		word := i.Addr.Addr().String()
		if n.MappedInterface {
			word = "interface"
		}
		v.fail(n.Line, word, "V46", "%v is the address of interface %s, and a static rule without service would take every connection to the box; "+
			"use an address of its own, or service with the ports", i.Addr.Addr(), i.Name)
	}
}

// claimTwice refuses two static rules that map to the same address and port.
func (v *validator) claimTwice(a, b *NATRule) {
	if a.Section != b.Section || a.Line == b.Line || a.Identity() && b.Identity() ||
		a.MappedIf != b.MappedIf && a.MappedIf != "" && b.MappedIf != "" {
		return
	}
	af, _ := v.mapped(a)
	bf, _ := v.mapped(b)
	word := b.MappedObject
	if word == "" {
		word = bf.String()
	}
	switch {
	case a.Proto != "" && b.Proto != "" && (a.Proto != b.Proto || a.MappedPort != b.MappedPort):
	case a.Proto != "" && b.Proto != "":
		v.fail(b.Line, "service", "V64", "line %d maps %s port %d of %v already, for %s; use another mapped port or address",
			a.Line, a.Proto, a.MappedPort, bf, a.label())
	case a.Proto == "" && b.Proto == "":
		v.fail(b.Line, word, "V64", "line %d maps %s to %v already; use another mapped address, or service with the ports",
			a.Line, a.label(), af)
	default:
		v.warn(b.Line, word, "V64", "line %d maps %s to the same address; the rule with service wins for its port", a.Line, a.label())
	}
}
