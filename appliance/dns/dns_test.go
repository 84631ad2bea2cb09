package dns_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"patchbay/appliance/dns"
	"patchbay/stack"
	"patchbay/stack/host"
)

var (
	boxAddr    = netip.MustParseAddr("10.20.0.1")
	serverAddr = netip.MustParseAddr("10.20.0.53")
	ucmAddr    = netip.MustParseAddr("10.20.0.11")
)

// A server answers queries as its script says.
type server struct {
	host *host.Stack

	mu     sync.Mutex
	asked  []string
	ports  map[string]bool
	answer func(q dnsmessage.Message, tcp bool) [][]byte // what is sent back
}

func (s *server) script(f func(q dnsmessage.Message, tcp bool) [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

func (s *server) queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *server) reply(msg []byte, from string, tcp bool) [][]byte {
	var q dnsmessage.Message
	if err := q.Unpack(msg); err != nil || len(q.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q.Questions[0].Name.String())
	s.ports[from] = true
	if s.answer == nil {
		return nil
	}
	return s.answer(q, tcp)
}

func (s *server) serve(pc net.PacketConn, l net.Listener) {
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range s.reply(buf[:n], from.String(), false) {
				pc.WriteTo(b, from)
			}
		}
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			var n [2]byte
			if _, err := io.ReadFull(c, n[:]); err != nil {
				return
			}
			msg := make([]byte, binary.BigEndian.Uint16(n[:]))
			if _, err := io.ReadFull(c, msg); err != nil {
				return
			}
			for _, b := range s.reply(msg, c.RemoteAddr().String(), true) {
				c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
			}
		}()
	}
}

// A clock stands still until it is set on.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// newServer returns a resolver, the server that it asks and its clock.
func newServer(t *testing.T, set dns.Settings) (*dns.Resolver, *server, *clock) {
	t.Helper()
	newHost := func(a netip.Addr) *host.Stack {
		h, err := host.New(host.Config{Addrs: []netip.Prefix{netip.PrefixFrom(a, 24)}})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	box, s := newHost(boxAddr), &server{host: newHost(serverAddr), ports: make(map[string]bool)}
	var wg sync.WaitGroup
	pump := func(from, to stack.Link) {
		defer wg.Done()
		batch := []*stack.Packet{stack.NewPacket(1500), stack.NewPacket(1500)}
		for {
			n, err := from.Read(batch)
			if err != nil || to.Write(batch[:n]) != nil {
				return
			}
		}
	}
	wg.Add(2)
	go pump(box.Link(), s.host.Link())
	go pump(s.host.Link(), box.Link())
	at := netip.AddrPortFrom(serverAddr, 53)
	pc, err := s.host.ListenPacket(at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.host.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		s.serve(pc, l)
	}()
	c := &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	r := dns.New(dns.Config{
		Network: box, Rand: rand.Reader, Now: c.now, Log: slog.New(slog.DiscardHandler),
		From: func(to netip.Addr) (netip.Addr, bool) { return boxAddr, to.As4()[0] == 10 },
	})
	if set.Servers == nil {
		set.Servers = []netip.Addr{serverAddr}
	}
	if set.Timeout == 0 {
		set.Timeout = 5 * time.Second
	}
	r.Set(set)
	t.Cleanup(func() {
		r.Close()
		pc.Close()
		l.Close()
		box.Close()
		s.host.Close()
		wg.Wait()
	})
	return r, s, c
}

func mustName(s string) dnsmessage.Name { return dnsmessage.MustNewName(s + ".") }

func a(name string, ttl uint32, addr netip.Addr) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: mustName(name), Class: dnsmessage.ClassINET, TTL: ttl},
		Body: &dnsmessage.AResource{A: addr.As4()}}
}

func cname(name, to string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: mustName(name), Class: dnsmessage.ClassINET, TTL: 300},
		Body: &dnsmessage.CNAMEResource{CNAME: mustName(to)}}
}

func soa(minimum uint32) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: mustName("example.com"), Class: dnsmessage.ClassINET, TTL: 3600},
		Body: &dnsmessage.SOAResource{NS: mustName("ns.example.com"), MBox: mustName("admin.example.com"), MinTTL: minimum}}
}

