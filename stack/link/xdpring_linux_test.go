package link

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memoryRing is a ring in memory of our own, whose other side is the test.
func memoryRing[T uint64 | unix.XDPDesc](entries uint32) ring[T] {
	return ring[T]{producer: new(atomic.Uint32), consumer: new(atomic.Uint32), flags: new(atomic.Uint32),
		desc: make([]T, entries), mask: entries - 1}
}

// put and take are what the other side of a ring does.
func (r *ring[T]) put(d T) {
	at := r.producer.Load()
	r.desc[at&r.mask] = d
	r.producer.Store(at + 1)
}

func (r *ring[T]) take() T {
	at := r.consumer.Load()
	d := r.desc[at&r.mask]
	r.consumer.Store(at + 1)
	return d
}

func (r *ring[T]) len() int { return int(r.producer.Load() - r.consumer.Load()) }

// all is what is in a ring.
func (r *ring[T]) all() (in []T) {
	for at := r.consumer.Load(); at != r.producer.Load(); at++ {
		in = append(in, r.desc[at&r.mask])
	}
	return in
}

// memoryQueue is a queue whose kernel is the test.
func memoryQueue(index int) *xdpQueue {
	q := &xdpQueue{index: index, chunk: minSlot, memory: make([]byte, (xdpReceive+xdpSend)*minSlot),
		fill: memoryRing[uint64](xdpReceive), tx: memoryRing[unix.XDPDesc](xdpSend), completion: memoryRing[uint64](xdpSend)}
	q.base = xdpSocket{q: q, fd: -1, rx: memoryRing[unix.XDPDesc](xdpReceive)}
	q.ready()
	return q
}

// memoryReader reads queues of which the test is the kernel.
func memoryReader(queues ...*xdpQueue) *xdpReader {
	d := &xdpDevice{kernelDevice: kernelDevice{trunk: &trunk{}, now: func() time.Time { return noon }, wake: -1}}
	d.trunk.mtu.Store(1500)
	var sockets []*xdpSocket
	for _, q := range queues {
		sockets = append(sockets, &q.base)
	}
	d.sockets = sockets
	return d.reader(sockets...)
}

// places complains of a place that is nowhere, or in two hands.
func places(t *testing.T, what string, first, many int, in ...[]uint64) {
	t.Helper()
	count := make(map[uint64]int)
	for _, at := range slices.Concat(in...) {
		count[at]++
	}
	for i := range many {
		at := uint64(first+i) * minSlot
		if count[at] != 1 {
			t.Fatalf("%s: place %d is in %d hands", what, at/minSlot, count[at])
		}
		delete(count, at)
	}
	if len(count) > 0 {
		t.Fatalf("%s: there are no places %v", what, slices.Collect(maps.Keys(count)))
	}
}

// TestXDPSendPlaces: whatever the kernel takes, and however late it gives it back,
// each place to send is in one hand, each frame arrives as it was or is counted.
func TestXDPSendPlaces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	q := memoryQueue(0)
	var inFlight []uint64 // taken by the kernel, not completed
	var sent, dropped int
	arrived, serial := uint32(0), uint32(0)
	for step := range 3000 {
		frames := make([][]byte, random.IntN(200))
		for i := range frames {
			n := 14 + random.IntN(1504)
			if random.IntN(50) == 0 {
				n = minSlot + 1 + random.IntN(9000)
			}
			frames[i] = make([]byte, n)
			binary.BigEndian.PutUint32(frames[i], serial)
			serial++
		}
		lost, err := q.send(frames)
		if err != nil {
			t.Fatal(err)
		}
		sent, dropped = sent+len(frames)-lost, dropped+lost

		for range random.IntN(400) { // now more, now less than comes
			if q.tx.len() == 0 {
				break
			}
			d := q.tx.take()
			if d.Addr%minSlot+uint64(d.Len) > minSlot || d.Len == 0 {
				t.Fatalf("step %d: a descriptor that the kernel would refuse: %+v", step, d)
			}
			if k := binary.BigEndian.Uint32(q.memory[d.Addr:]); k < arrived {
				t.Fatalf("step %d: frame %d comes after %d", step, k, arrived)
			} else {
				arrived = k
			}
			inFlight = append(inFlight, d.Addr)
		}
		for range random.IntN(400) {
			if len(inFlight) == 0 || step/500%2 == 1 { // withheld for a while
				break
			}
			i := random.IntN(len(inFlight)) // not always in order
			q.completion.put(inFlight[i])
			inFlight = slices.Delete(inFlight, i, i+1)
		}
		var waiting []uint64
		for _, d := range q.tx.all() {
			waiting = append(waiting, d.Addr)
		}
		places(t, "to send", xdpReceive, xdpSend, q.free, waiting, inFlight, q.completion.all())
	}
	if sent+dropped != int(serial) || q.sent != uint64(sent) || q.full == 0 || q.full > uint64(dropped) {
		t.Errorf("of %d frames %d are sent and %d dropped; the queue counts %d and %d for want of a place", serial, sent, dropped, q.sent, q.full)
	}
}

