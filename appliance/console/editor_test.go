package console

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// A screen is one line of a terminal, as the editor believes it to be.
type screen struct {
	t    testing.TB
	line []rune
	at   int
	cols int
	rows int // lines begun
}

func (s *screen) Write(b []byte) (int, error) {
	for _, r := range string(b) {
		switch r {
		case '\b':
			if s.at--; s.at < 0 {
				s.t.Fatalf("the cursor leaves the screen to the left")
			}
		case '\r':
			s.at = 0
		case '\n':
			s.line, s.at = nil, 0
			s.rows++
		case '\a':
		default:
			if r < ' ' || r == 0x7f {
				s.t.Fatalf("the control character %q is written", r)
			}
			for s.at >= len(s.line) {
				s.line = append(s.line, ' ')
			}
			s.line[s.at] = r
			if s.at++; s.cols > 0 && s.at >= s.cols {
				s.t.Fatalf("the cursor leaves the screen of %d columns to the right", s.cols)
			}
		}
	}
	return len(b), nil
}

// editKeys edits a line with keys, and returns it, or what was left of it when
// the keys ended.
func editKeys(t testing.TB, keys []byte, cols int, history []string) (line string, s *screen, err error) {
	s = &screen{t: t, cols: cols}
	r := bytes.NewReader(keys)
	e := &editor{w: s, next: r.ReadByte, cols: cols, history: history}
	e.help = func(string) { io.WriteString(s, "\n") }
	e.complete = func(line string) string {
		if strings.HasSuffix(line, "sh") {
			return line + "ow "
		}
		return line
	}
	line, err = e.edit("pb# ", "")
	if err == io.EOF {
		line = string(e.line)
		if e.at < 0 || e.at > len(e.line) || len(line) > maxLine || !utf8.ValidString(line) {
			t.Fatalf("cursor %d in %q", e.at, line)
		}
		shown := strings.TrimRight(string(s.line), " ")
		view, column := e.view()
		want := "pb# " + string(view)
		if shown != strings.TrimRight(want, " ") || s.at != 4+column {
			t.Fatalf("after %q the screen is %q, cursor %d; want %q, %d", keys, shown, s.at, want, 4+column)
		}
	}
	return line, s, err
}

func TestEditor(t *testing.T) {
	history := []string{"first", "second"}
	for _, tt := range []struct{ keys, want string }{
		{"show\r", "show"},
		{"shwo\b\bow\r", "show"},
		{"how\x01s\r", "show"},
		{"ow\x1b[D\x1b[Dsh\r", "show"},
		{"ow\x1b[Hsh\x1b[F!\r", "show!"},
		{"ow\x1bOHsh\r", "show"},
		{"xshow\x01\x04\r", "show"},
		{"xshow\x1b[1~\x1b[3~\r", "show"},
		{"show conn\x17\x17clear\r", "clear"},
		{"show conn\x1bb\x0bversion\r", "show version"},
		{"show conn\x1b[1;5D\x15\r", "conn"},
		{"junk\x15show\r", "show"},
		{"\x10\r", "second"},
		{"\x10\x10\r", "first"},
		{"\x10\x10\x10\x0e\r", "second"},
		{"draft\x1b[A\x1b[B\r", "draft"},
		{"\x1b[A \x1b[A\x1b[B\x1b[B\r", ""},
		{"sh\tversion\r", "show version"},
		{"show ?version\r", "show version"},
		{"a\x16?b\r", "a?b"},
		{"gr\xc3\xbcn\x7f\x7f\x7fr\xc3\xbcn\r", "grün"},
		{"\xff\xfeok\xe6\xbc\xa2\r", "ok"},
		{"\x1b[200~pasted\x1b[201~\r", "pasted"},
		{"a\x00\x1c\x1db\r", "ab"},
	} {
		if got, _, err := editKeys(t, []byte(tt.keys), 80, history); got != tt.want || err != nil {
			t.Errorf("keys %q = %q, %v; want %q", tt.keys, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		keys string
		want error
	}{{"abc\x03", errInterrupt}, {"abc\x1a", errLeave}} {
		if _, _, err := editKeys(t, []byte(tt.keys), 80, nil); err != tt.want {
			t.Errorf("keys %q: %v, want %v", tt.keys, err, tt.want)
		}
	}
}

// A line that is longer than the screen is shown around the cursor.
func TestEditorScrolls(t *testing.T) {
	keys := "abcdefghijklmnopqrstuvwxyz"
	_, s, _ := editKeys(t, []byte(keys), 20, nil)
	if got := string(s.line); !strings.HasPrefix(got, "pb# $") || !strings.HasSuffix(strings.TrimRight(got, " "), "z") {
		t.Errorf("the screen is %q", got)
	}
	_, s, _ = editKeys(t, []byte(keys+"\x01"), 20, nil)
	if got := string(s.line); !strings.HasPrefix(got, "pb# abc") || !strings.HasSuffix(got, "$") || s.at != 4 {
		t.Errorf("the screen is %q, cursor %d", got, s.at)
	}
}

func FuzzEditor(f *testing.F) {
	f.Add([]byte("show conn\x1b[D\x7f\x17\x10\x0e?\tx\r"), uint8(80))
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz\x01\x05\x0b\x15"), uint8(20))
	f.Add([]byte("\xc3\xbc\x1b[1;5D\x1bOA\x1b[3~sh\t"), uint8(0))
	f.Add(bytes.Repeat([]byte("long "), 120), uint8(30))
	f.Fuzz(func(t *testing.T, keys []byte, cols uint8) {
		if cols > 0 && cols < 16 {
			cols = 16
		}
		editKeys(t, keys, int(cols), []string{"first", "second line"})
	})
}
