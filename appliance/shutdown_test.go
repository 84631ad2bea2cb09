package appliance_test

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/appliance/lab"
	"patchbay/stack"
)

// In the middle of calls: Run returns nil, the UCM sees the connections closed,
// the phones too, and no goroutine is left (start looks).
func TestShutdown(t *testing.T) {
	b := start(t, setup{})
	var phones []*lab.Phone
	for _, proto := range []lab.Protocol{lab.SIP, lab.SCCP} {
		p, q := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
		b.call(p, q)
		phones = append(phones, p)
	}
	if n := len(b.app.MediaSessions()); n != 2 {
		t.Errorf("%d media sessions, want 2", n)
	}
	begin := time.Now()
	if err := b.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the box took %v to stop", took)
	}
	for _, p := range phones {
		b.eventually("the UCM still has "+p.Name(), func() bool {
			_, ok := b.lab.Manager.Registration(p.Name())
			return !ok
		})
		b.must(p.Wait(b.ctx, lab.Unregistered))
	}
	if m, h, s := len(b.app.MediaSessions()), b.app.Pinholes(), len(b.app.PhoneSessions()); m+h+s != 0 {
		t.Errorf("%d media sessions, %d pinholes, %d phones are left", m, h, s)
	}
	if err := b.app.Close(); err != nil {
		t.Errorf("Close after Run: %v", err)
	}
}

// A phone whose connection one end drops loses the other, and its media.
func TestDrop(t *testing.T) {
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		for _, who := range []string{"ucm", "phone"} {
			t.Run(fmt.Sprint(proto, " ", who), func(t *testing.T) {
				b := start(t, setup{})
				p, q := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
				b.call(p, q)
				if who == "ucm" {
					b.must(b.lab.Manager.Disconnect(p.Name()))
					b.must(p.Wait(b.ctx, lab.Unregistered))
				} else {
					b.must(p.Close())
				}
				b.eventually("the UCM still has the phone", func() bool {
					_, ok := b.lab.Manager.Registration(p.Name())
					return !ok
				})
				b.idle()
				b.eventually("the phone is still a session", func() bool { return len(b.app.PhoneSessions()) == 0 })
				if n := b.app.Pinholes(); n != 0 {
					t.Errorf("%d pinholes are left", n)
				}
				if who == "ucm" { // and comes back
					b.must(p.Register(b.ctx))
				}
			})
		}
	}
}

// What is sent to the ports of a call after it, or to ports of none, goes
// nowhere; and what a stranger sends during it does no harm.
func TestMediaOutsideOfCalls(t *testing.T) {
	var leaked atomic.Int64 // plain or secure media out of the box, while armed
	var armed atomic.Bool
	mta := netip.MustParseAddr("203.0.113.20")
	watch := func(raw []byte) bool {
		if armed.Load() && netip.AddrFrom4([4]byte(raw[12:16])) == mta && netip.AddrFrom4([4]byte(raw[16:20])) != mta {
			leaked.Add(1)
		}
		return true
	}
	b := start(t, setup{lab: lab.Options{OutsideFilter: watch}})
	p, q := b.up(lab.AtHome, lab.SCCP), b.up(lab.Inside, lab.SCCP)
	b.call(p, q)
	var in, out netip.AddrPort // our ends of the call
	for a := range q.Report().Sources {
		in = a
	}
	for a := range p.Report().Sources {
		out = a
	}
	if out.Addr() != mta || in.Addr() != netip.MustParseAddr("10.20.0.20") {
		t.Fatalf("media comes from %v and %v", out, in)
	}
	rtp := func(src string, dst netip.AddrPort, seq byte) []byte {
		payload := make([]byte, 172+4)
		payload[0], payload[3], payload[11] = 0x80, seq, 9
		return stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(src), Dst: dst}, payload)
	}
	// A stranger outside, as itself, as the phone, as the inside phone and as
	// the box, on the secure port and on the plain one.
	var forged [][]byte
	for i, src := range []string{"198.51.100.66:7000", "198.51.100.30:7000", "10.20.0.50:7000", "10.20.0.20:16384", "203.0.113.20:16384"} {
		forged = append(forged, rtp(src, out, byte(i)), rtp(src, in, byte(i)),
			rtp(src, netip.AddrPortFrom(out.Addr(), out.Port()+1), byte(i)))
	}
	before := q.Report().Malformed + q.Report().AuthFailures + p.Report().AuthFailures
	b.inject(b.lab.Internet, forged...)
	// And somebody on the LAN who is not the far end.
	b.inject(b.lab.LAN, rtp("10.20.0.66:7000", in, 1), rtp("10.20.0.66:7000", out, 1))
	b.heard(p, q)
	if n := q.Report().Malformed + q.Report().AuthFailures + p.Report().AuthFailures; n != before {
		t.Errorf("%d forged packets reached a phone", n-before)
	}
	if n := p.Report().Streams; n != 1 {
		t.Errorf("the phone heard %d streams", n)
	}
	b.must(p.HangUp(b.ctx))
	b.must(q.Wait(b.ctx, lab.Idle))
	b.idle()
	if n := b.app.Pinholes(); n != 0 {
		t.Errorf("%d pinholes are left", n)
	}

	armed.Store(true)
	var late [][]byte
	for i := range byte(20) {
		late = append(late, rtp("10.20.0.50:16384", in, i))
	}
	received := b.lab.LAN.Stats().Delivered.Load()
	b.inject(b.lab.LAN, late...)
	b.inject(b.lab.Internet, forged...)
	b.eventually("the box has not seen what came late", func() bool {
		return b.app.Drops()[stack.DropNoService] >= uint64(len(late))
	})
	if n := leaked.Load(); n != 0 {
		t.Errorf("%d packets of media left after the call", n)
	}
	if n := b.lab.LAN.Stats().Delivered.Load() - received; n > uint64(len(late))+50 {
		t.Errorf("%d packets on the LAN after the call", n)
	}
	b.honest()
}