// TestXDPReceivePlaces: each place to receive is in one hand, and each frame read
// as it came, also one in pieces; a descriptor that makes no sense is counted.
func TestXDPReceivePlaces(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	q := memoryQueue(0)
	r := memoryReader(q)
	var held []uint64 // by the kernel
	var want [][]byte
	var bad uint64
	for range 2000 {
		for range random.IntN(200) {
			if q.fill.len() == 0 || len(held) > xdpReceive/2 {
				break
			}
			held = append(held, q.fill.take())
		}
		for range random.IntN(200) {
			if len(held) < 3 || q.base.rx.len()+3 > xdpReceive {
				break
			}
			if random.IntN(40) == 0 {
				bad++
				q.base.rx.put([]unix.XDPDesc{
					{Addr: uint64(len(q.memory)) + minSlot, Len: 60}, {Addr: uint64(len(q.memory)) - 10, Len: 60},
					{Addr: 1<<64 - 10, Len: 60}, {Addr: 1 << 63, Len: 1<<32 - 1},
				}[random.IntN(4)])
				continue
			}
			frame := make([]byte, 60+random.IntN(1440))
			for i := range frame {
				frame[i] = byte(random.Uint32())
			}
			want = append(want, frame)
			pieces := [][]byte{frame}
			if random.IntN(10) == 0 {
				pieces = [][]byte{frame[:20], frame[20:40], frame[40:]}
			}
			for i, p := range pieces {
				d := unix.XDPDesc{Addr: held[0] + xdpHeadroom + uint64(random.IntN(8)), Len: uint32(len(p))}
				if i < len(pieces)-1 {
					d.Options = unix.XDP_PKT_CONTD
				}
				copy(q.memory[d.Addr:], p)
				q.base.rx.put(d)
				held = held[1:]
			}
		}
		left := random.IntN(100)
		r.readReady(func(f *Frame) bool {
			if len(want) == 0 || !bytes.Equal(f.Data, want[0]) {
				t.Fatalf("a frame of %d bytes is not what was sent", len(f.Data))
			}
			want = want[1:]
			left--
			return left > 0
		})
		var waiting []uint64
		for _, d := range q.base.rx.all() {
			if q.frame(d) != nil {
				waiting = append(waiting, d.Addr-d.Addr%minSlot)
			}
		}
		places(t, "to receive", 0, xdpReceive, q.fill.all(), waiting, held)
	}
	for r.readReady(func(f *Frame) bool { want = want[1:]; return true }) {
	}
	if len(want) != 0 {
		t.Errorf("%d frames did not come", len(want))
	}
	if n := q.base.senseless.Load(); n != bad {
		t.Errorf("%d descriptors that make no sense are counted, want %d", n, bad)
	}
}

// TestXDPTurns: a queue that always has more does not keep others from being read.
func TestXDPTurns(t *testing.T) {
	busy, other := memoryQueue(0), memoryQueue(1)
	r := memoryReader(busy, other)
	came := func(q *xdpQueue) {
		at := q.fill.take() + xdpHeadroom
		q.memory[at] = byte(q.index)
		q.base.rx.put(unix.XDPDesc{Addr: at, Len: 60})
	}
	came(other)
	for range 2 {
		for range 64 {
			came(busy)
		}
		n := 0
		r.readReady(func(f *Frame) bool {
			n++
			return n < 64
		})
	}
	if other.base.rx.len() > 0 {
		t.Error("the other queue is not read while the first has more")
	}
}
