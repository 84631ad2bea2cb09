package stack

import (
	"math/rand"
	"net/netip"
	"testing"
	"time"
)

// defaultLimits are those of a Reassembler that nobody told otherwise.
var defaultLimits = FragmentLimits{}.withDefaults()

// pieces cuts a packet of n payload bytes and returns the fragments' bytes.
func pieces(t testing.TB, n, mtu int) (whole []byte, frags [][]byte) {
	t.Helper()
	payload := make([]byte, n)
	rand.New(rand.NewSource(6)).Read(payload)
	b := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 5060), payload)
	b = edit(b, func(b []byte) { b[4], b[5] = 0x12, 0x34 })
	p := NewPacket(len(b))
	p.SetData(b)
	if v := p.Parse(); v != Forward {
		t.Fatalf("Parse = %v", v)
	}
	Fragment(p, mtu, func(q *Packet) {
		if q.Len() > mtu {
			t.Errorf("fragment of %d bytes, MTU %d", q.Len(), mtu)
		}
		if sum := slowSum(q.Data()[:20]); sum != 0 {
			t.Errorf("fragment with IP checksum off by %#04x", sum)
		}
		frags = append(frags, append([]byte{}, q.Data()...))
	})
	return b, frags
}

// add gives r the fragment b at the time after noon, as Forwarder does.
func add(t testing.TB, r *Reassembler, b []byte, after time.Duration) (*Packet, Verdict) {
	t.Helper()
	p := packetOf(t, b)
	p.Time = noon.Add(after)
	if v := p.Parse(); v != DropFragment {
		t.Fatalf("Parse(fragment) = %v", v)
	}
	return r.Add(p)
}

func TestReassemble(t *testing.T) {
	rnd := rand.New(rand.NewSource(7))
	for _, n := range []int{1481, 3000, 9000, 24*1480 - 8} {
		want, frags := pieces(t, n, 1500)
		for _, repeat := range []bool{false, true} {
			var r Reassembler
			order := rnd.Perm(len(frags))
			for k, i := range order {
				whole, v := add(t, &r, frags[i], 0)
				if k < len(order)-1 {
					if whole != nil || v != Consumed {
						t.Fatalf("%d bytes, fragment %d: %v, %v", n, k, whole, v)
					}
					if repeat {
						if whole, v := add(t, &r, frags[i], 0); whole != nil || v != Consumed {
							t.Fatalf("%d bytes, repeated fragment %d: %v, %v", n, k, whole, v)
						}
					}
					continue
				}
				if v != Forward || whole == nil {
					t.Fatalf("%d bytes: last fragment gives %v", n, v)
				}
				if string(whole.Data()) != string(want) {
					t.Errorf("%d bytes: reassembled packet differs", n)
				}
				if whole.Flow() != flowOf(UDP, phone, 5000, box, 5060) {
					t.Errorf("flow %v", whole.Flow())
				}
			}
			if len(r.parts) != 0 || r.held != 0 {
				t.Errorf("%d packets, %d bytes still held", len(r.parts), r.held)
			}
		}
	}
}

func TestReassembleTooMany(t *testing.T) {
	_, frags := pieces(t, 25*1480-8, 1500)
	if len(frags) != defaultLimits.Chain+1 {
		t.Fatalf("%d fragments", len(frags))
	}
	var r Reassembler
	for i, b := range frags {
		want := Consumed
		if i == defaultLimits.Chain {
			want = DropFragment
		}
		if whole, v := add(t, &r, b, 0); whole != nil || v != want {
			t.Fatalf("fragment %d: %v, want %v", i, v, want)
		}
	}
	if r.held != 0 {
		t.Errorf("%d bytes held after giving up", r.held)
	}
}

// shift returns fragment b moved by n units of 8 bytes.
func shift(b []byte, n int) []byte {
	return edit(b, func(b []byte) { b[7] += byte(n) })
}

