package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tftpPort  = 69
	tftpBlock = 512 // bytes, RFC 1350

	opRead  = 1 // RFC 1350, section 5
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6 // RFC 2347

	tftpNotFound  = 1
	tftpViolation = 2
	tftpIllegal   = 4

	tftpRetry      = 500 * time.Millisecond // first; doubles up to 4 s
	tftpRetryMax   = 4 * time.Second
	tftpTries      = 5
	tftpFileMax    = 4 << 20 // bytes a phone takes
	tftpMaxBlock   = 65464   // RFC 2348
	tftpTransfers  = 256     // at once, of one server
	tftpPacketSize = tftpMaxBlock + 4
)

// A TFTPError is an error packet. (RFC 1350, section 5.)
type TFTPError struct {
	Code    int // 1: file not found
	Message string
}

func (e *TFTPError) Error() string {
	return fmt.Sprintf("tftp error %d %q", e.Code, e.Message)
}

// ErrTFTPTimeout is returned by TFTPGet when the server stays silent.
var ErrTFTPTimeout = errors.New("tftp server does not answer")

// TFTPGet fetches a file from a server as a 79xx phone does: mode octet and no
// options. The transfer's port comes from the server's first answer, which any
// port of its may send. An error packet is a *TFTPError.
func TFTPGet(ctx context.Context, h Host, server netip.AddrPort, name string) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("lab: tftp get %q from %v: %w", name, server, err)
	}
	c, err := h.ListenUDP(netip.AddrPort{})
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()

	var file []byte
	var peer netip.AddrPort // zero until the first answer
	request := append([]byte{0, opRead}, name...)
	request = append(request, "\x00octet\x00"...)
	send, to := request, server
	buf := make([]byte, tftpPacketSize)
	want := uint16(1)
	for {
		n, from, err := tftpExchange(ctx, c, send, to, peer, buf, func(b []byte, from netip.AddrPort) bool {
			if from.Addr() != server.Addr() || len(b) < 4 {
				return false
			}
			op := binary.BigEndian.Uint16(b)
			return op == opError || op == opData && binary.BigEndian.Uint16(b[2:]) == want
		})
		if err != nil {
			return fail(err)
		}
		b := buf[:n]
		if binary.BigEndian.Uint16(b) == opError {
			return fail(parseTFTPError(b))
		}
		peer = from
		if len(b) > 4+tftpBlock {
			return fail(fmt.Errorf("block %d of %d bytes", want, len(b)-4))
		}
		if len(file)+len(b)-4 > tftpFileMax {
			return fail(fmt.Errorf("more than %d bytes", tftpFileMax))
		}
		file = append(file, b[4:]...)
		send, to = []byte{0, opAck, byte(want >> 8), byte(want)}, peer
		if len(b) < 4+tftpBlock {
			c.WriteTo(send, net.UDPAddrFromAddrPort(to))
			return file, nil
		}
		want++
	}
}

func parseTFTPError(b []byte) *TFTPError {
	msg, _, _ := bytes.Cut(b[4:], []byte{0})
	return &TFTPError{int(binary.BigEndian.Uint16(b[2:])), string(msg)}
}

// tftpExchange sends packet until an answer is what is wanted, and returns it.
// Packets from others than peer, once that is known, do not count.
func tftpExchange(ctx context.Context, c net.PacketConn, packet []byte, to, peer netip.AddrPort, buf []byte,
	wanted func(b []byte, from netip.AddrPort) bool) (int, netip.AddrPort, error) {
	wait := tftpRetry
	for range tftpTries {
		if err := ctx.Err(); err != nil {
			return 0, peer, err
		}
		if _, err := c.WriteTo(packet, net.UDPAddrFromAddrPort(to)); err != nil {
			return 0, peer, err
		}
		c.SetReadDeadline(time.Now().Add(wait))
		if ctx.Err() != nil {
			return 0, peer, ctx.Err()
		}
		for {
			n, a, err := c.ReadFrom(buf)
			if err != nil {
				if ctx.Err() != nil {
					return 0, peer, ctx.Err()
				}
				if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
					break
				}
				return 0, peer, err
			}
			from := addrPort(a)
			if peer.IsValid() && from != peer {
				continue
			}
			if wanted(buf[:n], from) {
				return n, from, nil
			}
		}
		wait = min(2*wait, tftpRetryMax)
	}
	return 0, peer, ErrTFTPTimeout
}

// A TFTPServer serves files that lie in memory, as a call manager does: names
// without regard to case, each transfer from a port of its own, and the
// options blksize, timeout and tsize.
type TFTPServer struct {
	host Host
	conn net.PacketConn
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc
	busy chan struct{}

	mu       sync.Mutex
	files    map[string][]byte // by lower-case name
	requests []TFTPRequest
}

// A TFTPRequest is a read or write request that a TFTPServer has seen.
type TFTPRequest struct {
	From netip.AddrPort
	Name string
	Err  bool // answered with an error
}

