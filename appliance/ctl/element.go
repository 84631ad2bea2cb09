package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// An element is a tag, a length and a value; numbers are big-endian and the
// length counts the value alone. In a header, tag 13 is one byte of padding and
// has neither length nor value. (reference/ctl-file.md, section 1.)
//
//	0     1        3
//	+-----+--------+-----------+
//	| tag | length | value ... |
//	+-----+--------+-----------+
const elementHead = 3 // bytes before the value

// nextElement cuts the element at the front of b.
func nextElement(b []byte) (tag byte, value, rest []byte, err error) {
	if len(b) < elementHead {
		return 0, nil, nil, fmt.Errorf("%d bytes where an element should be", len(b))
	}
	n := uint64(binary.BigEndian.Uint16(b[1:]))
	if n > uint64(len(b)-elementHead) {
		return 0, nil, nil, fmt.Errorf("tag %d: length %d exceeds the %d bytes left", b[0], n, len(b)-elementHead)
	}
	end := elementHead + int(n)
	return b[0], b[elementHead:end], b[end:], nil
}

func appendElement(dst []byte, tag byte, value ...byte) []byte {
	dst = append(dst, tag)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	return append(dst, value...)
}

// appendString appends a string element: a NUL ends it and is counted.
func appendString(dst []byte, tag byte, s string) []byte {
	dst = append(dst, tag)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)+1))
	dst = append(dst, s...)
	return append(dst, 0)
}

func appendUint16(dst []byte, tag byte, v uint16) []byte {
	return appendElement(dst, tag, byte(v>>8), byte(v))
}

// checkString says whether s can be a string element of at most limit bytes.
func checkString(s string, limit int) error {
	if len(s) > limit || len(s) >= math.MaxUint16 {
		return fmt.Errorf("%d bytes, over %d", len(s), limit)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("NUL in a string")
	}
	return nil
}

// textValue reads a string element, whose NUL may be missing but not misplaced:
// what stands after one would be seen by us and not by the phone.
func textValue(v []byte) (string, error) {
	s := strings.TrimSuffix(string(v), "\x00")
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("NUL in a string")
	}
	return s, nil
}

func fixed(v []byte, n int) error {
	if len(v) != n {
		return fmt.Errorf("length %d, want %d", len(v), n)
	}
	return nil
}

// A tagSet notes the tags seen, to find duplicates: of two elements of one tag a
// phone may take the other one than we do.
type tagSet [4]uint64

func (s *tagSet) add(tag byte) error {
	bit := uint64(1) << (tag & 63)
	if s[tag>>6]&bit != 0 {
		return fmt.Errorf("tag %d: twice", tag)
	}
	s[tag>>6] |= bit
	return nil
}

func (s *tagSet) has(tag byte) bool { return s[tag>>6]&(1<<(tag&63)) != 0 }
