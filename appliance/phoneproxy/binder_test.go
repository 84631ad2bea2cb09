package phoneproxy

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/srtp/v2"

	"patchbay/appliance/media"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

var (
	outside = &stack.Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.2/24")}
	inside  = &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24")}

	mtaOut    = netip.MustParseAddr("203.0.113.20")
	mtaIn     = netip.MustParseAddr("10.20.0.20")
	phoneSig  = addr("198.51.100.7:49152") // the phone's TLS connection
	phoneRTP  = addr("198.51.100.7:20000")
	homeRTP   = addr("192.168.1.50:20000") // what a phone behind a home router says
	farRTP    = addr("10.20.0.50:18000")
	secureUCM = addr("203.0.113.10:2443")
	plainUCM  = addr("10.20.0.11:2000")
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A book is an AddressBook of a few names; port 0 finds the address.
type book map[netip.AddrPort]netip.AddrPort // by real

func (b book) Mapped(real netip.AddrPort) (netip.AddrPort, bool) {
	m, ok := b[real]
	return m, ok
}

func (b book) Real(mapped netip.AddrPort) (netip.AddrPort, bool) {
	for r, m := range b {
		if m == mapped {
			return r, true
		}
	}
	return netip.AddrPort{}, false
}

// A rig is a binder with a relay and a table of its own.
type rig struct {
	t     testing.TB
	b     *binder
	relay *media.Relay
	table *nat.Table
	now   time.Time
	log   bytes.Buffer
	p     *stack.Packet
	ssrc  uint32
}

func newRig(t testing.TB, sdes bool) *rig {
	t.Helper()
	table, err := nat.NewTable(nat.TableConfig{Rand: rand.NewChaCha8([32]byte{1})})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, table: table, now: start, p: stack.NewPacket(2048)}
	r.relay = media.New(media.Config{Pinholes: table, Rand: rand.NewChaCha8([32]byte{2})})
	r.b = &binder{
		device: "SEP0200C6336407", phone: phoneSig, global: secureUCM, asUCM: phoneSig, ucm: plainUCM,
		secure: 443, sdes: sdes, book: book{}, relay: r.relay,
		outside: media.Side{Addr: mtaOut, In: outside, Secure: true},
		inside:  media.Side{Addr: mtaIn, In: inside},
		rand:    rand.NewChaCha8([32]byte{3}), now: func() time.Time { return r.now },
		seen:    func(string) error { return nil },
		log:     slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		streams: make(map[streamKey]*stream),
	}
	return r
}

// media is Media that must work.
func (r *rig) media(m inspect.Media, from nat.End) inspect.Media {
	r.t.Helper()
	out, err := r.b.Media(m, from)
	if err != nil {
		r.t.Fatalf("Media(%v, %v): %v", m, from, err)
	}
	return out
}

func (r *rig) session() *media.Session {
	r.t.Helper()
	all := r.relay.Sessions()
	if len(all) != 1 {
		r.t.Fatalf("%d media sessions, want 1", len(all))
	}
	return all[0]
}

// put has a packet arrive at the relay and returns where it went, and what of
// it; no flow if it was dropped.
func (r *rig) put(in *stack.Interface, src, dst netip.AddrPort, payload []byte) (stack.Flow, []byte) {
	r.t.Helper()
	r.p.Reset()
	r.p.SetData(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: src, Dst: dst}, payload))
	r.p.Time, r.p.In = r.now, in
	if v := r.p.Parse(); v != stack.Forward {
		r.t.Fatalf("test packet: %v", v)
	}
	c, end := r.table.Claim(r.p)
	if c == nil || c.Handle(r.p, end) != stack.Forward {
		return stack.Flow{}, nil
	}
	return r.p.Flow(), bytes.Clone(r.p.Payload())
}

func voice(seq uint16, ssrc uint32) []byte {
	b := make([]byte, 172)
	b[0] = 0x80
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	for i := 12; i < len(b); i++ {
		b[i] = byte(int(seq) + i)
	}
	return b
}

