package cli

import (
	"fmt"
	"strconv"
	"strings"
)

const maxSyntax = 4096 // bytes of one syntax line; the longest of the ASA's are near 700

// An op is what an instruction of a compiled grammar does.
type op uint8

const (
	opKey   op = iota // take one word that is the keyword or begins it
	opArg             // take one word that is an argument of a kind
	opRest            // take every further word; an argument of kind "line" has begun
	opSplit           // go on at next and at other
	opEnd             // the rule is complete here
)

// An inst is one instruction. A grammar is a program of them, run on all its
// rules at once, word by word.
type inst struct {
	op     op
	word   string // opKey: the keyword in lower case; opArg: the kind
	name   string // what the word is kept under
	lo, hi int64  // opArg of kind range: the limits
	ranged bool   // opArg: lo and hi apply
	next   int    // opKey, opArg, opRest, opSplit
	other  int    // opSplit
	rule   int    // opEnd
}

// A compiler turns the syntax of one rule into instructions.
//
//	sequence    = element { element }
//	element     = ( keyword | "<" [ name ":" ] kind ">" | [ name "=" ] group ) [ "..." ]
//	group       = "{" alternatives "}" | "[" alternatives "]"
//	alternatives = sequence { "|" sequence }
type compiler struct {
	syntax string
	pos    int
	prog   []inst
	prefix string // of names in the labeled groups around pos
}

// compileRule appends the instructions of one rule to prog and returns them
// with the place to begin.
func compileRule(prog []inst, syntax string, rule int) ([]inst, int, error) {
	c := &compiler{syntax: syntax, prog: prog}
	start := len(prog)
	if len(syntax) > maxSyntax {
		return nil, 0, fmt.Errorf("cli: syntax of %d bytes exceeds %d", len(syntax), maxSyntax)
	}
	if err := c.alternatives(""); err != nil {
		return nil, 0, fmt.Errorf("cli: syntax %q: column %d: %w", syntax, c.pos+1, err)
	}
	c.emit(inst{op: opEnd, rule: rule})
	kinds := make(map[string]op) // of names; one name for both would hide the argument
	for i := start; i < len(c.prog); i++ {
		in := c.prog[i]
		if before, ok := kinds[in.name]; ok && in.name != "" && before != in.op {
			return nil, 0, fmt.Errorf("cli: syntax %q: %q is both a keyword and an argument", syntax, in.name)
		}
		kinds[in.name] = in.op
		if in.op == opRest && !c.ends(in.next) {
			return nil, 0, fmt.Errorf("cli: syntax %q: something follows <line>", syntax)
		}
	}
	return c.prog, start, nil
}

// ends reports whether nothing but the end of the rule is reached from pc.
func (c *compiler) ends(pc int) bool {
	seen := make(map[int]bool)
	var walk func(int) bool
	walk = func(pc int) bool {
		if seen[pc] {
			return true
		}
		seen[pc] = true
		switch in := c.prog[pc]; in.op {
		case opEnd:
			return true
		case opSplit:
			return walk(in.next) && walk(in.other)
		case opRest:
			return walk(in.next)
		}
		return false
	}
	return walk(pc)
}

func (c *compiler) emit(in inst) int {
	c.prog = append(c.prog, in)
	return len(c.prog) - 1
}

func (c *compiler) space() {
	for c.pos < len(c.syntax) && c.syntax[c.pos] == ' ' {
		c.pos++
	}
}

// peek returns the next byte that is not a space, 0 at the end.
func (c *compiler) peek() byte {
	c.space()
	if c.pos == len(c.syntax) {
		return 0
	}
	return c.syntax[c.pos]
}

// alternatives compiles up to the closing byte, which it takes; "" is the end
// of the syntax.
func (c *compiler) alternatives(closing string) error {
	var exits []int // splits whose next must become the end of the group
	for {
		split := c.emit(inst{op: opSplit})
		c.prog[split].next = len(c.prog)
		if err := c.sequence(closing); err != nil {
			return err
		}
		exits = append(exits, c.emit(inst{op: opSplit}))
		if c.peek() != '|' {
			c.prog[split].other = c.prog[split].next
			break
		}
		c.pos++
		c.prog[split].other = len(c.prog)
	}
	for _, e := range exits {
		c.prog[e].next, c.prog[e].other = len(c.prog), len(c.prog)
	}
	if closing == "" {
		if c.peek() != 0 {
			return fmt.Errorf("unexpected %q", c.peek())
		}
		return nil
	}
	if c.peek() != closing[0] {
		return fmt.Errorf("missing %q", closing)
	}
	c.pos++
	return nil
}

