package stack

import (
	"fmt"
	"net/netip"
)

// Proto is an IP protocol number. (IANA, RFC 790 and successors.)
type Proto uint8

// The protocols that have ports, or what stands in for them.
const (
	ICMP Proto = 1
	TCP  Proto = 6
	UDP  Proto = 17
)

// String returns the protocol's name as the ASA prints it, or its number.
func (p Proto) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return fmt.Sprint(uint8(p))
}

// A Flow names one direction of a conversation. For ICMP echo the identifier
// is the source port of a request and the destination port of a reply, and the
// other port is 0; protocols without ports have both 0. A Flow is comparable
// and serves as a map key.
type Flow struct {
	Proto    Proto
	Src, Dst netip.AddrPort
}

// Reverse returns the flow of the answers to f.
func (f Flow) Reverse() Flow { return Flow{f.Proto, f.Dst, f.Src} }

// String returns "udp 198.51.100.7:5000 -> 203.0.113.10:69".
func (f Flow) String() string {
	return fmt.Sprintf("%v %v -> %v", f.Proto, f.Src, f.Dst)
}
