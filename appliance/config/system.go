package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

const (
	defaultDNSTimeout = 2 * time.Second // of dns server-group
	defaultDNSRetries = 2
	maxDNSServers     = 6
)

// systemCommands are of the box itself: names, clocks.
func systemCommands() []command {
	return []command{
		cmd("asa version <number:word> [<rest:line>]", one, parseVersion),
		cmd("hostname <name:word>", one, func(p *parser, a cli.Args) { p.run.Hostname = a.Get("name") }),
		cmd("domain-name <name:word>", one, func(p *parser, a cli.Args) { p.run.Domain = a.Get("name") }),
		cmd("names", one, func(p *parser, a cli.Args) { p.useNames = true }),
		cmd("no names", one, func(p *parser, a cli.Args) { p.useNames = false }),
		cmd("name <ip:addr> <label:name> [description <text:line>]", by("name $label"), parseName),

		cmd("dns domain-lookup <if>", each, func(p *parser, a cli.Args) {
			if i := p.namedInterface(a.Token("if")); i != nil && !slices.Contains(p.run.DNS.Lookup, i.Name) {
				p.run.DNS.Lookup = append(p.run.DNS.Lookup, i.Name)
			}
		}),
		cmd("dns name-server {<addr>}... [<if>]", by("dns name-server $addr").splits(splitServers), parseNameServer),
		cmd("dns server-group <name>", each.opens(inDNS), func(p *parser, a cli.Args) {
			p.enter(inDNS, 0)
			if a.Get("name") != "DefaultDNS" {
				p.refuse(a.Token("name"), "", "only the server group DefaultDNS is used; move its lines there")
			}
		}),

		cmd("timeout {xlate <t.xlate:time>|pat-xlate <t.pat-xlate:time>|conn <t.conn:time>|"+
			"half-closed <t.half-closed:time>|udp <t.udp:time>|icmp <t.icmp:time>|sip <t.sip:time>|"+
			"sip_media <t.sip_media:time>|sip-invite <t.sip-invite:time>|sip-disconnect <t.sip-disconnect:time>|"+
			"sip-provisional-media <t.sip-provisional-media:time>|tcp-proxy-reassembly <t.tcp-proxy-reassembly:time>|"+
			"sctp <t.sctp:time>|sunrpc <t.sunrpc:time>|h323 <t.h323:time>|h225 <t.h225:time>|mgcp <t.mgcp:time>|mgcp-pat <t.mgcp-pat:time>|"+
			"floating-conn <t.floating-conn:time>|conn-holddown <t.conn-holddown:time>|igp stale-route <t.igp:time>|"+
			"uauth <t.uauth:time> [absolute|inactivity]}...", by("timeout $2").splits(splitGroups(1)), parseTimeout),
		cmd("ssl encryption {<cipher:word>}...", one, parseSSLEncryption),
	}
}

func dnsCommands() []command {
	return append([]command{
		cmd("name-server {<addr>}... [<if>]", by("name-server $addr").splits(splitServers), parseNameServer),
		cmd("domain-name <name:word>", one, func(p *parser, a cli.Args) { p.run.DNS.Domain = a.Get("name") }),
		cmd("timeout <seconds:1-30>", one, func(p *parser, a cli.Args) {
			p.run.DNS.Timeout = time.Duration(a.Int("seconds", 0)) * time.Second
		}),
		cmd("retries <count:0-10>", one, func(p *parser, a cli.Args) { p.run.DNS.Retries = a.Int("count", defaultDNSRetries) }),
	}, inert("names are kept as long as their answers say, and looked up again before that is over",
		"expire-entry-timer minutes <n:1-65535>", "poll-timer minutes <n:1-65535>")...)
}

// parseVersion reads "ASA Version 9.1(7)". Before 8.3 NAT and the addresses in
// access lists meant something else: see legacy.go. (reference/asa-cli.md,
// section 1.)
func parseVersion(p *parser, a cli.Args) {
	v := a.Token("number")
	p.run.Version = v.Text
	if _, _, ok := versionOf(v.Text); !ok {
		p.warn(v, "", "%s is not a version as in 9.1(7); the file is read as of 8.4 to 9.3", v.Text)
	}
}

func parseName(p *parser, a cli.Args) {
	if c := a.Get("label")[0] | 0x20; c < 'a' || c > 'z' {
		p.refuse(a.Token("label"), "", "%s is no label: it must begin with a letter", a.Get("label"))
		return
	}
	addr, _ := p.addr(a.Get("ip"))
	p.run.Names[a.Get("label")] = addr
}

