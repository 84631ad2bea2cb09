package appliance

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/phoneproxy"
	"patchbay/nat"
)

// debugged is a box's debugging alone, with a clock and a settable topic.
func debugged(settings ...debugSetting) (*Appliance, *time.Time) {
	now := time.Unix(1000, 0)
	a := &Appliance{}
	a.debug.now = func() time.Time { return now }
	a.debug.settings = settings
	return a, &now
}

// A flood is cut off at so many lines a second, and what was cut is counted.
func TestDebugRate(t *testing.T) {
	a, now := debugged(debugSetting{topic: debugTFTP})
	var mu sync.Mutex
	var got []string
	stop := a.WatchDebug(func(line string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, line)
	})
	e := phoneproxy.Event{Kind: phoneproxy.FileAsked, From: netip.MustParseAddrPort("192.0.2.66:9"), Iface: "outside"}
	for k := range maxDebugLines + 7 {
		e.File = fmt.Sprint(k)
		a.debug.event(e)
	}
	*now = now.Add(time.Second)
	a.debug.event(e)
	stop()
	if n := len(got); n != maxDebugLines+2 {
		t.Fatalf("%d lines, want %d", n, maxDebugLines+2)
	}
	if want := "PP: 7 lines suppressed"; !strings.HasPrefix(got[maxDebugLines], want) || got[maxDebugLines+1] != "PP: 192.0.2.66/9 requesting 106" {
		t.Errorf("after %d lines: %q, want %q", maxDebugLines, got[maxDebugLines:], want)
	}
	if a.debug.on.Load() != 0 {
		t.Error("debug is on for nobody")
	}
	a.debug.event(e) // nobody is there
}

// Who does not read loses lines and learns how many; nobody waits for him.
func TestDebugSlowWatcher(t *testing.T) {
	a, now := debugged(debugSetting{topic: debugTFTP})
	gate := make(chan struct{})
	var got []string
	stop := a.WatchDebug(func(line string) {
		<-gate
		got = append(got, line)
	})
	e := phoneproxy.Event{Kind: phoneproxy.FileAsked, From: netip.MustParseAddrPort("192.0.2.66:9")}
	for range 2 * debugQueue {
		*now = now.Add(time.Second)
		a.debug.event(e)
	}
	close(gate)
	stop()
	lost := 0
	for _, line := range got {
		var n int
		if _, err := fmt.Sscanf(line, "PP: %d lines lost", &n); err == nil {
			lost += n
		}
	}
	if lost == 0 || lost+len(got)-1 != 2*debugQueue {
		t.Errorf("%d lines lost, %d shown, want %d together", lost, len(got)-1, 2*debugQueue)
	}
}

func TestDebugSetting(t *testing.T) {
	at, other := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8")
	const device = "SEP0200C6336407"
	tests := []struct {
		s      debugSetting
		topic  topic
		failed bool
		at     netip.Addr
		want   bool
	}{
		{debugSetting{topic: debugSIP}, debugSIP, false, at, true},
		{debugSetting{topic: debugSIP}, debugSkinny, false, at, false},
		{debugSetting{debugTFTP, "errors", ""}, debugTFTP, false, at, false},
		{debugSetting{debugTFTP, "errors", ""}, debugTFTP, true, at, true},
		{debugSetting{debugTFTP, "events", ""}, debugTFTP, true, at, false},
		{debugSetting{debugTFTP, "events", ""}, debugTFTP, false, at, true},
		{debugSetting{debugTFTP, "", device}, debugTFTP, false, other, true},
		{debugSetting{debugTFTP, "", "SEP0200C6336408"}, debugTFTP, false, at, false},
		{debugSetting{debugTFTP, "", "198.51.100.7"}, debugTFTP, false, at, true},
		{debugSetting{debugTFTP, "", "198.51.100.7"}, debugTFTP, false, other, false},
	}
	for _, tt := range tests {
		if got := tt.s.has(tt.topic, tt.failed, device, tt.at); got != tt.want {
			t.Errorf("%q has topic %d, failed %v, of %v: %v, want %v", tt.s, tt.topic, tt.failed, tt.at, got, tt.want)
		}
	}
}

