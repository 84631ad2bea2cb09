package stack

// A Verdict says what becomes of a packet. The zero Verdict is a drop, so a
// path that forgets to decide does not forward.
type Verdict uint8

// Forward and the drops, named as in "show asp drop" where the ASA has a name.
const (
	DropUnspecified   Verdict = iota
	Forward                   // send it to p.Out
	Consumed                  // taken by the box, nothing left to send; not a drop
	DropMalformed             // bad-ip-hdr etc.: does not parse
	DropChecksum              // bad checksum
	DropOptions               // ip-option: IP options
	DropFragment              // fragment-reassembly-failed, overlap, too many
	DropTTL                   // ttl-exceeded
	DropNoRoute               // no-route
	DropACL                   // acl-drop
	DropSecurityLevel         // lower to higher security-level without access list
	DropReversePath           // rpf-violated: spoofed source
	DropNAT                   // nat-xlate-failed
	DropNATReverse            // nat-rpf-failed
	DropTCPNotSYN             // tcp-not-syn: first TCP packet is no SYN
	DropTCPState              // tcp-invalid-state
	DropICMP                  // icmp rule, or unmatched reply
	DropLimit                 // a named limit was reached (conn-limit, host-limit)
	DropNoService             // to the box, but nothing serves it there
	DropInspect               // inspect-failed: an engine refused it
	DropSRTPAuth              // inspect-srtp-validate-authtag-failed
	DropSRTPReplay            // inspect-srtp-replay
	DropSRTPNoKey             // inspect-srtp-no-media-session: leg has no key or peer yet
	DropMediaSource           // media from a source that has not been signalled
	DropMTU                   // fragmentation needed and DF set
	DropIPv6                  // ipv6-not-supported
	DropLoop                  // hairpin limit
	DropIPLength              // invalid-ip-length: total length against bytes received
	DropTCPHeader             // invalid-tcp-hdr-length
	DropUDPLength             // invalid-udp-length
	DropSecurity              // sp-security-failed: an address no host can have
	DropInterface             // interface-down: p.Out is not an interface of the Forwarder, or its link failed
	DropTCPSequence           // tcp-seq-past-win: a segment outside the receiver's window
	DropTCPAck                // tcp-invalid-ack: an acknowledgement of what was never sent, or of long ago
	DropTCPReset              // tcp-rstfin-ooo: a RST outside the window
	DropTCPSYN                // tcp-seq-syn-diff: a SYN with another sequence number within a connection
	DropHostLimit             // host-limit: one client has too many connections
	DropEmbryonic             // embryonic-conn-limit: too many half-open TCP connections, of one client or in all
	DropRTPLength             // inspect-rtp-invalid-length: too short for its header
	DropRTPVersion            // inspect-rtp-invalid-version
	DropRTPPayload            // inspect-rtp-invalid-payload-type: not signaled, or RTCP
	DropRTPSSRC               // inspect-rtp-ssrc-mismatch: another source than until now
	DropRTPSequence           // inspect-rtp-sequence-num-outofrange
	DropRTCPLength            // inspect-rtcp-invalid-length
	DropRTCPVersion           // inspect-rtcp-invalid-version
	DropRTCPPayload           // inspect-rtcp-invalid-payload-type
	DropNoTranslation         // no-translation-group: nat-control, and no rule for the host (the ASA's message 305005)
	DropRate                  // rate-exceeded: over the rate of a police command
	DropICMPSequence          // inspect-icmp-seq-num-not-matched: an echo reply that no request waits for
	DropLogHost               // syslog-host-down: a TCP syslog host does not answer, and no permit-hostdown
	numVerdicts
)

var verdictNames = [numVerdicts]string{
	DropUnspecified:   "unspecified",
	Forward:           "forward",
	Consumed:          "consumed",
	DropMalformed:     "invalid-ip-header",
	DropChecksum:      "bad-checksum",
	DropOptions:       "invalid-ip-option",
	DropFragment:      "fragment-reassembly-failed",
	DropTTL:           "ttl-exceeded",
	DropNoRoute:       "no-route",
	DropACL:           "acl-drop",
	DropSecurityLevel: "security-level",
	DropReversePath:   "rpf-violated",
	DropNAT:           "nat-xlate-failed",
	DropNATReverse:    "nat-rpf-failed",
	DropTCPNotSYN:     "tcp-not-syn",
	DropTCPState:      "tcp-invalid-state",
	DropICMP:          "icmp-denied",
	DropLimit:         "conn-limit",
	DropNoService:     "no-service",
	DropInspect:       "inspect-failed",
	DropSRTPAuth:      "inspect-srtp-validate-authtag-failed",
	DropSRTPReplay:    "inspect-srtp-replay",
	DropSRTPNoKey:     "inspect-srtp-no-media-session",
	DropMediaSource:   "media-source",
	DropMTU:           "mtu-exceeded",
	DropIPv6:          "ipv6-not-supported",
	DropLoop:          "loopback-count-exceeded",
	DropIPLength:      "invalid-ip-length",
	DropTCPHeader:     "invalid-tcp-hdr-length",
	DropUDPLength:     "invalid-udp-length",
	DropSecurity:      "sp-security-failed",
	DropInterface:     "interface-down",
	DropTCPSequence:   "tcp-seq-past-win",
	DropTCPAck:        "tcp-invalid-ack",
	DropTCPReset:      "tcp-rstfin-ooo",
	DropTCPSYN:        "tcp-seq-syn-diff",
	DropHostLimit:     "host-limit",
	DropEmbryonic:     "embryonic-conn-limit",
	DropRTPLength:     "inspect-rtp-invalid-length",
	DropRTPVersion:    "inspect-rtp-invalid-version",
	DropRTPPayload:    "inspect-rtp-invalid-payload-type",
	DropRTPSSRC:       "inspect-rtp-ssrc-mismatch",
	DropRTPSequence:   "inspect-rtp-sequence-num-outofrange",
	DropRTCPLength:    "inspect-rtcp-invalid-length",
	DropRTCPVersion:   "inspect-rtcp-invalid-version",
	DropRTCPPayload:   "inspect-rtcp-invalid-payload-type",
	DropNoTranslation: "no-translation-group",
	DropRate:          "rate-exceeded",
	DropICMPSequence:  "inspect-icmp-seq-num-not-matched",
	DropLogHost:       "syslog-host-down",
}

