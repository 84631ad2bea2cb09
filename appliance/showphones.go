package appliance

import (
	"bufio"
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
	{Syntax: "show phone-proxy", Help: "The phone proxy, and what inspects for it", Do: show(showPhoneProxy)},
	{Syntax: "show phone-proxy secure-phones", Help: "Phones that have fetched their CTL file here", Do: show(showSecurePhones)},
	{Syntax: "show phone-proxy signaling-sessions [detail]", Help: "The phones' signaling", Do: show(showSignaling)},
	{Syntax: "show phone-proxy media-sessions [detail]", Help: "Media that the box carries", Do: show(showMedia)},
	{Syntax: "show phone-proxy phone <who:phone>", Help: "What has happened to one phone", Do: show(showPhoneStory)},
	{Syntax: "show tls-proxy", Help: "How the phones' TLS is ended", Do: show(showTLSProxy)},
	{Syntax: "show tls-proxy session [count|detail]", Help: "The phones' TLS", Do: show(showTLSSessions)},
	{Syntax: "show media-termination", Help: "Where the box takes media", Do: show(showMediaTermination)},
	{Syntax: "clear phone-proxy secure-phones [<addr>|noconfirm]", Help: "Forget phones", Do: clearSecurePhones},
	{Syntax: "diagnose phone <who:phone>", Help: "Why a phone does not come up", Do: show(diagnosePhone)},
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

// A shownProxy is a phone-proxy of the configuration.
type shownProxy struct {
	Name        string                 `json:"name"`
	ClusterMode string                 `json:"cluster_mode"`
	Applied     bool                   `json:"applied"` // a service policy applies it
	Runtime     cli.List[shownRuntime] `json:"runtime_proxies"`
}

// A shownRuntime is an inspection that the phone proxy serves.
type shownRuntime struct {
	ID      hash   `json:"id"`
	Class   string `json:"class"`
	Inspect string `json:"inspect"`
}

type shownProxies struct {
	Proxies cli.List[shownProxy] `json:"phone_proxies"` // the one that is applied, or all
}

func (x *execution) shownRuntime() (all []shownRuntime) {
	for _, i := range x.runtimeProxies() {
		all = append(all, shownRuntime{hash(proxyID(i)), i.class.name, i.protocol})
	}
	return all
}

func showPhoneProxy(x *execution, _ cli.Args) (s shownProxies, _ error) {
	if x.plan.phone != nil {
		pp := x.plan.phone.config
		s.Proxies = append(s.Proxies, shownProxy{pp.Name, clusterMode(pp.Mixed), true, x.shownRuntime()})
		return s, nil
	}
	for _, pp := range x.running.PhoneProxies {
		s.Proxies = append(s.Proxies, shownProxy{Name: pp.Name, ClusterMode: clusterMode(pp.Mixed)})
	}
	return s, nil
}

// Text follows reference/asa-cli-show-debug.md, section 2.1, which is from memory,
// as are 2.2 to 2.5.
func (s shownProxies) Text(w *bufio.Writer) {
	for _, pp := range s.Proxies {
		fmt.Fprintf(w, "Phone-Proxy '%s': Runtime Proxy ref_cnt %d\n\nCluster Mode: %s\n", pp.Name, len(pp.Runtime), pp.ClusterMode)
		if !pp.Applied {
			w.WriteString("No service-policy applies it.\n")
			continue
		}
		w.WriteString("Run-time proxies:\n")
		for _, i := range pp.Runtime {
			fmt.Fprintf(w, "  Proxy %v: Class-map: %s, Inspect: %s\n", i.ID, i.Class, i.Inspect)
		}
	}
}

func clusterMode(mixed bool) string {
	if mixed {
		return "mixed"
	}
	return "nonsecure"
}

// A shownPhone is a phone that has fetched its CTL file here.
type shownPhone struct {
	Device        string      `json:"device"`
	Interface     string      `json:"interface"`
	Addr          netip.Addr  `json:"address"`
	Port          uint16      `json:"port"`
	MAC           string      `json:"mac"`
	Authenticated bool        `json:"authenticated"` // a certificate has proved the name
	Timeout       cli.Seconds `json:"timeout_seconds"`
	Idle          cli.Seconds `json:"idle_seconds"`
}

type shownPhones struct {
	Proxy string `json:"phone_proxy"`
	usage
	Phones cli.List[shownPhone] `json:"phones"`
}

func showSecurePhones(x *execution, _ cli.Args) (s shownPhones, _ error) {
	service, err := x.proxied()
	if err != nil {
		return s, err
	}
	now := x.opt.Now()
	all := service.phones.List(now)
	s.Proxy, s.usage = x.plan.phone.config.Name, usage{len(all), service.phones.Most()}
	for _, p := range all {
		s.Phones = append(s.Phones, shownPhone{
			p.Device, p.Iface, p.Addr.Addr(), p.Addr.Port(), p.MAC(), p.Authenticated, cli.Seconds(p.Timeout), cli.Seconds(p.Idle(now))})
	}
	return s, nil
}

func (s shownPhones) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "%s: ", s.Proxy)
	s.usage.Text(w)
	const layout = "%-12s %-16s %-6v %-16s %-9s %s\n"
	fmt.Fprintf(w, layout, "Interface", "IP Address", "Port", "MAC Address", "Timeout", "Idle")
	for _, p := range s.Phones {
		fmt.Fprintf(w, layout, p.Interface, p.Addr, p.Port, p.MAC, clockTime(p.Timeout.Duration()), clockTime(p.Idle.Duration()))
	}
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

