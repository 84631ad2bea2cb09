package link

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// namespaces locks the test to its thread, puts it into a fresh network
// namespace and returns that and n others.
func namespaces(t testing.TB, n int) []netns.NsHandle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Skip("needs root and network namespaces: ", err)
	}
	var all []netns.NsHandle
	t.Cleanup(func() {
		for _, ns := range all {
			ns.Close()
		}
		if err := netns.Set(home); err != nil {
			t.Fatal(err) // the thread stays locked and dies with the test
		}
		home.Close()
		runtime.UnlockOSThread()
	})
	for range n + 1 {
		ns, err := netns.New()
		if err != nil {
			t.Skip("needs root and network namespaces: ", err)
		}
		all = append(all, ns)
	}
	// The thread is in the last one; make that the first.
	all[0], all[n] = all[n], all[0]
	must(t, netlink.LinkSetUp(device(t, "lo")))
	return all
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within runs f on this thread in the namespace ns.
func within(t testing.TB, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread() // a subtest is not yet
	defer runtime.UnlockOSThread()
	back, err := netns.Get()
	must(t, err)
	defer back.Close()
	must(t, netns.Set(ns))
	defer func() { must(t, netns.Set(back)) }()
	f()
}

func device(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func addAddr(t testing.TB, name, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	must(t, err)
	must(t, netlink.AddrAdd(device(t, name), a))
}

// kernelHears returns a function that sends a datagram from the namespace far
// to a socket of the kernel here with the address addr, and reports whether it
// arrived within wait.
func kernelHears(t *testing.T, far netns.NsHandle, addr string) func(wait time.Duration) bool {
	t.Helper()
	here, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr)})
	must(t, err)
	t.Cleanup(func() { here.Close() })
	there := peerUDP(t, far)
	t.Cleanup(func() { there.Close() })
	return func(wait time.Duration) bool {
		_, err := there.WriteTo([]byte("hear"), here.LocalAddr())
		must(t, err)
		must(t, here.SetReadDeadline(time.Now().Add(wait)))
		var b [10]byte
		_, _, err = here.ReadFrom(b[:])
		return err == nil
	}
}

// A reader reads a link in a goroutine, as Forwarder.Run does, and parses.
type reader struct {
	packets chan *stack.Packet
	vouched chan bool
	done    chan error
}

func read(l stack.Link) *reader {
	r := &reader{make(chan *stack.Packet, 1000), make(chan bool, 1000), make(chan error, 1)}
	go func() {
		batch := batchOf(64)
		for {
			n, err := l.Read(batch)
			for i, p := range batch[:n] {
				batch[i] = stack.NewPacket(1500)
				v := p.ChecksumVouched
				if p.Parse() == stack.Forward {
					r.packets <- p
					r.vouched <- v
				}
			}
			if err != nil {
				r.done <- err
				return
			}
		}
	}()
	return r
}

// next returns the next packet of the protocol proto.
func (r *reader) next(t testing.TB, proto stack.Proto) (p *stack.Packet, vouched bool) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case p := <-r.packets:
			if v := <-r.vouched; p.Flow().Proto == proto {
				return p, v
			}
		case err := <-r.done:
			t.Fatal("reading: ", err)
		case <-late:
			t.Fatal("no ", proto, " packet")
		}
	}
}

// ended returns how reading ended.
func (r *reader) ended(t testing.TB) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("Read does not end")
		return nil
	}
}

// veth makes a cable between the device pb0 here and peer0, with the address
// 203.0.113.7, in the namespace far.
func veth(t testing.TB, far netns.NsHandle) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pb0"}, PeerName: "peer0"}))
	must(t, netlink.LinkSetNsFd(device(t, "peer0"), int(far)))
	within(t, far, func() {
		addAddr(t, "peer0", ipPeer+"/24")
		must(t, netlink.LinkSetUp(device(t, "peer0")))
	})
}

