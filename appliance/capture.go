package appliance

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
	"patchbay/stack/link"
)

// Limits of captures. The ASA's defaults and ranges, but that its packets end
// at 1522 bytes. (reference/asa-cli-show-debug.md, section 4.)
const (
	captureBuffer = 524288 // bytes of memory
	captureLength = 1518   // bytes of a packet

	maxCaptures    = 16
	maxCaptureName = 63 // bytes
	maxMatches     = 3  // of one capture
	maxCaptureRoom = 256 << 20
)

// captureCommands are captures. "match" is both ways, as on the ASA; an access
// list is not.
var captureCommands = []cli.Rule[execFunc]{
	{Syntax: "capture <name> {interface <if:anyif>|type {raw-data|asp-drop [all|<reason>]}|access-list <acl>|" +
		"buffer <room:1534-33554432>|packet-length <length:64-65535>|circular-buffer|" +
		"match <proto> src=" + captureEnd + " dst=" + captureEnd + "}...",
		Help: "Keep packets in memory", Do: startCapture},
	{Syntax: "no capture <name>", Help: "End a capture and forget it", Do: endCapture},
	{Syntax: "clear capture {all|<name>}", Help: "Forget what was captured, and go on", Do: clearCapture},
	{Syntax: "show capture", Help: "Captures there are", Do: show(showCaptures)},
	{Syntax: "show capture <name> [{count <number:1-4294967295>|packet-number <first:1-4294967295>}...] [detail|dump]",
		Help: "What was captured", Do: show(showCapture)},
	{Syntax: "copy [/noconfirm] /pcap <from:word> <to:word>", Help: "Write a capture to flash", Do: copyCapture},
}

const captureEnd = "{{any|any4|host <addr>|<net:addr> <mask>} [eq <port>|neq <port>|lt <port>|gt <port>|range <from:port> <to:port>]}"

// captures are the capture commands in effect. Packets see them through the tap
// of the forwarder, which is there only while a capture wants it.
type captures struct {
	mu  sync.Mutex
	all []*capture // by name; each is replaced, never changed
}

// A capture is a place in memory and what is kept there.
type capture struct {
	name     string
	on       []string      // nameifs; none: all
	drops    bool          // type asp-drop
	drop     stack.Verdict // this one only, if one
	one      bool
	matches  []captureMatch // none: everything
	list     *nat.AccessList
	buffer   int
	length   int
	circular bool
	ring     *link.Ring
}

// A captureMatch is one "match".
type captureMatch struct {
	proto uint8 // 0: ip
	ends  [2]captureSide
	text  string
}

// A captureSide is an end of a match: a subnet and ports.
type captureSide struct {
	net    netip.Prefix
	lo, hi uint16
	not    bool // all ports but lo to hi
	ports  bool // ports matter
}

func (s *captureSide) has(a netip.Addr, port uint16, ported bool) bool {
	return s.net.Contains(a) && (!s.ports || ported && (s.lo <= port && port <= s.hi) != s.not)
}

// has reports whether the IP packet d is meant, whichever way it goes. Of what
// is no IPv4 packet it knows nothing, and of fragments but the first no ports.
func (m *captureMatch) has(d []byte) bool {
	const header, portBytes = 20, 4
	if len(d) < header || d[0]>>4 != 4 || m.proto != 0 && d[9] != m.proto {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(d[12:16])), netip.AddrFrom4([4]byte(d[16:20]))
	var sport, dport uint16
	at := int(d[0]&15) * 4
	ported := (d[9] == uint8(stack.TCP) || d[9] == uint8(stack.UDP)) &&
		binary.BigEndian.Uint16(d[6:])&0x1fff == 0 && len(d) >= at+portBytes
	if ported {
		sport, dport = binary.BigEndian.Uint16(d[at:]), binary.BigEndian.Uint16(d[at+2:])
	}
	a, b := &m.ends[0], &m.ends[1]
	return a.has(src, sport, ported) && b.has(dst, dport, ported) ||
		a.has(dst, dport, ported) && b.has(src, sport, ported)
}

// wants reports whether c keeps p.
func (c *capture) wants(p *stack.Packet) bool {
	if c.list != nil {
		typ, code := uint8(0), uint8(0)
		if len(p.Payload()) < len(p.Data()) { // parsed
			typ, code = p.ICMPType()
		}
		e := c.list.Find(&nat.Query{Flow: p.Flow(), ICMPType: typ, ICMPCode: code, Time: p.Time})
		if e == nil || !e.Permit {
			return false
		}
	}
	for i := range c.matches {
		if c.matches[i].has(p.Data()) {
			return true
		}
	}
	return len(c.matches) == 0
}

