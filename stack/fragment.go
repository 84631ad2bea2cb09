package stack

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// FragmentLimits are those of one Reassembler, as the ASA's "fragment" command
// has them. A zero field is the ASA's default.
type FragmentLimits struct {
	Size    int           // packets in progress; 200
	Chain   int           // fragments of one packet; 24
	Timeout time.Duration // from the first fragment to the last; 5 s
}

// withDefaults returns l with the ASA's defaults where it says nothing.
func (l FragmentLimits) withDefaults() FragmentLimits {
	return FragmentLimits{cmp.Or(l.Size, 200), cmp.Or(l.Chain, 24), cmp.Or(l.Timeout, 5*time.Second)}
}

// maxHeld is how many bytes of fragments a Reassembler holds at most, whatever
// its limits.
const maxHeld = 4 << 20

// A FragmentCount is what became of fragments. (The ASA's command reference, show
// fragment.)
type FragmentCount struct {
	Queue      int    // packets in progress now
	Assembled  uint64 // packets put together
	Failed     uint64 // fragments refused: overlaps, too many of one packet, none at all
	Overflowed uint64 // fragments refused because too many packets were in progress
	TimedOut   uint64 // packets given up because the rest did not come in time
}

// A Reassembler puts together the fragments that arrive on one interface. What
// overlaps is dropped, the whole packet with it, so that nobody sees another
// packet than the one inspected. (RFC 791, section 3.2; RFC 5722.) It may be
// used by several goroutines at once. The zero Reassembler is ready to use.
type Reassembler struct {
	mu     sync.Mutex
	limits FragmentLimits
	parts  map[fragKey]*partial
	order  []*partial // by start; finished ones stay until they are due
	held   int        // bytes of fragments in parts
	count  FragmentCount
}

// SetLimits makes l hold for fragments to come.
func (r *Reassembler) SetLimits(l FragmentLimits) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = l
}

// Limits returns those in force.
func (r *Reassembler) Limits() FragmentLimits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits.withDefaults()
}

// Count returns what became of fragments so far, at the time now.
func (r *Reassembler) Count(now time.Time) FragmentCount {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expireLocked(now)
	c := r.count
	for _, part := range r.parts {
		if !part.refused {
			c.Queue++
		}
	}
	return c
}

// A fragKey tells the fragments of one packet from all others. (RFC 791,
// section 2.3.)
type fragKey struct {
	src, dst uint32
	id       uint16
	proto    uint8
}

// A partial is a packet in progress.
type partial struct {
	key     fragKey
	started time.Time
	header  [ipHeader]byte // of the first fragment
	frags   []frag         // by offset
	size    int            // bytes of payload in frags
	total   int            // bytes of payload in all; 0 until the last is here
	done    bool           // whole, or given up
	refused bool           // an overlap was seen: the rest is refused, too
}

// A frag is the payload of one fragment.
type frag struct {
	off  int // bytes
	data []byte
}

// Add takes a fragment, which Parse has refused as DropFragment, and copies
// what it needs of it. With the last piece it returns the whole packet, parsed,
// and Parse's verdict on it; before that nil and Consumed. A fragment that is
// refused gives nil and a drop.
func (r *Reassembler) Add(p *Packet) (whole *Packet, v Verdict) {
	if v := p.parseIP(); v != Forward {
		return nil, v
	}
	d := p.Data()
	field := binary.BigEndian.Uint16(d[ipFrag:])
	off, more := int(field&fragOffset)*8, field&flagMF != 0
	data := d[ipHeader:]

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(data) == 0 || more && len(data)%8 != 0 || ipHeader+off+len(data) > MaxPacket {
		r.count.Failed++
		return nil, DropFragment
	}
	key := fragKey{
		src: binary.BigEndian.Uint32(d[ipSrc:]), dst: binary.BigEndian.Uint32(d[ipDst:]),
		id: binary.BigEndian.Uint16(d[ipID:]), proto: d[ipProto],
	}

	r.expireLocked(p.Time)
	limits := r.limits.withDefaults()
	part := r.parts[key]
	if part == nil {
		if len(r.parts) >= limits.Size {
			r.count.Overflowed++
			return nil, DropFragment
		}
		if r.parts == nil {
			r.parts = make(map[fragKey]*partial)
		}
		part = &partial{key: key, started: p.Time}
		r.parts[key] = part
		r.order = append(r.order, part)
	}
	if part.refused {
		r.count.Failed++
		return nil, DropFragment
	}
	i, repeated, ok := part.place(off, data, more)
	if repeated {
		return nil, Consumed
	}
	if !ok || len(part.frags) >= limits.Chain || r.held+len(data) > maxHeld {
		r.held -= part.size
		part.refused, part.frags, part.size = true, nil, 0
		r.count.Failed++
		return nil, DropFragment
	}
	part.frags = slices.Insert(part.frags, i, frag{off, bytes.Clone(data)})
	part.size += len(data)
	r.held += len(data)
	if off == 0 {
		part.header = [ipHeader]byte(d)
	}
	if !more {
		part.total = off + len(data)
	}
	if part.total == 0 || part.size < part.total {
		return nil, Consumed
	}
	whole = part.join()
	whole.Time, whole.In = p.Time, p.In
	r.count.Assembled++
	r.dropLocked(part)
	return whole, whole.Parse()
}

