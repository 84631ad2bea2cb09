package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"patchbay/appliance/cli"
)

// Render writes the configuration as "show running-config" does. With all it
// writes the defaults as well that the ASA shows. With a section, such as
// "phone-proxy" or "access-list", "outside_in", it writes only the lines that
// begin with those words, which may be abbreviated, and what stands below.
func (t Text) Render(w io.Writer, all bool, section ...string) error {
	b := bufio.NewWriter(w)
	r := renderer{w: b, names: namesOf(t.lines()), defaults: all}
	lines := t.lines()
	if all {
		lines = withDefaults(global, lines)
	}
	if len(section) == 0 {
		r.all(lines)
		return errors.Join(r.err, b.Flush())
	}
	words, err := sectionWords(section)
	if err != nil {
		return err
	}
	for _, row := range rows(lines) {
		if row.begins(words) {
			r.row(row)
		}
	}
	return errors.Join(r.err, b.Flush())
}

// String returns what Render writes.
func (t Text) String() string {
	var b strings.Builder
	t.Render(&b, false)
	return b.String()
}

// A renderer writes lines.
type renderer struct {
	w        io.Writer
	names    map[netip.Addr]string
	defaults bool     // below stanzas
	at       *[]*line // of each line written, nil: not asked for
	err      error
}

// A row is a line of a configuration and what is written below it: an object
// has two, its definition and its nat.
type row struct {
	*line
	below []*line
	rank  int
}

// rows returns what is written for lines, in order.
func rows(lines []*line) []row {
	m := ranks()[global]
	var list, nat []row
	for _, l := range joined(lines) {
		x := row{l, l.below, l.rank}
		if l.mode == inObject {
			i := slices.IndexFunc(l.below, func(o *line) bool { return o.words[0].text == "nat" })
			if i >= 0 {
				x.below = slices.Delete(slices.Clone(l.below), i, i+1)
				nat = append(nat, row{l, l.below[i : i+1], m[objectNAT]})
			}
		}
		list = append(list, x)
	}
	if nat == nil {
		return list
	}
	at := slices.IndexFunc(list, func(x row) bool { return x.rank > m[objectNAT] })
	if at < 0 {
		at = len(list)
	}
	return slices.Insert(list, at, nat...)
}

// all writes a whole configuration.
func (r *renderer) all(lines []*line) {
	m := ranks()[global]
	r.print(nil, ": Saved")
	r.print(nil, ":")
	before := -1
	for _, x := range rows(lines) {
		for range separators(m, before, x.rank) {
			r.print(nil, "!")
		}
		r.row(x)
		before = x.rank
	}
	r.print(nil, ": end")
}

// separators is how many lines "!" stand between lines of two sections.
func separators(m map[string]int, before, rank int) int {
	policy := func(rank int) bool { return rank == m["policy-map type"] || rank == m["policy-map"] }
	switch {
	case before < 0:
		return 0
	case rank == m["class-map"] && before < rank, policy(rank) && !policy(before) && before != m["class-map"],
		rank == m["service-policy"] && before < rank, rank == m[objectNAT] && before < rank,
		rank == m[natAfterAuto] && before < rank, rank == m["interface"], rank == m["time-range"],
		before == m["asa version"], before != rank && (before == m["interface"] || before == m["time-range"]):
		return 1
	case policy(rank) && before == m["class-map"]:
		return 2
	}
	return 0
}

func (r *renderer) row(x row) {
	r.print(x.line, r.text(x.line))
	r.stanza(x.mode, x.below, " ", x.rank == ranks()[global][objectNAT])
}

// stanza writes the lines below one; only says that the defaults are left out.
func (r *renderer) stanza(mode modeID, lines []*line, indent string, only bool) {
	if r.defaults && !only && mode != global {
		lines = withDefaults(mode, lines)
	}
	for _, l := range joined(lines) {
		r.print(l, indent+r.text(l))
		for _, row := range hexLines(l.cert) {
			r.print(l, indent+"   "+row)
		}
		if l.cert != nil {
			r.print(l, indent+" quit")
		}
		r.stanza(l.mode, l.below, indent+" ", false)
	}
}

