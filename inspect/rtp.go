package inspect

import (
	"encoding/binary"
	"sync/atomic"

	"patchbay/nat"
	"patchbay/stack"
)

// A Conformance is what may pass the pinholes for media: "rtp-conformance".
type Conformance uint8

const (
	AnyMedia    Conformance = iota // what comes
	RTPOnly                        // RTP and RTCP
	RTPSignaled                    // and of RTP only the payload types that were signaled
)

// PayloadTypes is a set of RTP payload types. (RFC 3551, section 6.)
type PayloadTypes [2]uint64

// Add puts t in; a t over 127 is none.
func (p *PayloadTypes) Add(t uint8) {
	if t < 128 {
		p[t>>6] |= 1 << (t & 63)
	}
}

// AddRange puts the types from from to to in.
func (p *PayloadTypes) AddRange(from, to uint8) {
	for t := from; t <= to && t < 128; t++ {
		p.Add(t)
	}
}

// AddAll puts those of q in.
func (p *PayloadTypes) AddAll(q PayloadTypes) {
	p[0] |= q[0]
	p[1] |= q[1]
}

// Has reports whether t is in.
func (p PayloadTypes) Has(t uint8) bool { return t < 128 && p[t>>6]>>(t&63)&1 != 0 }

// The payload types that RTCP's packet types look like, behind a marker bit.
// In a set they say that RTCP may share the port. (RFC 5761, section 4.)
const (
	firstMux = 72
	lastMux  = 79
)

// AddMux says that RTCP may come at the port of RTP.
func (p *PayloadTypes) AddMux() { p.AddRange(firstMux, lastMux) }

// The headers of RTP and RTCP. (RFC 3550, sections 5.1, 5.3.1 and 6.1.)
const (
	rtpVersion  = 2
	rtpHeader   = 12 // bytes without contributing sources and extension
	rtpExtended = 4  // bytes before the words of an extension
	rtcpHeader  = 8  // bytes, with the sender's SSRC
	firstRTCP   = 200
	lastRTCP    = 207
)

// How far sequence numbers may jump ahead and fall back. (RFC 3550, appendix A.1.)
const (
	maxDropout  = 3000
	maxMisorder = 100
)

// A conformer checks the media of one stream, both ways. What signaling says
// of it changes while packets pass; there is no lock.
type conformer struct {
	level   Conformance
	raw     atomic.Bool // what flows is not RTP
	secure  atomic.Bool // it is SRTP: what is behind the header cannot be read
	types   [2]atomic.Uint64
	sources [2]source           // by the end that sends
	checks  [2][2]conformerHole // by the end that the pinhole leads to; RTP and RTCP
}

// A source is what one end sends: its SSRC and where its numbers are.
type source struct {
	now atomic.Uint64 // SSRC, highest sequence number, known
	odd atomic.Uint32 // the number after one that was out of range, + 1; 0 is none
}

const sourceKnown = 1 // in the low 16 bits of source.now

// A conformerHole is the nat.Handler of one of the stream's pinholes. It drops
// what is no RTP: STUN, DTLS and ZRTP have another version in their first bits.
type conformerHole struct {
	*conformer
	to   nat.End
	rtcp bool
}

var _ nat.Handler = (*conformerHole)(nil)

func newConformer(level Conformance) *conformer {
	f := &conformer{level: level}
	for end := nat.Client; end <= nat.Server; end++ {
		f.checks[end] = [2]conformerHole{{f, end, false}, {f, end, true}}
	}
	return f
}

// signaled takes what an end announced. The types of a stream only grow: who
// has offered others may send the old ones until the answer comes. A source may
// be another from now on.
func (f *conformer) signaled(m Media) {
	f.raw.Store(m.NotRTP)
	f.secure.Store(m.Secure)
	for i := range f.types {
		f.types[i].Or(m.Types[i])
	}
	for i := range f.sources {
		f.sources[i].now.Store(0)
		f.sources[i].odd.Store(0)
	}
}

