package nat

import (
	"sync/atomic"

	"patchbay/stack"
)

// tcpState is what we know of a TCP connection from its packets: enough for
// the timeouts, for "show conn", and to tell a segment of the conversation from
// one made up by somebody who cannot see it. Packets of both ends may update it
// at once: each sequence number only rises, and a packet can only answer what
// has passed here before.
//
// The checks are those of RFC 9293, section 3.10.7.4, from a place between the
// ends, as van Rooij drew them ("Real Stateful TCP Packet Filtering in IP
// Filter", 2001). Of each end we keep what it has sent, up to end; how far it
// may send, up to edge; and the largest window it has offered. A retransmission
// or an old acknowledgement is good as far back as that window.
type tcpState struct {
	seen   atomic.Uint32    // what has been seen, the bits below
	fin    [2]atomic.Uint32 // of each end, the sequence number after its FIN
	end    [2]atomic.Uint32 // of each end, the sequence number after all it has sent
	edge   [2]atomic.Uint32 // of each end, the first sequence number that it may not send
	window [2]atomic.Uint32 // of each end, the largest window it offered, in bytes; not 0
	scales atomic.Uint32    // window scale of the client, and of the server in the next byte; see noScale
}

// noScale stands for the scale of an end whose SYN had no such option. Windows
// are scaled only if both had. (RFC 7323, section 2.2.)
const noScale = 0xff

// maxScale is the largest shift of a window. (RFC 7323, section 2.3.)
const maxScale = 14

// minAckWindow is how far behind an acknowledgement may be, in bytes, if no
// larger window was offered.
const minAckWindow = 66_000

const (
	tcpAnswered uint32 = 1 << iota // the server's SYN-ACK
	tcpUp                          // the client's answer to it
	tcpClientFIN
	tcpServerFIN
	tcpClientFINAcked
	tcpServerFINAcked
	tcpClientData
	tcpServerData
	tcpReset
	tcpHello // the client's SYN
	tcpStale // a bare ACK of the server before its SYN-ACK
)

// tcpFINs is both ends' FIN, acknowledged: the regular end.
const tcpFINs = tcpClientFINAcked | tcpServerFINAcked

// update notes p, which from sent, and returns the bits that p added and all
// bits. It refuses what cannot be part of the handshake: before the server's
// SYN-ACK, data of the server or anything but SYN and RST of the client. A bare
// ACK of the server passes: it is how a server that still holds an older
// connection of the same ports asks for the RST that ends it, which passes too
// and does not end this one. (RFC 9293, section 3.10.7.3.) After the handshake
// it refuses what is outside the windows.
func (s *tcpState) update(p *stack.Packet, from End) (added, all uint32, v stack.Verdict) {
	const synAck = stack.FlagSYN | stack.FlagACK
	flags := p.TCPFlags()
	seen := s.seen.Load()
	data := uint32(len(p.Payload()))
	var add uint32

	switch {
	case seen&tcpAnswered == 0:
		if add, v = s.greet(p, from, flags, data); v != stack.Forward || add&tcpReset != 0 {
			return s.addFor(seen, add, v)
		}
	case flags&stack.FlagRST != 0:
		if !s.near(p.TCPSeq(), from) {
			return 0, seen, stack.DropTCPReset
		}
		return s.add(seen, tcpReset)
	default:
		if v = s.fits(p, from, flags, data); v != stack.Forward {
			return 0, seen, v
		}
		if from == Client && flags&synAck == stack.FlagACK {
			add |= tcpUp
		}
	}
	if flags&stack.FlagRST != 0 {
		return s.add(seen, add)
	}
	if data > 0 {
		add |= tcpClientData << from
	}
	if flags&stack.FlagFIN != 0 && seen&tcpAnswered != 0 {
		s.fin[from].Store(p.TCPSeq() + data + 1)
		add |= tcpClientFIN << from
	}
	if other := from.Other(); flags&stack.FlagACK != 0 && seen&(tcpClientFIN<<other) != 0 &&
		int32(p.TCPAck()-s.fin[other].Load()) >= 0 {
		add |= tcpClientFINAcked << other
	}
	return s.add(seen, add)
}

