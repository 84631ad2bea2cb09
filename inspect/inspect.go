// Package inspect is what the signaling engines share: the shape of an engine,
// editing by span, and the pump that passes one TCP conversation through an
// engine's session.
//
// What a reader may get wrong: nat.Client is always the phone's side and
// nat.Server the call manager's, whoever sent the message at hand.
package inspect

import (
	"errors"
	"net/netip"
	"time"

	"patchbay/nat"
)

// ErrDrop, alone or wrapped, ends one message and not the conversation.
var ErrDrop = errors.New("message dropped")

// ErrReset, wrapped, ends the conversation with a TCP reset where it has one:
// the action "reset" of an inspection map.
var ErrReset = errors.New("conversation reset")

// An Expirer is a Session that ends calls nobody answers, in the time its
// Binder's Clock tells. Whoever runs the session may call it at any time that
// Inspect does not run.
type Expirer interface {
	Expire(now time.Time)
}

// An Engine knows one signaling protocol. It holds configuration only and may
// be used by many conversations at once.
type Engine interface {
	// Split is a bufio.SplitFunc that finds one message. It fails on bytes
	// that can be no message and on a message over the engine's limit.
	Split(data []byte, atEOF bool) (advance int, msg []byte, err error)
	// NewSession begins one conversation.
	NewSession(b Binder) Session
}

// A Session follows one conversation. It is used by one goroutine at a time.
type Session interface {
	// Inspect appends to dst what the other end must get in place of msg,
	// a message that Split found; from sent it. An error wrapping ErrDrop
	// ends this message, any other the conversation. msg is borrowed.
	Inspect(dst, msg []byte, from nat.End) ([]byte, error)
	// Close releases what the calls of the conversation hold.
	Close()
}

// A Binder joins a Session to the box: it knows addresses and readies media.
type Binder interface {
	// Self returns how the other end knows the end from itself: the address
	// and port our own connection toward the other end shows.
	Self(from nat.End) netip.AddrPort
	// Signal returns how the other end knows addr, a signaling address that
	// from named; addr itself if the box has no other name for it. Port 0
	// stays 0.
	Signal(addr netip.AddrPort, from nat.End) netip.AddrPort
	// Media readies one stream as from announced it, and returns what to
	// announce to the other end in its place. It may be called again for the
	// same stream with the same or new values; what is zero is not known
	// yet and leaves what was known as it is.
	Media(m Media, from nat.End) (Media, error)
	// Release ends one stream of a call, or with stream "" all of them.
	Release(call, stream string)
	// Seen tells that the phone is alive. device is its name where the
	// message carries it (Register, REGISTER) and "" in a keepalive. An
	// error ends the conversation: the name is not the certificate's.
	Seen(device string) error
}

// Media is what one end announces of one stream.
type Media struct {
	Call   string // the engine's name for the call: Call-ID, call reference
	Stream string // and for the stream in it: m-line index, passThruPartyId

	// Addr is where the end wants to receive RTP. Zero: not known yet. RTCP
	// is at port + 1.
	Addr netip.AddrPort
	// RTCP is set where signaling names another address for RTCP.
	RTCP netip.AddrPort

	// Types are the payload types that the end named for it, none where they
	// are not known, and NotRTP says that it has none: it is T.38, say.
	Types  PayloadTypes
	NotRTP bool

	// Final says that this is the answer: what either end had said before is
	// over.
	Final bool

	// Secure says that the stream is SRTP on this end's side, as offered or
	// answered. Plain RTP toward a secure phone becomes Secure in the result.
	Secure bool
	// Tx is the key this end transmits with. (SIP: its own a=crypto. Skinny:
	// from the UCM's side the key in OpenReceiveChannel.)
	Tx Key
	// Rx is the key the other end is told to transmit with, where signaling
	// tells it. (Skinny: the key in StartMediaTransmission. SIP: not used.)
	Rx Key
	// Tag is the tag of the a=crypto line that was offered or answered, "" for
	// the engine to choose.
	Tag string
}

// A Suite is an SRTP protection profile. (RFC 4568, section 6.2.)
type Suite uint8

const (
	NoSuite            Suite = iota
	AES_CM_128_SHA1_32       // AES_CM_128_HMAC_SHA1_32; Skinny algorithm 1
	AES_CM_128_SHA1_80       // AES_CM_128_HMAC_SHA1_80; Skinny algorithm 2
)

// String returns the name in a=crypto.
func (s Suite) String() string {
	switch s {
	case AES_CM_128_SHA1_32:
		return "AES_CM_128_HMAC_SHA1_32"
	case AES_CM_128_SHA1_80:
		return "AES_CM_128_HMAC_SHA1_80"
	}
	return "none"
}

// A Key is SRTP master key and salt. It is comparable: the same key again is
// not a new key. It must never be printed.
type Key struct {
	Suite  Suite
	Master [16]byte
	Salt   [14]byte
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.Suite == NoSuite }

// String hides the key.
func (k Key) String() string { return k.Suite.String() + " (hidden)" }

// GoString hides the key from %#v as well.
func (k Key) GoString() string { return k.String() }
