package sip

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/inspect"
	"patchbay/inspect/sdp"
	"patchbay/nat"
)

// capturesUnread are captures whose messages cannot be taken out here.
var capturesUnread = map[string]string{
	"voipshark-sip-tls-rtp": "inside TLS, and the server's key is not kept with the capture",
}

// A truthMessage is what TShark read of one message.
type truthMessage struct {
	Src, Dst, Start, Method string
	L4                      string
	Frame                   int
	Status                  int
	CallID                  string `json:"call_id"`
	CSeq, From, To          string
	Via, Contact            []string
	ContentLength           string `json:"content_length"`
	SDP                     []struct{ O, C, M, Crypto, Lines []string }
}

func readTruth(t *testing.T, name string) []truthMessage {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []truthMessage
	sc := bufio.NewScanner(bytes.NewReader(data))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if !bytes.HasPrefix(sc.Bytes(), []byte(`{"type": "sip"`)) {
			continue // an RTP stream
		}
		var m truthMessage
		if err := json.Unmarshal(sc.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, m)
	}
	return out
}

// A captured is one message as it was on the wire.
type captured struct {
	src, dst string
	frame    int // that completed it
	raw      []byte
	udp      bool
}

// A fragments6 puts IPv6 datagrams together; the captures have theirs in order.
type fragments6 map[string][]byte

// capturedMessages takes every SIP message out of a capture: UDP payloads, and
// TCP streams through Split.
func capturedMessages(t *testing.T, file string, truth []truthMessage) []captured {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	wanted := make(map[string]bool) // flows with SIP in them
	for _, m := range truth {
		wanted[m.L4+m.Src+m.Dst] = true
	}
	type stream struct {
		src, dst string
		next     uint32
		begun    bool
		waiting  map[uint32][]byte
		buf      []byte
	}
	streams := make(map[string]*stream)
	defrag := ip4defrag.NewIPv4Defragmenter()
	frag6 := make(fragments6)
	var out []captured
	tcpEngine := &Engine{}
	linkType := gopacket.Decoder(r.LinkType())
	if r.LinkType() == 228 { // LINKTYPE_IPV4
		linkType = layers.LayerTypeIPv4
	}
	for frame := 1; ; frame++ {
		data, _, err := r.ReadPacketData()
		if err != nil {
			break
		}
		p := gopacket.NewPacket(data, linkType, gopacket.Default)
		var src, dst string
		var payload []byte
		var l4 gopacket.LayerType
		for _, l := range p.Layers() {
			switch l := l.(type) {
			case *layers.IPv4: // the innermost wins: IP in IP
				src, dst = l.SrcIP.String(), l.DstIP.String()
				whole, err := defrag.DefragIPv4(l)
				switch {
				case err != nil || whole == nil:
					payload = nil
				default:
					payload = whole.Payload
				}
				l4 = l.Protocol.LayerType()
			case *layers.IPv6:
				src, dst, payload = l.SrcIP.String(), l.DstIP.String(), l.Payload
				l4 = l.NextHeader.LayerType()
			case *layers.IPv6Fragment:
				key := fmt.Sprint(src, dst, l.Identification)
				frag6[key] = append(frag6[key], l.Payload...)
				payload = nil
				if !l.MoreFragments {
					payload = frag6[key]
				}
				l4 = l.NextHeader.LayerType()
			}
		}
		if len(payload) < 8 {
			continue
		}
		src = addrPort(src, binary.BigEndian.Uint16(payload))
		dst = addrPort(dst, binary.BigEndian.Uint16(payload[2:]))
		switch {
		case l4 == layers.LayerTypeUDP && wanted["udp"+src+dst]:
			body := payload[8:]
			if bytes.Contains(body, []byte("SIP/2.0")) {
				out = append(out, captured{src, dst, frame, bytes.Clone(body), true})
			}
		case l4 == layers.LayerTypeTCP && wanted["tcp"+src+dst] && len(payload) >= 20:
			seq := binary.BigEndian.Uint32(payload[4:])
			body := payload[min(int(payload[12]>>4)*4, len(payload)):]
			s := streams[src+dst]
			if s == nil {
				s = &stream{src: src, dst: dst, waiting: make(map[uint32][]byte)}
				streams[src+dst] = s
			}
			if payload[13]&2 != 0 { // SYN
				*s = stream{src: src, dst: dst, next: seq + 1, begun: true, waiting: make(map[uint32][]byte)}
				continue
			}
			if len(body) == 0 || len(body) == 1 && body[0] == 0 { // or a TCP keepalive
				continue
			}
			if !s.begun {
				s.next, s.begun = seq, true
			}
			s.waiting[seq] = bytes.Clone(body)
			for b, ok := s.waiting[s.next]; ok; b, ok = s.waiting[s.next] {
				delete(s.waiting, s.next)
				s.next += uint32(len(b))
				s.buf = append(s.buf, b...)
			}
			for {
				n, msg, err := tcpEngine.Split(s.buf, false)
				if err != nil {
					t.Fatalf("frame %d: Split: %v", frame, err)
				}
				if n == 0 {
					break
				}
				if !isKeepalive(msg) {
					out = append(out, captured{src, dst, frame, bytes.Clone(msg), false})
				}
				s.buf = s.buf[n:]
			}
		}
	}
	return out
}

