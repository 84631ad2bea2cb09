package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
)

const (
	sccpHeader = 12   // bytes before the data (reference/skinny.md, section 1)
	sccpMax    = 8192 // bytes of a message

	sccpPort       = 2000
	sccpSecurePlus = 443 // a phone's secure port is this much above its plain one

	codecPCMU     = 4    // reference/skinny.md, section 8
	codecRFC2833  = 257  // a marker, not media
	initialPort   = 4000 // source port of OpenReceiveChannel until it is known
	precedenceEF  = 0xb8 // TOS byte
	dtmfTypeValue = 0x0a // as in the golden frame of section 10
	deviceType    = 404  // 7962
	mainLine      = 1    // the one line of our phones

	algNone   = 0
	algAES32  = 1
	algAES80  = 2
	keyLength = 16
	saltBytes = 14
)

// Message numbers. (reference/skinny.md, section 9.)
const (
	msgKeepAlive            = 0x0000
	msgRegister             = 0x0001
	msgKeypadButton         = 0x0003
	msgOffHook              = 0x0006
	msgOnHook               = 0x0007
	msgLineStatReq          = 0x000b
	msgTimeDateReq          = 0x000d
	msgButtonTemplateReq    = 0x000e
	msgCapabilitiesRes      = 0x0010
	msgAlarm                = 0x0020
	msgOpenReceiveAck       = 0x0022
	msgConnectionStatRes    = 0x0023
	msgSoftKeySetReq        = 0x0025
	msgSoftKeyEvent         = 0x0026
	msgUnregister           = 0x0027
	msgSoftKeyTemplateReq   = 0x0028
	msgRegisterAck          = 0x0081
	msgStartTone            = 0x0082
	msgStopTone             = 0x0083
	msgSetRinger            = 0x0085
	msgStartMedia           = 0x008a
	msgStopMedia            = 0x008b
	msgCallInfo             = 0x008f
	msgLineStat             = 0x0092
	msgDefineTimeDate       = 0x0094
	msgButtonTemplate       = 0x0097
	msgCapabilitiesReq      = 0x009b
	msgRegisterReject       = 0x009d
	msgReset                = 0x009f
	msgKeepAliveAck         = 0x0100
	msgOpenReceive          = 0x0105
	msgCloseReceive         = 0x0106
	msgConnectionStatReq    = 0x0107
	msgSoftKeyTemplate      = 0x0108
	msgSoftKeySet           = 0x0109
	msgCallState            = 0x0111
	msgUnregisterAck        = 0x0118
	msgLineStatDynamic      = 0x0147
	msgCallInfoDynamic      = 0x014a
	msgStartMediaAck        = 0x0154
	firstDynamicVersion     = 17 // the versions from which layouts differ
	firstWideAddressVersion = 17
	firstWideNumberVersion  = 18
)

// Call states of CallState. (reference/skinny.md, section 6.)
const (
	sccpOffHook   = 1
	sccpOnHook    = 2
	sccpRingOut   = 3
	sccpRingIn    = 4
	sccpConnected = 5
	sccpBusy      = 6
	sccpHold      = 8
	sccpProceed   = 12
)

// Soft keys of SoftKeyEvent. (reference/skinny.md names the message; the
// numbers are those of the SoftKeyTemplate that our own call manager sends.)
const (
	keyNewCall = 2
	keyHold    = 3
	keyEndCall = 9
	keyResume  = 10
	keyAnswer  = 11
)

// Tones of StartTone. (reference/skinny.md, section 6.)
const (
	toneInsideDial = 0x21
	toneLineBusy   = 0x23
	toneAlerting   = 0x24
	toneReorder    = 0x25
)

// A sccpMessage is one message; data is what follows the header.
type sccpMessage struct {
	version uint32
	id      uint32
	data    fields
}

// readSCCP reads one message.
func readSCCP(r io.Reader) (m sccpMessage, err error) {
	var h [sccpHeader]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return m, err
	}
	n := binary.LittleEndian.Uint32(h[:])
	if n < 4 || n > sccpMax-8 {
		return m, fmt.Errorf("lab: sccp message length %d", n)
	}
	m = sccpMessage{
		version: binary.LittleEndian.Uint32(h[4:]),
		id:      binary.LittleEndian.Uint32(h[8:]),
		data:    make(fields, n-4),
	}
	if _, err = io.ReadFull(r, m.data); err != nil {
		return m, fmt.Errorf("lab: sccp message 0x%04x of %d bytes: %w", m.id, n, err)
	}
	return m, nil
}

