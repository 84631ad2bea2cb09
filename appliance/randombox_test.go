package appliance

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/stack"
)

// baseConfig are the interfaces of random boxes.
const baseConfig = `
interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
interface GigabitEthernet0/2
 nameif dmz
 security-level 50
 ip address 10.30.0.1 255.255.255.0
interface GigabitEthernet0/3
 nameif lab
 security-level 50
 ip address 10.40.0.1 255.255.255.0
`

// A natWay is NAT of one form.
type natWay struct {
	lines []string
	alone bool // of before 8.3: not beside the others
}

// natWays are the forms of NAT that random boxes have, some of them at once.
var natWays = []natWay{
	{lines: []string{"object network inside-net", " subnet 10.20.0.0 255.255.255.0", " nat (inside,outside) dynamic interface"}},
	{lines: []string{"object network ucm", " host 10.20.0.11", " nat (inside,outside) static 203.0.113.10"}},
	{lines: []string{"object network web", " host 10.20.0.12", " nat (inside,outside) static interface service tcp 80 8080"}},
	{lines: []string{"object network block", " subnet 10.20.0.64 255.255.255.240", "object network block-out", " subnet 203.0.113.64 255.255.255.240",
		"object network block", " nat (inside,any) static block-out"}},
	{lines: []string{"object network few", " range 203.0.113.100 203.0.113.101", "object network dmz-net", " subnet 10.30.0.0 255.255.255.0",
		" nat (dmz,outside) dynamic few interface"}},
	{lines: []string{"object network two", " range 203.0.113.110 203.0.113.111", "object network lab-net", " subnet 10.40.0.0 255.255.255.0",
		" nat (lab,outside) dynamic two"}},
	{lines: []string{"object network pool", " range 203.0.113.120 203.0.113.121", "object network some", " range 10.20.0.48 10.20.0.51",
		" nat (inside,outside) dynamic pat-pool pool round-robin"}},
	{lines: []string{"object network one", " host 203.0.113.130", "object network host", " host 10.20.0.49",
		" nat (inside,outside) dynamic pat-pool one extended flat include-reserve"}},
	{lines: []string{"object network same", " host 10.20.0.13", " nat (inside,outside) static same"}},
	{lines: []string{"object network peer", " host 192.0.2.5", "object network peer-alias", " host 10.20.0.200", "object network phones",
		" subnet 10.20.0.0 255.255.255.0", "object network spare", " host 203.0.113.60",
		"nat (inside,outside) source dynamic phones spare destination static peer-alias peer"}},
	{lines: []string{"object network srv", " host 10.30.0.5", "object network srv-out", " host 203.0.113.70", "object service real", " service tcp source eq 2000",
		"object service shown", " service tcp source eq 2443", "nat (dmz,outside) source static srv srv-out service real shown"}},
	{lines: []string{"object network all", " subnet 0.0.0.0 0.0.0.0", "object network last", " host 203.0.113.80",
		"nat (any,outside) after-auto source dynamic all last"}},
	{lines: []string{"object network uni", " host 10.20.0.14", "object network uni-out", " host 203.0.113.14",
		"nat (inside,outside) source static uni uni-out unidirectional"}},
	{lines: []string{"object network rl", " host 10.20.0.15", "object network rl-out", " host 203.0.113.15",
		"nat (inside,outside) source static rl rl-out route-lookup no-proxy-arp"}},
	{alone: true, lines: []string{"nat (inside) 1 10.20.0.0 255.255.255.0", "global (outside) 1 interface", "global (dmz) 1 10.30.0.200-10.30.0.201",
		"static (inside,outside) 203.0.113.10 10.20.0.11 netmask 255.255.255.255 tcp 2 1 udp 3", "nat-control"}},
	{alone: true, lines: []string{"nat (inside) 0 10.20.0.11 255.255.255.255", "nat (dmz) 2 0.0.0.0 0.0.0.0", "global (outside) 2 203.0.113.90",
		"static (inside,outside) tcp interface 2000 10.20.0.12 2000 netmask 255.255.255.255"}},
}

// A randomBox makes configurations and packets by chance.
type randomBox struct {
	*rand.Rand
	old   bool      // the dialect of before 8.3
	heard []arrival // what left, as it would be answered
}

// An arrival is a packet to come.
type arrival struct {
	in   string
	data []byte
}

var boxNames = []string{"outside", "inside", "dmz", "lab"}

func pick[T any](g *randomBox, list []T) T { return list[g.IntN(len(list))] }

func (g *randomBox) maybe(percent int) bool { return g.IntN(100) < percent }

