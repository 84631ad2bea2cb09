package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"patchbay/appliance"
	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// A Who is whose session it is.
type Who struct {
	User  string // "" where nobody had to log in
	From  string // an address, or "console"
	Level int    // of privilege, to begin with; 0 is that of user EXEC mode
}

// A Session is one conversation with the box. It is for one goroutine.
type Session struct {
	box   *Box
	t     *terminal
	who   Who
	began time.Time

	level  int // privilege now: 1 in user EXEC mode
	config bool
	at     config.Place // where configuration is typed
	left   bool         // it is over
	shown  cli.Shown    // what a show command has found out, until perform has written it

	undebug   func() // ends what debug shows here
	unmonitor func() // the same for messages
}

// Console serves the one console that the box has, session after session, until
// there is nothing more to read or ctx ends.
func (b *Box) Console(ctx context.Context, tr Transport) error {
	t := newTerminal(ctx, tr, func() time.Duration { return 0 })
	for first := true; ; first = false {
		if !first {
			fmt.Fprintf(rawWriter{t}, "Press Enter to get started\n")
			if _, err := t.edit.key(); err != nil {
				return ended(ctx, err)
			}
		}
		who := Who{From: fromConsole}
		if l := b.login(); l.SerialLocal {
			u, err := b.askLogin(t, fromConsole)
			if err != nil && !errors.Is(err, errInterrupt) && !errors.Is(err, errLeave) {
				return ended(ctx, err)
			}
			if u == nil {
				continue
			}
			who.User = u.Name
			if l.AutoEnable {
				who.Level = u.Privilege
			}
		}
		if err := b.Serve(ctx, tr, who); err != nil {
			return ended(ctx, err)
		}
	}
}

// ended is what is wrong with the end of a console: nothing if its input or ctx
// has ended.
func ended(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Exec does one command of the privileged EXEC mode for a program: it shows on w
// and asks nothing. What is refused is the error. See
// appliance.Appliance.ExecContext.
func (b *Box) Exec(ctx context.Context, w io.Writer, line string) error {
	in := NewInput(strings.NewReader(""))
	defer in.Close()
	s := b.session(ctx, Transport{In: in, Out: w}, Who{From: fromProgram, Level: maxPrivilege})
	defer b.leave(s)
	text, pipe, filtered := splitFilter(line)
	m, bad := s.grammar().Match(text, s.checkWord)
	if bad != nil {
		return &appliance.Refusal{Line: text, Col: bad.Token.Col, Text: bad.Error(), Why: bad.Reason}
	}
	s.logCommand(m, line)
	err := s.perform(m, text, pipe, filtered)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("ERROR: % The command asks for an answer, and there is nobody to give one; log in to the box")
	case err == nil && (s.config || s.left):
		return errors.New("ERROR: % The command is for who has logged in to the box")
	}
	return err
}

// Serve talks until the user leaves, is idle for too long or ctx ends. It is
// io.EOF that there was nothing more to read.
func (b *Box) Serve(ctx context.Context, tr Transport, who Who) error {
	s := b.session(ctx, tr, who)
	defer b.leave(s)
	s.banner(config.BannerExec)
	if tr.Terminal {
		fmt.Fprintf(s.t, "Type help or '?' for a list of available commands.\n")
	}
	return s.run()
}

// Do does one command, as "ssh box COMMAND" wants it. It reports whether the
// command was done.
func (b *Box) Do(ctx context.Context, tr Transport, who Who, line string) bool {
	s := b.session(ctx, tr, who)
	defer b.leave(s)
	return s.do(line)
}

func (b *Box) session(ctx context.Context, tr Transport, who Who) *Session {
	s := &Session{box: b, who: who, began: b.opt.Now(), level: max(who.Level, userPrivilege)}
	said := newNotes()
	s.undebug, s.unmonitor = func() {}, func() {}
	if who.From != fromProgram { // whose debug is shown elsewhere, and goes on
		ctx, s.undebug = b.opt.App.DebugTo(ctx, said.put)
	}
	s.t = newTerminal(ctx, tr, s.idle)
	s.t.notes = said
	s.t.page = b.login().Pager
	s.t.edit.help, s.t.edit.complete = s.help, s.complete
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[s] = struct{}{}
	return s
}

func (b *Box) leave(s *Session) {
	s.undebug()
	s.unmonitor()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, s)
}

// idle is how long the session may wait for a key.
func (s *Session) idle() time.Duration {
	if s.who.From == fromConsole {
		return s.box.login().ConsoleIdle
	}
	return s.box.login().SSHIdle
}

// run reads commands and does them.
func (s *Session) run() error {
	for !s.left {
		line, err := s.t.line(s.prompt(), "")
		switch {
		case errors.Is(err, errInterrupt):
			continue
		case errors.Is(err, errLeave):
			s.config, s.at = false, config.Place{}
			continue
		case errors.Is(err, errIdle):
			fmt.Fprintf(rawWriter{s.t}, "\n\n%s\n", "Session idle for too long: logged out")
			return nil
		case errors.Is(err, io.EOF):
			fmt.Fprintf(rawWriter{s.t}, "\n")
			return io.EOF
		case err != nil:
			return err
		}
		if !s.t.Terminal && strings.HasSuffix(strings.TrimRight(line, " "), "?") {
			s.help(strings.TrimSuffix(strings.TrimRight(line, " "), "?"))
			continue
		}
		s.do(line)
	}
	return s.t.err
}

