package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/stack"
	"patchbay/stack/link"
)

const replayConfig = `interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
object network inside-net
 subnet 10.20.0.0 255.255.255.0
 nat (inside,outside) dynamic interface
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
`

// writeCapture writes packets, each a tenth of a second after the one before.
func writeCapture(t *testing.T, file string, first time.Time, flows ...stack.Flow) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := link.NewPCAPNG(f)
	w.AddInterface("x")
	p := stack.NewPacket(1500)
	for i, fl := range flows {
		p.SetData(stack.AppendUDP(nil, fl, []byte("payload")))
		p.Time = first.Add(time.Duration(i) * 100 * time.Millisecond)
		w.Packet(0, link.In, p, "")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// runReplay runs the command, and returns the files it wrote and what it said.
func runReplay(t *testing.T, args ...string) (map[string]string, string, error) {
	t.Helper()
	out := t.TempDir()
	c := root()
	var said bytes.Buffer
	c.SetOut(&said)
	c.SetErr(&said)
	c.SetArgs(append([]string{"replay", "--out", out}, args...))
	err := c.Execute()
	files := make(map[string]string)
	names, _ := filepath.Glob(filepath.Join(out, "*"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = string(b)
	}
	return files, said.String(), err
}

func TestReplayCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("box.cfg"), []byte(replayConfig), 0o644); err != nil {
		t.Fatal(err)
	}
	flow := func(src, dst string) stack.Flow {
		return stack.Flow{Proto: stack.UDP, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
	}
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	ask := flow("10.20.0.50:5000", "192.0.2.5:53")
	writeCapture(t, file("inside.pcapng"), begin, ask, ask)
	writeCapture(t, file("outside.pcapng"), begin.Add(50*time.Millisecond), flow("192.0.2.5:53", "203.0.113.2:5000"))
	writeCapture(t, file("both.pcapng"), begin, ask, ask.Reverse())

	two := []string{"--config", file("box.cfg"), "--in", "inside=" + file("inside.pcapng"), "--in", "outside=" + file("outside.pcapng")}
	got, said, err := runReplay(t, two...)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	want := `in  00:00:00.000000 inside udp 10.20.0.50:5000 > 192.0.2.5:53 len 7
out 00:00:00.000000 inside>outside udp 203.0.113.2:5000 > 192.0.2.5:53 len 7 ttl 63
in  00:00:00.050000 outside udp 192.0.2.5:53 > 203.0.113.2:5000 len 7
out 00:00:00.050000 outside>inside udp 192.0.2.5:53 > 10.20.0.50:5000 len 7 ttl 63
in  00:00:00.100000 inside udp 10.20.0.50:5000 > 192.0.2.5:53 len 7
out 00:00:00.100000 inside>outside udp 203.0.113.2:5000 > 192.0.2.5:53 len 7 ttl 63
`
	if got["packets.txt"] != want {
		t.Errorf("packets.txt:\n%s\nwant:\n%s", got["packets.txt"], want)
	}
	if !strings.Contains(got["conn.txt"], "1 in use") || !strings.Contains(said, "3 packets in, 3 out, 0 dropped") {
		t.Errorf("conn.txt:\n%s\nsaid: %s", got["conn.txt"], said)
	}
	again, _, err := runReplay(t, two...)
	if err != nil || len(again) != len(got) {
		t.Fatalf("again: %v", err)
	}
	for name := range got {
		if got[name] != again[name] {
			t.Errorf("%s came out differently", name)
		}
	}
	packets := 0
	r, err := link.NewReader(strings.NewReader(got["outside.pcapng"]))
	for p := stack.NewPacket(1500); err == nil; packets++ {
		_, err = r.Next(p)
	}
	if packets--; packets != 3 {
		t.Errorf("outside.pcapng has %d packets, want 3: %v", packets, err)
	}

	got, said, err = runReplay(t, "--config", file("box.cfg"), "--in", "outside="+file("both.pcapng"), "--split", "inside=10.0.0.0/8", "--show", "conn,conn detail | json")
	if err != nil {
		t.Fatalf("split: %v\n%s", err, said)
	}
	if !strings.Contains(got["packets.txt"], "in  00:00:00.100000 outside udp 192.0.2.5:53 > 203.0.113.2:5000 len 7\nout") {
		t.Errorf("the answer was not addressed to the translation:\n%s", got["packets.txt"])
	}
	if doc := got["conn-detail.json"]; !json.Valid([]byte(doc)) || !strings.Contains(doc, `"connections": [`) {
		t.Errorf("conn-detail.json:\n%s", doc)
	}
	if _, ok := got["asp-drop.txt"]; ok {
		t.Error("asp-drop.txt was not asked for")
	}

	for name, args := range map[string][]string{
		"no interface":     {"--config", file("box.cfg"), "--in", "dmz=" + file("both.pcapng")},
		"no capture":       {"--config", file("box.cfg"), "--in", "outside=" + file("nothing")},
		"not a capture":    {"--config", file("box.cfg"), "--in", "outside=" + file("box.cfg")},
		"no name":          {"--config", file("box.cfg"), "--in", file("both.pcapng")},
		"bad split":        {"--config", file("box.cfg"), "--in", "outside=" + file("both.pcapng"), "--split", "inside"},
		"split to nowhere": {"--config", file("box.cfg"), "--in", "outside=" + file("both.pcapng"), "--split", "dmz=10.0.0.0/8"},
		"bad show":         {"--config", file("box.cfg"), "--in", "outside=" + file("both.pcapng"), "--show", "tech"},
	} {
		if _, _, err := runReplay(t, args...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
