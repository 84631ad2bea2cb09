package console

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// Where a command is typed, as "privilege ... mode" names it.
const (
	modeExec      = "exec"
	modeConfigure = "configure"
)

// A verb is what has a level of privilege: the first word of commands, in one of
// three forms. (The ASA's command reference, privilege.)
type verb struct {
	form string // "show", "clear" or "cmd"
	word string
}

// verbOf returns the verb of a syntax of EXEC mode, or of a command in full.
func verbOf(syntax string) verb {
	words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(syntax, "[no] "), "no "))
	if len(words) > 1 && (words[0] == "show" || words[0] == "clear") {
		return verb{words[0], words[1]}
	}
	if len(words) == 0 {
		return verb{}
	}
	return verb{"cmd", words[0]}
}

// eachVerb returns the syntaxes that are one, each with one verb: a choice
// where the verb stands is taken apart.
func eachVerb(syntax string) []string {
	head, rest := "", syntax
	for _, before := range []string{"[no] ", "no ", "show ", "clear "} {
		if s, ok := strings.CutPrefix(rest, before); ok {
			head, rest = head+before, s
		}
	}
	if !strings.HasPrefix(rest, "{") {
		return []string{syntax}
	}
	var list []string
	depth, from := 0, 1
	for i, c := range rest {
		switch c {
		case '{', '[', '<':
			depth++
		case '}', ']', '>':
			depth--
		case '|':
			if depth == 1 {
				list = append(list, rest[from:i])
				from = i + 1
			}
		}
		if depth == 0 {
			list = append(list, rest[from:i])
			for j, choice := range list {
				list[j] = head + strings.TrimSpace(choice) + rest[i+1:]
			}
			return list
		}
	}
	return []string{syntax}
}

// privileges are the levels that commands need.
type privileges struct {
	list   []config.Privilege
	strict bool // what shows needs them all as well, as on the ASA
}

func (b *Box) privileges() privileges {
	l := b.login()
	return privileges{l.Privileges, l.AuthorizeCommands}
}

// exec returns the level of a command of EXEC mode.
func (p privileges) exec(v verb, c command) int {
	level := c.level
	if p.strict && v.form == "show" && level == viewPrivilege {
		level = maxPrivilege
	}
	l := config.Login{Privileges: p.list}
	return l.PrivilegeOf(v.form, modeExec, v.word, level)
}

// configure returns the level of a command of configuration mode.
func (p privileges) configure(word string) int {
	form := "cmd"
	switch word {
	case "exit", "end", "quit", "":
		return 0
	case "clear":
		form, word = "clear", "configure"
	}
	l := config.Login{Privileges: p.list}
	return l.PrivilegeOf(form, modeConfigure, word, maxPrivilege)
}

// unknownPrivileges returns the "privilege" lines of commands that there are not.
func unknownPrivileges(r *config.Running) (list []config.Privilege) {
	for _, p := range r.Login.Privileges {
		if !knownVerbs()[p.Mode][verb{p.Form, p.Command}] {
			list = append(list, p)
		}
	}
	return list
}

// knownVerbs are the commands that a "privilege" line may name, by its mode and form,
// either of which may be "". What shows and clears is known in configuration mode too,
// where commands of EXEC mode may be typed.
var knownVerbs = sync.OnceValue(func() map[string]map[verb]bool {
	known := map[string]map[verb]bool{"": {}, modeExec: {}, modeConfigure: {}}
	add := func(v verb, modes ...string) {
		for _, mode := range append(modes, "") {
			known[mode][v], known[mode][verb{"", v.word}] = true, true
		}
	}
	for _, r := range execRules() {
		if v := verbOf(r.Syntax); v.form == "cmd" {
			add(v, modeExec)
		} else {
			add(v, modeExec, modeConfigure)
		}
	}
	for _, word := range config.AllKeywords() {
		add(verb{"cmd", word}, modeConfigure)
	}
	add(verb{"clear", "configure"}, modeConfigure)
	return known
})

// unknownText says which command a "privilege" line is of that there is not.
func unknownText(p config.Privilege) string {
	mode, command := p.Mode, p.Command
	if mode != "" {
		mode += " "
	}
	if p.Form != "" && p.Form != "cmd" {
		command = p.Form + " " + command
	}
	return fmt.Sprintf("there is no %scommand %q here: the line is kept, and sets the level of nothing", mode, command)
}

// CheckPrivileges returns a Warning of each "privilege" line for a command that there
// is not. An ASA has commands that the box has not, so it is no more than that.
func CheckPrivileges(r *config.Running) (list []config.Finding) {
	for _, p := range unknownPrivileges(r) {
		text := strings.TrimRight(r.Lines[p.Line-1].Text, " \t")
		list = append(list, config.Finding{File: r.File, Line: p.Line, Column: strings.LastIndexAny(text, " \t") + 2, Severity: config.Warning, Text: text, Msg: unknownText(p)})
	}
	return list
}

// ofExec returns the levels of the verbs of EXEC mode.
func (p privileges) ofExec(all []cli.Rule[command]) map[verb]int {
	levels := make(map[verb]int)
	for _, r := range all {
		v := verbOf(r.Syntax)
		n := p.exec(v, r.Do)
		if before, ok := levels[v]; !ok || n < before {
			levels[v] = n
		}
	}
	return levels
}

// A grammarCache keeps the commands of EXEC mode as a session with a level of
// privilege knows them.
type grammarCache struct {
	rules func() []cli.Rule[command] // all that there are

	mu      sync.Mutex
	levels  privileges // by which they were compiled
	byLevel map[int]*cli.Grammar[command]
}

