package inspect

import (
	"errors"
	"fmt"

	"patchbay/nat"
)

// Pass passes the whole messages at the front of data, which from sent, through
// the session. It returns how many bytes of data they were, and dst with what
// must be written to the other end for them, also beside an error. seen hears
// what the session said of each message. An error that does not wrap ErrDrop
// ends the conversation.
func Pass(e Engine, s Session, dst, data []byte, from nat.End, atEOF bool, seen func(msg []byte, err error)) (used int, out []byte, err error) {
	for used < len(data) {
		n, msg, err := e.Split(data[used:], atEOF)
		if err != nil {
			return used, dst, fmt.Errorf("inspect: message from %v: %w", from, err)
		}
		if n < 0 || n > len(data)-used || n == 0 && msg != nil {
			return used, dst, fmt.Errorf("inspect: split %d bytes from %v into %d and a message of %d", len(data)-used, from, n, len(msg))
		}
		if n == 0 {
			break
		}
		used += n
		if msg == nil {
			continue
		}
		next, err := s.Inspect(dst, msg, from)
		seen(msg, err)
		switch {
		case err == nil:
			dst = next
		case !errors.Is(err, ErrDrop):
			return used, dst, fmt.Errorf("inspect: message from %v: %w", from, err)
		}
	}
	return used, dst, nil
}

// Note counts what a session said of a message.
func (c *Counters) Note(err error) {
	if err == nil {
		c.passed()
		return
	}
	c.ended(errors.Is(err, ErrReset))
}
