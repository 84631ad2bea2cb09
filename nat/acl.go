package nat

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// An AccessList is the entries of one access-list in order. The first that
// matches decides, and none means deny. It does not change but for its hit
// counts, and any number of goroutines may ask it. Entries must not be changed
// after the first question or Compile.
type AccessList struct {
	Name    string
	Entries []*Entry

	index atomic.Pointer[aclIndex] // nil: not made yet
}

// NewAccessList returns a compiled list of the entries, which it keeps.
func NewAccessList(name string, entries []*Entry) *AccessList {
	l := &AccessList{Name: name, Entries: entries}
	for _, e := range entries {
		e.countElements()
	}
	l.Compile()
	return l
}

// Inherit takes over the hit counts of entries that old has by the same text.
// It must be called before l is in use.
func (l *AccessList) Inherit(old *AccessList) {
	hits := make(map[string][]*Entry, len(old.Entries)) // of one text in order
	for _, e := range old.Entries {
		hits[e.Text] = append(hits[e.Text], e)
	}
	for _, e := range l.Entries {
		if was := hits[e.Text]; len(was) > 0 {
			e.takeHits(was[0])
			hits[e.Text] = was[1:]
		}
	}
}

// PortRange is the ports From to To, both included.
type PortRange struct{ From, To uint16 }

// Contains reports whether port is in r.
func (r PortRange) Contains(port uint16) bool { return r.From <= port && port <= r.To }

// An Entry is one line of an access-list. An empty list of objects or ports is
// any. Addresses are real ones, of source and destination, as on the ASA from
// release 8.3 on. (reference/asa-cli.md, section 6.)
type Entry struct {
	Permit             bool
	Proto              stack.Proto // 0: ip, every protocol
	Src, Dst           []Object
	SrcPorts, DstPorts []PortRange // for TCP and UDP only
	ICMPType           *uint8      // nil: every type
	ICMPCode           *uint8      // nil: every code

	Log         bool          // "log": the caller logs hits
	LogLevel    int           // "log LEVEL": syslog severity
	LogInterval time.Duration // "interval": between two messages
	Inactive    bool          // "inactive": matches nothing
	When        *TimeRange    // "time-range": matches at these times only; nil: always
	Text        string        // the line, for "show access-list" and the trace

	hits     atomic.Uint64
	elements []atomic.Uint64 // by Element; nil: there is one, or too many
}

// Hits returns how many first packets e decided about.
func (e *Entry) Hits() uint64 { return e.hits.Load() }

// Active reports whether e matches anything at now: it is not inactive, and
// its time range, if it has one, holds now.
func (e *Entry) Active(now time.Time) bool {
	return !e.Inactive && (e.When == nil || e.When.Active(now))
}

// A Query is what an access list is asked about: the first packet of Flow,
// both addresses real. Type and code are looked at for ICMP only, Time (of the
// packet) by entries with a time range; at the zero Time those match nothing.
type Query struct {
	Flow               stack.Flow
	ICMPType, ICMPCode uint8
	Time               time.Time
}

// maxLinear is the number of entries up to which looking at one after the
// other is faster than the index.
const maxLinear = 8

// Find returns the entry that decides about q, or nil, and counts nothing. Its
// cost hardly grows with the list. A long list that has not been compiled is
// compiled by the first Find. It allocates nothing else.
func (l *AccessList) Find(q *Query) *Entry {
	x := l.index.Load()
	if x == nil {
		if len(l.Entries) > maxLinear {
			l.Compile()
			return l.Find(q)
		}
	} else if q.Flow.Src.Addr().Is4() && q.Flow.Dst.Addr().Is4() {
		return x.find(l.Entries, q)
	}
	for _, e := range l.Entries {
		if e.matches(q) {
			return e
		}
	}
	return nil
}

// matches is the obvious meaning of e; aclIndex is the fast one.
func (e *Entry) matches(q *Query) bool {
	f := &q.Flow
	if e.Proto != 0 && e.Proto != f.Proto {
		return false
	}
	if !anyContains(e.Src, f.Src.Addr()) || !anyContains(e.Dst, f.Dst.Addr()) {
		return false
	}
	switch f.Proto {
	case stack.TCP, stack.UDP:
		if !portIn(e.SrcPorts, f.Src.Port()) || !portIn(e.DstPorts, f.Dst.Port()) {
			return false
		}
	case stack.ICMP:
		if e.ICMPType != nil && *e.ICMPType != q.ICMPType {
			return false
		}
	}
	return e.rest(q)
}

