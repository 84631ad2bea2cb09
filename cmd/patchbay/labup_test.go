//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"patchbay/appliance/lab"
	"patchbay/appliance/lab/rig"
	"patchbay/appliance/lab/topology"
	"patchbay/stack/link"
)

// labCount tells the labs of one process apart.
var labCount atomic.Int32

// newLabName returns a name for a lab that is taken away with the test.
func newLabName(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	needs(t, "nftables (nft)")
	if err := labKernel(); err != nil {
		t.Skip("needs network namespaces and NAT by nftables in the kernel: ", err)
	}
	removeStaleLabs.Do(func() { downStaleLabs(t) })
	name := fmt.Sprintf("pbt%s_%s", strconv.FormatInt(int64(os.Getpid()), 36), strconv.FormatInt(int64(labCount.Add(1)), 36))
	t.Cleanup(func() {
		if t.Failed() {
			if r, err := rig.Open(name); err == nil {
				if b, err := os.ReadFile(r.Log()); err == nil {
					t.Logf("the box:\n%s", tail(string(b), 4000))
				}
			}
		}
		if err := rig.Down(context.Background(), name); err != nil && !errors.Is(err, rig.ErrNone) {
			t.Errorf("lab down: %v", err)
		}
	})
	return name
}

// labKernel tries what labs want of the kernel, in a namespace that is thrown away.
var labKernel = sync.OnceValue(func() error {
	nft, err := lookPath("nft")
	if err != nil {
		return err
	}
	c := exec.Command(nft, "-f", "-")
	c.Stdin = strings.NewReader(`table ip probe {
	chain out {
		type nat hook postrouting priority 100;
		oifname "lo" masquerade
	}
	chain forward {
		type filter hook forward priority 0;
		ct state established,related accept
	}
}
`)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// removeStaleLabs has downStaleLabs run once.
var removeStaleLabs sync.Once

// labOf tells of which process a lab is.
var labOf = regexp.MustCompile(`^pbt([0-9a-z]+)_[0-9a-z]+$`)

// downStaleLabs takes away the labs of test processes that died before they could.
func downStaleLabs(t testing.TB) {
	t.Helper()
	names, err := rig.List()
	must(t, err)
	for _, name := range names {
		m := labOf.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		pid, err := strconv.ParseInt(m[1], 36, 64)
		if err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) {
			if err := rig.Down(context.Background(), name); err != nil {
				t.Logf("lab down: %v", err)
			}
		}
	}
}

// labCommandLine is "patchbay lab ARGS".
func labCommandLine(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, program(t), append([]string{"lab"}, args...)...)
	// Four processes a lab, one after the other: the race detector's second at
	// the end of each is most of the time.
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return c
}

// runLab runs "patchbay lab" to its end and returns what it printed.
func runLab(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := labCommandLine(t, args...).CombinedOutput()
	return string(out), err
}

