package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"patchbay/appliance/cli"
)

// An Entered is what a line that was typed makes of a configuration. If a
// Finding is an Error nothing has changed.
type Entered struct {
	Text     Text
	At       Place     // where the next line is typed
	Done     bool      // configuration mode is left
	Action   *Action   // to be done; it is not configuration
	Findings []Finding // of the line: Text is as it was typed and Line is 1
}

// An Action is a command that is typed in configuration mode and is not kept:
// "crypto key generate", "crypto ca enroll" and their like.
type Action struct {
	Line string   // in full
	Args cli.Args // by the syntax of the command
}

// Enter obeys one line typed at a place: the command is added to the text or
// takes the place of what it replaces; "no" takes back what begins with the
// words after it; "clear configure" a whole section; "exit" and "end" leave. A
// sub-mode ends at the first line that is not valid in it and is valid around
// it.
//
// The text that results is parsed and validated: a line by which something in it
// would become wrong is refused, and so is one by which a phone proxy at work, or
// a part of it, would change under it.
func (t Text) Enter(at Place, typed string) Entered {
	e := entry{Entered: Entered{Text: t, At: at}, old: t.parsed(), typed: typed, back: at}
	e.enter()
	if Errors(e.Findings) > 0 {
		e.Text, e.At, e.Action = t, e.back, nil
	}
	return e.Entered
}

// An entry is one line being obeyed.
type entry struct {
	Entered
	old   *parsed
	typed string
	back  Place // where the next line is typed after an error
	whole bool  // the line is not one of those that make a stanza: warnings on other lines are told
}

func (e *entry) say(s Severity, col int, rule, format string, args ...any) {
	e.add(Finding{Severity: s, Column: col, Rule: rule, Msg: fmt.Sprintf(format, args...)})
}

// add says a finding once, of the line typed.
func (e *entry) add(f Finding) {
	f.Line, f.Text, f.Msg = 1, clean(e.typed), printable(f.Msg)
	if !slices.Contains(e.Findings, f) {
		e.Findings = append(e.Findings, f)
	}
}

func (e *entry) refuse(col int, rule, format string, args ...any) {
	e.say(Error, col, rule, format, args...)
}

func (e *entry) enter() {
	words := cli.Split(e.typed)
	switch {
	case len(e.typed) > maxLine:
		e.typed = e.typed[:64] + " ..."
		e.refuse(0, "", "a line of %d bytes is too long: %d at most", len(e.typed), maxLine)
		return
	case !utf8.ValidString(e.typed) || strings.ContainsFunc(e.typed, isControl):
		e.refuse(0, "", "the line is not text: it contains control characters or bytes that are not UTF-8")
		return
	case e.At.cert != nil:
		e.certificate()
		return
	case len(words) == 0 || words[0].Text[0] == '!' || words[0].Text[0] == ':':
		return
	}
	if e.At.mode != global && at(e.Text.lines(), e.At.path) == nil {
		e.At = Place{} // another session has removed it
	}
	if m, err := asa().modes[e.At.mode].moves.Match(e.typed, nil); err == nil {
		e.move(m)
		return
	}
	if m, err := asa().actions.Match(e.typed, e.old.parser.check); err == nil && spelled(e.typed, m.Args) {
		e.At = Place{}
		e.act(m)
		return
	}
	if words[0].Text == "no" || strings.EqualFold(words[0].Text, "no") {
		e.negative()
		return
	}
	e.positive()
}

// act hands a command on that is no configuration.
func (e *entry) act(m *cli.Match[action]) {
	var full []string
	for _, w := range m.Args.Words() {
		full = append(full, w.Text)
	}
	name := m.Args.Get("tp")
	if name != "" && e.old.run.Trustpoint(name) == nil {
		e.refuse(m.Args.Token("tp").Col, "V04", "there is no trustpoint %s; %s", name, nearestOf(name, e.old.run.trustpointNames()))
		return
	}
	e.Action = &Action{Line: strings.Join(full, " "), Args: m.Args}
}

// positive adds a line.
func (e *entry) positive() {
	p := *e.old.parser
	p.mode = e.At.mode
	p.text = e.typed
	f := p.find(e.At.modes(), e.typed)
	if f.match == nil || f.match.Rule.Do.refuse != "" {
		e.explain(&p, f)
		return
	}
	place := e.At.up(f.mode)
	if f.mode == inChain && f.match.Rule.Do.inert == "" {
		e.At = place
		e.At.cert = &certEntry{trustpoint: e.trustpoint(place), ca: f.match.Args.Has("ca")}
		return
	}
	list, nth := p.placedLines(f.mode, f.match, e.proto(place))
	lines := e.Text.lines()
	for _, l := range list {
		lines, _ = change(lines, place.path, func(below []*line) []*line { return put(below, l, nth) })
	}
	if l := list[0]; l.mode == inInterface && at(e.Text.lines(), []string{l.key}) == nil && !strings.Contains(l.key, ".") {
		// As on an ASA hardware is down until it is told otherwise.
		lines, _ = change(lines, []string{l.key}, func([]*line) []*line {
			return []*line{keywordLine(inInterface, global, "", "shutdown", "shutdown")}
		})
	}
	e.At = place
	e.whole = place.Global()
	if l := list[len(list)-1]; l.mode != global {
		e.whole = false
		e.At = place.in(l.mode, l.key)
	}
	e.become(lines, list)
	e.level(list[0], lines)
}

