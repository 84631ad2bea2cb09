package stack

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// dumpTime is how AppendText writes the time, in UTC.
const dumpTime = "15:04:05.000000"

// AppendText appends one line about p to dst, without the newline: time,
// interfaces, flow and the length of the payload in bytes.
//
//	12:00:00.000000 outside udp 198.51.100.7:5000 > 203.0.113.10:69 len 20
//	12:00:00.000000 outside>inside tcp 198.51.100.7:5000 > 10.20.0.11:2000 SA seq 1 ack 2 win 8192 len 0
//	12:00:00.000000 inside icmp 10.20.0.11 > 198.51.100.7 echo id 5 seq 1 len 56
//	12:00:00.000000 inside icmp 10.20.0.1 > 10.20.0.11 type 3 code 4 mtu 1400 about udp 10.20.0.11:5 > 198.51.100.7:6 len 28
//
// The second interface is there once p.Out is set. It may be called in any
// state of p, also after Parse refused it.
func AppendText(dst []byte, p *Packet) []byte {
	dst = p.Time.UTC().AppendFormat(dst, dumpTime)
	dst = append(dst, ' ')
	dst = append(dst, p.In.String()...)
	if p.Out != nil {
		dst = append(dst, '>')
		dst = append(dst, p.Out.String()...)
	}
	dst = append(dst, ' ')
	d := p.Data()
	switch {
	case p.pay != 0 && !p.fragmented(): // pay stays 0 until Parse is content
		return appendParsed(dst, p)
	case len(d) >= ipHeader && d[0]>>4 == 4:
		src, to := netip.AddrPortFrom(addr4(d[ipSrc:]), 0), netip.AddrPortFrom(addr4(d[ipDst:]), 0)
		dst = appendFlow(dst, Flow{Proto(d[ipProto]), src, to}, false)
		field := binary.BigEndian.Uint16(d[ipFrag:])
		if field&(flagMF|fragOffset) != 0 {
			dst = append(dst, " frag "...)
			dst = strconv.AppendInt(dst, int64(binary.BigEndian.Uint16(d[ipID:])), 10)
			dst = append(dst, '@')
			dst = strconv.AppendInt(dst, int64(field&fragOffset)*8, 10)
			if field&flagMF != 0 {
				dst = append(dst, '+')
			}
		} else {
			dst = append(dst, " unparsed"...)
		}
		return appendLen(dst, len(d)-ipHeader)
	case len(d) > 0 && d[0]>>4 == 6:
		return appendLen(append(dst, "ip6"...), len(d))
	}
	return appendLen(append(dst, "malformed"...), len(d))
}

// String returns the line that AppendText appends.
func (p *Packet) String() string { return string(AppendText(nil, p)) }

// appendParsed appends what AppendText says of a parsed packet.
func appendParsed(dst []byte, p *Packet) []byte {
	dst = appendFlow(dst, p.flow, true)
	seg := p.Transport()
	switch p.flow.Proto {
	case TCP:
		dst = append(dst, ' ')
		n := len(dst)
		for i := range 8 {
			if p.TCPFlags()&(1<<i) != 0 {
				dst = append(dst, "FSRPAUEC"[i])
			}
		}
		if len(dst) == n {
			dst = append(dst, '-')
		}
		dst = strconv.AppendUint(append(dst, " seq "...), uint64(p.TCPSeq()), 10)
		dst = strconv.AppendUint(append(dst, " ack "...), uint64(p.TCPAck()), 10)
		dst = strconv.AppendUint(append(dst, " win "...), uint64(p.TCPWindow()), 10)
	case ICMP:
		typ, code := p.ICMPType()
		switch {
		case typ == ICMPEcho || typ == ICMPEchoReply:
			if typ == ICMPEcho {
				dst = append(dst, " echo id "...)
			} else {
				dst = append(dst, " echo-reply id "...)
			}
			dst = strconv.AppendUint(dst, uint64(binary.BigEndian.Uint16(seg[icmpID:])), 10)
			dst = append(dst, " seq "...)
			dst = strconv.AppendUint(dst, uint64(binary.BigEndian.Uint16(seg[icmpSeq:])), 10)
		default:
			dst = strconv.AppendUint(append(dst, " type "...), uint64(typ), 10)
			dst = strconv.AppendUint(append(dst, " code "...), uint64(code), 10)
			if typ == ICMPUnreachable && code == CodeFragNeeded {
				dst = strconv.AppendUint(append(dst, " mtu "...), uint64(binary.BigEndian.Uint16(seg[icmpMTU:])), 10)
			}
			if f, ok := p.Quoted(); ok {
				dst = appendFlow(append(dst, " about "...), f, true)
			}
		}
	}
	return appendLen(dst, len(p.Payload()))
}

// appendFlow appends "udp 198.51.100.7:5000 > 203.0.113.10:69", with
// ports only if they are known and the protocol has them.
func appendFlow(dst []byte, f Flow, ports bool) []byte {
	switch f.Proto {
	case ICMP:
		dst = append(dst, "icmp"...)
	case TCP:
		dst = append(dst, "tcp"...)
	case UDP:
		dst = append(dst, "udp"...)
	default:
		dst = strconv.AppendUint(append(dst, "proto "...), uint64(f.Proto), 10)
	}
	dst = append(dst, ' ')
	if ports && (f.Proto == TCP || f.Proto == UDP) {
		dst = f.Src.AppendTo(dst)
		dst = append(dst, " > "...)
		return f.Dst.AppendTo(dst)
	}
	dst = f.Src.Addr().AppendTo(dst)
	dst = append(dst, " > "...)
	return f.Dst.Addr().AppendTo(dst)
}

// appendLen appends " len n".
func appendLen(dst []byte, n int) []byte {
	return strconv.AppendInt(append(dst, " len "...), int64(n), 10)
}