// The tags of what is kept: the number of the interface, whether the packet
// left by it, and why it was dropped.
const (
	tagOut   = 1 << 8
	tagDrop  = 1 << 9
	tagShift = 16
)

// isOn reports whether c is on i. It goes by the name, for a new configuration may
// make another interface of it.
func (c *capture) isOn(i *stack.Interface) bool {
	return len(c.on) == 0 || i != nil && slices.Contains(c.on, i.Name)
}

// pass is the tap of the forwarder.
func (c *capture) pass(p *stack.Packet, on *stack.Interface, out bool) {
	if !c.isOn(on) || !c.wants(p) {
		return
	}
	tag := uint32(0)
	if out {
		tag = tagOut
	}
	c.ring.Add(p.Time, tag, p.Data())
}

// dropped sees what the forwarder drops.
func (c *capture) dropped(p *stack.Packet, v stack.Verdict) {
	if c.one && v != c.drop || !c.isOn(p.In) || !c.wants(p) {
		return
	}
	c.ring.Add(p.Time, tagDrop|uint32(v)<<tagShift, p.Data())
}

// tapCapturesLocked has the forwarder show packets to the captures that want
// them, and to no others.
func (a *Appliance) tapCapturesLocked() {
	var raw, drops []*capture
	for _, c := range a.captures.all {
		if c.drops {
			drops = append(drops, c)
		} else {
			raw = append(raw, c)
		}
	}
	var tap func(*stack.Packet, *stack.Interface, bool)
	if raw != nil {
		tap = func(p *stack.Packet, on *stack.Interface, out bool) {
			for _, c := range raw {
				c.pass(p, on, out)
			}
		}
	}
	a.forward.SetTap(tap)
	see := a.opt.OnDrop
	if drops != nil {
		see = func(p *stack.Packet, v stack.Verdict) {
			if a.opt.OnDrop != nil {
				a.opt.OnDrop(p, v)
			}
			for _, c := range drops {
				c.dropped(p, v)
			}
		}
	}
	a.forward.SetOnDrop(see)
}

// capture returns the capture of a name, or nil.
func (a *Appliance) capture(name string) *capture {
	a.captures.mu.Lock()
	defer a.captures.mu.Unlock()
	return a.captures.findLocked(name)
}

