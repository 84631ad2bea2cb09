package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/phoneproxy"
	"patchbay/stack"
)

// What diagnosis judges by.
const (
	bootTime    = 30 * time.Second       // from its configuration to its signaling a phone needs less
	oneWayTime  = 2 * time.Second        // a stream that is younger says nothing yet
	oneWayLeast = 25                     // packets of the other side: half a second of speech
	probeWait   = 250 * time.Millisecond // for another station to say that an address is its own
)

// samplePort is what a phone's packet of a diagnosis comes from.
const samplePort = 49152

// A finding is what diagnosis says of one step of a phone's way.
type finding struct {
	Step   string `json:"step"`
	State  string `json:"state"` // "ok", "fault", "unknown" where there is nothing to judge by
	What   string `json:"text"`
	Cause  string `json:"cause,omitempty"` // of a fault
	Remedy string `json:"remedy,omitempty"`
}

// A diagnosis walks the symptom table of reference/asa-rules.md, section 6, in
// the order in which a phone comes up: the first fault is the likely cause, for
// what follows it follows from it.
type diagnosis struct {
	*execution
	tale   *tale
	on     *stack.Interface
	addr   netip.Addr // of the phone
	sample bool       // addr is any address on the interface: the phone's is not known

	found []finding
}

// A shownDiagnosis is what diagnosis says of one phone.
type shownDiagnosis struct {
	Device    string     `json:"device,omitempty"`
	Addr      netip.Addr `json:"address,omitzero"`
	Interface string     `json:"interface,omitempty"`

	// Where the phone's address is not known: from where packets are judged.
	Sample   netip.Addr `json:"judged_as_from,omitzero"`
	SampleOn string     `json:"judged_on_interface,omitempty"`

	Findings cli.List[finding] `json:"findings"`
	Cause    string            `json:"likely_cause,omitempty"` // that of the first fault; none: none was found
	Remedy   string            `json:"remedy,omitempty"`
}

type shownDiagnoses struct {
	Phones cli.List[shownDiagnosis] `json:"phones"`
}

// diagnosePhone says why a phone does not come up, or does not talk.
func diagnosePhone(x *execution, args cli.Args) (s shownDiagnoses, _ error) {
	if _, err := x.proxied(); err != nil {
		return s, err
	}
	for _, t := range x.tales(x.execPhone(args.Get("who"))) {
		d := &diagnosis{execution: x, tale: &t}
		d.walk()
		o := shownDiagnosis{Device: t.Device, Addr: t.Addr, Interface: t.Iface, Findings: d.found}
		if d.sample && d.on != nil {
			o.Sample, o.SampleOn = d.addr, d.on.Name
		}
		if f := d.first(); f != nil {
			o.Cause, o.Remedy = f.Cause, f.Remedy
		}
		s.Phones = append(s.Phones, o)
	}
	return s, nil
}

func (s shownDiagnoses) Text(w *bufio.Writer) {
	for k, d := range s.Phones {
		if k > 0 {
			w.WriteString("\n")
		}
		fmt.Fprintf(w, "%s\n", taleName(d.Device, d.Addr, d.Interface))
		if d.Sample.IsValid() {
			fmt.Fprintf(w, "Its address is not known; packets are judged as from %v on %s.\n", d.Sample, d.SampleOn)
		}
		for _, f := range d.Findings {
			fmt.Fprintf(w, "  %-5s %-13s %s\n", map[string]string{"ok": "ok", "fault": "FAULT", "unknown": "-"}[f.State], f.Step, f.What)
		}
		if d.Cause == "" {
			w.WriteString("Likely cause: none found\n")
			continue
		}
		fmt.Fprintf(w, "Likely cause: %s\nRemedy: %s\n", d.Cause, d.Remedy)
	}
}

func (d *diagnosis) ok(step, format string, args ...any) {
	d.found = append(d.found, finding{Step: step, State: "ok", What: fmt.Sprintf(format, args...)})
}

func (d *diagnosis) unknown(step, format string, args ...any) {
	d.found = append(d.found, finding{Step: step, State: "unknown", What: fmt.Sprintf(format, args...)})
}

func (d *diagnosis) fault(step, cause, text, remedy string) {
	d.found = append(d.found, finding{step, "fault", text, cause, remedy})
}

