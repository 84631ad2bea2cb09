package appliance

import (
	"bufio"
	"cmp"
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
	{Syntax: "show xlate count", Help: "How many translations are in use", Do: show(showXlateCount)},
	{Syntax: "show xlate", Help: "Translations in use", Do: show(showXlate)},
	{Syntax: "show nat [detail]", Help: "NAT rules in the order of search, and how often each was used", Do: show(showNAT)},
}

const xlateLegend = `Flags: D - DNS, e - extended, I - identity, i - dynamic, r - portmap,
       s - static, T - twice, N - net-to-net
`

// xlateUsage is how many translations are in use, and the most there were. As on the
// ASA a static rule is one.
func (x *execution) xlateUsage(xs []nat.Xlate) usage {
	static := 0
	for _, xl := range xs {
		if xl.Rule.Kind != nat.Dynamic {
			static++
		}
	}
	return usage{len(xs), static + x.data.pat.Most()}
}

func showXlateCount(x *execution, _ cli.Args) (usage, error) {
	return x.xlateUsage(x.table.Xlates(x.plan.rules)), nil
}

// A shownXlate is one of "show xlate": of a port, which has a protocol, or of all
// that a host or a static rule has.
type shownXlate struct {
	Proto   string      `json:"protocol,omitempty"`
	From    xlateEnd    `json:"from"` // real
	To      xlateEnd    `json:"to"`   // mapped
	Flags   string      `json:"flags"`
	Idle    cli.Seconds `json:"idle_seconds"`
	Timeout cli.Seconds `json:"timeout_seconds"` // 0 is never
}

type xlateEnd struct {
	Interface string `json:"interface,omitempty"` // none: any
	Addresses string `json:"addresses"`           // one, a prefix, or first-last
	Port      uint16 `json:"port,omitempty"`      // with a protocol
}

type shownXlates struct {
	usage
	Xlates cli.List[shownXlate] `json:"translations"`
}

