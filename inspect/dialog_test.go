package inspect_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// tagged writes an answer of the one who rings with that tag.
func tagged(req string, status int, tag, contact, sdp string) string {
	return strings.Replace(answer(req, status, contact, sdp), ";tag=b", ";tag="+tag, 1)
}

// passes reports whether media from far to the mapped socket comes to real.
func passes(w *wall, far string, mapped netip.AddrPort, real string) bool {
	w.t.Helper()
	f, _, v := w.send(outside, far, mapped.String(), "media")
	if v == stack.Forward && f.Dst != ap(real) {
		w.t.Errorf("media from %s to %v comes to %v, want %s", far, mapped, f.Dst, real)
	}
	return v == stack.Forward
}

// empty fails if anything is left when all calls are over and time has passed.
func empty(w *wall) {
	w.t.Helper()
	w.pass(time.Hour)
	w.quiet(0)
	if conns, convs, contacts, calls := w.table.Len(), w.udp.Conversations(), w.nat.Contacts(), len(w.udp.Calls(w.now)); conns+convs+contacts+calls != 0 {
		w.t.Errorf("%d connections, %d conversations, %d contacts, %d calls are left", conns, convs, contacts, calls)
	}
	free(w, 16384, 16385, 18000, 18001, 5060)
}

// free fails if one of the ports of the outside address is leased.
func free(w *wall, ports ...uint16) {
	w.t.Helper()
	for _, p := range ports {
		l, ok := w.pat.Take(stack.UDP, netip.AddrPortFrom(netip.MustParseAddr("10.20.0.99"), p), outside.Addr.Addr(), nil)
		if !ok || l.Mapped().Port() != p {
			w.t.Errorf("port %d is still leased", p)
		}
		l.Release()
	}
}

const (
	phoneAs = "203.0.113.2:5060" // the phone, as long as it keeps its port
	far2RTP = "198.51.100.21:30000"
)

// TestForking lets two ring for one INVITE, each with early media; the first
// answers, without saying again where.
func TestForking(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	at := media(t, got)
	w.must(outside, proxy, phoneAs, tagged(got, 183, "b1", proxy, body(farRTP)))
	if !passes(w, farRTP, at, rtp) {
		t.Error("early media of the first does not pass")
	}
	w.must(outside, proxy, phoneAs, tagged(got, 183, "b2", proxy, body(far2RTP)))
	if !passes(w, far2RTP, at, rtp) {
		t.Error("early media of the second does not pass")
	}
	w.must(outside, proxy, phoneAs, tagged(got, 200, "b1", proxy, ""))
	w.must(inside, phone, proxy, request("ACK", 1, "one", phone, proxy, "", ""))
	flowsBothWays(w, rtp, at.String(), farRTP)
	if passes(w, far2RTP, at, rtp) {
		t.Error("media of the one who did not answer still passes")
	}
	// The second answered as well, late, and is sent away: the call goes on.
	bye := strings.Replace(request("BYE", 2, "one", phone, proxy, "", ""), "To: <sip:1002@198.51.100.10>", "To: <sip:1002@198.51.100.10>;tag=b2", 1)
	w.must(inside, phone, proxy, bye)
	flowsBothWays(w, rtp, at.String(), farRTP)
	w.must(inside, phone, proxy, strings.Replace(bye, "tag=b2", "tag=b1", 1))
	if passes(w, farRTP, at, rtp) {
		t.Error("media passes after BYE")
	}
	w.noLeak("203.0.113.2")
	empty(w)
}

// TestRefusedMove offers to receive elsewhere and is refused: until then and
// from then on media comes where it came.
func TestRefusedMove(t *testing.T) {
	const moved = "10.20.0.11:18000"
	for _, status := range []int{488, 200} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			w := newWall(t, patRule())
			// The phone's port is another's already, so it has an odd name.
			if _, ok := w.pat.Take(stack.UDP, ap("10.20.0.13:16384"), outside.Addr.Addr(), nil); !ok {
				t.Fatal("no port")
			}
			_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
			at := media(t, got)
			w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
			flowsBothWays(w, rtp, at.String(), farRTP)
			_, got = w.must(inside, phone, proxy, request("INVITE", 2, "one", phone, proxy, "", body(moved)))
			at2 := media(t, got)
			flowsBothWays(w, rtp, at.String(), farRTP)
			flowsBothWays(w, moved, at2.String(), farRTP)
			sdp := ""
			if status == 200 {
				sdp = body(farRTP)
			}
			w.must(outside, proxy, phoneAs, answer(got, status, proxy, sdp))
			if status == 200 {
				if passes(w, farRTP, at, rtp) {
					t.Error("media to the port before still passes")
				}
				flowsBothWays(w, moved, at2.String(), farRTP)
			} else {
				flowsBothWays(w, rtp, at.String(), farRTP)
				if passes(w, farRTP, at2, moved) {
					t.Error("media to the port that was refused passes")
				}
			}
			w.must(inside, phone, proxy, request("BYE", 3, "one", phone, proxy, "", ""))
			w.quiet(0)
			w.noLeak("203.0.113.2")
		})
	}
}

