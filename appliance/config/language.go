package config

import (
	"strings"
	"sync"

	"patchbay/appliance/cli"
)

// An action is what a command does: exactly one of do, inert and refuse is set.
type action struct {
	do     func(p *parser, a cli.Args)
	inert  string // why the command has no effect here
	refuse string // why it is refused, and what to do
	form   form
}

type command = cli.Rule[action]

// A form is how lines of a command live in a Text.
type form struct {
	// item names what the line sets: a line takes the place of the one before
	// with the same item. It is a template: $name stands for the word kept under
	// name and $4 for the fourth word, not counting "no"; "" is the whole line,
	// of which there may be many.
	item  string
	mode  modeID                // that the line begins, or global
	spell func(*placed)         // puts the line into the ASA's spelling, or nil
	split func([]word) [][]word // the lines that are kept for the one, or nil
}

var (
	loose = form{item: "loose"} // lines of which only the beginning is known: those in only one stand alone
	each  = form{}              // lines of this command stand beside each other
	one   = form{item: "one"}   // one line: its item is its first keywords, put in by cmd
)

// by is the form of a line that sets the item of a template.
func by(item string) form { return form{item: item} }

func (f form) opens(m modeID) form                     { f.mode = m; return f }
func (f form) spelled(spell func(*placed)) form        { f.spell = spell; return f }
func (f form) splits(split func([]word) [][]word) form { f.split = split; return f }

// cmd is a command that is obeyed.
func cmd(syntax string, f form, do func(p *parser, a cli.Args)) command {
	return command{Syntax: syntax, Do: action{do: do, form: f.of(syntax)}}
}

// of puts the first keywords of syntax in place of one.
func (f form) of(syntax string) form {
	if f.item == one.item {
		f.item = strings.Join(cli.Lead(syntax), " ")
	}
	return f
}

// inert are commands that are known and have no effect here because of why.
// Those that end in any words or have a choice stand beside each other.
func inert(why string, syntax ...string) []command {
	var list []command
	for _, s := range syntax {
		f := one
		switch {
		case strings.Contains(s, "<rest:line>"):
			f = loose
		case strings.Contains(s, "{") || strings.HasSuffix(s, "<if>"):
			f = each
		}
		list = append(list, command{Syntax: s, Do: action{inert: why, form: f.of(s)}})
	}
	return list
}

// notYet are commands of what, which the ASA has and Patchbay has not.
func notYet(what string, syntax ...string) []command {
	var list []command
	for _, s := range syntax {
		list = append(list, command{Syntax: s, Do: action{refuse: notSupported(what)}})
	}
	return list
}

// notSupported says that what is, and after "; " what to do in its place.
func notSupported(what string) string {
	what, remedy, ok := strings.Cut(what, "; ")
	if !ok {
		remedy = "remove the line if the box can do without it"
	}
	return what + ": not supported yet by this version; " + remedy
}

// A modeID names a mode.
type modeID int

const (
	global modeID = iota
	inInterface
	inObject
	inDNS
	inTrustpoint
	inChain
	inCTL
	inTLSProxy
	inMediaTermination
	inPhoneProxy
	inClassMap
	inPolicyMap
	inPolicyClass
	inInspectDNS
	inServiceObject
	inNetworkGroup
	inServiceGroup
	inProtocolGroup
	inICMPGroup
	inTimeRange
	inSIPMap
	inSIPParameters
	inSIPMatch
	inSkinnyMap
	inSkinnyParameters
	inSkinnyMatch
	inDNSParameters
	inCallHome
	inCallHomeProfile
	inUser
	inVPNPolicy
	inTunnelGroup
	inGroupPolicy
	inGroupWebVPN
	inWebVPN
	inUserWebVPN
	inNACPolicy
	inAccessRecord
	inRecordWebVPN
	inVPNBalancing
	inCertificateMap
	inAAAServer
	inLDAPMap
	inSLA
	inApplet
	inFilterList
	inPriorityQueue
	inIdleClass
	inCAServer
	inEngineMap
	inEngineParameters
	modeCount
)

// A mode is a set of commands and what the operator sees of it.
type mode struct {
	name   string // as it begins: "phone-proxy"
	prompt string // between host name and "#": "(config-phone-proxy)"
	parent modeID

	grammar  *cli.Grammar[action]
	positive *cli.Grammar[action] // without those that are refused or begin with "no"
	moves    *cli.Grammar[move]   // that leave the mode
}

// A language is all modes.
type language struct {
	modes   [modeCount]mode
	actions *cli.Grammar[action] // typed in configuration mode, and not kept
}

