package stack

import (
	"encoding/binary"
	"math/bits"
)

// An IPv4 header without options. (RFC 791, section 3.1.)
//
//	0        1        2                 4                 6                 8
//	+--------+--------+-----------------+-----------------+-----------------+
//	| 4, IHL |  TOS   |  total length   |       ID        | flags, fragment |
//	+--------+--------+-----------------+-----------------+-----------------+
//	|  TTL   | proto  |    checksum     |              source               |
//	+--------+--------+-----------------+-----------------------------------+
//	|            destination            |
//	+-----------------------------------+
const (
	ipTOS    = 1
	ipLen    = 2
	ipID     = 4
	ipFrag   = 6 // flags in the upper 3 bits, offset in units of 8 bytes below
	ipTTL    = 8
	ipProto  = 9
	ipSum    = 10
	ipSrc    = 12
	ipDst    = 16
	ipHeader = 20 // bytes

	flagDF     = 0x4000 // in the 16 bits at ipFrag
	flagMF     = 0x2000
	fragOffset = 0x1fff
)

// TCP, UDP and ICMP headers: offsets and lengths in bytes. (RFC 9293, section
// 3.1; RFC 768; RFC 792.)
const (
	portSrc = 0
	portDst = 2

	tcpSeq    = 4
	tcpAck    = 8
	tcpOff    = 12 // header length in units of 4 bytes, in the upper 4 bits
	tcpFlags  = 13
	tcpWindow = 14
	tcpSum    = 16
	tcpHeader = 20

	udpLen    = 4
	udpSum    = 6
	udpHeader = 8

	icmpType   = 0
	icmpCode   = 1
	icmpSum    = 2
	icmpID     = 4 // of an echo
	icmpSeq    = 6 // of an echo
	icmpMTU    = 6 // of fragmentation needed; RFC 1191, section 4
	icmpHeader = 8
)

// updateChecksum corrects the Internet checksum in sum after the bytes old
// that it covers became new, without reading the rest of the packet. old and
// new have the same even length. (RFC 1624, equation 3.)
func updateChecksum(sum, old, new []byte) {
	var c uint32
	for i := 0; i < len(old); i += 2 {
		c += uint32(^binary.BigEndian.Uint16(old[i:]))
		c += uint32(binary.BigEndian.Uint16(new[i:]))
	}
	applyDelta(sum, c)
}

// applyDelta adds to the checksum in sum the differences in c, each of which
// is ^old + new of one 16-bit word that sum covers.
func applyDelta(sum []byte, c uint32) {
	c += uint32(^binary.BigEndian.Uint16(sum))
	c = c>>16 + c&0xffff
	c = c>>16 + c&0xffff
	binary.BigEndian.PutUint16(sum, ^uint16(c))
}

// delta16 returns what applyDelta needs to know of a word that was old and is
// now new.
func delta16(old, new uint16) uint32 { return uint32(^old) + uint32(new) }

// delta32 is delta16 for the two words of old and new.
func delta32(old, new uint32) uint32 {
	old = ^old
	return old>>16 + old&0xffff + new>>16 + new&0xffff
}

// checksum returns the Internet checksum of b added to the partial sum c. It
// adds 64 bits at a time, which comes to the same. (RFC 1071, section 2.)
func checksum(b []byte, c uint32) uint16 {
	sum, carry := uint64(c), uint64(0)
	for len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var rest uint64 // fewer than 8 bytes, left-aligned in words of 16 bits
	if len(b) >= 4 {
		rest = uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		rest += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		rest += uint64(b[0]) << 8
	}
	sum, carry = bits.Add64(sum, rest, carry)
	sum += carry // cannot carry again: rest is short
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}

// transportChecksum returns the TCP or UDP checksum of the segment seg in the
// IPv4 packet ip. The checksum field must be zero to make one, and as it
// arrived to check it (the result is then 0). (RFC 9293, section 3.1; RFC 768.)
func transportChecksum(ip, seg []byte, proto Proto) uint16 {
	src, dst := binary.BigEndian.Uint32(ip[ipSrc:]), binary.BigEndian.Uint32(ip[ipDst:])
	c := src>>16 + src&0xffff + dst>>16 + dst&0xffff
	return checksum(seg, c+uint32(proto)+uint32(len(seg)))
}

// fillTransportChecksum writes the checksum of the TCP, UDP or ICMP segment
// seg in the IPv4 packet ip. Other protocols are left alone.
func fillTransportChecksum(ip, seg []byte, proto Proto) {
	switch proto {
	case TCP:
		binary.BigEndian.PutUint16(seg[tcpSum:], 0)
		binary.BigEndian.PutUint16(seg[tcpSum:], transportChecksum(ip, seg, TCP))
	case UDP:
		binary.BigEndian.PutUint16(seg[udpSum:], 0)
		sum := transportChecksum(ip, seg, UDP)
		if sum == 0 {
			sum = 0xffff // 0 would say that there is none (RFC 768)
		}
		binary.BigEndian.PutUint16(seg[udpSum:], sum)
	case ICMP:
		binary.BigEndian.PutUint16(seg[icmpSum:], 0)
		binary.BigEndian.PutUint16(seg[icmpSum:], checksum(seg, 0))
	}
}

// fillIPChecksum writes the checksum of the header without options at the
// start of ip.
func fillIPChecksum(ip []byte) {
	binary.BigEndian.PutUint16(ip[ipSum:], 0)
	binary.BigEndian.PutUint16(ip[ipSum:], checksum(ip[:ipHeader], 0))
}
