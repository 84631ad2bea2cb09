package stack

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// Types of ICMP messages. (RFC 792.)
const (
	ICMPEchoReply        = 0
	ICMPUnreachable      = 3
	ICMPSourceQuench     = 4
	ICMPRedirect         = 5
	ICMPEcho             = 8
	ICMPTimeExceeded     = 11
	ICMPParameterProblem = 12
)

// Codes of ICMP destination unreachable. (RFC 792; RFC 1812, section 5.2.7.1.)
const (
	CodeNetUnreachable  = 0
	CodeHostUnreachable = 1
	CodePortUnreachable = 3
	CodeFragNeeded      = 4
	CodeProhibited      = 13
)

const (
	// icmpErrorLen is the longest ICMP error the box makes, in bytes with
	// its IP header. (RFC 1812, section 4.3.2.3.)
	icmpErrorLen = 576
	// icmpErrorRate and icmpErrorBurst bound the ICMP errors of one
	// interface: per second, and in a row after a quiet time.
	icmpErrorRate  = 100
	icmpErrorBurst = 20
)

// ICMPType returns the type and code of a parsed ICMP packet. Another packet
// gives 255, 255, which no message has.
func (p *Packet) ICMPType() (typ, code uint8) {
	if p.flow.Proto != ICMP {
		return 255, 255
	}
	seg := p.Transport()
	return seg[icmpType], seg[icmpCode]
}

// IsICMPError reports whether p is an ICMP message that quotes a packet.
func (p *Packet) IsICMPError() bool {
	switch typ, _ := p.ICMPType(); typ {
	case ICMPUnreachable, ICMPSourceQuench, ICMPRedirect, ICMPTimeExceeded, ICMPParameterProblem:
		return true
	}
	return false
}

// quote returns the packet that the ICMP error p quotes, and the transport
// bytes in it. It fails if not even a flow can be read from it.
func (p *Packet) quote() (ip, seg []byte, ok bool) {
	if !p.IsICMPError() {
		return nil, nil, false
	}
	ip = p.Payload()
	if len(ip) < ipHeader || ip[0]>>4 != 4 {
		return nil, nil, false
	}
	ihl := int(ip[0]&0x0f) * 4
	// Eight bytes of transport are promised. (RFC 792.)
	if ihl < ipHeader || len(ip) < ihl+8 {
		return nil, nil, false
	}
	if binary.BigEndian.Uint16(ip[ipFrag:])&fragOffset != 0 {
		return nil, nil, false
	}
	return ip, ip[ihl:], true
}

// Quoted returns the flow of the packet that an ICMP error quotes, as its
// sender sent it. It reports false for other packets and for quotes too short
// or broken to tell.
func (p *Packet) Quoted() (Flow, bool) {
	ip, seg, ok := p.quote()
	if !ok {
		return Flow{}, false
	}
	proto := Proto(ip[ipProto])
	src, dst := ports(proto, seg)
	return Flow{proto,
		netip.AddrPortFrom(addr4(ip[ipSrc:]), src),
		netip.AddrPortFrom(addr4(ip[ipDst:]), dst)}, true
}

// SetQuoted rewrites the packet that an ICMP error quotes to the flow f, both
// ends of which must be IPv4, and corrects the checksums inside, as far as
// they were quoted, and the ICMP checksum. (RFC 5508, section 4.) Where Quoted
// fails it does nothing.
func (p *Packet) SetQuoted(f Flow) {
	ip, seg, ok := p.quote()
	if !ok {
		return
	}
	addrs := setAddr(ip[ipSrc:], f.Src.Addr()) + setAddr(ip[ipDst:], f.Dst.Addr())
	applyDelta(ip[ipSum:], addrs)
	switch Proto(ip[ipProto]) {
	case TCP:
		c := addrs + setPort(seg[portSrc:], f.Src.Port()) + setPort(seg[portDst:], f.Dst.Port())
		if len(seg) >= tcpSum+2 {
			applyDelta(seg[tcpSum:], c)
		}
	case UDP:
		c := addrs + setPort(seg[portSrc:], f.Src.Port()) + setPort(seg[portDst:], f.Dst.Port())
		applyUDPDelta(seg[udpSum:], c)
	case ICMP:
		switch seg[icmpType] {
		case ICMPEcho:
			applyDelta(seg[icmpSum:], setPort(seg[icmpID:], f.Src.Port()))
		case ICMPEchoReply:
			applyDelta(seg[icmpSum:], setPort(seg[icmpID:], f.Dst.Port()))
		}
	}
	fillTransportChecksum(p.Data(), p.Transport(), ICMP)
}

