package lab

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v2"
)

const (
	frameTime    = 20 * time.Millisecond
	payloadPCMU  = 0                      // RTP payload type of G.711 µ-law (RFC 3551, table 4)
	rtcpInterval = 5 * time.Second        // RFC 3550, section 6.2: the minimum
	rtcpFirst    = 300 * time.Millisecond // by then the far end listens
	replayWindow = 64                     // packets (RFC 3711, section 3.3.2)

	firstMediaPort = 16384 // startMediaPort, stopMediaPort of a phone's configuration
	lastMediaPort  = 32766
	portTries      = 64
)

// A mediaKey is an SRTP master key and salt for AES_CM_128_HMAC_SHA1_32, or
// with long tags for _80. The zero value is no key: plain RTP.
type mediaKey struct {
	master  [16]byte
	salt    [14]byte
	longTag bool // 80 bits
}

func (k mediaKey) context() (*srtp.Context, error) {
	if k == (mediaKey{}) {
		return nil, nil
	}
	profile := srtp.ProtectionProfileAes128CmHmacSha1_32
	if k.longTag {
		profile = srtp.ProtectionProfileAes128CmHmacSha1_80
	}
	c, err := srtp.CreateContext(k.master[:], k.salt[:], profile,
		srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow))
	if err != nil {
		return nil, fmt.Errorf("lab: srtp context: %w", err)
	}
	return c, nil
}

// A Report says what a phone sent and heard in a call. Counts are packets.
type Report struct {
	Sent     int // RTP
	Received int // RTP, authentic where it is SRTP
	Lost     int // by sequence numbers (RFC 3550, appendix A.3); below 0: duplicates
	Late     int // arrived while the phone was not listening

	AuthFailures int // SRTP and SRTCP that did not authenticate or came twice
	Malformed    int // not RTP or RTCP

	RTCPSent, RTCPReceived int

	Jitter  time.Duration          // of the last stream (RFC 3550, appendix A.8)
	Tones   map[int]int            // frames heard by frequency in Hz
	Sources map[netip.AddrPort]int // RTP by the address it came from
	Streams int                    // different SSRCs heard
}

// Heard returns the frequency in Hz that most frames were, if it was more than
// half of all frames; otherwise 0.
func (r Report) Heard() int {
	for hz, n := range r.Tones {
		if 2*n > r.Received {
			return hz
		}
	}
	return 0
}

// Since returns what happened after old was taken from the same call.
func (r Report) Since(old Report) Report {
	r.Sent -= old.Sent
	r.Received -= old.Received
	r.Lost -= old.Lost
	r.Late -= old.Late
	r.AuthFailures -= old.AuthFailures
	r.Malformed -= old.Malformed
	r.RTCPSent -= old.RTCPSent
	r.RTCPReceived -= old.RTCPReceived
	r.Streams -= old.Streams
	r.Tones = minus(r.Tones, old.Tones)
	r.Sources = minus(r.Sources, old.Sources)
	return r
}

func minus[K comparable](a, b map[K]int) map[K]int {
	d := make(map[K]int)
	for k, n := range a {
		if n != b[k] {
			d[k] = n - b[k]
		}
	}
	return d
}

// A media is the RTP end of one call: a pair of sockets, at most one stream
// out and one in.
type media struct {
	rand   io.Reader
	name   string // CNAME
	noRTCP bool
	first  uint16 // first sequence number; 0: random
	rtp    net.PacketConn
	rtcp   net.PacketConn
	addr   netip.AddrPort // of rtp
	wg     sync.WaitGroup

	mu      sync.Mutex
	tone    tone
	out     *outStream
	stop    chan struct{} // ends the sender of out; nil when it is silent
	in      *inStream
	heard   map[uint32]*source // by SSRC, since the phone last began to listen
	ssrcs   map[uint32]bool    // all that were ever heard
	report  Report
	closed  bool
	started time.Time
}

// An outStream is what is sent with one key.
type outStream struct {
	to      netip.AddrPort
	key     mediaKey
	srtp    *srtp.Context // nil: plain
	ssrc    uint32
	seq     uint16
	stamp   uint32
	marker  bool
	packets uint32
	octets  uint32
}

// An inStream is what is received with one key.
type inStream struct {
	key  mediaKey
	srtp *srtp.Context // nil: plain
}

// A source is the state of one SSRC that is heard. (RFC 3550, appendix A.1.)
type source struct {
	base     uint32 // first extended sequence number
	highest  uint32
	received uint32
	transit  int64 // RTP time units
	jitter   float64
}

// lost is how many packets are missing between the first and the last.
func (s *source) lost() int { return int(int32(s.highest - s.base + 1 - s.received)) }

