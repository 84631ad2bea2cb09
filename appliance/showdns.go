package appliance

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/dns"
)

var dnsCommands = []cli.Rule[execFunc]{
	{Syntax: "show dns [host <name:host>]", Help: "Names the box has looked up, and its DNS servers", Do: show(showDNS)},
	{Syntax: "show dns-hosts", Help: "Names the box knows", Do: show(showDNSHosts)},
	{Syntax: "clear dns [host <name:host>]", Help: "Forget names the box has looked up", Do: clearDNS},
}

// A shownName is a name that was looked up.
type shownName struct {
	Name    string               `json:"name"`
	Addrs   cli.List[netip.Addr] `json:"addresses"`
	Names   []string             `json:"names,omitempty"`         // of an address, whose name is that of in-addr.arpa
	TTL     cli.Seconds          `json:"ttl_seconds"`             // till it is asked again
	Error   string               `json:"error,omitempty"`         // why there are no addresses
	Failure string               `json:"renewal_error,omitempty"` // why it could not be renewed
	Old     bool                 `json:"old"`                     // its time is over, and it is in use for want of a new one
}

// A shownServer is a DNS server, and how it goes with it.
type shownServer struct {
	Addr     netip.Addr  `json:"address"`
	State    string      `json:"state"` // "up", "down" or "not asked"
	Error    string      `json:"error,omitempty"`
	Answered time.Time   `json:"last_answer,omitzero"`
	Ago      cli.Seconds `json:"since_last_answer_seconds,omitzero"`
	Queries  uint64      `json:"queries"`
	Answers  uint64      `json:"answers"`
	Strange  uint64      `json:"false_answers"`
}

type shownDNS struct {
	Names   cli.List[shownName]   `json:"names"`
	Servers cli.List[shownServer] `json:"servers,omitzero"`
}

// showDNS finds names and their addresses, and how it goes with the servers.
func showDNS(x *execution, args cli.Args) (s shownDNS, _ error) {
	only := ""
	if args.Has("host") {
		var err error
		if only, err = x.names.Full(args.Get("name")); err != nil {
			return s, refuse("%% %s is no name", args.Get("name"))
		}
	}
	now := x.opt.Now()
	for _, h := range x.names.Hosts() {
		if only == "" || h.Name == only {
			s.Names = append(s.Names, shownName{
				h.Name, h.Addrs, h.Names, cli.Seconds(max(0, h.Expires.Sub(now))), errorText(h.Err), errorText(h.Failure),
				h.Failure != nil && !now.Before(h.Expires),
			})
		}
	}
	if only != "" {
		return s, nil
	}
	s.Servers = cli.List[shownServer]{}
	for _, h := range x.names.Servers() {
		o := shownServer{Addr: h.Addr, State: "not asked", Error: errorText(h.Failure), Queries: h.Queries, Answers: h.Answers, Strange: h.Strange}
		if !h.Answered.IsZero() {
			o.State, o.Answered, o.Ago = "up", h.Answered.UTC(), cli.Seconds(now.Sub(h.Answered))
		}
		if h.Failure != nil {
			o.State = "down"
		}
		s.Servers = append(s.Servers, o)
	}
	return s, nil
}

// errorText is what an error says, "" of nil.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Text writes names as the ASA does.
func (s shownDNS) Text(w *bufio.Writer) {
	for _, h := range s.Names {
		state := ""
		switch {
		case h.Old:
			state = fmt.Sprintf(" (old, in use for want of a new one: %s)", h.Failure)
		case h.Failure != "":
			state = fmt.Sprintf(" (cannot be renewed: %s)", h.Failure)
		}
		fmt.Fprintf(w, "Name:  %s\n", h.Name)
		for _, a := range h.Addrs {
			fmt.Fprintf(w, "     Address: %-39v TTL %s%s\n", a, ttlTime(h.TTL.Duration()), state)
		}
		for _, n := range h.Names {
			fmt.Fprintf(w, "     Name: %-42s TTL %s%s\n", n, ttlTime(h.TTL.Duration()), state)
		}
		if h.Error != "" {
			fmt.Fprintf(w, "     No address: %s; asked again in %s\n", h.Error, ttlTime(h.TTL.Duration()))
		}
	}
	for _, h := range s.Servers {
		state := "not asked yet"
		switch h.State {
		case "down":
			state = "down: " + h.Error
		case "up":
			state = "up, last answer " + clockTime(h.Ago.Duration()) + " ago"
		}
		fmt.Fprintf(w, "Server %v: %s; %d queries, %d answers, %d false answers\n", h.Addr, state, h.Queries, h.Answers, h.Strange)
	}
}

// ttlTime writes what is left of a time as HH:MM:SS.
func ttlTime(d time.Duration) string {
	s := int64(max(0, d) / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// A knownName is one of the ASA's table of names: those of "name" lines, which are
// permanent, and those of the DNS.
type knownName struct {
	Name      string               `json:"name"`
	Permanent bool                 `json:"permanent"`
	State     string               `json:"state"` // OK is good, EX has run out, ?? could not be renewed
	Age       cli.Seconds          `json:"age_seconds"`
	Addrs     cli.List[netip.Addr] `json:"addresses"`
	Names     []string             `json:"names,omitempty"` // of an address
	Error     string               `json:"error,omitempty"`
}

type knownNames struct {
	Names cli.List[knownName] `json:"names"`
}

func showDNSHosts(x *execution, _ cli.Args) (s knownNames, _ error) {
	for _, label := range slices.Sorted(maps.Keys(x.running.Names)) {
		s.Names = append(s.Names, knownName{Name: label, Permanent: true, State: "OK", Addrs: []netip.Addr{x.running.Names[label]}})
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
		s.Names = append(s.Names, knownName{h.Name, false, state, cli.Seconds(now.Sub(h.Fetched)), h.Addrs, h.Names, errorText(h.Err)})
	}
	return s, nil
}

// Text writes the age in hours.
func (s knownNames) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "%-25s%-11s%-4s%-7s%s\n", "Host", "Flags", "Age", "Type", "Address(es)")
	for _, h := range s.Names {
		kind := "temp"
		if h.Permanent {
			kind = "perm"
		}
		fmt.Fprintf(w, "%-25s%-11s%-4d%-7s", h.Name, "("+kind+", "+h.State+")", int(h.Age.Duration().Hours()), "IP")
		for i, a := range h.Addrs {
			if i > 0 {
				w.WriteString("  ")
			}
			fmt.Fprintf(w, "%v", a)
		}
		fmt.Fprintf(w, "%s%s\n", strings.Join(h.Names, "  "), h.Error)
	}
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
