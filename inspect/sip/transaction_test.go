package sip

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"patchbay/nat"
)

// TestTransactions compares with a slow, obvious list.
func TestTransactions(t *testing.T) {
	type entry struct {
		from     nat.End
		branch   string
		via      string
		answered bool
	}
	r := rand.New(rand.NewPCG(1, 2))
	x := &transactions{max: 40}
	var model []entry // the oldest first
	index := func(from nat.End, branch string) int {
		for i, e := range model {
			if e.from == from && e.branch == branch {
				return i
			}
		}
		return -1
	}
	for step := range 20_000 {
		from, branch := nat.End(r.IntN(2)), fmt.Sprint("z9hG4bK", r.IntN(80))
		i := index(from, branch)
		if r.IntN(2) == 0 {
			via := fmt.Sprint("via ", step)
			x.remember(from, []byte(branch), []byte(via))
			if i >= 0 {
				model = append(model[:i], model[i+1:]...)
			} else if len(model) == 40 {
				victim := 0
				for j, e := range model {
					if e.answered {
						victim = j
						break
					}
				}
				model = append(model[:victim], model[victim+1:]...)
			}
			model = append(model, entry{from, branch, via, false})
			continue
		}
		final := r.IntN(2) == 0
		got, want := string(x.find(from, []byte(branch), final)), ""
		if i >= 0 {
			e := model[i]
			want = e.via
			e.answered = e.answered || final
			model = append(append(model[:i], model[i+1:]...), e)
		}
		if got != want {
			t.Fatalf("step %d: find(%v, %s) = %q, want %q", step, from, branch, got, want)
		}
		if x.n != len(model) || len(x.byHash) != x.n {
			t.Fatalf("step %d: %d transactions, %d by hash, want %d", step, x.n, len(x.byHash), len(model))
		}
	}
}

// TestTransactionBytes bounds what long Vias may take.
func TestTransactionBytes(t *testing.T) {
	x := &transactions{max: 4096}
	long := []byte(strings.Repeat("v", MaxVia))
	for i := range 300 {
		x.remember(nat.Client, fmt.Append(nil, i), long)
		if x.bytes > maxViaBytes+2*MaxVia {
			t.Fatalf("%d bytes after %d", x.bytes, i)
		}
	}
	if x.get(nat.Client, []byte("299")) == nil || x.get(nat.Client, []byte("0")) != nil {
		t.Error("the newest is not kept, or the oldest is")
	}
	x.remember(nat.Client, []byte("a"), append(long, 'v'))
	if x.get(nat.Client, []byte("a")) != nil {
		t.Error("a Via over the limit is remembered")
	}
}

// BenchmarkTransactions is a request and its answer between two proxies that
// have had many.
func BenchmarkTransactions(b *testing.B) {
	x := &transactions{max: maxRemembered}
	branches := make([][]byte, 2*maxRemembered)
	for i := range branches {
		branches[i] = fmt.Appendf(nil, "z9hG4bK%d", i)
		x.remember(nat.Client, branches[i], []byte("SIP/2.0/UDP 10.20.0.11:5060"))
	}
	via := []byte("SIP/2.0/UDP 10.20.0.11:5060;branch=z9hG4bK")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		branch := branches[i%len(branches)]
		x.remember(nat.Client, branch, via)
		x.find(nat.Client, branch, true)
		i++
	}
}
