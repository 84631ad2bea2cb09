package inspect

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"patchbay/nat"
	"patchbay/stack"
)

// rtpPacket writes a packet of RTP: 20 ms of G.711.
func rtpPacket(pt uint8, seq uint16, ssrc uint32) []byte {
	b := make([]byte, rtpHeader+160)
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

// conformed returns the handler of a stream that was signaled so.
func conformed(level Conformance, m Media) *conformer {
	f := newConformer(level)
	f.signaled(m)
	return f
}

func typeSet(list ...uint8) (p PayloadTypes) {
	for _, t := range list {
		p.Add(t)
	}
	return p
}

func TestRTPHeader(t *testing.T) {
	good := rtpPacket(0, 1, 7)
	edit := func(off int, b ...byte) []byte {
		p := bytes.Clone(good)
		copy(p[off:], b)
		return p
	}
	report := []byte{0x80, 201, 0, 1, 0, 0, 0, 7}
	both := append(bytes.Clone(report), 0x81, 202, 0, 3, 0, 0, 0, 7, 1, 3, 'a', 'b', 'c', 0, 0, 0)
	muxed := typeSet(0)
	muxed.AddMux()
	tests := []struct {
		name  string
		level Conformance
		m     Media
		rtcp  bool
		data  []byte
		want  stack.Verdict
	}{
		{"plain", RTPSignaled, Media{Types: typeSet(0, 101)}, false, good, stack.Forward},
		{"marker", RTPSignaled, Media{Types: typeSet(0, 101)}, false, edit(1, 0x80|101), stack.Forward},
		{"not signaled", RTPSignaled, Media{Types: typeSet(0, 101)}, false, edit(1, 8), stack.DropRTPPayload},
		{"not signaled, not enforced", RTPOnly, Media{Types: typeSet(0)}, false, edit(1, 8), stack.Forward},
		{"nothing known", RTPSignaled, Media{}, false, edit(1, 8), stack.Forward},
		{"highest type", RTPSignaled, Media{Types: typeSet(127)}, false, edit(1, 127), stack.Forward},
		{"header alone", RTPOnly, Media{}, false, good[:12], stack.Forward},
		{"cut", RTPOnly, Media{}, false, good[:11], stack.DropRTPLength},
		{"empty", RTPOnly, Media{}, false, nil, stack.DropRTPLength},
		{"version 1", RTPOnly, Media{}, false, edit(0, 0x40), stack.DropRTPVersion},
		{"version 3", RTPOnly, Media{}, false, edit(0, 0xc0), stack.DropRTPVersion},
		{"STUN", RTPOnly, Media{}, false, append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), stack.DropRTPVersion},
		{"DTLS", RTPOnly, Media{}, false, append([]byte{22, 0xfe, 0xff}, make([]byte, 60)...), stack.DropRTPVersion},
		{"ZRTP", RTPOnly, Media{}, false, append([]byte{0x10, 0, 0, 1, 'Z', 'R', 'T', 'P'}, make([]byte, 60)...), stack.DropRTPVersion},
		{"15 contributing sources", RTPOnly, Media{}, false, edit(0, 0x8f), stack.Forward},
		{"and no room for them", RTPOnly, Media{}, false, edit(0, 0x8f)[:71], stack.DropRTPLength},
		{"extension", RTPOnly, Media{}, false, edit(0, 0x90)[:16], stack.Forward},
		{"extension, cut", RTPOnly, Media{}, false, edit(0, 0x90)[:15], stack.DropRTPLength},
		{"extension that is too long", RTPOnly, Media{}, false, append(edit(0, 0x90)[:12], 0, 0, 0xff, 0xff, 0), stack.DropRTPLength},
		{"padding", RTPOnly, Media{}, false, append(edit(0, 0xa0), 0, 0, 0, 4), stack.Forward},
		{"padding of 0", RTPOnly, Media{}, false, edit(0, 0xa0), stack.DropRTPLength},
		{"padding over all", RTPOnly, Media{}, false, append(edit(0, 0xa0)[:12], 200), stack.DropRTPLength},
		{"padding under a cipher", RTPOnly, Media{Secure: true}, false, edit(0, 0xa0), stack.Forward},
		{"RTCP at the port of RTP", RTPOnly, Media{Types: typeSet(0)}, false, both, stack.DropRTPPayload},
		{"RTCP that may share it", RTPSignaled, Media{Types: muxed}, false, both, stack.Forward},
		{"and is short", RTPSignaled, Media{Types: muxed}, false, report, stack.Forward},
		{"T.38", RTPSignaled, Media{NotRTP: true}, false, []byte{0, 1, 2}, stack.Forward},

		{"report", RTPOnly, Media{}, true, report, stack.Forward},
		{"compound", RTPOnly, Media{}, true, both, stack.Forward},
		{"RTP at the port of RTCP", RTPOnly, Media{}, true, good, stack.DropRTCPPayload},
		{"type 199", RTPOnly, Media{}, true, []byte{0x80, 199, 0, 1, 0, 0, 0, 7}, stack.DropRTCPPayload},
		{"type 207", RTPOnly, Media{}, true, []byte{0x80, 207, 0, 1, 0, 0, 0, 7}, stack.Forward},
		{"type 208", RTPOnly, Media{}, true, []byte{0x80, 208, 0, 1, 0, 0, 0, 7}, stack.DropRTCPPayload},
		{"report, cut", RTPOnly, Media{}, true, report[:7], stack.DropRTCPLength},
		{"longer than it is", RTPOnly, Media{}, true, []byte{0x80, 201, 0, 2, 0, 0, 0, 7}, stack.DropRTCPLength},
		{"version", RTPOnly, Media{}, true, []byte{0x40, 201, 0, 1, 0, 0, 0, 7}, stack.DropRTCPVersion},
		{"compound with a tail", RTPOnly, Media{}, true, append(bytes.Clone(both), 1, 2), stack.DropRTCPLength},
		{"compound with another version", RTPOnly, Media{}, true, append(bytes.Clone(report), 1, 202, 0, 0), stack.DropRTCPVersion},
		{"SRTCP", RTPOnly, Media{Secure: true}, true, append(bytes.Clone(report), 0xde, 0xad, 0xbe, 0xef, 0x80, 0, 0, 1, 1, 2, 3, 4), stack.Forward},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := conformed(tt.level, tt.m)
			i := 0
			if tt.rtcp {
				i = 1
			}
			if got := handle(t, &f.checks[nat.Client][i], tt.data, nat.Client); got != tt.want {
				t.Errorf("% x: %v, want %v", tt.data[:min(len(tt.data), 24)], got, tt.want)
			}
		})
	}
}

