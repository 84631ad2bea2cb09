package lab

import (
	"errors"
	"fmt"
	"net/netip"
)

// checkSDP reads a description that came to the phone, as strictly as a 7900
// does: a secure phone wants SAVP and exactly one a=crypto with the one suite,
// a plain one AVP and none. tag, if not "", is what an answer must repeat.
// (reference/sip-cisco-phones.md, section 4.1.)
func (s *sipPhone) checkSDP(b []byte, tag string) (*sdp, error) {
	d, err := parseSDP(b)
	if err != nil {
		return nil, err
	}
	if !s.p.Secure() {
		if d.proto != "RTP/AVP" || len(d.crypto) > 0 {
			return nil, fmt.Errorf("lab: sdp: %s with %d a=crypto for a plain phone", d.proto, len(d.crypto))
		}
		return d, nil
	}
	switch {
	case d.proto != "RTP/SAVP":
		return nil, fmt.Errorf("lab: sdp: profile %s, want RTP/SAVP", d.proto)
	case len(d.crypto) != 1:
		return nil, fmt.Errorf("lab: sdp: %d a=crypto lines, want 1", len(d.crypto))
	case d.crypto[0].suite != suite32:
		return nil, fmt.Errorf("lab: sdp: suite %q", d.crypto[0].suite)
	case tag != "" && d.crypto[0].tag != tag:
		return nil, fmt.Errorf("lab: sdp: answer with tag %q, offered was %q", d.crypto[0].tag, tag)
	}
	return d, nil
}

// checkAndApply takes the answer to an offer of ours.
func (s *sipPhone) checkAndApply(b []byte, tag string) error {
	if len(b) == 0 {
		return errors.New("lab: no answer to the offer")
	}
	d, err := s.checkSDP(b, tag)
	if err != nil {
		return err
	}
	return s.apply(d)
}

// apply makes the media as the other's description has it.
func (s *sipPhone) apply(d *sdp) error {
	c := s.dialog
	m, err := s.p.openMediaLocked()
	if err != nil {
		return err
	}
	var theirs mediaKey
	if len(d.crypto) > 0 {
		theirs = d.crypto[0].key
	}
	c.destination = d.addr.Addr()
	send := !c.held && d.receives() && d.addr.Port() != 0 && !d.addr.Addr().IsUnspecified()
	listen := !c.held && d.sends()
	if listen {
		if err := m.listen(theirs); err != nil {
			return err
		}
	} else {
		m.deafen()
	}
	if send {
		if err := m.send(d.addr, c.key); err != nil {
			return err
		}
		s.p.logf("sends to %v", d.addr)
	} else {
		m.silence()
	}
	c.resting = !send && !listen
	return nil
}

// rest stops the media, for hold.
func (s *sipPhone) rest() {
	s.dialog.resting = true
	if m := s.p.media; m != nil {
		m.silence()
		m.deafen()
	}
}

// offer describes our end, for an INVITE or for the 200 to one without a
// description.
func (s *sipPhone) offer() ([]byte, error) {
	d := s.dialog
	if err := s.chooseKey(netip.Addr{}); err != nil {
		return nil, err
	}
	if d.held {
		return s.describe("sendonly")
	}
	if !s.p.Secure() { // a secure phone waits for the key
		m, err := s.p.openMediaLocked()
		if err != nil {
			return nil, err
		}
		if err := m.listen(mediaKey{}); err != nil {
			return nil, err
		}
	}
	return s.describe("sendrecv")
}

// answerSDP answers an offer and makes the media so.
func (s *sipPhone) answerSDP(b []byte) ([]byte, error) {
	c := s.dialog
	d, err := s.checkSDP(b, "")
	if err != nil {
		return nil, err
	}
	if len(d.crypto) > 0 {
		c.tag = d.crypto[0].tag
	}
	if d.sends() || d.receives() || c.key == (mediaKey{}) {
		if err := s.chooseKey(d.addr.Addr()); err != nil {
			return nil, err
		}
	}
	if err := s.apply(d); err != nil {
		return nil, err
	}
	dir := map[string]string{
		"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive",
	}[d.dir]
	if c.held {
		dir = "inactive"
	}
	return s.describe(dir)
}

// chooseKey makes a new transmit key when a 7900 makes one: there is none, the
// media begin again after a rest, or they go to another address.
// (reference/sip-cisco-phones.md, section 4.1.)
func (s *sipPhone) chooseKey(to netip.Addr) error {
	d := s.dialog
	if !s.p.Secure() {
		return nil
	}
	moved := to.IsValid() && !to.IsUnspecified() && d.destination.IsValid() && to != d.destination
	if d.key != (mediaKey{}) && !moved && (!d.resting || d.held) {
		return nil
	}
	k, err := s.p.newKeyLocked()
	d.key = k
	return err
}

// describe writes our session description. (reference/sip-cisco-phones.md,
// section 4: c= at media level.)
func (s *sipPhone) describe(dir string) ([]byte, error) {
	d := s.dialog
	m, err := s.p.openMediaLocked()
	if err != nil {
		return nil, err
	}
	addr := m.addr.Addr().String()
	if d.held && s.p.config.ZeroHold {
		addr, dir = "0.0.0.0", "sendrecv"
	}
	proto := "RTP/AVP"
	if s.p.Secure() {
		proto = "RTP/SAVP"
	}
	d.version++
	b := fmt.Appendf(nil, "v=0\r\no=Cisco-SIPUA %d %d IN IP4 %v\r\ns=SIP Call\r\nt=0 0\r\n",
		m.addr.Port(), d.version, m.addr.Addr())
	b = fmt.Appendf(b, "m=audio %d %s 0 101\r\nc=IN IP4 %s\r\n", m.addr.Port(), proto, addr)
	if s.p.Secure() {
		b = append(b, cryptoLine(d.tag, d.key)...)
	}
	b = fmt.Appendf(b, "a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=%s\r\n", dir)
	return b, nil
}
