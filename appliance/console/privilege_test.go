package console

import (
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

func TestEachVerb(t *testing.T) {
	for _, tt := range []struct {
		syntax string
		want   []string
	}{
		{"show conn count", []string{"show conn count"}},
		{"{exit|quit|logout}", []string{"exit", "quit", "logout"}},
		{"[no] debug {sip|skinny} [errors]", []string{"[no] debug {sip|skinny} [errors]"}},
		{"clear {arp|conn {all|<a:word>}} [now]", []string{"clear arp [now]", "clear conn {all|<a:word>} [now]"}},
		{"no {capture <name>|debug}", []string{"no capture <name>", "no debug"}},
	} {
		if got := eachVerb(tt.syntax); !slices.Equal(got, tt.want) {
			t.Errorf("eachVerb(%q) = %q, want %q", tt.syntax, got, tt.want)
		}
	}
	for _, r := range execRules() {
		if v := verbOf(r.Syntax); strings.ContainsAny(v.word, "{[<|") {
			t.Errorf("%q has not one verb but %q", r.Syntax, v.word)
		}
	}
}

const privilegeLines = `privilege show level 3 mode exec command conn
privilege cmd level 4 mode exec command configure
privilege level 4 command interface
privilege show level 7 command interface
privilege cmd level 4 mode configure command description
privilege cmd level 1 mode exec command ping
privilege show level 0 mode exec command route
`

// TestPrivileges asks at every level for what a user there is shown, can complete
// and may do: all that needs the level or less, and nothing else.
func TestPrivileges(t *testing.T) {
	b := newTestBox(t, "hostname pb\n"+privilegeLines+"interface GigabitEthernet0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\n")
	exec := []struct {
		line  string
		needs int
	}{
		{"show conn", 3}, {"show interface", 7}, {"show route", 0}, {"show arp", viewPrivilege}, {"clear conn all", 15},
		{"configure terminal", 4}, {"ping 203.0.113.2", 1}, {"show version", 0}, {"write memory", 15}, {"debug sip", 15},
	}
	configure := []struct {
		line  string
		needs int
	}{
		{"interface GigabitEthernet0/0", 4}, {"hostname other", 15}, {"no hostname", 15}, {"clear configure logging", 15}, {"crypto key zeroize rsa", 15}, {"exit", 0},
	}
	for level := range maxPrivilege + 1 {
		s := b.session(t.Context(), Transport{In: NewInput(strings.NewReader("")), Out: b}, Who{From: fromProgram})
		s.level = level
		for _, c := range exec {
			m, _, _ := s.match(c.line)
			words := strings.Fields(c.line)
			n := 1
			if words[0] == "show" || words[0] == "clear" {
				n = 2
			}
			list, _ := s.execHelp(strings.Join(words[:n], " "))
			shown := slices.ContainsFunc(list, func(l config.HelpLine) bool { return l.Word == words[n-1] })
			if may := level >= c.needs; may != (m != nil) || may != shown {
				t.Errorf("level %d: %q is done: %v, shown: %v; it needs %d", level, c.line, m != nil, shown, c.needs)
			}
		}
		s.config = true
		for _, c := range configure {
			done := s.mayConfigure(c.line) == nil
			verb := strings.Fields(strings.TrimPrefix(c.line, "no "))[0]
			list, _ := s.box.Text().Help(s.at, verb)
			shown := slices.ContainsFunc(s.permitted(verb, list), func(l config.HelpLine) bool { return l.Word == verb })
			if may := level >= c.needs; may != done || may != shown {
				t.Errorf("level %d: %q is obeyed: %v, shown: %v; it needs %d", level, c.line, done, shown, c.needs)
			}
		}
		b.leave(s)
	}
}

// TestUnknownPrivileges types "privilege" lines for commands that there are and that
// there are not, and has a box begin with them.
func TestUnknownPrivileges(t *testing.T) {
	const no = "there is no "
	tests := []struct{ line, warns string }{
		{"privilege show level 3 mode exec command conn", ""},
		{"privilege cmd level 3 mode exec command ping", ""},
		{"privilege clear level 3 mode exec command logging", ""},
		{"privilege level 3 command interface", ""},
		{"privilege level 3 command route", ""},
		{"privilege level 3 mode exec command route", ""},
		{"privilege show level 3 mode configure command access-list", ""},
		{"privilege cmd level 3 mode configure command failover", ""},
		{"privilege clear level 3 mode configure command configure", ""},
		{"privilege cmd level 3 mode exec command PING", ""},
		{"privilege cmd level 3 mode exec command perfmon", no + `exec command "perfmon" here`},
		{"privilege show level 3 mode exec command frob", no + `exec command "show frob" here`},
		{"privilege clear level 3 command frob", no + `command "clear frob" here`},
		{"privilege level 3 command frob", no + `command "frob" here`},
		{"privilege cmd level 3 mode exec command route", no + `exec command "route" here`}, // "show route" is one
		{"privilege cmd level 3 mode configure command ping", no + `configure command "ping" here`},
	}
	b, text, wrong := newTestBox(t, "hostname pb\n"), "hostname pb\n", 0
	for _, tt := range tests {
		e := b.Enter(config.Place{}, tt.line)
		text += tt.line + "\n"
		switch {
		case tt.warns == "" && len(e.Findings) > 0, config.Errors(e.Findings) > 0:
			t.Errorf("%s: %v", tt.line, e.Findings)
		case tt.warns != "":
			wrong++
			if len(e.Findings) != 1 || e.Findings[0].Severity != config.Warning || !strings.HasPrefix(e.Findings[0].Msg, tt.warns) {
				t.Errorf("%s: %v, want one warning %q", tt.line, e.Findings, tt.warns)
			}
		}
	}
	if e := b.Enter(config.Place{}, "hostname other"); len(e.Findings) > 0 {
		t.Errorf("another line is warned of: %v", e.Findings)
	}
	if e := b.Enter(config.Place{}, "no privilege level 3 command frob"); len(e.Findings) > 0 {
		t.Errorf("the line's end is warned of: %v", e.Findings)
	}
	if n := strings.Count(newTestBox(t, text).logged(), no); n != wrong {
		t.Errorf("a box that begins with them logs %d of %d", n, wrong)
	}
	r, _ := config.Check("pb.cfg", strings.NewReader(text))
	found := CheckPrivileges(r)
	if len(found) != wrong || found[0].Line != 12 || found[0].Text[found[0].Column-1:] != "perfmon" {
		t.Errorf("%d findings, want %d: %v", len(found), wrong, found)
	}
}

// TestServiceTypes has users log in and enable who may not do all of it.
func TestServiceTypes(t *testing.T) {
	const users = "username a password a privilege 15\nusername n password n privilege 15\nusername n attributes\n service-type nas-prompt\n" +
		"username r password r privilege 15\nusername r attributes\n service-type remote-access\naaa authentication enable console LOCAL\n"
	for _, tt := range []struct {
		text          string
		login, enable string // who may
	}{
		{users, "anr", "anr"},
		{users + "aaa authorization exec LOCAL\n", "an", "a"},
	} {
		b := newTestBox(t, "hostname pb\n"+tt.text)
		var login, enable string
		for _, name := range []string{"a", "n", "r"} {
			if _, err := b.check(name, name, "198.51.100.7"); err == nil {
				login += name
			}
			if _, err := b.checkEnable(name, name, "198.51.100.7", maxPrivilege); err == nil {
				enable += name
			}
		}
		if login != tt.login || enable != tt.enable {
			t.Errorf("%s\nlog in: %s, want %s; enable: %s, want %s", tt.text, login, tt.login, enable, tt.enable)
		}
	}
}
