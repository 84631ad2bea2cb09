package appliance

import (
	"bufio"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"patchbay/appliance/cli"
)

var showLoadCommands = []cli.Rule[execFunc]{
	{Syntax: "show cpu [usage]", Help: "How busy the processors are", Do: show(showCPU)},
	{Syntax: "show memory", Help: "Memory of the program", Do: show(showMemory)},
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

// A shownCPU is how busy the program has kept those processors that it may use, in
// percent of them all. What else runs on the host does not count.
type shownCPU struct {
	Seconds5 int `json:"percent_5_seconds"`
	Minute1  int `json:"percent_1_minute"`
	Minutes5 int `json:"percent_5_minutes"`
}

func showCPU(x *execution, _ cli.Args) (s shownCPU, _ error) {
	used, ok := cpuUsed()
	now := cpuSample{x.opt.Now(), used}
	for _, over := range []struct {
		span    time.Duration
		percent *int
	}{{cpuEvery, &s.Seconds5}, {time.Minute, &s.Minute1}, {cpuSpan, &s.Minutes5}} {
		busy, measured := x.cpu.over(over.span, now)
		if ok = ok && measured; !ok {
			return s, refuse("%% CPU utilization has not been measured: the box has only begun, or its host does not tell")
		}
		*over.percent = min(100, int(busy*100/float64(min(runtime.GOMAXPROCS(0), runtime.NumCPU()))+0.5))
	}
	return s, nil
}

// Text is in the ASA's layout.
func (s shownCPU) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "CPU utilization for 5 seconds = %d%%; 1 minute: %d%%; 5 minutes: %d%%\n", s.Seconds5, s.Minute1, s.Minutes5)
}

// A shownMemory is what memory the program has from its host, and how much of it
// is in use.
type shownMemory struct {
	Free  uint64 `json:"free_bytes"`
	Used  uint64 `json:"used_bytes"`
	Total uint64 `json:"total_bytes"`
}

func showMemory(*execution, cli.Args) (shownMemory, error) {
	s := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, // given back
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(s)
	var n [4]uint64
	for k := range s {
		if s[k].Value.Kind() != metrics.KindUint64 {
			return shownMemory{}, fmt.Errorf("ERROR: %% %s is not known", s[k].Name)
		}
		n[k] = s[k].Value.Uint64()
	}
	total, free := n[0]-n[1], n[2]+n[3]
	return shownMemory{Free: free, Used: total - free, Total: total}, nil
}

// Text is in the ASA's layout.
func (s shownMemory) Text(w *bufio.Writer) {
	percent := int(float64(s.Free)*100/float64(s.Total) + 0.5)
	fmt.Fprintf(w, "Free memory:  %18d bytes (%2d%%)\nUsed memory:  %18d bytes (%2d%%)\n-------------     ------------------\nTotal memory: %18d bytes (100%%)\n",
		s.Free, percent, s.Used, 100-percent, s.Total)
}
