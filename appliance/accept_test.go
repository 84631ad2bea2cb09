package appliance_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/stack"
	"patchbay/stack/link"
)

var secureSkinny = netip.MustParseAddrPort("203.0.113.10:2443")

// stranger's device; the lab's own remote phone is 0200C6336407.
const (
	strangerMAC  = "0200C6336463"
	strangerAddr = "198.51.100.99"
)

// untouched checks that the UCM has no more phones than it had, and that the
// box holds nothing for those who were refused.
func (b *box) untouched(device string) {
	b.t.Helper()
	if r, ok := b.lab.Manager.Registration(device); ok {
		b.t.Errorf("the UCM has %+v", r)
	}
	b.eventually("a phone that was refused is a session", func() bool { return len(b.app.PhoneSessions()) == 0 })
}

func TestStrangers(t *testing.T) {
	anotherCA := func(t *testing.T, ca *lab.CA, why string) {
		b := start(t, setup{})
		p := b.phone(strangerAddr, lab.PhoneConfig{Protocol: lab.SCCP, MAC: strangerMAC, Line: "4999", Identity: identity(t, ca, strangerMAC), ExtraFiles: []string{}})
		b.lab.Manager.TFTP().Put("SEP"+strangerMAC+".cnf.xml", cnf("SCCP"))
		b.must(p.Boot(b.ctx)) // files are not secret
		if err := p.Register(b.ctx); err == nil {
			t.Error("it registered")
		}
		b.untouched("SEP" + strangerMAC)
		b.eventually("the log does not say why", func() bool {
			s := b.log.String()
			return strings.Contains(s, why) && strings.Contains(s, "SEP"+strangerMAC) && strings.Contains(s, strangerAddr)
		})
	}
	t.Run("certificate of another CA", func(t *testing.T) { anotherCA(t, newCA("Other CA"), "No suitable trustpoints found") })
	t.Run("certificate of a forged CA", func(t *testing.T) { anotherCA(t, newCA(lab.CAName), "did not sign it") })
	t.Run("no certificate", func(t *testing.T) {
		b := start(t, setup{})
		h := b.host(b.lab.Internet, strangerAddr)
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13} {
			raw, err := h.DialTCP(b.ctx, netip.AddrPort{}, secureSkinny)
			b.must(err)
			defer raw.Close()
			raw.SetDeadline(time.Now().Add(20 * time.Second))
			c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
				CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}})
			err = c.Handshake()
			if err == nil { // TLS 1.3 tells the client afterwards
				_, err = c.Read(make([]byte, 1))
			}
			var timeout net.Error
			if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s without certificate: %v", tls.VersionName(version), err)
			}
			raw.Close()
		}
		b.untouched("SEP" + strangerMAC)
		b.eventually("the log does not say why", func() bool {
			return strings.Count(b.log.String(), "No certificates received during the handshake") == 3
		})
	})
	t.Run("another's name", func(t *testing.T) {
		for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
			b := start(t, setup{})
			victim := b.up(lab.Remote, proto)
			was, _ := b.lab.Manager.Registration(victim.Name())
			p := b.phone(strangerAddr, lab.PhoneConfig{Protocol: proto, MAC: strings.TrimPrefix(victim.Name(), "SEP"), Line: victim.Line(),
				Identity: identity(t, phoneCA(), strangerMAC), ExtraFiles: []string{}})
			b.must(p.Boot(b.ctx))
			if err := p.Register(b.ctx); err == nil {
				t.Errorf("%s: it registered as %s", proto, victim.Name())
			}
			now, ok := b.lab.Manager.Registration(victim.Name())
			if !ok || now.Source != was.Source || victim.State() != lab.Idle {
				t.Errorf("%s: the victim's registration was %+v and is %+v, %v; it is %v", proto, was, now, ok, victim.State())
			}
			b.eventually("the log does not say why", func() bool {
				return strings.Contains(b.log.String(), "device name is not the certificate's")
			})
			q := b.up(lab.Inside, proto)
			b.call(q, victim)
			b.honest()
		}
	})
}

// cnf is a configuration as the lab's call manager has them for its own lines.
func cnf(protocol string) []byte {
	return []byte(`<?xml version="1.0" encoding="UTF-8"?>
<device><deviceProtocol>` + protocol + `</deviceProtocol><devicePool><callManagerGroup><members>
<member priority="0"><callManager><ports><ethernetPhonePort>2000</ethernetPhonePort><sipPort>5060</sipPort><securedSipPort>5061</securedSipPort></ports>
<processNodeName>10.20.0.11</processNodeName></callManager></member></members></callManagerGroup></devicePool>
<deviceSecurityMode>1</deviceSecurityMode><transportLayerProtocol>1</transportLayerProtocol></device>
`)
}