func srtpContext(t testing.TB, k inspect.Key) *srtp.Context {
	t.Helper()
	pf := srtp.ProtectionProfileAes128CmHmacSha1_32
	if k.Suite == inspect.AES_CM_128_SHA1_80 {
		pf = srtp.ProtectionProfileAes128CmHmacSha1_80
	}
	c, err := srtp.CreateContext(k.Master[:], k.Salt[:], pf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// talks checks that both directions work: the phone sends with from and hears
// with toward, on the ports that were announced.
func (r *rig) talks(phone netip.AddrPort, from, toward inspect.Key, outsidePort, insidePort netip.AddrPort) {
	r.t.Helper()
	r.ssrc += 2
	plain := voice(100, r.ssrc)
	sealed, err := srtpContext(r.t, from).EncryptRTP(nil, plain, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	f, got := r.put(outside, phone, outsidePort, sealed)
	if want := (stack.Flow{Proto: stack.UDP, Src: insidePort, Dst: farRTP}); f != want || !bytes.Equal(got, plain) {
		r.t.Errorf("from the phone: %v, same bytes %v; want %v", f, bytes.Equal(got, plain), want)
	}
	plain = voice(200, r.ssrc+1)
	f, got = r.put(inside, farRTP, insidePort, plain)
	if want := (stack.Flow{Proto: stack.UDP, Src: outsidePort, Dst: phone}); f != want {
		r.t.Errorf("to the phone: %v, want %v", f, want)
		return
	}
	if open, err := srtpContext(r.t, toward).DecryptRTP(nil, got, nil); err != nil || !bytes.Equal(open, plain) {
		r.t.Errorf("to the phone: not what was sent: %v", err)
	}
}

func key(b byte, s inspect.Suite) inspect.Key {
	k := inspect.Key{Suite: s}
	for i := range k.Master {
		k.Master[i] = b + byte(i)
	}
	for i := range k.Salt {
		k.Salt[i] = b ^ byte(i*7)
	}
	return k
}

func TestSelf(t *testing.T) {
	b := &binder{global: secureUCM, asUCM: addr("10.20.0.200:49152")}
	if got := b.Self(nat.Client); got != b.asUCM {
		t.Errorf("the UCM knows the phone as %v, want %v", got, b.asUCM)
	}
	if got := b.Self(nat.Server); got != secureUCM {
		t.Errorf("the phone knows the UCM as %v, want %v", got, secureUCM)
	}
}

func TestSignal(t *testing.T) {
	b := &binder{
		phone: phoneSig, asUCM: addr("10.20.0.200:50001"), global: secureUCM, ucm: plainUCM, secure: 443,
		book: book{
			addr("10.20.0.12:2443"): addr("203.0.113.12:2443"), // a static address
			addr("10.20.0.12:0"):    addr("203.0.113.12:0"),
			addr("10.20.0.13:2443"): addr("203.0.113.2:3443"), // static PAT: one port of another address
			addr("10.20.0.14:8080"): addr("203.0.113.2:8081"), // and a service that is no signaling
		},
	}
	tests := []struct {
		name     string
		addr     string
		from     nat.End
		want     string
		oneWayOf string // what the answer becomes on the way back, if not addr
	}{
		{"the phone names the UCM", "203.0.113.10:2443", nat.Client, "10.20.0.11:2000", ""},
		{"without port", "203.0.113.10:0", nat.Client, "10.20.0.11:0", ""},
		{"the phone names itself", "198.51.100.7:49152", nat.Client, "10.20.0.200:50001", ""},
		{"itself without port", "198.51.100.7:0", nat.Client, "10.20.0.200:0", "10.20.0.200:0"},
		{"itself with a port of another kind", "198.51.100.7:6970", nat.Client, "198.51.100.7:6970", ""},
		{"another node of the cluster", "203.0.113.12:2443", nat.Client, "10.20.0.12:2000", ""},
		{"another node without port", "203.0.113.12:0", nat.Client, "10.20.0.12:0", ""},
		{"a node behind static PAT", "203.0.113.2:3443", nat.Client, "10.20.0.13:2000", ""},
		{"another service behind static PAT", "203.0.113.2:8081", nat.Client, "10.20.0.14:8080", ""},
		{"the UCM's mapped address, port that is not signaling", "203.0.113.10:9999", nat.Client, "203.0.113.10:9999", ""},
		{"a stranger", "192.0.2.1:5060", nat.Client, "192.0.2.1:5060", ""},

		{"the UCM names itself", "10.20.0.11:2000", nat.Server, "203.0.113.10:2443", ""},
		{"itself without port, UCM", "10.20.0.11:0", nat.Server, "203.0.113.10:0", ""},
		{"the UCM names the phone", "10.20.0.200:50001", nat.Server, "198.51.100.7:49152", ""},
		{"the UCM names another node", "10.20.0.12:2000", nat.Server, "203.0.113.12:2443", ""},
		{"another node without port, UCM", "10.20.0.12:0", nat.Server, "203.0.113.12:0", ""},
		{"a node behind static PAT, UCM", "10.20.0.13:2000", nat.Server, "203.0.113.2:3443", ""},
		{"another service behind static PAT, UCM", "10.20.0.14:8080", nat.Server, "203.0.113.2:8081", ""},
		{"a host that has no other name", "10.20.0.50:2000", nat.Server, "10.20.0.50:2000", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := b.Signal(addr(tt.addr), tt.from)
			if got != addr(tt.want) {
				t.Fatalf("Signal(%s, %v) = %v, want %s", tt.addr, tt.from, got, tt.want)
			}
			if tt.oneWayOf != "" {
				return
			}
			if back := b.Signal(got, tt.from.Other()); back != addr(tt.addr) {
				t.Errorf("and back: Signal(%v, %v) = %v, want %s", got, tt.from.Other(), back, tt.addr)
			}
		})
	}
}

// Skinny: the UCM opens the receiving channel first, or the transmission, and
// the keys are the box's own in either case.
func TestMediaSkinny(t *testing.T) {
	open := inspect.Media{Call: "7", Stream: "1"}
	transmit := inspect.Media{Call: "7", Stream: "1", Addr: farRTP}
	answer := inspect.Media{Call: "7", Stream: "1", Addr: homeRTP}
	type told struct {
		m    inspect.Media
		from nat.End
	}
	tests := []struct {
		name  string
		order []told
	}{
		{"receive, ack, transmit", []told{{open, nat.Server}, {answer, nat.Client}, {transmit, nat.Server}}},
		{"receive, transmit, ack", []told{{open, nat.Server}, {transmit, nat.Server}, {answer, nat.Client}}},
		{"transmit, receive, ack", []told{{transmit, nat.Server}, {open, nat.Server}, {answer, nat.Client}}},
		{"everything twice", []told{{open, nat.Server}, {open, nat.Server}, {answer, nat.Client}, {answer, nat.Client},
			{transmit, nat.Server}, {transmit, nat.Server}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, false)
			var toPhone, toUCM inspect.Media
			for _, x := range tt.order {
				out := r.media(x.m, x.from)
				if x.from == nat.Client {
					toUCM = out
					continue
				}
				if !toPhone.Tx.IsZero() && (out.Tx != toPhone.Tx || out.Rx != toPhone.Rx || out.Addr != toPhone.Addr) {
					t.Error("keys or address changed within a call")
				}
				toPhone = out
			}
			if toPhone.Tx.IsZero() || toPhone.Rx.IsZero() || toPhone.Tx == toPhone.Rx || !toPhone.Secure {
				t.Fatalf("the phone got keys %v and %v, secure %v", toPhone.Tx, toPhone.Rx, toPhone.Secure)
			}
			if toPhone.Tx.Suite != inspect.AES_CM_128_SHA1_32 {
				t.Errorf("suite %v", toPhone.Tx.Suite)
			}
			if want := (inspect.Media{Call: "7", Stream: "1", Addr: r.session().Local(nat.Server)}); toUCM != want {
				t.Errorf("the UCM is told %v, want %v", toUCM, want)
			}
			if a := toPhone.Addr.Addr(); a != mtaOut {
				t.Errorf("the phone is sent to %v, want %v", a, mtaOut)
			}
			// It says a private address, and sends from the router's.
			r.talks(phoneRTP, toPhone.Rx, toPhone.Tx, toPhone.Addr, toUCM.Addr)
		})
	}
}

// SIP: each end's key is its own; the suite is the phone's where it has said.
func TestMediaSIP(t *testing.T) {
	_32, _80 := inspect.AES_CM_128_SHA1_32, inspect.AES_CM_128_SHA1_80
	offer := func(k inspect.Key) inspect.Media {
		return inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP, Secure: true, Tx: k, Tag: "3"}
	}
	plain := inspect.Media{Call: "a", Stream: "0", Addr: farRTP}

	t.Run("phone offers", func(t *testing.T) {
		for _, suite := range []inspect.Suite{_32, _80} {
			r := newRig(t, true)
			k := key(1, suite)
			toUCM := r.media(offer(k), nat.Client)
			if toUCM.Secure || !toUCM.Tx.IsZero() || !toUCM.Rx.IsZero() || toUCM.Addr.Addr() != mtaIn {
				t.Errorf("%v: the UCM is told %v", suite, toUCM)
			}
			toPhone := r.media(plain, nat.Server)
			if !toPhone.Secure || toPhone.Tx.Suite != suite || toPhone.Tx == k || !toPhone.Rx.IsZero() {
				t.Errorf("%v: the phone is told %v, with keys %v and %v", suite, toPhone.Secure, toPhone.Tx, toPhone.Rx)
			}
			r.talks(phoneRTP, k, toPhone.Tx, toPhone.Addr, toUCM.Addr)
		}
	})
	t.Run("UCM offers", func(t *testing.T) {
		r := newRig(t, true)
		toPhone := r.media(plain, nat.Server)
		k := key(1, _32)
		toUCM := r.media(offer(k), nat.Client)
		r.talks(phoneRTP, k, toPhone.Tx, toPhone.Addr, toUCM.Addr)
	})
	t.Run("re-offer", func(t *testing.T) {
		r := newRig(t, true)
		k := key(1, _32)
		toUCM := r.media(offer(k), nat.Client)
		first := r.media(plain, nat.Server)
		if again := r.media(offer(k), nat.Client); again != toUCM {
			t.Errorf("the same key again: the UCM is told %v, want %v", again, toUCM)
		}
		if again := r.media(plain, nat.Server); again != first {
			t.Errorf("the same key again: the phone is told another key or address")
		}
		// A new key of the phone's, and a resume from a new port.
		k2 := key(50, _32)
		moved := offer(k2)
		moved.Addr = addr("198.51.100.7:20002")
		if again := r.media(moved, nat.Client); again != toUCM {
			t.Errorf("a new key: the UCM is told %v, want %v", again, toUCM)
		}
		second := r.media(plain, nat.Server)
		if second != first {
			t.Error("a new key of the phone's changed the box's")
		}
		r.now = r.now.Add(2 * time.Second)
		r.talks(moved.Addr, k2, second.Tx, second.Addr, toUCM.Addr)
		// Another suite changes both.
		k3 := key(90, _80)
		r.media(offer(k3), nat.Client)
		third := r.media(plain, nat.Server)
		if third.Tx.Suite != _80 || third.Addr != first.Addr {
			t.Errorf("after _80: suite %v at %v, want _80 at %v", third.Tx.Suite, third.Addr, first.Addr)
		}
		r.now = r.now.Add(2 * time.Second)
		r.talks(phoneRTP, k3, third.Tx, third.Addr, toUCM.Addr)
	})
}

