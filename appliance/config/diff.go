package config

import (
	"io"
	"slices"
	"strings"
)

// Diff writes the lines that a has and b has not, after "-", and those that b
// has and a has not, after "+", each below the lines that begin its stanza. It
// writes nothing if the texts are equal.
func Diff(w io.Writer, a, b Text) error {
	r := renderer{w: w}
	r.diff(a.lines(), b.lines(), "")
	return r.err
}

func (r *renderer) diff(a, b []*line, indent string) {
	same := func(x, y *line) bool {
		return x.key == y.key && x.text() == y.text() && string(x.cert) == string(y.cert)
	}
	for len(a) > 0 || len(b) > 0 {
		if len(a) > 0 && len(b) > 0 && same(a[0], b[0]) {
			if !equalLines(a[0].below, b[0].below) {
				r.print(a[0], " "+indent+r.text(a[0]))
				r.diff(a[0].below, b[0].below, indent+" ")
			}
			a, b = a[1:], b[1:]
			continue
		}
		if len(a) > 0 && !slices.ContainsFunc(b, func(l *line) bool { return same(a[0], l) }) {
			r.whole("-", indent, a[0])
			a = a[1:]
			continue
		}
		if len(b) > 0 && !slices.ContainsFunc(a, func(l *line) bool { return same(b[0], l) }) {
			r.whole("+", indent, b[0])
			b = b[1:]
			continue
		}
		// Both go on elsewhere: a[0] has moved.
		r.whole("-", indent, a[0])
		i := slices.IndexFunc(b, func(l *line) bool { return same(a[0], l) })
		moved := b[i]
		b = slices.Delete(slices.Clone(b), i, i+1)
		r.whole("+", indent, moved)
		a = a[1:]
	}
}

// whole writes a line and all below it.
func (r *renderer) whole(sign, indent string, l *line) {
	r.print(l, sign+indent+r.text(l))
	for _, row := range hexLines(l.cert) {
		r.print(l, sign+indent+strings.Repeat(" ", 3)+row)
	}
	for _, x := range l.below {
		r.whole(sign, indent+" ", x)
	}
}
