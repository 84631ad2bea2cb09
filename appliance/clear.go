package appliance

import (
	"net/netip"

	"patchbay/appliance/cli"
	"patchbay/nat"
	"patchbay/stack/link"
)

var clearCommands = []cli.Rule[execFunc]{
	{Syntax: "clear conn all", Help: "End connections, and pinholes nobody has used", Do: clearConn},
	{Syntax: "clear conn " + connFilter, Help: "End connections, and pinholes nobody has used", Do: clearConn},
	{Syntax: "clear xlate [{global <mapped:addrs>|local <real:addrs>|interface <if>}...]", Help: "End translations and their connections", Do: clearXlate},
	{Syntax: "clear local-host [<addr>|all]", Help: "End the connections of a host", Do: clearLocalHost},
	{Syntax: "clear asp drop", Help: "Set the counts of drops to 0", Do: clearASPDrop},
	{Syntax: "clear access-list <name:acl> counters", Help: "Set hit counts to 0", Do: clearAccessList},
	{Syntax: "clear nat counters", Help: "Set hit counts to 0", Do: clearNATCounters},
	{Syntax: "clear arp", Help: "Forget neighbours", Do: clearARP},
}

// clearConn ends connections that match, and pinholes that were to become such.
// The endpoints of media that the box carries itself end with their call.
func clearConn(x *execution, args cli.Args) error {
	m := x.connMatch(args)
	n := x.table.Clear(func(c *nat.Conn) bool { return m.has(c.Proto(), connSides(c)) })
	for _, h := range holeList(x.table) {
		if !h.Standing && m.has(h.Match.Proto, holeSides(h)) {
			h.Close()
			n++
		}
	}
	x.printf("%d connection(s) deleted.\n", n)
	return nil
}

// clearXlate ends the connections of translations, and what lingers of these.
// It says nothing, as the ASA does not.
func clearXlate(x *execution, args cli.Args) error {
	within := func(name string) func(netip.Addr) bool {
		if !args.Has(name) {
			return func(netip.Addr) bool { return true }
		}
		from, to, _ := x.execAddrs(args.Get(name))
		return func(a netip.Addr) bool { return from.Compare(a) <= 0 && a.Compare(to) <= 0 }
	}
	mapped, real, on := within("mapped"), within("real"), x.plan.named(args.Get("if"))
	x.table.Clear(func(c *nat.Conn) bool {
		client, server := c.Client(), c.Server()
		return c.Rule != nil && mapped(server.Src.Addr()) && real(client.Src.Addr()) && (on == nil || on == c.In) ||
			c.UnRule != nil && mapped(client.Dst.Addr()) && real(server.Dst.Addr()) && (on == nil || on == c.Out)
	})
	if args.Has("mapped") || args.Has("real") || on != nil {
		return nil // what lingers ends by itself, in "timeout pat-xlate"
	}
	x.data.pat.Flush()
	return nil
}

func clearLocalHost(x *execution, args cli.Args) error {
	only, _ := x.execAddr(args.Get("addr"))
	x.table.Clear(func(c *nat.Conn) bool {
		s := connSides(c)
		return !only.IsValid() || s[0].real.Addr() == only || s[1].real.Addr() == only
	})
	return nil
}

// aspCleared returns when drops were last cleared.
func (a *Appliance) aspCleared() aspCleared {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cleared
}

func clearASPDrop(x *execution, _ cli.Args) error {
	x.forward.ClearDrops()
	c := aspCleared{x.opt.Now(), x.linkDrops()}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.cleared = c
	return nil
}

func clearAccessList(x *execution, args cli.Args) error {
	for _, e := range x.plan.lists[args.Get("name")].Entries {
		e.ClearHits()
	}
	return nil
}

func clearNATCounters(x *execution, _ cli.Args) error {
	for _, r := range x.plan.rules.All() {
		r.ClearHits()
	}
	return nil
}

func clearARP(x *execution, _ cli.Args) error {
	for _, i := range x.plan.interfaces {
		if e, ok := link.Unwrap(i.Link).(interface{ ForgetNeighbours() int }); ok {
			e.ForgetNeighbours()
		}
	}
	return nil
}
