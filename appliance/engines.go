package appliance

import (
	"log/slog"
	"strings"
	"time"

	"patchbay/appliance/config"
	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
)

// maxCalls is how many calls one conversation of plain inspection may have:
// between two proxies it carries everybody's.
const maxCalls = 10_000

// skinnyVersion is the highest protocol version whose layouts the engine knows:
// plain inspection lowers what phones announce to no less.
const skinnyVersion = 22

// longest is the idle timeout of media that has none.
const longest = 365 * 24 * time.Hour

// sipEngine returns the engine of plain "inspect sip" over tr as m sets it; a
// nil m is the ASA's default map.
func sipEngine(m *config.SIPMap, t config.Timeouts, tr sip.Transport, log *slog.Logger) *sip.Engine {
	if m == nil {
		m = config.DefaultSIPMap()
	}
	e := &sip.Engine{
		Client: tr, Server: tr, NAT: true, MaxCalls: maxCalls,
		InviteTimeout: t.SIPInvite, DisconnectTimeout: t.SIPDisconnect, Timeout: t.SIP,
		Log: log,
		Map: sip.Map{
			MaxForwards:  action(m.MaxForwards),
			URINonSIP:    action(m.URINonSIP),
			Software:     action(m.SoftwareVersion),
			StrictHeader: action(m.StrictHeader),
			State:        action(m.StateChecking),
			NoIM:         !m.IM,
			NonSIP:       m.TrafficNonSIP,
			Private:      m.AddressPrivacy,
		},
	}
	for i := range m.Matches {
		e.Map.Matches = append(e.Map.Matches, sipMatch(&m.Matches[i]))
	}
	return e
}

func sipMatch(c *config.SIPMatch) sip.Match {
	x := sip.Match{Not: c.Not, Act: action(c.Act)}
	switch {
	case c.ContentSDP:
		x.Kind = sip.MatchSDP
	case c.Method != "":
		x.Kind = sip.MatchMethod
		if c.Method != "unknown" {
			x.Method = strings.ToUpper(c.Method)
		}
	case c.URI == "tel":
		x.Kind, x.Over = sip.MatchTel, c.URILength
	case c.URI == "sip":
		x.Kind, x.Over = sip.MatchURI, c.URILength
	default:
		x.Kind, x.Over = sip.MatchLength, c.ContentLength
	}
	if c.RateLimit > 0 {
		x.Rate = sip.NewRate(uint32(c.RateLimit))
	}
	return x
}

// sipOptions returns what a Binder of "inspect sip" does beside.
func sipOptions(m *config.SIPMap) inspect.Options {
	if m == nil {
		m = config.DefaultSIPMap()
	}
	return inspect.Options{RTP: conformance(m.RTPConformance, m.EnforcePayload)}
}

// conformance returns what "rtp-conformance [enforce-payloadtype]" lets pass.
func conformance(rtp, enforce bool) inspect.Conformance {
	switch {
	case rtp && enforce:
		return inspect.RTPSignaled
	case rtp:
		return inspect.RTPOnly
	}
	return inspect.AnyMedia
}

// sipLimits bounds a conversation of "inspect sip" over TCP.
func sipLimits(t config.Timeouts) inspect.Limits {
	return inspect.Limits{Reassembly: untilIdle(t.TCPProxyReassembly), Idle: untilIdle(t.SIP)}
}

// skinnyEngine returns the engine of "inspect skinny" as m sets it; a nil m is
// the ASA's default map.
func skinnyEngine(m *config.SkinnyMap, log *slog.Logger) skinny.Engine {
	if m == nil {
		m = config.DefaultSkinnyMap()
	}
	e := skinny.Engine{
		MaxVersion: skinnyVersion, Video: true, MediaTimeout: m.MediaTimeout,
		MaxID:     m.MessageIDMax,
		MinLength: uint32(m.PrefixMin), MaxLength: uint32(m.PrefixMax),
		EnforceRegistration: m.EnforceRegistration,
		Log:                 log,
	}
	for _, c := range m.Matches {
		e.Matches = append(e.Matches, skinny.Match{Not: c.Not, From: c.From, To: c.To, Act: action(c.Act)})
	}
	return e
}

// skinnyOptions returns what a Binder of "inspect skinny" does beside.
func skinnyOptions(m *config.SkinnyMap) inspect.Options {
	if m == nil {
		m = config.DefaultSkinnyMap()
	}
	o := inspect.Options{Private: true, Mark: "k", Media: m.MediaTimeout, RTP: conformance(m.RTPConformance, m.EnforcePayload)}
	if o.Media == 0 { // never
		o.Media = longest
	}
	return o
}

// skinnyLimits bounds a conversation of "inspect skinny".
func skinnyLimits(m *config.SkinnyMap, t config.Timeouts) inspect.Limits {
	if m == nil {
		m = config.DefaultSkinnyMap()
	}
	return inspect.Limits{Reassembly: untilIdle(t.TCPProxyReassembly), Idle: untilIdle(m.SignalingTimeout)}
}

// forEver returns the limit for a "timeout" of d: 0 is never.
func untilIdle(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// action returns what a says to do.
func action(a config.MapAction) inspect.Action {
	var act inspect.Action
	switch a.Action {
	case "drop":
		act = inspect.Drop
	case "drop-connection":
		act = inspect.DropConnection
	case "reset":
		act = inspect.Reset
	case "mask":
		act = inspect.Mask
	case "log":
		act = inspect.Log
	}
	if a.Log {
		act |= inspect.Log
	}
	return act
}

// phoneMaps returns the maps of the inspects that name a phone proxy, nil where
// one has none. Validate has seen that they agree.
func phoneMaps(r *config.Running, proxy string) (sipMap *config.SIPMap, skinnyMap *config.SkinnyMap) {
	for i := range r.PolicyMaps {
		for _, c := range r.PolicyMaps[i].Classes {
			for _, in := range c.Inspects {
				m := r.PolicyMap(in.Map)
				if in.PhoneProxy != proxy || m == nil {
					continue
				}
				switch in.Protocol {
				case "sip":
					sipMap = m.SIP
				case "skinny":
					skinnyMap = m.Skinny
				}
			}
		}
	}
	return sipMap, skinnyMap
}
