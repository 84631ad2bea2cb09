package config

import (
	"io"
	"strings"

	"patchbay/appliance/cli"
)

// CheckAll is Check for a box that does everything the language has: what only
// the table of unsupported features refuses passes.
func CheckAll(file string, r io.Reader) (*Running, []Finding) { return CheckOnly(file, r, "") }

// CheckOnly is Check for a box that does everything but one feature.
func CheckOnly(file string, r io.Reader, missing string) (*Running, []Finding) {
	var features []feature
	for _, f := range unsupported {
		if f.name == missing {
			features = append(features, f)
		}
	}
	run, found := Parse(file, r)
	found = append(found, run.validate(features)...)
	sortFindings(found)
	return run, found
}

// Unsupported returns the names in the table of unsupported features.
func Unsupported() []string {
	var names []string
	for _, f := range unsupported {
		names = append(names, f.name)
	}
	return names
}

// WithoutHelp returns the words of the language that have no help.
func WithoutHelp() []string {
	var list []string
	miss := func(mode string, rule *command, before []string, c cli.Candidate) {
		word := c.Word
		if c.Name != "" {
			word = "<" + c.Name + ">"
		}
		help := vocabulary.Of(before, word)
		if c.Kind != "" && help == "" {
			help = vocabulary["<"+c.Kind+">"]
		}
		if c.Keyword() && help == "" {
			help = rule.Help
		}
		if help == "" {
			list = append(list, mode+": "+strings.Join(append(before, word), " "))
		}
	}
	for _, m := range asa().modes {
		m.positive.Walk(func(r *command, before []string, c cli.Candidate) { miss(m.name, r, before, c) })
	}
	asa().actions.Walk(func(r *command, before []string, c cli.Candidate) { miss("action", r, before, c) })
	return list
}
