package inspect_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/nat"
	"patchbay/stack"
	"patchbay/stack/link"
)

// captureDir has other people's captures, beside the repository; what needs
// them skips without.
const captureDir = "../../shared/pcaps/"

// A capturedSIP is one message as it was on the wire.
type capturedSIP struct {
	flow stack.Flow
	raw  []byte
}

// readSIP takes the SIP messages out of a capture, in the order in which they
// were complete.
func readSIP(t *testing.T, file string) []capturedSIP {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := link.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	type half struct {
		next    uint32
		begun   bool
		waiting map[uint32][]byte
		buf     []byte
	}
	var out []capturedSIP
	halves := make(map[stack.Flow]*half)
	fragments := new(stack.Reassembler)
	engine := &sip.Engine{}
	for {
		p := stack.NewPacket(65536)
		if _, err := r.Next(p); err != nil {
			if errors.Is(err, io.EOF) {
				return out
			}
			t.Fatal(err)
		}
		fixChecksums(p)
		v := p.Parse()
		if v == stack.DropFragment {
			p, v = fragments.Add(p)
		}
		if v != stack.Forward {
			continue
		}
		flow, body := p.Flow(), bytes.Clone(p.Payload())
		switch flow.Proto {
		case stack.UDP:
			if bytes.Contains(body, []byte("SIP/2.0")) {
				out = append(out, capturedSIP{flow, body})
			}
		case stack.TCP:
			if len(body) < 2 {
				continue
			}
			h := halves[flow]
			if h == nil {
				h = &half{waiting: make(map[uint32][]byte)}
				halves[flow] = h
			}
			seq := p.TCPSeq()
			if !h.begun {
				h.next, h.begun = seq, true
			}
			h.waiting[seq] = body
			for b, ok := h.waiting[h.next]; ok; b, ok = h.waiting[h.next] {
				delete(h.waiting, h.next)
				h.next += uint32(len(b))
				h.buf = append(h.buf, b...)
			}
			for {
				n, msg, err := engine.Split(h.buf, false)
				if err != nil || n == 0 {
					break
				}
				if bytes.Contains(msg, []byte("SIP/2.0")) {
					out = append(out, capturedSIP{flow, bytes.Clone(msg)})
				}
				h.buf = h.buf[n:]
			}
		}
	}
}

