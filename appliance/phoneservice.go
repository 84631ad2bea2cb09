package appliance

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/ctl"
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect/tftp"
	"patchbay/stack"
)

// A phoneService is the applied phone-proxy instance at work. It lives as long
// as the configuration says the same of it.
type phoneService struct {
	box     *Appliance
	made    phoneMade
	trust   atomic.Pointer[trustList]
	phones  *phoneproxy.Phones
	relay   *media.Relay
	proxy   *phoneproxy.Proxy
	files   *phoneproxy.Files
	tftp    *tftp.Server
	engines map[string]phoneproxy.Service

	over     context.Context // its conversations end with it
	end      context.CancelFunc
	transfer sync.WaitGroup                        // TFTP listeners
	at       map[netip.AddrPort]context.CancelFunc // where they listen; guarded by Appliance.configuring
}

// phoneMade is everything that a phoneService is made from.
type phoneMade struct {
	Proxy      config.PhoneProxy
	CTL        config.CTLFile
	TLS        config.TLSProxy
	Media      config.MediaTermination
	Maps       [2]any // of its SIP and its Skinny inspection
	Ciphers    []string
	Reassembly time.Duration
	Idle       time.Duration
	Sessions   int
	Trust      []config.Trustpoint // that have to do with it
	Keys       []config.KeyPair
}

// phoneMadeOf returns that of the phone proxy that pl applies.
func phoneMadeOf(pl *plan) phoneMade {
	ph, r := pl.phone, pl.running
	m := phoneMade{
		Proxy: *ph.config, CTL: *ph.ctl, TLS: *ph.tls, Media: *ph.media,
		Ciphers: r.SSLEncryption, Reassembly: r.Timeouts.TCPProxyReassembly, Idle: r.Timeouts.SIPMedia,
		Sessions: r.MaxTLSSessions,
	}
	for _, x := range pl.inspections {
		if x.phoneProxy && x.sip != nil {
			m.Maps[0] = *x.sip
		}
		if x.phoneProxy && x.skinny != nil {
			m.Maps[1] = *x.skinny
		}
	}
	used := map[string]bool{ph.tls.ServerTrustpoint: true}
	for _, rec := range ph.ctl.Records {
		used[rec.Trustpoint] = true
	}
	for _, tp := range r.Trustpoints {
		if used[tp.Name] {
			m.Trust = append(m.Trust, tp)
			if k := r.KeyPair(tp.KeyPair); k != nil {
				m.Keys = append(m.Keys, *k)
			}
		}
	}
	return m
}

