package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/logging"
)

var showLoggingCommands = []cli.Rule[execFunc]{
	{Syntax: "show logging", Help: "How messages are logged, and the buffer", Do: show(showLogging)},
	{Syntax: "show logging setting", Help: "How messages are logged", Do: show(showLoggingSetting)},
	{Syntax: "show logging queue", Help: "Messages that wait for syslog hosts", Do: show(showLoggingQueue)},
	{Syntax: "show logging message [<number:100000-999999>|all]", Help: "Messages that are turned off or have another severity", Do: show(showLoggingMessage)},
	{Syntax: "clear logging buffer", Help: "Empty the buffer", Do: clearLoggingBuffer},
}

// A shownLog is how messages are logged.
type shownLog struct {
	Enabled        bool                   `json:"enabled"`
	Facility       int                    `json:"facility"`
	Timestamp      bool                   `json:"timestamp"`
	RFC5424        bool                   `json:"timestamp_rfc5424"`
	Console        shownTaker             `json:"console"`
	Monitor        shownTaker             `json:"monitor"`
	Buffer         shownTaker             `json:"buffered"`
	Trap           shownTaker             `json:"trap"`
	Hosts          cli.List[shownHostLog] `json:"hosts"`
	PermitHostDown bool                   `json:"permit_hostdown"`
	History        shownTaker             `json:"history"`
	Mail           shownTaker             `json:"mail"`
	Mailing        *shownMailing          `json:"mailing,omitempty"`
	ASDM           shownTaker             `json:"asdm"`
	Device         *shownDevice           `json:"device_id,omitempty"`
}

// A shownTaker is what a destination of messages takes, and how many it took.
type shownTaker struct {
	Enabled  bool   `json:"enabled"`
	Level    string `json:"level,omitempty"` // and what is more severe; or
	List     string `json:"list,omitempty"`  // what is in a list
	Messages uint64 `json:"messages"`
	Dropped  uint64 `json:"dropped"` // the console was too slow for them
}

// A shownHostLog is a syslog host and how it fares.
type shownHostLog struct {
	Interface string     `json:"interface"`
	Addr      netip.Addr `json:"address"`
	Transport string     `json:"transport"` // "udp", "tcp" or "tls"
	Port      uint16     `json:"port"`
	Connected *bool      `json:"connected,omitempty"` // of tcp and tls
	Since     time.Time  `json:"since,omitzero"`      // when it came up or went down
	Error     string     `json:"error,omitempty"`
	Sent      uint64     `json:"sent"`
	Errors    uint64     `json:"errors"`
	Dropped   uint64     `json:"dropped"`
}

// A shownMailing is how sending mail fares, where there is any to send.
type shownMailing struct {
	Recipients int      `json:"recipients"`
	Servers    []string `json:"servers"`
	Error      string   `json:"error,omitempty"`
	Sent       uint64   `json:"sent"`
	Refused    uint64   `json:"refused"`
	Errors     uint64   `json:"errors"`
	Dropped    uint64   `json:"dropped"`
	Waiting    int      `json:"waiting"`
}

func mailing(m *logging.MailStatus, s *logging.Settings) *shownMailing {
	if len(s.MailServers) == 0 || len(s.Recipients) == 0 {
		return nil
	}
	return &shownMailing{len(s.Recipients), s.MailServers, m.Error, m.Sent, m.Refused, m.Errors, m.Dropped, m.Waiting}
}

func (m *shownMailing) text(w *bufio.Writer) {
	fmt.Fprintf(w, "        Mail to %d recipients by %s", m.Recipients, strings.Join(m.Servers, ", "))
	if m.Error != "" {
		fmt.Fprintf(w, " (%.200s)", m.Error)
	}
	fmt.Fprintf(w, "  sent: %d  refused: %d  errors: %d  dropped: %d  waiting: %d\n", m.Sent, m.Refused, m.Errors, m.Dropped, m.Waiting)
}

// A shownDevice is what each message begins with.
type shownDevice struct {
	Kind      string `json:"kind"` // "hostname", "ipaddress" or "string"
	Interface string `json:"interface,omitempty"`
	Text      string `json:"text"`
}

