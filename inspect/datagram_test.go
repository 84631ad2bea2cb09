package inspect_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/nat"
	"patchbay/stack"
)

const (
	phone   = "10.20.0.11:5060"
	phone2  = "10.20.0.12:5060"
	proxy   = "198.51.100.10:5060"
	caller  = "198.51.100.77:5060"
	rtp     = "10.20.0.11:16384"
	farRTP  = "198.51.100.20:20000"
	farRTCP = "198.51.100.20:20001"
)

// flowsBothWays sends media between the ends of a call and fails where it does
// not come out as it must: a is the inside socket, shown as mapped.
func flowsBothWays(w *wall, a, mapped, far string) {
	w.t.Helper()
	f, _, v := w.send(outside, far, mapped, "media in")
	if v != stack.Forward || f.Dst != ap(a) || f.Src != ap(far) {
		w.t.Errorf("media %s to %s = %v, %v; want to %s", far, mapped, f, v, a)
	}
	f, _, v = w.send(inside, a, far, "media out")
	if v != stack.Forward || f.Src != ap(mapped) || f.Dst != ap(far) {
		w.t.Errorf("media %s to %s = %v, %v; want from %s", a, far, f, v, mapped)
	}
}

// TestCallFromInside is a whole call through dynamic PAT and static NAT: early
// media, answer, hold, moved media, BYE, and a second call that is cancelled.
func TestCallFromInside(t *testing.T) {
	tests := []struct {
		name   string
		rule   nat.Rule
		mapped string // of the phone
	}{
		{"dynamic PAT", patRule(), "203.0.113.2"},
		{"static", staticRule("10.20.0.11", "203.0.113.11"), "203.0.113.11"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, tt.rule)
			f, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
			if f.Src.Addr().String() != tt.mapped || strings.Contains(got, "10.20.") {
				t.Fatalf("INVITE leaves from %v as\n%s", f.Src, got)
			}
			mapped := f.Src.String()
			at := media(t, got)
			if at.Addr().String() != tt.mapped || at.Port()%2 != 0 {
				t.Errorf("media is announced at %v, want an even port of %s", at, tt.mapped)
			}
			if n := header(got, "Contact"); n != "<sip:1001@"+mapped+">" {
				t.Errorf("Contact = %s, want %s", n, mapped)
			}
			// Early media, from anywhere: nobody has said from where.
			if f, _, v := w.send(outside, farRTP, at.String(), "early"); v != stack.Forward || f.Dst != ap(rtp) {
				t.Errorf("early media goes to %v, %v; want %s", f.Dst, v, rtp)
			}
			if _, _, v := w.send(outside, farRTP, netip.AddrPortFrom(at.Addr(), at.Port()+2).String(), "early"); v == stack.Forward {
				t.Errorf("media to a port that nobody announced passes")
			}
			_, back := w.must(outside, proxy, mapped, answer(got, 183, proxy, body(farRTP)))
			if header(back, "Via") != "SIP/2.0/UDP "+phone+";branch=z9hG4bKone1INVITE" {
				t.Errorf("Via comes back as %s", header(back, "Via"))
			}
			w.must(outside, proxy, mapped, answer(got, 200, proxy, body(farRTP)))
			w.must(inside, phone, proxy, request("ACK", 1, "one", phone, proxy, "", ""))
			flowsBothWays(w, rtp, at.String(), farRTP)
			flowsBothWays(w, "10.20.0.11:16385", netip.AddrPortFrom(at.Addr(), at.Port()+1).String(), farRTCP)

			// Hold, and back at another port.
			_, got = w.must(inside, phone, proxy, request("INVITE", 2, "one", phone, proxy, "", strings.Replace(body(rtp), "sendrecv", "sendonly", 1)))
			if again := media(t, got); again != at {
				t.Errorf("held media is announced at %v, was at %v", again, at)
			}
			w.must(outside, proxy, mapped, answer(got, 200, proxy, body(farRTP)))
			const moved = "10.20.0.11:18000"
			_, got = w.must(inside, phone, proxy, request("INVITE", 3, "one", phone, proxy, "", body(moved)))
			at2 := media(t, got)
			w.must(outside, proxy, mapped, answer(got, 200, proxy, body("198.51.100.21:30000")))
			flowsBothWays(w, moved, at2.String(), "198.51.100.21:30000")
			if _, _, v := w.send(outside, farRTP, at.String(), "late"); v == stack.Forward {
				t.Errorf("media to the port before still passes")
			}
			_, got = w.must(inside, phone, proxy, request("BYE", 4, "one", phone, proxy, "", ""))
			w.must(outside, proxy, mapped, answer(got, 200, "", ""))
			if _, _, v := w.send(outside, "198.51.100.21:30000", at2.String(), "late"); v == stack.Forward {
				t.Errorf("media passes after BYE")
			}

			// A call that is given up.
			_, got = w.must(inside, phone, proxy, request("INVITE", 1, "two", phone, proxy, "", body(rtp)))
			w.must(outside, proxy, mapped, answer(got, 180, proxy, ""))
			_, cancel := w.must(inside, phone, proxy, request("CANCEL", 1, "two", phone, proxy, "", ""))
			w.must(outside, proxy, mapped, answer(cancel, 200, "", ""))
			w.must(outside, proxy, mapped, answer(got, 487, "", ""))
			w.quiet(0)

			// One that fails, and one that nobody answers.
			_, got = w.must(inside, phone, proxy, request("INVITE", 1, "three", phone, proxy, "", body(rtp)))
			w.must(outside, proxy, mapped, answer(got, 486, "", ""))
			w.quiet(0)
			w.must(inside, phone, proxy, request("INVITE", 1, "four", phone, proxy, "", body(rtp)))
			w.pass(4 * time.Minute)
			w.quiet(0)
			w.noLeak(tt.mapped)
			w.pass(time.Hour)
			w.quiet(0)
			if n := w.table.Len() + w.udp.Conversations() + w.nat.Contacts(); n != 0 {
				t.Errorf("%d connections, %d conversations, %d contacts are left", w.table.Len(), w.udp.Conversations(), w.nat.Contacts())
			}
			l, ok := w.pat.Take(stack.UDP, ap("10.20.0.99:16384"), outside.Addr.Addr(), nil)
			if !ok || l.Mapped().Port() != 16384 {
				t.Errorf("port 16384 is not free at the end: %v, %v", l.Mapped(), ok)
			}
		})
	}
}

