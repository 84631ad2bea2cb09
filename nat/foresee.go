package nat

import (
	"net/netip"
	"slices"

	"patchbay/stack"
)

// What would be. The trace of a packet asks these in place of the functions
// that act; each says what its namesake would do now, and changes nothing.

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
	for _, h := range n.val {
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
		return h, o, t.ForeseeOpen(p, o)
	}
	return nil, Opening{}, stack.Forward
}

// ForeseeOpen is Open: Forward, or why p cannot open a connection. If the port
// of o.Server.Src is 0 where there has to be one, it is taken to be free.
func (t *Table) ForeseeOpen(p *stack.Packet, o Opening) stack.Verdict {
	f := p.Flow()
	if v := mayOpen(p, f); v != stack.Forward {
		return v
	}
	answer := o.Server.Reverse()
	ck, ok := keyOf(p.In, &f)
	sk, ok2 := keyOf(o.Out, &answer)
	if !ok || !ok2 {
		return stack.DropIPv6
	}
	if t.count.Load() >= int64(t.cfg.MaxConns) {
		return stack.DropLimit
	}
	if v := t.clients.foresee(f); v != stack.Forward {
		return v
	}
	if f.Proto == stack.TCP || f.Proto == stack.UDP {
		if o.Server.Src.Port() == 0 && f.Src.Port() != 0 {
			return stack.Forward
		}
	}
	for _, k := range [...]key{ck, sk} {
		if e := t.find(k, t.seed.hash(k)); e != nil && !e.c.over.Load() && !e.c.expired(p.Time.UnixNano()) {
			return stack.DropNAT
		}
	}
	return stack.Forward
}

// foresee is add.
func (s *clients) foresee(f stack.Flow) stack.Verdict {
	a := f.Src.Addr()
	sh := s.shard(a)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.counts[a]
	switch {
	case s.maxConns > 0 && n.conns >= s.maxConns:
		return stack.DropHostLimit
	case f.Proto != stack.TCP:
	case n.embryonic >= s.maxEmbryonic, s.maxHalfOpen > 0 && s.halfOpen.Load() >= int64(s.maxHalfOpen):
		return stack.DropEmbryonic
	}
	return stack.Forward
}

