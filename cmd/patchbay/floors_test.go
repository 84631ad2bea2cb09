package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// floors is the table in docs/ARCHITECTURE.md: a package may import only from
// floors below its own.
var floors = map[string]int{
	"cmd/patchbay": 8, "pcaps": 8,
	"appliance/console": 7, "appliance/replay": 7, "appliance/lab": 7, "appliance/lab/rig": 7, "image": 7, "image/guest": 7,
	"appliance": 6, "appliance/lab/topology": 6,
	"appliance/phoneproxy": 5,
	"inspect/sip":          4,
	"inspect/sdp":          3, "inspect/skinny": 3, "inspect/tftp": 3,
	"appliance/tlsproxy": 3, "appliance/media": 3,
	"appliance/importer": 3,
	"inspect":            2, "appliance/config": 2, "appliance/ctl": 2,
	"nat": 1, "stack/link": 1, "stack/host": 1,
	"stack": 0, "image/disk": 0, "appliance/lab/node": 0, "appliance/cli": 0, "appliance/dns": 0, "appliance/license": 0, "appliance/logging": 0, "appliance/pki": 0,
}

// kept says where a library may be imported, and nowhere else.
var kept = []struct {
	library string
	only    []string
}{
	{"gvisor.dev/gvisor", []string{"stack/host"}},
	{"golang.zx2c4.com/wireguard", []string{"stack/link"}},
	{"github.com/google/gopacket", []string{"stack/link"}},
	{"golang.org/x/sys", []string{"stack/link", "image/guest", "appliance/lab", "appliance/lab/rig"}},
	{"github.com/cilium/ebpf", []string{"stack/link"}},
	{"github.com/pion/srtp", []string{"appliance/lab"}},
	{"github.com/vishvananda", []string{"stack/link", "appliance/lab", "appliance/lab/rig", "image/guest"}},
	{"software.sslmate.com/src/go-pkcs12", []string{"appliance/pki"}},
	{"github.com/smallstep", []string{"appliance/pki"}},
	{"github.com/micromdm", nil}, // in tests alone
	{"github.com/spf13/cobra", []string{"cmd/patchbay"}},
	{"golang.org/x/net/dns", []string{"appliance/dns"}},
	{"golang.org/x/crypto/ssh", []string{"appliance/console"}},
}

// strangers are packages that must not know each other: a test's peers prove
// nothing about an engine whose code they share.
var strangers = map[string][]string{
	"appliance/lab": {
		"inspect", "inspect/sdp", "inspect/sip", "inspect/skinny", "inspect/tftp",
		"appliance/ctl", "appliance/media", "appliance/phoneproxy", "appliance/tlsproxy", "appliance/pki",
	},
}

func TestFloors(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "patchbay/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		from := strings.TrimPrefix(p.ImportPath, "patchbay/")
		floor, ok := floors[from]
		if !ok {
			t.Errorf("%s stands on no floor: enter it here and in docs/ARCHITECTURE.md", from)
			continue
		}
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, "patchbay/"); ours {
				if floors[to] >= floor {
					t.Errorf("%s (floor %d) imports %s (floor %d)", from, floor, to, floors[to])
				}
				for _, s := range strangers[from] {
					if to == s {
						t.Errorf("%s imports %s, which it is there to test", from, to)
					}
				}
			}
			for _, k := range kept {
				if strings.HasPrefix(imp, k.library) && !contains(k.only, from) {
					t.Errorf("%s imports %s, which is kept in %v", from, imp, k.only)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("go list named %d packages only", seen)
	}
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}
