package appliance

import (
	"bufio"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/stack"
	"patchbay/stack/link"
)

var showNetCommands = []cli.Rule[execFunc]{
	{Syntax: "show interface [<if>]", Help: "Interfaces and their counters", Do: show(showInterface)},
	{Syntax: "show interface ip brief", Help: "Interfaces and their addresses", Do: show(showInterfaceBrief)},
	{Syntax: "show route", Help: "The routing table", Do: show(showRoute)},
	{Syntax: "show arp", Help: "Neighbours whose address is known", Do: show(showARP)},
}

// A shownInterface is one of "show interface". Without up it has no link and none of
// what follows.
type shownInterface struct {
	Hardware     string             `json:"hardware"`
	Name         string             `json:"name"`
	AdminUp      bool               `json:"admin_up"` // it is not shut down
	Up           bool               `json:"up"`       // nor is what it is a part of
	LineUp       bool               `json:"line_up"`
	Driver       string             `json:"driver,omitempty"`
	Mode         string             `json:"mode,omitempty"`   // how the driver runs
	Note         string             `json:"note,omitempty"`   // why not otherwise
	Absent       string             `json:"absent,omitempty"` // why there is no device
	MAC          string             `json:"mac,omitempty"`
	MTU          int                `json:"mtu,omitempty"` // bytes
	Addr         netip.Addr         `json:"address,omitzero"`
	PrefixLength int                `json:"prefix_length,omitempty"`
	InPackets    uint64             `json:"in_packets"`
	InBytes      uint64             `json:"in_bytes"`
	OutPackets   uint64             `json:"out_packets"`
	OutBytes     uint64             `json:"out_bytes"`
	Dropped      uint64             `json:"dropped_packets"`
	Rates        []shownRate        `json:"rates,omitempty"` // of late, once measured
	Drops        cli.List[drops]    `json:"drops"`
	Queues       []shownDeviceQueue `json:"queues,omitempty"`
}

// A shownDeviceQueue is what passed one queue of a device and was lost there, in frames; see link.QueueStats.
type shownDeviceQueue struct {
	Queue         int    `json:"queue"`
	Received      uint64 `json:"in_frames"`
	Sent          uint64 `json:"out_frames"`
	RingFull      uint64 `json:"ring_full"`
	FillEmpty     uint64 `json:"fill_ring_empty"`
	KernelDrop    uint64 `json:"kernel_dropped"`
	SendFull      uint64 `json:"send_ring_full"`
	BadDescriptor uint64 `json:"bad_descriptor"`
}

// drops are how many packets were dropped for a reason.
type drops struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

type shownInterfaces struct {
	Interfaces cli.List[shownInterface] `json:"interfaces"`
}

// means reports whether a command is about an interface: about all, if it names none.
func means(args cli.Args, nameif string) bool { return !args.Has("if") || args.Get("if") == nameif }

// showInterface finds the interfaces of the configuration.
func showInterface(x *execution, args cli.Args) (s shownInterfaces, _ error) {
	for _, c := range x.hardware() {
		if !means(args, c.Name) {
			continue
		}
		i := x.plan.named(c.Name)
		o := shownInterface{Hardware: c.Hardware, Name: c.Name, AdminUp: !c.Shutdown, Up: !c.Down, LineUp: x.lineUp(c)}
		if i != nil {
			o.Driver, o.MTU = driverOf(i.Link), i.Link.MTU()
			o.ofDevice(i.Link)
			if e, ok := link.Unwrap(i.Link).(interface{ MAC() link.MAC }); ok {
				o.MAC = macText(e.MAC())
			}
			o.Addr, o.PrefixLength = i.Addr.Addr(), i.Addr.Bits()
			n := x.forward.Counters(i)
			o.InPackets, o.InBytes, o.OutPackets, o.OutBytes = n.InPackets, n.InBytes, n.OutPackets, n.OutBytes
			o.Rates = x.rates(i)
			o.Drops = x.dropsOn(i)
			for _, d := range o.Drops {
				o.Dropped += d.Packets
			}
		}
		s.Interfaces = append(s.Interfaces, o)
	}
	return s, nil
}

// ofDevice notes how the driver of an Ethernet device runs, or that it is not there.
func (o *shownInterface) ofDevice(l stack.Link) {
	if err := absent(l); err != nil {
		o.Absent = err.Error()
	}
	l = link.Unwrap(l)
	if p, ok := l.(*link.Patient); ok {
		l = p.Device()
	}
	e, ok := l.(*link.Ethernet)
	if !ok {
		return
	}
	if o.Mode = e.Mode(); e.Note() != nil {
		o.Note = e.Note().Error()
	}
	for _, q := range e.QueueStats() {
		o.Queues = append(o.Queues, shownDeviceQueue(q))
	}
}

