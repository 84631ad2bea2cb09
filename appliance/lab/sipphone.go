package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

const (
	registerDelta = 5 * time.Second // timerRegisterDelta
	userAgent     = "Cisco-CP7962G/9.4.2"
	sipSupported  = "replaces,join,sdp-anat,norefersub,resource-priority,extended-refer,X-cisco-callinfo," +
		"X-cisco-serviceuri,X-cisco-escapecodes,X-cisco-service-control,X-cisco-srtp-fallback," +
		"X-cisco-monrec,X-cisco-config,X-cisco-sis-5.1.0,X-cisco-xsi-8.5.1"
	sipAllow = "ACK,BYE,CANCEL,INVITE,NOTIFY,OPTIONS,REFER,REGISTER,UPDATE,SUBSCRIBE,INFO"
)

// A sipPhone is a phone's SIP side. (reference/sip-cisco-phones.md.)
type sipPhone struct {
	p *Phone

	user      string // of the Contact: a UUID
	transport string // TCP or TLS
	manager   string // host part the phone registers with
	regCallID string // the same for all refreshes
	regTag    string
	cseq      int
	contact   string // value of the REGISTER's Contact
	refresh   *time.Timer
	pending   map[string]sipPending // by branch and method of our requests
	dialog    *sipDialog
}

// A sipPending is a request of ours without a final response.
type sipPending struct {
	request *sipMessage
	done    func(*sipMessage) error // for each response
}

// A sipDialog is one call. (RFC 3261, section 12.)
type sipDialog struct {
	callID      string
	local       string      // From or To of ours, with tag
	remote      string      // the other's, with tag once known
	target      string      // its Contact
	invite      *sipMessage // INVITE from the other that waits for our answer
	own         *sipMessage // our INVITE, until its final response
	established bool
	delayed     bool     // our 200 was the offer, the ACK has the answer
	key         mediaKey // we send with
	tag         string   // of the a=crypto line in use
	destination netip.Addr
	resting     bool // no media in either direction now
	held        bool // by us
	version     int  // of our session description
}

func (s *sipPhone) port(m DeviceManager, secure bool) int {
	if secure {
		return m.SecureSIP
	}
	return m.SIP
}

// self is where our connection comes from, which Via and Contact show.
func (s *sipPhone) self() netip.AddrPort { return s.p.session.local() }

func (s *sipPhone) contactURI() string {
	return fmt.Sprintf("sip:%s@%v;transport=%s", s.user, s.self(), strings.ToLower(s.transport))
}

func (s *sipPhone) random(n int) string { return randomHex(s.p.rand, n) }

func (s *sipPhone) start() {
	s.transport = "TCP"
	switch {
	case s.p.Secure():
		s.transport = "TLS"
	case s.p.config.UDP:
		s.transport = "UDP"
	}
	if d := s.p.device; d != nil && d.Contact != "" {
		s.user = d.Contact
	} else if s.user == "" {
		h := s.random(16)
		s.user = strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	}
	s.manager = s.p.session.remote().Addr().String()
	mac := strings.ToLower(s.p.config.MAC)
	s.regCallID = fmt.Sprintf("%s-%s-%s-%s@%v", mac, s.random(2), s.random(4), s.random(4), s.p.config.Host.Addr())
	s.regTag = mac + s.random(6)
	s.pending = make(map[string]sipPending)
	s.dialog = nil
	s.contact = fmt.Sprintf(`<%s>;+sip.instance="<urn:uuid:00000000-0000-0000-0000-%s>";+u.sip!devicename.ccm.cisco.com="%s";+u.sip!model.ccm.cisco.com="%d"`,
		s.contactURI(), mac, s.p.name, deviceType)
	s.sendRegister(3600)
}

