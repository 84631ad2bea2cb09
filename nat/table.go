package nat

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// Limits of a Table that its TableConfig leaves 0.
const (
	DefaultMaxConns     = 1_000_000 // connections
	DefaultMaxEmbryonic = 4_096     // half-open TCP connections of one client address
	DefaultMaxPinholes  = 200_000   // pinholes not yet used, and Standing ones
)

// A TableConfig is what a Table needs to know. Its functions are called with
// no lock held and may be nil.
type TableConfig struct {
	Timeouts Timeouts  // the zero value is DefaultTimeouts()
	Rand     io.Reader // read once, 16 bytes, which must not be guessable

	MaxConns     int // in all; 0: DefaultMaxConns
	MaxPerClient int // connections of one client address; 0: no limit of its own
	MaxEmbryonic int // half-open TCP connections of one client address; 0: DefaultMaxEmbryonic
	MaxHalfOpen  int // half-open TCP connections in all; 0: no limit but MaxConns
	MaxPinholes  int // 0: DefaultMaxPinholes

	// PAT is what the rules translate with. If it is given it gets the
	// timeouts, is told the time by Open and Expire, and Xlates shows what
	// lingers in it. It may be nil.
	PAT *PAT

	// Route finds the interface toward dst for a pinhole whose Out is nil.
	Route func(dst netip.Addr) *stack.Interface

	// Treat finds what service policies ask of a connection that a pinhole
	// opens: p is its first packet, real its flow with the real address at
	// both ends, out where it goes. It returns nil for nothing.
	Treat func(p *stack.Packet, real stack.Flow, out *stack.Interface) *Treatment

	Opened func(c *Conn)                // a connection was opened
	Closed func(c *Conn, reason string) // and has ended
	// Reset is called before Closed for a TCP connection that was idle for too
	// long, if its Limits want both ends to hear of it; see Conn.AppendReset.
	Reset func(c *Conn)
}

// A Table is the connections and the pinholes. Any number of goroutines may
// use it.
//
// Locks, in the order in which they are taken; a caller may hold none:
//
//	Table.expiring   one Expire at a time
//	Table.holes.mu   the pinholes, for change
//	shard.mu         connections, for change; two shards by rising index
//	clientShard.mu   counts of one client's connections; those of Limits
//	pool.mu          ports of PAT
//
// Lookup, Claim and Conn.Handle take none, but to open or end a connection.
// Handlers and the functions of TableConfig are called with none held.
type Table struct {
	cfg      TableConfig
	timeouts atomic.Pointer[Timeouts]
	seed     seed
	shards   [numShards]shard
	holes    holes
	clients  clients

	lastID atomic.Uint64
	count  atomic.Int64 // connections
	most   atomic.Int64 // the most there were

	expiring sync.Mutex
	tick     int64   // guarded by expiring: the next second to look at, Unix time
	due      []*Conn // guarded by expiring: room for those found
}

// numShards is a power of two. With twice as many as cores two writers seldom
// meet, and readers never do.
const (
	shardBits = 6
	numShards = 1 << shardBits
)

// A shard is the connections with one hash prefix. Each has one place for its
// client's packets and one for its server's, as a rule in different shards.
type shard struct {
	conns probe[connEnd]

	mu sync.Mutex // for changes to conns; the wheel
	wheel
}

