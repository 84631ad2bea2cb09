package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

// A placed is a line on its way into a Text.
type placed struct {
	words []word
	nth   int // where among its like it is to stand, from 1; 0: after them
}

// A word of a line. Addresses are kept as such and take the place of their
// names, which a "name" line may change.
type word struct {
	text string
	addr netip.Addr // valid of an address
	name string     // what the syntax calls it, for the templates of a form
}

// spelling puts a line that matched into the ASA's words: keywords in full,
// numbers as the names the ASA prints, times as h:mm:ss. Its
// ports are of the protocol proto where the line does not say it.
func (p *parser) spelling(m *cli.Match[action], proto string) *placed {
	l := new(placed)
	for _, w := range m.Args.Words() {
		x := word{text: w.Text, name: w.Name}
		switch w.Kind {
		case "":
			if w.Text == "tcp" || w.Text == "udp" {
				proto = w.Text
			}
		case "mask":
			if w.Text == "0" {
				x.text = "0.0.0.0"
			}
		case "addr":
			if a, err := p.addr(w.Text); err == nil {
				x.text, x.addr = a.String(), a
			}
		case "port":
			if n, err := parsePort(w.Text); err == nil {
				x.text = PortName(protocols[proto], uint16(n))
			}
		case "proto":
			if n, err := parseProto(w.Text); err == nil {
				x.text = ProtoName(uint8(n))
			}
			proto = x.text
		case "icmptype":
			if n, err := parseICMP(w.Text); err == nil {
				x.text = ICMPTypeName(n)
			}
		case "syslogport":
			if t, n, err := parseSyslogPort(w.Text); err == nil {
				x.text = t.String() + "/" + strconv.Itoa(int(n))
			}
		case "logclass":
			x.text = strings.ToLower(w.Text)
		case "level", "loglevel":
			if n, err := parseLevel(w.Text); err == nil {
				x.text = LevelName(n)
			}
		case "time":
			if t, err := parseTime(w.Text); err == nil {
				x.text = timeText(t)
			}
		case "hexnum":
			if n, ok := parseHexNumber(w.Text); ok {
				x.text = "0x" + strconv.FormatUint(uint64(n), 16)
			}
		case "clock":
			if n, ok := parseClock(w.Text); ok {
				x.text = clockText(n)
			}
		case "hex":
			x.text = strings.ToLower(w.Text)
		case "line":
			x.text = strings.ReplaceAll(strings.TrimSpace(w.Text), "\t", " ")
		default:
			if low, _, ok := strings.Cut(w.Kind, "-"); ok && low != "" && strings.Trim(low, "0123456789") == "" {
				if n, err := strconv.ParseInt(w.Text, 10, 64); err == nil {
					x.text = strconv.FormatInt(n, 10)
				}
			}
		}
		l.words = append(l.words, x)
	}
	if spell := m.Rule.Do.form.spell; spell != nil {
		spell(l)
	}
	return l
}

// protocols are the numbers of those that have ports.
var protocols = map[string]uint8{"tcp": protoTCP, "udp": protoUDP}

// timeText writes h:mm:ss.
func timeText(t time.Duration) string {
	s := int(t / time.Second)
	return strconv.Itoa(s/3600) + ":" + clock2(s/60%60) + ":" + clock2(s%60)
}

func clockText(minutes int) string { return strconv.Itoa(minutes/60) + ":" + clock2(minutes%60) }

func clock2(n int) string { return strconv.Itoa(n/10) + strconv.Itoa(n%10) }

// index returns the place of the word that the syntax calls name, -1 if there
// is none.
func (l *placed) index(name string) int {
	return slices.IndexFunc(l.words, func(w word) bool { return w.name == name })
}

func (l *placed) has(name string) bool { return l.index(name) >= 0 }

// take removes n words from i on.
func (l *placed) take(i, n int) { l.words = slices.Delete(l.words, i, i+n) }

func (l *placed) number(name string) int {
	n, _ := strconv.Atoi(l.words[l.index(name)].text)
	return n
}

// placedEntry takes "line N" out of an entry of an access list, which is where
// it goes, and writes "extended", which may be left out.
func placedEntry(l *placed) {
	if i := l.index("line"); i >= 0 {
		if l.has("number") {
			l.nth = l.number("number")
			l.take(i, 2)
		} else {
			l.take(i, 1)
		}
	}
	for _, w := range []string{"permit", "deny"} {
		if i := l.index(w); i >= 0 && !l.has("extended") {
			l.words = slices.Insert(l.words, i, word{text: "extended", name: "extended"})
		}
	}
}

// placedNAT takes the number out of twice NAT, which is where it goes.
func placedNAT(l *placed) {
	for l.has("number") {
		l.nth = l.number("number")
		l.take(l.index("number"), 1)
	}
}

// spellHardware writes the name of an interface in one word and in full.
func spellHardware(l *placed) {
	i := l.index("hardware")
	if i < 0 {
		return
	}
	unit := ""
	if l.has("unit") {
		unit = l.words[l.index("unit")].text
	}
	if name, _, err := parseHardware(l.words[i].text, unit); err == nil {
		l.words[i].text = name
		l.words = l.words[:i+1]
	}
}

// spellMetric writes the metric of a route, which may be left out.
func spellMetric(l *placed) {
	if l.has("gateway") && !l.has("metric") {
		l.words = slices.Insert(l.words, l.index("gateway")+1, word{text: "1", name: "metric"})
	}
}

func spellHyphens(l *placed) { l.words[len(l.words)-1].text = "proxy-ldc-issuer" }

func spellKeyPair(l *placed) {
	if i := l.index("keypair"); i >= 0 {
		l.words[i].text = "key-pair"
	}
}

// spellZeros writes the 0 of nat before 8.3 in full.
func spellZeros(l *placed) {
	for i := range l.words {
		if l.words[i].name == "0" {
			l.words[i].text = "0.0.0.0"
		}
	}
}

// spellDates writes months and days as names are written.
func spellDates(l *placed) {
	for i := range l.words {
		name := l.words[i].name
		name = name[strings.LastIndexByte(name, '.')+1:]
		if slices.Contains(strings.Split(dayWords+"|"+monthWords, "|"), name) {
			l.words[i].text = strings.ToUpper(name[:1]) + name[1:]
		}
	}
}

// splitGroups makes a line of each group of words after the first n: a keyword
// or two, its argument, and the flags after it.
func splitGroups(n int) func([]word) [][]word {
	flags := []string{"absolute", "inactivity", "reset"}
	return func(words []word) [][]word {
		var lines [][]word
		value := true // the word before ends a group
		for _, w := range words[min(n, len(words)):] {
			flag := slices.Contains(flags, w.text)
			keyword := !flag && strings.Trim(w.text, "0123456789:") != ""
			if keyword && value {
				lines = append(lines, slices.Clone(words[:n]))
			}
			if len(lines) == 0 {
				break
			}
			value = !keyword
			lines[len(lines)-1] = append(lines[len(lines)-1], w)
		}
		if lines == nil {
			return [][]word{words}
		}
		return lines
	}
}

// splitServers makes a line of each name server.
func splitServers(words []word) [][]word {
	first := slices.IndexFunc(words, func(w word) bool { return w.addr.IsValid() })
	last := first
	for last < len(words) && last >= 0 && words[last].addr.IsValid() {
		last++
	}
	var lines [][]word
	for i := first; i >= 0 && i < last; i++ {
		lines = append(lines, slices.Concat(words[:first], words[i:i+1], words[last:]))
	}
	if lines == nil {
		return [][]word{words}
	}
	return lines
}
