package importer

import (
	"regexp"
	"strings"
)

// rowOfHex is a row of a certificate. No command has only such digits.
var rowOfHex = regexp.MustCompile(`^[0-9a-f ]+$`)

// deep are commands that say what they are only with further words: as many as
// the number.
var deep = map[string]int{
	"aaa": 2, "anyconnect": 2, "asdm": 2, "authentication": 2, "call-home": 2, "clock": 2, "crypto": 2, "enable": 2, "crypto ca": 3,
	"crypto ipsec": 3, "crypto key": 3, "dhcpd": 2, "dhcprelay": 2, "dns": 2, "dynamic-filter": 2, "failover": 2, "filter": 2,
	"flow-export": 2, "icmp": 2, "inspect": 2, "ip": 2, "ip verify": 3, "ipv6": 2, "logging": 2, "match": 2, "object": 2,
	"object-group": 2, "policy-map type inspect": 4, "policy-map type": 2, "class-map type": 3, "router": 2, "service": 2,
	"set": 2, "set connection": 3, "snmp-server": 2, "snmp-server enable": 3, "ssl": 2, "switchport": 2, "sysopt": 2, "sysopt connection": 3,
	"threat-detection": 2, "timeout": 2, "vpdn": 2, "vpnclient": 2, "xlate": 2, "client": 2, "cts": 2, "ospf": 2,
	"record-entry": 2, "server": 2, "eigrp": 2, "user-identity": 2, "cluster-mode": 2, "ssh": 2,
}

// head returns the words of a line that say which command it is: "logging host",
// "access-list extended".
func head(text string) string {
	words := strings.Fields(strings.ToLower(text))
	if len(words) == 0 {
		return ""
	}
	if rowOfHex.MatchString(strings.Join(words, " ")) {
		return "certificate"
	}
	if words[0] == "no" && len(words) > 1 {
		return "no " + head(strings.Join(words[1:], " "))
	}
	if words[0] == "access-list" && len(words) > 2 {
		kind := words[2]
		switch kind {
		case "permit", "deny":
			kind = "extended"
		}
		return "access-list " + kind
	}
	n := 1
	for i := 1; i <= len(words); i++ {
		if d, ok := deep[strings.Join(words[:i], " ")]; ok {
			n = d
		}
	}
	n = min(n, len(words))
	for n > 1 && strings.ContainsAny(words[n-1][:1], "0123456789") {
		n-- // an address
	}
	first, _, _ := strings.Cut(strings.Join(words[:n], " "), ":")
	return first
}
