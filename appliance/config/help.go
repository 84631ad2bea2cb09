package config

import (
	"cmp"
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

// A HelpLine is a word that may be typed and what it means. Of an argument Word
// is what the ASA writes: "A.B.C.D", "<0-100>", "WORD", "LINE"; "<cr>" is the end
// of the line.
type HelpLine struct {
	Word    string
	Text    string
	Keyword bool // Word is to be typed as it is
}

// Help returns what "?" at the end of a line typed at a place shows: the words
// that begin with the last one, or all that may follow if the line ends in a
// space or is empty. Outer modes are asked where the mode itself knows nothing.
// If the line is wrong before that, the Finding says why.
func (t Text) Help(at Place, typed string) ([]HelpLine, *Finding) {
	if at.cert != nil {
		return nil, nil
	}
	x := t.parsed()
	var worst *cli.Error
	for _, id := range at.modes() {
		list, err := x.help(id, typed)
		if len(list) > 0 {
			return list, nil
		}
		if err != nil && (worst == nil || err.Words > worst.Words) {
			worst = err
		}
	}
	if worst == nil {
		return nil, nil
	}
	msg := worst.Error()
	if worst.Reason != "" {
		msg += " " + worst.Reason
	}
	return nil, &Finding{Line: 1, Column: worst.Token.Col, Severity: Error, Text: clean(typed), Msg: printable(msg)}
}

// Complete returns what Tab makes of a line typed at a place: with its last word
// completed and a space if there is one way to, else as it is, and the keywords
// that it may be.
func (t Text) Complete(at Place, typed string) (line string, words []string) {
	list, _ := t.Help(at, typed)
	for _, l := range list {
		if l.Keyword {
			words = append(words, l.Word)
		}
	}
	partial := typed[strings.LastIndexAny(typed, " \t")+1:]
	if partial == "" || len(words) != 1 {
		return typed, words
	}
	return typed[:len(typed)-len(partial)] + words[0] + " ", words
}

// help is Help in one mode.
func (x *parsed) help(id modeID, typed string) ([]HelpLine, *cli.Error) {
	m := &asa().modes[id]
	line, negative := typed, false
	if words := cli.Split(typed); len(words) > 0 && strings.EqualFold(words[0].Text, "no") && words[0].Col+2 <= len(typed) {
		line, negative = typed[words[0].Col+1:], true
	}
	list, err := m.positive.Help(line, x.parser.check, vocabulary, m.name+":")
	if err != nil && negative {
		err.Token.Col += len(typed) - len(line)
		err.Words++
	}
	if !negative {
		more, _ := m.moves.Help(line, x.parser.check, vocabulary)
		list = append(list, more...)
		if id == global {
			more, _ = asa().actions.Help(line, x.parser.check, vocabulary)
			list = append(list, more...)
		}
		if len(cli.Split(line)) == 0 || strings.EqualFold(strings.TrimLeft(line, " \t"), "n") {
			list = append(list, cli.Candidate{Word: "no", Help: vocabulary["no"]})
		}
	} else if len(cli.Split(line)) > 0 && !slices.ContainsFunc(list, func(c cli.Candidate) bool { return c.Word == "<cr>" }) && line[len(line)-1] == ' ' {
		list = append(list, cli.Candidate{Word: "<cr>"}) // a beginning is enough
	}
	return helpLines(list, x.interfaceNames(typed[strings.LastIndexAny(typed, " \t")+1:])), err
}

// interfaceNames are the lines for the interfaces whose names begin so.
func (x *parsed) interfaceNames(partial string) []HelpLine {
	var list []HelpLine
	for _, i := range x.run.Interfaces {
		if i.Name != "" && strings.HasPrefix(i.Name, partial) {
			list = append(list, HelpLine{i.Name, "Name of interface " + i.Hardware, true})
		}
	}
	return list
}

// HelpLines returns the lines of candidates, sorted, each word once, as the ASA
// writes them.
func HelpLines(list []cli.Candidate) []HelpLine { return helpLines(list, nil) }

// helpLines is HelpLines with the interfaces that there are in place of the word
// for the name of one.
func helpLines(list []cli.Candidate, interfaces []HelpLine) []HelpLine {
	var lines []HelpLine
	for _, c := range list {
		more := []HelpLine{lineOf(c)}
		if c.Kind == "if" && len(interfaces) > 0 {
			more = interfaces
		}
		for _, l := range more {
			if !slices.ContainsFunc(lines, func(o HelpLine) bool { return o.Word == l.Word }) {
				lines = append(lines, l)
			}
		}
	}
	last := func(l HelpLine) int { return map[bool]int{true: 1}[l.Word == "<cr>"] }
	slices.SortStableFunc(lines, func(a, b HelpLine) int {
		return cmp.Or(last(a)-last(b), strings.Compare(strings.ToLower(a.Word), strings.ToLower(b.Word)))
	})
	return lines
}

// argumentWords are what the ASA writes for arguments, by kind.
var argumentWords = map[string]string{
	"addr": "A.B.C.D", "mask": "A.B.C.D", "line": "LINE", "time": "<0:0:0>", "clock": "hh:mm", "pair": "(", "paren": "(",
	"flash": "disk0:", "capture": "capture:", "fileurl": "tftp:", "tftp": "tftp:", // files: how they begin
}

func lineOf(c cli.Candidate) HelpLine {
	if c.Kind == "" {
		return HelpLine{c.Word, c.Help, c.Keyword()}
	}
	word, ok := argumentWords[c.Kind]
	switch {
	case ok:
	case strings.Trim(c.Kind, "0123456789-") == "":
		word = "<" + c.Kind + ">"
	default:
		word = "WORD"
	}
	if c.Help == "" {
		c.Help = vocabulary["<"+c.Kind+">"]
	}
	return HelpLine{word, c.Help, false}
}
