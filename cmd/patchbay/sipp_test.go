//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"patchbay/stack"
)

var (
	sippFor  = flag.Duration("sipp.for", 2*time.Second, "how long SIPp begins calls")
	sippRate = flag.Int("sipp.rate", 50, "calls that SIPp begins in a second")
)

// The media of SIPp's calls: a stretch of RTP whenever a scenario plays, to a
// port for each call and stage. (testdata/sipp.)
const (
	sippMedia  = 20_000 // where the ports begin, on both sides
	sippPorts  = 4      // of each call: RTP and RTCP before the media moves, and after
	sippStages = 2      // before and after
	sippVoice  = 5      // packets in a stretch
)

// sippTransports are SIPp's names for them.
var sippTransports = []struct{ name, t string }{
	{"UDP, a socket for all calls", "u1"},
	{"UDP, a socket for each", "un"},
	{"TCP, a connection for all calls", "t1"},
	{"TCP, a connection for each", "tn"},
}

// TestSIPp has SIPp call from inside, through dynamic PAT and the plain "inspect
// sip", a SIPp outside: with early media, hold and a re-INVITE that moves the
// media. No call may fail, and in each the media must arrive in both directions
// before and after it moved. With -compare the kernel does the same.
func TestSIPp(t *testing.T) {
	for _, tr := range sippTransports {
		t.Run(tr.name, func(t *testing.T) {
			needs(t, "sip-tester (sipp)")
			var box, base, kernel *sippResult
			t.Run("box", func(t *testing.T) {
				n := newTestNet(t, overPacket)
				b := n.start(t, startOptions{config: sippConfig(t), level: "info"})
				box = n.sipp(t, tr.t, b.cmd.Process.Pid)
				box.check(t, boxAddr)
			})
			if !*compare {
				return
			}
			t.Run("kernel without NAT", func(t *testing.T) {
				n := newTestNet(t, overPacket)
				n.kernelForwards(t)
				mustIP(t, "-n", n.out, "route", "add", "10.20.0.0/24", "via", boxAddr.String())
				base = n.sipp(t, tr.t, 0)
				for _, problem := range base.judge(t, deskAddr) {
					t.Log(problem) // nor are SIPp and this machine
				}
			})
			t.Run("kernel", func(t *testing.T) {
				n := newTestNet(t, overPacket)
				n.kernelForwards(t)
				n.kernelInspects(t)
				kernel = n.sipp(t, tr.t, 0)
				for _, problem := range kernel.judge(t, boxAddr) {
					t.Log(problem) // the kernel is not on trial
				}
			})
			if box != nil && base != nil && kernel != nil {
				t.Logf("CPU of a call: without NAT %v, in the kernel %v, here %v", base.cpu(), kernel.cpu(), box.cpu())
			}
		})
	}
}

// sippConfig is the demo without its phone proxy, and with the policy that an
// ASA has by itself.
func sippConfig(t testing.TB) string {
	t.Helper()
	const head = "crypto key generate"
	text, _, ok := strings.Cut(string(demoConfig), head)
	if !ok {
		t.Fatalf("demo.cfg has no %q", head)
	}
	return text + `class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  inspect sip
  inspect skinny
  inspect tftp
service-policy global_policy global
`
}

// kernelForwards has the kernel route in place of the box, without NAT.
func (n *testNet) kernelForwards(t testing.TB) {
	t.Helper()
	for dev, a := range map[string]string{"pbout": boxAddr.String(), "pbin": boxInside.String()} {
		mustIP(t, "-n", n.box, "addr", "add", a+"/24", "dev", dev)
		mustIP(t, "-n", n.box, "link", "set", dev, "up")
		n.sysctl(t, n.box, "ipv6/conf/"+dev+"/disable_ipv6", "1")
	}
	mustIP(t, "-n", n.box, "route", "add", "default", "via", gateway.String())
	n.sysctl(t, n.box, "ipv4/ip_forward", "1")
}

// kernelInspects has the kernel do PAT and look into SIP.
func (n *testNet) kernelInspects(t testing.TB) {
	t.Helper()
	needs(t, "nftables (nft)")
	if out, err := n.run(patience, n.box, "nft", `
add table ip sipp
add ct helper ip sipp sip_udp { type "sip" protocol udp; }
add ct helper ip sipp sip_tcp { type "sip" protocol tcp; }
add chain ip sipp look { type filter hook prerouting priority 0; }
add rule ip sipp look udp dport 5060 ct helper set "sip_udp"
add rule ip sipp look tcp dport 5060 ct helper set "sip_tcp"
add chain ip sipp nat { type nat hook postrouting priority 100; }
add rule ip sipp nat oifname "pbout" masquerade`); err != nil {
		t.Skipf("needs nf_conntrack_sip and NAT by nftables in the kernel: %v: %s", err, out)
	}
}

