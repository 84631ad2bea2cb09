package media

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/srtp/v2"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

var (
	start   = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	mtaOut  = netip.MustParseAddr("203.0.113.20")
	mtaIn   = netip.MustParseAddr("10.20.0.20")
	phone   = netip.MustParseAddrPort("198.51.100.7:30000")
	far     = netip.MustParseAddrPort("10.20.0.50:20000")
	outside = &stack.Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.2/24")}
	inside  = &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24")}
)

// A bench is a relay with one session and the phone's view of its keys.
type bench struct {
	t                  testing.TB
	table              *nat.Table
	relay              *Relay
	s                  *Session
	fromPhone, toPhone inspect.Key
	phone              *srtp.Context // what the phone sends with
	ear                *srtp.Context // what it hears with
	now                time.Time
	p                  *stack.Packet
}

func testKey(b byte, suite inspect.Suite) inspect.Key {
	k := inspect.Key{Suite: suite}
	for i := range k.Master {
		k.Master[i] = b + byte(i)
	}
	for i := range k.Salt {
		k.Salt[i] = b ^ byte(i*7)
	}
	return k
}

// peer returns what a phone has for one direction: another's SRTP.
func peer(t testing.TB, k inspect.Key) *srtp.Context {
	t.Helper()
	profile := srtp.ProtectionProfileAes128CmHmacSha1_32
	if k.Suite == inspect.AES_CM_128_SHA1_80 {
		profile = srtp.ProtectionProfileAes128CmHmacSha1_80
	}
	c, err := srtp.CreateContext(k.Master[:], k.Salt[:], profile,
		srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newBench(t testing.TB) *bench {
	t.Helper()
	table, err := nat.NewTable(nat.TableConfig{Rand: rand.NewChaCha8([32]byte{1})})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, table: table, now: start, p: stack.NewPacket(2048)}
	b.relay = New(Config{Pinholes: table, Rand: rand.NewChaCha8([32]byte{2})})
	b.s = b.open()
	b.fromPhone, b.toPhone = testKey(1, inspect.AES_CM_128_SHA1_32), testKey(99, inspect.AES_CM_128_SHA1_32)
	b.key(b.fromPhone, b.toPhone)
	b.s.SetRemote(nat.Server, far, true)
	return b
}

func (b *bench) open() *Session {
	b.t.Helper()
	s, err := b.relay.Open("test", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) key(from, to inspect.Key) {
	b.t.Helper()
	if err := b.s.SetReceive(nat.Client, from, b.now); err != nil {
		b.t.Fatal(err)
	}
	if err := b.s.SetTransmit(nat.Client, to); err != nil {
		b.t.Fatal(err)
	}
	b.phone, b.ear = peer(b.t, from), peer(b.t, to)
}

// voice returns a packet of 160 bytes of G.711.
func voice(seq uint16, ssrc uint32) []byte {
	b := make([]byte, 172)
	b[0], b[1] = 0x80, 0
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	for i := 12; i < len(b); i++ {
		b[i] = byte(int(seq) + i)
	}
	return b
}

// put has the packet arrive, and returns the verdict and what left.
func (b *bench) put(in *stack.Interface, src, dst netip.AddrPort, payload []byte) (stack.Verdict, stack.Flow, []byte) {
	b.t.Helper()
	b.p.Reset()
	b.p.SetData(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: src, Dst: dst}, payload))
	b.p.Time, b.p.In = b.now, in
	if v := b.p.Parse(); v != stack.Forward {
		b.t.Fatalf("test packet: %v", v)
	}
	c, end := b.table.Claim(b.p)
	if c == nil {
		return stack.DropNoService, stack.Flow{}, nil
	}
	v := c.Handle(b.p, end)
	if v == stack.Forward {
		q := stack.NewPacket(2048)
		q.SetData(b.p.Data())
		if v := q.Parse(); v != stack.Forward {
			b.t.Fatalf("what left does not parse: %v", v)
		}
		return v, q.Flow(), bytes.Clone(q.Payload())
	}
	return v, stack.Flow{}, nil
}

