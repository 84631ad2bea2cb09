package appliance_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/inspect"
)

// heap is what is in use after a collection, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// ended waits until the other end closes c.
func ended(c net.Conn) error {
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(12 * time.Second))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the connection is still open")
	}
	return nil
}

// Peers that are broken or hostile, most of them with a good certificate, while
// a good call goes on: each ends alone, and costs little.
func TestBadPeers(t *testing.T) {
	const (
		reassembly = time.Second
		handshake  = 3 * time.Second
		total      = 10 << 20 // bytes that the endless ones would send
		taken      = 1 << 20  // bytes that may be taken of them: buffers on the way
	)
	b := start(t, setup{opt: func(o *appliance.Options) {
		o.Limits = inspect.Limits{Reassembly: reassembly, Write: 2 * time.Second}
		o.HandshakeTimeout = handshake
	}})
	p, q := b.up(lab.Remote, lab.SCCP), b.up(lab.Inside, lab.SCCP)
	b.call(p, q)

	// Two phones that would be good.
	bad := func(proto lab.Protocol, addr, mac string) lab.Dialer {
		b.lab.Manager.TFTP().Put("SEP"+mac+".cnf.xml", cnf(strings.ToUpper(string(proto))))
		x := b.phone(addr, lab.PhoneConfig{Protocol: proto, MAC: mac, Line: "4998", Identity: identity(t, phoneCA(), mac), ExtraFiles: []string{}})
		b.must(x.Boot(b.ctx))
		return x.Connect
	}
	sccp, sip := bad(lab.SCCP, "198.51.100.98", "0200C6336462"), bad(lab.SIP, strangerAddr, strangerMAC)
	h := b.host(b.lab.Internet, "198.51.100.97")
	before := heap()

	sent := func(n int, err error) error {
		if err == nil || n > taken {
			return fmt.Errorf("%d bytes of %d were taken: %v", n, total, err)
		}
		return nil
	}
	half := func(d lab.Dialer, msg []byte) func(context.Context) error {
		return func(ctx context.Context) error {
			begin := time.Now()
			c, err := lab.SendHalf(ctx, d, msg)
			if err != nil {
				return err
			}
			if err := ended(c); err != nil {
				return err
			}
			if took := time.Since(begin); took < reassembly {
				return fmt.Errorf("ended after %v", took)
			}
			return nil
		}
	}
	whole := func(d lab.Dialer, msg []byte) func(context.Context) error {
		return func(ctx context.Context) error {
			c, err := d(ctx)
			if err != nil {
				return err
			}
			if _, err := c.Write(msg); err != nil {
				return err
			}
			return ended(c)
		}
	}
	peers := []struct {
		name string
		run  func(context.Context) error
	}{
		{"half an SCCP message", half(sccp, lab.LyingSCCP(1, 104, 100))},
		{"half a SIP message", half(sip, lab.LyingSIP(100, 100))},
		{"SCCP byte by byte", func(ctx context.Context) error {
			c, err := lab.SendSlowly(ctx, sccp, lab.LyingSCCP(1, 104, 100), 50*time.Millisecond)
			if err == nil {
				c.Close()
				return errors.New("it was never ended")
			}
			return nil
		}},
		{"SCCP without end", func(ctx context.Context) error {
			return sent(lab.SendEndless(ctx, sccp, lab.LyingSCCP(1, 0x7fffffff, 0), 0, total))
		}},
		{"SCCP whose length overflows", whole(sccp, lab.LyingSCCP(1, 0xffffffff, 10))},
		{"SCCP whose length is nothing", whole(sccp, lab.LyingSCCP(1, 0, 10))},
		{"Register cut short, then silence", half(sccp, lab.LyingSCCP(1, 200, 100))},
		{"SIP header without end", func(ctx context.Context) error {
			return sent(lab.SendEndless(ctx, sip, lab.EndlessSIP(), 'x', total))
		}},
		{"SIP body without end", func(ctx context.Context) error {
			return sent(lab.SendEndless(ctx, sip, lab.LyingSIP(1<<30, 0), 'x', total))
		}},
		{"SIP body longer than it is", whole(sip, lab.LyingSIP(500, 10))},
		{"SIP body shorter than it is", whole(sip, lab.LyingSIP(5, 100))},
		{"no SIP at all", whole(sip, []byte("\x00\x01\x02 GET / HTTP/1.0\r\n\r\n"))},
		{"TLS that stalls after nothing", func(ctx context.Context) error {
			c, err := lab.StalledTLS(ctx, h, secureSkinny, 0)
			if err != nil {
				return err
			}
			return ended(c)
		}},
		{"TLS that stalls in its hello", func(ctx context.Context) error {
			c, err := lab.StalledTLS(ctx, h, secureSkinny, 20)
			if err != nil {
				return err
			}
			return ended(c)
		}},
		{"TLS that stalls after its hello", func(ctx context.Context) error {
			c, err := lab.StalledTLS(ctx, h, secureSkinny, 1000)
			if err != nil {
				return err
			}
			return ended(c)
		}},
		{"no TLS", whole(lab.PlainDial(h, secureSkinny), lab.LyingSCCP(1, 104, 100))},
		{"sixty that say nothing", func(ctx context.Context) error {
			var errs []error
			for _, c := range lab.Flood(ctx, h, secureSkinny, 60) {
				errs = append(errs, ended(c))
			}
			return errors.Join(errs...)
		}},
	}
	var wg sync.WaitGroup
	for _, x := range peers {
		wg.Go(func() {
			if err := x.run(b.ctx); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	for quiet := false; !quiet; {
		b.heard(p, q)
		select {
		case <-done:
			quiet = true
		default:
		}
	}
	b.heard(p, q)
	b.eventually("a bad peer is a session still", func() bool { return len(b.app.PhoneSessions()) == 1 })
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
	b.must(p.HangUp(b.ctx))
	b.idle()
	for _, v := range b.lab.Manager.Violations() { // a lie that is well formed reaches the UCM
		if !strings.Contains(v, "from "+strangerAddr) {
			t.Errorf("the call manager saw %q", v)
		}
	}
	if e := b.lab.Exposed(); len(e) > 0 {
		t.Errorf("in the clear outside: %q", e)
	}
}

// Neither what the box says at its most talkative nor a dropped message shows a
// key: no a=crypto and no run of bytes in hex or base64 as long as one that is
// not a serial number or a name.
func TestNoKeysInLog(t *testing.T) {
	b := start(t, setup{})
	var secrets []string
	for _, proto := range []lab.Protocol{lab.SIP, lab.SCCP} {
		p, q := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
		b.call(p, q)
		b.must(p.Hold(b.ctx))
		b.must(p.Resume(b.ctx))
		b.heard(p, q)
		b.must(q.HangUp(b.ctx))
		b.must(p.Wait(b.ctx, lab.Idle))
	}
	b.idle()
	b.must(b.stop())
	for _, k := range boxKeys().keys {
		d := k.D.Bytes()
		secrets = append(secrets, hex.EncodeToString(d[:16]), base64.StdEncoding.EncodeToString(d[:18]))
	}
	text := b.log.String()
	if strings.Count(text, "media session opened") < 2 {
		t.Error("the log is not talkative")
	}
	for _, s := range append(secrets, "inline:", "a=crypto", "PRIVATE KEY") {
		if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
			t.Errorf("%.20q is in the log", s)
		}
	}
	// 16 bytes in hex, 30 in base64, and slices of bytes as Go prints them.
	for _, re := range []string{`(?i)\b[0-9a-f]{28,}\b`, `[A-Za-z0-9+/]{38,}`, `(\d{1,3},? ){13,}`, `(?i)(\b[0-9a-f]{2} ){13,}`} {
		if m := regexp.MustCompile(re).FindAllString(text, 3); m != nil {
			t.Errorf("%s: the log has %q", re, m)
		}
	}
}
