package link

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// An Ethernet header, with an 802.1Q tag where it has one. (IEEE 802.3, section
// 3.1.1; IEEE 802.1Q, section 9.5.)
//
//	0             6             12     14
//	+-------------+-------------+------+------------
//	| destination |   source    | type | packet ...
//	+-------------+-------------+------+-----+------+-----------
//	| destination |   source    | 8100 | tag | type | packet ...
//	+-------------+-------------+------+-----+------+-----------
//	0             6             12     14    16     18
const (
	untagged = 14 // bytes of header
	tagged   = 18

	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd

	vlanID = 0x0fff // in the tag; the rest is priority
)

// An Ethernet is a stack.Link on an Ethernet device. It answers ARP for the
// box's own address and those it stands in for, and finds the MAC addresses of
// neighbours by ARP. (RFC 826, RFC 1027.)
//
// IPv6 packets pass to the stack, which counts and drops them.
type Ethernet struct {
	counters
	dev  FrameDevice
	mac  MAC
	vlan uint16
	now  func() time.Time

	// forOthers reports whether another link on the device has the frames
	// of a VLAN, which are then no concern of this one; nil: none has.
	forOthers func(vlan uint16) bool

	addrs atomic.Pointer[addrs]

	all    etherReader   // of all frames
	queues []etherReader // of those of one queue each, where there are several
	sends  []etherSend   // by queue

	mu         sync.Mutex
	neighbours neighbours
	conflicts  map[netip.Addr]*conflict
	frames     [][]byte // to be written: ARP, and what waited for it
}

// An etherReader is where one goroutine reads an Ethernet.
type etherReader struct {
	e     *Ethernet
	queue int
	read  func(func(*Frame) bool) error
	take  func(*Frame) bool // r.takeFrame
	batch []*stack.Packet   // to be filled
	got   int               // packets in batch
	bytes int               // of them
}

// An etherSend is what is written by one queue.
type etherSend struct {
	write func(frames [][]byte) (dropped int, err error)

	mu     sync.Mutex // held before Ethernet.mu
	frames [][]byte
}

// addrs is what SetAddrs set.
type addrs struct {
	own   netip.Prefix
	proxy func(netip.Addr) bool
}

// NewEthernet returns a link on dev, which it closes with itself. Until
// SetAddrs it answers no ARP and reaches nobody.
func NewEthernet(dev FrameDevice, opt Options) *Ethernet {
	e := &Ethernet{dev: dev, mac: dev.MAC(), vlan: opt.VLAN, now: opt.now()}
	e.all = etherReader{e: e, read: dev.ReadFrames}
	e.all.take = e.all.takeFrame
	e.addrs.Store(&addrs{})
	q, ok := dev.(queueDevice)
	if !ok || q.Queues() < 2 {
		e.sends = []etherSend{{write: dev.WriteFrames}}
		return e
	}
	e.queues, e.sends = make([]etherReader, q.Queues()), make([]etherSend, q.Queues())
	for i := range e.queues {
		r := &e.queues[i]
		*r = etherReader{e: e, queue: i, read: func(fn func(*Frame) bool) error { return q.ReadQueue(i, fn) }}
		r.take = r.takeFrame
		e.sends[i].write = func(frames [][]byte) (int, error) { return q.WriteQueue(i, frames) }
	}
	return e
}

// Readers implements stack.Queued.
func (e *Ethernet) Readers() []stack.Reader {
	if len(e.queues) == 0 {
		return []stack.Reader{&e.all}
	}
	all := make([]stack.Reader, len(e.queues))
	for i := range e.queues {
		all[i] = &e.queues[i]
	}
	return all
}

// SetAddrs makes own the address and subnet of the box, and answers ARP also
// for the addresses that proxy says yes to: mapped addresses, media
// termination. proxy may be nil; it is called by the goroutine that reads and
// must not block.
func (e *Ethernet) SetAddrs(own netip.Prefix, proxy func(netip.Addr) bool) {
	e.addrs.Store(&addrs{own, proxy})
}

// answers reports whether the box answers ARP for a.
func (a *addrs) answers(addr netip.Addr) bool {
	return addr == a.own.Addr() || a.proxy != nil && a.proxy(addr)
}

// onLink reports whether addr can be a neighbour of the box.
func (a *addrs) onLink(addr netip.Addr) bool {
	return a.own.Contains(addr) && addr != a.own.Addr() && !a.isBroadcast(addr)
}

