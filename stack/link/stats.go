package link

import (
	"strconv"
	"sync/atomic"
)

// A Reason says why a link dropped something.
type Reason uint8

// The reasons, of which each driver has some.
const (
	QueueFull     Reason = iota // the other end of a wire in memory does not keep up
	RingFull                    // we do not keep up with the kernel
	Oversize                    // longer than the MTU or the buffer
	NotForUs                    // another station's frame
	WrongVLAN                   // a tag that is not ours, or none
	OtherType                   // neither IP nor ARP
	Malformed                   // a frame or ARP message that makes no sense
	NoAdjacency                 // the neighbour did not answer, or cannot be one
	SendFailed                  // the kernel would not take it
	FillEmpty                   // the kernel had no place left for it: we do not give them back fast enough
	KernelDrop                  // the kernel would not put it into the ring: too long, or no memory
	BadDescriptor               // a ring of AF_XDP held something that made no sense
	OtherQueue                  // came by a queue that the device was given since it was opened
	Absent                      // the device is not there, see Patient
	numReasons
)

var reasonNames = [numReasons]string{
	QueueFull:     "queue-full",
	RingFull:      "ring-full",
	Oversize:      "oversize",
	NotForUs:      "not-for-us",
	WrongVLAN:     "wrong-vlan",
	OtherType:     "other-type",
	Malformed:     "malformed",
	NoAdjacency:   "no-adjacency",
	SendFailed:    "send-failed",
	FillEmpty:     "fill-ring-empty",
	KernelDrop:    "kernel-dropped",
	BadDescriptor: "bad-descriptor",
	OtherQueue:    "other-queue",
	Absent:        "no-device",
}

// String returns a name like "queue-full".
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Stats is what passed a link since it was opened: IP packets and their bytes,
// without Ethernet headers and ARP.
type Stats struct {
	InPackets, InBytes, OutPackets, OutBytes uint64

	Drops map[Reason]uint64 // packets or frames; only reasons that occurred
}

// QueueStats is what passed one queue of a device since it was opened, and what
// was lost there, in frames.
type QueueStats struct {
	Queue         int
	Received      uint64
	Sent          uint64 // of all links on the queue
	RingFull      uint64 // received while our ring was full
	FillEmpty     uint64 // received while there was no place left for it
	KernelDrop    uint64 // received, and refused for its length or for want of memory
	SendFull      uint64 // to be sent while the send ring was full; of all links on the queue
	BadDescriptor uint64 // either way: what one side wrote made no sense to the other
}

// A Counter is a link that counts. All links of this package do.
type Counter interface {
	Stats() Stats
}

// counters is the Stats of a link as it runs.
type counters struct {
	inPackets, inBytes, outPackets, outBytes atomic.Uint64

	drops [numReasons]atomic.Uint64
}

func (c *counters) in(packets, bytes int) {
	c.inPackets.Add(uint64(packets))
	c.inBytes.Add(uint64(bytes))
}

func (c *counters) out(packets, bytes int) {
	c.outPackets.Add(uint64(packets))
	c.outBytes.Add(uint64(bytes))
}

func (c *counters) drop(r Reason) { c.drops[r].Add(1) }

// Stats returns what was counted so far.
func (c *counters) Stats() Stats {
	s := Stats{
		InPackets: c.inPackets.Load(), InBytes: c.inBytes.Load(),
		OutPackets: c.outPackets.Load(), OutBytes: c.outBytes.Load(),
		Drops: make(map[Reason]uint64),
	}
	for r := range c.drops {
		if n := c.drops[r].Load(); n != 0 {
			s.Drops[Reason(r)] = n
		}
	}
	return s
}
