package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/logging"
)

// loggingCommands are what is logged where. (reference/asa-cli.md, section 9.7.)
func loggingCommands() []command {
	return append([]command{
		cmd("[no] logging enable", one, func(p *parser, a cli.Args) { p.run.Logging.Enable = !a.Has("no") }),
		cmd("[no] logging timestamp [rfc5424]", one, func(p *parser, a cli.Args) {
			p.run.Logging.Timestamp, p.run.Logging.RFC5424 = !a.Has("no"), a.Has("rfc5424") && !a.Has("no")
		}),
		cmd("logging {buffered|console|monitor|trap|history|asdm} <filter:loglevel>", by("logging $2"), parseLogging),
		cmd("no logging {buffered|console|monitor|trap|history|asdm}", by("logging $2"), parseLogging),
		cmd("logging buffer-size <bytes:4096-1048576>", one, func(p *parser, a cli.Args) {
			p.run.Logging.BufferSize = a.Int("bytes", logging.DefaultBuffer)
		}),
		cmd("logging list <msglist:name> level <severity:level> [class <msgclass:logclass>]", each, parseLogList),
		cmd("logging list <msglist:name> message <numbers:msgrange>", each, parseLogList),
		cmd("logging host <if> <addr> [<at:syslogport>] [format {emblem|rfc5424}] [secure]", by("logging host $if $addr"), parseLogHost),
		cmd("logging facility <n:16-23>", one, func(p *parser, a cli.Args) { p.run.Logging.Facility = a.Int("n", logging.DefaultFacility) }),
		cmd("logging device-id {hostname|ipaddress <if> [system]|string <text:line>}", one, parseDeviceID),
		cmd("logging queue <n:0-8192>", one, func(p *parser, a cli.Args) {
			if p.run.Logging.Queue = a.Int("n", 0); p.run.Logging.Queue == 0 { // as long as there is memory
				p.run.Logging.Queue = logging.MaxQueue
			}
		}),
		cmd("[no] logging permit-hostdown", one, func(p *parser, a cli.Args) { p.run.Logging.PermitHostDown = !a.Has("no") }),
		cmd("[no] logging message <number:100000-999999>", by("logging message $number"), parseLogMessage),
		cmd("logging message <number:100000-999999> level <severity:level>", by("logging message $number level"), parseLogMessage),
	}, inert("the box has nothing that it would change", "no logging hide username", "logging hide username", "logging debug-trace",
		"logging asdm-buffer-size <n:100-512>", "logging rate-limit <rest:line>", "logging device-id {context-name|cluster-id}",
		"[no] logging standby")...)
}

func parseLogging(p *parser, a cli.Args) {
	var f logging.Filter
	if word := a.Get("filter"); a.Has("filter") {
		if level, err := parseLevel(word); err == nil {
			f = logging.AtLevel(level)
		} else {
			f = logging.Filter{On: true, List: word}
		}
	}
	l := &p.run.Logging
	for name, where := range map[string]*logging.Filter{"buffered": &l.Buffered, "console": &l.Console, "monitor": &l.Monitor,
		"trap": &l.Trap, "history": &l.History, "asdm": &l.ASDM} {
		if a.Has(name) {
			*where = f
		}
	}
	switch {
	case a.Has("history"):
		p.noEffect("there is no SNMP agent")
	case a.Has("asdm"):
		p.noEffect("there is no web server for ASDM")
	}
}

func parseLogList(p *parser, a cli.Args) {
	name := a.Token("msglist")
	if _, err := parseLevel(name.Text); err == nil {
		p.refuse(name, "", "%s is a level and cannot be the name of a list", name.Text)
		return
	}
	lists := &p.run.Logging.Lists
	i := findOrAdd(lists, func(l *logging.List) bool { return l.Name == name.Text }, func() logging.List { return logging.List{Name: name.Text} })
	var part logging.Part
	if a.Has("numbers") {
		part.From, part.To, _ = parseMessageRange(a.Get("numbers"))
	} else {
		part.Level, _ = parseLevel(a.Get("severity"))
		part.Class = strings.ToLower(a.Get("msgclass"))
	}
	(*lists)[i].Parts = append((*lists)[i].Parts, part)
}