// sendRegister sends a REGISTER and, if that goes well, plans the next.
func (s *sipPhone) sendRegister(expires int) {
	me := fmt.Sprintf("<sip:%s@%s>", s.p.config.Line, s.manager)
	s.cseq++
	m := s.request("REGISTER", "sip:"+s.manager, me+";tag="+s.regTag, me, s.regCallID, s.cseq)
	m.add("User-Agent", userAgent)
	m.add("Contact", s.contact)
	m.add("Supported", sipSupported)
	m.add("Reason", fmt.Sprintf(`SIP;cause=200;text="cisco-alarm:25 Name=%s Load=SIP42.9-4-2SR3-1S Last=initialized"`, s.p.name))
	m.add("Expires", fmt.Sprint(expires))
	s.ask(m, func(r *sipMessage) error {
		switch {
		case r.status() < 200:
			return nil
		case r.status() != 200:
			return fmt.Errorf("register refused: %s", r.start)
		case expires == 0:
			s.p.session.close()
			return errors.New("unregistered")
		}
		return s.registered(r)
	})
}

// registered checks the 200: the Contact must come back as it was sent.
func (s *sipPhone) registered(r *sipMessage) error {
	got := strings.ReplaceAll(r.get("Contact"), ";x-cisco-newreg", "")
	if got, _, _ = strings.Cut(got, ";expires="); got != s.contact {
		return fmt.Errorf("contact of the 200 is %q, sent was %q", got, s.contact)
	}
	var seconds int
	if _, err := fmt.Sscan(r.get("Expires"), &seconds); err != nil || seconds <= 0 {
		return fmt.Errorf("expires of the 200 is %q", r.get("Expires"))
	}
	wait := time.Duration(seconds) * time.Second
	if wait > 2*registerDelta {
		wait -= registerDelta
	} else {
		wait /= 2
	}
	sess := s.p.session
	s.refresh = time.AfterFunc(wait, func() {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		if s.p.session == sess && !s.p.closed {
			s.sendRegister(3600)
		}
	})
	if s.p.state == Unregistered {
		s.p.setLocked(Idle)
	}
	return nil
}

