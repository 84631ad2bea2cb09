package appliance

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// A counted is a wire that counts what it takes, in packets.
type counted struct {
	wire
	packets int
	last    stack.Flow
	closed  bool
}

func (c *counted) Write(batch []*stack.Packet) error {
	for _, p := range batch {
		c.packets++
		c.last = p.Flow()
	}
	return nil
}

func (c *counted) Close() error {
	c.closed = true
	return nil
}

// A driven is the box of a configuration, to be driven by hand.
type driven struct {
	*Appliance
	outside, inside, self counted
}

func newDriven(t *testing.T, name, text string) *driven {
	t.Helper()
	r, findings := config.Check(name, strings.NewReader(text))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &driven{}
	b.Appliance, err = New(r, Options{Store: store, Self: &b.self, Links: map[string]stack.Link{"outside": &b.outside, "inside": &b.inside}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// twoLegs is a box with two interfaces, a server behind static NAT, and what is
// added.
func twoLegs(add string) string {
	return `ASA Version 9.1(7)
hostname box
interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
object network server
 host 10.20.0.11
 nat (inside,outside) static 203.0.113.10
access-list outside_in extended permit ip any any
access-group outside_in in interface outside
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
access-list to_server extended permit udp any host 10.20.0.11 eq tftp
access-list from_server extended permit udp host 10.20.0.11 any
class-map requests
 match access-list to_server
class-map answers
 match access-list from_server
class-map web
 match port tcp eq www
class-map all
 match any
class-map defaults
 match default-inspection-traffic
` + add
}

// idleStream is a conversation in which nothing is said.
type idleStream struct{ expired int }

func (s *idleStream) Expire(time.Time)               { s.expired++ }
func (s *idleStream) Calls(time.Time) []inspect.Call { return nil }

// TestAccept: the box as whoever drives it by hand sees it. A conversation that
// is to be inspected comes to Self, is carried by what Say sends, and has ended
// when its client's connection is gone.
func TestAccept(t *testing.T) {
	box := newDriven(t, "box.cfg", twoLegs("class-map inspection_default\n match default-inspection-traffic\npolicy-map p\n class inspection_default\n  inspect sip\nservice-policy p global\n"))
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	syn := func(f stack.Flow) *stack.Packet {
		p := stack.NewPacket(1500)
		p.SetData(stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, Window: 1000}, nil))
		p.Time = now
		return p
	}
	arrive := func(f stack.Flow) {
		p := syn(f)
		p.In = box.plan().named("inside")
		box.Handle(p)
	}

	web := flow(stack.TCP, "10.20.0.11:4000", "192.0.2.5:80")
	arrive(web)
	if box.self.packets != 0 || box.outside.packets != 1 || box.Accept(web) != nil {
		t.Errorf("a conversation that nothing inspects: %d packets for the box, %d on their way", box.self.packets, box.outside.packets)
	}

	call := flow(stack.TCP, "10.20.0.11:5000", "192.0.2.5:5060")
	arrive(call)
	if box.self.packets != 1 || box.self.last != call {
		t.Fatalf("%d packets for the box, the last %v; want the SYN of %v (drops %v)", box.self.packets, box.self.last, call, box.Drops())
	}
	talk := box.Accept(call)
	if talk == nil {
		t.Fatal("the conversation is not to be inspected")
	}
	shown := flow(stack.TCP, "203.0.113.10:5000", "192.0.2.5:5060")
	if talk.Client != call || talk.Server != shown || talk.In.Name != "inside" || talk.Out.Name != "outside" || talk.Engine == nil || talk.Binder == nil || talk.Count == nil || talk.Log == nil {
		t.Errorf("%+v; want from %v to %v", talk, call, shown)
	}
	s := &idleStream{}
	talk.Begin(s)
	box.Say(syn(talk.Server))
	if box.outside.packets != 2 || box.outside.last != shown {
		t.Errorf("the box calls as %v, want %v (drops %v)", box.outside.last, shown, box.Drops())
	}
	if box.Expire(now); talk.Ended() || box.Talks() != 1 || s.expired != 1 {
		t.Errorf("ended %v, %d conversations, told of the time %d times; want one that goes on", talk.Ended(), box.Talks(), s.expired)
	}
	box.table.Clear(func(*nat.Conn) bool { return true })
	if !talk.Ended() {
		t.Error("its connection is gone, and the conversation has not ended")
	}
	if talk.Close(); box.Talks() != 0 {
		t.Errorf("%d conversations after Close", box.Talks())
	}
	if box.Close(); !box.self.closed {
		t.Error("Close left Self open")
	}
}

// TestExpireMore: more is due as long as connections end.
func TestExpireMore(t *testing.T) {
	box := newDriven(t, "box.cfg", twoLegs(""))
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	p := stack.NewPacket(1500)
	p.SetData(stack.AppendUDP(nil, flow(stack.UDP, "10.20.0.11:4000", "192.0.2.5:53"), []byte("ask")))
	p.In, p.Time = box.plan().named("inside"), now
	box.Handle(p)
	if box.Conns() != 1 || box.Expire(now) {
		t.Fatalf("%d connections, or one ended at once", box.Conns())
	}
	later := now.Add(time.Hour)
	if !box.Expire(later) || box.Conns() != 0 || box.Expire(later) {
		t.Errorf("%d connections after an hour; want that Expire ends it, and then nothing", box.Conns())
	}
}

func TestSides(t *testing.T) {
	box := newDriven(t, "box.cfg", twoLegs(""))
	tests := []struct {
		on, addr    string
		owns, hides bool
	}{
		{"outside", "203.0.113.2", true, false},   // its own
		{"outside", "203.0.113.10", true, false},  // shown for the server
		{"outside", "203.0.113.11", false, false}, // a neighbour
		{"outside", "10.20.0.11", false, true},    // the server itself
		{"outside", "10.20.0.50", false, false},   // a host that no rule is about
		{"outside", "10.20.0.1", false, true},     // the box's on another side
		{"inside", "10.20.0.1", true, false},
		{"inside", "10.20.0.11", false, false},
		{"inside", "203.0.113.10", false, true}, // what others are shown of its neighbour
		{"inside", "203.0.113.2", false, true},
		{"inside", "192.0.2.5", false, false},
	}
	for _, tt := range tests {
		i, a := box.plan().named(tt.on), netip.MustParseAddr(tt.addr)
		if owns, hides := box.Owns(i, a), box.Hides(i, a); owns != tt.owns || hides != tt.hides {
			t.Errorf("%s on %s: owned %v, hidden %v; want %v, %v", a, tt.on, owns, hides, tt.owns, tt.hides)
		}
	}
}
