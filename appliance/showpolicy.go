package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

var showPolicyCommands = []cli.Rule[execFunc]{
	{Syntax: "show service-policy [{interface <if>|global}] [inspect {sip|skinny|tftp|icmp}|police|set connection]",
		Help: "What service policies inspect and hold to rates and limits", Do: show(showServicePolicy)},
	{Syntax: "show sip", Help: "Calls that inspection follows", Do: show(showSIP)},
	{Syntax: "show skinny", Help: "Phones' calls that inspection follows", Do: show(showSkinny)},
	{Syntax: "show ip verify statistics [interface <if>]", Help: "Packets refused for their source", Do: show(showVerify)},
	{Syntax: "show fragment [<if>]", Help: "Fragments being put together, and what became of them", Do: show(showFragment)},
}

// A shownPolicy is a service policy, class by class.
type shownPolicy struct {
	Interface string               `json:"interface,omitempty"` // none: it is global
	Name      string               `json:"policy"`
	Classes   cli.List[shownClass] `json:"classes"` // of which there is something to show
}

type shownClass struct {
	Name     string                 `json:"class"`
	Inspects cli.List[shownInspect] `json:"inspect,omitempty"`
	Limits   *shownLimits           `json:"connection_limits,omitempty"`
	Policers cli.List[shownPolicer] `json:"police,omitempty"`
}

// A shownInspect is what an engine did.
type shownInspect struct {
	Protocol   string `json:"protocol"`
	Map        string `json:"map,omitempty"`
	PhoneProxy string `json:"phone_proxy,omitempty"`
	Packets    uint64 `json:"packets"`
	Dropped    uint64 `json:"dropped"`
	Reset      uint64 `json:"reset_dropped"`
	Waiting    int64  `json:"tcp_buffered_bytes"`
	Lost       uint64 `json:"tcp_dropped_bytes"`
	tcp        bool   // it ends TCP
}

// A shownPolicer is a rate that a class is held to on an interface.
type shownPolicer struct {
	Interface      string `json:"interface"`
	Direction      string `json:"direction"` // "input" or "output"
	Rate           int64  `json:"rate_bps"`
	Burst          int64  `json:"burst_bytes"`
	Conformed      uint64 `json:"conformed_packets"`
	ConformedBytes uint64 `json:"conformed_bytes"`
	ConformedRate  int64  `json:"conformed_bps"`
	ConformAction  string `json:"conform_action"` // "transmit" or "drop"
	Exceeded       uint64 `json:"exceeded_packets"`
	ExceededBytes  uint64 `json:"exceeded_bytes"`
	ExceededRate   int64  `json:"exceeded_bps"`
	ExceedAction   string `json:"exceed_action"`
}

// shownLimits are the limits of a class; 0 is none. A timeout that is never is 0, one
// that is not set is left out.
type shownLimits struct {
	Max                   int          `json:"conn_max"`
	MaxEmbryonic          int          `json:"embryonic_conn_max"`
	MaxPerClient          int          `json:"per_client_max"`
	MaxEmbryonicPerClient int          `json:"per_client_embryonic_max"`
	Conns                 int          `json:"connections"`
	Embryonic             int          `json:"embryonic"`
	Dropped               uint64       `json:"dropped"`
	EmbryonicTime         *cli.Seconds `json:"embryonic_timeout_seconds,omitempty"`
	HalfClosedTime        *cli.Seconds `json:"half_closed_timeout_seconds,omitempty"`
	IdleTime              *cli.Seconds `json:"idle_timeout_seconds,omitempty"`
	Reset                 bool         `json:"reset"`
}

type shownPolicies struct {
	Policies cli.List[shownPolicy] `json:"policies"`
}

func showServicePolicy(x *execution, args cli.Args) (s shownPolicies, _ error) {
	add := func(on *stack.Interface) {
		if pol := x.plan.policies[on]; pol != nil {
			s.Policies = append(s.Policies, x.policy(on, pol, args))
		}
	}
	if !args.Has("interface") {
		add(nil)
	}
	for _, i := range x.plan.interfaces {
		if !args.Has("global") && means(args, i.Name) {
			add(i)
		}
	}
	return s, nil
}