// message makes q its own answer.
func message(q dnsmessage.Message, change func(m *dnsmessage.Message), answers ...dnsmessage.Resource) []byte {
	q.Response, q.RecursionAvailable, q.Answers = true, true, answers
	if change != nil {
		change(&q)
	}
	b, err := q.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// says returns a script that always answers so.
func says(answers ...dnsmessage.Resource) func(dnsmessage.Message, bool) [][]byte {
	return func(q dnsmessage.Message, _ bool) [][]byte { return [][]byte{message(q, nil, answers...)} }
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func silent(dnsmessage.Message, bool) [][]byte { return nil }

// expect looks a name up.
func expect(t *testing.T, r *dns.Resolver, name string, addr netip.Addr, stale bool) {
	t.Helper()
	got, err := r.Lookup(testContext(t), name)
	if err != nil || len(got.Addrs) != 1 || got.Addrs[0] != addr || got.Stale != stale {
		t.Fatalf("Lookup(%s) = %+v, %v; want %v, stale %v", name, got, err, addr, stale)
	}
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestAnswers(t *testing.T) {
	const name = "ucm.example.com"
	other := netip.MustParseAddr("192.0.2.66")
	var loop []dnsmessage.Resource
	for i := range 10 {
		loop = append(loop, cname(fmt.Sprintf("a%d.example.com", i), fmt.Sprintf("a%d.example.com", (i+1)%10)))
	}
	rcode := func(c dnsmessage.RCode) func(dnsmessage.Message, bool) [][]byte {
		return func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{message(q, func(m *dnsmessage.Message) { m.RCode = c })}
		}
	}
	// after sends something else first, and the truth after it.
	after := func(lie func(m *dnsmessage.Message)) func(dnsmessage.Message, bool) [][]byte {
		return func(q dnsmessage.Message, _ bool) [][]byte {
			false1 := q
			false1.Questions = append([]dnsmessage.Question(nil), q.Questions...)
			return [][]byte{message(false1, lie, a(name, 300, other)), message(q, nil, a(name, 300, ucmAddr))}
		}
	}
	tests := []struct {
		name   string
		script func(dnsmessage.Message, bool) [][]byte
		addr   netip.Addr // not valid: an error
		err    error
	}{
		{"address", says(a(name, 300, ucmAddr)), ucmAddr, nil},
		{"address in other letters", says(a("UCM.Example.COM", 300, ucmAddr)), ucmAddr, nil},
		{"alias", says(cname(name, "a.example.net"), a("a.example.net", 300, ucmAddr)), ucmAddr, nil},
		{"alias behind its target", says(a("a.example.net", 300, ucmAddr), cname(name, "a.example.net")), ucmAddr, nil},
		{"alias to ask for", func(q dnsmessage.Message, _ bool) [][]byte {
			if q.Questions[0].Name.String() == "ucm.example.com." {
				return says(cname(name, "a.example.net"))(q, false)
			}
			return says(a("a.example.net", 300, ucmAddr))(q, false)
		}, ucmAddr, nil},
		{"address of another name", says(a("www.example.com", 300, other), a(name, 300, ucmAddr)), ucmAddr, nil},
		{"only an address of another name", says(a("www.example.com", 300, other)), netip.Addr{}, dns.ErrNoAddress},
		{"alias to itself", says(cname(name, name)), netip.Addr{}, dns.ErrNoAnswer},
		{"loop of aliases", says(append(loop, cname(name, "a0.example.com"))...), netip.Addr{}, dns.ErrNoAnswer},
		{"endless aliases to ask for", func(q dnsmessage.Message, _ bool) [][]byte {
			n := strings.TrimSuffix(q.Questions[0].Name.String(), ".")
			return says(cname(n, fmt.Sprintf("x%d.example.com", len(n)+int(q.ID))))(q, false)
		}, netip.Addr{}, nil},
		{"no such name", rcode(dnsmessage.RCodeNameError), netip.Addr{}, dns.ErrNoHost},
		{"no address", rcode(dnsmessage.RCodeSuccess), netip.Addr{}, dns.ErrNoAddress},
		{"server failure", rcode(dnsmessage.RCodeServerFailure), netip.Addr{}, dns.ErrNoAnswer},
		{"refused", rcode(dnsmessage.RCodeRefused), netip.Addr{}, dns.ErrNoAnswer},
		{"referral", func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{message(q, func(m *dnsmessage.Message) { m.RecursionAvailable = false })}
		}, netip.Addr{}, dns.ErrNoAnswer},
		{"loopback", says(a(name, 300, netip.MustParseAddr("127.0.0.1"))), netip.Addr{}, dns.ErrNoAddress},
		{"multicast", says(a(name, 300, netip.MustParseAddr("224.0.0.1"))), netip.Addr{}, dns.ErrNoAddress},
		{"wrong number first", after(func(m *dnsmessage.Message) { m.ID++ }), ucmAddr, nil},
		{"wrong name first", after(func(m *dnsmessage.Message) { m.Questions[0].Name = mustName("www.example.com") }), ucmAddr, nil},
		{"wrong type first", after(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeTXT }), ucmAddr, nil},
		{"wrong class first", after(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }), ucmAddr, nil},
		{"two questions first", after(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }), ucmAddr, nil},
		{"the query first", after(func(m *dnsmessage.Message) { m.Response = false }), ucmAddr, nil},
		{"noise first", func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{{}, {1}, make([]byte, 12), message(q, nil, a(name, 300, ucmAddr))}
		}, ucmAddr, nil},
		{"cut off", func(q dnsmessage.Message, _ bool) [][]byte {
			b := message(q, nil, a(name, 300, ucmAddr))
			return [][]byte{b[:len(b)-2]}
		}, netip.Addr{}, dns.ErrNoAnswer},
		{"truncated, whole over TCP", func(q dnsmessage.Message, tcp bool) [][]byte {
			if !tcp {
				return [][]byte{message(q, func(m *dnsmessage.Message) { m.Truncated = true }, a(name, 300, other))}
			}
			var all []dnsmessage.Resource // more than a datagram holds
			for i := range 200 {
				all = append(all, a("www.example.com", 300, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
			}
			return says(append(all, a(name, 300, ucmAddr))...)(q, tcp)
		}, ucmAddr, nil},
		{"huge over TCP", func(q dnsmessage.Message, tcp bool) [][]byte {
			if !tcp {
				return [][]byte{message(q, func(m *dnsmessage.Message) { m.Truncated = true })}
			}
			var all []dnsmessage.Resource
			for range 1500 {
				all = append(all, a("www.example.com", 300, other))
			}
			return says(all...)(q, tcp)
		}, netip.Addr{}, dns.ErrNoAnswer},
		{"guesses, truth over TCP", func(q dnsmessage.Message, tcp bool) (all [][]byte) {
			for i := 0; !tcp && i < 100; i++ {
				all = append(all, message(q, func(m *dnsmessage.Message) { m.ID += uint16(i) + 1 }, a(name, 300, other)))
			}
			return append(all, message(q, nil, a(name, 300, ucmAddr)))
		}, ucmAddr, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, s, _ := newServer(t, dns.Settings{})
			s.script(tt.script)
			got, err := r.Lookup(testContext(t), name)
			if tt.addr.IsValid() {
				if err != nil || len(got.Addrs) != 1 || got.Addrs[0] != tt.addr || got.Name != name {
					t.Errorf("Lookup = %+v, %v; want %v", got, err, tt.addr)
				}
				return
			}
			var de *dns.Error
			if !errors.As(err, &de) || de.ID == 0 && tt.err != nil || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("Lookup = %+v, %v; want the error %v", got, err, tt.err)
			}
			if n := s.queries(); n > 20 {
				t.Errorf("%d queries for one name", n)
			}
		})
	}
}

