package appliance

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"patchbay/appliance/media"
	"patchbay/nat"
	"patchbay/stack"
)

// mediaSession opens a session with plain legs on the addresses of pl: what is
// under test is the way, not the cipher.
func mediaSession(t *testing.T, q *plane) *media.Session {
	t.Helper()
	r := media.New(media.Config{Pinholes: q.d.table, Rand: rand.NewChaCha8([32]byte{9})})
	out, ok1 := q.pl.mtaOn(q.pl.named("outside"))
	in, ok2 := q.pl.mtaOn(q.pl.named("inside"))
	if !ok1 || !ok2 {
		t.Fatal("no media termination address")
	}
	s, err := r.Open("x", out.side(false), in.side(false), q.now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func rtpPacket(src, dst netip.AddrPort) []byte {
	rtp := make([]byte, 172)
	rtp[0] = 0x80
	return stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: src, Dst: dst}, rtp)
}

// Whatever the UCM's side is told or tells, plain media does not leave by the
// phones' interface.
func TestMediaLeavesByItsInterface(t *testing.T) {
	q := newPlane(t, nil)
	s := mediaSession(t, q)
	from := netip.MustParseAddrPort(phone)
	s.SetRemote(nat.Client, from, true)
	for _, tt := range []struct {
		to   string
		want stack.Verdict
	}{
		{someHost + ":18000", stack.Forward},
		{"198.51.100.66:18000", stack.DropNoRoute}, // by outside, in the clear
		{boxOut + ":18000", stack.DropNoRoute},
	} {
		s.SetRemote(nat.Server, netip.MustParseAddrPort(tt.to), true)
		if v, p := q.admit("outside", rtpPacket(from, s.Local(nat.Client))); v != tt.want {
			t.Errorf("the far end at %s: %v by %v as %v, want %v", tt.to, v, p.Out, p.Flow(), tt.want)
		}
	}
}

// A media termination address for all interfaces takes a packet only where its
// source is: from outside nobody speaks as an inside phone.
func TestGlobalMediaForged(t *testing.T) {
	q := newPlane(t, func(s string) string {
		return strings.Replace(s, " address 10.20.0.20 interface inside\n address 203.0.113.20 interface outside\n", " address 192.0.2.20\n", 1)
	})
	s := mediaSession(t, q)
	far := netip.MustParseAddrPort(someHost + ":18000")
	from := netip.MustParseAddrPort(phone)
	s.SetRemote(nat.Client, from, true)
	s.SetRemote(nat.Server, far, true)
	for _, tt := range []struct {
		in       string
		src, dst netip.AddrPort
		want     stack.Verdict
	}{
		{"inside", far, s.Local(nat.Server), stack.Forward},
		{"outside", far, s.Local(nat.Server), stack.DropReversePath},
		{"outside", s.Local(nat.Client), s.Local(nat.Server), stack.DropReversePath},
		{"outside", from, s.Local(nat.Client), stack.Forward},
		{"inside", from, s.Local(nat.Client), stack.DropReversePath},
	} {
		if v, _ := q.admit(tt.in, rtpPacket(tt.src, tt.dst)); v != tt.want {
			t.Errorf("by %s from %v to %v: %v, want %v", tt.in, tt.src, tt.dst, v, tt.want)
		}
	}
}
