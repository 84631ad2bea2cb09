package stack

import (
	"encoding/binary"
	"math/rand"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Addresses that the tests of this package share.
const (
	phone = "198.51.100.7"
	box   = "203.0.113.10"
	ucm   = "10.20.0.11"
)

var noon = time.Date(2024, 1, 2, 12, 0, 0, 0, time.UTC)

func flowOf(proto Proto, src string, srcPort uint16, dst string, dstPort uint16) Flow {
	return Flow{proto,
		netip.AddrPortFrom(netip.MustParseAddr(src), srcPort),
		netip.AddrPortFrom(netip.MustParseAddr(dst), dstPort)}
}

// packetOf returns an unparsed packet with the bytes b, at noon.
func packetOf(t testing.TB, b []byte) *Packet {
	t.Helper()
	p := NewPacket(max(len(b), 1600))
	if !p.SetData(b) {
		t.Fatalf("SetData: %d bytes do not fit", len(b))
	}
	p.Time = noon
	return p
}

// parsed is packetOf for bytes that must parse.
func parsed(t testing.TB, b []byte) *Packet {
	t.Helper()
	p := packetOf(t, b)
	if v := p.Parse(); v != Forward {
		t.Fatalf("Parse(% x) = %v, want forward", b, v)
	}
	return p
}

// slowSum is the Internet checksum as RFC 1071 writes it.
func slowSum(bs ...[]byte) uint16 {
	var all []byte
	for _, b := range bs {
		all = append(all, b...)
	}
	if len(all)%2 != 0 {
		all = append(all, 0)
	}
	var c uint64
	for i := 0; i < len(all); i += 2 {
		c += uint64(all[i])<<8 | uint64(all[i+1])
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return ^uint16(c)
}

// valid checks all checksums of a whole packet the slow way.
func valid(t testing.TB, d []byte) {
	t.Helper()
	if sum := slowSum(d[:20]); sum != 0 {
		t.Errorf("IP checksum off by %#04x in % x", sum, d)
	}
	seg := d[20:]
	pseudo := append(append([]byte{}, d[12:20]...), 0, d[9], byte(len(seg)>>8), byte(len(seg)))
	var sum uint16
	switch Proto(d[9]) {
	case ICMP:
		sum = slowSum(seg)
	case UDP:
		if seg[6] == 0 && seg[7] == 0 {
			return
		}
		sum = slowSum(pseudo, seg)
	case TCP:
		sum = slowSum(pseudo, seg)
	}
	if sum != 0 {
		t.Errorf("transport checksum off by %#04x in % x", sum, d)
	}
}

func TestChecksumAgainstSlow(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 20_000 {
		b := make([]byte, rnd.Intn(200))
		rnd.Read(b)
		if rnd.Intn(10) == 0 {
			for i := range b {
				b[i] = 0xff
			}
		}
		c := rnd.Uint32() >> 12
		init := []byte{byte(c >> 24), byte(c >> 16), byte(c >> 8), byte(c)}
		if got, want := checksum(b, c), slowSum(init, b); got != want {
			t.Fatalf("checksum(% x, %#x) = %#04x, want %#04x", b, c, got, want)
		}
	}
}

func TestUpdateChecksumAgainstSlow(t *testing.T) {
	rnd := rand.New(rand.NewSource(2))
	for range 20_000 {
		b := make([]byte, 40)
		rnd.Read(b)
		b[0] = 0x45 // never all zero, as no IP packet is
		var sum [2]byte
		binary.BigEndian.PutUint16(sum[:], slowSum(b))
		old := append([]byte{}, b[8:16]...)
		rnd.Read(b[8:16])
		updateChecksum(sum[:], old, b[8:16])
		if got, want := binary.BigEndian.Uint16(sum[:]), slowSum(b); got != want {
			t.Fatalf("updateChecksum from % x to % x = %#04x, want %#04x", old, b[8:16], got, want)
		}
	}
}

// edit returns b with its IP header changed by f and its checksum put right.
func edit(b []byte, f func(b []byte)) []byte {
	b = append([]byte{}, b...)
	f(b)
	n := min(int(b[0]&15)*4, len(b))
	if n >= 20 {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], slowSum(b[:n]))
	}
	return b
}