// fixChecksums has Parse believe what a network card was yet to compute, or
// whoever made the capture anonymous.
func fixChecksums(p *stack.Packet) {
	p.ChecksumVouched = true
	d := p.Data()
	if n := 4 * int(d[0]&0x0f); len(d) >= n && n >= 20 {
		d[10], d[11] = 0, 0
		sum := uint32(0)
		for i := 0; i < n; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(d[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(d[10:], ^uint16(sum))
	}
}

// A leakTest passes what one side of a capture sent through NAT.
type leakTest struct {
	t        *testing.T
	inside   func(netip.Addr) bool
	mapped   netip.Addr // of every inside address; with identity none
	identity bool
	in, out  *stack.Interface
	nat      *inspect.NAT
	table    *nat.Table
	rules    *nat.Rules
	now      time.Time
	engines  [2]*sip.Engine // UDP, TCP
	convs    map[[2]netip.AddrPort]*leakConv
}

type leakConv struct {
	client netip.AddrPort
	b      *inspect.NATBinder
	s      inspect.Session
}

func newLeakTest(t *testing.T, inside func(netip.Addr) bool, static netip.Addr, kind nat.Kind) *leakTest {
	t.Helper()
	x := &leakTest{t: t, inside: inside, now: began, convs: make(map[[2]netip.AddrPort]*leakConv), identity: kind == nat.Identity}
	x.out = &stack.Interface{Name: "outside", Addr: netip.MustParsePrefix("203.0.113.2/24")}
	x.in = &stack.Interface{Name: "inside", Level: 100, Addr: netip.MustParsePrefix("192.0.2.254/32")}
	rule := nat.Rule{Name: "rule", Real: x.in, Mapped: x.out, Kind: kind}
	x.mapped = x.out.Addr.Addr()
	switch kind {
	case nat.Dynamic:
		rule.MappedInterface = true
	case nat.Static:
		x.mapped = netip.MustParseAddr("203.0.113.77")
		rule.Source, rule.MappedSource = nat.Host(static), nat.Host(x.mapped)
		was := x.inside
		x.inside = func(a netip.Addr) bool { return a == static && was(a) }
	}
	var err error
	if x.rules, err = nat.NewRules([]nat.Rule{rule}); err != nil {
		t.Fatal(err)
	}
	chance := rand.NewChaCha8([32]byte{9})
	route := func(a netip.Addr) *stack.Interface {
		if x.inside(a) {
			return x.in
		}
		return x.out
	}
	if x.table, err = nat.NewTable(nat.TableConfig{Rand: chance, Route: route}); err != nil {
		t.Fatal(err)
	}
	x.nat = &inspect.NAT{Table: x.table, PAT: nat.NewPAT(chance), Route: route}
	x.nat.SetRules(x.rules)
	for i, tr := range []sip.Transport{sip.UDP, sip.TCP} {
		x.engines[i] = &sip.Engine{Client: tr, Server: tr, NAT: true, MaxCalls: 1000, Map: sip.DefaultMap()}
	}
	return x
}

// pass passes one message. From inside it goes as it was; from outside as the
// outside would have written it, knowing the inside by its mapped addresses.
func (x *leakTest) pass(c capturedSIP) {
	x.now = x.now.Add(20 * time.Millisecond)
	src, dst := c.flow.Src, c.flow.Dst
	out := x.inside(src.Addr())
	if out == x.inside(dst.Addr()) {
		return // it does not cross
	}
	e := x.engines[0]
	if c.flow.Proto == stack.TCP {
		e = x.engines[1]
	}
	raw := c.raw
	if !out && !x.identity {
		raw = x.asOutside(raw)
	}
	_, msg, err := e.Split(raw, true)
	if err != nil || msg == nil {
		return // the captures of bad lengths
	}
	v := x.conv(e, c.flow, out)
	from := nat.Client
	if v.client != src {
		from = nat.Server
	}
	got, err := v.s.Inspect(nil, msg, from)
	if err != nil {
		if !errors.Is(err, inspect.ErrDrop) {
			x.t.Errorf("Inspect: %v", err)
		}
		return
	}
	if x.identity {
		if !bytes.Equal(got, msg) {
			x.t.Errorf("identity NAT made\n%s\nof\n%s", got, msg)
		}
		return
	}
	leaked := func(a netip.Addr) bool { return x.inside(a) }
	if !out {
		leaked = func(a netip.Addr) bool { return a == x.mapped }
	}
	for _, a := range addressesIn(got) {
		if leaked(a) {
			x.t.Errorf("%v passed, from inside %v:\n%s\nwas\n%s", a, out, got, msg)
			return
		}
	}
	again := &sip.Engine{}
	if n, _, err := again.Split(got, true); err != nil || n != len(got) && c.flow.Proto == stack.TCP {
		x.t.Errorf("the result is no message, %d of %d bytes, %v:\n%s", n, len(got), err, got)
	}
}

// conv returns the session of a conversation.
func (x *leakTest) conv(e *sip.Engine, f stack.Flow, out bool) *leakConv {
	k := [2]netip.AddrPort{f.Src, f.Dst}
	if !out {
		k[0], k[1] = k[1], k[0]
	}
	if v := x.convs[k]; v != nil {
		return v
	}
	real := k[0]
	show, verdict := x.rules.Translate(x.in, x.out, stack.Flow{Proto: f.Proto, Src: real, Dst: k[1]}, nil, x.nat.PAT)
	if verdict != stack.Forward {
		x.t.Fatalf("Translate(%v) = %v", f, verdict)
	}
	conv := inspect.Conversation{
		In: x.in, Out: x.out,
		Client: stack.Flow{Proto: f.Proto, Src: real, Dst: k[1]},
		Server: stack.Flow{Proto: f.Proto, Src: show.Mapped, Dst: k[1]},
	}
	if !out {
		conv = inspect.Conversation{
			In: x.out, Out: x.in,
			Client: stack.Flow{Proto: f.Proto, Src: f.Src, Dst: show.Mapped},
			Server: stack.Flow{Proto: f.Proto, Src: f.Src, Dst: real},
		}
	}
	v := &leakConv{client: f.Src}
	v.b = x.nat.Binder(conv, inspect.Options{Now: func() time.Time { return x.now }})
	v.s = e.NewSession(v.b)
	x.convs[k] = v
	return v
}

// staying is what ends compare to the byte, and keeps the addresses in it.
var staying = regexp.MustCompile(`(?im)^(call-id|i|replaces|in-reply-to|session-id|authorization|proxy-authorization|www-authenticate|proxy-authenticate)[ \t]*:.*$|;(tag|branch|from-tag|to-tag)=[^;,\r\n>]*|call-id="[^"]*"|replaces=[^;>\r\n]*`)

var literal = regexp.MustCompile(`(^|[^0-9A-Za-z._~-])((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?:[^0-9A-Za-z_~-]|$)`)

// addressesIn returns the addresses that stand in a message and need not stay.
func addressesIn(msg []byte) []netip.Addr {
	var out []netip.Addr
	text := staying.ReplaceAll(msg, nil)
	for len(text) > 0 {
		m := literal.FindSubmatchIndex(text)
		if m == nil {
			break
		}
		if a, err := netip.ParseAddr(string(text[m[4]:m[5]])); err == nil {
			out = append(out, a)
		}
		text = text[m[5]:]
	}
	return out
}

// asOutside writes the mapped address for every inside one, and the length that
// makes of the body.
func (x *leakTest) asOutside(raw []byte) []byte {
	keep := staying.FindAllIndex(raw, -1)
	kept := func(at int) bool {
		for _, k := range keep {
			if k[0] <= at && at < k[1] {
				return true
			}
		}
		return false
	}
	var b []byte
	at := 0
	for at < len(raw) {
		m := literal.FindSubmatchIndex(raw[at:])
		if m == nil {
			break
		}
		from, to := at+m[4], at+m[5]
		a, err := netip.ParseAddr(string(raw[from:to]))
		b = append(b, raw[at:from]...)
		if err == nil && x.inside(a) && !kept(from) {
			b = append(b, x.mapped.String()...)
		} else {
			b = append(b, raw[from:to]...)
		}
		at = to
	}
	b = append(b, raw[at:]...)
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	was, _, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	if !ok {
		return b
	}
	grown := len(body) - (len(raw) - len(was) - 4)
	length := regexp.MustCompile(`(?im)^((?:content-length|l)[ \t]*:[ \t]*)([0-9]+)`)
	head = length.ReplaceAllFunc(head, func(line []byte) []byte {
		m := length.FindSubmatch(line)
		var n int
		fmt.Sscan(string(m[2]), &n)
		return fmt.Appendf(nil, "%s%d", m[1], n+grown)
	})
	return append(append(head, "\r\n\r\n"...), body...)
}

// TestNoLeak passes every SIP capture there is through NAT, with each side of
// it inside in turn: no inside address is outside in the end, and none of the
// box's own inside.
func TestNoLeak(t *testing.T) {
	files, _ := filepath.Glob(captureDir + "*.pcap")
	if len(files) == 0 {
		t.Skip("no captures: " + captureDir + " is absent")
	}
	kinds := []struct {
		name string
		kind nat.Kind
	}{{"PAT", nat.Dynamic}, {"static", nat.Static}, {"identity", nat.Identity}}
	total := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pcap")
		if !strings.Contains(name, "sip") {
			continue
		}
		msgs := readSIP(t, file)
		total += len(msgs)
		if len(msgs) == 0 {
			continue
		}
		for _, k := range kinds {
			for side, at := range []netip.Addr{msgs[0].flow.Src.Addr(), msgs[0].flow.Dst.Addr()} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, k.name, side), func(t *testing.T) {
					other := msgs[0].flow.Dst.Addr()
					if side == 1 {
						other = msgs[0].flow.Src.Addr()
					}
					if at == other || !at.Is4() || at.IsLoopback() {
						t.Skip("both ends are one host")
					}
					net, _ := at.Prefix(24)
					inside := func(a netip.Addr) bool { return a == at || net.Contains(a) && !net.Contains(other) }
					x := newLeakTest(t, inside, at, k.kind)
					for _, m := range msgs {
						x.pass(m)
						if t.Failed() {
							return
						}
					}
					x.end()
				})
			}
		}
	}
	if total < 500 {
		t.Errorf("%d messages passed, want 500 at least", total)
	}
}

// end closes all conversations, and fails if anything is left of them.
func (x *leakTest) end() {
	x.t.Helper()
	for _, v := range x.convs {
		v.s.Close()
		v.b.Close()
	}
	x.nat.Expire(x.now.Add(48 * time.Hour))
	x.table.Expire(x.now.Add(48 * time.Hour))
	if n, c := x.table.Pinholes(), x.nat.Contacts(); n != 0 || c != 0 {
		x.t.Errorf("%d pinholes, %d contacts are left", n, c)
	}
}
