package link

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpf "github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// An xdpPort is an Ethernet device that is read and written by AF_XDP: its
// queues, and the program that has each frame go to a socket. The links on the
// device share it; trunks.mu guards it.
type xdpPort struct {
	conf   xdpConfig
	index  int
	mode   xdpMode // native or generic
	why    error   // why the mode is not native, nil: it was not tried
	room   int     // bytes of frame that a place holds
	queues []*xdpQueue
	rows   *ebpf.Map // sockets by VLAN and queue, see xdpProgram
	others *ebpf.Map // one number: the frames that came by a queue that is none of queues
	users  map[uint16]*xdpDevice
	detach func() error
	route  *nl.SocketHandle // netlink, where the device is
}

// An xdpMode says where the program runs.
type xdpMode uint8

const (
	xdpAny     xdpMode = iota
	xdpNative          // in the device's driver
	xdpGeneric         // in the kernel's stack, for any device
)

var xdpModeNames = [...]string{xdpAny: "any", xdpNative: "native", xdpGeneric: "generic"}

func (m xdpMode) String() string { return xdpModeNames[m] }

// An xdpConfig is what "xdp:" is told of a device.
type xdpConfig struct {
	mode     xdpMode
	zeroCopy bool
	queues   int // what the device is to have; 0: what it has

	oldAttach bool // by netlink, as before Linux 5.9
}

// xdpName is the name of the program, by which we know our own.
const xdpName = "patchbay"

// vlanRows is how many rows the map of sockets has: one for each VLAN.
const vlanRows = vlanID + 1

// openXDPPort opens the queues of the device of t and has its frames come to
// them.
func openXDPPort(t *trunk, conf xdpConfig) (_ *xdpPort, err error) {
	p := &xdpPort{conf: conf, index: t.link.Attrs().Index, users: make(map[uint16]*xdpDevice)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11 maps count as locked
		return nil, fmt.Errorf("raising RLIMIT_MEMLOCK: %w", err)
	}
	if err := t.quiet.tagsInFrames(t.name); err != nil {
		return nil, err
	}
	route, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	p.route = &nl.SocketHandle{Socket: route}
	count, err := t.quiet.receiveQueues(t.name, conf.queues)
	if err != nil {
		return nil, err
	}
	chunk := minSlot
	for p.room = chunk - xdpHeadroom; p.room < int(t.mtu.Load())+tagged; p.room = chunk - xdpHeadroom {
		chunk *= 2
	}
	for i := range count {
		q, err := newXDPQueue(p.index, i, chunk, conf.zeroCopy)
		if err != nil {
			return nil, err
		}
		p.queues = append(p.queues, q)
	}
	if p.rows, err = ebpf.NewMap(&ebpf.MapSpec{Name: xdpName, Type: ebpf.XSKMap,
		KeySize: 4, ValueSize: 4, MaxEntries: uint32(vlanRows * count)}); err != nil {
		return nil, fmt.Errorf("making a map of sockets: %w", err)
	}
	if p.others, err = ebpf.NewMap(&ebpf.MapSpec{Name: xdpName, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("making a map of a counter: %w", err)
	}
	return p, p.attach(t)
}

// otherQueue returns how many frames came by a queue that the device was given
// since it was opened.
func (p *xdpPort) otherQueue() (n uint64) {
	if p.others.Lookup(uint32(0), &n) != nil {
		return 0 // what is not known
	}
	return n
}

// close detaches the program and closes the queues. It may be called twice.
func (p *xdpPort) close() error {
	var errs []error
	if p.detach != nil {
		// A device that is gone has taken its program along.
		if err := p.detach(); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("detaching the XDP program: %w", err))
		}
		p.detach = nil
	}
	for _, m := range []**ebpf.Map{&p.rows, &p.others} {
		if *m != nil {
			errs = append(errs, (*m).Close())
			*m = nil
		}
	}
	for _, q := range p.queues {
		errs = append(errs, q.close())
	}
	p.queues = nil
	if p.route != nil {
		p.route.Close()
		p.route = nil
	}
	return errors.Join(errs...)
}

