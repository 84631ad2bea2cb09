package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/nat"
	"patchbay/stack"
)

const connFilter = "{address <addr:addrs>|port <ports>|protocol {tcp|udp|icmp}}..."

var showConnCommands = []cli.Rule[execFunc]{
	{Syntax: "show conn count", Help: "How many connections there are", Do: show(showConnCount)},
	{Syntax: "show conn [" + connFilter + "] [detail]", Help: "Connections, and pinholes for those yet to come", Do: show(showConn)},
	{Syntax: "show local-host [<addr>]", Help: "Hosts with connections, by interface", Do: show(showLocalHost)},
}

// clockTime writes d as H:MM:SS.
func clockTime(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// shortTime writes d as "show conn detail" does: "4s", "2m5s", "1h0m", "3D4h".
func shortTime(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dD%dh", s/86400, s/3600%24)
}

// A connEnd is one side of a connection or pinhole in a list: the interface, the
// address there and how the other side knows it. Zero addresses and ports of a
// pinhole are any.
type connSide struct {
	on           *stack.Interface
	real, mapped netip.AddrPort
}

func (s connSide) name() string { return anyIf(s.on) }

// text is "inside 10.20.0.50(203.0.113.2):5000", the port that of the real end.
// Where the two differ in the port as well, both are whole.
func (s connSide) text() string {
	switch {
	case s.real == s.mapped:
		return s.name() + " " + wild(s.real)
	case s.real.Port() == s.mapped.Port():
		return fmt.Sprintf("%s %s(%s):%d", s.name(), wildAddr(s.real.Addr()), wildAddr(s.mapped.Addr()), s.real.Port())
	}
	return fmt.Sprintf("%s %s(%s)", s.name(), wild(s.real), wild(s.mapped))
}

// long is "inside:10.20.0.50/5000 (203.0.113.2/5000)".
func (s connSide) long() string {
	return fmt.Sprintf("%s:%s (%s)", s.name(), slashed(s.real), slashed(s.mapped))
}

// wildAddr is an address of which none is any, as the ASA writes it.
func wildAddr(a netip.Addr) string {
	if !a.IsValid() {
		return "0.0.0.0"
	}
	return a.String()
}

func wild(a netip.AddrPort) string    { return fmt.Sprintf("%s:%d", wildAddr(a.Addr()), a.Port()) }
func slashed(a netip.AddrPort) string { return fmt.Sprintf("%s/%d", wildAddr(a.Addr()), a.Port()) }

// An endpoint is an address and a port, either of which may not be known.
type endpoint struct {
	Addr netip.Addr `json:"address,omitzero"`
	Port uint16     `json:"port"`
}

func endpointOf(a netip.AddrPort) endpoint { return endpoint{a.Addr(), a.Port()} }

func (e endpoint) addrPort() netip.AddrPort { return netip.AddrPortFrom(e.Addr, e.Port) }

// String returns "10.20.0.50:5000".
func (e endpoint) String() string { return e.addrPort().String() }

// sides returns the two sides of a connection, the outside first: the one with
// the lower security level, or the server's.
func sides(in, out *stack.Interface, client, server stack.Flow) [2]connSide {
	s := [2]connSide{{out, server.Dst, client.Dst}, {in, client.Src, server.Src}}
	if in != nil && out != nil && in.Level < out.Level {
		s[0], s[1] = s[1], s[0]
	}
	return s
}

// connList is the connections by number, which is the order they opened in.
func connList(t *nat.Table) []*nat.Conn {
	var all []*nat.Conn
	t.Conns(func(c *nat.Conn) bool {
		all = append(all, c)
		return true
	})
	slices.SortFunc(all, func(a, b *nat.Conn) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// holeList is the pinholes by what they match, which is theirs alone but for
// their rank.
func holeList(t *nat.Table) []*nat.Hole {
	var all []*nat.Hole
	t.Holes(func(h *nat.Hole) bool {
		all = append(all, h)
		return true
	})
	ends := func(a, b netip.AddrPort) int { return a.Compare(b) }
	slices.SortStableFunc(all, func(a, b *nat.Hole) int {
		return cmp.Or(cmp.Compare(a.Match.Proto, b.Match.Proto), ends(a.Match.Dst, b.Match.Dst), ends(a.Match.Src, b.Match.Src),
			cmp.Compare(a.In.String(), b.In.String()), ends(a.To.Dst, b.To.Dst), ends(a.To.Src, b.To.Src),
			cmp.Compare(a.Reason, b.Reason), a.Expires.Compare(b.Expires))
	})
	return all
}

// A connMatch is what "show conn" and "clear conn" are narrowed to.
type connMatch struct {
	proto          stack.Proto // 0: any
	from, to       netip.Addr  // not valid: any
	portLo, portHi uint16
	ports          bool
}

func (x *execution) connMatch(args cli.Args) connMatch {
	var m connMatch
	switch {
	case args.Has("tcp"):
		m.proto = stack.TCP
	case args.Has("udp"):
		m.proto = stack.UDP
	case args.Has("icmp"):
		m.proto = stack.ICMP
	}
	if args.Has("addr") {
		m.from, m.to, _ = x.execAddrs(args.Get("addr"))
	}
	if args.Has("ports") {
		m.ports = true
		m.portLo, m.portHi, _ = execPorts(args.Get("ports"))
	}
	return m
}

// has reports whether one of the ends, real or mapped, is meant. As on the ASA
// an address and a port need not be of the same end.
func (m connMatch) has(proto stack.Proto, sides [2]connSide) bool {
	if m.proto != 0 && m.proto != proto {
		return false
	}
	ends := []netip.AddrPort{sides[0].real, sides[0].mapped, sides[1].real, sides[1].mapped}
	return (!m.from.IsValid() || slices.ContainsFunc(ends, func(a netip.AddrPort) bool {
		return m.from.Compare(a.Addr()) <= 0 && a.Addr().Compare(m.to) <= 0
	})) && (!m.ports || slices.ContainsFunc(ends, func(a netip.AddrPort) bool {
		return m.portLo <= a.Port() && a.Port() <= m.portHi
	}))
}

func connSides(c *nat.Conn) [2]connSide { return sides(c.In, c.Out, c.Client(), c.Server()) }

// holeSides fills in from the other side what a pinhole leaves to its packet.
func holeSides(h *nat.Hole) [2]connSide {
	server := h.To
	fill := func(to, from netip.AddrPort) netip.AddrPort {
		a, p := to.Addr(), to.Port()
		if !a.IsValid() {
			a = from.Addr()
		}
		if p == 0 {
			p = from.Port()
		}
		return netip.AddrPortFrom(a, p)
	}
	server.Src, server.Dst = fill(server.Src, h.Match.Src), fill(server.Dst, h.Match.Dst)
	return sides(h.In, h.Out, h.Match, server)
}

// A usage is how many of something there are, and the most there were.
type usage struct {
	InUse int `json:"in_use"`
	Most  int `json:"most_used"`
}

func (u usage) Text(w *bufio.Writer) { fmt.Fprintf(w, "%d in use, %d most used\n", u.InUse, u.Most) }

func (x *execution) connUsage() usage { return usage{x.table.Len(), x.table.Most()} }

func showConnCount(x *execution, _ cli.Args) (usage, error) { return x.connUsage(), nil }

// connLegend explains the letters that occur here.
// (reference/asa-cli-show-debug.md, section 2.7.)
const connLegend = `Flags: A - awaiting inside ACK to SYN, a - awaiting outside ACK to SYN,
       B - initial SYN from outside, F - outside FIN, f - inside FIN,
       I - inbound data, i - incomplete, k - Skinny media, m - SIP media,
       O - outbound data, R - outside acknowledged FIN, r - inside acknowledged FIN,
       S - awaiting inside SYN, s - awaiting outside SYN, T - SIP,
       t - SIP transient or TFTP, U - up
`

// A shownConn is what a list says of a connection, or of a pinhole as the connection
// it is to become.
type shownConn struct {
	Proto   string       `json:"protocol"`
	Sides   [2]shownSide `json:"sides"` // outside first
	Flags   string       `json:"flags"`
	Pinhole bool         `json:"pinhole"`
	Idle    cli.Seconds  `json:"idle_seconds"`
	Up      cli.Seconds  `json:"up_seconds"`
	Timeout cli.Seconds  `json:"timeout_seconds"` // 0 is never; of a pinhole it is what is left
	Bytes   uint64       `json:"bytes"`
	ID      uint64       `json:"id,omitempty"`
	Reason  string       `json:"reason,omitempty"`
}

// A shownSide is a connSide. What is any is left out.
type shownSide struct {
	connSide
	Interface  string     `json:"interface,omitempty"`
	Addr       netip.Addr `json:"address,omitzero"`
	Port       uint16     `json:"port"`
	Mapped     netip.Addr `json:"mapped_address,omitzero"`
	MappedPort uint16     `json:"mapped_port"`
}

func sideOf(s connSide) shownSide {
	return shownSide{s, ifName(s.on), s.real.Addr(), s.real.Port(), s.mapped.Addr(), s.mapped.Port()}
}

type shownConns struct {
	usage
	Conns  cli.List[shownConn] `json:"connections"`
	detail bool
}

// showConn finds connections, and pinholes.
func showConn(x *execution, args cli.Args) (s shownConns, _ error) {
	m, now := x.connMatch(args), x.opt.Now()
	s.usage, s.detail = x.connUsage(), args.Has("detail")
	add := func(proto stack.Proto, sides [2]connSide, c shownConn) {
		c.Proto, c.Sides = proto.String(), [2]shownSide{sideOf(sides[0]), sideOf(sides[1])}
		s.Conns = append(s.Conns, c)
	}
	for _, c := range connList(x.table) {
		sides := connSides(c)
		if !m.has(c.Proto(), sides) {
			continue
		}
		_, up := c.Counters(nat.Client)
		_, down := c.Counters(nat.Server)
		add(c.Proto(), sides, shownConn{
			Flags: c.Flags(), Idle: cli.Seconds(c.Idle(now)), Bytes: up + down,
			Up: cli.Seconds(max(0, now.Sub(c.Opened))), Timeout: cli.Seconds(c.Timeout()), ID: c.ID, Reason: c.Reason,
		})
	}
	for _, h := range holeList(x.table) {
		sides := holeSides(h)
		if !m.has(h.Match.Proto, sides) {
			continue
		}
		o := shownConn{Flags: h.Mark + "i", Reason: h.Reason, Pinhole: true}
		if c := h.Conn(); h.Standing && c != nil { // an endpoint that is in use
			packets, bytes := c.Counters(nat.Client)
			o.Flags, o.Bytes = h.Mark, bytes
			if packets > 0 {
				o.Idle = cli.Seconds(c.Idle(now))
			} else {
				o.Flags += "i"
			}
		}
		if !h.Expires.IsZero() {
			o.Timeout = cli.Seconds(max(0, h.Expires.Sub(now)))
		}
		add(h.Match.Proto, sides, o)
	}
	return s, nil
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.7.
func (s shownConns) Text(w *bufio.Writer) {
	s.usage.Text(w)
	if s.detail {
		w.WriteString(connLegend)
	}
	for k := range s.Conns {
		s.Conns[k].text(w, s.detail)
	}
}

func (c *shownConn) text(w *bufio.Writer, detail bool) {
	proto, flags := strings.ToUpper(c.Proto), cmp.Or(c.Flags, "-")
	if !detail {
		fmt.Fprintf(w, "%s %s %s, idle %s, bytes %d, flags %s\n", proto, c.Sides[0].text(), c.Sides[1].text(), clockTime(c.Idle.Duration()), c.Bytes, flags)
		return
	}
	timeout := "never"
	if c.Timeout != 0 || c.Pinhole {
		timeout = shortTime(c.Timeout.Duration())
	}
	fmt.Fprintf(w, "%s %s %s,\n", proto, c.Sides[0].long(), c.Sides[1].long())
	if c.Pinhole {
		fmt.Fprintf(w, "    flags %s, timeout %s, bytes %d", flags, timeout, c.Bytes)
	} else {
		fmt.Fprintf(w, "    flags %s, idle %s, uptime %s, timeout %s, bytes %d, id %d", flags, shortTime(c.Idle.Duration()), shortTime(c.Up.Duration()), timeout, c.Bytes, c.ID)
	}
	if c.Reason != "" {
		fmt.Fprintf(w, ", for %s", c.Reason)
	}
	w.WriteString("\n")
}

// A shownHost is one of "show local-host": how many connections it has.
type shownHost struct {
	Addr      netip.Addr `json:"address"`
	TCP       int        `json:"tcp_connections"`
	Embryonic int        `json:"tcp_embryonic"`
	UDP       int        `json:"udp_connections"`
}

// hostsOn are the hosts of an interface.
type hostsOn struct {
	Interface string              `json:"interface"`
	Hosts     cli.List[shownHost] `json:"hosts"` // by address
}

type shownHosts struct {
	Interfaces cli.List[hostsOn] `json:"interfaces"`
}

// showLocalHost counts the connections of each host, by interface.
func showLocalHost(x *execution, args cli.Args) (s shownHosts, _ error) {
	only, _ := x.execAddr(args.Get("addr"))
	hosts := make(map[*stack.Interface]map[netip.Addr]*shownHost)
	for _, c := range connList(x.table) {
		for _, s := range connSides(c) {
			a := s.real.Addr()
			if only.IsValid() && a != only {
				continue
			}
			if hosts[s.on] == nil {
				hosts[s.on] = make(map[netip.Addr]*shownHost)
			}
			h := hosts[s.on][a]
			if h == nil {
				h = &shownHost{Addr: a}
				hosts[s.on][a] = h
			}
			switch {
			case c.Proto() == stack.UDP:
				h.UDP++
			case c.Proto() == stack.TCP && c.Up():
				h.TCP++
			case c.Proto() == stack.TCP:
				h.TCP++
				h.Embryonic++
			}
		}
	}
	for _, i := range append(slices.Clone(x.plan.interfaces), x.identity) {
		on := hostsOn{Interface: i.Name}
		for _, a := range slices.SortedFunc(maps.Keys(hosts[i]), netip.Addr.Compare) {
			on.Hosts = append(on.Hosts, *hosts[i][a])
		}
		s.Interfaces = append(s.Interfaces, on)
	}
	return s, nil
}

func (s shownHosts) Text(w *bufio.Writer) {
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, "Interface %s: %d active\n", i.Interface, len(i.Hosts))
		for _, h := range i.Hosts {
			fmt.Fprintf(w, "local host: <%v>,\n    TCP flow count/limit = %d/unlimited\n    TCP embryonic count to host = %d\n    UDP flow count/limit = %d/unlimited\n",
				h.Addr, h.TCP, h.Embryonic, h.UDP)
		}
	}
}
