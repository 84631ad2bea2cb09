package sip

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
	"patchbay/nat"
)

// A session is one conversation of a phone with its call manager.
type session struct {
	engine  Engine
	binder  inspect.Binder
	reacher inspect.Reacher // or nil; then no port is readied for messages
	clock   inspect.Clock   // or nil; then no call ends by time

	names   [2]names // by which each end calls itself
	pending transactions
	calls   calls

	// Of the message at hand.
	msg   message
	from  nat.End
	self  [2]netip.AddrPort // how the other end knows each end
	edits inspect.Edits
	text  []byte // scratch
	desc  sdp.Description
	media mediaEdit

	registrations []registration // in order of age

	expires time.Duration  // of the registration at hand
	display bool           // the field at hand only shows somebody
	masked  []inspect.Span // lines of the message that do not leave
	asked   []translated   // addresses of it that scrub has asked about

	heard, looked time.Time // now, and when calls were last looked at for their time
}

var _ inspect.Session = (*session)(nil)

// Inspect edits one message. (reference/sip-cisco-phones.md, section 3.)
func (s *session) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	if isKeepalive(msg) {
		if from == nat.Client {
			if err := s.binder.Seen(""); err != nil {
				return dst, fmt.Errorf("sip: keepalive: %w", err)
			}
		}
		return append(dst, msg...), nil
	}
	if s.engine.Map.NonSIP && !isSIP(msg) {
		return append(dst, msg...), nil
	}
	s.from = from
	if err := s.msg.parse(msg); err != nil {
		if a := s.engine.Map.StrictHeader; a&^inspect.Log != 0 {
			return dst, s.violated(a, ErrHeader, err.Error())
		}
		return dst, drop(err)
	}
	s.edits.Reset()
	if s.clock != nil {
		s.Expire(s.clock.Now())
	}
	if err := s.enforce(); err != nil {
		return dst, err
	}
	if s.msg.isRequest() && s.msg.isMethod("REGISTER") && from == nat.Client {
		if err := s.seen(); err != nil {
			return dst, err
		}
	}
	s.self = [2]netip.AddrPort{s.binder.Self(nat.Client), s.binder.Self(nat.Server)}
	if !s.engine.NAT {
		s.learn()
	}
	s.follow()
	s.followNAT()
	if err := s.editBody(); err != nil {
		return dst, drop(err)
	}
	s.editHeader()
	if s.engine.NAT {
		s.asked = s.asked[:0]
		s.scrub()
	}
	s.editLength()
	out, err := s.edits.AppendTo(dst, msg)
	s.edits.Reset() // it may hold keys
	if err != nil {
		return dst, drop(fmt.Errorf("sip: editing %s: %w", s.msg.method, err))
	}
	return out, nil
}

// Close releases the calls that are left.
func (s *session) Close() { s.calls.close(s.binder) }

// drop makes err end the message only.
func drop(err error) error { return fmt.Errorf("%w: %w", err, inspect.ErrDrop) }

// isKeepalive reports whether msg is line ends only.
func isKeepalive(msg []byte) bool {
	for _, c := range msg {
		if c != '\r' && c != '\n' {
			return false
		}
	}
	return true
}

// editLength writes the length of the body as it leaves.
func (s *session) editLength() {
	m := &s.msg
	length := len(m.raw) - m.body + s.edits.DeltaFrom(m.body)
	for i := range m.fields {
		f := &m.fields[i]
		if f.kind != fieldLength {
			continue
		}
		if n, ok := parseLength(f.value.Of(m.raw)); ok && n != length {
			s.text = strconv.AppendInt(s.text[:0], int64(length), 10)
			s.replace(f.value, s.text)
		}
	}
}

// editHeader edits the start line and the header.
func (s *session) editHeader() {
	m := &s.msg
	if m.isRequest() && (s.engine.NAT || !(m.auth && s.from == nat.Client)) {
		// With credentials the URI stays: their digest covers it.
		// (RFC 3261, section 22.4.)
		s.editURI(m.uri, target)
	}
	contact, top := target, true
	if s.engine.NAT {
		contact = s.contactRole()
		s.editVias()
	}
	for i := range m.fields {
		f := &m.fields[i]
		if s.removed(f) {
			continue
		}
		switch f.kind {
		case fieldVia:
			if top && !s.engine.NAT {
				s.editVia(f.value)
				top = false
			}
		case fieldContact:
			s.editContacts(f.value, contact)
		case fieldTarget:
			s.editList(f.value, target)
		case fieldIdentity, fieldTo:
			s.display = f.kind == fieldIdentity && !isFrom(m.raw, f.value.Off)
			s.editList(f.value, identity)
			s.display = false
		case fieldCallInfo:
			s.editList(f.value, target)
			s.editHuntPilot(f.value)
		}
	}
}

// replace puts with in place of span, unless it stands there already.
func (s *session) replace(span inspect.Span, with []byte) {
	if !bytes.Equal(span.Of(s.msg.raw), with) {
		s.edits.Replace(span.Off, span.Len, with)
	}
}

// replaceString is replace with text.
func (s *session) replaceString(span inspect.Span, with string) {
	if string(span.Of(s.msg.raw)) != with {
		s.edits.ReplaceString(span.Off, span.Len, with)
	}
}

