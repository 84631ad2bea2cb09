package config_test

import (
	"bytes"
	order "cmp"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/config"
)

// texts are configurations that load without error on a box that has every
// feature: this folder's and, where they are at hand, the reference's.
func texts(t testing.TB) map[string]string {
	all := make(map[string]string)
	files, err := filepath.Glob("../../../shared/reference/configs/*.cfg")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "testdata/nonsecure.cfg", "testdata/legacy.cfg", "testdata/asa.cfg") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(data)
	}
	return all
}

// cases are the configurations of the regression suite and of the demo.
func cases(t testing.TB) map[string]string {
	all := texts(t)
	files, err := filepath.Glob("../../pcaps/*/config.cfg")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range append(files, "../../cmd/patchbay/demo.cfg") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file)] = string(data)
	}
	return all
}

func load(t testing.TB, text string) config.Text {
	t.Helper()
	c, found := config.Load("pb.cfg", strings.NewReader(text), false)
	if config.Errors(found) > 0 {
		t.Fatalf("Load: %v", found)
	}
	return c
}

// TestFixedPoint loads what was rendered, which must give the same.
func TestFixedPoint(t *testing.T) {
	for name, text := range cases(t) {
		t.Run(name, func(t *testing.T) {
			c, _ := config.Load(name, strings.NewReader(text), true)
			once := c.String()
			again, more := config.Load(name, strings.NewReader(once), false)
			if config.Errors(more) > 0 {
				t.Fatalf("of what was rendered: %v\n%s", more, once)
			}
			if !again.Equal(c) || again.String() != once {
				t.Errorf("Load(Render) is another text:\n%s\nwant\n%s", again, once)
			}
			var all strings.Builder
			if err := c.Render(&all, true); err != nil {
				t.Fatal(err)
			}
			again, more = config.Load(name, strings.NewReader(all.String()), false)
			if config.Errors(more) > 0 {
				t.Fatalf("of what was rendered with defaults: %v\n%s", more, &all)
			}
			var diff strings.Builder
			config.Diff(&diff, c, again)
			for line := range strings.Lines(diff.String()) { // the ASA prints timeouts also when they are the defaults
				if !strings.HasPrefix(line, "+timeout ") {
					t.Errorf("Load(Render with defaults) differs:\n%s", &diff)
					break
				}
			}
		})
	}
}

// A typist types lines as an operator does, and does what a console would do of
// the actions among them: a certificate stands in for each that it would get.
type typist struct {
	c    config.Text
	at   config.Place
	want config.Text // what the file says, with the same certificates

	ca    string // trustpoint of a certificate that is being typed
	lines []string
}

func (x *typist) line(t *testing.T, line string) {
	t.Helper()
	if x.ca != "" {
		if line != "quit" {
			x.lines = append(x.lines, line)
			return
		}
		p, _ := pem.Decode([]byte(strings.Join(x.lines, "\n") + "\n"))
		if p == nil {
			t.Fatalf("no certificate in %q", x.lines)
		}
		x.c, x.ca, x.lines = x.c.WithCertificate(x.ca, true, p.Bytes), "", nil
		return
	}
	if strings.HasPrefix(line, "Cryptochecksum:") {
		return
	}
	e := x.c.Enter(x.at, line)
	for _, f := range e.Findings {
		if f.Severity == config.Error && !slices.ContainsFunc(config.Unsupported(), func(s string) bool { return strings.HasPrefix(f.Msg, s) }) {
			t.Errorf("%s", f)
		}
	}
	x.c, x.at = e.Text, e.At
	if strings.HasPrefix(line, "interface ") {
		x.c = e.Text.Enter(e.At, "no shutdown").Text // what is typed is down until then
	}
	if a := e.Action; a != nil {
		switch tp := a.Args.Get("tp"); {
		case a.Args.Has("enroll"):
			der := []byte{0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x07}
			x.c, x.want = x.c.WithCertificate(tp, false, der), x.want.WithCertificate(tp, false, der)
		case a.Args.Has("authenticate"):
			x.ca = tp
		}
	}
}

// TestTyped types each line of a file into an empty configuration. What comes of
// it is what loading the file gives, but for what is done and not kept.
func TestTyped(t *testing.T) {
	for name, text := range texts(t) {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "h-") || name == "legacy.cfg" {
				text = strings.Replace(text, "\n media-termination address 203.0.113.20\n", "\n", 1) // is not typed: V50
				text = regexp.MustCompile(`\nphone-proxy (mypp|pp)\n`).ReplaceAllString(text, "\nmedia-termination m\n address 203.0.113.20\nphone-proxy $1\n media-termination m\n")
			}
			x := typist{}
			x.want, _ = config.Load(name, strings.NewReader(text), true)
			for line := range strings.SplitSeq(text, "\n") {
				x.line(t, line)
			}
			var b bytes.Buffer
			config.Diff(&b, x.want, x.c)
			for line := range strings.Lines(b.String()) {
				if !strings.HasPrefix(line, "-crypto key generate") && !strings.HasPrefix(line, "-crypto ca enroll") {
					t.Errorf("typed and loaded differ:\n%s", &b)
					break
				}
			}
			if _, found := x.c.Running(); config.Errors(found) > 0 {
				t.Errorf("what was typed is wrong: %v", found)
			}
		})
	}
}