func addrPort(ip string, port uint16) string {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	return netip.AddrPortFrom(a, port).String()
}

// fieldValues returns all values of a kind, as TShark lists them: a line each.
func fieldValues(m *message, k kind) []string {
	var out []string
	for _, f := range m.fields {
		if f.kind == k {
			v := string(f.value.Of(m.raw))
			out = append(out, strings.Join(strings.Fields(v), " "))
		}
	}
	return out
}

func squeeze(in []string) string {
	var out []string
	for _, v := range in {
		v = strings.ReplaceAll(v, "\\\"", "\"")
		for _, part := range strings.Split(v, ",") {
			out = append(out, strings.Join(strings.Fields(part), " "))
		}
	}
	return strings.Join(out, "|")
}

// TestTruth reads every message of the captures and compares with TShark, then
// passes each capture through a session whose Binder changes nothing, which
// must change nothing, and through one that changes every address.
func TestTruth(t *testing.T) {
	const dir = "../../../shared/pcaps/"
	files, _ := filepath.Glob(dir + "*sip*.truth.jsonl")
	if len(files) == 0 {
		t.Skip("no captures: " + dir + " is absent")
	}
	total := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".truth.jsonl")
		t.Run(name, func(t *testing.T) {
			if why := capturesUnread[name]; why != "" {
				t.Skip(why)
			}
			truth := readTruth(t, file)
			msgs := capturedMessages(t, strings.TrimSuffix(file, ".truth.jsonl")+".pcap", truth)
			if len(msgs) != len(truth) {
				t.Fatalf("%d messages in the capture, TShark found %d", len(msgs), len(truth))
			}
			for i := range msgs {
				compareTruth(t, &msgs[i], &truth[i])
			}
			total += len(msgs)
			passUnchanged(t, msgs)
			passMoved(t, msgs)
		})
	}
	if total < 700 {
		t.Errorf("%d messages compared, want 700 at least", total)
	}
}

