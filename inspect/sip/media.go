package sip

import (
	"fmt"
	"net/netip"
	"strconv"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
)

// streamName holds the Stream of each m= line: its index from 0.
var streamName = [sdp.MaxMedia]string{
	"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
	"16", "17", "18", "19", "20", "21", "22", "23", "24", "25", "26", "27", "28", "29", "30", "31",
}

// A mediaEdit is what is gathered of one session description before its
// addresses are written.
type mediaEdit struct {
	body inspect.Span
	call *call // nil when the description agrees on nothing
	// answer says that it answers an offer of the end it goes to.
	answer bool
	// moved lists addresses of streams as they came and as they leave.
	moved []move
	// conn is what the session's c= becomes: the address of the first stream
	// that it holds for. Streams that differ get a c= of their own.
	conn netip.Addr
}

type move struct{ before, after netip.Addr }

// editSDP edits one session description. (reference/sip-cisco-phones.md,
// section 4.)
func (s *session) editSDP(body inspect.Span) error {
	raw := body.Of(s.msg.raw)
	if err := sdp.Parse(raw, &s.desc); err != nil {
		return fmt.Errorf("sip: %s: %w", s.msg.method, err)
	}
	s.media = mediaEdit{body: body, moved: s.media.moved[:0]}
	if s.negotiates() {
		c := s.calls.add(s.msg.callID, established, s.binder)
		if c.stage == ended {
			// It crossed the end of the call. No stream of it will be.
			for i := range s.desc.Media {
				s.edit(s.desc.Media[i].Ports, []byte("0"))
				s.editCrypto(&s.desc.Media[i], nil)
			}
		} else {
			s.media.call = c
			s.media.answer = c.answers(&s.msg, s.from)
			for len(c.stream) < len(s.desc.Media) {
				c.stream = append(c.stream, stream{})
			}
		}
	}
	for i := range s.desc.Media {
		if s.media.call == nil {
			break
		}
		if err := s.editMedia(i); err != nil {
			return fmt.Errorf("sip: m-line %d: %w", i, err)
		}
	}
	s.editOtherConns()
	return nil
}

// negotiates reports whether a session description in the message at hand is
// an offer or an answer. In others, such as the 200 to OPTIONS or a 488, it
// describes what could be.
func (s *session) negotiates() bool {
	m := &s.msg
	return m.status < 300 && (m.isMethod("INVITE") || m.isMethod("ACK") || m.isMethod("PRACK") || m.isMethod("UPDATE"))
}

// edit replaces a span of the body.
func (s *session) edit(span inspect.Span, with []byte) {
	span.Off += s.media.body.Off
	s.replace(span, with)
}

// insertLine puts a line before the byte at off in the body.
func (s *session) insertLine(off int, line []byte) {
	off += s.media.body.Off
	if s.msg.raw[off-1] != '\n' { // the body's last line has no end
		s.edits.InsertString(off, s.desc.EOL)
		s.edits.Insert(off, line)
		return
	}
	s.edits.Insert(off, line)
	s.edits.InsertString(off, s.desc.EOL)
}

// editMedia edits the m= line with index i and its section, c= of the session
// excepted.
func (s *session) editMedia(i int) error {
	body, m, st := s.media.body.Of(s.msg.raw), &s.desc.Media[i], &s.media.call.stream[i]
	to := s.from.Other()
	secure := m.Secure(body)
	switch {
	case m.Port == 0:
		s.refused(i, secure || m.Plain(body))
		return nil
	case !s.carried(m) && s.engine.NAT:
		return nil // it is left alone, but for its address
	case !s.carried(m):
		// The other end reads that it was refused, and so does this one,
		// when the answer comes.
		s.edit(m.Ports, []byte("0"))
		s.editCrypto(m, nil)
		return nil
	}

	in := inspect.Media{Call: s.media.call.id, Stream: streamName[i], Secure: secure}
	if s.engine.NAT { // the box's own legs take what comes
		in.Types, in.NotRTP = m.Types, !secure && !m.Plain(body)
	}
	addr := s.desc.Address(m)
	if addr.IsValid() && !addr.IsUnspecified() {
		in.Addr = netip.AddrPortFrom(addr, m.Port)
	}
	if m.RTCP.Present() {
		a := addr
		if m.RTCP.Address.Present() {
			a = m.RTCP.Address.Addr
		}
		if a.IsValid() && !a.IsUnspecified() {
			in.RTCP = netip.AddrPortFrom(a, m.RTCP.Port)
		}
	}
	if secure && !s.engine.NAT {
		c := m.Choose()
		if c == nil {
			return fmt.Errorf("SRTP without an a=crypto that we speak, of %d", len(m.Crypto))
		}
		in.Tx = c.Key
		if st.offered[s.from].tag == string(c.Tag) {
			in.Tag = st.offered[s.from].tag // no new string for the same tag
		} else {
			in.Tag = string(c.Tag)
		}
	}
	out, err := s.binder.Media(in, s.from)
	if err != nil {
		return err
	}
	st.bound, s.media.call.bound = true, true
	s.note(st, in)
	s.forked(st, in)

	if out.Addr == in.Addr && out.RTCP == in.RTCP && out.Secure == in.Secure && out.Tx == in.Tx {
		// The ends talk to each other: they must hear each other's words.
		st.secure[to] = profileOf(secure)
		if !m.Conn.Present() && !s.media.conn.IsValid() {
			s.media.conn = s.desc.Conn.Addr
		}
		return nil
	}
	return s.announce(m, st, in, out)
}

