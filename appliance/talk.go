package appliance

import (
	"log/slog"
	"sync"
	"time"

	"patchbay/inspect"
	"patchbay/stack"
)

// A Talk is a TCP conversation that the box ends on both sides to inspect its
// messages, while it lasts. The client knows the box by the server's address, and
// the server knows it by what NAT shows of the client. Whose TCP carries either
// half is not its business: that of the box's own host, or of whoever stands for
// it as Options.Self.
type Talk struct {
	inspect.Conversation // Server is the flow of the box's own connection to the server

	Engine inspect.Engine
	Binder *inspect.NATBinder // of its session, for which it holds pinholes and ports until Close
	Limits inspect.Limits
	Count  *inspect.Counters // is to be told of each message
	Log    *slog.Logger

	of     *termination
	box    *Appliance
	stream Stream
}

// A Stream is what carries a Talk: an inspect.Stream, or what stands for it. Its
// methods may be called at any time between Begin and Close.
type Stream interface {
	Expire(now time.Time)               // ends calls that nobody answered in time
	Calls(now time.Time) []inspect.Call // those there are
}

// Accept returns what is to be said in the TCP connection of a client whose first
// packet, of the flow f, was let through to the box; nil if the box ends it
// otherwise than to inspect it, or not at all. The caller calls the server within
// DialTimeout, passes messages between the two from Begin on, and calls Close once
// in the end.
func (a *Appliance) Accept(f stack.Flow) *Talk {
	t := a.data.termination(f.Dst, f.Src)
	if t == nil {
		return nil
	}
	return a.talk(t)
}

// talk readies the conversation of t, whose addresses are all known now.
func (a *Appliance) talk(t *termination) *Talk {
	conv := t.conversation()
	return &Talk{
		Conversation: conv, Engine: t.inspect.engine, Binder: a.data.nat.Binder(conv, t.inspect.options),
		Limits: t.inspect.limits, Count: t.inspect.count, Log: a.logOf(t),
		of: t, box: a,
	}
}

// Begin has the box know s, which carries the conversation now: "show" lists its
// calls.
func (t *Talk) Begin(s Stream) {
	t.stream = s
	t.box.talks.enter(t)
}

// Ended reports whether the client's connection has gone without a word from
// its TCP, because it timed out or was cleared: then the conversation must end.
func (t *Talk) Ended() bool { return t.of.life != nil && t.of.life.Err() != nil }

// Close ends what the box holds for the conversation.
func (t *Talk) Close() {
	t.box.talks.leave(t)
	t.Binder.Close()
}

// talks are those that last.
type talks struct {
	mu  sync.Mutex
	all map[*Talk]struct{}
}

func (s *talks) enter(t *Talk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*Talk]struct{})
	}
	s.all[t] = struct{}{}
}

func (s *talks) leave(t *Talk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, t)
}

// each calls f with each; not with the lock held.
func (s *talks) each(f func(*Talk)) {
	s.mu.Lock()
	all := make([]*Talk, 0, len(s.all))
	for t := range s.all {
		all = append(all, t)
	}
	s.mu.Unlock()
	for _, t := range all {
		f(t)
	}
}
