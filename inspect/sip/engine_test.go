package sip

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"patchbay/inspect"
	"patchbay/nat"
)

const options = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\n"

func TestSplit(t *testing.T) {
	stream, datagram := &Engine{}, &Engine{Client: UDP, Server: UDP}
	tests := []struct {
		name   string
		engine *Engine
		data   string
		atEOF  bool
		n      int // length of the message, 0 to wait for more
		err    error
	}{
		{"empty", stream, "", false, 0, nil},
		{"start line", stream, "OPTIONS sip:a@b SIP/2.0\r\n", false, 0, nil},
		{"half a start line", stream, "OPTI", false, 0, nil},
		{"no body", stream, options + "Content-Length: 0\r\n\r\n", false, len(options) + 21, nil},
		{"body", stream, options + "Content-Length: 3\r\n\r\nabcdef", false, len(options) + 24, nil},
		{"half a body", stream, options + "Content-Length: 3\r\n\r\nab", false, 0, nil},
		{"compact, spaces, fold", stream, options + "l :\r\n 3\t\r\n\r\nabc", false, len(options) + 15, nil},
		{"LF only", stream, strings.ReplaceAll(options, "\r", "") + "l: 3\n\nabc", false, len(options) - 4 + 9, nil},
		{"no Content-Length on a stream", stream, options + "\r\nabc", false, len(options) + 2, nil},
		{"no Content-Length in a datagram", datagram, options + "\r\nabc", true, len(options) + 5, nil},
		{"rest of a datagram", datagram, options + "l: 1\r\n\r\nabc", true, len(options) + 9, nil},
		{"the same length twice", stream, options + "l: 1\r\nContent-Length: 01\r\n\r\nab", false, len(options) + 29, nil},
		{"two lengths", stream, options + "l: 1\r\nContent-Length: 2\r\n\r\nab", false, 0, ErrLength},
		{"negative", stream, options + "Content-Length: -1\r\n\r\n", false, 0, ErrLength},
		{"no number", stream, options + "Content-Length: abc\r\n\r\n", false, 0, ErrLength},
		{"no value", stream, options + "Content-Length:\r\n\r\n", false, 0, ErrLength},
		{"a list", stream, options + "Content-Length: 1, 1\r\n\r\n", false, 0, ErrLength},
		{"more than fits", stream, options + "Content-Length: 65537\r\n\r\n", false, 0, ErrLimit},
		{"more than a number holds", stream, options + "Content-Length: 99999999999999999999999\r\n\r\n", false, 0, ErrLimit},
		{"long datagram", datagram, options + "\r\n" + strings.Repeat("a", MaxBody+1), true, 0, ErrLimit},
		{"header without end", stream, options + strings.Repeat("X: y\r\n", MaxHeader/6), false, 0, ErrLimit},
		{"cut header", stream, options, true, 0, io.ErrUnexpectedEOF},
		{"cut body", stream, options + "l: 3\r\n\r\nab", true, 0, io.ErrUnexpectedEOF},
		{"ping", stream, "\r\n\r\n", false, 2, nil},
		{"half a ping", stream, "\r", false, 0, nil},
		{"half a ping and no more", stream, "\r", true, 1, nil},
		{"CR and a message", stream, "\rOPTIONS", false, 1, nil},
		{"LF", stream, "\nOPTIONS", false, 1, nil},
		{"TLS", stream, "\x16\x03\x01\x02\x00", false, 0, ErrMalformed},
		{"HTTP", stream, "GET / HTTP/1.1\r\n", false, 0, ErrMalformed},
		{"SIP/3.0", stream, "OPTIONS sip:a@b SIP/3.0\r\n", false, 0, ErrMalformed},
		{"response", stream, "SIP/2.0 200\r\n\r\n", false, 15, nil},
		{"status of two digits", stream, "SIP/2.0 20 OK\r\n", false, 0, ErrMalformed},
		{"status 700", stream, "SIP/2.0 700 OK\r\n", false, 0, ErrMalformed},
		{"space in the URI", stream, "OPTIONS sip:a b SIP/2.0\r\n", false, 0, ErrMalformed},
		{"folded start line", stream, "OPTIONS sip:a@b SIP/2.0\r\n Content-Length: 5\r\n\r\n", false, 0, ErrMalformed},
		{"CR in a header", stream, options + "X: y\rContent-Length: 5\r\n\r\n", false, 0, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, msg, err := tt.engine.Split([]byte(tt.data), tt.atEOF)
			if n != tt.n || len(msg) != tt.n || !errors.Is(err, tt.err) {
				t.Errorf("Split(%.200q, %v) = %d, %q, %v; want %d bytes, %v", tt.data, tt.atEOF, n, msg, err, tt.n, tt.err)
			}
		})
	}
}

