package appliance

import (
	"bufio"
	"cmp"
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
		Help: "What service policies inspect and hold to rates and limits", Do: showServicePolicy},
	{Syntax: "show sip", Help: "Calls that inspection follows", Do: showSIP},
	{Syntax: "show skinny", Help: "Phones' calls that inspection follows", Do: showSkinny},
	{Syntax: "show ip verify statistics [interface <if>]", Help: "Packets refused for their source", Do: showVerify},
	{Syntax: "show fragment [<if>]", Help: "Fragments being put together, and what became of them", Do: showFragment},
}

// showServicePolicy lists service policies class by class.
// (reference/asa-cli-show-debug.md, section 2.10.)
func showServicePolicy(x *execution, args cli.Args) error {
	if !args.Has("interface") {
		x.showPolicy("Global policy", x.plan.policies[nil], args)
	}
	for _, i := range x.plan.interfaces {
		if !args.Has("global") && (!args.Has("if") || args.Get("if") == i.Name) {
			x.showPolicy("Interface "+i.Name, x.plan.policies[i], args)
		}
	}
	return nil
}

func (x *execution) showPolicy(title string, pol *policy, args cli.Args) {
	if pol == nil {
		return
	}
	all := !args.Has("inspect") && !args.Has("police") && !args.Has("set")
	x.printf("%s:\n  Service-policy: %s\n", title, pol.name)
	for _, c := range pol.classes {
		var part strings.Builder
		inner := &execution{x.Appliance, bufio.NewWriter(&part), x.plan, x.running}
		if all || args.Has("inspect") {
			for _, i := range c.inspects {
				if all || args.Has(i.protocol) {
					inner.showInspection(i)
				}
			}
		}
		if all || args.Has("set") {
			inner.showLimits(c)
		}
		if all || args.Has("police") {
			for dir, r := range c.rates {
				for _, i := range x.plan.interfaces {
					if r != nil && r.on[i] != nil {
						inner.showPolicer(direction(dir), i, r.on[i])
					}
				}
			}
		}
		inner.Flush()
		if part.Len() > 0 {
			x.printf("    Class-map: %s\n%s", c.name, part.String())
		}
	}
}

// showInspection says what an engine did. Its names are as the ASA prints them,
// in its older layout, which has no rate.
func (x *execution) showInspection(i *inspection) {
	x.printf("      Inspect: %s", i.protocol)
	if i.mapName != "" {
		x.printf(" %s", i.mapName)
	}
	if i.phoneProxy && x.plan.phone != nil {
		x.printf(" phone-proxy %s", x.plan.phone.config.Name)
	}
	var n inspect.Count
	if i.count != nil {
		n = i.count.Count()
	}
	x.printf(", packet %d, drop %d, reset-drop %d\n", n.Messages, n.Dropped, n.Reset)
	if i.engine != nil || i.phoneProxy {
		x.printf("               tcp-proxy: bytes in buffer %d, bytes dropped %d\n", n.Waiting, n.Lost)
	}
}

func (x *execution) showPolicer(dir direction, i *stack.Interface, l *stack.Policer) {
	action := func(drop bool) string {
		if drop {
			return "drop"
		}
		return "transmit"
	}
	cfg, n := l.Config(), l.Count()
	conformed, exceeded := l.Rates(x.opt.Now())
	x.printf("      %s police Interface %s:\n", map[direction]string{arriving: "Input", leaving: "Output"}[dir], i.Name)
	x.printf("        cir %d bps, bc %d bytes\n", cfg.Rate, cfg.Burst)
	x.printf("        conformed %d packets, %d bytes; actions:  %s\n", n.Conformed, n.ConformedBytes, action(cfg.DropConforming))
	x.printf("        exceeded %d packets, %d bytes; actions:  %s\n", n.Exceeded, n.ExceededBytes, action(!cfg.TransmitExceeded))
	x.printf("        conformed %d bps, exceed %d bps\n", conformed, exceeded)
}

