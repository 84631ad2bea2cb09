package config

import (
	"strings"

	"patchbay/appliance/cli"
)

const (
	maxNesting = 64      // object-groups in each other; the ASA's own limit is not known
	maxMembers = 1 << 20 // members of all object-groups together, those of nested ones counted in each
)

// A GroupKind is what an object group is made of.
type GroupKind uint8

const (
	NetworkGroup  GroupKind = iota // addresses
	ServiceGroup                   // ports of a protocol, or whole services
	ProtocolGroup                  // IP protocols
	ICMPGroup                      // ICMP types
)

// String returns the word after object-group: "network", "icmp-type".
func (k GroupKind) String() string {
	return [...]string{"network", "service", "protocol", "icmp-type"}[min(k, ICMPGroup)]
}

// An ObjectGroup is a list of addresses, ports or services under one name.
// (reference/asa-cli.md, section 4.) Addrs, Ports and Services are all of its
// members, those of the groups in it as well, each once and in their order;
// they may be shared and must not be changed.
type ObjectGroup struct {
	Line        int // of its first stanza
	Kind        GroupKind
	Name        string
	Proto       string // of a service group that lists ports: "tcp", "udp" or "tcp-udp"; else ""
	Description string
	Members     []GroupMember

	Addrs    []AddrSpec // of a NetworkGroup
	Ports    []PortSpec // of a ServiceGroup with Proto
	Services []Service  // of all others; of a ProtocolGroup only Proto is set, of an ICMPGroup only ICMPType

	state groupState
}

// A groupState is how far a group is resolved.
type groupState uint8

const (
	groupNew groupState = iota
	groupOpen
	groupWhole
	groupFailed
)

// A GroupMember is one line of an object group.
type GroupMember struct {
	Line     int
	Group    string    // of group-object
	Object   string    // the object network or object service it names
	Addr     AddrSpec  // of an address written out, or of Object
	Ports    PortSpec  // of port-object
	Services []Service // of the other kinds: two for tcp-udp
}

// A ServiceObject is an object service. (reference/asa-cli.md, section 4.)
type ServiceObject struct {
	Line        int // of its service line, or of its first stanza
	Name        string
	Service     Service
	Defined     bool // there is a service line
	Description string
}

// A Service is packets of one kind.
type Service struct {
	Proto              uint8      // IP protocol number; 0 is any
	SrcPorts, DstPorts []PortSpec // of TCP and UDP: one of them; nil is any
	ICMPType, ICMPCode int        // of ICMP; -1 is any
}

const servicePorts = "eq <port>|neq <port>|lt <port>|gt <port>|range <from:port> <to:port>"

func groupGlobals() []command {
	begin := func(kind GroupKind, m modeID) func(p *parser, a cli.Args) {
		return func(p *parser, a cli.Args) { p.enterGroup(kind, m, a) }
	}
	list := []command{
		cmd("object service <name>", each.opens(inServiceObject), func(p *parser, a cli.Args) {
			p.enter(inServiceObject, findOrAdd(&p.run.ServiceObjects, func(o *ServiceObject) bool { return o.Name == a.Get("name") },
				func() ServiceObject { return ServiceObject{Line: p.line, Name: a.Get("name")} }))
		}),
		cmd("object-group network <name>", each.opens(inNetworkGroup), begin(NetworkGroup, inNetworkGroup)),
		cmd("object-group service <name> [tcp|udp|tcp-udp]", each.opens(inServiceGroup), begin(ServiceGroup, inServiceGroup)),
		cmd("object-group protocol <name>", each.opens(inProtocolGroup), begin(ProtocolGroup, inProtocolGroup)),
		cmd("object-group icmp-type <name>", each.opens(inICMPGroup), begin(ICMPGroup, inICMPGroup)),
		cmd("time-range <name>", each.opens(inTimeRange), func(p *parser, a cli.Args) {
			p.enter(inTimeRange, findOrAdd(&p.run.TimeRanges, func(t *TimeRange) bool { return t.Name == a.Get("name") },
				func() TimeRange { return TimeRange{Line: p.line, Name: a.Get("name")} }))
		}),
	}
	return append(list, notYet("an object-group of users or security groups", "object-group {user|security} <rest:line>")...)
}

