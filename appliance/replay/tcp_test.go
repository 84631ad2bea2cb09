package replay

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

// lines is an engine whose messages are lines. It says who sent each; some
// words have it fail.
type lines struct{ closed *int }

func (lines) Split(data []byte, atEOF bool) (int, []byte, error) {
	if n := bytes.IndexByte(data, '\n'); n >= 0 {
		return n + 1, data[:n+1], nil
	}
	return 0, nil, nil
}
func (l lines) NewSession(inspect.Binder) inspect.Session { return l }
func (lines) Inspect(dst, msg []byte, from nat.End) ([]byte, error) {
	switch word := strings.TrimSpace(string(msg)); word {
	case "drop":
		return dst, inspect.ErrDrop
	case "fail":
		return dst, fmt.Errorf("failed")
	case "reset":
		return dst, fmt.Errorf("no: %w", inspect.ErrReset)
	}
	return append(append(dst, from.String()[0], ':'), msg...), nil
}
func (l lines) Close() { *l.closed++ }

var (
	tcpClientEnd = netip.MustParseAddrPort("10.20.0.5:40000")
	tcpAsked     = netip.MustParseAddrPort("192.0.2.9:2000") // as the client knows the server
	tcpMapped    = netip.MustParseAddrPort("203.0.113.2:40000")
	tcpServerEnd = netip.MustParseAddrPort("192.0.2.9:2000")
)

// tcpAnswer is how long a server may take.
const tcpAnswer = 20 * time.Second

// A tcpBench is a tcpHost between two ends in a capture.
type tcpBench struct {
	*tcpHost
	t      testing.TB
	now    time.Time
	out    []string
	closed int // sessions
	gave   int // leases given back
	iss    map[stack.Flow]uint32
}

func newTCPBench(t testing.TB) *tcpBench {
	b := &tcpBench{tcpHost: newTCPHost(), t: t, now: clockStart, iss: make(map[stack.Flow]uint32)}
	b.mtu = 1500
	b.rand = rand.NewChaCha8([32]byte{1})
	b.serve = func(p *stack.Packet) *tcpService {
		if p.Flow().Dst != tcpAsked {
			return nil
		}
		return &tcpService{
			engine: lines{&b.closed}, from: tcpMapped, to: tcpServerEnd, close: func() { b.gave++ },
			answer: tcpAnswer, log: slog.New(slog.DiscardHandler),
		}
	}
	b.send = func(f stack.Flow, h stack.TCPHeader, payload []byte) {
		who := "server"
		if f.Dst == tcpClientEnd {
			who = "client"
		}
		if h.Flags&stack.FlagSYN != 0 {
			b.iss[f] = h.Seq
		}
		line := fmt.Sprintf("%s %s seq %d", who, flagText(h.Flags), h.Seq-b.iss[f])
		if h.Seq == 0 {
			line = fmt.Sprintf("%s %s seq 0", who, flagText(h.Flags))
		}
		if h.Flags&stack.FlagACK != 0 {
			line += fmt.Sprintf(" ack %d", h.Ack)
		}
		if len(payload) > 0 {
			line += fmt.Sprintf(" %.40q", payload)
		}
		b.out = append(b.out, line)
	}
	return b
}

func flagText(flags uint8) string {
	s := ""
	for i, c := range "FSRPA" {
		if flags&(1<<i) != 0 {
			s += string(c)
		}
	}
	return s
}

var tcpFlows = map[string]stack.Flow{
	"client": {Proto: stack.TCP, Src: tcpClientEnd, Dst: tcpAsked},
	"server": {Proto: stack.TCP, Src: tcpServerEnd, Dst: tcpMapped},
}

// from has a segment arrive as the capture has it.
func (b *tcpBench) from(who string, flags uint8, seq uint32, data string) {
	p := stack.NewPacket(2048)
	p.SetData(stack.AppendTCP(nil, tcpFlows[who], stack.TCPHeader{Seq: seq, Ack: 7, Flags: flags, Window: 1, MSS: uint16(flags & stack.FlagSYN * 50)}, []byte(data)))
	p.Time = b.now
	if v := p.Parse(); v != stack.Forward {
		b.t.Fatal(v)
	}
	b.rebase(p)
	b.take(p)
}

// lines takes what was sent since.
func (b *tcpBench) lines() string {
	s := strings.Join(b.out, "\n")
	b.out = nil
	return s
}

const (
	fS, fA = stack.FlagSYN, stack.FlagACK
	fF, fR = stack.FlagFIN, stack.FlagRST
)

// up completes both handshakes; the client's bytes begin at 101, the server's
// at 501.
func (b *tcpBench) up() {
	b.from("client", fS, 100, "")
	b.from("server", fS|fA, 500, "")
	b.from("client", fA, 101, "")
	b.lines()
}