// TestOffers are the ways an offer and its answer travel.
func TestOffers(t *testing.T) {
	type step struct {
		out    bool // from inside
		method string
		cseq   int
		status int // 0: the request; else the answer to the last request the other way
		sdp    string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"delayed offer", []step{
			{true, "INVITE", 1, 0, ""}, {false, "INVITE", 1, 200, farRTP}, {true, "ACK", 1, 0, rtp}}},
		{"delayed offer in 183, answer in PRACK", []step{
			{true, "INVITE", 1, 0, ""}, {false, "INVITE", 1, 183, farRTP}, {true, "PRACK", 2, 0, rtp}, {false, "PRACK", 2, 200, ""}, {false, "INVITE", 1, 200, ""}, {true, "ACK", 1, 0, ""}}},
		{"offer, answer in 183 alone", []step{
			{true, "INVITE", 1, 0, rtp}, {false, "INVITE", 1, 183, farRTP}, {false, "INVITE", 1, 200, ""}, {true, "ACK", 1, 0, ""}}},
		{"moved by UPDATE before the answer", []step{
			{true, "INVITE", 1, 0, "10.20.0.11:18000"}, {false, "INVITE", 1, 183, far2RTP}, {true, "UPDATE", 2, 0, rtp}, {false, "UPDATE", 2, 200, farRTP}, {false, "INVITE", 1, 200, ""}, {true, "ACK", 1, 0, ""}}},
		{"moved by re-INVITE from outside", []step{
			{true, "INVITE", 1, 0, rtp}, {false, "INVITE", 1, 200, far2RTP}, {true, "ACK", 1, 0, ""}, {false, "INVITE", 7, 0, farRTP}, {true, "INVITE", 7, 200, rtp}, {false, "ACK", 7, 0, ""}}},
		{"held at 0.0.0.0 and taken back", []step{
			{true, "INVITE", 1, 0, rtp}, {false, "INVITE", 1, 200, farRTP}, {true, "ACK", 1, 0, ""},
			{true, "INVITE", 2, 0, "0.0.0.0:16384"}, {false, "INVITE", 2, 200, farRTP}, {true, "ACK", 2, 0, ""},
			{true, "INVITE", 3, 0, rtp}, {false, "INVITE", 3, 200, farRTP}, {true, "ACK", 3, 0, ""}}},
		{"delayed re-INVITE of a call manager", []step{
			{true, "INVITE", 1, 0, rtp}, {false, "INVITE", 1, 200, far2RTP}, {true, "ACK", 1, 0, ""},
			{false, "INVITE", 8, 0, ""}, {true, "INVITE", 8, 200, rtp}, {false, "ACK", 8, 0, farRTP}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, patRule())
			last := make(map[string]string) // requests as the other end got them
			mapped := netip.AddrPort{}
			for _, x := range tt.steps {
				sdp := ""
				if x.sdp != "" {
					sdp = body(x.sdp)
				}
				a, b := phone, proxy
				if !x.out {
					a, b = proxy, phoneAs
				}
				m := request(x.method, x.cseq, "one", a, b, "", sdp)
				if x.status > 0 {
					m = answer(last[fmt.Sprint(x.method, x.cseq)], x.status, a, sdp)
				}
				in := inside
				if !x.out {
					in = outside
				}
				_, got := w.must(in, a, b, m)
				if x.status == 0 {
					last[fmt.Sprint(x.method, x.cseq)] = got
				}
				if x.out && x.sdp != "" && !strings.HasPrefix(x.sdp, "0.") {
					mapped = media(t, got)
				}
			}
			flowsBothWays(w, rtp, mapped.String(), farRTP)
			w.must(outside, proxy, phoneAs, request("BYE", 20, "one", proxy, phoneAs, "", ""))
			w.noLeak("203.0.113.2")
			w.quiet(0)
			empty(w)
		})
	}
}

