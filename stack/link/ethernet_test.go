package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/stack"
)

var (
	macBox   = MAC{2, 0, 0, 0, 0, 1}
	macPeer  = MAC{2, 0, 0, 0, 0, 2}
	macOther = MAC{2, 0, 0, 0, 0, 3}
)

const (
	ipBox   = "203.0.113.1" // the box's own
	ipPeer  = "203.0.113.7"
	ipProxy = "203.0.113.10"
)

// A cable is an Ethernet whose peer is the test.
type cable struct {
	e    *Ethernet
	peer *FramePairEnd
	now  time.Time
}

func newCable(opt Options) *cable {
	c := &cable{now: noon}
	clock := func() time.Time { return c.now }
	a, b := FramePair(1500, macBox, macPeer, clock)
	opt.Now = clock
	c.e, c.peer = NewEthernet(a, opt), b
	c.e.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), func(a netip.Addr) bool { return a.String() == ipProxy })
	return c
}

// sent returns what the box has sent, described.
func (c *cable) sent() []string {
	var got []string
	c.peer.rx.mu.Lock()
	n := c.peer.rx.n
	c.peer.rx.mu.Unlock()
	if n > 0 {
		c.peer.ReadFrames(func(f *Frame) bool { got = append(got, describe(f.Data)); return true })
	}
	return got
}

// describe returns a frame as text.
func describe(d []byte) string {
	s := fmt.Sprintf("%v > %v", MAC(d[6:]), MAC(d))
	typ, body := binary.BigEndian.Uint16(d[12:]), d[14:]
	if typ == typeVLAN {
		s += fmt.Sprintf(" vlan %d", binary.BigEndian.Uint16(d[14:]))
		typ, body = binary.BigEndian.Uint16(d[16:]), d[18:]
	}
	addr := func(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b)) }
	switch typ {
	case typeARP:
		return s + fmt.Sprintf(" arp %d %v=%v %v=%v", binary.BigEndian.Uint16(body[6:]),
			addr(body[14:18]), MAC(body[8:]), addr(body[24:28]), MAC(body[18:]))
	case typeIPv4:
		return s + fmt.Sprintf(" ip %v > %v len %d", addr(body[12:16]), addr(body[16:20]), len(body))
	}
	return s + fmt.Sprintf(" %04x", typ)
}

// arpFrame returns a frame with an ARP message.
func arpFrame(src, dst MAC, op uint16, senderMAC MAC, sender string, targetMAC MAC, target string) []byte {
	s, t := netip.MustParseAddr(sender).As4(), netip.MustParseAddr(target).As4()
	b := append(append(dst[:], src[:]...), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, byte(op))
	b = append(append(b, senderMAC[:]...), s[:]...)
	return append(append(b, targetMAC[:]...), t[:]...)
}

// ipFrame returns a frame with p.
func ipFrame(src, dst MAC, p *stack.Packet) []byte {
	b := append(append(dst[:], src[:]...), 8, 0)
	return append(b, p.Data()...)
}

// take gives the box the frames and returns the packets it reads from them. A
// last frame of our own makes sure that Read returns.
func (c *cable) take(t testing.TB, frames ...[]byte) []*stack.Packet {
	t.Helper()
	end := udp(t, ipPeer, ipBox, 999)
	last := ipFrame(macPeer, macBox, end)
	if c.e.vlan != 0 {
		last = append(append(append([]byte{}, last[:12]...), 0x81, 0, byte(c.e.vlan>>8), byte(c.e.vlan)), last[12:]...)
	}
	if dropped, err := c.peer.WriteFrames(append(frames, last)); dropped != 0 || err != nil {
		t.Fatalf("WriteFrames = %d, %v", dropped, err)
	}
	batch := batchOf(len(frames) + 2)
	n, err := c.e.Read(batch)
	if err != nil || n == 0 || !bytes.Equal(batch[n-1].Data(), end.Data()) {
		t.Fatalf("Read = %d, %v", n, err)
	}
	return batch[:n-1]
}