func TestReassembleOverlap(t *testing.T) {
	_, frags := pieces(t, 500, 228) // 208 bytes, 26 units, each
	if len(frags) != 3 {
		t.Fatalf("%d fragments, want 3", len(frags))
	}
	changed := edit(frags[0], func(b []byte) { b[100] ^= 1 })
	tests := []struct {
		name string
		with [][]byte // the last is the one that contradicts
	}{
		{"same place, other bytes", [][]byte{frags[0], changed}},
		{"into the next", [][]byte{shift(frags[1], 0), shift(frags[0], 1)}},
		{"into the one before", [][]byte{frags[0], shift(frags[1], -1)}},
		{"beyond the last", [][]byte{frags[2], shift(frags[1], 26)}},
		{"two last", [][]byte{frags[2], shift(frags[2], 20)}},
		{"last before another's end", [][]byte{frags[1], shift(frags[2], -51)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Reassembler
			for i, b := range tt.with {
				want := Consumed
				if i == len(tt.with)-1 {
					want = DropFragment
				}
				if _, v := add(t, &r, b, 0); v != want {
					t.Fatalf("fragment %d: %v, want %v", i, v, want)
				}
			}
			for _, b := range frags { // the whole packet is lost
				if whole, v := add(t, &r, b, time.Second); whole != nil || v != DropFragment {
					t.Errorf("after an overlap: %v", v)
				}
			}
		})
	}
}

func TestReassembleRefuses(t *testing.T) {
	_, frags := pieces(t, 500, 228)
	tests := []struct {
		name string
		data []byte
	}{
		{"empty", edit(frags[0][:20], func(b []byte) { b[2], b[3] = 0, 20 })},
		{"odd length in the middle", edit(frags[0][:27], func(b []byte) { b[2], b[3] = 0, 27 })},
		{"beyond 65535", edit(frags[2], func(b []byte) { b[6], b[7] = 0x1f, 0xff })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r Reassembler
			if whole, v := add(t, &r, tt.data, 0); whole != nil || v != DropFragment {
				t.Errorf("Add = %v, %v", whole, v)
			}
			if len(r.parts) != 0 {
				t.Error("it was kept")
			}
		})
	}
}

func TestReassembleLimits(t *testing.T) {
	_, frags := pieces(t, 500, 228)
	with := func(id int) []byte {
		return edit(frags[0], func(b []byte) { b[4], b[5] = byte(id>>8), byte(id) })
	}
	var r Reassembler
	for id := range defaultLimits.Size {
		if _, v := add(t, &r, with(id), 0); v != Consumed {
			t.Fatalf("packet %d: %v", id, v)
		}
	}
	if _, v := add(t, &r, with(defaultLimits.Size), defaultLimits.Timeout); v != DropFragment {
		t.Errorf("one packet too many: %v", v)
	}
	if _, v := add(t, &r, with(defaultLimits.Size), defaultLimits.Timeout+1); v != Consumed {
		t.Errorf("after the others timed out: %v", v)
	}
	if len(r.parts) != 1 || len(r.order) != 1 {
		t.Errorf("%d packets, %d in order; want 1, 1", len(r.parts), len(r.order))
	}

	// Bytes.
	r = Reassembler{}
	_, big := pieces(t, 60_000, 30_000)
	n := 0
	for id := range 190 {
		b := edit(big[0], func(b []byte) { b[4], b[5] = byte(id>>8), byte(id) })
		if _, v := add2(t, &r, b); v == Consumed {
			n++
		}
	}
	if r.held > maxHeld || n != maxHeld/(len(big[0])-20) {
		t.Errorf("%d bytes held of %d packets; limit %d bytes", r.held, n, maxHeld)
	}
}

// TestFragmentLimits: limits of one's own hold, and everything is counted.
func TestFragmentLimits(t *testing.T) {
	_, frags := pieces(t, 500, 228) // three
	with := func(frag, id int) []byte {
		return edit(frags[frag], func(b []byte) { b[4], b[5] = byte(id>>8), byte(id) })
	}
	var r Reassembler
	r.SetLimits(FragmentLimits{Size: 2, Chain: 2, Timeout: time.Second})
	if got, want := r.Limits(), (FragmentLimits{2, 2, time.Second}); got != want {
		t.Errorf("Limits = %+v, want %+v", got, want)
	}
	steps := []struct {
		frag, id int
		after    time.Duration
		want     Verdict
	}{
		{0, 1, 0, Consumed},
		{1, 1, 0, Consumed},
		{2, 1, 0, DropFragment}, // three in a chain of two
		{0, 2, 0, Consumed},
		{0, 3, 0, DropFragment}, // three packets at a time
		{0, 3, time.Second + 1, Consumed},
	}
	for i, s := range steps {
		if _, v := add(t, &r, with(s.frag, s.id), s.after); v != s.want {
			t.Errorf("step %d: %v, want %v", i, v, s.want)
		}
	}
	want := FragmentCount{Queue: 1, Failed: 1, Overflowed: 1, TimedOut: 1}
	if got := r.Count(noon.Add(time.Second + 1)); got != want {
		t.Errorf("Count = %+v, want %+v", got, want)
	}
	r.SetLimits(FragmentLimits{})
	add(t, &r, with(1, 3), time.Second+1)
	if whole, v := add(t, &r, with(2, 3), time.Second+1); whole == nil || v != Forward {
		t.Errorf("with the default limits: %v", v)
	}
	want.Queue, want.Assembled = 0, 1
	if got := r.Count(noon.Add(time.Minute)); got != want {
		t.Errorf("Count = %+v, want %+v", got, want)
	}
	// "fragment chain 1" is no fragments at all.
	r.SetLimits(FragmentLimits{Chain: 1})
	add(t, &r, with(0, 4), time.Minute)
	if _, v := add(t, &r, with(1, 4), time.Minute); v != DropFragment {
		t.Errorf("a second fragment with chain 1: %v", v)
	}
}

