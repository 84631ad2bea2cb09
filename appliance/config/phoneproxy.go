package config

import (
	"time"

	"patchbay/appliance/cli"
)

const (
	defaultSAST         = 2
	maxSAST             = 5
	defaultMinPort      = 16384 // of RTP (reference/asa-cli.md, section 8.3)
	defaultMaxPort      = 32767
	lowestRTPPort       = 1024
	defaultSecurePhones = 5 * time.Minute
	defaultTFTPPort     = 69
	defaultProxyPort    = 8080
	maxTFTPServers      = 5
	defaultSCCPVersion  = 19
)

// phoneProxyGlobals begin the parts of the phone proxy. (reference/asa-cli.md,
// section 8.)
func phoneProxyGlobals() []command {
	return []command{
		cmd("ctl-file <name>", each.opens(inCTL), func(p *parser, a cli.Args) {
			p.enter(inCTL, findOrAdd(&p.run.CTLs, func(c *CTLFile) bool { return c.Name == a.Get("name") },
				func() CTLFile {
					return CTLFile{Line: p.line, Name: a.Get("name"), SAST: defaultSAST, Shutdown: true}
				}))
		}),
		cmd("tls-proxy maximum-sessions <n:1-100000>", one, func(p *parser, a cli.Args) { p.run.MaxTLSSessions = a.Int("n", 0) }),
		cmd("tls-proxy <name>", each.opens(inTLSProxy), func(p *parser, a cli.Args) {
			p.enter(inTLSProxy, findOrAdd(&p.run.TLSProxies, func(t *TLSProxy) bool { return t.Name == a.Get("name") },
				func() TLSProxy { return TLSProxy{Line: p.line, Name: a.Get("name"), AuthenticateClient: true} }))
		}),
		cmd("media-termination <name>", each.opens(inMediaTermination), func(p *parser, a cli.Args) {
			p.enter(inMediaTermination, findOrAdd(&p.run.MediaTerminations,
				func(m *MediaTermination) bool { return m.Name == a.Get("name") },
				func() MediaTermination {
					return MediaTermination{Line: p.line, Name: a.Get("name"), MinPort: defaultMinPort, MaxPort: defaultMaxPort}
				}))
		}),
		cmd("phone-proxy <name>", each.opens(inPhoneProxy), func(p *parser, a cli.Args) {
			p.enter(inPhoneProxy, findOrAdd(&p.run.PhoneProxies, func(x *PhoneProxy) bool { return x.Name == a.Get("name") },
				func() PhoneProxy {
					return PhoneProxy{Line: p.line, Name: a.Get("name"), SecurePhones: defaultSecurePhones,
						ExpiredCertificates: true, Readmit: true, SCCPVersionMax: defaultSCCPVersion}
				}))
		}),
	}
}

func ctlCommands() []command {
	return []command{
		cmd("record-entry {capf|cucm|cucm-tftp|tftp} trustpoint <tp:name> address {<addr>|<fqdn>} [domain-name <domain:word>]...", each, parseRecord),
		cmd("sast <n:0-999>", one, func(p *parser, a cli.Args) {
			n := a.Int("n", defaultSAST)
			if n < 1 || n > maxSAST {
				p.refuse(a.Token("n"), "V30", "a CTL file has 1 to %d SAST tokens, not %d; without this line it has %d", maxSAST, n, defaultSAST)
				return
			}
			p.ctl().SAST = n
		}),
		cmd("[no] shutdown", one, func(p *parser, a cli.Args) { p.ctl().Shutdown = !a.Has("no") }),
		cmd("cluster-ctl-file <path:word>", one, func(p *parser, a cli.Args) { p.ctl().ClusterFile = a.Get("path") }),
		cmd("no cluster-ctl-file [<path:word>]", one, func(p *parser, a cli.Args) { p.ctl().ClusterFile = "" }),
	}
}

// ctl returns the CTL file that the mode is about.
func (p *parser) ctl() *CTLFile { return &p.run.CTLs[p.item] }

