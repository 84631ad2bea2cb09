//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"patchbay/appliance/lab"
)

// The tests in netns*_test.go and in those that use this file run the program
// itself between network namespaces, as the demo's configuration has it:
//
//	out: 203.0.113.1/24 and the phones' 198.51.100.0/24
//	  | outside
//	box: patchbay run
//	  | inside
//	in: 10.20.0.11/24, the call manager, and 10.20.0.50 and .51, phones

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// orderly is how long an orderly shutdown may take.
const orderly = 10 * time.Second

// The places of the network plan.
var (
	gateway   = netip.MustParseAddr("203.0.113.1")
	boxAddr   = netip.MustParseAddr("203.0.113.2")
	ucmMapped = netip.MustParseAddr("203.0.113.10")
	mtaMapped = netip.MustParseAddr("203.0.113.20")
	nobody    = netip.MustParseAddr("203.0.113.99")
	phoneAddr = netip.MustParseAddr("198.51.100.7")
	boxInside = netip.MustParseAddr("10.20.0.1")
	ucmReal   = netip.MustParseAddr("10.20.0.11")
	mtaInside = netip.MustParseAddr("10.20.0.20")
	deskAddr  = netip.MustParseAddr("10.20.0.50")
)

// phoneAddrs are what phones outside may have.
var phoneAddrs = []string{"198.51.100.7", "198.51.100.8", "198.51.100.9", "198.51.100.10"}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaryDir != "" {
		os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// binaryDir is where buildProgram has put the program, for TestMain to remove.
var binaryDir string

// buildProgram builds the program once, with the race detector if the test has it.
var buildProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "patchbay-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	file := filepath.Join(dir, "patchbay")
	args := append([]string{"build", "-buildvcs=false", "-o", file}, buildArgs()...)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
})

// buildArgs are the flags to build the program as the test was built.
func buildArgs() []string {
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "-race" && s.Value == "true" {
				return []string{"-race"}
			}
		}
	}
	return nil
}

// program returns the path of the program under test.
func program(t testing.TB) string {
	t.Helper()
	file, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// needs skips the test if a program is not installed. A tool is given as
// "package (program)" or as the program alone.
func needs(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		name := tool
		if _, in, ok := strings.Cut(tool, "("); ok {
			name = strings.TrimSuffix(in, ")")
		}
		if _, err := lookPath(name); err != nil {
			t.Skip("needs " + tool)
		}
	}
}

// lookPath finds a program also where only root looks.
func lookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return exec.LookPath("/usr/sbin/" + name)
}

// patchbay runs the program to its end and returns what it printed.
func patchbay(t testing.TB, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program(t), args...).CombinedOutput()
	return string(out), err
}

