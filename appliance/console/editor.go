package console

import (
	"errors"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxLine    = 510 // bytes of a command, as on the ASA
	maxHistory = 50  // commands
)

// How the editing of a line ends, other than by Enter.
var (
	errInterrupt = errors.New("console: interrupted") // Ctrl-C
	errLeave     = errors.New("console: leave")       // Ctrl-Z
)

// Keys that are more than one byte, and those that an editor tells apart.
const (
	keyUp rune = unicode.MaxRune + 1 + iota
	keyDown
	keyLeft
	keyRight
	keyHome
	keyEnd
	keyDelete
	keyWordLeft
	keyWordRight
	keyUnknown
)

func ctrl(c byte) rune { return rune(c & 0x1f) }

// An editor edits one line on a terminal of which it knows nothing but that
// backspace goes one column left and carriage return to the first.
//
//	prompt# the line, or the part of it that there is room fo$
//	        |<--------------- width --------------------->|
type editor struct {
	w      io.Writer
	next   func() (byte, error)
	cols   int // of the terminal; 0 is not known
	prompt string
	secret bool // stars are shown

	line []rune
	at   int // where the cursor is in line

	shown  []rune // on the screen, after the prompt
	column int    // of the cursor, after the prompt
	skipLF bool   // the byte before was CR

	history []string
	past    int    // the history's line that is edited; len(history): none
	draft   string // the line that was left for the history

	help     func(line string)        // for "?", with what is before the cursor; nil: "?" is a character
	complete func(line string) string // for Tab, the same
}

// edit returns the line that is typed. The prompt is written first.
func (e *editor) edit(prompt, prefill string) (string, error) {
	e.prompt, e.line, e.shown, e.column = prompt, []rune(prefill), nil, 0
	e.at, e.past, e.draft = len(e.line), len(e.history), ""
	io.WriteString(e.w, prompt)
	e.draw()
	for {
		k, err := e.key()
		if err != nil {
			return "", err
		}
		switch k {
		case '\r', '\n':
			e.end()
			return string(e.line), nil
		case ctrl('c'):
			e.end()
			return "", errInterrupt
		case ctrl('z'):
			e.end()
			return "", errLeave
		case '?':
			if e.help == nil {
				e.insert(k)
				break
			}
			if e.at == len(e.line) && (e.cols == 0 || utf8.RuneCountInString(e.prompt)+e.column < e.cols-2) {
				io.WriteString(e.w, "?") // where there is room for it
			}
			io.WriteString(e.w, "\n")
			e.help(string(e.line[:e.at]))
			e.again()
		case '\t':
			if e.complete == nil {
				e.insert(' ')
				break
			}
			e.finish()
		case ctrl('v'): // the next key as it is: a question mark
			if k, err = e.key(); err != nil {
				return "", err
			}
			if k < unicode.MaxRune && unicode.IsPrint(k) {
				e.insert(k)
			}
		case ctrl('r'), ctrl('l'):
			io.WriteString(e.w, "\n")
			e.again()
			continue
		default:
			e.do(k)
		}
		e.draw()
	}
}

// again writes the prompt and the line anew, on a line of the screen that is
// empty.
func (e *editor) again() {
	io.WriteString(e.w, e.prompt)
	e.shown, e.column = nil, 0
	e.draw()
}

// end moves the cursor behind the line, and to the next.
func (e *editor) end() {
	e.at = len(e.line)
	e.draw()
	io.WriteString(e.w, "\n")
}

// finish does what Tab does: the word before the cursor is completed, and the
// line written anew below.
func (e *editor) finish() {
	before := e.complete(string(e.line[:e.at]))
	done := []rune(before)
	if len(before)+len(string(e.line[e.at:])) <= maxLine {
		e.line = append(done, e.line[e.at:]...)
		e.at = len(done)
	}
	io.WriteString(e.w, "\n")
	e.again()
}

// do obeys a key that edits.
func (e *editor) do(k rune) {
	n := len(e.line)
	switch k {
	case ctrl('a'), keyHome:
		e.at = 0
	case ctrl('e'), keyEnd:
		e.at = n
	case ctrl('b'), keyLeft:
		e.at = max(0, e.at-1)
	case ctrl('f'), keyRight:
		e.at = min(n, e.at+1)
	case keyWordLeft:
		e.at = e.wordLeft()
	case keyWordRight:
		for e.at < n && e.line[e.at] == ' ' {
			e.at++
		}
		for e.at < n && e.line[e.at] != ' ' {
			e.at++
		}
	case ctrl('h'), 0x7f:
		e.cut(max(0, e.at-1), e.at)
	case ctrl('d'), keyDelete:
		e.cut(e.at, min(n, e.at+1))
	case ctrl('u'), ctrl('x'):
		e.cut(0, e.at)
	case ctrl('k'):
		e.cut(e.at, n)
	case ctrl('w'):
		e.cut(e.wordLeft(), e.at)
	case ctrl('p'), keyUp:
		e.recall(e.past - 1)
	case ctrl('n'), keyDown:
		e.recall(e.past + 1)
	default:
		if k <= unicode.MaxRune && unicode.IsPrint(k) {
			e.insert(k)
		}
	}
}

func (e *editor) insert(k rune) {
	if len(string(e.line))+utf8.RuneLen(k) > maxLine {
		io.WriteString(e.w, "\a")
		return
	}
	e.line = slices.Insert(e.line, e.at, k)
	e.at++
}

