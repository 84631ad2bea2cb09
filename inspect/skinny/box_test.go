package skinny_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"patchbay/inspect"
	"patchbay/nat"
)

// box is the Binder of the tests. It maps every address by a rule that a test
// can repeat, and writes down what it is asked.
type box struct {
	calls []string        // Seen, Release, Signal as text
	media []inspect.Media // as announced
	from  []nat.End       // by whom
	keys  bool            // insert keys
	mute  bool            // answer with nothing
	err   error           // of Media
	lost  error           // of Seen
}

// media termination addresses, where the box knows nothing better
var (
	inside  = netip.MustParseAddr("10.20.0.1")
	outside = netip.MustParseAddr("203.0.113.20")
)

// mapped is how the other end knows a, an address that from named.
func mapped(a netip.AddrPort, from nat.End) netip.AddrPort {
	if from == nat.Client {
		return netip.AddrPortFrom(inside, a.Port()^0x4000)
	}
	return netip.AddrPortFrom(outside, a.Port()^0x4000)
}

var (
	toPhone   = testKey(inspect.AES_CM_128_SHA1_32, 0xa0) // what the phone receives with
	fromPhone = testKey(inspect.AES_CM_128_SHA1_32, 0x50) // and transmits with
)

func testKey(s inspect.Suite, first byte) inspect.Key {
	k := inspect.Key{Suite: s}
	for i := range k.Master {
		k.Master[i] = first + byte(i)
	}
	for i := range k.Salt {
		k.Salt[i] = first + 16 + byte(i)
	}
	return k
}

func (b *box) Self(from nat.End) netip.AddrPort {
	return netip.MustParseAddrPort("10.20.0.5:49152")
}

// renamed is how the UCM knows a, an address of no stream.
func renamed(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(outside, a.Port()) }

func (b *box) Signal(a netip.AddrPort, from nat.End) netip.AddrPort {
	b.calls = append(b.calls, fmt.Sprintf("signal %v %v", a, from))
	if a.Port() == 0 {
		return netip.AddrPortFrom(outside, 0)
	}
	return netip.AddrPortFrom(outside, a.Port()+443)
}

func (b *box) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	b.media = append(b.media, m)
	b.from = append(b.from, from)
	if b.err != nil {
		return inspect.Media{}, b.err
	}
	out := inspect.Media{Call: m.Call, Stream: m.Stream}
	if b.mute {
		return out, nil
	}
	out.Addr = mapped(m.Addr, from)
	if from == nat.Server && b.keys {
		out.Secure, out.Tx, out.Rx = true, toPhone, fromPhone
	}
	return out, nil
}

func (b *box) Release(call, stream string) {
	b.calls = append(b.calls, fmt.Sprintf("release %s/%s", call, stream))
}

func (b *box) Seen(device string) error {
	b.calls = append(b.calls, fmt.Sprintf("seen %q", device))
	return b.lost
}

// frame makes a message of a header and size bytes of data. The data is a
// pattern without zeros, so that a field that is touched by mistake shows.
func frame(id, version uint32, size int) []byte {
	m := make([]byte, 12+size)
	binary.LittleEndian.PutUint32(m, uint32(4+size))
	binary.LittleEndian.PutUint32(m[4:], version)
	binary.LittleEndian.PutUint32(m[8:], id)
	for i := range size {
		m[12+i] = 0xc0 | byte(i*7)&0x3f
	}
	return m
}

// put writes numbers (uint32), addresses (4 bytes) and raw bytes at data
// offsets: put(m, 4, uint32(7), 8, addr).
func put(m []byte, args ...any) []byte {
	for i := 0; i < len(args); i += 2 {
		at := m[12+args[i].(int):]
		switch x := args[i+1].(type) {
		case uint32:
			binary.LittleEndian.PutUint32(at, x)
		case netip.Addr:
			copy(at, x.AsSlice())
		case []byte:
			if copy(at, x) != len(x) {
				panic("put: behind the end")
			}
		default:
			panic(fmt.Sprintf("put: %T", x))
		}
	}
	return m
}

func clone(m []byte) []byte { return append([]byte(nil), m...) }

// block is a whole encryption block of n bytes. (reference/skinny.md, section 3.)
func block(k inspect.Key, n int) []byte {
	b := make([]byte, n)
	b[0], b[4], b[6] = byte(k.Suite), 16, 14
	copy(b[8:], k.Master[:])
	copy(b[24:], k.Salt[:])
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pass sends msg through s and returns what the other end gets.
func pass(t testing.TB, s inspect.Session, msg []byte, from nat.End) []byte {
	t.Helper()
	before := clone(msg)
	got, err := s.Inspect([]byte("before"), msg, from)
	if err != nil {
		t.Fatalf("Inspect(% x): %v", msg, err)
	}
	if string(got[:6]) != "before" {
		t.Fatalf("Inspect changed what dst held: %q", got[:6])
	}
	if string(before) != string(msg) {
		t.Fatalf("Inspect changed msg itself")
	}
	return got[6:]
}

// compare reports where two messages differ.
func compare(t testing.TB, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			end := i
			for end < len(got) && got[end] != want[end] {
				end++
			}
			t.Errorf("data offset %d: % x, want % x", i-12, got[i:end], want[i:end])
			return
		}
	}
}
