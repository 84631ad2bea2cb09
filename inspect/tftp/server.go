package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"
	"time"
)

// What a Server does where its fields are zero.
const (
	DefaultMaxTransfers = 512  // transfers at once
	DefaultMaxPerSource = 64   // of them to one address: an office behind a home router
	DefaultMaxBlock     = 1468 // bytes: an Ethernet MTU less 32 for IP, UDP and TFTP headers

	// A phone asks for some twenty files as it boots, and a hundred phones
	// may boot together when the power comes back.
	defaultRate, defaultBurst       = 50, 200   // requests a second, and at once, of one address
	defaultAllRate, defaultAllBurst = 500, 1000 // of all addresses
)

const (
	// A request is at most 512 bytes (RFC 2347); what is longer has been cut.
	maxRequest = 1024
	// repeatAge is how long after a client's first acknowledgement the same
	// request again is one that was still on its way, not a new one.
	repeatAge = time.Second
	// maxSilence ends a transfer whatever timeout the client asked for.
	maxSilence = time.Minute
	// maxStrays is how many packets from elsewhere one transfer answers.
	maxStrays = 8
)

// DefaultWaits returns how long a Server waits after each transmission of one
// packet: 1, 2 and then 4 seconds, five tries. (reference/tftp-boot-sequence.md,
// section 1.)
func DefaultWaits() []time.Duration {
	return []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second}
}

// A Server answers read requests. Set its fields before the first Serve and
// leave them alone after; Open and NewTID must be set, NewTID not with
// SinglePort. Serve may run many times at once, for the many addresses that a
// box serves files at; limits hold for all together.
type Server struct {
	// Open returns the file that the client at from gets for name when it
	// asks the server address to. name has passed CleanName. ctx ends with
	// the transfer, so the Body may live by it. An *Error is sent as it is,
	// fs.ErrNotExist as code 1, fs.ErrPermission as code 2, ErrNoAnswer not
	// at all, and any other error as code 0 without its text.
	Open func(ctx context.Context, from, to netip.AddrPort, name string) (File, error)

	// NewTID returns the socket of one transfer: a port of its own on
	// local's address, not connected, so that strangers can be told apart.
	// The transfer closes it.
	NewTID func(local, peer netip.AddrPort) (net.PacketConn, error)

	// SinglePort answers from the port that was asked. It keeps the binding
	// of a NAT router in front of the phone, which drops what comes from
	// elsewhere. (reference/tftp-boot-sequence.md, section 1.)
	SinglePort bool

	MaxTransfers int             // at once; 0: DefaultMaxTransfers
	MaxPerSource int             // of them to one address; 0: DefaultMaxPerSource
	MaxBlock     int             // bytes; 0: DefaultMaxBlock
	PerSource    Rate            // requests of one address; zero: 50/s, 200 at once
	All          Rate            // requests of all addresses; zero: 500/s, 1000 at once
	Waits        []time.Duration // after each transmission of a packet; nil: DefaultWaits

	Trace func(Event)      // told what happens, by many goroutines; may be nil
	Now   func() time.Time // for rates and ages; nil: time.Now

	mu        sync.Mutex
	clients   map[netip.AddrPort]*transfer // by the client's address and port
	perSource map[netip.Addr]int           // transfers to each address
	limiter   limiter
	stats     Stats
}

// Stats counts what a Server has done.
type Stats struct {
	Requests uint64 // requests taken up
	Repeats  uint64 // requests ignored because their transfer was under way
	Limited  uint64 // requests dropped for a rate or a number of transfers
	Refused  uint64 // requests not served: no such file, no answer, bad name
	Sent     uint64 // transfers that reached their end
	Failed   uint64 // transfers that did not
	Bytes    uint64 // of files, acknowledged
	Active   int    // transfers under way
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Active = len(s.clients)
	return st
}

// transfer is one file on its way to one client.
type transfer struct {
	from, to netip.AddrPort
	name     string
	raw      []byte // the request as it came
	cancel   context.CancelCauseFunc
	port     *portConn // with SinglePort

	// Guarded by Server.mu.
	acked time.Time // first acknowledgement; zero: none yet
	gone  bool      // no longer counted
}

