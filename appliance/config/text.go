package config

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Text is a configuration as text: lines in stanzas, in the order and the
// spelling of the ASA's "show running-config". A Text never changes and is
// cheap to copy; what would change it gives another. The zero Text is empty.
// Any number of goroutines may use one at once.
//
// What a reader may get wrong: comments and the order in which lines came are
// not kept, but where order means something, as in access lists and twice NAT.
type Text struct{ c *content }

// A content is what copies of a Text share.
type content struct {
	lines []*line
	parse func() *parsed
}

// A line is one line of a Text and what stands below it. It never changes.
type line struct {
	words []word
	key   string // of its item, distinct among the lines beside it
	in    modeID // the mode it stands in
	mode  modeID // of the lines below it; global: it begins none
	rank  int    // those of a lower rank stand before it
	group string // the lines that it stands among in an order that matters, "" for none
	inert bool
	below []*line
	cert  []byte  // of a certificate: its DER, written below it in hexadecimal
	from  int     // the line of the file it was loaded from, 0: none
	of    []*line // those that are written as this one, nil: it is itself
}

// A parsed is a Text as the parser reads it.
type parsed struct {
	lines  []*line
	parser *parser // for the names it knows; not to be changed
	run    *Running
	found  []Finding // of Parse and Validate
	at     []*line   // of each line of the text, nil for separators
}

func newText(lines []*line) Text {
	c := &content{lines: lines}
	c.parse = sync.OnceValue(func() *parsed { return parseLines(c.lines) })
	return Text{c}
}

func (t Text) lines() []*line {
	if t.c == nil {
		return nil
	}
	return t.c.lines
}

var emptyParsed = sync.OnceValue(func() *parsed { return parseLines(nil) })

func (t Text) parsed() *parsed {
	if t.c == nil {
		return emptyParsed()
	}
	return t.c.parse()
}

// runningName is the file that findings about a Text name.
const runningName = "running-config"

func parseLines(lines []*line) *parsed {
	var text bytes.Buffer
	x := &parsed{lines: lines}
	r := renderer{w: &text, names: namesOf(lines)}
	r.at = &x.at
	r.all(lines)
	p := newParser(runningName)
	p.read(&text)
	x.parser, x.run = p, p.run
	x.found = append(p.found, p.run.Validate()...)
	sortFindings(x.found)
	return x
}

// Running returns what the text says, and what Parse and Validate find. Lines
// in both are counted as Render writes them.
func (t Text) Running() (*Running, []Finding) {
	x := t.parsed()
	return x.run, slices.Clone(x.found)
}

// Equal reports whether both texts have the same lines.
func (t Text) Equal(u Text) bool { return equalLines(t.lines(), u.lines()) }

func equalLines(a, b []*line) bool {
	return slices.EqualFunc(a, b, func(x, y *line) bool {
		return x == y || x.text() == y.text() && x.in == y.in && bytes.Equal(x.cert, y.cert) && equalLines(x.below, y.below)
	})
}

// text returns the line without indentation, addresses as such.
func (l *line) text() string { return textOf(l.words) }

func textOf(words []word) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(w.text)
	}
	return b.String()
}

// key returns the item of a line by the template of its form. A "no" before it
// does not count: the item is the same.
func (f form) key(words []word) string {
	if len(words) > 1 && words[0].name == "no" {
		words = words[1:]
	}
	switch f.item {
	case "":
		return textOf(words)
	case loose.item:
		return restItem(textOf(words))
	}
	var b strings.Builder
	for i, part := range strings.Fields(f.item) {
		if i > 0 {
			b.WriteByte(' ')
		}
		name, ok := strings.CutPrefix(part, "$")
		switch {
		case !ok:
			b.WriteString(part)
		case '0' <= name[0] && name[0] <= '9':
			if n := int(name[0] - '1'); n < len(words) {
				b.WriteString(words[n].text)
			}
		default:
			if i := slices.IndexFunc(words, func(w word) bool { return w.name == name }); i >= 0 {
				b.WriteString(words[i].text)
			}
		}
	}
	return b.String()
}

// newLine makes a line of words in a mode.
func newLine(words []word, key string, in, mode modeID) *line {
	l := &line{words: words, key: key, in: in, mode: mode}
	l.group = groupOf(l)
	l.rank = rankOf(l)
	return l
}

// alone are the beginnings of lines of which there is one, among commands that
// are known only by their beginning. A "*" is a word of the line.
var alone = []string{
	"enable password", "passwd", "username *", "prompt", "clock timezone", "clock summer-time", "ssh timeout", "ssh version",
	"ssh key-exchange", "telnet timeout", "asdm image", "asdm history", "snmp-server location", "snmp-server contact", "snmp-server community",
	"logging device-id", "boot config", "config-register", "key config-key", "http server", "user-identity default-domain", "call-home reporting",
	"aaa authentication *", "aaa authorization *", "aaa accounting *", "ntp authenticate", "id-mismatch", "tsig",
	"threat-detection basic-threat", "threat-detection scanning-threat", "threat-detection statistics *", "password-policy *",
	"ssl trust-point *", "speed", "duplex", "flowcontrol", "crypto ipsec security-association *", "crypto isakmp nat-traversal", "failover polltime",
}

