package config

import "patchbay/appliance/cli"

const (
	noAAAServer = "no AAA server is asked: the users of this configuration are those there are"
	noFailover  = "there is no failover: this box stands alone"
	noIPv6      = "IPv6 is not forwarded"
	noNetFlow   = "there is no NetFlow"
	noSLA       = "routes are not tracked: they stay"
	noHook      = "no command is run by itself"
	noDHCP      = "there is no DHCP server: hosts get their addresses elsewhere"
	noSGT       = "there are no security groups"
	noModule    = "there is no such module, and the line lets pass what one would look at"
	noQueues    = "there are no queues: packets leave in the order in which they come"
	noBotnet    = "there is no botnet filter, which without \"drop\" only watches"
	noRegex     = "no engine asks for it"
	noAutoLogin = "nobody logs in to pass"
	noMulticast = "multicast is not forwarded"
	noWebCache  = "web traffic goes its own way, past caches and filters"
)

// farCommands are of what an ASA does and this version does not, without which
// nothing passes that should not: what else there is stays refused in
// notYetCommands.
func farCommands() []command {
	var list []command
	add := func(why, help string, syntax ...string) { list = append(list, idle(why, help, syntax...)...) }
	begin := func(why, help, syntax string, m modeID) { list = append(list, idleStanza(why, help, syntax, m)) }

	begin(noAAAServer, "AAA server: kept, without effect", "aaa-server <group:word> protocol <proto:word>", inAAAServer)
	begin(noAAAServer, "AAA server: kept, without effect", "aaa-server <group:word> [<where:paren>] host <at:word> [<rest:line>]", inAAAServer)
	begin(noAAAServer, "Attributes of LDAP: kept, without effect", "ldap attribute-map <name>", inLDAPMap)
	add(noAutoLogin, "Login to pass: kept, without effect", "aaa proxy-limit <rest:line>", "aaa mac-exempt match <name>", "aaa authentication listener <rest:line>",
		"aaa authentication secure-http-client", "mac-list <name> <rest:line>", "virtual {http|telnet} <rest:line>")

	c := cmd("failover", one, func(p *parser, a cli.Args) {
		p.noEffect(noFailover)
		p.warn(a.Token("failover"), "", "there is no failover in this version: the box stands alone, with the addresses of the primary unit")
	})
	c.Help = "Failover: kept, without effect"
	list = append(list, c)
	add(noFailover, "Failover: kept, without effect", "failover {lan|link|interface|key|replication|mac|standby|ipsec|health-check|timeout|active|exec} [<rest:line>]")

	add(noIPv6, "IPv6: kept, without effect", "ipv6 {access-list|icmp|route|nd|neighbor|enforce-eui64|local|dhcprelay|unicast-routing} <rest:line>",
		"ipv6-vpn-filter <rest:line>")
	add(noNetFlow, "NetFlow: kept, without effect", "flow-export <rest:line>", "[no] logging flow-export-syslogs <rest:line>")
	begin(noSLA, "Probe of a route: kept, without effect", "sla monitor <n:1-2147483647>", inSLA)
	add(noSLA, "Probe of a route: kept, without effect", "sla monitor schedule <rest:line>", "track <n:1-500> rtr <rest:line>")
	begin(noHook, "Commands that run by themselves: kept, without effect", "event manager applet <name>", inApplet)

	c = cmd("dhcpd enable <if>", each, func(p *parser, a cli.Args) {
		p.noEffect(noDHCP)
		p.warn(a.Token("enable"), "", "there is no DHCP server in this version: hosts on %s must get their addresses elsewhere", a.Get("if"))
	})
	c.Help = "DHCP server: kept, without effect"
	list = append(list, c)
	add(noDHCP, "DHCP server: kept, without effect",
		"dhcpd {address|dns|domain|lease|option|ping_timeout|wins|auto_config|update} <rest:line>")
	c = cmd("dhcprelay enable <if>", each, func(p *parser, a cli.Args) {
		p.noEffect(noDHCP)
		p.warn(a.Token("enable"), "", "there is no DHCP relay in this version: hosts on %s must get their addresses elsewhere", a.Get("if"))
	})
	c.Help = "DHCP relay: kept, without effect"
	list = append(list, c)
	add(noDHCP, "DHCP relay: kept, without effect", "dhcprelay {server|setroute|timeout|information} <rest:line>")

	add(noSGT, "Security groups: kept, without effect", "cts {sxp|server-group|role-based|refresh} <rest:line>")
	add(noBotnet, "Botnet filter: kept, without effect", "dynamic-filter {enable|updater-client|use-database|ambiguous-is-black} [<rest:line>]")
	begin(noBotnet, "Names that are known", "dynamic-filter {whitelist|blacklist}", inFilterList)
	begin(noQueues, "Priority queue: kept, without effect", "priority-queue <if>", inPriorityQueue)
	add(noRegex, "Regular expression: kept, without effect", "regex <name> <rest:line>")
	begin(noRegex, "Class of an engine's messages: kept, without effect", "class-map type {regex|management} [match-any] <name>", inIdleClass)
	begin(noRegex, "Class of an engine's messages: kept, without effect", "class-map type inspect <engine:word> [match-all|match-any] <name>", inIdleClass)
	add(noMulticast, "Multicast: kept, without effect", "multicast-routing", "igmp <rest:line>", "pim <rest:line>", "mroute <rest:line>")
	add(noWebCache, "Web caches and filters: kept, without effect", "wccp <rest:line>", "url-server <rest:line>", "url-block <rest:line>", "url-cache <rest:line>")
	add("the box is attacked as it is: what would drop is refused", "Signatures of attacks", "ip audit signature <n:1-65535> disable",
		"ip audit name <policy:name> {info|attack}", "ip audit name <policy:name> {info|attack} action alarm", "ip audit {info|attack} action alarm")
	list = append(list, notYet("attack signatures by which packets are dropped", "ip audit name <policy:name> {info|attack} action {drop|reset|alarm} <rest:line>",
		"ip audit name <policy:name> {info|attack} action {drop|reset}", "ip audit {info|attack} action <rest:line>")...)
	begin("the box is no CA", "CA of the box: kept, without effect", "crypto ca server", inCAServer)
	add("certificates are checked by the trustpoints of this configuration alone", "Pool of trusted CAs: kept, without effect",
		"crypto ca trustpool <rest:line>", "crypto ca permit-weak-crypto")
	add("messages are kept in memory and sent to hosts, not written to files", "Files of messages: kept, without effect", "[no] logging {flash-bufferwrap|ftp-bufferwrap|emblem}",
		"logging ftp-server <rest:line>", "logging {flash-maximum-allocation|flash-minimum-free|savelog} <rest:line>", "logging debug-trace persistent")
	add("the curves and groups are those of the program's TLS", "Groups of the key exchange", "ssl dh-group <rest:line>", "ssl ecdh-group <rest:line>")
	return list
}

