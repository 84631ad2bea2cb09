package config

import (
	"slices"
	"strings"
	"sync"
)

// sections is the order of "show running-config": the first words of lines. A
// line belongs to the longest that it begins with; what is in none stands where
// "" is. (reference/asa-cli.md, sections 2 and 4, and the running
// configurations that it was made from.)
var sections = []string{
	"asa version",
	"hostname", "domain-name", "enable password", "passwd", "firewall", "names", "name", "ip local",
	"interface",
	"boot", "banner", "ftp mode", "clock", "dns domain-lookup", "dns server-group", "dns name-server", "dns",
	"same-security-traffic",
	"object", "object-group", "time-range",
	"access-list",
	"pager", "logging enable", "logging timestamp", "logging list", "logging", "mtu", "ip verify", "fragment", "failover", "monitor-interface",
	"icmp unreachable", "icmp", "asdm", "arp timeout", "arp",
	"nat-control", "global",
	"nat", objectNAT, natAfterAuto, "static",
	"access-group", "route",
	"timeout xlate", "timeout pat-xlate", "timeout conn", "timeout half-closed", "timeout udp", "timeout sctp", "timeout icmp",
	"timeout sunrpc", "timeout h323", "timeout h225", "timeout mgcp", "timeout mgcp-pat",
	"timeout sip", "timeout sip_media", "timeout sip-invite", "timeout sip-disconnect",
	"timeout sip-provisional-media", "timeout uauth", "timeout tcp-proxy-reassembly", "timeout floating-conn",
	"timeout conn-holddown", "timeout igp",
	"dynamic-access-policy-record", "user-identity", "ldap", "aaa-server", "aaa", "http server", "http", "snmp-server", "service", "sysopt", "",
	"crypto key", "crypto ipsec", "crypto dynamic-map", "crypto map", "crypto isakmp", "crypto ca trustpoint", "crypto ca enroll", "crypto ca authenticate",
	"crypto ca trustpool", "crypto ca certificate chain", "crypto",
	"telnet", "ssh", "console", "management-access", "dhcpd", "dhcprelay", "tls-proxy maximum-sessions",
	"threat-detection", "ntp", "smtp-server", "ssl encryption", "ssl", "webvpn", "group-policy", "username", "tunnel-group",
	"ctl-file", "tls-proxy", "media-termination", "phone-proxy",
	"class-map", "policy-map type", "policy-map", "service-policy",
	"prompt", "privilege", "call-home",
}

// Two sections that are not of first words: the second stanza of an object, and
// twice NAT that is searched after it.
const (
	objectNAT    = "object network with nat"
	natAfterAuto = "nat after-auto"
)

// below is the order of lines in a stanza, by their first words; those that are
// in no list stand in the order in which they came.
var below = [modeCount][]string{
	inInterface: {"description", "management-only", "shutdown", "speed", "duplex", "vlan", "nameif", "security-level", "ip address"},
	inObject:    {"host", "subnet", "range", "fqdn", "description", "nat"},
	inDNS:       {"retries", "timeout", "name-server", "domain-name"},
	inTrustpoint: {"enrollment", "proxy-ldc-issuer", "fqdn", "email", "subject-name", "serial-number", "ip-address", "password",
		"keypair", "crl"},
	inCTL:              {"cluster-ctl-file", "record-entry", "sast", "shutdown"},
	inTLSProxy:         {"server trust-point", "server", "client trust-point", "client ldc issuer", "client ldc key-pair", "client cipher-suite"},
	inMediaTermination: {"address", "rtp-min-port"},
	inPhoneProxy: {"media-termination", "tftp-server", "tls-proxy", "ctl-file", "cluster-mode", "timeout", "disable", "cipc",
		"proxy-server"},
	inClassMap:    {"description", "match"},
	inPolicyMap:   {"description", "", "class class-default"},
	inPolicyClass: {"inspect", "set connection", "set connection timeout", "police"},
	inSIPMap:      {"description", "parameters"},
	inSkinnyMap:   {"description", "parameters"},
}

// ranks are the places of first words in the lists above.
var ranks = sync.OnceValue(func() map[modeID]map[string]int {
	all := make(map[modeID]map[string]int)
	for id, list := range below {
		all[modeID(id)] = rankMap(list)
	}
	all[global] = rankMap(sections)
	return all
})

func rankMap(list []string) map[string]int {
	m := make(map[string]int)
	for i, s := range list {
		m[s] = i
	}
	if _, ok := m[""]; !ok {
		m[""] = len(list)
	}
	return m
}

// rankOf is where l stands among the lines beside it.
func rankOf(l *line) int {
	m := ranks()[l.in]
	if l.in == global && l.group == natAfterAuto {
		return m[natAfterAuto]
	}
	words := l.words
	if len(words) > 1 && words[0].text == "no" {
		words = words[1:]
	}
	for n := min(3, len(words)); n > 0; n-- {
		if r, ok := m[strings.ToLower(textOf(words[:n]))]; ok {
			return r
		}
	}
	return m[""]
}

// timeoutsBeside are the timeouts that the ASA writes on the line of the one
// before.
var timeoutsBeside = []string{
	"half-closed", "udp", "sctp", "icmp", "h323", "h225", "mgcp", "mgcp-pat", "sip_media", "sip-invite", "sip-disconnect", "uauth",
}

// timeoutRow returns the first of the timeouts that may stand on one line with
// that of the name.
func timeoutRow(name string) string {
	row := ""
	for _, s := range sections {
		if t, ok := strings.CutPrefix(s, "timeout "); ok {
			if !slices.Contains(timeoutsBeside, t) {
				row = t
			}
			if t == name {
				return row
			}
		}
	}
	return name
}

// joined returns lines as they are written: those that the ASA writes on one
// line are one.
func joined(lines []*line) []*line {
	var out []*line
	for _, l := range lines {
		if n := shared(l); n > 0 && len(out) > 0 {
			if last := out[len(out)-1]; shared(last) == n && last.in == l.in &&
				(l.in != global || timeoutRow(last.words[1].text) == timeoutRow(l.words[1].text)) {
				both := *last
				both.of = append(slices.Clip(last.parts()), l)
				both.words = slices.Concat(last.words, l.words[n:])
				out[len(out)-1] = &both
				continue
			}
		}
		out = append(out, l)
	}
	return out
}

// parts returns the lines that are written as l.
func (l *line) parts() []*line {
	if l.of == nil {
		return []*line{l}
	}
	return l.of
}

// shared is how many words lines like l share that are written as one: "timeout",
// "set connection" and "set connection timeout"; 0 for all others.
func shared(l *line) int {
	switch {
	case l.words[0].name == "no" || l.inert:
	case l.in == global && l.words[0].text == "timeout":
		return 1
	case l.in == inPolicyClass && len(l.words) > 3 && l.words[0].text == "set" && l.words[2].text == "timeout":
		return 3
	case l.in == inPolicyClass && len(l.words) > 3 && l.words[0].text == "set":
		return 2
	}
	return 0
}