// asa returns the language, which never changes.
var asa = sync.OnceValue(func() *language {
	l := new(language)
	add := func(id modeID, name, prompt string, parent modeID, lists ...[]command) {
		var all []command
		for _, list := range lists {
			all = append(all, list...)
		}
		var positive []command
		for _, c := range all {
			if c.Syntax = strings.TrimPrefix(c.Syntax, "[no] "); c.Do.refuse == "" && !strings.HasPrefix(c.Syntax, "no ") {
				positive = append(positive, c)
			}
		}
		l.modes[id] = mode{name, prompt, parent, cli.MustCompile(all), cli.MustCompile(positive), cli.MustCompile(moves(id))}
	}
	l.actions = cli.MustCompile(actionCommands())
	add(global, "global configuration", "(config)", global,
		systemCommands(), loggingCommands(), interfaceGlobals(), objectGlobals(), groupGlobals(), accessCommands(), twiceNATCommands(), engineMapCommands(), legacyCommands(), cryptoCommands(), phoneProxyGlobals(), policyGlobals(),
		loginCommands(), privilegeCommands(), idleCommands(), vpnCommands(), farCommands(), inertCommands(), notYetCommands())
	add(inInterface, "interface", "(config-if)", global, interfaceCommands())
	add(inObject, "object network", "(config-network-object)", global, objectCommands())
	add(inDNS, "dns server-group", "(config-dns-server-group)", global, dnsCommands())
	add(inTrustpoint, "crypto ca trustpoint", "(config-ca-trustpoint)", global, trustpointCommands())
	add(inChain, "crypto ca certificate chain", "(config-cert-chain)", global, chainCommands())
	add(inCTL, "ctl-file", "(config-ctl-file)", global, ctlCommands())
	add(inTLSProxy, "tls-proxy", "(config-tlsp)", global, tlsProxyCommands())
	add(inMediaTermination, "media-termination", "(config-media-termination)", global, mediaTerminationCommands())
	add(inPhoneProxy, "phone-proxy", "(config-phone-proxy)", global, phoneProxyCommands())
	add(inClassMap, "class-map", "(config-cmap)", global, classMapCommands())
	add(inPolicyMap, "policy-map", "(config-pmap)", global, policyMapCommands())
	add(inPolicyClass, "class", "(config-pmap-c)", inPolicyMap, policyClassCommands())
	add(inInspectDNS, "policy-map type inspect dns", "(config-pmap)", global, inspectDNSCommands())
	add(inDNSParameters, "parameters", "(config-pmap-p)", inInspectDNS, dnsParameterCommands())
	add(inServiceObject, "object service", "(config-service-object)", global, serviceObjectCommands())
	add(inNetworkGroup, "object-group network", "(config-network-object-group)", global, networkGroupCommands())
	add(inServiceGroup, "object-group service", "(config-service-object-group)", global, serviceGroupCommands())
	add(inProtocolGroup, "object-group protocol", "(config-protocol-object-group)", global, protocolGroupCommands())
	add(inICMPGroup, "object-group icmp-type", "(config-icmp-object-group)", global, icmpGroupCommands())
	add(inTimeRange, "time-range", "(config-time-range)", global, timeRangeCommands())
	add(inUser, "username attributes", "(config-username)", global, userCommands())
	add(inSIPMap, "policy-map type inspect sip", "(config-pmap)", global, sipMapCommands())
	add(inSIPParameters, "parameters", "(config-pmap-p)", inSIPMap, sipParameterCommands())
	add(inSIPMatch, "match", "(config-pmap-c)", inSIPMap, sipMatchCommands())
	add(inSkinnyMap, "policy-map type inspect skinny", "(config-pmap)", global, skinnyMapCommands())
	add(inSkinnyParameters, "parameters", "(config-pmap-p)", inSkinnyMap, skinnyParameterCommands())
	add(inSkinnyMatch, "match", "(config-pmap-c)", inSkinnyMap, skinnyMatchCommands())
	add(inEngineMap, "policy-map type inspect", "(config-pmap)", global, engineMapModeCommands())
	add(inEngineParameters, "parameters", "(config-pmap-p)", inEngineMap, engineParameterCommands())
	add(inCallHome, "call-home", "(cfg-call-home)", global, callHomeCommands())
	add(inCallHomeProfile, "profile", "(cfg-call-home-profile)", inCallHome, callHomeProfileCommands())
	for _, x := range idleStanzaModes() {
		add(x.id, x.name, x.prompt, x.parent, x.commands)
	}
	return l
})
