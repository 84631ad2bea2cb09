package skinny

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"

	"patchbay/inspect"
	"patchbay/nat"
)

// media has the Binder ready a stream. When it cannot, the message is dropped
// and the conversation goes on: a call fails, not the phone.
func (s *session) media(m Message, in inspect.Media, from nat.End) (inspect.Media, error) {
	out, err := s.binder.Media(in, from)
	if err != nil {
		return out, fmt.Errorf("skinny: %s of call %s, stream %s: %w: %w", Name(m.ID()), in.Call, in.Stream, err, inspect.ErrDrop)
	}
	return out, nil
}

// insertKey puts k in the encryption block. A plain phone's k is zero, and the
// block stays as it is. Where there is no block the message passes without, and
// the stream stays silent: the box takes nothing unencrypted in its place.
func (s *session) insertKey(m Message, v view, k inspect.Key) {
	if !k.IsZero() && !v.setKey(k) {
		s.note(slog.LevelWarn, "no encryption block to put the key in, the phone will send and hear nothing", m)
	}
}

// readKey returns what the UCM says about encryption.
func (s *session) readKey(m Message, v view) (secure bool, k inspect.Key) {
	k, algorithm := v.key()
	if algorithm != 0 && k.IsZero() {
		s.note(slog.LevelWarn, "encryption algorithm or key size is not supported", m, "algorithm", algorithm)
	}
	return algorithm != 0, k
}

// openReceive is OpenReceiveChannel: the phone must open a socket to receive
// with, and is given the key of what it will receive.
func (s *session) openReceive(m Message, l *layout) error {
	v := l.view(m)
	source, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	if len(v.data) < 8 {
		return drop(m, errShort)
	}
	st := s.begin(v.number(l.conf), v.number(l.party), v.number(l.callRef))
	st.types.AddAll(v.payloadTypes())
	in := st.media()
	in.Secure, in.Tx = s.readKey(m, v)
	out, err := s.media(m, in, nat.Server)
	if err != nil {
		s.releaseUnused(st)
		return err
	}
	st.opened(receiving)
	s.insertKey(m, v, out.Tx)
	if !source.IsValid() {
		return nil // it said nothing
	}
	to := nowhere // the phone shall not learn of an address it cannot reach
	if out.Addr.IsValid() {
		to = out.Addr
	}
	if err := v.setAddress(to); err != nil {
		return drop(m, err)
	}
	return nil
}

// openReceiveAck is the phone's answer with the address of its socket.
func (s *session) openReceiveAck(m Message) error {
	v := openReceiveAck.view(m)
	addr, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	st := s.findParty(v.number(v.party), v.number(v.callRef))
	if status := v.number(v.status); status != 0 {
		s.note(slog.LevelInfo, "phone opened no channel", m, "status", status)
		if st != nil {
			s.closed(st, receiving, false)
		}
		return s.rename(m, v, addr)
	}
	return s.phoneSocket(m, v, st, addr, true)
}

// rename tells the UCM how it knows addr, which the phone says of no stream:
// an address of the phone's side is none of the UCM's. The port stays.
func (s *session) rename(m Message, v view, addr netip.AddrPort) error {
	if !addr.IsValid() {
		return nil
	}
	a := s.binder.Signal(netip.AddrPortFrom(addr.Addr(), 0), nat.Client)
	if !a.IsValid() {
		return nil
	}
	if err := v.setAddress(netip.AddrPortFrom(a.Addr(), addr.Port())); err != nil {
		return drop(m, err)
	}
	return nil
}

// startTransmissionAck is the phone's answer with the address it transmits
// from: in a call that of its receiving socket, in a fork to a recorder one
// of its own.
func (s *session) startTransmissionAck(m Message) error {
	v := startTransmissionAck.view(m)
	addr, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	if v.number(v.status) != 0 {
		return s.rename(m, v, addr) // the UCM will stop it
	}
	st := s.findParty(v.number(v.party), v.number(v.callRef))
	if st == nil && s.findPhone(addr) == nil {
		st = s.findCallRef(v.number(v.callRef))
	}
	return s.phoneSocket(m, v, st, addr, false)
}

