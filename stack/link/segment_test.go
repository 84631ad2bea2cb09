package link

import (
	"bytes"
	"math/rand"
	"net/netip"
	"testing"

	"patchbay/stack"
)

// superframe returns a frame with a TCP segment of n bytes of payload.
func superframe(n int, flags uint8) []byte {
	payload := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(payload)
	f := stack.Flow{Src: netip.MustParseAddrPort(ipPeer + ":5000"), Dst: netip.MustParseAddrPort(ipBox + ":2000")}
	h := stack.TCPHeader{Seq: 0xffffff00, Ack: 7, Flags: flags, Window: 500, MSS: 1460}
	b := append(append(append([]byte{}, macBox[:]...), macPeer[:]...), 8, 0)
	return stack.AppendTCP(b, f, h, payload)
}

func TestSegment(t *testing.T) {
	all := stack.FlagACK | stack.FlagFIN | stack.FlagPSH | stack.FlagCWR
	for _, n := range []int{1, 1456, 1457, 5000, 60_000} {
		frame := superframe(n, all)
		var s segmenter
		if !s.load(append(frame, 0, 0), 1500) {
			t.Fatalf("%d bytes: load refuses", n)
		}
		var got []byte
		for s.more() {
			piece := s.cut()
			p := stack.NewPacket(1500)
			if len(piece) > 1514 || !p.SetData(piece[14:]) || !bytes.Equal(piece[:14], frame[:14]) {
				t.Fatalf("%d bytes: piece % x", n, piece[:14])
			}
			p.ChecksumVouched = true
			if v := p.Parse(); v != stack.Forward {
				t.Fatalf("%d bytes: piece does not parse: %v", n, v)
			}
			if want := 0xffffff00 + uint32(len(got)); p.TCPSeq() != want {
				t.Errorf("%d bytes: seq %d, want %d", n, p.TCPSeq(), want)
			}
			want := stack.FlagACK
			if len(got) == 0 {
				want |= stack.FlagCWR
			}
			got = append(got, p.Payload()...)
			if len(got) == n {
				want |= stack.FlagFIN | stack.FlagPSH
			}
			if p.TCPFlags() != want {
				t.Errorf("%d bytes: flags %#x after %d bytes, want %#x", n, p.TCPFlags(), len(got), want)
			}
		}
		if !bytes.Equal(got, frame[14+44:]) {
			t.Errorf("%d bytes: the pieces have %d bytes, or others", n, len(got))
		}
	}
}

func TestSegmentRefuses(t *testing.T) {
	change := func(f func(b []byte)) []byte { b := superframe(3000, 0x10); f(b); return b }
	tests := []struct {
		name  string
		frame []byte
		mtu   int
	}{
		{"udp", ipFrame(macPeer, macBox, udp(t, ipPeer, ipBox, 3000)), 1500},
		{"short", superframe(0, 0x10)[:53], 1500},
		{"no payload", superframe(0, 0x10), 1500},
		{"arp", change(func(b []byte) { b[13] = 6 }), 1500},
		{"options", change(func(b []byte) { b[14] = 0x46 }), 1500},
		{"length beyond", change(func(b []byte) { b[16] = 0xff }), 1500},
		{"tcp offset beyond", superframeWith(12, 0xf0), 1500},
		{"tcp offset small", change(func(b []byte) { b[46] = 0x40 }), 1500},
		{"MTU below the headers", superframe(3000, 0x10), 44},
	}
	for _, tt := range tests {
		var s segmenter
		if s.load(tt.frame, tt.mtu) || s.more() {
			t.Errorf("%s: taken", tt.name)
		}
	}
}

// superframeWith returns a short segment whose TCP offset byte is off.
func superframeWith(n int, off byte) []byte {
	b := superframe(n, 0x10)
	b[46] = off
	return b
}

func FuzzSegment(f *testing.F) {
	f.Add(superframe(3000, 0x19), 1500)
	f.Add(superframe(100, 0x10), 68)
	f.Fuzz(func(t *testing.T, frame []byte, mtu int) {
		if len(frame) > 1<<16 || mtu > MaxMTU {
			return
		}
		var s segmenter
		if !s.load(frame, mtu) {
			return
		}
		for n := 0; s.more(); n++ {
			if len(s.cut()) > mtu+untagged || n > len(frame) {
				t.Fatal("a piece is too long, or there is no end of them")
			}
		}
	})
}
