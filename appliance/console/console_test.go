package console

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance/config"
)

func TestExec(t *testing.T) {
	b := newTestBox(t, "")
	for _, tt := range []struct{ line, out, err string }{
		{"show running-config | include ^hostname", "hostname pb\n", ""},
		{"write memory", "Building configuration...\n", ""},
		{"show clock", "09:00:00.000 UTC Mon Mar 2 2026\n", ""},
		{"show frob", "", "show frob\n     ^\nERROR: % Invalid input detected at '^' marker."},
		{"write erase", "", "ERROR: % The command asks for an answer, and there is nobody to give one; log in to the box"},
		{"configure terminal", "", "ERROR: % The command is for who has logged in to the box"},
		{"exit", "", "ERROR: % The command is for who has logged in to the box"},
		{"show running-config | include (", "", "% Invalid regular expression: missing closing ): `(`"},
	} {
		var out bytes.Buffer
		err := b.Exec(t.Context(), &out, tt.line)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || err.Error() != tt.err) || !strings.HasPrefix(out.String(), tt.out) {
			t.Errorf("Exec(%q) = %q, %v; want %q, %q", tt.line, out.String(), err, tt.out, tt.err)
		}
	}
	if _, err := b.Saved(); err != nil {
		t.Errorf("write memory by a program: %v", err)
	}
}

// Two who configure at once do not lose each other's lines.
func TestTwoConfigure(t *testing.T) {
	b := newTestBox(t, "")
	var both sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		both.Add(1)
		go func() {
			defer both.Done()
			var at config.Place
			for _, line := range []string{"object network " + name + "1", "host 10.20.0.41", "object network " + name + "2", "host 10.20.0.42"} {
				e := b.Enter(at, line)
				if config.Errors(e.Findings) > 0 {
					t.Errorf("%s: %v", line, e.Findings)
				}
				at = e.At
			}
		}()
	}
	both.Wait()
	text := b.Text().String()
	for _, name := range []string{"a1\n host", "a2\n host", "b1\n host", "b2\n host"} {
		if !strings.Contains(text, "object network "+name) {
			t.Errorf("object network %q is lost:\n%s", name, text)
		}
	}
}

// A change that the box cannot make is not made: text and box stay as they were.
func TestNotAtAll(t *testing.T) {
	b := newTestBox(t, "")
	before := b.Text()
	e := b.Enter(config.Place{}, "crypto ca trustpoint t")
	e = b.Enter(e.At, "enrollment terminal")
	e = b.Enter(e.At, "crypto ca certificate chain t")
	between := b.Text()
	e = b.Enter(e.At, "certificate ca 01")
	e = b.Enter(e.At, "30053003020107")
	e = b.Enter(e.At, "quit")
	if config.Errors(e.Findings) == 0 || e.Text != between || b.Text() != between || between.Equal(before) {
		t.Errorf("a certificate that is none: %v\n%s", e.Findings, b.Text())
	}
	bad, _ := config.Load("x", strings.NewReader("hostname other\ncrypto ca trustpoint t\n enrollment terminal\ncrypto ca certificate chain t\n certificate ca 01\n  30053003020107\n quit\n"), false)
	if bad.String() == (config.Text{}).String() {
		t.Fatal("the text is empty")
	}
	if err := b.Replace(bad); err == nil || b.Text() != between {
		t.Errorf("Replace = %v; the text is\n%s", err, b.Text())
	}
	if err := b.Merge(bad); err == nil || b.Text() != between {
		t.Errorf("Merge = %v; the text is\n%s", err, b.Text())
	}
}

// Passwords in the text that the box begins with are not kept as they stand.
func TestConceals(t *testing.T) {
	b := newTestBox(t, "hostname pb\nenable password top level 5\nenable password low\npasswd net\nusername u password own privilege 3\nusername v nopassword\n")
	text := b.Text().String()
	for _, secret := range []string{" top", " low", " net", " own"} {
		if strings.Contains(text, secret) {
			t.Errorf("the text has the password%s:\n%s", secret, text)
		}
	}
	again, found := config.Load("again", strings.NewReader(text), false)
	if len(found) > 0 || !again.Equal(b.Text()) {
		t.Errorf("loaded again it is another: %v\n%s", found, text)
	}
	l := b.login()
	for _, ok := range []bool{matches(l.Enable[5], "", "top"), matches(l.Enable[15], "", "low"), matches(l.Passwd, "", "net"), matches(l.User("u").Password, "u", "own"),
		l.User("u").Privilege == 3, l.User("v").Empty} {
		if !ok {
			t.Errorf("the hashes are not those of the passwords:\n%s", text)
		}
	}
}

