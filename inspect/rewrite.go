package inspect

import "net/netip"

// What an address in a message is for.
type AddrKind uint8

const (
	ForSignaling AddrKind = iota // messages go there, or it names somebody
	ForRTP
	ForRTCP
	ForText // it stands where nobody reads addresses as a rule; asked once for each
)

// An AddrFunc says what stands in place of an address in a message; addr itself
// where it stays. Its port is 0 where the message has none.
type AddrFunc func(addr netip.AddrPort, kind AddrKind) netip.AddrPort
