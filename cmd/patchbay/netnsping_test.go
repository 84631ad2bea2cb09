//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// silentFor is how long a test waits for what must not happen.
const silentFor = 700 * time.Millisecond

// ping sends echo requests with size bytes from an address of the namespace ns
// until one is answered, for as long as wait, and reports whether one was.
func (n *testNet) ping(t testing.TB, ns string, from, to netip.Addr, size int, wait time.Duration) bool {
	t.Helper()
	var pc net.PacketConn
	n.within(t, ns, func() (err error) {
		pc, err = net.ListenPacket("ip4:icmp", from.String())
		return err
	})
	defer pc.Close()
	payload := bytes.Repeat([]byte("patchbay"), size/8+1)[:size]
	buf := make([]byte, 1<<16)
	late := time.Now().Add(wait)
	for seq := uint16(1); time.Now().Before(late); seq++ {
		out := gopacket.NewSerializeBuffer()
		must(t, gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true},
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 4711, Seq: seq},
			gopacket.Payload(payload)))
		if _, err := pc.WriteTo(out.Bytes(), &net.IPAddr{IP: to.AsSlice()}); err != nil {
			t.Fatalf("ping %v: %v", to, err)
		}
		must(t, pc.SetReadDeadline(time.Now().Add(min(500*time.Millisecond, time.Until(late)))))
		for {
			k, who, err := pc.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			must(t, err)
			var m layers.ICMPv4
			if err := m.DecodeFromBytes(buf[:k], gopacket.NilDecodeFeedback); err != nil {
				t.Errorf("ping %v: % x: %v", to, buf[:k], err)
				continue
			}
			if who.String() == to.String() && m.TypeCode.Type() == layers.ICMPv4TypeEchoReply && m.Id == 4711 && bytes.Equal(m.Payload, payload) {
				return true
			}
		}
	}
	return false
}

// address returns the Ethernet address of a device.
func (n *testNet) address(t testing.TB, ns, dev string) (mac net.HardwareAddr) {
	t.Helper()
	n.within(t, ns, func() error {
		i, err := net.InterfaceByName(dev)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	return mac
}

// neighbour returns what the kernel of ns knows of addr: "lladdr ... REACHABLE".
func (n *testNet) neighbour(t testing.TB, ns string, addr netip.Addr) string {
	t.Helper()
	out, err := ipCommand("-n", ns, "neigh", "show", addr.String())
	if err != nil {
		t.Fatalf("ip neigh: %v: %s", err, out)
	}
	return out
}

// TestPing asks the box for its addresses over each kind of links.
func TestPing(t *testing.T) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			n := newTestNet(t, driver)
			n.start(t, startOptions{})
			for _, tt := range []struct {
				ns       string
				from, to netip.Addr
				size     int // bytes
				want     bool
			}{
				{n.out, gateway, boxAddr, 56, true},
				{n.out, phoneAddr, boxAddr, 56, true},
				{n.out, phoneAddr, mtaMapped, 56, true},
				{n.out, phoneAddr, boxAddr, 4000, true}, // in fragments, both ways
				{n.out, phoneAddr, ucmMapped, 56, false},
				{n.out, phoneAddr, nobody, 56, false},
				{n.out, phoneAddr, boxInside, 56, false}, // the far side's address
				{n.in, deskAddr, boxInside, 56, true},
				{n.in, ucmReal, mtaInside, 56, true},
				{n.in, deskAddr, boxAddr, 56, false},
			} {
				wait := patience
				if !tt.want {
					wait = silentFor
				}
				if tt.to == boxInside && tt.ns == n.out {
					mustIP(t, "-n", n.out, "route", "add", boxInside.String(), "via", boxAddr.String())
				}
				if got := n.ping(t, tt.ns, tt.from, tt.to, tt.size, wait); got != tt.want {
					t.Errorf("ping with %d bytes from %v to %v answered: %t, want %t", tt.size, tt.from, tt.to, got, tt.want)
				}
			}
		})
	}
}

