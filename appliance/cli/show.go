package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Shown is what a show command has found out, in whole and at one time: Text
// writes it for a reader and encoding/json for a program, so that the two say the
// same. Its fields have names in snake_case; what is measured in something says so
// at the end, as in "idle_seconds"; an address, port or time that is not known is
// left out, a list without elements is not.
type Shown interface {
	Text(w *bufio.Writer) // the first error of w stays
}

// Show writes s on w: as text, or as one JSON document.
func Show(w io.Writer, s Shown, asJSON bool) error {
	if !asJSON {
		b := bufio.NewWriter(w)
		s.Text(b)
		return b.Flush()
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // "<--->" is no danger to a terminal
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// shows are the first words of commands that show something and do nothing else.
var shows = []string{"show", "more", "verify", "diagnose", "packet-tracer"}

// Shows reports whether a line is such a command, its first word abbreviated to no
// less than two letters: "|" in it begins a filter, and elsewhere is a character.
func Shows(line string) bool {
	words := Split(line)
	return len(words) > 0 && len(words[0].Text) > 1 && slices.ContainsFunc(shows, func(s string) bool {
		return strings.HasPrefix(s, strings.ToLower(words[0].Text))
	})
}

// CutJSON returns the command of a line that ends in "| json".
func CutJSON(line string) (command string, ok bool) {
	command, pipe, _ := strings.Cut(line, "|")
	word := strings.ToLower(strings.TrimSpace(pipe))
	if word == "" || !strings.HasPrefix("json", word) || !Shows(line) {
		return line, false
	}
	return command, true
}

// A List is a slice that is a JSON array also where it has no elements.
type List[T any] []T

// MarshalJSON implements json.Marshaler.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if len(l) == 0 {
		return []byte("[]"), nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode([]T(l))
	return b.Bytes(), err
}

// Seconds is a time.Duration that is a number of seconds in JSON, to the thousandth.
type Seconds time.Duration

// Duration returns s as the time package has it.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, s.Duration().Truncate(time.Millisecond).Seconds(), 'f', -1, 64), nil
}
