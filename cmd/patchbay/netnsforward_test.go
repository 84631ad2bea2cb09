//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patchbay/appliance/lab"
)

// bulk is how much a test of forwarding carries each way, in bytes.
const bulk = 5 << 20

// TestForwarding has hosts of the kernel talk through the box, with whatever
// offloads their devices have.
func TestForwarding(t *testing.T) {
	t.Parallel()
	for _, driver := range append(drivers, overGeneric) {
		t.Run(driver, func(t *testing.T) {
			n := newTestNet(t, driver)
			deny := "access-list outside_in extended deny ip any any log"
			ping := "class-map all\n match any\npolicy-map ping_policy\n class all\n  inspect icmp\nservice-policy ping_policy interface inside\n"
			b := n.start(t, startOptions{config: demoWith(t, deny,
				"access-list outside_in extended permit tcp any host 10.20.0.11 eq 8080\n"+deny+"\n"+ping)})
			f := &forwarding{n, b, n.host(t, n.out, netip.MustParseAddr("198.51.100.9")),
				n.host(t, n.in, deskAddr), n.host(t, n.in, ucmReal)}
			t.Run("transfer through PAT", f.transfer)
			t.Run("translations", f.translations)
			t.Run("UDP through PAT", f.udp)
			t.Run("ping through PAT", f.ping)
			t.Run("from outside", f.fromOutside)
		})
	}
}

// A forwarding is the box with hosts on both sides.
type forwarding struct {
	n              *testNet
	b              *runningBox
	far, desk, ucm *lab.KernelHost
}

