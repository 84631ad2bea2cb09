package image_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"patchbay/appliance/lab"
	"patchbay/stack"
	"patchbay/stack/link"
)

// A cable is what one network card of a virtual machine is plugged into: QEMU's
// "-netdev dgram" between two sockets, an Ethernet frame in each datagram. It is a
// link.FrameDevice, and outlives the machine.
type cable struct {
	conn      *net.UnixConn
	near, far string // paths of the sockets: ours and QEMU's
	peer      *net.UnixAddr
	mac       link.MAC
	once      sync.Once
	closed    chan struct{}
	readBuf   []byte
}

// sendWait is for a machine that does not read: it may have begun and have no
// driver yet.
const sendWait = 20 * time.Millisecond

func newCable(t *testing.T, dir string, n int) *cable {
	t.Helper()
	c := &cable{
		near: filepath.Join(dir, fmt.Sprintf("near%d", n)), far: filepath.Join(dir, fmt.Sprintf("far%d", n)),
		mac: link.MAC{2, 0, 0, 0, 0xff, byte(n)}, closed: make(chan struct{}), readBuf: make([]byte, 65536),
	}
	c.peer = &net.UnixAddr{Name: c.far, Net: "unixgram"}
	var err error
	if c.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.near, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// netdev are QEMU's arguments for card n.
func (c *cable) netdev(n int) []string {
	return []string{
		"-netdev", fmt.Sprintf("dgram,id=n%d,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s", n, c.far, c.near),
		"-device", fmt.Sprintf("virtio-net-pci,id=card%d,netdev=n%d,romfile=,mac=02:00:00:00:00:%02x", n, n, n),
	}
}

func (c *cable) ReadFrames(fn func(*link.Frame) bool) error {
	for {
		n, err := c.conn.Read(c.readBuf)
		select {
		case <-c.closed:
			return net.ErrClosed
		default:
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(time.Millisecond)
			continue
		}
		fn(&link.Frame{Data: c.readBuf[:n], Time: time.Now()})
		return nil
	}
}

func (c *cable) WriteFrames(frames [][]byte) (dropped int, err error) {
	for _, f := range frames {
		c.conn.SetWriteDeadline(time.Now().Add(sendWait))
		if _, err := c.conn.WriteToUnix(f, c.peer); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return dropped, err
			}
			dropped++ // the machine is off
		}
	}
	return dropped, nil
}

func (c *cable) MAC() link.MAC { return c.mac }
func (c *cable) MTU() int      { return 1500 }

func (c *cable) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.conn.Close()
		os.Remove(c.near)
	})
	return nil
}

// bridge joins a network of the lab, which has no ARP, with a cable: toward the
// machine it is a station with the address own, and stands in for those that it
// says yes to. What is not for that subnet goes to the machine at gateway.
func bridge(t *testing.T, c *cable, port stack.Link, own netip.Prefix, gateway netip.Addr, proxy func(netip.Addr) bool) {
	t.Helper()
	e := link.NewEthernet(c, link.Options{})
	e.SetAddrs(own, proxy)
	var wg sync.WaitGroup
	pump := func(from, to stack.Link, hop func(*stack.Packet)) {
		defer wg.Done()
		batch := make([]*stack.Packet, 32)
		for i := range batch {
			batch[i] = stack.NewPacket(2048)
		}
		for {
			n, err := from.Read(batch)
			if err != nil {
				return
			}
			for _, p := range batch[:n] {
				hop(p)
			}
			to.Write(batch[:n])
			for _, p := range batch[:n] {
				p.Reset()
			}
		}
	}
	wg.Add(2)
	go pump(e, port, func(*stack.Packet) {})
	go pump(port, e, func(p *stack.Packet) {
		if dst := netip.AddrFrom4([4]byte(p.Data()[16:20])); !own.Contains(dst) {
			p.NextHop = gateway
		}
	})
	t.Cleanup(func() {
		e.Close()
		port.Close()
		wg.Wait()
	})
}

// A site is the lab's phones and call manager at the far ends of three cables:
// management, outside, inside.
type site struct {
	*lab.Lab
	cables [3]*cable
	admin  *lab.StackHost // at 192.0.2.9, on the management network
	client *lab.StackHost // at 198.51.100.99, on the Internet
}

func newSite(t *testing.T, dir string) *site {
	t.Helper()
	l, err := lab.NewMemoryLab(lab.Options{SCCPVersion: 17})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &site{Lab: l}
	for n := range s.cables {
		s.cables[n] = newCable(t, dir, n)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	host := func(at string, network *lab.Network) *lab.StackHost {
		h, err := lab.NewStackHost(prefix(at), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		network.Attach(h.Link(), netip.PrefixFrom(prefix(at).Addr(), 32))
		return h
	}
	management := lab.NewNetwork(0)
	t.Cleanup(func() { management.Close() })
	s.admin = host("192.0.2.9/24", management)
	s.client = host("198.51.100.99/24", l.Internet)
	bridge(t, s.cables[0], management.Port(prefix("0.0.0.0/0")), prefix("192.0.2.8/24"), addr("192.0.2.1"),
		func(a netip.Addr) bool { return a == addr("192.0.2.9") })
	bridge(t, s.cables[1], l.Outside(), prefix("203.0.113.1/24"), addr("203.0.113.2"), nil)
	bridge(t, s.cables[2], l.Inside(), prefix("10.20.0.254/24"), addr("10.20.0.1"),
		func(a netip.Addr) bool {
			return a == addr("10.20.0.11") || a == addr("10.20.0.50") || a == addr("10.20.0.51")
		})
	return s
}
