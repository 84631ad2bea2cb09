package appliance

import (
	"bufio"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
)

var showTrafficCommands = []cli.Rule[execFunc]{
	{Syntax: "show traffic", Help: "How much passes each interface", Do: show(showTraffic)},
	{Syntax: "clear traffic", Help: "Count anew what passes each interface", Do: clearTraffic},
}

// A trafficMeter says how much passes interfaces. Its zero value is ready. Any
// number of goroutines may use it.
type trafficMeter struct {
	mu      sync.Mutex
	samples map[*stack.Interface][]trafficSample // the oldest first, cpuRoom at most
	zero    map[*stack.Interface]trafficSample   // at "clear traffic"
}

// A trafficSample is what had passed an interface at a time.
type trafficSample struct {
	at   time.Time
	n    stack.Counters
	lost uint64 // packets dropped
}

// add takes a sample, unless the last is not old enough. A clock that was set back
// begins anew.
func (m *trafficMeter) add(i *stack.Interface, s trafficSample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.samples[i]
	if n := len(list); n > 0 {
		switch age := s.at.Sub(list[n-1].at); {
		case age < 0:
			list = list[:0]
		case age < cpuEvery:
			return
		case n == cpuRoom:
			list = append(list[:0], list[1:]...)
		}
	}
	if m.samples == nil {
		m.samples = make(map[*stack.Interface][]trafficSample)
	}
	m.samples[i] = append(list, s)
}

// keep forgets interfaces that are not among list.
func (m *trafficMeter) keep(list []*stack.Interface) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.samples, func(i *stack.Interface, _ []trafficSample) bool { return !slices.Contains(list, i) })
	maps.DeleteFunc(m.zero, func(i *stack.Interface, _ trafficSample) bool { return !slices.Contains(list, i) })
}

// A trafficRate is how much passes in a second.
type trafficRate struct{ inPackets, inBytes, outPackets, outBytes, lost uint64 }

// over returns the rates in the time d before now, or since the first sample if
// that is less. ok is false if nothing was measured.
func (m *trafficMeter) over(i *stack.Interface, d time.Duration, now trafficSample) (r trafficRate, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.samples[i]
	if len(list) == 0 {
		return r, false
	}
	from := list[0]
	for _, s := range list {
		if now.at.Sub(s.at) >= d {
			from = s
		}
	}
	passed := now.at.Sub(from.at).Seconds()
	if passed <= 0 {
		return r, false
	}
	per := func(now, then uint64) uint64 {
		if now < then {
			return 0
		}
		return uint64(float64(now-then)/passed + 0.5)
	}
	return trafficRate{per(now.n.InPackets, from.n.InPackets), per(now.n.InBytes, from.n.InBytes), per(now.n.OutPackets, from.n.OutPackets),
		per(now.n.OutBytes, from.n.OutBytes), per(now.lost, from.lost)}, true
}

// trafficNow is what has passed an interface.
func (a *Appliance) trafficNow(i *stack.Interface, now time.Time) trafficSample {
	s := trafficSample{at: now, n: a.forward.Counters(i)}
	for _, n := range a.forward.DropsOn(i) {
		s.lost += n
	}
	return s
}

// sampleTraffic takes a sample of each interface.
func (a *Appliance) sampleTraffic(now time.Time) {
	list := a.plan().interfaces
	for _, i := range list {
		a.traffic.add(i, a.trafficNow(i, now))
	}
	a.traffic.keep(list)
}

// A shownRate is how much has passed an interface in a second, of late.
type shownRate struct {
	Minutes    int    `json:"minutes"` // the last so many
	InPackets  uint64 `json:"in_packets_per_second"`
	InBytes    uint64 `json:"in_bytes_per_second"`
	OutPackets uint64 `json:"out_packets_per_second"`
	OutBytes   uint64 `json:"out_bytes_per_second"`
	Dropped    uint64 `json:"dropped_packets_per_second"`
}

// rates are how much passes an interface of late; none before that has been
// measured.
func (x *execution) rates(i *stack.Interface) (list []shownRate) {
	now := x.trafficNow(i, x.opt.Now())
	for _, d := range []time.Duration{time.Minute, cpuSpan} {
		if r, ok := x.traffic.over(i, d, now); ok {
			list = append(list, shownRate{int(d.Minutes()), r.inPackets, r.inBytes, r.outPackets, r.outBytes, r.lost})
		}
	}
	return list
}

// ratesText writes rates in the ASA's layout.
func ratesText(w *bufio.Writer, list []shownRate) {
	for _, r := range list {
		fmt.Fprintf(w, "      %d minute input rate %d pkts/sec,  %d bytes/sec\n", r.Minutes, r.InPackets, r.InBytes)
		fmt.Fprintf(w, "      %d minute output rate %d pkts/sec,  %d bytes/sec\n", r.Minutes, r.OutPackets, r.OutBytes)
		fmt.Fprintf(w, "      %d minute drop rate, %d pkts/sec\n", r.Minutes, r.Dropped)
	}
}

// clearTraffic has "show traffic" count anew.
func clearTraffic(x *execution, _ cli.Args) error {
	now := x.opt.Now()
	m := &x.traffic
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zero = make(map[*stack.Interface]trafficSample)
	for _, i := range x.plan.interfaces {
		m.zero[i] = x.trafficNow(i, now)
	}
	return nil
}

// A shownPassed is what has passed an interface since the box began or the counts
// were cleared.
type shownPassed struct {
	Name       string      `json:"name"`
	Over       cli.Seconds `json:"over_seconds"`
	InPackets  uint64      `json:"in_packets"`
	InBytes    uint64      `json:"in_bytes"`
	OutPackets uint64      `json:"out_packets"`
	OutBytes   uint64      `json:"out_bytes"`
	Rates      []shownRate `json:"rates,omitempty"`
}

type shownTraffic struct {
	Interfaces cli.List[shownPassed] `json:"interfaces"`
}

func showTraffic(x *execution, _ cli.Args) (s shownTraffic, _ error) {
	now := x.opt.Now()
	for _, i := range x.plan.interfaces {
		n, from := x.trafficNow(i, now).n, x.started
		x.traffic.mu.Lock()
		if z, ok := x.traffic.zero[i]; ok {
			from = z.at
			n.InPackets, n.InBytes = n.InPackets-z.n.InPackets, n.InBytes-z.n.InBytes
			n.OutPackets, n.OutBytes = n.OutPackets-z.n.OutPackets, n.OutBytes-z.n.OutBytes
		}
		x.traffic.mu.Unlock()
		over := cli.Seconds(max(now.Sub(from), time.Millisecond))
		s.Interfaces = append(s.Interfaces, shownPassed{i.Name, over, n.InPackets, n.InBytes, n.OutPackets, n.OutBytes, x.rates(i)})
	}
	return s, nil
}

func (s shownTraffic) Text(w *bufio.Writer) {
	for _, i := range s.Interfaces {
		secs := i.Over.Duration().Seconds()
		fmt.Fprintf(w, "%s:\n", i.Name)
		for _, way := range []struct {
			name           string
			packets, bytes uint64
		}{{"received", i.InPackets, i.InBytes}, {"transmitted", i.OutPackets, i.OutBytes}} {
			fmt.Fprintf(w, "\t%s (in %.3f secs):\n\t\t%d packets\t%d bytes\n\t\t%d pkts/sec\t%d bytes/sec\n", way.name, secs, way.packets, way.bytes,
				uint64(float64(way.packets)/secs), uint64(float64(way.bytes)/secs))
		}
		ratesText(w, i.Rates)
	}
}