func (x *execution) policy(on *stack.Interface, pol *policy, args cli.Args) shownPolicy {
	s := shownPolicy{Interface: ifName(on), Name: pol.name}
	all := !args.Has("inspect") && !args.Has("police") && !args.Has("set")
	for _, c := range pol.classes {
		o := shownClass{Name: c.name}
		if all || args.Has("inspect") {
			for _, i := range c.inspects {
				if all || args.Has(i.protocol) {
					o.Inspects = append(o.Inspects, x.inspect(i))
				}
			}
		}
		if all || args.Has("set") {
			o.Limits = c.shownLimits()
		}
		if all || args.Has("police") {
			for dir, r := range c.rates {
				for _, i := range x.plan.interfaces {
					if r != nil && r.on[i] != nil {
						o.Policers = append(o.Policers, x.policer(direction(dir), i, r.on[i]))
					}
				}
			}
		}
		if o.Inspects != nil || o.Limits != nil || o.Policers != nil {
			s.Classes = append(s.Classes, o)
		}
	}
	return s
}

func (x *execution) inspect(i *inspection) shownInspect {
	s := shownInspect{Protocol: i.protocol, Map: i.mapName, tcp: i.engine != nil || i.phoneProxy}
	if i.phoneProxy && x.plan.phone != nil {
		s.PhoneProxy = x.plan.phone.config.Name
	}
	if i.count != nil {
		n := i.count.Count()
		s.Packets, s.Dropped, s.Reset, s.Waiting, s.Lost = n.Messages, n.Dropped, n.Reset, n.Waiting, n.Lost
	}
	return s
}

func (x *execution) policer(dir direction, i *stack.Interface, l *stack.Policer) shownPolicer {
	action := func(drop bool) string {
		if drop {
			return "drop"
		}
		return "transmit"
	}
	cfg, n := l.Config(), l.Count()
	s := shownPolicer{
		Interface: i.Name, Direction: map[direction]string{arriving: "input", leaving: "output"}[dir], Rate: cfg.Rate, Burst: cfg.Burst,
		Conformed: n.Conformed, ConformedBytes: n.ConformedBytes, ConformAction: action(cfg.DropConforming),
		Exceeded: n.Exceeded, ExceededBytes: n.ExceededBytes, ExceedAction: action(!cfg.TransmitExceeded),
	}
	s.ConformedRate, s.ExceededRate = l.Rates(x.opt.Now())
	return s
}

