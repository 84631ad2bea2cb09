package appliance

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/nat"
	"patchbay/stack"
)

// A sink is a link that keeps what is written to it.
type sink struct{ sent []*stack.Packet }

func (*sink) Read([]*stack.Packet) (int, error) { return 0, net.ErrClosed }
func (*sink) MTU() int                          { return 1500 }
func (*sink) Close() error                      { return nil }

func (s *sink) Write(batch []*stack.Packet) error {
	for _, p := range batch {
		q := stack.NewPacket(p.Len())
		q.SetData(p.Data())
		q.Parse()
		q.Out, q.NextHop = p.Out, p.NextHop
		s.sent = append(s.sent, q)
	}
	return nil
}

// A countedReader counts what is read of chance.
type countedReader struct {
	io.Reader
	n int
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n += n
	return n, err
}

// A tracedBox is a whole box without a network, whose clock the test has.
type tracedBox struct {
	*Appliance
	t       testing.TB
	now     time.Time
	chance  *countedReader
	links   map[string]*sink
	host    *sink
	dropped stack.Verdict
}

// newTracedBox makes the box of a configuration, or returns nil if it is refused.
func newTracedBox(t testing.TB, text string, store *pki.Store) *tracedBox {
	t.Helper()
	r, findings := config.Check("box.cfg", strings.NewReader(text))
	if config.Errors(findings) > 0 {
		return nil
	}
	b := &tracedBox{
		t: t, now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC), links: make(map[string]*sink), host: &sink{},
		chance: &countedReader{Reader: rand.NewChaCha8([32]byte{7})},
	}
	links := make(map[string]stack.Link)
	for _, i := range r.Interfaces {
		if i.Name != "" && i.Addr.IsValid() && !i.Shutdown {
			b.links[i.Name] = &sink{}
			links[i.Name] = b.links[i.Name]
		}
	}
	a, err := New(r, Options{
		Links: links, Store: store, Now: func() time.Time { return b.now }, Rand: b.chance,
		OnDrop: func(_ *stack.Packet, v stack.Verdict) { b.dropped = v },
	})
	if err != nil {
		return nil
	}
	t.Cleanup(func() { a.Close() })
	a.identity.Link = b.host // nothing was read from it yet
	b.Appliance = a
	return b
}

// arrive returns a packet that has just arrived.
func (b *tracedBox) arrive(in string, data []byte) *stack.Packet {
	p := stack.NewPacket(2048)
	p.SetData(data)
	p.Time, p.In = b.now, b.plan().named(in)
	return p
}

// handle has the box handle a packet, and returns what became of it: the drop,
// or what left and by which interface.
func (b *tracedBox) handle(p *stack.Packet) (stack.Verdict, []*stack.Packet) {
	b.dropped = stack.Forward
	b.host.sent = nil
	for _, l := range b.links {
		l.sent = nil
	}
	b.forward.Handle(p)
	all := b.host.sent
	for _, l := range b.links {
		all = append(all, l.sent...)
	}
	return b.dropped, all
}

// quick is the state of the box as far as a glance shows it.
func (b *tracedBox) quick() string {
	inUse, _ := b.data.pat.Len() // what lingers may end with any packet
	return fmt.Sprint(b.table.Len(), b.table.HalfOpen(), b.table.Most(), b.table.Pinholes(), b.table.NextID(),
		inUse, b.data.pat.Most(), b.chance.n, len(b.forward.Drops()))
}

// whole is all that the box shows of its state.
func (b *tracedBox) whole() string {
	var out bytes.Buffer
	for _, line := range []string{
		"show conn detail", "show xlate", "show nat", "show access-list", "show asp drop", "show interface",
		"show service-policy", "show ip verify statistics", "show sip", "show skinny",
	} {
		if err := b.Exec(&out, line); err != nil {
			b.t.Fatal(err)
		}
	}
	return out.String()
}

// packet-tracer and the dataplane agree: what is traced is what then happens,
// and tracing changes nothing.
func TestTraceAgrees(t *testing.T) {
	const packets, each = 10_000, 200
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[stack.Verdict]int)
	kinds := make(map[string]int)
	refused := 0
	for seed, done := uint64(0), 0; done < packets; seed++ {
		g := &randomBox{Rand: rand.New(rand.NewPCG(seed, 3))}
		text := g.config()
		b := newTracedBox(t, text, store)
		if b == nil {
			if refused++; refused > packets/each {
				t.Fatalf("%d random configurations were refused; the last:\n%s", refused, text)
			}
			continue
		}
		for range each {
			done++
			g.pass(b)
			data, in := g.packet(b)
			before, whole := b.quick(), ""
			if done%20 == 0 {
				whole = b.whole()
			}
			p := b.arrive(in, data)
			if v := p.Parse(); v != stack.Forward {
				t.Fatalf("seed %d: a random packet does not parse: %v", seed, v)
			}
			arrived := p.Flow()
			tr := b.trace(p)
			if after := b.quick(); after != before {
				t.Fatalf("seed %d: tracing %v from %s changed %s to %s\n%s", seed, arrived, in, before, after, text)
			}
			if whole != "" && b.whole() != whole {
				t.Fatalf("seed %d: tracing %v from %s changed what is shown from\n%s\nto\n%s", seed, arrived, in, whole, b.whole())
			}
			p = b.arrive(in, data)
			v, left := b.handle(p)
			seen[v]++
			kinds[tr.kind()]++
			if diff := tr.differs(v, left); diff != "" {
				t.Fatalf("seed %d, packet %d: %v from %s (%s): %s\n%s\n%s", seed, done, arrived, in, tr.kind(), diff, text, b.whole())
			}
			g.remember(in, arrived, data, v, left)
		}
	}
	t.Logf("%d configurations refused; verdicts %v; kinds %v", refused, seen, kinds)
	for _, v := range []stack.Verdict{
		stack.Forward, stack.DropNoRoute, stack.DropACL, stack.DropSecurityLevel, stack.DropReversePath, stack.DropNAT,
		stack.DropNATReverse, stack.DropTCPNotSYN, stack.DropICMP, stack.DropNoService, stack.DropTTL, stack.DropSecurity,
		stack.DropLimit, stack.DropRate, stack.DropTCPState, stack.DropICMPSequence, stack.DropNoTranslation, stack.DropHostLimit,
		stack.DropEmbryonic,
	} {
		if seen[v] == 0 {
			t.Errorf("no random packet met %v", v)
		}
	}
	for _, k := range []string{"flow", "icmp error", "pinhole", "through", "ended", "answered", "drop"} {
		if kinds[k] == 0 {
			t.Errorf("no random packet was of kind %q", k)
		}
	}
}

