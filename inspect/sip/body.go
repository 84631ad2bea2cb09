package sip

import (
	"bytes"
	"fmt"

	"patchbay/inspect"
)

// maxBoundary is how long a boundary may be, in bytes. (RFC 2046, section 5.1.1.)
const maxBoundary = 70

// editBody edits the session descriptions of the message, and nothing else in
// its body.
func (s *session) editBody() error {
	m := &s.msg
	body := inspect.Span{Off: m.body, Len: len(m.raw) - m.body}
	s.readable, s.parts = s.readable[:0], s.parts[:0]
	if body.Len == 0 || m.ctype.Len == 0 {
		return nil
	}
	kind, boundary := mediaType(m.raw, m.ctype)
	s.noteBody(kind, m.encoded, body)
	switch {
	case isSDP(kind):
		if m.encoded {
			return fmt.Errorf("sip: session description under a Content-Encoding: %w", ErrMalformed)
		}
		return s.editSDP(body)
	case len(boundary) > 0 && len(kind) > len("multipart/") && equalFold(kind[:len("multipart/")], "multipart/"):
		if m.encoded {
			return nil
		}
		return s.editParts(body, boundary)
	}
	return nil
}

func isSDP(mediaType []byte) bool { return equalFold(mediaType, "application/sdp") }

// mediaType reads Content-Type: the type without its parameters, and the
// boundary of a multipart.
func mediaType(b []byte, value inspect.Span) (kind, boundary []byte) {
	n := scan(b, value, ';')
	kind = trim(b, inspect.Span{Off: value.Off, Len: n}).Of(b)
	p := params{b: b, rest: inspect.Span{Off: value.Off + n, Len: value.Len - n}}
	for p.next() {
		if equalFold(p.name.Of(b), "boundary") {
			boundary = unquote(b, p.value).Of(b)
			break
		}
	}
	if len(boundary) > maxBoundary {
		boundary = nil
	}
	return kind, boundary
}

// editParts edits the parts of a multipart body that are session descriptions.
// (RFC 2046, section 5.1.1.)
//
//	preamble CRLF --boundary CRLF fields CRLF CRLF part CRLF --boundary-- epilogue
func (s *session) editParts(body inspect.Span, boundary []byte) error {
	b := s.msg.raw
	part := -1 // offset of the part that is open
	for at := body.Off; at < body.End(); {
		next := body.End()
		if n := bytes.IndexByte(b[at:next], '\n'); n >= 0 {
			next = at + n + 1
		}
		line := b[at:next]
		if !bytes.HasPrefix(line, []byte("--")) || !bytes.HasPrefix(line[2:], boundary) {
			at = next
			continue
		}
		rest := bytes.TrimRight(line[2+len(boundary):], " \t\r\n")
		if last := string(rest) == "--"; len(rest) == 0 || last {
			if part >= 0 {
				if err := s.editPart(inspect.Span{Off: part, Len: partEnd(b, part, at) - part}); err != nil {
					return err
				}
			}
			if last {
				return nil
			}
			part = next
		}
		at = next
	}
	if part >= 0 { // the last boundary is missing
		return s.editPart(inspect.Span{Off: part, Len: body.End() - part})
	}
	return nil
}

// partEnd takes the line end off that belongs to the boundary at off.
func partEnd(b []byte, start, off int) int {
	if off > start && b[off-1] == '\n' {
		off--
		if off > start && b[off-1] == '\r' {
			off--
		}
	}
	return off
}

// A sized is a part of a body that says how long it is.
type sized struct{ length, body inspect.Span }

// editPart edits one part: its fields, an empty line, its body.
func (s *session) editPart(part inspect.Span) error {
	b := s.msg.raw[:part.End()]
	line := lines{b: b, at: part.Off}
	encoded := false
	var kind []byte
	var length inspect.Span
	if part.Len > 0 && isSpace(b[part.Off]) && b[part.Off] != '\r' && b[part.Off] != '\n' {
		return nil
	}
	for line.next() {
		switch fieldKind(line.name.Of(b)) {
		case fieldType:
			kind, _ = mediaType(b, line.value)
		case fieldLength:
			length = line.value
		case fieldEncoding:
			encoded = true
		}
	}
	if line.err != nil {
		return line.err
	}
	body := inspect.Span{Off: line.at, Len: part.End() - line.at}
	s.noteBody(kind, encoded, body)
	if length.Len > 0 {
		s.parts = append(s.parts, sized{length, body})
	}
	if !isSDP(kind) {
		return nil
	}
	if encoded {
		return fmt.Errorf("sip: session description under a Content-Encoding: %w", ErrMalformed)
	}
	return s.editSDP(body)
}
