package sdp

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
)

const phoneOffer = "v=0\r\n" +
	"o=Cisco-SIPUA 25841 0 IN IP4 198.51.100.7\r\n" +
	"s=SIP Call\r\n" +
	"t=0 0\r\n" +
	"m=audio 24586 RTP/SAVP 0 8 18 102 9 116 101\r\n" +
	"c=IN IP4 198.51.100.7\r\n" +
	"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\r\n" +
	"a=rtpmap:0 PCMU/8000\r\n" +
	"a=sendrecv\r\n"

// seen is what a test compares of a Description: text instead of offsets.
type seen struct {
	Origin, Conn, Direction string
	Addr                    netip.Addr
	Media                   []seenMedia
}

type seenMedia struct {
	Kind, Ports, Proto, Conn, RTCP, RTCPAddr, Direction string
	Port                                                uint16
	Addr                                                netip.Addr
	Crypto                                              []string // tag, suite, usable
}

func look(d *Description, body []byte) seen {
	text := func(s inspect.Span) string { return string(s.Of(body)) }
	address := func(a *Address) string {
		if !a.Present() {
			return ""
		}
		return text(a.Family) + " " + text(a.Text)
	}
	s := seen{Origin: address(&d.Origin), Conn: address(&d.Conn), Direction: d.Direction.String(), Addr: d.Conn.Addr}
	for i := range d.Media {
		m := &d.Media[i]
		sm := seenMedia{
			Kind: string(m.Kind), Ports: text(m.Ports), Proto: text(m.Proto), Conn: address(&m.Conn),
			RTCP: text(m.RTCP.Text), RTCPAddr: address(&m.RTCP.Address), Direction: m.Direction.String(),
			Port: m.Port, Addr: d.Address(m),
		}
		for _, c := range m.Crypto {
			usable := " skipped"
			if c.Usable() {
				usable = " usable"
			}
			sm.Crypto = append(sm.Crypto, string(c.Tag)+" "+c.Key.Suite.String()+usable)
		}
		s.Media = append(s.Media, sm)
	}
	return s
}

func TestParse(t *testing.T) {
	addr := netip.MustParseAddr
	tests := []struct {
		name, body string
		want       seen
	}{
		{"empty", "", seen{}},
		{"phone", phoneOffer, seen{
			Origin: "IP4 198.51.100.7",
			Media: []seenMedia{{
				Kind: "audio", Ports: "24586", Port: 24586, Proto: "RTP/SAVP", Conn: "IP4 198.51.100.7",
				Direction: "sendrecv", Addr: addr("198.51.100.7"),
				Crypto: []string{"1 AES_CM_128_HMAC_SHA1_32 usable"},
			}},
		}},
		{"session c=, LF, no end", "v=0\no=CiscoSystemsCCM-SIP 1 1 IN IP4 10.20.0.11\ns=SIP Call\nc=IN IP4 10.20.0.11\nb=AS:64\nt=0 0\nm=audio 4000 RTP/AVP 0\na=inactive", seen{
			Origin: "IP4 10.20.0.11", Conn: "IP4 10.20.0.11", Addr: addr("10.20.0.11"),
			Media: []seenMedia{{Kind: "audio", Ports: "4000", Port: 4000, Proto: "RTP/AVP", Direction: "inactive", Addr: addr("10.20.0.11")}},
		}},
		{"several media", "v=0\r\nc=IN IP4 ucm.example.com\r\na=sendonly\r\nm=audio 0 RTP/AVP 0\r\nm=video 5002/2 RTP/AVPF 31\r\ni=lens\r\nc=IN IP6 2001:db8::7\r\na=rtcp:5055 IN IP6 2001:db8::8\r\nm=image 6012 udptl t38\r\nc=IN IP4 239.1.1.1/127\r\n", seen{
			Conn: "IP4 ucm.example.com", Direction: "sendonly",
			Media: []seenMedia{
				{Kind: "audio", Ports: "0", Proto: "RTP/AVP"},
				{Kind: "video", Ports: "5002/2", Port: 5002, Proto: "RTP/AVPF", Conn: "IP6 2001:db8::7", RTCP: "5055", RTCPAddr: "IP6 2001:db8::8", Addr: addr("2001:db8::7")},
				{Kind: "image", Ports: "6012", Port: 6012, Proto: "udptl", Conn: "IP4 239.1.1.1/127", Addr: addr("239.1.1.1")},
			},
		}},
		{"family and address differ", "c=IN IP6 10.20.0.11\n", seen{Conn: "IP6 10.20.0.11"}},
		{"other network", "c=ATM NSAP 47.0091\n", seen{Conn: "NSAP 47.0091"}},
		{"bytes that are no text", "v=0\r\ns=\x80\xff\r\n\r\n\r=\r\nx\r\na=\xfe:1\r\n", seen{}},
		{"crypto of the session is skipped", "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\r\n", seen{}},
	}
	var d Description // one for all: it must forget
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Parse([]byte(tt.body), &d); err != nil {
				t.Fatalf("Parse(%q): %v", tt.body, err)
			}
			got := look(&d, []byte(tt.body))
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tt.body, diff)
			}
		})
	}
}

