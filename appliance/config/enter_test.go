package config_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

// enter types a line and checks what holds of every line: one that is refused
// changes nothing, and what comes of any is a configuration without error that
// loads as itself.
func enter(t testing.TB, c config.Text, at config.Place, line string) (config.Text, config.Place) {
	t.Helper()
	before := c.String()
	e := c.Enter(at, line)
	if c.String() != before {
		t.Fatalf("Enter(%q) changes the text it was called on", line)
	}
	for _, f := range e.Findings {
		if s := f.Reply(10); strings.ContainsAny(s, "\x1b\x07\x00") {
			t.Errorf("Enter(%q): reply has control characters: %q", line, s)
		}
	}
	if config.Errors(e.Findings) > 0 {
		if !e.Text.Equal(c) || e.Action != nil {
			t.Errorf("Enter(%q) is refused and changes the text: %v", line, e.Findings)
		}
		return e.Text, e.At
	}
	if e.Text.Equal(c) {
		return e.Text, e.At
	}
	if _, found := e.Text.Running(); config.Errors(found) > 0 {
		t.Errorf("Enter(%q) leaves %v", line, found)
	}
	text := e.Text.String()
	again, found := config.Load("pb.cfg", strings.NewReader(text), false)
	if config.Errors(found) > 0 || !again.Equal(e.Text) || again.String() != text {
		t.Fatalf("after Enter(%q) Load(Render) differs: %v\n%s\nwant\n%s", line, found, again, text)
	}
	return e.Text, e.At
}

// moreLines are typed beside the lines of configurations.
var moreLines = strings.Split(`exit
end
names
no names
name 10.20.0.11 ucm-real
name 203.0.113.10 mapped
hostname x
object network web
host 10.20.0.30
subnet 10.20.9.0 255.255.255.0
range 10.20.0.40 10.20.0.49
nat (inside,outside) static 203.0.113.30
nat (inside,outside) dynamic interface
nat (inside,outside) static interface service tcp www 8080
nat (inside,outside) source static web web
nat (inside,outside) 1 source dynamic any interface
nat (any,outside) after-auto source dynamic any interface
object service s
service tcp destination eq sip
object-group network g
network-object host 10.20.0.31
network-object object web
group-object g
object-group service ports tcp-udp
port-object eq sip
port-object range 69 70
object-group service any
service-object udp source range tftp 70 destination gt 1023
service-object icmp echo
object-group protocol protos
protocol-object 6
object-group icmp-type types
icmp-object echo
time-range work
periodic weekdays 8:00 to 18:00
absolute start 08:00 1 may 2026
access-list a permit tcp any any eq 5060
access-list a line 1 deny object-group protos any any log 4 interval 30
access-list a line 2 remark line  with   spaces
access-list a permit udp object web any object-group ports time-range work
access-list a permit object s any any inactive
access-list a permit icmp any any object-group types
access-group a in interface outside
access-group a global
clear configure access-list a
clear configure access-list
clear configure time-range
clear configure all
timeout conn 0:30:0 udp 0:1:0
timeout igp stale-route 0:1:10 uauth 0:5:0 absolute
no timeout conn
logging buffered 3
no logging message 106023
logging message 106023
no logging buffered
logging buffer-size 4096
class-map web
class-map match-any all
match port udp range 69 tftp
match access-list a
match any
match default-inspection-traffic
policy-map limits
class web
class class-default
police output 64000 conform-action transmit
set connection conn-max 5 per-client-max 2
set connection timeout half-closed 0:5:0 idle 0:10:0 reset
set connection timeout tcp 0:10:0
inspect sip strict
inspect icmp
inspect tftp
inspect h323 h225
policy-map type inspect sip strict
policy-map type inspect skinny small
parameters
no im
im
state-checking action log
message-id max 0x141
sccp-prefix-len max 1000
timeout media 0:1:0
match message-id range 0x1 0x10
match not request-method invite
drop log
rate-limit 7
service-policy limits interface inside
service-policy limits global
interface g0/7
interface g0/7.3
vlan 3
nameif voice
no nameif
security-level 5
ip address 192.0.2.1 255.255.255.0
shutdown
no shutdown
mtu voice 1400
route inside 192.0.2.128 255.255.255.128 10.20.0.2
sysopt connection tcpmss minimum 48
sysopt connection tcpmss 0
no sysopt connection tcpmss
icmp permit any echo outside
same-security-traffic permit intra-interface
crypto ca trustpoint t
enrollment self
enrollment url http://ca.example.com/scep
subject-name CN=a,O="b"
fqdn none
proxy_ldc_issuer
crypto ca certificate chain t
certificate ca 01
30053003020107
quit
ctl-file c
record-entry tftp trustpoint t address 203.0.113.10 domain-name example.com
sast 5
sast 2
tls-proxy t
no server authenticate-client
server authenticate-client
client ldc keypair k
media-termination m
address 10.20.0.99 interface inside
rtp-min-port 2000 rtp-max-port 3000
no rtp-min-port
phone-proxy p
media-termination address 203.0.113.99
no disable service-settings
tftp-server address 10.20.0.12 1069 interface inside
proxy-server address 203.0.113.80 interface outside
dns name-server 10.20.0.53 10.20.0.54
dns server-group DefaultDNS
name-server 10.20.0.53 10.20.0.55
ssl encryption aes128-sha1 aes256-sha1
pager 24
ssh 10.20.0.0 255.255.255.0 inside
banner motd hello   there
nat (inside) 1 0 0
global (outside) 1 interface
static (inside,outside) tcp interface 8080 10.20.0.9 www netmask 255.255.255.255
nat-control
ASA Version 8.0(4)
ASA Version 9.1(7)`, "\n")

