package inspect

import (
	"fmt"
	"net/netip"
	"slices"

	"patchbay/nat"
	"patchbay/stack"
)

// leasePair leases ports of a dynamic rule: the numbers that the end uses
// itself if they are free, else an even one and the next, else what there is,
// and then mapped[1] is not the port after mapped[0].
func (b *NATBinder) leasePair(l *leg, from nat.End) error {
	pat := b.nat.PAT
	fail := func(v stack.Verdict) error {
		return fmt.Errorf("inspect: %v: %w: %v: %w", l.said[0], errNoPort, v, ErrDrop)
	}
	s, v := b.translate(l.said[0], from, stack.UDP, nil)
	if v != stack.Forward {
		return fail(v)
	}
	if s.Rule == nil || s.Rule.Kind != nat.Dynamic || s.Rule.Pool == nat.OneToOne {
		for i := range l.said {
			if !l.said[i].IsValid() {
				continue
			}
			if s, v = b.translate(l.said[i], from, stack.UDP, pat); v != stack.Forward {
				l.lease[0].Release()
				return fail(v)
			}
			l.mapped[i], l.lease[i] = s.Mapped, s.Lease
		}
		return nil
	}
	addr := s.Mapped.Addr()
	if l.said[0].Addr() == b.self(from).Addr() {
		addr = b.Self(from).Addr()
	}
	rtp, pair, ok := b.leaseOwn(l.said[0], addr)
	if !ok && pair != 0 {
		rtp, ok = pat.Take(stack.UDP, l.said[0], addr, but(pair))
	}
	if !ok {
		if rtp, ok = pat.Take(stack.UDP, l.said[0], addr, b.held); !ok {
			return fail(stack.DropNAT)
		}
	}
	l.mapped[0], l.lease[0] = rtp.Mapped(), rtp
	l.mapped[1] = netip.AddrPort{}
	if !l.said[1].IsValid() {
		return nil
	}
	want := l.said[1].Port() // a=rtcp: anywhere
	if l.said[1] == follow(l.said[0]) {
		want = l.mapped[0].Port() + 1
	}
	rtcp, ok := pat.Take(stack.UDP, l.said[1], addr, but(want))
	if !ok {
		rtcp, ok = pat.Take(stack.UDP, l.said[1], addr, b.held)
	}
	if ok { // or RTP alone, better than a call without sound
		l.mapped[1], l.lease[1] = rtcp.Mapped(), rtcp
	}
	return nil
}

// but holds every port back but one.
func but(only uint16) func(uint16) bool { return func(port uint16) bool { return port != only } }

// leaseOwn leases the port that real has at addr already, or its own number.
// If it cannot it returns the even one of a pair that is free, 0 for none: the
// PAT asks about each free port, in rising order from a random one on.
func (b *NATBinder) leaseOwn(real netip.AddrPort, addr netip.Addr) (l nat.Lease, pair uint16, ok bool) {
	held := b.heldPorts()
	last := uint16(0)
	l, ok = b.nat.PAT.Take(stack.UDP, real, addr, func(port uint16) bool {
		if inRanges(held, port) {
			return true
		}
		if port == real.Port() {
			return false
		}
		if pair == 0 && port%2 == 1 && last == port-1 && last != 0 {
			pair = last
		}
		last = port
		return true
	})
	return l, pair, ok
}

// heldPorts returns the UDP ports that static rules have somewhere.
func (b *NATBinder) heldPorts() []nat.PortRange {
	var ports []nat.PortRange
	for _, r := range b.nat.rules.Load().All() {
		if r.Service == stack.UDP {
			ports = append(ports, r.MappedPorts)
		}
	}
	return ports
}

func inRanges(ranges []nat.PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r nat.PortRange) bool { return r.From <= port && port <= r.To })
}

// held reports whether a static rule has the port somewhere.
func (b *NATBinder) held(port uint16) bool { return inRanges(b.heldPorts(), port) }
