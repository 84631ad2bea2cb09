package pcaps

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/stack"
)

// A hostLine is what a line says that a host does.
type hostLine struct {
	host    *host // a new one; only with "host"
	name    string
	verb    string // "connect", "close", "reset", "send", "sccp", "again", "rtp", "rtcp", "sip"
	call    string
	to      string // user and address
	sip     sipWish
	message []byte // of "send" and "sccp"
	how     delivery
}

// A delivery is how a message leaves its host.
type delivery struct {
	packet recipe // of a datagram

	places         []int // where segments end
	size           int   // of each segment; 0: as they come
	order          []int
	overlap, first int
	cuts, join     bool
	on             int
	repeat         int
	every          time.Duration
	quiet          bool
}

// declare reads "NAME IF KIND ADDR:PORT".
func (l *lineParser) declare() *hostLine {
	h := &host{name: l.next(), nameif: l.next(), kind: kind(l.next()), addr: l.end(true)}
	switch h.kind {
	case overUDP, overTCP:
	case overSCCP:
		v := l.next()
		n, err := strconv.Atoi(strings.TrimPrefix(v, "v"))
		if err != nil || n < 0 || n > 255 {
			l.fail("%q is no version of SCCP", v)
		}
		h.version = n
	default:
		l.fail("%q: want udp, tcp or sccp", h.kind)
	}
	if l.hosts[h.name] != "" {
		l.fail("there is a host %s already", h.name)
	}
	if l.err == nil {
		l.hosts[h.name] = h.kind
	}
	return &hostLine{host: h}
}

// hostLine reads what a host does.
func (l *lineParser) hostLine() *hostLine {
	x := &hostLine{name: l.next(), call: "1", how: delivery{repeat: 1}}
	k := l.hosts[x.name]
	x.how.packet = recipe{kind: "udp", ttl: -1, id: -1, length: -1, repeat: 1}
	x.verb = l.next()
	switch {
	case x.verb == "connect" && k != overUDP:
		x.to = l.end(true).String()
	case (x.verb == "close" || x.verb == "reset") && k != overUDP, x.verb == "again":
	case (x.verb == "rtp" || x.verb == "rtcp") && k != overSCCP:
	case x.verb == "send":
		x.message = l.payload()
	case x.verb == "sccp" && k == overSCCP:
		x.to = l.next() // the message's name, until its version is known
		var fields []string
		for strings.Contains(l.peek(), "=") && l.peek()[0] != '"' {
			fields = append(fields, l.next())
		}
		x.sip.with = fields
	case k == overSCCP:
		l.fail("%q: want connect, sccp, send, again, close or reset", x.verb)
	case isMethod(x.verb):
		x.sip.method, x.verb = x.verb, "sip"
	default:
		n, err := strconv.Atoi(x.verb)
		if err != nil || n < 100 || n > 699 {
			l.fail("%q: want a SIP method or status, or connect, send, again, rtp, rtcp, close or reset", x.verb)
		}
		x.sip.status, x.sip.reason, x.verb = n, reasons[n], "sip"
		if isMethod(l.peek()) {
			x.sip.method = l.next()
		}
	}
	for l.err == nil && len(l.words) > 0 {
		l.hostOption(x, k)
	}
	return x
}

func isMethod(w string) bool {
	return w != "" && strings.Trim(w, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// payload reads the bytes of "send".
func (l *lineParser) payload() []byte {
	w := l.next()
	switch {
	case strings.HasPrefix(w, `"`):
		return []byte(w[1:])
	case strings.HasPrefix(w, "@"):
		return l.file(w[1:])
	case strings.HasPrefix(w, "hex:"):
		b, err := hex.DecodeString(w[4:])
		if err != nil {
			l.fail("%s: %v", w, err)
		}
		return b
	}
	l.fail("%q is no payload", w)
	return nil
}

// file reads a message of the case's folder.
func (l *lineParser) file(name string) []byte {
	if l.files == nil {
		l.fail("@%s: the list has no folder", name)
		return nil
	}
	b, err := fs.ReadFile(l.files, name)
	if err != nil {
		l.fail("%v", err)
		return nil
	}
	b = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	if _, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); ok {
		b = bytes.Replace(b, []byte("Content-Length: auto"), fmt.Appendf(nil, "Content-Length: %d", len(body)), 1)
	}
	return b
}

// text reads a quoted word.
func (l *lineParser) text() string {
	w := l.next()
	if !strings.HasPrefix(w, `"`) {
		l.fail("%q where quotes belong", w)
		return ""
	}
	return w[1:]
}

// at reads a port, or an address and port.
func (l *lineParser) at() netip.AddrPort {
	if strings.Contains(l.peek(), ":") {
		return l.end(true)
	}
	return netip.AddrPortFrom(netip.Addr{}, uint16(l.number(65535)))
}

func (l *lineParser) numbers() []int {
	var all []int
	for _, s := range strings.Split(l.next(), ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			l.fail("%q is no number from 1 on", s)
		}
		all = append(all, n)
	}
	return all
}

