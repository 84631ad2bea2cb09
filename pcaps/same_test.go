package pcaps_test

import (
	"bytes"
	"runtime"
	"testing"

	"patchbay/pcaps"
)

// same compares two results by their bytes.
func same(t *testing.T, a, b *pcaps.Result) bool {
	t.Helper()
	equal := bytes.Equal(a.Dump, b.Dump) && bytes.Equal(a.Show, b.Show) && len(a.Captures) == len(b.Captures)
	for name, capture := range a.Captures {
		equal = equal && bytes.Equal(capture, b.Captures[name])
	}
	return equal
}

// The same capture, configuration and seed give the same bytes on a machine
// with any number of processors; another seed gives others where the box has
// chosen a number.
func TestSameBytes(t *testing.T) {
	run := func(t *testing.T, processors int, config []byte, c pcaps.Crossing) *pcaps.Result {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		res, err := pcaps.RunCapture(config, t.TempDir(), c)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	rows := shared(t)
	if rows == nil {
		t.Skip("no captures in " + capturesDir)
	}
	chosen := 0
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config, c := r.crossing(t)
			first := run(t, 1, config, c)
			for _, processors := range []int{1, 4} {
				if !same(t, first, run(t, processors, config, c)) {
					t.Errorf("with %d processors other bytes", processors)
				}
			}
			c.Seed = "another"
			if !same(t, first, run(t, 1, config, c)) {
				chosen++
			} else if first.Count.Own > 0 {
				t.Error("another seed gives the same sequence numbers")
			}
		})
	}
	if chosen == 0 {
		t.Error("no capture in which the seed matters")
	}
}