// kind is what way a packet went.
func (t *trace) kind() string {
	switch {
	case t.quoted:
		return "icmp error"
	case t.conn != nil:
		return "flow"
	case t.hole != nil:
		return "pinhole"
	case t.verdict != stack.Forward:
		return "drop"
	}
	return [...]string{fateThrough: "through", fateEnded: "ended", fateAnswered: "answered"}[t.fate]
}

// differs says how what happened is not what t foresaw, "" if it is.
func (t *trace) differs(v stack.Verdict, left []*stack.Packet) string {
	if v != t.verdict {
		return fmt.Sprintf("traced %v, was %v", t.verdict, v)
	}
	if v != stack.Forward {
		return ""
	}
	if len(left) != 1 {
		return fmt.Sprintf("%d packets left", len(left))
	}
	p := left[0]
	got := p.Flow()
	if t.chance && !t.out.IsIdentity() {
		got.Src = netip.AddrPortFrom(got.Src.Addr(), 0)
	}
	switch {
	case p.Out != t.out:
		return fmt.Sprintf("traced out by %v, left by %v", t.out, p.Out)
	case got != t.flow:
		return fmt.Sprintf("traced as %v, left as %v", t.flow, p.Flow())
	case !t.out.IsIdentity() && p.NextHop != t.nextHop:
		return fmt.Sprintf("traced to neighbour %v, went to %v", t.nextHop, p.NextHop)
	}
	return ""
}

// What a trace says of the number of the next connection and of its source is
// what the connection then has.
func TestTraceForeseesConn(t *testing.T) {
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newTracedBox(t, baseConfig+"route outside 0.0.0.0 0.0.0.0 203.0.113.1 1\n"+strings.Join(natWays[0].lines, "\n")+"\n", store)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort("10.20.0.50:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:53")}
	data := stack.AppendUDP(nil, f, nil)
	p := b.arrive("inside", data)
	p.Parse()
	tr, id := b.trace(p), b.table.NextID()
	if v, _ := b.handle(b.arrive("inside", data)); v != stack.Forward {
		t.Fatalf("dropped: %v", v)
	}
	c := connList(b.table)[0]
	if c.ID != id || c.Server() != tr.opening.Server || c.Rule == nil || c.Rule != tr.opening.Source.Rule {
		t.Errorf("conn %d %v by %v, traced %d %v by %v", c.ID, c.Server(), c.Rule, id, tr.opening.Server, tr.opening.Source.Rule)
	}
	if _, from := b.table.Foresee(p); from != nat.Client {
		t.Errorf("Foresee says the packet is from the %v", from)
	}
}

// A class whose access list names a type of ICMP has the packets of that type, and
// answers to pings are held to the rate of a class of answers.
func TestClassOfICMPType(t *testing.T) {
	b := newTracedBox(t, baseConfig+`
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
access-list pings extended permit icmp any any echo
access-list answers extended permit icmp any any echo-reply
class-map pings
 match access-list pings
class-map answers
 match access-list answers
policy-map global_policy
 class pings
  inspect icmp
policy-map rates
 class answers
  police input 8000
service-policy global_policy global
service-policy rates interface outside
`, nil)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	for _, tt := range []struct {
		typ       string
		inspected bool
	}{{"8", true}, {"13", false}} {
		var out strings.Builder
		if err := b.Exec(&out, "packet-tracer input inside icmp 10.20.0.50 "+tt.typ+" 0 192.0.2.5"); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "inspect-icmp"); got != tt.inspected {
			t.Errorf("type %s is inspected: %v, want %v\n%s", tt.typ, got, tt.inspected, &out)
		}
	}
	treat := b.plan().treat(b.plan().named("inside"), b.plan().named("outside"), nat.Query{Flow: stack.Flow{Proto: stack.ICMP,
		Src: netip.MustParseAddrPort("10.20.0.50:1"), Dst: netip.MustParseAddrPort("192.0.2.5:1")}, ICMPType: stack.ICMPEcho})
	if treat == nil || treat.Police[nat.Server].Arrive == nil || treat.Police[nat.Client].Leave != nil {
		t.Errorf("the answers are held to %+v", treat)
	}
}
