package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A client that has turned debug on is shown what it shows, until it leaves or
// the box does; other commands end.
func TestFollow(t *testing.T) {
	shows, stopped := make(chan func(string), 1), make(chan bool, 1)
	path := filepath.Join(t.TempDir(), "s")
	c, err := listenControl(path, func(_ context.Context, w io.Writer, line string) error {
		_, err := io.WriteString(w, line+" is done\n")
		return err
	}, func(show func(string)) func() {
		shows <- show
		return func() { stopped <- true }
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	out, _, err := runExec(t, "--socket", path, "show", "debug")
	if err != nil || out != "show debug is done\n" {
		t.Errorf("show debug: %q, %v", out, err)
	}
	follow := func() (*io.PipeReader, context.CancelFunc, chan error) {
		ctx, leave := context.WithCancel(t.Context())
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			cmd := root()
			cmd.SetOut(w)
			cmd.SetErr(w)
			cmd.SetArgs([]string{"exec", "--socket", path, "deb", "sip"})
			ended <- cmd.ExecuteContext(ctx)
			w.Close()
		}()
		return r, leave, ended
	}
	want := func(r io.Reader, line string) {
		t.Helper()
		got := make([]byte, len(line))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != line {
			t.Fatalf("read %q, %v; want %q", got, err, line)
		}
	}
	await := func(what string, done <-chan bool) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal(what)
		}
	}

	r, leave, ended := follow()
	want(r, "deb sip is done\n")
	show := <-shows
	for _, line := range []string{"SIP: one", "SIP: two"} {
		go show(line)
		want(r, line+"\n")
	}
	leave()
	go io.Copy(io.Discard, r)
	if err := <-ended; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
	await("debug of a client that has left goes on", stopped)

	r, leave, ended = follow()
	defer leave()
	want(r, "deb sip is done\n")
	<-shows
	go io.Copy(io.Discard, r)
	c.Close()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the box went away") {
		t.Errorf("after the end of the box: %v", err)
	}
	await("debug of a socket that is closed goes on", stopped)
}
