package console

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"patchbay/appliance"
	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// A command is one of EXEC mode. One without do is the appliance's.
type command struct {
	level int // the privilege it needs, where the configuration does not say
	do    func(s *Session, w io.Writer, a cli.Args) error
}

// show makes the function of a show command, which finds out what is to be shown
// and leaves it to others to write it.
func show[T cli.Shown](find func(s *Session, a cli.Args) (T, error)) func(*Session, io.Writer, cli.Args) error {
	return func(s *Session, _ io.Writer, a cli.Args) error {
		found, err := find(s, a)
		if err == nil {
			s.shown = found
		}
		return err
	}
}

const viewPrivilege = 2 // of commands that show and change nothing

// userCommands are those of user EXEC mode, which privileged mode has too. The
// appliance's are by the first words of their syntax.
var (
	userCommands = []cli.Rule[command]{
		{Syntax: "enable [<level:0-15>]", Help: "Turn on privileged commands", Do: command{0, enable}},
		{Syntax: "{exit|quit|logout}", Help: "Exit from the EXEC", Do: command{0, exit}},
		{Syntax: "login", Help: "Log in as a particular user", Do: command{0, login}},
		{Syntax: "help", Help: "Interactive help for commands", Do: command{0, help}},
		{Syntax: "show curpriv", Help: "Show the current privilege level", Do: command{0, show(showCurpriv)}},
		{Syntax: "show history", Help: "Show the commands of this session", Do: command{0, show(showHistory)}},
		{Syntax: "terminal pager [lines] <n:0-2147483647>", Help: "Set terminal line parameters", Do: command{0, terminalPager}},
		{Syntax: "terminal no pager", Help: "Set terminal line parameters", Do: command{0, terminalPager}},
	}
	userAppliance = map[string]bool{"show version": true, "show clock": true}

	privilegedCommands = []cli.Rule[command]{
		{Syntax: "disable", Help: "Exit from privileged mode", Do: command{viewPrivilege, disable}},
		{Syntax: "configure terminal", Help: "Configure from the terminal", Do: command{maxPrivilege, configureTerminal}},
		{Syntax: "configure memory", Help: "Merge the configuration on flash into the running one", Do: command{maxPrivilege, configureMemory}},
		{Syntax: "configure replace startup-config [noconfirm]", Help: "Replace the running configuration as a whole", Do: command{maxPrivilege, configureReplace}},
		{Syntax: "write [memory]", Help: "Write the running configuration to flash", Do: command{maxPrivilege, writeMemory}},
		{Syntax: "write terminal", Help: "Show the running configuration", Do: command{maxPrivilege, show(showRunning)}},
		{Syntax: "write erase", Help: "Erase the configuration on flash", Do: command{maxPrivilege, writeErase}},
		{Syntax: "copy [/noconfirm] running-config startup-config", Help: "Copy from one file to another", Do: command{maxPrivilege, writeMemory}},
		{Syntax: "copy [/noconfirm] startup-config running-config", Help: "Copy from one file to another", Do: command{maxPrivilege, configureMemory}},
		{Syntax: "reload [in <when:reloadtime>] [noconfirm|save-config|quick]... [reason <text:line>]", Help: "Halt and start again", Do: command{maxPrivilege, reload}},
		{Syntax: "reload cancel", Help: "Halt and start again", Do: command{maxPrivilege, reloadCancel}},
		{Syntax: "show reload", Help: "Show when the box starts again", Do: command{viewPrivilege, show(showReload)}},
		{Syntax: "show running-config [all] [<section:line>]", Help: "Current operating configuration", Do: command{maxPrivilege, show(showRunning)}},
		{Syntax: "show running-config diff", Help: "What is not as on flash", Do: command{maxPrivilege, show(showDiff)}},
		{Syntax: "show tech-support", Help: "All that who helps from afar asks for, without secrets", Do: command{maxPrivilege, show(showTech)}},
		{Syntax: "show startup-config", Help: "Configuration that the box starts with", Do: command{maxPrivilege, show(showStartup)}},
		{Syntax: "terminal monitor", Help: "Show the messages of logging monitor here", Do: command{viewPrivilege, terminalMonitor}},
		{Syntax: "terminal no monitor", Help: "Show no messages here", Do: command{viewPrivilege, terminalMonitor}},
		{Syntax: "show privilege", Help: "Show the current privilege level", Do: command{viewPrivilege, show(showPrivilege)}},
		{Syntax: "show running-config all privilege {all|command <verb:word>|level <n:0-15>}", Help: "Levels of privilege of commands", Do: command{maxPrivilege, show(showPrivileges)}},
		{Syntax: "show ssh sessions", Help: "Sessions by SSH", Do: command{viewPrivilege, show(showSessions)}},
		{Syntax: "show users", Help: "Sessions there are", Do: command{viewPrivilege, show(showSessions)}},
		{Syntax: "show pager", Help: "Lines of a page", Do: command{viewPrivilege, show(showPager)}},
		{Syntax: "show aaa local user", Help: "Failures of local users to log in", Do: command{viewPrivilege, show(showLocalUsers)}},
		{Syntax: "clear aaa local user lockout {all|username <who:word>}", Help: "Clear", Do: command{maxPrivilege, clearLockout}},
		{Syntax: "clear history", Help: "Clear", Do: command{viewPrivilege, clearHistory}},
	}
)

