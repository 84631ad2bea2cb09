package sip_test

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/nat"
)

// A fixedBinder knows the phone and the call manager and nothing else.
type fixedBinder struct{}

func (fixedBinder) Self(from nat.End) netip.AddrPort {
	if from == nat.Client {
		return netip.MustParseAddrPort("10.20.0.5:40001")
	}
	return netip.MustParseAddrPort("203.0.113.10:5061")
}
func (fixedBinder) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort       { return a }
func (fixedBinder) Media(m inspect.Media, _ nat.End) (inspect.Media, error) { return m, nil }
func (fixedBinder) Release(string, string)                                  {}
func (fixedBinder) Seen(string) error                                       { return nil }

// TestStream registers a phone through the pump that the box uses.
func TestStream(t *testing.T) {
	phone, outside := net.Pipe()
	inside, ucm := net.Pipe()
	s := &inspect.Stream{Client: outside, Server: inside, Engine: &sip.Engine{Client: sip.TLS, Server: sip.TCP}, Binder: fixedBinder{}}
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()

	const fields = "Call-ID: 1@192.168.1.50\r\nCSeq: 1 REGISTER\r\nContent-Length: 0\r\n\r\n"
	pass := func(from, to net.Conn, sent, want string) {
		t.Helper()
		errs := make(chan error, 1)
		go func() {
			_, err := from.Write([]byte(sent))
			errs <- err
		}()
		sc := bufio.NewScanner(to)
		sc.Split((&sip.Engine{}).Split)
		if !sc.Scan() || sc.Text() != want {
			t.Errorf("got %q, %v; want %q", sc.Text(), sc.Err(), want)
		}
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	const asked = "SIP/2.0/TLS 192.168.1.50:49153;branch=z9hG4bK1\r\n"
	pass(phone, ucm, "REGISTER sip:ucm.example.com SIP/2.0\r\nVia: "+asked+fields,
		"REGISTER sip:ucm.example.com SIP/2.0\r\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK1\r\n"+fields)
	pass(ucm, phone, "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 10.20.0.5:40001;branch=z9hG4bK1;received=10.20.0.5\r\n"+fields,
		"SIP/2.0 200 OK\r\nVia: "+asked+fields)

	if _, err := phone.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "start line") {
		t.Errorf("Run after HTTP: %v, want an error of the start line", err)
	}
}
