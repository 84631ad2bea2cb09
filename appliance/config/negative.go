package config

import (
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

// A move is a command of the session and not of the configuration.
type move uint8

const (
	leave  move = iota // the mode
	finish             // configuration
	clearSection
)

// moves are known in every mode.
func moves(m modeID) []cli.Rule[move] {
	list := []cli.Rule[move]{
		{Syntax: "exit", Help: "Exit from the current mode", Do: leave},
		{Syntax: "end", Help: "Exit from configuration mode", Do: finish},
		{Syntax: "clear configure <what:line>", Help: "Clear a section of the configuration", Do: clearSection},
	}
	if m != inChain { // where it ends a certificate
		list = append(list, cli.Rule[move]{Syntax: "quit", Help: "Exit from the current mode", Do: leave})
	}
	return list
}

// move obeys a move.
func (e *entry) move(m *cli.Match[move]) {
	switch m.Rule.Do {
	case leave:
		e.Done = e.At.Global()
		e.At = e.At.out()
	case finish:
		e.At, e.Done = Place{}, true
	case clearSection:
		e.clear(m.Args)
	}
}

// negative takes lines back: those that begin with the words after "no".
func (e *entry) negative() {
	no := cli.Split(e.typed)[0]
	col := no.Col + len(no.Text) - 1
	rest := e.typed[col:]
	words := cli.Split(rest)
	if len(words) == 0 {
		e.refuse(len(e.typed)+2, "", "%% Incomplete command: what is missing: what to take back")
		return
	}
	p := *e.old.parser
	p.mode, p.text = e.At.mode, e.typed
	worst, deepest := finder{}, -1
	for _, id := range e.At.modes() {
		explicit, err := p.lang.modes[id].grammar.Match(e.typed, p.check)
		if err == nil && explicit.Rule.Do.refuse != "" {
			explicit = nil
		}
		matches, err := p.lang.modes[id].positive.Begin(rest, p.check)
		if last := words[len(words)-1]; err != nil && strings.EqualFold(last.Text, "noconfirm") {
			if m, again := p.lang.modes[id].positive.Begin(rest[:last.Col-1], p.check); again == nil {
				matches, err = m, nil
			}
		}
		if err == nil && explicit == nil {
			matches, err = enough(matches, words, rest)
		}
		if err != nil && explicit == nil {
			err.Token.Col += col
			if err.Words > deepest {
				deepest, worst = err.Words, finder{mode: id, err: err, expected: err.Expected}
			}
			continue
		}
		if deepest > 0 && explicit == nil && !spelled(rest, matches[0].Args) {
			continue
		}
		e.takeBack(&p, e.At.up(id), explicit, matches)
		return
	}
	p.text = rest
	e.explain(&p, worst)
}

// enough returns those of matches in which the words say what is meant: all
// keywords that the command begins with, and a word more where it has many lines.
func enough(matches []cli.Match[action], words []cli.Token, rest string) ([]cli.Match[action], *cli.Error) {
	matches = slices.DeleteFunc(matches, func(m cli.Match[action]) bool {
		lead := cli.Lead(m.Rule.Syntax)
		need := len(lead)
		switch item := m.Rule.Do.form.item; {
		case item == loose.item && strings.HasPrefix(strings.TrimPrefix(m.Rule.Syntax, "[no] "), strings.Join(lead, " ")+" {"),
			(item == "" || strings.Contains(item, "$")) && strings.ContainsAny(m.Rule.Syntax, "<{["):
			need++
		}
		return len(m.Args.Words()) < need
	})
	if len(matches) > 0 {
		return matches, nil
	}
	return nil, &cli.Error{Kind: cli.Incomplete, Words: len(words), Token: cli.Token{Col: len(rest) + 2}, Expected: []string{"which of them"}}
}

// takeBack removes from the stanza at place the lines that one of matches means.
// Of an explicit "no" it keeps the line itself where what it negates would hold
// without it.
func (e *entry) takeBack(p *parser, place Place, explicit *cli.Match[action], matches []cli.Match[action]) {
	lines := e.Text.lines()
	siblings := lines
	if l := at(lines, place.path); l != nil {
		siblings = l.below
	}
	gone := make(map[*line]bool)
	proto := e.proto(place)
	for _, m := range matches {
		for _, l := range p.linesOf(place.mode, &m, proto) {
			for _, o := range siblings {
				gone[o] = gone[o] || o.words[0].name != "no" && negates(l.words, o.words)
			}
		}
	}
	var kept []*line
	so := explicit != nil // it is so already
	if explicit != nil {
		for _, l := range p.linesOf(place.mode, explicit, proto) {
			i := slices.IndexFunc(siblings, func(o *line) bool { return o.key == l.key })
			switch {
			case i >= 0 && siblings[i].words[0].name == "no":
				continue
			case i >= 0:
				gone[siblings[i]] = true
			}
			switch {
			case isDefault(l):
			case negatesDefault(l) || place.mode == inInterface || printedNo(l):
				kept = append(kept, l)
			default:
				so = false
			}
		}
	}
	withTrustpoints(siblings, gone)
	e.At, e.whole = place, true
	lines, _ = change(lines, place.path, func(below []*line) []*line {
		below = slices.DeleteFunc(slices.Clone(below), func(l *line) bool { return gone[l] })
		for _, l := range kept {
			below = put(below, l, 0)
		}
		if place.mode == inInterface && slices.ContainsFunc(below, func(l *line) bool { return l.key == "nameif" && l.words[0].text != "no" }) &&
			!slices.ContainsFunc(below, func(l *line) bool { return l.key == "security-level" }) {
			below = with(below, keywordLine(inInterface, global, "security-level", "0", "security-level"), 0) // what it is then
		}
		return below
	})
	if kept == nil && equalLines(lines, e.Text.lines()) {
		if !so {
			e.say(Warning, 0, "", "nothing of the configuration begins with these words: nothing is changed")
		}
		return
	}
	e.become(lines, kept)
}

// withTrustpoints adds to the lines that go what goes with a trustpoint: its
// certificates.
func withTrustpoints(lines []*line, gone map[*line]bool) {
	for _, tp := range lines {
		if tp.mode != inTrustpoint || !gone[tp] {
			continue
		}
		name := tp.words[len(tp.words)-1].text
		for _, l := range lines {
			if l.mode == inChain && l.words[len(l.words)-1].text == name ||
				beginWith(l.words, []string{"crypto", "ca", "enroll", name}) || beginWith(l.words, []string{"crypto", "ca", "authenticate", name}) {
				gone[l] = true
			}
		}
	}
}

// negatesDefault reports whether l takes back what would hold without it.
func negatesDefault(l *line) bool {
	if l.in == global && strings.HasPrefix(l.key, "logging message ") {
		return true
	}
	d := defaultOf(l)
	return d != nil && d.words[0].name != "no" && !isDefault(l)
}

// printed are the beginnings of what the ASA prints with "no" where nothing is
// set. (reference/asa-cli.md, section 2.)
var printed = []string{
	"names", "failover", "snmp-server location", "snmp-server contact", "asdm history enable", "arp permit-nonconnected",
	"call-home reporting anonymous", "threat-detection statistics tcp-intercept", "service password-recovery", "ftp mode passive",
	"message-length maximum client auto", "logging hide username", "monitor-interface",
}

// printedNo reports whether l stands in a configuration where nothing is set.
func printedNo(l *line) bool {
	return slices.ContainsFunc(printed, func(s string) bool { return strings.HasPrefix(textOf(l.words[1:]), s) })
}

// negates reports whether "no" and the words typed take back the line of words
// kept: it begins with them.
func negates(typed, kept []word) bool {
	for i, w := range typed {
		switch {
		case w.name == "noconfirm" && i == len(typed)-1:
		case i >= len(kept):
			return false
		case w.text == kept[i].text || w.name == kept[i].name && strings.EqualFold(w.text, kept[i].text):
		case i < len(typed)-1 || w.name != kept[i].name || !strings.HasPrefix(kept[i].text, w.text+" "): // text of many words
			return false
		}
	}
	return true
}

// clear is "clear configure": what begins with its words goes.
func (e *entry) clear(a cli.Args) {
	e.At = Place{}
	what := a.Token("what")
	if strings.EqualFold(what.Text, "all") {
		e.become(nil, nil)
		return
	}
	words, err := sectionWords(strings.Fields(what.Text))
	if err != nil {
		e.refuse(what.Col, "", "%v", err)
		return
	}
	e.become(slices.DeleteFunc(slices.Clone(e.Text.lines()), func(l *line) bool {
		return row{line: l, rank: l.rank}.begins(words) && l.words[0].text != "no"
	}), nil)
}
