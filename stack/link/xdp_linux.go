package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"patchbay/stack"
)

// An xdpDevice is an Ethernet device of the kernel, or one VLAN of it, by AF_XDP:
// a program on the device has frames go past the kernel's stack to sockets, one
// for each queue. Frames are copied out of the queue's memory and into it, as
// those of every FrameDevice are; nothing of it leaves this file and xdpring.
type xdpDevice struct {
	kernelDevice

	port    *xdpPort
	sockets []*xdpSocket // by queue; none once closed
	rings   []*xdpQueue  // by queue

	queues []*xdpReader // one a queue
	all    *xdpReader   // reads them all

	counting sync.Mutex   // held while the sockets are asked, and while they close
	last     []QueueStats // once they are closed
	lastElse uint64       // then, too: what came by other queues
}

// An xdpReader is where one goroutine reads some queues.
type xdpReader struct {
	frameLoop
	d       *xdpDevice
	sockets []*xdpSocket
	turn    int    // socket that is looked at first
	pieces  []byte // of a frame that is not whole yet, or too long for its place
}

// MaxXDPMTU is the largest MTU that "xdp:" takes, in bytes: a page less what
// the kernel keeps before and after a frame in it. (reference/dataplane.md.)
const MaxXDPMTU = 3498

// openXDP opens what "xdp:" is followed by: a device and options.
func (ts *trunks) openXDP(spec string, opt Options) (stack.Link, error) {
	name, conf, err := parseXDP(spec)
	if err != nil {
		return nil, err
	}
	d, err := newXDPDevice(ts, name, conf, opt)
	if err != nil {
		return nil, hint(err)
	}
	return NewEthernet(d, opt), nil
}

// openAuto opens what openXDP would, or for want of it a packet device, which
// then says why.
func (ts *trunks) openAuto(spec string, opt Options) (stack.Link, error) {
	name, _, err := parseXDP(spec)
	if err != nil {
		return nil, err
	}
	l, errXDP := ts.openXDP(spec, opt)
	if errXDP == nil {
		return l, nil
	}
	l, err = ts.openPacket(name, opt)
	if errors.Is(err, errOtherKind) {
		return nil, errXDP // it could have been that alone
	}
	if err != nil {
		return nil, err
	}
	l.(*Ethernet).dev.(*packetDevice).instead = fmt.Errorf("xdp: %w", errXDP)
	return l, nil
}

// parseXDP reads "DEVICE[,OPTION]...".
func parseXDP(spec string) (device string, conf xdpConfig, err error) {
	device, rest, some := strings.Cut(spec, ",")
	for some {
		var option string
		option, rest, some = strings.Cut(rest, ",")
		key, value, _ := strings.Cut(option, "=")
		switch {
		case option == "mode=native":
			conf.mode = xdpNative
		case option == "mode=generic":
			conf.mode = xdpGeneric
		case option == "zerocopy":
			conf.zeroCopy = true
		case key == "queues":
			if conf.queues, err = strconv.Atoi(value); err != nil || conf.queues < 1 || conf.queues > maxQueues {
				return "", conf, fmt.Errorf("option %q: want a number of queues from 1 to %d", option, maxQueues)
			}
		default:
			return "", conf, fmt.Errorf("there is no option %q; there are mode=native, mode=generic, zerocopy and queues=N", option)
		}
	}
	if conf.zeroCopy && conf.mode == xdpGeneric {
		return "", conf, errors.New("zerocopy is something that drivers do: it does not go with mode=generic")
	}
	return device, conf, nil
}

// maxQueues bounds the queues that a device may be given.
const maxQueues = 64

