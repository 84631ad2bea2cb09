package sip

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
)

const (
	defaultExpires   = time.Hour // of a REGISTER that says nothing (RFC 3261, section 10.2)
	maxRegistrations = 256       // contacts whose REGISTER a conversation remembers; older ones end by their time
)

// A registration is a Contact that an end has registered, in its own words.
type registration struct {
	call string // Call-ID of its REGISTER
	end  nat.End
	addr netip.AddrPort
}

// contactRole says what the Contacts of the message are for.
func (s *session) contactRole() role {
	m := &s.msg
	switch {
	case m.isMethod("REGISTER") && m.isRequest():
		s.expires = s.statedExpires()
		return registered
	case m.isMethod("REGISTER") || m.isMethod("OPTIONS") || m.isMethod("BYE") || m.isMethod("CANCEL") ||
		m.isMethod("ACK") || m.status >= 300:
		return target
	}
	switch c := s.calls.byID[string(m.callID)]; {
	case m.isMethod("INVITE") && !m.isRequest() && (c == nil || c.invite[s.from.Other()].cseq != m.cseq):
		return target // it answers nothing
	case c != nil && c.stage == ended:
		return target // it crossed the end of the call: nobody goes on there
	}
	return dialog
}

// statedExpires reads Expires of a REGISTER.
func (s *session) statedExpires() time.Duration {
	l := lines{b: s.msg.raw, at: bytes.IndexByte(s.msg.raw, '\n') + 1}
	for l.next() {
		if equalFold(l.name.Of(l.b), "expires") {
			if n, ok := parseLength(l.value.Of(l.b)); ok {
				return time.Duration(n) * time.Second
			}
		}
	}
	return defaultExpires
}

// editContacts is editList for a Contact, whose own ;expires= comes first.
func (s *session) editContacts(value inspect.Span, r role) {
	if r != registered {
		s.editList(value, r)
		return
	}
	b, stated := s.msg.raw, s.expires
	l := list{b: b, rest: value}
	for l.next() {
		u, rest, ok := nameAddr(b, l.value)
		if !ok {
			continue
		}
		if string(u.Of(b)) == "*" && stated == 0 { // RFC 3261, section 10.2.2
			s.unregister()
			continue
		}
		s.expires = ownExpires(b, rest, stated)
		s.editURI(u, r)
	}
	s.expires = stated
}

// ownExpires reads ;expires= of a Contact.
func ownExpires(b []byte, rest inspect.Span, stated time.Duration) time.Duration {
	p := params{b: b, rest: rest}
	for p.next() {
		if equalFold(p.name.Of(b), "expires") {
			if n, ok := parseLength(unquote(b, p.value).Of(b)); ok {
				return time.Duration(n) * time.Second
			}
		}
	}
	return stated
}

// register readies for messages to a Contact of a REGISTER, or takes it back.
func (s *session) register(addr netip.AddrPort) netip.AddrPort {
	i := slices.IndexFunc(s.registrations, func(x registration) bool {
		return x.end == s.from && x.addr == addr && x.call == string(s.msg.callID)
	})
	switch {
	case i >= 0 && s.expires <= 0:
		s.registrations = slices.Delete(s.registrations, i, i+1)
	case i < 0 && s.expires > 0:
		if len(s.registrations) == maxRegistrations {
			s.registrations = slices.Delete(s.registrations, 0, 1)
		}
		s.registrations = append(s.registrations, registration{string(s.msg.callID), s.from, addr})
	}
	return s.reacher.Reach(addr, s.from, inspect.ForRegistration, "", s.expires)
}

// unregister takes back what the sender has registered with this Call-ID.
func (s *session) unregister() { s.takeBack(s.from) }

func (s *session) takeBack(end nat.End) {
	s.registrations = slices.DeleteFunc(s.registrations, func(x registration) bool {
		if x.end != end || x.call != string(s.msg.callID) {
			return false
		}
		s.reacher.Reach(x.addr, end, inspect.ForRegistration, "", 0)
		return true
	})
}

// granted takes the answer to a REGISTER: how long each Contact lasts is the
// registrar's word. (RFC 3261, section 10.3, step 8.)
func (s *session) granted() {
	m, b := &s.msg, s.msg.raw
	if m.isRequest() || s.reacher == nil || !m.isMethod("REGISTER") || m.status < 200 {
		return
	}
	asker := s.from.Other()
	switch {
	case m.status == 403 || m.status == 404 || m.status >= 600:
		s.takeBack(asker)
		return
	case m.status >= 300:
		return
	}
	stated := time.Duration(-1)
	if s.has("expires") {
		stated = s.statedExpires()
	}
	for i := range m.fields {
		if m.fields[i].kind != fieldContact {
			continue
		}
		l := list{b: b, rest: m.fields[i].value}
		for l.next() {
			span, rest, ok := nameAddr(b, l.value)
			if !ok {
				continue
			}
			u, ok := parseURI(b, span)
			lasts := ownExpires(b, rest, stated)
			if !ok || !u.host.addr.IsValid() || lasts < 0 {
				continue
			}
			port := u.host.port
			if !u.host.hasPort {
				port = defaultPort
			}
			addr := s.binder.Signal(netip.AddrPortFrom(u.host.addr, port), s.from)
			if slices.ContainsFunc(s.registrations, func(x registration) bool {
				return x.end == asker && x.addr == addr && x.call == string(m.callID)
			}) {
				s.reacher.Reach(addr, asker, inspect.ForRegistration, "", lasts)
			}
		}
	}
}

// has reports whether the message has a field of that name.
func (s *session) has(name string) bool {
	l := lines{b: s.msg.raw, at: bytes.IndexByte(s.msg.raw, '\n') + 1}
	for l.next() {
		if equalFold(l.name.Of(l.b), name) {
			return true
		}
	}
	return false
}
