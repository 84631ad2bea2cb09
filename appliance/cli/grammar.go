// Package cli matches lines against command syntax written as in a manual page:
//
//	route <if> <dest:addr> <mask> <gateway:addr> [<metric:1-255>]
//	access-list <name> [extended] {permit|deny} ...
//
// A keyword stands for itself and may be typed as any prefix that no other
// keyword shares at that place. {a | b} is a choice, [a] may be left out, and
// "..." after a word or group lets it repeat. <name:kind> takes one word of a
// kind, kept under a name; <kind> alone is its own name. Kinds "word" (any
// word), "line" (the rest of the line) and ranges such as <1-255> are known
// here, all others are the caller's (Check). src={...} puts "src." before the
// names and keywords in the group, where one group occurs twice in a line.
//
// What a reader may get wrong: an exact keyword excludes arguments at its
// place, but an abbreviated one comes after them. So a stored configuration,
// which has no abbreviations, never changes its meaning because a name in it
// begins like a keyword.
package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxWords is how many words of a line are looked at; a longer line does not
// match. The longest command of an ASA has about 40.
const MaxWords = 512

// A Rule is one command: its syntax and what the caller wants to know when a
// line matches it.
type Rule[T any] struct {
	Syntax string
	Help   string // one line; of the last of the keywords that Syntax begins with; may be empty
	Do     T
}

// A Check says why word is no argument of a kind, nil if it is one. The error
// is part of a sentence for the operator: "10.0.0.300 is not an address".
type Check func(kind, word string) error

// A Grammar is a set of rules, the commands of one mode. It never changes and
// may be used by many goroutines at once.
type Grammar[T any] struct {
	rules  []Rule[T]
	prog   []inst
	starts []int    // of each rule in prog
	first  []thread // at the beginning of a line

	// begin are those of first that a line goes on with whose first word is a
	// keyword in full, by the word: an exact keyword excludes all else.
	begin map[string][]thread
}

// Compile reads the syntax of rules. Earlier rules win where two match.
func Compile[T any](rules []Rule[T]) (*Grammar[T], error) {
	g := &Grammar[T]{rules: slices.Clone(rules)}
	for i, r := range rules {
		prog, start, err := compileRule(g.prog, r.Syntax, i)
		if err != nil {
			return nil, err
		}
		g.prog = prog
		g.starts = append(g.starts, start)
	}
	seen := make([]bool, len(g.prog))
	for _, pc := range g.starts {
		g.first = g.add(g.first, seen, pc, nil)
	}
	g.begin = make(map[string][]thread)
	for _, th := range g.first {
		if in := &g.prog[th.pc]; in.op == opKey {
			g.begin[in.word] = append(g.begin[in.word], th)
		}
	}
	return g, nil
}

// MustCompile is Compile for rules written in the program; it panics on a
// syntax error.
func MustCompile[T any](rules []Rule[T]) *Grammar[T] {
	g, err := Compile(rules)
	if err != nil {
		panic(err)
	}
	return g
}

// A Token is a word of a line and the column it begins in: bytes, the first is 1.
type Token struct {
	Text string
	Col  int
}

