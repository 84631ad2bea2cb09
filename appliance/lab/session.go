package lab

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	sessionQueue = 256              // messages that wait to be written
	writeTimeout = 10 * time.Second // a peer that does not read is gone
)

// A session is a signaling connection with a writer of its own, so that a
// handler never waits for the network.
type session struct {
	conn net.Conn
	out  chan []byte
	done chan struct{}
	once sync.Once
}

// newSession starts the writer; wg counts it.
func newSession(c net.Conn, wg *sync.WaitGroup) *session {
	s := &session{conn: c, out: make(chan []byte, sessionQueue), done: make(chan struct{})}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer s.conn.Close()
		for {
			select {
			case <-s.done:
				s.drain()
				return
			case b := <-s.out:
				if !s.write(b) {
					s.close()
					return
				}
			}
		}
	}()
	return s
}

// drain writes what was queued before close.
func (s *session) drain() {
	for {
		select {
		case b := <-s.out:
			if !s.write(b) {
				return
			}
		default:
			return
		}
	}
}

func (s *session) write(b []byte) bool {
	s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := s.conn.Write(b)
	return err == nil
}

// send queues b, which it keeps. A session whose queue is full is closed.
func (s *session) send(b []byte) {
	select {
	case <-s.done:
	case s.out <- b:
	default:
		s.close()
	}
}

// close ends the session once what is queued is written.
func (s *session) close() { s.once.Do(func() { close(s.done) }) }

func (s *session) local() netip.AddrPort  { return addrPort(s.conn.LocalAddr()) }
func (s *session) remote() netip.AddrPort { return addrPort(s.conn.RemoteAddr()) }

// A lockedReader lets several goroutines draw from one source of chance.
type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

// Read fills b whole or fails.
func (l *lockedReader) Read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return io.ReadFull(l.r, b)
}

// A datagramConn is a UDP socket that talks to one peer only. Each Write is a
// datagram, each Read takes one.
type datagramConn struct {
	net.PacketConn
	peer netip.AddrPort
}

// Read takes the next datagram of the peer; those of others are dropped.
func (c *datagramConn) Read(b []byte) (int, error) {
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil || addrPort(from) == c.peer {
			return n, err
		}
	}
}

// Write sends a datagram.
func (c *datagramConn) Write(b []byte) (int, error) {
	return c.WriteTo(b, net.UDPAddrFromAddrPort(c.peer))
}

// RemoteAddr is the peer.
func (c *datagramConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.peer) }