// A shownSignal is the signaling of one phone.
type shownSignal struct {
	Device     string      `json:"device"`
	Protocol   string      `json:"protocol"` // "sip" or "skinny"
	Interface  string      `json:"interface"`
	Phone      endpoint    `json:"phone"`
	AsUCM      endpoint    `json:"phone_seen_by_call_manager"`
	Toward     string      `json:"call_manager_interface"`
	UCM        endpoint    `json:"call_manager"`
	Registered bool        `json:"registered"`
	Since      time.Time   `json:"since"`
	Up         cli.Seconds `json:"up_seconds"`
	Idle       cli.Seconds `json:"idle_seconds"`
	Bytes      uint64      `json:"bytes"`
}

type shownSignals struct {
	Proxy string `json:"phone_proxy"`
	usage
	Sessions cli.List[shownSignal] `json:"sessions"`
	detail   bool
}

func showSignaling(x *execution, args cli.Args) (s shownSignals, _ error) {
	service, err := x.proxied()
	if err != nil {
		return s, err
	}
	now, all := x.opt.Now(), service.sessions()
	s.Proxy, s.usage, s.detail = x.plan.phone.config.Name, usage{len(all), service.proxy.Most("")}, args.Has("detail")
	for _, c := range all {
		s.Sessions = append(s.Sessions, shownSignal{
			c.Device, c.Service, c.Interface, endpointOf(c.Phone), endpointOf(c.AsUCM), c.Toward, endpointOf(c.UCM), c.Registered,
			c.Since.UTC(), cli.Seconds(now.Sub(c.Since)), cli.Seconds(now.Sub(c.Last)), c.Bytes})
	}
	return s, nil
}

func (s shownSignals) Text(w *bufio.Writer) {
	s.usage.Text(w)
	for _, c := range s.Sessions {
		proto := "SIP"
		if c.Protocol == "skinny" {
			proto = "SCCP"
		}
		fmt.Fprintf(w, "%s %v %s %v  P:%v(%s) proto %s TLS->TCP idle %s\n", c.Interface, c.Phone, c.Toward, c.UCM,
			hash(textHash(s.Proxy)), s.Proxy, proto, clockTime(c.Idle.Duration()))
		if s.detail {
			state := "not registered"
			if c.Registered {
				state = "registered"
			}
			fmt.Fprintf(w, "  %s %s, as %v, up %s, %d bytes\n", c.Device, state, c.AsUCM, clockTime(c.Up.Duration()), c.Bytes)
		}
	}
}

