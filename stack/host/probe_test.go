package host

import (
	"bytes"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patchbay/stack"
)

// receive waits for an answer.
func receive(t *testing.T, p *Probe) Answer {
	t.Helper()
	select {
	case a := <-p.Answers():
		return a
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
	}
	return Answer{}
}

func TestProbeEcho(t *testing.T) {
	box, peer := newHost(t), newHost(t, "198.51.100.7/24")
	own := netip.MustParseAddr("203.0.113.2")
	var mu sync.Mutex
	var ttls, ids []int
	cut := 0
	join(t, box, peer, func(p *stack.Packet) {
		mu.Lock()
		defer mu.Unlock()
		if v := p.Parse(); v == stack.DropFragment && p.Flow().Src.Addr() == own {
			cut++
		}
		if p.Parse() == stack.Forward && p.Flow().Src.Addr() == own {
			ttls = append(ttls, int(p.Data()[8]))
			ids = append(ids, int(p.Data()[4])<<8|int(p.Data()[5]))
		}
	})
	a, err := box.OpenProbe(own)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := box.OpenProbe(own)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data := bytes.Repeat([]byte{0xab, 0xcd}, 500)
	if err := a.Echo(phone.Addr(), 7, 3, data); err != nil {
		t.Fatal(err)
	}
	got := receive(t, a)
	if got.From != phone.Addr() || got.Type != stack.ICMPEchoReply || got.Seq != 7 || !bytes.Equal(got.Data, data) {
		t.Errorf("answer %v type %d, number %d, %d bytes; want number 7 of %v, %d bytes", got.From, got.Type, got.Seq, len(got.Data), phone.Addr(), len(data))
	}
	if err := b.Echo(phone.Addr(), 8, 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, b); got.Seq != 8 || len(got.Data) != 0 {
		t.Errorf("answer %+v, want number 8", got)
	}
	select {
	case got := <-a.Answers():
		t.Errorf("an answer for another: %+v", got)
	default:
	}
	mu.Lock()
	sent := len(ttls)
	mu.Unlock()
	if sent != 2 || ttls[0] != 3 || ttls[1] != probeTTL || ids[0] == 0 {
		t.Errorf("sent with TTL %v and ID %v; want 3 and %d", ttls, ids, probeTTL)
	}
	long := bytes.Repeat([]byte("0123456"), 1000)
	if err := b.Echo(phone.Addr(), 9, 0, long); err != nil {
		t.Fatal(err)
	}
	n := 0
	for end := time.Now().Add(10 * time.Second); n < 5 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		mu.Lock()
		n = cut
		mu.Unlock()
	}
	if n != 5 {
		t.Errorf("an echo of %d bytes left in %d pieces, want 5", len(long), n)
	}
	if err := a.Echo(phone.Addr(), 1, 0, make([]byte, stack.MaxPacket-27)); err == nil {
		t.Error("an echo longer than a packet was sent")
	}
}

func TestProbeErrors(t *testing.T) {
	box := newHost(t)
	defer box.Close()
	own, router := netip.MustParseAddr("203.0.113.2"), netip.MustParseAddr("203.0.113.1")
	p, err := box.OpenProbe(own)
	if err != nil {
		t.Fatal(err)
	}
	// answer has a router refuse what the box sends.
	answer := func(typ, code uint8) {
		t.Helper()
		q := []*stack.Packet{stack.NewPacket(1500)}
		if n, err := box.Link().Read(q); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if v := q[0].Parse(); v != stack.Forward {
			t.Fatalf("the box sends what is dropped as %v", v)
		}
		e := stack.NewPacket(1500)
		e.SetData(stack.AppendICMPError(nil, q[0], router, typ, code, 0))
		if err := box.Link().Write([]*stack.Packet{e}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Datagram(netip.AddrPortFrom(phone.Addr(), 33434), 1, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	answer(stack.ICMPTimeExceeded, 0)
	if a := receive(t, p); a.From != router || a.Type != stack.ICMPTimeExceeded || a.Port != 33434 {
		t.Errorf("answer %+v, want time exceeded about port 33434", a)
	}
	if err := p.Echo(phone.Addr(), 9, 1, nil); err != nil {
		t.Fatal(err)
	}
	answer(stack.ICMPUnreachable, stack.CodeProhibited)
	if a := receive(t, p); a.From != router || a.Type != stack.ICMPUnreachable || a.Code != stack.CodeProhibited || a.Seq != 9 {
		t.Errorf("answer %+v, want prohibited about echo 9", a)
	}
	// What is no answer, and what nobody waits for any more.
	f := stack.Flow{Proto: stack.ICMP, Src: netip.AddrPortFrom(router, 0), Dst: netip.AddrPortFrom(own, p.local.Port())}
	reply := stack.AppendICMPEcho(nil, f, 1, []byte("x"))
	for i := range reply {
		junk := stack.NewPacket(1500)
		junk.SetData(reply[:i])
		box.Link().Write([]*stack.Packet{junk})
	}
	p.Close()
	e := stack.NewPacket(1500)
	e.SetData(reply)
	box.Link().Write([]*stack.Packet{e})
	select {
	case a := <-p.Answers():
		t.Errorf("answer %+v, want none", a)
	default:
	}
	if n := box.link.probes.open.Load(); n != 0 || len(box.link.probes.by) != 0 {
		t.Errorf("%d probes are open", n)
	}
	if err := p.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
