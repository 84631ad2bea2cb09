package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/stack"
	"patchbay/stack/link"
)

const capturesDir = "../../../shared/pcaps"

// decoded is a packet of a capture, for comparing.
type decoded struct {
	Time string
	Data string // hex, trimmed to the length in the IP header
}

func trim(ip []byte) []byte {
	n := len(ip)
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		n = min(n, int(binary.BigEndian.Uint16(ip[2:])))
	case len(ip) >= 40 && ip[0]>>4 == 6:
		n = min(n, 40+int(binary.BigEndian.Uint16(ip[4:])))
	}
	return ip[:n]
}

func readAll(t testing.TB, r io.Reader) (all []decoded, infos []link.Info) {
	t.Helper()
	c, err := link.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(stack.MaxPacket)
	for {
		info, err := c.Next(p)
		if err == io.EOF {
			return all, infos
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, decoded{p.Time.UTC().String(), fmt.Sprintf("%x", trim(p.Data()))})
		infos = append(infos, info)
	}
}

// obvious reads a capture with another library.
func obvious(t testing.TB, data []byte) []decoded {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var all []decoded
	for {
		frame, ci, err := r.ReadPacketData()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var first gopacket.Layer
		if typ := r.LinkType(); typ == 228 || typ == layers.LinkTypeLinuxSLL && binary.BigEndian.Uint16(frame[4:]) > 8 {
			// gopacket knows no link type 228, and believes a hand-made
			// cooked header that its link address has 1,536 bytes.
			if typ != 228 {
				frame = frame[16:]
			}
			first = gopacket.NewPacket(frame, layers.LayerTypeIPv4, gopacket.NoCopy).Layer(layers.LayerTypeIPv4)
		} else {
			for _, l := range gopacket.NewPacket(frame, typ, gopacket.NoCopy).Layers() {
				if l.LayerType() == layers.LayerTypeIPv4 || l.LayerType() == layers.LayerTypeIPv6 {
					first = l
					break
				}
			}
		}
		if first == nil {
			continue
		}
		ip := append(bytes.Clone(first.LayerContents()), first.LayerPayload()...)
		all = append(all, decoded{ci.Timestamp.UTC().String(), fmt.Sprintf("%x", ip)})
	}
}

// Every capture there is reads as gopacket reads it.
func TestReaderAgainstGopacket(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(capturesDir, "*.pcap"))
	if len(files) == 0 {
		t.Skip("no captures in " + capturesDir)
	}
	packets := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := readAll(t, bytes.NewReader(data))
			want := obvious(t, data)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%d packets, want %d (-gopacket +Reader):\n%.2000s", len(got), len(want), d)
			}
			packets += len(got)
		})
	}
	t.Logf("%d packets in %d files", packets, len(files))
}

var (
	ipUDP = stack.AppendUDP(nil, stack.Flow{
		Src: netip.MustParseAddrPort("10.20.0.50:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:53"),
	}, []byte("hello"))
	when = time.Date(2026, 3, 1, 9, 0, 0, 123456789, time.UTC)
)

// pcapOf returns a pcap with one frame, cut to kept bytes.
func pcapOf(o binary.AppendByteOrder, magic uint32, linkType uint32, sub uint32, frame []byte, kept int) []byte {
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(b, 2)
	b = o.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)
	b = o.AppendUint32(b, 65535)
	b = o.AppendUint32(b, linkType)
	b = o.AppendUint32(b, uint32(when.Unix()))
	b = o.AppendUint32(b, sub)
	b = o.AppendUint32(b, uint32(kept))
	b = o.AppendUint32(b, uint32(len(frame)))
	return append(b, frame[:kept]...)
}

func hex(s string) []byte {
	var b []byte
	if _, err := fmt.Sscanf(s, "%x", &b); err != nil {
		panic(err)
	}
	return b
}

