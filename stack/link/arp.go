package link

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// An ARP message for IPv4 on Ethernet. (RFC 826.)
//
//	0        2        4    5    6           8            14          18           24          28
//	+--------+--------+----+----+-----------+------------+-----------+------------+-----------+
//	|   1    |  0800  | 6  | 4  | operation | sender MAC | sender IP | target MAC | target IP |
//	+--------+--------+----+----+-----------+------------+-----------+------------+-----------+
const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2
)

// arpStart is how every message here begins.
var arpStart = [6]byte{0, 1, 0x08, 0x00, 6, 4}

const (
	maxNeighbours = 4096 // addresses known or asked for
	maxUnresolved = 256  // of them without an answer
	maxPending    = 3    // packets that wait for one neighbour

	arpRetry    = time.Second     // between requests for one address
	arpWindow   = 3 * time.Second // how long a request can be answered and a packet waits
	arpRefresh  = 4 * time.Minute // age at which a neighbour in use is asked again
	arpLifetime = 5 * time.Minute // age at which it is forgotten
)

// A neighbour is an address on the link.
type neighbour struct {
	mac     MAC
	known   bool
	since   time.Time // when mac was last confirmed
	asked   time.Time // when we last sent a request; zero: never
	first   time.Time // when an unanswered row of requests began
	pending []waiting // only while not known
}

// A waiting is a frame that lacks its destination address.
type waiting struct {
	frame []byte
	since time.Time
}

// neighbours is the ARP cache.
type neighbours struct {
	m          map[netip.Addr]*neighbour
	unresolved int // entries that are not known
	swept      time.Time
}

// resolveLocked returns the MAC address of hop. If it is not known, it keeps a
// copy of frame for when it is, and asks.
func (e *Ethernet) resolveLocked(hop netip.Addr, a *addrs, frame []byte, now time.Time) (mac MAC, known bool) {
	n := e.neighbours.m[hop]
	if n != nil && n.known {
		age := now.Sub(n.since)
		if age < arpRefresh {
			return n.mac, true
		}
		if age < arpLifetime && a.onLink(hop) {
			if now.Sub(n.asked) >= arpRetry {
				e.askLocked(n, n.mac, hop, a, now)
			}
			return n.mac, true
		}
		n.known, n.first = false, now
		e.neighbours.unresolved++
	}
	if !a.onLink(hop) {
		e.drop(NoAdjacency)
		return MAC{}, false
	}
	if n == nil {
		if n = e.insertLocked(hop, now); n == nil {
			e.drop(NoAdjacency)
			return MAC{}, false
		}
		n.first = now
	}
	e.lapseLocked(n, now)
	if len(n.pending) == maxPending {
		e.drop(NoAdjacency) // the oldest
		n.pending = append(n.pending[:0], n.pending[1:]...)
	}
	w := waiting{bytes.Clone(frame), now}
	e.putHeader(w.frame, MAC{}, typeIPv4)
	n.pending = append(n.pending, w)
	if now.Sub(n.asked) >= arpRetry || n.asked.IsZero() {
		e.askLocked(n, broadcast, hop, a, now)
	}
	return MAC{}, false
}

// A Neighbour is a station on the link whose address is known.
type Neighbour struct {
	Addr netip.Addr
	MAC  MAC
	Age  time.Duration // since it was last confirmed
}

// Neighbours returns those that are known, by address.
func (e *Ethernet) Neighbours() []Neighbour {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	var all []Neighbour
	for addr, n := range e.neighbours.m {
		if age := now.Sub(n.since); n.known && age < arpLifetime {
			all = append(all, Neighbour{addr, n.mac, max(0, age)})
		}
	}
	slices.SortFunc(all, func(a, b Neighbour) int { return a.Addr.Compare(b.Addr) })
	return all
}

// ForgetNeighbours forgets those that are known, so that they are asked again
// when they are needed. It returns how many.
func (e *Ethernet) ForgetNeighbours() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	count := 0
	for addr, n := range e.neighbours.m {
		if n.known {
			delete(e.neighbours.m, addr)
			count++
		}
	}
	return count
}

// insertLocked adds an entry for addr that is not known yet. It returns nil if
// there is no room.
func (e *Ethernet) insertLocked(addr netip.Addr, now time.Time) *neighbour {
	t := &e.neighbours
	if t.m == nil {
		t.m = make(map[netip.Addr]*neighbour)
	}
	if (len(t.m) >= maxNeighbours || t.unresolved >= maxUnresolved) && now.Sub(t.swept) >= arpRetry {
		t.swept = now
		e.sweepLocked(now)
	}
	if len(t.m) >= maxNeighbours || t.unresolved >= maxUnresolved {
		return nil
	}
	n := &neighbour{}
	t.m[addr] = n
	t.unresolved++
	return n
}