// hostOption reads one word of those behind a message.
func (l *lineParser) hostOption(x *hostLine, k kind) {
	w := l.peek()
	sdp, how := x.sip.sdp, &x.how
	if sdp == nil && (w == "c" || w == "rtcp" || w == "line") {
		l.fail("%q without sdp", w)
		return
	}
	switch w {
	case "call", ">", "sdp", "c", "rtcp", "line", "with", "add", "less", "body", "tag":
		l.next()
	}
	switch w {
	case "call":
		x.call = l.next()
	case ">":
		x.to = l.next()
	case "sdp":
		x.sip.sdp = &sdpWish{at: l.at()}
	case "c":
		sdp.conn = l.end(false).Addr()
	case "rtcp":
		sdp.rtcp = l.at()
	case "line":
		sdp.lines = append(sdp.lines, l.text())
	case "with":
		x.sip.with = append(x.sip.with, l.text())
	case "add":
		x.sip.add = append(x.sip.add, l.text())
	case "less":
		x.sip.less = append(x.sip.less, l.next())
	case "body":
		x.sip.body = l.text()
	case "tag":
		x.sip.tag = l.next()
	default:
		if k == overUDP || x.verb == "rtp" || x.verb == "rtcp" {
			l.option(&how.packet)
			return
		}
		l.next()
		l.segmentOption(how, w)
	}
}

// segmentOption reads how a message is cut into segments.
func (l *lineParser) segmentOption(how *delivery, w string) {
	switch w {
	case "cut":
		how.size = int(l.number(65535))
	case "at":
		how.places = l.numbers()
	case "order":
		how.order = l.numbers()
	case "overlap":
		how.overlap = int(l.number(65535))
	case "first":
		how.first = int(l.number(65535))
	case "cuts":
		how.cuts = true
	case "join":
		how.join = true
	case "on":
		how.on = int(l.number(1000))
	case "quiet":
		how.quiet = true
	case "repeat":
		how.repeat = int(l.number(maxRepeat))
		l.want("every")
		how.every = l.seconds()
	default:
		l.fail("%q is nothing a message can have", w)
	}
}

// play has a host do what a line says.
func (c *cast) play(s Step, at time.Time) error {
	c.now = at
	x := s.host
	if h := x.host; h != nil {
		if c.box.Interface(h.nameif) == nil {
			return fmt.Errorf("no interface %q", h.nameif)
		}
		twin := *h // a list may be played twice
		c.hosts[h.name] = &twin
		c.order = append(c.order, &twin)
		return nil
	}
	c.flush()
	h := c.hosts[x.name]
	switch x.verb {
	case "connect":
		_, err := c.connect(h, netip.MustParseAddrPort(x.to), x.how.quiet)
		return err
	case "close", "reset":
		return c.end(h, x)
	case "again":
		return c.deliverText(h, x, h.last.text, h.last.to, h.last.conn)
	case "send":
		to, _ := place(h.expand(x.to))
		return c.deliverText(h, x, x.message, to, nil)
	case "sccp":
		msg, err := makeSCCP(x.to, h.version, x.sip.with)
		if err != nil {
			return err
		}
		return c.deliverText(h, x, msg, netip.AddrPort{}, nil)
	case "rtp", "rtcp":
		return c.media(h, x)
	}
	wish := x.sip
	if wish.sdp != nil {
		sdp := *wish.sdp // the list stays as it is
		for _, a := range []*netip.AddrPort{&sdp.at, &sdp.rtcp} {
			if !a.Addr().IsValid() && a.Port() != 0 {
				*a = netip.AddrPortFrom(h.addr.Addr(), a.Port())
			}
		}
		wish.sdp = &sdp
	}
	text, to, err := h.say(&wish, x.call, x.to)
	if err != nil {
		return err
	}
	return c.deliverText(h, x, text, to, h.dialog(x.call).conn)
}

// end closes or resets a connection.
func (c *cast) end(h *host, x *hostLine) error {
	conn, err := h.connection(x.how.on)
	if err != nil {
		return err
	}
	if x.verb == "reset" {
		conn.open = false
		c.tell(conn, stack.FlagRST|stack.FlagACK, conn.seq, nil, x.how.quiet)
	} else {
		conn.closing = true
		c.tell(conn, stack.FlagFIN|stack.FlagACK, conn.seq, nil, x.how.quiet)
		conn.seq++
	}
	return c.settle()
}

