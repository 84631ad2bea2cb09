package appliance

import (
	"encoding/binary"
	"sync"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// Echoes are pings through the box. An answer is let in as the ASA lets it in:
// with "inspect icmp" once for each request, and else where the access lists or
// the security levels would let it in by itself.
type echoes struct {
	data      *Dataplane
	inspected bool
	count     *inspect.Counters // of what is inspected
}

// begin returns the nat.Handler of one conversation.
func (e *echoes) begin() nat.Handler {
	if e.inspected {
		return &echoed{count: e.count}
	}
	return e
}

// HandlePacket asks the access lists about each answer. See nat.Handler.
func (e *echoes) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	if from == nat.Client {
		return stack.Forward
	}
	x, v := e.answer(p, c)
	e.data.count(&x, p)
	return v
}

// answer asks about an answer as if it opened a connection: from the server to
// the client, both real.
func (e *echoes) answer(p *stack.Packet, c *nat.Conn) (decision, stack.Verdict) {
	x := decision{
		flow: p.Flow(), out: c.In,
		real: stack.Flow{Proto: stack.ICMP, Src: c.Server().Dst, Dst: c.Client().Src},
	}
	v := x.permit(e.data.plan.Load(), p)
	return x, v
}

// foresee is HandlePacket. See foreseer.
func (e *echoes) foresee(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	if from == nat.Client {
		return stack.Forward
	}
	_, v := e.answer(p, c)
	return v
}

// echoWindow is how many requests of one ping may wait for their answers at
// once, a power of two. More than that many seconds do not pass before "timeout
// icmp" ends it.
const echoWindow = 64

// An echoed is a ping that is inspected: each request has one answer, by its
// sequence number. (RFC 792.)
type echoed struct {
	count *inspect.Counters

	mu      sync.Mutex
	waiting [echoWindow]echo
}

type echo struct {
	seq  uint16
	open bool
}

// HandlePacket matches answers with requests. See nat.Handler.
func (e *echoed) HandlePacket(p *stack.Packet, _ *nat.Conn, from nat.End) stack.Verdict {
	v := e.match(p, from, true)
	e.count.Packet(v == stack.Forward)
	return v
}

// foresee is HandlePacket. See foreseer.
func (e *echoed) foresee(p *stack.Packet, _ *nat.Conn, from nat.End) stack.Verdict {
	return e.match(p, from, false)
}

// match says what becomes of p, and with act notes it.
func (e *echoed) match(p *stack.Packet, from nat.End, act bool) stack.Verdict {
	seq, ok := echoSequence(p)
	if !ok {
		return stack.DropICMP
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	w := &e.waiting[seq%echoWindow]
	if from == nat.Server && (!w.open || w.seq != seq) {
		return stack.DropICMPSequence
	}
	if act {
		*w = echo{seq, from == nat.Client}
	}
	return stack.Forward
}

// echoSequence returns the sequence number of an echo.
func echoSequence(p *stack.Packet) (uint16, bool) {
	const sequence = 6 // bytes from the start of the ICMP header
	b := p.Transport()
	if len(b) < sequence+2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(b[sequence:]), true
}
