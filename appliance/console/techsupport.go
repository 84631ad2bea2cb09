package console

import (
	"fmt"
	"io"
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

// showTech shows all that who helps from afar asks for. No password, hash or other
// secret of the configuration is in it.
func showTech(s *Session, w io.Writer, _ cli.Args) error {
	for _, line := range techSupport {
		if _, err := fmt.Fprintf(w, "\n------------------ %s ------------------\n\n", line); err != nil {
			return err
		}
		if err := s.box.opt.App.ExecAsking(s.t.running, w, line, nil, nil); err != nil {
			if s.t.running.Err() != nil {
				return err
			}
			fmt.Fprintln(w, err) // what of it cannot be shown is told
		}
	}
	if _, err := fmt.Fprintf(w, "\n------------------ show running-config ------------------\n\n"); err != nil {
		return err
	}
	for line := range strings.Lines(s.box.Text().String()) {
		if _, err := io.WriteString(w, clean(strings.TrimSuffix(line, "\n"))+"\n"); err != nil {
			return err
		}
	}
	return nil
}