// newPhoneService makes what the phone proxy that pl applies consists of. It
// does nothing until listen.
func (a *Appliance) newPhoneService(pl *plan) (*phoneService, error) {
	ph, r, opt := pl.phone, pl.running, a.opt
	trust, err := newTrustList(&opt, r, ph.ctl)
	if err != nil {
		return nil, err
	}
	shown, err := opt.Store.Identity(ph.tls.ServerTrustpoint)
	if err != nil {
		return nil, fmt.Errorf("appliance: %s:%d: tls-proxy %s: server trust-point %s: %w", r.File, ph.tls.Line, ph.tls.Name, ph.tls.ServerTrustpoint, err)
	}
	if _, ok := shown.Cert.PublicKey.(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("appliance: %s:%d: tls-proxy %s shows the certificate of trustpoint %s, whose key is not RSA: phones know no other",
			r.File, ph.tls.Line, ph.tls.Name, ph.tls.ServerTrustpoint)
	}
	if !trust.trusts(shown.Cert) {
		return nil, fmt.Errorf("appliance: %s:%d: tls-proxy %s shows the certificate of trustpoint %s, which no cucm or cucm-tftp record of ctl-file %s holds: phones would refuse it; use \"server trust-point %s\"",
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
		return nil, fmt.Errorf("appliance: tls-proxy %s: %w", ph.tls.Name, err)
	}
	s := &phoneService{box: a, made: phoneMadeOf(pl), at: make(map[netip.AddrPort]context.CancelFunc)}
	s.over, s.end = context.WithCancel(context.Background())
	s.trust.Store(trust)
	s.phones = &phoneproxy.Phones{Timeout: ph.config.SecurePhones}
	s.relay = media.New(media.Config{
		Pinholes: a.table, Rand: opt.Rand,
		MinPort: ph.media.MinPort, MaxPort: ph.media.MaxPort, Idle: r.Timeouts.SIPMedia,
	})
	s.proxy = phoneproxy.New(phoneproxy.Config{
		Name: ph.config.Name, TLS: tls, Phones: s.phones, Relay: s.relay, Dial: a.host,
		Rand: opt.Rand, Now: opt.Now, Log: opt.Log, Readmit: ph.config.Readmit,
		MaxSessions: r.MaxTLSSessions,
		Limits:      limits,
		Stories:     &a.stories,
		Watch:       a.watchPhone,
	})
	s.engines = services(r, ph.config, opt.Log)
	s.files = &phoneproxy.Files{
		CTL: func() ([]byte, error) { return s.trust.Load().open(s.over) },
		Sign: func(name string, payload []byte) ([]byte, error) {
			return phoneproxy.Sign(nil, name, payload, trust.internal, opt.Now(), ctl.SHA1)
		},
		Phones: s.phones,
		Fetch:  a.fetch,
		Config: a.phoneConfig,
		Now:    opt.Now,
		Log:    opt.Log,
	}
	s.tftp = &tftp.Server{
		Open: a.openFile,
		NewTID: func(local, _ netip.AddrPort) (net.PacketConn, error) {
			return a.host.ListenPacket(netip.AddrPortFrom(local.Addr(), 0))
		},
		SinglePort: ph.config.TFTPSinglePort,
		Trace:      a.traceFile,
		Now:        opt.Now,
	}
	return s, nil
}

// context returns one that ends with run and with the service.
func (s *phoneService) context(run context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(run)
	stop := context.AfterFunc(s.over, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// listen serves files at each address where phones know a TFTP server by pl, and
// at no other. It does nothing for a box that does not run.
func (s *phoneService) listen(pl *plan) {
	s.box.during(func(run *life) {
		wanted := s.addresses(pl)
		for at, stop := range s.at {
			if _, ok := wanted[at]; !ok {
				stop()
				delete(s.at, at)
			}
		}
		for at, real := range wanted {
			if s.at[at] == nil {
				if err := s.listenAt(run, at, real); err != nil {
					run.fail(err)
				}
			}
		}
	})
}

// addresses returns where phones know the TFTP servers, and the real ones.
func (s *phoneService) addresses(pl *plan) map[netip.AddrPort]netip.AddrPort {
	all := make(map[netip.AddrPort]netip.AddrPort)
	for _, server := range pl.phone.servers {
		for _, i := range pl.interfaces {
			mapped, ok := pl.rules.MappedOf(server.real, server.on, i, stack.UDP)
			if i != server.on && ok && pl.phonesOn(i) {
				all[mapped] = server.real
			}
		}
	}
	return all
}

func (s *phoneService) listenAt(run *life, at, real netip.AddrPort) error {
	pc, err := s.box.host.ListenPacket(at)
	if err != nil {
		return fmt.Errorf("appliance: tftp-server %v: %w", real, err)
	}
	ctx, cancel := s.context(run.ctx)
	s.at[at] = cancel
	s.box.conns.Add(1) // during holds it above zero
	s.transfer.Add(1)
	go func() {
		defer s.box.conns.Done()
		defer s.transfer.Done()
		defer pc.Close()
		if err := s.tftp.Serve(ctx, pc, at); err != nil && ctx.Err() == nil {
			run.fail(fmt.Errorf("appliance: tftp-server %v: %w", real, err))
		}
	}()
	s.box.opt.Log.Info("serving files", "address", at, "tftp-server", real)
	return nil
}

// close ends the phones' conversations and everything else.
func (s *phoneService) close() {
	s.end()
	s.transfer.Wait() // their addresses are free for another
	s.relay.Close()
}
