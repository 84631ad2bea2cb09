//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"patchbay/appliance/lab"
)

const (
	// reassembly is how long half a message may wait, in this configuration.
	reassembly = 10 * time.Second
	// handshake is how long a TLS handshake may take.
	handshake = 30 * time.Second
	// maxHandshakes is how many handshakes one address may have in progress.
	maxHandshakes = 32
	// maxMemory bounds what the box may have resident after all of it, in MB.
	// The race detector needs several times as much.
	maxMemory, maxMemoryRace = 200, 1000
	garbage                  = 20_000 // frames
)

// TestBadInput has broken and hostile peers around a call that must go on. Each
// costs the box a bounded amount and ends alone.
func TestBadInput(t *testing.T) {
	t.Parallel() // it mostly waits
	n := newTestNet(t, overPacket)
	ca := newCA(t)
	b := n.start(t, startOptions{flash: newFlash(t, ca), level: "info",
		config: demoWith(t, "timeout tcp-proxy-reassembly 0:01:00", "timeout tcp-proxy-reassembly 0:00:10")})
	l := n.newLab(t, lab.Options{CA: ca})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	remote, desk := l.Phone(lab.Remote, lab.SCCP), l.Phone(lab.Inside, lab.SCCP)
	for _, p := range []*lab.Phone{remote, desk} {
		must(t, p.Boot(ctx))
		must(t, p.Register(ctx))
	}
	must(t, remote.Dial(ctx, desk.Line()))
	must(t, desk.Wait(ctx, lab.Connected))
	before := b.rss(t)
	reportA, reportB := remote.Report(), desk.Report()

	id, err := ca.IssueMIC("001122334455", "7962G", 2048)
	must(t, err)
	k := &badPeers{n: n, ctx: ctx, id: id,
		phone: n.host(t, n.out, netip.MustParseAddr("198.51.100.9")),
		flood: n.host(t, n.out, netip.MustParseAddr("198.51.100.10"))}
	var wg sync.WaitGroup
	for name, f := range map[string]func() error{
		"half a Skinny message":              func() error { return k.half(2443, lab.LyingSCCP(0x0001, 100, 96)) },
		"half a SIP message":                 func() error { return k.half(5061, lab.LyingSIP(100, 100)) },
		"a SIP body that does not come":      func() error { return k.half(5061, lab.LyingSIP(60_000, 1000)) },
		"10 MB without a message end, SIP":   func() error { return k.endless(5061, lab.EndlessSIP()) },
		"10 MB in one Skinny message":        func() error { return k.endless(2443, lab.LyingSCCP(0x0001, 10<<20, 0)) },
		"a Skinny message of 4 GB":           func() error { return k.endless(2443, lab.LyingSCCP(0x0001, 0xffff_ffff, 0)) },
		"a Content-Length of 10 MB":          func() error { return k.endless(5061, lab.LyingSIP(10<<20, 0)) },
		"a Content-Length that overflows":    func() error { return k.endless(5061, []byte(longLength)) },
		"a Content-Length below zero":        func() error { return k.endless(5061, lab.LyingSIP(-1, 0)) },
		"more body than Content-Length says": func() error { return k.endless(5061, lab.LyingSIP(10, 100_000)) },
		"no TLS at all":                      func() error { return k.plain(2443) },
		"a handshake that does not begin":    func() error { return k.stalled(2443, 0) },
		"a ClientHello that does not end":    func() error { return k.stalled(2443, 30) },
		"a handshake that does not end":      func() error { return k.stalled(5061, 1000) },
		"a flood of connections":             k.connections,
		"garbage":                            func() error { return k.garbage(t) },
	} {
		wg.Go(func() {
			start := time.Now()
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %v", name, time.Since(start).Round(time.Millisecond))
		})
	}
	// Beside all that a phone boots and registers.
	sip := l.Phone(lab.Remote, lab.SIP)
	if err := errors.Join(sip.Boot(ctx), sip.Register(ctx)); err != nil {
		t.Errorf("another phone: %v", err)
	}
	wg.Wait()

	if !n.ping(t, n.out, phoneAddr, boxAddr, 56, patience) {
		t.Error("the box does not answer ping any more")
	}
	for _, p := range []struct {
		*lab.Phone
		far   *lab.Phone
		since lab.Report
	}{{remote, desk, reportA}, {desk, remote, reportB}} {
		if s := p.State(); s != lab.Connected {
			t.Errorf("%s is %v, want connected", p.Name(), s)
		}
		r := p.Report().Since(p.since)
		if r.Heard() != p.far.Tone() || r.Lost > r.Received/10 {
			t.Errorf("%s heard %d Hz, want %d; received %d, lost %d", p.Name(), r.Heard(), p.far.Tone(), r.Received, r.Lost)
		}
	}
	must(t, remote.HangUp(ctx))
	for _, want := range []string{
		"waited 10s for the rest of their message", "context deadline exceeded", "limit reached, refused",
		"first record does not look like a TLS handshake",
	} {
		b.await(t, want)
	}
	limit := maxMemory
	if withRace() {
		limit = maxMemoryRace
	}
	after := b.rss(t)
	t.Logf("resident: %d MB before, %d MB after", before, after)
	if after > limit {
		t.Errorf("the box has %d MB resident, want at most %d", after, limit)
	}
}

