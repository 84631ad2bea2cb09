package appliance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
)

// exec does a command that must not be refused.
func (b *plain) exec(line string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.app.Exec(&out, line); err != nil {
		b.t.Fatalf("%s: %v", line, err)
	}
	return out.String()
}

// waitFor waits until what a command shows contains want.
func (b *plain) waitFor(line, want string) {
	b.t.Helper()
	for !strings.Contains(b.exec(line), want) {
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("%s never shows %q:\n%s", line, want, b.exec(line))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// A lineReader gives the lines of a connection that a listener accepts.
func lineReader(t *testing.T, l net.Listener) (<-chan string, <-chan net.Conn) {
	lines, conns := make(chan string, 1000), make(chan net.Conn, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			r := bufio.NewReader(c)
			for {
				s, err := r.ReadString('\n')
				if err != nil {
					break
				}
				lines <- strings.TrimSuffix(s, "\n")
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		for {
			select {
			case c := <-conns:
				c.Close()
				continue
			case <-done:
				return
			}
		}
	})
	return lines, conns
}

func (b *plain) line(lines <-chan string, want string) string {
	b.t.Helper()
	for {
		select {
		case s := <-lines:
			if strings.Contains(s, want) {
				return s
			}
		case <-b.ctx.Done():
			b.t.Fatalf("no line has %q", want)
		}
	}
}

const syslogLines = `logging enable
logging timestamp
logging buffered informational
logging trap informational
logging device-id hostname
`

// Messages go to a host over UDP and TCP, from the address of the interface that
// faces it, and what carries them is not itself told of.
func TestSyslogHosts(t *testing.T) {
	b := startPlainBox(t, plainConfig+syslogLines+"logging host inside "+plainPhone+"\nlogging host outside "+plainServer+" tcp/1470\n", appliance.Options{})
	pc := b.udp(b.inside, plainPhone+":514")
	l, err := b.outside.ListenTCP(netip.MustParseAddrPort(plainServer + ":1470"))
	if err != nil {
		t.Fatal(err)
	}
	lines, _ := lineReader(t, l)
	b.waitFor("show logging setting", "tcp/1470 connected")
	b.dial(80)
	built := regexp.MustCompile(`^<166>\w{3} \d\d \d{4} \d\d:\d\d:\d\d box : %ASA-6-302013: Built outbound TCP connection \d+ for outside:203\.0\.113\.9/80 \(203\.0\.113\.9/80\) to inside:10\.20\.0\.50/\d+ \(203\.0\.113\.2/\d+\)$`)
	if s := b.line(lines, "302013"); !built.MatchString(s) {
		t.Errorf("over TCP: %q", s)
	}
	buf := make([]byte, 2000)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(buf[:n]); strings.Contains(s, "302013") {
			if addr := from.(*net.UDPAddr).AddrPort().Addr(); addr != netip.MustParseAddr("10.20.0.1") || !built.MatchString(s) {
				t.Errorf("over UDP from %v: %q", addr, s)
			}
			break
		}
	}
	if got := b.exec("show logging"); regexp.MustCompile(`-30201\d: .*/(514|1470) `).MatchString(got) {
		t.Errorf("the log tells of itself:\n%s", got)
	}
}

// While a TCP host is down no connection opens, unless permit-hostdown says so.
func TestSyslogHostDown(t *testing.T) {
	text := plainConfig + syslogLines + "logging host outside " + plainServer + " tcp/1470\n"
	b := startPlainBox(t, text, appliance.Options{})
	b.waitFor("show logging", "414003: TCP Syslog Server outside: 203.0.113.9/1470 not responding. New connections are denied")
	ctx, cancel := context.WithTimeout(b.ctx, 300*time.Millisecond)
	defer cancel()
	if c, err := b.inside.DialTCP(ctx, netip.AddrPort{}, netip.MustParseAddrPort(plainServer+":80")); err == nil {
		c.Close()
		t.Error("a connection opens though the log cannot be kept")
	}
	if got := b.exec("show asp drop"); !strings.Contains(got, "(syslog-host-down)") {
		t.Errorf("show asp drop:\n%s", got)
	}
	r, findings := config.Check("plain.cfg", strings.NewReader(text+"logging permit-hostdown\n"))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	if err := b.app.Configure(r); err != nil {
		t.Fatal(err)
	}
	b.dial(80)
}

// Over TLS the host's certificate is checked against the trust anchors on flash.
func TestSyslogTLS(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("known %v", known), func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "log CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
				IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP(plainPhone)}}
			der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			store, err := pki.Open(t.TempDir(), pki.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if known {
				if _, err := store.Authenticate("log_ca", der); err != nil {
					t.Fatal(err)
				}
			}
			b := startPlainBox(t, plainConfig+syslogLines+"logging permit-hostdown\nlogging host inside "+plainPhone+" tcp/6514 secure\n", appliance.Options{Store: store})
			l, err := b.inside.ListenTCP(netip.MustParseAddrPort(plainPhone + ":6514"))
			if err != nil {
				t.Fatal(err)
			}
			lines, _ := lineReader(t, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
			if !known {
				b.waitFor("show logging setting", "tcp/6514 SECURE not connected since ")
				b.waitFor("show logging setting", "unknown authority")
				if len(lines) != 0 {
					t.Errorf("a stranger gets %q", <-lines)
				}
				return
			}
			b.line(lines, "box is up")
			b.waitFor("show logging setting", "tcp/6514 SECURE connected")
		})
	}
}

