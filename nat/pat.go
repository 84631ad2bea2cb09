package nat

import (
	"encoding/binary"
	"io"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// The port ranges of PAT: a port is replaced by one of its own range. Port 0 is
// given to nobody, but an ICMP identifier may be 0.
var patRanges = [...]PortRange{{1, 511}, {512, 1023}, {1024, 65535}}

// A PAT gives out ports of mapped addresses, for TCP and UDP, and identifiers
// for ICMP echo; and, for dynamic NAT, whole addresses. One real end has one
// port of a mapped address, whatever it talks to; so a phone that learned its
// mapped port from one server can be reached under it by another. The port is
// free again when the last connection that uses it is gone and it has lingered
// (see SetTimeouts). Any number of goroutines may use a PAT.
//
// Locks, in the order in which they are taken: rotor.mu, PAT.mu, pool.mu,
// PAT.randMu; PAT.rotorMu and addresses.mu alone.
type PAT struct {
	mu    sync.RWMutex
	pools map[poolKey]*pool

	rotorMu sync.RWMutex
	rotors  map[span]*rotor

	addresses addresses

	now              atomic.Int64 // the latest time we know of, Unix time in ns
	portWait, wait   atomic.Int64 // how long a port and an address linger, in ns
	inUse, lingering atomic.Int64 // xlates with and without a connection
	most             atomic.Int64 // the most there were of both
	swept            atomic.Int64 // when Expire last looked, Unix time in s

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

	mu      sync.Mutex
	taken   [1 << 16 / 64]uint64 // a bit for each port
	xlates  map[netip.AddrPort]*xlate
	waiting []linger // those without a connection, by the time they end
}

// An xlate is one real end's port or address. What changes is guarded by the
// lock of its pool, or that of the addresses.
type xlate struct {
	pool *pool          // nil: an address
	real netip.AddrPort // port 0 if it is an address
	addr netip.Addr     // mapped
	port uint16
	use  xlateUse
	host *rotorHost // or nil

	refs  int
	until int64 // with no refs: when it ends, Unix time in ns
}

// A linger is an xlate that had lost its last connection when it began to wait
// until then. If that is not its time any more it has been used since.
type linger struct {
	x     *xlate
	until int64
}

// NewPAT returns a PAT with every port free, which chooses by rand, two bytes
// for each choice. Nothing lingers until SetTimeouts says so.
func NewPAT(rand io.Reader) *PAT {
	t := &PAT{pools: make(map[poolKey]*pool), rotors: make(map[span]*rotor), rand: rand}
	t.addresses.init()
	return t
}

// SetTimeouts sets how long a port (PATXlate) and the address of dynamic NAT
// (Xlate) stay with their real end after its last connection. Whoever calls it
// must also see to Expire; a Table with TableConfig.PAT does.
func (t *PAT) SetTimeouts(to Timeouts) {
	t.portWait.Store(int64(to.PATXlate))
	t.wait.Store(int64(to.Xlate))
}

// Expire frees what has lingered long enough at now. It costs next to nothing if
// called more than once in a second.
func (t *PAT) Expire(now time.Time) {
	t.advance(now.UnixNano())
	if t.swept.Swap(now.Unix()) != now.Unix() {
		t.reapAll()
	}
}

func (t *PAT) reapAll() {
	if t.lingering.Load() > 0 {
		t.mu.RLock()
		pools := slices.Collect(maps.Values(t.pools))
		t.mu.RUnlock()
		for _, p := range pools {
			p.mu.Lock()
			t.reapLocked(p)
			p.mu.Unlock()
		}
		t.reapAddresses()
	}
	t.rotorMu.RLock()
	rotors := slices.Collect(maps.Values(t.rotors))
	t.rotorMu.RUnlock()
	for _, r := range rotors {
		r.sweep()
	}
}

// Flush frees what lingers, for "clear xlate", and returns how many there were.
func (t *PAT) Flush() int {
	n := 0
	t.idle(func(x *xlate, _ int64) {
		x.until = flushed
		n++
	})
	t.reapAll()
	return n
}

// flushed is the end, in ns, of a wait that was cut short.
const flushed = -1 << 63

// Len returns the number of translations that connections use, and of those
// that linger without one.
func (t *PAT) Len() (inUse, lingering int) {
	return int(t.inUse.Load()), int(t.lingering.Load())
}

// Most returns the largest number of translations there has been, lingering
// ones included.
func (t *PAT) Most() int { return int(t.most.Load()) }

// begun counts a translation that did not exist.
func (t *PAT) begun() {
	n := t.inUse.Add(1) + t.lingering.Load()
	for {
		most := t.most.Load()
		if n <= most || t.most.CompareAndSwap(most, n) {
			return
		}
	}
}

// advance notes that it is now, in ns, or later.
func (t *PAT) advance(now int64) {
	for {
		was := t.now.Load()
		if now <= was || t.now.CompareAndSwap(was, now) {
			return
		}
	}
}

// A Lease is one use of a port or an address of a PAT. The zero Lease is of
// nothing. It must be released once, which Table.Open takes over.
type Lease struct {
	pat *PAT
	x   *xlate
}

// Mapped returns the leased address and port, zero for the zero Lease. The port
// of a whole address is 0.
func (l Lease) Mapped() netip.AddrPort {
	if l.x == nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(l.x.addr, l.x.port)
}

// Release ends the lease. When it was the last, what was leased is free once it
// has lingered.
func (l Lease) Release() {
	switch {
	case l.x == nil:
	case l.x.pool == nil:
		l.pat.releaseAddr(l.x)
	default:
		l.pat.releasePort(l.x)
	}
}

func (t *PAT) releasePort(x *xlate) {
	p := x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.refs--; x.refs > 0 {
		return
	}
	t.inUse.Add(-1)
	wait := t.portWait.Load()
	if wait == 0 {
		p.freeLocked(x)
		return
	}
	t.lingering.Add(1)
	x.until = t.now.Load() + wait
	p.waiting = append(p.waiting, linger{x, x.until})
}

// freeLocked takes x out of p.
func (p *pool) freeLocked(x *xlate) {
	p.taken[x.port/64] &^= 1 << (x.port % 64)
	delete(p.xlates, x.real)
	if x.host != nil {
		x.host.xlates.Add(-1)
	}
}

// reapLocked frees the ports of p that have lingered long enough.
func (t *PAT) reapLocked(p *pool) {
	p.waiting = t.reap(p.waiting, p.freeLocked)
}

// reap calls free for what has lingered long enough, and returns the rest.
func (t *PAT) reap(waiting []linger, free func(*xlate)) []linger {
	now, i := t.now.Load(), 0
	for ; i < len(waiting); i++ {
		l := waiting[i]
		if l.x.refs > 0 || l.x.until != l.until && l.x.until != flushed {
			continue // used again since, or freed
		}
		if l.until > now && l.x.until != flushed {
			break
		}
		t.lingering.Add(-1)
		l.x.until = 0
		free(l.x)
	}
	clear(waiting[:i])
	return waiting[i:]
}

// Take leases a port of mapped for the end real: the one it has there already,
// else the number it uses itself, if that is free and avoid (which may be nil)
// does not hold it back, else a random one of the same range: below 512, below
// 1024, or above. It fails if the range is used up, or the protocol has no
// ports.
func (t *PAT) Take(proto stack.Proto, real netip.AddrPort, mapped netip.Addr, avoid func(port uint16) bool) (Lease, bool) {
	return t.take(proto, real, mapped, xlateUse{}, avoid)
}

func (t *PAT) take(proto stack.Proto, real netip.AddrPort, mapped netip.Addr, use xlateUse, avoid func(port uint16) bool) (Lease, bool) {
	switch proto {
	case stack.TCP, stack.UDP, stack.ICMP:
	default:
		return Lease{}, false
	}
	p := t.pool(poolKey{proto, mapped})
	p.mu.Lock()
	defer p.mu.Unlock()
	t.reapLocked(p)
	if x := p.xlates[real]; x != nil {
		t.again(x)
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
	x := &xlate{pool: p, real: real, addr: mapped, port: port, use: use, refs: 1}
	t.begun()
	p.taken[port/64] |= 1 << (port % 64)
	p.xlates[real] = x
	return Lease{t, x}, true
}

// again leases x once more. Its lock is held.
func (t *PAT) again(x *xlate) {
	if x.refs == 0 {
		t.lingering.Add(-1)
		t.inUse.Add(1)
	}
	x.refs++
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

// idle calls f with each xlate that lingers, in no order, with its lock held.
func (t *PAT) idle(f func(x *xlate, until int64)) {
	each := func(waiting []linger) {
		for _, l := range waiting {
			if l.x.refs == 0 && l.x.until == l.until {
				f(l.x, l.until)
			}
		}
	}
	t.mu.RLock()
	pools := slices.Collect(maps.Values(t.pools))
	t.mu.RUnlock()
	for _, p := range pools {
		p.mu.Lock()
		each(p.waiting)
		p.mu.Unlock()
	}
	t.addresses.mu.Lock()
	defer t.addresses.mu.Unlock()
	each(t.addresses.waiting)
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
