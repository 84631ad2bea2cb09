package appliance

import (
	"net/netip"

	"patchbay/nat"
	"patchbay/stack"
)

// A fate is what becomes of the first packet of a connection that is not
// dropped.
type fate uint8

const (
	fateThrough  fate = iota // it goes through the box, or out from it
	fateEnded                // the box stands in for the server
	fateAnswered             // it is a ping of the box, answered in place
)

// A decision is what the box makes of the first packet of a connection, and
// everything that led to it. What was not reached is zero.
type decision struct {
	verdict stack.Verdict
	fate    fate

	in   *stack.Interface
	flow stack.Flow // as the packet arrived
	real stack.Flow // with its destination real

	un      *nat.Rule        // that un-NATed the destination, or nil
	out     *stack.Interface // where it goes; nil: no route
	nextHop netip.Addr       // by route; not valid if un said where to
	routed  bool             // out is the route's, not the rule's

	asked  [3]asked // access lists, in the order in which they were asked
	asks   int
	levels bool // no list was there to ask, and the security levels decided

	inspect  *inspection // whose conversation it is, or nil
	files    *tftpServer // of the phone proxy that it asks, or nil
	transfer bool        // a TFTP request of the box: its server answers from another port
	source   nat.Source  // what the server sees of the client

	// foresee is set before decide for a trace: nothing is taken, and source is
	// what it would be. chance says that its port would be chosen by chance.
	foresee, chance bool
}

// An asked is an access list that was asked, about which flow, and the entry that
// decided; nil is the implicit deny at its end.
type asked struct {
	list  *nat.AccessList
	flow  stack.Flow // before 8.3 with mapped addresses
	entry *nat.Entry
	group string // "in", "out" or "global"
}

// server returns the flow that the server sees.
func (x *decision) server() stack.Flow {
	return stack.Flow{Proto: x.flow.Proto, Src: x.source.Mapped, Dst: x.real.Dst}
}

// decide fills in x for p, the first packet of a connection that no pinhole
// takes. It changes nothing, but that a dynamic rule takes a port or an address
// from pat, which the caller must hand to Table.Open or release; with pat nil it
// takes none, and says that of the source.
//
// In order: packets from the box; forged sources; un-NAT; packets to the box;
// route; interfaces for the box only; access lists; what the box ends itself;
// NAT. Before 8.3 the list of the interface by which the packet leaves is asked
// after NAT, about what leaves.
func (pl *plan) decide(x *decision, p *stack.Packet, identity *stack.Interface, pat *nat.PAT) {
	x.in, x.flow = p.In, p.Flow()
	x.real = x.flow
	if p.In == identity {
		x.fromBox(pl, p)
		return
	}
	if pl.spoofed(p.In, x.flow) {
		x.verdict = stack.DropReversePath
		return
	}
	real, un, mapped := pl.rules.Untranslate(p.In, x.flow)
	if !mapped {
		if i := pl.ownedBy(x.flow.Dst.Addr()); i != nil {
			x.toBox(pl, p, i, identity)
			return
		}
		if m := pl.isMTA(x.flow.Dst.Addr()); m != nil {
			x.toBox(pl, p, m.on, identity)
			return
		}
	}
	x.real.Dst, x.un = real, un
	if mapped {
		x.out = un.Other(p.In)
	}
	if x.out == nil {
		var ok bool
		if x.out, x.nextHop, ok = pl.routes.Lookup(real.Addr()); !ok {
			x.verdict = stack.DropNoRoute
			return
		}
		x.routed = true
	}
	if pl.management(p.In, x.out) {
		x.verdict = stack.DropACL
		return
	}
	if x.verdict = x.permit(pl, p); x.verdict != stack.Forward {
		return
	}
	x.files = pl.tftpFor(p.In, x.real)
	if x.files == nil {
		here, there := x.seen(pl)
		qh, qt := query(p, here), query(p, there)
		x.inspect = pl.inspection(p.In, x.out, &qh, &qt)
	}
	switch {
	case x.files != nil || x.inspect != nil && x.inspect.phoneProxy:
		// The phone is not translated: the box speaks for it.
		x.fate, pat = fateEnded, nil
	case x.inspect != nil && x.flow.Proto == stack.TCP:
		x.fate = fateEnded
	}
	if x.foresee && pat != nil {
		x.source, x.chance, x.verdict = pl.rules.ForeseeSource(p.In, x.out, x.real, un, pat)
	} else {
		x.source, x.verdict = pl.rules.Translate(p.In, x.out, x.real, un, pat)
	}
	if pl.mapped && x.verdict == stack.Forward && !x.permitOut(pl, p, x.server()) {
		x.source.Lease.Cancel()
		x.source.Lease, x.verdict = nat.Lease{}, stack.DropACL
	}
}