func (x *execution) showLimits(c *class) {
	if c.limits == nil {
		return
	}
	cfg, n := c.limits.Config(), c.limits.Count()
	x.printf("      Set connection policy:")
	for _, l := range []struct {
		name string
		most int
	}{
		{"conn-max", cfg.Max}, {"embryonic-conn-max", cfg.MaxEmbryonic},
		{"per-client-max", cfg.MaxPerClient}, {"per-client-embryonic-max", cfg.MaxEmbryonicPerClient},
	} {
		if l.most != 0 {
			x.printf(" %s %d", l.name, l.most)
		}
	}
	x.printf("\n        current embryonic conns %d, current conns %d, drop %d\n",
		n.Embryonic, n.Conns, n.Dropped+n.HostDropped+n.EmbryonicDropped)
	if cmp.Or(cfg.Embryonic, cfg.HalfClosed, cfg.Idle) == 0 {
		return
	}
	x.printf("      Set connection timeout policy:\n       ")
	for _, l := range []struct {
		name string
		d    time.Duration
	}{{"embryonic", cfg.Embryonic}, {"half-closed", cfg.HalfClosed}, {"idle", cfg.Idle}} {
		switch l.d {
		case 0:
		case nat.Never:
			x.printf(" %s 0:00:00", l.name)
		default:
			x.printf(" %s %s", l.name, clockTime(l.d))
		}
	}
	if cfg.Reset {
		x.printf(" reset")
	}
	x.printf("\n")
}

// showVerify says how many packets each interface refused for their source.
// (The ASA's command reference, show ip verify statistics.)
func showVerify(x *execution, args cli.Args) error {
	for _, i := range x.plan.interfaces {
		if g := x.plan.guards[i]; g.reverse && (!args.Has("if") || args.Get("if") == i.Name) {
			x.printf("interface %s: %d unicast rpf drops\n", i.Name, g.refused.Load())
		}
	}
	return nil
}

// showFragment says what became of fragments on each interface. (The ASA's
// command reference, show fragment; what timed out is ours.)
func showFragment(x *execution, args cli.Args) error {
	now := x.opt.Now()
	for _, i := range x.plan.interfaces {
		if args.Has("if") && args.Get("if") != i.Name {
			continue
		}
		r := x.forward.Fragments(i)
		l, n := r.Limits(), r.Count(now)
		x.printf("Interface: %s\n    Size: %d, Chain: %d, Timeout: %d, Reassembly: full\n", i.Name, l.Size, l.Chain, l.Timeout/time.Second)
		x.printf("    Queue: %d, Assembled: %d, Fail: %d, Overflow: %d, Timed out: %d\n", n.Queue, n.Assembled, n.Failed, n.Overflowed, n.TimedOut)
	}
	return nil
}

// showSIP lists calls by their Call-ID.
// (reference/asa-cli-show-debug.md, section 2.6.)
func showSIP(x *execution, _ cli.Args) error {
	now := x.opt.Now()
	var all []inspect.Call
	for _, i := range x.plan.inspections {
		if i.datagrams != nil {
			all = append(all, i.datagrams.Calls(now)...)
		}
	}
	x.talks.each(func(t *talk) {
		if t.inspect.protocol == "sip" {
			all = append(all, t.stream.Calls(now)...)
		}
	})
	slices.SortStableFunc(all, func(a, b inspect.Call) int { return strings.Compare(a.ID, b.ID) })
	x.printf("Total: %d\n", len(all))
	for _, c := range all {
		x.printf("call-id %s\n    state %s, idle %s\n", c.ID, c.State(), clockTime(c.Idle))
	}
	return nil
}

// showSkinny lists the phones' conversations and the media of their calls.
// (reference/asa-cli-show-debug.md, section 2.6.)
func showSkinny(x *execution, _ cli.Args) error {
	type phone struct {
		local, foreign string
		calls          []inspect.Call
	}
	var all []phone
	x.talks.each(func(t *talk) {
		if t.inspect.protocol == "skinny" {
			all = append(all, phone{slashed(t.client.Src), slashed(t.server), t.stream.Calls(x.opt.Now())})
		}
	})
	slices.SortFunc(all, func(a, b phone) int {
		return cmp.Or(strings.Compare(a.local, b.local), strings.Compare(a.foreign, b.foreign))
	})
	x.printf("LOCAL                   FOREIGN                 STATE\n%s\n", strings.Repeat("-", 63))
	for k, p := range all {
		state := 0
		if len(p.calls) > 0 {
			state = 1
		}
		x.printf("%-7d %-22s %-22s %d\n", k+1, p.local, p.foreign, state)
		for _, c := range p.calls {
			for _, m := range c.Media {
				x.printf("  MEDIA %s/%d %s/%d\n", wildAddr(m.Local.Addr()), m.Local.Port(), wildAddr(m.Foreign.Addr()), m.Foreign.Port())
			}
		}
	}
	return nil
}