func TestParse(t *testing.T) {
	udp := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("hello"))
	tcp := AppendTCP(nil, flowOf(TCP, phone, 5000, box, 2443), TCPHeader{Seq: 7, Flags: FlagSYN, Window: 8192, MSS: 1460}, nil)
	echo := AppendICMPEcho(nil, flowOf(ICMP, phone, 77, box, 0), 1, []byte("ping"))
	reply := AppendICMPEcho(nil, flowOf(ICMP, phone, 0, box, 77), 1, []byte("ping"))
	unreach := AppendICMPError(nil, parsed(t, udp), netip.MustParseAddr(box), ICMPUnreachable, CodePortUnreachable, 0)
	flip := func(b []byte, i int) []byte {
		b = append([]byte{}, b...)
		b[i] ^= 1
		return b
	}
	gre := edit(udp, func(b []byte) { b[9] = 47 })

	tests := []struct {
		name    string
		data    []byte
		want    Verdict
		flow    Flow
		payload int // bytes
	}{
		{"udp", udp, Forward, flowOf(UDP, phone, 5000, box, 69), 5},
		{"tcp with option", tcp, Forward, flowOf(TCP, phone, 5000, box, 2443), 0},
		{"echo", echo, Forward, flowOf(ICMP, phone, 77, box, 0), 4},
		{"echo reply", reply, Forward, flowOf(ICMP, phone, 0, box, 77), 4},
		{"icmp error", unreach, Forward, flowOf(ICMP, box, 0, phone, 0), len(udp)},
		{"unknown protocol", gre, Forward, flowOf(47, phone, 0, box, 0), len(udp) - 20},
		{"padded", append(append([]byte{}, udp...), make([]byte, 13)...), Forward, flowOf(UDP, phone, 5000, box, 69), 5},
		{"udp without checksum", func() []byte {
			b := append([]byte{}, udp...)
			b[26], b[27] = 0, 0
			return b
		}(), Forward, flowOf(UDP, phone, 5000, box, 69), 5},

		{"empty", nil, DropMalformed, Flow{}, 0},
		{"short", udp[:19], DropMalformed, Flow{}, 0},
		{"ipv6", append([]byte{0x60}, make([]byte, 39)...), DropIPv6, Flow{}, 0},
		{"version 5", edit(udp, func(b []byte) { b[0] = 0x55 }), DropMalformed, Flow{}, 0},
		{"ihl 4", edit(udp, func(b []byte) { b[0] = 0x44 }), DropMalformed, Flow{}, 0},
		{"ihl beyond the packet", edit(udp, func(b []byte) { b[0] = 0x4f }), DropMalformed, Flow{}, 0},
		{"options", edit(udp, func(b []byte) { b[0] = 0x46; b[20], b[21], b[22], b[23] = 1, 1, 1, 0 }), DropOptions, Flow{}, 0},
		{"truncated", udp[:len(udp)-1], DropIPLength, Flow{}, 0},
		{"total length below header", edit(udp, func(b []byte) { b[2], b[3] = 0, 19 }), DropIPLength, Flow{}, 0},
		{"ip checksum", flip(udp, 8), DropChecksum, Flow{}, 0},
		{"first fragment", edit(udp, func(b []byte) { b[6] = 0x20 }), DropFragment, flowOf(UDP, phone, 0, box, 0), 0},
		{"last fragment", edit(udp, func(b []byte) { b[7] = 9 }), DropFragment, flowOf(UDP, phone, 0, box, 0), 0},
		{"udp checksum", flip(udp, 28), DropChecksum, flowOf(UDP, phone, 0, box, 0), 0},
		{"udp length", edit(udp[:len(udp)-1], func(b []byte) { b[3]-- }), DropUDPLength, flowOf(UDP, phone, 0, box, 0), 0},
		{"udp header cut", edit(udp[:27], func(b []byte) { b[3] = 27 }), DropUDPLength, flowOf(UDP, phone, 0, box, 0), 0},
		{"tcp checksum", flip(tcp, 27), DropChecksum, flowOf(TCP, phone, 0, box, 0), 0},
		{"tcp header cut", edit(tcp[:39], func(b []byte) { b[3] = 39 }), DropTCPHeader, flowOf(TCP, phone, 0, box, 0), 0},
		{"tcp offset beyond", edit(tcp, func(b []byte) { b[32] = 0xf0 }), DropTCPHeader, flowOf(TCP, phone, 0, box, 0), 0},
		{"tcp offset small", edit(tcp, func(b []byte) { b[32] = 0x40 }), DropTCPHeader, flowOf(TCP, phone, 0, box, 0), 0},
		{"icmp checksum", flip(echo, 29), DropChecksum, flowOf(ICMP, phone, 0, box, 0), 0},
		{"icmp cut", edit(echo[:27], func(b []byte) { b[3] = 27 }), DropMalformed, flowOf(ICMP, phone, 0, box, 0), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := packetOf(t, tt.data)
			v := p.Parse()
			if v != tt.want || p.Flow() != tt.flow {
				t.Errorf("Parse(% x) = %v, flow %v; want %v, %v", tt.data, v, p.Flow(), tt.want, tt.flow)
			}
			if v == Forward && len(p.Payload()) != tt.payload {
				t.Errorf("payload of %d bytes, want %d", len(p.Payload()), tt.payload)
			}
			if s := p.String(); s == "" {
				t.Error("String is empty")
			}
		})
	}
}

