// Package host makes the box, or a test's phone, a host: TCP, UDP and ping on
// an embedded gVisor netstack. It is the only package that knows gVisor, and
// it shows itself to the forwarder as one more stack.Link.
//
// What a reader may get wrong: a Stack without addresses of its own takes
// packets for every address and sends from any. It never forwards; whatever
// is written to its Link is for it. (reference/dataplane.md, section A.)
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nic = 1 // the one NIC, whatever the number of interfaces outside

	defaultMTU   = 1500
	queueLen     = 4096     // packets from the netstack waiting for Link.Read
	maxInFlight  = 2048     // TCP handshakes at once; more SYNs are dropped
	sendBuffer   = 64 << 10 // bytes; a limit, nothing is reserved
	maxBuffer    = 256 << 10
	synRetries   = 4                     // of SYN and SYN-ACK: 31 s, where 6 would hold a stranger's handshake for two minutes
	drainWait    = time.Second           // for last words to be read from the Link
	abortEvery   = 10 * time.Millisecond // that Close looks for handshakes it has missed
	timeWait     = 5 * time.Second       // a phone that comes back on its old port must not wait 60 s
	keepIdle     = 60 * time.Second
	keepInterval = 20 * time.Second
	keepCount    = 4
)

// Config says what kind of host a Stack is.
type Config struct {
	MTU   int            // bytes, of the packets it sends; 0 is 1500
	Addrs []netip.Prefix // its own addresses; none: any address is its own
	Rand  io.Reader      // initial sequence numbers, ports; nil: crypto/rand
}

// A Stack is a host. Its methods may be used by several goroutines.
type Stack struct {
	s    *gstack.Stack
	ep   *channel.Endpoint
	link *Link
	any  bool // takes and uses every address
}

// New returns a running host. Its Link must be read for it to be heard.
func New(c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	opt := gstack.Options{
		NetworkProtocols:   []gstack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []gstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	}
	if c.Rand != nil {
		opt.SecureRNG = c.Rand
	}
	s := &Stack{s: gstack.New(opt), any: len(c.Addrs) == 0}
	s.ep = channel.New(queueLen, uint32(c.MTU), "")
	// The forwarder has checked every checksum before a packet comes here.
	s.ep.LinkEPCapabilities |= gstack.CapabilityRXChecksumOffload
	s.link = newLink(s.ep, c.MTU)
	if err := s.configure(c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Stack) configure(c Config) error {
	if err := s.s.CreateNICWithOptions(nic, s.ep, gstack.NICOptions{Name: "identity"}); err != nil {
		return fmt.Errorf("host: create interface: %v", err)
	}
	for _, a := range c.Addrs {
		err := s.s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol: ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{
				Address: tcpip.AddrFrom4(a.Addr().As4()), PrefixLen: a.Bits(),
			},
		}, gstack.AddressProperties{})
		if err != nil {
			return fmt.Errorf("host: address %v: %v", a, err)
		}
	}
	if s.any {
		// Promiscuous takes packets for any address, spoofing sends from any.
		if err := s.s.SetPromiscuousMode(nic, true); err != nil {
			return fmt.Errorf("host: promiscuous mode: %v", err)
		}
		if err := s.s.SetSpoofing(nic, true); err != nil {
			return fmt.Errorf("host: spoofing: %v", err)
		}
	}
	s.s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})

	sack := tcpip.TCPSACKEnabled(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	reuse := tcpip.TCPTimeWaitReuseOption(tcpip.TCPTimeWaitReuseGlobal)
	moderate := tcpip.TCPModerateReceiveBufferOption(false)
	retries := tcpip.TCPSynRetriesOption(synRetries)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &wait, &reuse, &moderate, &retries,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: sendBuffer, Max: maxBuffer},
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: sendBuffer, Max: maxBuffer},
	} {
		if err := s.s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("host: option %T: %v", o, err)
		}
	}
	return nil
}

// Link returns the face the host shows to the forwarder: packets written to it
// are for the host, packets read from it are from the host.
func (s *Stack) Link() *Link { return s.link }

// SetMTU makes mtu the size, in bytes, of the largest packets that the host
// sends from now on.
func (s *Stack) SetMTU(mtu int) {
	s.ep.SetMTU(uint32(mtu))
	s.s.SetNICMTU(nic, uint32(mtu))
	s.link.mtu.Store(int64(mtu))
}

// Close ends every connection and the Link, and waits for the netstack. The
// peers of connections hear of it if somebody still reads the Link: Close waits
// for that, drainWait at most.
func (s *Stack) Close() error {
	s.link.deaf.Store(true) // no new connection while the old ones end
	s.s.Close()
	s.link.drain(drainWait)
	s.link.Close()
	s.wait()
	return nil
}

