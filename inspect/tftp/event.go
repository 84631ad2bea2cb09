package tftp

import (
	"fmt"
	"net/netip"
)

// An EventKind says what happened to a request.
type EventKind uint8

const (
	Requested EventKind = iota // taken up
	Repeated                   // ignored: the same request is being served
	Refused                    // not served; Err says why
	Sent                       // served to the end
	Failed                     // given up on the way; Err says why
)

// An Event tells of one request to a Server, for "debug" and the log.
type Event struct {
	Kind     EventKind
	From, To netip.AddrPort // the client; the server address it asked
	Name     string         // "" if the request did not parse
	Bytes    int64          // of the file, acknowledged: Sent and Failed
	Err      error
}

// String returns one line, with addresses as the ASA writes them:
// "198.51.100.7/49357 requesting Ringlist.xml".
func (e Event) String() string {
	from := fmt.Sprintf("%v/%d", e.From.Addr(), e.From.Port())
	switch e.Kind {
	case Requested:
		return fmt.Sprintf("%s requesting %q", from, e.Name)
	case Repeated:
		return fmt.Sprintf("%s retransmitting request for %q", from, e.Name)
	case Refused:
		return fmt.Sprintf("%s refused %q: %v", from, e.Name, e.Err)
	case Sent:
		return fmt.Sprintf("%s received %q, %d bytes", from, e.Name, e.Bytes)
	}
	return fmt.Sprintf("%s lost %q after %d bytes: %v", from, e.Name, e.Bytes, e.Err)
}
