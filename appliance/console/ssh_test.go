package console

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/host"
	"patchbay/stack/link"
)

// listenSSH serves a box's SSH on a loopback address, and returns it.
func listenSSH(t testing.TB, b *Box, grace time.Duration) (*SSH, string) {
	t.Helper()
	s, err := b.SSH()
	if err != nil {
		t.Fatal(err)
	}
	s.grace = grace
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, ln.Addr().String()
}

func clientKey(t testing.TB) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

func sshConfig(user string, auth ssh.AuthMethod) *ssh.ClientConfig {
	return &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second}
}

// enter types configuration that must be taken.
func (b *testBox) enter(t testing.TB, lines ...string) {
	t.Helper()
	var at config.Place
	for _, line := range lines {
		e := b.Enter(at, line)
		if config.Errors(e.Findings) > 0 {
			t.Fatalf("%s: %v", line, e.Findings)
		}
		at = e.At
	}
}

func TestSSHLogin(t *testing.T) {
	b := newTestBox(t, "")
	_, addr := listenSSH(t, b.Box, loginGrace)
	_, key := clientKey(t)
	_, hashed := clientKey(t)
	_, stranger := clientKey(t)
	sum := sha256.Sum256(hashed.PublicKey().Marshal())
	b.enter(t, "username ann attributes",
		"ssh authentication publickey "+base64.StdEncoding.EncodeToString(key.PublicKey().Marshal()),
		"ssh authentication publickey "+strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")+" hashed")
	for _, tt := range []struct {
		name, user string
		auth       ssh.AuthMethod
		ok         bool
	}{
		{"password", "ann", ssh.Password("anns-secret"), true},
		{"wrong password", "ann", ssh.Password("anns-secres"), false},
		{"empty password", "ann", ssh.Password(""), false},
		{"another's password", "bob", ssh.Password("anns-secret"), false},
		{"nobody", "zoe", ssh.Password("anns-secret"), false},
		{"default user", "pix", ssh.Password("cisco"), false},
		{"key", "ann", ssh.PublicKeys(key), true},
		{"key known by its hash", "ann", ssh.PublicKeys(hashed), true},
		{"a stranger's key", "ann", ssh.PublicKeys(stranger), false},
		{"another's key", "bob", ssh.PublicKeys(key), false},
	} {
		c, err := ssh.Dial("tcp", addr, sshConfig(tt.user, tt.auth))
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			c.Close()
		}
	}
	log := b.logged()
	for _, want := range []string{"%ASA-6-605005: Login permitted from 127.0.0.1:", "%ASA-6-605004: Login denied from 127.0.0.1:", `user \"*****\"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s:\n%s", want, log)
		}
	}
	if strings.Contains(log, "secre") || strings.Contains(log, "zoe") {
		t.Errorf("the log has a secret, or a name that may be one:\n%s", log)
	}
}

// Who guesses is not heard for a while, whoever she says she is; a user who is
// guessed at is locked out where the configuration says so.
func TestSSHLockout(t *testing.T) {
	b := newTestBox(t, "")
	_, addr := listenSSH(t, b.Box, loginGrace)
	try := func(user, password string) bool {
		c, err := ssh.Dial("tcp", addr, sshConfig(user, ssh.Password(password)))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	for range freeFailures {
		try("bob", "guess")
	}
	if try("bob", "bobs-secret") {
		t.Error("the right password is heard from an address that guesses")
	}
	b.pass(firstWait + time.Second)
	if !try("bob", "bobs-secret") {
		t.Error("the right password is not heard after the wait")
	}
	b.enter(t, "aaa local authentication attempts max-fail 2")
	try("bob", "guess")
	try("bob", "guess")
	if try("bob", "bobs-secret") {
		t.Error("a user who is locked out logs in")
	}
	if !strings.Contains(b.logged(), "%ASA-6-113006: User 'bob' locked out on exceeding '2'") {
		t.Errorf("the log does not say that bob is locked out:\n%s", b.logged())
	}
	try("ann", "guess")
	b.pass(longestWait)
	if !try("ann", "anns-secret") {
		t.Error("who has all privileges is locked out")
	}
	b.keeper.unlock("bob")
	if !try("bob", "bobs-secret") {
		t.Error("bob is locked out still")
	}
}

func TestKeeperForgets(t *testing.T) {
	now := time.Unix(0, 0)
	k := keeper{now: func() time.Time { return now }}
	for i := range 2 * maxFailing {
		now = now.Add(time.Millisecond)
		k.failed(fmt.Sprint("198.51.100.", i))
	}
	if n := len(k.from); n > maxFailing {
		t.Errorf("%d addresses are remembered, want at most %d", n, maxFailing)
	}
}

// The users of a box from before 8.4 are pix and asa, with the password of
// passwd, while no local users are asked.
func TestSSHDefaultUser(t *testing.T) {
	data, err := os.ReadFile("testdata/box.cfg")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "ASA Version 9.1(7)", "ASA Version 8.3(1)\npasswd open-sesame", 1)
	b := newTestBox(t, strings.Replace(text, "aaa authentication ssh console LOCAL\n", "", 1))
	_, addr := listenSSH(t, b.Box, loginGrace)
	c, err := ssh.Dial("tcp", addr, sshConfig("pix", ssh.Password("open-sesame")))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := ssh.Dial("tcp", addr, sshConfig("ann", ssh.Password("anns-secret"))); err == nil {
		t.Error("a local user logs in who is not asked about")
	}
}

func TestSSHExec(t *testing.T) {
	b := newTestBox(t, "")
	_, addr := listenSSH(t, b.Box, loginGrace)
	c, err := ssh.Dial("tcp", addr, sshConfig("ann", ssh.Password("anns-secret")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(line string) (string, error) {
		s, err := c.NewSession()
		for i := 0; err != nil && i < 100; i++ { // the one before is being closed
			time.Sleep(10 * time.Millisecond)
			s, err = c.NewSession()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		out, err := s.Output(line)
		return string(out), err
	}
	if out, err := run("show version"); err != nil || !strings.Contains(out, "pb up 0 mins") || strings.Contains(out, "\r") {
		t.Errorf("show version = %q, %v", out, err)
	}
	var status *ssh.ExitError
	if out, err := run("show running-config"); !errors.As(err, &status) || status.ExitStatus() != 1 || !strings.Contains(out, "ERROR: % Invalid input") {
		t.Errorf("show running-config without privilege = %q, %v", out, err)
	}
	b.enter(t, "aaa authorization exec LOCAL auto-enable")
	if out, err := run("show running-config | include hostname"); err != nil || out != "hostname pb\n" {
		t.Errorf("show running-config = %q, %v", out, err)
	}
}

func TestSSHLimits(t *testing.T) {
	b := newTestBox(t, "")
	_, addr := listenSSH(t, b.Box, loginGrace)
	var clients []*ssh.Client
	for range maxSessions {
		c, err := ssh.Dial("tcp", addr, sshConfig("ann", ssh.Password("anns-secret")))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, _, err := c.SendRequest("are you there", true, nil); err != nil { // it is counted now
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if c, err := ssh.Dial("tcp", addr, sshConfig("ann", ssh.Password("anns-secret"))); err == nil {
		if err := c.Wait(); err == nil {
			t.Error("one session too many is served")
		}
	}
	if _, err := clients[0].Dial("tcp", "192.0.2.1:80"); err == nil {
		t.Error("the box forwards")
	}
	if _, err := clients[0].Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("the box listens for a client")
	}
	s, err := clients[0].NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := clients[0].NewSession(); err == nil {
		t.Error("a second session of a connection is served")
	}
	if err := s.RequestSubsystem("sftp"); err == nil {
		t.Error("there is a subsystem")
	}
}

// TestSSHOnInterface logs in to the box's own address through its packet path:
// only from where an "ssh" line says, and a connection ends with its line.
func TestSSHOnInterface(t *testing.T) {
	data, err := os.ReadFile("testdata/box.cfg")
	if err != nil {
		t.Fatal(err)
	}
	c, found := config.Load("box.cfg", bytes.NewReader(data), false)
	if config.Errors(found) > 0 {
		t.Fatal(found)
	}
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	person, err := host.New(host.Config{Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24"), netip.MustParsePrefix("192.0.2.7/24")}})
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	_, inside := link.Pair(1500)
	r, _ := c.Running()
	app, err := appliance.New(r, appliance.Options{Links: map[string]stack.Link{"outside": person.Link(), "inside": inside}, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- app.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	b, err := NewBox(Options{App: app, Text: c, Startup: NewStartup(newFrailDisk()), Rounds: 1000})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.SSH()
	if err != nil {
		t.Fatal(err)
	}
	app.HandleSSH(s.ServeConn)

	box := netip.MustParseAddrPort("203.0.113.2:22")
	dial := func(from string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return person.DialTCP(ctx, netip.AddrPortFrom(netip.MustParseAddr(from), 0), box)
	}
	nc, err := dial("198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(nc, "box", sshConfig("ann", ssh.Password("anns-secret")))
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.Output("show clock")
	if err != nil || !strings.Contains(string(out), "UTC") {
		t.Errorf("show clock = %q, %v", out, err)
	}
	if session, err = client.NewSession(); err != nil {
		t.Fatal(err)
	}
	var version struct{ Interfaces []struct{ Name string } }
	out, err = session.Output("show version | json")
	if err == nil {
		err = json.Unmarshal(out, &version)
	}
	if err != nil || len(version.Interfaces) != 2 || version.Interfaces[1].Name != "inside" {
		t.Errorf("show version | json = %q, %v", out, err)
	}
	short, cancelShort := context.WithTimeout(ctx, time.Second)
	defer cancelShort()
	if x, err := person.DialTCP(short, netip.MustParseAddrPort("192.0.2.7:0"), box); err == nil {
		x.Close()
		t.Error("a source that no ssh line permits is served")
	}
	e := b.Enter(config.Place{}, "hostname other")
	if config.Errors(e.Findings) > 0 {
		t.Fatal(e.Findings)
	}
	if _, _, err := conn.SendRequest("keepalive", true, nil); err != nil {
		t.Errorf("a change that is not about it ends the connection: %v", err)
	}
	e = b.Enter(config.Place{}, "no ssh 198.51.100.0 255.255.255.0 outside")
	if config.Errors(e.Findings) > 0 {
		t.Fatal(e.Findings)
	}
	if x, err := dial("198.51.100.7"); err == nil {
		x.Close()
		t.Error("a connection is taken after its ssh line is gone")
	}
}

// openSSH runs OpenSSH's client.
func openSSH(t *testing.T, addr, password string, stdin string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	ask := filepath.Join(dir, "askpass")
	if err := os.WriteFile(ask, fmt.Appendf(nil, "#!/bin/sh\necho '%s'\n", password), 0o700); err != nil {
		t.Fatal(err)
	}
	h, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	all := append([]string{"-F", "none", "-p", port, "-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"),
		"-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR", "-l", "ann"}, args...)
	at := len(all)
	for i, a := range all {
		if a == "--" {
			at = i
		}
	}
	words := append([]string{}, all[:at]...)
	words = append(words, h)
	if at < len(all) {
		words = append(words, all[at+1:]...)
	}
	cmd := exec.CommandContext(ctx, "ssh", words...)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force", "HOME="+dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestOpenSSH logs in with OpenSSH's client by password and by key, does one
// command, feeds a file, and types on a terminal.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("needs OpenSSH's client: ssh (Debian: openssh-client)")
	}
	b := newTestBox(t, "")
	_, addr := listenSSH(t, b.Box, loginGrace)
	b.enter(t, "aaa authorization exec LOCAL auto-enable")

	if out, err := openSSH(t, addr, "anns-secret", "", "--", "show", "version"); err != nil || !strings.Contains(out, "pb up 0 mins") {
		t.Errorf("ssh box show version = %q, %v", out, err)
	}
	if out, err := openSSH(t, addr, "wrong", "", "--", "show", "version"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("with a wrong password = %q, %v", out, err)
	}

	key, _ := clientKey(t)
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	b.enter(t, "username ann attributes", "ssh authentication publickey "+base64.StdEncoding.EncodeToString(public.Marshal()))
	byKey := []string{"-i", file, "-o", "PasswordAuthentication=no", "-o", "IdentitiesOnly=yes"}
	if out, err := openSSH(t, addr, "", "", append(byKey, "--", "show", "frob")...); err == nil || !strings.Contains(out, "show frob\n     ^\nERROR: % Invalid input detected") {
		t.Errorf("ssh box show frob by key = %q, %v", out, err)
	}

	script := "configure terminal\nhostname scripted\nroute inside 10.30.0.0 255.255.0.0 10.20.0.254\nend\nwrite memory\nexit\n"
	out, err := openSSH(t, addr, "", script, append(byKey, "-T")...)
	if err != nil || !strings.Contains(out, "scripted(config)# ") || !strings.Contains(out, "[OK]") {
		t.Errorf("ssh box < file = %q, %v", out, err)
	}
	if saved, err := b.Saved(); err != nil || !strings.Contains(saved.String(), "route inside 10.30.0.0 255.255.0.0 10.20.0.254 1") {
		t.Errorf("the script's configuration is not on flash: %v\n%s", err, saved)
	}

	out, err = openSSH(t, addr, "", "terminal pager 5\rsh\tclo?\x15show run\r q\x7fexit\r", append(byKey, "-tt")...)
	for _, want := range []string{"Type help or '?'", "scripted# show clo", "  clock  The box's time\r\n", more, "\r\nLogoff\r\n"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("on a terminal there is no %q: %v\n%q", want, err, out)
		}
	}
	for _, want := range []string{"%ASA-5-111008: User 'ann' executed the 'write memory' command.", "%ASA-5-111010: User 'ann', running 'CLI' from IP 127.0.0.1, executed 'hostname scripted'"} {
		if !strings.Contains(b.logged(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

// A client that sends what is no SSH, or nothing, is left.
func TestSSHStrangers(t *testing.T) {
	b := newTestBox(t, "")
	s, addr := listenSSH(t, b.Box, time.Second)
	for _, hello := range []string{"GET / HTTP/1.0\r\n\r\n", "SSH-1.5-old\r\n", "SSH-2.0-x\r\n\xff\xff\xff\xff", strings.Repeat("a", 100_000)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, hello)
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %.20q the box waits for more", hello)
		}
		c.Close()
	}
	var idle []net.Conn
	for range maxArriving + 5 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	last := idle[len(idle)-1]
	last.SetDeadline(time.Now().Add(20 * time.Second))
	if out, err := io.ReadAll(last); errors.Is(err, os.ErrDeadlineExceeded) || strings.HasPrefix(string(out), "SSH") {
		t.Errorf("one too many that says nothing is kept: %q, %v", out, err)
	}
	for _, c := range idle {
		c.Close()
	}
	for i := 0; s.arriving.Load() > 0 && i < 200; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if n := s.arriving.Load(); n > 0 {
		t.Errorf("%d that have gone are counted", n)
	}
}

func TestHostKeysStay(t *testing.T) {
	d := newFrailDisk()
	s := NewStartup(d)
	b := newTestBox(t, "")
	first, err := hostKeys(s, b.opt.Rand, b.opt.Log)
	if err != nil {
		t.Fatal(err)
	}
	again, err := hostKeys(s, b.opt.Rand, b.opt.Log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first {
		if !bytes.Equal(first[i].PublicKey().Marshal(), again[i].PublicKey().Marshal()) {
			t.Errorf("key %d is another when it is read again", i)
		}
	}
	d.names["ssh_host_ecdsa_key"].data = []byte("torn")
	if _, err := hostKeys(s, b.opt.Rand, b.opt.Log); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged key: %v", err)
	}
}

// Where a key cannot be kept the box has one all the same, and says so: who is to
// make room must get in.
func TestHostKeyFullFlash(t *testing.T) {
	d := newFrailDisk()
	d.steps = 0 // every write fails
	var log bytes.Buffer
	keys, err := hostKeys(NewStartup(d), newTestBox(t, "").opt.Rand, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || len(keys) != len(hostKeyFiles) {
		t.Fatalf("%d keys, %v; want %d", len(keys), err, len(hostKeyFiles))
	}
	if !strings.Contains(log.String(), "SSH host key not kept on flash") {
		t.Errorf("log: %s", log.String())
	}
}