func TestTCPHost(t *testing.T) {
	tests := []struct {
		name string
		do   func(b *tcpBench)
		want string
	}{
		{"handshake", func(b *tcpBench) {
			b.from("client", fS, 100, "")
			b.from("client", fS, 100, "")
			b.from("client", fA, 101, "unasked\n")
			b.from("server", fS|fA, 500, "")
			b.from("client", fS, 100, "")
			b.from("client", fA, 101, "")
			b.from("server", fS|fA, 500, "")
		}, `
server S seq 0
server S seq 0
server A seq 1 ack 501
client SA seq 0 ack 101
client SA seq 0 ack 101
server A seq 1 ack 501`},
		{"a message each way", func(b *tcpBench) {
			b.up()
			b.from("client", fA, 101, "hello\n")
			b.from("server", fA, 501, "yes\nagain\n")
		}, `
server PA seq 1 ack 501 "c:hello\n"
client A seq 1 ack 107
client PA seq 1 ack 107 "s:yes\ns:again\n"
server A seq 9 ack 511`},
		{"cut, out of order, overlapping and again", func(b *tcpBench) {
			b.up()
			b.from("client", fA, 104, "lo\nwo")
			b.from("client", fA, 103, "Xlo")
			b.from("client", fA, 101, "he")
			b.from("client", fA, 101, "he")
			b.from("client", fA, 109, "rld\n")
		}, `
client A seq 1 ack 101
client A seq 1 ack 101
server PA seq 1 ack 501 "c:heXlo\n"
client A seq 1 ack 109
client A seq 1 ack 109
server PA seq 9 ack 501 "c:world\n"
client A seq 1 ack 113`},
		{"longer than a segment", func(b *tcpBench) {
			b.up()
			b.from("server", fA, 501, strings.Repeat("x", 230))
			b.from("server", fA, 731, "\n")
		}, fmt.Sprintf(`
server A seq 1 ack 731
client A seq 1 ack 101 "s:%s"
client A seq 101 ack 101 "%s"
client PA seq 201 ack 101 "%s\n"
server A seq 1 ack 732`, strings.Repeat("x", 38), strings.Repeat("x", 40), strings.Repeat("x", 32))},
		{"a dropped message", func(b *tcpBench) {
			b.up()
			b.from("client", fA, 101, "drop\ngo on\n")
		}, `
server PA seq 1 ack 501 "c:go on\n"
client A seq 1 ack 112`},
		{"FIN of the client, and the server's answer to ours", func(b *tcpBench) {
			b.up()
			b.from("client", fF|fA, 101, "bye\n")
			b.from("client", fA, 106, "")
			b.from("server", fF|fA, 501, "")
			b.from("server", fA, 502, "")
		}, `
server PA seq 1 ack 501 "c:bye\n"
client FA seq 1 ack 106
server FA seq 7 ack 501
server A seq 8 ack 502`},
		{"data behind our FIN", func(b *tcpBench) {
			b.up()
			b.from("client", fF|fA, 101, "")
			b.lines()
			b.from("server", fA, 501, "too late\n")
		}, `
server RA seq 2 ack 501`},
		{"FIN in the middle of a message", func(b *tcpBench) {
			b.up()
			b.from("client", fF|fA, 101, "half")
		}, `
client FA seq 1 ack 106
server FA seq 1 ack 501`},
		{"reset of the server", func(b *tcpBench) {
			b.up()
			b.from("server", fR, 501, "")
		}, `
client FA seq 1 ack 101`},
		{"server refuses", func(b *tcpBench) {
			b.from("client", fS, 100, "")
			b.lines()
			b.from("server", fR|fA, 0, "")
		}, `
client RA seq 0 ack 101`},
		{"an error ends both", func(b *tcpBench) {
			b.up()
			b.from("client", fA, 101, "one\nfail\ntwo\n")
		}, `
server PA seq 1 ack 501 "c:one\n"
client FA seq 1 ack 114
server FA seq 7 ack 501`},
		{"the action reset", func(b *tcpBench) {
			b.up()
			b.from("server", fA, 501, "reset\n")
		}, `
client RA seq 1 ack 101
server RA seq 1 ack 507`},
		{"half a message waits too long", func(b *tcpBench) {
			b.up()
			b.from("client", fA, 101, "half")
			b.lines()
			b.now = b.now.Add(inspect.DefaultReassembly - 1)
			b.expire(b.now)
			b.now = b.now.Add(1)
			b.expire(b.now)
		}, `
client FA seq 1 ack 105
server FA seq 1 ack 501`},
		{"idle", func(b *tcpBench) {
			b.up()
			b.now = b.now.Add(inspect.DefaultIdle)
			b.expire(b.now)
		}, `
client FA seq 1 ack 101
server FA seq 1 ack 501`},
		{"no answer of the server", func(b *tcpBench) {
			b.from("client", fS, 100, "")
			b.lines()
			b.now = b.now.Add(tcpAnswer)
			b.expire(b.now)
		}, `
client RA seq 0 ack 101
server R seq 1`},
		{"a new SYN in the place of the old", func(b *tcpBench) {
			b.up()
			b.from("client", fS, 9000, "")
			b.from("server", fF|fA, 501, "")
			b.from("server", fA, 502, "")
			b.from("client", fS, 9000, "")
		}, `
server FA seq 1 ack 501
client RA seq 0 ack 9001
server A seq 2 ack 502
server S seq 0`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newTCPBench(t)
			tt.do(b)
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), b.lines()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			b.finish()
		})
	}
}

