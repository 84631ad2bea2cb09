package appliance

import (
	"net/netip"

	"patchbay/stack"
)

// Hides reports whether the hosts on i must not be told of a: it is a host
// elsewhere, which NAT shows them under another address, or the address that NAT
// shows others of one of them. A rule for one port alone says nothing of its
// host.
func (r *Replay) Hides(i *stack.Interface, a netip.Addr) bool {
	pl := r.box.plan()
	end := netip.AddrPortFrom(a, 0)
	behind, _, ok := pl.routes.Lookup(a)
	if ok && behind != i {
		if m, ok := pl.rules.MappedOf(end, behind, i, stack.UDP); !ok || m.Addr() != a {
			return true
		}
	}
	for _, j := range pl.interfaces {
		if j == i {
			continue
		}
		if j.Addr.Addr() == a {
			return true
		}
		if real, ok := pl.rules.RealOf(end, j, stack.UDP); ok && real.Addr() != a {
			if behind, _, ok := pl.routes.Lookup(real.Addr()); ok && behind == i {
				return true
			}
		}
	}
	return false
}

// Owns reports whether a is an address of the box on i: its own, or one that
// NAT shows there.
func (r *Replay) Owns(i *stack.Interface, a netip.Addr) bool {
	pl := r.box.plan()
	if i.Addr.Addr() == a || pl.isMTA(a) != nil || pl.rules.Owns(i, a) {
		return true
	}
	real, ok := pl.rules.RealOf(netip.AddrPortFrom(a, 0), i, stack.UDP)
	return ok && real.Addr() != a
}