func TestReaderLinkTypes(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	const macs = "020000000002020000000001"
	tests := []struct {
		name   string
		typ    uint32
		header string
		want   link.Info // but for LinkType and Length; Interface -1: passed over
	}{
		{"Ethernet", 1, macs + "0800", link.Info{}},
		{"802.1Q", 1, macs + "8100e0140800", link.Info{VLAN: 20}},
		{"priority tag", 1, macs + "8100a0000800", link.Info{}},
		{"Q-in-Q", 1, macs + "88a80064" + "81000014" + "0800", link.Info{VLAN: 100}},
		{"9 tags", 1, macs + "8100000181000001810000018100000181000001810000018100000181000001810000010800", link.Info{Interface: -1}},
		{"PPPoE", 1, macs + "8864" + "1100001200230021", link.Info{}},
		{"PPPoE LCP", 1, macs + "8864" + "110000120023c021", link.Info{Interface: -1}},
		{"ARP", 1, macs + "0806", link.Info{Interface: -1}},
		{"802.3", 1, macs + "0040", link.Info{Interface: -1}},
		{"Linux cooked", 113, "0000000100060200000000010000" + "0800", link.Info{}},
		{"Linux cooked, sent", 113, "0004000100060200000000010000" + "0800", link.Info{Outgoing: true}},
		{"Linux cooked, VLAN", 113, "0000000100060200000000010000" + "8100" + "00060800", link.Info{VLAN: 6}},
		{"Linux cooked 2", 276, "0800" + "0000" + "00000002" + "0001" + "00" + "06" + "0200000000010000", link.Info{}},
		{"Linux cooked 2, sent", 276, "0800" + "0000" + "00000002" + "0001" + "04" + "06" + "0200000000010000", link.Info{Outgoing: true}},
		{"null, little-endian", 0, "02000000", link.Info{}},
		{"null, big-endian", 0, "00000002", link.Info{}},
		{"null, other family", 0, "00000007", link.Info{Interface: -1}},
		{"loop", 108, "00000002", link.Info{}},
		{"raw", 101, "", link.Info{}},
		{"raw of BSD", 12, "", link.Info{}},
		{"raw IPv4", 228, "", link.Info{}},
		{"frame check sequence bits", 101 | 0x14<<24, "", link.Info{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var head []byte
			if tt.header != "" {
				head = hex(tt.header)
			}
			frame := append(head, ipUDP...)
			for _, form := range []struct {
				name  string
				order binary.AppendByteOrder
				magic uint32
				sub   uint32
				ns    time.Duration // lost
			}{
				{"µs, little", le, 0xa1b2c3d4, 123456, 789}, {"µs, big", be, 0xa1b2c3d4, 123456, 789},
				{"ns, little", le, 0xa1b23c4d, 123456789, 0}, {"ns, big", be, 0xa1b23c4d, 123456789, 0},
			} {
				got, infos := readAll(t, bytes.NewReader(pcapOf(form.order, form.magic, tt.typ, form.sub, frame, len(frame))))
				if tt.want.Interface == -1 {
					if len(got) != 0 {
						t.Errorf("%s: read %v", form.name, got)
					}
					continue
				}
				want := []decoded{{when.Add(-form.ns).String(), fmt.Sprintf("%x", ipUDP)}}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s (-want +got):\n%s", form.name, d)
					continue
				}
				info := tt.want
				info.LinkType, info.Length = uint16(tt.typ), len(frame)
				if infos[0] != info {
					t.Errorf("%s: info %+v, want %+v", form.name, infos[0], info)
				}
			}
		})
	}
}

func TestReaderTruncated(t *testing.T) {
	data := pcapOf(binary.LittleEndian, 0xa1b2c3d4, 101, 0, ipUDP, 24)
	got, infos := readAll(t, bytes.NewReader(data))
	if len(got) != 1 || !infos[0].Truncated || infos[0].Length != len(ipUDP) {
		t.Errorf("snaplen 24: %v %+v", got, infos)
	}
	// What does not fit in the packet is cut, and says so.
	c, err := link.NewReader(bytes.NewReader(pcapOf(binary.LittleEndian, 0xa1b2c3d4, 101, 0, ipUDP, len(ipUDP))))
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(20)
	if info, err := c.Next(p); err != nil || !info.Truncated || p.Len() != 20 {
		t.Errorf("small packet: %+v, %v, %d bytes", info, err, p.Len())
	}
}

