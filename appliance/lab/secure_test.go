package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// A testSigner makes CTL files and signed files, for phones to verify.
type testSigner struct {
	sast, server *Identity
}

func newTestSigner(t testing.TB, seed byte) *testSigner {
	t.Helper()
	ca, err := NewCA("Test CA", 1024, x509.SHA1WithRSA, chance(seed), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &testSigner{}
	if s.sast, err = ca.IssueMIC("0200000000F0", "SAST", 1024); err != nil {
		t.Fatal(err)
	}
	if s.server, err = ca.IssueMIC("0200000000F1", "SERVER", 1024); err != nil {
		t.Fatal(err)
	}
	return s
}

func put(b []byte, tag byte, value []byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(b, tag), uint16(len(value))), value...)
}

func cstring(s string) []byte { return append([]byte(s), 0) }

// seal puts the signed header before body. (reference/ctl-file.md, section 2.)
func (s *testSigner) seal(by *Identity, version byte, file string, body []byte) []byte {
	size := by.Key.Size()
	serial := by.Cert.SerialNumber.Bytes()
	var name, sig []byte
	name = put(name, 4, cstring(by.Cert.Subject.String()))
	name = put(name, 5, serial)
	name = put(name, 6, cstring(by.Cert.Issuer.String()))
	before := put(nil, 3, name)
	before = append(before, 7, 0, 15, 8, 0, 1, 1, 9, 0, 8, 10, 0, 1, 0, 11, 0, 1, 1)
	after := put(nil, 14, cstring(file))
	after = put(after, 15, []byte{0x4a, 0, 0, 0})
	total := 10 + len(before) + 3 + size + len(after)
	for total%4 != 0 {
		after = append(after, 13)
		total++
	}
	head := []byte{1, 0, 2, 1, version, 2, 0, 2, byte(total >> 8), byte(total)}
	head = append(head, before...)
	sum := sha1.Sum(bytes.Join([][]byte{head, after, body}, nil))
	sig, err := rsa.SignPKCS1v15(nil, by.Key, crypto.SHA1, sum[:])
	if err != nil {
		panic(err)
	}
	return bytes.Join([][]byte{head, put(nil, 12, sig), after, body}, nil)
}

func (s *testSigner) ctl(addr string) []byte {
	record := func(id *Identity, role byte, addr string) []byte {
		var b []byte
		b = put(b, 2, cstring(addr))
		b = put(b, 3, cstring(id.Cert.Subject.String()))
		b = put(b, 4, []byte{0, role})
		b = put(b, 5, cstring(id.Cert.Issuer.String()))
		b = put(b, 6, id.Cert.SerialNumber.Bytes())
		b = put(b, 7, x509.MarshalPKCS1PublicKey(&id.Key.PublicKey))
		b = put(b, 8, id.Cert.Signature)
		b = put(b, 9, id.Cert.Raw)
		if a, err := netip.ParseAddr(addr); err == nil {
			b = put(b, 10, a.AsSlice())
		}
		return append(put(nil, 1, []byte{byte((len(b) + 5) >> 8), byte(len(b) + 5)}), b...)
	}
	body := append(record(s.sast, RoleSAST, ""), record(s.server, RoleCCMTFTP, addr)...)
	return s.seal(s.sast, 2, "CTLFile.tlv", body)
}

func (s *testSigner) sign(name string, body []byte) []byte { return s.seal(s.server, 0, name, body) }

// A standIn is the least that makes a nonsecure call manager one for secure
// phones: TLS, and keys put into signaling. Media go straight from phone to
// phone, so one's key to send is the other's to receive.
type standIn struct {
	wg   sync.WaitGroup
	edit func(s *standIn, c *standInConn, fromPhone bool, r *bufio.Reader) ([]byte, error)

	mu   sync.Mutex
	keys map[netip.AddrPort]mediaKey // what a phone that receives there expects; SIP: sends with
}

type standInConn struct {
	version byte
	key     mediaKey // of the last OpenReceiveChannel
}

func (s *standIn) serve(t *testing.T, l net.Listener, to netip.AddrPort) {
	defer s.wg.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		u, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Error(err)
			c.Close()
			return
		}
		conn := &standInConn{}
		s.wg.Add(2)
		pump := func(from, to net.Conn, fromPhone bool) {
			defer s.wg.Done()
			defer to.Close()
			r := bufio.NewReader(from)
			for {
				b, err := s.edit(s, conn, fromPhone, r)
				if err != nil {
					return
				}
				if _, err := to.Write(b); err != nil {
					return
				}
			}
		}
		go pump(c, u, true)
		go pump(u, c, false)
	}
}

