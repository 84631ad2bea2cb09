package appliance_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/replay"
	"patchbay/stack"
	"patchbay/stack/link"
)

// fuzzConfig has something of everything that packets meet.
const fuzzConfig = `interface GigabitEthernet0/0
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
 ip address 172.16.5.1 255.255.255.0
mtu dmz 576
object network ucm
 host 10.20.0.11
object network skinny-ucm
 host 10.20.0.12
object network desk
 host 10.20.0.13
object network pooled
 range 10.20.0.128 10.20.0.255
object network pool
 range 203.0.113.100 203.0.113.103
object network inside-net
 subnet 10.20.0.0 255.255.255.0
object network dmz-net
 subnet 172.16.5.0 255.255.255.0
object-group service voice
 service-object udp destination eq sip
 service-object tcp destination eq sip
 service-object tcp destination eq 2000
 service-object udp destination eq tftp
access-list outside_in extended permit object-group voice any object ucm
access-list outside_in extended permit tcp any object skinny-ucm eq 2000
access-list outside_in extended permit udp any object skinny-ucm eq 2001 log
access-list outside_in extended permit icmp any any echo
access-list outside_in extended deny ip any any
icmp permit any outside
object network ucm
 nat (inside,outside) static 203.0.113.10
object network skinny-ucm
 nat (inside,outside) static 203.0.113.11 service tcp 2000 12000
object network desk
 nat (inside,any) static 203.0.113.13
object network pooled
 nat (inside,outside) dynamic pool interface
object network inside-net
 nat (inside,outside) dynamic interface
object network dmz-net
 nat (dmz,outside) dynamic 203.0.113.30
access-group outside_in in interface outside
ip verify reverse-path interface outside
ip verify reverse-path interface dmz
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
class-map inspection_default
 match default-inspection-traffic
access-list policed extended permit udp any any eq 53
access-list counted extended permit tcp any any eq 80
class-map policed
 match access-list policed
class-map counted
 match access-list counted
policy-map type inspect sip careful
 parameters
  max-forwards-validation action drop log
  state-checking action drop
  rtp-conformance enforce-payloadtype
policy-map type inspect skinny careful_skinny
 parameters
  message-id max 0x141
policy-map global_policy
 class inspection_default
  inspect sip
  inspect skinny careful_skinny
  inspect tftp
  inspect icmp
 class policed
  police input 64000 1500 conform-action transmit exceed-action drop
 class counted
  set connection conn-max 20 embryonic-conn-max 5 per-client-max 4
policy-map dmz_policy
 class inspection_default
  inspect sip careful
service-policy global_policy global
service-policy dmz_policy interface dmz
`

// maxFuzzSteps bounds a program.
const maxFuzzSteps = 200

// A fuzzBox is the box with what went by last.
type fuzzBox struct {
	t       testing.TB
	r       *replay.Box
	log     bytes.Buffer
	now     time.Time
	arrived []byte                    // the last packet
	in      string                    // where
	left    map[string][]byte         // the last packet that left each interface
	sdp     map[string]netip.AddrPort // and where the last SDP wants its media
	cause   *stack.Packet             // what arrived, before Handle
	packets int
}

// fuzzRunning is fuzzConfig, read once.
var fuzzRunning = sync.OnceValues(func() (*config.Running, error) {
	r, findings := config.Check("fuzz.cfg", strings.NewReader(fuzzConfig))
	if config.Errors(findings) > 0 {
		return nil, fmt.Errorf("%v", findings)
	}
	return r, nil
})

func newFuzzBox(t testing.TB) *fuzzBox {
	r, err := fuzzRunning()
	if err != nil {
		t.Fatal(err)
	}
	b := &fuzzBox{
		t: t, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), cause: stack.NewPacket(stack.MaxPacket),
		left: make(map[string][]byte), sdp: make(map[string]netip.AddrPort),
	}
	if b.r, err = replay.New(r, replay.Options{Seed: "fuzz", Text: &b.log, Seen: b.seen}); err != nil {
		t.Fatal(err)
	}
	return b
}

// run has the packets of a program arrive, and then lets time pass until
// nothing may be left.
func (b *fuzzBox) run(program []byte) {
	r := &fuzzReader{program}
	for range maxFuzzSteps {
		op := r.byte() % fuzzOps
		if op == fuzzEnd && len(r.b) == 0 {
			break
		}
		in, step := pick(fuzzInterfaces, r.byte()), pick(fuzzSteps, r.byte())
		b.now = b.now.Add(step)
		for _, raw := range b.packetsOf(op, r, in) {
			b.arrive(in, raw)
		}
	}
	b.finish()
}

