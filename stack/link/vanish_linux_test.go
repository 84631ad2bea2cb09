package link

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

// everyDriver runs a test with each driver of an Ethernet device, on pb0 of a
// fresh namespace whose peer0 is in another.
func everyDriver(t *testing.T, test func(t *testing.T, name string, far func(func()))) {
	for _, d := range deviceDrivers {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			test(t, d.before+"pb0"+d.after, func(f func()) { within(t, ns[1], f) })
		})
	}
}

// TestDeviceGoes: who reads a device that goes away is told, who writes to it
// either counts what is lost or is told, and both ends close.
func TestDeviceGoes(t *testing.T) {
	everyDriver(t, func(t *testing.T, name string, far func(func())) {
		l := open(t, name, Options{MTU: 1400}).(*Ethernet)
		if l.MTU() != 1400 || device(t, "pb0").Attrs().MTU != 1400 {
			t.Errorf("MTU %d, of the device %d; want 1400", l.MTU(), device(t, "pb0").Attrs().MTU)
		}
		l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
		r := read(l)
		var written uint64
		write := func() error {
			written++
			return l.Write([]*stack.Packet{udp(t, ipBox, "255.255.255.255", 100)})
		}
		must(t, write())
		must(t, netlink.LinkDel(device(t, "pb0")))
		if err := r.ended(t); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("Read ended with %v, want an error about the device", err)
		}
		before := l.Stats()
		written = 0
		if err := write(); err == nil {
			s := l.Stats()
			if s.Drops[SendFailed]-before.Drops[SendFailed] != written || s.OutPackets != before.OutPackets {
				t.Errorf("a packet for a device that is gone is neither refused nor counted: %+v", s)
			}
		} else if errors.Is(err, net.ErrClosed) {
			t.Errorf("Write = %v, want an error about the device", err)
		}
		must(t, l.Close())
		must(t, l.Close())
	})
}

// TestDeviceReturns: another device by the name of one that went is opened by who
// waits for it, with the kernel kept off it, and packets pass again.
func TestDeviceReturns(t *testing.T) {
	for _, d := range deviceDrivers {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			open(t, d.before+"pb0"+d.after, Options{}).Close() // skips
			var devices Devices
			home := ns[0]
			patient := func(vlan uint16) *Patient {
				p := NewPatient(func() (l stack.Link, err error) {
					within(t, home, func() { l, err = devices.Open(d.before+"pb0"+d.after, Options{VLAN: vlan}) })
					return l, err
				}, 0, func(bool, error) {})
				t.Cleanup(func() { p.Close() })
				p.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
				return p
			}
			p, tagged := patient(0), patient(20)
			r, rTagged := read(p), read(tagged)
			for round := range 3 {
				c := peerUDP(t, ns[1])
				arrives(t, c, r, strconv.Itoa(round))
				must(t, c.Close())
				if !deaf(t) {
					t.Fatalf("round %d: the kernel hears what comes by the device", round)
				}
				must(t, netlink.LinkDel(device(t, "pb0")))
				veth(t, ns[1])
			}
			must(t, p.Close())
			must(t, tagged.Close())
			for _, r := range []*reader{r, rTagged} {
				if err := r.ended(t); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read ended with %v, want net.ErrClosed", err)
				}
			}
			if n := len(devices.trunks.byName); n != 0 {
				t.Errorf("%d devices are still entered", n)
			}
		})
	}
}

// TestDeviceReplaced: a link on a device that is gone does not lend the device that
// came by its name, of which the kernel still is part, to another VLAN.
func TestDeviceReplaced(t *testing.T) {
	for _, d := range deviceDrivers {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			name := d.before + "pb0" + d.after
			open(t, name, Options{}).Close() // skips
			var devices Devices
			old, err := devices.Open(name, Options{VLAN: 10})
			must(t, err)
			must(t, netlink.LinkDel(device(t, "pb0")))
			veth(t, ns[1])
			if l, err := devices.Open(name, Options{VLAN: 20}); !errors.Is(err, errReplaced) {
				t.Errorf("Open = %v, %v; want %v", l, err, errReplaced)
			}
			must(t, old.Close())
			l, err := devices.Open(name, Options{VLAN: 20})
			must(t, err)
			if !deaf(t) {
				t.Error("the kernel hears what comes by the device")
			}
			must(t, l.Close())
			if n := len(devices.trunks.byName); n != 0 {
				t.Errorf("%d devices are still entered", n)
			}
		})
	}
}

