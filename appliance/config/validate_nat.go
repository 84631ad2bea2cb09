package config

import (
	"net/netip"
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

func within(a, from, to netip.Addr) bool {
	return from.IsValid() && from.Compare(a) <= 0 && a.Compare(to) <= 0
}

// mapping returns a rule that maps something to addr, a static one if there
// is; nil if none does.
func (v *validator) mapping(addr netip.Addr) *NATRule {
	var found *NATRule
	for i := range v.run.NAT {
		n := &v.run.NAT[i]
		if from, to := v.mapped(n); n.RealFrom.IsValid() && within(addr, from, to) && (found == nil || n.Static && !found.Static) {
			found = n
		}
	}
	return found
}

// static returns a static rule whose real address is addr, nil if there is none.
func (v *validator) static(addr netip.Addr) *NATRule {
	return find(v.run.NAT, func(n *NATRule) bool { return n.Static && within(addr, n.RealFrom, n.RealTo) })
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
		if from, to := v.mapped(n); n.Static && n.RealFrom.IsValid() && within(addr, from, to) {
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
		if !n.RealFrom.IsValid() {
			continue // reported by Parse
		}
		v.ownAddress(n)
		for j := range i {
			v.claimTwice(&v.run.NAT[j], n)
		}
	}
}

// ownAddress refuses a rule that would take all of an interface's own address.
func (v *validator) ownAddress(n *NATRule) {
	if !n.Static || n.Proto != "" {
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
	if !a.Static || !b.Static || a.MappedIf != b.MappedIf && a.MappedIf != "" && b.MappedIf != "" {
		return
	}
	af, at := v.mapped(a)
	bf, bt := v.mapped(b)
	if !af.IsValid() || !bf.IsValid() || at.Less(bf) || bt.Less(af) {
		return
	}
	word := b.MappedObject
	if word == "" {
		word = bf.String()
	}
	switch {
	case a.Proto != "" && b.Proto != "" && (a.Proto != b.Proto || a.MappedPort != b.MappedPort):
	case a.Proto != "" && b.Proto != "":
		v.fail(b.Line, "service", "V64", "line %d maps %s port %d of %v already, for object %s; use another mapped port or address",
			a.Line, a.Proto, a.MappedPort, bf, a.Object)
	case a.Proto == "" && b.Proto == "":
		v.fail(b.Line, word, "V64", "line %d maps object %s to %v already; use another mapped address, or service with the ports",
			a.Line, a.Object, af)
	default:
		v.warn(b.Line, word, "V64", "line %d maps object %s to the same address; the rule with service wins for its port", a.Line, a.Object)
	}
}
