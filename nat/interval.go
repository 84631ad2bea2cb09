package nat

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

// A span is the numbers from to to, both included: addresses, ports, types.
type span struct{ from, to uint32 }

// A dimension answers, for one field of a packet, which of many things in
// order (entries, rules) hold its value. It cuts the field into the intervals
// between all their ends and keeps a bit for each thing there. Those that hold
// every value are kept once. It does not change.
//
// This is the bit vector scheme with summaries: of 64 words of a vector, the
// summary says which are not zero, and only those are stored. (Lakshman and
// Stiliadis, SIGCOMM 1998; Baboescu and Varghese, SIGCOMM 2001.)
type dimension struct {
	any    []uint64 // those that hold every value, a bit each
	sum    []uint64 // its summary
	starts []uint32 // first value of each interval, rising; starts[0] is 0
	sets   []int32  // by interval, in vecs
	vecs   []vector
}

// A vector is a set of numbers. summary has a bit for each word that is not
// zero, base the number of words before each word of summary.
type vector struct {
	summary []uint64
	base    []uint16
	words   []uint64
}

// pack makes a vector of plain words, whose summary has n words.
func pack(plain []uint64, n int) vector {
	v := vector{summary: make([]uint64, n), base: make([]uint16, n)}
	for w, word := range plain {
		if w%64 == 0 {
			v.base[w/64] = uint16(len(v.words))
		}
		if word != 0 {
			v.summary[w/64] |= 1 << (w % 64)
			v.words = append(v.words, word)
		}
	}
	v.words = slices.Clip(v.words)
	return v
}

// maxThings is how many things a dimension tells apart: as many as a vector's
// base can count words of.
const maxThings = 1 << 16 * 64

// summaryLen returns the length of the summaries for n things, in words.
func summaryLen(n int) int { return (n + 64*64 - 1) / (64 * 64) }

// newDimension makes the dimension of n things. Each has the values of its
// spans; nil is every value, and an empty list none.
func newDimension(n int, spansOf func(i int) []span) dimension {
	type edge struct {
		at    uint32
		thing int32
	}
	var (
		words = (n + 63) / 64
		all   = make([]uint64, words)
		edges []edge
	)
	for i := range n {
		spans := spansOf(i)
		if spans == nil {
			all[i/64] |= 1 << (i % 64)
		}
		for _, s := range merge(spans) {
			edges = append(edges, edge{s.from, int32(i)})
			if s.to != ^uint32(0) {
				edges = append(edges, edge{s.to + 1, int32(i)})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	d := dimension{any: all, sum: pack(all, summaryLen(n)).summary}
	now := make([]uint64, words)
	known := make(map[string]int32) // places in vecs, by the vector's content
	var text []byte
	add := func(start uint32) {
		v := pack(now, summaryLen(n))
		text = text[:0]
		for _, words := range [...][]uint64{v.summary, v.words} {
			for _, w := range words {
				text = binary.LittleEndian.AppendUint64(text, w)
			}
		}
		k, ok := known[string(text)]
		if !ok {
			k = int32(len(d.vecs))
			known[string(text)] = k
			d.vecs = append(d.vecs, v)
		}
		d.starts, d.sets = append(d.starts, start), append(d.sets, k)
	}
	if len(edges) == 0 || edges[0].at != 0 {
		add(0)
	}
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			e := edges[i]
			// Spans of one thing do not touch, so its bit turns at each edge.
			now[e.thing/64] ^= 1 << (e.thing % 64)
		}
		add(at)
	}
	return d
}

// merge returns the union of spans as spans that do not touch, in order.
func merge(spans []span) []span {
	if len(spans) < 2 {
		return spans
	}
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	out := spans[:1]
	for _, s := range spans[1:] {
		last := &out[len(out)-1]
		if uint64(s.from) <= uint64(last.to)+1 {
			last.to = max(last.to, s.to)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// at returns the vector of those that hold v but not every value.
func (d *dimension) at(v uint32) *vector {
	lo, hi := 0, len(d.starts) // starts[lo] <= v < starts[hi]
	for hi-lo > 1 {
		if mid := int(uint(lo+hi) / 2); d.starts[mid] <= v {
			lo = mid
		} else {
			hi = mid
		}
	}
	return &d.vecs[d.sets[lo]]
}

// A cursor walks the things that all of up to maxFields dimensions hold, in
// order. It is used on the stack.
type cursor struct {
	n     int // fields
	dims  [maxFields]*dimension
	some  [maxFields]*vector // of those at the field's value
	s     int                // word of the summaries
	left  uint64             // words of it that are yet to be looked at
	w     int                // the word looked at
	found uint64             // things of it that are yet to be returned
}

const maxFields = 5 // protocol, two addresses, two ports

// by narrows c, which has not begun, to what d has for v.
func (c *cursor) by(d *dimension, v uint32) {
	c.dims[c.n], c.some[c.n] = d, d.at(v)
	c.n++
}

// begin readies c for next. It has one field at least.
func (c *cursor) begin() { c.s = -1 }

// next returns the next thing, or -1 after the last.
func (c *cursor) next() int {
	for c.found == 0 {
		for c.left == 0 {
			if c.s++; c.s >= len(c.dims[0].sum) {
				return -1
			}
			c.left = ^uint64(0)
			for i := range c.n {
				c.left &= c.dims[i].sum[c.s] | c.some[i].summary[c.s]
			}
		}
		c.w = c.s*64 + bits.TrailingZeros64(c.left)
		c.left &= c.left - 1
		c.found = ^uint64(0)
		bit := uint64(1) << (c.w % 64)
		for i := 0; i < c.n && c.found != 0; i++ {
			word, v := c.dims[i].any[c.w], c.some[i]
			if sum := v.summary[c.s]; sum&bit != 0 {
				word |= v.words[int(v.base[c.s])+bits.OnesCount64(sum&(bit-1))]
			}
			c.found &= word
		}
	}
	i := c.w*64 + bits.TrailingZeros64(c.found)
	c.found &= c.found - 1
	return i
}
