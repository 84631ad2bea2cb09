package lab

import (
	"strings"
	"testing"
)

func TestExposure(t *testing.T) {
	var f [frameLen]byte
	(&tone{hz: 800}).next(&f)
	plain := append([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4}, f[:]...)
	c, err := goldenKey(t).context()
	must(t, err)
	secret, err := c.EncryptRTP(nil, plain, nil)
	must(t, err)
	register := sccpMessage{id: msgRegister, data: append(fields("SEP020000000001"), make(fields, 53)...)}.bytes()
	const src, dst = "198.51.100.7:20000", "203.0.113.20:30000"
	tests := []struct {
		name    string
		proto   uint8
		payload string
		want    string
	}{
		{"rtp", protoUDP, string(plain), "a tone of 800 Hz from 198.51.100.7 to 203.0.113.20, 1 packets"},
		{"srtp", protoUDP, string(secret), ""},
		{"sip", protoTCP, "OPTIONS sip:a SIP/2.0\r\n", "SIP from 198.51.100.7 to 203.0.113.20, 1 packets"},
		{"sccp", protoTCP, string(register), "SCCP from 198.51.100.7 to 203.0.113.20, 1 packets"},
		{"tls", protoTCP, string(oldClientHello()), ""},
		{"ping", protoICMP, string(plain), ""},
	}
	for _, tt := range tests {
		e := exposure{found: make(map[string]int)}
		e.watch(packet(t, tt.proto, src, dst, tt.payload))
		if got := strings.Join(e.list(), "; "); got != tt.want {
			t.Errorf("%s: exposed %q, want %q", tt.name, got, tt.want)
		}
	}
}