// pipe connects from a host to a TCP server that listens at real and is known
// to the client as mapped. It returns both ends.
func pipe(t *testing.T, from *lab.KernelHost, laddr netip.AddrPort, server *lab.KernelHost, port uint16, mapped netip.Addr) (c, s net.Conn) {
	t.Helper()
	l, err := server.ListenTCP(netip.AddrPortFrom(netip.Addr{}, port))
	must(t, err)
	defer l.Close()
	if !mapped.IsValid() {
		mapped = server.Addr()
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		s, err := l.Accept()
		if err != nil {
			s = nil
		}
		accepted <- s
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	to := netip.AddrPortFrom(mapped, addrPortOf(t, l.Addr()).Port())
	if c, err = from.DialTCP(ctx, laddr, to); err != nil {
		t.Fatalf("from %v to %v: %v", from.Addr(), to, err)
	}
	t.Cleanup(func() { c.Close() })
	select {
	case s = <-accepted:
	case <-ctx.Done():
	}
	if s == nil {
		t.Fatalf("%v took no connection from %v", to, from.Addr())
	}
	t.Cleanup(func() { s.Close() })
	must(t, errors.Join(c.SetDeadline(time.Now().Add(patience)), s.SetDeadline(time.Now().Add(patience))))
	return c, s
}

// addrPortOf returns the address of a TCP or UDP socket's end.
func addrPortOf(t testing.TB, a net.Addr) netip.AddrPort {
	t.Helper()
	ap, err := netip.ParseAddrPort(a.String())
	must(t, err)
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// transfer carries megabytes both ways at once.
func (f *forwarding) transfer(t *testing.T) {
	c, s := pipe(t, f.desk, netip.AddrPort{}, f.far, 0, netip.Addr{})
	type sum [sha256.Size]byte
	random := func(seed byte) ([]byte, sum) {
		data := make([]byte, bulk)
		rand.NewChaCha8([32]byte{seed}).Read(data)
		return data, sha256.Sum256(data)
	}
	start := time.Now()
	errs := make(chan error, 4)
	for i, ends := range [][2]net.Conn{{c, s}, {s, c}} {
		data, want := random(byte(i))
		go func() {
			_, err := ends[0].Write(data)
			errs <- errors.Join(err, ends[0].(*net.TCPConn).CloseWrite())
		}()
		go func() {
			got, err := io.ReadAll(ends[1])
			if err == nil && sha256.Sum256(got) != want {
				err = errors.New("what arrived is not what was sent")
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	took := time.Since(start)
	t.Logf("%d MB each way in %v: %.0f Mbit/s", bulk>>20, took.Round(time.Millisecond), 2*8*bulk/1e6/took.Seconds())
}

// translations looks at what the far end sees of who it is.
func (f *forwarding) translations(t *testing.T) {
	for _, tt := range []struct {
		name string
		from *lab.KernelHost
		port uint16
		want netip.AddrPort
	}{
		{"interface PAT keeps a free port", f.desk, 40_001, netip.AddrPortFrom(boxAddr, 40_001)},
		{"static NAT", f.ucm, 40_002, netip.AddrPortFrom(ucmMapped, 40_002)},
	} {
		c, s := pipe(t, tt.from, netip.AddrPortFrom(netip.Addr{}, tt.port), f.far, 0, netip.Addr{})
		if got := addrPortOf(t, s.RemoteAddr()); got != tt.want {
			t.Errorf("%s: %v is seen as %v, want %v", tt.name, c.LocalAddr(), got, tt.want)
		}
	}
	// The port is taken now.
	second := f.n.host(t, f.n.in, netip.MustParseAddr("10.20.0.51"))
	_, s := pipe(t, second, netip.AddrPortFrom(netip.Addr{}, 40_001), f.far, 0, netip.Addr{})
	_, s1 := pipe(t, f.desk, netip.AddrPortFrom(netip.Addr{}, 40_003), f.far, 9001, netip.Addr{})
	_, s2 := pipe(t, second, netip.AddrPortFrom(netip.Addr{}, 40_003), f.far, 9001, netip.Addr{})
	for _, got := range []netip.AddrPort{addrPortOf(t, s.RemoteAddr()), addrPortOf(t, s2.RemoteAddr())} {
		if got.Addr() != boxAddr {
			t.Errorf("the second host is seen as %v, want %v", got, boxAddr)
		}
	}
	if a, b := addrPortOf(t, s1.RemoteAddr()), addrPortOf(t, s2.RemoteAddr()); a == b {
		t.Errorf("two hosts are %v at once", a)
	}
}

// udp sends datagrams, one of them in fragments, to a server that returns them.
func (f *forwarding) udp(t *testing.T) {
	server, err := f.far.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer server.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			k, who, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			// The server tells whom it sees, and returns the rest.
			server.WriteTo(append([]byte(who.String()+" "), buf[:k]...), who)
		}
	}()
	for _, tt := range []struct {
		from *lab.KernelHost
		want netip.Addr
	}{{f.desk, boxAddr}, {f.ucm, ucmMapped}} {
		c, err := tt.from.ListenUDP(netip.AddrPortFrom(netip.Addr{}, 40_010))
		must(t, err)
		defer c.Close()
		for _, size := range []int{0, 1, 160, 1472, 1473, 4000, 20_000} {
			data := bytes.Repeat([]byte{'a'}, size)
			want := netip.AddrPortFrom(tt.want, 40_010).String() + " " + string(data)
			buf := make([]byte, 1<<16)
			got := ""
			for tries := 0; got != want && tries < 5; tries++ { // datagrams may be lost
				_, err := c.WriteTo(data, server.LocalAddr())
				must(t, err)
				must(t, c.SetReadDeadline(time.Now().Add(time.Second)))
				k, _, err := c.ReadFrom(buf)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					continue
				}
				must(t, err)
				got = string(buf[:k])
			}
			if got != want {
				t.Errorf("%v sent %d bytes: got %d bytes, %.40q..., want %.40q...", tt.from.Addr(), size, len(got), got, want)
			}
		}
	}
}

// ping has hosts inside ask outside.
func (f *forwarding) ping(t *testing.T) {
	c := f.n.capture(t, f.n.out, "pbout")
	for _, from := range []netip.Addr{deskAddr, ucmReal} {
		for _, size := range []int{56, 3000} {
			if !f.n.ping(t, f.n.in, from, f.far.Addr(), size, patience) {
				t.Errorf("ping with %d bytes from %v to %v is not answered", size, from, f.far.Addr())
			}
		}
	}
	seen := make(map[netip.Addr]bool)
	for _, p := range c.packets(nil) {
		if src, dst := ends(p); dst == f.far.Addr() {
			seen[src] = true
		}
	}
	if !seen[boxAddr] || !seen[ucmMapped] || len(seen) != 2 {
		t.Errorf("outside saw %v, want %v and %v", seen, boxAddr, ucmMapped)
	}
	// An error is translated as well: its quoted packet is the host's own.
	in := f.n.capture(t, f.n.in, "pbin")
	closed := netip.AddrPortFrom(f.far.Addr(), 9)
	u, err := f.desk.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer u.Close()
	eventually(t, "port unreachable arrives inside", func() bool {
		u.WriteTo([]byte("discard"), net.UDPAddrFromAddrPort(closed)) // the error of the last one, perhaps
		return len(in.packets(func(p gopacket.Packet) bool {
			i, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
			if !ok || i.TypeCode != layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodePort) {
				return false
			}
			q := gopacket.NewPacket(i.Payload, layers.LayerTypeIPv4, gopacket.NoCopy)
			src, dst := ends(q)
			_, to := ends(p)
			return src == deskAddr && dst == f.far.Addr() && to == deskAddr
		})) > 0
	})
}

// fromOutside tries what the access list permits and what it does not.
func (f *forwarding) fromOutside(t *testing.T) {
	c, s := pipe(t, f.far, netip.AddrPort{}, f.ucm, 8080, ucmMapped)
	if got, want := s.RemoteAddr().String(), c.LocalAddr().String(); got != want {
		t.Errorf("the call manager sees %v, want the phone as it is, %v", got, want)
	}
	in := f.n.capture(t, f.n.in, "pbin")
	l, err := f.ucm.ListenTCP(netip.AddrPortFrom(netip.Addr{}, 22))
	must(t, err)
	defer l.Close()
	mustIP(t, "-n", f.n.out, "route", "add", "10.20.0.0/24", "via", boxAddr.String())
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(ucmMapped, 22), netip.AddrPortFrom(ucmMapped, 2000), netip.AddrPortFrom(ucmMapped, 5060),
		netip.AddrPortFrom(ucmReal, 22), netip.AddrPortFrom(deskAddr, 22),
		netip.AddrPortFrom(ucmReal, 8080), // permitted, but not by its real address
	} {
		checkNoAnswer(t, f.far, to, silentFor)
	}
	if got := in.packets(func(p gopacket.Packet) bool {
		src, _ := ends(p)
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		return ok && src == f.far.Addr() && tcp.SrcPort != layers.TCPPort(addrPortOf(t, c.LocalAddr()).Port())
	}); len(got) > 0 {
		t.Errorf("%d packets came in that may not, first\n%v", len(got), got[0])
	}
	f.b.await(t, "access-list outside_in denied")
}

// checkNoAnswer tries to connect for as long as wait, and complains of any
// answer.
func checkNoAnswer(t *testing.T, from *lab.KernelHost, to netip.AddrPort, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	c, err := from.DialTCP(ctx, netip.AddrPort{}, to)
	if err == nil {
		c.Close()
		t.Errorf("%v connects to %v", from.Addr(), to)
	} else if late, ok := errors.AsType[net.Error](err); !ok || !late.Timeout() || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("connecting to %v: %v, want no answer at all", to, err)
	}
}
