package stack

import (
	"encoding/binary"
	"net/netip"
)

// Parse checks the packet from the outside in and finds its flow: IP header,
// lengths, transport header, checksums. It cuts off what a link padded behind
// the IP packet. It returns Forward for a good packet and else the name of the
// drop; DropFragment says that the IP header is good and the packet one
// fragment of a longer one (see Reassembler). The TTL is not looked at.
func (p *Packet) Parse() Verdict {
	if v := p.parseIP(); v != Forward {
		return v
	}
	d := p.Data()
	src, dst := addr4(d[ipSrc:]), addr4(d[ipDst:])
	proto := Proto(d[ipProto])
	p.flow = Flow{proto, netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)}
	if p.fragmented() {
		return DropFragment
	}
	vouched := p.ChecksumVouched
	p.ChecksumVouched = false

	seg := d[ipHeader:]
	header := 0 // bytes of transport header
	switch proto {
	case TCP:
		if len(seg) < tcpHeader {
			return DropTCPHeader
		}
		n := int(seg[tcpOff]>>4) * 4
		if n < tcpHeader || n > len(seg) {
			return DropTCPHeader
		}
		header = n
		if vouched {
			fillTransportChecksum(d, seg, TCP)
		} else if transportChecksum(d, seg, TCP) != 0 {
			return DropChecksum
		}
	case UDP:
		// The ASA, too, wants the two lengths equal.
		if len(seg) < udpHeader || int(binary.BigEndian.Uint16(seg[udpLen:])) != len(seg) {
			return DropUDPLength
		}
		header = udpHeader
		if vouched {
			fillTransportChecksum(d, seg, UDP)
		} else if binary.BigEndian.Uint16(seg[udpSum:]) != 0 && transportChecksum(d, seg, UDP) != 0 {
			return DropChecksum
		}
	case ICMP:
		if len(seg) < icmpHeader {
			return DropMalformed
		}
		header = icmpHeader
		if vouched {
			fillTransportChecksum(d, seg, ICMP)
		} else if checksum(seg, 0) != 0 {
			return DropChecksum
		}
	}
	p.l4, p.pay = ipHeader, ipHeader+header
	srcPort, dstPort := ports(proto, seg)
	p.flow.Src, p.flow.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	return Forward
}

// ports returns the ports of a segment, or what stands in for them in a Flow.
// seg has at least 8 bytes if the protocol is ICMP, TCP or UDP.
func ports(proto Proto, seg []byte) (src, dst uint16) {
	switch proto {
	case TCP, UDP:
		return binary.BigEndian.Uint16(seg[portSrc:]), binary.BigEndian.Uint16(seg[portDst:])
	case ICMP:
		switch seg[icmpType] {
		case ICMPEcho:
			return binary.BigEndian.Uint16(seg[icmpID:]), 0
		case ICMPEchoReply:
			return 0, binary.BigEndian.Uint16(seg[icmpID:])
		}
	}
	return 0, 0
}

// parseIP checks the IP header and trims the packet to its length.
func (p *Packet) parseIP() Verdict {
	p.l4, p.pay, p.flow = 0, 0, Flow{}
	d := p.Data()
	if len(d) > 0 && d[0]>>4 == 6 {
		return DropIPv6
	}
	if len(d) < ipHeader || d[0]>>4 != 4 {
		return DropMalformed
	}
	ihl := int(d[0]&0x0f) * 4
	if ihl < ipHeader || ihl > len(d) {
		return DropMalformed
	}
	n := int(binary.BigEndian.Uint16(d[ipLen:]))
	if n < ihl || n > len(d) {
		return DropIPLength
	}
	if checksum(d[:ihl], 0) != 0 {
		return DropChecksum
	}
	if ihl > ipHeader {
		return DropOptions
	}
	p.end = p.off + n
	return Forward
}

// fragmented reports whether p is a fragment, first, middle or last.
func (p *Packet) fragmented() bool {
	return binary.BigEndian.Uint16(p.Data()[ipFrag:])&(flagMF|fragOffset) != 0
}

// addr4 returns the IPv4 address at the start of b.
func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

// TOS returns the type of service byte: DSCP and ECN. (RFC 2474, section 3.)
func (p *Packet) TOS() uint8 { return p.Data()[ipTOS] }

// TTL returns the time to live, in hops.
func (p *Packet) TTL() uint8 { return p.Data()[ipTTL] }

// DontFragment reports whether the packet carries the DF flag.
func (p *Packet) DontFragment() bool {
	return binary.BigEndian.Uint16(p.Data()[ipFrag:])&flagDF != 0
}

// The flags of a TCP segment, as TCPFlags returns them. (RFC 9293, section 3.1.)
const (
	FlagFIN uint8 = 1 << iota
	FlagSYN
	FlagRST
	FlagPSH
	FlagACK
	FlagURG
	FlagECE
	FlagCWR
)

// TCPFlags returns the flags of a parsed TCP packet, 0 for other protocols.
func (p *Packet) TCPFlags() uint8 {
	if p.flow.Proto != TCP {
		return 0
	}
	return p.Transport()[tcpFlags]
}

// TCPSeq returns the sequence number of a parsed TCP packet, 0 for other
// protocols.
func (p *Packet) TCPSeq() uint32 {
	if p.flow.Proto != TCP {
		return 0
	}
	return binary.BigEndian.Uint32(p.Transport()[tcpSeq:])
}

// TCPAck returns the acknowledgment number of a parsed TCP packet, 0 for other
// protocols.
func (p *Packet) TCPAck() uint32 {
	if p.flow.Proto != TCP {
		return 0
	}
	return binary.BigEndian.Uint32(p.Transport()[tcpAck:])
}

// TCPWindow returns the window of a parsed TCP packet in bytes, not scaled, 0
// for other protocols.
func (p *Packet) TCPWindow() uint16 {
	if p.flow.Proto != TCP {
		return 0
	}
	return binary.BigEndian.Uint16(p.Transport()[tcpWindow:])
}
