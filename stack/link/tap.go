package link

import "patchbay/stack"

// A Direction says which way a packet passes a tapped link.
type Direction uint8

const (
	In  Direction = iota // read from the link
	Out                  // about to be written to it
)

// String returns "in" or "out".
func (d Direction) String() string {
	if d == In {
		return "in"
	}
	return "out"
}

// Tap returns l with f called for each packet that passes. The packet is
// borrowed and must not be changed; its Interfaces are not set yet when it is
// read. f may be called by several goroutines at once.
func Tap(l stack.Link, f func(dir Direction, p *stack.Packet)) stack.Link {
	return &tap{l, f}
}

type tap struct {
	stack.Link
	f func(Direction, *stack.Packet)
}

func (t *tap) Read(batch []*stack.Packet) (int, error) {
	n, err := t.Link.Read(batch)
	for _, p := range batch[:n] {
		t.f(In, p)
	}
	return n, err
}

func (t *tap) Write(batch []*stack.Packet) error {
	for _, p := range batch {
		t.f(Out, p)
	}
	return t.Link.Write(batch)
}

// Unwrap returns the link under the tap.
func (t *tap) Unwrap() stack.Link { return t.Link }

// Stats implements Counter if the link under the tap does.
func (t *tap) Stats() Stats {
	if c, ok := t.Link.(Counter); ok {
		return c.Stats()
	}
	return Stats{}
}

// Unwrap returns the driver under the taps of l, or l itself.
func Unwrap(l stack.Link) stack.Link {
	for {
		t, ok := l.(*tap)
		if !ok {
			return l
		}
		l = t.Link
	}
}
