package nat

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"patchbay/stack"
)

// An Xlate is a translation in use, for "show xlate".
type Xlate struct {
	Rule  *Rule
	Proto stack.Proto // 0: every protocol; also of an address of dynamic NAT

	// Real is behind From, Mapped is what To knows it by. A static rule of
	// several addresses has one Xlate, with the first of each. Port 0 is
	// every port, but for an ICMP identifier.
	From, To     *stack.Interface
	Real, Mapped netip.AddrPort

	Extended bool // for one peer only, which Conns talk to

	Conns int       // connections that use it
	Seen  time.Time // when one last did; zero: none does

	// Until is when a translation that no connection uses any more is
	// forgotten; zero for others. (timeout xlate, pat-xlate.)
	Until time.Time
}

// Flags returns the letters of "show xlate": "s" for static, "r" for portmap,
// "i" for dynamic, "e" for extended, "I" for identity, "T" for twice.
// (reference/asa-cli-show-debug.md, section 2.8.)
func (x Xlate) Flags() string {
	s := "s"
	if x.Rule.Kind == Dynamic {
		if s = "ri"; x.Proto == 0 {
			s = "i"
		}
		if x.Extended {
			s += "e"
		}
	} else if x.Rule.Service != 0 {
		s = "sr"
	}
	if x.Rule.Kind == Identity {
		s += "I"
	}
	if x.Rule.Section != AutoSection {
		s += "T"
	}
	return s
}

// Xlates returns the translations of rs: each static rule's, used or not, in
// order of search, then each port or address of a dynamic rule in use, in order
// of the oldest connection that uses it, and then those that linger in
// TableConfig.PAT, in the order in which they are forgotten.
func (t *Table) Xlates(rs *Rules) []Xlate {
	var all []Xlate
	static := make(map[*Rule]int)
	for _, r := range rs.rules {
		if r.Kind == Dynamic {
			continue
		}
		static[r] = len(all)
		x := Xlate{Rule: r, Proto: r.Service, From: r.Real, To: r.Mapped}
		if !r.Source.IsAny() {
			x.Real = netip.AddrPortFrom(r.Source.From, r.RealPort)
			x.Mapped = netip.AddrPortFrom(r.mapped().From, r.MappedPort)
		}
		all = append(all, x)
	}
	use := func(i int, c *Conn) {
		all[i].Conns++
		if s := c.Seen(); s.After(all[i].Seen) {
			all[i].Seen = s
		}
	}
	ports := make(map[*xlate]int)
	for _, c := range t.byID() {
		for _, r := range [...]*Rule{c.Rule, c.UnRule} {
			if i, ok := static[r]; ok && (r == c.Rule || c.Rule != c.UnRule) {
				use(i, c)
			}
		}
		if x := c.lease.x; x != nil {
			i, ok := ports[x]
			if !ok {
				i = len(all)
				ports[x] = i
				proto := c.Proto()
				if x.pool == nil {
					proto = 0
				}
				all = append(all, Xlate{
					Rule: c.Rule, Proto: proto, From: c.In, To: c.Out,
					Real: x.real, Mapped: c.lease.Mapped(), Extended: x.peer != nil,
				})
			}
			use(i, c)
		}
	}
	if t.cfg.PAT != nil {
		all = append(all, t.cfg.PAT.lingerers()...)
	}
	return all
}

// lingerers returns the translations by a rule that no connection uses any more.
func (t *PAT) lingerers() []Xlate {
	var all []Xlate
	t.idle(func(x *xlate, until int64) {
		if x.use.rule == nil {
			return
		}
		l := Xlate{
			Rule: x.use.rule, From: x.use.from, To: x.use.to,
			Real: x.real, Mapped: netip.AddrPortFrom(x.addr, x.port), Extended: x.peer != nil, Until: time.Unix(0, until),
		}
		if x.pool != nil {
			l.Proto = x.pool.key.proto
		}
		all = append(all, l)
	})
	slices.SortFunc(all, func(a, b Xlate) int {
		return cmp.Or(a.Until.Compare(b.Until), a.Real.Compare(b.Real), a.Mapped.Compare(b.Mapped), cmp.Compare(a.Proto, b.Proto))
	})
	return all
}