// newXDPDevice silences the kernel on the device, opens the sockets and attaches
// the program, or joins a link that has.
func newXDPDevice(ts *trunks, name string, conf xdpConfig, opt Options) (_ *xdpDevice, err error) {
	d := &xdpDevice{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release())
		}
	}()
	mtu, err := d.find(name, opt)
	if err != nil {
		return nil, err
	}
	if opt.MTU > 0 {
		mtu = opt.MTU
	}
	if mtu > MaxXDPMTU {
		return nil, fmt.Errorf("its MTU of %d is above %d, the most that fits in a frame of AF_XDP; choose one, or open it as packet:%s",
			mtu, MaxXDPMTU, name)
	}
	// A socket first: without leave for one, nothing should change.
	fd, err := openXSK()
	if err != nil {
		return nil, err
	}
	if err := unix.Close(fd); err != nil {
		return nil, err
	}
	if err := d.take(ts, opt, d); err != nil {
		return nil, err
	}
	if err := d.join(conf); err != nil {
		return nil, err
	}
	for _, s := range d.sockets {
		d.queues, d.rings = append(d.queues, d.reader(s)), append(d.rings, s.q)
	}
	d.all = d.reader(d.sockets...)
	return d, nil
}

// join opens the port of the trunk if d is the first, and its sockets there.
func (d *xdpDevice) join(conf xdpConfig) (err error) {
	d.trunk.all.mu.Lock()
	defer d.trunk.all.mu.Unlock()
	if d.trunk.xdp == nil {
		if d.trunk.xdp, err = openXDPPort(d.trunk, conf); err != nil {
			d.trunk.xdp = nil
			return err
		}
	}
	d.port = d.trunk.xdp
	if conf != d.port.conf {
		return errors.New("another interface opened the device with other options; give both the same")
	}
	return d.port.join(d, d.vlan)
}

// leave undoes join.
func (d *xdpDevice) leave() error {
	d.trunk.all.mu.Lock()
	defer d.trunk.all.mu.Unlock()
	if d.port == nil {
		return nil
	}
	err := d.port.leave(d, d.vlan)
	if len(d.port.users) == 0 {
		err = errors.Join(err, d.port.close())
		d.trunk.xdp = nil
	}
	return err
}

// reader returns a reader of some sockets.
func (d *xdpDevice) reader(sockets ...*xdpSocket) *xdpReader {
	var fds []int
	for _, s := range sockets {
		fds = append(fds, s.fd)
	}
	r := &xdpReader{d: d, sockets: sockets}
	r.frameLoop = frameLoop{device: &d.kernelDevice, ready: r.readReady, check: r.check, wait: newWaiter(r.pending, append(fds, d.wake)...)}
	return r
}

// setOthers implements trunkUser. The program keeps their frames away.
func (d *xdpDevice) setOthers([]uint16) {}

// kind implements trunkUser.
func (d *xdpDevice) kind() string { return "xdp" }

// ReadFrames implements FrameDevice: it reads all queues.
func (d *xdpDevice) ReadFrames(fn func(f *Frame) bool) error { return d.all.read(fn) }

// Queues implements queueDevice.
func (d *xdpDevice) Queues() int { return len(d.queues) }

// ReadQueue implements queueDevice.
func (d *xdpDevice) ReadQueue(i int, fn func(f *Frame) bool) error { return d.queues[i].read(fn) }

// readReady is frameLoop.ready.
func (r *xdpReader) readReady(fn func(f *Frame) bool) (some bool) {
	var now time.Time
	for range r.sockets {
		s := r.sockets[r.turn]
		first := s.rx.consumer.Load()
		n := s.rx.producer.Load() - first
		if n > 0 && now.IsZero() {
			now = r.d.now()
		}
		used, more := uint32(0), true
		for more && (used < n || r.super.more()) {
			if r.super.more() {
				r.cut()
			} else {
				desc := s.rx.desc[(first+used)&s.rx.mask]
				used++
				r.frame = Frame{Time: now}
				if r.frame.Data = r.open(s.q, desc, now); r.frame.Data == nil {
					continue
				}
			}
			some = true
			more = fn(&r.frame)
			r.frame.Data = nil
		}
		if used > 0 {
			s.give(first, used)
		}
		// The next is first the next time, too: this one may always have more.
		if r.turn++; r.turn == len(r.sockets) {
			r.turn = 0
		}
		if !more {
			return true
		}
	}
	return some
}

