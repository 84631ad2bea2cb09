package sip_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
	"patchbay/inspect/sip"
)

const rewriteMessage = "INVITE sip:b@10.20.0.50:5061 SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK10.20.0.50\r\n" +
	"Via: SIP/2.0/UDP 10.20.0.50;branch=z9hG4bK2;received=10.20.0.50;rport=4000\r\n" +
	"From: <sip:a@10.20.0.50>;tag=10.20.0.50\r\nTo: <sip:b@192.0.2.5>\r\n" +
	"Call-ID: 1@10.20.0.50\r\nCSeq: 1 INVITE\r\nContact: <sip:a@10.20.0.50>\r\nWarning: 399 10.20.0.50 \"no\"\r\n" +
	"Content-Type: application/sdp\r\nContent-Length: 113\r\n\r\n" +
	"v=0\r\no=- 1 1 IN IP4 10.20.0.50\r\ns=-\r\nc=IN IP4 10.20.0.50\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\na=rtcp:30001 IN IP4 10.20.0.50\r\n"

func rewriteInput() string {
	head, body, _ := strings.Cut(rewriteMessage, "\r\n\r\n")
	return strings.Replace(head, "Content-Length: 113", "Content-Length: "+itoa(len(body)), 1) + "\r\n\r\n" + body
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// Rewrite asks for each address with its port and what it is for, and puts the
// answer where it stood; Call-ID, tags and branches stay.
func TestRewrite(t *testing.T) {
	near := netip.MustParseAddr("10.20.0.50")
	var asked []string
	names := map[inspect.AddrKind]string{inspect.ForSignaling: "signaling", inspect.ForRTP: "RTP", inspect.ForRTCP: "RTCP", inspect.ForText: "text"}
	got, err := sip.Rewrite([]byte("kept "), []byte(rewriteInput()), func(a netip.AddrPort, kind inspect.AddrKind) netip.AddrPort {
		if a.Addr() != near {
			return a
		}
		asked = append(asked, names[kind]+" "+a.String())
		port := a.Port()
		if port != 0 {
			port++
		}
		return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.2"), port)
	})
	if err != nil {
		t.Fatal(err)
	}
	body := "v=0\r\no=- 1 1 IN IP4 203.0.113.2\r\ns=-\r\nc=IN IP4 203.0.113.2\r\nt=0 0\r\nm=audio 20001 RTP/AVP 0\r\na=rtcp:30002 IN IP4 203.0.113.2\r\n"
	want := "kept INVITE sip:b@203.0.113.2:5062 SIP/2.0\r\n" +
		"Via: SIP/2.0/UDP 192.0.2.5:5060;branch=z9hG4bK10.20.0.50\r\n" +
		"Via: SIP/2.0/UDP 203.0.113.2:5061;branch=z9hG4bK2;received=203.0.113.2;rport=4001\r\n" +
		"From: <sip:a@203.0.113.2>;tag=10.20.0.50\r\nTo: <sip:b@192.0.2.5>\r\n" +
		"Call-ID: 1@10.20.0.50\r\nCSeq: 1 INVITE\r\nContact: <sip:a@203.0.113.2:5061>\r\nWarning: 399 203.0.113.2 \"no\"\r\n" +
		"Content-Type: application/sdp\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, w := range []string{"RTP 10.20.0.50:20000", "RTCP 10.20.0.50:30001", "signaling 10.20.0.50:5061", "signaling 10.20.0.50:4000", "signaling 10.20.0.50:0"} {
		if !strings.Contains(strings.Join(asked, "\n"), w) {
			t.Errorf("did not ask for %s, but for %q", w, asked)
		}
	}
	if _, err := sip.Rewrite(nil, []byte("nothing"), nil); err == nil {
		t.Error("what is no message: no error")
	}
}

// FuzzRewrite: where every address stays a whole message does, to the byte.
func FuzzRewrite(f *testing.F) {
	f.Add([]byte(rewriteInput()))
	f.Add([]byte("SIP/2.0 200 OK\r\nv: SIP/2.0/TCP [::1]:5\r\ni: 1\r\nCSeq: 1 BYE\r\n\r\n"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		stays := func(a netip.AddrPort, _ inspect.AddrKind) netip.AddrPort { return a }
		if n, whole, err := (&sip.Engine{}).Split(msg, true); err != nil || n != len(msg) || len(whole) != n {
			_, _ = sip.Rewrite(nil, msg, stays) // it must not panic
			return
		}
		got, err := sip.Rewrite(nil, msg, stays)
		if err == nil && !bytes.Equal(got, msg) {
			t.Errorf("%q became %q", msg, got)
		}
	})
}