// What is refused costs nothing: neither a port nor a place among the streams.
func TestMediaRefused(t *testing.T) {
	tests := []struct {
		name string
		sdes bool
		m    inspect.Media
		from nat.End
		err  error
	}{
		{"phone answers AVP", true, inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP}, nat.Client, errPlain},
		{"UCM offers SAVP", true, inspect.Media{Call: "a", Stream: "0", Addr: farRTP, Secure: true, Tx: key(1, inspect.AES_CM_128_SHA1_32)}, nat.Server, errSecureUCM},
		{"UCM orders encryption", false, inspect.Media{Call: "7", Stream: "1", Secure: true}, nat.Server, errSecureUCM},
		{"UCM sends a key to receive", false, inspect.Media{Call: "7", Stream: "1", Rx: key(1, inspect.AES_CM_128_SHA1_32)}, nat.Server, errSecureUCM},
		{"phone with a suite of nothing", true, inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP, Secure: true, Tx: inspect.Key{Suite: 99}}, nat.Client, inspect.ErrDrop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, tt.sdes)
			for i := range 2 * maxStreams {
				m := tt.m
				m.Call = fmt.Sprint(m.Call, i)
				if _, err := r.b.Media(m, tt.from); !errors.Is(err, tt.err) || !errors.Is(err, inspect.ErrDrop) {
					t.Fatalf("Media = %v, want %v that ends the message only", err, tt.err)
				}
			}
			if n, k := len(r.relay.Sessions()), len(r.b.streams); n != 0 || k != 0 {
				t.Errorf("%d media sessions and %d streams are left of what was refused", n, k)
			}
			r.media(inspect.Media{Call: "good", Stream: "0", Addr: farRTP}, nat.Server)
		})
	}
}