// idleStanzaModes are the modes of stanzas without effect, and what stands there.
func idleStanzaModes() []struct {
	mode
	id       modeID
	commands []command
} {
	type entry = struct {
		mode
		id       modeID
		commands []command
	}
	of := func(id modeID, name, prompt string, parent modeID, commands []command) entry {
		return entry{mode{name: name, prompt: prompt, parent: parent}, id, commands}
	}
	return []entry{
		of(inVPNPolicy, "crypto policy", "(config-crypto-policy)", global, vpnPolicyCommands()),
		of(inTunnelGroup, "tunnel-group", "(config-tunnel-group)", global, tunnelGroupCommands()),
		of(inGroupPolicy, "group-policy", "(config-group-policy)", global, groupPolicyCommands()),
		of(inGroupWebVPN, "webvpn", "(config-group-webvpn)", inGroupPolicy, webVPNSettings()),
		of(inWebVPN, "webvpn", "(config-webvpn)", global, webVPNCommands()),
		of(inUserWebVPN, "webvpn", "(config-username-webvpn)", inUser, webVPNSettings()),
		of(inNACPolicy, "nac-policy", "(config-nac-policy-nac-framework)", global, nacPolicyCommands()),
		of(inAccessRecord, "dynamic-access-policy-record", "(config-dynamic-access-policy-record)", global, accessRecordCommands()),
		of(inRecordWebVPN, "webvpn", "(config-dap-webvpn)", inAccessRecord, webVPNSettings()),
		of(inVPNBalancing, "vpn load-balancing", "(config-load-balancing)", global, vpnBalancingCommands()),
		of(inCertificateMap, "crypto ca certificate map", "(config-ca-cert-map)", global, certificateMapCommands()),
		of(inAAAServer, "aaa-server", "(config-aaa-server-host)", global, aaaServerCommands()),
		of(inLDAPMap, "ldap attribute-map", "(config-ldap-attribute-map)", global, several(noAAAServer, "Attributes of LDAP", "map-name", "map-value")),
		of(inSLA, "sla monitor", "(config-sla-monitor)", global, settings(noSLA, "Probe of a route", "type", "num-packets", "request-data-size", "tos",
			"timeout", "threshold", "frequency")),
		of(inApplet, "event manager applet", "(config-applet)", global, several(noHook, "Commands that run by themselves", "event", "action", "output", "description")),
		of(inFilterList, "dynamic-filter", "(config-llist)", global, several(noBotnet, "Names that are known", "name", "address")),
		of(inPriorityQueue, "priority-queue", "(config-priority-queue)", global, settings(noQueues, "Priority queue", "queue-limit", "tx-ring-limit")),
		of(inIdleClass, "class-map", "(config-cmap)", global, several(noRegex, "What is in the class", "match", "description")),
		of(inCAServer, "crypto ca server", "(config-ca-server)", global, settings("the box is no CA", "CA of the box", "shutdown", "smtp", "cdp-url",
			"database", "issuer-name", "keysize", "lifetime", "otp", "publish-crl", "renewal-reminder", "subject-name-default", "enrollment-retrieval")),
	}
}

