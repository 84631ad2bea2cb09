package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// rtpHeader is a fixed RTP header without CSRCs, in bytes. (RFC 3550, 5.1.)
const rtpHeader = 12

// An exposure watches a wire for what should not be on it in the clear: voice
// and signaling. Files are not secret: they are signed.
type exposure struct {
	mu    sync.Mutex
	found map[string]int // packets by what they show
}

func newExposure() *exposure { return &exposure{found: make(map[string]int)} }

// watch looks at one IPv4 packet. Any tone that can be heard in UDP is plain
// RTP: ciphertext has none. In TCP it looks for SIP and for SCCP's Register.
func (e *exposure) watch(b []byte) {
	s, ok := parseSegment(b)
	if !ok {
		return
	}
	what := ""
	switch s.proto {
	case protoUDP:
		if p := s.l4[8:]; len(p) >= rtpHeader+frameLen && p[0]>>6 == 2 {
			if hz := detectTone(p[rtpHeader : rtpHeader+frameLen]); hz != 0 {
				what = fmt.Sprintf("a tone of %d Hz", hz)
			}
		}
	case protoTCP:
		n := int(s.l4[12]>>4) * 4
		if n < 20 || n > len(s.l4) {
			return
		}
		if p := s.l4[n:]; bytes.Contains(p, []byte("SIP/2.0")) {
			what = "SIP"
		} else if len(p) >= sccpHeader+3 && binary.LittleEndian.Uint32(p[8:]) == msgRegister && bytes.HasPrefix(p[sccpHeader:], []byte("SEP")) {
			what = "SCCP"
		}
	}
	if what == "" {
		return
	}
	what = fmt.Sprintf("%s from %v to %v", what, addrOf(b, 12), addrOf(b, 16))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.found[what]++
}

func addrOf(b []byte, off int) netip.Addr { return netip.AddrFrom4([4]byte(b[off:])) }

// list returns what was found, sorted.
func (e *exposure) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var l []string
	for _, what := range slices.Sorted(maps.Keys(e.found)) {
		l = append(l, fmt.Sprintf("%s, %d packets", what, e.found[what]))
	}
	return l
}

// Watch looks at an IPv4 packet that somebody else has seen on a network of the
// lab where nothing may pass in the clear. Several goroutines may use it.
func (l *Lab) Watch(packet []byte) { l.exposure.watch(packet) }

// Exposed returns what was seen in the clear on the Internet of a memory lab, or
// by Watch: RTP in which a tone can be heard, SIP, SCCP. With an honest box it is
// empty.
func (l *Lab) Exposed() []string {
	if l.exposure == nil {
		return nil
	}
	return l.exposure.list()
}