// block is the encryption information block. (reference/skinny.md, section 3.)
func block(k mediaKey) []byte {
	b := words(algAES32, keyLength|saltBytes<<16)
	b = append(b, k.master[:]...)
	return append(b, k.salt[:]...)
}

func randomKey() (k mediaKey) {
	rand.Read(k.master[:])
	rand.Read(k.salt[:])
	return k
}

func editSCCP(s *standIn, c *standInConn, fromPhone bool, r *bufio.Reader) ([]byte, error) {
	m, err := readSCCP(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.id == msgRegisterAck:
		c.version = m.data[16]
	case m.id == msgOpenReceive && !fromPhone:
		c.key = randomKey()
		copy(m.data[28:], block(c.key))
	case m.id == msgOpenReceiveAck && fromPhone:
		ack, _, err := parseOpenReceiveAck(m.data, c.version)
		if err != nil {
			return nil, err
		}
		s.keys[ack.addr] = c.key
	case m.id == msgStartMedia && !fromPhone:
		copy(m.data[44+wide(c.version):], block(s.keys[m.data.transport(8, c.version)]))
	}
	return m.bytes(), nil
}

func editSIP(s *standIn, c *standInConn, fromPhone bool, r *bufio.Reader) ([]byte, error) {
	m, err := readSIP(r)
	if err != nil {
		return nil, err
	}
	if len(m.body) == 0 {
		return m.bytes(), nil
	}
	d, err := parseSDP(m.body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fromPhone {
		if len(d.crypto) == 1 {
			s.keys[d.addr] = d.crypto[0].key
		}
		return m.bytes(), nil
	}
	text := strings.Replace(string(m.body), "RTP/AVP", "RTP/SAVP", 1)
	m.body = []byte(text + cryptoLine("1", s.keys[d.addr]))
	return m.bytes(), nil
}

func TestSecureCall(t *testing.T) {
	tests := []struct {
		name  string
		proto Protocol
		ucm   CallManagerConfig
		a, b  PhoneConfig
	}{
		{"sccp", SCCP, CallManagerConfig{}, PhoneConfig{Version: 20}, PhoneConfig{Version: 11}},
		{"sccp, sequence wraps, TLS 1.2", SCCP, CallManagerConfig{}, PhoneConfig{FirstSequence: 65520, TLS12: true}, PhoneConfig{}},
		{"sip", SIP, CallManagerConfig{}, PhoneConfig{}, PhoneConfig{}},
		{"sip, delayed offer", SIP, CallManagerConfig{DelayedOffer: true}, PhoneConfig{}, PhoneConfig{TLS12: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { testSecureCall(t, tt.proto, tt.ucm, tt.a, tt.b) })
	}
}

func testSecureCall(t *testing.T, proto Protocol, uc CallManagerConfig, pa, pb PhoneConfig) {
	ctx := testContext(t)
	ca, err := NewCA(CAName, 1024, x509.SHA1WithRSA, chance(9), nil)
	must(t, err)
	for n, c := range []*PhoneConfig{&pa, &pb} {
		c.Protocol = proto
		c.Identity, err = ca.IssueMIC(fmt.Sprintf("02000000000%d", n+1), "7962G", 1024)
		must(t, err)
		if !c.Identity.IssuedBy(ca) {
			t.Fatal("MIC is not issued by its CA")
		}
	}
	l := newPlainLab(t, uc, pa, pb)
	l.ucm.config.RefuseUnreachable = false // the stand-in has another address
	signer := newTestSigner(t, 3)

	// The stand-in listens where the configuration sends secure phones.
	s := &standIn{keys: make(map[netip.AddrPort]mediaKey), edit: editSCCP}
	secure, plain := uint16(42000+sccpSecurePlus), uint16(42000)
	if proto == SIP {
		s.edit, secure, plain = editSIP, 5061, 45060
	}
	tl, err := tls.Listen("tcp", netip.AddrPortFrom(loopback(t, 1).Addr(), secure).String(), &tls.Config{
		Certificates: []tls.Certificate{*signer.server.certificate()},
		MinVersion:   tls.VersionTLS10, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cn := cs.PeerCertificates[0].Subject.CommonName; !strings.HasPrefix(cn, "CP-7962G-SEP0200000000") {
				return fmt.Errorf("client %q", cn)
			}
			return nil
		},
	})
	must(t, err)
	s.wg.Add(1)
	go s.serve(t, tl, netip.AddrPortFrom(loopback(t, 1).Addr(), plain))
	t.Cleanup(func() {
		tl.Close()
		l.a.Close()
		l.b.Close()
		s.wg.Wait()
	})

	for _, p := range []*Phone{l.a, l.b} {
		f, _ := l.ucm.TFTP().File(p.Name() + ".cnf.xml")
		f = bytes.Replace(f, []byte("<deviceSecurityMode>1<"), []byte("<deviceSecurityMode>3<"), 1)
		f = bytes.Replace(f, []byte("<transportLayerProtocol>1<"), []byte("<transportLayerProtocol>3<"), 1)
		name := p.Name() + ".cnf.xml.sgn"
		l.ucm.TFTP().Put(name, signer.sign(name, f))
		l.ucm.TFTP().Put("CTL"+p.Name()+".tlv", signer.ctl("127.0.41.1"))
	}
	l.ucm.TFTP().Put("Ringlist.xml.sgn", signer.sign("Ringlist.xml.sgn", []byte(ringList)))

	for _, p := range []*Phone{l.a, l.b} {
		must(t, p.Boot(ctx))
		if string(p.File("Ringlist.xml")) != ringList {
			t.Errorf("Ringlist.xml is %q", p.File("Ringlist.xml"))
		}
		must(t, p.Register(ctx))
	}
	answered := make(chan error, 1)
	go func() { answered <- l.b.Answer(ctx) }()
	must(t, l.a.Dial(ctx, "4102"))
	must(t, <-answered)
	heardWithin(t, ctx, l.a, l.b, Report{}, Report{}, 30)
	must(t, l.b.Hold(ctx))
	quiet(t, ctx, l.a, l.b)
	ra, rb := l.a.Report(), l.b.Report()
	must(t, l.b.Resume(ctx))
	heardWithin(t, ctx, l.a, l.b, ra, rb, 20)
	must(t, l.a.HangUp(ctx))
	must(t, l.b.Wait(ctx, Idle))
	for _, p := range []*Phone{l.a, l.b} {
		r := p.Report()
		// With a delayed offer the new key comes in the ACK, which the first
		// packets may overtake.
		early := 0
		if uc.DelayedOffer {
			early = 5
		}
		if r.AuthFailures > early || r.Malformed != 0 || r.Lost != 0 || r.RTCPReceived == 0 {
			t.Errorf("%s: %+v", p.Name(), r)
		}
	}
}

func TestBootRefuses(t *testing.T) {
	ctx := testContext(t)
	ca, err := NewCA(CAName, 1024, x509.SHA1WithRSA, chance(9), nil)
	must(t, err)
	id, err := ca.IssueMIC("020000000001", "7962G", 1024)
	must(t, err)
	l := newPlainLab(t, CallManagerConfig{}, PhoneConfig{Protocol: SIP, Identity: id}, PhoneConfig{Protocol: SIP})
	signer, other := newTestSigner(t, 3), newTestSigner(t, 4)
	files := l.ucm.TFTP()
	const device = "SEP020000000001"
	plain, _ := files.File(device + ".cnf.xml")
	secure := bytes.Replace(plain, []byte("<deviceSecurityMode>1<"), []byte("<deviceSecurityMode>3<"), 1)
	tests := []struct {
		name   string
		ctl    []byte
		config []byte
		want   string // in the error
	}{
		{"no CTL file", nil, nil, "tftp error 1"},
		{"CTL for another address", signer.ctl("203.0.113.10"), nil, "not in the CTL file"},
		{"no signed configuration", signer.ctl("127.0.41.1"), nil, "tftp error 1"},
		{"configuration not signed", signer.ctl("127.0.41.1"), secure, "signed header"},
		{"signed by another", signer.ctl("127.0.41.1"), other.sign(device+".cnf.xml.sgn", secure), "is not trusted"},
		{"signed by the SAST", signer.ctl("127.0.41.1"), signer.seal(signer.sast, 0, device+".cnf.xml.sgn", secure), "is not trusted"},
		{"signed as another file", signer.ctl("127.0.41.1"), signer.sign("SEP020000000002.cnf.xml.sgn", secure), "header is for"},
		{"nonsecure configuration", signer.ctl("127.0.41.1"), signer.sign(device+".cnf.xml.sgn", plain), "deviceSecurityMode is 1"},
		{"transport TCP", signer.ctl("127.0.41.1"), signer.sign(device+".cnf.xml.sgn", secure), "transportLayerProtocol is 1"},
		{"configuration of another CTL's signer", other.ctl("127.0.41.1"), nil, "is not trusted"},
	}
	for _, tt := range tests {
		files.Put("CTL"+device+".tlv", tt.ctl)
		files.Put(device+".cnf.xml.sgn", tt.config)
		if err := l.a.Boot(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

func TestConnectRefusesUnknownServer(t *testing.T) {
	ctx := testContext(t)
	signer, other := newTestSigner(t, 5), newTestSigner(t, 6)
	h := loopback(t, 30)
	l, err := h.ListenTCP(netip.AddrPort{})
	must(t, err)
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer c.Close()
		served <- tls.Server(c, &tls.Config{
			Certificates: []tls.Certificate{*other.server.certificate()},
			MinVersion:   tls.VersionTLS10, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
		}).Handshake()
	}()
	p, err := NewPhone(PhoneConfig{Host: h, Protocol: SCCP, MAC: "020000000001", Identity: signer.sast,
		Manager: addrPort(l.Addr())})
	must(t, err)
	must(t, p.trust.Install(signer.ctl("127.0.41.30")))
	if _, err := p.Connect(ctx); err == nil || !strings.Contains(err.Error(), "is not in the CTL file") {
		t.Errorf("Connect: %v; want that the certificate is not in the CTL file", err)
	}
	if err := <-served; err == nil {
		t.Error("the server finished its handshake")
	}
	l.Close()
}

func TestBrokenPeers(t *testing.T) {
	ctx := testContext(t)
	l := newPlainLab(t, CallManagerConfig{}, PhoneConfig{Protocol: SCCP}, PhoneConfig{Protocol: SIP})
	h := loopback(t, 40)
	sccp := PlainDial(h, netip.AddrPortFrom(loopback(t, 1).Addr(), 42000))
	sip := PlainDial(h, netip.AddrPortFrom(loopback(t, 1).Addr(), 45060))

	// The call manager is an honest peer, but it must outlive these.
	half, err := SendHalf(ctx, sccp, sccpMessage{id: msgKeepAlive, data: make(fields, 8)}.bytes())
	must(t, err)
	slow, err := SendSlowly(ctx, sccp, sccpMessage{id: msgKeepAlive}.bytes(), time.Millisecond)
	must(t, err)
	slow.SetReadDeadline(time.Now().Add(5 * time.Second))
	if m, err := readSCCP(slow); err != nil || m.id != msgKeepAliveAck {
		t.Errorf("slow KeepAlive: %+v, %v", m, err)
	}
	if n, err := SendEndless(ctx, sip, EndlessSIP(), 'x', 10<<20); err == nil {
		t.Errorf("a header of %d bytes is taken", n)
	}
	for name, msg := range map[string][]byte{
		"sccp, length 4 GB":       LyingSCCP(1, 0xffffffff, 8),
		"sccp, length 0":          LyingSCCP(1, 0, 8),
		"sip, negative length":    LyingSIP(-1, 4),
		"sip, length over 64 KiB": LyingSIP(1<<20, 4),
	} {
		dial := sccp
		if strings.HasPrefix(name, "sip") {
			dial = sip
		}
		c, err := dial(ctx)
		must(t, err)
		c.Write(msg)
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v; want the end of the connection", name, err)
		}
		c.Close()
	}
	stalled, err := StalledTLS(ctx, h, netip.AddrPortFrom(loopback(t, 1).Addr(), 42000), 20)
	must(t, err)
	stalled.SetReadDeadline(time.Now().Add(5 * time.Second))
	io.ReadAll(stalled)
	flood := Flood(ctx, h, netip.AddrPortFrom(loopback(t, 1).Addr(), 42000), 50)
	if len(flood) != 50 {
		t.Errorf("%d of 50 connections", len(flood))
	}
	for _, c := range append(flood, half, slow, stalled) {
		c.Close()
	}
	if v := l.ucm.Violations(); len(v) != 1 || !strings.Contains(v[0], "begins with byte 0x16") {
		t.Errorf("violations %q, want one for TLS", v)
	}
	must(t, l.a.Boot(ctx))
	must(t, l.a.Register(ctx))
}

func TestOldClientHello(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan *tls.ClientHelloInfo, 1)
	go func() {
		tls.Server(b, &tls.Config{MinVersion: tls.VersionTLS10, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			done <- h
			return nil, fmt.Errorf("seen")
		}}).HandshakeContext(context.Background())
		b.Close()
	}()
	go a.Write(oldClientHello())
	a.SetReadDeadline(time.Now().Add(10 * time.Second))
	go io.Copy(io.Discard, a)
	select {
	case h := <-done:
		if len(h.CipherSuites) != 2 || h.CipherSuites[0] != tls.TLS_RSA_WITH_AES_128_CBC_SHA || len(h.SupportedCurves) != 0 {
			t.Errorf("hello %+v", h)
		}
	case <-time.After(10 * time.Second):
		t.Error("ClientHello is not understood")
	}
}