func TestParseVouched(t *testing.T) {
	for _, b := range [][]byte{
		AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("hello")),
		AppendTCP(nil, flowOf(TCP, phone, 5000, box, 2443), TCPHeader{Flags: FlagSYN}, nil),
		AppendICMPEcho(nil, flowOf(ICMP, phone, 5, box, 0), 1, []byte("x")),
	} {
		want := append([]byte{}, b...)
		at := map[Proto]int{UDP: 26, TCP: 36, ICMP: 22}[Proto(b[9])]
		b[at], b[at+1] = 0xde, 0xad
		p := packetOf(t, b)
		p.ChecksumVouched = true
		if v := p.Parse(); v != Forward || p.ChecksumVouched {
			t.Errorf("%v: Parse = %v, vouched %v; want forward, false", Proto(b[9]), v, p.ChecksumVouched)
		}
		if diff := cmp.Diff(want, p.Data()); diff != "" {
			t.Errorf("%v: Parse did not fill in the checksum (-want +got):\n%s", Proto(b[9]), diff)
		}
	}
}

func TestSetFlowAgainstSlow(t *testing.T) {
	rnd := rand.New(rand.NewSource(3))
	ap := func() netip.AddrPort {
		var a [4]byte
		rnd.Read(a[:])
		return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(rnd.Uint32()))
	}
	for range 20_000 {
		f := Flow{Src: ap(), Dst: ap()}
		payload := make([]byte, rnd.Intn(40))
		rnd.Read(payload)
		var b []byte
		none := false
		switch rnd.Intn(4) {
		case 0:
			f.Proto = TCP
			b = AppendTCP(nil, f, TCPHeader{Seq: rnd.Uint32(), Flags: FlagACK}, payload)
		case 1:
			f.Proto = UDP
			b = AppendUDP(nil, f, payload)
			if none = rnd.Intn(3) == 0; none {
				b[26], b[27] = 0, 0
			}
		case 2:
			f.Proto, f.Dst = ICMP, portless(f.Dst)
			b = AppendICMPEcho(nil, f, 1, payload)
		case 3:
			f.Proto, f.Src = ICMP, portless(f.Src)
			b = AppendICMPEcho(nil, f, 1, payload)
		}
		valid(t, b)
		p := parsed(t, b)
		if f.Dst.Port() == 0 && f.Proto == ICMP {
			// a reply with identifier 0 is built as a request; both agree
			f = p.Flow()
		}
		if p.Flow() != f {
			t.Fatalf("parsed %v, want %v", p.Flow(), f)
		}
		to := Flow{f.Proto, ap(), ap()}
		if f.Proto == ICMP {
			if typ, _ := p.ICMPType(); typ == ICMPEcho {
				to.Dst = portless(to.Dst)
			} else {
				to.Src = portless(to.Src)
			}
		}
		p.SetFlow(to)
		if p.Flow() != to {
			t.Fatalf("SetFlow(%v) left %v", to, p.Flow())
		}
		valid(t, p.Data())
		if none && (p.Data()[26] != 0 || p.Data()[27] != 0) {
			t.Fatalf("SetFlow gave a checksum to a datagram without one")
		}
		q := parsed(t, p.Data())
		if q.Flow() != to {
			t.Fatalf("after SetFlow(%v) the packet says %v", to, q.Flow())
		}
	}
}

