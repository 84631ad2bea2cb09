package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

var traceCommands = []cli.Rule[execFunc]{
	{Syntax: "packet-tracer input <if> {tcp|udp} <src:addr> <sport:port> <dst:addr> <dport:port> [detailed]",
		Help: "What would become of a packet, and why", Do: show(packetTracer)},
	{Syntax: "packet-tracer input <if> icmp <src:addr> <type:icmptype> <code:0-255> [<ident:0-65535>] <dst:addr> [detailed]",
		Help: "What would become of a packet, and why", Do: show(packetTracer)},
	{Syntax: "packet-tracer input <if> rawip <src:addr> <proto:0-255> <dst:addr> [detailed]",
		Help: "What would become of a packet, and why", Do: show(packetTracer)},
}

// packetTracer traces a packet through the box. Nothing is opened, counted or
// sent. (reference/asa-cli-show-debug.md, section 4.)
func packetTracer(x *execution, args cli.Args) (shownTrace, error) {
	p := x.tracedPacket(args)
	r := &traceReport{execution: x, detailed: args.Has("detailed"), in: p.In}
	r.shown.detailed = r.detailed
	if v := p.Parse(); v != stack.Forward {
		r.result(v, nil)
	} else {
		r.report(x.trace(p))
	}
	return r.shown, nil
}

// A shownTrace is what would become of a packet.
type shownTrace struct {
	Phases cli.List[shownPhase] `json:"phases"`
	Input  string               `json:"input_interface"`
	Output string               `json:"output_interface,omitempty"`
	Action string               `json:"action"` // "allow" or "drop"
	Drop   *aspReason           `json:"drop,omitempty"`

	// The flow as it arrives and as it leaves, of a packet that passes.
	Arriving *shownFlow `json:"arriving_flow,omitempty"`
	Leaving  *shownFlow `json:"leaving_flow,omitempty"`
	detailed bool
}

// A shownPhase is one step on the packet's way.
type shownPhase struct {
	Type    string           `json:"type"`
	Subtype string           `json:"subtype,omitempty"`
	Result  string           `json:"result"`        // "allow" or "drop": it ended there
	Config  cli.List[string] `json:"configuration"` // the lines that decided
	Info    cli.List[string] `json:"information"`
}

type shownFlow struct {
	Proto string   `json:"protocol"`
	Src   endpoint `json:"source"`
	Dst   endpoint `json:"destination"`
	flow  stack.Flow
}

func flowOf(f stack.Flow) *shownFlow {
	return &shownFlow{f.Proto.String(), endpointOf(f.Src), endpointOf(f.Dst), f}
}

// tracedPacket makes the packet of a packet-tracer command, which has arrived
// now.
func (x *execution) tracedPacket(args cli.Args) *stack.Packet {
	src, _ := x.execAddr(args.Get("src"))
	dst, _ := x.execAddr(args.Get("dst"))
	sport, _ := config.ParsePort(args.Get("sport"))
	dport, _ := config.ParsePort(args.Get("dport"))
	f := stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(src, sport), Dst: netip.AddrPortFrom(dst, dport)}
	const ipHeader = 20 // bytes
	var b []byte
	switch {
	case args.Has("tcp"):
		f.Proto = stack.TCP
		b = stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, Window: 8192}, nil)
	case args.Has("udp"):
		b = stack.AppendUDP(nil, f, nil)
	case args.Has("icmp"):
		f.Proto = stack.ICMP
		f.Src = netip.AddrPortFrom(src, uint16(args.Int("ident", 0)))
		b = stack.AppendICMPEcho(nil, f, 0, nil)
		typ, _ := config.ParseICMPType(args.Get("type"))
		b[ipHeader], b[ipHeader+1] = typ, uint8(args.Int("code", 0))
	default:
		const protoAt, emptyTCP = 9, 20
		b = stack.AppendUDP(nil, f, make([]byte, emptyTCP))
		b[protoAt] = uint8(args.Int("proto", 0))
	}
	p := stack.NewPacket(len(b))
	p.SetData(b)
	p.FixChecksums()
	p.Time, p.In = x.opt.Now(), x.plan.named(args.Get("if"))
	return p
}

// A traceReport makes a shownTrace, phase by phase.
type traceReport struct {
	*execution
	detailed bool
	in       *stack.Interface
	shown    shownTrace
}

// A phase is one step on a packet's way. Without ok it ended there.
type phase struct {
	typ, subtype string
	ok           bool
	config       []string // lines of the configuration that decided
	info         []string
}

