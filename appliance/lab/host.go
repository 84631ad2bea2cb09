package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netns"

	"patchbay/stack/host"
)

// A Host is what a peer runs on: one address, and sockets from it. Its methods
// may be used by several goroutines.
type Host interface {
	// Addr is the host's own address, which it signals even where a router
	// translates it.
	Addr() netip.Addr
	// DialTCP connects to raddr from laddr. A zero address is Addr, a zero
	// port is chosen.
	DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error)
	// ListenTCP accepts connections to laddr; a zero address is Addr.
	ListenTCP(laddr netip.AddrPort) (net.Listener, error)
	// ListenUDP opens a UDP socket; a zero address is Addr, a zero port is
	// chosen.
	ListenUDP(laddr netip.AddrPort) (net.PacketConn, error)
	// Close ends the host. Sockets are closed by who opened them.
	Close() error
}

// local fills in what is zero in laddr: the address of the host.
func local(h Host, laddr netip.AddrPort) netip.AddrPort {
	if !laddr.Addr().IsValid() || laddr.Addr().IsUnspecified() {
		return netip.AddrPortFrom(h.Addr(), laddr.Port())
	}
	return laddr
}

// addrPort returns the address of a net.Addr, unmapped, or zero.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// A KernelHost uses the sockets of the kernel, in a network namespace.
type KernelHost struct {
	addr netip.Addr
	ns   netns.NsHandle // -1: the namespace of the program
}

// NewKernelHost returns the host that has addr in the namespace named as "ip
// netns" names it; "" is the program's own namespace. Another namespace needs
// root.
func NewKernelHost(namespace string, addr netip.Addr) (*KernelHost, error) {
	h := &KernelHost{addr: addr, ns: netns.None()}
	if namespace == "" {
		return h, nil
	}
	ns, err := netns.GetFromName(namespace)
	if err != nil {
		return nil, fmt.Errorf("lab: namespace %q: %w", namespace, err)
	}
	h.ns = ns
	return h, nil
}

// Addr returns the address given to NewKernelHost.
func (h *KernelHost) Addr() netip.Addr { return h.addr }

// within runs f on a thread that is in the host's namespace. Sockets made
// there stay there, so the thread goes back at once.
func (h *KernelHost) within(f func() error) error {
	if !h.ns.IsOpen() {
		return f()
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("lab: own namespace: %w", err)
	}
	defer home.Close()
	if err := netns.Set(h.ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("lab: enter namespace: %w", err)
	}
	ferr := f()
	if err := netns.Set(home); err != nil {
		// A thread that stays locked when its goroutine ends is not used again.
		return fmt.Errorf("lab: leave namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return ferr
}

// DialTCP connects as Host says.
func (h *KernelHost) DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (c net.Conn, err error) {
	laddr = local(h, laddr)
	err = h.within(func() error {
		var d net.Dialer
		tc, err := d.DialTCP(ctx, "tcp4", laddr, raddr)
		if err == nil {
			c = tc
		}
		return err
	})
	return c, err
}

// ListenTCP listens as Host says.
func (h *KernelHost) ListenTCP(laddr netip.AddrPort) (l net.Listener, err error) {
	laddr = local(h, laddr)
	err = h.within(func() error {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(laddr))
		return err
	})
	return l, err
}

// ListenUDP opens a socket as Host says.
func (h *KernelHost) ListenUDP(laddr netip.AddrPort) (c net.PacketConn, err error) {
	laddr = local(h, laddr)
	err = h.within(func() error {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(laddr))
		return err
	})
	return c, err
}

// Close lets go of the namespace.
func (h *KernelHost) Close() error {
	if h.ns.IsOpen() {
		return h.ns.Close()
	}
	return nil
}

// A StackHost is a host in memory: a netstack whose Link is put on a Network.
type StackHost struct {
	*host.Stack
	addr netip.Addr
}

// NewStackHost returns a running host with the address and subnet prefix, and
// mtu in bytes (0: 1500). Attach its Link to a Network. rand may be nil.
func NewStackHost(prefix netip.Prefix, mtu int, rand io.Reader) (*StackHost, error) {
	s, err := host.New(host.Config{MTU: mtu, Addrs: []netip.Prefix{prefix}, Rand: rand})
	if err != nil {
		return nil, fmt.Errorf("lab: host %v: %w", prefix, err)
	}
	return &StackHost{Stack: s, addr: prefix.Addr()}, nil
}

// Addr returns the host's address.
func (h *StackHost) Addr() netip.Addr { return h.addr }

// DialTCP connects as Host says.
func (h *StackHost) DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error) {
	return h.Stack.DialTCP(ctx, local(h, laddr), raddr)
}

// ListenTCP listens as Host says.
func (h *StackHost) ListenTCP(laddr netip.AddrPort) (net.Listener, error) {
	return h.Stack.ListenTCP(local(h, laddr))
}

// ListenUDP opens a socket as Host says.
func (h *StackHost) ListenUDP(laddr netip.AddrPort) (net.PacketConn, error) {
	return h.Stack.ListenPacket(local(h, laddr))
}
