package appliance

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

const (
	// maxHairpins is how often one packet may come back to a media
	// termination address of ours: a call between two remote phones is one.
	maxHairpins = 3

	// tftpPort is where a transfer begins; it goes on from another port of
	// the server. (RFC 1350, section 4.)
	tftpPort = 69
	// tftpWait is how long the pinhole for a transfer's port stays open.
	tftpWait = 30 * time.Second

	ipTCPHeader = 40 // bytes: what an MTU leaves to the MSS
)

// A Dataplane is the stack.Policy: a known connection's packets take the fast
// path, the first packet of one the session management path.
type Dataplane struct {
	table    *nat.Table
	pat      *nat.PAT
	identity *stack.Interface
	plan     atomic.Pointer[plan]
	nat      *inspect.NAT // of plain inspection
	log      *slog.Logger
	report   *reporter
	pings    echoes       // that no inspection watches
	ended    terminations // whose conversations the box ends itself

	// watch hears of each message of plain inspection; nil for nobody.
	watch func(x *inspection, client netip.AddrPort, msg []byte, from nat.End, err error)

	mu     sync.Mutex
	logged map[*nat.Entry]aclLog
}

type aclLog struct {
	next time.Time
	hits uint64 // at the last log
}

// newDataplane returns a dataplane that has no plan yet.
func newDataplane(table *nat.Table, pat *nat.PAT, identity *stack.Interface, log *slog.Logger, report *reporter) *Dataplane {
	d := &Dataplane{table: table, pat: pat, identity: identity, log: log, report: report}
	d.pings.data = d
	d.nat = &inspect.NAT{
		Table: table, PAT: pat, Terminate: identity,
		Route: func(a netip.Addr) *stack.Interface { return d.plan.Load().facing(a) },
	}
	return d
}

// install makes pl what the dataplane goes by; now is the clock of
// conversations over TCP. Engines that pl has taken over go on as they are.
func (d *Dataplane) install(pl *plan, now func() time.Time) {
	for _, x := range pl.inspections {
		if !x.phoneProxy && !x.started {
			x.start(d, d.nat, pl.running.Timeouts, now, d.log)
		}
	}
	d.table.SetTimeouts(pl.timeouts)
	d.nat.SetTimeouts(pl.timeouts)
	d.nat.SetRules(pl.rules)
	d.mu.Lock()
	d.logged = make(map[*nat.Entry]aclLog) // its entries are of this plan
	d.mu.Unlock()
	d.plan.Store(pl)
}

// watchOf returns the Watch of the datagrams of x.
func (d *Dataplane) watchOf(x *inspection) func(netip.AddrPort, []byte, nat.End, error) {
	if d.watch == nil {
		return nil
	}
	return func(client netip.AddrPort, msg []byte, from nat.End, err error) { d.watch(x, client, msg, from, err) }
}

// Admit decides what becomes of p. See stack.Policy.
func (d *Dataplane) Admit(p *stack.Packet) stack.Verdict {
	for round := range maxHairpins {
		p.Out = nil
		c, from := d.table.Lookup(p)
		if c == nil {
			var v stack.Verdict
			if round == 0 && d.spoofed(p) {
				d.report.denied(p, &decision{flow: p.Flow()}, stack.DropReversePath, nil)
				return stack.DropReversePath
			}
			if c, from, v = d.open(p); c == nil {
				return v
			}
		}
		if round == 0 && c.Standing() && c.In == nil && d.forged(p) {
			return stack.DropReversePath
		}
		if v := c.Handle(p, from); v != stack.Forward {
			return v
		}
		if !c.Standing() {
			if p.TCPFlags()&stack.FlagSYN != 0 {
				d.plan.Load().limitMSS(p)
			}
			return stack.Forward
		}
		// Media: the handler said where to, and that may be us again.
		pl := d.plan.Load()
		f := p.Flow()
		m := pl.isMTA(f.Dst.Addr())
		if m == nil {
			var ok bool
			if p.Out, p.NextHop, ok = pl.routes.Lookup(f.Dst.Addr()); !ok {
				return stack.DropNoRoute
			}
			// An address of one interface sends by that one: what is plain
			// toward the call manager must not leave by the phones'.
			if from := pl.isMTA(f.Src.Addr()); from != nil && from.strict && p.Out != from.on {
				return stack.DropNoRoute
			}
			return stack.Forward
		}
		if m.on != nil {
			p.In = m.on
		}
	}
	return stack.DropLoop
}

// spoofed reports whether p, which has no connection, comes from a source that
// cannot be where it arrived, and counts it.
func (d *Dataplane) spoofed(p *stack.Packet) bool {
	pl := d.plan.Load()
	if p.In == d.identity || !pl.spoofed(p.In, p.Flow()) {
		return false
	}
	if g := pl.guards[p.In]; g != nil && g.reverse {
		g.refused.Add(1)
	}
	return true
}

// forged reports whether a media packet came by another interface than its
// source is behind. It is asked where the pinhole takes packets from any.
func (d *Dataplane) forged(p *stack.Packet) bool {
	pl, src := d.plan.Load(), p.Flow().Src.Addr()
	behind, _, ok := pl.routes.Lookup(src)
	return !ok || behind != p.In || pl.isMTA(src) != nil
}

