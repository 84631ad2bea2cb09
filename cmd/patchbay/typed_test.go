package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/console"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
	"patchbay/stack"
)

var update = flag.Bool("update", false, "rewrite the transcript in testdata")

// typedAtConsole opens the management of an empty box, at its serial console.
// {word} is a password, which is not shown.
const typedAtConsole = `enable
{}
show running-config
configure terminal
hostname patchbay
interface GigabitEthernet0/1
nameif inside
security-level 100
ip address 10.20.0.1 255.255.255.0
no shutdown
exit
username ann password anns-secret privilege 15
enable password enable-secret
aaa authentication ssh console LOCAL
ssh 10.20.0.0 255.255.255.0 inside
ssh timeout 30
end
show interface ip brief
exit
`

// typedOverSSH is reference configuration (a) as one types it, up to where the
// phones' CA is pasted.
const typedOverSSH = `enable
{enable-secret}
terminal pager 0
configure terminal
domain-name example.com
interface GigabitEthernet0/0
nameif outside
security-level 0
ip address 203.0.113.2 255.255.255.0
no shutdown
object network ucm
host 10.20.0.11
nat (inside,outside) static 203.0.113.10
object network inside-net
subnet 10.20.0.0 255.255.255.0
nat (inside,outside) dynamic interface
exit
access-list outside_in remark phones may fetch files and signal over TLS; no more
access-list outside_in extended permit udp any host 10.20.0.11 eq tftp
access-list outside_in extended permit tcp any host 10.20.0.11 eq 2443
access-list outside_in extended permit tcp any host 10.20.0.11 eq 5061
access-list outside_in extended deny ip any any log
access-group outside_in in interface outside
icmp permit any outside
route outside 0.0.0.0 0.0.0.0 203.0.113.1
logging enable
logging timestamp
logging buffered informational
crypto key generate rsa label ucm_keys modulus 2048
crypto ca trustpoint ucm_server
enrollment self
fqdn none
subject-name CN=ucm_server
keypair ucm_keys
exit
crypto ca enroll ucm_server
yes
crypto ca trustpoint phone_ca
enrollment terminal
exit
crypto ca authenticate phone_ca
`

// typedAfterCA is the rest.
const typedAfterCA = `yes
ctl-file trust
record-entry cucm-tftp trustpoint ucm_server address 203.0.113.10
sast 2
no shutdown
exit
tls-proxy phones
server trust-point _internal_PP_trust
media-termination voice
address 10.20.0.20 interface inside
address 203.0.113.20 interface outside
phone-proxy home
media-termination voice
tftp-server address 10.20.0.11 interface inside
tls-proxy phones
ctl-file trust
exit
class-map sec_sccp
match port tcp eq 2443
class-map sec_sip
match port tcp eq 5061
policy-map home_policy
class sec_sccp
inspect skinny phone-proxy home
class sec_sip
inspect sip phone-proxy home
service-policy home_policy interface outside
end
show crypto ca trustpoints
show ctl-file trust | include FUNCTION|IPADDRESS|verified
show running-config
write memory
exit
`

// A typist sits at a terminal of a box.
type typist struct {
	t    *testing.T
	keys io.Writer

	mu  sync.Mutex
	out bytes.Buffer
}

// Write is what the box shows.
func (y *typist) Write(b []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.out.Write(b)
}

func (y *typist) shown() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return strings.ReplaceAll(y.out.String(), "\r\n", "\n")
}

// atPrompt is what a box shows when it waits: a prompt, a question, what asks for
// a text that ends with quit; or when the session has ended.
var atPrompt = regexp.MustCompile(`(?:^|\n)(?:\S+[>#] |Password: |[^\n]*\[yes/no\]: |[^\n]* on a line by itself\n|Logoff\n\n(?:Press Enter to get started\n+)?)$`)

// wait waits until the box waits, having shown more than before.
func (y *typist) wait(before int) {
	y.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s := y.shown()
		if len(s) > before && atPrompt.MatchString(s[before:]) {
			return
		}
		if time.Now().After(deadline) {
			y.t.Fatalf("the box shows no prompt:\n%s", s)
		}
	}
}

