package config

import (
	"slices"
	"strconv"
)

// ParsePort reads a port by name or number, 0 to 65535.
func ParsePort(word string) (uint16, error) {
	n, err := parsePort(word)
	return uint16(n), err
}

// ParseProto reads an IP protocol by name or number; "ip" is 0.
func ParseProto(word string) (uint8, error) {
	n, err := parseProto(word)
	return uint8(n), err
}

// ParseICMPType reads an ICMP type by name or number.
func ParseICMPType(word string) (uint8, error) {
	n, err := parseICMP(word)
	return uint8(n), err
}

// ParseMask reads a network mask as its length.
func ParseMask(word string) (int, error) { return parseMask(word) }

// MaskText writes the network mask of n ones.
func MaskText(n int) string { return maskText(n) }

// only are the names of ports that the ASA prints for one protocol; those of
// portNames that stand in neither are printed for both.
var only = map[uint8][]string{
	protoTCP: {"aol", "bgp", "chargen", "citrix-ica", "ctiqbe", "daytime", "exec", "finger", "ftp", "ftp-data", "gopher", "h323",
		"hostname", "https", "ident", "imap4", "irc", "klogin", "kshell", "ldap", "ldaps", "login", "lotusnotes", "lpd",
		"netbios-ssn", "nntp", "pcanywhere-data", "pop2", "pop3", "pptp", "rsh", "rtsp", "smtp", "sqlnet", "ssh", "telnet",
		"uucp", "whois"},
	protoUDP: {"biff", "bootpc", "bootps", "dnsix", "isakmp", "mobile-ip", "nameserver", "netbios-dgm", "netbios-ns", "ntp",
		"pcanywhere-status", "radius", "radius-acct", "rip", "secureid-udp", "snmp", "snmptrap", "syslog", "tftp", "time",
		"who", "xdmcp"},
}

// synonyms are names of ports that the ASA takes and prints as another.
var synonyms = []string{"http", "cmd"}

// byNumber turns the tables of words.go around. Of two names the first in the
// alphabet is taken.
func byNumber(names map[string]int) map[int]string {
	m := make(map[int]string)
	for name, n := range names {
		if before, ok := m[n]; !ok || name < before {
			m[n] = name
		}
	}
	return m
}

var protoNumbers, icmpNumbers, levelNumbers = byNumber(protoNames), byNumber(icmpNames), byNumber(levelNames)

// PortName returns the name that a running configuration prints for a port of a
// protocol, or its number; of another protocol than TCP and UDP, as 0, the name
// that both have. (reference/asa-cli.md, section 6.)
func PortName(proto uint8, port uint16) string {
	for name, n := range portNames {
		if n != int(port) || slices.Contains(synonyms, name) {
			continue
		}
		tcp, udp := slices.Contains(only[protoTCP], name), slices.Contains(only[protoUDP], name)
		if tcp && proto == protoTCP || udp && proto == protoUDP || !tcp && !udp {
			return name
		}
	}
	return strconv.Itoa(int(port))
}

// ProtoName returns the name of an IP protocol, or its number; 0 is "ip".
func ProtoName(proto uint8) string {
	if name, ok := protoNumbers[int(proto)]; ok {
		return name
	}
	return strconv.Itoa(int(proto))
}

// ICMPTypeName returns the name of an ICMP type, or its number.
func ICMPTypeName(typ int) string {
	if name, ok := icmpNumbers[typ]; ok {
		return name
	}
	return strconv.Itoa(typ)
}

// LevelName returns the name of a syslog severity, 0 to 7.
func LevelName(level int) string { return levelNumbers[level] }
