package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/config"
)

// check finds what is wrong between lines.
func (p *parser) check() {
	t := p.t
	last := pos{1, 1}
	for _, x := range []struct {
		missing bool
		what    string
	}{
		{t.Title == "", "title"}, {t.Config == "", "config"}, {t.Box == nil, "box"},
		{len(t.Managers) == 0, "manager"}, {len(t.Phones) == 0, "phone"}, {len(t.Acts) == 0, "call"},
	} {
		if x.missing {
			p.fail(last, "there is no line %q", x.what)
		}
	}
	for _, x := range []struct {
		n, limit int
		what     string
	}{
		{len(t.Nets) + len(t.Hosts) + len(t.Routers), maxHosts, "nets, hosts and routers"},
		{len(t.Phones), maxParts, "phones"}, {len(t.Managers), maxParts, "call managers"},
		{len(t.Sites), maxParts, "sites"}, {len(t.Acts), maxParts, "acts"}, {len(t.CAs), maxParts, "trustpoints"},
	} {
		if x.n > x.limit {
			p.fail(last, "%d %s: %d at most", x.n, x.what, x.limit)
			return
		}
	}
	p.checkNames()
	p.checkNets()
	p.checkParts()
	p.checkActs()
}

// checkNames: one name is one thing. Hosts and nets are devices, too, and "all" and
// "default" are in /proc/sys/net where devices are.
func (p *parser) checkNames() {
	seen := map[string]bool{BoxName: true, "lo": true, "all": true, "default": true}
	add := func(at pos, name string) {
		if seen[name] {
			p.fail(at, "the name %q is taken", name)
		}
		seen[name] = true
	}
	for _, n := range p.t.Nets {
		add(n.pos, n.Name)
	}
	for _, h := range p.t.Hosts {
		add(h.pos, h.Name)
	}
	for _, r := range p.t.Routers {
		add(r.pos, r.Name)
	}
}

// checkNets: whoever is on a net has an address of it that nobody else has.
func (p *parser) checkNets() {
	owner := make(map[netip.Addr]string)
	attach := func(name string, a Attachment) {
		n := p.t.Net(a.Net)
		if n == nil {
			p.fail(a.pos, "there is no net %q", a.Net)
			return
		}
		for _, addr := range a.Addrs {
			switch addr {
			case n.Prefix.Addr():
				p.fail(a.pos, "%v is net %s itself, no host's address", addr, n.Name)
			case broadcast(n.Prefix):
				p.fail(a.pos, "%v is everybody on net %s, no host's address", addr, n.Name)
			}
			if !n.Prefix.Contains(addr) {
				p.fail(a.pos, "%v is not on net %s, %v", addr, n.Name, n.Prefix)
			}
			if other, taken := owner[addr]; taken {
				p.fail(a.pos, "%v is %s's already", addr, other)
			}
			owner[addr] = name
		}
	}
	via := func(name string, at pos, gateway netip.Addr, nets ...Attachment) {
		if gateway.IsValid() && owner[gateway] == name {
			p.fail(at, "%v is %s itself: its gateway is another", gateway, name)
		}
		if gateway.IsValid() && !slices.ContainsFunc(nets, func(a Attachment) bool {
			n := p.t.Net(a.Net)
			return n == nil || n.Prefix.Contains(gateway)
		}) {
			p.fail(at, "the gateway %v is on no net of this host", gateway)
		}
	}
	for i, n := range p.t.Nets {
		for _, m := range p.t.Nets[:i] {
			if n.Prefix.Overlaps(m.Prefix) {
				p.fail(n.pos, "%v overlaps net %s, %v", n.Prefix, m.Name, m.Prefix)
			}
		}
	}
	for _, h := range p.t.Hosts {
		attach(h.Name, h.Attachment)
		via(h.Name, h.pos, h.Via, h.Attachment)
	}
	for _, r := range p.t.Routers {
		on := make(map[string]bool)
		for _, a := range r.Nets {
			if on[a.Net] {
				p.fail(a.pos, "router %s is on net %s twice", r.Name, a.Net)
			}
			on[a.Net] = true
			attach(r.Name, a)
		}
		via(r.Name, r.pos, r.Via, r.Nets...)
	}
	nets, names := make(map[string]bool), make(map[string]bool)
	for _, b := range p.t.Box {
		if p.t.Net(b.Net) == nil {
			p.fail(b.pos, "there is no net %q", b.Net)
		}
		if nets[b.Net] || names[b.Nameif] {
			p.fail(b.pos, "an interface and a net go together once")
		}
		nets[b.Net], names[b.Nameif] = true, true
	}
}

// broadcast is the last address of a prefix.
func broadcast(n netip.Prefix) netip.Addr {
	a := n.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|^uint32(0)>>n.Bits())
	return netip.AddrFrom4(a)
}

