package phoneproxy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// facing maps the test cluster as the reference's example does.
func facing(host string) (string, bool) {
	a, ok := map[string]string{
		"10.20.0.10": "203.0.113.10", "ucm-pub.example.com": "203.0.113.11", "CUCM4": "203.0.113.11",
	}[host]
	return a, ok
}

// A change is one thing that differs: old bytes and new ones where they stood.
type change struct{ old, new string }

// diff returns how b differs from a, found by comparing and not by asking the
// rewriter: the shortest run of whole tags and texts that differ. The common
// text before each change is dropped.
func diff(a, b []byte) []change {
	x, y := pieces(a), pieces(b)
	// longest common subsequence
	n, m := len(x), len(y)
	l := make([][]int, n+1)
	for i := range l {
		l[i] = make([]int, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if x[i] == y[j] {
				l[i][j] = l[i+1][j+1] + 1
			} else {
				l[i][j] = max(l[i+1][j], l[i][j+1])
			}
		}
	}
	var cs []change
	var c change
	flush := func() {
		if c != (change{}) {
			cs = append(cs, c)
			c = change{}
		}
	}
	i, j := 0, 0
	for i < n || j < m {
		switch {
		case i < n && j < m && x[i] == y[j]:
			flush()
			i, j = i+1, j+1
		case i < n && (j == m || l[i+1][j] >= l[i][j+1]):
			c.old += x[i]
			i++
		default:
			c.new += y[j]
			j++
		}
	}
	flush()
	return cs
}

// pieces cuts a file before each < and after each >. An element becomes one
// piece of tag and text, so that "<a>1" differs from "<a>2" as a whole.
func pieces(b []byte) []string {
	var ps []string
	for len(b) > 0 {
		n := bytes.IndexByte(b[1:], '<') + 1
		if n == 0 {
			n = len(b)
		}
		ps = append(ps, string(b[:n]))
		b = b[n:]
	}
	return ps
}