// TestEndings is what ends a call before anybody has answered.
func TestEndings(t *testing.T) {
	for _, status := range []int{302, 401, 404, 408, 480, 486, 500, 503, 603} {
		w := newWall(t, patRule())
		_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
		w.must(outside, proxy, phoneAs, answer(got, 183, proxy, body(farRTP)))
		w.must(outside, proxy, phoneAs, answer(got, status, proxy, ""))
		w.quiet(0)
		if n := len(w.udp.Calls(w.now)); n != 0 {
			t.Errorf("%d: %d calls are left", status, n)
		}
		// With credentials, say, it begins anew.
		_, got = w.must(inside, phone, proxy, request("INVITE", 2, "one", phone, proxy, "", body(rtp)))
		if !passes(w, farRTP, media(t, got), rtp) {
			t.Errorf("no early media after %d and another INVITE", status)
		}
		empty(w)
	}
}

// TestCalls is what "show sip" says of a call as it goes on.
func TestCalls(t *testing.T) {
	w := newWall(t, patRule())
	want := func(s string) {
		t.Helper()
		got := ""
		for _, c := range w.udp.Calls(w.now) {
			got += fmt.Sprintf("%s %s %v;", c.ID, c.State(), c.Idle.Round(time.Second))
		}
		if got != s {
			t.Errorf("calls are %q, want %q", got, s)
		}
	}
	want("")
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	want("one Call init 0s;")
	w.pass(5 * time.Second)
	want("one Call init 5s;")
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
	w.must(inside, phone, proxy, request("INVITE", 1, "two", phone, proxy, "", body("10.20.0.11:18000")))
	w.pass(2 * time.Second)
	want("one Active 2s;two Call init 2s;")
	w.must(inside, phone, proxy, request("BYE", 2, "one", phone, proxy, "", ""))
	want("two Call init 2s;")
}

// TestLongCall talks for longer than "timeout sip" without a word of SIP: the
// media goes on, and the BYE that comes at last finds the call.
func TestLongCall(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
	at := media(t, got)
	for range 90 {
		flowsBothWays(w, rtp, at.String(), farRTP)
		w.pass(time.Minute)
	}
	flowsBothWays(w, rtp, at.String(), farRTP)
	if n := len(w.udp.Calls(w.now)); n != 1 {
		t.Fatalf("%d calls after 90 minutes, want 1", n)
	}
	w.must(inside, phone, proxy, request("BYE", 2, "one", phone, proxy, "", ""))
	w.quiet(0)
	if passes(w, farRTP, at, rtp) {
		t.Error("media passes after BYE")
	}
	empty(w)
}

// TestSilentCall never says BYE: when its media has stopped and nothing is said
// for "timeout sip", nothing is left of it, though others keep the conversation.
func TestSilentCall(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
	flowsBothWays(w, rtp, media(t, got).String(), farRTP)
	for range 40 {
		w.pass(time.Minute)
		w.must(inside, phone, proxy, "\r\n\r\n")
		w.must(inside, phone, proxy, request("OPTIONS", 1, "ping", phone, proxy, "", ""))
	}
	if n := len(w.udp.Calls(w.now)); n != 0 {
		t.Errorf("%d calls are left", n)
	}
	free(w, 16384, 16385)
	empty(w)
}

