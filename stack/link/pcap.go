package link

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"time"

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
func NewRecorder(w io.Writer) (*Recorder, error) { return newRecorder(w, layers.LinkTypeRaw) }

// A FrameRecorder writes Ethernet frames to a capture file: as a Recorder, with
// link type 1.
type FrameRecorder struct{ r *Recorder }

// NewFrameRecorder begins a capture on w. Whoever opened w closes it, after Close.
func NewFrameRecorder(w io.Writer) (*FrameRecorder, error) {
	r, err := newRecorder(w, layers.LinkTypeEthernet)
	return &FrameRecorder{r}, err
}

// Frame adds a frame, without its check sequence, that passed at that time. An
// error is kept for Close.
func (f *FrameRecorder) Frame(at time.Time, frame []byte) { f.r.add(at, frame) }

// Close writes out what is buffered and returns the first error there was.
func (f *FrameRecorder) Close() error { return f.r.Close() }

func newRecorder(w io.Writer, of layers.LinkType) (*Recorder, error) {
	buf := bufio.NewWriter(w)
	pw := pcapgo.NewWriterNanos(buf)
	if err := pw.WriteFileHeader(stack.MaxPacket, of); err != nil {
		return nil, fmt.Errorf("link: beginning a capture: %w", err)
	}
	return &Recorder{buf: buf, w: pw}, nil
}

// Packet adds p as it is now. An error is kept for Close.
func (r *Recorder) Packet(p *stack.Packet) { r.add(p.Time, p.Data()) }

func (r *Recorder) add(at time.Time, d []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	r.err = r.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(d), Length: len(d)}, d)
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
