package inspect

import (
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// What the conversations behind one NAT may hold.
const (
	MaxStreams       = 4096    // media streams of one conversation
	MaxReached       = 16      // ports one conversation is reached at besides its own
	MaxRegistrations = 100_000 // contacts of all phones that outlive their conversations
	MaxRegistration  = 24 * time.Hour

	maxContactCalls = 64 // calls of one contact whose end closes it; with more it lasts until its time
)

// Why is the reason for which an end must be reached at an address it named.
type Why uint8

const (
	ForAnswers      Why = iota // a request's Via: where its responses go
	ForDialog                  // a Contact in a call or a subscription
	ForRegistration            // a Contact in REGISTER
)

var whyNames = [...]string{ForAnswers: "Via", ForDialog: "SIGNALLING", ForRegistration: "REGISTER"}

// String returns the word in the Reason of the pinhole.
// (reference/asa-rules.md, section 4, message 607001.)
func (w Why) String() string { return whyNames[w] }

// A Reacher is a Binder that lets the other end send messages to where from
// said that it listens.
type Reacher interface {
	// Reach is Signal, and readies for a message to addr from the other end.
	// A dialog ends with Release of its call. d is how long a registration
	// lasts; 0 takes it back.
	Reach(addr netip.AddrPort, from nat.End, why Why, call string, d time.Duration) netip.AddrPort
}

// A Clock is a Binder that knows the time of the message at hand.
type Clock interface {
	Now() time.Time
}

// A Watcher is a Binder that knows whether media flows: a call that nobody ends
// is over when it does not.
type Watcher interface {
	Flows(call, stream string) bool
}

// A NAT is what the Binders of plain inspection share: the rules, the
// connections, and who is reached under which address. Fill the fields, call
// SetRules, then use it from any number of goroutines.
//
// Its lock is held while pinholes and their connections are closed, so
// nat.TableConfig.Closed must not call back.
type NAT struct {
	Table *nat.Table
	PAT   *nat.PAT

	// Route finds the interface toward a real address. With it, media that
	// both ends have on one side keeps its addresses and gets no pinhole.
	// Nil: not known.
	Route func(netip.Addr) *stack.Interface

	// Terminate is where the first packet of TCP to a pinhole for signaling
	// goes, with its flow unchanged: stack's identity interface. Contact then
	// says what the box must dial. Nil: straight to the host.
	Terminate *stack.Interface

	rules atomic.Pointer[nat.Rules]
	times atomic.Pointer[nat.Timeouts]

	mu       sync.Mutex
	calls    map[string]map[*NATBinder]struct{} // binders with streams of a SIP call
	contacts map[place]*contact
	byReal   map[place]*contact // by the interface they are behind and the real address
	mapped   map[place]*leg     // dynamic media by its mapped address
	lasting  int                // contacts of registrations
	streams  int                // of all binders
}

// A place is an address as one interface knows it.
type place struct {
	on    *stack.Interface
	proto stack.Proto
	at    netip.AddrPort
}

// A contact is an address that an end is reached at.
type contact struct {
	place        // as the other end knows it
	real         netip.AddrPort
	behind       *stack.Interface
	lease        nat.Lease
	hole         *nat.Hole
	why          Why
	until        time.Time
	owner        *NATBinder // closes it; nil for a registration
	calls        []string   // whose dialogs it is for
	conversation any        // of Datagrams: who goes on where the hole leads
	end          nat.End    // that is reached, in that conversation
}

// SetRules makes rs the rules of all that is announced from now on.
func (n *NAT) SetRules(rs *nat.Rules) { n.rules.Store(rs) }

// Contact returns the real address behind mapped, an address on the interface
// on that a pinhole of ours leads to, and the interface it is behind. The box
// asks when a TCP connection came through to Terminate.
func (n *NAT) Contact(on *stack.Interface, proto stack.Proto, mapped netip.AddrPort) (real netip.AddrPort, behind *stack.Interface, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.contacts[place{on, proto, mapped}]
	if c == nil {
		return netip.AddrPort{}, nil, false
	}
	return c.real, c.behind, true
}

// Contacts returns how many addresses are held for signaling.
func (n *NAT) Contacts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.contacts)
}