func (e *editor) cut(from, to int) {
	e.line = slices.Delete(e.line, from, to)
	e.at = from
}

// wordLeft returns where the word before the cursor begins.
func (e *editor) wordLeft() int {
	i := e.at
	for i > 0 && e.line[i-1] == ' ' {
		i--
	}
	for i > 0 && e.line[i-1] != ' ' {
		i--
	}
	return i
}

// recall puts a line of the history in place of the one that is edited.
func (e *editor) recall(i int) {
	if i < 0 || i > len(e.history) || e.secret {
		return
	}
	if e.past == len(e.history) {
		e.draft = string(e.line)
	}
	e.past = i
	e.line = []rune(e.draft)
	if i < len(e.history) {
		e.line = []rune(e.history[i])
	}
	e.at = len(e.line)
}

// draw brings the screen to the line with what has changed.
func (e *editor) draw() {
	want, column := e.view()
	var b strings.Builder
	same := 0
	for same < len(want) && same < len(e.shown) && want[same] == e.shown[same] {
		same++
	}
	if same < len(want) || same < len(e.shown) {
		e.move(&b, same)
		b.WriteString(string(want[same:]))
		e.column = len(want)
		if n := len(e.shown) - len(want); n > 0 {
			b.WriteString(strings.Repeat(" ", n) + strings.Repeat("\b", n))
		}
		e.shown = want
	}
	e.move(&b, column)
	io.WriteString(e.w, b.String())
}

// move writes what moves the cursor to a column of what is shown.
func (e *editor) move(b *strings.Builder, column int) {
	if column < e.column {
		b.WriteString(strings.Repeat("\b", e.column-column))
	} else {
		b.WriteString(string(e.shown[e.column:column]))
	}
	e.column = column
}

// view returns what is to be shown of the line and the cursor's column in it.
// A part that is left out is a "$".
func (e *editor) view() ([]rune, int) {
	line := e.line
	if e.secret {
		line = []rune(strings.Repeat("*", len(line)))
	}
	width := e.cols - utf8.RuneCountInString(e.prompt) - 1 // the last column would wrap
	if e.cols == 0 || len(line) <= width && e.at <= width {
		return slices.Clone(line), e.at
	}
	width = max(width, 8)
	from := max(0, e.at-width+2) // the cursor and a "$" behind it
	if len(line) <= width {
		from = 0
	}
	to := min(len(line), from+width)
	part := slices.Clone(line[from:to])
	if from > 0 {
		part[0] = '$'
	}
	if to < len(line) {
		part[len(part)-1] = '$'
	}
	return part, e.at - from
}

// remember adds a line to the history.
func (e *editor) remember(line string) {
	if strings.TrimSpace(line) == "" || len(e.history) > 0 && e.history[len(e.history)-1] == line {
		return
	}
	if len(e.history) == maxHistory {
		e.history = slices.Delete(e.history, 0, 1)
	}
	e.history = append(e.history, line)
}

// key reads one key: a character, or what a terminal sends for one of the keys
// above (ECMA-48, section 5.4; xterm's control sequences).
func (e *editor) key() (rune, error) {
	b, err := e.next()
	if err == nil && b == '\n' && e.skipLF {
		e.skipLF = false
		b, err = e.next()
	}
	if err != nil {
		return 0, err
	}
	e.skipLF = b == '\r'
	switch {
	case b == 0x1b:
		return e.escape()
	case b < utf8.RuneSelf:
		return rune(b), nil
	}
	buf := []byte{b}
	for !utf8.FullRune(buf) {
		if b, err = e.next(); err != nil {
			return 0, err
		}
		buf = append(buf, b)
	}
	r, size := utf8.DecodeRune(buf)
	if r == utf8.RuneError || size < len(buf) || wide(r) {
		return keyUnknown, nil
	}
	return r, nil
}

// wide reports whether a character does not take one column, so that columns
// could not be counted. Nothing in the ASA's language needs one.
func wide(r rune) bool { return r >= 0x300 }

// escape reads what follows ESC.
func (e *editor) escape() (rune, error) {
	b, err := e.next()
	if err != nil {
		return 0, err
	}
	switch b {
	case 'b', 'B':
		return keyWordLeft, nil
	case 'f', 'F':
		return keyWordRight, nil
	case '[', 'O':
	default:
		return keyUnknown, nil
	}
	var params []byte
	for {
		if b, err = e.next(); err != nil {
			return 0, err
		}
		if b >= 0x40 && b <= 0x7e || len(params) > 16 || b < 0x20 {
			break
		}
		params = append(params, b)
	}
	far := strings.Contains(string(params), ";5") // with Ctrl
	switch {
	case b == 'A':
		return keyUp, nil
	case b == 'B':
		return keyDown, nil
	case b == 'C' && far:
		return keyWordRight, nil
	case b == 'D' && far:
		return keyWordLeft, nil
	case b == 'C':
		return keyRight, nil
	case b == 'D':
		return keyLeft, nil
	case b == 'H':
		return keyHome, nil
	case b == 'F':
		return keyEnd, nil
	case b == '~':
		switch string(params) {
		case "1", "7":
			return keyHome, nil
		case "4", "8":
			return keyEnd, nil
		case "3":
			return keyDelete, nil
		}
	}
	return keyUnknown, nil
}