func TestSetFlowKeepsWhatIsNotIPv4(t *testing.T) {
	p := parsed(t, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), nil))
	p.SetFlow(Flow{Dst: netip.MustParseAddrPort("10.20.0.11:6969")})
	if want := flowOf(UDP, phone, 5000, ucm, 6969); p.Flow() != want {
		t.Errorf("flow %v, want %v", p.Flow(), want)
	}
	valid(t, p.Data())
}

// A UDP checksum that comes out as 0 must be sent as 0xffff.
func TestSetFlowUDPZero(t *testing.T) {
	f := flowOf(UDP, phone, 5000, box, 69)
	p := parsed(t, AppendUDP(nil, f, []byte{0, 0}))
	found := false
	for port := range 0x10000 {
		f.Src = netip.AddrPortFrom(f.Src.Addr(), uint16(port))
		p.SetFlow(f)
		sum := binary.BigEndian.Uint16(p.Transport()[6:])
		if sum == 0 {
			t.Fatalf("source port %d: checksum 0", port)
		}
		found = found || sum == 0xffff
	}
	if !found {
		t.Error("no source port made the checksum 0xffff: the case was not tried")
	}
	valid(t, p.Data())
}

func TestDecrementTTL(t *testing.T) {
	p := parsed(t, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), nil))
	for want := uint8(63); want >= 1; want-- {
		if !p.DecrementTTL() || p.TTL() != want {
			t.Fatalf("TTL %d, want %d", p.TTL(), want)
		}
		valid(t, p.Data())
	}
	if p.DecrementTTL() || p.TTL() != 1 {
		t.Errorf("DecrementTTL took the last hop: TTL %d", p.TTL())
	}
}

func TestTCPAccessors(t *testing.T) {
	p := parsed(t, AppendTCP(nil, flowOf(TCP, phone, 1, box, 2), TCPHeader{Seq: 0x01020304, Ack: 0x05060708, Flags: FlagACK | FlagPSH, Window: 500}, []byte("x")))
	if p.TCPSeq() != 0x01020304 || p.TCPAck() != 0x05060708 || p.TCPFlags() != FlagACK|FlagPSH || p.TCPWindow() != 500 {
		t.Errorf("seq %#x ack %#x flags %#x window %d", p.TCPSeq(), p.TCPAck(), p.TCPFlags(), p.TCPWindow())
	}
	u := parsed(t, AppendUDP(nil, flowOf(UDP, phone, 1, box, 2), nil))
	if u.TCPSeq() != 0 || u.TCPFlags() != 0 {
		t.Errorf("UDP packet has seq %d, flags %d", u.TCPSeq(), u.TCPFlags())
	}
}