// note keeps what from said of a stream, and at an answer what is agreed.
func (s *session) note(st *stream, in inspect.Media) {
	said := &st.now[s.from]
	before := *said
	*said = in
	if !in.Addr.IsValid() {
		said.Addr, said.RTCP = before.Addr, before.RTCP
	}
	st.secure[s.from] = profileOf(in.Secure)
	if s.media.answer {
		st.agreed = st.now
	} else {
		st.offered[s.from] = offer{tag: in.Tag, suite: in.Tx.Suite}
	}
}

// announce writes out in place of in.
func (s *session) announce(m *sdp.Media, st *stream, in, out inspect.Media) error {
	to := s.from.Other()
	tag := "1"
	if s.media.answer && !s.engine.NAT {
		asked := st.offered[to]
		switch {
		case out.Secure && asked.suite != out.Tx.Suite:
			// A phone refuses SAVP in answer to AVP, and another suite.
			return fmt.Errorf("answer of %v to an offer of %v", out.Tx.Suite, asked.suite)
		case asked.tag != "":
			tag = asked.tag
		}
	}
	if out.Secure && out.Tx.IsZero() && !s.engine.NAT {
		return fmt.Errorf("SRTP without a key to announce")
	}
	if out.Addr.IsValid() {
		s.text = strconv.AppendUint(s.text[:0], uint64(out.Addr.Port()), 10)
		s.edit(m.Ports, s.text)
	}
	s.editProfile(m, out.Secure)
	st.secure[to] = profileOf(out.Secure)

	before := s.desc.Address(m)
	if before.IsUnspecified() && before.IsValid() {
		// Hold as RFC 2543 wrote it: the address stays, nobody sends.
	} else if out.Addr.IsValid() {
		after := out.Addr.Addr().Unmap()
		if before.IsValid() {
			s.media.moved = append(s.media.moved, move{before, after})
		}
		switch {
		case m.Conn.Present():
			s.editConn(&m.Conn, after)
		case s.desc.Conn.Present() && (!s.media.conn.IsValid() || s.media.conn == after):
			s.media.conn = after
		default:
			s.text = append(s.text[:0], "c=IN "...)
			s.text = sdp.AppendAddress(s.text, after)
			s.insertLine(m.Title, s.text)
		}
	}
	switch {
	case m.RTCP.Present():
		s.editRTCP(m, out)
	case s.engine.NAT && out.RTCP.IsValid():
		s.text = appendRTCP(s.text[:0], out.RTCP)
		s.insertLine(m.Attr, s.text)
	}
	if s.engine.NAT {
		s.editCandidates(m, in, out)
		return nil // keys are between the ends
	}
	if !out.Secure {
		s.editCrypto(m, nil)
		return nil
	}
	s.text = sdp.AppendCrypto(s.text[:0], tag, out.Tx)
	s.editCrypto(m, s.text)
	clear(s.text[:cap(s.text)]) // the key
	return nil
}

