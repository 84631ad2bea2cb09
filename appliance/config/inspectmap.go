package config

import (
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

// A MapAction is what is done to a message that a check of an inspection map
// finds. The zero MapAction says that the check is off.
type MapAction struct {
	Line   int    // 0 of a default
	Action string // "drop" the message, "drop-connection", "reset", "mask", "log" only; "" is off
	Log    bool   // log it as well
}

// On reports whether the check is made.
func (a MapAction) On() bool { return a.Action != "" }

// A SIPMap is a policy-map type inspect sip. (reference/asa-cli.md, section 9.1.)
type SIPMap struct {
	IM              bool      // instant messaging passes; true by default
	AddressPrivacy  bool      // ip-address-privacy: endpoints' addresses are hidden from each other
	TrafficNonSIP   bool      // what is not SIP may use the port; true by default
	RTPConformance  bool      // media in the pinholes must be RTP
	EnforcePayload  bool      // and of the payload type signaled (enforce-payloadtype)
	MaxForwards     MapAction // Max-Forwards is 0; drop by default
	SoftwareVersion MapAction // Server and User-Agent
	StateChecking   MapAction // a message against the state of its dialogue
	StrictHeader    MapAction // a header against RFC 3261
	URINonSIP       MapAction // another URI in Alert-Info and Call-Info
	Matches         []SIPMatch
}

// A SIPMatch is a match line of a SIPMap and its action: exactly one of
// ContentLength, ContentSDP, Method and URI is set.
type SIPMatch struct {
	Line          int
	Not           bool
	ContentLength int    // content length gt: bytes
	ContentSDP    bool   // content type sdp
	Method        string // request-method, in lower case: "invite"
	URI           string // uri: "sip" or "tel", longer than URILength
	URILength     int    // bytes
	Act           MapAction
	RateLimit     int // messages a second that pass before Act; 0 is none
}

// A SkinnyMap is a policy-map type inspect skinny. (reference/asa-cli.md, section 9.2.)
type SkinnyMap struct {
	EnforceRegistration bool
	MessageIDMax        uint32        // 0x181 by default
	PrefixMin           int           // bytes of SCCP's length field, sccp-prefix-len min; 4 by default
	PrefixMax           int           // 0, the default, is no limit
	RTPConformance      bool          // media in the pinholes must be RTP
	EnforcePayload      bool          // and of the payload type signaled
	MediaTimeout        time.Duration // 5 minutes by default
	SignalingTimeout    time.Duration // 1 hour by default
	Matches             []SkinnyMatch
}

// A SkinnyMatch is a match line of a SkinnyMap and its action.
type SkinnyMatch struct {
	Line     int
	Not      bool
	From, To uint32 // message IDs, inclusive
	Act      MapAction
}

// DefaultSIPMap returns the parameters of inspect sip without a map.
func DefaultSIPMap() *SIPMap {
	return &SIPMap{IM: true, TrafficNonSIP: true, MaxForwards: MapAction{Action: "drop"}}
}

// DefaultSkinnyMap returns the parameters of inspect skinny without a map.
func DefaultSkinnyMap() *SkinnyMap {
	return &SkinnyMap{MessageIDMax: 0x181, PrefixMin: 4, MediaTimeout: 5 * time.Minute, SignalingTimeout: time.Hour}
}

const (
	fullActions = "{drop|drop-connection|reset|log} [log]"
	maskActions = "{mask|log} [log]"
	sipMethods  = "ack|bye|cancel|info|invite|message|notify|options|prack|publish|refer|register|subscribe|unknown|update"
)

func (p *parser) sipMap() *SIPMap       { return p.run.PolicyMaps[p.item].SIP }
func (p *parser) skinnyMap() *SkinnyMap { return p.run.PolicyMaps[p.item].Skinny }

// inspectMapGlobals begin the parameters of engines.
func inspectMapGlobals() []command {
	list := []command{
		cmd("policy-map type inspect sip <name>", each.opens(inSIPMap), func(p *parser, a cli.Args) {
			i := p.policyMap("inspect sip", a.Token("name"))
			if m := &p.run.PolicyMaps[i]; m.SIP == nil {
				m.SIP = DefaultSIPMap()
			}
			p.enter(inSIPMap, i)
		}),
		cmd("policy-map type inspect skinny <name>", each.opens(inSkinnyMap), func(p *parser, a cli.Args) {
			i := p.policyMap("inspect skinny", a.Token("name"))
			if m := &p.run.PolicyMaps[i]; m.Skinny == nil {
				m.Skinny = DefaultSkinnyMap()
			}
			p.enter(inSkinnyMap, i)
		}),
	}
	return append(list, notYet("parameters of an engine by regular expressions", "class-map type <rest:line>")...)
}

// subMode enters a mode about the same item.
func subMode(m modeID) func(*parser, cli.Args) {
	return func(p *parser, _ cli.Args) { p.enter(m, p.item) }
}

func sipMapCommands() []command {
	list := []command{
		cmd("parameters", each.opens(inSIPParameters), subMode(inSIPParameters)),
		cmd("match [not] {content length gt <bytes:0-65536>|content type sdp|request-method {"+sipMethods+"}|uri {sip|tel} length gt <urilength:0-65536>}", each.opens(inSIPMatch),
			func(p *parser, a cli.Args) {
				m := SIPMatch{Line: p.line, Not: a.Has("not"), ContentLength: a.Int("bytes", 0), ContentSDP: a.Has("sdp"), URILength: a.Int("urilength", 0)}
				for _, w := range strings.Split(sipMethods, "|") {
					if a.Has(w) {
						m.Method = w
					}
				}
				for _, w := range []string{"sip", "tel"} {
					if a.Has(w) {
						m.URI = w
					}
				}
				s := p.sipMap()
				s.Matches = append(s.Matches, m)
				p.enter(inSIPMatch, p.item)
			}),
	}
	list = append(list, inert("it is a comment", "description <text:line>")...)
	return append(list, notYet("a match by regular expression", "class <name>", "match [not] {called-party|calling-party|im-subscriber|"+
		"message-path|third-party-registration|content} <rest:line>", "no <rest:line>")...)
}

func sipMatchCommands() []command {
	last := func(p *parser) *SIPMatch { s := p.sipMap(); return &s.Matches[len(s.Matches)-1] }
	return []command{
		cmd("{drop|drop-connection|reset|mask|log} [log]", by("action"), func(p *parser, a cli.Args) { p.act(a, &last(p).Act) }),
		cmd("rate-limit <n:1-4294967295>", one, func(p *parser, a cli.Args) { last(p).RateLimit = a.Int("n", 0) }),
	}
}

// act sets the action of a match, of which there is one.
func (p *parser) act(a cli.Args, to *MapAction) {
	if to.On() {
		p.refuse(cli.Split(p.text)[0], "", "line %d has an action for this match already", to.Line)
		return
	}
	*to = p.mapAction(a)
}

func (p *parser) mapAction(a cli.Args) MapAction {
	act := MapAction{Line: p.line, Log: len(a.All("log")) > 0}
	for _, w := range []string{"drop", "drop-connection", "reset", "mask"} {
		if a.Has(w) {
			act.Action = w
		}
	}
	if act.Action == "" {
		act.Action = "log"
	}
	return act
}

func sipParameterCommands() []command {
	list := []command{
		cmd("[no] im", one, func(p *parser, a cli.Args) { p.sipMap().IM = !a.Has("no") }),
		cmd("[no] ip-address-privacy", one, func(p *parser, a cli.Args) { p.sipMap().AddressPrivacy = !a.Has("no") }),
		cmd("[no] traffic-non-sip", one, func(p *parser, a cli.Args) { p.sipMap().TrafficNonSIP = !a.Has("no") }),
		cmd("[no] rtp-conformance [enforce-payloadtype]", one, func(p *parser, a cli.Args) {
			p.sipMap().RTPConformance, p.sipMap().EnforcePayload = !a.Has("no"), !a.Has("no") && a.Has("enforce-payloadtype")
		}),
	}
	for _, x := range []struct {
		name, actions string
		of            func(*SIPMap) *MapAction
	}{
		{"max-forwards-validation", fullActions, func(s *SIPMap) *MapAction { return &s.MaxForwards }},
		{"state-checking", fullActions, func(s *SIPMap) *MapAction { return &s.StateChecking }},
		{"strict-header-validation", fullActions, func(s *SIPMap) *MapAction { return &s.StrictHeader }},
		{"software-version", maskActions, func(s *SIPMap) *MapAction { return &s.SoftwareVersion }},
		{"uri-non-sip", maskActions, func(s *SIPMap) *MapAction { return &s.URINonSIP }},
	} {
		list = append(list,
			cmd(x.name+" action "+x.actions, by(x.name), func(p *parser, a cli.Args) { *x.of(p.sipMap()) = p.mapAction(a) }),
			cmd("no "+x.name+" [<rest:line>]", by(x.name), func(p *parser, a cli.Args) { *x.of(p.sipMap()) = MapAction{} }))
	}
	return append(list, notYet("this parameter of inspect sip", "trust-verification-server <rest:line>")...)
}

func skinnyMapCommands() []command {
	list := []command{
		cmd("parameters", each.opens(inSkinnyParameters), subMode(inSkinnyParameters)),
		cmd("match [not] message-id {<id:hexnum>|range <from:hexnum> <to:hexnum>}", each.opens(inSkinnyMatch), func(p *parser, a cli.Args) {
			m := SkinnyMatch{Line: p.line, Not: a.Has("not")}
			if a.Has("id") {
				m.From, _ = parseHexNumber(a.Get("id"))
				m.To = m.From
			} else {
				m.From, _ = parseHexNumber(a.Get("from"))
				m.To, _ = parseHexNumber(a.Get("to"))
			}
			if m.To < m.From {
				p.refuse(a.Token("to"), "", "the range of message IDs ends before it begins")
			}
			s := p.skinnyMap()
			s.Matches = append(s.Matches, m)
			p.enter(inSkinnyMatch, p.item)
		}),
	}
	list = append(list, inert("it is a comment", "description <text:line>")...)
	return append(list, notYet("a match by class", "class <name>", "no <rest:line>")...)
}

func skinnyMatchCommands() []command {
	return []command{cmd("{drop|drop-connection|reset|log} [log]", by("action"), func(p *parser, a cli.Args) {
		s := p.skinnyMap()
		p.act(a, &s.Matches[len(s.Matches)-1].Act)
	})}
}

func skinnyParameterCommands() []command {
	def := DefaultSkinnyMap()
	return []command{
		cmd("[no] enforce-registration", one, func(p *parser, a cli.Args) { p.skinnyMap().EnforceRegistration = !a.Has("no") }),
		cmd("message-id max <id:hexnum>", one, func(p *parser, a cli.Args) { p.skinnyMap().MessageIDMax, _ = parseHexNumber(a.Get("id")) }),
		cmd("no message-id max [<id:hexnum>]", one, func(p *parser, a cli.Args) { p.skinnyMap().MessageIDMax = def.MessageIDMax }),
		cmd("[no] rtp-conformance [enforce-payloadtype]", one, func(p *parser, a cli.Args) {
			p.skinnyMap().RTPConformance, p.skinnyMap().EnforcePayload = !a.Has("no"), !a.Has("no") && a.Has("enforce-payloadtype")
		}),
		cmd("sccp-prefix-len {max|min} <bytes:0-4294967295>", by("$1 $2"), func(p *parser, a cli.Args) {
			s := p.skinnyMap()
			if a.Has("max") {
				s.PrefixMax = a.Int("bytes", 0)
			} else {
				s.PrefixMin = a.Int("bytes", 0)
			}
			if s.PrefixMax > 0 && s.PrefixMax < s.PrefixMin {
				p.refuse(a.Token("bytes"), "", "the longest prefix, %d, is shorter than the shortest, %d", s.PrefixMax, s.PrefixMin)
			}
		}),
		cmd("no sccp-prefix-len {max|min} [<bytes:0-4294967295>]", by("$1 $2"), func(p *parser, a cli.Args) {
			if a.Has("max") {
				p.skinnyMap().PrefixMax = def.PrefixMax
			} else {
				p.skinnyMap().PrefixMin = def.PrefixMin
			}
		}),
		cmd("timeout {media|signaling} <time>", by("$1 $2"), func(p *parser, a cli.Args) {
			t, _ := parseTime(a.Get("time"))
			if a.Has("media") {
				p.skinnyMap().MediaTimeout = t
			} else {
				p.skinnyMap().SignalingTimeout = t
			}
		}),
	}
}

// parseHexNumber reads a message ID, with or without 0x.
func parseHexNumber(word string) (uint32, bool) {
	word = strings.TrimPrefix(strings.ToLower(word), "0x")
	n, err := strconv.ParseUint(word, 16, 32)
	return uint32(n), err == nil
}