// mustLab is runLab for what must go well.
func mustLab(t testing.TB, args ...string) string {
	t.Helper()
	out, err := runLab(t, args...)
	if err != nil {
		t.Fatalf("patchbay lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// labUp builds a topology with the program.
func labUp(t testing.TB, topo, driver string) *rig.Rig {
	t.Helper()
	name := newLabName(t)
	t.Log(mustLab(t, "up", topo, "--driver", driver, "--name", name))
	r, err := rig.Open(name)
	must(t, err)
	return r
}

// needsDriver skips the test if there is no such driver.
func needsDriver(t testing.TB, driver string) {
	t.Helper()
	switch driver {
	case "tun":
		if _, err := os.Stat("/dev/net/tun"); err != nil {
			t.Skip("needs root and /dev/net/tun")
		}
	case "xdp":
		if _, err := link.Open("xdp:pb-none", link.Options{}); err != nil && strings.Contains(err.Error(), "there is no driver") {
			t.Skip("no xdp: driver in this build")
		}
		fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Skip("needs AF_XDP in the kernel: ", err)
		}
		unix.Close(fd)
	}
}

// TestTopologies has the phones of every topology that comes with the program
// boot, register and do what it says, over each driver.
func TestTopologies(t *testing.T) {
	for _, topo := range topology.Library() {
		t.Run(topo, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup // a lab waits more than it works
			for _, driver := range []string{"packet", "tun", "xdp"} {
				wg.Go(func() {
					t.Run(driver, func(t *testing.T) { testTopology(t, topo, driver) })
				})
			}
			wg.Wait()
		})
	}
}

func testTopology(t *testing.T, topo, driver string) {
	needsDriver(t, driver)
	r := labUp(t, topo, driver)
	out := mustLab(t, "call", r.Name, "--hold=false", "--duration", "400ms")
	calls := 0
	for _, a := range r.Topology.Acts {
		if a.Verb == "call" {
			calls++
		}
	}
	if got := strings.Count(out, " Hz\n"); got != 2*calls || strings.Contains(out, "FAIL") {
		t.Errorf("%d phones heard something, want %d\n%s", got, 2*calls, out)
	}
	for _, site := range r.Topology.Sites {
		if site.Proxy && strings.Count(out, "asks for its services through 203.0.113.80:8080") != 2 {
			t.Errorf("not both phones go through the proxy:\n%s", out)
		}
	}
	mustLab(t, "down", r.Name)
	checkGone(t, r)
}

// TestLabRouters tries what routers let through and what they do not.
func TestLabRouters(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort
	type try struct {
		tcp      bool
		to, want string // as which it passes the net; "": it does not
	}
	for _, tt := range []struct {
		topology  string
		from, net string // a host that sends, and the net that is looked at
		src       string
		tries     []try
	}{
		{"home", "isp", "house", "198.51.100.1", []try{{false, "198.51.100.30:5000", ""}}},
		{"homefwd", "far", "house", "198.51.100.7", []try{
			{false, "198.51.100.30:5000", "192.168.1.50:5000"},
			{false, "198.51.100.30:69", "192.168.1.50:69"},
			{false, "198.51.100.30:68", ""},
			{true, "198.51.100.30:5000", ""},
		}},
		{"firewall", "far", "wan", "198.51.100.7", []try{
			{true, "203.0.113.10:2443", "203.0.113.10:2443"},
			{true, "203.0.113.10:2000", ""},
			{false, "203.0.113.20:16384", "203.0.113.20:16384"},
			{false, "203.0.113.20:1024", ""},
		}},
	} {
		t.Run(tt.topology, func(t *testing.T) {
			t.Parallel()
			r := labUp(t, tt.topology, "packet")
			for _, x := range tt.tries {
				var want netip.AddrPort
				if x.want != "" {
					want = at(x.want)
				}
				checkRoute(t, r, tt.from, tt.net, netip.MustParseAddr(tt.src), x.tcp, at(x.to), want)
			}
		})
	}
}

// checkRoute has a host send, and looks at what passes a net until something does
// or, if nothing may, for as long as silentFor.
func checkRoute(t *testing.T, r *rig.Rig, from, on string, src netip.Addr, tcp bool, to, want netip.AddrPort) {
	t.Helper()
	h, err := lab.NewKernelHost(r.Namespace(from), src)
	must(t, err)
	defer h.Close()
	c, err := r.Capture(on)
	must(t, err)
	defer c.Close()
	wait := silentFor
	if want.IsValid() {
		wait = patience
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for ctx.Err() == nil {
			if tcp {
				if c, err := h.DialTCP(ctx, netip.AddrPort{}, to); err == nil {
					c.Close()
				}
			} else if u, err := h.ListenUDP(netip.AddrPort{}); err == nil {
				u.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(to))
				u.Close()
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	var got []netip.AddrPort
	must(t, c.Run(ctx, func(_ time.Time, frame []byte) {
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		source, dst := ends(p)
		port := 0 // one is not translated, and what comes late of a try before has another
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			if tcp {
				port = int(l.DstPort)
			}
		case *layers.UDP:
			if !tcp {
				port = int(l.DstPort)
			}
		}
		if source != src || port != int(to.Port()) {
			return
		}
		got = append(got, netip.AddrPortFrom(dst, to.Port()))
		if want.IsValid() {
			cancel()
		}
	}))
	<-sent
	switch {
	case !want.IsValid() && len(got) > 0:
		t.Errorf("%v came through as %v", to, got[0])
	case want.IsValid() && (len(got) == 0 || got[0] != want):
		t.Errorf("%v came through as %v, want %v", to, got, want)
	}
}

// checkGone complains of what is left of a lab.
func checkGone(t *testing.T, r *rig.Rig) {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), r.Namespace("")) {
			t.Errorf("namespace %s is left", e.Name())
		}
	}
	names, err := rig.List()
	if err != nil || slices.Contains(names, r.Name) {
		t.Errorf("labs are %v, %v", names, err)
	}
	for _, file := range []string{filepath.Join(rig.Dir, r.Name), filepath.Join(rig.Dir, r.Name+".lock")} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", file, err)
		}
	}
}

