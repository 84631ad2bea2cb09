package link

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpf "github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

func TestParseXDP(t *testing.T) {
	tests := []struct {
		spec, device string
		conf         xdpConfig
		want         string // error
	}{
		{"eth0", "eth0", xdpConfig{}, ""},
		{"eth0,mode=native", "eth0", xdpConfig{mode: xdpNative}, ""},
		{"eth0,mode=generic,queues=2", "eth0", xdpConfig{mode: xdpGeneric, queues: 2}, ""},
		{"eth0,zerocopy", "eth0", xdpConfig{zeroCopy: true}, ""},
		{"eth0,", "", xdpConfig{}, `there is no option ""; there are mode=native, mode=generic, zerocopy and queues=N`},
		{"eth0,mode=fast", "", xdpConfig{}, `there is no option "mode=fast"; there are mode=native, mode=generic, zerocopy and queues=N`},
		{"eth0,queues=0", "", xdpConfig{}, `option "queues=0": want a number of queues from 1 to 64`},
		{"eth0,queues", "", xdpConfig{}, `option "queues": want a number of queues from 1 to 64`},
		{"eth0,queues=65", "", xdpConfig{}, `option "queues=65": want a number of queues from 1 to 64`},
		{"eth0,zerocopy,mode=generic", "", xdpConfig{}, `zerocopy is something that drivers do: it does not go with mode=generic`},
	}
	for _, tt := range tests {
		device, conf, err := parseXDP(tt.spec)
		if tt.want != "" {
			if err == nil || err.Error() != tt.want {
				t.Errorf("parseXDP(%q) = %v, want %s", tt.spec, err, tt.want)
			}
			continue
		}
		if err != nil || device != tt.device || conf != tt.conf {
			t.Errorf("parseXDP(%q) = %q, %+v, %v; want %q, %+v", tt.spec, device, conf, err, tt.device, tt.conf)
		}
	}
}

// FuzzOpenChecksum: what is taken for a checksum that is open is nothing but the
// sum of the pseudo-header (RFC 768), and no frame does harm.
func FuzzOpenChecksum(f *testing.F) {
	ends := stack.Flow{Src: netip.MustParseAddrPort("198.51.100.7:5000"), Dst: netip.MustParseAddrPort("203.0.113.1:69")}
	header := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
	ends.Proto = stack.UDP
	whole := stack.AppendUDP(bytes.Clone(header), ends, []byte("hello"))
	open := bytes.Clone(whole)
	copy(open[untagged+ipHeaderLen+udpSumAt:], pseudoSum(open[untagged:]))
	ends.Proto = stack.TCP
	segment := stack.AppendTCP(bytes.Clone(header), ends, stack.TCPHeader{Flags: stack.FlagSYN}, nil)
	openSegment := bytes.Clone(segment)
	copy(openSegment[untagged+ipHeaderLen+tcpSumAt:], pseudoSum(openSegment[untagged:]))
	tag := func(frame []byte) []byte {
		return append(append(bytes.Clone(frame[:12]), 0x81, 0, 0, 20), frame[12:]...)
	}
	for _, tt := range []struct {
		frame []byte
		want  bool
	}{
		{whole, false}, {open, true}, {segment, false}, {openSegment, true}, {tag(open), true}, {tag(whole), false},
		{open[:untagged+ipHeaderLen+6], false}, {open[:20], false}, {nil, false},
	} {
		if got := openChecksum(tt.frame); got != tt.want {
			f.Errorf("openChecksum(% x) = %v, want %v", tt.frame, got, tt.want)
		}
		f.Add(tt.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !openChecksum(frame) {
			return
		}
		ip := frame[untagged:]
		if frame[12] == 0x81 {
			ip = frame[tagged:]
		}
		at := map[byte]int{protoUDP: udpSumAt, protoTCP: tcpSumAt}[ip[ipProtoAt]] + ipHeaderLen
		if !bytes.Equal(ip[at:at+2], pseudoSum(ip)) {
			t.Errorf("openChecksum(% x), and the sum is % x", frame, pseudoSum(ip))
		}
	})
}