// TestRegistrations are the ways in which a Contact lasts.
func TestRegistrations(t *testing.T) {
	tests := []struct {
		name    string
		contact string // of REGISTER
		expires string // the field
		status  int
		granted string // Contact of the answer; M is the mapped address
		after   string // another Contact, or "" for none
		left    int    // contacts a minute later
	}{
		{"plain", "<sip:1001@10.20.0.11>", "3600", 200, "<sip:1001@M>;expires=3600", "", 1},
		{"granted for less", "<sip:1001@10.20.0.11>", "3600", 200, "<sip:1001@M>;expires=30", "", 0},
		{"granted for more", "<sip:1001@10.20.0.11>", "30", 200, "<sip:1001@M>;expires=600", "", 1},
		{"its own time", "<sip:1001@10.20.0.11>;expires=20", "3600", 0, "", "", 0},
		{"two, of which one is taken back", "<sip:1001@10.20.0.11>;expires=3600, <sip:1001@10.20.0.11:5070>;expires=0", "", 0, "", "", 1},
		{"forbidden", "<sip:1001@10.20.0.11>", "3600", 403, "", "", 0},
		{"challenged", "<sip:1001@10.20.0.11>", "3600", 401, "", "", 1},
		{"all taken back", "<sip:1001@10.20.0.11>", "3600", 200, "<sip:1001@M>;expires=3600", "*", 0},
		{"Expires 0", "<sip:1001@10.20.0.11>", "3600", 200, "<sip:1001@M>;expires=3600", "<sip:1001@10.20.0.11>", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, patRule())
			write := func(contact, expires string) string {
				m := request("REGISTER", 1, "reg", phone, proxy, "", "")
				m = strings.Replace(m, "Contact: <sip:1001@10.20.0.11:5060>\r\n", "Contact: "+contact+"\r\n", 1)
				if expires != "" {
					m = strings.Replace(m, "Content-Length", "Expires: "+expires+"\r\nContent-Length", 1)
				}
				return m
			}
			// Another has the phone's port, so that Contact differs from the source.
			f, got := w.must(inside, "10.20.0.11:49152", proxy, write(tt.contact, tt.expires))
			if tt.status > 0 {
				m := answer(got, tt.status, "", "")
				if tt.granted != "" {
					at := header(got, "Contact")
					at = at[strings.Index(at, "@")+1 : strings.Index(at, ">")]
					m = strings.Replace(m, "Content-Length", "Contact: "+strings.Replace(tt.granted, "M", at, 1)+"\r\nContent-Length", 1)
				}
				w.must(outside, proxy, f.Src.String(), m)
			}
			if tt.after != "" {
				w.must(inside, "10.20.0.11:49152", proxy, write(tt.after, "0"))
			}
			w.pass(time.Minute)
			if n := w.nat.Contacts(); n != tt.left {
				t.Errorf("%d contacts after a minute, want %d", n, tt.left)
			}
			w.noLeak()
			w.pass(48 * time.Hour)
			if w.nat.Contacts() != 0 || w.table.Pinholes() != 0 {
				t.Errorf("%d contacts, %d pinholes are left", w.nat.Contacts(), w.table.Pinholes())
			}
		})
	}
}