// Text is in the ASA's own layout. (reference/asa-cli-show-debug.md, section 1.)
func (s shownInterfaces) Text(w *bufio.Writer) {
	for _, i := range s.Interfaces {
		state := "is up, line protocol is up"
		switch {
		case !i.AdminUp:
			state = "is administratively down, line protocol is down"
		case !i.Up:
			state = "is down, line protocol is down"
		case !i.LineUp:
			state = "is up, line protocol is down"
		}
		fmt.Fprintf(w, "Interface %s %q, %s\n", i.Hardware, i.Name, state)
		if i.Driver == "" {
			continue
		}
		fmt.Fprintf(w, "  Hardware is %s", i.Driver)
		if i.Mode != "" {
			fmt.Fprintf(w, ", %s", i.Mode)
		}
		w.WriteByte('\n')
		if i.Note != "" {
			fmt.Fprintf(w, "\tbecause %s\n", i.Note)
		}
		if i.Absent != "" {
			fmt.Fprintf(w, "\t%s\n", i.Absent)
		}
		if i.MAC != "" {
			fmt.Fprintf(w, "\tMAC address %s, MTU %d\n", i.MAC, i.MTU)
		} else {
			fmt.Fprintf(w, "\tMTU %d\n", i.MTU)
		}
		fmt.Fprintf(w, "\tIP address %v, subnet mask %s\n", i.Addr, config.MaskText(i.PrefixLength))
		fmt.Fprintf(w, "  Traffic Statistics for %q:\n", i.Name)
		fmt.Fprintf(w, "\t%d packets input, %d bytes\n\t%d packets output, %d bytes\n", i.InPackets, i.InBytes, i.OutPackets, i.OutBytes)
		fmt.Fprintf(w, "\t%d packets dropped\n", i.Dropped)
		for _, d := range i.Drops {
			fmt.Fprintf(w, "\t  %d %s\n", d.Packets, d.Reason)
		}
		for _, q := range i.Queues {
			fmt.Fprintf(w, "\tQueue %d: %d frames input, %d output\n", q.Queue, q.Received, q.Sent)
			fmt.Fprintf(w, "\t  dropped: %d ring-full, %d fill-ring-empty, %d kernel-dropped, %d send-ring-full, %d bad-descriptor\n",
				q.RingFull, q.FillEmpty, q.KernelDrop, q.SendFull, q.BadDescriptor)
		}
		ratesText(w, i.Rates)
	}
}

// absent says why a link that waits for its device has none.
func absent(l stack.Link) error {
	if p, ok := link.Unwrap(l).(*link.Patient); ok {
		return p.Absent()
	}
	return nil
}

// lineUp reports whether the interface that c configures carries packets.
func (x *execution) lineUp(c *config.Interface) bool {
	i := x.plan.named(c.Name)
	return !c.Down && i != nil && absent(i.Link) == nil
}

// macText writes a MAC address as the ASA does: 0200.0000.0001.
func macText(m link.MAC) string { return fmt.Sprintf("%x.%x.%x", m[0:2], m[2:4], m[4:6]) }

// driverOf names the driver of a link.
func driverOf(l stack.Link) string {
	switch d := link.Unwrap(l).(type) {
	case interface{ Driver() string }:
		return d.Driver()
	case *link.PairEnd:
		return "a wire in memory"
	}
	return "a link of the program's own"
}

// dropsOn returns what was dropped on i, by the names of the reasons.
func (x *execution) dropsOn(i *stack.Interface) []drops {
	var all []drops
	for v, n := range x.forward.DropsOn(i) {
		all = append(all, drops{v.String(), n})
	}
	if c, ok := i.Link.(link.Counter); ok {
		for r, n := range c.Stats().Drops {
			all = append(all, drops{r.String(), n})
		}
	}
	slices.SortFunc(all, func(a, b drops) int { return strings.Compare(a.Reason, b.Reason) })
	return all
}

// A briefInterface is one of "show interface ip brief".
type briefInterface struct {
	Hardware string     `json:"hardware"`
	Name     string     `json:"name"`
	Addr     netip.Addr `json:"address,omitzero"`
	AdminUp  bool       `json:"admin_up"`
	Up       bool       `json:"up"`
	LineUp   bool       `json:"line_up"`
}

type briefInterfaces struct {
	Interfaces cli.List[briefInterface] `json:"interfaces"`
}

