//go:build linux

package rig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	captureBuffer = 16 << 20 // bytes that wait to be read
	capturePause  = 100      // ms after which a capture looks whether it is to end
	maxFrame      = 1 << 16
)

// A Capture hears frames in one of a rig's namespaces.
type Capture struct {
	fd      int
	dropped int
}

// Capture opens a capture of a net, of all devices of a host, or of one of them,
// "HOST:NET". What passes after it returns is in it.
func (r *Rig) Capture(of string) (*Capture, error) {
	place, device, one := strings.Cut(of, ":")
	if err := r.check(place); err != nil {
		return nil, err
	}
	if r.Topology.Net(place) != nil {
		if one {
			return nil, fmt.Errorf("%s is a net: it has no device %q", place, device)
		}
		device, one = bridgeName, true
	}
	c := &Capture{fd: -1}
	err := within(r.Namespace(place), func() error {
		index, heard := 0, 0
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		var names []string
		for _, d := range devices {
			if d.Flags&net.FlagLoopback != 0 {
				continue
			}
			names = append(names, d.Name)
			heard++
			if d.Name == device {
				index = d.Index
			}
		}
		switch {
		case heard == 0 && r.Driver == "tun":
			return fmt.Errorf("the devices of %s, tun:, are on its nets: capture those", place)
		case one && index == 0:
			return fmt.Errorf("%s has no device %q; it has %s", place, device, strings.Join(names, ", "))
		}
		return c.open(index)
	})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("capture of %s: %w", of, err)
	}
	return c, nil
}

// open opens the socket on a device, 0 for all.
func (c *Capture) open(index int) (err error) {
	if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	err = errors.Join(
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: capturePause * 1000}),
		unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	if index != 0 { // a bridge shows what it passes on to who asks for all of it
		err = errors.Join(err, unix.SetsockoptPacketMreq(c.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}))
	}
	return err
}

// Run calls f for each Ethernet frame until ctx ends. The frame is borrowed for
// the call.
func (c *Capture) Run(ctx context.Context, f func(at time.Time, frame []byte)) error {
	buf, control := make([]byte, maxFrame), make([]byte, 64)
	for {
		n, cn, _, from, err := unix.Recvmsg(c.fd, buf, control, 0)
		switch {
		case err == nil:
			if a, ok := from.(*unix.SockaddrLinklayer); ok && a.Hatype == unix.ARPHRD_ETHER {
				f(stamp(control[:cn]), buf[:n])
			}
		case errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN): // the latter is told once
		case errors.Is(err, unix.EAGAIN):
		default:
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(c.rest(buf, control, f), c.count())
		}
	}
}

// rest is what has passed before the end and was not read yet.
func (c *Capture) rest(buf, control []byte, f func(time.Time, []byte)) error {
	for limit := time.Now().Add(time.Second); time.Now().Before(limit); { // a busy wire never falls silent
		n, cn, _, from, err := unix.Recvmsg(c.fd, buf, control, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			return err
		}
		if a, ok := from.(*unix.SockaddrLinklayer); ok && a.Hatype == unix.ARPHRD_ETHER {
			f(stamp(control[:cn]), buf[:n])
		}
	}
	return nil
}

// count asks the kernel how many frames there was no room for.
func (c *Capture) count() error {
	s, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil {
		c.dropped += int(s.Drops)
	}
	return err
}

// Dropped is how many frames were not seen because they came too fast. After Run.
func (c *Capture) Dropped() int { return c.dropped }

// Close ends the capture, after Run.
func (c *Capture) Close() error {
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	c.fd = -1
	return err
}

// stamp is the time that the kernel has given a frame.
func stamp(control []byte) time.Time {
	m, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Now()
	}
	for _, m := range m {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// etherHeader is a header without a VLAN, in bytes.
const etherHeader = 14

// IPv4 returns the IPv4 packet in an Ethernet frame, without padding, nil if
// there is none.
func IPv4(frame []byte) []byte {
	if len(frame) < etherHeader+20 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return nil
	}
	p := frame[etherHeader:]
	n := int(binary.BigEndian.Uint16(p[2:]))
	if n < 20 || n > len(p) {
		return nil
	}
	return p[:n]
}
