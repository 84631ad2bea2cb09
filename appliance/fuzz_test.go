package appliance_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
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
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  inspect sip
  inspect skinny
  inspect tftp
  inspect icmp
service-policy global_policy global
`

// What a program of packets may name: hosts, ports, payloads. Their order is
// part of the seeds in testdata/fuzz; add at the end.
var (
	fuzzHosts = []string{
		"10.20.0.50", "10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.130", "10.20.0.1",
		"172.16.5.7", "172.16.5.1",
		"198.51.100.7", "192.0.2.5", "203.0.113.1", "203.0.113.2", "203.0.113.10", "203.0.113.11", "203.0.113.13", "203.0.113.100", "203.0.113.30",
		"255.255.255.255", "127.0.0.1", "0.0.0.0", "224.0.0.1",
	}
	fuzzPorts      = []uint16{5060, 2000, 69, 53, 80, 12000, 2001, 20000, 20001, 30000, 1024, 400, 0, 65535}
	fuzzInterfaces = []string{"outside", "inside", "dmz"}
	fuzzSteps      = []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 600 * time.Millisecond,
		3 * time.Second, 31 * time.Second, 3 * time.Minute, 31 * time.Minute, 2 * time.Hour}
	fuzzPayloads = []string{
		"", "hello",
		"\x00\x01SEPDEFAULT.cnf\x00octet\x00", "\x00\x03\x00\x01block", "\x00\x04\x00\x01",
		"\x80\x00\x00\x01\x00\x00\x00\xa0\x00\x00\x51\xbbvoice", // RTP
		sipOf("INVITE", "z9hG4bK1", "call1", 1, "20000", ""),
		sipOf("INVITE", "z9hG4bK2", "call1", 2, "20002", "a=sendonly\r\n"),
		sipOf("INVITE", "z9hG4bK3", "call2", 1, "30000", "a=rtcp:30005\r\nm=video 30010/2 RTP/AVP 34\r\n"),
		sipOf("ACK", "z9hG4bK4", "call1", 1, "", ""), sipOf("BYE", "z9hG4bK5", "call1", 3, "", ""),
		sipOf("CANCEL", "z9hG4bK1", "call1", 1, "", ""), sipOf("REGISTER", "z9hG4bK6", "reg", 1, "", ""),
		sipOf("REFER", "z9hG4bK7", "call1", 4, "", "Refer-To: <sip:x@10.20.0.51>\r\n"),
		// Skinny: KeepAlive, Register, OpenReceiveChannelAck, StationIpPort.
		"\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x2c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00SEP0200000000A1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x14\x00\x32\x07\x00\x00\x00\x00\x00\x00\x00",
		"\x14\x00\x00\x00\x00\x00\x00\x00\x22\x00\x00\x00\x00\x00\x00\x00\x0a\x14\x00\x32\x20\x4e\x00\x00\x01\x00\x00\x00",
	}
)

// sipOf is a request from 10.20.0.50 to 198.51.100.7, with SDP if it has media.
func sipOf(method, branch, call string, cseq int, media, more string) string {
	body := ""
	if media != "" {
		body = "v=0\r\no=- 1 1 IN IP4 10.20.0.50\r\ns=-\r\nc=IN IP4 10.20.0.50\r\nt=0 0\r\nm=audio " + media + " RTP/AVP 0\r\n" + more
		more = "Content-Type: application/sdp\r\n"
	}
	return fmt.Sprintf("%s sip:b@198.51.100.7 SIP/2.0\r\nVia: SIP/2.0/UDP 10.20.0.50:5060;branch=%s\r\nFrom: <sip:a@10.20.0.50>;tag=1\r\n"+
		"To: <sip:b@198.51.100.7>\r\nCall-ID: %s@10.20.0.50\r\nCSeq: %d %s\r\nContact: <sip:a@10.20.0.50:5060>\r\nMax-Forwards: 70\r\n%sContent-Length: %d\r\n\r\n%s",
		method, branch, call, cseq, method, more, len(body), body)
}

// What a step of a fuzz program does. The zero one ends it.
const (
	fuzzEnd    = iota
	fuzzRaw    // length (2), bytes: a packet as it is
	fuzzUDP    // source, source port, destination, destination port, payload
	fuzzTCP    // the same, flags, sequence number and acknowledgement (1 each)
	fuzzICMP   // source, destination, identifier, sequence number
	fuzzAnswer // status / 100: to the last packet that left by that interface
	fuzzMedia  // source, port: RTP to where the last SDP says that left by it
	fuzzError  // code: an ICMP error about the last packet that left by it
	fuzzSame   // the last packet that arrived, once more
	fuzzCut    // bytes / 8: the last packet that arrived, in fragments
	fuzzBent   // offset, value: the last packet that arrived with a byte changed, checksums made right
	fuzzOps
)

// Each step begins with what it does, the interface and how much later it is.

// A fuzzReader takes a program apart. Past the end there are zeros.
type fuzzReader struct{ b []byte }

func (r *fuzzReader) byte() byte {
	if len(r.b) == 0 {
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *fuzzReader) bytes(n int) []byte {
	v := r.b[:min(n, len(r.b))]
	r.b = r.b[len(v):]
	return v
}

func pick[T any](list []T, i byte) T { return list[int(i)%len(list)] }

// end is a host and a port.
func (r *fuzzReader) end() netip.AddrPort {
	a := netip.MustParseAddr(pick(fuzzHosts, r.byte()))
	return netip.AddrPortFrom(a, pick(fuzzPorts, r.byte()))
}

// maxFuzzSteps bounds a program.
const maxFuzzSteps = 200

// A fuzzBox is the box with what went by last.
type fuzzBox struct {
	t       testing.TB
	r       *appliance.Replay
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
	if b.r, err = appliance.NewReplay(r, appliance.ReplayOptions{Seed: "fuzz", Text: &b.log, Seen: b.seen}); err != nil {
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

// answer is what the other end would say to a packet that left.
func (b *fuzzBox) answer(left []byte, status byte) [][]byte {
	p := stack.NewPacket(stack.MaxPacket)
	if p.SetData(left); p.Parse() != stack.Forward {
		return nil
	}
	f, payload := p.Flow().Reverse(), string(p.Payload())
	switch f.Proto {
	case stack.ICMP:
		return [][]byte{stack.AppendICMPEcho(nil, f, 1, []byte("ping"))}
	case stack.TCP:
		h := stack.TCPHeader{Flags: stack.FlagACK, Seq: p.TCPAck(), Ack: p.TCPSeq() + uint32(len(payload)), Window: 4096}
		if p.TCPFlags()&stack.FlagSYN != 0 {
			h.Flags, h.Ack = h.Flags|stack.FlagSYN, h.Ack+1
		}
		return [][]byte{stack.AppendTCP(nil, f, h, nil)}
	case stack.UDP:
		if line, rest, ok := strings.Cut(payload, "\r\n"); ok && strings.HasSuffix(line, "SIP/2.0") {
			rest = fuzzPlace.ReplaceAllString(rest, "${1}"+f.Src.Addr().String()) // its own media
			payload = fmt.Sprintf("SIP/2.0 %d OK\r\n%s", 100*(1+int(status)%6), fuzzLength.ReplaceAllString(rest, ""))
		}
		return [][]byte{stack.AppendUDP(nil, f, []byte(payload))}
	}
	return nil
}

// What an answer changes of the request: where its media is to go, and the
// length that is then another. Without one the body is the rest of a datagram.
var (
	fuzzPlace  = regexp.MustCompile(`(\nc=IN IP4 )[0-9.]+`)
	fuzzLength = regexp.MustCompile(`Content-Length: [0-9]+\r\n`)
)

// cut makes fragments of n bytes each of a packet. (RFC 791, section 3.2.)
func cut(raw []byte, n int) (all [][]byte) {
	if len(raw) < 20 || raw[0] != 0x45 {
		return nil
	}
	for at := 20; at < len(raw); at += n {
		end := min(at+n, len(raw))
		f := append(bytes.Clone(raw[:20]), raw[at:end]...)
		off := uint16((at - 20) / 8)
		if end < len(raw) {
			off |= 0x2000
		}
		binary.BigEndian.PutUint16(f[6:], off)
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		all = append(all, ipChecksummed(f))
	}
	return all
}

// ipChecksummed makes the checksum of an IP header right.
func ipChecksummed(raw []byte) []byte {
	raw[10], raw[11] = 0, 0
	binary.BigEndian.PutUint16(raw[10:], ^onesSum(raw[:20], 0))
	return raw
}

// checksummed makes the checksums of an IP packet right, as far as it is one.
func checksummed(raw []byte) []byte {
	ipChecksummed(raw)
	seg := raw[20:]
	at := map[byte]int{1: 2, 6: 16, 17: 6}[raw[9]]
	if at == 0 || len(seg) < at+2 {
		return raw
	}
	pseudo := uint32(0)
	if raw[9] != 1 {
		pseudo = uint32(raw[9]) + uint32(len(seg)) + uint32(onesSum(raw[12:20], 0))
	}
	seg[at], seg[at+1] = 0, 0
	binary.BigEndian.PutUint16(seg[at:], ^onesSum(seg, pseudo))
	return raw
}

// onesSum is the one's complement sum of b added to c. (RFC 1071.)
func onesSum(b []byte, c uint32) uint16 {
	for i := range b {
		c += uint32(b[i]) << (8 * (1 - i%2))
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return uint16(c)
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
	conns, holes, leases := b.r.InUse()
	// A packet opens one connection; a message has room for few streams.
	if conns > b.packets || holes > b.packets*maxFuzzHoles || leases > b.packets*(1+maxFuzzHoles) {
		b.fail("after %d packets: %d connections, %d pinholes, %d translations", b.packets, conns, holes, leases)
	}
}

// maxFuzzHoles is more than the pinholes that one message may book.
const maxFuzzHoles = 64

// seen checks each packet that leaves.
func (b *fuzzBox) seen(p *stack.Packet, dir link.Direction, v stack.Verdict) {
	if dir == link.In || p.Out.IsIdentity() {
		return
	}
	b.left[p.Out.Name] = bytes.Clone(p.Data())
	q := stack.NewPacket(stack.MaxPacket)
	q.SetData(p.Data())
	v = q.Parse()
	fragment := v == stack.DropFragment && p.Len() <= p.Out.Link.MTU()
	if v != stack.Forward && !fragment {
		b.fail("a packet leaves %s that does not parse: %v: % x", p.Out, v, p.Data())
		return
	}
	f := q.Flow()
	own := false
	for _, i := range b.r.Interfaces() {
		own = own || i.Addr.Addr() == f.Src.Addr()
	}
	typ, _ := q.ICMPType()
	made := own && f.Proto == stack.ICMP && typ != stack.ICMPEcho // by the box: an error, or the answer to a ping
	whole := b.cause.Len() > 20 && binary.BigEndian.Uint16(b.cause.Data()[6:])&0x3fff == 0
	if whole && !made && q.TTL() != b.cause.TTL()-1 {
		b.fail("TTL %d leaves %s with TTL %d", b.cause.TTL(), p.Out, q.TTL())
	}
	b.noteSDP(p.Out.Name, string(q.Payload()))
	if p.Out.Name != "outside" || b.in != "inside" {
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
	conns, holes, leases := b.r.InUse()
	if conns != 0 || holes != 0 || leases != 0 {
		var s bytes.Buffer
		b.r.Exec(&s, "show conn")
		b.r.Exec(&s, "show xlate")
		b.fail("hours later there are %d connections, %d pinholes and %d translations:\n%s", conns, holes, leases, &s)
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

// fuzzPrograms are conversations as they should be.
func fuzzPrograms() map[string][]byte {
	const (
		desk, ucm, skinny, pooled = 0, 1, 2, 4
		dmz                       = 6
		phone, far                = 8, 9
		ucmMapped, skinnyMapped   = 12, 13
		outside, inside, inDMZ    = 0, 1, 2
		sip, sccp, tftp, web      = 0, 1, 2, 4
		high                      = 10
	)
	join := func(steps ...[]byte) []byte { return bytes.Join(steps, nil) }
	udp := func(in, later, src, sport, dst, dport, payload byte) []byte {
		return []byte{fuzzUDP, in, later, src, sport, dst, dport, payload}
	}
	tcp := func(in, src, sport, dst, dport, payload, flags, seq, ack byte) []byte {
		return []byte{fuzzTCP, in, 1, src, sport, dst, dport, payload, flags, seq, ack}
	}
	answer := func(status byte) []byte { return []byte{fuzzAnswer, outside, 2, status} }
	media := func(src, port byte) []byte { return []byte{fuzzMedia, outside, 2, src, port} }
	shake := func(in, src, sport, dst, dport byte) []byte {
		return join(tcp(in, src, sport, dst, dport, 0, stack.FlagSYN, 1, 0), answer(1), tcp(in, src, sport, dst, dport, 0, stack.FlagACK, 2, 1))
	}
	invite := udp(inside, 0, desk, sip, phone, sip, 6)
	return map[string][]byte{
		"query":         join(udp(inside, 0, desk, high, far, 3, 1), answer(0)),
		"from the pool": join(udp(inside, 0, pooled, high, far, 3, 1), answer(0), udp(inside, 6, pooled, 7, far, 3, 1)),
		"TFTP":          join(udp(outside, 0, phone, high, ucmMapped, tftp, 2), udp(inside, 1, ucm, 9, phone, high, 3), udp(outside, 1, phone, high, ucmMapped, 9, 4)),
		"call": join(invite, answer(0), answer(1), media(phone, 9), udp(inside, 1, desk, sip, phone, sip, 9), media(phone, 9),
			udp(inside, 4, desk, sip, phone, sip, 7), answer(1), media(phone, 9), udp(inside, 4, desk, sip, phone, sip, 10), answer(1)),
		"call cancelled":  join(invite, answer(0), udp(inside, 2, desk, sip, phone, sip, 11), answer(1), answer(3)),
		"call abandoned":  join(invite, answer(0), media(phone, 9)),
		"two calls":       join(invite, answer(1), udp(inside, 2, desk, sip, phone, sip, 8), answer(1), media(far, 9), media(phone, 7)),
		"register":        join(udp(inside, 0, desk, sip, phone, sip, 12), answer(1)),
		"transfer":        join(invite, answer(1), udp(inside, 2, desk, sip, phone, sip, 13), answer(1)),
		"call to the UCM": join(udp(outside, 0, phone, sip, ucmMapped, sip, 6), answer(1), udp(inside, 1, ucm, sip, phone, sip, 8), answer(1)),
		"web": join(shake(inside, desk, high, far, web), tcp(inside, desk, high, far, web, 1, stack.FlagACK, 2, 1), answer(1),
			tcp(inside, desk, high, far, web, 0, stack.FlagACK|stack.FlagFIN, 7, 1), answer(1)),
		"web reset":      join(shake(inside, desk, high, far, web), tcp(inside, desk, high, far, web, 0, stack.FlagRST, 2, 0)),
		"half open":      tcp(inside, desk, high, far, web, 0, stack.FlagSYN, 1, 0),
		"Skinny":         join(shake(outside, phone, high, skinnyMapped, 5), tcp(outside, phone, high, skinnyMapped, 5, 15, stack.FlagACK, 2, 1)),
		"Skinny inside":  join(shake(inside, desk, high, far, sccp), tcp(inside, desk, high, far, sccp, 14, stack.FlagACK, 2, 1)),
		"SIP over TCP":   join(shake(inside, desk, high, phone, sip), tcp(inside, desk, high, phone, sip, 6, stack.FlagACK, 2, 1)),
		"ping":           join([]byte{fuzzICMP, inside, 0, desk, 3, far, 12, 1}, answer(0), []byte{fuzzICMP, outside, 0, phone, 3, 11, 12, 1}),
		"unreachable":    join(udp(inside, 0, desk, high, far, 3, 1), []byte{fuzzError, outside, 1, 3}, []byte{fuzzError, outside, 1, 4}),
		"fragments":      join(udp(inside, 0, desk, high, far, 3, 6), []byte{fuzzCut, inside, 1, 4}, invite, []byte{fuzzCut, inside, 1, 8}, answer(1)),
		"to a small MTU": join(udp(inside, 0, desk, high, dmz, 3, 6), udp(inDMZ, 1, dmz, 3, desk, high, 1), udp(inDMZ, 0, dmz, high, far, 3, 1), answer(0)),
		"retransmission": join(invite, []byte{fuzzSame, inside, 3}, answer(1), []byte{fuzzSame, outside, 3}),
		"bent":           join(invite, []byte{fuzzBent, inside, 1, 0, 60, 'X'}, []byte{fuzzBent, inside, 1, 1, 90, ':'}, answer(1), []byte{fuzzBent, outside, 1, 0, 8, 1}),
		"raw":            {fuzzRaw, outside, 0, 0, 20, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 47, 0, 0, 192, 0, 2, 5, 203, 0, 113, 2},
	}
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
