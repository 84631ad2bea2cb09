package appliance_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/replay"
	"patchbay/nat"
	"patchbay/stack"
	"patchbay/stack/link"
)

// A modelRun is a box that is held against its model.
type modelRun struct {
	t     *testing.T
	text  string
	m     *model
	box   *replay.Box
	now   time.Time
	conns map[string]bool // what a packet of a connection looks like as it arrives

	verdict stack.Verdict // of the last packet
	left    stack.Flow
	out     string
}

// newModelRun makes the box of a configuration, nil if that is refused, which
// is because two of its rules want the same address.
func newModelRun(t *testing.T, text string, m *model) *modelRun {
	r, findings := config.Check("random.cfg", strings.NewReader(text))
	for _, f := range findings {
		switch {
		case f.Severity != config.Error || f.Rule == "V64":
		case strings.Contains(f.Msg, "is taken by rule"):
		default:
			t.Fatalf("%v\n%s", f, text)
		}
	}
	if config.Errors(findings) > 0 {
		return nil
	}
	q := &modelRun{t: t, text: text, m: m, now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), conns: make(map[string]bool)}
	box, err := replay.New(r, replay.Options{Seed: "model", Seen: func(p *stack.Packet, dir link.Direction, v stack.Verdict) {
		if dir == link.In {
			q.verdict = v
			return
		}
		q.left, q.out = p.Flow(), p.Out.Name
	}})
	if err != nil {
		if !strings.Contains(err.Error(), "is taken by rule") {
			t.Fatalf("%v\n%s", err, text)
		}
		return nil
	}
	q.box = box
	return q
}

// send has a packet of f arrive, with these flags if it is of TCP.
func (q *modelRun) send(in string, f stack.Flow, flags uint8) {
	p := stack.NewPacket(200)
	if f.Proto == stack.TCP {
		p.SetData(stack.AppendTCP(nil, f, stack.TCPHeader{Seq: 1, Ack: 2, Flags: flags, Window: 1000}, nil))
	} else {
		p.SetData(stack.AppendUDP(nil, f, []byte("x")))
	}
	p.Time, p.In = q.now, q.box.Interface(in)
	q.left, q.out = stack.Flow{}, ""
	q.box.Handle(p)
}

func arrival(on string, f stack.Flow) string { return fmt.Sprint(on, f) }

// packet compares the fate of a first packet, and of the answer to it.
func (q *modelRun) packet(in string, f stack.Flow) (what stack.Verdict) {
	if q.conns[arrival(in, f)] {
		return stack.Consumed // no first packet
	}
	proto := f.Proto.String()
	src, dst := endOf(f.Src), endOf(f.Dst)
	ports, given, homes := maps.Clone(q.m.ports), maps.Clone(q.m.given), maps.Clone(q.m.homes)
	back := func() { q.m.ports, q.m.given, q.m.homes = ports, given, homes }
	want := q.m.first(in, proto, src, dst)
	if want.drop == stack.Forward && q.m.asCarried && q.m.out[want.out] != nil {
		// Asked about what leaves. A port chosen by chance is above all that
		// lists name.
		leaves := want.src
		if leaves.port == 0 {
			leaves.port = 50000
		}
		if permit, _ := q.m.out[want.out].permits(proto, leaves, want.dst); !permit {
			back()
			want.drop = stack.DropACL
		}
	}
	leaves := stack.Flow{Proto: f.Proto, Src: want.src.addrPort(), Dst: want.dst.addrPort()}
	answer := leaves.Reverse()
	if want.drop == stack.Forward && want.src.port != 0 && q.conns[arrival(want.out, answer)] {
		back()
		want.drop = stack.DropNAT // the answers would be another connection's
	}

	q.send(in, f, stack.FlagSYN)
	switch {
	case want.drop == stack.Forward && !q.m.reaches(want.out, want.dst.addr):
		if q.verdict != stack.DropNoRoute {
			q.t.Fatalf("%v from %s to %s: %v, which has no route to it\n%s", f, in, want.out, q.verdict, q.text)
		}
		q.conns[arrival(in, f)], q.conns[arrival(want.out, answer)] = true, true
		return stack.DropNoRoute
	case want.drop != stack.Forward:
		if q.verdict != want.drop {
			q.t.Fatalf("%v from %s: %v, the model says %v\n%s", f, in, q.verdict, want.drop, q.text)
		}
		return want.drop
	case want.src.port == 0:
		if q.left.Src.Addr() == leaves.Src.Addr() && q.m.chosen(want, proto, src, uint32(q.left.Src.Port())) {
			leaves.Src, answer.Dst = q.left.Src, q.left.Src
		}
	}
	if q.verdict != stack.Forward || q.left != leaves || q.out != want.out {
		q.t.Fatalf("%v from %s: %v, leaves by %s as %v; the model says by %s as %v\n%s", f, in, q.verdict, q.out, q.left, want.out, leaves, q.text)
	}
	q.conns[arrival(in, f)], q.conns[arrival(want.out, answer)] = true, true

	if arrival(want.out, answer) == arrival(in, f) {
		return stack.Forward // it talks to itself
	}
	q.send(want.out, answer, stack.FlagSYN|stack.FlagACK)
	if !q.m.reaches(in, src.addr) {
		if q.verdict != stack.DropNoRoute {
			q.t.Fatalf("the answer to %v, which is not from where it came from: %v\n%s", f, q.verdict, q.text)
		}
		return stack.Forward
	}
	if q.verdict != stack.Forward || q.left != f.Reverse() || q.out != in {
		q.t.Fatalf("%v from %s, the answer to %v: %v, leaves by %s as %v\n%s", answer, want.out, f, q.verdict, q.out, q.left, q.text)
	}
	return stack.Forward
}

