package stack

import (
	"math/big"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// sized returns a packet of n bytes, 28 at least, at noon.
func sized(t testing.TB, n int) *Packet {
	return parsed(t, AppendUDP(nil, flowOf(UDP, "198.51.100.7", 5000, "10.20.0.11", 69), make([]byte, n-ipHeader-udpHeader)))
}

// TestPolicerTFTP is the arithmetic of configuration (g): 300 requests a second
// of 80 bytes are 192,000 bit/s, and of twice as many half passes once the burst
// is used up.
func TestPolicerTFTP(t *testing.T) {
	l := NewPolicer(PolicerConfig{Rate: 192_000, Burst: 6000})
	p := sized(t, 80)
	passed := 0
	const n = 6000 // 600 a second for ten seconds
	for i := range n {
		p.Time = noon.Add(time.Duration(i) * time.Second / 600)
		if l.Take(p) == Forward {
			passed++
		}
	}
	// 6,000 bytes are 75 requests; then 300 a second, but for the last one,
	// which comes 1/600 s before the ten are over.
	if passed != 75+3000-1 {
		t.Errorf("%d of %d requests passed, want %d", passed, n, 75+3000-1)
	}
	want := PoliceCount{Conformed: 3074, ConformedBytes: 3074 * 80, Exceeded: 2926, ExceededBytes: 2926 * 80}
	if got := l.Count(); got != want {
		t.Errorf("Count = %+v, want %+v", got, want)
	}
	conformed, exceeded := l.Rates(noon.Add(10 * time.Second))
	if conformed != 192_000 || exceeded != 192_000 {
		t.Errorf("Rates = %d, %d bit/s, want 192,000 each", conformed, exceeded)
	}
	if c, e := l.Rates(noon.Add(20 * time.Second)); c != 0 || e != 0 {
		t.Errorf("Rates ten seconds later = %d, %d bit/s, want 0", c, e)
	}
	l.Clear()
	if got := l.Count(); got != (PoliceCount{}) {
		t.Errorf("Count after Clear = %+v", got)
	}
}

func TestPolicer(t *testing.T) {
	type step struct {
		at   time.Duration
		n    int
		want Verdict
	}
	tests := []struct {
		name  string
		cfg   PolicerConfig
		steps []step
	}{
		{"the burst at once, then a byte each millisecond", PolicerConfig{Rate: 8000, Burst: 1000}, []step{
			{0, 600, Forward}, {0, 401, DropRate}, {0, 400, Forward}, {0, 28, DropRate},
			{27 * time.Millisecond, 28, DropRate}, {28 * time.Millisecond, 28, Forward}, {28 * time.Millisecond, 28, DropRate},
		}},
		{"what exceeds takes nothing", PolicerConfig{Rate: 8000, Burst: 1000}, []step{
			{0, 1001, DropRate}, {0, 1000, Forward},
		}},
		{"never more than the burst", PolicerConfig{Rate: 8000, Burst: 1000}, []step{
			{0, 1000, Forward}, {time.Hour, 1000, Forward}, {time.Hour, 28, DropRate},
		}},
		{"conform-action drop exceed-action transmit", PolicerConfig{Rate: 8000, Burst: 1000, DropConforming: true, TransmitExceeded: true}, []step{
			{0, 1000, DropRate}, {0, 28, Forward},
		}},
		{"both transmit: it only counts", PolicerConfig{Rate: 8000, Burst: 1000, TransmitExceeded: true}, []step{
			{0, 1000, Forward}, {0, 1000, Forward},
		}},
		{"a packet a little late", PolicerConfig{Rate: 8000, Burst: 1000}, []step{
			{time.Second, 1000, Forward}, {900 * time.Millisecond, 28, DropRate}, {1028 * time.Millisecond, 28, Forward},
		}},
		{"a clock set back", PolicerConfig{Rate: 8000, Burst: 1000}, []step{
			{time.Hour, 1000, Forward}, {0, 28, DropRate}, {28 * time.Millisecond, 28, Forward},
		}},
		{"the most there is, idle for a century", PolicerConfig{Rate: MaxPoliceRate, Burst: MaxPoliceBurst}, []step{
			{0, 1500, Forward}, {876_000 * time.Hour, 1500, Forward},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := NewPolicer(tt.cfg)
			for i, s := range tt.steps {
				p := sized(t, s.n)
				p.Time = noon.Add(s.at)
				if got := l.Take(p); got != s.want {
					t.Errorf("step %d: %d bytes at %v: %v, want %v", i, s.n, s.at, got, s.want)
				}
			}
		})
	}
}

// TestPolicerAgainstSlow compares with a bucket in fractions of any size.
func TestPolicerAgainstSlow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		cfg := PolicerConfig{Rate: 8000 + rnd.Int64N(1<<rnd.IntN(31)), Burst: 1000 + rnd.Int64N(1<<rnd.IntN(29))}
		cfg.Rate = min(cfg.Rate, MaxPoliceRate)
		l := NewPolicer(cfg)
		full := new(big.Rat).SetInt64(cfg.Burst * 8)
		bucket := new(big.Rat).Set(full)
		at, before := noon, noon
		// About as much as the rate allows, so that both verdicts occur.
		gap := max(1, int64(800*8)*nanos/cfg.Rate)
		for i := range 2000 {
			at = at.Add(time.Duration(rnd.Int64N(2 * gap)))
			n := 28 + rnd.IntN(1400)
			p := sized(t, n)
			p.Time = at
			got := l.Take(p)

			bucket.Add(bucket, new(big.Rat).Mul(big.NewRat(int64(at.Sub(before)), nanos), new(big.Rat).SetInt64(cfg.Rate)))
			if bucket.Cmp(full) > 0 {
				bucket.Set(full)
			}
			before = at
			want, need := DropRate, new(big.Rat).SetInt64(int64(n)*8)
			if bucket.Cmp(need) >= 0 {
				bucket.Sub(bucket, need)
				want = Forward
			}
			if got != want {
				t.Fatalf("%+v: packet %d of %d bytes: %v, want %v", cfg, i, n, got, want)
			}
		}
	}
}

// TestPolicerConcurrent: goroutines together get no more than one alone.
func TestPolicerConcurrent(t *testing.T) {
	l := NewPolicer(PolicerConfig{Rate: 8000, Burst: 100_000})
	var wg sync.WaitGroup
	for range 4 {
		p := sized(t, 100)
		wg.Go(func() {
			for range 1000 {
				l.Take(p)
			}
		})
	}
	wg.Wait()
	if c := l.Count(); c.Conformed != 1000 || c.Exceeded != 3000 {
		t.Errorf("conformed %d, exceeded %d; want 1000, 3000", c.Conformed, c.Exceeded)
	}
}

func TestPolicerAllocations(t *testing.T) {
	l, p := NewPolicer(PolicerConfig{Rate: 192_000, Burst: 6000}), sized(t, 80)
	if n := testing.AllocsPerRun(1000, func() { l.Take(p) }); n != 0 {
		t.Errorf("Take: %v allocations", n)
	}
}

func BenchmarkPolicer(b *testing.B) {
	l, p := NewPolicer(PolicerConfig{Rate: MaxPoliceRate, Burst: MaxPoliceBurst}), sized(b, 200)
	b.ReportAllocs()
	for range b.N {
		p.Time = p.Time.Add(time.Microsecond)
		l.Take(p)
	}
}
