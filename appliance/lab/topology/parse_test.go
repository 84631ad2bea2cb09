package topology_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patchbay/appliance/config"
	"patchbay/appliance/lab/topology"
)

// good is a text in which each line is needed by another.
const good = `title   A test
config  a.cfg
ca      phone_ca
net     wan 203.0.113.0/24 public
net     house 192.168.1.0/24   # a home
net     lan 10.20.0.0/24
box     outside=wan inside=lan
router  dsl wan=203.0.113.1 house=192.168.1.1
masquerade dsl wan
forward dsl udp 1024-65535 to 192.168.1.50
guard   dsl wan
permit  dsl tcp 192.168.1.50 80
host    home house=192.168.1.50,192.168.1.51 via 192.168.1.1
host    ucm lan=10.20.0.11,10.20.0.50 via 10.20.0.1
manager main 10.20.0.11 backup other media 10.20.0.0/24
manager other 10.20.0.50
site    10.20.0.11 8080
proxy   10.20.0.11 8081
phone   4001 sccp 10.20.0.50 plain tftp 10.20.0.11
phone   4101 sccp 192.168.1.50 secure tftp 203.0.113.10
phone   4102 sip 192.168.1.51 secure tftp 203.0.113.10
call    4101 4001
services 4101
stop    main
`