// sweepLocked forgets the neighbours that are too old and those that have not
// answered.
func (e *Ethernet) sweepLocked(now time.Time) {
	for addr, n := range e.neighbours.m {
		switch {
		case n.known && now.Sub(n.since) >= arpLifetime:
		case !n.known && now.Sub(n.first) >= arpWindow:
			e.lapseLocked(n, now)
			if len(n.pending) > 0 {
				continue // somebody still wants it
			}
			e.neighbours.unresolved--
		default:
			continue
		}
		delete(e.neighbours.m, addr)
	}
}

// lapseLocked drops what has waited too long for n.
func (e *Ethernet) lapseLocked(n *neighbour, now time.Time) {
	k := 0
	for k < len(n.pending) && now.Sub(n.pending[k].since) >= arpWindow {
		e.drop(NoAdjacency)
		k++
	}
	n.pending = append(n.pending[:0], n.pending[k:]...)
}

// askLocked adds a request for addr, to the station dst, to what is written
// next.
func (e *Ethernet) askLocked(n *neighbour, dst MAC, addr netip.Addr, a *addrs, now time.Time) {
	n.asked = now
	e.frames = append(e.frames, e.arp(arpRequest, dst, a.own.Addr(), MAC{}, addr))
}

// arp returns a frame to dst with an ARP message from us as sender.
func (e *Ethernet) arp(op uint16, dst MAC, sender netip.Addr, targetMAC MAC, target netip.Addr) []byte {
	b := make([]byte, e.headerLen(), tagged+arpLen)
	e.putHeader(b, dst, typeARP)
	s, t := sender.As4(), target.As4()
	b = append(b, arpStart[:]...)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(b, e.mac[:]...)
	b = append(b, s[:]...)
	b = append(b, targetMAC[:]...)
	return append(b, t[:]...)
}

// takeARP deals with the ARP message b of a frame to dst. It answers requests
// for our addresses. It learns from answers to our own requests and from
// requests sent to us alone, and from stations on our subnet only, so that an
// announcement to all, which anybody can make, changes nothing.
//
// A neighbour that is known is confirmed or forgotten, never changed: somebody
// else who says that he has the address only makes us ask the one we know, and
// what he answers to that is not for us to believe. If the one we know is gone,
// we ask all.
func (e *Ethernet) takeARP(b []byte, dst MAC, now time.Time) {
	if len(b) < arpLen || [6]byte(b) != arpStart {
		e.drop(Malformed)
		return
	}
	op := binary.BigEndian.Uint16(b[6:])
	senderMAC, targetMAC := MAC(b[8:]), MAC(b[18:])
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if senderMAC.group() || senderMAC == (MAC{}) || senderMAC == e.mac {
		e.drop(Malformed)
		return
	}
	a := e.addrs.Load()
	if !a.own.IsValid() {
		return // nobody yet
	}
	if sender == target { // an announcement
		e.mu.Lock()
		defer e.mu.Unlock()
		e.disputeLocked(sender, senderMAC, a, now)
		return
	}
	onLink := a.onLink(sender) && !a.answers(sender)

	e.mu.Lock()
	defer e.mu.Unlock()
	e.disputeLocked(sender, senderMAC, a, now)
	switch {
	case op == arpReply && dst == e.mac && targetMAC == e.mac && target == a.own.Addr() && onLink:
		n := e.neighbours.m[sender]
		if n != nil && !n.asked.IsZero() && now.Sub(n.asked) < arpWindow && (!n.known || n.mac == senderMAC) {
			e.learnLocked(n, senderMAC, now)
		}
	case op == arpRequest && (onLink || sender.IsUnspecified()) && a.answers(target):
		if onLink && target == a.own.Addr() {
			e.askedByLocked(sender, senderMAC, dst == e.mac, a, now)
		}
		e.frames = append(e.frames, e.arp(arpReply, senderMAC, target, senderMAC, sender))
	}
	// An error here is one that the next Read or Write will meet, too.
	_, _ = e.writeLocked()
}

// askedByLocked notes that addr, with the address mac, has asked for us; alone
// says that it asked nobody else.
func (e *Ethernet) askedByLocked(addr netip.Addr, mac MAC, alone bool, a *addrs, now time.Time) {
	n := e.neighbours.m[addr]
	switch {
	case n != nil && n.known && n.mac != mac:
		if now.Sub(n.asked) >= arpRetry {
			e.askLocked(n, n.mac, addr, a, now)
			// It has as long as for any other request.
			if last := now.Add(arpWindow - arpLifetime); n.since.After(last) {
				n.since = last
			}
		}
	case !alone:
	case n == nil:
		if n = e.insertLocked(addr, now); n != nil {
			e.learnLocked(n, mac, now)
		}
	default:
		e.learnLocked(n, mac, now)
	}
}

// learnLocked makes mac the address of n and sends what waits for it.
func (e *Ethernet) learnLocked(n *neighbour, mac MAC, now time.Time) {
	if !n.known {
		n.known = true
		e.neighbours.unresolved--
	}
	n.mac, n.since, n.asked = mac, now, time.Time{}
	e.lapseLocked(n, now)
	for _, w := range n.pending {
		copy(w.frame, mac[:])
		e.frames = append(e.frames, w.frame)
		e.out(1, len(w.frame)-e.headerLen())
	}
	n.pending = nil
}
