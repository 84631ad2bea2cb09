package logging

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// DefaultRetry is how long a host that is down is left alone at first; each
	// time twice as long, up to maxRetry.
	DefaultRetry = time.Second
	maxRetry     = time.Minute

	dialTimeout  = 10 * time.Second // with the TLS handshake
	writeTimeout = 10 * time.Second // after which a host is down
	lastWords    = time.Second      // for what waits when the Log stops
)

// A Dialer connects to a host from the box's address on the host's interface.
// It leaves TLS to the caller.
type Dialer func(ctx context.Context, h Host) (net.Conn, error)

// A TLSConfig is asked for what a host's certificate is checked by. Its name
// must be the host's address.
type TLSConfig func() *tls.Config

// A HostStatus is how a host fares.
type HostStatus struct {
	Host  Host
	Up    bool
	Since time.Time // when it came up or went down; zero: it was never tried
	Error string    // why it is down

	Sent    uint64 // messages
	Errors  uint64 // connections that failed, and datagrams
	Dropped uint64 // messages that the queue had no room for
	Waiting int    // messages in the queue
	Most    int    // the most there were
}

// A sender sends a host its messages, on a goroutine of its own.
type sender struct {
	log   *Log
	host  Host
	queue *queue[string]

	ctx    context.Context
	cancel context.CancelFunc
	quit   chan struct{} // closed to have it stop once the queue is empty
	ended  chan struct{} // closed at the end of run; nil: it was not started

	mu   sync.Mutex
	stat HostStatus
	down bool      // counted in log.down
	once sync.Once // stop
}

func newSender(l *Log, h Host) *sender {
	x := &sender{log: l, host: h, queue: newQueue[string](DefaultQueue), quit: make(chan struct{})}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.stat.Host = h
	return x
}

func (x *sender) put(m message, v *view) { x.queue.put(m.sent(v, x.host)) }

func (x *sender) start() {
	x.ended = make(chan struct{})
	go x.run()
}

// stop ends x; politely: a host that is up gets what waits for it.
func (x *sender) stop(politely bool) { x.once.Do(func() { x.end(politely) }) }

func (x *sender) end(politely bool) {
	close(x.quit)
	if x.ended != nil {
		t := time.NewTimer(lastWords)
		defer t.Stop()
		if politely && x.isUp() {
			select {
			case <-x.ended:
			case <-t.C:
			}
		}
		x.cancel()
		<-x.ended
	}
	x.cancel()
	x.markDown(false)
}

func (x *sender) isUp() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stat.Up
}

// run connects, sends and connects again until x stops.
func (x *sender) run() {
	defer close(x.ended)
	wait := x.log.cfg.Retry
	for !x.stopping() {
		c, err := x.dial()
		if err == nil {
			x.up()
			var sent bool
			if sent, err = x.send(c); sent {
				wait = x.log.cfg.Retry
			}
			c.Close()
			if err == nil {
				return // told to stop
			}
		}
		if x.ctx.Err() != nil {
			return
		}
		x.failed(err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-x.quit:
			t.Stop()
			return
		}
		wait = min(2*wait, maxRetry)
	}
}

func (x *sender) stopping() bool {
	select {
	case <-x.quit:
		return true
	default:
		return false
	}
}

var (
	errNoNetwork = errors.New("there is no network")
	errNoTrust   = errors.New("there is no certificate to check it by")
	errEnded     = errors.New("the host has ended the connection")
)

// dial connects, and with TLS checks who answers.
func (x *sender) dial() (net.Conn, error) {
	if x.log.cfg.Dial == nil {
		return nil, errNoNetwork
	}
	ctx, cancel := context.WithTimeout(x.ctx, dialTimeout)
	defer cancel()
	if x.host.Transport == TLS && x.log.cfg.TLS == nil {
		return nil, errNoTrust
	}
	c, err := x.log.cfg.Dial(ctx, x.host)
	if err != nil || x.host.Transport != TLS {
		return c, err
	}
	cfg := x.log.cfg.TLS().Clone()
	cfg.ServerName = x.host.Addr.String()
	s := tls.Client(c, cfg)
	if err := s.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return s, nil
}

// send sends what waits on c until that fails, which is an error, or x stops.
// A message that a connection did not take is sent again on the next.
func (x *sender) send(c net.Conn) (sent bool, err error) {
	dead := make(chan struct{})
	stream := x.host.Transport != UDP
	if stream { // a host says nothing, but that it goes
		go func() {
			defer close(dead)
			io.Copy(io.Discard, c)
		}()
		defer func() { c.Close(); <-dead }()
	}
	stop := context.AfterFunc(x.ctx, func() { c.Close() })
	defer stop()
	for {
		select {
		case <-dead:
			return sent, errEnded
		default:
		}
		s, ok := x.queue.first()
		if !ok {
			select {
			case <-x.queue.wake:
			case <-dead:
				return sent, errEnded
			case <-x.quit:
				if _, more := x.queue.first(); !more {
					return sent, nil
				}
			}
			continue
		}
		if stream {
			s = framed(s, x.host)
		}
		c.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := io.WriteString(c, s); err != nil {
			if !stream { // the error may be of the one before, and then this one was not tried
				io.WriteString(c, s)
				x.queue.done()
			}
			return sent, err
		}
		x.queue.done()
		sent = true
		x.mu.Lock()
		x.stat.Sent++
		x.mu.Unlock()
	}
}

// up notes that the host answers.
func (x *sender) up() {
	x.mu.Lock()
	again := !x.stat.Up && x.stat.Error != ""
	x.stat.Up, x.stat.Since, x.stat.Error = true, x.log.cfg.Now(), ""
	x.mu.Unlock()
	x.markDown(false)
	if again && x.host.Transport != UDP {
		x.log.Message(414004, 6, fmt.Sprintf("TCP Syslog Server %s - Connection restored", x.name()))
	}
}

// failed notes that it does not.
func (x *sender) failed(err error) {
	x.mu.Lock()
	first := x.stat.Up || x.stat.Error == ""
	if first {
		x.stat.Since = x.log.cfg.Now()
	}
	x.stat.Up, x.stat.Error = false, err.Error()
	x.stat.Errors++
	x.mu.Unlock()
	if x.host.Transport == UDP {
		return // nobody knows whether it hears
	}
	x.markDown(true)
	if first {
		policy := "denied"
		if x.log.view.Load().set.PermitHostDown {
			policy = "permitted"
		}
		x.log.Message(414003, 3, fmt.Sprintf("TCP Syslog Server %s not responding. New connections are %s based on logging permit-hostdown policy.", x.name(), policy))
	}
}

// markDown counts the host as down, or no longer.
func (x *sender) markDown(down bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.down == down {
		return
	}
	x.down = down
	if down {
		x.log.down.Add(1)
	} else {
		x.log.down.Add(-1)
	}
}

// name is "inside: 10.20.0.5/1470".
func (x *sender) name() string {
	return fmt.Sprintf("%s: %v/%d", x.host.Interface, x.host.Addr, x.host.Port)
}

// status returns how the host fares.
func (x *sender) status() HostStatus {
	x.mu.Lock()
	s := x.stat
	x.mu.Unlock()
	x.queue.mu.Lock()
	defer x.queue.mu.Unlock()
	s.Dropped, s.Waiting, s.Most = x.queue.lost, len(x.queue.list), x.queue.most
	return s
}
