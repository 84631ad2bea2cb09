package appliance_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/nat"
)

var updatePhones = flag.Bool("update", false, "rewrite testdata/phones")

// What differs from run to run: ports, times, counts, serial numbers, what
// protocols choose by chance.
var varying = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`\b(198\.51\.100\.\d+|10\.20\.0\.(?:20|50|51)|203\.0\.113\.20)([:/])\d+`), "$1${2}PORT"},
	{regexp.MustCompile(`(outside +198\.51\.100\.\d+ +)\d+ +`), "${1}PORT "},
	{regexp.MustCompile(`[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\.\d{3}`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`), "TIME"},
	{regexp.MustCompile(`\b0:00:0\d\b`), "0:00:0N"},
	{regexp.MustCompile(`(?i)(serial:? )[0-9A-F]{16,18}`), "${1}SERIAL"},
	{regexp.MustCompile(`\b(byte|tx_pkts|rx_pkts|received|sent|lost) \d+`), "$1 N"},
	{regexp.MustCompile(`\b\d+ (bytes)`), "N $1"},
	{regexp.MustCompile(`(from the phone|from the call manager's side) \d+( packets)?`), "$1 N"},
	{regexp.MustCompile(`, (not sent for want of an address|RTCP) \d+`), ""},
	{regexp.MustCompile(`call 0200c6336408-[0-9a-f]+-[0-9a-f]+@`), "call ID@"},
	{regexp.MustCompile(`SEP0200C6336408 0200c6336408-[0-9a-f]+-[0-9a-f]+@`), "SEP0200C6336408 ID@"},
	{regexp.MustCompile(`\d{8}/\d{8}`), "CALL/STREAM"},
	{regexp.MustCompile(`call \d{8}, stream \d{8}`), "call CALL, stream STREAM"},
	{regexp.MustCompile(`call \d{8}:`), "call CALL:"},
	{regexp.MustCompile(`; it has just begun`), ""},
	{regexp.MustCompile(`(?m)^  (-    |ok   ) media         `), "  ?     media         "},
}

func steady(s string) string {
	for _, v := range varying {
		s = v.re.ReplaceAllString(s, v.to)
	}
	return s
}

// Transcripts of each command while a Skinny and a SIP phone are in a call.
func TestPhoneTranscripts(t *testing.T) {
	b := start(t, setup{})
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		p, q := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
		b.call(p, q)
	}
	for _, p := range []string{"SEP0200C6336407", "SEP0200C6336408"} {
		b.eventually("a file is on its way still", func() bool { return !strings.Contains(b.exec("show phone-proxy phone "+p), ": request") })
	}
	if got, want := b.exec("show version"), "\nUC Phone Proxy Sessions           : Unlimited      perpetual  2 in use\nTotal UC Proxy Sessions           : Unlimited      perpetual  2 in use\n"; !strings.Contains(got, want) {
		t.Errorf("show version:\n%s\nwant in it %q", got, want)
	}
	for _, tt := range []struct{ name, commands string }{
		{"phone-proxy", "show phone-proxy\nshow phone-proxy secure-phones\nshow phone-proxy signaling-sessions\nshow phone-proxy signaling-sessions detail"},
		{"media", "show phone-proxy media-sessions\nshow media-termination"},
		{"tls-proxy", "show tls-proxy\nshow tls-proxy session\nshow tls-proxy session count\nshow tls-proxy session detail"},
		{"phone", "show phone-proxy phone SEP0200C6336407\nshow phone-proxy phone 198.51.100.8\nshow phone-proxy phone sep0200c6336499"},
		{"diagnose", "diagnose phone SEP0200C6336407\ndiagnose phone SEP0200C6336499"},
	} {
		var got strings.Builder
		for _, c := range strings.Split(tt.commands, "\n") {
			fmt.Fprintf(&got, "patchbay# %s\n%s", c, steady(b.exec(c)))
		}
		file := filepath.Join("testdata", "phones", tt.name+".txt")
		if *updatePhones {
			b.must(os.MkdirAll(filepath.Dir(file), 0o755))
			b.must(os.WriteFile(file, []byte(got.String()), 0o644))
			continue
		}
		want, err := os.ReadFile(file)
		b.must(err)
		if diff := cmp.Diff(string(want), got.String()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", file, diff)
		}
	}

	// What varies is what the phones and the relay say it is.
	media := b.exec("show phone-proxy media-sessions detail")
	for _, m := range b.app.MediaSessions() {
		for _, end := range []nat.End{nat.Client, nat.Server} {
			at := m.Local(end)
			if want := fmt.Sprintf("Media-session: %v/%d refcnt 2\n", at.Addr(), at.Port()); strings.Count(media, want) != 1 {
				t.Errorf("%q is not in\n%s", want, media)
			}
		}
	}
	if n := strings.Count(media, "codec G.711 u-law, lost 0, last packet 0:00:00 ago"); n != 4 {
		t.Errorf("%d legs have that codec and no loss, want 4:\n%s", n, media)
	}
	for _, s := range b.app.PhoneSessions() {
		if text := b.exec("show phone-proxy secure-phones"); !strings.Contains(text, s.Phone.Addr().String()) {
			t.Errorf("%v is not in\n%s", s.Phone, text)
		}
	}
	policy := b.exec("show service-policy inspect skinny")
	if m := regexp.MustCompile(`Inspect: skinny phone-proxy home, packet (\d+), drop 0`).FindStringSubmatch(policy); m == nil || m[1] == "0" {
		t.Errorf("the phone proxy's inspection counts nothing:\n%s", policy)
	}
	b.exec("clear service-policy")

	// After the call its report stays.
	p := b.lab.Phone(lab.Remote, lab.SIP)
	b.must(p.HangUp(b.ctx))
	b.eventually("the story does not tell that the call is over", func() bool {
		s := b.exec("show phone-proxy phone " + p.Name())
		return regexp.MustCompile(`sip media closed: call .*\n +phone 198\.51\.100\.8/\d+: SRTP, received [1-9]\d*, sent [1-9]\d*, codec G\.711 u-law, lost 0`).MatchString(s) && !strings.Contains(s, "\n  Media: ")
	})
	for _, c := range []string{"show phone-proxy phone SEP02", "show ctl-file none", "debug sip host nobody"} {
		var refusal *appliance.Refusal
		if err := b.app.Exec(new(bytes.Buffer), c); !errors.As(err, &refusal) {
			t.Errorf("%s: %v, want a refusal", c, err)
		}
	}
	if got := b.exec("clear phone-proxy secure-phones 198.51.100.7"); got != "1 secure phone(s) deleted.\n" {
		t.Errorf("clear phone-proxy secure-phones: %q", got)
	}
}

// A screen keeps the lines of debug.
type screen struct {
	mu    sync.Mutex
	lines []string
}

func (s *screen) show(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n") + "\n"
}

func TestDebug(t *testing.T) {
	b := start(t, setup{})
	one, all := &screen{}, &screen{}
	stop := b.app.WatchDebug(all.show)
	defer stop()
	for _, c := range []string{
		"debug phone-proxy tftp", "debug phone-proxy signaling events host SEP0200C6336407", "debug phone-proxy media host 198.51.100.8",
		"debug sip host 198.51.100.8", "debug skinny", "debug tls-proxy errors",
	} {
		b.exec(c)
	}
	if got, want := b.exec("show debug"), "debug phone-proxy tftp\ndebug phone-proxy signaling events host SEP0200C6336407\ndebug phone-proxy media host 198.51.100.8\ndebug sip host 198.51.100.8\ndebug skinny\ndebug tls-proxy errors\n"; got != want {
		t.Errorf("show debug: %q, want %q", got, want)
	}
	var phones []*lab.Phone
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		p, q := b.up(lab.Remote, proto), b.up(lab.Inside, proto)
		b.call(p, q)
		phones = append(phones, p)
	}
	p := b.stranger(identity(t, newCA("Other CA"), strangerMAC))
	b.must(p.Boot(b.ctx))
	b.mustFail("Register", p.Register(b.ctx))
	for _, want := range []string{
		`PP: Client outside:198\.51\.100\.7/\d+ requesting CTLSEP0200C6336407\.tlv, retrieved CTL file\n`,
		`PP: 198\.51\.100\.8/\d+ requesting SEP0200C6336408\.cnf\.xml\.sgn\n`,
		`PP: SEP0200C6336407 outside:198\.51\.100\.7/\d+ registered: with 10\.20\.0\.11:2000\n`,
		`PP: SEP0200C6336408 outside:198\.51\.100\.8/\d+ media opened: `,
		`SKINNY: SEP0200C6336407 outside:198\.51\.100\.7/\d+ <- OpenReceiveChannel, \d+ bytes\n`,
		`SIP: SEP0200C6336408 outside:198\.51\.100\.8/\d+ -> INVITE, \d+ bytes, call-id \S+\n`,
		`SIP: SEP0200C6336408 outside:198\.51\.100\.8/\d+ <- 200 REGISTER, `,
		`PP: ` + strangerName + ` outside:198\.51\.100\.99/\d+ TLS failed: .*issuer CN=Other CA`,
	} {
		b.eventually("debug does not show "+want, func() bool { return regexp.MustCompile(want).MatchString(all.String()) })
	}
	for _, never := range []string{
		`SEP0200C6336408 \S+ registered`, `SEP0200C6336407 \S+ media`, `PP: SEP\w+ \S+ TLS: `,
		"a=crypto", "inline:", "Authorization", "Digest", "sip:", `[0-9A-Za-z+/]{40}`, `\b[0-9a-f]{24,}\b`,
	} {
		if s := regexp.MustCompile(never).FindString(all.String()); s != "" {
			t.Errorf("debug shows %q", s)
		}
	}
	for _, k := range boxKeys().keys {
		for _, secret := range []string{hex.EncodeToString(k.D.Bytes()[:16]), base64.StdEncoding.EncodeToString(k.D.Bytes()[:15])} {
			if strings.Contains(all.String(), secret) {
				t.Error("debug shows a key")
			}
		}
	}

	// Off, one after another and all.
	b.exec("no debug sip host 198.51.100.8")
	if got := b.exec("show debug"); strings.Contains(got, "debug sip") {
		t.Errorf("show debug: %q", got)
	}
	b.exec("undebug all")
	if got := b.exec("show debug"); got != "" {
		t.Errorf("show debug: %q", got)
	}
	stopOne := b.app.WatchDebug(one.show)
	b.must(phones[0].HangUp(b.ctx))
	b.must(phones[1].HangUp(b.ctx))
	b.idle()
	stopOne()
	stopOne()
	if one.String() != "\n" {
		t.Errorf("debug that is off shows %q", one)
	}
	for k := range 40 {
		err := b.app.Exec(new(bytes.Buffer), fmt.Sprintf("debug sip host 198.51.100.%d", k))
		if (err != nil) != (k >= 32) {
			t.Fatalf("debug command %d: %v", k+1, err)
		}
	}
}