// TestOnlyTheBoxAnswers gives the kernel in the box's namespace the box's own
// addresses and leave to forward. It must not hear of anything: what the
// access list and "icmp deny" refuse stays without any answer, and each ARP
// request has one.
func TestOnlyTheBoxAnswers(t *testing.T) {
	t.Parallel()
	n := newTestNet(t, overPacket)
	for _, a := range []netip.Addr{boxAddr, ucmMapped, mtaMapped, boxInside} {
		mustIP(t, "-n", n.box, "addr", "add", a.String()+"/32", "dev", "lo")
	}
	n.sysctl(t, n.box, "ipv4/ip_forward", "1")
	n.start(t, startOptions{config: demoWith(t, "icmp permit any outside", "icmp deny any outside")})
	mustIP(t, "-n", n.box, "route", "add", "10.20.0.0/24", "dev", "pbin")
	mustIP(t, "-n", n.box, "route", "add", "203.0.113.0/24", "dev", "pbout", "src", boxAddr.String())
	mustIP(t, "-n", n.box, "route", "add", "default", "via", gateway.String())
	c := n.capture(t, n.out, "pbout")
	h := n.host(t, n.out, phoneAddr)

	for _, to := range []netip.Addr{boxAddr, mtaMapped, nobody} {
		if n.ping(t, n.out, phoneAddr, to, 56, silentFor) {
			t.Errorf("ping to %v is answered", to)
		}
	}
	udp, err := h.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer udp.Close()
	for _, to := range []netip.Addr{boxAddr, ucmMapped, mtaMapped} {
		for _, port := range []uint16{22, 80, 9999, 16384} {
			ap := netip.AddrPortFrom(to, port)
			_, err := udp.WriteTo([]byte("anybody?"), net.UDPAddrFromAddrPort(ap))
			must(t, err)
			checkNoAnswer(t, h, ap, silentFor/4)
		}
	}

	mac := n.address(t, n.box, "pbout")
	for addr, want := range map[netip.Addr]bool{boxAddr: true, ucmMapped: true, mtaMapped: true, nobody: false} {
		if got := n.neighbour(t, n.out, addr); strings.Contains(got, "lladdr "+mac.String()) != want {
			t.Errorf("neighbour %v: %q; want the box, %v: %t", addr, got, mac, want)
		}
	}
	asked, answered := make(map[string]int), make(map[string]int)
	for _, p := range c.packets(nil) {
		eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		ours := bytes.Equal(eth.SrcMAC, mac)
		a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
		switch {
		case ok && !ours && a.Operation == layers.ARPRequest:
			asked[fmt.Sprint(net.IP(a.DstProtAddress))]++
		case ok && ours && a.Operation == layers.ARPReply:
			answered[fmt.Sprint(net.IP(a.SourceProtAddress))]++
		case ours:
			t.Errorf("the box's device sent\n%v", p)
		}
	}
	if len(asked) < 4 {
		t.Errorf("ARP requests %v, want for four addresses", asked)
	}
	for addr, got := range answered {
		if addr == nobody.String() || got > asked[addr] {
			t.Errorf("%d ARP answers for %s, asked %d times", got, addr, asked[addr])
		}
	}
}

// TestPingFromBox has the box ping and trace the kernel's hosts on both sides, in
// fragments as well, and by a name that one of them knows.
func TestPingFromBox(t *testing.T) {
	t.Parallel()
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			n := newTestNet(t, driver)
			flash := filepath.Join(t.TempDir(), "flash")
			n.start(t, startOptions{flash: flash, config: demoWith(t, "ftp mode passive\n", "ftp mode passive\n"+
				"dns domain-lookup inside\ndns name-server "+deskAddr.String()+"\n")})
			pc, err := n.host(t, n.in, deskAddr).ListenUDP(netip.AddrPortFrom(deskAddr, 53))
			must(t, err)
			defer pc.Close()
			go func() {
				buf := make([]byte, 1500)
				for {
					k, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					pc.WriteTo(dnsAnswer(buf[:k], ucmReal), from)
				}
			}()
			for _, tt := range []struct{ line, want string }{
				{"ping " + ucmReal.String(), "Success rate is 100 percent (5/5)"},
				{"ping " + phoneAddr.String() + " repeat 2 size 4000 validate", "Success rate is 100 percent (2/2)"},
				{"ping inside ucm repeat 2", "Echos to " + ucmReal.String() + ", timeout is 2 seconds:\n!!\n"},
				{"ping " + nobody.String() + " repeat 1 timeout 1", "Success rate is 0 percent (0/1)"},
				{"traceroute " + ucmReal.String() + " probe 1", "\n 1  " + ucmReal.String() + " "},
				{"traceroute " + phoneAddr.String() + " use-icmp probe 1", "\n 1  " + phoneAddr.String() + " "},
			} {
				out, err := patchbay(t, append([]string{"exec", "--flash", flash}, strings.Fields(tt.line)...)...)
				if err != nil || !strings.Contains(out, tt.want) {
					t.Errorf("%s: %v\n%s\nwant %q", tt.line, err, out, tt.want)
				}
			}
		})
	}
}

// dnsAnswer answers a query with one address, by layers that the box does not use.
func dnsAnswer(query []byte, addr netip.Addr) []byte {
	var m layers.DNS
	if err := m.DecodeFromBytes(query, gopacket.NilDecodeFeedback); err != nil || len(m.Questions) != 1 {
		return nil
	}
	m.QR, m.RA, m.ANCount = true, true, 1
	m.Answers = []layers.DNSResourceRecord{{Name: m.Questions[0].Name, Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: addr.AsSlice()}}
	out := gopacket.NewSerializeBuffer()
	if err := m.SerializeTo(out, gopacket.SerializeOptions{FixLengths: true}); err != nil {
		return nil
	}
	return out.Bytes()
}
