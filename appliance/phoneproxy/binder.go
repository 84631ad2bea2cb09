package phoneproxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"patchbay/appliance/media"
	"patchbay/inspect"
	"patchbay/nat"
)

// maxStreams bounds the media streams of one phone's conversation.
const maxStreams = 32

// An AddressBook knows the addresses that signaling names.
type AddressBook interface {
	// Mapped returns how the phones know a real address of the UCM's side.
	Mapped(real netip.AddrPort) (netip.AddrPort, bool)
	// Real returns what a mapped address that a phone names stands for.
	Real(mapped netip.AddrPort) (netip.AddrPort, bool)
}

// A binder is the inspect.Binder of one phone's conversation: each stream that
// is offered becomes a media.Session, plain toward the UCM and SRTP toward the
// phone. It is used by the conversation's one goroutine at a time.
type binder struct {
	device string // from the certificate
	phone  netip.AddrPort
	places [2]string      // where the phone and the UCM are, for the log
	global netip.AddrPort // ours as the phone knows it: mapped address, secure port
	asUCM  netip.AddrPort // the phone as the UCM knows it
	ucm    netip.AddrPort // the UCM's real address, nonsecure port
	secure uint16         // what is added to a nonsecure port to make it secure
	sdes   bool           // the phone's key comes from the phone (SIP), not from us

	book    AddressBook
	relay   *media.Relay
	outside media.Side // toward the phone
	inside  media.Side // toward the UCM
	rand    io.Reader
	now     func() time.Time
	seen    func(device string) error
	log     *slog.Logger
	stories *Stories
	note    func(Event) // nil for nobody

	streams map[streamKey]*stream
}

type streamKey struct{ call, stream string }

// A stream is what the conversation knows of one media stream. It outlives a
// session that ended for idleness: the next announcement opens another.
type stream struct {
	s      *media.Session
	toward inspect.Key // the box transmits to the phone with it
	from   inspect.Key // the phone transmits with it
	remote [2]netip.AddrPort
}

// errPlain is a phone that would talk in the clear.
var errPlain = errors.New("phone answered RTP/AVP: media of a remote phone must be SRTP")

// errSecureUCM is a UCM that speaks SRTP although its cluster is nonsecure.
var errSecureUCM = errors.New("call manager offered SRTP, but cluster-mode is nonsecure")

// Now returns the time. See inspect.Clock.
func (b *binder) Now() time.Time { return b.now() }

// Place returns where an end is. See inspect.Placer.
func (b *binder) Place(end nat.End) string { return b.places[end] }

// Self returns how the other end knows from. See inspect.Binder.
func (b *binder) Self(from nat.End) netip.AddrPort {
	if from == nat.Client {
		return b.asUCM
	}
	return b.global
}

// Signal returns how the other end knows addr. See inspect.Binder.
func (b *binder) Signal(addr netip.AddrPort, from nat.End) netip.AddrPort {
	if from == nat.Client {
		switch {
		case addr.Addr() == b.global.Addr() && (addr.Port() == b.global.Port() || addr.Port() == 0):
			return withPort(b.ucm, addr.Port())
		case addr.Addr() == b.phone.Addr() && (addr.Port() == b.phone.Port() || addr.Port() == 0):
			return withPort(b.asUCM, addr.Port())
		}
		if real, ok := b.book.Real(addr); ok {
			return b.port(real, addr.Port(), -int(b.secure))
		}
		return addr
	}
	switch {
	case addr.Addr() == b.ucm.Addr() && (addr.Port() == b.ucm.Port() || addr.Port() == 0):
		return withPort(b.global, addr.Port())
	case addr == b.asUCM:
		return b.phone
	}
	probe := addr
	if addr.Port() == b.ucm.Port() { // another node of the cluster, same service
		probe = netip.AddrPortFrom(addr.Addr(), addr.Port()+b.secure)
	}
	if mapped, ok := b.book.Mapped(probe); ok {
		if addr.Port() == 0 {
			return netip.AddrPortFrom(mapped.Addr(), 0)
		}
		return mapped
	}
	return addr
}

