// Package appliance is the assembled box: a configuration becomes a plan, the
// plan the policy of a forwarder, and the box a host among its own interfaces
// that ends the phones' TLS, serves their files and carries their media.
//
// What a reader may get wrong: there is one path for packets. What the box
// itself sends and receives goes through the same Admit as everything else, by
// the interface named identity.
package appliance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/dns"
	"patchbay/appliance/logging"
	"patchbay/appliance/phoneproxy"
	"patchbay/appliance/pki"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
	"patchbay/stack/host"
	"patchbay/stack/link"
)

// expireEvery is how often idle things are looked for.
const expireEvery = time.Second

// lastWordsWait is how long a link may take to carry the ends of connections
// as the box shuts down.
const lastWordsWait = time.Second

// maxEmbryonic bounds the half-open connections of one address: an office full
// of phones that starts at once, and a quarter of those that the host has
// room for, so that no one address takes all.
const maxEmbryonic = 512

// Options are what an Appliance is made from, beside its configuration.
type Options struct {
	// Links are links by nameif, open already; Close closes them. An interface
	// that has none there gets one from Open, which may be nil. A link of Open
	// is closed when no interface has it any more.
	Links map[string]stack.Link
	Open  func(*config.Interface) (stack.Link, error)
	// Hardware names the interfaces that Open has links for, as far as they are
	// known: "show interface" lists them before they are configured.
	Hardware []string

	Store *pki.Store // key pairs and trustpoints on flash

	// Lookup resolves the names in a configuration; nil: by its "name" lines and
	// the DNS, through the box's own interfaces. It is not called before Run.
	Lookup LookupFunc

	// Self stands on the interface identity, in place of the host that the box is
	// otherwise, and gets what is for the box itself; nil: that host. Close closes
	// it. It is for a caller that drives the box by Handle, Say and Expire, not by
	// Run, and ends the conversations that Accept tells of. Whatever else the box
	// serves or asks on its own account (files, names, syslog) goes nowhere then.
	Self stack.Link

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // keys of media, ports, sequence numbers; nil: crypto/rand

	// Log hears everything that is logged, whatever the configuration's logging
	// lines say, but for the ASA's messages about single connections; nil: nobody
	// does.
	Log *slog.Logger
	// Console is where "logging console" goes, with messages of ConsoleLevel and
	// more severe in any case (0: none); nil: nowhere.
	Console      io.Writer
	ConsoleLevel int

	// OnDrop sees each packet that is dropped; nil: nobody does.
	OnDrop func(*stack.Packet, stack.Verdict)

	// Limits bounds each phone's conversation; zero fields are the defaults of
	// inspect.Limits, but Reassembly, which is "timeout tcp-proxy-reassembly".
	Limits inspect.Limits
	// HandshakeTimeout is how long a phone's TLS handshake may take; 0 is
	// tlsproxy.DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration
}

// An Appliance is the box. New, then Run until its context ends; then it is
// closed.
type Appliance struct {
	opt      Options
	table    *nat.Table
	data     *Dataplane
	forward  *stack.Forwarder
	host     *host.Stack
	names    *dns.Resolver
	identity *stack.Interface

	configuring sync.Mutex             // one Configure at a time
	links       map[linkKey]stack.Link // guarded by configuring; open ones
	retired     []*inspection          // guarded by configuring; of old plans, with conversations still

	closed   sync.Once
	talks    talks          // conversations being inspected
	conns    sync.WaitGroup // connections being served
	reading  sync.WaitGroup // links being read
	speaking sync.WaitGroup // what the box itself says being carried

	started  time.Time
	captures captures
	syslog   *logging.Log
	stories  phoneproxy.Stories // of the phones; they outlive a configuration
	debug    debugging
	cpu      cpuMeter
	traffic  trafficMeter

	mu      sync.Mutex
	life    *life // nil: nothing is served
	ssh     func(context.Context, net.Conn)
	cleared aspCleared

	expiryTold time.Time // when certificates' ends were last warned of; guarded by mu
}

