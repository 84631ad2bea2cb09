//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patchbay/appliance/ctl"
	"patchbay/appliance/lab"
)

// How long what happens in a call takes.
const (
	talkTime   = time.Second
	holdTime   = 500 * time.Millisecond
	settleTime = 300 * time.Millisecond // before one looks, so that what was before is over

	// fewestFrames must be spoken in talkTime. On a busy machine they are
	// fewer than the 50 of a second.
	fewestFrames = 10
)

// The tones of TestBaresip, in Hz.
const (
	tone1001    = 700
	tone1002    = 1900
	tone2001    = 1300
	toneIntrude = 2500 // of packets that nobody may hear
)

// natted is what the phone 1002 takes for its address, behind a home router
// that gives it phoneAddr and keeps its ports.
var natted = netip.MustParseAddr("192.168.1.50")

// stranger sends to the box's media ports unasked.
var stranger = netip.MustParseAddr("198.51.100.9")

// A span is when something was so.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

// during lets d pass, settled.
func during(d time.Duration) span {
	time.Sleep(settleTime)
	from := time.Now()
	time.Sleep(d)
	return span{from, time.Now()}
}

// A baresipCall is one that was made.
type baresipCall struct {
	caller, callee *baresip
	during         span // all of it
	talks          []span
	hold, over     span
}

// media is whence b's RTP comes and where it goes, as the wire has it.
func (b *baresip) media() netip.AddrPort {
	if b.Secure {
		return netip.AddrPortFrom(phoneAddr, b.RTPPort) // also that of 1002
	}
	return netip.AddrPortFrom(b.Addr, b.RTPPort)
}

// TestBaresip has phones of another make, and another SIP proxy in the call
// manager's place, call each other through the program: baresip outside, with
// TLS, a client certificate and mandatory SRTP, baresip inside, with neither,
// and Kamailio. What one speaks must be on the wire where the other listens,
// and outside there must be nothing but TFTP, TLS and SRTP.
func TestBaresip(t *testing.T) {
	needs(t, "baresip-core (baresip)", "kamailio", "util-linux (unshare)")
	n := newTestNet(t, overPacket)
	baresipModules(t)
	mustIP(t, "-n", n.in, "route", "replace", "10.20.0.0/24", "dev", "pbin", "src", deskAddr.String())
	mustIP(t, "-n", n.out, "addr", "add", natted.String()+"/32", "dev", "lo")
	outside, inside := n.capture(t, n.out, "pbout"), n.capture(t, n.in, "pbin")

	ca := newCA(t)
	box := n.start(t, startOptions{flash: newFlash(t, ca)})
	n.startKamailio(t)
	one := &baresip{
		Number: "1001", Registrar: ucmMapped.String() + ":5061", Addr: phoneAddr, RTPPort: 16400, Tone: tone1001,
		MAC: "020000000001", Secure: true, Trust: n.trusted(t, "020000000001"),
	}
	two := &baresip{
		Number: "1002", Registrar: ucmMapped.String() + ":5061", Addr: natted, RTPPort: 16500, Tone: tone1002,
		MAC: "020000000002", Secure: true, Trust: n.trusted(t, "020000000002"),
	}
	// doubter believes in another box.
	doubter := &baresip{
		Number: "1009", Registrar: ucmMapped.String() + ":5061", Addr: phoneAddr, RTPPort: 16600, Tone: toneIntrude,
		MAC: "020000000009", Secure: true, Trust: ca.PEM(),
	}
	desk := &baresip{
		Number: "2001", Registrar: ucmReal.String(), Addr: deskAddr, SIPPort: 5060, RTPPort: 12000, Tone: tone2001,
	}
	for _, b := range []*baresip{one, two, doubter} {
		id, err := ca.IssueMIC(b.MAC, "7962G", 2048)
		must(t, err)
		n.startBaresip(t, n.out, b, id)
	}
	n.startBaresip(t, n.in, desk, nil)
	for _, b := range []*baresip{one, two, desk} {
		b.awaitRegistered(t, true)
	}
	doubter.awaitRegistered(t, false)
	doubter.stop()

	c := &conversations{n, box, outside, inside}
	calls := []*baresipCall{
		c.call(t, one, desk, one, "AES_CM_128_HMAC_SHA1_80"), // as the phone offers
		c.call(t, desk, two, desk, "AES_CM_128_HMAC_SHA1_32"),
		c.call(t, one, two, two, ""),
	}
	c.giveUp(t, desk, one)
	c.giveUp(t, two, desk)
	for _, b := range []*baresip{one, two, desk} {
		b.stop()
	}

	checkSessions(t, box)
	w := &wire{keys: make(map[netip.AddrPort][]*srtpKey), roll: make(map[rtpStream]*rollover)}
	for _, b := range []*baresip{one, two} {
		w.learn(t, b)
	}
	secured := w.check(t, outside)
	plain := plainRTP(inside)
	checkPlainSIP(t, inside)
	checkUnguarded(t, inside)
	for _, f := range slices.Concat(secured, plain) {
		if f.tone == toneIntrude && f.src.Addr() != deskAddr {
			t.Errorf("the box carried a packet that it must not to %v", f.dst)
		}
	}
	for i, call := range calls {
		t.Run(fmt.Sprintf("%d %s calls %s", i+1, call.caller.Number, call.callee.Number), func(t *testing.T) {
			call.check(t, secured, plain)
		})
	}
	for _, b := range []struct {
		*baresip
		hears []int // in each call
	}{
		{one, []int{tone2001, tone1002}},
		{two, []int{tone2001, tone1001}},
		{desk, []int{tone1001, tone1002}},
	} {
		b.checkRecorded(t, b.hears)
	}
}

