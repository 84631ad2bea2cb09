package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// chance is a fixed source of randomness for a test.
func chance(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func loopback(t *testing.T, last byte) *KernelHost {
	t.Helper()
	h, err := NewKernelHost("", netip.AddrFrom4([4]byte{127, 0, 41, last}))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// plainLab is a call manager on the loopback and two plain phones.
type plainLab struct {
	ucm  *CallManager
	a, b *Phone
}

// newPlainLab starts the peers at ports of their own, so that nothing of the
// machine is in the way.
func newPlainLab(t *testing.T, c CallManagerConfig, pa, pb PhoneConfig) *plainLab {
	t.Helper()
	c.Host = loopback(t, 1)
	c.SCCPPort, c.SIPPort, c.TFTPPort = 42000, 45060, 40069
	c.RefuseUnreachable = true
	c.MediaNets = []netip.Prefix{netip.MustParsePrefix("127.0.41.0/24")}
	c.Rand = chance(1)
	c.Log = t.Logf
	c.Lines = []LineConfig{
		{"SEP020000000001", "4101", pa.Protocol},
		{"SEP020000000002", "4102", pb.Protocol},
		{"SEP020000000003", "4103", pb.Protocol}, // never registers
	}
	ucm, err := NewCallManager(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ucm.Close() })
	l := &plainLab{ucm: ucm}
	phone := func(n byte, pc PhoneConfig, tone int) *Phone {
		pc.Host = loopback(t, 10+n)
		pc.MAC = fmt.Sprintf("02000000000%d", n)
		pc.Line = fmt.Sprintf("410%d", n)
		pc.TFTP = ucm.TFTP().Addr()
		pc.Tone = tone
		pc.Rand = chance(10 + n)
		pc.Log = t.Logf
		p, err := NewPhone(pc)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	l.a, l.b = phone(1, pa, 700), phone(2, pb, 1150)
	return l
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// heardWithin waits until both phones have heard n frames of each other since
// the given reports.
func heardWithin(t *testing.T, ctx context.Context, a, b *Phone, sinceA, sinceB Report, n int) {
	t.Helper()
	for {
		ra, rb := a.Report().Since(sinceA), b.Report().Since(sinceB)
		if ra.Tones[b.Tone()] >= n && rb.Tones[a.Tone()] >= n {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("heard %v of %d Hz and %v of %d Hz, want %d frames each",
				ra.Tones, b.Tone(), rb.Tones, a.Tone(), n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPlainCall(t *testing.T) {
	tests := []struct {
		name string
		ucm  CallManagerConfig
		a, b PhoneConfig
	}{
		{"sccp 19", CallManagerConfig{}, PhoneConfig{Protocol: SCCP}, PhoneConfig{Protocol: SCCP}},
		{"sccp 20 and 17", CallManagerConfig{}, PhoneConfig{Protocol: SCCP, Version: 22}, PhoneConfig{Protocol: SCCP, Version: 17}},
		{"sccp 22", CallManagerConfig{MaxVersion: 22}, PhoneConfig{Protocol: SCCP, Version: 22}, PhoneConfig{Protocol: SCCP, Version: 22}},
		{"sccp 11 and 15", CallManagerConfig{}, PhoneConfig{Protocol: SCCP, Version: 11}, PhoneConfig{Protocol: SCCP, Version: 15}},
		{"sccp 5", CallManagerConfig{}, PhoneConfig{Protocol: SCCP, Version: 5}, PhoneConfig{Protocol: SCCP, Version: 5}},
		{"sip", CallManagerConfig{}, PhoneConfig{Protocol: SIP}, PhoneConfig{Protocol: SIP}},
		{"sip delayed offer", CallManagerConfig{DelayedOffer: true}, PhoneConfig{Protocol: SIP}, PhoneConfig{Protocol: SIP}},
		{"sip udp, hold with 0.0.0.0", CallManagerConfig{}, PhoneConfig{Protocol: SIP, UDP: true, ZeroHold: true}, PhoneConfig{Protocol: SIP, UDP: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newPlainLab(t, tt.ucm, tt.a, tt.b)
			testCall(t, l)
		})
	}
}

func testCall(t *testing.T, l *plainLab) {
	ctx := testContext(t)
	for _, p := range []*Phone{l.a, l.b} {
		must(t, p.Boot(ctx))
		must(t, p.Register(ctx))
	}
	reg, ok := l.ucm.Registration("SEP020000000001")
	if want := netip.MustParseAddr("127.0.41.11"); !ok || reg.Source.Addr() != want || reg.Station.Addr() != want || reg.Number != "4101" {
		t.Errorf("registration %+v, %v; want station and source %v", reg, ok, want)
	}
	answered := make(chan error, 1)
	go func() { answered <- l.b.Answer(ctx) }()
	must(t, l.a.Dial(ctx, "4102"))
	must(t, <-answered)
	if got := l.b.Caller(); got != "4101" {
		t.Errorf("caller %q, want 4101", got)
	}
	heardWithin(t, ctx, l.a, l.b, Report{}, Report{}, 20)

	must(t, l.a.Hold(ctx))
	quiet(t, ctx, l.a, l.b)
	ra, rb := l.a.Report(), l.b.Report()
	must(t, l.a.Resume(ctx))
	heardWithin(t, ctx, l.a, l.b, ra, rb, 10)

	must(t, l.b.HangUp(ctx))
	must(t, l.a.Wait(ctx, Idle))
	for _, p := range []*Phone{l.a, l.b} {
		far := l.b
		if p == l.b {
			far = l.a
		}
		r := p.Report()
		if r.Heard() != far.Tone() || r.Lost != 0 || r.Malformed != 0 || r.AuthFailures != 0 {
			t.Errorf("%s: report %+v; want %d Hz and nothing lost", p.Name(), r, far.Tone())
		}
		if r.RTCPSent == 0 || r.RTCPReceived == 0 {
			t.Errorf("%s: RTCP sent %d, received %d", p.Name(), r.RTCPSent, r.RTCPReceived)
		}
		if got := p.Problems(); len(got) > 0 {
			t.Errorf("%s complains: %q", p.Name(), got)
		}
	}
	if v := l.ucm.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
	if n := l.ucm.Calls(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	must(t, l.a.Unregister(ctx))
	if _, ok := waitGone(ctx, l.ucm, l.a.Name()); ok {
		t.Errorf("%s is registered after Unregister", l.a.Name())
	}
	if l.a.config.Protocol == SCCP {
		if s := strings.Join(l.ucm.Statistics(), "\n"); !strings.Contains(s, "SEP020000000001 sent=") || !strings.Contains(s, "lost=0") {
			t.Errorf("statistics %q", s)
		}
	}
}

// waitGone waits until the call manager has forgotten a device.
func waitGone(ctx context.Context, m *CallManager, device string) (Registration, bool) {
	for {
		r, ok := m.Registration(device)
		if !ok || ctx.Err() != nil {
			return r, ok
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// quiet waits until neither phone has sent for a while.
func quiet(t *testing.T, ctx context.Context, a, b *Phone) {
	t.Helper()
	for {
		sa, sb := a.Report().Sent, b.Report().Sent
		select {
		case <-ctx.Done():
			t.Fatal("phones go on sending on hold")
		case <-time.After(150 * time.Millisecond):
		}
		if a.Report().Sent == sa && b.Report().Sent == sb {
			return
		}
	}
}