func (c *grammarCache) get(p privileges, level int) *cli.Grammar[command] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byLevel == nil || p.strict != c.levels.strict || !slices.Equal(p.list, c.levels.list) {
		c.levels, c.byLevel = p, make(map[int]*cli.Grammar[command])
	}
	if c.byLevel[level] == nil {
		var known []cli.Rule[command]
		for _, r := range c.rules() {
			if p.exec(verbOf(r.Syntax), r.Do) <= level {
				known = append(known, r)
			}
		}
		c.byLevel[level] = cli.MustCompile(known)
	}
	return c.byLevel[level]
}

// allCommands are those of who may do everything.
var allCommands = sync.OnceValue(func() *cli.Grammar[command] { return cli.MustCompile(execRules()) })

// grammar returns the commands that the session may do.
func (s *Session) grammar() *cli.Grammar[command] {
	if s.level >= maxPrivilege {
		return allCommands()
	}
	return s.box.grammars.get(s.box.privileges(), s.level)
}

// match finds a command of EXEC mode that the session may do. Of one that it may
// not do the error says that.
func (s *Session) match(line string) (*cli.Match[command], *cli.Error, error) {
	m, err := s.grammar().Match(line, s.checkWord)
	if err == nil || s.level >= maxPrivilege {
		return m, err, nil
	}
	p := s.box.privileges()
	if all, no := allCommands().Match(line, s.checkWord); no == nil {
		if need := p.exec(verbOf(all.Rule.Syntax), all.Rule.Do); need > s.level && s.level > userPrivilege {
			return nil, nil, s.unauthorized(need)
		}
	}
	return nil, err, nil
}

// permits reports whether the session may do what a word begins.
func (s *Session) permits(form, word string, level int) bool {
	return s.box.privileges().exec(verb{form, word}, command{level: level}) <= s.level
}

func (s *Session) unauthorized(need int) error {
	return fmt.Errorf("%% Command authorization failed: it needs privilege %d and this session has %d", need, s.level)
}

// mayConfigure returns why the session may not type a line of configuration, nil
// if it may. What the line can be must all be allowed.
func (s *Session) mayConfigure(line string) error {
	if s.level >= maxPrivilege {
		return nil
	}
	p := s.box.privileges()
	for _, word := range s.box.Text().Keywords(s.at, line) {
		if need := p.configure(word); need > s.level {
			return s.unauthorized(need)
		}
	}
	return nil
}

// permitted returns those of the words that may stand at the end of a line of
// configuration which the session may type there.
func (s *Session) permitted(line string, list []config.HelpLine) []config.HelpLine {
	if s.level >= maxPrivilege {
		return list
	}
	words := cli.Split(line)
	if len(words) > 0 && !strings.HasSuffix(line, " ") {
		words = words[:len(words)-1]
	}
	if len(words) > 0 && strings.EqualFold(words[0].Text, "no") {
		words = words[1:]
	}
	if len(words) > 0 { // the verb stands there already
		if s.mayConfigure(line) != nil {
			return nil
		}
		return list
	}
	p := s.box.privileges()
	any := false
	list = slices.DeleteFunc(slices.Clone(list), func(l config.HelpLine) bool {
		if l.Word == "no" {
			return false
		}
		gone := p.configure(l.Word) > s.level
		any = any || !gone && l.Word != "exit" && l.Word != "end" && l.Word != "quit"
		return gone
	})
	if !any { // nothing to negate
		list = slices.DeleteFunc(list, func(l config.HelpLine) bool { return l.Word == "no" })
	}
	return list
}

type shownPrivilege struct {
	Level int `json:"privilege"`
}

func showPrivilege(s *Session, _ cli.Args) (shownPrivilege, error) {
	return shownPrivilege{s.level}, nil
}

func (p shownPrivilege) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "Current privilege level is %d\n", p.Level)
}

// A shownCommandLevel is the level of a command, as a line that would set it.
type shownCommandLevel struct {
	Form    string `json:"form"` // "show", "clear" or "cmd"
	Level   int    `json:"level"`
	Mode    string `json:"mode"`
	Command string `json:"command"`
}

type shownPrivileges struct {
	Commands cli.List[shownCommandLevel] `json:"commands"`
}

// showPrivileges finds the levels of commands. (The ASA's command reference, show
// running-config privilege.)
func showPrivileges(s *Session, a cli.Args) (shown shownPrivileges, _ error) {
	p := s.box.privileges()
	var list []shownCommandLevel
	for v, n := range p.ofExec(s.box.grammars.rules()) {
		list = append(list, shownCommandLevel{v.form, n, modeExec, v.word})
	}
	for _, word := range config.AllKeywords() {
		if word != "no" {
			list = append(list, shownCommandLevel{"cmd", p.configure(word), modeConfigure, word})
		}
	}
	list = append(list, shownCommandLevel{"clear", p.configure("clear"), modeConfigure, "configure"})
	slices.SortFunc(list, func(x, y shownCommandLevel) int {
		return strings.Compare(x.Command+"\x00"+x.Mode+x.Form, y.Command+"\x00"+y.Mode+y.Form)
	})
	level, byLevel := -1, a.Has("n")
	if byLevel {
		level, _ = strconv.Atoi(a.Get("n"))
	}
	for _, e := range list {
		if byLevel && e.Level != level || a.Has("verb") && !strings.EqualFold(e.Command, a.Get("verb")) {
			continue
		}
		shown.Commands = append(shown.Commands, e)
	}
	return shown, nil
}

func (p shownPrivileges) Text(w *bufio.Writer) {
	for _, e := range p.Commands {
		fmt.Fprintf(w, "privilege %s level %d mode %s command %s\n", e.Form, e.Level, e.Mode, e.Command)
	}
}
