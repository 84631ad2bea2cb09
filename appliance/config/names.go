package config

import "strconv"

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

// preferred are the names that the ASA prints where a number has several: by
// protocol and port.
var preferred = map[[2]int]string{
	{protoTCP, 80}: "www", {protoUDP, 80}: "www",
	{protoTCP, 512}: "exec", {protoUDP, 512}: "biff",
	{protoTCP, 513}: "login", {protoUDP, 513}: "who",
	{protoTCP, 514}: "rsh", {protoUDP, 514}: "syslog",
}

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

var portNumbers, protoNumbers, icmpNumbers, levelNumbers = byNumber(portNames), byNumber(protoNames), byNumber(icmpNames), byNumber(levelNames)

// PortName returns the name that a running configuration prints for a port of a
// protocol, or its number. (reference/asa-cli.md, section 6.)
func PortName(proto uint8, port uint16) string {
	if name, ok := preferred[[2]int{int(proto), int(port)}]; ok {
		return name
	}
	if name, ok := portNumbers[int(port)]; ok {
		return name
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
