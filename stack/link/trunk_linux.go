package link

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// trunks are the Ethernet devices of the kernel that are in use, by name.
type trunks struct {
	mu     sync.Mutex
	byName map[string]*trunk

	counting sync.Mutex
	readers  int
	told     func(readers int) // hears that of each change, nil: nobody does
}

// errReplaced says that a device went and another came by its name, while somebody
// has the one or looked for the other.
var errReplaced = errors.New("another device has come by the name of one that is gone, and not all who had that have noticed; try again")

// errOtherKind says that a device cannot be opened by one driver for it is by another.
var errOtherKind = errors.New("another interface has the device")

// reads notes that n goroutines more read a device.
func (ts *trunks) reads(n int) {
	ts.counting.Lock()
	defer ts.counting.Unlock()
	ts.readers += n
	if ts.told != nil {
		ts.told(ts.readers)
	}
}

// A trunk is an Ethernet device of the kernel and what uses it: one user for each
// VLAN, and one for frames without a tag. The first to come takes it away from the
// kernel, and the last to go gives it back.
type trunk struct {
	all  *trunks
	name string
	mtu  atomic.Int64 // of the device in bytes, the largest that one of the users wants

	// Guarded by all.mu.
	handle *netlink.Handle
	held   int // see holdDevice, -1: none
	link   netlink.Link
	quiet  *silence
	users  map[uint16]trunkUser // by VLAN, 0 is none
	xdp    *xdpPort             // nil: the users are packet devices
}

// A trunkUser is who gets the frames of one VLAN of a trunk.
type trunkUser interface {
	// setOthers says which VLANs other users have, in order. trunks.mu is held.
	setOthers(vlans []uint16)
	// kind is "packet" or "xdp"; one device cannot be both.
	kind() string
}

// join enters d, which has on, as the user of the frames of opt.VLAN, and readies
// the device if d is the first.
func (ts *trunks) join(on *kernelDevice, opt Options, d trunkUser) (_ *trunk, err error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byName[on.name]
	switch {
	case t == nil:
		if t, err = newTrunk(on, opt); err != nil {
			return nil, err
		}
		t.all = ts
		if ts.byName == nil {
			ts.byName = make(map[string]*trunk)
		}
		ts.byName[on.name] = t
	case t.link.Attrs().Index != on.index:
		return nil, errReplaced
	}
	if t.users[opt.VLAN] != nil {
		if opt.VLAN == 0 {
			return nil, fmt.Errorf("another interface has its frames without a tag; give this one a vlan, or another device")
		}
		return nil, fmt.Errorf("another interface has its VLAN %d; give this one another, or another device", opt.VLAN)
	}
	for _, u := range t.users {
		if u.kind() != d.kind() {
			return nil, fmt.Errorf("%w, by %s:; open both the same way", errOtherKind, u.kind())
		}
	}
	if opt.MTU > int(t.mtu.Load()) {
		if t.xdp != nil && opt.MTU+tagged > t.xdp.room {
			return nil, fmt.Errorf("MTU %d: the device was opened for frames of up to %d bytes; give the interface that opened it first that MTU as well", opt.MTU, t.xdp.room)
		}
		if err := t.raiseLocked(opt.MTU); err != nil {
			return nil, err
		}
	}
	t.users[opt.VLAN] = d
	t.tellLocked()
	return t, nil
}

// newTrunk takes a device away from the kernel.
func newTrunk(on *kernelDevice, opt Options) (_ *trunk, err error) {
	t := &trunk{name: on.name, held: -1, users: make(map[uint16]trunkUser)}
	if t.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.restore())
		}
	}()
	if t.link, err = ethernetDevice(t.handle, on.name); err != nil {
		return nil, err
	}
	a := t.link.Attrs()
	if a.Index != on.index {
		return nil, errReplaced
	}
	if t.held, err = holdDevice(a.Index); err != nil {
		return nil, err
	}
	mtu, undo := a.MTU, []func() error(nil)
	if opt.MTU != 0 && opt.MTU != mtu {
		if err := t.handle.LinkSetMTU(t.link, opt.MTU); err != nil {
			return nil, fmt.Errorf("setting MTU %d: %w", opt.MTU, err)
		}
		undo = append(undo, func() error { return t.handle.LinkSetMTU(t.link, a.MTU) })
		t.quiet = &silence{undo: undo}
		mtu = opt.MTU
	}
	if mtu > MaxMTU {
		return nil, fmt.Errorf("its MTU of %d is above %d; choose one (ip link set %s mtu 1500)", mtu, MaxMTU, on.name)
	}
	t.mtu.Store(int64(mtu))
	s, err := silenceDevice(t.handle, t.link)
	if err != nil {
		return nil, err
	}
	s.undo = append(undo, s.undo...)
	t.quiet = s
	return t, nil
}

