package appliance_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/stack"
	"patchbay/stack/host"
	"patchbay/stack/link"
)

// configure makes text what the box goes by.
func (b *plain) configure(text string) error {
	b.t.Helper()
	r, findings := config.Check("changed.cfg", strings.NewReader(text))
	if config.Errors(findings) > 0 {
		b.t.Fatal(findings)
	}
	return b.app.Configure(r)
}

// echo copies back what comes to c.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// says reports whether what is written to c comes back in time.
func says(c net.Conn, text string) bool {
	c.SetDeadline(time.Now().Add(700 * time.Millisecond))
	if _, err := io.WriteString(c, text); err != nil {
		return false
	}
	buf := make([]byte, len(text))
	_, err := io.ReadFull(c, buf)
	return err == nil && string(buf) == text
}

const permitWeb = "access-list outbound extended permit tcp any any eq 80\naccess-group outbound in interface inside\n"

// Connections live on as long as the new configuration would let them open.
func TestConfigureKeepsConnections(t *testing.T) {
	b := startPlain(t)
	phone, server := b.dial(80)
	go echo(server)
	if !says(phone, "before") {
		t.Fatal("no echo before the change")
	}
	for _, tt := range []struct {
		name, text string
		lives      bool
	}{
		{"the same again", plainConfig, true},
		{"other lines, the same for it", "! moved down\n" + plainConfig + permitWeb + "timeout conn 2:00:00\n", true},
		{"a list that denies it", plainConfig + strings.Replace(permitWeb, "80", "81", 1), false},
	} {
		if err := b.configure(tt.text); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := says(phone, tt.name); got != tt.lives {
			t.Errorf("%s: the connection lives: %v; want %v", tt.name, got, tt.lives)
		}
	}
}

// A change that cannot be made leaves the box as it was.
func TestConfigureRefused(t *testing.T) {
	b := startPlain(t)
	phone, server := b.dial(80)
	go echo(server)
	err := b.configure(plainConfig + "interface GigabitEthernet0/2\n nameif dmz\n security-level 50\n ip address 192.168.1.1 255.255.255.0\n" +
		"access-list none extended deny ip any any\naccess-group none in interface inside\n")
	if err == nil || !strings.Contains(err.Error(), "dmz") {
		t.Errorf("an interface without a link: %v", err)
	}
	if !says(phone, "still here") {
		t.Error("the refused configuration ended a connection")
	}
}

// An interface comes and goes while the box runs, with the link that Open gives
// it, and an address can change.
func TestConfigureInterfaces(t *testing.T) {
	var opened, closed atomic.Int64
	dmzEnds := make(chan *host.Stack, 8)
	b := startPlainWith(t, func(i *config.Interface) (stack.Link, error) {
		if i.Hardware != "GigabitEthernet0/2" {
			return nil, errors.New("no such NIC")
		}
		h, err := host.New(host.Config{Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.1.5/24")}})
		if err != nil {
			return nil, err
		}
		opened.Add(1)
		dmzEnds <- h
		return closeCounter{link.Tap(h.Link(), func(link.Direction, *stack.Packet) {}), &closed}, nil
	})
	dmz := "interface GigabitEthernet0/2\n nameif dmz\n security-level 50\n ip address 192.168.1.1 255.255.255.0\n"
	for round := range 2 {
		if err := b.configure(plainConfig + dmz); err != nil {
			t.Fatal(err)
		}
		h := <-dmzEnds
		l, err := h.ListenTCP(netip.MustParseAddrPort("192.168.1.5:80"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				echo(c)
			}
		}()
		c, err := b.inside.DialTCP(b.ctx, netip.AddrPort{}, netip.MustParseAddrPort("192.168.1.5:80"))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if !says(c, "to the dmz") {
			t.Errorf("round %d: no echo from the dmz", round)
		}
		// The level changes under it: the interface is another, the link is not.
		if err := b.configure(plainConfig + strings.Replace(dmz, "50", "60", 1)); err != nil {
			t.Fatal(err)
		}
		if opened.Load() != int64(round+1) || closed.Load() != int64(round) {
			t.Errorf("round %d: %d links opened and %d closed", round, opened.Load(), closed.Load())
		}
		if err := b.configure(plainConfig); err != nil {
			t.Fatal(err)
		}
		c.Close()
		h.Close()
	}
	if err := b.configure(plainConfig + strings.Replace(dmz, "0/2", "0/9", 1)); err == nil {
		t.Error("an interface that Open refuses: no error")
	}
}

// A closeCounter counts how often its link is closed.
type closeCounter struct {
	stack.Link
	n *atomic.Int64
}

func (c closeCounter) Close() error {
	c.n.Add(1)
	return c.Link.Close()
}

// Changes go in while packets flow, calls are inspected and others look.
func TestConfigureUnderLoad(t *testing.T) {
	b := startPlain(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	during := func(f func()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		}()
	}
	phone, server := b.udp(b.inside, plainPhone+":5060"), b.udp(b.outside, plainServer+":5060")
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(plainServer + ":5060"))
	during(func() {
		phone.WriteTo([]byte(invite("UDP", plainPhone+":5060")), to)
		time.Sleep(time.Millisecond)
	})
	during(func() {
		server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		server.ReadFrom(make([]byte, 2048))
	})
	during(func() {
		for _, line := range []string{"show conn", "show service-policy", "show nat", "show access-list", "show sip", "show interface", "show xlate"} {
			if err := b.app.Exec(io.Discard, line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
	texts := []string{
		plainConfig,
		plainConfig + permitWeb + "timeout sip 1:00:00\n",
		strings.Replace(plainConfig, "  inspect sip\n", "", 1),
		strings.Replace(plainConfig, "10.20.0.1 255.255.255.0", "10.20.0.2 255.255.255.0", 1),
	}
	for i := range 60 {
		if err := b.configure(texts[i%len(texts)]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
}