// speak has the phone send an RTP packet from src.
func (b *bench) speak(src netip.AddrPort, plain []byte) (stack.Verdict, stack.Flow, []byte) {
	b.t.Helper()
	sealed, err := b.phone.EncryptRTP(nil, plain, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.put(outside, src, b.s.Local(nat.Client), sealed)
}

func TestBothWays(t *testing.T) {
	for _, suite := range []inspect.Suite{inspect.AES_CM_128_SHA1_32, inspect.AES_CM_128_SHA1_80} {
		t.Run(suite.String(), func(t *testing.T) {
			b := newBench(t)
			b.key(testKey(3, suite), testKey(50, suite))
			for i := range 5 {
				want := voice(uint16(100+i), 7)
				v, f, got := b.speak(phone, want)
				if v != stack.Forward || f.Src != b.s.Local(nat.Server) || f.Dst != far || !bytes.Equal(got, want) {
					t.Fatalf("phone to far: %v %v, payload as sent %t", v, f, bytes.Equal(got, want))
				}
				want = voice(uint16(900+i), 8)
				v, f, sealed := b.put(inside, far, b.s.Local(nat.Server), want)
				if v != stack.Forward || f.Src != b.s.Local(nat.Client) || f.Dst != phone {
					t.Fatalf("far to phone: %v %v, want to %v", v, f, phone)
				}
				if bytes.Contains(sealed, want[12:28]) {
					t.Fatal("plain media toward the phone")
				}
				got, err := b.ear.DecryptRTP(nil, sealed, nil)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("the phone hears: %v, as sent %t", err, bytes.Equal(got, want))
				}
			}
			st := b.s.Stats(nat.Client)
			if st.Packets != 5 || st.Sent != 5 || !st.Latched || st.Remote != phone || st.Lost != 0 {
				t.Errorf("phone leg: %+v", st)
			}
		})
	}
}

// The vector of reference/srtp-keying.md, section 7, arrives and leaves plain.
func TestVector(t *testing.T) {
	var k inspect.Key
	k.Suite = inspect.AES_CM_128_SHA1_32
	hex.Decode(k.Master[:], []byte("e1f97a0d3e018be0d64fa32c06de4139"))
	hex.Decode(k.Salt[:], []byte("0ec675ad498afeebb6960b3aabe6"))
	sealed, _ := hex.DecodeString("8000ffff000000a0cafebabe58c43f542802acd92f48fe341db1b81cf83e8a0e48ee22d2")
	want, _ := hex.DecodeString("8000ffff000000a0cafebabe000102030405060708090a0b0c0d0e0f10111213")
	b := newBench(t)
	b.key(k, b.toPhone)
	v, _, got := b.put(outside, phone, b.s.Local(nat.Client), sealed)
	if v != stack.Forward || !bytes.Equal(got, want) {
		t.Errorf("%v % x, want % x", v, got, want)
	}
	rtcp, _ := hex.DecodeString("81c90007cafebabeda82aaf34b2914111d5a31e15ed1000c6e550139d5013b308000000127867a6e3de83d04b273")
	at := netip.AddrPortFrom(mtaOut, b.s.Local(nat.Client).Port()+1)
	v, f, got := b.put(outside, netip.AddrPortFrom(phone.Addr(), 30001), at, rtcp)
	if v != stack.Forward || len(got) != 32 || got[8] != 0 || got[31] != 0x17 || f.Dst.Port() != far.Port()+1 {
		t.Errorf("SRTCP: %v %v % x", v, f, got)
	}
}

