package config_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/config"
)

const twoInterfaces = "interface g0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\n" +
	"interface g0/1\n nameif inside\n ip address 10.20.0.1 255.255.255.0\n" // 6 lines

func host(a string) config.AddrSpec { return config.AddrSpec{From: addr(a), To: addr(a)} }

func named(a, object string) config.AddrSpec {
	s := host(a)
	s.Object = object
	return s
}

func service(proto uint8, src, dst []config.PortSpec) config.Service {
	return config.Service{Proto: proto, SrcPorts: src, DstPorts: dst, ICMPType: -1, ICMPCode: -1}
}

func port(from, to uint16) []config.PortSpec { return []config.PortSpec{{From: from, To: to}} }

// TestEntries gives lines of which the last is an entry, and what it means.
func TestEntries(t *testing.T) {
	const (
		ucms  = "object-group network ucms\n network-object host 10.20.0.11\n network-object object second\nobject network second\n host 10.20.0.12\n"
		ports = "object-group service phone_ports tcp\n port-object eq 2443\n port-object range sip 5061\n"
	)
	all := config.AddrSpec{Any: true, From: addr("0.0.0.0"), To: addr("255.255.255.255")}
	both := []config.AddrSpec{host("10.20.0.11"), named("10.20.0.12", "second")}
	phonePorts := []config.PortSpec{{From: 2443, To: 2443}, {From: 5060, To: 5061}}
	type specs = []config.AddrSpec
	type services = []config.Service
	tests := []struct {
		name, text string
		srcs, dsts specs
		services   services
	}{
		{"groups of addresses and ports", ucms + ports + "access-list a permit tcp any object-group ucms object-group phone_ports", specs{all}, both,
			services{service(6, nil, phonePorts)}},
		{"ports of the source", ucms + ports + "access-list a permit tcp object-group ucms object-group phone_ports any eq 2000", both, specs{all},
			services{service(6, phonePorts, port(2000, 2000))}},
		{"three groups", ucms + ports + "access-list a permit tcp object-group ucms object-group ucms object-group phone_ports", both, both,
			services{service(6, nil, phonePorts)}},
		{"four groups", ucms + ports + "access-list a permit tcp object-group ucms object-group phone_ports object-group ucms object-group phone_ports", both, both,
			services{service(6, phonePorts, phonePorts)}},
		{"group before its definition", "access-list a permit ip object-group later any\nobject-group network later\n network-object 10.20.0.0 255.255.255.0\n",
			specs{{From: addr("10.20.0.0"), To: addr("10.20.0.255")}}, specs{all}, services{service(0, nil, nil)}},
		{"nested, each member once", ucms + "object-group network all\n group-object ucms\n network-object host 10.20.0.11\n network-object host 10.20.0.13\n" +
			"access-list a permit ip object-group all any", specs{both[0], both[1], host("10.20.0.13")}, specs{all}, services{service(0, nil, nil)}},
		{"object service", "object service s\n service udp source gt 1023 destination eq tftp\naccess-list a permit object s any any", specs{all}, specs{all},
			services{service(17, port(1024, 65535), port(69, 69))}},
		{"group of services", "object service s\n service tcp destination eq 2443\nobject-group service g\n service-object object s\n service-object tcp-udp destination eq sip\n" +
			" service-object icmp echo\n service-object gre\n service-object tcp eq www\naccess-list a permit object-group g any any", specs{all}, specs{all},
			services{service(6, nil, port(2443, 2443)), service(6, nil, port(5060, 5060)), service(17, nil, port(5060, 5060)),
				{Proto: 1, ICMPType: 8, ICMPCode: -1}, service(47, nil, nil), service(6, nil, port(80, 80))}},
		{"group of protocols with ports", "object-group protocol tu\n protocol-object udp\n protocol-object tcp\naccess-list a permit object-group tu any any eq sip",
			specs{all}, specs{all}, services{service(17, nil, port(5060, 5060)), service(6, nil, port(5060, 5060))}},
		{"ports of both protocols", "object-group service p tcp-udp\n port-object eq domain\naccess-list a permit udp any any object-group p", specs{all}, specs{all},
			services{service(17, nil, port(53, 53))}},
		{"group of icmp types", "object-group icmp-type i\n icmp-object echo\n icmp-object unreachable\naccess-list a permit icmp any any object-group i", specs{all}, specs{all},
			services{{Proto: 1, ICMPType: 8, ICMPCode: -1}, {Proto: 1, ICMPType: 3, ICMPCode: -1}}},
		{"icmp code", "access-list a permit icmp any any unreachable 4", specs{all}, specs{all}, services{{Proto: 1, ICMPType: 3, ICMPCode: 4}}},
		{"interface", twoInterfaces + "access-list a permit tcp any interface outside eq 2443", specs{all}, specs{host("203.0.113.2")},
			services{service(6, nil, port(2443, 2443))}},
		{"any4", "access-list a extended permit 50 any4 any4", specs{all}, specs{all}, services{service(50, nil, nil)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, found := config.Parse("pb.cfg", strings.NewReader(tt.text))
			if len(found) > 0 {
				t.Fatalf("Parse: %v", found)
			}
			e := r.AccessList("a").Entries[0]
			if diff := cmp.Diff([]any{tt.srcs, tt.dsts, tt.services}, []any{e.Srcs, e.Dsts, e.Services}, compare); diff != "" {
				t.Errorf("entry (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTranslations gives NAT lines and the rules they become.
func TestTranslations(t *testing.T) {
	const objects = twoInterfaces + "object network a\n host 10.20.0.11\nobject network b\n host 203.0.113.11\nobject network net\n subnet 10.20.0.0 255.255.255.0\n" +
		"object network peer\n host 198.51.100.9\nobject network peer_inside\n host 10.99.0.9\nobject network pool\n range 203.0.113.100 203.0.113.110\n" +
		"object-group network pools\n network-object object pool\n network-object host 203.0.113.120\n" +
		"object-group network reals\n network-object host 10.20.0.11\n network-object host 10.20.0.13\nobject network mapped2\n range 203.0.113.30 203.0.113.31\n" +
		"object service sip\n service tcp source eq sip\nobject service sip7\n service tcp source eq 7060\n" +
		"object service d1\n service udp destination eq 1069\nobject service d2\n service udp destination eq tftp\n"
	line := strings.Count(objects, "\n") + 1
	rule := func(n config.NATRule) config.NATRule {
		n.Line, n.RealIf, n.MappedIf = line, "inside", "outside"
		if n.MappedFrom == n.MappedTo && n.Pool == nil {
			n.MappedAddr = n.MappedFrom
		}
		return n
	}
	rng := func(n config.NATRule, real, realTo, mapped, mappedTo string) config.NATRule {
		n.RealFrom, n.RealTo = addr(real), addr(realTo)
		if mapped != "" {
			n.MappedFrom, n.MappedTo = addr(mapped), addr(mappedTo)
		}
		return rule(n)
	}
	dest := func(n config.NATRule, mapped, real string) config.NATRule {
		n.MappedDestFrom, n.MappedDestTo, n.DestFrom, n.DestTo = addr(mapped), addr(mapped), addr(real), addr(real)
		return n
	}
	type N = config.NATRule
	tests := []struct {
		name, text string
		want       []config.NATRule
	}{
		{"identity of all", "nat (inside,outside) source static any any", []N{rng(N{Section: 1, Static: true}, "0.0.0.0", "255.255.255.255", "0.0.0.0", "255.255.255.255")}},
		{"everything", "nat (inside,outside) after-auto source static a b destination static peer_inside peer unidirectional no-proxy-arp route-lookup inactive description for x y",
			[]N{dest(rng(N{Section: 3, Static: true, MappedObject: "b", Unidirectional: true, NoProxyARP: true, RouteLookup: true, Inactive: true, Description: "for x y"},
				"10.20.0.11", "10.20.0.11", "203.0.113.11", "203.0.113.11"), "10.99.0.9", "198.51.100.9")}},
		{"source ports", "nat (inside,outside) source static a interface service sip sip7", []N{rng(N{Section: 1, Static: true, MappedInterface: true, Proto: "tcp",
			RealPort: 5060, MappedPort: 7060, SrcPorts: port(5060, 5060)[0], MappedSrcPorts: port(7060, 7060)[0]}, "10.20.0.11", "10.20.0.11", "", "")}},
		{"destination ports", "nat (inside,outside) source dynamic net interface destination static peer_inside peer service d1 d2", []N{dest(rng(N{Section: 1, MappedInterface: true,
			Proto: "udp", MappedDstPorts: port(1069, 1069)[0], DstPorts: port(69, 69)[0]}, "10.20.0.0", "10.20.0.255", "", ""), "10.99.0.9", "198.51.100.9")}},
		{"destination is the interface", "nat (inside,outside) source static net net destination static interface peer service d1 d2", []N{dest(rng(N{Section: 1, Static: true,
			MappedObject: "net", MappedDestInterface: true, Proto: "udp", MappedDstPorts: port(1069, 1069)[0], DstPorts: port(69, 69)[0]},
			"10.20.0.0", "10.20.0.255", "10.20.0.0", "10.20.0.255"), "10.20.0.1", "198.51.100.9")}},
		{"pool of a group", "nat (inside,outside) source dynamic any pat-pool pools round-robin flat include-reserve extended interface", []N{rng(N{Section: 1, MappedObject: "pools",
			MappedInterface: true, PATPool: true, RoundRobin: true, Flat: true, IncludeReserve: true, Extended: true,
			Pool: []config.AddrSpec{{From: addr("203.0.113.100"), To: addr("203.0.113.110"), Object: "pool"}, host("203.0.113.120")}},
			"0.0.0.0", "255.255.255.255", "203.0.113.100", "203.0.113.110")}},
		{"groups cut into pieces", "nat (inside,outside) source static reals mapped2", []N{
			rng(N{Section: 1, Static: true, MappedObject: "mapped2"}, "10.20.0.11", "10.20.0.11", "203.0.113.30", "203.0.113.30"),
			rng(N{Section: 1, Static: true, MappedObject: "mapped2"}, "10.20.0.13", "10.20.0.13", "203.0.113.31", "203.0.113.31")}},
		{"object to a pool", "object network a\n nat (inside,outside) dynamic pat-pool pool interface dns", []N{rng(N{Section: 2, Object: "a", MappedObject: "pool",
			PATPool: true, MappedInterface: true, DNS: true}, "10.20.0.11", "10.20.0.11", "203.0.113.100", "203.0.113.110")}},
		{"object to an object, net to net", "object network a\n nat (inside,outside) static b net-to-net dns", []N{rng(N{Section: 2, Object: "a", Static: true, MappedObject: "b",
			NetToNet: true, DNS: true}, "10.20.0.11", "10.20.0.11", "203.0.113.11", "203.0.113.11")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, found := config.Parse("pb.cfg", strings.NewReader(objects+tt.text))
			if len(found) > 0 {
				t.Fatalf("Parse: %v", found)
			}
			for i := range tt.want {
				if strings.Contains(tt.text, "\n") {
					tt.want[i].Line = line + 1
				}
			}
			if diff := cmp.Diff(tt.want, r.NAT, compare); diff != "" {
				t.Errorf("NAT (-want +got):\n%s", diff)
			}
		})
	}

	// The order of sections 1 and 3.
	r, found := config.Parse("pb.cfg", strings.NewReader(objects+"nat (inside,outside) source static a b\nnat (inside,outside) after-auto source dynamic any interface\n"+
		"nat (inside,outside) 1 source static net net\nnat (inside,outside) after-auto 1 source dynamic net interface\nnat (inside,outside) 9 source static peer peer\n"))
	var order []int
	for _, section := range []int{config.ManualNAT, config.AfterAutoNAT} {
		for _, n := range r.NAT {
			if n.Section == section {
				order = append(order, n.Line-line)
			}
		}
	}
	if want := []int{2, 0, 4, 3, 1}; len(found) > 0 || !slices.Equal(order, want) {
		t.Errorf("lines in the order of search %v, want %v: %v", order, want, found)
	}
}

// TestLegacy reads NAT of before 8.3.
func TestLegacy(t *testing.T) {
	text := "ASA Version 8.0(4)\nname 10.20.0.11 ucm\n" + twoInterfaces +
		"access-list exempt permit ip 10.20.0.0 255.255.255.0 10.30.0.0 255.255.255.0\n" + // 9
		"access-list policy permit ip host 10.20.0.7 host 198.51.100.9\n" +
		"global (outside) 1 203.0.113.100-203.0.113.109 netmask 255.255.255.0\nglobal (outside) 1 interface\nglobal (outside) 1 203.0.113.110\n" +
		"nat (inside) 0 access-list exempt\nnat (inside) 0 10.20.0.128 255.255.255.128\nnat (inside) 1 0.0.0.0 0.0.0.0\nnat (inside) 1 access-list policy\n" + // 14 to 17
		"static (inside,outside) 203.0.113.10 ucm netmask 255.255.255.255\n" +
		"static (inside,outside) tcp interface 7443 10.20.0.12 2443 netmask 255.255.255.255 0 0\n" +
		"static (inside,outside) 203.0.113.7 access-list policy\nnat-control\n"
	r, found := config.CheckAll("pb.cfg", strings.NewReader(text))
	if len(found) > 0 {
		t.Fatalf("CheckAll: %v", found)
	}
	in := func(n config.NATRule) config.NATRule {
		n.RealIf, n.Legacy = "inside", true
		if n.MappedFrom == n.MappedTo && n.Pool == nil {
			n.MappedAddr = n.MappedFrom
		}
		return n
	}
	pool := []config.AddrSpec{{From: addr("203.0.113.100"), To: addr("203.0.113.109")}, host("203.0.113.110")}
	all, last, ucm, sccp, one := addr("0.0.0.0"), addr("255.255.255.255"), addr("10.20.0.11"), addr("10.20.0.12"), addr("10.20.0.7")
	net := func(a string) (netip.Addr, netip.Addr) { p := prefix(a); return p.Addr(), lastOf(p) }
	n1, n2 := net("10.20.0.0/24")
	d1, d2 := net("10.30.0.0/24")
	h1, h2 := net("10.20.0.128/25")
	peer := addr("198.51.100.9")
	want := []config.NATRule{
		in(config.NATRule{Line: 14, Section: 1, Static: true, RealFrom: n1, RealTo: n2, MappedFrom: n1, MappedTo: n2, DestFrom: d1, DestTo: d2, MappedDestFrom: d1, MappedDestTo: d2}),
		in(config.NATRule{Line: 18, Section: 1, Static: true, MappedIf: "outside", RealFrom: ucm, RealTo: ucm, MappedFrom: addr("203.0.113.10"), MappedTo: addr("203.0.113.10")}),
		in(config.NATRule{Line: 19, Section: 1, Static: true, MappedIf: "outside", RealFrom: sccp, RealTo: sccp, MappedInterface: true, Proto: "tcp",
			RealPort: 2443, MappedPort: 7443, SrcPorts: port(2443, 2443)[0], MappedSrcPorts: port(7443, 7443)[0]}),
		in(config.NATRule{Line: 20, Section: 1, Static: true, MappedIf: "outside", RealFrom: one, RealTo: one, MappedFrom: addr("203.0.113.7"), MappedTo: addr("203.0.113.7"),
			DestFrom: peer, DestTo: peer, MappedDestFrom: peer, MappedDestTo: peer}),
		in(config.NATRule{Line: 17, Section: 1, MappedIf: "outside", RealFrom: one, RealTo: one, MappedFrom: pool[0].From, MappedTo: pool[0].To, Pool: pool, MappedInterface: true,
			DestFrom: peer, DestTo: peer, MappedDestFrom: peer, MappedDestTo: peer}),
		in(config.NATRule{Line: 15, Section: 3, Static: true, MappedIf: "outside", OneWay: true, RealFrom: h1, RealTo: h2, MappedFrom: h1, MappedTo: h2}),
		in(config.NATRule{Line: 16, Section: 3, MappedIf: "outside", RealFrom: all, RealTo: last, MappedFrom: pool[0].From, MappedTo: pool[0].To, Pool: pool, MappedInterface: true}),
	}
	if diff := cmp.Diff(want, r.NAT, compare); diff != "" {
		t.Errorf("NAT (-want +got):\n%s", diff)
	}
	if !r.MappedACL || r.NATControl != 21 {
		t.Errorf("MappedACL %v, NATControl %d; want true, 21", r.MappedACL, r.NATControl)
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr()
	for p.Contains(a.Next()) {
		a = a.Next()
	}
	return a
}

// TestPolicies reads what classes and inspection maps have.
func TestPolicies(t *testing.T) {
	text := "policy-map type inspect sip s\n description x\n match request-method invite\n  drop log\n match not uri sip length gt 200\n  log\n  rate-limit 5\n match content type sdp\n" +
		"  mask\n parameters\n  no im\n  max-forwards-validation action reset log\n  software-version action mask\n  rtp-conformance enforce-payloadtype\n" +
		"policy-map type inspect skinny k\n parameters\n  message-ID max 0x141\n  timeout media 0:02:00\n  sccp-prefix-len max 2048\n  enforce-registration\n match message-id range 100 10F\n  drop\n" +
		"class-map c\n match any\npolicy-map p\n class c\n  police output 192000 6000 conform-action transmit exceed-action drop\n  police input 8000\n" +
		"  set connection conn-max 100 per-client-embryonic-max 7\n  set connection timeout idle 0:30:00 reset embryonic 0:00:10\n  inspect sip s\n class class-default\n  police input 100000\n"
	r, found := config.CheckAll("pb.cfg", strings.NewReader(text))
	if len(found) > 0 {
		t.Fatalf("CheckAll: %v", found)
	}
	sip := config.DefaultSIPMap()
	sip.IM, sip.RTPConformance, sip.EnforcePayload = false, true, true
	sip.MaxForwards = config.MapAction{Line: 12, Action: "reset", Log: true}
	sip.SoftwareVersion = config.MapAction{Line: 13, Action: "mask"}
	sip.Matches = []config.SIPMatch{
		{Line: 3, Method: "invite", Act: config.MapAction{Line: 4, Action: "drop", Log: true}},
		{Line: 5, Not: true, URI: "sip", URILength: 200, Act: config.MapAction{Line: 6, Action: "log", Log: true}, RateLimit: 5},
		{Line: 8, ContentSDP: true, Act: config.MapAction{Line: 9, Action: "mask"}},
	}
	skinny := config.DefaultSkinnyMap()
	skinny.MessageIDMax, skinny.MediaTimeout, skinny.PrefixMax, skinny.EnforceRegistration = 0x141, 2*time.Minute, 2048, true
	skinny.Matches = []config.SkinnyMatch{{Line: 21, From: 0x100, To: 0x10f, Act: config.MapAction{Line: 22, Action: "drop"}}}
	want := []config.PolicyMap{
		{Line: 1, Name: "s", Type: "inspect sip", SIP: sip},
		{Line: 15, Name: "k", Type: "inspect skinny", Skinny: skinny},
		{Line: 25, Name: "p", Classes: []config.PolicyClass{
			{Line: 26, Class: "c", Inspects: []config.Inspect{{Line: 31, Protocol: "sip", Map: "s"}},
				Police: []config.Police{{Line: 27, Direction: "output", RateBPS: 192000, BurstBytes: 6000, Conform: "transmit", Exceed: "drop"},
					{Line: 28, Direction: "input", RateBPS: 8000, BurstBytes: 1000, Conform: "transmit", Exceed: "drop"}},
				Set: &config.SetConnection{Line: 30, ConnMax: 100, PerClientEmbryonicMax: 7, IdleTimeout: 30 * time.Minute, IdleReset: true,
					EmbryonicTimeout: 10 * time.Second, HalfClosedTimeout: config.Unset}},
			{Line: 32, Class: "class-default", Police: []config.Police{{Line: 33, Direction: "input", RateBPS: 100000, BurstBytes: 3125, Conform: "transmit", Exceed: "drop"}}},
		}},
	}
	if diff := cmp.Diff(want, r.PolicyMaps, compare); diff != "" {
		t.Errorf("PolicyMaps (-want +got):\n%s", diff)
	}
	twice := "class-map c\n match any\npolicy-map p\n class c\n  police input 8000\n  police input 9000\npolicy-map type inspect sip s\n match request-method bye\n  drop\n  reset\n"
	if _, found := config.CheckAll("pb.cfg", strings.NewReader(twice)); len(found) != 2 || found[0].Line != 6 || found[1].Line != 10 {
		t.Errorf("police and an action twice: %v", found)
	}
}

func TestTimeRange(t *testing.T) {
	text := "time-range work\n absolute start 08:00 01 January 2026 end 18:00 31 December 2026\n periodic weekdays 8:00 to 17:59\n periodic Friday 22:00 to Sunday 02:00\n" +
		"time-range always\naccess-list a permit ip any any time-range work\naccess-list a permit ip any any time-range always\naccess-list a permit ip any any inactive\n"
	r, found := config.CheckAll("pb.cfg", strings.NewReader(text))
	if len(found) > 0 {
		t.Fatalf("CheckAll: %v", found)
	}
	e := r.AccessList("a").Entries
	zone := time.FixedZone("", 3600)
	for at, want := range map[string]bool{
		"2026-06-01 08:00": true, "2026-06-01 17:59": true, "2026-06-01 18:00": false, "2026-06-01 07:59": false, // a Monday
		"2026-06-05 22:00": true, "2026-06-06 12:00": true, "2026-06-07 02:00": true, "2026-06-07 02:01": false,
		"2026-01-01 07:59": false, "2027-06-01 08:00": false, "2026-12-31 17:59": true,
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", at, zone)
		if err != nil {
			t.Fatal(err)
		}
		if got := e[0].Active(now.Add(30 * time.Second)); got != want {
			t.Errorf("Active(%s) = %v, want %v", at, got, want)
		}
	}
	if now := time.Unix(0, 0); !e[1].Active(now) || e[2].Active(now) || e[0].Times() == nil || e[2].Times() != nil {
		t.Errorf("Active of no bounds %v, of inactive %v; times %v, %v", e[1].Active(now), e[2].Active(now), e[0].Times(), e[2].Times())
	}
}

// TestSystem reads what stands by itself.
func TestSystem(t *testing.T) {
	r, found := config.CheckAll("pb.cfg", strings.NewReader(twoInterfaces+"ip verify reverse-path interface outside\nip verify reverse-path interface outside\n"+
		"sysopt connection tcpmss 1300\nsysopt connection tcpmss minimum 500\ntimeout floating-conn 0:01:00 sunrpc 0:05:00\n"+
		"fragment chain 1 outside\nfragment size 400\nfragment timeout 3\nfragment reassembly full outside\n"))
	if len(found) > 0 {
		t.Fatalf("CheckAll: %v", found)
	}
	got := []any{r.ReversePaths, r.TCPMSS, r.Timeouts.FloatingConn, r.Timeouts.SunRPC, r.Fragments}
	want := []any{[]config.ReversePath{{Line: 7, Interface: "outside"}}, config.TCPMSS{Line: 10, Maximum: 1300, Minimum: 500}, time.Minute, 5 * time.Minute,
		[]config.Fragments{{Line: 12, Interface: "outside", Chain: 1}, {Line: 13, Size: 400}, {Line: 14, Timeout: 3 * time.Second}}}
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTimeoutsWithoutEffect: each timeout either does something here or is said
// by name to do nothing, also in a line of which the rest is obeyed.
func TestTimeoutsWithoutEffect(t *testing.T) {
	tests := []struct {
		line string
		kind config.LineKind
		why  string
	}{
		{"timeout conn 1:00:00 half-closed 0:10:00 udp 0:02:00 icmp 0:00:02", config.Obeyed, ""},
		{"timeout xlate 3:00:00 pat-xlate 0:00:30 sctp 0:02:00 tcp-proxy-reassembly 0:01:00", config.Obeyed, ""},
		{"timeout sip 0:30:00 sip_media 0:02:00 sip-invite 0:03:00 sip-disconnect 0:02:00 sip-provisional-media 0:02:00", config.Obeyed, ""},
		{"timeout sip-provisional-media 0:02:00 uauth 0:05:00 absolute", config.Obeyed, "uauth: users do not log in to pass"},
		{"timeout sunrpc 0:10:00 h323 0:05:00 h225 1:00:00 mgcp 0:05:00 mgcp-pat 0:05:00", config.Inert,
			"sunrpc: there is no such engine; h323: there is no such engine; h225: there is no such engine; mgcp: there is no such engine; mgcp-pat: there is no such engine"},
		{"timeout conn 2:00:00 floating-conn 0:00:30", config.Obeyed, "floating-conn: routes do not change while the box runs"},
		{"timeout conn-holddown 0:00:15 igp stale-route 0:01:10", config.Inert,
			"conn-holddown: routes do not change while the box runs; igp: there is no routing protocol"},
	}
	for _, tt := range tests {
		r, found := config.Check("pb.cfg", strings.NewReader(tt.line+"\n"))
		if len(found) > 0 {
			t.Fatalf("%s: %v", tt.line, found)
		}
		if l := r.Lines[0]; l.Kind != tt.kind || l.Why != tt.why {
			t.Errorf("%s: kind %v, %q; want %v, %q", tt.line, l.Kind, l.Why, tt.kind, tt.why)
		}
		inert := r.Inert()
		if (len(inert) == 1) != (tt.why != "") || len(inert) == 1 && inert[0].Msg != "no effect here: "+tt.why {
			t.Errorf("%s: Inert says %v, want %q", tt.line, inert, tt.why)
		}
	}
}

// TestSetConnectionIdle: "tcp", the word of before 8.2, is of TCP only.
func TestSetConnectionIdle(t *testing.T) {
	for words, want := range map[string]bool{"idle 0:10:00": false, "tcp 0:10:00": true, "tcp 0:10:00 reset": true} {
		r, found := config.CheckAll("pb.cfg", strings.NewReader("class-map c\n match any\npolicy-map p\n class c\n  set connection timeout "+words+"\n"))
		if len(found) > 0 {
			t.Fatalf("%s: %v", words, found)
		}
		if s := r.PolicyMaps[0].Classes[0].Set; s.IdleTCP != want || s.IdleTimeout != 10*time.Minute || s.IdleReset != strings.Contains(words, "reset") {
			t.Errorf("%s: %+v, want IdleTCP %v", words, *s, want)
		}
	}
}

// TestTFTPServer: the box's own TFTP server and the phones' are told apart, where either
// stands.
func TestTFTPServer(t *testing.T) {
	const text = `interface GigabitEthernet0/0
 nameif inside
 ip address 10.20.0.1 255.255.255.0
phone-proxy pp
 tftp-server address 10.20.0.11 interface inside
tftp-server inside 10.20.0.12 /backup/pb.cfg
`
	r, found := config.Check("pb.cfg", strings.NewReader(text))
	if config.Errors(found) > 0 {
		t.Fatal(found)
	}
	if inert := r.Inert(); len(inert) != 1 || inert[0].Line != 6 {
		t.Errorf("without effect: %v; want line 6", inert)
	}
	if p := r.PhoneProxies; len(p) != 1 || len(p[0].TFTPServers) != 1 {
		t.Errorf("phone proxies %+v; want one, with one TFTP server", p)
	}
}