func aaaServerCommands() []command {
	const help = "AAA server: kept, without effect"
	list := settings(noAAAServer, help, "key", "timeout", "retry-interval", "authentication-port", "accounting-port", "accounting-mode", "max-failed-attempts",
		"reactivation-mode", "radius-common-pw", "mschapv2-capable", "acl-netmask-convert", "interim-accounting-update", "merge-dacl", "dynamic-authorization",
		"server-port", "server-type", "ldap-base-dn", "ldap-dn", "ldap-scope", "ldap-naming-attribute", "ldap-login-dn", "ldap-login-password", "ldap-attribute-map",
		"ldap-over-ssl", "ldap-group-base-dn", "group-search-timeout", "sasl-mechanism", "kerberos-realm", "nt-auth-domain-controller", "sdi-version",
		"sdi-pre-5-slave", "authorize-only", "ad-agent-mode", "webvpn", "action-uri", "auth-cookie-name", "hidden-parameter", "password-parameter",
		"user-parameter", "start-url", "request-timeout", "max-retry-attempts")
	return list
}

// idle is inert with help for the last of the words that each syntax begins with.
func idle(why, help string, syntax ...string) []command {
	list := inert(why, syntax...)
	for i := range list {
		list[i].Help = help
	}
	return list
}

// idleStanza is a command that begins a stanza without effect.
func idleStanza(why, help, syntax string, m modeID) command {
	c := cmd(syntax, each.opens(m), func(p *parser, _ cli.Args) {
		p.enter(m, 0)
		p.noEffect(why)
	})
	c.Help = help
	return c
}