// ownCommands are those that are not the appliance's.
func ownCommands() []cli.Rule[command] {
	return slices.Concat(userCommands, privilegedCommands, flashCommands, sendCommands, verifyCommands)
}

// execRules are all commands of EXEC mode, each with one verb. Where two match it is
// not the appliance's, which has "copy /pcap" to flash only.
var execRules = sync.OnceValue(func() []cli.Rule[command] {
	var all []cli.Rule[command]
	add := func(r cli.Rule[command]) {
		for _, syntax := range eachVerb(r.Syntax) {
			one := r
			one.Syntax = syntax
			all = append(all, one)
		}
	}
	for _, r := range ownCommands() {
		add(r)
	}
	for _, r := range appliance.ExecSyntax() {
		c := cli.Rule[command]{Syntax: r.Syntax, Help: r.Help, Do: command{level: maxPrivilege}}
		switch {
		case userAppliance[r.Syntax]:
			c.Do.level = 0
		case strings.HasPrefix(r.Syntax, "show "):
			c.Do.level = viewPrivilege
		}
		add(c)
	}
	return all
})

// checkWord is the cli.Check of all commands.
func (s *Session) checkWord(kind, word string) error {
	switch kind {
	case "reloadtime":
		_, err := parseDelay(word)
		return err
	case "flash":
		return checkFlash(word)
	case "tftp":
		return s.checkTFTP(word)
	case "netfile":
		return s.checkNetFile(word)
	case "capture":
		_, err := captureName(word)
		return err
	}
	return s.box.opt.App.CheckExec(kind, word)
}

// enable asks for the password of a level.
func enable(s *Session, _ io.Writer, a cli.Args) error {
	level := a.Int("level", maxPrivilege)
	if level <= userPrivilege {
		s.become(s.who.User, level)
		return nil
	}
	for range 3 {
		password, err := s.t.ask("Password: ", true)
		if err != nil {
			return err
		}
		got, err := s.box.checkEnable(s.who.User, password, s.who.From, level)
		if err == nil {
			s.box.log(5, 502103, "User priv level changed: Uname: %s From: %d To: %d", s.name(), s.level, got)
			s.become(s.who.User, got)
			return nil
		}
		fmt.Fprintln(s.t, "Invalid password")
	}
	if s.who.From != fromConsole && s.box.login().Enable[level].Kind == config.NoPassword && !s.box.login().EnableLocal {
		fmt.Fprintln(s.t, "No enable password is set: set one at the console, or \"aaa authentication enable console LOCAL\"")
	}
	s.box.log(6, 308001, "console enable password incorrect for 3 tries (from %s)", s.address())
	fmt.Fprintln(s.t, "Access denied.")
	return nil
}

// become makes the session that of a user with a privilege. Who may not configure
// leaves configuration mode.
func (s *Session) become(user string, level int) {
	s.box.mu.Lock()
	s.who.User = user // others are shown it
	s.box.mu.Unlock()
	s.level = max(level, userPrivilege)
	if !s.permits("cmd", "terminal", viewPrivilege) {
		s.unmonitor()
	}
	if !s.permits("cmd", "configure", maxPrivilege) {
		s.config, s.at = false, config.Place{}
	}
}