// Streams returns how many media streams are held.
func (n *NAT) Streams() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.streams
}

// Expire ends what is over at now: registrations above all. The pinholes end
// by themselves; it gives back the ports. Call it as often as Table.Expire.
func (n *NAT) Expire(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.contacts {
		if now.After(c.until) {
			n.forgetLocked(c)
		}
	}
}

// SetTimeouts makes t the timeouts of all that is announced from now on. Without
// it they are nat.DefaultTimeouts().
func (n *NAT) SetTimeouts(t nat.Timeouts) { n.times.Store(&t) }

func (n *NAT) timeouts() nat.Timeouts {
	if t := n.times.Load(); t != nil {
		return *t
	}
	return nat.DefaultTimeouts()
}

// forgetLocked ends a contact. Connections that it let in live on.
func (n *NAT) forgetLocked(c *contact) {
	if n.contacts[c.place] != c {
		return
	}
	delete(n.contacts, c.place)
	if r := (place{c.behind, c.proto, c.real}); n.byReal[r] == c {
		delete(n.byReal, r)
	}
	if c.owner == nil {
		n.lasting--
	} else if i := slices.Index(c.owner.reached, c); i >= 0 {
		c.owner.reached = slices.Delete(c.owner.reached, i, i+1)
	}
	c.close()
}

func (c *contact) close() {
	if c.hole != nil {
		c.hole.Close()
	}
	c.lease.Release()
}

// A Conversation is the addresses of one signaling conversation, as a nat.Conn
// has them.
type Conversation struct {
	In, Out *stack.Interface // where the client is, where the server
	Client  stack.Flow       // that the client sends, as it arrives
	Server  stack.Flow       // that the server sees of it
}

// ConversationOf returns that of c.
func ConversationOf(c *nat.Conn) Conversation {
	return Conversation{c.In, c.Out, c.Client(), c.Server()}
}

// Options are what a NATBinder does beyond translating.
type Options struct {
	// Now is the clock. Datagrams gives the time of the packet.
	Now func() time.Time
	// Handler is for the UDP connections that a pinhole for signaling opens:
	// the Datagrams. Nil: they are not inspected.
	Handler nat.Handler
	// Media is the idle timeout of media; 0 is Timeouts.SIPMedia.
	Media time.Duration
	// RTP is what may pass the pinholes for media.
	RTP Conformance
	// Private says that the names of calls are this conversation's own, as in
	// Skinny. A SIP call may end in another conversation than it began in.
	Private bool
	// Mark is the letters of media connections in "show conn"; "" is "m".
	Mark string
}

// A NATBinder is the Binder of one conversation through a firewall that
// translates and takes no part: an address in a message becomes what its
// packets' addresses would become, and media goes from end to end through
// pinholes. It is used by one goroutine at a time; Close it after the Session.
type NATBinder struct {
	nat  *NAT
	conv Conversation
	opt  Options

	conversation any // of Datagrams

	// Guarded by nat.mu.
	streams map[streamKey]*stream
	reached []*contact // in order of age; not registrations
}

var (
	_ Binder  = (*NATBinder)(nil)
	_ Reacher = (*NATBinder)(nil)
	_ Clock   = (*NATBinder)(nil)
	_ Placer  = (*NATBinder)(nil)
	_ Watcher = (*NATBinder)(nil)
)

type streamKey struct{ call, stream string }

// Binder returns the Binder of a conversation.
func (n *NAT) Binder(c Conversation, o Options) *NATBinder {
	if o.Mark == "" {
		o.Mark = "m"
	}
	return &NATBinder{nat: n, conv: c, opt: o, streams: make(map[streamKey]*stream)}
}

