//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// queueLine is what "show interface" says of each queue.
var queueLine = regexp.MustCompile(`Queue (\d): (\d+) frames input, (\d+) output`)

// TestXDPQueues has many flows pass a box with two queues on each link: both are
// used, each flow keeps its order, and all of them come through, both ways. Then
// the box is killed: nothing of it stays on the devices, and another can begin.
func TestXDPQueues(t *testing.T) {
	const flows, each = 64, 30
	n := newTestNet(t, overQueues)
	flash := filepath.Join(t.TempDir(), "flash")
	b := n.start(t, startOptions{flash: flash, level: "info"})
	far, desk := n.host(t, n.out, phoneAddr), n.host(t, n.in, deskAddr)
	server, err := far.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer server.Close()
	go func() { // returns what it gets
		buf := make([]byte, 100)
		for {
			k, who, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(buf[:k], who)
		}
	}()
	for i := range flows {
		c, err := desk.ListenUDP(netip.AddrPort{})
		must(t, err)
		exchange(t, i, c, server.LocalAddr(), each)
		must(t, c.Close())
	}
	show, err := patchbay(t, "exec", "--flash", flash, "show", "interface")
	must(t, err)
	for _, want := range []string{"Hardware is xdp:pbout, native, copy, 2 queues", "Hardware is xdp:pbin, native, copy, 2 queues"} {
		if !strings.Contains(show, want) {
			t.Errorf("show interface does not say %q:\n%s", want, show)
		}
	}
	lines := queueLine.FindAllStringSubmatch(show, -1)
	if len(lines) != 4 {
		t.Fatalf("show interface has %d queues, want two of each link:\n%s", len(lines), show)
	}
	for _, l := range lines {
		for _, count := range l[2:] {
			if k, err := strconv.Atoi(count); err != nil || k < each {
				t.Errorf("a queue is not used: %s", l[0])
			}
		}
	}

	must(t, b.cmd.Process.Kill())
	<-b.exited
	b.err = nil // as it was meant
	eventually(t, "the killed box's programs are gone", func() bool {
		out, err := ipCommand("-n", n.box, "-details", "link", "show")
		must(t, err)
		return !strings.Contains(out, "xdp")
	})
	b = n.start(t, startOptions{flash: flash, level: "info"})
	c, err := desk.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer c.Close()
	exchange(t, flows, c, server.LocalAddr(), 1)
	b.stop(t)
	if out, err := ipCommand("-n", n.box, "-details", "link", "show"); err != nil || strings.Contains(out, "xdp") {
		t.Errorf("after the box ended: %v\n%s", err, out)
	}
}

// exchange sends numbered datagrams of a flow at once and waits for them to come
// back in order. Some may be lost, the last is sent until it comes.
func exchange(t *testing.T, flow int, c net.PacketConn, to net.Addr, each int) {
	t.Helper()
	for k := range each {
		_, err := c.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(k)), to)
		must(t, err)
	}
	var buf [100]byte
	late, last := time.Now().Add(patience), -1
	for last != each-1 {
		must(t, c.SetReadDeadline(time.Now().Add(time.Second)))
		n, _, err := c.ReadFrom(buf[:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(late):
			_, err := c.WriteTo(binary.BigEndian.AppendUint32(nil, uint32(each-1)), to)
			must(t, err)
			continue
		case err != nil:
			t.Fatalf("flow %d: after %d: %v", flow, last, err)
		}
		k := int(binary.BigEndian.Uint32(buf[:n]))
		if k <= last {
			t.Fatalf("flow %d: %d came after %d", flow, k, last)
		}
		last = k
	}
}
