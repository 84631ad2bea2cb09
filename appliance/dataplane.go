package appliance

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

const (
	// maxHairpins is how often one packet may come back to a media
	// termination address of ours: a call between two remote phones is one.
	maxHairpins = 3

	// tftpPort is where a transfer begins; it goes on from another port of
	// the server. (RFC 1350, section 4.)
	tftpPort = 69
	// tftpWait is how long the pinhole for a transfer's port stays open.
	tftpWait = 30 * time.Second

	// aclLogInterval is how long an access-list entry is silent after it has
	// logged. (reference/asa-cli.md, section 6: "log" interval 300 s.)
	aclLogInterval = 300 * time.Second

	ipTCPHeader = 40 // bytes: what an MTU leaves to the MSS
)

// A Dataplane is the stack.Policy: a known connection's packets take the fast
// path, the first packet of one the session management path.
type Dataplane struct {
	table    *nat.Table
	pat      *nat.PAT
	identity *stack.Interface
	plan     atomic.Pointer[plan]
	log      *slog.Logger

	mu     sync.Mutex
	logged map[*nat.Entry]aclLog
}

type aclLog struct {
	next time.Time
	hits uint64 // at the last log
}

// Admit decides what becomes of p. See stack.Policy.
func (d *Dataplane) Admit(p *stack.Packet) stack.Verdict {
	for round := range maxHairpins {
		p.Out = nil
		c, from := d.table.Lookup(p)
		if c == nil {
			var v stack.Verdict
			if c, from, v = d.open(p); c == nil {
				return v
			}
		}
		if round == 0 && c.Hole != nil && c.Hole.Standing && c.Hole.In == nil && d.forged(p) {
			return stack.DropReversePath
		}
		if v := c.Handle(p, from); v != stack.Forward {
			return v
		}
		if c.Hole == nil || !c.Hole.Standing {
			return stack.Forward
		}
		// Media: the handler said where to, and that may be us again.
		pl := d.plan.Load()
		f := p.Flow()
		m := pl.isMTA(f.Dst.Addr())
		if m == nil {
			var ok bool
			if p.Out, p.NextHop, ok = pl.routes.Lookup(f.Dst.Addr()); !ok {
				return stack.DropNoRoute
			}
			// An address of one interface sends by that one: what is plain
			// toward the call manager must not leave by the phones'.
			if from := pl.isMTA(f.Src.Addr()); from != nil && from.strict && p.Out != from.on {
				return stack.DropNoRoute
			}
			return stack.Forward
		}
		if m.on != nil {
			p.In = m.on
		}
	}
	return stack.DropLoop
}

// forged reports whether a media packet came by another interface than its
// source is behind. It is asked where the pinhole takes packets from any.
func (d *Dataplane) forged(p *stack.Packet) bool {
	pl, src := d.plan.Load(), p.Flow().Src.Addr()
	behind, _, ok := pl.routes.Lookup(src)
	return !ok || behind != p.In || pl.isMTA(src) != nil
}

// open finds or makes the connection of a first packet: the session management
// path. It returns nil and the verdict if there is none to handle p: dropped,
// or answered in place.
//
// In order: ICMP errors about a connection; pinholes; packets from the box;
// forged sources; un-NAT; packets to the box; route; access list; what the box
// terminates; NAT; the connection.
func (d *Dataplane) open(p *stack.Packet) (*nat.Conn, nat.End, stack.Verdict) {
	pl := d.plan.Load()
	if p.IsICMPError() {
		c, from := d.table.LookupQuoted(p)
		if c == nil {
			return nil, from, stack.DropICMP
		}
		return nil, from, c.HandleError(p, from)
	}
	if c, from := d.table.Claim(p); c != nil {
		return c, from, stack.Forward
	}
	f := p.Flow()
	if p.In == d.identity {
		return d.fromBox(p, pl, f)
	}
	if pl.ownedBy(f.Src.Addr()) != nil || pl.isMTA(f.Src.Addr()) != nil {
		return nil, nat.Client, stack.DropReversePath
	}
	real, rule, mapped := pl.rules.Untranslate(p.In, f)
	if !mapped {
		if i := pl.ownedBy(f.Dst.Addr()); i != nil {
			return nil, nat.Client, d.toBox(p, pl, i)
		}
		if m := pl.isMTA(f.Dst.Addr()); m != nil {
			return nil, nat.Client, d.toBox(p, pl, m.on)
		}
		real = f.Dst
	}
	rf := stack.Flow{Proto: f.Proto, Src: f.Src, Dst: real}
	var out *stack.Interface
	if mapped {
		out = rule.Other(p.In)
	}
	if out == nil {
		var ok bool
		if out, _, ok = pl.routes.Lookup(real.Addr()); !ok {
			return nil, nat.Client, stack.DropNoRoute
		}
	}
	if v := d.permit(p, pl, out, rf); v != stack.Forward {
		return nil, nat.Client, v
	}
	if pl.tftpFor(p.In, rf) != nil || pl.service(p.In, rf, p.Time) != nil {
		// The box stands in for the server, at the address the phone asked.
		if _, v := pl.rules.Translate(p.In, out, rf, rule, nil); v != stack.Forward {
			return nil, nat.Client, v
		}
		return d.table.Open(p, nat.Opening{Out: d.identity, Server: f, UnRule: rule})
	}
	src, v := pl.rules.Translate(p.In, out, rf, rule, d.pat)
	if v != stack.Forward {
		return nil, nat.Client, v
	}
	if f.Proto == stack.TCP {
		p.ClampMSS(uint16(min(out.Link.MTU(), p.In.Link.MTU()) - ipTCPHeader))
	}
	server := stack.Flow{Proto: f.Proto, Src: src.Mapped, Dst: real}
	c, from, v := d.table.Open(p, nat.Opening{Out: out, Server: server, UnRule: rule, Source: src})
	if v == stack.Forward && pl.inspectsTFTP(p.In, rf, p.Time) {
		d.expectTransfer(p, out, server, f)
	}
	return c, from, v
}

