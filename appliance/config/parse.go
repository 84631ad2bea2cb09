package config

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"patchbay/appliance/cli"
	"patchbay/appliance/logging"
)

const (
	maxFile     = 16 << 20 // bytes of a configuration; the largest known are near 10 MB
	maxLine     = 4096     // bytes of one line
	maxFindings = 1000     // findings kept; a last one tells how many were not
)

const checksum = "Cryptochecksum:" // begins the last line of what an ASA writes

// A parser reads lines into a Running.
type parser struct {
	run  *Running
	lang *language
	file string

	mode     modeID
	item     int  // index in the Running of what mode is about
	class    int  // index of the class in a policy map
	useNames bool // labels of name lines stand for addresses
	indented bool // the text indents the lines of a sub-mode
	entered  bool // the current line began a sub-mode

	objects   map[string]int // index of each object network
	groups    map[string]int // index of each object group
	objectNAT map[string]int // line of each object's nat
	nat       []natLine      // in the order of search within a section
	legacy    legacy
	moreRules int // of NAT lines, beyond one for each
	members   int // of all groups, expanded
	services  int // of all access lists, expanded

	line    int // number of the current line
	text    string
	refused int        // line whose deeper indented lines are refused with it, 0 none
	depth   int        // indentation of that line
	block   *certBlock // certificate being collected, or nil

	found   []Finding
	dropped int // findings over maxFindings

	record  func(modeID, *cli.Match[action])             // told of each command obeyed or refused by what it says, or nil
	certify func(trustpoint string, ca bool, der []byte) // told of each certificate that is whole, or nil
}

// Parse reads a whole configuration, in which file names it in messages. It
// reads on after an error: the Running holds what was understood, and is to be
// used only if no finding is an Error. Findings are in the order of lines.
// Every line is obeyed, known to be inert, or refused with a finding.
func Parse(file string, r io.Reader) (*Running, []Finding) {
	p := newParser(file)
	p.read(r)
	return p.run, p.found
}

// read reads a whole configuration.
func (p *parser) read(r io.Reader) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	tooLong := len(data) > maxFile
	if tooLong {
		data = data[:bytes.LastIndexByte(data[:maxFile], '\n')+1]
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		p.readLine(string(bytes.TrimSuffix(line, []byte("\r"))))
		data = rest
	}
	if p.block != nil {
		p.endBlock("the text ends before the line quit")
	}
	p.line, p.text, p.mode = max(p.line, 1), "", global
	if err != nil {
		p.report(Error, 0, "", "reading: %v", err)
	}
	if tooLong {
		p.report(Error, 0, "", "the file is longer than %d bytes; the rest was not read", maxFile)
	}
	p.resolve()
	if p.dropped > 0 {
		p.found = append(p.found, Finding{File: p.file, Line: max(len(p.run.Lines), 1), Severity: Error,
			Msg: fmt.Sprintf("%d more findings are not listed", p.dropped)})
	}
	sortFindings(p.found)
}

// Check is Parse and then Validate, with the findings of both in the order of
// lines.
func Check(file string, r io.Reader) (*Running, []Finding) {
	run, found := Parse(file, r)
	found = append(found, run.Validate()...)
	sortFindings(found)
	return run, found
}

func newParser(file string) *parser {
	return &parser{
		lang:     asa(),
		file:     file,
		useNames: true,
		objects:  make(map[string]int), groups: make(map[string]int), objectNAT: make(map[string]int),
		run: &Running{
			File:     file,
			TCPMSS:   TCPMSS{Maximum: defaultTCPMSS},
			Login:    loginDefaults(),
			broken:   make(map[stanza]bool),
			Timeouts: defaultTimeouts(),
			Names:    make(map[string]netip.Addr),
			DNS:      DNS{Timeout: defaultDNSTimeout, Retries: defaultDNSRetries},
			Logging:  logging.Settings{BufferSize: logging.DefaultBuffer},
		},
	}
}

// report adds a finding on the current line.
func (p *parser) report(s Severity, col int, rule, format string, args ...any) {
	if len(p.found) >= maxFindings {
		p.dropped++
		return
	}
	p.found = append(p.found, Finding{File: p.file, Line: p.line, Column: col, Severity: s,
		Text: clean(p.text), Msg: printable(fmt.Sprintf(format, args...)), Rule: rule})
}

// refuse reports an Error at tok and marks the current line refused.
func (p *parser) refuse(tok cli.Token, rule, format string, args ...any) {
	if p.line <= len(p.run.Lines) {
		p.run.Lines[p.line-1].Kind = Refused
	}
	p.run.broken[stanza{p.mode, p.itemName()}] = true
	p.report(Error, tok.Col, rule, format, args...)
}

