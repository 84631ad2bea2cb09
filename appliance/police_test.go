package appliance

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// TestReferencePolice is configuration (g): the phone proxy asks for files at a
// mapped address, and requests are policed where they would leave toward the
// server. 600 requests a second of 80 bytes: 300 a second pass, after a burst of
// 6,000 bytes.
func TestReferencePolice(t *testing.T) {
	const file = "../../shared/reference/configs/g-tftp-police.cfg"
	text, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Skipf("the reference configurations are not here: %v", err)
	}
	box := newDriven(t, "g-tftp-police.cfg", string(text))
	outside := box.plan().named("outside")
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	request := append([]byte("\x00\x01SEP001122334455.cnf.xml.sgn\x00octet\x00"), make([]byte, 52)...)[:52] // 80 bytes with IP and UDP
	p := stack.NewPacket(stack.MaxPacket)
	const seconds, rate = 10, 600
	for i := range seconds * rate {
		f := flow(stack.UDP, "198.51.100.7:20000", "203.0.113.10:69")
		f.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i%200)}), uint16(20000+i))
		p.Reset()
		p.SetData(stack.AppendUDP(nil, f, request))
		p.In, p.Time = outside, begin.Add(time.Duration(i)*time.Second/rate)
		box.Handle(p)
	}
	const burst, steady = 6000 / 80, 300 * seconds
	passed, dropped := box.self.packets, seconds*rate-box.self.packets
	if passed < steady+burst-2 || passed > steady+burst {
		t.Errorf("%d of %d requests passed; want %d", passed, seconds*rate, steady+burst)
	}
	if d := box.Drops()[stack.DropRate]; d != uint64(dropped) {
		t.Errorf("%d dropped as %v, want all %d that did not pass", d, stack.DropRate, dropped)
	}
	if got := box.table.Len(); got > passed {
		t.Errorf("%d connections for %d requests that passed", got, passed)
	}
	var show bytes.Buffer
	if err := box.Exec(&show, "show service-policy police"); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`Interface inside:
  Service-policy: tftp_policy
    Class-map: tftp_class
      Output police Interface inside:
        cir 192000 bps, bc 6000 bytes
        conformed %d packets, %d bytes; actions:  transmit
        exceeded %d packets, %d bytes; actions:  drop
`, passed, passed*80, dropped, dropped*80)
	if !strings.Contains(show.String(), want) {
		t.Errorf("show service-policy:\n%s\nwant in it:\n%s", &show, want)
	}
}