func parseRecord(p *parser, a cli.Args) {
	r := Record{Line: p.line, Trustpoint: a.Get("tp"), FQDN: a.Get("fqdn"), Domain: a.Get("domain")}
	for _, role := range []string{"capf", "cucm", "cucm-tftp", "tftp"} {
		if a.Has(role) {
			r.Role = role
		}
	}
	if a.Has("addr") {
		r.Addr, _ = p.addr(a.Get("addr"))
	}
	if domains := a.All("domain"); len(domains) > 1 {
		p.refuse(domains[1], "V33", "a record entry has one domain-name at most; remove the others")
		return
	}
	p.ctl().Records = append(p.ctl().Records, r)
}

func tlsProxyCommands() []command {
	// t returns the TLS proxy that the mode is about.
	t := func(p *parser) *TLSProxy { return &p.run.TLSProxies[p.item] }
	return []command{
		cmd("server trust-point <tp:name>", one, func(p *parser, a cli.Args) { t(p).ServerTrustpoint = a.Get("tp") }),
		cmd("[no] server authenticate-client", one, func(p *parser, a cli.Args) { t(p).AuthenticateClient = !a.Has("no") }),
		cmd("client trust-point <tp:name>", one, func(p *parser, a cli.Args) { t(p).ClientTrustpoint = a.Get("tp") }),
		cmd("client ldc issuer <tp:name>", one, func(p *parser, a cli.Args) { t(p).LDCIssuer = a.Get("tp") }),
		cmd("client ldc {key-pair|keypair} <label:name>", by("client ldc key-pair").spelled(spellKeyPair), func(p *parser, a cli.Args) { t(p).LDCKeyPair = a.Get("label") }),
		cmd("client cipher-suite {<cipher:word>}...", one, func(p *parser, a cli.Args) {
			t(p).ClientCiphers = parseCiphers(p, a.All("cipher"))
		}),
	}
}

func mediaTerminationCommands() []command {
	return []command{
		cmd("address <addr> [interface <if>]", each, func(p *parser, a cli.Args) {
			m := &p.run.MediaTerminations[p.item]
			addr, _ := p.addr(a.Get("addr"))
			m.Addrs = append(m.Addrs, MTA{p.line, addr, a.Get("if")})
		}),
		cmd("rtp-min-port <min:word> rtp-max-port <max:word>", one, parseRTPPorts),
		cmd("no rtp-min-port [<min:0-65535> rtp-max-port <max:0-65535>]", one, func(p *parser, a cli.Args) {
			m := &p.run.MediaTerminations[p.item]
			m.MinPort, m.MaxPort = defaultMinPort, defaultMaxPort
		}),
	}
}

func parseRTPPorts(p *parser, a cli.Args) { p.rtpPorts(a, &p.run.MediaTerminations[p.item]) }

func (p *parser) rtpPorts(a cli.Args, m *MediaTermination) {
	for _, name := range []string{"min", "max"} {
		if n := a.Int(name, 0); n < lowestRTPPort || n > 65535 {
			p.refuse(a.Token(name), "V49", "%s is no RTP port: %d to 65535", a.Get(name), lowestRTPPort)
			return
		}
	}
	low, high := a.Int("min", 0), a.Int("max", 0)
	if low >= high {
		p.refuse(a.Token("max"), "V49", "the RTP ports from %d to %d are none; the lower must come first", low, high)
		return
	}
	m.MinPort, m.MaxPort = uint16(low), uint16(high)
}

