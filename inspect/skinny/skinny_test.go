package skinny_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

var keepAlive = []byte{4, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0}

func TestSplit(t *testing.T) {
	longest := frame(0x15a, 0, skinny.MaxMessage-12)
	tests := []struct {
		name  string
		data  []byte
		atEOF bool
		n     int // length of the message, 0 to wait for more
		err   string
	}{
		{"empty", nil, false, 0, ""},
		{"empty at the end", nil, true, 0, ""},
		{"one byte", keepAlive[:1], false, 0, ""},
		{"length alone", keepAlive[:4], false, 0, ""},
		{"all but one byte", keepAlive[:11], false, 0, ""},
		{"keepalive", keepAlive, false, 12, ""},
		{"keepalive at the end", keepAlive, true, 12, ""},
		{"two", append(clone(keepAlive), keepAlive...), false, 12, ""},
		{"cut at the end", keepAlive[:11], true, 0, "11 bytes of a message"},
		{"byte at the end", keepAlive[:1], true, 0, "1 bytes of a message"},
		{"length 3", []byte{3, 0, 0, 0}, false, 0, "message of 11 bytes"},
		{"length 0", make([]byte, 12), false, 0, "message of 8 bytes"},
		{"longest", longest, false, len(longest), ""},
		{"too long", frame(0x15a, 0, skinny.MaxMessage-11), false, 0, "message of 16385 bytes"},
		{"length that overflows", bytes.Repeat([]byte{0xff}, 12), false, 0, "message of 4294967303 bytes"},
		{"TLS instead", []byte{0x16, 3, 1, 2, 0}, false, 0, "length is impossible"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, msg, err := skinny.Engine{}.Split(tt.data, tt.atEOF)
			if n != tt.n || len(msg) != tt.n || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Split(% x) = %d, % x, %v; want %d bytes, %q", tt.data, n, msg, err, tt.n, tt.err)
			}
			if cap(msg) != len(msg) {
				t.Errorf("message has room for %d bytes more", cap(msg)-len(msg))
			}
		})
	}
}

func TestMessage(t *testing.T) {
	m := skinny.Message(unhex(t, "28000000 14000000 22000000 00000000"))
	if m.ID() != 0x22 || skinny.ID(m) != 0x22 || m.Version() != 20 || len(m.Data()) != 4 {
		t.Errorf("ID, Version, Data = %#x, %d, % x", m.ID(), m.Version(), m.Data())
	}
	if got, want := m.String(), "OpenReceiveChannelAck (0x0022), version 20, 4 bytes of data"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	if got := skinny.Message(nil).String(); got != "0 bytes of a message" {
		t.Errorf("String of nothing = %q", got)
	}
}

func TestName(t *testing.T) {
	for id, want := range map[uint32]string{
		0x0000:  "KeepAlive",
		0x0001:  "Register",
		0x004c:  "MwiNotification",
		0x004b:  "message 0x004b",
		0x0080:  "message 0x0080",
		0x0081:  "RegisterAck",
		0x008a:  "StartMediaTransmission",
		0x0105:  "OpenReceiveChannel",
		0x0106:  "CloseReceiveChannel",
		0x0154:  "StartMediaTransmissionAck",
		0x015a:  "XMLAlarm",
		0x0160:  "RecordingStatus",
		0x0161:  "message 0x0161",
		0x8000:  "SPCPRegisterTokenReq",
		0x8101:  "SPCPRegisterTokenReject",
		1 << 31: "message 0x80000000",
	} {
		if got := skinny.Name(id); got != want {
			t.Errorf("Name(%#x) = %q, want %q", id, got, want)
		}
	}
}

// TestScanner passes what comes in pieces and what comes together.
func TestScanner(t *testing.T) {
	var b box
	s := skinny.Engine{}.NewSession(&b)
	data := append(clone(keepAlive), frame(0x26, 17, 12)...)
	data = append(data, keepAlive...)
	scanner := bufio.NewScanner(io.MultiReader(bytes.NewReader(data[:20]), bytes.NewReader(data[20:])))
	scanner.Split(skinny.Engine{}.Split)
	var got []byte
	for scanner.Scan() {
		var err error
		if got, err = s.Inspect(got, scanner.Bytes(), nat.Client); err != nil {
			t.Fatal(err)
		}
	}
	if err := scanner.Err(); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got % x, %v", got, err)
	}
	if diff := cmp.Diff([]string{`seen ""`, `seen ""`}, b.calls); diff != "" {
		t.Error(diff)
	}
}