// restItem returns the item of such a line.
func restItem(text string) string {
	words := strings.Fields(text)
	for _, a := range alone {
		begin := strings.Fields(a)
		if len(begin) > len(words) {
			continue
		}
		for i, w := range begin {
			if w == "*" {
				begin[i] = words[i]
			}
		}
		if slices.Equal(begin, words[:len(begin)]) {
			return strings.Join(begin, " ")
		}
	}
	return text
}

// with returns lines with l in them: in the place of the line of the same item,
// or where its rank, its group and nth want it.
func with(lines []*line, l *line, nth int) []*line {
	i := slices.IndexFunc(lines, func(o *line) bool { return o.key == l.key })
	if i >= 0 && nth == 0 {
		lines = slices.Clone(lines)
		if l.mode != global && lines[i].mode == l.mode {
			return lines // the stanza goes on
		}
		lines[i] = l
		return lines
	}
	if i >= 0 {
		lines = slices.Delete(slices.Clone(lines), i, i+1)
	}
	return slices.Insert(slices.Clip(lines), placeFor(lines, l, nth), l)
}

// placeFor returns where among lines, which are in the order of their ranks, a
// new line belongs: after those of its group, and behind the others of its rank.
func placeFor(lines []*line, l *line, nth int) int {
	byRank := func(o *line, rank int) int { return o.rank - rank }
	first, _ := slices.BinarySearchFunc(lines, l.rank, byRank)
	end, _ := slices.BinarySearchFunc(lines, l.rank+1, byRank)
	if l.mode == inInterface {
		for end > first && HardwareLess(l.words[1].text, lines[end-1].words[1].text) {
			end--
		}
	}
	if l.group == "" {
		return end
	}
	if l.group == chainGroup && nth == 0 {
		nth = chainPlace(lines, l)
	}
	if nth > 0 {
		like := 0
		for i := first; i < end; i++ {
			if lines[i].group == l.group {
				if like++; like == nth {
					return i
				}
			}
		}
	}
	for i := end; i > first; i-- {
		if lines[i-1].group == l.group {
			return i
		}
	}
	return end
}

// HardwareLess reports whether an ASA lists the interface a before b, both in
// full: by type, then by the numbers.
func HardwareLess(a, b string) bool {
	numbers := func(name string) (typ int, numbers []int) {
		i := strings.IndexAny(name, "0123456789")
		if i < 0 {
			return len(hardwareTypes), nil
		}
		for _, s := range strings.FieldsFunc(name[i:], func(r rune) bool { return r == '/' || r == '.' }) {
			n, _ := strconv.Atoi(s)
			numbers = append(numbers, n)
		}
		return slices.Index(hardwareTypes, name[:i]), numbers
	}
	typeA, numbersA := numbers(a)
	typeB, numbersB := numbers(b)
	if typeA != typeB {
		return typeA < typeB
	}
	return slices.Compare(numbersA, numbersB) < 0
}

const chainGroup = "crypto ca certificate chain"

// chainPlace returns where among the certificate chains that of a trustpoint
// belongs: they are in the order of their trustpoints.
func chainPlace(lines []*line, chain *line) int {
	place := func(l *line) int {
		name := l.words[len(l.words)-1].text
		return slices.IndexFunc(lines, func(o *line) bool { return o.mode == inTrustpoint && o.words[len(o.words)-1].text == name })
	}
	nth := 1
	for _, l := range lines {
		if l.mode == inChain && place(l) < place(chain) {
			nth++
		}
	}
	return nth
}

// groupOf names the lines that l stands among in an order that matters: the
// entries of an access list.
func groupOf(l *line) string {
	if l.in != global || len(l.words) < 2 {
		return ""
	}
	switch l.words[0].text {
	case "crypto":
		if l.mode == inChain {
			return chainGroup
		}
	case "access-list":
		return "access-list " + l.words[1].text
	case "nat":
		if l.index("after-auto") > 0 {
			return "nat after-auto"
		}
		return "nat"
	}
	return ""
}

func (l *line) index(text string) int {
	return slices.IndexFunc(l.words, func(w word) bool { return w.text == text })
}

// change returns lines with the lines below the stanza at path made what f
// makes of them. It returns lines and false if there is no such stanza.
func change(lines []*line, path []string, f func([]*line) []*line) ([]*line, bool) {
	if len(path) == 0 {
		return f(lines), true
	}
	i := slices.IndexFunc(lines, func(l *line) bool { return l.key == path[0] && l.mode != global })
	if i < 0 {
		return lines, false
	}
	below, ok := change(lines[i].below, path[1:], f)
	if !ok {
		return lines, false
	}
	l := *lines[i]
	l.below = below
	lines = slices.Clone(lines)
	lines[i] = &l
	return lines, true
}

// at returns the line that begins the stanza at path, nil if there is none.
func at(lines []*line, path []string) *line {
	var l *line
	for _, key := range path {
		i := slices.IndexFunc(lines, func(l *line) bool { return l.key == key && l.mode != global })
		if i < 0 {
			return nil
		}
		l = lines[i]
		lines = l.below
	}
	return l
}

// hexLines writes a certificate as the ASA does: eight groups of eight digits.
func hexLines(der []byte) []string {
	digits := hex.EncodeToString(der)
	var lines []string
	for len(digits) > 0 {
		row := digits[:min(64, len(digits))]
		digits = digits[len(row):]
		var groups []string
		for len(row) > 0 {
			n := min(8, len(row))
			groups = append(groups, row[:n])
			row = row[n:]
		}
		lines = append(lines, strings.Join(groups, " "))
	}
	return lines
}