// refused edits an m= line with port 0. Its profile is that of the offer it
// answers, or of the stream until now.
func (s *session) refused(i int, rtp bool) {
	m, st := &s.desc.Media[i], &s.media.call.stream[i]
	if s.media.answer && st.bound {
		s.binder.Release(s.media.call.id, streamName[i])
		*st = stream{offered: st.offered, secure: st.secure}
	}
	to := s.from.Other()
	if st.secure[to] == unknownProfile || !rtp {
		return
	}
	s.editProfile(m, st.secure[to] == secureProfile)
	if st.secure[to] == plainProfile {
		s.editCrypto(m, nil)
	}
}

// editProfile makes AVP SAVP, or back; feedback (AVPF) stays.
func (s *session) editProfile(m *sdp.Media, secure bool) {
	proto := m.Proto.Of(s.media.body.Of(s.msg.raw))
	switch want := string(proto); {
	case secure && want == "RTP/AVP":
		s.edit(m.Proto, []byte("RTP/SAVP"))
	case secure && want == "RTP/AVPF":
		s.edit(m.Proto, []byte("RTP/SAVPF"))
	case !secure && want == "RTP/SAVP":
		s.edit(m.Proto, []byte("RTP/AVP"))
	case !secure && want == "RTP/SAVPF":
		s.edit(m.Proto, []byte("RTP/AVPF"))
	}
}

// editCrypto leaves line as the only a=crypto, or none when it is nil.
func (s *session) editCrypto(m *sdp.Media, line []byte) {
	for i := range m.Crypto {
		old := m.Crypto[i].Line
		if i == 0 && line != nil {
			// Its end stays.
			text := trim(s.media.body.Of(s.msg.raw), old)
			s.edit(text, line)
			continue
		}
		s.edit(old, nil)
	}
	if len(m.Crypto) == 0 && line != nil {
		s.insertLine(m.Attr, line)
	}
}

// editRTCP writes a=rtcp where the Binder names an address for it. Without the
// line it is the next port. (RFC 3605, section 2.1.)
func (s *session) editRTCP(m *sdp.Media, out inspect.Media) {
	if !out.RTCP.IsValid() {
		s.edit(m.RTCP.Line, nil)
		return
	}
	s.text = appendRTCP(s.text[:0], out.RTCP)
	s.edit(trim(s.media.body.Of(s.msg.raw), m.RTCP.Line), s.text)
}

func appendRTCP(dst []byte, a netip.AddrPort) []byte {
	dst = strconv.AppendUint(append(dst, "a=rtcp:"...), uint64(a.Port()), 10)
	return sdp.AppendAddress(append(dst, " IN "...), a.Addr())
}

// editConn writes addr into a c= or o= line.
func (s *session) editConn(a *sdp.Address, addr netip.Addr) {
	if a.Addr == addr || a.Addr.Unmap() == addr {
		return
	}
	span := inspect.Span{Off: a.Family.Off, Len: a.Text.End() - a.Family.Off}
	s.text = sdp.AppendAddress(s.text[:0], addr)
	s.edit(span, s.text)
}

// editOtherConns writes what no stream has: c= of the session, of streams that
// are refused, and o=. An address that signaling does not know is perhaps one
// of the streams'.
func (s *session) editOtherConns() {
	d := &s.desc
	if d.Conn.Present() {
		switch {
		case d.Conn.Addr.IsValid() && d.Conn.Addr.IsUnspecified():
		case s.media.conn.IsValid():
			s.editConn(&d.Conn, s.media.conn)
		default:
			s.editOther(&d.Conn)
		}
	}
	for i := range d.Media {
		m := &d.Media[i]
		if m.Conn.Present() && (s.media.call == nil || !s.carried(m)) {
			s.editOther(&m.Conn)
		}
	}
	if d.Origin.Present() {
		s.editOther(&d.Origin)
	}
}

// carried reports whether the Binder speaks for m.
func (s *session) carried(m *sdp.Media) bool {
	body := s.media.body.Of(s.msg.raw)
	rtp := m.Secure(body) || m.Plain(body)
	return m.Port != 0 && (rtp && string(m.Kind) == "audio" ||
		(s.engine.EveryMedia || s.engine.NAT) && (rtp || string(m.Proto.Of(body)) == "udptl"))
}

// editOther writes an address that no stream is announced with.
func (s *session) editOther(a *sdp.Address) {
	if !a.Addr.IsValid() || a.Addr.IsUnspecified() {
		return
	}
	after := s.address(a.Addr)
	if after == a.Addr {
		for _, x := range s.media.moved {
			if x.before == a.Addr {
				after = x.after
				break
			}
		}
	}
	s.editConn(a, after)
}
