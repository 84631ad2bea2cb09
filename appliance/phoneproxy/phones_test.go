package phoneproxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	home   = netip.MustParseAddrPort("198.51.100.7:33606")
	office = netip.MustParseAddrPort("198.51.100.8:1024")
)

func sec(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }

// device returns the name of test phone n.
func device(n int) string { return fmt.Sprintf("SEP0200%08X", n) }

var addrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func TestDeviceName(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"SEP001122334455", "SEP001122334455"},
		{"sep001122aabbcc", "SEP001122AABBCC"},
		{"SEP00112233445", ""},
		{"SEP0011223344556", ""},
		{"SEP00112233445G", ""},
		{"SIP001122334455", ""},
		{"\u017fEP00112233445", ""}, // 15 bytes, upper case in Unicode S
		{"", ""},
	} {
		got, ok := DeviceName(tt.name)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("DeviceName(%q) = %q, %v; want %q", tt.name, got, ok, tt.want)
		}
	}
}

func TestPhones(t *testing.T) {
	ps := &Phones{Timeout: time.Minute}
	if err := ps.Note("sep001122334455", home, "outside", sec(0)); err != nil {
		t.Fatal(err)
	}
	if err := ps.Note("SEP0011223344FF", home, "outside", sec(1)); err != nil {
		t.Fatal(err)
	}
	if err := ps.Note("SEPIPCTEST", home, "outside", sec(1)); !errors.Is(err, errDevice) {
		t.Errorf("Note of a free name: %v", err)
	}
	if !ps.Seen("SEP001122334455", sec(30)) || ps.Seen("SEP000000000000", sec(30)) || ps.Seen("x", sec(30)) {
		t.Error("Seen does not tell known phones from unknown")
	}
	orig := Original{Mode: ModeNonsecure, SIP: true, Members: []Member{{"10.20.0.11", 2000, 5060, 5061}}}
	if !ps.SetOriginal("SEP001122334455", orig, sec(30)) {
		t.Error("SetOriginal: no such phone")
	}
	want := []Phone{
		{Device: "SEP001122334455", Addr: home, Iface: "outside", Created: sec(0), LastSeen: sec(30), Timeout: time.Minute, Original: orig},
		{Device: "SEP0011223344FF", Addr: home, Iface: "outside", Created: sec(1), LastSeen: sec(1), Timeout: time.Minute},
	}
	if diff := cmp.Diff(want, ps.List(sec(40)), addrs); diff != "" {
		t.Errorf("List (-want +got)\n%s", diff)
	}
	if got, ok := ps.Lookup("sep001122334455", sec(90)); !ok || got.MAC() != "0011.2233.4455" || got.Idle(sec(90)) != time.Minute {
		t.Errorf("Lookup at the timeout: %+v, %v", got, ok)
	}
	if got := ps.List(sec(62)); len(got) != 1 {
		t.Errorf("List after one timed out: %+v", got)
	}
	if got := ps.Expire(sec(62)); got != 1 {
		t.Errorf("Expire = %d, want 1", got)
	}
	if _, ok := ps.Lookup("SEP001122334455", sec(91)); ok {
		t.Error("Lookup finds a phone that timed out")
	}
	if ps.Seen("SEP001122334455", sec(91)) {
		t.Error("a phone that timed out came back by being seen")
	}
	if got := ps.Most(); got != 2 {
		t.Errorf("Most = %d, want 2", got)
	}
	checkPhones(t, ps)
}