// TestFields is what becomes of the fields, one at a time.
func TestFields(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Route: <sip:10.20.0.9;lr>", "Route: <sip:203.0.113.2;lr>"},
		{"Route: <sip:198.51.100.10;lr>, <sip:198.51.100.11:5070;lr>", ""},
		{"Path: <sip:10.20.0.9:5070;lr>", "Path: <sip:203.0.113.2:5070;lr>"},
		{"Service-Route: <sip:10.20.0.9;lr>", "Service-Route: <sip:203.0.113.2;lr>"},
		{"P-Asserted-Identity: \"Ann\" <sip:1001@10.20.0.9>, <tel:+15550100>", "P-Asserted-Identity: \"Ann\" <sip:1001@203.0.113.2>, <tel:+15550100>"},
		{"Remote-Party-ID: <sip:1001@10.20.0.9>;party=calling;privacy=off", "Remote-Party-ID: <sip:1001@203.0.113.2>;party=calling;privacy=off"},
		{"Diversion: <sip:1003@10.20.0.9>;reason=no-answer", "Diversion: <sip:1003@203.0.113.2>;reason=no-answer"},
		{"Refer-To: <sip:1003@10.20.0.9?Replaces=7a%4010.20.0.9%3Bto-tag%3Dx%3Bfrom-tag%3Dy>", "Refer-To: <sip:1003@203.0.113.2?Replaces=7a%4010.20.0.9%3Bto-tag%3Dx%3Bfrom-tag%3Dy>"},
		{"r: <sip:1003@10.20.0.9>", "r: <sip:1003@203.0.113.2>"},
		{"Referred-By: <sip:1003@10.20.0.9>", "Referred-By: <sip:1003@203.0.113.2>"},
		{"Replaces: 7a@10.20.0.9;to-tag=x;from-tag=y", ""},
		{"In-Reply-To: 7a@10.20.0.9", ""},
		{"Warning: 399 10.20.0.9 \"no way\"", "Warning: 399 203.0.113.2 \"no way\""},
		{"Warning: 399 10.20.0.9:5070 \"at 10.20.0.9\"", "Warning: 399 203.0.113.2:5070 \"at 203.0.113.2\""},
		{"Alert-Info: <http://10.20.0.9:8080/ring.wav>", "Alert-Info: <http://203.0.113.2:8080/ring.wav>"},
		{"Call-Info: <sip:10.20.0.9:5060>;method=\"NOTIFY\"", "Call-Info: <sip:203.0.113.2:5060>;method=\"NOTIFY\""},
		{"Contact: <sip:1001@10.20.0.11;maddr=10.20.0.12>", "Contact: <sip:1001@203.0.113.2;maddr=203.0.113.2>"},
		{"Via: SIP/2.0/UDP 10.20.0.9;maddr=10.20.0.8;branch=z9hG4bKx10.20.0.9", "Via: SIP/2.0/UDP 203.0.113.2;maddr=203.0.113.2;branch=z9hG4bKx10.20.0.9"},
		{"v: SIP/2.0/UDP 10.20.0.9;branch=10.20.0.9", "v: SIP/2.0/UDP 203.0.113.2;branch=10.20.0.9"},
		{"X-Custom: from 10.20.0.9, to 10.20.0.8.", "X-Custom: from 203.0.113.2, to 203.0.113.2."},
		{"X-Custom: 10.20.0.9.1 v10.20.0.9 10.20.0.9-rc1 310.20.0.9 10.20.0.900 10.20.0", ""},
		{"X-Custom: 127.0.0.1 0.0.0.0 224.0.1.75 198.51.100.77 8.8.8.8", ""},
		{"X-Custom:\r\n 10.20.0.9", "X-Custom:\r\n 203.0.113.2"},
		{"Authorization: Digest username=\"a\", realm=\"10.20.0.9\", uri=\"sip:10.20.0.9\", response=\"x\"", ""},
		{"X-Mail: ann@10.20.0.9", ""},
		{"History-Info: <sip:1003@10.20.0.9?Reason=SIP%3Bcause%3D302>;index=1", "History-Info: <sip:1003@203.0.113.2?Reason=SIP%3Bcause%3D302>;index=1"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			w := newWall(t, patRule())
			if tt.want == "" {
				tt.want = tt.in
			}
			_, got := w.must(inside, phone, proxy, strings.Replace(request("OPTIONS", 1, "one", phone, proxy, "", ""), "Content-Length", tt.in+"\r\nContent-Length", 1))
			if !strings.Contains(got, "\r\n"+tt.want+"\r\n") {
				t.Errorf("want %q in\n%s", tt.want, got)
			}
		})
	}
}

