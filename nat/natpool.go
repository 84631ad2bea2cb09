package nat

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// addresses is the mapped addresses that dynamic NAT has given to real ones.
type addresses struct {
	mu      sync.Mutex
	taken   map[netip.Addr]*xlate // by mapped address, of all ranges
	xlates  map[addressKey]*xlate
	ranges  map[span]*addressRange
	waiting []linger
}

// An addressKey is a real address with one of a range.
type addressKey struct {
	of   span
	real netip.Addr
}

type addressRange struct {
	next uint32 // offset in the range where the search begins
	full bool   // none was found, and none has come free since
}

func (a *addresses) init() {
	a.taken = make(map[netip.Addr]*xlate)
	a.xlates = make(map[addressKey]*xlate)
	a.ranges = make(map[span]*addressRange)
}

// TakeAddr leases a whole address of mapped, a range, for the address real: the
// one it has there already, else the next that is free and that avoid (which
// may be nil) does not hold back. It fails if there is none.
func (t *PAT) TakeAddr(real netip.Addr, mapped Object, avoid func(a netip.Addr) bool) (Lease, bool) {
	return t.takeAddr(&taking{real: netip.AddrPortFrom(real, 0)}, newRanges([]Object{mapped}), avoid)
}

// takeAddr is TakeAddr for the host of k with several ranges, of which one is
// used up before the next.
func (t *PAT) takeAddr(k *taking, mapped *ranges, avoid func(a netip.Addr) bool) (Lease, bool) {
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	t.reapAddressesLocked()
	for _, of := range mapped.spans {
		if x := a.xlates[addressKey{of, k.real.Addr()}]; x != nil {
			if !k.dry {
				t.again(x)
			}
			return Lease{t, x}, true
		}
	}
	for _, of := range mapped.spans {
		if l, ok := t.takeOfLocked(k, of, avoid); ok {
			return l, true
		}
	}
	return Lease{}, false
}

// takeOfLocked leases an address of one range for the host of k, which has none
// there.
func (t *PAT) takeOfLocked(k *taking, of span, avoid func(a netip.Addr) bool) (Lease, bool) {
	a, key := &t.addresses, addressKey{of, k.real.Addr()}
	r := a.ranges[of]
	if r == nil {
		r = new(addressRange)
		a.ranges[of] = r
	}
	if r.full {
		return Lease{}, false
	}
	size := uint64(of.to-of.from) + 1
	for i := range size {
		n := uint32((uint64(r.next) + i) % size)
		m := address(of.from + n)
		if a.taken[m] != nil || avoid != nil && avoid(m) {
			continue
		}
		x := &xlate{real: netip.AddrPortFrom(key.real, 0), addr: m, use: k.use, refs: 1}
		if k.dry {
			return Lease{t, x}, true
		}
		a.taken[m], a.xlates[key] = x, x
		r.next = uint32((uint64(n) + 1) % size)
		t.begun(x)
		return Lease{t, x}, true
	}
	r.full = true
	return Lease{}, false
}

// LookupAddr returns the address that real has of the range mapped now, without
// leasing it.
func (t *PAT) LookupAddr(real netip.Addr, mapped Object) (netip.Addr, bool) {
	of, _ := mapped.span()
	t.addresses.mu.Lock()
	defer t.addresses.mu.Unlock()
	x := t.addresses.xlates[addressKey{of, real}]
	if x == nil {
		return netip.Addr{}, false
	}
	return x.addr, true
}

func (t *PAT) releaseAddr(x *xlate, unused bool) {
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	if t.unusedLocked(x, t.wait.Load(), unused) {
		a.freeLocked(x)
		t.note(x, true)
	} else if x.refs == 0 {
		a.waiting = append(a.waiting, linger{x, x.until})
	}
}

func (a *addresses) freeLocked(x *xlate) {
	delete(a.taken, x.addr)
	n := number(x.addr)
	for of, r := range a.ranges {
		if of.from <= n && n <= of.to {
			r.full = false
			if key := (addressKey{of, x.real.Addr()}); a.xlates[key] == x {
				delete(a.xlates, key)
			}
		}
	}
}

