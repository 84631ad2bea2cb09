package appliance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/link"
)

var showNetCommands = []cli.Rule[execFunc]{
	{Syntax: "show interface [<if>]", Help: "Interfaces and their counters", Do: showInterface},
	{Syntax: "show interface ip brief", Help: "Interfaces and their addresses", Do: showInterfaceBrief},
	{Syntax: "show route", Help: "The routing table", Do: showRoute},
	{Syntax: "show arp", Help: "Neighbours whose address is known", Do: showARP},
}

// showInterface lists the interfaces of the configuration.
// (reference/asa-cli-show-debug.md, section 1; the ASA's own layout.)
func showInterface(x *execution, args cli.Args) error {
	for _, c := range x.hardware() {
		if args.Has("if") && c.Name != args.Get("if") {
			continue
		}
		i := x.plan.named(c.Name)
		state := "is up, line protocol is up"
		switch {
		case c.Shutdown:
			state = "is administratively down, line protocol is down"
		case c.Down:
			state = "is down, line protocol is down"
		case i == nil:
			state = "is up, line protocol is down"
		}
		x.printf("Interface %s %q, %s\n", c.Hardware, c.Name, state)
		if i == nil {
			continue
		}
		x.printf("  Hardware is %s\n", driverOf(i.Link))
		if e, ok := link.Unwrap(i.Link).(interface{ MAC() link.MAC }); ok {
			x.printf("\tMAC address %s, MTU %d\n", macText(e.MAC()), i.Link.MTU())
		} else {
			x.printf("\tMTU %d\n", i.Link.MTU())
		}
		addr, mask := prefixText(i.Addr)
		x.printf("\tIP address %s, subnet mask %s\n", addr, mask)
		n := x.forward.Counters(i)
		x.printf("  Traffic Statistics for %q:\n", i.Name)
		x.printf("\t%d packets input, %d bytes\n\t%d packets output, %d bytes\n", n.InPackets, n.InBytes, n.OutPackets, n.OutBytes)
		x.showInterfaceDrops(i)
		x.showRates(i)
	}
	return nil
}

// macText writes a MAC address as the ASA does: 0200.0000.0001.
func macText(m link.MAC) string { return fmt.Sprintf("%x.%x.%x", m[0:2], m[2:4], m[4:6]) }

// driverOf names the driver of a link.
func driverOf(l stack.Link) string {
	switch d := link.Unwrap(l).(type) {
	case interface{ Driver() string }:
		return d.Driver()
	case *link.PairEnd:
		return "a wire in memory"
	}
	return "a link of the program's own"
}

func (x *execution) showInterfaceDrops(i *stack.Interface) {
	type drop struct {
		name string
		n    uint64
	}
	var drops []drop
	total := uint64(0)
	for v, n := range x.forward.DropsOn(i) {
		drops = append(drops, drop{v.String(), n})
		total += n
	}
	if c, ok := i.Link.(link.Counter); ok {
		for r, n := range c.Stats().Drops {
			drops = append(drops, drop{r.String(), n})
			total += n
		}
	}
	slices.SortFunc(drops, func(a, b drop) int { return strings.Compare(a.name, b.name) })
	x.printf("\t%d packets dropped\n", total)
	for _, d := range drops {
		x.printf("\t  %d %s\n", d.n, d.name)
	}
}

func showInterfaceBrief(x *execution, _ cli.Args) error {
	const layout = "%-26s %-15s %-3s %-6s %-21s %s\n"
	x.printf(layout, "Interface", "IP-Address", "OK?", "Method", "Status", "Protocol")
	for _, c := range x.hardware() {
		addr, method, status, protocol := "unassigned", "unset", "up", "up"
		if c.Addr.IsValid() {
			addr, method = c.Addr.Addr().String(), "CONFIG"
		}
		if c.Shutdown {
			status, protocol = "administratively down", "down"
		} else if c.Down {
			status, protocol = "down", "down"
		} else if x.plan.named(c.Name) == nil {
			protocol = "down"
		}
		x.printf(layout, c.Hardware, addr, "YES", method, status, protocol)
	}
	return nil
}

const routeCodes = "Codes: L - local, C - connected, S - static, * - candidate default\n"

// showRoute lists the routing table: the default route, and then by address.
func showRoute(x *execution, _ cli.Args) error {
	routes := x.plan.routes.All()
	slices.SortStableFunc(routes, func(a, b stack.Route) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	resort := "Gateway of last resort is not set"
	for _, r := range routes {
		if r.Prefix.Bits() == 0 && r.Gateway.IsValid() {
			resort = "Gateway of last resort is " + r.Gateway.String() + " to network 0.0.0.0"
		}
	}
	x.printf("%s%s\n\n", routeCodes, resort)
	for _, r := range routes {
		addr, mask := prefixText(r.Prefix)
		switch {
		case !r.Gateway.IsValid():
			x.printf("C     %s %s is directly connected, %s\n", addr, mask, r.Interface)
			own, whole := prefixText(netip.PrefixFrom(r.Interface.Addr.Addr(), 32))
			if r.Interface.Addr.Masked() == r.Prefix {
				x.printf("L     %s %s is directly connected, %s\n", own, whole, r.Interface)
			}
		case r.Prefix.Bits() == 0:
			x.printf("S*    %s %s [%d/0] via %v, %s\n", addr, mask, max(r.Metric, 1), r.Gateway, r.Interface)
		default:
			x.printf("S     %s %s [%d/0] via %v, %s\n", addr, mask, max(r.Metric, 1), r.Gateway, r.Interface)
		}
	}
	return nil
}

// showARP lists the neighbours of links that have some.
func showARP(x *execution, _ cli.Args) error {
	for _, i := range x.plan.interfaces {
		e, ok := link.Unwrap(i.Link).(interface{ Neighbours() []link.Neighbour })
		if !ok {
			continue
		}
		for _, n := range e.Neighbours() {
			x.printf("\t%s %v %s %d\n", i.Name, n.Addr, macText(n.MAC), int64(n.Age.Seconds()))
		}
	}
	return nil
}
