package appliance_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/stack"
)

// A lossyLink loses packets that it reads, and lets others wait until a few
// have overtaken them.
type lossyLink struct {
	stack.Link
	rand      *rand.Rand
	lost, odd float64 // parts of all packets

	held    []byte // one that waits
	after   int    // how many must still overtake it
	losses  int
	reorder int
}

// overtaken is how many packets overtake one that waits.
const overtaken = 3

func (l *lossyLink) Read(batch []*stack.Packet) (int, error) {
	for {
		room := len(batch) - 1 // for the one that waits
		n, err := l.Link.Read(batch[:max(1, room)])
		if err != nil {
			return 0, err
		}
		kept := 0
		for i := range n {
			p := batch[i]
			x := l.rand.Float64()
			switch {
			case x < l.lost:
				l.losses++
				continue
			case x < l.lost+l.odd && l.held == nil && room > 0:
				l.held, l.after = bytes.Clone(p.Data()), overtaken
				l.reorder++
				continue
			}
			l.after--
			batch[kept], batch[i] = batch[i], batch[kept]
			kept++
		}
		if l.held != nil && l.after <= 0 && kept < len(batch) {
			batch[kept].Reset()
			batch[kept].SetData(l.held)
			batch[kept].Time = time.Now()
			l.held = nil
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

// TestLossyLink has a TCP connection through PAT carry megabytes each way over
// links that lose one packet in a hundred and deliver another one late. What
// arrives is what was sent, and to the box it is the same connection all the time.
func TestLossyLink(t *testing.T) {
	links := make(map[string]*lossyLink)
	b := start(t, setup{opt: func(o *appliance.Options) {
		for name, l := range o.Links {
			links[name] = &lossyLink{Link: l, rand: rand.New(rand.NewPCG(7, uint64(len(name)))), lost: 0.01, odd: 0.01}
			o.Links[name] = links[name]
		}
	}})
	desk, far := b.host(b.lab.LAN, "10.20.0.60"), b.host(b.lab.Internet, "198.51.100.60")
	c, s := connect(b, desk, far, 9001)
	before := b.app.ConnIDs(stack.TCP)
	if len(before) != 1 {
		t.Fatalf("%d TCP connections after one was opened", len(before))
	}
	carry(t, c, s, 4<<20)
	if after := b.app.ConnIDs(stack.TCP); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("connections are %v after the transfer, want %v still", after, before)
	}
	c.Close()
	s.Close()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	for name, l := range links {
		if l.losses == 0 || l.reorder == 0 {
			t.Errorf("%s lost %d packets and held %d back: this test proves nothing", name, l.losses, l.reorder)
		}
	}
}

// connect opens a connection to a host that listens at port, and returns both
// ends.
func connect(b *box, from, to lab.Host, port uint16) (c, s net.Conn) {
	b.t.Helper()
	l, err := to.ListenTCP(netip.AddrPortFrom(to.Addr(), port))
	b.must(err)
	defer l.Close()
	type accepted struct {
		net.Conn
		err error
	}
	got := make(chan accepted, 1)
	go func() {
		s, err := l.Accept()
		got <- accepted{s, err}
	}()
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	c, err = from.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(to.Addr(), port))
	b.must(err)
	select {
	case a := <-got:
		b.must(a.err)
		s = a.Conn
	case <-ctx.Done():
		b.t.Fatal("the connection is not accepted")
	}
	b.t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	late := time.Now().Add(30 * time.Second)
	b.must(errors.Join(c.SetDeadline(late), s.SetDeadline(late)))
	return c, s
}

// carry sends n bytes each way at once and compares what arrives.
func carry(t *testing.T, c, s net.Conn, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, ends := range [][2]net.Conn{{c, s}, {s, c}} {
		data := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		wg.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Errorf("writing: %v", err)
			}
		})
		wg.Go(func() {
			h := sha256.New()
			if k, err := io.CopyN(h, ends[1], int64(n)); err != nil {
				t.Errorf("after %d bytes of %d: %v", k, n, err)
			} else if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("what arrived is not what was sent")
			}
		})
	}
	begin := time.Now()
	wg.Wait()
	t.Logf("%d bytes each way in %v", n, time.Since(begin).Round(time.Millisecond))
}
