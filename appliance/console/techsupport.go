package console

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
	Command string          `json:"command"`
	Shown   json.RawMessage `json:"shown,omitempty"`
	Error   string          `json:"error,omitempty"` // why it shows nothing
	text    []byte
}

// showTech has each command done twice, as text and as JSON: a moment lies between.
// No password, hash or other secret of the configuration is in it.
func showTech(s *Session, _ cli.Args) (t shownTech, _ error) {
	for _, line := range techSupport {
		p := techPart{Command: line}
		var text, doc bytes.Buffer
		err := s.box.opt.App.ExecAsking(s.t.running, &text, line, nil, nil)
		if err == nil {
			err = s.box.opt.App.ExecAsking(s.t.running, &doc, line+" | json", nil, nil)
		}
		if s.t.running.Err() != nil {
			return t, context.Cause(s.t.running)
		}
		if p.text, p.Shown = text.Bytes(), bytes.TrimSpace(doc.Bytes()); err != nil {
			p.Error = err.Error()
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
		w.Write(p.text)
		if p.Error != "" { // what cannot be shown is told
			fmt.Fprintln(w, p.Error)
		}
	}
	fmt.Fprintf(w, head, "show running-config")
	t.Config.Text(w)
}
