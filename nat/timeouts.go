package nat

import (
	"time"

	"patchbay/stack"
)

// Timeouts are the values of the "timeout" command, each the time without a
// packet after which its thing ends. Zero is never. (reference/asa-cli.md,
// section 10.)
type Timeouts struct {
	Conn       time.Duration // conn: an established TCP connection
	HalfClosed time.Duration // half-closed: TCP after the first FIN
	UDP        time.Duration // udp
	ICMP       time.Duration // icmp: after an echo request or its reply
	Embryonic  time.Duration // embryonic: TCP before its handshake is complete
	SCTP       time.Duration // sctp
	Other      time.Duration // protocols without a state or a timeout of their own

	// The rest is not looked at here: it is for those who give an Idle to
	// Opening or Pinhole, and for show.
	Xlate               time.Duration // xlate
	PATXlate            time.Duration // pat-xlate
	SIP                 time.Duration // sip
	SIPMedia            time.Duration // sip_media
	SIPInvite           time.Duration // sip-invite
	SIPDisconnect       time.Duration // sip-disconnect
	SIPProvisionalMedia time.Duration // sip-provisional-media
	TCPProxyReassembly  time.Duration // tcp-proxy-reassembly
}

// sctp is the protocol of that name, which is forwarded by address. (RFC 9260.)
const sctp stack.Proto = 132

// DefaultTimeouts returns the ASA's defaults.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Conn:       time.Hour,
		HalfClosed: 10 * time.Minute,
		UDP:        2 * time.Minute,
		ICMP:       2 * time.Second,
		Embryonic:  30 * time.Second,
		SCTP:       2 * time.Minute,
		Other:      2 * time.Minute,

		Xlate:               3 * time.Hour,
		PATXlate:            30 * time.Second,
		SIP:                 30 * time.Minute,
		SIPMedia:            2 * time.Minute,
		SIPInvite:           3 * time.Minute,
		SIPDisconnect:       2 * time.Minute,
		SIPProvisionalMedia: 2 * time.Minute,
		TCPProxyReassembly:  time.Minute,
	}
}
