package config

import "patchbay/appliance/cli"

const (
	noVPN      = "there is no VPN"
	helpVPN    = "VPN: kept, without effect"
	warnVPN    = "there is no VPN in this version: the line is kept and does nothing"
	warnCrypto = "there is no VPN in this version: what crypto map %s would encrypt leaves %s in the clear, as routes and access lists have it; " +
		"see that nothing is routed there which must not be read"
)

// vpnCommands are of IPsec and SSL VPN. No tunnel is ever built and nobody logs
// in through one, so the lines change nothing; where a line would put a tunnel to
// work, a warning says so.
func vpnCommands() []command {
	var list []command
	add := func(syntax ...string) { list = append(list, idle(noVPN, helpVPN, syntax...)...) }
	begin := func(m modeID, syntax ...string) {
		for _, s := range syntax {
			list = append(list, idleStanza(noVPN, helpVPN, s, m))
		}
	}
	warned := func(syntax, help, format string, names ...string) {
		c := cmd(syntax, each, func(p *parser, a cli.Args) {
			p.noEffect(noVPN)
			var args []any
			for _, n := range names {
				args = append(args, a.Get(n))
			}
			p.warn(cli.Split(p.text)[0], "", format, args...)
		})
		c.Help = help
		list = append(list, c)
	}
	warned("crypto map <cmap:name> interface <if>", helpVPN, warnCrypto, "cmap", "if")
	for _, s := range []string{"crypto isakmp enable <if>", "crypto ikev1 enable <if>", "crypto ikev2 enable <if> [<rest:line>]"} {
		warned(s, helpVPN, warnVPN)
	}
	begin(inVPNPolicy, "crypto isakmp policy <n:1-65535>", "crypto ikev1 policy <n:1-65535>", "crypto ikev2 policy <n:1-65535>",
		"crypto ipsec ikev2 ipsec-proposal <name>", "crypto ipsec profile <name>")
	add("crypto map <cmap:name> <n:1-65535> <rest:line>", "crypto map <cmap:name> client <rest:line>",
		"crypto dynamic-map <cmap:name> <n:1-65535> <rest:line>",
		"crypto isakmp {identity|aggressive-mode|am-disable|disconnect-notify|ipsec-over-tcp|reload-wait|keepalive} [<rest:line>]",
		"crypto isakmp nat-traversal [<seconds:10-3600>]",
		"crypto ikev1 {am-disable|ipsec-over-tcp|limit|reload-wait} [<rest:line>]",
		"crypto ikev2 {cookie-challenge|fragmentation|limit|notify|redirect|remote-access|remote-authentication} [<rest:line>]",
		"crypto ipsec transform-set <name> <rest:line>", "crypto ipsec ikev1 transform-set <name> <rest:line>",
		"crypto ipsec ikev2 {sa-strength-enforcement|replay} [<rest:line>]",
		"crypto ipsec inner-routing-lookup", "isakmp <rest:line>", "ipsec-udp <rest:line>",
		"sysopt ipsec pl-compatible", "sysopt uauth allow-http-cache", "no vpn-addr-assign <rest:line>", "vpn-addr-assign <rest:line>", "vpn-sessiondb <rest:line>",
		"vpnclient <rest:line>", "vpdn <rest:line>", "l2tp <rest:line>", "eou <rest:line>", "vpnsetup <rest:line>",
		"tunnel-group-map <rest:line>", "group-policy <policy:name> {internal|external} [<rest:line>]",
		"csd <rest:line>", "anyconnect-custom-attr <rest:line>", "anyconnect-custom-data <rest:line>", "anyconnect <rest:line>")
	typed := idle(noVPN, helpVPN, "tunnel-group <tunnel:word> type <kind:word>")
	typed[0].Do.form = by("tunnel-group $tunnel type")
	list = append(list, typed...)
	begin(inTunnelGroup, "tunnel-group <tunnel:word> {general-attributes|ipsec-attributes|webvpn-attributes|ppp-attributes}")
	begin(inGroupPolicy, "group-policy <policy:name> attributes")
	begin(inWebVPN, "webvpn")
	begin(inNACPolicy, "nac-policy <name> nac-framework")
	begin(inAccessRecord, "dynamic-access-policy-record <name>")
	begin(inVPNBalancing, "vpn load-balancing")
	begin(inCertificateMap, "crypto ca certificate map [<name>] <n:1-65535>")
	return list
}

// settings are lines of a stanza without effect: one of each first word.
func settings(why, help string, words ...string) []command {
	var list []command
	for _, w := range words {
		c := cmd("[no] "+w+" [<rest:line>]", one, nil)
		c.Help, c.Do.inert = help, why
		list = append(list, c)
	}
	return list
}

// several are settings of which there may be many with the same first word.
func several(why, help string, words ...string) []command {
	list := settings(why, help, words...)
	for i := range list {
		list[i].Do.form = each
	}
	return list
}

func vpnPolicyCommands() []command {
	return append(settings(noVPN, helpVPN, "authentication", "encryption", "hash", "integrity", "group", "prf", "lifetime", "set", "description"),
		several(noVPN, helpVPN, "protocol")...)
}

