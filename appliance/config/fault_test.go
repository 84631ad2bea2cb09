package config_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

// An edit replaces one line of testdata/nonsecure.cfg, known by its text
// without indentation, by new, which may be several lines or, as "", none.
type edit struct{ old, new string }

func base(t testing.TB) []string {
	data, err := os.ReadFile("testdata/nonsecure.cfg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// apply returns lines with the edits made. An old text that stands more than
// once is followed by "#2" and so on, for the second.
func apply(t testing.TB, lines []string, edits []edit) string {
	t.Helper()
	lines = append([]string(nil), lines...)
	for _, e := range edits {
		old, nth, _ := strings.Cut(e.old, "#")
		want, found := 1, 0
		if nth != "" {
			want = int(nth[0] - '0')
		}
		done := false
		for i, l := range lines {
			if strings.TrimSpace(l) != old {
				continue
			}
			if found++; found != want {
				continue
			}
			if e.new == "" {
				lines[i] = "!"
			} else {
				lines[i] = e.new
			}
			done = true
		}
		if !done || nth == "" && found != 1 {
			t.Fatalf("edit of %q: found %d times", e.old, found)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func check(text string) (*config.Running, []config.Finding) {
	return config.Check("pb.cfg", strings.NewReader(text))
}

const (
	srv   = "record-entry cucm-tftp trustpoint ucm address 203.0.113.10"
	tftp  = "tftp-server address 10.20.0.11 interface inside"
	mtaIn = "address 10.20.0.20 interface inside"
	mtaEx = "address 203.0.113.20 interface outside"
	nat   = "nat (inside,outside) static 203.0.113.10 no-proxy-arp"
	gw    = "route outside 0.0.0.0 0.0.0.0 203.0.113.1 1"
	ace   = "access-list outside_in extended permit tcp any host 10.20.0.11 eq 2443"
	gname = "hostname pb"
)

// faults are configurations with one fault each, and the one finding it makes.
var faults = []struct {
	name  string
	edits []edit
	line  int
	col   int // 0 is not compared
	sev   config.Severity
	rule  string
	msg   string // part of the message
}{
	// What a line says.
	{"unknown command", []edit{{gname, "hostnmae pb"}}, 5, 1, config.Error, "", "hostnmae is not a command; the nearest known is hostname"},
	{"unknown command, nothing like it", []edit{{gname, "xyzzy pb"}}, 5, 1, config.Error, "", "xyzzy is not a known command"},
	{"incomplete", []edit{{gw, "route outside 0.0.0.0 0.0.0.0"}}, 68, 31, config.Error, "", "% Incomplete command: what is missing: <gateway>"},
	{"ambiguous", []edit{{gw, "route outside 0.0.0.0 0.0.0.0 203.0.113.1\nl enable"}}, 69, 1, config.Error, "", `% Ambiguous command:  "l"`},
	{"too much", []edit{{gw, gw + " 2"}}, 68, 45, config.Error, "", "% Invalid input detected at '^' marker. 2 cannot stand here"},
	{"mask with holes", []edit{{"ip address 203.0.113.2 255.255.255.0", " ip address 203.0.113.2 255.255.0.255"}}, 15, 25, config.Error, "", "ones are not all to the left"},
	{"wildcard for a mask", []edit{{"subnet 10.20.0.0 255.255.255.0", " subnet 10.20.0.0 0.0.0.255"}}, 39, 19, config.Error, "", "a wildcard; write 255.255.255.0"},
	{"address and mask", []edit{{"subnet 10.20.0.0 255.255.255.0", " subnet 10.20.0.7 255.255.255.0"}}, 39, 9, config.Error, "", "doesn't pair"},
	{"address", []edit{{"host 10.20.0.11", " host 10.20.0.300"}}, 37, 7, config.Error, "", "10.20.0.300 is not an IPv4 address"},
	{"label that is none", []edit{{"name-server resolver", " name-server resolvr"}}, 33, 14, config.Error, "", "neither an IPv4 address nor a label"},
	{"network address for an interface", []edit{{"ip address 203.0.113.2 255.255.255.0", " ip address 203.0.113.0 255.255.255.0"}}, 15, 13, config.Error, "", "address of the network"},
	{"security level", []edit{{"security-level 100", " security-level 101"}}, 19, 17, config.Error, "", "101 is not in the range 0-100"},
	{"port name", []edit{{ace, strings.Replace(ace, "2443", "tftpp", 1)}}, 43, 67, config.Error, "", "tftpp is no port; is it tftp?"},
	{"port number", []edit{{"match port tcp eq 2443", " match port tcp eq 65536"}}, 146, 20, config.Error, "", "65536 is no port"},
	{"ports of ip", []edit{{ace, strings.Replace(ace, "tcp", "ip", 1)}}, 43, 40, config.Error, "", "ip has no ports"},
	{"keyword misspelled", []edit{{ace, strings.Replace(ace, "permit", "premit", 1)}}, 43, 33, config.Error, "", "premit is not known here; is it permit?"},
	{"time", []edit{{"timeout xlate 3:00:00", "timeout xlate 3:60:00"}}, 69, 15, config.Error, "", "3:60:00 is not a time"},
	{"interface type", []edit{{"interface Management0/0", "interface Managment0/0"}}, 22, 11, config.Error, "", "no interface type"},
	{"wrong mode", []edit{{mtaIn, " address 10.20.0.20 interface inside\n tftp-server address 10.20.0.11 interface inside"}}, 133, 2, config.Error, "",
		"tftp-server is a command of phone-proxy mode, not of media-termination mode"},
	{"the box's own tftp server", []edit{{tftp, " " + tftp + "\ntftp-server nowhere 10.20.0.11 /pb.cfg"}}, 139, 13, config.Error, "", "there is no interface nowhere"},
	{"no mode", []edit{{gname, gname + "\nsast 2"}}, 6, 1, config.Error, "", "sast is a command of ctl-file mode and must follow it"},
	{"not yet", []edit{{gname, gname + "\nrouter ospf 1"}}, 6, 1, config.Error, "", "not supported yet by this version"},
	{"crypto map put to work", []edit{{gw, gw + "\ncrypto map m 1 set peer 198.51.100.21\ncrypto map m interface outside"}}, 70, 1, config.Warning, "", "what crypto map m would encrypt leaves outside in the clear"},
	{"IKE put to work", []edit{{gw, gw + "\ncrypto ikev1 enable outside"}}, 69, 1, config.Warning, "", "there is no VPN in this version"},
	{"SSL VPN put to work", []edit{{gw, gw + "\nwebvpn\n enable outside"}}, 70, 2, config.Warning, "", "there is no VPN in this version"},
	{"setting of a group policy that is none", []edit{{gw, gw + "\ngroup-policy g attributes\n vpn-idel-timeout 30"}}, 70, 2, config.Error, "", "vpn-idel-timeout is not a command; the nearest known is vpn-idle-timeout"},
	{"login to pass", []edit{{gw, gw + "\naaa authentication match a inside TAC"}}, 69, 1, config.Error, "", "without them everybody passes"},
	{"AAA server before LOCAL", []edit{{gw, gw + "\naaa authentication ssh console TAC LOCAL"}}, 69, 32, config.Warning, "", "as if TAC did not answer"},
	{"AAA server alone", []edit{{gw, gw + "\naaa authentication ssh console TAC"}}, 69, 32, config.Error, "", "write LOCAL"},
	{"DHCP server", []edit{{gw, gw + "\ndhcpd enable inside"}}, 69, 7, config.Warning, "", "hosts on inside must get their addresses elsewhere"},
	{"failover at work", []edit{{gw, gw + "\nfailover"}}, 69, 1, config.Warning, "", "the box stands alone"},
	{"hosts shut out", []edit{{gw, gw + "\nshun 198.51.100.66"}}, 69, 1, config.Error, "", "deny them in an access list"},
	{"route to nowhere", []edit{{gw, gw + "\nroute inside 10.99.0.0 255.255.0.0 Null0"}}, 69, 1, config.Error, "", "a route to Null0"},
	{"route that is tracked", []edit{{gw, "route outside 0.0.0.0 0.0.0.0 203.0.113.1 1 track 1"}}, 68, 45, config.Warning, "", "routes are not tracked"},
	{"signatures that drop", []edit{{gw, gw + "\nip audit name a attack action alarm drop"}}, 69, 1, config.Error, "", "attack signatures by which packets are dropped"},
	{"security group in an entry", []edit{{ace, "access-list outside_in extended permit tcp security-group name web any"}}, 43, 1, config.Error, "", "users and security groups in an access list"},
	{"map of an engine that is not here", []edit{{gname, gname + "\npolicy-map type inspect esmtp relaxed\n parameters\n  allow-tls\n match sender-address length gt 320\n  reset"}}, 9, 2, config.Error, "",
		"what it would drop passes"},
	{"engine that is none", []edit{{gname, gname + "\npolicy-map type inspect smtp relaxed"}}, 6, 25, config.Error, "", "smtp is no engine that has a map"},
	{"map of another engine", []edit{{gname, gname + "\npolicy-map type inspect esmtp m"}, {"inspect skinny phone-proxy pp", "  inspect skinny phone-proxy pp\n  inspect icmp m"}}, 159, 16, config.Error, "V04", "there is no policy-map type inspect icmp m"},
	{"mail to nobody", []edit{{gw, gw + "\nlogging mail errors\nlogging from-address pb@example.com"}}, 69, 9, config.Warning, "", "no mail is sent without logging recipient-address, smtp-server"},
	{"mail address", []edit{{gw, gw + "\nlogging from-address pb@example.com>"}}, 69, 22, config.Error, "", "no mail address as in pb@example.com"},
	{"class of messages", []edit{{gw, gw + "\nlogging class phones buffered 3"}}, 69, 15, config.Error, "", "phones is no class of messages"},
	{"certificate without quit", []edit{{"quit#1", "!"}}, 94, 2, config.Error, "", "line 107 is not part of one"},
	{"certificate cut short", []edit{{"4950", "    49"}}, 94, 2, config.Error, "", "it is not DER"},
	{"enroll without enrollment", []edit{{"enrollment self", ""}}, 89, 18, config.Error, "V34", "no enrollment line"},
	{"weak key", []edit{{"crypto key generate rsa label ucm_keys modulus 2048 noconfirm", "crypto key generate rsa label ucm_keys modulus 512"}}, 82, 48, config.Error, "", "too weak"},
	{"control character", []edit{{"domain-name example.com#1", "domain-name example.com\x1b[2J"}}, 6, 0, config.Error, "", "control characters"},

	// What lines say together: interfaces, routes, translations, access.
	{"interface of a route", []edit{{gw, "route outsde 0.0.0.0 0.0.0.0 203.0.113.1"}}, 68, 7, config.Error, "V04", "no interface is named outsde; is it outside?"},
	{"gateway elsewhere", []edit{{gw, "route outside 0.0.0.0 0.0.0.0 198.51.100.1"}}, 68, 31, config.Error, "", "not on the network of outside"},
	{"gateway is itself", []edit{{gw, "route outside 0.0.0.0 0.0.0.0 203.0.113.2"}}, 68, 31, config.Error, "", "interface's own address"},
	{"route twice", []edit{{gw, gw + "\nroute outside 0.0.0.0 0.0.0.0 203.0.113.3"}}, 69, 31, config.Error, "", "another metric"},
	{"nameif twice", []edit{{"no nameif", " nameif inside"}}, 25, 9, config.Error, "", "GigabitEthernet0/1 has the name inside already"},
	{"subnets overlap", []edit{{"no ip address", " ip address 10.20.0.129 255.255.255.128"}}, 27, 13, config.Error, "", "cannot be in the same subnet"},
	{"mtu of no interface", []edit{{"mtu inside 1400", "mtu dmz 1400"}}, 54, 5, config.Error, "V04", "no interface is named dmz"},
	{"object that is none", []edit{{"access-list outside_in extended permit udp any object ucm eq tftp", "access-list outside_in extended permit udp any object umc eq tftp"}}, 42, 55,
		config.Error, "V04", "there is no object network umc; is it ucm?"},
	{"access list that is none", []edit{{"access-group outside_in in interface outside", "access-group outside_inn in interface outside"}}, 67, 14, config.Error, "V04", "is it outside_in?"},
	{"mapped address in an access list", []edit{{ace, strings.Replace(ace, "10.20.0.11", "203.0.113.10", 1)}}, 43, 53, config.Warning, "", "write 10.20.0.11"},
	{"group that is none", []edit{{ace, "access-list outside_in extended permit tcp any object-group ucms eq 2443"}}, 43, 61, config.Error, "V04", "there is no object-group ucms"},
	{"group of ports that is none", []edit{{ace, "access-list outside_in extended permit tcp any any object-group pp"}}, 43, 65, config.Error, "", "there is no object-group service pp"},
	{"group of another kind", []edit{{gname, gname + "\nobject-group service g tcp\n port-object eq 1"}, {ace, "access-list outside_in extended permit tcp object-group g any"}}, 45, 57, config.Error, "",
		"% Invalid input detected at '^' marker. object-group g is of kind service"},
	{"empty group", []edit{{gname, gname + "\nobject-group network g"}, {ace, "access-list outside_in extended permit tcp object-group g any"}}, 44, 57, config.Error, "", "object-group g is empty"},
	{"group in itself", []edit{{gname, gname + "\nobject-group network g\n group-object h\nobject-group network h\n group-object g"}}, 9, 15, config.Error, "", "would contain itself"},
	{"group twice", []edit{{gname, gname + "\nobject-group network g\n network-object host 10.20.0.1\nobject-group service g"}}, 8, 22, config.Error, "", "line 6 has object-group network g"},
	{"group of a group of another kind", []edit{{gname, gname + "\nobject-group protocol h\n protocol-object tcp\nobject-group network g\n group-object h"}}, 9, 15, config.Error, "", "of another kind than g"},
	{"member that is none", []edit{{gname, gname + "\nobject-group network g\n network-object object umc"}}, 7, 24, config.Error, "V04", "there is no object network umc; is it ucm?"},
	{"ports of a group of icmp", []edit{{gname, gname + "\nobject-group protocol g\n protocol-object icmp"}, {ace, "access-list outside_in extended permit object-group g any any eq 7"}}, 45, 53, config.Error, "", "a protocol without ports"},
	{"ports of another protocol", []edit{{gname, gname + "\nobject-group service g tcp\n port-object eq 1"}, {ace, "access-list outside_in extended permit udp any any object-group g"}}, 45, 65, config.Error, "", "no ports of the protocol"},
	{"port-object in services", []edit{{gname, gname + "\nobject-group service g\n port-object eq 1"}}, 7, 2, config.Error, "", "write service-object"},
	{"service-object in ports", []edit{{gname, gname + "\nobject-group service g udp\n service-object tcp"}}, 7, 2, config.Error, "", "write port-object"},
	{"object service that is none", []edit{{ace, "access-list outside_in extended permit object s any any"}}, 43, 47, config.Error, "V04", "there is no object service s"},
	{"time range that is none", []edit{{ace, ace + " time-range work"}}, 43, 83, config.Error, "V04", "there is no time-range work"},
	{"time range that ends first", []edit{{gname, gname + "\ntime-range t\n absolute start 08:00 1 May 2026 end 08:00 1 April 2026"}}, 7, 34, config.Error, "", "ends before it begins"},
	{"day of a month", []edit{{gname, gname + "\ntime-range t\n absolute start 08:00 31 April 2026"}}, 7, 23, config.Error, "", "April has no day 31"},
	{"IPv6 entry", []edit{{ace, "access-list outside_in extended permit ip any6 any"}}, 43, 43, config.Error, "", "any6 in an access list: not supported yet"},

	{"twice NAT of different sizes", []edit{{gw, gw + "\nnat (inside,outside) source static staff ucm"}}, 69, 42, config.Error, "", "object staff is 256 addresses and ucm is 1"},
	{"twice NAT object that is none", []edit{{gw, gw + "\nnat (inside,outside) source dynamic stafff interface"}}, 69, 37, config.Error, "V04", "is it staff?"},
	{"twice NAT without interface", []edit{{gw, gw + "\nnat source dynamic staff interface"}}, 69, 5, config.Error, "", "needs the name of the mapped interface"},
	{"static of before 8.3", []edit{{gw, gw + "\nstatic (inside,outside) 203.0.113.11 10.20.0.12 netmask 255.255.255.255"}}, 69, 1, config.Error, "", "static is NAT of before 8.3, and this file is of 9.1(7)"},
	{"police rate", []edit{{"inspect tftp", "  inspect tftp\n  police input 7999"}}, 155, 16, config.Error, "", "7999 is not in the range 8000-2000000000"},
	{"map of an engine that is none", []edit{{"inspect skinny phone-proxy pp", "  inspect skinny strict phone-proxy pp"}}, 157, 18, config.Error, "V04", "there is no policy-map type inspect skinny strict"},
	{"regular expression of inspect sip", []edit{{gname, gname + "\npolicy-map type inspect sip s\n match calling-party regex x"}}, 7, 2, config.Error, "", "regular expression: not supported yet"},
	{"interface of fragments", []edit{{gname, gname + "\nfragment chain 1 outsde"}}, 6, 18, config.Error, "V04", "is it outside?"},
	{"chain of fragments", []edit{{gname, gname + "\nfragment chain 8201"}}, 6, 16, config.Error, "", "8201 is not in the range 1-8200"},
	{"interface of reverse path", []edit{{gname, gname + "\nip verify reverse-path interface outsde"}}, 6, 34, config.Error, "V04", "is it outside?"},

	{"two nat lines in an object", []edit{{nat, " " + nat + "\n nat (inside,outside) static 203.0.113.11"}}, 64, 2, config.Error, "V63", "has a nat line already (line 63)"},
	{"mapped address twice", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n nat (inside,outside) static 203.0.113.10"}},
		68, 30, config.Error, "V64", "line 63 maps object ucm"},
	{"mapped port twice", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n" +
		" nat (inside,outside) static interface service tcp www 8080\nobject network c\n host 10.20.0.13\n nat (inside,outside) static interface service tcp 80 8080"}},
		71, 40, config.Error, "V64", "line 68 maps tcp port 8080 of 203.0.113.2 already"},
	{"interface of a nat line", []edit{{nat, " nat (inside,outsid) static 203.0.113.10"}}, 63, 14, config.Error, "V04", "no interface is named outsid; is it outside?"},
	{"the box's own address", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n nat (inside,outside) static interface"}},
		68, 30, config.Error, "V46", "every connection to the box"},

	// Prerequisites of the phone proxy.
	{"two phone proxies", []edit{{"timeout secure-phones 0:10:00", " timeout secure-phones 0:10:00\nphone-proxy second"}}, 142, 13, config.Error, "V01", "one only"},
	{"two media terminations", []edit{{mtaEx, " " + mtaEx + "\nmedia-termination second"}}, 134, 19, config.Error, "V03", "one only"},
	{"media termination that is none", []edit{{"media-termination media#2", " media-termination medium"}}, 137, 20, config.Error, "V04", "there is no media-termination medium"},
	{"ctl file that is none", []edit{{"ctl-file phones#2", " ctl-file phone"}}, 140, 11, config.Error, "V04", "there is no ctl-file phone; is it phones?"},
	{"tls proxy that is none", []edit{{"tls-proxy phones#2", " tls-proxy phone"}}, 139, 12, config.Error, "V04", "there is no tls-proxy phone; is it phones?"},
	{"trustpoint of a record that is none", []edit{{srv, strings.Replace(" "+srv, "ucm address", "ucn address", 1)}}, 124, 36, config.Error, "V04", "there is no trustpoint ucn; is it ucm?"},
	{"trustpoint of the tls proxy that is none", []edit{{"server trust-point _internal_PP_phones", " server trust-point _internal_PP_phone"}}, 129, 21, config.Error, "V04",
		"there is no trustpoint _internal_PP_phone; is it _internal_PP_phones?"},
	{"no media termination", []edit{{"media-termination media#2", ""}}, 136, 13, config.Error, "V05", "has no media-termination"},
	{"no tls proxy", []edit{{"tls-proxy phones#2", ""}}, 136, 13, config.Error, "V05", "has no tls-proxy"},
	{"no ctl file", []edit{{"ctl-file phones#2", ""}}, 136, 13, config.Error, "V05", "has no ctl-file"},
	{"no tftp server", []edit{{tftp, ""}}, 136, 13, config.Error, "V05", "has no tftp-server"},
	{"no server trust-point", []edit{{"server trust-point _internal_PP_phones", ""}}, 128, 11, config.Error, "V05", "write server trust-point _internal_PP_phones"},
	{"ctl file shut down", []edit{{"no shutdown", ""}}, 123, 10, config.Error, "V05", "end it with no shutdown"},
	{"phone proxy not applied", []edit{{"service-policy phones_policy interface outside", ""}}, 136, 13, config.Warning, "", "has no effect"},
	{"phone proxy of inspect that is none", []edit{{"inspect skinny phone-proxy pp", "  inspect skinny phone-proxy ppp"}}, 157, 30, config.Error, "V04", "there is no phone-proxy ppp; is it pp?"},
	{"two policies on an interface", []edit{{"service-policy phones_policy interface outside", "service-policy phones_policy interface outside\nservice-policy global_policy interface outside"}},
		163, 16, config.Error, "V10", "line 162 has put policy phones_policy on interface outside"},
	{"two inspections of a class", []edit{{"inspect skinny phone-proxy pp", "  inspect skinny phone-proxy pp\n  inspect skinny"}}, 158, 11, config.Error, "V10", "cannot have two maps"},
	{"policy that is none", []edit{{"service-policy phones_policy interface outside", "service-policy phones_policy interface outside\nservice-policy phone_policy interface inside"}},
		163, 16, config.Error, "V04", "is it phones_policy?"},
	{"class that is none", []edit{{"class secure_sip", " class secure_sips"}}, 158, 8, config.Error, "V04", "is it secure_sip?"},

	{"six tftp servers", []edit{{tftp, strings.Repeat(" "+tftp+"\n", 5) + " tftp-server address 10.20.0.12 interface inside"}}, 143, 2, config.Error, "V20", "5 TFTP servers already"},
	{"tftp server elsewhere", []edit{{tftp, " tftp-server address 10.20.0.11 interface outside"}}, 138, 43, config.Error, "V21", "reached by interface inside, not outside"},
	{"tftp server by its mapped address", []edit{{tftp, " tftp-server address 203.0.113.10 interface inside"}}, 138, 22, config.Error, "V22", "the real one, 10.20.0.11"},
	{"tftp server not mapped", []edit{{tftp, " " + tftp + "\n tftp-server address 10.20.0.12 interface inside"}}, 139, 22, config.Warning, "V22", "no static nat line maps 10.20.0.12"},
	{"tftp port", []edit{{tftp, " tftp-server address 10.20.0.11 0 interface inside"}}, 138, 33, config.Error, "V23", "1 to 65535"},

	{"sast 0", []edit{{"sast 3", " sast 0"}}, 125, 7, config.Error, "V30", "1 to 5"},
	{"sast 6", []edit{{"sast 3", " sast 6"}}, 125, 7, config.Error, "V30", "1 to 5"},
	{"two capf records", []edit{{srv, " " + srv + "\n record-entry capf trustpoint phones_1 address 203.0.113.10\n record-entry capf trustpoint phones_2 address 203.0.113.10"}},
		126, 15, config.Error, "V31", "line 125 has a capf record already"},
	{"record with a real address", []edit{{srv, " " + srv + "\n record-entry cucm trustpoint ucm address 10.20.0.11"}}, 125, 43, config.Warning, "V32", "the mapped one, 203.0.113.10"},
	{"record with an address of nothing", []edit{{srv, " " + srv + "\n record-entry cucm trustpoint ucm address 203.0.113.12"}}, 125, 43, config.Warning, "V32", "no static nat line maps a server to 203.0.113.12"},
	{"two domain names", []edit{{srv, " " + srv + "\n record-entry cucm trustpoint ucm address 203.0.113.10 domain-name a.example.com domain-name b.example.com"}},
		125, 94, config.Error, "V33", "one domain-name at most"},
	{"record's trustpoint not enrolled", []edit{{"crypto ca enroll ucm noconfirm", ""}}, 124, 36, config.Error, "V34", "write crypto ca enroll ucm noconfirm"},
	{"cluster ctl file's name", []edit{{"sast 3", " cluster-ctl-file disk0:/CTLFile.tlv"}}, 125, 19, config.Error, "V35", "must not be called CTLFile.tlv"},
	{"no record", []edit{{srv, ""}}, 123, 10, config.Error, "V37", "has no record-entry"},

	{"both styles of address", []edit{{mtaEx, " address 203.0.113.20"}}, 133, 10, config.Error, "V40", "other style"},
	{"two addresses of an interface", []edit{{mtaEx, " " + mtaEx + "\n address 203.0.113.21 interface outside"}}, 134, 10, config.Error, "V41", "there is one"},
	{"one interface's address", []edit{{mtaIn, ""}, {mtaEx, " " + mtaEx}}, 131, 19, config.Error, "V42", "one interface's address only"},
	{"address beside the phones missing", []edit{{mtaEx, " address 192.0.2.20 interface dmz"}, {"no nameif", " nameif dmz"}, {"no ip address", " ip address 192.0.2.1 255.255.255.0"}},
		131, 19, config.Warning, "V43", "no address for interface outside"},
	{"address in no subnet", []edit{{mtaEx, " address 203.0.114.20 interface outside"}}, 133, 10, config.Error, "V44", "not in the subnet of interface outside"},
	{"address of a gateway", []edit{{mtaEx, " address 203.0.113.1 interface outside"}}, 133, 10, config.Error, "V44", "gateway of line 68"},
	{"address of the interface", []edit{{mtaEx, " address 203.0.113.2 interface outside"}}, 133, 10, config.Error, "V45", "interface outside itself"},
	{"address in a nat rule", []edit{{mtaEx, " address 203.0.113.21 interface outside"}, {"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network web\n host 10.20.0.30\n nat (inside,outside) static 203.0.113.21"}},
		136, 10, config.Error, "V46", "NAT rule of line 68 (object web)"},
	{"real address in a nat rule", []edit{{mtaIn, " address 10.20.0.30 interface inside"}, {"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network web\n host 10.20.0.30\n nat (inside,outside) static 203.0.113.21"}},
		135, 10, config.Error, "V46", "NAT rule of line 68 (object web)"},
	{"address of the call manager", []edit{{mtaIn, " address 10.20.0.11 interface inside"}}, 132, 10, config.Error, "V47", "the cucm-tftp of line 124"},
	{"address of the call manager, mapped", []edit{{mtaEx, " address 203.0.113.10 interface outside"}}, 133, 10, config.Error, "V47", "the cucm-tftp of line 124"},
	{"private address outside", []edit{{mtaEx, " address 10.20.0.20"}, {mtaIn, ""}}, 133, 10, config.Warning, "V48", "private address"},
	{"rtp port too low", []edit{{"rtp-min-port 20000 rtp-max-port 29999", " rtp-min-port 1023 rtp-max-port 29999"}}, 134, 15, config.Error, "V49", "1024 to 65535"},
	{"rtp ports reversed", []edit{{"rtp-min-port 20000 rtp-max-port 29999", " rtp-min-port 29999 rtp-max-port 20000"}}, 134, 34, config.Error, "V49", "lower must come first"},
	{"old media termination", []edit{{"media-termination media#2", " media-termination address 203.0.113.20\n media-termination media"}}, 137, 2, config.Error, "V50", "before 8.2(1)"},

	{"call manager private and not mapped", []edit{{nat, ""}, {srv, " record-entry cucm-tftp trustpoint ucm address 10.20.0.11"}}, 124, 48, config.Warning, "V60", "no static nat line maps it"},
	{"secure port not mapped", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n nat (inside,outside) static interface service tcp 2000 7000"}},
		68, 40, config.Warning, "V61", "map it to 7443"},
	{"secure port mapped elsewhere", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n" +
		" nat (inside,outside) static interface service tcp 2000 7000\nobject network c\n host 10.20.0.12\n nat (inside,outside) static interface service tcp 2443 7444"}},
		71, 40, config.Warning, "V61", "must be mapped to 7443, not 7444"},
	{"capf port not mapped", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n nat (inside,outside) static interface service tcp 5061 5061"},
		{srv, " " + srv + "\n record-entry capf trustpoint phones_1 address 203.0.113.2"}}, 128, 48, config.Warning, "V62", "TCP 3804"},
	{"tftp on another port", []edit{{"nat (inside,outside) dynamic interface", " nat (inside,outside) dynamic interface\nobject network b\n host 10.20.0.12\n nat (inside,outside) static interface service udp tftp 1069"},
		{tftp, " " + tftp + "\n tftp-server address 10.20.0.12 interface inside"}}, 68, 40, config.Warning, "V65", "phones ask on port 69 only"},
	{"forgotten too soon", []edit{{"timeout secure-phones 0:10:00", " timeout secure-phones 0:01:00"}}, 141, 10, config.Warning, "V78", "forgotten"},
	{"seven name servers", []edit{{"name-server resolver", " name-server 10.20.0.53 10.20.0.54 10.20.0.55 10.20.0.56 10.20.0.57 10.20.0.58 10.20.0.59"}}, 33, 80, config.Error, "", "6 name servers already"},
	{"record by name without DNS", []edit{{srv, " " + srv + "\n record-entry cucm trustpoint ucm address ucm.example.com"}, {"dns domain-lookup inside", ""}}, 125, 43, config.Error, "", "cannot be looked up"},
	{"key pair not made", []edit{{"keypair ucm_keys", " keypair other_keys"}}, 87, 10, config.Warning, "V04", "no line generates key pair other_keys"},
}

