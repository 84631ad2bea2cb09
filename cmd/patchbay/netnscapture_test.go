//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// A frame is one that passed a device, in either direction.
type frame struct {
	at   time.Time
	data []byte
}

// A capture keeps what passes a device.
type capture struct {
	link layers.LinkType // Ethernet, or raw IP of a TUN device

	mu     sync.Mutex
	fd     int // -1: closed
	buf    [1 << 16]byte
	frames []frame
}

// captureRead is how often a capture is read.
const captureRead = 20 * time.Millisecond

// capture starts to keep what passes the device dev in the namespace ns, until
// the test ends. What passes after it returns is in it.
func (n *testNet) capture(t testing.TB, ns, dev string) *capture {
	t.Helper()
	c := &capture{link: layers.LinkTypeEthernet, fd: -1}
	if n.driver == overTUN {
		c.link = layers.LinkTypeRaw
	}
	n.within(t, ns, func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: allProtocols(), Ifindex: i.Index}))
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // so that the socket does not overflow
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(captureRead):
				c.all()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		c.all()
		c.mu.Lock()
		defer c.mu.Unlock()
		unix.Close(c.fd)
		c.fd = -1
	})
	return c
}

// allProtocols is ETH_P_ALL in network byte order.
func allProtocols() uint16 {
	return binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
}

// all returns the frames so far: all that have passed before the call.
func (c *capture) all() []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var control [64]byte
	for c.fd >= 0 {
		k, ck, _, _, err := unix.Recvmsg(c.fd, c.buf[:], control[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue // the latter is told once
		}
		if err != nil {
			break // nothing more, for now or for ever
		}
		f := frame{time.Now(), append([]byte(nil), c.buf[:k]...)}
		if m, err := unix.ParseSocketControlMessage(control[:ck]); err == nil && len(m) == 1 && len(m[0].Data) >= 16 {
			f.at = time.Unix(int64(binary.NativeEndian.Uint64(m[0].Data)), int64(binary.NativeEndian.Uint64(m[0].Data[8:])))
		}
		c.frames = append(c.frames, f)
	}
	return c.frames[:len(c.frames):len(c.frames)]
}

// packets returns the frames so far, decoded, as far as they are IPv4 or ARP
// and wanted. A nil want is all.
func (c *capture) packets(want func(gopacket.Packet) bool) []gopacket.Packet {
	var first gopacket.Decoder = layers.LayerTypeEthernet
	if c.link == layers.LinkTypeRaw {
		first = layers.LayerTypeIPv4
	}
	var all []gopacket.Packet
	for _, f := range c.all() {
		p := gopacket.NewPacket(f.data, first, gopacket.Default)
		p.Metadata().Timestamp = f.at
		if want == nil || want(p) {
			all = append(all, p)
		}
	}
	return all
}

// ends returns the addresses of an IPv4 packet, zero for another.
func ends(p gopacket.Packet) (src, dst netip.Addr) {
	ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if !ok {
		return src, dst
	}
	src, _ = netip.AddrFromSlice(ip.SrcIP)
	dst, _ = netip.AddrFromSlice(ip.DstIP)
	return src.Unmap(), dst.Unmap()
}
