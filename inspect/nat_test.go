package inspect_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/nat"
	"patchbay/stack"
)

var (
	outside = &stack.Interface{Name: "outside", Level: 0, Addr: netip.MustParsePrefix("203.0.113.2/24")}
	inside  = &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("10.20.0.1/24")}
	began   = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// A wall is a small firewall: NAT, inside may open, outside needs a pinhole or
// a static address with SIP or media allowed by nothing.
type wall struct {
	t        testing.TB
	now      time.Time
	rules    *nat.Rules
	table    *nat.Table
	pat      *nat.PAT
	nat      *inspect.NAT
	udp      *inspect.Datagrams
	open5060 bool     // an access list lets the outside open SIP
	log      [][]byte // every payload that left by outside
	in       [][]byte // and by inside
}

func newWall(t testing.TB, rules ...nat.Rule) *wall {
	t.Helper()
	w := &wall{t: t, now: began}
	chance := rand.NewChaCha8([32]byte{7})
	var err error
	if w.rules, err = nat.NewRules(rules); err != nil {
		t.Fatal(err)
	}
	route := func(a netip.Addr) *stack.Interface {
		if inside.Addr.Contains(a) {
			return inside
		}
		return outside
	}
	if w.table, err = nat.NewTable(nat.TableConfig{Rand: chance, Route: route}); err != nil {
		t.Fatal(err)
	}
	w.pat = nat.NewPAT(chance)
	w.nat = &inspect.NAT{Table: w.table, PAT: w.pat, Route: route}
	w.nat.SetRules(w.rules)
	tm := nat.DefaultTimeouts()
	w.udp = &inspect.Datagrams{NAT: w.nat, Engine: &sip.Engine{
		Client: sip.UDP, Server: sip.UDP, NAT: true, MaxCalls: 1000,
		InviteTimeout: tm.SIPInvite, DisconnectTimeout: tm.SIPDisconnect, Timeout: tm.SIP,
	}}
	return w
}

func patRule() nat.Rule {
	return nat.Rule{Name: "pat", Real: inside, Mapped: outside, Kind: nat.Dynamic,
		Source: nat.Subnet(netip.MustParsePrefix("10.20.0.0/24")), MappedInterface: true}
}

func staticRule(real, mapped string) nat.Rule {
	return nat.Rule{Name: "static " + real, Real: inside, Mapped: outside, Kind: nat.Static,
		Source: nat.Host(netip.MustParseAddr(real)), MappedSource: nat.Host(netip.MustParseAddr(mapped))}
}

// send passes a datagram, and returns the flow and payload it leaves with.
func (w *wall) send(in *stack.Interface, src, dst, payload string) (stack.Flow, string, stack.Verdict) {
	w.t.Helper()
	w.now = w.now.Add(20 * time.Millisecond)
	p := stack.NewPacket(4096)
	p.In, p.Time = in, w.now
	if !p.SetData(stack.AppendUDP(nil, stack.Flow{Proto: stack.UDP, Src: ap(src), Dst: ap(dst)}, []byte(payload))) {
		w.t.Fatal("packet does not fit")
	}
	if v := p.Parse(); v != stack.Forward {
		w.t.Fatalf("Parse() = %v", v)
	}
	v := w.admit(p)
	if v != stack.Forward {
		return stack.Flow{}, "", v
	}
	got := bytes.Clone(p.Payload())
	if p.Out == outside {
		w.log = append(w.log, got)
		if a := p.Flow().Src.Addr(); inside.Addr.Contains(a) {
			w.t.Errorf("inside address %v left", a)
		}
	} else {
		w.in = append(w.in, got)
	}
	q := stack.NewPacket(4096)
	if q.SetData(p.Data()); q.Parse() != stack.Forward {
		w.t.Errorf("packet of %v leaves with a bad checksum or length", p.Flow())
	}
	return p.Flow(), string(got), v
}

func (w *wall) admit(p *stack.Packet) stack.Verdict {
	c, from := w.table.Lookup(p)
	if c == nil {
		c, from = w.table.Claim(p)
	}
	if c == nil {
		f := p.Flow()
		real, un, _ := w.rules.Untranslate(p.In, f)
		f.Dst = real
		out := outside
		if inside.Addr.Contains(real.Addr()) {
			out = inside
		}
		if p.In == outside && !(w.open5060 && real.Port() == 5060) {
			return stack.DropACL
		}
		src, v := w.rules.Translate(p.In, out, f, un, w.pat)
		if v != stack.Forward {
			return v
		}
		o := nat.Opening{Out: out, Server: stack.Flow{Proto: f.Proto, Src: src.Mapped, Dst: real}, UnRule: un, Source: src}
		if real.Port() == 5060 {
			o.Handler, o.Idle, o.Mark = w.udp, nat.DefaultTimeouts().SIP, "T"
		}
		if c, from, v = w.table.Open(p, o); v != stack.Forward {
			return v
		}
	}
	return c.Handle(p, from)
}

