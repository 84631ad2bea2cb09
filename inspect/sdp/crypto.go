package sdp

import (
	"bytes"
	"encoding/base64"
	"net/netip"

	"patchbay/inspect"
)

// A Crypto is one a=crypto line. (RFC 4568, section 9.1.)
//
//	a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:<40 base64 digits>|2^20|1:4 WSH=64
//	         |          |                     key, salt        life MKI  session
//	        tag       suite
type Crypto struct {
	Line inspect.Span // the whole line, its end included
	Tag  []byte       // borrowed from the body; empty when there is none

	// Key is zero when the line is not for us: a suite that we do not speak,
	// key and salt that are not 30 bytes, several keys, or a session parameter
	// that changes the packets.
	Key inspect.Key
	// MKI is how many bytes each packet carries to name its key: 0 for none.
	MKI int
}

// Usable reports whether packets of the line can be read: a known suite and no
// MKI in them.
func (c *Crypto) Usable() bool { return !c.Key.IsZero() && c.MKI == 0 }

// keyLen is the length of key and salt in base64: 16 + 14 bytes for both
// suites, without padding. (RFC 4568, section 6.2.)
const keyLen = 40

// parseCrypto reads what is behind "a=crypto:". It cannot fail: RFC 4568,
// section 5.1.2, skips a line that is invalid.
func parseCrypto(f fields, line inspect.Span) Crypto {
	c := Crypto{Line: line}
	tag, suite, keys := f.next(), f.next(), f.next()
	c.Tag = tag.Of(f.body)
	if keys.Len == 0 || tag.Len == 0 || tag.Len > 9 {
		return c
	}
	for _, d := range c.Tag {
		if d < '0' || d > '9' {
			return c
		}
	}
	switch string(suite.Of(f.body)) {
	case "AES_CM_128_HMAC_SHA1_32":
		c.Key.Suite = inspect.AES_CM_128_SHA1_32
	case "AES_CM_128_HMAC_SHA1_80":
		c.Key.Suite = inspect.AES_CM_128_SHA1_80
	default:
		return c
	}
	if !c.parseKey(keys.Of(f.body)) {
		c.Key = inspect.Key{}
	}
	for p := f.next(); p.Len > 0; p = f.next() {
		if !harmless(p.Of(f.body)) {
			c.Key = inspect.Key{}
		}
	}
	return c
}

// parseKey reads "inline:" key-and-salt ["|" lifetime] ["|" MKI ":" length].
// The lifetime binds the sender, and a call ends long before. (RFC 4568,
// section 6.1.)
func (c *Crypto) parseKey(b []byte) bool {
	const method = "inline:"
	if len(b) < len(method)+keyLen || !bytes.EqualFold(b[:len(method)], []byte(method)) {
		return false
	}
	b = b[len(method):]
	var raw [30]byte
	if n, err := base64.StdEncoding.Decode(raw[:], b[:keyLen]); err != nil || n != len(raw) {
		return false
	}
	copy(c.Key.Master[:], raw[:16])
	copy(c.Key.Salt[:], raw[16:])
	b = b[keyLen:]
	for n := 0; len(b) > 0; n++ {
		if b[0] != '|' || n == 2 {
			return false // a longer key, or a second one behind ";"
		}
		var param []byte
		b = b[1:]
		if i := bytes.IndexByte(b, '|'); i >= 0 {
			param, b = b[:i], b[i:]
		} else {
			param, b = b, nil
		}
		if bytes.IndexByte(param, ';') >= 0 || len(param) == 0 {
			return false
		}
		if _, length, ok := bytes.Cut(param, []byte(":")); ok {
			n, ok := parsePort(length)
			if !ok || n == 0 || n > 128 { // RFC 4568, section 6.1: 1 to 128
				return false
			}
			c.MKI = int(n)
		}
	}
	return true
}

// harmless reports whether a session parameter leaves the packets as they are:
// the window of the receiver, no key derivation after the first, and what may
// be skipped by its "-". (RFC 4568, section 6.3.)
func harmless(p []byte) bool {
	return bytes.HasPrefix(p, []byte("WSH=")) || bytes.HasPrefix(p, []byte("-")) ||
		string(p) == "KDR=0"
}

// Choose returns the first line that is usable, for offers are in order of
// preference (RFC 4568, section 5.1.1), or nil.
func (m *Media) Choose() *Crypto {
	for i := range m.Crypto {
		if m.Crypto[i].Usable() {
			return &m.Crypto[i]
		}
	}
	return nil
}

// AppendCrypto appends an a=crypto line without its end, as 79xx phones take
// it: no lifetime, no MKI, no session parameters. (reference/sip-cisco-phones.md,
// section 4.1.) A zero key appends nothing.
func AppendCrypto(dst []byte, tag string, k inspect.Key) []byte {
	if k.IsZero() {
		return dst
	}
	dst = append(dst, "a=crypto:"...)
	dst = append(dst, tag...)
	dst = append(dst, ' ')
	dst = append(dst, k.Suite.String()...)
	dst = append(dst, " inline:"...)
	var raw [30]byte
	copy(raw[:16], k.Master[:])
	copy(raw[16:], k.Salt[:])
	return base64.StdEncoding.AppendEncode(dst, raw[:])
}

// AppendAddress appends "IP4 198.51.100.7" or "IP6 2001:db8::7", the part of a
// c= line behind "IN ".
func AppendAddress(dst []byte, a netip.Addr) []byte {
	family := "IP4 "
	if a = a.Unmap(); a.Is6() {
		family = "IP6 "
	}
	return a.AppendTo(append(dst, family...))
}

// Secure reports whether m is SRTP keyed by a=crypto: RTP/SAVP or RTP/SAVPF.
func (m *Media) Secure(body []byte) bool {
	p := m.Proto.Of(body)
	return string(p) == "RTP/SAVP" || string(p) == "RTP/SAVPF"
}

// Plain reports whether m is RTP without protection: RTP/AVP or RTP/AVPF.
func (m *Media) Plain(body []byte) bool {
	p := m.Proto.Of(body)
	return string(p) == "RTP/AVP" || string(p) == "RTP/AVPF"
}
