//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patchbay/appliance/lab"
)

// TestOpenSSLPhones has openssl s_client connect as old phones, new phones and
// strangers do.
func TestOpenSSLPhones(t *testing.T) {
	needs(t, "openssl")
	n := newTestNet(t, overPacket)
	ca := newCA(t)
	b := n.start(t, startOptions{flash: newFlash(t, ca), level: "info"})
	old, err := ca.IssueMIC("001122334455", "7962G", 1024)
	must(t, err)
	modern, err := ca.IssueMIC("001122334466", "7965G", 2048)
	must(t, err)
	far, err := lab.NewCA("Another Manufacturing CA", 2048, x509.SHA1WithRSA, nil, nil)
	must(t, err)
	stranger, err := far.IssueMIC("001122334477", "7962G", 2048)
	must(t, err)
	forger, err := newCA(t).IssueMIC("001122334455", "7962G", 2048) // of a CA by the same name
	must(t, err)
	if alg := old.Cert.SignatureAlgorithm; alg != x509.SHA1WithRSA {
		t.Fatalf("the old phone's certificate is signed with %v", alg)
	}
	tls10 := []string{"-tls1", "-cipher", "AES128-SHA:@SECLEVEL=0"}
	tls12 := []string{"-tls1_2", "-cipher", "DEFAULT:@SECLEVEL=0"}
	tls13 := []string{"-tls1_3", "-cipher", "DEFAULT:@SECLEVEL=0"}
	for i, tt := range []struct {
		name   string
		args   []string
		id     *lab.Identity
		cipher string // as the box logs it; "": refused
		log    []string
	}{
		{"TLS 1.0 AES128-SHA", tls10, old, "AES128-SHA",
			[]string{"for TLSv1 session", "SEP001122334455"}},
		{"TLS 1.2", tls12, modern, "ECDHE-RSA-AES",
			[]string{"for TLSv1.2 session", "SEP001122334466"}},
		{"TLS 1.3", tls13, modern, "TLS_AES",
			[]string{"for TLSv1.3 session", "SEP001122334466"}},
		{"TLS 1.2 AES256-SHA", []string{"-tls1_2", "-cipher", "AES256-SHA:@SECLEVEL=0"}, old, "AES256-SHA",
			[]string{"for TLSv1.2 session"}},
		{"no certificate, TLS 1.0", tls10, nil, "",
			[]string{"Device failed SSL handshake", "no certificate"}},
		{"no certificate, TLS 1.3", tls13, nil, "",
			[]string{"Device failed SSL handshake", "no certificate"}},
		{"a stranger's certificate, TLS 1.0", tls10, stranger, "",
			[]string{"717009", "SEP001122334477", "No suitable trustpoints found"}},
		{"a stranger's certificate, TLS 1.3", tls13, stranger, "",
			[]string{"717009", "SEP001122334477", "No suitable trustpoints found"}},
		{"a forged certificate, TLS 1.0", tls10, forger, "",
			[]string{"717009", "SEP001122334455", "did not sign it"}},
		{"a forged certificate, TLS 1.3", tls13, forger, "",
			[]string{"717009", "SEP001122334455", "did not sign it"}},
	} {
		for j, svc := range []struct{ secure, plain uint16 }{{2443, 2000}, {5061, 5060}} {
			t.Run(fmt.Sprint(tt.name, " on ", svc.secure), func(t *testing.T) {
				o := &opensslPhone{n: n, port: uint16(40_100 + 10*i + j), secure: svc.secure}
				before := len(b.text())
				if tt.cipher == "" {
					o.refused(t, tt.id, tt.args, svc.plain)
				} else {
					o.connects(t, tt.id, tt.args, svc.plain)
				}
				// Of this connection, in what the box logs at its usual level.
				from := fmt.Sprintf("198.51.100.7/%d", o.port)
				for _, want := range append(tt.log, tt.cipher) {
					eventually(t, fmt.Sprintf("a log of %s has %q", from, want), func() bool {
						for line := range strings.Lines(b.text()[before:]) {
							if strings.Contains(line, want) && (strings.Contains(line, from) || strings.Contains(line, strings.Replace(from, "/", ":", 1))) {
								return true
							}
						}
						return false
					})
				}
			})
		}
	}
}

// An opensslPhone is s_client as a phone at phoneAddr.
type opensslPhone struct {
	n            *testNet
	port, secure uint16

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes what s_client prints.
func (o *opensslPhone) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.Write(p)
}

func (o *opensslPhone) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.out.String()
}

