package appliance

import (
	"encoding/binary"
	"sync"

	"patchbay/nat"
	"patchbay/stack"
)

// Echoes are pings through the box. An answer is let in as the ASA lets it in:
// with "inspect icmp" once for each request, and else where the access lists or
// the security levels would let it in by itself.
type echoes struct {
	data      *Dataplane
	inspected bool
}

// begin returns the nat.Handler of one conversation.
func (e *echoes) begin() nat.Handler {
	if e.inspected {
		return new(echoed)
	}
	return e
}

// HandlePacket asks the access lists about each answer. See nat.Handler.
func (e *echoes) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	if from == nat.Client {
		return stack.Forward
	}
	// As if it opened a connection: from the server to the client, both real.
	x := decision{
		flow: p.Flow(), out: c.In,
		real: stack.Flow{Proto: stack.ICMP, Src: c.Server().Dst, Dst: c.Client().Src},
	}
	pl := e.data.plan.Load()
	v := x.permit(pl, p)
	e.data.count(&x, p)
	return v
}

// echoWindow is how many requests of one ping may wait for their answers at
// once, a power of two. More than that many seconds do not pass before "timeout
// icmp" ends it.
const echoWindow = 64

// An echoed is a ping that is inspected: each request has one answer, by its
// sequence number. (RFC 792.)
type echoed struct {
	mu      sync.Mutex
	waiting [echoWindow]echo
}

type echo struct {
	seq  uint16
	open bool
}

// HandlePacket matches answers with requests. See nat.Handler.
func (e *echoed) HandlePacket(p *stack.Packet, _ *nat.Conn, from nat.End) stack.Verdict {
	const sequence = 6 // bytes from the start of the ICMP header
	b := p.Transport()
	if len(b) < sequence+2 {
		return stack.DropICMP
	}
	seq := binary.BigEndian.Uint16(b[sequence:])
	e.mu.Lock()
	defer e.mu.Unlock()
	w := &e.waiting[seq%echoWindow]
	if from == nat.Client {
		*w = echo{seq, true}
		return stack.Forward
	}
	if !w.open || w.seq != seq {
		return stack.DropICMPSequence
	}
	w.open = false
	return stack.Forward
}