// itemName returns the name of what the mode is about.
func (p *parser) itemName() string {
	switch p.mode {
	case inInterface:
		return p.run.Interfaces[p.item].Hardware
	case inObject:
		return p.run.Objects[p.item].Name
	case inServiceObject:
		return p.run.ServiceObjects[p.item].Name
	case inNetworkGroup, inServiceGroup, inProtocolGroup, inICMPGroup:
		return p.run.Groups[p.item].Name
	case inTimeRange:
		return p.run.TimeRanges[p.item].Name
	case inTrustpoint, inChain:
		return p.run.Trustpoints[p.item].Name
	case inCTL:
		return p.run.CTLs[p.item].Name
	case inTLSProxy:
		return p.run.TLSProxies[p.item].Name
	case inMediaTermination:
		return p.run.MediaTerminations[p.item].Name
	case inPhoneProxy:
		return p.run.PhoneProxies[p.item].Name
	case inClassMap:
		return p.run.ClassMaps[p.item].Name
	case inPolicyMap, inPolicyClass, inInspectDNS, inSIPMap, inSIPParameters, inSIPMatch,
		inSkinnyMap, inSkinnyParameters, inSkinnyMatch, inDNSParameters, inEngineMap, inEngineParameters:
		return p.run.PolicyMaps[p.item].Name
	}
	return ""
}

func (p *parser) warn(tok cli.Token, rule, format string, args ...any) {
	p.report(Warning, tok.Col, rule, format, args...)
}

// readLine takes the next line of the text.
func (p *parser) readLine(text string) {
	p.run.Lines = append(p.run.Lines, Line{Text: text})
	p.line, p.text = len(p.run.Lines), text
	this := &p.run.Lines[p.line-1]
	switch {
	case len(text) > maxLine:
		p.text = text[:64] + " ..."
		p.refuse(cli.Token{}, "", "a line of %d bytes is too long: %d at most", len(text), maxLine)
		return
	case !utf8.ValidString(text) || strings.ContainsFunc(text, isControl):
		p.refuse(cli.Token{}, "", "the line is not text: it contains control characters or bytes that are not UTF-8")
		return
	}
	if p.block != nil && p.readBlock(text) {
		this.Kind = Obeyed
		return
	}
	trimmed := strings.TrimLeft(text, " \t")
	if trimmed == "" || trimmed[0] == '!' || trimmed[0] == ':' {
		return // Comment
	}
	if len(trimmed) >= len(checksum) && strings.EqualFold(trimmed[:len(checksum)], checksum) {
		this.Kind, this.Why = Inert, "it is of the file as the ASA wrote it"
		return
	}
	depth := len(text) - len(trimmed)
	if p.refused > 0 && depth > p.depth {
		this.Kind = Refused
		p.report(Info, 0, "", "goes with the command refused in line %d", p.refused)
		return
	}
	p.refused = 0
	p.entered = false
	this.Kind = Obeyed
	p.command(text, depth > 0)
	if this.Kind == Refused && !p.entered {
		p.refused, p.depth = p.line, depth
	}
	if p.mode != global && depth > 0 {
		p.indented = true
	}
}

func isControl(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }

// command obeys one line of commands, in the mode it belongs to.
func (p *parser) command(text string, indented bool) {
	// A sub-mode ends at the first line that is not valid in it but is valid
	// around it. What is valid in both belongs to the sub-mode, unless the
	// text indents and this line is not indented.
	var modes []modeID
	for m := p.mode; m != global; m = p.lang.modes[m].parent {
		modes = append(modes, m)
	}
	if !indented && p.indented {
		modes = append([]modeID{global}, modes...)
	} else {
		modes = append(modes, global)
	}
	f := p.find(modes, text)
	if f.match == nil || f.match.Rule.Do.refuse != "" {
		tok, why := p.why(f)
		p.refuse(tok, "", "%s", why)
		return
	}
	p.obey(f.mode, f.match)
	if p.record != nil {
		p.record(f.mode, f.match)
	}
}

// A finder is what a line is in one of some modes: a command, which may be one
// that is refused, or no command and why.
type finder struct {
	mode     modeID
	match    *cli.Match[action]
	err      *cli.Error
	expected []string // the first words that are known in the modes
}

// find looks for the command that text is in one of modes, the innermost first.
func (p *parser) find(modes []modeID, text string) finder {
	var worst finder
	deepest, expected := -1, []string(nil)
	for _, id := range modes {
		m, err := p.lang.modes[id].grammar.Match(text, p.check)
		if err != nil {
			if err.Words == 0 {
				expected = append(expected, err.Expected...)
			}
			if err.Words > deepest {
				deepest, worst = err.Words, finder{mode: id, err: err}
			}
			continue
		}
		if deepest > 0 && !spelled(text, m.Args) {
			continue // "host 10.0.0.300" in an object is not "hostname 10.0.0.300"
		}
		if m.Rule.Do.refuse == "" {
			return finder{mode: id, match: m}
		}
		if depth := len(m.Args.Names()) - 1; depth > deepest {
			deepest, worst = depth, finder{mode: id, match: m}
		}
	}
	worst.expected = expected
	return worst
}

