//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"

	"patchbay/appliance/config"
	"patchbay/stack"
)

func TestProcessors(t *testing.T) {
	own := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(own)
	set := processors(own)
	for _, readers := range []int{3, 1, 0} {
		if set(readers); runtime.GOMAXPROCS(0) != own+readers {
			t.Errorf("with %d readers Go has %d processors, want %d", readers, runtime.GOMAXPROCS(0), own+readers)
		}
	}
}

// TestRunReaders: it is told of those who read a device, not of links that were
// named: of none whose device is yet to come or has gone, and of each queue.
func TestRunReaders(t *testing.T) {
	t.Parallel()
	n := newTestNet(t, overTUN) // for its namespace; the devices are made as they come
	l, err := newLinks([]string{"outside=packet:pbcount", "inside=auto:pbmany,queues=2", "dmz=tun:pbtun", "spare=packet:pbnone"})
	must(t, err)
	var readers atomic.Int64
	l.devices.OnReaders(func(n int) { readers.Store(int64(n)) })
	ended := make(chan error, 10)
	read := func(r stack.Reader) {
		go func() {
			ended <- func() error {
				runtime.LockOSThread() // for good: a device that comes is opened here
				h, err := netns.GetFromName(n.box)
				if err != nil {
					return err
				}
				defer h.Close()
				if err := netns.Set(h); err != nil {
					return err
				}
				batch := []*stack.Packet{stack.NewPacket(2048)}
				for {
					if _, err := r.Read(batch); err != nil {
						return err
					}
				}
			}()
		}()
	}
	wait := func(want int64, when string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d readers, %s", want, when), func() bool { return readers.Load() == want })
	}
	open := func(name string, patient bool) (opened stack.Link) {
		t.Helper()
		l.patient = patient
		n.within(t, n.box, func() (err error) {
			opened, err = l.open(&config.Interface{Name: name, Hardware: "hardware of " + name})
			return err
		})
		return opened
	}
	add := func(name string, more ...string) {
		t.Helper()
		args := append(append([]string{"-n", n.box, "link", "add", name}, more...), "type", "veth", "peer", "name", name+"p")
		mustIP(t, append(args, more...)...)
	}

	outside, spare, dmz := open("outside", true), open("spare", true), open("dmz", false)
	for _, r := range []stack.Reader{outside, spare, dmz} {
		read(r)
	}
	add("pbcount")
	wait(1, "as the first device is there")
	add("pbmany", "numrxqueues", "2", "numtxqueues", "2")
	inside := open("inside", false)
	queues := 0
	for _, r := range inside.(stack.Queued).Readers() {
		read(r)
		queues++
	}
	wait(1+int64(queues), "as each queue of the second is read")
	mustIP(t, "-n", n.box, "link", "del", "pbcount")
	wait(int64(queues), "as the first device is gone")
	add("pbcount")
	wait(1+int64(queues), "as it is back")
	must(t, inside.Close())
	wait(1, "as the second link is closed")
	for _, c := range []stack.Link{outside, spare, dmz} {
		must(t, c.Close())
	}
	wait(0, "as all are closed")
	for range 3 + queues {
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error("reading: ", err)
		}
	}
}

// TestRunNotes: a link that may come late says, too, why it is less than it was asked
// to be, also what it says before there is a log.
func TestRunNotes(t *testing.T) {
	t.Parallel()
	n := newTestNet(t, overPacket)
	l, err := newLinks([]string{"outside=auto:pbout", "inside=auto:pbin"})
	must(t, err)
	l.patient = true
	var text bytes.Buffer
	const tooLarge = 5000 // bytes; more than xdp: takes
	for i, name := range []string{"outside", "inside"} {
		n.within(t, n.box, func() error {
			opened, err := l.open(&config.Interface{Name: name, Hardware: "GigabitEthernet0/" + name, MTU: tooLarge})
			if err != nil {
				return err
			}
			return opened.Close()
		})
		if i == 0 {
			l.tell(new(config.Running), slog.New(slog.NewTextHandler(&text, nil)))
		}
		if s := text.String(); !strings.Contains(s, "interface=GigabitEthernet0/"+name) || !strings.Contains(s, "its MTU of 5000 is above 3498") {
			t.Errorf("%s: the log says %q", name, s)
		}
	}
}
