package sip

import (
	"bytes"
	"net/netip"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
)

// A hostport is where a URI or a Via points. (RFC 3261, section 25.1.)
type hostport struct {
	text    inspect.Span // "[2001:db8::7]:5061", "ucm.example.com"
	host    inspect.Span // the same without the port; brackets stay
	addr    netip.Addr   // zero for a name
	port    uint16       // 0 when none is written
	hasPort bool
}

// parseHostport reads the host and port at s.Off; what stops it is left over.
// Space around the colon, which a Via may have, is taken too.
func parseHostport(b []byte, s inspect.Span) (hostport, bool) {
	at, end := s.Off, s.End()
	h := hostport{}
	if at < end && b[at] == '[' {
		n := bytes.IndexByte(b[at:end], ']')
		if n < 0 {
			return h, false
		}
		addr, ok := sdp.ParseAddr(b[at+1 : at+n])
		if !ok || !addr.Is6() {
			return h, false
		}
		h.addr = addr
		at += n + 1
	} else {
		for at < end && (isDigit(b[at]) || 'a' <= b[at] && b[at] <= 'z' || 'A' <= b[at] && b[at] <= 'Z' || b[at] == '-' || b[at] == '.' || b[at] == '_') {
			at++
		}
		h.addr, _ = sdp.ParseAddr(b[s.Off:at])
	}
	h.host = inspect.Span{Off: s.Off, Len: at - s.Off}
	h.text = h.host
	if h.host.Len == 0 {
		return h, false
	}
	colon := at
	for colon < end && isSpace(b[colon]) {
		colon++
	}
	if colon == end || b[colon] != ':' {
		return h, true
	}
	digits := colon + 1
	for digits < end && isSpace(b[digits]) {
		digits++
	}
	at = digits
	for at < end && isDigit(b[at]) {
		at++
	}
	n, ok := parseLength(b[digits:at])
	if !ok || n > 0xffff {
		return h, false
	}
	h.port, h.hasPort = uint16(n), true
	h.text.Len = at - s.Off
	return h, true
}

// A uri is a SIP or SIPS URI, taken apart. (RFC 3261, section 19.1.)
type uri struct {
	scheme    inspect.Span // "sip" or "sips"
	user      inspect.Span // with the password; Len is 0 for none
	host      hostport
	transport inspect.Span // value of ;transport=; Len is 0 for none
}

// parseURI reads a URI that fills s. It is false for other schemes.
func parseURI(b []byte, s inspect.Span) (uri, bool) {
	colon := bytes.IndexByte(s.Of(b), ':')
	if colon != len("sip") && colon != len("sips") {
		return uri{}, false
	}
	u := uri{scheme: inspect.Span{Off: s.Off, Len: colon}}
	if w := u.scheme.Of(b); !bytes.EqualFold(w, []byte("sip")) && !bytes.EqualFold(w, []byte("sips")) {
		return uri{}, false
	}
	rest := inspect.Span{Off: s.Off + colon + 1, Len: s.Len - colon - 1}
	// A user may hold ";" and "?", but "@" is escaped everywhere behind it.
	if at := bytes.IndexByte(rest.Of(b), '@'); at >= 0 {
		u.user = inspect.Span{Off: rest.Off, Len: at}
		rest.Off += at + 1
		rest.Len -= at + 1
	}
	var ok bool
	if u.host, ok = parseHostport(b, rest); !ok {
		return uri{}, false
	}
	rest.Len = rest.End() - u.host.text.End()
	rest.Off = u.host.text.End()
	if rest.Len > 0 && b[rest.Off] != ';' && b[rest.Off] != '?' {
		return uri{}, false
	}
	if q := bytes.IndexByte(rest.Of(b), '?'); q >= 0 {
		rest.Len = q // escaped headers: Replaces keeps its Call-ID and tags
	}
	p := params{b: b, rest: rest}
	for p.next() {
		if bytes.EqualFold(p.name.Of(b), []byte("transport")) {
			u.transport = p.value
			break
		}
	}
	return u, true
}

// A list reads the values of a field that commas part, outside quotes and
// angle brackets.
type list struct {
	b     []byte
	rest  inspect.Span
	value inspect.Span
}

