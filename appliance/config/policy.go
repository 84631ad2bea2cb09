package config

import (
	"slices"

	"patchbay/appliance/cli"
)

// engines are the protocols that Patchbay inspects. "icmp error" is what it does
// without being told: errors are translated for every hop.
var engines = []string{"sip", "skinny", "tftp", "icmp", "icmp error"}

// policyGlobals are classes of traffic and what is done to them.
// (reference/asa-cli.md, section 8.5.)
func policyGlobals() []command {
	list := []command{
		cmd("class-map [match-any] <name>", by("class-map $name").opens(inClassMap), func(p *parser, a cli.Args) {
			p.enter(inClassMap, findOrAdd(&p.run.ClassMaps, func(c *ClassMap) bool { return c.Name == a.Get("name") },
				func() ClassMap { return ClassMap{Line: p.line, Name: a.Get("name")} }))
		}),
		cmd("policy-map <name>", each.opens(inPolicyMap), func(p *parser, a cli.Args) { p.enter(inPolicyMap, p.policyMap("", a.Token("name"))) }),
		cmd("policy-map type inspect dns <name>", each.opens(inInspectDNS), func(p *parser, a cli.Args) {
			p.enter(inInspectDNS, p.policyMap("inspect dns", a.Token("name")))
		}),
		cmd("service-policy <name> {global|interface <if>}", each, parseServicePolicy),
	}
	list = append(list, inspectMapGlobals()...)
	list = append(list, notYet("parameters of an engine", "policy-map type management <rest:line>")...)
	return append(list, notYet("service-policy with this option", "service-policy <name> {global|interface <if>} <rest:line>")...)
}

func classMapCommands() []command {
	list := []command{
		cmd("match any", each, func(p *parser, a cli.Args) { p.match(a, Match{Kind: MatchAny}) }),
		cmd("match default-inspection-traffic", each, func(p *parser, a cli.Args) { p.match(a, Match{Kind: MatchDefault, Default: true}) }),
		cmd("match access-list <name>", each, func(p *parser, a cli.Args) { p.match(a, Match{Kind: MatchACL, ACL: a.Get("name")}) }),
		cmd("match port {tcp|udp} {eq <from:port>|range <from:port> <to:port>}", each, parseMatchPort),
	}
	list = append(list, inert("it is a comment", "description <text:line>")...)
	return append(list, notYet("a match of this kind", "match {not|dscp|precedence|rtp|tunnel-group|flow|ipv6|port sctp} [<rest:line>]")...)
}

// match gives the class its condition. A class has one.
func (p *parser) match(a cli.Args, m Match) {
	c := &p.run.ClassMaps[p.item]
	if c.Match.Kind != MatchNone {
		p.refuse(a.Token("match"), "", "class-map %s has a match already (line %d), and a class has one; make another class", c.Name, c.Match.Line)
		return
	}
	m.Line = p.line
	c.Match = m
}

func parseMatchPort(p *parser, a cli.Args) {
	m := Match{Kind: MatchPort, Proto: "tcp"}
	if a.Has("udp") {
		m.Proto = "udp"
	}
	from, _ := parsePort(a.Get("from"))
	to := from
	if a.Has("to") {
		to, _ = parsePort(a.Get("to"))
	}
	if from == 0 || from > to {
		p.refuse(a.Token("from"), "", "these ports match nothing: ports are 1 to 65535, the lower first")
		return
	}
	m.From, m.To = uint16(from), uint16(to)
	p.match(a, m)
}

// policyMap returns the index of a policy map, which may be new.
func (p *parser) policyMap(kind string, name cli.Token) int {
	i := findOrAdd(&p.run.PolicyMaps, func(m *PolicyMap) bool { return m.Name == name.Text },
		func() PolicyMap { return PolicyMap{Line: p.line, Name: name.Text, Type: kind} })
	if m := p.run.PolicyMaps[i]; m.Type != kind {
		p.refuse(name, "", "line %d has a policy-map %s of another type; names of policy maps are distinct", m.Line, m.Name)
		p.run.PolicyMaps = append(p.run.PolicyMaps, PolicyMap{Line: p.line, Name: name.Text, Type: kind})
		return len(p.run.PolicyMaps) - 1
	}
	return i
}

func policyMapCommands() []command {
	list := []command{
		cmd("class <name>", each.opens(inPolicyClass), func(p *parser, a cli.Args) {
			m := &p.run.PolicyMaps[p.item]
			p.mode, p.entered = inPolicyClass, true
			p.class = findOrAdd(&m.Classes, func(c *PolicyClass) bool { return c.Class == a.Get("name") },
				func() PolicyClass { return PolicyClass{Line: p.line, Class: a.Get("name")} })
		}),
	}
	return append(list, inert("it is a comment", "description <text:line>")...)
}