// trusted fetches the CTL file as the phone with mac does, and returns the
// certificates in it that a phone may meet at the call manager's address.
func (n *testNet) trusted(t *testing.T, mac string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	data, err := lab.TFTPGet(ctx, n.host(t, n.out, phoneAddr), netip.AddrPortFrom(ucmMapped, 69), "CTLSEP"+mac+".tlv")
	must(t, err)
	list, err := ctl.Parse(data)
	must(t, err)
	must(t, list.Verify())
	var all []byte
	for _, r := range list.Records {
		if (r.Role == ctl.CCM || r.Role == ctl.CCMTFTP) && r.IP == ucmMapped {
			all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.DER})...)
		}
	}
	if len(all) == 0 {
		t.Fatalf("the CTL file has no certificate of %v", ucmMapped)
	}
	return all
}

// conversations are the calls of TestBaresip.
type conversations struct {
	n               *testNet
	box             *runningBox
	outside, inside *capture
}

// quiet waits until no media is on its way.
func (c *conversations) quiet(t *testing.T) {
	t.Helper()
	const looks = 20 // in a row, at which nothing is new
	isMedia := func(p gopacket.Packet) bool {
		_, _, b, ok := udp(p)
		return ok && len(b) >= rtpHeader+frameLen
	}
	seen, same := 0, 0
	eventually(t, "media ends", func() bool {
		n := len(c.outside.packets(isMedia)) + len(c.inside.packets(isMedia))
		if same++; n != seen {
			seen, same = n, 0
		}
		return same == looks
	})
}

var sessionOpened = regexp.MustCompile(`msg="media session opened".* phone=(\S+) .*outside=(\S+) inside=(\S+)`)

// ports returns the media addresses of the session opened last for b.
func (c *conversations) ports(t *testing.T, b *baresip) (outside, inside netip.AddrPort) {
	t.Helper()
	for _, m := range sessionOpened.FindAllStringSubmatch(c.box.text(), -1) {
		if m[1] == "SEP"+b.MAC {
			outside, inside = netip.MustParseAddrPort(m[2]), netip.MustParseAddrPort(m[3])
		}
	}
	if !outside.IsValid() {
		t.Fatalf("the box logs no media session of SEP%s", b.MAC)
	}
	return outside, inside
}

