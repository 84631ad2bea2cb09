package config

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

// Load reads a configuration, which file names in messages, into a Text. What
// is wrong with it is found as Check does; if a finding is an Error the Text is
// empty. A lenient Load leaves the lines out in which the errors are, and what
// depends on them, and says so in warnings; the Text is then without error.
func Load(file string, r io.Reader, lenient bool) (Text, []Finding) {
	t, _, found := load(file, r, lenient)
	return t, found
}

// LoadLines is a lenient Load that also returns the lines of the file, which
// say what became of each; one that is left out is Refused, and so is what stands
// below it.
func LoadLines(file string, r io.Reader) (Text, []Line, []Finding) { return load(file, r, true) }

func load(file string, r io.Reader, lenient bool) (Text, []Line, []Finding) {
	p := newParser(file)
	b := &builder{p: p, levels: make(map[string]*level)}
	p.record, p.certify = b.add, b.certify
	p.read(r)
	found := append(p.found, p.run.Validate()...)
	sortFindings(found)
	switch {
	case Errors(found) == 0:
		return newText(b.assemble(nil)), p.run.Lines, found
	case !lenient:
		return Text{}, p.run.Lines, found
	}
	for i := range found {
		if found[i].Severity == Error {
			found[i] = leftOut(found[i])
			if n := found[i].Line; n <= len(p.run.Lines) && p.run.Lines[n-1].Kind != Comment {
				p.run.Lines[n-1].Kind = Refused // and told
			}
		}
	}
	t, more := b.prune(p.run)
	found = append(found, more...)
	sortFindings(found)
	return t, p.run.Lines, found
}

// A builder makes the lines of a Text from what a parser reads. It does what put
// does to each line, in a time that does not grow with the square of their number.
type builder struct {
	p      *parser
	levels map[string]*level // by the keys of the stanzas around, the outermost first
	path   []string          // of the stanza that the parser is in
	within []modeID          // the modes along path
}

// A level is the lines below one, or the global ones.
type level struct {
	lines []*line
	has   map[string]bool // their keys
}

func (b *builder) level(path []string) *level {
	name := strings.Join(path, "\x00")
	v := b.levels[name]
	if v == nil {
		v = &level{has: make(map[string]bool)}
		b.levels[name] = v
	}
	return v
}

// put is the function put, in place.
func (v *level) put(l *line, nth int) {
	if v.has[l.key] {
		i := slices.IndexFunc(v.lines, func(o *line) bool { return o.key == l.key })
		if nth == 0 && !isDefault(l) {
			v.lines[i] = l
			return
		}
		v.lines = slices.Delete(v.lines, i, i+1)
		delete(v.has, l.key)
	}
	if isDefault(l) {
		return
	}
	if level := levelFor(v.lines, l); level != nil {
		v.put(level, 0)
	}
	v.lines = slices.Insert(v.lines, placeFor(v.lines, l, nth), l)
	v.has[l.key] = true
}

// assemble returns the lines of the stanza at path with all that is below them.
func (b *builder) assemble(path []string) []*line {
	lines := b.level(path).lines
	for _, l := range lines {
		if l.mode != global {
			l.below = b.assemble(append(slices.Clip(path), l.key))
		}
	}
	return lines
}

// add takes a command that the parser found in a mode.
func (b *builder) add(in modeID, m *cli.Match[action]) {
	depth := slices.Index(b.within, in) + 1 // 0: it is global
	b.path, b.within = b.path[:depth:depth], b.within[:depth]
	if b.p.block != nil && b.p.block.line == b.p.line {
		return // certify follows
	}
	mode := m.Rule.Do.form.mode
	refused := b.p.run.Lines[b.p.line-1].Kind == Refused
	if refused && mode == global {
		return
	}
	list, nth := b.p.placedLines(in, m, b.p.portProto(in))
	for _, l := range list {
		if refused {
			break
		}
		l.from = b.p.line
		if at := b.level(b.path); mode == global || !at.has[l.key] { // else the stanza goes on
			at.put(l, nth)
		}
	}
	if mode != global {
		key := list[0].key
		if refused {
			key += "\x00" // what follows goes with the line
		}
		b.path, b.within = append(b.path, key), append(b.within, mode)
	}
}

// portProto is the protocol of the ports of a stanza that does not say it in
// each line.
func (p *parser) portProto(in modeID) string {
	if in == inServiceGroup && p.mode == inServiceGroup {
		return p.group().Proto
	}
	return ""
}

// put is with, but for a line that says what holds without it: that only takes
// away.
func put(lines []*line, l *line, nth int) []*line {
	if !isDefault(l) {
		if level := levelFor(lines, l); level != nil {
			lines = with(lines, level, 0)
		}
		return with(lines, l, nth)
	}
	return slices.DeleteFunc(slices.Clone(lines), func(o *line) bool { return o.key == l.key })
}

// levelFor returns the line of the security level that a name gives an interface
// which has none, nil if l is no name or there is one.
func levelFor(lines []*line, l *line) *line {
	if l.in != inInterface || l.key != "nameif" || l.words[0].text == "no" ||
		slices.ContainsFunc(lines, func(o *line) bool { return o.key == "security-level" && o.words[0].text != "no" }) {
		return nil
	}
	level := "0"
	if l.words[1].text == "inside" {
		level = "100"
	}
	return keywordLine(inInterface, global, "security-level", level, "security-level")
}

// certify takes a certificate of a trustpoint.
func (b *builder) certify(trustpoint string, ca bool, der []byte) {
	chain, l := certificateLines(trustpoint, ca, der)
	global := b.level(nil)
	if !global.has[chain.key] {
		global.put(chain, 0)
	}
	below := b.level([]string{chain.key})
	below.lines = withCertLine(below.lines, l, ca)
	clear(below.has)
}

