// Package stack holds packets, interfaces and the loop that forwards: a link
// is read, a packet parsed, a Policy asked, and the packet written to another
// link. It knows nothing of connections, NAT or the host's own sockets.
//
// What a reader may get wrong: a Packet is only borrowed. It is used again as
// soon as Handle returns.
package stack

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// A Policy decides what becomes of each packet.
type Policy interface {
	// Admit rewrites p as it must leave, sets p.Out (and p.NextHop if it
	// looked up the route) and says Forward; or it names a drop. It must not
	// keep p.
	Admit(p *Packet) Verdict
}

// batchSize is how many packets are read and written at once. More brings
// nothing. (reference/dataplane.md, section C.)
const batchSize = 64

// readRoom is the least space for a packet that Run reads, in bytes: an IP
// packet of the usual 1500 and what inspection may add to it.
const readRoom = 2048

// A Forwarder carries packets from its interfaces through a Policy to its
// interfaces. All methods may be called by several goroutines at once, also
// while it runs.
type Forwarder struct {
	policy atomic.Pointer[Policy]
	routes atomic.Pointer[Routes]
	ports  atomic.Pointer[[]*port]
	onDrop atomic.Pointer[func(*Packet, Verdict)]
	tap    atomic.Pointer[func(*Packet, *Interface, bool)]
	drops  [numVerdicts]atomic.Uint64
	idle   sync.Pool // of *worker

	setPorts sync.Mutex // orders SetInterfaces
}

// A port is what a Forwarder keeps for one interface.
type port struct {
	*Interface
	identity bool
	frags    Reassembler
	errors   allowance // of ICMP errors about packets that came in here

	inPackets, inBytes, outPackets, outBytes atomic.Uint64

	drops [numVerdicts]atomic.Uint64 // of packets that came in here
}

// NewForwarder returns a Forwarder between the interfaces ifs. Until SetPolicy
// it drops what it gets.
func NewForwarder(ifs ...*Interface) *Forwarder {
	f := &Forwarder{}
	f.idle.New = func() any { return &worker{f: f} }
	f.SetInterfaces(ifs...)
	return f
}

// SetInterfaces replaces the interfaces. The counters of those that stay go on.
// It starts and stops nothing: Run is called for each new link, and ends when
// that is closed.
func (f *Forwarder) SetInterfaces(ifs ...*Interface) {
	f.setPorts.Lock()
	defer f.setPorts.Unlock()
	ports := make([]*port, 0, len(ifs))
	for _, i := range ifs {
		p := f.port(i)
		if p == nil {
			p = &port{Interface: i, identity: i.IsIdentity()}
			p.errors.rate, p.errors.burst = icmpErrorRate, icmpErrorBurst
		}
		ports = append(ports, p)
	}
	f.ports.Store(&ports)
}

// SetPolicy makes p decide from the next packet on.
func (f *Forwarder) SetPolicy(p Policy) { f.policy.Store(&p) }

// SetRoutes makes r find the next hops that the Policy left open, from the next
// packet on. Without it the only neighbours are those on connected subnets.
func (f *Forwarder) SetRoutes(r *Routes) { f.routes.Store(r) }

// Routes returns what SetRoutes set, or nil.
func (f *Forwarder) Routes() *Routes { return f.routes.Load() }

// SetOnDrop makes fn see each packet that is dropped, for captures and debug;
// nil ends that. The packet is borrowed, and looks as it did when it was
// dropped. fn is called by several goroutines at once.
func (f *Forwarder) SetOnDrop(fn func(p *Packet, v Verdict)) {
	if fn == nil {
		f.onDrop.Store(nil)
		return
	}
	f.onDrop.Store(&fn)
}

// SetTap makes fn see each packet that arrives on an interface (out is false),
// once Parse has looked at it and before anything else, and each that leaves by
// one, as it leaves: what is cut up is seen in pieces. nil ends that, and then
// it costs next to nothing. The packet is borrowed, and on is not always its In
// or Out. fn is called by several goroutines at once.
func (f *Forwarder) SetTap(fn func(p *Packet, on *Interface, out bool)) {
	if fn == nil {
		f.tap.Store(nil)
		return
	}
	f.tap.Store(&fn)
}

// Drops returns how many packets were dropped for each reason that occurred.
func (f *Forwarder) Drops() map[Verdict]uint64 { return counted(&f.drops) }

// DropsOn is Drops of the packets that came in by i. ClearDrops leaves them.
func (f *Forwarder) DropsOn(i *Interface) map[Verdict]uint64 {
	p := f.port(i)
	if p == nil {
		return nil
	}
	return counted(&p.drops)
}