// finish ends what goes on, and checks that nothing stays.
func (b *tcpBench) finish() {
	b.t.Helper()
	begun := len(b.iss)
	b.now = b.now.Add(2 * inspect.DefaultIdle)
	b.expire(b.now)
	b.now = b.now.Add(2 * lastWait)
	b.expire(b.now)
	if len(b.halves) != 0 || len(b.talks) != 0 || b.closed != b.gave || begun > 0 && b.closed == 0 {
		b.t.Errorf("in the end %d halves, %d talks; %d sessions closed, %d leases given back", len(b.halves), len(b.talks), b.closed, b.gave)
	}
}

// A flow that nobody takes gets no answer, and one of another protocol.
func TestTCPHostNotServed(t *testing.T) {
	b := newTCPBench(t)
	f := tcpFlows["client"]
	f.Dst = netip.MustParseAddrPort("192.0.2.9:2443")
	for _, data := range [][]byte{
		stack.AppendTCP(nil, f, stack.TCPHeader{Flags: fS}, nil),
		stack.AppendTCP(nil, f, stack.TCPHeader{Flags: fA}, []byte("x\n")),
		stack.AppendUDP(nil, f, []byte("x\n")),
	} {
		p := stack.NewPacket(100)
		p.SetData(data)
		p.Parse()
		if b.take(p) {
			t.Errorf("took %v", p)
		}
	}
	if got := b.lines(); got != "" {
		t.Errorf("sent %s", got)
	}
}

// FuzzTCPHost: whatever the ends send, each byte of one reaches the other at
// most once and in order, and nothing stays in the end. Each three bytes of the
// script are a segment: who and which flags, where, how long.
func FuzzTCPHost(f *testing.F) {
	f.Add([]byte{0, 0, 0, 17, 0, 0, 2, 0, 0, 2, 0, 9, 18, 3, 9, 6, 12, 0})
	f.Add([]byte{0, 0, 0, 2, 0, 5, 17, 0, 0, 34, 5, 200, 3, 0, 9, 64, 0, 0, 2, 4, 4})
	const text = "one\ntwo two\nthree\ndrop\nfour four four\n"
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newTCPBench(t)
		got := make(map[stack.Flow][]byte)
		send := b.send
		b.send = func(f stack.Flow, h stack.TCPHeader, payload []byte) {
			send(f, h, payload)
			if h.Flags&fS != 0 {
				got[f] = nil
				return
			}
			if at := h.Seq - b.iss[f] - 1; int(at) != len(got[f]) && len(payload) > 0 {
				t.Fatalf("segment at %d after %d bytes", at, len(got[f]))
			}
			got[f] = append(got[f], payload...)
		}
		for ; len(script) >= 3; script = script[3:] {
			who, isn := "client", uint32(100)
			if script[0]&1 != 0 {
				who, isn = "server", 500
			}
			flags := [...]uint8{fS, fA, fA, fF | fA, fR, fS | fA, fA, 0}[script[0]>>1&7]
			at := min(int(script[1]), len(text))
			if flags&fS != 0 {
				b.from(who, flags, isn, "")
				continue
			}
			b.from(who, flags, isn+1+uint32(at), text[at:min(len(text), at+int(script[2]))])
			b.now = b.now.Add(time.Duration(script[0]>>5) * 7 * time.Second)
			b.expire(b.now)
		}
		var want []byte
		for _, l := range strings.SplitAfter(text, "\n") {
			if l != "drop\n" && l != "" {
				want = append(append(want, "?:"...), l...)
			}
		}
		for f, g := range got {
			for i := range g {
				if i > 0 && g[i] == ':' {
					g[i-1] = '?'
				}
			}
			if !bytes.HasPrefix(want, g) {
				t.Fatalf("%v got %q", f, g)
			}
		}
		b.finish()
	})
}
