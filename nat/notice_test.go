package nat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"patchbay/stack"
)

// Translations are told of when they begin and when they end, once each, and
// with no lock held.
func TestNotice(t *testing.T) {
	pat := NewPAT(rand.NewChaCha8([32]byte{1}))
	pat.SetTimeouts(Timeouts{PATXlate: 30 * time.Second})
	var got []string
	pat.SetNotice(func(x Translation, ended bool) {
		pat.Lookup(x.Proto, x.Real, x.Mapped.Addr()) // takes the locks
		got = append(got, fmt.Sprintf("%v %v %v %v %v", x.Proto, x.Real, x.Mapped, ended, x.Lasted))
	})
	said := func(what string, want ...string) {
		t.Helper()
		pat.told()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		got = nil
	}
	begin := time.Unix(1000, 0)
	pat.Expire(begin)
	real, mapped := netip.MustParseAddrPort("10.20.0.50:5000"), netip.MustParseAddr("203.0.113.2")
	one, ok := pat.Take(stack.UDP, real, mapped, nil)
	if !ok {
		t.Fatal("no port")
	}
	said("taken", "udp 10.20.0.50:5000 203.0.113.2:5000 false 0s")
	two, _ := pat.Take(stack.UDP, real, mapped, nil)
	one.Release()
	said("taken again, released once")
	pat.Expire(begin.Add(5 * time.Second))
	two.Release()
	said("released")
	three, _ := pat.Take(stack.UDP, real, mapped, nil)
	three.Release()
	said("used while it lingers")
	pat.Expire(begin.Add(36 * time.Second))
	said("lingered", "udp 10.20.0.50:5000 203.0.113.2:5000 true 36s")
	four, _ := pat.Take(stack.TCP, real, mapped, nil)
	four.Cancel()
	said("cancelled", "tcp 10.20.0.50:5000 203.0.113.2:5000 false 0s", "tcp 10.20.0.50:5000 203.0.113.2:5000 true 0s")
	five, _ := pat.Take(stack.TCP, real, mapped, nil)
	five.Release()
	pat.told()
	got = nil
	pat.Flush()
	said("flushed", "tcp 10.20.0.50:5000 203.0.113.2:5000 true 0s")
}