func (l *list) next() bool {
	for l.rest.Len > 0 {
		n := scan(l.b, l.rest, ',')
		l.value = trim(l.b, inspect.Span{Off: l.rest.Off, Len: n})
		n = min(n+1, l.rest.Len)
		l.rest.Off += n
		l.rest.Len -= n
		if l.value.Len > 0 {
			return true
		}
	}
	return false
}

// scan returns how far in s the first stop is that stands outside quotes and
// angle brackets, or s.Len.
func scan(b []byte, s inspect.Span, stop byte) int {
	quoted, angled := false, false
	for i, c := range s.Of(b) {
		switch {
		case quoted:
			if c == '"' && !escaped(s.Of(b), i) {
				quoted = false
			}
		case c == '"' && !angled:
			quoted = true
		case c == stop && !angled:
			return i
		case c == '<':
			angled = true
		case c == '>':
			angled = false
		}
	}
	return s.Len
}

// escaped reports whether an odd number of backslashes stands before b[i].
func escaped(b []byte, i int) bool {
	odd := false
	for i--; i >= 0 && b[i] == '\\'; i-- {
		odd = !odd
	}
	return odd
}

// nameAddr finds the URI in one value of a list, and the parameters behind it:
// `"Ann" <sip:ann@example.com>;tag=1` or `sip:ann@example.com;tag=1`. Without
// brackets the parameters are the field's, not the URI's. (RFC 3261, section 20.)
func nameAddr(b []byte, v inspect.Span) (u, rest inspect.Span, ok bool) {
	if open := scan(b, v, '<'); open < v.Len {
		u = inspect.Span{Off: v.Off + open + 1}
		n := bytes.IndexByte(b[u.Off:v.End()], '>')
		if n < 0 {
			return u, rest, false
		}
		u.Len = n
		rest = inspect.Span{Off: u.End() + 1}
		rest.Len = v.End() - rest.Off
		return trim(b, u), rest, true
	}
	u = inspect.Span{Off: v.Off, Len: scan(b, v, ';')}
	rest = inspect.Span{Off: u.End()}
	rest.Len = v.End() - rest.Off
	return trim(b, u), rest, u.Len > 0
}

// params reads ";name=value" pairs.
type params struct {
	b           []byte
	rest        inspect.Span
	name, value inspect.Span // value.Len is 0 when there is none; quotes stay
}

func (p *params) next() bool {
	for p.rest.Len > 0 {
		n := scan(p.b, p.rest, ';')
		one := inspect.Span{Off: p.rest.Off, Len: n}
		n = min(n+1, p.rest.Len)
		p.rest.Off += n
		p.rest.Len -= n
		p.name = trim(p.b, one)
		p.value = inspect.Span{Off: one.End()}
		if eq := bytes.IndexByte(one.Of(p.b), '='); eq >= 0 {
			p.name = trim(p.b, inspect.Span{Off: one.Off, Len: eq})
			p.value = trim(p.b, inspect.Span{Off: one.Off + eq + 1, Len: one.Len - eq - 1})
		}
		if p.name.Len > 0 {
			return true
		}
	}
	return false
}

// hasTag reports whether a From or To value has a tag.
func hasTag(b []byte, v inspect.Span) bool {
	_, ok := tagOf(b, v)
	return ok
}

// tagOf returns the tag of a From or To value.
func tagOf(b []byte, v inspect.Span) ([]byte, bool) {
	_, rest, ok := nameAddr(b, v)
	if !ok {
		return nil, false
	}
	p := params{b: b, rest: rest}
	for p.next() {
		if bytes.EqualFold(p.name.Of(b), []byte("tag")) {
			return p.value.Of(b), true
		}
	}
	return nil, false
}

// unquote takes the quotes off s, if it has both.
func unquote(b []byte, s inspect.Span) inspect.Span {
	if s.Len >= 2 && b[s.Off] == '"' && b[s.End()-1] == '"' {
		return inspect.Span{Off: s.Off + 1, Len: s.Len - 2}
	}
	return s
}

// equalFold reports whether b is s but for the case of ASCII letters.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if x, y := b[i], s[i]; x != y && (x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z') {
			return false
		}
	}
	return true
}
