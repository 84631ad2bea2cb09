package stack

import "net/netip"

// minMTU is the smallest MTU that the box believes in, in bytes. (RFC 791,
// section 3.2.)
const minMTU = 68

// A worker handles packets on one goroutine and collects what goes out until
// flush. The life of a packet, in order: handle, admit, route, fit, queue.
type worker struct {
	f    *Forwarder
	outs []*output // one for each interface that a packet went to
	seen *[]*port  // the interfaces of f when outs was begun
	own  []*Packet // packets made here, free or in use until flush
	used int       // of own
	from int       // queue that the packet in hand came by
}

// An output is what waits for one interface.
type output struct {
	*port
	batch []*Packet
}

// handle takes p, which came in at in, as far as the batch of its output. p
// must stay as it is until flush.
func (w *worker) handle(p *Packet, in *port) {
	p.Out, p.NextHop = nil, netip.Addr{}
	w.from = p.Queue
	v := p.Parse()
	if fn := w.f.tap.Load(); fn != nil {
		(*fn)(p, in.Interface, false)
	}
	if v == DropFragment {
		whole, got := in.frags.Add(p)
		if whole != nil {
			p = whole
		}
		v = got
	}
	if v == Forward {
		v = w.admit(p, in)
	}
	if v.Dropped() {
		w.f.drop(p, v)
	}
}

// admit asks the Policy about a parsed packet and does what it says.
func (w *worker) admit(p *Packet, in *port) Verdict {
	if Martian(p.flow) {
		return DropSecurity
	}
	policy := w.f.policy.Load()
	if policy == nil || *policy == nil {
		return DropUnspecified
	}
	arrived := p.flow
	if v := (*policy).Admit(p); v != Forward {
		return v
	}
	o := w.output(p.Out)
	if o == nil {
		return DropInterface
	}
	if in.identity || o.identity {
		// The box's own packets have not been anywhere yet, and those to
		// the box go no further.
	} else if !p.DecrementTTL() {
		p.SetFlow(arrived) // quote it as its sender knows it
		w.answer(p, in, o.port, ICMPTimeExceeded, 0, 0)
		return DropTTL
	}
	if !w.route(p, o) {
		return DropNoRoute
	}
	return w.fit(p, in, o, arrived)
}

// route finds the next hop of p where the Policy left it open.
func (w *worker) route(p *Packet, o *output) bool {
	if p.NextHop.IsValid() {
		return true
	}
	if o.identity {
		p.NextHop = p.flow.Dst.Addr()
		return true
	}
	hop, ok := w.f.NextHop(o.Interface, p.flow.Dst.Addr())
	p.NextHop = hop
	return ok
}

// NextHop returns the neighbour on out that a packet to dst is handed to, where
// the Policy has not said which. It reports false if there is none.
func (f *Forwarder) NextHop(out *Interface, dst netip.Addr) (netip.Addr, bool) {
	if out.IsIdentity() || out.Addr.Contains(dst) || dst == limitedBroadcast {
		return dst, true
	}
	return f.routes.Load().NextHop(out, dst)
}

// limitedBroadcast is the address of all hosts on the link. (RFC 919.)
var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// fit queues p, in pieces if it is too long for the link. arrived is its flow
// as it came in.
func (w *worker) fit(p *Packet, in *port, o *output, arrived Flow) Verdict {
	mtu := max(o.Link.MTU(), minMTU)
	if p.Len() <= mtu || o.identity {
		w.queue(p, o)
		return Forward
	}
	if p.DontFragment() {
		p.SetFlow(arrived)
		w.answer(p, in, o.port, ICMPUnreachable, CodeFragNeeded, uint16(min(mtu, MaxPacket)))
		return DropMTU
	}
	fragment(p, mtu, w.packet, func(q *Packet) { w.queue(q, o) })
	return Forward
}

// answer sends an ICMP error about p back to in, from the address of the box
// there; the box's own sockets are told by the address of the interface that
// their packet was to leave by. It does not where RFC 1812 forbids it, and not
// too often.
func (w *worker) answer(p *Packet, in, out *port, typ, code uint8, rest uint16) {
	from := in.Addr
	if in.identity {
		from = out.Addr
	}
	if !from.Addr().Is4() || !CanAnswer(p, in.Addr) || !in.errors.take(p.Time) {
		return
	}
	q := w.packet(icmpErrorLen)
	q.SetLen(len(AppendICMPError(q.Buffer()[:0], p, from.Addr(), typ, code, rest)))
	if q.Parse() != Forward {
		return
	}
	q.Time, q.Out = p.Time, in.Interface
	o := w.output(in.Interface)
	if o != nil && w.route(q, o) {
		w.queue(q, o)
	}
}

// packet returns an empty packet for at least n bytes, good until flush.
func (w *worker) packet(n int) *Packet {
	if w.used == len(w.own) {
		w.own = append(w.own, NewPacket(max(n, readRoom)))
	}
	p := w.own[w.used]
	if len(p.Buffer()) < n {
		p = NewPacket(n)
		w.own[w.used] = p
	}
	w.used++
	p.Reset()
	p.Queue = w.from
	return p
}

// output returns where packets for i wait, or nil if the Forwarder has no such
// interface.
func (w *worker) output(i *Interface) *output {
	for _, o := range w.outs {
		if o.Interface == i {
			return o
		}
	}
	port := w.f.port(i)
	if port == nil {
		return nil
	}
	o := &output{port, make([]*Packet, 0, batchSize)}
	w.outs = append(w.outs, o)
	return o
}

// queue puts p, ready to leave, into the batch of o. A full batch is sent.
func (w *worker) queue(p *Packet, o *output) {
	if fn := w.f.tap.Load(); fn != nil {
		(*fn)(p, o.Interface, true)
	}
	o.batch = append(o.batch, p)
	if len(o.batch) == batchSize {
		w.send(o)
	}
}

// send writes the batch of o to its link.
func (w *worker) send(o *output) {
	n, bytes := len(o.batch), 0
	for _, p := range o.batch {
		bytes += p.Len()
	}
	if err := o.Link.Write(o.batch); err != nil {
		for _, p := range o.batch {
			w.f.drop(p, DropInterface)
		}
	} else {
		o.outPackets.Add(uint64(n))
		o.outBytes.Add(uint64(bytes))
	}
	clear(o.batch) // borrowed; whoever lent them may let them go
	o.batch = o.batch[:0]
}

// flush sends what waits and takes back the packets made here.
func (w *worker) flush() {
	for _, o := range w.outs {
		if len(o.batch) > 0 {
			w.send(o)
		}
	}
	w.used = 0
	if ports := w.f.ports.Load(); ports != w.seen {
		w.outs, w.seen = nil, ports // forget interfaces that are gone
	}
}
