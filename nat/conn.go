// Package nat decides who may talk and under which addresses: objects and
// translation rules, access lists, the table of connections and the pinholes
// in it.
//
// What a reader may get wrong: real and mapped are both seen from inside. A
// packet from outside carries the mapped address in its destination until it
// is un-NATed.
package nat

import "patchbay/stack"

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