// TestSplitAnywhere cuts a stream of messages at every byte, and feeds it byte
// by byte.
func TestSplitAnywhere(t *testing.T) {
	messages := []string{
		"\r\n", "\r\n",
		options + "Content-Length: 5\r\n\r\n\r\n\r\nx",
		"\n",
		"SIP/2.0 200 OK\r\nv: SIP/2.0/TCP a;branch=z9hG4bK1\r\ni: 1\r\nCSeq: 1 OPTIONS\r\nl: 0\r\n\r\n",
		options + "\r\n",
	}
	all := strings.Join(messages, "")
	for cut := range len(all) {
		r := io.MultiReader(strings.NewReader(all[:cut]), strings.NewReader(all[cut:]))
		if cut == 0 {
			r = &byteReader{all}
		}
		sc := bufio.NewScanner(r)
		sc.Split((&Engine{}).Split)
		var got []string
		for sc.Scan() {
			got = append(got, sc.Text())
		}
		if sc.Err() != nil || strings.Join(got, "|") != strings.Join(messages, "|") {
			t.Fatalf("cut at %d: %q, %v; want %q", cut, got, sc.Err(), messages)
		}
	}
}

type byteReader struct{ s string }

func (r *byteReader) Read(p []byte) (int, error) {
	if r.s == "" {
		return 0, io.EOF
	}
	p[0], r.s = r.s[0], r.s[1:]
	return 1, nil
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte(options+"Content-Length: 3\r\n\r\nabc"), uint16(30))
	f.Add([]byte("\r\n\r\nSIP/2.0 200 OK\r\nl:\r\n 0\r\n\r\n"), uint16(3))
	f.Add([]byte("OPTIONS sip:a@b SIP/2.0\nl: 1\nl: 2\n\n"), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		for _, e := range []*Engine{{}, {Client: UDP}} {
			n, msg, err := e.Split(data, true)
			if n < 0 || n > len(data) || err != nil && n != 0 || len(msg) > n {
				t.Fatalf("Split(%q) = %d, %q, %v", data, n, msg, err)
			}
			// On a stream a message must not depend on how its bytes arrive.
			if c := int(cut); e.Client == "" && n > 0 && c < n {
				m, msg, err := e.Split(data[:c], false)
				if err != nil || m > n || m > 0 && m != n {
					t.Fatalf("Split(%q) = %d, %q, %v; whole it is %d", data[:c], m, msg, err, n)
				}
			}
		}
	})
}

