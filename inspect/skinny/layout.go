package skinny

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"patchbay/inspect"
)

// none is the offset of a field that a message does not have.
const none = -1

// A layout says where a message carries its address and what goes with it, as
// offsets in the data of the narrow form. In the wide form, which the versions
// from 17 on use, the address is longer and what stands behind it moves.
//
//	narrow:  addr (4)                       port (4)  ...
//	wide:    type (4)  addr (16)            port (4)  ...
//
// (reference/skinny.md, section 2 for the forms and 4 for each message.)
type layout struct {
	addr    int  // the address, or its type in the wide form
	noPort  bool // no port stands behind the address
	conf    int  // conferenceId
	party   int  // passThruPartyId
	callRef int  // callReference
	status  int  // of an ack: 0 is success
	block   int  // encryption block
	rtcp    int  // RTCP port
	media   int  // kind of media
	codec   int  // of the stream
	dtmf    int  // payload type of RFC 2833
	wide    int  // data size that only the wide form has, where the version does not tell
}

const (
	widening    = 16 // bytes by which the wide form is longer before the port
	wideAddr    = 4  // from the address's type to the address
	wideVersion = 17 // the first that has the wide form in every message
	oddVersion  = 16 // has it in a few messages, by no rule known
)

// The types of an address in the wide form.
const (
	typeIPv4 = 0
	typeIPv6 = 1
	typeBoth = 2 // the IPv4 address stands first
)

// The messages that carry an address. (reference/skinny.md, sections 4.1 to 4.9.)
var (
	openReceive = layout{conf: 0, party: 4, callRef: 24, block: 28, addr: 100,
		status: none, rtcp: none, media: none, codec: 12, dtmf: 84, wide: 128}
	openReceiveAck = layout{status: 0, addr: 4, party: 12, callRef: 16,
		conf: none, block: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 36}
	startTransmission = layout{conf: 0, party: 4, addr: 8, callRef: 40, block: 44,
		status: none, rtcp: none, media: none, codec: 20, dtmf: 100, wide: 132}
	startTransmissionAck = layout{conf: 0, party: 4, callRef: 8, addr: 12, status: 20,
		block: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 40}
	transmissionFailure = layout{conf: 0, party: 4, addr: 8, callRef: 16,
		status: none, block: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 36}
	portResponse = layout{conf: 0, callRef: 4, party: 8, addr: 12, rtcp: 20, media: 24,
		status: none, block: none, codec: none, dtmf: none, wide: 40}
	sessionTransmission = layout{addr: 0, noPort: true,
		conf: none, party: none, callRef: none, status: none, block: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 24}
	openMultiReceive = layout{conf: 0, party: 4, callRef: 16, block: 108, addr: 164,
		status: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 192}
	startMultiTransmission = layout{conf: 0, party: 4, addr: 12, callRef: 20, block: 112,
		status: none, rtcp: none, media: none, codec: none, dtmf: none, wide: 184}
)

// nowhere is the address that says nothing.
var nowhere = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)

var (
	errCut   = errors.New("data ends inside the address")
	errShort = errors.New("data is too short")
	errIPv6  = errors.New("no room for an IPv6 address")
)

// isWide reports whether a message with n bytes of data has the wide form,
// which in an unclear version begins at wide bytes.
func isWide(version uint32, n, wide int) bool {
	switch version {
	case 0, oddVersion:
		return n >= wide
	}
	return version >= wideVersion
}

// A view is one message seen through its layout.
type view struct {
	*layout
	data []byte
	wide bool
}

func (l *layout) view(m Message) view {
	data := m.Data()
	return view{l, data, isWide(m.Version(), len(data), l.wide)}
}

// at returns where the field at off in the narrow form stands in this message.
func (v view) at(off int) int {
	if v.wide && off > v.addr {
		return off + widening
	}
	return off
}

// number returns the field at off in the narrow form, 0 where there is none.
func (v view) number(off int) uint32 {
	if off == none || v.at(off)+4 > len(v.data) {
		return 0
	}
	return binary.LittleEndian.Uint32(v.data[v.at(off):])
}

// portAt returns where the port stands; without a port, where it would.
func (v view) portAt() int { return v.at(v.addr + 4) }

// address returns the address and port of the message. An address that says
// nothing, such as 0.0.0.0, and one of a type that does not exist are not
// valid. It fails with errCut when data ends inside.
func (v view) address() (netip.AddrPort, error) {
	if len(v.data) <= v.addr {
		return netip.AddrPort{}, nil // an old, short form
	}
	end := v.portAt()
	if !v.noPort {
		end += 4
	}
	if len(v.data) < end {
		return netip.AddrPort{}, errCut
	}
	ip := v.ip()
	if !ip.IsValid() || ip.IsUnspecified() {
		return netip.AddrPort{}, nil
	}
	if v.noPort {
		return netip.AddrPortFrom(ip, 0), nil
	}
	port := binary.LittleEndian.Uint32(v.data[v.portAt():])
	if port > 0xffff {
		return netip.AddrPort{}, nil
	}
	return netip.AddrPortFrom(ip, uint16(port)), nil
}