// pseudoSum is the sum of the pseudo-header of an IPv4 packet without options, in
// ones' complement, bit by bit of carry.
func pseudoSum(ip []byte) []byte {
	n := int(ip[2])<<8 + int(ip[3]) - ipHeaderLen
	words := []int{int(ip[ipProtoAt]), n}
	for i := ipSrcAt; i < ipHeaderLen; i += 2 {
		words = append(words, int(ip[i])<<8+int(ip[i+1]))
	}
	sum := 0
	for _, w := range words {
		if sum += w; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return []byte{byte(sum >> 8), byte(sum)}
}

func TestXDPRefuses(t *testing.T) {
	ns := namespaces(t, 1)
	veth(t, ns[1])
	for _, tt := range []struct {
		name string
		opt  Options
		want string
	}{
		{"xdp:nosuch0", Options{}, `link: opening "xdp:nosuch0": there is no device nosuch0`},
		{"xdp:lo", Options{}, "lo is no Ethernet device"},
		{"xdp:pb0", Options{MTU: 3499}, "its MTU of 3499 is above 3498, the most that fits in a frame of AF_XDP; choose one, or open it as packet:pb0"},
		{"xdp:pb0,queues=64", Options{}, " queues, not 64"},
		{"xdp:pb0,zerocopy", Options{}, "zero-copy: "},
		{"auto:nosuch0", Options{}, `link: opening "auto:nosuch0": there is no device nosuch0`},
		{"auto:pb0,mode=fast", Options{}, `there is no option "mode=fast"`},
	} {
		if l, err := Open(tt.name, tt.opt); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%q, MTU %d) = %v, %v; want %s", tt.name, tt.opt.MTU, l, err, tt.want)
		}
	}
	if f := device(t, "pb0").Attrs().RawFlags; f&unix.IFF_NOARP != 0 || f&unix.IFF_UP != 0 {
		t.Errorf("the refused device has flags %#x", f)
	}
	checkNoProgram(t)
}

// TestXDPForeign: a device that has somebody else's program is left to him; with
// auto: packets are to be had all the same.
func TestXDPForeign(t *testing.T) {
	ns := namespaces(t, 1)
	veth(t, ns[1])
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "their_filter", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Skip("needs eBPF: ", err)
	}
	defer foreign.Close()
	must(t, netlink.LinkSetXdpFdWithFlags(device(t, "pb0"), foreign.FD(), unix.XDP_FLAGS_SKB_MODE))
	const want = `the device has an XDP program of somebody else, "their_filter" (id `
	if l, err := Open("xdp:pb0", Options{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Open = %v, %v; want %s", l, err, want)
	}
	if x := device(t, "pb0").Attrs().Xdp; x == nil || !x.Attached {
		t.Error("the program of somebody else is gone")
	}
	l := open(t, "auto:pb0", Options{}).(*Ethernet)
	if note := l.Note(); l.Driver() != "packet:pb0" || note == nil || !strings.Contains(note.Error(), "xdp: "+want) {
		t.Errorf("auto: opened %s, because %v; want packet:pb0, because %s", l.Driver(), note, want)
	}
	must(t, l.Close())
	must(t, netlink.LinkSetXdpFdWithFlags(device(t, "pb0"), -1, unix.XDP_FLAGS_SKB_MODE))
	l = open(t, "auto:pb0", Options{}).(*Ethernet)
	if l.Driver() != "xdp:pb0" || l.Note() != nil || l.Mode() != "native, copy, 1 queue" {
		t.Errorf("auto: opened %s, %q, because %v; want xdp:pb0", l.Driver(), l.Mode(), l.Note())
	}
	must(t, l.Close())
	// Nor is a queue to be had of which somebody else has the socket.
	q, err := newXDPQueue(device(t, "pb0").Attrs().Index, 0, minSlot, false)
	must(t, err)
	if l, err := Open("xdp:pb0", Options{}); err == nil || !strings.Contains(err.Error(), "another program has the queue") {
		t.Errorf("Open = %v, %v; want another program has the queue", l, err)
	}
	must(t, q.close())
	checkNoProgram(t)
}

// TestXDPStays: a program of ours that somebody keeps is not called another's.
func TestXDPStays(t *testing.T) {
	ns := namespaces(t, 1)
	veth(t, ns[1])
	ours, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: xdpName, Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}})
	if err != nil {
		t.Skip("needs eBPF: ", err)
	}
	defer ours.Close()
	kept, err := bpf.AttachXDP(bpf.XDPOptions{Program: ours, Interface: device(t, "pb0").Attrs().Index, Flags: bpf.XDPGenericMode})
	if err != nil {
		t.Skip("needs XDP programs attached as links: ", err)
	}
	defer kept.Close()
	const want = "the device has the XDP program of a box that ended or is about to"
	if l, err := Open("xdp:pb0", Options{}); err == nil || !errors.Is(err, unix.EAFNOSUPPORT) && !strings.Contains(err.Error(), want) {
		t.Errorf("Open = %v, %v; want %s", l, err, want)
	}
	must(t, kept.Close())
	must(t, open(t, "xdp:pb0", Options{}).Close())
}

