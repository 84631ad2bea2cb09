package pcaps_test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

// BenchmarkReplay carries a capture of 4,096 packets of one connection through
// the box, with text and captures made.
func BenchmarkReplay(b *testing.B) {
	r := row{name: "bench", how: "pat inside=10.20.0.0/24"}
	config, c := r.crossing(b)
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
	c.Capture = filepath.Join(b.TempDir(), "capture.pcapng")
	if err := os.WriteFile(c.Capture, buf.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	flash := b.TempDir()
	b.ResetTimer()
	for range b.N {
		res, err := pcaps.RunCapture(config, flash, c)
		if err != nil || res.Count.Out != packets {
			b.Fatalf("%+v, %v", res, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*packets), "ns/packet")
}
