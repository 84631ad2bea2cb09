package nat

import (
	"cmp"
	"container/heap"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// A Pinhole is leave for a first packet yet to come, and says what that packet
// becomes. Zero fields of Match.Src are wildcards.
type Pinhole struct {
	In    *stack.Interface // arrival interface; nil is any
	Match stack.Flow       // as the packet arrives; Src address and port may be zero: any

	// Out and To are where the first packet goes and how it must look
	// there. A zero Src or Dst of To is taken from the packet, address and
	// port each for itself. A nil Out is found by route.
	Out *stack.Interface
	To  stack.Flow

	Handler Handler // for the connection it opens, or nil

	// Standing makes the pinhole an endpoint of its own: every packet that
	// matches goes to Handler, whatever its source, without opening a
	// connection for each, until Close. Media legs are Standing.
	Standing bool

	Expires time.Time     // zero: only Close ends it
	Idle    time.Duration // timeout of the connection it opens; 0: that of the protocol
	Mark    string        // letters of the inspection for Conn.Flags: "m" is SIP media
	Reason  string        // who asked, for "show conn" and the log: "RTP SEP001122334455"
}

// A Hole is a pinhole that has been booked.
type Hole struct {
	Pinhole // as booked; not to be changed

	rank    int    // how narrow it is; narrower ones are tried first
	serial  uint64 // and of those as narrow, older ones
	expires int64  // Unix time in ns, or the end of time
	holes   *holes
	key     key
	taken   atomic.Bool          // a packet is opening its connection
	conn    atomic.Pointer[Conn] // the one it opened, or the endpoint itself

	// Guarded by holes.mu.
	open  bool
	index int // in holes.byTime; -1: not there
}

// Close ends the pinhole; the connection that it opened lives on (see Conn). A
// Standing one ends with its endpoint. Closing again does nothing.
func (h *Hole) Close() {
	h.holes.remove(h)
	if h.Standing {
		h.conn.Load().CloseFor(ReasonPinhole)
	}
}

// Conn returns the connection that h opened, nil before it has. Of a Standing
// pinhole it is the endpoint, for its counters and the time of its last packet.
func (h *Hole) Conn() *Conn { return h.conn.Load() }

// Open reports whether h may still let a packet in.
func (h *Hole) Open() bool {
	h.holes.mu.Lock()
	defer h.holes.mu.Unlock()
	return h.open
}

// holes is the pinholes of a Table, found without a lock.
type holes struct {
	table *Table
	byDst probe[claims] // by destination; they do not change

	mu     sync.Mutex // for changes to byDst
	serial uint64
	byTime holeHeap // those that expire
	count  int
}

// claims are the pinholes for one destination, in the order they are tried.
type claims struct {
	// sole is the endpoint where there is nothing to choose: one Standing
	// pinhole for any source and time. in is where its packets arrive, nil
	// anywhere. It spares a packet of media two places in memory.
	sole *Conn
	in   *stack.Interface

	all []*Hole
}

func newClaims(all []*Hole) claims {
	c := claims{all: all}
	if h := all[0]; len(all) == 1 && h.Standing && !h.Match.Src.Addr().IsValid() && h.Match.Src.Port() == 0 && h.expires == int64(never) {
		c.sole, c.in = h.conn.Load(), h.In
	}
	return c
}

func (hs *holes) init(t *Table) {
	hs.table = t
	hs.byDst.init()
}

// holeKey returns the key of the pinholes for packets with the destination of f.
func holeKey(f *stack.Flow) (key, bool) {
	dst := f.Dst.Addr()
	if !dst.Is4() {
		return key{}, false
	}
	return key{addrs: uint64(number(dst)), ports: uint64(f.Dst.Port())<<16 | uint64(f.Proto)<<8 | 1}, true
}

// Expect books a pinhole. Match must have a protocol and an IPv4 destination; a
// Standing one must have a Handler. If it does not, or there are
// TableConfig.MaxPinholes already, the Hole that is returned lets nothing in,
// and its Open says so.
//
// Of several pinholes that match a packet the narrowest is used: source address
// and port given, then the address, then the port, then neither; then one with
// In before one without; then the oldest.
func (t *Table) Expect(ph Pinhole) *Hole {
	hs := &t.holes
	h := &Hole{Pinhole: ph, holes: hs, expires: int64(never), index: -1}
	if !ph.Expires.IsZero() {
		h.expires = ph.Expires.UnixNano()
	}
	if ph.Match.Src.Addr().IsValid() {
		h.rank += 4
	}
	if ph.Match.Src.Port() != 0 {
		h.rank += 2
	}
	if ph.In != nil {
		h.rank++
	}
	if ph.Standing {
		c := &Conn{
			In: ph.In, Out: ph.Out, Handler: ph.Handler, Hole: h, Reason: ph.Reason, Mark: ph.Mark,
			table: t,
		}
		c.limit.Store(int64(never))
		h.conn.Store(c)
	}
	k, ok := holeKey(&ph.Match)
	if !ok || ph.Match.Proto == 0 || ph.Standing && ph.Handler == nil {
		return h
	}
	h.key = k
	hs.add(h)
	return h
}

// Pinholes returns the number of pinholes that are open, Standing ones among
// them.
func (t *Table) Pinholes() int {
	t.holes.mu.Lock()
	defer t.holes.mu.Unlock()
	return t.holes.count
}

// Holes calls f with each open pinhole until it returns false, in no order.
func (t *Table) Holes(f func(*Hole) bool) {
	t.holes.byDst.each(func(n *node[claims]) bool {
		for _, h := range n.val.all {
			if !f(h) {
				return false
			}
		}
		return true
	})
}

// Claim finds the pinhole for p, the first packet of a connection, and returns
// the connection it opens and Client, or nil if there is none. The caller then
// calls Conn.Handle. A pinhole is used up when it has opened a connection; one
// that is Standing returns its endpoint. Where a connection cannot be opened
// (a limit, no route, a TCP packet that is no SYN) the Conn is one whose Handle
// says why, and the pinhole stays.
func (t *Table) Claim(p *stack.Packet) (*Conn, End) {
	f := p.Flow()
	k, ok := holeKey(&f)
	if !ok {
		return nil, Client
	}
	n := t.holes.byDst.find(k, t.seed.hash(k))
	if n == nil {
		return nil, Client
	}
	if c := n.val.sole; c != nil && (n.val.in == nil || n.val.in == p.In) {
		return c, Client
	}
	now := p.Time.UnixNano()
	busy := false
	for _, h := range n.val.all {
		if !h.matches(p.In, f.Src, now) {
			continue
		}
		if h.Standing {
			return h.conn.Load(), Client
		}
		if h.taken.Swap(true) {
			busy = true
			continue
		}
		c, from, v := h.use(p, f)
		if v != stack.Forward {
			h.taken.Store(false)
			return t.refused(v), Client
		}
		return c, from
	}
	if busy { // by a packet of the same connection, perhaps
		return t.Lookup(p)
	}
	return nil, Client
}

// matches reports whether a packet from src arriving on in at now may use h.
// Its destination is the right one.
func (h *Hole) matches(in *stack.Interface, src netip.AddrPort, now int64) bool {
	m := h.Match.Src
	return (h.In == nil || h.In == in) &&
		(!m.Addr().IsValid() || m.Addr() == src.Addr()) &&
		(m.Port() == 0 || m.Port() == src.Port()) &&
		now <= h.expires
}

// use opens the connection for p, whose flow is f, and ends h.
func (h *Hole) use(p *stack.Packet, f stack.Flow) (*Conn, End, stack.Verdict) {
	t := h.holes.table
	o := h.opening(f)
	if o.Out == nil {
		return nil, Client, stack.DropNoRoute
	}
	if t.cfg.Treat != nil {
		o.Treat = t.cfg.Treat(p, stack.Flow{Proto: f.Proto, Src: f.Src, Dst: o.Server.Dst}, o.Out)
	}
	c, v := t.open(p, o, h)
	if v != stack.Forward {
		if c != nil { // opened meanwhile, by another way
			h.taken.Store(false)
			return c, c.endOf(p), stack.Forward
		}
		return nil, Client, v
	}
	h.conn.Store(c)
	h.holes.remove(h)
	return c, Client, stack.Forward
}

// opening returns the connection that h opens for a packet of f, without Out if
// there is no route.
func (h *Hole) opening(f stack.Flow) Opening {
	o := Opening{
		Out:     h.Out,
		Server:  stack.Flow{Proto: f.Proto, Src: fill(h.To.Src, f.Src), Dst: fill(h.To.Dst, f.Dst)},
		Handler: h.Handler, Idle: h.Idle, Mark: h.Mark,
	}
	if route := h.holes.table.cfg.Route; o.Out == nil && route != nil {
		o.Out = route(o.Server.Dst.Addr())
	}
	return o
}

// fill returns to with what is zero in it taken from f.
func fill(to, f netip.AddrPort) netip.AddrPort {
	a, port := to.Addr(), to.Port()
	if !a.IsValid() {
		a = f.Addr()
	}
	if port == 0 {
		port = f.Port()
	}
	return netip.AddrPortFrom(a, port)
}

// A refusal is the Handler of packets that a pinhole cannot let in.
type refusal stack.Verdict

func (r refusal) HandlePacket(*stack.Packet, *Conn, End) stack.Verdict { return stack.Verdict(r) }

// refused returns a Conn in no table, whose Handle says v.
func (t *Table) refused(v stack.Verdict) *Conn {
	return &Conn{Handler: refusal(v), table: t}
}

// add books h, if there is room.
func (hs *holes) add(h *Hole) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.count >= hs.table.cfg.MaxPinholes {
		return
	}
	hs.count++
	hs.serial++
	h.serial, h.open = hs.serial, true
	hash := hs.table.seed.hash(h.key)
	var list []*Hole
	if n := hs.byDst.find(h.key, hash); n != nil {
		list = n.val.all
	}
	list = append(slices.Clip(list), h) // a copy: readers have the old one
	slices.SortFunc(list, func(a, b *Hole) int {
		return cmp.Or(-cmp.Compare(a.rank, b.rank), cmp.Compare(a.serial, b.serial))
	})
	hs.byDst.insert(&node[claims]{h.key, hash, newClaims(list)})
	if h.expires != int64(never) {
		heap.Push(&hs.byTime, h)
	}
}