// level tells the level that an interface got with its name.
func (e *entry) level(l *line, lines []*line) {
	if Errors(e.Findings) > 0 || l.in != inInterface || l.key != "nameif" || l.words[0].text == "no" {
		return
	}
	key := func(l *line) bool { return l.key == "security-level" && l.words[0].text != "no" }
	before, after := at(e.old.lines, e.At.path), at(lines, e.At.path)
	if i := slices.IndexFunc(after.below, key); i >= 0 && !slices.ContainsFunc(before.below, key) {
		e.say(Info, 0, "", "Security level for %q set to %s by default.", l.words[1].text, after.below[i].words[1].text)
	}
}

// trustpoint is whose chain a place is in.
func (e *entry) trustpoint(p Place) string {
	l := at(e.Text.lines(), p.path)
	return l.words[len(l.words)-1].text
}

// proto is the protocol of the ports of the stanza at p, if it is the stanza
// that says it.
func (e *entry) proto(p Place) string {
	l := at(e.Text.lines(), p.path)
	if l == nil || l.mode != inServiceGroup || len(l.words) < 4 {
		return ""
	}
	return l.words[3].text
}

// explain says why there is no such command.
func (e *entry) explain(p *parser, f finder) {
	if _, err := asa().modes[e.At.mode].moves.Match(e.typed, nil); err != nil && err.Words > 0 && (f.match != nil || err.Words >= f.err.Words) {
		f = finder{err: err}
	}
	tok, why := p.why(f)
	e.refuse(tok.Col, "", "%s", why)
}

// become makes lines the text, if nothing in them is wrong that was not before.
// list are the lines that were typed.
func (e *entry) become(lines []*line, list []*line) {
	if found := e.locked(lines); found {
		return
	}
	t := newText(lines)
	x := t.parsed()
	before := make(map[string]int)
	for _, f := range e.old.found {
		before[e.old.signature(f)]++
	}
	for _, f := range x.found {
		if s := x.signature(f); before[s] > 0 {
			before[s]--
			continue
		}
		var l *line
		if f.Line <= len(x.at) {
			l = x.at[f.Line-1]
		}
		mine := l != nil && slices.ContainsFunc(l.parts(), func(o *line) bool {
			return slices.ContainsFunc(list, func(m *line) bool { return m.key == o.key && m.in == o.in && m.text() == o.text() })
		})
		if f.Severity == Error || e.whole || mine && l.mode == global {
			e.found(f, x.quoted(f), mine)
		}
	}
	if Errors(e.Findings) > 0 { // warnings are of what will not be
		e.Findings = slices.DeleteFunc(e.Findings, func(f Finding) bool { return f.Severity != Error })
	}
	e.Text = t
}

// found reports a finding of the text that would be: on the line typed, or on
// another, which is then quoted.
func (e *entry) found(f Finding, msg string, mine bool) {
	if mine {
		col := 0
		if f.Column > 0 {
			if words := cli.Split(f.Text[f.Column-1:]); len(words) > 0 {
				col = lastWord(e.typed, words[0].Text).Col
			}
		}
		e.add(Finding{Severity: f.Severity, Column: col, Rule: f.Rule, Msg: msg, KeyPair: f.KeyPair})
		return
	}
	msg = fmt.Sprintf("in %q: %s", strings.TrimSpace(f.Text), msg)
	e.add(Finding{Severity: f.Severity, Rule: f.Rule, Msg: msg, KeyPair: f.KeyPair})
}

var lineNumber = regexp.MustCompile(`\bline \d+\b`)

// quoted returns the message of a finding about x with lines in place of their
// numbers, which mean nothing to who types and change when lines are added.
func (x *parsed) quoted(f Finding) string {
	return lineNumber.ReplaceAllStringFunc(f.Msg, func(s string) string {
		n, err := strconv.Atoi(s[len("line "):])
		if err != nil || n < 1 || n > len(x.run.Lines) {
			return s
		}
		return strconv.Quote(strings.TrimSpace(clean(x.run.Lines[n-1].Text)))
	})
}

// signature is what makes two findings the same although their lines moved.
func (x *parsed) signature(f Finding) string {
	return fmt.Sprint(f.Severity, f.Rule, strings.TrimSpace(f.Text), "\x00", x.quoted(f))
}

// certificate takes a line of a certificate in hexadecimal.
func (e *entry) certificate() {
	c := *e.At.cert
	place := Place{mode: e.At.mode, path: e.At.path}
	e.back = place
	if !strings.EqualFold(strings.TrimSpace(e.typed), "quit") {
		c.lines = append(slices.Clip(c.lines), e.typed)
		e.At.cert = &c
		if c.size += len(e.typed) + 1; c.size > 2*maxCertificate {
			e.refuse(0, "", "the certificate is longer than %d bytes", maxCertificate)
		}
		return
	}
	e.At = place
	b := certBlock{ca: c.ca, hex: true}
	for _, l := range c.lines {
		b.text = append(b.text, strings.Join(strings.Fields(l), "")...)
	}
	der, err := b.decode()
	if err != nil {
		e.refuse(0, "", "a certificate in hexadecimal and a line quit must follow: %v", err)
		return
	}
	if at(e.Text.lines(), place.path) == nil {
		e.At = Place{}
		e.refuse(0, "", "trustpoint %s is not there any more", c.trustpoint)
		return
	}
	e.become(withCertificate(e.Text.lines(), c.trustpoint, c.ca, der), nil)
}
