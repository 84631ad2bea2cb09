package nat

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"patchbay/stack"
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
	return t.takeAddr(real, mapped, xlateUse{}, avoid)
}

func (t *PAT) takeAddr(real netip.Addr, mapped Object, use xlateUse, avoid func(a netip.Addr) bool) (Lease, bool) {
	of, ok := mapped.span()
	if !ok || mapped.IsAny() {
		return Lease{}, false
	}
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	t.reapAddressesLocked()
	key := addressKey{of, real}
	if x := a.xlates[key]; x != nil {
		t.again(x)
		return Lease{t, x}, true
	}
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
		x := &xlate{real: netip.AddrPortFrom(real, 0), addr: m, use: use, refs: 1}
		a.taken[m], a.xlates[key] = x, x
		r.next = uint32((uint64(n) + 1) % size)
		t.begun()
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

func (t *PAT) releaseAddr(x *xlate) {
	a := &t.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	if x.refs--; x.refs > 0 {
		return
	}
	t.inUse.Add(-1)
	wait := t.wait.Load()
	if wait == 0 {
		a.freeLocked(x)
		return
	}
	t.lingering.Add(1)
	x.until = t.now.Load() + wait
	a.waiting = append(a.waiting, linger{x, x.until})
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

// A rotor is a range of mapped addresses for PAT. A real host stays with the
// address it has as long as it has a port there.
type rotor struct {
	mu    sync.Mutex
	next  uint32 // offset of the address that is next, if it goes round
	hosts map[netip.Addr]*rotorHost
}

type rotorHost struct {
	addr   netip.Addr   // mapped
	xlates atomic.Int64 // that the host has there
}

// takePool leases a port of one of the addresses mapped for the end real: of
// that its host has a port of already, else in order or, if round, of the one
// after that which the host before got. See Take.
func (t *PAT) takePool(proto stack.Proto, real netip.AddrPort, mapped Object, round bool, use xlateUse, avoid func(a netip.Addr, port uint16) bool) (Lease, bool) {
	of, ok := mapped.span()
	if !ok || mapped.IsAny() {
		return Lease{}, false
	}
	take := func(a netip.Addr) (Lease, bool) {
		return t.take(proto, real, a, use, func(port uint16) bool { return avoid != nil && avoid(a, port) })
	}
	if of.from == of.to {
		return take(mapped.From)
	}
	r := t.rotor(of)
	r.mu.Lock()
	defer r.mu.Unlock()
	host := r.hosts[real.Addr()]
	if host != nil && host.xlates.Load() > 0 {
		if l, ok := take(host.addr); ok {
			l.ofHost(host)
			return l, true
		}
	}
	size := uint64(of.to-of.from) + 1
	for i := range size {
		n := uint32((uint64(r.next) + i) % size)
		a := address(of.from + n)
		l, ok := take(a)
		if !ok {
			continue
		}
		if round {
			r.next = uint32((uint64(n) + 1) % size)
		}
		if host == nil || host.xlates.Load() <= 0 {
			host = &rotorHost{addr: a}
			r.hosts[real.Addr()] = host
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

func (t *PAT) rotor(of span) *rotor {
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