func (v view) ip() netip.Addr { return readIP(v.data[v.addr:], v.wide) }

// setAddress puts a in place of the address and port. The address must be
// there: address has said so.
func (v view) setAddress(a netip.AddrPort) error {
	if err := writeIP(v.data[v.addr:], v.wide, a.Addr()); err != nil {
		return err
	}
	if !v.noPort {
		binary.LittleEndian.PutUint32(v.data[v.portAt():], uint32(a.Port()))
	}
	return nil
}

// readIP returns the address that b begins with. It is not valid when its type
// is not.
func readIP(b []byte, wide bool) netip.Addr {
	if !wide {
		return netip.AddrFrom4([4]byte(b))
	}
	switch binary.LittleEndian.Uint32(b) {
	case typeIPv4, typeBoth:
		return netip.AddrFrom4([4]byte(b[wideAddr:]))
	case typeIPv6:
		return netip.AddrFrom16([16]byte(b[wideAddr:])).Unmap()
	}
	return netip.Addr{}
}

// writeIP puts ip at the start of b.
func writeIP(b []byte, wide bool, ip netip.Addr) error {
	ip = ip.Unmap()
	switch {
	case ip.Is4() && !wide:
		a := ip.As4()
		copy(b, a[:])
	case ip.Is4():
		if binary.LittleEndian.Uint32(b) != typeIPv4 {
			clear(b[:wideAddr+16]) // what is left of another address
		}
		a := ip.As4()
		copy(b[wideAddr:], a[:])
	case ip.Is6() && wide:
		binary.LittleEndian.PutUint32(b, typeIPv6)
		a := ip.As16()
		copy(b[wideAddr:], a[:])
	default:
		return errIPv6
	}
	return nil
}

// The encryption block. (reference/skinny.md, section 3.)
//
//	0          4         6          8       24       40           44    48
//	+----------+---------+----------+-------+--------+------------+-----+
//	| algorithm| key len | salt len | key   | salt   | MKI present| KDR |
//	+----------+---------+----------+-------+--------+------------+-----+
//	                                                 |<-- not in CM 4 ->|
const (
	blockKeyLen  = 4
	blockSaltLen = 6
	blockKey     = 8
	blockSalt    = 24
	shortBlock   = 40 // bytes, CM 4
	longBlock    = 48 // bytes
)

// keyBlock returns the encryption block, short or long, or nil where the
// message ends before it.
func (v view) keyBlock() []byte {
	if v.block == none {
		return nil
	}
	b := v.data[min(v.at(v.block), len(v.data)):]
	switch {
	case len(b) >= longBlock:
		return b[:longBlock]
	case len(b) >= shortBlock:
		return b[:shortBlock]
	}
	return nil
}

// key returns the key in the block, and the algorithm. There is an algorithm
// without a key when we know no such algorithm or the sizes are not its own.
func (v view) key() (k inspect.Key, algorithm uint32) {
	b := v.keyBlock()
	if b == nil {
		return k, 0
	}
	algorithm = binary.LittleEndian.Uint32(b)
	switch algorithm {
	case 1:
		k.Suite = inspect.AES_CM_128_SHA1_32
	case 2:
		k.Suite = inspect.AES_CM_128_SHA1_80
	default:
		return k, algorithm
	}
	if int(binary.LittleEndian.Uint16(b[blockKeyLen:])) != len(k.Master) ||
		int(binary.LittleEndian.Uint16(b[blockSaltLen:])) != len(k.Salt) {
		return inspect.Key{}, algorithm
	}
	copy(k.Master[:], b[blockKey:])
	copy(k.Salt[:], b[blockSalt:])
	return k, algorithm
}

// setKey puts k in the block, without MKI and key derivation rate. It reports
// false where there is no block.
func (v view) setKey(k inspect.Key) bool {
	b := v.keyBlock()
	if b == nil {
		return false
	}
	clear(b)
	algorithm := uint32(1)
	if k.Suite == inspect.AES_CM_128_SHA1_80 {
		algorithm = 2
	}
	binary.LittleEndian.PutUint32(b, algorithm)
	binary.LittleEndian.PutUint16(b[blockKeyLen:], uint16(len(k.Master)))
	binary.LittleEndian.PutUint16(b[blockSaltLen:], uint16(len(k.Salt)))
	copy(b[blockKey:], k.Master[:])
	copy(b[blockSalt:], k.Salt[:])
	return true
}