func TestSecureConfig(t *testing.T) {
	proxied := ConfigParams{Map: facing, ProxyServer: "203.0.113.20:8080"}
	pat := ConfigParams{Map: facing, KeepServiceSettings: true, CAPF: "capf.example.com", Ports: func(m Member) (uint16, uint16) {
		if m.Host == "10.20.0.10" {
			return 7443, 7061
		}
		return 0, 0
	}}
	sipChanges := []change{
		{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
		{"<processNodeName>ucm-pub.example.com", "<processNodeName>203.0.113.11"},
		{"<pcPort>0", "<pcPort>1"},
		{"<garp>0", "<garp>1"},
		{"<voiceVlanAccess>0", "<voiceVlanAccess>1"},
		{"<webAccess>0", "<webAccess>1"},
		{"<deviceSecurityMode>1", "<deviceSecurityMode>3"},
		{"<proxyServerURL>", "<proxyServerURL>203.0.113.20:8080"},
		{"<transportLayerProtocol>1", "<transportLayerProtocol>3"},
		{"<processNodeName>ucm-pub.example.com", "<processNodeName>203.0.113.11"},
	}
	twoMembers := []Member{{"10.20.0.10", 2000, 5060, 5061}, {"ucm-pub.example.com", 2000, 5060, 5061}}
	tests := []struct {
		name string
		file string
		p    ConfigParams
		want []change
		orig Original
	}{
		{"SIP, the reference's example", "sip.xml", proxied, sipChanges,
			Original{ModeNonsecure, true, "SIP41.8-5-3S", twoMembers}},
		{"SIP behind PAT", "sip.xml", pat, []change{
			{"<ethernetPhonePort>2000", "<ethernetPhonePort>7000"},
			{"<securedSipPort>5061", "<securedSipPort>7061"},
			{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
			{"<processNodeName>ucm-pub.example.com", "<processNodeName>203.0.113.11"},
			{"<deviceSecurityMode>1", "<deviceSecurityMode>3"},
			{"<transportLayerProtocol>1", "<transportLayerProtocol>3"},
			{"<processNodeName>ucm-pub.example.com", "<processNodeName>capf.example.com"},
		}, Original{ModeNonsecure, true, "SIP41.8-5-3S", twoMembers}},
		{"SCCP, authenticated at a mixed-mode UCM", "sccp.xml", proxied, []change{
			{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
			{"<processNodeName>ucm-pub.example.com", "<processNodeName>203.0.113.11"},
			{"<srstOption>User Specific", "<srstOption>Disable"},
			{"<ipAddr1>10.20.0.20", "<ipAddr1>"},
			{"<pcPort>0", "<pcPort>1"},
			{"<voiceVlanAccess>0", "<voiceVlanAccess>1"},
			{"<webAccess>2", "<webAccess>1"},
			{"<loadServer>10.20.0.5", "<loadServer>"},
			{"", "<spanToPCPort>1</spanToPCPort>"},
			{"<deviceSecurityMode>2", "<deviceSecurityMode>3"},
			{"<proxyServerURL/>\n", "<proxyServerURL>203.0.113.20:8080</proxyServerURL>\n"},
			{"<processNodeName>CUCM4", "<processNodeName>203.0.113.11"},
			{"<certHash>c2hhMQ==", "<certHash>"},
			{"<encrConfig>true", "<encrConfig>false"},
			{`<member priority="0"><port>2445</port><address>10.20.0.10</address></member>`, ""},
		}, Original{ModeAuthenticated, false, "SCCP41.8-5-3S", twoMembers}},
		{"CM 4.1: elements missing, Latin-1, CRLF, no declaration", "cm41.xml", proxied, []change{
			{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
			{"<garp>0", "<garp>1"},
			{"<webAccess>0", "<webAccess>1"},
			{"", "<spanToPCPort>1</spanToPCPort>"},
			{"<processNodeName>CUCM4", "<processNodeName>203.0.113.11"},
			{"", "<deviceSecurityMode>3</deviceSecurityMode><proxyServerURL>203.0.113.20:8080</proxyServerURL>"},
		}, Original{ModeUnknown, false, "CP7912080004", []Member{{"10.20.0.10", 2000, 5060, 5061}}}},
		{"XMLDefault: addresses only", "default.xml", proxied, []change{
			{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
		}, Original{Members: []Member{{"10.20.0.10", 2000, 5060, 5061}}}},
		{"XMLDefault behind PAT", "default.xml", pat, []change{
			{"<ethernetPhonePort>2000", "<ethernetPhonePort>7000"},
			{"", "<securedSipPort>7061</securedSipPort>"},
			{"<processNodeName>10.20.0.10", "<processNodeName>203.0.113.10"},
		}, Original{Members: []Member{{"10.20.0.10", 2000, 5060, 5061}}}},
		{"IP Communicator, authenticated", "sip.xml", ConfigParams{CIPC: true, AuthenticateCIPC: true, KeepServiceSettings: true}, []change{
			{"<deviceSecurityMode>1", "<deviceSecurityMode>2"},
			{"<transportLayerProtocol>1", "<transportLayerProtocol>3"},
		}, Original{ModeNonsecure, true, "SIP41.8-5-3S", twoMembers}},
		{"IP Communicator, as it is", "sip.xml", ConfigParams{CIPC: true, KeepServiceSettings: true}, nil,
			Original{ModeNonsecure, true, "SIP41.8-5-3S", twoMembers}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src, err := os.ReadFile("testdata/cnf/" + tt.file)
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(src)
			got, orig, err := secureConfig(src, tt.p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(src, before) {
				t.Error("secureConfig changed its input")
			}
			if d := cmp.Diff(tt.want, diff(src, got), cmp.AllowUnexported(change{})); d != "" {
				t.Errorf("changes (-want +got)\n%s", d)
			}
			if d := cmp.Diff(tt.orig, orig); d != "" {
				t.Errorf("original (-want +got)\n%s", d)
			}
			again, _, err := secureConfig(got, tt.p)
			if err != nil || tt.p.Ports == nil && !bytes.Equal(again, got) {
				t.Errorf("made secure twice it differs (%v): %v", err, diff(got, again))
			}
		})
	}
}

// TestSecureConfigForms holds the rewriter to the odd forms that files have.
func TestSecureConfigForms(t *testing.T) {
	keep := ConfigParams{KeepServiceSettings: true, Map: facing}
	full := ConfigParams{Map: facing, ProxyServer: "a&b:8080"}
	ports := ConfigParams{KeepServiceSettings: true, Ports: func(Member) (uint16, uint16) { return 7443, 7061 }}
	plain := ConfigParams{KeepServiceSettings: true, Ports: func(Member) (uint16, uint16) { return 2443, 5061 }}
	tests := []struct {
		name    string
		p       ConfigParams
		in, out string
	}{
		{"self-closing", keep, "<device><deviceSecurityMode/></device>", "<device><deviceSecurityMode>3</deviceSecurityMode></device>"},
		{"self-closing with attribute", keep, `<device><deviceSecurityMode a="b/" /></device>`, `<device><deviceSecurityMode a="b/" >3</deviceSecurityMode></device>`},
		{"self-closing root", keep, "<device/>", "<device><deviceSecurityMode>3</deviceSecurityMode></device>"},
		{"self-closing root, several", full, "<device/>", "<device><deviceSecurityMode>3</deviceSecurityMode><proxyServerURL>a&amp;b:8080</proxyServerURL>" +
			"<vendorConfig><webAccess>1</webAccess><spanToPCPort>1</spanToPCPort></vendorConfig></device>"},
		{"self-closing vendorConfig", ConfigParams{}, "<device><deviceSecurityMode>3</deviceSecurityMode><vendorConfig/></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><vendorConfig><webAccess>1</webAccess><spanToPCPort>1</spanToPCPort></vendorConfig></device>"},
		{"comment and CDATA", keep, "<device><deviceSecurityMode><!-- <x> -->1</deviceSecurityMode><encrConfig><![CDATA[true]]></encrConfig></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><encrConfig>false</encrConfig></device>"},
		{"says it already, in its own way", keep, "<device><deviceSecurityMode> <![CDATA[3]]><!-- --></deviceSecurityMode><encrConfig>&#102;alse</encrConfig></device>",
			"<device><deviceSecurityMode> <![CDATA[3]]><!-- --></deviceSecurityMode><encrConfig>&#102;alse</encrConfig></device>"},
		{"inside comment and CDATA", keep, "<device><deviceSecurityMode>3</deviceSecurityMode><!--<encrConfig>true</encrConfig>--><a><![CDATA[<encrConfig>true</encrConfig>]]></a></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><!--<encrConfig>true</encrConfig>--><a><![CDATA[<encrConfig>true</encrConfig>]]></a></device>"},
		{"twice", keep, "<device><deviceSecurityMode>1</deviceSecurityMode><sipProfile/><transportLayerProtocol>1</transportLayerProtocol><x><transportLayerProtocol>2</transportLayerProtocol></x><deviceSecurityMode>2</deviceSecurityMode></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><sipProfile/><transportLayerProtocol>3</transportLayerProtocol><x><transportLayerProtocol>3</transportLayerProtocol></x><deviceSecurityMode>3</deviceSecurityMode></device>"},
		{"SIP by its load, transport missing", keep, "<device><deviceSecurityMode>3</deviceSecurityMode><loadInformation>P0S3-8-12</loadInformation></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><loadInformation>P0S3-8-12</loadInformation><transportLayerProtocol>3</transportLayerProtocol></device>"},
		{"SCCP although it has a sipProfile", keep, "<device><deviceSecurityMode>3</deviceSecurityMode><deviceProtocol>SCCP</deviceProtocol><sipProfile/></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><deviceProtocol>SCCP</deviceProtocol><sipProfile/></device>"},
		{"entities in a host", ConfigParams{KeepServiceSettings: true, Map: func(h string) (string, bool) { return h + "<&>", h == `a&b'"` }},
			"<device><deviceSecurityMode>3</deviceSecurityMode><callManager><processNodeName>a&amp;b&apos;&quot;</processNodeName></callManager></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><callManager><processNodeName>a&amp;b'\"&lt;&amp;&gt;</processNodeName></callManager></device>"},
		{"host unknown to us", keep, "<device><deviceSecurityMode>3</deviceSecurityMode><callManager><processNodeName>far.example.com</processNodeName></callManager></device>",
			"<device><deviceSecurityMode>3</deviceSecurityMode><callManager><processNodeName>far.example.com</processNodeName></callManager></device>"},
		{"ports missing", ports, "<Default><callManager><ports><x/></ports></callManager><callManager/><callManager><ports/></callManager></Default>",
			"<Default><callManager><ports><x/><ethernetPhonePort>7000</ethernetPhonePort><securedSipPort>7061</securedSipPort></ports></callManager>" +
				"<callManager><ports><ethernetPhonePort>7000</ethernetPhonePort><securedSipPort>7061</securedSipPort></ports></callManager>" +
				"<callManager><ports><ethernetPhonePort>7000</ethernetPhonePort><securedSipPort>7061</securedSipPort></ports></callManager></Default>"},
		{"ports missing, and as they are by default", plain, "<Default><callManager><ports/></callManager><callManager/></Default>", "<Default><callManager><ports/></callManager><callManager/></Default>"},
		{"port that was moved at the UCM", plain, "<Default><callManager><ports><ethernetPhonePort>2010</ethernetPhonePort></ports></callManager></Default>",
			"<Default><callManager><ports><ethernetPhonePort>2000</ethernetPhonePort></ports></callManager></Default>"},
		{"declaration, BOM, comments around, NULs after", keep, "\xef\xbb\xbf<?xml version='1.0' encoding='iso-8859-1'?>\r\n<!DOCTYPE device>\n<!-- a -->\n<device><a>\xe9\xff</a></device>\n<!-- b -->\x00\x00",
			"\xef\xbb\xbf<?xml version='1.0' encoding='iso-8859-1'?>\r\n<!DOCTYPE device>\n<!-- a -->\n<device><a>\xe9\xff</a><deviceSecurityMode>3</deviceSecurityMode></device>\n<!-- b -->\x00\x00"},
		{"space in tags", keep, "<device\n><deviceSecurityMode\t>1</deviceSecurityMode ></device >", "<device\n><deviceSecurityMode\t>3</deviceSecurityMode ></device >"},
		{"names that only begin alike", keep, "<device><deviceSecurityMode>3</deviceSecurityMode><encrConfigX>true</encrConfigX></device>", "<device><deviceSecurityMode>3</deviceSecurityMode><encrConfigX>true</encrConfigX></device>"},
		{"IP Communicator by its load", ConfigParams{KeepServiceSettings: true, AuthenticateCIPC: true}, "<device><loadInformation>CIPC-8-6</loadInformation></device>",
			"<device><loadInformation>CIPC-8-6</loadInformation><deviceSecurityMode>2</deviceSecurityMode></device>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := secureConfig([]byte(tt.in), tt.p)
			if err != nil || string(got) != tt.out {
				t.Errorf("secureConfig(%q)\n got %q, %v\nwant %q", tt.in, got, err, tt.out)
			}
		})
	}
}

func TestSecureConfigDamaged(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"empty", "", "byte 0: no root element"},
		{"text", "File not found", "byte 0: text outside the root"},
		{"HTML", "<html></html>", "byte 0: root element <html>"},
		{"not closed", "<device><a></device>", "byte 11: </device> closes <a> of byte 8"},
		{"cut off", "<device><a>1</a>", "byte 16: <device> of byte 0 is not closed"},
		{"cut off in a tag", "<device><a", "byte 8: start tag without its end"},
		{"cut off in an end tag", "<device></device", "byte 8: end tag without its end"},
		{"two roots", "<device></device><device/>", "byte 17: second root element"},
		{"text after", "<device></device>x", "byte 17: text outside"},
		{"closes nothing", "</device>", "byte 0: </device> closes nothing"},
		{"closed twice", "<device></device></device>", "byte 17: </device> closes nothing"},
		{"bare &", "<device>R&D</device>", "byte 9: & that begins no reference"},
		{"bare & at the end", "<device>R&</device>", "byte 9: & that"},
		{"no name", "<device>< a/></device>", "byte 8: no element name"},
		{"number for a name", "<device><1/></device>", "byte 8: no element name"},
		{"no attribute name", `<device ="a"/>`, "byte 8: no attribute name"},
		{"no =", `<device a b="c"/>`, "byte 8: attribute without ="},
		{"no quote", `<device a=b/>`, "byte 8: attribute without a quoted"},
		{"value not ended", `<device a="b></device>`, "byte 8: attribute value without"},
		{"attributes together", `<device a="b"c="d"/>`, "byte 13: no space"},
		{"comment not ended", "<device><!-- </device>", "byte 8: comment without its end"},
		{"CDATA not ended", "<device><![CDATA[ </device>", "byte 8: CDATA without its end"},
		{"CDATA outside", "<![CDATA[x]]><device/>", "byte 0: CDATA outside"},
		{"instruction not ended", "<?xml <device/>", "byte 0: processing instruction without"},
		{"declarations", "<!DOCTYPE device [<!ENTITY x 'y'>]><device/>", "byte 0: document type"},
		{"document type inside", "<device><!DOCTYPE x></device>", "byte 8: document type"},
		{"other declaration", "<!ELEMENT x><device/>", "byte 0: no element name"},
		{"control character", "<device>\x01</device>", "byte 8: control character 0x01"},
		{"NUL", "<device>\x00</device>", "byte 8: control character 0x00"},
		{"UTF-16", "\xff\xfe<\x00d\x00", "byte 0: text outside"},
		{"element for a value", "<device><deviceSecurityMode><x/></deviceSecurityMode></device>", "byte 8: <deviceSecurityMode> holds elements"},
		{"too deep", strings.Repeat("<device>", maxDepth+1), fmt.Sprintf("byte %d: over 64 elements within", 8*maxDepth)},
		{"too many", "<device>" + strings.Repeat("<a/>", maxElements), "over 65536 elements"},
		{"too large", "<device>" + strings.Repeat(" ", MaxConfig), "over 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, err := secureConfig([]byte(tt.in), ConfigParams{})
			if err == nil || got != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("secureConfig(%.80q) = %.80q, %v; want %q", tt.in, got, err, tt.want)
			}
			if tt.name != "too large" && !errors.Is(err, errXML) {
				t.Errorf("%v is not %v", err, errXML)
			}
		})
	}
}

