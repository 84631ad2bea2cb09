package appliance

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCPUMeter(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds, usedMillis int) cpuSample {
		return cpuSample{start.Add(time.Duration(seconds) * time.Second), time.Duration(usedMillis) * time.Millisecond}
	}
	var m cpuMeter
	check := func(d time.Duration, now cpuSample, want float64, known bool) {
		t.Helper()
		if got, ok := m.over(d, now); ok != known || got < want-0.001 || got > want+0.001 {
			t.Errorf("over %v: %v, %v, want %v, %v", d, got, ok, want, known)
		}
	}
	check(cpuEvery, at(0, 0), 0, false)
	m.add(at(0, 0))
	check(cpuEvery, at(0, 10), 0, false)
	check(cpuEvery, at(2, 1000), 0.5, true) // since the beginning
	m.add(at(2, 1000))                      // too early
	for k := 1; k <= 200; k++ {             // idle for 500 s, then one processor in two
		m.add(at(5*k, max(0, k-100)*2500))
	}
	if len(m.samples) != cpuRoom {
		t.Errorf("%d samples are kept, want %d", len(m.samples), cpuRoom)
	}
	m.add(at(1005, 255_000)) // one whole
	check(cpuEvery, at(1005, 255_000), 1, true)
	check(time.Minute, at(1005, 255_000), 32.5/60, true)
	check(cpuSpan, at(1005, 255_000), 152.5/300, true)
	m.add(at(3, 300_000)) // the clock was set back
	check(cpuSpan, at(13, 301_000), 0.1, true)
}

// Both commands show what was measured, and nothing where nothing was.
func TestShowLoad(t *testing.T) {
	b := newTracedBox(t, "hostname pb\n", nil)
	var out strings.Builder
	if err := b.Exec(&out, "show cpu usage"); err == nil || !strings.Contains(err.Error(), "has not been measured") {
		t.Errorf("show cpu of a box that has not run: %q, %v", out.String(), err)
	}
	b.sampleCPU(b.now)
	used, ok := cpuUsed()
	if !ok {
		t.Skip("the host does not tell how much was used")
	}
	for end := used + 20*time.Millisecond; used < end; used, _ = cpuUsed() {
	}
	b.now = b.now.Add(time.Microsecond) // in which 20 ms were used: all processors
	var got [3]int
	err := b.Exec(&out, "show cpu")
	if _, scan := fmt.Sscanf(out.String(), "CPU utilization for 5 seconds = %d%%; 1 minute: %d%%; 5 minutes: %d%%\n", &got[0], &got[1], &got[2]); scan != nil || err != nil || got != [3]int{100, 100, 100} {
		t.Errorf("show cpu: %q, %v, %v, want 100%% for a processor that is overdone", out.String(), err, scan)
	}
	out.Reset()
	err = b.Exec(&out, "show memory")
	var free, used2, total uint64
	var p, q int
	if _, scan := fmt.Sscanf(out.String(), "Free memory: %d bytes (%d%%)\nUsed memory: %d bytes (%d%%)\n-------------     ------------------\nTotal memory: %d bytes",
		&free, &p, &used2, &q, &total); scan != nil || err != nil || free+used2 != total || p+q != 100 || used2 == 0 {
		t.Errorf("show memory: %q, %v, %v", out.String(), err, scan)
	}
}
