package sip

import (
	"bytes"
	"fmt"
	"strconv"

	"patchbay/inspect"
)

// A kind is what a header field is to us.
type kind uint8

const (
	fieldOther    kind = iota
	fieldVia           // sent-by
	fieldContact       // URIs that the sender answers at
	fieldTarget        // URIs that messages are sent to
	fieldIdentity      // URIs that name somebody
	fieldTo            // fieldIdentity, with the tag that says in-dialog
	fieldCallInfo      // fieldTarget, with a URI inside a parameter
	fieldCallID
	fieldCSeq
	fieldLength
	fieldType
	fieldEncoding
	fieldAuthorization
)

// fieldKind knows the names of RFC 3261, section 7.3.3, and the others of
// reference/sip-cisco-phones.md, section 3, with their compact forms.
func fieldKind(name []byte) kind {
	var low [24]byte
	if len(name) > len(low) {
		return fieldOther
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		low[i] = c
	}
	switch string(low[:len(name)]) {
	case "via", "v":
		return fieldVia
	case "contact", "m":
		return fieldContact
	case "route", "record-route", "path", "service-route", "refer-to", "r", "referred-by", "b",
		"reply-to", "alert-info", "error-info":
		return fieldTarget
	case "from", "f", "remote-party-id", "p-asserted-identity", "p-preferred-identity", "diversion",
		"history-info", "p-associated-uri", "p-called-party-id":
		return fieldIdentity
	case "to", "t":
		return fieldTo
	case "call-info":
		return fieldCallInfo
	case "call-id", "i":
		return fieldCallID
	case "cseq":
		return fieldCSeq
	case "content-length", "l":
		return fieldLength
	case "content-type", "c":
		return fieldType
	case "content-encoding", "e":
		return fieldEncoding
	case "authorization", "proxy-authorization":
		return fieldAuthorization
	}
	return fieldOther
}

// A field is one header field that we read.
type field struct {
	kind  kind
	value inspect.Span // without the space around it; may hold folds
}

// A message is one message that Split found, taken apart. Spans are in raw.
type message struct {
	raw    []byte
	uri    inspect.Span // of a request
	status int          // of a response; 0 for a request
	body   int          // offset
	fields []field      // in order, without fieldOther

	method  []byte // of a request, or of the request that is answered
	cseq    uint32
	callID  []byte
	inside  bool // To has a tag: in a dialog
	toTag   []byte
	auth    bool // Authorization or Proxy-Authorization
	encoded bool // the body is compressed
	ctype   inspect.Span
}

// isMethod reports whether the message is a name request or an answer to one.
func (m *message) isMethod(name string) bool { return string(m.method) == name }

// fromTag returns the tag of From, nil if it has none.
func (m *message) fromTag() []byte {
	for i := range m.fields {
		if f := &m.fields[i]; f.kind == fieldIdentity && isFrom(m.raw, f.value.Off) {
			tag, _ := tagOf(m.raw, f.value)
			return tag
		}
	}
	return nil
}

// isRequest reports whether the message is a request.
func (m *message) isRequest() bool { return m.status == 0 }

// parse takes raw apart. It fails on what no proxy could pass on: a message
// without Via, Call-ID or CSeq. (RFC 3261, section 8.1.1.)
func (m *message) parse(raw []byte) error {
	*m = message{raw: raw, fields: m.fields[:0]}
	first := bytes.IndexByte(raw, '\n') + 1
	if err := m.parseStart(raw[:first]); err != nil {
		return err
	}
	vias := 0
	line := lines{b: raw, at: first}
	for line.next() {
		k := fieldKind(line.name.Of(raw))
		if k == fieldOther {
			continue
		}
		if len(m.fields) == MaxFields {
			return fmt.Errorf("sip: more than %d fields: %w", MaxFields, ErrLimit)
		}
		m.fields = append(m.fields, field{k, line.value})
		value := line.value.Of(raw)
		switch k {
		case fieldVia:
			vias++
		case fieldCallID:
			if m.callID != nil {
				return fmt.Errorf("sip: second Call-ID: %w", ErrMalformed)
			}
			m.callID = value
		case fieldCSeq:
			if err := m.parseCSeq(value); err != nil {
				return err
			}
		case fieldTo:
			if tag, ok := tagOf(raw, line.value); ok {
				m.inside, m.toTag = true, tag
			}
		case fieldType:
			m.ctype = line.value
		case fieldEncoding:
			m.encoded = m.encoded || len(value) > 0 && !bytes.EqualFold(value, []byte("identity"))
		case fieldAuthorization:
			m.auth = true
		}
	}
	if line.err != nil {
		return line.err
	}
	m.body = line.at
	switch {
	case vias == 0:
		return fmt.Errorf("sip: no Via: %w", ErrMalformed)
	case len(m.callID) == 0:
		return fmt.Errorf("sip: no Call-ID: %w", ErrMalformed)
	case len(m.callID) > MaxCallID:
		return fmt.Errorf("sip: Call-ID of %d bytes: %w", len(m.callID), ErrLimit)
	case !m.has(fieldCSeq):
		return fmt.Errorf("sip: no CSeq: %w", ErrMalformed)
	}
	return nil
}

