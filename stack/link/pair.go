package link

import (
	"net"
	"sync"
	"time"

	"patchbay/stack"
)

// queueLen is how many packets or frames wait at one end of a wire in memory.
const queueLen = 1024

// A PairEnd is one end of a wire in memory. It is a stack.Link.
type PairEnd struct {
	// Now stamps packets that were written without a time; the others keep
	// theirs. It may be set before the end is used; nil is time.Now.
	Now func() time.Time

	counters
	mtu  int
	rx   *queue
	peer *PairEnd
}

// Pair returns the two ends of a wire that takes IP packets of up to mtu bytes,
// or DefaultMTU if mtu is 0. What one end writes the other reads, in order; a
// writer never waits, and what finds the queue full is dropped. Closing one
// end leaves the other open: it reads nothing more.
func Pair(mtu int) (a, b *PairEnd) {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	a, b = &PairEnd{mtu: mtu, rx: newQueue()}, &PairEnd{mtu: mtu, rx: newQueue()}
	a.peer, b.peer = b, a
	return a, b
}

// Read implements stack.Link.
func (e *PairEnd) Read(batch []*stack.Packet) (int, error) {
	q := e.rx
	for {
		if !q.wait() {
			return 0, net.ErrClosed
		}
		n, bytes := 0, 0
		for q.n > 0 && n < len(batch) {
			s := q.shiftLocked()
			if !batch[n].SetData(s.data) {
				e.drop(Oversize)
				continue
			}
			batch[n].Time = s.time
			bytes += len(s.data)
			n++
		}
		q.mu.Unlock()
		e.in(n, bytes)
		if n > 0 || len(batch) == 0 {
			return n, nil
		}
	}
}

// Write implements stack.Link.
func (e *PairEnd) Write(batch []*stack.Packet) error {
	if e.rx.isClosed() {
		return net.ErrClosed
	}
	n, bytes := 0, 0
	q := e.peer.rx
	q.mu.Lock()
	for _, p := range batch {
		d := p.Data()
		if len(d) > e.mtu {
			e.drop(Oversize)
			continue
		}
		t := p.Time
		if t.IsZero() {
			t = e.now()
		}
		if !q.pushLocked(d, t) {
			e.drop(QueueFull)
			continue
		}
		bytes += len(d)
		n++
	}
	q.mu.Unlock()
	if n > 0 {
		q.ready.Signal()
	}
	e.out(n, bytes)
	return nil
}

func (e *PairEnd) now() time.Time {
	if e.Now == nil {
		return time.Now()
	}
	return e.Now()
}

// MTU implements stack.Link.
func (e *PairEnd) MTU() int { return e.mtu }

// Close implements stack.Link.
func (e *PairEnd) Close() error {
	e.rx.close()
	return nil
}

// A queue holds what waits at the end of a wire. Its slots keep their memory,
// so a queue in use allocates nothing.
type queue struct {
	ready *sync.Cond // on mu

	mu      sync.Mutex
	slots   []slot // a ring
	head, n int
	closed  bool
}

// A slot is one packet or frame.
type slot struct {
	data []byte
	time time.Time
}

func newQueue() *queue {
	q := &queue{slots: make([]slot, queueLen)}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// wait waits for something to shift. It returns with mu held, or false and
// without mu once the queue is closed.
func (q *queue) wait() bool {
	q.mu.Lock()
	for q.n == 0 && !q.closed {
		q.ready.Wait()
	}
	if q.closed {
		q.mu.Unlock()
		return false
	}
	return true
}

// pushLocked copies b to the end of the queue. It reports false if there is no
// room, or nobody to read it.
func (q *queue) pushLocked(b []byte, t time.Time) bool {
	if q.n == len(q.slots) || q.closed {
		return false
	}
	s := &q.slots[(q.head+q.n)%len(q.slots)]
	s.data, s.time = append(s.data[:0], b...), t
	q.n++
	return true
}

// shiftLocked takes the first slot, which is good until mu is released.
func (q *queue) shiftLocked() *slot {
	s := &q.slots[q.head]
	q.head = (q.head + 1) % len(q.slots)
	q.n--
	return s
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}
