package nat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"patchbay/stack"
)

// Kind is what a Rule does to the source of its real side.
type Kind uint8

const (
	Static   Kind = iota // each real address has a mapped one, both ways
	Identity             // static to itself: kept from being translated
	Dynamic              // many behind few; the real side opens only
)

// PoolUse is how a dynamic rule uses the addresses of MappedSource.
type PoolUse uint8

const (
	// PATInOrder gives out ports, all of one address before the next
	// ("dynamic A", "pat-pool OBJ").
	PATInOrder PoolUse = iota
	// PATRoundRobin gives out ports, of one address after the other
	// ("pat-pool OBJ round-robin").
	PATRoundRobin
	// OneToOne gives each real address a mapped one of its own, with all
	// protocols and ports ("dynamic OBJ" with a range or subnet), and when
	// there is none left ports of Overload.
	OneToOne
)

// String returns the word in the nat command.
func (k Kind) String() string {
	if k == Dynamic {
		return "dynamic"
	}
	return "static"
}

// The sections of the rule table, searched in order. (reference/asa-cli.md,
// section 5.2.)
const (
	ManualSection    = 1 // twice NAT
	AutoSection      = 2 // object NAT
	AfterAutoSection = 3 // twice NAT, after-auto
)

// A Rule is one nat command. All but its hit counts is set before NewRules and
// never changes. Addresses are seen from inside: Real and Source are where the
// translated host is, Mapped and MappedSource what the world sees of it.
type Rule struct {
	Section int    // ManualSection, AutoSection or AfterAutoSection; 0 is AutoSection
	Name    string // for show and the trace: "object network cucm-a"

	Real, Mapped *stack.Interface // nil: any
	Kind         Kind

	// Source is translated to MappedSource, of the same size if the rule is
	// static: the first address to the first, and so on. With
	// MappedInterface it is the address of Mapped. A dynamic rule with both
	// turns to the interface, with PAT, when MappedSource is used up.
	// Identity rules leave MappedSource zero.
	Source, MappedSource Object
	MappedInterface      bool

	// Of a dynamic rule. More are the ranges after MappedSource, in their
	// order, and Overload, of a OneToOne rule, the single addresses whose
	// ports are given out when the ranges are used up. The rest are options
	// of PAT to MappedSource and More, as the ASA words them.
	Pool           PoolUse
	More, Overload []Object
	Extended       bool // "extended": a port is taken for one peer only
	Flat           bool // "flat": a port that is not kept is one of 1024 to 65535
	IncludeReserve bool // with Flat: of 1 to 65535

	// Refuse says that a dynamic rule has no addresses, and what it matches is
	// dropped: a nat line of before 8.3 for whose number Mapped has no global
	// line.
	Refuse bool

	// Dest narrows a manual rule to one peer. The world has it at Dest, the
	// real side knows it by MappedDest; both any: every peer.
	Dest, MappedDest Object

	// Policy says that Dest and DestPorts only tell which packets the rule is
	// for, and the peer keeps its own. MappedDest and MappedDestPorts are the
	// same then. (Policy NAT of before 8.3; twice NAT un-NATs the peer as well,
	// if only to itself.)
	Policy bool

	// Service narrows a rule to one protocol, and to some of its ports: a
	// static one to the ports RealPorts of Source, which the world sees as
	// MappedPorts (static PAT), a manual one also to the ports DestPorts of
	// the peer, which the real side knows as MappedDestPorts. Zero ranges are
	// all ports; a range and what it becomes have the same size. RealPort and
	// MappedPort are short for ranges of one port. 0: all protocols and
	// ports.
	Service                    stack.Proto
	RealPort, MappedPort       uint16
	RealPorts, MappedPorts     PortRange
	DestPorts, MappedDestPorts PortRange

	NoProxyARP     bool
	Unidirectional bool // static, but the mapped side does not open

	// OneWay is of an identity rule for whose addresses only the real side
	// opens, as if it were dynamic: what the mapped side sends there is dropped
	// ("nat 0" of before 8.3).
	OneWay bool

	RouteLookup bool // "route-lookup": Other does not say where to
	NetToNet    bool // "net-to-net", for show: addresses always keep their place

	Limits *HostLimits // of connections; nil: none

	// Ref is the caller's own, to find again what the rule was made of. Rules
	// that differ in it only are the same to Inherit.
	Ref int

	hits           *ruleHits
	place          int     // in Rules.rules
	pool, overload *ranges // of a dynamic rule: MappedSource or the interface, and More; Overload
}

