package nat

import (
	"time"

	"patchbay/stack"
)

// Permit says whether the list lets the first packet of f pass, and counts a
// hit on the entry that decided; nil is the implicit deny at the end. Both
// addresses of f are real. icmpType is looked at for ICMP only. It does not
// know the time; see Decide.
func (l *AccessList) Permit(f stack.Flow, icmpType uint8) (bool, *Entry) {
	return l.Decide(&Query{Flow: f, ICMPType: icmpType})
}

// PermitAt is Permit for a packet of the given time.
func (l *AccessList) PermitAt(now time.Time, f stack.Flow, icmpType uint8) (bool, *Entry) {
	return l.Decide(&Query{Flow: f, ICMPType: icmpType, Time: now})
}

// Decide says whether the list lets the packet of q pass, and counts a hit on
// the entry that decided; nil is the implicit deny at the end.
func (l *AccessList) Decide(q *Query) (bool, *Entry) {
	e := l.Find(q)
	if e == nil {
		return false, nil
	}
	e.Hit(&q.Flow)
	return e.Permit, e
}

// Match returns the entry that decides about f, or nil, and counts nothing. It
// does not know the time; see Find.
func (l *AccessList) Match(f stack.Flow, icmpType uint8) *Entry {
	return l.Find(&Query{Flow: f, ICMPType: icmpType})
}