// fromBox opens a connection of the box's own.
func (d *Dataplane) fromBox(p *stack.Packet, pl *plan, f stack.Flow) (*nat.Conn, nat.End, stack.Verdict) {
	out, _, ok := pl.routes.Lookup(f.Dst.Addr())
	if !ok {
		return nil, nat.Client, stack.DropNoRoute
	}
	c, from, v := d.table.Open(p, nat.Opening{Out: out, Server: f})
	if v == stack.Forward && f.Proto == stack.UDP && f.Dst.Port() == tftpPort {
		d.expectTransfer(p, out, f, f)
	}
	return c, from, v
}

// expectTransfer books the pinhole for the port that the TFTP server of
// request will answer from, toward the client whose own flow was client.
func (d *Dataplane) expectTransfer(p *stack.Packet, out *stack.Interface, request, client stack.Flow) {
	d.table.Expect(nat.Pinhole{
		In: out,
		Match: stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(request.Dst.Addr(), 0), Dst: request.Src},
		Out: p.In,
		To: stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(client.Dst.Addr(), 0), Dst: client.Src},
		Expires: p.Time.Add(tftpWait),
		Mark:    "t",
		Reason:  "TFTP",
	})
}

// toBox decides about a packet to an address of the box on i that no
// connection, pinhole or NAT rule takes. Ping is answered in place; nothing
// else is served there.
func (d *Dataplane) toBox(p *stack.Packet, pl *plan, i *stack.Interface) stack.Verdict {
	f := p.Flow()
	typ, _ := p.ICMPType()
	if f.Proto != stack.ICMP || typ != stack.ICMPEcho {
		return stack.DropNoService
	}
	// As on the ASA the rules are those of the interface that faces the host,
	// and an address of another interface does not answer there.
	if i != nil && i != p.In || !pl.permitsICMP(p.In, f.Src.Addr(), typ) {
		return stack.DropICMP
	}
	p.MakeEchoReply()
	p.Out = p.In
	if out, next, ok := pl.routes.Lookup(p.Flow().Dst.Addr()); ok && out == p.In {
		p.NextHop = next
	}
	return stack.Forward
}

// permit asks the access lists about a first packet whose destination is real
// already, or the security levels where there is none.
func (d *Dataplane) permit(p *stack.Packet, pl *plan, out *stack.Interface, rf stack.Flow) stack.Verdict {
	typ, code := p.ICMPType()
	q := nat.Query{Flow: rf, ICMPType: typ, ICMPCode: code, Time: p.Time}
	in := pl.in[p.In]
	switch {
	case in == nil && pl.global == nil:
		if v := pl.levels.Permit(p.In, out); v != stack.Forward {
			return v
		}
	case in != nil && d.ask(p, in, &q):
	case in != nil && pl.global != nil && in.Find(&q) == nil && d.ask(p, pl.global, &q):
	case in == nil && d.ask(p, pl.global, &q):
	default:
		return stack.DropACL
	}
	if l := pl.out[out]; l != nil && !d.ask(p, l, &q) {
		return stack.DropACL
	}
	return stack.Forward
}

// ask asks one list, and logs what its entry says to log: the first hit, and
// after that a count at most every aclLogInterval.
func (d *Dataplane) ask(p *stack.Packet, l *nat.AccessList, q *nat.Query) bool {
	ok, e := l.Decide(q)
	if e == nil || !e.Log {
		return ok
	}
	d.mu.Lock()
	last := d.logged[e]
	due := !p.Time.Before(last.next)
	hits := e.Hits()
	if due {
		d.logged[e] = aclLog{p.Time.Add(aclLogInterval), hits}
	}
	d.mu.Unlock()
	if due {
		verb := "denied"
		if ok {
			verb = "permitted"
		}
		d.log.Info("%ASA-6-106100: access-list "+l.Name+" "+verb, "flow", q.Flow, "interface", p.In.Name, "hits", hits-last.hits)
	}
	return ok
}
