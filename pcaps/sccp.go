package pcaps

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A sccpForm is how one SCCP message is laid out; offsets are in the data of
// the forms before version 17, in which an address has 4 bytes. It is written
// from reference/skinny.md, sections 4 to 6, apart from inspect/skinny, which
// it is there to test.
type sccpForm struct {
	name   string
	id     uint32
	size   [5]int // bytes of data by family: CM 4, v11, v12 to v16, v17 to v21, v22
	early  bool   // the header has version 0 whatever was agreed on
	fields []sccpField
}

type sccpField struct {
	name string
	off  int
	kind byte // 'n' u32, 'b' u8, 's' text, 'i' address, 'a' address and port, 'p' address and port, from v12 on
	len  int  // of text, bytes
}

// wideVersion is the first in which an address has a type and 16 bytes.
const wideVersion = 17

func same(n int) [5]int { return [5]int{n, n, n, n, n} }

var (
	confParty = []sccpField{{"conf", 0, 'n', 0}, {"party", 4, 'n', 0}}
	stopForm  = append(confParty[:2:2], sccpField{"ref", 8, 'n', 0}, sccpField{"keep", 12, 'n', 0})
)

var sccpForms = []sccpForm{
	{name: "KeepAlive", id: 0x0000},
	{name: "Register", id: 0x0001, size: [5]int{52, 68, 124, 124, 124}, early: true, fields: []sccpField{
		{"name", 0, 's', 16}, {"instance", 20, 'n', 0}, {"ip", 24, 'i', 0}, {"type", 28, 'n', 0},
		{"streams", 32, 'n', 0}, {"version", 40, 'b', 0}, {"load", 92, 's', 32}}},
	{name: "KeypadButton", id: 0x0003, size: same(12), fields: []sccpField{{"button", 0, 'n', 0}, {"line", 4, 'n', 0}, {"ref", 8, 'n', 0}}},
	{name: "OffHook", id: 0x0006, size: same(8), fields: []sccpField{{"line", 0, 'n', 0}, {"ref", 4, 'n', 0}}},
	{name: "OnHook", id: 0x0007, size: same(8), fields: []sccpField{{"line", 0, 'n', 0}, {"ref", 4, 'n', 0}}},
	{name: "CapabilitiesRes", id: 0x0010, size: same(20), fields: []sccpField{{"count", 0, 'n', 0}, {"codec", 4, 'n', 0}, {"frames", 8, 'n', 0}}},
	{name: "Alarm", id: 0x0020, size: same(92), early: true, fields: []sccpField{{"severity", 0, 'n', 0}, {"text", 4, 's', 80}}},
	{name: "OpenReceiveChannelAck", id: 0x0022, size: [5]int{16, 20, 20, 36, 36}, fields: []sccpField{
		{"status", 0, 'n', 0}, {"addr", 4, 'a', 0}, {"party", 12, 'n', 0}, {"ref", 16, 'n', 0}}},
	{name: "SoftKeyEvent", id: 0x0026, size: same(12), fields: []sccpField{{"key", 0, 'n', 0}, {"line", 4, 'n', 0}, {"ref", 8, 'n', 0}}},
	{name: "Unregister", id: 0x0027, early: true},
	{name: "MediaTransmissionFailure", id: 0x002a, size: [5]int{20, 20, 20, 36, 36}, fields: append(confParty[:2:2],
		sccpField{"addr", 8, 'a', 0}, sccpField{"ref", 16, 'n', 0})},
	{name: "RegisterAck", id: 0x0081, size: same(20), early: true, fields: []sccpField{
		{"keepalive", 0, 'n', 0}, {"date", 4, 's', 6}, {"secondary", 12, 'n', 0}, {"version", 16, 'b', 0}}},
	{name: "StartTone", id: 0x0082, size: same(16), fields: []sccpField{{"tone", 0, 'n', 0}, {"direction", 4, 'n', 0}, {"line", 8, 'n', 0}, {"ref", 12, 'n', 0}}},
	{name: "StartMediaTransmission", id: 0x008a, size: [5]int{84, 108, 116, 132, 168}, fields: append(confParty[:2:2],
		sccpField{"addr", 8, 'a', 0}, sccpField{"ms", 16, 'n', 0}, sccpField{"codec", 20, 'n', 0},
		sccpField{"precedence", 24, 'n', 0}, sccpField{"ref", 40, 'n', 0}, sccpField{"dtmf", 104, 'n', 0})},
	{name: "StopMediaTransmission", id: 0x008b, size: [5]int{12, 16, 16, 16, 16}, fields: stopForm},
	{name: "ServerRes", id: 0x009e, size: [5]int{280, 280, 280, 360, 360}, fields: []sccpField{
		{"name", 0, 's', 48}, {"port", 240, 'n', 0}, {"ip", 260, 'i', 0}}},
	{name: "CapabilitiesReq", id: 0x009b, early: true},
	{name: "RegisterReject", id: 0x009d, size: same(33), early: true, fields: []sccpField{{"text", 0, 's', 33}}},
	{name: "Reset", id: 0x009f, size: same(4), fields: []sccpField{{"kind", 0, 'n', 0}}},
	{name: "KeepAliveAck", id: 0x0100, early: true},
	{name: "OpenReceiveChannel", id: 0x0105, size: [5]int{68, 92, 108, 128, 168}, fields: append(confParty[:2:2],
		sccpField{"ms", 8, 'n', 0}, sccpField{"codec", 12, 'n', 0}, sccpField{"ref", 24, 'n', 0},
		sccpField{"dtmf", 88, 'n', 0}, sccpField{"source", 100, 'p', 0})},
	{name: "CloseReceiveChannel", id: 0x0106, size: [5]int{12, 16, 16, 16, 16}, fields: stopForm},
	{name: "CallState", id: 0x0111, size: same(24), fields: []sccpField{{"state", 0, 'n', 0}, {"line", 4, 'n', 0}, {"ref", 8, 'n', 0}}},
	{name: "UnregisterAck", id: 0x0118, size: same(4), early: true, fields: []sccpField{{"status", 0, 'n', 0}}},
	{name: "StartMediaTransmissionAck", id: 0x0154, size: [5]int{24, 24, 24, 40, 40}, fields: append(confParty[:2:2],
		sccpField{"ref", 8, 'n', 0}, sccpField{"addr", 12, 'a', 0}, sccpField{"status", 20, 'n', 0})},
	{name: "RecordingStatus", id: 0x0160, size: same(8), fields: []sccpField{{"ref", 0, 'n', 0}, {"status", 4, 'n', 0}}},
}

