package phoneproxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patchbay/appliance/lab"
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/appliance/pki"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack/host"
)

const (
	deviceA = "SEP0200C6336407"
	deviceB = "SEP0200C6336408"
)

// identities are the certificates of these tests, made once: keys take time.
var identities = sync.OnceValues(func() (map[string]*lab.Identity, *lab.CA) {
	ca, err := lab.NewCA(lab.CAName, 1024, x509.SHA1WithRSA, nil, nil)
	if err != nil {
		panic(err)
	}
	ids := make(map[string]*lab.Identity)
	for _, device := range []string{deviceA, deviceB} {
		if ids[device], err = ca.IssueMIC(strings.TrimPrefix(device, "SEP"), "7962G", 1024); err != nil {
			panic(err)
		}
	}
	return ids, ca
})

// A lineEngine speaks lines: "name SEP..." registers, "media N" announces a
// stream, anything passes on.
type lineEngine struct{}

func (lineEngine) Split(data []byte, atEOF bool) (int, []byte, error) {
	n, line, err := bufio.ScanLines(data, atEOF)
	if line != nil {
		line = data[:n]
	}
	return n, line, err
}

func (lineEngine) NewSession(b inspect.Binder) inspect.Session { return &lineSession{b} }

type lineSession struct{ b inspect.Binder }

func (s *lineSession) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(string(msg)), " ")
	switch word {
	case "name":
		if err := s.b.Seen(rest); err != nil {
			return dst, err
		}
	case "media":
		m := inspect.Media{Call: "1", Stream: rest, Addr: netip.MustParseAddrPort("10.20.0.50:18000")}
		if _, err := s.b.Media(m, nat.Server); err != nil {
			return dst, err
		}
	}
	return append(dst, msg...), nil
}

func (*lineSession) Close() {}

// A bench is a Proxy between loopback sockets.
type bench struct {
	t      *testing.T
	proxy  *phoneproxy.Proxy
	phones *phoneproxy.Phones
	relay  *media.Relay
	log    *syncBuffer
	ucm    net.Listener
	front  net.Listener

	mu     sync.Mutex
	dialed []netip.AddrPort // from where the UCM was dialled
	inUse  bool             // the phone's own port is taken
	dead   bool             // the UCM does not answer
	clock  time.Time
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// DialTCP dials the UCM of the bench from wherever the kernel likes, and notes
// from where it was asked to.
func (b *bench) DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error) {
	b.mu.Lock()
	b.dialed = append(b.dialed, laddr)
	inUse, dead := b.inUse, b.dead
	b.mu.Unlock()
	switch {
	case dead:
		return nil, errors.New("no route to host")
	case inUse && laddr.Port() != 0:
		return nil, fmt.Errorf("dial: %w", host.ErrInUse)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", b.ucm.Addr().String())
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clock
}

func (b *bench) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func newBench(t *testing.T, edit func(*phoneproxy.Config, *tlsproxy.Config)) *bench {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) })
	b := &bench{t: t, phones: &phoneproxy.Phones{}, log: &syncBuffer{}, clock: time.Now()}
	listen := func() net.Listener {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	b.ucm, b.front = listen(), listen()
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	server, err := store.Enroll(pki.EnrollRequest{Name: "server", Subject: "CN=server", Bits: 1024, Now: b.clock})
	if err != nil {
		t.Fatal(err)
	}
	_, ca := identities()
	if _, err := store.Authenticate("phone_ca", ca.Cert.Raw); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	table, err := nat.NewTable(nat.TableConfig{Rand: rand.NewChaCha8([32]byte{1})})
	if err != nil {
		t.Fatal(err)
	}
	b.relay = media.New(media.Config{Pinholes: table, Rand: rand.NewChaCha8([32]byte{2})})
	tc := tlsproxy.Config{Certificate: server, Anchors: store.Anchors, Now: b.now, Log: log}
	pc := phoneproxy.Config{
		Name: "home", Phones: b.phones, Relay: b.relay, Dial: b,
		Rand: rand.NewChaCha8([32]byte{3}), Now: b.now, Log: log, Readmit: true,
	}
	if edit != nil {
		edit(&pc, &tc)
	}
	if pc.TLS, err = tlsproxy.New(tc); err != nil {
		t.Fatal(err)
	}
	b.proxy = phoneproxy.New(pc)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := b.front.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				b.proxy.Serve(ctx, c, phoneproxy.Service{Name: "skinny", Engine: lineEngine{}, Offset: 443}, phoneproxy.Where{
					Interface: "outside", Global: netip.MustParseAddrPort("203.0.113.10:2443"),
					UCM:     netip.MustParseAddrPort("10.20.0.11:2000"),
					Outside: media.Side{Addr: netip.MustParseAddr("203.0.113.20"), Secure: true},
					Inside:  media.Side{Addr: netip.MustParseAddr("10.20.0.20")},
				})
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		b.front.Close()
		b.ucm.Close()
		wg.Wait()
		if n := len(b.proxy.Sessions()) + len(b.relay.Sessions()) + table.Pinholes(); n != 0 {
			t.Errorf("%d sessions, media sessions and pinholes are left", n)
		}
	})
	return b
}