// parseMessageRange reads "302013" or "302013-302016".
func parseMessageRange(word string) (from, to int, err error) {
	first, last, isRange := strings.Cut(word, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || len(first) != 6 || len(last) != 6 || from < 100000 || to < from {
		return 0, 0, fmt.Errorf("%s is no message as in 302013, nor messages as in 302013-302016", word)
	}
	return from, to, nil
}

// parseSyslogPort reads "udp/514" or "tcp/1470"; older boxes write the number of
// the protocol.
func parseSyslogPort(word string) (t logging.Transport, port uint16, err error) {
	proto, number, _ := strings.Cut(strings.ToLower(word), "/")
	switch proto {
	case "udp", "17":
	case "tcp", "6":
		t = logging.TCP
	default:
		return 0, 0, fmt.Errorf("%s is no port as in udp/514 or tcp/1470", word)
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return 0, 0, fmt.Errorf("%s is no port as in udp/514 or tcp/1470: want 1 to 65535 after the stroke", word)
	}
	return t, uint16(n), nil
}

func parseLogHost(p *parser, a cli.Args) {
	i := p.namedInterface(a.Token("if"))
	addr, _ := p.addr(a.Get("addr"))
	h := logging.Host{Addr: addr, Port: logging.DefaultUDPPort, RFC5424: a.Has("rfc5424")}
	if a.Has("at") {
		h.Transport, h.Port, _ = parseSyslogPort(a.Get("at"))
	}
	if a.Has("secure") {
		if h.Transport != logging.TCP {
			p.refuse(a.Token("secure"), "", "secure is TLS, which needs a TCP port: logging host %s %s tcp/6514 secure", a.Get("if"), a.Get("addr"))
			return
		}
		h.Transport = logging.TLS
	}
	if i == nil {
		return
	}
	h.Interface = i.Name
	if a.Has("emblem") {
		p.run.Lines[p.line-1].Why = "format emblem: messages are sent in the ASA's own format"
	}
	hosts := &p.run.Logging.Hosts
	*hosts = slices.DeleteFunc(*hosts, func(o logging.Host) bool { return o.Interface == h.Interface && o.Addr == addr })
	*hosts = append(*hosts, h)
}

func parseDeviceID(p *parser, a cli.Args) {
	d := &p.run.Logging.Device
	switch {
	case a.Has("hostname"):
		*d = logging.Device{Kind: "hostname"}
	case a.Has("ipaddress"):
		if i := p.namedInterface(a.Token("if")); i != nil {
			*d = logging.Device{Kind: "ipaddress", Value: i.Name}
		}
	default:
		*d = logging.Device{Kind: "string", Value: strings.Trim(strings.TrimSpace(a.Get("text")), `"`)}
	}
}

func parseLogMessage(p *parser, a cli.Args) {
	n := a.Int("number", 0)
	m := &p.run.Logging.Messages
	i := findOrAdd(m, func(c *logging.Change) bool { return c.Number == n }, func() logging.Change { return logging.Change{Number: n} })
	c := &(*m)[i]
	if a.Has("level") {
		c.Moved = true
		c.Level, _ = parseLevel(a.Get("severity"))
	} else {
		c.Disabled = a.Has("no")
	}
	if *c == (logging.Change{Number: n}) {
		*m = slices.Delete(*m, i, i+1)
	}
}

// LogSettings returns how to log, with the box's addresses put in, and what the
// box is called in messages.
func (r *Running) LogSettings() (logging.Settings, logging.Names) {
	s, n := r.Logging, logging.Names{Host: r.Hostname}
	switch d := s.Device; d.Kind {
	case "hostname":
		n.Device = r.Hostname
	case "string":
		n.Device = d.Value
	case "ipaddress":
		if a := r.addrOf(d.Value); a.IsValid() {
			n.Device = a.String()
		}
	}
	s.Hosts = slices.Clone(s.Hosts)
	for i := range s.Hosts {
		s.Hosts[i].From = r.addrOf(s.Hosts[i].Interface)
	}
	return s, n
}

// addrOf returns the address of an interface that is up, not valid if there is
// none.
func (r *Running) addrOf(nameif string) netip.Addr {
	if i := r.Interface(nameif); i != nil && !i.Shutdown {
		return i.Addr.Addr()
	}
	return netip.Addr{}
}