// call makes a call, in which holder holds and resumes and the other hangs up.
// Phones outside must agree on suite, if it is not "".
func (c *conversations) call(t *testing.T, caller, callee, holder *baresip, suite string) *baresipCall {
	t.Helper()
	x := &baresipCall{caller: caller, callee: callee, during: span{from: time.Now()}}
	caller.dial(t, callee)
	callee.do(t, "accept", "")
	for _, b := range []*baresip{caller, callee} {
		if b.Secure {
			if got := b.await(t, "CALL_MENC"); suite != "" && !strings.HasSuffix(got, ","+suite) {
				t.Errorf("%s calls %s: media of %s is %q, want %s", caller.Number, callee.Number, b.Number, got, suite)
			}
		}
		b.await(t, "CALL_ESTABLISHED")
	}
	remote := caller
	if !remote.Secure {
		remote = callee
	}
	mtaOut, mtaIn := c.ports(t, remote)
	c.intrude(t, c.n.out, netip.AddrPortFrom(stranger, 30000), mtaOut)
	x.talks = append(x.talks, during(talkTime))

	holder.do(t, "hold", "")
	holder.await(t, "CALL_REMOTE_SDP")
	c.quiet(t)
	x.hold = during(holdTime)
	holder.do(t, "resume", "")
	holder.await(t, "CALL_REMOTE_SDP")
	x.talks = append(x.talks, during(talkTime))

	by := caller
	if by == holder {
		by = callee
	}
	by.do(t, "hangup", "")
	caller.await(t, "CALL_CLOSED")
	callee.await(t, "CALL_CLOSED")
	c.quiet(t)
	x.during.to = time.Now()
	// What comes from where the desk phone's voice came from is no one's now.
	c.intrude(t, c.n.in, netip.AddrPortFrom(deskAddr, 12000), mtaIn)
	x.over = during(holdTime)
	return x
}

// giveUp makes a call that rings until the caller ends it.
func (c *conversations) giveUp(t *testing.T, caller, callee *baresip) {
	t.Helper()
	caller.dial(t, callee)
	caller.do(t, "hangup", "")
	caller.await(t, "CALL_CLOSED")
	callee.await(t, "CALL_CLOSED")
}

// dial has b's phone ring.
func (b *baresip) dial(t *testing.T, callee *baresip) {
	t.Helper()
	host, _, _ := strings.Cut(b.Registrar, ":")
	b.do(t, "dial", "sip:"+callee.Number+"@"+host)
	callee.await(t, "CALL_INCOMING")
	b.await(t, "CALL_RINGING")
}

// intrude sends plain RTP that must not be heard.
func (c *conversations) intrude(t *testing.T, ns string, from, to netip.AddrPort) {
	t.Helper()
	u, err := c.n.host(t, ns, from.Addr()).ListenUDP(from)
	must(t, err)
	defer u.Close()
	b := make([]byte, rtpHeader+frameLen)
	b[0] = 0x80
	binary.BigEndian.PutUint32(b[8:], 0x5ca1ab1e)
	for i := range frameLen {
		b[rtpHeader+i] = encodeMuLaw(8000 * math.Sin(2*math.Pi*toneIntrude*float64(i)/sampleRate))
	}
	for seq := range uint16(5) {
		binary.BigEndian.PutUint16(b[2:], seq)
		_, err := u.WriteTo(b, udpAddr(to.Addr(), to.Port()))
		must(t, err)
	}
}

var sessionClosed = regexp.MustCompile(`msg="media session closed".* outside=(\S+)`)

