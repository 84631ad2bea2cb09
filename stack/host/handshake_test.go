package host

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A handshake that nobody completes is given up when the table of connections
// gives it up: after 30 seconds.
func TestHandshakeRetries(t *testing.T) {
	s := newHost(t)
	defer s.Close()
	var retries tcpip.TCPSynRetriesOption
	if err := s.s.TransportProtocolOption(tcp.ProtocolNumber, &retries); err != nil {
		t.Fatal(err)
	}
	wait := 0 // seconds, doubled from 1 by each retry
	for i := range int(retries) + 1 {
		wait += 1 << i
	}
	if wait < 15 || wait > 35 {
		t.Errorf("%d retries hold a handshake for %d s, want about 30", retries, wait)
	}
}