func parseNameServer(p *parser, a cli.Args) {
	via := ""
	if a.Has("if") {
		i := p.namedInterface(a.Token("if"))
		if i == nil {
			return
		}
		via = i.Name
	}
	for _, tok := range a.All("addr") {
		addr, _ := p.addr(tok.Text)
		if via != "" {
			if p.run.DNS.Via == nil {
				p.run.DNS.Via = make(map[netip.Addr]string)
			}
			p.run.DNS.Via[addr] = via
		}
		switch {
		case slices.Contains(p.run.DNS.Servers, addr):
		case len(p.run.DNS.Servers) == maxDNSServers:
			p.refuse(tok, "", "there are %d name servers already, and %[1]d at most; remove one", maxDNSServers)
			return
		default:
			p.run.DNS.Servers = append(p.run.DNS.Servers, addr)
		}
	}
}

func parseTimeout(p *parser, a cli.Args) {
	t := &p.run.Timeouts
	obeyed := false
	for name, where := range map[string]*time.Duration{
		"xlate": &t.Xlate, "pat-xlate": &t.PATXlate, "conn": &t.Conn, "half-closed": &t.HalfClosed, "udp": &t.UDP,
		"icmp": &t.ICMP, "sip": &t.SIP, "sip_media": &t.SIPMedia, "sip-invite": &t.SIPInvite,
		"sip-disconnect": &t.SIPDisconnect, "sip-provisional-media": &t.SIPProvisionalMedia,
		"tcp-proxy-reassembly": &t.TCPProxyReassembly, "sctp": &t.SCTP,
	} {
		if a.Has("t." + name) {
			*where, _ = parseTime(a.Get("t." + name))
			obeyed = true
		}
	}
	var idle []string
	for _, x := range []struct {
		name, why string
		where     *time.Duration
	}{
		{"sunrpc", "there is no such engine", &t.SunRPC}, {"h323", "there is no such engine", &t.H323}, {"h225", "there is no such engine", &t.H225},
		{"mgcp", "there is no such engine", &t.MGCP}, {"mgcp-pat", "there is no such engine", &t.MGCPPAT},
		{"floating-conn", "routes do not change while the box runs", &t.FloatingConn},
		{"conn-holddown", "routes do not change while the box runs", &t.ConnHolddown},
		{"igp", "there is no routing protocol", &t.IGPStale}, {"uauth", "users do not log in to pass", &t.Uauth},
	} {
		if a.Has("t." + x.name) {
			*x.where, _ = parseTime(a.Get("t." + x.name))
			idle = append(idle, x.name+": "+x.why)
		}
	}
	switch why := strings.Join(idle, "; "); {
	case !obeyed:
		p.noEffect(why)
	case why != "":
		p.run.Lines[p.line-1].Why = why
	}
}

// noEffect notes that the line was understood and is kept, and changes nothing.
func (p *parser) noEffect(why string) {
	this := &p.run.Lines[p.line-1]
	this.Kind, this.Why = Inert, why
}

// sslCiphers are the words of ssl encryption. (reference/asa-cli.md, section 9.6.)
var sslCiphers = []string{"3des-sha1", "aes128-sha1", "aes256-sha1", "des-sha1", "null-sha1", "rc4-md5", "rc4-sha1"}

// parseCiphers reads cipher words, which replace those before.
func parseCiphers(p *parser, toks []cli.Token) []string {
	var list []string
	for _, tok := range toks {
		switch {
		case !slices.Contains(sslCiphers, tok.Text):
			p.refuse(tok, "", "%s is no cipher; there are %s", tok.Text, orList(sslCiphers))
		case slices.Contains(list, tok.Text):
			p.refuse(tok, "", "%s stands here twice", tok.Text)
		default:
			list = append(list, tok.Text)
		}
	}
	return list
}

func parseSSLEncryption(p *parser, a cli.Args) {
	p.run.SSLEncryption = parseCiphers(p, a.All("cipher"))
}