// ping sends an echo from the namespace ns to dst, and reports whether there
// was an answer within wait.
func ping(t *testing.T, ns netns.NsHandle, dst string, wait time.Duration) bool {
	t.Helper()
	var c *net.IPConn
	within(t, ns, func() {
		var err error
		c, err = net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: net.ParseIP(dst)})
		must(t, err)
	})
	defer c.Close()
	f := stack.Flow{Src: netip.MustParseAddrPort("0.0.0.0:77"), Dst: netip.MustParseAddrPort("0.0.0.0:0")}
	echo := stack.AppendICMPEcho(nil, f, 1, nil)[20:]
	if _, err := c.Write(echo); err != nil {
		return false // host unreachable: nobody answered ARP
	}
	must(t, c.SetReadDeadline(time.Now().Add(wait)))
	var b [100]byte
	_, err := c.Read(b[:])
	return err == nil
}

// open skips the test if the kernel has no packet sockets, or no AF_XDP;
// everything else is a failure.
func open(t testing.TB, name string, opt Options) stack.Link {
	t.Helper()
	l, err := Open(name, opt)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("needs packet sockets, or AF_XDP: ", err)
	}
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// drivers are those of an Ethernet device, as Open takes them with one.
var deviceDrivers = []struct{ name, before, after string }{
	{"packet", "packet:", ""},
	{"xdp native", "xdp:", ",mode=native"},
	{"xdp generic", "xdp:", ",mode=generic"},
}

// TestDevice has each driver of an Ethernet device exchange packets with a kernel
// that is no part of the path on this side.
func TestDevice(t *testing.T) {
	for _, d := range deviceDrivers {
		t.Run(d.name, func(t *testing.T) { testDevice(t, d.before+"pb0"+d.after) })
	}
}