// A phone whose entry timed out: the ASA refused it, here it is let in unless
// the configuration says otherwise.
func TestReadmit(t *testing.T) {
	for _, word := range []string{"refuse", "readmit"} {
		t.Run(word, func(t *testing.T) {
			b := start(t, setup{config: []string{" ctl-file trust\n!\nclass-map", " ctl-file trust\n secure-phones " + word + "\n!\nclass-map"}})
			p := b.lab.Phone(lab.Remote, lab.SCCP)
			b.must(p.Boot(b.ctx))
			if n := len(b.app.Phones().List(time.Now())); n != 1 {
				t.Fatalf("%d secure phones after the boot", n)
			}
			b.app.Expire(time.Now().Add(6 * time.Minute))
			if n := len(b.app.Phones().List(time.Now())); n != 0 {
				t.Fatalf("%d secure phones after the timeout", n)
			}
			err := p.Register(b.ctx)
			if word == "readmit" {
				b.must(err)
				if all := b.app.Phones().List(time.Now()); len(all) != 1 || !all[0].Authenticated {
					t.Errorf("secure phones %+v", all)
				}
				return
			}
			if err == nil {
				t.Fatal("it registered")
			}
			b.untouched(p.Name())
			b.eventually("the log does not say why", func() bool { return strings.Contains(b.log.String(), "no secure-phone entry") })
			// It boots again and is welcome.
			b.must(p.Boot(b.ctx))
			b.must(p.Register(b.ctx))
		})
	}
}

// A request for files that comes by outside under an address of the inside is
// nobody's: the answer would tell the real addresses.
func TestForgedRequest(t *testing.T) {
	var asked atomic.Int64
	own := netip.MustParseAddr("203.0.113.2")
	b := start(t, setup{opt: func(o *appliance.Options) {
		o.Links["outside"] = link.Tap(o.Links["outside"], func(_ link.Direction, p *stack.Packet) {
			if raw := p.Data(); netip.AddrFrom4([4]byte(raw[12:16])) == own && raw[9] == byte(stack.UDP) {
				asked.Add(1)
			}
		})
	}})
	// The forger stands where it sees the answers.
	h := b.host(b.lab.Internet, "10.20.0.99")
	for _, name := range []string{"SEP0200C6336407.cnf.xml.sgn", "CTLSEP0200C6336407.tlv", "Ringlist.xml"} {
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		if file, err := lab.TFTPGet(ctx, h, netip.MustParseAddrPort("203.0.113.10:69"), name); err == nil {
			t.Errorf("%s: served %d bytes, the UCM's real address in it: %v", name, len(file), strings.Contains(string(file), "10.20.0.11"))
		}
	}
	if n := len(b.app.Phones().List(time.Now())); n != 0 {
		t.Errorf("%d secure phones", n)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the box asked for the file outside, %d times: whoever answers has it signed", n)
	}
	b.up(lab.Remote, lab.SCCP)
}

// One address that opens connections and never completes them holds up nobody
// else.
func TestSYNFlood(t *testing.T) {
	b := start(t, setup{})
	p := b.lab.Phone(lab.Remote, lab.SCCP)
	b.must(p.Boot(b.ctx))
	var syns [][]byte
	for i := range 6000 {
		f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(netip.MustParseAddr(strangerAddr), uint16(1024+i)), Dst: secureSkinny}
		syns = append(syns, stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, Seq: 1, MSS: 1460, Window: 4096}, nil))
	}
	for len(syns) > 0 { // as fast as the box takes them
		n := min(len(syns), 500)
		b.inject(b.lab.Internet, syns[:n]...)
		syns = syns[n:]
		time.Sleep(20 * time.Millisecond)
	}
	begin := time.Now()
	b.must(p.Register(b.ctx))
	t.Logf("registered %v after 6000 SYNs; drops %v", time.Since(begin), b.app.Drops())
	// A busy machine loses some of them on the wire before the box.
	if n, open := b.app.Drops()[stack.DropEmbryonic], b.app.Conns(); n < 1000 || open > 600 {
		t.Errorf("%d of 6000 SYNs of one address were dropped for the limit, %d connections are open", n, open)
	}
}
