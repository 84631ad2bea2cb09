package appliance

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/logging"
	"patchbay/appliance/media"
	"patchbay/nat"
	"patchbay/stack"
)

// A wire is a link that only has an MTU.
type wire struct{}

func (wire) Read([]*stack.Packet) (int, error) { select {} }
func (wire) Write([]*stack.Packet) error       { return nil }
func (wire) MTU() int                          { return 1500 }
func (wire) Close() error                      { return nil }

// A plane is a dataplane under test, with a clock of its own.
type plane struct {
	t   testing.TB
	d   *Dataplane
	pl  *plan
	now time.Time
	log bytes.Buffer
	p   *stack.Packet
}

// newPlane makes the dataplane of the demo after edit.
func newPlane(t testing.TB, edit func(string) string) *plane {
	t.Helper()
	text, err := os.ReadFile("../cmd/patchbay/demo.cfg")
	if err != nil {
		t.Fatal(err)
	}
	s := string(text)
	if edit != nil {
		s = edit(s)
	}
	r, findings := config.Check("demo.cfg", strings.NewReader(s))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	pl, err := compile(r, map[string]stack.Link{"outside": wire{}, "inside": wire{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.NewChaCha8([32]byte{5})
	table, err := nat.NewTable(nat.TableConfig{Rand: rnd, Timeouts: pl.timeouts})
	if err != nil {
		t.Fatal(err)
	}
	q := &plane{t: t, pl: pl, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), p: stack.NewPacket(2048)}
	identity := &stack.Interface{Name: stack.IdentityName, Level: 100, Link: wire{}}
	q.d = newDataplane(table, nat.NewPAT(rnd), identity, slog.New(slog.NewTextHandler(&q.log, nil)), &reporter{logging.New(logging.Config{}), identity, func() time.Time { return q.now }})
	q.d.install(pl, func() time.Time { return q.now })
	return q
}

func flow(proto stack.Proto, src, dst string) stack.Flow {
	return stack.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// packet is the first packet of f.
func packet(f stack.Flow) []byte {
	switch f.Proto {
	case stack.TCP:
		return stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, MSS: 1460, Window: 4096}, nil)
	case stack.ICMP:
		return stack.AppendICMPEcho(nil, f, 1, []byte("ping"))
	}
	return stack.AppendUDP(nil, f, make([]byte, 40))
}

// admit has a packet arrive on the interface of that name.
func (q *plane) admit(in string, raw []byte) (stack.Verdict, *stack.Packet) {
	q.t.Helper()
	p := q.p
	p.Reset()
	p.SetData(raw)
	p.Time = q.now
	p.In = q.pl.named(in)
	if in == stack.IdentityName {
		p.In = q.d.identity
	}
	if v := p.Parse(); v != stack.Forward {
		q.t.Fatalf("test packet: %v", v)
	}
	return q.d.Admit(p), p
}

// The addresses of the demo.
const (
	phone    = "198.51.100.7:49152"
	ucmReal  = "10.20.0.11"
	mapped   = "203.0.113.10"
	boxOut   = "203.0.113.2"
	boxIn    = "10.20.0.1"
	mtaOut   = "203.0.113.20"
	mtaIn    = "10.20.0.20"
	someHost = "10.20.0.77"
)

// twice adds a rule for one peer to the demo's configuration.
func twice(s string) string {
	return strings.Replace(s, "access-group outside_in", "object network peer\n host 198.51.100.77\nobject network peer-alias\n host 192.0.2.77\n"+
		"object network spare\n host 203.0.113.60\n!\n"+
		"nat (inside,outside) source dynamic inside-net spare destination static peer-alias peer\n!\naccess-group outside_in", 1)
}

// hours lets phones in at some hours of every day; the tests' clock says 9:00.
func hours(daily string) func(string) string {
	return func(s string) string {
		s = strings.Replace(s, "access-list outside_in remark", "time-range open\n periodic daily "+daily+"\naccess-list outside_in remark", 1)
		return strings.Replace(s, "eq 2443", "eq 2443 time-range open", 1)
	}
}

func TestFirstPacket(t *testing.T) {
	tests := []struct {
		name string
		edit func(string) string
		in   string
		f    stack.Flow
		want stack.Verdict
		out  string
		as   stack.Flow // how it leaves
	}{
		{"phone to TLS Skinny ends here", nil, "outside", flow(stack.TCP, phone, mapped+":2443"),
			stack.Forward, "identity", flow(stack.TCP, phone, mapped+":2443")},
		{"phone to TLS SIP ends here", nil, "outside", flow(stack.TCP, phone, mapped+":5061"),
			stack.Forward, "identity", flow(stack.TCP, phone, mapped+":5061")},
		{"phone to TFTP ends here", nil, "outside", flow(stack.UDP, phone, mapped+":69"),
			stack.Forward, "identity", flow(stack.UDP, phone, mapped+":69")},
		{"plain Skinny from outside", nil, "outside", flow(stack.TCP, phone, mapped+":2000"), stack.DropACL, "", stack.Flow{}},
		{"the UCM's real address from outside", nil, "outside", flow(stack.TCP, phone, ucmReal+":2443"), stack.DropNATReverse, "", stack.Flow{}},
		{"a port the list permits and nobody ends", func(s string) string {
			return strings.Replace(s, "eq 2443", "eq 8443", 1)
		}, "outside", flow(stack.TCP, phone, mapped+":8443"), stack.Forward, "inside", flow(stack.TCP, phone, ucmReal+":8443")},
		{"the UCM out, static", nil, "inside", flow(stack.UDP, ucmReal+":123", "192.0.2.5:123"),
			stack.Forward, "outside", flow(stack.UDP, mapped+":123", "192.0.2.5:123")},
		{"a host out, PAT keeps its port", nil, "inside", flow(stack.TCP, someHost+":40000", "192.0.2.5:80"),
			stack.Forward, "outside", flow(stack.TCP, boxOut+":40000", "192.0.2.5:80")},
		{"ping out through PAT", nil, "inside", flow(stack.ICMP, someHost+":77", "192.0.2.5:0"),
			stack.Forward, "outside", flow(stack.ICMP, boxOut+":77", "192.0.2.5:0")},
		{"the box to the UCM as the phone", nil, "identity", flow(stack.TCP, phone, ucmReal+":2000"),
			stack.Forward, "inside", flow(stack.TCP, phone, ucmReal+":2000")},
		{"ping to the box", nil, "outside", flow(stack.ICMP, "198.51.100.7:9", boxOut+":0"),
			stack.Forward, "outside", flow(stack.ICMP, boxOut+":0", "198.51.100.7:9")},
		{"ping to the MTA", nil, "outside", flow(stack.ICMP, "198.51.100.7:9", mtaOut+":0"),
			stack.Forward, "outside", flow(stack.ICMP, mtaOut+":0", "198.51.100.7:9")},
		{"ping denied", func(s string) string {
			return strings.Replace(s, "icmp permit any outside", "icmp deny any outside", 1)
		}, "outside", flow(stack.ICMP, "198.51.100.7:9", mtaOut+":0"), stack.DropICMP, "", stack.Flow{}},
		{"ping to the other side's address", nil, "outside", flow(stack.ICMP, "198.51.100.7:9", boxIn+":0"), stack.DropICMP, "", stack.Flow{}},
		{"TCP to the box", nil, "outside", flow(stack.TCP, phone, boxOut+":22"), stack.DropNoService, "", stack.Flow{}},
		{"UDP to the MTA without a call", nil, "outside", flow(stack.UDP, phone, mtaOut+":20000"), stack.DropNoService, "", stack.Flow{}},
		{"from the box's own address", nil, "outside", flow(stack.UDP, boxIn+":5", mapped+":69"), stack.DropReversePath, "", stack.Flow{}},
		{"from the MTA's address", nil, "outside", flow(stack.UDP, mtaOut+":5", mapped+":69"), stack.DropReversePath, "", stack.Flow{}},
		{"twice NAT: another address toward one peer", twice, "inside", flow(stack.UDP, someHost+":40000", "192.0.2.77:53"),
			stack.Forward, "outside", flow(stack.UDP, "203.0.113.60:40000", "198.51.100.77:53")},
		{"twice NAT: the others by the object's rule", twice, "inside", flow(stack.UDP, someHost+":40000", "192.0.2.78:53"),
			stack.Forward, "outside", flow(stack.UDP, boxOut+":40000", "192.0.2.78:53")},
		{"a pool without ports", func(s string) string {
			s = strings.Replace(s, "object network inside-net\n subnet", "object network pool\n range 203.0.113.100 203.0.113.110\nobject network inside-net\n subnet", 1)
			return strings.Replace(s, "dynamic interface", "dynamic pool", 1)
		}, "inside", flow(stack.UDP, someHost+":99", "192.0.2.5:53"),
			stack.Forward, "outside", flow(stack.UDP, "203.0.113.100:99", "192.0.2.5:53")},
		{"a code of ICMP that is denied", func(s string) string {
			return strings.Replace(s, "access-list outside_in extended permit udp", "access-list outside_in extended deny icmp any any echo 0\naccess-list outside_in extended permit icmp any any\naccess-list outside_in extended permit udp", 1)
		}, "outside", flow(stack.ICMP, "198.51.100.7:9", mapped+":0"), stack.DropACL, "", stack.Flow{}},
		{"within a time-range", hours("8:00 to 17:59"), "outside", flow(stack.TCP, phone, mapped+":2443"),
			stack.Forward, "identity", flow(stack.TCP, phone, mapped+":2443")},
		{"outside a time-range", hours("18:00 to 19:59"), "outside", flow(stack.TCP, phone, mapped+":2443"), stack.DropACL, "", stack.Flow{}},
		{"nowhere to go", func(s string) string {
			return strings.Replace(s, "route outside 0.0.0.0 0.0.0.0", "route outside 192.0.2.0 255.255.255.0", 1)
		}, "inside", flow(stack.UDP, someHost+":5", "100.64.0.1:5"), stack.DropNoRoute, "", stack.Flow{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := newPlane(t, tt.edit)
			v, p := q.admit(tt.in, packet(tt.f))
			if v != tt.want {
				t.Fatalf("%v from %s: %v, want %v", tt.f, tt.in, v, tt.want)
			}
			if v != stack.Forward {
				return
			}
			if p.Out.Name != tt.out || p.Flow() != tt.as {
				t.Errorf("leaves by %v as %v; want %s as %v", p.Out, p.Flow(), tt.out, tt.as)
			}
		})
	}
}

// An answer goes back through the translation that its request made.
func TestAnswer(t *testing.T) {
	q := newPlane(t, nil)
	f := flow(stack.UDP, someHost+":5000", "192.0.2.5:53")
	_, p := q.admit("inside", packet(f))
	answer := p.Flow().Reverse()
	v, p := q.admit("outside", packet(answer))
	if v != stack.Forward || p.Out.Name != "inside" || p.Flow() != f.Reverse() {
		t.Errorf("answer: %v by %v as %v, want inside as %v", v, p.Out, p.Flow(), f.Reverse())
	}
	q.now = q.now.Add(q.pl.timeouts.UDP + time.Second)
	if v, _ := q.admit("outside", packet(answer)); v != stack.DropACL && v != stack.DropNoService {
		t.Errorf("answer after the timeout: %v", v)
	}
}

// The box fetches and sends by TFTP: the server answers each request from a port of
// its own, also the second one of a client that it has refused for its options.
func TestFetchPinhole(t *testing.T) {
	q := newPlane(t, nil)
	for _, tt := range []struct{ request, from string }{
		{"\x00\x01f\x00octet\x00blksize\x001428\x00", "52000"}, {"\x00\x01f\x00octet\x00", "52001"}, {"\x00\x02f\x00octet\x00", "52002"},
	} {
		ask := flow(stack.UDP, boxIn+":41000", ucmReal+":69")
		if v, _ := q.admit("identity", stack.AppendUDP(nil, ask, []byte(tt.request))); v != stack.Forward {
			t.Fatal(v)
		}
		data := flow(stack.UDP, ucmReal+":"+tt.from, boxIn+":41000")
		v, p := q.admit("inside", packet(data))
		if v != stack.Forward || p.Out != q.d.identity || p.Flow() != data {
			t.Errorf("answer from port %s: %v by %v as %v", tt.from, v, p.Out, p.Flow())
		}
	}
	if v, _ := q.admit("inside", packet(flow(stack.UDP, ucmReal+":52003", boxIn+":41000"))); !v.Dropped() {
		t.Errorf("a fourth answer to three requests: %v", v)
	}
	if v, _ := q.admit("inside", packet(flow(stack.UDP, someHost+":52000", boxIn+":41000"))); !v.Dropped() {
		t.Errorf("DATA from another host: %v", v)
	}
}

// An ICMP error about a translated packet reaches its sender, quoting what the
// sender sent.
func TestICMPError(t *testing.T) {
	q := newPlane(t, nil)
	f := flow(stack.UDP, someHost+":5000", "192.0.2.5:53")
	_, p := q.admit("inside", packet(f))
	e := stack.AppendICMPError(nil, p, netip.MustParseAddr("192.0.2.1"), stack.ICMPUnreachable, stack.CodePortUnreachable, 0)
	v, p := q.admit("outside", e)
	if v != stack.Forward || p.Out.Name != "inside" || p.Flow().Dst.Addr() != f.Src.Addr() {
		t.Fatalf("error: %v by %v to %v", v, p.Out, p.Flow().Dst)
	}
	if quoted, ok := p.Quoted(); !ok || quoted != f {
		t.Errorf("quotes %v, want %v", quoted, f)
	}
	stray := stack.NewPacket(1500)
	stray.SetData(packet(flow(stack.UDP, boxOut+":1", "192.0.2.5:53")))
	stray.Parse()
	e = stack.AppendICMPError(nil, stray, netip.MustParseAddr("192.0.2.1"), stack.ICMPUnreachable, stack.CodePortUnreachable, 0)
	if v, _ := q.admit("outside", e); v != stack.DropICMP {
		t.Errorf("error about nothing: %v", v)
	}
}

func TestAccessListLog(t *testing.T) {
	q := newPlane(t, nil)
	if !strings.Contains(func() string { b, _ := os.ReadFile("../cmd/patchbay/demo.cfg"); return string(b) }(), "deny ip any any log") {
		t.Skip("demo.cfg has no entry that logs")
	}
	for range 100 {
		q.admit("outside", packet(flow(stack.TCP, phone, mapped+":22")))
		q.now = q.now.Add(time.Second)
	}
	if n := strings.Count(q.log.String(), "106100"); n != 1 {
		t.Errorf("100 denied packets in 100 s logged %d times, want once:\n%s", n, &q.log)
	}
	q.now = q.now.Add(300 * time.Second)
	q.admit("outside", packet(flow(stack.TCP, phone, mapped+":22")))
	if !strings.Contains(q.log.String(), " hit-cnt 100 300-second interval [") {
		t.Errorf("the second line does not count the hits since the first:\n%s", &q.log)
	}
}

// A conversation that the box would have ended is forgotten when its connection
// ends, and not kept when that was refused.
func TestEndedConversations(t *testing.T) {
	q := newPlane(t, func(string) string {
		return benchHead + benchTail[:strings.Index(benchTail, "access-group")] + `route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
class-map inspection_default
 match default-inspection-traffic
class-map few
 match any
policy-map global_policy
 class inspection_default
  inspect sip
 class few
  set connection conn-max 3
service-policy global_policy global
`
	})
	refused := 0
	for port := range 10 {
		f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(netip.MustParseAddr(someHost), uint16(5000+port)), Dst: netip.MustParseAddrPort("192.0.2.5:5060")}
		if v, _ := q.admit("inside", packet(f)); v != stack.Forward {
			refused++
		}
	}
	if got, want := q.d.ended.len(), 10-refused; refused != 7 || got != want {
		t.Errorf("10 connections, %d refused: %d conversations are kept, want %d of 7 refused", refused, got, want)
	}
	q.d.table.Conns(func(c *nat.Conn) bool {
		c.Close()
		return true
	})
	if got := q.d.ended.len(); got != 0 {
		t.Errorf("without connections %d conversations are kept", got)
	}
}