func showLoggingSetting(x *execution, _ cli.Args) (shownLog, error) {
	st := x.syslog.Status()
	s := &st.Settings
	taker := func(f logging.Filter, d logging.Destination) shownTaker {
		t := shownTaker{Enabled: f.On, Messages: st.Count(d)}
		switch {
		case f.On && f.List != "":
			t.List = f.List
		case f.On:
			t.Level = logging.LevelName(f.Level)
		}
		return t
	}
	o := shownLog{
		Enabled: s.Enable, Facility: s.Facility, Timestamp: s.Timestamp, RFC5424: s.Timestamp && s.RFC5424, PermitHostDown: s.PermitHostDown,
		Console: taker(s.Console, logging.Console), Monitor: taker(s.Monitor, logging.Sessions), Buffer: taker(s.Buffered, logging.Buffer),
		Trap: taker(s.Trap, logging.Hosts), History: taker(s.History, logging.History), Mail: taker(s.Mail, logging.Mail), Mailing: mailing(&st.Mail, s),
		ASDM: taker(s.ASDM, logging.ASDM),
	}
	o.Console.Dropped = st.Console
	for _, h := range st.Hosts {
		l := shownHostLog{Interface: h.Host.Interface, Addr: h.Host.Addr, Transport: h.Host.Transport.String(), Port: h.Host.Port,
			Error: h.Error, Sent: h.Sent, Errors: h.Errors, Dropped: h.Dropped}
		if h.Host.Transport != logging.UDP {
			l.Connected, l.Since = &h.Up, h.Since.UTC()
		}
		o.Hosts = append(o.Hosts, l)
	}
	switch d := s.Device; d.Kind {
	case "hostname":
		o.Device = &shownDevice{d.Kind, "", st.Names.Device}
	case "ipaddress":
		o.Device = &shownDevice{d.Kind, d.Value, st.Names.Device}
	case "string":
		o.Device = &shownDevice{d.Kind, "", d.Value}
	}
	return o, nil
}

func onOff(on bool) string {
	if on {
		return "enabled"
	}
	return "disabled"
}

// Text is in the ASA's layout, with how each host fares.
func (s shownLog) Text(w *bufio.Writer) {
	stamp := onOff(s.Timestamp)
	if s.RFC5424 {
		stamp += " (rfc5424)"
	}
	fmt.Fprintf(w, "Syslog logging: %s\n    Facility: %d\n    Timestamp logging: %s\n    Hide Username logging: enabled\n"+
		"    Standby logging: disabled\n    Debug-trace logging: disabled\n", onOff(s.Enabled), s.Facility, stamp)
	s.Console.text(w, "Console", "")
	if s.Console.Dropped > 0 {
		fmt.Fprintf(w, "        %d messages dropped: the console is too slow\n", s.Console.Dropped)
	}
	s.Monitor.text(w, "Monitor", "")
	s.Buffer.text(w, "Buffer", "")
	s.Trap.text(w, "Trap", fmt.Sprintf(", facility %d", s.Facility))
	for k := range s.Hosts {
		fmt.Fprintf(w, "        Logging to %s\n", s.Hosts[k].text())
	}
	fmt.Fprintf(w, "    Permit-hostdown logging: %s\n", onOff(s.PermitHostDown))
	s.History.text(w, "History", "")
	device := "disabled"
	if d := s.Device; d != nil {
		switch d.Kind {
		case "ipaddress":
			device = fmt.Sprintf("'%s' interface IP address %q", d.Interface, d.Text)
		default:
			device = fmt.Sprintf("%s %q", d.Kind, d.Text)
		}
	}
	fmt.Fprintf(w, "    Device ID: %s\n", device)
	s.Mail.text(w, "Mail", "")
	if m := s.Mailing; m != nil {
		m.text(w)
	}
	s.ASDM.text(w, "ASDM", "")
}

func (t shownTaker) text(w *bufio.Writer, name, more string) {
	switch {
	case !t.Enabled:
		fmt.Fprintf(w, "    %s logging: disabled\n", name)
	case t.List != "":
		fmt.Fprintf(w, "    %s logging: list %s%s, %d messages logged\n", name, t.List, more, t.Messages)
	default:
		fmt.Fprintf(w, "    %s logging: level %s%s, %d messages logged\n", name, t.Level, more, t.Messages)
	}
}

