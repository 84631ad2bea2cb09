package stack

import "encoding/binary"

// updateChecksum corrects the Internet checksum in sum after the bytes old
// that it covers became new, without reading the rest of the packet. old and
// new have the same even length. (RFC 1624, equation 3.)
func updateChecksum(sum, old, new []byte) {
	c := uint32(^binary.BigEndian.Uint16(sum))
	for i := 0; i < len(old); i += 2 {
		c += uint32(^binary.BigEndian.Uint16(old[i:]))
		c += uint32(binary.BigEndian.Uint16(new[i:]))
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	binary.BigEndian.PutUint16(sum, ^uint16(c))
}

// checksum returns the Internet checksum of b added to the partial sum c.
// (RFC 1071.)
func checksum(b []byte, c uint32) uint16 {
	for len(b) >= 2 {
		c += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		c += uint32(b[0]) << 8
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return ^uint16(c)
}

// transportChecksum returns the TCP or UDP checksum of the segment seg in the
// IPv4 packet ip. The checksum field must be zero to make one, and as it
// arrived to check it (the result is then 0). (RFC 793, RFC 768.)
func transportChecksum(ip, seg []byte, proto Proto) uint16 {
	var c uint32
	for i := 12; i < 20; i += 2 {
		c += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	c += uint32(proto) + uint32(len(seg))
	return checksum(seg, c)
}