// TestPortPairs makes two phones use the same ports: the second must get an
// even port and the next.
func TestPortPairs(t *testing.T) {
	w := newWall(t, patRule())
	_, one := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	_, two := w.must(inside, phone2, proxy, request("INVITE", 1, "two", phone2, proxy, "", body("10.20.0.12:16384")))
	a, b := media(t, one), media(t, two)
	if a != ap("203.0.113.2:16384") || b.Port() == a.Port() || b.Port()%2 != 0 {
		t.Fatalf("media at %v and %v, want 16384 and another even port", a, b)
	}
	f, _ := w.must(outside, "198.51.100.20:9", netip.AddrPortFrom(b.Addr(), b.Port()+1).String(), "rtcp")
	if f.Dst != ap("10.20.0.12:16385") {
		t.Errorf("RTCP goes to %v", f.Dst)
	}
	f, _ = w.must(outside, "198.51.100.20:8", b.String(), "rtp")
	if f.Dst != ap("10.20.0.12:16384") {
		t.Errorf("RTP goes to %v", f.Dst)
	}
	w.noLeak()
}

// TestRTCP is a=rtcp: somewhere else than at the next port.
func TestRTCP(t *testing.T) {
	w := newWall(t, patRule())
	sdp := body(rtp) + "a=rtcp:17001 IN IP4 10.20.0.11\r\n"
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", sdp))
	if !strings.Contains(got, "a=rtcp:17001 IN IP4 203.0.113.2\r\n") {
		t.Errorf("INVITE leaves as\n%s", got)
	}
	if f, _ := w.must(outside, "198.51.100.20:9", "203.0.113.2:17001", "rtcp"); f.Dst != ap("10.20.0.11:17001") {
		t.Errorf("RTCP goes to %v", f.Dst)
	}
	w.noLeak()
}

