package appliance_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
)

// A fuzz program is bytes that say what packets arrive. This file has what one
// may say, and those that the fuzzer begins with.

// What a program of packets may name: hosts, ports, payloads. Their order is
// part of the seeds in testdata/fuzz; add at the end.
var (
	fuzzHosts = []string{
		"10.20.0.50", "10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.130", "10.20.0.1",
		"172.16.5.7", "172.16.5.1",
		"198.51.100.7", "192.0.2.5", "203.0.113.1", "203.0.113.2", "203.0.113.10", "203.0.113.11", "203.0.113.13", "203.0.113.100", "203.0.113.30",
		"255.255.255.255", "127.0.0.1", "0.0.0.0", "224.0.0.1",
	}
	fuzzPorts      = []uint16{5060, 2000, 69, 53, 80, 12000, 2001, 20000, 20001, 30000, 1024, 400, 0, 65535}
	fuzzInterfaces = []string{"outside", "inside", "dmz"}
	fuzzSteps      = []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 600 * time.Millisecond,
		3 * time.Second, 31 * time.Second, 3 * time.Minute, 31 * time.Minute, 2 * time.Hour}
	fuzzPayloads = []string{
		"", "hello",
		"\x00\x01SEPDEFAULT.cnf\x00octet\x00", "\x00\x03\x00\x01block", "\x00\x04\x00\x01",
		"\x80\x00\x00\x01\x00\x00\x00\xa0\x00\x00\x51\xbbvoice", // RTP
		sipOf("INVITE", "z9hG4bK1", "call1", 1, "20000", ""),
		sipOf("INVITE", "z9hG4bK2", "call1", 2, "20002", "a=sendonly\r\n"),
		sipOf("INVITE", "z9hG4bK3", "call2", 1, "30000", "a=rtcp:30005\r\nm=video 30010/2 RTP/AVP 34\r\n"),
		sipOf("ACK", "z9hG4bK4", "call1", 1, "", ""), sipOf("BYE", "z9hG4bK5", "call1", 3, "", ""),
		sipOf("CANCEL", "z9hG4bK1", "call1", 1, "", ""), sipOf("REGISTER", "z9hG4bK6", "reg", 1, "", ""),
		sipOf("REFER", "z9hG4bK7", "call1", 4, "", "Refer-To: <sip:x@10.20.0.51>\r\n"),
		// Skinny: KeepAlive, Register, OpenReceiveChannelAck, StationIpPort.
		"\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x2c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00SEP0200000000A1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x14\x00\x32\x07\x00\x00\x00\x00\x00\x00\x00",
		"\x14\x00\x00\x00\x00\x00\x00\x00\x22\x00\x00\x00\x00\x00\x00\x00\x0a\x14\x00\x32\x20\x4e\x00\x00\x01\x00\x00\x00",
	}
)

// sipOf is a request from 10.20.0.50 to 198.51.100.7, with SDP if it has media.
func sipOf(method, branch, call string, cseq int, media, more string) string {
	body := ""
	if media != "" {
		body = "v=0\r\no=- 1 1 IN IP4 10.20.0.50\r\ns=-\r\nc=IN IP4 10.20.0.50\r\nt=0 0\r\nm=audio " + media + " RTP/AVP 0\r\n" + more
		more = "Content-Type: application/sdp\r\n"
	}
	return fmt.Sprintf("%s sip:b@198.51.100.7 SIP/2.0\r\nVia: SIP/2.0/UDP 10.20.0.50:5060;branch=%s\r\nFrom: <sip:a@10.20.0.50>;tag=1\r\n"+
		"To: <sip:b@198.51.100.7>\r\nCall-ID: %s@10.20.0.50\r\nCSeq: %d %s\r\nContact: <sip:a@10.20.0.50:5060>\r\nMax-Forwards: 70\r\n%sContent-Length: %d\r\n\r\n%s",
		method, branch, call, cseq, method, more, len(body), body)
}

