package config

import (
	"slices"
	"strings"
)

// A Place is where a line is typed: a mode and the stanza it is about. The zero
// Place is global configuration. A Place never changes.
type Place struct {
	mode modeID
	path []string // items of the stanzas, the outermost first
	cert *certEntry
}

// A certEntry is a certificate that is being typed, up to a line quit.
type certEntry struct {
	trustpoint string
	ca         bool
	lines      []string
	size       int // bytes of lines
}

// Prompt returns what stands between the host name and "#": "(config)",
// "(config-if)". It is "" while a certificate is typed.
func (p Place) Prompt() string {
	if p.cert != nil {
		return ""
	}
	if len(p.path) > 0 {
		for _, x := range prompts {
			if x.mode == p.mode && strings.Contains(p.path[len(p.path)-1], x.item) {
				return x.prompt
			}
		}
	}
	return asa().modes[p.mode].prompt
}

// prompts are of stanzas of one mode which the ASA shows differently, by what
// their first line has.
var prompts = []struct {
	mode         modeID
	item, prompt string
}{
	{inInterface, ".", "(config-subif)"},
	{inAAAServer, " protocol ", "(config-aaa-server-group)"},
	{inTunnelGroup, " general-attributes", "(config-tunnel-general)"},
	{inTunnelGroup, " ipsec-attributes", "(config-tunnel-ipsec)"},
	{inTunnelGroup, " webvpn-attributes", "(config-tunnel-webvpn)"},
	{inTunnelGroup, " ppp-attributes", "(config-ppp)"},
	{inVPNPolicy, "isakmp policy", "(config-isakmp-policy)"},
	{inVPNPolicy, "ikev1 policy", "(config-ikev1-policy)"},
	{inVPNPolicy, "ikev2 policy", "(config-ikev2-policy)"},
	{inVPNPolicy, "ipsec-proposal", "(config-ipsec-proposal)"},
}

// Global reports whether p is global configuration.
func (p Place) Global() bool { return p.mode == global }

// out returns the place around p.
func (p Place) out() Place {
	if p.mode == global {
		return p
	}
	return Place{mode: asa().modes[p.mode].parent, path: p.path[:len(p.path)-1]}
}

// up returns the place of a mode at or around p.
func (p Place) up(m modeID) Place {
	for p.mode != m && p.mode != global {
		p = p.out()
	}
	return Place{mode: p.mode, path: p.path}
}

// in returns the place below p that a line with an item begins.
func (p Place) in(m modeID, item string) Place {
	return Place{mode: m, path: append(slices.Clip(p.path), item)}
}

// modes returns the modes of p and around it, the innermost first.
func (p Place) modes() []modeID {
	var list []modeID
	for m := p.mode; m != global; m = asa().modes[m].parent {
		list = append(list, m)
	}
	return append(list, global)
}