func compareTruth(t *testing.T, c *captured, want *truthMessage) {
	t.Helper()
	where := fmt.Sprintf("frame %d", c.frame)
	if c.frame != want.Frame {
		t.Errorf("%s: TShark says frame %d", where, want.Frame)
	}
	engine := &Engine{}
	if c.udp {
		engine = &Engine{Client: UDP, Server: UDP}
	}
	n, raw, err := engine.Split(c.raw, true)
	if err != nil {
		if strings.Contains(t.Name(), "invalid-content-length") {
			return // which is what the capture is for
		}
		t.Errorf("%s: Split: %v", where, err)
		return
	}
	if len(bytes.TrimRight(c.raw[n:], "\r\n\x00")) > 0 {
		t.Logf("%s: %d bytes behind the message", where, len(c.raw)-n)
	}
	var m message
	if err := m.parse(raw); err != nil {
		t.Errorf("%s: parse: %v", where, err)
		return
	}
	start, _, _ := bytes.Cut(raw, []byte("\n"))
	for _, x := range []struct{ what, got, want string }{
		{"start line", strings.TrimRight(string(start), "\r"), want.Start},
		{"Call-ID", string(m.callID), want.CallID},
		{"CSeq", fmt.Sprintf("%d %s", m.cseq, m.method), want.CSeq},
		{"Via", squeeze(fieldValues(&m, fieldVia)), squeeze(want.Via)},
		{"Contact", squeeze(fieldValues(&m, fieldContact)), squeeze(want.Contact)},
		{"Content-Length", strings.Join(fieldValues(&m, fieldLength), ","), want.ContentLength},
	} {
		if x.got != x.want {
			t.Errorf("%s: %s = %q, TShark says %q", where, x.what, x.got, x.want)
		}
	}
	if want.Status != m.status {
		t.Errorf("%s: status %d, TShark says %d", where, m.status, want.Status)
	}
	if len(want.SDP) == 0 {
		return
	}
	var d sdp.Description
	body := raw[m.body:]
	if err := sdp.Parse(body, &d); err != nil {
		t.Errorf("%s: sdp.Parse: %v", where, err)
		return
	}
	var gotC, gotM, gotCrypto []string
	line := func(s inspect.Span, prefix string) string {
		return strings.TrimPrefix(strings.TrimRight(string(s.Of(body)), "\r\n"), prefix)
	}
	if d.Conn.Present() {
		gotC = append(gotC, line(d.Conn.Line, "c="))
	}
	for i := range d.Media {
		gotM = append(gotM, line(d.Media[i].Line, "m="))
		if d.Media[i].Conn.Present() {
			gotC = append(gotC, line(d.Media[i].Conn.Line, "c="))
		}
		for _, k := range d.Media[i].Crypto {
			gotCrypto = append(gotCrypto, line(k.Line, "a="))
		}
	}
	for _, x := range []struct {
		what      string
		got, want []string
	}{{"c=", gotC, want.SDP[0].C}, {"m=", gotM, want.SDP[0].M}, {"a=crypto", gotCrypto, want.SDP[0].Crypto}} {
		if !slices.Equal(x.got, x.want) {
			t.Errorf("%s: %s %q, TShark says %q", where, x.what, x.got, x.want)
		}
	}
}

// identityBinder changes nothing.
type identityBinder struct{}

func (identityBinder) Self(nat.End) netip.AddrPort                             { return netip.AddrPort{} }
func (identityBinder) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort       { return a }
func (identityBinder) Media(m inspect.Media, _ nat.End) (inspect.Media, error) { return m, nil }
func (identityBinder) Release(string, string)                                  {}
func (identityBinder) Seen(string) error                                       { return nil }

// whole returns the message in a datagram, or "".
func whole(c *captured) []byte {
	engine := &Engine{}
	if c.udp {
		engine = &Engine{Client: UDP, Server: UDP}
	}
	n, raw, err := engine.Split(c.raw, true)
	if err != nil {
		return nil
	}
	return raw[:n:n]
}

// sessions gives each pair of ends a session; who sent first is the client.
type sessions struct {
	engine *Engine
	binder inspect.Binder
	byPair map[string]inspect.Session
}

func (s *sessions) inspect(c *captured, raw []byte) ([]byte, nat.End, error) {
	from, key := nat.Client, c.src+" "+c.dst
	if _, ok := s.byPair[c.dst+" "+c.src]; ok {
		from, key = nat.Server, c.dst+" "+c.src
	} else if s.byPair[key] == nil {
		s.byPair[key] = s.engine.NewSession(s.binder)
	}
	out, err := s.byPair[key].Inspect(nil, raw, from)
	return out, from, err
}

