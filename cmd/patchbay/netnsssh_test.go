//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenSSH has OpenSSH's client log in to the box's own address, over a wire:
// by password and by key, for one command, with a file of commands, and on a
// terminal.
func TestOpenSSH(t *testing.T) {
	n := newTestNet(t, overPacket)
	needs(t, "openssh-client (ssh)", "openssh-client (ssh-keygen)")
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := n.run(patience, n.in, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	must(t, err)
	ask := filepath.Join(dir, "askpass")
	must(t, os.WriteFile(ask, []byte("#!/bin/sh\necho anns-secret\n"), 0o700))

	config := demoWith(t, ": end", `username ann password anns-secret privilege 15
username ann attributes
 ssh authentication publickey `+strings.Fields(string(public))[1]+`
aaa authentication ssh console LOCAL
aaa authorization exec LOCAL auto-enable
ssh 10.20.0.0 255.255.255.0 inside
: end`)
	box := n.start(t, startOptions{config: config})
	defer box.stop(t)

	// ssh runs the client in a namespace, against one of the box's addresses.
	ssh := func(ns, to, stdin string, options []string, command ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		args := append([]string{"-F", "none", "-l", "ann", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known"),
			"-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3"}, options...)
		cmd := n.command(ctx, ns, "ssh", append(append(args, to), command...)...)
		cmd.Env = append(os.Environ(), "SSH_ASKPASS="+ask, "SSH_ASKPASS_REQUIRE=force")
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	byPassword := []string{"-o", "PubkeyAuthentication=no"}
	byKey := []string{"-i", key, "-o", "PasswordAuthentication=no", "-o", "KbdInteractiveAuthentication=no"}

	var big strings.Builder // more than a segment, and than an echo of it by the letter
	for i := range 100 {
		fmt.Fprintf(&big, "object network pasted-%d\n host 10.20.1.%d\n", i, i+1)
	}
	count := "show running-config | count ^object network pasted-\n"
	for _, tt := range []struct {
		name, stdin string
		options     []string
		command     string
		want        string
		refused     bool
	}{
		{"by password", "", byPassword, "show version", "patchbay up ", false},
		{"by key", "", byKey, "show running-config | include ^hostname", "hostname patchbay\n", false},
		{"a command that is none", "", byKey, "show frob", "% Invalid input detected", true},
		{"a file", "configure terminal\n" + big.String() + "end\n" + count, byKey, "", "regexp = 100\n", false},
		{"on a terminal", "terminal pager 0\nconfigure terminal\nno object network pasted-0\n" + big.String() + "end\n" + count + "exit\n", append(byKey, "-tt"), "", "regexp = 100\r\n", false},
	} {
		var command []string
		if tt.command != "" {
			command = []string{tt.command}
		}
		out, err := ssh(n.in, boxInside.String(), tt.stdin, tt.options, command...)
		if (err != nil) != tt.refused || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %v, without %q:\n%s", tt.name, err, tt.want, out)
		}
	}
	if out, err := ssh(n.out, boxAddr.String(), "", byKey, "show version"); err == nil {
		t.Errorf("no ssh line permits it from outside, and yet:\n%s", out)
	}
}
