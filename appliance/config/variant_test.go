package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

// A variant is the good configuration with one line changed. The word that is to
// be found stands in «»; with none the line as a whole is.
type variant struct {
	rule     string // "" for the language itself
	old, new string
	msg      string
}

// variants makes faulty configurations from tables: what is said wrongly, and
// which lines have a word of that kind.
func variants() []variant {
	var list []variant
	add := func(rule, msg, old string, words ...string) {
		for _, w := range words {
			if was, is, ok := strings.Cut(w, " → "); ok { // else w is the line
				w = strings.Replace(old, was, "«"+is+"»", 1)
			}
			list = append(list, variant{rule, old, " " + w, msg})
		}
	}

	// Keywords: misspelled, where the nearest is told.
	for old, words := range map[string][]string{
		"hostname pb":        {"hostname → hostnaem", "hostname → hotsname"},
		"nameif outside":     {"nameif → namief"},
		"security-level 100": {"security-level → securty-level"},
		"access-group outside_in in interface outside": {"access-group → acess-group", "interface → interfaec"},
		gw:                                       {"route → ruote"},
		"icmp deny any outside":                  {"deny → dney"},
		"mtu inside 1400":                        {"mtu → mut"},
		"logging timestamp":                      {"timestamp → tiemstamp"},
		"logging buffered informational":         {"buffered → bufferde"},
		"timeout pat-xlate 0:00:30":              {"pat-xlate → pat-xalte"},
		"enrollment self":                        {"enrollment → enrolment", "self → slef"},
		"fqdn none":                              {"fqdn → fqnd"},
		"keypair ucm_keys":                       {"keypair → kyepair"},
		"server trust-point _internal_PP_phones": {"trust-point → trustpont"},
		"sast 3":                                 {"sast → sats"},
		mtaIn:                                    {"interface → interfcae"},
		tftp:                                     {"address → adress"},
		"timeout secure-phones 0:10:00":          {"secure-phones → secure-phnoes"},
		"match port tcp eq 2443":                 {"match → mathc", "tcp → tpc"},
		"inspect skinny phone-proxy pp":          {"skinny → skiny"},
		"service-policy phones_policy interface outside": {"interface → interfaces"},
		ace:                                     {"permit → premit", "host → hots", "tcp → tpc"},
		srv:                                     {"trustpoint → trustpiont", "cucm-tftp → cumc-tftp", "address → addrss"},
		"rtp-min-port 20000 rtp-max-port 29999": {"rtp-max-port → rtp-maxport"},
	} {
		add("", "% Invalid input detected at '^' marker.", old, words...)
	}

	// Arguments that are none.
	for old, words := range map[string][]string{
		"ip address 203.0.113.2 255.255.255.0": {"203.0.113.2 → 203.0.113.256", "255.255.255.0 → 255.0.255.0", "255.255.255.0 → 24"},
		"host 10.20.0.11":                      {"10.20.0.11 → 10.20.0", "10.20.0.11 → 10.20.0.11/32"},
		gw:                                     {"203.0.113.1 → 203.0.113.x", "1 → 0#", "0.0.0.0 → 0.0.0.0.0"},
		"security-level 100":                   {"100 → -1", "100 → high"},
		"mtu inside 1400":                      {"1400 → 63", "1400 → 65536"},
		"timeout pat-xlate 0:00:30":            {"0:00:30 → 30", "0:00:30 → 0:0:60", "0:00:30 → 2000:00:00"},
		"timeout secure-phones 0:10:00":        {"0:10:00 → 10m"},
		ace:                                    {"2443 → 65536", "2443 → nosuchport"},
		"no logging message 302013":            {"302013 → 99999"},
		"match port tcp eq 2443":               {"2443 → x2443"},
		mtaEx:                                  {"203.0.113.20 → 203.0.113.300"},
		tftp:                                   {"10.20.0.11 → tftphost"},
		"logging buffered informational":       {"informational → chatty", "informational → 8"},
	} {
		for _, w := range words {
			if strings.HasSuffix(w, "#") {
				add("", "% Invalid input detected at '^' marker.", old, strings.TrimSuffix(old, "1")+"«0»")
				continue
			}
			add("", "% Invalid input detected at '^' marker.", old, w)
		}
	}

	// Lines that end too early, and lines that go on.
	for _, old := range []string{gw, ace, mtaIn, tftp, srv, "mtu inside 1400", "security-level 100", "sast 3", "match port tcp eq 2443",
		"timeout secure-phones 0:10:00", "server trust-point _internal_PP_phones", "keypair ucm_keys", "access-group outside_in in interface outside"} {
		short := old[:strings.LastIndexByte(old, ' ')]
		if old == gw {
			short = short[:strings.LastIndexByte(short, ' ')]
		}
		list = append(list, variant{"", old, " " + short + " «»", "% Incomplete command"})
		if old != srv {
			list = append(list, variant{"", old, " " + old + " «zzz»", "% Invalid input detected at '^' marker."})
		}
	}

	// Names of nothing (V04).
	for old, words := range map[string][]string{
		"access-group outside_in in interface outside": {"outside_in → outsidein", "outside_in → other"},
		gw:                          {"outside → outsde", "outside → dmz"},
		"mtu inside 1400":           {"inside → insid", "inside → dmz"},
		mtaIn:                       {"interface inside → interface «nside»"},
		tftp:                        {"interface inside → interface «dmz»"},
		"media-termination media#2": {"media → medium#"},
		"tls-proxy phones#2":        {"phones → fones"},
		"ctl-file phones#2":         {"phones → fones"},
		srv:                         {"trustpoint ucm → trustpoint «ucn»"},
		"service-policy phones_policy interface outside":                    {"interface outside → interface «outsid»"},
		"inspect sip phone-proxy pp":                                        {"pp → qq"},
		"access-list outside_in extended permit udp any object ucm eq tftp": {"object ucm → object «umc»", "object ucm → object-group «ucms»"},
	} {
		plain, _, _ := strings.Cut(old, "#")
		for _, w := range words {
			was, is, _ := strings.Cut(strings.TrimSuffix(w, "#"), " → ")
			if !strings.Contains(is, "«") {
				is = "«" + is + "»"
			}
			i := strings.Index(plain, was)
			if strings.HasSuffix(w, "#") {
				i = strings.LastIndex(plain, was)
			}
			list = append(list, variant{"V04", old, " " + plain[:i] + is + plain[i+len(was):], ""})
		}
	}

	// The phone proxy's numbers and addresses.
	for _, n := range []string{"0", "6", "7", "10", "999"} {
		list = append(list, variant{"V30", "sast 3", " sast «" + n + "»", "1 to 5"})
	}
	for _, n := range []string{"0", "65536", "70000", "tftpd", "-69"} {
		list = append(list, variant{"V23", tftp, " tftp-server address 10.20.0.11 «" + n + "» interface inside", "1 to 65535"})
	}
	for _, ports := range []string{"«1023» rtp-max-port 29999", "«0» rtp-max-port 29999", "«65536» rtp-max-port 65537", "20000 rtp-max-port «65536»",
		"20000 rtp-max-port «20000»", "29999 rtp-max-port «20000»", "«x» rtp-max-port 29999", "2000 rtp-max-port «1000»"} {
		list = append(list, variant{"V49", "rtp-min-port 20000 rtp-max-port 29999", " rtp-min-port " + ports, ""})
	}
	for _, a := range []string{"203.0.114.20", "198.51.100.20", "10.20.0.21", "192.0.2.1", "203.0.112.255"} {
		list = append(list, variant{"V44", mtaEx, " address «" + a + "» interface outside", "not in the subnet"})
	}
	for _, a := range []string{"203.0.113.20", "10.21.0.1", "198.51.100.7"} {
		list = append(list, variant{"V44", mtaIn, " address «" + a + "» interface inside", ""})
	}
	list = append(list,
		variant{"V45", mtaEx, " address «203.0.113.2» interface outside", "interface outside itself"},
		variant{"V45", mtaIn, " address «10.20.0.1» interface inside", "interface inside itself"},
		variant{"V47", mtaIn, " address «10.20.0.11» interface inside", "cucm-tftp"},
		variant{"V47", mtaEx, " address «203.0.113.10» interface outside", "cucm-tftp"},
		variant{"V40", mtaEx, " address «203.0.113.20»", "other style"},
		variant{"V41", mtaEx, " " + mtaEx + "\n address «203.0.113.22» interface outside", "the same interface"},
		variant{"V41", mtaIn, " " + mtaIn + "\n address «10.20.0.22» interface inside", "the same interface"},
		variant{"V50", "media-termination media#2", " «media-termination» address 203.0.113.20", "before 8.2(1)"},
		variant{"V01", "timeout secure-phones 0:10:00", " timeout secure-phones 0:10:00\nphone-proxy «q»", "one only"},
		variant{"V03", mtaEx, " " + mtaEx + "\nmedia-termination «n»", "one only"},
		variant{"V02", "ctl-file phones#2", " ctl-file phones\n ctl-file «others»", "has ctl-file phones already"},
		variant{"V03", "media-termination media#2", " media-termination media\n media-termination «others»", "has media-termination media already"},
		variant{"V20", tftp, strings.Repeat(" "+tftp+"\n", 5) + " «tftp-server» address 10.20.0.12 interface inside", "5 TFTP servers"},
		variant{"V21", tftp, " tftp-server address 10.20.0.11 interface «outside»", "not outside"},
		variant{"V22", tftp, " tftp-server address «203.0.113.10» interface inside", "10.20.0.11"},
		variant{"V34", "crypto ca enroll ucm noconfirm", "", "crypto ca enroll ucm"},
		variant{"V34", "enrollment self", "", "no enrollment line"},
		variant{"V37", srv, "", "no record-entry"},
		variant{"V63", nat, " " + nat + "\n «nat» (inside,outside) static 203.0.113.12", "has a nat line already"},
		variant{"V63", "nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\n «nat» (inside,outside) dynamic 203.0.113.9", "has a nat line already"},
	)
	for _, name := range []string{"disk0:/CTLFile.tlv", "flash:/CTLFile.tlv", "CTLFile.tlv"} {
		list = append(list, variant{"V35", "sast 3", " cluster-ctl-file «" + name + "»", "must not be called"})
	}
	for _, in := range []string{"skinny", "skinny phone-proxy pp"} {
		list = append(list, variant{"V10", "inspect skinny phone-proxy pp", "  inspect skinny phone-proxy pp\n  inspect «skinny»" + in[len("skinny"):], "cannot have two maps"})
	}
	list = append(list,
		variant{"V10", "inspect sip phone-proxy pp", "  inspect sip phone-proxy pp\n  inspect «sip»", "cannot have two maps"},
		variant{"V10", "inspect tftp", "  inspect tftp\n  inspect «tftp»", "cannot have two maps"},
		variant{"V10", "service-policy global_policy global", "service-policy global_policy global\nservice-policy «phones_policy» global", "on global already"},
		variant{"V10", "service-policy phones_policy interface outside", "service-policy phones_policy interface outside\nservice-policy «global_policy» interface outside", "on interface outside already"},
	)
	for _, part := range []string{"media-termination media#2", "tls-proxy phones#2", "ctl-file phones#2", tftp, "no shutdown#1", "server trust-point _internal_PP_phones"} {
		list = append(list, variant{"V05", part, "", "service-policy"})
	}
	return list
}

