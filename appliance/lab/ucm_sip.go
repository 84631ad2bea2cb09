package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// sipSessionID is the session in o= of each description to a phone; only its
// version changes.
const sipSessionID = 2000

// A sipLink is a connection, or for UDP an address, that SIP comes from. All
// requests to the phone go back over it.
type sipLink struct {
	m         *CallManager
	transport string // TCP or UDP
	local     netip.AddrPort
	remote    netip.AddrPort
	out       func([]byte)
	shut      func()
	user      *sipUser
	pending   map[string]func(*sipMessage) // by transaction, of our requests
}

func (l *sipLink) send(m *sipMessage) { l.out(m.bytes()) }
func (l *sipLink) close()             { l.shut() }

// A sipUser is a registered phone.
type sipUser struct {
	link    *sipLink
	reg     Registration
	contact string // URI, where requests go
	leg     *sipLeg
}

// A sipLeg is the dialog with one phone of a call.
type sipLeg struct {
	user        *sipUser
	callID      string
	local       string // our From or To, with tag
	remote      string
	target      string
	cseq        int
	far         *sipLeg
	asked       *sipMessage // INVITE of the phone that waits for our answer
	own         *sipMessage // our INVITE without a final response
	established bool
	version     int // of session descriptions to it
}

// serveSIP reads one TCP connection until it ends.
func (m *CallManager) serveSIP(s *session) {
	l := &sipLink{
		m: m, transport: "TCP", local: s.local(), remote: s.remote(), out: s.send, shut: s.close,
		pending: make(map[string]func(*sipMessage)),
	}
	b := bufio.NewReaderSize(s.conn, sipMaxBody)
	if first, err := b.Peek(1); err == nil && looksSecret(first[0]) {
		m.mu.Lock()
		m.violateLocked("SIP from %v begins with byte 0x%02x", s.remote(), first[0])
		m.mu.Unlock()
		return
	}
	for {
		s.conn.SetReadDeadline(time.Now().Add(3 * m.config.Expires))
		msg, err := readSIP(b)
		if err != nil {
			m.config.Log("ucm: sip %v: %v", s.remote(), err)
			break
		}
		m.mu.Lock()
		l.handle(msg)
		m.mu.Unlock()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l.gone()
}

// serveSIPDatagrams reads SIP over UDP. Our requests are not sent again: the
// lab's wires lose nothing that is not meant to be lost.
func (m *CallManager) serveSIPDatagrams() {
	defer m.wg.Done()
	links := make(map[netip.AddrPort]*sipLink)
	buf := make([]byte, 1<<16)
	for {
		n, from, err := m.sipUDP.ReadFrom(buf)
		if err != nil {
			m.mu.Lock()
			closed := m.closed
			m.mu.Unlock()
			if closed {
				return
			}
			continue
		}
		msg, err := readSIP(bufio.NewReaderSize(bytes.NewReader(buf[:n]), sipMaxHeader))
		if err != nil {
			m.config.Log("ucm: sip %v: %v", from, err)
			continue
		}
		source := addrPort(from)
		m.mu.Lock()
		l := links[source]
		if l == nil {
			l = &sipLink{
				m: m, transport: "UDP",
				local:   netip.AddrPortFrom(m.config.Host.Addr(), m.config.SIPPort),
				remote:  source,
				out:     func(b []byte) { m.sipUDP.WriteTo(b, net.UDPAddrFromAddrPort(source)) },
				shut:    func() {},
				pending: make(map[string]func(*sipMessage)),
			}
			links[source] = l
		}
		l.handle(msg)
		m.mu.Unlock()
	}
}

// gone ends what hangs on the connection.
func (l *sipLink) gone() {
	u := l.user
	if u == nil {
		return
	}
	if u.leg != nil {
		u.leg.end(true)
	}
	if l.m.users[u.reg.Number] == u {
		delete(l.m.users, u.reg.Number)
		delete(l.m.registered, u.reg.Device)
	}
}

func (l *sipLink) handle(m *sipMessage) {
	l.inspect(m)
	if m.isResponse() {
		via := m.get("Via")
		if transport, sentBy := viaSentBy(via); transport != l.transport || sentBy != l.local.String() {
			l.m.violateLocked("SIP from %v: %s: Via %q is not ours", l.remote, m.start, via)
		}
		id := transaction(m)
		if done := l.pending[id]; done != nil {
			if m.status() >= 200 {
				delete(l.pending, id)
			}
			done(m)
		}
		return
	}
	if m.method() == "REGISTER" {
		l.register(m)
		return
	}
	if l.user == nil {
		if m.method() != "ACK" {
			l.send(m.reply(403, "Forbidden", l.m.random(4)))
		}
		return
	}
	leg := l.user.leg
	in := leg != nil && leg.callID == m.get("Call-ID")
	switch m.method() {
	case "INVITE":
		switch {
		case in:
			leg.reinvited(m)
		case leg != nil:
			l.send(m.reply(486, "Busy Here", l.m.random(4)))
		default:
			l.invited(m)
		}
	case "ACK":
	case "CANCEL":
		l.send(m.reply(200, "OK", l.m.random(4)))
		if in && leg.asked != nil && !leg.established {
			l.send(leg.asked.reply(487, "Request Cancelled", headerParam(leg.local, "tag")))
			leg.asked = nil
			leg.end(true)
		}
	case "BYE":
		l.send(m.reply(200, "OK", ""))
		if in {
			leg.end(true)
		}
	case "OPTIONS", "NOTIFY", "INFO", "UPDATE":
		l.send(m.reply(200, "OK", l.m.random(4)))
	case "SUBSCRIBE", "REFER":
		l.send(m.reply(202, "Accepted", l.m.random(4)))
	default:
		l.send(m.reply(501, "Not Implemented", l.m.random(4)))
	}
}

// inspect notes what a phone on a plain connection cannot have sent.
func (l *sipLink) inspect(m *sipMessage) {
	complain := func(what, v string) {
		l.m.violateLocked("SIP from %v: %s: %s %q", l.remote, m.start, what, v)
	}
	if !m.isResponse() {
		transport, sentBy := viaSentBy(m.get("Via"))
		if transport != l.transport || sentBy != l.remote.String() {
			complain("Via", m.get("Via"))
		}
	}
	for _, f := range m.header {
		low := strings.ToLower(f.value)
		if strings.Contains(low, "transport=tls") || strings.Contains(low, "sips:") {
			complain(f.name, f.value)
		}
	}
	if low := strings.ToLower(m.start); strings.Contains(low, "transport=tls") || strings.Contains(low, "sips:") {
		complain("start line", m.start)
	}
	if c := headerURI(m.get("Contact")); c != "" {
		if _, at, host, _ := splitURI(c); at != l.remote {
			complain("Contact host", host)
		}
	}
	if len(m.body) > 0 && strings.HasPrefix(m.get("Content-Type"), sdpType) {
		d, err := parseSDP(m.body)
		switch {
		case err != nil:
			complain("session description", err.Error())
			return
		case d.proto != "RTP/AVP":
			complain("profile", d.proto)
		case len(d.crypto) > 0:
			complain("a=crypto with tag", d.crypto[0].tag)
		}
		l.m.checkMediaLocked(l.remote.String(), d.addr.Addr())
	}
}

// register answers REGISTER. (reference/sip-cisco-phones.md, section 1.)
func (l *sipLink) register(m *sipMessage) {
	contact := m.get("Contact")
	device := strings.Trim(headerParam(contact, "+u.sip!devicename.ccm.cisco.com"), `"`)
	refuse := func(status int, why string) { l.send(m.reply(status, why, l.m.random(4))) }
	if strings.Contains(contact, "cisco-keep-alive") { // of a standby
		l.send(m.reply(200, "OK", l.m.random(4)))
		return
	}
	line := l.m.line(device, SIP)
	if line == nil {
		refuse(404, "Not Found")
		return
	}
	if number, _, _, _ := splitURI(headerURI(m.get("To"))); number != line.Number {
		refuse(403, "Forbidden")
		return
	}
	_, station, _, _ := splitURI(headerURI(contact))
	if station != l.remote && l.m.config.RefuseUnreachable { // inspect has noted it
		refuse(400, "Bad Request - 'Malformed/Missing Contact'")
		return
	}
	var expires int
	if _, err := fmt.Sscan(m.get("Expires"), &expires); err != nil || expires < 0 {
		refuse(400, "Bad Request")
		return
	}
	r := m.reply(200, "OK", l.m.random(4))
	for i, f := range r.header { // all our Vias are topmost: phones send one
		if f.name == "Via" {
			r.header[i].value += fmt.Sprintf(";received=%v", l.remote.Addr())
			break
		}
	}
	old := l.m.users[line.Number]
	if expires == 0 {
		l.send(r)
		if old != nil && old.link == l {
			l.gone()
			l.user = nil
		}
		return
	}
	if old == nil || old.link != l {
		if old != nil {
			old.link.gone()
			old.link.close()
		}
		l.user = &sipUser{link: l, contact: headerURI(contact)}
		l.m.users[line.Number] = l.user
		contact += ";x-cisco-newreg"
	} else {
		l.user.reg.Renewed++
	}
	u := l.user
	u.reg = Registration{
		Device: line.Device, Number: line.Number, Protocol: SIP, Source: l.remote, Local: l.local,
		Station: station, Contact: m.get("Contact"), Load: m.get("User-Agent"),
		At: l.m.config.Now(), Renewed: u.reg.Renewed,
	}
	reg := u.reg
	l.m.registered[line.Device] = &reg
	r.add("Contact", contact)
	r.add("Expires", fmt.Sprint(int(l.m.config.Expires/time.Second)))
	l.send(r)
	l.m.config.Log("ucm: %s registered by SIP from %v", line.Device, l.remote)
}

// self is our Contact toward the phone.
func (l *sipLink) self() string {
	return fmt.Sprintf("<sip:%v;transport=%s>", l.local, strings.ToLower(l.transport))
}

// ask sends a request of ours.
func (l *sipLink) ask(m *sipMessage, done func(*sipMessage)) {
	l.pending[transaction(m)] = done
	l.send(m)
}

func (l *sipLeg) request(method string) *sipMessage {
	link := l.user.link
	if method != "ACK" {
		l.cseq++
	}
	m := &sipMessage{start: method + " " + l.target + " SIP/2.0"}
	m.add("Via", fmt.Sprintf("SIP/2.0/%s %v;branch=%s%s", link.transport, link.local, magicCookie, link.m.random(6)))
	m.add("From", l.local)
	m.add("To", l.remote)
	m.add("Call-ID", l.callID)
	m.add("Max-Forwards", "70")
	m.add("CSeq", fmt.Sprintf("%d %s", l.cseq, method))
	return m
}

// describe makes the description that this phone gets of the far one, whose
// own is b. Like a UCM we write our own, with c= at session level.
// (reference/sip-cisco-phones.md, section 4.)
func (l *sipLeg) describe(b []byte) []byte {
	d, err := parseSDP(b)
	if err != nil {
		return nil
	}
	l.version++
	ucm := l.user.link.m.config.Host.Addr()
	return fmt.Appendf(nil, "v=0\r\no=CiscoSystemsCCM-SIP %d %d IN IP4 %v\r\ns=SIP Call\r\nc=IN IP4 %v\r\n"+
		"b=TIAS:64000\r\nb=AS:64\r\nt=0 0\r\nm=audio %d RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"+
		"a=ptime:20\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=%s\r\n",
		sipSessionID, l.version, ucm, d.addr.Addr(), d.addr.Port(), d.dir)
}

// invited makes a new call for a phone.
func (l *sipLink) invited(m *sipMessage) {
	tag := l.m.random(8)
	l.send(m.reply(100, "Trying", ""))
	refuse := func(status int, reason string) { l.send(m.reply(status, reason, tag)) }
	number, _, _, _ := splitURI(m.uri())
	to := l.m.users[number]
	switch {
	case len(m.body) == 0:
		refuse(488, "Not Acceptable Media")
		return
	case to == nil:
		refuse(404, "Not Found")
		return
	case to == l.user || to.leg != nil:
		refuse(486, "Busy Here")
		return
	}
	a := &sipLeg{
		user: l.user, callID: m.get("Call-ID"),
		local: m.get("To") + ";tag=" + tag, remote: m.get("From"),
		target: headerURI(m.get("Contact")), asked: m,
	}
	host := l.m.config.Host.Addr()
	from := l.user.reg.Number
	b := &sipLeg{
		user:   to,
		callID: fmt.Sprintf("%s-%s@%v", l.m.random(8), l.m.random(2), host),
		local:  fmt.Sprintf(`"Lab %s" <sip:%s@%v>;tag=%s`, from, from, host, l.m.random(8)),
		remote: fmt.Sprintf("<sip:%s@%v>", number, host),
		target: to.contact,
	}
	a.far, b.far = b, a
	l.user.leg, to.leg = a, b
	b.invite(m.body)
}

// invite sends an INVITE with the far phone's description, or without one
// where UCM delays the offer. The response goes to the far phone's INVITE.
func (l *sipLeg) invite(sdp []byte) {
	link := l.user.link
	d, _ := parseSDP(sdp)
	delayed := link.m.config.DelayedOffer && d != nil && d.dir == "sendrecv" && !d.addr.Addr().IsUnspecified()
	m := l.request("INVITE")
	m.add("Contact", link.self())
	m.add("User-Agent", "Cisco-CUCM8.6")
	m.add("Supported", "timer,resource-priority,replaces,X-cisco-srtp-fallback,Geolocation")
	m.add("Allow", "INVITE, OPTIONS, INFO, BYE, CANCEL, ACK, PRACK, UPDATE, REFER, SUBSCRIBE, NOTIFY")
	m.add("Remote-Party-ID", headerOnly(l.local)+";party=calling;screen=yes;privacy=off")
	m.add("Call-Info", "<urn:x-cisco-remotecc:callinfo>;x-cisco-loopback=false;security=NotAuthenticated")
	if !delayed {
		m.withSDP(l.describe(sdp))
	}
	l.own = m
	link.ask(m, func(r *sipMessage) { l.answered(m, r, delayed, sdp) })
}

// headerOnly is a From or To without its parameters.
func headerOnly(v string) string {
	if i := strings.IndexByte(v, '>'); i >= 0 {
		return v[:i+1]
	}
	return v
}

// answered handles a response of the phone to our INVITE.
func (l *sipLeg) answered(m, r *sipMessage, delayed bool, farSDP []byte) {
	link := l.user.link
	far := l.far
	if r.status() < 200 {
		if r.status() > 100 && far != nil && far.asked != nil && !far.established {
			up := far.asked.reply(180, "Ringing", headerParam(far.local, "tag"))
			up.add("Contact", far.user.link.self())
			far.user.link.send(up)
		}
		return
	}
	l.own = nil
	l.remote = r.get("To")
	if r.status() >= 300 {
		ack := &sipMessage{start: "ACK " + m.uri() + " SIP/2.0"}
		for _, h := range []string{"Via", "From", "Call-ID", "Max-Forwards"} {
			ack.add(h, m.get(h))
		}
		ack.add("To", r.get("To"))
		n, _ := m.cseq()
		ack.add("CSeq", fmt.Sprintf("%d ACK", n))
		link.send(ack)
		if far != nil && far.asked != nil {
			_, reason, _ := strings.Cut(strings.TrimPrefix(r.start, "SIP/2.0 "), " ")
			far.user.link.send(far.asked.reply(r.status(), reason, headerParam(far.local, "tag")))
			far.asked = nil
		}
		if !l.established {
			l.drop()
		}
		return
	}
	if c := headerURI(r.get("Contact")); c != "" {
		l.target = c
	}
	ack := l.request("ACK")
	if delayed {
		ack.withSDP(l.describe(farSDP))
	}
	link.send(ack)
	if far == nil { // given up in the meantime
		l.established = true
		l.end(false)
		return
	}
	if !l.established {
		link.m.calls++
	}
	l.established, far.established = true, true
	if far.asked == nil {
		return
	}
	up := far.asked.reply(200, "OK", headerParam(far.local, "tag"))
	up.add("Contact", far.user.link.self())
	up.add("Call-Info", "<urn:x-cisco-remotecc:callinfo>;security=NotAuthenticated")
	far.asked = nil
	far.user.link.send(up.withSDP(far.describe(r.body)))
}

// reinvited passes hold and resume on to the far phone.
func (l *sipLeg) reinvited(m *sipMessage) {
	link := l.user.link
	far := l.far
	switch {
	case far == nil || !l.established || l.asked != nil || l.own != nil || far.own != nil || far.asked != nil:
		link.send(m.reply(491, "Request Pending", ""))
		return
	case len(m.body) == 0:
		link.send(m.reply(488, "Not Acceptable Media", ""))
		return
	}
	link.send(m.reply(100, "Trying", ""))
	l.asked = m
	if c := headerURI(m.get("Contact")); c != "" {
		l.target = c
	}
	far.invite(m.body)
}

// end ends the call: this phone knows already if known is set.
func (l *sipLeg) end(known bool) {
	far := l.far
	l.far = nil
	if far != nil {
		far.far = nil
		far.tell()
	}
	if !known {
		l.tell()
		return
	}
	l.detach()
}

// drop ends a call that this phone has refused; the caller has been told.
func (l *sipLeg) drop() {
	if l.far != nil {
		l.far.far = nil
		l.far.detach()
	}
	l.far = nil
	l.detach()
}

func (l *sipLeg) detach() {
	if l.user.leg == l {
		l.user.leg = nil
	}
}

// tell ends the phone's side of the call by what its state asks for.
func (l *sipLeg) tell() {
	link := l.user.link
	l.detach()
	switch {
	case l.established:
		link.ask(l.request("BYE"), func(*sipMessage) {})
	case l.asked != nil:
		link.send(l.asked.reply(480, "Temporarily Not Available", headerParam(l.local, "tag")))
		l.asked = nil
	case l.own != nil:
		c := &sipMessage{start: "CANCEL " + l.own.uri() + " SIP/2.0"}
		for _, h := range []string{"Via", "From", "To", "Call-ID", "Max-Forwards"} {
			c.add(h, l.own.get(h))
		}
		n, _ := l.own.cseq()
		c.add("CSeq", fmt.Sprintf("%d CANCEL", n))
		link.ask(c, func(*sipMessage) {})
	}
}
