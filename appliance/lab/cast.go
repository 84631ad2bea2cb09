package lab

import (
	"fmt"
	"net/http"
	"net/netip"
)

// A Cast is who there is in a lab, and at which addresses. Several parts may
// have one address.
type Cast struct {
	Managers []ManagerPart
	Phones   []PhonePart
	Sites    []SitePart
}

// A ManagerPart is a call manager.
type ManagerPart struct {
	Name  string
	Place Place
	Addr  netip.Addr
	// MediaNets are where media addresses may lie that phones announce to it;
	// nil is Options.InsideNets.
	MediaNets []netip.Prefix
	// Backup is the address of the manager that its phones go to when it is
	// gone; zero is none. Both must know the same phones.
	Backup netip.Addr
	// TFTP are the servers that have its phones' files; nil is its own address.
	TFTP []netip.Addr
}

// A PhonePart is a phone. All managers know it.
type PhonePart struct {
	Place    Place
	Protocol Protocol
	Addr     netip.Addr
	Line     string
	Secure   bool
	TFTP     netip.AddrPort // where it boots, as it sees it
	MAC      string         // 12 hex digits; "" is 0200 and the address
	Tone     int            // Hz; 0 is one that no other phone has
}

// A SitePart is a web server, or a proxy that HTTP clients go through.
type SitePart struct {
	Place Place
	Addr  netip.AddrPort
	Proxy bool
}

// memoryCast is the cast of the memory lab, that of reference configuration (a).
func memoryCast(o Options) *Cast {
	real := netip.AddrPortFrom(managerReal, tftpPort)
	phone := func(place Place, protocol Protocol, addr, line string, tone int) PhonePart {
		p := PhonePart{Place: place, Protocol: protocol, Addr: netip.MustParseAddr(addr), Line: line, Tone: tone, TFTP: real}
		if place != Inside {
			p.Secure, p.TFTP = true, o.TFTP
		}
		return p
	}
	return &Cast{
		Managers: []ManagerPart{{Name: "ucm", Place: Inside, Addr: managerReal}},
		Phones: []PhonePart{
			phone(Inside, SCCP, "10.20.0.50", "4001", 500),
			phone(Inside, SIP, "10.20.0.51", "4002", 650),
			phone(Remote, SCCP, "198.51.100.7", "4101", 800),
			phone(Remote, SIP, "198.51.100.8", "4102", 950),
			phone(AtHome, SCCP, "192.168.1.50", "4103", 1100),
			phone(AtHome, SIP, "192.168.1.51", "4104", 1250),
		},
	}
}

// hardware is the MAC of p.
func (p PhonePart) hardware() string {
	if p.MAC != "" {
		return p.MAC
	}
	return fmt.Sprintf("0200%X", p.Addr.As4())
}

// tone is the frequency of the phone with index i: 150 Hz from the next one's,
// so that no two of a small cast can be taken for each other.
func (p PhonePart) tone(i int) int {
	if p.Tone != 0 {
		return p.Tone
	}
	const first, step = 500, 150
	return first + i*step%(toneHighest-first)/toneStep*toneStep
}

// host returns the host that has addr.
func (l *Lab) host(hosts HostFor, place Place, addr netip.Addr) (Host, error) {
	if h := l.hosts[addr]; h != nil {
		return h, nil
	}
	h, err := hosts(place, addr)
	if err != nil {
		return nil, err
	}
	l.hosts[addr] = h
	l.closers = append(l.closers, h)
	return h, nil
}

// addCast makes the peers.
func (l *Lab) addCast(o Options, c *Cast, hosts HostFor) error {
	if len(c.Managers) == 0 {
		return fmt.Errorf("a cast without a call manager")
	}
	for _, m := range c.Managers {
		if err := l.addManager(o, c, m, hosts); err != nil {
			return err
		}
	}
	for _, s := range c.Sites {
		if err := l.addSite(s, hosts); err != nil {
			return err
		}
	}
	for i, p := range c.Phones {
		if err := l.addPhone(o, p, p.tone(i), hosts); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) addManager(o Options, cast *Cast, part ManagerPart, hosts HostFor) error {
	h, err := l.host(hosts, part.Place, part.Addr)
	if err != nil {
		return err
	}
	if part.MediaNets == nil {
		part.MediaNets = o.InsideNets
	}
	c := CallManagerConfig{
		Host: h, KeepAlive: o.KeepAlive, Expires: o.Expires, DelayedOffer: o.DelayedOffer,
		MediaNets: part.MediaNets, RefuseUnreachable: !o.LenientManager, Backup: part.Backup, Rand: o.Rand, Log: o.Log,
	}
	if o.SCCPVersion > managerVersion {
		c.MaxVersion = o.SCCPVersion
	}
	for _, p := range cast.Phones {
		c.Lines = append(c.Lines, LineConfig{"SEP" + p.hardware(), p.Line, p.Protocol})
	}
	m, err := NewCallManager(c)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, m)
	l.Managers[part.Name] = m
	if l.Manager == nil {
		l.Manager = m
	}
	for _, addr := range part.TFTP {
		if addr == part.Addr {
			continue
		}
		h, err := l.host(hosts, part.Place, addr)
		if err != nil {
			return err
		}
		s, err := ServeTFTP(h, tftpPort)
		if err != nil {
			return err
		}
		l.closers = append(l.closers, s)
		m.writeFiles(s)
	}
	return nil
}

func (l *Lab) addPhone(o Options, p PhonePart, tone int, hosts HostFor) error {
	h, err := l.host(hosts, p.Place, p.Addr)
	if err != nil {
		return err
	}
	c := PhoneConfig{
		Host: h, Protocol: p.Protocol, MAC: p.hardware(), Line: p.Line, Tone: tone,
		AutoAnswer: true, TLS12: o.TLS12, Version: o.SCCPVersion, NoRTCP: o.NoRTCP,
		TFTP: p.TFTP, Rand: o.Rand, Log: o.Log,
	}
	if p.Secure {
		if c.Identity, err = l.CA.IssueMIC(c.MAC, "7962G", o.KeyBits); err != nil {
			return err
		}
	}
	phone, err := NewPhone(c)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, phone)
	l.Phones = append(l.Phones, LabPhone{phone, p.Place, p.Protocol})
	return nil
}

func (l *Lab) addSite(s SitePart, hosts HostFor) error {
	h, err := l.host(hosts, s.Place, s.Addr.Addr())
	if err != nil {
		return err
	}
	var handler http.Handler = http.HandlerFunc(serveMenu)
	if s.Proxy {
		handler = newForwardProxy(h)
	}
	site, err := serveSite(h, s.Addr.Port(), handler)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, site)
	return nil
}