func TestRTCPBothWays(t *testing.T) {
	b := newBench(t)
	at := func(e nat.End) netip.AddrPort {
		l := b.s.Local(e)
		return netip.AddrPortFrom(l.Addr(), l.Port()+1)
	}
	report := make([]byte, 28)
	report[0], report[1], report[3] = 0x80, 200, 6
	report[7] = 9
	phoneRTCP := netip.AddrPortFrom(phone.Addr(), 41001) // as a home router maps it
	if v, _, _ := b.put(inside, netip.AddrPortFrom(far.Addr(), far.Port()+1), at(nat.Server), report); v != stack.DropSRTPNoKey {
		t.Errorf("RTCP toward a phone that has sent nothing: %v", v)
	}
	sealed, err := b.phone.EncryptRTCP(nil, report, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, f, got := b.put(outside, phoneRTCP, at(nat.Client), sealed)
	if v != stack.Forward || !bytes.Equal(got, report) || f.Dst.Port() != far.Port()+1 || f.Src != at(nat.Server) {
		t.Fatalf("phone's report: %v %v % x", v, f, got)
	}
	v, f, sealed = b.put(inside, netip.AddrPortFrom(far.Addr(), far.Port()+1), at(nat.Server), report)
	if v != stack.Forward || f.Dst != phoneRTCP {
		t.Fatalf("report to the phone: %v %v, want to %v", v, f, phoneRTCP)
	}
	if got, err := b.ear.DecryptRTCP(nil, sealed, nil); err != nil || !bytes.Equal(got, report) {
		t.Errorf("the phone reads %v % x", err, got)
	}
}

func TestLatch(t *testing.T) {
	b := newBench(t)
	stranger := netip.MustParseAddrPort("198.51.100.66:4444")
	toPhone := func() (stack.Verdict, netip.AddrPort) {
		v, f, _ := b.put(inside, far, b.s.Local(nat.Server), voice(uint16(b.now.Unix()), 8))
		b.now = b.now.Add(time.Second)
		return v, f.Dst
	}
	b.s.SetRemote(nat.Client, netip.MustParseAddrPort("192.168.1.50:30000"), false)
	if v, _ := toPhone(); v != stack.DropSRTPNoKey {
		t.Errorf("before anything authenticated: %v, want a drop", v)
	}
	garbage := voice(1, 666)
	if v, _, _ := b.put(outside, stranger, b.s.Local(nat.Client), garbage); v != stack.DropSRTPAuth {
		t.Errorf("plain RTP from a stranger: %v", v)
	}
	if v, _ := toPhone(); v != stack.DropSRTPNoKey {
		t.Errorf("after a stranger's packet: %v, want a drop", v)
	}
	sealed, _ := b.phone.EncryptRTP(nil, voice(1, 7), nil)
	first := bytes.Clone(sealed)
	if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), sealed); v != stack.Forward {
		t.Fatalf("the phone's first packet: %v", v)
	}
	if _, to := toPhone(); to != phone {
		t.Errorf("sent to %v, want the latched %v", to, phone)
	}
	if v, _, _ := b.put(outside, stranger, b.s.Local(nat.Client), first); v != stack.DropSRTPReplay {
		t.Errorf("the phone's packet replayed by a stranger: %v", v)
	}
	forged := bytes.Clone(first)
	forged[3]++
	if v, _, _ := b.put(outside, stranger, b.s.Local(nat.Client), forged); v != stack.DropSRTPAuth {
		t.Errorf("forged packet: %v", v)
	}
	if _, to := toPhone(); to != phone {
		t.Errorf("after forgeries sent to %v, want %v", to, phone)
	}
	// The home router gives the phone another port: an authentic move.
	moved := netip.MustParseAddrPort("198.51.100.7:31999")
	if v, _, _ := b.speak(moved, voice(2, 7)); v != stack.Forward {
		t.Fatalf("after the move: %v", v)
	}
	if _, to := toPhone(); to != moved {
		t.Errorf("sent to %v, want %v", to, moved)
	}
	b.s.SetRemote(nat.Client, netip.MustParseAddrPort("192.168.1.50:30002"), true)
	if _, to := toPhone(); to != moved {
		t.Errorf("a hint moved the latch to %v", to)
	}
	st := b.s.Stats(nat.Client)
	if st.AuthFailed != 2 || st.Replayed != 1 || st.Moves != 1 {
		t.Errorf("counters: %+v", st)
	}
}

