package phoneproxy

import (
	"cmp"
	"slices"
)

// An edit replaces the bytes from start to end by text and then tail.
type edit struct {
	start, end int
	text       string
	tail       string // end tag of an element that was self-closing, else ""
}

// edits are the changes to one file, in any order. Several may be made at the
// same empty place; they follow each other as they were added.
type edits []edit

func (es *edits) add(start, end int, text string) { *es = append(*es, edit{start, end, text, ""}) }

// apply returns src with the edits made. What lies within an edit that begins
// before it is gone with what was there.
func (es edits) apply(src []byte) []byte {
	slices.SortStableFunc(es, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var dst []byte
	at := 0
	for _, e := range es {
		if e.start < at {
			continue
		}
		dst = append(dst, src[at:e.start]...)
		dst = append(dst, e.text...)
		dst = append(dst, e.tail...)
		at = e.end
	}
	return append(dst, src[at:]...)
}
