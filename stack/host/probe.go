package host

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"patchbay/stack"
)

const (
	probeTTL     = 64 // hops, where the caller does not say
	probeAnswers = 64 // that wait to be received
	quotedHeader = 8  // bytes of the transport header that an ICMP error quotes at least (RFC 792)
)

// A Probe sends echo requests and datagrams with a TTL of its own, and receives
// the echo replies and ICMP errors that they cause: ping and traceroute. The port
// of its datagrams is the identifier of its echoes, and no other socket's.
type Probe struct {
	host    *Stack
	local   netip.AddrPort
	port    net.PacketConn // keeps the port
	answers chan Answer
	id      atomic.Uint32 // of the last packet
}

// An Answer is an ICMP message about a packet of a Probe.
type Answer struct {
	From netip.Addr
	Type uint8  // stack.ICMPEchoReply, or of an error
	Code uint8  // of an error
	Seq  uint16 // of the echo, where it is about one
	Port uint16 // that the datagram was sent to, where it is about one
	Data []byte // of an echo reply
}

// probes are those that are open, by their address and identifier.
type probes struct {
	open atomic.Int32

	mu sync.Mutex
	by map[netip.AddrPort]*Probe
}

// OpenProbe returns a Probe that sends from addr. Close it.
func (s *Stack) OpenProbe(addr netip.Addr) (*Probe, error) {
	pc, err := s.ListenPacket(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return nil, err
	}
	u, ok := pc.LocalAddr().(*net.UDPAddr)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("host: probe from %v: no port", addr)
	}
	p := &Probe{host: s, local: netip.AddrPortFrom(addr, uint16(u.Port)), port: pc, answers: make(chan Answer, probeAnswers)}
	l := &s.link.probes
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[netip.AddrPort]*Probe)
	}
	l.by[p.local] = p
	l.open.Add(1)
	return p, nil
}

// Close ends p. No answer is received any more.
func (p *Probe) Close() error {
	l := &p.host.link.probes
	l.mu.Lock()
	if l.by[p.local] == p {
		delete(l.by, p.local)
		l.open.Add(-1)
	}
	l.mu.Unlock()
	return p.port.Close()
}

// Answers returns where answers are received from. One that nobody receives in
// time is lost, as packets are.
func (p *Probe) Answers() <-chan Answer { return p.answers }

// Echo sends an echo request. A ttl of 0 is the usual one.
func (p *Probe) Echo(to netip.Addr, seq uint16, ttl uint8, data []byte) error {
	f := stack.Flow{Proto: stack.ICMP, Src: p.local, Dst: netip.AddrPortFrom(to, 0)}
	return p.send(stack.AppendICMPEcho(nil, f, seq, data), ttl)
}

// Datagram sends a UDP datagram. A ttl of 0 is the usual one.
func (p *Probe) Datagram(to netip.AddrPort, ttl uint8, data []byte) error {
	return p.send(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: p.local, Dst: to}, data), ttl)
}

// send puts a packet of p among those that the host sends.
func (p *Probe) send(b []byte, ttl uint8) error {
	if len(b) > stack.MaxPacket {
		return fmt.Errorf("host: probe of %d bytes: a packet has %d at most", len(b), stack.MaxPacket)
	}
	if ttl == 0 {
		ttl = probeTTL
	}
	ip := header.IPv4(b)
	ip.SetTTL(ttl)
	ip.SetID(uint16(p.id.Add(1))) // its pieces are no other's
	var list gstack.PacketBufferList
	defer list.Reset()
	pieces(ip, p.host.link.MTU(), func(b []byte) {
		list.PushBack(gstack.NewPacketBuffer(gstack.PacketBufferOptions{Payload: buffer.MakeWithData(b)}))
	})
	if n, err := p.host.ep.WritePackets(list); err != nil || n != list.Len() {
		return fmt.Errorf("host: probe: %d packets wait to be sent already", p.host.ep.NumQueued())
	}
	return nil
}

// pieces calls send with ip, or if it is longer than mtu with its fragments, which
// are as long as they may be. (RFC 791, section 3.2.)
func pieces(ip header.IPv4, mtu int, send func([]byte)) {
	payload := ip.Payload()
	room := len(payload)
	if len(ip) > mtu {
		room = (mtu - header.IPv4MinimumSize) &^ 7
	}
	for off := 0; off == 0 || off < len(payload); off += room {
		part := payload[off:min(off+room, len(payload))]
		b := header.IPv4(append(append([]byte(nil), ip[:header.IPv4MinimumSize]...), part...))
		b.SetTotalLength(uint16(len(b)))
		flags := uint8(0)
		if off+len(part) < len(payload) {
			flags = header.IPv4FlagMoreFragments
		}
		b.SetFlagsFragmentOffset(flags, uint16(off))
		b.SetChecksum(0)
		b.SetChecksum(^b.CalculateChecksum())
		send(b)
	}
}

// receive gives the probe that asked for it what p, a packet to the host, says.
func (l *probes) receive(b []byte) {
	if len(b) < header.IPv4MinimumSize || stack.Proto(b[9]) != stack.ICMP {
		return
	}
	p := stack.NewPacket(len(b))
	p.SetData(b)
	if p.Parse() != stack.Forward {
		return
	}
	a := Answer{From: p.Flow().Src.Addr()}
	a.Type, a.Code = p.ICMPType()
	to := p.Flow().Dst
	switch {
	case a.Type == stack.ICMPEchoReply:
		a.Seq, a.Data = binary.BigEndian.Uint16(p.Transport()[6:]), p.Payload()
	case p.IsICMPError():
		quoted, ok := p.Quoted()
		if !ok {
			return
		}
		to = quoted.Src
		switch quoted.Proto {
		case stack.UDP:
			a.Port = quoted.Dst.Port()
		case stack.ICMP:
			ip := header.IPv4(p.Payload())
			if n := int(ip.HeaderLength()); len(ip) >= n+quotedHeader {
				a.Seq = binary.BigEndian.Uint16(ip[n+6:])
			}
		default:
			return
		}
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.by[to]; x != nil {
		select {
		case x.answers <- a:
		default:
		}
	}
}
