package stack

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The tap sees what arrives as it arrives, also what does not parse, and what
// leaves as it leaves: in pieces if it is cut up, and errors of the box's own.
func TestTap(t *testing.T) {
	n := newNet3()
	var seen []string
	n.f.SetTap(func(p *Packet, on *Interface, out bool) {
		dir := "in"
		if out {
			dir = "out"
		}
		seen = append(seen, fmt.Sprintf("%s %v %d bytes to %v", dir, on, p.Len(), p.Flow().Dst.Addr()))
	})
	n.f.SetPolicy(admit(func(p *Packet) Verdict {
		p.SetFlow(flowOf(UDP, phone, 5000, ucm, 5060))
		p.Out = n.inside
		return Forward
	}))
	n.handle(t, n.outside, []byte{0x45, 0})
	n.handle(t, n.outside, AppendUDP(nil, flowOf(UDP, phone, 5000, box, 5060), make([]byte, 1200)))
	n.handle(t, n.outside, edit(AppendUDP(nil, flowOf(UDP, phone, 5000, box, 5060), nil), func(b []byte) { b[8] = 1 }))
	n.f.SetTap(nil)
	n.handle(t, n.outside, []byte{0x45, 0})
	want := []string{
		"in outside 2 bytes to invalid IP",
		"in outside 1228 bytes to " + box,
		"out inside 996 bytes to " + ucm,
		"out inside 252 bytes to " + ucm,
		"in outside 28 bytes to " + box,
		"out outside 56 bytes to " + phone,
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[Verdict]uint64{DropMalformed: 2, DropTTL: 1}, n.f.DropsOn(n.outside)); diff != "" {
		t.Errorf("DropsOn(outside) (-want +got):\n%s", diff)
	}
	if got := n.f.DropsOn(n.inside); len(got) != 0 {
		t.Errorf("DropsOn(inside) = %v, want none", got)
	}
	if got := n.f.DropsOn(&Interface{Name: "dmz"}); got != nil {
		t.Errorf("DropsOn of a stranger = %v", got)
	}
}

// A tap allocates nothing by itself.
func TestTapAllocations(t *testing.T) {
	f, p, reset := bench(t)
	seen := 0
	f.SetTap(func(*Packet, *Interface, bool) { seen++ })
	w := &worker{f: f}
	in := f.port((*f.ports.Load())[0].Interface)
	n := testing.AllocsPerRun(1000, func() {
		reset()
		w.handle(p, in)
		w.flush()
	})
	if n != 0 || seen < 2000 {
		t.Errorf("%v allocations a packet, %d packets seen; want 0, twice 1001", n, seen)
	}
}

// Every verdict has a name of its own and a description.
func TestVerdictTexts(t *testing.T) {
	seen := make(map[string]Verdict)
	Verdicts(func(v Verdict) {
		if before, ok := seen[v.String()]; ok || v.String() == "" {
			t.Errorf("verdicts %d and %d are both %q", before, v, v)
		}
		seen[v.String()] = v
		if v.Text() == v.String() {
			t.Errorf("%v has no description", v)
		}
	})
	if got := Verdict(255).Text(); got != "unknown" {
		t.Errorf("Text of no verdict = %q", got)
	}
}