// spelled reports whether the command in text, after a "no", is not abbreviated.
func spelled(text string, a cli.Args) bool {
	words, names := cli.Split(text), a.Names()
	i := 0
	if names[0] == "no" && len(names) > 1 {
		i = 1
	}
	return strings.EqualFold(words[i].Text, names[i])
}

func (p *parser) obey(id modeID, m *cli.Match[action]) {
	p.mode = id
	do := m.Rule.Do
	if do.inert != "" {
		this := &p.run.Lines[p.line-1]
		this.Kind, this.Why = Inert, do.inert
		return
	}
	do.do(p, m.Args)
}

// why says why no rule matches the current line, and at which word.
func (p *parser) why(f finder) (cli.Token, string) {
	if f.match != nil {
		return cli.Split(p.text)[0], f.match.Rule.Do.refuse
	}
	err := f.err
	tok := err.Token
	near := cli.Nearest(tok.Text, err.Expected)
	var why, misplaced string
	if err.Words == 1 && err.Kind == cli.Invalid && f.mode == global && p.mode != global {
		// It may have its first word in common with a global one.
		misplaced = p.misplaced(cli.Split(p.text)[0].Text, func(g *cli.Grammar[action]) bool {
			_, no := g.Match(p.text, p.check)
			return no == nil
		})
	}
	switch {
	case misplaced != "":
		tok, why = cli.Split(p.text)[0], misplaced
	case err.Words == 0 && err.Kind == cli.Invalid:
		why = p.unknown(tok.Text, f.expected)
	case err.Kind == cli.Invalid && near != "":
		why = fmt.Sprintf("%s is not known here; is it %s?", tok.Text, near)
	case err.Reason != "":
		why = err.Reason
	case err.Kind == cli.Incomplete:
		why = "what is missing: " + orList(err.Expected)
	case err.Kind == cli.Ambiguous:
		why = "it may be " + orList(err.Expected)
	case len(err.Expected) == 1 && err.Expected[0] == "<cr>":
		why = fmt.Sprintf("the command is complete before %s", tok.Text)
	default:
		why = fmt.Sprintf("%s cannot stand here, but %s", tok.Text, orList(err.Expected))
	}
	text := err.Error()
	if !strings.HasSuffix(text, ".") {
		text += ":"
	}
	return tok, text + " " + why
}

// unknown explains a line whose first word no mode tried knows.
func (p *parser) unknown(word string, expected []string) string {
	if why := p.misplaced(word, func(g *cli.Grammar[action]) bool {
		return slices.ContainsFunc(g.Complete(word, nil), func(c cli.Candidate) bool { return strings.EqualFold(c.Word, word) })
	}); why != "" {
		return why
	}
	if near := cli.Nearest(word, expected); near != "" {
		return fmt.Sprintf("%s is not a command; the nearest known is %s", word, near)
	}
	return fmt.Sprintf("%s is not a known command; if it has no effect that matters here, remove it", word)
}

// misplaced says of which mode a command is that begins with word: the first that has
// it, but for the current one and global; "" if none has.
func (p *parser) misplaced(word string, has func(*cli.Grammar[action]) bool) string {
	for id, m := range p.lang.modes {
		switch {
		case id == int(global) || id == int(p.mode) || !has(m.grammar):
		case p.mode == global:
			return fmt.Sprintf("%s is a command of %s mode and must follow it", word, m.name)
		default:
			return fmt.Sprintf("%s is a command of %s mode, not of %s mode", word, m.name, p.lang.modes[p.mode].name)
		}
	}
	return ""
}

// orList writes words as "a, b or c".
func orList(words []string) string {
	const most = 12 // words worth reading
	var list []string
	for _, w := range words {
		switch w {
		case "<cr>":
			w = "the end of the line"
		}
		list = append(list, w)
	}
	if len(list) > most {
		list = append(list[:most:most], "others")
	}
	switch n := len(list); n {
	case 0:
		return "nothing"
	case 1:
		return list[0]
	default:
		return strings.Join(list[:n-1], ", ") + " or " + list[n-1]
	}
}

// enter begins a sub-mode about item, an index in the Running.
func (p *parser) enter(m modeID, item int) { p.mode, p.item, p.entered = m, item, true }

// find returns the index of the item of list with a name, or of a new one that
// create makes.
func findOrAdd[T any](list *[]T, is func(*T) bool, create func() T) int {
	if i := slices.IndexFunc(*list, func(t T) bool { return is(&t) }); i >= 0 {
		return i
	}
	*list = append(*list, create())
	return len(*list) - 1
}
