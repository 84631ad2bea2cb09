package console

import (
	"bufio"
	"fmt"
	"strings"

	"patchbay/appliance/cli"
)

// techSupport are the commands of "show tech-support" that the appliance does, in
// the ASA's order as far as it has them.
var techSupport = []string{
	"show version", "show clock", "show memory", "show cpu usage", "show conn count", "show xlate count", "show interface", "show interface ip brief",
	"show route", "show arp", "show access-list", "show nat detail", "show service-policy", "show asp drop", "show fragment", "show ip verify statistics",
	"show dns", "show crypto ca trustpoints", "show crypto ca certificates", "show ctl-file", "show media-termination", "show tls-proxy",
	"show tls-proxy session", "show phone-proxy", "show phone-proxy secure-phones", "show phone-proxy signaling-sessions",
	"show phone-proxy media-sessions", "show sip", "show skinny", "show logging",
}

// A shownTech is all that who helps from afar asks for.
type shownTech struct {
	Commands cli.List[techPart] `json:"commands"`
	Config   shownConfig        `json:"running_config"`
}

// A techPart is a command and what it shows.
type techPart struct {
	Command string    `json:"command"`
	Shown   cli.Shown `json:"shown,omitempty"`
	Error   string    `json:"error,omitempty"` // why it shows nothing
}

// showTech does each command. No password, hash or other secret of the configuration
// is in it.
func showTech(s *Session, _ cli.Args) (t shownTech, _ error) {
	for _, line := range techSupport {
		p := techPart{Command: line}
		found, err := s.find(line)
		switch {
		case s.t.running.Err() != nil:
			return t, err
		case err != nil:
			p.Error = err.Error()
		default:
			p.Shown = found
		}
		t.Commands = append(t.Commands, p)
	}
	var lines strings.Builder
	for line := range strings.Lines(s.box.Text().String()) {
		lines.WriteString(clean(strings.TrimSuffix(line, "\n")) + "\n")
	}
	t.Config = configOf(lines.String())
	return t, nil
}

func (t shownTech) Text(w *bufio.Writer) {
	const head = "\n------------------ %s ------------------\n\n"
	for _, p := range t.Commands {
		fmt.Fprintf(w, head, p.Command)
		if p.Error != "" { // what cannot be shown is told
			fmt.Fprintln(w, p.Error)
			continue
		}
		p.Shown.Text(w)
	}
	fmt.Fprintf(w, head, "show running-config")
	t.Config.Text(w)
}