// Foresee is Handle up to the Handler: whether p, which from sent, would fit
// the state of c.
func (c *Conn) Foresee(p *stack.Packet, from End) stack.Verdict {
	if c.Proto() != stack.TCP || c.home == nil {
		return stack.Forward
	}
	_, _, v := c.tcp.copy().update(p, from&1)
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

// ForeseeSource is Translate. A port that would be chosen by chance is 0, and
// sure is false.
func (rs *Rules) ForeseeSource(in, out *stack.Interface, f stack.Flow, un *Rule, pat *PAT) (s Source, sure bool, v stack.Verdict) {
	s, v = rs.Translate(in, out, f, un, nil)
	r := s.Rule
	if v != stack.Forward || r == nil || r.Kind != Dynamic {
		return s, true, v
	}
	m := r.mapped()
	avoid := func(a netip.Addr, port uint16) bool { return rs.hasStaticPort(out, staticPort{f.Proto, a, port}) }
	if r.Pool == OneToOne {
		a, ok := pat.foreseeAddr(f.Src.Addr(), m, func(a netip.Addr) bool { return rs.hasStatic(out, a) })
		if ok {
			s.Mapped = netip.AddrPortFrom(a, f.Src.Port())
			return s, true, v
		}
	} else if a, sure, ok := pat.foreseePool(f.Proto, f.Src, m, avoid); ok {
		s.Mapped = a
		return s, sure, v
	}
	if r.MappedInterface && m != Host(r.Mapped.Addr.Addr()) {
		if a, sure, ok := pat.foreseePort(f.Proto, f.Src, r.Mapped.Addr.Addr(), avoid); ok {
			s.Mapped = a
			return s, sure, v
		}
	}
	return Source{}, true, stack.DropNAT
}

// foreseePort is take.
func (t *PAT) foreseePort(proto stack.Proto, real netip.AddrPort, mapped netip.Addr, avoid func(netip.Addr, uint16) bool) (_ netip.AddrPort, sure, ok bool) {
	switch proto {
	case stack.TCP, stack.UDP, stack.ICMP:
	default:
		return netip.AddrPort{}, false, false
	}
	t.mu.RLock()
	p := t.pools[poolKey{proto, mapped}]
	t.mu.RUnlock()
	if p == nil {
		p = &pool{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := t.ended(p.waiting)
	if x := p.xlates[real]; x != nil && !slices.Contains(ended, x) {
		return netip.AddrPortFrom(mapped, x.port), true, true
	}
	taken := p.taken
	for _, x := range ended {
		taken[x.port/64] &^= 1 << (x.port % 64)
	}
	free := func(port uint16) bool {
		return taken[port/64]>>(port%64)&1 == 0 && !avoid(mapped, port)
	}
	port := real.Port()
	if (port != 0 || proto == stack.ICMP) && free(port) {
		return netip.AddrPortFrom(mapped, port), true, true
	}
	r := rangeOf(port)
	for n := int(r.From); n <= int(r.To); n++ {
		if free(uint16(n)) {
			return netip.AddrPortFrom(mapped, 0), false, true
		}
	}
	return netip.AddrPort{}, false, false
}

// ended returns the xlates that reap would free.
func (t *PAT) ended(waiting []linger) []*xlate {
	var all []*xlate
	now := t.now.Load()
	for _, l := range waiting {
		if l.x.refs > 0 || l.x.until != l.until && l.x.until != flushed {
			continue
		}
		if l.until > now && l.x.until != flushed {
			break
		}
		all = append(all, l.x)
	}
	return all
}

// foreseePool is takePool.
func (t *PAT) foreseePool(proto stack.Proto, real netip.AddrPort, mapped Object, avoid func(netip.Addr, uint16) bool) (_ netip.AddrPort, sure, ok bool) {
	of, ok := mapped.span()
	if !ok || mapped.IsAny() {
		return netip.AddrPort{}, false, false
	}
	if of.from == of.to {
		return t.foreseePort(proto, real, mapped.From, avoid)
	}
	next := uint32(0)
	t.rotorMu.RLock()
	r := t.rotors[of]
	t.rotorMu.RUnlock()
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		next = r.next
		if host := r.hosts[real.Addr()]; host != nil && host.xlates.Load() > 0 {
			if a, sure, ok := t.foreseePort(proto, real, host.addr, avoid); ok {
				return a, sure, true
			}
		}
	}
	size := uint64(of.to-of.from) + 1
	for i := range size {
		a := address(of.from + uint32((uint64(next)+i)%size))
		if m, sure, ok := t.foreseePort(proto, real, a, avoid); ok {
			return m, sure, true
		}
	}
	return netip.AddrPort{}, false, false
}

// foreseeAddr is takeAddr.
func (t *PAT) foreseeAddr(real netip.Addr, mapped Object, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	of, ok := mapped.span()
	if !ok || mapped.IsAny() {
		return netip.Addr{}, false
	}
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	ended := t.ended(a.waiting)
	if x := a.xlates[addressKey{of, real}]; x != nil && !slices.Contains(ended, x) {
		return x.addr, true
	}
	next := uint32(0)
	if r := a.ranges[of]; r != nil {
		freed := slices.ContainsFunc(ended, func(x *xlate) bool {
			n := number(x.addr)
			return of.from <= n && n <= of.to
		})
		if r.full && !freed {
			return netip.Addr{}, false
		}
		next = r.next
	}
	size := uint64(of.to-of.from) + 1
	for i := range size {
		m := address(of.from + uint32((uint64(next)+i)%size))
		if x := a.taken[m]; (x == nil || slices.Contains(ended, x)) && !avoid(m) {
			return m, true
		}
	}
	return netip.Addr{}, false
}