// TestCallFromOutside calls a server that has a static address.
func TestCallFromOutside(t *testing.T) {
	w := newWall(t, staticRule("10.20.0.5", "203.0.113.5"), patRule())
	w.open5060 = true
	const mapped, real = "203.0.113.5:5060", "10.20.0.5:5060"
	f, got := w.must(outside, caller, mapped, request("INVITE", 1, "one", caller, mapped, "", body(farRTP)))
	if f.Dst != ap(real) || !strings.HasPrefix(got, "INVITE sip:1002@"+real+" ") || strings.Contains(got, "203.0.113.5") {
		t.Fatalf("INVITE comes to %v as\n%s", f.Dst, got)
	}
	if media(t, got) != ap(farRTP) {
		t.Errorf("media of the caller becomes %v", media(t, got))
	}
	// The server answers with the media of a phone behind PAT.
	_, back := w.must(inside, real, caller, answer(got, 200, real, body(rtp)))
	if !strings.Contains(header(back, "To"), "203.0.113.5") || header(back, "Contact") != "<sip:1002@"+mapped+">" {
		t.Errorf("200 leaves as\n%s", back)
	}
	at := media(t, back)
	if at.Addr() != outside.Addr.Addr() {
		t.Errorf("media of the phone is announced at %v", at)
	}
	w.must(outside, caller, mapped, request("ACK", 1, "one", caller, mapped, "", ""))
	flowsBothWays(w, rtp, at.String(), farRTP)
	if _, _, v := w.send(outside, "198.51.100.99:20000", at.String(), "stranger"); v == stack.Forward {
		t.Errorf("media of a stranger passes after the answer")
	}
	// The server hangs up.
	_, bye := w.must(inside, real, caller, request("BYE", 1, "one", real, caller, "", ""))
	w.must(outside, caller, mapped, answer(bye, 200, "", ""))
	w.noLeak("203.0.113.5")
	w.quiet(0)
	if n := w.table.Len(); n != 1 {
		t.Errorf("%d connections are left, want that of signaling", n)
	}
}

// TestRegisterThenCall registers through PAT from another port than the phone
// listens at, and lets the registrar call after the connection is forgotten.
func TestRegisterThenCall(t *testing.T) {
	const from = "10.20.0.11:49152"
	for _, idle := range []time.Duration{0, 40 * time.Minute} {
		t.Run(idle.String(), func(t *testing.T) {
			w := newWall(t, patRule())
			// The phone next door has port 5060 of the interface.
			if _, ok := w.pat.Take(stack.UDP, ap("10.20.0.13:5060"), outside.Addr.Addr(), nil); !ok {
				t.Fatal("no port")
			}
			f, got := w.must(inside, from, proxy, request("REGISTER", 1, "reg", phone, proxy, "Expires: 3600\n", ""))
			contact := strings.TrimSuffix(strings.TrimPrefix(header(got, "Contact"), "<sip:1001@"), ">")
			if at := ap(contact); at.Addr() != outside.Addr.Addr() || at.Port() == 5060 || at == f.Src {
				t.Fatalf("Contact = %v, want another port of the interface", at)
			}
			_, ok := w.must(outside, proxy, f.Src.String(), answer(got, 200, contact, ""))
			if header(ok, "Contact") != "<sip:1002@"+phone+">" {
				t.Errorf("200 comes with Contact %s, want %s", header(ok, "Contact"), phone)
			}
			w.pass(idle)
			if _, _, v := w.send(outside, "198.51.100.66:5060", contact, request("OPTIONS", 1, "scan", "198.51.100.66:5060", contact, "", "")); v == stack.Forward {
				t.Errorf("a stranger reaches the phone")
			}
			f, invite := w.must(outside, proxy, contact, request("INVITE", 7, "in", proxy, contact, "", body(farRTP)))
			if f.Dst != ap(phone) || !strings.HasPrefix(invite, "INVITE sip:1002@"+phone+" ") {
				t.Fatalf("INVITE comes to %v as\n%s", f.Dst, invite)
			}
			_, back := w.must(inside, phone, proxy, answer(invite, 200, phone, body(rtp)))
			if header(back, "Contact") != "<sip:1002@"+contact+">" {
				t.Errorf("200 leaves with Contact %s, want %s", header(back, "Contact"), contact)
			}
			flowsBothWays(w, rtp, media(t, back).String(), farRTP)
			_, bye := w.must(outside, proxy, contact, request("BYE", 8, "in", proxy, contact, "", ""))
			w.must(inside, phone, proxy, answer(bye, 200, "", ""))
			if idle == 0 {
				// Taken back.
				w.must(inside, from, proxy, request("REGISTER", 2, "reg", phone, proxy, "Expires: 0\n", ""))
			} else {
				w.pass(30 * time.Minute)
			}
			w.noLeak("203.0.113.2")
			w.quiet(0)
			if n := w.nat.Contacts(); n != 0 {
				t.Errorf("%d contacts are left", n)
			}
		})
	}
}

