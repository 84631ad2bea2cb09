package stack

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A wire is a Link whose other end is the test.
type wire struct {
	mtu  int
	in   chan []byte
	once sync.Once
	err  error // what Write returns

	mu   sync.Mutex
	sent []sent
	at   time.Time // stamp of the next packets
}

type sent struct {
	data []byte
	hop  netip.Addr
}

func newWire(mtu int) *wire { return &wire{mtu: mtu, in: make(chan []byte, 1000), at: noon} }

func (w *wire) Read(batch []*Packet) (int, error) {
	b, ok := <-w.in
	for n := 0; ; n++ {
		if !ok {
			return n, net.ErrClosed
		}
		batch[n].SetData(b)
		batch[n].Time = w.at
		if n == len(batch)-1 {
			return n + 1, nil
		}
		select {
		case b, ok = <-w.in:
		default:
			return n + 1, nil
		}
	}
}

func (w *wire) Write(batch []*Packet) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range batch {
		w.sent = append(w.sent, sent{append([]byte{}, p.Data()...), p.NextHop})
	}
	return w.err
}

func (w *wire) MTU() int     { return w.mtu }
func (w *wire) Close() error { w.once.Do(func() { close(w.in) }); return nil }

// take returns what was sent since the last call.
func (w *wire) take() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sent
	w.sent = nil
	return s
}

// admit is a Policy made of a function.
type admit func(p *Packet) Verdict

func (a admit) Admit(p *Packet) Verdict { return a(p) }

// A net3 is a Forwarder between three wires.
type net3 struct {
	f                               *Forwarder
	outside, inside, identity       *Interface
	outsideW, insideW, identityWire *wire
	drops                           []Verdict
}

func newNet3() *net3 {
	n := &net3{outsideW: newWire(1500), insideW: newWire(1000), identityWire: newWire(1500)}
	n.outside = &Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.1/24"), Link: n.outsideW}
	n.inside = &Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24"), Link: n.insideW}
	n.identity = &Interface{Name: IdentityName, Link: n.identityWire}
	n.f = NewForwarder(n.outside, n.inside, n.identity)
	n.f.SetRoutes(NewRoutes(append(Connected(n.outside, n.inside), Route{
		Prefix: netip.MustParsePrefix("0.0.0.0/0"), Interface: n.outside, Gateway: netip.MustParseAddr("203.0.113.254")})))
	n.f.SetOnDrop(func(p *Packet, v Verdict) { _ = p.String(); n.drops = append(n.drops, v) })
	return n
}

// handle hands the bytes b, arrived on in, to the Forwarder.
func (n *net3) handle(t testing.TB, in *Interface, b []byte) {
	t.Helper()
	p := packetOf(t, b)
	p.In = in
	n.f.Handle(p)
}

func TestForward(t *testing.T) {
	n := newNet3()
	to := flowOf(UDP, phone, 5000, ucm, 69)
	n.f.SetPolicy(admit(func(p *Packet) Verdict {
		p.SetFlow(to)
		p.Out = n.inside
		return Forward
	}))
	n.handle(t, n.outside, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("x")))
	got := n.insideW.take()
	if len(got) != 1 || got[0].hop.String() != ucm {
		t.Fatalf("sent %v", got)
	}
	valid(t, got[0].data)
	p := parsed(t, got[0].data)
	if p.Flow() != to || p.TTL() != 63 {
		t.Errorf("sent %v with TTL %d", p, p.TTL())
	}
	want := Counters{InPackets: 1, InBytes: 29}
	if diff := cmp.Diff(want, n.f.Counters(n.outside)); diff != "" {
		t.Errorf("outside counters (-want +got):\n%s", diff)
	}
	want = Counters{OutPackets: 1, OutBytes: 29}
	if diff := cmp.Diff(want, n.f.Counters(n.inside)); diff != "" {
		t.Errorf("inside counters (-want +got):\n%s", diff)
	}
}