// A shownLeg is one end of a stream of media, and what it has carried.
type shownLeg struct {
	Session     string      `json:"session,omitempty"` // the phone and its call
	Local       endpoint    `json:"local"`
	Remote      *endpoint   `json:"remote,omitempty"` // none: no one yet
	Secure      bool        `json:"secure"`           // SRTP
	Received    uint64      `json:"received_packets"`
	Sent        uint64      `json:"sent_packets"`
	Codec       string      `json:"codec,omitempty"` // of what was received, as what follows
	Lost        uint64      `json:"lost_packets"`
	LastPacket  time.Time   `json:"last_packet,omitzero"`
	Ago         cli.Seconds `json:"since_last_packet_seconds,omitempty"`
	AuthFailed  uint64      `json:"authentication_failed_packets"`
	Replayed    uint64      `json:"replayed_packets"`
	WrongSource uint64      `json:"wrong_source_packets"`
	NoPeer      uint64      `json:"no_address_packets"` // not sent for want of one
	Moves       uint64      `json:"moves"`              // to another address
	RTCP        uint64      `json:"rtcp_packets"`
}

func legOf(l media.LegStats, now time.Time) shownLeg {
	s := shownLeg{
		Local: endpointOf(l.Local), Secure: l.Secure, Received: l.Packets, Sent: l.Sent, Lost: l.Lost,
		AuthFailed: l.AuthFailed, Replayed: l.Replayed, WrongSource: l.WrongSource, NoPeer: l.NoPeer, Moves: l.Moves, RTCP: l.RTCP,
	}
	if l.Remote.IsValid() {
		s.Remote = new(endpointOf(l.Remote))
	}
	if l.Packets > 0 {
		s.Codec, s.LastPacket, s.Ago = codec(l), l.LastPacket.UTC(), cli.Seconds(now.Sub(l.LastPacket))
	}
	return s
}

type shownLegs struct {
	usage
	Legs   cli.List[shownLeg] `json:"legs"` // those of a session together and the older first
	detail bool
}

func showMedia(x *execution, args cli.Args) (s shownLegs, _ error) {
	service, err := x.proxied()
	if err != nil {
		return s, err
	}
	all := service.relay.Sessions()
	slices.SortFunc(all, func(a, b *media.Session) int {
		return cmp.Or(a.Opened.Compare(b.Opened), a.Local(nat.Client).Compare(b.Local(nat.Client)))
	})
	now := x.opt.Now()
	for _, m := range all {
		phone, ucm := m.Legs()
		for _, l := range []media.LegStats{ucm, phone} {
			leg := legOf(l, now)
			leg.Session = oneLine(m.Name)
			s.Legs = append(s.Legs, leg)
		}
	}
	s.usage, s.detail = usage{len(s.Legs), 2 * service.relay.Most()}, args.Has("detail")
	return s, nil
}

func (s shownLegs) Text(w *bufio.Writer) {
	s.usage.Text(w)
	for k := range s.Legs {
		l := &s.Legs[k]
		fmt.Fprintf(w, "Media-session: %s refcnt 2\n", slashed(l.Local.addrPort())) // RTP and RTCP
		fmt.Fprintf(w, "  <---> %s connection to %s tx_pkts %d rx_pkts %d\n", l.kind(), l.remote("no one yet"), l.Sent, l.Received)
		if s.detail {
			fmt.Fprintf(w, "        %s\n        %s\n", l.Session, l.more())
		}
	}
}

func (l *shownLeg) kind() string {
	if l.Secure {
		return "SRTP"
	}
	return "RTP"
}

// remote is the other end, or none.
func (l *shownLeg) remote(none string) string {
	if l.Remote == nil {
		return none
	}
	return slashed(l.Remote.addrPort())
}

