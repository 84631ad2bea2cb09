package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"patchbay/appliance/cli"
)

// A Severity is how bad a Finding is.
type Severity uint8

const (
	Info    Severity = iota // worth knowing
	Warning                 // works, but maybe not as meant
	Error                   // cannot be obeyed; the configuration is refused
)

// String returns the ASA's word: "INFO", "WARNING" or "ERROR".
func (s Severity) String() string { return [...]string{"INFO", "WARNING", "ERROR"}[min(s, Error)] }

// A Finding is something wrong with a line of a configuration.
type Finding struct {
	File     string
	Line     int // the first is 1
	Column   int // byte column for the caret, the first is 1; 0 for the line as a whole
	Severity Severity
	Text     string // the line, with secrets made "*"
	Msg      string // what is wrong, and what to do
	Rule     string // of reference/asa-rules.md, section 1: "V42"; may be empty
	LeftOut  bool   // by a lenient Load: the line is not in the Text
	KeyPair  string // of a Warning: it is well if the box has this key pair
}

// WithKeyPairs returns list without the warnings of key pairs that the box has.
func WithKeyPairs(list []Finding, has func(label string) bool) []Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return f.KeyPair != "" && has(f.KeyPair) })
}

// String returns the finding as text for an operator: place, severity and
// message, then the line, then a caret under the word in question.
//
//	pp.cfg:19: ERROR: % Invalid input detected at '^' marker. 255.255.0.255 is not a network mask: ...
//	     ip address 203.0.113.2 255.255.0.255
//	                            ^
func (f Finding) String() string {
	const margin = "    "
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %v: %s", f.File, f.Line, f.Severity, f.Msg)
	if f.Rule != "" {
		fmt.Fprintf(&b, " (%s)", f.Rule)
	}
	if strings.TrimSpace(f.Text) != "" {
		b.WriteString("\n" + margin + strings.TrimRight(f.Text, " \t"))
		if f.Column > 0 {
			b.WriteString("\n" + margin + cli.Caret(f.Text, f.Column))
		}
	}
	return b.String()
}

// Reply returns the finding as a console answers the line that was typed after a
// prompt of that many columns: a caret below the word in question, then what is
// wrong.
//
//	              ^
//	ERROR: % Invalid input detected at '^' marker.
//	10.0.0.300 is not an IPv4 address
func (f Finding) Reply(prompt int) string {
	const marker = "% Invalid input detected at '^' marker."
	var b strings.Builder
	msg := f.Msg
	if f.Column > 0 {
		b.WriteString(cli.Caret(strings.Repeat(" ", prompt)+f.Text, prompt+f.Column) + "\n")
	}
	if rest, ok := strings.CutPrefix(msg, marker+" "); ok {
		msg = marker + "\n" + rest
	}
	fmt.Fprintf(&b, "%v: %s", f.Severity, msg)
	if f.Rule != "" {
		fmt.Fprintf(&b, " (%s)", f.Rule)
	}
	return b.String()
}

// Errors reports how many of list are of severity Error.
func Errors(list []Finding) int {
	n := 0
	for _, f := range list {
		if f.Severity == Error {
			n++
		}
	}
	return n
}

// sortFindings orders by line, then column, the worst first.
func sortFindings(list []Finding) {
	slices.SortStableFunc(list, func(a, b Finding) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Severity != b.Severity {
			return int(b.Severity) - int(a.Severity)
		}
		return a.Column - b.Column
	})
}

// secretAfter are the words after which the next word is a secret.
var secretAfter = map[string]bool{
	"password": true, "passwd": true, "pkcs12": true, "key": true, "secret": true, "community": true,
	"pre-shared-key": true, "passphrase": true, "ldap-login-password": true, "radius-common-pw": true, "md5": true,
}

// beforeSecret reports whether the word after before is a secret, in a line that
// begins with first. Both may be abbreviated; where that leaves doubt it is one.
func beforeSecret(first, before string) bool {
	first, before = strings.ToLower(first), strings.ToLower(before)
	if secretAfter[before] {
		return true
	}
	login := strings.HasPrefix("enable", first) || strings.HasPrefix("username", first)
	return (login || len(before) > 1) && (strings.HasPrefix("password", before) || strings.HasPrefix("passwd", before))
}

// notSecret are the words after "key" that are none: crypto key generate.
var notSecret = map[string]bool{"generate": true, "zeroize": true, "import": true}

// clean makes a line fit to print: secrets become asterisks. Columns stay.
func clean(line string) string {
	b := []byte(line)
	words := cli.Split(line)
	for i, w := range words {
		if i == 0 || !beforeSecret(words[0].Text, words[i-1].Text) || notSecret[strings.ToLower(w.Text)] {
			continue
		}
		for j := range len(w.Text) {
			b[w.Col-1+j] = '*'
		}
	}
	return printable(string(b))
}

// printable replaces what could move a terminal's cursor by question marks, as
// many as it had bytes.
func printable(text string) string {
	b := []byte(text)
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r != '\t' && (r == utf8.RuneError && size == 1 || !unicode.IsPrint(r)) {
			for j := range size {
				b[i+j] = '?'
			}
		}
		i += size
	}
	return string(b)
}