// greet checks a packet before the server's SYN-ACK, which it knows when it
// comes.
func (s *tcpState) greet(p *stack.Packet, from End, flags uint8, data uint32) (add uint32, v stack.Verdict) {
	const synAck = stack.FlagSYN | stack.FlagACK
	seq, ack := p.TCPSeq(), p.TCPAck()
	switch {
	case from == Client && flags&stack.FlagRST != 0:
		switch {
		case seq == s.end[Client].Load():
			return tcpReset, stack.Forward
		case s.seen.Load()&tcpStale != 0 && seq == s.end[Server].Load():
			return 0, stack.Forward // to the older connection
		}
		return 0, stack.DropTCPReset
	case flags&stack.FlagRST != 0:
		if flags&stack.FlagACK == 0 || ack != s.end[Client].Load() {
			return 0, stack.DropTCPReset
		}
		return tcpReset, stack.Forward
	case from == Client:
		if flags&synAck != stack.FlagSYN {
			return 0, stack.DropTCPState
		}
		// The first, that again, or that of a client that gave up and begins
		// anew: until the server answers it is the last that counts.
		end := seq + 1 + data
		s.end[Client].Store(end)
		s.edge[Client].Store(seq + 1) // the least that the server may acknowledge
		s.window[Client].Store(max(1, uint32(p.TCPWindow())))
		s.window[Server].Store(1)
		s.scales.Store(noScale<<8 | uint32(windowScale(p)))
		return tcpHello, stack.Forward
	case flags&synAck == synAck:
		if int32(ack-s.end[Client].Load()) > 0 || int32(ack-s.edge[Client].Load()) < 0 {
			return 0, stack.DropTCPAck
		}
		end, window := seq+1+data, max(1, uint32(p.TCPWindow()))
		s.end[Server].Store(end)
		s.edge[Server].Store(seq + 1 + s.window[Client].Load())
		s.window[Server].Store(window)
		raise(&s.edge[Client], ack+window)
		scales := s.scales.Load()&0xff | uint32(windowScale(p))<<8
		s.scales.Store(scales)
		return tcpAnswered, stack.Forward
	case data > 0 || flags&stack.FlagACK == 0:
		return 0, stack.DropTCPState
	}
	s.end[Server].Store(ack) // where the client's RST will be
	return tcpStale, stack.Forward
}

// fits checks a packet, not RST, after the server's SYN-ACK, and moves the
// windows.
func (s *tcpState) fits(p *stack.Packet, from End, flags uint8, data uint32) stack.Verdict {
	other := from.Other()
	seq := p.TCPSeq()
	next := seq + data
	if flags&(stack.FlagSYN|stack.FlagFIN) != 0 {
		if flags&stack.FlagSYN != 0 {
			// That of the handshake again, and no other.
			if from == Client && flags&stack.FlagACK != 0 || from == Server && flags&stack.FlagACK == 0 {
				return stack.DropTCPState
			}
			if !s.near(seq, from) {
				return stack.DropTCPSYN
			}
			return stack.Forward
		}
		next++
	}
	end := s.end[from].Load()
	if int32(seq-s.edge[from].Load()) > 0 || int32(end-next) > int32(s.window[other].Load()+1) {
		return stack.DropTCPSequence
	}
	if flags&stack.FlagACK == 0 {
		return stack.DropTCPAck // RFC 9293, section 3.10.7.4: every segment has one by now
	}
	ack, window := p.TCPAck(), uint32(p.TCPWindow())
	if scales := s.scales.Load(); scales&0xff != noScale && scales>>8 != noScale {
		window <<= scales >> (8 * from) & 0xff
	}
	sent := s.end[other].Load()
	if int32(ack-sent) > 0 || int32(sent-ack) > int32(max(s.window[from].Load(), minAckWindow)) {
		return stack.DropTCPAck
	}
	if int32(next-end) > 0 {
		raise(&s.end[from], next)
	}
	if window > s.window[from].Load() {
		s.window[from].Store(window)
	}
	if int32(ack+window-s.edge[other].Load()) > 0 {
		raise(&s.edge[other], ack+window)
	}
	return stack.Forward
}