// mustPatchbay is patchbay for what must go well.
func mustPatchbay(t testing.TB, args ...string) string {
	t.Helper()
	out, err := patchbay(t, args...)
	if err != nil {
		t.Fatalf("patchbay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// The drivers a testNet may have.
const (
	overPacket  = "packet"
	overTUN     = "tun"
	overXDP     = "xdp"         // in veth's driver
	overGeneric = "xdp generic" // in the kernel's stack
	overQueues  = "xdp 2"       // in the driver, with two queues
)

// drivers are those that most tests run over.
var drivers = []string{overPacket, overXDP, overTUN}

// link is what the box is told of its device dev.
func (n *testNet) link(dev string) string {
	switch n.driver {
	case overGeneric:
		return "xdp:" + dev + ",mode=generic"
	case overQueues:
		return "xdp:" + dev + ",mode=native,queues=2"
	}
	return n.driver + ":" + dev
}

// A testNet is the namespaces and what connects them.
type testNet struct {
	driver             string
	box, out, in, home string // names of namespaces; no home but for addHome
}

// netCount tells the namespaces of one process apart.
var netCount atomic.Int32

// removeStale has removeStaleNamespaces run once.
var removeStale sync.Once

// removeStaleNamespaces deletes the namespaces of test processes that died
// before they could.
func removeStaleNamespaces(t testing.TB) {
	t.Helper()
	all, err := os.ReadDir("/run/netns")
	if err != nil {
		return // nobody has made any
	}
	for _, e := range all {
		m := namespaceOf.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if _, err := os.Stat("/proc/" + m[1]); errors.Is(err, os.ErrNotExist) {
			if out, err := ipCommand("netns", "del", e.Name()); err != nil {
				t.Logf("ip netns del: %v: %s", err, out)
			}
		}
	}
}

// namespaceOf tells of which process a namespace is.
var namespaceOf = regexp.MustCompile(`^pb(\d+)-\d+-(box|out|in|home)$`)

// newTestNet makes the namespaces, and for all but tun: the veths between them.
// They go with the test.
func newTestNet(t testing.TB, driver string) *testNet {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	needs(t, "iproute2 (ip)")
	if _, err := os.Stat("/dev/net/tun"); driver == overTUN && err != nil {
		t.Skip("needs root and /dev/net/tun")
	}
	removeStale.Do(func() { removeStaleNamespaces(t) })
	n := &testNet{driver: driver}
	id := fmt.Sprintf("pb%d-%d-", os.Getpid(), netCount.Add(1))
	n.box = addNamespace(t, id+"box")
	n.out = addNamespace(t, id+"out")
	n.in = addNamespace(t, id+"in")
	// A gateway asks with its own address, whoever the packet is from.
	n.sysctl(t, n.out, "ipv4/conf/all/arp_announce", "2")
	for _, a := range phoneAddrs {
		mustIP(t, "-n", n.out, "addr", "add", a+"/32", "dev", "lo")
	}
	if driver != overTUN {
		for _, side := range []struct{ ns, dev string }{{n.out, "pbout"}, {n.in, "pbin"}} {
			var queues []string
			if driver == overQueues {
				queues = []string{"numrxqueues", "2", "numtxqueues", "2"}
			}
			args := append([]string{"-n", n.box, "link", "add", side.dev}, queues...)
			args = append(append(args, "type", "veth", "peer", "name", side.dev), queues...)
			mustIP(t, append(args, "netns", side.ns)...)
		}
		n.plumb(t)
	}
	return n
}

// addingNamespace is held while one is made.
var addingNamespace sync.Mutex

// addNamespace makes a namespace that goes with the test.
func addNamespace(t testing.TB, name string) string {
	t.Helper()
	addingNamespace.Lock() // the first has ip mount their directory
	defer addingNamespace.Unlock()
	if out, err := ipCommand("netns", "add", name); err != nil {
		t.Skipf("needs root and network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := ipCommand("netns", "del", name); err != nil {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
	})
	mustIP(t, "-n", name, "link", "set", "lo", "up")
	return name
}

// plumb gives the namespaces' ends of the links their addresses and routes.
func (n *testNet) plumb(t testing.TB) {
	t.Helper()
	for _, side := range []struct {
		ns, dev string
		addrs   []string
	}{
		{n.out, "pbout", []string{"203.0.113.1/24"}},
		{n.in, "pbin", []string{"10.20.0.11/24", "10.20.0.50/24", "10.20.0.51/24"}},
	} {
		n.sysctl(t, side.ns, "ipv6/conf/"+side.dev+"/disable_ipv6", "1")
		for _, a := range side.addrs {
			mustIP(t, "-n", side.ns, "addr", "add", a, "dev", side.dev)
		}
		mustIP(t, "-n", side.ns, "link", "set", side.dev, "up")
	}
	// Who does not bind is a phone outside and the call manager inside.
	mustIP(t, "-n", n.out, "route", "replace", "203.0.113.0/24", "dev", "pbout", "src", phoneAddr.String())
	mustIP(t, "-n", n.in, "route", "add", "default", "via", boxInside.String(), "src", ucmReal.String())
}

// sysctl sets /proc/sys/net/name in a namespace. A kernel without it does
// without.
func (n *testNet) sysctl(t testing.TB, ns, name, value string) {
	t.Helper()
	n.within(t, ns, func() error {
		err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
}

// within runs f on a thread that is in the namespace ns. Sockets that f opens
// stay there.
func (n *testNet) within(t testing.TB, ns string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		h, err := netns.GetFromName(ns)
		if err == nil {
			err = netns.Set(h)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in namespace %s: %v", ns, err)
	}
}

// host returns the sockets of a namespace at an address of it.
func (n *testNet) host(t testing.TB, ns string, addr netip.Addr) *lab.KernelHost {
	t.Helper()
	h, err := lab.NewKernelHost(ns, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// command is a program to be run in a namespace. It is killed when ctx ends.
func (n *testNet) command(ctx context.Context, ns, name string, args ...string) *exec.Cmd {
	path, err := lookPath(name)
	if err != nil {
		path = name
	}
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, path}, args...)...)
	c.WaitDelay = time.Second
	return c
}

// startDying starts c so that it dies with the test process, and calls exited
// when it has ended.
func startDying(c *exec.Cmd, exited func(error)) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			exited(c.Wait())
		}
	}()
	return <-started
}

// run runs a program in a namespace to its end, for as long as timeout, and
// returns what it printed.
func (n *testNet) run(timeout time.Duration, ns, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	out, err := n.command(ctx, ns, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return string(out), err
}

func ipCommand(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	return string(out), err
}

func mustIP(t testing.TB, args ...string) {
	t.Helper()
	if out, err := ipCommand(args...); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// demoWith is the demo's configuration with each pair of strings replaced, the
// first by the second. All of the first must be there.
func demoWith(t testing.TB, pairs ...string) string {
	t.Helper()
	text := string(demoConfig)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("demo.cfg has no %q", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// newFlash returns a flash directory in which the phones' CA is installed.
func newFlash(t testing.TB, ca *lab.CA) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	flash := filepath.Join(dir, "flash")
	mustPatchbay(t, "ca", "import", "--flash", flash, "phone_ca", file)
	return flash
}

// A startOptions says how the box is wanted. The zero value is good.
type startOptions struct {
	config string // text; "" is the demo's
	flash  string // directory; "" is a fresh one without a phones' CA
	level  string // of the log; "" is debug
}

// A runningBox is "patchbay run".
type runningBox struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has
	err    error         // of its exit

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes what the box prints.
func (b *runningBox) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

// text returns what the box has printed so far.
func (b *runningBox) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

// start runs the box and waits until it is up. It is stopped with the test, if
// not before.
func (n *testNet) start(t testing.TB, o startOptions) *runningBox {
	t.Helper()
	if o.config == "" {
		o.config = string(demoConfig)
	}
	dir := t.TempDir()
	if o.flash == "" {
		o.flash = filepath.Join(dir, "flash")
	}
	if o.level == "" {
		o.level = "debug"
	}
	file := filepath.Join(dir, "box.cfg")
	if err := os.WriteFile(file, []byte(o.config), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &runningBox{exited: make(chan struct{})}
	b.cmd = n.command(context.Background(), n.box, program(t), "run", "--config", file, "--flash", o.flash, "--log-level", o.level,
		"--link", "outside="+n.link("pbout"), "--link", "inside="+n.link("pbin"))
	b.cmd.Stdout, b.cmd.Stderr = b, b
	must(t, startDying(b.cmd, func(err error) {
		b.err = err
		close(b.exited)
	}))
	t.Cleanup(func() {
		b.stop(t)
		if t.Failed() {
			t.Logf("the box:\n%s", tail(b.text(), 8000))
		}
	})
	b.await(t, "box is up")
	if n.driver == overTUN {
		for ns, dev := range map[string]string{n.out: "pbout", n.in: "pbin"} {
			mustIP(t, "-n", n.box, "link", "set", dev, "netns", ns)
		}
		n.plumb(t)
	}
	return b
}

// await waits until the box has printed want.
func (b *runningBox) await(t testing.TB, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the box logs %q", want), func() bool {
		select {
		case <-b.exited:
			if !strings.Contains(b.text(), want) {
				t.Fatalf("the box ended, %v, without %q", b.err, want)
			}
		default:
		}
		return strings.Contains(b.text(), want)
	})
}

// stop ends the box with SIGTERM and sees that it goes in order. A box that
// was stopped already is left alone.
func (b *runningBox) stop(t testing.TB) {
	t.Helper()
	select {
	case <-b.exited:
		if b.err != nil {
			t.Errorf("the box ended by itself: %v", b.err)
		}
		return
	default:
	}
	start := time.Now()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	select {
	case <-b.exited:
	case <-time.After(orderly):
		// Where it hangs is worth more than that it does.
		b.cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-b.exited:
		case <-time.After(orderly):
			b.cmd.Process.Kill()
			<-b.exited
		}
		t.Errorf("the box was not down %v after SIGTERM", orderly)
		return
	}
	if b.err != nil {
		t.Errorf("after SIGTERM the box ended with %v, want exit code 0", b.err)
	}
	log := b.text()
	if !strings.Contains(log, "shutting down") {
		t.Error("the box does not log that it shuts down")
	}
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine "} {
		if strings.Contains(log, bad) {
			t.Errorf("the box logs %q", bad)
		}
	}
	t.Logf("shut down in %v", time.Since(start).Round(time.Millisecond))
}

var vmRSS = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// rss returns the memory of the box that is resident, in MB.
func (b *runningBox) rss(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := vmRSS.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmRSS in %q", status)
	}
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb / 1024
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// tail returns the last n bytes of s.
func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// udpAddr is an address as package net has it.
func udpAddr(addr netip.Addr, port uint16) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port))
}
