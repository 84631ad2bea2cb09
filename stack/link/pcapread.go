package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"

	"patchbay/stack"
)

// Capture files. (draft-ietf-opsawg-pcap, sections 3 to 5;
// draft-ietf-opsawg-pcapng, sections 3 and 4.)
const (
	magicMicro = 0xa1b2c3d4 // pcap, time stamps in µs
	magicNano  = 0xa1b23c4d // pcap, time stamps in ns
	magicOrder = 0x1a2b3c4d // pcapng, the byte order of a section

	pcapHeader = 24 // bytes before the first record
	pcapRecord = 16 // bytes before each packet

	blockSection   = 0x0a0d0d0a // the same in both byte orders
	blockInterface = 1
	blockOld       = 2 // Packet Block, obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockMin       = 12 // bytes: type, length, length

	optEnd        = 0
	optTimeUnit   = 9  // if_tsresol
	optTimeOffset = 14 // if_tsoffset

	// maxCaptured is the longest record or packet block that is read, in
	// bytes; tcpdump's own limit on a packet is 262,144.
	maxCaptured = 262144 + 1024
	// maxCaptureInterfaces bounds the interfaces of one section.
	maxCaptureInterfaces = 4096
)

// Info is what a capture says of a packet besides its time and bytes.
type Info struct {
	Interface int    // number in its section of the file; 0 in a pcap
	LinkType  uint16 // of the interface (draft-ietf-opsawg-pcaplinktype)
	VLAN      uint16 // identifier of the outermost 802.1Q tag; 0: none, or a priority tag
	Length    int    // bytes of the frame on the wire: what the file says, or holds, whichever is more
	Outgoing  bool   // a Linux cooked capture says that its host sent the packet
	Truncated bool   // the file holds less of the packet than there was
}

// A Reader reads the IP packets of a capture file: pcap with micro- or
// nanoseconds, or pcapng, of either byte order; Ethernet with VLAN tags and
// PPPoE, Linux cooked (both versions), raw IP, and BSD loopback. Frames of other
// protocols are passed over.
type Reader struct {
	r       *bufio.Reader // as long as the longest block, so Peek reaches any
	order   binary.ByteOrder
	ng      bool
	ifs     []captureInterface
	last    time.Time // of the packet before, for a Simple Packet Block
	frames  uint64
	skipped uint64
}

// A captureInterface is what a file says of where its packets were taken.
type captureInterface struct {
	linkType uint16
	snap     uint32 // bytes kept of a packet; 0: all
	units    uint64 // of a time stamp, in one second
	offset   int64  // s to add
}

var errCapture = errors.New("not a pcap or pcapng capture")

// NewReader begins to read a capture from r, which it buffers.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{r: bufio.NewReaderSize(r, maxCaptured)}
	if err := c.begin(); err != nil {
		return nil, fmt.Errorf("link: reading a capture: %w", err)
	}
	return c, nil
}

// begin reads as far as the kind of the file is known.
func (c *Reader) begin() error {
	b, err := c.r.Peek(4)
	if err != nil {
		return errCapture
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		c.ng = true
		return nil
	}
	var units uint64
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch o.Uint32(b) {
		case magicMicro:
			c.order, units = o, 1e6
		case magicNano:
			c.order, units = o, 1e9
		}
	}
	if units == 0 {
		return errCapture
	}
	if b, err = c.r.Peek(pcapHeader); err != nil {
		return io.ErrUnexpectedEOF
	}
	// The upper bits tell of a frame check sequence.
	i := captureInterface{linkType: uint16(c.order.Uint32(b[20:])), units: units}
	if !knownLinkType(i.linkType) {
		return fmt.Errorf("link type %d is not supported", i.linkType)
	}
	c.ifs = append(c.ifs, i)
	c.r.Discard(pcapHeader)
	return nil
}

// Frames returns how many frames were read, and how many of them Next passed
// over because they were not IP or were cut before the IP header.
func (c *Reader) Frames() (read, skipped uint64) { return c.frames, c.skipped }

