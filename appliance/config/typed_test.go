package config_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/config"
)

var update = flag.Bool("update", false, "rewrite what is wanted")

// TestTranscripts types the lines of testdata/typed/*.txt, those after a prompt,
// and compares what is answered. A first line "load FILE" says where it begins.
// "show running-config ..." and what ends in "?" are answered as a console does.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/typed/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, string(data))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(data), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// transcript returns a transcript with the answers that the lines typed in it
// get.
func transcript(t *testing.T, text string) string {
	var b strings.Builder
	var c config.Text
	var at config.Place
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if file, ok := strings.CutPrefix(line, "load "); ok {
			data, err := os.ReadFile("testdata/" + file)
			if err != nil {
				t.Fatal(err)
			}
			c = load(t, string(data))
		}
		if strings.HasPrefix(line, "load ") || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
			continue
		}
		_, typed, ok := strings.Cut(line, ")# ")
		if !ok || !strings.HasPrefix(line, "(config") {
			if !strings.HasPrefix(line, "| ") {
				continue // an answer
			}
			typed = line[2:] // while a certificate is typed there is no prompt
		}
		prompt := at.Prompt() + "# "
		if prompt == "# " {
			prompt = "| "
		}
		fmt.Fprintln(&b, prompt+typed)
		if section, ok := strings.CutPrefix(typed, "show running-config"); ok {
			words := strings.Fields(section)
			all := len(words) > 0 && words[0] == "all"
			if all {
				words = words[1:]
			}
			var out strings.Builder
			if err := c.Render(&out, all, words...); err != nil {
				fmt.Fprintln(&b, "ERROR: "+err.Error())
			}
			b.WriteString(out.String())
			continue
		}
		if line, ok := strings.CutSuffix(typed, "?"); ok {
			list, f := c.Help(at, line)
			for _, l := range list {
				fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-20s %s", l.Word, l.Text), " "))
			}
			if f != nil {
				fmt.Fprintln(&b, f.Reply(len(prompt)))
			}
			continue
		}
		e := c.Enter(at, typed)
		for _, f := range e.Findings {
			fmt.Fprintln(&b, f.Reply(len(prompt)))
		}
		if config.Errors(e.Findings) > 0 && !e.Text.Equal(c) {
			t.Errorf("%q is refused and changes the text", typed)
		}
		if e.Action != nil {
			fmt.Fprintln(&b, "ACTION: "+e.Action.Line)
		}
		if e.Done {
			fmt.Fprintln(&b, "DONE")
		}
		c, at = e.Text, e.At
	}
	return b.String()
}
