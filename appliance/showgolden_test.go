package appliance

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/stack"
)

// TestShowGolden compares whole documents with testdata/json: what is in them, how it
// is typed, and what it is called. (-update is a flag of showphones_test.go.)
func TestShowGolden(t *testing.T) {
	b := execBox(t)
	b.do("capture drops type asp-drop acl-drop")
	b.do("debug sip errors host 192.0.2.1")
	b.send("inside", udpPacket("10.20.0.50:5000", "192.0.2.5:53", 5), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:53", "203.0.113.2:5000", 6), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:4000", "203.0.113.10:69", 0), stack.DropACL)
	b.now = b.now.Add(65*time.Second + 250*time.Millisecond)
	b.send("outside", synPacket("198.51.100.7:4000", "203.0.113.10:5060"), stack.Forward)
	l := newTracedBox(t, baseConfig+"logging enable\nlogging timestamp\nlogging buffered debugging\nlogging host inside 10.20.0.5 tcp/1470\nlogging device-id string <edge>\n", nil)
	if l == nil {
		t.Fatal("the configuration is refused")
	}
	l.send("inside", udpPacket("10.20.0.50:5000", "203.0.113.9:53", 5), stack.Forward)
	golden(t, l, "logging", "show logging")
	for name, line := range map[string]string{
		"conn": "show conn", "local-host": "show local-host", "xlate": "show xlate", "nat": "show nat", "access-list": "show access-list",
		"asp-drop": "show asp drop", "interface": "show interface outside", "service-policy": "show service-policy", "capture": "show capture drops dump",
		"captures": "show capture", "debug": "show debug", "logging-message": "show logging message 106001", "fragment": "show fragment outside",
	} {
		golden(t, b, name, line)
	}
}

// golden compares what a command shows as JSON with a file of testdata/json.
func golden(t *testing.T, b *tracedBox, name, line string) {
	t.Helper()
	got := b.do(line + " | json")
	file := filepath.Join("testdata", "json", name+".json")
	if update := flag.Lookup("update"); update != nil && update.Value.String() == "true" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s | json, %s (-want +got):\n%s", line, file, diff)
	}
}
