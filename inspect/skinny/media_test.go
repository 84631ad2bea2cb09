package skinny_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

var (
	phoneAddr = netip.MustParseAddrPort("198.51.100.7:20000")
	farAddr   = netip.MustParseAddrPort("10.20.0.77:30000")
)

// types is a set of payload types.
func types(list ...uint8) (p inspect.PayloadTypes) {
	for _, t := range list {
		p.Add(t)
	}
	return p
}

func comparer() cmp.Option { return cmpopts.EquateComparable(netip.AddrPort{}) }

// where is one form of a message: its version, the size of its data and the
// data offsets of its fields, as reference/skinny.md has them. -1 is none.
type where struct {
	version, size      int
	typ, addr, port    int
	block, blockLen    int
	conf, party, call  int
	status, rtcp, kind int
}

// build makes a message that carries the address and the ids of call 7, stream 9.
func (w where) build(id uint32, a netip.AddrPort) []byte {
	m := frame(id, uint32(w.version), w.size)
	set := func(off int, n uint32) {
		if off >= 0 {
			put(m, off, n)
		}
	}
	set(w.conf, 7)
	set(w.party, 9)
	set(w.call, 70)
	set(w.status, 0)
	set(w.kind, 1)
	set(w.rtcp, uint32(a.Port())+1)
	if w.block >= 0 {
		put(m, w.block, make([]byte, w.blockLen))
	}
	return w.put(m, a)
}

// put writes an address into a message of this form, in place.
func (w where) put(m []byte, a netip.AddrPort) []byte {
	if w.addr < 0 {
		return m
	}
	if w.typ >= 0 {
		put(m, w.typ, uint32(0))
	}
	return put(m, w.addr, a.Addr(), w.port, uint32(a.Port()))
}

// The forms of each message. (reference/skinny.md, sections 4.1 to 4.9.)
func narrowORC(version, size, block, blockLen, addr int) where {
	w := where{version, size, -1, addr, 104, block, blockLen, 0, 4, 24, -1, -1, -1}
	if size < 28 {
		w.call = -1
	}
	return w
}

func wideORC(version, size int) where {
	return where{version, size, 100, 104, 120, 28, 48, 0, 4, 24, -1, -1, -1}
}

var orcForms = []where{
	narrowORC(0, 24, -1, 0, -1), narrowORC(0, 28, -1, 0, -1), // CM 3
	narrowORC(0, 68, 28, 40, -1), narrowORC(5, 68, 28, 40, -1), // CM 4
	narrowORC(0, 76, 28, 48, -1), narrowORC(8, 92, 28, 48, -1), narrowORC(11, 92, 28, 48, -1), narrowORC(0, 92, 28, 48, -1),
	narrowORC(12, 108, 28, 48, 100), narrowORC(15, 108, 28, 48, 100), narrowORC(0, 108, 28, 48, 100), narrowORC(16, 108, 28, 48, 100),
	wideORC(16, 128), wideORC(0, 128), wideORC(17, 128), wideORC(18, 132), wideORC(19, 128), wideORC(20, 128), wideORC(20, 132), wideORC(21, 168), wideORC(22, 168),
}

var orcAckForms = []where{
	{0, 16, -1, 4, 8, -1, 0, -1, 12, -1, 0, -1, -1},
	{0, 20, -1, 4, 8, -1, 0, -1, 12, 16, 0, -1, -1},
	{8, 20, -1, 4, 8, -1, 0, -1, 12, 16, 0, -1, -1},
	{11, 20, -1, 4, 8, -1, 0, -1, 12, 16, 0, -1, -1},
	{16, 20, -1, 4, 8, -1, 0, -1, 12, 16, 0, -1, -1},
	{16, 36, 4, 8, 24, -1, 0, -1, 28, 32, 0, -1, -1},
	{0, 36, 4, 8, 24, -1, 0, -1, 28, 32, 0, -1, -1},
	{17, 32, 4, 8, 24, -1, 0, -1, 28, -1, 0, -1, -1},
	{17, 36, 4, 8, 24, -1, 0, -1, 28, 32, 0, -1, -1},
	{22, 36, 4, 8, 24, -1, 0, -1, 28, 32, 0, -1, -1},
}

