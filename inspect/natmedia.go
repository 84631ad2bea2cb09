package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"patchbay/nat"
	"patchbay/stack"
)

// errNoPort is a dynamic rule with no pair of ports left.
var errNoPort = errors.New("no translation for media")

// errStreams is a conversation that holds too many streams.
var errStreams = errors.New("too many media streams in one conversation")

// A stream is the media of one m-line or one party, both ways.
type stream struct {
	legs  [2]leg
	prior [2]*prior       // what an offer to move has replaced
	holes [2][2]*nat.Hole // by the end they lead to; RTP and RTCP
	rtp   *conformer      // or nil
}

// A prior is where an end received until it offered to receive elsewhere. It
// goes on until the other end answers, and comes back if it refuses.
// (RFC 3264, section 8.3.1.)
type prior struct {
	leg   leg
	holes [2][2]*nat.Hole
}

// A leg is where one end receives, RTP first and RTCP second.
type leg struct {
	said   [2]netip.AddrPort // as the end knows it
	mapped [2]netip.AddrPort // as the other end is told
	same   bool              // it is on the other end's own side
	lease  [2]nat.Lease
	behind *stack.Interface
	on     *stack.Interface
}

// Media readies a stream. See Binder.
func (b *NATBinder) Media(m Media, from nat.End) (Media, error) {
	if !m.Addr.IsValid() || m.Addr.Port() == 0 || !m.Addr.Addr().Unmap().Is4() {
		if m.Addr.IsValid() && m.Addr.Port() == 0 {
			m.Addr = b.Signal(m.Addr, from)
		}
		return m, nil
	}
	n := b.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	k := streamKey{m.Call, m.Stream}
	st := b.streams[k]
	if st == nil {
		if len(b.streams) >= MaxStreams {
			return m, fmt.Errorf("inspect: stream %s of call %.40q: %w: %w", m.Stream, m.Call, errStreams, ErrDrop)
		}
		st = new(stream)
		if b.opt.RTP != AnyMedia {
			st.rtp = newConformer(b.opt.RTP)
		}
		b.streams[k] = st
		n.streams++
		b.noteLocked(m.Call)
	}
	said := [2]netip.AddrPort{unmap(m.Addr), unmap(m.RTCP)}
	if !said[1].IsValid() && said[0].Port() != 0xffff {
		said[1] = netip.AddrPortFrom(said[0].Addr(), said[0].Port()+1)
	}
	b.forgetPrior(st, from.Other()) // this is the answer
	l := &st.legs[from]
	if l.said != said {
		if err := b.moveLocked(st, said, from); err != nil {
			return m, err
		}
	}
	if st.rtp != nil {
		st.rtp.signaled(m)
	}
	b.open(st)
	m.Addr = l.mapped[0]
	if m.RTCP.IsValid() || l.mapped[1].IsValid() && l.mapped[1] != follow(l.mapped[0]) {
		m.RTCP = l.mapped[1]
	}
	return m, nil
}

// moveLocked makes said where from receives.
func (b *NATBinder) moveLocked(st *stream, said [2]netip.AddrPort, from nat.End) error {
	l, old := &st.legs[from], st.prior[from]
	switch {
	case old != nil && old.leg.said == said: // the offer was refused
		b.endLegLocked(st, from)
		*l, st.holes = old.leg, old.holes
		b.repoint(&old.leg, l)
		st.prior[from] = nil
		return nil
	case old == nil && l.said[0].IsValid() && st.legs[from.Other()].said[0].IsValid():
		old = &prior{*l, st.holes}
		b.repoint(l, &old.leg)
		st.prior[from] = old
		*l, st.holes = leg{}, [2][2]*nat.Hole{}
	default:
		b.endLegLocked(st, from)
	}
	return b.beginLeg(l, said, from)
}

// repoint has what is known of was known of is.
func (b *NATBinder) repoint(was, is *leg) {
	if p := (place{was.on, stack.UDP, was.mapped[0]}); b.nat.mapped[p] == was {
		b.nat.mapped[p] = is
	}
}

// forgetPrior ends where end received before its last offer.
func (b *NATBinder) forgetPrior(st *stream, end nat.End) {
	old := st.prior[end]
	if old == nil {
		return
	}
	st.prior[end] = nil
	closeHoles(&old.holes[nat.Client])
	closeHoles(&old.holes[nat.Server])
	b.endLease(&old.leg)
}

func closeHoles(holes *[2]*nat.Hole) {
	for i, h := range holes {
		if h != nil {
			h.Close()
			closeConn(h)
			holes[i] = nil
		}
	}
}

