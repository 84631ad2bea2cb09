package appliance

import (
	"log/slog"
	"time"

	"patchbay/appliance/config"
	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/nat"
	"patchbay/stack"
)

// An inspection is an engine at work on a class of traffic: one "inspect" line.
// What it holds is made once; its conversations are the connections'.
type inspection struct {
	protocol   string // "sip", "skinny", "tftp", "icmp"
	line       int    // of the inspect line
	mapName    string // policy-map type inspect, or ""
	phoneProxy bool   // the phone proxy has it
	class      *class
	policy     *policy
	started    bool // the rest is there

	sip    *config.SIPMap    // its map; nil: the default
	skinny *config.SkinnyMap // the same

	datagrams *inspect.Datagrams // of SIP over UDP
	echoes    *echoes            // of ICMP
	transfers *Dataplane         // of TFTP: where their pinholes go
	engine    inspect.Engine     // of TCP
	options   inspect.Options    // of the binders of TCP
	limits    inspect.Limits     // of TCP
	idle      time.Duration      // of UDP connections
	count     *inspect.Counters  // of both
}

// newInspection returns what an inspect line says, nil if it has no effect.
func newInspection(r *config.Running, in *config.Inspect) *inspection {
	x := &inspection{protocol: in.Protocol, line: in.Line, mapName: in.Map, phoneProxy: in.PhoneProxy != ""}
	m := r.PolicyMap(in.Map)
	switch in.Protocol {
	case "sip":
		if m != nil {
			x.sip = m.SIP
		}
	case "skinny":
		if m != nil {
			x.skinny = m.Skinny
		}
	case "tftp", "icmp":
	default:
		return nil
	}
	if x.phoneProxy {
		x.count = new(inspect.Counters) // its engines are the phone proxy's
	}
	return x
}

// start readies the engines of x for traffic that n translates.
func (x *inspection) start(d *Dataplane, n *inspect.NAT, t config.Timeouts, now func() time.Time, log *slog.Logger) {
	x.count = new(inspect.Counters)
	x.started = true
	switch x.protocol {
	case "sip":
		x.idle = t.SIP
		x.options, x.limits = sipOptions(x.sip), sipLimits(t)
		udp := sipEngine(x.sip, t, sip.UDP, log)
		tcp := *udp // what the map limits to a rate it limits in both
		tcp.Client, tcp.Server = sip.TCP, sip.TCP
		x.datagrams = &inspect.Datagrams{Engine: udp, NAT: n, Options: x.options, Log: log, Count: x.count, Watch: d.watchOf(x)}
		x.engine = &tcp
	case "skinny":
		x.options, x.limits = skinnyOptions(x.skinny), skinnyLimits(x.skinny, t)
		x.engine = skinnyEngine(x.skinny, log)
	case "tftp":
		x.transfers = d
	case "icmp":
		x.echoes = &echoes{data: d, inspected: true, count: x.count}
	}
	x.options.Now = now
}

// watch has the engine see the packets of a connection that is about to open.
func (x *inspection) watch(o *nat.Opening) {
	switch {
	case x.datagrams != nil && o.Server.Proto == stack.UDP:
		o.Handler, o.Idle, o.Mark = x.datagrams, x.idle, "T"
	case x.echoes != nil:
		o.Handler = x.echoes.begin()
	case x.transfers != nil:
		o.Handler = &transfers{data: x.transfers, count: x.count}
	}
}

// expire ends the calls that nobody answered in time.
func (x *inspection) expire(now time.Time) {
	if x.datagrams != nil {
		x.datagrams.Expire(now)
	}
}
