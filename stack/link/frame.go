package link

import (
	"encoding/hex"
	"net"
	"time"
)

// A MAC is an Ethernet address.
type MAC [6]byte

// broadcast is the address of all stations.
var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns "02:00:00:00:00:01".
func (m MAC) String() string {
	b := make([]byte, 0, 17)
	for i := range m {
		if i > 0 {
			b = append(b, ':')
		}
		b = hex.AppendEncode(b, m[i:i+1])
	}
	return string(b)
}

// group reports whether m is a broadcast or multicast address. (IEEE 802.3,
// section 3.2.3.)
func (m MAC) group() bool { return m[0]&1 != 0 }

// A Frame is one Ethernet frame as a device read it, without checksum.
type Frame struct {
	Data []byte // from the destination address on; borrowed until the call returns
	Time time.Time
	// Tagged says that the device took an 802.1Q tag out of Data, and Tag
	// what it was: priority and identifier.
	Tagged bool
	Tag    uint16
	TPID   uint16 // type of that tag, 0 if the device does not tell
	// Vouched becomes stack.Packet.ChecksumVouched.
	Vouched bool
}

// A FrameDevice carries Ethernet frames.
type FrameDevice interface {
	// ReadFrames waits for at least one frame and gives fn each one that is
	// there until fn says no. One goroutine calls it. After Close it fails
	// with net.ErrClosed.
	ReadFrames(fn func(f *Frame) (more bool)) error
	// WriteFrames sends the frames, which are the caller's again when it
	// returns, and returns how many the device would not take. It may be
	// called by several goroutines at once. An error means that the device
	// is gone.
	WriteFrames(frames [][]byte) (dropped int, err error)
	// MAC is the address of the device.
	MAC() MAC
	// MTU is the longest IP packet that fits in its frames, in bytes.
	MTU() int
	// Close ends pending and later calls with net.ErrClosed.
	Close() error
}

// A queueDevice is a FrameDevice with several queues, each of which a goroutine
// may read and others may write at once. The device puts the frames of a flow
// into one queue.
type queueDevice interface {
	FrameDevice
	Queues() int
	// ReadQueue is ReadFrames of queue i alone; whoever uses it leaves
	// ReadFrames.
	ReadQueue(i int, fn func(f *Frame) (more bool)) error
	// WriteQueue is WriteFrames by queue i.
	WriteQueue(i int, frames [][]byte) (dropped int, err error)
}

// A FramePairEnd is one end of an Ethernet cable in memory. It is a FrameDevice.
type FramePairEnd struct {
	mac  MAC
	mtu  int
	now  func() time.Time
	rx   *queue
	peer *FramePairEnd
	cur  Frame // being read, in memory of its own
}

// FramePair returns the two ends of a cable between stations with the
// addresses macA and macB, for IP packets of up to mtu bytes. now stamps the
// frames; nil is time.Now.
func FramePair(mtu int, macA, macB MAC, now func() time.Time) (a, b *FramePairEnd) {
	if now == nil {
		now = time.Now
	}
	a = &FramePairEnd{mac: macA, mtu: mtu, now: now, rx: newQueue()}
	b = &FramePairEnd{mac: macB, mtu: mtu, now: now, rx: newQueue()}
	a.peer, b.peer = b, a
	return a, b
}

// ReadFrames implements FrameDevice.
func (e *FramePairEnd) ReadFrames(fn func(f *Frame) bool) error {
	if !e.rx.wait() {
		return net.ErrClosed
	}
	for e.rx.n > 0 {
		s := e.rx.shiftLocked()
		e.cur.Data, e.cur.Time = append(e.cur.Data[:0], s.data...), s.time
		e.rx.mu.Unlock() // fn may write to the peer
		more := fn(&e.cur)
		e.rx.mu.Lock()
		if !more {
			break
		}
	}
	e.rx.mu.Unlock()
	return nil
}

// WriteFrames implements FrameDevice.
func (e *FramePairEnd) WriteFrames(frames [][]byte) (dropped int, err error) {
	if e.rx.isClosed() {
		return 0, net.ErrClosed
	}
	now := e.now()
	q := e.peer.rx
	q.mu.Lock()
	for _, f := range frames {
		if len(f) > e.mtu+tagged || !q.pushLocked(f, now) {
			dropped++
		}
	}
	q.mu.Unlock()
	q.ready.Signal()
	return dropped, nil
}

// MAC implements FrameDevice.
func (e *FramePairEnd) MAC() MAC { return e.mac }

// MTU implements FrameDevice.
func (e *FramePairEnd) MTU() int { return e.mtu }

// Close implements FrameDevice.
func (e *FramePairEnd) Close() error {
	e.rx.close()
	return nil
}
