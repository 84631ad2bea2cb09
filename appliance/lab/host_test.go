package lab

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// newNamespace makes a network namespace with a loopback, or skips.
func newNamespace(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	name := fmt.Sprintf("pblab%d", os.Getpid())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Skip("no network namespaces here: ", err)
	}
	defer home.Close()
	ns, err := netns.NewNamed(name)
	if err != nil {
		netns.Set(home)
		t.Skip("cannot make a named network namespace: ", err)
	}
	t.Cleanup(func() { netns.DeleteNamed(name) })
	defer ns.Close()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if e := netns.Set(home); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Skip("no loopback in a new namespace: ", err)
	}
	return name
}

func TestKernelHostInNamespace(t *testing.T) {
	ctx := testContext(t)
	addr := netip.MustParseAddr("127.0.41.50")
	in, err := NewKernelHost(newNamespace(t), addr)
	must(t, err)
	defer in.Close()
	at := netip.AddrPortFrom(addr, 42500)
	l, err := in.ListenTCP(at)
	must(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	c, err := in.DialTCP(ctx, netip.AddrPort{}, at)
	must(t, err)
	b, err := io.ReadAll(c)
	c.Close()
	if err != nil || string(b) != addr.String() {
		t.Errorf("seen as %q, %v; want %v", b, err, addr)
	}
	u, err := in.ListenUDP(at)
	must(t, err)
	u.Close()
	// Outside of the namespace nobody listens.
	out := loopback(t, 51)
	if c, err := out.DialTCP(ctx, netip.AddrPort{}, at); err == nil {
		c.Close()
		t.Error("a socket of the namespace is reached from outside")
	}
	if _, err := NewKernelHost("no-such-namespace", addr); err == nil {
		t.Error("a namespace that is not there is entered")
	}
}