func showXlate(x *execution, _ cli.Args) (s shownXlates, _ error) {
	now, xs := x.opt.Now(), x.table.Xlates(x.plan.rules)
	s.usage = x.xlateUsage(xs)
	for _, xl := range xs {
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
		o := shownXlate{
			From: xlateEnd{ifName(xl.From), xl.Real.Addr().String(), xl.Real.Port()}, To: xlateEnd{ifName(xl.To), xl.Mapped.Addr().String(), xl.Mapped.Port()},
			Flags: xl.Flags(), Idle: cli.Seconds(max(0, now.Sub(seen))), Timeout: cli.Seconds(timeout),
		}
		if xl.Proto != 0 {
			o.Proto = xl.Proto.String()
		} else {
			o.From.Port, o.To.Port = 0, 0
			o.From.Addresses, o.To.Addresses = xlateObjects(&xl)
		}
		s.Xlates = append(s.Xlates, o)
	}
	return s, nil
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.8.
func (s shownXlates) Text(w *bufio.Writer) {
	s.usage.Text(w)
	w.WriteString(xlateLegend)
	for _, xl := range s.Xlates {
		what, real, mapped := "NAT", xl.From.Addresses, xl.To.Addresses
		if xl.Proto != "" {
			what = strings.ToUpper(xl.Proto) + " PAT"
			real, mapped = fmt.Sprintf("%s/%d", real, xl.From.Port), fmt.Sprintf("%s/%d", mapped, xl.To.Port)
		}
		fmt.Fprintf(w, "%s from %s:%s to %s:%s flags %s idle %s timeout %s\n", what, cmp.Or(xl.From.Interface, "any"), real,
			cmp.Or(xl.To.Interface, "any"), mapped, xl.Flags, clockTime(xl.Idle.Duration()), clockTime(xl.Timeout.Duration()))
	}
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

// ifName is the name of an interface, "" of nil.
func ifName(i *stack.Interface) string {
	if i == nil {
		return ""
	}
	return i.Name
}

// anyIf is the interface of a rule, of which nil is any.
func anyIf(i *stack.Interface) string { return cmp.Or(ifName(i), "any") }

var sectionNames = map[int]string{
	nat.ManualSection:    "Manual NAT Policies (Section 1)",
	nat.AutoSection:      "Auto NAT Policies (Section 2)",
	nat.AfterAutoSection: "Manual NAT Policies (Section 3)",
}

// A shownRule is one of "show nat".
type shownRule struct {
	Section      int            `json:"section"`
	Number       int            `json:"number"` // in its section, from 1
	Rule         string         `json:"rule"`
	Real         string         `json:"real_interface,omitempty"` // none: any
	Mapped       string         `json:"mapped_interface,omitempty"`
	Kind         string         `json:"kind"` // "static", "dynamic" or "identity"
	Source       ruleAddresses  `json:"source"`
	Destination  *ruleAddresses `json:"destination,omitempty"` // none: every peer
	Service      *ruleService   `json:"service,omitempty"`     // none: all
	Translated   uint64         `json:"translate_hits"`
	Untranslated uint64         `json:"untranslate_hits"`
}

// ruleAddresses are addresses before a translation and after it: one, a prefix, or
// first-last.
type ruleAddresses struct {
	Origin     string `json:"origin"`
	Translated string `json:"translated"`
}

// A ruleService is the ports of a rule, "first-last" where there are several.
type ruleService struct {
	Proto       string `json:"protocol"`
	Real        string `json:"real_ports,omitempty"`
	Mapped      string `json:"mapped_ports,omitempty"`
	Destination string `json:"destination_ports,omitempty"`
	Translated  string `json:"translated_destination_ports,omitempty"`
}

type shownRules struct {
	Rules  cli.List[shownRule] `json:"rules"` // in the order of search
	detail bool
}

func showNAT(x *execution, args cli.Args) (s shownRules, _ error) {
	s.detail = args.Has("detail")
	for n, r := range x.plan.rules.All() {
		o := x.rule(r)
		if o.Number = 1; n > 0 && s.Rules[n-1].Section == o.Section {
			o.Number = s.Rules[n-1].Number + 1
		}
		s.Rules = append(s.Rules, o)
	}
	return s, nil
}

// rule says what a rule is, and what addresses and ports it comes to.
func (x *execution) rule(r *nat.Rule) shownRule {
	o := shownRule{Section: r.Section, Rule: x.ruleText(r), Real: ifName(r.Real), Mapped: ifName(r.Mapped), Kind: r.Kind.String()}
	o.Translated, o.Untranslated = r.Hits()
	o.Source = ruleAddresses{addressText(r.Source), addressText(r.MappedSource)}
	switch {
	case r.Kind == nat.Identity:
		o.Source.Translated = addressText(r.Source)
	case r.MappedInterface && r.Mapped != nil && r.MappedSource.IsAny():
		o.Source.Translated = addressText(nat.Host(r.Mapped.Addr.Addr()))
	}
	if !r.Dest.IsAny() || !r.MappedDest.IsAny() {
		o.Destination = &ruleAddresses{addressText(r.MappedDest), addressText(r.Dest)}
	}
	if r.Service == 0 {
		return o
	}
	o.Service = &ruleService{Proto: r.Service.String()}
	if r.RealPorts != (nat.PortRange{}) {
		o.Service.Real, o.Service.Mapped = portText(r.RealPorts), portText(r.MappedPorts)
	}
	if r.DestPorts != (nat.PortRange{}) {
		o.Service.Destination, o.Service.Translated = portText(r.MappedDestPorts), portText(r.DestPorts)
	}
	return o
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.8.
func (s shownRules) Text(w *bufio.Writer) {
	for k, r := range s.Rules {
		if r.Number == 1 {
			if k > 0 {
				w.WriteString("\n")
			}
			fmt.Fprintf(w, "%s\n", sectionNames[r.Section])
		}
		fmt.Fprintf(w, "%d %s\n    translate_hits = %d, untranslate_hits = %d\n", r.Number, r.Rule, r.Translated, r.Untranslated)
		if s.detail {
			r.text(w)
		}
	}
}

func (r *shownRule) text(w *bufio.Writer) {
	fmt.Fprintf(w, "    Source - Origin: %s, Translated: %s\n", r.Source.Origin, r.Source.Translated)
	if d := r.Destination; d != nil {
		fmt.Fprintf(w, "    Destination - Origin: %s, Translated: %s\n", d.Origin, d.Translated)
	}
	o := r.Service
	if o == nil {
		return
	}
	fmt.Fprintf(w, "    Service - Protocol: %s", o.Proto)
	if o.Real != "" {
		fmt.Fprintf(w, " Real: %s Mapped: %s", o.Real, o.Mapped)
	}
	if o.Destination != "" {
		fmt.Fprintf(w, " Destination Origin: %s Translated: %s", o.Destination, o.Translated)
	}
	w.WriteString("\n")
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

func portText(r nat.PortRange) string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// configLine returns the text of a line of the configuration, without its
// indentation and trailing space; "" if there is no such line.
func (x *execution) configLine(n int) string {
	if n < 1 || n > len(x.running.Lines) {
		return ""
	}
	return strings.TrimSpace(x.running.Lines[n-1].Text)
}

// ruleLines returns the lines of the configuration that a rule was made of, as
// the trace shows them: the command, below its object if it stands in one.
func (x *execution) ruleLines(r *nat.Rule) []string {
	n := &x.running.NAT[r.Ref]
	line := x.configLine(n.Line)
	if n.Section == config.AutoNAT && n.Object != "" && !n.Legacy {
		return []string{"object network " + n.Object, " " + line}
	}
	return []string{line}
}

// prefixText writes an interface's address and mask as the ASA does.
func prefixText(p netip.Prefix) (addr, mask string) {
	return p.Addr().String(), config.MaskText(p.Bits())
}
