package pcaps_test

import (
	"fmt"
	"strings"
	"testing"
)

// diffContext is how many equal lines are shown around those that differ.
const diffContext = 3

// maxDiff is the product of lines up to which a difference is shown whole.
const maxDiff = 4_000_000

// diff returns what want and got differ in, by line, as a patch of want has it;
// "" if in nothing.
func diff(want, got string) string {
	a, b := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	if head == len(a) && head == len(b) {
		return ""
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	type line struct {
		mark byte
		text string
	}
	var all []line
	for _, l := range a[:head] {
		all = append(all, line{' ', l})
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	if len(x)*len(y) > maxDiff {
		x, y = x[:min(len(x), maxDiff/1000)], y[:min(len(y), 1000)]
	}
	common := make([][]int, len(x)+1) // length of the longest common part of what is left
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(x) || j < len(y); {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			all = append(all, line{' ', x[i]})
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			all = append(all, line{'-', x[i]})
			i++
		default:
			all = append(all, line{'+', y[j]})
			j++
		}
	}
	for _, l := range a[len(a)-tail:] {
		all = append(all, line{' ', l})
	}
	var out strings.Builder
	shown := -1 // the last line shown
	for n, l := range all {
		near := false
		for k := max(0, n-diffContext); k <= min(len(all)-1, n+diffContext); k++ {
			near = near || all[k].mark != ' '
		}
		if !near || l.text == "" {
			continue
		}
		if shown != n-1 {
			fmt.Fprintf(&out, "@@ line %d\n", n+1)
		}
		shown = n
		out.WriteByte(l.mark)
		out.WriteString(strings.TrimSuffix(l.text, "\n"))
		out.WriteByte('\n')
	}
	return out.String()
}

func TestDiff(t *testing.T) {
	want := "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
	for _, tt := range []struct{ got, diff string }{
		{want, ""},
		{"1\n2\n3\n4\nfive\n6\n7\n8\n9\n", "@@ line 2\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"},
		{"2\n3\n4\n5\n6\n7\n8\n9\nten\n", "-1\n 2\n 3\n 4\n@@ line 7\n 7\n 8\n 9\n+ten\n"},
		{"", "-1\n-2\n-3\n-4\n-5\n-6\n-7\n-8\n-9\n"},
	} {
		if got := diff(want, tt.got); got != tt.diff {
			t.Errorf("%q: got\n%swant\n%s", tt.got, got, tt.diff)
		}
	}
}
