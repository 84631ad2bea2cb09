package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// Show writes a list of what the box knows at its clock:
//
//	conn             connections and pinholes, with the addresses on both sides
//	xlate            translations in use, and how often each rule was
//	drop             how many packets were dropped for each reason
//	service-policy   what police and set connection did, class by class
//	fragment         the limits of fragments, and what became of them
//	verify           what ip verify reverse-path refused, by interface
//
// The lines follow the ASA's, and say more where a test wants to know.
// (reference/asa-cli-show-debug.md, sections 2.7 to 2.10.)
func (r *Replay) Show(w io.Writer, what string) error {
	b := bufio.NewWriter(w)
	switch what {
	case "conn":
		r.showConns(b)
	case "xlate":
		r.showXlates(b)
	case "drop":
		r.showDrops(b)
	case "service-policy":
		r.box.plan.showServicePolicy(b, r.now)
	case "fragment":
		r.box.showFragments(b, r.now)
	case "verify":
		r.box.plan.showVerify(b)
	default:
		return fmt.Errorf("appliance: replay: show %q: want conn, xlate, drop, service-policy, fragment or verify", what)
	}
	return b.Flush()
}

// clockTime writes d as H:MM:SS.
func clockTime(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

func (r *Replay) showConns(w io.Writer) {
	t := r.box.table
	var all []*nat.Conn
	t.Conns(func(c *nat.Conn) bool {
		all = append(all, c)
		return true
	})
	slices.SortFunc(all, func(a, b *nat.Conn) int { return cmp.Compare(a.ID, b.ID) })
	fmt.Fprintf(w, "%d in use, %d most used\n", len(all), t.Most())
	for _, c := range all {
		near, far := c.Client(), c.Server()
		ends := []string{
			c.In.String() + " " + endText(near.Src, far.Src),
			c.Out.String() + " " + endText(far.Dst, near.Dst),
		}
		if !(c.In.Level < c.Out.Level) {
			ends[0], ends[1] = ends[1], ends[0]
		}
		_, up := c.Counters(nat.Client)
		_, down := c.Counters(nat.Server)
		flags := c.Flags()
		if flags == "" {
			flags = "-"
		}
		timeout := "never"
		if d := c.Timeout(); d != 0 {
			timeout = clockTime(d)
		}
		fmt.Fprintf(w, "%s %s %s, idle %s, timeout %s, bytes %d, flags %s\n",
			strings.ToUpper(c.Proto().String()), ends[0], ends[1], clockTime(c.Idle(r.now)), timeout, up+down, flags)
	}
	var holes []string
	t.Holes(func(h *nat.Hole) bool {
		until := "closed"
		if !h.Expires.IsZero() {
			until = clockTime(max(0, h.Expires.Sub(r.now))) + " left"
		}
		holes = append(holes, fmt.Sprintf("pinhole %s %s %s > %s to %s %s > %s, %s, %s", h.In, h.Match.Proto,
			wild(h.Match.Src), h.Match.Dst, h.Out, wild(h.To.Src), wild(h.To.Dst), h.Reason, until))
		return true
	})
	slices.Sort(holes)
	for _, h := range holes {
		fmt.Fprintln(w, h)
	}
}

// endText is an end of a connection as it is, and in parentheses how the other
// end knows it, if that differs.
func endText(real, mapped netip.AddrPort) string {
	if real == mapped {
		return real.String()
	}
	return real.String() + "(" + mapped.String() + ")"
}

// wild is an end of a pinhole, in which zero is any.
func wild(a netip.AddrPort) string {
	host, port := "*", "*"
	if a.Addr().IsValid() {
		host = a.Addr().String()
	}
	if a.Port() != 0 {
		port = fmt.Sprint(a.Port())
	}
	return host + ":" + port
}

func (r *Replay) showXlates(w io.Writer) {
	rules := r.box.plan.rules
	xs := r.box.table.Xlates(rules)
	fmt.Fprintf(w, "%d in use\n", len(xs))
	for _, x := range xs {
		what := "NAT"
		if x.Proto != 0 {
			what = strings.ToUpper(x.Proto.String()) + " PAT"
		}
		idle := "never used"
		if !x.Seen.IsZero() {
			idle = "idle " + clockTime(max(0, r.now.Sub(x.Seen)))
		}
		fmt.Fprintf(w, "%s from %s:%s to %s:%s flags %s, %d conns, %s\n",
			what, anyIf(x.From), wild(x.Real), anyIf(x.To), wild(x.Mapped), x.Flags(), x.Conns, idle)
	}
	for _, rule := range rules.All() {
		translate, untranslate := rule.Hits()
		fmt.Fprintf(w, "rule %s: translate_hits = %d, untranslate_hits = %d\n", rule.Name, translate, untranslate)
	}
}

// anyIf is the interface of a rule, of which nil is any.
func anyIf(i *stack.Interface) string {
	if i == nil {
		return "any"
	}
	return i.Name
}

func (r *Replay) showDrops(w io.Writer) {
	drops := r.Drops()
	var names []string
	for v, n := range drops {
		names = append(names, fmt.Sprintf("%s %d", v, n))
	}
	slices.Sort(names)
	c := r.count
	fmt.Fprintf(w, "%d packets in, %d out, %d dropped, %d for the box itself\n", c.In, c.Out, c.Dropped, c.Terminated)
	if c.NotIP+c.Truncated+c.Local > 0 {
		fmt.Fprintf(w, "%d frames not IP, %d packets truncated, %d between hosts of one side\n", c.NotIP, c.Truncated, c.Local)
	}
	if c.PickedUp > 0 {
		fmt.Fprintf(w, "%d TCP segments of handshakes made up\n", c.PickedUp)
	}
	for _, s := range names {
		fmt.Fprintln(w, s)
	}
}