// checkParts: peers are on hosts, and no two of a kind at one address.
func (p *parser) checkParts() {
	on := func(at pos, what string, addr netip.Addr) {
		if p.t.HostOf(addr) == "" {
			p.fail(at, "no host has the address %v of %s", addr, what)
		}
	}
	managers, lines, phones := make(map[string]bool), make(map[string]bool), make(map[netip.Addr]bool)
	tftp := make(map[netip.Addr]string)
	for _, m := range p.t.Managers {
		if managers[m.Name] {
			p.fail(m.pos, "a second call manager %q", m.Name)
		}
		managers[m.Name] = true
		for _, a := range append([]netip.Addr{m.Addr}, m.TFTP...) {
			on(m.pos, "call manager "+m.Name, a)
			if other, taken := tftp[a]; taken && (other != m.Name || a != m.Addr) {
				p.fail(m.pos, "%v serves files of %s already", a, other)
			}
			tftp[a] = m.Name
		}
	}
	for _, m := range p.t.Managers {
		if m.Backup != "" && (!managers[m.Backup] || m.Backup == m.Name) {
			p.fail(m.pos, "there is no other call manager %q", m.Backup)
		}
	}
	for _, f := range p.t.Phones {
		if lines[f.Line] {
			p.fail(f.pos, "a second phone %s", f.Line)
		}
		if phones[f.Addr] {
			p.fail(f.pos, "a second phone at %v", f.Addr)
		}
		lines[f.Line], phones[f.Addr] = true, true
		on(f.pos, "phone "+f.Line, f.Addr)
	}
	sites := make(map[netip.AddrPort]bool)
	for _, s := range p.t.Sites {
		on(s.pos, "a site", s.Addr)
		at := netip.AddrPortFrom(s.Addr, s.Port)
		if sites[at] {
			p.fail(s.pos, "a second site at %v", at)
		}
		sites[at] = true
	}
}

// checkActs: who acts is there.
func (p *parser) checkActs() {
	for _, a := range p.t.Acts {
		if a.Verb == "stop" {
			if !slices.ContainsFunc(p.t.Managers, func(m Manager) bool { return m.Name == a.Args[0] }) {
				p.fail(a.pos, "there is no call manager %q", a.Args[0])
			}
			continue
		}
		if a.Verb == "call" {
			if err := p.t.CanCall(a.Args[0], a.Args[1]); err != nil {
				p.fail(a.pos, "%v", err)
			}
			continue
		}
		for _, line := range a.Args {
			if p.t.phone(line) == nil {
				p.fail(a.pos, "there is no phone %s", line)
			}
		}
	}
}

// CanCall says why the phone of one line cannot call that of another, nil if it can.
func (t *Topology) CanCall(from, to string) error {
	f, o := t.phone(from), t.phone(to)
	switch {
	case f == nil:
		return fmt.Errorf("there is no phone %s", from)
	case o == nil:
		return fmt.Errorf("there is no phone %s", to)
	case f == o:
		return fmt.Errorf("%s cannot call itself", from)
	case f.Protocol != o.Protocol:
		return fmt.Errorf("%s is %s and %s is %s: the lab's call manager joins phones of one protocol", from, f.Protocol, to, o.Protocol)
	}
	return nil
}

// Match complains of what the topology and the appliance's configuration do not have
// in common: interfaces, their addresses, and trustpoints. The error is as Parse's.
func (t *Topology) Match(running *config.Running) error {
	p := &parser{file: t.Name + Ending, t: t}
	var names []string
	for _, i := range running.Interfaces {
		if i.Name != "" {
			names = append(names, i.Name)
		}
	}
	for _, b := range t.Box {
		i, n := running.Interface(b.Nameif), t.Net(b.Net)
		switch {
		case i == nil:
			p.fail(b.pos, "%s has no interface %q; it has %s", t.Config, b.Nameif, strings.Join(names, ", "))
		case !i.Addr.IsValid(): // it has none
		case i.Addr.Masked() != n.Prefix:
			p.fail(b.pos, "%s has %v in %s, and net %s is %v", b.Nameif, i.Addr, t.Config, n.Name, n.Prefix)
		default:
			if owner := t.ownerOf(i.Addr.Addr()); owner != "" {
				p.fail(b.pos, "%s has %v in %s, which is %s's", b.Nameif, i.Addr.Addr(), t.Config, owner)
			}
		}
	}
	names = nil
	for _, tp := range running.Trustpoints {
		names = append(names, tp.Name)
	}
	for i, ca := range t.CAs {
		if running.Trustpoint(ca) == nil {
			p.fail(t.cas[i], "%s has no trustpoint %q; it has %s", t.Config, ca, strings.Join(names, ", "))
		}
	}
	return p.mistakes()
}

// ownerOf is the host or router that has an address, "" if there is none.
func (t *Topology) ownerOf(addr netip.Addr) string {
	for _, r := range t.Routers {
		for _, a := range r.Nets {
			if slices.Contains(a.Addrs, addr) {
				return r.Name
			}
		}
	}
	return t.HostOf(addr)
}

func (t *Topology) phone(line string) *Phone {
	for i := range t.Phones {
		if t.Phones[i].Line == line {
			return &t.Phones[i]
		}
	}
	return nil
}
