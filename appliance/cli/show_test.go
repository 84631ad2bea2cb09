package cli_test

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"
	"time"

	"patchbay/appliance/cli"
)

type shownWires struct {
	Wires cli.List[string] `json:"wires"`
	Up    cli.Seconds      `json:"up_seconds"`
}

func (s shownWires) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "%d wires, up %v\n", len(s.Wires), s.Up.Duration())
}

func TestShow(t *testing.T) {
	for _, tt := range []struct {
		s    shownWires
		json bool
		want string
	}{
		{shownWires{}, false, "0 wires, up 0s\n"},
		{shownWires{}, true, "{\n  \"wires\": [],\n  \"up_seconds\": 0\n}\n"},
		{shownWires{[]string{"<a>&b"}, cli.Seconds(1500 * time.Millisecond)}, true, "{\n  \"wires\": [\n    \"<a>&b\"\n  ],\n  \"up_seconds\": 1.5\n}\n"},
		{shownWires{[]string{"a"}, cli.Seconds(1e6 * time.Hour)}, true, "{\n  \"wires\": [\n    \"a\"\n  ],\n  \"up_seconds\": 3600000000\n}\n"},
	} {
		var b bytes.Buffer
		if err := cli.Show(&b, tt.s, tt.json); err != nil || b.String() != tt.want {
			t.Errorf("Show(%v, %v) = %q, %v; want %q", tt.s, tt.json, b.String(), err, tt.want)
		}
	}
}

func TestCutJSON(t *testing.T) {
	for line, want := range map[string]string{
		"show conn | json": "show conn ", " sh conn |JS ": " sh conn ", "SHOW conn|j": "SHOW conn",
		"show conn": "", "show conn | include json": "", "show conn | json x": "", "show conn |": "", "": "", "s conn | json": "",
		"clear conn | json": "", "di phone x | json": "di phone x ", "packet-t input x | json": "packet-t input x ", "disable | json": "", "show conn | json | json": "",
	} {
		command, ok := cli.CutJSON(line)
		if ok != (want != "") || ok && command != want || !ok && command != line {
			t.Errorf("CutJSON(%q) = %q, %v; want %q", line, command, ok, want)
		}
	}
}