// counted returns the counts that are not zero.
func counted(drops *[numVerdicts]atomic.Uint64) map[Verdict]uint64 {
	m := make(map[Verdict]uint64)
	for v := range drops {
		if n := drops[v].Load(); n != 0 {
			m[Verdict(v)] = n
		}
	}
	return m
}

// ClearDrops sets the counts of Drops to zero.
func (f *Forwarder) ClearDrops() {
	for v := range f.drops {
		f.drops[v].Store(0)
	}
}

// Counters is what passed an interface, in packets and in bytes of IP packet.
type Counters struct {
	InPackets, InBytes, OutPackets, OutBytes uint64
}

// Counters returns what passed i. In counts what was read, Out what was given
// to the link.
func (f *Forwarder) Counters(i *Interface) Counters {
	p := f.port(i)
	if p == nil {
		return Counters{}
	}
	return Counters{p.inPackets.Load(), p.inBytes.Load(), p.outPackets.Load(), p.outBytes.Load()}
}

// Fragments returns what puts together the fragments that arrive on i, nil if i
// is not an interface of the Forwarder.
func (f *Forwarder) Fragments(i *Interface) *Reassembler {
	if p := f.port(i); p != nil {
		return &p.frags
	}
	return nil
}

// port returns the port of i, or nil if it has none.
func (f *Forwarder) port(i *Interface) *port {
	if ports := f.ports.Load(); ports != nil {
		for _, p := range *ports {
			if p.Interface == i {
				return p
			}
		}
	}
	return nil
}

// Run reads l and handles each packet as one that arrives at the interface which
// has the link then, on the calling goroutine, until the link is closed, which is
// no error. What comes while no interface has it is let go.
//
// A Queued is read by a goroutine for each of its Readers. If one fails the link
// is closed, and Run returns when all have ended.
func (f *Forwarder) Run(l Link) error {
	readers := []Reader{l}
	if q, ok := l.(Queued); ok {
		readers = q.Readers()
	}
	if len(readers) == 1 {
		return f.read(l, readers[0])
	}
	ended := make(chan error, len(readers))
	for _, r := range readers {
		go func() { ended <- f.read(l, r) }()
	}
	var first error
	for range readers {
		if err := <-ended; err != nil && first == nil {
			first = err
			l.Close() // what it has to say of that is said by err
		}
	}
	return first
}

// read reads one place of l until the link is closed.
func (f *Forwarder) read(l Link, r Reader) error {
	w := &worker{f: f}
	var batch [batchSize]*Packet
	room := min(max(readRoom, l.MTU()+reassembledRoom), MaxPacket)
	for k := range batch {
		batch[k] = NewPacket(room)
	}
	for {
		n, err := r.Read(batch[:])
		if in := f.portOf(l); in != nil {
			bytes := 0
			for _, p := range batch[:n] {
				bytes += p.Len()
				p.In = in.Interface
				w.handle(p, in)
			}
			w.flush()
			in.inPackets.Add(uint64(n))
			in.inBytes.Add(uint64(bytes))
		}
		for _, p := range batch[:n] {
			p.Reset()
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stack: reading: %w", err)
		}
	}
}

// portOf returns the port of the interface that has the link l, or nil.
func (f *Forwarder) portOf(l Link) *port {
	for _, p := range *f.ports.Load() {
		if p.Link == l {
			return p
		}
	}
	return nil
}

// Handle takes one packet, from p.In and at p.Time, from arrival to departure:
// the way into the box for whoever is not a Link. p is the caller's again, and
// may have changed, when it returns.
func (f *Forwarder) Handle(p *Packet) {
	in := f.port(p.In)
	if in == nil {
		f.drop(p, DropInterface)
		return
	}
	in.inPackets.Add(1)
	in.inBytes.Add(uint64(p.Len()))
	w := f.idle.Get().(*worker)
	w.handle(p, in)
	w.flush()
	f.idle.Put(w)
}

// Send has p, which the box made itself and which fits in the MTU, leave by
// p.Out: whoever is told about a connection that has ended has no packet to be
// answered. p must have been parsed.
func (f *Forwarder) Send(p *Packet) {
	w := f.idle.Get().(*worker)
	switch o := w.output(p.Out); {
	case o == nil:
		f.drop(p, DropInterface)
	case !w.route(p, o):
		f.drop(p, DropNoRoute)
	default:
		w.queue(p, o)
	}
	w.flush()
	f.idle.Put(w)
}

// drop counts p and shows it to whoever wants to see drops.
func (f *Forwarder) drop(p *Packet, v Verdict) {
	f.drops[v].Add(1)
	if in := f.port(p.In); in != nil {
		in.drops[v].Add(1)
	}
	if fn := f.onDrop.Load(); fn != nil {
		(*fn)(p, v)
	}
}
