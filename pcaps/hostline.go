package pcaps

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"
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
