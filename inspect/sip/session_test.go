package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"patchbay/inspect"
	"patchbay/nat"
)

// A quietBinder is a proxyBinder that notes nothing.
type quietBinder struct{}

var (
	quietClient = netip.MustParseAddrPort("10.20.0.5:40001")
	quietServer = netip.MustParseAddrPort("203.0.113.10:5061")
	quietMedia  = netip.MustParseAddrPort("10.20.0.6:20000")
)

func (quietBinder) Self(from nat.End) netip.AddrPort {
	if from == nat.Client {
		return quietClient
	}
	return quietServer
}
func (quietBinder) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort { return a }
func (quietBinder) Media(m inspect.Media, _ nat.End) (inspect.Media, error) {
	return inspect.Media{Call: m.Call, Stream: m.Stream, Addr: quietMedia}, nil
}
func (quietBinder) Release(string, string) {}
func (quietBinder) Seen(string) error      { return nil }

// mustInspect returns what Inspect makes of a message of a script.
func mustInspect(t *testing.T, s inspect.Session, from nat.End, text string) string {
	t.Helper()
	out, err := s.Inspect(nil, wire(text), from)
	if err != nil {
		t.Fatalf("Inspect(%q): %v", text, err)
	}
	return show(out)
}

// request is a message from the phone with the fields that every one needs.
func request(method, callID, more string) string {
	return method + " sip:1002@203.0.113.10 SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK" + callID +
		"\nCall-ID: " + callID + "\nCSeq: 1 " + method + "\n" + strings.TrimSuffix(more, "\n")
}

// offerBody is a body with its fields: a phone's offer at a port.
func offerBody(lines string) string {
	return "Content-Type: application/sdp\nContent-Length: ?\n\nv=0\no=- 1 1 IN IP4 192.168.1.50\ns=-\nc=IN IP4 192.168.1.50\nt=0 0\n" + lines
}

func TestKeepalive(t *testing.T) {
	b := &proxyBinder{}
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(b)
	for _, from := range []nat.End{nat.Client, nat.Server} {
		if out, err := s.Inspect([]byte("x"), []byte("\r\n"), from); err != nil || string(out) != "x\r\n" {
			t.Errorf("Inspect of a keepalive from %v = %q, %v", from, out, err)
		}
	}
	if want := []string{`Seen: ""`}; !slices.Equal(b.calls, want) {
		t.Errorf("Binder was asked %q, want %q", b.calls, want)
	}
}

func TestSeen(t *testing.T) {
	const name = `;+u.sip!devicename.ccm.cisco.com=`
	const uuid = `;+sip.instance="<urn:uuid:00000000-0000-0000-0000-02000000000A>"`
	tests := []struct {
		name, contact string
		want          []string
		err           bool
	}{
		{"device name", `<sip:u@192.168.1.50>` + name + `"SEP02000000000A"` + uuid, []string{`Seen: "SEP02000000000A"`}, false},
		{"instance", `<sip:u@192.168.1.50>` + uuid, []string{`Seen: "SEP02000000000A"`}, false},
		{"other case", `<sip:u@192.168.1.50>;+U.SIP!DEVICENAME.ccm.cisco.com="SEP02000000000A"`, []string{`Seen: "SEP02000000000A"`}, false},
		{"UUID that is no MAC", `<sip:u@h>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"`, []string{`Seen: ""`}, false},
		{"none", `<sip:u@192.168.1.50>`, []string{`Seen: ""`}, false},
		{"star", `*`, []string{`Seen: ""`}, false},
		{"of another", `<sip:u@192.168.1.50>` + name + `"SEP02000000000B"`, []string{`Seen: "SEP02000000000B"`}, true},
		{"second Contact of another", `<sip:u@h>` + name + `"SEP02000000000A",<sip:u@h>` + name + `"SEP02000000000B"`, []string{`Seen: "SEP02000000000A"`, `Seen: "SEP02000000000B"`}, true},
		{"second name of another", `<sip:u@h>` + name + `"SEP02000000000A"` + name + `"SEP02000000000B"`, []string{`Seen: "SEP02000000000A"`, `Seen: "SEP02000000000B"`}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &proxyBinder{device: "SEP02000000000A"}
			s := (&Engine{Client: TLS, Server: TCP}).NewSession(b)
			_, err := s.Inspect(nil, wire(request("REGISTER", "r", "Contact: "+tt.contact)), nat.Client)
			if (err != nil) != tt.err || errors.Is(err, inspect.ErrDrop) {
				t.Errorf("Inspect: %v, want an error that ends the conversation: %v", err, tt.err)
			}
			if !slices.Equal(b.calls, tt.want) {
				t.Errorf("Binder was asked %q, want %q", b.calls, tt.want)
			}
		})
	}
}