var (
	errReplaced = errors.New("client asked anew")
	errServer   = &Error{CodeUndefined, "Server error"}
	errMode     = &Error{CodeIllegal, "Unknown mode"}
	errReadOnly = &Error{CodeAccess, "Access violation"}
	errRequest  = &Error{CodeIllegal, "Malformed request"}
)

// Serve answers the requests that arrive on pc, which stands for the server
// address local. It returns nil when ctx ends, or the error of pc, after its
// transfers have ended; pc stays open.
func (s *Server) Serve(ctx context.Context, pc net.PacketConn, local netip.AddrPort) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := make([]byte, maxRequest)
	for {
		n, addr, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tftp: serve %v: %w", local, err)
		}
		from := addrPortOf(addr)
		if !from.IsValid() {
			continue
		}
		switch b := buf[:n]; OpOf(b) {
		case OpRead, OpWrite:
			if t := s.admit(ctx, pc, from, local, b); t != nil {
				wg.Go(t)
			}
		case OpAck, OpError:
			s.deliver(from, b)
		}
	}
}

// admit decides what becomes of a request, and returns the transfer to run.
func (s *Server) admit(ctx context.Context, pc net.PacketConn, from, to netip.AddrPort, b []byte) func() {
	now := s.now()
	s.mu.Lock()
	if !s.limiter.allow(from.Addr(), s.ratePerSource(), s.rateAll(), now) {
		s.stats.Limited++
		s.mu.Unlock()
		return nil
	}
	old := s.clients[from]
	if old != nil && old.to == to && bytes.Equal(old.raw, b) && (old.acked.IsZero() || now.Sub(old.acked) < repeatAge) {
		s.stats.Repeats++
		s.mu.Unlock()
		s.trace(Event{Kind: Repeated, From: from, To: to, Name: old.name})
		return nil
	}
	s.mu.Unlock()

	req, err := ParseRequest(b)
	if err != nil {
		s.refuse(pc, Event{From: from, To: to, Err: err}, errRequest)
		return nil
	}
	ev := Event{From: from, To: to, Name: req.Name}
	switch {
	case req.Op == OpWrite:
		ev.Err = fmt.Errorf("tftp: write of %q refused: %w", req.Name, errReadOnly)
		s.refuse(pc, ev, errReadOnly)
		return nil
	case req.Mode != "octet" && req.Mode != "netascii":
		ev.Err = fmt.Errorf("tftp: mode %q: %w", req.Mode, errMode)
		s.refuse(pc, ev, errMode)
		return nil
	}
	name, err := CleanName(req.Name)
	if err != nil {
		ev.Err = err
		s.refuse(pc, ev, errReadOnly)
		return nil
	}
	req.Name, ev.Name = name, name

	tctx, cancel := context.WithCancelCause(ctx)
	t := &transfer{from: from, to: to, name: name, raw: bytes.Clone(b), cancel: cancel}
	if s.SinglePort {
		t.port = newPortConn(pc, net.UDPAddrFromAddrPort(from))
	}
	if !s.attach(t) {
		cancel(nil)
		return nil
	}
	ev.Kind = Requested
	s.trace(ev)
	return func() {
		defer cancel(nil)
		defer s.detach(t)
		s.run(tctx, pc, t, req)
	}
}

// attach counts t in, ending an older transfer to the same client. It reports
// false if there is no room.
func (s *Server) attach(t *transfer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.clients[t.from]; old != nil {
		s.detachLocked(old)
		old.cancel(errReplaced)
	}
	src := t.from.Addr()
	if len(s.clients) >= s.maxTransfers() || s.perSource[src] >= s.maxPerSource() {
		s.stats.Limited++
		return false
	}
	if s.clients == nil {
		s.clients = make(map[netip.AddrPort]*transfer)
		s.perSource = make(map[netip.Addr]int)
	}
	s.clients[t.from] = t
	s.perSource[src]++
	s.stats.Requests++
	return true
}

func (s *Server) detach(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detachLocked(t)
}

