// Package topology is the language of "patchbay lab": short texts that say which
// hosts, routers and networks stand around the appliance, who has a phone there,
// and who calls whom.
//
//	title  A phone straight on the Internet
//	config direct.cfg
//	net    wan 203.0.113.0/24
//	net    internet 198.51.100.0/24 public
//	net    lan 10.20.0.0/24
//	box    outside=wan inside=lan
//	router isp wan=203.0.113.1 internet=198.51.100.1
//	host   far internet=198.51.100.7 via 198.51.100.1
//	host   ucm lan=10.20.0.11 via 10.20.0.1
//	host   desk lan=10.20.0.50 via 10.20.0.1
//	ca     phone_ca
//	manager main 10.20.0.11
//	phone  4101 sccp 198.51.100.7 secure tftp 203.0.113.10
//	phone  4001 sccp 10.20.0.50 plain tftp 10.20.0.11
//	call   4101 4001
//
// What a reader may get wrong: order matters for acts alone. A statement may
// name what a later line declares; what no line declares is found at the end,
// with the line and the column where it was used.
package topology

import (
	"fmt"
	"net/netip"
)

// A Topology is what a text says. Everything it names is there.
type Topology struct {
	Name   string // of the file, without its ending
	Title  string
	Config string // name of the configuration's file, beside the topology's
	CAs    []string
	cas    []pos // where they stand

	Nets    []Net
	Box     []Port
	Hosts   []Host
	Routers []Router

	Managers []Manager
	Phones   []Phone
	Sites    []Site
	Acts     []Act
}

// A Net is a network that hosts are on: one switch.
type Net struct {
	Name   string
	Prefix netip.Prefix
	Public bool // nothing secret may be seen here
	pos    pos
}

// A Port is an interface of the appliance on a net.
type Port struct {
	Nameif string
	Net    string
	pos    pos
}

// An Attachment is a device of a host on a net, with its addresses.
type Attachment struct {
	Net   string
	Addrs []netip.Addr // at least one
	pos   pos
}

// A Host has addresses on one net.
type Host struct {
	Name string
	Attachment
	Via netip.Addr // its default gateway, zero if it has none
	pos pos
}

// A Router forwards between nets.
type Router struct {
	Name string
	Nets []Attachment
	Via  netip.Addr // its default gateway, zero if it has none
	// Masquerade is the net on which what leaves has the router's own address,
	// and by which nothing comes in that was not asked for or forwarded; "" is
	// none.
	Masquerade string
	Forwards   []Forward
	// Guard is the net by which comes in what Permits say and no more; "" is
	// none.
	Guard   string
	Permits []Permit
	pos     pos
}

// A Protocol is that of a port.
type Protocol string

// The protocols.
const (
	TCP Protocol = "tcp"
	UDP Protocol = "udp"
)

// Ports are those from First to Last.
type Ports struct{ First, Last uint16 }

// String is "69" or "1024-65535".
func (p Ports) String() string {
	if p.First == p.Last {
		return fmt.Sprint(p.First)
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

func (p Ports) overlap(q Ports) bool { return p.First <= q.Last && q.First <= p.Last }

// A Forward sends on what comes to ports of a masquerading router.
type Forward struct {
	Protocol Protocol
	Ports    Ports
	To       netip.Addr
}

// A Permit lets in what is for ports of an address.
type Permit struct {
	Protocol Protocol
	Addr     netip.Addr
	Ports    Ports
}

// A Manager is a call manager.
type Manager struct {
	Name   string
	Addr   netip.Addr
	TFTP   []netip.Addr   // servers with its phones' files; none: its own address
	Backup string         // the manager that takes over; "": none
	Media  []netip.Prefix // where media addresses may lie that it is told; none: its net
	pos    pos
}

// A Phone is one phone with one line.
type Phone struct {
	Line     string
	Protocol string // "sccp" or "sip"
	Addr     netip.Addr
	Secure   bool
	TFTP     netip.Addr
	pos      pos
}

// A Site is a web server, or a proxy.
type Site struct {
	Addr  netip.Addr
	Port  uint16
	Proxy bool
	pos   pos
}

// An Act is one thing that happens: a call, a phone's look at its services, or
// the end of a call manager.
type Act struct {
	Verb string // "call", "services" or "stop"
	Args []string
	pos  pos
}

// Net returns the net of that name, nil if there is none.
func (t *Topology) Net(name string) *Net {
	for i := range t.Nets {
		if t.Nets[i].Name == name {
			return &t.Nets[i]
		}
	}
	return nil
}

// Router returns the router of that name, nil if there is none.
func (t *Topology) Router(name string) *Router {
	for i := range t.Routers {
		if t.Routers[i].Name == name {
			return &t.Routers[i]
		}
	}
	return nil
}

// HostOf returns the name of the host that has addr, "" if no host has it.
func (t *Topology) HostOf(addr netip.Addr) string {
	for _, h := range t.Hosts {
		for _, a := range h.Addrs {
			if a == addr {
				return h.Name
			}
		}
	}
	return ""
}

// Names are those of all hosts, in order: the box, hosts, routers.
func (t *Topology) Names() []string {
	names := []string{BoxName}
	for _, h := range t.Hosts {
		names = append(names, h.Name)
	}
	for _, r := range t.Routers {
		names = append(names, r.Name)
	}
	return names
}

// BoxName is the appliance's name among hosts.
const BoxName = "box"

// An Error is a mistake in a text.
type Error struct {
	File         string
	Line, Column int // from 1; bytes
	Text         string
}

// Error is "FILE:LINE:COLUMN: what is wrong".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}
