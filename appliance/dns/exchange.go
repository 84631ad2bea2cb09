package dns

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	port = 53

	maxDatagram = 4096 // bytes; what is longer is no answer to a query without EDNS
	// maxStrange is how many datagrams that answer something else are taken while
	// one query waits. After that somebody is guessing, and the server is asked
	// over TCP, where guessing does not help. (RFC 5452, section 9.)
	maxStrange = 16
	portTries  = 8 // for a free source port

	maxTimeout = 30 * time.Second
	// downFor is how long a server that did not answer is asked last.
	downFor = time.Minute
)

var (
	errTimeout = errors.New("it does not answer")
	errGuessed = errors.New("too many false answers")
)

// A server is how it went with one of the servers.
type server struct {
	queries, answers, strange uint64

	answered, failed time.Time // last; by Config.Now
	err              error     // the last failure, nil after an answer
}

// resolve finds what is asked for of name, following aliases from answer to
// answer.
func (r *Resolver) resolve(ctx context.Context, s *Settings, name string) (finding, time.Duration, *Error) {
	ttl, hops, at := MaxTTL, 0, name
	for {
		a, id, err := r.ask(ctx, s, at)
		if err != nil {
			return finding{}, 0, &Error{Name: name, ID: id, Err: err}
		}
		ttl = min(ttl, a.ttl)
		hops += a.hops
		switch {
		case a.negative != nil:
			return finding{}, ttl, &Error{Name: name, ID: id, Err: a.negative}
		case len(a.addrs)+len(a.names) > 0:
			return finding{a.addrs, a.names}, ttl, nil
		case hops >= maxChain:
			return finding{}, 0, &Error{Name: name, ID: id, Err: errChain}
		}
		at = a.alias
	}
}

// ask asks each server until one answers. Where none does the error is that of
// the last.
func (r *Resolver) ask(ctx context.Context, s *Settings, name string) (a answer, id uint16, err error) {
	for round := range s.Retries + 1 {
		timeout := min(s.Timeout<<round, maxTimeout)
		asked, silent := false, false
		for _, to := range r.order(s.Servers) {
			from, ok := r.config.From(to)
			if !ok {
				continue
			}
			asked = true
			if a, id, err = r.askOne(ctx, from, to, name, timeout); err == nil {
				return a, id, nil
			}
			if ctx.Err() != nil {
				return a, id, ctx.Err()
			}
			silent = silent || errors.Is(err, errTimeout)
			err = fmt.Errorf("%w: %v: %w", ErrNoAnswer, to, err)
		}
		if !asked {
			return a, 0, fmt.Errorf("%w; no interface with domain-lookup faces a server", ErrDisabled)
		}
		if !silent {
			break // all have said what they have to say
		}
	}
	return a, id, err
}

// order returns servers with those last that did not answer of late.
func (r *Resolver) order(servers []netip.Addr) []netip.Addr {
	now := r.config.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	down := func(a netip.Addr) int {
		if s := r.servers[a]; s != nil && s.err != nil && now.Before(s.failed.Add(downFor)) {
			return 1
		}
		return 0
	}
	list := slices.Clone(servers)
	slices.SortStableFunc(list, func(a, b netip.Addr) int { return cmp.Compare(down(a), down(b)) })
	return list
}

// askOne asks one server, over TCP if the answer is too long for a datagram or
// somebody guesses at it.
func (r *Resolver) askOne(ctx context.Context, from, to netip.Addr, name string, timeout time.Duration) (answer, uint16, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	id, query, err := r.query(name)
	if err != nil {
		return answer{}, 0, err
	}
	a, strange, err := r.overUDP(ctx, from, to, query, id, name)
	if errors.Is(err, errGuessed) || err == nil && a.truncated {
		if a, err = r.overTCP(ctx, from, to, query, id, name); err == nil && a.truncated {
			err = errMalformed
		}
	}
	if err != nil && ctx.Err() != nil {
		err = errTimeout
	}
	r.note(to, strange, err)
	return a, id, err
}

// query makes a query under a number chosen by chance.
func (r *Resolver) query(name string) (uint16, []byte, error) {
	id, err := r.random()
	if err != nil {
		return 0, nil, err
	}
	q, err := question(id, name)
	return id, q, err
}

func (r *Resolver) random() (uint16, error) {
	var b [2]byte
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := io.ReadFull(r.config.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("random bytes: %w", err)
	}
	return binary.BigEndian.Uint16(b[:]), nil
}

// note keeps how it went with a server, and logs when that changes.
func (r *Resolver) note(to netip.Addr, strange int, err error) {
	now := r.config.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.servers[to]
	if s == nil || r.ctx.Err() != nil {
		return
	}
	s.queries++
	s.strange += uint64(strange)
	was := s.err
	s.err = err
	switch {
	case err == nil:
		s.answers++
		s.answered = now
		if was != nil {
			r.config.Log.Info("DNS server answers again", "server", to)
		}
	default:
		s.failed = now
		if was == nil {
			r.config.Log.Warn("DNS server fails", "server", to, "reason", err)
		}
	}
}

// listen opens a socket on a port chosen by chance. (RFC 5452, section 9.2.)
func (r *Resolver) listen(from netip.Addr) (net.PacketConn, error) {
	var last error
	for range portTries {
		n, err := r.random()
		if err != nil {
			return nil, err
		}
		const lowest = 1024
		p := lowest + n%(65535-lowest) // the bias to low ports is not worth a thought
		c, err := r.config.Network.ListenPacket(netip.AddrPortFrom(from, p))
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

// overUDP returns what the server answers, and how many datagrams were not that.
func (r *Resolver) overUDP(ctx context.Context, from, to netip.Addr, query []byte, id uint16, name string) (answer, int, error) {
	c, err := r.listen(from)
	if err != nil {
		return answer{}, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	server := netip.AddrPortFrom(to, port)
	if _, err := c.WriteTo(query, net.UDPAddrFromAddrPort(server)); err != nil {
		return answer{}, 0, err
	}
	buf := make([]byte, maxDatagram)
	for strange := 0; ; strange++ {
		if strange > maxStrange {
			return answer{}, strange, errGuessed
		}
		n, src, err := c.ReadFrom(buf)
		if err != nil {
			return answer{}, strange, err
		}
		if u, ok := src.(*net.UDPAddr); !ok || u.AddrPort().Port() != port || u.AddrPort().Addr().Unmap() != to {
			continue
		}
		a, err := parse(buf[:n], id, name)
		if errors.Is(err, errNotOurs) {
			continue
		}
		return a, strange, err
	}
}

// overTCP asks with a length before each message. (RFC 1035, section 4.2.2.)
func (r *Resolver) overTCP(ctx context.Context, from, to netip.Addr, query []byte, id uint16, name string) (answer, error) {
	c, err := r.config.Network.DialTCP(ctx, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, port))
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return answer{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return answer{}, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return answer{}, err
	}
	return parse(msg, id, name)
}
