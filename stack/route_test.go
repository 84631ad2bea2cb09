package stack

import (
	"math/rand"
	"net/netip"
	"testing"
)

func TestRoutes(t *testing.T) {
	outside := &Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.1/24")}
	inside := &Interface{Name: "inside", Addr: netip.MustParsePrefix("10.20.0.1/24")}
	identity := &Interface{Name: IdentityName}
	gw := netip.MustParseAddr("203.0.113.254")
	gw2 := netip.MustParseAddr("10.20.0.2")
	pfx := netip.MustParsePrefix
	rs := append(Connected(outside, inside, identity),
		Route{Prefix: pfx("0.0.0.0/0"), Interface: outside, Gateway: gw},
		Route{Prefix: pfx("10.0.0.0/8"), Interface: inside, Gateway: gw2, Metric: 10},
		Route{Prefix: pfx("10.0.0.0/8"), Interface: outside, Gateway: gw, Metric: 1},
		Route{Prefix: pfx("255.255.255.255/32"), Interface: inside},
		Route{Prefix: pfx("2001:db8::/32"), Interface: inside},
		Route{Prefix: pfx("172.16.0.0/12")},
	)
	r := NewRoutes(rs)
	tests := []struct {
		dst string
		out *Interface
		hop string
	}{
		{"203.0.113.9", outside, "203.0.113.9"},
		{"10.20.0.11", inside, "10.20.0.11"},
		{"10.20.1.0", outside, "203.0.113.254"},
		{"198.51.100.7", outside, "203.0.113.254"},
		{"172.16.0.1", outside, "203.0.113.254"},
		{"255.255.255.255", inside, "255.255.255.255"},
		{"0.0.0.0", outside, "203.0.113.254"},
	}
	for _, tt := range tests {
		out, hop, ok := r.Lookup(netip.MustParseAddr(tt.dst))
		if !ok || out != tt.out || hop.String() != tt.hop {
			t.Errorf("Lookup(%s) = %v, %v, %v; want %v, %s", tt.dst, out, hop, ok, tt.out, tt.hop)
		}
	}
	if _, _, ok := r.Lookup(netip.MustParseAddr("2001:db8::1")); ok {
		t.Error("Lookup found a route for an IPv6 address")
	}
	if _, _, ok := (*Routes)(nil).Lookup(gw); ok {
		t.Error("the nil Routes has a route")
	}
	if _, _, ok := NewRoutes(nil).Lookup(gw); ok {
		t.Error("an empty Routes has a route")
	}
	if got := len(r.All()); got != 5 {
		t.Errorf("All returns %d routes, want 5", got)
	}

	hop, ok := r.NextHop(inside, netip.MustParseAddr("10.20.0.11"))
	if !ok || hop.String() != "10.20.0.11" {
		t.Errorf("NextHop on the best interface = %v, %v", hop, ok)
	}
	hop, ok = r.NextHop(outside, netip.MustParseAddr("10.20.0.11"))
	if !ok || hop != gw {
		t.Errorf("NextHop on another interface = %v, %v; want %v", hop, ok, gw)
	}
	if hop, ok = r.NextHop(inside, netip.MustParseAddr("198.51.100.7")); ok {
		t.Errorf("NextHop on an interface without a route = %v", hop)
	}
}

func TestRoutesAgainstSlow(t *testing.T) {
	rnd := rand.New(rand.NewSource(4))
	ifs := []*Interface{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	addr := func() netip.Addr {
		// Few different bits, so that prefixes nest and addresses hit.
		bits := []byte{0, 1, 127, 128, 254, 255}
		pick := func() byte { return bits[rnd.Intn(len(bits))] }
		return netip.AddrFrom4([4]byte{pick(), pick(), pick(), pick()})
	}
	for range 300 {
		var rs []Route
		for range rnd.Intn(40) {
			pfx, _ := addr().Prefix(rnd.Intn(33))
			rs = append(rs, Route{pfx, ifs[rnd.Intn(3)], addr(), rnd.Intn(3)})
		}
		table := NewRoutes(rs)
		for range 200 {
			dst := addr()
			var best *Route
			for i := range rs {
				r := &rs[i]
				if r.Prefix.Contains(dst) && (best == nil || r.Prefix.Bits() > best.Prefix.Bits() ||
					r.Prefix.Bits() == best.Prefix.Bits() && r.Metric < best.Metric) {
					best = r
				}
			}
			out, hop, ok := table.Lookup(dst)
			if ok != (best != nil) || ok && (out != best.Interface || hop != best.Gateway) {
				t.Fatalf("Lookup(%v) = %v, %v, %v; want %+v of %+v", dst, out, hop, ok, best, rs)
			}
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	rnd := rand.New(rand.NewSource(5))
	i := &Interface{Name: "a"}
	var rs []Route
	for range 1000 {
		var a [4]byte
		rnd.Read(a[:])
		pfx, _ := netip.AddrFrom4(a).Prefix(8 + rnd.Intn(25))
		rs = append(rs, Route{Prefix: pfx, Interface: i})
	}
	r := NewRoutes(append(rs, Route{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Interface: i}))
	dst := netip.MustParseAddr(phone)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := r.Lookup(dst); !ok {
			b.Fatal("no route")
		}
	}
}
