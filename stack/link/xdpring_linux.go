package link

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An xdpQueue is one queue of an Ethernet device through AF_XDP: memory in which
// the kernel and we keep frames, and rings of descriptors by which they change
// hands. A frame to receive goes round: fill, the kernel, an rx ring, its reader,
// fill. One to send: free, tx, the kernel, completion, free. (Linux
// Documentation/networking/af_xdp.rst.)
//
// There is one fill, one tx and one completion ring for all links on the queue,
// but an rx ring for each: the program gives each VLAN its own.
type xdpQueue struct {
	index  int // of the queue
	device int // index of the device
	memory []byte
	chunk  int       // bytes of a frame's place in memory
	base   xdpSocket // the socket that the memory belongs to
	long   bool      // frames longer than a chunk come in pieces

	filling sync.Mutex
	fill    ring[uint64]

	sending    sync.Mutex // guards the rest
	tx         ring[unix.XDPDesc]
	completion ring[uint64]
	free       []uint64 // places for frames to send
	sent       uint64   // frames
	full       uint64   // frames there was no place for
	down       bool     // the device was when it was last asked to send
}

// An xdpSocket is an AF_XDP socket with an rx ring.
type xdpSocket struct {
	q        *xdpQueue
	fd       int // -1: none
	rx       ring[unix.XDPDesc]
	received atomic.Uint64 // descriptors

	senseless atomic.Uint64 // descriptors that made no sense
}

// Places for frames of one queue. Four thousand are what the forwarder may be
// late by: 8 ms at half a million packets a second.
const (
	xdpReceive = 4096
	xdpSend    = 2048
)

// xdpHeadroom is what the kernel leaves free before a frame it received, in
// bytes. (XDP_PACKET_HEADROOM.)
const xdpHeadroom = unix.XDP_PACKET_HEADROOM

// xdpBusy is how long a queue may be held by a socket that was closed: the
// kernel lets go of it later, without saying when.
const xdpBusy = 1500 * time.Millisecond

// newXDPQueue opens the queue of a device for frames in chunks of so many bytes.
func newXDPQueue(device, index, chunk int, zeroCopy bool) (_ *xdpQueue, err error) {
	q := &xdpQueue{index: index, device: device, chunk: chunk}
	q.base = xdpSocket{q: q, fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("queue %d: %w", index, err), q.close())
		}
	}()
	if q.base.fd, err = openXSK(); err != nil {
		return nil, err
	}
	if q.memory, err = unix.Mmap(-1, 0, (xdpReceive+xdpSend)*chunk, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("mapping memory for frames: %w", err)
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&q.memory[0]))), Len: uint64(len(q.memory)), Size: uint32(chunk)}
	err = setXSK(q.base.fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg))
	if errors.Is(err, unix.ENOBUFS) { // it counts as locked
		return nil, fmt.Errorf("registering %d bytes for frames: %w: they are more than this process may lock; raise RLIMIT_MEMLOCK (ulimit -l, --ulimit memlock=-1), or give it the capability CAP_IPC_LOCK", reg.Len, err)
	}
	if err != nil {
		return nil, fmt.Errorf("registering memory for frames: %w", err)
	}
	offsets, err := q.base.open(xdpReceive)
	if err != nil {
		return nil, err
	}
	if err := q.fill.open(q.base.fd, unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_PGOFF_FILL_RING, xdpReceive, offsets.Fr); err != nil {
		return nil, err
	}
	if err := q.completion.open(q.base.fd, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_UMEM_PGOFF_COMPLETION_RING, xdpSend, offsets.Cr); err != nil {
		return nil, err
	}
	if err := q.tx.open(q.base.fd, unix.XDP_TX_RING, unix.XDP_PGOFF_TX_RING, xdpSend, offsets.Tx); err != nil {
		return nil, err
	}
	q.ready()
	// Room for what the send ring holds, and so much to one call: both wishes.
	_ = unix.SetsockoptInt(q.base.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*xdpSend*minSlot)
	_ = unix.SetsockoptInt(q.base.fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, sendBatch)
	return q, q.bind(zeroCopy)
}

// ready gives the kernel the places to receive, and us those to send.
func (q *xdpQueue) ready() {
	for i := range uint64(xdpReceive) {
		q.fill.desc[i] = i * uint64(q.chunk)
	}
	q.fill.producer.Store(xdpReceive)
	for i := range uint64(xdpSend) {
		q.free = append(q.free, (xdpReceive+i)*uint64(q.chunk))
	}
}

// bind binds the socket to its queue.
func (q *xdpQueue) bind(zeroCopy bool) error {
	if zeroCopy {
		if err := q.base.bind(unix.XDP_ZEROCOPY|unix.XDP_USE_NEED_WAKEUP, 0); err != nil {
			return fmt.Errorf("zero-copy: %w", err)
		}
		return nil
	}
	// Kernels before 6.6 do not give frames in pieces.
	err := q.base.bind(unix.XDP_COPY|unix.XDP_USE_NEED_WAKEUP|unix.XDP_USE_SG, 0)
	q.long = err == nil
	if errors.Is(err, unix.EINVAL) {
		err = q.base.bind(unix.XDP_COPY|unix.XDP_USE_NEED_WAKEUP, 0)
	}
	return err
}

