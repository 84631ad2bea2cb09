package lab

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
)

func TestToneIsDetected(t *testing.T) {
	for hz := toneLowest; hz <= toneHighest; hz += toneStep {
		s := tone{hz: hz}
		var f [frameLen]byte
		for i := range 60 { // more than a second: the phase wraps
			if s.next(&f); detectTone(f[:]) != hz {
				t.Fatalf("frame %d of %d Hz is taken for %d Hz", i, hz, detectTone(f[:]))
			}
		}
	}
}

func TestToneIsContinuous(t *testing.T) {
	s := tone{hz: 350}
	var last int16
	for frame := range 100 {
		var f [frameLen]byte
		s.next(&f)
		for i, b := range f {
			x := decodeMuLaw(b)
			// The steepest step of the sine, and twice half a µ-law step.
			if limit := toneLevel*2*math.Pi*350/sampleRate + 600; frame+i > 0 && math.Abs(float64(x)-float64(last)) > limit {
				t.Fatalf("frame %d sample %d jumps from %d to %d", frame, i, last, x)
			}
			last = x
		}
	}
}

func TestNoToneInNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var f [frameLen]byte
	for n := range 200 {
		for i := range f {
			f[i] = byte(r.Uint32())
		}
		if hz := detectTone(f[:]); hz != 0 {
			t.Errorf("noise %d is taken for %d Hz", n, hz)
		}
	}
	for i := range f {
		f[i] = 0xff // zero
	}
	if hz := detectTone(f[:]); hz != 0 {
		t.Errorf("silence is taken for %d Hz", hz)
	}
	if hz := detectTone(f[:100]); hz != 0 {
		t.Errorf("a short frame is taken for %d Hz", hz)
	}
	a, b := tone{hz: 600}, tone{hz: 1700}
	var fa, fb [frameLen]byte
	a.next(&fa)
	b.next(&fb)
	for i := range f {
		f[i] = encodeMuLaw(decodeMuLaw(fa[i])/2 + decodeMuLaw(fb[i])/2)
	}
	if hz := detectTone(f[:]); hz != 0 {
		t.Errorf("two tones are taken for %d Hz", hz)
	}
}

func TestMuLaw(t *testing.T) {
	// ITU-T G.711, table 2a: decision and output values, in 16 bits.
	for _, tt := range []struct {
		linear int16
		code   byte
	}{{0, 0xff}, {-1, 0x7f}, {32635, 0x80}, {-32635, 0x00}, {132, 0xef}, {1000, 0xce}, {-1000, 0x4e}} {
		if got := encodeMuLaw(tt.linear); got != tt.code {
			t.Errorf("encodeMuLaw(%d) = %#x, want %#x", tt.linear, got, tt.code)
		}
	}
	for c := range 256 {
		if got := encodeMuLaw(decodeMuLaw(byte(c))); got != byte(c) && c != 0x7f { // minus zero
			t.Errorf("code %#x comes back as %#x", c, got)
		}
	}
	for x := -32000; x <= 32000; x += 7 {
		got := int(decodeMuLaw(encodeMuLaw(int16(x))))
		if d := math.Abs(float64(got - x)); d > math.Abs(float64(x))/16+8 {
			t.Errorf("%d comes back as %d", x, got)
		}
	}
}

// goldenKey is that of reference/srtp-keying.md, section 7.
func goldenKey(t *testing.T) (k mediaKey) {
	b, err := base64.StdEncoding.DecodeString("4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm")
	if err != nil || len(b) != 30 {
		t.Fatal(err)
	}
	copy(k.master[:], b)
	copy(k.salt[:], b[16:])
	return k
}

func TestGoldenSRTP(t *testing.T) {
	c, err := goldenKey(t).context()
	must(t, err)
	in, _ := hex.DecodeString("8000ffff000000a0cafebabe000102030405060708090a0b0c0d0e0f10111213")
	out, err := c.EncryptRTP(nil, in, nil)
	must(t, err)
	if got, want := hex.EncodeToString(out), "8000ffff000000a0cafebabe58c43f542802acd92f48fe341db1b81cf83e8a0e48ee22d2"; got != want {
		t.Errorf("SRTP %s, want %s", got, want)
	}
	// The block of the same section, read from a message.
	f := append(make(fields, 28), block(goldenKey(t))...)
	f = append(f, make(fields, 10)...)
	if k, err := f.keyAt(28, 19); err != nil || k != goldenKey(t) {
		t.Errorf("key of the block: %v", err)
	}
	if got := cryptoLine("1", goldenKey(t)); got != "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\r\n" {
		t.Errorf("crypto line %q", got)
	}
}