// editList edits the URI of each value in a field.
func (s *session) editList(value inspect.Span, r role) {
	l := list{b: s.msg.raw, rest: value}
	for l.next() {
		if u, _, ok := nameAddr(l.b, l.value); ok {
			s.editURI(u, r)
		}
	}
}

// editHuntPilot edits the URI in Call-Info's huntpiloturi="Hunt <sip:7000@host>".
// (reference/sip-cisco-phones.md, section 3.)
func (s *session) editHuntPilot(value inspect.Span) {
	b := s.msg.raw
	l := list{b: b, rest: value}
	for l.next() {
		_, rest, ok := nameAddr(b, l.value)
		p := params{b: b, rest: rest}
		for ok && p.next() {
			if !equalFold(p.name.Of(b), "huntpiloturi") {
				continue
			}
			// Escaped quotes of a display name stand before the bracket.
			u := unquote(b, p.value)
			if open := bytes.LastIndexByte(u.Of(b), '<'); open >= 0 {
				u.Off += open + 1
				u.Len -= open + 1
				if n := bytes.IndexByte(u.Of(b), '>'); n >= 0 {
					u.Len = n
				}
			}
			s.editURI(trim(b, u), identity)
		}
	}
}

// editURI gives a URI its form on the other side.
func (s *session) editURI(span inspect.Span, r role) {
	b := s.msg.raw
	u, ok := parseURI(b, span)
	if !ok {
		return
	}
	restored := s.editHostport(u.host, u.user.Of(b), r)
	scheme := u.scheme.Of(b)
	switch {
	case restored != nil && restored.scheme != "":
		s.replaceString(u.scheme, restored.scheme)
	case s.from == nat.Client && len(scheme) == len("sips") && s.engine.Server != TLS && s.engine.Server != s.engine.Client:
		s.replaceString(u.scheme, "sip")
	}
	if u.transport.Len > 0 && s.transportsDiffer() && equalFold(u.transport.Of(b), string(s.transport(s.from))) {
		if restored != nil && restored.transport != "" {
			s.replaceString(u.transport, restored.transport)
		} else {
			s.replaceString(u.transport, s.transport(s.from.Other()).param())
		}
	}
}

// editHostport replaces a host and port, and returns the name it restored.
func (s *session) editHostport(h hostport, user []byte, r role) *name {
	if s.engine.NAT {
		if text := s.translateNAT(s.text[:0], h, r); text != nil {
			s.text = text
			s.replace(h.text, text)
		}
		return nil
	}
	text, restored := s.translate(s.text[:0], h, user, r)
	if text != nil {
		s.text = text
		s.replace(h.text, text)
	}
	return restored
}

// transport returns how end speaks to the box.
func (s *session) transport(end nat.End) Transport {
	if end == nat.Client {
		return s.engine.Client
	}
	return s.engine.Server
}

// transportsDiffer reports whether transports change with the side.
func (s *session) transportsDiffer() bool {
	return s.engine.Client != "" && s.engine.Server != "" && s.engine.Client != s.engine.Server
}

// param returns t as ";transport=" has it.
func (t Transport) param() string {
	switch t {
	case TLS:
		return "tls"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return string(t)
}

// seen tells the Binder which phone registers: every device name that a Contact
// has, so that no second one hides behind the first.
func (s *session) seen() error {
	b := s.msg.raw
	found := false
	for i := range s.msg.fields {
		f := &s.msg.fields[i]
		if f.kind != fieldContact {
			continue
		}
		l := list{b: b, rest: f.value}
		for l.next() {
			_, rest, ok := nameAddr(b, l.value)
			if !ok {
				continue
			}
			named, instance := false, ""
			p := params{b: b, rest: rest}
			for p.next() {
				value := unquote(b, p.value).Of(b)
				switch {
				case equalFold(p.name.Of(b), "+u.sip!devicename.ccm.cisco.com") && len(value) > 0:
					found, named = true, true
					if err := s.seenDevice(string(value)); err != nil {
						return err
					}
				case equalFold(p.name.Of(b), "+sip.instance"):
					instance = instanceDevice(value)
				}
			}
			if !named && instance != "" {
				found = true
				if err := s.seenDevice(instance); err != nil {
					return err
				}
			}
		}
	}
	if found {
		return nil
	}
	return s.seenDevice("")
}

func (s *session) seenDevice(device string) error {
	if err := s.binder.Seen(device); err != nil {
		return fmt.Errorf("sip: REGISTER of %.40q: %w", device, err)
	}
	return nil
}

// instanceDevice makes SEP001122334455 of
// <urn:uuid:00000000-0000-0000-0000-001122334455>, the form of a MAC address.
// (reference/sip-cisco-phones.md, section 1.1.) It is "" for another UUID.
func instanceDevice(value []byte) string {
	const prefix, macLen = "<urn:uuid:00000000-0000-0000-0000-", 12
	if len(value) != len(prefix)+macLen+1 || !equalFold(value[:len(prefix)], prefix) {
		return ""
	}
	mac := bytes.ToUpper(value[len(prefix) : len(prefix)+macLen])
	for _, c := range mac {
		if !isDigit(c) && (c < 'A' || c > 'F') {
			return ""
		}
	}
	return "SEP" + string(mac)
}