// A refusal in the middle of a call leaves the call as it was.
func TestMediaRefusedInCall(t *testing.T) {
	r := newRig(t, true)
	k := key(1, inspect.AES_CM_128_SHA1_32)
	toUCM := r.media(inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP, Secure: true, Tx: k}, nat.Client)
	toPhone := r.media(inspect.Media{Call: "a", Stream: "0", Addr: farRTP}, nat.Server)
	for _, m := range []struct {
		m    inspect.Media
		from nat.End
	}{
		{inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP}, nat.Client},
		{inspect.Media{Call: "a", Stream: "0", Addr: farRTP, Secure: true}, nat.Server},
	} {
		if _, err := r.b.Media(m.m, m.from); !errors.Is(err, inspect.ErrDrop) {
			t.Errorf("Media(%v) = %v", m.m, err)
		}
	}
	r.talks(phoneRTP, k, toPhone.Tx, toPhone.Addr, toUCM.Addr)
}

// Hold with c=0.0.0.0 from the UCM's side stops what is sent there, and the
// address after it resumes. The phone's latch stays.
func TestMediaHold(t *testing.T) {
	r := newRig(t, false)
	toPhone := r.media(inspect.Media{Call: "7", Stream: "1", Addr: farRTP}, nat.Server)
	toUCM := r.media(inspect.Media{Call: "7", Stream: "1", Addr: homeRTP}, nat.Client)
	phone := srtpContext(t, toPhone.Rx)
	say := func(seq uint16) stack.Flow {
		sealed, err := phone.EncryptRTP(nil, voice(seq, 9), nil)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := r.put(outside, phoneRTP, toPhone.Addr, sealed)
		return f
	}
	if f := say(1); f.Dst != farRTP {
		t.Fatalf("before hold: %v", f)
	}
	zero := netip.AddrPortFrom(netip.IPv4Unspecified(), farRTP.Port())
	held := r.media(inspect.Media{Call: "7", Stream: "1", Addr: zero}, nat.Server)
	if held.Tx != toPhone.Tx || held.Addr != toPhone.Addr {
		t.Error("hold changed key or address")
	}
	if f := say(2); f.Dst.IsValid() {
		t.Errorf("on hold: media still goes to %v", f.Dst)
	}
	r.media(inspect.Media{Call: "7", Stream: "1", Addr: farRTP}, nat.Server)
	if f := say(3); f.Dst != farRTP {
		t.Errorf("resumed: %v", f)
	}
	f, _ := r.put(inside, farRTP, toUCM.Addr, voice(1, 4))
	if f.Dst != phoneRTP {
		t.Errorf("resumed: voice goes to %v, want the latched %v", f.Dst, phoneRTP)
	}
}