// Numbers and ports are chosen by chance.
func TestPortsDiffer(t *testing.T) {
	r, s, _ := newServer(t, dns.Settings{})
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 300, ucmAddr))(q, false)
	})
	for i := range 20 {
		expect(t, r, fmt.Sprintf("h%d.example.com", i), ucmAddr, false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ports) < 19 {
		t.Errorf("20 queries came from %d ports", len(s.ports))
	}
}

func TestNames(t *testing.T) {
	r, s, _ := newServer(t, dns.Settings{Domain: "example.com"})
	s.script(says(a("ucm.example.com", 300, ucmAddr)))
	expect(t, r, "UCM", ucmAddr, false)
	expect(t, r, "ucm.example.com.", ucmAddr, false)
	if n := s.queries(); n != 1 {
		t.Errorf("%d queries for one name written twice", n)
	}
	for _, bad := range []string{"", ".", "a..b", "-a.com", "a-.com", "10.20.0.300", "a b", "ä.com", "a\x00b", strings.Repeat("a", 64) + ".com", strings.Repeat("ab.", 90) + "com"} {
		if got, err := r.Lookup(testContext(t), bad); !errors.Is(err, dns.ErrName) {
			t.Errorf("Lookup(%q) = %+v, %v; want %v", bad, got, err, dns.ErrName)
		}
	}
	if n := s.queries(); n != 1 {
		t.Errorf("%d queries after names that are none", n)
	}
}