// family returns the place of a version in sccpForm.size.
func family(version int) int {
	switch {
	case version <= 5:
		return 0
	case version <= 11:
		return 1
	case version <= 16:
		return 2
	case version <= 21:
		return 3
	}
	return 4
}

// at returns where a field stands in a version, and how many bytes it has.
func (f *sccpForm) at(x sccpField, version int) (off, n int) {
	off = x.off
	if version >= wideVersion {
		for _, y := range f.fields {
			if y.off < x.off && strings.IndexByte("iap", y.kind) >= 0 && f.id != 0x0001 {
				off += 16
			}
		}
	}
	n = 4
	wide := version >= wideVersion && f.id != 0x0001 // Register has a field of its own for IPv6
	switch {
	case x.kind == 'b':
		n = 1
	case x.kind == 's':
		n = x.len
	case x.kind == 'i' && wide:
		n = 20
	case (x.kind == 'a' || x.kind == 'p') && wide:
		n = 24
	case x.kind == 'a' || x.kind == 'p':
		n = 8
	}
	return off, n
}

// has reports whether a message of n bytes of data has the field.
func (f *sccpForm) has(x sccpField, version, n int) bool {
	off, size := f.at(x, version)
	return off+size <= n && (x.kind != 'p' || version >= 12)
}

func formNamed(name string) *sccpForm {
	for i := range sccpForms {
		if sccpForms[i].name == name {
			return &sccpForms[i]
		}
	}
	return nil
}

func formOf(id uint32) *sccpForm {
	for i := range sccpForms {
		if sccpForms[i].id == id {
			return &sccpForms[i]
		}
	}
	return nil
}

// makeSCCP makes a message of NAME=VALUE words. What no word names is 0.
func makeSCCP(name string, version int, words []string) ([]byte, error) {
	f := formNamed(name)
	if f == nil {
		return nil, fmt.Errorf("no SCCP message %q is known", name)
	}
	data := make([]byte, f.size[family(version)])
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		if err := f.set(data, version, key, value); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, w, err)
		}
	}
	header := uint32(version)
	if f.early || version < 12 {
		header = 0 // (reference/skinny.md, section 1)
	}
	return sccpFrame(header, f.id, data), nil
}