// TestMediaOnOneSide calls from one inside phone to another by an outside
// proxy: each is told the real address of the other.
func TestMediaOnOneSide(t *testing.T) {
	w := newWall(t, patRule())
	f1, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	f2, reg := w.must(inside, phone2, proxy, request("REGISTER", 1, "reg", phone2, proxy, "", ""))
	w.must(outside, proxy, f2.Src.String(), answer(reg, 200, "", ""))
	offered := media(t, got)
	_, invite := w.must(outside, proxy, f2.Src.String(), request("INVITE", 1, "two", proxy, f2.Src.String(), "", body(offered.String())))
	if at := media(t, invite); at != ap(rtp) {
		t.Errorf("the second phone is told %v, want %s", at, rtp)
	}
	_, ok := w.must(inside, phone2, proxy, answer(invite, 200, phone2, body("10.20.0.12:16390")))
	answered := media(t, ok)
	_, back := w.must(outside, proxy, f1.Src.String(), answer(got, 200, proxy, body(answered.String())))
	if at := media(t, back); at != ap("10.20.0.12:16390") {
		t.Errorf("the first phone is told %v", at)
	}
	w.must(inside, phone, proxy, request("BYE", 2, "one", phone, proxy, "", ""))
	w.must(outside, proxy, f2.Src.String(), request("BYE", 2, "two", proxy, f2.Src.String(), "", ""))
	w.noLeak()
	w.table.Holes(func(h *nat.Hole) bool {
		if h.Reason != "SIGNALLING" && h.Reason != "REGISTER" {
			t.Errorf("pinhole left: %s %v", h.Reason, h.Match)
		}
		return true
	})
}

// TestViaPort is a request whose answers go to another port than it came from.
func TestViaPort(t *testing.T) {
	w := newWall(t, patRule())
	f, got := w.must(inside, "10.20.0.11:50000", proxy, request("OPTIONS", 1, "one", phone, proxy, "", ""))
	sent := strings.TrimPrefix(header(got, "Via"), "SIP/2.0/UDP ")
	sent, _, _ = strings.Cut(sent, ";")
	if ap(sent) == f.Src {
		t.Fatalf("sent-by is the source %v", sent)
	}
	f, back := w.must(outside, proxy, sent, answer(got, 200, proxy, ""))
	if f.Dst != ap(phone) || !strings.HasPrefix(header(back, "Via"), "SIP/2.0/UDP "+phone+";") {
		t.Errorf("200 comes to %v with Via %s", f.Dst, header(back, "Via"))
	}
	w.noLeak("203.0.113.2")
}

