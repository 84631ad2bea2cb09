package config

import (
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

// A Privilege sets the level of privilege that a command needs.
type Privilege struct {
	Line    int
	Level   int
	Form    string // "show", "clear" or "cmd" for all others; "": every form
	Mode    string // "exec" or "configure"; "": both
	Command string // its first word, not counting "show", "clear" and "no"
}

// privilegeCommands set the levels of commands. (The ASA's command reference,
// privilege; its running configurations have the form as "cmd".)
func privilegeCommands() []command {
	return []command{
		cmd("privilege form=[show|clear|cmd|configure] level <n:0-15> mode=[mode {exec|enable|configure}] command <verb:name>",
			by("privilege $form.show $form.clear $form.cmd $mode.exec $mode.configure $verb").spelled(spellPrivilege), parsePrivilege),
	}
}

// spellPrivilege writes the words that the ASA has two of as it prints them.
func spellPrivilege(l *placed) {
	for i, w := range l.words {
		switch w.name {
		case "form.configure":
			l.words[i] = word{text: "cmd", name: "form.cmd"}
		case "mode.enable":
			l.words[i] = word{text: "exec", name: "mode.exec"}
		case "verb":
			l.words[i].text = strings.ToLower(w.text)
		}
	}
}

func parsePrivilege(p *parser, a cli.Args) {
	x := Privilege{Line: p.line, Level: a.Int("n", 0), Command: strings.ToLower(a.Get("verb"))}
	for name, form := range map[string]string{"show": "show", "clear": "clear", "cmd": "cmd", "configure": "cmd"} {
		if a.Has("form." + name) {
			x.Form = form
		}
	}
	for name, mode := range map[string]string{"exec": "exec", "enable": "exec", "configure": "configure"} {
		if a.Has("mode." + name) {
			x.Mode = mode
		}
	}
	list := &p.run.Login.Privileges
	i := findOrAdd(list, func(o *Privilege) bool { return o.Form == x.Form && o.Mode == x.Mode && o.Command == x.Command },
		func() Privilege { return x })
	(*list)[i] = x
}

// PrivilegeOf returns the level that a command needs: by the line that names it
// most closely, or byDefault.
func (l *Login) PrivilegeOf(form, mode, command string, byDefault int) int {
	level, closest := byDefault, -1
	for _, x := range l.Privileges {
		if x.Command != command || x.Form != "" && x.Form != form || x.Mode != "" && x.Mode != mode {
			continue
		}
		close := 0
		if x.Form != "" {
			close += 2
		}
		if x.Mode != "" {
			close++
		}
		if close > closest {
			level, closest = x.Level, close
		}
	}
	return level
}

// Keywords returns the first words in full, not counting "no", of the commands
// that a line typed at a place can be: one if its first word says which, more if
// it is an abbreviation of several or the modes around know others.
func (t Text) Keywords(at Place, typed string) []string {
	words := cli.Split(typed)
	if len(words) > 0 && strings.EqualFold(words[0].Text, "no") {
		words = words[1:]
	}
	if len(words) == 0 || at.cert != nil {
		return nil
	}
	first := strings.ToLower(words[0].Text)
	var list []string
	add := func(candidates ...[]cli.Candidate) {
		var here []string
		for _, c := range slices.Concat(candidates...) {
			if c.Word == first {
				here = []string{first}
				break
			}
			if c.Keyword() {
				here = append(here, c.Word)
			}
		}
		list = append(list, here...)
	}
	for _, id := range at.modes() {
		m := &asa().modes[id]
		add(m.grammar.Complete(first, nil), m.moves.Complete(first, nil), m.positive.Complete(first, nil))
	}
	add(asa().actions.Complete(first, nil))
	slices.Sort(list)
	return slices.Compact(list)
}

// AllKeywords returns the first words of all commands of configuration, sorted.
func AllKeywords() []string {
	var list []string
	for _, m := range asa().modes {
		for _, c := range m.positive.Complete("", nil) {
			if c.Keyword() {
				list = append(list, c.Word)
			}
		}
	}
	for _, c := range asa().actions.Complete("", nil) {
		list = append(list, c.Word)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
