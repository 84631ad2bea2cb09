package appliance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"

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

// showMail shows how sending mail fares, where there is any to send.
func (x *execution) showMail(m *logging.MailStatus, s *logging.Settings) {
	if len(s.MailServers) == 0 || len(s.Recipients) == 0 {
		return
	}
	x.printf("        Mail to %d recipients by %s", len(s.Recipients), strings.Join(s.MailServers, ", "))
	if m.Error != "" {
		x.printf(" (%.200s)", m.Error)
	}
	x.printf("  sent: %d  refused: %d  errors: %d  dropped: %d  waiting: %d\n", m.Sent, m.Refused, m.Errors, m.Dropped, m.Waiting)
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
