package media

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

const (
	rtpHeaderLen  = 12 // bytes, RFC 3550 section 5.1
	rtcpHeaderLen = 8  // bytes, as far as SRTCP leaves it in the clear

	// rekeyOverlap is how long the key before this one is still tried, for
	// packets that were on the way when it changed.
	// (reference/srtp-keying.md, section 4.)
	rekeyOverlap = time.Second
)

// A leg is one end of a session: a port pair of ours and whoever is there. What
// every packet needs stands together, by lines of the cache: a packet comes to a
// leg whose memory is cold.
type leg struct {
	ports [2]port // RTP, RTCP; set once

	mu      sync.Mutex
	secure  bool
	closed  bool
	latched [2]bool           // remote was learned from an authenticated packet
	remote  [2]netip.AddrPort // where RTP and RTCP go; invalid: nowhere yet
	local   netip.AddrPort    // set once, before there are packets
	stats   legStats
	rx      receiver   // from this end
	tx      sender     // to this end
	source  netip.Addr // plain leg: who may send; invalid: the first one who does
	old     receiver   // before rx, until oldEnds
	oldEnds time.Time
}

type legStats struct {
	packets, bytes   uint64 // taken from the end
	sent, sentBytes  uint64
	lastSent         int64  // ns since 1970, and when it was opened at first
	lastPacket       int64  // ns since 1970
	lost             uint64 // gaps in the sequence so far, RFC 3550 A.3 without the cycles
	expectSeq        uint32 // next sequence number + 1, 0 is none yet
	payloadType      uint8
	auth, replay     uint64 // dropped
	noPeer, wrongSrc uint64
	rtcp             uint64
	latchMoves       uint64
}

// A port is one UDP port of a leg: the handler of its pinhole.
type port struct {
	s    *Session
	end  nat.End
	rtcp bool
	hole *nat.Hole
}

// HandlePacket carries one packet from this leg to the other. See nat.Handler.
//
// In order: is there a session; may this source speak; open (authenticate and
// decrypt); latch; is there somewhere to send; seal; set the flow.
func (pt *port) HandlePacket(p *stack.Packet, _ *nat.Conn, _ nat.End) stack.Verdict {
	s := pt.s
	l, other := &s.legs[pt.end], &s.legs[pt.end.Other()]
	n, v := l.open(p, pt.rtcp)
	if v != stack.Forward {
		return v
	}
	buf := p.PayloadRoom()[:n]
	to, n, v := other.seal(buf, pt.rtcp, p.Time)
	if v != stack.Forward {
		return v
	}
	p.SetPayloadLen(n)
	i := 0
	if pt.rtcp {
		i = 1
	}
	p.SetFlow(stack.Flow{Proto: stack.UDP,
		Src: netip.AddrPortFrom(other.local.Addr(), other.local.Port()+uint16(i)), Dst: to})
	return stack.Forward
}

// open takes a packet that arrived on l: it leaves the plain payload in place
// and returns its length.
func (l *leg) open(p *stack.Packet, rtcp bool) (int, stack.Verdict) {
	pay, src := p.Payload(), p.Flow().Src
	min, i := rtpHeaderLen, 0
	if rtcp {
		min, i = rtcpHeaderLen, 1
	}
	if len(pay) < min || pay[0]>>6 != 2 {
		return 0, stack.DropMalformed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, stack.DropSRTPNoKey
	}
	n := len(pay)
	if l.secure {
		if !l.rx.ready() {
			return 0, stack.DropSRTPNoKey
		}
		var err error
		n, err = l.rx.open(pay, rtcp)
		if err != nil && l.old.ready() && p.Time.Before(l.oldEnds) {
			n, err = l.old.open(pay, rtcp)
		}
		switch err {
		case nil:
		case errReplay:
			l.stats.replay++
			return 0, stack.DropSRTPReplay
		default:
			l.stats.auth++
			return 0, stack.DropSRTPAuth
		}
		if l.remote[i] != src {
			if l.latched[i] {
				l.stats.latchMoves++
			}
			l.remote[i] = src
		}
		l.latched[i] = true
	} else {
		if !l.source.IsValid() {
			l.source = src.Addr()
		}
		if src.Addr() != l.source {
			l.stats.wrongSrc++
			return 0, stack.DropMediaSource
		}
	}
	l.count(pay, n, rtcp, p.Time)
	return n, stack.Forward
}

// count keeps the statistics of a packet that was taken.
func (l *leg) count(pay []byte, n int, rtcp bool, now time.Time) {
	l.stats.packets++
	l.stats.bytes += uint64(n)
	l.stats.lastPacket = now.UnixNano()
	if rtcp {
		l.stats.rtcp++
		return
	}
	l.stats.payloadType = pay[1] & 0x7f
	seq := binary.BigEndian.Uint16(pay[2:])
	if e := l.stats.expectSeq; e != 0 {
		if gap := int16(seq - uint16(e-1)); gap > 0 && gap < 1000 {
			l.stats.lost += uint64(gap)
		} else if gap < 0 {
			return // late: it was counted as lost, and the next one expected stays
		}
	}
	l.stats.expectSeq = uint32(seq+1) + 1
}

