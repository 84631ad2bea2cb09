package skinny_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

// captures is where the regression captures are, beside the repository.
const captures = "../../../shared/pcaps"

// truth is one line of a capture's truth: a message as another decoder saw it.
type truth struct {
	Type   string
	Frame  int
	Src    string
	Dst    string
	Length int    `json:"data_length"`
	ID     uint32 `json:"id"`
	Name   string
	Addr   []struct {
		Field  string
		Offset int `json:"pdu_off"` // from the start of the message
		Len    int
		Raw    string
	}
}

// field is bytes of a message that may change.
type field struct {
	off int
	raw []byte
}

func readTruth(t *testing.T, path string) []truth {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []truth
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m truth
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		if m.Type == "sccp" {
			list = append(list, m)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// segment is a part of one direction of a TCP connection.
type segment struct {
	seq  uint32
	data []byte
}

// readTCP puts the directions of all TCP connections to or from port 2000
// together, by "src>dst".
func readTCP(t *testing.T, path string) map[string][]byte {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	segments := map[string][]segment{}
	defrag := ip4defrag.NewIPv4Defragmenter()
	for p := range gopacket.NewPacketSource(r, r.LinkType()).Packets() {
		ip, ok := p.NetworkLayer().(*layers.IPv4)
		if !ok {
			continue
		}
		if ip, err = defrag.DefragIPv4(ip); err != nil || ip == nil {
			continue
		}
		if ip.Protocol != layers.IPProtocolTCP {
			continue
		}
		var tcp layers.TCP
		if err := tcp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback); err != nil {
			continue
		}
		if tcp.SrcPort != 2000 && tcp.DstPort != 2000 || len(tcp.Payload) == 0 {
			continue
		}
		key := fmt.Sprintf("%v:%d>%v:%d", ip.SrcIP, tcp.SrcPort, ip.DstIP, tcp.DstPort)
		segments[key] = append(segments[key], segment{tcp.Seq, slices.Clone(tcp.Payload)})
	}
	streams := map[string][]byte{}
	for key, list := range segments {
		slices.SortStableFunc(list, func(a, b segment) int { return int(int32(a.seq - b.seq)) })
		first := list[0].seq
		var data []byte
		for _, s := range list {
			have := int(s.seq - first)
			if have > len(data) {
				// One capture has lost a segment, near its end.
				t.Logf("%s: %d bytes are missing after %d", key, have-len(data), len(data))
				break
			}
			if have+len(s.data) > len(data) {
				data = append(data, s.data[len(data)-have:]...)
			}
		}
		streams[key] = data
	}
	return streams
}

// rewritten are the messages whose addresses a session changes, and from whom.
// Of IpPort and the station's IPv6 address, which truth lists as well, the
// first stays and the second is :: in every capture.
var rewritten = map[uint32]nat.End{
	0x001: nat.Client,
	0x022: nat.Client,
	0x08a: nat.Server,
	0x105: nat.Server,
	0x154: nat.Client,
}

func TestTruth(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(captures, "sccp-*.truth.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Skip("no captures beside the repository")
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".truth.jsonl")
		t.Run(name, func(t *testing.T) {
			testTruth(t, readTruth(t, path), readTCP(t, strings.TrimSuffix(path, ".truth.jsonl")+".pcap"))
		})
	}
}

func testTruth(t *testing.T, want []truth, streams map[string][]byte) {
	sessions := map[string]inspect.Session{} // by the phone's address
	boxes := map[string]*box{}
	edited := 0
	for _, w := range want {
		key := w.Src + ">" + w.Dst
		n, msg, err := skinny.Engine{}.Split(streams[key], false)
		if err != nil || n == 0 {
			t.Fatalf("frame %d: Split = %d, %v; want %s", w.Frame, n, err, w.Name)
		}
		streams[key] = streams[key][n:]
		if got := skinny.ID(msg); got != w.ID || len(msg) != 8+w.Length {
			t.Fatalf("frame %d: %v, want %s (%#x) of %d bytes", w.Frame, skinny.Message(msg), w.Name, w.ID, 8+w.Length)
		}

		from, phone := nat.Client, w.Src
		if strings.HasSuffix(w.Src, ":2000") {
			from, phone = nat.Server, w.Dst
		}
		if sessions[phone] == nil {
			boxes[phone] = &box{}
			sessions[phone] = skinny.Engine{MaxVersion: 22}.NewSession(boxes[phone])
		}
		b := boxes[phone]
		n = len(b.media)
		got := pass(t, sessions[phone], msg, from)

		// Bytes that truth calls no address, and those of messages that are
		// not rewritten, are as they were.
		expect := clone(msg)
		if by, ok := rewritten[w.ID]; ok && by == from {
			var fields []field
			for _, a := range w.Addr {
				raw, err := hex.DecodeString(a.Raw)
				if err != nil || len(raw) != a.Len {
					t.Fatalf("frame %d: %q of %d bytes", w.Frame, a.Raw, a.Len)
				}
				if string(msg[a.Offset:a.Offset+a.Len]) != string(raw) {
					t.Fatalf("frame %d: %s is not at %d", w.Frame, a.Field, a.Offset)
				}
				fields = append(fields, field{a.Offset, raw})
			}
			fillExpected(t, expect, w, fields, b, n)
			edited++
		}
		compare(t, got, expect)
		if t.Failed() {
			t.Fatalf("frame %d: %v", w.Frame, skinny.Message(msg))
		}
		if _, ok := rewritten[w.ID]; !ok && len(b.media) != n {
			t.Errorf("frame %d: %v asked the Binder", w.Frame, skinny.Message(msg))
		}
	}
	for key, rest := range streams {
		if len(rest) != 0 {
			t.Errorf("%s: %d bytes behind the last message, % x", key, len(rest), rest[:min(16, len(rest))])
		}
	}
	for _, s := range sessions {
		s.Close()
	}
	t.Logf("%d messages, %d of them rewritten", len(want), edited)
}

// fillExpected puts into msg what a session with b must have made of it. n is
// how many questions b had been asked before.
func fillExpected(t *testing.T, msg []byte, w truth, fields []field, b *box, n int) {
	t.Helper()
	if w.ID == 0x001 {
		copy(msg[fields[0].off:], []byte{10, 20, 0, 5})
		return
	}
	if len(fields) != 2 || len(fields[0].raw) != 4 || len(fields[1].raw) != 4 {
		t.Fatalf("frame %d: fields %v", w.Frame, fields)
	}
	port := uint16(fields[1].raw[0]) | uint16(fields[1].raw[1])<<8
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte(fields[0].raw)), port)
	from := rewritten[w.ID]
	to := mapped(addr, from)
	if w.ID == 0x105 {
		to = mapped(netip.AddrPort{}, from) // the source is not where media goes
	}
	if w.ID != 0x154 { // the ack of a fork asks, that of a call does not
		if len(b.media) != n+1 || b.from[n] != from {
			t.Fatalf("frame %d: %s asked the Binder %d times", w.Frame, w.Name, len(b.media)-n)
		}
		if asked := b.media[n].Addr; w.ID != 0x105 && asked != addr {
			t.Errorf("frame %d: Binder was told %v, want %v", w.Frame, asked, addr)
		}
	}
	if port == 0 { // IP Communicator does not say where it sends from
		to = netip.AddrPortFrom(to.Addr(), 0)
	}
	ip := to.Addr().As4()
	copy(msg[fields[0].off:], ip[:])
	copy(msg[fields[1].off:], []byte{byte(to.Port()), byte(to.Port() >> 8), 0, 0})
}
