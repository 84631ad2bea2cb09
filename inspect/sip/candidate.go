package sip

import (
	"bytes"
	"net/netip"
	"strconv"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
)

// editCandidates gives the candidates of ICE that are the stream's own sockets
// their places on the other side, so that the default candidate is among them
// still. Others lose their addresses to scrub. (RFC 8839, sections 4.2.5 and 5.1.)
//
//	a=candidate:1 1 UDP 2130706431 10.20.0.11 16384 typ host
func (s *session) editCandidates(m *sdp.Media, in, out inspect.Media) {
	const prefix = "a=candidate:"
	body := s.media.body.Of(s.msg.raw)
	for at := m.Attr; at < m.Section.End(); {
		line := body[at:m.Section.End()]
		if n := bytes.IndexByte(line, '\n'); n >= 0 {
			line = line[:n+1]
		}
		if bytes.HasPrefix(line, []byte(prefix)) {
			s.editCandidate(at+len(prefix), at+len(line), in, out)
		}
		at += len(line)
	}
}

// editCandidate edits one, from behind its "a=candidate:" to its end.
func (s *session) editCandidate(at, end int, in, out inspect.Media) {
	body := s.media.body.Of(s.msg.raw)
	var words [6]inspect.Span // foundation, component, transport, priority, address, port
	for i := range words {
		for at < end && isSpace(body[at]) {
			at++
		}
		words[i].Off = at
		for at < end && !isSpace(body[at]) {
			at++
		}
		words[i].Len = at - words[i].Off
	}
	addr, ok := sdp.ParseAddr(words[4].Of(body))
	port, okPort := parseLength(words[5].Of(body))
	if !ok || !okPort || port > 0xffff {
		return
	}
	was, is := in.Addr, out.Addr
	if string(words[1].Of(body)) == "2" {
		was, is = rtcpOf(in), rtcpOf(out)
	}
	if netip.AddrPortFrom(addr, uint16(port)) != was || !is.IsValid() {
		return
	}
	s.text = is.Addr().AppendTo(s.text[:0])
	s.edit(words[4], s.text)
	s.text = strconv.AppendUint(s.text[:0], uint64(is.Port()), 10)
	s.edit(words[5], s.text)
}

// rtcpOf returns where RTCP goes: where it is said, or the next port.
func rtcpOf(m inspect.Media) netip.AddrPort {
	if m.RTCP.IsValid() || m.Addr.Port() == 0xffff {
		return m.RTCP
	}
	return netip.AddrPortFrom(m.Addr.Addr(), m.Addr.Port()+1)
}
