package appliance

import (
	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/stack"
)

// What tests of the whole box look at.

// MediaSessions returns the media sessions that are open.
func (a *Appliance) MediaSessions() []*media.Session { return a.relay.Sessions() }

// PhoneSessions returns the phones' signaling connections.
func (a *Appliance) PhoneSessions() []phoneproxy.Session { return a.proxy.Sessions() }

// Phones returns the secure-phone database.
func (a *Appliance) Phones() *phoneproxy.Phones { return a.phones }

// Conns returns the number of connections in the table, Pinholes of pinholes.
func (a *Appliance) Conns() int { return a.table.Len() }

// Pinholes returns the number of pinholes in the table.
func (a *Appliance) Pinholes() int { return a.table.Pinholes() }

// Drops returns how many packets were dropped, by reason.
func (a *Appliance) Drops() map[stack.Verdict]uint64 { return a.forward.Drops() }
