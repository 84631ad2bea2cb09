// Package sdp finds what a proxy must change in a session description (RFC
// 8866): the addresses of o= and c=, the port and profile of m=, a=rtcp and
// a=crypto. It answers with spans, and the rest of the body is nobody's
// business.
//
// What a reader may get wrong: spans are offsets in the body that was parsed,
// slices point into it, and both are worth nothing once it changes.
package sdp

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"patchbay/inspect"
)

// What Parse accepts at most.
const (
	MaxBody   = 64 * 1024 // bytes of a body
	MaxMedia  = 32        // m= lines of a body
	MaxCrypto = 16        // a=crypto lines of an m= line
)

// Why Parse fails, wrapped with the line.
var (
	ErrLimit     = errors.New("over the limit")
	ErrMalformed = errors.New("malformed line")
)

// A Direction is who sends, as a= says it. (RFC 8866, section 6.7.)
type Direction uint8

const (
	Unstated Direction = iota // as a=sendrecv
	SendRecv
	SendOnly
	RecvOnly
	Inactive
)

// String returns the attribute, "" for Unstated.
func (d Direction) String() string {
	switch d {
	case SendRecv:
		return "sendrecv"
	case SendOnly:
		return "sendonly"
	case RecvOnly:
		return "recvonly"
	case Inactive:
		return "inactive"
	}
	return ""
}

// An Address is "IP4 198.51.100.7" in a line. It is absent when Text.Len is 0.
type Address struct {
	Line   inspect.Span // the whole line, its end included
	Family inspect.Span // IP4 or IP6
	Text   inspect.Span // address or host name, with the /ttl of a multicast group
	Addr   netip.Addr   // zero when Text is a host name or the family is unknown
}

// Present reports whether the line was there.
func (a *Address) Present() bool { return a.Text.Len > 0 }

// A Port is a=rtcp. It is absent when Line.Len is 0. (RFC 3605, section 2.1.)
type Port struct {
	Line    inspect.Span // the whole line, its end included
	Port    uint16
	Text    inspect.Span // the digits of Port
	Address Address      // of RTCP, absent when it is that of c=
}

// Present reports whether the line was there.
func (p *Port) Present() bool { return p.Line.Len > 0 }

// A Media is one m= line and what belongs to it.
type Media struct {
	Line    inspect.Span // the m= line, its end included
	Section inspect.Span // from the m= line to the next one or the end of the body
	Title   int          // offset behind m= and i=, where c= belongs
	Attr    int          // offset of the first a= line, or the end of Section

	Kind  []byte       // "audio"; borrowed from the body
	Port  uint16       // 0 when the stream is refused
	Ports inspect.Span // the port with its count: "49170/2"
	Proto inspect.Span // "RTP/AVP"

	// Types are the formats that are payload types of RTP, and those that
	// a=rtcp-mux stands for.
	Types inspect.PayloadTypes

	Conn      Address // of the m= line; absent when the session's holds
	RTCP      Port
	Crypto    []Crypto
	Direction Direction // Unstated when the session's holds
}

// A Description is one parsed body. Parse may fill it again and again; it
// keeps its memory.
type Description struct {
	Origin    Address // o=
	Conn      Address // c= of the session
	Direction Direction
	Media     []Media
	EOL       string // "\r\n" or "\n", as the body's first line ends
}

// Address returns the address at which m receives: of its own c= line, or of
// the session's. It is zero for a host name.
func (d *Description) Address(m *Media) netip.Addr {
	if m.Conn.Present() {
		return m.Conn.Addr
	}
	return d.Conn.Addr
}

// reset empties d and keeps the memory.
func (d *Description) reset() {
	for i := range d.Media {
		clear(d.Media[i].Crypto) // keys
	}
	*d = Description{Media: d.Media[:0], EOL: "\r\n"}
}

// addMedia appends an empty Media that has the Crypto room of an earlier body.
func (d *Description) addMedia() *Media {
	if n := len(d.Media); n < cap(d.Media) {
		d.Media = d.Media[:n+1]
		m := &d.Media[n]
		*m = Media{Crypto: m.Crypto[:0]}
		return m
	}
	d.Media = append(d.Media, Media{})
	return &d.Media[len(d.Media)-1]
}

