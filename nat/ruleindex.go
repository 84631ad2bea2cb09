package nat

import (
	"net/netip"

	"patchbay/stack"
)

// compile makes what spares a first packet from asking every rule.
func (rs *Rules) compile() {
	n := len(rs.rules)
	rs.static = make(map[staticPort][]*Rule)
	for i, r := range rs.rules {
		r.place = i
		if r.MappedPorts == (PortRange{}) {
			continue
		}
		if m := r.mapped(); m.Size() == 1 && r.MappedPorts.To-r.MappedPorts.From < maxSingles {
			for port := int(r.MappedPorts.From); port <= int(r.MappedPorts.To); port++ {
				k := staticPort{r.Service, m.From, uint16(port)}
				rs.static[k] = append(rs.static[k], r)
			}
		} else {
			rs.wide = append(rs.wide, r)
		}
	}
	if n <= maxLinear || n > maxThings {
		return
	}
	index := func(objects func(r *Rule) []Object) dimension {
		return newDimension(n, func(i int) []span { return addressSpans(objects(rs.rules[i])) })
	}
	rs.un = index(func(r *Rule) []Object {
		if r.movesDest() {
			return []Object{r.mapped(), r.MappedDest}
		}
		return []Object{r.mapped()}
	})
	rs.source = index(func(r *Rule) []Object {
		if r.movesDest() {
			return []Object{r.Source, r.Dest}
		}
		return []Object{r.Source}
	})
	rs.real = index(func(r *Rule) []Object { return []Object{r.Source} })
	rs.shown = index((*Rule).shown)
}

// maxSingles is the number of ports up to which a range of them is kept port
// by port.
const maxSingles = 64

// A walk is over rules in order of search.
type walk struct {
	rule *Rule // after next

	rules []*Rule
	all   bool // every rule, for they are few
	next1 int
	c     cursor
}

// about begins a walk over the rules, and perhaps some more, that have a in d.
func (rs *Rules) about(d *dimension, a netip.Addr) walk {
	w := walk{rules: rs.rules, all: len(d.starts) == 0 || !a.Is4()}
	if !w.all {
		w.c.by(d, number(a))
		w.c.begin()
	}
	return w
}

// next goes on to the next rule, and reports false after the last.
func (w *walk) next() bool {
	i := w.next1
	if !w.all {
		i = w.c.next()
	}
	if i < 0 || i >= len(w.rules) {
		return false
	}
	w.next1 = i + 1
	w.rule = w.rules[i]
	return true
}

// A xlateUse is what a translation in use is shown with.
type xlateUse struct {
	rule     *Rule
	from, to *stack.Interface
}