// holdDevice has the device be ours until the socket it returns is closed, if only
// by the end of the process. What the first of two closed would be taken from the
// second, with the kernel hearing again. Another's is found by its name, an abstract
// one: of those there is one of each in a network namespace, as there is of devices.
// (unix(7).)
func holdDevice(index int) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("opening a socket to hold it: %w", err)
	}
	name := fmt.Sprintf("@patchbay/device/%d", index)
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err == nil {
		return fd, nil
	}
	err = errors.Join(err, unix.Close(fd))
	if errors.Is(err, unix.EADDRINUSE) {
		return -1, fmt.Errorf("another patchbay has it (\"ss -xap src %s\" names the process); stop that, or choose another device: %w", name, err)
	}
	return -1, fmt.Errorf("holding it by the name %s: %w", name, err)
}

// ethernetDevice finds the Ethernet device name.
func ethernetDevice(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("there is no device %s; \"ip link\" lists those there are", name)
	}
	if err != nil {
		return nil, err
	}
	if a := l.Attrs(); len(a.HardwareAddr) != len(MAC{}) || a.RawFlags&unix.IFF_LOOPBACK != 0 {
		return nil, fmt.Errorf("%s is no Ethernet device", name)
	}
	return l, nil
}

// raiseLocked makes the MTU of the device that of a new user, who wants more
// than those before.
func (t *trunk) raiseLocked(mtu int) error {
	was := int(t.mtu.Load())
	if err := t.handle.LinkSetMTU(t.link, mtu); err != nil {
		return fmt.Errorf("setting MTU %d: %w", mtu, err)
	}
	t.quiet.later(func() error { return t.handle.LinkSetMTU(t.link, was) })
	t.mtu.Store(int64(mtu))
	return nil
}

// leave takes out the user of a VLAN, and gives the device back to the kernel
// with the last.
func (t *trunk) leave(vlan uint16) error {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	delete(t.users, vlan)
	if len(t.users) > 0 {
		t.tellLocked()
		return nil
	}
	delete(t.all.byName, t.name)
	return t.restore()
}

// restore undoes what was done to the device.
func (t *trunk) restore() error {
	var err error
	if t.quiet != nil {
		err = t.quiet.lift()
	}
	t.handle.Close()
	if t.held >= 0 {
		err = errors.Join(err, unix.Close(t.held))
		t.held = -1
	}
	return err
}

// tellLocked tells each user which VLANs the others have.
func (t *trunk) tellLocked() {
	for own, d := range t.users {
		others := maps.Clone(t.users)
		delete(others, own)
		d.setOthers(slices.Sorted(maps.Keys(others)))
	}
}

// setOthers implements trunkUser.
func (d *packetDevice) setOthers(vlans []uint16) {
	d.others.Store(&vlans)
	d.filter()
}

// kind implements trunkUser.
func (d *packetDevice) kind() string { return "packet" }

// filter has the kernel keep the frames of the other users from the ring. A
// kernel that will not costs a copy of each: forOthers is asked anyway.
func (d *packetDevice) filter() {
	if d.rx < 0 {
		return // openRing comes here again
	}
	if len(*d.others.Load()) == 0 {
		_ = unix.SetsockoptInt(d.rx, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // there may be none
		return
	}
	program := withoutVLANs(*d.others.Load())
	_ = unix.SetsockoptSockFprog(d.rx, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// withoutVLANs returns the BPF program that drops the frames of the given
// VLANs, of which 0 is those without a tag or with one that is only a priority,
// wherever the kernel has put the tag. (Linux Documentation/networking/filter.rst.)
func withoutVLANs(vlans []uint16) []unix.SockFilter {
	const (
		ancillary  = 0xfffff000 // SKF_AD_OFF
		tag        = ancillary + 44
		tagPresent = ancillary + 48
		keep       = 1 << 18 // bytes: all of any frame
	)
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_ABS | size, K: at}
	}
	equal := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	skip := func(n uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: n} }
	give := func(n uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: n} }
	program := []unix.SockFilter{
		load(unix.BPF_W, tagPresent),
		equal(0, 2, 0), // no: it may be in the frame still
		load(unix.BPF_W, tag),
		skip(5),
		load(unix.BPF_H, untagged-2),
		equal(typeVLAN, 2, 0),
		{Code: unix.BPF_LD | unix.BPF_IMM, K: 0},
		skip(1),
		load(unix.BPF_H, untagged),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: vlanID},
	}
	for _, v := range vlans {
		program = append(program, equal(uint32(v), 0, 1), give(0))
	}
	return append(program, give(keep))
}
