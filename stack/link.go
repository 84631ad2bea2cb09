package stack

import "net/netip"

// A Link carries whole IPv4 packets in and out of the box. Read is called by
// one goroutine; Write may be called by several at once.
type Link interface {
	// Read waits for at least one packet, fills batch from the front by
	// setting each packet's data and Time, and returns how many it filled.
	// After Close it fails with net.ErrClosed.
	Read(batch []*Packet) (n int, err error)

	// Write sends the packets. They are the caller's again when it returns.
	// A packet that cannot be sent (ring full, neighbour unknown) is counted
	// and dropped, not reported; an error means the link itself is gone.
	Write(batch []*Packet) error

	// MTU is the largest IP packet the link takes, in bytes.
	MTU() int

	// Close ends pending and later calls with net.ErrClosed.
	Close() error
}

// A Reader is one of several places where a Link is read, each by one goroutine.
// Its Read is that of the Link, for a part of its flows.
type Reader interface {
	Read(batch []*Packet) (n int, err error)
}

// A Queued is a Link of a device with several receive queues, for several cores:
// the packets of a flow all come by one. They are read by all of Readers, or by
// Read, not by both.
type Queued interface {
	Link
	Readers() []Reader
}

// An Interface is a named place where packets come and go. It does not change
// once a Forwarder runs with it.
type Interface struct {
	Name  string       // nameif: "inside", "outside"; "identity" is the box itself
	Level int          // security-level, 0 to 100
	Addr  netip.Prefix // the box's own address and the subnet; zero for identity
	Link  Link
}

// IdentityName is the name of the interface that is the box itself.
const IdentityName = "identity"

// IsIdentity reports whether i is the box itself.
func (i *Interface) IsIdentity() bool { return i != nil && i.Name == IdentityName }

// String returns the nameif.
func (i *Interface) String() string {
	if i == nil {
		return "none"
	}
	return i.Name
}