func TestARPAnswers(t *testing.T) {
	zero := MAC{}
	ask := func(sender, target string) []byte {
		return arpFrame(macPeer, broadcast, arpRequest, macPeer, sender, zero, target)
	}
	answer := func(sender, target string) []string {
		return []string{fmt.Sprintf("%v > %v arp 2 %s=%v %s=%v", macBox, macPeer, sender, macBox, target, macPeer)}
	}
	tests := []struct {
		name  string
		frame []byte
		want  []string
	}{
		{"own", ask(ipPeer, ipBox), answer(ipBox, ipPeer)},
		{"own, padded", append(ask(ipPeer, ipBox), make([]byte, 18)...), answer(ipBox, ipPeer)},
		{"proxy", ask(ipPeer, ipProxy), answer(ipProxy, ipPeer)},
		{"probe for own", ask("0.0.0.0", ipBox), answer(ipBox, "0.0.0.0")},
		{"probe for proxy", ask("0.0.0.0", ipProxy), answer(ipProxy, "0.0.0.0")},
		{"another host", ask(ipPeer, "203.0.113.8"), nil},
		{"from off the subnet", ask("198.51.100.7", ipBox), nil},
		{"from the broadcast address", ask("203.0.113.255", ipBox), nil},
		{"from our own address", ask(ipBox, ipProxy), nil},
		{"gratuitous of ours", ask(ipBox, ipBox), nil},
		{"gratuitous of a peer", ask(ipPeer, ipPeer), nil},
		{"reply unasked", arpFrame(macPeer, macBox, arpReply, macPeer, ipPeer, macBox, ipBox), nil},
		{"operation 3", arpFrame(macPeer, macBox, 3, macPeer, ipPeer, macBox, ipBox), nil},
		{"sender is a group", arpFrame(macPeer, broadcast, arpRequest, broadcast, ipPeer, zero, ipBox), nil},
		{"short", ask(ipPeer, ipBox)[:41], nil},
		{"hardware type 6", func() []byte { b := ask(ipPeer, ipBox); b[15] = 6; return b }(), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCable(Options{})
			c.take(t, tt.frame)
			if diff := cmp.Diff(tt.want, c.sent()); diff != "" {
				t.Errorf("answered (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("before SetAddrs", func(t *testing.T) {
		c := newCable(Options{})
		c.e.SetAddrs(netip.Prefix{}, nil)
		c.take(t, ask(ipPeer, ipBox))
		if got := c.sent(); got != nil {
			t.Errorf("answered %v", got)
		}
	})
}

// request is what the box asks for ipPeer.
var request = fmt.Sprintf("%v > %v arp 1 %s=%v %s=%v", macBox, broadcast, ipBox, macBox, ipPeer, MAC{})

// reply is the peer's answer.
var reply = arpFrame(macPeer, macBox, arpReply, macPeer, ipPeer, macBox, ipBox)

// send writes one packet of n bytes of payload to ipPeer.
func (c *cable) send(t testing.TB, n int) {
	t.Helper()
	if err := c.e.Write([]*stack.Packet{udp(t, "10.20.0.11", ipPeer, n)}); err != nil {
		t.Fatalf("Write: %v", err)
	}
}

// ipSent is what the peer sees of send(n).
func ipSent(mac MAC, n int) string {
	return fmt.Sprintf("%v > %v ip 10.20.0.11 > %s len %d", macBox, mac, ipPeer, n+28)
}

func TestResolve(t *testing.T) {
	c := newCable(Options{})
	expect := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, c.sent()); diff != "" {
			t.Errorf("%s: sent (-want +got):\n%s", what, diff)
		}
	}
	c.send(t, 1)
	expect("first packet", request)
	c.send(t, 2)
	expect("second packet, at once")
	c.now = c.now.Add(arpRetry)
	c.send(t, 3)
	expect("third packet, after the retry time", request)
	c.send(t, 4)
	c.send(t, 5)
	if got := c.e.Stats().Drops[NoAdjacency]; got != 2 {
		t.Errorf("%d packets dropped from the queue, want 2", got)
	}
	c.take(t, reply)
	expect("answer", ipSent(macPeer, 3), ipSent(macPeer, 4), ipSent(macPeer, 5))
	c.send(t, 6)
	expect("when known", ipSent(macPeer, 6))

	// A second answer, from somebody else, is not believed.
	c.take(t, arpFrame(macOther, macBox, arpReply, macOther, ipPeer, macBox, ipBox))
	c.send(t, 7)
	expect("after a second answer", ipSent(macPeer, 7))

	// Nearly too old: in use, asked again, of that station alone.
	c.now = c.now.Add(arpRefresh)
	c.send(t, 8)
	again := fmt.Sprintf("%v > %v arp 1 %s=%v %s=%v", macBox, macPeer, ipBox, macBox, ipPeer, MAC{})
	expect("refresh", again, ipSent(macPeer, 8))
	c.send(t, 9)
	expect("refresh, at once", ipSent(macPeer, 9))
	c.take(t, reply)
	c.now = c.now.Add(arpRefresh - 1)
	c.send(t, 10)
	expect("after the refresh", ipSent(macPeer, 10))

	// Too old.
	c.now = c.now.Add(arpLifetime)
	c.send(t, 11)
	expect("after the lifetime", request)
	c.now = c.now.Add(arpWindow)
	c.take(t, reply)
	expect("late answer")
	c.send(t, 12)
	expect("after a late answer", request)
	c.take(t, reply)
	expect("in time", ipSent(macPeer, 12))

	s := c.e.Stats()
	if s.OutPackets != 9 {
		t.Errorf("%d packets out, want 9", s.OutPackets)
	}
	if s.Drops[NoAdjacency] != 3 {
		t.Errorf("%d dropped, want 3", s.Drops[NoAdjacency])
	}
}

