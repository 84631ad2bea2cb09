//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"patchbay/nat"
)

// An rtpengine is Sipwise's media proxy in the box's place, told what to carry
// by its ng protocol: a dictionary in bencode over UDP, after a cookie.
type rtpengine struct {
	cmd    *exec.Cmd
	exited chan struct{}
	c      net.Conn
	cookie int
}

const ngPort = 22222

// startRTPEngine runs one in n's box, forwarding in userspace on one thread.
func (n *testNet) startRTPEngine(t testing.TB, wrap []string) *rtpengine {
	t.Helper()
	needs(t, "rtpengine-daemon (rtpengine)")
	path, err := lookPath("rtpengine")
	must(t, err)
	args := append(append([]string{}, wrap...), path, "--config-file=none", "--foreground", "--log-stderr", "--log-level=3",
		"--table=-1", "--num-threads=1", "--interface=phones/"+boxAddr.String(), "--interface=far/"+boxInside.String(),
		fmt.Sprint("--listen-ng=127.0.0.1:", ngPort), "--port-min=30000", "--port-max=60000", "--timeout=3600")
	e := &rtpengine{exited: make(chan struct{})}
	e.cmd = n.command(context.Background(), n.box, args[0], args[1:]...)
	var said bytes.Buffer
	e.cmd.Stderr = &said
	must(t, startDying(e.cmd, func(error) { close(e.exited) }))
	t.Cleanup(func() {
		e.stop()
		if t.Failed() {
			t.Logf("rtpengine:\n%s", tail(said.String(), 3000))
		}
	})
	n.awaitListener(t, n.box, "udp", ngPort)
	n.within(t, n.box, func() (err error) {
		e.c, err = net.Dial("udp", fmt.Sprint("127.0.0.1:", ngPort))
		return err
	})
	t.Cleanup(func() { e.c.Close() })
	return e
}

// stop ends it.
func (e *rtpengine) stop() {
	select {
	case <-e.exited:
	default:
		e.cmd.Process.Kill()
		<-e.exited
	}
}

// command sends one and returns the SDP of the answer.
func (e *rtpengine) command(t testing.TB, name string, dict ...string) string {
	t.Helper()
	e.cookie++
	var b strings.Builder
	fmt.Fprintf(&b, "%d d7:command%d:%s", e.cookie, len(name), name)
	for i := 0; i < len(dict); i += 2 {
		fmt.Fprintf(&b, "%d:%s", len(dict[i]), dict[i])
		if v := dict[i+1]; v != "" && v[0] == 'l' && v[len(v)-1] == 'e' { // a list already
			b.WriteString(v)
		} else {
			fmt.Fprintf(&b, "%d:%s", len(v), v)
		}
	}
	b.WriteString("e")
	buf := make([]byte, 65536)
	for range 5 {
		must(t, e.c.SetDeadline(time.Now().Add(2*time.Second)))
		_, err := e.c.Write([]byte(b.String()))
		must(t, err)
		n, err := e.c.Read(buf)
		if err != nil {
			continue
		}
		answer := string(buf[:n])
		if !strings.Contains(answer, "6:result2:ok") {
			t.Fatalf("rtpengine: %s: %s", name, answer)
		}
		if m := ngSDP.FindStringSubmatchIndex(answer); m != nil {
			k, _ := strconv.Atoi(answer[m[2]:m[3]])
			return answer[m[1]:][:k]
		}
		return ""
	}
	t.Fatalf("rtpengine does not answer %s", name)
	return ""
}

var (
	ngSDP      = regexp.MustCompile(`3:sdp(\d+):`)
	sdpAddr    = regexp.MustCompile(`(?m)^c=IN IP4 (\S+)\r$`)
	sdpAudio   = regexp.MustCompile(`(?m)^m=audio (\d+) `)
	sdpCrypto  = regexp.MustCompile(`(?m)^a=crypto:\d+ AES_CM_128_HMAC_SHA1_32 inline:([A-Za-z0-9+/=]{40})`)
	ngReplaced = "l6:origin18:session-connectione"
)

// sdpEnd reads where media goes.
func sdpEnd(t testing.TB, sdp string) netip.AddrPort {
	t.Helper()
	a, m := sdpAddr.FindStringSubmatch(sdp), sdpAudio.FindStringSubmatch(sdp)
	if a == nil || m == nil {
		t.Fatalf("no address in\n%s", sdp)
	}
	return netip.MustParseAddrPort(a[1] + ":" + m[1])
}

// call sets up call i: the phone offers SRTP, the far end answers RTP.
func (e *rtpengine) call(t testing.TB, i int, c *voiceCall) {
	t.Helper()
	sdp := func(at netip.AddrPort, profile, more string) string {
		return fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]v\r\ns=-\r\nc=IN IP4 %[1]v\r\nt=0 0\r\nm=audio %[2]d %[3]s 0\r\na=rtpmap:0 PCMU/8000\r\n%[4]s",
			at.Addr(), at.Port(), profile, more)
	}
	inline := base64.StdEncoding.EncodeToString(append(c.keys[0].Master[:], c.keys[0].Salt[:]...))
	id := fmt.Sprint("call-", i)
	far := e.command(t, "offer", "call-id", id, "from-tag", "phone",
		"sdp", sdp(c.from[nat.Client], "RTP/SAVP", "a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:"+inline+"\r\n"),
		"direction", "l6:phones3:fare", "transport-protocol", "RTP/AVP", "ICE", "remove", "rtcp-mux", "l5:demuxe",
		"flags", "l13:trust-addresse", "replace", ngReplaced)
	phone := e.command(t, "answer", "call-id", id, "from-tag", "phone", "to-tag", "far",
		"sdp", sdp(c.from[nat.Server], "RTP/AVP", ""), "ICE", "remove", "flags", "l13:trust-addresse", "replace", ngReplaced)
	m := sdpCrypto.FindStringSubmatch(phone)
	if m == nil {
		t.Fatalf("no key in\n%s", phone)
	}
	key, err := base64.StdEncoding.DecodeString(m[1])
	must(t, err)
	copy(c.keys[1].Master[:], key)
	copy(c.keys[1].Salt[:], key[16:])
	c.to = [2]netip.AddrPort{nat.Client: sdpEnd(t, phone), nat.Server: sdpEnd(t, far)}
}
