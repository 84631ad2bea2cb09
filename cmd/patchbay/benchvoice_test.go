//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/pion/srtp/v2"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// What each end of a call sends: G.711, 20 ms a packet. (RFC 3551, section 4.5.)
const (
	voiceEvery  = 20 * time.Millisecond
	voiceLen    = 160 // bytes of payload
	voiceRTP    = 12 + voiceLen
	voiceTag    = 4  // bytes: AES_CM_128_HMAC_SHA1_32
	voiceVerify = 64 // every how-many-th packet is authenticated and compared

	etherLen, ipLen, udpLen = 14, 20, 8

	voicePort = 20_000 // of the first call's ends, on both sides
)

// A voiceCall is one call through a relay, by the end that sends.
type voiceCall struct {
	from [2]netip.AddrPort // the ends' own
	to   [2]netip.AddrPort // where they send: the relay's
	keys [2]inspect.Key    // the phone transmits with the first, hears with the second

	mouth, ear *srtp.Context
	seq        uint16 // of the next packet, both ways
}

// newVoiceCall returns call i between a phone and a far end.
func newVoiceCall(i int) *voiceCall {
	port := uint16(voicePort + 2*i)
	c := &voiceCall{from: [2]netip.AddrPort{
		nat.Client: netip.AddrPortFrom(phoneAddr, port), nat.Server: netip.AddrPortFrom(deskAddr, port)}}
	for d := range c.keys {
		c.keys[d] = voiceKey(i, d)
	}
	return c
}

// agreed makes what c's phone seals and hears with, now that its keys are known.
func (c *voiceCall) agreed(t testing.TB) {
	t.Helper()
	for d, x := range []**srtp.Context{&c.mouth, &c.ear} {
		var err error
		k := c.keys[d]
		*x, err = srtp.CreateContext(k.Master[:], k.Salt[:], srtp.ProtectionProfileAes128CmHmacSha1_32, srtp.SRTPReplayProtection(64))
		must(t, err)
	}
}

// voiceKey is the key of call i in direction d.
func voiceKey(i, d int) inspect.Key {
	k := inspect.Key{Suite: inspect.AES_CM_128_SHA1_32}
	x := uint64(2*i + d + 1)
	for b := range k.Master {
		k.Master[b] = byte(mix(x) >> (b % 8 * 8))
		x += uint64(b % 8 / 7)
	}
	for b := range k.Salt {
		k.Salt[b] = byte(mix(^x) >> (b % 8 * 8))
		x += uint64(b % 8 / 7)
	}
	return k
}

// mix is splitmix64's finalizer: any number to one that looks random.
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// voiceRTPPacket appends what the end d of call i says in packet seq.
func voiceRTPPacket(b []byte, i int, d nat.End, seq uint16) []byte {
	b = append(b, 0x80, 0)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(seq)*voiceLen)
	b = binary.BigEndian.AppendUint32(b, 0x5000_0000|uint32(i)<<1|uint32(d))
	x := uint64(i)<<32 | uint64(d)<<16 | uint64(seq)
	for range voiceLen / 8 {
		b = binary.LittleEndian.AppendUint64(b, mix(x))
		x += 1 << 48
	}
	return b
}

// A voiceGenerator is both ends of all calls: it sends and receives raw frames
// on the far ends of the relay's links, on a core of its own.
type voiceGenerator struct {
	sides [2]*voiceSide // by the end that sends
	calls []*voiceCall
	sent  []int64 // when, ns since 1970, by end, call and the low bits of the number
}

const voiceRemembered = 64 // packets of each direction whose sending time is kept

// A voiceResult is what came of a run.
type voiceResult struct {
	calls     int
	sent, got [2]int           // packets, by the end that sends; got in time
	wrong     int              // packets that were looked into and are not what was said
	late      time.Duration    // the generator behind its schedule, at most
	p50, p99  [2]time.Duration // of the delay, by the end that sends
	generator time.Duration    // CPU
	relay     time.Duration    // CPU
	took      time.Duration
}

// voiceLate is what comes too late to be heard. A relay that is overloaded may
// keep a second of each call in its sockets and lose nothing, for a while.
const voiceLate = 200 * time.Millisecond

// loss is the share of the packets that did not arrive, or too late.
func (r *voiceResult) loss() float64 {
	sent, got := r.sent[0]+r.sent[1], r.got[0]+r.got[1]
	return 1 - float64(got)/float64(max(sent, 1))
}

// perPacket is the relay's CPU for each packet that arrived.
func (r *voiceResult) perPacket() time.Duration {
	return r.relay / time.Duration(max(r.got[0]+r.got[1], 1))
}

