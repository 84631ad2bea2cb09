//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"patchbay/appliance/lab/topology"
)

func read(t *testing.T, name string) *topology.Topology {
	t.Helper()
	top, _, _, err := topology.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func TestRuleset(t *testing.T) {
	for _, tt := range []struct{ topology, router, want string }{
		{"direct", "isp", ""},
		{"homefwd", "dsl", `table ip lab {
	chain dstnat {
		type nat hook prerouting priority -100;
		iifname "internet" udp dport 69 dnat to 192.168.1.50
		iifname "internet" udp dport 1024-65535 dnat to 192.168.1.50
	}
	chain srcnat {
		type nat hook postrouting priority 100;
		oifname "internet" masquerade
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		ct state established,related accept
		iifname "internet" ct status dnat accept
		iifname "internet" drop
	}
}
`},
		{"firewall", "fw", `table ip lab {
	chain forward {
		type filter hook forward priority 0; policy accept;
		ct state established,related accept
		iifname "transit" ip daddr 203.0.113.10 udp dport 69 accept
		iifname "transit" ip daddr 203.0.113.10 tcp dport 2443 accept
		iifname "transit" ip daddr 203.0.113.10 tcp dport 5061 accept
		iifname "transit" ip daddr 203.0.113.20 udp dport 16384-32767 accept
		iifname "transit" drop
	}
}
`},
	} {
		if got := Ruleset(read(t, tt.topology).Router(tt.router)); got != tt.want {
			t.Errorf("%s, %s:\n%s\nwant\n%s", tt.topology, tt.router, got, tt.want)
		}
	}
}

// What is behind the routers of a net: all but what masquerades, and what is
// behind the appliance.
func TestBeyond(t *testing.T) {
	for _, tt := range []struct {
		topology, net string
		want          []string
	}{
		{"home", "wan", []string{"198.51.100.0/24 via 203.0.113.1"}},
		{"home", "house", []string{"198.51.100.0/24 via 192.168.1.1", "203.0.113.0/24 via 192.168.1.1"}},
		{"home", "lan", nil},
		{"firewall", "wan", []string{"192.0.2.0/24 via 203.0.113.1", "198.51.100.0/24 via 203.0.113.1"}},
		{"firewall", "transit", []string{"198.51.100.0/24 via 192.0.2.1", "203.0.113.0/24 via 192.0.2.2"}},
		{"dmz", "dmz", nil},
	} {
		var got []string
		for _, h := range beyond(read(t, tt.topology), tt.net) {
			got = append(got, fmt.Sprintf("%v via %v", h.prefix, h.via))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("beyond %s of %s: %q, want %q", tt.net, tt.topology, got, tt.want)
		}
	}
}

// A number that another process has now, and one that nobody has, are told apart
// from the process that signed in.
func TestProcesses(t *testing.T) {
	dir, nobody := t.TempDir(), func(string) bool { return false }
	if err := os.Mkdir(dir+"/"+membersDir, 0o700); err != nil {
		t.Fatal(err)
	}
	sign := func(pid int, started string) {
		if err := os.WriteFile(fmt.Sprintf("%s/%s/%d", dir, membersDir, pid), []byte(started), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Skip("needs sleep: ", err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	started, ok := startTime(c.Process.Pid)
	if !ok || strings.Trim(started, "0123456789") != "" {
		t.Fatalf("a process that runs started at %q, %v", started, ok)
	}
	sign(1<<30, started) // more than there can be
	sign(c.Process.Pid, started+"0")
	if got := processes(dir, nil, nobody); len(got) > 0 {
		t.Errorf("processes %v, want none", got)
	}
	sign(c.Process.Pid, started)
	if got := processes(dir, nil, nobody); !slices.Equal(got, []int{c.Process.Pid}) {
		t.Errorf("processes %v, want %d", got, c.Process.Pid)
	}
	if err := end(t.Context(), func() []int { return processes(dir, nil, nobody) }); err != nil {
		t.Error(err)
	}
	if got := processes(dir, nil, nobody); len(got) > 0 { // it is a zombie, which is none
		t.Errorf("processes %v after the end", got)
	}
}

// Where nothing can be made any more, what is there can still be locked, and taken
// away by one at a time.
func TestLockWithoutRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root and mount namespaces")
	}
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the mounts are this thread's
		done <- func() error {
			if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "none", unix.MS_PRIVATE|unix.MS_REC, "")); err != nil {
				return err
			}
			const inodes = "3" // the root's, the lab's and one more
			if err := unix.Mount("none", dir, "tmpfs", 0, "nr_inodes="+inodes); err != nil {
				return err
			}
			r, other := &Rig{Name: "a", dir: dir + "/a"}, &Rig{Name: "b", dir: dir + "/b"}
			if err := errors.Join(os.Mkdir(r.dir, 0o700), os.WriteFile(dir+"/full", nil, 0o600)); err != nil {
				return err
			}
			unlock, err := r.lock(t.Context())
			if err != nil {
				return err
			}
			short, cancel := context.WithTimeout(t.Context(), 3*lookout)
			defer cancel()
			if _, err := r.lock(short); err == nil {
				return errors.New("two have the lock")
			}
			unlock()
			if unlock, err = r.lock(t.Context()); err != nil {
				return fmt.Errorf("after it was unlocked: %w", err)
			}
			unlock()
			if _, err := os.Stat(r.dir); err != nil {
				return err
			}
			if _, err := other.lock(t.Context()); !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("a lab that is not there: %w", err)
			}
			return nil
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestIPv4(t *testing.T) {
	packet := make([]byte, 20)
	packet[0], packet[3] = 0x45, 20
	ether := append(make([]byte, 12), 8, 0)
	frame := append(append(slices.Clone(ether), packet...), make([]byte, 26)...) // padded
	if got := IPv4(frame); !slices.Equal(got, packet) {
		t.Errorf("IPv4 = % x, want % x", got, packet)
	}
	arp := slices.Clone(frame)
	arp[13] = 6
	long := slices.Clone(frame)
	long[16] = 4
	for name, b := range map[string][]byte{"ARP": arp, "cut": frame[:33], "longer than the frame": long, "nothing": nil} {
		if got := IPv4(b); got != nil {
			t.Errorf("%s: % x", name, got)
		}
	}
}

func TestNames(t *testing.T) {
	r := &Rig{Name: "a", Topology: read(t, "direct")}
	if got := r.Namespace("far"); got != "pblab-a-far" {
		t.Errorf("namespace %q", got)
	}
	if ns, err := r.HostOf(netip.MustParseAddr("10.20.0.11")); err != nil || ns != "pblab-a-ucm" {
		t.Errorf("host of the call manager: %q, %v", ns, err)
	}
	if _, err := r.HostOf(netip.MustParseAddr("10.20.0.99")); err == nil {
		t.Error("nobody's address has a host")
	}
	for _, name := range []string{"../x", "", "A", "a-b"} {
		if _, err := Open(name); err == nil {
			t.Errorf("lab %q is there", name)
		}
	}
}
