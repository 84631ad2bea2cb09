package link

import (
	"net/netip"
	"testing"
	"time"
)

// Another station that answers for an address of ours, or announces it, is
// noticed; one that asks about it, or has another address, is not.
func TestConflict(t *testing.T) {
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	own, mta := netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("203.0.113.20")
	other := MAC{2, 0, 0, 0, 0, 0xee}
	dev, far := FramePair(1500, MAC{2, 0, 0, 0, 0, 1}, other, clock)
	e := NewEthernet(dev, Options{Now: clock})
	defer e.Close()
	defer far.Close()
	e.SetAddrs(netip.PrefixFrom(own, 24), func(a netip.Addr) bool { return a == mta })

	if err := e.Probe(mta); err != nil {
		t.Fatal(err)
	}
	err := far.ReadFrames(func(f *Frame) bool {
		b := f.Data[14:]
		if op, sender, target := b[7], netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28])); op != arpRequest || !sender.IsUnspecified() || target != mta {
			t.Errorf("Probe sent operation %d of %v for %v", op, sender, target)
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}

	says := NewEthernet(far, Options{Now: clock}) // only to make frames
	take := func(op uint16, dst MAC, sender netip.Addr, targetMAC MAC, target netip.Addr) {
		frame := says.arp(op, dst, sender, targetMAC, target)
		e.takeARP(frame[len(frame)-arpLen:], dst, now)
	}
	neighbour := netip.MustParseAddr("203.0.113.9")
	take(arpRequest, broadcast, neighbour, MAC{}, mta)
	take(arpRequest, broadcast, netip.IPv4Unspecified(), MAC{}, mta)
	take(arpReply, e.mac, neighbour, e.mac, own)
	take(arpRequest, broadcast, neighbour, MAC{}, neighbour)
	if got := e.Conflicts(); len(got) != 0 {
		t.Fatalf("Conflicts() = %v of an innocent station", got)
	}
	take(arpReply, e.mac, mta, e.mac, netip.IPv4Unspecified()) // the answer to a probe
	take(arpRequest, broadcast, own, MAC{}, own)               // an announcement
	take(arpRequest, broadcast, mta, MAC{}, neighbour)
	now = now.Add(3 * time.Second)
	want := []Conflict{{own, other, 3 * time.Second, 1}, {mta, other, 3 * time.Second, 2}}
	if got := e.Conflicts(); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("Conflicts() = %v, want %v", got, want)
	}

	e.SetAddrs(netip.PrefixFrom(own, 8), func(netip.Addr) bool { return true })
	a := netip.MustParseAddr("203.1.0.1")
	for range 2 * maxConflicts {
		take(arpRequest, broadcast, a, MAC{}, a)
		a = a.Next()
	}
	if got := e.Conflicts(); len(got) != maxConflicts {
		t.Errorf("%d conflicts are remembered, want %d", len(got), maxConflicts)
	}
}
