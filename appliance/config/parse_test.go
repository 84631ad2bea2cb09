package config_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patchbay/appliance/config"
	"patchbay/appliance/logging"
)

var compare = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmpopts.IgnoreUnexported(config.Running{}, config.Interface{}, config.ACE{}, config.ObjectGroup{}),
	cmpopts.IgnoreFields(config.Running{}, "Lines"),
	cmpopts.EquateEmpty(),
}

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// TestCheck reads a whole configuration, field by field.
func TestCheck(t *testing.T) {
	got, found := check(strings.Join(base(t), "\n"))
	if len(found) > 0 {
		t.Errorf("findings: %v", found)
	}
	for i := range got.Trustpoints {
		tp := &got.Trustpoints[i]
		for j, der := range tp.CACertificates {
			tp.CACertificates[j] = der[:2]
		}
	}
	any := config.AddrSpec{Any: true, From: addr("0.0.0.0"), To: addr("255.255.255.255")}
	ucm := config.AddrSpec{From: addr("10.20.0.11"), To: addr("10.20.0.11")}
	phones := config.AddrSpec{From: addr("198.51.100.0"), To: addr("198.51.100.255")}
	ucmObject := ucm
	ucmObject.Object = "ucm"
	ace := func(line int, permit bool, src, dst config.AddrSpec, s config.Service) config.ACE {
		return config.ACE{Line: line, Permit: permit, Text: strings.TrimSpace(base(t)[line-1]), LogLevel: 6, LogInterval: 300,
			Srcs: []config.AddrSpec{src}, Dsts: []config.AddrSpec{dst}, Services: []config.Service{s}}
	}
	port := func(proto uint8, from, to uint16) config.Service {
		return config.Service{Proto: proto, DstPorts: []config.PortSpec{{From: from, To: to}}, ICMPType: -1, ICMPCode: -1}
	}
	deny := ace(46, false, any, any, config.Service{ICMPType: -1, ICMPCode: -1})
	deny.Log, deny.LogLevel, deny.LogInterval = true, 4, 60
	want := &config.Running{
		File: "pb.cfg", Version: "9.1(7)", Hostname: "pb", Domain: "example.com",
		Interfaces: []config.Interface{
			{Line: 11, Hardware: "GigabitEthernet0/0", Name: "outside", Addr: prefix("203.0.113.2/24"), MTU: 1500, Description: "to the Internet"},
			{Line: 17, Hardware: "GigabitEthernet0/1", Name: "inside", Level: 100, Addr: prefix("10.20.0.1/24"), MTU: 1400},
			{Line: 22, Hardware: "Management0/0", Shutdown: true, Down: true, ManagementOnly: true, MTU: 1500},
		},
		Routes: []config.Route{{Line: 68, Interface: "outside", Prefix: prefix("0.0.0.0/0"), Gateway: addr("203.0.113.1"), Metric: 1}},
		Objects: []config.Object{
			{Line: 37, Name: "ucm", From: addr("10.20.0.11"), To: addr("10.20.0.11"), Subnet: prefix("10.20.0.11/32")},
			{Line: 39, Name: "staff", From: addr("10.20.0.0"), To: addr("10.20.0.255"), Subnet: prefix("10.20.0.0/24")},
		},
		NAT: []config.NATRule{
			{Line: 63, Section: config.AutoNAT, Object: "ucm", RealIf: "inside", MappedIf: "outside", Static: true, RealFrom: addr("10.20.0.11"), RealTo: addr("10.20.0.11"),
				MappedFrom: addr("203.0.113.10"), MappedTo: addr("203.0.113.10"), MappedAddr: addr("203.0.113.10"), NoProxyARP: true},
			{Line: 65, Section: config.AutoNAT, Object: "staff", RealIf: "inside", MappedIf: "outside", RealFrom: addr("10.20.0.0"), RealTo: addr("10.20.0.255"), MappedInterface: true},
		},
		AccessLists: []config.AccessList{{Line: 41, Name: "outside_in", Entries: []config.ACE{
			{Line: 41, Remark: "what a phone says before and in a call", Text: base(t)[40]},
			ace(42, true, any, ucmObject, port(17, 69, 69)),
			ace(43, true, any, ucm, port(6, 2443, 2443)),
			ace(44, true, any, ucm, port(6, 5061, 5062)),
			ace(45, true, phones, any, config.Service{Proto: 1, ICMPType: 8, ICMPCode: -1}),
			deny,
		}}},
		AccessGroups: []config.AccessGroup{{Line: 67, Name: "outside_in", Direction: "in", Interface: "outside"}},
		ICMP: []config.ICMPRule{
			{Line: 57, Permit: true, Prefix: prefix("198.51.100.7/32"), From: addr("198.51.100.7"), To: addr("198.51.100.7"), Type: 8, Interface: "outside"},
			{Line: 58, Prefix: prefix("0.0.0.0/0"), From: addr("0.0.0.0"), To: addr("255.255.255.255"), Type: -1, Interface: "outside"},
		},
		Timeouts: config.Timeouts{Xlate: 3 * time.Hour, PATXlate: 30 * time.Second, Conn: 2 * time.Hour, HalfClosed: 10 * time.Minute,
			UDP: 3 * time.Minute, ICMP: 2 * time.Second, SIP: 30 * time.Minute, SIPMedia: 2 * time.Minute, SIPInvite: 3 * time.Minute,
			SIPDisconnect: 2 * time.Minute, SIPProvisionalMedia: 2 * time.Minute, TCPProxyReassembly: time.Minute,
			SunRPC: 10 * time.Minute, H323: 5 * time.Minute, H225: time.Hour, MGCP: 5 * time.Minute, MGCPPAT: 5 * time.Minute,
			SCTP: 2 * time.Minute, Uauth: 5 * time.Minute, ConnHolddown: 15 * time.Second, IGPStale: 70 * time.Second},
		TCPMSS: config.TCPMSS{Maximum: 1380},
		Names:  map[string]netip.Addr{"resolver": addr("10.20.0.53")},
		Logging: logging.Settings{Enable: true, Timestamp: true, Buffered: logging.AtLevel(6), BufferSize: 4096,
			Messages: []logging.Change{{Number: 302013, Disabled: true}}},
		Login: config.Login{
			Enable:  [16]config.Password{15: {Text: "aaaaaaaaaaaaaaaa", Kind: config.Encrypted}},
			SSHIdle: 5 * time.Minute, Pager: 24,
		},
		DNS:      config.DNS{Lookup: []string{"inside"}, Servers: []netip.Addr{addr("10.20.0.53")}, Domain: "example.com", Timeout: 2 * time.Second, Retries: 2},
		KeyPairs: []config.KeyPair{{Line: 82, Label: "ucm_keys", Modulus: 2048}},
		Trustpoints: []config.Trustpoint{
			{Line: 83, Name: "ucm", Enrollment: "self", NoFQDN: true, Subject: "CN=ucm,O=Example", KeyPair: "ucm_keys"},
			{Line: 90, Name: "phones_1", Enrollment: "terminal", CACertificates: [][]byte{{0x30, 0x82}}},
			{Line: 108, Name: "phones_2", Enrollment: "terminal", CACertificates: [][]byte{{0x30, 0x82}}},
		},
		Enroll: []string{"ucm"},
		CTLs: []config.CTLFile{{Line: 123, Name: "phones", SAST: 3, Records: []config.Record{
			{Line: 124, Role: "cucm-tftp", Trustpoint: "ucm", Addr: addr("203.0.113.10")}}}},
		TLSProxies: []config.TLSProxy{{Line: 128, Name: "phones", ServerTrustpoint: "_internal_PP_phones", AuthenticateClient: true}},
		MediaTerminations: []config.MediaTermination{{Line: 131, Name: "media", MinPort: 20000, MaxPort: 29999, Addrs: []config.MTA{
			{Line: 132, Addr: addr("10.20.0.20"), Interface: "inside"}, {Line: 133, Addr: addr("203.0.113.20"), Interface: "outside"}}}},
		PhoneProxies: []config.PhoneProxy{{Line: 136, Name: "pp", MediaTermination: "media", CTL: "phones", TLSProxy: "phones",
			TFTPServers:  []config.TFTPServer{{Line: 138, Addr: addr("10.20.0.11"), Port: 69, Interface: "inside"}},
			SecurePhones: 10 * time.Minute, ExpiredCertificates: true, Readmit: true, SCCPVersionMax: 19}},
		ClassMaps: []config.ClassMap{
			{Line: 143, Name: "inspection_default", Match: config.Match{Line: 144, Kind: config.MatchDefault, Default: true}},
			{Line: 145, Name: "secure_sccp", Match: config.Match{Line: 146, Kind: config.MatchPort, Proto: "tcp", From: 2443, To: 2443}},
			{Line: 147, Name: "secure_sip", Match: config.Match{Line: 148, Kind: config.MatchPort, Proto: "tcp", From: 5061, To: 5062}},
		},
		PolicyMaps: []config.PolicyMap{
			{Line: 150, Name: "global_policy", Classes: []config.PolicyClass{{Line: 151, Class: "inspection_default", Inspects: []config.Inspect{
				{Line: 154, Protocol: "tftp"}}}}},
			{Line: 155, Name: "phones_policy", Classes: []config.PolicyClass{
				{Line: 156, Class: "secure_sccp", Inspects: []config.Inspect{{Line: 157, Protocol: "skinny", PhoneProxy: "pp"}}},
				{Line: 158, Class: "secure_sip", Inspects: []config.Inspect{{Line: 159, Protocol: "sip", PhoneProxy: "pp"}}}}},
		},
		ServicePolicies: []config.ServicePolicy{{Line: 161, Policy: "global_policy"}, {Line: 162, Policy: "phones_policy", Interface: "outside"}},
	}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("Check (-want +got):\n%s", diff)
	}
}