// TestManyVias takes the inside proxy's Vias, Record-Routes and identities
// through, and gives the answer back what it had.
func TestManyVias(t *testing.T) {
	w := newWall(t, patRule())
	more := "Via: SIP/2.0/UDP 10.20.0.40:5070;branch=z9hG4bKlow;received=10.20.0.41, SIP/2.0/UDP 10.20.0.42;branch=z9hG4bKlow2\n" +
		"Record-Route: <sip:10.20.0.11;lr>\nP-Asserted-Identity: <sip:1001@10.20.0.9>\nHistory-Info: <sip:x@10.20.0.8>;index=1\n"
	f, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, more, body(rtp)))
	w.noLeak()
	_, back := w.must(outside, proxy, f.Src.String(), answer(got, 200, proxy, body(farRTP)))
	if !strings.Contains(back, "Via: SIP/2.0/UDP 10.20.0.40:5070;branch=z9hG4bKlow;received=10.20.0.41, SIP/2.0/UDP 10.20.0.42;branch=z9hG4bKlow2\r\n") {
		t.Errorf("200 comes back as\n%s", back)
	}
}

// TestVerdicts is what Datagrams does with what is no message.
func TestVerdicts(t *testing.T) {
	tests := []struct {
		name, payload string
		m             sip.Map
		want          stack.Verdict
		closed        bool
	}{
		{"keepalive", "\r\n\r\n", sip.Map{}, stack.Forward, false},
		{"empty", "", sip.Map{}, stack.Forward, false},
		{"not SIP", "\x00\x01\x02", sip.Map{}, stack.DropInspect, false},
		{"not SIP, allowed", "\x00\x01\x02", sip.Map{NonSIP: true}, stack.Forward, false},
		{"cut", "OPTIONS sip:a@198.51.100.10 SIP/2.0\r\nVia: ", sip.Map{NonSIP: true}, stack.DropInspect, false},
		{"no Via", "OPTIONS sip:a@198.51.100.10 SIP/2.0\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n", sip.Map{}, stack.DropInspect, false},
		{"no hop left", strings.Replace(request("OPTIONS", 1, "x", phone, proxy, "", ""), "70", "0", 1), sip.Map{MaxForwards: inspect.Drop}, stack.DropInspect, false},
		{"and the connection", strings.Replace(request("OPTIONS", 1, "x", phone, proxy, "", ""), "70", "0", 1), sip.Map{MaxForwards: inspect.DropConnection | inspect.Log}, stack.DropInspect, true},
		{"log only", strings.Replace(request("OPTIONS", 1, "x", phone, proxy, "", ""), "70", "0", 1), sip.Map{MaxForwards: inspect.Log}, stack.Forward, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWall(t, patRule())
			e := *w.udp.Engine.(*sip.Engine)
			e.Map = tt.m
			w.udp.Engine = &e
			_, _, v := w.send(inside, phone, proxy, tt.payload)
			if v != tt.want || (w.table.Len() == 0) != tt.closed {
				t.Errorf("verdict %v with %d connections left, want %v, closed %v", v, w.table.Len(), tt.want, tt.closed)
			}
		})
	}
}

// TestTrailing cuts what stands behind a message, which nobody has translated.
func TestTrailing(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("OPTIONS", 1, "x", phone, proxy, "", "")+"hidden 10.20.0.11")
	if strings.Contains(got, "hidden") {
		t.Errorf("leaves as\n%s", got)
	}
	w.noLeak()
}

