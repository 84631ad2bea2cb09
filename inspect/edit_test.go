package inspect_test

import (
	"bytes"
	"math"
	"testing"

	"patchbay/inspect"
)

type change struct {
	off, n int
	with   string
}

func TestEdits(t *testing.T) {
	const msg = "0123456789"
	tests := []struct {
		name    string
		changes []change
		want    string // "" for an error
	}{
		{"none", nil, msg},
		{"replace", []change{{2, 3, "abc"}}, "01abc56789"},
		{"longer", []change{{2, 1, "abc"}}, "01abc3456789"},
		{"delete", []change{{2, 7, ""}}, "019"},
		{"all", []change{{0, 10, "x"}}, "x"},
		{"insert at both ends", []change{{10, 0, ">"}, {0, 0, "<"}}, "<0123456789>"},
		{"any order", []change{{8, 1, "h"}, {0, 1, "z"}, {4, 2, "-"}}, "z123-67h9"},
		{"touching", []change{{4, 2, "b"}, {2, 2, "a"}}, "01ab6789"},
		{"inserts keep their order", []change{{3, 0, "a"}, {3, 0, "b"}, {3, 0, "c"}}, "012abc3456789"},
		{"insert before a replacement", []change{{3, 2, "R"}, {3, 0, "i"}}, "012iR56789"},
		{"insert behind a replacement", []change{{5, 0, "i"}, {3, 2, "R"}}, "012Ri56789"},
		{"overlap", []change{{2, 3, "a"}, {4, 1, "b"}}, ""},
		{"the same byte twice", []change{{2, 1, "a"}, {2, 1, "b"}}, ""},
		{"insert inside", []change{{2, 3, "a"}, {3, 0, "b"}}, ""},
		{"behind the end", []change{{9, 2, "a"}}, ""},
		{"insert behind the end", []change{{11, 0, "a"}}, ""},
		{"before the start", []change{{-1, 1, "a"}}, ""},
		{"negative length", []change{{3, -1, "a"}}, ""},
		{"sum overflows", []change{{5, math.MaxInt, "a"}}, ""},
	}
	var e inspect.Edits // one for all: Reset must leave nothing behind
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e.Reset()
			for i, c := range tt.changes {
				if i%2 == 0 {
					e.Replace(c.off, c.n, []byte(c.with))
				} else {
					e.ReplaceString(c.off, c.n, c.with)
				}
			}
			got, err := e.AppendTo([]byte("head "), []byte(msg))
			if tt.want == "" {
				if err == nil || string(got) != "head " {
					t.Errorf("AppendTo = %q, %v; want an error and dst as it was", got, err)
				}
				return
			}
			if err != nil || string(got) != "head "+tt.want {
				t.Errorf("AppendTo = %q, %v; want %q", got, err, "head "+tt.want)
			}
			if e.Len() != len(tt.changes) || e.Delta() != len(tt.want)-len(msg) {
				t.Errorf("Len, Delta = %d, %d; want %d, %d", e.Len(), e.Delta(), len(tt.changes), len(tt.want)-len(msg))
			}
		})
	}
}

func TestInsert(t *testing.T) {
	var e inspect.Edits
	e.InsertString(3, "!")
	e.Insert(0, []byte("oh "))
	got, err := e.AppendTo(nil, []byte("hey"))
	if string(got) != "oh hey!" || err != nil {
		t.Errorf("AppendTo = %q, %v", got, err)
	}
}

func TestSpan(t *testing.T) {
	s := inspect.Span{Off: 2, Len: 3}
	got := s.Of([]byte("abcdefgh"))
	if string(got) != "cde" || cap(got) != 3 || s.End() != 5 {
		t.Errorf("Of = %q with room for %d, End = %d", got, cap(got), s.End())
	}
}

// slowEdit makes the edits one byte of the message at a time.
func slowEdit(msg []byte, changes []change) ([]byte, bool) {
	taken := make([]bool, len(msg))
	for _, c := range changes {
		if c.off < 0 || c.n < 0 || c.off+c.n > len(msg) {
			return nil, false
		}
		for i := c.off; i < c.off+c.n; i++ {
			if taken[i] {
				return nil, false
			}
			taken[i] = true
		}
	}
	for _, c := range changes { // an insertion strictly inside a replaced span
		for _, r := range changes {
			if c.n == 0 && r.off < c.off && c.off < r.off+r.n {
				return nil, false
			}
		}
	}
	var out []byte
	for i := 0; i <= len(msg); i++ {
		for _, c := range changes {
			if c.off == i && c.n == 0 {
				out = append(out, c.with...)
			}
		}
		for _, c := range changes {
			if c.off == i && c.n > 0 {
				out = append(out, c.with...)
			}
		}
		if i < len(msg) && !taken[i] {
			out = append(out, msg[i])
		}
	}
	return out, true
}

// FuzzEdits checks against slowEdit. Each three bytes of script are an offset,
// a length and the size of a replacement.
func FuzzEdits(f *testing.F) {
	f.Add([]byte("0123456789"), []byte{2, 3, 1})
	f.Add([]byte("0123456789"), []byte{2, 3, 1, 5, 0, 4, 5, 2, 0})
	f.Add([]byte("0123456789"), []byte{2, 3, 1, 4, 1, 4})
	f.Add([]byte(""), []byte{0, 0, 9, 0, 0, 1})
	f.Fuzz(func(t *testing.T, msg, script []byte) {
		var changes []change
		var e inspect.Edits
		for i := 0; i+3 <= len(script) && i < 48; i += 3 {
			with := bytes.Repeat([]byte{'a' + byte(i/3%26)}, int(script[i+2]%16))
			c := change{int(int8(script[i])), int(int8(script[i+1])), string(with)}
			changes = append(changes, c)
			e.Replace(c.off, c.n, with)
		}
		want, ok := slowEdit(msg, changes)
		got, err := e.AppendTo(nil, msg)
		if ok != (err == nil) || ok && !bytes.Equal(got, want) {
			t.Errorf("edits %v of %q = %q, %v; want %q, %v", changes, msg, got, err, want, ok)
		}
	})
}

func BenchmarkEdits(b *testing.B) {
	msg := bytes.Repeat([]byte("0123456789"), 100)
	var e inspect.Edits
	dst := make([]byte, 0, 2*len(msg))
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		e.Reset()
		for off := 900; off > 0; off -= 100 {
			e.ReplaceString(off, 9, "198.51.100.20")
		}
		if _, err := e.AppendTo(dst, msg); err != nil {
			b.Fatal(err)
		}
	}
}