// TestRandomEdits types pieces of configurations in no order at all, beginnings
// of lines, and what takes lines back.
func TestRandomEdits(t *testing.T) {
	lines := slices.Clone(moreLines)
	files := texts(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		lines = append(lines, strings.Split(files[name], "\n")...)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "---") || len(l) > 60 && !strings.Contains(l, " ") })
	steps := 600 // of each seed
	if testing.Short() {
		steps = 100
	}
	changed := 0
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		var c config.Text
		if seed%2 == 1 {
			c = load(t, strings.Join(base(t), "\n"))
		}
		var at config.Place
		next, more := 0, 0 // line of the piece being typed, and how many are left of it
		for range steps {
			var line string
			switch now := strings.Split(c.String(), "\n"); {
			case more > 0:
				more--
				next = (next + 1) % len(lines)
				line = lines[next]
			case r.IntN(4) == 0:
				words := strings.Fields(now[r.IntN(len(now))])
				line = "no " + strings.Join(words[:min(len(words), 1+r.IntN(len(words)+2))], " ")
			case r.IntN(6) == 0:
				line = now[r.IntN(len(now))]
			default:
				next, more = r.IntN(len(lines)), 1+r.IntN(8)
				line = lines[next]
			}
			before := c
			c, at = enter(t, c, at, line)
			if t.Failed() {
				return
			}
			if !c.Equal(before) {
				changed++
			}
		}
	}
	if changed < steps/2 {
		t.Errorf("%d of %d lines changed anything; the test has lost its use", changed, 4*steps)
	}
	t.Logf("%d of %d lines changed the text", changed, 4*steps)
}

// FuzzEnter types any lines.
func FuzzEnter(f *testing.F) {
	f.Add("interface g0/0\nnameif inside\nip address 10.20.0.1 255.255.255.0\nno nameif")
	for i := 0; i+6 <= len(moreLines); i += 6 {
		f.Add(strings.Join(moreLines[i:i+6], "\n"))
	}
	for _, name := range []string{"policy", "objects", "phoneproxy", "system", "access"} {
		data, err := os.ReadFile("testdata/typed/" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		var typed []string
		for line := range strings.Lines(string(data)) {
			if _, cmd, ok := strings.Cut(line, ")# "); ok && strings.HasPrefix(line, "(config") {
				typed = append(typed, strings.TrimSpace(cmd))
			}
		}
		f.Add(strings.Join(typed[:min(40, len(typed))], "\n"))
	}
	whole := strings.Join(base(f), "\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := config.Text{}
		if len(text)%2 == 1 {
			c = load(t, whole)
		}
		var at config.Place
		for i, line := range strings.Split(text, "\n") {
			if i == 60 {
				break
			}
			c, at = enter(t, c, at, line)
			c.Help(at, line)
			c.Complete(at, line)
		}
	})
}

// FuzzLoad loads anything: what loads is its own fixed point, and so is what is
// left of what does not.
func FuzzLoad(f *testing.F) {
	f.Add(strings.Join(base(f), "\n"))
	f.Add(strings.Join(moreLines, "\n"))
	for _, tt := range unsupportedFaults {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, lenient := range []bool{false, true} {
			c, found := config.Load("pb.cfg", strings.NewReader(text), lenient)
			if config.Errors(found) > 0 {
				continue
			}
			once := c.String()
			again, more := config.Load("pb.cfg", strings.NewReader(once), false)
			if config.Errors(more) > 0 || !again.Equal(c) || again.String() != once {
				t.Fatalf("Load(Render), lenient %v, differs: %v\n%s\nwant\n%s", lenient, more, again, once)
			}
		}
	})
}