// start starts s_client with the identity id, nil for none.
func (o *opensslPhone) start(t *testing.T, id *lab.Identity, args []string) (c *exec.Cmd, stdin io.WriteCloser) {
	t.Helper()
	args = append([]string{"s_client", "-connect", fmt.Sprintf("%v:%d", ucmMapped, o.secure),
		"-bind", fmt.Sprintf("%v:%d", phoneAddr, o.port), "-quiet", "-nocommands"}, args...)
	if id != nil {
		file := filepath.Join(t.TempDir(), "phone.pem")
		data := append(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw}),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(id.Key)})...)
		must(t, os.WriteFile(file, data, 0o600))
		args = append(args, "-cert", file, "-key", file)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c = o.n.command(ctx, o.n.out, "openssl", args...)
	c.Stdout, c.Stderr = o, o
	stdin, err := c.StdinPipe()
	must(t, err)
	must(t, c.Start())
	return c, stdin
}

// The SCCP messages by which a phone and a call manager know each other alive.
// (reference/skinny.md, section 2.)
var (
	sccpKeepAlive    = []byte{4, 0, 0, 0, 0, 0, 0, 0, 0x00, 0, 0, 0}
	sccpKeepAliveAck = []byte{4, 0, 0, 0, 0, 0, 0, 0, 0x00, 1, 0, 0}
)

const (
	sipOptions = "OPTIONS sip:4100@203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/TLS 198.51.100.7:%d;branch=z9hG4bK1\r\n" +
		"From: <sip:4100@203.0.113.10>;tag=1\r\nTo: <sip:4100@203.0.113.10>\r\nCall-ID: 1@198.51.100.7\r\n" +
		"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
	sipAnswer = "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 198.51.100.7:%d;branch=z9hG4bK1\r\n" +
		"From: <sip:4100@10.20.0.11>;tag=1\r\nTo: <sip:4100@10.20.0.11>;tag=2\r\nCall-ID: 1@198.51.100.7\r\n" +
		"CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)

// connects sees a phone through to the call manager and back.
func (o *opensslPhone) connects(t *testing.T, id *lab.Identity, args []string, plain uint16) {
	ucm := o.n.host(t, o.n.in, ucmReal)
	l, err := ucm.ListenTCP(netip.AddrPortFrom(netip.Addr{}, plain))
	must(t, err)
	defer l.Close()
	must(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)))
	c, stdin := o.start(t, id, args)
	defer c.Wait()
	defer stdin.Close()
	phone, err := l.Accept()
	if err != nil {
		t.Fatalf("the call manager: %v: openssl: %s", err, o.text())
	}
	defer phone.Close()
	if got, want := addrPortOf(t, phone.RemoteAddr()), netip.AddrPortFrom(phoneAddr, o.port); got != want {
		t.Errorf("the call manager sees %v, want %v", got, want)
	}
	must(t, phone.SetDeadline(time.Now().Add(patience)))
	if plain == 2000 {
		_, err = stdin.Write(sccpKeepAlive)
		must(t, err)
		got := make([]byte, len(sccpKeepAlive))
		if _, err := io.ReadFull(phone, got); err != nil || !bytes.Equal(got, sccpKeepAlive) {
			t.Fatalf("the call manager got % x, %v; want % x", got, err, sccpKeepAlive)
		}
		_, err = phone.Write(sccpKeepAliveAck)
		must(t, err)
		eventually(t, "the acknowledgement arrives", func() bool { return strings.Contains(o.text(), string(sccpKeepAliveAck)) })
		return
	}
	_, err = fmt.Fprintf(stdin, sipOptions, o.port)
	must(t, err)
	got := make([]byte, 4096)
	k, err := phone.Read(got)
	if err != nil || !strings.Contains(string(got[:k]), "Via: SIP/2.0/TCP ") || strings.Contains(string(got[:k]), "203.0.113.10") {
		t.Fatalf("the call manager got %q, %v; want it over TCP and to its own address", got[:k], err)
	}
	_, err = fmt.Fprintf(phone, sipAnswer, o.port)
	must(t, err)
	eventually(t, "the answer arrives over TLS", func() bool {
		s := o.text()
		return strings.Contains(s, "SIP/2.0 200 OK") && strings.Contains(s, "Via: SIP/2.0/TLS ")
	})
}

// refused sees that the call manager hears nothing of a phone.
func (o *opensslPhone) refused(t *testing.T, id *lab.Identity, args []string, plain uint16) {
	in := o.n.capture(t, o.n.in, "pbin")
	c, stdin := o.start(t, id, args)
	defer stdin.Close()
	// It may think that it is connected until it is told otherwise.
	_, err := stdin.Write(append(sccpKeepAlive, "\r\n"...))
	if err != nil && !errors.Is(err, os.ErrClosed) && !strings.Contains(err.Error(), "broken pipe") {
		t.Error(err)
	}
	if err := c.Wait(); err == nil {
		t.Errorf("openssl ended well: %s", o.text())
	}
	if !strings.Contains(o.text(), "alert") {
		t.Errorf("openssl was not told why: %s", o.text())
	}
	if got := in.packets(func(p gopacket.Packet) bool {
		tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		return ok && uint16(tcp.DstPort) == plain
	}); len(got) > 0 {
		t.Errorf("the call manager was reached:\n%v", got[0])
	}
}