func TestPlainLegSource(t *testing.T) {
	b := newBench(t)
	b.speak(phone, voice(1, 7))
	if v, _, _ := b.put(inside, netip.MustParseAddrPort("10.20.0.99:20000"), b.s.Local(nat.Server), voice(1, 8)); v != stack.DropMediaSource {
		t.Errorf("RTP from a host that was not signalled: %v", v)
	}
	if v, _, _ := b.put(inside, netip.AddrPortFrom(far.Addr(), 5004), b.s.Local(nat.Server), voice(1, 8)); v != stack.Forward {
		t.Errorf("RTP from another port of the far end: %v", v)
	}
	if v, _, _ := b.put(outside, far, b.s.Local(nat.Server), voice(2, 8)); v != stack.DropNoService {
		t.Errorf("RTP to the inside address from outside: %v", v)
	}
	b.s.SetRemote(nat.Server, netip.MustParseAddrPort("0.0.0.0:20000"), true)
	if v, _, _ := b.speak(phone, voice(2, 7)); v != stack.DropSRTPNoKey {
		t.Errorf("toward a far end on hold: %v", v)
	}
}

func TestRekey(t *testing.T) {
	b := newBench(t)
	b.speak(phone, voice(1, 7))
	late, _ := b.phone.EncryptRTP(nil, voice(2, 7), nil)
	later, _ := b.phone.EncryptRTP(nil, voice(3, 7), nil)
	next := testKey(77, inspect.AES_CM_128_SHA1_32)
	b.key(next, b.toPhone)
	if v, _, _ := b.speak(phone, voice(10, 7)); v != stack.Forward {
		t.Errorf("under the new key: %v", v)
	}
	if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), late); v != stack.Forward {
		t.Errorf("under the old key, at once: %v", v)
	}
	b.now = b.now.Add(2 * rekeyOverlap)
	if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), later); v != stack.DropSRTPAuth {
		t.Errorf("under the old key, late: %v", v)
	}
	// The same key again is no new key: what was sent once stays a replay.
	again, _ := b.phone.EncryptRTP(nil, voice(11, 7), nil)
	dup := bytes.Clone(again)
	b.put(outside, phone, b.s.Local(nat.Client), again)
	if err := b.s.SetReceive(nat.Client, next, b.now); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), dup); v != stack.DropSRTPReplay {
		t.Errorf("replay after the same key was signalled again: %v", v)
	}
}

// What a plain source does must never make the box use one packet index twice,
// or step back: the phone would hear nothing. (reference/srtp-keying.md,
// section 4.)
func TestSealForwardOnly(t *testing.T) {
	tests := []struct {
		name string
		seqs []uint16
	}{
		{"in order", []uint16{1, 2, 3, 4}},
		{"late", []uint16{1, 2, 4, 3, 5}},
		{"doubled", []uint16{1, 2, 2, 3}},
		{"stepped back", []uint16{5000, 5001, 40, 41, 42}},
		{"starts high", []uint16{65533, 65534, 65535, 0, 1, 2}},
		{"wraps twice", []uint16{30000, 60000, 20000, 50000, 10000, 40000, 4000}},
		{"late, from before the first", []uint16{2, 65535, 3, 4, 65534, 5}},
		{"late and then doubled late", []uint16{10, 12, 11, 11, 13}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.speak(phone, voice(1, 7))
			for i, seq := range tt.seqs {
				plain := voice(seq, 8)
				plain[20] = byte(i)
				v, _, sealed := b.put(inside, far, b.s.Local(nat.Server), plain)
				if v != stack.Forward {
					t.Fatalf("packet %d: %v", i, v)
				}
				// The ear checks replays: an index used twice fails here.
				got, err := b.ear.DecryptRTP(nil, sealed, nil)
				if err != nil {
					t.Fatalf("packet %d, sequence %d: the phone hears nothing: %v", i, seq, err)
				}
				if !bytes.Equal(got[12:], plain[12:]) || got[1] != plain[1] || !bytes.Equal(got[4:12], plain[4:12]) {
					t.Errorf("packet %d changed in more than its number", i)
				}
				if i == 0 && binary.BigEndian.Uint16(got[2:]) >= 1<<15 {
					t.Errorf("first number %d is not below 2^15", binary.BigEndian.Uint16(got[2:]))
				}
			}
		})
	}
}

