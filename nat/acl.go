package nat

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"patchbay/stack"
)

// An AccessList is the entries of one access-list in order. The first that
// matches decides, and none means deny. It does not change but for its hit
// counts, and any number of goroutines may ask it.
type AccessList struct {
	Name    string
	Entries []*Entry
}

// PortRange is the ports From to To, both included.
type PortRange struct{ From, To uint16 }

// An Entry is one line of an access-list. An empty list of objects or ports is
// any. Addresses are real ones, of source and destination, as on the ASA from
// release 8.3 on. (reference/asa-cli.md, section 6.)
type Entry struct {
	Permit             bool
	Proto              stack.Proto // 0: ip, every protocol
	Src, Dst           []Object
	SrcPorts, DstPorts []PortRange // for TCP and UDP only
	ICMPType           *uint8      // nil: every type

	Log      bool   // "log": the caller logs each hit
	Inactive bool   // "inactive": matches nothing
	Text     string // the line, for "show access-list" and the trace

	hits atomic.Uint64
}

// Hits returns how many first packets e decided about.
func (e *Entry) Hits() uint64 { return e.hits.Load() }

// ClearHits sets the hit count to 0.
func (e *Entry) ClearHits() { e.hits.Store(0) }

// Permit says whether the list lets the first packet of f pass, and counts a
// hit on the entry that decided; nil is the implicit deny at the end. Both
// addresses of f are real. icmpType is looked at for ICMP only.
func (l *AccessList) Permit(f stack.Flow, icmpType uint8) (bool, *Entry) {
	e := l.Match(f, icmpType)
	if e == nil {
		return false, nil
	}
	e.hits.Add(1)
	return e.Permit, e
}

// Match returns the entry that decides about f, or nil, and counts nothing.
func (l *AccessList) Match(f stack.Flow, icmpType uint8) *Entry {
	for _, e := range l.Entries {
		if e.matches(f, icmpType) {
			return e
		}
	}
	return nil
}

func (e *Entry) matches(f stack.Flow, icmpType uint8) bool {
	if e.Inactive || e.Proto != 0 && e.Proto != f.Proto {
		return false
	}
	if !anyContains(e.Src, f.Src.Addr()) || !anyContains(e.Dst, f.Dst.Addr()) {
		return false
	}
	switch f.Proto {
	case stack.TCP, stack.UDP:
		return portIn(e.SrcPorts, f.Src.Port()) && portIn(e.DstPorts, f.Dst.Port())
	case stack.ICMP:
		return e.ICMPType == nil || *e.ICMPType == icmpType
	}
	return true
}

func anyContains(objects []Object, a netip.Addr) bool {
	return len(objects) == 0 ||
		slices.ContainsFunc(objects, func(o Object) bool { return o.Contains(a) })
}

func portIn(ranges []PortRange, port uint16) bool {
	return len(ranges) == 0 ||
		slices.ContainsFunc(ranges, func(r PortRange) bool { return r.From <= port && port <= r.To })
}

// Levels decides by security level where no access list does. The fields are
// the two forms of same-security-traffic; the zero Levels has both off, as the
// ASA does. (reference/asa-cli.md, section 3.)
type Levels struct {
	Inter bool // permit inter-interface: between interfaces of the same level
	Intra bool // permit intra-interface: out by the interface it came in by
}

// Permit says Forward for traffic from a higher level to a lower one and for
// same-level traffic that l allows, and else DropSecurityLevel.
func (l Levels) Permit(in, out *stack.Interface) stack.Verdict {
	allowed := in.Level > out.Level
	switch {
	case in == out:
		allowed = l.Intra
	case in.Level == out.Level:
		allowed = l.Inter
	}
	if !allowed {
		return stack.DropSecurityLevel
	}
	return stack.Forward
}