func wideSMT(version, size int) where {
	return where{version, size, 8, 12, 28, 60, 48, 0, 4, 56, -1, -1, -1}
}

var smtForms = []where{
	{0, 44, -1, 8, 12, -1, 0, 0, 4, 40, -1, -1, -1}, // CM 3
	{0, 84, -1, 8, 12, 44, 40, 0, 4, 40, -1, -1, -1},
	{5, 84, -1, 8, 12, 44, 40, 0, 4, 40, -1, -1, -1},
	{8, 108, -1, 8, 12, 44, 48, 0, 4, 40, -1, -1, -1},
	{11, 108, -1, 8, 12, 44, 48, 0, 4, 40, -1, -1, -1},
	{0, 116, -1, 8, 12, 44, 48, 0, 4, 40, -1, -1, -1},
	{15, 116, -1, 8, 12, 44, 48, 0, 4, 40, -1, -1, -1},
	{16, 116, -1, 8, 12, 44, 48, 0, 4, 40, -1, -1, -1},
	wideSMT(16, 132), wideSMT(0, 132), wideSMT(17, 132), wideSMT(19, 132), wideSMT(20, 132), wideSMT(21, 168), wideSMT(22, 168),
}

var smtAckForms = []where{
	{0, 24, -1, 12, 16, -1, 0, 0, 4, 8, 20, -1, -1},
	{11, 24, -1, 12, 16, -1, 0, 0, 4, 8, 20, -1, -1},
	{16, 24, -1, 12, 16, -1, 0, 0, 4, 8, 20, -1, -1},
	{16, 40, 12, 16, 32, -1, 0, 0, 4, 8, 36, -1, -1},
	{0, 40, 12, 16, 32, -1, 0, 0, 4, 8, 36, -1, -1},
	{17, 40, 12, 16, 32, -1, 0, 0, 4, 8, 36, -1, -1},
	{20, 48, 12, 16, 32, -1, 0, 0, 4, 8, 36, -1, -1}, // 6901
	{22, 40, 12, 16, 32, -1, 0, 0, 4, 8, 36, -1, -1},
}

var failureForms = []where{
	{0, 20, -1, 8, 12, -1, 0, 0, 4, 16, -1, -1, -1},
	{15, 20, -1, 8, 12, -1, 0, 0, 4, 16, -1, -1, -1},
	{16, 36, 8, 12, 28, -1, 0, 0, 4, 32, -1, -1, -1},
	{17, 36, 8, 12, 28, -1, 0, 0, 4, 32, -1, -1, -1},
	{22, 36, 8, 12, 28, -1, 0, 0, 4, 32, -1, -1, -1},
}

var portForms = []where{
	{11, 24, -1, 12, 16, -1, 0, 0, 8, 4, -1, 20, -1},
	{16, 24, -1, 12, 16, -1, 0, 0, 8, 4, -1, 20, -1},
	{17, 40, 12, 16, 32, -1, 0, 0, 8, 4, -1, 36, -1},
	{19, 44, 12, 16, 32, -1, 0, 0, 8, 4, -1, 36, 40},
	{22, 44, 12, 16, 32, -1, 0, 0, 8, 4, -1, 36, 40},
}

var videoORCForms = []where{
	{0, 164, -1, -1, -1, 108, 48, 0, 4, 16, -1, -1, -1},
	{12, 172, -1, 164, 168, 108, 48, 0, 4, 16, -1, -1, -1},
	{16, 172, -1, 164, 168, 108, 48, 0, 4, 16, -1, -1, -1},
	{16, 192, 164, 168, 184, 108, 48, 0, 4, 16, -1, -1, -1},
	{17, 192, 164, 168, 184, 108, 48, 0, 4, 16, -1, -1, -1},
	{22, 192, 164, 168, 184, 108, 48, 0, 4, 16, -1, -1, -1},
}

