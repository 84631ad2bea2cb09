package config

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/logging"
)

const (
	maxName       = 128  // bytes of a name of anything
	maxTrustpoint = 64   // bytes of a trustpoint's name (reference/asa-cli.md, section 7)
	maxHours      = 1193 // hours of a timeout; the ASA's largest is 1193:0:0
)

// portNames are the names the ASA has for ports. (reference/asa-cli.md,
// section 6; the ASA's own help for eq.)
var portNames = map[string]int{
	"aol": 5190, "bgp": 179, "biff": 512, "bootpc": 68, "bootps": 67, "chargen": 19, "cifs": 3020,
	"citrix-ica": 1494, "cmd": 514, "ctiqbe": 2748, "daytime": 13, "discard": 9, "dnsix": 195,
	"domain": 53, "echo": 7, "exec": 512, "finger": 79, "ftp": 21, "ftp-data": 20, "gopher": 70,
	"h323": 1720, "hostname": 101, "http": 80, "https": 443, "ident": 113, "imap4": 143, "irc": 194,
	"isakmp": 500, "kerberos": 750, "klogin": 543, "kshell": 544, "ldap": 389, "ldaps": 636,
	"login": 513, "lotusnotes": 1352, "lpd": 515, "mobile-ip": 434, "nameserver": 42,
	"netbios-dgm": 138, "netbios-ns": 137, "netbios-ssn": 139, "nfs": 2049, "nntp": 119, "ntp": 123,
	"pcanywhere-data": 5631, "pcanywhere-status": 5632, "pim-auto-rp": 496, "pop2": 109, "pop3": 110,
	"pptp": 1723, "radius": 1645, "radius-acct": 1646, "rip": 520, "rsh": 514, "rtsp": 554,
	"secureid-udp": 5510, "sip": 5060, "smtp": 25, "snmp": 161, "snmptrap": 162, "sqlnet": 1521,
	"ssh": 22, "sunrpc": 111, "syslog": 514, "tacacs": 49, "talk": 517, "telnet": 23, "tftp": 69,
	"time": 37, "uucp": 540, "who": 513, "whois": 43, "www": 80, "xdmcp": 177,
}

// protoNames are IP protocols by name; "ip" is any.
var protoNames = map[string]int{
	"ip": 0, "icmp": 1, "igmp": 2, "ipinip": 4, "tcp": 6, "igrp": 9, "udp": 17, "gre": 47, "pptp": 47,
	"esp": 50, "ipsec": 50, "ah": 51, "eigrp": 88, "ospf": 89, "nos": 94, "pim": 103, "pcp": 108,
	"snp": 109, "sctp": 132,
}

// icmpNames are ICMP types by name.
var icmpNames = map[string]int{
	"echo-reply": 0, "unreachable": 3, "source-quench": 4, "redirect": 5, "alternate-address": 6,
	"echo": 8, "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11,
	"parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14, "information-request": 15,
	"information-reply": 16, "mask-request": 17, "mask-reply": 18, "traceroute": 30,
	"conversion-error": 31, "mobile-redirect": 32,
}

// levelNames are the syslog severities. (reference/asa-cli.md, section 9.7.)
var levelNames = map[string]int{
	"emergencies": 0, "alerts": 1, "critical": 2, "errors": 3, "warnings": 4, "notifications": 5,
	"informational": 6, "debugging": 7,
}

// lookup finds word among names: as it is, or as the beginning of only one.
func lookup(names map[string]int, word string) (int, bool) {
	word = strings.ToLower(word)
	if n, ok := names[word]; ok {
		return n, true
	}
	found, value := 0, 0
	for name, n := range names {
		if strings.HasPrefix(name, word) && word != "" {
			found++
			value = n
		}
	}
	return value, found == 1
}

// number reads word as a number from low to high, or as one of names.
func number(what, word string, names map[string]int, low, high int) (int, error) {
	if n, err := strconv.Atoi(word); err == nil {
		if n < low || n > high {
			return 0, fmt.Errorf("%s is no %s: %d to %d", word, what, low, high)
		}
		return n, nil
	}
	if n, ok := lookup(names, word); ok {
		return n, nil
	}
	return 0, &unknownError{what, word, names}
}

// An unknownError is a word that is no number and no name of one.
type unknownError struct {
	what, word string
	names      map[string]int
}

func (e *unknownError) Error() string {
	all := make([]string, 0, len(e.names))
	for name := range e.names {
		all = append(all, name)
	}
	slices.Sort(all)
	if near := cli.Nearest(e.word, all); near != "" {
		return fmt.Sprintf("%s is no %s; is it %s?", e.word, e.what, near)
	}
	return fmt.Sprintf("%s is no %s", e.word, e.what)
}

