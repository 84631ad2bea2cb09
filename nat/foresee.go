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
		if t.cfg.Treat != nil {
			o.Treat = t.cfg.Treat(p, stack.Flow{Proto: f.Proto, Src: f.Src, Dst: o.Server.Dst}, o.Out)
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
	if o.Treat != nil {
		if v := o.Treat.Police[Client].foresee(p); v != stack.Forward {
			return v
		}
	}
	if t.count.Load() >= int64(t.cfg.MaxConns) {
		return stack.DropLimit
	}
	if v := t.clients.foresee(f); v != stack.Forward {
		return v
	}
	if o.Treat != nil && o.Treat.Limits != nil {
		if v := o.Treat.Limits.foresee(f); v != stack.Forward {
			return v
		}
	}
	for _, l := range o.limited(f) {
		if v := l.foresee(f.Proto); v != stack.Forward {
			return v
		}
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
	case s.maxEmbryonic > 0 && n.embryonic >= s.maxEmbryonic, s.maxHalfOpen > 0 && s.halfOpen.Load() >= int64(s.maxHalfOpen):
		return stack.DropEmbryonic
	}
	return stack.Forward
}

// foresee is add.
func (l *Limits) foresee(f stack.Flow) stack.Verdict {
	if l.cfg.Max > 0 && l.conns.Load() >= int64(l.cfg.Max) {
		return stack.DropLimit
	}
	return l.clients.foresee(f)
}

// foresee is take.
func (g *Policing) foresee(p *stack.Packet) stack.Verdict {
	for _, l := range [...]*stack.Policer{g.Arrive, g.Leave} {
		if l != nil {
			if v := l.Foresee(p); v != stack.Forward {
				return v
			}
		}
	}
	return stack.Forward
}

// Foresee is Handle up to the Handler: whether p, which from sent, is within the
// rate of its class and would fit the state of c.
func (c *Conn) Foresee(p *stack.Packet, from End) stack.Verdict {
	from &= 1
	if c.treat != nil && (from != Client || c.packets[Client].Load() != 0) {
		if v := c.treat.Police[from].foresee(p); v != stack.Forward {
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

// ForeseeSource is Translate, with no lease in the Source. A port that would be
// chosen by chance is 0, and sure is false.
func (rs *Rules) ForeseeSource(in, out *stack.Interface, f stack.Flow, un *Rule, pat *PAT) (s Source, sure bool, v stack.Verdict) {
	s, v = rs.Translate(in, out, f, un, nil)
	if v != stack.Forward || s.Rule == nil || s.Rule.Kind != Dynamic {
		return s, true, v
	}
	var ok bool
	if s.Mapped, sure, ok = rs.foreseeGive(s.Rule, out, f, pat); !ok {
		return Source{}, true, stack.DropNAT
	}
	return s, sure, v
}

// foreseeGive is give.
func (rs *Rules) foreseeGive(r *Rule, out *stack.Interface, f stack.Flow, pat *PAT) (mapped netip.AddrPort, sure, ok bool) {
	k := taking{proto: f.Proto, real: f.Src, avoid: func(a netip.Addr, port uint16) bool {
		return rs.hasStaticPort(out, staticPort{f.Proto, a, port})
	}}
	pool, narrow := r.pool, k
	if r.Pool == OneToOne {
		if a, ok := pat.foreseeAddr(f.Src.Addr(), r.pool, func(a netip.Addr) bool { return rs.hasStatic(out, a) }); ok {
			return netip.AddrPortFrom(a, f.Src.Port()), true, true
		}
		pool = r.overload
	} else {
		r.ask(&narrow, f.Dst)
	}
	if a, sure, ok := pat.foreseePool(&narrow, pool); ok {
		return a, sure, true
	}
	if r.MappedInterface && !r.pool.contains(r.Mapped.Addr.Addr()) {
		return pat.foreseePort(&k, r.Mapped.Addr.Addr())
	}
	return netip.AddrPort{}, false, false
}

// foreseePort is take.
func (t *PAT) foreseePort(k *taking, mapped netip.Addr) (_ netip.AddrPort, sure, ok bool) {
	switch k.proto {
	case stack.TCP, stack.UDP, stack.ICMP:
	default:
		return netip.AddrPort{}, false, false
	}
	t.mu.RLock()
	p := t.pools[poolKey{k.proto, mapped}]
	t.mu.RUnlock()
	if p == nil {
		p = &pool{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := t.ended(p.waiting)
	if x := p.findLocked(k); x != nil && !slices.Contains(ended, x) {
		return netip.AddrPortFrom(mapped, x.port), true, true
	}
	var whole, own portSet // ports that reap would free, for every peer and for this one
	shared := make(map[uint16]int)
	for _, x := range ended {
		switch {
		case x.peer == nil:
			whole.add(x.port)
		default:
			shared[x.port]++
			if x.peer.peer == k.peer {
				own.add(x.port)
			}
		}
	}
	peer := p.peers[k.peer]
	free := func(port uint16) bool {
		switch {
		case p.taken.has(port) && !whole.has(port),
			k.peer.IsValid() && peer != nil && peer.has(port) && !own.has(port),
			!k.peer.IsValid() && p.shared[port] > shared[port]:
			return false
		}
		return k.avoid == nil || !k.avoid(mapped, port)
	}
	port := k.real.Port()
	if (port != 0 || k.proto == stack.ICMP) && free(port) {
		return netip.AddrPortFrom(mapped, port), true, true
	}
	r := k.flat
	if r == (PortRange{}) {
		r = rangeOf(port)
	}
	for n := int(r.From); n <= int(r.To); n++ {
		if free(uint16(n)) {
			return netip.AddrPortFrom(mapped, 0), false, true
		}
	}
	return netip.AddrPort{}, false, false
}

// ended returns the xlates that reap would free, each once.
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
		if !slices.Contains(all, l.x) {
			all = append(all, l.x)
		}
	}
	return all
}

// foreseePool is takePool.
func (t *PAT) foreseePool(k *taking, mapped *ranges) (_ netip.AddrPort, sure, ok bool) {
	switch mapped.size {
	case 0:
		return netip.AddrPort{}, false, false
	case 1:
		return t.foreseePort(k, mapped.at(0))
	}
	next := uint64(0)
	t.rotorMu.RLock()
	r := t.rotors[mapped.key]
	t.rotorMu.RUnlock()
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		next = r.next
		if host := r.hosts[k.real.Addr()]; host != nil && host.xlates.Load() > 0 {
			if a, sure, ok := t.foreseePort(k, host.addr); ok {
				return a, sure, true
			}
		}
	}
	for i := range mapped.size {
		if a, sure, ok := t.foreseePort(k, mapped.at((next+i)%mapped.size)); ok {
			return a, sure, true
		}
	}
	return netip.AddrPort{}, false, false
}

// foreseeAddr is takeAddr.
func (t *PAT) foreseeAddr(real netip.Addr, mapped *ranges, avoid func(netip.Addr) bool) (netip.Addr, bool) {
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	ended := t.ended(a.waiting)
	for _, of := range mapped.spans {
		if x := a.xlates[addressKey{of, real}]; x != nil && !slices.Contains(ended, x) {
			return x.addr, true
		}
	}
	for _, of := range mapped.spans {
		next := uint32(0)
		if r := a.ranges[of]; r != nil {
			freed := slices.ContainsFunc(ended, func(x *xlate) bool {
				n := number(x.addr)
				return of.from <= n && n <= of.to
			})
			if r.full && !freed {
				continue
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
	}
	return netip.Addr{}, false
}