// TestStreamLyingLength: a length that no message has ends the conversation, and
// what came before it arrives.
func TestStreamLyingLength(t *testing.T) {
	phone, client := net.Pipe()
	server, ucm := net.Pipe()
	s := &inspect.Stream{Client: client, Server: server, Engine: skinny.Engine{}, Binder: &box{}}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	go phone.Write(append(clone(keepAlive), 0xff, 0xff, 0xff, 0x7f))
	got, err := io.ReadAll(ucm)
	if !bytes.Equal(got, keepAlive) || err != nil {
		t.Errorf("ucm got % x, %v", got, err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "message of 2147483655 bytes") {
		t.Errorf("Run = %v", err)
	}
}

func TestRegister(t *testing.T) {
	self := []byte{10, 20, 0, 5}
	register := func(size int, version byte) []byte {
		m := put(frame(1, 0, size), 0, append([]byte("SEP020000000001"), 0), 24, []byte{192, 168, 1, 7})
		if size > 40 {
			m[12+40] = version
		}
		return m
	}
	tests := []struct {
		name   string
		engine skinny.Engine
		size   int
		says   byte // protocol version
		want   byte
		ipv6   bool // is there to clear
	}{
		{"7936", skinny.Engine{}, 44, 3, 3, false},
		{"CM 4", skinny.Engine{}, 52, 5, 5, false},
		{"7960", skinny.Engine{}, 68, 11, 11, false},
		{"v17", skinny.Engine{}, 124, 17, 17, true},
		{"v19", skinny.Engine{}, 124, 19, 19, true},
		{"v20 is lowered", skinny.Engine{}, 124, 20, 19, true},
		{"v22 is lowered", skinny.Engine{}, 124, 22, 19, true},
		{"v22 is lowered to 11", skinny.Engine{MaxVersion: 11}, 124, 22, 11, true},
		{"v22 is let through", skinny.Engine{MaxVersion: 22}, 172, 22, 22, true},
		{"shortest", skinny.Engine{}, 28, 0, 0, false},
		{"ends inside the IPv6 address", skinny.Engine{}, 80, 17, 17, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b box
			s := tt.engine.NewSession(&b)
			msg := register(tt.size, tt.says)
			want := put(clone(msg), 24, self)
			if tt.size > 40 {
				want[12+40] = tt.want
			}
			if tt.ipv6 {
				put(want, 72, make([]byte, 16))
			}
			compare(t, pass(t, s, msg, nat.Client), want)
			if diff := cmp.Diff([]string{`seen "SEP020000000001"`}, b.calls); diff != "" {
				t.Error(diff)
			}
			// The other way it means nothing.
			compare(t, pass(t, s, msg, nat.Server), msg)
		})
	}
}