func policyClassCommands() []command {
	list := []command{
		cmd("inspect {sip|skinny} [<map:name>] [phone-proxy <pp:name>|tls-proxy <tlsp:name>]", each, parseInspect),
		cmd("inspect tftp", each, parseInspect),
		cmd("inspect {dns|ftp|h323|http|icmp|ils|ip-options|ipsec-pass-thru|mgcp|netbios|pptp|rsh|rtsp|esmtp|snmp|sqlnet|sunrpc|xdmcp|"+
			"waas|ctiqbe|dcerpc|gtp|im} [{h225|ras|error|strict}...] [<map:name>] [dynamic-filter-snoop]", each, parseInspect),
	}
	list = append(list, policingCommands()...)
	list = append(list, idle(noQueues, "Priority queue: kept, without effect", "priority")...)
	list = append(list, idle(noModule, "Module: kept, without effect", "ips {inline|promiscuous} fail-open [sensor <name>]", "csc fail-open", "sfr fail-open [monitor-only]",
		"cxsc fail-open [auth-proxy|monitor-only]...")...)
	list = append(list, idle(noNetFlow, "NetFlow: kept, without effect", "flow-export event-type <rest:line>")...)
	list = append(list, idle("it only counts", "Counts of users: kept, without effect", "user-statistics <rest:line>")...)
	list = append(list, idle("it is so here: the box is a hop to what passes it", "Count the hop", "set connection decrement-ttl")...)
	list = append(list, notYet("this action on a class",
		"set connection advanced-options <rest:line>", "set connection timeout dcd [<rest:line>]", "shape <rest:line>", "ips <rest:line>", "csc <rest:line>",
		"sfr <rest:line>", "cxsc <rest:line>", "no <rest:line>", "inspect sip [<map:name>] uc-ime <rest:line>")...)
	return list
}

func inspectDNSCommands() []command {
	return append([]command{cmd("parameters", each.opens(inDNSParameters), func(p *parser, _ cli.Args) {
		p.enter(inDNSParameters, p.item)
		p.noEffect(noDNSEngine)
	})}, inert("it is a comment", "description <text:line>")...)
}

const noDNSEngine = "there is no DNS engine; the maps of \"inspect dns\" are kept only"

func dnsParameterCommands() []command {
	return inert(noDNSEngine,
		"message-length maximum {client|server} {auto|<n:512-65535>}", "message-length maximum <n:512-65535>",
		"no message-length maximum {client|server} [auto]", "no tcp-inspection", "tcp-inspection",
		"[no] id-randomization", "[no] id-mismatch [<rest:line>]", "[no] protocol-enforcement", "[no] nat-rewrite", "[no] dns-guard",
		"[no] tsig <rest:line>")
}

func parseInspect(p *parser, a cli.Args) {
	c := &p.run.PolicyMaps[p.item].Classes[p.class]
	tok := cli.Split(p.text)[1]
	in := Inspect{Line: p.line, Protocol: a.Names()[1], Map: a.Get("map"), PhoneProxy: a.Get("pp"), TLSProxy: a.Get("tlsp")}
	for _, variant := range []string{"h225", "ras", "error"} {
		if a.Has(variant) {
			in.Protocol += " " + variant
		}
	}
	if before := find(c.Inspects, func(o *Inspect) bool { return o.Protocol == in.Protocol }); before != nil {
		p.refuse(tok, "V10", "class %s is inspected as %s already (line %d), and one inspection cannot have two maps; remove one",
			c.Class, in.Protocol, before.Line)
		return
	}
	c.Inspects = append(c.Inspects, in)
	if !slices.Contains(engines, in.Protocol) {
		p.warn(tok, "", "there is no %s engine: this traffic passes as access lists and NAT say, uninspected", in.Protocol)
	}
}

func parseServicePolicy(p *parser, a cli.Args) {
	s := ServicePolicy{Line: p.line, Policy: a.Get("name"), Interface: a.Get("if")}
	if before := find(p.run.ServicePolicies, func(o *ServicePolicy) bool { return o.Interface == s.Interface }); before != nil {
		where := "interface " + s.Interface
		if s.Interface == "" {
			where = "global"
		}
		p.refuse(a.Token("name"), "V10", "line %d has put policy %s on %s already, and there is one policy on an interface and one global; "+
			"put the classes of both into one policy map", before.Line, before.Policy, where)
		return
	}
	p.run.ServicePolicies = append(p.run.ServicePolicies, s)
}