func TestFixChecksums(t *testing.T) {
	want := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("ask"))
	b := slices.Clone(want)
	b[10]++ // of the IP header
	b[26]++ // of UDP
	p := NewPacket(2048)
	p.SetData(b)
	p.FixChecksums()
	if v := p.Parse(); v != Forward || !cmp.Equal(p.Data(), want) {
		t.Errorf("%v, % x; want % x", v, p.Data(), want)
	}
	for name, b := range map[string][]byte{
		"empty":                  {},
		"short":                  want[:19],
		"IPv6":                   append([]byte{0x60}, want[1:]...),
		"header too short":       append([]byte{0x44}, want[1:]...),
		"header beyond its data": append([]byte{0x4f}, want[1:]...),
	} {
		p.SetData(b)
		if p.FixChecksums(); !cmp.Equal(p.Data(), b) {
			t.Errorf("%s: changed to % x", name, p.Data())
		}
	}
}

func TestMSS(t *testing.T) {
	whole := AppendTCP(nil, flowOf(TCP, phone, 5000, box, 2443), TCPHeader{Flags: FlagSYN, MSS: 1460}, nil)[20:]
	edit := func(at int, v byte) []byte {
		b := slices.Clone(whole)
		b[at] = v
		return b
	}
	tests := []struct {
		name   string
		header []byte
		want   uint16 // 0: none
	}{
		{"whole", whole, 1460},
		{"cut short", whole[:23], 0},
		{"no options", edit(12, 5<<4), 0},
		{"another option", edit(20, 3), 0},
		{"another length", edit(21, 3), 0},
		{"empty", nil, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := MSS(tt.header); got != tt.want || ok != (tt.want != 0) {
				t.Errorf("MSS(% x) = %d, %v; want %d", tt.header, got, ok, tt.want)
			}
		})
	}
}

func TestClampMSS(t *testing.T) {
	f := flowOf(TCP, phone, 5000, box, 2443)
	withOptions := func(flags uint8, opts ...byte) []byte {
		for len(opts)%4 != 0 {
			opts = append(opts, 0)
		}
		// AppendTCP knows only one option; put ours where the payload is.
		b := AppendTCP(nil, f, TCPHeader{Flags: flags}, opts)
		b[32] = byte(20+len(opts)) / 4 << 4
		b[36], b[37] = 0, 0
		fillTransportChecksum(b, b[20:], TCP)
		return b
	}
	tests := []struct {
		name string
		data []byte
		want bool
		at   int // offset of the size in the packet
	}{
		{"larger", withOptions(FlagSYN, 2, 4, 0x05, 0xb4), true, 42},
		{"odd offset", withOptions(FlagSYN, 1, 2, 4, 0x05, 0xb4), true, 43},
		{"behind another option", withOptions(FlagSYN|FlagACK, 3, 3, 7, 1, 2, 4, 0x05, 0xb4), true, 46},
		{"smaller", withOptions(FlagSYN, 2, 4, 0x04, 0x00), false, 0},
		{"no SYN", withOptions(FlagACK, 2, 4, 0x05, 0xb4), false, 0},
		{"after the end", withOptions(FlagSYN, 0, 2, 4, 0x05, 0xb4), false, 0},
		{"length 0", withOptions(FlagSYN, 3, 0, 2, 4, 0x05, 0xb4), false, 0},
		{"length beyond", withOptions(FlagSYN, 1, 1, 2, 9), false, 0},
		{"kind alone", withOptions(FlagSYN, 1, 1, 1, 2), false, 0},
		{"no options", withOptions(FlagSYN), false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parsed(t, tt.data)
			if got := p.ClampMSS(1000, 1200); got != tt.want {
				t.Fatalf("ClampMSS = %v, want %v", got, tt.want)
			}
			valid(t, p.Data())
			if tt.want && binary.BigEndian.Uint16(p.Data()[tt.at:]) != 1200 {
				t.Errorf("size %d, want 1200", binary.BigEndian.Uint16(p.Data()[tt.at:]))
			}
			if !tt.want && !cmp.Equal(p.Data(), tt.data) {
				t.Errorf("packet changed to % x", p.Data())
			}
		})
	}
	small := parsed(t, withOptions(FlagSYN, 2, 4, 0x02, 0x00))
	if got := small.ClampMSS(1000, 1200); !got || binary.BigEndian.Uint16(small.Data()[42:]) != 1000 {
		t.Errorf("512 bytes: ClampMSS = %v, size %d; want 1000", got, binary.BigEndian.Uint16(small.Data()[42:]))
	}
	valid(t, small.Data())
}