// A message costs nothing while nobody debugs, and shows nothing of what it
// carries while somebody does.
func TestDebugMessage(t *testing.T) {
	const msg = "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/TLS 198.51.100.7:5061;branch=z9hG4bK1\r\nFrom: <sip:1@x>;tag=1\r\nTo: <sip:2@x>\r\n" +
		"Call-ID: a@198.51.100.7\r\nCSeq: 7 REGISTER\r\nAuthorization: Digest username=\"bob\", response=\"0123456789abcdef\"\r\n" +
		"Content-Length: 61\r\n\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0c2VjcmV0\r\n\r\n"
	a, _ := debugged()
	client := netip.MustParseAddrPort("198.51.100.7:2000")
	x := &inspection{protocol: "sip"}
	raw := []byte(msg)
	if n := testing.AllocsPerRun(100, func() { a.watchPlain(x, client, raw, nat.Client, nil) }); n != 0 {
		t.Errorf("%v allocations with debug off", n)
	}
	a.debug.settings = []debugSetting{{topic: debugSIP}}
	var got []string
	stop := a.WatchDebug(func(line string) { got = append(got, line) })
	a.watchPlain(x, client, raw, nat.Client, nil)
	a.watchPlain(x, client, []byte("\x00\x1b[2J"), nat.Server, fmt.Errorf("secret"))
	stop()
	want := []string{
		fmt.Sprintf("SIP: 198.51.100.7/2000 -> REGISTER, %d bytes, call-id a@198.51.100.7", len(msg)),
		"SIP: 198.51.100.7/2000 <- no SIP, 5 bytes, does not pass",
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("debug shows %q, want %q", got, want)
	}
}

// What a terminal has asked for is shown there and nowhere else, and ends with it.
func TestDebugTo(t *testing.T) {
	b := newTracedBox(t, "hostname pb\n", nil)
	shown := make(map[string][]string)
	var mu sync.Mutex
	to := func(name string) func(string) {
		return func(line string) {
			mu.Lock()
			defer mu.Unlock()
			shown[name] = append(shown[name], line)
		}
	}
	one, stopOne := b.DebugTo(t.Context(), to("one"))
	two, stopTwo := b.DebugTo(t.Context(), to("two"))
	stopAll := b.WatchDebug(to("programs"))
	do := func(ctx context.Context, line, want string) {
		t.Helper()
		var out strings.Builder
		if err := b.ExecContext(ctx, &out, line, nil); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v, want %q", line, out.String(), err, want)
		}
	}
	event := func(file string) {
		b.debug.event(phoneproxy.Event{Kind: phoneproxy.FileAsked, From: netip.MustParseAddrPort("192.0.2.66:9"), File: file})
	}
	do(one, "debug phone-proxy tftp", "debug phone-proxy tftp is on\n")
	do(two, "debug sip", "debug sip is on\n")
	do(one, "show debug", "debug phone-proxy tftp\n")
	do(t.Context(), "show debug", "")
	event("a")
	do(two, "no debug phone-proxy tftp", "debug phone-proxy tftp is off\n")
	do(t.Context(), "debug phone-proxy tftp", "debug phone-proxy tftp is on\n")
	event("b")
	do(one, "no debug phone-proxy tftp", "debug phone-proxy tftp is off\n")
	event("c")
	do(two, "undebug all", "All possible debugging has been turned off\n")
	event("d")
	do(one, "debug phone-proxy tftp", "debug phone-proxy tftp is on\n")
	stopOne()
	if b.debug.on.Load() != 0 {
		t.Error("debug is on for nobody")
	}
	event("e")
	stopTwo()
	stopAll()
	const asks = "PP: 192.0.2.66/9 requesting "
	want := map[string][]string{"one": {asks + "a", asks + "b"}, "programs": {asks + "b", asks + "c"}}
	if diff := cmp.Diff(shown, want); diff != "" {
		t.Errorf("debug shows (-got +want):\n%s", diff)
	}
}
