package tftp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// memNet is a network in memory on which packets are lost, doubled and
// overtaken, by the seed. It never loses more than maxRun packets in a row
// between the same two addresses, so that a protocol with enough tries always
// gets through.
type memNet struct {
	loss, double, delay float64       // chances
	late                time.Duration // how much later a delayed packet comes
	onSend              func(from, to netip.AddrPort, b []byte)

	mu    sync.Mutex
	rng   *rand.Rand
	conns map[netip.AddrPort]*memConn
	run   map[[2]netip.AddrPort]int // packets lost in a row
	port  uint16
}

const maxRun = 2

func newMemNet(seed uint64) *memNet {
	return &memNet{
		rng:   rand.New(rand.NewPCG(seed, seed)),
		conns: make(map[netip.AddrPort]*memConn),
		run:   make(map[[2]netip.AddrPort]int),
		late:  30 * time.Millisecond,
		port:  49151,
	}
}

// listen opens a socket; port 0 is the next free one.
func (n *memNet) listen(at netip.AddrPort) *memConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at.Port() == 0 || n.conns[at] != nil {
		n.port++
		at = netip.AddrPortFrom(at.Addr(), n.port)
	}
	c := &memConn{net: n, at: at, in: make(chan memPacket, 256), closed: make(chan struct{}), changed: make(chan struct{})}
	n.conns[at] = c
	return c
}

// newTID is a Server.NewTID.
func (n *memNet) newTID(local, _ netip.AddrPort) (net.PacketConn, error) {
	return n.listen(netip.AddrPortFrom(local.Addr(), 0)), nil
}

func (n *memNet) open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

func (n *memNet) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.onSend != nil {
		n.onSend(from, to, b)
	}
	pair := [2]netip.AddrPort{from, to}
	if n.rng.Float64() < n.loss && n.run[pair] < maxRun {
		n.run[pair]++
		return
	}
	n.run[pair] = 0
	copies := 1
	if n.rng.Float64() < n.double {
		copies = 2
	}
	for range copies {
		p := memPacket{bytes.Clone(b), from}
		if n.rng.Float64() < n.delay {
			time.AfterFunc(n.late, func() { n.deliver(to, p) })
			continue
		}
		n.deliverLocked(to, p)
	}
}

func (n *memNet) deliver(to netip.AddrPort, p memPacket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deliverLocked(to, p)
}

func (n *memNet) deliverLocked(to netip.AddrPort, p memPacket) {
	if c := n.conns[to]; c != nil {
		select {
		case c.in <- p:
		default:
		}
	}
}

type memPacket struct {
	data []byte
	from netip.AddrPort
}

type memConn struct {
	net    *memNet
	at     netip.AddrPort
	in     chan memPacket
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{}
}

func (c *memConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			if !time.Now().Before(deadline) {
				return 0, nil, os.ErrDeadlineExceeded
			}
			expired = time.After(time.Until(deadline))
		}
		select {
		case m := <-c.in:
			return copy(p, m.data), net.UDPAddrFromAddrPort(m.from), nil
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-c.closed:
			return 0, nil, net.ErrClosed
		case <-changed:
		}
	}
}

func (c *memConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.net.send(c.at, addrPortOf(addr), p)
	return len(p), nil
}

func (c *memConn) Close() error {
	err := errors.New("closed twice")
	c.once.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		delete(c.net.conns, c.at)
		c.net.mu.Unlock()
		err = nil
	})
	return err
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.at) }