func disable(s *Session, _ io.Writer, _ cli.Args) error {
	s.box.log(5, 502103, "User priv level changed: Uname: %s From: %d To: %d", s.name(), s.level, userPrivilege)
	s.become(s.who.User, userPrivilege)
	return nil
}

func exit(s *Session, _ io.Writer, _ cli.Args) error {
	fmt.Fprintf(s.t, "\nLogoff\n\n")
	s.left = true
	return nil
}

// login makes the session that of another user.
func login(s *Session, _ io.Writer, _ cli.Args) error {
	u, err := s.box.askLogin(s.t, s.who.From)
	if err != nil {
		return err
	}
	if u == nil {
		return nil
	}
	s.become(u.Name, u.Privilege)
	return nil
}

// askLogin asks for a local user, up to three times; nil is that there is none.
func (b *Box) askLogin(t *terminal, from string) (*config.User, error) {
	for range 3 {
		name, err := t.ask("Username: ", false)
		if err != nil {
			return nil, err
		}
		password, err := t.ask("Password: ", true)
		if err != nil {
			return nil, err
		}
		u, err := b.check(name, password, from)
		if err == nil {
			b.log(6, 611101, "User authentication succeeded: IP address: %s, Uname: %s", from, u.Name)
			return u, nil
		}
		b.log(6, 611102, "User authentication failed: IP address: %s, Uname: %s", from, shown(name))
		fmt.Fprintln(t, "Login incorrect")
	}
	return nil, nil
}

// shown is the name of somebody who may be nobody, for a message: it may be a
// password that was typed too early.
func shown(string) string { return "*****" }

func help(s *Session, w io.Writer, _ cli.Args) error {
	_, err := io.WriteString(w, `Help may be asked for at any point of a command by typing "?".
A word that is followed by "?" shows the words that begin like it; a space and
"?" shows what may follow. Tab completes a word. If nothing matches, nothing is shown.
What is shown may be filtered: "show conn | include 2443"; or be JSON: "show conn | json".
`)
	return err
}

// A shownUser is who has a session, and what it may do.
type shownUser struct {
	Name  string           `json:"username"`
	Level int              `json:"privilege"`
	Modes cli.List[string] `json:"modes"`
}

func showCurpriv(s *Session, _ cli.Args) (shownUser, error) {
	modes := []string{"P_PRIV"}
	switch {
	case s.config:
		modes = []string{"P_PRIV", "P_CONF"}
	case s.level <= userPrivilege:
		modes = []string{"P_UNPR"}
	}
	return shownUser{s.name(), s.level, modes}, nil
}

func (u shownUser) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "Username : %s\nCurrent privilege level : %d\nCurrent Mode/s : %s\n", u.Name, u.Level, strings.Join(u.Modes, " "))
}

type shownHistory struct {
	Commands cli.List[string] `json:"commands"` // the first first
}

func showHistory(s *Session, _ cli.Args) (shownHistory, error) {
	return shownHistory{slices.Clone(s.t.edit.history)}, nil
}

func (h shownHistory) Text(w *bufio.Writer) {
	for _, line := range h.Commands {
		fmt.Fprintf(w, "  %s\n", line)
	}
}

func clearHistory(s *Session, _ io.Writer, _ cli.Args) error {
	s.t.edit.history = nil
	return nil
}

func terminalPager(s *Session, _ io.Writer, a cli.Args) error {
	s.t.page = a.Int("n", 0)
	return nil
}

type shownPager struct {
	Lines int `json:"lines"` // of a page; 0 is no paging
}

func showPager(s *Session, _ cli.Args) (shownPager, error) { return shownPager{s.t.page}, nil }

func (p shownPager) Text(w *bufio.Writer) {
	if p.Lines == 0 {
		w.WriteString("no pager\n")
		return
	}
	fmt.Fprintf(w, "pager lines %d\n", p.Lines)
}

func showLocalUsers(s *Session, _ cli.Args) (localUsers, error) { return s.box.localUsers(), nil }

func clearLockout(s *Session, _ io.Writer, a cli.Args) error {
	s.box.keeper.unlock(a.Get("who"))
	return nil
}