// TestStream is a call over TCP: both halves terminated, the binder between.
func TestStreamNAT(t *testing.T) {
	w := newWall(t, patRule())
	const as = "203.0.113.2:41000"
	conv := inspect.Conversation{
		In: inside, Out: outside,
		Client: stack.Flow{Proto: stack.TCP, Src: ap("10.20.0.11:40000"), Dst: ap(proxy)},
		Server: stack.Flow{Proto: stack.TCP, Src: ap(as), Dst: ap(proxy)},
	}
	b := w.nat.Binder(conv, inspect.Options{Now: func() time.Time { return w.now }})
	c1, c2 := net.Pipe()
	s1, s2 := net.Pipe()
	st := &inspect.Stream{Client: c2, Server: s1, Engine: &sip.Engine{Client: sip.TCP, Server: sip.TCP, NAT: true}, Binder: b}
	done := make(chan error, 1)
	go func() { done <- st.Run(context.Background()) }()
	pass := func(from, to net.Conn, m string) string {
		t.Helper()
		go from.Write([]byte(m))
		buf := make([]byte, 8192)
		to.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := to.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	tcp := strings.NewReplacer("SIP/2.0/UDP", "SIP/2.0/TCP", ":5060", ":40000")
	got := pass(c1, s2, tcp.Replace(request("INVITE", 1, "one", phone, proxy, "", body(rtp))))
	if strings.Contains(got, "10.20.") || !strings.Contains(got, "Via: SIP/2.0/TCP "+as) || header(got, "Contact") != "<sip:1001@"+as+">" {
		t.Errorf("INVITE leaves as\n%s", got)
	}
	at := media(t, got)
	back := pass(s2, c1, answer(got, 200, proxy, body(farRTP)))
	if !strings.Contains(back, "Via: SIP/2.0/TCP 10.20.0.11:40000") {
		t.Errorf("200 comes as\n%s", back)
	}
	flowsBothWays(w, rtp, at.String(), farRTP)
	c1.Close()
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	b.Close()
	s2.Close()
	w.quiet(0)
	if n := w.table.Len(); n != 0 {
		t.Errorf("%d media connections are left", n)
	}
}

// TestRegisterTCP registers over TCP: the pinhole leads to the box, which can
// say what it must dial.
func TestRegisterTCP(t *testing.T) {
	w := newWall(t, patRule())
	box := &stack.Interface{Name: stack.IdentityName}
	w.nat.Terminate = box
	conv := inspect.Conversation{
		In: inside, Out: outside,
		Client: stack.Flow{Proto: stack.TCP, Src: ap("10.20.0.11:40000"), Dst: ap(proxy)},
		Server: stack.Flow{Proto: stack.TCP, Src: ap("203.0.113.2:41000"), Dst: ap(proxy)},
	}
	b := w.nat.Binder(conv, inspect.Options{Now: func() time.Time { return w.now }})
	at := b.Reach(ap(phone), nat.Client, inspect.ForRegistration, "", time.Hour)
	b.Close()
	p := stack.NewPacket(100)
	p.In, p.Time = outside, w.now
	p.SetData(stack.AppendTCP(nil, stack.Flow{Proto: stack.TCP, Src: ap("198.51.100.10:33333"), Dst: at}, stack.TCPHeader{Flags: stack.FlagSYN}, nil))
	p.Parse()
	c, _ := w.table.Claim(p)
	if c == nil || c.Out != box || c.Server().Dst != at {
		t.Fatalf("Claim() = %v, want a connection to the box", c)
	}
	if real, behind, ok := w.nat.Contact(outside, stack.TCP, at); !ok || real != ap(phone) || behind != inside {
		t.Errorf("Contact(%v) = %v, %v, %v", at, real, behind, ok)
	}
	w.nat.Expire(w.now.Add(2 * time.Hour))
	if _, _, ok := w.nat.Contact(outside, stack.TCP, at); ok || w.nat.Contacts() != 0 {
		t.Errorf("%d contacts are left", w.nat.Contacts())
	}
}

// TestBounds books more than a conversation may have.
func TestBounds(t *testing.T) {
	w := newWall(t, patRule())
	b := w.nat.Binder(inspect.Conversation{
		In: inside, Out: outside,
		Client: stack.Flow{Proto: stack.UDP, Src: ap(phone), Dst: ap(proxy)},
		Server: stack.Flow{Proto: stack.UDP, Src: ap("203.0.113.2:5060"), Dst: ap(proxy)},
	}, inspect.Options{Now: func() time.Time { return w.now }})
	for i := range 3 * inspect.MaxReached {
		b.Reach(netip.AddrPortFrom(ap(phone).Addr(), uint16(6000+i)), nat.Client, inspect.ForDialog, "c", 0)
	}
	if n := w.nat.Contacts(); n != inspect.MaxReached {
		t.Errorf("%d contacts, want %d", n, inspect.MaxReached)
	}
	failed := 0
	for i := range inspect.MaxStreams + 10 {
		m := inspect.Media{Call: "c", Stream: string(rune('0' + i)), Addr: netip.AddrPortFrom(ap(phone).Addr(), uint16(20000+2*i))}
		if _, err := b.Media(m, nat.Client); err != nil {
			failed++
		}
	}
	if failed != 10 {
		t.Errorf("%d streams were refused, want 10", failed)
	}
	b.Close()
	w.quiet(0)
}

// TestEndsElsewhere ends a call in another conversation than it began in: the
// far end's BYE did not come by the proxy.
func TestEndsElsewhere(t *testing.T) {
	w := newWall(t, patRule())
	_, got := w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
	w.must(outside, proxy, "203.0.113.2:5060", answer(got, 200, proxy, body(farRTP)))
	flowsBothWays(w, rtp, media(t, got).String(), farRTP)
	w.must(inside, phone, caller, request("BYE", 2, "one", phone, caller, "", ""))
	w.table.Holes(func(h *nat.Hole) bool {
		if h.Reason == "RTP" || h.Reason == "RTCP" {
			t.Errorf("pinhole left: %s %v", h.Reason, h.Match)
		}
		return true
	})
	if n := w.table.Len(); n != 2 {
		t.Errorf("%d connections, want the two of signaling", n)
	}
}

// TestUnchangedAllocs holds a keepalive to no allocation.
func TestUnchangedAllocs(t *testing.T) {
	w := newWall(t, patRule())
	p := stack.NewPacket(200)
	p.In, p.Time = inside, w.now
	data := stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: ap(phone), Dst: ap(proxy)}, []byte("\r\n\r\n"))
	once := func() {
		p.SetData(data)
		p.Parse()
		if v := w.admit(p); v != stack.Forward {
			t.Fatalf("verdict %v", v)
		}
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations for a keepalive", n)
	}
}

