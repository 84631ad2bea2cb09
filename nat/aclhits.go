package nat

import (
	"slices"
	"sync/atomic"

	"patchbay/stack"
)

// maxElements bounds the elements of one entry that are counted apart. Two
// groups of 32 hosts have as many.
const maxElements = 1024

// An Element is one combination of the addresses and ports of an Entry, each by
// its place in the Entry's list; 0 where that is empty, which is any. An
// access-list of an ASA is made of these, and counts their hits.
type Element struct{ Src, Dst, SrcPorts, DstPorts int }

// Elements returns how many Elements e has.
func (e *Entry) Elements() uint64 {
	n := uint64(1)
	for _, k := range [...]int{len(e.Src), len(e.Dst), len(e.SrcPorts), len(e.DstPorts)} {
		n *= uint64(max(k, 1))
	}
	return n
}

// Counted reports whether the hits of e's Elements are counted apart. An entry
// of too many, of large groups, counts them together only.
func (e *Entry) Counted() bool { return e.Elements() <= maxElements }

// ElementHits returns how many of e's hits were on x; all if there is only one
// or they are not counted apart.
func (e *Entry) ElementHits(x Element) uint64 {
	if e.elements == nil {
		return e.Hits()
	}
	return e.elements[e.index(x)].Load()
}

// index returns the place of x in e.elements.
func (e *Entry) index(x Element) int {
	i := x.Src
	i = i*max(len(e.Dst), 1) + x.Dst
	i = i*max(len(e.SrcPorts), 1) + x.SrcPorts
	return i*max(len(e.DstPorts), 1) + x.DstPorts
}

// Hit counts one more, for a packet of f that Find has found e for.
func (e *Entry) Hit(f *stack.Flow) {
	e.hits.Add(1)
	if e.elements == nil {
		return
	}
	x := Element{
		Src:      slices.IndexFunc(e.Src, func(o Object) bool { return o.Contains(f.Src.Addr()) }),
		Dst:      slices.IndexFunc(e.Dst, func(o Object) bool { return o.Contains(f.Dst.Addr()) }),
		SrcPorts: slices.IndexFunc(e.SrcPorts, func(r PortRange) bool { return r.Contains(f.Src.Port()) }),
		DstPorts: slices.IndexFunc(e.DstPorts, func(r PortRange) bool { return r.Contains(f.Dst.Port()) }),
	}
	x.Src, x.Dst, x.SrcPorts, x.DstPorts = max(x.Src, 0), max(x.Dst, 0), max(x.SrcPorts, 0), max(x.DstPorts, 0)
	e.elements[e.index(x)].Add(1)
}

// ClearHits sets the hit counts to 0.
func (e *Entry) ClearHits() {
	e.hits.Store(0)
	for i := range e.elements {
		e.elements[i].Store(0)
	}
}

// countElements makes room for the counts of e's Elements.
func (e *Entry) countElements() {
	if n := e.Elements(); n > 1 && n <= maxElements && e.elements == nil {
		e.elements = make([]atomic.Uint64, n)
	}
}
