//go:build linux

package main

import (
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestContainerNode runs what the example for containerlab has the container run,
// in a namespace whose links come late and carry 9,500 bytes, as containerlab's do.
func TestContainerNode(t *testing.T) {
	t.Parallel()
	needs(t, "iproute2 (ip)")
	n := newTestNet(t, overTUN)
	dir := t.TempDir()
	// The image wants a static program; this test's own may have the race detector.
	hello := filepath.Join(dir, "hello")
	must(t, os.WriteFile(hello+".go", []byte("package main\n\nfunc main() {}\n"), 0o600))
	build := exec.Command("go", "build", "-o", hello, hello+".go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out := mustPatchbay(t, "lab", "nodes", "--out", dir, "--program", hello)
	if !strings.Contains(out, "GNS3 is left out") {
		t.Errorf("without an image:\n%s", out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "containerlab", "patchbay.clab.yml"))
	must(t, err)
	var clab struct {
		Topology struct {
			Nodes map[string]struct{ Cmd string }
		}
	}
	must(t, yaml.Unmarshal(text, &clab))
	args := strings.Fields(clab.Topology.Nodes["box"].Cmd)
	for from, to := range map[string]string{
		"/flash": filepath.Join(dir, "containerlab", "flash"), "/startup.cfg": filepath.Join(dir, "containerlab", "patchbay.cfg"),
	} {
		i := slices.Index(args, from)
		if i < 0 {
			t.Fatalf("the command %q has no %s", args, from)
		}
		args[i] = to
	}
	b := &runningBox{exited: make(chan struct{})}
	b.cmd = n.command(context.Background(), n.box, program(t), args...)
	b.cmd.Stdout, b.cmd.Stderr = b, b
	must(t, startDying(b.cmd, func(err error) {
		b.err = err
		close(b.exited)
	}))
	t.Cleanup(func() {
		b.cmd.Process.Kill()
		<-b.exited
		if t.Failed() {
			t.Logf("the box:\n%s", tail(b.text(), 4000))
		}
	})
	for _, side := range []struct{ dev, ns, peer string }{{"eth1", n.out, "pbout"}, {"eth2", n.in, "pbin"}} {
		mustIP(t, "-n", n.box, "link", "add", side.dev, "mtu", "9500", "type", "veth", "peer", "name", side.peer, "mtu", "9500", "netns", side.ns)
		mustIP(t, "-n", n.box, "link", "set", side.dev, "up")
	}
	n.plumb(t)
	socket := filepath.Join(dir, "containerlab", "flash", controlName)
	eventually(t, "the box has both links", func() bool {
		out, err := patchbay(t, "exec", "--socket", socket, "show", "interface")
		return err == nil && strings.Contains(out, "packet:eth1") && strings.Contains(out, "packet:eth2")
	})
	if !n.ping(t, n.out, gateway, boxAddr, 56, patience) {
		t.Error("the box does not answer outside")
	}
	// SSH is served where containerlab's own network would be.
	local := netip.MustParseAddr("127.0.0.1")
	h := n.host(t, n.box, local)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := h.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(local, 22))
	must(t, err)
	defer c.Close()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	banner := make([]byte, len("SSH-2.0"))
	if _, err := io.ReadFull(c, banner); err != nil || string(banner) != "SSH-2.0" {
		t.Errorf("SSH: %q, %v", banner, err)
	}
}
