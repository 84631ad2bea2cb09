package appliance

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/link"
)

var showASPCommands = []cli.Rule[execFunc]{
	{Syntax: "show asp drop [frame [<reason>]|flow]", Help: "How many packets were dropped, by reason", Do: show(showASPDrop)},
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
func (x *execution) linkDrops() map[link.Reason]uint64 {
	sum := make(map[link.Reason]uint64)
	for _, i := range x.plan.interfaces {
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

// An aspDrop is how many packets were dropped for a reason.
type aspDrop struct {
	Reason  string `json:"reason"`
	Text    string `json:"text"`
	Packets uint64 `json:"packets"`
}

func (d aspDrop) line() string {
	return fmt.Sprintf("  %-59s %12d\n", d.Text+" ("+d.Reason+")", d.Packets)
}

// aspDrops are drops of packets, of connections, or both.
type aspDrops struct {
	Frame   cli.List[aspDrop] `json:"frame_drops,omitzero"`
	Flow    cli.List[aspDrop] `json:"flow_drops,omitzero"`
	Cleared time.Time         `json:"last_cleared,omitzero"`
}

func showASPDrop(x *execution, args cli.Args) (s aspDrops, _ error) {
	cleared := x.aspCleared()
	s.Cleared = cleared.at.UTC()
	only, narrowed := dropNamed(args.Get("reason"))
	if !args.Has("flow") {
		s.Frame = cli.List[aspDrop]{}
		for v, n := range x.forward.Drops() {
			if !narrowed || v == only {
				s.Frame = append(s.Frame, aspDrop{v.String(), v.Text(), n})
			}
		}
		for r, n := range x.linkDrops() {
			if n -= min(n, cleared.links[r]); n > 0 && !narrowed {
				s.Frame = append(s.Frame, aspDrop{r.String(), linkTexts[r], n})
			}
		}
		slices.SortFunc(s.Frame, func(a, b aspDrop) int { return strings.Compare(a.line(), b.line()) })
	}
	if !args.Has("frame") {
		s.Flow = cli.List[aspDrop]{} // a connection ends by a packet or by time; none is dropped as such
	}
	return s, nil
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.9.
func (s aspDrops) Text(w *bufio.Writer) {
	part := func(title string, list []aspDrop) {
		fmt.Fprintf(w, "%s:\n", title)
		for _, d := range list {
			w.WriteString(d.line())
		}
		fmt.Fprintf(w, "\nLast clearing: %s\n", clearing(s.Cleared))
	}
	if s.Frame != nil {
		part("Frame drop", s.Frame)
	}
	if s.Frame != nil && s.Flow != nil {
		w.WriteString("\n")
	}
	if s.Flow != nil {
		part("Flow drop", s.Flow)
	}
}

// clearing says when counters were cleared. Whoever is privileged without an
// account of his own is enable_15.
func clearing(at time.Time) string {
	if at.IsZero() {
		return "Never"
	}
	return at.UTC().Format("15:04:05 MST Jan 2 2006") + " by enable_15"
}
