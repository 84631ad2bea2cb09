package nat

import "math/bits"

// A portSet is a set of ports, in pages that are made when they are needed, for
// most sets hold few. The zero portSet is empty.
type portSet struct {
	pages [1 << 16 / pagePorts]*[pagePorts / 64]uint64
	n     int
}

// pagePorts is the number of ports of a page, a power of two.
const pagePorts = 4096

func (s *portSet) word(port uint16) *uint64 {
	if p := s.pages[port/pagePorts]; p != nil {
		return &p[port%pagePorts/64]
	}
	return nil
}

func (s *portSet) has(port uint16) bool {
	w := s.word(port)
	return w != nil && *w>>(port%64)&1 != 0
}

// add puts in port, which is not in s.
func (s *portSet) add(port uint16) {
	if s.pages[port/pagePorts] == nil {
		s.pages[port/pagePorts] = new([pagePorts / 64]uint64)
	}
	*s.word(port) |= 1 << (port % 64)
	s.n++
}

// remove takes out port, which is in s.
func (s *portSet) remove(port uint16) {
	*s.word(port) &^= 1 << (port % 64)
	s.n--
}

// run returns how many ports from port on are in s, at most up to the end of a
// word.
func (s *portSet) run(port uint16) uint32 {
	w := s.word(port)
	if w == nil {
		return 0
	}
	return uint32(bits.TrailingZeros64(^(*w >> (port % 64))))
}
