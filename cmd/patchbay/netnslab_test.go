//go:build linux

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/lab"
)

// TestLabInNamespaces has the lab's phones and call manager, on the kernel's
// sockets, talk through the program over each kind of links.
func TestLabInNamespaces(t *testing.T) {
	for _, tt := range []struct {
		driver    string
		protocols []lab.Protocol
	}{
		{overPacket, []lab.Protocol{lab.SCCP, lab.SIP}},
		{overXDP, []lab.Protocol{lab.SIP}},
		{overTUN, []lab.Protocol{lab.SCCP}},
	} {
		t.Run(tt.driver, func(t *testing.T) {
			n := newTestNet(t, tt.driver)
			ca := newCA(t)
			n.start(t, startOptions{flash: newFlash(t, ca)})
			l := n.newLab(t, lab.Options{CA: ca})
			runCalls(t, l, lab.CallOptions{Protocols: tt.protocols, NoHome: true})
		})
	}
}

// TestHomeRouter has phones boot, register and talk from behind a router that
// is the kernel's, with its connection tracking and without a TFTP helper: what
// does not come from the port that was asked does not come in. "tftp
// single-port" is for that.
func TestHomeRouter(t *testing.T) {
	needs(t, "curl", "nftables (nft)")
	n := newTestNet(t, overPacket)
	n.addHome(t)
	ca := newCA(t)
	flash := newFlash(t, ca)
	get := func(maxTime string) error {
		_, err := n.run(patience, n.home, "curl", "--silent", "--max-time", maxTime, "--output", filepath.Join(t.TempDir(), "got"),
			fmt.Sprintf("tftp://%v/%s", ucmMapped, ctlName))
		return err
	}
	b := n.start(t, startOptions{flash: flash})
	if err := get("2"); err == nil {
		t.Error("a file came through the router without single-port: this test proves nothing")
	}
	b.stop(t)

	n.start(t, startOptions{flash: flash, config: demoWith(t,
		"\nphone-proxy home\n", "\nphone-proxy home\n tftp single-port\n")})
	if err := get("10"); err != nil {
		t.Errorf("no file came through the router: %v", err)
	}
	l := n.newLab(t, lab.Options{CA: ca})
	runCalls(t, l, lab.CallOptions{NoHold: true})
}

// The phones' home and its router, as the Internet sees it.
const (
	homeNet    = "192.168.1.0/24"
	homeRouter = "198.51.100.30"
)

// addHome puts phones' addresses behind a router that does source NAT.
func (n *testNet) addHome(t testing.TB) {
	t.Helper()
	n.home = addNamespace(t, strings.TrimSuffix(n.out, "out")+"home")
	mustIP(t, "-n", n.out, "link", "add", "pbrouter", "type", "veth", "peer", "name", "pbhome", "netns", n.home)
	mustIP(t, "-n", n.out, "addr", "add", "192.168.1.1/24", "dev", "pbrouter")
	mustIP(t, "-n", n.out, "link", "set", "pbrouter", "up")
	mustIP(t, "-n", n.out, "addr", "add", homeRouter+"/32", "dev", "lo")
	for _, a := range []string{"192.168.1.50/24", "192.168.1.51/24"} {
		mustIP(t, "-n", n.home, "addr", "add", a, "dev", "pbhome")
	}
	mustIP(t, "-n", n.home, "link", "set", "pbhome", "up")
	mustIP(t, "-n", n.home, "route", "add", "default", "via", "192.168.1.1")
	n.sysctl(t, n.out, "ipv4/ip_forward", "1")
	for _, cmd := range []string{
		"add table ip home",
		"add chain ip home out { type nat hook postrouting priority 100; }",
		"add rule ip home out ip saddr " + homeNet + " oifname pbout snat to " + homeRouter,
	} {
		if out, err := n.run(patience, n.out, "nft", cmd); err != nil {
			t.Skipf("needs NAT by nftables in the kernel: %v: %s", err, out)
		}
	}
}

// newCA makes a phones' CA.
func newCA(t testing.TB) *lab.CA {
	t.Helper()
	l, err := lab.NewCA(lab.CAName, 2048, x509.SHA1WithRSA, nil, nil)
	must(t, err)
	return l
}

// newLab makes the lab's peers in the namespaces.
func (n *testNet) newLab(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	l, err := lab.NewLab(o, func(place lab.Place, addr netip.Addr) (lab.Host, error) {
		ns := n.out
		switch {
		case place == lab.Inside:
			ns = n.in
		case place == lab.AtHome && n.home != "":
			ns = n.home
		}
		return lab.NewKernelHost(ns, addr)
	})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// runCalls has the lab make its calls. No step may fail.
func runCalls(t *testing.T, l *lab.Lab, o lab.CallOptions) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if o.Talk == 0 {
		o.Talk = 600 * time.Millisecond
	}
	o.Step = func(r lab.StepResult) {
		if r.OK {
			t.Log(r)
		} else {
			t.Error(r)
		}
	}
	lab.RunCalls(ctx, l, o)
}