func testDevice(t *testing.T, name string) {
	ns := namespaces(t, 1)
	far := ns[1]
	veth(t, far)
	// An address of the kernel's that it would answer for on any device.
	const kernelAddr = "203.0.113.99"
	addAddr(t, "lo", kernelAddr+"/32")
	must(t, netlink.LinkSetUp(device(t, "pb0")))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: device(t, "pb0").Attrs().Index, Scope: netlink.SCOPE_LINK,
		Dst: &net.IPNet{IP: net.IPv4(203, 0, 113, 0), Mask: net.CIDRMask(24, 32)}}))
	if !ping(t, far, kernelAddr, patience) {
		t.Fatal("before: the kernel does not answer, so its silence would prove nothing")
	}
	heard := kernelHears(t, far, kernelAddr)
	if !heard(patience) {
		t.Fatal("before: the kernel hears nothing, so its deafness would prove nothing")
	}
	before := device(t, "pb0").Attrs().RawFlags

	l := open(t, name, Options{})
	e := l.(*Ethernet)
	if e.MTU() != 1500 || e.MAC().String() != device(t, "pb0").Attrs().HardwareAddr.String() {
		t.Errorf("MTU %d, MAC %v", e.MTU(), e.MAC())
	}
	e.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), func(a netip.Addr) bool { return a.String() == ipProxy })
	r := read(l)

	t.Run("udp", func(t *testing.T) {
		c := peerUDP(t, far)
		defer c.Close()
		// More than once round the ring.
		const rounds, each = 130, 50
		for k := range rounds {
			for range each {
				if _, err := c.WriteTo([]byte{byte(k)}, &net.UDPAddr{IP: net.ParseIP(ipProxy), Port: 69}); err != nil {
					t.Fatal(err)
				}
			}
			for range each {
				p, vouched := r.next(t, stack.UDP)
				if p.Flow().Dst.String() != ipProxy+":69" || len(p.Payload()) != 1 || p.Payload()[0] != byte(k) {
					t.Fatalf("round %d: got %v", k, p)
				}
				if !vouched {
					t.Fatal("the checksum of a locally made packet is not marked as open")
				}
				whole(t, p)
			}
		}
		back := stack.NewPacket(1500)
		f := stack.Flow{Src: netip.MustParseAddrPort(ipProxy + ":69"), Dst: netip.MustParseAddrPort(c.LocalAddr().String())}
		back.SetData(stack.AppendUDP(nil, f, []byte("answer")))
		must(t, l.Write([]*stack.Packet{back}))
		must(t, c.SetReadDeadline(time.Now().Add(patience)))
		var b [100]byte
		n, from, err := c.ReadFrom(b[:])
		if err != nil || string(b[:n]) != "answer" || from.String() != ipProxy+":69" {
			t.Errorf("peer got %q from %v, %v", b[:n], from, err)
		}
	})

	t.Run("tcp", func(t *testing.T) {
		dialed := make(chan error, 1)
		ready := make(chan struct{})
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread dies
			if err := netns.Set(far); err != nil {
				dialed <- err
				return
			}
			close(ready)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp4", ipBox+":2000")
			if err == nil {
				c.Close()
			}
			dialed <- err
		}()
		<-ready
		p, vouched := r.next(t, stack.TCP)
		if p.TCPFlags() != stack.FlagSYN && p.TCPFlags() != stack.FlagSYN|stack.FlagECE|stack.FlagCWR || !vouched {
			t.Errorf("got %v, vouched %v", p, vouched)
		}
		whole(t, p)
		rst := stack.NewPacket(1500)
		rst.SetData(stack.AppendTCP(nil, p.Flow().Reverse(), stack.TCPHeader{Ack: p.TCPSeq() + 1, Flags: stack.FlagRST | stack.FlagACK}, nil))
		must(t, l.Write([]*stack.Packet{rst}))
		if err := <-dialed; !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("dial = %v, want connection refused", err)
		}
	})

	// A sender on this machine leaves the cutting of long segments to its
	// device, which is veth and does not.
	t.Run("long segments", func(t *testing.T) {
		const total = 40_000
		var dialer net.Dialer
		sent := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread dies
			if err := netns.Set(far); err != nil {
				sent <- err
				return
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := dialer.DialContext(ctx, "tcp4", ipBox+":2000")
			if err == nil {
				_, err = c.Write(make([]byte, total))
			}
			sent <- err
		}()
		p, _ := r.next(t, stack.TCP)
		answer := func(h stack.TCPHeader, p *stack.Packet) {
			q := stack.NewPacket(1500)
			h.Window = 65535
			q.SetData(stack.AppendTCP(nil, p.Flow().Reverse(), h, nil))
			must(t, l.Write([]*stack.Packet{q}))
		}
		first := p.TCPSeq() + 1
		answer(stack.TCPHeader{Seq: 1, Ack: first, Flags: stack.FlagSYN | stack.FlagACK, MSS: 1460}, p)
		next := first
		for next-first < total {
			if p, _ = r.next(t, stack.TCP); len(p.Payload()) == 0 {
				continue
			}
			whole(t, p)
			if p.Len() > 1500 {
				t.Fatalf("packet of %d bytes", p.Len())
			}
			if p.TCPSeq() == next {
				next += uint32(len(p.Payload()))
			}
			answer(stack.TCPHeader{Seq: 2, Ack: next, Flags: stack.FlagACK}, p)
		}
		if err := <-sent; err != nil {
			t.Errorf("sending: %v", err)
		}
		answer(stack.TCPHeader{Seq: 2, Ack: next, Flags: stack.FlagRST | stack.FlagACK}, p)
		if n := e.Stats().Drops[Oversize]; n != 0 {
			t.Errorf("%d frames were too long", n)
		}
	})

	t.Run("kernel is silent", func(t *testing.T) {
		// With our ARP answer in place of the kernel's, the echo arrives and
		// we see it; the kernel, whose address it is, must not answer.
		e.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), func(a netip.Addr) bool { return a.String() == kernelAddr })
		within(t, far, func() { forget(t, kernelAddr) })
		if ping(t, far, kernelAddr, 300*time.Millisecond) {
			t.Error("the kernel answered an echo")
		}
		if p, _ := r.next(t, stack.ICMP); p.Flow().Dst.Addr().String() != kernelAddr {
			t.Errorf("got %v", p)
		}
		// Not answering might be for want of the peer's MAC address alone.
		if heard(300 * time.Millisecond) {
			t.Error("the kernel heard a datagram")
		}
		if p, _ := r.next(t, stack.UDP); p.Flow().Dst.Addr().String() != kernelAddr {
			t.Errorf("got %v", p)
		}
		// Without it nobody answers ARP. An answer of ours to what was asked before
		// may come late, but not each time.
		e.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
		answered := func() (mac net.HardwareAddr) {
			within(t, far, func() { forget(t, kernelAddr) })
			if ping(t, far, kernelAddr, 300*time.Millisecond) {
				t.Error("the kernel answered")
			}
			within(t, far, func() {
				ns, err := netlink.NeighList(device(t, "peer0").Attrs().Index, netlink.FAMILY_V4)
				must(t, err)
				for _, n := range ns {
					if n.IP.String() == kernelAddr {
						mac = n.HardwareAddr
					}
				}
			})
			return mac
		}
		for try := 0; answered() != nil; try++ {
			if try == 3 {
				t.Error("the kernel answers ARP")
				break
			}
		}
	})

	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/pb0/disable_ipv6"); err == nil && strings.TrimSpace(string(b)) != "1" {
		t.Errorf("disable_ipv6 is %q", b)
	}
	if device(t, "pb0").Attrs().RawFlags&unix.IFF_NOARP == 0 {
		t.Error("the kernel's ARP is on")
	}
	if s := e.Stats(); s.InPackets < 130*50 || s.OutPackets < 2 {
		t.Errorf("stats %+v", s)
	}

	must(t, l.Close())
	if err := r.ended(t); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read ended with %v, want net.ErrClosed", err)
	}
	if err := l.Write([]*stack.Packet{udp(t, ipBox, "255.255.255.255", 1)}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v, want net.ErrClosed", err)
	}
	must(t, l.Close())

	switch d := e.dev.(type) {
	case *packetDevice:
		if len(d.super.frame) <= 1514 {
			t.Errorf("no long segment came, so none was cut (%d bytes)", len(d.super.frame))
		}
	case *xdpDevice:
		// In its driver a program has veth's peer cut them.
		if cut := d.all.super.frame; d.port.mode == xdpGeneric && len(cut) <= 1514 {
			t.Errorf("no long segment came, so none was cut (%d bytes)", len(cut))
		}
	}

	// All is as it was.
	checkNoProgram(t)
	if got := device(t, "pb0").Attrs().RawFlags; got != before {
		t.Errorf("flags %#x, before %#x", got, before)
	}
	qs, err := netlink.QdiscList(device(t, "pb0"))
	must(t, err)
	for _, q := range qs {
		if q.Type() == "clsact" {
			t.Error("the clsact queue is still there")
		}
	}
	within(t, far, func() { forget(t, kernelAddr) })
	if !ping(t, far, kernelAddr, patience) {
		t.Error("after: the kernel does not answer any more")
	}
}

