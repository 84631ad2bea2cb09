package nat

import (
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// Never is a timeout that never comes, where 0 means something else.
const Never = never

// A Treatment is what service policies ask of a connection besides inspection.
// It does not change, and many connections may share one.
type Treatment struct {
	Police [2]Policing // by the end that sends the packet
	Limits *Limits     // of its class for "set connection", or nil
}

// Policing is the rates that a packet is held to: that of its class on the
// interface where it arrives, and that on the one by which it leaves. Each may
// be nil.
type Policing struct{ Arrive, Leave *stack.Policer }

// take asks the policers about p.
func (g *Policing) take(p *stack.Packet) stack.Verdict {
	if g.Arrive != nil {
		if v := g.Arrive.Take(p); v != stack.Forward {
			return v
		}
	}
	if g.Leave != nil {
		return g.Leave.Take(p)
	}
	return stack.Forward
}

// police asks the policers about a packet that from sent, before it counts for
// anything: one that is refused changes nothing of the connection. The first
// packet was asked about by Table.Open.
func (c *Conn) police(p *stack.Packet, from End) stack.Verdict {
	if from == Client && c.packets[Client].Load() == 0 {
		return stack.Forward
	}
	return c.treat.Police[from].take(p)
}

// A LimitsConfig is what "set connection" says of a class. (The ASA's command
// reference, set connection and set connection timeout.)
type LimitsConfig struct {
	// Most connections, and of those with half a handshake, in the class and
	// of one client in it; 0 is no limit.
	Max, MaxEmbryonic                   int
	MaxPerClient, MaxEmbryonicPerClient int

	// Times without a packet; 0: as the "timeout" command says; Never.
	Embryonic, HalfClosed time.Duration
	Idle                  time.Duration // of an established connection of any protocol
	IdleTCP               bool          // Idle is for TCP only
	Reset                 bool          // tell both ends of TCP when it was idle for too long
}

// Limits is the limits of one class of traffic, and the count of its
// connections. Any number of goroutines may use it.
type Limits struct {
	cfg     LimitsConfig
	conns   atomic.Int64
	clients clients
	drops   [3]atomic.Uint64 // over Max; over MaxPerClient; embryonic
}

// NewLimits returns the limits of a class without connections.
func NewLimits(cfg LimitsConfig) *Limits {
	l := &Limits{cfg: cfg}
	l.clients.init(cfg.MaxPerClient, cfg.MaxEmbryonicPerClient, cfg.MaxEmbryonic)
	return l
}

// A LimitsCount is how a class stands to its limits.
type LimitsCount struct {
	Conns, Embryonic int // now

	// Packets dropped: over Max, over MaxPerClient, and over either limit of
	// embryonic connections.
	Dropped, HostDropped, EmbryonicDropped uint64
}

// Config returns what the Limits were made from.
func (l *Limits) Config() LimitsConfig { return l.cfg }

// Count returns the connections of the class and what its limits refused.
func (l *Limits) Count() LimitsCount {
	return LimitsCount{
		Conns: int(l.conns.Load()), Embryonic: int(l.clients.halfOpen.Load()),
		Dropped: l.drops[0].Load(), HostDropped: l.drops[1].Load(), EmbryonicDropped: l.drops[2].Load(),
	}
}

// add counts a new connection of f's client, or drops it if there are too many.
func (l *Limits) add(f stack.Flow) stack.Verdict {
	v := stack.DropLimit
	if n := l.conns.Add(1); l.cfg.Max == 0 || n <= int64(l.cfg.Max) {
		v = l.clients.add(f)
	}
	switch v {
	case stack.Forward:
		return v
	case stack.DropHostLimit:
		l.drops[1].Add(1)
	case stack.DropEmbryonic:
		l.drops[2].Add(1)
	default:
		l.drops[0].Add(1)
	}
	l.conns.Add(-1)
	return v
}

// remove counts a connection of f's client no more.
func (l *Limits) remove(f stack.Flow, embryonic bool) {
	l.conns.Add(-1)
	l.clients.remove(f.Src.Addr(), embryonic)
}

// admit counts a new connection of f's client, or drops it if there are too
// many: in all, of the client, in the class of treat.
func (t *Table) admit(f stack.Flow, treat *Treatment) stack.Verdict {
	if t.count.Add(1) > int64(t.cfg.MaxConns) {
		t.count.Add(-1)
		return stack.DropLimit
	}
	if v := t.clients.add(f); v != stack.Forward {
		t.count.Add(-1)
		return v
	}
	if treat != nil && treat.Limits != nil {
		if v := treat.Limits.add(f); v != stack.Forward {
			t.dismiss(f, nil, f.Proto == stack.TCP)
			return v
		}
	}
	return stack.Forward
}

// dismiss counts a connection no more; embryonic says that it was one.
func (t *Table) dismiss(f stack.Flow, treat *Treatment, embryonic bool) {
	t.count.Add(-1)
	t.clients.remove(f.Src.Addr(), embryonic)
	if treat != nil && treat.Limits != nil {
		treat.Limits.remove(f, embryonic)
	}
}

// limits returns the limits of the class of c, or nil.
func (c *Conn) limits() *Limits {
	if c.treat == nil {
		return nil
	}
	return c.treat.Limits
}

// wantsReset reports whether both ends are told that c was idle for too long:
// those of an established connection, not of one that one end has finished.
func (c *Conn) wantsReset() bool {
	l := c.limits()
	return l != nil && l.cfg.Reset && c.Proto() == stack.TCP &&
		c.tcp.seen.Load()&(tcpUp|tcpClientFIN|tcpServerFIN) == tcpUp
}

// AppendReset appends to dst a whole IPv4 packet that ends the TCP connection c
// for the end to: the segment that the other end could send now, with RST. (RFC
// 9293, section 3.5.3.)
func (c *Conn) AppendReset(dst []byte, to End) []byte {
	to &= 1
	return stack.AppendTCP(dst, c.to[to], stack.TCPHeader{
		Flags: stack.FlagRST | stack.FlagACK, Seq: c.tcp.end[to.Other()].Load(), Ack: c.tcp.end[to].Load(),
	}, nil)
}
