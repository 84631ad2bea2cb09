package appliance_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
	"patchbay/stack"
)

// talk is how long a stretch of a call is that is listened to.
const talk = 300 * time.Millisecond

// A box is the appliance at work in a lab.
type box struct {
	t     *testing.T
	ctx   context.Context
	app   *appliance.Appliance
	lab   *lab.Lab
	flash string
	log   *syncBuffer
	stop  func() error // ends Run and returns what it returned; may be called again

	mu    sync.Mutex
	drops map[string]int // flow and verdict
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A setup varies a box. The zero value is the demo.
type setup struct {
	lab    lab.Options
	config []string // pairs for strings.NewReplacer
	flash  string   // "": a new one
	keys   *keyRing // nil: boxKeys
	opt    func(*appliance.Options)
}

// phoneCA is made once: keys take time.
var phoneCA = sync.OnceValue(func() *lab.CA { return newCA(lab.CAName) })

func newCA(name string) *lab.CA {
	ca, err := lab.NewCA(name, 1024, x509.SHA1WithRSA, nil, nil)
	if err != nil {
		panic(err)
	}
	return ca
}

// A keyRing hands out the same keys to each box; within one they differ.
type keyRing struct {
	mu   sync.Mutex
	keys []*rsa.PrivateKey
}

func (k *keyRing) maker() func(int) (*rsa.PrivateKey, error) {
	n := 0
	return func(bits int) (*rsa.PrivateKey, error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		if n++; n > len(k.keys) {
			key, err := rsa.GenerateKey(rand.Reader, bits)
			if err != nil {
				return nil, err
			}
			k.keys = append(k.keys, key)
		}
		return k.keys[n-1], nil
	}
}

// boxKeys are the keys of boxes that do not ask for their own.
var boxKeys = sync.OnceValue(func() *keyRing { return &keyRing{} })

// start builds a lab and runs a box in it until the test ends. Then nothing of
// either may be left.
func start(t *testing.T, s setup) *box {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	t.Cleanup(cancel)
	b := &box{t: t, ctx: ctx, flash: s.flash, log: &syncBuffer{}, drops: make(map[string]int)}

	if s.lab.CA == nil {
		s.lab.CA = phoneCA()
	}
	if s.lab.KeyBits == 0 {
		s.lab.KeyBits = 1024
	}
	var err error
	if b.lab, err = lab.NewMemoryLab(s.lab); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.lab.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	if b.flash == "" {
		b.flash = t.TempDir()
	}
	if s.keys == nil {
		s.keys = boxKeys()
	}
	o := pki.Options{NewKey: s.keys.maker()}
	if s.flash != "" {
		o.NewKey = nil // what is not there already would be new
	}
	store, err := pki.Open(b.flash, o)
	if err != nil {
		t.Fatal(err)
	}
	if s.flash == "" {
		if _, err := store.Authenticate("phone_ca", phoneCA().Cert.Raw); err != nil {
			t.Fatal(err)
		}
	}
	opt := appliance.Options{
		Links: map[string]stack.Link{"outside": b.lab.Outside(), "inside": b.lab.Inside()},
		Store: store,
		Log:   slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnDrop: func(p *stack.Packet, v stack.Verdict) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.drops[fmt.Sprintf("%v: %v", v, p.Flow())]++
		},
	}
	if s.opt != nil {
		s.opt(&opt)
	}
	if b.app, err = appliance.New(demoConfig(t, s.config...), opt); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.app.Run(ctx) }()
	b.stop = sync.OnceValue(func() error {
		end()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the box does not stop")
		}
	})
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			b.explain()
		}
	})
	return b
}

// demoConfig is the demo's configuration after replacing.
func demoConfig(t *testing.T, replace ...string) *config.Running {
	t.Helper()
	text, err := os.ReadFile("../cmd/patchbay/demo.cfg")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("demo.cfg has no %q", replace[i])
		}
	}
	r, findings := config.Check("demo.cfg", strings.NewReader(strings.NewReplacer(replace...).Replace(string(text))))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	return r
}