// checkNoProgram complains if pb0 has an XDP program.
func checkNoProgram(t *testing.T) {
	t.Helper()
	if x := device(t, "pb0").Attrs().Xdp; x != nil && x.Attached {
		t.Errorf("pb0 has XDP program %d", x.ProgId)
	}
}

// forget makes the kernel forget the neighbour addr of peer0.
func forget(t *testing.T, addr string) {
	t.Helper()
	err := netlink.NeighDel(&netlink.Neigh{LinkIndex: device(t, "peer0").Attrs().Index, IP: net.ParseIP(addr)})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
}

// peerUDP returns a socket of the peer's.
func peerUDP(t *testing.T, far netns.NsHandle) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	within(t, far, func() {
		var err error
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ipPeer)})
		must(t, err)
	})
	return c
}

// whole checks the transport checksum of p, which Parse filled in, by parsing
// again.
func whole(t testing.TB, p *stack.Packet) {
	t.Helper()
	q := stack.NewPacket(p.Len())
	q.SetData(p.Data())
	if v := q.Parse(); v != stack.Forward {
		t.Errorf("%v: %v", p, v)
	}
	if p.Flow().Proto == stack.UDP && binary.BigEndian.Uint16(p.Transport()[6:]) == 0 {
		t.Errorf("%v: no checksum", p)
	}
}

// BenchmarkDevice has a packet read from a device and written to it, 64 at a time,
// with its sender and receiver in the kernel: no allocation.
func BenchmarkDevice(b *testing.B) {
	for _, d := range deviceDrivers {
		b.Run(d.name, func(b *testing.B) {
			ns := namespaces(b, 1)
			veth(b, ns[1])
			var raw int
			within(b, ns[1], func() {
				var err error
				raw, err = packetSocket()
				must(b, err)
				must(b, bind(raw, device(b, "peer0").Attrs().Index, 0))
			})
			defer unix.Close(raw)
			l := open(b, d.before+"pb0"+d.after, Options{}).(*Ethernet)
			l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
			f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(ipPeer + ":5000"), Dst: netip.MustParseAddrPort(ipBox + ":69")}
			mac := l.MAC()
			frame := stack.AppendUDP(append(append([]byte{}, mac[:]...), 2, 0, 0, 0, 0, 9, 8, 0), f, make([]byte, 172))
			batch := batchOf(64)
			send := func() {
				for range batch {
					_, err := unix.Write(raw, frame)
					must(b, err)
				}
			}
			pass := func() (n int) {
				n, err := l.Read(batch)
				must(b, err)
				for _, p := range batch[:n] {
					p.Parse()
					p.NextHop = netip.AddrFrom4([4]byte{224, 0, 0, 1}) // no ARP
				}
				must(b, l.Write(batch[:n]))
				return n
			}
			send()
			for got := 0; got == 0; { // until the device is up there may be other packets
				got = pass()
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				send()
				i += pass()
			}
		})
	}
}

