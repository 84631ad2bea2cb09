//go:build linux

package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

const (
	sampleRate = 8000 // Hz, of G.711
	frameLen   = 160  // samples, and bytes of G.711, in 20 ms
	toneStep   = 50   // Hz: with 160 samples the Goertzel bins of these do not mix
	rtpHeader  = 12   // bytes, without CSRCs and extension

	// noTone is a frame that is none: silence, or noise.
	noTone = 0
)

// toneOf returns the frequency, a multiple of toneStep, that has nearly all
// the energy of 20 ms of samples, or noTone. (Goertzel's algorithm.)
func toneOf(x []float64) int {
	const audible = 100 * 100 // mean square
	energy, best, hz := 0.0, 0.0, noTone
	for _, v := range x {
		energy += v * v
	}
	if len(x) != frameLen || energy < audible*frameLen {
		return noTone
	}
	for f := 300; f <= 3400; f += toneStep {
		c := 2 * math.Cos(2*math.Pi*float64(f)/sampleRate)
		s1, s2 := 0.0, 0.0
		for _, v := range x {
			s1, s2 = v+c*s1-s2, s1
		}
		if p := s1*s1 + s2*s2 - c*s1*s2; p > best {
			best, hz = p, f
		}
	}
	// A sine that is all of it has energy * N/2.
	if best < 0.8*energy*frameLen/2 {
		return noTone
	}
	return hz
}

// muLaw returns the samples of a G.711 frame. (ITU-T G.711, table 2a.)
func muLaw(frame []byte) []float64 {
	x := make([]float64, len(frame))
	for i, b := range frame {
		b = ^b
		v := float64((int(b&0x0f)<<3+0x84)<<(b>>4&7) - 0x84)
		if b&0x80 != 0 {
			v = -v
		}
		x[i] = v
	}
	return x
}

// encodeMuLaw is the other way.
func encodeMuLaw(x float64) byte {
	sign := byte(0)
	if x < 0 {
		sign, x = 0x80, -x
	}
	v, exp := min(int(x), 32635)+0x84, 7
	for mask := 0x4000; exp > 0 && v&mask == 0; mask >>= 1 {
		exp--
	}
	return ^(sign | byte(exp)<<4 | byte(v>>(exp+3))&0x0f)
}

// An rtpFrame is 20 ms of PCMU that passed a device.
type rtpFrame struct {
	at       time.Time
	src, dst netip.AddrPort
	id       rtpID
	tone     int // Hz
}

// An rtpID is what stays of a packet from one end of a call to the other.
type rtpID struct {
	ssrc uint32
	seq  uint16
}

// newRTPFrame makes one of the packet p, with header and plain payload.
func newRTPFrame(p gopacket.Packet, src, dst netip.AddrPort, header, payload []byte) rtpFrame {
	id := rtpID{binary.BigEndian.Uint32(header[8:]), binary.BigEndian.Uint16(header[2:])}
	return rtpFrame{p.Metadata().Timestamp, src, dst, id, toneOf(muLaw(payload))}
}

// udp returns addresses and payload of a UDP packet.
func udp(p gopacket.Packet) (src, dst netip.AddrPort, payload []byte, ok bool) {
	u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok {
		return src, dst, nil, false
	}
	a, b := ends(p)
	return netip.AddrPortFrom(a, uint16(u.SrcPort)), netip.AddrPortFrom(b, uint16(u.DstPort)), u.Payload, true
}

// isPCMU reports whether a payload has the form of 20 ms of G.711 µ-law in RTP.
func isPCMU(b []byte) bool {
	return len(b) == rtpHeader+frameLen && b[0] == 0x80 && b[1]&0x7f == 0
}

// plainRTP returns the PCMU of a capture.
func plainRTP(c *capture) (frames []rtpFrame) {
	for _, p := range c.packets(nil) {
		if src, dst, b, ok := udp(p); ok && isPCMU(b) {
			frames = append(frames, newRTPFrame(p, src, dst, b, b[rtpHeader:]))
		}
	}
	return frames
}