// bytes returns the message as it is sent.
func (m sccpMessage) bytes() []byte {
	b := make([]byte, sccpHeader, sccpHeader+len(m.data))
	binary.LittleEndian.PutUint32(b, uint32(len(m.data)+4))
	binary.LittleEndian.PutUint32(b[4:], m.version)
	binary.LittleEndian.PutUint32(b[8:], m.id)
	return append(b, m.data...)
}

// headerVersion is what goes into the header once version is agreed on.
// (reference/skinny.md, section 1: a v11 phone gets 0.)
func headerVersion(version byte) uint32 {
	if version < 12 {
		return 0
	}
	return uint32(version)
}

// fields is the data of a message, read and written by offset. Reading past
// the end gives zero, as in messages of older versions.
type fields []byte

func (f fields) u32(off int) uint32 {
	if off+4 > len(f) {
		return 0
	}
	return binary.LittleEndian.Uint32(f[off:])
}

func (f fields) put(off int, v uint32) { binary.LittleEndian.PutUint32(f[off:], v) }

func (f fields) addr4(off int) netip.Addr {
	if off+4 > len(f) {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(f[off:]))
}

func (f fields) putAddr4(off int, a netip.Addr) {
	if a.Is4() {
		b := a.As4()
		copy(f[off:], b[:])
	}
}

