package skinny

import (
	"encoding/binary"
	"net/netip"

	"patchbay/inspect"
)

// addressed are the layouts of the messages that carry an address and port of
// media, whoever sends them.
var addressed = map[uint32]*layout{
	idOpenReceive:            &openReceive,
	idOpenReceiveAck:         &openReceiveAck,
	idStartTransmission:      &startTransmission,
	idStartTransmissionAck:   &startTransmissionAck,
	idTransmissionFailure:    &transmissionFailure,
	idPortResponse:           &portResponse,
	idStartSession:           &sessionTransmission,
	idStopSession:            &sessionTransmission,
	idOpenMultiReceive:       &openMultiReceive,
	idOpenMultiReceiveAck:    &openReceiveAck,
	idStartMultiTransmission: &startMultiTransmission,
	idStartMultiTransmitAck:  &startTransmissionAck,
}

// Rewrite appends to dst what msg, one whole message, becomes when f replaces
// each address in it. An RTCP port of its own moves with the address of its
// message.
func Rewrite(dst, msg []byte, f inspect.AddrFunc) ([]byte, error) {
	if len(msg) < headerLen {
		return dst, errShort
	}
	base := len(dst)
	dst = append(dst, msg...)
	m := Message(dst[base:])
	var err error
	switch id := m.ID(); id {
	case idRegister, idRegisterTokenReq:
		rewriteRegister(m.Data(), f)
	case idServerRes:
		err = eachServer(m, func(a netip.AddrPort) netip.AddrPort { return f(a, inspect.ForSignaling) })
	default:
		if l := addressed[id]; l != nil {
			err = rewriteMedia(l.view(m), f)
		}
	}
	if err != nil {
		return dst[:base], err
	}
	return dst, nil
}

func rewriteRegister(d []byte, f inspect.AddrFunc) {
	if len(d) < registerIP+4 {
		return
	}
	ip := netip.AddrFrom4([4]byte(d[registerIP:]))
	if ip.IsUnspecified() {
		return
	}
	if a := f(netip.AddrPortFrom(ip, 0), inspect.ForSignaling).Addr(); a.Is4() {
		b := a.As4()
		copy(d[registerIP:], b[:])
	}
}

func rewriteMedia(v view, f inspect.AddrFunc) error {
	a, err := v.address()
	if err != nil || !a.IsValid() {
		return err
	}
	kind := inspect.ForRTP
	if v.noPort {
		kind = inspect.ForSignaling
	}
	to := f(a, kind)
	if to == a {
		return nil
	}
	if rtcp := v.number(v.rtcp); rtcp != 0 && rtcp <= 0xffff {
		r := f(netip.AddrPortFrom(a.Addr(), uint16(rtcp)), inspect.ForRTCP)
		binary.LittleEndian.PutUint32(v.data[v.at(v.rtcp):], uint32(r.Port()))
	}
	return v.setAddress(to)
}