// seal makes buf, a plain packet with room behind it, what l's end must get,
// and returns where it goes.
func (l *leg) seal(buf []byte, rtcp bool, now time.Time) (netip.AddrPort, int, stack.Verdict) {
	i := 0
	if rtcp {
		i = 1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to := l.remote[i]
	if rtcp && !to.IsValid() && l.remote[0].IsValid() && !l.latched[0] {
		to = netip.AddrPortFrom(l.remote[0].Addr(), l.remote[0].Port()+1)
	}
	if !to.IsValid() {
		l.stats.noPeer++
		return to, 0, stack.DropSRTPNoKey
	}
	n := len(buf)
	if l.secure {
		if !l.tx.ready() {
			return to, 0, stack.DropSRTPNoKey
		}
		var err error
		if n, err = l.tx.seal(buf, rtcp); err != nil {
			return to, 0, stack.DropMalformed
		}
	}
	l.stats.sent++
	l.stats.lastSent = now.UnixNano()
	l.stats.sentBytes += uint64(n)
	return to, n, stack.Forward
}

// SetRemote tells where the end e says it receives RTP; RTCP is one port up. An
// unspecified address is a hold: nothing is sent there until the next call.
//
// On a secure leg the address is only a hint, because a phone behind NAT does
// not know its own: reachable says that it may be used before a packet has
// authenticated from somewhere. A latched address is never replaced by a hint.
func (s *Session) SetRemote(e nat.End, a netip.AddrPort, reachable bool) {
	l := &s.legs[e]
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case a.Addr().IsUnspecified() || a.Port() == 0:
		if !l.secure { // a phone on hold keeps its latch, its end decides
			l.remote = [2]netip.AddrPort{}
		}
	case l.secure:
		if reachable && !l.latched[0] {
			l.remote[0] = a
		}
	default:
		l.remote[0] = a
		l.remote[1] = netip.AddrPortFrom(a.Addr(), a.Port()+1)
		l.source = a.Addr()
	}
}

// SetRemoteRTCP tells where the plain end e receives RTCP when that is not one
// port above RTP. (RFC 3605.)
func (s *Session) SetRemoteRTCP(e nat.End, a netip.AddrPort) {
	l := &s.legs[e]
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.secure {
		l.remote[1] = a
	}
}

// SetReceive sets the key that the end e transmits with. The same key again
// changes nothing: roll-over counter and replay window live on. Before a new
// one the old one is still tried for a second of packet time after now.
func (s *Session) SetReceive(e nat.End, k inspect.Key, now time.Time) error {
	l := &s.legs[e]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secure = true
	if l.rx.has(k) {
		return nil
	}
	rx, err := newReceiver(k, &s.relay.desks)
	if err != nil {
		return err
	}
	l.old, l.oldEnds = l.rx, now.Add(rekeyOverlap)
	l.rx = rx
	return nil
}

// SetTransmit sets the key the box transmits to the end e with. The same key
// again changes nothing.
func (s *Session) SetTransmit(e nat.End, k inspect.Key) error {
	l := &s.legs[e]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.secure = true
	if l.tx.has(k) {
		return nil
	}
	tx, err := newSender(k, &l.tx, &s.relay.desks)
	if err != nil {
		return err
	}
	l.tx = tx
	return nil
}

// LegStats is what one leg has carried.
type LegStats struct {
	Local, Remote   netip.AddrPort
	Secure, Latched bool
	Packets, Bytes  uint64 // taken from the end
	Sent, SentBytes uint64 // sent to it
	Lost            uint64 // gaps in the sequence of what came
	AuthFailed      uint64
	Replayed        uint64
	WrongSource     uint64
	NoPeer          uint64 // not sent: nowhere known to send to
	Moves           uint64 // the latch moved to another authenticated source
	RTCP            uint64
	PayloadType     uint8
	LastPacket      time.Time
}

// Legs returns what both legs have carried.
func (s *Session) Legs() (client, server LegStats) { return s.Stats(nat.Client), s.Stats(nat.Server) }

// Stats returns what the leg of end e has carried.
func (s *Session) Stats(e nat.End) LegStats {
	l := &s.legs[e]
	l.mu.Lock()
	defer l.mu.Unlock()
	st := LegStats{
		Local: l.local, Remote: l.remote[0], Secure: l.secure, Latched: l.latched[0],
		Packets: l.stats.packets, Bytes: l.stats.bytes,
		Sent: l.stats.sent, SentBytes: l.stats.sentBytes,
		Lost: l.stats.lost, AuthFailed: l.stats.auth, Replayed: l.stats.replay,
		WrongSource: l.stats.wrongSrc, NoPeer: l.stats.noPeer,
		Moves: l.stats.latchMoves, RTCP: l.stats.rtcp,
		PayloadType: l.stats.payloadType,
	}
	if ns := l.stats.lastPacket; ns != 0 {
		st.LastPacket = time.Unix(0, ns)
	}
	return st
}