// A voiceSide is where one end of all calls is: raw sockets on a device.
type voiceSide struct {
	tx, rx   int
	src, dst net.HardwareAddr
	ring     []byte
	next     int

	msgs [voiceBatch]voiceMessage
	iovs [voiceBatch]unix.Iovec
	n    int // frames that wait

	delays []uint32 // packets, by 10 µs of delay
	got    int
	late   int // of them, later than voiceLate
}

// A voiceMessage is struct mmsghdr.
type voiceMessage struct {
	unix.Msghdr
	_ uint32
	_ [4]byte
}

const (
	voiceBatch = 64
	voiceSlot  = 512     // bytes of the ring for one frame
	voiceRing  = 4 << 20 // bytes: 8192 frames, and it stays in the cache
	voiceBlock = 1 << 16

	delayStep = 10 * time.Microsecond
	delayMax  = 100_000 // steps: a second
)

// newVoiceSide opens the device of n's namespace ns. The kernel there answers
// ARP, and drops the media after the sockets have seen it.
func (n *testNet) newVoiceSide(t testing.TB, ns, dev string, dst net.HardwareAddr) *voiceSide {
	t.Helper()
	s := &voiceSide{dst: dst}
	n.within(t, ns, func() error {
		d, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		s.src = d.HardwareAddr
		if err := dropIPv4(d.Index); err != nil {
			return err
		}
		return s.open(d.Index)
	})
	t.Cleanup(func() {
		unix.Munmap(s.ring)
		unix.Close(s.rx)
		unix.Close(s.tx)
	})
	for i := range s.msgs {
		s.msgs[i].Iov = &s.iovs[i]
		s.msgs[i].SetIovlen(1)
	}
	return s
}

// open opens the sockets on the device with that index.
func (s *voiceSide) open(index int) (err error) {
	for _, fd := range []*int{&s.tx, &s.rx} {
		if *fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
	}
	// Of packets that will not be looked into the headers are enough: what
	// they cost to take falls on the relay's core, which sends them.
	const rtp = etherLen + ipLen + udpLen
	look := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: rtp + 8}, // SSRC
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 1},
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: rtp + 2}, // sequence number
		{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_X},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: voiceVerify - 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: rtp + 12},
	}
	req := unix.TpacketReq{Block_size: voiceBlock, Block_nr: voiceRing / voiceBlock,
		Frame_size: voiceSlot, Frame_nr: voiceRing / voiceSlot}
	for _, err := range []error{
		unix.SetsockoptInt(s.tx, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(s.tx, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		unix.Bind(s.tx, &unix.SockaddrLinklayer{Ifindex: index}),
		unix.SetsockoptInt(s.rx, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2),
		unix.SetsockoptInt(s.rx, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptSockFprog(s.rx, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(look)), Filter: &look[0]}),
		unix.SetsockoptTpacketReq(s.rx, unix.SOL_PACKET, unix.PACKET_RX_RING, &req),
	} {
		if err != nil {
			return err
		}
	}
	if s.ring, err = unix.Mmap(s.rx, 0, voiceRing, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	// ETH_P_ALL in network order: what asks for one protocol comes behind the drop.
	return unix.Bind(s.rx, &unix.SockaddrLinklayer{Ifindex: index, Protocol: 0x0300})
}

// dropIPv4 has the kernel drop IPv4 that arrives on a device, behind packet
// sockets for all protocols.
func dropIPv4(index int) error {
	// struct bpf_insn: r0 = TC_ACT_SHOT; exit.
	program := [...]uint64{uint64(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_K) | uint64(netlink.TC_ACT_SHOT)<<32, unix.BPF_JMP | unix.BPF_EXIT}
	license := [1]byte{}
	var pin runtime.Pinner // the kernel gets their addresses as numbers
	pin.Pin(&program)
	pin.Pin(&license)
	defer pin.Unpin()
	load := struct { // union bpf_attr, as far as BPF_PROG_LOAD needs it here
		kind, count      uint32
		program, license uint64
		rest             [6]uint32
	}{unix.BPF_PROG_TYPE_SCHED_CLS, uint32(len(program)),
		uint64(uintptr(unsafe.Pointer(&program))), uint64(uintptr(unsafe.Pointer(&license))), [6]uint32{}}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	if errno != 0 {
		return fmt.Errorf("loading a BPF program: %w", errno)
	}
	defer unix.Close(int(fd)) // the filter keeps it
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}); err != nil {
		return err
	}
	return h.FilterAdd(&netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS,
		Handle: 1, Priority: 1, Protocol: unix.ETH_P_IP}, Fd: int(fd), Name: "voice", DirectAction: true})
}

// flush sends what waits.
func (s *voiceSide) flush() error {
	for at := 0; at < s.n; {
		r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.tx), uintptr(unsafe.Pointer(&s.msgs[at])), uintptr(s.n-at), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			at += int(r)
		case unix.EINTR, unix.EAGAIN, unix.ENOBUFS:
		default:
			return fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	s.n = 0
	return nil
}