func (s *captures) findLocked(name string) *capture {
	i := slices.IndexFunc(s.all, func(c *capture) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	return s.all[i]
}

// list returns the captures by name.
func (s *captures) list() []*capture {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// startCapture begins a capture, or adds an interface or a match to one.
func startCapture(x *execution, args cli.Args) error {
	x.captures.mu.Lock()
	defer x.captures.mu.Unlock()
	before := x.captures.findLocked(args.Get("name"))
	c, err := x.newCapture(before, args)
	if err != nil {
		return err
	}
	room := c.buffer
	for _, o := range x.captures.all {
		if o != before {
			room += o.buffer
		}
	}
	switch {
	case before == nil && len(x.captures.all) >= maxCaptures:
		return refuse("%% There are %d captures already; end one with \"no capture\"", maxCaptures)
	case room > maxCaptureRoom:
		return refuse("%% The buffers of all captures would take %d bytes: %d at most", room, maxCaptureRoom)
	}
	if before == nil || before.buffer != c.buffer || before.length != c.length || before.circular != c.circular {
		c.ring = link.NewRing(c.buffer, c.length, c.circular)
	}
	x.captures.all = slices.DeleteFunc(x.captures.all, func(o *capture) bool { return o == before })
	x.captures.all = append(x.captures.all, c)
	slices.SortFunc(x.captures.all, func(a, b *capture) int { return strings.Compare(a.name, b.name) })
	x.tapCapturesLocked()
	return nil
}

// newCapture returns what a capture command makes of before, which may be nil.
func (x *execution) newCapture(before *capture, args cli.Args) (*capture, error) {
	c := &capture{name: args.Get("name"), buffer: captureBuffer, length: captureLength}
	if before != nil {
		*c = *before
		c.on, c.matches = slices.Clone(c.on), slices.Clone(c.matches)
	}
	for _, once := range []string{"type", "access-list", "buffer", "packet-length", "match"} {
		if n := len(args.All(once)); n > 1 {
			return nil, refuse("%% There are %d \"%s\" in one command", n, once)
		}
	}
	if args.Has("type") {
		drops := args.Has("asp-drop")
		if before != nil && before.drops != drops {
			return nil, refuse("%% Capture %s is of another type", c.name)
		}
		c.drops = drops
		c.drop, c.one = dropNamed(args.Get("reason"))
	}
	for _, t := range args.All("if") {
		if !slices.Contains(c.on, t.Text) {
			c.on = append(c.on, t.Text)
		}
	}
	if args.Has("acl") {
		c.list = x.plan.lists[args.Get("acl")]
	}
	c.buffer, c.length = args.Int("room", c.buffer), args.Int("length", c.length)
	c.circular = c.circular || args.Has("circular-buffer")
	if args.Has("match") {
		m, err := x.captureMatch(args)
		if err != nil {
			return nil, err
		}
		if len(c.matches) == maxMatches {
			return nil, refuse("%% Capture %s has %d matches already", c.name, maxMatches)
		}
		c.matches = append(c.matches, m)
	}
	if !c.drops && len(c.on) == 0 {
		return nil, refuse("%% Capture %s has no interface yet; name one with \"interface\"", c.name)
	}
	return c, nil
}

func (x *execution) captureMatch(args cli.Args) (captureMatch, error) {
	var m captureMatch
	m.proto, _ = config.ParseProto(args.Get("proto"))
	m.text = "match " + config.ProtoName(m.proto)
	for i, end := range []string{"src.", "dst."} {
		s := &m.ends[i]
		switch {
		case args.Has(end + "addr"):
			a, _ := x.execAddr(args.Get(end + "addr"))
			s.net = netip.PrefixFrom(a, 32)
			m.text += " host " + a.String()
		case args.Has(end + "net"):
			a, _ := x.execAddr(args.Get(end + "net"))
			bits, _ := config.ParseMask(args.Get(end + "mask"))
			s.net = netip.PrefixFrom(a, bits).Masked()
			m.text += fmt.Sprintf(" %v %s", s.net.Addr(), config.MaskText(bits))
		default:
			s.net = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			m.text += " any"
		}
		spec, ok, err := capturePorts(args, end)
		if err != nil {
			return m, err
		}
		if !ok {
			continue
		}
		if m.proto != uint8(stack.TCP) && m.proto != uint8(stack.UDP) {
			return m, refuse("%% %s has no ports; only tcp and udp have", args.Get("proto"))
		}
		s.ports, s.lo, s.hi, s.not = true, spec.From, spec.To, spec.Not
		m.text += " " + portWords(m.proto, spec)
	}
	return m, nil
}

// capturePorts reads the ports of one end; ok is false if it has none.
func capturePorts(args cli.Args, end string) (spec config.PortSpec, ok bool, err error) {
	from, _ := config.ParsePort(args.Get(end + "port"))
	spec.From, spec.To = from, from
	empty := false
	switch {
	case args.Has(end + "eq"):
	case args.Has(end + "neq"):
		spec.Not = true
	case args.Has(end + "lt"):
		empty = from == 0
		spec.From, spec.To = 0, from-1
	case args.Has(end + "gt"):
		empty = from == 65535
		spec.From, spec.To = from+1, 65535
	case args.Has(end + "range"):
		spec.From, _ = config.ParsePort(args.Get(end + "from"))
		spec.To, _ = config.ParsePort(args.Get(end + "to"))
		empty = spec.From > spec.To
	default:
		return spec, false, nil
	}
	if empty {
		return spec, false, refuse("%% These ports are none")
	}
	return spec, true, nil
}

func endCapture(x *execution, args cli.Args) error {
	x.captures.mu.Lock()
	defer x.captures.mu.Unlock()
	c := x.captures.findLocked(args.Get("name"))
	if c == nil {
		return noCapture(args.Get("name"))
	}
	x.captures.all = slices.DeleteFunc(x.captures.all, func(o *capture) bool { return o == c })
	x.tapCapturesLocked()
	return nil
}

func noCapture(name string) error { return refuse("Capture <%s> does not exist", name) }

func clearCapture(x *execution, args cli.Args) error {
	if !args.Has("all") && x.capture(args.Get("name")) == nil {
		return noCapture(args.Get("name"))
	}
	for _, c := range x.captures.list() {
		if args.Has("all") || c.name == args.Get("name") {
			c.ring.Clear()
		}
	}
	return nil
}