func TestForwardDrops(t *testing.T) {
	udp := func(src, dst string) []byte { return AppendUDP(nil, flowOf(UDP, src, 5000, dst, 69), []byte("x")) }
	stranger := &Interface{Name: "dmz", Link: newWire(1500)}
	tests := []struct {
		name   string
		policy func(n *net3) Policy
		data   []byte
		want   Verdict
	}{
		{"no policy", nil, udp(phone, box), DropUnspecified},
		{"policy says so", func(*net3) Policy { return admit(func(*Packet) Verdict { return DropACL }) }, udp(phone, box), DropACL},
		{"no out", func(*net3) Policy { return admit(func(*Packet) Verdict { return Forward }) }, udp(phone, box), DropInterface},
		{"strange out", func(*net3) Policy {
			return admit(func(p *Packet) Verdict { p.Out = stranger; return Forward })
		}, udp(phone, box), DropInterface},
		{"no route on the chosen interface", func(n *net3) Policy {
			return admit(func(p *Packet) Verdict { p.Out = n.inside; return Forward })
		}, udp(ucm, phone), DropNoRoute},
		{"malformed", nil, []byte{0x45}, DropMalformed},
		{"ipv6", nil, append([]byte{0x60}, make([]byte, 39)...), DropIPv6},
		{"from loopback", nil, udp("127.0.0.1", box), DropSecurity},
		{"from broadcast", nil, udp("255.255.255.255", box), DropSecurity},
		{"from multicast", nil, udp("224.0.0.1", box), DropSecurity},
		{"to nowhere", nil, udp(phone, "0.0.0.0"), DropSecurity},
		{"fragment that is bad", nil, edit(udp(phone, box), func(b []byte) { b[6] = 0x20 }), DropFragment},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNet3()
			if tt.policy != nil {
				n.f.SetPolicy(tt.policy(n))
			}
			n.handle(t, n.outside, tt.data)
			if diff := cmp.Diff(map[Verdict]uint64{tt.want: 1}, n.f.Drops()); diff != "" {
				t.Errorf("Drops (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]Verdict{tt.want}, n.drops); diff != "" {
				t.Errorf("OnDrop (-want +got):\n%s", diff)
			}
			for _, w := range []*wire{n.outsideW, n.insideW, n.identityWire} {
				if s := w.take(); len(s) != 0 {
					t.Errorf("sent %v", s)
				}
			}
			n.f.ClearDrops()
			if len(n.f.Drops()) != 0 {
				t.Error("ClearDrops left counts")
			}
		})
	}
}

// byRoute forwards without change to where the routes say, and what is for the
// box to identity.
func byRoute(n *net3) Policy {
	return admit(func(p *Packet) Verdict {
		dst := p.Flow().Dst.Addr()
		if dst == n.outside.Addr.Addr() || dst == n.inside.Addr.Addr() {
			p.Out = n.identity
			return Forward
		}
		out, hop, ok := n.f.Routes().Lookup(dst)
		if !ok {
			return DropNoRoute
		}
		p.Out, p.NextHop = out, hop
		return Forward
	})
}

func TestTTL(t *testing.T) {
	ttl := func(n byte, f Flow) []byte {
		return edit(AppendUDP(nil, f, []byte("x")), func(b []byte) { b[8] = n })
	}
	through := flowOf(UDP, phone, 5000, ucm, 69)
	n := newNet3()
	n.f.SetPolicy(byRoute(n))

	n.handle(t, n.outside, ttl(2, through))
	if s := n.insideW.take(); len(s) != 1 || s[0].data[8] != 1 {
		t.Errorf("TTL 2: sent %v", s)
	}
	for _, left := range []byte{1, 0} {
		n.handle(t, n.outside, ttl(left, through))
		if s := n.insideW.take(); len(s) != 0 {
			t.Errorf("TTL %d went through", left)
		}
		s := n.outsideW.take()
		if len(s) != 1 || s[0].hop.String() != "203.0.113.254" {
			t.Fatalf("TTL %d: answered %v", left, s)
		}
		p := parsed(t, s[0].data)
		typ, code := p.ICMPType()
		quoted, ok := p.Quoted()
		if typ != ICMPTimeExceeded || code != 0 || !ok || quoted != through || p.Flow() != flowOf(ICMP, "203.0.113.1", 0, phone, 0) {
			t.Errorf("TTL %d: answered %v", left, p)
		}
	}
	if got := n.f.Drops()[DropTTL]; got != 2 {
		t.Errorf("%d ttl-exceeded, want 2", got)
	}

	// To the box and from the box the TTL is left alone.
	n.handle(t, n.outside, ttl(1, flowOf(UDP, phone, 5000, "203.0.113.1", 69)))
	if s := n.identityWire.take(); len(s) != 1 || s[0].data[8] != 1 {
		t.Errorf("to the box: %v", s)
	}
	n.handle(t, n.identity, ttl(1, flowOf(UDP, "10.20.0.1", 69, ucm, 5000)))
	if s := n.insideW.take(); len(s) != 1 || s[0].data[8] != 1 {
		t.Errorf("from the box: %v", s)
	}
}