// crashChild in the environment has TestXDPCrashChild hold a device.
const crashChild = "PATCHBAY_XDP_CHILD"

// TestXDPCrashChild is the process that TestXDPCrash kills.
func TestXDPCrashChild(t *testing.T) {
	how := os.Getenv(crashChild)
	if how == "" {
		t.Skip("is for TestXDPCrash to run")
	}
	conf := xdpConfig{oldAttach: strings.HasPrefix(how, "netlink"), mode: xdpNative}
	if strings.HasSuffix(how, "generic") {
		conf.mode = xdpGeneric
	}
	d, err := newXDPDevice(new(trunks), "pb0", conf, Options{})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	defer d.Close()
	fmt.Println("open")
	time.Sleep(time.Minute) // its parent kills it
}

// TestXDPCrash: who dies with a device leaves it to the next, and a program that
// stays behind, as on old kernels, is replaced.
func TestXDPCrash(t *testing.T) {
	for _, tt := range []struct{ how, next string }{
		{"link native", "native"}, {"link generic", "generic"}, {"link generic", "native"},
		{"netlink native", "native"}, {"netlink generic", "generic"}, {"netlink generic", "native"}, {"netlink native", "generic"},
	} {
		how := tt.how
		t.Run(how+", then "+tt.next, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			child := exec.Command(os.Args[0], "-test.run=^TestXDPCrashChild$", "-test.v")
			child.Env = append(os.Environ(), crashChild+"="+how)
			child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := child.StdoutPipe()
			must(t, err)
			must(t, child.Start()) // in the namespace of this thread
			defer child.Wait()
			defer child.Process.Kill()
			said := bufio.NewScanner(out)
			for said.Scan() && said.Text() != "open" {
				if strings.HasPrefix(said.Text(), "error:") {
					if strings.Contains(said.Text(), "no AF_XDP") {
						t.Skip("needs AF_XDP: ", said.Text())
					}
					t.Fatal(said.Text())
				}
			}
			if x := device(t, "pb0").Attrs().Xdp; x == nil || !x.Attached {
				t.Fatal("the child has attached no program")
			}
			must(t, child.Process.Kill())
			child.Wait()
			if x := device(t, "pb0").Attrs().Xdp; strings.HasPrefix(how, "netlink") && (x == nil || !x.Attached) {
				t.Fatal("the program of the child is gone, so its replacement would prove nothing")
			}
			l := open(t, "xdp:pb0,mode="+tt.next, Options{}).(*Ethernet)
			if !strings.HasPrefix(l.Mode(), tt.next) {
				t.Errorf("Mode = %s, want %s", l.Mode(), tt.next)
			}
			l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
			r := read(l)
			c := peerUDP(t, ns[1])
			defer c.Close()
			arrives(t, c, r, "x")
			must(t, l.Close())
			checkNoProgram(t)
		})
	}
}

// TestXDPLong: packets as long as there may be pass whole, either way.
func TestXDPLong(t *testing.T) {
	for _, d := range deviceDrivers[1:] {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			within(t, ns[1], func() { must(t, netlink.LinkSetMTU(device(t, "peer0"), MaxXDPMTU)) })
			l := open(t, d.before+"pb0"+d.after, Options{MTU: MaxXDPMTU}).(*Ethernet)
			l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
			got := make(chan int, 100)
			go func() {
				batch := []*stack.Packet{stack.NewPacket(MaxXDPMTU)}
				for {
					n, err := l.Read(batch)
					if n == 1 && batch[0].Parse() == stack.Forward && batch[0].Flow().Proto == stack.UDP {
						got <- batch[0].Len()
					}
					if err != nil {
						return
					}
				}
			}()
			c := peerUDP(t, ns[1])
			defer c.Close()
			for late := time.Now().Add(patience); ; { // until the peer's device is up it drops
				_, err := c.WriteTo(make([]byte, MaxXDPMTU-28), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
				must(t, err)
				select {
				case n := <-got:
					if n != MaxXDPMTU {
						t.Errorf("a packet of %d bytes arrives, want %d", n, MaxXDPMTU)
					}
				case <-time.After(20 * time.Millisecond):
					if time.Now().After(late) {
						t.Fatal("nothing arrives")
					}
					continue
				}
				break
			}
			to := c.LocalAddr().(*net.UDPAddr).AddrPort()
			f := stack.Flow{Src: netip.MustParseAddrPort(ipBox + ":69"), Dst: netip.AddrPortFrom(to.Addr().Unmap(), to.Port())}
			p := stack.NewPacket(MaxXDPMTU)
			p.SetData(stack.AppendUDP(nil, f, make([]byte, MaxXDPMTU-28)))
			must(t, l.Write([]*stack.Packet{p}))
			buf := make([]byte, 4096)
			must(t, c.SetReadDeadline(time.Now().Add(patience)))
			if n, _, err := c.ReadFrom(buf); err != nil || n != MaxXDPMTU-28 {
				t.Errorf("the peer gets %d bytes, %v; want %d", n, err, MaxXDPMTU-28)
			}
		})
	}
}