// config makes the configuration of a box.
func (g *randomBox) config() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	g.old = g.maybe(20)
	if g.old {
		line("ASA Version 8.0(4)")
	} else {
		line("ASA Version 9.1(7)")
	}
	line("hostname box%s", baseConfig)
	for _, i := range []string{"dmz", "outside", "inside"} {
		if g.maybe(15) {
			line("ip verify reverse-path interface %s", i)
		}
	}
	for _, s := range []string{"inter", "intra"} {
		if g.maybe(40) {
			line("same-security-traffic permit %s-interface", s)
		}
	}
	if g.maybe(80) {
		line("route outside 0.0.0.0 0.0.0.0 203.0.113.1 1")
	}
	if g.maybe(30) {
		line("route inside 10.21.0.0 255.255.0.0 10.20.0.254 1")
	}
	g.nat(line)
	g.lists(line)
	g.policies(line)
	if g.maybe(20) {
		line("icmp deny any outside")
	}
	return b.String()
}

func (g *randomBox) nat(line func(string, ...any)) {
	for _, w := range natWays {
		if w.alone == g.old && g.maybe(45) {
			for _, s := range w.lines {
				line("%s", s)
			}
		}
	}
}

// address writes what an entry of a list may say of an end.
func (g *randomBox) address() string {
	switch g.IntN(4) {
	case 0:
		return "host " + g.host().String()
	case 1:
		return pick(g, []string{"10.20.0.0 255.255.255.0", "10.30.0.0 255.255.255.0", "203.0.113.0 255.255.255.128", "192.0.2.0 255.255.255.240"})
	case 2:
		return "object-group hosts"
	}
	return "any"
}

func (g *randomBox) lists(line func(string, ...any)) {
	line("object-group network hosts")
	for range 1 + g.IntN(4) {
		line(" network-object host %v", g.host())
	}
	line("object-group service ports tcp")
	line(" port-object eq 80")
	line(" port-object range 2000 2443")
	list := func(name string) {
		for range 1 + g.IntN(12) {
			verb := pick(g, []string{"permit", "permit", "permit", "deny"})
			switch g.IntN(5) {
			case 0:
				line("access-list %s extended %s ip %s %s", name, verb, g.address(), g.address())
			case 1:
				line("access-list %s extended %s icmp %s %s %s", name, verb, g.address(), g.address(), pick(g, []string{"", "echo", "echo-reply"}))
			case 2:
				line("access-list %s extended %s tcp %s %s object-group ports", name, verb, g.address(), g.address())
			case 3:
				line("access-list %s extended %s udp %s %s %s", name, verb, g.address(), g.address(), pick(g, []string{"eq 53", "neq 69", "lt 1000", "gt 60", "range 50 6000"}))
			default:
				line("access-list %s extended %s tcp %s gt 1000 %s %s", name, verb, g.address(), g.address(), pick(g, []string{"", "log", "inactive", "time-range early"}))
			}
		}
	}
	line("time-range early")
	line(" periodic daily 8:00 to 9:30")
	for _, i := range boxNames {
		for _, dir := range []string{"in", "out"} {
			if percent := map[string]int{"in": 35, "out": 10}[dir]; g.maybe(percent) {
				list(i + "_" + dir)
				line("access-group %s_%s %s interface %s", i, dir, dir, i)
			}
		}
	}
	if g.maybe(20) && !g.old {
		list("everywhere")
		line("access-group everywhere global")
	}
}

func (g *randomBox) policies(line func(string, ...any)) {
	if g.maybe(20) {
		return
	}
	line("class-map inspection_default\n match default-inspection-traffic")
	line("access-list web extended permit tcp any any\nclass-map web\n match access-list web")
	line("class-map dns\n match port udp range 1 65535")
	line("policy-map global_policy\n class inspection_default")
	for _, e := range []string{"sip", "skinny", "tftp", "icmp"} {
		if g.maybe(60) {
			line("  inspect %s", e)
		}
	}
	if g.maybe(60) {
		line(" class web\n  set connection conn-max %d embryonic-conn-max %d per-client-max %d", g.IntN(4), g.IntN(3), g.IntN(3))
	}
	line("service-policy global_policy global")
	if g.maybe(50) {
		i := pick(g, boxNames)
		line("policy-map edge\n class dns\n  police input 8000 1000\n  police output 8000 1000 conform-action transmit exceed-action %s", pick(g, []string{"drop", "transmit"}))
		line("service-policy edge interface %s", i)
	}
}

// host picks an address of few, so that packets meet rules and each other.
func (g *randomBox) host() netip.Addr {
	return netip.MustParseAddr(pick(g, []string{
		"10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.14", "10.20.0.15", "10.20.0.49", "10.20.0.50", "10.20.0.66", "10.20.0.200", "10.21.0.9",
		"10.30.0.5", "10.30.0.6", "10.30.0.7", "10.40.0.5", "10.40.0.6", "10.40.0.7",
		"203.0.113.10", "203.0.113.14", "203.0.113.15", "203.0.113.60", "203.0.113.66", "203.0.113.70", "203.0.113.2", "203.0.113.77", "10.20.0.1",
		"192.0.2.5", "192.0.2.5", "192.0.2.6", "198.51.100.7", "198.51.100.8", "198.51.100.9",
	}))
}

func (g *randomBox) port() uint16 {
	return pick(g, []uint16{53, 69, 80, 123, 500, 600, 2000, 2443, 5000, 5060, 8080, 40000})
}

