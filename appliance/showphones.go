package appliance

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/ctl"
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/nat"
)

var showPhoneCommands = []cli.Rule[execFunc]{
	{Syntax: "show phone-proxy", Help: "The phone proxy, and what inspects for it", Do: showPhoneProxy},
	{Syntax: "show phone-proxy secure-phones", Help: "Phones that have fetched their CTL file here", Do: showSecurePhones},
	{Syntax: "show phone-proxy signaling-sessions [detail]", Help: "The phones' signaling", Do: showSignaling},
	{Syntax: "show phone-proxy media-sessions [detail]", Help: "Media that the box carries", Do: showMedia},
	{Syntax: "show phone-proxy phone <who:phone>", Help: "What has happened to one phone", Do: showPhoneStory},
	{Syntax: "show tls-proxy", Help: "How the phones' TLS is ended", Do: showTLSProxy},
	{Syntax: "show tls-proxy session [count|detail]", Help: "The phones' TLS", Do: showTLSSessions},
	{Syntax: "show media-termination", Help: "Where the box takes media", Do: showMediaTermination},
	{Syntax: "clear phone-proxy secure-phones [<addr>|noconfirm]", Help: "Forget phones", Do: clearSecurePhones},
	{Syntax: "diagnose phone <who:phone>", Help: "Why a phone does not come up", Do: diagnosePhone},
}

// execPhone reads what checkWord has passed as a phone: "SEP001122334455" or an
// address.
func (x *execution) execPhone(word string) (device string, addr netip.Addr) {
	if device, ok := phoneproxy.DeviceName(word); ok {
		return device, netip.Addr{}
	}
	addr, _ = x.execAddr(word)
	return "", addr
}

func (x *execution) checkPhone(word string) error {
	if _, ok := phoneproxy.DeviceName(word); ok {
		return nil
	}
	if _, err := x.execAddr(word); err != nil {
		return fmt.Errorf("%.80s is no phone: give SEP and twelve hex digits, or an address", word)
	}
	return nil
}

// proxied returns the phone proxy at work, or refuses.
func (x *execution) proxied() (*phoneService, error) {
	if x.plan.service == nil {
		return nil, refuse("%% No phone-proxy is in effect: no service-policy applies an \"inspect ... phone-proxy\"")
	}
	return x.plan.service, nil
}

// proxyID stands for the pointer that the ASA prints: the same for the same
// class and engine.
func proxyID(x *inspection) uint32 {
	return textHash(x.policy.name + " " + x.class.name + " " + x.protocol)
}

// runtimeProxies lists the inspections that the phone proxy serves.
func (x *execution) runtimeProxies() []*inspection {
	var all []*inspection
	for _, i := range x.plan.inspections {
		if i.phoneProxy {
			all = append(all, i)
		}
	}
	return all
}

// showPhoneProxy follows reference/asa-cli-show-debug.md, section 2.1, which is
// from memory, as are 2.2 to 2.5.
func showPhoneProxy(x *execution, _ cli.Args) error {
	if x.plan.phone == nil {
		for _, pp := range x.running.PhoneProxies {
			x.printf("Phone-Proxy '%s': Runtime Proxy ref_cnt 0\n\nCluster Mode: %s\nNo service-policy applies it.\n", pp.Name, clusterMode(pp.Mixed))
		}
		return nil
	}
	pp, all := x.plan.phone.config, x.runtimeProxies()
	x.printf("Phone-Proxy '%s': Runtime Proxy ref_cnt %d\n\nCluster Mode: %s\nRun-time proxies:\n", pp.Name, len(all), clusterMode(pp.Mixed))
	for _, i := range all {
		x.printf("  Proxy 0x%08x: Class-map: %s, Inspect: %s\n", proxyID(i), i.class.name, i.protocol)
	}
	return nil
}

func clusterMode(mixed bool) string {
	if mixed {
		return "mixed"
	}
	return "nonsecure"
}

func showSecurePhones(x *execution, _ cli.Args) error {
	s, err := x.proxied()
	if err != nil {
		return err
	}
	now := x.opt.Now()
	all := s.phones.List(now)
	x.printf("%s: %d in use, %d most used\n", x.plan.phone.config.Name, len(all), s.phones.Most())
	const layout = "%-12s %-16s %-6v %-16s %-9s %s\n"
	x.printf(layout, "Interface", "IP Address", "Port", "MAC Address", "Timeout", "Idle")
	for _, p := range all {
		x.printf(layout, p.Iface, p.Addr.Addr(), p.Addr.Port(), p.MAC(), clockTime(p.Timeout), clockTime(p.Idle(now)))
	}
	return nil
}

