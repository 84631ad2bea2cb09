package link

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/stack"
)

// A Patient has no device at first, gets one, loses it and gets another, and says
// so; the box's addresses are told to each.
func TestPatient(t *testing.T) {
	var there atomic.Pointer[FramePairEnd]
	told := make(chan bool, 10)
	p := NewPatient(func() (stack.Link, error) {
		d := there.Load()
		if d == nil {
			return nil, errors.New("no such device")
		}
		return NewEthernet(d, Options{}), nil
	}, 1400, func(up bool, err error) { told <- up })
	defer p.Close()
	own := netip.MustParsePrefix("10.20.0.1/24")
	p.SetAddrs(own, nil)
	if up := <-told; up || p.Absent() == nil || p.MTU() != 1400 || p.MAC() != (MAC{}) {
		t.Fatalf("up %v, absent %v, MTU %d, MAC %v; want no device and 1400", up, p.Absent(), p.MTU(), p.MAC())
	}
	packet := stack.NewPacket(64)
	packet.SetData(make([]byte, 40))
	if err := p.Write([]*stack.Packet{packet}); err != nil || p.Stats().Drops[Absent] != 1 {
		t.Errorf("Write without a device: %v, %d dropped; want 1", err, p.Stats().Drops[Absent])
	}

	read := make(chan error, 1)
	got := make(chan int, 10)
	go func() {
		batch := []*stack.Packet{stack.NewPacket(2048)}
		for {
			n, err := p.Read(batch)
			if err != nil {
				read <- err
				return
			}
			got <- n
		}
	}()
	for round := range 2 {
		a, b := FramePair(1500, MAC{2, 0, 0, 0, 0, byte(round)}, MAC{2, 0, 0, 0, 1, 0}, nil)
		there.Store(a)
		if up := <-told; !up || p.Absent() != nil || p.MAC() != a.MAC() {
			t.Fatalf("round %d: up %v, absent %v, MAC %v; want %v", round, up, p.Absent(), p.MAC(), a.MAC())
		}
		peer := NewEthernet(b, Options{})
		defer peer.Close()
		peer.SetAddrs(netip.MustParsePrefix("10.20.0.2/24"), nil)
		answered := make(chan struct{})
		go func() { // takes the answer to its ARP
			defer close(answered)
			peer.Read([]*stack.Packet{stack.NewPacket(2048)})
		}()
		q := stack.NewPacket(64)
		q.SetData(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP,
			Src: netip.MustParseAddrPort("10.20.0.2:5"), Dst: netip.MustParseAddrPort("10.20.0.1:6")}, []byte("x")))
		if err := peer.Write([]*stack.Packet{q}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-got: // so ARP knows the address that SetAddrs gave
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d: nothing arrives", round)
		}
		there.Store(nil)
		a.Close() // the device goes
		if up := <-told; up || p.Absent() == nil {
			t.Fatalf("round %d: the device is gone, and Absent is %v", round, p.Absent())
		}
		peer.Close()
		<-answered
	}
	if n := p.Stats().InPackets; n != 2 {
		t.Errorf("%d packets counted of both devices, want 2", n)
	}
	p.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v, want net.ErrClosed", err)
	}
}
