package stack

import "encoding/binary"

// defaultTTL is the time to live of packets the box makes, in hops. (RFC 1700.)
const defaultTTL = 64

// A TCPHeader is what AppendTCP writes of a TCP header besides the ports.
type TCPHeader struct {
	Seq, Ack uint32
	Flags    uint8  // FlagSYN and so on
	Window   uint16 // bytes, not scaled
	MSS      uint16 // maximum segment size option in bytes; 0: no option
}

// AppendUDP appends to dst a whole IPv4 packet with one UDP datagram. Both
// addresses of f must be IPv4; its protocol is not read. The packet has TTL 64,
// ID 0 and no DF flag.
func AppendUDP(dst []byte, f Flow, payload []byte) []byte {
	start := len(dst)
	dst = appendIP(dst, f, UDP, udpHeader+len(payload))
	dst = binary.BigEndian.AppendUint16(dst, f.Src.Port())
	dst = binary.BigEndian.AppendUint16(dst, f.Dst.Port())
	dst = binary.BigEndian.AppendUint16(dst, uint16(udpHeader+len(payload)))
	dst = append(dst, 0, 0)
	return finish(append(dst, payload...), start, UDP)
}

// AppendTCP appends to dst a whole IPv4 packet with one TCP segment, made as
// AppendUDP makes it but with the DF flag.
func AppendTCP(dst []byte, f Flow, h TCPHeader, payload []byte) []byte {
	start := len(dst)
	n := tcpHeader
	if h.MSS != 0 {
		n += optMSSLen
	}
	dst = appendIP(dst, f, TCP, n+len(payload))
	binary.BigEndian.PutUint16(dst[start+ipFrag:], flagDF)
	dst = binary.BigEndian.AppendUint16(dst, f.Src.Port())
	dst = binary.BigEndian.AppendUint16(dst, f.Dst.Port())
	dst = binary.BigEndian.AppendUint32(dst, h.Seq)
	dst = binary.BigEndian.AppendUint32(dst, h.Ack)
	dst = append(dst, byte(n/4)<<4, h.Flags)
	dst = binary.BigEndian.AppendUint16(dst, h.Window)
	dst = append(dst, 0, 0, 0, 0) // checksum, urgent pointer
	if h.MSS != 0 {
		dst = append(dst, optMSS, optMSSLen)
		dst = binary.BigEndian.AppendUint16(dst, h.MSS)
	}
	return finish(append(dst, payload...), start, TCP)
}

// AppendICMPEcho appends to dst a whole IPv4 packet with an echo: a reply if f
// has a destination port, which is then the identifier, and else a request
// with the source port as its identifier.
func AppendICMPEcho(dst []byte, f Flow, seq uint16, payload []byte) []byte {
	start := len(dst)
	typ, id := byte(ICMPEcho), f.Src.Port()
	if f.Dst.Port() != 0 {
		typ, id = ICMPEchoReply, f.Dst.Port()
	}
	dst = appendIP(dst, f, ICMP, icmpHeader+len(payload))
	dst = append(dst, typ, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, id)
	dst = binary.BigEndian.AppendUint16(dst, seq)
	return finish(append(dst, payload...), start, ICMP)
}

// appendIP appends a header for n bytes of transport header and payload. Its
// checksum is left to finish.
func appendIP(dst []byte, f Flow, proto Proto, n int) []byte {
	src, to := f.Src.Addr().As4(), f.Dst.Addr().As4()
	dst = append(dst, 0x45, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(ipHeader+n))
	dst = append(dst, 0, 0, 0, 0, defaultTTL, byte(proto), 0, 0)
	dst = append(dst, src[:]...)
	return append(dst, to[:]...)
}

// finish fills in the checksums of the packet from start on.
func finish(dst []byte, start int, proto Proto) []byte {
	ip := dst[start:]
	fillIPChecksum(ip)
	fillTransportChecksum(ip, ip[ipHeader:], proto)
	return dst
}