func TestParse(t *testing.T) {
	got, err := topology.Parse("dir/small.topo", strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "small" || got.Title != "A test" || got.Config != "a.cfg" || len(got.CAs) != 1 {
		t.Errorf("name %q, title %q, config %q, CAs %q", got.Name, got.Title, got.Config, got.CAs)
	}
	if n := got.Net("wan"); n == nil || !n.Public || n.Prefix.String() != "203.0.113.0/24" || got.Net("house").Public {
		t.Errorf("nets %+v", got.Nets)
	}
	r := got.Router("dsl")
	if r == nil || r.Masquerade != "wan" || len(r.Forwards) != 1 || r.Forwards[0].Ports.String() != "1024-65535" ||
		r.Guard != "wan" || len(r.Permits) != 1 || r.Permits[0].Ports.String() != "80" {
		t.Errorf("router %+v", r)
	}
	if len(got.Acts) != 3 || got.Acts[0].Verb != "call" || got.Acts[0].Args[1] != "4001" {
		t.Errorf("acts %+v", got.Acts)
	}
	if h := got.HostOf(got.Phones[2].Addr); h != "home" {
		t.Errorf("phone 4102 is on host %q", h)
	}
	if m := got.Managers[0]; m.Backup != "other" || len(m.Media) != 1 {
		t.Errorf("call manager %+v", m)
	}
}

// Each fault changes one line of a good text, and is found where it is.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, old, new string
		want           string // "line:column: a part of the text"
	}{
		{"unknown statement", "title   A", "titel   A", `1:1: no statement begins with "titel"`},
		{"nothing behind it", "title   A test", "title", `1:6: the line ends where a title should be (title TEXT)`},
		{"second title", "config  a.cfg", "title   B\nconfig  a.cfg", `2:1: a second "title"`},
		{"no title", "title   A test\n", "", `1:1: there is no line "title"`},
		{"too much", "stop    main", "stop    main now", `24:14: "now" is too much`},
		{"no prefix", "net     lan 10.20.0.0/24", "net     lan 10.20.0.0", `6:13: "10.20.0.0" is no IPv4 prefix`},
		{"bits behind the mask", "lan 10.20.0.0/24", "lan 10.20.0.1/24", `6:13: "10.20.0.1/24" has bits set behind its mask: 10.20.0.0/24 is meant?`},
		{"small net", "lan 10.20.0.0/24", "lan 10.20.0.0/31", `6:9: 10.20.0.0/31 is too small`},
		{"IPv6", "host    ucm lan=10.20.0.11,", "host    ucm lan=::1,", `14:17: "::1" is no IPv4 address`},
		{"net that is not there", "box     outside=wan inside=lan", "box     outside=wan inside=nal", `7:21: there is no net "nal"`},
		{"interface without a net", "box     outside=wan", "box     outside", `7:9: "outside" is not NAMEIF=NET`},
		{"one net for two interfaces", "inside=lan", "inside=wan", `7:21: an interface and a net go together once`},
		{"address of another net", "house=192.168.1.1\n", "house=192.168.2.1\n", `8:29: 192.168.2.1 is not on net house`},
		{"address of another host", "192.168.1.50,192.168.1.51", "192.168.1.50,192.168.1.1", `8:29: 192.168.1.1 is home's already`},
		{"router on one net", "router  dsl wan=203.0.113.1 house=192.168.1.1", "router  dsl wan=203.0.113.1", `8:9: a router is on two nets`},
		{"masquerade before its router", "box     outside=wan inside=lan", "masquerade lsd wan\nbox     outside=wan inside=lan", `7:12: no line above declares a router "lsd"`},
		{"masquerade elsewhere", "masquerade dsl wan", "masquerade dsl lan", `9:16: router dsl is not on a net "lan"`},
		{"forward without masquerade", "masquerade dsl wan\n", "", `9:1: router dsl does not masquerade`},
		{"ports backwards", "1024-65535", "1024-80", `10:17: the range "1024-80" ends before it begins`},
		{"port out of range", "1024-65535", "1024-65536", `10:22: "65536" is no port`},
		{"protocol", "forward dsl udp", "forward dsl sctp", `10:13: "sctp" where tcp or udp should be`},
		{"no to", "65535 to 192", "65535 at 192", `10:28: "at" where "to" should be`},
		{"gateway elsewhere", "via 10.20.0.1", "via 10.21.0.1", `14:9: the gateway 10.21.0.1 is on no net`},
		{"name taken", "host    ucm", "host    wan", `14:9: the name "wan" is taken`},
		{"name of the box", "host    ucm", "host    box", `14:9: the name "box" is taken`},
		{"name of a device that all have", "host    ucm", "host    lo", `14:9: the name "lo" is taken`},
		{"name with a dash", "host    ucm", "host    u-cm", `14:9: "u-cm" is no name`},
		{"manager without a host", "manager main 10.20.0.11", "manager main 10.20.0.12", `15:9: no host has the address 10.20.0.12`},
		{"backup that is not there", "backup other", "backup third", `15:9: there is no other call manager "third"`},
		{"phone without a host", "4001 sccp 10.20.0.50", "4001 sccp 10.20.0.51", `19:9: no host has the address 10.20.0.51`},
		{"two phones at one address", "4102 sip 192.168.1.51", "4102 sip 192.168.1.50", `21:9: a second phone at 192.168.1.50`},
		{"two phones of one line", "phone   4102", "phone   4101", `21:9: a second phone 4101`},
		{"neither secure nor plain", "192.168.1.50 secure", "192.168.1.50 safe", `20:32: "safe" where secure or plain should be`},
		{"call of nobody", "call    4101 4001", "call    4101 4009", `22:9: there is no phone 4009`},
		{"call of itself", "call    4101 4001", "call    4101 4101", `22:9: 4101 cannot call itself`},
		{"call across protocols", "call    4101 4001", "call    4102 4001", `22:9: 4102 is sip and 4001 is sccp`},
		{"call of a word", "call    4101 4001", "call    4101 bob", `22:14: "bob" is no line`},
		{"stop of nobody", "stop    main", "stop    third", `24:9: there is no call manager "third"`},
		{"overlap", "house 192.168.1.0/24", "house 10.20.0.0/16", `6:9: 10.20.0.0/24 overlaps net house`},
		{"two sites", "8081", "8080", `18:1: a second site at 10.20.0.11:8080`},
		{"address of the net itself", "192.168.1.51 via", "192.168.1.0 via", `13:14: 192.168.1.0 is net house itself`},
		{"broadcast address", "192.168.1.51 via", "192.168.1.255 via", `13:14: 192.168.1.255 is everybody on net house`},
		{"gateway of itself", "192.168.1.51 via 192.168.1.1", "192.168.1.51 via 192.168.1.50", `13:9: 192.168.1.50 is home itself: its gateway is another`},
		{"ports forwarded twice", "guard   dsl wan\n", "forward dsl udp 2000-2010 to 192.168.1.51\nguard   dsl wan\n", `11:1: router dsl forwards udp 1024-65535 to 192.168.1.50 already`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Count(good, tt.old) == 0 {
				t.Fatalf("the good text has no %q", tt.old)
			}
			_, err := topology.Parse("x.topo", strings.NewReader(strings.Replace(good, tt.old, tt.new, 1)))
			var e *topology.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want one at %s", err, tt.want)
			}
			for _, line := range strings.Split(err.Error(), "\n") {
				if strings.HasPrefix(line, "x.topo:"+tt.want) {
					return
				}
			}
			t.Errorf("errors\n%v\nwant x.topo:%s", err, tt.want)
		})
	}
}

