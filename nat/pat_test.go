package nat_test

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/iotest"

	"patchbay/nat"
	"patchbay/stack"
)

var patAddr = addr("203.0.113.2")

func TestPATKeepsPort(t *testing.T) {
	tests := []struct {
		proto    stack.Proto
		port     uint16
		min, max uint16 // range of a second one's port
	}{
		{stack.UDP, 5060, 1024, 65535},
		{stack.TCP, 1024, 1024, 65535},
		{stack.UDP, 1023, 512, 1023},
		{stack.TCP, 512, 512, 1023},
		{stack.UDP, 511, 1, 511},
		{stack.UDP, 1, 1, 511},
		{stack.ICMP, 40000, 1024, 65535},
	}
	for _, tt := range tests {
		pat := nat.NewPAT(chance())
		a := netip.AddrPortFrom(addr("10.20.0.60"), tt.port)
		b := netip.AddrPortFrom(addr("10.20.0.61"), tt.port)
		la, ok := pat.Take(tt.proto, a, patAddr, nil)
		if want := netip.AddrPortFrom(patAddr, tt.port); !ok || la.Mapped() != want {
			t.Errorf("%v %v: Take = %v, %v; want %v", tt.proto, a, la.Mapped(), ok, want)
		}
		lb, ok := pat.Take(tt.proto, b, patAddr, nil)
		if p := lb.Mapped().Port(); !ok || p == tt.port || p < tt.min || p > tt.max {
			t.Errorf("%v %v: Take on a clash = %v, %v; want a port of %d-%d", tt.proto, b, lb.Mapped(), ok, tt.min, tt.max)
		}
		// The same end has one port, until its last lease is released.
		again, _ := pat.Take(tt.proto, b, patAddr, nil)
		if again.Mapped() != lb.Mapped() {
			t.Errorf("%v %v: Take again = %v, want %v", tt.proto, b, again.Mapped(), lb.Mapped())
		}
		lb.Release()
		if m, ok := pat.Lookup(tt.proto, b, patAddr); !ok || m != again.Mapped() {
			t.Errorf("%v %v: Lookup = %v, %v; want %v", tt.proto, b, m, ok, again.Mapped())
		}
		again.Release()
		la.Release()
		if m, ok := pat.Lookup(tt.proto, b, patAddr); ok {
			t.Errorf("%v %v: Lookup after Release = %v", tt.proto, b, m)
		}
		lb, ok = pat.Take(tt.proto, b, patAddr, nil)
		if want := netip.AddrPortFrom(patAddr, tt.port); !ok || lb.Mapped() != want {
			t.Errorf("%v %v: Take after Release = %v, %v; want %v", tt.proto, b, lb.Mapped(), ok, want)
		}
	}
}

func TestPATPoolsAreApart(t *testing.T) {
	pat := nat.NewPAT(chance())
	for _, proto := range []stack.Proto{stack.UDP, stack.TCP, stack.ICMP} {
		for _, m := range []string{"203.0.113.2", "203.0.113.3"} {
			l, ok := pat.Take(proto, ap("10.20.0.60:5060"), addr(m), nil)
			if want := netip.AddrPortFrom(addr(m), 5060); !ok || l.Mapped() != want {
				t.Errorf("%v at %v: Take = %v, %v; want %v", proto, m, l.Mapped(), ok, want)
			}
		}
	}
	if l, ok := pat.Take(47, ap("10.20.0.60:0"), patAddr, nil); ok {
		t.Errorf("Take for GRE = %v", l.Mapped())
	}
	if l, ok := pat.Take(stack.ICMP, ap("10.20.0.99:0"), patAddr, nil); !ok || l.Mapped().Port() != 0 {
		t.Errorf("Take for ICMP id 0 = %v, %v", l.Mapped(), ok)
	}
	if l, ok := pat.Take(stack.UDP, ap("10.20.0.99:0"), patAddr, nil); !ok || l.Mapped().Port() == 0 {
		t.Errorf("Take for UDP port 0 = %v, %v", l.Mapped(), ok)
	}
}

func TestPATAvoids(t *testing.T) {
	pat := nat.NewPAT(chance())
	avoid := func(port uint16) bool { return port != 700 && port != 5060 }
	l, ok := pat.Take(stack.UDP, ap("10.20.0.60:600"), patAddr, avoid)
	if !ok || l.Mapped().Port() != 700 {
		t.Errorf("Take of 600 with all but 700 held back = %v, %v", l.Mapped(), ok)
	}
	if l, ok := pat.Take(stack.UDP, ap("10.20.0.61:600"), patAddr, avoid); ok {
		t.Errorf("Take of 600 with none left = %v", l.Mapped())
	}
}

func TestPATExhaustion(t *testing.T) {
	for _, r := range []nat.PortRange{{From: 1, To: 511}, {From: 512, To: 1023}, {From: 1024, To: 65535}} {
		pat := nat.NewPAT(chance())
		n := int(r.To) - int(r.From) + 1
		seen := make(map[uint16]bool)
		var last nat.Lease
		for i := range n {
			real := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), r.From)
			l, ok := pat.Take(stack.UDP, real, patAddr, nil)
			if !ok {
				t.Fatalf("%v: Take %d of %d fails", r, i, n)
			}
			p := l.Mapped().Port()
			if seen[p] || p < r.From || p > r.To {
				t.Fatalf("%v: Take %d = port %d, seen %v", r, i, p, seen[p])
			}
			seen[p] = true
			last = l
		}
		if l, ok := pat.Take(stack.UDP, netip.AddrPortFrom(addr("10.99.0.1"), r.From), patAddr, nil); ok {
			t.Errorf("%v: Take of one too many = %v", r, l.Mapped())
		}
		last.Release()
		l, ok := pat.Take(stack.UDP, netip.AddrPortFrom(addr("10.99.0.1"), r.From), patAddr, nil)
		if !ok || l.Mapped() != last.Mapped() {
			t.Errorf("%v: Take of the one free port = %v, %v; want %v", r, l.Mapped(), ok, last.Mapped())
		}
	}
}

func TestPATWithoutChance(t *testing.T) {
	pat := nat.NewPAT(iotest.ErrReader(errors.New("no entropy")))
	if _, ok := pat.Take(stack.UDP, ap("10.20.0.60:5060"), patAddr, nil); !ok {
		t.Error("Take of a free port fails without chance")
	}
	if l, ok := pat.Take(stack.UDP, ap("10.20.0.61:5060"), patAddr, nil); ok {
		t.Errorf("Take on a clash without chance = %v", l.Mapped())
	}
	var none nat.Lease
	none.Release()
	if none.Mapped().IsValid() {
		t.Errorf("zero Lease is of %v", none.Mapped())
	}
}

func TestPATConcurrent(t *testing.T) {
	pat := nat.NewPAT(chance())
	var mu sync.Mutex
	held := make(map[netip.AddrPort]string)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 250 {
				real := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, byte(g), byte(i)}), 600)
				l, ok := pat.Take(stack.UDP, real, patAddr, nil)
				if !ok {
					continue
				}
				name := fmt.Sprint(g, i)
				mu.Lock()
				if by, taken := held[l.Mapped()]; taken {
					t.Errorf("%v given to %s and %s", l.Mapped(), by, name)
				}
				held[l.Mapped()] = name
				mu.Unlock()
				if i%2 == 0 {
					mu.Lock()
					delete(held, l.Mapped())
					mu.Unlock()
					l.Release()
				}
			}
		})
	}
	wg.Wait()
}