// TestPhonesMove has phones, and those who pretend to be them, change address.
func TestPhonesMove(t *testing.T) {
	var ps Phones
	note := func(addr netip.AddrPort, now int) {
		t.Helper()
		if err := ps.Note(device(1), addr, "outside", sec(now)); err != nil {
			t.Fatal(err)
		}
	}
	at := func(now int) netip.AddrPort {
		p, _ := ps.Lookup(device(1), sec(now))
		return p.Addr
	}
	note(home, 0)
	if note(office, 1); at(1) != office {
		t.Errorf("an unproved phone asks from %v: at %v", office, at(1))
	}
	tls := netip.AddrPortFrom(home.Addr(), 50000)
	if err := ps.Authenticated(device(1), tls, "outside", sec(2)); err != nil || at(2) != tls {
		t.Errorf("proved from %v: at %v, %v", tls, at(2), err)
	}
	if note(office, 3); at(3) != tls {
		t.Errorf("anyone moved a proved phone to %v", at(3))
	}
	if p, _ := ps.Lookup(device(1), sec(3)); p.LastSeen != sec(2) || !p.Authenticated {
		t.Errorf("anyone kept a proved phone alive: %+v", p)
	}
	if note(home, 4); at(4) != home {
		t.Errorf("a proved phone asks from its own address: at %v", at(4))
	}
	if err := ps.Authenticated(device(1), office, "dmz", sec(5)); err != nil || at(5) != office {
		t.Errorf("proved from %v: at %v, %v", office, at(5), err)
	}
	if err := ps.Authenticated(device(2), home, "outside", sec(6)); err != nil {
		t.Errorf("a phone without an entry: %v", err)
	}
	if p, ok := ps.Lookup(device(2), sec(6)); !ok || p.Addr != home || p.Created != sec(6) {
		t.Errorf("a phone without an entry: %+v, %v", p, ok)
	}
	if err := ps.Authenticated("x", home, "outside", sec(6)); !errors.Is(err, errDevice) {
		t.Errorf("Authenticated of no name: %v", err)
	}
	checkPhones(t, &ps)
	if got := ps.Clear(office.Addr()); got != 1 {
		t.Errorf("Clear of an address = %d, want 1", got)
	}
	if got := ps.Clear(netip.Addr{}); got != 1 || len(ps.List(sec(6))) != 0 {
		t.Errorf("Clear of all = %d, left %v", got, ps.List(sec(6)))
	}
	checkPhones(t, &ps)
}

