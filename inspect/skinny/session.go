package skinny

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
)

// A session is one conversation of a phone with its call manager.
type session struct {
	engine     Engine
	binder     inspect.Binder
	streams    []*stream     // in order of age
	registered bool          // RegisterAck was seen
	clock      inspect.Clock // or nil
	heard      time.Time     // when the last message came, if there is a clock
}

// Inspect appends msg to dst and edits it there: no message changes its length.
func (s *session) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	if len(msg) < headerLen {
		return dst, fmt.Errorf("skinny: message of %d bytes: %w: %w", len(msg), errLength, inspect.ErrDrop)
	}
	if s.clock != nil {
		s.heard = s.clock.Now()
	}
	if err := s.enforce(msg, from); err != nil {
		return dst, err
	}
	base := len(dst)
	dst = append(dst, msg...)
	if err := s.edit(dst[base:], from); err != nil {
		clear(dst[base:]) // it may hold a key
		return dst[:base], err
	}
	return dst, nil
}

var _ inspect.Expirer = (*session)(nil)

// Close releases the streams that are still open.
func (s *session) Close() { s.releaseAll() }

// edit makes m what the other end must get. A message counts only in the
// direction it is for; one that is unknown, or goes the wrong way, stays as it
// is.
func (s *session) edit(m Message, from nat.End) error {
	if from == nat.Client {
		return s.editPhone(m)
	}
	return s.editUCM(m)
}

func (s *session) editPhone(m Message) error {
	switch m.ID() {
	case idKeepAlive:
		return s.seen(m, "")
	case idRegister, idRegisterTokenReq:
		return s.register(m)
	case idAlarm, idXMLAlarm:
		s.alarm(m)
	case idOpenReceiveAck:
		return s.openReceiveAck(m)
	case idStartTransmissionAck:
		return s.startTransmissionAck(m)
	case idTransmissionFailure:
		return s.transmissionFailure(m)
	case idPortResponse:
		return s.portResponse(m)
	case idOpenMultiReceiveAck:
		if s.engine.Video {
			return s.openReceiveAck(m)
		}
		s.note(slog.LevelDebug, "video is not relayed", m)
	case idStartMultiTransmitAck:
		if s.engine.Video {
			return s.startTransmissionAck(m)
		}
		s.note(slog.LevelDebug, "video is not relayed", m)
	}
	return nil
}

func (s *session) editUCM(m Message) error {
	switch m.ID() {
	case idRegisterAck:
		s.registered = true
	case idUnregisterAck:
		// Until now the UCM could refuse: a phone in a call stays. A Reset
		// ends no call either; a phone waits until it has none.
		if d := m.Data(); len(d) < 4 || binary.LittleEndian.Uint32(d) == 0 {
			s.registered = false
			s.releaseAll()
		}
	case idOpenReceive:
		return s.openReceive(m, &openReceive)
	case idStartTransmission:
		return s.startTransmission(m, &startTransmission)
	case idOpenMultiReceive:
		if s.engine.Video {
			return s.openReceive(m, &openMultiReceive)
		}
		s.note(slog.LevelInfo, "video is not relayed", m)
	case idStartMultiTransmission:
		if s.engine.Video {
			return s.startTransmission(m, &startMultiTransmission)
		}
		s.note(slog.LevelInfo, "video is not relayed", m)
	case idCloseReceive, idCloseMultiReceive:
		s.stop(m, receiving)
	case idStopTransmission, idStopMultiTransmission:
		s.stop(m, transmitting)
	case idPortRequest:
		s.portRequest(m)
	case idPortClose:
		s.portClose(m)
	case idServerRes:
		return s.serverRes(m)
	case idStartSession, idStopSession:
		return s.sessionTransmission(m)
	case idStartMulticastReceive, idStartMulticastTransmit:
		// There is no key in it to change and no single far end to relay
		// for; the phone joins the group itself or hears nothing.
		s.note(slog.LevelWarn, "multicast media is not relayed", m)
	}
	return nil
}

