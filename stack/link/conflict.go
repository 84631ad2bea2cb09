package link

import (
	"net/netip"
	"slices"
	"time"
)

// maxConflicts bounds the addresses whose conflicts are remembered.
const maxConflicts = 64

// A Conflict is an address of the box, or one that it stands in for, that another
// station on the link uses. (RFC 5227, section 2.4.)
type Conflict struct {
	Addr netip.Addr
	MAC  MAC           // of the other
	Age  time.Duration // since it was last seen to
	Seen int           // how often
}

// conflict is a Conflict with its time.
type conflict struct {
	mac  MAC
	last time.Time
	seen int
}

// Conflicts returns those seen so far, by address.
func (e *Ethernet) Conflicts() []Conflict {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	var all []Conflict
	for addr, c := range e.conflicts {
		all = append(all, Conflict{addr, c.mac, max(0, now.Sub(c.last)), c.seen})
	}
	slices.SortFunc(all, func(a, b Conflict) int { return a.Addr.Compare(b.Addr) })
	return all
}

// Probe asks the stations on the link for addr without saying who asks. Whoever
// uses an address that the box answers for shows as a Conflict as soon as it has
// answered. (RFC 5227, section 2.1.1.)
func (e *Ethernet) Probe(addr netip.Addr) error {
	if !addr.Is4() {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frames = append(e.frames, e.arp(arpRequest, broadcast, netip.IPv4Unspecified(), MAC{}, addr))
	_, err := e.writeLocked()
	return err
}

// disputeLocked notes that the station mac says that it is sender, if the box
// says so too.
func (e *Ethernet) disputeLocked(sender netip.Addr, mac MAC, a *addrs, now time.Time) {
	if sender.IsUnspecified() || !a.answers(sender) {
		return
	}
	c := e.conflicts[sender]
	switch {
	case c != nil:
	case len(e.conflicts) >= maxConflicts:
		return
	default:
		if e.conflicts == nil {
			e.conflicts = make(map[netip.Addr]*conflict)
		}
		c = &conflict{}
		e.conflicts[sender] = c
	}
	c.mac, c.last = mac, now
	c.seen++
}
