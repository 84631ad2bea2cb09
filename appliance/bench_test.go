package appliance

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// benchHead is a box with a server inside that has an address outside, and PAT
// for the rest.
const benchHead = `interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.0.0
object network server
 host 10.20.0.11
object network inside-net
 subnet 10.20.0.0 255.255.0.0
`

const benchTail = `object network server
 nat (inside,outside) static 203.0.113.10
object network inside-net
 nat (inside,outside) dynamic interface
access-group outside_in in interface outside
access-group inside_in in interface inside
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
`

// benchServer is the server's service as the benchmarks' clients know it.
const benchServer = "203.0.113.10:5000"

// benchLists returns both access lists with n entries: hosts, subnets and
// services as they come, and in the middle those that permit the benchmarks'
// packets.
func benchLists(n int) string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var b strings.Builder
	for _, list := range []struct{ name, entry string }{
		{"outside_in", "permit udp any host 10.20.0.11 eq 5000"},
		{"inside_in", "permit ip 10.20.0.0 255.255.0.0 host 192.0.2.5"},
	} {
		for i := range n {
			if i == n/2 {
				fmt.Fprintf(&b, "access-list %s extended %s\n", list.name, list.entry)
				continue
			}
			verb := []string{"permit", "deny"}[r.IntN(2)]
			proto := []string{"tcp", "udp"}[r.IntN(2)]
			src := []string{"any", fmt.Sprintf("host 192.0.%d.%d", r.IntN(256), r.IntN(256)), fmt.Sprintf("172.%d.0.0 255.255.0.0", 16+r.IntN(16))}[r.IntN(3)]
			dst := []string{fmt.Sprintf("host 10.20.%d.%d", 1+r.IntN(255), r.IntN(256)), fmt.Sprintf("10.20.%d.0 255.255.255.0", 1+r.IntN(255))}[r.IntN(2)]
			port := []string{"", fmt.Sprintf(" eq %d", 5001+r.IntN(60000)), fmt.Sprintf(" range %d %d", 6000+r.IntN(1000), 8000+r.IntN(50000))}[r.IntN(3)]
			fmt.Fprintf(&b, "access-list %s extended %s %s %s %s%s\n", list.name, verb, proto, src, dst, port)
		}
	}
	return b.String()
}

// benchPlane is a plane with so many entries in each access list, and so many
// static NAT rules beside the two that the packets meet.
func benchPlane(tb testing.TB, entries, rules int) *plane {
	tb.Helper()
	var objects, nats strings.Builder
	for i := range rules {
		host := fmt.Sprintf("%d.%d", i>>8&0xff, i&0xff)
		fmt.Fprintf(&objects, "object network h%d\n host 10.21.%s\n", i, host)
		fmt.Fprintf(&nats, "object network h%d\n nat (inside,outside) static 198.18.%s\n", i, host)
	}
	text := benchHead + objects.String() + benchLists(entries) + nats.String() + benchTail
	return newPlane(tb, func(string) string { return text })
}

// client is the flow of the i-th client outside.
func client(i int) stack.Flow {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0xc6336400+uint32(i/50_000)) // 198.51.100.0
	return stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+i%50_000)), Dst: netip.MustParseAddrPort(benchServer)}
}

// maxBenchPackets is how many connections of a benchmark have a packet ready.
const maxBenchPackets = 10_000

// A bench is packets of established connections, each as it arrives.
type bench struct {
	*plane
	packets []*stack.Packet
	flows   []stack.Flow
}

