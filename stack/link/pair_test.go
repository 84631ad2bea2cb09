package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/stack"
)

var noon = time.Date(2024, 1, 2, 12, 0, 0, 0, time.UTC)

// udp returns a UDP packet, at noon, from src to dst with n bytes of payload.
func udp(t testing.TB, src, dst string, n int) *stack.Packet {
	t.Helper()
	p := stack.NewPacket(stack.MaxPacket)
	f := stack.Flow{Src: netip.AddrPortFrom(netip.MustParseAddr(src), 5000), Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), 69)}
	if !p.SetData(stack.AppendUDP(nil, f, make([]byte, n))) {
		t.Fatalf("%d bytes do not fit", n)
	}
	p.Time = noon
	return p
}

// batchOf returns n empty packets for 1500 bytes each.
func batchOf(n int) []*stack.Packet {
	batch := make([]*stack.Packet, n)
	for i := range batch {
		batch[i] = stack.NewPacket(1500)
	}
	return batch
}

func TestPair(t *testing.T) {
	a, b := Pair(0)
	if a.MTU() != DefaultMTU {
		t.Errorf("MTU %d", a.MTU())
	}
	p, q := udp(t, "198.51.100.7", "203.0.113.10", 1), udp(t, "198.51.100.7", "203.0.113.10", 2)
	q.Time = time.Time{}
	a.Now = func() time.Time { return noon.Add(time.Hour) }
	long := udp(t, "198.51.100.7", "203.0.113.10", 1473)
	if err := a.Write([]*stack.Packet{p, long, q}); err != nil {
		t.Fatalf("Write: %v", err)
	}
	batch := batchOf(4)
	n, err := b.Read(batch)
	if n != 2 || err != nil {
		t.Fatalf("Read = %d, %v; want 2 packets", n, err)
	}
	for i, want := range []*stack.Packet{p, q} {
		if !bytes.Equal(batch[i].Data(), want.Data()) {
			t.Errorf("packet %d is % x, want % x", i, batch[i].Data(), want.Data())
		}
	}
	if !batch[0].Time.Equal(noon) || !batch[1].Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("times %v, %v", batch[0].Time, batch[1].Time)
	}
	want := Stats{OutPackets: 2, OutBytes: 29 + 30, Drops: map[Reason]uint64{Oversize: 1}}
	if diff := cmp.Diff(want, a.Stats()); diff != "" {
		t.Errorf("stats of the writer (-want +got):\n%s", diff)
	}
	want = Stats{InPackets: 2, InBytes: 29 + 30, Drops: map[Reason]uint64{}}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Errorf("stats of the reader (-want +got):\n%s", diff)
	}
}

func TestPairFull(t *testing.T) {
	a, b := Pair(1500)
	p := udp(t, "198.51.100.7", "203.0.113.10", 1)
	for range queueLen + 3 {
		a.Write([]*stack.Packet{p})
	}
	if got := a.Stats().Drops[QueueFull]; got != 3 {
		t.Errorf("%d dropped, want 3", got)
	}
	batch := batchOf(64)
	total := 0
	for total < queueLen {
		n, err := b.Read(batch)
		if n == 0 || err != nil {
			t.Fatalf("Read = %d, %v", n, err)
		}
		total += n
	}
	if total != queueLen {
		t.Errorf("%d packets read, want %d", total, queueLen)
	}
}