// TestLabsSideBySide has two labs of one topology at once, of which one is seen to
// be there by whoever does not say which.
func TestLabsSideBySide(t *testing.T) {
	t.Parallel()
	a, b := labUp(t, "direct", "packet"), labUp(t, "direct", "packet")
	out, err := runLab(t, "up", "direct", "--name", a.Name)
	if err == nil || !strings.Contains(out, "lab "+a.Name+" is there already") {
		t.Errorf("a second lab %s: %v\n%s", a.Name, err, out)
	}
	if out, err := runLab(t, "down"); err == nil || !strings.Contains(out, "which lab?") {
		t.Errorf("down without a name: %v\n%s", err, out)
	}
	list := mustLab(t, "list")
	for _, r := range []*rig.Rig{a, b} {
		if !strings.Contains(list, r.Name) || !strings.Contains(list, "direct, packet, up: box far ucm desk isp") {
			t.Errorf("the list does not have %s\n%s", r.Name, list)
		}
	}
	mustLab(t, "down", a.Name)
	checkGone(t, a)
	out = mustLab(t, "call", b.Name, "4102", "4002", "--hold=false", "--duration", "300ms")
	if !strings.Contains(out, "ok   4102 calls 4002 ") {
		t.Errorf("the other lab's call:\n%s", out)
	}
}

// TestLabShell runs commands on hosts, and captures what they send.
func TestLabShell(t *testing.T) {
	t.Parallel()
	r := labUp(t, "home", "packet")
	if got := mustLab(t, "shell", "--name", r.Name, "home", "ip", "-4", "-o", "addr", "show", "dev", "house"); !strings.Contains(got, " 192.168.1.50/24 ") {
		t.Errorf("the phones' host has %q", got)
	}
	if out, err := runLab(t, "shell", "--name", r.Name, "home", "sh", "-c", "ls /sys/class/net; exit 7"); err == nil || !strings.HasPrefix(out, "house") {
		t.Errorf("a command that fails: %v, %q", err, out)
	} else if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 7 {
		t.Errorf("a command that fails: %v, want its exit code 7", err)
	}
	if got := mustLab(t, "shell", "--name", r.Name, "home", "--", "echo", "--", "a"); got != "-- a\n" {
		t.Errorf("a command behind --: %q", got)
	}
	if out, err := runLab(t, "shell", "--name", r.Name, "attic"); err == nil || !strings.Contains(out, `has no host or net "attic"; it has box, home, `) {
		t.Errorf("no such host: %v, %q", err, out)
	}
	if got := mustLab(t, "exec", "--name", r.Name, "show", "interface", "ip", "brief"); !strings.Contains(got, "203.0.113.2") {
		t.Errorf("show interface ip brief: %q", got)
	}

	// The router shows a datagram twice: from the phone, and from itself.
	file := filepath.Join(t.TempDir(), "dsl.pcap")
	c := labCommandLine(t, "capture", "--name", r.Name, "dsl", file)
	told := new(runningBox)
	c.Stdout, c.Stderr = told, told
	must(t, c.Start())
	eventually(t, "the capture begins", func() bool { return strings.Contains(told.text(), "capturing dsl") })
	phone, err := lab.NewKernelHost(r.Namespace("home"), netip.MustParseAddr("192.168.1.50"))
	must(t, err)
	defer phone.Close()
	u, err := phone.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer u.Close()
	isp := netip.MustParseAddrPort("198.51.100.1:9")
	for range 3 {
		_, err := u.WriteTo([]byte("discard"), net.UDPAddrFromAddrPort(isp))
		must(t, err)
	}
	must(t, c.Process.Signal(unix.SIGINT))
	if err := c.Wait(); err != nil {
		t.Fatalf("capture: %v\n%s", err, told.text())
	}
	seen := make(map[string]int)
	for _, p := range readFrames(t, file) {
		if src, dst := ends(p); dst == isp.Addr() {
			seen[src.String()]++
		}
	}
	if seen["192.168.1.50"] != 3 || seen["198.51.100.30"] != 3 || len(seen) != 2 {
		t.Errorf("datagrams by source: %v, want 3 from 192.168.1.50 and 3 from 198.51.100.30", seen)
	}
	if out, err := runLab(t, "capture", "--name", r.Name, "--duration", "200ms", "wan", file); err != nil || !strings.Contains(out, " frames in ") {
		t.Errorf("capture of a net: %v, %q", err, out)
	}
	if out, err := runLab(t, "capture", "--name", r.Name, "dsl:wan", file); err == nil || !strings.Contains(out, `dsl has no device "wan"; it has `) {
		t.Errorf("capture of a device that is not there: %v, %q", err, out)
	}
}

