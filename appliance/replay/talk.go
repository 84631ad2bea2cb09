package replay

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// end ends the conversation as inspect.Stream does: both connections are
// closed once what was inspected is sent; those of inspect.ErrReset are reset.
func (t *tcpTalk) end(now time.Time, err error) {
	if !t.over.IsZero() {
		return
	}
	t.over = now
	t.session.Close()
	t.svc.close()
	t.buf = [2][]byte{}
	if client := t.ends[nat.Client]; err != nil && !client.greeted {
		t.svc.log.Info("server does not answer", "as", t.svc.from, "reason", err)
	} else if err != nil {
		t.svc.log.Info("conversation ended", "reason", err)
	}
	for _, x := range t.ends {
		switch {
		case x.gone:
		case errors.Is(err, inspect.ErrReset), !x.opened:
			// Of a handshake that is not complete there is nothing to close.
			flags := uint8(stack.FlagRST)
			if x.opened || x.end == nat.Client {
				flags |= stack.FlagACK
			}
			if x.end == nat.Client && !x.greeted {
				x.sent = 0 // RFC 9293, section 3.10.7.1
			}
			x.say(flags, nil)
			x.remove()
		default:
			x.closing = true
			x.flush(now)
		}
	}
}

// expire ends what has waited for too long at now.
func (h *tcpHost) expire(now time.Time) {
	for _, t := range h.talks {
		if e, ok := t.engine.(inspect.Expirer); ok && t.over.IsZero() {
			e.Expire(now)
		}
		t.expire(now)
	}
	h.talks = slices.DeleteFunc(h.talks, func(t *tcpTalk) bool { return t.ends[0].gone && t.ends[1].gone && !t.over.IsZero() })
}

func (t *tcpTalk) expire(now time.Time) {
	l := t.svc.limits
	if !t.over.IsZero() {
		if now.Sub(t.over) > lastWait {
			t.ends[nat.Client].remove()
			t.ends[nat.Server].remove()
		}
		return
	}
	if t.svc.over != nil && t.svc.over() {
		t.end(now, nil)
		return
	}
	reassembly, idle, write := limit(l.Reassembly, inspect.DefaultReassembly), limit(l.Idle, inspect.DefaultIdle), limit(l.Write, inspect.DefaultWrite)
	if !t.ends[nat.Server].opened && now.Sub(t.heard) >= t.svc.answer {
		t.end(now, errors.New("no answer"))
		return
	}
	for end, x := range t.ends {
		if n := len(t.buf[end]); n > 0 && now.Sub(t.began[end]) >= reassembly {
			t.end(now, fmt.Errorf("%d bytes from %v waited %v for the rest of their message", n, nat.End(end), reassembly))
			return
		}
		if len(x.queue) > 0 && x.opened && now.Sub(x.queued) >= write {
			t.end(now, fmt.Errorf("%v does not take what it is sent", nat.End(end)))
			return
		}
	}
	if now.Sub(t.heard) >= idle {
		t.end(now, fmt.Errorf("no byte from either end for %v", idle))
	}
}

// limit is a field of inspect.Limits: 0 is the default, below it none.
func limit(d, def time.Duration) time.Duration {
	switch {
	case d == 0:
		return def
	case d < 0:
		return 1<<63 - 1
	}
	return d
}

// Expire does nothing: tcpHost does it, in the order of age. See appliance.Stream.
func (t *tcpTalk) Expire(time.Time) {}

// Calls returns the calls of the conversation. See appliance.Stream.
func (t *tcpTalk) Calls(now time.Time) []inspect.Call {
	if l, ok := t.engine.(inspect.Lister); ok && t.over.IsZero() {
		return l.Calls(nil, now)
	}
	return nil
}