func TestDrop(t *testing.T) {
	tests := []struct{ name, msg, want string }{
		{"no Via", "OPTIONS sip:a@b SIP/2.0\nCall-ID: 1\nCSeq: 1 OPTIONS", "no Via"},
		{"no Call-ID", "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/TLS a\nCSeq: 1 OPTIONS", "no Call-ID"},
		{"two Call-IDs", "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/TLS a\nCall-ID: 1\ni: 2\nCSeq: 1 OPTIONS", "second Call-ID"},
		{"long Call-ID", request("OPTIONS", strings.Repeat("a", MaxCallID+1), ""), "over the limit"},
		{"no CSeq", "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/TLS a\nCall-ID: 1", "no CSeq"},
		{"CSeq of another method", "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/TLS a\nCall-ID: 1\nCSeq: 1 INVITE", "CSeq"},
		{"CSeq over 32 bits", "OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/TLS a\nCall-ID: 1\nCSeq: 4294967296 OPTIONS", "CSeq"},
		{"too many fields", request("OPTIONS", "1", strings.Repeat("v: SIP/2.0/TLS a\n", MaxFields)), "over the limit"},
		{"bad m=", request("INVITE", "1", offerBody("m=audio x RTP/AVP 0")), "malformed line"},
		{"packed SDP", request("INVITE", "1", "Content-Encoding: gzip\n"+offerBody("m=audio 4000 RTP/AVP 0")), "Content-Encoding"},
		{"SRTP with an MKI only", request("INVITE", "1", offerBody("m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm|1:4")), "a=crypto"},
		{"SRTP without a key", request("INVITE", "1", offerBody("m=audio 4000 RTP/SAVP 0")), "a=crypto"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := (&Engine{Client: TLS, Server: TCP}).NewSession(&proxyBinder{})
			defer s.Close()
			out, err := s.Inspect([]byte("before"), wire(tt.msg), nat.Client)
			if !errors.Is(err, inspect.ErrDrop) || !strings.Contains(err.Error(), tt.want) || string(out) != "before" {
				t.Errorf("Inspect = %q, %v; want a drop with %q", out, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "4fl6") {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}

// released returns the calls that were released.
func released(b *proxyBinder) []string {
	var out []string
	for _, c := range b.calls {
		if strings.HasPrefix(c, "Release") {
			out = append(out, c)
		}
	}
	return out
}

func TestMaxCalls(t *testing.T) {
	b := &proxyBinder{}
	s := (&Engine{Client: TLS, Server: TCP, MaxCalls: 2}).NewSession(b)
	body := offerBody("m=audio 4000 RTP/AVP 0")
	for _, id := range []string{"call-one", "call-two"} {
		mustInspect(t, s, nat.Client, request("INVITE", id, body))
	}
	mustInspect(t, s, nat.Client, request("UPDATE", "call-one", "")) // not silent any more
	mustInspect(t, s, nat.Client, request("INVITE", "call-six", body))
	if got, want := released(b), []string{`Release: stream "" of call-two`}; !slices.Equal(got, want) {
		t.Errorf("released %q, want %q", got, want)
	}
	mustInspect(t, s, nat.Client, request("BYE", "call-one", ""))
	mustInspect(t, s, nat.Client, request("INVITE", "call-ten", body)) // takes the place of the ended
	b.calls = b.calls[:0]
	s.Close()
	got := released(b)
	slices.Sort(got)
	if want := []string{`Release: stream "" of call-six`, `Release: stream "" of call-ten`}; !slices.Equal(got, want) {
		t.Errorf("Close released %q, want %q", got, want)
	}
}

// TestBounded sends many requests that are never answered, each with a name
// of its own.
func TestBounded(t *testing.T) {
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(&proxyBinder{}).(*session)
	for i := range 10 * MaxTransactions {
		id := fmt.Sprint("id", i)
		mustInspect(t, s, nat.Client, request("INVITE", id, fmt.Sprintf("Contact: <sip:u%d@192.168.1.50:%d>\n", i, 1024+i)+offerBody("m=audio 4000 RTP/AVP 0")))
	}
	if n := s.pending.n; n != MaxTransactions {
		t.Errorf("%d transactions, want %d", n, MaxTransactions)
	}
	if n := len(s.names[nat.Client].list); n != MaxNames {
		t.Errorf("%d names, want %d", n, MaxNames)
	}
	if n := len(s.calls.byID); n != MaxCalls {
		t.Errorf("%d calls, want %d", n, MaxCalls)
	}
	if got := mustInspect(t, s, nat.Server, "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bKid319\nCall-ID: id319\nCSeq: 1 INVITE"); !strings.Contains(got, "Via: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bKid319\n") {
		t.Errorf("the newest request is forgotten:\n%s", got)
	}
}

// TestAnsweredFirst keeps an INVITE that rings while many requests come and go.
func TestAnsweredFirst(t *testing.T) {
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(&proxyBinder{})
	mustInspect(t, s, nat.Client, request("INVITE", "ringing", "")+";x=y")
	for i := range 3 * MaxTransactions {
		id := fmt.Sprint("n", i)
		mustInspect(t, s, nat.Client, request("INFO", id, ""))
		mustInspect(t, s, nat.Server, "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK"+id+"\nCall-ID: "+id+"\nCSeq: 1 INFO")
	}
	got := mustInspect(t, s, nat.Server, "SIP/2.0 180 Ringing\nVia: SIP/2.0/TCP 10.20.0.5:40001;received=10.20.0.5;branch=z9hG4bKringing\nCall-ID: ringing\nCSeq: 1 INVITE")
	if !strings.Contains(got, "Via: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bKringing\n") {
		t.Errorf("the ringing request is forgotten:\n%s", got)
	}
}

// scriptBinder answers Media as a test says.
type scriptBinder struct {
	quietBinder
	media func(inspect.Media, nat.End) (inspect.Media, error)
}

func (b scriptBinder) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	return b.media(m, from)
}

func TestEditMedia(t *testing.T) {
	at := func(s string) inspect.Media { return inspect.Media{Addr: netip.MustParseAddrPort(s)} }
	const crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\n"
	tests := []struct {
		name       string
		everyMedia bool
		in         string // of the m= lines
		media      map[string]inspect.Media
		conn, want string // c= of the session, and the m= lines
	}{
		{"one address", false, "m=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/AVP 0\n",
			map[string]inspect.Media{"0": at("10.20.0.6:20000"), "1": at("10.20.0.6:20002")},
			"IP4 10.20.0.6", "m=audio 20000 RTP/AVP 0\nm=audio 20002 RTP/AVP 0"},
		{"two addresses", false, "m=audio 4000 RTP/AVP 0\nm=audio 4002 RTP/AVP 0\ni=second\nb=AS:80\n",
			map[string]inspect.Media{"0": at("10.20.0.6:20000"), "1": at("10.20.0.7:20002")},
			"IP4 10.20.0.6", "m=audio 20000 RTP/AVP 0\nm=audio 20002 RTP/AVP 0\ni=second\nc=IN IP4 10.20.0.7\nb=AS:80"},
		{"IPv6", false, "m=audio 4000 RTP/AVP 0\nc=IN IP4 192.168.1.50\n",
			map[string]inspect.Media{"0": at("[2001:db8::6]:20000")},
			"IP4 10.20.0.5", "m=audio 20000 RTP/AVP 0\nc=IN IP6 2001:db8::6"},
		{"a=rtcp goes", false, "m=audio 4000/1 RTP/AVP 0\na=rtcp:4009\na=sendrecv\n",
			map[string]inspect.Media{"0": at("10.20.0.6:20000")},
			"IP4 10.20.0.6", "m=audio 20000 RTP/AVP 0\na=sendrecv"},
		{"a=rtcp moves", false, "m=audio 4000 RTP/AVP 0\na=rtcp:4009 IN IP4 192.168.1.51\n",
			map[string]inspect.Media{"0": {Addr: netip.MustParseAddrPort("10.20.0.6:20000"), RTCP: netip.MustParseAddrPort("10.20.0.6:20009")}},
			"IP4 10.20.0.6", "m=audio 20000 RTP/AVP 0\na=rtcp:20009 IN IP4 10.20.0.6"},
		{"other media refused", false, "m=video 4000 RTP/SAVP 0\n" + crypto + "m=audio 4002 RTP/AVP 0\nm=image 4004 udptl t38\nm=application 4006 TCP/BFCP *\nm=audio 4008 TCP/RTP/AVP 0\nm=audio 0 RTP/AVP 0\n",
			map[string]inspect.Media{"1": at("10.20.0.6:20002")},
			"IP4 10.20.0.6", "m=video 0 RTP/SAVP 0\nm=audio 20002 RTP/AVP 0\nm=image 0 udptl t38\nm=application 0 TCP/BFCP *\nm=audio 0 TCP/RTP/AVP 0\nm=audio 0 RTP/AVP 0"},
		{"other media carried", true, "m=video 4000 RTP/AVP 0\nm=image 4004 udptl t38\nm=application 4006 TCP/BFCP *\n",
			map[string]inspect.Media{"0": at("10.20.0.6:20000"), "1": at("10.20.0.6:20002")},
			"IP4 10.20.0.6", "m=video 20000 RTP/AVP 0\nm=image 20002 udptl t38\nm=application 0 TCP/BFCP *"},
		{"feedback profile, keys in plain RTP", false, "m=audio 4000 RTP/SAVPF 0\n" + crypto + crypto + "m=audio 4002 RTP/AVP 0\n" + crypto,
			map[string]inspect.Media{"0": at("10.20.0.6:20000"), "1": at("10.20.0.6:20002")},
			"IP4 10.20.0.6", "m=audio 20000 RTP/AVPF 0\nm=audio 20002 RTP/AVP 0"},
		{"left to themselves", false, "m=audio 4000 RTP/SAVP 0\n" + crypto + crypto,
			map[string]inspect.Media{"0": {}},
			"IP4 192.168.1.50", "m=audio 4000 RTP/SAVP 0\n" + crypto + strings.TrimSuffix(crypto, "\n")},
		{"one line of two", false, "m=audio 4000 RTP/SAVP 0\n" + strings.Replace(crypto, ":1", ":7", 1) + "a=ptime:20\n" + crypto,
			map[string]inspect.Media{"0": {Addr: netip.MustParseAddrPort("10.20.0.6:20000"), Secure: true, Tx: key(0)}},
			"IP4 10.20.0.6", "m=audio 20000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:" + strings.Repeat("A", 40) + "\na=ptime:20"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			b := scriptBinder{media: func(m inspect.Media, _ nat.End) (inspect.Media, error) {
				asked++
				out, ok := tt.media[m.Stream]
				if !ok {
					t.Errorf("Media for stream %s", m.Stream)
				}
				if out == (inspect.Media{}) {
					return m, nil
				}
				return out, nil
			}}
			s := (&Engine{Client: TLS, Server: TCP, EveryMedia: tt.everyMedia}).NewSession(b)
			got := mustInspect(t, s, nat.Client, request("INVITE", "1", offerBody(strings.TrimSuffix(tt.in, "\n"))))
			_, body, _ := strings.Cut(got, "\n\n")
			want := "v=0\no=- 1 1 IN IP4 10.20.0.5\ns=-\nc=IN " + tt.conn + "\nt=0 0\n" + tt.want
			if body != want || asked != len(tt.media) {
				t.Errorf("after %d questions:\n%s\nwant\n%s", asked, body, want)
			}
		})
	}
}

// TestAnswer holds the profile of an answer to its offer.
func TestAnswer(t *testing.T) {
	suite := inspect.AES_CM_128_SHA1_32
	secure := true
	b := scriptBinder{media: func(m inspect.Media, from nat.End) (inspect.Media, error) {
		out := inspect.Media{Addr: quietMedia}
		if from == nat.Server && secure {
			out.Secure, out.Tx = true, inspect.Key{Suite: suite}
		}
		return out, nil
	}}
	const answer = "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK1\nCall-ID: 1\nCSeq: 1 INVITE\n"
	const crypto80 = "\na=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm"
	body := offerBody("m=audio 17000 RTP/AVP 0")
	for _, tt := range []struct {
		name, offer string
		suite       inspect.Suite
		secure      bool
		want        string // in the answer; "" for a drop
	}{
		{"SAVP for SAVP", "m=audio 4000 RTP/SAVP 0" + crypto80, inspect.AES_CM_128_SHA1_80, true, "RTP/SAVP 0\na=crypto:4 AES_CM_128_HMAC_SHA1_80 "},
		{"the line we speak, of several", "m=audio 4000 RTP/SAVP 0" +
			"\na=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:" + strings.Repeat("A", 62) + "==" +
			"\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm|2^20|1:4" +
			"\na=crypto:3 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm" + crypto80,
			inspect.AES_CM_128_SHA1_32, true, "RTP/SAVP 0\na=crypto:3 AES_CM_128_HMAC_SHA1_32 "},
		{"another suite", "m=audio 4000 RTP/SAVP 0" + crypto80, inspect.AES_CM_128_SHA1_32, true, ""},
		{"SAVP for AVP", "m=audio 4000 RTP/AVP 0", inspect.AES_CM_128_SHA1_32, true, ""},
		{"AVP for SAVP", "m=audio 4000 RTP/SAVP 0" + crypto80, 0, false, "RTP/AVP 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			suite, secure = tt.suite, tt.secure
			s := (&Engine{Client: TLS, Server: TCP}).NewSession(b)
			mustInspect(t, s, nat.Client, request("INVITE", "1", offerBody(tt.offer)))
			out, err := s.Inspect(nil, wire(answer+body), nat.Server)
			if tt.want == "" {
				if !errors.Is(err, inspect.ErrDrop) {
					t.Errorf("Inspect = %s, %v; want a drop", show(out), err)
				}
			} else if err != nil || !strings.Contains(show(out), tt.want) {
				t.Errorf("Inspect = %s, %v; want %q", show(out), err, tt.want)
			}
		})
	}
}

// TestPRACK answers a delayed offer of a 183 in PRACK, and lets PRACK carry an
// offer of its own.
func TestPRACK(t *testing.T) {
	type said struct {
		from nat.End
		tag  string
	}
	var got []said
	b := scriptBinder{media: func(m inspect.Media, from nat.End) (inspect.Media, error) {
		got = append(got, said{from, m.Tag})
		out := inspect.Media{Addr: quietMedia}
		if from == nat.Server {
			out.Secure, out.Tx = true, key(0)
		}
		return out, nil
	}}
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(b)
	const via = "Via: SIP/2.0/TCP 10.20.0.11:5060;branch=z9hG4bK"
	const back = "Via: SIP/2.0/TLS 203.0.113.10:5061;branch=z9hG4bK"
	const crypto6 = "m=audio 4000 RTP/SAVP 0\na=crypto:6 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm"
	mustInspect(t, s, nat.Server, "INVITE sip:u@10.20.0.5:40001 SIP/2.0\n"+via+"1\nCall-ID: 9\nCSeq: 1 INVITE")
	mustInspect(t, s, nat.Client, "SIP/2.0 183 Session Progress\n"+back+"1\nCall-ID: 9\nCSeq: 1 INVITE\n"+offerBody(crypto6))
	answer := mustInspect(t, s, nat.Server, "PRACK sip:u@10.20.0.5:40001 SIP/2.0\n"+via+"2\nCall-ID: 9\nCSeq: 2 PRACK\n"+offerBody("m=audio 17000 RTP/AVP 0"))
	if !strings.Contains(answer, "a=crypto:6 ") {
		t.Errorf("answer in PRACK to tag 6:\n%s", answer)
	}
	offer := mustInspect(t, s, nat.Server, "PRACK sip:u@10.20.0.5:40001 SIP/2.0\n"+via+"3\nCall-ID: 9\nCSeq: 3 PRACK\n"+offerBody("m=audio 17002 RTP/AVP 0"))
	if !strings.Contains(offer, "a=crypto:1 ") {
		t.Errorf("offer in PRACK:\n%s", offer)
	}
	mustInspect(t, s, nat.Client, "SIP/2.0 200 OK\n"+back+"3\nCall-ID: 9\nCSeq: 3 PRACK\n"+offerBody(strings.Replace(crypto6, ":6", ":1", 1)))
	if want := []said{{nat.Client, "6"}, {nat.Server, ""}, {nat.Server, ""}, {nat.Client, "1"}}; !slices.Equal(got, want) {
		t.Errorf("Media heard %v, want %v", got, want)
	}
}

// TestRefusedStream releases a stream that an answer refuses, and keeps the
// profile of the offer in it.
func TestRefusedStream(t *testing.T) {
	b := &proxyBinder{}
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(b)
	mustInspect(t, s, nat.Client, request("INVITE", "call-one", offerBody("m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm")))
	got := mustInspect(t, s, nat.Server, "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bKcall-one\nCall-ID: call-one\nCSeq: 1 INVITE\n"+offerBody("m=audio 0 RTP/AVP 0"))
	if !strings.Contains(got, "m=audio 0 RTP/SAVP 0") {
		t.Errorf("refusal:\n%s", got)
	}
	if got, want := released(b), []string{`Release: stream "0" of call-one`}; !slices.Equal(got, want) {
		t.Errorf("released %q, want %q", got, want)
	}
}

// TestNames gives names of every form, and takes them back.
func TestNames(t *testing.T) {
	s := (&Engine{Client: TLS, Server: TCP}).NewSession(quietBinder{})
	const register = "REGISTER sip:203.0.113.10 SIP/2.0\nVia: SIP/2.0/TLS %s;branch=z9hG4bK1\nCall-ID: 1\nCSeq: 1 REGISTER\nContact: <%s>"
	for _, tt := range []struct{ sentBy, contact, ucm string }{
		{"192.168.1.50:49153", "sip:u1@192.168.1.50:49153;transport=tls", "sip:u1@10.20.0.5:40001;transport=tcp"},
		{"[2001:db8::7]:49153", "sip:u2@[2001:db8::7]:49153;transport=TLS", "sip:u2@10.20.0.5:40001;transport=tcp"},
		{"phone.example.com", "sips:u3@phone.example.com", "sip:u3@10.20.0.5:40001"},
		{"192.168.1.50:49153", "sip:u4@192.168.1.50:5060;ob", "sip:u4@10.20.0.5:40001;ob"},
		{"192.168.1.50:49153", "sip:192.168.1.50:49154", "sip:10.20.0.5:40001"},
	} {
		got := mustInspect(t, s, nat.Client, fmt.Sprintf(register, tt.sentBy, tt.contact))
		if !strings.Contains(got, "Via: SIP/2.0/TCP 10.20.0.5:40001;") || !strings.Contains(got, "Contact: <"+tt.ucm+">") {
			t.Errorf("REGISTER from %s as %s:\n%s", tt.sentBy, tt.contact, got)
		}
		back := mustInspect(t, s, nat.Server, "SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK1\nCall-ID: 1\nCSeq: 1 REGISTER\nContact: <"+tt.ucm+">;expires=120")
		if !strings.Contains(back, "Via: SIP/2.0/TLS "+tt.sentBy+";") || !strings.Contains(back, "Contact: <"+tt.contact+">;expires=120") {
			t.Errorf("200 to %s as %s:\n%s", tt.sentBy, tt.contact, back)
		}
	}
	// All five are still known by their users.
	if got := mustInspect(t, s, nat.Server, "OPTIONS sip:u2@10.20.0.5:40001;transport=tcp SIP/2.0\nVia: SIP/2.0/TCP ucm1.example.com:5060;branch=z9hG4bK2\nFrom: <sip:ucm1.example.com>;tag=1\nCall-ID: 2\nCSeq: 1 OPTIONS\nContact: <sip:UCM1.example.com:5060;transport=tcp>"); !strings.HasPrefix(got, "OPTIONS sip:u2@[2001:db8::7]:49153;transport=TLS SIP/2.0\nVia: SIP/2.0/TLS 203.0.113.10:5061;branch=z9hG4bK2\nFrom: <sip:203.0.113.10>;tag=1\n") ||
		!strings.Contains(got, "Contact: <sip:203.0.113.10:5061;transport=tls>") {
		t.Errorf("OPTIONS from a call manager with a name:\n%s", got)
	}
	// The call manager's own name comes back where the Binder has no better one.
	if got := mustInspect(t, s, nat.Client, "OPTIONS sip:203.0.113.10:5061;transport=tls SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK3\nCall-ID: 3\nCSeq: 1 OPTIONS"); !strings.HasPrefix(got, "OPTIONS sip:ucm1.example.com:5060;transport=tcp SIP/2.0\n") {
		t.Errorf("OPTIONS to a call manager with a name:\n%s", got)
	}
}