type ruleHits struct{ translate, untranslate atomic.Uint64 }

// Hits returns how many connections opened with their source translated by r,
// and with their destination un-NATed by it.
func (r *Rule) Hits() (translate, untranslate uint64) {
	return r.hits.translate.Load(), r.hits.untranslate.Load()
}

// ClearHits sets both counts of Hits to 0.
func (r *Rule) ClearHits() {
	r.hits.translate.Store(0)
	r.hits.untranslate.Store(0)
}

// Other returns the interface of r across from i, where a packet that r
// un-NATed has to go; nil if r does not say, and the route does.
func (r *Rule) Other(i *stack.Interface) *stack.Interface {
	if r.RouteLookup {
		return nil
	}
	if r.Real == i && i != nil {
		return r.Mapped
	}
	return r.Real
}

// mapped returns the addresses that the world sees.
func (r *Rule) mapped() Object {
	switch {
	case r.Kind == Identity:
		return r.Source
	case r.MappedInterface && r.Mapped != nil && (r.Kind == Static || r.MappedSource.IsAny()):
		return Host(r.Mapped.Addr.Addr())
	}
	return r.MappedSource
}

// shown returns all objects that the world may see of r.
func (r *Rule) shown() []Object {
	list := []Object{r.mapped()}
	if r.Kind == Dynamic {
		list = slices.Concat(list, r.More, r.Overload)
		if r.MappedInterface {
			list = append(list, Host(r.Mapped.Addr.Addr()))
		}
	}
	return list
}

// answersBack reports whether the mapped side may open connections to the real
// one: the rule is static, and not for one way only.
func (r *Rule) answersBack() bool { return r.Kind != Dynamic && !r.Unidirectional && !r.OneWay }

// valid refuses what cannot be honoured.
func (r *Rule) valid() error {
	for _, o := range slices.Concat([]Object{r.Source, r.MappedSource, r.Dest, r.MappedDest}, r.More, r.Overload) {
		if err := o.valid(); err != nil {
			return err
		}
	}
	if r.Section < 0 || r.Section > AfterAutoSection {
		return fmt.Errorf("section %d", r.Section)
	}
	if r.MappedInterface && (r.Mapped == nil || !r.Mapped.Addr.Addr().Is4()) {
		return fmt.Errorf("mapped to the address of interface %v, which has none", r.Mapped)
	}
	if r.Section == AutoSection && (!r.Dest.IsAny() || !r.MappedDest.IsAny()) {
		return fmt.Errorf("destination %v in an object's rule", r.Dest)
	}
	if r.Policy && (r.Dest != r.MappedDest || r.DestPorts != r.MappedDestPorts) {
		return fmt.Errorf("policy that translates destination %v", r.Dest)
	}
	if r.Dest.Size() != r.MappedDest.Size() {
		return fmt.Errorf("destination %v of %d addresses for %v of %d",
			r.MappedDest, r.MappedDest.Size(), r.Dest, r.Dest.Size())
	}
	if err := r.validPorts(); err != nil {
		return err
	}
	if r.Kind == Dynamic {
		return r.validPool()
	}
	if r.Pool != PATInOrder || len(r.More)+len(r.Overload) > 0 || r.Extended || r.Flat || r.IncludeReserve || r.Refuse {
		return fmt.Errorf("pool in a static rule")
	}
	if r.OneWay && r.Kind != Identity {
		return fmt.Errorf("one way, and not identity")
	}
	if r.Kind == Static && !r.MappedInterface && r.MappedSource.IsAny() && !r.Source.IsAny() {
		return fmt.Errorf("static to no address")
	}
	if m := r.mapped(); r.Source.Size() != m.Size() {
		return fmt.Errorf("static of %v of %d addresses to %v of %d",
			r.Source, r.Source.Size(), m, m.Size())
	}
	return nil
}