// randomPacket is a first packet of the small world: one that a rule is about,
// from either side, or any.
func (q *modelRun) randomPacket(rnd *rand.Rand) (in string, f stack.Flow) {
	bases := []uint32{insideHosts, dmzHosts, outsideHosts, mappedHosts, pools, aliases}
	of := func(hosts, ports span, base uint32) netip.AddrPort {
		port := uint32(1024 + rnd.IntN(6))
		switch {
		case !ports.any():
			port = ports.at(rnd.Uint32N(ports.size()))
		case rnd.IntN(6) == 0:
			port = 100
		case rnd.IntN(6) == 0:
			port = 600
		}
		if hosts.any() || hosts.size() > 16 {
			hosts = span{base, base + 7}
		}
		return end{hosts.at(rnd.Uint32N(hosts.size())), port}.addrPort()
	}
	f.Proto = [...]stack.Proto{stack.TCP, stack.UDP}[rnd.IntN(2)]
	k := rnd.IntN(3)
	in = q.m.interfaces[k].name
	f.Src = of(span{}, span{}, []uint32{outsideHosts, insideHosts, dmzHosts}[k])
	f.Dst = of(span{}, span{}, bases[rnd.IntN(len(bases))])
	if rnd.IntN(20) == 0 { // of the box itself
		f.Dst = netip.AddrPortFrom(end{q.m.interfaces[rnd.IntN(3)].addr, 0}.addrPort().Addr(), f.Dst.Port())
	}
	if n := len(q.m.rules); n > 0 && rnd.IntN(4) > 0 {
		r := &q.m.rules[rnd.IntN(n)]
		if r.proto == "tcp" {
			f.Proto = stack.TCP
		}
		if r.proto == "udp" {
			f.Proto = stack.UDP
		}
		switch {
		case r.real != "" && (r.kind == "dynamic" || r.kind == "refuse" || rnd.IntN(2) == 0):
			in, f.Src = r.real, of(r.src, r.ofPort, insideHosts)
			f.Dst = of(r.peerInside, r.peerPortInside, outsideHosts)
		case r.mapped != "" && r.mapped != r.real:
			in, f.Src = r.mapped, of(r.peer, r.peerPorts, outsideHosts)
			f.Dst = of(r.to, r.toPort, insideHosts)
			if r.kind == "identity" {
				f.Dst = of(r.src, r.ofPort, insideHosts)
			}
		}
	}
	if f.Src.Addr() == f.Dst.Addr() || slices.ContainsFunc(q.m.interfaces, func(i modelInterface) bool { return i.addr == endOf(f.Src).addr }) {
		return q.randomPacket(rnd) // no host sends that
	}
	return in, f
}

// TestModel holds boxes of random configurations against a model of NAT and
// access lists that walks lists: thousands of rule sets of every kind, of 8.3
// and later and of before, first packets and answers. When everything has timed
// out or been cleared nothing is left of connections and translations.
func TestModel(t *testing.T) {
	rounds, packets := 3000, 60
	if testing.Short() {
		rounds = 300
	}
	made := 0
	fates := make(map[stack.Verdict]int)
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(20260301, uint64(round)))
		g := newBoxMaker(rnd)
		var text string
		if round%3 == 0 {
			text = g.oldBox()
		} else {
			text = g.newBox()
		}
		q := newModelRun(t, text, g.m)
		if q == nil {
			continue
		}
		made++
		for range packets {
			in, f := q.randomPacket(rnd)
			fates[q.packet(in, f)]++
		}
		q.ends(round%2 == 0)
	}
	t.Logf("%d boxes, %v", made, fates)
	if made < rounds/2 {
		t.Errorf("only %d of %d configurations are good", made, rounds)
	}
	for _, v := range []stack.Verdict{stack.Forward, stack.DropACL, stack.DropSecurityLevel, stack.DropNATReverse, stack.DropNoTranslation, stack.DropNAT, stack.DropNoService} {
		if fates[v] < rounds/30 {
			t.Errorf("%v only %d times: the world is too large", v, fates[v])
		}
	}
}

// ends sees that nothing is left of what the packets made, once it has been
// cleared or has timed out.
func (q *modelRun) ends(cleared bool) {
	table, pat := q.box.Appliance().Table(), q.box.Appliance().PAT()
	if cleared {
		table.Clear(func(*nat.Conn) bool { return true })
		pat.Flush()
	} else {
		q.box.Advance(q.now.Add(5 * time.Hour))  // the connections
		q.box.Advance(q.now.Add(10 * time.Hour)) // and what lingered after them
	}
	inUse, lingering := pat.Len()
	if n := table.Len() + table.HalfOpen() + table.Pinholes() + inUse + lingering; n != 0 {
		q.t.Fatalf("in the end %d connections, %d half open, %d pinholes, %d and %d leases\n%s",
			table.Len(), table.HalfOpen(), table.Pinholes(), inUse, lingering, q.text)
	}
}
