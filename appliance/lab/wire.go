package lab

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

const (
	portQueue  = 4096 // packets that wait for a Port's Read
	pumpBatch  = 32   // packets a Network takes from a link at once
	defaultMTU = 1500 // bytes
	ipv4Header = 20   // bytes of an IPv4 header without options

	protoICMP = 1 // IP protocol numbers (RFC 790)
	protoTCP  = 6
	protoUDP  = 17
)

// A Network is a wire in memory with a router's table: it hands each IPv4
// packet to the link that owns the longest prefix of its destination. It
// stands for a subnet, or for the whole Internet between several. There is no
// ARP and no time to live. A packet whose checksums are wrong is dropped and
// counted, as hosts would.
type Network struct {
	// Filter, if set before the first Attach or Port, sees each packet that
	// is to be delivered, borrowed, and may lose it by returning false. It is
	// called by several goroutines.
	Filter func(packet []byte) bool

	mtu   int
	stats NetworkStats
	wg    sync.WaitGroup

	mu     sync.RWMutex
	routes []wireRoute
	links  []stack.Link
	closed bool
}

// NetworkStats counts packets of a Network.
type NetworkStats struct {
	Delivered   atomic.Uint64
	NoRoute     atomic.Uint64 // nobody owns the destination, or only the sender
	BadChecksum atomic.Uint64 // IP, TCP, UDP or ICMP
	Filtered    atomic.Uint64 // lost by Filter
	Overflow    atomic.Uint64 // a Port was not read in time
}

type wireRoute struct {
	prefix netip.Prefix
	to     *wireEnd
}

// A wireEnd is one link of a Network: either an attached link, or a port.
type wireEnd struct {
	link stack.Link
	port *Port
}

// NewNetwork returns a Network for packets up to mtu bytes; 0 is 1500.
func NewNetwork(mtu int) *Network {
	if mtu == 0 {
		mtu = defaultMTU
	}
	return &Network{mtu: mtu}
}

// Stats returns the live counters.
func (n *Network) Stats() *NetworkStats { return &n.stats }

// Attach joins l: what l reads is forwarded, and packets for the prefixes in
// owns are written to l. 0.0.0.0/0 makes l the way to everywhere else. Close
// closes l.
func (n *Network) Attach(l stack.Link, owns ...netip.Prefix) {
	end := &wireEnd{link: l}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		l.Close()
		return
	}
	n.addLocked(end, owns)
	n.links = append(n.links, l)
	n.wg.Add(1)
	go n.pump(end)
}

// Port returns a new link of the Network itself, for a box or router to read
// and write. It owns the prefixes as in Attach.
func (n *Network) Port(owns ...netip.Prefix) *Port {
	p := &Port{
		net:   n,
		queue: make(chan *stack.Packet, portQueue),
		done:  make(chan struct{}),
	}
	p.pool.New = func() any { return stack.NewPacket(n.mtu) }
	p.end = &wireEnd{port: p}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addLocked(p.end, owns)
	n.links = append(n.links, p)
	return p
}

func (n *Network) addLocked(end *wireEnd, owns []netip.Prefix) {
	for _, p := range owns {
		n.routes = append(n.routes, wireRoute{p.Masked(), end})
	}
}

// Close closes all links and waits for their goroutines.
func (n *Network) Close() error {
	n.mu.Lock()
	n.closed = true
	links := n.links
	n.links = nil
	n.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
	n.wg.Wait()
	return nil
}

// pump forwards what the end's link reads until it closes.
func (n *Network) pump(from *wireEnd) {
	defer n.wg.Done()
	batch := make([]*stack.Packet, pumpBatch)
	for i := range batch {
		batch[i] = stack.NewPacket(n.mtu)
	}
	for {
		got, err := from.link.Read(batch)
		if err != nil {
			return
		}
		for _, p := range batch[:got] {
			n.forward(from, p)
		}
	}
}