// Parse fills d with what body says. Lines end with LF or CRLF, the last may
// end with the body. Lines of other types are skipped. It fails on a line that
// it needs and cannot read, on a second c= of one section, and on a limit; d is
// then undefined.
func Parse(body []byte, d *Description) error {
	d.reset()
	if len(body) > MaxBody {
		return fmt.Errorf("sdp: body of %d bytes: %w", len(body), ErrLimit)
	}
	var m *Media // of the line at hand; nil in the session's part
	for n, at := 1, 0; at < len(body); n++ {
		line, end := inspect.Span{Off: at, Len: len(body) - at}, len(body)
		if i := bytes.IndexByte(body[at:], '\n'); i >= 0 {
			line.Len = i + 1
			end = at + i
			if i > 0 && body[end-1] == '\r' {
				end--
			} else if n == 1 {
				d.EOL = "\n"
			}
		} else if body[end-1] == '\r' {
			end--
		}
		at = line.End()
		f := fields{body: body[:end], at: line.Off}
		err := error(nil)
		switch {
		case end-line.Off < 2 || body[line.Off+1] != '=':
			// Not a line of SDP. Unknown, so it stays.
		case body[line.Off] == 'm':
			if len(d.Media) == MaxMedia {
				return fmt.Errorf("sdp: line %d: more than %d m= lines: %w", n, MaxMedia, ErrLimit)
			}
			d.endSection(line.Off)
			m = d.addMedia()
			err = m.parse(f, line)
		case body[line.Off] == 'i':
			if m != nil && m.Title == line.Off {
				m.Title = line.End()
			}
		case body[line.Off] == 'c':
			c := &d.Conn
			if m != nil {
				c = &m.Conn
			}
			if c.Present() {
				return fmt.Errorf("sdp: line %d: second c= of its section: %w", n, ErrMalformed)
			}
			f.at += len("c=")
			err = c.parse(f, line)
		case body[line.Off] == 'o':
			if m == nil && !d.Origin.Present() {
				f.at += len("o=")
				f.skip(3) // user name, session, version
				err = d.Origin.parse(f, line)
			}
		case body[line.Off] == 'a':
			if m != nil && m.Attr < 0 {
				m.Attr = line.Off
			}
			f.at += len("a=")
			err = d.attribute(m, f, line)
		}
		if err != nil {
			return fmt.Errorf("sdp: line %d: %c=: %w", n, body[line.Off], err)
		}
	}
	d.endSection(len(body))
	return nil
}

// endSection closes the last m= section at off.
func (d *Description) endSection(off int) {
	if len(d.Media) == 0 {
		return
	}
	m := &d.Media[len(d.Media)-1]
	m.Section.Len = off - m.Section.Off
	if m.Attr < 0 {
		m.Attr = off
	}
}

// parse reads "m=audio 49170/2 RTP/AVP 0 8". (RFC 8866, section 5.14.)
func (m *Media) parse(f fields, line inspect.Span) error {
	m.Line, m.Section, m.Title, m.Attr = line, line, line.End(), -1
	f.at += len("m=")
	kind := f.next()
	m.Ports = f.next()
	m.Proto = f.next()
	if kind.Len == 0 || m.Proto.Len == 0 {
		return ErrMalformed
	}
	m.Kind = kind.Of(f.body)
	port, count, counted := bytes.Cut(m.Ports.Of(f.body), []byte("/"))
	n, ok := parsePort(port)
	if _, counts := parsePort(count); !ok || counted && !counts {
		return ErrMalformed
	}
	m.Port = n
	for {
		format := f.next()
		if format.Len == 0 {
			return nil
		}
		if t, ok := parsePort(format.Of(f.body)); ok && t < 128 {
			m.Types.Add(uint8(t))
		}
	}
}

