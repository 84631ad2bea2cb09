package inspect

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// Datagrams is the nat.Handler of signaling over UDP: each datagram goes
// through the session of its conversation and is changed in place. A
// conversation is a connection and those that pinholes of its own opened. Fill
// the fields, then give it as Handler to nat.Table.Open. Any number of
// goroutines may use it.
type Datagrams struct {
	Engine  Engine
	NAT     *NAT
	Options Options      // Now and Handler are set by Datagrams
	Count   *Counters    // or nil
	Log     *slog.Logger // for what is dropped; nil for none

	// Watch hears what a session said of each message, which is borrowed, in the
	// conversation of client; nil for nobody. The packet waits for it.
	Watch func(client netip.AddrPort, msg []byte, from nat.End, err error)

	conns sync.Map // *nat.Conn to seat

	mu    sync.Mutex
	empty map[Conversation]*conversation // without a connection, while media of theirs flows

	messages, dropped atomic.Uint64
}

var (
	_ nat.Handler = (*Datagrams)(nil)
	_ nat.Closer  = (*Datagrams)(nil)
)

// A conversation is one session and its connections.
type conversation struct {
	mu      sync.Mutex
	now     time.Time // of the last packet
	binder  *NATBinder
	session Session
	out     []byte // room for what a message becomes
	seats   int    // connections
	cut     bool   // it ends with the last of them, whatever flows
	over    bool
}

// A seat is a connection's place in a conversation.
type seat struct {
	*conversation
	turned bool // the connection's client is the conversation's server
}

// Stats returns how many datagrams were passed on and how many dropped.
func (d *Datagrams) Stats() (messages, dropped uint64) {
	return d.messages.Load(), d.dropped.Load()
}

// HandlePacket inspects one datagram. See nat.Handler.
func (d *Datagrams) HandlePacket(p *stack.Packet, c *nat.Conn, from nat.End) stack.Verdict {
	data := p.Payload()
	if len(data) == 0 {
		return stack.Forward
	}
	s, ok := d.seat(p, c)
	if !ok {
		return stack.DropInspect
	}
	end := from
	if s.turned {
		end = from.Other()
	}
	if err := d.inspect(s, p, data, end); err != nil {
		d.dropped.Add(1)
		d.Count.ended(errors.Is(err, ErrReset))
		if d.Log != nil && !errors.Is(err, ErrRule) {
			d.Log.Warn("message dropped", "from", end.String(), "client", c.Client().Src, "bytes", len(data), "err", err)
		}
		if !errors.Is(err, ErrDrop) && !errors.Is(err, errNoMessage) {
			s.mu.Lock()
			s.cut = true
			s.mu.Unlock()
			c.CloseFor(nat.ReasonInspected)
		}
		return stack.DropInspect
	}
	d.messages.Add(1)
	d.Count.passed()
	return stack.Forward
}

// Whether a datagram holds a message.
var (
	errNoMessage = errors.New("inspect: datagram holds no message")
	errTooLong   = errors.New("inspect: message has no room in its packet")
)

// inspect passes the message of a datagram, behind the line ends that may stand
// before it, through the session, and changes p. What follows a message is
// nothing and does not leave. (RFC 3261, sections 7.5 and 18.3.)
func (d *Datagrams) inspect(s seat, p *stack.Packet, data []byte, from nat.End) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errNoMessage
	}
	s.now = p.Time
	out := s.out[:0]
	for used := 0; used < len(data); {
		n, msg, err := d.Engine.Split(data[used:], true)
		if n <= 0 || err != nil || n > len(data)-used {
			return errors.Join(errNoMessage, err)
		}
		used += n
		next, err := s.session.Inspect(out, msg, from)
		if d.Watch != nil {
			d.Watch(s.binder.conv.Client.Src, msg, from, err)
		}
		if err != nil {
			return err
		}
		out = next
		if len(bytes.Trim(msg, "\r\n")) > 0 {
			break
		}
	}
	s.out = out[:0]
	if cap(out) > maxIdleRoom {
		s.out = nil
	}
	if !bytes.Equal(out, data) && !p.SetPayload(out) {
		return errors.Join(errTooLong, ErrDrop)
	}
	return nil
}

// maxIdleRoom is how much a conversation keeps to write its next message in.
const maxIdleRoom = 8 * 1024 // bytes

// seat returns the place of c, taken at its first packet.
func (d *Datagrams) seat(p *stack.Packet, c *nat.Conn) (seat, bool) {
	if x, ok := d.conns.Load(c); ok {
		return x.(seat), true
	}
	s := d.join(p, c)
	if x, loaded := d.conns.LoadOrStore(c, s); loaded {
		d.leave(s)
		return x.(seat), true
	}
	if c.Closed() { // perhaps before ConnClosed could find it
		d.ConnClosed(c)
		return seat{}, false
	}
	return s, true
}

