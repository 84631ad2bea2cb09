package appliance

import (
	"slices"
	"time"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// A direction is that of a packet through an interface. Policing has one; what
// "set connection" says has none.
type direction uint8

const (
	arriving direction = iota // police input
	leaving                   // police output
)

var directions = [...]string{arriving: "input", leaving: "output"}

// A rate is one police line at work: a policer of its own for each interface
// that its policy is on.
type rate struct {
	on map[*stack.Interface]*stack.Policer
}

// compileRates readies what pc, a class of pol, says of rates and connections.
func (p *plan) compileRates(c *class, pc *config.PolicyClass, pol *policy) {
	for _, x := range pc.Police {
		dir := arriving
		if x.Direction == directions[leaving] {
			dir = leaving
		}
		r := &rate{on: make(map[*stack.Interface]*stack.Policer)}
		for _, i := range p.interfaces {
			if pol.on == nil || pol.on == i {
				r.on[i] = stack.NewPolicer(stack.PolicerConfig{
					Rate: x.RateBPS, Burst: x.BurstBytes,
					DropConforming: x.Conform == "drop", TransmitExceeded: x.Exceed == "transmit",
				})
			}
		}
		c.rates[dir] = r
		p.rated = true
	}
	if s := pc.Set; s != nil {
		c.limits = nat.NewLimits(nat.LimitsConfig{
			Max: s.ConnMax, MaxEmbryonic: s.EmbryonicMax,
			MaxPerClient: s.PerClientMax, MaxEmbryonicPerClient: s.PerClientEmbryonicMax,
			Embryonic: setTimeout(s.EmbryonicTimeout), HalfClosed: setTimeout(s.HalfClosedTimeout),
			Idle: setTimeout(s.IdleTimeout), IdleTCP: s.IdleTCP, Reset: s.IdleReset,
		})
		p.limited = true
	}
}

// setTimeout is a timeout of "set connection" as nat.LimitsConfig has it.
func setTimeout(d time.Duration) time.Duration {
	switch d {
	case config.Unset:
		return 0
	case 0:
		return nat.Never
	}
	return d
}

// treat returns what service policies ask of a connection through the box, from
// in to out, whose client sends packets of q (both ends real): nil for nothing. What
// the box itself says or is told is not theirs. A conversation that the box ends
// counts once, where the client's half is.
//
// Each end's packets are held to the rate of the interface where they arrive
// and to that of the one by which they leave, each in the first class that has
// such a rate and that the packets of this end are of: a class of requests is
// not one of their answers. (reference/asa-cli.md, sections 8.5 and 9.3.)
func (p *plan) treat(in, out *stack.Interface, q nat.Query) *nat.Treatment {
	if !p.rated && !p.limited || in.IsIdentity() || out.IsIdentity() {
		return nil
	}
	var t nat.Treatment
	if p.rated {
		back := answerOf(q)
		t.Police = [2]nat.Policing{
			nat.Client: {Arrive: p.policer(arriving, in, &q), Leave: p.policer(leaving, out, &q)},
			nat.Server: {Arrive: p.policer(arriving, out, &back), Leave: p.policer(leaving, in, &back)},
		}
	}
	if p.limited {
		t.Limits = p.limits(in, out, &q)
	}
	if t == (nat.Treatment{}) {
		return nil
	}
	return &t
}

// answerOf is what an answer to a packet of q is: of an echo its reply.
func answerOf(q nat.Query) nat.Query {
	q.Flow = q.Flow.Reverse()
	if q.Flow.Proto == stack.ICMP && q.ICMPType == stack.ICMPEcho {
		q.ICMPType = stack.ICMPEchoReply
	}
	return q
}

// policer returns that of packets of q through i, nil if there is none. The
// interface's policy is asked before the global one.
func (p *plan) policer(dir direction, i *stack.Interface, q *nat.Query) *stack.Policer {
	for _, pol := range [...]*policy{p.policies[i], p.policies[nil]} {
		if pol == nil {
			continue
		}
		for _, c := range pol.classes {
			if r := c.rates[dir]; r != nil && c.covers(q) {
				return r.on[i]
			}
		}
	}
	return nil
}

// limits returns the limits of a connection from in to out, in the order in
// which inspection asks the policies; nil if there are none.
func (p *plan) limits(in, out *stack.Interface, q *nat.Query) *nat.Limits {
	for _, pol := range [...]*policy{p.policies[in], p.policies[out], p.policies[nil]} {
		if pol == nil {
			continue
		}
		for _, c := range pol.classes {
			if c.limits != nil && c.covers(q) {
				return c.limits
			}
		}
	}
	return nil
}

// A portSpan is the ports of a protocol that an engine of the ASA has.
type portSpan struct {
	proto    stack.Proto
	from, to uint16
}

// defaultTraffic is what "match default-inspection-traffic" means where no
// inspection asks for its own port. (The ASA's command reference, match
// default-inspection-traffic.)
var defaultTraffic = []portSpan{
	{stack.TCP, 2748, 2748}, {stack.UDP, 53, 53}, {stack.TCP, 21, 21}, {stack.UDP, 2123, 2123}, {stack.UDP, 3386, 3386},
	{stack.TCP, 1720, 1720}, {stack.UDP, 1718, 1719}, {stack.TCP, 80, 80}, {stack.TCP, 389, 389},
	{stack.UDP, 2427, 2427}, {stack.UDP, 2727, 2727}, {stack.UDP, 137, 138}, {stack.TCP, 1723, 1723}, {stack.TCP, 514, 514},
	{stack.TCP, 554, 554}, {stack.TCP, 5060, 5060}, {stack.UDP, 5060, 5060}, {stack.TCP, 2000, 2000}, {stack.TCP, 25, 25},
	{stack.TCP, 1521, 1521}, {stack.UDP, 69, 69}, {stack.UDP, 111, 111}, {stack.UDP, 177, 177}, {stack.ICMP, 0, 0},
}

// covers reports whether packets of q are of the class, whatever is inspected.
func (c *class) covers(q *nat.Query) bool {
	if c.match.kind != config.MatchDefault {
		return c.match.matches(q)
	}
	return slices.ContainsFunc(defaultTraffic, func(s portSpan) bool {
		return q.Flow.Proto == s.proto && (s.proto == stack.ICMP || s.from <= q.Flow.Dst.Port() && q.Flow.Dst.Port() <= s.to)
	})
}

// told tells both ends of c, which was idle for too long, that it is over.
func (a *Appliance) told(c *nat.Conn) {
	for to, out := range [...]*stack.Interface{nat.Client: c.In, nat.Server: c.Out} {
		p := stack.NewPacket(ipTCPHeader)
		p.SetLen(len(c.AppendReset(p.Buffer()[:0], nat.End(to))))
		if p.Parse() != stack.Forward {
			continue // the connection is none of TCP
		}
		p.Time, p.In, p.Out = a.opt.Now(), a.identity, out
		a.forward.Send(p)
	}
}