// Next reads the next IP packet of the capture into p, with its time, not
// parsed. It allocates nothing. At the end of the file it fails with io.EOF; a
// file that ends in the middle of something is io.ErrUnexpectedEOF. A packet
// that does not fit in p is cut, and marked as Truncated.
func (c *Reader) Next(p *stack.Packet) (Info, error) {
	for {
		var f captured
		var err error
		if c.ng {
			f, err = c.block()
		} else {
			f, err = c.record()
		}
		if err != nil {
			if err != io.EOF {
				err = fmt.Errorf("link: capture after %d frames: %w", c.frames, err)
			}
			return Info{}, err
		}
		if f.data == nil {
			continue // a block without a packet
		}
		c.frames++
		i := &c.ifs[f.on]
		info := Info{
			Interface: f.on, LinkType: i.linkType, Length: max(int(f.length), len(f.data)),
			Truncated: uint64(f.length) > uint64(len(f.data)),
		}
		ip := network(f.data, &info)
		if ip == nil {
			c.skipped++
			c.r.Discard(f.size)
			continue
		}
		p.Reset()
		if room := len(p.Buffer()); len(ip) > room {
			ip, info.Truncated = ip[:room], true
		}
		p.SetData(ip)
		p.Time = f.time
		c.last = f.time
		_, err = c.r.Discard(f.size)
		return info, err
	}
}

// A captured is a frame as it lies in the buffer of the file, until Discard.
type captured struct {
	on     int
	time   time.Time
	length uint32 // on the wire
	data   []byte
	size   int // bytes of the file up to the next
}