// AppendICMPError appends to dst a whole IPv4 packet from src to the source of
// the parsed packet p: the ICMP error typ and code that quotes p, as much of
// it as fits in 576 bytes. rest is the last 16 bits of the ICMP header, the
// next hop's MTU for fragmentation needed and else 0. (RFC 792; RFC 1191,
// section 4.) Whether p may be answered is for CanAnswer to say.
func AppendICMPError(dst []byte, p *Packet, src netip.Addr, typ, code uint8, rest uint16) []byte {
	quote := p.Data()
	quote = quote[:min(len(quote), icmpErrorLen-ipHeader-icmpHeader)]
	start := len(dst)
	f := Flow{ICMP, netip.AddrPortFrom(src, 0), p.flow.Src}
	dst = appendIP(dst, f, ICMP, icmpHeader+len(quote))
	dst[start+ipTOS] = 0xc0 // internetwork control (RFC 1812, section 4.3.2.5)
	dst = append(dst, typ, code, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, rest)
	return finish(append(dst, quote...), start, ICMP)
}

// CanAnswer reports whether an ICMP error may be sent about the parsed packet
// p that came in by an interface with the prefix subnet (the zero Prefix if it
// has none): never about an ICMP error, nor to or about an address that is not
// one host's. Fragments never get here. (RFC 1812, section 4.3.2.7.)
func CanAnswer(p *Packet, subnet netip.Prefix) bool {
	if p.flow.Proto == ICMP {
		switch typ, _ := p.ICMPType(); typ {
		case ICMPEcho, ICMPEchoReply:
		default:
			return false // an error, or a type we do not know to be none
		}
	}
	src, dst := p.flow.Src.Addr(), p.flow.Dst.Addr()
	return oneHost(src, subnet) && oneHost(dst, subnet) && src != subnet.Addr()
}

// oneHost reports whether a can be the address of one host.
func oneHost(a netip.Addr, subnet netip.Prefix) bool {
	return a.Is4() && !bogus(a) && !a.IsMulticast() && !isBroadcast(a, subnet)
}

// isBroadcast reports whether a is the broadcast address of all networks or of
// subnet. (RFC 919; a /31 and a /32 have none, RFC 3021.)
func isBroadcast(a netip.Addr, subnet netip.Prefix) bool {
	v := a.As4()
	n := binary.BigEndian.Uint32(v[:])
	if n == 0xffffffff {
		return true
	}
	if !subnet.IsValid() || subnet.Bits() > 30 || !subnet.Contains(a) {
		return false
	}
	host := uint32(0xffffffff) >> subnet.Bits()
	return n&host == host
}

// bogus reports whether a is never the address of a host: this network,
// loopback, and the unassigned class E except the broadcast address. (RFC 1122,
// section 3.2.1.3; the ASA's sp-security-failed.)
func bogus(a netip.Addr) bool {
	v := a.As4()
	return v[0] == 0 || v[0] == 127 || v[0] >= 240 && v != [4]byte{255, 255, 255, 255}
}

// Martian reports whether no packet may be forwarded with this flow, wherever
// it is from.
func Martian(f Flow) bool {
	src, dst := f.Src.Addr(), f.Dst.Addr()
	return bogus(src) || src.IsMulticast() || src.As4()[0] == 255 || bogus(dst)
}

// An allowance is a token bucket on packet time. It may be used by several
// goroutines at once.
type allowance struct {
	rate, burst float64 // tokens per second, tokens

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// take takes one token at the time now and reports whether there was one.
func (a *allowance) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.IsZero() {
		a.tokens = a.burst
	} else if d := now.Sub(a.last); d > 0 {
		a.tokens = min(a.burst, a.tokens+d.Seconds()*a.rate)
	}
	a.last = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}