// established opens n connections from outside, with packets of some that are
// spread over them, and returns the heap that each connection takes, in bytes.
func established(tb testing.TB, q *plane, n int) (*bench, float64) {
	tb.Helper()
	w := &bench{plane: q}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := client(0)
	q.admit("outside", stack.AppendUDP(nil, f, make([]byte, 172)))
	p := q.p
	for i := range n {
		p.SetFlow(client(i))
		p.In = q.pl.named("outside")
		if v := q.d.Admit(p); v != stack.Forward {
			tb.Fatalf("connection %d: %v", i, v)
		}
		if i%max(1, n/maxBenchPackets) == 0 {
			w.flows = append(w.flows, client(i))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for _, f := range w.flows {
		w.packets = append(w.packets, ready(q, "outside", f))
	}
	return w, float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

// ready is a packet of f, parsed, as it arrives on an interface.
func ready(q *plane, in string, f stack.Flow) *stack.Packet {
	p := stack.NewPacket(256)
	p.SetData(stack.AppendUDP(nil, f, make([]byte, 172)))
	p.Time, p.In = q.now, q.pl.named(in)
	p.Parse()
	return p
}

// parseTime is how long Packet.Parse takes for one of the packets, as they
// come: the best of several rounds, for the machine does other things too.
func parseTime(packets []*stack.Packet) time.Duration {
	const rounds, each = 20, 10_000
	best := time.Duration(1<<63 - 1)
	for range rounds {
		begin := time.Now()
		for i := range each {
			packets[i%len(packets)].Parse()
		}
		best = min(best, time.Since(begin))
	}
	return max(1, best/each)
}

// againstParse reports what an operation costs as a multiple of parsing one of
// the packets.
func againstParse(b *testing.B, packets []*stack.Packet) {
	parse := parseTime(packets)
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(parse), "parses/op")
}

// BenchmarkEstablished is a packet of an established connection through Admit.
// It must not matter how many entries the access lists have.
func BenchmarkEstablished(b *testing.B) {
	for _, conns := range []int{1, 10_000, 1_000_000} {
		for _, entries := range []int{10, 1_000, 10_000} {
			b.Run(fmt.Sprintf("conns=%d/aces=%d", conns, entries), func(b *testing.B) {
				w, bytes := established(b, benchPlane(b, entries, 0), conns)
				in := w.pl.named("outside")
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					j := i % len(w.packets)
					p := w.packets[j]
					if v := w.d.Admit(p); v != stack.Forward {
						b.Fatal(v)
					}
					p.SetFlow(w.flows[j])
					p.In = in
				}
				b.StopTimer()
				againstParse(b, w.packets)
				if conns > 1 {
					b.ReportMetric(bytes, "bytes/conn")
				}
			})
		}
	}
}

// What an established connection's packet costs cannot depend on the access
// lists, for none is asked; and it allocates nothing, whatever the protocol and
// the translation.
func TestEstablished(t *testing.T) {
	q := benchPlane(t, 1_000, 100)
	hits := func() (n uint64) {
		for _, l := range q.pl.in {
			for _, e := range l.Entries {
				n += e.Hits()
			}
		}
		return n
	}
	for _, tt := range []struct {
		name, in string
		f        stack.Flow
	}{
		{"UDP to the server", "outside", client(0)},
		{"UDP through PAT", "inside", flow(stack.UDP, "10.20.1.1:5000", "192.0.2.5:4000")},
		{"TCP through PAT", "inside", flow(stack.TCP, "10.20.1.1:5000", "192.0.2.5:4000")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.f
			if f.Proto == stack.TCP { // the handshake
				server := f
				server.Src = netip.MustParseAddrPort("203.0.113.2:5000")
				q.admitted(tt.in, stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, Seq: 1, Window: 65535}, nil))
				q.admitted("outside", stack.AppendTCP(nil, server.Reverse(), stack.TCPHeader{Flags: stack.FlagSYN | stack.FlagACK, Seq: 1, Ack: 2, Window: 65535}, nil))
				q.admitted(tt.in, stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagACK, Seq: 2, Ack: 2, Window: 65535}, nil))
				q.admitted(tt.in, stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagACK, Seq: 2, Ack: 2, Window: 65535}, []byte("hello")))
			} else {
				q.admitted(tt.in, packet(f))
			}
			before, in := hits(), q.pl.named(tt.in)
			if before == 0 {
				t.Error("no access list was asked about the first packet: this test proves nothing")
			}
			if n := testing.AllocsPerRun(1000, func() {
				q.p.SetFlow(f)
				q.p.In, q.p.Time = in, q.now
				if v := q.d.Admit(q.p); v != stack.Forward {
					t.Fatal(v)
				}
			}); n != 0 {
				t.Errorf("%v allocations for a packet of an established connection", n)
			}
			if n := hits() - before; n != 0 {
				t.Errorf("access lists were asked %d times about an established connection's packets", n)
			}
		})
	}
}

// admitted has a packet arrive that must be forwarded.
func (q *plane) admitted(in string, raw []byte) {
	q.t.Helper()
	if v, p := q.admit(in, raw); v != stack.Forward {
		q.t.Fatalf("%v on %s: %v", p.Flow(), in, v)
	}
}