// shownLimits returns nil if c has none.
func (c *class) shownLimits() *shownLimits {
	if c.limits == nil {
		return nil
	}
	cfg, n := c.limits.Config(), c.limits.Count()
	timeout := func(d time.Duration) *cli.Seconds {
		switch d {
		case 0:
			return nil
		case nat.Never:
			return new(cli.Seconds)
		}
		return new(cli.Seconds(d))
	}
	return &shownLimits{
		Max: cfg.Max, MaxEmbryonic: cfg.MaxEmbryonic, MaxPerClient: cfg.MaxPerClient, MaxEmbryonicPerClient: cfg.MaxEmbryonicPerClient,
		Conns: n.Conns, Embryonic: n.Embryonic, Dropped: n.Dropped + n.HostDropped + n.EmbryonicDropped,
		EmbryonicTime: timeout(cfg.Embryonic), HalfClosedTime: timeout(cfg.HalfClosed), IdleTime: timeout(cfg.Idle), Reset: cfg.Reset,
	}
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.10.
func (s shownPolicies) Text(w *bufio.Writer) {
	for _, p := range s.Policies {
		title := "Global policy"
		if p.Interface != "" {
			title = "Interface " + p.Interface
		}
		fmt.Fprintf(w, "%s:\n  Service-policy: %s\n", title, p.Name)
		for _, c := range p.Classes {
			fmt.Fprintf(w, "    Class-map: %s\n", c.Name)
			for _, i := range c.Inspects {
				i.text(w)
			}
			if c.Limits != nil {
				c.Limits.text(w)
			}
			for _, l := range c.Policers {
				l.text(w)
			}
		}
	}
}

// text has the names of the ASA in its older layout, which has no rate.
func (s shownInspect) text(w *bufio.Writer) {
	fmt.Fprintf(w, "      Inspect: %s", s.Protocol)
	if s.Map != "" {
		fmt.Fprintf(w, " %s", s.Map)
	}
	if s.PhoneProxy != "" {
		fmt.Fprintf(w, " phone-proxy %s", s.PhoneProxy)
	}
	fmt.Fprintf(w, ", packet %d, drop %d, reset-drop %d\n", s.Packets, s.Dropped, s.Reset)
	if s.tcp {
		fmt.Fprintf(w, "               tcp-proxy: bytes in buffer %d, bytes dropped %d\n", s.Waiting, s.Lost)
	}
}

func (s shownPolicer) text(w *bufio.Writer) {
	fmt.Fprintf(w, "      %s police Interface %s:\n", map[string]string{"input": "Input", "output": "Output"}[s.Direction], s.Interface)
	fmt.Fprintf(w, "        cir %d bps, bc %d bytes\n", s.Rate, s.Burst)
	fmt.Fprintf(w, "        conformed %d packets, %d bytes; actions:  %s\n", s.Conformed, s.ConformedBytes, s.ConformAction)
	fmt.Fprintf(w, "        exceeded %d packets, %d bytes; actions:  %s\n", s.Exceeded, s.ExceededBytes, s.ExceedAction)
	fmt.Fprintf(w, "        conformed %d bps, exceed %d bps\n", s.ConformedRate, s.ExceededRate)
}

func (s *shownLimits) text(w *bufio.Writer) {
	w.WriteString("      Set connection policy:")
	for _, l := range []struct {
		name string
		most int
	}{
		{"conn-max", s.Max}, {"embryonic-conn-max", s.MaxEmbryonic},
		{"per-client-max", s.MaxPerClient}, {"per-client-embryonic-max", s.MaxEmbryonicPerClient},
	} {
		if l.most != 0 {
			fmt.Fprintf(w, " %s %d", l.name, l.most)
		}
	}
	fmt.Fprintf(w, "\n        current embryonic conns %d, current conns %d, drop %d\n", s.Embryonic, s.Conns, s.Dropped)
	if s.EmbryonicTime == nil && s.HalfClosedTime == nil && s.IdleTime == nil {
		return
	}
	w.WriteString("      Set connection timeout policy:\n       ")
	for _, l := range []struct {
		name string
		d    *cli.Seconds
	}{{"embryonic", s.EmbryonicTime}, {"half-closed", s.HalfClosedTime}, {"idle", s.IdleTime}} {
		if l.d != nil {
			fmt.Fprintf(w, " %s %s", l.name, clockTime(l.d.Duration()))
		}
	}
	if s.Reset {
		w.WriteString(" reset")
	}
	w.WriteString("\n")
}

// A shownVerify is how many packets an interface refused for their source.
type shownVerify struct {
	Interface string `json:"interface"`
	Drops     uint64 `json:"unicast_rpf_drops"`
}

type shownVerifies struct {
	Interfaces cli.List[shownVerify] `json:"interfaces"` // that look at sources
}

func showVerify(x *execution, args cli.Args) (s shownVerifies, _ error) {
	for _, i := range x.plan.interfaces {
		if g := x.plan.guards[i]; g.reverse && means(args, i.Name) {
			s.Interfaces = append(s.Interfaces, shownVerify{i.Name, g.refused.Load()})
		}
	}
	return s, nil
}

// Text follows the ASA's command reference, show ip verify statistics.
func (s shownVerifies) Text(w *bufio.Writer) {
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, "interface %s: %d unicast rpf drops\n", i.Interface, i.Drops)
	}
}

// shownFragments are what became of fragments on an interface.
type shownFragments struct {
	Interface  string      `json:"interface"`
	Size       int         `json:"size"`  // packets being put together, at most
	Chain      int         `json:"chain"` // fragments of one, at most
	Timeout    cli.Seconds `json:"timeout_seconds"`
	Queue      int         `json:"queue"`
	Assembled  uint64      `json:"assembled"`
	Failed     uint64      `json:"failed"`
	Overflowed uint64      `json:"overflowed"`
	TimedOut   uint64      `json:"timed_out"`
}

type allFragments struct {
	Interfaces cli.List[shownFragments] `json:"interfaces"`
}

func showFragment(x *execution, args cli.Args) (s allFragments, _ error) {
	now := x.opt.Now()
	for _, i := range x.plan.interfaces {
		if !means(args, i.Name) {
			continue
		}
		r := x.forward.Fragments(i)
		l, n := r.Limits(), r.Count(now)
		s.Interfaces = append(s.Interfaces, shownFragments{i.Name, l.Size, l.Chain, cli.Seconds(l.Timeout), n.Queue, n.Assembled, n.Failed, n.Overflowed, n.TimedOut})
	}
	return s, nil
}