// New makes the box that r describes. r must have passed Validate. On error
// nothing is left open, and the links are the caller's still.
func New(r *config.Running, opt Options) (_ *Appliance, err error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if err := unused(r, opt.Links); err != nil {
		return nil, err
	}
	a := &Appliance{started: opt.Now(), links: make(map[linkKey]stack.Link)}
	cfg := logging.Config{Now: opt.Now, Console: opt.Console, ConsoleLevel: opt.ConsoleLevel, Dial: a.dialSyslog, TLS: a.syslogTLS, DialMail: a.dialMail}
	if opt.Log != nil {
		cfg.Also = opt.Log.Handler()
	}
	a.syslog = logging.New(cfg)
	defer func() {
		if err != nil {
			a.syslog.Close()
		}
	}()
	opt.Log = slog.New(a.syslog.Handler())
	a.opt = opt
	a.debug.now = opt.Now
	a.stories.OnEvent = a.debug.event
	pat := nat.NewPAT(opt.Rand)
	report := &reporter{a.syslog, nil, opt.Now}
	pat.SetNotice(report.translated)
	a.table, err = nat.NewTable(nat.TableConfig{
		Timeouts: timeouts(r.Timeouts), Rand: opt.Rand, MaxEmbryonic: maxEmbryonic, PAT: pat,
		Route: a.facing,
		Treat: func(p *stack.Packet, real stack.Flow, out *stack.Interface) *nat.Treatment {
			return a.plan().treat(p.In, out, query(p, real))
		},
		Opened: report.opened, Closed: report.closed,
		Reset: a.told,
	})
	if err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	if a.host, err = host.New(host.Config{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if a.names != nil {
				a.names.Close()
			}
			a.host.Close()
		}
	}()
	a.identity = &stack.Interface{Name: stack.IdentityName, Level: 100, Link: a.host.Link()}
	if opt.Self != nil {
		a.identity.Link = opt.Self
	}
	report.identity = a.identity
	a.data = newDataplane(a.table, pat, a.identity, opt.Log, report)
	a.data.watch = a.watchPlain
	a.forward = stack.NewForwarder(a.identity)
	a.forward.SetPolicy(a.data)
	if opt.OnDrop != nil {
		a.forward.SetOnDrop(opt.OnDrop)
	}
	a.host.HandleTCP(a.serve)
	a.names = a.newNames()
	if a.opt.Lookup == nil {
		a.opt.Lookup = a.lookup
	}
	if err = a.Configure(r); err != nil {
		return nil, err
	}
	return a, nil
}

// Log returns what the box logs to, by its configuration.
func (a *Appliance) Log() *slog.Logger { return a.opt.Log }

// Syslog returns where the box logs to, for sessions that watch.
func (a *Appliance) Syslog() *logging.Log { return a.syslog }

// plan returns what the box goes by now.
func (a *Appliance) plan() *plan { return a.data.plan.Load() }

// hostMTU is the smallest of the interfaces', so that what the box sends
// leaves by any of them whole.
func (pl *plan) hostMTU() int {
	mtu := 1500
	for _, i := range pl.interfaces {
		mtu = min(mtu, i.Link.MTU())
	}
	return mtu
}

// announce has the Ethernet links answer ARP: for the box's own address and,
// by proxy, for every mapped and media-termination address.
func (a *Appliance) announce(pl *plan) {
	for _, i := range pl.interfaces {
		if l, ok := link.Unwrap(i.Link).(interface {
			SetAddrs(own netip.Prefix, proxy func(netip.Addr) bool)
		}); ok {
			l.SetAddrs(i.Addr, func(addr netip.Addr) bool { return a.plan().answers(i, addr) })
		}
	}
}

// Run carries packets and serves phones until ctx ends or a link fails, and
// then shuts down in order: no new connections, the phones' connections ended,
// the host, the links. It returns nil if ctx ended it.
func (a *Appliance) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	serving, stopServing := context.WithCancel(ctx)
	a.begin(&life{serving, cancel})

	var services sync.WaitGroup
	services.Add(1)
	go func() {
		defer services.Done()
		a.expire(serving)
	}()
	pl := a.plan()
	a.opt.Log.Info("box is up", "hostname", pl.running.Hostname, "interfaces", len(pl.interfaces))

	<-ctx.Done()
	a.opt.Log.Info("shutting down", "connections", a.table.Len())
	a.refuse()
	stopServing()
	services.Wait()
	a.conns.Wait()
	a.syslog.Stop()
	a.Close()
	a.reading.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// A life is what lasts from the beginning of Run to its end.
type life struct {
	ctx  context.Context
	fail context.CancelCauseFunc
}

// begin has links read and connections served until l ends.
func (a *Appliance) begin(l *life) {
	a.configuring.Lock()
	defer a.configuring.Unlock()
	a.mu.Lock()
	a.life = l
	a.mu.Unlock()
	a.speaking.Add(1)
	a.read(a.identity.Link, stack.IdentityName, a.speaking.Done)
	for k, l := range a.links {
		a.read(l, k.name, func() {})
	}
	if s := a.plan().service; s != nil {
		s.listen(a.plan())
	}
	a.syslog.Start()
}