// frames hands fn each frame that has arrived, with its time in ns since 1970.
func (s *voiceSide) frames(fn func(frame []byte, at int64)) (some bool) {
	for {
		b := s.ring[s.next*voiceSlot:][:voiceSlot]
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			return some
		}
		some = true
		fn(b[h.Mac:min(uint32(h.Mac)+h.Snaplen, voiceSlot)], int64(h.Sec)*1e9+int64(h.Nsec))
		atomic.StoreUint32(&h.Status, unix.TP_STATUS_KERNEL)
		if s.next++; s.next == voiceRing/voiceSlot {
			s.next = 0
		}
	}
}

// newVoiceGenerator returns the ends of calls, which a relay in n's box will
// carry from pbout to pbin.
func (n *testNet) newVoiceGenerator(t testing.TB, calls []*voiceCall) *voiceGenerator {
	t.Helper()
	mac := make(map[string]net.HardwareAddr)
	n.within(t, n.box, func() error {
		for _, dev := range []string{"pbout", "pbin"} {
			d, err := net.InterfaceByName(dev)
			if err != nil {
				return err
			}
			mac[dev] = d.HardwareAddr
		}
		return nil
	})
	return &voiceGenerator{
		sides: [2]*voiceSide{n.newVoiceSide(t, n.out, "pbout", mac["pbout"]), n.newVoiceSide(t, n.in, "pbin", mac["pbin"])},
		calls: calls,
		sent:  make([]int64, 2*len(calls)*voiceRemembered),
	}
}

// prepare returns the frame that end d of call i sends as packet seq.
func (g *voiceGenerator) prepare(t testing.TB, b []byte, i int, d nat.End, seq uint16) []byte {
	c, s := g.calls[i], g.sides[d]
	var plain [voiceRTP + 16]byte
	payload := voiceRTPPacket(plain[:0], i, d, seq)
	if d == nat.Client {
		sealed, err := c.mouth.EncryptRTP(payload[:0], payload, nil)
		must(t, err)
		payload = sealed
	}
	b = append(b, s.dst...)
	b = append(b, s.src...)
	b = append(b, 0x08, 0x00)
	return stack.AppendUDP(b, stack.Flow{Proto: stack.UDP, Src: c.from[d], Dst: c.to[d]}, payload)
}

// run has the first n calls talk for so long, evenly spread, and counts what
// arrives until nothing has for a while. It takes core for itself.
func (g *voiceGenerator) run(t testing.TB, n int, d time.Duration, core int) *voiceResult {
	t.Helper()
	const stride = 256
	ticks := int(d / voiceEvery)
	total := ticks * n * 2 // both ways, one after the other
	frames, lens := make([]byte, total*stride), make([]uint8, total)
	first := make([]uint16, n)
	for i := range n {
		first[i] = g.calls[i].seq
	}
	for k := range total {
		i, e := k/2%n, nat.End(k&1)
		f := g.prepare(t, frames[k*stride:k*stride:(k+1)*stride], i, e, first[i]+uint16(k/2/n))
		lens[k] = uint8(len(f))
	}
	for i := range n {
		g.calls[i].seq += uint16(ticks)
	}
	for _, s := range g.sides {
		s.delays, s.got, s.late = make([]uint32, delayMax+1), 0, 0
		s.frames(func([]byte, int64) {}) // what came late before
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))

	r := &voiceResult{calls: n}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		done <- g.talk(r, frames, lens, stride, n, d, core)
	}()
	must(t, <-done)
	for e := range g.sides {
		// Who sends is heard on the other side.
		s := g.sides[1-e]
		r.got[e] = s.got - s.late
		r.p50[e], r.p99[e] = s.quantile(0.50), s.quantile(0.99)
	}
	return r
}

// quantile returns the delay that a share q of what arrived did not exceed.
func (s *voiceSide) quantile(q float64) time.Duration {
	left := int(q * float64(s.got))
	for i, k := range s.delays {
		if left -= int(k); left < 0 {
			return time.Duration(i+1) * delayStep
		}
	}
	return delayMax * delayStep
}

// alone gives the calling thread a core, and real-time priority if it may.
func alone(core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 31}, 0)
}

// threadTime is what the calling thread has used.
func threadTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}

