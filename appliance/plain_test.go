package appliance_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/host"
)

// plainConfig is a box between a phone inside, behind PAT, and a server outside.
const plainConfig = `ASA Version 9.1(7)
hostname box
interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
object network inside-net
 subnet 10.20.0.0 255.255.255.0
 nat (inside,outside) dynamic interface
class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  inspect sip
  inspect skinny
service-policy global_policy global
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
`

const (
	plainPhone  = "10.20.0.50"
	plainServer = "203.0.113.9"
	plainBox    = "203.0.113.2"
)

// A plain is a running box with a host on each side.
type plain struct {
	t               *testing.T
	app             *appliance.Appliance
	inside, outside *host.Stack
	ctx             context.Context
}

func startPlain(t *testing.T) *plain { return startPlainWith(t, nil) }

// startPlainWith is startPlain with a source of more links.
func startPlainWith(t *testing.T, open func(*config.Interface) (stack.Link, error)) *plain {
	t.Helper()
	return startPlainBox(t, plainConfig, appliance.Options{Open: open})
}

// startPlainBox runs the box of a configuration with a host on each side. Of opt
// the links, the store and, if there is none, the log are put in.
func startPlainBox(t *testing.T, text string, opt appliance.Options) *plain {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	b := &plain{t: t, ctx: ctx}
	for addr, h := range map[string]**host.Stack{plainPhone: &b.inside, plainServer: &b.outside} {
		s, err := host.New(host.Config{Addrs: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(addr), 24)}})
		if err != nil {
			t.Fatal(err)
		}
		*h = s
	}
	r, findings := config.Check("plain.cfg", strings.NewReader(text))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	var err error
	if opt.Store == nil {
		if opt.Store, err = pki.Open(t.TempDir(), pki.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	opt.Rand = rand.NewChaCha8([32]byte{3})
	opt.Links = map[string]stack.Link{"inside": b.inside.Link(), "outside": b.outside.Link()}
	if opt.Log == nil {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	b.app, err = appliance.New(r, opt)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.app.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.inside.Close()
		b.outside.Close()
		if n := b.app.Pinholes(); n != 0 {
			var list strings.Builder
			b.app.Exec(&list, "show conn detail")
			t.Errorf("%d pinholes are left:\n%s", n, list.String())
		}
	})
	return b
}

// dial connects the phone to a port of the server; accepted is the server's end.
func (b *plain) dial(port uint16) (phone, server net.Conn) {
	b.t.Helper()
	to := netip.AddrPortFrom(netip.MustParseAddr(plainServer), port)
	l, err := b.outside.ListenTCP(to)
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			b.t.Error(err)
		}
		accepted <- c
	}()
	if phone, err = b.inside.DialTCP(b.ctx, netip.AddrPort{}, to); err != nil {
		b.t.Fatal(err)
	}
	server = <-accepted
	for _, c := range []net.Conn{phone, server} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		b.t.Cleanup(func() { c.Close() })
	}
	return phone, server
}

// udp opens a socket.
func (b *plain) udp(h *host.Stack, at string) net.PacketConn {
	b.t.Helper()
	pc, err := h.ListenPacket(netip.MustParseAddrPort(at))
	if err != nil {
		b.t.Fatal(err)
	}
	pc.SetDeadline(time.Now().Add(10 * time.Second))
	b.t.Cleanup(func() { pc.Close() })
	return pc
}

// sipMessage puts CRLF at line ends and the length in.
func sipMessage(head, body string) string {
	head, body = strings.ReplaceAll(head, "\n", "\r\n"), strings.ReplaceAll(body, "\n", "\r\n")
	return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
}

func sessionAt(addr string, port int) string {
	return fmt.Sprintf("v=0\no=- 1 1 IN IP4 %s\ns=-\nc=IN IP4 %s\nt=0 0\nm=audio %d RTP/AVP 0\n", addr, addr, port)
}

// invite is a call of the phone over a transport from its signaling address.
func invite(transport, from string) string {
	return sipMessage("INVITE sip:100@"+plainServer+" SIP/2.0\nVia: SIP/2.0/"+transport+" "+from+";branch=z9hG4bKa\n"+
		"From: <sip:200@"+plainServer+">;tag=f\nTo: <sip:100@"+plainServer+">\nCall-ID: call@"+plainPhone+"\nCSeq: 1 INVITE\n"+
		"Max-Forwards: 70\nContact: <sip:200@"+from+";transport="+strings.ToLower(transport)+">\nContent-Type: application/sdp\n",
		sessionAt(plainPhone, 24000))
}

