package pcaps

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const sipPort = 5060 // (RFC 3261, section 19.1.2)

// A sipText is a message as a host reads it.
type sipText struct {
	start  string // its first line
	method string // of the request, also in an answer to it
	status int    // 0: a request
	header []byte
	body   []byte
}

// readSIP reads what a host must know of a message. ok is false for what is
// none.
func readSIP(b []byte) (m *sipText, ok bool) {
	header, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	start, _, _ := strings.Cut(string(header), "\r\n")
	words := strings.Fields(start)
	if len(words) < 3 {
		return nil, false
	}
	m = &sipText{start: start, method: words[0], header: header, body: body}
	if words[0] == "SIP/2.0" {
		m.status, _ = strconv.Atoi(words[1])
		_, m.method, _ = strings.Cut(m.field("CSeq"), " ")
	} else if words[len(words)-1] != "SIP/2.0" {
		return nil, false
	}
	return m, true
}

func (m *sipText) field(name string) string { return fieldOf(m.header, name) }

// all returns every value of a header field.
func (m *sipText) all(name string) []string {
	var v []string
	for _, line := range strings.Split(string(m.header), "\r\n") {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(n, name) {
			v = append(v, strings.TrimSpace(value))
		}
	}
	return v
}

// A dialog is what a host knows of one Call-ID.
type dialog struct {
	id            string
	local, remote string // the values of From and To as this end writes them
	target        string // the URI that requests are for
	to            netip.AddrPort
	conn          *conn
	cseq          int
	asked         map[string]asked    // the last request of each method
	got           map[string]*sipText // that came
	from          netip.AddrPort      // where the last request came from
	status        int                 // of the last answer to INVITE
	statusTo      string              // its To
	rseq          string              // its RSeq (RFC 3262)
	media, rtcp   netip.AddrPort      // where the other end receives
	own, ownRTCP  netip.AddrPort      // where this one does
	version       int                 // of its session description
}

// asked is a request as its ACK or CANCEL must repeat it.
type asked struct {
	uri, branch string
	cseq        int
	to          netip.AddrPort
}

// A sipWish is what a line says of a message.
type sipWish struct {
	method string // of the request; of an answer that it answers, "" for the last that came
	status int
	reason string
	sdp    *sdpWish
	body   string
	with   []string // fields that replace those of their name
	add    []string // fields besides
	less   []string // fields that are left out
	tag    string   // of this end, if it has several
}

// An sdpWish is a session description.
type sdpWish struct {
	at    netip.AddrPort
	conn  netip.Addr // in c=, if it is another
	rtcp  netip.AddrPort
	lines []string // at the end
}