// checkSessions sees that the box has given all media ports back, and had
// nothing to complain of.
func checkSessions(t *testing.T, box *runningBox) {
	t.Helper()
	log := box.text()
	open := make(map[string]int)
	opened := sessionOpened.FindAllStringSubmatch(log, -1)
	for _, m := range opened {
		open[m[2]]++
	}
	if len(opened) != 6 {
		t.Errorf("the box has opened %d media sessions, want 6 for 5 calls", len(opened))
	}
	for _, m := range sessionClosed.FindAllStringSubmatch(log, -1) {
		open[m[1]]--
	}
	for addr, k := range open {
		if k != 0 {
			t.Errorf("the media session at %s is still open after the call", addr)
		}
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			t.Errorf("the box complains: %s", line)
		}
	}
}

// learn takes the keys of b's calls from what b says it has sent and received,
// and checks what the box has told it about media.
func (w *wire) learn(t *testing.T, b *baresip) {
	t.Helper()
	for _, m := range traces(t, b.text()) {
		fromBox := m.from.Addr() == ucmMapped
		if fromBox {
			checkForPhone(t, b, m.text)
		}
		media := mLine.FindStringSubmatch(m.text)
		if media == nil {
			continue
		}
		keys := cryptoLine.FindAllStringSubmatch(m.text, -1)
		conn := cLine.FindAllStringSubmatch(m.text, -1)
		// The media of 1002 comes from its router's address.
		src := netip.AddrPortFrom(phoneAddr, parseUint16(t, media[1]))
		wantConn := b.Addr
		if fromBox {
			src, wantConn = netip.AddrPortFrom(mtaMapped, src.Port()), mtaMapped
		}
		if media[2] != "RTP/SAVP" || len(keys) != 1 || len(conn) != 1 || conn[0][1] != wantConn.String() {
			t.Errorf("phone %s, from %v: want RTP/SAVP with one key at %v:\n%s", b.Number, m.from, wantConn, m.text)
			continue
		}
		w.keys[src] = append(w.keys[src], newSRTPKey(t, keys[0][1], keys[0][2]))
	}
	if len(w.keys) == 0 {
		t.Fatalf("phone %s has logged no session description", b.Number)
	}
}

// checkForPhone sees that a message of the box names nothing as it is known
// inside.
func checkForPhone(t *testing.T, b *baresip, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "a=ssrc:") {
			continue // the other phone's CNAME, which is opaque
		}
		for _, bad := range []string{ucmReal.String(), mtaInside.String(), "RTP/AVP", "transport=tcp"} {
			if strings.Contains(line, bad) {
				t.Errorf("phone %s gets %q", b.Number, line)
			}
		}
	}
}

// check sees that nothing but ARP, TFTP, TLS and SRTP is in a capture outside,
// and returns the SRTP opened.
func (w *wire) check(t *testing.T, c *capture) (frames []rtpFrame) {
	t.Helper()
	for _, s := range tcpStreams(c) {
		server := netip.AddrPortFrom(ucmMapped, 5061)
		if s.src != server && s.dst != server {
			t.Errorf("outside: TCP from %v to %v", s.src, s.dst)
		}
		if !s.whole {
			t.Errorf("outside: the capture lacks a part of %v to %v", s.src, s.dst)
		} else if err := checkTLS(s.data); err != nil {
			t.Errorf("outside: from %v to %v: %v", s.src, s.dst, err)
		}
	}
	rtcp := 0
	for _, p := range c.packets(nil) {
		if p.Layer(layers.LayerTypeARP) != nil || p.Layer(layers.LayerTypeTCP) != nil || p.Layer(layers.LayerTypeICMPv4) != nil {
			continue
		}
		src, dst, b, ok := udp(p)
		switch {
		case !ok:
			t.Errorf("outside: neither ARP, ICMP, TCP nor UDP: %v", p)
		case src.Addr() == ucmMapped || dst.Addr() == ucmMapped:
			if len(b) < 4 || b[0] != 0 || b[1] == 0 || b[1] > 6 {
				t.Errorf("outside: %v to %v is no TFTP: % x", src, dst, b)
			}
		case src.Addr() == stranger && dst.Addr() == mtaMapped:
		case src.Addr() != phoneAddr && src.Addr() != mtaMapped, dst.Addr() != phoneAddr && dst.Addr() != mtaMapped:
			t.Errorf("outside: UDP from %v to %v", src, dst)
		case src.Port()%2 == 1:
			if !w.isSRTCP(src, b) {
				t.Errorf("outside: %v to %v is no SRTCP: % x", src, dst, b)
			} else if src.Addr() == mtaMapped {
				rtcp++
			}
		default:
			plain, k := w.open(src, b)
			if k == nil || len(plain) != frameLen || len(b) != rtpHeader+frameLen+k.tag || b[1]&0x7f != 0 {
				t.Errorf("outside: %v to %v is no SRTP of 20 ms: % x", src, dst, b)
				continue
			}
			if hz := toneOf(muLaw(b[rtpHeader : rtpHeader+frameLen])); hz != noTone {
				t.Errorf("outside: %v to %v: one hears %d Hz without a key", src, dst, hz)
			}
			frames = append(frames, newRTPFrame(p, src, dst, b, plain))
		}
	}
	if rtcp == 0 {
		t.Error("outside: the box sent no SRTCP")
	}
	return frames
}