// near reports whether the sequence number seq is one that from may send now,
// or may have sent a window ago.
func (s *tcpState) near(seq uint32, from End) bool {
	back := s.window[from.Other()].Load() + 1
	return int32(seq-s.edge[from].Load()) <= 0 && int32(s.end[from].Load()-seq) <= int32(back)
}

// raise lifts the sequence number in a to n, if it is before n.
func raise(a *atomic.Uint32, n uint32) {
	for {
		was := a.Load()
		if int32(n-was) <= 0 || a.CompareAndSwap(was, n) {
			return
		}
	}
}

// optWindowScale is the TCP option of that name, 3 bytes with its kind and
// length. (RFC 7323, section 2.2.)
const optWindowScale = 3

// windowScale returns the shift that the SYN p offers for windows to come, or
// noScale.
func windowScale(p *stack.Packet) uint8 {
	seg := p.Transport()
	opts := seg[20 : len(seg)-len(p.Payload())] // after the fixed header; RFC 9293, section 3.1
	for len(opts) > 0 {
		switch opts[0] {
		case 0: // end of options
			return noScale
		case 1: // no operation
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return noScale
		}
		if opts[0] == optWindowScale && opts[1] == 3 {
			return min(opts[2], maxScale)
		}
		opts = opts[opts[1]:]
	}
	return noScale
}

// addFor is add with a verdict.
func (s *tcpState) addFor(seen, add uint32, v stack.Verdict) (added, all uint32, _ stack.Verdict) {
	if v != stack.Forward {
		return 0, seen, v
	}
	return s.add(seen, add)
}

// add sets the bits of add that seen lacks.
func (s *tcpState) add(seen, add uint32) (added, all uint32, v stack.Verdict) {
	if add&^seen == 0 {
		return 0, seen, stack.Forward
	}
	old := s.seen.Or(add)
	return add &^ old, old | add, stack.Forward
}

// tcpOver reports whether the connection has ended.
func tcpOver(seen uint32) bool {
	return seen&tcpReset != 0 || seen&tcpFINs == tcpFINs
}

// tcpFlags returns the letters of "show conn" for what has been seen. inbound
// says that the client is on the side of the lower security level, which the
// ASA calls outside. mark is the letters of an inspection.
// (reference/asa-cli-show-debug.md, section 2.7.)
func tcpFlags(seen uint32, inbound bool, mark string) string {
	var b []byte
	inside := Client
	if inbound {
		inside = Server
	}
	outside := inside.Other()
	letter := func(yes bool, l byte) {
		if yes {
			b = append(b, l)
		}
	}
	fin := func(e End) bool { return seen&(tcpClientFIN<<e) != 0 }
	acked := func(e End) bool { return seen&(tcpClientFINAcked<<e) != 0 } // the FIN of e
	switch {
	case seen&tcpUp != 0:
		b = append(b, 'U')
		letter(fin(inside), 'f')
		letter(fin(outside), 'F')
		letter(acked(inside), 'R')
		letter(acked(outside), 'r')
	case seen&tcpAnswered != 0: // awaiting the client's ACK
		letter(inbound, 'a')
		letter(!inbound, 'A')
	default: // awaiting the server's SYN, and ACKs of both
		letter(inbound, 'S')
		letter(!inbound, 's')
		b = append(b, "aA"...)
	}
	b = append(b, mark...)
	letter(seen&(tcpClientData<<outside) != 0, 'I')
	letter(seen&(tcpClientData<<inside) != 0, 'O')
	letter(inbound, 'B')
	return string(b)
}
