package inspect

import (
	"cmp"
	"fmt"
	"slices"
)

// A Span is a run of bytes in a message.
type Span struct {
	Off int // bytes from the start of the message
	Len int // bytes
}

// End returns the offset behind the last byte.
func (s Span) End() int { return s.Off + s.Len }

// Of returns the bytes of msg that s covers; it panics when msg is shorter.
func (s Span) Of(msg []byte) []byte { return msg[s.Off:s.End():s.End()] }

// An edit replaces a span by bytes of the collection's own text.
type edit struct {
	Span
	from, to int // in Edits.text
}

// Edits collects replacements in one message, in any order. Offsets are those
// of the original message throughout. The zero value is ready; Reset makes it
// ready for another message and keeps its memory. One goroutine at a time.
type Edits struct {
	list []edit
	text []byte // every replacement, one after another
}

// Reset forgets all edits.
func (e *Edits) Reset() {
	e.list = e.list[:0]
	clear(e.text) // it may have held keys
	e.text = e.text[:0]
}

// Len returns how many edits there are.
func (e *Edits) Len() int { return len(e.list) }

// Touches reports whether a byte of s is replaced, or something inserted there.
func (e *Edits) Touches(s Span) bool {
	for i := range e.list {
		if d := &e.list[i]; d.Off < s.End() && s.Off < max(d.End(), d.Off+1) {
			return true
		}
	}
	return false
}

// Delta returns by how many bytes the message grows; negative when it shrinks.
func (e *Edits) Delta() int { return e.DeltaFrom(0) }

// DeltaFrom is Delta of what stands at off and behind it.
func (e *Edits) DeltaFrom(off int) int {
	n := 0
	for i := range e.list {
		if d := &e.list[i]; d.Off >= off {
			n += d.to - d.from - d.Len
		}
	}
	return n
}

// Replace puts with in place of the length bytes at off. with is copied.
func (e *Edits) Replace(off, length int, with []byte) {
	from := len(e.text)
	e.text = append(e.text, with...)
	e.add(off, length, from)
}

// ReplaceString is Replace with text.
func (e *Edits) ReplaceString(off, length int, with string) {
	from := len(e.text)
	e.text = append(e.text, with...)
	e.add(off, length, from)
}

// Insert puts with before the byte at off, or at the end when off is the
// length of the message. What is inserted at one offset stands in the order of
// the calls, and before what replaces the bytes from there on.
func (e *Edits) Insert(off int, with []byte) { e.Replace(off, 0, with) }

// InsertString is Insert with text.
func (e *Edits) InsertString(off int, with string) { e.ReplaceString(off, 0, with) }

func (e *Edits) add(off, length, from int) {
	e.list = append(e.list, edit{Span{off, length}, from, len(e.text)})
}

// AppendTo appends msg with all edits made to dst. It fails, and returns dst as
// it was, when an edit lies outside msg or two of them overlap: the same byte
// replaced twice, or an insertion inside a replaced span. msg must not share
// memory with the room behind dst. The edits stay.
func (e *Edits) AppendTo(dst, msg []byte) ([]byte, error) {
	slices.SortStableFunc(e.list, func(a, b edit) int {
		if a.Off != b.Off {
			return cmp.Compare(a.Off, b.Off)
		}
		// Insertions first; two replacements overlap whatever their order.
		return cmp.Compare(min(a.Len, 1), min(b.Len, 1))
	})
	out, at := dst, 0
	for i := range e.list {
		d := &e.list[i]
		if d.Off < 0 || d.Len < 0 || d.Off > len(msg) || d.Len > len(msg)-d.Off {
			return dst, fmt.Errorf("inspect: edit of %d bytes at %d lies outside the message of %d", d.Len, d.Off, len(msg))
		}
		if d.Off < at {
			return dst, fmt.Errorf("inspect: edit of %d bytes at %d overlaps the one that ends at %d", d.Len, d.Off, at)
		}
		out = append(out, msg[at:d.Off]...)
		out = append(out, e.text[d.from:d.to]...)
		at = d.End()
	}
	return append(out, msg[at:]...), nil
}