// A line is one end of a conversation.
type line struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func newLine(t *testing.T, c net.Conn) *line {
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &line{t, c, bufio.NewReader(c)}
}

func (l *line) say(s string) {
	l.t.Helper()
	if _, err := io.WriteString(l, s+"\n"); err != nil {
		l.t.Errorf("saying %q: %v", s, err)
	}
}

func (l *line) hear(want string) {
	l.t.Helper()
	if got, err := l.r.ReadString('\n'); got != want+"\n" {
		l.t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// ended waits for the end of the connection.
func (l *line) ended() {
	l.t.Helper()
	var timeout net.Error
	if b, err := io.ReadAll(l.r); errors.As(err, &timeout) && timeout.Timeout() {
		l.t.Errorf("the connection is still open, after %q", b)
	}
}

// dial has the phone connect; it returns an error where the handshake fails.
func (b *bench) dial(device string) (*line, error) {
	b.t.Helper()
	ids, _ := identities()
	id := ids[device]
	raw, err := net.Dial("tcp4", b.front.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{id.Cert.Raw}, PrivateKey: id.Key}},
	})
	l := newLine(b.t, c)
	return l, c.Handshake()
}

// phone has the phone connect and register, and returns both ends.
func (b *bench) phone(device string) (phone, ucm *line) {
	b.t.Helper()
	phone, err := b.dial(device)
	if err != nil {
		b.t.Fatal(err)
	}
	phone.say("name " + device)
	ucm = b.accept()
	ucm.hear("name " + device)
	ucm.say("welcome")
	phone.hear("welcome")
	return phone, ucm
}

func (b *bench) accept() *line {
	b.t.Helper()
	b.ucm.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	c, err := b.ucm.Accept()
	if err != nil {
		b.t.Fatalf("the UCM: %v", err)
	}
	return newLine(b.t, c)
}

// eventually waits for something that follows without a sign.
func (b *bench) eventually(what string, f func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s; log:\n%s", what, b.log)
		}
	}
}

func TestAdmission(t *testing.T) {
	at := netip.MustParseAddrPort("198.51.100.7:49152")
	tests := []struct {
		name    string
		readmit bool
		note    time.Duration // how long ago the phone fetched its CTL file; 0: never
		admit   bool
	}{
		{"entered", false, time.Minute, true},
		{"never seen", false, 0, false},
		{"timed out", false, time.Hour, false},
		{"never seen, readmitted", true, 0, true},
		{"timed out, readmitted", true, time.Hour, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, func(c *phoneproxy.Config, _ *tlsproxy.Config) { c.Readmit = tt.readmit })
			if tt.note != 0 {
				if err := b.phones.Note(deviceA, at, "outside", b.clock.Add(-tt.note)); err != nil {
					t.Fatal(err)
				}
			}
			if !tt.admit {
				phone, err := b.dial(deviceA)
				if err != nil {
					t.Fatal(err)
				}
				phone.ended()
				if len(b.dialed) != 0 || !strings.Contains(b.log.String(), "no secure-phone entry") {
					t.Errorf("dialled %v; log:\n%s", b.dialed, b.log)
				}
				return
			}
			phone, ucm := b.phone(deviceA)
			p, ok := b.phones.Lookup(deviceA, b.now())
			if !ok || !p.Authenticated || p.Iface != "outside" || p.Addr.Addr() != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("entry %+v, %v", p, ok)
			}
			// Signaling keeps the entry.
			b.set(func() { b.clock = b.clock.Add(4 * time.Minute) })
			phone.say("name")
			ucm.hear("name")
			b.set(func() { b.clock = b.clock.Add(4 * time.Minute) })
			if _, ok := b.phones.Lookup(deviceA, b.now()); !ok {
				t.Error("a phone that is alive was forgotten")
			}
		})
	}
}

// A phone that registers under a name that is not its certificate's is cut off
// before the UCM hears of it.
func TestNameMismatch(t *testing.T) {
	for _, name := range []string{deviceB, "SEP000000000000", deviceA + "0", strings.Repeat("x", 60000), "\x1b[31m\r\nlevel=ERROR"} {
		b := newBench(t, nil)
		phone, err := b.dial(deviceA)
		if err != nil {
			t.Fatal(err)
		}
		ucm := b.accept()
		phone.say("name " + strings.ReplaceAll(name, "\n", ""))
		if got, err := io.ReadAll(ucm.r); len(got) != 0 {
			t.Errorf("the UCM heard %.60q, %v", got, err)
		}
		phone.ended()
		b.eventually("the session is listed still", func() bool { return len(b.proxy.Sessions()) == 0 })
		b.eventually("no reason was logged", func() bool { return strings.Contains(b.log.String(), "not the certificate's") })
		for l := range strings.Lines(b.log.String()) {
			if len(l) > 2000 || strings.ContainsAny(l, "\x1b\r") {
				t.Errorf("log line of %d bytes: %.200q", len(l), l)
			}
		}
	}
	b := newBench(t, nil)
	phone, err := b.dial(deviceA)
	if err != nil {
		t.Fatal(err)
	}
	phone.say("name " + strings.ToLower(deviceA)) // case is not a name
	b.accept().hear("name " + strings.ToLower(deviceA))
}