// TestParse gives lines and what one part of the Running must be.
func TestParse(t *testing.T) {
	const (
		ifaces = "interface g0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\ninterface g0/1\n nameif inside\n"
		pp     = "phone-proxy pp\n"
	)
	phone := func(change func(*config.PhoneProxy)) []config.PhoneProxy {
		p := config.PhoneProxy{Line: 1, Name: "pp", SecurePhones: 5 * time.Minute, ExpiredCertificates: true, Readmit: true, SCCPVersionMax: 19}
		change(&p)
		return []config.PhoneProxy{p}
	}
	tests := []struct {
		name, text string
		part       func(*config.Running) any
		want       any
	}{
		{"abbreviated", "int gi0/3\nint gi0/3.7\nna dmz\nsec 30\nip ad 192.0.2.1 255.255.255.128\nvlan 7\nhostn x", func(r *config.Running) any { return []any{r.Interfaces[1:], r.Hostname} },
			[]any{[]config.Interface{{Line: 2, Hardware: "GigabitEthernet0/3.7", Name: "dmz", Level: 30, Addr: prefix("192.0.2.1/25"), VLAN: 7, MTU: 1500}}, "x"}},
		{"hardware with a space", "interface ethernet 0/0\n shutdown", func(r *config.Running) any { return r.Interfaces[0] },
			config.Interface{Line: 1, Hardware: "Ethernet0/0", Shutdown: true, Down: true, MTU: 1500}},
		{"level by name", ifaces, func(r *config.Running) any { return []int{r.Interfaces[0].Level, r.Interfaces[1].Level} }, []int{0, 100}},
		{"a line of both modes, indented", pp + " tls-proxy a\ntls-proxy b\n", func(r *config.Running) any { return []any{r.PhoneProxies[0].TLSProxy, r.TLSProxies} },
			[]any{"a", []config.TLSProxy{{Line: 3, Name: "b", AuthenticateClient: true}}}},
		{"a line of both modes, flat", pp + "tls-proxy a\n", func(r *config.Running) any { return []any{r.PhoneProxies[0].TLSProxy, len(r.TLSProxies)} },
			[]any{"a", 0}},
		{"comments stay in the mode", "interface g0/0\n!\n nameif a\n: x\n security-level 7\n", func(r *config.Running) any { return r.Interfaces[0].Level }, 7},
		{"names", "name 10.20.0.11 ucm\nobject network o\n host ucm\n", func(r *config.Running) any { return r.Objects[0].From }, addr("10.20.0.11")},
		{"stanzas merge", "object network o\n host 10.20.0.1\nobject network p\n host 10.20.0.2\nobject network o\n description d\n", func(r *config.Running) any { return r.Objects },
			[]config.Object{{Line: 2, Name: "o", From: addr("10.20.0.1"), To: addr("10.20.0.1"), Subnet: prefix("10.20.0.1/32"), Description: "d"},
				{Line: 4, Name: "p", From: addr("10.20.0.2"), To: addr("10.20.0.2"), Subnet: prefix("10.20.0.2/32")}}},
		{"static PAT", ifaces + "object network o\n host 10.20.0.1\n nat (inside,outside) static interface service tcp sip 7060\n", func(r *config.Running) any { return r.NAT[0] },
			config.NATRule{Line: 8, Section: config.AutoNAT, Object: "o", RealIf: "inside", MappedIf: "outside", Static: true, RealFrom: addr("10.20.0.1"), RealTo: addr("10.20.0.1"),
				MappedInterface: true, Proto: "tcp", RealPort: 5060, MappedPort: 7060,
				SrcPorts: config.PortSpec{From: 5060, To: 5060}, MappedSrcPorts: config.PortSpec{From: 7060, To: 7060}}},
		{"static net", "object network o\n subnet 10.20.0.0 255.255.255.0\n nat (any,any) static 192.0.2.0\n", func(r *config.Running) any {
			return []netip.Addr{r.NAT[0].MappedFrom, r.NAT[0].MappedTo, r.NAT[0].MappedAddr}
		}, []netip.Addr{addr("192.0.2.0"), addr("192.0.2.255"), {}}},
		{"dynamic to a pool", "object network o\n subnet 10.20.0.0 255.255.255.0\n nat (inside,outside) dynamic pat interface\nobject network pat\n range 192.0.2.1 192.0.2.9\n", func(r *config.Running) any {
			return r.NAT[0]
		}, config.NATRule{Line: 3, Section: config.AutoNAT, Object: "o", RealIf: "inside", MappedIf: "outside", RealFrom: addr("10.20.0.0"), RealTo: addr("10.20.0.255"),
			MappedFrom: addr("192.0.2.1"), MappedTo: addr("192.0.2.9"), MappedObject: "pat", MappedInterface: true}},
		{"ports", "access-list a permit tcp any neq www any gt 1023\naccess-list a deny udp any lt 1024 any range 1 65535\n", func(r *config.Running) any {
			e := r.AccessLists[0].Entries
			s, u := e[0].Services[0], e[1].Services[0]
			return slices.Concat(s.SrcPorts, s.DstPorts, u.SrcPorts, u.DstPorts)
		}, []config.PortSpec{{From: 80, To: 80, Not: true}, {From: 1024, To: 65535}, {From: 0, To: 1023}, {From: 1, To: 65535}}},
		{"an entry at a line", "access-list a permit ip any any\naccess-list a line 1 deny tcp any any\n", func(r *config.Running) any {
			return []uint8{r.AccessLists[0].Entries[0].Services[0].Proto, r.AccessLists[0].Entries[1].Services[0].Proto}
		}, []uint8{6, 0}},
		{"inactive", "access-list a permit gre any any log disable inactive\n", func(r *config.Running) any {
			e := r.AccessLists[0].Entries[0]
			return []any{e.Services[0].Proto, e.Log, e.Inactive}
		}, []any{uint8(47), false, true}},
		{"dns", "interface g0/1\n nameif inside\ndns domain-lookup inside\ndns server-group DefaultDNS\n name-server 10.20.0.53 10.20.0.54 inside\n timeout 5\n retries 0\n" +
			"dns name-server 10.20.0.53 10.20.0.55\n", func(r *config.Running) any { return r.DNS }, config.DNS{Lookup: []string{"inside"}, Via: map[netip.Addr]string{addr("10.20.0.53"): "inside", addr("10.20.0.54"): "inside"},
			Servers: []netip.Addr{addr("10.20.0.53"), addr("10.20.0.54"), addr("10.20.0.55")}, Timeout: 5 * time.Second}},
		{"ssl", "ssl encryption aes128-sha1 null-sha1\n", func(r *config.Running) any { return r.SSLEncryption }, []string{"aes128-sha1", "null-sha1"}},
		{"sast and records", "ctl-file c\n record-entry capf trustpoint t address ucm.example.com domain-name d\n", func(r *config.Running) any { return r.CTLs },
			[]config.CTLFile{{Line: 1, Name: "c", SAST: 2, Shutdown: true, Records: []config.Record{{Line: 2, Role: "capf", Trustpoint: "t", FQDN: "ucm.example.com", Domain: "d"}}}}},
		{"tls proxy", "tls-proxy maximum-sessions 50\ntls-proxy t\n no server authenticate-client\n client ldc issuer i\n client ldc keypair k\n client cipher-suite aes128-sha1\n", func(r *config.Running) any {
			return []any{r.MaxTLSSessions, r.TLSProxies}
		}, []any{50, []config.TLSProxy{{Line: 2, Name: "t", LDCIssuer: "i", LDCKeyPair: "k", ClientCiphers: []string{"aes128-sha1"}}}}},
		{"mixed", pp + " cluster-mode mixed\n no disable service-settings\n cipc security-mode authenticated\n proxy-server address 203.0.113.80 interface dmz\n",
			func(r *config.Running) any { return r.PhoneProxies }, phone(func(p *config.PhoneProxy) {
				p.Mixed, p.KeepServiceSettings, p.CIPCAuthenticated = true, true, true
				p.ProxyServer = &config.ProxyServer{Line: 5, Addr: addr("203.0.113.80"), Port: 8080, Interface: "dmz"}
			})},
		{"our own", pp + " phone-certificate expired deny\n secure-phones refuse\n sccp version-max 22\n tftp single-port\n", func(r *config.Running) any { return r.PhoneProxies },
			phone(func(p *config.PhoneProxy) {
				p.ExpiredCertificates, p.Readmit, p.SCCPVersionMax, p.TFTPSinglePort = false, false, 22, true
			})},
		{"what an identity has", "crypto ca trustpoint t\n enrollment url http://ca.example.com/scep\n serial-number\n ip-address 203.0.113.2\n password sesame\n",
			func(r *config.Running) any { return r.Trustpoints }, []config.Trustpoint{{Line: 1, Name: "t", Enrollment: "url", URL: "http://ca.example.com/scep",
				SerialNumber: true, IP: addr("203.0.113.2"), Password: "sesame"}}},
		{"underscores", "crypto ca trustpoint t\n enrollment self\n proxy_ldc_issuer\n", func(r *config.Running) any { return r.Trustpoints[0].LDCIssuer }, true},
		{"carriage returns and a mark", "\xef\xbb\xbfhostname pb\r\n", func(r *config.Running) any { return r.Hostname }, "pb"},
		{"traffic between equals", "same-security-traffic permit intra-interface\n", func(r *config.Running) any { return []bool{r.SameSecurityInter, r.SameSecurityIntra} }, []bool{false, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, found := config.Parse("pb.cfg", strings.NewReader(tt.text))
			if len(found) > 0 {
				t.Fatalf("Parse: %v", found)
			}
			if diff := cmp.Diff(tt.want, tt.part(r), compare); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpecs(t *testing.T) {
	ports := []struct {
		s    config.PortSpec
		port uint16
		want bool
	}{
		{config.PortSpec{}, 0, true}, {config.PortSpec{}, 7, true},
		{config.PortSpec{From: 5, To: 7}, 7, true}, {config.PortSpec{From: 5, To: 7}, 8, false},
		{config.PortSpec{From: 5, To: 5, Not: true}, 5, false}, {config.PortSpec{From: 5, To: 5, Not: true}, 6, true},
	}
	for _, tt := range ports {
		if got := tt.s.Contains(tt.port); got != tt.want {
			t.Errorf("%+v.Contains(%d) = %v, want %v", tt.s, tt.port, got, tt.want)
		}
	}
	s := config.AddrSpec{From: addr("10.20.0.0"), To: addr("10.20.0.255")}
	if !s.Contains(addr("10.20.0.255")) || s.Contains(addr("10.20.1.0")) || (config.AddrSpec{}).Contains(addr("10.20.0.0")) || !(config.AddrSpec{Any: true}).Contains(addr("10.20.0.0")) {
		t.Errorf("AddrSpec.Contains is wrong")
	}
}

func TestFindingString(t *testing.T) {
	_, found := config.Parse("pb.cfg", strings.NewReader("interface g0/0\n\tip address 203.0.113.2 255.255.0.255\nctl-file c\n sast 9\n"))
	want := []string{
		"pb.cfg:2: ERROR: % Invalid input detected at '^' marker. 255.255.0.255 is not a network mask: its ones are not all to the left\n" +
			"    \tip address 203.0.113.2 255.255.0.255\n" +
			"    \t                       ^",
		"pb.cfg:4: ERROR: a CTL file has 1 to 5 SAST tokens, not 9; without this line it has 2 (V30)\n" +
			"     sast 9\n" +
			"          ^",
	}
	var got []string
	for _, f := range found {
		got = append(got, f.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if got := config.Errors(found); got != 2 {
		t.Errorf("Errors = %d, want 2", got)
	}
}

// TestSecrets checks that no finding shows a password or moves the cursor.
func TestSecrets(t *testing.T) {
	text := "crypto ca import tp pkcs12 s3cret\nusernaem bob password s3cret\nzone key s3cret\nhostname a\x1b[31m\ncrypto ca import \u009b tp pkcs12 s3cret\n"
	_, found := config.Parse("pb.cfg", strings.NewReader(text))
	if len(found) != 5 {
		t.Errorf("%d findings, want 5: %v", len(found), found)
	}
	for _, f := range found {
		if s := f.String(); strings.Contains(s, "s3cret") || strings.ContainsAny(s, "\x1b\u009b") {
			t.Errorf("finding shows what it must not: %q", s)
		}
	}
}

// TestLimits reads configurations over each limit.
func TestLimits(t *testing.T) {
	tests := []struct {
		name, text string
		found      int
		line       int // of the last finding
		msg        string
	}{
		{"nothing", "", 0, 0, ""},
		{"a long line", "hostname a\n!" + strings.Repeat("x", 4096) + "\n", 1, 2, "a line of 4097 bytes is too long"},
		{"many errors", strings.Repeat("x\n", 5000), 1001, 5000, "4000 more findings are not listed"},
		{"a large file", "hostname a\n" + strings.Repeat(strings.Repeat("!", 4000)+"\n", 4200), 1, 4194, "longer than 16777216 bytes"},
		{"many words", "hostname a\nssl encryption" + strings.Repeat(" x", 600) + "\n", 1, 2, "more than 512 words"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, found := config.Parse("pb.cfg", strings.NewReader(tt.text))
			if len(found) != tt.found {
				t.Fatalf("%d findings, want %d", len(found), tt.found)
			}
			if tt.found == 0 {
				return
			}
			if f := found[len(found)-1]; f.Line != tt.line || f.Severity != config.Error || !strings.Contains(f.Msg, tt.msg) {
				t.Errorf("last finding %v\nwant line %d of %d: %s", f, tt.line, len(r.Lines), tt.msg)
			}
		})
	}
	if _, found := config.Parse("pb.cfg", failing{}); len(found) != 1 || !strings.Contains(found[0].Msg, "reading: no more") {
		t.Errorf("findings of a reader that fails: %v", found)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fmt.Errorf("no more") }

func TestInert(t *testing.T) {
	r, found := config.Parse("pb.cfg", strings.NewReader("hostname a\ntelnet timeout 5\ntimeout h323 0:05:00\nCryptochecksum:00\n"))
	if len(found) > 0 {
		t.Errorf("findings: %v", found)
	}
	var lines []int
	for _, f := range r.Inert() {
		if f.Severity != config.Info || !strings.Contains(f.Msg, "no effect here: ") {
			t.Errorf("Inert: %v", f)
		}
		lines = append(lines, f.Line)
	}
	if !slices.Equal(lines, []int{2, 3, 4}) {
		t.Errorf("inert lines %v, want 2, 3, 4", lines)
	}
}

// accounted reports lines that are neither comment, obeyed, inert nor refused
// with a finding, and findings out of the text.
func accounted(t *testing.T, r *config.Running, found []config.Finding) {
	t.Helper()
	has := make(map[int]bool)
	for _, f := range found {
		has[f.Line] = true
		if f.Line < 1 || f.Line > max(len(r.Lines), 1) || f.Column < 0 || f.Msg == "" {
			t.Errorf("finding out of the text of %d lines: %+v", len(r.Lines), f)
		}
	}
	for i, l := range r.Lines {
		text := strings.TrimSpace(l.Text)
		switch l.Kind {
		case config.Comment:
			if text != "" && !strings.HasPrefix(text, "!") && !strings.HasPrefix(text, ":") {
				t.Errorf("line %d is dropped in silence: %q", i+1, l.Text)
			}
		case config.Inert:
			if l.Why == "" {
				t.Errorf("line %d is inert and nobody says why: %q", i+1, l.Text)
			}
		case config.Refused:
			if !has[i+1] && len(found) < 1000 {
				t.Errorf("line %d is refused without a finding: %q", i+1, l.Text)
			}
		}
	}
}

// TestReference loads the example configurations. Which must load and which
// warn is listed here. All must load on a box that has every feature.
func TestReference(t *testing.T) {
	const dir = "../../../shared/reference/configs"
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the reference configurations are not here: %v", err)
	}
	tests := []struct {
		file     string
		errors   []int // lines
		warnings []int
	}{
		{"a-nonsecure-single.cfg", nil, []int{68, 71, 74, 109, 110}}, // CAs to supply; inspect dns, ftp, skinny and sip
		{"b-mixed-ldc.cfg", []int{79, 93}, []int{56, 59, 62, 65, 68, 74}},
		{"c-static-pat.cfg", nil, []int{115, 122, 131}},
		{"d-dmz-and-outside.cfg", nil, []int{60}},
		{"e-cipc-null-sha1.cfg", []int{62}, []int{31, 41, 47}},
		{"f-http-proxy.cfg", nil, []int{81, 84, 87, 123, 124}},
		{"g-tftp-police.cfg", nil, []int{71, 74, 77, 114, 115}},
		{"h-legacy-8.0.cfg", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			r, found := config.Check(tt.file, bytes.NewReader(data))
			accounted(t, r, found)
			var errors, warnings []int
			for _, f := range found {
				switch f.Severity {
				case config.Error:
					errors = append(errors, f.Line)
				case config.Warning:
					warnings = append(warnings, f.Line)
				}
			}
			if !slices.Equal(errors, tt.errors) || !slices.Equal(warnings, tt.warnings) {
				t.Errorf("errors in lines %v, warnings in %v\nwant %v and %v\n%v", errors, warnings, tt.errors, tt.warnings, found)
			}
			if _, found := config.CheckAll(tt.file, bytes.NewReader(data)); config.Errors(found) > 0 {
				t.Errorf("on a box that has every feature: %v", found)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	lines := base(f)
	f.Add([]byte(strings.Join(lines, "\n")))
	for _, tt := range faults {
		for _, e := range tt.edits {
			f.Add([]byte(e.new))
		}
	}
	f.Add([]byte("object network o\n nat (a,b) static 255.255.255.255\n range 0.0.0.0 255.255.255.255\naccess-list a permit ip object o any\n"))
	for _, tt := range unsupportedFaults {
		f.Add([]byte(tt.text))
	}
	f.Add([]byte("object-group network a\n group-object b\nobject-group network b\n group-object a\naccess-list l permit ip object-group a object-group b\n" +
		"time-range t\n periodic daily 0:00 to 23:59\naccess-list l permit tcp any neq 5 any object-group g time-range t\n"))
	f.Add([]byte("object-group network g\n network-object 0.0.0.0 0.0.0.0\nobject service s\n service udp source range 1 9 destination lt 5\n" +
		"nat (a,b) 1 source static g g destination static g g service s s\nnat (a,b) source dynamic any pat-pool g interface\n"))
	f.Add([]byte("ASA Version 8.2(1)\nglobal (a) 1 10.20.0.1-10.20.0.9\nnat (b) 1 0 0\nnat (b) 0 access-list l\naccess-list l permit ip any any\nstatic (b,a) 10.20.0.0 access-list l\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, found := config.Check("pb.cfg", bytes.NewReader(data))
		accounted(t, r, found)
		for _, f := range found {
			if s := f.String(); strings.ContainsAny(s, "\x1b\x07\x00") {
				t.Errorf("finding prints control characters: %q", s)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	text := strings.Join(base(b), "\n")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, found := check(text); len(found) > 0 {
			b.Fatal(found)
		}
	}
}