var (
	contactIn = regexp.MustCompile(`(?m)^Contact: <sip:200@([0-9.:]+)`)
	viaIn     = regexp.MustCompile(`(?m)^(Via: .*?)\r?$`)
	mediaIn   = regexp.MustCompile(`(?m)^m=audio (\d+)`)
)

// ok answers an INVITE as the server got it.
func ok(got string) string {
	return sipMessage("SIP/2.0 200 OK\n"+viaIn.FindStringSubmatch(got)[1]+"\nFrom: <sip:200@"+plainServer+">;tag=f\n"+
		"To: <sip:100@"+plainServer+">;tag=t\nCall-ID: call@"+plainPhone+"\nCSeq: 1 INVITE\nContact: <sip:100@"+plainServer+":5060>\n"+
		"Content-Type: application/sdp\n", sessionAt(plainServer, 30000))
}

// talks has media go both ways through what the INVITE that the server got
// promised.
func (b *plain) talks(got string) {
	b.t.Helper()
	phone, server := b.udp(b.inside, plainPhone+":24000"), b.udp(b.outside, plainServer+":30000")
	port := mediaIn.FindStringSubmatch(got)[1]
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(plainBox + ":" + port))
	rtp := make([]byte, 172)
	rtp[0] = 0x80
	buf := make([]byte, 2048)
	if _, err := server.WriteTo(rtp, to); err != nil {
		b.t.Fatal(err)
	}
	if n, from, err := phone.ReadFrom(buf); err != nil || n != len(rtp) || from.String() != plainServer+":30000" {
		b.t.Fatalf("the phone heard %d bytes from %v, %v", n, from, err)
	}
	if _, err := phone.WriteTo(rtp, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(plainServer+":30000"))); err != nil {
		b.t.Fatal(err)
	}
	if n, from, err := server.ReadFrom(buf); err != nil || n != len(rtp) || from.String() != to.String() {
		b.t.Fatalf("the server heard %d bytes from %v, %v; want from %v", n, from, err, to)
	}
}

// noLeak checks that the server learns nothing of inside but in the Call-ID,
// which stays.
func noLeak(t *testing.T, got string) {
	t.Helper()
	for line := range strings.Lines(got) {
		if strings.Contains(line, "10.20.0.") && !strings.HasPrefix(line, "Call-ID:") {
			t.Errorf("the server reads %q", line)
		}
	}
}

func TestPlainSIPOverUDP(t *testing.T) {
	b := startPlain(t)
	phone, server := b.udp(b.inside, plainPhone+":5060"), b.udp(b.outside, plainServer+":5060")
	if _, err := phone.WriteTo([]byte(invite("UDP", plainPhone+":5060")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(plainServer+":5060"))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	noLeak(t, got)
	if m := contactIn.FindStringSubmatch(got); m == nil || m[1] != from.String() {
		t.Errorf("Contact %v; want %v, where it came from", m, from)
	}
	if _, err := server.WriteTo([]byte(ok(got)), from); err != nil {
		t.Fatal(err)
	}
	if n, _, err = phone.ReadFrom(buf); err != nil || !strings.Contains(string(buf[:n]), "Via: SIP/2.0/UDP "+plainPhone+":5060;") {
		t.Errorf("the phone reads %q, %v", buf[:n], err)
	}
	b.talks(got)
}

func TestPlainSIPOverTCP(t *testing.T) {
	b := startPlain(t)
	phone, server := b.dial(5060)
	if a := server.RemoteAddr().String(); !strings.HasPrefix(a, plainBox+":") {
		t.Errorf("the server sees %s; want %s", a, plainBox)
	}
	if a := phone.RemoteAddr().String(); a != plainServer+":5060" {
		t.Errorf("the phone sees %s", a)
	}
	if _, err := io.WriteString(phone, invite("TCP", phone.LocalAddr().String())); err != nil {
		t.Fatal(err)
	}
	got := readSIP(t, server)
	noLeak(t, got)
	if m := contactIn.FindStringSubmatch(got); m == nil || m[1] != server.RemoteAddr().String() {
		t.Errorf("Contact %v; want %v, where it came from", m, server.RemoteAddr())
	}
	if _, err := io.WriteString(server, ok(got)); err != nil {
		t.Fatal(err)
	}
	if got := readSIP(t, phone); !strings.Contains(got, "Via: SIP/2.0/TCP "+phone.LocalAddr().String()+";") {
		t.Errorf("the phone reads %q", got)
	}
	b.talks(got)

	phone.Close()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the phone hung up the server reads %v", err)
	}
}