// A sippResult is what came of a run.
type sippResult struct {
	calls      int
	ok, failed int
	problems   string // what SIPp says went wrong
	in, out    sippHeard
	spent      time.Duration // CPU of SIPp, of the box and of the kernel's own threads
	box        time.Duration // of the box alone
	took       time.Duration
}

// cpu is what each call cost, on all sides together: with veth the sender's
// time pays for the way to the next program.
func (r *sippResult) cpu() time.Duration { return r.spent / time.Duration(r.calls) }

// A sippHeard is the media that arrived at one side. It is hear's until that is
// told to stop.
type sippHeard struct {
	packets map[uint16]int // by port
	from    map[netip.Addr]int
}

// check sees that no call failed, and that each was heard on both sides, by
// those outside from the address seen.
func (r *sippResult) check(t testing.TB, seen netip.Addr) {
	t.Helper()
	for _, problem := range r.judge(t, seen) {
		t.Error(problem)
	}
}

// judge is check that only tells.
func (r *sippResult) judge(t testing.TB, seen netip.Addr) (problems []string) {
	t.Helper()
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if r.failed > 0 || r.ok != r.calls {
		bad("%d calls: %d went well, %d failed\n%s", r.calls, r.ok, r.failed, tail(r.problems, 3000))
	}
	for _, side := range []struct {
		name string
		h    *sippHeard
		from netip.Addr
	}{{"inside", &r.in, phoneAddr}, {"outside", &r.out, seen}} {
		heard, silent := 0, [sippStages]int{}
		for call := range r.calls {
			for stage := range sippStages {
				k := side.h.packets[uint16(sippMedia+call*sippPorts+stage*2)]
				heard += k
				if k == 0 {
					silent[stage]++
				}
			}
		}
		want := r.calls * sippStages * sippVoice
		if silent != [sippStages]int{} || heard < want*99/100 {
			bad("%s: in %d calls the media was not heard before, in %d not after it moved; of %d packets %d arrived",
				side.name, silent[0], silent[1], want, heard)
		}
		for a, k := range side.h.from {
			if a != side.from {
				bad("%s: %d media packets are from %v, want all from %v", side.name, k, a, side.from)
			}
		}
		t.Logf("%s: heard %d of %d media packets", side.name, heard, want)
	}
	t.Logf("%d calls in %v, %.1f/s, %d failed, CPU of a call %v, of it the box %v", r.calls, r.took.Round(time.Millisecond),
		float64(r.calls)/r.took.Seconds(), r.failed, r.cpu(), r.box/time.Duration(r.calls))
	return problems
}

// sipp makes the calls. pid is the box's, or 0.
func (n *testNet) sipp(t testing.TB, transport string, pid int) *sippResult {
	t.Helper()
	r := &sippResult{calls: int(sippFor.Seconds() * float64(*sippRate))}
	dir := t.TempDir() // SIPp looks for what it plays beside its scenario
	must(t, os.CopyFS(dir, os.DirFS("testdata/sipp")))
	writeVoice(t, filepath.Join(dir, "voice.pcap"))
	for _, ns := range []string{n.in, n.out} {
		n.sysctl(t, ns, "ipv4/icmp_ratelimit", "3600000") // nothing listens where the media arrives
	}
	stopIn, stopOut := n.hear(t, n.in, &r.in), n.hear(t, n.out, &r.out)

	ctx, cancel := context.WithTimeout(context.Background(), *sippFor+30*time.Second)
	defer cancel()
	var said [2]bytes.Buffer
	side := func(i int, ns string, addr netip.Addr, args ...string) *exec.Cmd {
		c := n.command(ctx, ns, "sipp", append(args, "-i", addr.String(), "-mi", addr.String(),
			"-mp", strconv.Itoa(sippMedia), "-m", strconv.Itoa(r.calls), "-nostdin", "-max_socket", "10000",
			"-trace_err", "-error_file", fmt.Sprint(i, ".err"),
			"-trace_stat", "-stf", fmt.Sprint(i, ".csv"), "-fd", "1")...)
		c.Dir, c.Stdout, c.Stderr = dir, &said[i], &said[i]
		return c
	}
	called := side(0, n.out, phoneAddr, "-sf", "uas.xml", "-p", "5060", "-t", transport[:1]+"1")
	caller := side(1, n.in, deskAddr, "-sf", "uac.xml", "-t", transport,
		"-r", strconv.Itoa(*sippRate), "-recv_timeout", "8000", netip.AddrPortFrom(phoneAddr, 5060).String())

	box, spent := cpuTime(t, pid), kernelThreads(t)
	ended := [2]chan error{make(chan error, 1), make(chan error, 1)}
	must(t, startDying(called, func(err error) { ended[0] <- err }))
	n.awaitListener(t, n.out, map[byte]string{'u': "udp", 't': "tcp"}[transport[0]], 5060)
	began := time.Now()
	must(t, startDying(caller, func(err error) { ended[1] <- err }))
	callerErr := <-ended[1]
	r.took = time.Since(began)
	// Who is called goes when it has seen all calls end; of one that failed it
	// may never.
	if callerErr != nil {
		called.Process.Signal(syscall.SIGTERM)
	}
	calledErr := <-ended[0]
	stopIn()
	stopOut()
	r.box = cpuTime(t, pid) - box
	r.spent = r.box + kernelThreads(t) - spent + called.ProcessState.SystemTime() + called.ProcessState.UserTime() +
		caller.ProcessState.SystemTime() + caller.ProcessState.UserTime()

	r.ok, r.failed = sippStat(filepath.Join(dir, "1.csv"))
	for i, err := range []error{calledErr, callerErr} {
		if err != nil {
			text, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint(i, ".err"))) // there if it has something to say
			r.problems += fmt.Sprintf("%s: %v\n%s\n%s\n", []string{"called", "caller"}[i], err, tail(string(text), 1500), tail(said[i].String(), 1500))
		}
	}
	if calledErr != nil && r.failed == 0 {
		t.Errorf("the called side ended with %v", calledErr)
	}
	return r
}

