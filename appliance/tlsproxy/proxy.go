// Package tlsproxy ends TLS with the phones: the handshake, the phone's
// certificate, and how many may try at once. What is said inside is not its
// business.
//
// What a reader would get wrong: a completed handshake is not yet a phone that may
// register. Handshake returns who the certificate says it is; that it registers
// under that name is for the caller to hold it to.
package tlsproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"patchbay/appliance/pki"
)

const (
	// DefaultHandshakeTimeout is how long a phone may take from connecting
	// to the end of the handshake. Old ones need seconds for RSA.
	DefaultHandshakeTimeout = 30 * time.Second
	// DefaultMaxHandshakes bounds the handshakes in progress.
	DefaultMaxHandshakes = 256
	// DefaultMaxPerSource bounds those of one address, behind which a whole
	// branch's phones may stand.
	DefaultMaxPerSource = 32
)

// ErrBusy is a connection refused because too many handshakes are in progress,
// in all or from its address. Phones try again by themselves.
var ErrBusy = errors.New("too many handshakes")

// ErrCipher is a phone that offered no cipher suite of ours.
var ErrCipher = errors.New("no shared cipher")

// Config is what a Proxy works with.
type Config struct {
	// Certificate is what the box shows: the certificate that phones find in
	// their CTL file.
	Certificate *pki.Identity
	// Anchors returns whom phones' certificates may come from. It is asked
	// at each handshake.
	Anchors func() []pki.Anchor
	// AllowExpired accepts phones' certificates outside their dates.
	AllowExpired bool
	// MinRSABits is the smallest key of a phone; 0 for pki.MinRSABits.
	MinRSABits int

	// CipherWords are the words of "ssl encryption", preferred first, and
	// hold for TLS 1.2 and older; TLS 1.3 has its own. Empty: modern suites
	// and then aes128-sha1 aes256-sha1.
	CipherWords []string
	// MinVersion is the oldest TLS that is spoken; 0 for TLS 1.0, which is
	// all that the 7900 series speaks.
	MinVersion uint16

	Now  func() time.Time
	Rand io.Reader // nil for the system's
	Log  *slog.Logger
	// Interface names the interface a phone came in by, for the log; nil or
	// "" leaves it out.
	Interface func(phone netip.AddrPort) string

	HandshakeTimeout time.Duration // 0 for DefaultHandshakeTimeout
	MaxHandshakes    int           // 0 for DefaultMaxHandshakes
	MaxPerSource     int           // 0 for DefaultMaxPerSource
}

// A Proxy admits phones over TLS. Handshake may be called by many goroutines.
type Proxy struct {
	c      Config
	suites []suite
	base   *tls.Config

	mu     sync.Mutex
	source map[netip.Addr]int // handshakes in progress
	stats  Stats
	full   bool // the limit was reached and that was logged
}

// Stats counts handshakes.
type Stats struct {
	Handshaking int    // in progress
	Completed   uint64 // since the start
	Failed      uint64 // refused by either side, or out of time
	Refused     uint64 // not begun, for ErrBusy
}

// A Phone is one end of a completed handshake with a phone.
type Phone struct {
	Conn     *tls.Conn
	Device   string // "SEP001122334455", from the certificate
	Verified pki.Verified
	State    tls.ConnectionState
}

// Cipher returns the cipher suite by the name the ASA prints, such as AES128-SHA.
func (p *Phone) Cipher() string { return suiteName(p.State.CipherSuite) }

// Version returns the version of TLS as the ASA prints it, such as TLSv1.
func (p *Phone) Version() string { return versionName(p.State.Version) }

// New returns a Proxy. Words of CipherWords that this version does not support
// are logged and left out; it is an error if none is left.
func New(c Config) (*Proxy, error) {
	if c.Certificate == nil || c.Anchors == nil || c.Now == nil {
		return nil, errors.New("tlsproxy: no certificate, anchors or clock")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS10
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = DefaultMaxHandshakes
	}
	if c.MaxPerSource == 0 {
		c.MaxPerSource = DefaultMaxPerSource
	}
	p := &Proxy{c: c, source: make(map[netip.Addr]int)}
	var err error
	if p.suites, err = suitesOf(c.CipherWords, func(word, why string) {
		c.Log.Warn("ssl encryption: "+word+" is left out", "reason", why)
	}); err != nil {
		return nil, fmt.Errorf("tlsproxy: %w", err)
	}
	p.base = &tls.Config{
		Rand: c.Rand,
		Time: c.Now,
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{c.Certificate.DER}, PrivateKey: c.Certificate.Key, Leaf: c.Certificate.Cert,
		}},
		// Any certificate, for Go's own verification refuses SHA-1;
		// VerifyConnection decides.
		ClientAuth:   tls.RequireAnyClientCert,
		MinVersion:   c.MinVersion,
		CipherSuites: ids(p.suites),
		// So that every connection shows its certificate.
		SessionTicketsDisabled: true,
	}
	return p, nil
}

// Stats returns the counts so far.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Handshake takes a phone's connection through the TLS handshake and verifies its
// certificate. On any error conn is closed, and what went wrong has been logged
// with the phone's address; the error then wraps a *pki.VerifyError if it was the
// certificate, ErrBusy, ErrCipher, or the context's error. It returns within HandshakeTimeout.
func (p *Proxy) Handshake(ctx context.Context, conn net.Conn) (*Phone, error) {
	h := &handshake{p: p, remote: addrPort(conn.RemoteAddr()), local: addrPort(conn.LocalAddr())}
	if err := p.enter(h); err != nil {
		conn.Close()
		return nil, fmt.Errorf("tlsproxy: handshake with %v: %w", h.remote, err)
	}
	phone, err := h.run(ctx, conn)
	p.leave(h, err)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("tlsproxy: handshake with %v: %w", h.remote, err)
	}
	return phone, nil
}

// enter counts a handshake in, if there is room for it.
func (p *Proxy) enter(h *handshake) error {
	src := h.remote.Addr()
	p.mu.Lock()
	all, one := p.stats.Handshaking >= p.c.MaxHandshakes, p.source[src] >= p.c.MaxPerSource
	first := false
	if all || one {
		p.stats.Refused++
		first, p.full = !p.full, true
	} else {
		p.stats.Handshaking++
		p.source[src]++
	}
	p.mu.Unlock()
	switch {
	case !all && !one:
		return nil
	case first: // and not again until a handshake has ended: this is when the log would flood
		h.log(6, 725025, fmt.Sprintf("SSL pre-auth connection limit reached, refused %s", h.peers()), nil)
	}
	if all {
		return fmt.Errorf("%w: %d in progress", ErrBusy, p.c.MaxHandshakes)
	}
	return fmt.Errorf("%w: %d from its address", ErrBusy, p.c.MaxPerSource)
}

func (p *Proxy) leave(h *handshake, err error) {
	src := h.remote.Addr()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = false
	p.stats.Handshaking--
	if err == nil {
		p.stats.Completed++
	} else {
		p.stats.Failed++
	}
	if p.source[src]--; p.source[src] == 0 {
		delete(p.source, src)
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// hint returns the names of the anchors, which the box sends so that a phone with
// two certificates can choose.
func hint(anchors []pki.Anchor) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range anchors {
		pool.AddCert(a.Cert)
	}
	return pool
}
