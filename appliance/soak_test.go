package appliance_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
	"patchbay/stack"
)

// A soak is a running box with plain phones inside, behind PAT, and the call
// manager and more phones outside.
type soak struct {
	t             *testing.T
	app           *appliance.Appliance
	lan, internet *lab.Network
	gone          atomic.Pointer[netip.Addr] // a host inside whose cable is out
	log           *syncBuffer
}

// soakKinds are the ways in which plain phones signal.
var soakKinds = []struct {
	name  string
	proto lab.Protocol
	udp   bool
}{{"SCCP", lab.SCCP, false}, {"SIP over TCP", lab.SIP, false}, {"SIP over UDP", lab.SIP, true}}

// startSoak runs the box until the test ends.
func startSoak(t *testing.T) *soak {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	s := &soak{t: t, lan: lab.NewNetwork(0), internet: lab.NewNetwork(0), log: &syncBuffer{}}
	s.lan.Filter = func(b []byte) bool {
		gone := s.gone.Load()
		return gone == nil || netip.AddrFrom4([4]byte(b[12:])) != *gone && netip.AddrFrom4([4]byte(b[16:])) != *gone
	}
	t.Cleanup(func() {
		s.lan.Close()
		s.internet.Close()
	})
	r, findings := config.Check("plain.cfg", strings.NewReader(plainConfig))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	s.app, err = appliance.New(r, appliance.Options{
		Store: store, Rand: rand.NewChaCha8([32]byte{11}), Log: slog.New(slog.NewTextHandler(s.log, nil)),
		Links: map[string]stack.Link{"inside": s.lan.Port(everywhere), "outside": s.internet.Port(netip.MustParsePrefix(plainBox + "/32"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.app.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			text := s.log.String()
			t.Logf("log:\n%s", text[max(0, len(text)-6000):])
		}
	})
	return s
}

// host puts a host on a network.
func (s *soak) host(n *lab.Network, addr string) *lab.StackHost {
	s.t.Helper()
	p := netip.PrefixFrom(netip.MustParseAddr(addr), 24)
	h, err := lab.NewStackHost(p, 0, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { h.Close() })
	n.Attach(h.Link(), netip.PrefixFrom(p.Addr(), 32))
	return h
}

// soakEnds are how a call, once both have heard each other, comes to an end.
var soakEnds = []struct {
	name string
	end  func(s *soak, ctx context.Context, inside, outside *lab.Phone, host *lab.StackHost)
}{
	{"hung up inside", func(s *soak, ctx context.Context, inside, _ *lab.Phone, _ *lab.StackHost) {
		s.must(inside.HangUp(ctx))
	}},
	{"hung up outside", func(s *soak, ctx context.Context, _, outside *lab.Phone, _ *lab.StackHost) {
		s.must(outside.HangUp(ctx))
	}},
	{"the phone inside ends", func(_ *soak, _ context.Context, inside, _ *lab.Phone, _ *lab.StackHost) { inside.Close() }},
	{"the phone outside ends", func(_ *soak, _ context.Context, _, outside *lab.Phone, _ *lab.StackHost) { outside.Close() }},
	{"the phone inside is on hold and ends", func(s *soak, ctx context.Context, inside, _ *lab.Phone, _ *lab.StackHost) {
		s.must(inside.Hold(ctx))
		inside.Close()
	}},
	{"the cable inside is cut", func(s *soak, _ context.Context, inside, _ *lab.Phone, host *lab.StackHost) {
		addr := host.Addr()
		s.gone.Store(&addr)
		inside.Close()
		host.Close()
	}},
}

func (s *soak) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestSoak has plain phones of every kind call through PAT and the plain
// inspections, and end their calls in every way. When the timeouts are over the
// box knows of no connection, pinhole or translation, and nothing of it is left
// running for a phone that is gone.
func TestSoak(t *testing.T) {
	for _, kind := range soakKinds {
		t.Run(kind.name, func(t *testing.T) {
			s := startSoak(t)
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			const inside, outside = "200", "300"
			mac := func(i int, line string) string { return fmt.Sprintf("0200000%02d%s", i, line) }
			var lines []lab.LineConfig
			for i := range soakEnds {
				for _, l := range []string{inside, outside} {
					lines = append(lines, lab.LineConfig{Device: "SEP" + mac(i, l), Number: fmt.Sprint(l, i), Protocol: kind.proto})
				}
			}
			m, err := lab.NewCallManager(lab.CallManagerConfig{Host: s.host(s.internet, plainServer), Lines: lines,
				MediaNets: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, RefuseUnreachable: true})
			s.must(err)
			defer m.Close()
			for i, e := range soakEnds {
				phone := func(h lab.Host, line string, tone int) *lab.Phone {
					p, err := lab.NewPhone(lab.PhoneConfig{Host: h, Protocol: kind.proto, UDP: kind.udp, MAC: mac(i, line), Line: fmt.Sprint(line, i),
						Manager: netip.MustParseAddrPort(plainServer + map[lab.Protocol]string{lab.SCCP: ":2000", lab.SIP: ":5060"}[kind.proto]),
						Tone:    tone, AutoAnswer: true})
					s.must(err)
					t.Cleanup(func() { p.Close() })
					return p
				}
				h := s.host(s.lan, fmt.Sprintf("10.20.0.%d", 50+i))
				a, b := phone(h, inside, 700), phone(s.host(s.internet, fmt.Sprintf("203.0.113.%d", 50+i)), outside, 1100)
				s.must(a.Register(ctx))
				s.must(b.Register(ctx))
				from, to := a, b
				if i%2 == 1 {
					from, to = b, a
				}
				s.must(from.Dial(ctx, to.Line()))
				s.must(to.Wait(ctx, lab.Connected))
				for a.Report().Tones[b.Tone()] < 5 || b.Report().Tones[a.Tone()] < 5 {
					select {
					case <-ctx.Done():
						t.Fatalf("%s: the phones do not hear each other: %+v, %+v", e.name, a.Report(), b.Report())
					case <-time.After(5 * time.Millisecond):
					}
				}
				if _, holes, leases, _ := s.app.InUse(); leases == 0 || !kind.udp && s.app.Talks() == 0 {
					t.Errorf("%s: during the call there are %d pinholes, %d translations and %d conversations: this test proves nothing", e.name, holes, leases, s.app.Talks())
				}
				e.end(s, ctx, a, b, h)
				a.Close()
				b.Close()
			}
			if v := m.Violations(); len(v) > 0 {
				t.Errorf("the call manager saw %q", v)
			}
			m.Close()
			s.settled(ctx)
		})
	}
}

// settled lets the timeouts be over and checks that nothing is left.
func (s *soak) settled(ctx context.Context) {
	s.t.Helper()
	now := time.Now()
	for {
		for range 8 { // the longest is that of translations, three hours
			now = now.Add(time.Hour)
			s.app.Expire(now)
		}
		conns, holes, leases, ended := s.app.InUse()
		served := s.app.Talks()
		if conns == 0 && holes == 0 && leases == 0 && ended == 0 && served == 0 {
			return
		}
		// What was in flight may have opened something anew.
		select {
		case <-ctx.Done():
			s.t.Fatalf("after all timeouts there are %d connections, %d pinholes and %d translations, %d conversations can be found, and %d go on", conns, holes, leases, ended, served)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
