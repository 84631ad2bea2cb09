package console

import (
	"bytes"
	"encoding/json"
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
	lines := []string{"show conn detail", "show running-config all", "show running-config diff", "show running-config interface"}
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
	for _, line := range lines {
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
	}
}
