package appliance

import (
	"net/netip"

	"patchbay/nat"
	"patchbay/stack"
)

// A trace is what would become of a packet, and everything that led to it. The
// zero value of what was not reached says so.
type trace struct {
	decision // what decide said, if it was asked

	verdict stack.Verdict
	out     *stack.Interface // where the packet leaves; identity: to the box itself
	flow    stack.Flow       // as it leaves; port 0 where chance would choose it
	nextHop netip.Addr

	conn    *nat.Conn // that it belongs to already, or nil
	from    nat.End   // of conn, that sent it
	quoted  bool      // it is an ICMP error about conn
	hole    *nat.Hole // that would let it in, or nil
	opened  bool      // it would open a connection, or try to
	opening nat.Opening
	decided bool // decide was asked
}

// A foreseer is a nat.Handler that can say what it would do, and changes
// nothing. Others are taken to let everything pass.
type foreseer interface {
	foresee(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict
}

// trace finds out what would become of p, which has been parsed: what Admit and
// then the Forwarder would do with it, in the same order and by the same code
// where that changes nothing (see plan.decide and nat's foresee.go). p is
// changed.
func (a *Appliance) trace(p *stack.Packet) *trace {
	t := &trace{}
	in, arrived := p.In, p.Flow()
	if t.verdict = t.martian(arrived); t.verdict != stack.Forward {
		t.decision.in, t.decision.flow = in, arrived
		return t
	}
	t.verdict = a.data.foresee(t, p)
	t.decision.in, t.decision.flow = in, arrived
	if t.verdict != stack.Forward || t.hole != nil && t.hole.Standing {
		return t
	}
	if !in.IsIdentity() && !t.out.IsIdentity() && t.fate != fateAnswered && p.TTL() <= 1 {
		t.verdict = stack.DropTTL
		return t
	}
	if t.nextHop.IsValid() {
		return t
	}
	hop, ok := a.forward.NextHop(t.out, t.flow.Dst.Addr())
	if t.nextHop = hop; !ok {
		t.verdict = stack.DropNoRoute
	}
	return t
}

func (*trace) martian(f stack.Flow) stack.Verdict {
	if stack.Martian(f) {
		return stack.DropSecurity
	}
	return stack.Forward
}

// foresee is Admit.
func (d *Dataplane) foresee(t *trace, p *stack.Packet) stack.Verdict {
	if t.conn, t.from = d.table.Foresee(p); t.conn != nil {
		return t.follow(p)
	}
	pl := d.plan.Load()
	if p.In != d.identity && pl.spoofed(p.In, p.Flow()) {
		return stack.DropReversePath
	}
	if p.IsICMPError() {
		if t.conn, t.from = d.table.LookupQuoted(p); t.conn == nil {
			return stack.DropICMP
		}
		t.quoted = true
		v := t.conn.HandleError(p, t.from) // changes p only
		t.out, t.flow = p.Out, p.Flow()
		return v
	}
	var v stack.Verdict
	if t.hole, t.opening, v = d.table.ForeseeClaim(p); t.hole != nil {
		return t.claim(d, p, v)
	}
	t.decided, t.decision.foresee = true, true
	pl.decide(&t.decision, p, d.identity, d.pat)
	if v := t.decision.verdict; v != stack.Forward {
		t.out = t.decision.out
		return v
	}
	if t.fate == fateAnswered {
		v := d.answer(p, pl) // changes p only
		t.out, t.flow, t.nextHop = p.Out, p.Flow(), p.NextHop
		return v
	}
	t.opened, t.opening = true, d.opening(p, &t.decision)
	t.out, t.flow = t.opening.Out, t.opening.Server
	return d.table.ForeseeOpen(p, t.opening, t.chance && t.opening.Source.Rule != nil && t.fate == fateThrough)
}

// follow foresees a packet of a connection that is open.
func (t *trace) follow(p *stack.Packet) stack.Verdict {
	c := t.conn
	t.out, t.flow = c.Out, c.Server()
	if t.from == nat.Server {
		t.out, t.flow = c.In, c.Client().Reverse()
	}
	if v := c.Foresee(p, t.from); v != stack.Forward {
		return v
	}
	if h, ok := c.Handler.(foreseer); ok {
		return h.foresee(p, c, t.from)
	}
	return stack.Forward
}

// claim foresees a packet that a pinhole takes. What becomes of media that the
// box carries itself is its handler's to say, and no trace knows.
func (t *trace) claim(d *Dataplane, p *stack.Packet, v stack.Verdict) stack.Verdict {
	t.out, t.flow = t.opening.Out, t.opening.Server
	if !t.hole.Standing {
		t.opened = true
		return v
	}
	t.out, t.flow = d.identity, p.Flow()
	if t.hole.In == nil && d.forged(p) {
		return stack.DropReversePath
	}
	return v
}
