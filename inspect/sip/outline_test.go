package sip

import (
	"strings"
	"testing"
)

func TestOutlined(t *testing.T) {
	const rest = "Via: SIP/2.0/TLS 198.51.100.7:5061;branch=z9hG4bK1\r\nFrom: <sip:1@x>;tag=1\r\nTo: <sip:2@x>\r\n" +
		"Call-ID: a@198.51.100.7\r\nCSeq: 7 REGISTER\r\nAuthorization: Digest response=\"0123456789abcdef\"\r\nContent-Length: 0\r\n\r\n"
	tests := []struct {
		msg  string
		want Outline
		ok   bool
	}{
		{"REGISTER sip:x SIP/2.0\r\n" + rest, Outline{"REGISTER", 0, "a@198.51.100.7", 7}, true},
		{"SIP/2.0 200 OK\r\n" + rest, Outline{"REGISTER", 200, "a@198.51.100.7", 7}, true},
		{"REGISTER sip:x SIP/2.0\r\nVia: x\r\n\r\n", Outline{}, false},
		{"GET / HTTP/1.0\r\n\r\n", Outline{}, false},
		{"", Outline{}, false},
		{strings.Repeat("x", 100), Outline{}, false},
	}
	for _, tt := range tests {
		if got, ok := Outlined([]byte(tt.msg)); got != tt.want || ok != tt.ok {
			t.Errorf("Outlined(%q) = %+v, %v; want %+v, %v", tt.msg, got, ok, tt.want, tt.ok)
		}
	}
}