// handle passes a datagram to h.
func handle(t testing.TB, h nat.Handler, data []byte, from nat.End) stack.Verdict {
	t.Helper()
	p := stack.NewPacket(len(data) + 100)
	f := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort("198.51.100.20:20000"), Dst: netip.MustParseAddrPort("203.0.113.2:16384")}
	if !p.SetData(stack.AppendUDP(nil, f, data)) {
		t.Fatalf("%d bytes do not fit", len(data))
	}
	if v := p.Parse(); v != stack.Forward {
		t.Fatalf("Parse = %v", v)
	}
	return h.HandlePacket(p, nil, from)
}

// TestRTPSource follows sequence numbers and sources, each end by itself.
func TestRTPSource(t *testing.T) {
	const one, two = 0x1111, 0x2222
	type step struct {
		from nat.End
		seq  uint16
		ssrc uint32
		want stack.Verdict
	}
	c, s := nat.Client, nat.Server
	tests := []struct {
		name  string
		steps []step
	}{
		{"in order", []step{{c, 1, one, stack.Forward}, {c, 2, one, stack.Forward}, {c, 2, one, stack.Forward}, {c, 5, one, stack.Forward}}},
		{"around", []step{{c, 65535, one, stack.Forward}, {c, 0, one, stack.Forward}, {c, 65534, one, stack.Forward}, {c, 1, one, stack.Forward}}},
		{"gap", []step{{c, 1, one, stack.Forward}, {c, 3000, one, stack.Forward}, {c, 6000, one, stack.DropRTPSequence}}},
		{"late", []step{{c, 1000, one, stack.Forward}, {c, 901, one, stack.Forward}, {c, 899, one, stack.DropRTPSequence}, {c, 1001, one, stack.Forward}}},
		{"a jump that goes on", []step{{c, 1, one, stack.Forward}, {c, 9000, one, stack.DropRTPSequence}, {c, 9001, one, stack.Forward}, {c, 9002, one, stack.Forward}}},
		{"jumps that do not", []step{{c, 1, one, stack.Forward}, {c, 9000, one, stack.DropRTPSequence}, {c, 9002, one, stack.DropRTPSequence}, {c, 20000, one, stack.DropRTPSequence}, {c, 2, one, stack.Forward}}},
		{"another source", []step{{c, 1, one, stack.Forward}, {c, 2, two, stack.DropRTPSSRC}, {c, 2, one, stack.Forward}}},
		{"both ends", []step{{c, 1, one, stack.Forward}, {s, 40000, two, stack.Forward}, {c, 2, one, stack.Forward}, {s, 40001, one, stack.DropRTPSSRC}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := conformed(RTPOnly, Media{})
			for i, x := range tt.steps {
				// The pinholes of both ends are of one stream.
				if got := handle(t, &f.checks[i%2][0], rtpPacket(0, x.seq, x.ssrc), endVia(i%2, x.from)); got != x.want {
					t.Errorf("step %d, %v: %v, want %v", i, x, got, x.want)
				}
			}
			f.signaled(Media{})
			if got := handle(t, &f.checks[0][0], rtpPacket(0, 30000, 0x3333), nat.Server); got != stack.Forward {
				t.Errorf("another source after signaling: %v", got)
			}
		})
	}
}