func TestCache(t *testing.T) {
	const name = "ucm.example.com"
	tests := []struct {
		name   string
		script func(dnsmessage.Message, bool) [][]byte
		holds  time.Duration
	}{
		{"as it says", says(a(name, 300, ucmAddr)), 300 * time.Second},
		{"no time at all", says(a(name, 0, ucmAddr)), dns.MinTTL},
		{"for ever", says(a(name, 1<<31-1, ucmAddr)), dns.MaxTTL},
		{"a negative time", says(a(name, 1<<31, ucmAddr)), dns.MinTTL},
		{"the alias goes first", says(cname(name, "b.example.com"), a("b.example.com", 3000, ucmAddr)), 300 * time.Second},
		{"no such name", func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{message(q, func(m *dnsmessage.Message) {
				m.RCode, m.Authorities = dnsmessage.RCodeNameError, []dnsmessage.Resource{soa(60)}
			})}
		}, time.Minute},
		{"no such name for long", func(q dnsmessage.Message, _ bool) [][]byte {
			return [][]byte{message(q, func(m *dnsmessage.Message) {
				m.RCode, m.Authorities = dnsmessage.RCodeNameError, []dnsmessage.Resource{soa(86400)}
			})}
		}, dns.MaxNegativeTTL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, s, c := newServer(t, dns.Settings{})
			s.script(tt.script)
			first, err1 := r.Lookup(testContext(t), name)
			c.pass(tt.holds - time.Second)
			second, err2 := r.Lookup(testContext(t), name)
			if n := s.queries(); n != 1 || len(first.Addrs) != len(second.Addrs) || (err1 == nil) != (err2 == nil) {
				t.Errorf("after %v: %d queries; %v, %v and then %v, %v", tt.holds-time.Second, n, first, err1, second, err2)
			}
			c.pass(time.Second)
			r.Lookup(testContext(t), name)
			if n := s.queries(); n != 2 {
				t.Errorf("after %v: %d queries, want 2", tt.holds, n)
			}
		})
	}
}

// An answer in use is renewed before it runs out; one that is not is forgotten.
func TestRefresh(t *testing.T) {
	r, s, c := newServer(t, dns.Settings{Keep: []string{"kept.example.com"}})
	moved := netip.MustParseAddr("10.20.0.12")
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 100, ucmAddr))(q, false)
	})
	r.Refresh()
	eventually(t, "the name to keep was not looked up", func() bool { return len(r.Hosts()) == 1 })
	expect(t, r, "ucm.example.com", ucmAddr, false)
	c.pass(80 * time.Second)
	r.Refresh()
	if n := s.queries(); n != 2 {
		t.Errorf("%d queries, want none before their time", n)
	}
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 100, moved))(q, false)
	})
	c.pass(12 * time.Second)
	r.Refresh()
	eventually(t, "not renewed before the end", func() bool {
		for _, h := range r.Hosts() {
			if h.Addrs[0] != moved {
				return false
			}
		}
		return true
	})
	expect(t, r, "ucm.example.com", moved, false)
	// An hour on only the name to keep is renewed.
	c.pass(2 * time.Hour)
	r.Refresh()
	eventually(t, "the name to keep is not renewed", func() bool {
		h := r.Hosts()
		return len(h) == 1 && h[0].Name == "kept.example.com" && h[0].Expires.After(c.now())
	})
}