// Split returns the words of a line, which are divided by spaces and tabs.
func Split(line string) []Token {
	var toks []Token
	for i := 0; i < len(line); {
		if isSpace(line[i]) {
			i++
			continue
		}
		j := i
		for j < len(line) && !isSpace(line[j]) {
			j++
		}
		toks = append(toks, Token{line[i:j], i + 1})
		i = j
	}
	return toks
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

// A Match is a line that matched a rule.
type Match[T any] struct {
	Rule *Rule[T]
	Args Args
}

// Args are the words of a line by the names the syntax gives them. A keyword
// is kept under itself, in lower case and in full.
type Args struct {
	caps []capture
}

type capture struct {
	name string
	tok  Token
	in   *inst
}

// A Word is a word of a line as its rule reads it.
type Word struct {
	Token
	Name string // what it is kept under
	Kind string // "" of a keyword, whose Text is in full; else the kind of the argument
}

// Words returns the words of the line: keywords in full and lower case,
// arguments as they were typed.
func (a Args) Words() []Word {
	words := make([]Word, len(a.caps))
	for i, c := range a.caps {
		words[i] = Word{Token: c.tok, Name: c.name}
		if c.in.op == opKey {
			words[i].Text = c.in.word
		} else {
			words[i].Kind = c.in.word
		}
	}
	return words
}

// All returns each word kept under name, in order.
func (a Args) All(name string) []Token {
	var toks []Token
	for _, c := range a.caps {
		if c.name == name {
			toks = append(toks, c.tok)
		}
	}
	return toks
}

// Token returns the first word kept under name, the zero Token if there is none.
func (a Args) Token(name string) Token {
	for _, c := range a.caps {
		if c.name == name {
			return c.tok
		}
	}
	return Token{}
}

// Get returns the text of the first word kept under name, "" if there is none.
func (a Args) Get(name string) string { return a.Token(name).Text }

// Has reports whether a word or keyword is kept under name.
func (a Args) Has(name string) bool { return a.Token(name).Col != 0 }

// Int returns the number kept under name, or otherwise if there is none. It is
// for arguments that a range has checked.
func (a Args) Int(name string, otherwise int) int {
	n, err := strconv.Atoi(a.Get(name))
	if err != nil {
		return otherwise
	}
	return n
}

// Names returns the names of all words of the line, in order.
func (a Args) Names() []string {
	names := make([]string, len(a.caps))
	for i, c := range a.caps {
		names[i] = c.name
	}
	return names
}

// A thread is one way in which the words so far may be read.
type thread struct {
	pc   int
	caps *capList
}

// A capList is the captures of a thread, the last first; threads share tails.
type capList struct {
	capture
	before *capList
}

func (l *capList) args() Args {
	var caps []capture
	for ; l != nil; l = l.before {
		caps = append(caps, l.capture)
	}
	slices.Reverse(caps)
	return Args{caps}
}

// add appends the threads that begin at pc, past all splits.
func (g *Grammar[T]) add(list []thread, seen []bool, pc int, caps *capList) []thread {
	if seen[pc] {
		return list
	}
	seen[pc] = true
	if in := &g.prog[pc]; in.op == opSplit {
		list = g.add(list, seen, in.next, caps)
		return g.add(list, seen, in.other, caps)
	}
	return append(list, thread{pc, caps})
}

// step returns the threads that live on after the word tok of line, or why
// there are none. It uses seen, which has a place for each instruction.
func (g *Grammar[T]) step(cur []thread, line string, tok Token, check Check, seen []bool) ([]thread, *Error) {
	var exact, args, abbreviated, lines, rest []thread
	var keyword string   // the one that tok abbreviates
	var refusals []error // their text is made only if it is needed
	ambiguous := false
	for _, th := range cur {
		switch in := &g.prog[th.pc]; in.op {
		case opKey:
			switch {
			case strings.EqualFold(tok.Text, in.word):
				exact = append(exact, th)
			case len(tok.Text) < len(in.word) && strings.EqualFold(tok.Text, in.word[:len(tok.Text)]):
				ambiguous = ambiguous || keyword != "" && keyword != in.word
				keyword = in.word
				abbreviated = append(abbreviated, th)
			}
		case opArg:
			if in.word == "line" {
				lines = append(lines, th)
			} else if err := in.accept(tok.Text, check); err == nil {
				args = append(args, th)
			} else {
				refusals = append(refusals, err)
			}
		case opRest:
			rest = append(rest, th)
		}
	}
	switch {
	case exact != nil:
		args, abbreviated, lines = nil, nil, nil
	case ambiguous && args == nil:
		return nil, &Error{Kind: Ambiguous, Token: tok, Expected: g.candidates(cur, tok.Text)}
	case ambiguous:
		abbreviated = nil
	}
	var next []thread
	clear(seen)
	for _, list := range [][]thread{exact, args, abbreviated, lines, rest} {
		for _, th := range list {
			in, caps := &g.prog[th.pc], th.caps
			if in.op == opArg && in.word == "line" {
				text := strings.TrimRight(line[tok.Col-1:], " \t\r\n")
				caps = &capList{capture{in.name, Token{text, tok.Col}, in}, caps}
			} else if in.op != opRest {
				caps = &capList{capture{in.name, tok, in}, caps}
			}
			next = g.add(next, seen, in.next, caps)
		}
	}
	if next == nil {
		var reasons []string
		for _, err := range refusals {
			if r := err.Error(); !slices.Contains(reasons, r) {
				reasons = append(reasons, r)
			}
		}
		return nil, &Error{Kind: Invalid, Token: tok, Reason: strings.Join(reasons, "; "),
			Expected: g.candidates(cur, "")}
	}
	return next, nil
}

func (in *inst) accept(word string, check Check) error {
	switch {
	case in.ranged:
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not a number", word)
		}
		if n < in.lo || n > in.hi {
			return fmt.Errorf("%s is not in the range %s", word, in.word)
		}
	case in.word == "word" || check == nil:
	default:
		return check(in.word, word)
	}
	return nil
}