// endVia is the end of a connection through the pinhole toward hole that the
// end from of the conversation is.
func endVia(hole int, from nat.End) nat.End {
	if nat.End(hole) == from {
		return nat.Server // the pinhole leads to it
	}
	return nat.Client
}

func TestPayloadTypes(t *testing.T) {
	var p PayloadTypes
	p.AddRange(120, 200)
	p.Add(0)
	p.Add(255)
	for n := range 256 {
		if got, want := p.Has(uint8(n)), n == 0 || 120 <= n && n < 128; got != want {
			t.Errorf("Has(%d) = %v", n, got)
		}
	}
}

// TestRTPAllocs holds a checked packet to no allocation.
func TestRTPAllocs(t *testing.T) {
	f := conformed(RTPSignaled, Media{Types: typeSet(0)})
	p := stack.NewPacket(400)
	flow := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort("198.51.100.20:20000"), Dst: netip.MustParseAddrPort("203.0.113.2:16384")}
	p.SetData(stack.AppendUDP(nil, flow, rtpPacket(0, 1, 7)))
	p.Parse()
	h := nat.Handler(&f.checks[nat.Client][0])
	if n := testing.AllocsPerRun(100, func() { h.HandlePacket(p, nil, nat.Client) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRTP(b *testing.B) {
	f := conformed(RTPSignaled, Media{Types: typeSet(0, 101)})
	p := stack.NewPacket(400)
	flow := stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort("198.51.100.20:20000"), Dst: netip.MustParseAddrPort("203.0.113.2:16384")}
	p.SetData(stack.AppendUDP(nil, flow, rtpPacket(0, 1, 7)))
	p.Time = time.Unix(1e9, 0)
	p.Parse()
	h := &f.checks[nat.Client][0]
	payload := p.Payload()
	b.ReportAllocs()
	seq := uint16(0)
	for b.Loop() {
		seq++
		binary.BigEndian.PutUint16(payload[2:], seq)
		if v := h.HandlePacket(p, nil, nat.Client); v != stack.Forward {
			b.Fatal(v)
		}
	}
}

func FuzzRTP(f *testing.F) {
	f.Add(rtpPacket(0, 1, 7), false, uint8(1), true)
	f.Add([]byte{0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0}, false, uint8(2), false)
	f.Add([]byte{0x80, 201, 0, 1, 0, 0, 0, 7, 0x81, 202, 0, 1, 0, 0, 0, 7}, true, uint8(1), false)
	f.Fuzz(func(t *testing.T, data []byte, rtcp bool, level uint8, secure bool) {
		if len(data) > 1400 {
			return
		}
		m := Media{Types: typeSet(0), Secure: secure}
		x := conformed(Conformance(level%3), m)
		i := 0
		if rtcp {
			i = 1
		}
		before := bytes.Clone(data)
		v := handle(t, &x.checks[0][i], data, nat.Client)
		if !bytes.Equal(before, data) {
			t.Error("the packet was changed")
		}
		if v == stack.Forward && (len(data) < rtcpHeader || data[0]>>6 != rtpVersion) {
			t.Errorf("% x passes", data)
		}
		if v == stack.Forward && Conformance(level%3) == RTPSignaled && !rtcp && data[1]&0x7f != 0 {
			t.Errorf("type %d passes", data[1]&0x7f)
		}
	})
}