// The RTCP port that the UCM's side names is used. (RFC 3605.)
func TestMediaRTCP(t *testing.T) {
	r := newRig(t, false)
	rtcp := addr("10.20.0.50:18777")
	toPhone := r.media(inspect.Media{Call: "7", Stream: "1", Addr: farRTP, RTCP: rtcp}, nat.Server)
	if toPhone.RTCP.IsValid() {
		t.Errorf("the phone is told of RTCP at %v", toPhone.RTCP)
	}
	report := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	sealed, err := srtpContext(t, toPhone.Rx).EncryptRTCP(nil, report, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, got := r.put(outside, phoneRTP, next(toPhone.Addr), sealed)
	if f.Dst != rtcp || !bytes.Equal(got, report) {
		t.Errorf("RTCP went to %v, want %v", f.Dst, rtcp)
	}
}

func next(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }

// A session that idled away is opened anew by the next announcement, with a
// new key toward the phone and all that was said before.
func TestMediaReopened(t *testing.T) {
	for _, first := range []nat.End{nat.Client, nat.Server} {
		t.Run(first.String()+" speaks first", func(t *testing.T) {
			r := newRig(t, true)
			k := key(1, inspect.AES_CM_128_SHA1_32)
			offer := inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP, Secure: true, Tx: k}
			plain := inspect.Media{Call: "a", Stream: "0", Addr: farRTP}
			r.media(offer, nat.Client)
			before := r.media(plain, nat.Server)
			r.talks(phoneRTP, k, before.Tx, before.Addr, r.session().Local(nat.Server))

			r.now = r.now.Add(media.DefaultIdle + time.Second)
			r.relay.Expire(r.now)
			if n := len(r.relay.Sessions()); n != 0 {
				t.Fatalf("%d sessions after the idle time", n)
			}
			var toUCM, toPhone inspect.Media
			if first == nat.Client {
				toUCM = r.media(offer, nat.Client)
				toPhone = r.media(plain, nat.Server)
			} else {
				toPhone = r.media(plain, nat.Server)
				toUCM = r.media(offer, nat.Client)
			}
			if toPhone.Tx == before.Tx {
				t.Error("the same key with numbers that start over")
			}
			r.session()
			r.talks(phoneRTP, k, toPhone.Tx, toPhone.Addr, toUCM.Addr)
		})
	}
}