// seen returns the flows that classes are asked about: on the interface by which
// the packet came, and on the one by which it leaves. Before 8.3 these are as
// the packet is there, before and after NAT.
func (x *decision) seen(pl *plan) (here, there stack.Flow) {
	if !pl.mapped {
		return x.real, x.real
	}
	there = x.real
	if s, v := pl.rules.Translate(x.in, x.out, x.real, x.un, nil); v == stack.Forward {
		there.Src = s.Mapped
	}
	return x.flow, there
}

// fromBox decides about a packet of the box itself. It may ping itself.
func (x *decision) fromBox(pl *plan, p *stack.Packet) {
	if typ, _ := p.ICMPType(); typ == stack.ICMPEcho && pl.ownedBy(x.flow.Dst.Addr()) != nil {
		x.verdict, x.fate = stack.Forward, fateAnswered
		return
	}
	x.verdict = stack.DropNoRoute
	var ok bool
	if x.out, x.nextHop, ok = pl.routes.Lookup(x.flow.Dst.Addr()); !ok {
		return
	}
	x.verdict, x.routed = stack.Forward, true
	x.source.Mapped = x.flow.Src
	x.transfer = x.flow.Proto == stack.UDP && x.flow.Dst.Port() == tftpPort
}

// toBox decides about a packet to an address of the box on i that no
// connection, pinhole or NAT rule takes. Ping is answered, and SSH ended where
// it is permitted; nothing else is served there.
func (x *decision) toBox(pl *plan, p *stack.Packet, i, identity *stack.Interface) {
	typ, _ := p.ICMPType()
	switch {
	case pl.permitsSSH(p.In, x.flow):
		x.verdict, x.fate, x.out = stack.Forward, fateEnded, identity
	case x.flow.Proto != stack.ICMP || typ != stack.ICMPEcho:
		x.verdict = stack.DropNoService
	case i != nil && i != p.In || !pl.permitsICMP(p.In, x.flow.Src.Addr(), typ):
		// As on the ASA the rules are those of the interface that faces the
		// host, and an address of another interface does not answer there.
		x.verdict = stack.DropICMP
	default:
		x.verdict, x.fate = stack.Forward, fateAnswered
	}
}

// permit asks the access lists about a first packet whose destination is real
// already, or the security levels where there is none. Before 8.3 they are asked
// about the packet as it came, and permitOut is left for later.
func (x *decision) permit(pl *plan, p *stack.Packet) stack.Verdict {
	q := query(p, x.real)
	if pl.mapped {
		q.Flow = x.flow
	}
	in := pl.in[p.In]
	switch {
	case pl.levels.Same(p.In, x.out):
		x.levels = true
		return stack.DropSecurityLevel
	case in == nil && pl.global == nil:
		x.levels = true
		if v := pl.levels.Permit(p.In, x.out); v != stack.Forward {
			return v
		}
	case in != nil && x.ask(in, "in", &q):
	case in != nil && pl.global != nil && x.asked[0].entry == nil && x.ask(pl.global, "global", &q):
	case in == nil && x.ask(pl.global, "global", &q):
	default:
		return stack.DropACL
	}
	if !pl.mapped && !x.permitOut(pl, p, x.real) {
		return stack.DropACL
	}
	return stack.Forward
}

// permitOut asks the list of the interface by which a packet of f leaves.
func (x *decision) permitOut(pl *plan, p *stack.Packet, f stack.Flow) bool {
	l := pl.out[x.out]
	if l == nil {
		return true
	}
	q := query(p, f)
	return x.ask(l, "out", &q)
}

// query is what lists are asked about p as f.
func query(p *stack.Packet, f stack.Flow) nat.Query {
	typ, code := p.ICMPType()
	return nat.Query{Flow: f, ICMPType: typ, ICMPCode: code, Time: p.Time}
}

// ask asks one list.
func (x *decision) ask(l *nat.AccessList, group string, q *nat.Query) bool {
	e := l.Find(q)
	x.asked[x.asks] = asked{l, q.Flow, e, group}
	x.asks++
	return e != nil && e.Permit
}