func TestParseSpans(t *testing.T) {
	body := []byte("v=0\r\nm=audio 4000 RTP/AVP 0\r\ni=x\r\nb=AS:80\r\na=rtpmap:0 PCMU/8000\r\na=rtcp:4001\r\nm=video 0 RTP/AVP 31\r\n")
	var d Description
	if err := Parse(body, &d); err != nil {
		t.Fatal(err)
	}
	m := &d.Media[0]
	for _, tt := range []struct{ name, got, want string }{
		{"m= line", string(m.Line.Of(body)), "m=audio 4000 RTP/AVP 0\r\n"},
		{"section", string(m.Section.Of(body)), "m=audio 4000 RTP/AVP 0\r\ni=x\r\nb=AS:80\r\na=rtpmap:0 PCMU/8000\r\na=rtcp:4001\r\n"},
		{"behind i=", string(body[m.Title:][:7]), "b=AS:80"},
		{"first a=", string(body[m.Attr:][:8]), "a=rtpmap"},
		{"a=rtcp line", string(m.RTCP.Line.Of(body)), "a=rtcp:4001\r\n"},
		{"second section", string(d.Media[1].Section.Of(body)), "m=video 0 RTP/AVP 31\r\n"},
		{"line end", d.EOL, "\r\n"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if got := d.Media[1].Attr; got != len(body) {
		t.Errorf("Attr without a= = %d, want the end of the section %d", got, len(body))
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name, body string
		err        error
	}{
		{"body too long", strings.Repeat("a", MaxBody+1), ErrLimit},
		{"too many m=", strings.Repeat("m=audio 4000 RTP/AVP 0\n", MaxMedia+1), ErrLimit},
		{"too many crypto", "m=audio 4000 RTP/SAVP 0\n" + strings.Repeat("a=crypto:1 X inline:x\n", MaxCrypto+1), ErrLimit},
		{"m= without profile", "m=audio 4000\n", ErrMalformed},
		{"port over 65535", "m=audio 65536 RTP/AVP 0\n", ErrMalformed},
		{"port not a number", "m=audio -1 RTP/AVP 0\n", ErrMalformed},
		{"count not a number", "m=audio 4000/x RTP/AVP 0\n", ErrMalformed},
		{"c= without address", "c=IN IP4\n", ErrMalformed},
		{"two c= in a section", "c=IN IP4 10.20.0.11\nc=IN IP4 10.20.0.12\n", ErrMalformed},
		{"o= cut short", "o=- 1 1 IN\n", ErrMalformed},
		{"a=rtcp without port", "m=audio 4000 RTP/AVP 0\na=rtcp:\n", ErrMalformed},
		{"a=rtcp half an address", "m=audio 4000 RTP/AVP 0\na=rtcp:4001 IN\n", ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var d Description
			if err := Parse([]byte(tt.body), &d); !errors.Is(err, tt.err) {
				t.Errorf("Parse(%.60q) = %v, want %v", tt.body, err, tt.err)
			}
		})
	}
}

func TestParseAddr(t *testing.T) {
	for _, text := range []string{
		"", "1", "1.2.3", "1.2.3.4", "0.0.0.0", "255.255.255.255", "256.1.1.1", "01.2.3.4", "1.2.3.4.5", "1..2.3",
		"1.2.3.", ".1.2.3", "1.2.3.4 ", "a.b.c.d", "::", "2001:db8::1", "::ffff:10.20.0.11", "fe80::1%eth0", "1:2",
		"2001:db8:0:0:0:0:0:1:2", "1234.1.1.1", "1.1.1.00",
	} {
		want, err := netip.ParseAddr(text)
		ok := err == nil && want.Zone() == ""
		got, gotOK := ParseAddr([]byte(text))
		if gotOK != ok || ok && got != want {
			t.Errorf("ParseAddr(%q) = %v, %v; netip says %v, %v", text, got, gotOK, want, err)
		}
	}
}

// truthBodies calls f with each body that TShark found in the captures.
func truthBodies(t *testing.T, f func(name string, o, c, m, crypto, lines []string)) {
	files, _ := filepath.Glob("../../../shared/pcaps/*sip*.truth.jsonl")
	if len(files) == 0 {
		t.Skip("no captures: ../../../shared/pcaps is absent")
	}
	for _, name := range files {
		r, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(r)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			var msg struct {
				SDP []struct{ O, C, M, Crypto, Lines []string }
			}
			if err := json.Unmarshal(sc.Bytes(), &msg); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, b := range msg.SDP {
				f(filepath.Base(name), b.O, b.C, b.M, b.Crypto, b.Lines)
			}
		}
		if err := sc.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.Close()
	}
}

