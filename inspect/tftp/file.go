package tftp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// ErrNoAnswer, alone or wrapped, is what Server.Open returns when the phone
// must get no answer at all and ask again: the server behind did not answer,
// or the box is not ready. The client returns it wrapped when the server stays
// silent.
var ErrNoAnswer = errors.New("no answer")

// A File is what a name stands for, read once from front to back.
type File struct {
	Body io.ReadCloser
	Size int64 // bytes; -1: not known before the end
}

// Bytes returns a File that holds data, which must not change.
func Bytes(data []byte) File {
	return File{io.NopCloser(bytes.NewReader(data)), int64(len(data))}
}

// netascii turns a file into the netascii mode's form: line feed becomes CR
// LF, and CR becomes CR NUL. (RFC 1350, section 1; RFC 764.) Phones do not use
// it, but the tftp command does unless told otherwise.
type netascii struct {
	src     *bufio.Reader
	pending int // second byte of a pair that waits; -1: none
}

func newNetascii(r io.Reader) *netascii {
	return &netascii{bufio.NewReader(r), -1}
}

func (n *netascii) Read(p []byte) (int, error) {
	for i := range p {
		if n.pending >= 0 {
			p[i], n.pending = byte(n.pending), -1
			continue
		}
		c, err := n.src.ReadByte()
		if err != nil {
			if i > 0 {
				return i, nil
			}
			return 0, err
		}
		switch c {
		case '\n':
			p[i], n.pending = '\r', '\n'
		case '\r':
			p[i], n.pending = '\r', 0
		default:
			p[i] = c
		}
	}
	return len(p), nil
}