// ServeTFTP starts a server at port of h; 0 is 69.
func ServeTFTP(h Host, port uint16) (*TFTPServer, error) {
	if port == 0 {
		port = tftpPort
	}
	c, err := h.ListenUDP(netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		return nil, fmt.Errorf("lab: tftp server: %w", err)
	}
	s := &TFTPServer{
		host: h, conn: c,
		files: make(map[string][]byte),
		busy:  make(chan struct{}, tftpTransfers),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.wg.Add(1)
	go s.serve()
	return s, nil
}

// Put adds or replaces a file; nil removes it.
func (s *TFTPServer) Put(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if content == nil {
		delete(s.files, strings.ToLower(name))
		return
	}
	s.files[strings.ToLower(name)] = content
}

// File returns a file as it is served.
func (s *TFTPServer) File(name string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.files[strings.ToLower(name)]
	return f, ok
}

// Requests returns what was asked for so far, in order.
func (s *TFTPServer) Requests() []TFTPRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]TFTPRequest(nil), s.requests...)
}

// Addr is where the server listens.
func (s *TFTPServer) Addr() netip.AddrPort { return addrPort(s.conn.LocalAddr()) }

// Close ends all transfers and waits.
func (s *TFTPServer) Close() error {
	s.stop()
	s.conn.Close()
	s.wg.Wait()
	return nil
}

func (s *TFTPServer) serve() {
	defer s.wg.Done()
	buf := make([]byte, 2048)
	for {
		n, a, err := s.conn.ReadFrom(buf)
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			continue
		}
		from := addrPort(a)
		name, options, refusal := parseTFTPRequest(buf[:n])
		if refusal == nil {
			if _, ok := s.File(name); !ok {
				refusal = &TFTPError{tftpNotFound, "File not found"}
			}
		}
		s.mu.Lock()
		s.requests = append(s.requests, TFTPRequest{from, name, refusal != nil})
		s.mu.Unlock()
		select {
		case s.busy <- struct{}{}:
		default:
			continue // the client asks again
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-s.busy }()
			s.transfer(from, name, options, refusal)
		}()
	}
}

// parseTFTPRequest reads a request. Old phones add a NUL after the mode, which
// is no option. (reference/tftp-boot-sequence.md, section 1.)
func parseTFTPRequest(b []byte) (name string, options map[string]string, refusal *TFTPError) {
	illegal := &TFTPError{tftpIllegal, "Illegal TFTP operation"}
	if len(b) < 4 || b[len(b)-1] != 0 {
		return "", nil, illegal
	}
	op := binary.BigEndian.Uint16(b)
	fields := strings.Split(string(b[2:len(b)-1]), "\x00")
	name = fields[0]
	switch {
	case op == opWrite:
		return name, nil, &TFTPError{tftpViolation, "Access violation"}
	case op != opRead, len(fields) < 2, !strings.EqualFold(fields[1], "octet"), name == "":
		return name, nil, illegal
	}
	options = make(map[string]string)
	for rest := fields[2:]; len(rest) >= 2; rest = rest[2:] {
		options[strings.ToLower(rest[0])] = rest[1]
	}
	return name, options, nil
}

// transfer answers one request from a port of its own.
func (s *TFTPServer) transfer(to netip.AddrPort, name string, options map[string]string, refusal *TFTPError) {
	c, err := s.host.ListenUDP(netip.AddrPort{})
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(s.ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if refusal != nil {
		b := append([]byte{0, opError, 0, byte(refusal.Code)}, refusal.Message...)
		c.WriteTo(append(b, 0), net.UDPAddrFromAddrPort(to))
		return
	}
	file, ok := s.File(name)
	if !ok {
		return
	}
	buf := make([]byte, 2048)
	acked := func(n uint16) func([]byte, netip.AddrPort) bool {
		return func(b []byte, _ netip.AddrPort) bool {
			if len(b) < 4 {
				return false
			}
			op := binary.BigEndian.Uint16(b)
			return op == opError || op == opAck && binary.BigEndian.Uint16(b[2:]) == n
		}
	}
	exchange := func(packet []byte, n uint16) bool {
		got, _, err := tftpExchange(s.ctx, c, packet, to, to, buf, acked(n))
		return err == nil && binary.BigEndian.Uint16(buf[:got]) == opAck
	}
	size, oack := acceptOptions(options, len(file))
	if oack != nil && !exchange(oack, 0) {
		return
	}
	for n := uint16(1); ; n++ {
		block := file[:min(size, len(file))]
		file = file[len(block):]
		packet := append([]byte{0, opData, byte(n >> 8), byte(n)}, block...)
		if !exchange(packet, n) || len(block) < size {
			return
		}
	}
}

// acceptOptions returns the block size and the packet that says what is
// accepted, nil if nothing is. (RFC 2347, 2348, 2349.)
func acceptOptions(options map[string]string, file int) (size int, oack []byte) {
	size = tftpBlock
	add := func(name string, value int) {
		if oack == nil {
			oack = []byte{0, opOACK}
		}
		oack = append(oack, name...)
		oack = append(oack, 0)
		oack = strconv.AppendInt(oack, int64(value), 10)
		oack = append(oack, 0)
	}
	if n, err := strconv.Atoi(options["blksize"]); err == nil && n >= 8 {
		size = min(n, 1428) // what fits a packet of 1500 bytes through a tunnel
		add("blksize", size)
	}
	if n, err := strconv.Atoi(options["timeout"]); err == nil && n >= 1 && n <= 255 {
		add("timeout", n)
	}
	if _, ok := options["tsize"]; ok {
		add("tsize", file)
	}
	return size, oack
}