// WithCertificate returns the text with a certificate, as DER, in the chain of
// a trustpoint: that of the box itself, which replaces the one before, or that
// of a CA.
func (t Text) WithCertificate(trustpoint string, ca bool, der []byte) Text {
	return newText(withCertificate(t.lines(), trustpoint, ca, der))
}

func withCertificate(lines []*line, trustpoint string, ca bool, der []byte) []*line {
	chain, l := certificateLines(trustpoint, ca, der)
	lines = with(lines, chain, 0)
	lines, _ = change(lines, []string{chain.key}, func(below []*line) []*line { return withCertLine(below, l, ca) })
	return lines
}

// certificateLines makes the line that begins a chain and one of a certificate.
func certificateLines(trustpoint string, ca bool, der []byte) (chain, cert *line) {
	text := "certificate"
	if ca {
		text += " ca"
	}
	cert = keywordLine(inChain, global, text, serialOf(der), "")
	cert.cert = der
	return keywordLine(global, inChain, "crypto ca certificate chain", trustpoint, ""), cert
}

// withCertLine returns the lines of a chain with a certificate: that of the box
// takes the place of the one before, and a CA's gets another number if a
// different one has it.
func withCertLine(below []*line, l *line, ca bool) []*line {
	if !ca {
		below = slices.DeleteFunc(slices.Clone(below), func(o *line) bool { return o.index("ca") < 0 })
	}
	serial := l.words[len(l.words)-1].text
	for n := 2; slices.ContainsFunc(below, func(o *line) bool { return o.key == l.key && !bytes.Equal(o.cert, l.cert) }); n++ {
		l.words[len(l.words)-1].text = fmt.Sprintf("%s%02x", serial, n)
		l.key = textOf(l.words)
	}
	return with(below, l, 0)
}

// keywordLine makes a line of keywords and one name; its key is the whole line if
// none is given.
func keywordLine(in, mode modeID, keywords, name, key string) *line {
	var words []word
	for _, w := range append(strings.Fields(keywords), name) {
		words = append(words, word{text: w, name: w})
	}
	if key == "" {
		key = textOf(words)
	}
	return newLine(words, key, in, mode)
}

// serialOf returns the serial number of a certificate in hexadecimal, or "01"
// of one in which there is none where it should be. (RFC 5280, section 4.1.)
func serialOf(der []byte) string {
	var outer struct{ TBS asn1.RawValue }
	var cert, tbs, field asn1.RawValue
	if _, err := asn1.Unmarshal(der, &cert); err != nil {
		return "01"
	}
	if _, err := asn1.Unmarshal(cert.Bytes, &outer.TBS); err != nil {
		return "01"
	}
	tbs = outer.TBS
	rest := tbs.Bytes
	for range 2 { // version may be left out
		var err error
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return "01"
		}
		if field.Class == asn1.ClassUniversal && field.Tag == asn1.TagInteger && len(field.Bytes) > 0 && len(field.Bytes) <= 20 {
			return hex.EncodeToString(field.Bytes)
		}
	}
	return "01"
}

// prune takes lines out until none is in error, and says which.
func (b *builder) prune(run *Running) (Text, []Finding) {
	lines := b.assemble(nil)
	var found []Finding
	for {
		t := newText(lines)
		x := t.parsed()
		bad := make(map[*line]bool)
		for _, f := range x.found {
			if f.Severity != Error || f.Line > len(x.at) || x.at[f.Line-1] == nil {
				continue
			}
			for _, l := range x.at[f.Line-1].parts() {
				bad[l] = true
				if n := l.from; n > 0 && run.Lines[n-1].Kind != Refused {
					run.Lines[n-1].Kind = Refused
					found = append(found, leftOut(Finding{File: run.File, Line: n, Rule: f.Rule, Text: clean(run.Lines[n-1].Text), Msg: f.Msg}))
					found = append(found, goesWith(l, run)...)
				}
			}
		}
		switch {
		case len(bad) > 0:
			lines = without(lines, bad)
		case Errors(x.found) > 0: // of no line
			return Text{}, append(found, x.found...)
		default:
			return t, found
		}
	}
}

// goesWith marks the lines below one that is left out, and tells of them.
func goesWith(top *line, run *Running) []Finding {
	var found []Finding
	for _, l := range top.below {
		if n := l.from; n > 0 && run.Lines[n-1].Kind != Refused {
			run.Lines[n-1].Kind = Refused
			found = append(found, Finding{File: run.File, Line: n, Text: clean(run.Lines[n-1].Text), LeftOut: true,
				Msg: fmt.Sprintf("goes with the command left out in line %d", top.from)})
		}
		found = append(found, goesWith(l, run)...)
	}
	return found
}

// leftOut makes of an Error the Warning that its line is left out. That an entry
// which denies is missing may open what it closed.
func leftOut(f Finding) Finding {
	f.Severity, f.LeftOut, f.Msg = Warning, true, "left out: "+f.Msg
	if words := strings.Fields(f.Text); len(words) > 2 && words[0] == "access-list" && slices.Contains(words, "deny") {
		f.Msg += "; see that nothing passes which it was to deny"
	}
	return f
}

// without returns lines but those in bad, at any depth.
func without(lines []*line, bad map[*line]bool) []*line {
	var kept []*line
	for _, l := range lines {
		if bad[l] {
			continue
		}
		if below := without(l.below, bad); len(below) != len(l.below) || !slices.Equal(below, l.below) {
			changed := *l
			changed.below = below
			l = &changed
		}
		kept = append(kept, l)
	}
	return kept
}
