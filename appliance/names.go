package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"patchbay/appliance/dns"
)

// fileLookupWait is how long a phone that asks for its configuration waits for
// names in it. It asks for the file again after a few seconds.
const fileLookupWait = 3 * time.Second

// newNames returns the resolver of the box. It asks by interfaces with "dns
// domain-lookup" only, and a server for which one is named by that one.
func (a *Appliance) newNames() *dns.Resolver {
	return dns.New(dns.Config{
		Network: a.host, Rand: a.opt.Rand, Now: a.opt.Now, Log: a.opt.Log,
		From: func(server netip.Addr) (netip.Addr, bool) {
			pl := a.plan()
			i := pl.facing(server)
			via := pl.running.DNS.Via[server]
			if i == nil || via != "" && via != i.Name || !slices.Contains(pl.running.DNS.Lookup, i.Name) {
				return netip.Addr{}, false
			}
			return i.Addr.Addr(), true
		},
	})
}

// nameSettings returns what pl says of looking up names. Those that it has itself
// are always known, so that no phone waits for one.
func nameSettings(pl *plan) dns.Settings {
	r := pl.running
	s := dns.Settings{Servers: r.DNS.Servers, Domain: r.DNS.Domain, Timeout: r.DNS.Timeout, Retries: r.DNS.Retries}
	if s.Domain == "" {
		s.Domain = r.Domain
	}
	if len(r.DNS.Lookup) == 0 {
		s.Servers = nil
	}
	if ph := pl.phone; ph != nil {
		for _, rec := range ph.ctl.Records {
			if rec.FQDN != "" {
				s.Keep = append(s.Keep, rec.FQDN)
			}
		}
		if p := ph.config.ProxyServer; p != nil && p.Host != "" {
			s.Keep = append(s.Keep, p.Host)
		}
	}
	return s
}

// refreshNames renews what is about to run out, if the box runs.
func (a *Appliance) refreshNames() {
	a.mu.Lock()
	runs := a.life != nil
	a.mu.Unlock()
	if runs {
		a.names.Refresh()
	}
}

// lookup returns the addresses of a name, of which there is one at least: that of a
// "name" line, or else those from the DNS.
func (a *Appliance) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if addr, ok := a.plan().running.Names[name]; ok {
		return []netip.Addr{addr}, nil
	}
	answer, err := a.names.Lookup(ctx, name)
	return answer.Addrs, err
}

// finder returns what finds the address of a host in the file of a phone, each
// once. That the DNS fails is logged in the ASA's words.
// (reference/asa-rules.md, section 6.4.)
func (a *Appliance) finder(device string) func(host string) (netip.Addr, bool) {
	end := time.Now().Add(fileLookupWait)
	found := make(map[string]netip.Addr)
	return func(host string) (netip.Addr, bool) {
		if addr, err := netip.ParseAddr(host); err == nil {
			return addr, true
		}
		if addr, ok := found[host]; ok {
			return addr, addr.IsValid()
		}
		ctx, cancel := context.WithDeadline(context.Background(), end)
		defer cancel()
		addrs, err := a.lookup(ctx, host)
		if err != nil {
			a.unresolved(device, host, err)
			found[host] = netip.Addr{}
			return netip.Addr{}, false
		}
		found[host] = addrs[0]
		return addrs[0], true
	}
}

// unresolved logs that a host in a phone's file has no address.
func (a *Appliance) unresolved(device, host string, err error) {
	var e *dns.Error
	switch {
	case !errors.As(err, &e) || errors.Is(err, dns.ErrName) || errors.Is(err, dns.ErrDisabled) && e.ID == 0:
		// Nobody was asked: the name is the phone's to resolve.
		a.opt.Log.Debug("PP: name in a phone's file is left as it is", "phone", device, "name", host, "reason", err)
	default:
		a.opt.Log.Warn(fmt.Sprintf("PP: Unable to get dns response for id %d", e.ID), "phone", device, "name", host, "reason", e.Err)
	}
}
