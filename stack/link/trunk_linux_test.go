package link

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

// A subif is one of several links on pb0, and another on the far end of it.
type subif struct {
	vlan      uint16
	mtu       int // of the box's
	box, peer string
	near, far *Ethernet
	in, back  *reader
}

// open opens both ends.
func (s *subif) open(t *testing.T, name string, here, there *Devices, far netns.NsHandle) {
	t.Helper()
	end := func(d *Devices, name string, mtu int, addr string) (*Ethernet, *reader) {
		l, err := d.Open(name, Options{VLAN: s.vlan, MTU: mtu})
		if errors.Is(err, unix.EAFNOSUPPORT) {
			t.Skip("needs packet sockets, or AF_XDP: ", err)
		}
		must(t, err)
		t.Cleanup(func() { l.Close() })
		e := l.(*Ethernet)
		e.SetAddrs(netip.MustParsePrefix(addr+"/24"), nil)
		if s.vlan == 20 {
			e.forOthers = nil // this one shows that the kernel's filter alone will do
		}
		return e, read(l)
	}
	s.near, s.in = end(here, name, s.mtu, s.box)
	within(t, far, func() { s.far, s.back = end(there, "packet:peer0", 0, s.peer) })
}

// exchange sends from each end to the other, by addresses that ARP finds.
func (s *subif) exchange(t *testing.T) {
	t.Helper()
	const many = 100
	for range many {
		must(t, s.far.Write([]*stack.Packet{udp(t, s.peer, s.box, 100)}))
		// Three wait for one neighbour; do not outrun ARP.
		if p, _ := s.in.next(t, stack.UDP); p.Flow().Dst.Addr().String() != s.box {
			t.Fatalf("VLAN %d got %v", s.vlan, p)
		}
	}
	must(t, s.near.Write([]*stack.Packet{udp(t, s.box, s.peer, s.mtu-28)})) // as long as it takes
	if p, _ := s.back.next(t, stack.UDP); p.Len() != s.mtu || p.Flow().Dst.Addr().String() != s.peer {
		t.Errorf("VLAN %d: the peer got %v, want %d bytes", s.vlan, p, s.mtu)
	}
}

// TestSubinterfaces: the parent and two VLANs on one device, each with its own
// frames and ARP, and the device taken from the kernel once.
func TestSubinterfaces(t *testing.T) {
	for _, d := range deviceDrivers {
		t.Run(d.name, func(t *testing.T) { testSubinterfaces(t, d.before+"pb0"+d.after) })
	}
}