// awaitListener waits until something in the namespace listens at the port of
// "udp" or "tcp".
func (n *testNet) awaitListener(t testing.TB, ns, transport string, port uint16) {
	t.Helper()
	// Local address and port, a remote one of zeros, and the state: TCP_LISTEN
	// and TCP_CLOSE of the kernel's tcp_states.h.
	state := map[string]string{"tcp": "0A", "udp": "07"}[transport]
	listens := regexp.MustCompile(fmt.Sprintf(`:%04X 0+:0000 %s `, port, state))
	eventually(t, fmt.Sprintf("something listens at %s port %d", transport, port), func() (up bool) {
		n.within(t, ns, func() error {
			text, err := os.ReadFile("/proc/thread-self/net/" + transport)
			up = listens.Match(text)
			return err
		})
		return up
	})
}

// sippStat reads how many calls went well and failed, from the last line of
// SIPp's statistics; none if SIPp did not come to write any.
func sippStat(file string) (ok, failed int) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = ';', -1, true
	all, err := r.ReadAll()
	if err != nil || len(all) < 2 {
		return 0, 0
	}
	last := all[len(all)-1]
	column := func(name string) int {
		i := slices.Index(all[0], name)
		if i < 0 || i >= len(last) {
			return 0
		}
		n, _ := strconv.Atoi(last[i])
		return n
	}
	return column("SuccessfulCall(C)"), column("FailedCall(C)")
}

// hear counts the RTP packets that reach the hosts of a namespace, until it is
// told to stop.
func (n *testNet) hear(t testing.TB, ns string, h *sippHeard) (stop func()) {
	t.Helper()
	h.packets, h.from = make(map[uint16]int), make(map[netip.Addr]int)
	var c *net.IPConn
	n.within(t, ns, func() (err error) {
		if c, err = net.ListenIP("ip4:udp", nil); err != nil {
			return err
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(err, raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		}))
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			k, from, err := c.ReadFromIP(buf)
			if err != nil {
				return
			}
			// UDP header, then version 2 and payload type 0. (RFC 768; RFC 3550.)
			if k < 20 || buf[8] != 0x80 || buf[9]&0x7f != 0 {
				continue
			}
			a, _ := netip.AddrFromSlice(from.IP.To4())
			h.packets[binary.BigEndian.Uint16(buf[2:])]++
			h.from[a]++
		}
	}()
	return sync.OnceFunc(func() {
		c.Close()
		<-done
	})
}

// writeVoice writes the stretch of RTP that SIPp plays: G.711, 20 ms a packet.
func writeVoice(t testing.TB, file string) {
	t.Helper()
	f, err := os.Create(file)
	must(t, err)
	defer f.Close()
	w := pcapgo.NewWriter(f)
	must(t, w.WriteFileHeader(2048, layers.LinkTypeEthernet))
	at := time.Unix(1_700_000_000, 0)
	for i := range sippVoice {
		rtp := make([]byte, 12+160)
		rtp[0] = 0x80
		binary.BigEndian.PutUint16(rtp[2:], uint16(i))
		binary.BigEndian.PutUint32(rtp[4:], uint32(i*160))
		binary.BigEndian.PutUint32(rtp[8:], 0x51bb)
		ip := stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP,
			Src: netip.MustParseAddrPort("10.0.0.1:6000"), Dst: netip.MustParseAddrPort("10.0.0.2:6000")}, rtp)
		frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, ip...)
		must(t, w.WritePacket(gopacket.CaptureInfo{
			Timestamp: at.Add(time.Duration(i) * 20 * time.Millisecond), CaptureLength: len(frame), Length: len(frame)}, frame))
	}
}