// place returns where in part.frags a fragment belongs. It reports repeated if
// it is there already, byte for byte, and not ok if it contradicts what is
// there.
func (part *partial) place(off int, data []byte, more bool) (i int, repeated, ok bool) {
	end := off + len(data)
	i, _ = slices.BinarySearchFunc(part.frags, off, func(f frag, off int) int { return f.off - off })
	if i < len(part.frags) {
		f := part.frags[i]
		last := part.total != 0 && f.off+len(f.data) == part.total
		if f.off == off && more != last && bytes.Equal(f.data, data) {
			return i, true, true
		}
		if end > f.off {
			return i, false, false
		}
	}
	if i > 0 && part.frags[i-1].off+len(part.frags[i-1].data) > off {
		return i, false, false
	}
	if part.total != 0 && (!more || end > part.total) {
		return i, false, false
	}
	if !more && len(part.frags) > 0 {
		f := part.frags[len(part.frags)-1]
		if f.off+len(f.data) > end {
			return i, false, false
		}
	}
	return i, false, true
}

// reassembledRoom is what a reassembled packet can grow, in bytes, besides
// Tailroom: an inspected message gets longer addresses.
const reassembledRoom = 512

// join returns the whole packet.
func (part *partial) join() *Packet {
	n := ipHeader + part.total
	p := NewPacket(min(n+reassembledRoom, MaxPacket))
	b := p.Buffer()
	copy(b, part.header[:])
	for _, f := range part.frags {
		copy(b[ipHeader+f.off:], f.data)
	}
	binary.BigEndian.PutUint16(b[ipLen:], uint16(n))
	df := binary.BigEndian.Uint16(b[ipFrag:]) & flagDF
	binary.BigEndian.PutUint16(b[ipFrag:], df)
	fillIPChecksum(b)
	p.SetLen(n)
	return p
}

// expireLocked forgets the packets that did not become whole in time.
func (r *Reassembler) expireLocked(now time.Time) {
	limits := r.limits.withDefaults()
	n := 0
	for n < len(r.order) && (r.order[n].done || now.Sub(r.order[n].started) > limits.Timeout) {
		if !r.order[n].done {
			if !r.order[n].refused {
				r.count.TimedOut++
			}
			r.dropLocked(r.order[n])
		}
		n++
	}
	r.order = slices.Delete(r.order, 0, n)
	// Finished ones may wait behind one that is not; keep the list short.
	if len(r.order) > 2*limits.Size {
		r.order = slices.DeleteFunc(r.order, func(part *partial) bool { return part.done })
	}
}

// dropLocked forgets part.
func (r *Reassembler) dropLocked(part *partial) {
	delete(r.parts, part.key)
	r.held -= part.size
	part.frags, part.size, part.done = nil, 0, true
}

// Fragment cuts the packet p, which must have no DF flag, into packets of at
// most mtu bytes and gives emit each in order. What emit gets is its own. mtu
// is at least 68 bytes. (RFC 791, section 3.2.)
func Fragment(p *Packet, mtu int, emit func(*Packet)) {
	fragment(p, mtu, NewPacket, emit)
}

// fragment is Fragment with packets from alloc, which is told the bytes needed.
func fragment(p *Packet, mtu int, alloc func(n int) *Packet, emit func(*Packet)) {
	d := p.Data()
	data := d[ipHeader:]
	field := binary.BigEndian.Uint16(d[ipFrag:])
	room := max((mtu-ipHeader)&^7, 8)
	for off := 0; off < len(data); off += room {
		n := min(room, len(data)-off)
		q := alloc(ipHeader + n)
		q.Time, q.In, q.Out, q.NextHop = p.Time, p.In, p.Out, p.NextHop
		b := q.Buffer()
		copy(b, d[:ipHeader])
		copy(b[ipHeader:], data[off:off+n])
		binary.BigEndian.PutUint16(b[ipLen:], uint16(ipHeader+n))
		f := field + uint16(off/8)
		if off+n < len(data) {
			f |= flagMF
		}
		binary.BigEndian.PutUint16(b[ipFrag:], f)
		fillIPChecksum(b)
		q.SetLen(ipHeader + n)
		q.flow = p.flow
		q.flow.Src, q.flow.Dst = portless(p.flow.Src), portless(p.flow.Dst)
		q.l4, q.pay = ipHeader, ipHeader
		emit(q)
	}
}
