package replay

import (
	"fmt"
	"io"
)

// A Count is what went through a Box, in packets.
type Count struct {
	In, Out    uint64
	Dropped    uint64
	Terminated uint64 // for the box itself
	Served     uint64 // of those, in conversations that are replayed
	Own        uint64 // segments that the box sent of its own; counted as Out, too

	// Of captures only.
	NotIP     uint64 // frames passed over
	Truncated uint64 // packets of which the capture holds a part
	PickedUp  uint64 // segments of handshakes made up; counted as In, too
	Local     uint64 // with a Split: passed over, both ends are on one side
}

// WriteCount writes what went through so far, in words.
func (b *Box) WriteCount(w io.Writer) error {
	c := b.count
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