// text returns the string in the n bytes at off, up to its NUL.
func (f fields) text(off, n int) string {
	if off > len(f) {
		return ""
	}
	b := f[off:min(off+n, len(f))]
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// words returns data of 32-bit numbers.
func words(v ...uint32) fields {
	f := make(fields, 0, 4*len(v))
	for _, w := range v {
		f = binary.LittleEndian.AppendUint32(f, w)
	}
	return f
}

// transport is an address and port in one of the two forms: 4 bytes and a
// word, or from version 17 on a type, 16 bytes and a word.
func (f fields) transport(off int, version byte) netip.AddrPort {
	if version < firstWideAddressVersion {
		return netip.AddrPortFrom(f.addr4(off), uint16(f.u32(off+4)))
	}
	if f.u32(off) != 0 {
		return netip.AddrPort{} // not IPv4
	}
	return netip.AddrPortFrom(f.addr4(off+4), uint16(f.u32(off+20)))
}

func (f fields) putTransport(off int, version byte, a netip.AddrPort) {
	if version < firstWideAddressVersion {
		f.putAddr4(off, a.Addr())
		f.put(off+4, uint32(a.Port()))
		return
	}
	f.put(off, 0)
	f.putAddr4(off+4, a.Addr())
	f.put(off+20, uint32(a.Port()))
}

// keyAt reads the encryption information block at off. Version 5 and older
// have 40 bytes, later ones 48, in which MKI and derivation rate must be 0.
// (reference/skinny.md, section 3.)
func (f fields) keyAt(off int, version byte) (k mediaKey, err error) {
	if off+blockLen(version) > len(f) {
		return k, fmt.Errorf("encryption block at %d: data end at %d", off, len(f))
	}
	alg := f.u32(off)
	if alg == algNone {
		return k, nil
	}
	keyLen, saltLen := binary.LittleEndian.Uint16(f[off+4:]), binary.LittleEndian.Uint16(f[off+6:])
	switch {
	case alg != algAES32:
		return k, fmt.Errorf("encryption algorithm %d, a 7900 knows only 1", alg)
	case keyLen != keyLength || saltLen != saltBytes:
		return k, fmt.Errorf("key of %d bytes and salt of %d", keyLen, saltLen)
	case version > 5 && (f.u32(off+40) != 0 || f.u32(off+44) != 0):
		return k, fmt.Errorf("MKI %d and key derivation rate %d", f.u32(off+40), f.u32(off+44))
	}
	copy(k.master[:], f[off+8:])
	copy(k.salt[:], f[off+24:])
	if k == (mediaKey{}) {
		return k, fmt.Errorf("key of zeros")
	}
	return k, nil
}

func blockLen(version byte) int {
	if version <= 5 {
		return 40
	}
	return 48
}

// size picks the data length for a version from the layouts of section 4.
func size(version byte, upTo5, upTo11, upTo16, upTo21, later int) int {
	switch {
	case version <= 5:
		return upTo5
	case version <= 11:
		return upTo11
	case version <= 16:
		return upTo16
	case version <= 21:
		return upTo21
	}
	return later
}

// A channel is what OpenReceiveChannel and StartMediaTransmission say.
type channel struct {
	conf, pass, ref uint32
	codec           uint32
	addr            netip.AddrPort // source hint, or where to send
	key             mediaKey
}

// openReceive is OpenReceiveChannel. (Section 4.1.)
func (c channel) openReceive(version byte) fields {
	f := make(fields, size(version, 68, 92, 108, 128, 168))
	f.put(0, c.conf)
	f.put(4, c.pass)
	f.put(8, 20)
	f.put(12, c.codec)
	f.put(24, c.ref)
	if version > 5 {
		f.put(88, dtmfTypeValue)
	}
	if version >= 12 {
		f.putTransport(100, version, netip.AddrPortFrom(c.addr.Addr(), initialPort))
	}
	return f
}

func parseOpenReceive(f fields, version byte) (c channel, err error) {
	if want := size(version, 68, 92, 108, 128, 168); len(f) != want {
		return c, fmt.Errorf("OpenReceiveChannel of %d bytes, version %d has %d", len(f), version, want)
	}
	c = channel{conf: f.u32(0), pass: f.u32(4), codec: f.u32(12), ref: f.u32(24)}
	if version >= 12 {
		c.addr = f.transport(100, version)
	}
	c.key, err = f.keyAt(28, version)
	return c, err
}

// wide is how many bytes an address takes more from version 17 on.
func wide(version byte) int {
	if version >= firstWideAddressVersion {
		return 16
	}
	return 0
}

// startMedia is StartMediaTransmission. (Section 4.3.)
func (c channel) startMedia(version byte) fields {
	f := make(fields, size(version, 84, 108, 116, 132, 168))
	w := wide(version)
	f.put(0, c.conf)
	f.put(4, c.pass)
	f.putTransport(8, version, c.addr)
	f.put(16+w, 20)
	f.put(20+w, c.codec)
	f.put(24+w, precedenceEF)
	f.put(40+w, c.ref)
	if version > 5 {
		f.put(104+w, dtmfTypeValue)
	}
	return f
}

func parseStartMedia(f fields, version byte) (c channel, err error) {
	if want := size(version, 84, 108, 116, 132, 168); len(f) != want {
		return c, fmt.Errorf("StartMediaTransmission of %d bytes, version %d has %d", len(f), version, want)
	}
	w := wide(version)
	c = channel{
		conf: f.u32(0), pass: f.u32(4), addr: f.transport(8, version),
		codec: f.u32(20 + w), ref: f.u32(40 + w),
	}
	c.key, err = f.keyAt(44+w, version)
	return c, err
}

// openReceiveAck is OpenReceiveChannelAck. (Section 4.2.)
func (c channel) openReceiveAck(version byte) fields {
	w := wide(version)
	n := 20 + w
	if version <= 5 {
		n = 16
	}
	f := make(fields, n)
	f.putTransport(4, version, c.addr)
	f.put(12+w, c.pass)
	if version > 5 {
		f.put(16+w, c.ref)
	}
	return f
}

func parseOpenReceiveAck(f fields, version byte) (c channel, status uint32, err error) {
	w := wide(version)
	if want := 16 + w; len(f) < want || len(f) > want+4 {
		return c, 0, fmt.Errorf("OpenReceiveChannelAck of %d bytes in version %d", len(f), version)
	}
	return channel{addr: f.transport(4, version), pass: f.u32(12 + w), ref: f.u32(16 + w)}, f.u32(0), nil
}

// startMediaAck is StartMediaTransmissionAck. (Section 4.4.)
func (c channel) startMediaAck(version byte) fields {
	w := wide(version)
	f := make(fields, 24+w)
	f.put(0, c.conf)
	f.put(4, c.pass)
	f.put(8, c.ref)
	f.putTransport(12, version, c.addr)
	return f
}

// parseStartMediaAck returns the transmit socket that is acknowledged.
func parseStartMediaAck(f fields, version byte) (c channel, status uint32, err error) {
	w := wide(version)
	if len(f) != 24+w {
		return c, 0, fmt.Errorf("StartMediaTransmissionAck of %d bytes in version %d", len(f), version)
	}
	return channel{conf: f.u32(0), pass: f.u32(4), ref: f.u32(8), addr: f.transport(12, version)}, f.u32(20 + w), nil
}

// stopMedia is StopMediaTransmission and CloseReceiveChannel. (Section 4.5.)
func (c channel) stopMedia(version byte) fields {
	f := words(c.conf, c.pass, c.ref, 0)
	if version <= 5 {
		f = f[:12]
	}
	return f
}

// numberLen is how long a directory number is in fixed layouts.
func numberLen(version byte) int {
	if version >= firstWideNumberVersion {
		return 28 // 25, padded (reference/skinny.md, section 6)
	}
	return 24
}
