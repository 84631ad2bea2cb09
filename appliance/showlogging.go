package appliance

import (
	"fmt"

	"patchbay/appliance/cli"
	"patchbay/appliance/logging"
)

var showLoggingCommands = []cli.Rule[execFunc]{
	{Syntax: "show logging", Help: "How messages are logged, and the buffer", Do: showLogging},
	{Syntax: "show logging setting", Help: "How messages are logged", Do: showLoggingSetting},
	{Syntax: "show logging queue", Help: "Messages that wait for syslog hosts", Do: showLoggingQueue},
	{Syntax: "show logging message [<number:100000-999999>|all]", Help: "Messages that are turned off or have another severity", Do: showLoggingMessage},
	{Syntax: "clear logging buffer", Help: "Empty the buffer", Do: clearLoggingBuffer},
}

// showLogging writes the settings and what the buffer holds.
func showLogging(x *execution, args cli.Args) error {
	if err := showLoggingSetting(x, args); err != nil {
		return err
	}
	for _, line := range x.syslog.Lines() {
		x.printf("%s\n", line)
	}
	return nil
}

func onOff(on bool) string {
	if on {
		return "enabled"
	}
	return "disabled"
}

// showLoggingSetting writes the settings in the ASA's layout, and how each host
// fares.
func showLoggingSetting(x *execution, _ cli.Args) error {
	st := x.syslog.Status()
	s := &st.Settings
	stamp := onOff(s.Timestamp)
	if s.Timestamp && s.RFC5424 {
		stamp += " (rfc5424)"
	}
	x.printf("Syslog logging: %s\n    Facility: %d\n    Timestamp logging: %s\n    Hide Username logging: enabled\n"+
		"    Standby logging: disabled\n    Debug-trace logging: disabled\n", onOff(s.Enable), s.Facility, stamp)
	dest := func(name string, f logging.Filter, d logging.Destination, more string) {
		n := st.Count(d)
		switch {
		case !f.On:
			x.printf("    %s logging: disabled\n", name)
		case f.List != "":
			x.printf("    %s logging: list %s%s, %d messages logged\n", name, f.List, more, n)
		default:
			x.printf("    %s logging: level %s%s, %d messages logged\n", name, logging.LevelName(f.Level), more, n)
		}
	}
	dest("Console", s.Console, logging.Console, "")
	if st.Console > 0 {
		x.printf("        %d messages dropped: the console is too slow\n", st.Console)
	}
	dest("Monitor", s.Monitor, logging.Sessions, "")
	dest("Buffer", s.Buffered, logging.Buffer, "")
	dest("Trap", s.Trap, logging.Hosts, fmt.Sprintf(", facility %d", s.Facility))
	for _, h := range st.Hosts {
		x.printf("        Logging to %s\n", hostText(&h))
	}
	x.printf("    Permit-hostdown logging: %s\n", onOff(s.PermitHostDown))
	dest("History", s.History, logging.History, "")
	device := "disabled"
	switch d := s.Device; d.Kind {
	case "hostname":
		device = fmt.Sprintf("hostname %q", st.Names.Device)
	case "ipaddress":
		device = fmt.Sprintf("'%s' interface IP address %q", d.Value, st.Names.Device)
	case "string":
		device = fmt.Sprintf("string %q", d.Value)
	}
	x.printf("    Device ID: %s\n", device)
	dest("Mail", s.Mail, logging.Mail, "")
	x.showMail(&st.Mail, s)
	dest("ASDM", s.ASDM, logging.ASDM, "")
	return nil
}

// hostText is a host and how it fares: "inside 10.20.0.5 tcp/1470 connected
// errors: 1 dropped: 0".
func hostText(h *logging.HostStatus) string {
	s := fmt.Sprintf("%s %v", h.Host.Interface, h.Host.Addr)
	switch {
	case h.Host.Transport == logging.UDP && h.Host.Port != logging.DefaultUDPPort:
		s += fmt.Sprintf(" udp/%d", h.Host.Port)
	case h.Host.Transport != logging.UDP:
		s += fmt.Sprintf(" tcp/%d", h.Host.Port)
		if h.Host.Transport == logging.TLS {
			s += " SECURE"
		}
		switch {
		case h.Up:
			s += " connected"
		case h.Since.IsZero():
			s += " not connected"
		default:
			s += " not connected since " + h.Since.UTC().Format("Mon, 02 Jan 2006 15:04:05 MST")
		}
	}
	if h.Error != "" {
		s += fmt.Sprintf(" (%.200s)", h.Error)
	}
	return s + fmt.Sprintf("  sent: %d  errors: %d  dropped: %d", h.Sent, h.Errors, h.Dropped)
}

// showLoggingQueue writes what waits, of all hosts together.
func showLoggingQueue(x *execution, _ cli.Args) error {
	st := x.syslog.Status()
	var lost uint64
	now, most := 0, 0
	for _, h := range st.Hosts {
		lost += h.Dropped
		now += h.Waiting
		most += h.Most
	}
	x.printf("        Logging Queue length limit : %d msg(s)\n        %d msg(s) discarded due to queue overflow\n"+
		"        0 msg(s) discarded due to memory allocation failure\n        Current %d msg on queue, %d msgs most on queue\n", st.Settings.Queue, lost, now, most)
	return nil
}

// showLoggingMessage writes what becomes of messages by their number.
func showLoggingMessage(x *execution, args cli.Args) error {
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
	for _, n := range numbers {
		s := x.syslog.MessageStatus(n)
		text := "default-level unknown"
		if s.Default >= 0 {
			text = "default-level " + logging.LevelName(s.Default)
		}
		if s.Level != s.Default {
			text += ", current-level " + logging.LevelName(s.Level)
		}
		x.printf("syslog %d: %s (%s)\n", n, text, onOff(s.Enabled))
	}
	return nil
}

func clearLoggingBuffer(x *execution, _ cli.Args) error {
	x.syslog.ClearBuffer()
	return nil
}
