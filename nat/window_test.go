package nat_test

import (
	"encoding/binary"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// A talk is a TCP connection whose segments a test sends one by one. The
// client's data begins at 101, the server's at 501, and both offer 1,000 bytes.
type talk struct {
	t   *testing.T
	tab *nat.Table
	c   *nat.Conn
	f   stack.Flow // the client's
}

// scaled returns the SYN b with a window scale option.
func scaled(b []byte, shift uint8) []byte {
	b = append(b, 1, 3, 3, shift)
	b[32] += 1 << 4 // TCP header length, in words
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[10], b[11], b[36], b[37] = 0, 0, 0, 0
	sum := func(b []byte, c uint32) uint16 {
		for i := 0; i < len(b); i += 2 {
			c += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		for c > 0xffff {
			c = c>>16 + c&0xffff
		}
		return ^uint16(c)
	}
	binary.BigEndian.PutUint16(b[10:], sum(b[:20], 0))
	binary.BigEndian.PutUint16(b[36:], sum(b[20:], uint32(binary.BigEndian.Uint16(b[12:]))+uint32(binary.BigEndian.Uint16(b[14:]))+
		uint32(binary.BigEndian.Uint16(b[16:]))+uint32(binary.BigEndian.Uint16(b[18:]))+6+uint32(len(b)-20)))
	return b
}

const noShift = 0xff

// newTalk sends the SYN, with a window scale unless shift is noShift.
func newTalk(t *testing.T, shift uint8) *talk {
	k := &talk{t: t, tab: newTable(t, nat.TableConfig{}), f: flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443")}
	p := k.packet(nat.Client, syn, 100, 0, 1000, 0, shift)
	k.c = open(t, k.tab, p, inside, k.f)
	if v := k.c.Handle(p, nat.Client); v != stack.Forward {
		t.Fatalf("SYN: %v", v)
	}
	return k
}

func (k *talk) packet(from nat.End, flags uint8, seq, ack uint32, window uint16, data int, shift uint8) *stack.Packet {
	f, in := k.f, outside
	if from == nat.Server {
		f, in = f.Reverse(), inside
	}
	b := stack.AppendTCP(nil, f, stack.TCPHeader{Seq: seq, Ack: ack, Flags: flags, Window: window}, make([]byte, data))
	if shift != noShift {
		b = scaled(b, shift)
	}
	return parsed(k.t, in, start, b)
}

// send sends a segment and fails the test unless want becomes of it.
func (k *talk) send(name string, want stack.Verdict, from nat.End, flags uint8, seq, ack uint32, window uint16, data int) {
	k.t.Helper()
	p := k.packet(from, flags, seq, ack, window, data, noShift)
	c, end := k.tab.Lookup(p)
	if c == nil {
		k.t.Fatalf("%s: no connection", name)
	}
	if v := c.Handle(p, end); v != want || end != from {
		k.t.Errorf("%s: %v from %v, want %v", name, v, end, want)
	}
}

// up completes the handshake.
func (k *talk) up(shift uint8) {
	k.t.Helper()
	p := k.packet(nat.Server, syn|ack, 500, 101, 1000, 0, shift)
	if v := k.c.Handle(p, nat.Server); v != stack.Forward {
		k.t.Fatalf("SYN-ACK: %v", v)
	}
	k.send("handshake", stack.Forward, nat.Client, ack, 101, 501, 1000, 0)
	if !k.c.Up() {
		k.t.Fatal("not up")
	}
}

func TestTCPWindow(t *testing.T) {
	const (
		ok    = stack.Forward
		seqNo = stack.DropTCPSequence
		ackNo = stack.DropTCPAck
	)
	k := newTalk(t, noShift)
	k.up(noShift)
	k.send("first data", ok, nat.Client, ack, 101, 501, 1000, 500)
	k.send("the same again", ok, nat.Client, ack, 101, 501, 1000, 500)
	k.send("fills the window", ok, nat.Client, ack, 601, 501, 1000, 500)
	k.send("probe of the full window", ok, nat.Client, ack, 1101, 501, 1000, 1)
	k.send("past the window", seqNo, nat.Client, ack, 1103, 501, 1000, 1)
	k.send("far past it", seqNo, nat.Client, ack, 500_000, 501, 1000, 1)
	k.send("long before", seqNo, nat.Client, ack, 4_294_962_397, 501, 1000, 1)
	k.send("acknowledges what was not sent", ackNo, nat.Server, ack, 501, 1200, 1000, 0)
	k.send("acknowledges of long ago", ackNo, nat.Server, ack, 501, 4_294_898_396, 1000, 0)
	k.send("no acknowledgement", ackNo, nat.Server, 0, 501, 0, 1000, 1)
	k.send("acknowledges a part", ok, nat.Server, ack, 501, 601, 1000, 0)
	k.send("acknowledges all", ok, nat.Server, ack, 501, 1101, 1000, 0)
	k.send("the acknowledgement before, late", ok, nat.Server, ack, 501, 601, 1000, 0)
	k.send("out of order", ok, nat.Client, ack, 1601, 501, 1000, 300)
	k.send("what was missing", ok, nat.Client, ack, 1101, 501, 1000, 500)
	k.send("keep-alive", ok, nat.Client, ack, 1900, 501, 1000, 1)
	k.send("the server's turn", ok, nat.Server, ack, 501, 1901, 1000, 1000)
	k.send("a SYN of nowhere", stack.DropTCPSYN, nat.Client, syn, 77_000, 0, 1000, 0)
	k.send("a SYN-ACK of the client", stack.DropTCPState, nat.Client, syn|ack, 1901, 501, 1000, 0)
	k.send("a RST of nowhere", stack.DropTCPReset, nat.Server, rst, 77_000, 0, 0, 0)
	k.send("a RST behind", stack.DropTCPReset, nat.Client, rst, 101, 0, 0, 0)
	if k.c.Closed() || k.c.Flags() != "UIOB" {
		t.Fatalf("closed %v, flags %s", k.c.Closed(), k.c.Flags())
	}
	k.send("a RST in the window", ok, nat.Server, rst|ack, 1501, 1901, 0, 0)
	if !k.c.Closed() || k.tab.Len() != 0 {
		t.Error("RST did not close")
	}
}

func TestTCPWindowScale(t *testing.T) {
	tests := []struct {
		name           string
		client, server uint8
		verdict        stack.Verdict // of data 50,000 bytes on
	}{
		{"both", 7, 7, stack.Forward},
		{"client alone", 7, noShift, stack.DropTCPSequence},
		{"server alone", noShift, 7, stack.DropTCPSequence},
		{"server's is small", 7, 1, stack.DropTCPSequence},
		{"more than allowed counts as 14", 7, 200, stack.Forward},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newTalk(t, tt.client)
			k.up(tt.server)
			k.send("data", stack.Forward, nat.Client, ack, 101, 501, 1000, 1000)
			k.send("before a scaled window is seen", stack.DropTCPSequence, nat.Client, ack, 50_101, 501, 1000, 10)
			k.send("window", stack.Forward, nat.Server, ack, 501, 1101, 1000, 0)
			k.send("data", tt.verdict, nat.Client, ack, 50_101, 501, 1000, 10)
		})
	}
}

func TestTCPHandshakeSequence(t *testing.T) {
	k := newTalk(t, noShift)
	k.send("SYN-ACK to another SYN", stack.DropTCPAck, nat.Server, syn|ack, 500, 900, 1000, 0)
	k.send("RST to another SYN", stack.DropTCPReset, nat.Server, rst|ack, 0, 900, 0, 0)
	k.send("RST that answers nothing", stack.DropTCPReset, nat.Server, rst, 101, 0, 0, 0)
	k.send("RST of nowhere", stack.DropTCPReset, nat.Client, rst, 900, 0, 0, 0)
	k.send("SYN of the server", stack.DropTCPState, nat.Server, syn, 900, 0, 1000, 0)
	// The server still has an older connection, and the client ends that.
	k.send("challenge", stack.Forward, nat.Server, ack, 4000, 3000, 1000, 0)
	k.send("RST to the older one", stack.Forward, nat.Client, rst, 3000, 0, 0, 0)
	if k.c.Closed() {
		t.Fatal("closed by the RST of an older connection")
	}
	k.send("SYN anew", stack.Forward, nat.Client, syn, 7000, 0, 1000, 0)
	k.send("SYN-ACK to the first", stack.DropTCPAck, nat.Server, syn|ack, 500, 101, 1000, 0)
	k.send("SYN-ACK", stack.Forward, nat.Server, syn|ack, 500, 7001, 1000, 0)
	k.send("SYN-ACK again", stack.Forward, nat.Server, syn|ack, 500, 7001, 1000, 0)
	k.send("SYN again", stack.Forward, nat.Client, syn, 7000, 0, 1000, 0)
	k.send("handshake", stack.Forward, nat.Client, ack, 7001, 501, 1000, 0)
	if !k.c.Up() {
		t.Error("not up")
	}
}

func TestTCPFastOpen(t *testing.T) { // RFC 7413: data on the SYN
	for _, acked := range []uint32{101, 111} {
		k := newTalk(t, noShift)
		k.send("SYN with data", stack.Forward, nat.Client, syn, 100, 0, 1000, 10)
		k.send("SYN-ACK of too much", stack.DropTCPAck, nat.Server, syn|ack, 500, 112, 1000, 0)
		k.send("SYN-ACK", stack.Forward, nat.Server, syn|ack, 500, acked, 1000, 0)
		k.send("data", stack.Forward, nat.Client, ack, acked, 501, 1000, 10)
	}
}

func TestSYNReopensHalfClosed(t *testing.T) {
	k := newTalk(t, noShift)
	k.up(noShift)
	again := k.packet(nat.Client, syn, 900_000, 0, 1000, 0, noShift)
	if c, _ := k.tab.Lookup(again); c != k.c {
		t.Fatal("a SYN ends an established connection")
	}
	k.send("FIN", stack.Forward, nat.Client, fin|ack, 101, 501, 1000, 0)
	k.send("the first SYN, late", stack.Forward, nat.Client, syn, 100, 0, 1000, 0)
	if c, _ := k.tab.Lookup(again); c != nil || !k.c.Closed() {
		t.Fatalf("Lookup of a new SYN = %p, closed %v; want nil and closed", c, k.c.Closed())
	}
	c := open(t, k.tab, again, inside, k.f)
	if v := c.Handle(again, nat.Client); v != stack.Forward || k.tab.Len() != 1 || c.Flags() != "SaAB" {
		t.Errorf("reopened: %v, %d connections, flags %s", v, k.tab.Len(), c.Flags())
	}
	if c.Timeout() != 30*time.Second {
		t.Errorf("timeout %v", c.Timeout())
	}
}

func FuzzTCP(f *testing.F) {
	f.Add([]byte{0, 2, 0, 0, 0, 0, 1, 18, 0, 1, 0, 0})
	f.Add([]byte{0, 16, 3, 200, 0, 7, 0, 17, 0, 1, 0, 1, 1, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		tab := newTable(t, nat.TableConfig{})
		fl := flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443")
		for ; len(b) >= 6; b = b[6:] {
			g, in := fl, outside
			if b[0]&1 == 1 {
				g, in = fl.Reverse(), inside
			}
			h := stack.TCPHeader{Flags: b[1], Seq: uint32(b[2])<<24 | uint32(b[3]), Ack: uint32(b[4])<<24 | uint32(b[5]), Window: uint16(b[0]) << 8}
			raw := stack.AppendTCP(nil, g, h, make([]byte, b[0]>>4))
			if b[1]&syn != 0 && b[0] < 16 {
				raw = scaled(raw, b[5])
			}
			p := parsed(t, in, start, raw)
			c, from := tab.Lookup(p)
			if c == nil {
				var v stack.Verdict
				if c, from, v = tab.Open(p, nat.Opening{Out: inside, Server: g}); v != stack.Forward {
					continue
				}
			}
			c.Handle(p, from)
			if c.Closed() == (tab.Len() == 1) {
				t.Fatalf("closed %v, %d connections", c.Closed(), tab.Len())
			}
			if tab.HalfOpen() < 0 || tab.HalfOpen() > tab.Len() {
				t.Fatalf("%d of %d half open", tab.HalfOpen(), tab.Len())
			}
		}
		tab.Expire(start.Add(24 * time.Hour))
		if tab.Len() != 0 || tab.HalfOpen() != 0 {
			t.Fatalf("in the end %d connections, %d half open", tab.Len(), tab.HalfOpen())
		}
	})
}
