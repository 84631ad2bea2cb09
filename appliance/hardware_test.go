package appliance

import (
	"strings"
	"testing"

	"patchbay/appliance/config"
	"patchbay/stack"
	"patchbay/stack/link"
)

// TestHardware shows what the box has links for before it is configured, and that
// what is shut down takes its parts with it.
func TestHardware(t *testing.T) {
	const text = `hostname pb
interface GigabitEthernet0/1
 nameif inside
 ip address 10.20.0.1 255.255.255.0
interface GigabitEthernet0/3
 shutdown
interface GigabitEthernet0/3.7
 vlan 7
 nameif voice
 ip address 10.30.0.1 255.255.255.0
`
	r, found := config.Check("pb.cfg", strings.NewReader(text))
	if config.Errors(found) > 0 {
		t.Fatal(found)
	}
	var opened []string
	a, err := New(r, Options{
		Open: func(i *config.Interface) (stack.Link, error) {
			opened = append(opened, i.Hardware)
			l, _ := link.Pair(1500)
			return l, nil
		},
		Hardware: []string{"outside", "gi0/0", "GigabitEthernet0/10", "GigabitEthernet0/1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if len(opened) != 1 || opened[0] != "GigabitEthernet0/1" {
		t.Errorf("links were opened for %q, want the one that is up", opened)
	}
	for _, tt := range []struct{ line, want string }{
		{"show interface ip brief", `Interface                  IP-Address      OK? Method Status                Protocol
GigabitEthernet0/0         unassigned      YES unset  administratively down down
GigabitEthernet0/1         10.20.0.1       YES CONFIG up                    up
GigabitEthernet0/3         unassigned      YES unset  administratively down down
GigabitEthernet0/3.7       10.30.0.1       YES CONFIG down                  down
GigabitEthernet0/10        unassigned      YES unset  administratively down down
`},
		{"show interface", "Interface GigabitEthernet0/10 \"\", is administratively down, line protocol is down\n"},
		{"show interface", "Interface GigabitEthernet0/3.7 \"voice\", is down, line protocol is down\n"},
	} {
		var out strings.Builder
		if err := a.Exec(&out, tt.line); err != nil || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s (%v):\n%s\nwant\n%s", tt.line, err, &out, tt.want)
		}
	}
}
