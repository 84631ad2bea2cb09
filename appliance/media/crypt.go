package media

import (
	"encoding/binary"
	"errors"

	"patchbay/inspect"
)

// maxSSRCs bounds the streams under one key. More than a handful means
// that an end changed its SSRC that often; the one idle longest goes.
const maxSSRCs = 8

// A receiver opens what one end sends under one key. A stream is remembered
// when its first packet has authenticated: strangers may show any SSRC.
type receiver struct {
	key       *inspect.Key // by pointer, which no print of a leg follows
	rtp, rtcp *transform   // rtcp from the first RTCP packet on
	streams   inbounds
	reports   inbounds
}

func newReceiver(k inspect.Key, d *desks) (receiver, error) {
	t, err := newTransform(&k, false, d)
	return receiver{key: &k, rtp: t}, err
}

func (r *receiver) ready() bool { return r.rtp != nil }

// has reports whether k is the receiver's key.
func (r *receiver) has(k inspect.Key) bool { return r.key != nil && *r.key == k }

// open authenticates and decrypts b in place and returns the length of the
// plain packet. What fails leaves b and the streams as they were.
func (r *receiver) open(b []byte, rtcp bool) (int, error) {
	if rtcp {
		return r.openRTCP(b)
	}
	header, ok := rtpHeader(b)
	if !ok {
		return 0, errAuth
	}
	ssrc, seq := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[2:])
	if w := r.streams.find(ssrc); w != nil {
		i := w.index(seq)
		if !w.fresh(i) {
			return 0, errReplay
		}
		n, err := r.rtp.openRTP(b, header, i)
		if err == nil {
			w.take(i)
		}
		return n, err
	}
	i := uint64(seq)
	n, err := r.rtp.openRTP(b, header, i)
	if err != nil && seq < 1<<15 {
		// We may have missed a wrap: the first packet of a stream that was
		// already at roll-over 1. (reference/srtp-keying.md, section 4.)
		i |= 1 << 16
		n, err = r.rtp.openRTP(b, header, i)
	}
	if err == nil {
		r.streams.add(ssrc, i)
	}
	return n, err
}

func (r *receiver) openRTCP(b []byte) (int, error) {
	if r.rtcp == nil {
		t, err := newTransform(r.key, true, r.rtp.desks)
		if err != nil {
			return 0, err
		}
		r.rtcp = t
	}
	index, ok := r.rtcp.rtcpIndex(b)
	if !ok {
		return 0, errAuth
	}
	ssrc, i := binary.BigEndian.Uint32(b[4:]), uint64(index)
	w := r.reports.find(ssrc)
	if w != nil && !w.fresh(i) {
		return 0, errReplay
	}
	n, err := r.rtcp.openRTCP(b)
	switch {
	case err != nil:
	case w != nil:
		w.take(i)
	default:
		r.reports.add(ssrc, i)
	}
	return n, err
}

// inbounds are the streams that have authenticated, the last used first.
type inbounds []inbound

type inbound struct {
	ssrc uint32
	window
}

// find returns the window of ssrc, good until the next call, or nil.
func (s inbounds) find(ssrc uint32) *window {
	for i := range s {
		if s[i].ssrc == ssrc {
			if i > 0 {
				in := s[i]
				copy(s[1:i+1], s[:i])
				s[0] = in
			}
			return &s[0].window
		}
	}
	return nil
}

// add remembers ssrc, whose first packet had that index.
func (s *inbounds) add(ssrc uint32, index uint64) {
	if len(*s) < maxSSRCs {
		*s = append(*s, inbound{})
	}
	copy((*s)[1:], *s)
	(*s)[0] = inbound{ssrc, begin(index)}
}

// maxBackward is how far behind the highest a packet may come and still be
// merely late, in packets.
const maxBackward = 64

// maxSealed bounds the SSRCs sealed under the keys of one leg. None is ever
// forgotten, because its numbers must not be used twice; what comes after the
// last is not sent.
const maxSealed = 256

var errSSRCs = errors.New("media: too many SSRCs in one stream")

