package nat

import (
	"encoding/binary"
	"io"
	"maps"
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
// mapped port from one server can be reached under it by another. Only a rule
// that is Extended gives it one for each peer, and then ends with different
// peers share a number. The port is free again when the last connection that
// uses it is gone and it has lingered (see SetTimeouts). Any number of
// goroutines may use a PAT.
//
// Locks, in the order in which they are taken: rotor.mu, PAT.mu, pool.mu,
// PAT.randMu; PAT.rotorMu and addresses.mu alone; notices.mu after any.
type PAT struct {
	mu    sync.RWMutex
	pools map[poolKey]*pool

	rotorMu sync.RWMutex
	rotors  map[string]*rotor // by ranges.key

	addresses addresses
	notices   notices

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
	taken   portSet                   // for every peer
	xlates  map[netip.AddrPort]*xlate // by real end, of those
	waiting []linger                  // those without a connection, by the time they end

	// Extended PAT.
	peers    map[netip.AddrPort]*peerPorts
	extended map[[2]netip.AddrPort]*xlate // by real end and peer
	shared   map[uint16]int               // how many peers a port is taken for
}

// A peerPorts is the ports of a pool that are taken for one peer alone.
type peerPorts struct {
	portSet
	peer netip.AddrPort
}

// An xlate is one real end's port or address. What changes is guarded by the
// lock of its pool, or that of the addresses.
type xlate struct {
	pool *pool          // nil: an address
	real netip.AddrPort // port 0 if it is an address
	addr netip.Addr     // mapped
	port uint16
	peer *peerPorts // of extended PAT, else nil
	use  xlateUse
	host *rotorHost // or nil

	born  int64 // when it began, Unix time in ns
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
	t := &PAT{pools: make(map[poolKey]*pool), rotors: make(map[string]*rotor), rand: rand}
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
	t.told()
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

// begun counts a translation that did not exist. The lock of x is held.
func (t *PAT) begun(x *xlate) {
	x.born = t.now.Load()
	t.note(x, false)
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
func (l Lease) Release() { l.end(false) }

// Cancel is Release of a lease that no connection came to have: what was taken
// for it alone is free at once.
func (l Lease) Cancel() { l.end(true) }

func (l Lease) end(unused bool) {
	switch {
	case l.x == nil:
	case l.x.pool == nil:
		l.pat.releaseAddr(l.x, unused)
	default:
		l.pat.releasePort(l.x, unused)
	}
}

func (t *PAT) releasePort(x *xlate, unused bool) {
	p := x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.unusedLocked(x, t.portWait.Load(), unused) {
		p.freeLocked(x)
		t.note(x, true)
	} else if x.refs == 0 {
		p.waiting = append(p.waiting, linger{x, x.until})
	}
}

// unusedLocked ends a lease of x, which then may linger for wait, and reports
// whether x is to be freed now.
func (t *PAT) unusedLocked(x *xlate, wait int64, unused bool) bool {
	if x.refs--; x.refs > 0 {
		return false
	}
	t.inUse.Add(-1)
	if wait == 0 || unused && x.until == 0 { // it has never lingered, so it is new
		return true
	}
	t.lingering.Add(1)
	x.until = t.now.Load() + wait
	return false
}

// freeLocked takes x out of p.
func (p *pool) freeLocked(x *xlate) {
	if e := x.peer; e != nil {
		e.remove(x.port)
		if e.n == 0 {
			delete(p.peers, e.peer)
		}
		if p.shared[x.port]--; p.shared[x.port] == 0 {
			delete(p.shared, x.port)
		}
		delete(p.extended, [2]netip.AddrPort{x.real, e.peer})
	} else {
		p.taken.remove(x.port)
		delete(p.xlates, x.real)
	}
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
		t.note(l.x, true)
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
	k := taking{proto: proto, real: real}
	if avoid != nil {
		k.avoid = func(_ netip.Addr, port uint16) bool { return avoid(port) }
	}
	return t.take(&k, mapped)
}

// A taking is what a port is wanted for.
type taking struct {
	proto stack.Proto
	real  netip.AddrPort
	peer  netip.AddrPort // the only one that it is for; zero: every peer
	flat  PortRange      // where to choose from; zero: the range of the real port
	use   xlateUse
	avoid func(a netip.Addr, port uint16) bool // holds mapped ports back; or nil

	// dry has taking only say what would be leased: nothing is, and chance is not
	// asked. A port that chance would choose is 0 then, and chance set.
	dry, chance bool
}

// take is Take for k.
func (t *PAT) take(k *taking, mapped netip.Addr) (Lease, bool) {
	switch k.proto {
	case stack.TCP, stack.UDP, stack.ICMP:
	default:
		return Lease{}, false
	}
	p := t.pool(poolKey{k.proto, mapped})
	p.mu.Lock()
	defer p.mu.Unlock()
	t.reapLocked(p)
	extended := k.peer.IsValid()
	if x := p.findLocked(k); x != nil {
		if !k.dry {
			t.again(x)
		}
		return Lease{t, x}, true
	}
	var own *peerPorts // what else is taken for the peer
	if extended {
		if own = p.peers[k.peer]; own == nil {
			own = &peerPorts{peer: k.peer}
		}
	}
	free := func(port uint16) bool {
		switch {
		case p.taken.has(port), extended && own.has(port), !extended && p.shared[port] > 0:
			return false
		}
		return k.avoid == nil || !k.avoid(mapped, port)
	}
	port := k.real.Port()
	if port == 0 && k.proto != stack.ICMP || !free(port) {
		from, ok := k.flat, false
		if from == (PortRange{}) {
			from = rangeOf(port)
		}
		if port, ok = t.choose(&p.taken, from, free, k.dry); !ok {
			return Lease{}, false
		}
		if k.dry {
			port, k.chance = 0, true
		}
	}
	x := &xlate{pool: p, real: k.real, addr: mapped, port: port, peer: own, use: k.use, refs: 1}
	if k.dry {
		return Lease{t, x}, true
	}
	t.begun(x)
	p.addLocked(x)
	return Lease{t, x}, true
}

// findLocked returns the xlate that the end of k has already, or nil.
func (p *pool) findLocked(k *taking) *xlate {
	if k.peer.IsValid() {
		return p.extended[[2]netip.AddrPort{k.real, k.peer}]
	}
	return p.xlates[k.real]
}

// addLocked puts x into p.
func (p *pool) addLocked(x *xlate) {
	e := x.peer
	if e == nil {
		p.taken.add(x.port)
		p.xlates[x.real] = x
		return
	}
	if p.peers == nil {
		p.peers = make(map[netip.AddrPort]*peerPorts)
		p.extended = make(map[[2]netip.AddrPort]*xlate)
		p.shared = make(map[uint16]int)
	}
	e.add(x.port)
	p.peers[e.peer] = e
	p.extended[[2]netip.AddrPort{x.real, e.peer}] = x
	p.shared[x.port]++
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

// idle calls f with each xlate that lingers, in no order, with its lock held. One
// that has lingered long enough is over, whether it has been freed or not.
func (t *PAT) idle(f func(x *xlate, until int64)) {
	now := t.now.Load()
	each := func(waiting []linger) {
		seen := make(map[*xlate]bool) // used again at once, it waits twice
		for _, l := range waiting {
			if l.x.refs == 0 && l.x.until == l.until && l.until > now && !seen[l.x] {
				seen[l.x] = true
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

// choose returns a port of r that free says is, the first from a random one on; if
// dry the first of all. It does not ask about those in taken.
func (t *PAT) choose(taken *portSet, r PortRange, free func(uint16) bool, dry bool) (uint16, bool) {
	var b [2]byte
	if !dry {
		t.randMu.Lock()
		_, err := io.ReadFull(t.rand, b[:])
		t.randMu.Unlock()
		if err != nil {
			return 0, false // without chance a port could be foretold
		}
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
		skip := min(max(taken.run(uint16(port)), 1), 64-port%64, uint32(r.To)-port+1)
		i += skip
	}
	return 0, false
}
