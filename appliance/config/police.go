package config

import (
	"slices"
	"time"

	"patchbay/appliance/cli"
)

// A Police limits the rate of a class. (reference/asa-cli.md, section 9.3.)
type Police struct {
	Line       int
	Direction  string // "input" or "output" of the interface that the policy is on
	RateBPS    int64  // bits a second, 8,000 to 2,000,000,000
	BurstBytes int64  // 1,000 to 512,000,000; RateBPS/32 by default, not less than 1,000
	Conform    string // what is done to packets within the rate: "transmit", the default, or "drop"
	Exceed     string // and to those over it: "drop", the default, or "transmit"
}

// A SetConnection limits the connections of a class and their idle times.
type SetConnection struct {
	Line int // of its last line

	// Numbers of connections, and of those with half a handshake; 0 is no limit.
	ConnMax, EmbryonicMax               int
	PerClientMax, PerClientEmbryonicMax int
	EmbryonicTimeout                    time.Duration // Unset, or 0: never, or 30 seconds and so on
	HalfClosedTimeout                   time.Duration // Unset: by the timeout command
	IdleTimeout                         time.Duration // Unset: by the timeout command
	IdleTCP                             bool          // of TCP only: it was written "tcp", as before 8.2
	IdleReset                           bool          // both ends get a reset when the connection was idle too long
}

// Unset is a timeout of which a SetConnection says nothing.
const Unset time.Duration = -1

const (
	minBurst = 1000 // bytes
	perBurst = 32   // bits a second for a byte of the default burst (reference/asa-cli.md, section 9.3)
)

// policingCommands limit a class.
func policingCommands() []command {
	const (
		limits = "{conn-max <conns:0-2000000>|embryonic-conn-max <embryonic:0-2000000>|per-client-max <client:0-2000000>|" +
			"per-client-embryonic-max <clientembryonic:0-2000000>}..."
		timeouts = "{embryonic <t.embryonic:time>|half-closed <t.half-closed:time>|{idle|tcp} <t.idle:time> [reset]}..."
	)
	list := []command{
		cmd("police {input|output} <rate:8000-2000000000> [<burst:1000-512000000>] [conform-action conform={drop|transmit}] "+
			"[exceed-action exceed={drop|transmit}]", by("police $2"), parsePolice),
		cmd("set connection "+limits, by("set connection $3").splits(splitGroups(2)), func(p *parser, a cli.Args) {
			s := p.setConnection()
			for name, where := range map[string]*int{"conns": &s.ConnMax, "embryonic": &s.EmbryonicMax, "client": &s.PerClientMax,
				"clientembryonic": &s.PerClientEmbryonicMax} {
				*where = a.Int(name, *where)
			}
		}),
		cmd("set connection timeout "+timeouts, by("set connection timeout $4").splits(splitGroups(3)), func(p *parser, a cli.Args) {
			s := p.setConnection()
			for name, where := range map[string]*time.Duration{"t.embryonic": &s.EmbryonicTimeout, "t.half-closed": &s.HalfClosedTimeout,
				"t.idle": &s.IdleTimeout} {
				if a.Has(name) {
					*where, _ = parseTime(a.Get(name))
				}
			}
			if a.Has("t.idle") {
				s.IdleTCP = a.Has("tcp")
			}
			s.IdleReset = s.IdleReset || a.Has("reset")
		}),
	}
	return append(list, inert("sequence numbers of TCP are left as they are", "set connection random-sequence-number {enable|disable}")...)
}

func (p *parser) policyClass() *PolicyClass { return &p.run.PolicyMaps[p.item].Classes[p.class] }

func (p *parser) setConnection() *SetConnection {
	c := p.policyClass()
	if c.Set == nil {
		c.Set = &SetConnection{EmbryonicTimeout: Unset, HalfClosedTimeout: Unset, IdleTimeout: Unset}
	}
	c.Set.Line = p.line
	return c.Set
}

func parsePolice(p *parser, a cli.Args) {
	c := p.policyClass()
	x := Police{Line: p.line, Direction: "input", RateBPS: int64(a.Int("rate", 0)), Conform: "transmit", Exceed: "drop"}
	if a.Has("output") {
		x.Direction = "output"
	}
	x.BurstBytes = int64(a.Int("burst", max(minBurst, int(x.RateBPS/perBurst))))
	if a.Has("conform.drop") {
		x.Conform = "drop"
	}
	if a.Has("exceed.transmit") {
		x.Exceed = "transmit"
	}
	if i := slices.IndexFunc(c.Police, func(o Police) bool { return o.Direction == x.Direction }); i >= 0 {
		p.refuse(a.Token("police"), "", "class %s has police %s already (line %d)", c.Class, x.Direction, c.Police[i].Line)
		return
	}
	c.Police = append(c.Police, x)
}