func passUnchanged(t *testing.T, msgs []captured) {
	t.Helper()
	passUnchangedBy(t, msgs, &Engine{EveryMedia: true})
	passUnchangedBy(t, msgs, &Engine{NAT: true})
}

func passUnchangedBy(t *testing.T, msgs []captured, e *Engine) {
	t.Helper()
	s := &sessions{engine: e, binder: identityBinder{}, byPair: make(map[string]inspect.Session)}
	for i := range msgs {
		raw := whole(&msgs[i])
		if raw == nil {
			continue
		}
		got, from, err := s.inspect(&msgs[i], raw)
		if err != nil {
			t.Errorf("frame %d: Inspect from %v: %v", msgs[i].frame, from, err)
		} else if !bytes.Equal(got, raw) {
			t.Errorf("frame %d: Inspect from %v changed\n%s\nto\n%s", msgs[i].frame, from, raw, got)
		}
	}
}

// movingBinder gives every address of each side another one that says whence
// it came: a.b.c.d becomes 100.b.c.d, ports grow by 2; and back.
type movingBinder struct{}

func move4(a netip.Addr) netip.Addr {
	if !a.Is4() {
		return a
	}
	b := a.As4()
	b[0] ^= 0x80
	return netip.AddrFrom4(b)
}

func (movingBinder) Self(nat.End) netip.AddrPort { return netip.AddrPort{} }
func (movingBinder) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort {
	return netip.AddrPortFrom(move4(a.Addr()), a.Port())
}
func (movingBinder) Media(m inspect.Media, _ nat.End) (inspect.Media, error) {
	if m.Addr.IsValid() {
		m.Addr = netip.AddrPortFrom(move4(m.Addr.Addr()), m.Addr.Port()^2)
	}
	return m, nil
}
func (movingBinder) Release(string, string) {}
func (movingBinder) Seen(string) error      { return nil }

// passMoved checks with our parser that every address left changed, that
// Content-Length is right, and that what must stay stayed.
func passMoved(t *testing.T, msgs []captured) {
	t.Helper()
	passMovedBy(t, msgs, &Engine{EveryMedia: true})
	passMovedBy(t, msgs, &Engine{NAT: true})
}

func passMovedBy(t *testing.T, msgs []captured, e *Engine) {
	t.Helper()
	s := &sessions{engine: e, binder: movingBinder{}, byPair: make(map[string]inspect.Session)}
	for i := range msgs {
		raw := whole(&msgs[i])
		if raw == nil {
			continue
		}
		where := fmt.Sprintf("frame %d", msgs[i].frame)
		got, _, err := s.inspect(&msgs[i], raw)
		if err != nil {
			t.Errorf("%s: Inspect: %v", where, err)
			continue
		}
		n, again, err := (&Engine{}).Split(got, true)
		if err != nil || n != len(got) {
			if !msgs[i].udp || err != nil {
				t.Errorf("%s: Split of the result: %d of %d bytes, %v", where, n, len(got), err)
				continue
			}
			again = got // a datagram without Content-Length
		}
		var before, after message
		if err := before.parse(raw); err != nil {
			t.Fatal(err)
		}
		if err := after.parse(again); err != nil {
			t.Errorf("%s: parse of the result: %v", where, err)
			continue
		}
		if string(before.callID) != string(after.callID) || before.cseq != after.cseq || len(before.fields) != len(after.fields) {
			t.Errorf("%s: Call-ID, CSeq or the fields changed:\n%s", where, got)
			continue
		}
		for j := range before.fields {
			compareMoved(t, where, &before, &after, j)
		}
		compareMovedSDP(t, where, &before, &after)
	}
}