// join opens another socket on the queue, which only receives.
func (q *xdpQueue) join() (_ *xdpSocket, err error) {
	s := &xdpSocket{q: q, fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("queue %d: %w", q.index, err), s.close())
		}
	}()
	if s.fd, err = openXSK(); err != nil {
		return nil, err
	}
	if _, err := s.open(xdpReceive); err != nil {
		return nil, err
	}
	return s, s.bind(unix.XDP_SHARED_UMEM, q.base.fd)
}

// close gives everything back. Nobody uses q any more.
func (q *xdpQueue) close() error {
	errs := []error{q.fill.close(), q.tx.close(), q.completion.close(), q.base.close()}
	if q.memory != nil {
		errs = append(errs, unix.Munmap(q.memory))
		q.memory = nil
	}
	return errors.Join(errs...)
}

// openXSK opens an AF_XDP socket.
func openXSK() (int, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return -1, fmt.Errorf("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS): %w", err)
	}
	if err != nil {
		return -1, fmt.Errorf("opening an AF_XDP socket: %w", err)
	}
	return fd, nil
}

// open makes the rx ring, and says where its socket has what of each ring.
func (s *xdpSocket) open(entries uint32) (unix.XDPMmapOffsets, error) {
	var offsets unix.XDPMmapOffsets
	n, err := getXSK(s.fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&offsets), unsafe.Sizeof(offsets))
	if err != nil {
		return offsets, fmt.Errorf("asking where the rings are: %w", err)
	}
	if n < unsafe.Sizeof(offsets) { // no flags: it cannot say that it wants to be woken
		return offsets, errors.New("the AF_XDP of this kernel is from before Linux 5.4")
	}
	return offsets, s.rx.open(s.fd, unix.XDP_RX_RING, unix.XDP_PGOFF_RX_RING, entries, offsets.Rx)
}

// bind binds s to its queue, if need be once who had it has let go.
func (s *xdpSocket) bind(flags uint16, shared int) error {
	addr := unix.SockaddrXDP{Flags: flags, Ifindex: uint32(s.q.device), QueueID: uint32(s.q.index), SharedUmemFD: uint32(shared)}
	for late := time.Now().Add(xdpBusy); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Bind(s.fd, &addr)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY):
			return fmt.Errorf("binding an AF_XDP socket: %w", err)
		case time.Now().After(late):
			return fmt.Errorf("binding an AF_XDP socket: another program has the queue: %w", err)
		}
	}
}

// bound reports whether s has a device: the kernel unbinds the sockets of one that
// goes away. Kernels before 5.11, which cannot be asked, say so themselves.
func (s *xdpSocket) bound() bool {
	_, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno != unix.ENXIO
}

// drain gives back the places of what came and nobody will read.
func (s *xdpSocket) drain() {
	first := s.rx.consumer.Load()
	s.give(first, s.rx.producer.Load()-first)
}

// leave closes a socket that join opened, of which nobody reads any more.
func (s *xdpSocket) leave() error {
	err := unix.Close(s.fd) // when it returns the kernel puts nothing in any more
	s.fd = -1
	s.drain()
	return errors.Join(err, s.close())
}

// close closes the socket.
func (s *xdpSocket) close() error {
	err := s.rx.close()
	if s.fd >= 0 {
		err = errors.Join(err, unix.Close(s.fd))
		s.fd = -1
	}
	return err
}

// statistics asks the kernel what it dropped of the socket's.
func (s *xdpSocket) statistics() (unix.XDPStatistics, error) {
	var st unix.XDPStatistics
	_, err := getXSK(s.fd, unix.XDP_STATISTICS, unsafe.Pointer(&st), unsafe.Sizeof(st))
	return st, err
}

// give gives the places of n frames, from the rx descriptor first on, back to
// the kernel.
func (s *xdpSocket) give(first, n uint32) {
	q := s.q
	q.filling.Lock()
	at := q.fill.producer.Load()
	for i := range n {
		d := s.rx.desc[(first+i)&s.rx.mask]
		if q.frame(d) == nil { // nobody knows whose place that is
			s.senseless.Add(1)
			continue
		}
		q.fill.desc[at&q.fill.mask] = d.Addr - d.Addr%uint64(q.chunk)
		at++
	}
	q.fill.producer.Store(at) // there is room: the ring has one for each place
	q.filling.Unlock()
	s.rx.consumer.Store(first + n)
	s.received.Add(uint64(n))
}

// frame returns what the descriptor d is about, or nothing if it makes no sense.
func (q *xdpQueue) frame(d unix.XDPDesc) []byte {
	if end := d.Addr + uint64(d.Len); end <= uint64(len(q.memory)) && d.Addr <= end {
		return q.memory[d.Addr:end:end]
	}
	return nil
}