func newTestMedia(t *testing.T, last byte, hz int) *media {
	m, err := openMedia(loopback(t, last), "test@example.com", hz, 0, true, chance(last))
	must(t, err)
	t.Cleanup(m.close)
	return m
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func TestWrongKeyIsNotHeard(t *testing.T) {
	a, b := newTestMedia(t, 60, 500), newTestMedia(t, 61, 600)
	if a.addr.Port()%2 != 0 || addrPort(a.rtcp.LocalAddr()).Port() != a.addr.Port()+1 {
		t.Errorf("ports %v and %v", a.addr, a.rtcp.LocalAddr())
	}
	must(t, b.listen(goldenKey(t)))
	must(t, a.send(b.addr, randomKey()))
	waitFor(t, "packets that fail", func() bool { return b.snapshot().AuthFailures >= 3 })
	must(t, a.send(b.addr, mediaKey{}))
	n := b.snapshot().AuthFailures
	waitFor(t, "plain packets that fail", func() bool { return b.snapshot().AuthFailures >= n+3 })
	if r := b.snapshot(); r.Received != 0 || r.Heard() != 0 {
		t.Errorf("heard %+v without the key", r)
	}
	must(t, a.send(b.addr, goldenKey(t)))
	waitFor(t, "the tone", func() bool { return b.snapshot().Tones[500] >= 3 })
	a.silence()
	b.deafen()
}

func TestCountsLossAndJitter(t *testing.T) {
	m := newTestMedia(t, 62, 500)
	must(t, m.listen(mediaKey{}))
	start := m.started
	from := netip.MustParseAddrPort("127.0.41.99:9000")
	feed := func(ssrc uint32, seq uint16, at time.Duration) {
		p := rtp.Packet{Header: rtp.Header{Version: 2, SSRC: ssrc, SequenceNumber: seq, Timestamp: uint32(seq) * frameLen},
			Payload: make([]byte, frameLen)}
		b, err := p.Marshal()
		must(t, err)
		m.receive(b, from, start.Add(at))
	}
	// 65533 to 4 over the wrap; 65535 and 2 are missing, 3 and 4 swapped.
	for i, seq := range []uint16{65533, 65534, 0, 1, 4, 3} {
		feed(1, seq, time.Duration(i)*frameTime)
	}
	if r := m.snapshot(); r.Received != 6 || r.Lost != 2 || r.Streams != 1 || r.Sources[from] != 6 {
		t.Errorf("report %+v; want 6 received, 2 lost, 1 stream", r)
	}
	m.deafen()
	feed(1, 5, time.Second)
	must(t, m.listen(mediaKey{}))
	feed(1, 500, time.Second)
	feed(2, 7, time.Second)
	feed(2, 9, time.Second)
	r := m.snapshot()
	if r.Received != 9 || r.Lost != 3 || r.Streams != 2 || r.Late != 1 {
		t.Errorf("report %+v; want 9 received, 3 lost, 1 late, 2 streams", r)
	}
	m.receive([]byte("this is not RTP"), from, start)
	if n := m.snapshot().Malformed; n != 1 {
		t.Errorf("%d malformed, want 1", n)
	}

	// RFC 3550, A.8: constant differences of d converge to d.
	j := newTestMedia(t, 63, 500)
	m = j
	must(t, m.listen(mediaKey{}))
	start = m.started
	for i := range 400 {
		feed(1, uint16(i), time.Duration(i)*frameTime+time.Duration(i%2)*10*time.Millisecond)
	}
	if got := m.snapshot().Jitter; got < 9500*time.Microsecond || got > 10500*time.Microsecond {
		t.Errorf("jitter %v, want 10 ms", got)
	}
}

func TestReportSince(t *testing.T) {
	old := Report{Sent: 5, Received: 4, Tones: map[int]int{500: 4}}
	now := Report{Sent: 9, Received: 10, Lost: 1, Tones: map[int]int{500: 4, 700: 6}}
	d := now.Since(old)
	if d.Sent != 4 || d.Received != 6 || d.Lost != 1 || d.Heard() != 700 || len(d.Tones) != 1 {
		t.Errorf("Since: %+v", d)
	}
	if now.Heard() != 700 || old.Heard() != 500 || (Report{}).Heard() != 0 {
		t.Errorf("Heard: %d, %d", now.Heard(), old.Heard())
	}
}

func BenchmarkDetectTone(b *testing.B) {
	var f [frameLen]byte
	(&tone{hz: 1000}).next(&f)
	b.ReportAllocs()
	for b.Loop() {
		if detectTone(f[:]) != 1000 {
			b.Fatal("not heard")
		}
	}
}