// Flows reports whether media may still come in a call, or in one stream of it
// if stream is not "": a pinhole is open, or what came through it has not been
// idle for too long. See Watcher.
func (b *NATBinder) Flows(call, name string) bool {
	b.nat.mu.Lock()
	defer b.nat.mu.Unlock()
	for k, st := range b.streams {
		if k.call == call && (name == "" || k.stream == name) && st.flows() {
			return true
		}
	}
	return false
}

// flowsAny reports whether media may still come in any call.
func (b *NATBinder) flowsAny() bool {
	b.nat.mu.Lock()
	defer b.nat.mu.Unlock()
	for _, st := range b.streams {
		if st.flows() {
			return true
		}
	}
	return false
}

func (st *stream) flows() bool {
	for _, holes := range st.holes {
		for _, h := range holes {
			if h == nil {
				continue
			}
			if c := h.Conn(); h.Open() || c != nil && !c.Closed() {
				return true
			}
		}
	}
	return false
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// noteLocked tells the others that b has streams of the call.
func (b *NATBinder) noteLocked(call string) {
	if b.opt.Private {
		return
	}
	n := b.nat
	if n.calls == nil {
		n.calls = make(map[string]map[*NATBinder]struct{})
	}
	if n.calls[call] == nil {
		n.calls[call] = make(map[*NATBinder]struct{})
	}
	n.calls[call][b] = struct{}{}
}

// beginLeg finds what the other end is told of said.
func (b *NATBinder) beginLeg(l *leg, said [2]netip.AddrPort, from nat.End) error {
	n, rules := b.nat, b.nat.rules.Load()
	to := from.Other()
	here, there := b.on(from), b.on(to)
	*l = leg{said: said, mapped: said, behind: here, on: there}
	// A mapped address of the other end's own side: the two meet there.
	if x := n.mapped[place{here, stack.UDP, said[0]}]; x != nil && x.behind == there {
		l.mapped, l.same = x.said, true
		return nil
	}
	if real, ok := rules.RealOf(said[0], here, stack.UDP); ok && !b.isOn(from, real.Addr()) {
		l.mapped[0], l.same = real, true
		if said[1].IsValid() {
			l.mapped[1] = netip.AddrPortFrom(real.Addr(), said[1].Port())
			if r, ok := rules.RealOf(said[1], here, stack.UDP); ok {
				l.mapped[1] = r
			}
		}
		return nil
	}
	if b.isOn(to, said[0].Addr()) {
		l.same = true
		return nil
	}
	if m, ok := rules.MappedOf(said[0], here, there, stack.UDP); ok {
		l.mapped[0] = m
		if said[1].IsValid() {
			if m, ok = rules.MappedOf(said[1], here, there, stack.UDP); ok {
				l.mapped[1] = m
			} else {
				l.mapped[1] = netip.AddrPort{}
			}
		}
		return nil
	}
	if err := b.leasePair(l, from); err != nil {
		*l = leg{}
		return err
	}
	if n.mapped == nil {
		n.mapped = make(map[place]*leg)
	}
	n.mapped[place{there, stack.UDP, l.mapped[0]}] = l
	return nil
}

// follow returns a with the next port.
func follow(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

// open books the pinholes that st needs now, and closes others.
func (b *NATBinder) open(st *stream) {
	for end := nat.Client; end <= nat.Server; end++ {
		for i := range st.holes[end] {
			ph, ok := b.pinhole(st, end, i)
			old := st.holes[end][i]
			if old != nil {
				if ok && flows(old, ph) {
					continue
				}
				old.Close()
				closeConn(old)
				st.holes[end][i] = nil
			}
			if ok {
				st.holes[end][i] = b.nat.Table.Expect(ph)
			}
		}
	}
}

// flows reports whether the connection that h let in is one that ph would let
// in as well.
func flows(h *nat.Hole, ph nat.Pinhole) bool {
	c := h.Conn()
	if c == nil || c.Closed() || c.Out != ph.Out || c.Client().Dst != ph.Match.Dst || c.Server().Dst != ph.To.Dst {
		return false
	}
	src, want := c.Client().Src, ph.Match.Src
	return (!want.Addr().IsValid() || want.Addr() == src.Addr()) &&
		(want.Port() == 0 || want.Port() == src.Port()) &&
		(!ph.To.Src.IsValid() || ph.To.Src == c.Server().Src)
}

func closeConn(h *nat.Hole) {
	if c := h.Conn(); c != nil {
		c.Close()
	}
}

// pinhole returns that toward end for RTP (0) or RTCP (1). From an end whose
// media address is not known yet every source is let in, for early media,
// unless its side is translated: then only NAT could say as what.
func (b *NATBinder) pinhole(st *stream, end nat.End, i int) (nat.Pinhole, bool) {
	l, s := &st.legs[end], &st.legs[end.Other()]
	if !l.mapped[i].IsValid() || !l.said[i].IsValid() || l.same || s.same || b.conv.In == b.conv.Out {
		return nat.Pinhole{}, false
	}
	t := b.nat.timeouts()
	now := b.Now()
	ph := nat.Pinhole{
		In:     b.on(end.Other()),
		Match:  stack.Flow{Proto: stack.UDP, Dst: l.mapped[i]},
		Out:    b.on(end),
		To:     stack.Flow{Proto: stack.UDP, Dst: l.said[i]},
		Mark:   b.opt.Mark,
		Reason: [...]string{"RTP", "RTCP"}[i],
	}
	if st.rtp != nil {
		ph.Handler = &st.rtp.checks[end][i]
	}
	ph.Idle = b.opt.Media
	if ph.Idle == 0 {
		ph.Idle = orDefault(t.SIPMedia, DefaultIdle)
	}
	ph.Expires = now.Add(ph.Idle)
	switch {
	case !s.said[0].IsValid(): // unanswered
		if b.Self(end.Other()).Addr() != b.self(end.Other()).Addr() {
			return nat.Pinhole{}, false
		}
		ph.Idle = orDefault(t.SIPProvisionalMedia, ph.Idle)
		ph.Expires = now.Add(orDefault(t.SIPInvite, ph.Idle))
	case !s.said[i].IsValid() || !s.mapped[i].IsValid():
		return nat.Pinhole{}, false
	case s.said[i] == s.mapped[i]:
		ph.Match.Src = netip.AddrPortFrom(s.said[i].Addr(), 0)
	default:
		ph.Match.Src, ph.To.Src = s.said[i], s.mapped[i]
	}
	return ph, true
}

// Release ends one stream of a call or all. With stream "" and a call that this
// conversation has no stream of, it ends the call where it is. See Binder.
func (b *NATBinder) Release(call, name string) {
	b.nat.mu.Lock()
	defer b.nat.mu.Unlock()
	if name != "" {
		b.releaseLocked(streamKey{call, name})
		return
	}
	b.hangUpLocked(call)
	if b.releaseCallLocked(call) || b.opt.Private {
		return
	}
	for other := range b.nat.calls[call] {
		other.releaseCallLocked(call)
	}
}

// hangUpLocked closes the contacts that were for this call alone.
func (b *NATBinder) hangUpLocked(call string) {
	for _, c := range slices.Clone(b.reached) {
		i := slices.Index(c.calls, call)
		if i < 0 || len(c.calls) == maxContactCalls {
			continue
		}
		c.calls = slices.Delete(c.calls, i, i+1)
		if len(c.calls) == 0 && c.why == ForDialog {
			b.nat.forgetLocked(c)
		}
	}
}

func (b *NATBinder) releaseCallLocked(call string) bool {
	found := false
	for k := range b.streams {
		if k.call == call {
			b.releaseLocked(k)
			found = true
		}
	}
	return found
}

func (b *NATBinder) releaseLocked(k streamKey) {
	st := b.streams[k]
	if st == nil {
		return
	}
	for end := nat.Client; end <= nat.Server; end++ {
		b.forgetPrior(st, end)
		b.endLegLocked(st, end)
	}
	delete(b.streams, k)
	b.nat.streams--
	for other := range b.streams {
		if other.call == k.call {
			return
		}
	}
	if of := b.nat.calls[k.call]; of != nil {
		delete(of, b)
		if len(of) == 0 {
			delete(b.nat.calls, k.call)
		}
	}
}

// endLegLocked closes the pinholes toward end and what came through, and gives
// its ports back.
func (b *NATBinder) endLegLocked(st *stream, end nat.End) {
	closeHoles(&st.holes[end])
	l := &st.legs[end]
	if !l.said[0].IsValid() {
		return
	}
	closeHoles(&st.holes[end.Other()]) // what flows the other way was let in as this end's packets
	b.endLease(l)
	*l = leg{}
}

// endLease gives the ports of l back.
func (b *NATBinder) endLease(l *leg) {
	p := place{l.on, stack.UDP, l.mapped[0]}
	if b.nat.mapped[p] == l {
		delete(b.nat.mapped, p)
	}
	for _, lease := range l.lease {
		lease.Release()
	}
}