// enterGroup begins or goes on with an object group. All kinds share names.
func (p *parser) enterGroup(kind GroupKind, m modeID, a cli.Args) {
	name := a.Token("name")
	proto := ""
	for _, w := range []string{"tcp", "udp", "tcp-udp"} {
		if a.Has(w) {
			proto = w
		}
	}
	i, known := p.groups[name.Text]
	if !known {
		i = len(p.run.Groups)
		p.groups[name.Text] = i
		p.run.Groups = append(p.run.Groups, ObjectGroup{Line: p.line, Kind: kind, Name: name.Text, Proto: proto})
	}
	if g := p.run.Groups[i]; g.Kind != kind || g.Proto != proto {
		was := strings.TrimRight("object-group "+g.Kind.String()+" "+g.Name+" "+g.Proto, " ")
		p.refuse(name, "", "line %d has %s, and names of object-groups are distinct; use another name", g.Line, was)
		return
	}
	p.enter(m, i)
}

func (p *parser) group() *ObjectGroup { return &p.run.Groups[p.item] }

func (p *parser) member(m GroupMember) {
	m.Line = p.line
	g := p.group()
	g.Members = append(g.Members, m)
}

// everyGroup are the commands of all kinds of object groups.
func everyGroup() []command {
	list := []command{
		cmd("description <text:line>", one, func(p *parser, a cli.Args) { p.group().Description = a.Get("text") }),
		cmd("group-object <name>", each, func(p *parser, a cli.Args) { p.member(GroupMember{Group: a.Get("name")}) }),
	}
	return append(list, notYet("taking this back with no", "no <rest:line>")...)
}

func networkGroupCommands() []command {
	list := []command{
		cmd("network-object {host <one:addr>|<net:addr> <mask>|object <name>}", each, func(p *parser, a cli.Args) {
			switch {
			case a.Has("host"):
				addr, _ := p.addr(a.Get("one"))
				p.member(GroupMember{Addr: AddrSpec{From: addr, To: addr}})
			case a.Has("object"):
				p.member(GroupMember{Object: a.Get("name"), Addr: AddrSpec{Object: a.Get("name")}})
			default:
				if prefix, ok := p.prefix(a.Token("net"), a.Token("mask")); ok {
					p.member(GroupMember{Addr: AddrSpec{From: prefix.Addr(), To: lastAddr(prefix), Any: prefix.Bits() == 0}})
				}
			}
		}),
	}
	return append(list, everyGroup()...)
}

func serviceGroupCommands() []command {
	list := []command{
		cmd("port-object {eq <port>|range <from:port> <to:port>}", each, func(p *parser, a cli.Args) {
			if p.group().Proto == "" {
				p.refuse(a.Token("port-object"), "", "object-group service %s is of no protocol; write service-object tcp destination eq and the port", p.group().Name)
				return
			}
			if spec, ok := p.aclPorts(a, ""); ok {
				p.member(GroupMember{Ports: spec})
			}
		}),
		cmd("service-object object <name>", each, func(p *parser, a cli.Args) {
			if p.wholeServices(a) {
				p.member(GroupMember{Object: a.Get("name")})
			}
		}),
		cmd("service-object {tcp|udp|tcp-udp} source=[source {"+servicePorts+"}] destination=[[destination] {"+servicePorts+"}]", each, func(p *parser, a cli.Args) {
			src, ok1 := p.portList(a, "source.")
			dst, ok2 := p.portList(a, "destination.")
			if !p.wholeServices(a) || !ok1 || !ok2 {
				return
			}
			var list []Service
			for _, proto := range []uint8{protoTCP, protoUDP} {
				if a.Has("tcp-udp") || a.Has("tcp") && proto == protoTCP || a.Has("udp") && proto == protoUDP {
					list = append(list, Service{Proto: proto, SrcPorts: src, DstPorts: dst, ICMPType: -1, ICMPCode: -1})
				}
			}
			p.member(GroupMember{Services: list})
		}),
		cmd("service-object icmp [<type:icmptype> [<code:0-255>]]", each, func(p *parser, a cli.Args) {
			if p.wholeServices(a) {
				p.member(GroupMember{Services: []Service{icmpService(a)}})
			}
		}),
		cmd("service-object <proto>", each, func(p *parser, a cli.Args) {
			if proto, _ := parseProto(a.Get("proto")); p.wholeServices(a) {
				p.member(GroupMember{Services: []Service{{Proto: uint8(proto), ICMPType: -1, ICMPCode: -1}}})
			}
		}),
	}
	list = append(list, notYet("SCTP ports", "service-object sctp <rest:line>")...)
	list = append(list, notYet("ICMP for IPv6", "service-object icmp6 [<rest:line>]")...)
	return append(list, everyGroup()...)
}