var videoSMTForms = []where{
	{0, 168, -1, 12, 16, 112, 48, 0, 4, 20, -1, -1, -1},
	{15, 168, -1, 12, 16, 112, 48, 0, 4, 20, -1, -1, -1},
	{16, 184, 12, 16, 32, 128, 48, 0, 4, 36, -1, -1, -1},
	{17, 184, 12, 16, 32, 128, 48, 0, 4, 36, -1, -1, -1},
	{22, 184, 12, 16, 32, 128, 48, 0, 4, 36, -1, -1, -1},
}

func forms(t *testing.T, name string, list []where, test func(t *testing.T, w where)) {
	t.Helper()
	for _, w := range list {
		t.Run(fmt.Sprintf("%s v%d %d bytes", name, w.version, w.size), func(t *testing.T) { test(t, w) })
	}
}

// asked checks the Binder's last question.
func asked(t *testing.T, b *box, want inspect.Media, from nat.End) {
	t.Helper()
	if len(b.media) == 0 {
		t.Fatal("Binder was not asked")
	}
	last := len(b.media) - 1
	if diff := cmp.Diff(want, b.media[last], comparer()); diff != "" || b.from[last] != from {
		t.Errorf("Media from %v, want %v: %s", b.from[last], from, diff)
	}
}

var stream79 = inspect.Media{Call: "7", Stream: "9"}

func withAddr(m inspect.Media, a netip.AddrPort) inspect.Media {
	m.Addr = a
	return m
}

func testOpenReceive(id uint32) func(t *testing.T, w where) {
	return func(t *testing.T, w where) {
		for _, keys := range []bool{false, true} {
			b := &box{keys: keys}
			s := skinny.Engine{Video: true}.NewSession(b)
			msg := w.build(id, farAddr)
			want := w.put(clone(msg), mapped(netip.AddrPort{}, nat.Server))
			if keys && w.block >= 0 {
				put(want, w.block, block(toPhone, w.blockLen))
			}
			compare(t, pass(t, s, msg, nat.Server), want)
			asked(t, b, stream79, nat.Server)
		}
		// A Binder that does not know where to receive yet, and a source
		// that says nothing.
		s := skinny.Engine{Video: true}.NewSession(&box{mute: true})
		msg := w.build(id, farAddr)
		compare(t, pass(t, s, msg, nat.Server), w.put(clone(msg), netip.AddrPortFrom(netip.IPv4Unspecified(), 0)))
		msg = w.build(id, netip.AddrPortFrom(netip.IPv4Unspecified(), 4000))
		compare(t, pass(t, skinny.Engine{Video: true}.NewSession(&box{}), msg, nat.Server), msg)
	}
}

func testStartTransmission(id uint32) func(t *testing.T, w where) {
	return func(t *testing.T, w where) {
		for _, keys := range []bool{false, true} {
			b := &box{keys: keys}
			s := skinny.Engine{Video: true}.NewSession(b)
			msg := w.build(id, farAddr)
			want := w.put(clone(msg), mapped(farAddr, nat.Server))
			if keys && w.block >= 0 {
				put(want, w.block, block(fromPhone, w.blockLen))
			}
			compare(t, pass(t, s, msg, nat.Server), want)
			asked(t, b, withAddr(stream79, farAddr), nat.Server)
		}
		// A Binder without an answer leaves the address; so does 0.0.0.0.
		msg := w.build(id, farAddr)
		compare(t, pass(t, skinny.Engine{Video: true}.NewSession(&box{mute: true}), msg, nat.Server), msg)
		b := &box{}
		msg = w.build(id, netip.AddrPortFrom(netip.IPv4Unspecified(), 4000))
		compare(t, pass(t, skinny.Engine{Video: true}.NewSession(b), msg, nat.Server), msg)
		asked(t, b, stream79, nat.Server)
	}
}

func testAck(id uint32, open []byte) func(t *testing.T, w where) {
	return func(t *testing.T, w where) {
		b := &box{}
		s := skinny.Engine{Video: true}.NewSession(b)
		pass(t, s, open, nat.Server)
		msg := w.build(id, phoneAddr)
		compare(t, pass(t, s, msg, nat.Client), w.put(clone(msg), mapped(phoneAddr, nat.Client)))
		asked(t, b, withAddr(stream79, phoneAddr), nat.Client)
		// The other way it means nothing.
		n := len(b.media)
		compare(t, pass(t, s, msg, nat.Server), msg)
		if len(b.media) != n {
			t.Errorf("Binder was asked for a message from the wrong end")
		}
	}
}