// validPool is valid for what a dynamic rule gives away.
func (r *Rule) validPool() error {
	options := r.Extended || r.Flat || r.IncludeReserve
	switch {
	case r.OneWay:
		return fmt.Errorf("one way, and not identity")
	case r.Refuse:
		if r.MappedInterface || !r.MappedSource.IsAny() || len(r.More)+len(r.Overload) > 0 || options {
			return fmt.Errorf("refused, and has addresses")
		}
		return nil
	case r.mapped().IsAny():
		return fmt.Errorf("dynamic to no address")
	case r.Pool == OneToOne && r.MappedSource.IsAny():
		return fmt.Errorf("dynamic one to one without addresses")
	case r.Pool == OneToOne && options:
		return fmt.Errorf("dynamic one to one with an option of PAT")
	case r.Pool != OneToOne && len(r.Overload) > 0:
		return fmt.Errorf("overload of what is not one to one")
	case r.MappedSource.IsAny() && len(r.More) > 0 || slices.ContainsFunc(slices.Concat(r.More, r.Overload), Object.IsAny):
		return fmt.Errorf("dynamic to any address")
	case r.IncludeReserve && !r.Flat:
		return fmt.Errorf("include-reserve without flat")
	}
	return nil
}

// validPorts is valid for what Service narrows.
func (r *Rule) validPorts() error {
	none := PortRange{}
	sources := r.RealPorts != none || r.MappedPorts != none
	dests := r.DestPorts != none || r.MappedDestPorts != none
	switch r.Service {
	case 0:
		if sources || dests {
			return fmt.Errorf("port %d without a protocol",
				max(r.RealPorts.To, r.MappedPorts.To, r.DestPorts.To, r.MappedDestPorts.To))
		}
		return nil
	case stack.TCP, stack.UDP:
	default:
		return fmt.Errorf("service %v has no ports", r.Service)
	}
	if sources && r.Kind == Dynamic {
		return fmt.Errorf("service %v from port %d in a dynamic rule", r.Service, r.RealPorts.From)
	}
	if dests && r.Section == AutoSection {
		return fmt.Errorf("destination port %d in an object's rule", r.DestPorts.From)
	}
	if !sources && !dests {
		return fmt.Errorf("service %v from port 0 to 0", r.Service)
	}
	for _, pair := range [...][2]PortRange{{r.RealPorts, r.MappedPorts}, {r.DestPorts, r.MappedDestPorts}} {
		from, to := pair[0], pair[1]
		switch {
		case (from == none) != (to == none) || from.To < from.From || from.To-from.From != to.To-to.From,
			from != none && (from.From == 0 || to.From == 0):
			return fmt.Errorf("service %v from port %d-%d to %d-%d", r.Service, from.From, from.To, to.From, to.To)
		}
	}
	if r.Kind == Identity && r.RealPorts != r.MappedPorts {
		return fmt.Errorf("identity of port %d to %d", r.RealPorts.From, r.MappedPorts.From)
	}
	return nil
}

// normal makes ranges of single ports, and the other way round.
func (r *Rule) normal() {
	for _, x := range [...]struct {
		port *uint16
		all  *PortRange
	}{{&r.RealPort, &r.RealPorts}, {&r.MappedPort, &r.MappedPorts}} {
		if *x.all == (PortRange{}) {
			*x.all = PortRange{*x.port, *x.port}
		} else {
			*x.port = x.all.From
		}
	}
}

// Rules is a rule table. It does not change, but for hit counts, and any
// number of goroutines may ask it. The zero Rules translates nothing.
type Rules struct {
	rules []*Rule // in order of search

	// Of more than a few rules, those that an address may concern.
	un     dimension // its packets' destination, by mapped addresses: for Untranslate
	source dimension // its packets' source: for source
	real   dimension // as translated host
	shown  dimension // as mapped address

	static map[staticPort][]*Rule // static PAT of one address
	wide   []*Rule                // static PAT of more

	control *natControl // nil: off
}

// A staticPort is a mapped port that a static rule has.
type staticPort struct {
	proto stack.Proto
	addr  netip.Addr
	port  uint16
}

// NewRules makes the table of the given rules: by section, sections 1 and 3 as
// given, section 2 static before dynamic, then fewer real addresses first, then
// the lowest address, then the name. (reference/asa-cli.md, section 5.2.) It
// refuses a rule that contradicts itself, and two static PAT rules that claim
// the same mapped address, protocol and port. (reference/asa-rules.md, V64.)
func NewRules(rules []Rule) (*Rules, error) {
	rs := new(Rules)
	for _, r := range rules {
		if r.Section == 0 {
			r.Section = AutoSection
		}
		r.normal()
		if err := r.valid(); err != nil {
			return nil, fmt.Errorf("nat: rule %q: %w", r.Name, err)
		}
		r.hits = new(ruleHits)
		if r.Limits != nil && r.Limits.counts == nil {
			r.Limits.counts = new(limitCounts)
		}
		if r.Kind == Dynamic {
			r.pool, r.overload = newRanges(slices.Concat([]Object{r.mapped()}, r.More)), newRanges(r.Overload)
		}
		rs.rules = append(rs.rules, &r)
	}
	slices.SortStableFunc(rs.rules, order)
	var services []*Rule
	for _, r := range rs.rules {
		if r.Service == 0 {
			continue
		}
		for _, q := range services {
			if clash(q, r) {
				return nil, fmt.Errorf("nat: rule %q: %v port %d of %v is taken by rule %q",
					r.Name, r.Service, r.MappedPort, r.mapped(), q.Name)
			}
		}
		services = append(services, r)
	}
	rs.compile()
	return rs, nil
}