func FuzzInspect(f *testing.F) {
	for _, text := range []string{
		"INVITE sip:1002@203.0.113.10:5061;transport=tls SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK1;rport, SIP/2.0/UDP x\nFrom: \"a\" <sip:1@192.168.1.50>;tag=1\nTo: sip:2@203.0.113.10\nCall-ID: 1\nCSeq: 1 INVITE\nContact: <sips:u@192.168.1.50:49153;transport=tls?a=b>\nCall-Info: <urn:x>;huntpiloturi=\"<sip:7@10.20.0.11>\"\nContent-Type: application/sdp\nContent-Length: ?\n\nv=0\no=- 1 1 IN IP4 192.168.1.50\nc=IN IP4 192.168.1.50\nm=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\na=rtcp:4001\nm=video 0 RTP/AVP 31",
		"SIP/2.0 200 OK\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK1;received=10.20.0.5;rport=40001\nCall-ID: 1\nCSeq: 1 INVITE\nContent-Type: multipart/mixed;boundary=b\nContent-Length: ?\n\n--b\nContent-Type: application/sdp\nContent-Length: 1\n\nv=0\nm=audio 4000 RTP/AVP 0\n--b--",
		"REGISTER sip:203.0.113.10 SIP/2.0\nv: SIP/2.0/TLS [2001:db8::7]:5061\ni: 1\nCSeq: 1 REGISTER\nm: <sip:u@h>;+sip.instance=\"<urn:uuid:00000000-0000-0000-0000-020000000007>\"\nRefer-To: <sip:a@[::1]?x=y>\n",
	} {
		f.Add(wire(text), true)
		f.Add(wire(text), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, client bool) {
		from := nat.Server
		if client {
			from = nat.Client
		}
		// Whatever its Content-Length says: more of the bodies is seen.
		s := (&Engine{Client: TLS, Server: TCP}).NewSession(&proxyBinder{})
		for range 2 {
			if out, err := s.Inspect(nil, data, from); err == nil && !isKeepalive(data) {
				var m message
				if err := m.parse(out); err != nil {
					t.Fatalf("parse of the result %q of %q: %v", out, data, err)
				}
			}
			from = from.Other()
		}
		s.Close()
		for _, e := range []*Engine{{Client: TLS, Server: TCP}, {Client: TLS, Server: TLS, EveryMedia: true, MaxCalls: 2}} {
			s := e.NewSession(&proxyBinder{})
			same := e.NewSession(identityBinder{})
			rest := data
			for len(rest) > 0 {
				n, msg, err := e.Split(rest, true)
				if err != nil {
					break
				}
				rest = rest[n:]
				keep := bytes.Clone(msg)
				out, err := s.Inspect(nil, msg, from)
				if err == nil {
					if n, _, err := e.Split(out, true); err != nil || n != len(out) {
						t.Fatalf("Split of the result %q of %q: %d, %v", out, msg, n, err)
					}
				} else if !errors.Is(err, inspect.ErrDrop) {
					t.Fatalf("Inspect(%q): %v, which is no drop", msg, err)
				}
				if !bytes.Equal(msg, keep) {
					t.Fatalf("Inspect changed its input")
				}
				if e.EveryMedia && !mayChange(msg) {
					if out, err := same.Inspect(nil, msg, from); err == nil && !bytes.Equal(out, msg) {
						t.Fatalf("without a change to make, Inspect(%q) = %q", msg, out)
					}
				}
				from = from.Other()
			}
			s.Close()
			same.Close()
		}
	})
}

// mayChange reports whether a message may change even if the Binder changes
// nothing: media that nobody can carry are refused.
func mayChange(msg []byte) bool {
	return bytes.Contains(msg, []byte("\nm="))
}

func BenchmarkInvite(b *testing.B) {
	e := &Engine{Client: TLS, Server: TCP}
	msg := wire("INVITE sip:1002@203.0.113.10;user=phone SIP/2.0\nVia: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bKi1\nFrom: <sip:1001@203.0.113.10>;tag=pt\nTo: <sip:1002@203.0.113.10>\nCall-ID: aaaa0001@192.168.1.50\nCSeq: 101 INVITE\nMax-Forwards: 70\nUser-Agent: Cisco-CP7975G/9.3.1\nContact: <sip:uuid-1@192.168.1.50:49153;transport=tls>\nRemote-Party-ID: \"Ann\" <sip:1001@203.0.113.10>;party=calling\nContent-Type: application/sdp\nContent-Length: ?\n\nv=0\no=Cisco-SIPUA 25841 1 IN IP4 192.168.1.50\ns=SIP Call\nt=0 0\nm=audio 24586 RTP/SAVP 0 101\nc=IN IP4 192.168.1.50\na=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm\na=rtpmap:0 PCMU/8000\na=rtpmap:101 telephone-event/8000\na=sendrecv")
	s := e.NewSession(quietBinder{})
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		_, m, err := e.Split(msg, false)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Inspect(dst, m, nat.Client); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	e := &Engine{Client: TLS, Server: TCP}
	s := e.NewSession(&proxyBinder{}) // the phone is 10.20.0.5:40001 inside
	defer s.Close()
	sc := bufio.NewScanner(strings.NewReader("OPTIONS sip:203.0.113.10:5061;transport=tls SIP/2.0\r\n" +
		"Via: SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK7\r\n" +
		"Call-ID: 7@192.168.1.50\r\n" +
		"CSeq: 1 OPTIONS\r\n" +
		"Content-Length: 0\r\n\r\n"))
	sc.Split(e.Split)
	for sc.Scan() {
		out, err := s.Inspect(nil, sc.Bytes(), nat.Client)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(strings.ReplaceAll(string(bytes.TrimSpace(out)), "\r", ""))
	}
	// Output:
	// OPTIONS sip:10.20.0.11:5060;transport=tcp SIP/2.0
	// Via: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK7
	// Call-ID: 7@192.168.1.50
	// CSeq: 1 OPTIONS
	// Content-Length: 0
}