// TestXDPRunts: frames that are no frames, and such as are too long, do no harm.
func TestXDPRunts(t *testing.T) {
	for _, d := range deviceDrivers[1:] {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			veth(t, ns[1])
			var raw int
			within(t, ns[1], func() {
				var err error
				raw, err = packetSocket()
				must(t, err)
				must(t, bind(raw, device(t, "peer0").Attrs().Index, 0))
			})
			defer unix.Close(raw)
			l := open(t, d.before+"pb0"+d.after, Options{}).(*Ethernet)
			l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
			r := read(l)
			c := peerUDP(t, ns[1])
			defer c.Close()
			// Until the peer knows that its device is up it drops without a word.
			for up := false; !up; {
				_, err := c.WriteTo([]byte("up"), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 68})
				must(t, err)
				select {
				case <-r.packets:
					<-r.vouched
					up = true
				case <-time.After(10 * time.Millisecond):
				}
			}
			mac := l.MAC()
			sent := uint64(0)
			for n := 1; n <= 1518; n += 1 + n/16 {
				f := make([]byte, n)
				copy(f, mac[:])
				if n > 13 {
					f[12] = 0x08
				}
				switch _, err := unix.Write(raw, f); {
				case err == nil:
					sent++
				case n >= untagged: // the kernel itself sends nothing shorter
					t.Fatalf("sending %d bytes: %v", n, err)
				}
			}
			// Datagrams in one piece, for a device to cut: veth does not.
			fd, err := c.SyscallConn()
			must(t, err)
			must(t, fd.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) }))
			must(t, err)
			_, err = c.WriteTo(make([]byte, 10_000), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
			must(t, err)
			_, err = c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
			must(t, err)
			got := make(map[int]int)                                      // datagrams by bytes
			for got[1] == 0 || d.name == "xdp native" && got[1000] < 10 { // there the peer cuts them
				p, _ := r.next(t, stack.UDP)
				got[len(p.Payload())]++
			}
			known := func() (n uint64) {
				s := l.Stats()
				for _, n := range s.Drops {
					s.InPackets += n
				}
				return s.InPackets
			}
			for late := time.Now().Add(patience); known() < sent && time.Now().Before(late); time.Sleep(time.Millisecond) {
			} // they may have come by another queue
			s := l.Stats()
			if known() < sent || d.name == "xdp generic" && s.Drops[Oversize] == 0 {
				t.Errorf("%d frames were sent, and of %d is known what became: %+v", sent, known(), s)
			}
		})
	}
}