// NewTable returns an empty Table.
func NewTable(cfg TableConfig) (*Table, error) {
	t := &Table{cfg: cfg}
	var b [16]byte
	if _, err := io.ReadFull(cfg.Rand, b[:]); err != nil {
		return nil, fmt.Errorf("nat: table: reading a hash seed: %w", err)
	}
	t.seed = seed{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
	if cfg.Timeouts == (Timeouts{}) {
		cfg.Timeouts = DefaultTimeouts()
	}
	t.SetTimeouts(cfg.Timeouts)
	if t.cfg.MaxConns == 0 {
		t.cfg.MaxConns = DefaultMaxConns
	}
	if t.cfg.MaxEmbryonic == 0 {
		t.cfg.MaxEmbryonic = DefaultMaxEmbryonic
	}
	if t.cfg.MaxPinholes == 0 {
		t.cfg.MaxPinholes = DefaultMaxPinholes
	}
	for i := range t.shards {
		t.shards[i].conns.init()
	}
	t.holes.init(t)
	t.clients.init(t.cfg.MaxPerClient, t.cfg.MaxEmbryonic, t.cfg.MaxHalfOpen)
	return t, nil
}

// SetTimeouts changes the timeouts of connections that open from now on, or
// come to a new TCP state.
func (t *Table) SetTimeouts(to Timeouts) {
	t.timeouts.Store(&to)
	if t.cfg.PAT != nil {
		t.cfg.PAT.SetTimeouts(to)
	}
}

// Len returns the number of connections.
func (t *Table) Len() int { return int(t.count.Load()) }

// HalfOpen returns the number of TCP connections whose handshake is not
// complete.
func (t *Table) HalfOpen() int { return int(t.clients.halfOpen.Load()) }

// Most returns the largest number of connections there has been.
func (t *Table) Most() int { return int(t.most.Load()) }

// find returns the connection of k, whose hash is h, or nil.
func (t *Table) find(k key, h uint64) *connEnd {
	n := t.shards[h>>(64-shardBits)].conns.find(k, h)
	if n == nil {
		return nil
	}
	return &n.val
}

// Lookup returns the connection that p belongs to, and the end that sent it,
// or nil. A SYN that is not of a half-closed connection, but has its ports, ends
// it and finds nothing. A connection that has been idle for too long at p.Time is not found,
// whether Expire has come to it or not. An ICMP error belongs to none; see
// LookupQuoted.
func (t *Table) Lookup(p *stack.Packet) (*Conn, End) {
	f := p.Flow()
	if f.Proto == stack.ICMP && p.IsICMPError() {
		return nil, Client
	}
	c, from := t.lookup(p, &f)
	if c != nil && f.Proto == stack.TCP && c.reopened(p, from) {
		return nil, Client
	}
	return c, from
}

// LookupQuoted returns the connection of the packet that the ICMP error p is
// about, and the end from whose side p comes: the one the packet was sent to.
// See Conn.HandleError.
func (t *Table) LookupQuoted(p *stack.Packet) (*Conn, End) {
	f, ok := p.Quoted()
	if !ok {
		return nil, Client
	}
	f = f.Reverse()
	return t.lookup(p, &f)
}

func (t *Table) lookup(p *stack.Packet, f *stack.Flow) (*Conn, End) {
	k, ok := keyOf(p.In, f)
	if !ok {
		return nil, Client
	}
	e := t.find(k, t.seed.hash(k))
	if e == nil || e.c.expired(p.Time.UnixNano()) {
		return nil, Client
	}
	return e.c, e.from
}

// reopened ends c if p, which its client or server sent, is a SYN that begins
// another connection of the same ports: c has seen a FIN and the SYN is none of
// its own. So a phone that comes back from the same port at once is not kept out
// until half-closed is over. (RFC 9293, section 3.6.1; RFC 6191.)
func (c *Conn) reopened(p *stack.Packet, from End) bool {
	if !c.wouldReopen(p, from) {
		return false
	}
	c.CloseFor(ReasonFINs)
	return true
}

// wouldReopen is reopened, which ends nothing.
func (c *Conn) wouldReopen(p *stack.Packet, from End) bool {
	const syn = stack.FlagSYN
	return c.home != nil && c.tcp.seen.Load()&(tcpClientFIN|tcpServerFIN) != 0 &&
		p.TCPFlags()&(syn|stack.FlagACK|stack.FlagRST|stack.FlagFIN) == syn && !c.tcp.near(p.TCPSeq(), from)
}

// An Opening says what a first packet becomes.
type Opening struct {
	Out     *stack.Interface // where it goes
	Server  stack.Flow       // how the server must see it
	Handler Handler          // or nil
	UnRule  *Rule            // from Untranslate, or nil
	Source  Source           // from Translate; Open takes over its Lease. Zero if not asked
	Idle    time.Duration    // timeout when established; 0: that of the protocol
	Mark    string           // letters of the inspection for Conn.Flags
	Treat   *Treatment       // by service policies, or nil
}

// openTries bounds how often Open begins anew because an expired connection
// was in its way.
const openTries = 4

// Open enters the connection that p is the first packet of, and returns it and
// the end that sent p: Client, unless another goroutine opened it from the
// other end meanwhile. The caller then calls Conn.Handle. Open takes over
// o.Source.Lease in any case.
//
// What cannot be opened is a drop: TCP that does not begin with SYN
// (DropTCPNotSYN), an ICMP reply or error (DropICMP), too many connections in
// all or for a rule's HostLimits (DropLimit) or of the client (DropHostLimit),
// too many half-open ones (DropEmbryonic), the same of its class, one over the
// rate of its class (DropRate), and a server's flow that another connection has
// (DropNAT).
func (t *Table) Open(p *stack.Packet, o Opening) (*Conn, End, stack.Verdict) {
	c, v := t.open(p, o, nil)
	if v == stack.Forward {
		return c, Client, v
	}
	o.Source.Lease.Cancel()
	t.cfg.PAT.told()
	if c != nil {
		return c, c.endOf(p), stack.Forward
	}
	return nil, Client, v
}

// endOf returns the end of c that sends the flow of p.
func (c *Conn) endOf(p *stack.Packet) End {
	if p.In == c.In && p.Flow() == c.Client() {
		return Client
	}
	return Server
}

// open is Open, for a pinhole too. If the flow of p has a connection already it
// returns that one and a drop, and leaves the lease alone, as with every drop.
func (t *Table) open(p *stack.Packet, o Opening, h *Hole) (*Conn, stack.Verdict) {
	f := p.Flow()
	answer := o.Server.Reverse()
	ck, ok := keyOf(p.In, &f)
	sk, ok2 := keyOf(o.Out, &answer)
	if !ok || !ok2 {
		return nil, stack.DropIPv6
	}
	if v := t.enrol(p, f, &o, false); v != stack.Forward {
		return nil, v
	}
	if t.cfg.PAT != nil {
		t.cfg.PAT.advance(p.Time.UnixNano())
	}

	c := &Conn{
		In: p.In, Out: o.Out, Handler: o.Handler, Hole: h, Rule: o.Source.Rule, UnRule: o.UnRule,
		Mark: o.Mark, Opened: p.Time,
		table: t, to: [2]stack.Flow{f.Reverse(), o.Server}, lease: o.Source.Lease, idle: o.Idle,
		treat: o.Treat,
	}
	if h != nil {
		c.Reason = h.Reason
	}
	c.seen.Store(p.Time.UnixNano())
	c.limit.Store(int64(c.allowed(t.timeouts.Load(), 0)))
	c.nodes[Client] = node[connEnd]{ck, t.seed.hash(ck), connEnd{c, Client}}
	c.nodes[Server] = node[connEnd]{sk, t.seed.hash(sk), connEnd{c, Server}}

	var old *Conn
	for range openTries {
		var from End
		if old, from = t.enter(c); old == nil {
			t.note()
			c.count()
			t.cfg.PAT.told()
			if f := t.cfg.Opened; f != nil {
				f(c)
			}
			return c, stack.Forward
		}
		if !old.expired(p.Time.UnixNano()) {
			if old.nodes[from].key != ck {
				old = nil // in the way of the server's packets only
			}
			break
		}
		old.CloseFor(old.idleReason())
		old = nil
	}
	for _, l := range o.limited(f) {
		l.remove(f.Proto, f.Proto == stack.TCP)
	}
	t.dismiss(f, o.Treat, f.Proto == stack.TCP)
	return old, stack.DropNAT
}

// enrol counts the connection of f that p is to open, or says why it may not. If
// dry it only says whether it may.
func (t *Table) enrol(p *stack.Packet, f stack.Flow, o *Opening, dry bool) stack.Verdict {
	if v := mayOpen(p, f); v != stack.Forward {
		return v
	}
	if o.Treat != nil {
		if v := o.Treat.Police[Client].take(p, dry); v != stack.Forward {
			return v // before it leaves anything behind
		}
	}
	if v := t.admit(f, o.Treat, dry); v != stack.Forward {
		return v
	}
	v := o.underLimits(f, dry)
	if v != stack.Forward && !dry {
		t.dismiss(f, o.Treat, f.Proto == stack.TCP)
	}
	return v
}

// mayOpen refuses packets that cannot be the first of a connection.
func mayOpen(p *stack.Packet, f stack.Flow) stack.Verdict {
	const syn = stack.FlagSYN
	switch f.Proto {
	case stack.TCP:
		if p.TCPFlags()&(syn|stack.FlagACK|stack.FlagRST|stack.FlagFIN) != syn {
			return stack.DropTCPNotSYN
		}
	case stack.ICMP:
		if typ, _ := p.ICMPType(); typ == stack.ICMPEchoReply || p.IsICMPError() {
			return stack.DropICMP
		}
	}
	return stack.Forward
}

// enter puts c into the table at both its places, or returns the connection
// that has one of them, and which.
func (t *Table) enter(c *Conn) (*Conn, End) {
	i := c.nodes[Client].hash >> (64 - shardBits)
	j := c.nodes[Server].hash >> (64 - shardBits)
	a, b := &t.shards[i], &t.shards[j]
	first, second := a, b
	if j < i {
		first, second = b, a
	}
	first.mu.Lock()
	defer first.mu.Unlock()
	if first != second {
		second.mu.Lock()
		defer second.mu.Unlock()
	}
	for end := range c.nodes {
		n := &c.nodes[end]
		// One that is over is on its way out, and its place is free.
		if e := t.find(n.key, n.hash); e != nil && !e.c.over.Load() {
			return e.c, e.from
		}
	}
	c.home = a
	c.ID = t.lastID.Add(1)
	now := c.Opened.Unix()
	a.add(c, now+ticks(c.limit.Load()), now)
	a.conns.insert(&c.nodes[Client])
	if c.nodes[Server].key != c.nodes[Client].key { // else it talks to itself
		b.conns.insert(&c.nodes[Server])
	}
	return nil, Client
}

// ticks returns d, in ns, in seconds, rounded up to more than d.
func ticks(d int64) int64 { return d/int64(time.Second) + 1 }

// note keeps the most connections there have been.
func (t *Table) note() {
	n := t.count.Load()
	for {
		most := t.most.Load()
		if n <= most || t.most.CompareAndSwap(most, n) {
			return
		}
	}
}

// count counts the hits of the rules of c.
func (c *Conn) count() {
	if c.Rule != nil {
		c.Rule.hits.translate.Add(1)
	}
	if c.UnRule != nil && c.UnRule != c.Rule {
		c.UnRule.hits.untranslate.Add(1)
	}
}

// forget takes c out of the table. It is called once.
func (t *Table) forget(c *Conn) {
	if c.home == nil { // Standing, or never entered
		return
	}
	for end := range c.nodes {
		n := &c.nodes[end]
		s := &t.shards[n.hash>>(64-shardBits)]
		s.mu.Lock()
		s.conns.remove(n)
		if s == c.home {
			s.wheel.remove(c)
		}
		s.mu.Unlock()
	}
	embryonic := c.Proto() == stack.TCP && !c.counted.Swap(true)
	t.dismiss(c.Client(), c.treat, embryonic)
	for _, l := range c.limited() {
		l.remove(c.Proto(), embryonic)
	}
}

// idleReason is why c ends when it was idle for too long.
func (c *Conn) idleReason() string {
	if c.Proto() == stack.TCP && c.tcp.seen.Load()&tcpUp == 0 {
		return ReasonSYN
	}
	return ReasonIdle
}

// expireBatch bounds the connections that one Expire looks at.
const expireBatch = 4096

// Expire ends connections and pinholes that have been idle or unused for too
// long at now. Its work is bounded; what it leaves it does when called again.
// It costs next to nothing if called more than once in a second.
func (t *Table) Expire(now time.Time) {
	t.holes.expire(now.UnixNano())
	if t.cfg.PAT != nil {
		t.cfg.PAT.Expire(now)
		t.cfg.PAT.told()
	}
	if !t.expiring.TryLock() {
		return // another goroutine is at it
	}
	defer t.expiring.Unlock()
	sec := now.Unix()
	if t.tick == 0 || t.tick < sec-wheelTicks {
		t.tick = sec - wheelTicks + 1 // once around
	}
	for budget := expireBatch; t.tick <= sec; t.tick++ {
		for i := range t.shards {
			if budget = t.turn(&t.shards[i], now, budget); budget == 0 {
				return
			}
		}
	}
}

// turn looks at up to budget connections on one spoke of a shard's wheel, and
// returns what is left of budget.
func (t *Table) turn(s *shard, now time.Time, budget int) int {
	due := t.due[:0]
	s.mu.Lock()
	head := &s.heads[uint64(t.tick)%wheelTicks]
	for *head != nil && budget > 0 {
		c := *head
		budget--
		s.wheel.remove(c)
		if c.expired(now.UnixNano()) {
			due = append(due, c)
			continue
		}
		left := c.limit.Load() - int64(c.Idle(now))
		s.add(c, now.Unix()+ticks(left), now.Unix())
	}
	s.mu.Unlock()
	for _, c := range due {
		if t.cfg.Reset != nil && c.wantsReset() {
			t.cfg.Reset(c)
		}
		c.CloseFor(c.idleReason())
	}
	clear(due)
	t.due = due
	return budget
}

// Conns calls f with each connection until it returns false, in no order; the
// log's is by Conn.ID. Standing pinholes are not among them.
func (t *Table) Conns(f func(*Conn) bool) {
	for i := range t.shards {
		if !t.shards[i].conns.each(func(n *node[connEnd]) bool {
			return n.val.from == Server || n.val.c.over.Load() || f(n.val.c)
		}) {
			return
		}
	}
}

// Clear ends the connections that match, and returns how many.
func (t *Table) Clear(match func(*Conn) bool) int {
	n := 0
	t.Conns(func(c *Conn) bool {
		if match(c) {
			c.CloseFor(ReasonCleared)
			n++
		}
		return true
	})
	return n
}

// Revise ends the connections that keep refuses, for a new plan that has taken
// the place of the old, and returns how many. Rules.Keeps answers for the
// translation.
func (t *Table) Revise(keep func(*Conn) bool) int {
	return t.Clear(func(c *Conn) bool { return !keep(c) })
}

// byID returns the connections in the order in which they opened.
func (t *Table) byID() []*Conn {
	var all []*Conn
	t.Conns(func(c *Conn) bool {
		all = append(all, c)
		return true
	})
	slices.SortFunc(all, func(a, b *Conn) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