// A phone whose first packet we see is already past a wrap.
func TestFirstPacketAfterWrap(t *testing.T) {
	b := newBench(t)
	for _, seq := range []uint16{65534, 65535} { // lost on the way
		if _, err := b.phone.EncryptRTP(nil, voice(seq, 7), nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range []uint16{0, 1, 2} {
		if v, _, got := b.speak(phone, voice(seq, 7)); v != stack.Forward || !bytes.Equal(got, voice(seq, 7)) {
			t.Errorf("sequence %d: %v", seq, v)
		}
	}
}

// Strangers' SSRCs leave no state, whatever their number.
func TestForgedSSRCs(t *testing.T) {
	b := newBench(t)
	b.speak(phone, voice(1, 7))
	for i := range 1000 {
		if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), voice(uint16(i), uint32(1000+i))); v != stack.DropSRTPAuth {
			t.Fatalf("forgery %d: %v", i, v)
		}
	}
	if n := len(b.s.legs[nat.Client].rx.streams); n != 1 {
		t.Errorf("%d streams are remembered, want 1", n)
	}
	if v, _, _ := b.speak(phone, voice(2, 7)); v != stack.Forward {
		t.Errorf("the phone afterwards: %v", v)
	}
	for i := range maxSealed + 10 {
		v, _, _ := b.put(inside, far, b.s.Local(nat.Server), voice(1, uint32(5000+i)))
		if want := i < maxSealed; (v == stack.Forward) != want {
			t.Fatalf("SSRC %d of the far end: %v", i, v)
		}
	}
}

func TestMalformed(t *testing.T) {
	b := newBench(t)
	for _, pay := range [][]byte{nil, {0x80}, make([]byte, 11), make([]byte, 200), bytes.Repeat([]byte{0xff}, 60)} {
		if v, _, _ := b.put(outside, phone, b.s.Local(nat.Client), pay); !v.Dropped() {
			t.Errorf("% x on the phone's leg: %v", pay[:min(len(pay), 8)], v)
		}
		if v, _, _ := b.put(inside, far, b.s.Local(nat.Server), pay); !v.Dropped() {
			t.Errorf("% x on the far leg: %v", pay[:min(len(pay), 8)], v)
		}
	}
}

func TestPorts(t *testing.T) {
	table, err := nat.NewTable(nat.TableConfig{Rand: rand.NewChaCha8([32]byte{1})})
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{Pinholes: table, Rand: rand.NewChaCha8([32]byte{2}), MinPort: 20001, MaxPort: 20008})
	var all []*Session
	seen := make(map[netip.AddrPort]bool)
	for i := range 3 { // 20002, 20004 and 20006 have a neighbour in range
		s, err := r.Open("x", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, start)
		if err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		for _, e := range []nat.End{nat.Client, nat.Server} {
			l := s.Local(e)
			if seen[l] || l.Port()%2 != 0 || l.Port() < 20002 || l.Port() > 20007 {
				t.Errorf("port %v: taken %t", l, seen[l])
			}
			seen[l] = true
		}
		all = append(all, s)
	}
	if _, err := r.Open("x", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, start); !errors.Is(err, ErrPorts) {
		t.Errorf("a fourth session: %v, want ErrPorts", err)
	}
	if n := table.Pinholes(); n != 12 {
		t.Errorf("%d pinholes, want 12", n)
	}
	all[1].Close()
	all[1].Close()
	if _, err := r.Open("x", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, start); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	r.Expire(start.Add(DefaultIdle - time.Second))
	if n := len(r.Sessions()); n != 3 {
		t.Errorf("%d sessions before the idle time, want 3", n)
	}
	r.Expire(start.Add(DefaultIdle))
	if n := len(r.Sessions()); n != 0 || table.Pinholes() != 0 || !all[0].Closed() {
		t.Errorf("%d sessions and %d pinholes after the idle time", n, table.Pinholes())
	}
	limited := New(Config{Pinholes: table, Rand: rand.NewChaCha8([32]byte{2}), MaxSessions: 1})
	limited.Open("x", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, start)
	if _, err := limited.Open("x", Side{mtaOut, outside, true}, Side{mtaIn, inside, false}, start); !errors.Is(err, ErrSessions) {
		t.Errorf("over the limit: %v, want ErrSessions", err)
	}
}

