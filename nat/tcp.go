package nat

import (
	"sync/atomic"

	"patchbay/stack"
)

// tcpState is what we know of a TCP connection from its packets: enough for
// the timeouts and for "show conn". Packets of both ends may update it at once.
type tcpState struct {
	seen atomic.Uint32    // what has been seen, the bits below
	fin  [2]atomic.Uint32 // of each end, the sequence number after its FIN
}

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
)

// tcpFINs is both ends' FIN, acknowledged: the regular end.
const tcpFINs = tcpClientFINAcked | tcpServerFINAcked

// update notes p, which from sent, and returns the bits that p added and all
// bits. It refuses what cannot be part of the handshake: before the server's
// SYN-ACK, data of the server or anything but SYN and RST of the client. A bare
// ACK of the server passes: it is how a server that still holds an older
// connection of the same ports asks for the RST that ends it. (RFC 9293,
// section 3.10.7.4.)
func (s *tcpState) update(p *stack.Packet, from End) (added, all uint32, v stack.Verdict) {
	flags := p.TCPFlags()
	seen := s.seen.Load()
	data := len(p.Payload())
	var add uint32

	switch {
	case flags&stack.FlagRST != 0:
		return s.add(seen, tcpReset)
	case from == Server && flags&(stack.FlagSYN|stack.FlagACK) == stack.FlagSYN|stack.FlagACK:
		add |= tcpAnswered
	case seen&tcpAnswered == 0:
		if from == Client && flags&stack.FlagSYN == 0 || from == Server && data > 0 {
			return 0, seen, stack.DropTCPState
		}
	case from == Client && flags&(stack.FlagSYN|stack.FlagACK) == stack.FlagACK:
		add |= tcpUp
	}
	if data > 0 {
		add |= tcpClientData << from
	}
	if flags&stack.FlagFIN != 0 && seen&tcpAnswered != 0 {
		s.fin[from].Store(p.TCPSeq() + uint32(data) + 1)
		add |= tcpClientFIN << from
	}
	if other := from.Other(); flags&stack.FlagACK != 0 && seen&(tcpClientFIN<<other) != 0 &&
		int32(p.TCPAck()-s.fin[other].Load()) >= 0 {
		add |= tcpClientFINAcked << other
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
