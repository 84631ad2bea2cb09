package nat

import "patchbay/stack"

// A natControl is nat-control of before 8.3: the host on the interface with the
// higher level has a rule for what it sends to and gets from a lower one, else
// there is no traffic. Between interfaces of one level, and from a lower one,
// the sender needs a rule as well where its interface has a dynamic one for
// that.
type natControl struct {
	same    map[*stack.Interface]bool // with a dynamic rule
	outside map[*stack.Interface]bool // with one toward a higher level ("outside")
}

// Control turns on nat-control, before rs is in use.
func (rs *Rules) Control() {
	c := &natControl{same: make(map[*stack.Interface]bool), outside: make(map[*stack.Interface]bool)}
	for _, r := range rs.rules {
		if r.Kind == Dynamic && r.Real != nil && r.Mapped != nil {
			c.same[r.Real] = true
			if r.Real.Level < r.Mapped.Level {
				c.outside[r.Real] = true
			}
		}
	}
	rs.control = c
}

// forbids reports whether a connection from in to out, whose source src
// translates and whose destination un, nil for none, lacks a rule.
func (c *natControl) forbids(in, out *stack.Interface, src, un *Rule) bool {
	switch {
	case c == nil:
		return false
	case in.Level > out.Level:
		return src == nil
	case in.Level < out.Level:
		return un == nil || src == nil && c.outside[in]
	}
	return src == nil && c.same[in]
}