func TestLearn(t *testing.T) {
	zero := MAC{}
	tests := []struct {
		name  string
		frame []byte
		want  MAC // zero: not learned
	}{
		{"request to us alone", arpFrame(macOther, macBox, arpRequest, macOther, ipPeer, zero, ipBox), macOther},
		{"request to all", arpFrame(macOther, broadcast, arpRequest, macOther, ipPeer, zero, ipBox), zero},
		{"request to us alone for a proxied address", arpFrame(macOther, macBox, arpRequest, macOther, ipPeer, zero, ipProxy), zero},
		{"gratuitous request", arpFrame(macOther, broadcast, arpRequest, macOther, ipPeer, zero, ipPeer), zero},
		{"gratuitous reply", arpFrame(macOther, broadcast, arpReply, macOther, ipPeer, macOther, ipPeer), zero},
		{"reply unasked", arpFrame(macOther, macBox, arpReply, macOther, ipPeer, macBox, ipBox), zero},
		{"from off the subnet", arpFrame(macOther, macBox, arpRequest, macOther, "198.51.100.7", zero, ipBox), zero},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, known := range []bool{false, true} {
				c := newCable(Options{})
				if known {
					c.send(t, 1)
					c.take(t, reply)
				}
				c.take(t, tt.frame)
				c.sent()
				c.send(t, 2)
				want := request
				if known {
					want = ipSent(macPeer, 2)
				}
				if tt.want != zero && !known {
					want = ipSent(tt.want, 2)
				}
				if diff := cmp.Diff([]string{want}, c.sent()); diff != "" {
					t.Errorf("known before: %v: sent (-want +got):\n%s", known, diff)
				}
			}
		})
	}
}