func FuzzDatagrams(f *testing.F) {
	f.Add([]byte(request("INVITE", 1, "one", phone, proxy, "", body(rtp))), []byte(answer(request("INVITE", 1, "one", phone, proxy, "", ""), 200, proxy, body(farRTP))))
	f.Add([]byte(request("REGISTER", 1, "one", phone, proxy, "Expires: 10\n", "")), []byte(request("INVITE", 1, "two", proxy, "203.0.113.2:5060", "", body(farRTP))))
	f.Add([]byte("\r\n\r\n"), []byte("SIP/2.0 200 OK\r\n\r\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a) > 3000 || len(b) > 3000 {
			return
		}
		w := newWall(t, patRule())
		w.send(inside, phone, proxy, string(a))
		w.send(outside, proxy, "203.0.113.2:5060", string(b))
		w.send(inside, phone, proxy, string(b))
		w.table.Expire(w.now.Add(48 * time.Hour))
		w.table.Clear(func(*nat.Conn) bool { return true })
		w.udp.Expire(w.now.Add(48 * time.Hour))
		w.quiet(0)
		if w.nat.Contacts() != 0 || w.udp.Conversations() != 0 {
			t.Errorf("%d contacts, %d conversations are left", w.nat.Contacts(), w.udp.Conversations())
		}
	})
}

// BenchmarkDatagrams is a message in a call that is known, through PAT.
func BenchmarkDatagrams(b *testing.B) {
	tests := []struct{ name, msg string }{
		{"OPTIONS", request("OPTIONS", 1, "one", phone, proxy, "", "")},
		{"INVITE", request("INVITE", 2, "one", phone, proxy, "User-Agent: x\nRemote-Party-ID: <sip:1001@10.20.0.11>\n", body(rtp))},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			w := newWall(b, patRule())
			w.must(inside, phone, proxy, request("INVITE", 1, "one", phone, proxy, "", body(rtp)))
			p := stack.NewPacket(4096)
			p.In, p.Time = inside, w.now
			data := stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: ap(phone), Dst: ap(proxy)}, []byte(tt.msg))
			b.SetBytes(int64(len(tt.msg)))
			b.ReportAllocs()
			for b.Loop() {
				p.SetData(data)
				p.Parse()
				if v := w.admit(p); v != stack.Forward {
					b.Fatal(v)
				}
			}
		})
	}
}