func (d *sdpWish) text(name string, version int) string {
	c := d.conn
	if !c.IsValid() {
		c = d.at.Addr()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=%s 1 %d IN IP4 %v\r\ns=-\r\nc=IN IP4 %v\r\nt=0 0\r\n", name, version, d.at.Addr(), c)
	fmt.Fprintf(&b, "m=audio %d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n", d.at.Port())
	if d.rtcp.IsValid() {
		fmt.Fprintf(&b, "a=rtcp:%d IN IP4 %v\r\n", d.rtcp.Port(), d.rtcp.Addr())
	}
	for _, l := range d.lines {
		b.WriteString(l + "\r\n")
	}
	return b.String()
}

// where returns what a= and c= and m=audio of a description say.
func where(body []byte) (media, rtcp netip.AddrPort) {
	var addr netip.Addr
	var port, control uint64
	for _, line := range strings.Split(string(body), "\r\n") {
		if a, ok := strings.CutPrefix(line, "c=IN IP4 "); ok {
			addr, _ = netip.ParseAddr(a)
		}
		if m, ok := strings.CutPrefix(line, "m=audio "); ok && port == 0 {
			p, _, _ := strings.Cut(m, " ")
			port, _ = strconv.ParseUint(p, 10, 16)
		}
		if a, ok := strings.CutPrefix(line, "a=rtcp:"); ok {
			p, _, _ := strings.Cut(a, " ")
			control, _ = strconv.ParseUint(p, 10, 16)
		}
	}
	if port == 0 || !addr.IsValid() {
		return netip.AddrPort{}, netip.AddrPort{}
	}
	if control == 0 {
		control = port + 1
	}
	return netip.AddrPortFrom(addr, uint16(port)), netip.AddrPortFrom(addr, uint16(control))
}

// place reads where a URI or name-addr leads.
func place(uri string) (netip.AddrPort, bool) {
	if _, in, ok := strings.Cut(uri, "<"); ok {
		uri, _, _ = strings.Cut(in, ">")
	}
	uri = strings.TrimPrefix(uri, "sip:")
	uri, _, _ = strings.Cut(uri, ";")
	if _, hostport, ok := strings.Cut(uri, "@"); ok {
		uri = hostport
	}
	if a, err := netip.ParseAddrPort(uri); err == nil {
		return a, true
	}
	a, err := netip.ParseAddr(uri)
	return netip.AddrPortFrom(a, sipPort), err == nil
}

// inBrackets returns the URI of a name-addr.
func inBrackets(v string) string {
	if _, in, ok := strings.Cut(v, "<"); ok {
		v, _, _ = strings.Cut(in, ">")
	}
	return v
}

// tagOf returns the tag of From or To.
func tagOf(v string) string {
	_, tag, _ := strings.Cut(v, ";tag=")
	return tag
}

// dialog returns that of a Call-ID, new if need be.
func (h *host) dialog(id string) *dialog {
	d := h.dialogs[id]
	if d == nil {
		d = &dialog{id: id, asked: make(map[string]asked), got: make(map[string]*sipText)}
		if h.dialogs == nil {
			h.dialogs = make(map[string]*dialog)
		}
		h.dialogs[id] = d
	}
	return d
}

// hearSIP keeps what later messages need of m.
func (h *host) hearSIP(m *sipText, from netip.AddrPort, x *conn) {
	d := h.dialog(m.field("Call-ID"))
	d.conn = x
	if c := m.field("Contact"); c != "" && c != "*" && m.status < 300 {
		if to, ok := place(c); ok {
			d.target, d.to = inBrackets(c), to
		}
	}
	if media, rtcp := where(m.body); media.IsValid() {
		d.media, d.rtcp = media, rtcp
	}
	switch {
	case m.status == 0:
		d.got[m.method], d.from = m, from
		d.got[""] = m
		d.remote = m.field("From")
		if d.local == "" {
			d.local = m.field("To")
		}
	case m.method == "INVITE":
		d.status, d.statusTo, d.rseq = m.status, m.field("To"), m.field("RSeq")
		if m.status > 100 && m.status < 300 {
			d.remote = m.field("To")
		}
	}
}

// expand puts what h knows in place of {CALL.target}, {CALL.id}, {CALL.local}
// and {CALL.remote}, the last two being tags.
func (h *host) expand(s string) string {
	for {
		before, rest, ok := strings.Cut(s, "{")
		name, after, ok2 := strings.Cut(rest, "}")
		call, what, ok3 := strings.Cut(name, ".")
		if !ok || !ok2 || !ok3 {
			return s
		}
		d := h.dialog(call)
		s = before + map[string]string{
			"target": d.target, "id": d.id, "local": tagOf(d.local), "remote": tagOf(d.remote),
		}[what] + after
	}
}

// say makes the message of a wish, and says where it goes. to is the user and
// address of who gets a request outside a dialog.
func (h *host) say(w *sipWish, call, to string) (text []byte, dst netip.AddrPort, err error) {
	d := h.dialog(call)
	if w.sdp != nil {
		d.version++
		d.own, d.ownRTCP = w.sdp.at, w.sdp.rtcp
		if !d.ownRTCP.IsValid() {
			d.ownRTCP = netip.AddrPortFrom(d.own.Addr(), d.own.Port()+1)
		}
	}
	var lines []string
	if w.status != 0 {
		lines, dst, err = h.answer(w, d)
	} else {
		lines, dst, err = h.ask(w, d, h.expand(to))
	}
	if err != nil {
		return nil, dst, err
	}
	body, typ := w.body, ""
	if w.sdp != nil {
		body, typ = w.sdp.text(h.name, d.version), "application/sdp"
	}
	if typ != "" {
		lines = append(lines, "Content-Type: "+typ)
	}
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	for _, f := range w.with {
		f = h.expand(f)
		name, _, _ := strings.Cut(f, ":")
		i := slices.IndexFunc(lines, func(l string) bool { return hasName(l, name) })
		if i < 0 {
			lines = slices.Insert(lines, len(lines)-1, f)
		} else {
			lines[i] = f
		}
	}
	for _, f := range w.add {
		lines = slices.Insert(lines, len(lines)-1, h.expand(f))
	}
	for _, name := range w.less {
		lines = slices.DeleteFunc(lines, func(l string) bool { return hasName(l, name) })
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body), dst, nil
}

func hasName(line, name string) bool {
	n, _, ok := strings.Cut(line, ":")
	return ok && strings.EqualFold(n, name)
}

// ask makes the header of a request. (RFC 3261, sections 8.1.1 and 12.2.1.1;
// 9.1 for CANCEL, 17.1.1.3 for the ACK of a refusal.)
func (h *host) ask(w *sipWish, d *dialog, to string) ([]string, netip.AddrPort, error) {
	a := asked{uri: d.target, to: d.to}
	if to != "" {
		addr, ok := place(to)
		if !ok {
			return nil, addr, fmt.Errorf("%q is no user and address", to)
		}
		a.to = addr
		user, _, ok := strings.Cut(strings.TrimPrefix(to, "sip:"), "@")
		if !ok {
			user = ""
		} else {
			user += "@"
		}
		a.uri = "sip:" + user + uriHost(addr)
		d.target, d.to = a.uri, addr
		if w.method == "REGISTER" {
			a.uri = "sip:" + uriHost(addr)
		}
		if d.local == "" {
			d.local = fmt.Sprintf("<sip:%s@%v>;tag=%s", h.name, h.addr.Addr(), h.name)
			d.remote = fmt.Sprintf("<sip:%s%v>", user, addr.Addr())
			if w.method == "REGISTER" {
				d.remote = fmt.Sprintf("<sip:%s@%v>", h.name, addr.Addr())
				d.local = d.remote + ";tag=" + h.name
			}
		}
	}
	if !a.to.IsValid() {
		return nil, a.to, fmt.Errorf("%s of call %s: nobody to send it to", w.method, d.id)
	}
	other := d.remote
	invite := d.asked["INVITE"]
	switch {
	case w.method == "CANCEL" || w.method == "ACK" && d.status >= 300:
		a = invite
		if w.method == "ACK" {
			other = d.statusTo
		}
	case w.method == "ACK":
		a.cseq = invite.cseq
	default:
		d.cseq++
		a.cseq = d.cseq
	}
	if a.branch == "" {
		a.branch = fmt.Sprintf("z9hG4bK-%s-%s-%d", h.name, d.id, a.cseq)
		if w.method == "ACK" {
			a.branch += "-ack"
		}
	}
	if w.method != "ACK" && w.method != "CANCEL" {
		d.asked[w.method] = a
	}
	lines := []string{
		w.method + " " + a.uri + " SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/%s %v;branch=%s", h.transport(), h.addr, a.branch),
		"Max-Forwards: 70",
		"From: " + d.local,
		"To: " + other,
		"Call-ID: " + d.id,
		fmt.Sprintf("CSeq: %d %s", a.cseq, w.method),
	}
	switch w.method {
	case "ACK", "BYE", "CANCEL", "MESSAGE", "PRACK":
	default:
		lines = append(lines, "Contact: "+h.contact())
	}
	if w.method == "PRACK" {
		lines = append(lines, fmt.Sprintf("RAck: %s %d INVITE", d.rseq, invite.cseq)) // RFC 3262, section 7.2
	}
	return lines, a.to, nil
}