// section returns a pcapng with an interface in units of 2^-10 s and an offset,
// one in the default µs, and a packet of each kind on them.
func section(o binary.AppendByteOrder) []byte {
	block := func(kind uint32, body []byte) []byte {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		b := o.AppendUint32(nil, kind)
		b = o.AppendUint32(b, uint32(len(body)+12))
		b = append(b, body...)
		return o.AppendUint32(b, uint32(len(body)+12))
	}
	u16 := func(b []byte, vs ...uint16) []byte {
		for _, v := range vs {
			b = o.AppendUint16(b, v)
		}
		return b
	}
	u32 := func(b []byte, vs ...uint32) []byte {
		for _, v := range vs {
			b = o.AppendUint32(b, v)
		}
		return b
	}
	var f []byte
	f = append(f, block(0x0a0d0d0a, o.AppendUint64(u16(u32(nil, 0x1a2b3c4d), 1, 0), 1<<64-1))...)
	i0 := u32(u16(nil, 101, 0), 0)
	i0 = append(u16(i0, 9, 1), 0x8a, 0, 0, 0) // 2^-10 s
	i0 = o.AppendUint64(u16(i0, 14, 8), 1000)
	f = append(f, block(1, u16(i0, 0, 0))...)
	f = append(f, block(1, u32(u16(nil, 101, 0), 0))...)
	f = append(f, block(5, make([]byte, 12))...) // statistics: passed over
	stamp := func(b []byte, at uint64) []byte { return u32(b, uint32(at>>32), uint32(at)) }
	n := uint32(len(ipUDP))
	f = append(f, block(6, append(u32(stamp(u32(nil, 0), uint64(when.Unix()-1000)<<10|512), n, n), ipUDP...))...)
	f = append(f, block(6, append(u32(stamp(u32(nil, 1), uint64(when.UnixMicro())), n, n), ipUDP...))...)
	f = append(f, block(3, append(u32(nil, n), ipUDP...))...)
	return append(f, block(2, append(u32(stamp(u16(nil, 1, 0), uint64(when.UnixMicro())), n, n+4), ipUDP...))...)
}

func TestReaderPCAPNG(t *testing.T) {
	le, be := section(binary.LittleEndian), section(binary.BigEndian)
	data := fmt.Sprintf("%x", ipUDP)
	sec := when.Truncate(time.Second)
	micro := when.Truncate(time.Microsecond)
	want := []decoded{
		{sec.Add(500 * time.Millisecond).String(), data}, {micro.String(), data},
		{micro.String(), data}, {micro.String(), data},
	}
	wantInfo := []link.Info{
		{LinkType: 101, Length: len(ipUDP)}, {Interface: 1, LinkType: 101, Length: len(ipUDP)},
		{LinkType: 101, Length: len(ipUDP)}, {Interface: 1, LinkType: 101, Length: len(ipUDP) + 4, Truncated: true},
	}
	for name, file := range map[string][]byte{
		"little-endian": le, "big-endian": be, "both, one after the other": append(bytes.Clone(be), le...),
	} {
		w, wi := want, wantInfo
		if name == "both, one after the other" {
			w, wi = append(w[:4:4], w...), append(wi[:4:4], wi...)
		}
		got, infos := readAll(t, bytes.NewReader(file))
		if d := cmp.Diff(w, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(wi, infos); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestReaderErrors(t *testing.T) {
	o := binary.LittleEndian
	good := pcapOf(o, 0xa1b2c3d4, 101, 0, ipUDP, len(ipUDP))
	ng := section(o)
	patch := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		o.PutUint32(b[at:], v)
		return b
	}
	tests := []struct {
		name  string
		data  []byte
		begin bool // NewReader fails already
		eof   bool // with io.ErrUnexpectedEOF
	}{
		{"empty", nil, true, false},
		{"no capture", []byte("GIF89a....................."), true, false},
		{"pcap header cut", good[:20], true, true},
		{"unknown link type", pcapOf(o, 0xa1b2c3d4, 147, 0, ipUDP, 0), true, false},
		{"record header cut", good[:30], false, true},
		{"packet cut", good[:len(good)-1], false, true},
		{"record too long", patch(good, 32, 1<<30), false, false},
		{"section of unknown order", patch(ng, 8, 1), false, false},
		{"block of 8 bytes", patch(ng, 4, 8), false, false},
		{"lengths of interface differ", patch(ng, 28+4, 32), false, false},
		{"block cut", ng[:40], false, true},
		{"block header cut", ng[:32], false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := link.NewReader(bytes.NewReader(tt.data))
			if (err != nil) != tt.begin {
				t.Fatalf("NewReader: %v", err)
			}
			p := stack.NewPacket(2048)
			for err == nil {
				_, err = c.Next(p)
			}
			if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) != tt.eof {
				t.Errorf("error %v", err)
			}
		})
	}
}

