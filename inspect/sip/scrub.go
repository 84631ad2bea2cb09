package sip

import (
	"bytes"
	"net/netip"
	"strconv"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
)

// scrub translates the IPv4 addresses that no field's own rules have: in
// Warning, maddr, the parameters and escaped headers of URIs, http: URIs,
// a=candidate, bodies that programs read, and what nobody has thought of. Whatever
// the box would translate in a packet it translates here, so that no address
// leaves that must not.
//
// Some stay, for the ends compare them to the byte: Call-ID and what quotes
// one, tags, branches, and what a digest covers. (RFC 3261, sections 8.1.1.4,
// 19.3 and 22.4.)
func (s *session) scrub() {
	b, end := s.msg.raw, s.msg.body
	if s.readsBody() {
		end = len(b)
	}
	for at := 0; at < end; at++ {
		dot := bytes.IndexByte(b[at:end], '.')
		if dot < 0 {
			return
		}
		dot += at
		start := dot
		for start > at && isDigit(b[start-1]) {
			start--
		}
		at = dot
		if start == dot || dot-start > 3 || start > 0 && isWord(b[start-1]) {
			continue
		}
		stop := dot
		for stop < end && (isDigit(b[stop]) || b[stop] == '.') {
			stop++
		}
		if b[stop-1] == '.' { // of a sentence
			stop--
		}
		at = stop - 1
		if after := b[stop:end]; len(after) > 0 && isWord(after[0]) && (after[0] != '.' || len(after) > 1 && isWord(after[1])) {
			continue
		}
		if addr, ok := sdp.ParseAddr(b[start:stop]); ok && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() {
			s.scrubAddr(inspect.Span{Off: start, Len: stop - start}, addr, end)
		}
	}
}

// readsBody reports whether the body is one that a program reads, an
// application/ type or a message/sipfrag; what people write to each other is not
// the box's to change. Nobody can read it if it is compressed or binary.
func (s *session) readsBody() bool {
	m := &s.msg
	kind, _ := mediaType(m.raw, m.ctype)
	n := bytes.IndexByte(kind, '/')
	return n >= 0 && (equalFold(kind[:n], "application") || equalFold(kind, "message/sipfrag")) &&
		!m.encoded && bytes.IndexByte(m.raw[m.body:], 0) < 0
}

// isWord reports whether c beside an address makes it part of a longer word: a
// version, a name, a tag.
func isWord(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_' || c == '.' || c == '~'
}

// scrubAddr translates the address at span, and the port behind it if there is
// one, unless it has been or must stay.
func (s *session) scrubAddr(span inspect.Span, addr netip.Addr, end int) {
	b := s.msg.raw
	port, whole := uint16(0), span
	if span.End() < end && b[span.End()] == ':' {
		n := span.End() + 1
		for n < end && isDigit(b[n]) {
			n++
		}
		if p, ok := parseLength(b[span.End()+1 : n]); ok && p <= 0xffff {
			port = uint16(p)
			whole.Len = n - span.Off
		}
	}
	after := s.scrubbed(netip.AddrPortFrom(addr, port))
	if after.Addr() == addr && after.Port() == port || s.edits.Touches(whole) || s.mustStay(span) {
		return
	}
	s.replaceString(span, after.Addr().String())
	if after.Port() != port {
		digits := inspect.Span{Off: span.End() + 1, Len: whole.End() - span.End() - 1}
		s.text = strconv.AppendUint(s.text[:0], uint64(after.Port()), 10)
		s.replace(digits, s.text)
	}
}

// A translated is an address that scrub has asked about, and the answer.
type translated struct{ before, after netip.AddrPort }

// scrubbed asks the Binder, once for each of a few addresses of a message.
func (s *session) scrubbed(a netip.AddrPort) netip.AddrPort {
	for _, x := range s.asked {
		if x.before == a {
			return x.after
		}
	}
	var after netip.AddrPort
	if r, ok := s.binder.(rewriter); ok {
		after = r.f(a, inspect.ForText)
	} else {
		after = s.binder.Signal(a, s.from)
	}
	if !after.IsValid() {
		after = a
	}
	if len(s.asked) == cap(s.asked) {
		s.asked = s.asked[:0]
	}
	s.asked = append(s.asked, translated{a, after})
	return after
}

// mustStay reports whether the address at span is one that ends compare.
func (s *session) mustStay(span inspect.Span) bool {
	b, m := s.msg.raw, &s.msg
	if span.Off < m.body {
		line := span.Off // of the field, folds included
		for line = lineStart(b, line); line > 0 && (b[line] == ' ' || b[line] == '\t'); {
			line = lineStart(b, line-1)
		}
		name, _, _ := bytes.Cut(b[line:span.Off], []byte(":"))
		name = bytes.TrimSpace(name)
		switch fieldKind(name) {
		case fieldCallID, fieldCSeq, fieldAuthorization:
			return true
		}
		for _, quoting := range [...]string{"www-authenticate", "proxy-authenticate", "authentication-info", "proxy-authentication-info",
			"replaces", "join", "in-reply-to", "target-dialog", "identity", "session-id"} {
			if equalFold(name, quoting) {
				return true
			}
		}
	}
	// Back to what the word began with: "sip:1001@", "tag=", `call-id="x@`.
	word := span.Off
	for word > 0 && !bytes.ContainsRune([]byte(" \t\r\n<>\",;?&("), rune(b[word-1])) {
		word--
	}
	before := b[word:span.Off]
	if name, _, ok := bytes.Cut(before, []byte("=")); ok && (equalFold(name, "tag") || equalFold(name, "branch") ||
		equalFold(name, "from-tag") || equalFold(name, "to-tag") || equalFold(name, "replaces") || equalFold(name, "call-id")) {
		return true
	}
	if at := bytes.LastIndexByte(before, '@'); at >= 0 {
		before = before[:at]
	} else if at := bytes.LastIndex(before, []byte("%40")); at >= 0 {
		before = before[:at]
	} else {
		return false
	}
	// Of "a@10.20.0.11" only what is a URI is an address.
	return bytes.IndexByte(before, ':') < 0
}

// lineStart returns where the line of off starts.
func lineStart(b []byte, off int) int { return bytes.LastIndexByte(b[:off], '\n') + 1 }
