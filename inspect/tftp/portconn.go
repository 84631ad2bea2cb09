package tftp

import (
	"bytes"
	"net"
	"os"
	"sync"
	"time"
)

// portQueue is how many packets of one client wait for its transfer. There is
// one packet under way at a time; the rest are repeats.
const portQueue = 8

// portConn is the part of the server's port that belongs to one client, for
// transfers in single-port mode. One goroutine reads it.
type portConn struct {
	net.PacketConn // the server's port, to write on
	peer           net.Addr
	in             chan []byte

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed when deadline changes
}

func newPortConn(pc net.PacketConn, peer net.Addr) *portConn {
	return &portConn{PacketConn: pc, peer: peer, in: make(chan []byte, portQueue), changed: make(chan struct{})}
}

// deliver queues a packet of the client. It never waits.
func (c *portConn) deliver(b []byte) {
	select {
	case c.in <- bytes.Clone(b):
	default: // as good as lost on the way
	}
}

// ReadFrom returns the client's next packet.
func (c *portConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case b := <-c.in:
			return copy(p, b), c.peer, nil
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

// SetReadDeadline sets when ReadFrom gives up, also for one that waits.
func (c *portConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// Close leaves the port open, for it is everybody's.
func (c *portConn) Close() error { return nil }
