package logging

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// sending is Settings with one host.
func sending(h Host) Settings {
	return Settings{Enable: true, Trap: AtLevel(6), Hosts: []Host{h}}
}

// A server is a syslog server over TCP or TLS; it gives what it got, line by
// line.
type server struct {
	ln    net.Listener
	lines chan string
	conns chan net.Conn
}

// listen takes port, or any if that is 0.
func listen(t *testing.T, port uint16, cfg *tls.Config) *server {
	t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	s := &server{ln, make(chan string, 10000), make(chan net.Conn, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns <- c
			go func() {
				r := bufio.NewReader(c)
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					s.lines <- strings.TrimSuffix(line, "\n")
				}
			}()
		}
	}()
	t.Cleanup(func() { s.close(); <-done })
	return s
}

func (s *server) port() uint16 { return uint16(s.ln.Addr().(*net.TCPAddr).Port) }

// close ends the server and its connections.
func (s *server) close() {
	s.ln.Close()
	for {
		select {
		case c := <-s.conns:
			c.Close()
		default:
			return
		}
	}
}

// next returns the next line.
func (s *server) next(t *testing.T) string {
	t.Helper()
	select {
	case line := <-s.lines:
		return line
	case <-time.After(10 * time.Second):
		t.Fatal("the server gets nothing")
		return ""
	}
}

// eventually waits for ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestUDP(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(pc.LocalAddr().(*net.UDPAddr).Port)
	l := newLog(t, Config{Dial: dialLoopback, Retry: time.Millisecond}, sending(Host{"inside", loopback, UDP, port, false, netip.Addr{}}))
	l.Message(302013, 6, "before") // it waits
	l.Start()
	read := func() string {
		t.Helper()
		b := make([]byte, 2000)
		pc.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, _, err := pc.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := read(); got != "<166>%ASA-6-302013: before" {
		t.Errorf("got %q", got)
	}
	// Nobody listens for a while: messages are lost, and then they come again.
	pc.Close()
	eventually(t, "no error is noticed", func() bool {
		l.Message(302013, 6, "lost")
		return l.Status().Hosts[0].Errors > 0
	})
	if l.HostDown() {
		t.Error("a UDP host counts as down")
	}
	if pc, err = net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Skipf("the port is taken: %v", err)
	}
	defer pc.Close()
	l.Message(302013, 6, "back")
	for range 1000 {
		if read() == "<166>%ASA-6-302013: back" {
			return
		}
	}
	t.Error("it does not come back")
}

