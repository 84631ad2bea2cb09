package sip

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
	"patchbay/nat"
)

var update = flag.Bool("update", false, "rewrite what the scripts in testdata expect")

// A proxyBinder is a phone proxy that gives everything a fixed name: the phone
// is 10.20.0.5:40001 to the call manager 10.20.0.11, and the call manager is
// 203.0.113.10:5061 to the phone. Media of stream i is at 10.20.0.6 port
// 20000+2i and 203.0.113.6 port 30000+2i.
type proxyBinder struct {
	calls     []string // what was asked
	device    string   // of the phone's certificate; "" for any
	ucmSecure bool     // the call manager's side is SRTP too
	ports     map[string]int
	plain     map[string]bool // streams that the phone offered as RTP
}

func (b *proxyBinder) Self(from nat.End) netip.AddrPort {
	if from == nat.Client {
		return netip.MustParseAddrPort("10.20.0.5:40001")
	}
	return netip.MustParseAddrPort("203.0.113.10:5061")
}

func (b *proxyBinder) Signal(a netip.AddrPort, from nat.End) netip.AddrPort {
	inside, outside := netip.MustParseAddr("10.20.0.11"), netip.MustParseAddr("203.0.113.10")
	switch {
	case from == nat.Server && a.Addr() == inside && a.Port() == 5060:
		return netip.AddrPortFrom(outside, 5061)
	case from == nat.Server && a.Addr() == inside:
		return netip.AddrPortFrom(outside, a.Port())
	case from == nat.Client && a.Addr() == outside && a.Port() == 5061:
		return netip.AddrPortFrom(inside, 5060)
	case from == nat.Client && a.Addr() == outside:
		return netip.AddrPortFrom(inside, a.Port())
	}
	return a
}

// key is a key that shows whose it is.
func key(c byte) inspect.Key {
	k := inspect.Key{Suite: inspect.AES_CM_128_SHA1_32}
	for i := range k.Master {
		k.Master[i] = c
	}
	return k
}

func (b *proxyBinder) Media(m inspect.Media, from nat.End) (inspect.Media, error) {
	tx := "none"
	if !m.Tx.IsZero() {
		tx = fmt.Sprintf("%v %x", m.Tx.Suite, m.Tx.Master[:2])
	}
	b.calls = append(b.calls, fmt.Sprintf("Media %v: stream %s of %.8s at %v, secure %v, tag %q, key %s", from, m.Stream, m.Call, m.Addr, m.Secure, m.Tag, tx))
	name := m.Call + " " + m.Stream
	if b.ports == nil {
		b.ports, b.plain = make(map[string]int), make(map[string]bool)
	}
	port, known := b.ports[name]
	if !known {
		port = 2 * len(b.ports)
		b.ports[name] = port
	}
	out := inspect.Media{Call: m.Call, Stream: m.Stream}
	if from == nat.Client {
		if known && !m.Secure && !b.plain[name] {
			return out, errors.New("plain answer to an SRTP offer")
		}
		b.plain[name] = !m.Secure
		out.Addr = netip.AddrPortFrom(netip.MustParseAddr("10.20.0.6"), uint16(20000+port))
		if b.ucmSecure {
			out.Secure, out.Tx = true, key('u')
		}
		return out, nil
	}
	out.Addr = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.6"), uint16(30000+port))
	if !b.plain[name] {
		out.Secure, out.Tx = true, key('p')
	}
	return out, nil
}

func (b *proxyBinder) Release(call, stream string) {
	b.calls = append(b.calls, fmt.Sprintf("Release: stream %q of %.8s", stream, call))
}

func (b *proxyBinder) Seen(device string) error {
	b.calls = append(b.calls, fmt.Sprintf("Seen: %q", device))
	if b.device != "" && device != "" && device != b.device {
		return fmt.Errorf("the certificate is of %s", b.device)
	}
	return nil
}

var escape = regexp.MustCompile(`\\x[0-9a-f]{2}`)