// TestLabExposure marks the LAN as a net where nothing may be seen, and it is.
func TestLabExposure(t *testing.T) {
	t.Parallel()
	_, text, cfg, err := topology.Read("direct")
	must(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "mine.topo")
	lan := []byte("net     lan      10.20.0.0/24\n")
	if !bytes.Contains(text, lan) {
		t.Fatal("direct.topo has no such net")
	}
	must(t, os.WriteFile(file, bytes.Replace(text, lan, bytes.Replace(lan, []byte("\n"), []byte(" public\n"), 1), 1), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "direct.cfg"), cfg, 0o600))
	r := labUp(t, file, "packet")
	out, err := runLab(t, "call", r.Name, "--hold=false", "--duration", "400ms")
	if err == nil || strings.Count(out, "FAIL") != 1 || !strings.Contains(out, "FAIL nothing crossed the Internet in the clear") {
		t.Errorf("a LAN on which everybody listens: %v\n%s", err, out)
	}
}

// TestLabWithoutRoot is told what is missing.
func TestLabWithoutRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs not to be root")
	}
	for _, args := range [][]string{{"up", "direct"}, {"call"}, {"list"}, {"down"}} {
		c := root()
		c.SetArgs(append([]string{"lab"}, args...))
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "this needs root") {
			t.Errorf("lab %s: %v", strings.Join(args, " "), err)
		}
	}
}

// TestLabRefusals says what is wrong with what cannot be built.
func TestLabRefusals(t *testing.T) {
	t.Parallel()
	name := newLabName(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"up", "nosuch", "--name", name}, `there is no topology "nosuch"`},
		{[]string{"up", "direct", "--driver", "dpdk", "--name", name}, `--driver "dpdk": want packet, tun or xdp`},
		{[]string{"up", "direct", "--name", "a-b"}, `"a-b" cannot be the name of a lab`},
		{[]string{"down", name}, "there is no such lab"},
		{[]string{"call", name}, "there is no such lab"},
	} {
		if out, err := runLab(t, tt.args...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("lab %s: %v, %q, want %q", strings.Join(tt.args, " "), err, out, tt.want)
		}
	}
	// What the topology and the configuration do not have in common is told before
	// anything is built.
	_, text, cfg, err := topology.Read("direct")
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "direct.cfg"), cfg, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "odd.topo"), bytes.ReplaceAll(text, []byte("203.0.113."), []byte("203.0.114.")), 0o600))
	if out, err := runLab(t, "up", filepath.Join(dir, "odd.topo"), "--name", name); err == nil || !strings.Contains(out, "odd.topo:") || !strings.Contains(out, "outside has 203.0.113.2/24 in direct.cfg") {
		t.Errorf("an address of another net: %v\n%s", err, out)
	}
	// A box that does not come up leaves nothing behind, and its log is shown.
	must(t, os.WriteFile(filepath.Join(dir, "bad.topo"), text, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "direct.cfg"), bytes.Replace(cfg, []byte("security-level 0"), []byte("security-level 400"), 1), 0o600))
	out, err := runLab(t, "up", filepath.Join(dir, "bad.topo"), "--name", name)
	if err == nil || !strings.Contains(out, "the appliance did not come up") || !strings.Contains(out, "security-level 400") {
		t.Errorf("a configuration that is refused: %v\n%s", err, out)
	}
	checkGone(t, &rig.Rig{Name: name})
}

