package console

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"patchbay/appliance/cli"
)

// maxPattern bounds the regular expression of a filter, in bytes.
const maxPattern = 200

// A filter passes lines of what a show command shows: "show conn | include 2443".
type filter struct {
	w     io.Writer
	kind  string // include, exclude, begin, count
	re    *regexp.Regexp
	began bool
	count int
	part  []byte // a line whose end is yet to come
}

// filterKinds are the words after "|" and what they mean.
var filterKinds = []struct{ word, help string }{
	{"begin", "Begin with the line that matches"},
	{"count", "Count the lines that match, or all"},
	{"exclude", "Exclude lines that match"},
	{"grep", "Include or exclude lines that match"},
	{"include", "Include lines that match"},
	{"json", "Show it as one JSON document"},
}

// splitFilter divides a line at the "|" of a filter. Only what is shown can be
// filtered: elsewhere "|" is a character.
func splitFilter(line string) (command, pipe string, ok bool) {
	if !cli.Shows(line) {
		return line, "", false
	}
	return strings.Cut(line, "|")
}

// thenJSON finds what was meant as another filter, and would be an odd expression.
var thenJSON = regexp.MustCompile(`\s\|\s*json$`)

// filterKind divides what follows "|"; kind is "" if it is none.
func filterKind(pipe string) (kind, pattern string) {
	word, pattern, _ := strings.Cut(strings.TrimLeft(pipe, " "), " ")
	for _, k := range filterKinds {
		if word != "" && strings.HasPrefix(k.word, strings.ToLower(word)) {
			kind = k.word
		}
	}
	return kind, strings.TrimSpace(pattern)
}

// newFilter reads what follows "|". It returns nil for json, which is no filter of
// lines: it has the command show something else.
func newFilter(pipe string, w io.Writer) (*filter, error) {
	kind, pattern := filterKind(pipe)
	if kind == "" {
		return nil, fmt.Errorf("%% Invalid input detected at '^' marker.\nafter \"|\" may stand begin, count, exclude, grep [-v] or include, and a regular expression, or json")
	}
	switch {
	case kind == "json" && pattern != "", thenJSON.MatchString(pattern):
		return nil, fmt.Errorf("%% Invalid input detected at '^' marker.\njson stands alone after \"|\": it shows the whole, and goes with no other filter")
	case kind == "json":
		return nil, nil
	}
	if kind == "grep" {
		kind = "include"
		if rest, ok := strings.CutPrefix(pattern, "-v "); ok {
			kind, pattern = "exclude", strings.TrimSpace(rest)
		}
	}
	if pattern == "" && kind != "count" {
		return nil, fmt.Errorf("%% Incomplete command")
	}
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%% A regular expression of %d bytes is too long: %d at most", len(pattern), maxPattern)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("%% Invalid regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return &filter{w: w, kind: kind, re: re}, nil
}

// Write implements io.Writer.
func (f *filter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		f.part = append(f.part, line...)
		if !ok {
			return n, nil
		}
		if err := f.line(); err != nil {
			return 0, err
		}
		b = rest
	}
}

func (f *filter) line() error {
	match := f.re.Match(f.part)
	pass := false
	switch f.kind {
	case "include":
		pass = match
	case "exclude":
		pass = !match
	case "begin":
		f.began = f.began || match
		pass = f.began
	case "count":
		if match {
			f.count++
		}
	}
	line := append(f.part, '\n')
	f.part = f.part[:0]
	if !pass {
		return nil
	}
	_, err := f.w.Write(line)
	return err
}

// close passes what is left, and the count.
func (f *filter) close() error {
	if len(f.part) > 0 {
		if err := f.line(); err != nil {
			return err
		}
	}
	if f.kind == "count" {
		_, err := fmt.Fprintf(f.w, "Number of lines which match regexp = %d\n", f.count)
		return err
	}
	return nil
}
