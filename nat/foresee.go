package nat

import "patchbay/stack"

// What would be. The trace of a packet asks these in place of the functions that
// act; each says what its namesake would do now, and changes nothing. What they
// have in common is one function, with dry set here: PAT, rates and limits are
// asked and do not count.

// Foresee is Lookup: the connection that p would be found to belong to.
func (t *Table) Foresee(p *stack.Packet) (*Conn, End) {
	f := p.Flow()
	if f.Proto == stack.ICMP && p.IsICMPError() {
		return nil, Client
	}
	c, from := t.lookup(p, &f)
	if c != nil && f.Proto == stack.TCP && c.wouldReopen(p, from) {
		return nil, Client
	}
	return c, from
}

// ForeseeClaim is Claim: the pinhole that p would use, or nil, the connection
// it would open, and whether it could. A Standing one opens none.
func (t *Table) ForeseeClaim(p *stack.Packet) (*Hole, Opening, stack.Verdict) {
	f := p.Flow()
	k, ok := holeKey(&f)
	if !ok {
		return nil, Opening{}, stack.Forward
	}
	n := t.holes.byDst.find(k, t.seed.hash(k))
	if n == nil {
		return nil, Opening{}, stack.Forward
	}
	for _, h := range n.val.all {
		if !h.matches(p.In, f.Src, p.Time.UnixNano()) || !h.Standing && h.taken.Load() {
			continue
		}
		if h.Standing {
			return h, Opening{Out: h.Out, Handler: h.Handler}, stack.Forward
		}
		o := h.opening(f)
		if o.Out == nil {
			return h, o, stack.DropNoRoute
		}
		if t.cfg.Treat != nil {
			o.Treat = t.cfg.Treat(p, stack.Flow{Proto: f.Proto, Src: f.Src, Dst: o.Server.Dst}, o.Out)
		}
		return h, o, t.ForeseeOpen(p, o, false)
	}
	return nil, Opening{}, stack.Forward
}

// ForeseeOpen is Open: Forward, or why p cannot open a connection. If chance is
// to choose the port of o.Server.Src, that is taken to be free.
func (t *Table) ForeseeOpen(p *stack.Packet, o Opening, chance bool) stack.Verdict {
	f := p.Flow()
	answer := o.Server.Reverse()
	ck, ok := keyOf(p.In, &f)
	sk, ok2 := keyOf(o.Out, &answer)
	if !ok || !ok2 {
		return stack.DropIPv6
	}
	if v := t.enrol(p, f, &o, true); v != stack.Forward {
		return v
	}
	if chance {
		return stack.Forward
	}
	for _, k := range [...]key{ck, sk} {
		if e := t.find(k, t.seed.hash(k)); e != nil && !e.c.over.Load() && !e.c.expired(p.Time.UnixNano()) {
			return stack.DropNAT
		}
	}
	return stack.Forward
}

// Foresee is Handle up to the Handler: whether p, which from sent, is within the
// rate of its class and would fit the state of c.
func (c *Conn) Foresee(p *stack.Packet, from End) stack.Verdict {
	from &= 1
	if c.treat != nil {
		if v := c.police(p, from, true); v != stack.Forward {
			return v
		}
	}
	if c.Proto() != stack.TCP || c.home == nil {
		return stack.Forward
	}
	_, _, v := c.tcp.copy().update(p, from)
	return v
}

// copy returns a tcpState like s.
func (s *tcpState) copy() *tcpState {
	c := new(tcpState)
	c.seen.Store(s.seen.Load())
	c.scales.Store(s.scales.Load())
	for e := range 2 {
		c.fin[e].Store(s.fin[e].Load())
		c.end[e].Store(s.end[e].Load())
		c.edge[e].Store(s.edge[e].Load())
		c.window[e].Store(s.window[e].Load())
	}
	return c
}

// Reverse returns the rule that would translate the answers to f, which goes from
// in to out and whose destination is real; nil if none would. See Translate,
// which wants it to be the rule that un-NATed f.
func (rs *Rules) Reverse(in, out *stack.Interface, f stack.Flow) *Rule {
	src, _ := rs.sourceRule(in, out, f)
	return rs.reverse(in, out, f, src)
}

// NextID returns the number that the next connection will have.
func (t *Table) NextID() uint64 { return t.lastID.Load() + 1 }