func TestMediaMessages(t *testing.T) {
	forms(t, "OpenReceiveChannel", orcForms, testOpenReceive(0x105))
	forms(t, "OpenMultiMediaReceiveChannel", videoORCForms, testOpenReceive(0x131))
	forms(t, "StartMediaTransmission", smtForms, testStartTransmission(0x8a))
	forms(t, "StartMultiMediaTransmission", videoSMTForms, testStartTransmission(0x132))
	forms(t, "OpenReceiveChannelAck", orcAckForms, testAck(0x22, wideORC(17, 128).build(0x105, farAddr)))
	forms(t, "OpenMultiMediaReceiveChannelAck", orcAckForms, testAck(0x31, videoORCForms[0].build(0x131, farAddr)))
	forms(t, "StartMediaTransmissionAck", smtAckForms, testAck(0x154, wideSMT(17, 132).build(0x8a, farAddr)))
	forms(t, "StartMultiMediaTransmissionAck", smtAckForms, testAck(0x155, videoSMTForms[0].build(0x132, farAddr)))
	forms(t, "MediaTransmissionFailure", failureForms, func(t *testing.T, w where) {
		b := &box{}
		s := skinny.Engine{}.NewSession(b)
		pass(t, s, wideSMT(17, 132).build(0x8a, farAddr), nat.Server)
		msg := w.build(0x2a, mapped(farAddr, nat.Server))
		compare(t, pass(t, s, msg, nat.Client), w.put(clone(msg), farAddr))
		put(msg, 4, uint32(0xfffffffc)) // found by the address
		compare(t, pass(t, s, msg, nat.Client), w.put(clone(msg), farAddr))
		never := netip.MustParseAddrPort("203.0.113.99:7")
		msg = w.build(0x2a, never)
		compare(t, pass(t, s, msg, nat.Client), w.put(clone(msg), renamed(never)))
	})
	forms(t, "PortResponse", portForms, func(t *testing.T, w where) {
		b := &box{}
		s := skinny.Engine{}.NewSession(b)
		msg := w.build(0x45, phoneAddr)
		compare(t, pass(t, s, msg, nat.Client), msg) // nobody asked
		pass(t, s, put(frame(0x14b, 17, 24), 0, uint32(7), 4, uint32(70), 8, uint32(9), 20, uint32(1)), nat.Server)
		want := w.put(clone(msg), mapped(phoneAddr, nat.Client))
		put(want, w.rtcp, uint32(mapped(phoneAddr, nat.Client).Port())+1)
		compare(t, pass(t, s, msg, nat.Client), want)
		asked(t, b, withAddr(stream79, phoneAddr), nat.Client)

		put(msg, w.rtcp, uint32(40001)) // elsewhere
		put(want, w.rtcp, uint32(mapped(phoneAddr, nat.Client).Port())+1)
		compare(t, pass(t, s, msg, nat.Client), want)
		m := withAddr(stream79, phoneAddr)
		m.RTCP = netip.MustParseAddrPort("198.51.100.7:40001")
		asked(t, b, m, nat.Client)

		put(msg, w.rtcp, uint32(0)) // none
		put(want, w.rtcp, uint32(0))
		compare(t, pass(t, s, msg, nat.Client), want)
	})
}

