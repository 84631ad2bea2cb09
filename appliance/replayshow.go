package appliance

import (
	"fmt"
	"io"
)

// WriteCount writes what went through so far, in words.
func (r *Replay) WriteCount(w io.Writer) error {
	c := r.count
	s := fmt.Sprintf("%d packets in, %d out, %d dropped, %d for the box itself\n", c.In, c.Out, c.Dropped, c.Terminated)
	if c.NotIP+c.Truncated+c.Local > 0 {
		s += fmt.Sprintf("%d frames not IP, %d packets truncated, %d between hosts of one side\n", c.NotIP, c.Truncated, c.Local)
	}
	if c.PickedUp > 0 {
		s += fmt.Sprintf("%d TCP segments of handshakes made up\n", c.PickedUp)
	}
	_, err := io.WriteString(w, s)
	return err
}
