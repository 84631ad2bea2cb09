package pcaps_test

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

// unverified are what the messages of a case may hold of the other side, and
// why.
var unverified = map[string]string{
	"sip-not-inspected":            "nothing is inspected",
	"default-inspection-interface": "one interface is not inspected",
	"sip-other-port":               "what is on another port is not inspected",
	"sip-interface-policy":         "what is on another port is not inspected",
	"sip-tcp-not-inspected":        "nothing is inspected",
	"skinny-not-inspected":         "nothing is inspected",
	"sip-torture-bad":              "what does not begin as SIP is none",
}

var verifyAll = flag.Bool("verify", false, "have TShark read what left the box in every case: make replay-verify")

// verifyFew are the cases that are verified without -verify: a minute less.
var verifyFew = []string{"split-sip", "split-sip-tcp", "split-skinny"}

// unread are the cases in which TShark does not find every message, and why.
var unread = map[string]string{
	"sip-tcp-joined": "it reads none behind a line end that keeps the connection alive",
}

// tshark returns the program, and skips without.
func tshark(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark: install Debian's package of that name")
	}
	return path
}

// TestVerify has another decoder read what left the box, in each case and of
// each capture that is not ours: no field of SIP, SDP or SCCP has an address that
// NAT hides from that side, and each is one that NAT owns or that somebody said.
func TestVerify(t *testing.T) {
	program := tshark(t)
	t.Run("all", func(t *testing.T) {
		for _, dir := range cases(t) {
			if !*verifyAll && !slices.Contains(verifyFew, dir) {
				continue
			}
			t.Run(dir, func(t *testing.T) {
				t.Parallel()
				res, err := pcaps.Run(dir, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				verify(t, program, dir, res)
			})
		}
		if !*verifyAll {
			return
		}
		for _, r := range shared(t) {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				config, c := r.crossing(t)
				res, err := pcaps.RunCapture(config, t.TempDir(), c)
				if err != nil {
					t.Fatal(err)
				}
				verify(t, program, r.name, res)
			})
		}
	})
}

// verify reads what left by each interface.
func verify(t *testing.T, program, name string, res *pcaps.Result) {
	t.Helper()
	for side, left := range res.Left {
		messages := res.Messages[side]
		if len(messages) == 0 {
			continue
		}
		r, err := pcaps.Decode(program, t.TempDir(), left)
		if err != nil {
			t.Fatal(err)
		}
		var sip, sccp int
		for _, m := range messages {
			switch m.Protocol {
			case "sip":
				sip++
			case "sccp":
				sccp++
			}
		}
		if (r.SIP < sip || r.SCCP != sccp) && unread[name] == "" {
			t.Errorf("%s: TShark finds %d messages of SIP and %d of SCCP, we %d and %d", side, r.SIP, r.SCCP, sip, sccp)
		}
		leaks := res.Leaks(side, append(r.Found, pcaps.Text(messages)...))
		t.Logf("%s: %d messages of SIP, %d of SCCP, %d addresses", side, r.SIP, r.SCCP, len(r.Found))
		if why, ok := unverified[name]; ok {
			t.Logf("not held against it: %s", why)
			continue
		}
		for _, l := range leaks {
			t.Errorf("%s: %v", side, l)
		}
	}
}