// behind is the interface whose host has an address.
func behind(a netip.Addr) string {
	for prefix, name := range map[string]string{"10.20.0.0/15": "inside", "10.30.0.0/24": "dmz", "10.40.0.0/24": "lab"} {
		if netip.MustParsePrefix(prefix).Contains(a) {
			return name
		}
	}
	return "outside"
}

// pass lets time go by, as much as it takes for things to end at times.
func (g *randomBox) pass(b *tracedBox) {
	switch {
	case g.maybe(2):
		b.now = b.now.Add(200 * time.Second)
	case g.maybe(5):
		b.now = b.now.Add(31 * time.Second)
	default:
		b.now = b.now.Add(time.Duration(g.IntN(500)) * time.Millisecond)
	}
	b.Expire(b.now)
}

// packet makes a packet: an answer to what left, or one of its own.
func (g *randomBox) packet(b *tracedBox) (data []byte, in string) {
	if len(g.heard) > 0 && g.maybe(35) {
		h := pick(g, g.heard)
		return h.data, h.in
	}
	src := g.host()
	in = behind(src)
	if g.maybe(8) {
		in = pick(g, boxNames)
	}
	f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(src, g.port()), Dst: netip.AddrPortFrom(g.host(), g.port())}
	if g.maybe(1) {
		f.Src = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9)
	}
	switch g.IntN(10) {
	case 0, 1, 2:
		flags := stack.FlagSYN
		if g.maybe(15) {
			flags = uint8(g.IntN(64))
		}
		data = stack.AppendTCP(nil, f, stack.TCPHeader{Flags: flags, Seq: uint32(g.IntN(3)), Ack: uint32(g.IntN(3)), Window: 1000}, nil)
	case 3, 4:
		f.Proto, f.Src, f.Dst = stack.ICMP, netip.AddrPortFrom(src, uint16(g.IntN(3))), netip.AddrPortFrom(f.Dst.Addr(), 0)
		if g.maybe(20) {
			f.Src, f.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(f.Dst.Addr(), 1)
		}
		data = stack.AppendICMPEcho(nil, f, uint16(g.IntN(3)), nil)
	case 5:
		const protoAt = 9
		data = stack.AppendUDP(nil, f, make([]byte, 20))
		data[protoAt] = 47
		p := stack.NewPacket(len(data))
		p.SetData(data)
		p.FixChecksums()
		data = slices.Clone(p.Data())
	default:
		f.Proto = stack.UDP
		if g.maybe(15) {
			f.Dst = netip.AddrPortFrom(f.Dst.Addr(), 69)
		}
		var payload []byte
		if f.Dst.Port() == 69 {
			payload = []byte("\x00\x01file\x00octet\x00")
		} else if f.Dst.Port() != 5060 && f.Src.Port() != 5060 {
			payload = make([]byte, g.IntN(900))
		}
		data = stack.AppendUDP(nil, f, payload)
	}
	if g.maybe(3) {
		p := stack.NewPacket(len(data))
		p.SetData(data)
		const ttlAt = 8
		p.Data()[ttlAt] = 1
		p.FixChecksums()
		data = slices.Clone(p.Data())
	}
	return data, in
}

// remember keeps answers to what left by an interface: of the server, of a
// router on the way, and what the client sends again.
func (g *randomBox) remember(in string, arrived stack.Flow, data []byte, v stack.Verdict, left []*stack.Packet) {
	if v != stack.Forward || len(left) != 1 || left[0].Out.IsIdentity() {
		return
	}
	p := left[0]
	back := p.Flow().Reverse()
	var answers [][]byte
	switch arrived.Proto {
	case stack.TCP:
		seq := p.TCPSeq()
		for _, h := range []stack.TCPHeader{
			{Flags: stack.FlagSYN | stack.FlagACK, Seq: 100, Ack: seq + 1, Window: 1000},
			{Flags: stack.FlagACK, Seq: 101, Ack: seq + 1, Window: 1000},
			{Flags: stack.FlagRST | stack.FlagACK, Seq: 0, Ack: seq + 1},
		} {
			answers = append(answers, stack.AppendTCP(nil, back, h, nil))
		}
	case stack.UDP:
		answers = append(answers, stack.AppendUDP(nil, back, nil))
		if back.Src.Port() == 69 {
			back.Src = netip.AddrPortFrom(back.Src.Addr(), 50000)
			answers = append(answers, stack.AppendUDP(nil, back, []byte("\x00\x03\x00\x01")))
		}
	case stack.ICMP:
		answers = append(answers, stack.AppendICMPEcho(nil, back, uint16(g.IntN(3)), nil))
	}
	router := netip.MustParseAddr("192.0.2.99")
	answers = append(answers, stack.AppendICMPError(nil, p, router, stack.ICMPUnreachable, 1, 0))
	g.heard = append(g.heard, arrival{in, data})
	for _, a := range answers {
		if len(a) > 0 {
			g.heard = append(g.heard, arrival{p.Out.Name, a})
		}
	}
	const most = 40
	g.heard = g.heard[max(0, len(g.heard)-most):]
}
