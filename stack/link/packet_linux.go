package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"patchbay/stack"
)

// A packetDevice is an Ethernet device of the kernel through packet sockets: a
// TPACKET_V2 ring to receive, sendmmsg to send. V3 would be cheaper at high
// rates but holds packets back for a block. (reference/dataplane.md, section C;
// Linux Documentation/networking/packet_mmap.rst.)
type packetDevice struct {
	kernelDevice
	frameLoop // for rx

	instead error // why it is no other device, nil: it was asked for

	others atomic.Pointer[[]uint16] // VLANs that others on the trunk have
	rx, tx int                      // sockets, -1: none; rx for trunk under its lock
	lost   atomic.Uint64            // frames the ring had no room for

	// Guarded by reading.
	ring   []byte
	slot   int    // bytes of one slot
	next   int    // slot that the kernel fills next
	copied []byte // a frame that is too long for a slot

	writing sync.Mutex // held while tx is in use
	msgs    [sendBatch]message
	iovs    [sendBatch]unix.Iovec
}

// A message is struct mmsghdr.
type message struct {
	unix.Msghdr
	_ uint32 // bytes sent, as the kernel counts
	_ [4]byte
}

const (
	sendBatch = 64      // frames to one sendmmsg
	ringBytes = 8 << 20 // bytes of receive ring
	ringBlock = 1 << 16 // bytes of memory that the kernel allocates at once
	minSlot   = 2048    // bytes
	sendBytes = 4 << 20 // bytes of send buffer

	copyBytes = 4 << 20        // bytes of frames too long for a slot that may wait
	longest   = 1<<16 + tagged // bytes of the longest frame

	// slotRoom is what a slot holds besides the IP packet, in bytes: the
	// header of the ring, an address, alignment, Ethernet and VLAN.
	slotRoom = 128
)

// openPacket opens the Ethernet device name.
func (ts *trunks) openPacket(name string, opt Options) (stack.Link, error) {
	d, err := newPacketDevice(ts, name, opt)
	if err != nil {
		return nil, hint(err)
	}
	e := NewEthernet(d, opt)
	e.forOthers = d.forOthers
	return e, nil
}

// forOthers reports whether others on the trunk take the frames of a VLAN.
func (d *packetDevice) forOthers(vlan uint16) bool {
	_, found := slices.BinarySearch(*d.others.Load(), vlan)
	return found
}

// newPacketDevice silences the kernel on the device and opens the sockets.
func newPacketDevice(ts *trunks, name string, opt Options) (_ *packetDevice, err error) {
	d := &packetDevice{rx: -1, tx: -1}
	d.others.Store(new([]uint16))
	defer func() {
		if err != nil {
			err = errors.Join(err, d.release())
		}
	}()
	if _, err := d.find(name, opt); err != nil {
		return nil, err
	}
	// A socket first: without leave for one, nothing should change.
	if err := d.openSender(); err != nil {
		return nil, err
	}
	if err := d.take(ts, opt, d); err != nil {
		return nil, err
	}
	if err := d.openRing(); err != nil {
		return nil, err
	}
	d.frameLoop = frameLoop{device: &d.kernelDevice, ready: d.readReady, check: d.check, wait: newWaiter(d.pending, d.rx, d.wake)}
	for i := range d.msgs {
		d.msgs[i].Iov = &d.iovs[i]
		d.msgs[i].SetIovlen(1)
	}
	return d, nil
}

// packetSocket opens a packet socket, which gets nothing until it is bound.
func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a packet socket: %w", err)
	}
	return fd, nil
}

// openSender opens the sending socket, which receives nothing.
func (d *packetDevice) openSender() (err error) {
	if d.tx, err = packetSocket(); err != nil {
		return err
	}
	// Straight to the device: its queueing discipline is not for us, and is
	// slow. Kernels before 3.14 do without. The larger buffer, too, is a wish.
	_ = unix.SetsockoptInt(d.tx, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	_ = unix.SetsockoptInt(d.tx, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBytes)
	return bind(d.tx, d.index, 0)
}

// bind binds a packet socket to a device and a type of frames, 0 for none.
func bind(fd, index int, proto uint16) error {
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], proto)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(be[:]), Ifindex: index}); err != nil {
		return fmt.Errorf("binding a packet socket: %w", err)
	}
	return nil
}

