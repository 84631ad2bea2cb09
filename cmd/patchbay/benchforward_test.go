//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

var (
	benchRounds = flag.Int("bench.rounds", 5, "how often -bench.links measures each thing")
	benchFor    = flag.Duration("bench.for", 500*time.Millisecond, "how long it measures each time")
	benchRates  = flag.String("bench.rates", "0,200000,50000,20000", "packets a second at which it measures; 0 is as many as there can be")
	benchTick   = flag.Duration("bench.tick", time.Millisecond, "how often the generator sends what is due; 0 is each packet by itself")
	benchOnly   = flag.String("bench.only", "", "measure this alone of what -bench.links would, with \"nothing\" and \"kernel\"")
)

// What is forwarded: UDP from one host inside, which has a static translation.
const (
	benchFlows  = 1000
	benchLen    = 200 // bytes of IP packet
	benchBatch  = 64  // packets to one call at full speed
	benchSettle = 300 * time.Millisecond

	// The generator and all that the kernel does for it have one core, the
	// box and all that the kernel does for it another.
	generatorCore, boxCore = 0, 1
	realTime               = 10 // SCHED_RR priority of both
)

var (
	benchHost   = deskAddr
	benchMapped = netip.MustParseAddr("203.0.113.50")
	benchSink   = netip.AddrPortFrom(gateway, 9)
)

const benchConfig = `hostname bench
interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
object network host
 host 10.20.0.50
 nat (inside,outside) static 203.0.113.50
`

// A benchPath is a way from the generator to the sink.
type benchPath struct {
	name string
	n    *testNet
	box  *runningBox // nil: the kernel
	dev  string      // whose arrivals are counted
	ns   string      // where that is
	gen  *generator
}

// A benchSample is one measurement.
type benchSample struct {
	sent, arrived uint64
	took          time.Duration
	generator     time.Duration // CPU, of it and of what the kernel did meanwhile
	box           time.Duration
	soft          time.Duration // ksoftirqd, of both cores
}

func (s benchSample) rate() float64 { return float64(s.arrived) / s.took.Seconds() }

// total is the CPU of an arrived packet in nanoseconds.
func (s benchSample) total() float64 {
	return float64(s.generator+s.box+s.soft) / float64(max(s.arrived, 1))
}