// While no server answers the last answer stands, and is called old.
func TestServerDown(t *testing.T) {
	r, s, c := newServer(t, dns.Settings{Timeout: 300 * time.Millisecond})
	const name = "ucm.example.com"
	s.script(says(a(name, 100, ucmAddr)))
	expect(t, r, name, ucmAddr, false)
	s.script(silent)
	c.pass(95 * time.Second)
	r.Refresh()
	eventually(t, "the failure is not known", func() bool { return r.Hosts()[0].Failure != nil })
	expect(t, r, name, ucmAddr, false) // its time is not over
	c.pass(10 * time.Second)
	expect(t, r, name, ucmAddr, true)
	if srv := r.Servers(); len(srv) != 1 || srv[0].Failure == nil || srv[0].Queries < 2 || srv[0].Answers != 1 {
		t.Errorf("servers %+v", srv)
	}
	// A name that nobody knew yet: an error, and not another query at once.
	var de *dns.Error
	if _, err := r.Lookup(testContext(t), "new.example.com"); !errors.Is(err, dns.ErrNoAnswer) || !errors.As(err, &de) || de.ID == 0 {
		t.Errorf("a new name: %v, want %v and the number of the query", err, dns.ErrNoAnswer)
	}
	n := s.queries()
	if _, err := r.Lookup(testContext(t), "new.example.com"); err == nil || s.queries() != n {
		t.Errorf("asked again at once: %v, %d queries more", err, s.queries()-n)
	}
	// It comes back, with another address.
	moved := netip.MustParseAddr("10.20.0.12")
	s.script(says(a(name, 100, moved)))
	eventually(t, "the server is back and not asked", func() bool {
		c.pass(time.Minute) // a slow machine may need more than one attempt
		r.Refresh()
		time.Sleep(10 * time.Millisecond)
		for _, h := range r.Hosts() {
			if h.Name == name && h.Addrs[0] == moved {
				return true
			}
		}
		return false
	})
	expect(t, r, name, moved, false)
	if srv := r.Servers(); srv[0].Failure != nil {
		t.Errorf("servers %+v", srv)
	}
	// Down for good: not for ever.
	s.script(silent)
	c.pass(25 * time.Hour)
	if got, err := r.Lookup(testContext(t), name); err == nil {
		t.Errorf("a day after its end: %+v", got)
	}
}

// The second server is asked when the first is silent, and first after that.
func TestSecondServer(t *testing.T) {
	gone := netip.MustParseAddr("10.20.0.54")
	r, s, _ := newServer(t, dns.Settings{Servers: []netip.Addr{gone, serverAddr}, Timeout: 200 * time.Millisecond})
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 100, ucmAddr))(q, false)
	})
	expect(t, r, "a.example.com", ucmAddr, false)
	before := r.Servers()[0].Queries
	expect(t, r, "b.example.com", ucmAddr, false)
	if now := r.Servers()[0].Queries; before != 1 || now != 1 {
		t.Errorf("the silent server was asked %d times and then %d", before, now)
	}
	// Other servers know other things: what is known is asked for again.
	n := s.queries()
	r.Set(dns.Settings{Servers: []netip.Addr{serverAddr}, Timeout: time.Second})
	expect(t, r, "a.example.com", ucmAddr, false)
	if s.queries() != n+1 {
		t.Errorf("%d queries after a change of servers, want 1", s.queries()-n)
	}
}

func TestDisabled(t *testing.T) {
	r, _, _ := newServer(t, dns.Settings{Servers: []netip.Addr{}})
	if _, err := r.Lookup(testContext(t), "ucm.example.com"); !errors.Is(err, dns.ErrDisabled) {
		t.Errorf("without a server: %v", err)
	}
	r.Set(dns.Settings{Servers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Timeout: time.Second})
	if _, err := r.Lookup(testContext(t), "ucm.example.com"); !errors.Is(err, dns.ErrDisabled) {
		t.Errorf("with a server that no interface faces: %v", err)
	}
}

// A name is asked for once, however many want it; and no more names than
// are good for the box at a time.
func TestTogether(t *testing.T) {
	r, s, _ := newServer(t, dns.Settings{Timeout: 20 * time.Second})
	release := make(chan struct{})
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		<-release
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 100, ucmAddr))(q, false)
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := r.Lookup(testContext(t), "ucm.example.com"); err != nil {
				t.Error(err)
			}
		}()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	busy := 0
	for i := range 100 {
		if _, err := r.Lookup(ctx, fmt.Sprintf("h%d.example.com", i)); errors.Is(err, dns.ErrBusy) {
			busy++
		}
		cancel() // nobody waits for the others
	}
	if busy < 30 {
		t.Errorf("%d of 100 names were refused", busy)
	}
	close(release)
	wg.Wait()
	eventually(t, "what nobody waited for is not kept", func() bool { return len(r.Hosts()) > 50 })
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.asked {
		if q == "ucm.example.com." {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d queries for 50 lookups of a name", n)
	}
}

func TestClear(t *testing.T) {
	r, s, _ := newServer(t, dns.Settings{Domain: "example.com"})
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 100, ucmAddr))(q, false)
	})
	for _, n := range []string{"a", "b", "c"} {
		expect(t, r, n, ucmAddr, false)
	}
	if n := r.Clear("b"); n != 1 {
		t.Errorf("Clear(b) = %d", n)
	}
	if n := r.Clear("b"); n != 0 {
		t.Errorf("Clear(b) again = %d", n)
	}
	if n := r.Clear(""); n != 2 || len(r.Hosts()) != 0 {
		t.Errorf("Clear of all = %d, and %v are left", n, r.Hosts())
	}
}

