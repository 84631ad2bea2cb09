package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patchbay/stack"
)

// packet makes an IPv4 packet with right checksums, by another hand than ours.
func packet(t testing.TB, proto uint8, src, dst string, payload string) []byte {
	t.Helper()
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(proto), SrcIP: s.Addr().AsSlice(), DstIP: d.Addr().AsSlice()}
	var l4 gopacket.SerializableLayer
	switch proto {
	case protoUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(s.Port()), DstPort: layers.UDPPort(d.Port())}
		u.SetNetworkLayerForChecksum(ip)
		l4 = u
	case protoTCP:
		c := &layers.TCP{SrcPort: layers.TCPPort(s.Port()), DstPort: layers.TCPPort(d.Port()), SYN: true, Window: 1000}
		c.SetNetworkLayerForChecksum(ip)
		l4 = c
	case protoICMP: // the port of src is the identifier of a request, that of dst of a reply
		kind, id := uint8(layers.ICMPv4TypeEchoRequest), s.Port()
		if id == 0 {
			kind, id = layers.ICMPv4TypeEchoReply, d.Port()
		}
		l4 = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: id, Seq: 1}
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ip, l4, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, l stack.Link, b []byte) {
	t.Helper()
	p := stack.NewPacket(1500)
	if !p.SetData(b) {
		t.Fatalf("packet of %d bytes", len(b))
	}
	if err := l.Write([]*stack.Packet{p}); err != nil {
		t.Fatal(err)
	}
}

// read returns the next packet of l, nil if there is none soon.
func read(t testing.TB, p *Port) []byte {
	t.Helper()
	select {
	case q := <-p.queue:
		return bytes.Clone(q.Data())
	case <-time.After(100 * time.Millisecond):
		return nil
	}
}

func TestNetworkRoutes(t *testing.T) {
	n := NewNetwork(0)
	defer n.Close()
	ports := map[string]*Port{
		"phone": n.Port(netip.MustParsePrefix("198.51.100.7/32")),
		"box":   n.Port(netip.MustParsePrefix("203.0.113.0/24")),
		"rest":  n.Port(everywhere),
	}
	tests := []struct {
		from, dst, want string
	}{
		{"phone", "203.0.113.10:69", "box"},
		{"box", "198.51.100.7:5000", "phone"},
		{"box", "198.51.100.8:5000", "rest"},
		{"box", "203.0.113.99:1", ""}, // not back to the sender
		{"rest", "192.0.2.1:1", ""},
	}
	for _, tt := range tests {
		b := packet(t, protoUDP, "192.0.2.9:1000", tt.dst, "hello")
		write(t, ports[tt.from], b)
		for name, p := range ports {
			select {
			case q := <-p.queue:
				if name != tt.want || !bytes.Equal(q.Data(), b) {
					t.Errorf("%s from %s: came to %s, want %q", tt.dst, tt.from, name, tt.want)
				}
			default:
				if name == tt.want {
					t.Errorf("%s from %s: did not come to %s", tt.dst, tt.from, name)
				}
			}
		}
	}
	if s := n.Stats(); s.Delivered.Load() != 3 || s.NoRoute.Load() != 2 {
		t.Errorf("delivered %d, no route %d; want 3 and 2", s.Delivered.Load(), s.NoRoute.Load())
	}
}

