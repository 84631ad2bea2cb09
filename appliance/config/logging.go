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
		cmd("logging {buffered|console|monitor|trap|history|asdm|mail} <filter:loglevel>", by("logging $2"), parseLogging),
		cmd("no logging {buffered|console|monitor|trap|history|asdm|mail}", by("logging $2"), parseLogging),
		cmd("logging class <msgclass:logclass> {{buffered|console|monitor|trap|history|asdm|mail} <severity:level>}...",
			by("logging class $msgclass $4").splits(splitClasses), parseLogClass),
		cmd("logging from-address <mailfrom:mail>", one, func(p *parser, a cli.Args) { p.run.Logging.MailFrom = a.Get("mailfrom") }),
		cmd("logging recipient-address <mailto:mail> [level <severity:level>]", by("logging recipient-address $mailto"), parseRecipient),
		cmd("smtp-server <primary:mailhost> [<backup:mailhost>]", one, func(p *parser, a cli.Args) {
			p.run.Logging.MailServers = nil
			for _, name := range []string{"primary", "backup"} {
				if s := a.Get(name); s != "" {
					if addr, err := p.addr(s); err == nil {
						s = addr.String()
					}
					p.run.Logging.MailServers = append(p.run.Logging.MailServers, s)
				}
			}
		}),
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
		"trap": &l.Trap, "history": &l.History, "asdm": &l.ASDM, "mail": &l.Mail} {
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

// destinations are the words of the language for them.
var destinations = map[string]logging.Destination{"buffered": logging.Buffer, "console": logging.Console, "monitor": logging.Sessions,
	"trap": logging.Hosts, "history": logging.History, "asdm": logging.ASDM, "mail": logging.Mail}

func parseLogClass(p *parser, a cli.Args) {
	words := cli.Split(p.text)[3:]
	names := a.Names()[3:]
	for i := 0; i+1 < len(names); i += 2 {
		x := logging.ClassFilter{Class: strings.ToLower(a.Get("msgclass")), To: destinations[names[i]]}
		x.Level, _ = parseLevel(words[i+1].Text)
		list := &p.run.Logging.Classes
		at := findOrAdd(list, func(o *logging.ClassFilter) bool { return o.Class == x.Class && o.To == x.To }, func() logging.ClassFilter { return x })
		(*list)[at] = x
	}
}

// splitClasses makes a line of each destination of a class.
func splitClasses(words []word) [][]word {
	var lines [][]word
	for i := 3; i+1 < len(words); i += 2 {
		lines = append(lines, slices.Concat(words[:3], words[i:i+2]))
	}
	if lines == nil {
		return [][]word{words}
	}
	return lines
}

func parseRecipient(p *parser, a cli.Args) {
	r := logging.Recipient{Address: a.Get("mailto"), HasLevel: a.Has("severity")}
	if r.HasLevel {
		r.Level, _ = parseLevel(a.Get("severity"))
	}
	list := &p.run.Logging.Recipients
	i := findOrAdd(list, func(o *logging.Recipient) bool { return o.Address == r.Address }, func() logging.Recipient { return r })
	(*list)[i] = r
}

// mail warns of mail that nobody would get.
func (v *validator) mail() {
	l := &v.run.Logging
	if !l.Mail.On && !slices.ContainsFunc(l.Classes, func(c logging.ClassFilter) bool { return c.To == logging.Mail }) {
		return
	}
	var missing []string
	if l.MailFrom == "" {
		missing = append(missing, "logging from-address")
	}
	if len(l.Recipients) == 0 {
		missing = append(missing, "logging recipient-address")
	}
	if len(l.MailServers) == 0 {
		missing = append(missing, "smtp-server")
	}
	if len(missing) > 0 {
		v.warn(v.below(1, "logging", "mail"), "mail", "", "no mail is sent without %s", strings.Join(missing, ", "))
	}
}

// isMail reports whether word is a mail address. It goes into the commands of
// SMTP and headers, so it has nothing that would end one. (RFC 5321, section 4.1.2;
// quoted names are not taken.)
func isMail(word string) bool {
	local, domain, ok := strings.Cut(word, "@")
	return ok && local != "" && len(word) <= 254 && (isHostname(domain) || isHostname(domain+".local")) &&
		strings.Trim(strings.ToLower(local), "abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+-/=?^_`{|}~") == ""
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
