package nat

import (
	"math/bits"
	"sync/atomic"

	"patchbay/stack"
)

// A key is what a packet is found by: addresses, ports and protocol in two
// words, and the arrival interface, for one flow may be seen on two of them
// (from the UCM on inside, and from the box, in its place, on identity).
type key struct {
	addrs uint64 // source, destination
	ports uint64 // source, destination, protocol, 1; so a key is never zero
	in    *stack.Interface
}

// keyOf returns the key of f arriving on in. Only IPv4 has one. f is a pointer
// because a Flow is large, and this is for every packet.
func keyOf(in *stack.Interface, f *stack.Flow) (key, bool) {
	src, dst := f.Src.Addr(), f.Dst.Addr()
	if !src.Is4() || !dst.Is4() {
		return key{}, false
	}
	return key{
		uint64(number(src))<<32 | uint64(number(dst)),
		uint64(f.Src.Port())<<32 | uint64(f.Dst.Port())<<16 | uint64(f.Proto)<<8 | 1,
		in,
	}, true
}

// A seed keeps others from choosing ports that collide.
type seed [2]uint64

// hash mixes the words of k. The interface is left out: keys that differ in
// nothing else are few.
func (s *seed) hash(k key) uint64 {
	hi, lo := bits.Mul64(k.addrs^s[0], k.ports^s[1])
	hi, lo = bits.Mul64(hi^lo^s[0], 0x9e3779b97f4a7c15) // 2^64 / golden ratio
	return hi ^ lo
}

// A node is an entry of a probe. It does not change once it is in one.
type node[V any] struct {
	key  key
	hash uint64
	val  V
}

// A probe is a hash table with open addressing that is read without a lock,
// also while it changes. Its writer is one at a time; who, its owner says.
type probe[V any] struct {
	slots atomic.Pointer[[]slot[V]] // a power of two, never full

	live  int     // nodes
	used  int     // slots that are not nil: nodes and graves
	grave node[V] // where a node was that others are probed past
}

type slot[V any] = atomic.Pointer[node[V]]

// minSlots is the size of an empty probe, in slots.
const minSlots = 16

func (t *probe[V]) init() {
	s := make([]slot[V], minSlots)
	t.slots.Store(&s)
}

// find returns the node of k, whose hash is h, or nil.
func (t *probe[V]) find(k key, h uint64) *node[V] {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		n := slots[i].Load()
		if n == nil {
			return nil
		}
		if n.key == k { // a grave's is zero
			return n
		}
	}
}

// insert adds n, or replaces the node with its key.
func (t *probe[V]) insert(n *node[V]) {
	if slots := *t.slots.Load(); (t.used+1)*4 > len(slots)*3 {
		t.resize()
	}
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := n.hash & mask; ; i = (i + 1) & mask {
		old := slots[i].Load()
		if old != nil && old.key != n.key {
			continue
		}
		if old == nil {
			t.live++
			t.used++
		}
		slots[i].Store(n)
		return
	}
}

// remove takes n out, if it is still in, and leaves a grave.
func (t *probe[V]) remove(n *node[V]) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := n.hash & mask; ; i = (i + 1) & mask {
		switch slots[i].Load() {
		case nil:
			return
		case n:
			if slots[(i+1)&mask].Load() == nil {
				slots[i].Store(nil) // nothing is probed past it
				t.used--
			} else {
				slots[i].Store(&t.grave)
			}
			t.live--
			return
		}
	}
}

// resize moves the nodes to new slots, a quarter to half of them used, and
// leaves the graves. Readers go on in the old slots.
func (t *probe[V]) resize() {
	n := minSlots
	for n < t.live*2+2 {
		n *= 2
	}
	slots := make([]slot[V], n)
	mask := uint64(n - 1)
	for i := range *t.slots.Load() {
		m := (*t.slots.Load())[i].Load()
		if m == nil || m.key == (key{}) {
			continue
		}
		j := m.hash & mask
		for slots[j].Load() != nil {
			j = (j + 1) & mask
		}
		slots[j].Store(m)
	}
	t.used = t.live
	t.slots.Store(&slots)
}

// each calls f with every node until it returns false, and reports whether it
// did not. Nodes that come or go meanwhile may be seen or not.
func (t *probe[V]) each(f func(*node[V]) bool) bool {
	slots := *t.slots.Load()
	for i := range slots {
		if n := slots[i].Load(); n != nil && n.key != (key{}) && !f(n) {
			return false
		}
	}
	return true
}
