package link_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"patchbay/stack"
	"patchbay/stack/link"
)

// ringHeader is what a record takes beside its packet, in bytes.
const ringHeader = 20

// A Ring against the obvious: a list of packets and the room they take.
func TestRing(t *testing.T) {
	for _, circular := range []bool{false, true} {
		rnd := rand.New(rand.NewPCG(1, 2))
		const size, snap = 1000, 200
		r := link.NewRing(size, snap, circular)
		var want []link.Record
		used, full := 0, false
		for i := range 5000 {
			if rnd.IntN(200) == 0 {
				r.Clear()
				want, used, full = nil, 0, false
			}
			data := make([]byte, rnd.IntN(300))
			for k := range data {
				data[k] = byte(rnd.Uint32())
			}
			rec := link.Record{Time: time.Unix(int64(i), 5), Tag: uint32(i), Len: len(data), Data: data[:min(len(data), snap)]}
			r.Add(rec.Time, rec.Tag, data)
			need := ringHeader + len(rec.Data)
			full = full || used+need > size
			if circular {
				for used+need > size {
					used -= ringHeader + len(want[0].Data)
					want = want[1:]
				}
			}
			if circular || !full {
				want, used = append(want, rec), used+need
			}
			if n, bytes := r.Len(); n != len(want) || bytes != used || r.Full() != full {
				t.Fatalf("circular %v, step %d: %d packets, %d bytes, full %v; want %d, %d, %v", circular, i, n, bytes, r.Full(), len(want), used, full)
			}
			k := 0
			r.Each(func(got link.Record) bool {
				w := want[k]
				if !got.Time.Equal(w.Time) || got.Tag != w.Tag || got.Len != w.Len || !bytes.Equal(got.Data, w.Data) {
					t.Fatalf("circular %v, step %d: packet %d is %v %d, want %v %d", circular, i, k, got.Time, got.Tag, w.Time, w.Tag)
				}
				k++
				return true
			})
			if k != len(want) {
				t.Fatalf("circular %v, step %d: Each has %d packets, want %d", circular, i, k, len(want))
			}
		}
	}
}

// What a Ring forgets while it is read is left out, and reading ends.
func TestRingEachWhileAdding(t *testing.T) {
	r := link.NewRing(10*(ringHeader+4), 4, true)
	add := func(n uint32) { r.Add(time.Unix(int64(n), 0), n, binary.BigEndian.AppendUint32(nil, n)) }
	for n := range uint32(10) {
		add(n)
	}
	var got []uint32
	r.Each(func(rec link.Record) bool {
		if v := binary.BigEndian.Uint32(rec.Data); v != rec.Tag {
			t.Errorf("packet %d has the data of %d", rec.Tag, v)
		}
		got = append(got, rec.Tag)
		add(100 + rec.Tag)
		add(200 + rec.Tag)
		return len(got) < 100
	})
	if len(got) == 0 || len(got) > 10 || got[0] != 0 || got[len(got)-1] > 9 {
		t.Errorf("packets %v, want some of 0 to 9", got)
	}
}

func TestRingWritePCAP(t *testing.T) {
	r := link.NewRing(4096, 40, false)
	p := stack.NewPacket(100)
	f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort("10.20.0.5:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:53")}
	p.SetData(stack.AppendUDP(nil, f, make([]byte, 60)))
	at := time.Unix(1000, 123456789)
	r.Add(at, 0, p.Data())
	var buf bytes.Buffer
	if n, err := r.WritePCAP(&buf); n != 1 || err != nil {
		t.Fatalf("WritePCAP = %d, %v", n, err)
	}
	rd, err := link.NewReader(&buf)
	if err != nil {
		t.Fatal(err)
	}
	q := stack.NewPacket(100)
	info, err := rd.Next(q)
	if err != nil || !info.Truncated || !q.Time.Equal(at) || !bytes.Equal(q.Data(), p.Data()[:40]) {
		t.Errorf("Next = %+v, %v, %v: % x", info, err, q.Time, q.Data())
	}
	if _, err := rd.Next(q); err != io.EOF {
		t.Errorf("second packet: %v, want EOF", err)
	}
	if _, err := r.WritePCAP(failingWriter{}); err == nil {
		t.Error("a writer that fails: no error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestRingAllocs(t *testing.T) {
	r := link.NewRing(512<<10, 1518, true)
	data := make([]byte, 1400)
	at := time.Unix(1, 0)
	if n := testing.AllocsPerRun(1000, func() { r.Add(at, 1, data) }); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

func BenchmarkRingAdd(b *testing.B) {
	r := link.NewRing(512<<10, 1518, true)
	data := make([]byte, 200)
	at := time.Unix(1, 0)
	b.ReportAllocs()
	for b.Loop() {
		r.Add(at, 1, data)
	}
}