// TestBenchForward measures what forwarding with static NAT costs over each
// driver, and in the kernel over the same wires, by turns.
func TestBenchForward(t *testing.T) {
	if !*benchLinks {
		t.Skip("takes minutes of two cores: -bench.links")
	}
	needs(t, "nftables (nft)")
	if runtime.NumCPU() < 2 {
		t.Skip("needs two cores")
	}
	var rates []int
	for r := range strings.SplitSeq(*benchRates, ",") {
		rate, err := strconv.Atoi(r)
		must(t, err)
		rates = append(rates, rate)
	}
	var paths []*benchPath
	for _, p := range []struct{ name, driver string }{
		{"nothing", overPacket}, {"kernel", overPacket}, {"packet:", overPacket},
		{"xdp: generic", overGeneric}, {"xdp: native", overXDP}, {"tun:", overTUN},
	} {
		if *benchOnly == "" || slices.Contains([]string{"nothing", "kernel", *benchOnly}, p.name) {
			paths = append(paths, newBenchPath(t, p.name, p.driver))
		}
	}
	if t.Failed() {
		return
	}
	type key struct {
		path string
		rate int
	}
	all := make(map[key][]benchSample)
	for _, rate := range rates {
		for range *benchRounds {
			for _, p := range paths {
				all[key{p.name, rate}] = append(all[key{p.name, rate}], p.measure(t, rate))
			}
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d bytes, %d flows, median of %d rounds of %v; ns of CPU a packet\n", benchLen, benchFlows, *benchRounds, *benchFor)
	fmt.Fprintf(&out, "%-10s %-14s %10s %7s %8s %8s %8s %8s %8s\n", "rate", "path", "arrived/s", "lost %", "total", "cost", "x kernel", "pps x", "box")
	for _, rate := range rates {
		base := median(all[key{"nothing", rate}], benchSample.total)
		kernel := median(all[key{"kernel", rate}], benchSample.total) - base
		kernelRate := median(all[key{"kernel", rate}], benchSample.rate)
		for _, p := range paths {
			s := all[key{p.name, rate}]
			total := median(s, benchSample.total)
			lost := median(s, func(s benchSample) float64 { return 100 * (1 - float64(s.arrived)/float64(max(s.sent, 1))) })
			box := median(s, func(s benchSample) float64 { return float64(s.box) / float64(max(s.arrived, 1)) })
			name := "full"
			if rate > 0 {
				name = strconv.Itoa(rate)
			}
			fmt.Fprintf(&out, "%-10s %-14s %10.0f %7.2f %8.0f %8.0f %8.2f %8.2f %8.0f\n", name, p.name,
				median(s, benchSample.rate), lost, total, total-base, (total-base)/kernel, median(s, benchSample.rate)/kernelRate, box)
		}
	}
	t.Log("\n" + out.String())
}

// median returns the median of what f says of the samples.
func median(all []benchSample, f func(benchSample) float64) float64 {
	var v []float64
	for _, s := range all {
		v = append(v, f(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// newBenchPath makes namespaces of its own, with the box or the kernel in their
// middle, and sees that it translates.
func newBenchPath(t *testing.T, name, driver string) *benchPath {
	t.Helper()
	n := newTestNet(t, driver)
	p := &benchPath{name: name, n: n, dev: "pbout", ns: n.out}
	switch name {
	case "nothing": // what a packet costs that is dropped where the box would be
		p.dev, p.ns = "pbin", n.box
		mustIP(t, "-n", n.box, "link", "set", "pbin", "up")
	case "kernel":
		n.kernelForwards(t)
		if out, err := n.run(patience, n.box, "nft", `
add table ip bench
add chain ip bench before { type nat hook prerouting priority -100; }
add rule ip bench before iifname "pbout" ip daddr 203.0.113.50 dnat to 10.20.0.50
add chain ip bench after { type nat hook postrouting priority 100; }
add rule ip bench after ip saddr 10.20.0.50 oifname "pbout" snat to 203.0.113.50`); err != nil {
			t.Skipf("needs NAT by nftables in the kernel: %v: %s", err, out)
		}
	default:
		p.box = n.start(t, startOptions{config: benchConfig, level: "info"})
	}
	// ARP passes, for the sink is the kernel.
	if out, err := n.run(patience, p.ns, "nft", `
add table netdev bench
add chain netdev bench arrived { type filter hook ingress device `+p.dev+` priority 0; }
add rule netdev bench arrived ip protocol udp drop`); err != nil {
		t.Skipf("needs nftables' ingress hook in the kernel: %v: %s", err, out)
	}
	p.gen = newGenerator(t, n)
	if name != "nothing" {
		t.Run(name+" translates", p.translates)
	}
	if p.box != nil {
		pin(t, p.box.cmd.Process.Pid, boxCore)
	}
	return p
}

// translates sends a packet of each flow, and looks at what arrives.
func (p *benchPath) translates(t *testing.T) {
	c := p.n.capture(t, p.n.out, "pbout")
	seen := make(map[uint16]bool)
	defer func() {
		if len(seen) < benchFlows {
			t.Logf("%d flows of %d arrived", len(seen), benchFlows)
		}
	}()
	eventually(t, "all flows arrive", func() bool {
		p.gen.send(benchFlows, 0, time.Second) // at once would be more than waits for ARP
		for _, x := range c.packets(nil) {
			if src, dst := ends(x); dst == benchSink.Addr() && x.Layer(layers.LayerTypeUDP) != nil {
				if src != benchMapped {
					t.Fatalf("%s: %v arrives from %v, want %v", p.name, x, src, benchMapped)
				}
				data := x.NetworkLayer().LayerContents()
				whole := append(slices.Clone(data), x.NetworkLayer().LayerPayload()...)
				q := stack.NewPacket(len(whole))
				q.SetData(whole)
				if v := q.Parse(); v != stack.Forward {
					t.Fatalf("%s: a packet arrives that is none: %v", p.name, v)
				}
				seen[q.Flow().Src.Port()] = true
			}
		}
		return len(seen) == benchFlows
	})
}

// measure sends at a rate and says what became of it.
func (p *benchPath) measure(t *testing.T, rate int) benchSample {
	t.Helper()
	p.gen.send(0, rate, benchSettle)
	time.Sleep(50 * time.Millisecond) // for what is still on its way
	pid := 0
	if p.box != nil {
		pid = p.box.cmd.Process.Pid
	}
	arrived, box, soft := p.arrived(t), runTime(t, pid), softTime(t)
	start := time.Now()
	var s benchSample
	s.sent, s.generator = p.gen.send(0, rate, *benchFor)
	s.took = time.Since(start)
	time.Sleep(50 * time.Millisecond)
	s.arrived, s.box, s.soft = p.arrived(t)-arrived, runTime(t, pid)-box, softTime(t)-soft
	return s
}

// arrived counts what the sink got.
func (p *benchPath) arrived(t *testing.T) (n uint64) {
	t.Helper()
	p.n.within(t, p.ns, func() error {
		l, err := netlink.LinkByName(p.dev)
		if err == nil {
			n = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	return n
}

// runTime returns how long the threads of a process have run, user and system.
// (proc(5), schedstat.)
func runTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	if pid == 0 {
		return 0
	}
	return schedTime(t, fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
}

// softTime returns how long the kernel's threads for soft interrupts have run.
func softTime(t *testing.T) time.Duration {
	t.Helper()
	var sum time.Duration
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	must(t, err)
	for _, f := range files {
		if name, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(name), "ksoftirqd/") {
			sum += schedTime(t, filepath.Join(filepath.Dir(f), "schedstat"))
		}
	}
	return sum
}

// schedTime sums the first field of schedstat files.
func schedTime(t *testing.T, pattern string) (sum time.Duration) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	must(t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that has ended
		}
		ns, err := strconv.ParseInt(string(bytes.Fields(text)[0]), 10, 64)
		must(t, err)
		sum += time.Duration(ns)
	}
	return sum
}

// pin keeps a process on a core, at a real-time priority.
func pin(t *testing.T, pid, core int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	must(t, err)
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		must(t, err)
		if err := pinThread(tid, core); err != nil {
			t.Fatalf("pinning thread %d: %v", tid, err)
		}
	}
}

// pinThread keeps a thread on a core, at a real-time priority; 0 is the caller's.
func pinThread(tid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return err
	}
	// Not SCHED_FIFO: a thread of Go's that spins until another of the same core is done
	// would spin for ever.
	return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: realTime}, 0)
}

// A generator sends prepared frames into a device of the namespace inside, from
// a thread of its own.
type generator struct {
	orders chan order
	done   chan sending
}

// An order is to send count packets, or for as long as a time; rate 0 is as fast
// as possible.
type order struct {
	count, rate int
	during      time.Duration
}

// A sending is what came of an order.
type sending struct {
	sent uint64
	cpu  time.Duration
	err  error
}

// newGenerator starts a generator on pbin. It ends with the test.
func newGenerator(t *testing.T, n *testNet) *generator {
	t.Helper()
	var mac net.HardwareAddr
	if n.driver != overTUN {
		n.within(t, n.box, func() error {
			l, err := netlink.LinkByName("pbin")
			if err == nil {
				mac = l.Attrs().HardwareAddr
			}
			return err
		})
	}
	g := &generator{make(chan order), make(chan sending)}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		h, err := netns.GetFromName(n.in)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		var fd int
		if err == nil {
			fd, err = openGenerator("pbin")
		}
		if err == nil {
			err = pinThread(0, generatorCore)
		}
		ready <- err
		if err != nil {
			return
		}
		defer unix.Close(fd)
		frames := benchFrames(mac)
		for o := range g.orders {
			g.done <- generate(fd, frames, o)
		}
	}()
	must(t, <-ready)
	t.Cleanup(func() { close(g.orders) })
	return g
}

// openGenerator opens a packet socket that sends by a device, past its queue.
func openGenerator(dev string) (int, error) {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return -1, err
	}
	// Bound to a protocol it would receive; sending wants one on a device
	// without Ethernet.
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index})
}