// connection returns the Nth, or with 0 the last.
func (h *host) connection(n int) (*conn, error) {
	if n == 0 {
		n = len(h.conns)
	}
	if n < 1 || n > len(h.conns) {
		return nil, fmt.Errorf("%s has no connection %d", h.name, n)
	}
	return h.conns[n-1], nil
}

// media sends one packet from where the host receives to where the other end
// does. (RFC 3550, sections 5.1 and 6.4.2.)
func (c *cast) media(h *host, x *hostLine) error {
	d := h.dialog(x.call)
	f := stack.Flow{Proto: stack.UDP, Src: d.own, Dst: d.media}
	h.rtpSeq++
	payload := append([]byte{0x80, 0, byte(h.rtpSeq >> 8), byte(h.rtpSeq), 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 20)...)
	if x.verb == "rtcp" {
		f.Src, f.Dst = d.ownRTCP, d.rtcp
		payload = []byte{0x80, 201, 0, 1, 0, 0, 0, 1}
	}
	if !f.Src.IsValid() || !f.Dst.IsValid() {
		return fmt.Errorf("%s of call %s: %s does not know the other end's address", x.verb, x.call, h.name)
	}
	if x.how.packet.payload == nil {
		x.how.packet.payload = payload
	}
	return c.datagram(h, x.how.packet, f)
}

// datagram sends the packets of one datagram.
func (c *cast) datagram(h *host, r recipe, f stack.Flow) error {
	r.flow = f
	steps, err := r.steps(Step{In: h.nameif})
	if err != nil {
		return err
	}
	begin := c.now
	for _, s := range steps {
		c.now = begin.Add(s.At)
		for _, data := range s.Packets {
			if err := c.send(h, data, s.Quiet); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliverText sends a message.
func (c *cast) deliverText(h *host, x *hostLine, text []byte, to netip.AddrPort, conn *conn) error {
	if h.kind == overUDP {
		if !to.IsValid() {
			return fmt.Errorf("%s: no address to send to", h.name)
		}
		h.last = spoken{text: text, to: to}
		r := x.how.packet
		r.payload = text
		return c.datagram(h, r, stack.Flow{Proto: stack.UDP, Src: h.addr, Dst: to})
	}
	if conn == nil || x.how.on != 0 {
		var err error
		conn, err = h.connection(x.how.on)
		if err != nil && to.IsValid() && x.how.on == 0 {
			conn, err = c.connect(h, to, x.how.quiet)
		}
		if err != nil {
			return err
		}
	}
	h.last = spoken{text, to, conn}
	h.sent = append(h.sent, text)
	if n := x.how.first; n > 0 {
		text = text[:min(n, len(text))]
	}
	text = append(slices.Clone(conn.wait), text...)
	conn.wait = nil
	if x.how.join {
		conn.wait = text
		return nil
	}
	begin := c.now
	for i := range x.how.repeat {
		c.now = begin.Add(time.Duration(i) * x.how.every)
		places := x.how.places
		for n := 1; x.how.cuts && n < len(text)-1; n++ {
			if err := c.stream(conn, &x.how, text, []int{n}); err != nil {
				return err
			}
			places = []int{n + 1}
		}
		if err := c.stream(conn, &x.how, text, places); err != nil {
			return err
		}
	}
	return nil
}

// stream sends text in segments.
func (c *cast) stream(x *conn, how *delivery, text []byte, places []int) error {
	if !x.open {
		return fmt.Errorf("%s: the connection is not open", x.host.name)
	}
	size := segment
	if how.size > 0 {
		size = how.size
	}
	var ends []int
	for off := 0; off < len(text); off = ends[len(ends)-1] {
		end := min(off+size, len(text))
		for _, p := range places {
			if p > off && p < end {
				end = p
			}
		}
		ends = append(ends, end)
	}
	order := how.order
	if order == nil {
		for i := range ends {
			order = append(order, i+1)
		}
	}
	base := x.seq
	x.seq += uint32(len(text))
	for _, n := range order {
		if n > len(ends) {
			return fmt.Errorf("order: segment %d of %d", n, len(ends))
		}
		from := 0
		if n > 1 {
			from = max(ends[n-2]-how.overlap, 0)
		}
		c.tell(x, stack.FlagACK|stack.FlagPSH, base+uint32(from), text[from:ends[n-1]], how.quiet)
		if err := c.settle(); err != nil {
			return err
		}
	}
	return nil
}