// TestBodies is what becomes of bodies other than one plain session description.
func TestBodies(t *testing.T) {
	tests := []struct{ name, kind, in, want string }{
		{"IPv6", "application/sdp", "v=0\r\no=- 1 1 IN IP6 2001:db8::11\r\ns=-\r\nc=IN IP6 2001:db8::11\r\nt=0 0\r\nm=audio 16384 RTP/AVP 0\r\n", ""},
		{"host name", "application/sdp", "v=0\r\no=- 1 1 IN IP4 phone.example.com\r\ns=-\r\nc=IN IP4 phone.example.com\r\nt=0 0\r\nm=audio 16384 RTP/AVP 0\r\n", ""},
		{"ICE", "application/sdp",
			"v=0\r\no=- 1 1 IN IP4 10.20.0.11\r\ns=-\r\nc=IN IP4 10.20.0.11\r\nt=0 0\r\nm=audio 16384 RTP/AVP 0\r\n" +
				"a=candidate:1 1 UDP 2130706431 10.20.0.11 16384 typ host\r\na=candidate:1 2 UDP 2130706430 10.20.0.11 16385 typ host\r\n" +
				"a=candidate:2 1 UDP 1694498815 198.51.100.99 50000 typ srflx raddr 10.20.0.11 rport 16384\r\n",
			"v=0\r\no=- 1 1 IN IP4 203.0.113.2\r\ns=-\r\nc=IN IP4 203.0.113.2\r\nt=0 0\r\nm=audio 24576 RTP/AVP 0\r\n" +
				"a=candidate:1 1 UDP 2130706431 203.0.113.2 24576 typ host\r\na=candidate:1 2 UDP 2130706430 203.0.113.2 24577 typ host\r\n" +
				"a=candidate:2 1 UDP 1694498815 198.51.100.99 50000 typ srflx raddr 203.0.113.2 rport 16384\r\n"},
		{"dialogs", "application/dialog-info+xml", "<dialog-info entity=\"sip:1001@10.20.0.9\"><dialog call-id=\"7a@10.20.0.9\" local-tag=\"x\"/></dialog-info>",
			"<dialog-info entity=\"sip:1001@203.0.113.2\"><dialog call-id=\"7a@10.20.0.9\" local-tag=\"x\"/></dialog-info>"},
		{"waiting messages", "application/simple-message-summary", "Messages-Waiting: yes\r\nMessage-Account: sip:1001@10.20.0.9:5060\r\n",
			"Messages-Waiting: yes\r\nMessage-Account: sip:1001@203.0.113.2:5060\r\n"},
		{"binary", "application/octet-stream", "\x00 10.20.0.9 ", ""},
		{"multipart", "multipart/mixed; boundary=xx", "--xx\r\nContent-Type: application/sdp\r\nContent-Length: 91\r\n\r\n" +
			"v=0\r\no=- 1 1 IN IP4 10.20.0.11\r\ns=-\r\nc=IN IP4 10.20.0.11\r\nt=0 0\r\nm=audio 16384 RTP/AVP 0\r\n\r\n--xx\r\nContent-Type: text/plain\r\n\r\nat 10.20.0.9\r\n--xx--\r\n",
			"--xx\r\nContent-Type: application/sdp\r\nContent-Length: 99\r\n\r\n" +
				"v=0\r\no=- 1 1 IN IP4 203.0.113.2\r\ns=-\r\nc=IN IP4 203.0.113.2\r\nt=0 0\r\nm=audio 24576 RTP/AVP 0\r\n\r\n--xx\r\nContent-Type: text/plain\r\n\r\nat 10.20.0.9\r\n--xx--\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, patRule())
			// Ports 16384 and the next are another's.
			var taken []nat.Lease
			for _, p := range []uint16{16384, 16385} {
				l, ok := w.pat.Take(stack.UDP, netip.AddrPortFrom(netip.MustParseAddr("10.20.0.13"), p), outside.Addr.Addr(), nil)
				if !ok {
					t.Fatal("no port")
				}
				taken = append(taken, l)
			}
			if tt.want == "" {
				tt.want = tt.in
			}
			m := request("INVITE", 1, "one", phone, proxy, "", "")
			m = strings.Replace(m, "Content-Length: 0\r\n", fmt.Sprintf("c: %s\r\nl: %d\r\n", tt.kind, len(tt.in)), 1) + tt.in
			_, got := w.must(inside, phone, proxy, m)
			head, out, _ := strings.Cut(got, "\r\n\r\n")
			if i := strings.Index(out, "m=audio "); i >= 0 && strings.Contains(tt.want, "24576") { // whichever pair was free
				port := 0
				fmt.Sscanf(out[i:], "m=audio %d", &port)
				tt.want = strings.Replace(tt.want, "Content-Length: 99", fmt.Sprintf("Content-Length: %d", 87+len(fmt.Sprint(port))), 1)
				tt.want = strings.NewReplacer("24576", fmt.Sprint(port), "24577", fmt.Sprint(port+1)).Replace(tt.want)
			}
			if out != tt.want {
				t.Errorf("body leaves as\n%s\nwant\n%s", out, tt.want)
			}
			if !strings.Contains(head+"\r\n", fmt.Sprintf("\r\nl: %d\r\n", len(out))) {
				t.Errorf("length of %d bytes in\n%s", len(out), head)
			}
			for _, l := range taken {
				l.Release()
			}
			empty(w)
		})
	}
}

