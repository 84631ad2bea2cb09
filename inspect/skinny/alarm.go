package skinny

import (
	"bytes"
	"net/netip"

	"patchbay/inspect"
	"patchbay/nat"
)

// Alarm: severity, text of 80 bytes, two numbers. XMLAlarm: text to its end.
// Both are as long as they are, whatever the text. (reference/skinny.md,
// section 5.)
const (
	alarmText    = 4
	alarmTextEnd = 84
)

// alarm translates the addresses in the text of an alarm: the phone names its
// own there, and those of its neighbours. Only through a firewall that takes no
// part: the proxy leaves it. (reference/skinny.md, section 7.)
func (s *session) alarm(m Message) {
	if _, ok := s.binder.(inspect.Reacher); !ok {
		return
	}
	d := m.Data()
	if m.ID() == idAlarm {
		if len(d) < alarmTextEnd {
			return
		}
		d = d[alarmText:alarmTextEnd]
	}
	text, _, _ := bytes.Cut(d, []byte{0})
	out := eachAddr(text, func(a netip.Addr) netip.Addr {
		return s.binder.Signal(netip.AddrPortFrom(a, 0), nat.Client).Addr()
	})
	if len(out) > len(d) { // no room: say nothing, which is never longer
		out = eachAddr(text, func(a netip.Addr) netip.Addr {
			if s.binder.Signal(netip.AddrPortFrom(a, 0), nat.Client).Addr() == a {
				return a
			}
			return netip.IPv4Unspecified()
		})
	}
	clear(d[copy(d, out):max(len(text), len(out))])
}

// eachAddr returns text with what f says in place of each IPv4 address that
// stands by itself in it.
func eachAddr(text []byte, f func(netip.Addr) netip.Addr) []byte {
	var out []byte
	part := func(c byte) bool { return c == '.' || '0' <= c && c <= '9' }
	for len(text) > 0 {
		n := 0
		for n < len(text) && !part(text[n]) {
			n++
		}
		out = append(out, text[:n]...)
		text = text[n:]
		for n = 0; n < len(text) && part(text[n]); n++ {
		}
		word := bytes.TrimRight(text[:n], ".") // of a sentence
		if a, err := netip.ParseAddr(string(word)); err == nil && a.Is4() {
			if b := f(a); b.Is4() && b != a {
				out = append(out, b.String()...)
				text, n = text[len(word):], n-len(word)
			}
		}
		out = append(out, text[:n]...)
		text = text[n:]
	}
	return out
}