func TestPairClose(t *testing.T) {
	a, b := Pair(1500)
	p := udp(t, "198.51.100.7", "203.0.113.10", 1)
	got := make(chan error)
	go func() {
		_, err := a.Read(batchOf(1))
		got <- err
	}()
	a.Close()
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("pending Read = %v, want net.ErrClosed", err)
	}
	if _, err := a.Read(batchOf(1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
	if err := a.Write([]*stack.Packet{p}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write = %v, want net.ErrClosed", err)
	}
	if err := b.Write([]*stack.Packet{p}); err != nil {
		t.Errorf("Write at the end still open = %v", err)
	}
	if got := b.Stats().Drops[QueueFull]; got != 1 {
		t.Errorf("%d dropped at the end still open, want 1", got)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
}

func TestTap(t *testing.T) {
	a, b := Pair(1500)
	var got []string
	see := func(d Direction, p *stack.Packet) {
		p.Parse()
		got = append(got, d.String()+" "+p.Flow().String())
	}
	l := Tap(Tap(a, see), func(Direction, *stack.Packet) {})
	l.Write([]*stack.Packet{udp(t, "198.51.100.7", "203.0.113.10", 1)})
	b.Write([]*stack.Packet{udp(t, "203.0.113.10", "198.51.100.7", 1)})
	if n, err := l.Read(batchOf(3)); n != 1 || err != nil {
		t.Fatalf("Read = %d, %v", n, err)
	}
	want := []string{"out udp 198.51.100.7:5000 -> 203.0.113.10:69", "in udp 203.0.113.10:5000 -> 198.51.100.7:69"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if Unwrap(l) != stack.Link(a) || Unwrap(b) != stack.Link(b) {
		t.Error("Unwrap does not find the driver")
	}
	if s := l.(Counter).Stats(); s.OutPackets != 1 || s.InPackets != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRecorder(t *testing.T) {
	var file bytes.Buffer
	r, err := NewRecorder(&file)
	if err != nil {
		t.Fatal(err)
	}
	p, q := udp(t, "198.51.100.7", "203.0.113.10", 1), udp(t, "203.0.113.10", "198.51.100.7", 1400)
	q.Time = noon.Add(1234567 * time.Nanosecond)
	r.Packet(p)
	r.Packet(q)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	back, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	if back.LinkType() != layers.LinkTypeRaw {
		t.Errorf("link type %v, want raw", back.LinkType())
	}
	for i, want := range []*stack.Packet{p, q} {
		data, ci, err := back.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want.Data()) || !ci.Timestamp.Equal(want.Time) {
			t.Errorf("packet %d: % x at %v; want % x at %v", i, data, ci.Timestamp, want.Data(), want.Time)
		}
	}
	if _, _, err := back.ReadPacketData(); err != io.EOF {
		t.Errorf("after the last packet: %v, want EOF", err)
	}
}

type full struct{ n int }

func (f *full) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestRecorderError(t *testing.T) {
	r, err := NewRecorder(&full{8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	p := udp(t, "198.51.100.7", "203.0.113.10", 1400)
	for range 10 {
		r.Packet(p)
	}
	if err := r.Close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Close = %v, want %v", err, io.ErrShortWrite)
	}
}

func TestOpenErrors(t *testing.T) {
	tests := []struct {
		name string
		opt  Options
		want string
	}{
		{"eth0", Options{}, `link: opening "eth0": want driver:device, and the drivers are "tun:NAME", "packet:DEVICE", "xdp:DEVICE" and "auto:DEVICE"`},
		{"tun:", Options{}, `link: opening "tun:": want driver:device, and the drivers are "tun:NAME", "packet:DEVICE", "xdp:DEVICE" and "auto:DEVICE"`},
		{"pcap:f", Options{}, `link: opening "pcap:f": there is no driver "pcap" in this build; the drivers are "tun:NAME", "packet:DEVICE", "xdp:DEVICE" and "auto:DEVICE"`},
		{"tun:pb0", Options{MTU: 100}, `link: opening "tun:pb0": MTU 100 is not between 576 and 9216`},
		{"packet:eth0", Options{VLAN: 4095}, `link: opening "packet:eth0": VLAN 4095 is not between 1 and 4094`},
		{"tun:a-name-that-is-too-long", Options{}, `link: opening "tun:a-name-that-is-too-long": a device name has 1 to 15 characters`},
	}
	for _, tt := range tests {
		l, err := Open(tt.name, tt.opt)
		if err == nil || err.Error() != tt.want {
			t.Errorf("Open(%q) = %v, %v; want %s", tt.name, l, err, tt.want)
		}
	}
}

func TestReasonString(t *testing.T) {
	for r := range numReasons {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
	if got := numReasons.String(); got != fmt.Sprintf("reason %d", uint8(numReasons)) {
		t.Errorf("unknown reason is %q", got)
	}
}

func BenchmarkPair(b *testing.B) {
	x, y := Pair(1500)
	out := []*stack.Packet{udp(b, "198.51.100.7", "203.0.113.10", 172)}
	in := batchOf(64)
	b.ReportAllocs()
	for b.Loop() {
		x.Write(out)
		if n, err := y.Read(in); n != 1 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func TestPairAllocations(t *testing.T) {
	x, y := Pair(1500)
	out := []*stack.Packet{udp(t, "198.51.100.7", "203.0.113.10", 172)}
	in := batchOf(64)
	step := func() { x.Write(out); y.Read(in) }
	for range queueLen {
		step() // each slot gets its memory
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}
