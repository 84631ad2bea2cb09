package appliance

import (
	"log/slog"
	"time"

	"patchbay/appliance/config"
	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
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

	sip    *config.SIPMap    // its map; nil: the default
	skinny *config.SkinnyMap // the same

	datagrams *inspect.Datagrams // of SIP over UDP
	echoes    *echoes            // of ICMP
	engine    inspect.Engine     // of TCP
	options   inspect.Options    // of the binders of TCP
	limits    inspect.Limits     // of TCP
	idle      time.Duration      // of UDP connections
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
	return x
}

// start readies the engines of x for traffic that n translates.
func (x *inspection) start(d *Dataplane, n *inspect.NAT, t config.Timeouts, now func() time.Time, log *slog.Logger) {
	x.options = inspect.Options{Now: now}
	x.limits = inspect.Limits{Reassembly: t.TCPProxyReassembly, Idle: untilIdle(t.Conn)}
	switch x.protocol {
	case "sip":
		x.idle = t.SIP
		x.limits.Idle = untilIdle(t.SIP)
		x.datagrams = &inspect.Datagrams{Engine: sipEngine(x.sip, t, sip.UDP, log), NAT: n, Log: log}
		x.engine = sipEngine(x.sip, t, sip.TCP, log)
	case "skinny":
		e := skinnyEngine(x.skinny, log)
		x.engine = e
		x.options.Private, x.options.Mark = true, "k"
	case "icmp":
		x.echoes = &echoes{data: d, inspected: true}
	}
}

// untilIdle is a timeout of the configuration, where 0 is never, as
// inspect.Limits has it.
func untilIdle(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// watch has the engine see the packets of a connection that is about to open.
func (x *inspection) watch(o *nat.Opening) {
	switch {
	case x.datagrams != nil && o.Server.Proto == stack.UDP:
		o.Handler, o.Idle, o.Mark = x.datagrams, x.idle, "T"
	case x.echoes != nil:
		o.Handler = x.echoes.begin()
	}
}

// expire ends the calls that nobody answered in time.
func (x *inspection) expire(now time.Time) {
	if x.datagrams != nil {
		x.datagrams.Expire(now)
	}
}

func sipEngine(m *config.SIPMap, t config.Timeouts, tr sip.Transport, log *slog.Logger) *sip.Engine {
	return &sip.Engine{
		Client: tr, Server: tr, EveryMedia: true, NAT: true, MaxCalls: 1024, Map: sip.DefaultMap(),
		InviteTimeout: t.SIPInvite, DisconnectTimeout: t.SIPDisconnect, Log: log,
	}
}

func skinnyEngine(m *config.SkinnyMap, log *slog.Logger) skinny.Engine {
	return skinny.Engine{MaxVersion: 22, Video: true, Log: log}
}