// note logs what m may not survive.
func (s *session) note(level slog.Level, text string, m Message, args ...any) {
	log, ctx := s.engine.Log, context.Background()
	if log == nil || !log.Enabled(ctx, level) {
		return
	}
	args = append(args, "message", Name(m.ID()), "version", m.Version(), "data", len(m.Data()))
	log.Log(ctx, level, text, args...)
}

// drop is the error that ends m and not the conversation.
func drop(m Message, err error) error {
	return fmt.Errorf("skinny: %s of version %d with %d bytes of data: %w: %w",
		Name(m.ID()), m.Version(), len(m.Data()), err, inspect.ErrDrop)
}

func (s *session) seen(m Message, device string) error {
	if err := s.binder.Seen(device); err != nil {
		return fmt.Errorf("skinny: %s of %q: %w", Name(m.ID()), device, err)
	}
	return nil
}

// Register and RegisterTokenReq. (reference/skinny.md, section 5.)
const (
	deviceNameLen   = 16
	registerIP      = 24
	registerVersion = 40 // not in RegisterTokenReq
	registerIPv6    = 72
	tokenIPv6       = 32
)

// register tells the UCM the address that the phone's connection comes from,
// and no higher protocol version than MaxVersion. An IPv6 address would be one
// that the UCM cannot reach the phone by, so it becomes ::.
func (s *session) register(m Message) error {
	d := m.Data()
	if len(d) < registerIP+4 {
		return drop(m, errShort)
	}
	name, _, _ := bytes.Cut(d[:deviceNameLen], []byte{0})
	if err := s.seen(m, string(name)); err != nil {
		return err
	}
	ipv6 := tokenIPv6
	if m.ID() == idRegister {
		ipv6 = registerIPv6
		if len(d) > registerVersion && int(d[registerVersion]) > s.engine.MaxVersion {
			d[registerVersion] = byte(s.engine.MaxVersion)
		}
	}
	self := s.binder.Self(nat.Client).Addr().Unmap()
	if !self.Is4() {
		return nil
	}
	ip := self.As4()
	copy(d[registerIP:], ip[:])
	if len(d) >= ipv6+16 {
		clear(d[ipv6 : ipv6+16])
	}
	return nil
}

// ServerRes: 5 names, 5 ports, 5 addresses. (reference/skinny.md, section 5.)
const (
	servers        = 5
	serverPort     = 240
	serverAddr     = 260
	serverNarrow   = 4   // bytes of an address
	serverWide     = 20  // bytes of an address
	serverWideData = 360 // bytes of data in the wide form
)

// serverRes tells the phone how it knows each call manager.
func (s *session) serverRes(m Message) error {
	err := eachServer(m, func(a netip.AddrPort) netip.AddrPort { return s.binder.Signal(a, nat.Server) })
	if err != nil {
		return drop(m, err)
	}
	return nil
}

// eachServer puts what f says in place of each call manager in a ServerRes.
// Empty places stay empty.
func eachServer(m Message, f func(netip.AddrPort) netip.AddrPort) error {
	d := m.Data()
	if len(d) <= serverAddr {
		return nil
	}
	size, wide := serverNarrow, isWide(m.Version(), len(d), serverWideData)
	if wide {
		size = serverWide
	}
	if len(d) < serverAddr+servers*size {
		return errCut
	}
	for i := range servers {
		port, addr := d[serverPort+4*i:], d[serverAddr+size*i:]
		ip, n := readIP(addr, wide), binary.LittleEndian.Uint32(port)
		if !ip.IsValid() || ip.IsUnspecified() || n > 0xffff {
			continue
		}
		a := f(netip.AddrPortFrom(ip, uint16(n)))
		if err := writeIP(addr, wide, a.Addr()); err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(port, uint32(a.Port()))
	}
	return nil
}

// sessionTransmission tells the phone how it knows the far end of a data
// session.
func (s *session) sessionTransmission(m Message) error {
	v := sessionTransmission.view(m)
	a, err := v.address()
	if err != nil {
		return drop(m, err)
	}
	if !a.IsValid() {
		return nil
	}
	if err := v.setAddress(s.binder.Signal(a, nat.Server)); err != nil {
		return drop(m, err)
	}
	return nil
}