// wire makes a message of the lines of a script: CRLF, \x80 for bytes that are
// no text, "?" for the length of the body, and "$" where its last line has no
// end.
func wire(text string) []byte {
	switch {
	case strings.HasSuffix(text, "$"):
		text = strings.TrimSuffix(text, "$")
	case strings.Contains(text, "\n\n"):
		text += "\n"
	default:
		text += "\n\n"
	}
	text = strings.ReplaceAll(text, "\n", "\r\n")
	text = escape.ReplaceAllStringFunc(text, func(s string) string {
		n, _ := strconv.ParseUint(s[2:], 16, 8)
		return string([]byte{byte(n)})
	})
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	for _, name := range []string{"\nContent-Length", "\nl"} {
		head = strings.Replace(head, name+": ?", fmt.Sprintf("%s: %d", name, len(body)), 1)
	}
	return []byte(head + "\r\n\r\n" + body)
}

// show is wire backwards.
func show(b []byte) string {
	var s strings.Builder
	if bytes.HasSuffix(b, []byte("\n")) {
		b = bytes.TrimRight(b, "\r\n")
	} else {
		b = append(bytes.Clone(b), '$')
	}
	for i, c := range b {
		switch {
		case c == '\r' && i+1 < len(b) && b[i+1] == '\n':
		case c == '\n' && i > 0 && b[i-1] == '\r':
			s.WriteByte('\n')
		case c < ' ' && c != '\t' || c >= 0x7f:
			fmt.Fprintf(&s, `\x%02x`, c)
		default:
			s.WriteByte(c)
		}
	}
	return s.String()
}

// TestScripts plays the conversations in testdata. In a script "> phone" or "> ucm"
// begins what one end sends, "< ucm" or "< phone" what the other must get, with the
// questions to the Binder before it in lines with "#". A line "* end" closes
// the session.
func TestScripts(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) == 0 {
		t.Fatal("no scripts in testdata")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	t.Helper()
	head, rest, ok := strings.Cut("\n"+script, "\n> ")
	if !ok {
		t.Fatal("no message in the script")
	}
	binder := &proxyBinder{ucmSecure: strings.Contains(head, "secure ucm")}
	engine := &Engine{Client: TLS, Server: TCP}
	if binder.ucmSecure {
		engine.Server = TLS
	}
	session := engine.NewSession(binder)
	out := strings.Trim(head, "\n") + "\n\n"
	for _, step := range strings.Split(rest, "\n> ") {
		name, text, _ := strings.Cut(step, "\n")
		text, _, _ = strings.Cut("\n"+text, "\n< ")
		text = strings.Trim(text, "\n")
		out += "> " + name + "\n" + text + "\n"
		if name == "end" {
			session.Close()
			out = strings.TrimSuffix(out, "\n") + "< end\n# " + strings.Join(binder.calls, "\n# ") + "\n\n"
			binder.calls = nil
			continue
		}
		from, to := nat.Client, "ucm"
		if name == "ucm" {
			from, to = nat.Server, "phone"
		}
		msg := wire(text)
		keep := bytes.Clone(msg)
		n, found, err := engine.Split(msg, true)
		if err != nil || n != len(msg) {
			t.Fatalf("Split(%q) = %d of %d, %v", msg, n, len(msg), err)
		}
		got, err := session.Inspect(nil, found, from)
		out += "< " + to + "\n"
		for _, c := range binder.calls {
			out += "# " + c + "\n"
		}
		binder.calls = nil
		if err != nil {
			out += "! " + err.Error() + "\n\n"
			if len(got) > 0 {
				t.Errorf("Inspect failed and returned %d bytes", len(got))
			}
			continue
		}
		out += show(got) + "\n\n"
		if !bytes.Equal(msg, keep) {
			t.Errorf("Inspect changed the message it borrowed: %q", msg)
		}
		n, again, err := engine.Split(got, true)
		if err != nil || n != len(got) {
			t.Errorf("Split of the result = %d of %d, %v", n, len(got), err)
		}
		var m message
		if err := m.parse(again); err != nil {
			t.Errorf("parse of the result: %v", err)
		}
	}
	return strings.TrimRight(out, "\n") + "\n"
}
