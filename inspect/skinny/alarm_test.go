package skinny_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

// A natBox translates 10.20.0.0/24 as plain inspection does.
type natBox struct{ *box }

func (natBox) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort {
	if netip.MustParsePrefix("10.20.0.0/24").Contains(a.Addr()) {
		return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.200"), a.Port())
	}
	return a
}

func (b natBox) Reach(a netip.AddrPort, from nat.End, _ inspect.Why, _ string, _ time.Duration) netip.AddrPort {
	return b.Signal(a, from)
}

// The text of an alarm names no host of the phone's side; its size stays.
func TestAlarm(t *testing.T) {
	message := func(id byte, before int, text string, size int) []byte {
		m := make([]byte, 12+size)
		m[0], m[1], m[8] = byte((len(m)-8)%256), byte((len(m)-8)/256), id
		if id == 0x5a {
			m[9] = 1
		}
		copy(m[12+before:], text)
		return m
	}
	xml := `<String name="DeviceIPv4Address">10.20.0.5/24</String><String name="Load">SCCP70.9-2-3S</String><String name="UnifiedCMIPAddress">192.0.2.5</String>`
	tests := []struct {
		name   string
		id     byte
		before int
		size   int
		text   string
		want   string
	}{
		{"XMLAlarm", 0x5a, 0, 2000, xml, strings.Replace(xml, "10.20.0.5/", "203.0.113.200/", 1)},
		{"XMLAlarm without room", 0x5a, 0, 20, "at 10.20.0.5, ends.", "at 0.0.0.0, ends."},
		{"XMLAlarm that is full", 0x5a, 0, 9, "10.20.0.5", "0.0.0.0"},
		{"Alarm", 0x20, 4, 92, "25: Name=SEP1 Last=10.20.0.5. 1.2.3", "25: Name=SEP1 Last=203.0.113.200. 1.2.3"},
		{"Alarm of another layout", 0x20, 4, 60, "Last=10.20.0.5", "Last=10.20.0.5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, want := message(tt.id, tt.before, tt.text, tt.size), message(tt.id, tt.before, tt.want, tt.size)
			got, err := skinny.Engine{}.NewSession(natBox{&box{}}).Inspect(nil, in, nat.Client)
			if err != nil || string(got) != string(want) {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
			// The proxy leaves it.
			if got, err = (skinny.Engine{}).NewSession(&box{}).Inspect(nil, in, nat.Client); err != nil || string(got) != string(in) {
				t.Errorf("with the proxy %q, %v", got, err)
			}
		})
	}
}