// TestLabLeftOver takes away what is no lab: a name that never became a namespace,
// and files that say nothing.
func TestLabLeftOver(t *testing.T) {
	t.Parallel()
	name := newLabName(t)
	r := &rig.Rig{Name: name}
	must(t, os.MkdirAll("/run/netns", 0o755))
	must(t, os.WriteFile(filepath.Join("/run/netns", r.Namespace("far")), nil, 0))
	must(t, os.MkdirAll(filepath.Join(rig.Dir, name), 0o700))
	must(t, os.WriteFile(filepath.Join(rig.Dir, name, "rig.json"), []byte("{"), 0o600))
	if out := mustLab(t, "list"); !strings.Contains(out, name) || !strings.Contains(out, "left over: patchbay lab down "+name) {
		t.Errorf("list:\n%s", out)
	}
	if out, err := runLab(t, "call", name); err == nil || !strings.Contains(out, "rig.json: ") {
		t.Errorf("call: %v\n%s", err, out)
	}
	if out, err := runLab(t, "up", "direct", "--name", name); err == nil || !strings.Contains(out, "lab "+name+" is there already") {
		t.Errorf("up: %v\n%s", err, out)
	}
	mustLab(t, "down", name)
	checkGone(t, r)
}

// TestRunWaits has a device come after the box that wants it, as in a container.
func TestRunWaits(t *testing.T) {
	t.Parallel()
	n := newTestNet(t, overTUN)
	l, err := newLinks([]string{"outside=packet:pblate", "inside=tun:pbnone"})
	must(t, err)
	n.within(t, n.box, func() error {
		start := time.Now()
		if err := l.await(t.Context(), 0); err != nil {
			return err
		}
		if _, err := net.InterfaceByName("pblate"); err == nil || time.Since(start) > patience {
			return fmt.Errorf("without --wait: device %v after %v", err, time.Since(start))
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.await(ended, patience); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("interrupted: %v", err)
		}
		late := time.AfterFunc(3*devicePoll, func() { ipCommand("-n", n.box, "link", "add", "pblate", "type", "veth", "peer", "name", "pbpeer") })
		defer late.Stop()
		if err := l.await(t.Context(), patience); err != nil {
			return err
		}
		_, err := net.InterfaceByName("pblate")
		return err
	})
}

// TestLabKilled kills the box and the phones in the middle of a call. "lab down"
// finds and takes away what is left.
func TestLabKilled(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"packet", "tun", "xdp"} {
		t.Run(driver, func(t *testing.T) {
			needsDriver(t, driver)
			r := labUp(t, "home", driver)
			c := labCommandLine(t, "call", r.Name, "--duration", "2m")
			told := new(runningBox)
			c.Stdout, c.Stderr = told, told
			must(t, c.Start())
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			awaitMedia(t, r, "wan")

			devices, programs := holdDevices(t, r), xdpPrograms(t, r)
			if driver == "xdp" && len(programs) == 0 {
				t.Error("the box over xdp: has no XDP program")
			}
			before, err := r.Processes()
			must(t, err)
			if !slices.Contains(before, c.Process.Pid) || len(r.BoxProcesses()) != 1 {
				t.Errorf("processes %v, want the call's, %d, and one of the box among them", before, c.Process.Pid)
			}
			if out, err := runLab(t, "call", r.Name); err == nil || !strings.Contains(out, `is there another "patchbay lab call" in lab `+r.Name) {
				t.Errorf("a call beside a call: %v\n%s", err, out)
			}
			must(t, c.Process.Kill())
			for _, pid := range r.BoxProcesses() {
				must(t, unix.Kill(pid, unix.SIGKILL))
			}
			<-ended
			eventually(t, "the box is gone", func() bool { return len(r.BoxProcesses()) == 0 })
			for _, args := range [][]string{{"call", r.Name}, {"exec", "--name", r.Name, "show", "version"}} {
				if out, err := runLab(t, args...); err == nil || !strings.Contains(out, "the box has ended, and its log is "+r.Log()) {
					t.Errorf("lab %s without the box: %v\n%s", args[0], err, out)
				}
			}
			// Somebody who knows nothing of it has a shell open.
			shell := labCommandLine(t, "shell", "--name", r.Name, "home", "sleep", "600")
			must(t, shell.Start())
			gone := make(chan error, 1)
			go func() { gone <- shell.Wait() }()
			eventually(t, "the shell is on its host", func() bool {
				all, err := r.Processes()
				must(t, err)
				return slices.Contains(all, shell.Process.Pid)
			})

			mustLab(t, "down", r.Name)
			checkGone(t, r)
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("a process in a namespace outlives the lab")
				shell.Process.Kill()
			}
			if all, err := r.Processes(); err != nil || len(all) > 0 {
				t.Errorf("processes that are left: %v, %v", all, err)
			}
			devices.check(t)
			for _, id := range programs {
				eventually(t, fmt.Sprintf("XDP program %d is gone", id), func() bool { return !programExists(id) })
			}
		})
	}
}

