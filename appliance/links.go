package appliance

import (
	"fmt"

	"patchbay/appliance/config"
	"patchbay/stack"
	"patchbay/stack/link"
)

// A linkKey is what a link was opened for. An interface that becomes another
// needs another link.
type linkKey struct {
	name      string // nameif of one of Options.Links, else the hardware's
	given     bool   // it is of Options.Links
	mtu, vlan int
}

// linksFor returns the link of each interface of r that carries traffic, by
// nameif, those that had to be opened for it, and all that r needs.
func (a *Appliance) linksFor(r *config.Running) (byName map[string]stack.Link, opened, needed map[linkKey]stack.Link, err error) {
	byName = make(map[string]stack.Link)
	opened, needed = make(map[linkKey]stack.Link), make(map[linkKey]stack.Link)
	for i := range r.Interfaces {
		c := &r.Interfaces[i]
		if c.Name == "" || c.Down || !c.Addr.IsValid() {
			continue
		}
		k := linkKey{name: c.Hardware, mtu: c.MTU, vlan: c.VLAN}
		l, given := a.opt.Links[c.Name]
		if given {
			k = linkKey{name: c.Name, given: true}
		} else {
			l = a.links[k]
		}
		if l == nil && a.opt.Open != nil {
			if l, err = a.opt.Open(c); err != nil {
				closeLinks(opened)
				return nil, nil, nil, fmt.Errorf("appliance: interface %s (%s:%d): %w", c.Hardware, r.File, c.Line, err)
			}
			opened[k] = l
			if e, ok := l.(*link.Ethernet); ok && e.Note() != nil {
				a.opt.Log.Warn("the link is not as it might be", "interface", c.Hardware, "driver", e.Driver(), "mode", e.Mode(), "reason", e.Note())
			}
		}
		if l != nil { // compile says which is missing
			byName[c.Name], needed[k] = l, l
		}
	}
	return byName, opened, needed, nil
}

func closeLinks(links map[linkKey]stack.Link) {
	for _, l := range links {
		l.Close()
	}
}

// unused refuses links for which r has no interface: of a name that is written
// wrong, most likely.
func unused(r *config.Running, links map[string]stack.Link) error {
	for name := range links {
		i := r.Interface(name)
		if i == nil || i.Down || !i.Addr.IsValid() {
			return fmt.Errorf("appliance: link for %q: the configuration has no interface of that nameif that is up and has an address", name)
		}
	}
	return nil
}