// An srtpKey opens what one end sends, from its a=crypto line. This is a second
// writing of SRTP, to check the first one by. (RFC 3711.)
type srtpKey struct {
	suite            string
	tag              int // bytes of authentication behind an RTP packet
	cipher           cipher.Block
	auth, salt, rtcp []byte
}

// rtcpTag is how many bytes authenticate an SRTCP packet, also in the suite
// with 32 bits for SRTP. (RFC 4568, section 6.2.)
const rtcpTag = 10

// newSRTPKey reads suite and key of an a=crypto line.
func newSRTPKey(t testing.TB, suite, inline string) *srtpKey {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(inline)
	must(t, err)
	tag := map[string]int{"AES_CM_128_HMAC_SHA1_80": 10, "AES_CM_128_HMAC_SHA1_32": 4}[suite]
	if len(raw) != 30 || tag == 0 {
		t.Fatalf("a=crypto with suite %q and %d bytes", suite, len(raw))
	}
	master, err := aes.NewCipher(raw[:16])
	must(t, err)
	derive := func(label byte, n int) []byte { // section 4.3.1
		iv := make([]byte, 16)
		copy(iv, raw[16:])
		iv[7] ^= label
		out := make([]byte, n)
		cipher.NewCTR(master, iv).XORKeyStream(out, out)
		return out
	}
	block, err := aes.NewCipher(derive(0, 16))
	must(t, err)
	return &srtpKey{suite, tag, block, derive(1, 20), derive(2, 14), derive(4, 20)}
}

// open returns the payload of an SRTP packet whose sequence number has rolled
// over roc times; false if the packet is not of this key. (Section 3.3.)
func (k *srtpKey) open(b []byte, roc uint32) ([]byte, bool) {
	if len(b) < rtpHeader+k.tag {
		return nil, false
	}
	body, tag := b[:len(b)-k.tag], b[len(b)-k.tag:]
	h := hmac.New(sha1.New, k.auth)
	h.Write(body)
	binary.Write(h, binary.BigEndian, roc)
	if !bytes.Equal(h.Sum(nil)[:k.tag], tag) {
		return nil, false
	}
	iv := make([]byte, 16) // section 4.1.1
	copy(iv, k.salt)
	for i, x := range body[8:12] {
		iv[4+i] ^= x
	}
	for i, x := range binary.BigEndian.AppendUint32(nil, roc) {
		iv[8+i] ^= x
	}
	iv[12], iv[13] = iv[12]^body[2], iv[13]^body[3]
	plain := make([]byte, len(body)-rtpHeader)
	cipher.NewCTR(k.cipher, iv).XORKeyStream(plain, body[rtpHeader:])
	return plain, true
}

// authenticRTCP reports whether b is an encrypted SRTCP packet of this key with
// a tag of that many bytes. (Section 3.4.)
func (k *srtpKey) authenticRTCP(b []byte, tag int) bool {
	if len(b) < 8+4+tag || b[len(b)-tag-4]&0x80 == 0 {
		return false
	}
	h := hmac.New(sha1.New, k.rtcp)
	h.Write(b[:len(b)-tag])
	return bytes.Equal(h.Sum(nil)[:tag], b[len(b)-tag:])
}

// A sipTrace is one message as baresip logs it under -s, which for TLS is what
// went in, or came out.
type sipTrace struct {
	from, to netip.AddrPort
	text     string
}

var traced = regexp.MustCompile(`(?s)\x1b\[36;1m#\n(?:TLS|TCP|UDP) (\S+) -> (\S+)\n(.*?)\x1b\[;m`)

// traces reads the log of a baresip.
func traces(t testing.TB, log string) (all []sipTrace) {
	t.Helper()
	for _, m := range traced.FindAllStringSubmatch(log, -1) {
		from, err := netip.ParseAddrPort(m[1])
		must(t, err)
		to, err := netip.ParseAddrPort(m[2])
		must(t, err)
		all = append(all, sipTrace{from, to, strings.ReplaceAll(m[3], "\r\n", "\n")})
	}
	return all
}