func parsePort(word string) (int, error)  { return number("port", word, portNames, 0, 65535) }
func parseProto(word string) (int, error) { return number("protocol", word, protoNames, 1, 255) }
func parseICMP(word string) (int, error)  { return number("ICMP type", word, icmpNames, 0, 255) }
func parseLevel(word string) (int, error) { return number("logging level", word, levelNames, 0, 7) }

// addr reads an IPv4 address or a label that a name line gave to one. 0 is
// 0.0.0.0, as in "route outside 0 0 203.0.113.1".
func (p *parser) addr(word string) (netip.Addr, error) {
	if p.useNames {
		if a, ok := p.run.Names[word]; ok {
			return a, nil
		}
	}
	a, err := netip.ParseAddr(word)
	switch {
	case word == "0":
		return netip.IPv4Unspecified(), nil
	case err == nil && a.Is4():
		return a, nil
	case err == nil:
		return netip.Addr{}, fmt.Errorf("%s is an IPv6 address; only IPv4 is supported", word)
	case strings.Trim(word, "0123456789.") == "":
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address", word)
	}
	return netip.Addr{}, fmt.Errorf("%s is neither an IPv4 address nor a label from a name line", word)
}

// parseMask reads a network mask as its length.
func parseMask(word string) (int, error) {
	if word == "0" {
		return 0, nil
	}
	a, err := netip.ParseAddr(word)
	if err != nil || !a.Is4() {
		return 0, fmt.Errorf("%s is not a network mask", word)
	}
	b := a.As4()
	m := binary.BigEndian.Uint32(b[:])
	n := bits.LeadingZeros32(^m)
	if m<<n != 0 {
		if m&(m+1) == 0 {
			return 0, fmt.Errorf("%s is not a network mask but a wildcard; write %s", word, maskText(32-bits.OnesCount32(m)))
		}
		return 0, fmt.Errorf("%s is not a network mask: its ones are not all to the left", word)
	}
	return n, nil
}

// maskText writes a mask of n ones.
func maskText(n int) string {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(^uint64(0)<<(32-n)))
	return netip.AddrFrom4(b).String()
}

// parseTime reads h:mm:ss; "0" is 0.
func parseTime(word string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a time; write hours:minutes:seconds as in 0:05:00", word)
	if word == "0" {
		return 0, nil
	}
	parts := strings.Split(word, ":")
	if len(parts) != 3 {
		return 0, bad
	}
	var n [3]int
	for i, s := range parts {
		v, err := strconv.ParseUint(s, 10, 16)
		if err != nil || len(s) > 4 {
			return 0, bad
		}
		n[i] = int(v)
	}
	if n[0] > maxHours || n[1] > 59 || n[2] > 59 {
		return 0, fmt.Errorf("%s is not a time: up to %d hours, 59 minutes and 59 seconds", word, maxHours)
	}
	return time.Duration(n[0])*time.Hour + time.Duration(n[1])*time.Minute + time.Duration(n[2])*time.Second, nil
}

// parsePair reads "(real,mapped)", two interfaces; "any" becomes "".
func parsePair(word string) (real, mapped string, err error) {
	bad := fmt.Errorf("%s is not a pair of interfaces as in (inside,outside)", word)
	inner, ok := strings.CutPrefix(word, "(")
	inner, ok2 := strings.CutSuffix(inner, ")")
	real, mapped, ok3 := strings.Cut(inner, ",")
	if !ok || !ok2 || !ok3 || real == "" || mapped == "" || strings.ContainsAny(real+mapped, "(),") {
		return "", "", bad
	}
	if real == "any" {
		real = ""
	}
	if mapped == "any" {
		mapped = ""
	}
	return real, mapped, nil
}

// hardwareTypes are the interface types that exist here, as written in full.
var hardwareTypes = []string{"Ethernet", "FastEthernet", "GigabitEthernet", "TenGigabitEthernet", "Management"}

// parseHardware reads the name of a hardware interface, in full or abbreviated,
// with or without a space before the number: "Gi0/1.20". vlan tells whether it
// is a sub-interface.
func parseHardware(word, unit string) (name string, sub bool, err error) {
	i := strings.IndexAny(word, "0123456789")
	if i >= 0 && unit == "" {
		word, unit = word[:i], word[i:]
	}
	var full []string
	for _, t := range hardwareTypes {
		if len(word) > 0 && len(word) <= len(t) && strings.EqualFold(t[:len(word)], word) {
			full = append(full, t)
		}
	}
	switch {
	case len(full) == 0:
		return "", false, fmt.Errorf("%s is no interface type; there are %s", word, strings.Join(hardwareTypes, ", "))
	case len(full) > 1:
		return "", false, fmt.Errorf("%s may be %s", word, strings.Join(full, " or "))
	}
	slot, port, ok := strings.Cut(unit, "/")
	port, vlan, sub := strings.Cut(port, ".")
	numbers := []string{slot, port}
	if sub {
		numbers = append(numbers, vlan)
	}
	for _, n := range numbers {
		if v, err := strconv.ParseUint(n, 10, 32); !ok || err != nil || strconv.FormatUint(v, 10) != n {
			return "", false, fmt.Errorf("%q is no number of an interface as in 0/1", unit)
		}
	}
	return full[0] + unit, sub, nil
}

