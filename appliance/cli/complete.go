package cli

import (
	"slices"
	"strings"
)

// A Vocabulary is help for words, one line each: of keywords by themselves, of
// arguments as "<name>", and of both where they mean something else after some
// words, with these before them:
//
//	"host":             "Specify that following ip address is a host"
//	"<name>":           "Name"
//	"route <if>":       "Interface through which the gateway is reached"
//	"ip address <addr>": "The interface's own address"
type Vocabulary map[string]string

// Of returns the help of word after the words before: of the longest entry that
// ends in all of them, "" if there is none.
func (v Vocabulary) Of(before []string, word string) string {
	for i := range len(before) + 1 {
		if text, ok := v[strings.Join(append(slices.Clone(before[i:]), word), " ")]; ok {
			return text
		}
	}
	return ""
}

// A Candidate is what may stand at a place of a line.
type Candidate struct {
	Word string // a keyword, an argument as "<name>", or "<cr>" for the end of the line
	Help string // of the rule that Word makes distinct, else by the Vocabulary; of a keyword that it does not know, of its rule
	Kind string // of an argument: "word", "line", "1-255" or one of the caller's
	Name string // of an argument: what the syntax calls it
}

// Keyword reports whether c is a word to type as it is.
func (c Candidate) Keyword() bool { return c.Kind == "" && c.Word != "<cr>" }

// Complete returns what may stand in place of the last word of line, or after
// it if line ends in a space: keywords that begin with it and all arguments,
// sorted. It returns nil if the words before do not match.
func (g *Grammar[T]) Complete(line string, check Check) []Candidate {
	list, _ := g.Help(line, check, nil)
	return list
}

// Help is Complete with help from v, and with the reason why there is nothing:
// what "?" at the end of line asks for. The words of where stand before the line
// in v, where help depends on where it is typed.
func (g *Grammar[T]) Help(line string, check Check, v Vocabulary, where ...string) ([]Candidate, *Error) {
	toks := Split(line)
	partial := ""
	if n := len(toks); n > 0 && !isSpace(line[len(line)-1]) {
		partial = toks[n-1].Text
		toks = toks[:n-1]
	}
	cur, err := g.run(line, toks, check)
	if err != nil {
		return nil, err
	}
	var list []Candidate
	seen := make(map[string]int) // place in list, from 1
	for _, th := range cur {
		in := &g.prog[th.pc]
		c := Candidate{Word: in.candidate(partial)}
		if n := seen[c.Word]; c.Word == "" || c.Word == "<cr>" && partial != "" || n > 0 && list[n-1].Help != "" {
			continue
		}
		word, path := c.Word, th.caps.path()
		if r := &g.rules[g.rule(th.pc)]; in.op == opKey && slices.Equal(Lead(r.Syntax), append(withoutNo(path), word)) {
			c.Help = r.Help
		}
		if in.op == opArg {
			c.Kind, c.Name = in.word, in.shortName()
			word = "<" + c.Name + ">"
		}
		if c.Help == "" {
			c.Help = v.Of(append(slices.Clip(where), path...), word)
		}
		if c.Help == "" && in.op == opKey {
			c.Help = g.rules[g.rule(th.pc)].Help
		}
		if n := seen[c.Word]; n > 0 {
			list[n-1].Help = c.Help
			continue
		}
		list = append(list, c)
		seen[c.Word] = len(list)
	}
	slices.SortFunc(list, func(a, b Candidate) int { return strings.Compare(a.Word, b.Word) })
	return list, nil
}

// Lead returns the keywords that a syntax begins with, but for "no".
func Lead(syntax string) []string {
	var list []string
	for _, w := range strings.Fields(strings.TrimPrefix(strings.TrimPrefix(syntax, "[no] "), "no ")) {
		if strings.ContainsAny(w, "<{[|=.") {
			break
		}
		list = append(list, strings.ToLower(w))
	}
	return list
}

func withoutNo(path []string) []string {
	if len(path) > 0 && path[0] == "no" {
		path = path[1:]
	}
	return slices.Clip(path)
}

// path returns the words of l as a Vocabulary names them.
func (l *capList) path() []string {
	var path []string
	for ; l != nil; l = l.before {
		if l.in.op == opKey {
			path = append(path, l.in.word)
		} else {
			path = append(path, "<"+l.in.shortName()+">")
		}
	}
	slices.Reverse(path)
	return path
}

// shortName is the name of an argument without the labels of its groups.
func (in *inst) shortName() string { return in.name[strings.LastIndexByte(in.name, '.')+1:] }

// rule returns the number of the rule that has the instruction at pc.
func (g *Grammar[T]) rule(pc int) int {
	i, found := slices.BinarySearch(g.starts, pc)
	if !found {
		i--
	}
	return i
}

// Walk calls visit for each word that a rule has, with the words that may stand
// before it. A word that several ways lead to is visited once, by the shortest.
func (g *Grammar[T]) Walk(visit func(rule *Rule[T], before []string, c Candidate)) {
	type state struct {
		pc   int
		path []string
	}
	seen := make([]bool, len(g.prog))
	var next []state
	for _, pc := range g.starts {
		next = append(next, state{pc, nil})
	}
	for len(next) > 0 {
		s := next[0]
		next = next[1:]
		if seen[s.pc] {
			continue
		}
		seen[s.pc] = true
		in := &g.prog[s.pc]
		switch in.op {
		case opSplit:
			next = slices.Insert(next, 0, state{in.next, s.path}, state{in.other, s.path})
		case opKey, opArg:
			c := Candidate{Word: in.candidate("")}
			word := c.Word
			if in.op == opArg {
				c.Kind, c.Name = in.word, in.shortName()
				word = "<" + c.Name + ">"
			}
			visit(&g.rules[g.rule(s.pc)], s.path, c)
			next = append(next, state{in.next, append(slices.Clone(s.path), word)})
		}
	}
}