// explain prints what the box had to say, after a failure.
func (b *box) explain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.log.String()
	if n := len(text); n > 8000 {
		text = text[n-8000:]
	}
	b.t.Logf("drops: %v\nlog:\n%s", b.drops, text)
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// eventually waits for something that follows without a sign.
func (b *box) eventually(what string, f func() bool) {
	b.t.Helper()
	for !f() {
		select {
		case <-b.ctx.Done():
			b.t.Fatal("waited in vain: " + what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// up boots and registers a phone.
func (b *box) up(place lab.Place, proto lab.Protocol) *lab.Phone {
	b.t.Helper()
	p := b.lab.Phone(place, proto)
	b.must(p.Boot(b.ctx))
	b.must(p.Register(b.ctx))
	return p
}

// call has a call b, and hears both.
func (b *box) call(from, to *lab.Phone) {
	b.t.Helper()
	b.must(from.Dial(b.ctx, to.Line()))
	b.must(to.Wait(b.ctx, lab.Connected))
	b.heard(from, to)
}

// heard waits until both phones have heard a stretch of each other, and nothing
// else, from now on.
func (b *box) heard(p, q *lab.Phone) {
	b.t.Helper()
	rp, rq := p.Report(), q.Report()
	frames := int(talk / (20 * time.Millisecond))
	b.eventually(fmt.Sprintf("%s and %s do not hear each other", p.Name(), q.Name()), func() bool {
		return p.Report().Since(rp).Tones[q.Tone()] >= frames && q.Report().Since(rq).Tones[p.Tone()] >= frames
	})
}

// idle waits until no media session is open.
func (b *box) idle() {
	b.t.Helper()
	b.eventually("media sessions are left", func() bool { return len(b.app.MediaSessions()) == 0 })
}

// honest checks what must hold at the end of any test with honest phones.
func (b *box) honest() {
	b.t.Helper()
	if v := b.lab.Manager.Violations(); len(v) > 0 {
		b.t.Errorf("the call manager saw %q", v)
	}
	if e := b.lab.Exposed(); len(e) > 0 {
		b.t.Errorf("in the clear outside: %q", e)
	}
	for _, p := range b.lab.Phones {
		if c := p.Problems(); len(c) > 0 {
			b.t.Errorf("%s complains: %q", p.Name(), c)
		}
	}
}

// calls runs the lab's own calls.
func (b *box) calls(o lab.CallOptions) {
	b.t.Helper()
	o.Talk = talk
	for _, r := range lab.RunCalls(b.ctx, b.lab, o) {
		if !r.OK {
			b.t.Errorf("%v", r)
		}
	}
	if b.t.Failed() {
		return
	}
	b.idle()
}

// host puts a host of one's own on a network.
func (b *box) host(n *lab.Network, addr string) lab.Host {
	b.t.Helper()
	p := netip.PrefixFrom(netip.MustParseAddr(addr), 24)
	h, err := lab.NewStackHost(p, 0, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { h.Close() })
	n.Attach(h.Link(), netip.PrefixFrom(p.Addr(), 32))
	return h
}

// phone makes one more phone outside.
func (b *box) phone(addr string, c lab.PhoneConfig) *lab.Phone {
	b.t.Helper()
	c.Host = b.host(b.lab.Internet, addr)
	c.TFTP = netip.MustParseAddrPort("203.0.113.10:69")
	p, err := lab.NewPhone(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { p.Close() })
	return p
}

// identity is a certificate for a device of the CA.
func identity(t *testing.T, ca *lab.CA, mac string) *lab.Identity {
	t.Helper()
	id, err := ca.IssueMIC(mac, "7962G", 1024)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// inject puts raw packets on a network, whatever they say of their source.
func (b *box) inject(n *lab.Network, packets ...[]byte) {
	b.t.Helper()
	port := n.Port()
	for _, raw := range packets {
		p := stack.NewPacket(1500)
		if !p.SetData(raw) {
			b.t.Fatal("packet does not fit")
		}
		b.must(port.Write([]*stack.Packet{p}))
	}
}

func TestDelayedOffer(t *testing.T) {
	b := start(t, setup{lab: lab.Options{DelayedOffer: true}})
	b.calls(lab.CallOptions{Protocols: []lab.Protocol{lab.SIP}, NoHome: true})
}

func TestVersions(t *testing.T) {
	const max = " ctl-file trust\n!\nclass-map"
	tests := []struct {
		offer, max, want byte
		tls12            bool
	}{
		{5, 0, 5, false}, {11, 0, 11, false}, {15, 0, 15, true}, {20, 0, 19, false}, {22, 0, 19, false},
		{20, 20, 20, false}, {22, 22, 22, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d of %d", tt.offer, tt.max), func(t *testing.T) {
			s := setup{lab: lab.Options{SCCPVersion: tt.offer, TLS12: tt.tls12}}
			if tt.max != 0 {
				s.config = []string{max, fmt.Sprintf(" ctl-file trust\n sccp version-max %d\n!\nclass-map", tt.max)}
			}
			b := start(t, s)
			b.calls(lab.CallOptions{Protocols: []lab.Protocol{lab.SCCP}, NoHome: true, NoHold: true})
			r, ok := b.lab.Manager.Registration(b.lab.Phone(lab.Remote, lab.SCCP).Name())
			if !ok || r.Version != tt.want {
				t.Errorf("registered %v with version %d, want %d", ok, r.Version, tt.want)
			}
			tls := "TLSv1 session"
			if tt.tls12 {
				tls = "TLSv1.2 session"
			}
			if !strings.Contains(b.log.String(), tls) {
				t.Errorf("no %s in the log", tls)
			}
		})
	}
}

// A home router that knows nothing of TFTP lets only the port answer that was
// asked.
func TestSinglePort(t *testing.T) {
	b := start(t, setup{
		lab:    lab.Options{NoTFTPHelper: true},
		config: []string{" ctl-file trust\n!\nclass-map", " ctl-file trust\n tftp single-port\n!\nclass-map"},
	})
	for _, proto := range []lab.Protocol{lab.SIP, lab.SCCP} {
		home, inside := b.up(lab.AtHome, proto), b.up(lab.Inside, proto)
		b.call(inside, home)
		b.must(home.HangUp(b.ctx))
		b.must(inside.Wait(b.ctx, lab.Idle))
	}
	b.up(lab.Remote, lab.SCCP)
	b.honest()
	b.idle()
}
