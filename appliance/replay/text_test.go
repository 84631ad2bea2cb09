package replay

import (
	"strings"
	"testing"
)

func TestAppendPayload(t *testing.T) {
	crlf := func(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }
	tests := []struct {
		name    string
		was, is []byte
		want    string
	}{
		{"one line", crlf("A\nb 1\nC\n"), crlf("A\nb 2\nC\n"), "\n   - b 1\n   + b 2"},
		{"far apart", crlf("1\n2\n3\n4\n"), crlf("one\n2\n3\nfour\n"), "\n   - 1\n   + one\n   - 4\n   + four"},
		{"gone", crlf("1\n2\n3\n"), crlf("1\n3\n"), "\n   - 2"},
		{"new", crlf("1\n3\n"), crlf("1\n2\n3\n"), "\n   + 2"},
		{"same", crlf("1\n2\n"), crlf("1\n2\n"), ""},
		{"bytes in a line", crlf("1\n\xff\n"), crlf("1\n\x01\n"), "\n   - \"\\xff\"\n   + \"\\x01\""},
		{"from fragments", []byte("a"), crlf("1\n2\n"), "\n   + 1\n   + 2\n   + "},
		{"no lines", []byte("a"), []byte("b"), ` payload "b"`},
		{"not text", crlf("a\n"), crlf("b\x00\n"), ` payload "b\x00\r\n"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(appendPayload(nil, tt.was, tt.is)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAppendTitle(t *testing.T) {
	for payload, want := range map[string]string{
		"INVITE sip:a@192.0.2.5 SIP/2.0\r\nVia: x\r\n": ` "INVITE sip:a@192.0.2.5 SIP/2.0"`,
		"SIP/2.0 200 OK\r\n":                           ` "SIP/2.0 200 OK"`,
		"SIP/2.0 200 OK":                               "",
		"GET / HTTP/1.1\r\n":                           "",
		"":                                             "",
	} {
		if got := string(appendTitle(nil, []byte(payload))); got != want {
			t.Errorf("%q: got %q, want %q", payload, got, want)
		}
	}
}

func TestAppendContent(t *testing.T) {
	keepAlive := "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for payload, want := range map[string]string{
		"":                    "",
		"SIP/2.0 200 OK\r\n":  ` "SIP/2.0 200 OK"`,
		keepAlive:             " KeepAlive",
		keepAlive + keepAlive: " KeepAlive KeepAlive",
		keepAlive + "\x04":    ` payload "\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04"`,
		"\xff\xff\xff\xff is no message's length": ` payload "\xff\xff\xff\xff is no message's length"`,
	} {
		if got := string(appendContent(nil, []byte(payload))); got != want {
			t.Errorf("%q: got %q, want %q", payload, got, want)
		}
	}
}
