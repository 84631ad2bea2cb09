package skinny_test

import (
	"fmt"
	"net/netip"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

// relay is a Binder with one media termination address on each side.
type relay struct{}

func (relay) Self(nat.End) netip.AddrPort                          { return netip.MustParseAddrPort("10.20.0.5:49152") }
func (relay) Signal(a netip.AddrPort, from nat.End) netip.AddrPort { return a }
func (relay) Release(call, stream string)                          {}
func (relay) Seen(device string) error                             { return nil }

func (relay) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	fmt.Printf("call %s, stream %s: %v is at %v\n", m.Call, m.Stream, from, m.Addr)
	m.Addr = netip.MustParseAddrPort("203.0.113.20:20000")
	return m, nil
}

func Example() {
	// The call manager has the phone send to 10.20.0.77, port 30000.
	msg := make([]byte, 12+132)
	copy(msg, []byte{136, 0, 0, 0, 17, 0, 0, 0, 0x8a})
	copy(msg[12:], []byte{7, 0, 0, 0, 9, 0, 0, 0})
	copy(msg[24:], []byte{10, 20, 0, 77})
	copy(msg[40:], []byte{0x30, 0x75})

	engine := skinny.Engine{}
	session := engine.NewSession(relay{})
	defer session.Close()

	_, token, err := engine.Split(msg, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	out, err := session.Inspect(nil, token, nat.Server)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(skinny.Message(out))
	fmt.Println("the phone sends to", out[24:28], "port", int(out[40])|int(out[41])<<8)
	// Output:
	// call 7, stream 9: server is at 10.20.0.77:30000
	// StartMediaTransmission (0x008a), version 17, 132 bytes of data
	// the phone sends to [203 0 113 20] port 20000
}