// openRing opens the receiving socket and maps its ring.
func (d *packetDevice) openRing() error {
	rx, err := packetSocket()
	if err != nil {
		return err
	}
	d.trunk.all.mu.Lock() // nobody joins or leaves meanwhile
	d.rx = rx
	d.filter()
	d.trunk.all.mu.Unlock()
	if err := unix.SetsockoptInt(rx, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return fmt.Errorf("choosing TPACKET_V2: %w", err)
	}
	// Kernels before 4.20 do not know it; forMe asks each frame anyway.
	_ = unix.SetsockoptInt(rx, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	// Frames too long for a slot wait in the socket's queue.
	if err := unix.SetsockoptInt(rx, unix.SOL_PACKET, unix.PACKET_COPY_THRESH, 1); err != nil {
		return fmt.Errorf("keeping long frames: %w", err)
	}
	_ = unix.SetsockoptInt(rx, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, copyBytes) // better, not needed
	d.copied = make([]byte, longest)
	d.slot = minSlot
	for d.slot < int(d.trunk.mtu.Load())+slotRoom {
		d.slot *= 2
	}
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: ringBytes / ringBlock,
		Frame_size: uint32(d.slot), Frame_nr: uint32(ringBytes / d.slot)}
	if err := unix.SetsockoptTpacketReq(rx, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("asking for a receive ring of %d bytes: %w", ringBytes, err)
	}
	d.ring, err = unix.Mmap(rx, 0, ringBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the receive ring: %w", err)
	}
	mreq := unix.PacketMreq{Ifindex: int32(d.index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(rx, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("promiscuous mode: %w", err)
	}
	return bind(rx, d.index, unix.ETH_P_ALL)
}

// header returns the header of slot i and the slot.
func (d *packetDevice) header(i int) (*unix.Tpacket2Hdr, []byte) {
	b := d.ring[i*d.slot : (i+1)*d.slot : (i+1)*d.slot]
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0])), b
}

// ReadFrames implements FrameDevice.
func (d *packetDevice) ReadFrames(fn func(f *Frame) bool) error { return d.read(fn) }

// readReady is frameLoop.ready.
func (d *packetDevice) readReady(fn func(f *Frame) bool) (some bool) {
	slots := len(d.ring) / d.slot
	var now time.Time
	for range slots {
		for d.super.more() {
			some = true
			if !fn(d.cut()) {
				return true
			}
		}
		h, b := d.header(d.next)
		status := atomic.LoadUint32(&h.Status)
		if status&unix.TP_STATUS_USER == 0 {
			return some
		}
		if now.IsZero() {
			now = d.now()
		}
		more := true
		if d.frame = d.open(h, b, status, now); d.frame.Data != nil {
			some = true
			more = fn(&d.frame)
			d.frame.Data = nil
		}
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
		d.next = (d.next + 1) % slots
		if !more {
			return true
		}
	}
	return some
}

// pending returns how many slots are to be read, as far as two.
func (d *packetDevice) pending() (n int) {
	for slot := d.next; n < 2; n++ {
		h, _ := d.header(slot)
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			break
		}
		slot = (slot + 1) % (len(d.ring) / d.slot)
	}
	return n
}

// open returns the frame in slot b with the header h. One that is longer than
// the MTU goes to d.super; then, and if the frame is to be dropped, Data is nil.
func (d *packetDevice) open(h *unix.Tpacket2Hdr, b []byte, status uint32, now time.Time) Frame {
	f := Frame{
		Time:    now,
		Tagged:  status&unix.TP_STATUS_VLAN_VALID != 0,
		Tag:     h.Vlan_tci,
		Vouched: status&unix.TP_STATUS_CSUMNOTREADY != 0,
	}
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		f.TPID = h.Vlan_tpid
	}
	mtu := int(d.trunk.mtu.Load()) // of the device: what comes is as long
	data := b[min(int(h.Mac), len(b)):min(int(h.Mac)+int(h.Snaplen), len(b))]
	if status&unix.TP_STATUS_COPY != 0 {
		n, _, err := unix.Recvfrom(d.rx, d.copied, unix.MSG_DONTWAIT)
		if err != nil {
			n = 0
		}
		data = d.copied[:n]
	}
	switch {
	case !forMe(b):
	case len(data) < int(h.Len):
		d.oversized.Add(1)
	case len(data) <= mtu+tagged:
		f.Data = data
	default:
		d.long(f, data, mtu)
	}
	return f
}