// more says more of a leg: what of it was wrong, and its codec.
func (l *shownLeg) more() string {
	s := "nothing received"
	if l.Received > 0 {
		s = fmt.Sprintf("codec %s, lost %d, last packet %s ago", l.Codec, l.Lost, clockTime(l.Ago.Duration()))
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

// A shownTLSProxy is a tls-proxy of the configuration.
type shownTLSProxy struct {
	Name       string                    `json:"name"`
	Server     string                    `json:"server_trustpoint,omitempty"`
	Client     string                    `json:"client_trustpoint,omitempty"`
	LDCIssuer  string                    `json:"ldc_issuer,omitempty"`
	LDCKeyPair string                    `json:"ldc_key_pair,omitempty"`
	Ciphers    cli.List[string]          `json:"client_ciphers"`
	Runtime    cli.List[shownTLSRuntime] `json:"runtime_proxies"`
}

type shownTLSRuntime struct {
	shownRuntime
	Active int    `json:"active_sessions"`
	Most   int    `json:"most_sessions"`
	Bytes  uint64 `json:"bytes"`
}

type shownTLSProxies struct {
	Limit   int                     `json:"maximum_sessions"`
	Proxies cli.List[shownTLSProxy] `json:"tls_proxies"`
}

func showTLSProxy(x *execution, _ cli.Args) (s shownTLSProxies, _ error) {
	s.Limit = cmp.Or(x.running.MaxTLSSessions, phoneproxy.DefaultMaxSessions)
	for k := range x.running.TLSProxies {
		t := &x.running.TLSProxies[k]
		o := shownTLSProxy{Name: t.Name, Server: t.ServerTrustpoint, Client: t.ClientTrustpoint, LDCIssuer: t.LDCIssuer, LDCKeyPair: t.LDCKeyPair, Ciphers: t.ClientCiphers}
		if x.plan.phone != nil && x.plan.phone.tls.Name == t.Name {
			all := x.plan.service.sessions()
			for _, i := range x.shownRuntime() {
				u := shownTLSRuntime{shownRuntime: i, Most: x.plan.service.proxy.Most(i.Inspect)}
				for _, c := range all {
					if c.Service == i.Inspect {
						u.Active, u.Bytes = u.Active+1, u.Bytes+c.Bytes
					}
				}
				o.Runtime = append(o.Runtime, u)
			}
		}
		s.Proxies = append(s.Proxies, o)
	}
	return s, nil
}

func (s shownTLSProxies) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "Maximum number of sessions: %d\n", s.Limit)
	for k, t := range s.Proxies {
		fmt.Fprintf(w, "\nTLS-Proxy '%s': ref_cnt %d, seq# %d\n", t.Name, len(t.Runtime), k+1)
		fmt.Fprintf(w, "        Server proxy:\n                Trust-point: %s\n        Client proxy:\n", t.Server)
		for _, line := range []struct{ name, value string }{
			{"Trust-point", t.Client}, {"Local dynamic certificate issuer", t.LDCIssuer},
			{"Local dynamic certificate key-pair", t.LDCKeyPair}, {"Cipher-suite", strings.Join(t.Ciphers, " ")},
		} {
			if line.value != "" {
				fmt.Fprintf(w, "                %s: %s\n", line.name, line.value)
			}
		}
		w.WriteString("        Run-time proxies:\n")
		for _, i := range t.Runtime {
			fmt.Fprintf(w, "                Proxy %v: Class-map: %s, Inspect: %s\n                        Active sess %d, most sess %d, byte %d\n",
				i.ID, i.Class, i.Inspect, i.Active, i.Most, i.Bytes)
		}
	}
}

// A shownTLS is a phone's TLS.
type shownTLS struct {
	ID          uint64      `json:"id"`
	Device      string      `json:"device"`
	Interface   string      `json:"interface"`
	Phone       endpoint    `json:"phone"`
	Toward      string      `json:"call_manager_interface"`
	UCM         endpoint    `json:"call_manager"` // with its port for phones that speak TLS
	Bytes       uint64      `json:"bytes"`
	Cipher      string      `json:"cipher"`
	Version     string      `json:"version"`
	Certificate certificate `json:"certificate"`
}

// A certificate is what a phone showed.
type certificate struct {
	Subject    string `json:"subject"`
	Issuer     string `json:"issuer"`
	Trustpoint string `json:"trustpoint,omitempty"`
	Expired    bool   `json:"expired"` // and that was allowed
}

type shownTLSSessions struct {
	usage
	Proxy       string             `json:"tls_proxy"`
	ClusterMode string             `json:"cluster_mode"`
	Sessions    cli.List[shownTLS] `json:"sessions,omitzero"`
	detail      bool
}