func TestRelease(t *testing.T) {
	r := newRig(t, false)
	open := func(call, stream string) {
		r.media(inspect.Media{Call: call, Stream: stream, Addr: farRTP}, nat.Server)
	}
	r.b.Release("nothing", "")
	r.b.Release("", "")
	open("7", "1")
	open("7", "2")
	open("8", "1")
	r.b.Release("7", "9")
	r.b.Release("9", "1")
	if n := len(r.relay.Sessions()); n != 3 {
		t.Fatalf("%d sessions after releases of nothing, want 3", n)
	}
	r.b.Release("7", "1")
	r.b.Release("7", "1")
	if n := len(r.relay.Sessions()); n != 2 {
		t.Errorf("%d sessions after one of three was released", n)
	}
	r.b.Release("7", "")
	if n := len(r.relay.Sessions()); n != 1 {
		t.Errorf("%d sessions after call 7 was released, want 1", n)
	}
	// A call with the same reference is a new one, with new keys.
	first := r.media(inspect.Media{Call: "8", Stream: "1"}, nat.Server)
	r.b.Release("8", "1")
	if again := r.media(inspect.Media{Call: "8", Stream: "1"}, nat.Server); again.Tx == first.Tx || again.Rx == first.Rx {
		t.Error("a call after the call has its keys")
	}
	r.b.close()
	if n, k := len(r.relay.Sessions()), len(r.b.streams); n != 0 || k != 0 {
		t.Errorf("%d sessions and %d streams after close", n, k)
	}
	if n := r.table.Pinholes(); n != 0 {
		t.Errorf("%d pinholes are left", n)
	}
}

