package appliance

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

var showNATCommands = []cli.Rule[execFunc]{
	{Syntax: "show xlate count", Help: "How many translations are in use", Do: showXlateCount},
	{Syntax: "show xlate", Help: "Translations in use", Do: showXlate},
	{Syntax: "show nat [detail]", Help: "NAT rules in the order of search, and how often each was used", Do: showNAT},
}

const xlateLegend = `Flags: D - DNS, e - extended, I - identity, i - dynamic, r - portmap,
       s - static, T - twice, N - net-to-net
`

// xlateCount returns how many translations are in use, and the most there were.
// As on the ASA a static rule is one.
func (x *execution) xlateCount(xs []nat.Xlate) (inUse, most int) {
	static := 0
	for _, xl := range xs {
		if xl.Rule.Kind != nat.Dynamic {
			static++
		}
	}
	return len(xs), static + x.data.pat.Most()
}

func showXlateCount(x *execution, _ cli.Args) error {
	inUse, most := x.xlateCount(x.table.Xlates(x.plan.rules))
	x.printf("%d in use, %d most used\n", inUse, most)
	return nil
}

// showXlate lists translations. (reference/asa-cli-show-debug.md, section 2.8.)
func showXlate(x *execution, _ cli.Args) error {
	now, xs := x.opt.Now(), x.table.Xlates(x.plan.rules)
	inUse, most := x.xlateCount(xs)
	x.printf("%d in use, %d most used\n%s", inUse, most, xlateLegend)
	for _, xl := range xs {
		what := "NAT"
		if xl.Proto != 0 {
			what = strings.ToUpper(xl.Proto.String()) + " PAT"
		}
		timeout := time.Duration(0) // for ever
		if xl.Rule.Kind == nat.Dynamic {
			timeout = x.plan.timeouts.Xlate
			if xl.Proto != 0 {
				timeout = x.plan.timeouts.PATXlate
			}
		}
		seen := xl.Seen
		switch {
		case !xl.Until.IsZero():
			seen = xl.Until.Add(-timeout)
		case seen.IsZero():
			seen = x.started
		}
		real, mapped := slashed(xl.Real), slashed(xl.Mapped)
		if xl.Proto == 0 {
			real, mapped = xlateObjects(&xl)
		}
		x.printf("%s from %s:%s to %s:%s flags %s idle %s timeout %s\n",
			what, anyIf(xl.From), real, anyIf(xl.To), mapped, xl.Flags(), clockTime(max(0, now.Sub(seen))), clockTime(timeout))
	}
	return nil
}

// xlateObjects returns the two ends of a translation of all ports: a host, or
// all addresses of a static rule.
func xlateObjects(x *nat.Xlate) (real, mapped string) {
	if x.Rule.Kind == nat.Dynamic {
		return x.Real.Addr().String(), x.Mapped.Addr().String()
	}
	from, to := x.Rule.Source, x.Rule.MappedSource
	if x.Rule.Kind == nat.Identity {
		to = from
	}
	if x.Rule.MappedInterface {
		to = nat.Host(x.Mapped.Addr())
	}
	return addressText(from), addressText(to)
}

// addressText writes the addresses of an object, not its name.
func addressText(o nat.Object) string {
	o.Name = ""
	if o.IsAny() {
		return "0.0.0.0/0"
	}
	return o.String()
}

// anyIf is the interface of a rule, of which nil is any.
func anyIf(i *stack.Interface) string {
	if i == nil {
		return "any"
	}
	return i.Name
}

var sectionNames = map[int]string{
	nat.ManualSection:    "Manual NAT Policies (Section 1)",
	nat.AutoSection:      "Auto NAT Policies (Section 2)",
	nat.AfterAutoSection: "Manual NAT Policies (Section 3)",
}

// showNAT lists the rules. (reference/asa-cli-show-debug.md, section 2.8.)
func showNAT(x *execution, args cli.Args) error {
	section, n := 0, 0
	for _, r := range x.plan.rules.All() {
		if r.Section != section {
			if section != 0 {
				x.printf("\n")
			}
			section, n = r.Section, 0
			x.printf("%s\n", sectionNames[section])
		}
		n++
		translate, untranslate := r.Hits()
		x.printf("%d %s\n    translate_hits = %d, untranslate_hits = %d\n", n, x.ruleText(r), translate, untranslate)
		if args.Has("detail") {
			x.ruleDetail(r)
		}
	}
	return nil
}

