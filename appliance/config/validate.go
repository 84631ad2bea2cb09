package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// A validator looks for what is wrong between the lines of a Running.
type validator struct {
	run   *Running
	found []Finding
}

// Validate looks for what an ASA refuses in a whole configuration, and what
// keeps phones from working, by the rules of reference/asa-rules.md, section 1.
// Findings are in the order of lines. It does not change r.
func (r *Running) Validate() []Finding { return r.validate(unsupported) }

// validate is Validate for a box without some features.
func (r *Running) validate(missing []feature) []Finding {
	v := &validator{run: r}
	v.interfaces()
	v.routes()
	v.access()
	v.translations()
	v.trustpoints()
	v.policies()
	v.phoneProxy()
	v.mail()
	v.unsupported(missing)
	sortFindings(v.found)
	return v.found
}

// say adds a finding on a line, with the caret under the last word of it that
// is word; "" is no caret.
func (v *validator) say(s Severity, line int, word, rule, format string, args ...any) {
	f := Finding{File: v.run.File, Line: max(line, 1), Severity: s, Rule: rule, Msg: printable(fmt.Sprintf(format, args...))}
	if f.Line <= len(v.run.Lines) {
		text := v.run.Lines[f.Line-1].Text
		f.Column = lastWord(text, word).Col
		f.Text = clean(text)
	}
	v.found = append(v.found, f)
}

func (v *validator) fail(line int, word, rule, format string, args ...any) {
	v.say(Error, line, word, rule, format, args...)
}

func (v *validator) warn(line int, word, rule, format string, args ...any) {
	v.say(Warning, line, word, rule, format, args...)
}

// noKeyPair warns of a key pair that the box must have; msg has a %s for its label.
func (v *validator) noKeyPair(line int, label, msg string) {
	v.warn(line, label, "V04", msg, label)
	v.found[len(v.found)-1].KeyPair = label
}

// below returns the line from line on that has all of words, or line itself if
// there is none: where in its stanza an item is given.
func (v *validator) below(line int, words ...string) int {
	for n := line; n >= 1 && n <= len(v.run.Lines); n++ {
		found := 0
		for _, w := range words {
			if lastWord(v.run.Lines[n-1].Text, w).Col > 0 {
				found++
			}
		}
		if found == len(words) && v.run.Lines[n-1].Kind == Obeyed {
			return n
		}
	}
	return line
}

// needInterface reports a name that no interface has.
func (v *validator) needInterface(line int, name string) *Interface {
	i := v.run.Interface(name)
	if i == nil {
		v.fail(line, name, "V04", "no interface is named %s; %s", name, nearestOf(name, v.run.interfaceNames()))
	}
	return i
}

func (v *validator) interfaces() {
	for i := range v.run.Interfaces {
		x := &v.run.Interfaces[i]
		switch {
		case v.run.broken[stanza{inInterface, x.Hardware}]:
		case x.Name != "" && !x.Addr.IsValid() && !x.Shutdown:
			v.warn(x.Line, "", "", "%s has no ip address: it carries no traffic", x.Name)
		case x.Name == "" && x.Addr.IsValid() && !x.Shutdown:
			v.warn(x.Line, "", "", "%s has no nameif: it carries no traffic", x.Hardware)
		}
		if strings.Contains(x.Hardware, ".") && x.VLAN == 0 && x.Name != "" {
			v.fail(x.Line, "", "", "sub-interface %s has no vlan line", x.Hardware)
		}
		for j := range i {
			if y := &v.run.Interfaces[j]; x.Addr.IsValid() && y.Addr.IsValid() && x.Addr.Overlaps(y.Addr) {
				v.fail(v.below(x.Line, x.Addr.Addr().String()), x.Addr.Addr().String(), "",
					"two interfaces cannot be in the same subnet: %s of %s (line %d) overlaps %s", y.Addr.Masked(), y.Hardware, y.Line, x.Addr.Masked())
			}
		}
	}
}

func (v *validator) routes() {
	for i := range v.run.Routes {
		x := &v.run.Routes[i]
		out := v.needInterface(x.Line, x.Interface)
		if out == nil {
			continue
		}
		switch gw := x.Gateway.String(); {
		case v.run.broken[stanza{inInterface, out.Hardware}]:
		case !out.Addr.IsValid():
			v.fail(x.Line, x.Interface, "", "interface %s has no address, so no gateway can be on it", x.Interface)
		case out.Addr.Addr() == x.Gateway:
			v.fail(x.Line, gw, "", "%s is the interface's own address; the gateway is another router on %v", gw, out.Addr.Masked())
		case !out.Addr.Contains(x.Gateway):
			v.fail(x.Line, gw, "", "gateway %s is not on the network of %s, which is %v", gw, x.Interface, out.Addr.Masked())
		}
		for j := range i {
			if y := &v.run.Routes[j]; y.Prefix == x.Prefix && y.Metric == x.Metric {
				v.fail(x.Line, x.Gateway.String(), "", "line %d has a route to %v with metric %d already; give one of them another metric",
					y.Line, x.Prefix, x.Metric)
			}
		}
	}
}

