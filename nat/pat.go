package nat

import (
	"encoding/binary"
	"io"
	"math/bits"
	"net/netip"
	"sync"

	"patchbay/stack"
)

// The port ranges of PAT: a port is replaced by one of its own range. Port 0 is
// given to nobody, but an ICMP identifier may be 0.
var patRanges = [...]PortRange{{1, 511}, {512, 1023}, {1024, 65535}}

// A PAT gives out ports of mapped addresses, for TCP and UDP, and identifiers
// for ICMP echo. One real end has one port of a mapped address, whatever it
// talks to; so a phone that learned its mapped port from one server can be
// reached under it by another. The port is free again when the last connection
// that uses it is gone. Any number of goroutines may use a PAT.
type PAT struct {
	mu    sync.RWMutex
	pools map[poolKey]*pool

	randMu sync.Mutex // taken last, with a pool's lock held
	rand   io.Reader
}

type poolKey struct {
	proto  stack.Proto
	mapped netip.Addr
}

// A pool is the ports of one protocol at one mapped address.
type pool struct {
	key poolKey

	mu     sync.Mutex
	taken  [1 << 16 / 64]uint64 // a bit for each port
	xlates map[netip.AddrPort]*xlate
}

// An xlate is one real end's port. It is guarded by the lock of its pool.
type xlate struct {
	pool *pool
	real netip.AddrPort
	port uint16
	refs int
}

// NewPAT returns a PAT with every port free, which chooses by rand, two bytes
// for each choice.
func NewPAT(rand io.Reader) *PAT {
	return &PAT{pools: make(map[poolKey]*pool), rand: rand}
}

// A Lease is one use of a port of a PAT. The zero Lease is of nothing. It must
// be released once, which Table.Open takes over.
type Lease struct {
	pat *PAT
	x   *xlate
}

// Mapped returns the leased address and port, zero for the zero Lease.
func (l Lease) Mapped() netip.AddrPort {
	if l.x == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(l.x.pool.key.mapped, l.x.port)
}

// Release ends the lease. The port is free when it was the last on it.
func (l Lease) Release() {
	if l.x == nil {
		return
	}
	p := l.x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.x.refs--; l.x.refs == 0 {
		p.taken[l.x.port/64] &^= 1 << (l.x.port % 64)
		delete(p.xlates, l.x.real)
	}
}

// Take leases a port of mapped for the end real: the one it has there already,
// else the number it uses itself, if that is free and avoid (which may be nil)
// does not hold it back, else a random one of the same range: below 512, below
// 1024, or above. It fails if the range is used up, or the protocol has no
// ports.
func (t *PAT) Take(proto stack.Proto, real netip.AddrPort, mapped netip.Addr, avoid func(port uint16) bool) (Lease, bool) {
	switch proto {
	case stack.TCP, stack.UDP, stack.ICMP:
	default:
		return Lease{}, false
	}
	p := t.pool(poolKey{proto, mapped})
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.xlates[real]; x != nil {
		x.refs++
		return Lease{t, x}, true
	}
	free := func(port uint16) bool {
		return p.taken[port/64]>>(port%64)&1 == 0 && (avoid == nil || !avoid(port))
	}
	port := real.Port()
	if port == 0 && proto != stack.ICMP || !free(port) {
		var ok bool
		if port, ok = t.choose(p, rangeOf(port), free); !ok {
			return Lease{}, false
		}
	}
	x := &xlate{p, real, port, 1}
	p.taken[port/64] |= 1 << (port % 64)
	p.xlates[real] = x
	return Lease{t, x}, true
}

// Lookup returns the mapped address and port that real has at mapped now,
// without leasing it.
func (t *PAT) Lookup(proto stack.Proto, real netip.AddrPort, mapped netip.Addr) (netip.AddrPort, bool) {
	t.mu.RLock()
	p := t.pools[poolKey{proto, mapped}]
	t.mu.RUnlock()
	if p == nil {
		return netip.AddrPort{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.xlates[real]
	if x == nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(mapped, x.port), true
}

// pool returns the pool of k, made at its first use.
func (t *PAT) pool(k poolKey) *pool {
	t.mu.RLock()
	p := t.pools[k]
	t.mu.RUnlock()
	if p != nil {
		return p
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if p = t.pools[k]; p == nil {
		p = &pool{key: k, xlates: make(map[netip.AddrPort]*xlate)}
		t.pools[k] = p
	}
	return p
}

// rangeOf returns the range that port belongs to; port 0 to the lowest.
func rangeOf(port uint16) PortRange {
	for _, r := range patRanges {
		if port <= r.To {
			return r
		}
	}
	return patRanges[len(patRanges)-1]
}

// choose returns a free port of r, the first from a random one on.
func (t *PAT) choose(p *pool, r PortRange, free func(uint16) bool) (uint16, bool) {
	var b [2]byte
	t.randMu.Lock()
	_, err := io.ReadFull(t.rand, b[:])
	t.randMu.Unlock()
	if err != nil {
		return 0, false // without chance a port could be foretold
	}
	n := uint32(r.To-r.From) + 1
	start := uint32(binary.BigEndian.Uint16(b[:])) % n
	for i := uint32(0); i < n; {
		port := uint32(r.From) + (start+i)%n
		if free(uint16(port)) {
			return uint16(port), true
		}
		// Pass over the taken ports of one word at once, but not over the
		// end of the range.
		skip := uint32(bits.TrailingZeros64(^(p.taken[port/64] >> (port % 64))))
		skip = min(max(skip, 1), 64-port%64, uint32(r.To)-port+1)
		i += skip
	}
	return 0, false
}
