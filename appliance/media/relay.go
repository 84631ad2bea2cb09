// Package media carries RTP and SRTP through the box: sessions of two legs,
// each on a port of a media termination address, decrypted on the way in and
// encrypted on the way out, packet by packet and in place.
//
// What a reader may get wrong: a leg belongs to an end, and its keys are named
// for what the box does. Receive is the key the end transmits with, Transmit
// the key the box transmits to it with. (reference/srtp-keying.md, section 3.)
package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// Limits and defaults.
const (
	DefaultMinPort     = 16384           // first RTP port of a media termination address
	DefaultMaxPort     = 32767           // last one; RTCP included
	DefaultMaxSessions = 10_000          // sessions at once
	DefaultIdle        = 2 * time.Minute // timeout sip_media
)

// ErrPorts says that a media termination address has no free port pair.
var ErrPorts = errors.New("media: no free RTP port")

// ErrSessions says that the limit of sessions is reached.
var ErrSessions = errors.New("media: too many sessions")

// Pinholes is what the relay asks of nat.Table.
type Pinholes interface {
	Expect(nat.Pinhole) *nat.Hole
}

// Config is how a Relay works.
type Config struct {
	Pinholes         Pinholes
	Rand             io.Reader     // where ports begin; nil is not allowed
	MinPort, MaxPort uint16        // the RTP range, both included; 0 for the defaults
	MaxSessions      int           // 0 for DefaultMaxSessions
	Idle             time.Duration // a session without a packet for so long ends; 0 for DefaultIdle
}

// A Relay owns the ports of the media termination addresses. Its methods may
// be used by several goroutines.
type Relay struct {
	c     Config
	desks desks

	mu       sync.Mutex
	used     map[netip.AddrPort]bool // even RTP ports in use
	sessions map[*Session]struct{}
	most     int // sessions at once, ever
}

// New returns a Relay without sessions.
func New(c Config) *Relay {
	if c.MinPort == 0 {
		c.MinPort = DefaultMinPort
	}
	if c.MaxPort == 0 {
		c.MaxPort = DefaultMaxPort
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	if c.Idle == 0 {
		c.Idle = DefaultIdle
	}
	return &Relay{c: c, used: make(map[netip.AddrPort]bool), sessions: make(map[*Session]struct{})}
}

// Side is where a leg stands.
type Side struct {
	Addr   netip.Addr       // media termination address
	In     *stack.Interface // where its packets arrive; nil is any
	Secure bool             // SRTP only: nothing in the clear is taken or sent
}

// Open makes a session with a port pair on each side, and books their
// pinholes. name is for people: the phone and the call.
func (r *Relay) Open(name string, phone, ucm Side, now time.Time) (*Session, error) {
	s := &Session{relay: r, Name: name, Opened: now}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sessions) >= r.c.MaxSessions {
		return nil, fmt.Errorf("%w: %d", ErrSessions, r.c.MaxSessions)
	}
	for end, side := range [2]Side{nat.Client: phone, nat.Server: ucm} {
		l := &s.legs[end]
		l.secure = side.Secure
		local, err := r.portLocked(side.Addr)
		if err != nil {
			for i := range s.legs {
				delete(r.used, s.legs[i].local)
			}
			return nil, err
		}
		l.local, l.stats.lastSent = local, now.UnixNano()
	}
	for end, side := range [2]Side{nat.Client: phone, nat.Server: ucm} {
		l := &s.legs[end]
		for i := range l.ports {
			p := &l.ports[i]
			p.s, p.end, p.rtcp = s, nat.End(end), i == 1
			kind := "RTP "
			if p.rtcp {
				kind = "RTCP "
			}
			p.hole = r.c.Pinholes.Expect(nat.Pinhole{
				In: side.In,
				Match: stack.Flow{Proto: stack.UDP,
					Dst: netip.AddrPortFrom(l.local.Addr(), l.local.Port()+uint16(i))},
				Handler: p, Standing: true, Reason: kind + name,
			})
		}
	}
	r.sessions[s] = struct{}{}
	r.most = max(r.most, len(r.sessions))
	return s, nil
}

// portLocked takes an even port of a whose neighbour is in range too.
func (r *Relay) portLocked(a netip.Addr) (netip.AddrPort, error) {
	lo := uint32(r.c.MinPort+1) &^ 1
	pairs := (uint32(r.c.MaxPort) + 1 - lo) / 2
	if uint32(r.c.MaxPort)+1 <= lo || pairs == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: range %d-%d holds no pair", ErrPorts, r.c.MinPort, r.c.MaxPort)
	}
	var b [4]byte
	if _, err := io.ReadFull(r.c.Rand, b[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("media: choosing a port: %w", err)
	}
	first := binary.BigEndian.Uint32(b[:]) % pairs
	for i := range pairs {
		ap := netip.AddrPortFrom(a, uint16(lo+(first+i)%pairs*2))
		if !r.used[ap] {
			r.used[ap] = true
			return ap, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("%w: all %d pairs of %v are in use", ErrPorts, pairs, a)
}

// Expire ends the sessions that have carried nothing for the idle time.
func (r *Relay) Expire(now time.Time) {
	var idle []*Session
	r.mu.Lock()
	for s := range r.sessions {
		if now.Sub(s.carried()) >= r.c.Idle {
			idle = append(idle, s)
		}
	}
	r.mu.Unlock()
	for _, s := range idle {
		s.Close()
	}
}

// Sessions returns the sessions that are open, in no order.
func (r *Relay) Sessions() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*Session, 0, len(r.sessions))
	for s := range r.sessions {
		all = append(all, s)
	}
	return all
}

// Most returns the largest number of sessions there has been at once.
func (r *Relay) Most() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

// Close ends every session.
func (r *Relay) Close() {
	for _, s := range r.Sessions() {
		s.Close()
	}
}

// A Session carries one stream between its two legs.
type Session struct {
	legs [2]leg

	Name   string
	Opened time.Time

	relay  *Relay
	closed atomic.Bool
}

// Close frees the ports. Packets in flight are dropped.
func (s *Session) Close() {
	if s.closed.Swap(true) {
		return
	}
	for i := range s.legs {
		l := &s.legs[i]
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		for j := range l.ports {
			l.ports[j].hole.Close()
		}
	}
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	delete(s.relay.sessions, s)
	for i := range s.legs {
		delete(s.relay.used, s.legs[i].local)
	}
}

// carried returns the time of the last packet that was carried either way, of
// the opening if there was none.
func (s *Session) carried() time.Time {
	last := int64(0)
	for i := range s.legs {
		l := &s.legs[i]
		l.mu.Lock()
		last = max(last, l.stats.lastSent)
		l.mu.Unlock()
	}
	return time.Unix(0, last)
}

// Closed reports whether the session has ended, by Close or by its idle time.
func (s *Session) Closed() bool { return s.closed.Load() }

// Local returns where the end e has to send RTP; RTCP is at port + 1.
func (s *Session) Local(e nat.End) netip.AddrPort { return s.legs[e].local }
