package stack

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

func TestQuoted(t *testing.T) {
	udp := flowOf(UDP, phone, 5000, box, 69)
	tcp := flowOf(TCP, phone, 5000, box, 2443)
	echo := flowOf(ICMP, phone, 77, box, 0)
	reply := flowOf(ICMP, phone, 0, box, 77)
	src := netip.MustParseAddr("203.0.113.77")
	tests := []struct {
		name  string
		inner []byte
		flow  Flow
		to    Flow
		whole bool // all of the inner packet is quoted, so its checksum can be checked
		cut   int  // bytes of the inner packet that are quoted
	}{
		{"udp", AppendUDP(nil, udp, []byte("payload")), udp, flowOf(UDP, ucm, 6, "192.0.2.1", 7), true, 0},
		{"tcp", AppendTCP(nil, tcp, TCPHeader{Seq: 9, Flags: FlagACK}, []byte("x")), tcp, flowOf(TCP, ucm, 6, "192.0.2.1", 7), true, 0},
		{"tcp, 8 bytes", AppendTCP(nil, tcp, TCPHeader{Seq: 9, Flags: FlagACK}, []byte("x")), tcp, flowOf(TCP, ucm, 6, "192.0.2.1", 7), false, 28},
		{"udp, 8 bytes", AppendUDP(nil, udp, []byte("payload")), udp, flowOf(UDP, ucm, 6, "192.0.2.1", 7), false, 28},
		{"echo", AppendICMPEcho(nil, echo, 1, []byte("x")), echo, flowOf(ICMP, ucm, 8, "192.0.2.1", 0), true, 0},
		{"echo reply", AppendICMPEcho(nil, reply, 1, []byte("x")), reply, flowOf(ICMP, ucm, 0, "192.0.2.1", 8), true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := AppendICMPError(nil, parsed(t, tt.inner), src, ICMPUnreachable, CodePortUnreachable, 0)
			if tt.cut > 0 {
				b = edit(b[:28+tt.cut], func(b []byte) { binary.BigEndian.PutUint16(b[2:], uint16(len(b))) })
				fillTransportChecksum(b, b[20:], ICMP)
			}
			p := parsed(t, b)
			if want := flowOf(ICMP, src.String(), 0, phone, 0); p.Flow() != want {
				t.Errorf("Flow = %v, want %v", p.Flow(), want)
			}
			if got, ok := p.Quoted(); !ok || got != tt.flow {
				t.Fatalf("Quoted = %v, %v; want %v", got, ok, tt.flow)
			}
			p.SetQuoted(tt.to)
			if got, ok := p.Quoted(); !ok || got != tt.to {
				t.Errorf("Quoted after SetQuoted = %v, %v; want %v", got, ok, tt.to)
			}
			valid(t, p.Data())
			inner := p.Payload()
			if tt.whole {
				valid(t, inner)
			} else if sum := slowSum(inner[:20]); sum != 0 {
				t.Errorf("inner IP checksum off by %#04x", sum)
			}
			parsed(t, p.Data())
			p.SetQuoted(tt.flow)
			if string(p.Data()) != string(b) {
				t.Errorf("SetQuoted there and back gives\n% x, want\n% x", p.Data(), b)
			}
		})
	}
}