// port moves a service port between its secure and nonsecure numbers where a
// real address of the cluster was asked for on the secure one.
func (b *binder) port(real netip.AddrPort, asked uint16, by int) netip.AddrPort {
	if asked == 0 {
		return netip.AddrPortFrom(real.Addr(), 0)
	}
	if real.Port() == b.ucm.Port()+b.secure {
		return netip.AddrPortFrom(real.Addr(), uint16(int(real.Port())+by))
	}
	return real
}

// withPort returns a with its own port, or with none where none was asked for.
func withPort(a netip.AddrPort, asked uint16) netip.AddrPort {
	if asked == 0 {
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// Media readies a stream. See inspect.Binder.
func (b *binder) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	out, err := b.media(m, from)
	if err != nil && b.note != nil {
		b.note(mediaFailed(err))
	}
	return out, err
}

func (b *binder) media(m inspect.Media, from nat.End) (inspect.Media, error) {
	// Before a session is opened: what is refused takes no port.
	switch {
	case from == nat.Client && b.sdes && !m.Secure && m.Addr.IsValid():
		return m, fmt.Errorf("%w: %w", errPlain, inspect.ErrDrop)
	case from == nat.Server && (m.Secure || !m.Tx.IsZero() || !m.Rx.IsZero()):
		return m, fmt.Errorf("%w: %w", errSecureUCM, inspect.ErrDrop)
	}
	known := b.streams[streamKey{m.Call, m.Stream}] != nil
	st, err := b.stream(m.Call, m.Stream)
	if err != nil {
		return m, err
	}
	ready := b.fromPhone
	if from == nat.Server {
		ready = b.fromUCM
	}
	out, err := ready(st, m)
	if err != nil && !known { // the engine knows of no stream that it would release
		b.end(streamKey{m.Call, m.Stream}, st)
	}
	return out, err
}

// fromPhone takes what the phone announces and returns what to tell the UCM.
func (b *binder) fromPhone(st *stream, m inspect.Media) (inspect.Media, error) {
	if !m.Tx.IsZero() {
		if err := st.s.SetReceive(nat.Client, m.Tx, b.now()); err != nil {
			return m, fmt.Errorf("%w: %w", err, inspect.ErrDrop)
		}
		st.from = m.Tx
	}
	if m.Addr.IsValid() {
		st.remote[nat.Client] = m.Addr
		st.s.SetRemote(nat.Client, m.Addr, m.Addr.Addr() == b.phone.Addr())
	}
	out := m
	out.Addr = st.s.Local(nat.Server)
	out.RTCP = netip.AddrPort{}
	out.Secure, out.Tx, out.Rx = false, inspect.Key{}, inspect.Key{}
	return out, nil
}

// fromUCM takes what the UCM announces and returns what to tell the phone,
// with the keys that make it SRTP.
func (b *binder) fromUCM(st *stream, m inspect.Media) (inspect.Media, error) {
	if m.Addr.IsValid() {
		st.remote[nat.Server] = m.Addr
		st.s.SetRemote(nat.Server, m.Addr, true)
		if m.RTCP.IsValid() {
			st.s.SetRemoteRTCP(nat.Server, m.RTCP)
		}
	}
	// The suite is the phone's where it has named one.
	suite := inspect.AES_CM_128_SHA1_32
	if !st.from.IsZero() {
		suite = st.from.Suite
	}
	if st.toward.Suite != suite {
		k, err := b.newKey(suite)
		if err != nil {
			return m, err
		}
		if err := st.s.SetTransmit(nat.Client, k); err != nil {
			return m, err
		}
		st.toward = k
	}
	if !b.sdes && st.from.IsZero() {
		k, err := b.newKey(suite)
		if err != nil {
			return m, err
		}
		if err := st.s.SetReceive(nat.Client, k, b.now()); err != nil {
			return m, err
		}
		st.from = k
	}
	out := m
	out.Addr = st.s.Local(nat.Client)
	out.RTCP = netip.AddrPort{}
	out.Secure, out.Tx = true, st.toward
	if !b.sdes {
		out.Rx = st.from
	}
	return out, nil
}

// stream returns the stream, with a session that is open.
func (b *binder) stream(call, name string) (*stream, error) {
	k := streamKey{call, name}
	st := b.streams[k]
	if st != nil && !st.s.Closed() {
		return st, nil
	}
	if st != nil {
		b.told(k, st.s) // it idled away
	}
	if st == nil && len(b.streams) >= maxStreams {
		return nil, fmt.Errorf("phone-proxy: %s: more than %d media streams: %w", b.device, maxStreams, inspect.ErrDrop)
	}
	s, err := b.relay.Open(b.device+" "+call+"/"+name, b.outside, b.inside, b.now())
	if err != nil {
		return nil, fmt.Errorf("phone-proxy: %s: %w: %w", b.device, err, inspect.ErrDrop)
	}
	if st == nil {
		st = &stream{}
		b.streams[k] = st
	}
	st.s = s
	// A session that follows one that idled away goes on with what was said.
	if !st.from.IsZero() {
		if err := s.SetReceive(nat.Client, st.from, b.now()); err != nil {
			return nil, err
		}
	}
	st.toward = inspect.Key{} // never the same key with numbers that start over
	if r := st.remote[nat.Server]; r.IsValid() {
		s.SetRemote(nat.Server, r, true)
	}
	if r := st.remote[nat.Client]; r.IsValid() {
		s.SetRemote(nat.Client, r, r.Addr() == b.phone.Addr())
	}
	b.stories.opened(b.device, streamKey{call, name}, s)
	if b.note != nil {
		b.note(Event{Kind: MediaOpened, Text: fmt.Sprintf("call %s, stream %s: phone at %v, call manager's side at %v",
			fit(call), fit(name), s.Local(nat.Client), s.Local(nat.Server))})
	}
	b.log.Debug("media session opened", "call", call, "stream", name,
		"outside", s.Local(nat.Client), "inside", s.Local(nat.Server))
	return st, nil
}

func (b *binder) newKey(suite inspect.Suite) (inspect.Key, error) {
	k := inspect.Key{Suite: suite}
	if _, err := io.ReadFull(b.rand, k.Master[:]); err != nil {
		return k, fmt.Errorf("phone-proxy: making a media key: %w", err)
	}
	if _, err := io.ReadFull(b.rand, k.Salt[:]); err != nil {
		return k, fmt.Errorf("phone-proxy: making a media key: %w", err)
	}
	return k, nil
}

// Release ends a stream, or all of a call. See inspect.Binder.
func (b *binder) Release(call, name string) {
	for k, st := range b.streams {
		if k.call == call && (name == "" || k.stream == name) {
			b.end(k, st)
		}
	}
}

// end gives the ports of a stream back.
func (b *binder) end(k streamKey, st *stream) {
	st.s.Close()
	delete(b.streams, k)
	b.told(k, st.s)
	b.log.Debug("media session closed", "call", k.call, "stream", k.stream,
		"outside", st.s.Local(nat.Client), "inside", st.s.Local(nat.Server))
}

// told has the phone's story say what a session that has ended carried.
func (b *binder) told(k streamKey, s *media.Session) {
	b.stories.closed(b.device, k, s)
	if b.note != nil {
		r := report(k, s)
		b.note(Event{Kind: MediaClosed, Text: fmt.Sprintf("call %s, stream %s", r.Call, r.Stream), Stream: &r})
	}
}

// Seen checks the phone's name against its certificate. See inspect.Binder.
func (b *binder) Seen(device string) error { return b.seen(device) }
