package replay

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/stack"
)

// benchConfig is a box with a server inside that has an address outside, and an
// access list of ten entries.
func benchConfig() string {
	var list strings.Builder
	for i := range 9 {
		fmt.Fprintf(&list, "access-list outside_in extended permit tcp any host 10.20.0.%d eq 80\n", 20+i)
	}
	return `interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.0.0
object network server
 host 10.20.0.11
 nat (inside,outside) static 203.0.113.10
` + list.String() + `access-list outside_in extended permit udp any host 10.20.0.11 eq 5000
access-group outside_in in interface outside
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
`
}

// BenchmarkReplay is a packet of an established connection through a Box, 1 ms
// after the one before it, with and without the text dump.
func BenchmarkReplay(b *testing.B) {
	r, findings := config.Check("bench.cfg", strings.NewReader(benchConfig()))
	if config.Errors(findings) > 0 {
		b.Fatal(findings)
	}
	raw := stack.AppendUDP(nil, stack.Flow{
		Proto: stack.UDP, Src: netip.MustParseAddrPort("198.51.100.7:5000"), Dst: netip.MustParseAddrPort("203.0.113.10:5000"),
	}, make([]byte, 172))
	for _, way := range []struct {
		name string
		text io.Writer
	}{{"bare", nil}, {"text", io.Discard}} {
		b.Run(way.name, func(b *testing.B) {
			q, err := New(r, Options{Seed: "bench", Text: way.text})
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			in, p, now := q.Interface("outside"), stack.NewPacket(2048), clockStart
			arrive := func() {
				p.Reset()
				p.SetData(raw)
				now = now.Add(time.Millisecond)
				p.Time, p.In = now, in
				q.Handle(p)
			}
			arrive()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				arrive()
			}
			b.StopTimer()
			if c := q.Count(); c.Out != c.In {
				b.Fatalf("of %d packets %d left", c.In, c.Out)
			}
			p.SetData(raw)
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(parseTime(p)), "parses/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

// parseTime is how long Packet.Parse takes: the best of several rounds, for the
// machine does other things too.
func parseTime(p *stack.Packet) time.Duration {
	const rounds, each = 20, 10_000
	best := time.Duration(1<<63 - 1)
	for range rounds {
		begin := time.Now()
		for range each {
			p.Parse()
		}
		best = min(best, time.Since(begin))
	}
	return max(1, best/each)
}
