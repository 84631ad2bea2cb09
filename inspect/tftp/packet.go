// Package tftp speaks the Trivial File Transfer Protocol from both ends: a
// Server that phones read their files from, and a client that fetches those
// files from a call manager. It runs on any net.PacketConn, so the same code
// serves a kernel socket and the box's own network stack. (RFC 1350, RFC 2347,
// RFC 2348, RFC 2349.)
//
// What a reader may get wrong: each transfer has a port of its own at the
// server, and the phone must not be answered at all when the file behind the
// name is merely out of reach. ERROR 1 tells it that there is no such file,
// and it goes on without; silence makes it ask again.
package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Port is where a server listens for requests. (RFC 1350, section 4.)
const Port = 69

// An Op says what a packet is. (RFC 1350, section 5; RFC 2347.)
type Op uint16

const (
	OpRead    Op = 1 // RRQ
	OpWrite   Op = 2 // WRQ
	OpData    Op = 3 // DATA
	OpAck     Op = 4 // ACK
	OpError   Op = 5 // ERROR
	OpOptions Op = 6 // OACK
)

// String returns the name the RFC gives the packet.
func (op Op) String() string {
	switch op {
	case OpRead:
		return "RRQ"
	case OpWrite:
		return "WRQ"
	case OpData:
		return "DATA"
	case OpAck:
		return "ACK"
	case OpError:
		return "ERROR"
	case OpOptions:
		return "OACK"
	}
	return fmt.Sprintf("opcode %d", uint16(op))
}

// A Code is the number in an ERROR packet. (RFC 1350, appendix; RFC 2347.)
type Code uint16

const (
	CodeUndefined   Code = 0 // see the message
	CodeNotFound    Code = 1 // file not found
	CodeAccess      Code = 2 // access violation
	CodeDiskFull    Code = 3 // disk full or allocation exceeded
	CodeIllegal     Code = 4 // illegal TFTP operation
	CodeUnknownTID  Code = 5 // unknown transfer ID
	CodeExists      Code = 6 // file already exists
	CodeNoUser      Code = 7 // no such user
	CodeOptionsDeny Code = 8 // transfer ended for its options
)

// An Error is an ERROR packet, sent or received.
type Error struct {
	Code Code
	Msg  string // free text; phones look at Code only
}

// Error returns "tftp: error 1: file not found". What an operator's terminal would
// obey in a message of somebody else's is shown as "?".
func (e *Error) Error() string {
	return fmt.Sprintf("tftp: error %d: %s", e.Code, strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, e.Msg))
}

// Is makes an Error with CodeNotFound be fs.ErrNotExist for errors.Is.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Code == CodeNotFound
}

// NotFound returns the Error for a file that does not exist.
func NotFound() error { return &Error{CodeNotFound, "File not found"} }

// IsNotFound reports whether err says that there is no such file, which is
// the only thing ERROR 1 says.
func IsNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }

var (
	errShort  = errors.New("packet too short")
	errOp     = errors.New("unexpected opcode")
	errString = errors.New("string without its NUL")
	errOption = errors.New("option without a name or a value")
)

// OpOf returns what b is, or 0 if it is too short to be anything.
func OpOf(b []byte) Op {
	if len(b) < 2 {
		return 0
	}
	return Op(binary.BigEndian.Uint16(b))
}

// A Request is an RRQ or a WRQ.
//
//	 2 bytes   string   1   string  1   string   1   string   1
//	+--------+--------+---+-------+---+--------+---+--------+---+
//	| opcode |  name  | 0 |  mode | 0 | option | 0 | value  | 0 | ...
//	+--------+--------+---+-------+---+--------+---+--------+---+
//
// (RFC 1350, section 5; RFC 2347.) Old phones put one more NUL after the mode
// (reference/tftp-boot-sequence.md, section 1): empty strings at the end are
// no options, not an error.
type Request struct {
	Op      Op
	Name    string // as asked; see CleanName
	Mode    string // lower case: "octet", "netascii", "mail"
	Options []Option
}

// An Option is a name and its value. Names compare without case. (RFC 2347.)
type Option struct {
	Name, Value string
}

// ParseRequest reads an RRQ or a WRQ.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	r.Op = OpOf(b)
	if r.Op != OpRead && r.Op != OpWrite {
		return Request{}, fmt.Errorf("tftp: request: %v: %w", r.Op, errOp)
	}
	var ok bool
	b = b[2:]
	if r.Name, b, ok = cutString(b); !ok {
		return Request{}, fmt.Errorf("tftp: request: name: %w", errString)
	}
	var mode string
	if mode, b, ok = cutString(b); !ok {
		return Request{}, fmt.Errorf("tftp: request for %q: mode: %w", r.Name, errString)
	}
	r.Mode = strings.ToLower(mode)
	opts, err := parseOptions(b)
	if err != nil {
		return Request{}, fmt.Errorf("tftp: request for %q: %w", r.Name, err)
	}
	r.Options = opts
	return r, nil
}

