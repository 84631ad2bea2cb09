package pcaps_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

const benchPackets = 4096 // of each capture, or a few less

var (
	benchNear = netip.MustParseAddrPort("10.20.0.50:5060")
	benchFar  = netip.MustParseAddrPort("192.0.2.5:5060")
)

// benchMedia is one stream of packets as of voice.
func benchMedia() (all [][]byte) {
	f := stack.Flow{Src: netip.MustParseAddrPort("10.20.0.50:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:5000")}
	for range benchPackets {
		all = append(all, stack.AppendUDP(nil, f, make([]byte, 172)))
	}
	return all
}

// benchCalls is calls over UDP, of six messages each.
func benchCalls() (all [][]byte) {
	out := stack.Flow{Src: benchNear, Dst: benchFar}
	for n := 0; len(all)+6 <= benchPackets; n++ {
		message := func(f stack.Flow, start, method string, sdp netip.AddrPort) {
			body := ""
			if sdp.IsValid() {
				body = fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]v\r\ns=-\r\nc=IN IP4 %[1]v\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n", sdp.Addr(), sdp.Port())
			}
			all = append(all, stack.AppendUDP(nil, f, fmt.Appendf(nil, "%s\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%d%s\r\nMax-Forwards: 70\r\n"+
				"From: <sip:a@%[5]v>;tag=1\r\nTo: <sip:b@%[6]v>;tag=2\r\nCall-ID: call-%[3]d\r\nCSeq: 1 %[4]s\r\nContact: <sip:x@%[7]v>\r\n"+
				"Content-Type: application/sdp\r\nContent-Length: %[8]d\r\n\r\n%[9]s",
				start, benchNear, n, method, benchNear.Addr(), benchFar.Addr(), f.Src, len(body), body)))
		}
		media := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), uint16(20000+n%1000*2)) }
		message(out, "INVITE sip:b@192.0.2.5 SIP/2.0", "INVITE", media(benchNear))
		message(out.Reverse(), "SIP/2.0 180 Ringing", "INVITE", netip.AddrPort{})
		message(out.Reverse(), "SIP/2.0 200 OK", "INVITE", media(benchFar))
		message(out, "ACK sip:x@192.0.2.5:5060 SIP/2.0", "ACK", netip.AddrPort{})
		message(out, "BYE sip:x@192.0.2.5:5060 SIP/2.0", "BYE", netip.AddrPort{})
		message(out.Reverse(), "SIP/2.0 200 OK", "BYE", netip.AddrPort{})
	}
	return all
}

// benchSkinny is a phone's connection with its call manager: calls of five
// messages each, and an acknowledgement of each.
func benchSkinny() (all [][]byte) {
	up := stack.Flow{Src: netip.MustParseAddrPort("10.20.0.50:40000"), Dst: netip.MustParseAddrPort("192.0.2.5:2000")}
	next := [2]uint32{1, 1}
	segment := func(phone bool, flags uint8, data []byte) {
		f, i := up.Reverse(), 1
		if phone {
			f, i = up, 0
		}
		h := stack.TCPHeader{Seq: next[i], Flags: flags, Window: 65535}
		if flags&stack.FlagACK != 0 {
			h.Ack = next[1-i]
		}
		if flags&stack.FlagSYN != 0 {
			h.MSS = 1460
			next[i]++
		}
		next[i] += uint32(len(data))
		all = append(all, stack.AppendTCP(nil, f, h, data))
	}
	segment(true, stack.FlagSYN, nil)
	segment(false, stack.FlagSYN|stack.FlagACK, nil)
	segment(true, stack.FlagACK, nil)
	for n := uint32(1); len(all)+10 <= benchPackets; n++ {
		say := func(phone bool, id uint32, size int, fields map[int]uint32) {
			m := make([]byte, 12+size)
			binary.LittleEndian.PutUint32(m, uint32(len(m)-8))
			binary.LittleEndian.PutUint32(m[8:], id)
			for off, v := range fields {
				binary.LittleEndian.PutUint32(m[12+off:], v)
			}
			segment(phone, stack.FlagACK|stack.FlagPSH, m)
			segment(!phone, stack.FlagACK, nil)
		}
		near, far := binary.LittleEndian.Uint32([]byte{10, 20, 0, 50}), binary.LittleEndian.Uint32([]byte{192, 0, 2, 77})
		say(false, 0x105, 92, map[int]uint32{0: n, 4: n, 24: n})
		say(true, 0x22, 20, map[int]uint32{4: near, 8: 20000 + n%1000*2, 12: n, 16: n})
		say(false, 0x8a, 92, map[int]uint32{0: n, 4: n, 8: far, 12: 30000, 40: n})
		say(false, 0x8b, 12, map[int]uint32{0: n, 4: n, 8: n})
		say(false, 0x106, 12, map[int]uint32{0: n, 4: n, 8: n})
	}
	return all
}

var benches = []struct {
	name    string
	packets func() [][]byte
	// messages that must leave on both sides
	protocol string
}{
	{"media", benchMedia, ""},
	{"sip-udp", benchCalls, "sip"},
	{"skinny-tcp", benchSkinny, "sccp"},
}

// BenchmarkReplay leads captures through the box, with everything made of them
// that there is: text, pcapng, messages. Its other half is BenchmarkParse.
func BenchmarkReplay(b *testing.B) {
	for _, x := range benches {
		b.Run(x.name, func(b *testing.B) {
			r := row{name: "bench", how: "pat inside=10.20.0.0/24"}
			config, c := r.crossing(b)
			packets := x.packets()
			c.Capture = benchCapture(b, packets)
			flash := b.TempDir()
			b.ResetTimer()
			for range b.N {
				res, err := pcaps.RunCapture(config, flash, c)
				if err != nil || res.Count.Dropped > 0 || res.Count.In < uint64(len(packets)) {
					b.Fatalf("%+v, %v", res.Count, err)
				}
				if n := len(res.Messages["inside"]) + len(res.Messages["outside"]); x.protocol != "" && n < len(packets)/2-3 {
					b.Fatalf("%d messages of %d packets", n, len(packets))
				}
			}
			perSecond(b, len(packets))
		})
	}
}

// BenchmarkParse reads the same captures and parses their packets, no more.
func BenchmarkParse(b *testing.B) {
	for _, x := range benches {
		b.Run(x.name, func(b *testing.B) {
			packets := x.packets()
			data, err := os.ReadFile(benchCapture(b, packets))
			if err != nil {
				b.Fatal(err)
			}
			p := stack.NewPacket(stack.MaxPacket)
			b.ResetTimer()
			for range b.N {
				r, err := link.NewReader(bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := r.Next(p); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
					if v := p.Parse(); v != stack.Forward {
						b.Fatal(v)
					}
				}
			}
			perSecond(b, len(packets))
		})
	}
}

func perSecond(b *testing.B, packets int) {
	b.ReportMetric(float64(b.N*packets)/b.Elapsed().Seconds(), "packets/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packets), "ns/packet")
}

// benchCapture writes packets a millisecond apart.
func benchCapture(b *testing.B, packets [][]byte) string {
	return capture(b, time.Millisecond, packets...)
}