// TestXDPLeavesPlaces: a link that closes with its ring full of frames that nobody
// read takes none of the places along that the others on the device receive into.
func TestXDPLeavesPlaces(t *testing.T) {
	for _, d := range deviceDrivers[1:] {
		for _, tt := range []struct{ leaves, stays uint16 }{{20, 0}, {0, 20}, {20, 30}} {
			t.Run(fmt.Sprint(d.name, ", VLAN ", tt.leaves, " leaves ", tt.stays), func(t *testing.T) {
				ns := namespaces(t, 1)
				veth(t, ns[1])
				name := d.before + "pb0" + d.after
				open(t, name, Options{}).Close() // skips
				var raw int
				within(t, ns[1], func() {
					var err error
					raw, err = packetSocket()
					must(t, err)
					must(t, unix.SetsockoptInt(raw, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
					must(t, bind(raw, device(t, "peer0").Attrs().Index, 0))
				})
				defer unix.Close(raw)
				var devices Devices
				link := func(vlan uint16) *Ethernet {
					l, err := devices.Open(name, Options{VLAN: vlan})
					must(t, err)
					t.Cleanup(func() { l.Close() })
					l.(*Ethernet).SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
					return l.(*Ethernet)
				}
				frame := func(vlan uint16) []byte {
					f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(ipPeer + ":5000"), Dst: netip.MustParseAddrPort(ipBox + ":69")}
					mac := MAC(device(t, "pb0").Attrs().HardwareAddr)
					b := append(append([]byte{}, mac[:]...), 2, 0, 0, 0, 0, 9)
					if vlan != 0 {
						b = append(b, 0x81, 0, 0, byte(vlan))
					}
					return stack.AppendUDP(append(b, 8, 0), f, []byte("x"))
				}
				leaver, stayer := link(tt.leaves), link(tt.stays)
				full := func() (n uint64) {
					for _, q := range leaver.QueueStats() {
						n += q.FillEmpty + q.RingFull
					}
					return n
				}
				for late := time.Now().Add(patience); full() == 0; {
					if time.Now().After(late) {
						t.Fatal("the ring does not fill up")
					}
					for range 256 { // until the device is up it drops
						_, _ = unix.Write(raw, frame(tt.leaves))
					}
				}
				must(t, leaver.Close())
				r := read(stayer)
				for late := time.Now().Add(patience); ; {
					_, _ = unix.Write(raw, frame(tt.stays))
					select {
					case <-r.packets:
						must(t, stayer.Close())
						return
					case <-time.After(time.Millisecond):
					}
					if time.Now().After(late) {
						t.Fatalf("nothing arrives: %+v", stayer.QueueStats())
					}
				}
			})
		}
	}
}

// TestLeave: who may not have a device is told what it needs, and the device is
// as it was.
func TestLeave(t *testing.T) {
	const root = "this needs root, or the capabilities "
	var may unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_MEMLOCK, &may))
	must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 16, Max: may.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &may)) }()
	for _, tt := range []struct {
		name string
		caps []int // that are left
		want string
	}{
		{"xdp:pb0", nil, "opening an AF_XDP socket: operation not permitted: " + root},
		{"packet:pb0", nil, "opening a packet socket: operation not permitted: " + root},
		{"auto:pb0", nil, "opening a packet socket: operation not permitted: " + root},
		{"xdp:pb0", []int{unix.CAP_NET_RAW}, "adding the clsact queue: operation not permitted: " + root},
		{"xdp:pb0", []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_BPF}, "no buffer space available: they are more than this process may lock; raise RLIMIT_MEMLOCK"},
		{"xdp:pb0", []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_IPC_LOCK}, ""},
		{"packet:pb0", []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN, unix.CAP_BPF}, ""},
	} {
		t.Run(fmt.Sprint(tt.name, tt.caps), func(t *testing.T) {
			ns := namespaces(t, 1) // its thread is this test's alone
			veth(t, ns[1])
			before := device(t, "pb0").Attrs().RawFlags
			var was [2]unix.CapUserData
			version := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			must(t, unix.Capget(&version, &was[0]))
			left := was
			left[0].Effective, left[1].Effective = 0, 0
			for _, c := range tt.caps {
				left[c/32].Effective |= 1 << (c % 32)
			}
			must(t, unix.Capset(&version, &left[0]))
			l, err := Open(tt.name, Options{})
			must(t, unix.Capset(&version, &was[0]))
			if errors.Is(err, unix.EAFNOSUPPORT) {
				t.Skip("needs packet sockets, or AF_XDP: ", err)
			}
			switch {
			case tt.want == "":
				must(t, err)
				must(t, l.Close())
			case err == nil || !strings.Contains(err.Error(), tt.want) || strings.Count(err.Error(), root) > 1:
				t.Errorf("Open = %v, %v; want %s", l, err, tt.want)
			}
			if f := device(t, "pb0").Attrs().RawFlags; f != before || deaf(t) {
				t.Errorf("the device has flags %#x, before %#x; deaf %v", f, before, deaf(t))
			}
			checkNoProgram(t)
		})
	}
}

// setQueues gives a veth so many queues each way, as ethtool -L does.
func setQueues(t *testing.T, name string, n int) error {
	t.Helper()
	c := queuesOf(t, name).with(n)
	return askQueues(t, name, &c)
}

func queuesOf(t *testing.T, name string) channels {
	t.Helper()
	c := channels{cmd: unix.ETHTOOL_GCHANNELS}
	must(t, askQueues(t, name, &c))
	return c
}