// A media packet between two remote phones comes back to the box's own inside
// address and leaves again by outside: one Admit.
func TestHairpin(t *testing.T) {
	q := newPlane(t, nil)
	r := media.New(media.Config{Pinholes: q.d.table, Rand: rand.NewChaCha8([32]byte{9})})
	side := func(m mta, secure bool) media.Side { return m.side(secure) }
	out, _ := q.pl.mtaOn(q.pl.named("outside"))
	in, _ := q.pl.mtaOn(q.pl.named("inside"))
	open := func() *media.Session {
		// Plain legs: what is under test is the way, not the cipher.
		s, err := r.Open("x", side(out, false), side(in, false), q.now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b := open(), open()
	a.SetRemote(nat.Client, netip.MustParseAddrPort(phone), true)
	b.SetRemote(nat.Client, netip.MustParseAddrPort("198.51.100.30:31000"), true)
	a.SetRemote(nat.Server, b.Local(nat.Server), true)
	b.SetRemote(nat.Server, a.Local(nat.Server), true)
	rtp := make([]byte, 172)
	rtp[0] = 0x80
	f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(phone), Dst: a.Local(nat.Client)}
	v, p := q.admit("outside", stack.AppendUDP(nil, f, rtp))
	want := stack.Flow{Proto: stack.UDP, Src: b.Local(nat.Client), Dst: netip.MustParseAddrPort("198.51.100.30:31000")}
	if v != stack.Forward || p.Out.Name != "outside" || p.Flow() != want {
		t.Errorf("hairpin: %v by %v as %v, want outside as %v", v, p.Out, p.Flow(), want)
	}
	// Sessions that point at one another's legs without end go round and end.
	c, d := open(), open()
	b.SetRemote(nat.Client, c.Local(nat.Client), true)
	c.SetRemote(nat.Client, b.Local(nat.Client), true)
	c.SetRemote(nat.Server, d.Local(nat.Server), true)
	d.SetRemote(nat.Server, c.Local(nat.Server), true)
	if v, _ := q.admit("outside", stack.AppendUDP(nil, f, rtp)); v != stack.DropLoop {
		t.Errorf("a chain of legs: %v, want %v", v, stack.DropLoop)
	}
	// Nobody but the box has the address of a leg.
	f = stack.Flow{Proto: stack.UDP, Src: a.Local(nat.Server), Dst: b.Local(nat.Server)}
	if v, _ := q.admit("inside", stack.AppendUDP(nil, f, rtp)); v != stack.DropReversePath {
		t.Errorf("a packet from the address of a leg: %v, want %v", v, stack.DropReversePath)
	}
}

func TestProxyARP(t *testing.T) {
	q := newPlane(t, nil)
	for _, tt := range []struct {
		on, addr string
		want     bool
	}{
		{"outside", mapped, true}, {"outside", mtaOut, true}, {"inside", mtaIn, true},
		{"inside", mapped, false}, {"outside", mtaIn, false}, {"outside", ucmReal, false},
		{"outside", "203.0.113.99", false}, {"inside", someHost, false},
	} {
		if got := q.pl.answers(q.pl.named(tt.on), netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("ARP for %s on %s answered: %t, want %t", tt.addr, tt.on, got, tt.want)
		}
	}
	q.pl.running.NoProxyARP = []string{"outside"}
	if i := q.pl.named("outside"); q.pl.answers(i, netip.MustParseAddr(mapped)) || !q.pl.answers(i, netip.MustParseAddr(mtaOut)) {
		t.Error("with sysopt noproxyarp a mapped address is answered for, or a media termination address is not")
	}
}

func TestLinksMustMatch(t *testing.T) {
	text, err := os.ReadFile("../cmd/patchbay/demo.cfg")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := config.Check("demo.cfg", bytes.NewReader(text))
	for name, links := range map[string]map[string]stack.Link{
		"missing": {"outside": wire{}},
		"unknown": {"outside": wire{}, "inside": wire{}, "dmz": wire{}},
	} {
		if _, err := New(r, Options{Links: links}); err == nil {
			t.Errorf("%s link: no error", name)
		}
	}
}

// benchForward carries one packet after the other of n established
// connections, from the session's outside to the forwarder's hands.
func benchForward(b *testing.B, n int) {
	q := newPlane(b, nil)
	packets := make([]*stack.Packet, n)
	for i := range packets {
		f := stack.Flow{Proto: stack.UDP,
			Src: netip.AddrPortFrom(netip.MustParseAddr(someHost), uint16(10000+i)),
			Dst: netip.MustParseAddrPort("192.0.2.5:4000")}
		raw := stack.AppendUDP(nil, f, make([]byte, 172))
		q.admit("inside", raw)
		p := stack.NewPacket(2048)
		p.SetData(raw)
		p.Time, p.In = q.now, q.pl.named("inside")
		p.Parse()
		packets[i] = p
	}
	back := make([]stack.Flow, n)
	for i, p := range packets {
		back[i] = p.Flow()
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p := packets[i%n]
		if v := q.d.Admit(p); v != stack.Forward {
			b.Fatal(v)
		}
		p.SetFlow(back[i%n])
	}
}

func BenchmarkForward1(b *testing.B)    { benchForward(b, 1) }
func BenchmarkForward1000(b *testing.B) { benchForward(b, 1000) }

// The fast path allocates nothing, translated or relayed.
func TestAdmitAllocs(t *testing.T) {
	q := newPlane(t, nil)
	f := flow(stack.UDP, someHost+":5000", "192.0.2.5:53")
	q.admit("inside", packet(f))
	q.admit("inside", packet(f))
	orig := f
	if n := testing.AllocsPerRun(100, func() {
		q.p.SetFlow(orig)
		q.p.In, q.p.Time = q.pl.interfaces[1], q.now
		if v := q.d.Admit(q.p); v != stack.Forward {
			t.Fatal(v)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet of an established connection", n)
	}
	r := media.New(media.Config{Pinholes: q.d.table, Rand: rand.NewChaCha8([32]byte{9})})
	out, _ := q.pl.mtaOn(q.pl.named("outside"))
	in, _ := q.pl.mtaOn(q.pl.named("inside"))
	s, err := r.Open("x", out.side(false), in.side(false), q.now)
	if err != nil {
		t.Fatal(err)
	}
	s.SetRemote(nat.Server, netip.MustParseAddrPort(someHost+":20000"), true)
	rtp := make([]byte, 172)
	rtp[0] = 0x80
	mf := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(phone), Dst: s.Local(nat.Client)}
	raw := stack.AppendUDP(nil, mf, rtp)
	q.admit("outside", raw)
	if n := testing.AllocsPerRun(100, func() {
		q.p.SetFlow(mf)
		q.p.In, q.p.Time = q.pl.named("outside"), q.now
		if v := q.d.Admit(q.p); v != stack.Forward {
			t.Fatal(v)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a plain media packet", n)
	}
}