// refuse has no more connections served.
func (a *Appliance) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life = nil
}

// read reads a link, on a goroutine of its own, until it is closed; done is
// called then. That a link fails ends Run. It does nothing for a box that does
// not run.
func (a *Appliance) read(l stack.Link, name string, done func()) {
	a.during(func(run *life) {
		a.reading.Add(1)
		go func() {
			defer a.reading.Done()
			defer done()
			if err := a.forward.Run(l); err != nil && !errors.Is(err, net.ErrClosed) {
				run.fail(fmt.Errorf("appliance: interface %s: %w", name, err))
			}
		}()
	})
}

// during calls f, which closes conns, with what the box runs with; Run waits for
// it. Once nothing is served any more it closes conns instead. A handshake,
// which a stranger can hold up, has no place in f.
func (a *Appliance) during(f func(*life), conns ...net.Conn) {
	a.mu.Lock()
	run := a.life
	if run != nil {
		a.conns.Add(1)
	}
	a.mu.Unlock()
	if run == nil {
		for _, c := range conns {
			c.Close()
		}
		return
	}
	defer a.conns.Done()
	f(run)
}

// expire ends what has been idle for too long, until ctx ends.
func (a *Appliance) expire(ctx context.Context) {
	t := time.NewTicker(expireEvery)
	defer t.Stop()
	a.sample(a.opt.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			a.sample(a.opt.Now())
			a.Expire(a.opt.Now())
			a.warnOfExpiry(a.opt.Now())
		}
	}
}

// Handle has p arrive on p.In, one of Interfaces, at p.Time, and returns when what
// comes of it has left: the way in for whoever drives the box instead of Run. p is
// the caller's again, and may have changed, when it returns.
func (a *Appliance) Handle(p *stack.Packet) { a.forward.Handle(p) }

// Say is Handle of what the box itself sends, in the words of Options.Self.
func (a *Appliance) Say(p *stack.Packet) {
	p.In = a.identity
	a.forward.Handle(p)
}

// Drops returns how many packets were dropped for each reason that occurred,
// since they were last cleared.
func (a *Appliance) Drops() map[stack.Verdict]uint64 { return a.forward.Drops() }

// Expire ends what has been idle for too long at now, as Run does every second.
// One call does a bounded part: it reports whether connections ended, and then
// there may be more.
func (a *Appliance) Expire(now time.Time) (more bool) {
	conns := a.table.Len()
	a.table.Expire(now)
	a.data.nat.Expire(now)
	pl := a.plan()
	for _, x := range pl.inspections {
		x.expire(now)
	}
	a.expireRetired(now)
	a.refreshNames()
	a.talks.each(func(t *Talk) { t.stream.Expire(now) })
	if s := pl.service; s != nil {
		s.relay.Expire(now)
		s.phones.Expire(now)
	}
	return a.table.Len() != conns
}

// Close ends everything at once. Run does it in order; Close is for a box that
// has not run, and may be called again.
func (a *Appliance) Close() error {
	a.closed.Do(func() {
		a.configuring.Lock()
		defer a.configuring.Unlock()
		if s := a.plan().service; s != nil {
			s.close()
		}
		a.names.Close()
		a.host.Close()
		if a.opt.Self != nil {
			a.opt.Self.Close()
		}
		a.lastWords()
		a.table.Clear(func(*nat.Conn) bool { return true })
		for _, x := range append(a.retired, a.plan().inspections...) {
			if x.datagrams != nil {
				x.datagrams.Close()
			}
		}
		for _, l := range a.links {
			l.Close()
		}
		a.syslog.Close()
	})
	return nil
}

// lastWords waits, but not for ever, until what the host said as it closed has
// left: the ends of its connections.
func (a *Appliance) lastWords() {
	said := make(chan struct{})
	go func() {
		a.speaking.Wait()
		close(said)
	}()
	t := time.NewTimer(lastWordsWait)
	defer t.Stop()
	select {
	case <-said:
	case <-t.C: // a link takes nothing; closing it ends the wait
	}
}

// facing returns the interface toward addr, or nil.
func (a *Appliance) facing(addr netip.Addr) *stack.Interface { return a.plan().facing(addr) }

func (pl *plan) facing(addr netip.Addr) *stack.Interface {
	out, _, _ := pl.routes.Lookup(addr)
	return out
}
