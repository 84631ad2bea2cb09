package sdp

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"patchbay/inspect"
)

// vector is the key of reference/srtp-keying.md, section 7.
func vector(suite inspect.Suite) inspect.Key {
	k := inspect.Key{Suite: suite}
	hex.Decode(k.Master[:], []byte("E1F97A0D3E018BE0D64FA32C06DE4139"))
	hex.Decode(k.Salt[:], []byte("0EC675AD498AFEEBB6960B3AABE6"))
	return k
}

const vectorInline = "inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm"

func TestCrypto(t *testing.T) {
	const s32, s80 = inspect.AES_CM_128_SHA1_32, inspect.AES_CM_128_SHA1_80
	const line32 = "1 AES_CM_128_HMAC_SHA1_32 " + vectorInline
	tests := []struct {
		value string // behind "a=crypto:"
		tag   string
		suite inspect.Suite // NoSuite when the line is not for us
		mki   int
	}{
		{line32, "1", s32, 0},
		{"7 AES_CM_128_HMAC_SHA1_80 " + vectorInline, "7", s80, 0},
		{line32 + "|2^48", "1", s32, 0},
		{line32 + "|1:4", "1", s32, 4},
		{line32 + "|2^20|1:4", "1", s32, 4},
		{line32 + " WSH=64 -X=1 KDR=0", "1", s32, 0},
		{line32 + " UNENCRYPTED_SRTP", "1", 0, 0},
		{line32 + " KDR=24", "1", 0, 0},
		{line32 + " FEC_ORDER=SRTP_FEC", "1", 0, 0},
		{line32 + ";" + vectorInline, "1", 0, 0},
		{line32 + "|2^20;" + vectorInline, "1", 0, 0},
		{line32 + "AAAA", "1", 0, 0},
		{line32 + "|", "1", 0, 0},
		{line32 + "|1:0", "1", 0, 0},
		{line32 + "|1:129", "1", 0, 129},
		{line32 + "|1|2|3", "1", 0, 0},
		{"1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqv=", "1", 0, 0},
		{"1 AES_CM_128_HMAC_SHA1_32 inline:short", "1", 0, 0},
		{"1 AES_CM_128_HMAC_SHA1_32 uri:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvmxxxxxx", "1", 0, 0},
		{"1 AES_256_CM_HMAC_SHA1_80 " + vectorInline, "1", 0, 0},
		{"x AES_CM_128_HMAC_SHA1_32 " + vectorInline, "x", 0, 0},
		{"1234567890 AES_CM_128_HMAC_SHA1_32 " + vectorInline, "1234567890", 0, 0},
		{"1", "1", 0, 0},
		{"", "", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			body := "m=audio 4000 RTP/SAVP 0\r\na=crypto:" + tt.value + "\r\n"
			var d Description
			if err := Parse([]byte(body), &d); err != nil {
				t.Fatal(err)
			}
			c := d.Media[0].Crypto[0]
			var want inspect.Key
			if tt.suite != inspect.NoSuite {
				want = vector(tt.suite)
			}
			if string(c.Tag) != tt.tag || c.Key != want || (c.MKI != tt.mki && tt.suite != 0) {
				t.Errorf("a=crypto:%s: tag %q, key of %v (right: %v), MKI %d; want %q, %v, %d",
					tt.value, c.Tag, c.Key.Suite, c.Key == want, c.MKI, tt.tag, tt.suite, tt.mki)
			}
			if got, want := c.Usable(), tt.suite != 0 && tt.mki == 0; got != want {
				t.Errorf("Usable = %v, want %v", got, want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	body := "m=audio 4000 RTP/SAVP 0\n" +
		"a=crypto:1 AES_256_CM_HMAC_SHA1_80 " + vectorInline + "\n" +
		"a=crypto:2 AES_CM_128_HMAC_SHA1_80 " + vectorInline + "|1:4\n" +
		"a=crypto:3 AES_CM_128_HMAC_SHA1_80 " + vectorInline + "\n" +
		"a=crypto:4 AES_CM_128_HMAC_SHA1_32 " + vectorInline + "\n" +
		"m=audio 4002 RTP/AVP 0\n"
	var d Description
	if err := Parse([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	if c := d.Media[0].Choose(); c == nil || string(c.Tag) != "3" {
		t.Errorf("Choose = %v, want tag 3", c)
	}
	if c := d.Media[1].Choose(); c != nil {
		t.Errorf("Choose without a=crypto = %v, want nil", c)
	}
}

func TestAppendCrypto(t *testing.T) {
	got := string(AppendCrypto([]byte("x"), "3", vector(inspect.AES_CM_128_SHA1_32)))
	if want := "xa=crypto:3 AES_CM_128_HMAC_SHA1_32 " + vectorInline; got != want {
		t.Errorf("AppendCrypto = %q, want %q", got, want)
	}
	if got := AppendCrypto(nil, "1", inspect.Key{}); len(got) != 0 {
		t.Errorf("AppendCrypto of no key = %q, want nothing", got)
	}
}

func TestAppendAddress(t *testing.T) {
	for _, tt := range [][2]string{
		{"198.51.100.7", "IP4 198.51.100.7"},
		{"::ffff:198.51.100.7", "IP4 198.51.100.7"},
		{"2001:db8::7", "IP6 2001:db8::7"},
	} {
		if got := string(AppendAddress(nil, netip.MustParseAddr(tt[0]))); got != tt[1] {
			t.Errorf("AppendAddress(%s) = %q, want %q", tt[0], got, tt[1])
		}
	}
}

func BenchmarkParse(b *testing.B) {
	body := []byte(phoneOffer)
	var d Description
	b.ReportAllocs()
	for b.Loop() {
		if err := Parse(body, &d); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleParse() {
	body := []byte("v=0\r\nc=IN IP4 10.20.0.11\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n")
	var d Description
	if err := Parse(body, &d); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range d.Media {
		fmt.Printf("%s at %v port %d, %s, %v\n", m.Kind, d.Address(&m), m.Port, m.Proto.Of(body), m.Direction)
	}
	// Output: audio at 10.20.0.11 port 4000, RTP/AVP, sendonly
}
