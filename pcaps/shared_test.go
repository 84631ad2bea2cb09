package pcaps_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

const (
	// sharedDir holds the configurations and the table for captures that are
	// not ours and stay where they are.
	sharedDir   = "shared"
	sharedTable = "shared/captures.txt"
	capturesDir = "../../shared/pcaps"
)

var dump = flag.Bool("dump", false, "log what came of each capture that is not ours, packet by packet")

// A row is one line of the table of captures.
//
//	NAME[@VARIANT]: pat|static WORD ...; counts; drops; messages; conns N
//
// A word is NAMEIF=PREFIX of the split, or ADDR[:PORT]=ADDR: that end of the
// capture has the other address instead. With pat the inside goes out as the
// box itself, with static each of its hosts has an address of its own.
type row struct {
	name string
	how  string // before the first semicolon
	rest string // behind it
}

func (r *row) file() string {
	name, _, _ := strings.Cut(r.name, "@")
	return filepath.Join(capturesDir, name)
}

// readTable returns the rows, and the text above each by its name; that below
// the last is under "".
func readTable(t testing.TB) (rows []row, above map[string]string) {
	t.Helper()
	table, err := os.ReadFile(sharedTable)
	if err != nil {
		t.Fatal(err)
	}
	above = make(map[string]string)
	text := ""
	for sc := bufio.NewScanner(bytes.NewReader(table)); sc.Scan(); {
		name, rest, ok := strings.Cut(sc.Text(), ": ")
		if !ok || strings.HasPrefix(name, "#") {
			text += sc.Text() + "\n"
			continue
		}
		how, rest, _ := strings.Cut(rest, ";")
		rows = append(rows, row{name, strings.TrimSpace(how), strings.TrimSpace(rest)})
		above[name], text = text, ""
	}
	above[""] = text
	return rows, above
}

// shared returns the rows if the captures are present, or nil.
func shared(t *testing.T) []row {
	t.Helper()
	if files, _ := filepath.Glob(filepath.Join(capturesDir, "*.pcap")); len(files) == 0 {
		return nil
	}
	rows, _ := readTable(t)
	return rows
}

