package nat_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"

	"patchbay/nat"
	"patchbay/stack"
)

// established returns a table with n TCP connections from outside, a packet of
// each client, and what puts a packet back as it came.
func established(t testing.TB, n int) (*nat.Table, []*stack.Packet, []stack.Flow) {
	tab := newTable(t, nat.TableConfig{MaxEmbryonic: n})
	packets, flows := make([]*stack.Packet, n), make([]stack.Flow, n)
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0xc6336400+uint32(i%250)) // 198.51.100.0
		f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+i/250)), Dst: ap("203.0.113.10:2443")}
		server := f
		server.Dst = ap("10.20.0.11:2443")
		p := packet(t, outside, start, f, stack.TCPHeader{Flags: syn, Seq: 1}, "")
		c := open(t, tab, p, inside, server)
		c.Handle(p, nat.Client)
		c.Handle(packet(t, inside, start, server.Reverse(), stack.TCPHeader{Flags: syn | ack, Ack: 2}, ""), nat.Server)
		packets[i], flows[i] = packet(t, outside, start, f, stack.TCPHeader{Flags: ack, Seq: 2, Ack: 1}, "keepalive"), f
	}
	return tab, packets, flows
}

// maxBenchPackets is how many connections of a benchmark have a packet: those
// of a million would be more memory than the table.
const maxBenchPackets = 10_000

// fill opens n UDP connections through tab, and returns the flows of some that
// are spread over them.
func fill(t testing.TB, tab *nat.Table, n int) (flows []stack.Flow) {
	f := flow(stack.UDP, "198.51.100.7:1024", "203.0.113.10:69")
	server := flow(stack.UDP, "198.51.100.7:1024", "10.20.0.11:69")
	p := packet(t, outside, start, f, stack.TCPHeader{}, "hello")
	for i := range n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 0xc6336400+uint32(i/50_000)) // 198.51.100.0
		f.Src = netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+i%50_000))
		server.Src = f.Src
		p.SetFlow(f)
		open(t, tab, p, inside, server)
		if i%max(1, n/maxBenchPackets) == 0 {
			flows = append(flows, f)
		}
	}
	return flows
}

// many is established for any number of connections, with packets for some.
func many(t testing.TB, n int) (*nat.Table, []*stack.Packet, []stack.Flow) {
	if n <= maxBenchPackets {
		return established(t, n)
	}
	tab := newTable(t, nat.TableConfig{MaxConns: n})
	flows := fill(t, tab, n)
	var packets []*stack.Packet
	for _, f := range flows {
		packets = append(packets, packet(t, outside, start, f, stack.TCPHeader{}, "keepalive"))
	}
	return tab, packets, flows
}

// bytesOf returns how much heap n connections take, in bytes for each.
func bytesOf(t testing.TB, n int) float64 {
	tab := newTable(t, nat.TableConfig{MaxConns: n})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	fill(t, tab, n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if tab.Len() != n {
		t.Fatalf("%d connections, want %d", tab.Len(), n)
	}
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

// maxConnBytes is what a connection may cost, its places in the table included.
const maxConnBytes = 700

func TestConnMemory(t *testing.T) {
	const n = 100_000
	if got := bytesOf(t, n); got > maxConnBytes {
		t.Errorf("%.0f bytes for each of %d connections, want %d at most", got, n, maxConnBytes)
	}
}

// BenchmarkConnMemory reports what each of so many connections costs.
func BenchmarkConnMemory(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint("conns=", n), func(b *testing.B) {
			var got float64
			for range b.N {
				got = bytesOf(b, n)
			}
			b.ReportMetric(got, "bytes/conn")
		})
	}
}

// forward takes p, which has the flow f, through the table and back.
func forward(t testing.TB, tab *nat.Table, p *stack.Packet, f stack.Flow) {
	c, from := tab.Lookup(p)
	if c == nil || c.Handle(p, from) != stack.Forward {
		t.Fatalf("%v is not forwarded", f)
	}
	p.SetFlow(f)
}