// Hardware returns the name of a hardware interface in full: of "gi0/1"
// "GigabitEthernet0/1". It is an error that there is no such type or number.
func Hardware(name string) (string, error) {
	full, _, err := parseHardware(name, "")
	return full, err
}

// isHostname reports whether word can be a fully qualified name in the DNS. (RFC
// 1123, section 2.1; underscores are common.)
func isHostname(word string) bool {
	if len(word) > 253 || !strings.Contains(word, ".") || strings.Trim(word, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(word, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range []byte(label) {
			if !(c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z') {
				return false
			}
		}
	}
	return true
}

// checkGroup says why word does not name a group of a kind. It tells a group of
// addresses from one of ports where either may stand: a name that is none yet
// is taken for addresses or services.
func (p *parser) checkGroup(kind, word string) error {
	i, ok := p.groups[word]
	if !ok && kind == "portgroup" {
		return fmt.Errorf("there is no object-group service %s", word)
	}
	if !ok {
		return nil
	}
	k := p.run.Groups[i].Kind
	switch {
	case kind == "netgroup" && k != NetworkGroup,
		kind == "svcgroup" && k != ServiceGroup && k != ProtocolGroup,
		kind == "portgroup" && k != ServiceGroup && k != ICMPGroup:
		return fmt.Errorf("object-group %s is of kind %v", word, k)
	}
	return nil
}

// check is the cli.Check of the language: why word is no argument of a kind.
func (p *parser) check(kind, word string) (err error) {
	switch kind {
	case "addr":
		_, err = p.addr(word)
	case "mask":
		_, err = parseMask(word)
	case "time":
		_, err = parseTime(word)
	case "port":
		_, err = parsePort(word)
	case "proto":
		_, err = parseProto(word)
	case "icmptype":
		_, err = parseICMP(word)
	case "level":
		_, err = parseLevel(word)
	case "loglevel":
		if _, no := parseLevel(word); no != nil && !slices.ContainsFunc(p.run.Logging.Lists, func(l logging.List) bool { return l.Name == word }) {
			err = fmt.Errorf("%w; and there is no logging list %s", no, word)
		}
	case "logclass":
		if !slices.ContainsFunc(logging.Classes, func(c logging.Class) bool { return strings.EqualFold(c.Name, word) }) {
			err = fmt.Errorf("%s is no class of messages", word)
		}
	case "msgrange":
		_, _, err = parseMessageRange(word)
	case "syslogport":
		_, _, err = parseSyslogPort(word)
	case "pair":
		_, _, err = parsePair(word)
	case "paren":
		if inner, ok := strings.CutPrefix(word, "("); !ok || !strings.HasSuffix(inner, ")") || strings.ContainsAny(inner[:len(inner)-1], "(),") || len(inner) < 2 {
			err = fmt.Errorf("%s is no interface as in (inside)", word)
		}
	case "addrrange":
		_, err = p.addrRange(word)
	case "clock":
		if _, ok := parseClock(word); !ok {
			err = fmt.Errorf("%s is no time of day as in 17:30", word)
		}
	case "hexnum":
		if _, ok := parseHexNumber(word); !ok {
			err = fmt.Errorf("%s is no hexadecimal number", word)
		}
	case "netgroup", "svcgroup", "portgroup":
		err = p.checkGroup(kind, word)
	case "fqdn":
		if !isHostname(word) {
			err = fmt.Errorf("%s is no name in the DNS as in ucm.example.com", word)
		}
	case "engine":
		if !otherEngine(word) {
			err = fmt.Errorf("%s is no engine that has a map", word)
		}
	case "mail":
		if !isMail(word) {
			err = fmt.Errorf("%s is no mail address as in pb@example.com", word)
		}
	case "mailhost":
		if _, no := p.addr(word); no != nil && !isHostname(word) && !isHostname(word+".local") {
			err = fmt.Errorf("%s is neither an IPv4 address nor a name", word)
		}
	case "hex":
		if word == "" || strings.Trim(strings.ToLower(word), "0123456789abcdef") != "" {
			err = fmt.Errorf("%s is not hexadecimal", word)
		}
	case "nameif":
		if p.run.Interface(word) == nil {
			err = fmt.Errorf("there is no interface %.80s", word)
		}
	case "name", "if":
		switch {
		case len(word) > maxName:
			err = fmt.Errorf("a name of %d bytes is too long: %d at most", len(word), maxName)
		case strings.ContainsAny(word, "(),?\"'"):
			err = fmt.Errorf("%s is no name: it must not contain any of (),?\"'", word)
		}
	default:
		panic("config: syntax names unknown kind " + kind)
	}
	return err
}
