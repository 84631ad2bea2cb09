package inspect

import (
	"net/netip"
	"slices"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// Reach readies for a message to addr. See Reacher.
func (b *NATBinder) Reach(addr netip.AddrPort, from nat.End, why Why, call string, d time.Duration) netip.AddrPort {
	n := b.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	mapped, f := b.signalLocked(addr, from)
	if f == back || addr.Port() == 0 || !addr.Addr().Is4() || b.isOn(from.Other(), addr.Addr()) ||
		why == ForAnswers && addr == b.self(from) {
		return mapped
	}
	proto := b.conv.Client.Proto
	if proto == stack.TCP && why != ForRegistration {
		return b.leaseOnly(addr, mapped, from, f) // answers and requests come by the connection
	}
	return b.reachLocked(addr, mapped, from, f, why, call, d)
}

// leaseOnly names an address that nobody will connect to.
func (b *NATBinder) leaseOnly(addr, mapped netip.AddrPort, from nat.End, f fate) netip.AddrPort {
	if f == dynamic && addr.Addr() == b.self(from).Addr() {
		return b.Self(from)
	}
	return mapped
}

func (b *NATBinder) reachLocked(addr, mapped netip.AddrPort, from nat.End, f fate, why Why, call string, d time.Duration) netip.AddrPort {
	n, now, proto := b.nat, b.Now(), b.conv.Client.Proto
	to := from.Other()
	until := now
	switch t := n.timeouts(); why {
	case ForAnswers:
		until = now.Add(orDefault(t.SIPInvite, 3*time.Minute))
	case ForDialog:
		until = now.Add(orDefault(t.SIP, 30*time.Minute))
	case ForRegistration:
		until = now.Add(min(d, MaxRegistration))
	}
	var lease nat.Lease
	if c := n.byReal[place{b.on(from), proto, addr}]; c != nil && c.on == b.on(to) && !now.After(c.until) {
		mapped = c.at // it has its lease
	} else if s, v := b.translate(addr, from, proto, n.PAT); v == stack.Forward {
		lease = s.Lease
		if f == dynamic || lease != (nat.Lease{}) {
			mapped = s.Mapped
		}
	} else if f == dynamic {
		return mapped // no port is left: it cannot be reached
	}
	c := n.contacts[place{b.on(to), proto, mapped}]
	if c != nil && (c.real != addr || c.behind != b.on(from)) {
		if now.After(c.until) {
			n.forgetLocked(c)
			c = nil
		} else { // another's, by a rule that changed
			lease.Release()
			return mapped
		}
	}
	switch {
	case c != nil && why == ForRegistration && d <= 0:
		if c.why == ForRegistration {
			n.forgetLocked(c)
		}
		lease.Release()
		return mapped
	case c != nil:
		lease.Release() // it has one
		if c.owner != nil && why == ForRegistration && n.lasting < MaxRegistrations {
			c.owner.reached = slices.DeleteFunc(c.owner.reached, func(x *contact) bool { return x == c })
			c.owner = nil
			n.lasting++
		}
		c.why = max(c.why, why)
		if until.After(c.until) || why == ForRegistration && c.why == why {
			c.until = until
		}
	case why == ForRegistration && d <= 0:
		lease.Release()
		return mapped
	default:
		c = &contact{
			place: place{b.on(to), proto, mapped}, real: addr, behind: b.on(from),
			lease: lease, why: why, until: until,
		}
		if why == ForRegistration && n.lasting < MaxRegistrations {
			n.lasting++
		} else {
			if len(b.reached) >= MaxReached {
				n.forgetLocked(b.reached[0])
			}
			c.owner = b
			b.reached = append(b.reached, c)
		}
		if n.contacts == nil {
			n.contacts = make(map[place]*contact)
			n.byReal = make(map[place]*contact)
		}
		n.contacts[c.place] = c
		n.byReal[place{c.behind, proto, addr}] = c
	}
	if why == ForDialog && len(c.calls) < maxContactCalls && !slices.Contains(c.calls, call) {
		c.calls = append(c.calls, call)
	}
	c.conversation, c.end = b.conversation, from
	b.openContact(c, to, proto)
	return mapped
}

// renewStep is how much longer a pinhole for signaling must last to be booked
// again.
const renewStep = 10 * time.Second

// openContact books the pinhole of c, for the end to alone.
func (b *NATBinder) openContact(c *contact, to nat.End, proto stack.Proto) {
	ph := nat.Pinhole{
		In:      c.on,
		Match:   stack.Flow{Proto: proto, Src: netip.AddrPortFrom(b.self(to).Addr(), 0), Dst: c.at},
		Out:     c.behind,
		To:      stack.Flow{Proto: proto, Dst: c.real},
		Handler: b.opt.Handler,
		Expires: c.until,
		Idle:    b.nat.timeouts().SIP,
		Mark:    "T",
		Reason:  c.why.String(),
	}
	if b.Self(to).Addr() != b.self(to).Addr() {
		// Only this one translation of the sender is known.
		ph.Match.Src, ph.To.Src = b.self(to), b.Self(to)
	}
	if proto == stack.TCP {
		ph.Handler = nil
		if b.nat.Terminate != nil {
			ph.Out, ph.To = b.nat.Terminate, stack.Flow{Proto: proto}
		}
	}
	if c.hole != nil {
		if c.why != ForRegistration && awaits(c.hole, ph) {
			return
		}
		c.hole.Close()
	}
	c.hole = b.nat.Table.Expect(ph)
}

// claimed books the pinhole again through which a connection came, so that
// another port of the same end is let in too, and returns the conversation
// that goes on there, and which of its ends the connection leads to.
func (n *NAT) claimed(h *nat.Hole, now time.Time) (conversation any, end nat.End) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.contacts[place{h.In, h.Match.Proto, h.Match.Dst}]
	if c == nil || now.After(c.until) {
		return nil, nat.Client
	}
	if c.hole == h {
		ph := h.Pinhole
		ph.Expires = c.until
		c.hole = n.Table.Expect(ph)
	}
	return c.conversation, c.end
}

// left tells that a conversation is over: contacts that outlive it lead to new
// ones.
func (n *NAT) left(conversation any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.contacts {
		if c.conversation == conversation {
			c.conversation = nil
		}
	}
}
