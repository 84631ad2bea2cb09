package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The bounds of the options that are known. (RFC 2348; RFC 2349.)
const (
	defaultBlock       = 512      // bytes of data without the blksize option
	minBlock, maxBlock = 8, 65464 // bytes
	minWait, maxWait   = 1, 255   // seconds
)

// sender sends one file to one client: a packet, its acknowledgement, the next.
type sender struct {
	conn   net.PacketConn
	peer   netip.AddrPort
	to     net.Addr
	body   io.Reader
	block  int             // bytes of data in a full DATA
	waits  []time.Duration // after each transmission of one packet
	oack   []Option        // what the client asked for and gets
	acked  func()          // called on the first acknowledgement
	strays int             // packets from elsewhere that were answered
	bytes  int64           // of the file, acknowledged
	in     []byte
}

func newSender(conn net.PacketConn, peer netip.AddrPort, f File, req Request, blockLimit int, waits []time.Duration) *sender {
	s := &sender{
		conn: conn, peer: peer, to: net.UDPAddrFromAddrPort(peer),
		body: f.Body, block: defaultBlock, waits: waits,
		in: make([]byte, headerLen+maxMessage+1),
	}
	size := f.Size
	if req.Mode == "netascii" {
		s.body, size = newNetascii(f.Body), -1
	}
	s.negotiate(req.Options, size, blockLimit)
	return s
}

// negotiate answers the options that are known, each once, and no other. A
// value out of bounds is as good as an unknown option. (RFC 2347.)
func (s *sender) negotiate(opts []Option, size int64, blockLimit int) {
	for _, o := range opts {
		name := strings.ToLower(o.Name)
		v, err := strconv.ParseUint(o.Value, 10, 63)
		if err != nil || slices.ContainsFunc(s.oack, func(have Option) bool { return strings.EqualFold(have.Name, name) }) {
			continue
		}
		switch {
		case name == "blksize" && v >= minBlock && v <= maxBlock:
			s.block = min(int(v), blockLimit)
			s.oack = append(s.oack, Option{o.Name, strconv.Itoa(s.block)})
		case name == "tsize" && size >= 0:
			s.oack = append(s.oack, Option{o.Name, strconv.FormatInt(size, 10)})
		case name == "timeout" && v >= minWait && v <= maxWait:
			s.waits = evenWaits(time.Duration(v)*time.Second, len(s.waits))
			s.oack = append(s.oack, Option{o.Name, o.Value})
		}
	}
}

// evenWaits returns up to n waits of d that do not exceed maxSilence together.
func evenWaits(d time.Duration, n int) []time.Duration {
	var waits []time.Duration
	for left := maxSilence; n > 0 && left > 0; n-- {
		waits = append(waits, min(d, left))
		left -= d
	}
	return waits
}

// send sends the file to its end.
func (s *sender) send(ctx context.Context) error {
	if len(s.oack) > 0 {
		if err := s.exchange(ctx, AppendOptions(nil, s.oack), 0); err != nil {
			return fmt.Errorf("tftp: options: %w", err)
		}
	}
	buf := make([]byte, headerLen+s.block)
	binary.BigEndian.PutUint16(buf, uint16(OpData))
	for block := uint16(1); ; block++ { // wraps to 0
		n, err := io.ReadFull(s.body, buf[headerLen:])
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			if e := answer(err); e != nil && ctx.Err() == nil {
				s.conn.WriteTo(e.AppendTo(nil), s.to) // the transfer is lost either way
			}
			return fmt.Errorf("tftp: file after %d bytes: %w", s.bytes, err)
		}
		binary.BigEndian.PutUint16(buf[2:], block)
		if err := s.exchange(ctx, buf[:headerLen+n], block); err != nil {
			return fmt.Errorf("tftp: block %d: %w", block, err)
		}
		s.bytes += int64(n)
		if n < s.block { // an exact multiple ends with an empty block
			return nil
		}
	}
}

// exchange sends packet until block is acknowledged. Only time repeats it: a
// second acknowledgement of the block before must not, or each packet would go
// out twice from then on. (RFC 1123, section 4.2.3.1.)
func (s *sender) exchange(ctx context.Context, packet []byte, block uint16) error {
	var lost error // why the last transmission did not leave
	for _, wait := range s.waits {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		deadline := time.Now().Add(wait)
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		if ctx.Err() != nil { // it may have set its own deadline before ours
			return context.Cause(ctx)
		}
		_, lost = s.conn.WriteTo(packet, s.to)
		for {
			n, addr, err := s.conn.ReadFrom(s.in)
			if errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err) {
				break
			}
			if err != nil {
				return err
			}
			if addrPortOf(addr) != s.peer {
				s.turnAway(addr)
				continue
			}
			b := s.in[:n]
			if e, err := ParseError(b); err == nil {
				return e
			}
			if got, err := ParseAck(b); err == nil && got == block {
				if s.acked != nil {
					s.acked()
					s.acked = nil
				}
				return nil
			}
		}
	}
	if lost != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, lost)
	}
	return ErrNoAnswer
}

// turnAway tells the sender of a packet with the wrong TID, and nobody else.
// (RFC 1350, section 4.)
func (s *sender) turnAway(addr net.Addr) {
	if s.strays++; s.strays <= maxStrays {
		e := Error{CodeUnknownTID, "Unknown transfer ID"}
		s.conn.WriteTo(e.AppendTo(nil), addr) // lost or not, the transfer goes on
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
