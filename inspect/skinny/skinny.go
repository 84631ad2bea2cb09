// Package skinny is the engine for SCCP, the "Skinny" protocol between a phone
// and its call manager: it finds the messages in a TCP conversation, gives the
// other end the addresses it can reach and the SRTP keys it must use, and
// follows the media streams of each call.
//
// What a reader may get wrong: numbers are little-endian but addresses are in
// network order; and both keys of a call travel toward the phone, the one it
// receives with in OpenReceiveChannel and the one it transmits with in
// StartMediaTransmission.
package skinny

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"patchbay/inspect"
)

// MaxMessage is the longest message that Split accepts, header included, in
// bytes. The longest known are near 4,000. (reference/skinny.md, section 1.)
const MaxMessage = 16 * 1024

// DefaultMaxVersion is the highest protocol version a phone may announce when
// the engine says no other. (reference/asa-rules.md, V76.)
const DefaultMaxVersion = 19

const (
	headerLen    = 12 // bytes before the data
	lengthFrom   = 8  // what the length field counts begins at the message ID
	minLength    = 4  // of the length field: the message ID alone
	minMessage   = lengthFrom + minLength
	offVersion   = 4
	offMessageID = 8
)

var errLength = errors.New("length is impossible")

// A Message is one SCCP message as it stands on the wire. Its methods expect
// a whole header. (reference/skinny.md, section 1.)
//
//	0        4         8    12
//	+--------+---------+----+-------------+
//	| length | version | ID | data ...    |
//	+--------+---------+----+-------------+
//	                   |<---- length ---->|
type Message []byte

// ID returns the message ID: 0x8a in a StartMediaTransmission.
func (m Message) ID() uint32 { return binary.LittleEndian.Uint32(m[offMessageID:]) }

// Version returns the protocol version in the header. It is 0 in all messages
// of protocols before 10 and until a phone has registered.
func (m Message) Version() uint32 { return binary.LittleEndian.Uint32(m[offVersion:]) }

// Data returns what follows the message ID.
func (m Message) Data() []byte { return m[headerLen:] }

// String returns one line for debug output, without what the message carries.
func (m Message) String() string {
	if len(m) < headerLen {
		return fmt.Sprintf("%d bytes of a message", len(m))
	}
	return fmt.Sprintf("%s (0x%04x), version %d, %d bytes of data", Name(m.ID()), m.ID(), m.Version(), len(m.Data()))
}

// ID returns the message ID of msg, a message that Split found.
func ID(msg []byte) uint32 { return Message(msg).ID() }

// An Engine is the configuration of SCCP inspection. The zero value is the
// ASA's default. It may be used by many conversations at once.
type Engine struct {
	// MaxVersion is the highest protocol version a phone may announce in
	// Register; what is higher is lowered to it. 0 is DefaultMaxVersion. The
	// layouts of all versions up to 22 are known.
	MaxVersion int

	// Video has video channels relayed as voice is. Without it the messages
	// that open them pass as they are and no picture can flow, as on the ASA.
	// (reference/skinny.md, section 4.8.)
	Video bool

	// MediaTimeout is how long a stream that nobody closes may be silent in
	// signaling when no media of it flows any more, as the Binder's
	// inspect.Watcher knows ("timeout media"); 0 is for ever.
	MediaTimeout time.Duration

	// What "policy-map type inspect skinny" sets; zero is not enforced. A
	// message that breaks a rule is dropped and logged. The lines of Matches
	// are tried in order, before the others; the first that ends the message
	// is the last. (reference/asa-cli.md, 9.2.)
	MaxID               uint32 // "message-id max"
	MinLength           uint32 // "sccp-prefix-len min": the length field, bytes
	MaxLength           uint32 // "sccp-prefix-len max"
	EnforceRegistration bool   // "enforce-registration": no call and no media before RegisterAck
	Matches             []Match

	Log *slog.Logger // for the rules, and for what passes that media may not survive; nil for none
}

// A Match is "match [not] message-id" and what is done about the messages that
// it finds. Act may not Mask.
type Match struct {
	Not      bool
	From, To uint32 // message IDs, inclusive
	Act      inspect.Action
}

// Split is a bufio.SplitFunc that returns one Message for each token. It fails
// on a length below 4, on a message longer than MaxMessage, and at the end of
// the conversation on a part of a message.
func (e Engine) Split(data []byte, atEOF bool) (advance int, msg []byte, err error) {
	if len(data) >= 4 {
		n := uint64(binary.LittleEndian.Uint32(data)) + lengthFrom
		if n < minMessage || n > MaxMessage {
			return 0, nil, fmt.Errorf("skinny: message of %d bytes: %w", n, errLength)
		}
		if uint64(len(data)) >= n {
			return int(n), data[:n:n], nil
		}
	}
	if atEOF && len(data) > 0 {
		return 0, nil, fmt.Errorf("skinny: %d bytes of a message: %w", len(data), io.ErrUnexpectedEOF)
	}
	return 0, nil, nil
}

// NewSession begins one conversation. In Binder.Media, Call is the conferenceId
// and Stream the passThruPartyId, both decimal; the zero fields are not known.
//
//	message                    from    told               used of the answer
//	OpenReceiveChannel         Server  Secure, Tx         Tx, Addr (as source)
//	OpenReceiveChannelAck      Client  Addr               Addr
//	StartMediaTransmission     Server  Addr, Secure, Rx   Rx, Addr
//	StartMediaTransmissionAck  Client  Addr, if there was no OpenReceiveChannelAck
//	                                                      Addr
//	PortResponse               Client  Addr, RTCP         Addr, RTCP
//
// Secure beside a zero key is encryption that we do not know. A zero key in the
// answer leaves the encryption block as it is, a zero Addr the address, except
// that the source in OpenReceiveChannel becomes 0.0.0.0. An error drops the
// message.
//
// Release follows when a stream has neither direction open and the phone keeps
// no socket of it, after UnregisterAck and on Close.
func (e Engine) NewSession(b inspect.Binder) inspect.Session {
	if e.MaxVersion == 0 {
		e.MaxVersion = DefaultMaxVersion
	}
	s := &session{engine: e, binder: b}
	s.clock, _ = b.(inspect.Clock)
	return s
}