// answer makes the header of an answer. (RFC 3261, sections 8.2.6 and 18.2.2.)
func (h *host) answer(w *sipWish, d *dialog) ([]string, netip.AddrPort, error) {
	m := d.got[w.method]
	if m == nil {
		return nil, netip.AddrPort{}, fmt.Errorf("answer %d of call %s: %s got no %s", w.status, d.id, h.name, w.method)
	}
	lines := []string{fmt.Sprintf("SIP/2.0 %d %s", w.status, w.reason)}
	dst := d.from
	for i, v := range m.all("Via") {
		sent, _, _ := strings.Cut(v, ";")
		at, ok := place(sent[strings.LastIndex(sent, " ")+1:])
		if i == 0 && ok {
			dst = at
			if at.Addr() != d.from.Addr() {
				v += ";received=" + d.from.Addr().String()
				dst = netip.AddrPortFrom(d.from.Addr(), at.Port())
			}
		}
		lines = append(lines, "Via: "+v)
	}
	to := m.field("To")
	if tagOf(to) == "" && w.status > 100 {
		tag := w.tag
		if tag == "" {
			tag = h.name
		}
		to += ";tag=" + tag
		d.local = to
	}
	for _, v := range m.all("Record-Route") {
		lines = append(lines, "Record-Route: "+v)
	}
	lines = append(lines, "From: "+m.field("From"), "To: "+to, "Call-ID: "+d.id, "CSeq: "+m.field("CSeq"))
	switch {
	case m.method == "REGISTER":
		if c := m.field("Contact"); c != "" && w.status < 300 {
			lines = append(lines, "Contact: "+c)
		}
	case w.status > 100 && w.status < 300 && slices.Contains([]string{"INVITE", "SUBSCRIBE", "UPDATE", "REFER"}, m.method):
		lines = append(lines, "Contact: "+h.contact())
	}
	return lines, dst, nil
}

func (h *host) transport() string {
	if h.kind == overTCP {
		return "TCP"
	}
	return "UDP"
}

func (h *host) contact() string {
	if h.kind == overTCP {
		return fmt.Sprintf("<sip:%s@%v;transport=tcp>", h.name, h.addr)
	}
	return fmt.Sprintf("<sip:%s@%v>", h.name, h.addr)
}

// uriHost writes an address as a URI does: 5060 goes without saying.
func uriHost(a netip.AddrPort) string {
	if a.Port() == sipPort {
		return a.Addr().String()
	}
	return a.String()
}

// reasons are the phrases of RFC 3261, section 21.
var reasons = map[int]string{
	100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 302: "Moved Temporarily",
	403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 480: "Temporarily Unavailable",
	481: "Call/Transaction Does Not Exist", 486: "Busy Here", 487: "Request Terminated",
	488: "Not Acceptable Here", 491: "Request Pending", 500: "Server Internal Error", 603: "Decline",
}
