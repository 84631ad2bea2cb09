package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// execBox is a box for commands: NAT, lists and policies of every kind.
func execBox(t testing.TB) *tracedBox {
	t.Helper()
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := baseConfig + `
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
object network inside-net
 subnet 10.20.0.0 255.255.255.0
 nat (inside,outside) dynamic interface
object network ucm
 host 10.20.0.11
 nat (inside,outside) static 203.0.113.10
object-group network far
 network-object host 192.0.2.5
 network-object 198.51.100.0 255.255.255.0
object-group service voice tcp
 port-object eq 2000
 port-object eq 5060
access-list outside_in remark phones
access-list outside_in extended permit tcp object-group far object ucm object-group voice
access-list outside_in extended permit udp any any neq 69
access-group outside_in in interface outside
class-map inspection_default
 match default-inspection-traffic
policy-map global_policy
 class inspection_default
  inspect sip
  inspect skinny
  inspect icmp
service-policy global_policy global
`
	b := newTracedBox(t, text, store)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	return b
}

// do does a command that must not be refused, and returns what it shows.
func (b *tracedBox) do(line string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.Exec(&out, line); err != nil {
		b.t.Fatalf("%s: %v", line, err)
	}
	return out.String()
}

// send has a packet arrive, and fails if that is not what becomes of it.
func (b *tracedBox) send(in string, data []byte, want stack.Verdict) {
	b.t.Helper()
	if v, _ := b.handle(b.arrive(in, data)); v != want {
		b.t.Fatalf("a packet from %s: %v, want %v", in, v, want)
	}
}

func udpPacket(src, dst string, n int) []byte {
	return stack.AppendUDP(nil, flow(stack.UDP, src, dst), make([]byte, n))
}

func synPacket(src, dst string) []byte {
	return stack.AppendTCP(nil, flow(stack.TCP, src, dst), stack.TCPHeader{Flags: stack.FlagSYN, Window: 8192, MSS: 1460}, nil)
}

