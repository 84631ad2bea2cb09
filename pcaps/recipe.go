package pcaps

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"patchbay/stack"
)

// A recipe is a packet as a line describes it.
type recipe struct {
	kind    string // "udp", "tcp", "icmp", "proto"
	flow    stack.Flow
	tcp     stack.TCPHeader
	seq     uint16 // of an ICMP echo
	error   bool   // an ICMP error
	typ     uint8
	code    uint8
	rest    uint16
	about   []byte
	payload []byte

	ttl, id, length          int // -1: as it is
	df, option               bool
	badSum, badHeader, quiet bool
	cut                      int // 0: whole
	order                    []int
	repeat, ports            int
	every                    time.Duration
}

// steps makes the packets.
func (r *recipe) steps(s Step) ([]Step, error) {
	var all []Step
	for i := range r.repeat {
		f := r.flow
		if r.ports != 0 {
			f.Src = netip.AddrPortFrom(f.Src.Addr(), f.Src.Port()+uint16(i))
		}
		packets, err := r.fragments(r.packet(f))
		if err != nil {
			return nil, err
		}
		all = append(all, Step{At: s.At + time.Duration(i)*r.every, In: s.In, Packets: packets, Quiet: r.quiet})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("repeat 0")
	}
	return all, nil
}

// packet makes the packet of f.
func (r *recipe) packet(f stack.Flow) []byte {
	var b []byte
	switch {
	case r.kind == "udp":
		b = stack.AppendUDP(nil, f, r.payload)
	case r.kind == "tcp":
		b = stack.AppendTCP(nil, f, r.tcp, r.payload)
	case r.error:
		body := binary.BigEndian.AppendUint16([]byte{r.typ, r.code, 0, 0, 0, 0}, r.rest)
		body = append(body, r.about...)
		binary.BigEndian.PutUint16(body[2:], sum(body))
		b = plainIP(f, body)
	case r.kind == "icmp":
		b = stack.AppendICMPEcho(nil, f, r.seq, r.payload)
	default:
		b = plainIP(f, r.payload)
	}
	if r.badSum {
		at := map[string]int{"udp": 26, "tcp": 36, "icmp": 22}[r.kind]
		b[at] ^= 0x55
	}
	if r.option {
		b = append(b[:20:20], append([]byte{1, 1, 1, 1}, b[20:]...)...)
		b[0]++
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	}
	if r.ttl >= 0 {
		b[8] = byte(r.ttl)
	}
	if r.id >= 0 {
		binary.BigEndian.PutUint16(b[4:], uint16(r.id))
	}
	if r.df {
		b[6] |= 0x40
	}
	if r.length >= 0 {
		binary.BigEndian.PutUint16(b[2:], uint16(r.length))
	}
	fixHeader(b)
	if r.badHeader {
		b[10] ^= 0x55
	}
	return b
}

// plainIP returns an IP packet with body after its header.
func plainIP(f stack.Flow, body []byte) []byte {
	b := stack.AppendUDP(nil, f, nil)[:20]
	b[9] = byte(f.Proto)
	b = append(b, body...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// fragments cuts b as the line wishes.
func (r *recipe) fragments(b []byte) ([][]byte, error) {
	if r.cut == 0 {
		return [][]byte{b}, nil
	}
	var parts [][]byte
	body := b[20:]
	for off := 0; off < len(body); off += r.cut {
		n := min(r.cut, len(body)-off)
		q := append(append([]byte(nil), b[:20]...), body[off:off+n]...)
		binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
		field := uint16(off / 8)
		if off+n < len(body) {
			field |= 0x2000 // more fragments
		}
		binary.BigEndian.PutUint16(q[6:], field)
		fixHeader(q)
		parts = append(parts, q)
	}
	if r.order == nil {
		return parts, nil
	}
	var picked [][]byte
	for _, n := range r.order {
		if n > len(parts) {
			return nil, fmt.Errorf("order: fragment %d of %d", n, len(parts))
		}
		picked = append(picked, parts[n-1])
	}
	return picked, nil
}

// fixHeader fills in the checksum of the IP header.
func fixHeader(b []byte) {
	n := int(b[0]&15) * 4
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], sum(b[:n]))
}

// sum returns the Internet checksum of b. (RFC 1071.)
func sum(b []byte) uint16 {
	var s uint32
	for i := range b {
		if i%2 == 0 {
			s += uint32(b[i]) << 8
		} else {
			s += uint32(b[i])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
