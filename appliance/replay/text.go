package replay

import (
	"bytes"
	"strconv"

	"patchbay/inspect/skinny"
	"patchbay/stack"
)

// appendArrival appends the line of the text dump about p, which arrived.
//
//	in  00:00:00.000000 inside udp 10.20.0.50:5000 > 192.0.2.5:53 len 5
//	in  00:00:01.000000 outside udp 192.0.2.9:53 > 203.0.113.2:5001 len 5 drop no-service
//	in  00:00:02.000000 inside udp 10.20.0.50:5060 > 192.0.2.5:5060 len 300 "OPTIONS sip:192.0.2.5 SIP/2.0"
func appendArrival(dst []byte, p *stack.Packet, v stack.Verdict) []byte {
	dst = stack.AppendText(append(dst, "in  "...), p)
	if f := p.Flow(); f.Src.Port() != 0 {
		dst = appendTitle(dst, p.Payload())
	}
	switch {
	case v.Dropped():
		dst = append(append(dst, " drop "...), v.String()...)
	case v == stack.Consumed:
		dst = append(dst, " consumed"...)
	}
	return dst
}

// appendDeparture appends the line about q, which left. It is below what it
// came from, with its TTL, and with what was changed in its payload.
//
//	out 00:00:00.000000 inside>outside udp 203.0.113.2:5000 > 192.0.2.5:53 len 5 ttl 63
//	out 00:00:02.000000 inside>outside udp 203.0.113.2:5060 > 192.0.2.5:5060 len 301 ttl 63
//	   - Via: SIP/2.0/UDP 10.20.0.50;branch=z9hG4bK1
//	   + Via: SIP/2.0/UDP 203.0.113.2;branch=z9hG4bK1
func (b *Box) appendDeparture(dst []byte, q departure) []byte {
	p := q.Packet
	dst = stack.AppendText(append(dst, "out "...), p)
	switch {
	case q.served:
		return append(dst, " for the box itself"...)
	case p.Out.IsIdentity():
		return append(dst, " for the box itself, not replayed"...)
	}
	const ipHeader = 20 // bytes, without options
	if p.Len() >= ipHeader {
		dst = strconv.AppendUint(append(dst, " ttl "...), uint64(p.TTL()), 10)
	}
	f, came := p.Flow(), b.arrived.Flow().Proto // 0 of a fragment
	if came != 0 && f.Proto != came && !p.In.IsIdentity() || f.Proto != stack.UDP && f.Proto != stack.TCP || f.Src.Port() == 0 {
		return dst // not a rewrite of what arrived; or a fragment
	}
	if p.TCPFlags()&stack.FlagSYN != 0 {
		if mss, ok := stack.MSS(p.Transport()); ok {
			dst = strconv.AppendUint(append(dst, " mss "...), uint64(mss), 10)
		}
	}
	switch pay := p.Payload(); {
	case p.In.IsIdentity():
		dst = appendContent(dst, pay)
	case string(pay) != string(b.arrived.Payload()):
		dst = appendPayload(dst, b.arrived.Payload(), pay)
	}
	return dst
}

// maxDiffLines bounds the lines of a message that is shown by what changed in
// it; the longest of a call have about 60.
const maxDiffLines = 1000

// appendPayload appends the payload of a packet that leaves otherwise than it
// arrived: of a text in lines those that changed, each on its own line, or all
// if what arrived was none; what is no text in quotes.
func appendPayload(dst, was, is []byte) []byte {
	switch {
	case isLines(is) && isLines(was):
		return AppendChange(dst, was, is)
	case isLines(is): // put together from fragments
		return AppendChange(dst, nil, is)
	}
	return strconv.AppendQuote(append(dst, " payload "...), string(is))
}

// appendTitle appends the start line of a SIP message, in quotes, so that a
// packet is known for what it carries. (RFC 3261, section 7.)
func appendTitle(dst, payload []byte) []byte {
	first, _, ok := bytes.Cut(payload, []byte("\r\n"))
	if !ok || bytes.IndexByte(first, 0) >= 0 || !bytes.HasPrefix(first, []byte("SIP/2.0 ")) && !bytes.HasSuffix(first, []byte(" SIP/2.0")) {
		return dst
	}
	return strconv.AppendQuote(append(dst, ' '), string(first))
}

// appendContent appends what a segment of the box's own holds: the start line of
// a SIP message, the names of SCCP messages, and of what begins with neither all
// of it in quotes.
func appendContent(dst, payload []byte) []byte {
	n := len(dst)
	if dst = appendTitle(dst, payload); len(dst) > n || len(payload) == 0 {
		return dst
	}
	for rest := payload; len(rest) > 0; {
		used, msg, err := skinny.Engine{}.Split(rest, false)
		if err != nil || used == 0 {
			return strconv.AppendQuote(append(dst[:n], " payload "...), string(payload))
		}
		dst = append(append(dst, ' '), skinny.Name(skinny.ID(msg))...)
		rest = rest[used:]
	}
	return dst
}

// AppendChange appends what became of a message in lines, each on a line of
// its own: those that are gone after "   - ", those that are new after "   + ".
// Nothing is appended where nothing changed.
func AppendChange(dst, was, is []byte) []byte {
	a, b := splitLines(was), splitLines(is)
	for len(a) > 0 && len(b) > 0 && bytes.Equal(a[0], b[0]) {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && bytes.Equal(a[len(a)-1], b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	// common[i][j] is the length of the longest common subsequence of a[i:]
	// and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if bytes.Equal(a[i], b[j]) {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && bytes.Equal(a[i], b[j]):
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			dst = appendLine(append(dst, "\n   - "...), a[i])
			i++
		default:
			dst = appendLine(append(dst, "\n   + "...), b[j])
			j++
		}
	}
	return dst
}

func splitLines(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Split(b, []byte("\r\n"))
}

// appendLine appends a line as it is, or in quotes if it holds what a terminal
// would not show.
func appendLine(dst, line []byte) []byte {
	for _, c := range line {
		if c < ' ' || c >= 0x7f {
			return strconv.AppendQuote(dst, string(line))
		}
	}
	return append(dst, line...)
}

// isLines reports whether a payload is a text in lines that end as those of
// SIP do. (RFC 3261, section 7.)
func isLines(b []byte) bool {
	n := bytes.Count(b, []byte("\r\n"))
	return n > 0 && n < maxDiffLines && bytes.IndexByte(b, 0) < 0
}
