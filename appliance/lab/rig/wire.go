//go:build linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"patchbay/appliance/lab/topology"
)

// bridgeName is the bridge in the namespace of a net. No host can have that name,
// which is not a topology.ValidName.
const bridgeName = "net-bridge"

// sysctl sets /proc/sys/net/name of the thread's namespace. A kernel without it
// does without.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// quiet readies a new namespace: IPv4 alone, and no opinion about which way a
// packet should have come.
func quiet() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return errors.Join(
		sysctl("ipv6/conf/all/disable_ipv6", "1"),
		sysctl("ipv6/conf/default/disable_ipv6", "1"),
		sysctl("ipv4/conf/all/rp_filter", "0"),
		sysctl("ipv4/conf/default/rp_filter", "0"),
		netlink.LinkSetUp(lo))
}

// addNet makes the namespace of a net and its bridge.
func (r *Rig) addNet(n *topology.Net) error {
	return makeNamespace(r.Namespace(n.Name), func() error {
		if err := quiet(); err != nil {
			return err
		}
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("bridge of net %s: %w", n.Name, err)
		}
		return netlink.LinkSetUp(b)
	})
}

// addHost makes the namespace of a host and its devices, one on each net.
func (r *Rig) addHost(name string, nets ...string) error {
	err := makeNamespace(r.Namespace(name), quiet)
	if err != nil {
		return err
	}
	for _, net := range nets {
		if err := r.connect(name, net); err != nil {
			return fmt.Errorf("device of %s on net %s: %w", name, net, err)
		}
	}
	return nil
}

// connect lays a wire from a host, where its device has the net's name, to a net,
// where the port has the host's.
func (r *Rig) connect(host, net string) error {
	peer, err := netns.GetFromName(r.Namespace(host))
	if err != nil {
		return err
	}
	defer peer.Close()
	err = within(r.Namespace(net), func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = host, bridge.Attrs().Index
		v := &netlink.Veth{LinkAttrs: attrs, PeerName: net, PeerNamespace: netlink.NsFd(int(peer))}
		if err := netlink.LinkAdd(v); err != nil {
			return err
		}
		if err := plain(host); err != nil {
			return err
		}
		return netlink.LinkSetUp(v)
	})
	if err != nil {
		return err
	}
	return within(r.Namespace(host), func() error { return plain(net) })
}

// Commands of SIOCETHTOOL that set one value. (linux/ethtool.h.)
const (
	ethtoolSetTxChecksum = 0x17
	ethtoolSetTSO        = 0x1f
	ethtoolSetGSO        = 0x24
	ethtoolSetGRO        = 0x2c
)

// plain has a veth carry what a wire would: whole checksums, and no segments that
// somebody else is to cut. A device that cannot do a thing does without it.
func plain(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{ethtoolSetTxChecksum, ethtoolSetTSO, ethtoolSetGSO, ethtoolSetGRO} {
		value := struct{ cmd, data uint32 }{cmd, 0} // struct ethtool_value
		var req struct {                            // struct ifreq
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [24 - unsafe.Sizeof(uintptr(0))]byte
		}
		copy(req.name[:unix.IFNAMSIZ-1], device)
		req.data = unsafe.Pointer(&value)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
		if errno != 0 && errno != unix.EOPNOTSUPP {
			return fmt.Errorf("offloads of %s: %w", device, errno)
		}
	}
	return nil
}

// address gives a device its addresses on a net, and brings it up. The thread is
// in the host's namespace.
func (r *Rig) address(a topology.Attachment) error {
	l, err := netlink.LinkByName(a.Net)
	if err != nil {
		return err
	}
	bits := r.Topology.Net(a.Net).Prefix.Bits()
	for _, addr := range a.Addrs {
		n := ipNet(netip.PrefixFrom(addr, bits))
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: n}); err != nil {
			return fmt.Errorf("address %v: %w", addr, err)
		}
	}
	return netlink.LinkSetUp(l)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// gateway is the default route. The thread is in the host's namespace.
func gateway(via netip.Addr) error {
	if !via.IsValid() {
		return nil
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("gateway %v: %w", via, err)
	}
	return nil
}