func showInterfaceBrief(x *execution, _ cli.Args) (s briefInterfaces, _ error) {
	for _, c := range x.hardware() {
		s.Interfaces = append(s.Interfaces, briefInterface{
			Hardware: c.Hardware, Name: c.Name, Addr: c.Addr.Addr(), AdminUp: !c.Shutdown, Up: !c.Down, LineUp: x.lineUp(c)})
	}
	return s, nil
}

func (s briefInterfaces) Text(w *bufio.Writer) {
	const layout = "%-26s %-15s %-3s %-6s %-21s %s\n"
	fmt.Fprintf(w, layout, "Interface", "IP-Address", "OK?", "Method", "Status", "Protocol")
	for _, i := range s.Interfaces {
		addr, method, status, protocol := "unassigned", "unset", "up", "up"
		if i.Addr.IsValid() {
			addr, method = i.Addr.String(), "CONFIG"
		}
		if !i.AdminUp {
			status = "administratively down"
		} else if !i.Up {
			status = "down"
		}
		if !i.LineUp {
			protocol = "down"
		}
		fmt.Fprintf(w, layout, i.Hardware, addr, "YES", method, status, protocol)
	}
}

// A shownRoute is one of "show route".
type shownRoute struct {
	Kind      string       `json:"kind"` // "connected", "local" or "static"
	Prefix    netip.Prefix `json:"prefix"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Interface string       `json:"interface"`
	Metric    int          `json:"metric"`
}

type shownRoutes struct {
	LastResort netip.Addr           `json:"gateway_of_last_resort,omitzero"`
	Routes     cli.List[shownRoute] `json:"routes"`
}

// showRoute finds the routing table: the default route, and then by address.
func showRoute(x *execution, _ cli.Args) (s shownRoutes, _ error) {
	routes := x.plan.routes.All()
	slices.SortStableFunc(routes, func(a, b stack.Route) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	for _, r := range routes {
		o := shownRoute{Kind: "connected", Prefix: r.Prefix, Interface: r.Interface.String()}
		if r.Gateway.IsValid() {
			o.Kind, o.Gateway, o.Metric = "static", r.Gateway, max(r.Metric, 1)
			if r.Prefix.Bits() == 0 {
				s.LastResort = r.Gateway
			}
		}
		s.Routes = append(s.Routes, o)
		if o.Kind == "connected" && r.Interface.Addr.Masked() == r.Prefix {
			o.Kind, o.Prefix = "local", netip.PrefixFrom(r.Interface.Addr.Addr(), 32)
			s.Routes = append(s.Routes, o)
		}
	}
	return s, nil
}

const routeCodes = "Codes: L - local, C - connected, S - static, * - candidate default\n"

func (s shownRoutes) Text(w *bufio.Writer) {
	resort := "Gateway of last resort is not set"
	if s.LastResort.IsValid() {
		resort = "Gateway of last resort is " + s.LastResort.String() + " to network 0.0.0.0"
	}
	fmt.Fprintf(w, "%s%s\n\n", routeCodes, resort)
	for _, r := range s.Routes {
		addr, mask := prefixText(r.Prefix)
		code := map[string]string{"connected": "C ", "local": "L ", "static": "S "}[r.Kind]
		if r.Kind != "static" {
			fmt.Fprintf(w, "%s    %s %s is directly connected, %s\n", code, addr, mask, r.Interface)
			continue
		}
		if r.Prefix.Bits() == 0 {
			code = "S*"
		}
		fmt.Fprintf(w, "%s    %s %s [%d/0] via %v, %s\n", code, addr, mask, r.Metric, r.Gateway, r.Interface)
	}
}

// A shownNeighbour is one of "show arp".
type shownNeighbour struct {
	Interface string      `json:"interface"`
	Addr      netip.Addr  `json:"address"`
	MAC       string      `json:"mac"`
	Age       cli.Seconds `json:"age_seconds"`
}

type shownNeighbours struct {
	Neighbours cli.List[shownNeighbour] `json:"neighbours"`
}

// showARP finds the neighbours of links that have some.
func showARP(x *execution, _ cli.Args) (s shownNeighbours, _ error) {
	for _, i := range x.plan.interfaces {
		e, ok := link.Unwrap(i.Link).(interface{ Neighbours() []link.Neighbour })
		if !ok {
			continue
		}
		for _, n := range e.Neighbours() {
			s.Neighbours = append(s.Neighbours, shownNeighbour{i.Name, n.Addr, macText(n.MAC), cli.Seconds(n.Age)})
		}
	}
	return s, nil
}

func (s shownNeighbours) Text(w *bufio.Writer) {
	for _, n := range s.Neighbours {
		fmt.Fprintf(w, "\t%s %v %s %d\n", n.Interface, n.Addr, n.MAC, int64(n.Age.Duration().Seconds()))
	}
}
