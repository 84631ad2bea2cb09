package link

import "encoding/binary"

// A segmenter cuts a TCP segment longer than the MTU into ones that fit. The
// kernel hands over such segments where a sender on the same machine left the
// cutting to a device that never saw them (TSO over veth), or where a device
// merged what it received.
type segmenter struct {
	frame  []byte // the whole, with Ethernet header
	header int    // bytes of Ethernet, IP and TCP header
	step   int    // bytes of payload in each piece
	next   int    // offset in frame of the payload still to be cut; len(frame): none
	out    []byte // the last piece
}

// The parts of the headers that differ from piece to piece: offsets in bytes.
// (RFC 791, section 3.1; RFC 9293, section 3.1.)
const (
	ipHeaderLen = 20
	ipLenAt     = 2
	ipIDAt      = 4
	ipProtoAt   = 9
	ipSumAt     = 10
	tcpSeqAt    = 4
	tcpOffAt    = 12
	tcpFlagsAt  = 13

	protoTCP = 6
	flagFIN  = 0x01
	flagPSH  = 0x08
	flagCWR  = 0x80
)

// load makes s cut frame, which it copies, for the MTU mtu. It reports false
// if frame is nothing that can be cut: no untagged IPv4 TCP without options,
// or broken.
func (s *segmenter) load(frame []byte, mtu int) bool {
	s.frame = append(s.frame[:0], frame...)
	s.next = len(s.frame)
	d := s.frame
	if len(d) < untagged+ipHeaderLen+20 || binary.BigEndian.Uint16(d[12:]) != typeIPv4 {
		return false
	}
	ip := d[untagged:]
	n := int(binary.BigEndian.Uint16(ip[ipLenAt:]))
	if ip[0] != 0x45 || ip[ipProtoAt] != protoTCP || n > len(ip) || n < ipHeaderLen+20 {
		return false
	}
	tcp := ip[ipHeaderLen:n]
	off := int(tcp[tcpOffAt]>>4) * 4
	if off < 20 || off > len(tcp) || mtu <= ipHeaderLen+off {
		return false
	}
	s.frame = d[:untagged+n]
	s.header = untagged + ipHeaderLen + off
	s.step = mtu - ipHeaderLen - off
	s.next = s.header
	return s.next < len(s.frame)
}

// more reports whether there is a piece left to cut.
func (s *segmenter) more() bool { return s.next < len(s.frame) }

// cut returns the next piece, good until the next call. Its TCP checksum is
// left for stack.Packet.Parse to fill in.
func (s *segmenter) cut() []byte {
	end := min(s.next+s.step, len(s.frame))
	s.out = append(s.out[:0], s.frame[:s.header]...)
	s.out = append(s.out, s.frame[s.next:end]...)
	done := s.next - s.header
	ip := s.out[untagged:]
	tcp := ip[ipHeaderLen:]
	binary.BigEndian.PutUint16(ip[ipLenAt:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[ipIDAt:], binary.BigEndian.Uint16(ip[ipIDAt:])+uint16(done/s.step))
	binary.BigEndian.PutUint32(tcp[tcpSeqAt:], binary.BigEndian.Uint32(tcp[tcpSeqAt:])+uint32(done))
	if done > 0 {
		tcp[tcpFlagsAt] &^= flagCWR // once is enough (RFC 3168, section 6.1.2)
	}
	if end < len(s.frame) {
		tcp[tcpFlagsAt] &^= flagFIN | flagPSH
	}
	var sum uint32
	ip[ipSumAt], ip[ipSumAt+1] = 0, 0
	for i := 0; i < ipHeaderLen; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[ipSumAt:], ^uint16(sum))
	s.next = end
	return s.out
}