// TestGolden has the frames of reference/skinny.md, section 10.
func TestGolden(t *testing.T) {
	b := &box{keys: true}
	s := skinny.Engine{}.NewSession(b)

	orc := unhex(t, `84000000 11000000 05010000 ecbc6801 07000001 14000000 04000000 00000000 00000000 ecbc6801`+
		strings.Repeat("00", 48)+
		`00000000 00000000 00000000 0a000000 00000000 00000000 00000000 c0a8092c 00000000 00000000 00000000 a00f0000 00000000`)
	want := clone(orc)
	copy(want[40:], unhex(t, `01000000 1000 0e00 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf b0b1b2b3b4b5b6b7b8b9babbbcbd 0000 00000000 00000000`))
	copy(want[12+104:], []byte{203, 0, 113, 20})
	copy(want[12+120:], []byte{0, 0x40, 0, 0})
	compare(t, pass(t, s, orc, nat.Server), want)
	asked(t, b, inspect.Media{Call: "23641324", Stream: "16777223", Types: types(0, 13)}, nat.Server)

	// The ack is of another call in the reference: answer to that.
	pass(t, s, put(wideORC(20, 128).build(0x105, farAddr), 4, uint32(0x0100004f), 24, uint32(0x012e364a)), nat.Server)
	ack := unhex(t, `28000000 14000000 22000000 00000000 00000000 c0a8c33a 000000000000000000000000 907d0000 4f000001 4a362e01`)
	want = clone(ack)
	copy(want[12+8:], []byte{10, 20, 0, 1})
	copy(want[12+24:], []byte{0x90, 0x3d, 0, 0})
	compare(t, pass(t, s, ack, nat.Client), want)
	asked(t, b, inspect.Media{Call: "7", Stream: "16777295", Addr: netip.MustParseAddrPort("192.168.195.58:32144")}, nat.Client)

	smt := unhex(t, `58000000 00000000 8a000000 1f000001 01010001 0a66db1b 1aeb0000 14000000 04000000 b8000000 00000000 00000000 00000000 1f000001`+
		strings.Repeat("00", 40))
	want = clone(smt)
	copy(want[12+8:], []byte{203, 0, 113, 20, 0x1a, 0xab, 0, 0})
	copy(want[12+44:], unhex(t, `01000000 1000 0e00 505152535455565758595a5b5c5d5e5f 606162636465666768696a6b6c6d 0000`))
	compare(t, pass(t, s, smt, nat.Server), want)
	asked(t, b, inspect.Media{Call: "16777247", Stream: "16777473", Addr: netip.MustParseAddrPort("10.102.219.27:60186"), Types: types(0, 13)}, nat.Server)
}

