package link

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A silence is what keeps the kernel from taking part on a device: it hears
// nothing (a drop in front of its stack), asks and answers nothing (no ARP, no
// IPv6), forwards nothing, and leaves packets as they were on the wire (no
// offloads). lift puts everything back.
type silence struct {
	undo []func() error // run from the last to the first
}

// silenceDevice takes the device away from the kernel's stack. It refuses one
// that has an IPv4 address, for then somebody uses it.
func silenceDevice(h *netlink.Handle, l netlink.Link) (_ *silence, err error) {
	name := l.Attrs().Name
	addrs, err := h.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	if len(addrs) > 0 {
		return nil, fmt.Errorf("the kernel has address %v on it; remove it (ip addr del %v dev %s) or choose another device",
			addrs[0].IPNet, addrs[0].IPNet, name)
	}
	s := &silence{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lift())
		}
	}()
	if err := s.deafen(h, l); err != nil {
		return nil, fmt.Errorf("dropping what arrives for the kernel: %w", err)
	}
	// Old kernels and containers have some of these not, or not writable;
	// the drop is what counts.
	s.sysctl("ipv6/conf/"+name+"/disable_ipv6", "1")
	s.sysctl("ipv4/conf/"+name+"/forwarding", "0")
	if l.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := h.LinkSetARPOff(l); err != nil {
			return nil, fmt.Errorf("switching off the kernel's ARP: %w", err)
		}
		s.later(func() error { return h.LinkSetARPOn(l) })
	}
	if err := s.offloads(name); err != nil {
		return nil, err
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := h.LinkSetUp(l); err != nil {
			return nil, fmt.Errorf("bringing it up: %w", err)
		}
		s.later(func() error { return h.LinkSetDown(l) })
	}
	return s, nil
}

// later notes how to undo what was just done.
func (s *silence) later(undo func() error) { s.undo = append(s.undo, undo) }

// lift undoes everything. A device that is gone needs nothing undone.
func (s *silence) lift() error {
	var errs []error
	for len(s.undo) > 0 {
		last := len(s.undo) - 1
		err := s.undo[last]()
		s.undo = s.undo[:last]
		if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dropPriority is that of our filter: the first.
const dropPriority = 1

// deafen drops every frame behind the packet sockets and in front of the
// kernel's protocols: a filter on the ingress of the device.
func (s *silence) deafen(h *netlink.Handle, l netlink.Link) error {
	index := l.Attrs().Index
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	switch err := h.QdiscAdd(qdisc); {
	case err == nil:
		s.later(func() error { return h.QdiscDel(qdisc) })
	case !errors.Is(err, unix.EEXIST): // somebody else's will do
		return fmt.Errorf("adding the clsact queue: %w", err)
	}
	attrs := netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
		Handle: 1, Priority: dropPriority, Protocol: unix.ETH_P_ALL}
	filter, errBPF := dropByBPF(h, attrs)
	if errBPF == nil {
		s.later(func() error { return h.FilterDel(filter) })
		return nil
	}
	action := &netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_SHOT}}
	all := &netlink.MatchAll{FilterAttrs: attrs, Actions: []netlink.Action{action}}
	if err := h.FilterReplace(all); err != nil {
		return errors.Join(errBPF, fmt.Errorf("filter matchall: %w", err))
	}
	s.later(func() error { return h.FilterDel(all) })
	return nil
}

// dropByBPF adds a filter that is the BPF program "return TC_ACT_SHOT".
func dropByBPF(h *netlink.Handle, attrs netlink.FilterAttrs) (netlink.Filter, error) {
	// struct bpf_insn: operation, registers, offset, immediate value.
	type instruction struct {
		op  uint8
		_   uint8 // registers: r0
		_   int16 // offset
		imm int32
	}
	program := [2]instruction{
		{op: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, imm: int32(netlink.TC_ACT_SHOT)}, // r0 = TC_ACT_SHOT
		{op: unix.BPF_JMP | unix.BPF_EXIT},
	}
	license := [1]byte{} // none needed: it calls nothing
	// union bpf_attr as BPF_PROG_LOAD reads it, as far as we use it.
	var pin runtime.Pinner // the kernel gets their addresses as numbers
	pin.Pin(&program)
	pin.Pin(&license)
	defer pin.Unpin()
	load := struct {
		kind, count    uint32
		program        uint64
		license        uint64
		level, logSize uint32
		log            uint64
		version, flags uint32
	}{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program))),
		license: uint64(uintptr(unsafe.Pointer(&license))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return nil, fmt.Errorf("loading a BPF program: %w", errno)
	}
	defer unix.Close(int(fd)) // the filter keeps it
	f := &netlink.BpfFilter{FilterAttrs: attrs, Fd: int(fd), Name: "patchbay", DirectAction: true}
	if err := h.FilterReplace(f); err != nil {
		return nil, fmt.Errorf("filter bpf: %w", err)
	}
	return f, nil
}

// sysctl sets /proc/sys/net/name if it can. The file stays open until it is
// put back: it belongs to the network namespace it was opened in.
func (s *silence) sysctl(name, value string) {
	f, err := os.OpenFile("/proc/sys/net/"+name, os.O_RDWR, 0)
	if err != nil {
		return
	}
	var old [16]byte
	n, _ := f.ReadAt(old[:], 0)
	was := strings.TrimSpace(string(old[:n]))
	if n == 0 || was == value {
		f.Close()
		return
	}
	if _, err := f.WriteAt([]byte(value), 0); err != nil {
		f.Close()
		return
	}
	s.later(func() error {
		_, err := f.WriteAt([]byte(was), 0)
		return errors.Join(err, f.Close())
	})
}