// join gives d, which has the frames of a VLAN, its sockets.
func (p *xdpPort) join(d *xdpDevice, vlan uint16) error {
	for _, q := range p.queues {
		s := &q.base
		if vlan != 0 {
			var err error
			if s, err = q.join(); err != nil {
				return err
			}
		}
		d.sockets = append(d.sockets, s)
	}
	p.users[vlan] = d
	if err := p.enter(vlan, d); err != nil {
		return err
	}
	return p.stray()
}

// leave takes out d.
func (p *xdpPort) leave(d *xdpDevice, vlan uint16) error {
	var errs []error
	if p.users[vlan] == d {
		delete(p.users, vlan)
		for i := range p.queues {
			if err := p.rows.Delete(p.key(vlan, i)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, err)
			}
		}
		errs = append(errs, p.stray())
	}
	for _, s := range d.sockets {
		if vlan != 0 {
			errs = append(errs, s.leave())
		} else {
			s.drain()
		}
	}
	d.sockets = nil
	return errors.Join(errs...)
}

// stray has the frames that no link is for go to one of them, which counts them.
func (p *xdpPort) stray() error {
	if len(p.users) == 0 || p.users[0] != nil {
		return nil
	}
	for _, d := range p.users {
		return p.enter(0, d)
	}
	return nil
}

// enter has the frames of a VLAN go to d.
func (p *xdpPort) enter(vlan uint16, d *xdpDevice) error {
	for i, s := range d.sockets {
		if err := p.rows.Put(p.key(vlan, i), uint32(s.fd)); err != nil {
			return fmt.Errorf("entering a socket for VLAN %d: %w", vlan, err)
		}
	}
	return nil
}

// key is where the map has the socket for a VLAN on a queue.
func (p *xdpPort) key(vlan uint16, queue int) uint32 {
	return uint32(int(vlan)*len(p.queues) + queue)
}

// xdpProgram is the program that has a frame go to the socket for its VLAN on the
// queue it came by, or for want of one to that for untagged frames. A frame for
// neither goes on to the kernel, which is deaf. So does one that came by another
// queue, which is counted: a socket is of one queue.
func xdpProgram(rows, others *ebpf.Map, queues int) asm.Instructions {
	const (
		data, dataEnd, rxQueue = 0, 4, 16 // in struct xdp_md (linux/bpf.h)
		pass, redirect         = 2, 4     // XDP_PASS, XDP_REDIRECT
	)
	var (
		typ   = asm.HostTo(asm.BE, asm.R5, asm.Half)
		tag   = asm.HostTo(asm.BE, asm.R7, asm.Half)
		queue = asm.R8
	)
	return asm.Instructions{
		asm.LoadMem(queue, asm.R1, rxQueue, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, data, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEnd, asm.Word),
		asm.Mov.Imm(asm.R7, 0),
		asm.JGE.Imm(queue, int32(queues), "other"),

		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, tagged),
		asm.JGT.Reg(asm.R4, asm.R3, "find"), // too short for a tag
		asm.LoadMem(asm.R5, asm.R2, untagged-2, asm.Half),
		typ,
		asm.JNE.Imm(asm.R5, typeVLAN, "find"),
		asm.LoadMem(asm.R7, asm.R2, untagged, asm.Half),
		tag,
		asm.And.Imm(asm.R7, vlanID),

		asm.Mul.Imm(asm.R7, int32(queues)).WithSymbol("find"),
		asm.Add.Reg(asm.R7, queue),
		asm.LoadMapPtr(asm.R1, rows.FD()),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Imm(asm.R3, pass), // if there is no socket
		asm.FnRedirectMap.Call(),
		asm.JEq.Imm(asm.R0, redirect, "end"),

		asm.LoadMapPtr(asm.R1, rows.FD()),
		asm.Mov.Reg(asm.R2, queue),
		asm.Mov.Imm(asm.R3, pass),
		asm.FnRedirectMap.Call(),
		asm.Ja.Label("end"),

		asm.LoadMapValue(asm.R1, others.FD(), 0).WithSymbol("other"),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, pass),
		asm.Return().WithSymbol("end"),
	}
}