// ruleText is a rule as "show nat" writes it: "(inside) to (outside) source
// dynamic inside-net interface".
func (x *execution) ruleText(r *nat.Rule) string {
	n := &x.running.NAT[r.Ref]
	var b strings.Builder
	fmt.Fprintf(&b, "(%s) to (%s) source ", anyIf(r.Real), anyIf(r.Mapped))
	words := cli.Split(x.configLine(n.Line))
	for i, w := range words { // what follows "(real,mapped)"
		if words[0].Text != "nat" || n.Legacy || w.Text[0] != '(' {
			continue
		}
		rest := strings.TrimRight(x.configLine(n.Line)[w.Col-1+len(w.Text):], " \t\r")
		rest = strings.TrimLeft(rest, " \t")
		if r.Section == nat.AutoSection {
			kind, more, _ := strings.Cut(rest, " ")
			return b.String() + kind + " " + n.Object + " " + strings.TrimLeft(more, " ")
		}
		if at := strings.Index(rest, "source "); i > 0 && at >= 0 {
			return b.String() + rest[at+len("source "):]
		}
	}
	// Made of lines of before 8.3, which say it another way.
	fmt.Fprintf(&b, "%v %s ", r.Kind, addressText(r.Source))
	switch {
	case r.MappedInterface && r.MappedSource.IsAny():
		b.WriteString("interface")
	case r.Kind == nat.Identity:
		b.WriteString(addressText(r.Source))
	default:
		b.WriteString(addressText(r.MappedSource))
	}
	if !r.Dest.IsAny() {
		fmt.Fprintf(&b, " destination static %s %s", addressText(r.MappedDest), addressText(r.Dest))
	}
	if r.Service != 0 && r.RealPort != 0 {
		fmt.Fprintf(&b, " service %v %d %d", r.Service, r.RealPort, r.MappedPort)
	}
	return b.String()
}

// ruleDetail says what addresses and ports a rule comes to.
func (x *execution) ruleDetail(r *nat.Rule) {
	to := addressText(r.MappedSource)
	switch {
	case r.Kind == nat.Identity:
		to = addressText(r.Source)
	case r.MappedInterface && r.Mapped != nil && r.MappedSource.IsAny():
		to = addressText(nat.Host(r.Mapped.Addr.Addr()))
	}
	x.printf("    Source - Origin: %s, Translated: %s\n", addressText(r.Source), to)
	if !r.Dest.IsAny() || !r.MappedDest.IsAny() {
		x.printf("    Destination - Origin: %s, Translated: %s\n", addressText(r.MappedDest), addressText(r.Dest))
	}
	if r.Service == 0 {
		return
	}
	x.printf("    Service - Protocol: %v", r.Service)
	if r.RealPorts != (nat.PortRange{}) {
		x.printf(" Real: %s Mapped: %s", portText(r.RealPorts), portText(r.MappedPorts))
	}
	if r.DestPorts != (nat.PortRange{}) {
		x.printf(" Destination Origin: %s Translated: %s", portText(r.MappedDestPorts), portText(r.DestPorts))
	}
	x.printf("\n")
}

func portText(r nat.PortRange) string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// configLine returns the text of a line of the configuration, without its
// indentation and trailing space; "" if there is no such line.
func (a *Appliance) configLine(n int) string {
	if n < 1 || n > len(a.plan().running.Lines) {
		return ""
	}
	return strings.TrimSpace(a.plan().running.Lines[n-1].Text)
}

// ruleLines returns the lines of the configuration that a rule was made of, as
// the trace shows them: the command, below its object if it stands in one.
func (a *Appliance) ruleLines(r *nat.Rule) []string {
	n := &a.plan().running.NAT[r.Ref]
	line := a.configLine(n.Line)
	if n.Section == config.AutoNAT && n.Object != "" && !n.Legacy {
		return []string{"object network " + n.Object, " " + line}
	}
	return []string{line}
}

// prefixText writes an interface's address and mask as the ASA does.
func prefixText(p netip.Prefix) (addr, mask string) {
	return p.Addr().String(), config.MaskText(p.Bits())
}