// walk takes the steps.
func (d *diagnosis) walk() {
	if !d.place() {
		return
	}
	d.translations()
	d.permitted()
	d.files()
	d.tls()
	d.callManager()
	d.addresses()
	d.media()
	if d.first() == nil && !d.tale.known {
		d.fault("phone", "the phone does not reach the box", "nothing has been heard of it",
			fmt.Sprintf("The box is ready for it. Check that the phone's TFTP server is %s, its network, and what stands between: a router there must pass UDP 69 and what answers it.", d.tftpText()))
	}
}

// first returns the first fault, or nil.
func (d *diagnosis) first() *finding {
	for k := range d.found {
		if d.found[k].State == "fault" {
			return &d.found[k]
		}
	}
	return nil
}

// place finds where the phone is.
func (d *diagnosis) place() bool {
	d.addr = d.tale.Addr
	if d.addr.IsValid() {
		if d.on = d.plan.facing(d.addr); d.on == nil {
			d.fault("route", "there is no route to the phone", fmt.Sprintf("no route to %v", d.addr), "Add a route to its network.")
			return false
		}
		if !d.plan.phonesOn(d.on) {
			d.fault("interface", "the phone is on an interface without phone proxy",
				fmt.Sprintf("%v is behind %s, whose service-policy has no \"inspect ... phone-proxy\"", d.addr, d.on),
				fmt.Sprintf("Apply the phone proxy's policy to %s, or set the phone up as one of the inside.", d.on))
			return false
		}
		return true
	}
	for _, i := range d.plan.interfaces {
		if d.plan.phonesOn(i) && i != d.plan.phone.servers[0].on {
			d.on, d.sample = i, true
			d.addr = d.sampleOn(i)
			return true
		}
	}
	d.fault("interface", "the phone proxy is on no interface where phones can be", "no interface has it", "Apply its policy to the interface toward the phones.")
	return false
}

// sampleOn returns an address of a host behind i: by its default route, or on
// its subnet.
func (d *diagnosis) sampleOn(i *stack.Interface) netip.Addr {
	far := netip.AddrFrom4([4]byte{198, 51, 100, 1}) // RFC 5737
	if d.plan.facing(far) == i {
		return far
	}
	a := i.Addr.Masked().Addr().Next()
	if a == i.Addr.Addr() {
		a = a.Next()
	}
	return a
}

// A published is one address that the CTL file tells phones of, and what they
// reach there.
type published struct {
	addr  netip.Addr
	files bool // a TFTP server
	ucm   bool
}

// told returns the addresses of the call managers and TFTP servers in the CTL
// file's configuration, but for those that are for phones on another interface.
func (d *diagnosis) told() []published {
	var all []published
	for _, r := range d.plan.phone.ctl.Records {
		addr := r.Addr
		if r.FQDN != "" {
			addr, _ = d.plan.service.trust.Load().address(r.FQDN)
		}
		if !addr.IsValid() {
			continue // its name does not resolve
		}
		p := published{addr: addr, files: r.Role == "tftp" || r.Role == "cucm-tftp", ucm: r.Role == "cucm" || r.Role == "cucm-tftp"}
		if (p.files || p.ucm) && !d.elsewhere(addr) {
			all = append(all, p)
		}
	}
	return all
}

// elsewhere reports whether NAT knows a only on another interface with phones.
func (d *diagnosis) elsewhere(a netip.Addr) bool {
	known := func(i *stack.Interface) bool {
		for _, service := range []struct {
			proto stack.Proto
			port  uint16
		}{{stack.UDP, tftpPort}, {stack.TCP, secureSkinny}, {stack.TCP, secureSIP}} {
			if _, ok := d.plan.rules.RealOf(netip.AddrPortFrom(a, service.port), i, service.proto); ok {
				return true
			}
		}
		return false
	}
	if known(d.on) {
		return false
	}
	for _, i := range d.plan.interfaces {
		if i != d.on && d.plan.phonesOn(i) && known(i) {
			return true
		}
	}
	return false
}

// tftpText names where phones find files.
func (d *diagnosis) tftpText() string {
	for _, p := range d.told() {
		if p.files {
			return p.addr.String()
		}
	}
	return "that of the CTL file"
}