// isSRTCP reports whether b is SRTCP of the end that sends RTP one port below.
func (w *wire) isSRTCP(src netip.AddrPort, b []byte) bool {
	if src.Addr() == phoneAddr && isUnguarded(b) {
		return true
	}
	return slices.ContainsFunc(w.keys[netip.AddrPortFrom(src.Addr(), src.Port()-1)], func(k *srtpKey) bool {
		// baresip authenticates SRTCP with 4 bytes in the suite with 32
		// bits, against RFC 4568, section 6.2.
		return k.authenticRTCP(b, rtcpTag) || src.Addr() == phoneAddr && k.authenticRTCP(b, k.tag)
	})
}

// isUnguarded reports whether b is one of the two plain RTCP packets that
// baresip 1.0 sends in each call: an APP that opens its port before it has
// turned SRTP on, and a BYE when it has turned it off. It is not for the box to
// hold them back, but to carry them no further.
func isUnguarded(b []byte) bool {
	const bye, app = 203, 204 // RFC 3550, section 12.1
	return len(b) == 16 && b[1] == app && bytes.Equal(b[8:], []byte("PINGPONG")) ||
		len(b) > 8 && b[0] == 0x81 && b[1] == bye && bytes.Contains(b, []byte("Adjo"))
}

// checkUnguarded sees that what a phone said in the clear ends at the box.
func checkUnguarded(t *testing.T, c *capture) {
	t.Helper()
	for _, p := range c.packets(nil) {
		// An APP may also have come the right way, as SRTCP.
		if src, dst, b, ok := udp(p); ok && src.Addr() == mtaInside && isUnguarded(b) && b[1] != 204 {
			t.Errorf("inside: the box carried plain RTCP of a phone to %v: % x", dst, b)
		}
	}
}

// checkPlainSIP sees that what Kamailio reads names nothing as it is known
// outside, and that media is plain there.
func checkPlainSIP(t *testing.T, c *capture) {
	t.Helper()
	offers := 0
	for _, s := range tcpStreams(c) {
		server := netip.AddrPortFrom(ucmReal, 5060)
		if s.dst != server || s.src.Addr() == deskAddr {
			continue
		}
		if s.src.Addr() != phoneAddr {
			t.Errorf("inside: a phone calls from %v, want from %v", s.src, phoneAddr)
		}
		text := strings.ReplaceAll(string(s.data), "\r\n", "\n")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "a=ssrc:") {
				continue // the phone's CNAME, which is opaque
			}
			for _, bad := range []string{"203.0.113.", natted.String(), "RTP/SAVP", "a=crypto", "transport=tls", "SIP/2.0/TLS"} {
				if strings.Contains(line, bad) {
					t.Errorf("inside: %v sends %q", s.src, line)
				}
			}
		}
		for _, m := range mLine.FindAllStringSubmatch(text, -1) {
			if offers++; m[2] != "RTP/AVP" {
				t.Errorf("inside: %v describes %q", s.src, m[0])
			}
		}
		for _, m := range cLine.FindAllStringSubmatch(text, -1) {
			if m[1] != mtaInside.String() {
				t.Errorf("inside: media of %v at %s, want %v", s.src, m[1], mtaInside)
			}
		}
	}
	if offers == 0 {
		t.Error("inside: no phone has described its media")
	}
}

