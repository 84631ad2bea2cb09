package stack

import "encoding/binary"

// echoTTL is what a fresh answer of the box starts with. (RFC 1700.)
const echoTTL = 64

// MakeEchoReply turns p, an ICMP echo request, into the reply to it: addresses
// exchanged, identifier, sequence and data as they came. It reports false and
// leaves p alone if p is none. (RFC 792.)
func (p *Packet) MakeEchoReply() bool {
	if typ, _ := p.ICMPType(); typ != ICMPEcho {
		return false
	}
	d, seg := p.Data(), p.Transport()
	var src [4]byte
	copy(src[:], d[ipSrc:ipDst])
	copy(d[ipSrc:ipDst], d[ipDst:ipDst+4])
	copy(d[ipDst:], src[:])
	old := binary.BigEndian.Uint16(d[ipTTL:])
	d[ipTTL] = echoTTL
	applyDelta(d[ipSum:], delta16(old, binary.BigEndian.Uint16(d[ipTTL:])))
	old = binary.BigEndian.Uint16(seg[icmpType:])
	seg[icmpType] = ICMPEchoReply
	applyDelta(seg[icmpSum:], delta16(old, binary.BigEndian.Uint16(seg[icmpType:])))
	p.flow = p.flow.Reverse()
	return true
}