// openMedia opens an even port and the odd one after it on h.
func openMedia(h Host, name string, hz int, first uint16, noRTCP bool, rand io.Reader) (*media, error) {
	var last error
	for range portTries {
		var b [2]byte
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return nil, fmt.Errorf("lab: media port: %w", err)
		}
		span := uint16(lastMediaPort-firstMediaPort) / 2
		port := firstMediaPort + 2*(binary.BigEndian.Uint16(b[:])%span)
		a, err := h.ListenUDP(netip.AddrPortFrom(netip.Addr{}, port))
		if err != nil {
			last = err
			continue
		}
		c, err := h.ListenUDP(netip.AddrPortFrom(netip.Addr{}, port+1))
		if err != nil {
			a.Close()
			last = err
			continue
		}
		m := &media{
			rand: rand, name: name, noRTCP: noRTCP, first: first,
			rtp: a, rtcp: c, addr: netip.AddrPortFrom(h.Addr(), port),
			tone:    tone{hz: hz},
			heard:   make(map[uint32]*source),
			ssrcs:   make(map[uint32]bool),
			started: time.Now(),
			report:  Report{Tones: make(map[int]int), Sources: make(map[netip.AddrPort]int)},
		}
		m.wg.Add(2)
		go m.read(m.rtp, m.receive)
		go m.read(m.rtcp, m.receiveRTCP)
		return m, nil
	}
	return nil, fmt.Errorf("lab: no pair of media ports: %w", last)
}

// listen accepts RTP, with a key only SRTP of that key. The same key again
// changes nothing.
func (m *media) listen(key mediaKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in != nil && m.in.key == key {
		return nil
	}
	c, err := key.context()
	if err != nil {
		return err
	}
	m.in = &inStream{key: key, srtp: c}
	return nil
}

// deafen ends listen. What is sent from now on is not lost, so each source
// begins anew when the phone listens again.
func (m *media) deafen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.in = nil
	for _, s := range m.heard {
		m.report.Lost += s.lost()
	}
	clear(m.heard)
}

// send sends the tone to an address, as SRTP if there is a key. The same key
// again continues the stream, another key begins a new one.
func (m *media) send(to netip.AddrPort, key mediaKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return net.ErrClosed
	}
	if m.out == nil || m.out.key != key {
		c, err := key.context()
		if err != nil {
			return err
		}
		var b [10]byte
		if _, err := io.ReadFull(m.rand, b[:]); err != nil {
			return fmt.Errorf("lab: SSRC: %w", err)
		}
		m.out = &outStream{
			key: key, srtp: c,
			ssrc:  binary.BigEndian.Uint32(b[:]),
			stamp: binary.BigEndian.Uint32(b[4:]),
			// Below 2^15, so that early loss cannot hide a wrap from a
			// receiver. (reference/srtp-keying.md, section 4.)
			seq: binary.BigEndian.Uint16(b[8:]) >> 1,
		}
		if m.first != 0 {
			m.out.seq = m.first
		}
	}
	m.out.to = to
	m.out.marker = true
	if m.stop == nil {
		m.stop = make(chan struct{})
		m.wg.Add(1)
		go m.sendLoop(m.stop)
	}
	return nil
}

// silence ends send.
func (m *media) silence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stop != nil {
		close(m.stop)
		m.stop = nil
	}
}

// close ends the streams and returns when nothing moves any more.
func (m *media) close() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	m.in = nil
	if m.stop != nil {
		close(m.stop)
		m.stop = nil
	}
	m.mu.Unlock()
	m.rtp.Close()
	m.rtcp.Close()
	m.wg.Wait()
}

// snapshot returns the report so far.
func (m *media) snapshot() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.report
	r.Tones = maps.Clone(r.Tones)
	r.Sources = maps.Clone(r.Sources)
	r.Streams = len(m.ssrcs)
	for _, s := range m.heard {
		r.Lost += s.lost()
	}
	return r
}

// sendLoop sends a frame each 20 ms by an absolute schedule, and RTCP at the
// start and each 5 s.
func (m *media) sendLoop(stop <-chan struct{}) {
	defer m.wg.Done()
	next := time.Now()
	nextRTCP := next.Add(rtcpFirst)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		m.sendFrame(stop)
		now := time.Now()
		if !m.noRTCP && !now.Before(nextRTCP) {
			nextRTCP = now.Add(rtcpInterval)
			m.sendRTCP(stop, now)
		}
		if next = next.Add(frameTime); now.Sub(next) > 10*frameTime {
			next = now // the machine slept; a phone does not catch up either
		}
		timer.Reset(time.Until(next))
	}
}

// current returns the stream that the sender with this stop channel serves.
func (m *media) currentLocked(stop <-chan struct{}) *outStream {
	select {
	case <-stop:
		return nil
	default:
		return m.out
	}
}

func (m *media) sendFrame(stop <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.currentLocked(stop)
	if o == nil {
		return
	}
	var frame [frameLen]byte
	m.tone.next(&frame)
	p := rtp.Packet{
		Header: rtp.Header{
			Version: 2, PayloadType: payloadPCMU, Marker: o.marker,
			SequenceNumber: o.seq, Timestamp: o.stamp, SSRC: o.ssrc,
		},
		Payload: frame[:],
	}
	b, err := p.Marshal()
	if err == nil && o.srtp != nil {
		b, err = o.srtp.EncryptRTP(nil, b, nil)
	}
	if err != nil {
		return
	}
	if _, err := m.rtp.WriteTo(b, net.UDPAddrFromAddrPort(o.to)); err != nil {
		return // a port unreachable, or closed: the loop ends by stop
	}
	o.seq++
	o.stamp += frameLen
	o.marker = false
	o.packets++
	o.octets += frameLen
	m.report.Sent++
}