// readSIP reads one message.
func readSIP(t *testing.T, c net.Conn) string {
	t.Helper()
	r := bufio.NewReader(c)
	var b strings.Builder
	length := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", b.String(), err)
		}
		b.WriteString(line)
		fmt.Sscanf(line, "Content-Length: %d", &length)
		if line == "\r\n" {
			break
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	return b.String() + string(body)
}

// A phone whose Register names its own address registers as what NAT shows.
func TestPlainSkinny(t *testing.T) {
	b := startPlain(t)
	phone, server := b.dial(2000)
	register := make([]byte, 12+40)
	binary.LittleEndian.PutUint32(register, uint32(len(register)-8))
	binary.LittleEndian.PutUint32(register[8:], 1)
	copy(register[12:], "SEP001122334455")
	copy(register[12+24:], []byte{10, 20, 0, 50})
	if _, err := phone.Write(register); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(register))
	if _, err := io.ReadFull(server, got); err != nil {
		t.Fatal(err)
	}
	if a := net.IP(got[36:40]).String(); a != plainBox {
		t.Errorf("Register says %s; want %s", a, plainBox)
	}
}

// A server that is not there is not there through the box either.
func TestPlainRefused(t *testing.T) {
	b := startPlain(t)
	c, err := b.inside.DialTCP(b.ctx, netip.AddrPort{}, netip.MustParseAddrPort(plainServer+":5060"))
	if err == nil {
		c.Close()
		t.Fatal("the phone is connected to a server that does not listen")
	}
	if b.ctx.Err() != nil {
		t.Error("the phone waited; want it refused")
	}
}

// The server calls a phone that has registered over TCP at the address that its
// Contact became.
func TestPlainCallToContact(t *testing.T) {
	b := startPlain(t)
	phone, server := b.dial(5060)
	l, err := b.inside.ListenTCP(netip.MustParseAddrPort(plainPhone + ":5062"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	register := func(expires int) string {
		if _, err := io.WriteString(phone, sipMessage(fmt.Sprintf("REGISTER sip:%s SIP/2.0\nVia: SIP/2.0/TCP %s;branch=z9hG4bKr%d\n"+
			"From: <sip:200@%s>;tag=f\nTo: <sip:200@%s>\nCall-ID: reg\nCSeq: 1 REGISTER\nMax-Forwards: 70\n"+
			"Contact: <sip:200@%s:5062;transport=tcp>;expires=%d\n", plainServer, phone.LocalAddr(), expires, plainServer, plainServer, plainPhone, expires), "")); err != nil {
			t.Fatal(err)
		}
		got := readSIP(t, server)
		noLeak(t, got)
		return contactIn.FindStringSubmatch(got)[1]
	}
	contact := netip.MustParseAddrPort(register(3600))
	if contact.Addr().String() != plainBox {
		t.Fatalf("registered at %v", contact)
	}
	call, err := b.outside.DialTCP(b.ctx, netip.AddrPort{}, contact)
	if err != nil {
		t.Fatal(err)
	}
	defer call.Close()
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	taken.SetDeadline(time.Now().Add(5 * time.Second))
	from := call.LocalAddr().String()
	if _, err := io.WriteString(call, sipMessage("INVITE sip:200@"+contact.String()+";transport=tcp SIP/2.0\nVia: SIP/2.0/TCP "+from+";branch=z9hG4bKc\n"+
		"From: <sip:100@"+plainServer+">;tag=g\nTo: <sip:200@"+plainServer+">\nCall-ID: in\nCSeq: 1 INVITE\nMax-Forwards: 70\n"+
		"Contact: <sip:100@"+from+";transport=tcp>\nContent-Type: application/sdp\n", sessionAt(plainServer, 30000))); err != nil {
		t.Fatal(err)
	}
	if got := readSIP(t, taken); !strings.HasPrefix(got, "INVITE sip:200@"+plainPhone+":5062;") {
		t.Errorf("the phone reads %q", got)
	}

	register(0)
	short, cancel := context.WithTimeout(b.ctx, 300*time.Millisecond)
	defer cancel()
	if c, err := b.outside.DialTCP(short, netip.AddrPort{}, contact); err == nil {
		c.Close()
		t.Error("a contact that was taken back can still be called")
	}
}