// TestTransfer is an attended transfer: REFER with Replaces, NOTIFY of its
// progress, and the INVITE that replaces.
func TestTransfer(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
	at := media(t, got)
	_, refer := w.must(outside, proxy, phoneAs, request("REFER", 5, "one", proxy, phoneAs,
		"Refer-To: <sip:1009@198.51.100.10?Replaces=two%40198.51.100.10%3Bto-tag%3Dq%3Bfrom-tag%3Dr>\nReferred-By: <sip:1002@198.51.100.10>\n", ""))
	w.must(inside, phone, proxy, answer(refer, 202, phone, ""))
	w.must(inside, phone, proxy, request("NOTIFY", 2, "one", phone, proxy, "Event: refer\nSubscription-State: active\n", ""))
	_, got = w.must(inside, phone, proxy, request("INVITE", 1, "three", phone, proxy, "Replaces: two@198.51.100.10;to-tag=q;from-tag=r\n", body("10.20.0.11:18000")))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, body(far2RTP)))
	flowsBothWays(w, "10.20.0.11:18000", media(t, got).String(), far2RTP)
	flowsBothWays(w, rtp, at.String(), farRTP)
	w.must(outside, proxy, phoneAs, request("BYE", 6, "one", proxy, phoneAs, "", ""))
	if passes(w, farRTP, at, rtp) {
		t.Error("media passes after the transferred call's BYE")
	}
	flowsBothWays(w, "10.20.0.11:18000", media(t, got).String(), far2RTP)
	w.must(inside, phone, proxy, request("BYE", 2, "three", phone, proxy, "", ""))
	w.noLeak("203.0.113.2")
	empty(w)
}

// TestConformance has the pinholes of a call take what was signaled for it.
func TestConformance(t *testing.T) {
	w := newWall(t, patRule())
	w.udp.Options.RTP = inspect.RTPSignaled
	rtpOf := func(pt byte) string {
		return string(append([]byte{0x80, pt, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7}, make([]byte, 160)...))
	}
	report := string([]byte{0x80, 201, 0, 1, 0, 0, 0, 7})
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", strings.Replace(body(rtp), "RTP/AVP 0", "RTP/AVP 0 101", 1)))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, strings.Replace(body(farRTP), "RTP/AVP 0", "RTP/AVP 0 96", 1)))
	at := media(t, got).String()
	atRTCP := netip.AddrPortFrom(media(t, got).Addr(), media(t, got).Port()+1).String()
	tests := []struct {
		in            *stack.Interface
		src, dst, pkt string
		want          stack.Verdict
	}{
		{outside, farRTP, at, rtpOf(0), stack.Forward},
		{outside, farRTP, at, rtpOf(101), stack.Forward},
		{inside, rtp, farRTP, rtpOf(96), stack.Forward},
		{outside, farRTP, at, rtpOf(18), stack.DropRTPPayload},
		{inside, rtp, farRTP, rtpOf(18), stack.DropRTPPayload},
		{outside, farRTP, at, "hello, hello", stack.DropRTPVersion},
		{outside, farRTP, at, report, stack.DropRTPPayload},
		{outside, farRTCP, atRTCP, report, stack.Forward},
		{outside, farRTCP, atRTCP, rtpOf(0), stack.DropRTCPPayload},
		{inside, "10.20.0.11:16385", farRTCP, report, stack.Forward},
	}
	for i, tt := range tests {
		if _, _, v := w.send(tt.in, tt.src, tt.dst, tt.pkt); v != tt.want {
			t.Errorf("packet %d from %s to %s: %v, want %v", i, tt.src, tt.dst, v, tt.want)
		}
	}
	// Another payload type by another offer, and T.38 by one more.
	_, got = w.must(inside, phone, proxy, request("INVITE", 2, "one", phone, proxy, "", strings.Replace(body(rtp), "RTP/AVP 0", "RTP/AVP 18", 1)))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, strings.Replace(body(farRTP), "RTP/AVP 0", "RTP/AVP 18", 1)))
	if _, _, v := w.send(outside, farRTP, at, rtpOf(18)); v != stack.Forward {
		t.Errorf("payload type 18 after it was signaled: %v", v)
	}
	fax := func(m string) string { return strings.Replace(m, "m=audio", "m=image", 1) }
	fax38 := func(m string) string { return strings.Replace(fax(m), "RTP/AVP 0", "udptl t38", 1) }
	_, got = w.must(inside, phone, proxy, request("INVITE", 3, "one", phone, proxy, "", fax38(body(rtp))))
	w.must(outside, proxy, phoneAs, answer(got, 200, proxy, fax38(body(farRTP))))
	if _, _, v := w.send(outside, farRTP, at, "\x00\x01\x02udptl"); v != stack.Forward {
		t.Errorf("T.38 after it was signaled: %v", v)
	}
	w.must(inside, phone, proxy, request("BYE", 4, "one", phone, proxy, "", ""))
	empty(w)
}