// TestPoisoner: somebody on the link who says that he has the peer's address, in
// every way there is, gets none of its packets as long as it is there.
func TestPoisoner(t *testing.T) {
	zero := MAC{}
	evil := [][]byte{
		arpFrame(macOther, broadcast, arpReply, macOther, ipPeer, macOther, ipPeer),
		arpFrame(macOther, broadcast, arpRequest, macOther, ipPeer, zero, ipPeer),
		arpFrame(macOther, macBox, arpReply, macOther, ipPeer, macBox, ipBox),
		arpFrame(macOther, macBox, arpRequest, macOther, ipPeer, zero, ipBox),
		arpFrame(macOther, broadcast, arpRequest, macOther, ipPeer, zero, ipBox),
		arpFrame(macOther, macBox, arpReply, macOther, ipPeer, macBox, ipBox), // now that we have asked
	}
	c := newCable(Options{})
	c.send(t, 1)
	c.take(t, reply)
	c.sent()
	ask := fmt.Sprintf("%v > %v arp 1 %s=%v %s=%v", macBox, macPeer, ipBox, macBox, ipPeer, zero)
	asked := 0
	for second := range 1200 { // longer than any lifetime
		c.now = c.now.Add(time.Second)
		for _, f := range evil {
			c.take(t, f)
		}
		for _, s := range c.sent() {
			if s == ask {
				asked++
				c.take(t, reply)
			}
		}
		c.send(t, 2)
		for _, s := range c.sent() {
			switch s {
			case ipSent(macPeer, 2):
			case ask: // the refresh
				c.take(t, reply)
			default:
				t.Fatalf("after %d s: sent %s", second, s)
			}
		}
	}
	if asked == 0 || asked > 1200 {
		t.Errorf("the peer was asked %d times in 1200 s, want once a second at most", asked)
	}

	// The peer is replaced by another station, which asks for us: it has its
	// packets as soon as the old one has been silent for long enough.
	c.take(t, evil[4])
	c.now = c.now.Add(arpWindow)
	c.sent()
	c.send(t, 3)
	if diff := cmp.Diff([]string{request}, c.sent()); diff != "" {
		t.Errorf("after the peer is gone: sent (-want +got):\n%s", diff)
	}
	c.take(t, evil[2])
	if diff := cmp.Diff([]string{ipSent(macOther, 3)}, c.sent()); diff != "" {
		t.Errorf("after the answer of the new one: sent (-want +got):\n%s", diff)
	}
}

func TestReplyMustFit(t *testing.T) {
	tests := []struct {
		name  string
		frame []byte
	}{
		{"to all", arpFrame(macPeer, broadcast, arpReply, macPeer, ipPeer, macBox, ipBox)},
		{"to another", arpFrame(macPeer, macBox, arpReply, macPeer, ipPeer, macOther, ipBox)},
		{"for another address", arpFrame(macPeer, macBox, arpReply, macPeer, ipPeer, macBox, ipProxy)},
		{"from another address", arpFrame(macPeer, macBox, arpReply, macPeer, "203.0.113.8", macBox, ipBox)},
		{"with our MAC", arpFrame(macPeer, macBox, arpReply, macBox, ipPeer, macBox, ipBox)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCable(Options{})
			c.send(t, 1)
			c.sent()
			c.take(t, tt.frame)
			if got := c.sent(); got != nil {
				t.Errorf("sent %v", got)
			}
		})
	}
}

