package inspect

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// A Lister is a Session that can say what calls it follows.
type Lister interface {
	// Calls appends the calls to dst, in the order in which they began. Like
	// Inspect it is not called by two goroutines at once; Stream.Calls and
	// Datagrams.Calls see to that.
	Calls(dst []Call, now time.Time) []Call
}

// A Call is one that a session follows, for "show sip" and "show skinny".
// (reference/asa-cli-show-debug.md, section 2.6.)
type Call struct {
	ID     string        // Call-ID; the conference's number in Skinny
	Active bool          // it was answered; in Skinny, media is open
	Idle   time.Duration // since its last message; 0 where there is no Clock
	Media  []MediaPair   // of Skinny
}

// State returns the words of "show sip".
func (c *Call) State() string {
	if c.Active {
		return "Active"
	}
	return "Call init"
}

// A MediaPair is the two ends of a stream, each as it knows itself; the zero
// address is not known yet.
type MediaPair struct {
	Local, Foreign netip.AddrPort // the phone's, the far end's
}

// Counters are what an engine at work has done, for "show service-policy". Its
// Streams and Datagrams share them. The zero Counters are ready; they must not
// be copied.
type Counters struct {
	messages, dropped, reset atomic.Uint64
	lost                     atomic.Uint64
	waiting                  atomic.Int64
}

// A Count is a moment's Counters. (reference/asa-cli-show-debug.md, section 2.10.)
type Count struct {
	Messages uint64 // "packet": what was inspected, the dropped among it
	Dropped  uint64 // "drop": messages that did not pass
	Reset    uint64 // "reset-drop": of them, those that ended their conversation by a reset
	Lost     uint64 // "bytes dropped" of TCP: what ended unread, a rest without its end
	Waiting  int64  // "bytes in buffer" of TCP: they wait for the end of a message
}

// Count returns how they stand.
func (c *Counters) Count() Count {
	return Count{c.messages.Load(), c.dropped.Load(), c.reset.Load(), c.lost.Load(), c.waiting.Load()}
}

// Clear sets the counts to 0, but that of bytes that wait.
func (c *Counters) Clear() {
	for _, n := range []*atomic.Uint64{&c.messages, &c.dropped, &c.reset, &c.lost} {
		n.Store(0)
	}
}

// Packet counts a packet of a protocol without messages, which passed or not.
func (c *Counters) Packet(passed bool) {
	if passed {
		c.passed()
	} else {
		c.ended(false)
	}
}

// passed counts a message that went on.
func (c *Counters) passed() {
	if c != nil {
		c.messages.Add(1)
	}
}

// ended counts a message that did not.
func (c *Counters) ended(reset bool) {
	if c == nil {
		return
	}
	c.messages.Add(1)
	c.dropped.Add(1)
	if reset {
		c.reset.Add(1)
	}
}

// wait counts bytes that wait, or wait no more.
func (c *Counters) wait(n int) {
	if c != nil && n != 0 {
		c.waiting.Add(int64(n))
	}
}

// lose counts bytes that waited in vain.
func (c *Counters) lose(n int) {
	if c != nil && n > 0 {
		c.lost.Add(uint64(n))
	}
}
