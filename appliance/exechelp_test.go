package appliance

import (
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/cli"
)

// TestExecVocabulary walks all commands of EXEC mode: each word has its help.
func TestExecVocabulary(t *testing.T) {
	execGrammar.Walk(func(r *cli.Rule[execFunc], before []string, c cli.Candidate) {
		word := c.Word
		if c.Name != "" {
			word = "<" + c.Name + ">"
		}
		path := append(slices.Clone(before), word)
		if execVocabulary.Of(before, word) == "" && execVocabulary["<"+c.Kind+">"] == "" && !slices.Equal(cli.Lead(r.Syntax), path) {
			t.Errorf("no help: %s", strings.Join(path, " "))
		}
	})
}

func TestHelp(t *testing.T) {
	b := execBox(t)
	for line, want := range map[string]string{
		"":                     "capture clear copy crypto debug delete diagnose dir no packet-tracer ping show traceroute undebug",
		"sh":                   "show",
		"show a":               "access-list arp asp",
		"show conn ":           "address count detail port protocol <cr>",
		"clear nat ":           "counters",
		"packet-tracer input ": "WORD",
		"show clock ":          "<cr>",
		"no capture ":          "WORD",
		"show bogus ":          "show bogus \n     ^\nERROR: % Invalid input detected at '^' marker.",
	} {
		list, err := b.Help(line)
		var words []string
		for _, l := range list {
			words = append(words, l.Word)
			if l.Text == "" && l.Word != "<cr>" {
				t.Errorf("Help(%q): %s has no text", line, l.Word)
			}
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Help(%q) = %s; want %s", line, got, want)
		}
	}
}