// talk is run on its thread.
func (g *voiceGenerator) talk(r *voiceResult, frames []byte, lens []uint8, stride, n int, d time.Duration, core int) error {
	if err := alone(core); err != nil {
		return err
	}
	spent := threadTime()
	defer func() { r.generator = threadTime() - spent }()
	total := len(lens)
	gap := float64(voiceEvery) / float64(2*n)
	hear := [2]func([]byte, int64){}
	for e := range hear {
		hear[e] = func(f []byte, at int64) { g.hear(r, nat.End(e), f, at, n) }
	}
	began := time.Now()
	last, k := began, 0
	for {
		now := time.Now()
		tick := now.Sub(began) / *mediaTick * *mediaTick
		due := min(total, int(float64(tick)/gap)+1)
		if k < due {
			r.late = max(r.late, now.Sub(began)-time.Duration(float64(k)*gap))
		}
		for end := min(due, k+2*voiceBatch); k < end; k++ {
			e, i := k&1, k/2%n
			s := g.sides[e]
			f := frames[k*stride:]
			seq := int(f[etherLen+ipLen+udpLen+3])
			g.sent[(e*len(g.calls)+i)*voiceRemembered+seq%voiceRemembered] = now.UnixNano()
			s.iovs[s.n].Base = &f[0]
			s.iovs[s.n].SetLen(int(lens[k]))
			s.n++
			r.sent[e]++
			last = now
		}
		for _, s := range g.sides {
			if err := s.flush(); err != nil {
				return err
			}
		}
		for e, s := range g.sides {
			if s.frames(hear[e]) && k == total {
				last = now
			}
		}
		if k == total {
			if r.took == 0 {
				r.took = time.Since(began)
			}
			if g.got() == r.sent[0]+r.sent[1] || now.Sub(last) > time.Second {
				return nil
			}
		}
		if k == due || k == total {
			pause := unix.Timespec{Nsec: int64(min(voicePause, began.Add(tick+*mediaTick).Sub(now)))}
			unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
		}
	}
}

// voicePause is how long the generator sleeps at most, when it has nothing to
// send, before it looks at what has arrived.
const voicePause = 200 * time.Microsecond

// got is how many packets have arrived so far.
func (g *voiceGenerator) got() int { return g.sides[0].got + g.sides[1].got }

// hear takes a frame that arrived where end e is, sent by the other end.
func (g *voiceGenerator) hear(r *voiceResult, e nat.End, f []byte, at int64, n int) {
	const rtp = etherLen + ipLen + udpLen
	if len(f) < rtp+12 || f[etherLen] != 0x45 || f[etherLen+9] != byte(stack.UDP) || f[rtp] != 0x80 {
		return
	}
	port := binary.BigEndian.Uint16(f[etherLen+ipLen+2:])
	i := int(port-voicePort) / 2
	if port%2 != 0 || i >= n {
		return
	}
	s := g.sides[e]
	s.got++
	pay := f[rtp:]
	seq := binary.BigEndian.Uint16(pay[2:])
	sent := g.sent[(int(e.Other())*len(g.calls)+i)*voiceRemembered+int(seq)%voiceRemembered]
	s.delays[min(max(at-sent, 0)/int64(delayStep), delayMax)]++
	if at-sent > int64(voiceLate) {
		s.late++
	}
	if (int(seq)+i)%voiceVerify != 0 {
		return
	}
	var room, want [voiceRTP + 16]byte
	got := pay
	if e == nat.Client {
		var err error
		if got, err = g.calls[i].ear.DecryptRTP(room[:0], pay, nil); err != nil {
			r.wrong++
			return
		}
	}
	if !bytes.Equal(got, voiceRTPPacket(want[:0], i, e.Other(), seq)) {
		r.wrong++
	}
}

// greet has each call's phone say one packet, so that the relay knows where it
// is, and then its far end; it waits until both have arrived.
func (g *voiceGenerator) greet(t testing.TB, n int) {
	t.Helper()
	for e := range g.sides {
		for i := range n {
			c := g.calls[i]
			heard := false
			for try := 0; !heard; try++ {
				if try == 100 {
					t.Fatalf("call %d: what %v sends from %v to %v does not arrive", i, nat.End(e), c.from[e], c.to[e])
				}
				f := g.prepare(t, nil, i, nat.End(e), c.seq)
				c.seq++
				s := g.sides[e]
				s.iovs[0].Base = &f[0]
				s.iovs[0].SetLen(len(f))
				s.n = 1
				must(t, s.flush())
				for late := time.Now().Add(50 * time.Millisecond); !heard && time.Now().Before(late); {
					g.sides[1-e].frames(func(f []byte, _ int64) {
						heard = heard || len(f) > 36 && binary.BigEndian.Uint16(f[etherLen+ipLen+2:]) == c.from[1-e].Port()
					})
				}
			}
		}
	}
}

// cores returns two that may be had: for the relay and for the generator.
func cores(t testing.TB) (relay, generator int) {
	t.Helper()
	var set unix.CPUSet
	must(t, unix.SchedGetaffinity(os.Getpid(), &set))
	var all []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	if len(all) < 2 {
		t.Skip("needs two cores")
	}
	return all[0], all[1]
}