// sccpFrame puts a header before data.
func sccpFrame(version, id uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(data)+4))
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, id)
	return append(b, data...)
}

// set writes a field.
func (f *sccpForm) set(data []byte, version int, key, value string) error {
	for _, x := range f.fields {
		if x.name != key {
			continue
		}
		if !f.has(x, version, len(data)) {
			return fmt.Errorf("version %d has no such field", version)
		}
		off, n := f.at(x, version)
		b := data[off : off+n]
		switch x.kind {
		case 'n', 'b':
			v, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				return err
			}
			if x.kind == 'b' {
				b[0] = byte(v)
			} else {
				binary.LittleEndian.PutUint32(b, uint32(v))
			}
		case 's':
			if len(value) > n {
				return fmt.Errorf("longer than %d bytes", n)
			}
			copy(b, value)
		case 'i':
			a, err := netip.ParseAddr(value)
			if err != nil || !a.Is4() {
				return fmt.Errorf("no IPv4 address")
			}
			copy(b[max(n-16, 0):], a.AsSlice()) // behind its type, if it has one
		default:
			a, err := netip.ParseAddrPort(value)
			if err != nil || !a.Addr().Is4() {
				return fmt.Errorf("no IPv4 address and port")
			}
			if n == 24 {
				copy(b[4:], a.Addr().AsSlice())
			} else {
				copy(b, a.Addr().AsSlice())
			}
			binary.LittleEndian.PutUint32(b[n-4:], uint32(a.Port()))
		}
		return nil
	}
	return fmt.Errorf("no such field")
}

// get returns the text of a field, "" if it is zero or not there.
func (f *sccpForm) get(data []byte, version int, x sccpField) string {
	if !f.has(x, version, len(data)) {
		return ""
	}
	off, n := f.at(x, version)
	b := data[off : off+n]
	zero := true
	for _, c := range b {
		zero = zero && c == 0
	}
	if zero {
		return ""
	}
	switch x.kind {
	case 'n':
		return fmt.Sprint(binary.LittleEndian.Uint32(b))
	case 'b':
		return fmt.Sprint(b[0])
	case 's':
		text, _, _ := strings.Cut(string(b), "\x00")
		return strconv.Quote(text)
	}
	ip, kind := b, ""
	if n >= 20 {
		if t := binary.LittleEndian.Uint32(b); t != 0 {
			kind = fmt.Sprintf("(type %d)", t)
		}
		ip = b[4:]
	}
	addr := netip.AddrFrom4([4]byte(ip))
	if x.kind == 'i' {
		return addr.String() + kind
	}
	return netip.AddrPortFrom(addr, uint16(binary.LittleEndian.Uint32(b[n-4:]))).String() + kind
}

// sccpText returns a message as words, and where it became another what a
// field was.
func sccpText(msg []byte, version int, was []byte) string {
	id := binary.LittleEndian.Uint32(msg[8:])
	f := formOf(id)
	if f == nil {
		return fmt.Sprintf("message 0x%04x v%d %s", id, binary.LittleEndian.Uint32(msg[4:]), hex.EncodeToString(msg[12:]))
	}
	s := fmt.Sprintf("%s v%d of %d bytes", f.name, binary.LittleEndian.Uint32(msg[4:]), len(msg)-12)
	for _, x := range f.fields {
		v := f.get(msg[12:], version, x)
		before := v
		if was != nil {
			before = f.get(was[12:], version, x)
		}
		if v != "" || before != "" {
			s += fmt.Sprintf(" %s=%s", x.name, v)
		}
		if before != v {
			s += fmt.Sprintf(" (was %s)", before)
		}
	}
	return s
}

// sccpSame reports whether a and b, of one ID and length, are about the same
// call and party.
func sccpSame(a, b []byte) bool {
	f := formOf(binary.LittleEndian.Uint32(a[8:]))
	if f == nil {
		return true
	}
	version := int(binary.LittleEndian.Uint32(a[4:]))
	for _, x := range f.fields {
		if x.kind == 'n' && f.get(a[12:], version, x) != f.get(b[12:], version, x) {
			return false
		}
	}
	return true
}
