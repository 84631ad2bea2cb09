package sip

import (
	"bytes"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
)

// A stage is how far a call has come.
type stage uint8

const (
	early stage = iota // INVITE, not answered yet
	established
	ended // kept for a while, so that what comes late binds no media
)

// A call is all dialogs with one Call-ID.
type call struct {
	id     string
	stage  stage
	born   uint64    // when it was first seen
	invite [2]invite // the last one of each end
	owes   [2]bool   // an answer, to an offer that came in a response
	bound  bool      // the Binder knows streams of it
	stream []stream  // by m-line index
	tag    []byte    // of To in the answer that established it; nil: not known

	heard     time.Time // when it was last seen, if there is a clock
	cancelled bool      // and not answered since

	neighbours[call] // by when they were last seen
}

// An invite is what a response to INVITE must know of it.
type invite struct {
	cseq  uint32
	offer bool // it had a session description
}

// A stream is one m= line of a call.
type stream struct {
	bound   bool
	offered [2]offer         // the last of each end
	secure  [2]profile       // on each end's side
	now     [2]inspect.Media // what each end said last
	forks   []fork           // of the early answers, the newest maxForks
	agreed  [2]inspect.Media // and had said when they last agreed
}

// A fork is what one of several who ring has said of a stream, before one of
// them is the answer. (RFC 3261, section 13.2.2.4.)
type fork struct {
	tag  []byte // of its To
	end  nat.End
	said inspect.Media
}

// maxForks is how many of them a stream remembers.
const maxForks = 8

// An offer is what the answer to it must fit.
type offer struct {
	tag   string // of the a=crypto line we chose, "" for none
	suite inspect.Suite
}

// A profile is that of an m= line, once it is known.
type profile uint8

const (
	unknownProfile profile = iota
	plainProfile
	secureProfile
)

func profileOf(secure bool) profile {
	if secure {
		return secureProfile
	}
	return plainProfile
}

// end releases the call's media.
func (c *call) end(b inspect.Binder) {
	if c.bound {
		b.Release(c.id, "")
	}
	*c = call{id: c.id, stage: ended, born: c.born, heard: c.heard, neighbours: c.neighbours}
}

// follow moves calls along with the message at hand.
//
// A CANCEL ends nothing by itself: the 487 that it causes does, or a 200 that
// crossed it lives on until BYE. (RFC 3261, section 9.1.)
func (s *session) follow() {
	m, from := &s.msg, s.from
	c := s.calls.get(m.callID)
	if m.isRequest() {
		switch {
		case m.isMethod("INVITE"):
			if c == nil {
				c = s.calls.add(m.callID, early, s.binder)
				if m.inside { // of a conversation before this one
					c.stage = established
				}
			}
			if c.stage == ended && !m.inside {
				c.stage = early
			}
			c.invite[from] = invite{cseq: m.cseq}
			c.owes = [2]bool{}
		case m.isMethod("BYE") && c != nil && s.isDialogOf(c):
			c.end(s.binder)
		}
		return
	}
	if c == nil || c.stage == ended || m.status < 200 {
		return
	}
	asker := from.Other()
	gone := m.status == 481 || m.status == 408 // RFC 3261, section 12.2.1.2
	switch {
	case m.isMethod("INVITE") && m.cseq != c.invite[asker].cseq:
		// Of a request that is over.
	case m.isMethod("INVITE") && m.status < 300:
		if c.stage == early && m.inside {
			c.tag = append(c.tag[:0], m.toTag...)
			s.settle(c)
		}
		c.stage = established
	case m.status < 300:
	case m.isMethod("INVITE") && (c.stage == early || gone):
		c.end(s.binder)
	case m.isMethod("UPDATE") && gone:
		c.end(s.binder)
	case m.isMethod("INVITE") || m.isMethod("UPDATE"):
		s.rollBack(c, asker)
	}
}

// isDialogOf reports whether a request belongs to the dialog that c came to be,
// and not to another that its INVITE has forked into. Without tags it does.
func (s *session) isDialogOf(c *call) bool {
	m := &s.msg
	from := m.fromTag()
	return c.tag == nil || !m.inside || len(from) == 0 || bytes.Equal(c.tag, m.toTag) || bytes.Equal(c.tag, from)
}

// settle has the media be of the one of several forks that answers, if it said
// where in a provisional answer and does not say so again.
func (s *session) settle(c *call) {
	m := &s.msg
	for i := range c.stream {
		st := &c.stream[i]
		if len(m.raw) == m.body {
			for _, f := range st.forks {
				if f.end == s.from && bytes.Equal(f.tag, m.toTag) {
					st.now[s.from], st.agreed[s.from] = f.said, f.said
					f.said.Final = true
					_, _ = s.binder.Media(f.said, s.from) // an error leaves the stream silent
				}
			}
		}
		st.forks = nil
	}
}

// forked notes what one of several who ring says of a stream.
func (s *session) forked(st *stream, said inspect.Media) {
	m := &s.msg
	tag := m.toTag
	if m.isRequest() {
		tag = m.fromTag()
	}
	if s.media.call.stage != early || len(tag) == 0 {
		return
	}
	for i := range st.forks {
		if f := &st.forks[i]; f.end == s.from && bytes.Equal(f.tag, tag) {
			f.said = said
			return
		}
	}
	if m.isRequest() || !m.isMethod("INVITE") {
		return
	}
	if len(st.forks) == maxForks {
		st.forks = st.forks[1:]
	}
	st.forks = append(st.forks, fork{bytes.Clone(tag), s.from, said})
}

// rollBack takes an offer back that was refused: what was agreed before holds
// on. (RFC 3261, section 14.1.)
func (s *session) rollBack(c *call, offerer nat.End) {
	for i := range c.stream {
		st := &c.stream[i]
		if !st.bound || st.now[offerer] == st.agreed[offerer] {
			continue
		}
		if st.agreed[offerer] == (inspect.Media{}) {
			s.binder.Release(c.id, streamName[i])
			*st = stream{}
			continue
		}
		st.now[offerer] = st.agreed[offerer]
		// The result was announced when it was agreed, and an error
		// leaves the stream as the refused offer put it: silent.
		_, _ = s.binder.Media(st.agreed[offerer], offerer)
	}
}

// answers reports whether the session description at hand is an answer, to an
// offer of the other end, and notes what follows from that. (RFC 3264, with RFC
// 3261, section 13.2.1, RFC 3262, section 5, and RFC 3311, section 5.1.)
func (c *call) answers(m *message, from nat.End) bool {
	answer := true
	switch {
	case m.isMethod("INVITE") && m.isRequest():
		c.invite[from].offer = true
		answer = false
	case m.isMethod("UPDATE") && m.isRequest():
		answer = false
	case m.isMethod("PRACK") && m.isRequest():
		answer = c.owes[from]
	case m.isMethod("INVITE"):
		asked := &c.invite[from.Other()]
		answer = asked.offer || asked.cseq != m.cseq
		c.owes[from.Other()] = !answer
	}
	if answer {
		c.owes[from] = false
	}
	return answer
}