func TestUCMDoesNotAnswer(t *testing.T) {
	b := newBench(t, nil)
	b.dead = true
	phone, err := b.dial(deviceA)
	if err != nil {
		t.Fatal(err)
	}
	phone.ended()
	b.eventually("nothing was logged", func() bool {
		s := b.log.String()
		return strings.Contains(s, "call manager does not answer") && strings.Contains(s, "10.20.0.11:2000") && strings.Contains(s, deviceA)
	})
}

// The UCM sees the phone's address and port, but for a port that an old
// connection holds.
func TestDialFromPhone(t *testing.T) {
	b := newBench(t, nil)
	phone, _ := b.phone(deviceA)
	from := netip.MustParseAddrPort(phone.LocalAddr().String())
	if !slices.Equal(b.dialed, []netip.AddrPort{from}) {
		t.Errorf("dialled from %v, want %v", b.dialed, from)
	}
	b.set(func() { b.inUse, b.dialed = true, nil })
	phone, _ = b.phone(deviceB)
	from = netip.MustParseAddrPort(phone.LocalAddr().String())
	if want := []netip.AddrPort{from, netip.AddrPortFrom(from.Addr(), 0)}; !slices.Equal(b.dialed, want) {
		t.Errorf("dialled from %v, want %v", b.dialed, want)
	}
}

func TestSessions(t *testing.T) {
	b := newBench(t, nil)
	a, ucmA := b.phone(deviceA)
	b.phone(deviceB)
	all := b.proxy.Sessions()
	slices.SortFunc(all, func(x, y phoneproxy.Session) int { return strings.Compare(x.Device, y.Device) })
	if len(all) != 2 || all[0].Device != deviceA || all[1].Device != deviceB {
		t.Fatalf("sessions %+v", all)
	}
	s := all[0]
	if s.Service != "skinny" || s.Phone.String() != a.LocalAddr().String() || s.AsUCM.String() != ucmA.RemoteAddr().String() ||
		s.UCM != netip.MustParseAddrPort("10.20.0.11:2000") || s.Cipher == "" || s.Since.IsZero() || s.ID == all[1].ID {
		t.Errorf("session %+v", s)
	}
	a.Close()
	b.eventually("a session that ended is listed", func() bool { return len(b.proxy.Sessions()) == 1 })
}

// Whichever end goes, the other is closed and the media with it.
func TestBothSidesClose(t *testing.T) {
	for _, who := range []string{"phone", "ucm"} {
		t.Run(who, func(t *testing.T) {
			b := newBench(t, nil)
			phone, ucm := b.phone(deviceA)
			ucm.say("media 1")
			phone.hear("media 1")
			if n := len(b.relay.Sessions()); n != 1 {
				t.Fatalf("%d media sessions", n)
			}
			if who == "phone" {
				phone.Close()
				ucm.ended()
			} else {
				ucm.Close()
				phone.ended()
			}
			b.eventually("media is left", func() bool { return len(b.relay.Sessions()) == 0 && len(b.proxy.Sessions()) == 0 })
		})
	}
}

func TestMaxSessions(t *testing.T) {
	b := newBench(t, func(c *phoneproxy.Config, _ *tlsproxy.Config) { c.MaxSessions = 1 })
	// Who has not shown a certificate holds none of the sessions.
	for range 3 {
		c, err := net.Dial("tcp4", b.front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	b.eventually("strangers are not shaking hands", func() bool { return strings.Count(b.log.String(), "Starting SSL handshake") == 3 })
	phone, _ := b.phone(deviceA)

	second, err := b.dial(deviceB)
	if err == nil {
		second.ended()
	}
	b.eventually("no limit was logged", func() bool { return strings.Contains(b.log.String(), "limit") })
	if all := b.proxy.Sessions(); len(all) != 1 || all[0].Device != deviceA {
		t.Errorf("sessions %+v", all)
	}
	phone.Close()
	b.eventually("the session is there still", func() bool { return len(b.proxy.Sessions()) == 0 })
	b.phone(deviceB)
}

// One phone, or whoever has its key, cannot take all sessions.
func TestMaxPerDevice(t *testing.T) {
	b := newBench(t, nil)
	for range phoneproxy.MaxPerDevice {
		b.phone(deviceA)
	}
	one, err := b.dial(deviceA)
	if err == nil {
		one.ended()
	}
	if n := len(b.proxy.Sessions()); n != phoneproxy.MaxPerDevice {
		t.Errorf("%d sessions of one phone, want %d", n, phoneproxy.MaxPerDevice)
	}
	b.phone(deviceB)
}