// What a step of a fuzz program does. The zero one ends it.
const (
	fuzzEnd    = iota
	fuzzRaw    // length (2), bytes: a packet as it is
	fuzzUDP    // source, source port, destination, destination port, payload
	fuzzTCP    // the same, flags, sequence number and acknowledgement (1 each)
	fuzzICMP   // source, destination, identifier, sequence number
	fuzzAnswer // status / 100: to the last packet that left by that interface
	fuzzMedia  // source, port: RTP to where the last SDP says that left by it
	fuzzError  // code: an ICMP error about the last packet that left by it
	fuzzSame   // the last packet that arrived, once more
	fuzzCut    // bytes / 8: the last packet that arrived, in fragments
	fuzzBent   // offset, value: the last packet that arrived with a byte changed, checksums made right
	fuzzOps
)

// Each step begins with what it does, the interface and how much later it is.

// A fuzzReader takes a program apart. Past the end there are zeros.
type fuzzReader struct{ b []byte }

func (r *fuzzReader) byte() byte {
	if len(r.b) == 0 {
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *fuzzReader) bytes(n int) []byte {
	v := r.b[:min(n, len(r.b))]
	r.b = r.b[len(v):]
	return v
}

func pick[T any](list []T, i byte) T { return list[int(i)%len(list)] }

// end is a host and a port.
func (r *fuzzReader) end() netip.AddrPort {
	a := netip.MustParseAddr(pick(fuzzHosts, r.byte()))
	return netip.AddrPortFrom(a, pick(fuzzPorts, r.byte()))
}

// answer is what the other end would say to a packet that left.
func (b *fuzzBox) answer(left []byte, status byte) [][]byte {
	p := stack.NewPacket(stack.MaxPacket)
	if p.SetData(left); p.Parse() != stack.Forward {
		return nil
	}
	f, payload := p.Flow().Reverse(), string(p.Payload())
	n := uint32(len(payload))
	if line, rest, ok := strings.Cut(payload, "\r\n"); ok && strings.HasSuffix(line, "SIP/2.0") {
		head, body, _ := strings.Cut(rest, "\r\n\r\n")
		body = fuzzPlace.ReplaceAllString(body, "${1}"+f.Src.Addr().String()) // its own media
		head = fuzzLength.ReplaceAllString(head, "") + fmt.Sprintf("Content-Length: %d", len(body))
		payload = fmt.Sprintf("SIP/2.0 %d OK\r\n%s\r\n\r\n%s", 100*(1+int(status)%6), head, body)
	}
	switch f.Proto {
	case stack.ICMP:
		return [][]byte{stack.AppendICMPEcho(nil, f, 1, []byte("ping"))}
	case stack.TCP:
		h := stack.TCPHeader{Flags: stack.FlagACK, Seq: p.TCPAck(), Ack: p.TCPSeq() + n, Window: 4096}
		if p.TCPFlags()&stack.FlagSYN != 0 {
			h.Flags, h.Ack = h.Flags|stack.FlagSYN, h.Ack+1
			if p.TCPFlags()&stack.FlagACK != 0 {
				h.Flags = stack.FlagACK
			}
		}
		return [][]byte{stack.AppendTCP(nil, f, h, []byte(payload))}
	case stack.UDP:
		return [][]byte{stack.AppendUDP(nil, f, []byte(payload))}
	}
	return nil
}

// What an answer changes of the request: where its media is to go, and the
// length that is then another.
var (
	fuzzPlace  = regexp.MustCompile(`(\nc=IN IP4 )[0-9.]+`)
	fuzzLength = regexp.MustCompile(`Content-Length: [0-9]+$`)
)

// cut makes fragments of n bytes each of a packet. (RFC 791, section 3.2.)
func cut(raw []byte, n int) (all [][]byte) {
	if len(raw) < 20 || raw[0] != 0x45 {
		return nil
	}
	for at := 20; at < len(raw); at += n {
		end := min(at+n, len(raw))
		f := append(bytes.Clone(raw[:20]), raw[at:end]...)
		off := uint16((at - 20) / 8)
		if end < len(raw) {
			off |= 0x2000
		}
		binary.BigEndian.PutUint16(f[6:], off)
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		all = append(all, ipChecksummed(f))
	}
	return all
}

// ipChecksummed makes the checksum of an IP header right.
func ipChecksummed(raw []byte) []byte {
	raw[10], raw[11] = 0, 0
	binary.BigEndian.PutUint16(raw[10:], ^onesSum(raw[:20], 0))
	return raw
}

// checksummed makes the checksums of an IP packet right, as far as it is one.
func checksummed(raw []byte) []byte {
	ipChecksummed(raw)
	seg := raw[20:]
	at := map[byte]int{1: 2, 6: 16, 17: 6}[raw[9]]
	if at == 0 || len(seg) < at+2 {
		return raw
	}
	pseudo := uint32(0)
	if raw[9] != 1 {
		pseudo = uint32(raw[9]) + uint32(len(seg)) + uint32(onesSum(raw[12:20], 0))
	}
	seg[at], seg[at+1] = 0, 0
	binary.BigEndian.PutUint16(seg[at:], ^onesSum(seg, pseudo))
	return raw
}

// onesSum is the one's complement sum of b added to c. (RFC 1071.)
func onesSum(b []byte, c uint32) uint16 {
	for i := range b {
		c += uint32(b[i]) << (8 * (1 - i%2))
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return uint16(c)
}

// fuzzPrograms are conversations as they should be.
func fuzzPrograms() map[string][]byte {
	const (
		desk, ucm, skinny, pooled = 0, 1, 2, 4
		dmz                       = 6
		phone, far                = 8, 9
		ucmMapped, skinnyMapped   = 12, 13
		outside, inside, inDMZ    = 0, 1, 2
		sip, sccp, tftp, web      = 0, 1, 2, 4
		high                      = 10
	)
	join := func(steps ...[]byte) []byte { return bytes.Join(steps, nil) }
	udp := func(in, later, src, sport, dst, dport, payload byte) []byte {
		return []byte{fuzzUDP, in, later, src, sport, dst, dport, payload}
	}
	tcp := func(in, src, sport, dst, dport, payload, flags, seq, ack byte) []byte {
		return []byte{fuzzTCP, in, 1, src, sport, dst, dport, payload, flags, seq, ack}
	}
	answer := func(status byte) []byte { return []byte{fuzzAnswer, outside, 2, status} }
	media := func(src, port byte) []byte { return []byte{fuzzMedia, outside, 2, src, port} }
	shake := func(in, src, sport, dst, dport byte) []byte {
		return join(tcp(in, src, sport, dst, dport, 0, stack.FlagSYN, 1, 0), answer(1), tcp(in, src, sport, dst, dport, 0, stack.FlagACK, 2, 1))
	}
	invite := udp(inside, 0, desk, sip, phone, sip, 6)
	return map[string][]byte{
		"query":         join(udp(inside, 0, desk, high, far, 3, 1), answer(0)),
		"from the pool": join(udp(inside, 0, pooled, high, far, 3, 1), answer(0), udp(inside, 6, pooled, 7, far, 3, 1)),
		"TFTP":          join(udp(outside, 0, phone, high, ucmMapped, tftp, 2), udp(inside, 1, ucm, 9, phone, high, 3), udp(outside, 1, phone, high, ucmMapped, 9, 4)),
		"call": join(invite, answer(0), answer(1), media(phone, 9), udp(inside, 1, desk, sip, phone, sip, 9), media(phone, 9),
			udp(inside, 4, desk, sip, phone, sip, 7), answer(1), media(phone, 9), udp(inside, 4, desk, sip, phone, sip, 10), answer(1)),
		"call cancelled":  join(invite, answer(0), udp(inside, 2, desk, sip, phone, sip, 11), answer(1), answer(3)),
		"call abandoned":  join(invite, answer(0), media(phone, 9)),
		"two calls":       join(invite, answer(1), udp(inside, 2, desk, sip, phone, sip, 8), answer(1), media(far, 9), media(phone, 7)),
		"register":        join(udp(inside, 0, desk, sip, phone, sip, 12), answer(1)),
		"transfer":        join(invite, answer(1), udp(inside, 2, desk, sip, phone, sip, 13), answer(1)),
		"call to the UCM": join(udp(outside, 0, phone, sip, ucmMapped, sip, 6), answer(1), udp(inside, 1, ucm, sip, phone, sip, 8), answer(1)),
		"web": join(shake(inside, desk, high, far, web), tcp(inside, desk, high, far, web, 1, stack.FlagACK, 2, 1), answer(1),
			tcp(inside, desk, high, far, web, 0, stack.FlagACK|stack.FlagFIN, 7, 1), answer(1)),
		"web reset":      join(shake(inside, desk, high, far, web), tcp(inside, desk, high, far, web, 0, stack.FlagRST, 2, 0)),
		"half open":      tcp(inside, desk, high, far, web, 0, stack.FlagSYN, 1, 0),
		"Skinny":         join(shake(outside, phone, high, skinnyMapped, 5), tcp(outside, phone, high, skinnyMapped, 5, 15, stack.FlagACK, 2, 1)),
		"Skinny inside":  join(shake(inside, desk, high, far, sccp), tcp(inside, desk, high, far, sccp, 14, stack.FlagACK, 2, 1)),
		"SIP over TCP":   join(shake(inside, desk, high, phone, sip), tcp(inside, desk, high, phone, sip, 6, stack.FlagACK, 2, 1), answer(1), media(phone, 9)),
		"ping":           join([]byte{fuzzICMP, inside, 0, desk, 3, far, 12, 1}, answer(0), []byte{fuzzICMP, outside, 0, phone, 3, 11, 12, 1}),
		"unreachable":    join(udp(inside, 0, desk, high, far, 3, 1), []byte{fuzzError, outside, 1, 3}, []byte{fuzzError, outside, 1, 4}),
		"fragments":      join(udp(inside, 0, desk, high, far, 3, 6), []byte{fuzzCut, inside, 1, 4}, invite, []byte{fuzzCut, inside, 1, 8}, answer(1)),
		"to a small MTU": join(udp(inside, 0, desk, high, dmz, 3, 6), udp(inDMZ, 1, dmz, 3, desk, high, 1), udp(inDMZ, 0, dmz, high, far, 3, 1), answer(0)),
		"retransmission": join(invite, []byte{fuzzSame, inside, 3}, answer(1), []byte{fuzzSame, outside, 3}),
		"bent":           join(invite, []byte{fuzzBent, inside, 1, 0, 60, 'X'}, []byte{fuzzBent, inside, 1, 1, 90, ':'}, answer(1), []byte{fuzzBent, outside, 1, 0, 8, 1}),
		"raw":            {fuzzRaw, outside, 0, 0, 20, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 47, 0, 0, 192, 0, 2, 5, 203, 0, 113, 2},
	}
}

// casePrograms are the packets of the regression suite, case by case, as far as
// a program goes.
func casePrograms(t testing.TB) (all [][]byte) {
	files, err := filepath.Glob("../pcaps/*/" + pcaps.StepsFile)
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := pcaps.ParseSteps(f, os.DirFS(filepath.Dir(file)))
		f.Close()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var program []byte
		var last time.Duration
		n := 0
		for _, s := range steps {
			in := max(0, slices.Index(fuzzInterfaces, s.In))
			for _, raw := range s.Packets {
				if n++; n > maxFuzzSteps {
					break
				}
				later := 0
				for later+1 < len(fuzzSteps) && fuzzSteps[later+1] <= s.At-last {
					later++
				}
				last = s.At
				program = append(program, fuzzRaw, byte(in), byte(later), byte(len(raw)>>8), byte(len(raw)))
				program = append(program, raw...)
			}
		}
		if len(program) > 0 {
			all = append(all, program)
		}
	}
	return all
}
