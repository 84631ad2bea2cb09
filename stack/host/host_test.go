package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"patchbay/stack"
)

// join carries packets between two hosts until the test ends, and shows each
// to see.
func join(t *testing.T, a, b *Stack, see func(p *stack.Packet)) {
	t.Helper()
	var wg sync.WaitGroup
	pump := func(from, to *Link) {
		defer wg.Done()
		batch := make([]*stack.Packet, 16)
		for i := range batch {
			batch[i] = stack.NewPacket(1500)
		}
		for {
			n, err := from.Read(batch)
			if err != nil {
				return
			}
			for _, p := range batch[:n] {
				if see != nil {
					see(p)
				}
			}
			if to.Write(batch[:n]) != nil {
				return
			}
		}
	}
	wg.Add(2)
	go pump(a.Link(), b.Link())
	go pump(b.Link(), a.Link())
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
}

func newHost(t *testing.T, addrs ...string) *Stack {
	t.Helper()
	var c Config
	for _, a := range addrs {
		c.Addrs = append(c.Addrs, netip.MustParsePrefix(a))
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	phone  = netip.MustParseAddrPort("198.51.100.7:49153")
	mapped = netip.MustParseAddrPort("203.0.113.10:2443")
	ucm    = netip.MustParseAddrPort("10.20.0.11:2000")
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// handleAll has f called with every connection to box.
func handleAll(box *Stack, f func(net.Conn)) {
	box.HandleTCP(func(_, _ netip.AddrPort, accept func() (net.Conn, error)) {
		if c, err := accept(); err == nil {
			f(c)
		}
	})
}

func TestHandleTCPAnyAddress(t *testing.T) {
	box, peer := newHost(t), newHost(t, "198.51.100.7/24")
	box.HandleTCP(func(local, _ netip.AddrPort, accept func() (net.Conn, error)) {
		if local != mapped {
			return
		}
		c, err := accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(c, c.LocalAddr().String()+" "+c.RemoteAddr().String())
	})
	join(t, box, peer, nil)

	c, err := peer.DialTCP(testContext(t), phone, mapped)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := mapped.String() + " " + phone.String(); string(got) != want || err != nil {
		t.Errorf("the box saw %q, %v; want %q", got, err, want)
	}
	c.Close()

	_, err = peer.DialTCP(testContext(t), netip.AddrPort{}, netip.MustParseAddrPort("203.0.113.10:22"))
	if err == nil {
		t.Error("a port that nobody admits was connected")
	}
}

// A connection can be ended with a reset.
func TestSetLinger(t *testing.T) {
	box, peer := newHost(t), newHost(t, "198.51.100.7/24")
	handleAll(box, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		if err := c.(interface{ SetLinger(sec int) error }).SetLinger(0); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	join(t, box, peer, nil)
	c, err := peer.DialTCP(testContext(t), phone, mapped)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the peer reads %v; want a reset", err)
	}
}

// The address of the phone on the leg to the UCM: the pitfall "spoofed dial
// without NIC" of reference/dataplane.md, section A.
func TestDialFromAnyAddress(t *testing.T) {
	box, peer := newHost(t), newHost(t, "10.20.0.11/24")
	l, err := peer.ListenTCP(ucm)
	if err != nil {
		t.Fatal(err)
	}
	join(t, box, peer, nil)
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	c, err := box.DialTCP(testContext(t), phone, ucm)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-accepted
	defer s.Close()
	if got := s.RemoteAddr().String(); got != phone.String() {
		t.Errorf("the UCM sees %v, want %v", got, phone)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16*4)
	go func() { c.Write(big); c.Close() }()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("read %d bytes, %v; want the %d that were sent", len(got), err, len(big))
	}
}

func TestDialInUse(t *testing.T) {
	box, peer := newHost(t), newHost(t, "10.20.0.11/24", "10.20.0.12/24")
	for _, a := range []string{"10.20.0.11:2000", "10.20.0.12:2000"} {
		l, err := peer.ListenTCP(netip.MustParseAddrPort(a))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	join(t, box, peer, nil)
	c, err := box.DialTCP(testContext(t), phone, ucm)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A second call manager from the same port is another connection.
	c2, err := box.DialTCP(testContext(t), phone, netip.MustParseAddrPort("10.20.0.12:2000"))
	if err != nil {
		t.Fatalf("second call manager: %v", err)
	}
	defer c2.Close()
	if _, err := box.DialTCP(testContext(t), phone, ucm); err == nil {
		t.Error("the same connection was opened twice")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := box.DialTCP(ctx, phone, netip.MustParseAddrPort("10.20.0.99:2000")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dialling nobody: %v, want a deadline", err)
	}
}

func TestListenPacketAnyAddress(t *testing.T) {
	box, peer := newHost(t), newHost(t, "198.51.100.7/24")
	join(t, box, peer, nil)
	tftp := netip.MustParseAddrPort("203.0.113.10:69")
	s, err := box.ListenPacket(tftp)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := peer.ListenPacket(netip.MustParseAddrPort("198.51.100.7:1024"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	s.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.WriteTo([]byte("RRQ"), net.UDPAddrFromAddrPort(tftp)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, from, err := s.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "RRQ" || from.String() != "198.51.100.7:1024" {
		t.Fatalf("ReadFrom = %q from %v, %v", buf[:n], from, err)
	}
	// The transfer goes on from a port of its own, on the same address.
	tid, err := box.ListenPacket(netip.MustParseAddrPort("203.0.113.10:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer tid.Close()
	if _, err := tid.WriteTo([]byte("DATA"), from); err != nil {
		t.Fatal(err)
	}
	n, from, err = c.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "DATA" || from.String() != tid.LocalAddr().String() {
		t.Fatalf("ReadFrom = %q from %v, %v; want DATA from %v", buf[:n], from, err, tid.LocalAddr())
	}
}

// The netstack answers ping for its own addresses only, not for those it takes
// because it takes all: the dataplane answers for the box.
func TestPingOwnAddress(t *testing.T) {
	s := newHost(t, "198.51.100.7/24")
	defer s.Close()
	f := stack.Flow{Proto: stack.ICMP,
		Src: netip.MustParseAddrPort("198.51.100.1:77"), Dst: netip.MustParseAddrPort("198.51.100.7:0")}
	p := stack.NewPacket(1500)
	p.SetData(stack.AppendICMPEcho(nil, f, 1, []byte("are you there")))
	if err := s.Link().Write([]*stack.Packet{p}); err != nil {
		t.Fatal(err)
	}
	got := []*stack.Packet{stack.NewPacket(1500)}
	if n, err := s.Link().Read(got); n != 1 || err != nil {
		t.Fatalf("Read = %d, %v", n, err)
	}
	if v := got[0].Parse(); v != stack.Forward || got[0].Flow() != f.Reverse() {
		t.Errorf("answer %v %v, want %v", v, got[0].Flow(), f.Reverse())
	}
}

func TestReadAfterClose(t *testing.T) {
	s := newHost(t)
	done := make(chan error)
	go func() {
		_, err := s.Link().Read([]*stack.Packet{stack.NewPacket(1500)})
		done <- err
	}()
	s.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v, want net.ErrClosed", err)
	}
	if err := s.Link().Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v, want net.ErrClosed", err)
	}
}

// A host with an address takes nothing that is for another, and forwards
// nothing.
func TestOwnAddressOnly(t *testing.T) {
	s := newHost(t, "198.51.100.7/24")
	f := stack.Flow{Proto: stack.ICMP,
		Src: netip.MustParseAddrPort("198.51.100.1:1"), Dst: netip.MustParseAddrPort("203.0.113.20:0")}
	p := stack.NewPacket(1500)
	p.SetData(stack.AppendICMPEcho(nil, f, 1, nil))
	s.Link().Write([]*stack.Packet{p})
	f.Dst = netip.MustParseAddrPort("198.51.100.7:0")
	p.SetData(stack.AppendICMPEcho(nil, f, 1, nil))
	s.Link().Write([]*stack.Packet{p})
	got := []*stack.Packet{stack.NewPacket(1500), stack.NewPacket(1500)}
	timer := time.AfterFunc(10*time.Second, func() { s.Close() })
	defer timer.Stop()
	n, err := s.Link().Read(got)
	if err != nil {
		t.Fatalf("no answer for its own address: %v", err)
	}
	for _, g := range got[:n] {
		if g.Parse() == stack.Forward && g.Flow() != f.Reverse() {
			t.Errorf("sent %v; want only the answer for its own address", g.Flow())
		}
	}
	s.Close()
}

// A connection dialled from an address that is not its own learns from
// "fragmentation needed" that its segments must be smaller.
// (reference/dataplane.md, section A.)
func TestPathMTU(t *testing.T) {
	box, peer := newHost(t), newHost(t, "10.20.0.11/24")
	l, err := peer.ListenTCP(ucm)
	if err != nil {
		t.Fatal(err)
	}
	const mtu = 1000
	var mu sync.Mutex
	tooBig, fit := 0, 0
	var answer []*stack.Packet
	join(t, box, peer, func(p *stack.Packet) {
		if p.Parse() != stack.Forward || p.Flow().Src != phone {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		switch n := len(p.Data()); {
		case n > mtu:
			tooBig++
			e := stack.NewPacket(1500)
			e.SetData(stack.AppendICMPError(nil, p, netip.MustParseAddr("10.20.0.1"), stack.ICMPUnreachable, stack.CodeFragNeeded, mtu))
			answer = append(answer, e)
			// It goes no further: what is left is not worth parsing.
			p.SetData([]byte{0x45})
			box.Link().Write(answer)
			answer = answer[:0]
		case n > mtu/2:
			fit++
		}
	})
	go func() {
		c, err := box.DialTCP(testContext(t), phone, ucm)
		if err != nil {
			return
		}
		c.Write(bytes.Repeat([]byte("x"), 20_000))
		c.Close()
	}()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetReadDeadline(time.Now().Add(20 * time.Second))
	got, err := io.ReadAll(s)
	mu.Lock()
	defer mu.Unlock()
	if err != nil || len(got) != 20_000 || tooBig == 0 || fit == 0 {
		t.Errorf("read %d bytes, %v; %d segments over %d, %d that fit", len(got), err, tooBig, mtu, fit)
	}
}

// A TCP handshake that never completes holds nothing that another needs.
func TestHandshakesInFlight(t *testing.T) {
	box, peer := newHost(t), newHost(t, "198.51.100.7/24")
	handleAll(box, func(c net.Conn) { c.Close() })
	join(t, box, peer, nil)
	p := stack.NewPacket(1500)
	for i := range 200 { // from a source that is not there to answer
		f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.66"), uint16(1000+i)), Dst: mapped}
		p.SetData(stack.AppendTCP(nil, f, stack.TCPHeader{Seq: 1, Flags: stack.FlagSYN, Window: 1000, MSS: 1400}, nil))
		if err := box.Link().Write([]*stack.Packet{p}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := peer.DialTCP(testContext(t), phone, mapped)
	if err != nil {
		t.Fatalf("behind 200 half-open handshakes: %v", err)
	}
	c.Close()
}