// isBroadcast reports whether addr is all hosts on the link. (RFC 919; RFC 3021
// for /31.)
func (a *addrs) isBroadcast(addr netip.Addr) bool {
	v := addr.As4()
	n := binary.BigEndian.Uint32(v[:])
	if n == 0xffffffff {
		return true
	}
	if !a.own.IsValid() || a.own.Bits() > 30 || !a.own.Contains(addr) {
		return false
	}
	host := uint32(0xffffffff) >> a.own.Bits()
	return n&host == host
}

// MAC returns the address of the device.
func (e *Ethernet) MAC() MAC { return e.mac }

// Driver returns the name of the device below, as Open takes it, or what it is.
func (e *Ethernet) Driver() string {
	if d, ok := e.dev.(interface{ Driver() string }); ok {
		return d.Driver()
	}
	return "ethernet"
}

// Mode says how the driver runs, where there is something to say: "native, copy,
// 2 queues".
func (e *Ethernet) Mode() string {
	if d, ok := e.dev.(interface{ Mode() string }); ok {
		return d.Mode()
	}
	return ""
}

// Note says why the device below is not what Open was asked for first, nil: it is.
func (e *Ethernet) Note() error {
	if d, ok := e.dev.(interface{ Note() error }); ok {
		return d.Note()
	}
	return nil
}

// QueueStats returns what each queue of the device lost, where it has queues.
func (e *Ethernet) QueueStats() []QueueStats {
	if d, ok := e.dev.(interface{ QueueStats() []QueueStats }); ok {
		return d.QueueStats()
	}
	return nil
}

// MTU implements stack.Link.
func (e *Ethernet) MTU() int { return e.dev.MTU() }

// Close implements stack.Link.
func (e *Ethernet) Close() error { return e.dev.Close() }

// Stats returns what passed, and what the device itself lost.
func (e *Ethernet) Stats() Stats {
	s := e.counters.Stats()
	if c, ok := e.dev.(Counter); ok {
		for r, n := range c.Stats().Drops {
			s.Drops[r] += n
		}
	}
	return s
}

// Read implements stack.Link.
func (e *Ethernet) Read(batch []*stack.Packet) (int, error) { return e.all.Read(batch) }

// Read implements stack.Reader.
func (r *etherReader) Read(batch []*stack.Packet) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	r.batch, r.got, r.bytes = batch, 0, 0
	for {
		err := r.read(r.take)
		if r.got > 0 || err != nil {
			r.batch = nil
			r.e.in(r.got, r.bytes)
			return r.got, err
		}
	}
}

// takeFrame takes one frame off the device: packets go into the batch, ARP is
// dealt with at once. It reports whether there is room for more.
func (r *etherReader) takeFrame(f *Frame) (more bool) {
	e := r.e
	dst, src, typ, body, ok := e.open(f)
	if !ok {
		return true
	}
	switch typ {
	case typeARP:
		e.takeARP(body, dst, f.Time)
		return true
	case typeIPv4:
		if dst.group() && !groupPacket(body, e.addrs.Load()) {
			e.drop(NotForUs) // one host's packet to all stations (RFC 1122, section 3.3.6)
			return true
		}
	case typeIPv6:
	default:
		e.drop(OtherType)
		return true
	}
	if src.group() {
		e.drop(Malformed)
		return true
	}
	p := r.batch[r.got]
	if !p.SetData(body) {
		e.drop(Oversize)
		return true
	}
	p.Time, p.ChecksumVouched, p.Queue = f.Time, f.Vouched, r.queue
	r.got++
	r.bytes += len(body)
	return r.got < len(r.batch)
}

// open checks the header of a frame and returns what is in it, or counts why
// the frame is not for us.
func (e *Ethernet) open(f *Frame) (dst, src MAC, typ uint16, body []byte, ok bool) {
	d := f.Data
	if len(d) < untagged {
		e.drop(Malformed)
		return dst, src, 0, nil, false
	}
	dst, src = MAC(d), MAC(d[6:])
	if dst != e.mac && !dst.group() {
		e.drop(NotForUs)
		return dst, src, 0, nil, false
	}
	typ, body = binary.BigEndian.Uint16(d[12:]), d[untagged:]
	tag := f.Tag
	if typ == typeVLAN && !f.Tagged {
		if len(d) < tagged {
			e.drop(Malformed)
			return dst, src, 0, nil, false
		}
		tag = binary.BigEndian.Uint16(d[14:])
		typ, body = binary.BigEndian.Uint16(d[16:]), d[tagged:]
	}
	if f.Tagged && f.TPID != 0 && f.TPID != typeVLAN { // a service tag: another network's
		e.drop(OtherType)
		return dst, src, 0, nil, false
	}
	if vlan := tag & vlanID; vlan != e.vlan { // a tag with identifier 0 carries only a priority
		if e.forOthers == nil || !e.forOthers(vlan) {
			e.drop(WrongVLAN)
		}
		return dst, src, 0, nil, false
	}
	return dst, src, typ, body, true
}