func compareMoved(t *testing.T, where string, before, after *message, j int) {
	t.Helper()
	x, y := before.fields[j], after.fields[j]
	switch x.kind {
	case fieldVia:
		v, ok1 := parseVia(before.raw, x.value)
		w, ok2 := parseVia(after.raw, y.value)
		if !ok1 || !ok2 || string(v.branch.Of(before.raw)) != string(w.branch.Of(after.raw)) {
			t.Errorf("%s: branch changed: %s to %s", where, x.value.Of(before.raw), y.value.Of(after.raw))
		}
	case fieldContact, fieldTarget, fieldIdentity, fieldTo, fieldCallInfo:
		l, k := list{b: before.raw, rest: x.value}, list{b: after.raw, rest: y.value}
		for l.next() {
			if !k.next() {
				t.Errorf("%s: a value is gone: %s", where, x.value.Of(before.raw))
				return
			}
			a, restA, okA := nameAddr(l.b, l.value)
			b, restB, okB := nameAddr(k.b, k.value)
			if okA != okB || !bytes.Equal(restA.Of(l.b), restB.Of(k.b)) {
				t.Errorf("%s: parameters changed: %s to %s", where, l.value.Of(l.b), k.value.Of(k.b))
				continue
			}
			u, okA := parseURI(l.b, a)
			v, okB := parseURI(k.b, b)
			if !okA {
				continue
			}
			if !okB || v.host.addr != move4(u.host.addr) || u.host.port != v.host.port || !bytes.Equal(u.user.Of(l.b), v.user.Of(k.b)) {
				t.Errorf("%s: %s became %s", where, a.Of(l.b), b.Of(k.b))
			}
		}
	case fieldLength:
		if n, ok := parseLength(y.value.Of(after.raw)); !ok || n != len(after.raw)-after.body {
			t.Errorf("%s: Content-Length %s, body of %d bytes", where, y.value.Of(after.raw), len(after.raw)-after.body)
		}
	default:
		if !bytes.Equal(x.value.Of(before.raw), y.value.Of(after.raw)) {
			t.Errorf("%s: %s became %s", where, x.value.Of(before.raw), y.value.Of(after.raw))
		}
	}
}

var any4 = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+`)

func compareMovedSDP(t *testing.T, where string, before, after *message) {
	t.Helper()
	if kind, _ := mediaType(before.raw, before.ctype); !isSDP(kind) {
		if any4.ReplaceAllString(string(before.raw[before.body:]), "A") != any4.ReplaceAllString(string(after.raw[after.body:]), "A") {
			t.Errorf("%s: body that is no session description changed in more than its addresses", where)
		}
		return
	}
	var d, e sdp.Description
	if sdp.Parse(before.raw[before.body:], &d) != nil || sdp.Parse(after.raw[after.body:], &e) != nil || len(d.Media) != len(e.Media) {
		t.Errorf("%s: session description broken:\n%s", where, after.raw)
		return
	}
	moved := func(what string, a, b netip.Addr) {
		if a.IsValid() && a.IsUnspecified() {
			if b != a {
				t.Errorf("%s: %s: hold became %v", where, what, b)
			}
		} else if b != move4(a) {
			t.Errorf("%s: %s: %v became %v", where, what, a, b)
		}
	}
	moved("o=", d.Origin.Addr, e.Origin.Addr)
	moved("c=", d.Conn.Addr, e.Conn.Addr)
	for i := range d.Media {
		x, y := &d.Media[i], &e.Media[i]
		moved("c= of a stream", d.Address(x), e.Address(y))
		switch a := d.Address(x); {
		case x.Port == 0 && y.Port != 0:
			t.Errorf("%s: refused stream has port %d", where, y.Port)
		case before.status >= 300 || before.isMethod("OPTIONS"):
		case x.Port != 0 && a.Is4() && !a.IsUnspecified() && y.Port != x.Port^2:
			t.Errorf("%s: port %d became %d", where, x.Port, y.Port)
		}
	}
}
