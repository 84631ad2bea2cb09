package console

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/cli"
)

// TestShowJSON has each show command that is the console's own show JSON; those of
// the appliance have a test there.
func TestShowJSON(t *testing.T) {
	b := newTestBox(t, "")
	if _, _, err := b.Save(); err != nil {
		t.Fatal(err)
	}
	lines := []string{"show conn detail", "show disk0:", "show running-config all", "show running-config diff", "show running-config interface"}
	for _, r := range slices.Concat(userCommands, privilegedCommands) {
		if strings.HasPrefix(r.Syntax, "show ") {
			line := strings.Join(cli.Lead(r.Syntax), " ")
			if line == "show running-config all privilege" {
				line += " all" // a word that it wants
			}
			lines = append(lines, line)
		}
	}
	if len(lines) < 14 {
		t.Errorf("only %d commands", len(lines))
	}
	told, err := os.ReadFile("../../docs/JSON.md")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(string(told), "## Of the session")
	for k, line := range lines {
		var out bytes.Buffer
		if err := b.Exec(t.Context(), &out, line+" | json"); err != nil {
			t.Errorf("%s | json: %v", line, err)
			continue
		}
		var doc map[string]any
		d := json.NewDecoder(&out)
		if err := d.Decode(&doc); err != nil || len(doc) == 0 || d.More() {
			t.Errorf("%s | json: %v, %v, and more: %v", line, doc, err, d.More())
		}
		if parts, ok := doc["commands"].([]any); ok { // of show tech-support: the documents of other commands
			for _, p := range parts {
				if p, ok := p.(map[string]any); ok && p["shown"] != nil {
					p["shown"] = "another document"
				}
			}
		}
		names(doc, func(name string) {
			if k > 0 && !strings.Contains(own, "`"+name+"`") { // the first is the appliance's
				t.Errorf("docs/JSON.md does not have %s of %s", name, line)
			}
		})
	}
}

// names calls f with the names of the fields in a document.
func names(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for name, in := range v {
			f(name)
			names(in, f)
		}
	case []any:
		for _, in := range v {
			names(in, f)
		}
	}
}