// TestVariants checks that each variant has an Error, or a Warning of its rule, in
// the very line and at the very word, and by the rule.
func TestVariants(t *testing.T) {
	lines := base(t)
	all := variants()
	rules := make(map[string]int)
	for _, v := range all {
		rules[v.rule]++
		text := apply(t, lines, []edit{{strings.TrimSuffix(v.old, "#1"), v.new}})
		line, col := 0, 0
		for i, l := range strings.Split(text, "\n") {
			if before, _, ok := strings.Cut(l, "«"); ok {
				line, col = i+1, len(before)+1
			}
		}
		text = strings.NewReplacer("«", "", "»", "").Replace(text)
		_, found := check(text)
		if !slices.ContainsFunc(found, func(f config.Finding) bool {
			return f.Severity == config.Error && f.Rule == v.rule && strings.Contains(f.Msg, v.msg) && (line == 0 || f.Line == line && f.Column == col)
		}) {
			t.Errorf("%q for %q: got %v\nwant an error of rule %q in line %d, column %d: %s", v.new, v.old, found, v.rule, line, col, v.msg)
		}
		for _, f := range found {
			if f.Severity == config.Error && f.Line < line && f.Rule == v.rule && v.rule == "" {
				t.Errorf("%q for %q: an error before the line: %v", v.new, v.old, f)
			}
		}
	}
	if n := len(all) + len(faults); n < 200 {
		t.Errorf("%d variants and faults, want 200 at least", n)
	}
	t.Log(fmt.Sprint(len(all), " variants by rule: ", rules))
}