// TestUCMKeys passes the UCM's own encryption to the Binder.
func TestUCMKeys(t *testing.T) {
	weird := block(toPhone, 48)
	weird[0] = 6
	shortKey := block(toPhone, 48)
	shortKey[4] = 8
	tests := []struct {
		name  string
		block []byte
		key   inspect.Key
	}{
		{"32 bit tag", block(toPhone, 48), toPhone},
		{"80 bit tag", block(testKey(inspect.AES_CM_128_SHA1_80, 9), 48), testKey(inspect.AES_CM_128_SHA1_80, 9)},
		{"algorithm we do not know", weird, inspect.Key{}},
		{"short key", shortKey, inspect.Key{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			b := &box{}
			s := skinny.Engine{Log: slog.New(slog.NewTextHandler(&log, nil))}.NewSession(b)
			orc := put(wideORC(17, 128).build(0x105, farAddr), 28, tt.block)
			// A Binder that returns no key leaves the block as it is.
			compare(t, pass(t, s, orc, nat.Server), wideORC(17, 128).put(clone(orc), mapped(netip.AddrPort{}, nat.Server)))
			asked(t, b, inspect.Media{Call: "7", Stream: "9", Secure: true, Tx: tt.key}, nat.Server)

			smt := put(wideSMT(17, 132).build(0x8a, farAddr), 60, tt.block)
			b.keys = true
			compare(t, pass(t, s, smt, nat.Server),
				put(wideSMT(17, 132).put(clone(smt), mapped(farAddr, nat.Server)), 60, block(fromPhone, 48)))
			asked(t, b, inspect.Media{Call: "7", Stream: "9", Addr: farAddr, Secure: true, Rx: tt.key}, nat.Server)

			if unknown := tt.key.IsZero(); strings.Contains(log.String(), "not supported") != unknown {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

func TestNoBlock(t *testing.T) {
	var log bytes.Buffer
	s := skinny.Engine{Log: slog.New(slog.NewTextHandler(&log, nil))}.NewSession(&box{keys: true})
	msg := orcForms[0].build(0x105, farAddr)
	compare(t, pass(t, s, msg, nat.Server), msg)
	if !strings.Contains(log.String(), "no encryption block") {
		t.Errorf("log: %s", log.String())
	}
}

// TestAddressTypes has the types of the wide form other than IPv4.
func TestAddressTypes(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::7")
	four := append([]byte{198, 51, 100, 7}, make([]byte, 12)...)
	in4, in6 := append([]byte{10, 20, 0, 1}, make([]byte, 12)...), six.AsSlice()
	tests := []struct {
		name  string
		typ   uint32
		addr  []byte // 16
		asked netip.Addr
		want  []byte
	}{
		{"IPv6", 1, in6, six, in4},
		{"IPv4 in IPv6", 1, netip.MustParseAddr("::ffff:198.51.100.7").AsSlice(), phoneAddr.Addr(), in4},
		{"both", 2, four, phoneAddr.Addr(), in4},
		{"invalid", 3, four, netip.Addr{}, nil},
		{"garbage", 0xdeadbeef, four, netip.Addr{}, nil},
		{"::", 1, make([]byte, 16), netip.Addr{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &box{}
			s := skinny.Engine{}.NewSession(b)
			pass(t, s, wideORC(17, 128).build(0x105, farAddr), nat.Server)
			msg := put(orcAckForms[8].build(0x22, phoneAddr), 4, tt.typ, 8, tt.addr)
			want := clone(msg)
			if tt.want != nil {
				put(want, 4, uint32(0), 8, tt.want, 24, uint32(mapped(phoneAddr, nat.Client).Port()))
			}
			compare(t, pass(t, s, msg, nat.Client), want)
			if tt.asked.IsValid() {
				asked(t, b, withAddr(stream79, netip.AddrPortFrom(tt.asked, phoneAddr.Port())), nat.Client)
			} else if len(b.media) != 1 {
				t.Errorf("Binder was asked %v", b.media[1:])
			}
		})
	}
}

// six is a Binder that answers with an IPv6 address.
type six struct{ *box }

func (b six) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	m.Addr = netip.MustParseAddrPort("[2001:db8::20]:20000")
	return m, nil
}

func TestIPv6Answer(t *testing.T) {
	s := skinny.Engine{}.NewSession(six{&box{}})
	msg := wideSMT(17, 132).build(0x8a, farAddr)
	want := put(clone(msg), 8, uint32(1), 12, netip.MustParseAddr("2001:db8::20"), 28, uint32(20000))
	compare(t, pass(t, s, msg, nat.Server), want)
	// The narrow form has no room for it.
	if _, err := s.Inspect(nil, smtForms[3].build(0x8a, farAddr), nat.Server); !errors.Is(err, inspect.ErrDrop) {
		t.Errorf("Inspect = %v, want it dropped", err)
	}
}

// TestBadPort: without a port only the address is hidden, and a port that is
// none makes the address say nothing.
func TestBadPort(t *testing.T) {
	b := &box{}
	s := skinny.Engine{}.NewSession(b)
	pass(t, s, wideORC(17, 128).build(0x105, farAddr), nat.Server)
	ack := orcAckForms[8]
	for _, port := range []uint32{0x10000, 0xffffffff} {
		msg := put(ack.build(0x22, phoneAddr), 24, port)
		compare(t, pass(t, s, msg, nat.Client), msg)
	}
	if len(b.media) != 1 {
		t.Errorf("Binder was asked %v", b.media[1:])
	}
	msg := put(ack.build(0x22, phoneAddr), 24, uint32(0))
	want := put(clone(msg), 8, inside)
	compare(t, pass(t, s, msg, nat.Client), want)
	asked(t, b, stream79, nat.Client)
	pass(t, s, ack.build(0x22, phoneAddr), nat.Client)
	asked(t, b, withAddr(stream79, phoneAddr), nat.Client)
	n := len(b.media)
	compare(t, pass(t, s, msg, nat.Client), want)
	compare(t, pass(t, s, put(clone(msg), 28, uint32(0)), nat.Client), put(clone(want), 28, uint32(0)))
	if len(b.media) != n {
		t.Errorf("Binder was asked %v", b.media[n:])
	}
}

func TestMediaRefused(t *testing.T) {
	full := errors.New("no port is left")
	b := &box{err: full}
	s := skinny.Engine{}.NewSession(b)
	for _, msg := range [][]byte{wideORC(17, 128).build(0x105, farAddr), wideSMT(17, 132).build(0x8a, farAddr)} {
		got, err := s.Inspect([]byte{1}, msg, nat.Server)
		if !errors.Is(err, full) || !errors.Is(err, inspect.ErrDrop) || len(got) != 1 {
			t.Errorf("Inspect = % x, %v", got, err)
		}
	}
	if diff := cmp.Diff([]string{"release 7/9", "release 7/9"}, b.calls); diff != "" {
		t.Error(diff)
	}
}

func TestVideoOff(t *testing.T) {
	var log bytes.Buffer
	b := &box{keys: true}
	s := skinny.Engine{Log: slog.New(slog.NewTextHandler(&log, nil))}.NewSession(b)
	for _, msg := range [][]byte{videoORCForms[4].build(0x131, farAddr), videoSMTForms[3].build(0x132, farAddr),
		frame(0x101, 17, 52), frame(0x102, 17, 60),
		put(frame(0x14b, 19, 24), 20, uint32(2))} {
		compare(t, pass(t, s, msg, nat.Server), msg)
	}
	for _, msg := range [][]byte{orcAckForms[8].build(0x31, phoneAddr), smtAckForms[5].build(0x155, phoneAddr), portForms[3].build(0x45, phoneAddr)} {
		compare(t, pass(t, s, msg, nat.Client), msg)
	}
	if len(b.media) != 0 {
		t.Errorf("Binder was asked %v", b.media)
	}
	if n := strings.Count(log.String(), "video is not relayed"); n != 2 {
		t.Errorf("%d notes on video: %s", n, log.String())
	}
	if n := strings.Count(log.String(), "multicast media is not relayed"); n != 2 {
		t.Errorf("%d notes on multicast: %s", n, log.String())
	}
}

// TestNoKeyLogged looks for key bytes in everything the engine says.
func TestNoKeyLogged(t *testing.T) {
	var log bytes.Buffer
	s := skinny.Engine{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}.NewSession(&box{err: errors.New("refused")})
	secret := block(toPhone, 48)
	secret[0] = 5
	_, err := s.Inspect(nil, put(wideSMT(17, 132).build(0x8a, farAddr), 60, secret), nat.Server)
	text := log.String() + fmt.Sprint(err) + fmt.Sprintf("%#v %v", toPhone, toPhone)
	for _, hidden := range []string{"a0a1a2", "160 161", "0xa0, 0xa1"} {
		if strings.Contains(text, hidden) {
			t.Errorf("%q in %q", hidden, text)
		}
	}
	if !strings.Contains(log.String(), "algorithm=5") {
		t.Errorf("log: %s", log.String())
	}
}

func BenchmarkKeepAlive(b *testing.B) {
	s := skinny.Engine{}.NewSession(quiet{})
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Inspect(dst, keepAlive, nat.Client); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStartMediaTransmission(b *testing.B) {
	s := skinny.Engine{}.NewSession(quiet{})
	msg := wideSMT(17, 132).build(0x8a, farAddr)
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		if _, err := s.Inspect(dst, msg, nat.Server); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	data := bytes.Repeat(keepAlive, 100)
	binary.LittleEndian.PutUint32(data, 4)
	b.ReportAllocs()
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			n, _, err := skinny.Engine{}.Split(rest, false)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}

// quiet is a Binder that answers and keeps nothing.
type quiet struct{}

func (quiet) Self(nat.End) netip.AddrPort                          { return netip.AddrPort{} }
func (quiet) Signal(a netip.AddrPort, from nat.End) netip.AddrPort { return a }
func (quiet) Release(call, stream string)                          {}
func (quiet) Seen(string) error                                    { return nil }
func (quiet) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	m.Addr, m.Tx, m.Rx = mapped(m.Addr, from), toPhone, fromPhone
	return m, nil
}
