package logging

import (
	"log/slog"
	"net/netip"
)

// Defaults of Settings, and the most that may be asked for.
const (
	DefaultBuffer   = 4096 // bytes of the buffer
	DefaultFacility = 20   // LOCAL4
	DefaultQueue    = 512  // messages that wait for a host
	MaxQueue        = 8192

	DefaultUDPPort = 514
	DefaultTCPPort = 1470
)

// Settings are what the logging lines of a configuration say. The zero value
// logs nothing. They hold no pointer to what changes.
type Settings struct {
	Enable    bool
	Timestamp bool // put the time on each message
	RFC5424   bool // write it as RFC 5424 does: 2026-11-27T19:46:17Z

	Console, Monitor, Buffered, Trap, History, ASDM, Mail Filter

	Classes []ClassFilter

	MailFrom    string // address
	Recipients  []Recipient
	MailServers []string // addresses or names, the first comes first

	BufferSize     int // bytes; 0: DefaultBuffer
	Facility       int // 16 to 23; 0: DefaultFacility
	Queue          int // messages that wait for a host; 0: DefaultQueue
	PermitHostDown bool
	Device         Device
	Lists          []List
	Hosts          []Host
	Messages       []Change // by number
}

// withDefaults fills in what is not said.
func (s Settings) withDefaults() Settings {
	if s.BufferSize == 0 {
		s.BufferSize = DefaultBuffer
	}
	if s.Facility == 0 {
		s.Facility = DefaultFacility
	}
	if s.Queue == 0 {
		s.Queue = DefaultQueue
	}
	s.Queue = min(s.Queue, MaxQueue)
	return s
}

// A Filter is what a destination takes: nothing, as the zero value; what is of
// Level or more severe; or what is in the list named.
type Filter struct {
	On    bool
	Level int // syslog severity: 0, emergencies, to 7, debugging
	List  string
}

// A ClassFilter is "logging class CLASS DESTINATION LEVEL": of the messages of a
// class To takes those of Level or more severe, whatever its Filter is.
type ClassFilter struct {
	Class string
	To    Destination
	Level int
}

// AtLevel returns the Filter for a level and what is more severe.
func AtLevel(level int) Filter { return Filter{On: true, Level: level} }

// A List is "logging list NAME": what any of its parts lets through.
type List struct {
	Name  string
	Parts []Part
}

// A Part lets messages through that are of Level or more severe, and of the class
// if one is given; or, if From is not 0, those with the numbers From to To.
type Part struct {
	Level    int
	Class    string
	From, To int
}

func (p *Part) has(number, level int) bool {
	if p.From != 0 {
		return p.From <= number && number <= p.To
	}
	return level <= p.Level && (p.Class == "" || inClass(p.Class, number))
}

// A Transport is how a host is sent messages.
type Transport uint8

const (
	UDP Transport = iota
	TCP
	TLS
)

// String returns "udp", "tcp" or "tls".
func (t Transport) String() string { return [...]string{"udp", "tcp", "tls"}[t] }

// A Host is "logging host IF ADDRESS".
type Host struct {
	Interface string // by which it is reached
	Addr      netip.Addr
	Transport Transport
	Port      uint16
	RFC5424   bool       // "format rfc5424": each message whole as RFC 5424 has it
	From      netip.Addr // the box's address there
}

// A Change is what a configuration changes about a message.
type Change struct {
	Number   int
	Disabled bool // no logging message NUMBER
	Moved    bool // logging message NUMBER level LEVEL
	Level    int
}

// A Device is "logging device-id": what names the box in what hosts are sent.
type Device struct {
	Kind  string // "", "hostname", "ipaddress" or "string"
	Value string // of ipaddress the interface, of string the text
}

// Names are what the box is called in messages.
type Names struct {
	Host   string // its host name
	Device string // what its device-id comes to; "": none
}

// A Destination is where messages go.
type Destination int

// The destinations. There is no SNMP agent and no ASDM: what would go there is
// counted only.
const (
	Console Destination = iota
	Sessions
	Buffer
	Hosts
	History
	ASDM
	Mail
	destinations
)

// filter returns what d takes.
func (s *Settings) filter(d Destination) Filter {
	return [destinations]Filter{s.Console, s.Monitor, s.Buffered, s.Trap, s.History, s.ASDM, s.Mail}[d]
}

// A view is Settings made ready to be asked. It does not change.
type view struct {
	set     Settings
	names   Names
	filters [destinations]compiled
	changes map[int]Change
	least   slog.Level // of records that anything may take

	mail      bool // something is mailed
	mailLevel int  // of the recipients' own levels the one that lets through most; -1: there is none
}

// A compiled is a Filter with its list and its classes; level -1 and no parts
// take nothing.
type compiled struct {
	level   int
	always  int // what is as severe is taken in any case; -1: nothing
	parts   []Part
	classes []ClassFilter
}

// takes reports whether the destination takes a message.
func (f *compiled) takes(number, level int) bool {
	if level <= f.always {
		return true
	}
	ok, classed := false, false
	for i := range f.classes {
		if c := &f.classes[i]; inClass(c.Class, number) {
			classed = true
			ok = ok || level <= c.Level
		}
	}
	if classed {
		return ok
	}
	ok = level <= f.level
	for i := 0; !ok && i < len(f.parts); i++ {
		ok = f.parts[i].has(number, level)
	}
	return ok
}

func newView(s Settings, names Names, console int) *view {
	v := &view{set: s, names: names, changes: make(map[int]Change), mailLevel: -1}
	for _, c := range s.Messages {
		v.changes[c.Number] = c
	}
	most, exact := -1, true
	for d := range destinations {
		c := compiled{level: -1, always: -1}
		f := s.filter(d)
		switch {
		case !s.Enable || !f.On:
		case f.List == "":
			c.level = f.Level
		default:
			for _, l := range s.Lists {
				if l.Name == f.List {
					c.parts, exact = l.Parts, false
				}
			}
		}
		for _, x := range s.Classes {
			if s.Enable && x.To == d {
				c.classes = append(c.classes, x)
				v.mail = v.mail || d == Mail
				most = max(most, x.Level)
			}
		}
		switch {
		case d == Console:
			c.always = console
		case d == Mail && s.Enable && f.On:
			v.mail = true
			for _, r := range s.Recipients {
				if r.HasLevel {
					v.mailLevel = max(v.mailLevel, r.Level)
				}
			}
			most = max(most, v.mailLevel)
		}
		v.filters[d] = c
		most = max(most, c.level, c.always)
	}
	for _, c := range s.Messages {
		exact = exact && !c.Moved
	}
	v.least = leastOf(most, exact)
	return v
}

// leastOf returns the level of records to be taken if destinations take most and
// what is more severe; not exact: any record may be taken.
func leastOf(most int, exact bool) slog.Level {
	switch {
	case !exact || most >= 7:
		return slog.LevelDebug
	case most >= 5: // a record cannot tell 5 from 6
		return slog.LevelInfo
	case most == 4:
		return slog.LevelWarn
	case most >= 0:
		return slog.LevelError
	}
	return slog.LevelError + 1000
}

// level returns the severity of a message whose default is given.
func (v *view) level(number, level int) int {
	if c, ok := v.changes[number]; ok && c.Moved {
		return c.Level
	}
	return level
}

// takers returns the destinations of a message, one bit each.
func (v *view) takers(number, level int) (to uint) {
	if c, ok := v.changes[number]; ok && c.Disabled {
		return 0
	}
	for d := range v.filters {
		if v.filters[d].takes(number, level) || Destination(d) == Mail && level <= v.mailLevel {
			to |= 1 << d
		}
	}
	return to
}