// What is kept is bounded, and Close ends what waits.
func TestBounds(t *testing.T) {
	r, s, c := newServer(t, dns.Settings{Timeout: 20 * time.Second})
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return says(a(strings.TrimSuffix(q.Questions[0].Name.String(), "."), 10000, ucmAddr))(q, false)
	})
	for i := range 1100 {
		expect(t, r, fmt.Sprintf("h%d.example.com", i), ucmAddr, false)
		c.pass(time.Millisecond)
	}
	if h := r.Hosts(); len(h) != 1024 {
		t.Errorf("%d names are kept, want 1024", len(h))
	}
	s.script(silent)
	done := make(chan error)
	go func() {
		_, err := r.Lookup(context.Background(), "ucm.example.com")
		done <- err
	}()
	eventually(t, "no query", func() bool { return s.queries() == 1101 })
	r.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("an answer from nobody")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Close leaves a lookup waiting")
	}
}

// TestLookupAddr asks for the names of addresses, through the alias of a part of a
// network as well; what can be no name is passed over.
func TestLookupAddr(t *testing.T) {
	r, s, c := newServer(t, dns.Settings{})
	ptr := func(owner, to string) dnsmessage.Resource {
		return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: mustName(owner), Class: dnsmessage.ClassINET, TTL: 60}, Body: &dnsmessage.PTRResource{PTR: mustName(to)}}
	}
	const zone, part = "9.2.0.192.in-addr.arpa", "9.0/25.2.0.192.in-addr.arpa"
	gone := func(m *dnsmessage.Message) {
		m.RCode = dnsmessage.RCodeNameError
		m.Authorities = []dnsmessage.Resource{soa(60)}
	}
	tests := []struct {
		name   string
		change func(*dnsmessage.Message)
		answer []dnsmessage.Resource
		want   string
		err    error
	}{
		{"one", nil, []dnsmessage.Resource{ptr(zone, "Host.Example.com")}, "host.example.com", nil},
		{"two, one of them twice", nil, []dnsmessage.Resource{ptr(zone, "a.example.com"), ptr(zone, "b.example.com"), ptr(zone, "a.example.com")}, "a.example.com b.example.com", nil},
		{"of a part", nil, []dnsmessage.Resource{cname(zone, part), ptr(part, "host.example.com")}, "host.example.com", nil},
		{"no name", nil, []dnsmessage.Resource{ptr(zone, "a b.example.com"), ptr(zone, "ok.example.com")}, "ok.example.com", nil},
		{"another's", nil, []dnsmessage.Resource{ptr("8.2.0.192.in-addr.arpa", "host.example.com")}, "", dns.ErrNoAddress},
		{"addresses", nil, []dnsmessage.Resource{a(zone, 60, ucmAddr)}, "", dns.ErrNoAddress},
		{"none", gone, nil, "", dns.ErrNoHost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r.Clear("")
			s.script(func(q dnsmessage.Message, _ bool) [][]byte { return [][]byte{message(q, tt.change, tt.answer...)} })
			got, err := r.LookupAddr(testContext(t), netip.MustParseAddr("192.0.2.9"))
			if names := strings.Join(got.Names, " "); names != tt.want || !errors.Is(err, tt.err) || len(got.Addrs) > 0 {
				t.Errorf("LookupAddr = %v, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
	// It is kept as long as it holds, and stands while the server is down.
	r.Clear("")
	s.script(says(ptr(zone, "host.example.com")))
	before := s.queries()
	for range 3 {
		if got, err := r.LookupAddr(testContext(t), netip.MustParseAddr("192.0.2.9")); err != nil || len(got.Names) != 1 || got.Stale {
			t.Fatalf("LookupAddr = %v, %v", got, err)
		}
	}
	if n := s.queries() - before; n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
	c.pass(2 * time.Minute)
	s.script(func(q dnsmessage.Message, _ bool) [][]byte {
		return [][]byte{message(q, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure })}
	})
	if got, err := r.LookupAddr(testContext(t), netip.MustParseAddr("192.0.2.9")); err != nil || !got.Stale || len(got.Names) != 1 {
		t.Errorf("LookupAddr while the server fails = %v, %v", got, err)
	}
	if _, err := r.LookupAddr(testContext(t), netip.MustParseAddr("2001:db8::1")); !errors.Is(err, dns.ErrName) {
		t.Errorf("LookupAddr of IPv6: %v", err)
	}
}
