package nat_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// What ForeseeSource says Translate gives, and nothing is taken by saying it:
// with few mapped addresses and ports that linger, are used up and come free.
func TestForeseeSource(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 9))
	in := &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24")}
	out := &stack.Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.2/24")}
	addr := netip.MustParseAddr
	hosts := func(from, to string) nat.Object { return nat.Range(addr(from), addr(to)) }
	base := nat.Rule{Real: in, Mapped: out, Kind: nat.Dynamic, Source: hosts("10.20.0.0", "10.20.0.255")}
	for name, edit := range map[string]func(*nat.Rule){
		"interface":   func(r *nat.Rule) { r.MappedInterface = true },
		"pool":        func(r *nat.Rule) { r.MappedSource = hosts("203.0.113.10", "203.0.113.12") },
		"round-robin": func(r *nat.Rule) { r.MappedSource = hosts("203.0.113.10", "203.0.113.12"); r.Pool = nat.PATRoundRobin },
		"one to one": func(r *nat.Rule) {
			r.MappedSource, r.Pool, r.MappedInterface = hosts("203.0.113.10", "203.0.113.12"), nat.OneToOne, true
		},
		"extended": func(r *nat.Rule) {
			r.MappedSource = hosts("203.0.113.10", "203.0.113.10")
			r.Extended, r.Flat = true, true
		},
	} {
		rule := base
		edit(&rule)
		rs, err := nat.NewRules([]nat.Rule{rule})
		if err != nil {
			t.Fatal(err)
		}
		pat := nat.NewPAT(rand.NewChaCha8([32]byte{1}))
		to := nat.DefaultTimeouts()
		to.PATXlate, to.Xlate = 30*time.Second, 50*time.Second
		pat.SetTimeouts(to)
		now := time.Unix(1000, 0)
		var held []nat.Lease
		chances, used := 0, 0
		for step := range 20_000 {
			now = now.Add(time.Duration(rnd.IntN(2000)) * time.Millisecond)
			if rnd.IntN(4) == 0 {
				pat.Expire(now)
			}
			for len(held) > 0 && (len(held) > 30 || rnd.IntN(3) == 0) {
				k := rnd.IntN(len(held))
				held[k].Release()
				held[k] = held[len(held)-1]
				held = held[:len(held)-1]
			}
			f := stack.Flow{
				Proto: []stack.Proto{stack.TCP, stack.UDP, stack.ICMP, 47}[rnd.IntN(4)],
				Src:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 20, 0, byte(rnd.IntN(6))}), uint16(rnd.IntN(3))),
				Dst:   netip.AddrPortFrom(addr("192.0.2.5"), uint16(80+rnd.IntN(2))),
			}
			if f.Proto == stack.ICMP {
				f.Dst = netip.AddrPortFrom(f.Dst.Addr(), 0)
			} else if f.Proto == 47 {
				f.Src, f.Dst = netip.AddrPortFrom(f.Src.Addr(), 0), netip.AddrPortFrom(f.Dst.Addr(), 0)
			}
			before, _ := pat.Len()
			want, chance, v := rs.ForeseeSource(in, out, f, nil, pat)
			if after, _ := pat.Len(); after != before || want.Lease != (nat.Lease{}) {
				t.Fatalf("%s, step %d: foreseeing %v left %d in use of %d", name, step, f, after, before)
			}
			got, gv := rs.Translate(in, out, f, nil, pat)
			if got.Lease != (nat.Lease{}) {
				held = append(held, got.Lease)
			}
			if chance {
				chances++
				if got.Mapped.Addr() != want.Mapped.Addr() || want.Mapped.Port() != 0 {
					t.Fatalf("%s, step %d: %v became %v, foreseen %v by chance", name, step, f, got.Mapped, want.Mapped)
				}
				want.Mapped = got.Mapped
			}
			if got.Mapped != want.Mapped || got.Rule != want.Rule || gv != v {
				t.Fatalf("%s, step %d: %v became %v, %v; foreseen %v, %v", name, step, f, got.Mapped, gv, want.Mapped, v)
			}
			if gv != stack.Forward {
				used++
			}
		}
		if chances == 0 && name != "one to one" || used == 0 && name != "one to one" {
			t.Errorf("%s: %d ports by chance, %d refused: too few to tell", name, chances, used)
		}
	}
}