// Text follows the ASA's command reference, show fragment; what timed out is ours.
func (s allFragments) Text(w *bufio.Writer) {
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, "Interface: %s\n    Size: %d, Chain: %d, Timeout: %d, Reassembly: full\n", i.Interface, i.Size, i.Chain, i.Timeout.Duration()/time.Second)
		fmt.Fprintf(w, "    Queue: %d, Assembled: %d, Fail: %d, Overflow: %d, Timed out: %d\n", i.Queue, i.Assembled, i.Failed, i.Overflowed, i.TimedOut)
	}
}

// A shownCall is one of "show sip".
type shownCall struct {
	ID    string      `json:"call_id"`
	State string      `json:"state"`
	Idle  cli.Seconds `json:"idle_seconds"`
}

type shownCalls struct {
	Calls cli.List[shownCall] `json:"calls"` // by their Call-ID, then the last heard of first
}

func showSIP(x *execution, _ cli.Args) (s shownCalls, _ error) {
	now := x.opt.Now()
	var all []inspect.Call
	for _, i := range x.plan.inspections {
		if i.datagrams != nil {
			all = append(all, i.datagrams.Calls(now)...)
		}
	}
	x.talks.each(func(t *Talk) {
		if t.of.inspect.protocol == "sip" {
			all = append(all, t.stream.Calls(now)...)
		}
	})
	s.Calls = shownCallsOf(all)
	return s, nil
}

// shownCallsOf puts calls in order. They come in none, and a Call-ID is not of one call
// alone: two phones, or both legs of a call, may have the same.
func shownCallsOf(all []inspect.Call) (list cli.List[shownCall]) {
	for _, c := range all {
		list = append(list, shownCall{c.ID, c.State(), cli.Seconds(c.Idle)})
	}
	slices.SortFunc(list, func(a, b shownCall) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.Idle, b.Idle), strings.Compare(a.State, b.State))
	})
	return list
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.6.
func (s shownCalls) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "Total: %d\n", len(s.Calls))
	for _, c := range s.Calls {
		fmt.Fprintf(w, "call-id %s\n    state %s, idle %s\n", c.ID, c.State, clockTime(c.Idle.Duration()))
	}
}

// A shownTalk is a phone's conversation, one of "show skinny".
type shownTalk struct {
	Local   endpoint             `json:"local"`
	Foreign endpoint             `json:"foreign"`
	InCall  bool                 `json:"in_call"`
	Media   cli.List[shownMedia] `json:"media"`
}

// shownMedia is a stream; an end of it that is not known yet has no address.
type shownMedia struct {
	Local   endpoint `json:"local"`
	Foreign endpoint `json:"foreign"`
}

type shownTalks struct {
	Phones cli.List[shownTalk] `json:"phones"`
}

func showSkinny(x *execution, _ cli.Args) (s shownTalks, _ error) {
	x.talks.each(func(t *Talk) {
		if t.of.inspect.protocol != "skinny" {
			return
		}
		o := shownTalk{Local: endpointOf(t.Client.Src), Foreign: endpointOf(t.Server.Dst)}
		for _, c := range t.stream.Calls(x.opt.Now()) {
			o.InCall = true
			for _, m := range c.Media {
				o.Media = append(o.Media, shownMedia{endpointOf(m.Local), endpointOf(m.Foreign)})
			}
		}
		s.Phones = append(s.Phones, o)
	})
	slices.SortFunc(s.Phones, func(a, b shownTalk) int {
		return cmp.Or(strings.Compare(slashed(a.Local.addrPort()), slashed(b.Local.addrPort())), strings.Compare(slashed(a.Foreign.addrPort()), slashed(b.Foreign.addrPort())))
	})
	return s, nil
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.6.
func (s shownTalks) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "LOCAL                   FOREIGN                 STATE\n%s\n", strings.Repeat("-", 63))
	for k, p := range s.Phones {
		state := 0
		if p.InCall {
			state = 1
		}
		fmt.Fprintf(w, "%-7d %-22s %-22s %d\n", k+1, slashed(p.Local.addrPort()), slashed(p.Foreign.addrPort()), state)
		for _, m := range p.Media {
			fmt.Fprintf(w, "  MEDIA %s %s\n", slashed(m.Local.addrPort()), slashed(m.Foreign.addrPort()))
		}
	}
}
