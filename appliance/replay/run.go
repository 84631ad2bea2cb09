package replay

import (
	"fmt"
	"io"

	"patchbay/stack"
	"patchbay/stack/link"
)

// A Source is a capture and the interface its packets arrive on.
type Source struct {
	Name   string // of the file, for errors
	In     *stack.Interface
	Reader *link.Reader

	head *stack.Packet // the next packet; valid if more
	more bool
}

// Captures are captures to be replayed together.
type Captures struct {
	Sources []*Source

	// Split, if there is one, finds the interface that each packet arrives
	// on by its source address; Sources say it for those of no prefix.
	Split []SplitPrefix

	// PickUp makes up the handshake of a TCP conversation whose beginning the
	// capture lacks, so that the rest is not refused. Only with Split.
	PickUp bool

	// Edit changes each packet as it is read; nil: none is.
	Edit func(*stack.Packet)

	// FixChecksums makes right the checksums of what is read: a capture
	// taken on a host has packets whose checksums its network card was yet to
	// compute.
	FixChecksums bool
}

// Run replays captures, interleaved by time; of two packets at the same time
// that of the first source goes first.
func (b *Box) Run(c Captures) error {
	s := newSplitter(b, c)
	for _, src := range c.Sources {
		src.head = stack.NewPacket(stack.MaxPacket)
		if err := b.read(src); err != nil {
			return err
		}
	}
	for {
		var next *Source
		for _, src := range c.Sources {
			if src.more && (next == nil || src.head.Time.Before(next.head.Time)) {
				next = src
			}
		}
		if next == nil {
			return nil
		}
		p := next.head
		p.In = next.In
		if c.FixChecksums {
			p.FixChecksums()
		}
		if c.Edit != nil {
			c.Edit(p)
			if c.FixChecksums {
				p.FixChecksums()
			}
		}
		if s == nil {
			b.Handle(p)
		} else {
			s.handle(p)
		}
		if err := b.read(next); err != nil {
			return err
		}
	}
}

// read reads the next packet of src.
func (b *Box) read(src *Source) error {
	info, err := src.Reader.Next(src.head)
	src.more = err == nil
	if err == nil && info.Truncated {
		b.count.Truncated++
	}
	if err == io.EOF {
		_, skipped := src.Reader.Frames()
		b.count.NotIP += skipped
		return nil
	}
	if err != nil {
		return fmt.Errorf("replay: %s: %w", src.Name, err)
	}
	return nil
}