// translations checks that NAT leads from the addresses that phones are told of
// to the servers. (V22, V60.)
func (d *diagnosis) translations() {
	if len(d.told()) == 0 {
		d.fault("NAT", "the CTL file has no address for phones there", fmt.Sprintf("no record-entry has an address that phones on %s can reach", d.on),
			fmt.Sprintf("Add a static translation of the servers to %s, and a \"record-entry\" with its address to ctl-file %s.", d.on, d.plan.phone.ctl.Name))
	}
	for _, p := range d.told() {
		for _, s := range []struct {
			here  bool
			what  string
			proto stack.Proto
			port  uint16
		}{
			{p.files, "TFTP server", stack.UDP, tftpPort},
			{p.ucm && d.wants("skinny"), "call manager", stack.TCP, d.port(p, "skinny")},
			{p.ucm && d.wants("sip"), "call manager", stack.TCP, d.port(p, "sip")},
		} {
			if !s.here {
				continue
			}
			at := netip.AddrPortFrom(p.addr, s.port)
			real, ok := d.plan.rules.RealOf(at, d.on, s.proto)
			if !ok {
				real = at
			}
			if behind := d.plan.facing(real.Addr()); behind != nil && behind != d.on {
				d.ok("NAT", "%s %v/%d is %v", s.what, at.Addr(), at.Port(), real)
				continue
			}
			d.fault("NAT", "a NAT rule is missing",
				fmt.Sprintf("phones are told of the %s at %v, and no static NAT rule on %s leads from %s %d there to a host inside", s.what, p.addr, d.on, s.proto, s.port),
				fmt.Sprintf("Add a static translation: \"object network NAME\", \"host REAL\", \"nat (%s,%s) static %v\"; with \"service\" map every port that phones use.", d.inside(), d.on, p.addr))
		}
	}
}

// inside names the interface of the TFTP servers.
func (d *diagnosis) inside() string { return d.plan.phone.servers[0].on.Name }

// wants reports whether the phone may speak a protocol: the phone proxy inspects
// it, and the phone is not known to speak the other.
func (d *diagnosis) wants(service string) bool {
	if s := d.speaks(); s != "" && s != service {
		return false
	}
	for _, i := range d.runtimeProxies() {
		if i.protocol == service && (i.policy.on == nil || i.policy.on == d.on) {
			return true
		}
	}
	return false
}

// speaks returns the protocol that the phone is known to speak, or "".
func (d *diagnosis) speaks() string {
	if d.tale.Device == "" {
		return ""
	}
	if p, ok := d.plan.service.phones.Lookup(d.tale.Device, d.opt.Now()); ok && p.Original.Mode != 0 {
		if p.Original.SIP {
			return "sip"
		}
		return "skinny"
	}
	for k := len(d.tale.Events) - 1; k >= 0; k-- {
		if s := d.tale.Events[k].Service; s != "" && d.tale.Events[k].Device == d.tale.Device {
			return s
		}
	}
	return ""
}

// port returns the secure port of a service as phones know it at p.
func (d *diagnosis) port(p published, service string) uint16 {
	secure := uint16(secureSkinny)
	if service == "sip" {
		secure = secureSIP
	}
	for _, s := range d.plan.phone.servers { // usually the same host
		if m, ok := d.plan.rules.MappedOf(netip.AddrPortFrom(s.real.Addr(), secure), s.on, d.on, stack.TCP); ok && m.Addr() == p.addr {
			return m.Port()
		}
	}
	return secure
}

// permitted sends the phone's first packets through the dataplane's own
// decision, which opens nothing.
func (d *diagnosis) permitted() {
	if d.first() != nil {
		return // they would tell the same
	}
	for _, p := range d.told() {
		if p.files {
			d.try("TFTP requests", stack.UDP, p.addr, tftpPort, func(t *trace) bool { return t.files != nil })
		}
		for _, service := range []string{"skinny", "sip"} {
			if p.ucm && d.wants(service) {
				d.try("signaling ("+service+")", stack.TCP, p.addr, d.port(p, service), func(t *trace) bool { return t.inspect != nil && t.inspect.phoneProxy })
			}
		}
	}
}