// A capture with a leak in each place where one can be is found out: the check
// can fail.
func TestVerifyFinds(t *testing.T) {
	program := tshark(t)
	r := row{name: "leak", how: "pat inside=10.20.0.0/24"}
	config, c := r.crossing(t)
	const hidden, shown = "10.20.0.50", "203.0.113.2"
	lines := []string{
		"INVITE sip:b@@ SIP/2.0", "Via: SIP/2.0/UDP @:5060;branch=z9hG4bK1", "v: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK1;received=@",
		"From: <sip:a@@>;tag=1", "To: <sip:b@@>", "Contact: <sip:a@@:5060>", "Record-Route: <sip:@;lr>", "P-Asserted-Identity: <sip:a@@>",
		"Remote-Party-ID: <sip:a@@>", "X-Unknown: @", "Warning: 399 @ \"no\"", "Refer-To: <sip:@>",
		"o=- 1 1 IN IP4 @", "c=IN IP4 @", "a=rtcp:5001 IN IP4 @", "a=candidate:1 1 UDP 1 @ 5000 typ host",
	}
	message := func(leaky int) []byte {
		var head, body strings.Builder
		for i, l := range lines {
			with := shown
			if i == leaky {
				with = hidden
			}
			// A user is before the first of two @, a host stands for the last.
			if at := strings.LastIndex(l, "@"); at >= 0 {
				l = l[:at] + with + l[at+1:]
			}
			if l[1] == '=' {
				body.WriteString(l + "\r\n")
				if l[0] == 'o' {
					body.WriteString("s=-\r\n")
				}
				if l[0] == 'c' {
					body.WriteString("t=0 0\r\nm=audio 5000 RTP/AVP 0\r\n")
				}
			} else {
				head.WriteString(l + "\r\n")
			}
		}
		sdp := "v=0\r\n" + body.String()
		return fmt.Appendf(nil, "%sCall-ID: x@%s\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
			head.String(), hidden, len(sdp), sdp)
	}
	c.Capture = capture(t, 0, stack.AppendUDP(nil, stack.Flow{
		Src: netip.MustParseAddrPort("10.20.0.50:5060"), Dst: netip.MustParseAddrPort("192.0.2.5:9"),
	}, []byte("OPTIONS sip:192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP 10.20.0.50\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n")))
	res, err := pcaps.RunCapture(config, t.TempDir(), c) // for its addresses
	if err != nil {
		t.Fatal(err)
	}
	out := stack.Flow{Src: netip.MustParseAddrPort("203.0.113.2:5060"), Dst: netip.MustParseAddrPort("192.0.2.5:5060")}
	var packets [][]byte // the first leaks nothing, the others their line
	for leaky := -1; leaky < len(lines); leaky++ {
		packets = append(packets, stack.AppendUDP(nil, out, message(leaky)))
	}
	got, err := pcaps.DecodeFile(program, capture(t, time.Millisecond, packets...))
	if err != nil {
		t.Fatal(err)
	}
	if got.SIP != len(packets) {
		t.Fatalf("TShark finds %d messages of %d", got.SIP, len(packets))
	}
	for n := range packets {
		found := slices.DeleteFunc(slices.Clone(got.Found), func(f pcaps.Finding) bool { return f.Frame != fmt.Sprint(n+1) })
		if len(found) == 0 {
			t.Fatalf("TShark finds no address in message %d", n+1)
		}
		found = append(found, pcaps.Text([]pcaps.Message{{Protocol: "sip", Raw: message(n - 1)}})...)
		leaks := res.Leaks("outside", found)
		switch {
		case n == 0 && len(leaks) > 0:
			t.Errorf("where nothing leaks: %v", leaks)
		case n > 0 && len(leaks) == 0:
			t.Errorf("not found out: %s", lines[n-1])
		}
	}
	// An address of nobody, and on the inside one that only the outside is to see.
	for _, tt := range []struct {
		side, addr string
		want       int
	}{
		{"outside", "192.0.2.77", 1}, {"outside", "192.0.2.5", 0}, {"outside", "203.0.113.2", 0}, {"outside", "10.20.0.1", 1},
		{"inside", "203.0.113.2", 1}, {"inside", "10.20.0.50", 0}, {"inside", "0.0.0.0", 0},
	} {
		if leaks := res.Leaks(tt.side, []pcaps.Finding{{Addr: netip.MustParseAddr(tt.addr)}}); len(leaks) != tt.want {
			t.Errorf("%s on %s: %v", tt.addr, tt.side, leaks)
		}
	}
	// SCCP: RegisterReq and OpenReceiveChannelAck that name the inside.
	out.Dst = netip.MustParseAddrPort("192.0.2.5:2000")
	packets = [][]byte{stack.AppendTCP(nil, out, stack.TCPHeader{Seq: 1, Flags: stack.FlagSYN, Window: 100}, nil)}
	seq := uint32(2)
	for _, m := range []struct{ id, size, at byte }{{0x01, 112, 24}, {0x22, 20, 4}} {
		msg := make([]byte, 12+m.size)
		msg[0], msg[8] = m.size+4, m.id
		copy(msg[12+m.at:], []byte{10, 20, 0, 50, 7})
		packets = append(packets, stack.AppendTCP(nil, out, stack.TCPHeader{Seq: seq, Ack: 1, Flags: stack.FlagACK | stack.FlagPSH, Window: 100}, msg))
		seq += uint32(len(msg))
	}
	if got, err = pcaps.DecodeFile(program, capture(t, time.Millisecond, packets...)); err != nil {
		t.Fatal(err)
	}
	if leaks := res.Leaks("outside", got.Found); got.SCCP != 2 || len(leaks) != 2 {
		t.Errorf("%d messages of SCCP, leaks %v", got.SCCP, leaks)
	}
}

// capture writes packets to a file, one each step.
func capture(t testing.TB, step time.Duration, packets ...[]byte) string {
	t.Helper()
	times := make([]time.Duration, len(packets))
	for i := range times {
		times[i] = time.Duration(i) * step
	}
	return captureAt(t, times, packets)
}

// captureAt writes packets to a file.
func captureAt(t testing.TB, times []time.Duration, packets [][]byte) string {
	t.Helper()
	var buf bytes.Buffer
	w := link.NewPCAPNG(&buf)
	w.AddInterface("x")
	for i, b := range packets {
		p := stack.NewPacket(len(b))
		p.SetData(b)
		p.Time = pcaps.Begin.Add(times[i])
		w.Packet(0, link.In, p, "")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