// rest is the part of matches that is not in the index.
func (e *Entry) rest(q *Query) bool {
	if q.Flow.Proto == stack.ICMP && e.ICMPCode != nil && *e.ICMPCode != q.ICMPCode {
		return false
	}
	return !e.Inactive && (e.When == nil || e.When.Active(q.Time))
}

func anyContains(objects []Object, a netip.Addr) bool {
	return len(objects) == 0 ||
		slices.ContainsFunc(objects, func(o Object) bool { return o.Contains(a) })
}

func portIn(ranges []PortRange, port uint16) bool {
	return len(ranges) == 0 ||
		slices.ContainsFunc(ranges, func(r PortRange) bool { return r.Contains(port) })
}

// An aclIndex finds the first of many entries by one dimension for each field.
type aclIndex struct {
	proto, src, dst  dimension
	srcPort, dstPort dimension
	icmpType         dimension
}

// Compile makes the index of a list that is too long to be looked at entry by
// entry. To call it before the first question spares that one the wait;
// calling it again does nothing.
func (l *AccessList) Compile() {
	n := len(l.Entries)
	if n <= maxLinear || n > maxThings || l.index.Load() != nil {
		return
	}
	make1 := func(spans func(e *Entry) []span) dimension {
		return newDimension(n, func(i int) []span { return spans(l.Entries[i]) })
	}
	l.index.CompareAndSwap(nil, &aclIndex{
		proto: make1(func(e *Entry) []span {
			switch {
			case e.Inactive:
				return []span{} // never
			case e.Proto == 0:
				return nil
			}
			return []span{{uint32(e.Proto), uint32(e.Proto)}}
		}),
		src:     make1(func(e *Entry) []span { return addressSpans(e.Src) }),
		dst:     make1(func(e *Entry) []span { return addressSpans(e.Dst) }),
		srcPort: make1(func(e *Entry) []span { return portSpans(e.SrcPorts) }),
		dstPort: make1(func(e *Entry) []span { return portSpans(e.DstPorts) }),
		icmpType: make1(func(e *Entry) []span {
			if e.ICMPType == nil {
				return nil
			}
			return []span{{uint32(*e.ICMPType), uint32(*e.ICMPType)}}
		}),
	})
}

func (x *aclIndex) find(entries []*Entry, q *Query) *Entry {
	var c cursor
	f := &q.Flow
	c.by(&x.dst, number(f.Dst.Addr())) // what tells most entries apart comes first
	switch f.Proto {
	case stack.TCP, stack.UDP:
		c.by(&x.dstPort, uint32(f.Dst.Port()))
		c.by(&x.src, number(f.Src.Addr()))
		c.by(&x.srcPort, uint32(f.Src.Port()))
	case stack.ICMP:
		c.by(&x.icmpType, uint32(q.ICMPType))
		fallthrough
	default:
		c.by(&x.src, number(f.Src.Addr()))
	}
	c.by(&x.proto, uint32(f.Proto))
	c.begin()
	for i := c.next(); i >= 0; i = c.next() {
		if entries[i].rest(q) {
			return entries[i]
		}
	}
	return nil
}

// addressSpans returns the IPv4 addresses of objects; nil is any.
func addressSpans(objects []Object) []span {
	if len(objects) == 0 {
		return nil
	}
	spans := []span{}
	for _, o := range objects {
		if o.IsAny() {
			return nil
		}
		if s, ok := o.span(); ok {
			spans = append(spans, s)
		}
	}
	return spans
}

func portSpans(ranges []PortRange) []span {
	if len(ranges) == 0 {
		return nil
	}
	spans := []span{}
	for _, r := range ranges {
		if r.From <= r.To {
			spans = append(spans, span{uint32(r.From), uint32(r.To)})
		}
	}
	return spans
}

// Levels decides by security level where no access list does. The fields are
// the two forms of same-security-traffic; the zero Levels has both off, as the
// ASA does. (reference/asa-cli.md, section 3.)
type Levels struct {
	Inter bool // permit inter-interface: between interfaces of the same level
	Intra bool // permit intra-interface: out by the interface it came in by
}

// Same reports whether in and out are one interface or of one level, and l does
// not allow that.
func (l Levels) Same(in, out *stack.Interface) bool {
	if in == out {
		return !l.Intra
	}
	return in.Level == out.Level && !l.Inter
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