// All mistakes are told at once, in order.
func TestAllFaults(t *testing.T) {
	_, err := topology.Parse("x.topo", strings.NewReader("net a\nbox\nfoo\n"))
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "x.topo:1:6: ") || !strings.HasPrefix(lines[1], "x.topo:2:4: ") || !strings.HasPrefix(lines[2], "x.topo:3:1: ") {
		t.Errorf("errors %q, want one for each line", lines)
	}
}

// What comes with the program is sound, and so are the configurations.
func TestLibrary(t *testing.T) {
	names := topology.Library()
	if len(names) < 8 {
		t.Errorf("topologies %v, want 8", names)
	}
	for _, name := range names {
		top, _, text, err := topology.Read(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if top.Name != name {
			t.Errorf("%s: its name is %q", name, top.Name)
		}
		running, findings := config.Check(top.Config, bytes.NewReader(text))
		if n := config.Errors(findings); n > 0 {
			t.Errorf("%s: %s: %v", name, top.Config, findings)
		}
		if err := top.Match(running); err != nil {
			t.Error(err)
		}
	}
}

// A configuration of another topology is told before anything is built.
func TestMatch(t *testing.T) {
	const cfg = `interface GigabitEthernet0/0
 nameif outside
 security-level 0
 ip address 203.0.113.2 255.255.255.0
interface GigabitEthernet0/1
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
crypto ca trustpoint phone_ca
 enrollment terminal
`
	for _, tt := range []struct{ old, new, want string }{
		{"", "", ""},
		{"outside=wan", "outsid=wan", `x.topo:7:9: a.cfg has no interface "outsid"; it has outside, inside`},
		{"outside=wan inside=lan", "outside=lan inside=wan", "x.topo:7:9: outside has 203.0.113.2/24 in a.cfg, and net lan is 10.20.0.0/24\n" +
			"x.topo:7:21: inside has 10.20.0.1/24 in a.cfg, and net wan is 203.0.113.0/24"},
		{"net     wan 203.0.113.0/24", "net     wan 203.0.113.0/25", "x.topo:7:9: outside has 203.0.113.2/24 in a.cfg, and net wan is 203.0.113.0/25"},
		{"host    ucm lan=10.20.0.11,", "host    ucm lan=10.20.0.11,10.20.0.1,", "x.topo:7:21: inside has 10.20.0.1 in a.cfg, which is ucm's"},
		{"dsl wan=203.0.113.1 ", "dsl wan=203.0.113.2 ", "x.topo:7:9: outside has 203.0.113.2 in a.cfg, which is dsl's"},
		{"ca      phone_ca", "ca      phone_ac", `x.topo:3:9: a.cfg has no trustpoint "phone_ac"; it has phone_ca`},
	} {
		text := strings.NewReplacer(tt.old, tt.new, " via 10.20.0.1\n", "\n").Replace(good)
		if tt.old == "" {
			text = good
		}
		top, err := topology.Parse("x.topo", strings.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", tt.new, err)
			continue
		}
		running, findings := config.Check("a.cfg", strings.NewReader(cfg))
		if config.Errors(findings) > 0 {
			t.Fatal(findings)
		}
		got := ""
		if err := top.Match(running); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.new, got, tt.want)
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	mine := write("mine.topo", good)
	if _, _, _, err := topology.Read(mine); err == nil || !strings.Contains(err.Error(), "mine.topo: config a.cfg: ") {
		t.Errorf("without its configuration: %v", err)
	}
	write("a.cfg", "hostname a\n")
	top, text, cfg, err := topology.Read(mine)
	if err != nil || top.Name != "mine" || string(text) != good || string(cfg) != "hostname a\n" {
		t.Errorf("Read(%q): %v, %q", mine, err, cfg)
	}
	if _, _, _, err := topology.Read("nosuch"); err == nil || !strings.Contains(err.Error(), `there is no topology "nosuch"; there are direct, `) {
		t.Errorf("a name that is none: %v", err)
	}
	if _, _, _, err := topology.Read("../direct"); err == nil {
		t.Error("a path that leads nowhere was read")
	}
}

// A configuration's name may have blanks in it.
func TestConfigName(t *testing.T) {
	got, err := topology.Parse("x.topo", strings.NewReader(strings.Replace(good, "config  a.cfg", "config  my  own.cfg \t# mine", 1)))
	if err != nil || got.Config != "my  own.cfg" {
		t.Errorf("config %q, %v", got.Config, err)
	}
}

// What is no topology at all does not fill the screen.
func TestNoTopology(t *testing.T) {
	for name, text := range map[string]string{
		"many lines": strings.Repeat("x y z\n", 10_000),
		"one word":   strings.Repeat("\x7f", 60_000),
	} {
		_, err := topology.Parse("x.topo", strings.NewReader(text))
		var e *topology.Error
		if !errors.As(err, &e) || e.Line != 1 {
			t.Errorf("%s: %v", name, err)
		} else if n := len(err.Error()); n > 8<<10 {
			t.Errorf("%s: an error of %d bytes", name, n)
		}
	}
}

func TestLimits(t *testing.T) {
	many := func(format string) string {
		var b strings.Builder
		for i := range 300 {
			fmt.Fprintf(&b, format, i/250, i%250)
		}
		return b.String()
	}
	for name, tt := range map[string]struct{ text, want string }{
		"a long text":    {strings.Repeat("# padding\n", 10_000), "longer than 65536 bytes"},
		"many hosts":     {good + strings.Repeat("net n 10.0.0.0/24\n", 100), "nets, hosts and routers: 64 at most"},
		"many calls":     {good + strings.Repeat("call 4101 4001\n", 1000), "acts: 256 at most"},
		"many addresses": {good + "host much house=192.168.9.1" + many(",192.168.1%d.%d") + "\n", "301 addresses: 256 at most"},
		"many forwards":  {good + many("forward dsl tcp 1%d%03d to 192.168.1.50\n"), "router dsl has 256 forwards, which is all it may have"},
		"many permits":   {good + many("permit dsl tcp 192.168.1.50 1%d%03d\n"), "router dsl has 256 permits, which is all it may have"},
	} {
		if _, err := topology.Parse("x.topo", strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good)
	for _, name := range topology.Library() {
		_, text, _, err := topology.Read(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("net a 1.2.3.0/24\nrouter r a=1.2.3.4 a=1.2.3.5\nforward r udp 0-1 to 1.2.3.4\n")
	f.Add("box =\nhost h =,\nphone\ncall 1\n#")
	f.Fuzz(func(t *testing.T, text string) {
		top, err := topology.Parse("f.topo", strings.NewReader(text))
		if err != nil {
			var e *topology.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("error without a place in the text: %v", err)
			}
			return
		}
		for _, p := range top.Phones {
			if top.HostOf(p.Addr) == "" {
				t.Errorf("phone %s is on no host", p.Line)
			}
		}
		for _, b := range top.Box {
			if top.Net(b.Net) == nil {
				t.Errorf("interface %s is on no net", b.Nameif)
			}
		}
	})
}