// open returns the frame that a descriptor is about, or nothing if it is not
// whole yet, is to be dropped, or is longer than the MTU and has gone to r.super.
func (r *xdpReader) open(q *xdpQueue, desc unix.XDPDesc, now time.Time) []byte {
	data := q.frame(desc)
	if desc.Options&unix.XDP_PKT_CONTD != 0 || len(r.pieces) > 0 {
		if len(r.pieces)+len(data) <= 2*longest {
			r.pieces = append(r.pieces, data...)
		}
		if desc.Options&unix.XDP_PKT_CONTD != 0 {
			return nil
		}
		data = r.pieces
		defer func() { r.pieces = r.pieces[:0] }()
	}
	mtu := int(r.d.trunk.mtu.Load()) // of the device: what comes is as long
	if len(data) <= mtu+tagged {
		r.frame.Vouched = openChecksum(data)
		return data
	}
	f := Frame{Time: now}
	if binary.BigEndian.Uint16(data[untagged-2:]) == typeVLAN {
		f.Tagged, f.Tag = true, binary.BigEndian.Uint16(data[untagged:])
		copy(data[tagged-untagged:], data[:untagged-2])
		data = data[tagged-untagged:]
	}
	r.long(f, data, mtu)
	return nil
}

// pending returns how many frames are to be read.
func (r *xdpReader) pending() (n int) {
	for _, s := range r.sockets {
		n += int(s.rx.producer.Load() - s.rx.consumer.Load())
	}
	return n
}

// openChecksum reports whether the transport checksum of a frame is that of the
// pseudo-header alone, which is where a sender on this machine leaves it for a
// device to go on from. A program of XDP is not told that; a true checksum that
// comes to the same, one in 65,536, is made anew and comes out the same. (Linux
// Documentation/networking/checksum-offloads.rst.)
func openChecksum(frame []byte) bool {
	if len(frame) < tagged {
		return false
	}
	typ, ip := binary.BigEndian.Uint16(frame[untagged-2:]), frame[untagged:]
	if typ == typeVLAN {
		typ, ip = binary.BigEndian.Uint16(frame[tagged-2:]), frame[tagged:]
	}
	if typ != typeIPv4 || len(ip) < ipHeaderLen || ip[0] != 0x45 || binary.BigEndian.Uint16(ip[ipFragAt:])&fragBits != 0 {
		return false
	}
	n := int(binary.BigEndian.Uint16(ip[ipLenAt:])) - ipHeaderLen
	at := 0
	switch ip[ipProtoAt] {
	case protoTCP:
		at = ipHeaderLen + tcpSumAt
	case protoUDP:
		at = ipHeaderLen + udpSumAt
	default:
		return false
	}
	if n < 0 || at+2 > len(ip) {
		return false
	}
	both := binary.BigEndian.Uint64(ip[ipSrcAt:]) // addresses
	sum := uint32(ip[ipProtoAt]) + uint32(n) + uint32(both>>48) + uint32(both>>32)&0xffff + uint32(both>>16)&0xffff + uint32(both)&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return binary.BigEndian.Uint16(ip[at:]) == uint16(sum)
}

// Offsets in bytes, of IPv4, TCP and UDP. (RFC 791, section 3.1; RFC 9293,
// section 3.1; RFC 768.)
const (
	ipFragAt = 6
	ipSrcAt  = 12
	tcpSumAt = 16
	udpSumAt = 6

	protoUDP = 17
	fragBits = 0x3fff // more fragments, offset
)

// check is frameLoop.check.
func (r *xdpReader) check() error {
	for i, s := range r.sockets {
		// Kernels before 5.11 tell who waits.
		if r.wait.broken(i) || r.wait.idle && !s.bound() {
			return r.d.gone("reading")
		}
	}
	return nil
}

// WriteFrames implements FrameDevice.
func (d *xdpDevice) WriteFrames(frames [][]byte) (dropped int, err error) {
	return d.WriteQueue(0, frames)
}