// has reports whether a field of kind k was read.
func (m *message) has(k kind) bool {
	for i := range m.fields {
		if m.fields[i].kind == k {
			return true
		}
	}
	return false
}

// parseStart reads the first line. (RFC 3261, sections 7.1 and 7.2.)
func (m *message) parseStart(line []byte) error {
	if err := checkStart(line); err != nil {
		return err
	}
	line = bytes.TrimRight(line, "\r\n")
	if isVersion(line, 0) {
		m.status = int(line[8]-'0')*100 + int(line[9]-'0')*10 + int(line[10]-'0')
		return nil
	}
	a, b := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	m.method = line[:a]
	m.uri = inspect.Span{Off: a + 1, Len: b - a - 1}
	return nil
}

// parseCSeq reads "314159 INVITE", with any white space between the two, also
// a folded line. (RFC 3261, sections 20.16 and 25.1.)
func (m *message) parseCSeq(value []byte) error {
	end := max(bytes.IndexAny(value, " \t\r\n"), 0)
	method := bytes.TrimSpace(value[end:])
	n, err := strconv.ParseUint(string(value[:end]), 10, 32)
	if err != nil || len(method) == 0 || m.isRequest() && !bytes.Equal(method, m.method) {
		return fmt.Errorf("sip: CSeq %.40q: %w", value, ErrMalformed)
	}
	m.cseq, m.method = uint32(n), method
	return nil
}

// checkStart fails on a line that no message begins with.
//
//	INVITE sip:1001@10.20.0.11 SIP/2.0
//	SIP/2.0 200 OK
func checkStart(line []byte) error {
	line = bytes.TrimRight(line, "\r\n")
	ok := false
	if isVersion(line, 0) {
		ok = len(line) >= 11 && line[7] == ' ' && (len(line) == 11 || line[11] == ' ') &&
			'1' <= line[8] && line[8] <= '6' && isDigit(line[9]) && isDigit(line[10])
	} else if a := bytes.IndexByte(line, ' '); a > 0 {
		b := bytes.LastIndexByte(line, ' ')
		ok = b > a+1 && len(line) == b+8 && isVersion(line, b+1) && !bytes.ContainsAny(line[a+1:b], " \t\r")
		for _, c := range line[:a] {
			ok = ok && isToken(c)
		}
	}
	if !ok {
		return fmt.Errorf("sip: start line %.40q: %w", line, ErrMalformed)
	}
	return nil
}

// isVersion reports whether "SIP/2.0" stands at off.
func isVersion(b []byte, off int) bool {
	const version = "SIP/2.0"
	return len(b) >= off+len(version) && bytes.EqualFold(b[off:off+len(version)], []byte(version))
}

// headerEnd returns the offset of the body, behind the first empty line, or -1
// when it is not in data.
func headerEnd(data []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(data[at:], '\n')
		if n < 0 {
			return -1
		}
		if n == 0 || n == 1 && data[at] == '\r' {
			return at + n + 1
		}
		at += n + 1
	}
}

// lines reads header fields, each with its folds (RFC 3261, section 7.3.1), up
// to the empty line, and leaves at behind that.
type lines struct {
	b           []byte
	at          int
	name, value inspect.Span
	err         error
}

// next reads one field. A line without a colon is a field without a name.
func (l *lines) next() bool {
	if l.at >= len(l.b) {
		return false
	}
	start, end := l.at, 0
	if l.b[start] == ' ' || l.b[start] == '\t' {
		l.err = fmt.Errorf("sip: folded start line: %w", ErrMalformed)
		return false
	}
	for {
		n := bytes.IndexByte(l.b[l.at:], '\n')
		if n < 0 {
			n = len(l.b) - l.at - 1
		}
		end = l.at + n + 1
		text := l.b[l.at:end]
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
		if bytes.IndexByte(text, '\r') >= 0 {
			// To some it ends a line and to others not: no two readers
			// would see the same message.
			l.err = fmt.Errorf("sip: bare CR in a header: %w", ErrMalformed)
			return false
		}
		if l.at == start && len(text) == 0 {
			l.at = end
			return false
		}
		l.at = end
		if end >= len(l.b) || l.b[end] != ' ' && l.b[end] != '\t' {
			break
		}
	}
	line := inspect.Span{Off: start, Len: end - start}
	colon := bytes.IndexByte(line.Of(l.b), ':')
	if colon < 0 {
		l.name, l.value = inspect.Span{Off: start}, inspect.Span{Off: start}
		return true
	}
	l.name = trim(l.b, inspect.Span{Off: start, Len: colon})
	l.value = trim(l.b, inspect.Span{Off: start + colon + 1, Len: line.Len - colon - 1})
	return true
}

// trim takes the space off both ends of s, line ends of folds too.
func trim(b []byte, s inspect.Span) inspect.Span {
	for s.Len > 0 && isSpace(b[s.Off]) {
		s.Off++
		s.Len--
	}
	for s.Len > 0 && isSpace(b[s.End()-1]) {
		s.Len--
	}
	return s
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isToken reports whether c may stand in a token. (RFC 3261, section 25.1.)
func isToken(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c) ||
		bytes.IndexByte([]byte("-.!%*_+`'~"), c) >= 0
}
