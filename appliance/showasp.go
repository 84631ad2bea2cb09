package appliance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/link"
)

var showASPCommands = []cli.Rule[execFunc]{
	{Syntax: "show asp drop [frame [<reason>]|flow]", Help: "How many packets were dropped, by reason", Do: showASPDrop},
}

// dropNamed returns the drop of a name that "show asp drop" prints.
func dropNamed(name string) (drop stack.Verdict, ok bool) {
	stack.Verdicts(func(v stack.Verdict) {
		if v.Dropped() && strings.EqualFold(v.String(), name) {
			drop, ok = v, true
		}
	})
	return drop, ok
}

// linkTexts describe what links drop before the box has seen it or after it has
// let it go. (reference/asa-cli-show-debug.md, section 2.9.)
var linkTexts = map[link.Reason]string{
	link.QueueFull:   "Receiver does not keep up",
	link.RingFull:    "Interface ring is full",
	link.Oversize:    "Frame longer than the MTU",
	link.NotForUs:    "Frame for another station",
	link.WrongVLAN:   "Frame of another VLAN",
	link.OtherType:   "Frame neither IP nor ARP",
	link.Malformed:   "Malformed frame",
	link.NoAdjacency: "No valid adjacency",
	link.SendFailed:  "Frame refused by the device",
}

// linkDrops is what the links of all interfaces dropped, since they were opened.
func (a *Appliance) linkDrops() map[link.Reason]uint64 {
	sum := make(map[link.Reason]uint64)
	for _, i := range a.plan().interfaces {
		if c, ok := i.Link.(link.Counter); ok {
			for r, n := range c.Stats().Drops {
				sum[r] += n
			}
		}
	}
	return sum
}

// aspCleared is when "clear asp drop" was last done, and what links had dropped
// then, for their counts only grow.
type aspCleared struct {
	at    time.Time // zero: never
	links map[link.Reason]uint64
}

// showASPDrop counts drops. (reference/asa-cli-show-debug.md, section 2.9.)
func showASPDrop(x *execution, args cli.Args) error {
	cleared := x.aspCleared()
	only, narrowed := dropNamed(args.Get("reason"))
	if !args.Has("flow") {
		x.printf("Frame drop:\n")
		var lines []string
		line := func(text, name string, n uint64) {
			lines = append(lines, fmt.Sprintf("  %-59s %12d\n", text+" ("+name+")", n))
		}
		for v, n := range x.forward.Drops() {
			if !narrowed || v == only {
				line(v.Text(), v.String(), n)
			}
		}
		for r, n := range x.linkDrops() {
			if n -= min(n, cleared.links[r]); n > 0 && !narrowed {
				line(linkTexts[r], r.String(), n)
			}
		}
		slices.Sort(lines)
		x.printf("%s\nLast clearing: %s\n", strings.Join(lines, ""), clearing(cleared.at))
	}
	if !args.Has("frame") {
		// A connection ends by a packet or by time; none is dropped as such.
		if !args.Has("flow") {
			x.printf("\n")
		}
		x.printf("Flow drop:\n\nLast clearing: %s\n", clearing(cleared.at))
	}
	return nil
}

// clearing says when counters were cleared. Whoever is privileged without an
// account of his own is enable_15.
func clearing(at time.Time) string {
	if at.IsZero() {
		return "Never"
	}
	return at.UTC().Format("15:04:05 MST Jan 2 2006") + " by enable_15"
}
