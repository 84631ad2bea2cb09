package phoneproxy

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A configuration file is scanned, not parsed: its root has an unbound xsi
// prefix, its bytes may be Latin-1 without saying so, and all that is not
// changed must stay. The scanner takes any encoding that has ASCII in it, and
// says where things are. (reference/phone-config-xml.md, section 1.)

const (
	maxDepth    = 64      // elements within elements
	maxElements = 1 << 16 // in one file; a UCM's has near 300
)

// errXML is a document that is not well formed.
var errXML = errors.New("not well formed")

// A document is a scanned file. Elements are in the order of their start tags;
// the root is the first.
type document struct {
	src      []byte
	elements []element
}

// An element is where one stands in the file.
//
//	<name attr="value">content</name>
//	^start             ^open  ^close ^end
//
// For <name/> open, close and end are the same place.
type element struct {
	nameLen                 int // bytes after start + 1
	start, open, close, end int
	parent                  int // index; -1 for the root
	selfClosing             bool
	children                bool // holds elements
}

func (d *document) name(i int) string {
	e := &d.elements[i]
	return string(d.src[e.start+1 : e.start+1+e.nameLen])
}

// find returns the first element of that name, or -1.
func (d *document) find(name string) int {
	for i := range d.elements {
		if d.name(i) == name {
			return i
		}
	}
	return -1
}

// child returns the first element of that name directly in element parent, or
// -1.
func (d *document) child(parent int, name string) int {
	end := d.elements[parent].end
	for i := parent + 1; i < len(d.elements) && d.elements[i].start < end; i++ {
		if d.elements[i].parent == parent && d.name(i) == name {
			return i
		}
	}
	return -1
}

// text returns the text in element i, without comments and the space around.
func (d *document) text(i int) string {
	var b strings.Builder
	rest := d.src[d.elements[i].open:d.elements[i].close]
	for len(rest) > 0 {
		switch {
		case bytes.HasPrefix(rest, cdataOpen):
			text, after, _ := bytes.Cut(rest[len(cdataOpen):], cdataClose)
			b.Write(text)
			rest = after
		case bytes.HasPrefix(rest, commentOpen):
			_, rest, _ = bytes.Cut(rest[len(commentOpen):], commentClose)
		case rest[0] == '<':
			_, rest, _ = bytes.Cut(rest, []byte{'>'})
		case rest[0] == '&':
			ref, after, _ := bytes.Cut(rest[1:], []byte{';'})
			b.WriteString(reference(string(ref)))
			rest = after
		default:
			n := bytes.IndexAny(rest, "<&")
			if n < 0 {
				n = len(rest)
			}
			b.Write(rest[:n])
			rest = rest[n:]
		}
	}
	return strings.Trim(b.String(), xmlSpace)
}

// reference returns the text of &ref;, or itself if it is not one of XML's own.
func reference(ref string) string {
	switch ref {
	case "amp":
		return "&"
	case "lt":
		return "<"
	case "gt":
		return ">"
	case "quot":
		return `"`
	case "apos":
		return "'"
	}
	if digits, ok := strings.CutPrefix(ref, "#"); ok {
		base := 10
		if hex, ok := strings.CutPrefix(digits, "x"); ok {
			digits, base = hex, 16
		}
		if r, err := strconv.ParseUint(digits, base, 21); err == nil {
			return string(rune(r))
		}
	}
	return "&" + ref + ";"
}

func (d *document) errorf(offset int, format string, args ...any) error {
	return fmt.Errorf("phoneproxy: configuration file: byte %d: %s: %w", offset, fmt.Sprintf(format, args...), errXML)
}

const xmlSpace = " \t\r\n"

var (
	cdataOpen    = []byte("<![CDATA[")
	cdataClose   = []byte("]]>")
	commentOpen  = []byte("<!--")
	commentClose = []byte("-->")
)

