package sip

import (
	"net/netip"

	"patchbay/nat"
)

// A role is what an address is written for.
type role uint8

const (
	identity   role = iota // it names somebody; a missing port stays missing
	target                 // messages are sent to it, so the port must be right
	dialog                 // target, and the other end sends to it while a call lasts
	registered             // target, and the other end sends to it while it is registered
	sentBy                 // target, and answers come to it
)

// A name is what an end calls itself: the sent-by of its Via or a Contact. It
// is kept as written, to be given back to the byte.
type name struct {
	user      string // of a Contact
	scheme    string // of a Contact, "" for a Via
	text      string // "192.168.1.50:49153"
	host      string // "192.168.1.50"
	addr      netip.Addr
	port      uint16 // 0 when none is written
	transport string // as written in the Contact, or ""
}

// names are those an end used last, the newest first, at most MaxNames.
type names struct {
	list []name
}

// learn notes a name. user and transport may be empty.
func (n *names) learn(scheme, user, transport []byte, b []byte, h hostport) {
	text, host := h.text.Of(b), h.host.Of(b)
	if len(text) > MaxName || len(user) > MaxName || len(transport) > len("ws-secure") || h.addr.IsValid() && h.addr.IsUnspecified() {
		return
	}
	for i := range n.list {
		x := &n.list[i]
		if x.text == string(text) && x.user == string(user) && x.scheme == string(scheme) && x.transport == string(transport) {
			found := *x
			copy(n.list[1:i+1], n.list[:i])
			n.list[0] = found
			return
		}
	}
	if len(n.list) < MaxNames {
		n.list = append(n.list, name{})
	}
	copy(n.list[1:], n.list)
	n.list[0] = name{
		user: string(user), scheme: string(scheme), text: string(text), host: string(host),
		addr: h.addr, port: h.port, transport: string(transport),
	}
}

// match returns whether h is one of the names.
func (n *names) match(b []byte, h hostport) bool {
	for i := range n.list {
		x := &n.list[i]
		if h.hasPort && h.port != x.port && (x.port != 0 || h.port != 5060 && h.port != 5061) {
			continue
		}
		if h.addr.IsValid() && h.addr == x.addr || !h.addr.IsValid() && equalFold(h.host.Of(b), x.host) {
			return true
		}
	}
	return false
}

// pick returns the name to give back: of the Contact with that user, else of
// the newest Contact, else of the newest Via. It is nil when there is none.
func (n *names) pick(user []byte) *name {
	var best *name
	for i := range n.list {
		x := &n.list[i]
		switch {
		case x.scheme != "" && x.user == string(user):
			return x
		case best == nil || best.scheme == "" && x.scheme != "":
			best = x
		}
	}
	return best
}

// learn notes what the sender calls itself: the topmost Via of a request, and
// of the phone also its Contacts. Those of the call manager may name others;
// the Binder knows them. A redirection (3xx) names others too.
func (s *session) learn() {
	b, m := s.msg.raw, &s.msg
	own := &s.names[s.from]
	top := true
	for i := range m.fields {
		f := &m.fields[i]
		switch {
		case f.kind == fieldVia && top:
			top = false
			if v, ok := parseVia(b, f.value); ok && m.isRequest() && !s.isOther(v.sentBy) {
				own.learn(nil, nil, nil, b, v.sentBy)
			}
		case f.kind == fieldContact && s.from == nat.Client && m.status/100 != 3:
			l := list{b: b, rest: f.value}
			for n := 0; n < MaxNames/2 && l.next(); n++ {
				if span, _, ok := nameAddr(b, l.value); ok {
					if u, ok := parseURI(b, span); ok && !s.isOther(u.host) {
						own.learn(u.scheme.Of(b), u.user.Of(b), u.transport.Of(b), b, u.host)
					}
				}
			}
		}
	}
}

// isOther reports whether h is the address by which the sender knows the other
// end. It can be no name of its own.
func (s *session) isOther(h hostport) bool {
	other := s.self[s.from.Other()]
	return h.addr.IsValid() && other.IsValid() && h.addr == other.Addr()
}

// translate appends what the other end must read in place of h, which s.from
// wrote, or returns nil where h stays. restored is the name that the other end
// gets back of its own.
func (s *session) translate(dst []byte, h hostport, user []byte, r role) (text []byte, restored *name) {
	other := s.from.Other()
	theirs := s.self[other]
	back := s.isOther(h) && (!h.hasPort || h.port == theirs.Port())
	if back && other == nat.Client {
		if n := s.names[nat.Client].pick(user); n != nil {
			return appendName(dst, n, h), n
		}
	}
	mine := s.self[s.from]
	own := mine.IsValid() && s.names[s.from].match(s.msg.raw, h)
	if own && s.from == nat.Client {
		return appendHostport(dst, mine, h.hasPort || r == target), nil
	}
	if h.addr.IsValid() {
		before := netip.AddrPortFrom(h.addr, h.port)
		if after := s.binder.Signal(before, s.from); after.IsValid() && after != before {
			return appendHostport(dst, after, h.hasPort || after.Port() != 0), nil
		}
	}
	if own {
		return appendHostport(dst, mine, h.hasPort || r == target), nil
	}
	if back {
		if n := s.names[other].pick(user); n != nil {
			return appendName(dst, n, h), n
		}
	}
	return nil, nil
}

// appendName gives n back in place of h, without a port where h has none.
func appendName(dst []byte, n *name, h hostport) []byte {
	if h.hasPort {
		return append(dst, n.text...)
	}
	return append(dst, n.host...)
}

// appendHostport appends a, with brackets around IPv6.
func appendHostport(dst []byte, a netip.AddrPort, port bool) []byte {
	if port {
		return a.AppendTo(dst)
	}
	if a.Addr().Is6() {
		return append(a.Addr().AppendTo(append(dst, '[')), ']')
	}
	return a.Addr().AppendTo(dst)
}

// address returns how the other end knows addr, or addr itself.
func (s *session) address(addr netip.Addr) netip.Addr {
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
		return addr
	}
	if s.engine.NAT {
		if after := s.binder.Signal(netip.AddrPortFrom(addr, 0), s.from).Addr(); after.IsValid() {
			return after
		}
		return addr
	}
	other := s.from.Other()
	if theirs := s.self[other]; theirs.IsValid() && theirs.Addr() == addr && other == nat.Client {
		if n := s.names[nat.Client].pick(nil); n != nil && n.addr.IsValid() {
			return n.addr
		}
	}
	own := s.self[s.from].IsValid() && s.names[s.from].match(nil, hostport{addr: addr})
	if own && s.from == nat.Client {
		return s.self[s.from].Addr()
	}
	if after := s.binder.Signal(netip.AddrPortFrom(addr, 0), s.from).Addr(); after.IsValid() && after != addr {
		return after
	}
	if own {
		return s.self[s.from].Addr()
	}
	return addr
}
