package skinny_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
)

// rewritable makes a message with an address at off, and a port behind it.
func rewritable(version, id uint32, size, off int, addr string, port uint32) []byte {
	m := make([]byte, 12+size)
	binary.LittleEndian.PutUint32(m, uint32(len(m)-8))
	binary.LittleEndian.PutUint32(m[4:], version)
	binary.LittleEndian.PutUint32(m[8:], id)
	ip := netip.MustParseAddr(addr).As4()
	copy(m[12+off:], ip[:])
	if port != 0 {
		at := 12 + off + 4
		if version >= 17 {
			at += 12 // 16 bytes of address
		}
		binary.LittleEndian.PutUint32(m[at:], port)
	}
	return m
}

// Rewrite puts what it is told in place of each address, in both forms of a
// message, and changes nothing else.
func TestRewrite(t *testing.T) {
	const near, far = "10.20.0.50", "203.0.113.2"
	tests := []struct {
		name                string
		version, id         uint32
		size, off           int
		port, portThen, was uint32
	}{
		{"Register", 0, 0x01, 112, 24, 0, 0, 0},
		{"OpenReceiveChannelAck", 0, 0x22, 20, 4, 20000, 30000, 20000},
		{"OpenReceiveChannelAck, wide", 20, 0x22, 36, 8, 20000, 30000, 20000},
		{"StartMediaTransmission", 0, 0x8a, 92, 8, 20000, 30000, 20000},
		{"StartMediaTransmission, wide", 20, 0x8a, 132, 12, 20000, 30000, 20000},
		{"StartMediaTransmissionAck", 0, 0x154, 24, 12, 20000, 30000, 20000},
		{"KeepAlive, which has none", 0, 0x00, 16, 4, 20000, 20000, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			msg := rewritable(tt.version, tt.id, tt.size, tt.off, near, tt.port)
			want := rewritable(tt.version, tt.id, tt.size, tt.off, far, tt.portThen)
			if tt.id == 0 {
				want = msg
			}
			got, err := skinny.Rewrite([]byte("kept"), msg, func(a netip.AddrPort, kind inspect.AddrKind) netip.AddrPort {
				if a.Addr().String() != near || uint32(a.Port()) != tt.was || (kind == inspect.ForSignaling) != (tt.id == 1) {
					t.Errorf("asked for %v, kind %d", a, kind)
				}
				return netip.AddrPortFrom(netip.MustParseAddr(far), uint16(tt.portThen))
			})
			if err != nil || !bytes.Equal(got, append([]byte("kept"), want...)) {
				t.Errorf("got\n% x, %v, want\n% x", got, err, want)
			}
		})
	}
	if _, err := skinny.Rewrite(nil, []byte{1, 2}, nil); err == nil {
		t.Error("two bytes: no error")
	}
}

// FuzzRewrite: where every address stays the message does.
func FuzzRewrite(f *testing.F) {
	f.Add(rewritable(20, 0x8a, 132, 12, "10.20.0.50", 20000))
	f.Add(rewritable(0, 0x9e, 280, 260, "10.20.0.50", 0))
	f.Add(rewritable(17, 0x45, 60, 12, "10.20.0.50", 7))
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := skinny.Rewrite(nil, msg, func(a netip.AddrPort, _ inspect.AddrKind) netip.AddrPort { return a })
		if err == nil && len(got) != len(msg) {
			t.Errorf("%d bytes became %d", len(msg), len(got))
		}
	})
}