func TestRegisterToken(t *testing.T) {
	for _, size := range []int{28, 32, 52} {
		var b box
		s := skinny.Engine{}.NewSession(&b)
		msg := put(frame(0x29, 0, size), 0, append([]byte("SEP020000000001"), 0), 24, []byte{192, 168, 1, 7})
		want := put(clone(msg), 24, []byte{10, 20, 0, 5})
		if size == 52 {
			put(want, 32, make([]byte, 16))
		}
		compare(t, pass(t, s, msg, nat.Client), want)
		if diff := cmp.Diff([]string{`seen "SEP020000000001"`}, b.calls); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSeenRefuses(t *testing.T) {
	refused := errors.New("not the certificate's name")
	for _, msg := range [][]byte{
		put(frame(1, 0, 124), 0, make([]byte, 16), 0, []byte("SEP02")),
		frame(0x29, 0, 28),
		keepAlive,
	} {
		s := skinny.Engine{}.NewSession(&box{lost: refused})
		got, err := s.Inspect(nil, msg, nat.Client)
		if !errors.Is(err, refused) || errors.Is(err, inspect.ErrDrop) || len(got) != 0 {
			t.Errorf("Inspect(%v) = % x, %v; want the end of the conversation", skinny.Message(msg), got, err)
		}
	}
}

func TestServerRes(t *testing.T) {
	for _, tt := range []struct {
		version uint32
		size    int
		wide    bool
	}{
		{0, 280, false}, {8, 280, false}, {16, 280, false},
		{0, 360, true}, {16, 360, true}, {17, 360, true}, {22, 360, true},
	} {
		var b box
		s := skinny.Engine{}.NewSession(&b)
		step, at := 4, 260
		if tt.wide {
			step, at = 20, 264
		}
		msg := put(frame(0x9e, tt.version, tt.size), 240, make([]byte, tt.size-240))
		put(msg, 240, uint32(2000), 244, uint32(2000), at, []byte{10, 20, 0, 11}, at+2*step, []byte{10, 20, 0, 12})
		want := put(clone(msg), 240, uint32(2443), at, []byte{203, 0, 113, 20}, at+2*step, []byte{203, 0, 113, 20})
		compare(t, pass(t, s, msg, nat.Server), want)
		if diff := cmp.Diff([]string{"signal 10.20.0.11:2000 server", "signal 10.20.0.12:0 server"}, b.calls); diff != "" {
			t.Errorf("version %d: %s", tt.version, diff)
		}
		compare(t, pass(t, s, msg, nat.Client), msg)
	}
}

func TestSessionTransmission(t *testing.T) {
	for _, id := range []uint32{0x95, 0x96} {
		for _, tt := range []struct {
			version uint32
			size    int
			at      int
		}{{0, 8, 0}, {8, 8, 0}, {16, 8, 0}, {16, 24, 4}, {0, 24, 4}, {17, 24, 4}, {22, 24, 4}} {
			var b box
			s := skinny.Engine{}.NewSession(&b)
			msg := put(frame(id, tt.version, tt.size), 0, uint32(0), tt.at, []byte{10, 20, 0, 11})
			want := put(clone(msg), tt.at, []byte{203, 0, 113, 20})
			compare(t, pass(t, s, msg, nat.Server), want)
			if diff := cmp.Diff([]string{"signal 10.20.0.11:0 server"}, b.calls); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// TestUnchanged passes what has nothing to edit, and what goes the wrong way.
func TestUnchanged(t *testing.T) {
	var b box
	s := skinny.Engine{Video: false}.NewSession(&b)
	for _, from := range []nat.End{nat.Client, nat.Server} {
		for id := range uint32(0x200) {
			mine := false
			switch id {
			case 0x00, 0x01, 0x22, 0x29, 0x2a, 0x45, 0x154:
				mine = from == nat.Client
			case 0x8a, 0x95, 0x96, 0x9e, 0x105, 0x14b:
				mine = from == nat.Server
			}
			if mine {
				continue
			}
			for _, version := range []uint32{0, 11, 16, 17, 22, 99} {
				for _, size := range []int{0, 1, 20, 24, 40, 132, 360} {
					msg := frame(id, version, size)
					compare(t, pass(t, s, msg, from), msg)
				}
			}
		}
	}
	if len(b.calls) != 0 || len(b.media) != 0 {
		t.Errorf("Binder was asked %q, %v", b.calls, b.media)
	}
}

// TestCut gives each message with an address every size of data: where the
// address is cut the message is dropped, and never anything panics.
func TestCut(t *testing.T) {
	for _, version := range []uint32{0, 8, 16, 17, 22} {
		for _, c := range []struct {
			id   uint32
			from nat.End
			addr int // where it begins
			ends int // narrow: where the port ends
		}{
			{0x22, nat.Client, 4, 12},
			{0x2a, nat.Client, 8, 16},
			{0x45, nat.Client, 12, 20},
			{0x8a, nat.Server, 8, 16},
			{0x95, nat.Server, 0, 4},
			{0x9e, nat.Server, 260, 280},
			{0x105, nat.Server, 100, 108},
			{0x131, nat.Server, 164, 172},
			{0x132, nat.Server, 12, 20},
			{0x154, nat.Client, 12, 20},
		} {
			ends := c.ends
			if version >= 17 {
				ends += 16
				if c.id == 0x9e {
					ends = 360
				}
			}
			for size := range 400 {
				s := skinny.Engine{Video: true}.NewSession(&box{keys: true})
				got, err := s.Inspect(nil, frame(c.id, version, size), c.from)
				cut := size > c.addr && size < ends
				short := c.from == nat.Server && size < 8 && c.id != 0x95 && c.id != 0x9e
				if cut || short {
					if !errors.Is(err, inspect.ErrDrop) || len(got) != 0 {
						t.Fatalf("%s version %d of %d bytes: %v; want it dropped", skinny.Name(c.id), version, size, err)
					}
				} else if err != nil || len(got) != 12+size {
					t.Fatalf("%s version %d of %d bytes: %d bytes, %v", skinny.Name(c.id), version, size, len(got), err)
				}
			}
		}
	}
}

func TestPolicyMap(t *testing.T) {
	orc := put(frame(0x105, 17, 128), 100, uint32(0))
	tests := []struct {
		name   string
		engine skinny.Engine
		msg    []byte
		drop   bool
	}{
		{"no rules", skinny.Engine{}, frame(0x8101, 0, 4), false},
		{"message-id max", skinny.Engine{MaxID: 0x181}, frame(0x182, 0, 4), true},
		{"message-id at the max", skinny.Engine{MaxID: 0x181}, frame(0x181, 0, 4), false},
		{"prefix min", skinny.Engine{MinLength: 8}, frame(0x110, 0, 3), true},
		{"prefix at the min", skinny.Engine{MinLength: 8}, frame(0x110, 0, 4), false},
		{"prefix max", skinny.Engine{MaxLength: 8}, frame(0x110, 0, 5), true},
		{"prefix at the max", skinny.Engine{MaxLength: 8}, frame(0x110, 0, 4), false},
		{"media before registration", skinny.Engine{EnforceRegistration: true}, orc, true},
		{"other before registration", skinny.Engine{EnforceRegistration: true}, frame(0x110, 0, 4), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.engine.NewSession(&box{})
			_, err := s.Inspect(nil, tt.msg, nat.Server)
			if errors.Is(err, inspect.ErrDrop) != tt.drop || !tt.drop && err != nil {
				t.Errorf("Inspect = %v, want dropped %v", err, tt.drop)
			}
		})
	}
	s := skinny.Engine{EnforceRegistration: true}.NewSession(&box{})
	pass(t, s, frame(0x81, 0, 20), nat.Server)
	pass(t, s, orc, nat.Server)
	pass(t, s, put(frame(0x118, 0, 4), 0, uint32(0)), nat.Server)
	if _, err := s.Inspect(nil, orc, nat.Server); !errors.Is(err, inspect.ErrDrop) {
		t.Errorf("media after UnregisterAck: %v", err)
	}
}

// FuzzSplit checks what Split promises on any bytes.
func FuzzSplit(f *testing.F) {
	f.Add(keepAlive, true)
	f.Add(append(clone(keepAlive), 4, 0), false)
	f.Add(bytes.Repeat([]byte{0xff}, 12), false)
	f.Add(frame(0x8a, 17, 132), true)
	f.Fuzz(func(t *testing.T, data []byte, atEOF bool) {
		n, msg, err := skinny.Engine{}.Split(data, atEOF)
		switch {
		case err != nil:
			if n != 0 || msg != nil {
				t.Errorf("Split = %d, % x beside %v", n, msg, err)
			}
		case n == 0:
			if msg != nil || atEOF && len(data) > 0 {
				t.Errorf("Split = 0, % x at the end %v of % x", msg, atEOF, data)
			}
		case n < 12 || n > skinny.MaxMessage || n > len(data) || !bytes.Equal(msg, data[:n]):
			t.Errorf("Split(% x) = %d, % x", data, n, msg)
		}
	})
}

// FuzzSession sends any messages through a session, each from the end that the
// byte before it says.
func FuzzSession(f *testing.F) {
	add := func(msgs ...[]byte) {
		var b []byte
		for i, m := range msgs {
			b = append(append(b, byte(i)), m...)
		}
		f.Add(b)
	}
	add(keepAlive, keepAlive)
	add(put(frame(1, 0, 124), 0, []byte("SEP02")), frame(0x9e, 17, 360))
	for _, version := range []uint32{0, 8, 16, 17, 22} {
		for _, size := range []int{8, 16, 20, 36, 44, 68, 84, 92, 108, 116, 128, 132, 168, 192, 280, 360} {
			add(frame(0x22, version, size), frame(0x105, version, size), frame(0x154, version, size), frame(0x8a, version, size))
			add(frame(0x45, version, size), frame(0x14b, version, size), frame(0x2a, version, size), frame(0x132, version, size))
			add(frame(0x31, version, size), frame(0x131, version, size), frame(0x155, version, size), frame(0x9e, version, size))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &box{keys: true}
		s := skinny.Engine{Video: true}.NewSession(b)
		defer s.Close()
		for len(data) > 1 {
			from := nat.End(data[0] & 1)
			n, msg, err := skinny.Engine{}.Split(data[1:], false)
			if err != nil || n == 0 {
				msg = data[1:] // no message at all: Inspect must still not panic
				n = len(msg)
			}
			got, err := s.Inspect([]byte{1}, msg, from)
			switch {
			case err == nil && len(got) != 1+len(msg):
				t.Fatalf("%v became %d bytes", skinny.Message(msg), len(got)-1)
			case err != nil && len(got) != 1:
				t.Fatalf("%v left %d bytes beside %v", skinny.Message(msg), len(got)-1, err)
			case err == nil && !bytes.Equal(got[1:13], msg[:12]):
				t.Fatalf("header of %v changed", skinny.Message(msg))
			}
			data = data[1+n:]
		}
	})
}