func TestSetPayload(t *testing.T) {
	p := parsed(t, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("short")))
	if !p.SetPayload([]byte("a longer payload")) || string(p.Payload()) != "a longer payload" {
		t.Fatalf("payload %q", p.Payload())
	}
	valid(t, p.Data())
	parsed(t, p.Data())
	if p.SetPayload(make([]byte, 5000)) {
		t.Error("SetPayload took more than the buffer holds")
	}
	big := NewPacket(MaxPacket)
	big.SetData(p.Data())
	big.Parse()
	if big.SetPayload(make([]byte, MaxPacket-27)) {
		t.Error("SetPayload made a packet of 65536 bytes")
	}
	if !big.SetPayload(make([]byte, MaxPacket-28)) {
		t.Error("SetPayload refused the longest payload")
	}
	valid(t, big.Data())
}

func TestString(t *testing.T) {
	outside, inside := &Interface{Name: "outside"}, &Interface{Name: "inside"}
	udp := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), make([]byte, 20))
	tests := []struct {
		name string
		data []byte
		out  *Interface
		want string
	}{
		{"udp", udp, nil, "12:00:00.000000 outside udp 198.51.100.7:5000 > 203.0.113.10:69 len 20"},
		{"tcp", AppendTCP(nil, flowOf(TCP, phone, 1, ucm, 2000), TCPHeader{Seq: 1, Ack: 2, Flags: FlagSYN | FlagACK, Window: 8192}, nil), inside,
			"12:00:00.000000 outside>inside tcp 198.51.100.7:1 > 10.20.0.11:2000 SA seq 1 ack 2 win 8192 len 0"},
		{"echo", AppendICMPEcho(nil, flowOf(ICMP, phone, 5, ucm, 0), 1, make([]byte, 56)), nil,
			"12:00:00.000000 outside icmp 198.51.100.7 > 10.20.0.11 echo id 5 seq 1 len 56"},
		{"error", AppendICMPError(nil, parsed(t, udp), netip.MustParseAddr(box), 3, 4, 1400), nil,
			"12:00:00.000000 outside icmp 203.0.113.10 > 198.51.100.7 type 3 code 4 mtu 1400 about udp 198.51.100.7:5000 > 203.0.113.10:69 len 48"},
		{"fragment", edit(udp, func(b []byte) { b[6], b[7] = 0x20, 2 }), nil,
			"12:00:00.000000 outside udp 198.51.100.7 > 203.0.113.10 frag 0@16+ len 28"},
		{"other", edit(udp, func(b []byte) { b[9] = 47 }), nil,
			"12:00:00.000000 outside proto 47 198.51.100.7 > 203.0.113.10 len 28"},
		{"bad", edit(udp, func(b []byte) { b[30]++ }), nil,
			"12:00:00.000000 outside udp 198.51.100.7 > 203.0.113.10 unparsed len 28"},
		{"garbage", []byte{1, 2}, nil, "12:00:00.000000 outside malformed len 2"},
		{"ipv6", make([]byte, 40), nil, "12:00:00.000000 outside ip6 len 40"},
	}
	tests[len(tests)-1].data[0] = 0x60
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := packetOf(t, tt.data)
			p.In, p.Out = outside, tt.out
			p.Parse()
			if got := p.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	udp := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("hello"))
	f.Add(udp, false)
	f.Add(AppendTCP(nil, flowOf(TCP, phone, 5000, box, 2443), TCPHeader{Flags: FlagSYN, MSS: 1460}, nil), false)
	f.Add(AppendICMPEcho(nil, flowOf(ICMP, phone, 77, box, 0), 1, []byte("ping")), true)
	q := packetOf(f, udp)
	q.Parse()
	f.Add(AppendICMPError(nil, q, netip.MustParseAddr(box), ICMPUnreachable, CodeFragNeeded, 1000), true)
	f.Add(edit(udp, func(b []byte) { b[6] = 0x20 }), true)
	f.Fuzz(func(t *testing.T, data []byte, vouched bool) {
		if len(data) > MaxPacket {
			return
		}
		p := packetOf(t, data)
		p.ChecksumVouched = vouched
		v := p.Parse()
		_ = p.String()
		p.ClampMSS(0, 500)
		p.IsICMPError()
		if q, ok := p.Quoted(); ok {
			p.SetQuoted(q.Reverse())
		}
		if v != Forward {
			return
		}
		valid(t, p.Data())
		to := p.Flow()
		to.Src = netip.AddrPortFrom(netip.MustParseAddr(ucm), to.Src.Port())
		p.SetFlow(to)
		valid(t, p.Data())
		r := parsed(t, p.Data())
		if r.Flow() != to {
			t.Errorf("SetFlow(%v) gave %v", to, r.Flow())
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{172, 1400} {
		p := packetOf(b, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), make([]byte, n)))
		b.Run(map[int]string{172: "172B", 1400: "1400B"}[n], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p.Parse() != Forward {
					b.Fatal("does not parse")
				}
			}
		})
	}
}