func TestPacketRefuses(t *testing.T) {
	ns := namespaces(t, 1)
	veth(t, ns[1])
	_, err := Open("packet:nosuch0", Options{})
	if err == nil || !strings.Contains(err.Error(), `link: opening "packet:nosuch0": there is no device nosuch0`) {
		t.Errorf("no device: %v", err)
	}
	_, err = Open("packet:lo", Options{})
	if err == nil || !strings.Contains(err.Error(), "lo is no Ethernet device") {
		t.Errorf("lo: %v", err)
	}
	addAddr(t, "pb0", ipBox+"/24")
	_, err = Open("packet:pb0", Options{})
	if err == nil || !strings.Contains(err.Error(), "the kernel has address 203.0.113.1/24 on it; remove it (ip addr del 203.0.113.1/24 dev pb0)") {
		t.Errorf("with an address: %v", err)
	}
	if f := device(t, "pb0").Attrs().RawFlags; f&unix.IFF_NOARP != 0 || f&unix.IFF_UP != 0 {
		t.Errorf("the refused device has flags %#x", f)
	}
}

func TestTUN(t *testing.T) {
	namespaces(t, 0)
	l, err := Open("tun:pb0", Options{MTU: 1400})
	if err != nil && strings.Contains(err.Error(), "/dev/net/tun") {
		t.Skip("needs /dev/net/tun: ", err)
	}
	must(t, err)
	defer l.Close()
	if d := device(t, "pb0"); l.MTU() != 1400 || d.Attrs().MTU != 1400 || d.Attrs().RawFlags&unix.IFF_UP == 0 {
		t.Errorf("MTU %d, of the device %d, flags %#x", l.MTU(), d.Attrs().MTU, d.Attrs().RawFlags)
	}
	if _, err := Open("tun:pb0", Options{}); err == nil || !strings.Contains(err.Error(), "device pb0 is in use by another program") {
		t.Errorf("second Open = %v", err)
	}
	addAddr(t, "pb0", "10.20.0.1/24")
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 20, 0, 1), Port: 69})
	must(t, err)
	defer c.Close()

	r := read(l)
	p, q := udp(t, "10.20.0.11", "10.20.0.1", 3), udp(t, "10.20.0.11", "10.20.0.1", 1400)
	must(t, l.Write([]*stack.Packet{p, q}))
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	var b [100]byte
	n, from, err := c.ReadFrom(b[:])
	if err != nil || n != 3 || from.String() != "10.20.0.11:5000" {
		t.Fatalf("the kernel got %d bytes from %v, %v", n, from, err)
	}
	_, err = c.WriteTo([]byte("answer"), from)
	must(t, err)
	got, _ := r.next(t, stack.UDP)
	if string(got.Payload()) != "answer" || got.Flow().String() != "udp 10.20.0.1:69 -> 10.20.0.11:5000" || got.Time.IsZero() {
		t.Errorf("got %v", got)
	}
	s := l.(Counter).Stats()
	if s.OutPackets != 1 || s.OutBytes != 31 || s.Drops[Oversize] != 1 || s.InPackets == 0 {
		t.Errorf("stats %+v", s)
	}

	var closing sync.WaitGroup
	closing.Add(1)
	go func() { defer closing.Done(); l.Close() }()
	if err := r.ended(t); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read ended with %v, want net.ErrClosed", err)
	}
	closing.Wait()
	if err := l.Write([]*stack.Packet{p}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v, want net.ErrClosed", err)
	}
	if _, err := netlink.LinkByName("pb0"); err == nil {
		t.Error("the device is still there")
	}
}