// benchFirst opens connections, each by its first packet, and ends them with
// the clock stopped.
func benchFirst(b *testing.B, q *plane, in string, flow func(int) stack.Flow) {
	const batch = 10_000
	var packets []*stack.Packet
	for i := range batch {
		packets = append(packets, ready(q, in, flow(i)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		j := i % batch
		if i > 0 && j == 0 {
			b.StopTimer()
			reset(q, packets, in, flow)
			b.StartTimer()
		}
		if v := q.d.Admit(packets[j]); v != stack.Forward {
			b.Fatal(v)
		}
	}
	b.StopTimer()
	againstParse(b, packets)
}

// reset ends all connections and makes the packets as they were.
func reset(q *plane, packets []*stack.Packet, in string, flow func(int) stack.Flow) {
	q.d.table.Conns(func(c *nat.Conn) bool {
		c.Close()
		return true
	})
	for i, p := range packets {
		p.SetFlow(flow(i))
		p.In = q.pl.named(in)
	}
}

// BenchmarkFirst is the first packet of a connection through Admit: pinholes,
// NAT, route, access list, connection.
func BenchmarkFirst(b *testing.B) {
	inside := func(i int) stack.Flow { // a host and port of its own for each
		return stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 1, byte(i / 5_000)}), uint16(20_000+i)),
			Dst: netip.MustParseAddrPort("192.0.2.5:4000")}
	}
	for _, size := range []struct{ entries, rules int }{
		{10, 0}, {1_000, 0}, {10_000, 0}, {10, 10}, {10, 1_000}, {10, 10_000},
	} {
		q := benchPlane(b, size.entries, size.rules)
		name := fmt.Sprintf("aces=%d/rules=%d", size.entries, size.rules)
		b.Run(name+"/to the server", func(b *testing.B) {
			benchFirst(b, q, "outside", client)
			reset(q, nil, "", nil)
		})
		b.Run(name+"/through PAT", func(b *testing.B) {
			benchFirst(b, q, "inside", inside)
			reset(q, nil, "", nil)
		})
		b.Run(name+"/denied", func(b *testing.B) {
			f := client(0)
			f.Dst = netip.AddrPortFrom(f.Dst.Addr(), 4999)
			p := ready(q, "outside", f)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if v := q.d.Admit(p); v != stack.DropACL {
					b.Fatal(v)
				}
			}
			b.StopTimer()
			againstParse(b, []*stack.Packet{p})
		})
	}
}

// benchPolicy has plain inspections look at what goes through.
const benchPolicy = `class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  inspect sip
service-policy global_policy global
`

// BenchmarkInspectUDP is a SIP datagram of a phone behind PAT through Parse,
// Admit and the engine, on its established connection: a keep-alive, which only
// names addresses, and the INVITE of a call that goes on, with SDP.
func BenchmarkInspectUDP(b *testing.B) {
	q := newPlane(b, func(string) string {
		return benchHead + benchLists(10) + benchTail + benchPolicy
	})
	const phone = "10.20.1.1:5060"
	f := flow(stack.UDP, phone, "192.0.2.5:5060")
	head := func(method, more string) string {
		return method + " sip:100@192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP " + phone + ";branch=z9hG4bKbench\r\n" +
			"From: <sip:200@192.0.2.5>;tag=f\r\nTo: <sip:100@192.0.2.5>\r\nCall-ID: " + method + "@10.20.1.1\r\n" +
			"CSeq: 1 " + method + "\r\nMax-Forwards: 70\r\nContact: <sip:200@" + phone + ">\r\n" + more
	}
	sdp := "v=0\r\no=- 1 1 IN IP4 10.20.1.1\r\ns=-\r\nc=IN IP4 10.20.1.1\r\nt=0 0\r\nm=audio 24000 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n"
	for _, m := range []struct{ name, text string }{
		{"OPTIONS", head("OPTIONS", "Content-Length: 0\r\n\r\n")},
		{"INVITE", head("INVITE", fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", len(sdp), sdp))},
	} {
		raw := stack.AppendUDP(nil, f, []byte(m.text))
		in, p := q.pl.named("inside"), stack.NewPacket(2048)
		arrive := func() {
			p.Reset()
			p.SetData(raw)
			p.Time, p.In = q.now, in
			p.Parse()
		}
		arrive()
		if v := q.d.Admit(p); v != stack.Forward {
			b.Fatalf("%s: %v: %s", m.name, v, &q.log)
		}
		if text := string(p.Payload()); !strings.Contains(text, "Via: SIP/2.0/UDP 203.0.113.2:") {
			b.Fatalf("%s was not translated: %s", m.name, text)
		}
		b.Run(m.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				arrive()
				if v := q.d.Admit(p); v != stack.Forward {
					b.Fatal(v)
				}
			}
			b.StopTimer()
			arrive()
			againstParse(b, []*stack.Packet{p})
		})
	}
}