// packetsOf makes the packets of one step, to arrive on in.
func (b *fuzzBox) packetsOf(op byte, r *fuzzReader, in string) [][]byte {
	switch op {
	case fuzzRaw:
		n := int(r.byte())<<8 | int(r.byte())
		return [][]byte{r.bytes(n)}
	case fuzzUDP:
		f := stack.Flow{Proto: stack.UDP, Src: r.end(), Dst: r.end()}
		return [][]byte{stack.AppendUDP(nil, f, []byte(pick(fuzzPayloads, r.byte())))}
	case fuzzTCP:
		f := stack.Flow{Proto: stack.TCP, Src: r.end(), Dst: r.end()}
		payload := pick(fuzzPayloads, r.byte())
		h := stack.TCPHeader{Flags: r.byte(), Seq: uint32(r.byte()), Ack: uint32(r.byte()), Window: 4096}
		if h.Flags&stack.FlagSYN != 0 {
			h.MSS, payload = 1460, ""
		}
		return [][]byte{stack.AppendTCP(nil, f, h, []byte(payload))}
	case fuzzICMP:
		f := stack.Flow{Proto: stack.ICMP, Src: r.end(), Dst: r.end()}
		return [][]byte{stack.AppendICMPEcho(nil, f, uint16(r.byte()), []byte("ping"))}
	case fuzzAnswer:
		return b.answer(b.left[in], r.byte())
	case fuzzMedia:
		f := stack.Flow{Proto: stack.UDP, Src: r.end(), Dst: b.sdp[in]}
		if !f.Dst.Addr().Is4() {
			return nil
		}
		return [][]byte{stack.AppendUDP(nil, f, []byte(fuzzPayloads[5]))}
	case fuzzError:
		code := r.byte()
		p := stack.NewPacket(stack.MaxPacket)
		if p.SetData(b.left[in]); p.Parse() != stack.Forward {
			return nil
		}
		return [][]byte{stack.AppendICMPError(nil, p, netip.MustParseAddr("192.0.2.1"), stack.ICMPUnreachable, code%16, 576)}
	case fuzzSame:
		return [][]byte{b.arrived}
	case fuzzCut:
		return cut(b.arrived, max(8, int(r.byte()%64)*8))
	case fuzzBent:
		at, v := int(r.byte())<<8|int(r.byte()), r.byte()
		raw := bytes.Clone(b.arrived)
		if len(raw) < 20 {
			return nil
		}
		raw[at%len(raw)] = v
		return [][]byte{checksummed(raw)}
	}
	return nil
}

// arrive has a packet arrive, and checks what came of it.
func (b *fuzzBox) arrive(in string, raw []byte) {
	i := b.r.Interface(in)
	if i == nil || len(raw) > stack.MaxPacket {
		return
	}
	p := stack.NewPacket(stack.MaxPacket)
	p.SetData(raw)
	p.Time, p.In = b.now, i
	b.arrived, b.in = bytes.Clone(raw), in
	b.cause.SetData(raw)
	b.cause.Parse()
	b.packets++
	b.r.Handle(p)
	conns, holes, leases, ended := b.r.Appliance().InUse()
	// A packet opens one connection, or two where the box ends it; a message has
	// room for few streams.
	if conns > 2*b.packets || holes > b.packets*maxFuzzHoles || leases > b.packets*(2+maxFuzzHoles) || ended > conns {
		b.fail("after %d packets: %d connections, %d pinholes, %d translations, %d conversations ended here", b.packets, conns, holes, leases, ended)
	}
}

// maxFuzzHoles is more than the pinholes that one message may book.
const maxFuzzHoles = 64

