package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"patchbay/stack"
)

// A TUN is a stack.Link whose other end is the kernel's own IP stack. It has
// no virtio header: for small packets of unrelated flows that header costs
// more than it saves. (reference/dataplane.md, section C.)
type TUN struct {
	counters
	dev    tun.Device
	name   string
	mtu    int
	now    func() time.Time
	closed atomic.Bool

	// For the one goroutine that reads.
	bufs  [1][]byte
	sizes [1]int

	mu  sync.Mutex
	out [1][]byte // being written
}

// openTUN opens the TUN device name, makes it if there is none, and brings it
// up.
func openTUN(name string, opt Options) (stack.Link, error) {
	mtu := opt.MTU
	if mtu == 0 {
		mtu = DefaultMTU
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("a device name has 1 to 15 characters")
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errors.New("this system has no /dev/net/tun: load the kernel module tun, or give the device to the container")
	case err != nil:
		return nil, hint(fmt.Errorf("/dev/net/tun: %w", err))
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("device %s is in use by another program", name)
		}
		if errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("device %s exists and is no plain TUN device", name)
		}
		return nil, hint(err)
	}
	dev, name, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	t := &TUN{dev: dev, name: name, mtu: mtu, now: opt.now()}
	if err := t.up(); err != nil {
		dev.Close()
		return nil, hint(err)
	}
	return t, nil
}

// up sets the MTU of the device and brings it up.
func (t *TUN) up() error {
	l, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(l, t.mtu); err != nil {
		return fmt.Errorf("setting MTU %d: %w", t.mtu, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("bringing it up: %w", err)
	}
	return nil
}

// hint adds to a refusal what would help.
func hint(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: this needs root, or the capabilities CAP_NET_ADMIN, CAP_NET_RAW and, for programs in the kernel, CAP_BPF", err)
	}
	return err
}

// Name returns the name of the device.
func (t *TUN) Name() string { return t.name }

// Driver returns what Open takes: "tun:pb0".
func (t *TUN) Driver() string { return "tun:" + t.name }

// Read implements stack.Link. It returns one packet at a time, as the device
// does.
func (t *TUN) Read(batch []*stack.Packet) (int, error) {
	if len(batch) == 0 {
		return 0, nil
	}
	p := batch[0]
	for {
		t.bufs[0] = p.Buffer()
		n, err := t.dev.Read(t.bufs[:], t.sizes[:], 0)
		t.bufs[0] = nil
		if t.closed.Load() || errors.Is(err, os.ErrClosed) {
			return 0, net.ErrClosed
		}
		if err != nil {
			return 0, fmt.Errorf("link: reading %s: %w", t.name, err)
		}
		if n == 0 {
			continue
		}
		p.SetLen(t.sizes[0])
		p.Time = t.now()
		t.in(1, t.sizes[0])
		return 1, nil
	}
}

// Write implements stack.Link.
func (t *TUN) Write(batch []*stack.Packet) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, bytes := 0, 0
	defer func() { t.counters.out(n, bytes) }()
	for _, p := range batch {
		if p.Len() > t.mtu {
			t.drop(Oversize)
			continue
		}
		t.out[0] = p.Data()
		_, err := t.dev.Write(t.out[:], 0)
		t.out[0] = nil
		if t.closed.Load() || errors.Is(err, os.ErrClosed) {
			return net.ErrClosed
		}
		if err != nil { // the device is down, or the packet not to its liking
			t.drop(SendFailed)
			continue
		}
		n++
		bytes += p.Len()
	}
	return nil
}

// MTU implements stack.Link.
func (t *TUN) MTU() int { return t.mtu }

// Close implements stack.Link. A device that Open made goes away.
func (t *TUN) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	if err := t.dev.Close(); err != nil {
		return fmt.Errorf("link: closing %s: %w", t.name, err)
	}
	return nil
}
