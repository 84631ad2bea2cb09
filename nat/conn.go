// Package nat decides who may talk and under which addresses: objects and
// translation rules, access lists, the table of connections and the pinholes
// in it.
//
// What a reader may get wrong: real and mapped are both seen from inside. A
// packet from outside carries the mapped address in its destination until it
// is un-NATed.
package nat

import (
	"net/netip"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// End names one end of a connection.
type End uint8

const (
	Client End = iota // the end that sent the first packet
	Server            // the other one
)

// Other returns the opposite end.
func (e End) Other() End { return e ^ 1 }

// String returns "client" or "server".
func (e End) String() string {
	if e == Client {
		return "client"
	}
	return "server"
}

// A Handler sees the packets of the few connections that need more than a
// rewrite: inspected UDP and media.
type Handler interface {
	// HandlePacket sees each packet of its connections before translation,
	// and may change the payload in place (stack.Packet.PayloadRoom and
	// SetPayloadLen). On a connection of a Standing pinhole, which has no
	// translation of its own, it must also say where the packet goes with
	// p.SetFlow. It is called by several goroutines at once and with no lock
	// of the Table held.
	HandlePacket(p *stack.Packet, c *Conn, from End) stack.Verdict
}

// A Closer is a Handler that wants to know when a connection of its is gone.
// It is called once for each, with no lock of the Table held. Packets that
// were under way may still come after.
type Closer interface {
	ConnClosed(c *Conn)
}

// Why a connection ended, as the ASA logs it.
// (reference/asa-cli-show-debug.md, section 5, message 302014.)
const (
	ReasonIdle         = "Conn-timeout"
	ReasonSYN          = "SYN Timeout"
	ReasonFINs         = "TCP FINs"
	ReasonResetInside  = "TCP Reset-I"
	ReasonResetOutside = "TCP Reset-O"
	ReasonInspected    = "Flow closed by inspection"
	ReasonPinhole      = "Pinhole Timeout"
	ReasonCleared      = "Xlate Clear"
)

// A Conn is one connection: the flow each end sends, the flow each end must
// see, and a Handler for the few that need more. Its exported fields do not
// change. Any number of goroutines may use it. With its two places in the table
// it takes about 610 bytes (BenchmarkConnMemory), a port of PAT not counted.
//
// The Conn of a Standing pinhole is the endpoint itself. It has no flows, and
// all its packets count as the client's.
type Conn struct {
	// First what every packet needs, that it is not spread over more of a
	// memory that may be cold than it must.
	Handler Handler          // or nil
	Hole    *Hole            // the pinhole that let it in, or nil
	In, Out *stack.Interface // where the client is, where the server
	treat   *Treatment       // by service policies, or nil as nearly always
	home    *shard           // of nodes[Client]; has the wheel that c is on
	seen    atomic.Int64     // last packet, Unix time in ns
	packets [2]atomic.Uint64
	bytes   [2]atomic.Uint64 // of payload
	limit   atomic.Int64     // idle time allowed, in ns
	over    atomic.Bool
	counted atomic.Bool // TCP: embryonic no more, or gone
	tcp     tcpState
	to      [2]stack.Flow // what each end sees, by the end that sees it

	ID     uint64    // number of the connection in the log, from 1
	Rule   *Rule     // that translated the client's address, or nil
	UnRule *Rule     // that un-NATed the server's, or nil
	Reason string    // of the pinhole: who asked
	Mark   string    // letters of the inspection for Flags: "T" is SIP
	Opened time.Time // when the first packet came

	table *Table
	lease Lease
	idle  time.Duration // as the opener wished; 0: by protocol and state

	nodes [2]node[connEnd] // in the table, by the end whose packets they find

	// Guarded by home.mu.
	next, prev *Conn
	tick       int64 // when the wheel looks at c, Unix time in s
	wheeled    bool  // on the wheel
}

type connEnd struct {
	c    *Conn
	from End
}

// Client returns the flow that the client sends, as it arrives at the box.
// Zero for a Standing pinhole's.
func (c *Conn) Client() stack.Flow { return c.to[Client].Reverse() }

// Server returns the flow that the server sees of it, as it leaves the box.
// Zero for a Standing pinhole's.
func (c *Conn) Server() stack.Flow { return c.to[Server] }

// Translated reports whether the two differ.
func (c *Conn) Translated() bool { return c.to[Client] != c.to[Server].Reverse() }

// Proto returns the protocol.
func (c *Conn) Proto() stack.Proto { return c.to[Client].Proto }

// Counters returns how many packets came from that end, and how many bytes of
// payload.
func (c *Conn) Counters(from End) (packets, bytes uint64) {
	return c.packets[from].Load(), c.bytes[from].Load()
}

// Seen returns when the last packet came.
func (c *Conn) Seen() time.Time { return time.Unix(0, c.seen.Load()) }

// Standing reports whether c is the endpoint of a Standing pinhole.
func (c *Conn) Standing() bool { return c.home == nil && c.Hole != nil }

// Idle returns the time since the last packet, not less than 0.
func (c *Conn) Idle(now time.Time) time.Duration {
	return max(0, time.Duration(now.UnixNano()-c.seen.Load()))
}

// Timeout returns how long c may be idle in its state; 0 is for ever.
func (c *Conn) Timeout() time.Duration {
	if d := time.Duration(c.limit.Load()); d != never {
		return max(0, d)
	}
	return 0
}

// Up reports whether packets have gone both ways; for TCP, whether the
// handshake is complete.
func (c *Conn) Up() bool {
	if c.Proto() == stack.TCP {
		return c.tcp.seen.Load()&tcpUp != 0
	}
	return c.packets[Client].Load() > 0 && c.packets[Server].Load() > 0
}

// Flags returns the letters of "show conn": "UIOB" for an established TCP
// connection from outside with data both ways, and for others just those of
// the inspection.
func (c *Conn) Flags() string {
	if c.Proto() != stack.TCP {
		return c.Mark
	}
	return tcpFlags(c.tcp.seen.Load(), c.inbound(), c.Mark)
}

// Handle takes a packet of c that from sent the rest of its way: rates, state and
// timeout, Handler, and the rewrite to what the other end must see, with p.Out.
// It allocates nothing.
func (c *Conn) Handle(p *stack.Packet, from End) stack.Verdict {
	from &= 1
	if c.treat != nil {
		if v := c.police(p, from, false); v != stack.Forward {
			return v
		}
	}
	if now := p.Time.UnixNano(); uint64(now-c.seen.Load()) > seenStep {
		c.seen.Store(now)
	}
	if c.home == nil || c.to[Server].Proto != stack.TCP {
		return c.pass(p, from)
	}
	added, all, v := c.tcp.update(p, from)
	if v != stack.Forward {
		return v
	}
	v = c.pass(p, from)
	if added != 0 && c.advance(added, all) {
		c.CloseFor(c.endReason(all, from))
	}
	return v
}

// pass is Handle after the state.
func (c *Conn) pass(p *stack.Packet, from End) stack.Verdict {
	c.packets[from].Add(1)
	c.bytes[from].Add(uint64(len(p.Payload())))
	if c.Handler != nil {
		if v := c.Handler.HandlePacket(p, c, from); v != stack.Forward {
			return v
		}
	}
	if c.home == nil { // Standing: the Handler said where to
		if c.Out != nil {
			p.Out = c.Out
		}
		return stack.Forward
	}
	p.SetFlow(c.to[from.Other()])
	p.Out = c.Out
	if from == Server {
		p.Out = c.In
	}
	return stack.Forward
}

// endReason is why TCP ended when from sent the last packet of it.
func (c *Conn) endReason(seen uint32, from End) string {
	switch {
	case seen&tcpReset == 0:
		return ReasonFINs
	case (from == Client) == c.inbound():
		return ReasonResetOutside
	}
	return ReasonResetInside
}

// inbound reports whether the client is on the side with the lower security
// level, which the ASA calls outside.
func (c *Conn) inbound() bool { return c.In.Level < c.Out.Level }

// HandleError translates an ICMP error about a packet of c, which
// Table.LookupQuoted found: the packet it quotes becomes what its sender sent,
// and the error goes to that sender, who is the end other than from. Where the
// address of from is translated the error comes from that of the translation,
// whichever router on the way sent it, so that no address behind NAT is told.
// (The ASA's command reference, inspect icmp error.) It does not keep the
// connection alive.
func (c *Conn) HandleError(p *stack.Packet, from End) stack.Verdict {
	from &= 1
	quoted, ok := p.Quoted()
	if !ok || quoted.Src.Addr() != p.Flow().Dst.Addr() { // RFC 5508, section 4.2: to him who sent it
		return stack.DropICMP
	}
	far, near := c.to[from], c.to[from.Other()].Reverse() // as quoted; as sent
	outer := p.Flow()
	if near.Dst.Addr() != far.Dst.Addr() {
		outer.Src = netip.AddrPortFrom(near.Dst.Addr(), 0)
	}
	outer.Dst = netip.AddrPortFrom(near.Src.Addr(), 0)
	p.SetQuoted(near)
	p.SetFlow(outer)
	p.Out = c.Out
	if from == Server {
		p.Out = c.In
	}
	return stack.Forward
}

// advance sets the timeout for the state that TCP has come to, and reports
// whether it was the last.
func (c *Conn) advance(added, all uint32) (over bool) {
	if added&tcpUp != 0 {
		c.up()
	}
	if added&(tcpUp|tcpClientFIN|tcpServerFIN) != 0 {
		c.limit.Store(int64(c.allowed(c.table.timeouts.Load(), all)))
	}
	return tcpOver(all)
}

// up counts c as embryonic no more.
func (c *Conn) up() {
	if c.counted.Swap(true) {
		return
	}
	a := c.Client().Src.Addr()
	c.table.clients.up(a)
	if l := c.limits(); l != nil {
		l.clients.up(a)
	}
	for _, l := range c.limited() {
		l.up()
	}
}

// seenStep is how exact the time of the last packet is, in ns: a store for
// every packet of a fast flow would cost more than the rest of Handle.
const seenStep = 1e6

// never is the timeout of what does not time out.
const never = time.Duration(1<<63 - 1)

// gone is the timeout, in ns, that makes a connection that ended expired.
const gone = -1 << 63

// allowed returns how long c may be idle when its TCP state is seen.
func (c *Conn) allowed(to *Timeouts, seen uint32) time.Duration {
	class := &LimitsConfig{}
	if l := c.limits(); l != nil {
		class = &l.cfg
	}
	var d time.Duration
	switch c.Proto() {
	case stack.TCP:
		switch {
		case seen&tcpUp == 0:
			return or(class.Embryonic, or(to.Embryonic, never))
		case seen&(tcpClientFIN|tcpServerFIN) != 0:
			return or(class.HalfClosed, or(to.HalfClosed, never))
		}
		return or(class.Idle, or(c.idle, or(to.Conn, never)))
	case stack.UDP:
		d = to.UDP
	case stack.ICMP:
		d = to.ICMP
	case sctp:
		d = to.SCTP
	default:
		d = to.Other
	}
	if class.Idle != 0 && !class.IdleTCP {
		return class.Idle
	}
	return or(c.idle, or(d, never))
}

func or(a, b time.Duration) time.Duration {
	if a != 0 {
		return a
	}
	return b
}

// expired reports whether c has been idle for too long at now, in ns.
func (c *Conn) expired(now int64) bool {
	return now-c.seen.Load() > c.limit.Load()
}

// Close ends c: packets of it are no longer found. Closing again does nothing.
func (c *Conn) Close() { c.CloseFor(ReasonInspected) }

// CloseFor is Close with a reason for the log, one of the Reasons.
func (c *Conn) CloseFor(reason string) {
	if c.over.Swap(true) {
		return
	}
	c.limit.Store(gone)
	c.table.forget(c)
	c.lease.Release()
	c.table.cfg.PAT.told()
	if h, ok := c.Handler.(Closer); ok {
		h.ConnClosed(c)
	}
	if f := c.table.cfg.Closed; f != nil && c.ID != 0 {
		f(c, reason)
	}
}

// Closed reports whether c has ended.
func (c *Conn) Closed() bool { return c.over.Load() }