// parse reads "IN IP4 198.51.100.7". (RFC 8866, sections 5.2 and 5.7.)
func (a *Address) parse(f fields, line inspect.Span) error {
	network, family, text := f.next(), f.next(), f.next()
	if text.Len == 0 {
		return ErrMalformed
	}
	*a = Address{Line: line, Family: family, Text: text}
	if string(network.Of(f.body)) != "IN" {
		return nil // another network's address is not ours to read
	}
	host, _, _ := bytes.Cut(text.Of(f.body), []byte("/"))
	addr, ok := ParseAddr(host)
	switch string(family.Of(f.body)) {
	case "IP4":
		ok = ok && addr.Is4()
	case "IP6":
		ok = ok && addr.Is6()
	default:
		ok = false
	}
	if ok {
		a.Addr = addr
	}
	return nil
}

// attribute reads an a= line; f is behind "a=".
func (d *Description) attribute(m *Media, f fields, line inspect.Span) error {
	name, value, _ := bytes.Cut(f.body[f.at:], []byte(":"))
	dir := &d.Direction
	if m != nil {
		dir = &m.Direction
	}
	switch string(name) {
	case "sendrecv":
		*dir = SendRecv
	case "sendonly":
		*dir = SendOnly
	case "recvonly":
		*dir = RecvOnly
	case "inactive":
		*dir = Inactive
	case "rtcp-mux":
		if m != nil {
			m.Types.AddMux()
		}
	case "rtcp":
		if m == nil || m.RTCP.Present() {
			return nil
		}
		f.at = len(f.body) - len(value)
		return m.RTCP.parse(f, line)
	case "crypto":
		if m == nil { // RFC 4568, section 5.1: of a medium only
			return nil
		}
		if len(m.Crypto) == MaxCrypto {
			return fmt.Errorf("more than %d a=crypto of an m= line: %w", MaxCrypto, ErrLimit)
		}
		f.at = len(f.body) - len(value)
		m.Crypto = append(m.Crypto, parseCrypto(f, line))
	}
	return nil
}

// parse reads "53020 IN IP6 2001:db8::7" behind "a=rtcp:". (RFC 3605, section 2.1.)
func (p *Port) parse(f fields, line inspect.Span) error {
	text := f.next()
	n, ok := parsePort(text.Of(f.body))
	if !ok {
		return ErrMalformed
	}
	*p = Port{Line: line, Port: n, Text: text}
	rest := f
	if rest.next().Len > 0 {
		return p.Address.parse(f, line)
	}
	return nil
}

// fields cuts a line at its spaces.
type fields struct {
	body []byte // ends where the line's text does
	at   int    // offset of what is not read yet
}

// next returns the next word; Len is 0 at the end of the line.
func (f *fields) next() inspect.Span {
	for f.at < len(f.body) && (f.body[f.at] == ' ' || f.body[f.at] == '\t') {
		f.at++
	}
	s := inspect.Span{Off: f.at}
	for f.at < len(f.body) && f.body[f.at] != ' ' && f.body[f.at] != '\t' {
		f.at++
	}
	s.Len = f.at - s.Off
	return s
}

func (f *fields) skip(n int) {
	for range n {
		f.next()
	}
}

// parsePort reads 1 to 5 decimal digits up to 65535.
func parsePort(b []byte) (uint16, bool) {
	if len(b) == 0 || len(b) > 5 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n <= 0xffff
}

// ParseAddr reads an IPv4 or IPv6 address, without brackets or zone. It is
// netip.ParseAddr for bytes, and does not allocate for IPv4.
func ParseAddr(b []byte) (netip.Addr, bool) {
	if bytes.IndexByte(b, ':') >= 0 {
		if len(b) > len("0000:0000:0000:0000:0000:0000:255.255.255.255") {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(string(b))
		return a, err == nil && a.Zone() == ""
	}
	var ip [4]byte
	part, digits, n := 0, 0, 0
	for _, c := range b {
		switch {
		case c == '.':
			if digits == 0 || part == 3 {
				return netip.Addr{}, false
			}
			ip[part] = byte(n)
			part, digits, n = part+1, 0, 0
		case c >= '0' && c <= '9':
			if digits > 0 && n == 0 { // no leading zeros: they may be octal
				return netip.Addr{}, false
			}
			if n = n*10 + int(c-'0'); n > 255 {
				return netip.Addr{}, false
			}
			digits++
		default:
			return netip.Addr{}, false
		}
	}
	if part != 3 || digits == 0 {
		return netip.Addr{}, false
	}
	ip[3] = byte(n)
	return netip.AddrFrom4(ip), true
}
