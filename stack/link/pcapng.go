package link

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"patchbay/stack"
)

// Options of pcapng blocks. (draft-ietf-opsawg-pcapng, sections 3.5, 4.2 and 4.3.)
const (
	optComment = 1
	optName    = 2 // if_name
	optFlags   = 2 // epb_flags

	flagInbound  = 1 // of epb_flags
	flagOutbound = 2

	nanoseconds = 9 // if_tsresol: 10^-9 s
	maxComment  = 1024
)

// A PCAPNG writes packets to a capture file in pcapng: raw IP, nanoseconds,
// little-endian, and nothing that depends on the machine, so that the same
// packets give the same bytes. One goroutine uses it.
type PCAPNG struct {
	w   *bufio.Writer
	buf []byte // of the block being made
	ifs int
	err error // the first; nothing is written after it
}

// NewPCAPNG begins a capture on w. Whoever opened w closes it, after Close.
func NewPCAPNG(w io.Writer) *PCAPNG {
	n := &PCAPNG{w: bufio.NewWriter(w)}
	n.block(blockSection, func(b []byte) []byte {
		b = le.AppendUint32(b, magicOrder)
		b = le.AppendUint16(b, 1)          // major version
		b = le.AppendUint16(b, 0)          // minor version
		return le.AppendUint64(b, 1<<64-1) // section of unknown length
	})
	return n
}

var le = binary.LittleEndian

// AddInterface adds an interface with that name, and returns its number. It
// comes before the packets on it.
func (n *PCAPNG) AddInterface(name string) int {
	n.block(blockInterface, func(b []byte) []byte {
		b = le.AppendUint16(b, linkRaw)
		b = le.AppendUint16(b, 0)
		b = le.AppendUint32(b, stack.MaxPacket)
		b = appendOption(b, optName, name)
		b = appendOption(b, optTimeUnit, string([]byte{nanoseconds}))
		return le.AppendUint32(b, optEnd)
	})
	n.ifs++
	return n.ifs - 1
}

// Packet adds p as it is now, as a packet that passed the interface in that
// direction, with a comment if it is not empty. It allocates nothing once its
// buffer has grown. An error is kept for Close.
func (n *PCAPNG) Packet(on int, dir Direction, p *stack.Packet, comment string) {
	if on < 0 || on >= n.ifs {
		if n.err == nil {
			n.err = fmt.Errorf("packet on interface %d of %d", on, n.ifs)
		}
		return
	}
	d := p.Data()
	at := uint64(p.Time.UnixNano())
	b := n.open(blockEnhanced)
	b = le.AppendUint32(b, uint32(on))
	b = le.AppendUint32(b, uint32(at>>32))
	b = le.AppendUint32(b, uint32(at))
	b = le.AppendUint32(b, uint32(len(d)))
	b = le.AppendUint32(b, uint32(len(d)))
	b = pad(append(b, d...))
	if comment != "" {
		b = appendOption(b, optComment, comment[:min(len(comment), maxComment)])
	}
	flags := uint32(flagInbound)
	if dir == Out {
		flags = flagOutbound
	}
	b = le.AppendUint16(b, optFlags)
	b = le.AppendUint16(b, 4)
	b = le.AppendUint32(b, flags)
	n.finish(le.AppendUint32(b, optEnd))
}

// Close writes out what is buffered and returns the first error there was.
func (n *PCAPNG) Close() error {
	if err := n.w.Flush(); n.err == nil {
		n.err = err
	}
	if n.err != nil {
		return fmt.Errorf("link: writing a capture: %w", n.err)
	}
	return nil
}

// block writes a block of that type; body appends what is in it.
func (n *PCAPNG) block(kind uint32, body func([]byte) []byte) {
	n.finish(body(n.open(kind)))
}

// open begins a block, whose length finish fills in.
func (n *PCAPNG) open(kind uint32) []byte {
	return append(le.AppendUint32(n.buf[:0], kind), 0, 0, 0, 0)
}

// finish writes the block b.
func (n *PCAPNG) finish(b []byte) {
	le.PutUint32(b[4:], uint32(len(b)+4))
	b = le.AppendUint32(b, uint32(len(b)+4))
	n.buf = b
	if n.err == nil {
		_, n.err = n.w.Write(b)
	}
}

// appendOption appends an option with its padding.
func appendOption(b []byte, code uint16, value string) []byte {
	b = le.AppendUint16(b, code)
	b = le.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

// pad fills b up to whole words. All blocks begin at one.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