// add2 is add for fragments of any size.
func add2(t testing.TB, r *Reassembler, b []byte) (*Packet, Verdict) {
	p := NewPacket(len(b))
	p.SetData(b)
	p.Time = noon
	p.Parse()
	return r.Add(p)
}

func TestReassemblerOrderIsBounded(t *testing.T) {
	want, frags := pieces(t, 300, 228)
	var r Reassembler
	add(t, &r, edit(frags[0], func(b []byte) { b[4] = 0xff }), 0) // stays unfinished at the front
	for id := range 2000 {
		var whole *Packet
		for _, b := range frags {
			whole, _ = add(t, &r, edit(b, func(b []byte) { b[4], b[5] = byte(id>>8), byte(id) }), 0)
		}
		if whole == nil || whole.Len() != len(want) {
			t.Fatalf("packet %d not whole", id)
		}
	}
	if len(r.order) > 2*defaultLimits.Size+1 {
		t.Errorf("%d entries in order", len(r.order))
	}
}

func FuzzReassembler(f *testing.F) {
	// Each fragment is three bytes: offset in units, length in units of 4
	// bytes, and flags: 1 more, 2 another ID.
	f.Add([]byte{0, 2, 1, 1, 2, 0})
	f.Add([]byte{1, 2, 0, 0, 2, 1})
	f.Add([]byte{0, 4, 1, 1, 2, 1, 2, 3, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		var r Reassembler
		for i := 0; i+2 < len(script); i += 3 {
			n := int(script[i+1]) * 4
			b := AppendUDP(nil, flowOf(UDP, phone, 5000, box, 69), make([]byte, n))
			b = append(b[:20], b[28:]...)
			b = edit(b, func(b []byte) {
				b[3], b[2] = byte(len(b)), byte(len(b)>>8)
				b[5] = script[i+2] >> 1 & 1
				b[6] = script[i+2] & 1 << 5
				b[7] = script[i]
			})
			p := NewPacket(len(b))
			p.SetData(b)
			p.Time = noon.Add(time.Duration(i) * 100 * time.Millisecond)
			if p.Parse() != DropFragment {
				continue
			}
			whole, v := r.Add(p)
			if whole != nil {
				if sum := slowSum(whole.Data()[:20]); sum != 0 {
					t.Errorf("whole packet with IP checksum off by %#x", sum)
				}
				_ = whole.String()
			} else if v == Forward {
				t.Error("Forward without a packet")
			}
			held := 0
			for _, part := range r.parts {
				end := 0
				for _, f := range part.frags {
					if f.off < end {
						t.Fatal("fragments overlap")
					}
					end = f.off + len(f.data)
					held += len(f.data)
				}
			}
			if held != r.held {
				t.Fatalf("held says %d, there are %d bytes", r.held, held)
			}
		}
	})
}

func TestFragmentOfFragment(t *testing.T) {
	_, frags := pieces(t, 3000, 1500)
	var r Reassembler
	var whole *Packet
	for _, b := range frags {
		Fragment(packetOf(t, b), 600, func(q *Packet) {
			if w, _ := add(t, &r, append([]byte{}, q.Data()...), 0); w != nil {
				whole = w
			}
		})
	}
	if whole == nil {
		t.Fatal("the pieces do not make a packet")
	}
	if whole.Flow().Src != netip.MustParseAddrPort("198.51.100.7:5000") || len(whole.Payload()) != 3000 {
		t.Errorf("got %v", whole)
	}
}