// TestLabNamesDeleted deletes the names of namespaces that processes are in: they
// are found all the same.
func TestLabNamesDeleted(t *testing.T) {
	t.Parallel()
	r := labUp(t, "direct", "packet")
	box := r.BoxProcesses()
	shell := labCommandLine(t, "shell", "--name", r.Name, "far", "sh", "-c", "sleep 600; true")
	must(t, shell.Start())
	gone := make(chan error, 1)
	go func() { gone <- shell.Wait() }()
	found := func() []int {
		all, err := r.Processes()
		must(t, err)
		return all
	}
	eventually(t, "the shell and what it runs are on their host", func() bool { return len(found()) == len(box)+2 })
	before := found()
	for _, host := range []string{"box", "far"} {
		must(t, netns.DeleteNamed(r.Namespace(host)))
	}
	if after := found(); !slices.Equal(after, before) || !slices.Equal(r.BoxProcesses(), box) || len(box) != 1 {
		t.Errorf("processes %v and of the box %v, before %v and %v", after, r.BoxProcesses(), before, box)
	}
	mustLab(t, "down", r.Name)
	checkGone(t, r)
	if left := found(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("the shell outlives the lab")
		shell.Process.Kill()
	}
}

// TestLabWithinLab builds none where the names of its namespaces would be seen by
// nobody else.
func TestLabWithinLab(t *testing.T) {
	t.Parallel()
	r, name := labUp(t, "direct", "packet"), newLabName(t)
	out, err := runLab(t, "shell", "--name", r.Name, "far", program(t), "lab", "up", "direct", "--name", name)
	if err == nil || !strings.Contains(out, "this is a shell in "+r.Namespace("far")) {
		t.Errorf("a lab in a lab's shell: %v\n%s", err, out)
	}
	checkGone(t, &rig.Rig{Name: name})
	// One that is there can be taken away from within.
	if out, err := runLab(t, "shell", "--name", r.Name, "far", program(t), "lab", "down", r.Name); err != nil {
		t.Errorf("down from within: %v\n%s", err, out)
	}
	checkGone(t, r)
}

// TestLabCallRefusals tells at once of calls that cannot be.
func TestLabCallRefusals(t *testing.T) {
	t.Parallel()
	r := labUp(t, "direct", "packet")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{r.Name, "4101"}, `"` + r.Name + `" is no phone's line, which is digits`},
		{[]string{r.Name, "4101", "9999"}, "lab " + r.Name + ": there is no phone 9999; its phones are 4001 (sccp), "},
		{[]string{r.Name, "4101", "4101"}, "4101 cannot call itself"},
		{[]string{r.Name, "4101", "4002"}, "4101 is sccp and 4002 is sip"},
		{[]string{r.Name, "4101", "4001", "--duration", "1ms"}, "at least 200ms"},
	} {
		if out, err := runLab(t, append([]string{"call"}, tt.args...)...); err == nil || !strings.Contains(out, tt.want) || strings.Contains(out, "boots") {
			t.Errorf("lab call %s: %v\n%s\nwant %q", strings.Join(tt.args, " "), err, out, tt.want)
		}
	}
}

