package importer

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const maxInput = 256 << 20 // bytes of what is read; the largest show tech-support known are near 50 MB

// A Source is the configuration in what an operator has saved.
type Source struct {
	Lines []Line
	From  string   // where it was found: "show running-config in a show tech-support"
	Notes []string // what was done to get it
}

// A Line is one line of a configuration.
type Line struct {
	Text string
	Line int // of the file, the first is 1
}

// Text is the configuration as a file.
func (s Source) Text() string {
	var b strings.Builder
	for _, l := range s.Lines {
		b.WriteString(l.Text + "\n")
	}
	return b.String()
}

var (
	escapes = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>])")
	// more is what the pager writes and the blanks that it is rubbed out with.
	more = regexp.MustCompile("<--- More --->(?:[\r\b]* {14}[\r\b]*|[\r\b]+)?")
	// prompt is that of an ASA, which may name a context and the failover state.
	prompt  = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._/-]{0,127})(\([a-z0-9-]+\))?[>#] ?(.*)$`)
	section = regexp.MustCompile(`^-{6,} ?(show .*?|more .*?) ?-{6,}$`)
	begins  = regexp.MustCompile(`^(: Saved|: Hardware:|: Serial Number:|(ASA|PIX|FWSM) Version \d)`)
	// shows are the commands that print a whole configuration, which may be abbreviated.
	shows = regexp.MustCompile(`(?i)^(sh[ow]{0,2} (run\S*|star\S*|conf\S*)|mor?e? (system:runn\S*|\S*startup-config\S*|\S+\.(cfg|txt)))( all| \|.*)?\s*$`)
)

// Extract finds the configuration in data, which may be one as it is, a log of a
// terminal in which one was shown, or a show tech-support. It takes off prompts,
// what the pager left, and an indentation that all lines have. If it recognizes
// none of these, all lines are the configuration.
func Extract(data []byte) (Source, error) {
	if len(data) > maxInput {
		return Source{}, fmt.Errorf("%d bytes are too many: %d at most", len(data), maxInput)
	}
	var s Source
	data, note := decode(data)
	s.note(note)
	lines := s.split(data)
	part := s.find(lines)
	s.Lines = s.unindent(part)
	return s, nil
}

func (s *Source) note(text string) {
	if text != "" {
		s.Notes = append(s.Notes, text)
	}
}

// decode returns data as UTF-8: Windows saves UTF-16, and an ASA takes any byte
// in a description.
func decode(data []byte) ([]byte, string) {
	var little bool
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		little = true
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
	default:
		return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), ""
	}
	units := make([]uint16, 0, len(data)/2)
	for i := 2; i+1 < len(data); i += 2 {
		u := uint16(data[i])<<8 | uint16(data[i+1])
		if little {
			u = u<<8 | u>>8
		}
		units = append(units, u)
	}
	return []byte(string(utf16.Decode(units))), "The file was UTF-16."
}

// split makes lines of data, as they stood on the screen.
func (s *Source) split(data []byte) []Line {
	var lines []Line
	latin, paged := 0, 0
	for n := 1; len(data) > 0; n++ {
		row, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if !utf8.Valid(row) {
			runes := make([]rune, len(row))
			for i, b := range row {
				runes[i] = rune(b) // Latin-1
			}
			row = []byte(string(runes))
			latin++
		}
		text := string(bytes.TrimRight(row, "\r"))
		if strings.IndexByte(text, 0x1b) >= 0 {
			text = escapes.ReplaceAllString(text, "")
		}
		if strings.Contains(text, "<--- More --->") {
			text = more.ReplaceAllString(text, "")
			paged++
			if text == "" {
				continue // the line after it came whole
			}
		}
		if i := strings.LastIndexByte(text, '\r'); i >= 0 {
			text = text[i+1:]
		}
		lines = append(lines, Line{rub(text), n})
	}
	if latin > 0 {
		s.note(fmt.Sprintf("%d lines were not UTF-8 and are read as Latin-1.", latin))
	}
	if paged > 0 {
		s.note(fmt.Sprintf("The pager's <--- More ---> is taken out of %d lines.", paged))
	}
	return lines
}