// benchFrames are one frame of each flow, with an Ethernet header if mac is that
// of the box.
func benchFrames(mac net.HardwareAddr) [][]byte {
	frames := make([][]byte, benchFlows)
	payload := make([]byte, benchLen-28)
	for i := range frames {
		f := stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(benchHost, uint16(20_000+i)), Dst: benchSink}
		var header []byte
		if mac != nil {
			header = append(append(header, mac...), 2, 0, 0, 0, 0, 1, 8, 0)
		}
		frames[i] = stack.AppendUDP(header, f, payload)
	}
	return frames
}

// generate carries out an order. Of the CPU only what passes while the kernel
// sends is counted, not the waiting.
func generate(fd int, frames [][]byte, o order) (s sending) {
	type message struct { // struct mmsghdr
		unix.Msghdr
		_ [8]byte
	}
	to := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: 8} // ETH_P_IP, as the network has it
	if addr, err := unix.Getsockname(fd); err == nil {
		to.Ifindex = int32(addr.(*unix.SockaddrLinklayer).Ifindex)
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&to)
	msgs, iovs := make([]message, len(frames)), make([]unix.Iovec, len(frames))
	for i, f := range frames {
		iovs[i].Base = &f[0]
		iovs[i].SetLen(len(f))
		msgs[i].Iov = &iovs[i]
		msgs[i].SetIovlen(1)
		msgs[i].Name, msgs[i].Namelen = (*byte)(unsafe.Pointer(&to)), uint32(unsafe.Sizeof(to))
	}
	cpu := func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
			s.err = err
		}
		return time.Duration(ts.Nano())
	}
	start := time.Now()
	next := 0
	for s.err == nil && (o.count == 0 || s.sent < uint64(o.count)) {
		elapsed := time.Since(start)
		if elapsed >= o.during && o.count == 0 {
			break
		}
		due := benchBatch
		if o.rate > 0 {
			if *benchTick > 0 {
				elapsed = elapsed.Truncate(*benchTick)
			}
			due = min(due, int(elapsed.Seconds()*float64(o.rate))-int(s.sent))
		}
		due = min(due, len(frames)-next)
		if o.count > 0 {
			due = min(due, o.count-int(s.sent))
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) // not the runtime's: its threads have no priority
		}
		if due <= 0 {
			continue
		}
		before := cpu()
		r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs[next])), uintptr(due), 0, 0, 0)
		s.cpu += cpu() - before
		switch errno {
		case 0:
			s.sent += uint64(r)
			next += int(r)
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR: // the first was dropped
			s.sent++
			next++
		default:
			s.err = errno
		}
		if next >= len(frames) {
			next = 0
		}
	}
	return s
}

// send has the generator send.
func (g *generator) send(count, rate int, during time.Duration) (sent uint64, cpu time.Duration) {
	g.orders <- order{count, rate, during}
	s := <-g.done
	if s.err != nil {
		panic(s.err)
	}
	return s.sent, s.cpu
}