func BenchmarkSetFlow(b *testing.B) {
	f := flowOf(UDP, phone, 5000, box, 69)
	g := flowOf(UDP, box, 6000, ucm, 6969)
	p := parsed(b, AppendUDP(nil, f, make([]byte, 172)))
	b.ReportAllocs()
	for b.Loop() {
		p.SetFlow(g)
		p.SetFlow(f)
	}
}

func TestPacketAllocations(t *testing.T) {
	f, g := flowOf(TCP, phone, 5000, box, 2443), flowOf(TCP, box, 6000, ucm, 2000)
	p := parsed(t, AppendTCP(nil, f, TCPHeader{Flags: FlagSYN, MSS: 1460}, nil))
	line := make([]byte, 0, 256)
	n := testing.AllocsPerRun(1000, func() {
		p.Parse()
		p.SetFlow(g)
		p.ClampMSS(0, 1300)
		p.SetFlow(f)
		line = AppendText(line[:0], p)
	})
	if n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}

func TestSetTCPAck(t *testing.T) {
	f := flowOf(TCP, phone, 5000, box, 2443)
	for _, ack := range []uint32{0, 1, 0xffff, 0x10000, 0xffffffff} {
		p := NewPacket(100)
		p.SetData(AppendTCP(nil, f, TCPHeader{Seq: 7, Ack: 0xfffe0001, Flags: FlagACK, Window: 9}, []byte("odd")))
		if v := p.Parse(); v != Forward {
			t.Fatal(v)
		}
		p.SetTCPAck(ack, 0xffff)
		if v := p.Parse(); v != Forward || p.TCPAck() != ack || p.TCPWindow() != 0xffff || p.TCPSeq() != 7 {
			t.Errorf("ack %d: %v, got %d, window %d", ack, v, p.TCPAck(), p.TCPWindow())
		}
	}
}