// wait waits for the netstack to halt. A handshake that began as Close did may
// have missed being aborted, and would go on until its peer is given up.
func (s *Stack) wait() {
	halted := make(chan struct{})
	go func() {
		defer close(halted)
		s.s.Wait()
	}()
	t := time.NewTicker(abortEvery)
	defer t.Stop()
	for {
		select {
		case <-halted:
			return
		case <-t.C:
			for _, e := range s.s.RegisteredEndpoints() {
				e.Abort()
			}
			for _, e := range s.s.CleanupEndpoints() {
				e.Abort()
			}
		}
	}
}

// HandleTCP has f called, on a goroutine of its own, with the first packet of
// each TCP connection to an address and port that nobody Listens on: from
// remote to local, which is what the peer asked for. accept completes the
// handshake; f must close the conn. If f returns without it the peer gets a
// reset. HandleTCP is called once, before traffic.
func (s *Stack) HandleTCP(f func(local, remote netip.AddrPort, accept func() (net.Conn, error))) {
	fwd := tcp.NewForwarder(s.s, 0, maxInFlight, func(r *tcp.ForwarderRequest) {
		id := r.ID()
		done := false
		f(addrPort(id.LocalAddress, id.LocalPort), addrPort(id.RemoteAddress, id.RemotePort), func() (net.Conn, error) {
			done = true
			var wq waiter.Queue
			ep, err := r.CreateEndpoint(&wq)
			r.Complete(err != nil)
			if err != nil {
				return nil, fmt.Errorf("host: handshake: %w", tcpError(err))
			}
			keepAlive(ep)
			return newConn(&wq, ep), nil
		})
		if !done {
			r.Complete(true) // RST
		}
	})
	s.s.SetTransportProtocolHandler(tcp.ProtocolNumber, fwd.HandlePacket)
}

// keepAlive finds out that a peer is gone without a word, so that it does not
// hold a connection for ever.
func keepAlive(ep tcpip.Endpoint) {
	idle := tcpip.KeepaliveIdleOption(keepIdle)
	interval := tcpip.KeepaliveIntervalOption(keepInterval)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	ep.SocketOptions().SetKeepAlive(true)
	ep.SocketOptions().SetDelayOption(false) // signaling is small and wants to go
}

// A conn is a TCP connection that can also end with a reset.
type conn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *conn { return &conn{gonet.NewTCPConn(wq, ep), ep} }

// SetLinger has Close send a reset if sec is 0, and as usual if it is negative.
// See net.TCPConn. Others are not needed here, and refused.
func (c *conn) SetLinger(sec int) error {
	if sec > 0 {
		return fmt.Errorf("host: linger for %d s: %w", sec, errors.ErrUnsupported)
	}
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec == 0})
	return nil
}

// ErrInUse is returned for a local address and port that is taken.
var ErrInUse = errors.New("address already in use")

// DialTCP connects to raddr from laddr. Zero parts of laddr are chosen by the
// host. If laddr is taken the error is ErrInUse. Two connections may share
// laddr if their peers differ, as those of a phone with two call managers do.
func (s *Stack) DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("host: dial %v from %v: %w", raddr, laddr, err)
	}
	var wq waiter.Queue
	ep, terr := s.s.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &wq)
	if terr != nil {
		return fail(tcpError(terr))
	}
	keepAlive(ep)
	ep.SocketOptions().SetReuseAddress(true)
	entry, done := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if terr := ep.Bind(full(laddr)); terr != nil {
		ep.Close()
		return fail(tcpError(terr))
	}
	terr = ep.Connect(full(raddr))
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Abort()
			return fail(ctx.Err())
		case <-done:
			terr = ep.LastError()
		}
	}
	if terr != nil {
		ep.Close()
		return fail(tcpError(terr))
	}
	return newConn(&wq, ep), nil
}

// tcpError makes an error of the netstack's own kind of error.
func tcpError(e tcpip.Error) error {
	switch e.(type) {
	case *tcpip.ErrPortInUse, *tcpip.ErrDuplicateAddress:
		return ErrInUse
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	}
	return errors.New(e.String())
}

// ListenTCP accepts connections to laddr.
func (s *Stack) ListenTCP(laddr netip.AddrPort) (net.Listener, error) {
	l, err := gonet.ListenTCP(s.s, full(laddr), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("host: listen on tcp %v: %w", laddr, err)
	}
	return l, nil
}

// ListenPacket opens a UDP socket on laddr. Port 0 chooses one; its LocalAddr
// tells which.
func (s *Stack) ListenPacket(laddr netip.AddrPort) (net.PacketConn, error) {
	a := full(laddr)
	c, err := gonet.DialUDP(s.s, &a, nil, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("host: listen on udp %v: %w", laddr, err)
	}
	return c, nil
}

// full names the NIC, without which a spoofing stack takes any.
func full(a netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: nic, Port: a.Port()}
	if a.Addr().IsValid() && !a.Addr().IsUnspecified() {
		f.Addr = tcpip.AddrFrom4(a.Addr().As4())
	}
	return f
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a.As4()), port)
}