// attach attaches the program to the device of t: in its driver if that can, and
// if it may be otherwise in the kernel's stack.
func (p *xdpPort) attach(t *trunk) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: xdpName, Type: ebpf.XDP,
		Instructions: xdpProgram(p.rows, p.others, len(p.queues)), License: "GPL"})
	if err != nil {
		return fmt.Errorf("loading the XDP program: %w", err)
	}
	defer program.Close() // what it is attached to keeps it
	if err := p.evict(t); err != nil {
		return err
	}
	if p.conf.mode != xdpGeneric {
		p.mode = xdpNative
		err := p.attachAs(t, program, unix.XDP_FLAGS_DRV_MODE)
		if err == nil || p.conf.mode == xdpNative || p.conf.zeroCopy {
			return err
		}
		p.why = err
	}
	p.mode = xdpGeneric
	return p.attachAs(t, program, unix.XDP_FLAGS_SKB_MODE)
}

// attachAs attaches the program in a mode, so that it is gone when we are; before
// Linux 5.9 it stays until somebody detaches it.
func (p *xdpPort) attachAs(t *trunk, program *ebpf.Program, mode int) error {
	if !p.conf.oldAttach {
		l, err := bpf.AttachXDP(bpf.XDPOptions{Program: program, Interface: p.index, Flags: bpf.XDPAttachFlags(mode)})
		if err == nil {
			p.detach = l.Close
			return nil
		}
		if errors.Is(err, unix.ENOSPC) && p.mode == xdpNative {
			return fmt.Errorf("attaching the XDP program, %v: %w: a veth must have as many receive queues as its peer has to send", p.mode, err)
		}
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("attaching the XDP program, %v: %w", p.mode, err)
		}
	}
	if err := p.set(program.FD(), mode|unix.XDP_FLAGS_UPDATE_IF_NOEXIST); err != nil {
		return fmt.Errorf("attaching the XDP program, %v: %w", p.mode, err)
	}
	p.detach = func() error { return p.set(-1, mode) }
	return nil
}

// set attaches the program fd by netlink, or with -1 detaches what is there.
// (linux/if_link.h.)
func (p *xdpPort) set(fd, flags int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: p.route}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(p.index)
	req.AddData(msg)
	x := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
	x.AddRtAttr(unix.IFLA_XDP_FD, nl.Uint32Attr(uint32(fd)))
	x.AddRtAttr(unix.IFLA_XDP_FLAGS, nl.Uint32Attr(uint32(flags)))
	req.AddData(x)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// evict detaches a program of ours that outlived who attached it, and refuses a
// device that has another's.
func (p *xdpPort) evict(t *trunk) error {
	modes := map[uint32]int{nl.XDP_ATTACHED_DRV: unix.XDP_FLAGS_DRV_MODE, nl.XDP_ATTACHED_SKB: unix.XDP_FLAGS_SKB_MODE}
	for late := time.Now().Add(xdpBusy); ; time.Sleep(5 * time.Millisecond) {
		l, err := t.handle.LinkByIndex(p.index)
		if err != nil {
			return err
		}
		x := l.Attrs().Xdp
		if x == nil || !x.Attached {
			return nil
		}
		name, err := programName(x.ProgId)
		if name == xdpName {
			// Its queues are ours by now, so whoever it was is gone. One that
			// goes with its owner is on its way and cannot be detached.
			err = p.set(-1, modes[x.AttachMode])
		}
		gone := errors.Is(err, unix.ENOENT) // since it was listed
		if name == xdpName && time.Now().After(late) {
			return fmt.Errorf("the device has the XDP program of a box that ended or is about to, id %d, and it does not go (ip link set dev %s xdp off; bpftool link): %w",
				x.ProgId, t.name, unix.EBUSY)
		}
		if name != xdpName && !gone || time.Now().After(late) {
			return fmt.Errorf("the device has an XDP program of somebody else, %q (id %d); detach it (ip link set dev %s xdp off) or choose another device",
				name, x.ProgId, t.name)
		}
	}
}

// programName returns the name of an eBPF program.
func programName(id uint32) (string, error) {
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return "", err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return "", err
	}
	return info.Name, nil
}
