package pcaps_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

var update = flag.Bool("update", false, "take what comes as wanted; read the difference before committing it")

// A case has these files and no others but its captures.
func cases(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("*", pcaps.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, f := range files {
		if dir := filepath.Dir(f); dir != sharedDir {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Every case gives the wanted text, and the same bytes each time.
func TestReplay(t *testing.T) {
	dirs := cases(t)
	if len(dirs) < 60 {
		t.Errorf("%d cases only", len(dirs))
	}
	for _, dir := range dirs {
		t.Run(dir, func(t *testing.T) {
			res, err := pcaps.Run(dir, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, pcaps.WantFile), res.Dump)
			golden(t, filepath.Join(dir, pcaps.ShowFile), res.Show)
			notes, err := os.ReadFile(filepath.Join(dir, "notes.md"))
			if err != nil || len(bytes.TrimSpace(notes)) == 0 {
				t.Errorf("no notes.md says what the case shows: %v", err)
			}
			again, err := pcaps.Run(dir, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(res.Dump, again.Dump) || !bytes.Equal(res.Show, again.Show) {
				t.Error("the second run gave other text")
			}
			for name, b := range res.Captures {
				if !bytes.Equal(b, again.Captures[name]) {
					t.Errorf("the second run gave other bytes on %s", name)
				}
			}
		})
	}
}

// A list gives the same as captures with the same packets, a file for each
// interface.
func TestRunCaptures(t *testing.T) {
	const from = "pat-interface"
	config, err := os.ReadFile(filepath.Join(from, pcaps.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.Open(filepath.Join(from, pcaps.StepsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	steps, err := pcaps.ParseSteps(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pcaps.ConfigFile), config, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := pcaps.Run(dir, t.TempDir()); err == nil {
		t.Error("a case without packets: no error")
	}
	for _, name := range []string{"inside", "outside"} {
		var buf bytes.Buffer
		w := link.NewPCAPNG(&buf)
		w.AddInterface(name)
		p := stack.NewPacket(1500)
		for _, s := range steps {
			for _, b := range s.Packets {
				if p.SetData(b); s.In == name {
					p.Time = pcaps.Begin.Add(s.At)
					w.Packet(0, link.In, p, "")
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "in."+name+".pcapng"), buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	res, err := pcaps.Run(dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(from, pcaps.WantFile))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(res.Dump)); d != "" {
		t.Errorf("captures came out other than the list (-want +got):\n%s", d)
	}
}

// golden compares got with a file by line.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(string(want), string(got)); d != "" {
		t.Errorf("%s: - is wanted, + is what came:\n%s", file, d)
	}
}

// unreached are the drops that no case can show by its packets alone, and why.
var unreached = map[string]string{
	"unspecified":                          "a path that forgot to decide",
	"interface-down":                       "a link that failed",
	"inspect-srtp-validate-authtag-failed": "media of the phone proxy, which its signaling opens",
	"inspect-srtp-replay":                  "media of the phone proxy",
	"inspect-srtp-no-media-session":        "media of the phone proxy",
	"media-source":                         "media of the phone proxy",
	"loopback-count-exceeded":              "media of the phone proxy",
	"syslog-host-down":                     "a syslog host that a replay cannot reach",
	"conn-limit":                           "a million connections",
	"host-limit":                           "the configuration sets none by default",
}

// Between them the cases show every drop that packets can cause.
func TestDropsCovered(t *testing.T) {
	seen := make(map[stack.Verdict]string)
	for _, dir := range cases(t) {
		res, err := pcaps.Run(dir, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for v := range res.Drops {
			seen[v] = dir
		}
	}
	for v := stack.Verdict(0); v.String() != "unknown"; v++ {
		if !v.Dropped() || seen[v] != "" {
			continue
		}
		if why, ok := unreached[v.String()]; ok {
			t.Logf("no case shows %v: %s", v, why)
			continue
		}
		t.Errorf("no case shows the drop %v", v)
	}
}

func TestParseSteps(t *testing.T) {
	good := `
# a comment
0 inside udp 10.20.0.50:5000 > 192.0.2.5:53 "que\x00ry # not a comment" # one
0.5 inside tcp 10.20.0.50:4000 > 192.0.2.5:80 SA seq 1 ack 2 win 100 mss 1460 ttl 3 df
1 inside icmp 10.20.0.50 > 192.0.2.5 echo id 7 seq 2 zero 10 badsum
1 inside udp 10.20.0.50:1 > 192.0.2.5:2 zero 40 id 9 cut 24 order 2,1
2 inside udp 10.20.0.50:1 > 192.0.2.5:2 ports 2 every 0.25
3 tick
3 show conn detail # of all
`
	steps, err := pcaps.ParseSteps(strings.NewReader(good), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range steps {
		line := s.In + s.Exec
		for _, b := range s.Packets {
			p := stack.NewPacket(len(b))
			p.SetData(b)
			p.Time = pcaps.Begin.Add(s.At)
			line += " " + p.Parse().String() + " " + p.String()
		}
		got = append(got, line)
	}
	want := []string{
		"inside forward 00:00:00.000000 none udp 10.20.0.50:5000 > 192.0.2.5:53 len 22",
		"inside forward 00:00:00.500000 none tcp 10.20.0.50:4000 > 192.0.2.5:80 SA seq 1 ack 2 win 100 len 0",
		"inside bad-checksum 00:00:01.000000 none icmp 10.20.0.50 > 192.0.2.5 unparsed len 18",
		"inside fragment-reassembly-failed 00:00:01.000000 none udp 10.20.0.50 > 192.0.2.5 frag 9@24 len 24" +
			" fragment-reassembly-failed 00:00:01.000000 none udp 10.20.0.50 > 192.0.2.5 frag 9@0+ len 24",
		"inside forward 00:00:02.000000 none udp 10.20.0.50:1 > 192.0.2.5:2 len 0",
		"inside forward 00:00:02.250000 none udp 10.20.0.50:2 > 192.0.2.5:2 len 0",
		"", "show conn detail",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, bad := range []string{
		"x inside udp 10.20.0.50:1 > 192.0.2.5:2", "-1 tick", "1e99 tick", "NaN tick", "1 tick tock", "1",
		"1 inside", "1 inside udp 10.20.0.50 > 192.0.2.5:2", "1 inside udp 10.20.0.50:1 < 192.0.2.5:2",
		"1 inside udp [::1]:1 > 192.0.2.5:2", "1 inside udp 10.20.0.50:1 > 192.0.2.5:2 sideways",
		`1 inside udp 10.20.0.50:1 > 192.0.2.5:2 "open`, "1 inside udp 10.20.0.50:1 > 192.0.2.5:2 hex:0",
		"1 inside udp 10.20.0.50:1 > 192.0.2.5:2 cut 7", "1 inside udp 10.20.0.50:1 > 192.0.2.5:2 cut 8 order 9",
		"1 inside udp 10.20.0.50:1 > 192.0.2.5:2 repeat 0 every 1", "1 inside tcp 10.20.0.50:1 > 192.0.2.5:2 X",
		"1 inside icmp 10.20.0.50 > 192.0.2.5 ping", "1 inside icmp 10.20.0.50 > 192.0.2.5 type 3 code 1 about sctp",
		"1 inside proto 256 10.20.0.50 > 192.0.2.5", "1 inside raw zz", "2 tick\n1 tick",
	} {
		if s, err := pcaps.ParseSteps(strings.NewReader(bad), nil); err == nil {
			t.Errorf("%q: no error, %d steps", bad, len(s))
		}
	}
}

// FuzzParseSteps: a list is refused or makes packets, and nothing else.
func FuzzParseSteps(f *testing.F) {
	for _, s := range []string{
		`0 a udp 1.1.1.1:1 > 2.2.2.2:2 "x" cut 8 order 1 badsum option`, "0 a raw 45", "1 show conn",
		"0 a icmp 1.1.1.1 > 2.2.2.2 type 3 code 4 mtu 9 about icmp 1.1.1.1 > 2.2.2.2 id 4",
		"0 a tcp 1.1.1.1:1 > 2.2.2.2:2 S mss 5 length 4", "0 a proto 47 1.1.1.1 > 2.2.2.2 zero 9 ttl 0",
		"0 host a i udp 1.1.1.1:1\n0 a INVITE > b@2.2.2.2 sdp 1 rtcp 2 line \"a\" c 1.1.1.1 with \"b: c\" less d tag e cut 8",
		"0 host a i sccp 1.1.1.1:1 v4\n0 a sccp X a=b cut 1 at 2,3 order 1 overlap 1 cuts first 1 join on 1 quiet\n0 a send hex:00 repeat 1 every 1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "repeat") || strings.Contains(s, "ports") {
			return // as many as it says
		}
		steps, err := pcaps.ParseSteps(strings.NewReader(s), nil)
		if err != nil {
			return
		}
		p := stack.NewPacket(stack.MaxPacket)
		for _, st := range steps {
			for _, b := range st.Packets {
				if p.SetData(b) {
					p.Parse()
				}
			}
		}
	})
}