// longLength is a request whose length no integer holds.
const longLength = "OPTIONS sip:203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/TLS 198.51.100.9;branch=z9hG4bK1\r\n" +
	"From: <sip:x@198.51.100.9>;tag=1\r\nTo: <sip:y@203.0.113.10>\r\nCall-ID: long\r\nCSeq: 1 OPTIONS\r\n" +
	"Content-Length: 18446744073709551617\r\n\r\n"

// badPeers are a phone with a good certificate and bad manners, and a host
// without one.
type badPeers struct {
	n            *testNet
	ctx          context.Context
	id           *lab.Identity
	phone, flood *lab.KernelHost
}

// dial connects the phone to a secure port.
func (k *badPeers) dial(port uint16) lab.Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := k.phone.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(ucmMapped, port))
		if err != nil {
			return nil, err
		}
		t := tls.Client(c, &tls.Config{
			InsecureSkipVerify: true, // whom the phone trusts is another test's
			Certificates:       []tls.Certificate{{Certificate: [][]byte{k.id.Cert.Raw}, PrivateKey: k.id.Key}},
		})
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		return t, nil
	}
}

// ended waits until the box has closed c, and says if that is not within limit
// and a little.
func ended(c net.Conn, limit time.Duration) error {
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(limit + 5*time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the box left the connection open for more than %v", limit)
	}
	return nil // closed, in whatever way
}

// half sends half a message.
func (k *badPeers) half(port uint16, msg []byte) error {
	c, err := lab.SendHalf(k.ctx, k.dial(port), msg)
	if err != nil {
		return err
	}
	return ended(c, reassembly)
}

// endless sends 10 MB that never are a message.
func (k *badPeers) endless(port uint16, begin []byte) error {
	const total = 10 << 20
	sent, err := lab.SendEndless(k.ctx, k.dial(port), begin, 'x', total)
	if err == nil || k.ctx.Err() != nil || sent == 0 {
		return fmt.Errorf("the box took %d of %d bytes, %v", sent, total, err)
	}
	return nil
}

// plain speaks Skinny where TLS is spoken.
func (k *badPeers) plain(port uint16) error {
	c, err := k.phone.DialTCP(k.ctx, netip.AddrPort{}, netip.AddrPortFrom(ucmMapped, port))
	if err != nil {
		return err
	}
	if _, err := c.Write(sccpKeepAlive); err != nil {
		return err
	}
	return ended(c, time.Second)
}

// stalled sends some bytes of a handshake.
func (k *badPeers) stalled(port uint16, bytes int) error {
	c, err := lab.StalledTLS(k.ctx, k.phone, netip.AddrPortFrom(ucmMapped, port), bytes)
	if err != nil {
		return err
	}
	return ended(c, handshake)
}

// connections opens many that stay silent. Those over the limit for one
// address end at once, the others like any handshake that does not begin.
func (k *badPeers) connections() error {
	const many = 200
	conns := lab.Flood(k.ctx, k.flood, netip.AddrPortFrom(ucmMapped, 2443), many)
	early := make(chan error, many)
	start := time.Now()
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			if err := ended(c, handshake); err != nil || time.Since(start) < handshake/2 {
				early <- err
			}
		})
	}
	wg.Wait()
	close(early)
	refused := 0
	for err := range early {
		if err != nil {
			return err
		}
		refused++
	}
	if len(conns) != many || refused != many-maxHandshakes {
		return fmt.Errorf("of %d connections %d ended at once, want %d of %d", len(conns), refused, many-maxHandshakes, many)
	}
	return nil
}

