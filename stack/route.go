package stack

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// A Route says where packets to a prefix go. A zero Gateway makes it connected:
// the next hop is the destination itself.
type Route struct {
	Prefix    netip.Prefix
	Interface *Interface
	Gateway   netip.Addr
	Metric    int // among routes to the same prefix the lowest wins, then the first
}

// Connected returns the connected routes of the interfaces that have an
// address, in order.
func Connected(ifs ...*Interface) []Route {
	var rs []Route
	for _, i := range ifs {
		if i.Addr.IsValid() {
			rs = append(rs, Route{Prefix: i.Addr.Masked(), Interface: i})
		}
	}
	return rs
}

// Routes is an immutable routing table. The nil Routes is empty. It may be
// used by several goroutines at once.
type Routes struct {
	routes []Route // one for each prefix, by longest prefix and then address

	// The address space cut where the best route changes: from starts[i] up
	// to starts[i+1] it is routes[best[i]], or none if best[i] is negative.
	starts []uint32
	best   []int32
}

// NewRoutes returns the table of the routes in rs that have an IPv4 prefix and
// an interface.
func NewRoutes(rs []Route) *Routes {
	t := &Routes{}
	for _, r := range rs {
		if r.Prefix.IsValid() && r.Prefix.Addr().Is4() && r.Interface != nil {
			r.Prefix = r.Prefix.Masked()
			t.routes = append(t.routes, r)
		}
	}
	slices.SortStableFunc(t.routes, func(a, b Route) int {
		return cmp.Or(-cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
			a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Metric, b.Metric))
	})
	t.routes = slices.CompactFunc(t.routes, func(a, b Route) bool { return a.Prefix == b.Prefix })
	t.cut()
	return t
}

// cut fills starts and best. Prefixes either nest or do not meet, so a walk in
// order of their first address needs no more than a stack of the open ones.
func (t *Routes) cut() {
	order := make([]int32, len(t.routes))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		p, q := t.routes[a].Prefix, t.routes[b].Prefix
		return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()))
	})
	mark := func(start uint32, route int32) {
		if n := len(t.starts); n > 0 && t.starts[n-1] == start {
			t.best[n-1] = route
			return
		}
		t.starts, t.best = append(t.starts, start), append(t.best, route)
	}
	mark(0, -1)

	open := []int32{-1}
	last := func(i int32) uint32 {
		p := t.routes[i].Prefix
		return number(p.Addr()) | uint32(uint64(0xffffffff)>>p.Bits())
	}
	pop := func() {
		end := last(open[len(open)-1])
		open = open[:len(open)-1]
		if end != 0xffffffff {
			mark(end+1, open[len(open)-1])
		}
	}
	for _, i := range order {
		start := number(t.routes[i].Prefix.Addr())
		for len(open) > 1 && last(open[len(open)-1]) < start {
			pop()
		}
		open = append(open, i)
		mark(start, i)
	}
	for len(open) > 1 {
		pop()
	}
}

// number returns an IPv4 address as a number.
func number(a netip.Addr) uint32 {
	v := a.As4()
	return binary.BigEndian.Uint32(v[:])
}

// Lookup returns where a packet to dst goes: the interface of the longest
// prefix that holds dst, and the neighbour there. It reports false if there is
// no route.
func (t *Routes) Lookup(dst netip.Addr) (out *Interface, nextHop netip.Addr, ok bool) {
	if t == nil || !dst.Is4() {
		return nil, netip.Addr{}, false
	}
	n := number(dst)
	i, j := 0, len(t.starts) // the last start not above n is in [i, j)
	for j-i > 1 {
		m := int(uint(i+j) / 2)
		if t.starts[m] <= n {
			i = m
		} else {
			j = m
		}
	}
	if t.best[i] < 0 {
		return nil, netip.Addr{}, false
	}
	r := &t.routes[t.best[i]]
	return r.Interface, r.via(dst), true
}

// NextHop returns the neighbour on out that leads to dst, where out was chosen
// already, by NAT or an open connection. It reports false if out has no route
// to dst.
func (t *Routes) NextHop(out *Interface, dst netip.Addr) (netip.Addr, bool) {
	i, hop, ok := t.Lookup(dst)
	if !ok {
		return netip.Addr{}, false
	}
	if i == out {
		return hop, true
	}
	for k := range t.routes { // longest prefix first
		if r := &t.routes[k]; r.Interface == out && r.Prefix.Contains(dst) {
			return r.via(dst), true
		}
	}
	return netip.Addr{}, false
}

// via returns the neighbour that r hands packets to dst to.
func (r *Route) via(dst netip.Addr) netip.Addr {
	if r.Gateway.IsValid() {
		return r.Gateway
	}
	return dst
}

// All returns the routes in use, the longest prefix first. The slice is the
// caller's.
func (t *Routes) All() []Route {
	if t == nil {
		return nil
	}
	return slices.Clone(t.routes)
}
