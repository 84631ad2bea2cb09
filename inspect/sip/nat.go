package sip

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"patchbay/inspect"
)

const (
	defaultPort    = 5060        // of SIP over UDP and TCP (RFC 3261, section 19.1.2)
	defaultExpires = time.Hour   // of a REGISTER that says nothing (RFC 3261, section 10.2)
	expireStep     = time.Second // how often calls are looked at for their time
	maxRemembered  = 4096        // requests of a conversation through NAT whose Vias are remembered
)

// translateNAT appends what stands for h on the other side, or returns nil
// where h stays. Where messages go to h, a port that is not written is 5060.
func (s *session) translateNAT(dst []byte, h hostport, r role) []byte {
	if !h.addr.IsValid() {
		return nil
	}
	port := h.port
	if !h.hasPort && r != identity {
		port = defaultPort
	}
	before := netip.AddrPortFrom(h.addr, port)
	var after netip.AddrPort
	switch {
	case s.reacher == nil || r == identity || r == target:
		after = s.binder.Signal(before, s.from)
	case r == dialog:
		after = s.reacher.Reach(before, s.from, inspect.ForDialog, string(s.msg.callID), 0)
	case r == registered:
		after = s.reacher.Reach(before, s.from, inspect.ForRegistration, "", s.expires)
	case r == sentBy:
		after = s.reacher.Reach(before, s.from, inspect.ForAnswers, "", 0)
	}
	if s.display && s.engine.Map.Private && after == before && s.self[s.from].IsValid() {
		after = netip.AddrPortFrom(s.self[s.from].Addr(), port)
	}
	if !after.IsValid() || after == before {
		return nil
	}
	return appendHostport(dst, after, h.hasPort || r != identity && after.Port() != defaultPort && after.Port() != 0)
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
		s.expires = stated
		p := params{b: b, rest: rest}
		for p.next() {
			if equalFold(p.name.Of(b), "expires") {
				if n, ok := parseLength(unquote(b, p.value).Of(b)); ok {
					s.expires = time.Duration(n) * time.Second
				}
			}
		}
		s.editURI(u, r)
	}
	s.expires = stated
}

// eachVia calls f with every value of Via, topmost first.
func (s *session) eachVia(f func(i int, v via)) {
	b, n := s.msg.raw, 0
	for i := range s.msg.fields {
		if s.msg.fields[i].kind != fieldVia {
			continue
		}
		l := list{b: b, rest: s.msg.fields[i].value}
		for l.next() {
			if v, ok := parseVia(b, l.value); ok {
				f(n, v)
			}
			n++
		}
	}
}

// editVias translates every Via of a request, and gives the answer those that
// the request had.
func (s *session) editVias() {
	b, m := s.msg.raw, &s.msg
	if m.isRequest() {
		before := s.edits.Len()
		var branch, all []byte
		s.eachVia(func(i int, v via) {
			r := target
			if i == 0 {
				branch, r = v.branch.Of(b), sentBy
			}
			if i > 0 {
				all = append(all, '\n')
			}
			all = append(all, v.text.Of(b)...)
			s.editHostport(v.sentBy, nil, r)
			s.editReceived(v)
		})
		if (s.edits.Len() > before || s.engine.Map.State != 0) && !m.isMethod("ACK") {
			s.pending.remember(s.from, branch, all)
		}
		return
	}
	var texts [][]byte
	s.eachVia(func(i int, v via) {
		if i == 0 {
			if t := s.pending.find(s.from.Other(), v.branch.Of(b), m.status >= 200); t != nil {
				texts = bytes.Split(t, []byte{'\n'})
			}
		}
		if i < len(texts) {
			s.replace(v.text, texts[i])
			return
		}
		s.editHostport(v.sentBy, nil, target)
		s.editReceived(v)
	})
}

// editReceived translates ;received= and the ;rport= beside it.
func (s *session) editReceived(v via) {
	b := s.msg.raw
	addr, err := netip.ParseAddr(string(v.received.Of(b)))
	if err != nil {
		return
	}
	port, ok := parseLength(v.rport.Of(b))
	if !ok || port > 0xffff {
		port = 0
	}
	after := s.binder.Signal(netip.AddrPortFrom(addr, uint16(port)), s.from)
	if !after.IsValid() || after.Addr() == addr && after.Port() == uint16(port) {
		return
	}
	s.replaceString(v.received, after.Addr().String())
	if port != 0 {
		s.replaceString(v.rport, strconv.Itoa(int(after.Port())))
	}
}

// Expire ends the calls that nobody answered in time. See inspect.Expirer.
func (s *session) Expire(now time.Time) {
	e := &s.engine
	if e.InviteTimeout <= 0 && e.DisconnectTimeout <= 0 || now.Before(s.looked.Add(expireStep)) {
		s.heard = now
		return
	}
	s.looked, s.heard = now, now
	for id, c := range s.calls.byID {
		idle := now.Sub(c.heard)
		switch {
		case c.stage == ended || c.cancelled:
			if e.DisconnectTimeout <= 0 || idle <= e.DisconnectTimeout {
				continue
			}
		case c.stage != early || e.InviteTimeout <= 0 || idle <= e.InviteTimeout:
			continue
		}
		c.end(s.binder)
		delete(s.calls.byID, id)
	}
}

// followNAT is what following a call needs besides: its time, and the end of
// one that began in another conversation.
func (s *session) followNAT() {
	m := &s.msg
	if c := s.calls.byID[string(m.callID)]; c != nil {
		c.heard = s.heard
		if m.isRequest() && m.isMethod("CANCEL") && c.stage == early {
			c.cancelled = true
		}
		if c.stage == established {
			c.cancelled = false
		}
	} else if s.engine.NAT && m.isRequest() && m.isMethod("BYE") {
		s.binder.Release(string(m.callID), "")
	}
}

var _ inspect.Expirer = (*session)(nil)
