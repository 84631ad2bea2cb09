package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/stack"
)

// pump carries packets from one link to another until one is closed.
func pump(from, to stack.Link) {
	batch := make([]*stack.Packet, pumpBatch)
	for i := range batch {
		batch[i] = stack.NewPacket(from.MTU())
	}
	for {
		n, err := from.Read(batch)
		if err != nil || to.Write(batch[:n]) != nil {
			return
		}
	}
}

func TestMemoryLabOutside(t *testing.T) {
	ctx := testContext(t)
	ca, err := NewCA(CAName, 1024, 3, nil, nil)
	must(t, err)
	l, err := NewMemoryLab(Options{CA: ca, KeyBits: 1024, Log: t.Logf})
	must(t, err)
	defer l.Close()

	// In place of the appliance, a host that has its mapped address.
	h, err := NewStackHost(netip.MustParsePrefix("203.0.113.10/24"), 0, nil)
	must(t, err)
	done := make(chan struct{}, 2)
	for _, ends := range [][2]stack.Link{{l.Outside(), h.Link()}, {h.Link(), l.Outside()}} {
		go func() {
			pump(ends[0], ends[1])
			done <- struct{}{}
		}()
	}
	defer func() {
		h.Close()
		l.Close()
		<-done
		<-done
	}()
	files, err := ServeTFTP(h, 0)
	must(t, err)
	defer files.Close()
	want := bytes.Repeat([]byte("patchbay"), 1000)
	files.Put("file", want)
	echo, err := h.ListenTCP(netip.AddrPortFrom(netip.Addr{}, 2443))
	must(t, err)
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
	for _, place := range []Place{Remote, AtHome} {
		for _, proto := range []Protocol{SCCP, SIP} {
			p := l.Phone(place, proto)
			got, err := TFTPGet(ctx, p.config.Host, p.config.TFTP, "file")
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %s: %d bytes, %v", place, proto, len(got), err)
			}
			c, err := p.config.Host.DialTCP(ctx, netip.AddrPort{}, netip.MustParseAddrPort("203.0.113.10:2443"))
			if err != nil {
				t.Errorf("%s %s: %v", place, proto, err)
				continue
			}
			b, err := io.ReadAll(c)
			c.Close()
			seen := p.config.Host.Addr().String()
			if place == AtHome {
				seen = "198.51.100.30"
			}
			if err != nil || !strings.HasPrefix(string(b), seen+":") {
				t.Errorf("%s %s is seen as %q, %v; want %s", place, proto, b, err, seen)
			}
		}
	}
	if n := l.Internet.Stats().BadChecksum.Load() + l.Home.Stats().BadChecksum.Load(); n != 0 {
		t.Errorf("%d packets with bad checksums", n)
	}
}

// testLab is a Lab of three plain phones that need no appliance: scenario
// steps are the same.
func testLab(t *testing.T) *Lab {
	n := NewNetwork(0)
	l := &Lab{closers: []io.Closer{n}}
	t.Cleanup(func() { l.Close() })
	host := func(addr string) Host {
		p := netip.MustParsePrefix(addr + "/24")
		h, err := NewStackHost(p, 0, nil)
		must(t, err)
		n.Attach(h.Link(), netip.PrefixFrom(p.Addr(), 32))
		l.closers = append(l.closers, h)
		return h
	}
	lines := []LineConfig{{"SEP020000000001", "4001", SCCP}, {"SEP020000000002", "4101", SCCP}, {"SEP020000000003", "4103", SCCP}}
	var err error
	l.Manager, err = NewCallManager(CallManagerConfig{Host: host("10.20.0.11"), Lines: lines, RefuseUnreachable: true, Rand: chance(1)})
	must(t, err)
	l.Managers = map[string]*CallManager{"ucm": l.Manager}
	l.closers = append(l.closers, l.Manager)
	for i, place := range []Place{Inside, Remote, AtHome} {
		p, err := NewPhone(PhoneConfig{
			Host: host([]string{"10.20.0.50", "10.20.0.51", "10.20.0.52"}[i]), Protocol: SCCP, MAC: lines[i].Device[3:],
			Line: lines[i].Number, AutoAnswer: true, TFTP: l.Manager.TFTP().Addr(), Tone: 500 + 150*i, Rand: chance(byte(i)),
		})
		must(t, err)
		l.closers = append(l.closers, p)
		l.Phones = append(l.Phones, LabPhone{p, place, SCCP})
	}
	return l
}