// TestPhonesFlood has strangers ask for the files of phones that do not exist.
func TestPhonesFlood(t *testing.T) {
	from := func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}), 1024)
	}
	ps := &Phones{Max: 10, PerSource: 4}
	for i := range 3 {
		if err := ps.Note(device(i), home, "outside", sec(0)); err != nil {
			t.Fatal(err)
		}
		if err := ps.Authenticated(device(i), home, "outside", sec(0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ps.Note(device(3), office, "outside", sec(0)); err != nil { // not yet proved
		t.Fatal(err)
	}
	for i := range 1000 { // one source: it turns over its own four
		if err := ps.Note(device(100+i), from(1), "outside", sec(1)); err != nil {
			t.Fatal(err)
		}
	}
	names := func() []string {
		var ns []string
		for _, p := range ps.List(sec(2)) {
			ns = append(ns, p.Device)
		}
		slices.Sort(ns)
		return ns
	}
	want := []string{device(0), device(1), device(2), device(3), device(1096), device(1097), device(1098), device(1099)}
	if diff := cmp.Diff(want, names(), cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("after a flood from one source (-want +got)\n%s", diff)
	}
	for i := range 200 { // many sources: all that is unproved may go
		if err := ps.Note(device(5000+i), from(i), "outside", sec(1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if _, ok := ps.Lookup(device(i), sec(2)); !ok {
			t.Errorf("flood pushed out %s, which had proved its name", device(i))
		}
	}
	checkPhones(t, ps)
	for i := range 10 { // all places proved: a stranger gets none, a proved phone does
		if err := ps.Authenticated(device(9000+i), home, "outside", sec(3)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ps.Note(device(1), from(1), "outside", sec(4)); !errors.Is(err, errFull) {
		t.Errorf("Note in a database of proved phones: %v", err)
	}
	if err := ps.Authenticated(device(1), home, "outside", sec(4)); err != nil || len(ps.List(sec(4))) != 10 {
		t.Errorf("Authenticated in a full database: %v, %d phones", err, len(ps.List(sec(4))))
	}
	if err := ps.Note(device(2), from(1), "outside", sec(400)); err != nil {
		t.Errorf("Note when all have timed out: %v", err)
	}
	checkPhones(t, ps)
}

// TestPhonesRandom does random things and compares with a slow model.
func TestPhonesRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ps := &Phones{Timeout: 10 * time.Second, Max: 1000}
	model := make(map[string]Phone)
	live := func(d string, now time.Time) (Phone, bool) {
		p, ok := model[d]
		if ok && now.Sub(p.LastSeen) > 10*time.Second {
			delete(model, d)
			return Phone{}, false
		}
		return p, ok
	}
	now := start
	for range 20000 {
		now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		d := device(r.IntN(40))
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.IntN(3))}), uint16(r.IntN(3)))
		switch r.IntN(6) {
		case 0, 1:
			p, ok := live(d, now)
			if !ok {
				p = Phone{Device: d, Created: now}
			}
			if !p.Authenticated || p.Addr.Addr() == addr.Addr() {
				p.Addr, p.Iface, p.LastSeen, p.Timeout = addr, "outside", now, 10*time.Second
			}
			model[d] = p
			ps.Note(d, addr, "outside", now)
		case 2:
			p, ok := live(d, now)
			if !ok {
				p = Phone{Device: d, Created: now, Addr: addr}
			}
			if p.Addr.Addr() != addr.Addr() {
				p.Addr = addr
			}
			p.Iface, p.LastSeen, p.Timeout, p.Authenticated = "outside", now, 10*time.Second, true
			model[d] = p
			ps.Authenticated(d, addr, "outside", now)
		case 3:
			p, ok := live(d, now)
			if ok {
				p.LastSeen = now
				model[d] = p
			}
			if got := ps.Seen(d, now); got != ok {
				t.Fatalf("Seen(%s) = %v, want %v", d, got, ok)
			}
		case 4:
			want, wok := live(d, now)
			got, ok := ps.Lookup(d, now)
			if ok != wok || cmp.Diff(want, got, addrs) != "" {
				t.Fatalf("Lookup(%s) = %+v, %v; want %+v, %v", d, got, ok, want, wok)
			}
		case 5:
			ps.Expire(now)
		}
	}
	var want []Phone
	for d := range model {
		if p, ok := live(d, now); ok {
			want = append(want, p)
		}
	}
	byName := cmpopts.SortSlices(func(a, b Phone) bool { return a.Device < b.Device })
	if diff := cmp.Diff(want, ps.List(now), addrs, byName); diff != "" {
		t.Errorf("List (-want +got)\n%s", diff)
	}
	checkPhones(t, ps)
}

// checkPhones checks that the lists hold what the map holds.
func checkPhones(t *testing.T, ps *Phones) {
	t.Helper()
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if got := ps.unproved.Len() + ps.proved.Len(); got != len(ps.devices) {
		t.Errorf("%d entries in lists, %d in the map", got, len(ps.devices))
	}
	n := 0
	for src, l := range ps.sources {
		if l.Len() == 0 {
			t.Errorf("empty list of source %v", src)
		}
		n += l.Len()
		for f := l.Front(); f != nil; f = f.Next() {
			if e := f.Value.(*entry); e.Addr.Addr() != src || e.Authenticated {
				t.Errorf("source %v holds %+v", src, e.Phone)
			}
		}
	}
	if n != ps.unproved.Len() {
		t.Errorf("%d entries by source, %d unproved", n, ps.unproved.Len())
	}
}

func BenchmarkSeen(b *testing.B) {
	var ps Phones
	for i := range 1000 {
		ps.Authenticated(device(i), home, "outside", start)
	}
	d := device(500)
	b.ReportAllocs()
	for b.Loop() {
		ps.Seen(d, start)
	}
}