// join takes a place in the conversation that booked the pinhole c came
// through, or begins one.
func (d *Datagrams) join(p *stack.Packet, c *nat.Conn) seat {
	if c.Hole != nil {
		x, end := d.NAT.claimed(c.Hole, p.Time)
		if v, ok := x.(*conversation); ok {
			v.mu.Lock()
			if !v.over {
				v.seats++
				d.mu.Lock()
				if conv := v.binder.conv; d.empty[conv] == v {
					delete(d.empty, conv)
				}
				d.mu.Unlock()
				v.mu.Unlock()
				return seat{v, end == nat.Client} // the pinhole led to the client, so its own client is the server
			}
			v.mu.Unlock()
		}
	}
	if v := d.resume(ConversationOf(c)); v != nil {
		return seat{v, false}
	}
	v := &conversation{now: p.Time, seats: 1}
	o := d.Options
	o.Handler = d
	o.Now = func() time.Time { return v.now }
	v.binder = d.NAT.Binder(ConversationOf(c), o)
	v.binder.conversation = v
	v.session = d.Engine.NewSession(v.binder)
	return seat{v, false}
}

// ConnClosed ends the conversation with its last connection. See nat.Closer.
func (d *Datagrams) ConnClosed(c *nat.Conn) {
	if x, ok := d.conns.LoadAndDelete(c); ok {
		d.leave(x.(seat))
	}
}

// leave gives a place up. A conversation without a connection goes on while
// media of its calls flows: nobody need say anything in a long call, and the
// timeout of signaling does not end it.
func (d *Datagrams) leave(s seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seats--; s.seats > 0 || s.over {
		return
	}
	if !s.cut && s.binder.flowsAny() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.empty[s.binder.conv] == nil {
			if d.empty == nil {
				d.empty = make(map[Conversation]*conversation)
			}
			d.empty[s.binder.conv] = s.conversation
			return
		}
	}
	d.endLocked(s.conversation)
}

// endLocked ends a conversation, whose lock is held.
func (d *Datagrams) endLocked(v *conversation) {
	v.over = true
	v.session.Close()
	v.binder.Close()
	d.NAT.left(v)
}

// resume returns the conversation of c's ends that goes on without a
// connection, with a seat for c, or nil.
func (d *Datagrams) resume(c Conversation) *conversation {
	d.mu.Lock()
	v := d.empty[c]
	delete(d.empty, c)
	d.mu.Unlock()
	if v == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seats++
	return v
}

// expireEmpty ends the conversations without a connection whose media is over.
func (d *Datagrams) expireEmpty(now time.Time) {
	d.mu.Lock()
	var over []*conversation
	for c, v := range d.empty {
		if !v.binder.flowsAny() {
			over = append(over, v)
			delete(d.empty, c)
		}
	}
	d.mu.Unlock()
	for _, v := range over {
		d.endEmpty(v)
	}
}

// Close ends the conversations that go on without a connection; the others end
// with theirs.
func (d *Datagrams) Close() {
	d.mu.Lock()
	all := slices.Collect(maps.Values(d.empty))
	clear(d.empty)
	d.mu.Unlock()
	for _, v := range all {
		d.endEmpty(v)
	}
}

// endEmpty ends a conversation unless it has a connection again.
func (d *Datagrams) endEmpty(v *conversation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.seats == 0 && !v.over {
		d.endLocked(v)
	}
}

// Expire ends the calls that nobody answered in time, in conversations that say
// nothing, and gives back what contacts held. Call it as often as Table.Expire.
func (d *Datagrams) Expire(now time.Time) {
	d.conns.Range(func(_, x any) bool {
		s := x.(seat)
		s.mu.Lock()
		defer s.mu.Unlock()
		if e, ok := s.session.(Expirer); ok && !s.over {
			s.now = now
			e.Expire(now)
		}
		return true
	})
	d.expireEmpty(now)
	d.NAT.Expire(now)
}

// Calls returns the calls of all conversations at now, in no order of the
// conversations.
func (d *Datagrams) Calls(now time.Time) []Call {
	seen := make(map[*conversation]bool)
	d.conns.Range(func(_, x any) bool {
		seen[x.(seat).conversation] = true
		return true
	})
	d.mu.Lock()
	for _, v := range d.empty {
		seen[v] = true
	}
	d.mu.Unlock()
	var all []Call
	for v := range seen {
		v.mu.Lock()
		if l, ok := v.session.(Lister); ok && !v.over {
			all = l.Calls(all, now)
		}
		v.mu.Unlock()
	}
	return all
}

// Conversations returns how many connections are inspected, and conversations
// without one that go on.
func (d *Datagrams) Conversations() int {
	d.mu.Lock()
	n := len(d.empty)
	d.mu.Unlock()
	d.conns.Range(func(any, any) bool { n++; return true })
	return n
}