// types types lines, each when the box waits for one. The last ends the session
// if it is exit.
func (y *typist) types(lines string) {
	y.t.Helper()
	for line := range strings.Lines(lines) {
		line = strings.TrimSuffix(line, "\n")
		if secret, ok := strings.CutPrefix(line, "{"); ok {
			line = strings.TrimSuffix(secret, "}")
		}
		before := len(y.shown())
		if _, err := io.WriteString(y.keys, line); err != nil {
			y.t.Fatalf("typing %q: %v", line, err)
		}
		for deadline := time.Now().Add(time.Minute); len(y.shown()) < before+len(line); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				y.t.Fatalf("%q is not echoed:\n%s", line, y.shown())
			}
		}
		before = len(y.shown())
		if _, err := io.WriteString(y.keys, "\r"); err != nil {
			y.t.Fatalf("typing %q: %v", line, err)
		}
		y.wait(before)
	}
}

// pasted types lines at which the box shows nothing, and waits for the
// question after the last.
func (y *typist) pasted(lines string) {
	y.t.Helper()
	before := len(y.shown())
	if _, err := io.WriteString(y.keys, strings.ReplaceAll(lines, "\n", "\r")); err != nil {
		y.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if s := y.shown()[before:]; strings.Contains(s, "quit\n") && strings.HasSuffix(s, "? [yes/no]: ") {
			return
		}
		if time.Now().After(deadline) {
			y.t.Fatalf("after what was pasted the box asks nothing:\n%s", y.shown())
		}
	}
}

// A typedBox is a box between the lab's networks, whose configuration is what
// its flash has and who sits at it types.
type typedBox struct {
	app  *appliance.Appliance
	stop func()
}

// wires hands out links of the lab by the hardware's name, as the back of a box
// does. A network's routes stay, so each link owns longer prefixes than the one
// before it.
type wires struct {
	lab    *lab.Lab
	mu     sync.Mutex
	opened map[string]int
}

func (w *wires) open(i *config.Interface) (stack.Link, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.opened[i.Hardware]
	w.opened[i.Hardware]++
	if i.Hardware == "GigabitEthernet0/0" {
		return w.lab.Internet.Port(pieces("203.0.113.0/24", n)...), nil
	}
	return w.lab.LAN.Port(pieces("0.0.0.0/0", n)...), nil
}

// pieces cuts a prefix in two, n times.
func pieces(prefix string, n int) []netip.Prefix {
	all := []netip.Prefix{netip.MustParsePrefix(prefix)}
	for range n {
		var next []netip.Prefix
		for _, p := range all {
			b := p.Addr().As4()
			b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
			next = append(next, netip.PrefixFrom(p.Addr(), p.Bits()+1), netip.PrefixFrom(netip.AddrFrom4(b), p.Bits()+1))
		}
		all = next
	}
	return all
}

// boot starts a box, and sits at its serial console if there is who.
func (w *wires) boot(t *testing.T, flash string, at *typist) *typedBox {
	t.Helper()
	store, err := pki.Open(flash, pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	startup := console.OpenStartup(flash)
	text, err := startup.Load()
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	r, _ := text.Running()
	a, err := appliance.New(r, appliance.Options{Open: w.open, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	box, err := console.NewBox(console.Options{App: a, Text: text, Startup: startup, Store: store, Log: a.Log()})
	if err != nil {
		t.Fatal(err)
	}
	server, err := box.SSH()
	if err != nil {
		t.Fatal(err)
	}
	a.HandleSSH(server.ServeConn)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Errorf("the box ends: %v", err)
		}
	})
	if at != nil {
		keyboard, keys := io.Pipe()
		at.keys = keys
		in := console.NewInput(keyboard)
		running.Go(func() {
			defer in.Close()
			defer keyboard.Close()
			wide := func() (int, int) { return 200, 24 }
			if err := box.Console(ctx, console.Transport{In: in, Out: at, Terminal: true, Size: wide}); err != nil {
				t.Errorf("the console ends: %v", err)
			}
		})
		at.wait(0)
	}
	b := &typedBox{app: a}
	b.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(b.stop)
	return b
}

