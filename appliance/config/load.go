package config

import (
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
	p := newParser(file)
	b := &builder{p: p}
	p.record, p.certify = b.add, b.certify
	p.read(r)
	found := append(p.found, p.run.Validate()...)
	sortFindings(found)
	switch {
	case Errors(found) == 0:
		return newText(b.lines), found
	case !lenient:
		return Text{}, found
	}
	for i := range found {
		if found[i].Severity == Error {
			found[i] = leftOut(found[i])
			if n := found[i].Line; n <= len(p.run.Lines) {
				p.run.Lines[n-1].Kind = Refused // and told
			}
		}
	}
	t, more := b.prune(p.run)
	found = append(found, more...)
	sortFindings(found)
	return t, found
}

// A builder makes the lines of a Text from what a parser reads.
type builder struct {
	p      *parser
	lines  []*line
	path   []string // of the stanza that the parser is in
	within []modeID // the modes along path
}

// add takes a command that the parser found in a mode.
func (b *builder) add(in modeID, m *cli.Match[action]) {
	depth := slices.Index(b.within, in) + 1 // 0: it is global
	b.path, b.within = b.path[:depth], b.within[:depth]
	mode := m.Rule.Do.form.mode
	refused := b.p.run.Lines[b.p.line-1].Kind == Refused
	if b.p.block != nil && in == inChain || b.p.block != nil && b.p.block.line == b.p.line {
		return // certify follows
	}
	var last *line
	if !refused {
		list, nth := b.p.placedLines(in, m, b.p.portProto(in))
		for _, l := range list {
			l.from = b.p.line
			b.lines, _ = change(b.lines, b.path, func(lines []*line) []*line { return put(lines, l, nth) })
			last = l
		}
	}
	if mode != global {
		key := ""
		if last != nil {
			key = last.key
		} else if list, _ := b.p.placedLines(in, m, ""); len(list) > 0 {
			key = list[0].key // what follows goes with the line that was refused
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
		return with(leveled(lines, l), l, nth)
	}
	return slices.DeleteFunc(slices.Clone(lines), func(o *line) bool { return o.key == l.key })
}

// leveled returns the lines of an interface with the security level that a name
// gives it if it has none.
func leveled(lines []*line, l *line) []*line {
	if l.in != inInterface || l.key != "nameif" || l.words[0].text == "no" ||
		slices.ContainsFunc(lines, func(o *line) bool { return o.key == "security-level" && o.words[0].text != "no" }) {
		return lines
	}
	level := "0"
	if l.words[1].text == "inside" {
		level = "100"
	}
	return with(lines, keywordLine(inInterface, global, "security-level", level, "security-level"), 0)
}

// certify takes a certificate of a trustpoint.
func (b *builder) certify(trustpoint string, ca bool, der []byte) {
	b.lines = withCertificate(b.lines, trustpoint, ca, der)
}

// WithCertificate returns the text with a certificate, as DER, in the chain of
// a trustpoint: that of the box itself, which replaces the one before, or that
// of a CA.
func (t Text) WithCertificate(trustpoint string, ca bool, der []byte) Text {
	return newText(withCertificate(t.lines(), trustpoint, ca, der))
}

func withCertificate(lines []*line, trustpoint string, ca bool, der []byte) []*line {
	chain := keywordLine(global, inChain, "crypto ca certificate chain", trustpoint, "")
	lines = with(lines, chain, 0)
	text := "certificate"
	if ca {
		text += " ca"
	}
	l := keywordLine(inChain, global, text, serialOf(der), "")
	l.cert = der
	lines, _ = change(lines, []string{chain.key}, func(below []*line) []*line {
		if !ca {
			below = slices.DeleteFunc(slices.Clone(below), func(o *line) bool { return o.index("ca") < 0 })
		}
		i := slices.IndexFunc(below, func(o *line) bool { return o.key == l.key })
		if i >= 0 && string(below[i].cert) != string(der) {
			l.words = slices.Clone(l.words)
			for n := 2; i >= 0; n++ { // another CA's certificate of the same number
				l.words[len(l.words)-1].text = fmt.Sprintf("%s%02x", serialOf(der), n)
				l.key = form{}.key(l.words)
				i = slices.IndexFunc(below, func(o *line) bool { return o.key == l.key && string(o.cert) != string(der) })
			}
		}
		return with(below, l, 0)
	})
	return lines
}

// keywordLine makes a line of keywords and one name; its key is the whole line if
// none is given.
func keywordLine(in, mode modeID, keywords, name, key string) *line {
	l := &line{in: in, mode: mode}
	for _, w := range append(strings.Fields(keywords), name) {
		l.words = append(l.words, word{text: w, name: w})
	}
	if l.key = key; key == "" {
		l.key = l.text()
	}
	return l
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
	lines := b.lines
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