func (d *diagnosis) try(what string, proto stack.Proto, dst netip.Addr, port uint16, taken func(*trace) bool) {
	f := stack.Flow{Proto: proto, Src: netip.AddrPortFrom(d.addr, samplePort), Dst: netip.AddrPortFrom(dst, port)}
	t := d.foresee(f)
	switch {
	case t.conn != nil || t.hole != nil:
		d.ok("access", "%s to %s pass: a connection is open", what, slashed(f.Dst))
	case t.verdict == stack.DropACL:
		list, entry := "", "the implicit deny at its end"
		for k := range t.asks {
			list = t.asked[k].list.Name
			if e := t.asked[k].entry; e != nil {
				entry = fmt.Sprintf("%q", e.Text)
			}
		}
		if list == "" {
			d.fault("access", "an interface does not take the phone's packets", fmt.Sprintf("%s to %s from %s are refused: %s", what, slashed(f.Dst), d.on, t.verdict.Text()),
				"Check the interfaces' access-groups and \"management-only\".")
			return
		}
		d.fault("access", "an access list denies the phone's packets",
			fmt.Sprintf("%s to %s are denied by access-list %s: %s", what, slashed(f.Dst), list, entry),
			fmt.Sprintf("Permit %s from %v to %v port %d in access-list %s; from version 8.3 on lists name real addresses.", proto, d.addr, t.real.Dst.Addr(), t.real.Dst.Port(), list))
	case t.verdict != stack.Forward:
		d.fault("access", "the box drops the phone's packets", fmt.Sprintf("%s to %s are dropped: %s (%v)", what, slashed(f.Dst), t.verdict.Text(), t.verdict),
			fmt.Sprintf("\"packet-tracer input %s %s %v %d %v %d\" shows each step.", d.on, proto, d.addr, samplePort, dst, port))
	case !taken(t):
		d.fault("access", "the phone proxy does not take the phone's packets", fmt.Sprintf("%s to %s pass through the box untouched", what, slashed(f.Dst)),
			"Check \"tftp-server\" of the phone-proxy and the classes of its policy: class-maps match real ports and addresses.")
	default:
		d.ok("access", "%s to %s are taken", what, slashed(f.Dst))
	}
}

// foresee is packet-tracer for a packet of the phone.
func (d *diagnosis) foresee(f stack.Flow) *trace {
	var b []byte
	if f.Proto == stack.TCP {
		b = stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN, Window: 8192}, nil)
	} else {
		b = stack.AppendUDP(nil, f, nil)
	}
	p := stack.NewPacket(len(b))
	p.SetData(b)
	p.Time, p.In = d.opt.Now(), d.on
	if v := p.Parse(); v != stack.Forward {
		return &trace{verdict: v}
	}
	return d.trace(p)
}

// latest returns the last event of one of the kinds that was not followed by a
// registration.
func (d *diagnosis) latest(kinds ...phoneproxy.Kind) *phoneproxy.Event {
	if d.tale.registered() != nil {
		return nil
	}
	return d.tale.Latest(kinds...)
}

// callManager judges what became of the phone behind TLS.
func (d *diagnosis) callManager() {
	if s := d.tale.registered(); s != nil {
		d.ok("call manager", "registered with %v since %s", s.UCM, at(s.Since))
		return
	}
	e := d.latest(phoneproxy.TurnedAway, phoneproxy.UCMFailed, phoneproxy.Connected, phoneproxy.Registered, phoneproxy.Rejected, phoneproxy.Disconnected)
	if e == nil {
		d.unknown("call manager", "the phone has not come as far")
		return
	}
	text := fmt.Sprintf("%s %s: %s", at(e.Time), kindText(e.Kind), cmp.Or(e.Text, "-"))
	switch e.Fault {
	case phoneproxy.FaultUCMRefused:
		d.fault("call manager", "the call manager's port is closed", text,
			"Check that the CallManager service runs on that host and that the phone's protocol is enabled there.")
	case phoneproxy.FaultUCMSilent:
		d.fault("call manager", "the call manager does not answer", text,
			"Check the host, the network to it, and its route back to the phone's address, under which the box calls it.")
	case phoneproxy.FaultRejected:
		d.fault("call manager", "the call manager rejects the phone's registration", text,
			"Check that the phone is configured there under this name and for this protocol.")
	case phoneproxy.FaultBusy:
		d.fault("call manager", "too many sessions", text, "Raise \"tls-proxy maximum-sessions\", or end those of phones that are gone: \"show tls-proxy session\".")
	case phoneproxy.FaultEntry:
		d.fault("call manager", "the phone has no secure-phone entry", text,
			"Restart the phone, so that it fetches its CTL file; make \"timeout secure-phones\" longer than its keepalive; or permit \"secure-phones readmit\".")
	case phoneproxy.FaultName:
		d.fault("call manager", "the phone registers under a name that is not its certificate's", text, "Check who that is; a soft phone must have the device name of its certificate.")
	default:
		if len(d.tale.sessions) > 0 {
			d.unknown("call manager", "connected, the call manager has not answered the registration yet")
			return
		}
		d.unknown("call manager", "%s", text)
	}
}