// text is "inside 10.20.0.5 tcp/1470 connected  sent: 3  errors: 1  dropped: 0".
func (h *shownHostLog) text() string {
	s := fmt.Sprintf("%s %v", h.Interface, h.Addr)
	switch {
	case h.Connected != nil:
		s += fmt.Sprintf(" tcp/%d", h.Port)
		if h.Transport == logging.TLS.String() {
			s += " SECURE"
		}
		switch {
		case *h.Connected:
			s += " connected"
		case h.Since.IsZero():
			s += " not connected"
		default:
			s += " not connected since " + h.Since.Format("Mon, 02 Jan 2006 15:04:05 MST")
		}
	case h.Port != logging.DefaultUDPPort:
		s += fmt.Sprintf(" udp/%d", h.Port)
	}
	if h.Error != "" {
		s += fmt.Sprintf(" (%.200s)", h.Error)
	}
	return s + fmt.Sprintf("  sent: %d  errors: %d  dropped: %d", h.Sent, h.Errors, h.Dropped)
}

// A shownMessage is one in the buffer.
type shownMessage struct {
	Time     time.Time `json:"time"`
	Severity int       `json:"severity"` // 0, emergencies, to 7, debugging
	Number   int       `json:"number"`
	Message  string    `json:"text"`
	line     string
}

// A shownBuffer is how messages are logged, and the buffer.
type shownBuffer struct {
	shownLog
	Messages cli.List[shownMessage] `json:"messages"` // the oldest first
}

func showLogging(x *execution, args cli.Args) (s shownBuffer, err error) {
	s.shownLog, err = showLoggingSetting(x, args)
	for _, e := range x.syslog.Entries() {
		s.Messages = append(s.Messages, shownMessage{e.Time, e.Severity, e.Number, e.Text, e.Line})
	}
	return s, err
}

func (s shownBuffer) Text(w *bufio.Writer) {
	s.shownLog.Text(w)
	for _, m := range s.Messages {
		fmt.Fprintf(w, "%s\n", m.line)
	}
}

// A shownQueue is what waits, of all hosts together.
type shownQueue struct {
	Limit     int    `json:"limit"`
	Discarded uint64 `json:"discarded"`
	Waiting   int    `json:"waiting"`
	Most      int    `json:"most_waiting"`
}

func showLoggingQueue(x *execution, _ cli.Args) (s shownQueue, _ error) {
	st := x.syslog.Status()
	s.Limit = st.Settings.Queue
	for _, h := range st.Hosts {
		s.Discarded += h.Dropped
		s.Waiting += h.Waiting
		s.Most += h.Most
	}
	return s, nil
}

func (s shownQueue) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "        Logging Queue length limit : %d msg(s)\n        %d msg(s) discarded due to queue overflow\n"+
		"        0 msg(s) discarded due to memory allocation failure\n        Current %d msg on queue, %d msgs most on queue\n", s.Limit, s.Discarded, s.Waiting, s.Most)
}

// A messageLevel is what becomes of messages of a number.
type messageLevel struct {
	Number  int    `json:"number"`
	Default string `json:"default_level,omitempty"` // none: not known
	Level   string `json:"level,omitempty"`
	Enabled bool   `json:"enabled"`
}

type messageLevels struct {
	Messages cli.List[messageLevel] `json:"messages"`
}

func showLoggingMessage(x *execution, args cli.Args) (s messageLevels, _ error) {
	var numbers []int
	switch {
	case args.Has("number"):
		numbers = []int{args.Int("number", 0)}
	case args.Has("all"):
		numbers = logging.Known()
	default:
		for _, c := range x.running.Logging.Messages {
			numbers = append(numbers, c.Number)
		}
	}
	level := func(n int) string {
		if n < 0 {
			return ""
		}
		return logging.LevelName(n)
	}
	for _, n := range numbers {
		m := x.syslog.MessageStatus(n)
		s.Messages = append(s.Messages, messageLevel{n, level(m.Default), level(m.Level), m.Enabled})
	}
	return s, nil
}

func (s messageLevels) Text(w *bufio.Writer) {
	for _, m := range s.Messages {
		text := "default-level " + cmp.Or(m.Default, "unknown")
		if m.Level != m.Default {
			text += ", current-level " + m.Level
		}
		fmt.Fprintf(w, "syslog %d: %s (%s)\n", m.Number, text, onOff(m.Enabled))
	}
}

func clearLoggingBuffer(x *execution, _ cli.Args) error {
	x.syslog.ClearBuffer()
	return nil
}
