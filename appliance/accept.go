package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"patchbay/appliance/config"
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/inspect/sip"
	"patchbay/inspect/tftp"
	"patchbay/nat"
	"patchbay/stack"
)

// The distance from a service's nonsecure port to its secure one. A phone adds
// 443 to the Skinny port by itself. (reference/phone-config-xml.md, section 2.)
const (
	skinnyOffset = 443
	sipOffset    = 1
	secureSkinny = 2443
	secureSIP    = 5061
)

// fetchBlock is the TFTP block size that is offered to the real servers, in
// bytes: what fits 1500 with room for a tunnel. One that knows no options
// serves 512.
const fetchBlock = 1428

// services returns the two services of the phone proxy, by engine, as the maps
// of its inspects have them.
func services(r *config.Running, pp *config.PhoneProxy, log *slog.Logger) map[string]phoneproxy.Service {
	sipMap, skinnyMap := phoneMaps(r, pp.Name)
	tls := sipEngine(sipMap, r.Timeouts, sip.TCP, log)
	// The box is an end of both halves: it knows nothing but SIP in them, and
	// leaves the calls' time to the call manager.
	tls.Client, tls.NAT, tls.Map.NonSIP = sip.TLS, false, false
	tls.InviteTimeout, tls.DisconnectTimeout, tls.Timeout = 0, 0, 0
	sccp := skinnyEngine(skinnyMap, log)
	sccp.MaxVersion, sccp.Video = pp.SCCPVersionMax, false // its relay has no keys for pictures
	sccp.MediaTimeout = 0
	return map[string]phoneproxy.Service{
		"skinny": {Name: "skinny", Offset: skinnyOffset, Engine: sccp},
		"sip":    {Name: "sip", Offset: sipOffset, SDES: true, Engine: tls},
	}
}

// accept says who serves a connection from remote to the mapped address local,
// and where; nil if nobody does.
func (a *Appliance) accept(pl *plan, local, remote netip.AddrPort) (*phoneproxy.Service, phoneproxy.Where) {
	var w phoneproxy.Where
	in := pl.facing(remote.Addr())
	if in == nil || pl.service == nil {
		return nil, w
	}
	f := stack.Flow{Proto: stack.TCP, Src: remote, Dst: local}
	real, rule, ok := pl.rules.Untranslate(in, f)
	if !ok {
		real = local
	}
	here := f
	f.Dst = real
	if !pl.mapped {
		here = f
	}
	ucm := pl.facing(real.Addr())
	if ucm == nil {
		return nil, w
	}
	x := pl.inspection(in, ucm, &nat.Query{Flow: here, Time: a.opt.Now()}, &nat.Query{Flow: f, Time: a.opt.Now()})
	if x == nil || !x.phoneProxy {
		return nil, w
	}
	svc, ok := pl.service.engines[x.protocol]
	if !ok || real.Port() <= svc.Offset {
		return nil, w
	}
	svc.Count = x.count
	src, v := pl.rules.Translate(in, ucm, f, rule, nil)
	if v != stack.Forward {
		return nil, w
	}
	outside, inside, ok := pl.sides(in, ucm)
	if !ok {
		return nil, w
	}
	w = phoneproxy.Where{
		Interface: in.Name, Toward: ucm.Name, Global: local,
		UCM:     netip.AddrPortFrom(real.Addr(), real.Port()-svc.Offset),
		Phone:   src.Mapped.Addr(),
		Book:    &addressBook{pl.rules, in, ucm},
		Outside: outside, Inside: inside,
	}
	return &svc, w
}

// sides returns where the legs of a phone behind in and of the call manager's
// side behind ucm stand.
func (pl *plan) sides(in, ucm *stack.Interface) (phone, far media.Side, ok bool) {
	phones, ok1 := pl.mtaOn(in)
	inside, ok2 := pl.mtaOn(ucm)
	return phones.side(true), inside.side(false), ok1 && ok2
}

// OpenMedia opens a media session as a phone's signaling would, for whoever
// signals by other means: SRTP to and from a phone behind the interface phones,
// RTP behind ucm. name is for people.
func (a *Appliance) OpenMedia(name, phones, ucm string) (*media.Session, error) {
	pl := a.plan()
	if pl.service == nil {
		return nil, errors.New("appliance: media: the configuration applies no phone-proxy")
	}
	var on [2]*stack.Interface
	for i, nameif := range []string{phones, ucm} {
		if on[i] = pl.named(nameif); on[i] == nil {
			return nil, fmt.Errorf("appliance: media: there is no interface %q", nameif)
		}
	}
	phone, far, ok := pl.sides(on[0], on[1])
	if !ok {
		return nil, fmt.Errorf("appliance: media: no media termination address for %s and %s", phones, ucm)
	}
	return pl.service.relay.Open(name, phone, far, a.opt.Now())
}

// side is where a media leg on m stands.
func (m mta) side(secure bool) media.Side {
	s := media.Side{Addr: m.addr, Secure: secure}
	if m.strict {
		s.In = m.on
	}
	return s
}

// serve takes one connection that ended up at the box: for an inspection, or
// for the phone proxy. What is for neither is refused.
func (a *Appliance) serve(local, remote netip.AddrPort, accept func() (net.Conn, error)) {
	if t := a.data.termination(local, remote); t != nil {
		a.converse(t, accept)
		return
	}
	pl := a.plan()
	if pl.isSSH(local) {
		a.serveSSH(accept)
		return
	}
	svc, w := a.accept(pl, local, remote)
	if svc == nil {
		return
	}
	c, err := accept()
	if err != nil {
		return
	}
	proxy := pl.service
	a.during(func(run *life) {
		ctx, cancel := proxy.context(run.ctx)
		defer cancel()
		proxy.proxy.Serve(ctx, c, *svc, w)
	}, c)
}