// scan finds the elements of src, which it keeps.
func scan(src []byte) (*document, error) {
	d := &document{src: src}
	s := scanner{document: d, open: -1}
	s.at = len(src) - len(bytes.TrimPrefix(src, []byte("\xef\xbb\xbf")))
	for s.at < len(src) {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	switch {
	case len(d.elements) == 0:
		return nil, d.errorf(len(src), "no root element")
	case s.open >= 0:
		return nil, d.errorf(len(src), "<%s> of byte %d is not closed", d.name(s.open), d.elements[s.open].start)
	}
	return d, nil
}

// scanner goes through a document once.
type scanner struct {
	*document
	at    int
	open  int // innermost element that is not closed; -1: none
	depth int
}

// next takes one piece of text or markup.
func (s *scanner) next() error {
	rest := s.src[s.at:]
	switch {
	case rest[0] != '<':
		return s.chars()
	case bytes.HasPrefix(rest, commentOpen):
		return s.skip(len(commentOpen), commentClose, "comment")
	case bytes.HasPrefix(rest, cdataOpen):
		if s.open < 0 {
			return s.errorf(s.at, "CDATA outside the root element")
		}
		return s.skip(len(cdataOpen), cdataClose, "CDATA")
	case bytes.HasPrefix(rest, []byte("<?")):
		return s.skip(2, []byte("?>"), "processing instruction")
	case bytes.HasPrefix(rest, []byte("<!DOCTYPE")):
		if end := bytes.IndexByte(rest, '>'); len(s.elements) > 0 || bytes.IndexByte(rest[:max(end, 0)], '[') >= 0 {
			return s.errorf(s.at, "document type that is not before the root, or has declarations")
		}
		return s.skip(2, []byte(">"), "document type")
	case bytes.HasPrefix(rest, []byte("</")):
		return s.endTag()
	}
	return s.startTag()
}

// skip takes markup that ends with end.
func (s *scanner) skip(head int, end []byte, what string) error {
	n := bytes.Index(s.src[s.at+head:], end)
	if n < 0 {
		return s.errorf(s.at, "%s without its end", what)
	}
	s.at += head + n + len(end)
	return nil
}

// chars takes text up to the next markup.
func (s *scanner) chars() error {
	n := bytes.IndexByte(s.src[s.at:], '<')
	if n < 0 {
		n = len(s.src) - s.at
	}
	text := s.src[s.at : s.at+n]
	for i, c := range text {
		switch {
		case c == '\t' || c == '\n' || c == '\r':
		case c == 0 && s.open < 0 && len(s.elements) > 0: // padding at the end of the file
		case c < 0x20:
			return s.errorf(s.at+i, "control character %#02x", c)
		case s.open < 0 && c != ' ':
			return s.errorf(s.at+i, "text outside the root element")
		case c == '&' && !isReference(text[i:]):
			return s.errorf(s.at+i, "& that begins no reference")
		}
	}
	s.at += n
	return nil
}

// isReference reports whether b begins with &name; or &#number;.
func isReference(b []byte) bool {
	b = b[1:]
	b = bytes.TrimPrefix(b, []byte{'#'})
	n := nameLen(b, 0)
	return n > 0 && n < len(b) && b[n] == ';'
}

// startTag takes <name attr="value"> or <name/>.
func (s *scanner) startTag() error {
	start := s.at
	n := nameLen(s.src, start+1)
	if n == 0 || s.src[start+1] < 'A' {
		return s.errorf(start, "no element name after <")
	}
	if s.open < 0 && len(s.elements) > 0 {
		return s.errorf(start, "second root element")
	}
	if s.depth >= maxDepth {
		return s.errorf(start, "over %d elements within each other", maxDepth)
	}
	if len(s.elements) >= maxElements {
		return s.errorf(start, "over %d elements", maxElements)
	}
	e := element{nameLen: n, start: start, parent: s.open}
	at := start + 1 + n
	for {
		gap := spaceLen(s.src, at)
		at += gap
		if at >= len(s.src) {
			return s.errorf(start, "start tag without its end")
		}
		if s.src[at] == '>' {
			at++
			break
		}
		if s.src[at] == '/' && at+1 < len(s.src) && s.src[at+1] == '>' {
			at += 2
			e.selfClosing = true
			break
		}
		if gap == 0 {
			return s.errorf(at, "no space before an attribute")
		}
		end, err := s.attribute(at)
		if err != nil {
			return err
		}
		at = end
	}
	e.open, e.close, e.end = at, at, at
	if s.open >= 0 {
		s.elements[s.open].children = true
	}
	s.elements = append(s.elements, e)
	if !e.selfClosing {
		s.open = len(s.elements) - 1
		s.depth++
	}
	s.at = at
	return nil
}

// attribute takes name="value" at offset at and returns where it ends.
func (s *scanner) attribute(at int) (int, error) {
	start := at
	n := nameLen(s.src, at)
	if n == 0 {
		return 0, s.errorf(at, "no attribute name")
	}
	at += n
	at += spaceLen(s.src, at)
	if at >= len(s.src) || s.src[at] != '=' {
		return 0, s.errorf(start, "attribute without =")
	}
	at++
	at += spaceLen(s.src, at)
	if at >= len(s.src) || s.src[at] != '"' && s.src[at] != '\'' {
		return 0, s.errorf(start, "attribute without a quoted value")
	}
	quote := s.src[at]
	n = bytes.IndexByte(s.src[at+1:], quote)
	if n < 0 || bytes.IndexByte(s.src[at+1:at+1+n], '<') >= 0 {
		return 0, s.errorf(start, "attribute value without its end")
	}
	return at + 1 + n + 1, nil
}

// endTag takes </name>.
func (s *scanner) endTag() error {
	start := s.at
	n := nameLen(s.src, start+2)
	at := start + 2 + n
	at += spaceLen(s.src, at)
	if n == 0 || at >= len(s.src) || s.src[at] != '>' {
		return s.errorf(start, "end tag without its end")
	}
	name := s.src[start+2 : start+2+n]
	if s.open < 0 {
		return s.errorf(start, "</%.40s> closes nothing", name)
	}
	if open := s.name(s.open); open != string(name) {
		return s.errorf(start, "</%.40s> closes <%.40s> of byte %d", name, open, s.elements[s.open].start)
	}
	e := &s.elements[s.open]
	e.close, e.end = start, at+1
	s.open = e.parent
	s.depth--
	s.at = e.end
	return nil
}

// nameLen returns how many bytes from offset at may be of a name. Any byte
// from 0x80 may.
func nameLen(b []byte, at int) int {
	n := 0
	for ; at+n < len(b); n++ {
		c := b[at+n]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '_' || c == ':' || c == '-' || c == '.' || c >= 0x80) {
			break
		}
	}
	return n
}

func spaceLen(b []byte, at int) int {
	n := 0
	for at+n < len(b) && strings.IndexByte(xmlSpace, b[at+n]) >= 0 {
		n++
	}
	return n
}
