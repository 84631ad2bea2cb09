package replay

import (
	"bytes"
	"net/netip"

	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
	"patchbay/nat"
	"patchbay/stack"
)

// A dictionary makes the messages of a capture that was taken without the box
// into those that each end would have sent with the box between them. There an
// answer names the other end as it is; here that end has been told of the
// address that NAT shows. The dictionary sees each message before and after the
// box, so it learns what each side was told, and puts that in what the side says.
//
// What it cannot know stays as it was: an address that the box never passed on,
// of which only the host is known, keeps its port; what an end made of an
// address (a digest of a URI, a Call-ID with its own address in it, the length
// of a line it chose) is that of the capture; and an end that would have
// behaved otherwise with the box there, such as one that sends ";received="
// when it sees a NAT, does not.
type dictionary struct {
	side  func(netip.Addr) *stack.Interface // that an address of the capture is behind
	rules func() *nat.Rules

	told map[endOn]netip.AddrPort // what a side was told of an end; with port 0 and no protocol, of a host
	ends map[endOn]netip.AddrPort // what packets show of it; the splitter's
}

// A speech is messages of one protocol and one direction.
type speech struct {
	rewrite func(dst, msg []byte, f inspect.AddrFunc) ([]byte, error)
	proto   stack.Proto
	from    *stack.Interface
	to      *stack.Interface
}

// protoOf returns the transport of what an address is for.
func (s *speech) protoOf(kind inspect.AddrKind) stack.Proto {
	if kind == inspect.ForRTP || kind == inspect.ForRTCP {
		return stack.UDP
	}
	return s.proto
}

// say appends msg as the end that sent it would have said it. What cannot be
// read stays as it is.
func (d *dictionary) say(dst, msg []byte, s *speech) []byte {
	out, err := s.rewrite(dst, msg, func(a netip.AddrPort, kind inspect.AddrKind) netip.AddrPort {
		return d.known(a, s.protoOf(kind), s.from)
	})
	if err != nil {
		return append(dst, msg...)
	}
	return out
}

// known returns how the hosts on in know a, an address of the capture. In
// order: what they were told of it; what its packets showed; a static rule; what
// they were told of its host.
func (d *dictionary) known(a netip.AddrPort, proto stack.Proto, in *stack.Interface) netip.AddrPort {
	behind := d.side(a.Addr())
	if !a.Addr().Is4() || behind == in || d.rules().Owns(in, a.Addr()) {
		return a
	}
	if m, ok := d.told[endOn{in, proto, a}]; ok {
		return m
	}
	if m, ok := d.ends[endOn{in, proto, a}]; ok {
		return m
	}
	if m, ok := d.rules().MappedOf(a, behind, in, proto); ok {
		return m
	}
	if m, ok := d.told[hostOn(in, a.Addr())]; ok {
		return netip.AddrPortFrom(m.Addr(), a.Port())
	}
	return a
}

// hostOn is the key of a host of which no port is told.
func hostOn(in *stack.Interface, a netip.Addr) endOn {
	return endOn{in: in, real: netip.AddrPortFrom(a, 0)}
}

// named is what one message names, by what it is for. Addresses in text are
// left out, for they are asked for once each, and not place by place.
type named [inspect.ForRTCP + 1][]netip.AddrPort

func (s *speech) named(msg []byte) (n named, ok bool) {
	_, err := s.rewrite(nil, msg, func(a netip.AddrPort, kind inspect.AddrKind) netip.AddrPort {
		if kind != inspect.ForText {
			n[kind] = append(n[kind], a)
		}
		return a
	})
	return n, err == nil
}

// learn notes what the box made of a message on its way. Where it took a line
// out or put one in, what the message says of that kind is not learned.
func (d *dictionary) learn(before, after []byte, s *speech) {
	if bytes.Equal(before, after) {
		return
	}
	x, ok1 := s.named(before)
	y, ok2 := s.named(after)
	if !ok1 || !ok2 {
		return
	}
	for kind := range x {
		if len(x[kind]) != len(y[kind]) {
			continue
		}
		for i, real := range x[kind] {
			if d.side(real.Addr()) == s.from && !d.rules().Owns(s.from, real.Addr()) {
				d.note(s.to, s.protoOf(inspect.AddrKind(kind)), real, y[kind][i])
			}
		}
	}
}

// note notes that on knows the end real as mapped.
func (d *dictionary) note(on *stack.Interface, proto stack.Proto, real, mapped netip.AddrPort) {
	if real == mapped {
		delete(d.told, endOn{on, proto, real})
		return
	}
	d.told[endOn{on, proto, real}] = mapped
	if real.Addr() != mapped.Addr() {
		d.told[hostOn(on, real.Addr())] = netip.AddrPortFrom(mapped.Addr(), 0)
	}
}

// A translatedSession has both ends of a terminated conversation speak through
// a dictionary.
type translatedSession struct {
	inspect.Session
	d   *dictionary
	end [2]speech // of each end
	msg []byte
}

// translate puts the dictionary before the session of t.
func (d *dictionary) translate(t *tcpTalk) inspect.Session {
	s := &translatedSession{Session: t.session, d: d}
	speak := speech{proto: stack.TCP, from: t.svc.in, to: t.svc.out}
	switch t.svc.engine.(type) {
	case *sip.Engine:
		speak.rewrite = sip.Rewrite
	case skinny.Engine:
		speak.rewrite = skinny.Rewrite
	default:
		return t.session
	}
	s.end[nat.Client] = speak
	speak.from, speak.to = speak.to, speak.from
	s.end[nat.Server] = speak
	return s
}

// Inspect has the session inspect what from would have said.
func (s *translatedSession) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	s.msg = s.d.say(s.msg[:0], msg, &s.end[from])
	base := len(dst)
	out, err := s.Session.Inspect(dst, s.msg, from)
	if err == nil {
		s.d.learn(s.msg, out[base:], &s.end[from])
	}
	return out, err
}

// datagram finds the messages of SIP in datagrams.
var datagram = &sip.Engine{Client: sip.UDP, Server: sip.UDP}

// sipMessage returns the SIP message that a datagram holds, nil for none.
func sipMessage(payload []byte) []byte {
	if len(payload) == 0 || payload[0] < 'A' || payload[0] > 'z' { // RTP begins with 0x80 or more
		return nil
	}
	_, msg, err := datagram.Split(payload, true)
	if err != nil {
		return nil
	}
	return msg
}