// seen checks each packet that leaves.
func (b *fuzzBox) seen(p *stack.Packet, dir link.Direction, _ stack.Verdict) {
	if dir == link.In || p.Out.IsIdentity() {
		return
	}
	b.left[p.Out.Name] = bytes.Clone(p.Data())
	q := stack.NewPacket(stack.MaxPacket)
	q.SetData(p.Data())
	v := q.Parse()
	fragment := v == stack.DropFragment && p.Len() <= p.Out.Link.MTU()
	if v != stack.Forward && !fragment {
		b.fail("a packet leaves %s that does not parse: %v: % x", p.Out, v, p.Data())
		return
	}
	f := q.Flow()
	own := false
	for _, i := range b.r.Appliance().Interfaces() {
		own = own || i.Addr.Addr() == f.Src.Addr()
	}
	typ, _ := q.ICMPType()
	// What the box makes: an error, the answer to a ping, its own half of a
	// conversation that it ends.
	made := own && f.Proto == stack.ICMP && typ != stack.ICMPEcho || p.In.IsIdentity()
	whole := b.cause.Len() > 20 && binary.BigEndian.Uint16(b.cause.Data()[6:])&0x3fff == 0
	if whole && !made && q.TTL() != b.cause.TTL()-1 {
		b.fail("TTL %d leaves %s with TTL %d", b.cause.TTL(), p.Out, q.TTL())
	}
	b.noteSDP(p.Out.Name, string(q.Payload()))
	if p.Out.Name != "outside" {
		return
	}
	addrs := []netip.Addr{f.Src.Addr(), f.Dst.Addr()}
	if quoted, ok := q.Quoted(); ok {
		addrs = append(addrs, quoted.Src.Addr(), quoted.Dst.Addr())
	}
	for _, a := range addrs {
		if fuzzInside.Contains(a) {
			b.fail("%v leaves outside: %v", a, f)
		}
	}
}

// fuzzInside is what nobody outside may see.
var fuzzInside = netip.MustParsePrefix("10.20.0.0/24")

// noteSDP keeps where a message that leaves by out wants its media.
func (b *fuzzBox) noteSDP(out, s string) {
	var host string
	var port uint16
	if _, after, ok := strings.Cut(s, "\nc=IN IP4 "); ok {
		fmt.Sscanf(after, "%s", &host)
	}
	if _, after, ok := strings.Cut(s, "\nm=audio "); ok {
		fmt.Sscanf(after, "%d", &port)
	}
	if a, err := netip.ParseAddr(host); err == nil && port != 0 {
		b.sdp[out] = netip.AddrPortFrom(a, port)
	}
}

// finish lets hours pass: the longest timeout is that of translations, three.
// Nothing may be left.
func (b *fuzzBox) finish() {
	for range 8 {
		b.now = b.now.Add(time.Hour)
		b.r.Advance(b.now)
	}
	conns, holes, leases, ended := b.r.Appliance().InUse()
	if conns != 0 || holes != 0 || leases != 0 || ended != 0 {
		var s bytes.Buffer
		b.r.Appliance().Exec(&s, "show conn")
		b.r.Appliance().Exec(&s, "show xlate")
		b.fail("hours later there are %d connections, %d pinholes, %d translations and %d conversations ended here:\n%s", conns, holes, leases, ended, &s)
	}
	if err := b.r.Close(); err != nil {
		b.t.Error(err)
	}
}

// fail reports, once the dump is whole.
func (b *fuzzBox) fail(format string, args ...any) {
	b.t.Errorf(format, args...)
	b.t.Cleanup(func() { b.t.Logf("dump:\n%s", &b.log) })
}

// FuzzAppliance has sequences of packets arrive at a box with something of
// everything in its configuration. Nothing may panic; what is open is bounded by
// the packets that came; what leaves is well-formed, with a TTL one lower, and
// shows nobody outside an address of the inside; and when all has timed out
// nothing is left.
func FuzzAppliance(f *testing.F) {
	for _, p := range fuzzPrograms() {
		f.Add(p)
	}
	for _, p := range casePrograms(f) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, program []byte) { newFuzzBox(t).run(program) })
}

// The programs that the fuzzer begins with must come as far as they are meant
// to, or it begins with nothing.
func TestFuzzPrograms(t *testing.T) {
	for name, want := range map[string][]string{
		"query":           {"outside>inside udp"},
		"from the pool":   {"203.0.113.10"},
		"TFTP":            {"outside>inside udp 198.51.100.7:1024", "inside>outside udp 203.0.113.10:30000"},
		"call":            {"SIP/2.0 200", "outside>inside udp 198.51.100.7:30000 > 10.20.0.50:20000", "> 10.20.0.50:20002", "BYE"},
		"web":             {"outside>inside tcp"},
		"unreachable":     {"outside>inside icmp"},
		"ping":            {"outside>inside icmp"},
		"SIP over TCP":    {"SIP/2.0 200", "outside>inside udp 198.51.100.7:30000 > 10.20.0.50:20000"},
		"fragments":       {"inside>outside udp"},
		"call to the UCM": {"outside>inside udp 198.51.100.7:5060 > 10.20.0.11:5060"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFuzzBox(t)
			b.run(fuzzPrograms()[name])
			for _, s := range want {
				if !strings.Contains(b.log.String(), s) {
					b.fail("nothing of %q", s)
				}
			}
		})
	}
}
