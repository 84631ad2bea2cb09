package lab

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"patchbay/stack"
)

// Addresses of the memory lab: those of reference configuration (a).
var (
	managerReal   = netip.MustParseAddr("10.20.0.11")
	managerMapped = netip.MustParseAddr("203.0.113.10")
	insideNet     = netip.MustParsePrefix("10.20.0.0/24")
	outsideNet    = netip.MustParsePrefix("203.0.113.0/24")
	phonesNet     = netip.MustParsePrefix("198.51.100.0/24")
	homeWAN       = netip.MustParseAddr("198.51.100.30")
	homeLAN       = netip.MustParsePrefix("192.168.1.1/24")
	everywhere    = netip.MustParsePrefix("0.0.0.0/0")
)

// Options vary a Lab. The zero value is a good lab.
type Options struct {
	MTU int // bytes, of every wire; 0 is 1500

	// TFTP is where remote phones fetch their files; zero is 203.0.113.10:69,
	// the mapped address of the call manager in reference configuration (a).
	TFTP netip.AddrPort
	// InsideNets are where media addresses inside may lie; nil is 10.20.0.0/24.
	InsideNets []netip.Prefix

	// Cast is who there is; nil is the cast of the memory lab.
	Cast *Cast

	CA           *CA  // of the phones; nil makes one with RSA 2048 and SHA-1
	KeyBits      int  // of the phones' RSA keys; 0 is 2048
	TLS12        bool // phones speak TLS up to 1.2 instead of 1.0
	SCCPVersion  byte // that phones offer; 0 is 19
	DelayedOffer bool // of the call manager's INVITEs
	NoTFTPHelper bool // the home router does not know TFTP
	NoRTCP       bool
	KeepAlive    time.Duration // of SCCP; 0 is 30 s
	Expires      time.Duration // of SIP; 0 is 120 s
	// LenientManager registers phones also under an address that is not their
	// connection's. It is a violation all the same.
	LenientManager bool

	// OutsideFilter and InsideFilter are Network.Filter of the Internet and of
	// the LAN.
	OutsideFilter, InsideFilter func(packet []byte) bool

	Rand io.Reader // for all peers; nil is crypto/rand
	Log  func(format string, args ...any)
}

// A Lab is a set of peers around an appliance that somebody else provides.
type Lab struct {
	Manager  *CallManager            // the first
	Managers map[string]*CallManager // all, by name
	// Phones of all kinds, by what they are.
	Phones []LabPhone
	CA     *CA

	Internet, LAN, Home *Network    // nil where the network is not ours
	Router              *HomeRouter // in front of the phones at home

	exposure        *exposure // of Internet
	hosts           map[netip.Addr]Host
	outside, inside stack.Link
	closers         []io.Closer
}

// A Place is where a phone of a Lab is.
type Place string

// The places.
const (
	Inside Place = "inside" // plain, on the LAN
	Remote Place = "remote" // secure, on the Internet
	AtHome Place = "home"   // secure, on the Internet behind a home router
)

// A LabPhone is a phone and its place.
type LabPhone struct {
	*Phone
	Place    Place
	Protocol Protocol
}

// HostFor makes the host of a peer that has addr. NewLab calls it once for each
// address of the cast.
type HostFor func(place Place, addr netip.Addr) (Host, error)

// NewLab makes the peers of the cast, if none is given those of the memory lab at
// the same addresses, on hosts that the caller provides, as in network
// namespaces. The networks and the home router are the caller's, too. Close
// closes the hosts.
func NewLab(o Options, hosts HostFor) (*Lab, error) {
	l := &Lab{CA: o.CA, exposure: newExposure()}
	if err := l.build(o, hosts); err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func (l *Lab) build(o Options, hosts HostFor) (err error) {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	o.Rand = &lockedReader{r: o.Rand}
	if !o.TFTP.IsValid() {
		o.TFTP = netip.AddrPortFrom(managerMapped, tftpPort)
	}
	if o.InsideNets == nil {
		o.InsideNets = []netip.Prefix{insideNet}
	}
	setDefault(&o.KeyBits, 2048)
	l.Managers = make(map[string]*CallManager)
	l.hosts = make(map[netip.Addr]Host)
	if l.CA == nil {
		if l.CA, err = NewCA(CAName, 2048, x509.SHA1WithRSA, o.Rand, nil); err != nil {
			return err
		}
	}
	cast := o.Cast
	if cast == nil {
		cast = memoryCast(o)
	}
	return l.addCast(o, cast, hosts)
}

// NewMemoryLab makes networks in memory and the peers on them, as in reference
// configuration (a): the call manager with TFTP at 10.20.0.11, known outside
// as 203.0.113.10; plain phones at 10.20.0.50 (SCCP) and .51 (SIP); secure
// phones at 198.51.100.7 and .8, and at 192.168.1.50 and .51 behind a home
// router at 198.51.100.30. The appliance, 203.0.113.2 and 10.20.0.1, is to be
// put between Outside and Inside.
func NewMemoryLab(o Options) (*Lab, error) {
	l := &Lab{CA: o.CA, Internet: NewNetwork(o.MTU), LAN: NewNetwork(o.MTU), Home: NewNetwork(o.MTU), exposure: newExposure()}
	l.Internet.Filter = func(b []byte) bool {
		l.exposure.watch(b)
		return o.OutsideFilter == nil || o.OutsideFilter(b)
	}
	l.LAN.Filter = o.InsideFilter
	l.closers = append(l.closers, l.Internet, l.LAN, l.Home)
	l.outside = l.Internet.Port(outsideNet)
	l.inside = l.LAN.Port(everywhere)
	l.Router = NewHomeRouter(HomeRouterConfig{LAN: homeLAN, WAN: homeWAN, NoTFTPHelper: o.NoTFTPHelper},
		l.Home.Port(everywhere), l.Internet.Port(netip.PrefixFrom(homeWAN, 32)))
	l.closers = append(l.closers, l.Router)

	err := l.build(o, func(place Place, addr netip.Addr) (Host, error) {
		net, subnet := l.LAN, insideNet
		switch place {
		case Remote:
			net, subnet = l.Internet, phonesNet
		case AtHome:
			net, subnet = l.Home, homeLAN
		}
		h, err := NewStackHost(netip.PrefixFrom(addr, subnet.Bits()), o.MTU, nil)
		if err != nil {
			return nil, err
		}
		net.Attach(h.Link(), netip.PrefixFrom(addr, 32))
		return h, nil
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

// Outside is the link for the appliance's outside interface, 203.0.113.2/24.
// Its gateway 203.0.113.1 stands for the whole Internet. nil where NewLab made
// the lab.
func (l *Lab) Outside() stack.Link { return l.outside }

// Inside is the link for the appliance's inside interface, 10.20.0.1/24.
func (l *Lab) Inside() stack.Link { return l.inside }

// Phone returns the phone of a kind, nil if there is none.
func (l *Lab) Phone(place Place, protocol Protocol) *Phone {
	for _, p := range l.Phones {
		if p.Place == place && p.Protocol == protocol {
			return p.Phone
		}
	}
	return nil
}

// Close ends the peers, last made first, and their hosts and networks. The
// links given to the appliance are closed, too.
func (l *Lab) Close() error {
	var errs []error
	for i := len(l.closers) - 1; i >= 0; i-- {
		errs = append(errs, l.closers[i].Close())
	}
	l.closers = nil
	return errors.Join(errs...)
}