// forward delivers one packet.
func (n *Network) forward(from *wireEnd, p *stack.Packet) {
	b := p.Data()
	if !checksumsRight(b) {
		n.stats.BadChecksum.Add(1)
		return
	}
	to := n.lookup(netip.AddrFrom4([4]byte(b[16:20])))
	if to == nil || to == from {
		n.stats.NoRoute.Add(1)
		return
	}
	if n.Filter != nil && !n.Filter(b) {
		n.stats.Filtered.Add(1)
		return
	}
	if to.port != nil {
		if !to.port.deliver(b) {
			n.stats.Overflow.Add(1)
			return
		}
	} else if to.link.Write([]*stack.Packet{p}) != nil {
		n.stats.NoRoute.Add(1)
		return
	}
	n.stats.Delivered.Add(1)
}

func (n *Network) lookup(dst netip.Addr) *wireEnd {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var best *wireEnd
	bits := -1
	for _, r := range n.routes {
		if r.prefix.Bits() > bits && r.prefix.Contains(dst) {
			best, bits = r.to, r.prefix.Bits()
		}
	}
	return best
}

// A Port is a stack.Link into a Network.
type Port struct {
	net   *Network
	end   *wireEnd
	queue chan *stack.Packet
	pool  sync.Pool
	once  sync.Once
	done  chan struct{}
}

var _ stack.Link = (*Port)(nil)

// deliver copies b into the queue; it reports false when that is full.
func (p *Port) deliver(b []byte) bool {
	q := p.pool.Get().(*stack.Packet)
	q.Reset()
	if !q.SetData(b) {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
	}
	select {
	case p.queue <- q:
		return true
	default:
		p.pool.Put(q)
		return false
	}
}

// Read waits for packets. See stack.Link.
func (p *Port) Read(batch []*stack.Packet) (int, error) {
	if len(batch) == 0 {
		return 0, errors.New("lab: read of an empty batch")
	}
	take := func(i int, q *stack.Packet) {
		batch[i].Reset()
		if !batch[i].SetData(q.Data()) {
			batch[i].SetLen(0)
		}
		batch[i].Time = time.Now()
		p.pool.Put(q)
	}
	select {
	case <-p.done: // even if packets wait
		return 0, net.ErrClosed
	default:
	}
	select {
	case <-p.done:
		return 0, net.ErrClosed
	case q := <-p.queue:
		take(0, q)
	}
	n := 1
	for n < len(batch) {
		select {
		case q := <-p.queue:
			take(n, q)
			n++
		default:
			return n, nil
		}
	}
	return n, nil
}

// Write sends packets into the Network. See stack.Link.
func (p *Port) Write(batch []*stack.Packet) error {
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	for _, q := range batch {
		p.net.forward(p.end, q)
	}
	return nil
}

// MTU is that of the Network, in bytes.
func (p *Port) MTU() int { return p.net.mtu }

// Close ends Read and Write.
func (p *Port) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// checksumsRight reports whether b is an IPv4 packet whose length fits and
// whose checksums are right: its own and, unless it is a fragment, that of its
// TCP, UDP or ICMP. (RFC 791, section 3.1; RFC 793; RFC 768; RFC 792.)
func checksumsRight(b []byte) bool {
	if !ipv4Whole(b) {
		return false
	}
	ihl := int(b[0]&15) * 4
	if sum16(b[:ihl], 0) != 0xffff {
		return false
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return true // a fragment: the rest is elsewhere
	}
	seg := b[ihl:]
	pseudo := uint32(b[9]) + uint32(len(seg))
	for i := 12; i < 20; i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	switch b[9] {
	case protoTCP:
		return len(seg) >= 20 && sum16(seg, pseudo) == 0xffff
	case protoUDP:
		if len(seg) < 8 {
			return false
		}
		if seg[6] == 0 && seg[7] == 0 {
			return true // not used
		}
		return sum16(seg, pseudo) == 0xffff
	case protoICMP:
		return len(seg) >= 8 && sum16(seg, 0) == 0xffff
	}
	return true
}

// ipv4Whole reports whether b is one whole IPv4 packet by its lengths.
func ipv4Whole(b []byte) bool {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return false
	}
	ihl := int(b[0]&15) * 4
	return ihl >= ipv4Header && ihl <= len(b) && int(binary.BigEndian.Uint16(b[2:])) == len(b)
}

// sum16 is the one's complement sum of b added to c, not inverted. (RFC 1071.)
func sum16(b []byte, c uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		c += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		c += uint32(b[0]) << 8
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return uint16(c)
}
