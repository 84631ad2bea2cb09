package importer

import (
	"errors"
	"os"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

// imported is the import of a file of the corpus, and its report.
func imported(t *testing.T, name string, files ...string) (*Result, string) {
	t.Helper()
	data, err := os.ReadFile("../config/testdata/corpus/" + name + ".cfg")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Import(name+".cfg", data, files)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.Report(&b, "out.cfg"); err != nil {
		t.Fatal(err)
	}
	return r, b.String()
}

// TestReport checks that what a colleague must know of a configuration is told.
func TestReport(t *testing.T) {
	tests := []struct {
		name string
		want []string
		not  []string
	}{
		{"office-5505-82", []string{
			"NAT and access lists are of before 8.3 and stay as they are", "Interface outside has no address",
			"`no forward` (lines 25)", "| inside | 100 | 10.1.1.1/24 | Vlan1 | `--link inside=packet:eth0` |",
			"line 18: `interface Vlan2` is now `interface GigabitEthernet0/1`",
		}, []string{"`access-list extended` (lines"}},
		{"transparent-82", []string{"Transparent mode is not supported", "`access-list ethertype` (lines"}, nil},
		{"context-system-84", []string{"multiple mode"}, nil},
		{"failover-5510-82", []string{"one of a failover pair", "`failover key *****`", "--link dmz=packet:eth2", "--link voice=packet:eth2", "--link management=packet:eth3"}, nil},
		{"vpn-l2l-84", []string{"There is no VPN", "in the clear"}, nil},
		{"bgp-eigrp-94", []string{"no longer has a phone proxy"}, nil},
		{"sla-dual-isp-84", []string{"is now `route isp1 0.0.0.0 0.0.0.0 203.0.113.225 1`"}, nil},
		{"botnet-threat-84", []string{"`dynamic-filter drop`", "`threat-detection scanning-threat`", "`ip audit`", "`shun`"}, nil},
		{"lab-minimal-91", []string{"`interface GigabitEthernet0` is now `interface GigabitEthernet0/0`"}, []string{"## Left out"}},
		{"migrated-83", nil, []string{"is of before 8.3", "Transparent", "no longer has"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := imported(t, tt.name)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("the report does not say %q:\n%s", want, got)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(got, not) {
					t.Errorf("the report says %q:\n%s", not, got)
				}
			}
		})
	}
}

// TestSecrets checks that each private key of a phone proxy is asked for, and
// found by its name.
func TestSecrets(t *testing.T) {
	r, text := imported(t, "phone-proxy-wizard-82", "k/_internal_PP_ctl_phoneproxy.p12", "k/CUCM-Trustpoint.pfx", "k/cucm_trustpoint.cer", "k/notes.txt")
	want := map[string]string{
		"_internal_PP_ctl_phoneproxy":        "k/_internal_PP_ctl_phoneproxy.p12",
		"_internal_PP_ctl_phoneproxy_SAST_0": "",
		"_internal_PP_ctl_phoneproxy_SAST_1": "",
		"cucm_trustpoint":                    "k/CUCM-Trustpoint.pfx",
	}
	for _, s := range r.Secrets {
		file, ok := want[s.Trustpoint]
		if !ok || s.File != file {
			t.Errorf("%s: file %q, want %q (wanted at all: %v)", s.Trustpoint, s.File, file, ok)
		}
		delete(want, s.Trustpoint)
	}
	if len(want) > 0 {
		t.Errorf("not asked for: %v", want)
	}
	for _, say := range []string{"`crypto ca export cucm_trustpoint pkcs12 PASSPHRASE`", "| cucm_trustpoint | cucm_kp |",
		"patchbay pki import --flash DIR cucm_trustpoint k/CUCM-Trustpoint.pfx", "until it is deleted on each of them"} {
		if !strings.Contains(text, say) {
			t.Errorf("the report does not say %q:\n%s", say, text)
		}
	}
	if strings.Contains(text, "capf_trustpoint pkcs12") {
		t.Error("the key of a CA is asked for")
	}
}

// TestNothing checks that what is no configuration is said to be none.
func TestNothing(t *testing.T) {
	for _, text := range []string{"", "\n\n", "<html><body>404</body></html>\n", "\x00\x01\x02", ": Saved\n: end\n"} {
		if _, err := Import("x", []byte(text), nil); !errors.Is(err, ErrNothing) {
			t.Errorf("%q: %v, want %v", text, err, ErrNothing)
		}
	}
}

// TestMarkdown checks that no line of the file can break out of the report.
func TestMarkdown(t *testing.T) {
	r, err := Import("x", []byte("hostname x\nfrob`nicate|x\nusername a`b|c password *****\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := r.Report(&b, ""); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "b|c") || strings.Contains(b.String(), "a`b") || strings.Contains(b.String(), "nicate|x") {
		t.Errorf("not escaped:\n%s", b.String())
	}
}

func TestHead(t *testing.T) {
	for text, want := range map[string]string{
		" crypto ca trustpoint x": "crypto ca trustpoint", "no snmp-server location": "no snmp-server location", "ssh 10.1.1.0 255.255.255.0 inside": "ssh",
		"access-list x permit ip any any": "access-list extended", "access-list x ethertype deny any": "access-list ethertype",
		"Cryptochecksum:ab": "cryptochecksum", "": "", "no": "no", "    308201fa 30820163": "certificate", "inspect sip": "inspect sip",
	} {
		if got := head(text); got != want {
			t.Errorf("head(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestCounts checks that each line has one fate.
func TestCounts(t *testing.T) {
	r, _ := imported(t, "mpf-engines-84")
	n := r.Count(config.Comment) + r.Count(config.Obeyed) + r.Count(config.Inert) + r.Count(config.Refused)
	if n != len(r.Source.Lines) {
		t.Errorf("%d lines have a fate, of %d", n, len(r.Source.Lines))
	}
	sum := 0
	for _, g := range r.Groups(config.Refused) {
		sum += len(g.Lines) + g.Below
	}
	if sum != r.Count(config.Refused) {
		t.Errorf("groups hold %d lines, want %d", sum, r.Count(config.Refused))
	}
}