// must is send of what must pass.
func (w *wall) must(in *stack.Interface, src, dst, payload string) (stack.Flow, string) {
	w.t.Helper()
	f, got, v := w.send(in, src, dst, payload)
	if v != stack.Forward {
		w.t.Fatalf("%s to %s: %v:\n%s", src, dst, v, payload)
	}
	return f, got
}

// noLeak fails if an inside address is in what left by outside, or one of the
// foreign ones in what left by inside.
func (w *wall) noLeak(foreign ...string) {
	w.t.Helper()
	for _, m := range w.log {
		if bytes.Contains(m, []byte("10.20.0.")) {
			w.t.Errorf("an inside address left:\n%s", m)
		}
	}
	for _, m := range w.in {
		for _, a := range foreign {
			if bytes.Contains(m, []byte(a)) {
				w.t.Errorf("%s came in:\n%s", a, m)
			}
		}
	}
}

// quiet fails if a pinhole is left beside n.
func (w *wall) quiet(n int) {
	w.t.Helper()
	w.table.Holes(func(h *nat.Hole) bool {
		if h.Reason == "RTP" || h.Reason == "RTCP" {
			w.t.Errorf("pinhole left: %s %v to %v", h.Reason, h.Match, h.To)
		}
		return true
	})
	if got := w.table.Pinholes(); got != n {
		w.t.Errorf("%d pinholes are left, want %d", got, n)
	}
}

// pass lets time go by, as the box's own ticks see it: each second of a short
// time, and of a long one every fifth of a minute.
func (w *wall) pass(d time.Duration) {
	tick := time.Second
	if d > time.Minute {
		tick = 12 * time.Second
	}
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(tick, end.Sub(w.now)))
		w.table.Expire(w.now)
		w.udp.Expire(w.now)
		w.pat.Expire(w.now)
	}
}

// body is a session description for audio at an address.
func body(at string) string {
	a := ap(at)
	return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio %d RTP/AVP 0\r\na=sendrecv\r\n", a.Addr(), a.Addr(), a.Port())
}

// msg writes a SIP message: fields with "\n", and a body.
func msg(head, sdp string) string {
	head = strings.ReplaceAll(strings.TrimSpace(head), "\n", "\r\n") + "\r\n"
	if sdp != "" {
		head += "Content-Type: application/sdp\r\n"
	}
	return head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(sdp)) + sdp
}

// request writes a request of end a to b, in a call.
func request(method string, cseq int, call, a, b, more, sdp string) string {
	m := method
	if method == "ACK" || method == "CANCEL" {
		m = "INVITE"
	}
	return msg(fmt.Sprintf(`%s sip:1002@%s SIP/2.0
Via: SIP/2.0/UDP %s;branch=z9hG4bK%s%d%s
Max-Forwards: 70
From: <sip:1001@%s>;tag=a%s
To: <sip:1002@%s>
Call-ID: %s
CSeq: %d %s
Contact: <sip:1001@%s>
%s`, method, b, a, call, cseq, m, ap(a).Addr(), call, ap(b).Addr(), call, cseq, method, a, more), sdp)
}

// header returns the value of the first field of that name.
func header(m, name string) string {
	for line := range strings.SplitSeq(m, "\r\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

// answer writes an answer to a request as b got it.
func answer(req string, status int, contact, sdp string) string {
	var vias []string
	for line := range strings.SplitSeq(req, "\r\n") {
		if strings.HasPrefix(line, "Via: ") {
			vias = append(vias, line)
		}
	}
	head := fmt.Sprintf("SIP/2.0 %d Status\n%s\nFrom: %s\nTo: %s;tag=b\nCall-ID: %s\nCSeq: %s\n", status,
		strings.Join(vias, "\n"), header(req, "From"), header(req, "To"), header(req, "Call-ID"), header(req, "CSeq"))
	if contact != "" {
		head += "Contact: <sip:1002@" + contact + ">\n"
	}
	return msg(head, sdp)
}

// media returns where a message's session description wants its audio.
func media(t testing.TB, m string) netip.AddrPort {
	t.Helper()
	var addr string
	var port int
	for line := range strings.SplitSeq(m, "\r\n") {
		if a, ok := strings.CutPrefix(line, "c=IN IP4 "); ok {
			addr = a
		}
		fmt.Sscanf(line, "m=audio %d", &port)
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || port == 0 {
		t.Fatalf("no media in\n%s", m)
	}
	return netip.AddrPortFrom(a, uint16(port))
}