func TestWriteNextHop(t *testing.T) {
	c := newCable(Options{})
	write := func(dst, hop string) []string {
		p := udp(t, "10.20.0.11", dst, 0)
		if hop != "" {
			p.NextHop = netip.MustParseAddr(hop)
		}
		if err := c.e.Write([]*stack.Packet{p}); err != nil {
			t.Fatal(err)
		}
		return c.sent()
	}
	tests := []struct {
		name, dst, hop string
		want           []string
	}{
		{"gateway", "198.51.100.7", ipPeer, []string{request}},
		{"off the subnet", "198.51.100.7", "", nil},
		{"gateway off the subnet", ipPeer, "198.51.100.1", nil},
		{"IPv6 gateway", ipPeer, "2001:db8::1", nil},
		{"ourselves", ipBox, "", nil},
		{"broadcast", "255.255.255.255", "", []string{fmt.Sprintf("%v > %v ip 10.20.0.11 > 255.255.255.255 len 28", macBox, broadcast)}},
		{"subnet broadcast", "203.0.113.255", "", []string{fmt.Sprintf("%v > %v ip 10.20.0.11 > 203.0.113.255 len 28", macBox, broadcast)}},
		{"multicast", "224.129.2.3", "", []string{fmt.Sprintf("%v > 01:00:5e:01:02:03 ip 10.20.0.11 > 224.129.2.3 len 28", macBox)}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, write(tt.dst, tt.hop)); diff != "" {
			t.Errorf("%s: sent (-want +got):\n%s", tt.name, diff)
		}
	}
	if got := c.e.Stats().Drops[NoAdjacency]; got != 4 {
		t.Errorf("%d no-adjacency, want 4", got)
	}
	if err := c.e.Write([]*stack.Packet{udp(t, "10.20.0.11", ipPeer, 1473)}); err != nil {
		t.Fatal(err)
	}
	if got := c.e.Stats().Drops[Oversize]; got != 1 {
		t.Errorf("%d oversize, want 1", got)
	}
}