// String returns the name that "show asp drop" prints.
func (v Verdict) String() string {
	if v < numVerdicts {
		return verdictNames[v]
	}
	return "unknown"
}

// verdictTexts are the ASA's descriptions, or ours where the ASA has no such
// drop. (reference/asa-cli-show-debug.md, section 2.9.)
var verdictTexts = [numVerdicts]string{
	DropUnspecified:   "No decision was made",
	Forward:           "Forwarded",
	Consumed:          "Taken by the box",
	DropMalformed:     "Invalid IP header",
	DropChecksum:      "Bad checksum",
	DropOptions:       "IP option drop",
	DropFragment:      "Fragment reassembly failed",
	DropTTL:           "ttl exceeded",
	DropNoRoute:       "No route to host",
	DropACL:           "Flow is denied by configured rule",
	DropSecurityLevel: "Flow is denied by security levels",
	DropReversePath:   "Reverse-path verify failed",
	DropNAT:           "NAT failed",
	DropNATReverse:    "NAT reverse path failed",
	DropTCPNotSYN:     "First TCP packet not SYN",
	DropTCPState:      "TCP packet not expected in this state",
	DropICMP:          "ICMP packet not permitted, or of no connection",
	DropLimit:         "Connection limit reached",
	DropNoService:     "No service at this address of the box",
	DropInspect:       "Inspection failure",
	DropSRTPAuth:      "Inspect SRTP Authentication tag validation failed",
	DropSRTPReplay:    "Inspect SRTP packet replayed",
	DropSRTPNoKey:     "Inspect SRTP Media session not found",
	DropMediaSource:   "Media from a source that was not signalled",
	DropMTU:           "Fragmentation needed and DF set",
	DropIPv6:          "IPv6 is not supported",
	DropLoop:          "Loopback count exceeded",
	DropIPLength:      "Invalid IP Length",
	DropTCPHeader:     "Invalid TCP Length",
	DropUDPLength:     "Invalid UDP Length",
	DropSecurity:      "Slowpath security checks failed",
	DropInterface:     "Interface is down",
	DropTCPSequence:   "TCP packet SEQ past window",
	DropTCPAck:        "TCP invalid ACK",
	DropTCPReset:      "TCP RST/FIN out of order",
	DropTCPSYN:        "TCP SEQ in SYN/SYNACK invalid",
	DropHostLimit:     "Host limit exceeded",
	DropEmbryonic:     "Embryonic connection limit exceeded",
	DropRTPLength:     "Inspect RTP invalid length",
	DropRTPVersion:    "Inspect RTP invalid version",
	DropRTPPayload:    "Inspect RTP invalid payload type",
	DropRTPSSRC:       "Inspect RTP SSRC mismatch",
	DropRTPSequence:   "Inspect RTP sequence number out of range",
	DropRTCPLength:    "Inspect RTCP invalid length",
	DropRTCPVersion:   "Inspect RTCP invalid version",
	DropRTCPPayload:   "Inspect RTCP invalid payload type",
	DropNoTranslation: "No translation group found",
	DropRate:          "Rate-limit exceeded",
	DropICMPSequence:  "ICMP Inspect seq num not matched",
	DropLogHost:       "Syslog server is down",
}

// Text returns the description that "show asp drop" prints before the name.
func (v Verdict) Text() string {
	if v < numVerdicts && verdictTexts[v] != "" {
		return verdictTexts[v]
	}
	return v.String()
}

// Verdicts calls f with each Verdict there is.
func Verdicts(f func(Verdict)) {
	for v := range numVerdicts {
		f(v)
	}
}

// Dropped reports whether v is a drop.
func (v Verdict) Dropped() bool { return v != Forward && v != Consumed }