func (r *renderer) print(l *line, text string) {
	if r.at != nil {
		*r.at = append(*r.at, l)
	}
	if r.err == nil {
		_, r.err = fmt.Fprintln(r.w, text)
	}
}

// text returns l with names in place of addresses.
func (r *renderer) text(l *line) string {
	words := make([]string, len(l.words))
	for i, w := range l.words {
		words[i] = w.text
		if name, ok := r.names[w.addr]; ok && l.words[0].text != "name" {
			words[i] = name
		}
	}
	if words[0] == "asa" {
		copy(words, []string{"ASA", "Version"})
	}
	return strings.Join(words, " ")
}

// namesOf returns the names that are written in place of addresses: the labels
// of name lines unless "no names" stands there. A label that is a keyword would
// be read as one, so the address stays.
func namesOf(lines []*line) map[netip.Addr]string {
	names := make(map[netip.Addr]string)
	for _, l := range lines {
		switch {
		case l.words[0].text == "no" && l.key == "names":
			return nil
		case l.words[0].text == "name" && len(l.words) > 2:
			if _, ok := names[l.words[1].addr]; !ok && !keywords()[strings.ToLower(l.words[2].text)] {
				names[l.words[1].addr] = l.words[2].text
			}
		}
	}
	return names
}

// keywords are all of the language.
var keywords = sync.OnceValue(func() map[string]bool {
	all := make(map[string]bool)
	for _, m := range asa().modes {
		m.grammar.Walk(func(_ *command, _ []string, c cli.Candidate) {
			if c.Keyword() {
				all[c.Word] = true
			}
		})
	}
	return all
})

// Sections returns the first words of lines of a configuration, sorted: what may
// follow "show running-config" and "clear configure".
func Sections() []string { return slices.Clone(allSections()) }

var allSections = sync.OnceValue(func() []string {
	var list []string
	for _, s := range sections {
		if name, _, _ := strings.Cut(s, " "); name != "" {
			list = append(list, name)
		}
	}
	for _, c := range asa().modes[global].positive.Complete("", nil) {
		if c.Keyword() {
			list = append(list, c.Word)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
})

// sectionWords returns the words of a section in full.
func sectionWords(section []string) ([]string, error) {
	words := slices.Clone(section)
	first := strings.ToLower(words[0])
	known := Sections()
	var found []string
	for _, name := range known {
		switch {
		case name == first:
			words[0] = name
			return words, nil
		case strings.HasPrefix(name, first):
			found = append(found, name)
		}
	}
	switch len(found) {
	case 1:
		words[0] = found[0]
		return words, nil
	case 0:
		return nil, fmt.Errorf("%% Invalid input detected at '^' marker. there is no section %s; %s", section[0], nearestOf(section[0], known))
	}
	return nil, fmt.Errorf("%% Ambiguous command:  %q it may be %s", section[0], orList(found))
}

// begins reports whether the row is in the section of words. "nat" is also the
// nat of objects, which "object" is not.
func (x row) begins(words []string) bool {
	line := x.words
	if x.rank == ranks()[global][objectNAT] {
		return words[0] == "nat" && (len(words) == 1 || beginWith(x.below[0].words, words))
	}
	if line[0].text == "no" && words[0] != "no" {
		line = line[1:]
	}
	return beginWith(line, words)
}

// beginWith reports whether line begins with words: keywords may be
// abbreviated, but for the first.
func beginWith(line []word, words []string) bool {
	for i, l := range line {
		for j, text := range strings.Fields(l.text) { // more than one of text up to the end
			if len(words) == 0 {
				return true
			}
			w := words[0]
			words = words[1:]
			keyword := i > 0 && j == 0 && l.name == text
			if !strings.EqualFold(text, w) && !(keyword && len(w) <= len(text) && strings.EqualFold(text[:len(w)], w)) {
				return false
			}
		}
	}
	return len(words) == 0
}