// groupPacket reports whether the IPv4 packet b is to more hosts than one.
func groupPacket(b []byte, a *addrs) bool {
	if len(b) < 20 {
		return true // for Parse to name
	}
	dst := netip.AddrFrom4([4]byte(b[16:20]))
	return dst.IsMulticast() || a.isBroadcast(dst)
}

// Write implements stack.Link. What came by one queue leaves by one, so that a
// flow stays in order and whoever reads the queues is not held up by others.
func (e *Ethernet) Write(batch []*stack.Packet) error {
	if len(batch) == 0 {
		return nil
	}
	s := &e.sends[batch[0].Queue%len(e.sends)]
	s.mu.Lock()
	defer s.mu.Unlock()
	n, bytes := e.frame(s, batch)
	if len(s.frames) == 0 {
		return nil
	}
	lost, err := s.write(s.frames)
	for range lost {
		e.drop(SendFailed)
	}
	clear(s.frames) // packets are borrowed
	s.frames = s.frames[:0]
	if err == nil {
		e.out(max(n-lost, 0), bytes)
	}
	return err
}

// frame puts the packets of batch whose neighbours are known, and what there is
// to ask for others, as frames into s. It returns how many packets they are, and
// their bytes.
func (e *Ethernet) frame(s *etherSend, batch []*stack.Packet) (n, bytes int) {
	a := e.addrs.Load()
	now, mtu := e.now(), e.dev.MTU()
	var last netip.Addr // neighbour of the packet before, at lastMAC
	var lastMAC MAC
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range batch {
		if p.Len() > mtu {
			e.drop(Oversize)
			continue
		}
		hop := p.NextHop
		if !hop.IsValid() {
			hop = destination(p.Data())
		}
		var mac MAC
		frame := p.WithHeader(e.headerLen())
		switch {
		case hop == last && last.IsValid():
			mac = lastMAC
		case !hop.Is4():
			e.drop(NoAdjacency)
			continue
		case hop.IsMulticast(): // RFC 1112, section 6.4
			v := hop.As4()
			mac = MAC{0x01, 0x00, 0x5e, v[1] & 0x7f, v[2], v[3]}
		case a.isBroadcast(hop):
			mac = broadcast
		default:
			var known bool
			mac, known = e.resolveLocked(hop, a, frame, now)
			if len(e.frames) > 0 { // it asks
				s.frames = append(s.frames, e.frames...)
				clear(e.frames)
				e.frames = e.frames[:0]
			}
			if !known {
				continue
			}
		}
		last, lastMAC = hop, mac
		e.putHeader(frame, mac, typeIPv4)
		s.frames = append(s.frames, frame)
		n++
		bytes += p.Len()
	}
	return n, bytes
}

// writeLocked writes e.frames and forgets them.
func (e *Ethernet) writeLocked() (lost int, err error) {
	if len(e.frames) == 0 {
		return 0, nil
	}
	lost, err = e.dev.WriteFrames(e.frames)
	for range lost {
		e.drop(SendFailed)
	}
	clear(e.frames)
	e.frames = e.frames[:0]
	return lost, err
}

// destination returns the destination address of the IPv4 packet d.
func destination(d []byte) netip.Addr {
	if len(d) < 20 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(d[16:20]))
}

// headerLen is the length of our Ethernet header in bytes.
func (e *Ethernet) headerLen() int {
	if e.vlan != 0 {
		return tagged
	}
	return untagged
}

// putHeader writes our header, headerLen bytes, to the start of frame.
func (e *Ethernet) putHeader(frame []byte, dst MAC, typ uint16) {
	copy(frame, dst[:])
	copy(frame[6:], e.mac[:])
	if e.vlan != 0 {
		binary.BigEndian.PutUint16(frame[12:], typeVLAN)
		binary.BigEndian.PutUint16(frame[14:], e.vlan)
		binary.BigEndian.PutUint16(frame[16:], typ)
		return
	}
	binary.BigEndian.PutUint16(frame[12:], typ)
}
