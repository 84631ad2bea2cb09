package tlsproxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"patchbay/appliance/pki"
)

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// cert is a certificate with its key, for tests.
type cert struct {
	*x509.Certificate
	key *rsa.PrivateKey
}

func (c *cert) tls() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: c.key}
}

func issue(t testing.TB, by *cert, cn string, bits int, ca bool, notAfter time.Time) *cert {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(0x1a2b), Subject: pkix.Name{CommonName: cn}, SignatureAlgorithm: x509.SHA1WithRSA,
		NotBefore: now.AddDate(-12, 0, 0), NotAfter: notAfter, BasicConstraintsValid: true, IsCA: ca,
	}
	c := &cert{key: key}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// world is the certificates of a test, made once: they take time.
type world struct {
	server                                 *pki.Identity
	ca, mic, lsc, expired, forged, server2 *cert
	stranger                               *cert
}

var theWorld = sync.OnceValue(func() *world {
	t := &testing.T{}
	valid := now.AddDate(5, 0, 0)
	w := &world{ca: issue(t, nil, "Cisco Manufacturing CA", 2048, true, valid)}
	w.mic = issue(t, w.ca, "CP-7962G-SEP001122334455", 1024, false, valid)
	w.lsc = issue(t, w.ca, "SEP00AABBCCDDEE", 2048, false, valid)
	w.expired = issue(t, w.ca, "CP-7941G-SEP001122334456", 1024, false, now.AddDate(-1, 0, 0))
	w.forged = issue(t, issue(t, nil, "Cisco Manufacturing CA", 2048, true, valid), "CP-7962G-SEP001122334455", 1024, false, valid)
	w.stranger = issue(t, issue(t, nil, "Other CA", 1024, true, valid), "SEP001122334455", 1024, false, valid)
	w.server2 = issue(t, w.ca, "ucm.example.com", 1024, false, valid)
	s := issue(t, nil, "_internal_PP_myctl", 2048, false, valid)
	w.server = &pki.Identity{Trustpoint: "_internal_PP_myctl", Cert: s.Certificate, DER: s.Raw, Key: s.key}
	return w
})

func anchors() []pki.Anchor {
	return []pki.Anchor{{Trustpoint: "Cisco_Manufacturing_CA", Cert: theWorld().ca.Certificate}}
}

// logged is a log that tests read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newProxy(t testing.TB, c Config) (*Proxy, *logged) {
	t.Helper()
	l := &logged{}
	c.Certificate = theWorld().server
	if c.Anchors == nil {
		c.Anchors = anchors
	}
	c.Now = func() time.Time { return now }
	c.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p, l
}

// serve handshakes with one client on loopback and, if that works, answers one
// line with the same line.
func serve(t *testing.T, p *Proxy, client func(net.Addr)) (*Phone, error) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		client(l.Addr())
	}()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	phone, err := p.Handshake(context.Background(), conn)
	if err == nil {
		buf := make([]byte, 5)
		if _, err := io.ReadFull(phone.Conn, buf); err != nil || string(buf) != "ping\n" {
			t.Errorf("read %q, %v; want ping", buf, err)
		}
		if _, err := phone.Conn.Write(buf); err != nil {
			t.Error(err)
		}
		phone.Conn.Close()
	}
	<-done
	return phone, err
}

// goClient is a phone made of crypto/tls. It shows c, whatever the box asked for.
func goClient(t *testing.T, c *cert, cfg *tls.Config) func(net.Addr) {
	return func(addr net.Addr) {
		cfg := cfg.Clone()
		cfg.InsecureSkipVerify = true
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c == nil {
				return &tls.Certificate{}, nil
			}
			return c.tls(), nil
		}
		conn, err := tls.Dial(addr.Network(), addr.String(), cfg)
		if err != nil {
			return // the box says why
		}
		defer conn.Close()
		conn.Write([]byte("ping\n"))
		io.Copy(io.Discard, conn)
	}
}