// check sees that each has heard the other, and only then.
func (x *baresipCall) check(t *testing.T, secured, plain []rtpFrame) {
	for _, d := range []struct{ speaker, listener *baresip }{{x.caller, x.callee}, {x.callee, x.caller}} {
		spoken, heard := plain, plain
		if d.speaker.Secure {
			spoken = secured
		}
		if d.listener.Secure {
			heard = secured
		}
		for i, talk := range x.talks {
			arrived := make(map[rtpID]int) // with which tone
			for _, f := range heard {
				if f.dst == d.listener.media() && x.during.has(f.at) {
					arrived[f.id] = f.tone
				}
			}
			sent, lost, wrong := 0, 0, 0
			for _, f := range spoken {
				if f.src != d.speaker.media() || !talk.has(f.at) {
					continue
				}
				sent++
				switch tone, ok := arrived[f.id]; {
				case !ok:
					lost++
				case tone != d.speaker.Tone:
					wrong++
				}
			}
			if sent < fewestFrames || lost > sent/20 || wrong > 0 {
				t.Errorf("talk %d: of %d frames that %s speaks at %d Hz, %s misses %d and hears %d otherwise",
					i+1, sent, d.speaker.Number, d.speaker.Tone, d.listener.Number, lost, wrong)
			}
		}
	}
	for _, f := range slices.Concat(secured, plain) {
		switch {
		case x.hold.has(f.at):
			t.Errorf("on hold: %d Hz from %v to %v", f.tone, f.src, f.dst)
		case x.over.has(f.at):
			t.Errorf("after the call: %d Hz from %v to %v", f.tone, f.src, f.dst)
		}
	}
	if x.caller.Secure && x.callee.Secure {
		for _, f := range plain {
			if x.talks[0].has(f.at) {
				t.Errorf("media between two phones outside came inside, to %v", f.dst)
				break
			}
		}
	}
}

// checkRecorded sees that in each call the phone has played one tone to its
// user, and no other of ours. baresip 1.0 records until a call is held.
func (b *baresip) checkRecorded(t *testing.T, tones []int) {
	t.Helper()
	calls := b.recorded(t)
	if len(calls) != len(tones) {
		t.Errorf("phone %s recorded %d calls, want %d", b.Number, len(calls), len(tones))
		return
	}
	for i, x := range calls {
		heard := make(map[int]int)
		for frame := range slices.Chunk(x, frameLen) {
			heard[toneOf(frame)]++
		}
		if heard[tones[i]] < fewestFrames {
			t.Errorf("phone %s played %d frames of %d Hz in call %d, want %d or more", b.Number, heard[tones[i]], tones[i], i+1, fewestFrames)
		}
		for _, hz := range []int{tone1001, tone1002, tone2001, toneIntrude} {
			if hz != tones[i] && heard[hz] > 0 {
				t.Errorf("phone %s played %d frames of %d Hz in call %d", b.Number, heard[hz], hz, i+1)
			}
		}
	}
}

func parseUint16(t *testing.T, s string) uint16 {
	t.Helper()
	a, err := netip.ParseAddrPort("0.0.0.0:" + s)
	must(t, err)
	return a.Port()
}
