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
	rest, _ := strings.CutPrefix(strings.TrimLeft(e.typed, " \t"), e.typed[cli.Split(e.typed)[0].Col-1:][:2])
	col := strings.Index(e.typed, rest)
	p := *e.old.parser
	p.mode, p.text = e.At.mode, e.typed
	worst := finder{}
	deepest := -1
	for _, id := range e.At.modes() {
		place := e.At.up(id)
		explicit, err := p.lang.modes[id].grammar.Match(e.typed, p.check)
		if err == nil && explicit.Rule.Do.refuse != "" {
			explicit = nil
		}
		matches, errBegin := p.lang.modes[id].positive.Begin(rest, p.check)
		if errBegin != nil && explicit == nil {
			errBegin.Token.Col += col
			errBegin.Words++
			if errBegin.Words > deepest {
				deepest, worst = errBegin.Words, finder{mode: id, err: errBegin, expected: errBegin.Expected}
			}
			continue
		}
		if deepest > 1 && len(matches) > 0 && !spelled(rest, matches[0].Args) {
			continue
		}
		if len(cli.Split(rest)) == 0 {
			e.refuse(len(e.typed)+2, "", "%% Incomplete command: what is missing: what to take back")
			return
		}
		e.takeBack(&p, place, explicit, matches)
		return
	}
	e.explain(&p, worst)
}

// takeBack removes from the stanza at place the lines that one of matches means,
// and keeps the line itself where what it negates would hold without it.
func (e *entry) takeBack(p *parser, place Place, explicit *cli.Match[action], matches []cli.Match[action]) {
	lines := e.Text.lines()
	siblings := lines
	if l := at(lines, place.path); l != nil {
		siblings = l.below
	}
	gone := make(map[*line]bool)
	proto := e.proto(place)
	for _, m := range matches {
		l := p.linesOf(place.mode, &m, proto)
		for _, l := range l {
			for _, o := range siblings {
				if o.words[0].name != "no" && negates(l.words, o.words) {
					gone[o] = true
				}
			}
		}
	}
	var kept []*line
	if explicit != nil {
		for _, l := range p.linesOf(place.mode, explicit, proto) {
			i := slices.IndexFunc(siblings, func(o *line) bool { return o.key == l.key })
			switch {
			case i >= 0 && siblings[i].words[0].name != "no":
				gone[siblings[i]] = true
			case i >= 0:
				gone[siblings[i]] = false
			}
			if !isDefault(l) && (len(gone) == 0 || negatesDefault(l) || place.mode == inInterface || l.key == "names") {
				kept = append(kept, l)
			}
		}
	}
	e.At = place
	for l, is := range gone {
		if !is {
			delete(gone, l)
		}
	}
	if len(gone) == 0 && kept == nil {
		if explicit == nil {
			e.say(Warning, 0, "", "nothing of the configuration begins with these words: nothing is changed")
		}
		return
	}
	lines, _ = change(lines, place.path, func(below []*line) []*line {
		below = slices.DeleteFunc(slices.Clone(below), func(l *line) bool { return gone[l] })
		for _, l := range kept {
			below = put(below, l, 0)
		}
		return below
	})
	e.become(lines, kept)
}

// negatesDefault reports whether l takes back what would hold without it.
func negatesDefault(l *line) bool {
	if l.in == global && strings.HasPrefix(l.key, "logging message ") {
		return true
	}
	return slices.ContainsFunc(parsedDefaults()[l.in], func(d *line) bool { return d.key == l.key && d.words[0].name != "no" })
}

// negates reports whether "no" and the words typed take back the line of words
// kept: it begins with them. Words that only "no" has do not count.
func negates(typed, kept []word) bool {
	for i, w := range typed {
		switch {
		case w.name == "noconfirm" && i == len(typed)-1:
		case i >= len(kept) || w.text != kept[i].text && !(w.name == kept[i].name && strings.EqualFold(w.text, kept[i].text)):
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
		return row{line: l, rank: l.rank()}.begins(words) && l.words[0].text != "no"
	}), nil)
}
