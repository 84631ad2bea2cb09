package nat_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// slowMatch is an access list the obvious way, in terms of nothing but the
// exported fields of its entries.
func slowMatch(entries []*nat.Entry, q nat.Query) *nat.Entry {
	in := func(objects []nat.Object, a netip.Addr) bool {
		for _, o := range objects {
			if o == (nat.Object{}) || !a.Less(o.From) && !o.To.Less(a) {
				return true
			}
		}
		return len(objects) == 0
	}
	has := func(ranges []nat.PortRange, port uint16) bool {
		for _, r := range ranges {
			if port >= r.From && port <= r.To {
				return true
			}
		}
		return len(ranges) == 0
	}
	for _, e := range entries {
		f := q.Flow
		ok := !e.Inactive && (e.Proto == 0 || e.Proto == f.Proto) && in(e.Src, f.Src.Addr()) && in(e.Dst, f.Dst.Addr())
		if f.Proto == stack.TCP || f.Proto == stack.UDP {
			ok = ok && has(e.SrcPorts, f.Src.Port()) && has(e.DstPorts, f.Dst.Port())
		}
		if f.Proto == stack.ICMP {
			ok = ok && (e.ICMPType == nil || *e.ICMPType == q.ICMPType) && (e.ICMPCode == nil || *e.ICMPCode == q.ICMPCode)
		}
		if e.When != nil {
			ok = ok && !q.Time.Before(e.When.Start) && q.Time.Before(e.When.End.Add(time.Minute))
		}
		if ok {
			return e
		}
	}
	return nil
}

// randomEntries returns n entries over a small world, so that many match.
func randomEntries(rnd *rand.Rand, n int) []*nat.Entry {
	object := func() nat.Object {
		a := netip.AddrFrom4([4]byte{10, 20, byte(rnd.IntN(4)), byte(rnd.IntN(256))})
		switch rnd.IntN(5) {
		case 0:
			return nat.Object{}
		case 1:
			return nat.Subnet(netip.PrefixFrom(a, 8+rnd.IntN(25)))
		case 2:
			b := netip.AddrFrom4([4]byte{10, 20, byte(rnd.IntN(4)), byte(rnd.IntN(256))})
			if b.Less(a) {
				a, b = b, a
			}
			return nat.Range(a, b)
		}
		return nat.Host(a)
	}
	objects := func() (os []nat.Object) {
		for range rnd.IntN(4) {
			os = append(os, object())
		}
		return os
	}
	ports := func() (ps []nat.PortRange) {
		for range rnd.IntN(3) {
			from := uint16(rnd.IntN(100))
			ps = append(ps, nat.PortRange{From: from, To: from + uint16(rnd.IntN(30))})
		}
		if rnd.IntN(20) == 0 {
			ps = append(ps, nat.PortRange{From: 60, To: 65535})
		}
		return ps
	}
	small := func(n int) *uint8 {
		if rnd.IntN(2) == 0 {
			return nil
		}
		v := uint8(rnd.IntN(n))
		return &v
	}
	var es []*nat.Entry
	for i := range n {
		e := &nat.Entry{
			Permit: rnd.IntN(2) == 0, Proto: []stack.Proto{0, stack.ICMP, stack.TCP, stack.UDP, 47}[rnd.IntN(5)],
			Src: objects(), Dst: objects(), SrcPorts: ports(), DstPorts: ports(),
			ICMPType: small(6), ICMPCode: small(3), Inactive: rnd.IntN(8) == 0, Text: fmt.Sprint("entry ", i),
		}
		if rnd.IntN(6) == 0 {
			at := start.Add(time.Duration(rnd.IntN(60)) * time.Minute)
			e.When = &nat.TimeRange{Start: at, End: at.Add(10 * time.Minute)}
		}
		es = append(es, e)
	}
	return es
}

func randomQuery(rnd *rand.Rand) nat.Query {
	a := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, 20, byte(rnd.IntN(5)), byte(rnd.IntN(256))})
	}
	f := stack.Flow{Proto: []stack.Proto{stack.ICMP, stack.TCP, stack.UDP, 47, 50}[rnd.IntN(5)]}
	sp, dp := uint16(rnd.IntN(150)), uint16(rnd.IntN(150))
	if f.Proto > stack.UDP {
		sp, dp = 0, 0
	}
	f.Src, f.Dst = netip.AddrPortFrom(a(), sp), netip.AddrPortFrom(a(), dp)
	return nat.Query{Flow: f, ICMPType: uint8(rnd.IntN(7)), ICMPCode: uint8(rnd.IntN(4)),
		Time: start.Add(time.Duration(rnd.IntN(80)) * time.Minute)}
}

