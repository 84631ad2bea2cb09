// Package link holds the drivers behind stack.Link: packet sockets and TUN
// devices of the kernel, Ethernet with its ARP above frames, wires in memory,
// and a recorder of captures.
//
// What a reader may get wrong: the kernel is no part of the path. On a device
// opened as "packet:" it must hear nothing and answer nothing, and the driver
// sees to that; on a TUN device the kernel is the peer.
package link

import (
	"fmt"
	"strings"
	"time"

	"patchbay/stack"
)

// Options is what a driver may be told. The zero Options is good.
type Options struct {
	// MTU is the largest IP packet, in bytes. 0 leaves a packet device as
	// it is and makes it 1500 on a TUN device.
	MTU int
	// VLAN is the 802.1Q identifier that all frames carry on an Ethernet
	// device, 1 to 4094; 0 is untagged.
	VLAN uint16
	// Now is the clock that stamps packets and ages neighbours; nil is
	// time.Now.
	Now func() time.Time
}

// now returns the clock of o.
func (o Options) now() func() time.Time {
	if o.Now == nil {
		return time.Now
	}
	return o.Now
}

// DefaultMTU is the MTU of a link that has no reason for another, in bytes.
// (RFC 894.)
const DefaultMTU = 1500

// MaxMTU is the largest MTU a driver takes, in bytes.
const MaxMTU = 9216

// drivers names what Open can open here, for its error messages.
const drivers = `"tun:NAME", "packet:DEVICE", "xdp:DEVICE" and "auto:DEVICE"`

// Devices opens links. Several may be on one Ethernet device, each with another
// VLAN or one with none: sub-interfaces. The zero Devices is ready to use, by
// several goroutines at once.
type Devices struct{ trunks trunks }

// OnReaders has told hear, each time it changes, how many goroutines read links of
// "packet:" and "xdp:". Each of them may keep one of Go's processors while it waits,
// so GOMAXPROCS should have one more for each. It is called before the first Open;
// told is called by who begins to read, or closes, for one at a time.
func (d *Devices) OnReaders(told func(readers int)) { d.trunks.told = told }

// Open opens a link on a device that no other shares; see Devices.Open.
func Open(name string, opt Options) (stack.Link, error) { return new(Devices).Open(name, opt) }

// Open opens the link that name says, "driver:device":
//
//	tun:pb0      a TUN device, made if there is none; the kernel is its peer
//	packet:eth0  an Ethernet device, taken away from the kernel's own stack
//	xdp:eth0     the same by AF_XDP, past the kernel's stack; MTU up to MaxXDPMTU
//	auto:eth0    as xdp: does, or if that cannot be had as packet: does
//
// The device of "xdp:" and "auto:" may be followed by options, ",option" each:
//
//	mode=native   the program runs in the device's driver, or not at all
//	mode=generic  it runs in the kernel's stack, as any device can have it;
//	              without either native is tried, and then generic
//	zerocopy      the device puts frames straight into our memory, if its driver can
//	queues=N      the device is given N queues; without it keeps what it has
//
// Each queue is read by a goroutine of its own (stack.Queued); the device spreads
// flows over them. What comes by a queue that it is given later (ethtool -L) is lost,
// and counted as OtherQueue, until the link is opened again.
//
// The result is an *Ethernet, but for "tun:"; its Note says why something less was
// opened than was asked for. All need root. Close undoes what Open did to the device;
// where several links are on one, that of the last does.
//
// A veth peer that leaves VLAN tags to its device (ethtool -k: tx-vlan-offload)
// hides them from any XDP program: have it not, or use "packet:".
func (d *Devices) Open(name string, opt Options) (stack.Link, error) {
	driver, device, ok := strings.Cut(name, ":")
	if !ok || device == "" {
		return nil, fmt.Errorf("link: opening %q: want driver:device, and the drivers are %s", name, drivers)
	}
	if opt.MTU != 0 && (opt.MTU < 576 || opt.MTU > MaxMTU) {
		return nil, fmt.Errorf("link: opening %q: MTU %d is not between 576 and %d", name, opt.MTU, MaxMTU)
	}
	if opt.VLAN > 4094 {
		return nil, fmt.Errorf("link: opening %q: VLAN %d is not between 1 and 4094", name, opt.VLAN)
	}
	var l stack.Link
	var err error
	switch driver {
	case "tun":
		l, err = openTUN(device, opt)
	case "packet":
		l, err = d.trunks.openPacket(device, opt)
	case "xdp":
		l, err = d.trunks.openXDP(device, opt)
	case "auto":
		l, err = d.trunks.openAuto(device, opt)
	default:
		err = fmt.Errorf("there is no driver %q in this build; the drivers are %s", driver, drivers)
	}
	if err != nil {
		return nil, fmt.Errorf("link: opening %q: %w", name, err)
	}
	return l, nil
}