// peek returns the next n bytes of the file. At its end it fails with io.EOF,
// and with io.ErrUnexpectedEOF if some of them are there.
func (c *Reader) peek(n int) ([]byte, error) {
	b, err := c.r.Peek(n)
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// record reads a packet of a pcap.
func (c *Reader) record() (captured, error) {
	h, err := c.peek(pcapRecord)
	if err != nil {
		return captured{}, err
	}
	n := c.order.Uint32(h[8:])
	if n > maxCaptured-pcapRecord {
		return captured{}, fmt.Errorf("record of %d bytes, at most %d are read", n, maxCaptured-pcapRecord)
	}
	f := captured{length: c.order.Uint32(h[12:]), size: pcapRecord + int(n)}
	sec, sub := c.order.Uint32(h), c.order.Uint32(h[4:])
	f.time = time.Unix(int64(sec), int64(uint64(sub)*(1e9/c.ifs[0].units))).UTC()
	b, err := c.peek(f.size)
	if err != nil {
		return captured{}, io.ErrUnexpectedEOF
	}
	f.data = b[pcapRecord:]
	return f, nil
}

// block reads a block of a pcapng. What has no packet it discards, and returns
// no data.
func (c *Reader) block() (captured, error) {
	h, err := c.peek(8)
	if err != nil {
		return captured{}, err
	}
	if binary.BigEndian.Uint32(h) == blockSection {
		if h, err = c.peek(12); err != nil {
			return captured{}, io.ErrUnexpectedEOF
		}
		switch uint32(magicOrder) {
		case binary.LittleEndian.Uint32(h[8:]):
			c.order = binary.LittleEndian
		case binary.BigEndian.Uint32(h[8:]):
			c.order = binary.BigEndian
		default:
			return captured{}, fmt.Errorf("section header: byte-order magic % x", h[8:12])
		}
		c.ifs = c.ifs[:0]
	}
	kind, n := c.order.Uint32(h), c.order.Uint32(h[4:])
	if n < blockMin || n%4 != 0 {
		return captured{}, fmt.Errorf("block of type %#x: length %d", kind, n)
	}
	switch kind {
	case blockInterface, blockOld, blockSimple, blockEnhanced:
	default:
		return captured{}, c.skip(n)
	}
	if n > maxCaptured {
		return captured{}, fmt.Errorf("block of %d bytes, at most %d are read", n, maxCaptured)
	}
	b, err := c.peek(int(n))
	if err != nil {
		return captured{}, io.ErrUnexpectedEOF
	}
	if end := c.order.Uint32(b[n-4:]); end != n {
		return captured{}, fmt.Errorf("block of type %#x: length %d at its start and %d at its end", kind, n, end)
	}
	body := b[8 : n-4]
	if kind == blockInterface {
		if err := c.addInterface(body); err != nil {
			return captured{}, err
		}
		_, err := c.r.Discard(int(n))
		return captured{}, err
	}
	f, err := c.packet(kind, body)
	f.size = int(n)
	return f, err
}

// skip discards a block of n bytes, however long.
func (c *Reader) skip(n uint32) error {
	got, err := c.r.Discard(int(n))
	if err == io.EOF && got > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// addInterface reads an Interface Description Block.
func (c *Reader) addInterface(b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("interface description of %d bytes", len(b))
	}
	if len(c.ifs) == maxCaptureInterfaces {
		return fmt.Errorf("more than %d interfaces in one section", maxCaptureInterfaces)
	}
	i := captureInterface{linkType: c.order.Uint16(b), snap: c.order.Uint32(b[4:]), units: 1e6}
	for b = b[8:]; len(b) >= 4; {
		code, n := c.order.Uint16(b), int(c.order.Uint16(b[2:]))
		if code == optEnd {
			break
		}
		if len(b)-4 < n {
			return fmt.Errorf("interface option %d of %d bytes in %d", code, n, len(b)-4)
		}
		v := b[4 : 4+n]
		switch {
		case code == optTimeUnit && n == 1:
			u, ok := timeUnits(v[0])
			if !ok {
				return fmt.Errorf("interface with time stamps in units of %#x", v[0])
			}
			i.units = u
		case code == optTimeOffset && n == 8:
			i.offset = int64(c.order.Uint64(v))
		}
		b = b[min(4+(n+3)&^3, len(b)):]
	}
	c.ifs = append(c.ifs, i)
	return nil
}

// timeUnits returns how many units of an if_tsresol are in a second.
func timeUnits(r byte) (uint64, bool) {
	e := r & 0x7f
	if r&0x80 != 0 {
		return 1 << e, e < 64
	}
	if e > 19 { // 10^19 is the last in 64 bits
		return 0, false
	}
	u := uint64(1)
	for range e {
		u *= 10
	}
	return u, true
}

// packet reads the packet in the body of a block.
func (c *Reader) packet(kind uint32, b []byte) (captured, error) {
	var f captured
	var head int
	var kept uint32
	switch kind {
	case blockSimple:
		head = 4
		if len(b) < head || len(c.ifs) == 0 {
			return f, fmt.Errorf("simple packet of %d bytes on one of %d interfaces", len(b), len(c.ifs))
		}
		f.length = c.order.Uint32(b)
		kept = f.length
		if s := c.ifs[0].snap; s != 0 {
			kept = min(kept, s)
		}
		f.time = c.last
	default:
		head = 20
		if len(b) < head {
			return f, fmt.Errorf("packet block of %d bytes", len(b))
		}
		on := c.order.Uint32(b)
		if kind == blockOld { // then a count of drops
			on = uint32(c.order.Uint16(b))
		}
		if uint64(on) >= uint64(len(c.ifs)) {
			return f, fmt.Errorf("packet on interface %d of %d", on, len(c.ifs))
		}
		f.on = int(on)
		f.time = c.ifs[on].at(uint64(c.order.Uint32(b[4:]))<<32 | uint64(c.order.Uint32(b[8:])))
		kept, f.length = c.order.Uint32(b[12:]), c.order.Uint32(b[16:])
	}
	if t := c.ifs[f.on].linkType; !knownLinkType(t) {
		return f, fmt.Errorf("interface %d: link type %d is not supported", f.on, t)
	}
	if uint64(kept) > uint64(len(b)-head) {
		return f, fmt.Errorf("packet of %d bytes in a block with %d", kept, len(b)-head)
	}
	f.data = b[head : head+int(kept)]
	return f, nil
}

// at returns the time of a time stamp.
func (i *captureInterface) at(stamp uint64) time.Time {
	sec, rest := stamp/i.units, stamp%i.units
	hi, lo := bits.Mul64(rest, 1e9)
	ns, _ := bits.Div64(hi, lo, i.units) // rest < units, so it is less than 1e9
	return time.Unix(int64(sec)+i.offset, int64(ns)).UTC()
}