func askQueues(t *testing.T, name string, c *channels) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	return deviceControl(fd, name, unsafe.Pointer(c))
}

// TestXDPQueueChange: the kernel lets nobody take a queue away that is read; what
// comes by one that the device is given is counted, and the link goes on.
func TestXDPQueueChange(t *testing.T) {
	for _, d := range deviceDrivers[1:] {
		t.Run(d.name, func(t *testing.T) {
			ns := namespaces(t, 1)
			must(t, netlink.LinkAdd(&netlink.Veth{PeerName: "peer0", PeerNumRxQueues: 4, PeerNumTxQueues: 4,
				LinkAttrs: netlink.LinkAttrs{Name: "pb0", NumRxQueues: 4, NumTxQueues: 4}}))
			must(t, netlink.LinkSetNsFd(device(t, "peer0"), int(ns[1])))
			within(t, ns[1], func() {
				addAddr(t, "peer0", ipPeer+"/24")
				must(t, netlink.LinkSetUp(device(t, "peer0")))
			})
			must(t, setQueues(t, "pb0", 4))
			name := d.before + "pb0" + d.after + ",queues=2"
			within(t, ns[1], func() { must(t, setQueues(t, "peer0", 4)) })
			if strings.Contains(name, "native") {
				if l, err := Open(name, Options{}); err == nil || !errors.Is(err, unix.EAFNOSUPPORT) && !strings.Contains(err.Error(), "as many receive queues as its peer has to send") {
					t.Errorf("Open with too many queues at the peer = %v, %v", l, err)
				}
			}
			within(t, ns[1], func() { must(t, setQueues(t, "peer0", 2)) })
			l := open(t, name, Options{}).(*Ethernet)
			l.SetAddrs(netip.MustParsePrefix(ipBox+"/24"), nil)
			if !strings.HasSuffix(l.Mode(), "2 queues") {
				t.Fatalf("Mode = %s, want 2 queues", l.Mode())
			}
			r := read(l)
			if err := setQueues(t, "pb0", 1); err == nil {
				t.Error("a queue can be taken away from the link")
			}
			must(t, setQueues(t, "pb0", 4))
			within(t, ns[1], func() { must(t, setQueues(t, "peer0", 4)) })
			others := func() uint64 { return l.Stats().Drops[OtherQueue] }
			// veth does not run the program on queues that it was given after it.
			for late := time.Now().Add(patience); others() == 0 && d.name == "xdp generic"; {
				for len(r.packets) > 0 {
					<-r.packets
					<-r.vouched
				}
				c := peerUDP(t, ns[1]) // each a flow of its own
				_, _ = c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(ipBox), Port: 69})
				must(t, c.Close())
				if time.Now().After(late) {
					t.Fatalf("what comes by a queue that is not read is not counted: %+v, %+v", l.Stats(), l.QueueStats())
				}
			}
			c := peerUDP(t, ns[1])
			defer c.Close()
			within(t, ns[1], func() { must(t, setQueues(t, "peer0", 2)) })
			arrives(t, c, r, "again")
			was := others()
			must(t, l.Close())
			if n := others(); n < was {
				t.Errorf("%d frames are counted once the link is closed, before it were %d", n, was)
			}
		})
	}
}

// TestXDPQueuesBack: a device that was given queues for a link has what it had
// before when that is closed, though the kernel keeps them for a moment.
func TestXDPQueuesBack(t *testing.T) {
	ns := namespaces(t, 1)
	must(t, netlink.LinkAdd(&netlink.Veth{PeerName: "peer0", PeerNumRxQueues: 4, PeerNumTxQueues: 4,
		LinkAttrs: netlink.LinkAttrs{Name: "pb0", NumRxQueues: 4, NumTxQueues: 4}}))
	must(t, netlink.LinkSetNsFd(device(t, "peer0"), int(ns[1])))
	for _, queues := range []struct{ had, want int }{{1, 3}, {3, 1}} {
		must(t, setQueues(t, "pb0", queues.had))
		before := queuesOf(t, "pb0")
		l := open(t, fmt.Sprintf("xdp:pb0,mode=generic,queues=%d", queues.want), Options{})
		if got := queuesOf(t, "pb0"); got.receive() != queues.want {
			t.Errorf("the device has %d queues, want %d", got.receive(), queues.want)
		}
		must(t, l.Close())
		if got := queuesOf(t, "pb0"); got != before {
			t.Errorf("after the link is closed the queues are %+v, want %+v", got, before)
		}
	}
}