// TestAccessListModel compares lists of every size with the obvious search.
func TestAccessListModel(t *testing.T) {
	rnd := newRand()
	found := 0
	for _, n := range []int{1, 5, 9, 40, 64, 65, 200, 5000} {
		for round := range max(1, 400/n) {
			entries := randomEntries(rnd, n)
			l := nat.NewAccessList("random", entries)
			if round%2 == 0 {
				l = &nat.AccessList{Name: "random", Entries: entries} // compiled when first asked
			}
			for range 300 {
				q := randomQuery(rnd)
				want := slowMatch(entries, q)
				if got := l.Find(&q); got != want {
					t.Fatalf("%d entries: Find(%+v) = %+v, want %+v", n, q, got, want)
				}
				if want == nil {
					continue
				}
				found++
				hits := want.Hits()
				if ok, e := l.PermitAt(q.Time, q.Flow, q.ICMPType); e != nil && (ok != e.Permit || e == want && want.Hits() != hits+1) {
					t.Fatalf("%d entries: PermitAt(%+v) = %v, %+v with %d hits, had %d", n, q, ok, e, want.Hits(), hits)
				}
			}
		}
	}
	if found < 1000 {
		t.Errorf("%d matches: the world is too large", found)
	}
}

func TestAccessListIPv6(t *testing.T) {
	entries := randomEntries(newRand(), 20)
	entries = append(entries, &nat.Entry{Text: "last"})
	l := nat.NewAccessList("v6", entries)
	f := stack.Flow{Proto: stack.TCP, Src: ap("[2001:db8::1]:1"), Dst: ap("[2001:db8::2]:2")}
	want := slowMatch(entries, nat.Query{Flow: f})
	if got := l.Match(f, 0); got != want || got == nil {
		t.Errorf("Match(%v) = %+v, want %+v", f, got, want)
	}
}

func TestTimeRange(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	work := &nat.TimeRange{Name: "work", Periods: nat.Daily([]time.Weekday{1, 2, 3, 4, 5}, 8*time.Hour, 17*time.Hour+59*time.Minute)}
	night := &nat.TimeRange{Periods: nat.Daily([]time.Weekday{time.Saturday}, 22*time.Hour, 6*time.Hour)}
	span := &nat.TimeRange{Periods: []nat.Period{{From: nat.NewWeekMinute(time.Friday, 18, 0), To: nat.NewWeekMinute(time.Monday, 7, 30)}}}
	once := &nat.TimeRange{Start: at("2020-01-02 08:00:00"), End: at("2020-01-02 09:00:00")}
	both := &nat.TimeRange{Start: at("2020-01-06 00:00:00"), Periods: work.Periods}
	east := &nat.TimeRange{Periods: work.Periods, Location: time.FixedZone("EST", -5*3600)}
	tests := []struct {
		r    *nat.TimeRange
		at   string // 2020-01-01 was a Wednesday
		want bool
	}{
		{work, "2020-01-01 08:00:00", true},
		{work, "2020-01-01 07:59:59", false},
		{work, "2020-01-01 17:59:59", true},
		{work, "2020-01-01 18:00:00", false},
		{work, "2020-01-04 12:00:00", false},
		{night, "2020-01-04 23:00:00", true},
		{night, "2020-01-05 05:00:00", true}, // Sunday, over the end of the week
		{night, "2020-01-04 05:00:00", false},
		{night, "2020-01-05 06:01:00", false},
		{span, "2020-01-03 17:59:00", false},
		{span, "2020-01-03 18:00:00", true},
		{span, "2020-01-05 12:00:00", true},
		{span, "2020-01-06 07:30:30", true},
		{span, "2020-01-06 07:31:00", false},
		{once, "2020-01-02 07:59:59", false},
		{once, "2020-01-02 08:00:00", true},
		{once, "2020-01-02 09:00:59", true},
		{once, "2020-01-02 09:01:00", false},
		{both, "2020-01-03 12:00:00", false},
		{both, "2020-01-06 12:00:00", true},
		{east, "2020-01-01 12:59:00", false},
		{east, "2020-01-01 13:00:00", true},
		{&nat.TimeRange{}, "2020-01-01 13:00:00", true},
	}
	for _, tt := range tests {
		if got := tt.r.Active(at(tt.at)); got != tt.want {
			t.Errorf("%+v: Active(%s) = %v", tt.r, tt.at, got)
		}
		l := &nat.AccessList{Entries: []*nat.Entry{{Permit: true, When: tt.r}}}
		if got, _ := l.PermitAt(at(tt.at), flow(stack.UDP, "10.20.0.1:1", "10.20.0.2:2"), 0); got != tt.want {
			t.Errorf("%+v: PermitAt(%s) = %v", tt.r, tt.at, got)
		}
	}
	if work.Active(time.Time{}) {
		t.Error("Active at the zero Time")
	}
}

