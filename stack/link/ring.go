package link

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/stack"
)

// A Ring keeps packets in memory of a fixed size: the first ones until it is
// full, or, if it is circular, the last ones. Any number of goroutines may use
// it; Add allocates nothing.
//
// The buffer is the records one after the other, round its end:
//
//	0      8     12       16      20
//	+------+-----+--------+-------+----------
//	| time | tag | length | kept  | packet ...
//	+------+-----+--------+-------+----------
type Ring struct {
	snap     int
	circular bool

	mu         sync.Mutex
	buf        []byte
	head, tail uint64 // where the next record goes, and the oldest is; not wrapped
	count      int
	full       bool // something did not fit
}

const ringHeader = 20 // bytes before the packet

// NewRing returns an empty Ring of size bytes, records' headers included, that
// keeps at most the first snap bytes of a packet. size must exceed ringHeader.
func NewRing(size, snap int, circular bool) *Ring {
	return &Ring{snap: min(snap, size-ringHeader), circular: circular, buf: make([]byte, size)}
}

// A Record is a packet in a Ring.
type Record struct {
	Time time.Time
	Tag  uint32 // as given to Add
	Len  int    // bytes of the packet
	Data []byte // its first bytes
}

// Add keeps the IP packet data, which passed at that time. The tag is the
// caller's own.
func (r *Ring) Add(at time.Time, tag uint32, data []byte) {
	var h [ringHeader]byte
	kept := data[:min(len(data), r.snap)]
	le.PutUint64(h[0:], uint64(at.UnixNano()))
	le.PutUint32(h[8:], tag)
	le.PutUint32(h[12:], uint32(len(data)))
	le.PutUint32(h[16:], uint32(len(kept)))
	need := uint64(ringHeader + len(kept))

	r.mu.Lock()
	defer r.mu.Unlock()
	for r.head+need-r.tail > uint64(len(r.buf)) {
		if r.full = true; !r.circular {
			return
		}
		var old [ringHeader]byte
		r.copyOut(old[:], r.tail)
		r.tail += ringHeader + uint64(le.Uint32(old[16:]))
		r.count--
	}
	if r.full && !r.circular {
		return // a gap would mislead
	}
	r.copyIn(h[:], r.head)
	r.copyIn(kept, r.head+ringHeader)
	r.head += need
	r.count++
}

// copyIn copies b into the buffer at the place at, copyOut out of it.
func (r *Ring) copyIn(b []byte, at uint64) {
	n := copy(r.buf[at%uint64(len(r.buf)):], b)
	copy(r.buf, b[n:])
}

func (r *Ring) copyOut(b []byte, at uint64) {
	n := copy(b, r.buf[at%uint64(len(r.buf)):])
	copy(b[n:], r.buf)
}

// Len returns how many packets are kept, and how many bytes they take up.
func (r *Ring) Len() (packets, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, int(r.head - r.tail)
}

// Full reports whether a packet did not fit: the Ring has stopped, or begun to
// forget.
func (r *Ring) Full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.full
}

// Clear empties r, which then goes on.
func (r *Ring) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tail, r.count, r.full = r.head, 0, false
}

// Each calls f with each packet, the oldest first, until it returns false. It
// ends with the packets that were there when it began; those that are forgotten
// meanwhile are left out. The Record's Data is borrowed until f returns. Add
// waits for the copying of one packet at most.
func (r *Ring) Each(f func(Record) bool) {
	r.mu.Lock()
	at, end := r.tail, r.head
	r.mu.Unlock()
	var data []byte
	for {
		r.mu.Lock()
		at = max(at, r.tail)
		if at >= end {
			r.mu.Unlock()
			return
		}
		var h [ringHeader]byte
		r.copyOut(h[:], at)
		kept := int(le.Uint32(h[16:]))
		if cap(data) < kept {
			data = make([]byte, max(kept, DefaultMTU))
		}
		data = data[:kept]
		r.copyOut(data, at+ringHeader)
		r.mu.Unlock()
		at += ringHeader + uint64(kept)
		if !f(Record{
			Time: time.Unix(0, int64(le.Uint64(h[0:]))), Tag: le.Uint32(h[8:]),
			Len: int(le.Uint32(h[12:])), Data: data,
		}) {
			return
		}
	}
}

// WritePCAP writes what r keeps as a capture file like a Recorder's, and returns
// how many packets that is.
func (r *Ring) WritePCAP(w io.Writer) (packets int, err error) {
	pw := pcapgo.NewWriterNanos(w)
	err = pw.WriteFileHeader(stack.MaxPacket, layers.LinkTypeRaw)
	r.Each(func(rec Record) bool {
		if err == nil {
			err = pw.WritePacket(gopacket.CaptureInfo{Timestamp: rec.Time, CaptureLength: len(rec.Data), Length: rec.Len}, rec.Data)
			packets++
		}
		return err == nil
	})
	if err != nil {
		return 0, fmt.Errorf("link: writing a capture: %w", err)
	}
	return packets, nil
}