func TestStreamLimit(t *testing.T) {
	r := newRig(t, false)
	m := func(i int) inspect.Media { return inspect.Media{Call: "7", Stream: fmt.Sprint(i), Addr: farRTP} }
	for i := range maxStreams {
		r.media(m(i), nat.Server)
	}
	if _, err := r.b.Media(m(maxStreams), nat.Server); !errors.Is(err, inspect.ErrDrop) {
		t.Errorf("stream %d: %v, want it refused", maxStreams+1, err)
	}
	r.media(m(0), nat.Server) // one that is there is not refused
	r.b.Release("7", "0")
	r.media(m(maxStreams), nat.Server)
}

// Without a port left the call fails and the conversation goes on; it works
// again when one is free.
func TestNoPorts(t *testing.T) {
	r := newRig(t, false)
	r.b.relay = media.New(media.Config{Pinholes: r.table, Rand: rand.NewChaCha8([32]byte{2}), MinPort: 20000, MaxPort: 20003})
	m := func(s string) inspect.Media { return inspect.Media{Call: "7", Stream: s, Addr: farRTP} }
	r.media(m("1"), nat.Server)
	r.media(m("2"), nat.Server)
	if _, err := r.b.Media(m("3"), nat.Server); !errors.Is(err, media.ErrPorts) || !errors.Is(err, inspect.ErrDrop) {
		t.Errorf("third stream of two port pairs: %v", err)
	}
	r.b.Release("7", "1")
	r.media(m("3"), nat.Server)
}

// Chance that ends is an error, not a key of zeros, and nothing is left open.
func TestNoChance(t *testing.T) {
	r := newRig(t, false)
	r.b.rand = io.LimitReader(rand.NewChaCha8([32]byte{3}), 40) // a key and a third
	if out, err := r.b.Media(inspect.Media{Call: "7", Stream: "1", Addr: farRTP}, nat.Server); err == nil {
		t.Errorf("without chance: keys %v and %v", out.Tx, out.Rx)
	}
	if n := len(r.relay.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// No key appears in what is logged or printed, in any usual spelling.
func TestKeysAreHidden(t *testing.T) {
	r := newRig(t, true)
	k := key(1, inspect.AES_CM_128_SHA1_32)
	offer := inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP, Secure: true, Tx: k}
	r.media(offer, nat.Client)
	out := r.media(inspect.Media{Call: "a", Stream: "0", Addr: farRTP}, nat.Server)
	_, err := r.b.Media(inspect.Media{Call: "a", Stream: "0", Addr: phoneRTP}, nat.Client)
	text := r.log.String() + fmt.Sprintf("%v %+v %#v %v", out, out, out, err)
	if r.log.Len() == 0 {
		t.Error("nothing was logged")
	}
	for _, k := range []inspect.Key{k, out.Tx} {
		for _, spelled := range []string{
			hex.EncodeToString(k.Master[:]), hex.EncodeToString(k.Master[:4]), base64.StdEncoding.EncodeToString(k.Master[:])[:8],
			fmt.Sprint(k.Master[:])[1:12], fmt.Sprintf("% x", k.Master[:4]), fmt.Sprintf("%#v", k.Master[:4])[7:],
		} {
			if strings.Contains(strings.ToLower(text), strings.ToLower(spelled)) {
				t.Errorf("%q of a key is in %q", spelled, text)
			}
		}
	}
}
