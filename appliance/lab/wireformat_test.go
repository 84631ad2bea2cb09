package lab

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Frames of reference/skinny.md, section 10.
var (
	goldenOpenReceive = "84000000 11000000 05010000 ecbc6801 07000001 14000000 04000000 00000000 00000000 ecbc6801" +
		strings.Repeat("00", 48) +
		"00000000 00000000 00000000 0a000000 00000000 00000000 00000000 c0a8092c 00000000 00000000 00000000 a00f0000 00000000"
	goldenOpenReceiveAck = "28000000 14000000 22000000 00000000 00000000 c0a8c33a 000000000000000000000000 907d0000 4f000001 4a362e01"
	goldenStartMedia4    = "58000000 00000000 8a000000 1f000001 01010001 0a66db1b 1aeb0000 14000000 04000000 b8000000" +
		"00000000 00000000 00000000 1f000001" + strings.Repeat("00", 40)
)

func TestGoldenSCCP(t *testing.T) {
	read := func(s string) sccpMessage {
		m, err := readSCCP(bytes.NewReader(fromHex(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(m.bytes()); got != strings.ReplaceAll(s, " ", "") {
			t.Errorf("comes back as %s", got)
		}
		return m
	}
	m := read(goldenOpenReceive)
	c, err := parseOpenReceive(m.data, 17)
	must(t, err)
	want := channel{conf: 0x0168bcec, pass: 0x01000007, ref: 0x0168bcec, codec: codecPCMU, addr: netip.MustParseAddrPort("192.168.9.44:4000")}
	if c != want {
		t.Errorf("OpenReceiveChannel %+v, want %+v", c, want)
	}
	if got := c.openReceive(17); !bytes.Equal(got, m.data) {
		t.Errorf("our OpenReceiveChannel differs:\n%s", cmp.Diff([]byte(m.data), []byte(got)))
	}
	for version := byte(12); version <= 22; version++ {
		if _, err := parseOpenReceive(m.data, version); (err == nil) != (version >= 17 && version <= 21) {
			t.Errorf("as version %d: %v", version, err)
		}
	}

	m = read(goldenOpenReceiveAck)
	c, status, err := parseOpenReceiveAck(m.data, 20)
	must(t, err)
	want = channel{pass: 0x0100004f, ref: 0x012e364a, addr: netip.MustParseAddrPort("192.168.195.58:32144")}
	if c != want || status != 0 {
		t.Errorf("OpenReceiveChannelAck %+v, status %d; want %+v", c, status, want)
	}
	if got := c.openReceiveAck(20); !bytes.Equal(got, m.data) {
		t.Errorf("our OpenReceiveChannelAck differs: % x", got)
	}

	m = read(goldenStartMedia4)
	c, err = parseStartMedia(m.data, 5)
	must(t, err)
	want = channel{conf: 0x0100001f, pass: 0x01000101, ref: 0x0100001f, codec: codecPCMU, addr: netip.MustParseAddrPort("10.102.219.27:60186")}
	if c != want {
		t.Errorf("StartMediaTransmission %+v, want %+v", c, want)
	}
	if got := c.startMedia(5); !bytes.Equal(got, m.data) {
		t.Errorf("our StartMediaTransmission differs:\n%s", cmp.Diff([]byte(m.data), []byte(got)))
	}
}

func TestSCCPLengths(t *testing.T) {
	// Length fields of reference/skinny.md, section 4.
	for _, tt := range []struct {
		version                        byte
		open, openAck, start, startAck int
	}{
		{5, 0x48, 0x14, 0x58, 0x1c},
		{11, 0x60, 0x18, 0x70, 0x1c},
		{15, 0x70, 0x18, 0x78, 0x1c},
		{17, 0x84, 0x28, 0x88, 0x2c},
		{20, 0x84, 0x28, 0x88, 0x2c},
		{22, 0xac, 0x28, 0xac, 0x2c},
	} {
		c := channel{conf: 1, pass: 2, ref: 3, codec: codecPCMU, addr: netip.MustParseAddrPort("10.20.0.50:20000")}
		got := []int{len(c.openReceive(tt.version)), len(c.openReceiveAck(tt.version)), len(c.startMedia(tt.version)), len(c.startMediaAck(tt.version))}
		for i := range got {
			got[i] += 4
		}
		if want := []int{tt.open, tt.openAck, tt.start, tt.startAck}; !cmp.Equal(got, want) {
			t.Errorf("version %d: lengths %x, want %x", tt.version, got, want)
		}
		if back, err := parseStartMedia(c.startMedia(tt.version), tt.version); err != nil || back != c {
			t.Errorf("version %d: StartMediaTransmission comes back as %+v, %v", tt.version, back, err)
		}
		back, _, err := parseStartMediaAck(c.startMediaAck(tt.version), tt.version)
		back.codec = c.codec
		if err != nil || back != c {
			t.Errorf("version %d: StartMediaTransmissionAck comes back as %+v, %v", tt.version, back, err)
		}
	}
}

func TestKeyAtRefuses(t *testing.T) {
	good := append(fields(block(mediaKey{master: [16]byte{1}, salt: [14]byte{2}})), make(fields, 10)...)
	edit := func(off int, v byte) fields {
		f := bytes.Clone(good)
		f[off] = v
		return f
	}
	for name, f := range map[string]fields{
		"algorithm 80":       edit(0, algAES80),
		"key of 15 bytes":    edit(4, 15),
		"salt of 16 bytes":   edit(6, 16),
		"MKI":                edit(40, 1),
		"key derivation":     edit(44, 1),
		"cut":                good[:47],
		"key of zeros":       edit(8, 0)[:0:0],
		"algorithm unknown":  edit(1, 1),
		"block of old phone": good[:40],
	} {
		if _, err := f.keyAt(0, 19); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := good[:40].keyAt(0, 5); err != nil {
		t.Errorf("block of 40 bytes in version 5: %v", err)
	}
}

func FuzzReadSCCP(f *testing.F) {
	for _, s := range []string{goldenOpenReceive, goldenOpenReceiveAck, goldenStartMedia4, "ffffffff 00000000 00000000"} {
		f.Add(fromHex(f, s), byte(17))
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		m, err := readSCCP(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, m.bytes()) {
			t.Error("message comes back changed")
		}
		parseOpenReceive(m.data, version)
		parseOpenReceiveAck(m.data, version)
		parseStartMedia(m.data, version)
		parseStartMediaAck(m.data, version)
		m.data.text(40, 24)
	})
}

const sampleInvite = "\r\n\r\nINVITE sip:4101@10.20.0.11 SIP/2.0\r\n" +
	"v: SIP/2.0/TCP 10.20.0.50:51234;branch=z9hG4bKa;x=\"a;b\"\r\n" +
	"f: \"A; B\" <sip:4001@10.20.0.11;user=phone>;tag=1234\r\nTo: <sip:4101@10.20.0.11>\r\n" +
	"i: abc@10.20.0.50\r\nCSeq: 101 INVITE\r\nSubject: first\r\n  second\r\nm: sip:4001@10.20.0.50:51234;transport=tcp\r\n" +
	"c: application/sdp\r\nl: 4\r\n\r\nv=0\nNEXT"

func TestReadSIP(t *testing.T) {
	r := bufio.NewReader(strings.NewReader(sampleInvite))
	m, err := readSIP(r)
	must(t, err)
	n, method := m.cseq()
	user, at, _, params := splitURI(headerURI(m.get("Contact")))
	transport, sentBy := viaSentBy(m.get("Via"))
	got := []any{m.method(), m.uri(), n, method, user, at.String(), params, transport, sentBy,
		headerParam(m.get("From"), "tag"), headerURI(m.get("From")), m.get("call-id"), m.get("Subject"), string(m.body)}
	want := []any{"INVITE", "sip:4101@10.20.0.11", 101, "INVITE", "4001", "10.20.0.50:51234", "", "TCP", "10.20.0.50:51234",
		"1234", "sip:4001@10.20.0.11;user=phone", "abc@10.20.0.50", "first second", "v=0\n"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	rest, _ := r.ReadString(0)
	if rest != "NEXT" {
		t.Errorf("left in the stream: %q", rest)
	}
	resp := m.reply(200, "OK", "77")
	if resp.status() != 200 || !resp.isResponse() || resp.get("To") != "<sip:4101@10.20.0.11>;tag=77" || resp.get("Via") != m.get("Via") {
		t.Errorf("reply %q", resp.bytes())
	}
	again, err := readSIP(bufio.NewReader(bytes.NewReader(resp.bytes())))
	must(t, err)
	if d := cmp.Diff(resp.header, again.header[:len(resp.header)], cmp.AllowUnexported(sipField{})); d != "" {
		t.Errorf("reply comes back changed:\n%s", d)
	}
	for _, bad := range []string{
		"INVITE\r\n\r\n", "INVITE a SIP/2.0\r\nno colon\r\n\r\n", "A b SIP/2.0\r\nl: -1\r\n\r\n",
		"A b SIP/2.0\r\nl: 5\r\n\r\nabc", "A b SIP/2.0\r\nl: 999999\r\n\r\n", "A b SIP/2.0\r\n",
	} {
		if m, err := readSIP(bufio.NewReader(strings.NewReader(bad))); err == nil {
			t.Errorf("%q is read as %+v", bad, m)
		}
	}
}

func TestParseSDP(t *testing.T) {
	const inline = "inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm"
	tests := []struct {
		name, body string
		want       *sdp // nil: an error
	}{
		{"media c= wins", "v=0\no=x 1 1 IN IP4 1.1.1.1\nc=IN IP4 10.0.0.1\nm=audio 20000 RTP/AVP 0\nc=IN IP4 10.0.0.2\na=sendonly\n",
			&sdp{addr: netip.MustParseAddrPort("10.0.0.2:20000"), proto: "RTP/AVP", dir: "sendonly", origin: "x"}},
		{"session c= and direction", "v=0\r\nc=IN IP4 10.0.0.1\r\na=inactive\r\nm=audio 4 RTP/AVP 0\r\n",
			&sdp{addr: netip.MustParseAddrPort("10.0.0.1:4"), proto: "RTP/AVP", dir: "inactive"}},
		{"crypto", "c=IN IP4 10.0.0.1\nm=audio 4 RTP/SAVP 0\na=crypto:3 AES_CM_128_HMAC_SHA1_32 " + inline + "\n",
			&sdp{addr: netip.MustParseAddrPort("10.0.0.1:4"), proto: "RTP/SAVP", dir: "sendrecv",
				crypto: []sdpCrypto{{"3", suite32, goldenKey(t)}}}},
		{"video after audio", "c=IN IP4 10.0.0.1\nm=audio 4 RTP/AVP 0\nm=video 6 RTP/AVP 97\nc=IN IP4 9.9.9.9\na=recvonly\n",
			&sdp{addr: netip.MustParseAddrPort("10.0.0.1:4"), proto: "RTP/AVP", dir: "sendrecv", video: true}},
		{"lifetime in the key", "c=IN IP4 10.0.0.1\nm=audio 4 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 " + inline + "|2^31\n", nil},
		{"no c=", "m=audio 4 RTP/AVP 0\n", nil},
		{"no audio", "c=IN IP4 10.0.0.1\nm=video 4 RTP/AVP 0\n", nil},
		{"port", "c=IN IP4 10.0.0.1\nm=audio 70000 RTP/AVP 0\n", nil},
		{"line", "hello\n", nil},
	}
	for _, tt := range tests {
		got, err := parseSDP([]byte(tt.body))
		if (err == nil) != (tt.want != nil) {
			t.Errorf("%s: error %v", tt.name, err)
			continue
		}
		if d := cmp.Diff(tt.want, got, cmp.AllowUnexported(sdp{}, sdpCrypto{}, mediaKey{}), cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
		if err != nil && strings.Contains(err.Error(), "4fl6") {
			t.Errorf("%s: the error shows a key", tt.name)
		}
	}
}

func FuzzReadSIP(f *testing.F) {
	f.Add([]byte(sampleInvite))
	f.Add(LyingSIP(10, 4))
	f.Add(append(LyingSIP(30, 0), "c=IN IP4 10.0.0.1\r\nm=audio 4 R 0"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readSIP(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		m.cseq()
		m.status()
		transaction(m)
		for _, h := range m.header {
			splitURI(headerURI(h.value))
			headerParam(h.value, "tag")
			viaSentBy(h.value)
		}
		parseSDP(m.body)
		if _, err := readSIP(bufio.NewReaderSize(bytes.NewReader(m.bytes()), sipMaxHeader)); err != nil {
			t.Errorf("%q does not come back: %v", m.bytes(), err)
		}
	})
}