func showTLSSessions(x *execution, args cli.Args) (s shownTLSSessions, _ error) {
	service, err := x.proxied()
	if err != nil {
		return s, err
	}
	all := service.sessions()
	s.usage, s.detail = usage{len(all), service.proxy.Most("")}, args.Has("detail")
	s.Proxy, s.ClusterMode = x.plan.phone.tls.Name, clusterMode(x.plan.phone.config.Mixed)
	if args.Has("count") {
		return s, nil
	}
	s.Sessions = cli.List[shownTLS]{}
	for _, c := range all {
		s.Sessions = append(s.Sessions, shownTLS{
			c.ID, c.Device, c.Interface, endpointOf(c.Phone), c.Toward, endpointOf(netip.AddrPortFrom(c.UCM.Addr(), c.Secure)),
			c.Bytes, c.Cipher, c.Version, certificate(c.Certificate)})
	}
	return s, nil
}

func (s shownTLSSessions) Text(w *bufio.Writer) {
	s.usage.Text(w)
	for _, c := range s.Sessions {
		fmt.Fprintf(w, "%s %v %s %v P:%v(%s) S:0x%08x byte %d\n", c.Interface, c.Phone, c.Toward, c.UCM, hash(textHash(s.Proxy)), s.Proxy, c.ID, c.Bytes)
		if !s.detail {
			continue
		}
		fmt.Fprintf(w, "  Client: State SSLOK  Cipher %s  Version %s\n  Server: State TCP  (cluster-mode %s: no TLS toward the call manager)\n",
			c.Cipher, c.Version, s.ClusterMode)
		fmt.Fprintf(w, "Phone Certificate\n  Subject Name: %s\n  Issuer Name: %s\n  Associated Trustpoints: %s\n",
			c.Certificate.Subject, c.Certificate.Issuer, c.Certificate.Trustpoint)
		if c.Certificate.Expired {
			w.WriteString("  Outside its dates, which \"phone-certificate expired permit\" allows\n")
		}
	}
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

// A shownTermination is a media-termination of the configuration.
type shownTermination struct {
	Name    string              `json:"name"`
	Applied bool                `json:"applied"`
	MinPort uint16              `json:"rtp_min_port"`
	MaxPort uint16              `json:"rtp_max_port"`
	Addrs   cli.List[mediaAddr] `json:"addresses"`
}

// A mediaAddr is an address of a media-termination.
type mediaAddr struct {
	Addr      netip.Addr `json:"address"`
	Interface string     `json:"interface,omitempty"` // none: any
	InUse     int        `json:"in_use"`              // legs
}

type shownTerminations struct {
	Terminations cli.List[shownTermination] `json:"media_terminations"`
}

func showMediaTermination(x *execution, _ cli.Args) (s shownTerminations, _ error) {
	for k := range x.running.MediaTerminations {
		m := &x.running.MediaTerminations[k]
		o := shownTermination{
			Name: m.Name, Applied: x.plan.phone != nil && x.plan.phone.media.Name == m.Name,
			MinPort: cmp.Or(m.MinPort, media.DefaultMinPort), MaxPort: cmp.Or(m.MaxPort, media.DefaultMaxPort),
		}
		var all []*media.Session
		if o.Applied {
			all = x.plan.service.relay.Sessions()
		}
		for _, a := range m.Addrs {
			in := mediaAddr{Addr: a.Addr, Interface: a.Interface}
			for _, s := range all {
				for _, end := range []nat.End{nat.Client, nat.Server} {
					if s.Local(end).Addr() == a.Addr {
						in.InUse++
					}
				}
			}
			o.Addrs = append(o.Addrs, in)
		}
		s.Terminations = append(s.Terminations, o)
	}
	return s, nil
}

func (s shownTerminations) Text(w *bufio.Writer) {
	for _, m := range s.Terminations {
		used := "not applied"
		if m.Applied {
			used = "applied"
		}
		fmt.Fprintf(w, "Media-termination '%s': %s, RTP ports %d-%d\n", m.Name, used, m.MinPort, m.MaxPort)
		for _, a := range m.Addrs {
			fmt.Fprintf(w, "  Address %v, interface %s, %d in use\n", a.Addr, cmp.Or(a.Interface, "any"), a.InUse)
		}
	}
}
