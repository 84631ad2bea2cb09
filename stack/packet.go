package stack

import (
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	// Headroom is what a link leaves free before the IP header, in bytes:
	// an Ethernet header with two VLAN tags and some to spare.
	Headroom = 64
	// Tailroom is what a link leaves free after the packet, in bytes: the
	// longest SRTP or SRTCP trailer with room to spare.
	Tailroom = 64
	// MaxPacket is the longest IPv4 packet, in bytes.
	MaxPacket = 65535
)

// A Packet is one IPv4 packet in a buffer with room at both ends. It belongs
// to whoever read it; nobody below Policy.Admit may keep it or a slice of it.
type Packet struct {
	Time    time.Time  // arrival; the only clock the dataplane reads
	In, Out *Interface // where it came from; where it goes
	NextHop netip.Addr // neighbour to hand it to on Out; zero: found by route

	// Queue is the receive queue of In that it came by, from 0. A Link with
	// several sends what came by one by one, too: flows stay in order.
	Queue int

	// ChecksumVouched is set by a link whose kernel or device vouches for
	// the transport checksum or has yet to fill it in (veth and virtio hand
	// over locally made packets so). Parse then writes a correct one, checks
	// none, and clears the flag.
	ChecksumVouched bool

	buf  []byte
	off  int  // start of the IP header in buf
	end  int  // end of the IP packet in buf
	l4   int  // offset of the transport header from off
	pay  int  // offset of the transport payload from off
	flow Flow // as parsed or last set
}

// NewPacket returns an empty Packet that holds up to n bytes of IP packet
// besides Headroom and Tailroom.
func NewPacket(n int) *Packet {
	p := &Packet{buf: make([]byte, Headroom+n+Tailroom)}
	p.Reset()
	return p
}

// Reset empties p for its next use. The buffer stays.
func (p *Packet) Reset() {
	*p = Packet{buf: p.buf, off: Headroom, end: Headroom}
}

// Buffer returns the whole space for an IP packet, with Headroom before and
// Tailroom after it, for a link to read into. SetLen says how much it used.
func (p *Packet) Buffer() []byte { return p.buf[Headroom : len(p.buf)-Tailroom] }

// SetLen makes the first n bytes of Buffer the packet, which is then to be
// parsed.
func (p *Packet) SetLen(n int) {
	p.off, p.end = Headroom, Headroom+n
	p.l4, p.pay, p.flow = 0, 0, Flow{}
}

// SetData copies b into p as its IP packet. It reports false, and leaves p
// empty, if b does not fit.
func (p *Packet) SetData(b []byte) bool {
	if len(b) > len(p.buf)-Headroom-Tailroom {
		p.SetLen(0)
		return false
	}
	p.SetLen(copy(p.Buffer(), b))
	return true
}

// Data returns the IP packet, borrowed until the next change of p.
func (p *Packet) Data() []byte { return p.buf[p.off:p.end] }

// WithHeader returns the IP packet with n bytes of Headroom before it, for a
// link header. n must not exceed Headroom.
func (p *Packet) WithHeader(n int) []byte { return p.buf[p.off-n : p.end] }

// Len returns the length of the IP packet in bytes.
func (p *Packet) Len() int { return p.end - p.off }

// Flow returns the packet's flow as Parse found it or SetFlow set it.
func (p *Packet) Flow() Flow { return p.flow }

// Payload returns what follows the transport header, borrowed. For protocols
// without one we know it is what follows the IP header.
func (p *Packet) Payload() []byte { return p.buf[p.off+p.pay : p.end] }

// Transport returns the transport header and payload, borrowed.
func (p *Packet) Transport() []byte { return p.buf[p.off+p.l4 : p.end] }

// PayloadRoom returns the payload with capacity for what may be appended in
// place; SetPayloadLen then fixes lengths and checksums.
func (p *Packet) PayloadRoom() []byte { return p.buf[p.off+p.pay : p.end : len(p.buf)] }

// SetPayload replaces the payload of a UDP packet with b, which must not lie
// in p, and corrects lengths and checksums. It reports false, and changes
// nothing, if b does not fit in the buffer or in an IP packet.
func (p *Packet) SetPayload(b []byte) bool {
	if len(b) > cap(p.PayloadRoom()) || p.pay+len(b) > MaxPacket {
		return false
	}
	copy(p.PayloadRoom()[:len(b)], b)
	p.SetPayloadLen(len(b))
	return true
}

// SetPayloadLen makes the payload n bytes long, after it was changed in place,
// and corrects the IP length and the IP and UDP checksums. It is for UDP only.
// The UDP checksum is computed anew.
func (p *Packet) SetPayloadLen(n int) {
	p.end = p.off + p.pay + n
	d := p.Data()
	var old [2]byte
	copy(old[:], d[2:4])
	binary.BigEndian.PutUint16(d[2:], uint16(len(d)))
	updateChecksum(d[10:12], old[:], d[2:4])
	u := p.Transport()
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	u[6], u[7] = 0, 0
	fillTransportChecksum(d, u, UDP)
}