// TestLabUpKilled kills "lab up" at any time, and interrupts it.
func TestLabUpKilled(t *testing.T) {
	t.Parallel()
	name := newLabName(t)
	rng := rand.New(rand.NewPCG(5, 2))
	for i := range 6 {
		c := labCommandLine(t, "up", "home", "--name", name)
		c.Stdout, c.Stderr = io.Discard, io.Discard
		must(t, c.Start())
		time.Sleep(time.Duration(i*60+rng.IntN(60)) * time.Millisecond) // any time will do
		c.Process.Kill()
		c.Wait()
		r := &rig.Rig{Name: name}
		if err := rig.Down(context.Background(), name); err != nil && !errors.Is(err, rig.ErrNone) {
			t.Errorf("down after a kill: %v", err)
		}
		checkGone(t, r)
		if all, err := r.Processes(); err != nil || len(all) > 0 {
			t.Errorf("processes that are left: %v, %v", all, err)
		}
	}
	// Who interrupts it is told that nothing is left.
	c := labCommandLine(t, "up", "home", "--name", name)
	told := new(runningBox)
	c.Stdout, c.Stderr = told, told
	must(t, c.Start())
	eventually(t, "it has begun", func() bool {
		_, err := os.Stat(filepath.Join(rig.Dir, name))
		return err == nil
	})
	must(t, c.Process.Signal(unix.SIGINT))
	if err := c.Wait(); err == nil || !strings.Contains(told.text(), "interrupted, and lab "+name+" is taken away again") {
		t.Errorf("interrupted: %v\n%s", err, told.text())
	}
	checkGone(t, &rig.Rig{Name: name})
	// The name is free.
	mustLab(t, "up", "home", "--name", name)
}

// awaitMedia waits until SRTP passes a net.
func awaitMedia(t *testing.T, r *rig.Rig, net string) {
	t.Helper()
	c, err := r.Capture(net)
	must(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	const srtp = 20 + 8 + 172 + 4 // bytes of an IPv4 packet with 20 ms of G.711
	seen := 0
	must(t, c.Run(ctx, func(_ time.Time, frame []byte) {
		if p := rig.IPv4(frame); len(p) == srtp && p[9] == unix.IPPROTO_UDP {
			if seen++; seen == 10 {
				cancel()
			}
		}
	}))
	if seen < 10 {
		t.Fatalf("%d SRTP packets on net %s: there is no call", seen, net)
	}
}

// A heldDevices sees the devices of a lab's namespaces also when those have lost
// their names.
type heldDevices struct{ spaces []netns.NsHandle }

// holdDevices keeps the namespaces of a lab open until the test ends.
func holdDevices(t *testing.T, r *rig.Rig) *heldDevices {
	t.Helper()
	h := new(heldDevices)
	for _, place := range r.Places() {
		ns, err := netns.GetFromName(r.Namespace(place))
		must(t, err)
		t.Cleanup(func() { ns.Close() })
		h.spaces = append(h.spaces, ns)
	}
	if h.count(t) < 10 {
		t.Errorf("%d devices in the lab", h.count(t))
	}
	return h
}

func (h *heldDevices) list(t *testing.T) []netlink.Link {
	t.Helper()
	var all []netlink.Link
	for _, ns := range h.spaces {
		n, err := netlink.NewHandleAt(ns)
		must(t, err)
		links, err := n.LinkList()
		n.Close()
		must(t, err)
		for _, l := range links {
			if l.Type() == "veth" || l.Type() == "bridge" || l.Type() == "tuntap" {
				all = append(all, l)
			}
		}
	}
	return all
}

func (h *heldDevices) count(t *testing.T) int { return len(h.list(t)) }

// check complains of devices.
func (h *heldDevices) check(t *testing.T) {
	t.Helper()
	for _, l := range h.list(t) {
		t.Errorf("device %s of type %s is left", l.Attrs().Name, l.Type())
	}
}

// xdpPrograms returns the identifiers of the XDP programs on devices of a lab.
func xdpPrograms(t *testing.T, r *rig.Rig) []uint32 {
	t.Helper()
	var ids []uint32
	for _, place := range r.Places() {
		ns, err := netns.GetFromName(r.Namespace(place))
		must(t, err)
		n, err := netlink.NewHandleAt(ns)
		ns.Close()
		must(t, err)
		links, err := n.LinkList()
		n.Close()
		must(t, err)
		for _, l := range links {
			if x := l.Attrs().Xdp; x != nil && x.Attached {
				ids = append(ids, x.ProgId)
			}
		}
	}
	return ids
}
