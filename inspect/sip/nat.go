package sip

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"patchbay/inspect"
)

const (
	defaultPort   = 5060        // of SIP over UDP and TCP (RFC 3261, section 19.1.2)
	expireStep    = time.Second // how often calls are looked at for their time
	maxRemembered = 4096        // requests of a conversation through NAT whose Vias are remembered
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
		after = s.register(before)
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
	s.heard = now
	if now.Before(s.looked.Add(expireStep)) {
		return
	}
	s.looked = now
	for id, c := range s.calls.byID {
		if s.isOver(c, now.Sub(c.heard)) {
			c.end(s.binder)
			delete(s.calls.byID, id)
		}
	}
}

// isOver reports whether a call that was silent for idle is.
func (s *session) isOver(c *call, idle time.Duration) bool {
	e := &s.engine
	limit := e.Timeout
	switch {
	case c.stage == ended || c.cancelled:
		limit = e.DisconnectTimeout
	case c.stage == early:
		limit = e.InviteTimeout
	}
	if limit <= 0 || idle <= limit {
		return false
	}
	w, ok := s.binder.(inspect.Watcher)
	return c.stage != established || c.cancelled || ok && !w.Flows(c.id, "")
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
	s.granted()
}

var _ inspect.Expirer = (*session)(nil)