func tunnelGroupCommands() []command {
	list := settings(noVPN, helpVPN, "address-pool", "ipv6-address-pool", "authentication-server-group", "authorization-server-group",
		"accounting-server-group", "authorization-required", "authentication-attr-from-server", "default-group-policy", "dhcp-server",
		"nat-assigned-to-public-ip", "password-management", "strip-group", "strip-realm", "username-from-certificate", "scep-enrollment",
		"secondary-authentication-server-group", "override-account-disable", "annotation",
		"pre-shared-key", "peer-id-validate", "chain", "trust-point", "radius-with-expiry", "authentication", "customization",
		"dns-group", "hic-fail-group-policy", "nbns-server", "pre-fill-username", "proxy-auth", "radius-reject-message", "override-svc-download",
		"without-csd", "saml", "secondary-pre-fill-username", "secondary-username-from-certificate")
	return append(list, several(noVPN, helpVPN, "ikev1", "ikev2", "isakmp", "group-alias", "group-url")...)
}

// groupPolicySettings are of a group policy, and most of them of a user.
var groupPolicySettings = []string{"vpn-access-hours", "vpn-simultaneous-logins", "vpn-idle-timeout", "vpn-session-timeout", "vpn-filter",
	"vpn-tunnel-protocol", "vpn-framed-ip-address", "vpn-framed-ip-netmask", "vpn-framed-ipv6-address", "vpn-group-policy", "group-lock",
	"password-storage", "memberof"}

func groupPolicyCommands() []command {
	list := settings(noVPN, helpVPN, groupPolicySettings...)
	list = append(list, settings(noVPN, helpVPN, "wins-server", "dns-server", "dhcp-network-scope", "dhcp-intercept", "ip-comp", "ipsec-udp", "ipsec-udp-port", "pfs",
		"re-xauth", "split-tunnel-policy", "split-tunnel-network-list", "split-tunnel-all-dns", "ipv6-split-tunnel-policy", "ipv6-vpn-filter",
		"default-domain", "split-dns", "banner", "user-authentication", "user-authentication-idle-timeout", "secure-unit-authentication",
		"leap-bypass", "ip-phone-bypass", "nem", "backup-servers", "msie-proxy", "address-pools", "ipv6-address-pools", "client-firewall",
		"smartcard-removal-disconnect", "gateway-fqdn", "client-bypass-protocol", "nac-settings", "nac", "nac-default-acl", "nac-reval-period",
		"nac-sq-period", "scep-forwarding-url", "security-group-tag", "vlan", "periodic-authentication", "intercept-dhcp", "vpn-idle-timeout")...)
	list = append(list, several(noVPN, helpVPN, "client-access-rule", "anyconnect-custom")...)
	return append(list, idleStanza(noVPN, helpVPN, "webvpn", inGroupWebVPN))
}

// webVPNSettings are of SSL VPN as a whole, of a group policy and of a user.
func webVPNSettings() []command {
	list := settings(noVPN, helpVPN, "url-list", "functions", "homepage", "html-content-filter", "port-forward-name", "sso-server", "customization",
		"deny-message", "keep-alive-ignore", "http-comp", "http-proxy", "https-proxy", "hidden-shares", "file-browsing", "file-entry", "url-entry", "filter", "auto-signon",
		"storage-objects", "storage-key", "post-max-size", "upload-max-size", "download-max-size", "unix-auth-gid", "unix-auth-uid", "user-storage",
		"always-on-vpn", "activex-relay", "smart-tunnel-tray")
	return append(list, several(noVPN, helpVPN, "svc", "anyconnect", "port-forward", "smart-tunnel", "proxy-bypass")...)
}

func webVPNCommands() []command {
	c := cmd("enable <if> [<rest:line>]", each, func(p *parser, _ cli.Args) {
		p.noEffect(noVPN)
		p.warn(cli.Split(p.text)[0], "", "%s", warnVPN)
	})
	c.Help = helpVPN
	list := append([]command{c}, webVPNSettings()...)
	list = append(list, settings(noVPN, helpVPN, "tunnel-group-list", "tunnel-group-preference", "port", "dtls", "default-idle-timeout", "default-language",
		"default-authorization", "authorization-dn-attributes", "authentication", "memory-size", "title", "logo", "csd", "hostscan", "onscreen-keyboard",
		"rewrite", "cache", "error-recovery", "internal-password", "csp-rule", "keepout", "accounting-server-group", "authentication-server-group",
		"character-encoding", "mus", "nbns-server", "http-headers", "java-trustpoint", "saml", "portal-access-rule", "apcf", "no-pasv")...)
	return append(list, several(noVPN, helpVPN, "import", "revert", "certificate-group-map", "error", "anyconnect-essentials", "file-encoding", "internal")...)
}

func nacPolicyCommands() []command {
	return settings(noVPN, helpVPN, "reval-period", "sq-period", "default-acl", "authentication-server-group", "exempt-list")
}

func accessRecordCommands() []command {
	list := settings(noVPN, helpVPN, "description", "priority", "user-message", "action", "action-attribute")
	list = append(list, several(noVPN, helpVPN, "network-acl")...)
	return append(list, idleStanza(noVPN, helpVPN, "webvpn", inRecordWebVPN))
}

func vpnBalancingCommands() []command {
	return settings(noVPN, helpVPN, "cluster", "priority", "participate", "redirect-fqdn", "nat", "interface")
}

func certificateMapCommands() []command {
	return several(noVPN, helpVPN, "subject-name", "issuer-name", "alt-subject-name", "extended-key-usage")
}