func standing(t testing.TB) (*nat.Table, *stack.Packet, stack.Flow) {
	tab := newTable(t, nat.TableConfig{})
	tab.Expect(nat.Pinhole{Match: stack.Flow{Proto: stack.UDP, Dst: ap("203.0.113.20:20000")}, Out: inside, Standing: true,
		Handler: &leg{to: flow(stack.UDP, "10.20.0.20:20002", "10.20.0.60:30000")}})
	f := flow(stack.UDP, "198.51.100.7:5000", "203.0.113.20:20000")
	return tab, packet(t, outside, start, f, stack.TCPHeader{}, "voice"), f
}

func TestNoAllocations(t *testing.T) {
	tab, packets, flows := established(t, 1)
	if n := testing.AllocsPerRun(1000, func() { forward(t, tab, packets[0], flows[0]) }); n != 0 {
		t.Errorf("Lookup and Handle: %v allocations", n)
	}
	tab, p, f := standing(t)
	if n := testing.AllocsPerRun(1000, func() {
		if c, _ := tab.Lookup(p); c != nil {
			t.Fatal("Lookup finds the endpoint")
		}
		c, from := tab.Claim(p)
		if c == nil || c.Handle(p, from) != stack.Forward {
			t.Fatal("not forwarded")
		}
		p.SetFlow(f)
	}); n != 0 {
		t.Errorf("Claim and Handle of a Standing pinhole: %v allocations", n)
	}
	tab.Expire(start)
	if n := testing.AllocsPerRun(1000, func() { tab.Expire(start) }); n != 0 {
		t.Errorf("Expire with nothing due: %v allocations", n)
	}
}

// BenchmarkForward is one packet of an established connection: Lookup, Handle
// with its rewrite, and a second rewrite that makes it as it was.
func BenchmarkForward(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprint("flows=", n), func(b *testing.B) {
			tab, packets, flows := many(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				j := i % len(packets)
				forward(b, tab, packets[j], flows[j])
			}
		})
	}
}

func BenchmarkForwardParallel(b *testing.B) {
	const n = 1000
	tab, _, flows := established(b, n)
	var first atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var packets []*stack.Packet
		for _, f := range flows {
			packets = append(packets, packet(b, outside, start, f, stack.TCPHeader{Flags: ack, Seq: 2, Ack: 1}, "keepalive"))
		}
		for i := int(first.Add(n / 3)); pb.Next(); i++ {
			forward(b, tab, packets[i%n], flows[i%n])
		}
	})
}

// BenchmarkRewrite is the part of BenchmarkForward that is the packet's.
func BenchmarkRewrite(b *testing.B) {
	_, packets, flows := established(b, 1)
	server := flows[0]
	server.Dst = ap("10.20.0.11:2443")
	for range b.N {
		packets[0].SetFlow(server)
		packets[0].SetFlow(flows[0])
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprint("flows=", n), func(b *testing.B) {
			tab, packets, _ := many(b, n)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if c, _ := tab.Lookup(packets[i%len(packets)]); c == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkStanding is one packet of a media leg, but for what the leg does.
func BenchmarkStanding(b *testing.B) {
	tab, p, f := standing(b)
	b.ReportAllocs()
	for range b.N {
		tab.Lookup(p)
		c, from := tab.Claim(p)
		c.Handle(p, from)
		p.SetFlow(f)
	}
}

// BenchmarkOpen is the first packet of a connection through object NAT, and
// its end.
func BenchmarkOpen(b *testing.B) {
	tab, rs, pat := newTable(b, nat.TableConfig{}), newRules(b, rulesA()...), nat.NewPAT(chance())
	p := udp(b, inside, start, "10.20.0.60:4000", "198.51.100.7:53")
	f := p.Flow()
	b.ReportAllocs()
	for range b.N {
		tab.Claim(p)
		dst, un, _ := rs.Untranslate(inside, f)
		f.Dst = dst
		s, v := rs.Translate(inside, outside, f, un, pat)
		if v != stack.Forward {
			b.Fatal(v)
		}
		c, _, v := tab.Open(p, nat.Opening{Out: outside, Server: stack.Flow{Proto: f.Proto, Src: s.Mapped, Dst: dst}, UnRule: un, Source: s})
		if v != stack.Forward {
			b.Fatal(v)
		}
		c.Close()
	}
}
