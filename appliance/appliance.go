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
	"patchbay/appliance/ctl"
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/appliance/pki"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect"
	"patchbay/inspect/tftp"
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
	Links map[string]stack.Link // by nameif; Close closes them
	Store *pki.Store            // key pairs and trustpoints on flash

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // keys of media, ports, sequence numbers; nil: crypto/rand
	Log  *slog.Logger     // nil: nothing is logged

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
	running  *config.Running
	plan     *plan
	table    *nat.Table
	data     *Dataplane
	forward  *stack.Forwarder
	host     *host.Stack
	identity *stack.Interface

	phones  *phoneproxy.Phones
	relay   *media.Relay
	proxy   *phoneproxy.Proxy
	files   *phoneproxy.Files
	tftp    *tftp.Server
	engines map[string]phoneproxy.Service

	closed   sync.Once
	talks    talks          // conversations being inspected
	conns    sync.WaitGroup // connections being served
	speaking sync.WaitGroup // what the box itself says being carried

	started  time.Time
	captures captures

	mu      sync.Mutex
	ctx     context.Context // of what is being served; nil: nothing is
	cleared aspCleared
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
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	a := &Appliance{opt: opt, running: r, started: opt.Now()}
	if a.plan, err = compile(r, opt.Links); err != nil {
		return nil, err
	}
	if err = makeKeys(opt.Store, r, opt.Now(), opt.Log); err != nil {
		return nil, err
	}
	pat := nat.NewPAT(opt.Rand)
	a.table, err = nat.NewTable(nat.TableConfig{
		Timeouts: a.plan.timeouts, Rand: opt.Rand, MaxEmbryonic: maxEmbryonic, PAT: pat,
		Route: func(dst netip.Addr) *stack.Interface {
			out, _, _ := a.plan.routes.Lookup(dst)
			return out
		},
		Treat: func(p *stack.Packet, real stack.Flow, out *stack.Interface) *nat.Treatment {
			return a.plan.treat(p.In, out, real, p.Time)
		},
		Reset: a.told,
	})
	if err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	if a.host, err = host.New(host.Config{MTU: a.hostMTU()}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.host.Close()
		}
	}()
	a.identity = &stack.Interface{Name: stack.IdentityName, Level: 100, Link: a.host.Link()}
	a.data = newDataplane(a.plan, a.table, pat, a.identity, opt.Log)
	a.forward = stack.NewForwarder(append([]*stack.Interface{a.identity}, a.plan.interfaces...)...)
	a.forward.SetRoutes(a.plan.routes)
	a.forward.SetPolicy(a.data)
	if opt.OnDrop != nil {
		a.forward.SetOnDrop(opt.OnDrop)
	}
	a.data.startInspections(r.Timeouts, opt.Now)
	a.host.HandleTCP(a.serve)
	if a.plan.phone != nil {
		if err = a.newPhoneProxy(); err != nil {
			return nil, err
		}
	}
	a.announce()
	return a, nil
}

// hostMTU is the smallest of the interfaces', so that what the box sends
// leaves by any of them whole.
func (a *Appliance) hostMTU() int {
	mtu := 1500
	for _, i := range a.plan.interfaces {
		mtu = min(mtu, i.Link.MTU())
	}
	return mtu
}

// announce has the Ethernet links answer ARP: for the box's own address and,
// by proxy, for every mapped and media-termination address.
func (a *Appliance) announce() {
	for _, i := range a.plan.interfaces {
		if l, ok := link.Unwrap(i.Link).(interface {
			SetAddrs(own netip.Prefix, proxy func(netip.Addr) bool)
		}); ok {
			l.SetAddrs(i.Addr, func(addr netip.Addr) bool { return a.plan.answers(i, addr) })
		}
	}
}