// TestDeviceTwice: a second box cannot have what the first has, by any driver, and
// takes nothing from it in trying; once that has closed it can.
func TestDeviceTwice(t *testing.T) {
	everyDriver(t, func(t *testing.T, name string, far func(func())) {
		l := open(t, name, Options{})
		for _, d := range deviceDrivers {
			if l, err := Open(d.before+"pb0"+d.after, Options{VLAN: 20}); err == nil || !strings.Contains(err.Error(), "another patchbay has it") {
				t.Errorf("Open by %s = %v, %v; want another patchbay has it", d.name, l, err)
			}
		}
		if !deaf(t) || device(t, "pb0").Attrs().RawFlags&unix.IFF_NOARP == 0 {
			t.Error("the kernel hears again")
		}
		must(t, l.Close())
		must(t, l.Close())
		must(t, open(t, name, Options{VLAN: 20}).Close())
	})
}

// TestDeviceMTU: what is longer since somebody has changed the device's MTU is
// counted, either way, and the link goes on.
func TestDeviceMTU(t *testing.T) {
	everyDriver(t, func(t *testing.T, name string, far func(func())) {
		l := open(t, name, Options{}).(*Ethernet)
		l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
		r := read(l)
		var c *net.UDPConn
		far(func() {
			var err error
			c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ipPeer)})
			must(t, err)
			must(t, netlink.LinkSetMTU(device(t, "peer0"), 3000))
		})
		defer c.Close()
		arrives(t, c, r, "before")
		// In its driver a device with a program may not have it larger.
		errLarger := netlink.LinkSetMTU(device(t, "pb0"), 3000)
		lost := func() (n uint64) {
			for _, d := range l.Stats().Drops {
				n += d
			}
			return n
		}
		if errLarger == nil {
			for late := time.Now().Add(patience); lost() == 0; time.Sleep(time.Millisecond) {
				_, err := c.WriteTo(make([]byte, 2900), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
				must(t, err)
				if time.Now().After(late) {
					t.Fatalf("a packet of 2,928 bytes is not counted: %+v", l.Stats())
				}
			}
			arrives(t, c, r, "larger")
		}
		must(t, netlink.LinkSetMTU(device(t, "pb0"), 1000))
		arrives(t, c, r, "smaller")
		before, sent := lost(), l.Stats().OutPackets
		must(t, l.Write([]*stack.Packet{udp(t, ipBox, "255.255.255.255", 1472), udp(t, ipBox, "255.255.255.255", 100)}))
		if s := l.Stats(); s.OutPackets == sent || s.OutPackets-sent+lost()-before != 2 {
			t.Errorf("of two packets %d are sent and %d counted as lost", s.OutPackets-sent, lost()-before)
		}
	})
}

// arrives sends what from c until it arrives.
func arrives(t *testing.T, c *net.UDPConn, r *reader, what string) {
	t.Helper()
	for late := time.Now().Add(patience); time.Now().Before(late); {
		// The peer has no route while its device is down.
		_, _ = c.WriteTo([]byte(what), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
		select {
		case p := <-r.packets:
			<-r.vouched
			if p.Flow().Proto == stack.UDP && string(p.Payload()) == what {
				return
			}
		case err := <-r.done:
			t.Fatal("reading: ", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("nothing arrives")
}

// TestDeviceDown: a device that goes down and comes up again goes on. What was
// sent to it meanwhile is counted as lost, and does not come up with it.
func TestDeviceDown(t *testing.T) {
	const many = 3000
	for _, which := range []string{"pb0", "peer0"} {
		t.Run(which, func(t *testing.T) {
			everyDriver(t, func(t *testing.T, name string, far func(func())) {
				l := open(t, name, Options{}).(*Ethernet)
				l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
				r := read(l)
				var c *net.UDPConn
				set := func(up bool) {
					change := func() {
						set := netlink.LinkSetDown
						if up {
							set = netlink.LinkSetUp
						}
						must(t, set(device(t, which)))
					}
					if which == "pb0" {
						change()
					} else {
						far(change)
					}
				}
				far(func() {
					var err error
					c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 69})
					must(t, err)
				})
				defer c.Close()
				must(t, c.SetReadBuffer(1<<20))
				arrives(t, c, r, "before")
				set(false)
				before := l.Stats()
				for range many {
					must(t, l.Write([]*stack.Packet{udp(t, ipBox, "255.255.255.255", 100)}))
				}
				s := l.Stats()
				lost, sent := s.Drops[SendFailed]-before.Drops[SendFailed], s.OutPackets-before.OutPackets
				if lost+sent != many || sent > sendBatch {
					t.Errorf("of %d packets for a device that is down %d count as lost and %d as sent", many, lost, sent)
				}
				set(true)
				arrives(t, c, r, "after")
				last := udp(t, ipBox, "255.255.255.255", 7)
				must(t, l.Write([]*stack.Packet{last}))
				stale := 0
				for buf := make([]byte, 2000); ; {
					must(t, c.SetReadDeadline(time.Now().Add(patience)))
					n, _, err := c.ReadFrom(buf)
					must(t, err)
					if n == 7 {
						break
					}
					if stale++; stale > sendBatch {
						t.Fatal("what was sent to a device that was down comes up with it")
					}
				}
			})
		})
	}
}
