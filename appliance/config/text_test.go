package config_test

import (
	"bytes"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	for _, file := range append(files, "testdata/nonsecure.cfg") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = string(data)
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
	for name, text := range texts(t) {
		t.Run(name, func(t *testing.T) {
			c, found := config.Load(name, strings.NewReader(text), true)
			once := c.String()
			if d := os.Getenv("DUMP"); d != "" {
				os.WriteFile(filepath.Join(d, name), []byte(once), 0o644)
			}
			again, more := config.Load(name, strings.NewReader(once), false)
			if config.Errors(more) > 0 {
				t.Fatalf("of what was rendered: %v\n%s", more, once)
			}
			if !again.Equal(c) || again.String() != once {
				t.Errorf("Load(Render) is another text:\n%s\nwant\n%s", again, once)
			}
			_ = found
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
			if strings.HasPrefix(name, "h-") {
				text = strings.Replace(text, "\n media-termination address 203.0.113.20\n", "\n", 1) // is not typed: V50
				text = strings.Replace(text, "phone-proxy mypp\n", "media-termination m\n address 203.0.113.20\nphone-proxy mypp\n media-termination m\n", 1)
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