// TestMeaning checks that a Text says what the file says that it was loaded from,
// but for the numbers of lines.
func TestMeaning(t *testing.T) {
	ignore := cmp.FilterPath(func(p cmp.Path) bool {
		f, ok := p.Last().(cmp.StructField)
		return ok && (f.Name() == "Line" || f.Name() == "Text" || f.Name() == "Lines" || f.Name() == "File" || f.Name() == "NATControl")
	}, cmp.Ignore())
	for name, text := range cases(t) {
		t.Run(name, func(t *testing.T) {
			want, found := config.Parse(name, strings.NewReader(text))
			if config.Errors(found) > 0 {
				t.Fatal(found)
			}
			c, found := config.Load(name, strings.NewReader(text), false)
			if config.Errors(found) > 0 {
				t.Skipf("on a box without this: %v", found)
			}
			got, _ := c.Running()
			for _, r := range []*config.Running{got, want} { // the order in which it is obeyed
				slices.SortStableFunc(r.NAT, func(a, b config.NATRule) int {
					return order.Or(a.Section-b.Section, strings.Compare(a.Object, b.Object))
				})
				for _, m := range r.PolicyMaps {
					slices.SortStableFunc(m.Classes, func(a, b config.PolicyClass) int {
						last := func(c config.PolicyClass) int { return map[bool]int{true: 1}[c.Class == "class-default"] }
						return last(a) - last(b)
					})
				}
			}
			if diff := cmp.Diff(want, got, compare, ignore); diff != "" {
				t.Errorf("Running (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRewritten loads what is written in other words than the ASA's.
func TestRewritten(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"abbreviations and numbers", "hostn x\nint gi 0/1\nnam inside\naccess-list a permit 17 any any eq 69\naccess-list a deny 6 any any range 5060 5061\n" +
			"logging buffered 6\ntimeout half-closed 0:1:0 conn 0:5:0\npager 24\n",
			"hostname x\n!\ninterface GigabitEthernet0/1\n nameif inside\n security-level 100\n!\n" +
				"access-list a extended permit udp any any eq tftp\naccess-list a extended deny tcp any any range sip 5061\npager 24\n" +
				"logging buffered informational\ntimeout conn 0:05:00 half-closed 0:01:00\n"},
		{"what holds anyway", "interface g0/0\n no shutdown\nctl-file c\n shutdown\n sast 2\nno logging enable\nno logging console\nlogging message 302013\n" +
			"media-termination m\n rtp-min-port 16384 rtp-max-port 32767\nno sysopt connection tcpmss\n",
			"!\ninterface GigabitEthernet0/0\n!\nctl-file c\nmedia-termination m\n"},
		{"said twice", "hostname a\nmtu inside 1\nhostname b\ninterface g0/0\n nameif inside\nhostname c\ninterface g0/0\n nameif outside\nmtu outside 1400\nmtu outside 1300\n", ""},
		{"order", "service-policy p global\nroute o 0.0.0.0 0.0.0.0 10.20.0.9\npolicy-map p\n class class-default\n  set connection conn-max 1\n class c\n" +
			"class-map c\n match any\ninterface g0/0\n ip address 10.20.0.1 255.255.255.0\n nameif o\nhostname x\n",
			"hostname x\n!\ninterface GigabitEthernet0/0\n nameif o\n security-level 0\n ip address 10.20.0.1 255.255.255.0\n!\n" +
				"route o 0.0.0.0 0.0.0.0 10.20.0.9 1\n!\nclass-map c\n match any\n!\n!\npolicy-map p\n class c\n class class-default\n  set connection conn-max 1\n!\n" +
				"service-policy p global\n"},
		{"interfaces", "interface Management0/0\n shutdown\ninterface g0/10\ninterface g0/2\ninterface g0/2.30\n vlan 30\ninterface g0/2.4\n vlan 4\ninterface e0/3\n",
			"interface Ethernet0/3\n!\ninterface GigabitEthernet0/2\n!\ninterface GigabitEthernet0/2.4\n vlan 4\n!\ninterface GigabitEthernet0/2.30\n vlan 30\n!\n" +
				"interface GigabitEthernet0/10\n!\ninterface Management0/0\n shutdown\n"},
		{"two stanzas of an object", "object network a\n host 10.20.0.1\nobject network b\n host 10.20.0.2\n nat (any,any) static 203.0.113.2\nobject network a\n nat (any,any) static 203.0.113.1\n",
			"object network a\n host 10.20.0.1\nobject network b\n host 10.20.0.2\n!\nobject network a\n nat (any,any) static 203.0.113.1\nobject network b\n nat (any,any) static 203.0.113.2\n"},
		{"names", "object network a\n host 10.20.0.1\nname 10.20.0.1 host\nname 10.20.0.2 second\naccess-list a permit ip host second any\n",
			"name 10.20.0.1 host\nname 10.20.0.2 second\nobject network a\n host 10.20.0.1\naccess-list a extended permit ip host second any\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, found := config.Load("pb.cfg", strings.NewReader(tt.text), false)
			if tt.want == "" {
				if config.Errors(found) == 0 {
					t.Errorf("Load = %s; want an error", c)
				}
				return
			}
			if config.Errors(found) > 0 {
				t.Fatal(found)
			}
			got := strings.TrimSuffix(strings.TrimPrefix(c.String(), ": Saved\n:\n"), ": end\n")
			if want := strings.TrimPrefix(tt.want, "!\n"); got != want && got != tt.want {
				t.Errorf("Load and Render: %s", cmp.Diff(tt.want, got))
			}
		})
	}
}

// TestLenient leaves lines out, and what depends on them, and says which.
func TestLenient(t *testing.T) {
	text := `hostname pb
frobnicate everything
router ospf 1
 network 10.20.0.0 255.255.255.0 area 0
interface GigabitEthernet0/0
 nameif outside
 ip address 203.0.113.2 255.255.255.0
 mac-address 0200.0c07.ac01
access-list a extended permit ip any object missing
access-list b extended permit ip any any
access-group a in interface outside
access-group b out interface outside
route inside 0.0.0.0 0.0.0.0 10.20.0.9
`
	if c, found := config.Load("pb.cfg", strings.NewReader(text), false); config.Errors(found) == 0 || !c.Equal(config.Text{}) {
		t.Errorf("Load, not lenient = %q, %v; want errors and nothing", c, found)
	}
	c, found := config.Load("pb.cfg", strings.NewReader(text), true)
	var out []int
	for _, f := range found {
		if f.LeftOut && f.Severity == config.Warning {
			out = append(out, f.Line)
		}
	}
	if want := []int{2, 3, 8, 9, 11, 13}; !slices.Equal(out, want) {
		t.Errorf("left out lines %v, want %v\n%v", out, want, found)
	}
	want := `: Saved
:
hostname pb
!
interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
!
access-list b extended permit ip any any
access-group b out interface outside
: end
`
	if diff := cmp.Diff(want, c.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDiff(t *testing.T) {
	a := load(t, "hostname a\nobject network o\n host 10.20.0.1\n description d\naccess-list l permit ip any any\naccess-list l deny ip any any\n")
	b := load(t, "hostname b\nobject network o\n host 10.20.0.2\n description d\naccess-list l deny ip any any\naccess-list l permit ip any any\ninterface g0/0\n nameif o\nmtu o 1500\n")
	var out strings.Builder
	if err := config.Diff(&out, a, b); err != nil {
		t.Fatal(err)
	}
	want := `-hostname a
+hostname b
+interface GigabitEthernet0/0
+ nameif o
+ security-level 0
 object network o
- host 10.20.0.1
+ host 10.20.0.2
-access-list l extended permit ip any any
+access-list l extended permit ip any any
+mtu o 1500
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// BenchmarkLoad loads a configuration of many entries; the time of one must not
// grow with their number.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "access-list l%d extended permit tcp any host 10.%d.%d.%d eq %d\n", i%7, i>>16, i>>8&255, i&255, 1024+i%1000)
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				if _, found := config.Load("pb.cfg", strings.NewReader(text.String()), false); config.Errors(found) > 0 {
					b.Fatal(found)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/line")
		})
	}
}

// TestTogether uses one Text in many goroutines at once, for the race detector.
func TestTogether(t *testing.T) {
	c := load(t, strings.Join(base(t), "\n"))
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			at := config.Place{}
			d := c
			for _, line := range []string{"name 10.20.0.11 ucm-real", "access-list b permit ip host ucm-real any", "object network x", "host 10.20.9." + strconv.Itoa(i), "no name 10.20.0.11"} {
				e := d.Enter(at, line)
				if config.Errors(e.Findings) > 0 {
					t.Error(e.Findings)
				}
				d, at = e.Text, e.At
				d.Help(at, "no ")
				c.Complete(config.Place{}, "access-list outside_in ")
				c.Running()
			}
			if !strings.Contains(d.String(), "host 10.20.9."+strconv.Itoa(i)) || strings.Contains(c.String(), "ucm-real") {
				t.Errorf("goroutine %d: %s", i, d)
			}
		})
	}
	wait.Wait()
}

// TestOrder loads a whole running configuration as an ASA writes it: rendered, it
// is the same to the letter.
func TestOrder(t *testing.T) {
	data, err := os.ReadFile("testdata/asa.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c := load(t, string(data))
	if diff := cmp.Diff(strings.Split(string(data), "\n"), strings.Split(c.String(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
