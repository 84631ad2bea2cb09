package skinny

import (
	"time"

	"patchbay/inspect"
)

var _ inspect.Lister = (*session)(nil)

// Calls appends the calls that have media, each with its streams. See
// inspect.Lister.
func (s *session) Calls(dst []inspect.Call, now time.Time) []inspect.Call {
	first := len(dst)
	for _, st := range s.streams {
		c := (*inspect.Call)(nil)
		for i := range dst[first:] {
			if dst[first+i].ID == st.call {
				c = &dst[first+i]
			}
		}
		if c == nil {
			dst = append(dst, inspect.Call{ID: st.call})
			c = &dst[len(dst)-1]
			if !s.heard.IsZero() {
				c.Idle = max(0, now.Sub(s.heard))
			}
		}
		c.Active = c.Active || st.open&(receiving|transmitting) != 0
		c.Media = append(c.Media, inspect.MediaPair{Local: st.phone, Foreign: st.far})
	}
	return dst
}