// run reads messages until the connection ends.
func (s *sipPhone) run(r io.Reader) error {
	defer func() {
		s.p.mu.Lock()
		if s.refresh != nil {
			s.refresh.Stop()
		}
		s.p.mu.Unlock()
	}()
	b := bufio.NewReaderSize(r, sipMaxBody)
	for {
		m, err := readSIP(b)
		if err != nil {
			return err
		}
		s.p.mu.Lock()
		if m.isResponse() {
			err = s.response(m)
		} else {
			err = s.handle(m)
		}
		s.p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// request begins a request of ours with a new branch.
func (s *sipPhone) request(method, uri, from, to, callID string, cseq int) *sipMessage {
	m := &sipMessage{start: method + " " + uri + " SIP/2.0"}
	m.add("Via", fmt.Sprintf("SIP/2.0/%s %v;branch=%s%s", s.transport, s.self(), magicCookie, s.random(4)))
	m.add("From", from)
	m.add("To", to)
	m.add("Call-ID", callID)
	m.add("Max-Forwards", "70")
	m.add("CSeq", fmt.Sprintf("%d %s", cseq, method))
	return m
}

func (s *sipPhone) send(m *sipMessage) {
	if s.p.session != nil {
		s.p.session.send(m.bytes())
	}
}

// ask sends a request, and has done called with each of its responses.
func (s *sipPhone) ask(m *sipMessage, done func(*sipMessage) error) {
	s.pending[transaction(m)] = sipPending{m, done}
	s.send(m)
}

// transaction names the transaction of a request of ours or its response: the
// branch and, as a CANCEL has its INVITE's, the method. (RFC 3261, 17.1.3.)
func transaction(m *sipMessage) string {
	_, method := m.cseq()
	return method + " " + headerParam(m.get("Via"), "branch")
}

// response finds the request of a response. Its Via must be ours as it was
// sent, but for what a server adds. (RFC 3261, section 18.1.2.)
func (s *sipPhone) response(r *sipMessage) error {
	via := r.get("Via")
	id := transaction(r)
	q, ok := s.pending[id]
	if !ok {
		s.p.complainLocked("response %q to an unknown %s", r.start, id)
		return nil
	}
	transport, sentBy := viaSentBy(via)
	if transport != s.transport || sentBy != s.self().String() {
		s.p.complainLocked("response with Via %q, sent was %q", via, q.request.get("Via"))
	}
	if r.get("CSeq") != q.request.get("CSeq") || r.get("Call-ID") != q.request.get("Call-ID") {
		s.p.complainLocked("response with CSeq %q of call %q, sent was %q of %q",
			r.get("CSeq"), r.get("Call-ID"), q.request.get("CSeq"), q.request.get("Call-ID"))
	}
	if r.status() >= 200 {
		delete(s.pending, id)
	}
	return q.done(r)
}

// handle does what one request of the call manager asks for.
func (s *sipPhone) handle(m *sipMessage) error {
	s.checkRequest(m)
	d := s.dialog
	in := d != nil && d.callID == m.get("Call-ID")
	switch m.method() {
	case "INVITE":
		if !in && d != nil {
			s.send(m.reply(486, "Busy Here", s.random(4)))
			return nil
		}
		if in {
			return s.reinvited(m)
		}
		return s.invited(m)
	case "ACK":
		if in {
			return s.acknowledged(m)
		}
	case "CANCEL":
		s.send(m.reply(200, "OK", ""))
		if in && d.invite != nil && !d.established {
			s.send(d.invite.reply(487, "Request Cancelled", headerParam(d.local, "tag")))
			s.endCall(errors.New("the caller gave up"))
		}
	case "BYE":
		s.send(m.reply(200, "OK", ""))
		if in {
			s.endCall(errors.New("the far end hung up"))
		}
	case "REFER":
		s.send(m.reply(202, "Accepted", s.random(4)))
	case "OPTIONS", "NOTIFY", "INFO":
		s.send(m.reply(200, "OK", s.random(4)))
	default:
		s.send(m.reply(501, "Not Implemented", s.random(4)))
	}
	return nil
}

// checkRequest complains about a request that would not have come to us over
// a real network: it is for another Contact or transport.
func (s *sipPhone) checkRequest(m *sipMessage) {
	user, at, _, params := splitURI(m.uri())
	if user != s.user || at != s.self() || !strings.Contains(params, "transport="+strings.ToLower(s.transport)) {
		s.p.complainLocked("%s, our Contact is %s", m.start, s.contactURI())
	}
	if transport, _ := viaSentBy(m.get("Via")); transport != s.transport {
		s.p.complainLocked("%s with Via %q", m.method(), m.get("Via"))
	}
}

// endCall forgets the call; err says why if it was not by will.
func (s *sipPhone) endCall(err error) {
	s.dialog = nil
	s.p.failLocked(err)
}

// invited rings.
func (s *sipPhone) invited(m *sipMessage) error {
	tag := s.random(8)
	d := &sipDialog{
		callID: m.get("Call-ID"),
		local:  m.get("To") + ";tag=" + tag,
		remote: m.get("From"),
		target: headerURI(m.get("Contact")),
		invite: m, resting: true, tag: "1",
	}
	if len(m.body) > 0 {
		if _, err := s.checkSDP(m.body, ""); err != nil {
			s.p.complainLocked("INVITE: %v", err)
			s.send(m.reply(488, "Not Acceptable Media", tag))
			return nil
		}
	}
	s.dialog = d
	s.p.caller, _, _, _ = splitURI(headerURI(m.get("From")))
	s.p.last = Report{}
	s.p.failure = nil
	s.send(m.reply(100, "Trying", ""))
	r := m.reply(180, "Ringing", tag)
	r.add("Contact", "<"+s.contactURI()+">")
	s.send(r)
	s.p.setLocked(Ringing)
	if s.p.config.AutoAnswer {
		return s.answer()
	}
	return nil
}

// answer sends the 200 for the INVITE that rings.
func (s *sipPhone) answer() error {
	d := s.dialog
	if d == nil || d.invite == nil {
		return errors.New("no call to answer")
	}
	return s.accept(d.invite)
}

// accept answers an INVITE, first or later, with a 200 and our description.
func (s *sipPhone) accept(m *sipMessage) error {
	d := s.dialog
	d.invite = nil
	var body []byte
	var err error
	if len(m.body) == 0 {
		d.delayed = true
		body, err = s.offer()
	} else {
		body, err = s.answerSDP(m.body)
	}
	if err != nil {
		s.p.complainLocked("INVITE: %v", err)
		s.send(m.reply(488, "Not Acceptable Media", headerParam(d.local, "tag")))
		if !d.established {
			s.endCall(err)
		}
		return nil
	}
	r := m.reply(200, "OK", headerParam(d.local, "tag"))
	r.add("Contact", "<"+s.contactURI()+">")
	r.add("Allow", sipAllow)
	r.add("Supported", sipSupported)
	s.send(r.withSDP(body))
	return nil
}

// reinvited is an INVITE within the call.
func (s *sipPhone) reinvited(m *sipMessage) error {
	d := s.dialog
	switch {
	case !d.established:
		return nil // the same again
	case d.own != nil:
		s.send(m.reply(491, "Request Pending", ""))
		return nil
	}
	if c := headerURI(m.get("Contact")); c != "" {
		d.target = c
	}
	return s.accept(m)
}

// acknowledged is the ACK for our 200.
func (s *sipPhone) acknowledged(m *sipMessage) error {
	d := s.dialog
	if d.delayed {
		d.delayed = false
		a, err := s.checkSDP(m.body, d.tag)
		if err == nil {
			err = s.apply(a)
		}
		if err != nil {
			return fmt.Errorf("answer in ACK: %w", err)
		}
	}
	if !d.established {
		d.established = true
		s.p.setLocked(Connected)
	}
	return nil
}

func (s *sipPhone) dial(number string) error {
	d := &sipDialog{
		callID:  fmt.Sprintf("%s-%s-%s@%v", strings.ToLower(s.p.config.MAC), s.random(4), s.random(4), s.p.config.Host.Addr()),
		local:   fmt.Sprintf(`"Lab %s" <sip:%s@%s>;tag=%s`, s.p.config.Line, s.p.config.Line, s.manager, s.random(8)),
		remote:  fmt.Sprintf("<sip:%s@%s>", number, s.manager),
		target:  fmt.Sprintf("sip:%s@%s;user=phone", number, s.manager),
		resting: true, tag: "1",
	}
	s.dialog = d
	body, err := s.offer()
	if err != nil {
		s.dialog = nil
		s.p.setLocked(Idle)
		return err
	}
	s.invite(body, func(r *sipMessage) {
		if err := s.checkAndApply(r.body, d.tag); err != nil {
			s.bye()
			s.endCall(err)
			return
		}
		d.established = true
		s.p.setLocked(Connected)
	}, func(r *sipMessage) {
		s.endCall(fmt.Errorf("refused: %s", r.start))
	})
	return nil
}

// invite sends an INVITE in the dialog. yes is called after the ACK for a 200,
// no after that for anything else.
func (s *sipPhone) invite(body []byte, yes, no func(*sipMessage)) {
	d := s.dialog
	s.cseq++
	m := s.request("INVITE", d.target, d.local, d.remote, d.callID, s.cseq)
	m.add("Contact", "<"+s.contactURI()+">")
	m.add("User-Agent", userAgent)
	m.add("Allow", sipAllow)
	m.add("Supported", sipSupported)
	m.add("Expires", "180")
	m.withSDP(body)
	d.own = m
	s.ask(m, func(r *sipMessage) error {
		if s.dialog != d {
			return nil
		}
		if r.status() < 200 {
			if r.status() > 100 && !d.established {
				s.p.setLocked(Ringback)
			}
			return nil
		}
		d.own = nil
		d.remote = r.get("To")
		if c := headerURI(r.get("Contact")); c != "" && r.status() < 300 {
			d.target = c
		}
		s.acknowledge(m, r)
		if r.status() < 300 {
			yes(r)
		} else {
			no(r)
		}
		return nil
	})
}

// acknowledge sends the ACK: for a 200 a request of its own, else with the
// branch of the INVITE. (RFC 3261, sections 13.2.2.4 and 17.1.1.3.)
func (s *sipPhone) acknowledge(m, r *sipMessage) {
	n, _ := m.cseq()
	d := s.dialog
	if r.status() < 300 {
		s.send(s.request("ACK", d.target, d.local, d.remote, d.callID, n))
		return
	}
	ack := &sipMessage{start: "ACK " + m.uri() + " SIP/2.0"}
	ack.add("Via", m.get("Via"))
	ack.add("From", m.get("From"))
	ack.add("To", r.get("To"))
	ack.add("Call-ID", m.get("Call-ID"))
	ack.add("Max-Forwards", "70")
	ack.add("CSeq", fmt.Sprintf("%d ACK", n))
	s.send(ack)
}

func (s *sipPhone) hold() error {
	return s.reinvite("hold", true, func(r *sipMessage) {
		if _, err := s.checkSDP(r.body, s.dialog.tag); err != nil {
			s.p.complainLocked("answer to hold: %v", err)
		}
		s.p.setLocked(Held)
	})
}

func (s *sipPhone) resume() error {
	return s.reinvite("resume", false, func(r *sipMessage) {
		if err := s.checkAndApply(r.body, s.dialog.tag); err != nil {
			s.bye()
			s.endCall(err)
			return
		}
		s.p.setLocked(Connected)
	})
}

// reinvite offers media anew in the call, on hold or not.
func (s *sipPhone) reinvite(what string, held bool, answered func(r *sipMessage)) error {
	d := s.dialog
	if d == nil || d.own != nil {
		return errors.New("no call, or another INVITE is under way")
	}
	d.held = held
	if held {
		s.rest()
	}
	body, err := s.offer()
	if err != nil {
		return err
	}
	s.invite(body, answered, func(r *sipMessage) {
		s.bye()
		s.endCall(fmt.Errorf("%s refused: %s", what, r.start))
	})
	return nil
}

func (s *sipPhone) hangUp() error {
	d := s.dialog
	switch {
	case d == nil:
		s.p.setLocked(Idle)
	case d.established:
		s.bye()
		s.endCall(nil)
	case d.invite != nil: // it rings here
		s.send(d.invite.reply(486, "Busy Here", headerParam(d.local, "tag")))
		s.endCall(nil)
	case d.own != nil: // the 487 ends the call
		c := &sipMessage{start: "CANCEL " + d.own.uri() + " SIP/2.0"}
		n, _ := d.own.cseq()
		for _, h := range []string{"Via", "From", "To", "Call-ID", "Max-Forwards"} {
			c.add(h, d.own.get(h))
		}
		c.add("CSeq", fmt.Sprintf("%d CANCEL", n))
		s.ask(c, func(*sipMessage) error { return nil })
	}
	return nil
}

func (s *sipPhone) bye() {
	d := s.dialog
	s.cseq++
	m := s.request("BYE", d.target, d.local, d.remote, d.callID, s.cseq)
	r := s.p.reportLocked()
	m.add("RTP-RxStat", fmt.Sprintf("Dur=0,Pkt=%d,Oct=%d,LatePkt=%d,LostPkt=%d,AvgJit=%d",
		r.Received, r.Received*frameLen, r.Late, max(0, r.Lost), r.Jitter.Milliseconds()))
	s.ask(m, func(r *sipMessage) error {
		if r.status() >= 300 {
			s.p.complainLocked("BYE: %s", r.start)
		}
		return nil
	})
}

func (s *sipPhone) unregister() { s.sendRegister(0) }