func only(version uint16, suites ...uint16) *tls.Config {
	return &tls.Config{MinVersion: version, MaxVersion: version, CipherSuites: suites}
}

func TestHandshake(t *testing.T) {
	w := theWorld()
	aes := tls.TLS_RSA_WITH_AES_128_CBC_SHA
	tls10 := only(tls.VersionTLS10, aes)
	tests := []struct {
		name   string
		config Config
		cert   *cert
		client *tls.Config
		want   string     // device, version, cipher; "" if refused
		reason pki.Reason // of the refusal, if it is the certificate
		log    []string   // each must be in it
	}{
		{"TLS 1.0, AES128-SHA, MIC of 1024 bits", Config{}, w.mic, tls10, "SEP001122334455 TLSv1 AES128-SHA", 0,
			[]string{"%ASA-6-725001: Starting SSL handshake with client 127.0.0.1/", "level=DEBUG msg=\"%ASA-7-725008", "proposes the following",
				"%ASA-7-725012: Device chooses cipher : AES128-SHA", "%ASA-6-725002: Device completed SSL handshake", "for TLSv1 session", "phone=SEP001122334455"}},
		{"TLS 1.1, AES256-SHA, LSC", Config{}, w.lsc, only(tls.VersionTLS11, tls.TLS_RSA_WITH_AES_256_CBC_SHA), "SEP00AABBCCDDEE TLSv1.1 AES256-SHA", 0, nil},
		{"TLS 1.2, RSA key exchange", Config{}, w.lsc, only(tls.VersionTLS12, aes), "SEP00AABBCCDDEE TLSv1.2 AES128-SHA", 0, nil},
		{"TLS 1.2, all that Go offers", Config{}, w.mic, only(tls.VersionTLS12), "SEP001122334455 TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256", 0, nil},
		{"TLS 1.3", Config{}, w.lsc, only(tls.VersionTLS13), "SEP00AABBCCDDEE TLSv1.3 TLS_AES_128_GCM_SHA256", 0, nil},
		{"configured order", Config{CipherWords: []string{"aes256-sha1", "aes128-sha1"}}, w.mic,
			only(tls.VersionTLS10, aes, tls.TLS_RSA_WITH_AES_256_CBC_SHA), "SEP001122334455 TLSv1 AES256-SHA", 0, nil},
		{"other order", Config{CipherWords: []string{"aes128-sha1", "aes256-sha1"}}, w.mic,
			only(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_256_CBC_SHA, aes), "SEP001122334455 TLSv1.2 AES128-SHA", 0, nil},
		{"3des-sha1 when asked for", Config{CipherWords: []string{"3des-sha1"}}, w.mic, only(tls.VersionTLS10, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA),
			"SEP001122334455 TLSv1 DES-CBC3-SHA", 0, nil},
		{"expired, allowed", Config{AllowExpired: true}, w.expired, tls10, "SEP001122334456 TLSv1 AES128-SHA", 0, []string{"expired=true"}},
		{"interface", Config{Interface: func(p netip.AddrPort) string { return "outside" }}, w.mic, tls10, "SEP001122334455 TLSv1 AES128-SHA", 0,
			[]string{"client outside:127.0.0.1/"}},

		{"no certificate, TLS 1.0", Config{}, nil, tls10, "", pki.ReasonNone, []string{
			"%ASA-7-725017: No certificates received during the handshake", "%ASA-7-725014: SSL lib error. Function: SSL3_GET_CLIENT_CERTIFICATE Reason: no certificate returned",
			"%ASA-6-725006: Device failed SSL handshake with client 127.0.0.1/", "no certificate"}},
		{"no certificate, TLS 1.2", Config{}, nil, only(tls.VersionTLS12), "", pki.ReasonNone, []string{"725017", "725006"}},
		{"no certificate, TLS 1.3", Config{}, nil, only(tls.VersionTLS13), "", pki.ReasonNone, []string{"725017", "725006", "TLSv1.3"}},
		{"stranger", Config{}, w.stranger, tls10, "", pki.ReasonIssuer, []string{
			"level=ERROR msg=\"%ASA-3-717009: Certificate validation failed. No suitable trustpoints found to validate certificate, serial number: 1a2b, subject name: CN=SEP001122334455, issuer name: CN=Other CA",
			"%ASA-3-717027: Certificate chain failed validation. no trustpoint holds the issuer", "725006"}},
		{"stranger, TLS 1.3", Config{}, w.stranger, only(tls.VersionTLS13), "", pki.ReasonIssuer, []string{"717009", "725006"}},
		{"forged CA of the same name", Config{}, w.forged, tls10, "", pki.ReasonSignature, []string{
			"717009", "subject name: CN=CP-7962G-SEP001122334455, issuer name: CN=Cisco Manufacturing CA", "did not sign it"}},
		{"expired, not allowed", Config{}, w.expired, tls10, "", pki.ReasonDate, []string{"717009", "expired at 2026-03-01 12:00:00"}},
		{"not a phone", Config{}, w.server2, tls10, "", pki.ReasonName, []string{"717009", "neither CP-"}},
		{"no anchors", Config{Anchors: func() []pki.Anchor { return nil }}, w.mic, tls10, "", pki.ReasonIssuer, []string{"717009"}},
		{"small key", Config{MinRSABits: 2048}, w.mic, tls10, "", pki.ReasonKey, []string{"RSA key of 1024 bits"}},
		{"no shared cipher", Config{CipherWords: []string{"aes256-sha1"}}, w.mic, tls10, "", 0, []string{"Reason: no shared cipher", "725006"}},
		{"3des-sha1 unasked", Config{}, w.mic, only(tls.VersionTLS10, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), "", 0, []string{"no shared cipher"}},
		{"TLS too old", Config{MinVersion: tls.VersionTLS12}, w.mic, tls10, "", 0, []string{"unsupported versions", "725006"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, l := newProxy(t, tt.config)
			phone, err := serve(t, p, goClient(t, tt.cert, tt.client))
			got := ""
			if err == nil {
				got = strings.Join([]string{phone.Device, versionName(phone.State.Version), phone.Cipher()}, " ")
			}
			if got != tt.want {
				t.Errorf("Handshake = %q, %v; want %q", got, err, tt.want)
			}
			var ve *pki.VerifyError
			if errors.As(err, &ve); ve != nil && ve.Reason != tt.reason || ve == nil && tt.reason != 0 {
				t.Errorf("error %v, want reason %d", err, tt.reason)
			}
			log := l.String()
			for _, want := range tt.log {
				if !strings.Contains(strings.ReplaceAll(log, `\"`, `"`), want) {
					t.Errorf("the log has not %q:\n%s", want, log)
				}
			}
			want := Stats{Completed: 1}
			if tt.want == "" {
				want = Stats{Failed: 1}
			}
			if diff := cmp.Diff(want, p.Stats()); diff != "" {
				t.Errorf("Stats (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGarbage: whatever comes, the handshake ends and the connection is closed.
func TestGarbage(t *testing.T) {
	tests := map[string][]byte{
		"nothing":    nil,
		"HTTP":       []byte("GET / HTTP/1.0\r\n\r\n"),
		"zeros":      make([]byte, 100),
		"SSLv2":      {0x80, 0x1f, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 0, 0, 0x35, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		"huge":       append([]byte{22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, make([]byte, 0x4000)...),
		"half hello": {22, 3, 1, 0, 50, 1, 0, 0, 46, 3, 1},
		"alert":      {21, 3, 1, 0, 2, 2, 40},
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			p, l := newProxy(t, Config{})
			_, err := serve(t, p, func(addr net.Addr) {
				c, err := net.Dial(addr.Network(), addr.String())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				c.Write(data)
				c.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c) // ends when the box closes
			})
			if err == nil || !strings.Contains(l.String(), "725006") {
				t.Errorf("Handshake: %v; log %s", err, l)
			}
			if s := p.Stats(); s != (Stats{Failed: 1}) {
				t.Errorf("Stats = %+v", s)
			}
		})
	}
}

// TestNeverFinishes: a client that stops is let go at the timeout, and not before.
func TestNeverFinishes(t *testing.T) {
	theWorld() // not in the bubble
	for _, sent := range []int{0, 1, 40} {
		synctest.Test(t, func(t *testing.T) {
			p, _ := newProxy(t, Config{})
			phone, box := net.Pipe()
			go phone.Write([]byte{22, 3, 1, 0, 50, 1, 0, 0, 46, 3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}[:sent])
			start := time.Now()
			_, err := p.Handshake(t.Context(), box)
			if took := time.Since(start); took != DefaultHandshakeTimeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after %d bytes: ended after %v with %v", sent, took, err)
			}
			if _, err := box.Write([]byte{0}); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("connection is still open: %v", err)
			}
			phone.Close()
		})
	}
}

// TestCancel: closing the box does not wait for a phone.
func TestCancel(t *testing.T) {
	theWorld()
	synctest.Test(t, func(t *testing.T) {
		p, _ := newProxy(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		phone, box := net.Pipe()
		defer phone.Close()
		time.AfterFunc(time.Second, cancel)
		if _, err := p.Handshake(ctx, box); !errors.Is(err, context.Canceled) {
			t.Errorf("Handshake: %v, want context.Canceled", err)
		}
	})
}

// pipeFrom is a connection that shows an address.
type pipeFrom struct {
	net.Conn
	addr string
}

func (p pipeFrom) RemoteAddr() net.Addr { return addrOf(p.addr) }
func (p pipeFrom) LocalAddr() net.Addr  { return addrOf("203.0.113.10:2443") }

type addrOf string

func (a addrOf) Network() string { return "tcp" }
func (a addrOf) String() string  { return string(a) }

func TestLimits(t *testing.T) {
	theWorld()
	synctest.Test(t, func(t *testing.T) {
		p, l := newProxy(t, Config{MaxHandshakes: 4, MaxPerSource: 2})
		var open sync.WaitGroup
		var far []net.Conn
		try := func(addr string) error {
			phone, box := net.Pipe()
			far = append(far, phone)
			var err error
			ended := make(chan struct{})
			open.Go(func() {
				_, err = p.Handshake(t.Context(), pipeFrom{box, addr})
				close(ended)
			})
			synctest.Wait()
			select {
			case <-ended:
				return err
			default:
				return nil // in progress
			}
		}
		for i, tt := range []struct {
			addr string
			busy bool
		}{
			{"198.51.100.7:1000", false},
			{"198.51.100.7:1001", false},
			{"198.51.100.7:1002", true}, // two of one source
			{"198.51.100.7:1003", true},
			{"198.51.100.8:1000", false},
			{"198.51.100.9:1000", false},
			{"198.51.100.10:1000", true}, // four in all
		} {
			if err := try(tt.addr); errors.Is(err, ErrBusy) != tt.busy {
				t.Errorf("connection %d from %s: %v, want busy %v", i, tt.addr, err, tt.busy)
			}
		}
		if s := p.Stats(); s != (Stats{Handshaking: 4, Refused: 3}) {
			t.Errorf("Stats = %+v", s)
		}
		if n := strings.Count(l.String(), "725025"); n != 1 {
			t.Errorf("the limit was logged %d times, want once", n)
		}
		for _, c := range far {
			c.Close()
		}
		open.Wait()
		if s := p.Stats(); s != (Stats{Failed: 4, Refused: 3}) || len(p.source) != 0 {
			t.Errorf("at the end Stats = %+v, sources %v", s, p.source)
		}
	})
}

func TestNew(t *testing.T) {
	good := Config{Certificate: theWorld().server, Anchors: anchors, Now: time.Now}
	tests := []struct {
		name string
		edit func(*Config)
		want string // suites in order, or "" for an error
		log  string
	}{
		{"default", func(c *Config) {}, "ECDHE-RSA-AES128-GCM-SHA256 ECDHE-RSA-AES256-GCM-SHA384 ECDHE-RSA-CHACHA20-POLY1305 ECDHE-RSA-AES128-SHA ECDHE-RSA-AES256-SHA AES128-GCM-SHA256 AES256-GCM-SHA384 AES128-SHA AES256-SHA", ""},
		{"null-sha1 is left out", func(c *Config) { c.CipherWords = []string{"aes128-sha1", "null-sha1"} }, "AES128-SHA", "null-sha1 is left out"},
		{"OpenSSL's names", func(c *Config) { c.CipherWords = []string{"ecdhe-rsa-aes256-sha", "AES128-SHA", "aes128-sha1"} }, "ECDHE-RSA-AES256-SHA AES128-SHA", ""},
		{"null-sha1 alone", func(c *Config) { c.CipherWords = []string{"null-sha1"} }, "", "not supported by this version"},
		{"unknown word", func(c *Config) { c.CipherWords = []string{"aes128-sha1", "foo"} }, "", ""},
		{"empty word", func(c *Config) { c.CipherWords = []string{""} }, "", ""},
		{"no certificate", func(c *Config) { c.Certificate = nil }, "", ""},
		{"no anchors", func(c *Config) { c.Anchors = nil }, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := &logged{}
			c := good
			c.Log = slog.New(slog.NewTextHandler(l, nil))
			tt.edit(&c)
			p, err := New(c)
			if (err == nil) != (tt.want != "") {
				t.Fatalf("New: %v, want %q", err, tt.want)
			}
			if !strings.Contains(l.String(), tt.log) || tt.log == "" && l.String() != "" {
				t.Errorf("log %q, want %q", l, tt.log)
			}
			if err != nil {
				return
			}
			var names []string
			for _, s := range p.suites {
				names = append(names, s.name)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("suites %s, want %s", got, tt.want)
			}
		})
	}
}

// TestNoKeyInLog: neither side's key, nor the master secret, is in the log.
func TestNoKeyInLog(t *testing.T) {
	p, l := newProxy(t, Config{})
	if _, err := serve(t, p, goClient(t, theWorld().mic, only(tls.VersionTLS12))); err != nil {
		t.Fatal(err)
	}
	key := theWorld().server.Key.(*rsa.PrivateKey)
	for _, secret := range []string{key.D.String(), key.D.Text(16), fmt.Sprint(key.Primes[0])} {
		if strings.Contains(l.String(), secret[:16]) {
			t.Error("a key is in the log")
		}
	}
}

// FuzzHandshake feeds a client's bytes to the handshake.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 0, 0, 2, 0, 0x2f, 1, 0})
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	p, _ := newProxy(f, Config{HandshakeTimeout: 5 * time.Second})
	f.Fuzz(func(t *testing.T, data []byte) {
		phone, box := net.Pipe()
		go func() {
			go io.Copy(io.Discard, phone)
			phone.Write(data)
			phone.Close()
		}()
		if got, err := p.Handshake(t.Context(), box); err == nil {
			t.Errorf("%x became %v", data, got.Device)
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	p, _ := newProxy(b, Config{})
	p.c.Log = slog.New(slog.DiscardHandler)
	c := theWorld().mic
	for b.Loop() {
		phone, box := net.Pipe()
		go func() {
			cfg := only(tls.VersionTLS10, tls.TLS_RSA_WITH_AES_128_CBC_SHA)
			cfg.InsecureSkipVerify = true
			cfg.Certificates = []tls.Certificate{*c.tls()}
			tls.Client(phone, cfg).Handshake()
		}()
		if _, err := p.Handshake(b.Context(), box); err != nil {
			b.Fatal(err)
		}
		box.Close()
		phone.Close()
	}
}