// What is written reads back, with gopacket as well, and the same bytes come
// of the same packets.
func TestPCAPNG(t *testing.T) {
	write := func() []byte {
		var buf bytes.Buffer
		w := link.NewPCAPNG(&buf)
		outside, inside := w.AddInterface("outside"), w.AddInterface("inside")
		p := stack.NewPacket(2048)
		p.SetData(ipUDP)
		p.Time = when
		w.Packet(inside, link.In, p, "")
		p.Time = when.Add(time.Nanosecond)
		w.Packet(outside, link.Out, p, "dropped: acl-drop")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	data := write()
	if !bytes.Equal(data, write()) {
		t.Error("the same packets gave other bytes")
	}
	got, infos := readAll(t, bytes.NewReader(data))
	hex := fmt.Sprintf("%x", ipUDP)
	want := []decoded{{when.String(), hex}, {when.Add(1).String(), hex}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(infos) == 2 && (infos[0].Interface != 1 || infos[1].Interface != 0) {
		t.Errorf("interfaces %+v", infos)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		b, ci, err := r.ReadPacketData()
		if err != nil || !ci.Timestamp.Equal(when.Add(time.Duration(i))) || !bytes.Equal(b, ipUDP) {
			t.Errorf("gopacket reads packet %d as %x at %v, %v", i, b, ci.Timestamp, err)
		}
	}
	if i, err := r.Interface(1); err != nil || i.Name != "inside" {
		t.Errorf("gopacket reads interface 1 as %+v, %v", i, err)
	}
	bad := link.NewPCAPNG(io.Discard)
	bad.Packet(0, link.In, stack.NewPacket(0), "")
	if bad.Close() == nil {
		t.Error("a packet on no interface: no error")
	}
}

// many returns a capture with n packets.
func many(n int) []byte {
	var buf bytes.Buffer
	w := link.NewPCAPNG(&buf)
	w.AddInterface("x")
	p := stack.NewPacket(2048)
	p.SetData(stack.AppendUDP(nil, stack.Flow{
		Src: netip.MustParseAddrPort("10.20.0.50:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:53"),
	}, make([]byte, 172)))
	p.Time = when
	for range n {
		w.Packet(0, link.In, p, "")
	}
	w.Close()
	return buf.Bytes()
}

func TestCaptureAllocs(t *testing.T) {
	c, err := link.NewReader(bytes.NewReader(many(2000)))
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(2048)
	c.Next(p)
	w := link.NewPCAPNG(io.Discard)
	w.AddInterface("x")
	w.Packet(0, link.In, p, "")
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := c.Next(p); err != nil {
			t.Fatal(err)
		}
		w.Packet(0, link.Out, p, "")
	}); n != 0 {
		t.Errorf("%v allocations for a packet read and written", n)
	}
}

func BenchmarkReader(b *testing.B) {
	data := many(4096)
	p := stack.NewPacket(2048)
	b.ReportAllocs()
	var c *link.Reader
	for range b.N {
		if c != nil {
			if _, err := c.Next(p); err == nil {
				continue
			}
		}
		c, _ = link.NewReader(bytes.NewReader(data))
	}
}

// FuzzReader: whatever a file says, reading it ends, within its bytes.
func FuzzReader(f *testing.F) {
	for _, typ := range []uint32{0, 1, 101, 108, 113, 228, 276} {
		f.Add(pcapOf(binary.LittleEndian, 0xa1b2c3d4, typ, 5, ipUDP, len(ipUDP)))
		f.Add(pcapOf(binary.BigEndian, 0xa1b23c4d, typ, 5, ipUDP, 20))
	}
	f.Add(section(binary.LittleEndian))
	f.Add(section(binary.BigEndian))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := link.NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		p := stack.NewPacket(stack.MaxPacket)
		for total := 0; ; {
			info, err := c.Next(p)
			if err != nil {
				return
			}
			if total += p.Len(); total > len(data) || p.Len() > info.Length && !info.Truncated && info.Length > 0 {
				t.Fatalf("%d bytes of packets in a file of %d; %+v", total, len(data), info)
			}
			p.Parse()
		}
	})
}
