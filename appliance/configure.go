package appliance

import (
	"reflect"
	"slices"
	"time"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// Configure makes r, which must have passed Validate, what the box goes by, while
// it runs: whole, or not at all and an error says why. What r says as the
// configuration before did goes on untouched: interfaces, counts, engines, the
// phone proxy with its phones. Connections that r would not let open as they are
// end.
func (a *Appliance) Configure(r *config.Running) error {
	a.configuring.Lock()
	defer a.configuring.Unlock()
	old := a.plan()

	if old == nil { // what New does is logged as r says
		a.syslog.Configure(r.LogSettings())
	}
	// All that can fail comes first, and is undone.
	links, opened, needed, err := a.linksFor(r)
	if err != nil {
		return err
	}
	pl, err := compile(r, links, old)
	if err == nil {
		err = makeKeys(a.opt.Store, r, a.opt.Now(), a.opt.Log)
	}
	if err == nil {
		err = a.phoneServiceFor(pl, old)
	}
	if err != nil {
		closeLinks(opened)
		return err
	}

	// From here on there is no way back, and none is needed.
	a.syslog.Configure(r.LogSettings())
	a.host.SetMTU(pl.hostMTU())
	a.data.install(pl, a.opt.Now)
	a.names.Set(nameSettings(pl))
	a.forward.SetRoutes(pl.routes)
	a.forward.SetInterfaces(append([]*stack.Interface{a.identity}, pl.interfaces...)...)
	for i, g := range pl.guards {
		a.forward.Fragments(i).SetLimits(g.fragments)
	}
	a.announce(pl)
	for k, l := range needed {
		if a.links[k] == nil {
			a.links[k] = l
			a.read(l, k.name, func() {})
		}
	}
	for k, l := range a.links {
		if needed[k] == nil && !k.given {
			l.Close()
			delete(a.links, k)
		}
	}
	if old != nil {
		a.retire(old, pl)
		a.table.Revise(func(c *nat.Conn) bool { return pl.keeps(c, a.identity, a.opt.Now()) })
		if old.service != nil && old.service != pl.service {
			old.service.close()
		}
	}
	if pl.service != nil {
		pl.service.listen(pl)
	}
	return nil
}

// phoneServiceFor gives pl the phone proxy at work that it applies: that of old,
// if it is the same.
func (a *Appliance) phoneServiceFor(pl, old *plan) (err error) {
	if pl.phone == nil {
		return nil
	}
	if old != nil && old.service != nil && alike(old.service.made, phoneMadeOf(pl)) {
		pl.service = old.service
		return nil
	}
	pl.service, err = a.newPhoneService(pl)
	return err
}

// same returns the interface of p that is like i in everything, or i.
func (p *plan) same(i *stack.Interface) *stack.Interface {
	if p != nil {
		for _, o := range p.interfaces {
			if *o == *i {
				return o
			}
		}
	}
	return i
}

// inherit takes over from old what goes on under p: hit counts, and the engines,
// policers and limits of classes that say the same.
func (p *plan) inherit(old *plan) {
	p.rules.Inherit(old.rules)
	for name, l := range p.lists {
		if o := old.lists[name]; o != nil {
			l.Inherit(o)
		}
	}
	for i, g := range p.guards {
		if o := old.guards[i]; o != nil {
			g.refused.Store(o.refused.Load())
		}
	}
	for _, pol := range p.policies {
		for _, c := range pol.classes {
			if o := old.classLike(pol, c); o != nil {
				c.inherit(o, p.timeouts == old.timeouts)
			}
		}
	}
}

// classLike returns the class of p that has the names of c, a class of pol.
func (p *plan) classLike(pol *policy, c *class) *class {
	for _, q := range p.policies {
		if q.name != pol.name || (q.on == nil) != (pol.on == nil) || q.on != nil && q.on.Name != pol.on.Name {
			continue
		}
		if i := slices.IndexFunc(q.classes, func(o *class) bool { return o.name == c.name }); i >= 0 {
			return q.classes[i]
		}
	}
	return nil
}

// inherit takes over what old holds. Engines have the timeouts in them.
func (c *class) inherit(old *class, sameTimeouts bool) {
	for dir, r := range c.rates {
		o := old.rates[dir]
		if r == nil || o == nil {
			continue
		}
		for i, l := range r.on {
			if was := o.on[i]; was != nil && was.Config() == l.Config() {
				r.on[i] = was
			}
		}
	}
	if c.limits != nil && old.limits != nil && c.limits.Config() == old.limits.Config() {
		c.limits = old.limits
	}
	for _, x := range c.inspects {
		for _, o := range old.inspects {
			if x.phoneProxy && o.phoneProxy && x.protocol == o.protocol {
				x.count = o.count
			}
			if sameTimeouts && o.started && x.protocol == o.protocol && x.phoneProxy == o.phoneProxy && alike(x.sip, o.sip) && alike(x.skinny, o.skinny) {
				x.takeOver(o)
			}
		}
	}
}

// takeOver makes x go on with what o works with.
func (x *inspection) takeOver(o *inspection) {
	line, name, c, pol := x.line, x.mapName, x.class, x.policy
	*x = *o
	x.line, x.mapName, x.class, x.policy = line, name, c, pol
}

// retire keeps the engines of old that pl has not, as long as they have
// conversations: their calls must end in time.
func (a *Appliance) retire(old, pl *plan) {
	for _, o := range old.inspections {
		if o.datagrams != nil && !slices.ContainsFunc(pl.inspections, func(x *inspection) bool { return x.datagrams == o.datagrams }) {
			a.retired = append(a.retired, o)
		}
	}
}

// expireRetired ends the calls of retired engines, and forgets those that have
// none.
func (a *Appliance) expireRetired(now time.Time) {
	if !a.configuring.TryLock() {
		return // next time
	}
	defer a.configuring.Unlock()
	a.retired = slices.DeleteFunc(a.retired, func(x *inspection) bool {
		x.expire(now)
		return x.datagrams.Conversations() == 0
	})
}

// keeps reports whether a connection may live on under pl: its interfaces are
// there, its addresses would become the same, and the access lists or the levels
// would let it open. What a pinhole let in was never asked about, and what the
// box itself began is its own.
func (pl *plan) keeps(c *nat.Conn, identity *stack.Interface, now time.Time) bool {
	there := func(i *stack.Interface) bool { return i == identity || slices.Contains(pl.interfaces, i) }
	if !there(c.In) || !there(c.Out) {
		return false
	}
	if c.Hole != nil || c.In == identity {
		return true
	}
	f := c.Client()
	p := stack.NewPacket(ipTCPHeader)
	if f.Proto == stack.ICMP { // lists look at the type
		p.SetLen(len(stack.AppendICMPEcho(p.Buffer()[:0], f, 0, nil)))
		p.Parse()
	}
	p.In, p.Time = c.In, now
	x := decision{in: c.In, flow: f, real: stack.Flow{Proto: f.Proto, Src: f.Src, Dst: c.Server().Dst}, out: c.Out}
	if c.Out == identity { // the box stands in for the server
		real, un, ok := pl.rules.Untranslate(c.In, f)
		if !ok && pl.isSSH(f.Dst) {
			return pl.permitsSSH(c.In, f)
		}
		if ok {
			x.real.Dst = real
			x.out = un.Other(c.In)
		}
		if x.out == nil || x.out == identity {
			x.out = pl.facing(x.real.Dst.Addr())
		}
		return x.out != nil && x.permit(pl, p) == stack.Forward
	}
	return pl.rules.Keeps(c) && x.permit(pl, p) == stack.Forward
}

// alike reports whether two values of configuration say the same: all fields
// are equal but those named Line, which tell where it is said.
func alike(a, b any) bool { return alikeValues(reflect.ValueOf(a), reflect.ValueOf(b)) }

func alikeValues(a, b reflect.Value) bool {
	if a.IsValid() != b.IsValid() || a.IsValid() && a.Type() != b.Type() {
		return false
	}
	switch a.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Interface:
		return a.IsNil() == b.IsNil() && (a.IsNil() || alikeValues(a.Elem(), b.Elem()))
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !alikeValues(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		if a.Type().PkgPath() != reflect.TypeFor[config.Running]().PkgPath() && a.Type() != reflect.TypeFor[phoneMade]() {
			return a.Comparable() && a.Equal(b) // an address, a time
		}
		for i := range a.NumField() {
			if a.Type().Field(i).Name != "Line" && !alikeValues(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return a.Comparable() && a.Equal(b)
}