// logIn opens a session by SSH from a host inside.
func logIn(t *testing.T, ctx context.Context, from lab.Host, user, password string) *typist {
	t.Helper()
	conn, err := from.DialTCP(ctx, netip.AddrPort{}, netip.MustParseAddrPort("10.20.0.1:22"))
	if err != nil {
		t.Fatal(err)
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, "10.20.0.1:22", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatalf("ssh %s@10.20.0.1: %v", user, err)
	}
	client := ssh.NewClient(c, chans, reqs)
	t.Cleanup(func() { client.Close() })
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	y := &typist{t: t}
	s.Stdout = y
	if y.keys, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 200, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	y.wait(0)
	return y
}

// byChance is what differs from one time to the next in what a box shows.
var byChance = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^(?:[A-Za-z0-9+/=]{20,}\n)+(-----END)`), "BASE64\n$1"},
	{regexp.MustCompile(`(?m)^(\s+)[0-9a-f]{8}(?: [0-9a-f]+)*\n(?:\s+[0-9a-f]+(?: [0-9a-f]+)*\n)*`), "${1}HEXADECIMAL\n"},
	{regexp.MustCompile(`\$sha512\$\S+`), "HASH"},
	{regexp.MustCompile(`\b[0-9a-fA-F]{10,}\b`), "NUMBER"},
	{regexp.MustCompile(`(?:[0-9a-f]{8} ){3}[0-9a-f]{8}`), "SUM"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d`), "DATE"},
	{regexp.MustCompile(`\d+ bytes copied`), "N bytes copied"},
}

// TestTypedByHand begins with an empty box, types reference configuration (a) as
// an administrator of an ASA does, first at the serial console and then over SSH
// through the box's own packet path, and has phones register and call. What was
// written to flash is the box again after a restart, for the phones too, who keep
// their trust list.
func TestTypedByHand(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	l, err := lab.NewMemoryLab(lab.Options{SCCPVersion: 17})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	desk, err := lab.NewStackHost(netip.MustParsePrefix("10.20.0.5/24"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer desk.Close()
	l.LAN.Attach(desk.Link(), netip.MustParsePrefix("10.20.0.5/32"))
	w := &wires{lab: l, opened: map[string]int{"GigabitEthernet0/0": 1, "GigabitEthernet0/1": 1}} // the lab's own
	flash := t.TempDir()

	serial := &typist{t: t}
	box := w.boot(t, flash, serial)
	serial.types(typedAtConsole)
	remote := logIn(t, ctx, desk, "ann", "anns-secret")
	remote.types(typedOverSSH)
	remote.pasted(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.CA.Cert.Raw})) + "quit\n")
	remote.types(typedAfterCA)

	got := "At the serial console:\n\n" + serial.shown() + "\n\nssh ann@10.20.0.1:\n\n" + remote.shown()
	for _, c := range byChance {
		got = c.re.ReplaceAllString(got, c.with)
	}
	for _, line := range strings.Split(got, "\n") {
		if strings.HasPrefix(line, "ERROR") || strings.Contains(line, "% Invalid") {
			t.Errorf("the box refuses what an ASA takes: %s", line)
		}
	}
	golden := filepath.Join("testdata", "typed-a.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", golden, diff)
	}

	calls := func(life string) {
		t.Helper()
		for _, r := range lab.RunCalls(ctx, l, lab.CallOptions{Talk: 300 * time.Millisecond, NoHold: true, NoHome: true}) {
			if !r.OK {
				t.Errorf("%s: %s: %s", life, r.Name, r.Err)
			}
		}
	}
	calls("as typed")
	trusted := l.Phone(lab.Remote, lab.SIP).Trust().CTL()
	for _, p := range l.Phones {
		if p.State() != lab.Unregistered {
			if err := p.Unregister(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	box.stop()

	w.boot(t, flash, nil)
	calls("from flash")
	now := l.Phone(lab.Remote, lab.SIP).Trust().CTL()
	if trusted == nil || now == nil || !bytes.Equal(trusted.Records[0].Cert.Raw, now.Records[0].Cert.Raw) {
		t.Error("after the restart the phones' trust list names another signer")
	}
}