// Now returns the time of the message at hand.
func (b *NATBinder) Now() time.Time { return b.opt.Now() }

// Place returns where an end is, by its own address. See Placer.
func (b *NATBinder) Place(end nat.End) string {
	at := b.self(end)
	return b.on(end).Name + ":" + at.Addr().String() + "/" + strconv.Itoa(int(at.Port()))
}

// Self returns how the other end knows from. See Binder.
func (b *NATBinder) Self(from nat.End) netip.AddrPort {
	if from == nat.Client {
		return b.conv.Server.Src
	}
	return b.conv.Client.Dst
}

// Seen is content with every phone: plain inspection knows nobody by name.
func (b *NATBinder) Seen(string) error { return nil }

// self returns the address of an end as it knows itself.
func (b *NATBinder) self(end nat.End) netip.AddrPort {
	if end == nat.Client {
		return b.conv.Client.Src
	}
	return b.conv.Server.Dst
}

// on returns the interface that an end is behind.
func (b *NATBinder) on(end nat.End) *stack.Interface {
	if end == nat.Client {
		return b.conv.In
	}
	return b.conv.Out
}

// fate is what becomes of an address on its way to the other side.
type fate uint8

const (
	stays   fate = iota // it has no other name
	ours                // it is the end itself, or a fixed translation of its side
	dynamic             // its side is behind ports that a connection takes
	back                // it is the other side's own, and is given back
)

// Signal returns how the other end knows addr. It takes no port: under dynamic
// PAT an end that nothing is leased for keeps its number. See Binder.
func (b *NATBinder) Signal(addr netip.AddrPort, from nat.End) netip.AddrPort {
	b.nat.mu.Lock()
	defer b.nat.mu.Unlock()
	after, _ := b.signalLocked(addr, from)
	return after
}

func (b *NATBinder) signalLocked(addr netip.AddrPort, from nat.End) (netip.AddrPort, fate) {
	if !addr.Addr().Is4() || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast() || addr.Addr().IsLoopback() {
		return addr, stays
	}
	to, proto := from.Other(), b.conv.Client.Proto
	if same(addr, b.self(from)) {
		return withPort(b.Self(from), addr.Port()), ours
	}
	if theirs := b.Self(to); same(addr, theirs) {
		return withPort(b.self(to), addr.Port()), back
	}
	if c := b.nat.contacts[place{b.on(from), proto, addr}]; c != nil && c.behind == b.on(to) {
		return c.real, back
	}
	rules := b.nat.rules.Load()
	if real, ok := rules.RealOf(addr, b.on(from), proto); ok && !b.isOn(from, real.Addr()) {
		return withPort(real, addr.Port()), back
	}
	if theirs := b.Self(to).Addr(); addr.Addr() == theirs && theirs != b.self(to).Addr() {
		// A port that nothing is leased for kept its number on the way out.
		return netip.AddrPortFrom(b.self(to).Addr(), addr.Port()), back
	}
	if b.isOn(to, addr.Addr()) {
		return addr, stays // it is the other side's own already
	}
	if c := b.nat.byReal[place{b.on(from), proto, addr}]; c != nil && c.on == b.on(to) {
		return c.at, ours
	}
	mapped, fixed := rules.MappedOf(addr, b.on(from), b.on(to), proto)
	switch {
	case fixed && mapped == addr:
		return addr, stays
	case fixed:
		return mapped, ours
	}
	// The number of the port may be another's there, but not the address.
	if addr.Addr() == b.self(from).Addr() {
		return netip.AddrPortFrom(b.Self(from).Addr(), addr.Port()), dynamic
	}
	s, v := b.translate(addr, from, proto, nil)
	if v != stack.Forward {
		return netip.AddrPortFrom(b.Self(from).Addr(), addr.Port()), dynamic
	}
	return withPort(s.Mapped, addr.Port()), dynamic
}