// crossing reads how the capture of r is led through the box.
func (r *row) crossing(t testing.TB) (config []byte, c pcaps.Crossing) {
	t.Helper()
	words := strings.Fields(r.how)
	if len(words) == 0 {
		t.Fatalf("%s: want pat or static, and a split", r.name)
	}
	c = pcaps.Crossing{In: "outside", Capture: r.file() + ".pcap", Rename: make(map[netip.AddrPort]netip.Addr)}
	var split []string
	for _, w := range words[1:] {
		end, to, _ := strings.Cut(w, "=")
		if a, err := netip.ParseAddr(end); err == nil {
			c.Rename[netip.AddrPortFrom(a, 0)] = netip.MustParseAddr(to)
		} else if ap, err := netip.ParseAddrPort(end); err == nil {
			c.Rename[ap] = netip.MustParseAddr(to)
		} else {
			split = append(split, w)
		}
	}
	c.Split = strings.Join(split, " ")
	base, err := os.ReadFile(filepath.Join(sharedDir, pcaps.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range inside(c.Split) {
		mask := net.IP(net.CIDRMask(p.Bits(), 32))
		config = fmt.Appendf(config, "route inside %v %v 10.20.0.2 1\n", p.Addr(), mask)
		config = fmt.Appendf(config, "object network inside-%d\n subnet %v %v\n", i, p.Addr(), mask)
		switch words[0] {
		case "pat":
			config = append(config, " nat (inside,outside) dynamic interface\n"...)
		case "static":
			config = fmt.Appendf(config, "object network outside-%d\n subnet 203.0.113.%d %v\n", i, 32*(i+1), mask)
			config = fmt.Appendf(config, "object network inside-%d\n nat (inside,outside) static outside-%d\n", i, i)
		default:
			t.Fatalf("%s: %q is neither pat nor static", r.name, words[0])
		}
	}
	return append(config, base...), c
}

// inside returns the prefixes that a split has on the inside.
func inside(split string) []netip.Prefix {
	var all []netip.Prefix
	for _, w := range strings.Fields(split) {
		if text, ok := strings.CutPrefix(w, "inside="); ok {
			all = append(all, netip.MustParsePrefix(text))
		}
	}
	return all
}

func isInside(split string, a netip.Addr) bool {
	return slices.ContainsFunc(inside(split), func(p netip.Prefix) bool { return p.Contains(a) })
}

// The captures that are not ours, where they are present: counts as in the
// table, the messages of the capture on the other side in their order, and
// nothing from inside under its own address.
func TestShared(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(capturesDir, "*.pcap"))
	if len(files) == 0 {
		t.Skip("no captures in " + capturesDir)
	}
	rows, above := readTable(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pcap")
		if !slices.ContainsFunc(rows, func(r row) bool { return r.file() == filepath.Join(capturesDir, name) }) {
			t.Errorf("%s is not in %s", name, sharedTable)
		}
	}
	var out bytes.Buffer
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			config, c := r.crossing(t)
			res, err := pcaps.RunCapture(config, t.TempDir(), c)
			if err != nil {
				t.Fatal(err)
			}
			got := summary(t, &r, c, res)
			fmt.Fprintf(&out, "%s%s: %s; %s\n", above[r.name], r.name, r.how, got)
			if !*update && got != r.rest {
				t.Errorf("%s: %s\n got %s\nwant %s", r.name, r.how, got, r.rest)
			}
			hidden(t, res.Left["outside"], c.Split)
			if *dump {
				t.Logf("%s%s", res.Dump, res.Show)
			}
		})
	}
	out.WriteString(above[""])
	if *update && !t.Failed() {
		if err := os.WriteFile(sharedTable, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// summary is what the table says of a result.
func summary(t *testing.T, r *row, c pcaps.Crossing, res *pcaps.Result) string {
	n := res.Count
	s := fmt.Sprintf("in %d out %d dropped %d", n.In, n.Out, n.Dropped)
	for _, x := range []struct {
		name string
		n    uint64
	}{{"to-box", n.Terminated}, {"not-replayed", n.Terminated - n.Served}, {"made-up", n.PickedUp}, {"local", n.Local}, {"not-ip", n.NotIP}, {"truncated", n.Truncated}} {
		if x.n > 0 {
			s += fmt.Sprintf(" %s %d", x.name, x.n)
		}
	}
	var drops []string
	for v, n := range res.Drops {
		drops = append(drops, fmt.Sprintf("%v %d", v, n))
	}
	slices.Sort(drops)
	conns, _, _ := strings.Cut(strings.TrimPrefix(string(res.Show), "-- show conn detail\n"), " ")
	return strings.Join([]string{s, strings.Join(drops, ", "), sameCalls(t, r, c, res), "conns " + conns}, "; ")
}

// A truthMessage is a message as TShark read it in a capture.
type truthMessage struct {
	Type, Src, Dst string

	Method string // of SIP
	Status int
	CallID string `json:"call_id"`
	CSeq   string
	ID     uint32 // of SCCP
	Op     string // of TFTP
	Block  string
}

// key is the Key of the message, "" if it is of no protocol that we read.
func (m *truthMessage) key() string {
	switch m.Type {
	case "sip":
		if m.Status != 0 {
			return pcaps.SIPKey(fmt.Sprint(m.Status), m.CSeq, m.CallID)
		}
		return pcaps.SIPKey(m.Method, m.CSeq, m.CallID)
	case "sccp":
		return fmt.Sprintf("%#06x", m.ID)
	case "tftp":
		switch m.Op {
		case "DATA", "ACK":
			return m.Op + " " + m.Block
		}
		return m.Op
	}
	return ""
}

// sameCalls compares the messages that left by each side with those that the
// truth has from the other side, in their order, and counts both: "outside sip
// 12/14" is that 12 of 14 messages from inside came out.
func sameCalls(t *testing.T, r *row, c pcaps.Crossing, res *pcaps.Result) string {
	t.Helper()
	want := make(map[string][]string) // by side and protocol
	for _, m := range readTruth(t, r.file()+".truth.jsonl") {
		key := m.key()
		if key == "" {
			continue
		}
		src, dst := renamed(c, m.Src), renamed(c, m.Dst)
		if isInside(c.Split, src) == isInside(c.Split, dst) {
			continue
		}
		side := "inside"
		if isInside(c.Split, src) {
			side = "outside"
		}
		want[side+" "+m.Type] = append(want[side+" "+m.Type], key)
	}
	got := make(map[string][]string)
	for side, list := range res.Messages {
		for _, m := range list {
			got[side+" "+m.Protocol] = append(got[side+" "+m.Protocol], m.Key)
		}
	}
	var all []string
	for _, side := range []string{"outside", "inside"} {
		for _, protocol := range []string{"sip", "sccp", "tftp"} {
			k := side + " " + protocol
			if len(want[k])+len(got[k]) == 0 {
				continue
			}
			if extra := missing(want[k], got[k]); len(extra) > 0 {
				t.Errorf("%s: out of %s came messages that the capture does not have there, or in another order: %q", r.name, side, extra)
			}
			all = append(all, fmt.Sprintf("%s %d/%d", k, len(got[k]), len(want[k])))
		}
	}
	return strings.Join(all, ", ")
}

// missing returns what is left of got when it is taken out of want in order.
func missing(want, got []string) []string {
	for len(got) > 0 {
		i := slices.Index(want, got[0])
		if i < 0 {
			return got
		}
		want, got = want[i+1:], got[1:]
	}
	return nil
}

// renamed returns the address of an end in the truth, as c has it.
func renamed(c pcaps.Crossing, end string) netip.Addr {
	ap, err := netip.ParseAddrPort(end)
	if err != nil {
		return netip.Addr{}
	}
	if to, ok := c.Rename[ap]; ok {
		return to
	}
	if to, ok := c.Rename[netip.AddrPortFrom(ap.Addr(), 0)]; ok {
		return to
	}
	return ap.Addr()
}

// readTruth reads what TShark found in a capture; where it found nothing there
// is no such file.
func readTruth(t *testing.T, file string) []truthMessage {
	t.Helper()
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []truthMessage
	for line := range bytes.Lines(data) {
		var m truthMessage
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, m)
	}
	return all
}

// hidden checks that no packet outside has an inside address in its header.
func hidden(t *testing.T, capture []byte, split string) {
	t.Helper()
	r, err := link.NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(stack.MaxPacket)
	for n := 0; ; n++ {
		if _, err := r.Next(p); err != nil {
			return
		}
		p.Parse()
		if f := p.Flow(); f.Src.Addr().IsValid() && isInside(split, f.Src.Addr()) {
			t.Errorf("packet %d outside is from %v", n, f.Src)
			return
		}
	}
}