func phoneProxyCommands() []command {
	// pp returns the phone proxy that the mode is about.
	pp := func(p *parser) *PhoneProxy { return &p.run.PhoneProxies[p.item] }
	list := []command{
		cmd("media-termination <name>", one, func(p *parser, a cli.Args) {
			if before := pp(p).MediaTermination; before != "" && before != a.Get("name") {
				p.refuse(a.Token("name"), "V03", "the phone proxy has media-termination %s already; it has one", before)
				return
			}
			pp(p).MediaTermination = a.Get("name")
		}),
		cmd("tftp-server address <addr> [<port:word>] interface <if>", each, parseTFTPServer),
		cmd("ctl-file <name>", one, func(p *parser, a cli.Args) {
			if before := pp(p).CTL; before != "" && before != a.Get("name") {
				p.refuse(a.Token("name"), "V02", "the phone proxy has ctl-file %s already; it has one", before)
				return
			}
			pp(p).CTL = a.Get("name")
		}),
		cmd("tls-proxy <name>", one, func(p *parser, a cli.Args) { pp(p).TLSProxy = a.Get("name") }),
		cmd("cluster-mode {nonsecure|mixed}", one, func(p *parser, a cli.Args) { pp(p).Mixed = a.Has("mixed") }),
		cmd("timeout secure-phones <time>", one, func(p *parser, a cli.Args) { pp(p).SecurePhones, _ = parseTime(a.Get("time")) }),
		cmd("[no] disable service-settings", one, func(p *parser, a cli.Args) { pp(p).KeepServiceSettings = a.Has("no") }),
		cmd("[no] cipc security-mode authenticated", one, func(p *parser, a cli.Args) { pp(p).CIPCAuthenticated = !a.Has("no") }),
		cmd("proxy-server address {<addr>|<fqdn>} [<port:1-65535>] interface <if>", one, func(p *parser, a cli.Args) {
			s := &ProxyServer{Line: p.line, Host: a.Get("fqdn"), Port: uint16(a.Int("port", defaultProxyPort)), Interface: a.Get("if")}
			if a.Has("addr") {
				s.Addr, _ = p.addr(a.Get("addr"))
			}
			pp(p).ProxyServer = s
		}),

		// Patchbay's own.
		cmd("phone-certificate expired {permit|deny}", one, func(p *parser, a cli.Args) { pp(p).ExpiredCertificates = a.Has("permit") }),
		cmd("secure-phones {readmit|refuse}", one, func(p *parser, a cli.Args) { pp(p).Readmit = a.Has("readmit") }),
		cmd("sccp version-max <n:3-22>", one, func(p *parser, a cli.Args) { pp(p).SCCPVersionMax = a.Int("n", defaultSCCPVersion) }),
		cmd("[no] tftp single-port", one, func(p *parser, a cli.Args) { pp(p).TFTPSinglePort = !a.Has("no") }),
	}
	return append(list, cmd("media-termination address <addr> [rtp-min-port <min:word> rtp-max-port <max:word>]", by("media-termination"), parseOldMedia))
}

// parseOldMedia reads the media termination of before 8.2(1), which stands in
// the phone proxy. It becomes a media-termination with the phone proxy's name.
func parseOldMedia(p *parser, a cli.Args) {
	x := &p.run.PhoneProxies[p.item]
	switch major, minor, ok := versionOf(p.run.Version); {
	case !ok || major > 8 || major == 8 && minor > 2:
		p.refuse(a.Token("media-termination"), "V50", "this is the form of before 8.2(1); write a media-termination of its own and its name here")
		return
	case x.MediaTermination != "":
		p.refuse(a.Token("media-termination"), "V03", "the phone proxy has media-termination %s already; it has one", x.MediaTermination)
		return
	case minor == 2 && major == 8:
		p.warn(a.Token("media-termination"), "V50", "8.2(1) and later want a media-termination of its own in place of this line")
	}
	addr, _ := p.addr(a.Get("addr"))
	p.run.MediaTerminations = append(p.run.MediaTerminations, MediaTermination{Line: p.line, Name: x.Name, Within: true,
		MinPort: defaultMinPort, MaxPort: defaultMaxPort, Addrs: []MTA{{Line: p.line, Addr: addr}}})
	x.MediaTermination = x.Name
	if a.Has("min") {
		p.rtpPorts(a, &p.run.MediaTerminations[len(p.run.MediaTerminations)-1])
	}
}

func parseTFTPServer(p *parser, a cli.Args) {
	x := &p.run.PhoneProxies[p.item]
	s := TFTPServer{Line: p.line, Port: defaultTFTPPort, Interface: a.Get("if")}
	s.Addr, _ = p.addr(a.Get("addr"))
	if a.Has("port") {
		n, err := parsePort(a.Get("port"))
		if err != nil || n == 0 {
			p.refuse(a.Token("port"), "V23", "%s is no port: 1 to 65535, and %d if none is given", a.Get("port"), defaultTFTPPort)
			return
		}
		s.Port = uint16(n)
	}
	if len(x.TFTPServers) == maxTFTPServers {
		p.refuse(a.Token("tftp-server"), "V20", "phone proxy %s has %d TFTP servers already, and more are not possible", x.Name, maxTFTPServers)
		return
	}
	x.TFTPServers = append(x.TFTPServers, s)
}