// same reports whether a is b, or its address without a port.
func same(a, b netip.AddrPort) bool {
	return a == b || a.Port() == 0 && a.Addr() == b.Addr()
}

// withPort returns a, without its port where none was asked for.
func withPort(a netip.AddrPort, asked uint16) netip.AddrPort {
	if asked == 0 {
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// isOn reports whether a is known to be on the side of end.
func (b *NATBinder) isOn(end nat.End, a netip.Addr) bool {
	return b.nat.Route != nil && b.conv.In != b.conv.Out && b.nat.Route(a) == b.on(end)
}

// translate translates a source on the side of from as a first packet of it to
// the other end would be. With pat nil nothing is leased.
func (b *NATBinder) translate(real netip.AddrPort, from nat.End, proto stack.Proto, pat *nat.PAT) (nat.Source, stack.Verdict) {
	rules := b.nat.rules.Load()
	f := stack.Flow{Proto: proto, Src: real, Dst: b.Self(from.Other())}
	dst, un, _ := rules.Untranslate(b.on(from), f)
	f.Dst = dst
	return rules.Translate(b.on(from), b.on(from.Other()), f, un, pat)
}

// Reach readies for a message to addr. See Reacher.
func (b *NATBinder) Reach(addr netip.AddrPort, from nat.End, why Why, call string, d time.Duration) netip.AddrPort {
	n := b.nat
	n.mu.Lock()
	defer n.mu.Unlock()
	mapped, f := b.signalLocked(addr, from)
	if f == back || addr.Port() == 0 || !addr.Addr().Is4() || b.isOn(from.Other(), addr.Addr()) ||
		why == ForAnswers && addr == b.self(from) {
		return mapped
	}
	proto := b.conv.Client.Proto
	if proto == stack.TCP && why != ForRegistration {
		return b.leaseOnly(addr, mapped, from, f) // answers and requests come by the connection
	}
	return b.reachLocked(addr, mapped, from, f, why, call, d)
}

// leaseOnly names an address that nobody will connect to.
func (b *NATBinder) leaseOnly(addr, mapped netip.AddrPort, from nat.End, f fate) netip.AddrPort {
	if f == dynamic && addr.Addr() == b.self(from).Addr() {
		return b.Self(from)
	}
	return mapped
}

func (b *NATBinder) reachLocked(addr, mapped netip.AddrPort, from nat.End, f fate, why Why, call string, d time.Duration) netip.AddrPort {
	n, now, proto := b.nat, b.Now(), b.conv.Client.Proto
	to := from.Other()
	until := now
	switch t := n.timeouts(); why {
	case ForAnswers:
		until = now.Add(orDefault(t.SIPInvite, 3*time.Minute))
	case ForDialog:
		until = now.Add(orDefault(t.SIP, 30*time.Minute))
	case ForRegistration:
		until = now.Add(min(d, MaxRegistration))
	}
	var lease nat.Lease
	if s, v := b.translate(addr, from, proto, n.PAT); v == stack.Forward {
		lease = s.Lease
		if f == dynamic || lease != (nat.Lease{}) {
			mapped = s.Mapped
		}
	} else if f == dynamic {
		return mapped // no port is left: it cannot be reached
	}
	c := n.contacts[place{b.on(to), proto, mapped}]
	if c != nil && (c.real != addr || c.behind != b.on(from)) {
		if now.After(c.until) {
			n.forgetLocked(c)
			c = nil
		} else { // another's, by a rule that changed
			lease.Release()
			return mapped
		}
	}
	switch {
	case c != nil && why == ForRegistration && d <= 0:
		if c.why == ForRegistration {
			n.forgetLocked(c)
		}
		lease.Release()
		return mapped
	case c != nil:
		lease.Release() // it has one
		if c.owner != nil && why == ForRegistration && n.lasting < MaxRegistrations {
			c.owner.reached = slices.DeleteFunc(c.owner.reached, func(x *contact) bool { return x == c })
			c.owner = nil
			n.lasting++
		}
		c.why = max(c.why, why)
		if until.After(c.until) || why == ForRegistration && c.why == why {
			c.until = until
		}
	case why == ForRegistration && d <= 0:
		lease.Release()
		return mapped
	default:
		c = &contact{
			place: place{b.on(to), proto, mapped}, real: addr, behind: b.on(from),
			lease: lease, why: why, until: until,
		}
		if why == ForRegistration && n.lasting < MaxRegistrations {
			n.lasting++
		} else {
			if len(b.reached) >= MaxReached {
				n.forgetLocked(b.reached[0])
			}
			c.owner = b
			b.reached = append(b.reached, c)
		}
		if n.contacts == nil {
			n.contacts = make(map[place]*contact)
			n.byReal = make(map[place]*contact)
		}
		n.contacts[c.place] = c
		n.byReal[place{c.behind, proto, addr}] = c
	}
	if why == ForDialog && len(c.calls) < maxContactCalls && !slices.Contains(c.calls, call) {
		c.calls = append(c.calls, call)
	}
	c.conversation, c.end = b.conversation, from
	b.openContact(c, to, proto)
	return mapped
}

// renewStep is how much longer a pinhole for signaling must last to be booked
// again.
const renewStep = 10 * time.Second

// openContact books the pinhole of c, for the end to alone.
func (b *NATBinder) openContact(c *contact, to nat.End, proto stack.Proto) {
	ph := nat.Pinhole{
		In:      c.on,
		Match:   stack.Flow{Proto: proto, Src: netip.AddrPortFrom(b.self(to).Addr(), 0), Dst: c.at},
		Out:     c.behind,
		To:      stack.Flow{Proto: proto, Dst: c.real},
		Handler: b.opt.Handler,
		Expires: c.until,
		Idle:    b.nat.timeouts().SIP,
		Mark:    "T",
		Reason:  c.why.String(),
	}
	if b.Self(to).Addr() != b.self(to).Addr() {
		// Only this one translation of the sender is known.
		ph.Match.Src, ph.To.Src = b.self(to), b.Self(to)
	}
	if proto == stack.TCP {
		ph.Handler = nil
		if b.nat.Terminate != nil {
			ph.Out, ph.To = b.nat.Terminate, stack.Flow{Proto: proto}
		}
	}
	if c.hole != nil {
		if c.hole.Open() && c.why != ForRegistration && c.until.Sub(c.hole.Expires) < renewStep {
			was, want := c.hole.Pinhole, ph
			was.Expires, want.Expires = time.Time{}, time.Time{}
			if was == want {
				return
			}
		}
		c.hole.Close()
	}
	c.hole = b.nat.Table.Expect(ph)
}

// claimed books the pinhole again through which a connection came, so that
// another port of the same end is let in too, and returns the conversation
// that goes on there, and which of its ends the connection leads to.
func (n *NAT) claimed(h *nat.Hole, now time.Time) (conversation any, end nat.End) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.contacts[place{h.In, h.Match.Proto, h.Match.Dst}]
	if c == nil || now.After(c.until) {
		return nil, nat.Client
	}
	if c.hole == h {
		ph := h.Pinhole
		ph.Expires = c.until
		c.hole = n.Table.Expect(ph)
	}
	return c.conversation, c.end
}

// left tells that a conversation is over: contacts that outlive it lead to new
// ones.
func (n *NAT) left(conversation any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.contacts {
		if c.conversation == conversation {
			c.conversation = nil
		}
	}
}

// Close ends all that the conversation holds but registrations.
func (b *NATBinder) Close() {
	b.nat.mu.Lock()
	defer b.nat.mu.Unlock()
	for len(b.reached) > 0 {
		b.nat.forgetLocked(b.reached[len(b.reached)-1])
	}
	for k := range b.streams {
		b.releaseLocked(k)
	}
}