// send sends frames and returns how many were lost: there was no place for them, or
// the device would not have them. An error means that it is gone.
func (q *xdpQueue) send(frames [][]byte) (dropped int, err error) {
	if q.down {
		// What would wait until it is up is of no use then.
		if dropped, err = q.kick(); err != nil {
			return dropped, err
		}
		if q.down {
			return dropped + len(frames), nil
		}
	}
	for len(frames) > 0 {
		n := min(len(frames), sendBatch)
		at, k := q.tx.producer.Load(), uint32(0)
		for _, f := range frames[:n] {
			if len(f) > q.chunk {
				dropped++
				continue
			}
			addr, ok := q.place()
			if !ok {
				q.full++
				dropped++
				continue
			}
			copy(q.memory[addr:], f)
			q.tx.desc[(at+k)&q.tx.mask] = unix.XDPDesc{Addr: addr, Len: uint32(len(f))}
			k++
		}
		q.sent += uint64(k)
		q.tx.producer.Store(at + k)
		if k > 0 {
			lost, err := q.kick()
			dropped += lost
			if err != nil {
				return dropped, err
			}
		}
		frames = frames[n:]
	}
	return dropped, nil
}

// pause waits until nobody sends.
func (q *xdpQueue) pause() {
	q.sending.Lock()
	defer q.sending.Unlock()
}

// place takes a place for a frame to send.
func (q *xdpQueue) place() (addr uint64, ok bool) {
	if len(q.free) == 0 && q.reap() == 0 {
		return 0, false
	}
	last := len(q.free) - 1
	addr = q.free[last]
	q.free = q.free[:last]
	return addr, true
}

// reap takes back the places of frames that were sent.
func (q *xdpQueue) reap() int {
	at := q.completion.consumer.Load()
	n := q.completion.producer.Load() - at
	for i := range n {
		q.free = append(q.free, q.completion.desc[(at+i)&q.completion.mask])
	}
	q.completion.consumer.Store(at + n)
	return int(n)
}

// kicks bounds the calls to have one batch sent.
const kicks = 8

// kick has the kernel send what is in the tx ring, and returns how many of that the
// device would not have, as without a carrier. What the kernel will not take now
// stays there, for the next call or for who polls.
func (q *xdpQueue) kick() (lost int, err error) {
	q.down = false
	for left := kicks; left > 0; left-- {
		if q.tx.flags.Load()&unix.XDP_RING_NEED_WAKEUP != 0 {
			_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(q.base.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
			switch errno {
			case 0, unix.EINTR, unix.EAGAIN, unix.ENOBUFS:
			case unix.EBUSY:
				if q.reap() > 0 { // it dropped that frame, and comes to the next
					lost++
					left++
				}
			case unix.ENETDOWN:
				q.down = true
				left = 1
			default: // ENXIO: the socket has no device any more
				return lost, errno
			}
		}
		if q.tx.consumer.Load() == q.tx.producer.Load() {
			break
		}
		if q.reap() == 0 {
			runtime.Gosched()
		}
	}
	q.reap()
	q.sent -= uint64(lost)
	return lost, nil
}

// A ring is a ring of descriptors that we share with the kernel. One side
// produces and one consumes; both counts only grow, and wrap.
type ring[T uint64 | unix.XDPDesc] struct {
	memory                    []byte
	producer, consumer, flags *atomic.Uint32
	desc                      []T
	mask                      uint32
}

// open makes a ring of entries, a power of two, and maps it.
func (r *ring[T]) open(fd, option int, offset int64, entries uint32, at unix.XDPRingOffset) (err error) {
	if err := setXSK(fd, option, unsafe.Pointer(&entries), unsafe.Sizeof(entries)); err != nil {
		return fmt.Errorf("asking for a ring of %d: %w", entries, err)
	}
	var one T
	size := at.Desc + uint64(entries)*uint64(unsafe.Sizeof(one))
	if r.memory, err = unix.Mmap(fd, offset, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("mapping a ring: %w", err)
	}
	count := func(at uint64) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&r.memory[at])) }
	r.producer, r.consumer, r.flags = count(at.Producer), count(at.Consumer), count(at.Flags)
	r.desc = unsafe.Slice((*T)(unsafe.Pointer(&r.memory[at.Desc])), entries)
	r.mask = entries - 1
	return nil
}

// close unmaps the ring.
func (r *ring[T]) close() error {
	if r.memory == nil {
		return nil
	}
	m := r.memory
	*r = ring[T]{}
	return unix.Munmap(m)
}

// setXSK sets an option of an AF_XDP socket.
func setXSK(fd, option int, p unsafe.Pointer, n uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(p), n, 0); errno != 0 {
		return errno
	}
	return nil
}

// getXSK asks for an option of an AF_XDP socket, and returns how many bytes of n
// it has.
func getXSK(fd, option int, p unsafe.Pointer, n uintptr) (uintptr, error) {
	size := uint32(n)
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(p), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, errno
	}
	return uintptr(size), nil
}
