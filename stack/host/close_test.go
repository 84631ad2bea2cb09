package host

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"patchbay/stack"
)

// Handshakes that begin as the host closes do not hold it up until they are
// given up.
func TestCloseInHandshakes(t *testing.T) {
	for range 20 {
		box := newHost(t)
		handleAll(box, func(c net.Conn) { c.Close() })
		p := stack.NewPacket(1500)
		for i := range 100 {
			f := stack.Flow{Proto: stack.TCP, Src: netip.AddrPortFrom(phone.Addr(), uint16(1000+i)), Dst: mapped}
			p.SetData(stack.AppendTCP(nil, f, stack.TCPHeader{Seq: 1, Flags: stack.FlagSYN, Window: 1000, MSS: 1400}, nil))
			if err := box.Link().Write([]*stack.Packet{p}); err != nil {
				t.Fatal(err)
			}
		}
		go func() { // somebody reads the link
			batch := []*stack.Packet{stack.NewPacket(1500)}
			for {
				if _, err := box.Link().Read(batch); err != nil {
					return
				}
			}
		}()
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			box.Close()
		}()
		select {
		case <-closed:
		case <-time.After(8 * time.Second):
			t.Fatal("Close waits for handshakes that nobody completes")
		}
	}
}

// The peers of a host that closes hear of it: those of connections that were
// closed just before, and of those that were not.
func TestCloseTellsPeers(t *testing.T) {
	for _, first := range []bool{false, true} {
		box, peer := newHost(t), newHost(t, "198.51.100.7/24")
		accepted := make(chan net.Conn, 1)
		handleAll(box, func(c net.Conn) { accepted <- c })
		join(t, box, peer, nil)
		c, err := peer.DialTCP(testContext(t), phone, mapped)
		if err != nil {
			t.Fatal(err)
		}
		s := <-accepted
		if _, err := io.WriteString(s, "goodbye"); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if first {
			s.Close()
		}
		begin := time.Now()
		box.Close()
		var timeout net.Error
		if n, err := c.Read(make([]byte, 1)); n != 0 || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("closed first %v: the peer reads %d, %v; want the end", first, n, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("closed first %v: the peer knew after %v", first, took)
		}
		s.Close()
		c.Close()
	}
}

// A host that nobody reads closes all the same.
func TestCloseUnread(t *testing.T) {
	s := newHost(t, "198.51.100.7/24")
	c, err := s.ListenPacket(phone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo([]byte("to nobody"), net.UDPAddrFromAddrPort(mapped)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	begin := time.Now()
	s.Close()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
}
