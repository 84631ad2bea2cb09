// Package stack holds packets, interfaces and the loop that forwards: a link
// is read, a packet parsed, a Policy asked, and the packet written to another
// link. It knows nothing of connections, NAT or the host's own sockets.
//
// What a reader may get wrong: a Packet is only borrowed. It is used again as
// soon as Handle returns.
package stack

// A Policy decides what becomes of each packet.
type Policy interface {
	// Admit rewrites p as it must leave, sets p.Out (and p.NextHop if it
	// looked up the route) and says Forward; or it names a drop. It must not
	// keep p.
	Admit(p *Packet) Verdict
}
