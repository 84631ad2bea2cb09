package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// The functions here are peers that are broken or hostile. They connect with
// dial, which may be Phone.Connect, so that the nonsense comes through TLS, or
// PlainDial.

// A Dialer opens the connection on which a broken peer talks.
type Dialer func(context.Context) (net.Conn, error)

// PlainDial connects from h to an address without TLS.
func PlainDial(h Host, to netip.AddrPort) Dialer {
	return func(ctx context.Context) (net.Conn, error) { return h.DialTCP(ctx, netip.AddrPort{}, to) }
}

// SendHalf sends the first half of msg and stops. The caller closes the
// connection.
func SendHalf(ctx context.Context, dial Dialer, msg []byte) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.Write(msg[:len(msg)/2]); err != nil {
		c.Close()
		return nil, fmt.Errorf("lab: half a message: %w", err)
	}
	return c, nil
}

// SendSlowly sends msg byte by byte with a pause between.
func SendSlowly(ctx context.Context, dial Dialer, msg []byte, pause time.Duration) (net.Conn, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	for i := range msg {
		if _, err = c.Write(msg[i : i+1]); err == nil {
			err = sleep(ctx, pause)
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("lab: byte %d: %w", i, err)
		}
	}
	return c, nil
}

// SendEndless sends begin and then filler, total bytes, in which no message
// ends, and says how much the other end took before it closed the connection.
// err is nil if it took all.
func SendEndless(ctx context.Context, dial Dialer, begin []byte, filler byte, total int) (sent int, err error) {
	c, err := dial(ctx)
	if err != nil {
		return 0, err
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, c) // ends with the connection
	}()
	defer func() {
		c.Close()
		<-drained
	}()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	chunk := append(bytes.Clone(begin), bytes.Repeat([]byte{filler}, 16<<10)...)
	for sent < total {
		n, err := c.Write(chunk[:min(len(chunk), total-sent)])
		sent += n
		if err != nil {
			return sent, fmt.Errorf("lab: after %d bytes: %w", sent, err)
		}
		chunk = chunk[len(chunk)-16<<10:]
	}
	return sent, nil
}

// EndlessSIP is a beginning for SendEndless: a header that does not end.
func EndlessSIP() []byte {
	return []byte("REGISTER sip:203.0.113.10 SIP/2.0\r\nSubject: ")
}

// LyingSIP is a SIP request whose Content-Length says length, and whose body
// is something else.
func LyingSIP(length, body int) []byte {
	b := fmt.Appendf(nil, "OPTIONS sip:203.0.113.10 SIP/2.0\r\nVia: SIP/2.0/TLS 198.51.100.9:50000;branch=z9hG4bKlie\r\n"+
		"From: <sip:x@198.51.100.9>;tag=1\r\nTo: <sip:y@203.0.113.10>\r\nCall-ID: lie@198.51.100.9\r\nCSeq: 1 OPTIONS\r\n"+
		"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n", length)
	return append(b, bytes.Repeat([]byte{'x'}, body)...)
}

// LyingSCCP is a SCCP message whose length field says length, with data bytes
// after its header.
func LyingSCCP(id, length uint32, data int) []byte {
	b := words(length, 0, id)
	return append(b, make([]byte, data)...)
}

// StalledTLS sends the first n bytes of a ClientHello and stops. The caller
// closes the connection.
func StalledTLS(ctx context.Context, h Host, to netip.AddrPort, n int) (net.Conn, error) {
	c, err := h.DialTCP(ctx, netip.AddrPort{}, to)
	if err != nil {
		return nil, err
	}
	hello := oldClientHello()
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.Write(hello[:min(n, len(hello))]); err != nil {
		c.Close()
		return nil, fmt.Errorf("lab: stalled ClientHello: %w", err)
	}
	return c, nil
}

// oldClientHello is a TLS 1.0 ClientHello without extensions, as a 79xx sends
// it. (RFC 2246, section 7.4.1.2; reference/certificates.md, section 4.)
func oldClientHello() []byte {
	hello := []byte{3, 1}                         // version
	hello = append(hello, make([]byte, 32)...)    // random
	hello = append(hello, 0)                      // session id
	hello = append(hello, 0, 4, 0, 0x2f, 0, 0x35) // suites
	hello = append(hello, 1, 0)                   // no compression
	record := []byte{22, 3, 1, 0, byte(4 + len(hello)), 1, 0, 0, byte(len(hello))}
	return append(record, hello...)
}

// Flood opens n connections at once and leaves them open and silent. It
// returns those that came to be; the caller closes them.
func Flood(ctx context.Context, h Host, to netip.AddrPort, n int) []net.Conn {
	var conns []net.Conn
	for range n {
		c, err := h.DialTCP(ctx, netip.AddrPort{}, to)
		if err != nil {
			return conns
		}
		conns = append(conns, c)
	}
	return conns
}