func TestRunCalls(t *testing.T) {
	l := testLab(t)
	var steps []string
	results := RunCalls(testContext(t), l, CallOptions{
		Protocols: []Protocol{SCCP}, Talk: 200 * time.Millisecond, NoHome: true,
		Step: func(r StepResult) { steps = append(steps, r.Name) },
	})
	var names []string
	for _, r := range results {
		names = append(names, r.Name)
		if !r.OK {
			t.Errorf("%v", r)
		}
		if line := r.String(); !strings.HasPrefix(line, "ok ") {
			t.Errorf("line %q", line)
		}
	}
	want := []string{
		"inside sccp phone boots by TFTP", "inside sccp phone registers",
		"remote sccp phone boots by TFTP", "remote sccp phone registers",
		"sccp: remote calls inside", "sccp: remote calls inside, hold and resume by 4101",
		"sccp: remote calls inside, hold and resume by 4001", "sccp: remote calls inside, hang-up",
		"sccp: inside calls remote", "sccp: inside calls remote, hold and resume by 4001",
		"sccp: inside calls remote, hold and resume by 4101", "sccp: inside calls remote, hang-up",
		"call manager saw nothing it cannot have", "nothing crossed the Internet in the clear",
	}
	if !slices.Equal(names, want) || !slices.Equal(steps, want) {
		t.Errorf("steps %q, reported %q, want %q", names, steps, want)
	}
	m := results[4].Measures
	if len(m) != 2 || m[0].HeardHz != 500 || m[1].HeardHz != 650 || m[0].Sent < 5 {
		t.Errorf("measures %+v", m)
	}
	if b, err := json.Marshal(results[4]); err != nil || !bytes.Contains(b, []byte(`"heard_hz":500`)) {
		t.Errorf("JSON %s, %v", b, err)
	}
}

