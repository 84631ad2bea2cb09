package appliance

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"patchbay/appliance/cli"
)

var showLoadCommands = []cli.Rule[execFunc]{
	{Syntax: "show cpu [usage]", Help: "How busy the processors are", Do: showCPU},
	{Syntax: "show memory", Help: "Memory of the program", Do: showMemory},
}

const (
	cpuEvery = 5 * time.Second           // between samples
	cpuSpan  = 5 * time.Minute           // that is looked back on
	cpuRoom  = int(cpuSpan/cpuEvery) + 2 // samples
)

// A cpuMeter says how busy the program has kept the processors. Its zero value is
// ready. Any number of goroutines may use it.
type cpuMeter struct {
	mu      sync.Mutex
	samples []cpuSample // the oldest first, cpuRoom at most
}

// A cpuSample is how much processor time the program had used at a time.
type cpuSample struct {
	at   time.Time
	used time.Duration
}

// add takes a sample, unless the last is not old enough. A clock that was set back
// begins anew.
func (m *cpuMeter) add(s cpuSample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.samples); n > 0 {
		switch age := s.at.Sub(m.samples[n-1].at); {
		case age < 0:
			m.samples = m.samples[:0]
		case age < cpuEvery:
			return
		case n == cpuRoom:
			m.samples = append(m.samples[:0], m.samples[1:]...)
		}
	}
	m.samples = append(m.samples, s)
}

// over returns how many processors were busy on average in the time d before now,
// or since the first sample if that is less. ok is false if nothing was measured.
func (m *cpuMeter) over(d time.Duration, now cpuSample) (busy float64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) == 0 {
		return 0, false
	}
	from := m.samples[0]
	for _, s := range m.samples {
		if now.at.Sub(s.at) >= d {
			from = s
		}
	}
	passed := now.at.Sub(from.at)
	if passed <= 0 {
		return 0, false
	}
	return float64(now.used-from.used) / float64(passed), true
}

// sample takes what "show cpu" and "show traffic" look back on.
func (a *Appliance) sample(now time.Time) {
	a.sampleCPU(now)
	a.sampleTraffic(now)
}

// sampleCPU takes a sample, where the host says how much the program has used.
func (a *Appliance) sampleCPU(now time.Time) {
	if used, ok := cpuUsed(); ok {
		a.cpu.add(cpuSample{now, used})
	}
}

// showCPU writes how busy the program has kept those processors that it may use,
// in the ASA's layout. What else runs on the host does not count.
func showCPU(x *execution, _ cli.Args) error {
	used, ok := cpuUsed()
	now := cpuSample{x.opt.Now(), used}
	var percent [3]int
	for k, d := range []time.Duration{cpuEvery, time.Minute, cpuSpan} {
		busy, measured := x.cpu.over(d, now)
		if ok = ok && measured; !ok {
			return refuse("%% CPU utilization has not been measured: the box has only begun, or its host does not tell")
		}
		percent[k] = min(100, int(busy*100/float64(runtime.GOMAXPROCS(0))+0.5))
	}
	x.printf("CPU utilization for 5 seconds = %d%%; 1 minute: %d%%; 5 minutes: %d%%\n", percent[0], percent[1], percent[2])
	return nil
}

// showMemory writes what memory the program has from its host and how much of it
// is in use, in the ASA's layout.
func showMemory(x *execution, _ cli.Args) error {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, // given back
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(s)
	var n [4]uint64
	for k := range s {
		if s[k].Value.Kind() != metrics.KindUint64 {
			return fmt.Errorf("ERROR: %% %s is not known", s[k].Name)
		}
		n[k] = s[k].Value.Uint64()
	}
	total, free := n[0]-n[1], n[2]+n[3]
	percent := int(float64(free)*100/float64(total) + 0.5)
	x.printf("Free memory:  %18d bytes (%2d%%)\nUsed memory:  %18d bytes (%2d%%)\n-------------     ------------------\nTotal memory: %18d bytes (100%%)\n",
		free, percent, total-free, 100-percent, total)
	return nil
}
