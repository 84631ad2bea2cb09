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
func (a *Appliance) MediaSessions() []*media.Session { return a.plan().service.relay.Sessions() }

// PhoneSessions returns the phones' signaling connections.
func (a *Appliance) PhoneSessions() []phoneproxy.Session { return a.plan().service.proxy.Sessions() }

// Phones returns the secure-phone database.
func (a *Appliance) Phones() *phoneproxy.Phones { return a.plan().service.phones }

// Conns returns the number of connections in the table, Pinholes of pinholes.
func (a *Appliance) Conns() int { return a.table.Len() }

// Pinholes returns the number of pinholes in the table.
func (a *Appliance) Pinholes() int { return a.table.Pinholes() }

// InUse returns how many connections, pinholes, dynamic translations and
// conversations that wait to be ended there are.
func (a *Appliance) InUse() (conns, holes, leases, ended int) {
	used, lingering := a.data.pat.Len()
	return a.table.Len(), a.table.Pinholes(), used + lingering, a.data.ended.len()
}

// Talks returns how many conversations the box ends that go on.
func (a *Appliance) Talks() (n int) {
	a.talks.each(func(*Talk) { n++ })
	return n
}

// len returns how many conversations can be found by their first packet.
func (s *terminations) len() (n int) {
	s.byFlow.Range(func(any, any) bool {
		n++
		return true
	})
	return n
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

// Table returns the connections of the box, PAT what its rules have given away.
func (a *Appliance) Table() *nat.Table { return a.table }
func (a *Appliance) PAT() *nat.PAT     { return a.data.pat }
