package stack

import (
	"encoding/binary"
	"net/netip"
)

// SetFlow rewrites the addresses and ports of a parsed packet to those of f
// and corrects the checksums. Of an ICMP echo it rewrites the identifier, of
// other protocols without ports the addresses alone. The protocol stays. An end
// of f whose address is not IPv4 leaves that end of the packet as it is.
func (p *Packet) SetFlow(f Flow) {
	d := p.Data()
	addrs := setAddr(d[ipSrc:], f.Src.Addr()) + setAddr(d[ipDst:], f.Dst.Addr())
	if addrs != 0 {
		applyDelta(d[ipSum:], addrs)
	}
	if f.Src.Addr().Is4() {
		p.flow.Src = netip.AddrPortFrom(f.Src.Addr(), 0)
	} else {
		f.Src = p.flow.Src
	}
	if f.Dst.Addr().Is4() {
		p.flow.Dst = netip.AddrPortFrom(f.Dst.Addr(), 0)
	} else {
		f.Dst = p.flow.Dst
	}

	seg := p.Transport()
	switch p.flow.Proto {
	case TCP:
		c := addrs + setPort(seg[portSrc:], f.Src.Port()) + setPort(seg[portDst:], f.Dst.Port())
		applyDelta(seg[tcpSum:], c)
		p.flow.Src, p.flow.Dst = f.Src, f.Dst
	case UDP:
		c := addrs + setPort(seg[portSrc:], f.Src.Port()) + setPort(seg[portDst:], f.Dst.Port())
		applyUDPDelta(seg[udpSum:], c)
		p.flow.Src, p.flow.Dst = f.Src, f.Dst
	case ICMP:
		switch seg[icmpType] {
		case ICMPEcho:
			applyDelta(seg[icmpSum:], setPort(seg[icmpID:], f.Src.Port()))
			p.flow.Src = f.Src
		case ICMPEchoReply:
			applyDelta(seg[icmpSum:], setPort(seg[icmpID:], f.Dst.Port()))
			p.flow.Dst = f.Dst
		}
	}
}

// portless returns a with port 0.
func portless(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }

// setAddr writes a to b and returns the delta for the checksums over b. If a
// is not IPv4 it does nothing.
func setAddr(b []byte, a netip.Addr) uint32 {
	if !a.Is4() {
		return 0
	}
	v := a.As4()
	old, new := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(v[:])
	if old == new {
		return 0
	}
	binary.BigEndian.PutUint32(b, new)
	return delta32(old, new)
}

// setPort writes port to b and returns the delta for the checksums over b.
func setPort(b []byte, port uint16) uint32 {
	old := binary.BigEndian.Uint16(b)
	binary.BigEndian.PutUint16(b, port)
	return delta16(old, port)
}

// applyUDPDelta is applyDelta for UDP, where a checksum of 0 says that there
// is none. (RFC 768.)
func applyUDPDelta(sum []byte, c uint32) {
	if binary.BigEndian.Uint16(sum) == 0 {
		return
	}
	applyDelta(sum, c)
	if binary.BigEndian.Uint16(sum) == 0 {
		binary.BigEndian.PutUint16(sum, 0xffff)
	}
}

// DecrementTTL takes one hop from the time to live. It reports false, and
// leaves the packet as it is, if there is none left to go on with.
func (p *Packet) DecrementTTL() bool {
	d := p.Data()
	if d[ipTTL] <= 1 {
		return false
	}
	old := binary.BigEndian.Uint16(d[ipTTL:])
	d[ipTTL]--
	applyDelta(d[ipSum:], delta16(old, old-0x100))
	return true
}

// FixChecksums computes the checksum of the IP header, and has Parse compute that
// of the rest: for a packet that was made by hand, or captured on a host whose
// network card was yet to do it. (RFC 1071.)
func (p *Packet) FixChecksums() {
	p.ChecksumVouched = true
	d := p.Data()
	if len(d) < ipHeader || d[0]>>4 != 4 {
		return
	}
	n := int(d[0]&0x0f) * 4
	if n < ipHeader || n > len(d) {
		return
	}
	binary.BigEndian.PutUint16(d[ipSum:], 0)
	binary.BigEndian.PutUint16(d[ipSum:], checksum(d[:n], 0))
}

// TCP options. (RFC 9293, section 3.2.)
const (
	optEnd    = 0
	optNop    = 1
	optMSS    = 2
	optMSSLen = 4 // bytes: kind, length, 16-bit size
)

// MSS returns the maximum segment size, in bytes, that the header of a TCP SYN
// offers, if that is its first option. header may be cut short.
func MSS(header []byte) (uint16, bool) {
	const end = tcpHeader + optMSSLen
	if len(header) < end || header[tcpOff]>>4 < end/4 || header[tcpHeader] != optMSS || header[tcpHeader+1] != optMSSLen {
		return 0, false
	}
	return binary.BigEndian.Uint16(header[tcpHeader+2:]), true
}

// ClampMSS brings the maximum segment size that a TCP SYN offers within least
// and most bytes, and reports whether it had to. A SYN without that option, and
// other packets, are left alone. (RFC 9293, section 3.7.1.)
func (p *Packet) ClampMSS(least, most uint16) bool {
	if p.TCPFlags()&FlagSYN == 0 {
		return false
	}
	seg := p.Transport()
	end := p.pay - p.l4
	for i := tcpHeader; i < end; {
		switch seg[i] {
		case optEnd:
			return false
		case optNop:
			i++
			continue
		}
		if i+1 >= end {
			return false
		}
		n := int(seg[i+1])
		if n < 2 || i+n > end {
			return false
		}
		if seg[i] != optMSS || n != optMSSLen {
			i += n
			continue
		}
		old := binary.BigEndian.Uint16(seg[i+2:])
		mss := min(max(old, least), most)
		if old == mss {
			return false
		}
		binary.BigEndian.PutUint16(seg[i+2:], mss)
		if i%2 != 0 { // the size lies across two words of the checksum
			old, mss = old<<8|old>>8, mss<<8|mss>>8
		}
		applyDelta(seg[tcpSum:], delta16(old, mss))
		return true
	}
	return false
}

// SetTCPAck puts ack and window in place of those of a parsed TCP segment and
// corrects its checksum.
func (p *Packet) SetTCPAck(ack uint32, window uint16) {
	seg := p.Transport()
	c := delta32(binary.BigEndian.Uint32(seg[tcpAck:]), ack) + delta16(binary.BigEndian.Uint16(seg[tcpWindow:]), window)
	binary.BigEndian.PutUint32(seg[tcpAck:], ack)
	binary.BigEndian.PutUint16(seg[tcpWindow:], window)
	applyDelta(seg[tcpSum:], c)
}
