package appliance

import (
	"cmp"
	"net/netip"

	"patchbay/nat"
	"patchbay/stack"
)

// What the hosts on one side of the box are shown of those on the others.

// Interfaces returns the interfaces that have a nameif, an address and a link, in
// the order of the configuration. The caller must not change the slice.
func (a *Appliance) Interfaces() []*stack.Interface { return a.plan().interfaces }

// Rules returns the NAT rules that the box goes by now. A new configuration makes
// new ones.
func (a *Appliance) Rules() *nat.Rules { return a.plan().rules }

// Owns reports whether addr is an address of the box on i: its own, one where it
// ends media, or one that NAT shows there.
func (a *Appliance) Owns(i *stack.Interface, addr netip.Addr) bool {
	pl := a.plan()
	if i.Addr.Addr() == addr || pl.isMTA(addr) != nil || pl.rules.Owns(i, addr) {
		return true
	}
	real, ok := pl.rules.RealOf(netip.AddrPortFrom(addr, 0), i, stack.UDP)
	return ok && real.Addr() != addr
}

// Hides reports whether the hosts on i must not be told of addr: it is a host
// elsewhere, which NAT shows them under another address, or the address that NAT
// shows others of one of them. A rule for one port alone says nothing of its
// host.
func (a *Appliance) Hides(i *stack.Interface, addr netip.Addr) bool {
	pl := a.plan()
	end := netip.AddrPortFrom(addr, 0)
	behind, _, ok := pl.routes.Lookup(addr)
	if ok && behind != i {
		if m, ok := pl.rules.MappedOf(end, behind, i, stack.UDP); !ok || m.Addr() != addr {
			return true
		}
	}
	for _, j := range pl.interfaces {
		if j == i {
			continue
		}
		if j.Addr.Addr() == addr {
			return true
		}
		if real, ok := pl.rules.RealOf(end, j, stack.UDP); ok && real.Addr() != addr {
			if behind, _, ok := pl.routes.Lookup(real.Addr()); ok && behind == i {
				return true
			}
		}
	}
	return false
}

// Pinhole returns where on in a packet must go for a pinhole to let it through to
// the real destination of f, whose source it has; false if none waits for it. Of
// several it is the narrowest, then that of the lowest address.
func (a *Appliance) Pinhole(in *stack.Interface, f stack.Flow) (netip.AddrPort, bool) {
	var best *nat.Hole
	rank := func(h *nat.Hole) int {
		n := 0
		if h.Match.Src.Addr().IsValid() {
			n += 2
		}
		if h.Match.Src.Port() != 0 {
			n++
		}
		return n
	}
	a.table.Holes(func(h *nat.Hole) bool {
		src, dst := h.Match.Src, h.To.Dst
		if h.Out.IsIdentity() { // to be ended by the box
			dst, _, _ = a.data.nat.Contact(in, f.Proto, h.Match.Dst)
		}
		if h.Standing || h.Match.Proto != f.Proto || dst != f.Dst || h.In != nil && h.In != in ||
			src.Addr().IsValid() && src.Addr() != f.Src.Addr() || src.Port() != 0 && src.Port() != f.Src.Port() {
			return true
		}
		if best == nil || cmp.Or(-cmp.Compare(rank(h), rank(best)), h.Match.Dst.Compare(best.Match.Dst)) < 0 {
			best = h
		}
		return true
	})
	if best == nil {
		return netip.AddrPort{}, false
	}
	return best.Match.Dst, true
}