// TestTreat: which class a connection is of, for each end, direction and
// interface.
func TestTreat(t *testing.T) {
	const client, server = "198.51.100.7:5000", "10.20.0.11:69"
	request := flow(stack.UDP, client, server)
	tests := []struct {
		name, add string
		f         stack.Flow // from outside, with real addresses; from inside if its source is the server
		want      string     // rate of the client as it arrives and leaves, of the server; conn-max
	}{
		{"nothing", "", request, "- - - - -"},
		{"output where the request leaves", "policy-map p\n class requests\n  police output 8000\nservice-policy p interface inside\n", request, "- 8000 - - -"},
		{"output on the other interface: it does not leave there", "policy-map p\n class requests\n  police output 8000\nservice-policy p interface outside\n", request, "- - - - -"},
		{"input where it arrives", "policy-map p\n class requests\n  police input 8000\nservice-policy p interface outside\n", request, "8000 - - - -"},
		{"input of the answers", "policy-map p\n class answers\n  police input 8000\nservice-policy p interface inside\n", request, "- - 8000 - -"},
		{"output of the answers", "policy-map p\n class answers\n  police output 8000\nservice-policy p interface outside\n", request, "- - - 8000 -"},
		{"both directions of any, global", "policy-map p\n class all\n  police input 8000\n  police output 9000\nservice-policy p global\n", request, "8000 9000 8000 9000 -"},
		{"the first class that polices that way", "policy-map p\n class requests\n  police input 8000\n class all\n  police input 10000\n  police output 9000\nservice-policy p global\n", request, "8000 9000 10000 9000 -"},
		{"class-default is the last", "policy-map p\n class class-default\n  police input 8000\n class requests\n  police input 9000\nservice-policy p interface outside\n", request, "9000 - - - -"},
		{"the interface before all", "policy-map p\n class requests\n  police input 8000\npolicy-map g\n class all\n  police input 9000\nservice-policy g global\nservice-policy p interface outside\n", request, "8000 - 9000 - -"},
		{"an interface's policy without such a rate", "policy-map p\n class all\n  police output 8000\npolicy-map g\n class all\n  police input 9000\nservice-policy g global\nservice-policy p interface outside\n", request, "9000 - 9000 8000 -"},
		{"a class of other traffic", "policy-map p\n class web\n  police input 8000\nservice-policy p global\n", request, "- - - - -"},
		{"a port is the destination's", "policy-map p\n class web\n  police input 8000\n  police output 9000\nservice-policy p global\n",
			flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:80"), "8000 9000 - - -"},
		{"from inside", "policy-map p\n class answers\n  police output 8000\nservice-policy p interface outside\n", flow(stack.UDP, server, client), "- 8000 - - -"},
		{"default-inspection-traffic has ports of its own", "policy-map p\n class defaults\n  police input 8000\nservice-policy p global\n", request, "8000 - - - -"},
		{"and not others", "policy-map p\n class defaults\n  police input 8000\nservice-policy p global\n", flow(stack.UDP, client, "10.20.0.11:70"), "- - - - -"},
		{"set connection", "policy-map p\n class requests\n  set connection conn-max 7\nservice-policy p interface outside\n", request, "- - - - 7"},
		{"set connection on the interface it leaves by", "policy-map p\n class requests\n  set connection conn-max 7\nservice-policy p interface inside\n", request, "- - - - 7"},
		{"set connection, the interface before all", "policy-map p\n class all\n  set connection conn-max 7\npolicy-map g\n class all\n  set connection conn-max 8\nservice-policy g global\nservice-policy p interface inside\n", request, "- - - - 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			box := newDriven(t, "box.cfg", twoLegs(tt.add))
			in, out := box.plan().named("outside"), box.plan().named("inside")
			if tt.f.Src == netip.MustParseAddrPort(server) {
				in, out = out, in
			}
			treat := box.plan().treat(in, out, nat.Query{Flow: tt.f})
			if treat == nil {
				treat = &nat.Treatment{}
			}
			rate := func(l *stack.Policer) string {
				if l == nil {
					return "-"
				}
				return fmt.Sprint(l.Config().Rate)
			}
			most := "-"
			if treat.Limits != nil {
				most = fmt.Sprint(treat.Limits.Config().Max)
			}
			c, s := treat.Police[nat.Client], treat.Police[nat.Server]
			if got := strings.Join([]string{rate(c.Arrive), rate(c.Leave), rate(s.Arrive), rate(s.Leave), most}, " "); got != tt.want {
				t.Errorf("%v: %s, want %s", tt.f, got, tt.want)
			}
		})
	}
}

// TestTreatNotTheBox: what the box says and is told is of no class.
func TestTreatNotTheBox(t *testing.T) {
	box := newDriven(t, "box.cfg", twoLegs("policy-map p\n class class-default\n  police input 8000 1000\n  police output 8000 1000\nservice-policy p global\n"))
	inside := box.plan().named("inside")
	f := flow(stack.TCP, "10.20.0.1:5000", "10.20.0.11:80")
	for _, pair := range [][2]*stack.Interface{{box.identity, inside}, {inside, box.identity}} {
		if got := box.plan().treat(pair[0], pair[1], nat.Query{Flow: f}); got != nil {
			t.Errorf("from %v to %v: %+v, want nothing", pair[0], pair[1], got)
		}
	}
	for range 3 {
		p := stack.NewPacket(1500)
		p.SetData(stack.AppendICMPEcho(nil, flow(stack.ICMP, "10.20.0.50:9", "10.20.0.1:0"), 1, make([]byte, 900)))
		p.In, p.Time = inside, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		box.Handle(p)
	}
	if n := box.inside.packets; n != 3 {
		t.Errorf("%d of 3 pings of the box are answered", n)
	}
}

// TestSetTimeout: what a class says of times is 0 if it says nothing.
func TestSetTimeout(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{config.Unset: 0, 0: nat.Never, time.Minute: time.Minute} {
		if got := setTimeout(d); got != want {
			t.Errorf("setTimeout(%v) = %v, want %v", d, got, want)
		}
	}
}
