package sip

import (
	"strconv"

	"patchbay/inspect"
)

// A via is the topmost value of Via. (RFC 3261, section 20.42.)
//
//	SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK7d51;received=198.51.100.7;rport=49153
type via struct {
	text      inspect.Span // all of it
	transport inspect.Span
	sentBy    hostport
	branch    inspect.Span
	received  inspect.Span // value; Len is 0 for none
	rport     inspect.Span // value; Len is 0 for none, or for ";rport" alone
}

// parseVia reads the first value of a Via field.
func parseVia(b []byte, value inspect.Span) (via, bool) {
	l := list{b: b, rest: value}
	if !l.next() {
		return via{}, false
	}
	v := via{text: l.value}
	at, end := v.text.Off, v.text.End()
	// protocol-name "/" version "/" transport, with space around the slashes
	for slashes := 0; slashes < 2; at++ {
		if at == end {
			return v, false
		}
		if b[at] == '/' {
			slashes++
		}
	}
	for at < end && isSpace(b[at]) {
		at++
	}
	v.transport.Off = at
	for at < end && isToken(b[at]) {
		at++
	}
	v.transport.Len = at - v.transport.Off
	if v.transport.Len == 0 || at == end || !isSpace(b[at]) {
		return v, false
	}
	for at < end && isSpace(b[at]) {
		at++
	}
	var ok bool
	if v.sentBy, ok = parseHostport(b, inspect.Span{Off: at, Len: end - at}); !ok {
		return v, false
	}
	at = v.sentBy.text.End()
	p := params{b: b, rest: inspect.Span{Off: at, Len: end - at}}
	for p.next() {
		switch name := p.name.Of(b); {
		case equalFold(name, "branch"):
			v.branch = p.value
		case equalFold(name, "received"):
			v.received = p.value
		case equalFold(name, "rport"):
			v.rport = p.value
		}
	}
	return v, true
}

// editVia edits the topmost Via: a request shows the box as its sender, and the
// answer gets the Via that the request had.
func (s *session) editVia(value inspect.Span) {
	b := s.msg.raw
	v, ok := parseVia(b, value)
	if !ok {
		return
	}
	if s.msg.isRequest() {
		before := s.edits.Len()
		if mine := s.self[s.from]; mine.IsValid() {
			s.text = appendHostport(s.text[:0], mine, true)
			s.replace(v.sentBy.text, s.text)
		} else {
			s.editHostport(v.sentBy, nil, target)
		}
		s.editViaTransport(v)
		if s.edits.Len() > before && !s.msg.isMethod("ACK") { // nobody answers an ACK
			s.pending.remember(s.from, v.branch.Of(b), v.text.Of(b))
		}
		return
	}
	asker := s.from.Other()
	if text := s.pending.find(asker, v.branch.Of(b), s.msg.status >= 200); text != nil {
		s.replace(v.text, text)
		return
	}
	// The request is forgotten: map back what can be.
	theirs := s.self[asker]
	if s.isOther(v.sentBy) {
		s.editViaTransport(v)
	}
	restored := s.editHostport(v.sentBy, nil, target)
	if restored == nil || !restored.addr.IsValid() {
		return
	}
	if string(v.received.Of(b)) == theirs.Addr().String() {
		s.replaceString(v.received, restored.addr.String())
	}
	if restored.port != 0 && string(v.rport.Of(b)) == strconv.Itoa(int(theirs.Port())) {
		s.replaceString(v.rport, strconv.Itoa(int(restored.port)))
	}
}

// editViaTransport gives the transport its name on the other side.
func (s *session) editViaTransport(v via) {
	if s.transportsDiffer() && equalFold(v.transport.Of(s.msg.raw), string(s.transport(s.from))) {
		s.replaceString(v.transport, string(s.transport(s.from.Other())))
	}
}