// hosts returns a list of n entries that permit one host and port each, with a
// subnet now and then and a deny at the end, as large lists are.
func hosts(n int) *nat.AccessList {
	var es []*nat.Entry
	for i := range n - 1 {
		e := &nat.Entry{Permit: true, Proto: stack.TCP,
			Dst:      []nat.Object{nat.Host(netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}))},
			DstPorts: []nat.PortRange{{From: uint16(1000 + i%500), To: uint16(1000 + i%500)}}}
		switch i % 10 {
		case 7:
			e.Src = []nat.Object{nat.Subnet(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 24))}
		case 8:
			e.Dst, e.Src = nil, []nat.Object{nat.Host(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}))}
		case 9:
			e.Proto, e.DstPorts = 0, nil
		}
		es = append(es, e)
	}
	return nat.NewAccessList("hosts", append(es, &nat.Entry{Log: true}))
}

// BenchmarkAccessList is the question about one first packet: one that an entry
// in the middle permits, one that the last entry denies, and one that half of
// the entries match but for a field.
func BenchmarkAccessList(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		l := hosts(n)
		mid := n / 2 / 10 * 10
		wide := &nat.AccessList{}
		for i := range n {
			wide.Entries = append(wide.Entries, &nat.Entry{Permit: true, Proto: stack.TCP,
				Src:      []nat.Object{nat.Range(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), addr("198.52.0.0"))},
				Dst:      []nat.Object{nat.Range(addr("10.20.0.0"), netip.AddrFrom4([4]byte{10, 20, byte(i >> 8), byte(i)}))},
				SrcPorts: []nat.PortRange{{From: uint16(i), To: uint16(i)}}})
		}
		wide.Compile()
		for _, bb := range []struct {
			name string
			l    *nat.AccessList
			f    stack.Flow
			hit  bool
		}{
			{"middle", l, stack.Flow{Proto: stack.TCP, Src: ap("192.0.2.7:5000"),
				Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, byte(mid >> 8), byte(mid)}), uint16(1000+mid%500))}, true},
			{"denied", l, flow(stack.TCP, "192.0.2.7:5000", "10.20.0.200:999"), true},
			{"overlapping", wide, flow(stack.TCP, "198.51.200.0:60000", "10.20.0.0:2443"), false},
		} {
			b.Run(fmt.Sprintf("%s/aces=%d", bb.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for range b.N {
					if e := bb.l.Match(bb.f, 0); (e != nil) != bb.hit {
						b.Fatal(e)
					}
				}
			})
		}
	}
}

// BenchmarkAccessListLinear is what the index is for: the same question, asked
// entry by entry.
func BenchmarkAccessListLinear(b *testing.B) {
	l := hosts(10_000)
	q := nat.Query{Flow: flow(stack.TCP, "192.0.2.7:5000", "10.20.0.200:999")}
	for range b.N {
		if slowMatch(l.Entries, q) == nil {
			b.Fatal("no match")
		}
	}
}

// BenchmarkCompile is the making of a list's index.
func BenchmarkCompile(b *testing.B) {
	l := hosts(10_000)
	b.ReportAllocs()
	for range b.N {
		nat.NewAccessList("hosts", l.Entries)
	}
}