// A phone's whole life, logged in full, shows no key and no password.
func TestLogHasNoSecrets(t *testing.T) {
	var console syncBuffer
	b := start(t, setup{
		config: []string{"logging buffered informational", "logging buffered debugging\nlogging console debugging\nlogging buffer-size 1048576\n" +
			"enable password Tr0ub4dorAndMore encrypted\nusername admin password c0rrectHorseBattery encrypted privilege 15"},
		opt: func(o *appliance.Options) { o.Console = &console },
	})
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		out, in := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
		b.call(out, in)
		b.must(out.HangUp(b.ctx))
		b.must(in.Wait(b.ctx, lab.Idle))
	}
	b.idle()
	b.honest()
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	var buffer bytes.Buffer
	if err := b.app.Exec(&buffer, "show logging"); err != nil {
		t.Fatal(err)
	}
	text := b.log.String() + console.String() + buffer.String()
	for _, want := range []string{"%ASA-6-302013", "%ASA-6-725002", "%ASA-7-990112: media session opened"} {
		if !strings.Contains(console.String(), want) {
			t.Errorf("the console has no %q: this test proves nothing", want)
		}
	}
	for _, secret := range []string{"Tr0ub4dor", "c0rrectHorse", "inline:", "BEGIN", "PRIVATE"} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("the log has %q: %.200s", secret, text[i:])
		}
	}
	// What is long and of one piece is a key or a digest of one.
	if s := regexp.MustCompile(`[0-9A-Za-z+/]{28,}=*|(?:[0-9a-f]{2}[ :]){12,}`).FindString(text); s != "" {
		t.Errorf("the log has %q", s)
	}
	keys := 0
	err := filepath.WalkDir(b.flash, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(file)
		block, _ := pem.Decode(data)
		if block == nil || !strings.Contains(block.Type, "PRIVATE") {
			return err
		}
		keys++
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimSpace(line); len(line) > 20 && !strings.Contains(line, "-----") && strings.Contains(text, line[:20]) {
				t.Errorf("the log has part of %s", file)
			}
		}
		return nil
	})
	if err != nil || keys == 0 {
		t.Errorf("%d keys on flash, %v: this test proves nothing", keys, err)
	}
}

// Messages are mailed from the address of the interface that faces the server,
// which a name stands for, and what carries them is not itself told of.
func TestMail(t *testing.T) {
	b := startPlainBox(t, plainConfig+"name "+plainServer+" mailhost\nlogging enable\nlogging buffered debugging\nlogging mail errors\nlogging from-address box@example.com\n"+
		"logging recipient-address ann@example.com\nsmtp-server mailhost\n", appliance.Options{})
	l, err := b.outside.ListenTCP(netip.MustParseAddrPort(plainServer + ":25"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b.app.Log().Error("flash", "reason", "worn out")
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != netip.MustParseAddr("203.0.113.2") {
		t.Errorf("the mail comes from %v", from)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	var said []string
	for _, answer := range []string{"220 mail", "250 mail", "250 ok", "250 ok", "354 go on"} {
		fmt.Fprintf(c, "%s\r\n", answer)
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, said)
		}
		said = append(said, strings.TrimSpace(line))
	}
	for said[len(said)-1] != "." {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, said)
		}
		said = append(said, strings.TrimSpace(line))
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"EHLO box", "MAIL FROM:<box@example.com>", "RCPT TO:<ann@example.com>", "Subject: box: %ASA-3-990004", "To: <ann@example.com>"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	fmt.Fprintf(c, "250 ok\r\n")
	b.waitFor("show logging setting", "Mail to 1 recipients by "+plainServer+"  sent: 1  refused: 0")
	if got := b.exec("show logging"); strings.Contains(got, plainServer+"/25") {
		t.Errorf("the log tells of itself:\n%s", got)
	}
}
