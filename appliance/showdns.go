package appliance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/dns"
)

var dnsCommands = []cli.Rule[execFunc]{
	{Syntax: "show dns [host <name:host>]", Help: "Names the box has looked up, and its DNS servers", Do: showDNS},
	{Syntax: "show dns-hosts", Help: "Names the box knows", Do: showDNSHosts},
	{Syntax: "clear dns [host <name:host>]", Help: "Forget names the box has looked up", Do: clearDNS},
}

// showDNS writes names and their addresses as the ASA does, and then how it goes
// with the servers.
func showDNS(x *execution, args cli.Args) error {
	only := ""
	if args.Has("host") {
		var err error
		if only, err = x.names.Full(args.Get("name")); err != nil {
			return refuse("%% %s is no name", args.Get("name"))
		}
	}
	now := x.opt.Now()
	for _, h := range x.names.Hosts() {
		if only != "" && h.Name != only {
			continue
		}
		x.printf("Name:  %s\n", h.Name)
		for _, a := range h.Addrs {
			x.printf("     Address: %-39v TTL %s%s\n", a, ttlTime(h.Expires.Sub(now)), hostState(&h, now))
		}
		for _, n := range h.Names {
			x.printf("     Name: %-42s TTL %s%s\n", n, ttlTime(h.Expires.Sub(now)), hostState(&h, now))
		}
		if h.Err != nil {
			x.printf("     No address: %v; asked again in %s\n", h.Err, ttlTime(h.Expires.Sub(now)))
		}
	}
	if only != "" {
		return nil
	}
	for _, s := range x.names.Servers() {
		state := "not asked yet"
		switch {
		case s.Failure != nil:
			state = "down: " + s.Failure.Error()
		case !s.Answered.IsZero():
			state = "up, last answer " + clockTime(now.Sub(s.Answered)) + " ago"
		}
		x.printf("Server %v: %s; %d queries, %d answers, %d false answers\n", s.Addr, state, s.Queries, s.Answers, s.Strange)
	}
	return nil
}

// ttlTime writes what is left of a time as HH:MM:SS.
func ttlTime(d time.Duration) string {
	s := int64(max(0, d) / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// hostState says what is wrong with the addresses of h.
func hostState(h *dns.Host, now time.Time) string {
	switch {
	case h.Failure == nil:
		return ""
	case now.Before(h.Expires):
		return fmt.Sprintf(" (cannot be renewed: %v)", h.Failure)
	}
	return fmt.Sprintf(" (old, in use for want of a new one: %v)", h.Failure)
}

// showDNSHosts writes the ASA's table of names: those of "name" lines, which are
// permanent, and those of the DNS. OK is good, EX has run out, ?? could not be
// renewed. The age is in hours.
func showDNSHosts(x *execution, _ cli.Args) error {
	x.printf("%-25s%-11s%-4s%-7s%s\n", "Host", "Flags", "Age", "Type", "Address(es)")
	for _, label := range slices.Sorted(maps.Keys(x.running.Names)) {
		x.printf("%-25s%-11s%-4d%-7s%v\n", label, "(perm, OK)", 0, "IP", x.running.Names[label])
	}
	now := x.opt.Now()
	for _, h := range x.names.Hosts() {
		state := "OK"
		switch {
		case h.Failure != nil, h.Err != nil:
			state = "??"
		case !now.Before(h.Expires):
			state = "EX"
		}
		x.printf("%-25s%-11s%-4d%-7s", h.Name, "(temp, "+state+")", int(now.Sub(h.Fetched).Hours()), "IP")
		for i, a := range h.Addrs {
			if i > 0 {
				x.printf("  ")
			}
			x.printf("%v", a)
		}
		for _, n := range h.Names {
			x.printf("     Name: %-42s TTL %s%s\n", n, ttlTime(h.Expires.Sub(now)), hostState(&h, now))
		}
		if h.Err != nil {
			x.printf("%v", h.Err)
		}
		x.printf("\n")
	}
	return nil
}

func clearDNS(x *execution, args cli.Args) error {
	if x.names.Clear(args.Get("name")) == 0 && args.Has("host") {
		return refuse("%% %s has not been looked up", args.Get("name"))
	}
	return nil
}

// noName returns how a command refuses a name without an address.
func noName(name string, err error) error {
	var e *dns.Error
	if errors.As(err, &e) {
		err = e.Err
	}
	return &Refusal{Text: "% Unrecognized host or address: " + name, Why: err.Error()}
}
