package appliance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"

	"patchbay/appliance/logging"
	"patchbay/appliance/pki"
)

// dialSyslog connects to a syslog host by the box's own netstack, from the
// address of the interface that the configuration names.
func (a *Appliance) dialSyslog(ctx context.Context, h logging.Host) (net.Conn, error) {
	from := netip.AddrPortFrom(h.From, 0)
	to := netip.AddrPortFrom(h.Addr, h.Port)
	if !h.From.IsValid() {
		return nil, fmt.Errorf("appliance: logging host: interface %s has no address, or is shut down", h.Interface)
	}
	if h.Transport != logging.UDP {
		return a.host.DialTCP(ctx, from, to)
	}
	pc, err := a.host.ListenPacket(from)
	if err != nil {
		return nil, err
	}
	return &packetConn{pc, net.UDPAddrFromAddrPort(to)}, nil
}

// dialMail connects to a mail server, given by address or name, as the routes have
// it.
func (a *Appliance) dialMail(ctx context.Context, server string) (net.Conn, error) {
	addr, err := netip.ParseAddr(server)
	if err != nil {
		addrs, err := a.lookup(ctx, server)
		if err != nil {
			return nil, err
		}
		addr = addrs[0]
	}
	out := a.plan().facing(addr)
	if out == nil {
		return nil, fmt.Errorf("appliance: no route to host %v", addr)
	}
	return a.host.DialTCP(ctx, netip.AddrPortFrom(out.Addr.Addr(), 0), netip.AddrPortFrom(addr, logging.MailPort))
}

// A packetConn is a net.Conn of datagrams to one address.
type packetConn struct {
	net.PacketConn
	to net.Addr
}

func (c *packetConn) Write(b []byte) (int, error)      { return c.WriteTo(b, c.to) }
func (c *packetConn) RemoteAddr() net.Addr             { return c.to }
func (c *packetConn) Read(b []byte) (n int, err error) { n, _, err = c.ReadFrom(b); return n, err }

// syslogTLS is what the certificate of a syslog host is checked by: the trust
// anchors on flash, and its address, which must stand in it. The anchors are
// those of phones, too, and a phone must not pass for a syslog host.
func (a *Appliance) syslogTLS() *tls.Config {
	pool := x509.NewCertPool()
	var anchors []pki.Anchor
	if a.opt.Store != nil {
		anchors = a.opt.Store.Anchors()
	}
	for _, x := range anchors {
		pool.AddCert(x.Cert)
	}
	return &tls.Config{RootCAs: pool, Time: a.opt.Now, MinVersion: tls.VersionTLS12}
}
