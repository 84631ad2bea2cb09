package tftp

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimits floods the server.
func TestLimits(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*Server)
		sources int // each asks from ports of its own
		each    int
		want    uint64 // requests taken up
	}{
		{"transfers", func(s *Server) { s.MaxTransfers = 5 }, 4, 4, 5},
		{"transfers of a source", func(s *Server) { s.MaxPerSource = 3 }, 4, 10, 12},
		{"rate of a source", func(s *Server) { s.PerSource = Rate{1, 2} }, 4, 10, 8},
		{"rate of all", func(s *Server) { s.All = Rate{1, 7} }, 4, 10, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(1)
				b := serve(t, n, map[string][]byte{"f": pattern(10)}, tt.change)
				for i := range tt.sources {
					for j := range tt.each {
						at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), uint16(2000+j))
						rawPhone{t, n.listen(at)}.read("f")
					}
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				st := b.server.Stats()
				if all := uint64(tt.sources * tt.each); st.Requests != tt.want || st.Limited != all-tt.want {
					t.Errorf("Stats = %+v, want %d of %d taken up", st, tt.want, all)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if st := b.server.Stats(); st.Active != 0 || len(b.server.perSource) != 0 {
					t.Errorf("left behind: %+v, %v", st, b.server.perSource)
				}
				rawPhone{t, n.listen(phoneAddr)}.read("f")
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if got := b.server.Stats(); got.Requests != tt.want+1 {
					t.Errorf("after the flood: %+v, want one more request taken up", got)
				}
				b.stop()
			})
		})
	}
}

func TestLimiterSources(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	per, all := Rate{1, 2}, Rate{1e9, 1e9}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }
	for i := range maxSources {
		if !l.allow(addr(i), per, all, now) {
			t.Fatalf("source %d refused", i)
		}
	}
	if l.allow(addr(maxSources), per, all, now) {
		t.Error("one source over the limit allowed")
	}
	if !l.allow(addr(0), per, all, now) {
		t.Error("a known source refused while the table is full")
	}
	if now = now.Add(2 * time.Second); !l.allow(addr(maxSources), per, all, now) {
		t.Error("a new source refused after the others were idle")
	}
	if len(l.sources) != 1 {
		t.Errorf("%d sources held, want 1", len(l.sources))
	}
	if l.allow(addr(maxSources), per, all, now) != true || l.allow(addr(maxSources), per, all, now) {
		t.Error("a burst of 2 is not 2")
	}
}
