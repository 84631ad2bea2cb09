package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// An Object is a host, a range or a subnet: the IPv4 addresses From to To,
// both included. The zero Object is any address. Name is what the
// configuration calls it, "" for one written in place.
type Object struct {
	Name     string
	From, To netip.Addr
}

// Host returns the Object that is one address.
func Host(a netip.Addr) Object { return Object{From: a, To: a} }

// Range returns the Object of the addresses from to to, both included.
func Range(from, to netip.Addr) Object { return Object{From: from, To: to} }

// Subnet returns the Object of all addresses of p, network and broadcast
// address included, as the ASA counts them. 0.0.0.0/0 is any.
func Subnet(p netip.Prefix) Object {
	if p.Bits() == 0 || !p.Addr().Is4() {
		return Object{}
	}
	first := number(p.Masked().Addr())
	return Object{From: p.Masked().Addr(), To: address(first | (1<<(32-p.Bits()) - 1))}
}

// IsAny reports whether o holds every address.
func (o Object) IsAny() bool { return !o.From.IsValid() && !o.To.IsValid() }

// Contains reports whether a is in o.
func (o Object) Contains(a netip.Addr) bool {
	if o.IsAny() {
		return true
	}
	return o.From.Compare(a) <= 0 && a.Compare(o.To) <= 0
}

// Size returns the number of addresses in o: 1 for a host, 1<<32 for any.
func (o Object) Size() uint64 {
	if o.IsAny() {
		return 1 << 32
	}
	return uint64(number(o.To)) - uint64(number(o.From)) + 1
}

// Overlaps reports whether o and q have an address in common.
func (o Object) Overlaps(q Object) bool {
	if o.IsAny() || q.IsAny() {
		return true
	}
	return o.From.Compare(q.To) <= 0 && q.From.Compare(o.To) <= 0
}

// String returns the name, or "any", "10.20.0.11", "10.20.0.0/24" or
// "10.20.0.5-10.20.0.9".
func (o Object) String() string {
	switch {
	case o.Name != "":
		return o.Name
	case o.IsAny():
		return "any"
	case o.From == o.To:
		return o.From.String()
	}
	if p, ok := o.Prefix(); ok {
		return p.String()
	}
	return o.From.String() + "-" + o.To.String()
}

// Prefix returns the subnet whose addresses are those of o, if there is one; any
// has none.
func (o Object) Prefix() (netip.Prefix, bool) {
	for bits := 32; bits > 0 && o.From.Is4() && o.To.Is4(); bits-- {
		p := netip.PrefixFrom(o.From, bits)
		if s := Subnet(p); s.From == o.From && s.To == o.To {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// valid refuses what is neither any nor an ordered range of IPv4 addresses.
func (o Object) valid() error {
	if o.IsAny() {
		return nil
	}
	if !o.From.Is4() || !o.To.Is4() {
		return fmt.Errorf("%v-%v: not IPv4 addresses", o.From, o.To)
	}
	if o.To.Less(o.From) {
		return fmt.Errorf("range %v-%v runs backwards", o.From, o.To)
	}
	return nil
}

// shift returns the address that has the place in to that a has in o. Both
// have the same size, and a is in o.
func (o Object) shift(a netip.Addr, to Object) netip.Addr {
	if o.IsAny() || to.IsAny() {
		return a
	}
	return address(number(a) - number(o.From) + number(to.From))
}

// span returns the IPv4 addresses of o, which is not any, as Contains has them;
// ok is false if there are none.
func (o Object) span() (s span, ok bool) {
	switch {
	case o.From.Is4():
		s.from = number(o.From)
	case o.From.IsValid(): // beyond all of IPv4
		return s, false
	}
	switch {
	case o.To.Is4():
		s.to = number(o.To)
	case !o.To.IsValid(): // before all of IPv4
		return s, false
	default:
		s.to = ^uint32(0)
	}
	return s, s.from <= s.to
}

// number returns an IPv4 address as a number.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// address returns the IPv4 address that number made a number of.
func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