// What the wire loses must be seen.
func TestRunCallsNoticesLoss(t *testing.T) {
	l := testLab(t)
	var lose atomic.Bool
	n := l.closers[0].(*Network)
	var count atomic.Int64
	n.Filter = func(b []byte) bool {
		if !lose.Load() || b[9] != protoUDP || netip.AddrFrom4([4]byte(b[16:20])) != netip.MustParseAddr("10.20.0.50") {
			return true
		}
		return count.Add(1)%3 != 0
	}
	results := RunCalls(testContext(t), l, CallOptions{
		Protocols: []Protocol{SCCP}, Talk: time.Second, NoHome: true, NoHold: true,
		Step: func(r StepResult) { lose.Store(r.Name == "remote sccp phone registers" || lose.Load()) },
	})
	var failed []string
	for _, r := range results {
		if !r.OK {
			failed = append(failed, r.Name+": "+r.Err)
		}
	}
	if len(failed) != 2 || !strings.Contains(failed[0], "4001 received") {
		t.Errorf("failed: %q; want both calls, for 4001 receives too little", failed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, r := range RunCalls(ctx, l, CallOptions{}) {
		if r.OK && strings.Contains(r.Name, "phone") {
			t.Errorf("%s went well without time", r.Name)
		}
	}
}

func TestCallsThatFail(t *testing.T) {
	for _, proto := range []Protocol{SCCP, SIP} {
		t.Run(string(proto), func(t *testing.T) {
			ctx := testContext(t)
			l := newPlainLab(t, CallManagerConfig{}, PhoneConfig{Protocol: proto}, PhoneConfig{Protocol: proto})
			for _, p := range []*Phone{l.a, l.b} {
				must(t, p.Boot(ctx))
				must(t, p.Register(ctx))
			}
			for _, number := range []string{"4103", "9999"} { // not registered; unknown
				if err := l.a.Dial(ctx, number); err == nil {
					t.Errorf("call to %s is answered", number)
				}
				must(t, l.a.Wait(ctx, Idle))
			}
			// The caller gives up.
			dialed := make(chan error, 1)
			go func() { dialed <- l.a.Dial(ctx, "4102") }()
			must(t, l.b.Wait(ctx, Ringing))
			must(t, l.a.Wait(ctx, Ringback))
			must(t, l.a.HangUp(ctx))
			must(t, l.b.Wait(ctx, Idle))
			if err := <-dialed; err == nil {
				t.Error("Dial went well though we hung up")
			}
			// The other does not want to.
			go func() { dialed <- l.a.Dial(ctx, "4102") }()
			must(t, l.b.Wait(ctx, Ringing))
			must(t, l.b.HangUp(ctx))
			if err := <-dialed; err == nil {
				t.Error("Dial went well though the other hung up")
			}
			must(t, l.a.Wait(ctx, Idle))
			// The connection is lost in a call.
			answered := make(chan error, 1)
			go func() { answered <- l.b.Answer(ctx) }()
			must(t, l.a.Dial(ctx, "4102"))
			must(t, <-answered)
			must(t, l.ucm.Disconnect(l.a.Name()))
			must(t, l.a.Wait(ctx, Unregistered))
			must(t, l.b.Wait(ctx, Idle))
			if err := l.a.Dial(ctx, "4102"); err == nil {
				t.Error("an unregistered phone calls")
			}
			must(t, l.a.Register(ctx))
			if v := append(l.ucm.Violations(), append(l.a.Problems(), l.b.Problems()...)...); len(v) > 0 {
				t.Errorf("complaints: %q", v)
			}
		})
	}
}

func TestRegistrationIsKeptAlive(t *testing.T) {
	ctx := testContext(t)
	l := newPlainLab(t, CallManagerConfig{KeepAlive: time.Second, Expires: 2 * time.Second},
		PhoneConfig{Protocol: SCCP}, PhoneConfig{Protocol: SIP})
	for _, p := range []*Phone{l.a, l.b} {
		must(t, p.Boot(ctx))
		must(t, p.Register(ctx))
	}
	for _, p := range []*Phone{l.a, l.b} {
		waitFor(t, "renewal of "+p.Name(), func() bool {
			r, ok := l.ucm.Registration(p.Name())
			return ok && r.Renewed >= 1
		})
	}
	must(t, l.ucm.Reset(l.a.Name(), 2))
	must(t, l.a.Wait(ctx, Unregistered))
	if err := l.ucm.Reset("SEP000000000000", 2); err == nil {
		t.Error("an unknown device is reset")
	}
}

func TestRegistrationRefused(t *testing.T) {
	for _, proto := range []Protocol{SCCP, SIP} {
		t.Run(string(proto), func(t *testing.T) {
			ctx := testContext(t)
			l := newPlainLab(t, CallManagerConfig{}, PhoneConfig{Protocol: proto}, PhoneConfig{Protocol: proto})
			l.a.name = "SEP0200000000EE"
			l.a.config.Manager = netip.AddrPortFrom(loopback(t, 1).Addr(), map[Protocol]uint16{SCCP: 42000, SIP: 45060}[proto])
			if err := l.a.Register(ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("unknown device: %v", err)
			}
		})
	}
}

func TestNewPhoneRefuses(t *testing.T) {
	for name, c := range map[string]PhoneConfig{
		"MAC":      {MAC: "02:00:00:00:00:01", Protocol: SIP},
		"protocol": {MAC: "020000000001", Protocol: "h323"},
		"tone":     {MAC: "020000000001", Protocol: SIP, Tone: 1001},
	} {
		if p, err := NewPhone(c); err == nil {
			t.Errorf("%s: phone %v", name, p.Name())
		}
	}
}