func (m *media) sendRTCP(stop <-chan struct{}, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.currentLocked(stop)
	if o == nil {
		return
	}
	sr := &rtcp.SenderReport{
		SSRC: o.ssrc, NTPTime: ntpTime(now), RTPTime: o.stamp,
		PacketCount: o.packets, OctetCount: o.octets,
	}
	for ssrc, s := range m.heard {
		if len(sr.Reports) == 31 {
			break // RFC 3550, section 6.4.1: five bits
		}
		sr.Reports = append(sr.Reports, rtcp.ReceptionReport{
			SSRC: ssrc, LastSequenceNumber: s.highest, Jitter: uint32(s.jitter),
			TotalLost: uint32(max(0, s.lost())) & 0xffffff,
		})
	}
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: o.ssrc,
		Items:  []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: m.name}},
	}}}
	b, err := rtcp.Marshal([]rtcp.Packet{sr, name})
	if err == nil && o.srtp != nil {
		b, err = o.srtp.EncryptRTCP(nil, b, nil)
	}
	if err != nil {
		return
	}
	to := netip.AddrPortFrom(o.to.Addr(), o.to.Port()+1)
	if _, err := m.rtcp.WriteTo(b, net.UDPAddrFromAddrPort(to)); err == nil {
		m.report.RTCPSent++
	}
}

// ntpTime is t as seconds since 1900 in 32.32 bits. (RFC 3550, section 4.)
func ntpTime(t time.Time) uint64 {
	const from1900 = 2208988800 // seconds to 1970
	return uint64(t.Unix()+from1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// read hands on what a socket gets, until the media ends.
func (m *media) read(c net.PacketConn, receive func(b []byte, from netip.AddrPort, now time.Time)) {
	defer m.wg.Done()
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if m.gone() {
				return
			}
			continue // an ICMP error of an earlier packet
		}
		receive(buf[:n], addrPort(from), time.Now())
	}
}

func (m *media) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}

// plainLocked is what came from the wire without its SRTP, if it has any. What
// nobody listens to and what is not authentic is counted, and not ok.
func (m *media) plainLocked(b []byte, decrypt func(*srtp.Context) ([]byte, error)) (plain []byte, ok bool) {
	if m.in == nil {
		m.report.Late++
		return nil, false
	}
	if m.in.srtp == nil {
		return b, true
	}
	plain, err := decrypt(m.in.srtp)
	if err != nil {
		m.report.AuthFailures++
		return nil, false
	}
	return plain, true
}

// receive counts one packet and listens to its tone.
func (m *media) receive(b []byte, from netip.AddrPort, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.plainLocked(b, func(c *srtp.Context) ([]byte, error) { return c.DecryptRTP(nil, b, nil) })
	if !ok {
		return
	}
	var p rtp.Packet
	if err := p.Unmarshal(b); err != nil || p.Version != 2 {
		m.report.Malformed++
		return
	}
	m.report.Received++
	m.report.Sources[from]++
	if p.PayloadType == payloadPCMU {
		if hz := detectTone(p.Payload); hz != 0 {
			m.report.Tones[hz]++
		}
	}
	m.countLocked(&p.Header, now)
}

// countLocked follows sequence numbers and jitter. (RFC 3550, appendix A.)
func (m *media) countLocked(h *rtp.Header, now time.Time) {
	transit := now.Sub(m.started).Nanoseconds()*sampleRate/1e9 - int64(h.Timestamp)
	s := m.heard[h.SSRC]
	if s == nil {
		m.ssrcs[h.SSRC] = true
		first := uint32(1)<<16 | uint32(h.SequenceNumber) // room to go back
		m.heard[h.SSRC] = &source{base: first, highest: first, received: 1, transit: transit}
		return
	}
	s.received++
	ext := s.highest + uint32(int32(int16(h.SequenceNumber-uint16(s.highest))))
	if int32(ext-s.highest) > 0 {
		s.highest = ext
	}
	if int32(ext-s.base) < 0 {
		s.base = ext // the very first were swapped on the way
	}
	d := transit - s.transit
	s.transit = transit
	if d < 0 {
		d = -d
	}
	// A talk spurt after a pause jumps in time; that is no jitter.
	if h.Marker {
		return
	}
	s.jitter += (float64(d) - s.jitter) / 16
	m.report.Jitter = time.Duration(s.jitter / sampleRate * float64(time.Second))
}

func (m *media) receiveRTCP(b []byte, _ netip.AddrPort, _ time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.plainLocked(b, func(c *srtp.Context) ([]byte, error) { return c.DecryptRTCP(nil, b, nil) })
	if !ok {
		return
	}
	if _, err := rtcp.Unmarshal(b); err != nil {
		m.report.Malformed++
		return
	}
	m.report.RTCPReceived++
}