// wire builds all but the appliance.
func (r *Rig) wire(ctx context.Context) error {
	t := r.Topology
	for i := range t.Nets {
		if err := r.addNet(&t.Nets[i]); err != nil {
			return err
		}
	}
	var nets []string
	if r.Driver != "tun" {
		for _, b := range t.Box {
			nets = append(nets, b.Net)
		}
	}
	if err := r.addHost(topology.BoxName, nets...); err != nil {
		return err
	}
	if err := within(r.Namespace(topology.BoxName), func() error {
		for _, n := range nets {
			l, err := netlink.LinkByName(n)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, h := range t.Hosts {
		if err := r.addHost(h.Name, h.Net); err != nil {
			return err
		}
		if err := within(r.Namespace(h.Name), func() error {
			return errors.Join(r.address(h.Attachment), gateway(h.Via))
		}); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	for i := range t.Routers {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.addRouter(ctx, &t.Routers[i]); err != nil {
			return fmt.Errorf("router %s: %w", t.Routers[i].Name, err)
		}
	}
	return nil
}

// addRouter makes a router, with what it translates and guards.
func (r *Rig) addRouter(ctx context.Context, router *topology.Router) error {
	var nets []string
	for _, a := range router.Nets {
		nets = append(nets, a.Net)
	}
	if err := r.addHost(router.Name, nets...); err != nil {
		return err
	}
	err := within(r.Namespace(router.Name), func() error {
		errs := []error{sysctl("ipv4/ip_forward", "1")}
		for _, a := range router.Nets {
			errs = append(errs, r.address(a))
		}
		return errors.Join(append(errs, gateway(router.Via))...)
	})
	if err != nil {
		return err
	}
	rules := Ruleset(router)
	if rules == "" {
		return nil
	}
	nft, err := exec.LookPath("nft")
	if err != nil {
		if nft, err = exec.LookPath("/usr/sbin/nft"); err != nil {
			return errors.New("it translates or guards, which needs the program nft, Debian's package nftables")
		}
	}
	c := exec.CommandContext(ctx, nft, "-f", "-")
	var out bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(rules), &out, &out
	if err := r.Start(router.Name, c); err != nil {
		return err
	}
	if err := c.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// attachTUN takes the appliance's TUN devices to the nets they are of, whose
// namespaces then forward between their bridge and the device, and answer ARP on
// the bridge for what is behind the device.
func (r *Rig) attachTUN() error {
	for _, b := range r.Topology.Box {
		ns, err := netns.GetFromName(r.Namespace(b.Net))
		if err != nil {
			return err
		}
		err = within(r.Namespace(topology.BoxName), func() error {
			l, err := netlink.LinkByName(b.Net)
			if err != nil {
				return err
			}
			return netlink.LinkSetNsFd(l, int(ns))
		})
		ns.Close()
		if err == nil {
			err = within(r.Namespace(b.Net), func() error { return r.routeTUN(b.Net) })
		}
		if err != nil {
			return fmt.Errorf("TUN device on net %s: %w", b.Net, err)
		}
	}
	return nil
}

// routeTUN readies the namespace of a net that has the appliance's TUN device.
func (r *Rig) routeTUN(net string) error {
	tun, err := netlink.LinkByName(net)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetName(tun, topology.BoxName); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(tun); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	for _, s := range [][2]string{
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/" + bridgeName + "/send_redirects", "0"},
		{"ipv4/conf/" + bridgeName + "/proxy_arp", "1"},
		{"ipv4/neigh/" + bridgeName + "/proxy_delay", "0"},
		{"ipv4/ip_forward", "1"},
	} {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	routes := []*netlink.Route{{LinkIndex: tun.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}}
	for _, a := range on(r.Topology, net) {
		for _, addr := range a.Addrs {
			routes = append(routes, &netlink.Route{LinkIndex: bridge.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(addr, 32))})
		}
	}
	for _, hop := range beyond(r.Topology, net) {
		routes = append(routes, &netlink.Route{LinkIndex: bridge.Attrs().Index, Gw: hop.via.AsSlice(), Dst: ipNet(hop.prefix), Flags: int(netlink.FLAG_ONLINK)})
	}
	for _, route := range routes {
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %v: %w", route.Dst, err)
		}
	}
	return nil
}