// HandlePacket checks one packet. See nat.Handler.
func (h *conformerHole) HandlePacket(p *stack.Packet, _ *nat.Conn, from nat.End) stack.Verdict {
	if h.raw.Load() {
		return stack.Forward
	}
	if h.rtcp {
		return h.checkRTCP(p.Payload())
	}
	sender := h.to // answers come from where the pinhole leads to
	if from == nat.Client {
		sender = h.to.Other()
	}
	return h.checkRTP(p.Payload(), &h.sources[sender])
}

// checkRTP checks a packet at the port of RTP.
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|V=2|P|X|  CC   |M|     PT      |       sequence number         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                           timestamp                           |
//	|                             SSRC                              |
func (f *conformer) checkRTP(b []byte, src *source) stack.Verdict {
	switch {
	case len(b) < rtcpHeader:
		return stack.DropRTPLength
	case b[0]>>6 != rtpVersion:
		return stack.DropRTPVersion
	case firstRTCP <= b[1] && b[1] <= lastRTCP:
		if !f.has(b[1] & 0x7f) {
			return stack.DropRTPPayload
		}
		return f.checkRTCP(b)
	case len(b) < rtpHeader:
		return stack.DropRTPLength
	}
	n := rtpHeader + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 { // X
		if len(b) < n+rtpExtended {
			return stack.DropRTPLength
		}
		n += rtpExtended + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	if len(b) < n {
		return stack.DropRTPLength
	}
	if b[0]&0x20 != 0 && !f.secure.Load() { // P: its count is in the last byte
		if pad := int(b[len(b)-1]); pad == 0 || pad > len(b)-n {
			return stack.DropRTPLength
		}
	}
	if f.level == RTPSignaled && f.types[0].Load()|f.types[1].Load() != 0 && !f.has(b[1]&0x7f) {
		return stack.DropRTPPayload
	}
	return src.check(binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[2:]))
}

func (f *conformer) has(t uint8) bool { return f.types[t>>6&1].Load()>>(t&63)&1 != 0 }

// check follows the sequence numbers of one source. A jump is believed when the
// next packet follows on it. (RFC 3550, appendix A.1.)
func (s *source) check(ssrc uint32, seq uint16) stack.Verdict {
	was := s.now.Load()
	now := uint64(ssrc)<<32 | uint64(seq)<<16 | sourceKnown
	switch delta := seq - uint16(was>>16); {
	case was&sourceKnown == 0:
	case uint32(was>>32) != ssrc:
		return stack.DropRTPSSRC
	case delta < maxDropout:
	case delta > 1<<16-1-maxMisorder:
		return stack.Forward // late or twice
	case s.odd.Load() == uint32(seq)+1:
	default:
		s.odd.Store(uint32(seq+1) + 1)
		return stack.DropRTPSequence
	}
	if was&sourceKnown == 0 || s.odd.Load() != 0 {
		s.odd.Store(0)
	}
	if now != was {
		s.now.Store(now)
	}
	return stack.Forward
}

// checkRTCP checks a packet at the port of RTCP, each part of a compound.
//
//	 0                   1                   2                   3
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|V=2|P|  count  |      PT       |   length in words, less one   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
func (f *conformer) checkRTCP(b []byte) stack.Verdict {
	if len(b) < rtcpHeader {
		return stack.DropRTCPLength
	}
	for len(b) > 0 {
		switch {
		case len(b) < 4:
			return stack.DropRTCPLength
		case b[0]>>6 != rtpVersion:
			return stack.DropRTCPVersion
		case b[1] < firstRTCP || b[1] > lastRTCP:
			return stack.DropRTCPPayload
		}
		n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if n > len(b) {
			return stack.DropRTCPLength
		}
		if f.secure.Load() {
			break // the rest is cipher and tag
		}
		b = b[n:]
	}
	return stack.Forward
}