// open finds or makes the connection of a first packet: the session management
// path. It returns nil and the verdict if there is none to handle p: dropped,
// or answered in place.
//
// In order: ICMP errors about a connection; pinholes; then what decide says.
func (d *Dataplane) open(p *stack.Packet) (*nat.Conn, nat.End, stack.Verdict) {
	if p.IsICMPError() {
		c, from := d.table.LookupQuoted(p)
		if c == nil {
			return nil, from, stack.DropICMP
		}
		return nil, from, c.HandleError(p, from)
	}
	if c, from := d.table.Claim(p); c != nil {
		return c, from, stack.Forward
	}
	pl := d.plan.Load()
	var x decision
	pl.decide(&x, p, d.identity, d.pat)
	d.count(&x, p)
	c, from, v := (*nat.Conn)(nil), nat.Client, x.verdict
	switch {
	case v != stack.Forward:
	case x.fate == fateAnswered:
		return nil, nat.Client, d.answer(p, pl)
	case p.In != d.identity && d.report.log.HostDown():
		x.source.Lease.Cancel()
		v = stack.DropLogHost
	case x.fate == fateEnded:
		c, from, v = d.end(p, &x)
	default:
		c, from, v = d.through(p, &x)
	}
	if c == nil {
		d.report.denied(p, &x, v, pl)
	}
	return c, from, v
}

// opening returns the connection that a decision comes to, without its Handler.
func (d *Dataplane) opening(p *stack.Packet, x *decision) nat.Opening {
	o := nat.Opening{Out: x.out, Server: x.server(), UnRule: x.un, Source: x.source}
	if x.fate == fateEnded {
		o.Out, o.Server = d.identity, x.flow
		if x.inspect == nil || x.inspect.phoneProxy {
			o.Source = nat.Source{}
		}
	}
	o.Treat = d.plan.Load().treat(p.In, x.out, query(p, x.real))
	return o
}

// through opens a connection that goes through the box.
func (d *Dataplane) through(p *stack.Packet, x *decision) (*nat.Conn, nat.End, stack.Verdict) {
	o := d.opening(p, x)
	switch {
	case x.inspect != nil:
		x.inspect.watch(&o)
	case x.flow.Proto == stack.ICMP && p.In != d.identity:
		o.Handler = d.pings.begin()
	case x.transfer:
		o.Handler = &transfers{data: d}
	}
	return d.table.Open(p, o)
}

// end opens a connection to the box itself, which stands in for the server at
// the address that the client asked.
func (d *Dataplane) end(p *stack.Packet, x *decision) (*nat.Conn, nat.End, stack.Verdict) {
	o := d.opening(p, x)
	var t *termination
	if x.inspect != nil && !x.inspect.phoneProxy {
		t = d.terminate(x)
		o.Handler = t
	}
	c, from, v := d.table.Open(p, o)
	if t != nil && v == stack.Forward && c.Handler == t {
		t.enter(c)
	}
	return c, from, v
}

// expectTransfer books the pinhole for the port that the TFTP server of
// request will answer from, toward the client whose own flow was client.
func (d *Dataplane) expectTransfer(p *stack.Packet, out *stack.Interface, request, client stack.Flow) *nat.Hole {
	return d.table.Expect(nat.Pinhole{
		In: out,
		Match: stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(request.Dst.Addr(), 0), Dst: request.Src},
		Out: p.In,
		To: stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(client.Dst.Addr(), 0), Dst: client.Src},
		Expires: p.Time.Add(tftpWait),
		Mark:    "t",
		Reason:  "TFTP",
	})
}

// answer answers a ping of the box's own address in place.
func (d *Dataplane) answer(p *stack.Packet, pl *plan) stack.Verdict {
	p.MakeEchoReply()
	p.Out = p.In
	if out, next, ok := pl.routes.Lookup(p.Flow().Dst.Addr()); ok && out == p.In {
		p.NextHop = next
	}
	return stack.Forward
}

// count counts hits of the access lists that were asked, and logs what their
// entries say to log: the first hit, and after that a count at most once in the
// entry's interval.
func (d *Dataplane) count(x *decision, p *stack.Packet) {
	for i := range x.asked[:x.asks] {
		a := &x.asked[i]
		if a.entry == nil {
			continue
		}
		a.entry.Hit(&a.flow)
		if a.entry.Log {
			d.logEntry(a, x, p)
		}
	}
}

// logEntry logs a hit of an entry, if it is time.
func (d *Dataplane) logEntry(a *asked, x *decision, p *stack.Packet) {
	d.mu.Lock()
	last := d.logged[a.entry]
	due := !p.Time.Before(last.next)
	hits := a.entry.Hits()
	if due {
		d.logged[a.entry] = aclLog{p.Time.Add(a.entry.LogInterval), hits}
	}
	d.mu.Unlock()
	if due {
		d.log.Log(context.Background(), severity(a.entry.LogLevel), fmt.Sprintf("%%ASA-%d-106100: %s", a.entry.LogLevel,
			hit(x, p, a, d.plan.Load().noteOf(a.entry), hits-last.hits, last.next.IsZero())))
	}
}

// severity is the log's level for one of syslog's, 0 to 7.
func severity(syslog int) slog.Level {
	switch {
	case syslog <= 3:
		return slog.LevelError
	case syslog == 4:
		return slog.LevelWarn
	case syslog == 7:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