// The sender must know its own packet in the quote, so NAT is undone.
func TestAnswerQuotesAsArrived(t *testing.T) {
	n := newNet3()
	mapped := flowOf(UDP, phone, 5000, box, 69)
	n.f.SetPolicy(admit(func(p *Packet) Verdict {
		p.SetFlow(flowOf(UDP, phone, 5000, ucm, 6969))
		p.Out = n.inside
		return Forward
	}))
	b := edit(AppendUDP(nil, mapped, make([]byte, 1200)), func(b []byte) { b[6] = 0x40 })
	n.handle(t, n.outside, b)
	s := n.outsideW.take()
	if len(s) != 1 {
		t.Fatalf("answered %v", s)
	}
	p := parsed(t, s[0].data)
	typ, code := p.ICMPType()
	if typ != ICMPUnreachable || code != CodeFragNeeded {
		t.Errorf("answered %v", p)
	}
	if mtu := binary.BigEndian.Uint16(p.Transport()[6:]); mtu != 1000 {
		t.Errorf("next hop MTU %d, want 1000", mtu)
	}
	if q, ok := p.Quoted(); !ok || q != mapped {
		t.Errorf("quotes %v, want %v", q, mapped)
	}
	if diff := cmp.Diff(map[Verdict]uint64{DropMTU: 1}, n.f.Drops()); diff != "" {
		t.Errorf("Drops (-want +got):\n%s", diff)
	}
}

func TestFragNeededToIdentity(t *testing.T) {
	n := newNet3()
	n.f.SetPolicy(byRoute(n))
	b := AppendTCP(nil, flowOf(TCP, phone, 5000, ucm, 2000), TCPHeader{Flags: FlagACK}, make([]byte, 1100))
	n.handle(t, n.identity, b) // the box, with the phone's address
	s := n.identityWire.take()
	if len(s) != 1 {
		t.Fatalf("answered %v", s)
	}
	p := parsed(t, s[0].data)
	if p.Flow() != flowOf(ICMP, "10.20.0.1", 0, phone, 0) {
		t.Errorf("answered %v", p)
	}
}

func TestAnswersAreLimited(t *testing.T) {
	n := newNet3()
	n.f.SetPolicy(byRoute(n))
	b := edit(AppendUDP(nil, flowOf(UDP, phone, 5000, ucm, 69), nil), func(b []byte) { b[8] = 1 })
	for range 100 {
		n.handle(t, n.outside, b)
	}
	if got := len(n.outsideW.take()); got != icmpErrorBurst {
		t.Errorf("%d answers at one time, want %d", got, icmpErrorBurst)
	}
	if got := n.f.Drops()[DropTTL]; got != 100 {
		t.Errorf("%d ttl-exceeded, want 100", got)
	}
}

func TestFragmentsThrough(t *testing.T) {
	want, frags := pieces(t, 3000, 1500)
	n := newNet3()
	seen := 0
	n.f.SetPolicy(admit(func(p *Packet) Verdict {
		seen++
		if p.Flow() != flowOf(UDP, phone, 5000, box, 5060) || p.In != n.outside || len(p.Payload()) != 3000 {
			t.Errorf("policy sees %v", p)
		}
		p.SetFlow(flowOf(UDP, phone, 5000, ucm, 5060))
		p.Out = n.inside
		return Forward
	}))
	for _, b := range frags {
		n.handle(t, n.outside, b)
	}
	if seen != 1 {
		t.Fatalf("the policy was asked %d times, want 1", seen)
	}
	var r Reassembler
	var whole *Packet
	for _, s := range n.insideW.take() {
		if len(s.data) > 1000 || s.hop.String() != ucm {
			t.Errorf("sent %d bytes to %v, MTU 1000", len(s.data), s.hop)
		}
		whole, _ = add(t, &r, s.data, 0)
	}
	if whole == nil {
		t.Fatal("what was sent does not make a packet")
	}
	if whole.Flow() != flowOf(UDP, phone, 5000, ucm, 5060) || whole.Len() != len(want) {
		t.Errorf("whole packet %v", whole)
	}
}