func (t *PAT) reapAddresses() {
	t.addresses.mu.Lock()
	defer t.addresses.mu.Unlock()
	t.reapAddressesLocked()
}

func (t *PAT) reapAddressesLocked() {
	t.addresses.waiting = t.reap(t.addresses.waiting, t.addresses.freeLocked)
}

// A ranges is ranges of addresses in order. It does not change.
type ranges struct {
	spans []span
	size  uint64
	key   string // the same for the same ranges in the same order
}

// newRanges leaves out what is not IPv4, and any.
func newRanges(objects []Object) *ranges {
	r := new(ranges)
	var key []byte
	for _, o := range objects {
		if s, ok := o.span(); ok && !o.IsAny() {
			r.spans = append(r.spans, s)
			r.size += uint64(s.to-s.from) + 1
			key = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(key, s.from), s.to)
		}
	}
	r.key = string(key)
	return r
}

// at returns address n of r.
func (r *ranges) at(n uint64) netip.Addr {
	for _, s := range r.spans {
		size := uint64(s.to-s.from) + 1
		if n < size {
			return address(s.from + uint32(n))
		}
		n -= size
	}
	return netip.Addr{}
}

// contains reports whether a is in r.
func (r *ranges) contains(a netip.Addr) bool {
	return a.Is4() && slices.ContainsFunc(r.spans, func(s span) bool { return s.from <= number(a) && number(a) <= s.to })
}

// A rotor is mapped addresses for PAT. A real host stays with the address it
// has as long as it has a port there.
type rotor struct {
	mu    sync.Mutex
	next  uint64 // of the ranges, the address that is next if it goes round
	hosts map[netip.Addr]*rotorHost
}

type rotorHost struct {
	addr   netip.Addr   // mapped
	xlates atomic.Int64 // that the host has there
}

// takePool leases a port of one of the addresses mapped for the end of k: of
// that its host has a port of already, else in order or, if round, of the one
// after that which the host before got. See Take.
func (t *PAT) takePool(k *taking, mapped *ranges, round bool) (Lease, bool) {
	switch mapped.size {
	case 0:
		return Lease{}, false
	case 1:
		return t.take(k, mapped.at(0))
	}
	r := t.rotor(mapped.key)
	r.mu.Lock()
	defer r.mu.Unlock()
	host := r.hosts[k.real.Addr()]
	if host != nil && host.xlates.Load() > 0 {
		if l, ok := t.take(k, host.addr); ok {
			if !k.dry {
				l.ofHost(host)
			}
			return l, true
		}
	}
	for i := range mapped.size {
		n := (r.next + i) % mapped.size
		a := mapped.at(n)
		l, ok := t.take(k, a)
		switch {
		case !ok:
			continue
		case k.dry:
			return l, true
		}
		if round {
			r.next = (n + 1) % mapped.size
		}
		if host == nil || host.xlates.Load() <= 0 {
			host = &rotorHost{addr: a}
			r.hosts[k.real.Addr()] = host
		}
		l.ofHost(host)
		return l, true
	}
	return Lease{}, false
}

// ofHost counts the xlate of l as one of host, if it is a new one of its
// address.
func (l Lease) ofHost(host *rotorHost) {
	p := l.x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.x.host == nil && l.x.addr == host.addr {
		l.x.host = host
		host.xlates.Add(1)
	}
}

func (t *PAT) rotor(of string) *rotor {
	t.rotorMu.RLock()
	r := t.rotors[of]
	t.rotorMu.RUnlock()
	if r != nil {
		return r
	}
	t.rotorMu.Lock()
	defer t.rotorMu.Unlock()
	if r = t.rotors[of]; r == nil {
		r = &rotor{hosts: make(map[netip.Addr]*rotorHost)}
		t.rotors[of] = r
	}
	return r
}

// sweep forgets the hosts that have no port any more.
func (r *rotor) sweep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for a, h := range r.hosts {
		if h.xlates.Load() <= 0 {
			delete(r.hosts, a)
		}
	}
}