// FuzzSecureConfig checks that what is served is well formed, is secure, and
// keeps what it was made of.
func FuzzSecureConfig(f *testing.F) {
	for _, name := range []string{"sip.xml", "sccp.xml", "cm41.xml", "default.xml"} {
		if b, err := os.ReadFile("testdata/cnf/" + name); err == nil {
			f.Add(b)
		}
	}
	for _, s := range []string{
		"<device/>", "<device><vendorConfig/><deviceSecurityMode/></device>", "<Default><callManager/></Default>",
		"<device><TVS><members><callManager><ports/></callManager></members></TVS></device>",
		"<device><a b='c'/><!-- --><![CDATA[]]>&amp;&#65;</device>\x00",
	} {
		f.Add([]byte(s))
	}
	p := ConfigParams{Map: facing, ProxyServer: "203.0.113.20:8080", Ports: func(Member) (uint16, uint16) { return 7443, 7061 }}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, _, err := secureConfig(src, p)
		if err != nil {
			if got != nil {
				t.Fatalf("bytes beside %v", err)
			}
			return
		}
		if len(got) > MaxConfig {
			return
		}
		again, orig, err := secureConfig(got, p)
		if err != nil {
			t.Fatalf("what was made of %q does not scan: %q: %v", src, got, err)
		}
		if !bytes.Equal(again, got) {
			t.Fatalf("made secure twice it differs:\n%q\n%q", got, again)
		}
		cipc := hasPrefixFold(orig.Load, "CIPC")
		if doc, _ := scan(got); doc.name(0) == "device" && !cipc && orig.Mode != ModeEncrypted {
			t.Fatalf("mode %v in %q", orig.Mode, got)
		}
	})
}

func BenchmarkSecureConfig(b *testing.B) {
	src, err := os.ReadFile("testdata/cnf/sip.xml")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, _, err := secureConfig(src, ConfigParams{Map: facing}); err != nil {
			b.Fatal(err)
		}
	}
}