// newPhoneProxy makes what the applied phone-proxy instance consists of.
func (a *Appliance) newPhoneProxy() error {
	ph, r, opt := a.plan.phone, a.running, a.opt
	trust, err := buildCTL(opt.Store, r, ph.ctl, opt.Now())
	if err != nil {
		return err
	}
	shown, err := opt.Store.Identity(ph.tls.ServerTrustpoint)
	if err != nil {
		return fmt.Errorf("appliance: %s:%d: tls-proxy %s: server trust-point %s: %w", r.File, ph.tls.Line, ph.tls.Name, ph.tls.ServerTrustpoint, err)
	}
	if list, err := ctl.Parse(trust.file); err != nil {
		return fmt.Errorf("appliance: %w", err)
	} else if !list.Trusts(shown.Cert, ctl.CCM, ctl.CCMTFTP) {
		return fmt.Errorf("appliance: %s:%d: tls-proxy %s shows the certificate of trustpoint %s, which no cucm or cucm-tftp record of ctl-file %s holds: phones would refuse it; use \"server trust-point %s\"",
			r.File, ph.tls.Line, ph.tls.Name, ph.tls.ServerTrustpoint, ph.ctl.Name, ctl.InternalName(ph.ctl.Name))
	}
	limits := opt.Limits
	if limits.Reassembly == 0 {
		limits.Reassembly = r.Timeouts.TCPProxyReassembly
	}
	if len(opt.Store.Anchors()) == 0 {
		opt.Log.Warn("no CA certificate is installed: no phone can authenticate; import those of your phones with \"patchbay ca import\"")
	}
	tls, err := tlsproxy.New(tlsproxy.Config{
		Certificate: shown, Anchors: opt.Store.Anchors,
		AllowExpired: ph.config.ExpiredCertificates,
		CipherWords:  r.SSLEncryption,
		Now:          opt.Now, Log: opt.Log,
		HandshakeTimeout: opt.HandshakeTimeout,
		Interface: func(phone netip.AddrPort) string {
			if i := a.facing(phone.Addr()); i != nil {
				return i.Name
			}
			return ""
		},
	})
	if err != nil {
		return fmt.Errorf("appliance: tls-proxy %s: %w", ph.tls.Name, err)
	}
	a.phones = &phoneproxy.Phones{Timeout: ph.config.SecurePhones}
	a.relay = media.New(media.Config{
		Pinholes: a.table, Rand: opt.Rand,
		MinPort: ph.media.MinPort, MaxPort: ph.media.MaxPort, Idle: r.Timeouts.SIPMedia,
	})
	a.proxy = phoneproxy.New(phoneproxy.Config{
		Name: ph.config.Name, TLS: tls, Phones: a.phones, Relay: a.relay, Dial: a.host,
		Rand: opt.Rand, Now: opt.Now, Log: opt.Log, Readmit: ph.config.Readmit,
		MaxSessions: r.MaxTLSSessions,
		Limits:      limits,
	})
	a.engines = services(r, ph.config, opt.Log)
	a.newFiles(trust)
	return nil
}

// Run carries packets and serves phones until ctx ends or a link fails, and
// then shuts down in order: no new connections, the phones' connections ended,
// the host, the links. It returns nil if ctx ended it.
func (a *Appliance) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	serving, stopServing := context.WithCancel(ctx)
	a.admit(serving)

	var links, services sync.WaitGroup
	for _, i := range append([]*stack.Interface{a.identity}, a.plan.interfaces...) {
		links.Add(1)
		done := func() {}
		if i == a.identity {
			a.speaking.Add(1)
			done = a.speaking.Done
		}
		go func() {
			defer links.Done()
			defer done()
			if err := a.forward.Run(i); err != nil && !errors.Is(err, net.ErrClosed) {
				cancel(fmt.Errorf("appliance: interface %s: %w", i.Name, err))
			}
		}()
	}
	if err := a.serveFiles(serving, &services, cancel); err != nil {
		cancel(err)
	}
	services.Add(1)
	go func() {
		defer services.Done()
		a.expire(serving)
	}()
	a.opt.Log.Info("box is up", "hostname", a.running.Hostname, "interfaces", len(a.plan.interfaces))

	<-ctx.Done()
	a.opt.Log.Info("shutting down", "connections", a.table.Len())
	a.refuse()
	stopServing()
	services.Wait()
	a.conns.Wait()
	a.Close()
	links.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// admit has connections served until ctx ends.
func (a *Appliance) admit(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = ctx
}

// refuse has no more connections served.
func (a *Appliance) refuse() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = nil
}

// during calls f, which closes conns, with the context of what is being served;
// Run waits for it. Once nothing is served any more it closes conns instead. A
// handshake, which a stranger can hold up, has no place in f.
func (a *Appliance) during(f func(context.Context), conns ...net.Conn) {
	a.mu.Lock()
	ctx := a.ctx
	if ctx != nil {
		a.conns.Add(1)
	}
	a.mu.Unlock()
	if ctx == nil {
		for _, c := range conns {
			c.Close()
		}
		return
	}
	defer a.conns.Done()
	f(ctx)
}

// expire ends what has been idle for too long, until ctx ends.
func (a *Appliance) expire(ctx context.Context) {
	t := time.NewTicker(expireEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			a.Expire(a.opt.Now())
		}
	}
}

// Expire ends what has been idle for too long at now.
func (a *Appliance) Expire(now time.Time) {
	a.table.Expire(now)
	a.data.nat.Expire(now)
	for _, x := range a.plan.inspections {
		x.expire(now)
	}
	a.talks.each(func(t *talk) { t.stream.Expire(now) })
	if a.relay != nil {
		a.relay.Expire(now)
		a.phones.Expire(now)
	}
}

// Close ends everything at once. Run does it in order; Close is for a box that
// has not run, and may be called again.
func (a *Appliance) Close() error {
	a.closed.Do(func() {
		if a.relay != nil {
			a.relay.Close()
		}
		a.host.Close()
		a.lastWords()
		a.table.Clear(func(*nat.Conn) bool { return true })
		for _, i := range a.plan.interfaces {
			i.Link.Close()
		}
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
func (a *Appliance) facing(addr netip.Addr) *stack.Interface {
	out, _, _ := a.plan.routes.Lookup(addr)
	return out
}
