package pcaps_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"patchbay/pcaps"
)

func TestParseHosts(t *testing.T) {
	files := fstest.MapFS{"a.sip": {Data: []byte("OPTIONS sip:b SIP/2.0\nContent-Length: auto\n\nbody\n")}}
	const hosts = "0 host a inside udp 10.20.0.50:5060\n0 host b outside tcp 192.0.2.5:5060\n0 host p inside sccp 10.20.0.60:50000 v17\n"
	for _, good := range []string{
		"1 a INVITE > b@192.0.2.5 sdp 20000 rtcp 20005 line \"a=sendonly\" c 0.0.0.0",
		"1 a INVITE > {reg.target} call x with \"From: a\" add \"X: y\" less To cut 160 order 2,1 ttl 3",
		"1 b 200 INVITE sdp 10.20.0.1:30000 tag x", "1 b 183", "1 b again cut 1", "1 b close", "1 b reset on 1",
		"1 a send @a.sip > 192.0.2.5:5060", "1 a rtp repeat 3 every 0.02", "1 b rtcp call 2",
		"1 p connect 192.0.2.11:2000", "1 p sccp Register name=SEP1 version=17 at 5,9 join quiet", "1 p send hex:00 first 1",
	} {
		if _, err := pcaps.ParseSteps(strings.NewReader(hosts+good), files); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"1 host a inside udp 10.20.0.1:5060", "1 host c inside sctp 10.20.0.1:1", "1 host c inside udp 10.20.0.1",
		"1 host p2 inside sccp 10.20.0.1:1", "1 a", "1 a 99", "1 a 700", "1 a invite", "1 a connect 192.0.2.5:5060", "1 a close",
		"1 b line \"a\"", "1 b 200 line \"a=x\"", "1 b 200 with nothing", "1 b 200 sideways", "1 a INVITE cut 5", "1 b 200 at 0",
		"1 p INVITE > b@192.0.2.5", "1 p rtp", "1 b sccp Register", "1 a send 5", "1 a send @none.sip", "1 a send hex:0",
	} {
		if _, err := pcaps.ParseSteps(strings.NewReader(hosts+bad), files); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if _, err := pcaps.ParseSteps(strings.NewReader(hosts+"1 a send @a.sip"), nil); err == nil {
		t.Error("a file without a folder: no error")
	}
}

// A list that asks what cannot be is refused when it is played.
func TestHostErrors(t *testing.T) {
	config, err := os.ReadFile(filepath.Join("sip-call", pcaps.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	const a, b, p = "0 host a inside udp 10.20.0.50:5060\n", "0 host b inside tcp 10.20.0.50:5060\n", "0 host p inside sccp 10.20.0.60:50000 v4\n"
	for list, want := range map[string]string{
		"0 host a nowhere udp 10.20.0.50:5060\n":                   `no interface "nowhere"`,
		a + "1 a 200\n":                                            "got no",
		a + "1 a BYE\n":                                            "nobody to send it to",
		a + "1 a INVITE > b@nowhere\n":                             "no user and address",
		a + "1 a rtp\n":                                            "does not know",
		a + "1 a again\n":                                          "no address",
		b + "1 b close\n":                                          "no connection",
		b + "1 b OPTIONS > c@192.0.2.5\n":                          "not open",
		p + "1 p sccp Nothing\n":                                   "no SCCP message",
		p + "1 p sccp OffHook hook=1\n":                            "no such field",
		p + "1 p sccp OpenReceiveChannelAck ref=1\n":               "version 4 has no such field",
		p + "1 p sccp OpenReceiveChannelAck addr=10.20.0.60\n":     "no IPv4 address and port",
		p + "1 p sccp Register name=SEP001122334455667788990011\n": "longer than 16 bytes",
		p + "1 p sccp OffHook line=many\n":                         "invalid syntax",
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{pcaps.ConfigFile: string(config), pcaps.StepsFile: list} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err := pcaps.Run(dir, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want %q", list, err, want)
		}
	}
}

// The messages that lists are written with are those of the captures in
// reference/skinny.md, section 10.
func TestMakeSCCP(t *testing.T) {
	tests := []struct {
		name, fields string
		version      int
		want         string
	}{
		{"OpenReceiveChannel", "conf=23641324 party=16777223 ms=20 codec=4 ref=23641324 dtmf=10 source=192.168.9.44:4000", 17,
			"84000000 11000000 05010000 ecbc6801 07000001 14000000 04000000 00000000 00000000 ecbc6801" + strings.Repeat("00", 48) +
				"00000000 00000000 00000000 0a000000 00000000 00000000 00000000 c0a8092c 00000000 00000000 00000000 a00f0000 00000000"},
		{"OpenReceiveChannelAck", "addr=192.168.195.58:32144 party=16777295 ref=19805770", 20,
			"28000000 14000000 22000000 00000000 00000000 c0a8c33a 00000000 00000000 00000000 907d0000 4f000001 4a362e01"},
		{"StartMediaTransmission", "conf=16777247 party=16777473 addr=10.102.219.27:60186 ms=20 codec=4 precedence=184 ref=16777247", 4,
			"58000000 00000000 8a000000 1f000001 01010001 0a66db1b 1aeb0000 14000000 04000000 b8000000 00000000 00000000 00000000 1f000001" + strings.Repeat("00", 40)},
		{"StopMediaTransmission", "conf=1 party=2 ref=3", 11, "14000000 00000000 8b000000 01000000 02000000 03000000 00000000"},
		{"KeepAlive", "", 17, "04000000 11000000 00000000"},
		{"RegisterAck", "keepalive=30 date=D/M/Y secondary=60 version=17", 17,
			"18000000 00000000 81000000 1e000000 442f4d2f 59000000 3c000000 11000000"},
	}
	for _, tt := range tests {
		got, err := pcaps.MakeSCCP(tt.name, tt.version, strings.Fields(tt.fields))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if want := strings.ReplaceAll(tt.want, " ", ""); hex.EncodeToString(got) != want {
			t.Errorf("%s:\n got %x\nwant %s", tt.name, got, want)
		}
	}
}
