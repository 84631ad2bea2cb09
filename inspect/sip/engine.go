// Package sip inspects SIP (RFC 3261) between a phone and its call manager: it
// gives addresses in headers and bodies their names on the other side, passes
// each stream of a session description to the Binder, and follows calls by
// Call-ID.
//
// What a reader may get wrong: messages are bytes, never text (phones write
// codes from 0x80 into display names), and are never written anew. What the
// package does not know leaves as it came, and Call-ID, tags and branch always
// do, for they appear again inside bodies.
package sip

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"patchbay/inspect"
)

// What a message may have at most, and a conversation keep.
const (
	MaxHeader       = 64 * 1024 // bytes before the body, start line included
	MaxBody         = 64 * 1024 // bytes of a body
	MaxFields       = 512       // header fields of one message that we read
	MaxCallID       = 256       // bytes of a Call-ID
	MaxCalls        = 64        // calls of a conversation when Engine.MaxCalls is 0
	MaxTransactions = 32        // requests of a conversation whose Via is remembered
	MaxNames        = 8         // names of itself that an end may have
	MaxVia          = 1024      // bytes of a Via that is remembered
	maxAsked        = 16        // addresses of a message that are asked about once
	MaxName         = 256       // bytes of a host or user that is remembered
)

// Why Split fails, wrapped with the value.
var (
	ErrLimit     = errors.New("over the limit")
	ErrMalformed = errors.New("malformed message")
	ErrLength    = errors.New("bad Content-Length")
)

// A Transport carries the messages of one end, as a Via writes it. (RFC 3261,
// section 20.42.)
type Transport string

// The transports of RFC 3261.
const (
	TLS Transport = "TLS"
	TCP Transport = "TCP"
	UDP Transport = "UDP"
)

// An Engine is the inspect.Engine of SIP.
type Engine struct {
	// Client and Server are how each end speaks to the box. Where they
	// differ, Via and ";transport=" change with the side; both may be "",
	// which is the same as equal.
	Client, Server Transport

	// EveryMedia passes every m= line to the Binder. Without it video and
	// all else but audio leave with port 0: refused. (reference/asa-rules.md,
	// section 4; reference/sip-cisco-phones.md, section 4.)
	EveryMedia bool

	// MaxCalls is how many calls a conversation may have at once, 0 for the
	// constant MaxCalls. One more ends the one that was silent longest.
	MaxCalls int

	// NAT is for plain inspection through a firewall that takes no part: an
	// address becomes what the Binder says it is on the other side, where it
	// stands and whoever wrote it, and ports are readied that a Contact or a
	// Via names (inspect.Reacher). Without it the box is an end of each side,
	// and the ends are shown its own addresses.
	NAT bool

	// Map is what "policy-map type inspect sip" sets.
	Map Map

	// How long a call may wait for its answer, and after CANCEL for the end
	// ("timeout sip-invite", "timeout sip-disconnect"); 0 is for ever. The
	// time is that of the Binder's inspect.Clock.
	InviteTimeout, DisconnectTimeout time.Duration

	// Timeout is how long an answered call may be silent when no media of it
	// flows any more, as the Binder's inspect.Watcher knows ("timeout sip");
	// 0 is for ever.
	Timeout time.Duration

	Log *slog.Logger // for the action Log; nil for none
}

var _ inspect.Engine = (*Engine)(nil)

// NewSession begins one conversation.
func (e *Engine) NewSession(b inspect.Binder) inspect.Session {
	maxCalls := e.MaxCalls
	if maxCalls <= 0 {
		maxCalls = MaxCalls
	}
	s := &session{engine: *e, binder: b, calls: calls{max: maxCalls, byID: make(map[string]*call)}}
	if r, ok := b.(inspect.Reacher); ok && e.NAT {
		s.reacher = r
	}
	if e.NAT { // two proxies have many calls between the same ports
		s.pending.max = min(2*maxCalls, maxRemembered)
	}
	s.clock, _ = b.(inspect.Clock)
	if e.NAT {
		s.asked = make([]translated, 0, maxAsked)
	}
	return s
}

// Split is a bufio.SplitFunc. A message ends where Content-Length says; on a
// stream none is 0 (RFC 3261, section 18.3), in a datagram the rest. A line end
// between messages, which is a keepalive (RFC 5626, section 3.5.1), is a
// message of its own.
func (e *Engine) Split(data []byte, atEOF bool) (advance int, msg []byte, err error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	switch {
	case data[0] == '\n':
		return 1, data[:1], nil
	case data[0] == '\r':
		if len(data) == 1 && !atEOF {
			return 0, nil, nil
		}
		if len(data) > 1 && data[1] == '\n' {
			return 2, data[:2], nil
		}
		return 1, data[:1], nil
	}
	if first := bytes.IndexByte(data, '\n'); first >= 0 || !isToken(data[0]) {
		if err := checkStart(data[:first+1]); err != nil {
			if e.Map.NonSIP {
				return len(data), data, nil
			}
			return 0, nil, err
		}
	}
	end := headerEnd(data)
	switch {
	case end > MaxHeader || end < 0 && len(data) >= MaxHeader:
		return 0, nil, fmt.Errorf("sip: header of %d bytes: %w", len(data), ErrLimit)
	case end < 0 && atEOF && e.Map.NonSIP && bytes.IndexByte(data, '\n') < 0:
		return len(data), data, nil
	case end < 0 && atEOF:
		return 0, nil, fmt.Errorf("sip: %d bytes of a header: %w", len(data), io.ErrUnexpectedEOF)
	case end < 0:
		return 0, nil, nil
	}
	length, stated, err := contentLength(data[:end])
	if err != nil {
		return 0, nil, err
	}
	if !stated && (e.Client == UDP || e.Server == UDP) {
		length = len(data) - end
	}
	if length > MaxBody {
		return 0, nil, fmt.Errorf("sip: body of %d bytes: %w", length, ErrLimit)
	}
	if n := end + length; n <= len(data) {
		return n, data[:n:n], nil
	}
	if atEOF {
		return 0, nil, fmt.Errorf("sip: %d bytes of a body of %d: %w", len(data)-end, length, io.ErrUnexpectedEOF)
	}
	return 0, nil, nil
}

// contentLength reads Content-Length of a header. Several must agree.
func contentLength(header []byte) (length int, stated bool, err error) {
	line := lines{b: header, at: bytes.IndexByte(header, '\n') + 1}
	for line.next() {
		if fieldKind(line.name.Of(header)) != fieldLength {
			continue
		}
		n, ok := parseLength(line.value.Of(header))
		if !ok || stated && n != length {
			return 0, false, fmt.Errorf("sip: Content-Length %.20q: %w", line.value.Of(header), ErrLength)
		}
		length, stated = n, true
	}
	if line.err != nil {
		return 0, false, line.err
	}
	return length, stated, nil
}

// parseLength reads decimal digits; what is over a million is a million.
func parseLength(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), 1000*1000)
	}
	return n, len(b) > 0
}