// access checks access lists, and icmp and mtu lines.
func (v *validator) access() {
	for _, g := range v.run.AccessGroups {
		if v.run.AccessList(g.Name) == nil {
			var names []string
			for _, l := range v.run.AccessLists {
				names = append(names, l.Name)
			}
			v.fail(g.Line, g.Name, "V04", "there is no access list %s; %s", g.Name, nearestOf(g.Name, names))
		}
		if g.Direction != "global" {
			v.needInterface(g.Line, g.Interface)
		}
	}
	for _, r := range v.run.ICMP {
		v.needInterface(r.Line, r.Interface)
	}
	for _, r := range v.run.ReversePaths {
		v.needInterface(r.Line, r.Interface)
	}
	for _, f := range v.run.Fragments {
		if f.Interface != "" {
			v.needInterface(f.Line, f.Interface)
		}
	}
	if v.run.MappedACL {
		return
	}
	for _, l := range v.run.AccessLists {
		for i := range l.Entries {
			for _, dst := range l.Entries[i].Dsts[:min(len(l.Entries[i].Dsts), maxWarned)] {
				v.mappedDestination(&l.Entries[i], dst)
			}
		}
	}
}

// maxWarned is how many addresses of an entry are compared with NAT rules.
const maxWarned = 64

// mappedDestination warns of an entry that names the mapped address of a
// server, as one did before 8.3. (reference/asa-cli.md, section 1.)
func (v *validator) mappedDestination(e *ACE, dst AddrSpec) {
	if dst.Any || !dst.From.IsValid() || dst.From != dst.To {
		return
	}
	rule := v.mapping(dst.From)
	if rule == nil || !rule.Static || rule.RealFrom == rule.MappedFrom || v.static(dst.From) != nil || rule.MappedInterface {
		return
	}
	v.warn(e.Line, dst.From.String(), "", "%v is a mapped address, and access lists are compared with real ones; write %v",
		dst.From, v.real(rule, dst.From))
}

func (v *validator) trustpoints() {
	for _, t := range v.run.Trustpoints {
		if v.run.broken[stanza{inTrustpoint, t.Name}] {
			continue
		}
		if t.KeyPair != "" && v.run.KeyPair(t.KeyPair) == nil {
			v.noKeyPair(v.below(t.Line, "keypair", t.KeyPair), t.KeyPair, "no line generates key pair %s; the box must have it already, "+
				"or write crypto key generate rsa label %[1]s")
		}
		if (t.Enrollment == "terminal" || t.Enrollment == "url") && t.CACertificates == nil && t.Certificate == nil {
			v.warn(t.Line, t.Name, "", "trustpoint %s has no certificate in the text: phones it should vouch for are refused until "+
				"crypto ca authenticate %[1]s supplies it", t.Name)
		}
	}
}

func (v *validator) policies() {
	for _, c := range v.run.ClassMaps {
		if c.Match.Kind == MatchACL && v.run.AccessList(c.Match.ACL) == nil {
			v.fail(c.Match.Line, c.Match.ACL, "V04", "there is no access list %s", c.Match.ACL)
		}
		if c.Match.Kind == MatchNone && !v.run.broken[stanza{inClassMap, c.Name}] {
			v.warn(c.Line, c.Name, "", "class-map %s has no match line: no traffic belongs to it", c.Name)
		}
	}
	for i := range v.run.PolicyMaps {
		for _, c := range v.run.PolicyMaps[i].Classes {
			v.policyClass(&c)
		}
	}
	for _, s := range v.run.ServicePolicies {
		if m := v.run.PolicyMap(s.Policy); m == nil || m.Type != "" {
			var names []string
			for _, m := range v.run.PolicyMaps {
				if m.Type == "" {
					names = append(names, m.Name)
				}
			}
			v.fail(s.Line, s.Policy, "V04", "there is no policy-map %s; %s", s.Policy, nearestOf(s.Policy, names))
		}
		if s.Interface != "" {
			v.needInterface(s.Line, s.Interface)
		}
	}
}

func (v *validator) policyClass(c *PolicyClass) {
	if v.run.ClassMap(c.Class) == nil && c.Class != "class-default" {
		var names []string
		for _, m := range v.run.ClassMaps {
			names = append(names, m.Name)
		}
		v.fail(c.Line, c.Class, "V04", "there is no class-map %s; %s", c.Class, nearestOf(c.Class, names))
	}
	for _, in := range c.Inspects {
		if in.Map != "" {
			if m := v.run.PolicyMap(in.Map); m == nil || m.Type != "inspect "+strings.Fields(in.Protocol)[0] {
				v.fail(in.Line, in.Map, "V04", "there is no policy-map type inspect %s %s", in.Protocol, in.Map)
			}
		}
		if in.TLSProxy != "" && v.run.TLSProxy(in.TLSProxy) == nil {
			v.fail(in.Line, in.TLSProxy, "V04", "there is no tls-proxy %s", in.TLSProxy)
		}
		if in.PhoneProxy != "" && v.run.PhoneProxy(in.PhoneProxy) == nil {
			var names []string
			for _, p := range v.run.PhoneProxies {
				names = append(names, p.Name)
			}
			v.fail(in.Line, in.PhoneProxy, "V04", "there is no phone-proxy %s; %s", in.PhoneProxy, nearestOf(in.PhoneProxy, names))
		}
	}
}

// locate returns the interface by which addr is reached: connected, or by the
// longest route. It is nil if there is none.
func (v *validator) locate(addr netip.Addr) *Interface {
	var best *Interface
	bits, metric := -1, 0
	for i := range v.run.Interfaces {
		if x := &v.run.Interfaces[i]; x.Name != "" && x.Addr.IsValid() && x.Addr.Contains(addr) && x.Addr.Bits() > bits {
			best, bits = x, x.Addr.Bits()
		}
	}
	for _, r := range v.run.Routes {
		if r.Prefix.Contains(addr) && (r.Prefix.Bits() > bits || r.Prefix.Bits() == bits && r.Metric < metric) {
			if i := v.run.Interface(r.Interface); i != nil {
				best, bits, metric = i, r.Prefix.Bits(), r.Metric
			}
		}
	}
	return best
}
