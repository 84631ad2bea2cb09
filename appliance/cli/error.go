package cli

import "strings"

// A Kind is how a line fails to match.
type Kind uint8

const (
	Invalid    Kind = iota // a word that cannot stand where it does
	Incomplete             // a line that ends too early
	Ambiguous              // an abbreviation of more than one keyword
)

// An Error is why a line matches no rule.
type Error struct {
	Kind     Kind
	Token    Token    // the offending word; of an Incomplete line where it would go on
	Words    int      // how many words before it matched
	Reason   string   // why arguments at this place refused the word, may be empty
	Expected []string // what may stand there: keywords, "<name>" of arguments, "<cr>"
}

// Error returns the ASA's words. (reference/asa-cli.md, section 2.)
func (e *Error) Error() string {
	switch e.Kind {
	case Incomplete:
		return "% Incomplete command"
	case Ambiguous:
		return `% Ambiguous command:  "` + e.Token.Text + `"`
	}
	return "% Invalid input detected at '^' marker."
}

// Caret returns the line that puts a ^ under column col (Token.Col) of line.
func Caret(line string, col int) string {
	if col < 1 {
		return ""
	}
	var b strings.Builder
	for i, r := range line {
		if i >= col-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	for i := len(line); i < col-1; i++ {
		b.WriteByte(' ')
	}
	b.WriteByte('^')
	return b.String()
}

// Nearest returns the one of words that is most like word, "" if none is like it.
func Nearest(word string, words []string) string {
	best, bestDistance := "", 0
	for _, w := range words {
		if strings.HasPrefix(w, "<") {
			continue
		}
		d := distance(strings.ToLower(word), w)
		if d <= max(len(w), len(word))/3 && (best == "" || d < bestDistance) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance is how many bytes to insert, delete, replace or swap with their
// neighbor to make b of a (optimal string alignment).
func distance(a, b string) int {
	const longest = 64 // bytes compared; no keyword is longer
	a, b = a[:min(len(a), longest)], b[:min(len(b), longest)]
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