// prompt is what stands before what is typed.
func (s *Session) prompt() string {
	switch {
	case s.config:
		mode := s.at.Prompt()
		if mode == "" {
			return "" // of a certificate's lines
		}
		return s.box.running().Name() + mode + "# "
	case s.level > userPrivilege:
		return s.box.running().Name() + "# "
	}
	return s.box.running().Name() + "> "
}

// do does one line. It reports whether it was obeyed.
func (s *Session) do(line string) bool {
	s.t.begin()
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == utf8.RuneError }) || len(line) > maxLine {
		return s.refuse("%% The line has control characters, is not UTF-8 or is longer than %d bytes", maxLine)
	}
	if text := strings.TrimSpace(line); text == "" || text[0] == '!' || text[0] == ':' {
		if !s.config || s.at.Prompt() != "" {
			return true
		}
	}
	if !s.config || s.at.Prompt() != "" { // else it is a certificate's
		s.t.edit.remember(clean(line))
	}
	if s.config {
		return s.configure(line)
	}
	return s.exec(line)
}

// refuse says why a command is not done.
func (s *Session) refuse(format string, args ...any) bool {
	fmt.Fprintf(s.t, "ERROR: "+format+"\n", args...)
	return false
}

// caret says which word of a line is wrong.
func (s *Session) caret(line string, col int, text, why string) bool {
	if col > 0 && strings.Contains(text, "'^'") {
		before := utf8.RuneCountInString(s.prompt())
		if !s.t.Terminal {
			fmt.Fprintln(s.t, line)
			before = 0
		}
		fmt.Fprintln(s.t, cli.Caret(strings.Repeat(" ", before)+line, before+col))
	}
	if why != "" {
		text += "\n" + why
	}
	return s.refuse("%s", text)
}

// exec does a command of user or privileged EXEC mode.
func (s *Session) exec(line string) bool {
	command, pipe, filtered := splitFilter(line)
	m, err, denied := s.match(command)
	switch {
	case denied != nil:
		return s.deny(line, denied)
	case err != nil:
		return s.caret(command, err.Token.Col, err.Error(), err.Reason)
	}
	return s.command(m, line, command, pipe, filtered)
}

// deny says that the session may not do a line, and logs it.
func (s *Session) deny(line string, why error) bool {
	s.box.opt.Log.Warn("a command is not authorized", "user", s.name(), "from", s.who.From, "privilege", s.level, "command", clean(strings.TrimSpace(line)))
	return s.refuse("%v", why)
}

// command does a command that is known.
func (s *Session) command(m *cli.Match[command], line, text, pipe string, filtered bool) bool {
	s.logCommand(m, line)
	return s.outcome(text, s.perform(m, text, pipe, filtered))
}

// perform does a command and shows what passes the filter.
func (s *Session) perform(m *cli.Match[command], text, pipe string, filtered bool) (err error) {
	defer s.t.breakable()()
	w := io.Writer(&untilWriter{ctx: s.t.running, w: s.t})
	var f *filter
	if filtered {
		if f, err = newFilter(pipe, s.t); err != nil {
			return err
		}
	}
	if f != nil {
		w = &untilWriter{ctx: s.t.running, w: f}
	}
	asJSON := filtered && f == nil
	switch do := m.Rule.Do.do; {
	case do != nil && asJSON:
		if err = do(s, io.Discard, m.Args); err == nil && s.shown == nil {
			err = errors.New("% This command cannot be shown as JSON")
		}
	case do != nil:
		err = do(s, w, m.Args)
	case cli.Shows(text):
		s.shown, err = s.find(strings.TrimSpace(text))
	default:
		err = s.ask(w, strings.TrimSpace(text))
	}
	if s.shown != nil && err == nil {
		err = cli.Show(w, s.shown, asJSON)
	}
	s.shown = nil
	if f != nil && err == nil {
		err = f.close()
	}
	return err
}

// find has the appliance find out what a show command shows.
func (s *Session) find(line string) (cli.Shown, error) {
	found, err := s.box.opt.App.Shown(s.t.running, line)
	if s.t.running.Err() != nil {
		return nil, context.Cause(s.t.running)
	}
	return found, err
}

// maxPasted bounds a certificate or a PKCS #12 file in base64, in bytes.
const maxPasted = 256 * 1024

