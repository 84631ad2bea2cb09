package importer

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

var (
	update = flag.Bool("update", false, "take the counts of the corpus as they are")
	report = flag.Bool("report", false, "print what becomes of the lines of the corpus")
)

const (
	corpus       = "../config/testdata/corpus/*.cfg"
	corpusCounts = "testdata/corpus.txt"
)

// TestCorpus loads forms of configurations as ASAs of many versions write them:
// what can be obeyed of each is a configuration without error that is its own
// rendering, and how much of it that is stays as it was.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(corpus)
	if err != nil || len(files) < 30 {
		t.Fatalf("a corpus of %d files (%v), want at least 30", len(files), err)
	}
	var counts bytes.Buffer
	total := make(map[config.LineKind]int)
	heads := make(map[string]Group)
	for _, file := range files {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		testReload(t, name, data)
		r, err := Import(name, data, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		fmt.Fprintf(&counts, "%s: %d obeyed, %d inert, %d refused\n", strings.TrimSuffix(name, ".cfg"),
			r.Count(config.Obeyed), r.Count(config.Inert), r.Count(config.Refused))
		for _, kind := range []config.LineKind{config.Obeyed, config.Inert, config.Refused} {
			total[kind] += r.Count(kind)
		}
		for _, g := range r.Groups(config.Refused) {
			h := heads[g.Head]
			heads[g.Head] = Group{Head: g.Head, Why: cmp.Or(h.Why, g.Why), Lines: append(h.Lines, g.Lines...), Below: h.Below + g.Below}
			if g.Why == "" {
				t.Errorf("%s: %s, lines %v: left out without a reason", name, g.Head, g.Lines)
			}
		}
	}
	if *report {
		all := total[config.Obeyed] + total[config.Inert] + total[config.Refused]
		share := func(k config.LineKind) string {
			return fmt.Sprintf("%d (%.1f %%)", total[k], 100*float64(total[k])/float64(all))
		}
		fmt.Printf("%d files, %d lines: %s obeyed, %s known and without effect, %s refused\n\ntimes below  command and why\n",
			len(files), all, share(config.Obeyed), share(config.Inert), share(config.Refused))
		for _, k := range slices.SortedFunc(slices.Values(sortedKeys(heads)), func(a, b string) int {
			return cmp.Or(len(heads[b].Lines)-len(heads[a].Lines), strings.Compare(a, b))
		}) {
			fmt.Printf("%5d %5d  %s: %s\n", len(heads[k].Lines), heads[k].Below, k, heads[k].Why)
		}
	}
	if *update {
		if err := os.WriteFile(corpusCounts, counts.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(corpusCounts)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := strings.Split(counts.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) || got[i] != lines[i] {
			t.Fatalf("what becomes of the corpus has changed; if that is meant, go test ./appliance/importer -run TestCorpus -update\ngot:\n%s\nwant:\n%s",
				strings.Join(got[min(i, len(got)):], "\n"), strings.Join(lines[min(i, len(lines)):], "\n"))
		}
	}
}

// testReload checks that what is left of a configuration, rendered, is loaded
// without error as the same.
func testReload(t *testing.T, name string, data []byte) {
	loaded, found := config.Load(name, bytes.NewReader(data), true)
	if n := config.Errors(found); n > 0 {
		t.Errorf("%s: a lenient load finds %d errors: %v", name, n, found)
	}
	again, found := config.Load(name, strings.NewReader(loaded.String()), false)
	for _, f := range found {
		if f.Severity == config.Error {
			t.Errorf("%s: what is rendered is refused: %v", name, f)
		}
	}
	if !loaded.Equal(again) {
		t.Errorf("%s: loading what is rendered gives another text", name)
	}
	one, _ := loaded.Running()
	two, _ := again.Running()
	if !reflect.DeepEqual(one, two) {
		t.Errorf("%s: what is rendered means something else", name)
	}
}
