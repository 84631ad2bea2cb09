package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckPrivilege: only the program as a whole knows the commands of EXEC mode.
func TestCheckPrivilege(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pb.cfg")
	if err := os.WriteFile(file, []byte("hostname pb\nprivilege show level 5 mode exec command frobnicate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := root()
	c.SetArgs([]string{"check", file})
	c.SetOut(&out)
	if err := c.Execute(); err != nil || !strings.Contains(out.String(), `:2: WARNING: there is no exec command "show frobnicate" here`) || !strings.Contains(out.String(), " 1 warnings") {
		t.Errorf("check: %v\n%s", err, &out)
	}
}

// TestCheckLenient: what is refused makes check fail; with --lenient it is left
// out and listed, and so is what depends on it.
func TestCheckLenient(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pb.cfg")
	text := "hostname pb\nrouter ospf 1\ninterface GigabitEthernet0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\n" +
		"access-list a extended deny ip any object missing\naccess-group a in interface outside\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := root()
		c.SetArgs(append(args, file))
		c.SetOut(&out)
		c.SetErr(&out)
		err := c.Execute()
		return out.String(), err
	}
	if out, err := run("check"); err == nil || !strings.Contains(out, ":2: ERROR: a routing protocol") {
		t.Errorf("check: %v\n%s", err, out)
	}
	out, err := run("check", "--lenient")
	if err != nil {
		t.Errorf("check --lenient: %v\n%s", err, out)
	}
	for _, want := range []string{":2: WARNING: left out: a routing protocol", ":6: WARNING: left out: there is no object network missing",
		"see that nothing passes which it was to deny", ":7: WARNING: left out: there is no access list a", ": 3 findings of lines left out"} {
		if !strings.Contains(out, want) {
			t.Errorf("check --lenient does not say %q:\n%s", want, out)
		}
	}
}
