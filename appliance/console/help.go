package console

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"patchbay/appliance"
	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// help shows what may stand at the end of a line: what "?" does.
func (s *Session) help(line string) {
	s.t.begin()
	if _, pipe, ok := splitFilter(line); ok {
		s.helpFilter(pipe)
		return
	}
	list, f := s.helpLines(line)
	if f != nil {
		fmt.Fprintln(s.t, f.Reply(utf8.RuneCountInString(s.prompt())))
		return
	}
	width := 0
	for _, l := range list {
		width = max(width, utf8.RuneCountInString(l.Word))
	}
	for _, l := range list {
		fmt.Fprintln(s.t, strings.TrimRight(fmt.Sprintf("  %-*s  %s", width, l.Word, l.Text), " "))
	}
}

func (s *Session) helpFilter(pipe string) {
	words := strings.Fields(pipe)
	if len(words) > 1 || len(words) == 1 && strings.HasSuffix(pipe, " ") {
		if kind, _ := filterKind(pipe); kind == "json" {
			fmt.Fprintln(s.t, "  <cr>")
		} else {
			fmt.Fprintln(s.t, "  LINE  Regular expression")
		}
		return
	}
	for _, k := range filterKinds {
		if len(words) == 0 || strings.HasPrefix(k.word, words[0]) {
			fmt.Fprintf(s.t, "  %-7s  %s\n", k.word, k.help)
		}
	}
}

// helpLines returns the words that may stand at the end of a line, or why the
// line is wrong before.
func (s *Session) helpLines(line string) ([]config.HelpLine, *config.Finding) {
	exec, err := s.execHelp(line)
	if !s.config {
		if err != nil {
			return nil, &config.Finding{Line: 1, Column: err.Token.Col, Severity: config.Error, Text: line, Msg: err.Error()}
		}
		return exec, nil
	}
	list, f := s.box.Text().Help(s.at, line)
	list = s.permitted(line, list)
	if s.at.Prompt() == "" {
		return nil, nil
	}
	if len(list) == 0 && len(exec) > 0 {
		return exec, nil
	}
	if len(exec) > 0 {
		for _, l := range exec {
			if !slices.ContainsFunc(list, func(o config.HelpLine) bool { return o.Word == l.Word }) {
				list = append(list, l)
			}
		}
		sortHelp(list)
	}
	if len(list) > 0 {
		return list, nil
	}
	return nil, f
}

// execHelp is help for a command of EXEC mode.
func (s *Session) execHelp(line string) ([]config.HelpLine, *cli.Error) {
	found, err := s.grammar().Help(line, s.checkWord, execVocabulary())
	if err != nil {
		return nil, err
	}
	list := config.HelpLines(found)
	if words := cli.Split(line); len(words) == 0 || len(words) == 1 && line[len(line)-1] != ' ' {
		for i := range list { // a verb has many commands
			if text := vocabulary[list[i].Word]; text != "" {
				list[i].Text = text
			}
		}
	}
	if cli.Shows(line) && slices.ContainsFunc(list, func(l config.HelpLine) bool { return l.Word == "<cr>" }) {
		list = append(list, config.HelpLine{Word: "|", Text: "Filter what is shown"})
	}
	sortHelp(list)
	return list, nil
}

// sortHelp brings words in order: the end of the line and the filter are last.
func sortHelp(list []config.HelpLine) {
	last := func(l config.HelpLine) int { return max(strings.Index("x<cr>x|", l.Word), 0) }
	slices.SortStableFunc(list, func(a, b config.HelpLine) int {
		if c := last(a) - last(b); c != 0 {
			return c
		}
		return strings.Compare(strings.ToLower(a.Word), strings.ToLower(b.Word))
	})
}

// complete does what Tab does: it returns the line with its last word completed,
// if there is one way to.
func (s *Session) complete(line string) string {
	partial := line[strings.LastIndexAny(line, " \t|")+1:]
	if partial == "" {
		return line
	}
	var words []string
	if _, pipe, ok := splitFilter(line); ok {
		if strings.TrimSpace(pipe) == partial {
			for _, k := range filterKinds {
				if strings.HasPrefix(k.word, partial) {
					words = append(words, k.word)
				}
			}
		}
	} else {
		list, _ := s.helpLines(line)
		for _, l := range list {
			if l.Keyword && len(l.Word) >= len(partial) && strings.EqualFold(l.Word[:len(partial)], partial) {
				words = append(words, l.Word)
			}
		}
	}
	if len(words) == 0 {
		return line
	}
	common := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, common) {
			common = common[:len(common)-1]
		}
	}
	if len(common) < len(partial) {
		return line
	}
	line = line[:len(line)-len(partial)] + common
	if len(words) == 1 {
		line += " "
	}
	return line
}