// garbage sends frames of all kinds of nonsense to the box, as nobody it knows.
func (k *badPeers) garbage(t testing.TB) error {
	mac, own := k.n.address(t, k.n.box, "pbout"), k.n.address(t, k.n.out, "pbout")
	fd, index := -1, 0
	k.n.within(t, k.n.out, func() error {
		i, err := net.InterfaceByName("pbout")
		if err != nil {
			return err
		}
		index = i.Index
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	defer unix.Close(fd)
	r := rand.New(rand.NewPCG(1, 2))
	to := &unix.SockaddrLinklayer{Ifindex: index}
	sent := 0
	for i := range garbage {
		f := append(append(append([]byte(nil), mac...), own...), 0x08, 0x00)
		switch r.IntN(20) {
		case 0: // no IP at all
			binary.BigEndian.PutUint16(f[12:], uint16(r.Uint32()))
			f = append(f, noise(r, r.IntN(200))...)
		case 1:
			copy(f[12:], "\x08\x06") // ARP
			f = append(f, noise(r, r.IntN(60))...)
		case 2:
			f = append(f, noise(r, r.IntN(1500))...)
		default:
			f = append(f, badPacket(r)...)
		}
		switch err := unix.Sendto(fd, f, 0, to); {
		case err == nil:
			sent++
		case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINVAL): // too fast, too short
			return fmt.Errorf("frame %d: %w", i, err)
		}
		if i%100 == 99 {
			time.Sleep(5 * time.Millisecond) // not to fill the ring, which would protect the box
		}
	}
	if sent < garbage*9/10 {
		return fmt.Errorf("only %d of %d frames could be sent", sent, garbage)
	}
	return nil
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// badPacket is an IPv4 packet to the box in which something is wrong: lengths,
// fragments, flags, options, checksums or what it says.
// (RFC 791, section 3.1; RFC 9293, section 3.1.)
func badPacket(r *rand.Rand) []byte {
	to := []netip.Addr{boxAddr, ucmMapped, mtaMapped, nobody, boxInside, ucmReal}[r.IntN(6)].As4()
	proto := []byte{1, 6, 17, 6, 17, byte(r.Uint32())}[r.IntN(6)]
	p := append([]byte{0x45, 0, 0, 0, byte(r.Uint32()), 0, 0, 0, 64, proto, 0, 0, 198, 51, 100, byte(100 + r.IntN(100))}, to[:]...)
	body := noise(r, r.IntN(1400))
	if len(body) >= 20 {
		port := []uint16{69, 2443, 5061, 22, uint16(16384 + r.IntN(100)), 0}[r.IntN(6)]
		binary.BigEndian.PutUint16(body[2:], port)
		switch proto {
		case 6:
			body[12] = byte(r.IntN(16)) << 4 // data offset
		case 17:
			if r.IntN(2) == 0 {
				binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
				body[6], body[7] = 0, 0 // no checksum
			}
			if port == 69 && r.IntN(2) == 0 {
				copy(body[8:], "\x00\x01SEP\x00octet\x00blk")
			}
		case 1:
			body[0] = []byte{0, 3, 5, 8, 11, byte(r.Uint32())}[r.IntN(6)]
		}
	}
	switch r.IntN(4) {
	case 0: // a fragment: anywhere, also beyond 64 KB
		binary.BigEndian.PutUint16(p[6:], uint16(r.Uint32())&0x3fff)
	case 1: // options, or a header that is too long or too short
		p[0] = 0x40 | byte(r.IntN(16))
	}
	p = append(p, body...)
	n := len(p)
	if r.IntN(5) == 0 {
		n = r.IntN(1 << 16)
	}
	binary.BigEndian.PutUint16(p[2:], uint16(n))
	if r.IntN(5) > 0 {
		var sum uint32
		for i := 0; i < int(p[0]&15)*4 && i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		sum = sum>>16 + sum&0xffff
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	}
	return p
}

// withRace reports whether the test, and so the program, has the race detector.
func withRace() bool { return strings.Contains(strings.Join(buildArgs(), " "), "-race") }
