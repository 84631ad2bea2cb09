package dns

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Host is what is known about a name.
type Host struct {
	Name    string
	Addrs   []netip.Addr
	Names   []string // of an address, whose Name is that of in-addr.arpa
	Err     error    // why there are no addresses
	Fetched time.Time
	Expires time.Time
	Failure error // why it could not be renewed; nil: it could
}

// Hosts returns what is known, by name.
func (r *Resolver) Hosts() []Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Host
	for name, e := range r.entries {
		h := Host{Name: name, Addrs: slices.Clone(e.addrs), Names: slices.Clone(e.names), Fetched: e.fetched, Expires: e.expires}
		if e.err != nil {
			h.Err = e.err.Err
		}
		if e.failure != nil {
			h.Failure = e.failure.Err
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// A Server is how it goes with one of the servers.
type Server struct {
	Addr             netip.Addr
	Queries, Answers uint64
	Strange          uint64    // datagrams that answered no query
	Answered         time.Time // last; zero: never
	Failure          error     // of the last query; nil: it was answered, or there was none
}

// Servers returns how it goes with each server.
func (r *Resolver) Servers() []Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Server
	for _, a := range r.set.Servers {
		s := r.servers[a]
		all = append(all, Server{a, s.queries, s.answers, s.strange, s.answered, s.err})
	}
	return all
}

// Full returns the name that is asked for in place of name.
func (r *Resolver) Full(name string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fullLocked(name)
}