func TestExecRefuses(t *testing.T) {
	b := execBox(t)
	tests := []struct{ line, want string }{
		{"", "ERROR: % Incomplete command"},
		{"show", "ERROR: % Incomplete command"},
		{"show c", "ERROR: % Ambiguous command:  \"c\""},
		{"show conn bogus", "show conn bogus\n          ^\nERROR: % Invalid input detected at '^' marker."},
		{"  show frob", "  show frob\n       ^\nERROR: % Invalid input detected at '^' marker."},
		{"show conn address 10.20.0.300", "show conn address 10.20.0.300\n                  ^\nERROR: % Invalid input detected at '^' marker.\n10.20.0.300 is not an IPv4 address"},
		{"show conn port 9-5", "show conn port 9-5\n               ^\nERROR: % Invalid input detected at '^' marker.\nthe range 9-5 runs backwards"},
		{"show interface wan", "show interface wan\n               ^\nERROR: % Invalid input detected at '^' marker.\nthere is no interface wan; there are outside, inside, dmz, lab"},
		{"show access-list none", "show access-list none\n                 ^\nERROR: % Invalid input detected at '^' marker.\nthere is no access-list none"},
		{"clear conn", "ERROR: % Incomplete command"},
		{"capture a", "ERROR: % Incomplete command"},
		{"capture a type asp-drop bogus", "capture a type asp-drop bogus\n                        ^\nERROR: % Invalid input detected at '^' marker.\nbogus is no reason for a drop; \"show asp drop\" has their names"},
		{"capture a match ip any any", "ERROR: % Capture a has no interface yet; name one with \"interface\""},
		{"capture a interface inside match icmp any eq 5 any", "ERROR: % icmp has no ports; only tcp and udp have"},
		{"capture a interface inside match tcp any gt 65535 any", "ERROR: % These ports are none"},
		{"capture a interface inside buffer 2000 buffer 3000", "ERROR: % There are 2 \"buffer\" in one command"},
		{"capture ../a interface inside", "capture ../a interface inside\n        ^\nERROR: % Invalid input detected at '^' marker.\n../a is no name"},
		{"no capture a", "ERROR: Capture <a> does not exist"},
		{"show capture a", "ERROR: Capture <a> does not exist"},
		{"clear capture a", "ERROR: Capture <a> does not exist"},
		{"copy /pcap capture:a disk0:/a.pcap", "ERROR: Capture <a> does not exist"},
		{"packet-tracer input inside tcp 10.20.0.5 80 192.0.2.5", "ERROR: % Incomplete command"},
		{"packet-tracer input identity udp 10.20.0.5 80 192.0.2.5 1", "packet-tracer input identity udp 10.20.0.5 80 192.0.2.5 1\n                    ^\nERROR: % Invalid input detected at '^' marker.\nthere is no interface identity; there are outside, inside, dmz, lab"},
		{"show clock\x1b[2J", "ERROR: % Command has the control character '\\x1b'"},
		{strings.Repeat("a", 511), "ERROR: % Command of 511 bytes is too long: 510 at most"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		err := b.Exec(&out, tt.line)
		var refusal *Refusal
		if !errors.As(err, &refusal) || err.Error() != tt.want || out.Len() > 0 {
			t.Errorf("Exec(%q) = %v, %q\nwant %s", tt.line, err, out.String(), tt.want)
		}
	}
}

// Connections of each kind, as they are shown short and long, and ended.
func TestExecConns(t *testing.T) {
	b := execBox(t)
	b.send("inside", udpPacket("10.20.0.50:5000", "192.0.2.5:53", 5), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:53", "203.0.113.2:5000", 6), stack.Forward)
	b.send("inside", udpPacket("10.20.0.51:5000", "192.0.2.5:53", 5), stack.Forward)
	b.send("outside", udpPacket("192.0.2.6:9", "203.0.113.10:9", 1), stack.Forward)
	b.now = b.now.Add(65 * time.Second)
	b.send("inside", synPacket("10.20.0.50:4000", "192.0.2.5:80"), stack.Forward)
	port := connList(b.table)[1].Server().Src.Port()

	want := fmt.Sprintf(`4 in use, 4 most used
UDP outside 192.0.2.5:53 inside 10.20.0.50(203.0.113.2):5000, idle 0:01:05, bytes 11, flags -
UDP outside 192.0.2.5:53 inside 10.20.0.51:5000(203.0.113.2:%d), idle 0:01:05, bytes 5, flags -
UDP outside 192.0.2.6:9 inside 10.20.0.11(203.0.113.10):9, idle 0:01:05, bytes 1, flags -
TCP outside 192.0.2.5:80 inside 10.20.0.50(203.0.113.2):4000, idle 0:00:00, bytes 0, flags saA
`, port)
	if diff := cmp.Diff(want, b.do("show conn")); diff != "" {
		t.Errorf("show conn (-want +got):\n%s", diff)
	}
	if got := b.do("sh conn port 4000 det"); !strings.HasSuffix(got, "TCP outside:192.0.2.5/80 (192.0.2.5/80) inside:10.20.0.50/4000 (203.0.113.2/4000),\n"+
		"    flags saA, idle 0s, uptime 0s, timeout 30s, bytes 0, id 4\n") {
		t.Errorf("show conn detail:\n%s", got)
	}
	for line, n := range map[string]int{
		"show conn address 10.20.0.50": 2, "show conn address 10.20.0.50-10.20.0.51": 3, "show conn protocol udp": 3, "show conn port www": 1,
		"show conn address 10.20.0.11 protocol tcp": 0, "show conn port 50-60 protocol udp": 2, "show conn address 203.0.113.10": 1,
	} {
		if got := strings.Count(b.do(line), "flags"); got != n {
			t.Errorf("%s: %d connections, want %d", line, got, n)
		}
	}
	if got := b.do("clear conn address 10.20.0.50 protocol tcp"); got != "1 connection(s) deleted.\n" {
		t.Errorf("clear conn: %q", got)
	}
	if got := b.do("clear conn all"); got != "3 connection(s) deleted.\n" || b.table.Len() != 0 {
		t.Errorf("clear conn all: %q, %d left", got, b.table.Len())
	}
	if got := b.do("show xlate count"); got != "4 in use, 4 most used\n" { // lingering, and the static one
		t.Errorf("after clear conn: %q", got)
	}
	b.do("clear xlate")
	if got := b.do("show xlate count"); got != "1 in use, 4 most used\n" {
		t.Errorf("after clear xlate: %q", got)
	}
}

// Before 8.3 lists name mapped addresses, and so do the elements that count.
func TestElementCountsMapped(t *testing.T) {
	text := "ASA Version 8.2(5)\n" + baseConfig + `
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
object-group network servers
 network-object host 203.0.113.9
 network-object host 203.0.113.10
access-list outside_in extended permit udp any object-group servers
access-list outside_out extended permit udp object-group servers any
access-group outside_in in interface outside
access-group outside_out out interface outside
static (inside,outside) 203.0.113.10 10.20.0.11 netmask 255.255.255.255
`
	b := newTracedBox(t, text, nil)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	b.send("outside", udpPacket("192.0.2.5:4000", "203.0.113.10:53", 0), stack.Forward)
	b.send("inside", udpPacket("10.20.0.11:9", "192.0.2.6:9", 0), stack.Forward)
	want := `access-list outside_in; 2 elements
access-list outside_in line 1 extended permit udp any object-group servers (hitcnt=1)
  access-list outside_in line 1 extended permit udp any host 203.0.113.9 (hitcnt=0)
  access-list outside_in line 1 extended permit udp any host 203.0.113.10 (hitcnt=1)
access-list outside_out; 2 elements
access-list outside_out line 1 extended permit udp object-group servers any (hitcnt=1)
  access-list outside_out line 1 extended permit udp host 203.0.113.9 any (hitcnt=0)
  access-list outside_out line 1 extended permit udp host 203.0.113.10 any (hitcnt=1)
`
	if diff := cmp.Diff(want, withoutHashes(b.do("show access-list outside_in")+b.do("show access-list outside_out"))); diff != "" {
		t.Errorf("show access-list (-want +got):\n%s", diff)
	}
}

func TestExecCounters(t *testing.T) {
	b := execBox(t)
	for range 2 {
		b.send("outside", synPacket("198.51.100.7:4000", "203.0.113.10:5060"), stack.Forward)
		b.do("clear conn all")
	}
	b.send("outside", synPacket("192.0.2.5:4000", "203.0.113.10:2000"), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:4000", "203.0.113.10:53", 0), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:4000", "203.0.113.10:69", 0), stack.DropACL)
	got := b.do("show access-list outside_in")
	want := `access-list outside_in; 5 elements
access-list outside_in line 1 remark phones
access-list outside_in line 2 extended permit tcp object-group far object ucm object-group voice (hitcnt=3)
  access-list outside_in line 2 extended permit tcp host 192.0.2.5 host 10.20.0.11 eq 2000 (hitcnt=1)
  access-list outside_in line 2 extended permit tcp host 192.0.2.5 host 10.20.0.11 eq sip (hitcnt=0)
  access-list outside_in line 2 extended permit tcp 198.51.100.0 255.255.255.0 host 10.20.0.11 eq 2000 (hitcnt=0)
  access-list outside_in line 2 extended permit tcp 198.51.100.0 255.255.255.0 host 10.20.0.11 eq sip (hitcnt=2)
access-list outside_in line 3 extended permit udp any any neq 69 (hitcnt=1)
`
	if diff := cmp.Diff(want, withoutHashes(got)); diff != "" {
		t.Errorf("show access-list (-want +got):\n%s", diff)
	}
	if again := b.do("show access-list outside_in"); again != got {
		t.Error("the hashes are not the same each time")
	}
	b.do("clear access-list outside_in counters")
	if got := b.do("show access-list"); strings.Contains(got, "hitcnt=1") || strings.Contains(got, "hitcnt=2") || strings.Contains(got, "hitcnt=3") {
		t.Errorf("after clear:\n%s", got)
	}
	if got := b.do("show nat"); !strings.Contains(got, "source static ucm 203.0.113.10\n    translate_hits = 0, untranslate_hits = 4\n") {
		t.Errorf("show nat:\n%s", got)
	}
	b.do("clear nat counters")
	if got := b.do("show nat detail"); !strings.Contains(got, "    translate_hits = 0, untranslate_hits = 0\n    Source - Origin: 10.20.0.11, Translated: 203.0.113.10\n") {
		t.Errorf("show nat after clear:\n%s", got)
	}
	drop := "  Flow is denied by configured rule (acl-drop)                           1\n"
	if got := b.do("show asp drop"); !strings.Contains(got, drop) || !strings.Contains(got, "Last clearing: Never") {
		t.Errorf("show asp drop:\n%s", got)
	}
	if got := b.do("show asp drop frame no-route"); strings.Contains(got, "acl-drop") {
		t.Errorf("show asp drop frame no-route:\n%s", got)
	}
	if got := b.do("show interface outside"); !strings.Contains(got, "\t5 packets input") || !strings.Contains(got, "\t1 packets dropped\n\t  1 acl-drop\n") {
		t.Errorf("show interface:\n%s", got)
	}
	b.do("clear asp drop")
	if got := b.do("show asp drop"); strings.Contains(got, drop) || !strings.Contains(got, "Last clearing: 09:00:00 UTC Mar 2 2026 by enable_15") {
		t.Errorf("show asp drop after clear:\n%s", got)
	}
}

// withoutHashes cuts the hashes off the lines of show access-list.
func withoutHashes(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), "; name hash: 0x")
		if i := strings.LastIndex(line, " 0x"); i >= 0 {
			line = line[:i]
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// clear service-policy sets counts to 0, of one interface or all, and leaves
// connections and the bucket.
func TestExecServicePolicy(t *testing.T) {
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newTracedBox(t, baseConfig+`
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
class-map icmp
 match any
policy-map global_policy
 class icmp
  inspect icmp
  set connection conn-max 1
policy-map edge
 class icmp
  police input 8000 1000
service-policy global_policy global
service-policy edge interface inside
`, store)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	ping := stack.AppendICMPEcho(nil, flow(stack.ICMP, "10.20.0.50:7", "192.0.2.5:0"), 1, make([]byte, 572))
	b.send("inside", ping, stack.Forward)
	b.send("inside", ping, stack.DropRate)
	b.send("inside", udpPacket("10.20.0.50:1", "192.0.2.5:1", 0), stack.DropLimit)
	shown := func(want ...string) {
		t.Helper()
		got := b.do("show service-policy")
		for _, s := range want {
			if !strings.Contains(got, s) {
				t.Errorf("show service-policy lacks %q:\n%s", s, got)
			}
		}
	}
	shown("Inspect: icmp, packet 1, drop 0", "current conns 1, drop 1", "conformed 2 packets, 628 bytes", "exceeded 1 packets, 600 bytes")
	b.do("clear service-policy interface inside")
	shown("Inspect: icmp, packet 1, drop 0", "current conns 1, drop 1", "conformed 0 packets, 0 bytes", "exceeded 0 packets, 0 bytes")
	b.do("clear service-policy")
	shown("Inspect: icmp, packet 0, drop 0", "current conns 1, drop 0")
	b.send("inside", ping, stack.DropRate) // the bucket is as empty as before
}

func TestExecSystem(t *testing.T) {
	b := execBox(t)
	b.now = b.now.Add(26 * time.Hour)
	for line, want := range map[string]string{
		"show clock":              "11:00:00.000 UTC Tue Mar 3 2026\n",
		"show version":            "up 1 days 2 hours",
		"show route":              "Gateway of last resort is 203.0.113.1 to network 0.0.0.0\n\nS*    0.0.0.0 0.0.0.0 [1/0] via 203.0.113.1, outside\nC     10.20.0.0 255.255.255.0 is directly connected, inside\nL     10.20.0.1 255.255.255.255 is directly connected, inside\n",
		"show interface ip brief": "GigabitEthernet0/1         10.20.0.1       YES CONFIG up                    up\n",
		"show service-policy":     "      Inspect: sip, packet 0, drop 0, reset-drop 0\n",
		"show sip":                "Total: 0\n",
		"show skinny":             "LOCAL                   FOREIGN                 STATE\n",
		"show local-host":         "Interface inside: 0 active\n",
		"show xlate":              "NAT from inside:10.20.0.11 to outside:203.0.113.10 flags s idle 26:00:00 timeout 0:00:00\n",
	} {
		if got := b.do(line); !strings.Contains(got, want) {
			t.Errorf("%s:\n%s\nwant in it %q", line, got, want)
		}
	}
}

func TestExecARP(t *testing.T) {
	b := execBox(t)
	now := func() time.Time { return b.now }
	here, there := link.FramePair(1500, link.MAC{2, 0, 0, 0, 0, 1}, link.MAC{2, 0, 0, 0, 0, 2}, now)
	own := link.NewEthernet(here, link.Options{Now: now})
	other := link.NewEthernet(there, link.Options{Now: now})
	defer own.Close()
	defer other.Close()
	inside := b.plan().named("inside")
	inside.Link = own
	own.SetAddrs(inside.Addr, nil)
	other.SetAddrs(netip.MustParsePrefix("10.20.0.50/24"), nil)
	for _, e := range []*link.Ethernet{own, other} {
		go func() { // ARP is dealt with by whoever reads
			batch := []*stack.Packet{stack.NewPacket(1500)}
			for {
				if _, err := e.Read(batch); err != nil {
					return
				}
			}
		}()
	}
	p := b.arrive("outside", udpPacket("192.0.2.5:1", "10.20.0.50:1", 0))
	p.Parse()
	p.Out, p.NextHop = inside, netip.MustParseAddr("10.20.0.50")
	if err := own.Write([]*stack.Packet{p}); err != nil {
		t.Fatal(err)
	}
	want := "\tinside 10.20.0.50 0200.0000.0002 0\n"
	deadline := time.Now().Add(5 * time.Second)
	for b.do("show arp") != want && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if got := b.do("show arp"); got != want {
		t.Fatalf("show arp: %q, want %q", got, want)
	}
	b.now = b.now.Add(90 * time.Second)
	if got := b.do("show arp"); got != strings.Replace(want, " 0\n", " 90\n", 1) {
		t.Errorf("show arp after 90 s: %q", got)
	}
	b.do("clear arp")
	if got := b.do("show arp"); got != "" {
		t.Errorf("show arp after clear arp: %q", got)
	}
}

// A capture sees packets as they are on its interface, in both directions, and
// keeps what it is asked to.
func TestExecCapture(t *testing.T) {
	b := execBox(t)
	b.do("capture in interface inside")
	b.do("capture out interface outside match udp host 192.0.2.5 eq 53 any")
	b.do("capture drops type asp-drop acl-drop")
	b.do("capture all type asp-drop all packet-length 64 circular-buffer buffer 1534")
	b.send("inside", udpPacket("10.20.0.50:5000", "192.0.2.5:53", 5), stack.Forward)
	b.send("outside", udpPacket("192.0.2.5:53", "203.0.113.2:5000", 6), stack.Forward)
	b.send("outside", udpPacket("192.0.2.6:53", "203.0.113.10:9", 6), stack.Forward) // the other host
	b.send("outside", synPacket("192.0.2.6:53", "203.0.113.10:9"), stack.DropACL)
	b.send("outside", udpPacket("192.0.2.6:53", "10.20.0.50:9", 6), stack.DropNATReverse)

	want := `
2 packets captured

   1: 09:00:00.000000 10.20.0.50.5000 > 192.0.2.5.53: udp 5
   2: 09:00:00.000000 192.0.2.5.53 > 10.20.0.50.5000: udp 6
2 packets shown
`
	got := b.do("show capture in")
	got = strings.Replace(strings.Replace(got, "   3: 09:00:00.000000 192.0.2.6.53 > 10.20.0.11.9: udp 6\n", "", 1), "3 packets", "2 packets", 2)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("show capture in (-want +got):\n%s", diff)
	}
	want = `
2 packets captured

   1: 09:00:00.000000 203.0.113.2.5000 > 192.0.2.5.53: udp 5 (ttl 63, id 0)
   2: 09:00:00.000000 192.0.2.5.53 > 203.0.113.2.5000: udp 6 (ttl 64, id 0)
2 packets shown
`
	if diff := cmp.Diff(want, b.do("show capture out detail")); diff != "" {
		t.Errorf("show capture out (-want +got):\n%s", diff)
	}
	if got := b.do("show capture drops"); !strings.Contains(got, "   1: 09:00:00.000000 192.0.2.6.53 > 203.0.113.10.9: S 0:0(0) win 8192 <mss 1460> "+
		"Drop-reason: (acl-drop) Flow is denied by configured rule\n1 packets shown\n") {
		t.Errorf("show capture drops:\n%s", got)
	}
	if got := b.do("show capture all packet-number 2 count 1"); !strings.Contains(got, "   2: 09:00:00.000000 192.0.2.6.53 > 10.20.0.50.9: udp 6 Drop-reason: (nat-rpf-failed)") {
		t.Errorf("show capture all:\n%s", got)
	}
	if got := b.do("show capture out dump"); !strings.Contains(got, "0x0000\t 4500 0021 0000 ") {
		t.Errorf("show capture dump:\n%s", got)
	}
	want = `capture all type asp-drop all buffer 1534 packet-length 64 circular-buffer [Capturing - 118 bytes]
capture drops type asp-drop acl-drop [Capturing - 64 bytes]
capture in type raw-data interface inside [Capturing - 161 bytes]
capture out type raw-data interface outside [Capturing - 107 bytes]
  match udp host 192.0.2.5 eq domain any
`
	if diff := cmp.Diff(want, b.do("show capture")); diff != "" {
		t.Errorf("show capture (-want +got):\n%s", diff)
	}

	// To flash, whole, and under no name but a plain one.
	if got := b.do("copy /pcap capture:out disk0:/out.pcap"); got != "!\n2 packets copied\n" {
		t.Errorf("copy: %q", got)
	}
	f, err := os.Open(filepath.Join(b.opt.Store.Dir(), "out.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := link.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(1500)
	for n := 0; ; n++ {
		if _, err := r.Next(p); err == io.EOF {
			if n != 2 {
				t.Errorf("%d packets on flash, want 2", n)
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"disk0:/../x.pcap", "disk0:/a/b.pcap", "disk0:/key-a.pem", "disk0:/.pcap", "disk0:.x.pcap", "tftp://x/y.pcap", "/etc/x.pcap", "disk0:/a.pcap.pem", `disk0:/a\b.pcap`} {
		if err := b.Exec(io.Discard, "copy /pcap capture:out "+to); err == nil {
			t.Errorf("copy to %s: no error", to)
		}
	}

	b.do("clear capture in")
	if got := b.do("show capture in"); !strings.Contains(got, "0 packets captured") {
		t.Errorf("after clear capture:\n%s", got)
	}
	for _, name := range []string{"in", "out", "drops", "all"} {
		b.do("no capture " + name)
	}
	if got := b.do("show capture"); got != "" {
		t.Errorf("after no capture:\n%s", got)
	}
	b.dropped = stack.Forward
	b.send("outside", synPacket("192.0.2.6:53", "203.0.113.10:9"), stack.DropACL) // OnDrop still hears of it
}

// Captures add up to three matches and more interfaces, and are bounded.
func TestExecCaptureLimits(t *testing.T) {
	b := execBox(t)
	b.do("capture c interface inside match tcp any any eq www")
	b.do("capture c interface outside match icmp any any")
	b.do("capture c match udp 10.20.0.0 255.255.255.0 range 1 9 host 192.0.2.5 neq 53")
	if err := b.Exec(io.Discard, "capture c match ip any any"); err == nil {
		t.Error("a fourth match: no error")
	}
	if got := b.do("show capture"); got != "capture c type raw-data interface inside interface outside [Capturing - 0 bytes]\n"+
		"  match tcp any any eq www\n  match icmp any any\n  match udp 10.20.0.0 255.255.255.0 range 1 discard host 192.0.2.5 neq domain\n" {
		t.Errorf("show capture:\n%s", got)
	}
	if err := b.Exec(io.Discard, "capture c type asp-drop"); err == nil {
		t.Error("another type: no error")
	}
	for n := range maxCaptures - 1 {
		b.do(fmt.Sprintf("capture c%d interface inside", n))
	}
	if err := b.Exec(io.Discard, "capture more interface inside"); err == nil {
		t.Errorf("capture %d: no error", maxCaptures+1)
	}
	for n := range maxCaptures - 1 {
		if b.Exec(io.Discard, fmt.Sprintf("capture c%d buffer 33554432", n)) != nil {
			return
		}
	}
	t.Error("captures may take any amount of memory")
}

// Capturing allocates nothing for a packet.
func TestCaptureAllocations(t *testing.T) {
	b := execBox(t)
	b.do("capture a interface inside match udp any any circular-buffer")
	b.do("capture b interface outside access-list outside_in circular-buffer")
	data := udpPacket("10.20.0.50:5000", "192.0.2.5:53", 100)
	b.send("inside", data, stack.Forward)
	c := b.captures.list()
	p := b.arrive("inside", data)
	p.Parse()
	inside, outside := b.plan().named("inside"), b.plan().named("outside")
	n := testing.AllocsPerRun(1000, func() {
		for _, c := range c {
			c.pass(p, inside, false)
			c.pass(p, outside, true)
		}
	})
	if kept, _ := c[0].ring.Len(); n != 0 || kept < 1000 {
		t.Errorf("%v allocations for a packet, %d kept", n, kept)
	}
}

// FuzzExec does any commands: nothing panics, and what is shown is bounded.
func FuzzExec(f *testing.F) {
	for _, s := range []string{
		"show conn address 10.20.0.5 detail", "clear xlate global 203.0.113.2", "capture a interface inside match tcp any eq 80 host 10.20.0.5",
		"show capture a dump", "no capture a", "copy /pcap capture:a disk0:/a.pcap", "show access-list outside_in", "sh nat det",
		"packet-tracer input outside tcp 192.0.2.5 80 203.0.113.10 sip detailed", "packet-tracer input inside icmp 10.20.0.5 8 0 7 192.0.2.5",
		"packet-tracer input lab rawip 10.40.0.5 255 255.255.255.255", "show service-policy interface outside police", "capture b type asp-drop all\x00",
		"crypto ca import x pkcs12 y", "show crypto ca certificates", "show ctl-file", "crypto ca authenticate x fingerprint 00",
	} {
		f.Add(s)
	}
	b := execBox(f)
	f.Fuzz(func(t *testing.T, line string) {
		b.now = b.now.Add(time.Second)
		b.handle(b.arrive("inside", udpPacket("10.20.0.50:5000", "192.0.2.5:53", 5)))
		var out bytes.Buffer
		err := b.Exec(&out, line)
		const most = 1 << 20 // bytes; the box has few of everything
		if out.Len() > most {
			t.Errorf("%q shows %d bytes", line, out.Len())
		}
		var refusal *Refusal
		var need *NeedText
		if err != nil && !errors.As(err, &refusal) && !errors.As(err, &need) {
			t.Errorf("%q: %v is neither Refusal nor NeedText", line, err)
		}
		for _, c := range b.captures.list() { // bounded above all commands
			if len(b.captures.list()) > 4 {
				b.Exec(io.Discard, "no capture "+c.name)
			}
		}
	})
}
