package skinny

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"patchbay/inspect"
)

// maxStreams is how many media streams one conversation may hold at once. A
// phone in a recorded call has three; the oldest give way.
const maxStreams = 64

// What of a stream is open.
type directions uint8

const (
	receiving    directions = 1 << iota // OpenReceiveChannel
	transmitting                        // StartMediaTransmission
	reserved                            // PortRequest
)

// A stream is what goes between the phone and one other party of a call, both
// ways. (reference/skinny.md, section 7, "State keys and ordering".)
type stream struct {
	conf, party uint32 // its key
	callRef     uint32 // 0: not known

	call, name string // conf and party for the Binder, decimal

	types inspect.PayloadTypes // that the UCM named

	heard time.Time // when a message of it came last, if there is a clock

	open directions // until Close and Stop
	kept directions // closed, but the phone keeps its socket (portHandling 1)

	phone   netip.AddrPort // where the phone has its socket, in its own words
	phoneAs netip.AddrPort // and as the UCM was told
	far     netip.AddrPort // where the phone must send, in the UCM's words
	farAs   netip.AddrPort // and as the phone was told
}

func (st *stream) media() inspect.Media {
	return inspect.Media{Call: st.call, Stream: st.name, Types: st.types}
}

// find returns the stream with this key, or nil.
func (s *session) find(conf, party uint32) *stream {
	for _, st := range s.streams {
		if st.conf == conf && st.party == party {
			return st
		}
	}
	return nil
}

// findParty returns the latest stream of a party, of this call if there is one.
// For the ack of OpenReceiveChannel carries no conferenceId, and hardware
// bridges send it without callReference.
func (s *session) findParty(party, callRef uint32) *stream {
	var found *stream
	for _, st := range s.streams {
		if st.party != party {
			continue
		}
		if found == nil || found.callRef != callRef || st.callRef == callRef {
			found = st
		}
	}
	return found
}

// findPhone returns the latest stream where the phone has its socket at addr,
// at any port if addr has none, or nil.
func (s *session) findPhone(addr netip.AddrPort) *stream {
	for i := len(s.streams) - 1; i >= 0; i-- {
		st := s.streams[i]
		if addr.IsValid() && (st.phone == addr || addr.Port() == 0 && st.phone.Addr() == addr.Addr()) {
			return st
		}
	}
	return nil
}

// findFar returns the latest stream that the phone was told to send to addr, or
// nil.
func (s *session) findFar(addr netip.AddrPort) *stream {
	for i := len(s.streams) - 1; i >= 0; i-- {
		if st := s.streams[i]; st.farAs == addr && addr.IsValid() {
			return st
		}
	}
	return nil
}

// findCallRef returns the stream of this call, or nil when it has none or
// several.
func (s *session) findCallRef(callRef uint32) *stream {
	var found *stream
	for _, st := range s.streams {
		if st.callRef != callRef || callRef == 0 {
			continue
		}
		if found != nil {
			return nil
		}
		found = st
	}
	return found
}

// begin returns the stream with this key, a new one if need be.
func (s *session) begin(conf, party, callRef uint32) *stream {
	st := s.find(conf, party)
	if st == nil {
		if len(s.streams) == maxStreams {
			s.evict()
		}
		st = &stream{
			conf:  conf,
			party: party,
			call:  strconv.FormatUint(uint64(conf), 10),
			name:  strconv.FormatUint(uint64(party), 10),
		}
		s.streams = append(s.streams, st)
	}
	if callRef != 0 {
		st.callRef = callRef
	}
	st.heard = s.heard
	return st
}

// Expire releases the streams that nobody has closed and that are silent for
// too long. See inspect.Expirer.
func (s *session) Expire(now time.Time) {
	w, ok := s.binder.(inspect.Watcher)
	if !ok || s.engine.MediaTimeout <= 0 {
		return
	}
	for _, st := range slices.Clone(s.streams) {
		if !st.heard.IsZero() && now.Sub(st.heard) > s.engine.MediaTimeout && !w.Flows(st.call, st.name) {
			s.release(st)
		}
	}
}

// evict releases the oldest stream that is closed, or else the oldest.
func (s *session) evict() {
	victim := s.streams[0]
	for _, st := range s.streams {
		if st.open == 0 {
			victim = st
			break
		}
	}
	if s.engine.Log != nil {
		s.engine.Log.Warn("too many streams in one conversation, the oldest is released",
			"limit", maxStreams, "call", victim.call, "stream", victim.name, "open", victim.open != 0)
	}
	s.release(victim)
}

// opened notes that a direction of st is open.
func (st *stream) opened(d directions) {
	st.open |= d
	st.kept &^= d
}

// closed notes that a direction of st is closed, and releases st when nothing
// is open and the phone keeps no socket of it.
func (s *session) closed(st *stream, d directions, keep bool) {
	st.open &^= d
	st.kept &^= d
	if keep {
		st.kept |= d
	}
	s.releaseUnused(st)
}

func (s *session) releaseUnused(st *stream) {
	if st.open == 0 && st.kept == 0 {
		s.release(st)
	}
}

// release forgets st and has the Binder do so.
func (s *session) release(st *stream) {
	for i := range s.streams {
		if s.streams[i] == st {
			copy(s.streams[i:], s.streams[i+1:])
			s.streams[len(s.streams)-1] = nil
			s.streams = s.streams[:len(s.streams)-1]
			break
		}
	}
	s.binder.Release(st.call, st.name)
}

// releaseAll forgets every stream, one Release for each call.
func (s *session) releaseAll() {
	for len(s.streams) > 0 {
		call := s.streams[0].call
		kept := s.streams[:0]
		for _, st := range s.streams {
			if st.call != call {
				kept = append(kept, st)
			}
		}
		clear(s.streams[len(kept):])
		s.streams = kept
		s.binder.Release(call, "")
	}
}