// phoneSocket tells the UCM an address of ours in place of addr, where the
// phone has the socket of st. Only what it receives with may change what is
// known already. For st nil it looks for a stream by addr: phones of some
// models send acks with ids of nothing (reference/skinny.md, section 4.4), and
// IP Communicator one without a port, which then stays 0 (the capture
// sccp-outbound-call).
func (s *session) phoneSocket(m Message, v view, st *stream, addr netip.AddrPort, receives bool) error {
	if !addr.IsValid() {
		return nil
	}
	if st == nil {
		if st = s.findPhone(addr); st == nil {
			s.note(slog.LevelInfo, "answer to nothing that was asked opens nothing", m)
			return s.rename(m, v, addr)
		}
		receives = false
	}
	to, whole := st.phoneAs, addr.Port() != 0
	if receives && whole || !st.phone.IsValid() {
		in := st.media()
		if whole {
			in.Addr = addr
		}
		out, err := s.media(m, in, nat.Client)
		if err != nil {
			return err
		}
		to = addr
		if out.Addr.IsValid() {
			to = out.Addr
		}
		if whole {
			st.phone, st.phoneAs = addr, to
		}
	}
	if !whole {
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	if err := v.setAddress(to); err != nil {
		return drop(m, err)
	}
	return nil
}

// startTransmission is StartMediaTransmission: the phone is told where to send
// and given the key of what it will send.
func (s *session) startTransmission(m Message, l *layout) error {
	v := l.view(m)
	far, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	if len(v.data) < 8 {
		return drop(m, errShort)
	}
	if far.Port() == 0 {
		far = netip.AddrPort{}
	}
	st := s.begin(v.number(l.conf), v.number(l.party), v.number(l.callRef))
	st.types.AddAll(v.payloadTypes())
	in := st.media()
	in.Addr = far
	in.Secure, in.Rx = s.readKey(m, v)
	out, err := s.media(m, in, nat.Server)
	if err != nil {
		s.releaseUnused(st)
		return err
	}
	st.opened(transmitting)
	s.insertKey(m, v, out.Rx)
	if !far.IsValid() {
		return nil
	}
	st.far, st.farAs = far, far
	if out.Addr.IsValid() {
		st.farAs = out.Addr
	}
	if err := v.setAddress(st.farAs); err != nil {
		return drop(m, err)
	}
	return nil
}

// transmissionFailure is the phone's word that it cannot send to where it was
// told; the UCM must read what it had said itself.
func (s *session) transmissionFailure(m Message) error {
	v := transmissionFailure.view(m)
	addr, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	if !addr.IsValid() {
		return nil
	}
	st := s.find(v.number(v.conf), v.number(v.party))
	if st == nil || st.farAs != addr {
		st = s.findFar(addr)
	}
	if st == nil {
		s.note(slog.LevelInfo, "failure to send to an address never given", m)
		return s.rename(m, v, addr)
	}
	if err := v.setAddress(st.far); err != nil {
		return drop(m, err)
	}
	return nil
}

// StopMediaTransmission, CloseReceiveChannel and PortClose.
// (reference/skinny.md, sections 4.5 and 4.9.)
const (
	stopConf    = 0
	stopParty   = 4
	stopCallRef = 8  // not in CM 3
	stopKeep    = 12 // portHandling: 1 keeps the socket; not in middle-aged versions

	portConf    = 0
	portCallRef = 4
	portParty   = 8
	portMedia   = 20 // of PortRequest
)

// stop closes one direction of a stream.
func (s *session) stop(m Message, d directions) {
	data := m.Data()
	if len(data) < stopParty+4 {
		return
	}
	party, callRef := number(data, stopParty), number(data, stopCallRef)
	st := s.find(number(data, stopConf), party)
	if st == nil {
		st = s.findParty(party, callRef)
	}
	if st != nil {
		s.closed(st, d, number(data, stopKeep) == 1)
	}
}

// The kinds of media in PortRequest and PortResponse that are voice; old
// versions leave the field out. The others are video and data.
const (
	mediaInvalid = 0
	mediaAudio   = 1
)

func (s *session) relays(media uint32) bool {
	return s.engine.Video || media == mediaInvalid || media == mediaAudio
}

// portRequest asks the phone for the port of a stream before it is opened.
func (s *session) portRequest(m Message) {
	data := m.Data()
	if len(data) < portParty+4 || !s.relays(number(data, portMedia)) {
		return
	}
	st := s.begin(number(data, portConf), number(data, portParty), number(data, portCallRef))
	st.opened(reserved)
}

func (s *session) portClose(m Message) {
	data := m.Data()
	if len(data) < portParty+4 {
		return
	}
	if st := s.find(number(data, portConf), number(data, portParty)); st != nil {
		s.closed(st, reserved, false)
	}
}

// portResponse is the phone's answer with the address, the port and the port
// for RTCP that it will use.
func (s *session) portResponse(m Message) error {
	v := portResponse.view(m)
	addr, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	st := s.find(v.number(v.conf), v.number(v.party))
	if !addr.IsValid() || addr.Port() == 0 {
		return nil
	}
	if st == nil || !s.relays(v.number(v.media)) {
		s.note(slog.LevelInfo, "answer to nothing that was asked passes as it is", m)
		return nil
	}
	in := st.media()
	in.Addr = addr
	rtcp := v.number(v.rtcp)
	if rtcp != 0 && rtcp <= 0xffff && rtcp != uint32(addr.Port())+1 {
		in.RTCP = netip.AddrPortFrom(addr.Addr(), uint16(rtcp))
	}
	out, err := s.media(m, in, nat.Client)
	if err != nil {
		return err
	}
	st.phone, st.phoneAs = addr, addr
	if !out.Addr.IsValid() {
		return nil
	}
	st.phoneAs = out.Addr
	if err := v.setAddress(out.Addr); err != nil {
		return drop(m, err)
	}
	if rtcp != 0 {
		port := out.Addr.Port() + 1
		if out.RTCP.IsValid() {
			port = out.RTCP.Port()
		}
		binary.LittleEndian.PutUint32(v.data[v.at(v.rtcp):], uint32(port))
	}
	return nil
}

// number returns the number at off, 0 where data ends before.
func number(data []byte, off int) uint32 {
	if off+4 > len(data) {
		return 0
	}
	return binary.LittleEndian.Uint32(data[off:])
}