// A sender seals what goes to one end under one key. It renumbers, so that the
// packet index of a stream only goes forward: a source that starts over on the
// same SSRC would use the key stream twice. (reference/srtp-keying.md,
// section 4.)
type sender struct {
	rtp     *transform
	next    []numbering  // the last used first; it outlives the key
	key     *inspect.Key // as in receiver
	rtcp    *transform   // from the first RTCP packet on
	reports uint32       // RTCP packets sealed, of all SSRCs: their index
}

// A numbering is the packets of one SSRC as they are sealed.
type numbering struct {
	ssrc   uint32
	offset uint16 // added to the source's sequence numbers
	begun  bool   // high has been sealed under the key that we have
	high   uint64 // the highest index sent; its low 16 bits are the number
	sent   uint64 // bit n: high - n was sent
}

// newSender returns a sender that numbers on where before was. A key begins
// with roll-over counter 0, whatever the numbers: its receiver assumes that.
func newSender(k inspect.Key, before *sender, d *desks) (sender, error) {
	t, err := newTransform(&k, false, d)
	if err != nil {
		return sender{}, err
	}
	s := sender{key: &k, rtp: t, next: before.next}
	for i := range s.next {
		s.next[i].begun = false
	}
	return s, nil
}

func (s *sender) ready() bool { return s.rtp != nil }

// has reports whether k is the sender's key.
func (s *sender) has(k inspect.Key) bool { return s.key != nil && *s.key == k }

// seal encrypts b in place and appends the tag; b has the capacity. It returns
// the new length.
func (s *sender) seal(b []byte, rtcp bool) (int, error) {
	if rtcp {
		return s.sealRTCP(b)
	}
	header, ok := rtpHeader(b)
	if !ok {
		return 0, errHeader
	}
	index, err := s.renumber(b)
	if err != nil {
		return 0, err
	}
	return s.rtp.sealRTP(b, header, index)
}

func (s *sender) sealRTCP(b []byte) (int, error) {
	if s.rtcp == nil {
		t, err := newTransform(s.key, true, s.rtp.desks)
		if err != nil {
			return 0, err
		}
		s.rtcp = t
	}
	if s.reports == maxRTCPIndex {
		return 0, errWorn
	}
	s.reports++ // the first has index 1, as most have it
	return s.rtcp.sealRTCP(b, s.reports)
}

// renumber gives the RTP packet b the sequence number it has under our key, and
// returns its index, which no packet of its SSRC had before.
func (s *sender) renumber(b []byte) (uint64, error) {
	seq, ssrc := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[8:])
	n := s.numbering(ssrc, seq)
	if n == nil {
		return 0, errSSRCs
	}
	out, last := seq+n.offset, uint16(n.high)
	d := int(int16(out - last))
	if d <= 0 && !n.late(uint64(-d)) {
		// The source stepped back, or sent this number before: go on
		// where we were.
		d, out = 1, last+1
		n.offset = out - seq
	}
	index := n.high + uint64(d)
	switch {
	case d <= 0:
		n.sent |= 1 << uint(-d)
		binary.BigEndian.PutUint16(b[2:], out)
		return index, nil
	case !n.begun:
		index = uint64(out)
	case index > maxRTPIndex:
		return 0, errWorn
	}
	n.high, n.begun = index, true
	n.sent = n.sent<<uint(d) | 1
	binary.BigEndian.PutUint16(b[2:], out)
	return index, nil
}

// late reports whether the packet that far behind the highest is merely late:
// near enough, under this key, and not sent before.
func (n *numbering) late(behind uint64) bool {
	return behind < maxBackward && n.begun && behind <= n.high && n.sent>>behind&1 == 0
}

// numbering returns the state of ssrc, made if it is new: the first number is
// below 2^15, so that an early loss around a wrap cannot desynchronize.
func (s *sender) numbering(ssrc uint32, seq uint16) *numbering {
	for i := range s.next {
		if s.next[i].ssrc == ssrc {
			if i > 0 {
				n := s.next[i]
				copy(s.next[1:i+1], s.next[:i])
				s.next[0] = n
			}
			return &s.next[0]
		}
	}
	if len(s.next) == maxSealed {
		return nil
	}
	s.next = append(s.next, numbering{})
	copy(s.next[1:], s.next)
	offset := uint16(0)
	if seq >= 1<<15 {
		offset = 1 << 15
	}
	s.next[0] = numbering{ssrc: ssrc, offset: offset, high: uint64(seq + offset - 1)}
	return &s.next[0]
}