func TestIdle(t *testing.T) {
	b := newTestBox(t, "")
	pr, pw := io.Pipe()
	defer pw.Close()
	in := NewInput(pr)
	defer in.Close()
	if _, err := in.read(context.Background(), time.Millisecond, nil, nil); err != errIdle {
		t.Errorf("read of nothing: %v, want %v", err, errIdle)
	}
	go pw.Write([]byte("x"))
	if c, err := in.read(context.Background(), time.Minute, nil, nil); c != 'x' || err != nil {
		t.Errorf("read after that = %q, %v", c, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out bytes.Buffer
	if err := b.Console(ctx, Transport{In: in, Out: &out}); err != nil {
		t.Errorf("Console after its end: %v", err)
	}
}

// The serial console asks who is there where the configuration says so, and
// begins anew after each session.
func TestSerialConsole(t *testing.T) {
	b := newTestBox(t, "")
	b.enter(t, "aaa authentication serial console LOCAL")
	in := NewInput(strings.NewReader("ann\nwrong\nann\nanns-secret\nshow curpriv\nexit\n\nbob\nbobs-secret\nshow curpriv\nexit\n"))
	defer in.Close()
	var out bytes.Buffer
	if err := b.Console(context.Background(), Transport{In: in, Out: &out}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Username: Password: Login incorrect\nUsername: Password: pb> Username : ann\n", "Press Enter to get started\nUsername: Password: pb> Username : bob\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the console has no %q:\n%s", want, out.String())
		}
	}
}

// FuzzSession types anything at a console in privileged mode: no panic, and the
// text that comes of it can be loaded again.
func FuzzSession(f *testing.F) {
	f.Add("show run | i host\nconf t\nhostname x\nint g0/0\n?\nsh int\nend\nwr\n", true)
	f.Add("configure terminal\nusername a password b\nenable password c level 3\nno username a\nsh\tru\tq", true)
	f.Add("reload in 5 noconfirm\nreload cancel\nwrite erase\n\ncopy run start\n\n\n", false)
	f.Fuzz(func(t *testing.T, keys string, terminal bool) {
		b := newTestBox(t, "hostname pb\ninterface GigabitEthernet0/0\n nameif inside\n ip address 10.20.0.1 255.255.255.0\n")
		defer b.cancelReload()
		in := NewInput(strings.NewReader(keys))
		defer in.Close()
		var out bytes.Buffer
		if err := b.Serve(context.Background(), Transport{In: in, Out: &out, Terminal: terminal}, Who{From: fromConsole, Level: maxPrivilege}); err != nil && err != io.EOF {
			t.Fatalf("Serve: %v", err)
		}
		text := b.Text()
		again, found := config.Load("again", strings.NewReader(text.String()), false)
		if config.Errors(found) > 0 || !again.Equal(text) {
			t.Fatalf("after %q the text is not one: %v\n%s", keys, found, text)
		}
	})
}

// No password that is typed comes back: in the log, the history or a message.
func TestSecretsStayUnsaid(t *testing.T) {
	b := newTestBox(t, "")
	y := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	out := ""
	for _, line := range []string{"configure terminal", "username u password topsecret privilege 3", "enable password topsecret level 4", "passwd topsecret",
		"username u pass topsecret frob", "enable pass topsecret level 99", "crypto ca import x pkcs12 topsecret", "quit", "end", "username u password topsecret", "show history", "show running-config", "show logging"} {
		y.press("\x15" + line)
		out += y.press("\r") // what comes back but for the echo
		out += y.press("q")
	}
	if strings.Contains(out, "topsecret") || strings.Contains(b.logged(), "topsecret") {
		t.Errorf("a password comes back:\n%s\n%s", out, b.logged())
	}
}

// What is pasted is echoed in few writes, and all of it.
func TestPasteEcho(t *testing.T) {
	b := newTestBox(t, "")
	lines := strings.Repeat("show curpriv "+strings.Repeat(" ", 40)+"\r", 20)
	in := NewInput(strings.NewReader(lines))
	defer in.Close()
	var out countingWriter
	err := b.Serve(context.Background(), Transport{In: in, Out: &out, Terminal: true}, Who{From: fromConsole, Level: maxPrivilege})
	if err != io.EOF {
		t.Errorf("Serve: %v", err)
	}
	if n := strings.Count(out.String(), "pb# show curpriv "); n != 20 {
		t.Errorf("%d commands are echoed, want 20:\n%s", n, out.String())
	}
	if out.writes > 20*6 {
		t.Errorf("%d writes for 20 lines", out.writes)
	}
}

// A countingWriter counts the writes to its buffer.
type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(b)
}