func TestNetworkChecksFiltersAndOverflows(t *testing.T) {
	n := NewNetwork(1500)
	lose := false
	n.Filter = func([]byte) bool { return !lose }
	a, b := n.Port(), n.Port(everywhere)
	defer n.Close()
	for _, proto := range []uint8{protoUDP, protoTCP, protoICMP} {
		good := packet(t, proto, "192.0.2.9:1000", "192.0.2.1:0", "hello")
		write(t, a, good)
		if got := read(t, b); !bytes.Equal(got, good) {
			t.Errorf("protocol %d: got % x", proto, got)
		}
		for _, off := range []int{1, 14, 24, len(good) - 1} { // header, address, transport, payload
			bad := bytes.Clone(good)
			bad[off] ^= 4
			write(t, a, bad)
		}
	}
	if got := n.Stats().BadChecksum.Load(); got != 12 {
		t.Errorf("%d packets with bad checksums, want 12", got)
	}
	lose = true
	good := packet(t, protoUDP, "192.0.2.9:1000", "192.0.2.1:1", "hello")
	write(t, a, good)
	if n.Stats().Filtered.Load() != 1 || read(t, b) != nil {
		t.Error("the filter loses nothing")
	}
	lose = false
	for range portQueue + 5 {
		write(t, a, good)
	}
	if got := n.Stats().Overflow.Load(); got != 5 {
		t.Errorf("%d packets too many, want 5", got)
	}
	batch := []*stack.Packet{stack.NewPacket(1500), stack.NewPacket(1500)}
	if got, err := b.Read(batch); got != 2 || err != nil || !bytes.Equal(batch[1].Data(), good) || batch[0].Time.IsZero() {
		t.Errorf("Read = %d, %v", got, err)
	}
	b.Close()
	if _, err := b.Read(batch); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := b.Write(batch); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// routerLab is a home router with a wire on both sides.
type routerLab struct {
	r        *HomeRouter
	lan, wan *Port
	now      atomic.Int64 // Unix nanoseconds
}

func newRouterLab(t *testing.T, noHelper bool) *routerLab {
	home, internet := NewNetwork(0), NewNetwork(0)
	l := &routerLab{}
	l.now.Store(1e18)
	l.lan = home.Port(netip.MustParsePrefix("192.168.1.0/24"))
	l.wan = internet.Port(everywhere)
	l.r = NewHomeRouter(HomeRouterConfig{LAN: homeLAN, WAN: homeWAN, NoTFTPHelper: noHelper,
		Now: func() time.Time { return time.Unix(0, l.now.Load()) }},
		home.Port(everywhere), internet.Port(netip.PrefixFrom(homeWAN, 32)))
	t.Cleanup(func() {
		l.r.Close()
		home.Close()
		internet.Close()
	})
	return l
}

func TestHomeRouter(t *testing.T) {
	const phone, server = "192.168.1.50:40000", "203.0.113.10:5061"
	type step struct {
		fromLAN  bool
		proto    uint8
		src, dst string
		want     string // "src > dst" on the other side, "" for nothing
		after    time.Duration
	}
	out := func(proto uint8, src, dst, want string) step { return step{true, proto, src, dst, want, 0} }
	in := func(proto uint8, src, dst, want string) step { return step{false, proto, src, dst, want, 0} }
	tests := []struct {
		name     string
		noHelper bool
		steps    []step
	}{
		{"answer from where it was sent to", false, []step{
			out(protoUDP, phone, server, "198.51.100.30:40000 > 203.0.113.10:5061"),
			in(protoUDP, server, "198.51.100.30:40000", "203.0.113.10:5061 > 192.168.1.50:40000"),
			in(protoUDP, "203.0.113.10:5062", "198.51.100.30:40000", ""),
			in(protoUDP, "203.0.113.11:5061", "198.51.100.30:40000", ""),
		}},
		{"unsolicited", false, []step{in(protoUDP, server, "198.51.100.30:40000", "")}},
		{"one port whoever it talks to", false, []step{
			out(protoUDP, phone, server, "198.51.100.30:40000 > 203.0.113.10:5061"),
			out(protoUDP, phone, "203.0.113.20:20000", "198.51.100.30:40000 > 203.0.113.20:20000"),
			in(protoUDP, "203.0.113.20:20000", "198.51.100.30:40000", "203.0.113.20:20000 > 192.168.1.50:40000"),
		}},
		{"two phones, one port", false, []step{
			out(protoUDP, phone, server, "198.51.100.30:40000 > 203.0.113.10:5061"),
			out(protoUDP, "192.168.1.51:40000", server, "198.51.100.30:1024 > 203.0.113.10:5061"),
			in(protoUDP, server, "198.51.100.30:1024", "203.0.113.10:5061 > 192.168.1.51:40000"),
		}},
		{"tcp has mappings of its own", false, []step{
			out(protoTCP, phone, server, "198.51.100.30:40000 > 203.0.113.10:5061"),
			in(protoUDP, server, "198.51.100.30:40000", ""),
			in(protoTCP, server, "198.51.100.30:40000", "203.0.113.10:5061 > 192.168.1.50:40000"),
		}},
		{"ping", false, []step{
			out(protoICMP, "192.168.1.50:77", "203.0.113.10:0", "198.51.100.30:77 > 203.0.113.10:0"),
			in(protoICMP, "203.0.113.10:0", "198.51.100.30:77", "203.0.113.10:0 > 192.168.1.50:77"),
			in(protoICMP, "203.0.113.10:0", "198.51.100.30:78", ""),
			in(protoICMP, "203.0.113.10:5", "198.51.100.30:0", ""), // nobody pings the router
		}},
		{"tftp answers from another port", false, []step{
			out(protoUDP, phone, "203.0.113.10:69", "198.51.100.30:40000 > 203.0.113.10:69"),
			in(protoUDP, "203.0.113.10:30001", "198.51.100.30:40000", "203.0.113.10:30001 > 192.168.1.50:40000"),
			in(protoUDP, "203.0.113.11:30001", "198.51.100.30:40000", ""),
		}},
		{"tftp without the helper", true, []step{
			out(protoUDP, phone, "203.0.113.10:69", "198.51.100.30:40000 > 203.0.113.10:69"),
			in(protoUDP, "203.0.113.10:30001", "198.51.100.30:40000", ""),
			in(protoUDP, "203.0.113.10:69", "198.51.100.30:40000", "203.0.113.10:69 > 192.168.1.50:40000"),
		}},
		{"idle", false, []step{
			out(protoUDP, phone, server, "198.51.100.30:40000 > 203.0.113.10:5061"),
			{false, protoUDP, server, "198.51.100.30:40000", "203.0.113.10:5061 > 192.168.1.50:40000", routerUDPIdle},
			{false, protoUDP, server, "198.51.100.30:40000", "", routerUDPIdle + 1},
			out(protoUDP, "192.168.1.51:40000", server, "198.51.100.30:1024 > 203.0.113.10:5061"),
		}},
		{"no hairpin, no LAN routing", false, []step{
			out(protoUDP, phone, "198.51.100.30:40001", ""),
			out(protoUDP, phone, "192.168.1.60:1", ""),
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newRouterLab(t, tt.noHelper)
			for i, s := range tt.steps {
				l.now.Add(int64(s.after))
				from, to := l.wan, l.lan
				if s.fromLAN {
					from, to = l.lan, l.wan
				}
				write(t, from, packet(t, s.proto, s.src, s.dst, "hello"))
				b := read(t, to)
				got := ""
				if b != nil {
					seg, ok := parseSegment(b)
					if !ok || !checksumsRight(b) || b[8] != 63 || !bytes.HasSuffix(b, []byte("hello")) {
						t.Errorf("step %d: packet % x is broken", i, b)
					}
					got = seg.src().String() + " > " + seg.dst().String()
				}
				if got != s.want {
					t.Errorf("step %d: %s > %s became %q, want %q", i, s.src, s.dst, got, s.want)
				}
			}
		})
	}
}

func TestHomeRouterDrops(t *testing.T) {
	l := newRouterLab(t, false)
	good := packet(t, protoUDP, "192.168.1.50:4000", "203.0.113.10:69", "x")
	last := bytes.Clone(good)
	last[8] = 1
	binary.BigEndian.PutUint16(last[10:], 0)
	binary.BigEndian.PutUint16(last[10:], ^sum16(last[:20], 0))
	fragment := bytes.Clone(good)
	fragment[6] = 0x20
	binary.BigEndian.PutUint16(fragment[10:], 0)
	binary.BigEndian.PutUint16(fragment[10:], ^sum16(fragment[:20], 0))
	for _, b := range [][]byte{last, fragment} {
		write(t, l.lan, b)
		if got := read(t, l.wan); got != nil {
			t.Errorf("forwarded % x", got)
		}
	}
	if n := l.r.Stats().Dropped.Load(); n != 2 {
		t.Errorf("dropped %d, want 2", n)
	}
	// Without a UDP checksum there is none after translation.
	none := bytes.Clone(good)
	none[26], none[27] = 0, 0
	write(t, l.lan, none)
	if got := read(t, l.wan); got == nil || got[26] != 0 || got[27] != 0 {
		t.Errorf("packet without UDP checksum became % x", got)
	}
	l.r.Reboot()
	write(t, l.wan, packet(t, protoUDP, "203.0.113.10:69", "198.51.100.30:4000", "x"))
	if got := read(t, l.lan); got != nil {
		t.Errorf("after a reboot: % x", got)
	}
}

func FuzzHomeRouter(f *testing.F) {
	f.Add(packet(f, protoUDP, "192.168.1.50:4000", "203.0.113.10:69", "x"))
	f.Add(packet(f, protoTCP, "192.168.1.50:4000", "203.0.113.10:69", "x"))
	f.Add(packet(f, protoICMP, "192.168.1.50:4000", "203.0.113.10:0", "x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &HomeRouter{
			config:   HomeRouterConfig{LAN: homeLAN, WAN: homeWAN, Now: time.Now},
			byInside: make(map[routerKey]*routerMapping), byPort: make(map[routerPort]*routerMapping), next: routerFirstPort,
		}
		right := checksumsRight(b)
		if r.translateOut(b) && right && !checksumsRight(b) {
			t.Errorf("checksums are wrong after translation: % x", b)
		}
		r.translateIn(b)
	})
}
