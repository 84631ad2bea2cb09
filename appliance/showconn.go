package appliance

import (
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
	{Syntax: "show conn count", Help: "How many connections there are", Do: showConnCount},
	{Syntax: "show conn [" + connFilter + "] [detail]", Help: "Connections, and pinholes for those yet to come", Do: showConn},
	{Syntax: "show local-host [<addr>]", Help: "Hosts with connections, by interface", Do: showLocalHost},
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

func (s connSide) name() string {
	if s.on == nil {
		return "any"
	}
	return s.on.Name
}

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

func showConnCount(x *execution, _ cli.Args) error {
	x.printf("%d in use, %d most used\n", x.table.Len(), x.table.Most())
	return nil
}

// connLegend explains the letters that occur here.
// (reference/asa-cli-show-debug.md, section 2.7.)
const connLegend = `Flags: A - awaiting inside ACK to SYN, a - awaiting outside ACK to SYN,
       B - initial SYN from outside, F - outside FIN, f - inside FIN,
       I - inbound data, i - incomplete, k - Skinny media, m - SIP media,
       O - outbound data, R - outside acknowledged FIN, r - inside acknowledged FIN,
       S - awaiting inside SYN, s - awaiting outside SYN, T - SIP,
       t - SIP transient or TFTP, U - up
`

// showConn lists connections, and pinholes as the connections they are to
// become. (reference/asa-cli-show-debug.md, section 2.7.)
func showConn(x *execution, args cli.Args) error {
	m, now, detail := x.connMatch(args), x.opt.Now(), args.Has("detail")
	x.printf("%d in use, %d most used\n", x.table.Len(), x.table.Most())
	if detail {
		x.WriteString(connLegend)
	}
	for _, c := range connList(x.table) {
		s := connSides(c)
		if !m.has(c.Proto(), s) {
			continue
		}
		_, up := c.Counters(nat.Client)
		_, down := c.Counters(nat.Server)
		l := connLine{
			proto: c.Proto(), sides: s, flags: c.Flags(), idle: c.Idle(now), bytes: up + down,
			up: max(0, now.Sub(c.Opened)), timeout: c.Timeout(), id: c.ID, reason: c.Reason,
		}
		x.showConnLine(l, detail)
	}
	for _, h := range holeList(x.table) {
		s := holeSides(h)
		if !m.has(h.Match.Proto, s) {
			continue
		}
		l := connLine{proto: h.Match.Proto, sides: s, flags: h.Mark + "i", reason: h.Reason, hole: true}
		if c := h.Conn(); h.Standing && c != nil { // an endpoint that is in use
			packets, bytes := c.Counters(nat.Client)
			l.flags, l.bytes = h.Mark, bytes
			if packets > 0 {
				l.idle = c.Idle(now)
			} else {
				l.flags += "i"
			}
		}
		if !h.Expires.IsZero() {
			l.timeout = max(0, h.Expires.Sub(now))
		}
		x.showConnLine(l, detail)
	}
	return nil
}

// A connLine is what a list says of a connection or a pinhole.
type connLine struct {
	proto             stack.Proto
	sides             [2]connSide
	flags             string
	idle, up, timeout time.Duration // timeout 0 is never; of a pinhole it is what is left
	bytes             uint64
	id                uint64
	reason            string
	hole              bool
}

func (x *execution) showConnLine(l connLine, detail bool) {
	proto := strings.ToUpper(l.proto.String())
	if l.flags == "" {
		l.flags = "-"
	}
	if !detail {
		x.printf("%s %s %s, idle %s, bytes %d, flags %s\n", proto, l.sides[0].text(), l.sides[1].text(), clockTime(l.idle), l.bytes, l.flags)
		return
	}
	timeout := "never"
	if l.timeout != 0 || l.hole {
		timeout = shortTime(l.timeout)
	}
	x.printf("%s %s %s,\n", proto, l.sides[0].long(), l.sides[1].long())
	if l.hole {
		x.printf("    flags %s, timeout %s, bytes %d", l.flags, timeout, l.bytes)
	} else {
		x.printf("    flags %s, idle %s, uptime %s, timeout %s, bytes %d, id %d", l.flags, shortTime(l.idle), shortTime(l.up), timeout, l.bytes, l.id)
	}
	if l.reason != "" {
		x.printf(", for %s", l.reason)
	}
	x.printf("\n")
}

// showLocalHost counts the connections of each host, by interface.
func showLocalHost(x *execution, args cli.Args) error {
	only, _ := x.execAddr(args.Get("addr"))
	type host struct{ tcp, udp, embryonic int }
	hosts := make(map[*stack.Interface]map[netip.Addr]*host)
	for _, c := range connList(x.table) {
		for _, s := range connSides(c) {
			a := s.real.Addr()
			if only.IsValid() && a != only {
				continue
			}
			if hosts[s.on] == nil {
				hosts[s.on] = make(map[netip.Addr]*host)
			}
			h := hosts[s.on][a]
			if h == nil {
				h = new(host)
				hosts[s.on][a] = h
			}
			switch {
			case c.Proto() == stack.UDP:
				h.udp++
			case c.Proto() == stack.TCP && c.Up():
				h.tcp++
			case c.Proto() == stack.TCP:
				h.tcp++
				h.embryonic++
			}
		}
	}
	for _, i := range append(slices.Clone(x.plan.interfaces), x.identity) {
		x.printf("Interface %s: %d active\n", i.Name, len(hosts[i]))
		for _, a := range slices.SortedFunc(maps.Keys(hosts[i]), netip.Addr.Compare) {
			h := hosts[i][a]
			x.printf("local host: <%v>,\n    TCP flow count/limit = %d/unlimited\n    TCP embryonic count to host = %d\n    UDP flow count/limit = %d/unlimited\n",
				a, h.tcp, h.embryonic, h.udp)
		}
	}
	return nil
}