// execVocabulary is vocabulary with what the commands say of themselves.
var execVocabulary = sync.OnceValue(func() cli.Vocabulary {
	v := maps.Clone(appliance.ExecVocabulary())
	maps.Copy(v, vocabulary)
	note := func(syntax, help string) {
		var words []string
		for _, w := range strings.Fields(syntax) {
			if strings.ContainsAny(w, "<{[|=") {
				break
			}
			words = append(words, w)
		}
		if path := strings.Join(words, " "); len(words) > 1 && v[path] == "" {
			v[path] = help
		}
	}
	for _, r := range appliance.ExecSyntax() {
		note(r.Syntax, r.Help)
	}
	for _, r := range ownCommands() {
		note(r.Syntax, r.Help)
	}
	return v
})

// vocabulary is help for the words of EXEC mode.
var vocabulary = cli.Vocabulary{
	"clear": "Reset functions", "show": "Show running system information", "copy": "Copy from one file to another",
	"configure": "Configure from the terminal or from flash", "write": "Write the configuration", "reload": "Halt and start again",
	"capture": "Capture packets", "no": "Negate a command", "terminal": "Set terminal line parameters",
	"packet-tracer": "Trace a packet through the box", "ping": "Send echo messages", "traceroute": "Trace the route to a host",
	"exit": "Exit from the EXEC", "quit": "Exit from the EXEC", "logout": "Exit from the EXEC", "disable": "Exit from privileged mode",
	"enable": "Turn on privileged commands", "login": "Log in as a particular user", "help": "Interactive help for commands",
	"debug": "Debugging functions", "undebug": "Disable debugging functions", "diagnose": "Say why a phone does not come up", "more": "Show a file",

	"<cr>": "", "<line>": "Text up to the end of the line", "<addr>": "IPv4 address", "<if>": "Name of an interface", "<name>": "Name", "<level>": "Privilege level: 0 to 15",
	"<n>": "Lines of a page; 0 is no paging", "<section>": "Section of the configuration, as in access-list, and a name in it", "<text>": "Text up to the end of the line",
	"<when>": "Minutes, or hours and minutes as hh:mm", "<who>": "Name of a user",
	"all": "All, with defaults", "diff": "What is not as on flash", "memory": "Flash memory", "erase": "Erase the configuration on flash",
	"write terminal": "Show the running configuration", "configure terminal": "Configure from the terminal", "replace": "Replace the running configuration as a whole",
	"startup-config": "Configuration that the box starts with", "running-config": "Current operating configuration", "/noconfirm": "Do not ask",
	"noconfirm": "Do not ask", "save-config": "Save the configuration before", "quick": "Do not wait for connections to end", "reason": "Why, for the log",
	"disk0:": "Flash", "flash:": "Flash", "<path>": "File on flash, as disk0:/NAME", "<url>": "Where the file is, as tftp://HOST/FILE or http://HOST/FILE", "<to>": "Where the file goes, as tftp://HOST/FILE; what is left out is asked for", "<from>": "Capture, as capture:NAME", "net": "Write the running configuration to a TFTP server", "<at>": "Where it goes, as HOST:FILE", "delete": "Delete a file",
	"verify": "Verify a file", "ip verify": "Reverse path", "/md5": "Show or compare the MD5 sum", "/sha-512": "Show or compare the SHA-512 sum", "/signature": "Verify the signature", "<sum>": "Sum to compare with", "dir": "List files on flash",
	"in": "Reload after a time", "cancel": "Cancel a reload", "pager": "Lines of a page", "lines": "Lines of a page", "aaa": "Local users", "local": "Local users", "user": "Local users",
	"asp": "What is dropped, and why", "ip": "Interfaces and their addresses", "ssh": "Sessions by SSH",
	"lockout": "Users that are locked out", "username": "One user", "sessions": "Sessions",
}
