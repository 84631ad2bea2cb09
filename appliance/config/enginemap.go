package config

import (
	"slices"

	"patchbay/appliance/cli"
)

const (
	noEngine   = "there is no such engine; its traffic passes uninspected"
	helpEngine = "Parameter of an engine: kept, without effect"
)

// otherEngines are those of the ASA that have maps, and that this version has not.
var otherEngines = []string{"dcerpc", "diameter", "esmtp", "ftp", "gtp", "h323", "http", "im", "ip-options", "ipsec-pass-thru", "ipv6", "lisp", "m3ua", "mgcp",
	"netbios", "radius-accounting", "rtsp", "scansafe", "sctp", "snmp"}

// engineMapCommands begin the maps of engines that are not here. What would only
// loosen them or time them is kept; what would drop something is refused line by
// line.
func engineMapCommands() []command {
	c := cmd("policy-map type inspect <engine:engine> <name>", each.opens(inEngineMap), func(p *parser, a cli.Args) {
		p.enter(inEngineMap, p.policyMap("inspect "+a.Get("engine"), a.Token("name")))
		p.noEffect(noEngine)
	})
	c.Help = "Parameters of an engine: kept, without effect"
	return []command{c}
}

func otherEngine(word string) bool { return slices.Contains(otherEngines, word) }

func engineMapModeCommands() []command {
	c := cmd("parameters", each.opens(inEngineParameters), func(p *parser, _ cli.Args) {
		p.enter(inEngineParameters, p.item)
		p.noEffect(noEngine)
	})
	list := append([]command{c}, inert("it is a comment", "description <text:line>")...)
	return append(list, notYet("what an engine that is not here does to a message; what it would drop passes", "match <rest:line>", "class <rest:line>")...)
}

func engineParameterCommands() []command {
	list := settings(noEngine, helpEngine, "allow-tls", "mask-banner", "mask-syst-reply", "special-character", "mail-relay",
		"timeout", "endpoint-mapper", "eool", "nop", "router-alert", "basic-security", "commercial-security", "exp-flow-control", "exp-measure",
		"extended-security", "imi-traffic-descriptor", "quick-start", "record-route", "timestamp", "default", "spoof-server", "body-match-maximum",
		"call-agent", "gateway", "command-queue", "call-duration-limit", "call-party-numbers", "h245-tunnel-block", "hsi-group", "ras-rcf-pinholes", "early-message",
		"esp", "ah", "host", "send", "reserve-port-protect", "url-length-limit", "tunnel-limit", "request-queue", "gsn", "gtp-u-header-check", "permit")
	return append(list, notYet("what an engine that is not here does to a message; what it would drop passes",
		"protocol-violation <rest:line>", "verify-header <rest:line>", "rtp-conformance [<rest:line>]", "state-checking <rest:line>", "drop <rest:line>")...)
}