func TestQuotedRefuses(t *testing.T) {
	udp := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), []byte("payload"))
	whole := AppendICMPError(nil, parsed(t, udp), netip.MustParseAddr(box), ICMPTimeExceeded, 0, 0)
	change := func(n int, f func(b []byte)) []byte {
		b := edit(whole[:n], func(b []byte) { binary.BigEndian.PutUint16(b[2:], uint16(n)); f(b) })
		fillTransportChecksum(b, b[20:], ICMP)
		return b
	}
	none := func([]byte) {}
	tests := []struct {
		name string
		data []byte
	}{
		{"not icmp", udp},
		{"echo", AppendICMPEcho(nil, flowOf(ICMP, phone, 7, box, 0), 1, nil)},
		{"nothing quoted", change(28, none)},
		{"header cut", change(47, none)},
		{"7 bytes of transport", change(55, none)},
		{"inner version 6", change(len(whole), func(b []byte) { b[28] = 0x65 })},
		{"inner header beyond", change(len(whole), func(b []byte) { b[28] = 0x4f })},
		{"inner later fragment", change(len(whole), func(b []byte) { b[35] = 3 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := parsed(t, tt.data)
			if f, ok := p.Quoted(); ok {
				t.Errorf("Quoted = %v", f)
			}
			p.SetQuoted(flowOf(UDP, ucm, 1, box, 2))
			if string(p.Data()) != string(tt.data) {
				t.Errorf("SetQuoted changed the packet to % x", p.Data())
			}
		})
	}
}

func TestAppendICMPError(t *testing.T) {
	long := parsed(t, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), make([]byte, 1400)))
	b := AppendICMPError([]byte("before"), long, netip.MustParseAddr("203.0.113.1"), ICMPUnreachable, CodeFragNeeded, 1280)
	if string(b[:6]) != "before" {
		t.Fatal("AppendICMPError overwrote what was there")
	}
	b = b[6:]
	if len(b) != icmpErrorLen {
		t.Errorf("length %d, want %d", len(b), icmpErrorLen)
	}
	valid(t, b)
	p := parsed(t, b)
	typ, code := p.ICMPType()
	if typ != 3 || code != 4 || binary.BigEndian.Uint16(p.Transport()[6:]) != 1280 || !p.IsICMPError() {
		t.Errorf("type %d code %d mtu %d", typ, code, binary.BigEndian.Uint16(p.Transport()[6:]))
	}
}

func TestCanAnswer(t *testing.T) {
	subnet := netip.MustParsePrefix("198.51.100.1/24")
	udp := func(src, dst string) []byte { return AppendUDP(nil, flowOf(UDP, src, 1, dst, 2), nil) }
	inner := parsed(t, udp(phone, box))
	timestamp := edit(AppendICMPEcho(nil, flowOf(ICMP, phone, 1, box, 0), 1, nil), func(b []byte) {
		b[20] = 13
		fillTransportChecksum(b, b[20:], ICMP)
	})
	tests := []struct {
		name string
		data []byte
		want bool
	}{
		{"udp", udp(phone, box), true},
		{"echo", AppendICMPEcho(nil, flowOf(ICMP, phone, 1, box, 0), 1, nil), true},
		{"icmp error", AppendICMPError(nil, inner, netip.MustParseAddr(box), 3, 3, 0), false},
		{"other icmp", timestamp, false},
		{"to multicast", udp(phone, "224.0.1.75"), false},
		{"to all", udp(phone, "255.255.255.255"), false},
		{"to the subnet's broadcast", udp(phone, "198.51.100.255"), false},
		{"to another subnet's .255", udp(phone, "203.0.113.255"), true},
		{"from the subnet's broadcast", udp("198.51.100.255", box), false},
		{"from multicast", udp("224.0.0.1", box), false},
		{"from 0.0.0.0", udp("0.0.0.0", box), false},
		{"from loopback", udp("127.0.0.1", box), false},
		{"from class E", udp("240.0.0.1", box), false},
		{"from the box", udp("198.51.100.1", box), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := CanAnswer(parsed(t, tt.data), subnet); got != tt.want {
				t.Errorf("CanAnswer = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAllowance(t *testing.T) {
	a := allowance{rate: 2, burst: 3}
	take := func(at time.Duration, want ...bool) {
		t.Helper()
		for i, w := range want {
			if got := a.take(noon.Add(at)); got != w {
				t.Errorf("take %d at %v = %v, want %v", i, at, got, w)
			}
		}
	}
	take(0, true, true, true, false)
	take(400*time.Millisecond, false)
	take(500*time.Millisecond, true, false)
	take(0, false) // the clock of another link is behind
	take(time.Hour, true, true, true, false)
}