// An addressBook knows the cluster's addresses as the phones on one interface
// do. See phoneproxy.AddressBook.
type addressBook struct {
	rules  *nat.Rules
	phones *stack.Interface
	ucm    *stack.Interface
}

func (b *addressBook) Mapped(real netip.AddrPort) (netip.AddrPort, bool) {
	m, ok := b.rules.MappedOf(real, b.ucm, b.phones, stack.TCP)
	return m, ok && m != real
}

func (b *addressBook) Real(mapped netip.AddrPort) (netip.AddrPort, bool) {
	return b.rules.RealOf(mapped, b.phones, stack.TCP)
}

// traceFile logs what became of a phone's request for a file. That the real
// server does not answer is the operator's to know; that phones ask for files
// there are not is usual.
func (a *Appliance) traceFile(e tftp.Event) {
	level := slog.LevelDebug
	switch {
	case errors.Is(e.Err, tftp.ErrNoAnswer):
		level = slog.LevelWarn
	case e.Err != nil:
		level = slog.LevelInfo
	}
	a.opt.Log.Log(context.Background(), level, "TFTP: "+e.String(), "address", e.To)
	iface, signer := "", func() string { return "nobody" }
	pl := a.plan()
	if i := pl.facing(e.From.Addr()); i != nil {
		iface = i.Name
	}
	if pl.service != nil {
		signer = pl.service.signer
	}
	a.stories.File(e, iface, signer, a.opt.Now())
}

// phoneConfig returns what a configuration file for device, a phone on iface, must
// say.
func (a *Appliance) phoneConfig(iface, device string) phoneproxy.ConfigParams {
	pl := a.plan()
	pp, in := pl.phone.config, pl.named(iface)
	params := phoneproxy.ConfigParams{KeepServiceSettings: pp.KeepServiceSettings}
	find := a.finder(device)
	known := func(host string, port uint16) (netip.AddrPort, bool) {
		addr, ok := find(host)
		if !ok {
			return netip.AddrPort{}, false // it is the phone's to resolve
		}
		real := netip.AddrPortFrom(addr, port)
		m, ok := pl.rules.MappedOf(real, pl.facing(addr), in, stack.TCP)
		return m, ok && m != real
	}
	params.Map = func(host string) (string, bool) {
		// The port matters where several hosts share one mapped address.
		for _, port := range []uint16{0, secureSkinny, secureSIP} {
			if m, ok := known(host, port); ok {
				return m.Addr().String(), true
			}
		}
		return "", false
	}
	params.Ports = func(m phoneproxy.Member) (sccp, sip uint16) {
		if ap, ok := known(m.Host, m.SCCP+skinnyOffset); ok {
			sccp = ap.Port()
		}
		if ap, ok := known(m.Host, m.SecureSIP); ok {
			sip = ap.Port()
		}
		return sccp, sip
	}
	for _, rec := range pl.phone.ctl.Records {
		if rec.Role != "capf" {
			continue
		}
		params.CAPF = rec.FQDN // a phone resolves it too
		if rec.FQDN == "" {
			params.CAPF = rec.Addr.String()
		} else if addr, ok := a.plan().service.trust.Load().address(rec.FQDN); ok {
			params.CAPF = addr.String()
		}
	}
	if s := pp.ProxyServer; s != nil {
		params.ProxyServer = net.JoinHostPort(a.proxyHost(s, find, params.Map), strconv.Itoa(int(s.Port)))
	}
	return params
}

// proxyHost returns where phones find the HTTP proxy: at the address that is
// written, or that of its name as they know it. A name that cannot be looked up
// is left for them to.
func (a *Appliance) proxyHost(s *config.ProxyServer, find func(string) (netip.Addr, bool), mapped func(string) (string, bool)) string {
	if s.Host == "" {
		return s.Addr.String()
	}
	if m, ok := mapped(s.Host); ok {
		return m
	}
	if addr, ok := find(s.Host); ok {
		return addr.String()
	}
	return s.Host
}

// openFile is what a phone gets for a name.
func (a *Appliance) openFile(ctx context.Context, from, to netip.AddrPort, name string) (tftp.File, error) {
	in := a.facing(from.Addr())
	if in == nil {
		return tftp.File{}, fs.ErrPermission
	}
	real, ok := a.plan().rules.RealOf(to, in, stack.UDP)
	if !ok {
		real = to
	}
	if a.plan().tftpFor(in, stack.Flow{Proto: stack.UDP, Src: from, Dst: real}) == nil {
		// The request came by one interface under an address that another
		// faces. Seen from there the server is elsewhere, and what is
		// fetched from elsewhere must not be signed.
		return tftp.File{}, fmt.Errorf("appliance: request from %v, which is not where phones are: %w", from, fs.ErrPermission)
	}
	return a.plan().service.files.Open(ctx, from, in.Name, real, name)
}

// fetch opens a file on the real server, from the box's own address there.
func (a *Appliance) fetch(ctx context.Context, server netip.AddrPort, name string) (tftp.File, error) {
	i := a.facing(server.Addr())
	if i == nil {
		return tftp.File{}, fmt.Errorf("appliance: no route to TFTP server %v", server)
	}
	pc, err := a.host.ListenPacket(netip.AddrPortFrom(i.Addr.Addr(), 0))
	if err != nil {
		return tftp.File{}, fmt.Errorf("appliance: %w", err)
	}
	return tftp.Open(ctx, pc, server, name, tftp.Options{BlockSize: fetchBlock})
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
