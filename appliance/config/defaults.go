package config

import (
	"slices"
	"strings"
	"sync"

	"patchbay/appliance/cli"
)

// defaultLines are what holds where no line says otherwise, by mode. Such a line
// is not kept: "show running-config" does not have it and "show running-config
// all" has. (reference/asa-cli.md, sections 8 to 10.)
var defaultLines = [modeCount][]string{
	global: {
		"no logging enable", "no logging timestamp", "no logging buffered", "no logging console", "no logging monitor",
		"no logging trap", "no logging history", "no logging asdm", "logging buffer-size 4096",
		"logging facility 20", "logging queue 512", "no logging permit-hostdown",
		"no same-security-traffic permit inter-interface", "no same-security-traffic permit intra-interface",
		"no nat-control", "sysopt connection tcpmss 1380", "sysopt connection tcpmss minimum 0",
	},
	inInterface:        {"no shutdown", "no management-only"},
	inCTL:              {"shutdown", "sast 2"},
	inTLSProxy:         {"server authenticate-client"},
	inMediaTermination: {"rtp-min-port 16384 rtp-max-port 32767"},
	inPhoneProxy: {"cluster-mode nonsecure", "timeout secure-phones 0:05:00", "disable service-settings",
		"no cipc security-mode authenticated", "phone-certificate expired permit", "secure-phones readmit",
		"sccp version-max 19", "no tftp single-port"},
	inSIPParameters: {"im", "no ip-address-privacy", "traffic-non-sip", "no rtp-conformance", "max-forwards-validation action drop",
		"no state-checking", "no strict-header-validation", "no software-version", "no uri-non-sip"},
	inSkinnyParameters: {"no enforce-registration", "message-id max 0x181", "no rtp-conformance", "sccp-prefix-len min 4",
		"timeout media 0:05:00", "timeout signaling 1:00:00"},
}

// hidden are the defaults that "show running-config all" does not write: each
// is the absence of a command.
func hidden(l *line) bool {
	return l.words[0].text == "no" && (l.in == global || l.in == inSIPParameters || l.in == inSkinnyParameters)
}

var parsedDefaults = sync.OnceValue(func() *[modeCount][]*line {
	all := new([modeCount][]*line)
	p := newParser("")
	for id, texts := range defaultLines {
		for _, text := range texts {
			m, err := asa().modes[id].grammar.Match(text, func(kind, word string) error { return p.check(kind, word) })
			if err != nil {
				panic("config: default " + text + ": " + err.Error())
			}
			all[id] = append(all[id], p.linesOf(modeID(id), m, "")[0])
		}
	}
	return all
})

// isDefault reports whether l says what holds without it: it says the same, or
// "no" of another value than the default.
func isDefault(l *line) bool {
	if l.in == global && strings.HasPrefix(l.key, "logging message ") {
		return l.words[0].text != "no" && len(l.words) == 3 // no level
	}
	d := defaultOf(l)
	if d == nil {
		return false
	}
	return d.text() == l.text() || l.words[0].name == "no" && d.words[0].name != "no" && d.text() != textOf(l.words[1:])
}

// defaultOf returns what holds of the item of l without it, nil if nothing is
// said of it.
func defaultOf(l *line) *line {
	i := slices.IndexFunc(parsedDefaults()[l.in], func(d *line) bool { return d.key == l.key })
	if i < 0 {
		return nil
	}
	return parsedDefaults()[l.in][i]
}

// withDefaults returns lines with those that hold without being said.
func withDefaults(mode modeID, lines []*line) []*line {
	for _, d := range parsedDefaults()[mode] {
		if !hidden(d) && !slices.ContainsFunc(lines, func(l *line) bool { return l.key == d.key }) {
			lines = with(lines, d, 0)
		}
	}
	if mode == global {
		for _, l := range timeoutDefaults() {
			if !slices.ContainsFunc(lines, func(o *line) bool { return o.key == l.key }) {
				lines = with(lines, l, 0)
			}
		}
	}
	return lines
}

// timeoutDefaults are the idle times of defaultTimeouts, as lines.
var timeoutDefaults = sync.OnceValue(func() []*line {
	d := defaultTimeouts()
	var words []string
	for _, t := range []struct {
		name string
		text string
	}{
		{"xlate", timeText(d.Xlate)}, {"pat-xlate", timeText(d.PATXlate)}, {"conn", timeText(d.Conn)}, {"half-closed", timeText(d.HalfClosed)},
		{"udp", timeText(d.UDP)}, {"icmp", timeText(d.ICMP)}, {"sip", timeText(d.SIP)}, {"sip_media", timeText(d.SIPMedia)},
		{"sip-invite", timeText(d.SIPInvite)}, {"sip-disconnect", timeText(d.SIPDisconnect)},
		{"sip-provisional-media", timeText(d.SIPProvisionalMedia)}, {"tcp-proxy-reassembly", timeText(d.TCPProxyReassembly)},
		{"sctp", timeText(d.SCTP)}, {"sunrpc", timeText(d.SunRPC)}, {"h323", timeText(d.H323)}, {"h225", timeText(d.H225)},
		{"mgcp", timeText(d.MGCP)}, {"mgcp-pat", timeText(d.MGCPPAT)}, {"uauth", timeText(d.Uauth) + " absolute"},
		{"floating-conn", timeText(d.FloatingConn)}, {"conn-holddown", timeText(d.ConnHolddown)}, {"igp stale-route", timeText(d.IGPStale)},
	} {
		words = append(words, t.name, t.text)
	}
	p := newParser("")
	m, err := asa().modes[global].grammar.Match("timeout "+strings.Join(words, " "), p.check)
	if err != nil {
		panic("config: default timeouts: " + err.Error())
	}
	return p.linesOf(global, m, "")
})

// linesOf returns the lines that are kept for a line that matched in a mode.
func (p *parser) linesOf(in modeID, m *cli.Match[action], proto string) []*line {
	list, _ := p.placedLines(in, m, proto)
	return list
}

// placedLines is linesOf with the place that the line asks for, 0 if none.
func (p *parser) placedLines(in modeID, m *cli.Match[action], proto string) (list []*line, nth int) {
	f := m.Rule.Do.form
	s := p.spelling(m, proto)
	split := [][]word{s.words}
	if f.split != nil && s.words[0].name != "no" {
		split = f.split(s.words)
	}
	for _, words := range split {
		l := newLine(words, f.key(words), in, f.mode)
		l.inert = m.Rule.Do.inert != ""
		list = append(list, l)
	}
	return list, s.nth
}