// TestTruth compares with what TShark read from the captures.
func TestTruth(t *testing.T) {
	bodies := 0
	var d Description
	truthBodies(t, func(name string, o, c, m, crypto, lines []string) {
		bodies++
		for _, eol := range []string{"\r\n", "\n"} {
			body := []byte(strings.Join(lines, eol) + eol)
			if err := Parse(body, &d); err != nil {
				t.Errorf("%s: Parse(%q): %v", name, body, err)
				continue
			}
			var gotO, gotC, gotM, gotCrypto []string
			line := func(s inspect.Span) string { return strings.TrimRight(string(s.Of(body)), "\r\n") }
			conn := func(a *Address) {
				if a.Present() {
					gotC = append(gotC, strings.TrimPrefix(line(a.Line), "c="))
				}
			}
			if d.Origin.Present() {
				gotO = append(gotO, strings.TrimPrefix(line(d.Origin.Line), "o="))
			}
			conn(&d.Conn)
			for i := range d.Media {
				gotM = append(gotM, strings.TrimPrefix(line(d.Media[i].Line), "m="))
				conn(&d.Media[i].Conn)
				for _, k := range d.Media[i].Crypto {
					gotCrypto = append(gotCrypto, strings.TrimPrefix(line(k.Line), "a="))
				}
			}
			for _, x := range []struct {
				what      string
				got, want []string
			}{{"o=", gotO, o}, {"c=", gotC, c}, {"m=", gotM, m}, {"a=crypto", gotCrypto, crypto}} {
				if strings.Join(x.got, "|") != strings.Join(x.want, "|") {
					t.Errorf("%s: %s = %q, TShark says %q", name, x.what, x.got, x.want)
				}
			}
		}
	})
	if bodies < 150 {
		t.Errorf("only %d bodies in the captures, want 150 at least", bodies)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(phoneOffer))
	f.Add([]byte("v=0\nc=IN IP4 0.0.0.0\nm=audio 1/2 RTP/AVP 0\ni=a\nc=IN IP6 ::1\na=rtcp:1 IN IP4 1.2.3.4\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm|2^20|1:4 WSH=64\nm=video 0 X"))
	f.Add([]byte("m=a 1 b\r\r\na=\na"))
	var d Description
	f.Fuzz(func(t *testing.T, body []byte) {
		if Parse(body, &d) != nil {
			return
		}
		at := 0
		for i := range d.Media {
			m := &d.Media[i]
			if m.Section.Off < at || m.Line.Off != m.Section.Off || m.Section.End() > len(body) ||
				m.Title < m.Line.End() || m.Title > m.Section.End() || m.Attr < m.Line.End() || m.Attr > m.Section.End() {
				t.Fatalf("m= line %d: section %v, line %v, Title %d, Attr %d in %d bytes", i, m.Section, m.Line, m.Title, m.Attr, len(body))
			}
			at = m.Section.End()
			inside := func(what string, s inspect.Span) {
				if s.Len > 0 && (s.Off < m.Section.Off || s.End() > m.Section.End()) {
					t.Fatalf("m= line %d: %s %v lies outside the section %v", i, what, s, m.Section)
				}
			}
			inside("port", m.Ports)
			inside("profile", m.Proto)
			inside("c=", m.Conn.Line)
			inside("a=rtcp", m.RTCP.Line)
			for j := range m.Crypto {
				inside("a=crypto", m.Crypto[j].Line)
			}
		}
	})
}