// A TCP host that goes gets what was logged meanwhile when it is back, up to
// what the queue has room for; that it was gone is logged once.
func TestTCPDownAndBack(t *testing.T) {
	s := listen(t, 0, nil)
	port := s.port()
	set := sending(Host{"inside", loopback, TCP, port, false, netip.Addr{}})
	set.Buffered, set.Queue = AtLevel(6), 20
	l := newLog(t, Config{Dial: dialLoopback, Retry: time.Millisecond}, set)
	l.Start()
	l.Message(302013, 6, "one")
	if got := s.next(t); got != "<166>%ASA-6-302013: one" {
		t.Errorf("got %q", got)
	}
	if st := l.Status().Hosts[0]; !st.Up || l.HostDown() {
		t.Errorf("%+v", st)
	}
	s.close()
	eventually(t, "it is not noticed that the host went", l.HostDown)
	set.PermitHostDown = true
	l.Configure(set, Names{})
	if l.HostDown() {
		t.Error("permit-hostdown is not obeyed")
	}
	set.PermitHostDown = false
	l.Configure(set, Names{})
	if !l.HostDown() {
		t.Error("after a new configuration the host counts as up")
	}
	for i := range 50 {
		l.Message(302013, 6, fmt.Sprintf("down %d", i))
	}
	st := l.Status().Hosts[0]
	if st.Waiting != 20 || st.Dropped != 31 || st.Most != 20 || st.Error == "" { // one is the message that it is down
		t.Errorf("%+v", st)
	}
	s = listen(t, port, nil)
	if got := s.next(t); got != fmt.Sprintf("<163>%%ASA-3-414003: TCP Syslog Server inside: 127.0.0.1/%d not responding. New connections are denied based on logging permit-hostdown policy.", port) {
		t.Errorf("got %q", got)
	}
	for i := range 19 {
		if got, want := s.next(t), fmt.Sprintf("<166>%%ASA-6-302013: down %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	eventually(t, "the host still counts as down", func() bool { return !l.HostDown() })
	if got := strings.Join(l.Lines(), "\n"); strings.Count(got, "414003") != 1 || strings.Count(got, "414004: TCP Syslog Server inside: 127.0.0.1/") != 1 {
		t.Errorf("logged: %s", got)
	}
}

// Whoever logs does not wait for a host that takes nothing.
func TestSlowHost(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := newLog(t, Config{Dial: func(context.Context, Host) (net.Conn, error) { return here, nil }}, sending(Host{"inside", loopback, TCP, 1470, false, netip.Addr{}}))
	l.Start()
	began := time.Now()
	for range 2000 {
		l.Message(302013, 6, "x")
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("2000 messages took %v", d)
	}
	if st := l.Status().Hosts[0]; st.Dropped < 2000-DefaultQueue-1 {
		t.Errorf("%+v", st)
	}
	began = time.Now()
	l.Close()
	if d := time.Since(began); d > 3*lastWords {
		t.Errorf("Close took %v", d)
	}
}

// What waits is sent before the log ends.
func TestLastWords(t *testing.T) {
	s := listen(t, 0, nil)
	l := newLog(t, Config{Dial: dialLoopback}, sending(Host{"inside", loopback, TCP, s.port(), false, netip.Addr{}}))
	l.Start()
	l.Message(302013, 6, "first")
	s.next(t)
	for i := range 200 {
		l.Message(302013, 6, fmt.Sprint(i))
	}
	l.Stop()
	for i := range 200 {
		if got, want := s.next(t), fmt.Sprintf("<166>%%ASA-6-302013: %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// Hosts come and go with the configuration.
func TestReconfigure(t *testing.T) {
	a, b := listen(t, 0, nil), listen(t, 0, nil)
	ha, hb := Host{"inside", loopback, TCP, a.port(), false, netip.Addr{}}, Host{"inside", loopback, TCP, b.port(), true, netip.Addr{}}
	set := sending(ha)
	l := newLog(t, Config{Dial: dialLoopback}, set)
	l.Start()
	l.Message(302013, 6, "1")
	a.next(t)
	set.Hosts = []Host{ha, hb}
	l.Configure(set, Names{Host: "pb"})
	l.Message(302013, 6, "2")
	a.next(t)
	eventually(t, "the new host gets nothing", func() bool { return l.Status().Hosts[1].Sent == 1 })
	set.Hosts = []Host{hb}
	l.Configure(set, Names{})
	l.Message(302013, 6, "3")
	eventually(t, "the host that stays gets nothing", func() bool { return l.Status().Hosts[0].Sent == 2 })
	if n := len(a.lines); n != 0 {
		t.Errorf("the host that went got %d messages", n)
	}
	if !l.IsHost(netip.AddrPortFrom(loopback, hb.Port), true) || l.IsHost(netip.AddrPortFrom(loopback, hb.Port), false) || l.IsHost(netip.AddrPortFrom(loopback, ha.Port), true) {
		t.Error("IsHost")
	}
	set.Enable = false
	l.Configure(set, Names{})
	if n := len(l.Status().Hosts); n != 0 {
		t.Errorf("without logging enable there are %d hosts", n)
	}
}

// testCert makes a certificate for 127.0.0.1, or for name.
func testCert(t *testing.T, name string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "syslog"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	if name == "" {
		tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, cert
}

// Over TLS the host must show a certificate for its address that is trusted.
func TestTLS(t *testing.T) {
	good, root := testCert(t, "")
	stranger, _ := testCert(t, "")
	phone, phoneRoot := testCert(t, "SEP001122334455")
	trust := func() *tls.Config {
		pool := x509.NewCertPool()
		pool.AddCert(root)
		pool.AddCert(phoneRoot)
		return &tls.Config{RootCAs: pool, Time: at}
	}
	tests := []struct {
		name  string
		cert  tls.Certificate
		trust TLSConfig
		err   string
	}{
		{"trusted", good, trust, ""},
		{"stranger", stranger, trust, "unknown authority"},
		{"a phone's", phone, trust, "doesn't contain any IP SANs"},
		{"expired", good, func() *tls.Config {
			c := trust()
			c.Time = func() time.Time { return noon.Add(2 * time.Hour) }
			return c
		}, "expired"},
		{"no trust", good, nil, errNoTrust.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := listen(t, 0, &tls.Config{Certificates: []tls.Certificate{tt.cert}})
			set := sending(Host{"inside", loopback, TLS, s.port(), false, netip.Addr{}})
			l := newLog(t, Config{Dial: dialLoopback, TLS: tt.trust, Retry: time.Hour}, set)
			l.Start()
			l.Message(302013, 6, "secret")
			if tt.err == "" {
				if got := s.next(t); got != "<166>%ASA-6-302013: secret" {
					t.Errorf("got %q", got)
				}
				return
			}
			eventually(t, "it is not noticed", func() bool { return strings.Contains(l.Status().Hosts[0].Error, tt.err) })
			if len(s.lines) != 0 {
				t.Errorf("a host that is not trusted gets %q", <-s.lines)
			}
		})
	}
}

// RFC 6587 framing by length is read back by its own rules.
func TestOctetCounting(t *testing.T) {
	here, there := net.Pipe()
	dials := 0
	l := newLog(t, Config{Dial: func(context.Context, Host) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, errors.New("one is enough")
		}
		return here, nil
	}}, sending(Host{"inside", loopback, TCP, 1470, true, netip.Addr{}}))
	l.Start()
	l.Message(302013, 6, "one")
	l.Message(302013, 6, "two two")
	r := bufio.NewReader(there)
	for _, want := range []string{"one", "two two"} {
		var n int
		if _, err := fmt.Fscanf(r, "%d ", &n); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		if got := "<166>1 2026-11-07T12:00:05.678000Z pb patchbay - 302013 - %ASA-6-302013: " + want; string(b) != got {
			t.Errorf("got %q, want %q", b, got)
		}
	}
	there.Close()
}
