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
	Dynamic              // many behind few, by ports (PAT); real side opens only
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
	// turns to the interface when the ports of MappedSource are used up.
	// Identity rules leave MappedSource zero.
	Source, MappedSource Object
	MappedInterface      bool

	// Dest narrows a manual rule to one peer. The world has it at Dest, the
	// real side knows it by MappedDest; both any: every peer.
	Dest, MappedDest Object

	// Service narrows a static rule to one port of Source (static PAT), and
	// gives it another there. 0: all protocols and ports.
	Service              stack.Proto
	RealPort, MappedPort uint16

	NoProxyARP     bool
	Unidirectional bool // static, but the mapped side does not open

	hits *ruleHits
}

type ruleHits struct{ translate, untranslate atomic.Uint64 }

// Hits returns how many connections opened with their source translated by r,
// and with their destination un-NATed by it.
func (r *Rule) Hits() (translate, untranslate uint64) {
	return r.hits.translate.Load(), r.hits.untranslate.Load()
}

// Other returns the interface of r across from i, where a packet that r
// un-NATed has to go; nil if r does not say.
func (r *Rule) Other(i *stack.Interface) *stack.Interface {
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

// valid refuses what cannot be honoured.
func (r *Rule) valid() error {
	for _, o := range []Object{r.Source, r.MappedSource, r.Dest, r.MappedDest} {
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
	if r.Dest.Size() != r.MappedDest.Size() {
		return fmt.Errorf("destination %v of %d addresses for %v of %d",
			r.MappedDest, r.MappedDest.Size(), r.Dest, r.Dest.Size())
	}
	if r.Kind == Dynamic {
		if r.Service != 0 {
			return fmt.Errorf("service %v in a dynamic rule", r.Service)
		}
		if r.mapped().IsAny() {
			return fmt.Errorf("dynamic to no address")
		}
		return nil
	}
	if r.Kind == Static && !r.MappedInterface && r.MappedSource.IsAny() && !r.Source.IsAny() {
		return fmt.Errorf("static to no address")
	}
	if m := r.mapped(); r.Source.Size() != m.Size() {
		return fmt.Errorf("static of %v of %d addresses to %v of %d",
			r.Source, r.Source.Size(), m, m.Size())
	}
	switch r.Service {
	case 0:
		if r.RealPort != 0 || r.MappedPort != 0 {
			return fmt.Errorf("port %d without a protocol", max(r.RealPort, r.MappedPort))
		}
	case stack.TCP, stack.UDP:
		if r.RealPort == 0 || r.MappedPort == 0 {
			return fmt.Errorf("service %v from port %d to %d", r.Service, r.RealPort, r.MappedPort)
		}
	default:
		return fmt.Errorf("service %v has no ports", r.Service)
	}
	return nil
}

// Rules is a rule table. It does not change, but for hit counts, and any
// number of goroutines may ask it. The zero Rules translates nothing.
type Rules struct {
	rules []*Rule // in order of search
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
		if err := r.valid(); err != nil {
			return nil, fmt.Errorf("nat: rule %q: %w", r.Name, err)
		}
		r.hits = new(ruleHits)
		rs.rules = append(rs.rules, &r)
	}
	slices.SortStableFunc(rs.rules, order)
	for i, r := range rs.rules {
		for _, q := range rs.rules[:i] {
			if clash(q, r) {
				return nil, fmt.Errorf("nat: rule %q: %v port %d of %v is taken by rule %q",
					r.Name, r.Service, r.MappedPort, r.mapped(), q.Name)
			}
		}
	}
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
	return a.Service != 0 && a.Service == b.Service && a.MappedPort == b.MappedPort &&
		(a.Mapped == b.Mapped || a.Mapped == nil || b.Mapped == nil) &&
		a.mapped().Overlaps(b.mapped()) && a.Dest.Overlaps(b.Dest)
}

// All returns the rules in order of search. The slice must not be changed.
func (rs *Rules) All() []*Rule { return rs.rules }

// Inherit takes over the hit counts of the rules that old has as well. It must
// be called before rs is in use.
func (rs *Rules) Inherit(old *Rules) {
	for _, r := range rs.rules {
		for _, q := range old.rules {
			a, b := *r, *q
			a.hits, b.hits = nil, nil
			if a == b {
				r.hits = q.hits
				break
			}
		}
	}
}

// Owns reports whether the box answers ARP requests for a on i: a is a mapped
// address of a static rule there. The interface's own address is the link's
// business, and so are addresses of a rule with NoProxyARP or for any source.
// A rule for any mapped interface owns only what is in the subnet of i.
func (rs *Rules) Owns(i *stack.Interface, a netip.Addr) bool {
	if a == i.Addr.Addr() {
		return false
	}
	for _, r := range rs.rules {
		if o, ok := r.answers(i); ok && o.Contains(a) && (r.Mapped != nil || i.Addr.Contains(a)) {
			return true
		}
	}
	return false
}

// MappedAddrs returns the mapped addresses of the static rules on i that Owns
// is about, in order of search.
func (rs *Rules) MappedAddrs(i *stack.Interface) []Object {
	var all []Object
	for _, r := range rs.rules {
		o, ok := r.answers(i)
		if !ok || o == Host(i.Addr.Addr()) || slices.Contains(all, o) {
			continue
		}
		if r.Mapped != nil || i.Addr.Contains(o.From) && i.Addr.Contains(o.To) {
			all = append(all, o)
		}
	}
	return all
}

// answers returns the mapped addresses of r that may need proxy ARP on i.
func (r *Rule) answers(i *stack.Interface) (Object, bool) {
	o := r.mapped()
	o.Name = ""
	ok := r.Kind != Dynamic && !r.NoProxyARP && !o.IsAny() &&
		(r.Mapped == i || r.Mapped == nil && r.Real != i)
	return o, ok
}