const implicitRule = "Implicit Rule"

func (r *traceReport) phase(p phase) {
	result := "drop"
	if p.ok {
		result = "allow"
	}
	r.shown.Phases = append(r.shown.Phases, shownPhase{p.typ, p.subtype, result, p.config, p.info})
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 4.
func (s shownTrace) Text(w *bufio.Writer) {
	for k, p := range s.Phases {
		fmt.Fprintf(w, "Phase: %d\nType: %s\nSubtype: %s\nResult: %s\nConfig:\n", k+1, p.Type, p.Subtype, strings.ToUpper(p.Result))
		for _, line := range p.Config {
			fmt.Fprintf(w, "%s\n", line)
		}
		w.WriteString("Additional Information:\n")
		for _, line := range p.Info {
			fmt.Fprintf(w, "%s\n", line)
		}
		w.WriteString("\n")
	}
	if s.detailed && s.Arriving != nil {
		fmt.Fprintf(w, "Forward flow: %s %v\n              %s %v\n\n", s.Input, s.Arriving.flow, s.Output, s.Leaving.flow)
	}
	fmt.Fprintf(w, "Result:\ninput-interface: %s\ninput-status: up\ninput-line-status: up\n", s.Input)
	if s.Output != "" {
		fmt.Fprintf(w, "output-interface: %s\noutput-status: up\noutput-line-status: up\n", s.Output)
	}
	fmt.Fprintf(w, "Action: %s\n", s.Action)
	if s.Drop != nil {
		fmt.Fprintf(w, "Drop-reason: (%s) %s\n", s.Drop.Reason, s.Drop.Text)
	}
	w.WriteString("\n")
}

// report makes the phases in the order in which the box goes through them.
func (r *traceReport) report(t *trace) {
	switch {
	case t.conn != nil:
		r.existing(t)
	case t.hole != nil:
		r.pinhole(t)
	case t.decided:
		r.decision(t)
	case t.verdict == stack.DropReversePath:
		r.reversePath(t)
	}
	if t.verdict == stack.Forward && t.nextHop.IsValid() && !t.out.IsIdentity() {
		r.phase(phase{typ: "ROUTE-LOOKUP", subtype: "output and adjacency", ok: true, info: []string{
			fmt.Sprintf("found next-hop %v using egress ifc %s", t.nextHop, t.out)}})
	}
	if t.out != nil && t.verdict == stack.Forward {
		r.shown.Arriving, r.shown.Leaving = flowOf(t.decision.flow), flowOf(t.flow)
	}
	r.result(t.verdict, t.out)
}

// existing is a packet of a connection.
func (r *traceReport) existing(t *trace) {
	p := phase{typ: "FLOW-LOOKUP", ok: t.verdict == stack.Forward}
	about := ""
	if t.quoted {
		about = ", which the ICMP error is about"
	}
	p.info = append(p.info, fmt.Sprintf("Found flow with id %d, using existing flow%s", t.conn.ID, about))
	s := connSides(t.conn)
	if r.detailed {
		p.info = append(p.info, fmt.Sprintf("%s %s, flags %s", s[0].long(), s[1].long(), cmp.Or(t.conn.Flags(), "-")))
	}
	r.phase(p)
}

// pinhole is a packet that a pinhole takes.
func (r *traceReport) pinhole(t *trace) {
	h := t.hole
	p := phase{typ: "FLOW-LOOKUP", subtype: "pinhole", ok: true}
	p.info = append(p.info, fmt.Sprintf("Found pinhole for %s: from %s to %v", h.Reason, wild(h.Match.Src), h.Match.Dst))
	if h.Standing {
		p.ok = t.verdict == stack.Forward
		p.info = append(p.info, "Media termination: what is not authentic is dropped there")
	}
	r.phase(p)
	if t.opened {
		r.creation(t)
	}
}

// reversePath is a forged source.
func (r *traceReport) reversePath(t *trace) {
	p := phase{typ: "ROUTE-LOOKUP", subtype: "reverse-path"}
	src := t.decision.flow.Src.Addr()
	switch {
	case r.plan.ownedBy(src) != nil || r.plan.isMTA(src) != nil:
		p.config = []string{implicitRule}
		p.info = []string{fmt.Sprintf("%v is an address of the box", src)}
	default:
		for _, v := range r.running.ReversePaths {
			if v.Interface == r.in.Name {
				p.config = []string{r.configLine(v.Line)}
			}
		}
		p.info = []string{r.routeText(src)}
	}
	r.phase(p)
}

// decision is the first packet of a connection.
func (r *traceReport) decision(t *trace) {
	d := &t.decision
	if d.un != nil {
		p := phase{typ: "UN-NAT", subtype: d.un.Kind.String(), ok: true, config: r.ruleLines(d.un)}
		if !d.routed && d.out != nil {
			p.info = append(p.info, "NAT divert to egress interface "+d.out.Name)
		}
		p.info = append(p.info, fmt.Sprintf("Untranslate %s to %s", r.end(d.flow.Proto, d.flow.Dst), r.end(d.flow.Proto, d.real.Dst)))
		r.phase(p)
	}
	if d.out == nil {
		r.local(t)
		return
	}
	if d.routed {
		r.phase(r.route(d.real.Dst.Addr(), true))
	}
	if r.plan.management(r.in, d.out) {
		r.phase(phase{typ: "ACCESS-LIST", config: []string{implicitRule}, info: []string{"management-only: nothing passes between this interface and others"}})
		return
	}
	if !r.lists(t) {
		return
	}
	if !r.treatment(t) || !r.translation(t) {
		return
	}
	r.inspection(t)
	if t.opened {
		r.creation(t)
	}
}

// local is a packet to an address of the box, or to nowhere.
func (r *traceReport) local(t *trace) {
	dst := t.decision.flow.Dst.Addr()
	if t.verdict == stack.DropNoRoute {
		r.phase(r.route(t.decision.real.Dst.Addr(), false))
		return
	}
	r.phase(phase{typ: "ROUTE-LOOKUP", subtype: "input", ok: true, info: []string{
		fmt.Sprintf("in   %-15v 255.255.255.255 identity", dst)}})
	p := phase{typ: "ACCESS-LIST", ok: t.verdict == stack.Forward, config: []string{implicitRule}}
	if t.decision.flow.Proto == stack.ICMP {
		for i, c := range r.running.ICMP {
			if c.Interface == r.in.Name {
				if i == 0 || p.config[0] == implicitRule {
					p.config = p.config[:0]
				}
				p.config = append(p.config, r.configLine(c.Line))
			}
		}
	}
	r.phase(p)
}

// route is the lookup of a real destination.
func (r *traceReport) route(dst netip.Addr, ok bool) phase {
	p := phase{typ: "ROUTE-LOOKUP", subtype: "input", ok: ok, info: []string{r.routeText(dst)}}
	if rt := r.routeOf(dst); rt != nil && rt.Gateway.IsValid() {
		for _, c := range r.running.Routes {
			if c.Prefix.Masked() == rt.Prefix && c.Interface == rt.Interface.Name && c.Gateway == rt.Gateway {
				p.config = []string{r.configLine(c.Line)}
			}
		}
	}
	return p
}

// routeOf returns the route to dst, or nil.
func (r *traceReport) routeOf(dst netip.Addr) *stack.Route {
	for _, rt := range r.plan.routes.All() { // longest prefix first
		if rt.Prefix.Contains(dst) {
			return &rt
		}
	}
	return nil
}

func (r *traceReport) routeText(dst netip.Addr) string {
	rt := r.routeOf(dst)
	if rt == nil {
		return fmt.Sprintf("no route to %v", dst)
	}
	addr, mask := prefixText(rt.Prefix)
	return fmt.Sprintf("in   %-15s %-15s %s", addr, mask, rt.Interface)
}

// lists is the access lists, and reports whether they let the packet pass.
func (r *traceReport) lists(t *trace) bool {
	d := &t.decision
	if d.levels {
		ok := d.verdict != stack.DropSecurityLevel
		r.phase(phase{typ: "ACCESS-LIST", ok: ok, config: []string{implicitRule}, info: []string{
			fmt.Sprintf("security-level %d to %d", r.in.Level, d.out.Level)}})
		if !ok {
			return false
		}
	}
	for i, a := range d.asked[:d.asks] {
		if a.entry == nil && i+1 < d.asks && d.asked[i+1].group == "global" {
			continue // it has nothing to say, and the global list decides
		}
		p := phase{typ: "ACCESS-LIST", ok: a.entry != nil && a.entry.Permit, config: []string{r.groupLine(a.list.Name, a.group, d.out)}}
		if a.entry == nil {
			p.config = append(p.config, implicitRule)
		} else {
			p.config = append(p.config, a.entry.Text)
			if a.entry.Log {
				p.subtype = "log"
			}
			if r.detailed {
				p.info = []string{fmt.Sprintf("hitcnt=%d", a.entry.Hits())}
			}
		}
		r.phase(p)
		if !p.ok {
			return false
		}
	}
	return true
}

// groupLine returns the access-group line that puts a list to work.
func (r *traceReport) groupLine(list, group string, out *stack.Interface) string {
	on := ""
	switch group {
	case "in":
		on = r.in.Name
	case "out":
		on = out.Name
	}
	for _, g := range r.running.AccessGroups {
		if g.Name == list && g.Direction == group && g.Interface == on {
			return r.configLine(g.Line)
		}
	}
	return "access-group " + list + " " + group
}

// translation is that of the source, and the check that answers come back.
func (r *traceReport) translation(t *trace) bool {
	d := &t.decision
	if t.verdict == stack.DropNATReverse {
		p := phase{typ: "NAT", subtype: "rpf-check"}
		if rule := r.plan.rules.Reverse(r.in, d.out, d.real); rule != nil {
			p.config = r.ruleLines(rule)
		}
		r.phase(p)
		return false
	}
	if t.verdict == stack.DropNAT && !t.opened || t.verdict == stack.DropNoTranslation {
		p := phase{typ: "NAT"}
		if rule := r.sourceRule(d); rule != nil {
			p.config = r.ruleLines(rule)
		} else if r.running.NATControl > 0 {
			p.config = []string{r.configLine(r.running.NATControl)}
		}
		r.phase(p)
		return false
	}
	if s := d.source; s.Rule != nil && (d.fate == fateThrough || d.inspect != nil && !d.inspect.phoneProxy) {
		p := phase{typ: "NAT", ok: true, config: r.ruleLines(s.Rule)}
		how := "Dynamic"
		if s.Rule.Kind != nat.Dynamic {
			p.subtype, how = "static", "Static"
		}
		if s.Rule.Kind == nat.Identity {
			p.subtype = "identity"
		}
		to := r.end(d.flow.Proto, s.Mapped)
		if d.chance {
			to = fmt.Sprintf("%v, any free port", s.Mapped.Addr())
		}
		p.info = []string{fmt.Sprintf("%s translate %s to %s", how, r.end(d.flow.Proto, d.flow.Src), to)}
		if r.detailed {
			translate, untranslate := s.Rule.Hits()
			p.info = append(p.info, fmt.Sprintf("translate_hits = %d, untranslate_hits = %d", translate, untranslate))
		}
		r.phase(p)
	}
	if d.un != nil {
		r.phase(phase{typ: "NAT", subtype: "rpf-check", ok: true, config: r.ruleLines(d.un)})
	}
	return true
}

// sourceRule returns the rule that would translate the source, if it could.
func (r *traceReport) sourceRule(d *decision) *nat.Rule {
	s, _ := r.plan.rules.Translate(r.in, d.out, d.real, d.un, nil)
	return s.Rule
}

// creation is the connection that the packet would open.
func (r *traceReport) creation(t *trace) {
	p := phase{typ: "FLOW-CREATION"}
	switch t.verdict {
	case stack.DropRate:
		return // it was said
	case stack.Forward, stack.DropTTL, stack.DropNoRoute:
		p.ok = true
		p.info = []string{fmt.Sprintf("New flow created with id %d, packet dispatched to next module", r.table.NextID())}
	}
	r.phase(p)
}

// end is an address, with its port if the protocol has one.
func (r *traceReport) end(proto stack.Proto, a netip.AddrPort) string {
	if proto == stack.TCP || proto == stack.UDP || a.Port() != 0 {
		return slashed(a)
	}
	return a.Addr().String()
}

// interfaceName is an interface as packet-tracer names it.
func interfaceName(i *stack.Interface) string {
	if i.IsIdentity() {
		return "NP Identity Ifc"
	}
	return i.Name
}

// result says the end: where the packet came in, where it goes out, what becomes of
// it.
func (r *traceReport) result(v stack.Verdict, out *stack.Interface) {
	r.shown.Input, r.shown.Action = r.in.String(), "allow"
	if out != nil {
		r.shown.Output = interfaceName(out)
	}
	if v != stack.Forward {
		r.shown.Action, r.shown.Drop = "drop", &aspReason{v.String(), strings.TrimSpace(v.Text())}
	}
}
