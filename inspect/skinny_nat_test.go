package inspect_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
	"patchbay/stack"
)

// sccp is a message of protocol 0 with n bytes of data, and values at offsets:
// a uint32, or the address and port of an AddrPort. (reference/skinny.md,
// section 4.)
func sccp(id uint32, n int, at ...any) []byte {
	m := make([]byte, 12+n)
	binary.LittleEndian.PutUint32(m, uint32(4+n))
	binary.LittleEndian.PutUint32(m[8:], id)
	for i := 0; i < len(at); i += 2 {
		b := m[12+at[i].(int):]
		switch v := at[i+1].(type) {
		case int:
			binary.LittleEndian.PutUint32(b, uint32(v))
		case string:
			copy(b, v)
		case netip.Addr:
			a := v.As4()
			copy(b, a[:])
		case netip.AddrPort:
			a := v.Addr().As4()
			copy(b, a[:])
			binary.LittleEndian.PutUint32(b[4:], uint32(v.Port()))
		}
	}
	return m
}

// addrAt reads an address and port at an offset of the data.
func addrAt(m []byte, off int) netip.AddrPort {
	b := m[12+off:]
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), uint16(binary.LittleEndian.Uint32(b[4:])))
}

// TestSkinnyCall is a call of a phone inside whose call manager is outside,
// through dynamic PAT and static NAT.
func TestSkinnyCall(t *testing.T) {
	const ucm = "198.51.100.5:2000"
	tests := []struct {
		name, as string
		rule     nat.Rule
	}{
		{"dynamic PAT", "203.0.113.2", patRule()},
		{"static", "203.0.113.11", staticRule("10.20.0.11", "203.0.113.11")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, tt.rule)
			b := w.nat.Binder(inspect.Conversation{
				In: inside, Out: outside,
				Client: stack.Flow{Proto: stack.TCP, Src: ap("10.20.0.11:50000"), Dst: ap(ucm)},
				Server: stack.Flow{Proto: stack.TCP, Src: ap(tt.as + ":50000"), Dst: ap(ucm)},
			}, inspect.Options{Now: func() time.Time { return w.now }, Private: true, Media: 5 * time.Minute})
			s := skinny.Engine{}.NewSession(b)
			pass := func(m []byte, from nat.End) []byte {
				t.Helper()
				out, err := s.Inspect(nil, m, from)
				if err != nil {
					t.Fatal(err)
				}
				hidden := netip.MustParseAddr("10.20.0.11").As4()
				if from == nat.Client && bytes.Contains(out, hidden[:]) {
					t.Errorf("inside address leaves in %v", skinny.Message(out))
				}
				return out
			}
			m := pass(sccp(0x0001, 52, 0, "SEP001122334455", 24, netip.MustParseAddr("10.20.0.11"), 40, 5), nat.Client)
			if got := netip.AddrFrom4([4]byte(m[12+24:])); got.String() != tt.as {
				t.Errorf("Register leaves with %v, want %s", got, tt.as)
			}
			pass(sccp(0x0105, 40, 0, 7, 4, 9), nat.Server)
			m = pass(sccp(0x0022, 16, 0, 0, 4, ap(rtp), 12, 9), nat.Client)
			at := addrAt(m, 4)
			if at.Addr().String() != tt.as || at.Port() != 16384 {
				t.Errorf("OpenReceiveChannelAck leaves with %v", at)
			}
			m = pass(sccp(0x008a, 40, 0, 7, 4, 9, 8, ap(farRTP)), nat.Server)
			if got := addrAt(m, 8); got != ap(farRTP) {
				t.Errorf("StartMediaTransmission comes with %v", got)
			}
			flowsBothWays(w, rtp, at.String(), farRTP)
			if _, _, v := w.send(outside, "198.51.100.99:4000", at.String(), "stranger"); v == stack.Forward {
				t.Error("media of a stranger passes")
			}
			pass(sccp(0x0106, 8, 0, 7, 4, 9), nat.Server)
			pass(sccp(0x008b, 8, 0, 7, 4, 9), nat.Server)
			w.quiet(0)
			if n := w.table.Len(); n != 0 {
				t.Errorf("%d media connections are left", n)
			}

			// A call that ends with the connection.
			pass(sccp(0x0105, 40, 0, 8, 4, 10), nat.Server)
			pass(sccp(0x0022, 16, 0, 0, 4, ap(rtp), 12, 10), nat.Client)
			s.Close()
			b.Close()
			w.quiet(0)
		})
	}
}

// TestSkinnyServerInside is a phone outside whose call manager inside has a
// static address, and names itself and a phone beside it.
func TestSkinnyServerInside(t *testing.T) {
	w := newWall(t, staticRule("10.20.0.5", "203.0.113.5"), staticRule("10.20.0.12", "203.0.113.12"))
	b := w.nat.Binder(inspect.Conversation{
		In: outside, Out: inside,
		Client: stack.Flow{Proto: stack.TCP, Src: ap("198.51.100.7:50000"), Dst: ap("203.0.113.5:2000")},
		Server: stack.Flow{Proto: stack.TCP, Src: ap("198.51.100.7:50000"), Dst: ap("10.20.0.5:2000")},
	}, inspect.Options{Now: func() time.Time { return w.now }, Private: true})
	s := skinny.Engine{}.NewSession(b)
	pass := func(m []byte, from nat.End) []byte {
		t.Helper()
		out, err := s.Inspect(nil, m, from)
		if err != nil {
			t.Fatal(err)
		}
		if from == nat.Server && bytes.Contains(out, []byte{10, 20, 0}) {
			t.Errorf("inside address leaves in %v", skinny.Message(out))
		}
		return out
	}
	res := sccp(0x009e, 280, 0, "cucm", 240, 2000, 260, netip.MustParseAddr("10.20.0.5"))
	if m := pass(res, nat.Server); netip.AddrFrom4([4]byte(m[12+260:])) != netip.MustParseAddr("203.0.113.5") {
		t.Errorf("ServerRes leaves as % x", m[12+260:12+264])
	}
	pass(sccp(0x0105, 40, 0, 7, 4, 9), nat.Server)
	pass(sccp(0x0022, 16, 0, 0, 4, ap(farRTP), 12, 9), nat.Client)
	m := pass(sccp(0x008a, 40, 0, 7, 4, 9, 8, ap("10.20.0.12:16390")), nat.Server)
	at := addrAt(m, 8)
	if at != ap("203.0.113.12:16390") {
		t.Fatalf("StartMediaTransmission leaves with %v", at)
	}
	flowsBothWays(w, "10.20.0.12:16390", at.String(), farRTP)
	s.Close()
	b.Close()
	w.quiet(0)
}