// FuzzHandlePacket sends anything to both legs: it must never leave the box as
// plain media of a secure leg, nor upset it.
func FuzzHandlePacket(f *testing.F) {
	f.Add(voice(1, 7), false)
	f.Add([]byte{0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 1, 2, 3, 4, 9, 9}, true)
	f.Add(bytes.Repeat([]byte{0x8f}, 40), false)
	b := newBench(f)
	f.Fuzz(func(t *testing.T, pay []byte, rtcp bool) {
		b.t = t
		if len(pay) > 1400 {
			return
		}
		to := func(e nat.End) netip.AddrPort {
			l := b.s.Local(e)
			if rtcp {
				return netip.AddrPortFrom(l.Addr(), l.Port()+1)
			}
			return l
		}
		if v, _, _ := b.put(outside, phone, to(nat.Client), pay); v == stack.Forward {
			t.Errorf("% x was taken without authentication", pay)
		}
		b.put(inside, far, to(nat.Server), pay)
		if v, _, _ := b.speak(phone, voice(uint16(b.now.Unix()), 7)); v != stack.Forward {
			t.Fatalf("the phone after that: %v", v)
		}
		b.now = b.now.Add(time.Second)
	})
}

// benchSessions makes n sessions and a sealed or plain packet for each, and
// carries one packet after the other.
func benchSessions(b *testing.B, n int, from nat.End) {
	bn := newBench(b)
	type flow struct {
		s     *Session
		phone *srtp.Context
		seq   uint16
	}
	var flows []flow
	for i := range n {
		bn.s = bn.open()
		bn.key(testKey(byte(i), inspect.AES_CM_128_SHA1_32), testKey(byte(i+9), inspect.AES_CM_128_SHA1_32))
		bn.s.SetRemote(nat.Server, far, true)
		bn.speak(phone, voice(0, 7))
		flows = append(flows, flow{bn.s, bn.phone, 0})
	}
	// Packets are prepared outside the clock, a window at a time.
	const window = 1024
	packets := make([]*stack.Packet, window)
	for i := range packets {
		packets[i] = stack.NewPacket(2048)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		b.StopTimer()
		k := min(window, b.N-done)
		for i := range k {
			fl := &flows[(done+i)%n]
			fl.seq++
			pay, src, dst, in := voice(fl.seq, 8), far, fl.s.Local(nat.Server), inside
			if from == nat.Client {
				pay, _ = fl.phone.EncryptRTP(nil, voice(fl.seq, 7), nil)
				src, dst, in = phone, fl.s.Local(nat.Client), outside
			}
			p := packets[i]
			p.Reset()
			p.SetData(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: src, Dst: dst}, pay))
			p.Time, p.In = bn.now, in
			p.Parse()
		}
		b.StartTimer()
		for _, p := range packets[:k] {
			c, end := bn.table.Claim(p)
			if v := c.Handle(p, end); v != stack.Forward {
				b.Fatal(v)
			}
		}
		done += k
	}
}

func BenchmarkFromPhone1(b *testing.B)    { benchSessions(b, 1, nat.Client) }
func BenchmarkFromPhone1000(b *testing.B) { benchSessions(b, 1000, nat.Client) }
func BenchmarkToPhone1(b *testing.B)      { benchSessions(b, 1, nat.Server) }
func BenchmarkToPhone1000(b *testing.B)   { benchSessions(b, 1000, nat.Server) }
