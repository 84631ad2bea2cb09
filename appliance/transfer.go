package appliance

import (
	"encoding/binary"
	"sync"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// The requests of TFTP. (RFC 1350, section 5.)
const (
	tftpRead  = 1
	tftpWrite = 2
)

// Transfers are the requests that one client, which may be the box, sends to one TFTP
// server: each lets the server answer from a port of its own, once. What is no request
// opens nothing. A client that was refused for its options asks again from its port.
type transfers struct {
	data  *Dataplane
	count *inspect.Counters // of "inspect tftp", else nil

	mu   sync.Mutex
	hole *nat.Hole // of the last request
}

// HandlePacket books the pinhole of a request. See nat.Handler.
func (t *transfers) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	if t.count != nil {
		t.count.Packet(true)
	}
	b := p.Payload()
	if from != nat.Client || len(b) < 2 {
		return stack.Forward
	}
	if op := binary.BigEndian.Uint16(b); op != tftpRead && op != tftpWrite {
		return stack.Forward
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hole != nil {
		t.hole.Close() // the client asks again, or for something else
	}
	t.hole = t.data.expectTransfer(p, c.Out, c.Server(), c.Client())
	return stack.Forward
}