// wholeServices refuses service-object in a group of ports.
func (p *parser) wholeServices(a cli.Args) bool {
	if g := p.group(); g.Proto != "" {
		p.refuse(a.Token("service-object"), "", "object-group service %s lists ports of %s; write port-object", g.Name, g.Proto)
		return false
	}
	return true
}

func icmpService(a cli.Args) Service {
	s := Service{Proto: protoICMP, ICMPType: -1, ICMPCode: a.Int("code", -1)}
	if a.Has("type") {
		s.ICMPType, _ = parseICMP(a.Get("type"))
	}
	return s
}

func protocolGroupCommands() []command {
	return append([]command{
		cmd("protocol-object <proto>", each, func(p *parser, a cli.Args) {
			proto, _ := parseProto(a.Get("proto"))
			p.member(GroupMember{Services: []Service{{Proto: uint8(proto), ICMPType: -1, ICMPCode: -1}}})
		}),
	}, everyGroup()...)
}

func icmpGroupCommands() []command {
	return append([]command{
		cmd("icmp-object <type:icmptype>", each, func(p *parser, a cli.Args) { p.member(GroupMember{Services: []Service{icmpService(a)}}) }),
	}, everyGroup()...)
}

func serviceObjectCommands() []command {
	object := func(p *parser, s Service) {
		o := &p.run.ServiceObjects[p.item]
		o.Line, o.Defined, o.Service = p.line, true, s
	}
	list := []command{
		cmd("service {tcp|udp} source=[source {"+servicePorts+"}] destination=[destination {"+servicePorts+"}]", by("service"), func(p *parser, a cli.Args) {
			src, ok1 := p.portList(a, "source.")
			dst, ok2 := p.portList(a, "destination.")
			if ok1 && ok2 {
				s := Service{Proto: protoTCP, SrcPorts: src, DstPorts: dst, ICMPType: -1, ICMPCode: -1}
				if a.Has("udp") {
					s.Proto = protoUDP
				}
				object(p, s)
			}
		}),
		cmd("service icmp [<type:icmptype> [<code:0-255>]]", by("service"), func(p *parser, a cli.Args) { object(p, icmpService(a)) }),
		cmd("service <proto>", by("service"), func(p *parser, a cli.Args) {
			proto, _ := parseProto(a.Get("proto"))
			object(p, Service{Proto: uint8(proto), ICMPType: -1, ICMPCode: -1})
		}),
		cmd("description <text:line>", one, func(p *parser, a cli.Args) { p.run.ServiceObjects[p.item].Description = a.Get("text") }),
	}
	list = append(list, notYet("SCTP ports", "service sctp <rest:line>")...)
	list = append(list, notYet("ICMP for IPv6", "service icmp6 [<rest:line>]")...)
	return append(list, notYet("taking this back with no", "no <rest:line>")...)
}