// order compares two rules by their place in the table.
func order(a, b *Rule) int {
	if c := cmp.Compare(a.Section, b.Section); c != 0 || a.Section != AutoSection {
		return c
	}
	rank := func(r *Rule) int {
		if r.Kind == Dynamic {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(a.Source.Size(), b.Source.Size()),
		a.Source.From.Compare(b.Source.From),
		cmp.Compare(a.Name, b.Name),
	)
}

// clash reports whether two static PAT rules claim the same mapped port.
func clash(a, b *Rule) bool {
	return a.Service == b.Service && a.MappedPort != 0 && b.MappedPort != 0 &&
		a.MappedPorts.From <= b.MappedPorts.To && b.MappedPorts.From <= a.MappedPorts.To &&
		(a.DestPorts == PortRange{} || b.DestPorts == PortRange{} ||
			a.DestPorts.From <= b.DestPorts.To && b.DestPorts.From <= a.DestPorts.To) &&
		(a.Mapped == b.Mapped || a.Mapped == nil || b.Mapped == nil) &&
		a.mapped().Overlaps(b.mapped()) && a.Dest.Overlaps(b.Dest)
}

// All returns the rules in order of search. The slice must not be changed.
func (rs *Rules) All() []*Rule { return rs.rules }

// Inherit takes over the hit counts of the rules that old has as well, and the
// connections that count for their limits. It must be called before rs is in
// use.
func (rs *Rules) Inherit(old *Rules) {
	known := make(map[string]*Rule, len(old.rules))
	for _, q := range slices.Backward(old.rules) { // of twins the first
		known[q.key()] = q
	}
	for _, r := range rs.rules {
		q := known[r.key()]
		if q == nil {
			continue
		}
		r.hits = q.hits
		if r.Limits != nil && q.Limits != nil {
			r.Limits.counts = q.Limits.counts
		}
	}
}

// key is the same for the same commands.
func (r *Rule) key() string {
	k := *r
	k.hits, k.place, k.pool, k.overload, k.Limits, k.Ref = nil, 0, nil, nil, nil, 0
	return fmt.Sprintf("%#v", k) // addresses and interfaces by identity
}

// Owns reports whether the box answers ARP requests for a on i: a is a mapped
// address of a rule there, of a static one or of a pool. The interface's own
// address is the link's business, and so are addresses of a rule with
// NoProxyARP or for any source. A rule for any mapped interface owns only what
// is in the subnet of i.
func (rs *Rules) Owns(i *stack.Interface, a netip.Addr) bool {
	if a == i.Addr.Addr() {
		return false
	}
	for w := rs.about(&rs.shown, a); w.next(); {
		r := w.rule
		if !r.answers(i) || r.Mapped == nil && !i.Addr.Contains(a) {
			continue
		}
		if slices.ContainsFunc(r.shown(), func(o Object) bool { return !o.IsAny() && o.Contains(a) }) {
			return true
		}
	}
	return false
}

// MappedAddrs returns the mapped addresses of the rules on i that Owns is
// about, in order of search.
func (rs *Rules) MappedAddrs(i *stack.Interface) []Object {
	var all []Object
	for _, r := range rs.rules {
		if !r.answers(i) {
			continue
		}
		for _, o := range r.shown() {
			o.Name = ""
			if o.IsAny() || o == Host(i.Addr.Addr()) || slices.Contains(all, o) {
				continue
			}
			if r.Mapped != nil || i.Addr.Contains(o.From) && i.Addr.Contains(o.To) {
				all = append(all, o)
			}
		}
	}
	return all
}

// answers reports whether the mapped addresses of r may need proxy ARP on i.
func (r *Rule) answers(i *stack.Interface) bool {
	return !r.NoProxyARP && (r.Mapped == i || r.Mapped == nil && r.Real != i)
}
