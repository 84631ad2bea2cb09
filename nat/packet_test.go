package nat_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

var (
	outside = &stack.Interface{Name: "outside", Level: 0, Addr: netip.MustParsePrefix("203.0.113.2/24")}
	inside  = &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24")}
	dmz     = &stack.Interface{Name: "dmz", Level: 50, Addr: netip.MustParsePrefix("192.168.1.1/24")}
	start   = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
)

func addr(s string) netip.Addr   { return netip.MustParseAddr(s) }
func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func flow(proto stack.Proto, src, dst string) stack.Flow {
	return stack.Flow{Proto: proto, Src: ap(src), Dst: ap(dst)}
}

// chance is a source of random bytes that are the same each time.
func chance() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{1}) }

// packet parses a packet of f that arrived on in at the given time. TCP without
// a window offers 8,192 bytes.
func packet(t testing.TB, in *stack.Interface, at time.Time, f stack.Flow, h stack.TCPHeader, payload string) *stack.Packet {
	t.Helper()
	var b []byte
	switch f.Proto {
	case stack.TCP:
		if h.Window == 0 {
			h.Window = 8192
		}
		b = stack.AppendTCP(nil, f, h, []byte(payload))
	case stack.UDP:
		b = stack.AppendUDP(nil, f, []byte(payload))
	case stack.ICMP:
		b = stack.AppendICMPEcho(nil, f, 1, []byte(payload))
	}
	return parsed(t, in, at, b)
}

func parsed(t testing.TB, in *stack.Interface, at time.Time, b []byte) *stack.Packet {
	t.Helper()
	p := stack.NewPacket(2048)
	p.In, p.Time = in, at
	if !p.SetData(b) {
		t.Fatalf("packet of %d bytes does not fit", len(b))
	}
	if v := p.Parse(); v != stack.Forward {
		t.Fatalf("Parse() = %v", v)
	}
	return p
}

func udp(t testing.TB, in *stack.Interface, at time.Time, src, dst string) *stack.Packet {
	t.Helper()
	return packet(t, in, at, flow(stack.UDP, src, dst), stack.TCPHeader{}, "hello")
}

func newTable(t testing.TB, cfg nat.TableConfig) *nat.Table {
	t.Helper()
	cfg.Rand = chance()
	tab, err := nat.NewTable(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func newRules(t testing.TB, rules ...nat.Rule) *nat.Rules {
	t.Helper()
	rs, err := nat.NewRules(rules)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// open opens a connection that translates src to server.Src and dst to
// server.Dst, and fails the test if it cannot.
func open(t testing.TB, tab *nat.Table, p *stack.Packet, out *stack.Interface, server stack.Flow) *nat.Conn {
	t.Helper()
	c, from, v := tab.Open(p, nat.Opening{Out: out, Server: server})
	if v != stack.Forward || from != nat.Client {
		t.Fatalf("Open(%v) = %v, %v", p.Flow(), from, v)
	}
	return c
}

func newRand() *rand.Rand { return rand.New(chance()) }