func TestFaults(t *testing.T) {
	lines := base(t)
	if _, found := check(strings.Join(lines, "\n")); len(found) > 0 {
		t.Fatalf("the configuration without fault: %v", found)
	}
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			text := apply(t, lines, tt.edits)
			_, found := check(text)
			found = slices.DeleteFunc(found, func(f config.Finding) bool { return f.Severity == config.Info })
			if len(found) != 1 {
				t.Fatalf("%d findings, want one in line %d: %v", len(found), tt.line, found)
			}
			f := found[0]
			if f.Line != tt.line || f.Severity != tt.sev || f.Rule != tt.rule || !strings.Contains(f.Msg, tt.msg) || tt.col > 0 && f.Column != tt.col {
				t.Errorf("got  %v\nline %d column %d %v %q\nwant line %d column %d %v %q: %s", f,
					f.Line, f.Column, f.Severity, f.Rule, tt.line, tt.col, tt.sev, tt.rule, tt.msg)
			}
		})
	}
}

// unsupportedFaults are for each feature that Parse knows and the box has not
// a configuration and the line it must be found in.
var unsupportedFaults = []struct {
	feature, text string
	line          int
}{
	{"a mixed-mode cluster", "phone-proxy pp\n cluster-mode mixed\n", 2},
	{"authenticated mode without encryption (null-sha1)", "phone-proxy pp\n cipc security-mode authenticated\n", 2},
	{"phones without a certificate", "tls-proxy t\n no server authenticate-client\n", 2},
	{"TLS toward the call manager", "tls-proxy t\n client cipher-suite aes128-sha1\n", 2},
	{"NAT of answers of the DNS", twoInterfaces + "object network a\n host 10.20.0.9\n nat (inside,outside) static 203.0.113.10 dns\n", 9},
	{"mask as the action of a match", "policy-map type inspect sip s\n match content type sdp\n  mask\n", 3},
	{"two maps of one engine for one phone proxy", "policy-map type inspect sip s\nclass-map a\n match port tcp eq 5061\nclass-map b\n match port tcp eq 5062\n" +
		"phone-proxy pp\npolicy-map p\n class a\n  inspect sip phone-proxy pp\n class b\n  inspect sip s phone-proxy pp\n", 11},
	{"inspect with a tls-proxy of its own", "tls-proxy t\nclass-map c\n match any\npolicy-map p\n class c\n  inspect sip tls-proxy t\n", 6},
	{"null-sha1", "ssl encryption aes128-sha1 null-sha1\n", 1},
	{"rc4-md5", "ssl encryption aes128-sha1 rc4-md5\n", 1},
	{"des-sha1", "ssl encryption aes128-sha1 des-sha1\n", 1},
}

// TestUnsupported checks that each feature of the table is found in its line,
// and that without the table nothing is wrong there.
func TestUnsupported(t *testing.T) {
	var tested []string
	for _, tt := range unsupportedFaults {
		if !slices.Contains(config.Unsupported(), tt.feature) {
			continue // the box has learned it
		}
		tested = append(tested, tt.feature)
		_, all := config.CheckAll("pb.cfg", strings.NewReader(tt.text))
		r, one := config.CheckOnly("pb.cfg", strings.NewReader(tt.text), tt.feature)
		accounted(t, r, one)
		if config.Errors(all) > 0 || len(one) != len(all)+1 ||
			!slices.ContainsFunc(one, func(f config.Finding) bool { return f.Line == tt.line && !slices.Contains(all, f) && f.Column > 0 }) {
			t.Errorf("%s: want one finding more in line %d\nfor a box with it    %v\nfor a box without it %v", tt.feature, tt.line, all, one)
		}
	}
	for _, name := range config.Unsupported() {
		if !slices.Contains(tested, name) {
			t.Errorf("feature without a test: %s", name)
		}
	}
}
