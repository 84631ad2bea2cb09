package sip

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"patchbay/inspect"
)

// ErrMatch is a message that a match line of the map ends.
var ErrMatch = errors.New("match")

// What a Match looks at.
type MatchKind uint8

const (
	MatchLength MatchKind = iota // content length gt: the body, in bytes
	MatchSDP                     // content type sdp
	MatchMethod                  // request-method
	MatchURI                     // uri sip length gt: the longest sip: or sips: URI, in bytes
	MatchTel                     // uri tel length gt
)

// A Match is a match line of a map and what is done about the messages that it
// finds. (reference/asa-cli.md, section 9.1.)
type Match struct {
	Kind   MatchKind
	Not    bool   // it finds the others; MatchMethod only requests still
	Over   int    // of the lengths
	Method string // of MatchMethod, in upper case; "" is one that RFC 3261 and its extensions do not know
	Act    inspect.Action
	Rate   *Rate // what is within it passes, and what is over it meets Act, or is dropped; nil is none
}

// A Rate is how many messages of a Match pass in a second of the Binder's
// clock; without a clock all do. All conversations of an engine share it. It
// must not be copied.
type Rate struct {
	limit uint32
	state atomic.Uint64 // the second, Unix time, and the messages in it
}

// NewRate returns a Rate of n messages a second.
func NewRate(n uint32) *Rate { return &Rate{limit: n} }

// over counts a message at now and reports whether it is one too many. Time
// that goes back, as between two interfaces, is the second at hand still.
func (r *Rate) over(now time.Time) bool {
	for {
		was := r.state.Load()
		second, n := uint32(was>>32), uint32(was)
		if t := uint32(now.Unix()); int32(t-second) > 0 {
			second, n = t, 0
		}
		if n >= r.limit {
			return true
		}
		if r.state.CompareAndSwap(was, uint64(second)<<32|uint64(n+1)) {
			return false
		}
	}
}

// tryMatches does what the match lines say about the message at hand.
func (s *session) tryMatches() error {
	for i := range s.engine.Map.Matches {
		x := &s.engine.Map.Matches[i]
		if !s.finds(x) {
			continue
		}
		act := x.Act
		if x.Rate != nil {
			if s.clock == nil || !x.Rate.over(s.heard) {
				continue
			}
			if !act.Ends() {
				act |= inspect.Drop
			}
		}
		s.tell(act, "SIP Classification", "matched", x.String)
		if act.Ends() {
			return act.Refuse(fmt.Errorf("sip: %s of %.40q from %v: %w %v", s.msg.method, s.msg.callID, s.from, ErrMatch, x))
		}
	}
	return nil
}

// finds reports whether x finds the message at hand.
func (s *session) finds(x *Match) bool {
	m, found := &s.msg, false
	switch x.Kind {
	case MatchLength:
		found = len(m.raw)-m.body > x.Over
	case MatchSDP:
		kind, _ := mediaType(m.raw, m.ctype)
		found = isSDP(kind)
	case MatchMethod:
		if !m.isRequest() {
			return false
		}
		if x.Method != "" {
			found = m.isMethod(x.Method)
		} else {
			found = !isKnownMethod(m.method)
		}
	case MatchURI, MatchTel:
		found = s.longURI(x)
	}
	return found != x.Not
}

// isKnownMethod knows what "request-method" does by name.
func isKnownMethod(method []byte) bool {
	switch string(method) {
	case "ACK", "BYE", "CANCEL", "INFO", "INVITE", "MESSAGE", "NOTIFY", "OPTIONS", "PRACK", "PUBLISH",
		"REFER", "REGISTER", "SUBSCRIBE", "UPDATE":
		return true
	}
	return false
}

// longURI reports whether a URI of x's scheme in the start line or a field is
// longer than x.Over.
func (s *session) longURI(x *Match) bool {
	m := &s.msg
	long := func(u inspect.Span) bool {
		if u.Len <= x.Over {
			return false
		}
		scheme, _, _ := bytes.Cut(u.Of(m.raw), []byte(":"))
		if x.Kind == MatchTel {
			return equalFold(scheme, "tel")
		}
		return equalFold(scheme, "sip") || equalFold(scheme, "sips")
	}
	if m.isRequest() && long(m.uri) {
		return true
	}
	for i := range m.fields {
		switch m.fields[i].kind {
		case fieldContact, fieldTarget, fieldIdentity, fieldTo, fieldCallInfo:
		default:
			continue
		}
		l := list{b: m.raw, rest: m.fields[i].value}
		for l.next() {
			if u, _, ok := nameAddr(m.raw, l.value); ok && long(u) {
				return true
			}
		}
	}
	return false
}

// String returns the line of the configuration.
func (x *Match) String() string {
	not := ""
	if x.Not {
		not = "not "
	}
	switch x.Kind {
	case MatchLength:
		return fmt.Sprintf("%scontent length gt %d", not, x.Over)
	case MatchSDP:
		return not + "content type sdp"
	case MatchMethod:
		if x.Method == "" {
			return not + "request-method unknown"
		}
		return not + "request-method " + strings.ToLower(x.Method)
	case MatchTel:
		return fmt.Sprintf("%suri tel length gt %d", not, x.Over)
	}
	return fmt.Sprintf("%suri sip length gt %d", not, x.Over)
}