// AppendTo appends r as it stands on the wire. No string in r may hold a NUL.
func (r Request) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Op))
	dst = appendString(dst, r.Name)
	dst = appendString(dst, r.Mode)
	return appendOptions(dst, r.Options)
}

// ParseData reads a DATA packet. data is borrowed from b.
//
//	 2 bytes   2 bytes   0 to blksize bytes
//	+--------+---------+--------------------+
//	| 3      |  block  |        data        |
//	+--------+---------+--------------------+
func ParseData(b []byte) (block uint16, data []byte, err error) {
	if OpOf(b) != OpData {
		return 0, nil, fmt.Errorf("tftp: data: %v: %w", OpOf(b), errOp)
	}
	if len(b) < headerLen {
		return 0, nil, fmt.Errorf("tftp: data of %d bytes: %w", len(b), errShort)
	}
	return binary.BigEndian.Uint16(b[2:]), b[headerLen:], nil
}

// AppendData appends a DATA packet.
func AppendData(dst []byte, block uint16, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(OpData))
	dst = binary.BigEndian.AppendUint16(dst, block)
	return append(dst, data...)
}

// ParseAck reads an ACK packet. What follows its four bytes is ignored.
func ParseAck(b []byte) (block uint16, err error) {
	if OpOf(b) != OpAck {
		return 0, fmt.Errorf("tftp: ack: %v: %w", OpOf(b), errOp)
	}
	if len(b) < headerLen {
		return 0, fmt.Errorf("tftp: ack of %d bytes: %w", len(b), errShort)
	}
	return binary.BigEndian.Uint16(b[2:]), nil
}

// AppendAck appends an ACK packet.
func AppendAck(dst []byte, block uint16) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(OpAck))
	return binary.BigEndian.AppendUint16(dst, block)
}

// ParseError reads an ERROR packet. A message without its NUL is taken as it
// is, for the code is what counts.
func ParseError(b []byte) (*Error, error) {
	if OpOf(b) != OpError {
		return nil, fmt.Errorf("tftp: error packet: %v: %w", OpOf(b), errOp)
	}
	if len(b) < headerLen {
		return nil, fmt.Errorf("tftp: error packet of %d bytes: %w", len(b), errShort)
	}
	msg, _, _ := bytes.Cut(b[headerLen:], []byte{0})
	if len(msg) > maxMessage {
		msg = msg[:maxMessage]
	}
	return &Error{Code(binary.BigEndian.Uint16(b[2:])), string(msg)}, nil
}

// AppendTo appends e as an ERROR packet.
func (e *Error) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(OpError))
	dst = binary.BigEndian.AppendUint16(dst, uint16(e.Code))
	return appendString(dst, e.Msg)
}

// ParseOptions reads an OACK packet.
func ParseOptions(b []byte) ([]Option, error) {
	if OpOf(b) != OpOptions {
		return nil, fmt.Errorf("tftp: options: %v: %w", OpOf(b), errOp)
	}
	opts, err := parseOptions(b[2:])
	if err != nil {
		return nil, fmt.Errorf("tftp: options: %w", err)
	}
	return opts, nil
}

// AppendOptions appends an OACK packet.
func AppendOptions(dst []byte, opts []Option) []byte {
	return appendOptions(binary.BigEndian.AppendUint16(dst, uint16(OpOptions)), opts)
}

const (
	headerLen  = 4   // bytes before the data of DATA, the message of ERROR
	maxMessage = 255 // bytes of an ERROR message that are kept
)

func parseOptions(b []byte) ([]Option, error) {
	var opts []Option
	for len(bytes.Trim(b, "\x00")) > 0 {
		name, rest, ok := cutString(b)
		if !ok || name == "" {
			return nil, errOption
		}
		value, rest, ok := cutString(rest)
		if !ok {
			return nil, fmt.Errorf("%q: %w", name, errOption)
		}
		opts = append(opts, Option{name, value})
		b = rest
	}
	return opts, nil
}

func appendOptions(dst []byte, opts []Option) []byte {
	for _, o := range opts {
		dst = appendString(dst, o.Name)
		dst = appendString(dst, o.Value)
	}
	return dst
}

// cutString takes a string and its NUL from the front of b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(b, []byte{0})
	return string(head), rest, ok
}

func appendString(dst []byte, s string) []byte {
	return append(append(dst, s...), 0)
}