func (s *Server) detachLocked(t *transfer) {
	if t.gone {
		return
	}
	t.gone = true
	delete(s.clients, t.from)
	src := t.from.Addr()
	if s.perSource[src]--; s.perSource[src] == 0 {
		delete(s.perSource, src)
	}
}

// deliver hands a packet that came to the server's port to the transfer it
// belongs to, if transfers run on that port.
func (s *Server) deliver(from netip.AddrPort, b []byte) {
	s.mu.Lock()
	t := s.clients[from]
	s.mu.Unlock()
	if t != nil && t.port != nil {
		t.port.deliver(b)
	}
}

// run opens the file of t and sends it.
func (s *Server) run(ctx context.Context, pc net.PacketConn, t *transfer, req Request) {
	ev := Event{From: t.from, To: t.to, Name: t.name}
	file, err := s.Open(ctx, t.from, t.to, t.name)
	if err != nil {
		ev.Err = err
		if cause := context.Cause(ctx); cause != nil {
			ev.Err = cause
			err = ErrNoAnswer
		}
		s.refuse(pc, ev, answer(err))
		return
	}
	defer file.Body.Close()

	var conn net.PacketConn = t.port
	if t.port == nil {
		if conn, err = s.NewTID(t.to, t.from); err != nil {
			ev.Err = fmt.Errorf("tftp: port for a transfer: %w", err)
			s.refuse(pc, ev, nil)
			return
		}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	snd := newSender(conn, t.from, file, req, s.maxBlock(), s.waits())
	snd.acked = func() {
		now := s.now()
		s.mu.Lock()
		t.acked = now
		s.mu.Unlock()
	}
	err = snd.send(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	ev.Kind, ev.Bytes, ev.Err = Sent, snd.bytes, err
	s.mu.Lock()
	s.stats.Bytes += uint64(snd.bytes)
	if err == nil {
		s.stats.Sent++
	} else {
		s.stats.Failed++
		ev.Kind = Failed
	}
	s.mu.Unlock()
	s.trace(ev)
}

// refuse ends a request without a transfer. e is what the client is told, nil
// for nothing; it is sent from the port that was asked.
func (s *Server) refuse(pc net.PacketConn, ev Event, e *Error) {
	s.mu.Lock()
	s.stats.Refused++
	s.mu.Unlock()
	if e != nil {
		if _, err := pc.WriteTo(e.AppendTo(nil), net.UDPAddrFromAddrPort(ev.From)); err != nil {
			ev.Err = fmt.Errorf("%w (and the answer: %w)", ev.Err, err)
		}
	}
	ev.Kind = Refused
	s.trace(ev)
}

// answer returns what a client is told about err, nil for nothing.
func answer(err error) *Error {
	var e *Error
	switch {
	case errors.Is(err, ErrNoAnswer):
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, fs.ErrNotExist):
		return &Error{CodeNotFound, "File not found"}
	case errors.Is(err, fs.ErrPermission):
		return errReadOnly
	}
	return errServer
}

func (s *Server) trace(ev Event) {
	if s.Trace != nil {
		s.Trace(ev)
	}
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Server) waits() []time.Duration {
	if len(s.Waits) > 0 {
		return s.Waits
	}
	return DefaultWaits()
}

func (s *Server) maxTransfers() int { return or(s.MaxTransfers, DefaultMaxTransfers) }
func (s *Server) maxPerSource() int { return or(s.MaxPerSource, DefaultMaxPerSource) }
func (s *Server) maxBlock() int     { return or(s.MaxBlock, DefaultMaxBlock) }

func (s *Server) ratePerSource() Rate { return or(s.PerSource, Rate{defaultRate, defaultBurst}) }
func (s *Server) rateAll() Rate       { return or(s.All, Rate{defaultAllRate, defaultAllBurst}) }

// or returns v, or def where v is zero.
func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// addrPortOf returns a as an address and port, IPv4 as IPv4.
func addrPortOf(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	if u, ok := a.(*net.UDPAddr); ok {
		ap = u.AddrPort()
	} else if a != nil {
		ap, _ = netip.ParseAddrPort(a.String()) // the zero AddrPort is not valid
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