// An offload is something that a device or the kernel's driver layer does to
// packets, and the ethtool commands that tell and set it. (linux/ethtool.h.)
type offload struct {
	get, set uint32
	flag     uint32 // the bit, where several share a command
}

// offloads switches off what merges packets, splits them late or leaves their
// checksums open. Devices that will not are left as they are: the driver copes
// with open checksums, and counts what is too long.
func (s *silence) offloads(name string) error {
	const flagLRO = 1 << 15 // ETH_FLAG_LRO
	return s.switchOff(name, []offload{
		{unix.ETHTOOL_GFLAGS, unix.ETHTOOL_SFLAGS, flagLRO},
		{unix.ETHTOOL_GGRO, unix.ETHTOOL_SGRO, 0},
		{unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO, 0},
		{unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO, 0},
		{unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM, 0},
		{unix.ETHTOOL_GRXCSUM, unix.ETHTOOL_SRXCSUM, 0},
	})
}

// tagsInFrames has the device leave VLAN tags in the frames: an XDP program does
// not see one that was taken out.
func (s *silence) tagsInFrames(name string) error {
	const flagRXVLAN = 1 << 8 // ETH_FLAG_RXVLAN
	return s.switchOff(name, []offload{{unix.ETHTOOL_GFLAGS, unix.ETHTOOL_SFLAGS, flagRXVLAN}})
}

// switchOff switches off what the device will have switched off.
func (s *silence) switchOff(name string, all []offload) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket for ethtool: %w", err)
	}
	s.later(func() error { return unix.Close(fd) })
	for _, o := range all {
		old, err := ethtool(fd, name, o.get, 0)
		if err != nil {
			continue
		}
		off := uint32(0)
		if o.flag != 0 {
			off = old &^ o.flag
		}
		if off == old {
			continue
		}
		if _, err := ethtool(fd, name, o.set, off); err != nil {
			continue
		}
		s.later(func() error {
			_, err := ethtool(fd, name, o.set, old)
			if errors.Is(err, unix.EOPNOTSUPP) {
				return nil
			}
			return err
		})
	}
	return nil
}

// receiveQueues returns how many receive queues the device has, after it was
// given want of them; 0 leaves it as it is.
func (s *silence) receiveQueues(name string, want int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("opening a socket for ethtool: %w", err)
	}
	had := channels{cmd: unix.ETHTOOL_GCHANNELS}
	err = deviceControl(fd, name, unsafe.Pointer(&had))
	now := had
	switch {
	case err != nil && want > 1:
		err = fmt.Errorf("asking for its queues: %w; leave out queues=%d", err, want)
	case err != nil: // a device that knows of none has one
		had.rx, err = 1, nil
		now = had
	case want > 0 && want != had.receive():
		if now = had.with(want); now.receive() != want {
			err = fmt.Errorf("it can have %d queues, not %d", max(had.maxRX, had.maxCombined), want)
		} else if err = now.give(fd, name); err != nil {
			err = fmt.Errorf("giving it %d queues: %w", want, err)
		}
	}
	if err != nil || now == had {
		return now.receive(), errors.Join(err, unix.Close(fd))
	}
	s.later(func() error {
		had.cmd = unix.ETHTOOL_SCHANNELS
		return errors.Join(had.give(fd, name), unix.Close(fd))
	})
	return now.receive(), nil
}

// channels is struct ethtool_channels: the queues of a device, of which combined
// ones receive and send. (linux/ethtool.h.)
type channels struct {
	cmd                                 uint32
	maxRX, maxTX, maxOther, maxCombined uint32
	rx, tx, other, combined             uint32
}

// receive is the number of queues that receive.
func (c channels) receive() int { return max(1, int(c.rx+c.combined)) }

// with is the command that gives the device n queues to receive and n to send,
// where it can have them.
func (c channels) with(n int) channels {
	c.cmd = unix.ETHTOOL_SCHANNELS
	k := uint32(n)
	if c.maxCombined > 0 {
		c.rx, c.tx, c.combined = 0, 0, min(k, c.maxCombined)
	} else {
		c.rx, c.tx = min(k, c.maxRX), min(k, c.maxTX)
	}
	return c
}

// queuesHeld is how long the kernel may take to let go of queues whose sockets were
// closed: it does so on the side, as it gets round to it.
const queuesHeld = 5 * time.Second

// give gives a device the queues of c, if need be once the kernel has let go of
// those that are to go.
func (c channels) give(fd int, name string) error {
	for late := time.Now().Add(queuesHeld); ; time.Sleep(5 * time.Millisecond) {
		err := deviceControl(fd, name, unsafe.Pointer(&c))
		if !errors.Is(err, unix.EINVAL) || time.Now().After(late) {
			return err
		}
	}
}

// ethtool does one command with a struct ethtool_value.
func ethtool(fd int, name string, cmd, value uint32) (uint32, error) {
	v := struct{ cmd, data uint32 }{cmd, value}
	err := deviceControl(fd, name, unsafe.Pointer(&v))
	return v.data, err
}

// deviceControl does the ethtool command that data begins with.
func deviceControl(fd int, name string, data unsafe.Pointer) error {
	req := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: data}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}