// rub lets each backspace take the character before it.
func rub(text string) string {
	if strings.IndexByte(text, '\b') < 0 {
		return text
	}
	var out []rune
	for _, r := range text {
		switch {
		case r != '\b':
			out = append(out, r)
		case len(out) > 0:
			out = out[:len(out)-1]
		}
	}
	return string(out)
}

// find returns the lines of the configuration among those of a file.
func (s *Source) find(lines []Line) []Line {
	if part, n := sectionOf(lines, "show running-config"); n > 0 {
		s.From = "show running-config in a show tech-support"
		if n > 1 {
			s.note(fmt.Sprintf("There are %d running configurations; this is the first. Save those of the other contexts to files of their own.", n))
		}
		return s.whole(part)
	}
	if part, n := sectionOf(lines, "show startup-config"); n > 0 {
		s.From = "show startup-config in a show tech-support"
		return s.whole(part)
	}
	for i, l := range lines {
		m := prompt.FindStringSubmatch(strings.TrimLeft(l.Text, " \t"))
		if m == nil || !shows.MatchString(m[3]) {
			continue
		}
		part := lines[i+1:]
		for j, l := range part {
			if prompt.MatchString(strings.TrimLeft(l.Text, " \t")) {
				part = part[:j]
				break
			}
		}
		if strings.TrimSpace(textOf(part)) == "" {
			continue // typed and not answered
		}
		s.From = "\"" + strings.TrimSpace(m[3]) + "\" in a log of a terminal"
		return s.whole(part)
	}
	s.From = "the whole file"
	return s.whole(lines)
}

// sectionOf returns the first section of a show tech-support that has something
// in it, and how many have.
func sectionOf(lines []Line, name string) (part []Line, n int) {
	for i := 0; i < len(lines); i++ {
		m := section.FindStringSubmatch(strings.TrimSpace(lines[i].Text))
		if m == nil || m[1] != name {
			continue
		}
		end := i + 1
		for end < len(lines) && !section.MatchString(strings.TrimSpace(lines[end].Text)) {
			end++
		}
		if body := lines[i+1 : end]; strings.TrimSpace(textOf(body)) != "" {
			if n++; n == 1 {
				part = body
			}
		}
		i = end - 1
	}
	return part, n
}

func textOf(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text)
	}
	return b.String()
}

// whole cuts off what stands before the first line that an ASA writes and after
// the last. Without the first, nothing is cut off before.
func (s *Source) whole(lines []Line) []Line {
	for i, l := range lines {
		if begins.MatchString(strings.TrimLeft(l.Text, " \t")) {
			lines = lines[i:]
			break
		}
	}
	for i, l := range lines {
		if strings.TrimSpace(l.Text) == ": end" {
			if strings.TrimSpace(textOf(lines[i+1:])) != "" {
				s.note(fmt.Sprintf("What stands after \": end\" in line %d is not part of it.", l.Line))
			}
			lines = lines[:i+1]
			break
		}
	}
	return lines
}

// unindent takes off the indentation that all lines have.
func (s *Source) unindent(lines []Line) []Line {
	least := -1
	for _, l := range lines {
		if trimmed := strings.TrimLeft(l.Text, " "); trimmed != "" {
			if n := len(l.Text) - len(trimmed); least < 0 || n < least {
				least = n
			}
		}
	}
	out := make([]Line, len(lines))
	for i, l := range lines {
		if least > 0 {
			l.Text = l.Text[min(least, len(l.Text)):]
		}
		out[i] = Line{strings.TrimRight(l.Text, " \t\x00"), l.Line}
	}
	if least > 0 {
		s.note(fmt.Sprintf("All lines were indented by %d.", least))
	}
	return out
}
