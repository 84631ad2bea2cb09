package link

import (
	"bufio"
	"fmt"
	"io"
	"sync"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/stack"
)

// A Recorder writes packets to a capture file: classic pcap with nanoseconds,
// link type 101, raw IP. (draft-ietf-opsawg-pcap, section 4.) It may be used by
// several goroutines at once.
type Recorder struct {
	mu  sync.Mutex
	buf *bufio.Writer
	w   *pcapgo.Writer
	err error // the first; nothing is written after it
}

// NewRecorder begins a capture on w. Whoever opened w closes it, after Close.
func NewRecorder(w io.Writer) (*Recorder, error) {
	buf := bufio.NewWriter(w)
	pw := pcapgo.NewWriterNanos(buf)
	if err := pw.WriteFileHeader(stack.MaxPacket, layers.LinkTypeRaw); err != nil {
		return nil, fmt.Errorf("link: beginning a capture: %w", err)
	}
	return &Recorder{buf: buf, w: pw}, nil
}

// Packet adds p as it is now. An error is kept for Close.
func (r *Recorder) Packet(p *stack.Packet) {
	d := p.Data()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = r.w.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(d), Length: len(d)}, d)
}

// Close writes out what is buffered and returns the first error there was.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.buf.Flush(); r.err == nil {
		r.err = err
	}
	if r.err != nil {
		return fmt.Errorf("link: writing a capture: %w", r.err)
	}
	return nil
}
