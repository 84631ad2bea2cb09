package sip

import (
	"cmp"
	"slices"
	"time"

	"patchbay/inspect"
)

var _ inspect.Lister = (*session)(nil)

// Calls appends the calls that ring or talk. See inspect.Lister.
func (s *session) Calls(dst []inspect.Call, now time.Time) []inspect.Call {
	live := make([]*call, 0, len(s.calls.byID))
	for _, c := range s.calls.byID {
		if c.stage != ended {
			live = append(live, c)
		}
	}
	slices.SortFunc(live, func(a, b *call) int { return cmp.Compare(a.born, b.born) })
	for _, c := range live {
		x := inspect.Call{ID: c.id, Active: c.stage == established}
		if !c.heard.IsZero() {
			x.Idle = max(0, now.Sub(c.heard))
		}
		dst = append(dst, x)
	}
	return dst
}