// clearSecurePhones forgets phones. Those that are connected stay so.
func clearSecurePhones(x *execution, args cli.Args) error {
	s, err := x.proxied()
	if err != nil {
		return err
	}
	addr, _ := x.execAddr(args.Get("addr"))
	x.printf("%d secure phone(s) deleted.\n", s.phones.Clear(addr))
	return nil
}

// sessions returns the phones' signaling, by address.
func (s *phoneService) sessions() []phoneproxy.Session {
	all := s.proxy.Sessions()
	slices.SortFunc(all, func(a, b phoneproxy.Session) int {
		return cmp.Or(a.Phone.Compare(b.Phone), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func showSignaling(x *execution, args cli.Args) error {
	s, err := x.proxied()
	if err != nil {
		return err
	}
	all, name := s.sessions(), x.plan.phone.config.Name
	x.printf("%d in use, %d most used\n", len(all), s.proxy.Most(""))
	for _, c := range all {
		proto := "SIP"
		if c.Service == "skinny" {
			proto = "SCCP"
		}
		x.printf("%s %v %s %v  P:0x%08x(%s) proto %s TLS->TCP idle %s\n", c.Interface, c.Phone, c.Toward, c.UCM,
			textHash(name), name, proto, clockTime(x.opt.Now().Sub(c.Last)))
		if args.Has("detail") {
			state := "not registered"
			if c.Registered {
				state = "registered"
			}
			x.printf("  %s %s, as %v, up %s, %d bytes\n", c.Device, state, c.AsUCM, clockTime(x.opt.Now().Sub(c.Since)), c.Bytes)
		}
	}
	return nil
}

// showMedia lists each leg, those of a session together and the older first.
func showMedia(x *execution, args cli.Args) error {
	s, err := x.proxied()
	if err != nil {
		return err
	}
	type leg struct {
		name string
		media.LegStats
	}
	var legs []leg
	all := s.relay.Sessions()
	slices.SortFunc(all, func(a, b *media.Session) int {
		return cmp.Or(a.Opened.Compare(b.Opened), a.Local(nat.Client).Compare(b.Local(nat.Client)))
	})
	for _, m := range all {
		phone, ucm := m.Legs()
		legs = append(legs, leg{oneLine(m.Name), ucm}, leg{oneLine(m.Name), phone})
	}
	x.printf("%d in use, %d most used\n", len(legs), 2*s.relay.Most())
	for _, l := range legs {
		x.printf("Media-session: %s refcnt 2\n", slashed(l.Local)) // RTP and RTCP
		kind, remote := "RTP", "no one yet"
		if l.Secure {
			kind = "SRTP"
		}
		if l.Remote.IsValid() {
			remote = slashed(l.Remote)
		}
		x.printf("  <---> %s connection to %s tx_pkts %d rx_pkts %d\n", kind, remote, l.Sent, l.Packets)
		if args.Has("detail") {
			x.printf("        %s\n        %s\n", l.name, legText(l.LegStats, x.opt.Now()))
		}
	}
	return nil
}

// legText says more of a leg: what of it was wrong, and its codec.
func legText(l media.LegStats, now time.Time) string {
	s := fmt.Sprintf("codec %s, lost %d, last packet %s ago", codec(l), l.Lost, clockTime(now.Sub(l.LastPacket)))
	if l.Packets == 0 {
		s = "nothing received"
	}
	for _, n := range []struct {
		name string
		n    uint64
	}{
		{"failed authentication", l.AuthFailed}, {"replayed", l.Replayed}, {"from others", l.WrongSource},
		{"not sent for want of an address", l.NoPeer}, {"moves to another address", l.Moves}, {"RTCP", l.RTCP},
	} {
		if n.n > 0 {
			s += fmt.Sprintf(", %s %d", n.name, n.n)
		}
	}
	return s
}

// codec names a static payload type, RFC 3551, section 6.
func codec(l media.LegStats) string {
	if l.Packets == l.RTCP {
		return "unknown"
	}
	switch l.PayloadType {
	case 0:
		return "G.711 u-law"
	case 3:
		return "GSM"
	case 4:
		return "G.723"
	case 8:
		return "G.711 A-law"
	case 9:
		return "G.722"
	case 13, 19:
		return "comfort noise"
	case 15:
		return "G.728"
	case 18:
		return "G.729"
	case 34:
		return "H.263"
	}
	return fmt.Sprintf("payload type %d", l.PayloadType)
}

func showTLSProxy(x *execution, _ cli.Args) error {
	limit := cmp.Or(x.running.MaxTLSSessions, phoneproxy.DefaultMaxSessions)
	x.printf("Maximum number of sessions: %d\n", limit)
	for k := range x.running.TLSProxies {
		t := &x.running.TLSProxies[k]
		var users []*inspection
		if x.plan.phone != nil && x.plan.phone.tls.Name == t.Name {
			users = x.runtimeProxies()
		}
		x.printf("\nTLS-Proxy '%s': ref_cnt %d, seq# %d\n", t.Name, len(users), k+1)
		x.printf("        Server proxy:\n                Trust-point: %s\n        Client proxy:\n", t.ServerTrustpoint)
		for _, line := range []struct{ name, value string }{
			{"Trust-point", t.ClientTrustpoint}, {"Local dynamic certificate issuer", t.LDCIssuer},
			{"Local dynamic certificate key-pair", t.LDCKeyPair}, {"Cipher-suite", strings.Join(t.ClientCiphers, " ")},
		} {
			if line.value != "" {
				x.printf("                %s: %s\n", line.name, line.value)
			}
		}
		x.printf("        Run-time proxies:\n")
		for _, i := range users {
			active, bytes := 0, uint64(0)
			for _, c := range x.plan.service.sessions() {
				if c.Service == i.protocol {
					active, bytes = active+1, bytes+c.Bytes
				}
			}
			x.printf("                Proxy 0x%08x: Class-map: %s, Inspect: %s\n                        Active sess %d, most sess %d, byte %d\n",
				proxyID(i), i.class.name, i.protocol, active, x.plan.service.proxy.Most(i.protocol), bytes)
		}
	}
	return nil
}

func showTLSSessions(x *execution, args cli.Args) error {
	s, err := x.proxied()
	if err != nil {
		return err
	}
	all, name := s.sessions(), x.plan.phone.tls.Name
	x.printf("%d in use, %d most used\n", len(all), s.proxy.Most(""))
	if args.Has("count") {
		return nil
	}
	for _, c := range all {
		x.printf("%s %v %s %v P:0x%08x(%s) S:0x%08x byte %d\n", c.Interface, c.Phone, c.Toward,
			netip.AddrPortFrom(c.UCM.Addr(), c.Secure), textHash(name), name, c.ID, c.Bytes)
		if !args.Has("detail") {
			continue
		}
		x.printf("  Client: State SSLOK  Cipher %s  Version %s\n  Server: State TCP  (cluster-mode %s: no TLS toward the call manager)\n",
			c.Cipher, c.Version, clusterMode(x.plan.phone.config.Mixed))
		x.printf("Phone Certificate\n  Subject Name: %s\n  Issuer Name: %s\n  Associated Trustpoints: %s\n",
			c.Certificate.Subject, c.Certificate.Issuer, c.Certificate.Trustpoint)
		if c.Certificate.Expired {
			x.printf("  Outside its dates, which \"phone-certificate expired permit\" allows\n")
		}
	}
	return nil
}

// signer names who signed the CTL file that is served.
func (s *phoneService) signer() string {
	data, err := s.trust.Load().current()
	if err != nil {
		return "nobody"
	}
	f, err := ctl.Parse(data)
	if err != nil {
		return "nobody"
	}
	return fmt.Sprintf("%s, serial %X", oneLine(f.Header.SignerName), f.Header.Serial)
}

// oneLine makes a name from a file fit for a line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}

func showMediaTermination(x *execution, _ cli.Args) error {
	for k := range x.running.MediaTerminations {
		m := &x.running.MediaTerminations[k]
		used := "not applied"
		if x.plan.phone != nil && x.plan.phone.media.Name == m.Name {
			used = "applied"
		}
		x.printf("Media-termination '%s': %s, RTP ports %d-%d\n", m.Name, used,
			cmp.Or(m.MinPort, media.DefaultMinPort), cmp.Or(m.MaxPort, media.DefaultMaxPort))
		for _, a := range m.Addrs {
			legs := 0
			if used == "applied" {
				for _, s := range x.plan.service.relay.Sessions() {
					for _, end := range []nat.End{nat.Client, nat.Server} {
						if s.Local(end).Addr() == a.Addr {
							legs++
						}
					}
				}
			}
			x.printf("  Address %v, interface %s, %d in use\n", a.Addr, cmp.Or(a.Interface, "any"), legs)
		}
	}
	return nil
}
