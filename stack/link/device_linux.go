package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A kernelDevice is an Ethernet device of the kernel, or one VLAN of it, as
// "packet:" and "xdp:" have it: found, taken away from the kernel, and given back.
type kernelDevice struct {
	name  string
	index int
	mac   MAC
	mtu   int // of what uses it
	vlan  uint16
	now   func() time.Time

	trunk  *trunk
	wake   int // eventfd that end writes, -1: none
	closed atomic.Bool

	oversized atomic.Uint64 // frames that are too long and cannot be cut
}

// find finds the device name and returns its MTU.
func (d *kernelDevice) find(name string, opt Options) (mtu int, err error) {
	d.name, d.vlan, d.now, d.wake = name, opt.VLAN, opt.now(), -1
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0, fmt.Errorf("opening netlink: %w", err)
	}
	defer h.Close()
	l, err := ethernetDevice(h, name)
	if err != nil {
		return 0, err
	}
	a := l.Attrs()
	d.index, d.mac = a.Index, MAC(a.HardwareAddr)
	return a.MTU, nil
}

// take takes the device away from the kernel for user, who has d, or joins those
// that have.
func (d *kernelDevice) take(ts *trunks, opt Options, user trunkUser) (err error) {
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if d.trunk, err = ts.join(d, opt, user); err != nil {
		return err
	}
	d.mtu = opt.MTU
	if d.mtu == 0 {
		d.mtu = int(d.trunk.mtu.Load())
	}
	return nil
}

// end has every reader end, and reports whether it is the first to say so.
func (d *kernelDevice) end() (first bool, err error) {
	if d.closed.Swap(true) {
		return false, nil
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(d.wake, one); err != nil {
		return true, fmt.Errorf("link: closing %s: %w", d.name, err)
	}
	return true, nil
}

// release gives the device back.
func (d *kernelDevice) release() error {
	var errs []error
	if d.trunk != nil {
		errs = append(errs, d.trunk.leave(d.vlan))
		d.trunk = nil
	}
	if d.wake >= 0 {
		errs = append(errs, unix.Close(d.wake))
		d.wake = -1
	}
	return errors.Join(errs...)
}

// gone is what to say when the device does not exist any more, or is in another
// network namespace.
func (d *kernelDevice) gone(doing string) error {
	return fmt.Errorf("link: %s %s: the device is gone", doing, d.name)
}

// MAC implements FrameDevice.
func (d *kernelDevice) MAC() MAC { return d.mac }

// MTU implements FrameDevice.
func (d *kernelDevice) MTU() int { return d.mtu }

// A frameLoop is where one goroutine reads frames of a device.
type frameLoop struct {
	device *kernelDevice
	// ready gives fn the frames that are there and reports whether there was one.
	ready func(fn func(f *Frame) bool) (some bool)
	// check says, after a wait, why there is nothing more to wait for.
	check func() error

	reading sync.Mutex // held while the rings are in use
	counted bool       // in trunks.readers
	wait    waiter     // for the rings, and for end
	frame   Frame
	super   segmenter // what is left of the last frame longer than the MTU
	whole   Frame     // that frame, but for its data
}

// read waits for a frame and gives fn those that are there.
func (l *frameLoop) read(fn func(f *Frame) bool) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	for {
		if l.device.closed.Load() {
			return net.ErrClosed
		}
		if !l.counted {
			l.counted = true
			l.device.trunk.all.reads(1)
		}
		if l.ready(fn) {
			return nil
		}
		if l.super.more() {
			continue
		}
		if err := l.wait.wait(); err != nil {
			return fmt.Errorf("link: waiting for %s: %w", l.device.name, err)
		}
		if err := l.check(); err != nil {
			return err
		}
	}
}

// stop waits until nobody reads. The device has ended, so nobody will.
func (l *frameLoop) stop() {
	l.reading.Lock()
	defer l.reading.Unlock()
	if l.counted {
		l.counted = false
		l.device.trunk.all.reads(-1)
	}
}

// cut makes the next piece of the long frame the one that is read. There is more.
func (l *frameLoop) cut() *Frame {
	l.frame = l.whole
	l.frame.Data = l.super.cut()
	return &l.frame
}

// long takes data, a frame longer than mtu, to be cut, or counts it. f is the rest
// of the frame.
func (l *frameLoop) long(f Frame, data []byte, mtu int) {
	l.whole = f
	l.whole.Data, l.whole.Vouched = nil, true // the pieces have no checksum yet
	if !l.super.load(data, mtu) {
		l.device.oversized.Add(1)
	}
}