// forMe reports whether the frame in slot b came from outside, not from this
// machine. A struct sockaddr_ll follows the header of the slot.
func forMe(b []byte) bool {
	const packetType = (unix.SizeofTpacket2Hdr+unix.TPACKET_ALIGNMENT-1)&^(unix.TPACKET_ALIGNMENT-1) + 10
	return b[packetType] != unix.PACKET_OUTGOING && b[packetType] != unix.PACKET_LOOPBACK
}

// check is frameLoop.check.
func (d *packetDevice) check() error {
	if d.wait.broken(0) {
		// The device went down, which passes, or away, which does not. Asking
		// clears the error.
		if _, err := unix.GetsockoptInt(d.rx, unix.SOL_SOCKET, unix.SO_ERROR); err != nil {
			return fmt.Errorf("link: reading %s: %w", d.name, err)
		}
	} else if !d.wait.idle {
		return nil
	}
	// A device goes down before it goes away, and only the first is told. The
	// socket of one that is gone is bound to none.
	sa, err := unix.Getsockname(d.rx)
	if err != nil {
		return fmt.Errorf("link: reading %s: %w", d.name, err)
	}
	if to, ok := sa.(*unix.SockaddrLinklayer); ok && to.Ifindex != d.index {
		return d.gone("reading")
	}
	return nil
}

// WriteFrames implements FrameDevice.
func (d *packetDevice) WriteFrames(frames [][]byte) (dropped int, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	for len(frames) > 0 {
		if d.closed.Load() {
			return dropped, net.ErrClosed
		}
		n := min(len(frames), sendBatch)
		for i, f := range frames[:n] {
			d.iovs[i].Base = &f[0]
			d.iovs[i].SetLen(len(f))
		}
		r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(d.tx), uintptr(unsafe.Pointer(&d.msgs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		runtime.KeepAlive(frames)
		clear(d.iovs[:n])
		switch errno {
		case 0:
			frames = frames[r:]
		case unix.EINTR:
		case unix.ENXIO, unix.ENODEV:
			return dropped, d.gone("writing")
		default: // about the first frame: no room, too long, device down
			dropped++
			frames = frames[1:]
		}
	}
	return dropped, nil
}

// Note returns why the device was opened in place of another, or nil.
func (d *packetDevice) Note() error { return d.instead }

// Driver returns what Open takes: "packet:eth0".
func (d *packetDevice) Driver() string { return "packet:" + d.name }

// Stats returns what was lost below Ethernet.
func (d *packetDevice) Stats() Stats {
	d.writing.Lock() // keeps Close away
	if !d.closed.Load() {
		// The kernel counts from the last question.
		if st, err := unix.GetsockoptTpacketStats(d.rx, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			d.lost.Add(uint64(st.Drops))
		}
	}
	d.writing.Unlock()
	s := Stats{Drops: make(map[Reason]uint64)}
	for r, n := range map[Reason]uint64{RingFull: d.lost.Load(), Oversize: d.oversized.Load()} {
		if n != 0 {
			s.Drops[r] = n
		}
	}
	return s
}

// Close implements FrameDevice.
func (d *packetDevice) Close() error {
	if first, err := d.end(); !first || err != nil {
		return err
	}
	d.stop()
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.release(); err != nil {
		return fmt.Errorf("link: closing %s: %w", d.name, err)
	}
	return nil
}

// release gives back whatever d has.
func (d *packetDevice) release() error {
	var errs []error
	if d.ring != nil {
		errs = append(errs, unix.Munmap(d.ring))
		d.ring = nil
	}
	errs = append(errs, d.kernelDevice.release()) // nobody filters d any more
	for _, fd := range []*int{&d.rx, &d.tx} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}