// ask has the appliance do a command, with the text that must follow some. What it
// puts into trustpoints becomes part of the configuration.
func (s *Session) ask(w io.Writer, line string) error {
	answer := s.t.yes
	if s.who.From == fromProgram {
		answer = nil
	}
	err := s.box.opt.App.ExecAsking(s.t.running, w, line, nil, answer)
	var need *appliance.NeedText
	if errors.As(err, &need) {
		fmt.Fprintln(w, need.Prompt)
		var pasted strings.Builder
		for {
			row, err := s.t.ask("", false)
			if err != nil {
				return err
			}
			if strings.EqualFold(strings.TrimSpace(row), "quit") {
				break
			}
			if pasted.Len()+len(row) > maxPasted {
				return fmt.Errorf("%% The text is longer than %d bytes", maxPasted)
			}
			pasted.WriteString(row + "\n")
		}
		err = s.box.opt.App.ExecAsking(s.t.running, w, line, []byte(pasted.String()), answer)
	}
	if err == nil && strings.HasPrefix(line, "cr") {
		err = s.box.certify(importedAs(line))
	}
	if err != nil && s.t.running.Err() != nil {
		return context.Cause(s.t.running)
	}
	return err
}

// importedAs returns the trustpoint of "crypto ca import TRUSTPOINT pkcs12", "" of
// any other command. Keywords may be abbreviated.
func importedAs(line string) string {
	m, err := allCommands().Match(line, nil)
	if err != nil || !m.Args.Has("import") || !m.Args.Has("pkcs12") {
		return ""
	}
	return m.Args.Get("tp")
}

// outcome says what went wrong with a command, if anything.
func (s *Session) outcome(line string, err error) bool {
	var refusal *appliance.Refusal
	switch {
	case err == nil, errors.Is(err, errQuit):
		return true
	case errors.Is(err, errInterrupt), errors.Is(err, errLeave):
		if s.t.part {
			fmt.Fprintln(rawWriter{s.t})
		}
		return false
	case errors.Is(err, errIdle), errors.Is(err, io.EOF), s.t.ctx.Err() != nil, s.t.err != nil:
		s.left = true // nobody answers any more
		return false
	case errors.As(err, &refusal):
		return s.caret(line, refusal.Col, refusal.Text, refusal.Why)
	}
	return s.refuse("%v", err)
}

// configure obeys a line of configuration. As on the ASA commands of EXEC mode
// may be typed in configuration mode too, where nothing there is like them.
func (s *Session) configure(line string) bool {
	at := s.at
	var e config.Entered
	forbidden := s.mayConfigure(line)
	if forbidden == nil {
		e = s.box.Enter(at, line)
	}
	if (forbidden != nil || config.Errors(e.Findings) > 0) && at.Prompt() != "" {
		command, pipe, filtered := splitFilter(line)
		m, err, denied := s.match(command)
		switch {
		case denied != nil:
			return s.deny(line, denied)
		case err != nil && forbidden != nil:
			return s.deny(line, forbidden)
		case err == nil:
			return s.command(m, line, command, pipe, filtered)
		case err.Words > 0 && e.Findings[0].Column == cli.Split(line)[0].Col:
			return s.caret(command, err.Token.Col, err.Error(), err.Reason)
		}
	}
	before := utf8.RuneCountInString(s.prompt())
	for _, f := range e.Findings {
		if !s.t.Terminal && f.Column > 0 {
			fmt.Fprintf(s.t, "%s\n%s\n", f.Text, f.Reply(0))
			continue
		}
		fmt.Fprintln(s.t, f.Reply(before))
	}
	s.at = e.At
	if e.Done {
		s.config, s.at = false, config.Place{}
	}
	if config.Errors(e.Findings) > 0 {
		return false
	}
	if at.Prompt() != "" {
		s.box.log(5, 111008, "User '%s' executed the '%s' command.", s.name(), clean(line))
		s.box.log(5, 111010, "User '%s', running 'CLI' from IP %s, executed '%s'", s.name(), s.address(), clean(line))
	}
	if e.Action != nil {
		end := s.t.breakable()
		err := s.ask(&untilWriter{ctx: s.t.running, w: s.t}, e.Action.Line)
		end()
		return s.outcome(line, err)
	}
	return true
}

// name is the user's, or the ASA's name for who has not logged in.
func (s *Session) name() string {
	switch {
	case s.who.User != "":
		return s.who.User
	case s.level > userPrivilege:
		return fmt.Sprintf("enable_%d", s.level)
	}
	return "enable_1"
}

// address is where the session comes from, as messages name it.
func (s *Session) address() string {
	if s.who.From == fromConsole || s.who.From == fromProgram {
		return "0.0.0.0"
	}
	return s.who.From
}

// clean makes a command fit to log and to remember: secrets become stars.
func clean(line string) string { return config.Clean(appliance.Redact(line)) }

// logCommand logs a command that is about to be done.
func (s *Session) logCommand(m *cli.Match[command], line string) {
	line = clean(strings.TrimSpace(line))
	if words := m.Args.Words(); words[0].Text == "show" {
		s.box.log(7, 111009, "User '%s' executed cmd: %s", s.name(), line)
		return
	}
	s.box.log(5, 111008, "User '%s' executed the '%s' command.", s.name(), line)
}

// banner shows a banner of the configuration.
func (s *Session) banner(k config.BannerKind) {
	if lines := s.box.login().Banner[k]; len(lines) > 0 && s.t.Terminal {
		fmt.Fprintf(rawWriter{s.t}, "\n%s\n", strings.Join(lines, "\n"))
	}
}