// remove takes h out, if it is in.
func (hs *holes) remove(h *Hole) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.removeLocked(h)
}

func (hs *holes) removeLocked(h *Hole) {
	if !h.open {
		return
	}
	h.open = false
	hs.count--
	if h.index >= 0 {
		heap.Remove(&hs.byTime, h.index)
	}
	n := hs.byDst.find(h.key, hs.table.seed.hash(h.key))
	all := n.val.all
	if len(all) == 1 {
		hs.byDst.remove(n)
		return
	}
	i := slices.Index(all, h)
	hs.byDst.insert(&node[claims]{n.key, n.hash, newClaims(slices.Concat(all[:i], all[i+1:]))})
}

// expire ends the pinholes that nobody used in time, a bounded number of them.
func (hs *holes) expire(now int64) {
	hs.mu.Lock()
	var standing []*Hole
	for range expireBatch {
		if len(hs.byTime) == 0 || hs.byTime[0].expires >= now {
			break
		}
		h := hs.byTime[0]
		hs.removeLocked(h)
		if h.Standing {
			standing = append(standing, h)
		}
	}
	hs.mu.Unlock()
	for _, h := range standing {
		h.Close()
	}
}

// A holeHeap has the pinhole that expires first in front.
type holeHeap []*Hole

func (q holeHeap) Len() int           { return len(q) }
func (q holeHeap) Less(i, j int) bool { return q[i].expires < q[j].expires }
func (q holeHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *holeHeap) Push(x any) {
	h := x.(*Hole)
	h.index = len(*q)
	*q = append(*q, h)
}

func (q *holeHeap) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	h.index = -1
	return h
}