func TestUnresolvedAreBounded(t *testing.T) {
	c := newCable(Options{})
	c.e.SetAddrs(netip.MustParsePrefix("203.0.0.1/16"), nil)
	write := func(i int) {
		dst := netip.AddrFrom4([4]byte{203, 0, byte(1 + i/256), byte(i)})
		if err := c.e.Write([]*stack.Packet{udp(t, "10.20.0.11", dst.String(), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxUnresolved + 10 {
		write(i)
	}
	if got := len(c.e.neighbours.m); got != maxUnresolved {
		t.Errorf("%d neighbours, want %d", got, maxUnresolved)
	}
	if got := c.e.Stats().Drops[NoAdjacency]; got != 10 {
		t.Errorf("%d dropped, want 10", got)
	}
	c.now = c.now.Add(arpWindow)
	write(5000)
	if got := len(c.e.neighbours.m); got != 1 || c.e.neighbours.unresolved != 1 {
		t.Errorf("after the others lapsed: %d neighbours, %d unresolved; want 1, 1", got, c.e.neighbours.unresolved)
	}
	if got := c.e.Stats().Drops[NoAdjacency]; got != 10+maxUnresolved {
		t.Errorf("%d dropped, want %d", got, 10+maxUnresolved)
	}
}

func TestReadFrames(t *testing.T) {
	in := udp(t, ipPeer, ipBox, 10)
	tag := func(id uint16, f []byte) []byte {
		b := append(append([]byte{}, f[:12]...), 0x81, 0, byte(id>>8), byte(id))
		return append(b, f[12:]...)
	}
	good := ipFrame(macPeer, macBox, in)
	v6 := append(append([]byte{}, good[:12]...), 0x86, 0xdd, 0x60)
	v6 = append(v6, make([]byte, 39)...)
	tests := []struct {
		name  string
		vlan  uint16
		frame []byte
		want  int // packets
		drop  Reason
	}{
		{"ours", 0, good, 1, 0},
		{"padded", 0, append(append([]byte{}, good...), 0, 0, 0), 1, 0},
		{"priority tag", 0, tag(0xe000, good), 1, 0},
		{"IPv6", 0, v6, 1, 0},
		{"another station's", 0, ipFrame(macPeer, macOther, in), 0, NotForUs},
		{"one host's packet to all", 0, ipFrame(macPeer, broadcast, in), 0, NotForUs},
		{"broadcast to all", 0, ipFrame(macPeer, broadcast, udp(t, ipPeer, "255.255.255.255", 1)), 1, 0},
		{"subnet broadcast", 0, ipFrame(macPeer, broadcast, udp(t, ipPeer, "203.0.113.255", 1)), 1, 0},
		{"multicast", 0, ipFrame(macPeer, MAC{1, 0, 0x5e, 0, 0, 1}, udp(t, ipPeer, "224.0.0.1", 1)), 1, 0},
		{"from a group", 0, ipFrame(broadcast, macBox, in), 0, Malformed},
		{"tagged on an untagged link", 0, tag(5, good), 0, WrongVLAN},
		{"our VLAN", 5, tag(5, good), 1, 0},
		{"our VLAN with priority", 5, tag(0xa005, good), 1, 0},
		{"another VLAN", 5, tag(6, good), 0, WrongVLAN},
		{"untagged on a tagged link", 5, good, 0, WrongVLAN},
		{"two tags", 5, tag(5, tag(6, good)), 0, OtherType},
		{"tag cut", 5, tag(5, good)[:17], 0, Malformed},
		{"spanning tree", 0, append(append([]byte{}, good[:12]...), 0, 38, 0x42, 0x42), 0, OtherType},
		{"short", 0, good[:13], 0, Malformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCable(Options{VLAN: tt.vlan})
			got := c.take(t, tt.frame)
			if len(got) != tt.want {
				t.Fatalf("%d packets, want %d", len(got), tt.want)
			}
			want := map[Reason]uint64{}
			if tt.want == 0 {
				want[tt.drop] = 1
			} else if !got[0].Time.Equal(noon) {
				t.Errorf("time %v", got[0].Time)
			}
			if diff := cmp.Diff(want, c.e.Stats().Drops); diff != "" {
				t.Errorf("drops (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSharedDevice: of the frames on one device each link takes those of its
// VLAN, whether the tag is in the frame or was taken out, and counts as an error
// only what is none of the others' either.
func TestSharedDevice(t *testing.T) {
	good := ipFrame(macPeer, macBox, udp(t, ipPeer, ipBox, 1))
	inFrame := func(tag uint16) Frame {
		d := append(append(append([]byte{}, good[:12]...), 0x81, 0, byte(tag>>8), byte(tag)), good[12:]...)
		return Frame{Data: d, Time: noon}
	}
	takenOut := func(tag uint16, tpid uint16) Frame {
		return Frame{Data: good, Time: noon, Tagged: true, Tag: tag, TPID: tpid}
	}
	untaggedFrame := Frame{Data: good, Time: noon}
	tests := []struct {
		name  string
		frame Frame
		taker uint16 // VLAN of the link that takes it
		none  bool
		why   Reason // if none
	}{
		{"untagged", untaggedFrame, 0, false, 0},
		{"20 in the frame", inFrame(20), 20, false, 0},
		{"20 taken out", takenOut(20, typeVLAN), 20, false, 0},
		{"30 taken out of a kernel that does not say of what", takenOut(30, 0), 30, false, 0},
		{"30 with priority", inFrame(0xa000 | 30), 30, false, 0},
		{"priority only, in the frame", inFrame(0xe000), 0, false, 0},
		{"priority only, taken out", takenOut(0xe000, typeVLAN), 0, false, 0},
		{"a VLAN of nobody", inFrame(40), 0, true, WrongVLAN},
		{"the service tag of a provider", takenOut(20, 0x88a8), 0, true, OtherType},
		{"a tag within a service tag", func() Frame { f := inFrame(20); f.Tagged, f.Tag, f.TPID = true, 20, 0x88a8; return f }(), 0, true, OtherType},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			vlans := []uint16{0, 20, 30}
			for _, v := range vlans {
				e := newCable(Options{VLAN: v}).e
				e.forOthers = func(o uint16) bool { return o != v && slices.Contains(vlans, o) }
				e.all.batch, e.all.got = batchOf(1), 0
				f := tt.frame
				e.all.takeFrame(&f)
				takes := !tt.none && v == tt.taker
				if (e.all.got == 1) != takes {
					t.Errorf("VLAN %d takes %d, want it: %v", v, e.all.got, takes)
				}
				want := map[Reason]uint64{}
				if tt.none {
					want[tt.why] = 1
				}
				if diff := cmp.Diff(want, e.Stats().Drops); diff != "" {
					t.Errorf("VLAN %d: drops (-want +got):\n%s", v, diff)
				}
			}
		})
	}
}

func TestVLANOut(t *testing.T) {
	c := newCable(Options{VLAN: 5})
	c.send(t, 1)
	want := []string{fmt.Sprintf("%v > %v vlan 5 arp 1 %s=%v %s=%v", macBox, broadcast, ipBox, macBox, ipPeer, MAC{})}
	if diff := cmp.Diff(want, c.sent()); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	c.take(t, append(append(append([]byte{}, reply[:12]...), 0x81, 0, 0, 5), reply[12:]...))
	want = []string{fmt.Sprintf("%v > %v vlan 5 ip 10.20.0.11 > %s len 29", macBox, macPeer, ipPeer)}
	if diff := cmp.Diff(want, c.sent()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

func TestEthernetBatchAndClose(t *testing.T) {
	c := newCable(Options{})
	p := ipFrame(macPeer, macBox, udp(t, ipPeer, ipBox, 10))
	c.peer.WriteFrames([][]byte{p, p, p})
	batch := batchOf(2)
	for _, want := range []int{2, 1} {
		if n, err := c.e.Read(batch); n != want || err != nil {
			t.Fatalf("Read = %d, %v; want %d", n, err, want)
		}
	}
	c.e.Close()
	if _, err := c.e.Read(batch); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
	c.send2(t)
}

// send2 checks that Write on a closed link says so.
func (c *cable) send2(t *testing.T) {
	p := udp(t, "10.20.0.11", "255.255.255.255", 1)
	if err := c.e.Write([]*stack.Packet{p}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v, want net.ErrClosed", err)
	}
}

func FuzzEthernet(f *testing.F) {
	f.Add(reply)
	f.Add(arpFrame(macPeer, broadcast, arpRequest, macPeer, ipPeer, MAC{}, ipBox))
	f.Add(arpFrame(macPeer, macBox, arpRequest, macPeer, ipPeer, MAC{}, ipBox))
	f.Add(ipFrame(macPeer, macBox, udp(f, ipPeer, ipBox, 10)))
	f.Add(append(append(append([]byte{}, reply[:12]...), 0x81, 0, 0, 5), reply[12:]...))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 1500+tagged {
			return
		}
		c := newCable(Options{})
		c.send(t, 1)
		for _, p := range c.take(t, frame) {
			p.Parse()
			_ = p.String()
		}
		unknown := 0
		for addr, n := range c.e.neighbours.m {
			if !netip.MustParsePrefix("203.0.113.0/24").Contains(addr) {
				t.Errorf("learned %v", addr)
			}
			if !n.known {
				unknown++
			}
		}
		if unknown != c.e.neighbours.unresolved {
			t.Errorf("%d unresolved, counted %d", unknown, c.e.neighbours.unresolved)
		}
		c.sent()
	})
}

// steady returns a step that sends a packet from one station and reads it at
// the other.
func steady(t testing.TB) func() {
	a, b := FramePair(1500, macBox, macPeer, func() time.Time { return noon })
	x, y := NewEthernet(a, Options{Now: a.now}), NewEthernet(b, Options{Now: a.now})
	x.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
	y.SetAddrs(netip.MustParsePrefix(ipPeer+"/24"), nil)
	out, in := []*stack.Packet{udp(t, ipBox, ipPeer, 172)}, batchOf(64)
	// The request and its answer; x then sends what waited.
	x.Write(out)
	b.ReadFrames(y.all.take)
	a.ReadFrames(x.all.take)
	step := func() {
		x.Write(out)
		if n, err := y.Read(in); n == 0 || err != nil {
			t.Fatal(n, err)
		}
	}
	for range queueLen {
		step() // each slot of the cable gets its memory
	}
	return step
}

func TestEthernetAllocations(t *testing.T) {
	if n := testing.AllocsPerRun(1000, steady(t)); n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}

func BenchmarkEthernet(b *testing.B) {
	step := steady(b)
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}
