package appliance

import (
	"bytes"
	"strings"
	"testing"

	"patchbay/appliance/pki"
	"patchbay/stack"
)

// What nobody wants to know of costs no more than asking.
func TestQuietLogCostsNothing(t *testing.T) {
	b := execBox(t)
	b.send("inside", synPacket("10.20.0.50:4000", "192.0.2.5:80"), stack.Forward)
	c := connList(b.table)[0]
	r, p := b.data.report, b.arrive("outside", synPacket("198.51.100.7:4000", "203.0.113.10:22"))
	p.Parse()
	pl := b.plan()
	x := new(decision)
	pl.decide(x, p, b.identity, b.data.pat)
	if n := testing.AllocsPerRun(100, func() {
		r.opened(c)
		r.closed(c, "TCP FINs")
		for v := range stack.Verdict(60) {
			r.denied(p, x, v, pl)
		}
	}); n != 0 {
		t.Errorf("%v allocations for messages that nobody wants", n)
	}
}

// An entry that says "log disable" is silent; "log" has a message of its own;
// all others are told of with the hash that "show access-list" has.
func TestDenyMessages(t *testing.T) {
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := newTracedBox(t, baseConfig+`
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
object network ucm
 host 10.20.0.11
 nat (inside,outside) static 203.0.113.10
access-list outside_in extended deny tcp any any eq 21
access-list outside_in extended deny tcp any any eq 22 log disable
access-list outside_in extended deny tcp any any eq 23 log
access-group outside_in in interface outside
logging enable
logging buffered warnings
`, store)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	for _, port := range []string{"21", "22", "23", "24"} {
		b.send("outside", synPacket("198.51.100.7:4000", "203.0.113.10:"+port), stack.DropACL)
	}
	lines := b.Syslog().Lines()
	if len(lines) != 2 || !strings.Contains(lines[0], `dst inside:10.20.0.11/21 by access-group "outside_in" [0x`) || !strings.HasSuffix(lines[1], `/24 by access-group "outside_in" [0x0, 0x0]`) {
		t.Fatalf("logged:\n%s", strings.Join(lines, "\n"))
	}
	_, hash, _ := strings.Cut(lines[0], "[0x")
	hash, _, _ = strings.Cut(hash, ",")
	var list bytes.Buffer
	if err := b.Exec(&list, "show access-list outside_in"); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(list.String()[strings.Index(list.String(), " line 1 "):], "\n")
	if !strings.HasSuffix(first, hash) {
		t.Errorf("the log says 0x%s of\n%s", hash, first)
	}
}

// Before 8.3 lists are about addresses as packets carry them, and so are the
// messages about what lists have decided.
func TestDenyMessagesBefore83(t *testing.T) {
	b := newTracedBox(t, strings.Replace(baseConfig, "ASA Version 9.1(7)\n", "", 1)+`
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
static (inside,outside) 203.0.113.10 10.20.0.11 netmask 255.255.255.255
access-list outside_in extended deny tcp any host 203.0.113.10 eq 22
access-list outside_in extended deny tcp any host 203.0.113.10 eq 23 log
access-list outside_out extended deny tcp host 203.0.113.10 any eq 23 log
access-list outside_out extended permit ip any any
access-group outside_in in interface outside
access-group outside_out out interface outside
logging enable
logging buffered informational
`, nil)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	b.send("outside", synPacket("198.51.100.7:4000", "203.0.113.10:22"), stack.DropACL)
	b.send("outside", synPacket("198.51.100.7:4000", "203.0.113.10:23"), stack.DropACL)
	b.send("inside", synPacket("10.20.0.11:4000", "198.51.100.7:23"), stack.DropACL)
	got := strings.Join(b.Syslog().Lines(), "\n")
	for _, want := range []string{
		`-106023: Deny tcp src outside:198.51.100.7/4000 dst inside:203.0.113.10/22 by access-group "outside_in"`,
		`-106100: access-list outside_in denied tcp outside/198.51.100.7(4000) -> inside/203.0.113.10(23) hit-cnt 1 first hit`,
		`-106100: access-list outside_out denied tcp inside/203.0.113.10(4000) -> outside/198.51.100.7(23) hit-cnt 1 first hit`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no\n%s\nin\n%s", want, got)
		}
	}
}
