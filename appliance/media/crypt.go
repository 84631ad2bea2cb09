package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v2"

	"patchbay/inspect"
)

const (
	replayWindow = 128 // packets; RFC 3711 section 3.3.2 asks for 64 at least

	// maxSSRCs bounds the streams under one key. More than a handful means
	// that an end changed its SSRC that often; the one idle longest goes.
	maxSSRCs = 8

	// probeTries is how many packets that fail to authenticate a probing
	// context sees before it is made anew, so that a stranger's SSRCs do not
	// pile up in it.
	probeTries = 32
)

var (
	errReplay = errors.New("media: replayed")
	errAuth   = errors.New("media: authentication failed")
)

func profile(s inspect.Suite) (srtp.ProtectionProfile, error) {
	switch s {
	case inspect.AES_CM_128_SHA1_32:
		return srtp.ProtectionProfileAes128CmHmacSha1_32, nil
	case inspect.AES_CM_128_SHA1_80:
		return srtp.ProtectionProfileAes128CmHmacSha1_80, nil
	}
	return 0, fmt.Errorf("media: suite %v is not supported", s)
}

func newContext(k inspect.Key) (*srtp.Context, error) {
	pf, err := profile(k.Suite)
	if err != nil {
		return nil, err
	}
	c, err := srtp.CreateContext(k.Master[:], k.Salt[:], pf,
		srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow))
	if err != nil {
		return nil, errors.New("media: key refused") // the cause would print the key
	}
	return c, nil
}

// A receiver opens what one end sends under one key. Each SSRC has a context
// of its own, made when its first packet authenticates: the library keeps
// state for every SSRC it is shown, and strangers may show any.
type receiver struct {
	key     inspect.Key
	streams []stream // the last used first
	probe   *srtp.Context
	tried   int
	header  rtp.Header
}

type stream struct {
	ssrc uint32
	c    *srtp.Context
}

func newReceiver(k inspect.Key) (receiver, error) {
	probe, err := newContext(k)
	if err != nil {
		return receiver{}, err
	}
	return receiver{key: k, probe: probe, streams: make([]stream, 0, maxSSRCs)}, nil
}

func (r *receiver) ready() bool { return r.probe != nil }

// open authenticates and decrypts b in place and returns the length of the
// plain packet.
func (r *receiver) open(b []byte, rtcp bool) (int, error) {
	at := 8 // SSRC of RTP
	if rtcp {
		at = 4
	}
	ssrc := binary.BigEndian.Uint32(b[at:])
	for i := range r.streams {
		if r.streams[i].ssrc == ssrc {
			if i > 0 {
				s := r.streams[i]
				copy(r.streams[1:i+1], r.streams[:i])
				r.streams[0] = s
			}
			return r.decrypt(r.streams[0].c, b, rtcp)
		}
	}
	if !rtcp {
		r.probe.SetROC(ssrc, 0) // forget what a forgery left behind
	}
	n, err := r.decrypt(r.probe, b, rtcp)
	if err != nil && !rtcp && b[2] < 0x80 {
		// We may have missed a wrap: the first packet of a stream that was
		// already at roll-over 1. (reference/srtp-keying.md, section 4.)
		r.probe.SetROC(ssrc, 1)
		n, err = r.decrypt(r.probe, b, rtcp)
	}
	if err != nil {
		if r.tried++; r.tried >= probeTries {
			if c, e := newContext(r.key); e == nil {
				r.probe, r.tried = c, 0
			}
		}
		return 0, err
	}
	// It is ours: the probing context becomes the stream's own.
	fresh, e := newContext(r.key)
	if e != nil {
		return 0, e
	}
	if len(r.streams) == maxSSRCs {
		r.streams = r.streams[:maxSSRCs-1]
	}
	r.streams = append(r.streams, stream{})
	copy(r.streams[1:], r.streams)
	r.streams[0] = stream{ssrc, r.probe}
	r.probe, r.tried = fresh, 0
	return n, nil
}

func (r *receiver) decrypt(c *srtp.Context, b []byte, rtcp bool) (int, error) {
	var out []byte
	var err error
	if rtcp {
		out, err = c.DecryptRTCP(b, b, nil)
	} else {
		out, err = c.DecryptRTP(b[:0:len(b)], b, &r.header)
	}
	switch {
	case err == nil:
		return len(out), nil
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag):
		return 0, errAuth
	}
	if r.known(c) {
		return 0, errReplay
	}
	return 0, errAuth
}

// known reports whether c belongs to a stream that has authenticated before.
func (r *receiver) known(c *srtp.Context) bool { return c != r.probe }

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
	key     inspect.Key
	c       *srtp.Context
	header  rtp.Header
	scratch []byte
	next    []numbering // the last used first; it outlives the key
	reports []uint32    // SSRCs of RTCP sealed so far
}

type numbering struct {
	ssrc   uint32
	offset uint16 // added to the source's sequence numbers
	last   uint16 // the highest sent
	sent   uint64 // bit n: last - n was sent
}

func newSender(k inspect.Key, before *sender) (sender, error) {
	c, err := newContext(k)
	if err != nil {
		return sender{}, err
	}
	return sender{key: k, c: c, next: before.next, scratch: make([]byte, 0, 2048)}, nil
}

func (s *sender) ready() bool { return s.c != nil }

// seal encrypts b in place and appends the tag; b has the capacity. It returns
// the new length.
func (s *sender) seal(b []byte, rtcp bool) (int, error) {
	var out []byte
	var err error
	if rtcp {
		if !s.report(binary.BigEndian.Uint32(b[4:])) {
			return 0, errSSRCs
		}
		out, err = s.c.EncryptRTCP(b, b, nil)
	} else {
		if !s.renumber(b) {
			return 0, errSSRCs
		}
		dst := b[:0]
		if b[0]&0x10 != 0 {
			// The library writes header extensions anew, and maybe not
			// to the byte where they were.
			dst = s.scratch[:0]
		}
		out, err = s.c.EncryptRTP(dst, b, &s.header)
	}
	if err != nil {
		return 0, fmt.Errorf("media: seal: %w", err)
	}
	if len(out) > cap(b) {
		return 0, errors.New("media: seal: no room for the tag")
	}
	if &out[0] != &b[0] {
		copy(b[:len(out)], out)
	}
	return len(out), nil
}

// report notes an SSRC that RTCP is sealed for.
func (s *sender) report(ssrc uint32) bool {
	if slices.Contains(s.reports, ssrc) {
		return true
	}
	if len(s.reports) == maxSealed {
		return false
	}
	s.reports = append(s.reports, ssrc)
	return true
}

// renumber gives the RTP packet b the sequence number it has under our key.
func (s *sender) renumber(b []byte) bool {
	seq, ssrc := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[8:])
	n := s.numbering(ssrc, seq)
	if n == nil {
		return false
	}
	out := seq + n.offset
	d := int(int16(out - n.last))
	if d <= 0 && (-d >= maxBackward || n.sent>>uint(-d)&1 == 1) {
		// The source stepped back, or sent this number before: go on
		// where we were.
		d, out = 1, n.last+1
		n.offset = out - seq
	}
	if d > 0 {
		n.last = out
		n.sent = n.sent<<uint(d) | 1
	} else {
		n.sent |= 1 << uint(-d)
	}
	binary.BigEndian.PutUint16(b[2:], out)
	return true
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
	s.next[0] = numbering{ssrc: ssrc, offset: offset, last: seq + offset - 1}
	return &s.next[0]
}