// inertCommands are known and change nothing that Patchbay does: they stand in
// nearly every running configuration. (reference/asa-cli.md, section 2.)
func inertCommands() []command {
	var list []command
	add := func(why string, syntax ...string) { list = append(list, inert(why, syntax...)...) }
	add("the consoles work another way or do not need it",
		"[no] aaa authentication {telnet|http} <rest:line>", "[no] aaa authorization http <rest:line>", "[no] aaa accounting <rest:line>",
		"[no] aaa authentication login-history <rest:line>",
		"[no] ssh {version|key-exchange|cipher|scopy|pubkey-chain} <rest:line>", "[no] ssh stricthostkeycheck",
		"[no] telnet <rest:line>", "[no] management-access <if>",
		"[no] password-policy <rest:line>", "key config-key <rest:line>",
		"terminal width <columns:0-511>", "prompt <rest:line>",
		"[no] service password-recovery", "user-identity <rest:line>",
		"quota management-session <n:0-10000>")
	add("there is no web server for ASDM", "[no] http server <rest:line>", "http <addr> <mask> <if>",
		"[no] asdm <rest:line>", "http redirect <rest:line>")
	add("the box asks for no files by FTP", "ftp mode passive", "no ftp mode passive")
	add("the clock is that of the host", "clock <rest:line>", "[no] ntp <rest:line>")
	add("failover is off, and this version has none", "no failover", "no failover wait-disable",
		"[no] monitor-interface <rest:line>", "failover polltime <rest:line>")
	add("there is no SNMP agent", "[no] snmp-server <rest:line>", "snmp-map <name>")
	add("it is so here already", "firewall mode routed", "no firewall transparent", "ssl server-version any",
		"ssl client-version any", "no call-home <rest:line>", "no arp permit-nonconnected", "no mac-address auto")
	add("ARP and ICMP errors keep Patchbay's own times and rates", "icmp unreachable rate-limit <rate:1-100> burst-size <burst:1-10>",
		"arp timeout <seconds:60-4294967>", "arp rate-limit <rate:0-32768>")
	add("the VM image obeys it as it starts, and elsewhere Patchbay is what its host starts", "boot system <rest:line>")
	add("Patchbay starts from what its host gives it", "boot config <rest:line>",
		"[no] config-register <rest:line>", "license smart")
	add("what it counts is not counted in this version", "[no] threat-detection <rest:line>", "access-list alert-interval <n:1-3600>",
		"access-list deny-flow-max <n:1-4096>")
	add("the box serves no SSL of its own but the TLS proxy's", "ssl trust-point <rest:line>", "[no] ssl certificate-authentication <rest:line>")
	add("the box has no IPsec and its settings do nothing", "crypto ipsec security-association <rest:line>",
		"crypto isakmp nat-traversal <rest:line>", "crypto ca trustpool policy", "no crypto isakmp nat-traversal",
		"no sysopt connection permit-vpn")
	return list
}

// notYetCommands are known and would have an effect that Patchbay has not.
func notYetCommands() []command {
	var list []command
	add := func(what string, syntax ...string) { list = append(list, notYet(what, syntax...)...) }
	add("another ssl version", "ssl server-version <v:word>", "ssl client-version <v:word>")
	add("ssl cipher of 9.3(2) and later", "ssl cipher <rest:line>")
	add("transparent firewall mode (V09)", "firewall transparent")
	add("multiple context mode (V09)", "context <rest:line>", "mode multiple", "admin-context <rest:line>", "changeto <rest:line>")
	add("a routing protocol", "router <rest:line>", "route-map <rest:line>", "prefix-list <rest:line>", "[no] rip <rest:line>")
	add("this setting of VPN", "crypto map <rest:line>", "crypto dynamic-map <rest:line>", "crypto ikev1 <rest:line>", "crypto ikev2 <rest:line>",
		"crypto isakmp <rest:line>", "crypto ipsec <rest:line>", "tunnel-group <rest:line>", "group-policy <rest:line>", "vpn <rest:line>")
	add("this sysopt", "sysopt <rest:line>")
	add("logins to pass, which an ASA asks for; without them everybody passes", "aaa authentication {match|include|exclude} <rest:line>",
		"aaa authorization {match|include|exclude} <rest:line>")
	add("AAA servers", "aaa <rest:line>")
	add("hosts that are shut out; deny them in an access list", "shun <rest:line>")
	add("the botnet filter; deny the hosts in an access list", "dynamic-filter drop <rest:line>")
	add("NAT by alias; write nat or static", "alias <rest:line>")
	add("security groups", "cts <rest:line>")
	add("IPv6", "ipv6 <rest:line>")
	add("DNS by another command", "dns {expire-entry-timer|poll-timer|timeout|retries|update|forwarder|trusted-source} <rest:line>",
		"dns-group <name>", "dns-guard")
	add("a static ARP entry", "arp <if> <addr> <mac:word> [alias]")
	add("this", "no ip verify <rest:line>", "ip audit <rest:line>", "uc-ime <rest:line>", "ctl-provider <rest:line>",
		"threat-detection-rate <rest:line>", "service {internal|call-home} [<rest:line>]",
		"sla <rest:line>", "track <rest:line>", "tcp-map <name>", "filter <rest:line>", "cluster <rest:line>", "zone <rest:line>",
		"mac-address <rest:line>", "established <rest:line>", "switch <rest:line>", "license <rest:line>",
		"activation-key <rest:line>", "scansafe <rest:line>", "xlate <rest:line>")
	add("taking this back with no", "no <rest:line>")
	add("clear in a file, which begins empty", "clear <rest:line>")
	return list
}