func (c *compiler) sequence(closing string) error {
	for n := 0; ; n++ {
		b := c.peek()
		if b == 0 || b == '|' || closing != "" && b == closing[0] {
			if n == 0 {
				return fmt.Errorf("nothing here")
			}
			return nil
		}
		if err := c.element(); err != nil {
			return err
		}
	}
}

func (c *compiler) element() error {
	start := len(c.prog)
	optional := -1
	switch b := c.peek(); b {
	case '{', '[':
		if err := c.group(&optional); err != nil {
			return err
		}
	case '<':
		if err := c.argument(); err != nil {
			return err
		}
	case '}', ']', '>':
		return fmt.Errorf("unexpected %q", b)
	default:
		word := c.word()
		if strings.HasSuffix(word, "=") && (c.peek() == '{' || c.peek() == '[') {
			outer := c.prefix
			c.prefix += word[:len(word)-1] + "."
			err := c.group(&optional)
			c.prefix = outer
			if err != nil {
				return err
			}
			break
		}
		if word == "..." {
			return fmt.Errorf("nothing to repeat")
		}
		key := strings.ToLower(word)
		c.emit(inst{op: opKey, word: key, name: c.prefix + key, next: len(c.prog) + 1})
	}
	if c.space(); strings.HasPrefix(c.syntax[c.pos:], "...") {
		c.pos += len("...")
		c.emit(inst{op: opSplit, next: start, other: len(c.prog) + 1})
	}
	if optional >= 0 {
		c.prog[optional].other = len(c.prog)
	}
	return nil
}

// group compiles {...} or [...]; *optional becomes the split that may pass a
// [...] over, to be completed by the caller.
func (c *compiler) group(optional *int) error {
	closing := "}"
	if c.peek() == '[' {
		closing = "]"
		*optional = c.emit(inst{op: opSplit, next: len(c.prog) + 1})
	}
	c.pos++
	return c.alternatives(closing)
}

// argument compiles <kind>, <name:kind> or <name:low-high>.
func (c *compiler) argument() error {
	n := strings.IndexByte(c.syntax[c.pos:], '>')
	if n < 0 {
		return fmt.Errorf("missing '>'")
	}
	name, kind, ok := strings.Cut(c.syntax[c.pos+1:c.pos+n], ":")
	if !ok {
		kind = name
	}
	if name == "" || kind == "" || strings.ContainsAny(name+kind, " <{[|]}") {
		return fmt.Errorf("bad argument %q", c.syntax[c.pos:c.pos+n+1])
	}
	c.pos += n + 1
	in := inst{op: opArg, word: kind, name: c.prefix + name, next: len(c.prog) + 1}
	if low, high, ok := strings.Cut(kind, "-"); ok {
		var err1, err2 error
		in.lo, err1 = strconv.ParseInt(low, 10, 64)
		in.hi, err2 = strconv.ParseInt(high, 10, 64)
		in.ranged = err1 == nil && err2 == nil
		if in.ranged && in.lo > in.hi {
			return fmt.Errorf("range %s is empty", kind)
		}
	}
	c.emit(in)
	if kind == "line" {
		rest := len(c.prog)
		c.emit(inst{op: opSplit, next: rest + 1, other: rest + 2})
		c.emit(inst{op: opRest, next: rest})
	}
	return nil
}

// word takes a keyword, with the "=" of a label or alone the "..." of a
// repetition.
func (c *compiler) word() string {
	start := c.pos
	if strings.HasPrefix(c.syntax[c.pos:], "...") {
		c.pos += 3
		return "..."
	}
	for c.pos < len(c.syntax) && !strings.ContainsRune(" {}[]<>|", rune(c.syntax[c.pos])) &&
		!strings.HasPrefix(c.syntax[c.pos:], "...") {
		c.pos++
	}
	return c.syntax[start:c.pos]
}
