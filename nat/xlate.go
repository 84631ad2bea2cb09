package nat

import (
	"net/netip"
	"time"

	"patchbay/stack"
)

// An Xlate is a translation in use, for "show xlate".
type Xlate struct {
	Rule  *Rule
	Proto stack.Proto // 0: every protocol

	// Real is behind From, Mapped is what To knows it by. A static rule of
	// several addresses has one Xlate, with the first of each. Port 0 is
	// every port, but for an ICMP identifier.
	From, To     *stack.Interface
	Real, Mapped netip.AddrPort

	Conns int       // connections that use it
	Seen  time.Time // when one last did; zero: none does
}

// Flags returns the letters of "show xlate": "s" for static, "r" for portmap,
// "i" for dynamic, "I" for identity, "T" for twice.
// (reference/asa-cli-show-debug.md, section 2.8.)
func (x Xlate) Flags() string {
	s := "s"
	if x.Rule.Kind == Dynamic {
		s = "ri"
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
// order of search, and then each PAT port in use, in order of the oldest
// connection that uses it.
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
				all = append(all, Xlate{
					Rule: c.Rule, Proto: c.Proto(), From: c.In, To: c.Out,
					Real: x.real, Mapped: c.lease.Mapped(),
				})
			}
			use(i, c)
		}
	}
	return all
}
