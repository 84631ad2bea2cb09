package inspect

import (
	"errors"
	"fmt"
	"strings"

	"patchbay/nat"
)

// An Action is what is done about a message that a rule of an inspection map
// finds. Log may stand alone or beside another; 0 is not to look.
type Action uint8

// The actions of "policy-map type inspect". Mask takes out what the rule is
// about and lets the rest pass. (reference/asa-cli.md, sections 9.1 and 9.2.)
const (
	Log Action = 1 << iota
	Drop
	DropConnection
	Reset
	Mask
)

// ErrRule, wrapped beside the others, says that a rule of an inspection map
// ended the message. The engine has logged it if the map wants it logged, so
// whoever runs the session does not.
var ErrRule = errors.New("inspection map")

// Ends reports whether a ends more than nothing.
func (a Action) Ends() bool { return a&(Drop|DropConnection|Reset) != 0 }

// Refuse makes err, which says what a rule found, end what a wants ended: the
// message, the conversation, or the conversation by a reset. It returns nil
// where the message passes.
func (a Action) Refuse(err error) error {
	switch {
	case a&Reset != 0:
		return fmt.Errorf("%w: %w: %w", err, ErrRule, ErrReset)
	case a&DropConnection != 0:
		return fmt.Errorf("%w: %w", err, ErrRule)
	case a&Drop != 0:
		return fmt.Errorf("%w: %w: %w", err, ErrRule, ErrDrop)
	}
	return nil
}

// Done returns the words for what a did, as message 607002 has them, "" where
// it did nothing. (reference/asa-cli-show-debug.md, section 5.)
func (a Action) Done() string {
	switch {
	case a&Reset != 0:
		return "Reset connection for"
	case a&DropConnection != 0:
		return "Dropped connection for"
	case a&Drop != 0:
		return "Dropped"
	case a&Mask != 0:
		return "Masked header flags for"
	}
	return ""
}

// A Placer is a Binder that can say where an end is, as a log line has it:
// "outside:198.51.100.7/5060".
type Placer interface {
	Place(end nat.End) string
}

// Between returns "A to B" for the log: where from is and where the other end,
// as far as b knows.
func Between(b Binder, from nat.End) string {
	var s strings.Builder
	for i, end := range [2]nat.End{from, from.Other()} {
		if i == 1 {
			s.WriteString(" to ")
		}
		if p, ok := b.(Placer); ok {
			s.WriteString(p.Place(end))
		} else {
			s.WriteString(end.String())
		}
	}
	return s.String()
}
