package pcaps_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
)

// same compares two results by their bytes.
func same(t *testing.T, a, b *pcaps.Result) bool {
	t.Helper()
	equal := bytes.Equal(a.Dump, b.Dump) && bytes.Equal(a.Show, b.Show) && len(a.Captures) == len(b.Captures)
	for name, capture := range a.Captures {
		equal = equal && bytes.Equal(capture, b.Captures[name])
	}
	return equal
}

// The same capture, configuration and seed give the same bytes on a machine
// with any number of processors; another seed gives others where the box has
// chosen a number.
func TestSameBytes(t *testing.T) {
	run := func(t *testing.T, processors int, config []byte, c pcaps.Crossing) *pcaps.Result {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		res, err := pcaps.RunCapture(config, t.TempDir(), c)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	rows := shared(t)
	if rows == nil {
		t.Skip("no captures in " + capturesDir)
	}
	chosen := 0
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config, c := r.crossing(t)
			first := run(t, 1, config, c)
			for _, processors := range []int{1, 4} {
				if !same(t, first, run(t, processors, config, c)) {
					t.Errorf("with %d processors other bytes", processors)
				}
			}
			c.Seed = "another"
			if !same(t, first, run(t, 1, config, c)) {
				chosen++
			} else if first.Count.Own > 0 {
				t.Error("another seed gives the same sequence numbers")
			}
		})
	}
	if chosen == 0 {
		t.Error("no capture in which the seed matters")
	}
}

// What ends in one second ends in the same order each time: the ports that are
// free then, and so those of the calls after, are the same.
func TestSameBytesExpiry(t *testing.T) {
	var packets [][]byte
	say := func(host string, port uint16, call, method string, media int) {
		f := stack.Flow{Src: netip.AddrPortFrom(netip.MustParseAddr(host), port), Dst: netip.MustParseAddrPort("192.0.2.5:5060")}
		body := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0\r\nm=audio %[3]d RTP/AVP 0\r\n", host, media, media+10)
		packets = append(packets, stack.AppendUDP(nil, f, fmt.Appendf(nil, "%[1]s sip:b@192.0.2.5 SIP/2.0\r\nVia: SIP/2.0/UDP %[2]v;branch=z9hG4bK%[3]s\r\n"+
			"From: <sip:a@%[4]s>;tag=1\r\nTo: <sip:b@192.0.2.5>\r\nCall-ID: %[3]s\r\nCSeq: 1 %[1]s\r\nContact: <sip:a@%[4]s:%[5]d>;expires=100\r\n"+
			"Content-Type: application/sdp\r\nContent-Length: %[6]d\r\n\r\n%[7]s", method, f.Src, call, host, 6000+media%1000, len(body), body)))
	}
	var times []time.Duration
	for round := range 4 {
		for n := range 40 {
			method := []string{"INVITE", "REGISTER"}[n%2]
			say(fmt.Sprintf("10.20.0.%d", 50+n%5), uint16(5060+n/5), fmt.Sprintf("call-%d-%d", round, n), method, 20000+20*(n%7))
			times = append(times, time.Duration(round)*10*time.Minute)
		}
	}
	r := row{name: "expiry", how: "pat inside=10.20.0.0/24"}
	config, c := r.crossing(t)
	c.Capture = captureAt(t, times, packets)
	var first *pcaps.Result
	for range 8 {
		res, err := pcaps.RunCapture(config, t.TempDir(), c)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = res
			if res.Count.Out != uint64(len(packets)) || !bytes.Contains(res.Dump, []byte("203.0.113.2:1")) {
				t.Fatalf("%+v", res.Count)
			}
		} else if !same(t, first, res) {
			t.Fatalf("other bytes:\n%s", diff(string(first.Dump)+string(first.Show), string(res.Dump)+string(res.Show)))
		}
	}
}
