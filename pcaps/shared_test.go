package pcaps_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

const (
	// sharedDir holds the configuration and the table for captures that are
	// not ours and stay where they are.
	sharedDir   = "shared"
	sharedTable = "shared/captures.txt"
	capturesDir = "../../shared/pcaps"
)

const tableHead = `# Captures of other people's networks, which are no part of this repository: what
# comes of each when the box stands between the inside that is named and the rest.
#
# capture: split; packets in, out, dropped, made up, local, not IP, truncated; drops by name; connections at the end
`

// The captures that are not ours, where they are present: counts as in the
// table, and nothing from inside leaves under its own address.
func TestShared(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(capturesDir, "*.pcap"))
	if len(files) == 0 {
		t.Skip("no captures in " + capturesDir)
	}
	want := make(map[string]string)
	table, err := os.ReadFile(sharedTable)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for sc := bufio.NewScanner(bytes.NewReader(table)); sc.Scan(); {
		if name, rest, ok := strings.Cut(sc.Text(), ": "); ok && !strings.HasPrefix(name, "#") {
			want[name] = rest
		}
	}
	config, err := os.ReadFile(filepath.Join(sharedDir, pcaps.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	out := tableHead
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".pcap")
		t.Run(name, func(t *testing.T) {
			inside, _, _ := strings.Cut(want[name], ";")
			if inside == "" {
				inside = "inside=" + firstClient(t, file).String() + "/32"
			}
			res, err := pcaps.RunCapture(append(routeTo(inside), config...), t.TempDir(), "outside", file, inside)
			if err != nil {
				t.Fatal(err)
			}
			c := res.Count
			var drops []string
			for v, n := range res.Drops {
				drops = append(drops, fmt.Sprintf("%v %d", v, n))
			}
			slices.Sort(drops)
			conns, _, _ := strings.Cut(strings.TrimPrefix(string(res.Show), "-- show conn detail\n"), " ")
			got := fmt.Sprintf("%s; in %d out %d dropped %d made-up %d local %d not-ip %d truncated %d; %s; conns %s",
				inside, c.In, c.Out, c.Dropped, c.PickedUp, c.Local, c.NotIP, c.Truncated, strings.Join(drops, ", "), conns)
			out += name + ": " + got + "\n"
			if !*update && got != want[name] {
				t.Errorf("%s\n got %s\nwant %s", name, got, want[name])
			}
			hidden(t, res.Captures["outside"], inside)
		})
	}
	if *update {
		if err := os.WriteFile(sharedTable, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// routeTo returns the route to the inside of a split.
func routeTo(split string) []byte {
	_, text, _ := strings.Cut(split, "=")
	p := netip.MustParsePrefix(text)
	if p.Addr().IsLoopback() {
		return nil
	}
	mask := net.IP(net.CIDRMask(p.Bits(), 32))
	return fmt.Appendf(nil, "route inside %v %v 10.20.0.2 1\n", p.Addr(), mask)
}

// firstClient returns who is taken for the inside of a capture that the table
// does not have yet: of the first two hosts the one with the higher port, or
// else the first to speak.
func firstClient(t *testing.T, file string) netip.Addr {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := link.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(stack.MaxPacket)
	for {
		if _, err := r.Next(p); err != nil {
			return netip.AddrFrom4([4]byte{10, 0, 0, 0})
		}
		p.ChecksumVouched = true
		v := p.Parse()
		switch f := p.Flow(); {
		case v == stack.Forward && f.Src.Port() < f.Dst.Port():
			return f.Dst.Addr()
		case f.Src.Addr().Is4():
			return f.Src.Addr()
		}
	}
}

// hidden checks that no packet outside has an inside address in its header.
func hidden(t *testing.T, capture []byte, split string) {
	t.Helper()
	_, text, _ := strings.Cut(split, "=")
	inside := netip.MustParsePrefix(text)
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
		if f := p.Flow(); f.Src.Addr().IsValid() && inside.Contains(f.Src.Addr()) {
			t.Errorf("packet %d outside is from %v", n, f.Src)
			return
		}
	}
}

// BenchmarkReplay carries a capture of 4,096 packets of one connection through
// the box, with text and captures made.
func BenchmarkReplay(b *testing.B) {
	config, err := os.ReadFile(filepath.Join(sharedDir, pcaps.ConfigFile))
	if err != nil {
		b.Fatal(err)
	}
	const packets = 4096
	var buf bytes.Buffer
	w := link.NewPCAPNG(&buf)
	w.AddInterface("x")
	p := stack.NewPacket(2048)
	p.SetData(stack.AppendUDP(nil, stack.Flow{
		Src: netip.MustParseAddrPort("10.20.0.50:5000"), Dst: netip.MustParseAddrPort("192.0.2.5:5000"),
	}, make([]byte, 172)))
	for i := range packets {
		p.Time = pcaps.Begin.Add(time.Duration(i) * time.Millisecond)
		w.Packet(0, link.In, p, "")
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "capture.pcapng")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	flash := b.TempDir()
	b.ResetTimer()
	for range b.N {
		res, err := pcaps.RunCapture(config, flash, "outside", file, "inside=10.20.0.0/24")
		if err != nil || res.Count.Out != packets {
			b.Fatalf("%+v, %v", res, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packets), "ns/packet")
}