func testSubinterfaces(t *testing.T, name string) {
	ns := namespaces(t, 1)
	far := ns[1]
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pb0"}, PeerName: "peer0"}))
	must(t, netlink.LinkSetNsFd(device(t, "peer0"), int(far)))
	before := device(t, "pb0").Attrs()

	var devices, there Devices
	subs := []*subif{
		{vlan: 0, mtu: 1400, box: ipBox, peer: ipPeer},
		{vlan: 20, mtu: 1500, box: "10.21.0.1", peer: "10.21.0.7"},
		{vlan: 30, mtu: 1300, box: "10.22.0.1", peer: "10.22.0.7"},
	}
	for _, s := range subs {
		s.open(t, name, &devices, &there, far)
		if s.near.MTU() != s.mtu {
			t.Errorf("VLAN %d: MTU %d, want %d", s.vlan, s.near.MTU(), s.mtu)
		}
	}
	if mtu := device(t, "pb0").Attrs().MTU; mtu != 1500 {
		t.Errorf("the device has MTU %d, want the largest of its users, 1500", mtu)
	}
	for _, s := range subs {
		s.exchange(t)
	}
	// A longer packet than the link itself would send arrives all the same.
	must(t, subs[2].far.Write([]*stack.Packet{udp(t, subs[2].peer, subs[2].box, 1472)}))
	if p, _ := subs[2].in.next(t, stack.UDP); p.Len() != 1500 {
		t.Errorf("VLAN 30 got %d bytes, want 1500", p.Len())
	}

	// A VLAN that nobody has is counted, one that another has is not.
	wrong := func(s *subif) uint64 { return s.near.Stats().Drops[WrongVLAN] }
	for _, s := range subs {
		if n := wrong(s); n != 0 {
			t.Errorf("VLAN %d counts %d frames of the others as errors", s.vlan, n)
		}
	}
	var stray stack.Link
	within(t, far, func() {
		var err error
		stray, err = there.Open("packet:peer0", Options{VLAN: 40})
		must(t, err)
	})
	defer stray.Close()
	must(t, stray.Write([]*stack.Packet{udp(t, "10.23.0.7", "255.255.255.255", 1)}))
	// A program gives it to one of them, the kernel to all.
	counted := func() bool {
		return wrong(subs[0]) > 0 && (wrong(subs[1]) > 0 || subs[1].near.Driver() == "xdp:pb0")
	}
	for late := time.Now().Add(patience); !counted(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("a frame of VLAN 40 is not counted")
		}
	}

	for _, taken := range []struct {
		vlan uint16
		want string
	}{
		{20, "link: opening " + strconv.Quote(name) + `: another interface has its VLAN 20`},
		{0, "link: opening " + strconv.Quote(name) + `: another interface has its frames without a tag`},
	} {
		if _, err := devices.Open(name, Options{VLAN: taken.vlan}); err == nil || !strings.HasPrefix(err.Error(), taken.want) {
			t.Errorf("VLAN %d again: %v, want %s", taken.vlan, err, taken.want)
		}
	}

	other := "packet:pb0"
	if name == other {
		other = "xdp:pb0"
	}
	if _, err := devices.Open(other, Options{VLAN: 40}); err == nil || !strings.Contains(err.Error(), "open both the same way") {
		t.Errorf("opening %s beside %s: %v", other, name, err)
	}
	// auto: says why it is not to be had as the others have it.
	if strings.HasPrefix(name, "xdp:") {
		auto := "auto:" + strings.TrimPrefix(name, "xdp:")
		if _, err := devices.Open(auto, Options{VLAN: 40, MTU: 3000}); err == nil || !strings.Contains(err.Error(), "MTU 3000: the device was opened for frames of up to 1792 bytes") {
			t.Errorf("opening %s with a larger MTU: %v", auto, err)
		}
	}

	// The first, which took the device, goes; the others go on, and the kernel
	// hears nothing.
	must(t, subs[0].near.Close())
	if !deaf(t) || device(t, "pb0").Attrs().RawFlags&unix.IFF_NOARP == 0 {
		t.Error("the kernel hears again while links are open")
	}
	subs[1].exchange(t)
	subs[2].exchange(t)
	must(t, subs[2].near.Close())
	subs[1].exchange(t)
	// One may come back.
	l, err := devices.Open(name, Options{VLAN: 30})
	must(t, err)
	must(t, l.Close())
	subs[1].exchange(t)

	must(t, subs[1].near.Close())
	checkNoProgram(t)
	after := device(t, "pb0").Attrs()
	if deaf(t) || after.RawFlags != before.RawFlags || after.MTU != before.MTU {
		t.Errorf("after the last: deaf %v, flags %#x, MTU %d; want false, %#x, %d", deaf(t), after.RawFlags, after.MTU, before.RawFlags, before.MTU)
	}
	if len(devices.trunks.byName) != 0 {
		t.Error("the device is still entered")
	}
}

// deaf reports whether a filter keeps what arrives on pb0 from the kernel.
func deaf(t *testing.T) bool {
	t.Helper()
	qs, err := netlink.QdiscList(device(t, "pb0"))
	must(t, err)
	for _, q := range qs {
		if q.Type() == "clsact" {
			fs, err := netlink.FilterList(device(t, "pb0"), netlink.HANDLE_MIN_INGRESS)
			must(t, err)
			return len(fs) > 0
		}
	}
	return false
}