var (
	mLine      = regexp.MustCompile(`(?m)^m=audio (\d+) (\S+) `)
	cLine      = regexp.MustCompile(`(?m)^c=IN IP4 (\S+)$`)
	cryptoLine = regexp.MustCompile(`(?m)^a=crypto:\d+ (\S+) inline:([A-Za-z0-9+/]{40})$`)
)

// A wire is what must be known to read the capture outside.
type wire struct {
	// keys are those that the owner of a port announced for it: what it
	// sends from there is under one of them. Who has no port of its own
	// known beforehand is known by address and port.
	keys map[netip.AddrPort][]*srtpKey
	roll map[rtpStream]*rollover
}

type rtpStream struct {
	src  netip.AddrPort
	ssrc uint32
	key  *srtpKey
}

// A rollover counts how often a sequence number began anew.
type rollover struct {
	last uint16
	roc  uint32
}

// open returns the payload of an SRTP packet, and the key it is under.
func (w *wire) open(src netip.AddrPort, b []byte) ([]byte, *srtpKey) {
	if len(b) < rtpHeader {
		return nil, nil
	}
	seq := binary.BigEndian.Uint16(b[2:])
	for _, k := range w.keys[src] {
		s := rtpStream{src, binary.BigEndian.Uint32(b[8:]), k}
		r := w.roll[s]
		if r == nil {
			r = &rollover{last: seq}
		}
		roc := r.roc
		if seq < 0x4000 && r.last > 0xc000 {
			roc++
		}
		if plain, ok := k.open(b, roc); ok {
			w.roll[s] = &rollover{seq, roc}
			return plain, k
		}
	}
	return nil, nil
}

// tcpStream is what one end of a connection has sent.
type tcpStream struct {
	src, dst netip.AddrPort
	data     []byte
	whole    bool // no byte is missing between the first and the last
}

// tcpStreams puts the segments of a capture together.
func tcpStreams(c *capture) (all []tcpStream) {
	type segment struct {
		off  int
		data []byte
	}
	type flow struct {
		first    uint32 // sequence number of the first byte
		segments []segment
	}
	flows := make(map[[2]netip.AddrPort]*flow)
	var order [][2]netip.AddrPort
	for _, p := range c.packets(nil) {
		h, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok {
			continue
		}
		a, b := ends(p)
		id := [2]netip.AddrPort{netip.AddrPortFrom(a, uint16(h.SrcPort)), netip.AddrPortFrom(b, uint16(h.DstPort))}
		f := flows[id]
		if f == nil {
			f = &flow{first: h.Seq}
			if h.SYN {
				f.first++
			}
			flows[id] = f
			order = append(order, id)
		}
		if len(h.Payload) > 0 {
			f.segments = append(f.segments, segment{int(int32(h.Seq - f.first)), h.Payload})
		}
	}
	for _, id := range order {
		s := tcpStream{src: id[0], dst: id[1], whole: true}
		segments := flows[id].segments
		slices.SortStableFunc(segments, func(a, b segment) int { return a.off - b.off })
		for _, x := range segments {
			have := len(s.data)
			switch {
			case x.off > have:
				s.whole = false
			case x.off+len(x.data) > have:
				s.data = append(s.data, x.data[have-x.off:]...)
			}
		}
		all = append(all, s)
	}
	return all
}

// checkTLS returns an error unless data is TLS records, the last perhaps cut
// off, and nothing else. (RFC 8446, section 5.1.)
func checkTLS(data []byte) error {
	for at := 0; at < len(data); {
		rest := data[at:]
		if len(rest) < 5 {
			return nil
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		if rest[0] < 20 || rest[0] > 23 || rest[1] != 3 || n == 0 || n > 1<<14+2048 {
			return fmt.Errorf("at %d: no TLS record: % x", at, rest[:5])
		}
		at += 5 + n
	}
	return nil
}