func TestHairpin(t *testing.T) {
	n := newNet3()
	n.f.SetPolicy(admit(func(p *Packet) Verdict {
		p.SetFlow(flowOf(UDP, box, 1, phone, 2))
		p.Out = p.In
		return Forward
	}))
	n.handle(t, n.outside, AppendUDP(nil, flowOf(UDP, "198.51.100.8", 1, box, 2), nil))
	if s := n.outsideW.take(); len(s) != 1 || s[0].hop.String() != "203.0.113.254" {
		t.Errorf("sent %v", s)
	}
}

func TestConsumed(t *testing.T) {
	n := newNet3()
	n.f.SetPolicy(admit(func(*Packet) Verdict { return Consumed }))
	n.handle(t, n.outside, AppendUDP(nil, flowOf(UDP, phone, 1, box, 2), nil))
	if len(n.f.Drops()) != 0 || len(n.drops) != 0 {
		t.Errorf("Drops %v", n.f.Drops())
	}
}

func TestWriteError(t *testing.T) {
	n := newNet3()
	n.insideW.err = net.ErrClosed
	n.f.SetPolicy(byRoute(n))
	n.handle(t, n.outside, AppendUDP(nil, flowOf(UDP, phone, 1, ucm, 2), nil))
	if diff := cmp.Diff(map[Verdict]uint64{DropInterface: 1}, n.f.Drops()); diff != "" {
		t.Errorf("Drops (-want +got):\n%s", diff)
	}
	if got := n.f.Counters(n.inside).OutPackets; got != 0 {
		t.Errorf("%d packets out, want 0", got)
	}
}

func TestSetInterfaces(t *testing.T) {
	n := newNet3()
	n.f.SetPolicy(byRoute(n))
	b := AppendUDP(nil, flowOf(UDP, phone, 1, ucm, 2), nil)
	n.handle(t, n.outside, b)
	n.f.SetInterfaces(n.outside, n.identity)
	n.handle(t, n.outside, b)
	n.f.SetInterfaces(n.outside, n.inside, n.identity)
	n.handle(t, n.outside, b)
	if got := len(n.insideW.take()); got != 2 {
		t.Errorf("%d packets sent, want 2", got)
	}
	if got := n.f.Counters(n.outside).InPackets; got != 3 {
		t.Errorf("outside counts %d, want 3", got)
	}
	if diff := cmp.Diff(map[Verdict]uint64{DropInterface: 1}, n.f.Drops()); diff != "" {
		t.Errorf("Drops (-want +got):\n%s", diff)
	}
	n.handle(t, &Interface{Name: "dmz"}, b)
	if got := n.f.Drops()[DropInterface]; got != 2 {
		t.Errorf("a packet from a strange interface: %d drops, want 2", got)
	}
}

func TestRun(t *testing.T) {
	n := newNet3()
	n.f.SetOnDrop(nil)
	n.f.SetPolicy(byRoute(n))
	var wg sync.WaitGroup
	for _, i := range []*Interface{n.outside, n.inside} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := n.f.Run(i.Link); err != nil {
				t.Errorf("Run(%v) = %v", i, err)
			}
		}()
	}
	const each = 500
	for k := range each {
		n.outsideW.in <- AppendUDP(nil, flowOf(UDP, phone, uint16(k), ucm, 1), make([]byte, k))
		n.insideW.in <- AppendUDP(nil, flowOf(UDP, ucm, uint16(k), phone, 1), make([]byte, k))
	}
	n.outsideW.Close()
	n.insideW.Close()
	wg.Wait()
	for _, w := range []*wire{n.outsideW, n.insideW} {
		got := w.take()
		if len(got) != each {
			t.Fatalf("%d packets sent, want %d", len(got), each)
		}
		for k, s := range got {
			if p := parsed(t, s.data); p.Flow().Src.Port() != uint16(k) || len(p.Payload()) != k {
				t.Fatalf("packet %d is %v", k, p)
			}
		}
	}
	if c := n.f.Counters(n.outside); c.InPackets != each || c.OutPackets != each {
		t.Errorf("outside counters %+v", c)
	}

	broken := &Interface{Name: "broken", Link: brokenLink{}}
	n.f.SetInterfaces(broken)
	if err := n.f.Run(broken.Link); !errors.Is(err, errBroken) {
		t.Errorf("Run of a broken link = %v", err)
	}
}

// A queued is a link with a wire for each receive queue. It sends by the first.
type queued struct{ wires []*wire }

func (q *queued) Read([]*Packet) (int, error) { panic("read as a whole and by its queues") }
func (q *queued) Write(batch []*Packet) error { return q.wires[0].Write(batch) }
func (q *queued) MTU() int                    { return 1500 }

