package console

import (
	"bufio"
	"errors"
	"io/fs"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// A shownConfig is a configuration as it is written. Of its lines in stanzas those
// that say nothing, comments and separators, are left out.
type shownConfig struct {
	text    string
	Stanzas cli.List[stanza] `json:"stanzas"`
}

// A stanza is a line of a configuration and what stands below it.
type stanza struct {
	Line  string           `json:"line"`
	Lines cli.List[stanza] `json:"lines,omitempty"`
}

func configOf(text string) shownConfig {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if said := strings.TrimLeft(line, " \t"); said != "" && said[0] != '!' && said[0] != ':' {
			lines = append(lines, line)
		}
	}
	return shownConfig{text, stanzas(lines)}
}

func (c shownConfig) Text(w *bufio.Writer) { w.WriteString(c.text) }

// indent is how many spaces or tabs a line begins with.
func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " \t")) }

// stanzas puts lines that begin with more space than the one before below it.
func stanzas(lines []string) (list []stanza) {
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && indent(lines[n]) > indent(lines[0]) {
			n++
		}
		list = append(list, stanza{strings.TrimLeft(lines[0], " \t"), stanzas(lines[1:n])})
		lines = lines[n:]
	}
	return list
}

func showRunning(s *Session, a cli.Args) (shownConfig, error) {
	section := strings.Fields(a.Get("section"))
	all := a.Has("all")
	if len(section) == 1 && section[0] == "all" {
		all, section = true, nil
	}
	var b strings.Builder
	err := s.box.Text().Render(&b, all, section...)
	return configOf(b.String()), err
}

func showStartup(s *Session, _ cli.Args) (shownConfig, error) {
	text, err := s.box.opt.Startup.Read()
	return configOf(string(text)), notExist(err)
}

// A shownDiff is what "write memory" would change, as config.Diff writes it.
type shownDiff struct {
	text    string
	Changes cli.List[changedLine] `json:"changes"`
}

// A changedLine is one that is on flash alone, or in what runs.
type changedLine struct {
	Change string           `json:"change"` // "added" or "removed"
	Under  cli.List[string] `json:"under"`  // the lines that it stands below, the outermost first
	Line   string           `json:"line"`
}

func showDiff(s *Session, _ cli.Args) (d shownDiff, _ error) {
	saved, err := s.box.Saved()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	var b strings.Builder
	if err := config.Diff(&b, saved, s.box.Text()); err != nil {
		return d, err
	}
	d.text = b.String()
	var above []string // with their indentation
	for row := range strings.Lines(d.text) {
		line := strings.TrimRight(row[1:], "\n")
		for len(above) > 0 && indent(above[len(above)-1]) >= indent(line) {
			above = above[:len(above)-1]
		}
		if change := map[byte]string{'+': "added", '-': "removed"}[row[0]]; change != "" {
			c := changedLine{Change: change, Line: line[indent(line):]}
			for _, l := range above {
				c.Under = append(c.Under, l[indent(l):])
			}
			d.Changes = append(d.Changes, c)
		}
		above = append(above, line)
	}
	return d, nil
}

func (d shownDiff) Text(w *bufio.Writer) { w.WriteString(d.text) }