// run returns the threads that are alive after all words of line, or why there
// are none.
func (g *Grammar[T]) run(line string, toks []Token, check Check) ([]thread, *Error) {
	cur := g.first
	if len(toks) > 0 {
		if exact := g.begin[strings.ToLower(toks[0].Text)]; exact != nil {
			cur = exact
		}
	}
	seen := make([]bool, len(g.prog))
	for i, tok := range toks {
		if i == MaxWords {
			return nil, &Error{Kind: Invalid, Token: tok, Words: i, Reason: fmt.Sprintf("more than %d words", MaxWords)}
		}
		next, err := g.step(cur, line, tok, check, seen)
		if err != nil {
			err.Words = i
			return nil, err
		}
		cur = next
	}
	return cur, nil
}

// Match finds the rule that line matches. Exactly one of the results is nil.
func (g *Grammar[T]) Match(line string, check Check) (*Match[T], *Error) {
	toks := Split(line)
	cur, err := g.run(line, toks, check)
	if err != nil {
		return nil, err
	}
	for _, th := range cur {
		if in := &g.prog[th.pc]; in.op == opEnd {
			return &Match[T]{&g.rules[in.rule], th.caps.args()}, nil
		}
	}
	end := len(strings.TrimRight(line, " \t\r\n"))
	return nil, &Error{Kind: Incomplete, Token: Token{"", end + 2}, Words: len(toks), Expected: g.candidates(cur, "")}
}

// Begin finds the rules that line matches or begins, each once, in the order of
// preference: what "no" takes back may be named by its first words. It returns
// nil and why if there are none.
func (g *Grammar[T]) Begin(line string, check Check) ([]Match[T], *Error) {
	cur, err := g.run(line, Split(line), check)
	if err != nil {
		return nil, err
	}
	var list []Match[T]
	for _, th := range cur {
		r := &g.rules[g.rule(th.pc)]
		if !slices.ContainsFunc(list, func(m Match[T]) bool { return m.Rule == r }) {
			list = append(list, Match[T]{r, th.caps.args()})
		}
	}
	return list, nil
}

// candidate returns what in takes, "" if that does not begin with partial.
func (in *inst) candidate(partial string) string {
	switch in.op {
	case opKey:
		if len(partial) <= len(in.word) && strings.EqualFold(partial, in.word[:len(partial)]) {
			return in.word
		}
	case opArg:
		if in.ranged {
			return "<" + in.word + ">"
		}
		return "<" + in.shortName() + ">"
	case opEnd:
		return "<cr>"
	}
	return ""
}

func (g *Grammar[T]) candidates(cur []thread, partial string) []string {
	var words []string
	for _, th := range cur {
		if w := g.prog[th.pc].candidate(partial); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	return words
}
