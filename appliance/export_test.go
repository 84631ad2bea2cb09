package appliance

import (
	"slices"

	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/nat"
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

// InUse returns how many connections, pinholes and dynamic translations there
// are.
func (r *Replay) InUse() (conns, holes, leases int) { return r.box.InUse() }

// InUse returns how many connections, pinholes and dynamic translations there
// are.
func (a *Appliance) InUse() (conns, holes, leases int) {
	used, lingering := a.data.pat.Len()
	return a.table.Len(), a.table.Pinholes(), used + lingering
}

// ConnIDs returns which connections of a protocol there are, by rising number.
func (a *Appliance) ConnIDs(proto stack.Proto) (ids []uint64) {
	a.table.Conns(func(c *nat.Conn) bool {
		if c.Proto() == proto {
			ids = append(ids, c.ID)
		}
		return true
	})
	slices.Sort(ids)
	return ids
}