func (q *queued) Close() error {
	for _, w := range q.wires {
		w.Close()
	}
	return nil
}

func (q *queued) Readers() []Reader {
	var all []Reader
	for _, w := range q.wires {
		all = append(all, w)
	}
	return all
}

func TestRunQueues(t *testing.T) {
	n := newNet3()
	n.f.SetOnDrop(nil)
	n.f.SetPolicy(byRoute(n))
	q := &queued{[]*wire{newWire(1500), newWire(1500), newWire(1500)}}
	many := &Interface{Name: "outside", Addr: n.outside.Addr, Link: q}
	n.f.SetInterfaces(many, n.inside, n.identity)
	const each = 100
	for i, w := range q.wires {
		for k := range each {
			w.in <- AppendUDP(nil, flowOf(UDP, phone, uint16(1000*i+k), ucm, 1), nil)
		}
	}
	ended := make(chan error)
	go func() { ended <- n.f.Run(q) }()
	seen := make(map[uint16]bool)
	for late := time.Now().Add(10 * time.Second); len(seen) < each*len(q.wires) && time.Now().Before(late); time.Sleep(time.Millisecond) {
		for _, s := range n.insideW.take() {
			seen[parsed(t, s.data).Flow().Src.Port()] = true
		}
	}
	if len(seen) != each*len(q.wires) {
		t.Errorf("%d packets sent, want %d", len(seen), each*len(q.wires))
	}
	if c := n.f.Counters(many); c.InPackets != uint64(each*len(q.wires)) {
		t.Errorf("counters %+v", c)
	}
	q.Close()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v", err)
	}

	// One that fails ends the others.
	broken := &brokenQueue{queued{[]*wire{newWire(1500)}}}
	if err := n.f.Run(broken); !errors.Is(err, errBroken) {
		t.Errorf("Run with a broken queue = %v", err)
	}
}

// A brokenQueue has a queue that cannot be read.
type brokenQueue struct{ queued }

func (q *brokenQueue) Readers() []Reader { return append(q.queued.Readers(), brokenLink{}) }

var errBroken = errors.New("broken")

type brokenLink struct{ nullLink }

func (brokenLink) Read([]*Packet) (int, error) { return 0, errBroken }

// nullLink takes everything.
type nullLink struct{}

func (nullLink) Read([]*Packet) (int, error) { return 0, net.ErrClosed }
func (nullLink) Write([]*Packet) error       { return nil }
func (nullLink) MTU() int                    { return 1500 }
func (nullLink) Close() error                { return nil }

// swap sends each packet back to front between two interfaces.
type swap struct{ to *Interface }

func (s swap) Admit(p *Packet) Verdict {
	p.SetFlow(p.Flow().Reverse())
	p.Out = s.to
	return Forward
}

// bench returns a Forwarder and a packet to hand to it again and again.
func bench(t testing.TB) (f *Forwarder, p *Packet, reset func()) {
	outside := &Interface{Name: "outside", Addr: netip.MustParsePrefix("198.51.100.1/24"), Link: nullLink{}}
	inside := &Interface{Name: "inside", Addr: netip.MustParsePrefix("10.20.0.1/24"), Link: nullLink{}}
	f = NewForwarder(outside, inside)
	f.SetRoutes(NewRoutes(append(Connected(outside, inside), Route{
		Prefix: netip.MustParsePrefix("0.0.0.0/0"), Interface: inside, Gateway: netip.MustParseAddr("10.20.0.254")})))
	f.SetPolicy(swap{inside})
	b := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), make([]byte, 172))
	p = packetOf(t, b)
	reset = func() {
		p.Reset()
		p.SetData(b)
		p.In, p.Time = outside, noon
	}
	return f, p, reset
}

// Run's part of Handle; sync.Pool, which the rest uses, allocates under the
// race detector.
func TestHandleAllocations(t *testing.T) {
	f, p, reset := bench(t)
	w := &worker{f: f}
	in := f.port((*f.ports.Load())[0].Interface)
	n := testing.AllocsPerRun(1000, func() {
		reset()
		w.handle(p, in)
		w.flush()
	})
	if n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
	if len(f.Drops()) != 0 {
		t.Errorf("Drops %v", f.Drops())
	}
}

func BenchmarkHandle(b *testing.B) {
	f, p, reset := bench(b)
	b.ReportAllocs()
	for b.Loop() {
		reset()
		f.Handle(p)
	}
}