// WriteQueue implements queueDevice.
func (d *xdpDevice) WriteQueue(i int, frames [][]byte) (dropped int, err error) {
	q := d.rings[i]
	q.sending.Lock()
	defer q.sending.Unlock()
	if d.closed.Load() {
		return 0, net.ErrClosed
	}
	dropped, err = q.send(frames)
	if err != nil {
		return dropped, d.gone("writing")
	}
	return dropped, nil
}

// Driver returns what Open takes: "xdp:eth0".
func (d *xdpDevice) Driver() string { return "xdp:" + d.name }

// Mode says how the device is driven: "native, copy, 2 queues".
func (d *xdpDevice) Mode() string {
	how := "copy"
	if d.port.conf.zeroCopy {
		how = "zero-copy"
	}
	n := len(d.rings)
	if n == 1 {
		return fmt.Sprintf("%v, %s, 1 queue", d.port.mode, how)
	}
	return fmt.Sprintf("%v, %s, %d queues", d.port.mode, how, n)
}

// Note returns why the mode is not native where that was tried, or nil.
func (d *xdpDevice) Note() error { return d.port.why }

// Stats returns what was lost below Ethernet.
func (d *xdpDevice) Stats() Stats {
	s := Stats{Drops: make(map[Reason]uint64)}
	add := func(r Reason, n uint64) {
		if n != 0 {
			s.Drops[r] += n
		}
	}
	add(Oversize, d.oversized.Load())
	add(OtherQueue, d.otherQueue())
	for _, q := range d.QueueStats() {
		add(RingFull, q.RingFull)
		add(FillEmpty, q.FillEmpty)
		add(KernelDrop, q.KernelDrop)
		add(BadDescriptor, q.BadDescriptor)
	}
	return s
}

// otherQueue returns what came to the device by queues that it was given later.
func (d *xdpDevice) otherQueue() uint64 {
	d.counting.Lock()
	defer d.counting.Unlock()
	if d.sockets == nil {
		return d.lastElse
	}
	return d.port.otherQueue()
}

// QueueStats returns what each queue lost. What had no place in a send ring is in
// the link's Drops as SendFailed.
func (d *xdpDevice) QueueStats() []QueueStats {
	d.counting.Lock()
	defer d.counting.Unlock()
	if d.sockets == nil {
		return d.last
	}
	all := make([]QueueStats, len(d.sockets))
	for i, s := range d.sockets {
		all[i].Queue, all[i].Received = s.q.index, s.received.Load()
		st, err := s.statistics()
		if err != nil {
			continue
		}
		// The kernel counts a frame that found no place twice.
		empty := min(st.Rx_fill_ring_empty_descs, st.Rx_dropped)
		s.q.sending.Lock()
		all[i].Sent, all[i].SendFull = s.q.sent, s.q.full
		s.q.sending.Unlock()
		all[i].RingFull, all[i].FillEmpty, all[i].KernelDrop = st.Rx_ring_full, empty, st.Rx_dropped-empty
		all[i].BadDescriptor = st.Rx_invalid_descs + st.Tx_invalid_descs + s.senseless.Load()
	}
	return all
}

// Close implements FrameDevice.
func (d *xdpDevice) Close() error {
	if first, err := d.end(); !first || err != nil {
		return err
	}
	for _, r := range append(slices.Clone(d.queues), d.all) {
		r.stop()
	}
	for _, q := range d.rings {
		q.pause() // nobody sends for d any more
	}
	last, lastElse := d.QueueStats(), d.otherQueue()
	d.counting.Lock()
	defer d.counting.Unlock()
	d.last, d.lastElse = last, lastElse
	if err := d.release(); err != nil {
		return fmt.Errorf("link: closing %s: %w", d.name, err)
	}
	return nil
}

// release gives back whatever d has.
func (d *xdpDevice) release() error {
	var err error
	if d.trunk != nil {
		err = d.leave()
	}
	return errors.Join(err, d.kernelDevice.release())
}
