package appliance

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFlashNames(t *testing.T) {
	for _, tt := range []struct{ word, want string }{
		{"disk0:/patchbay-2.bin", "patchbay-2.bin"},
		{"flash:a.bin", "a.bin"},
		{"disk0:a.pcap", "a.pcap"},
		{"disk0:/startup-config", ""},
		{"disk0:/../a.bin", ""},
		{"disk0:/a/b.bin", ""},
		{"disk0:/.bin", ""},
		{"disk0:/.a.bin", ""},
		{"disk0:/CTLFile.tlv", ""},
		{"a.bin", ""},
		{"disk0:/" + strings.Repeat("a", 200) + ".bin", ""},
	} {
		got, err := plainFile(tt.word, imageSuffix, flashSuffix)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("plainFile(%q) = %q, %v; want %q", tt.word, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		word string
		ok   bool
	}{
		{"tftp://10.20.0.11/patchbay.bin", true}, {"http://10.20.0.11:8080/a/b.bin", true},
		{"tftp://10.20.0.11/", false}, {"https://10.20.0.11/a", false}, {"tftp:a", false}, {"running-config", false},
		{"http://user:secret@10.20.0.11/a", false}, {"disk0:/a.bin", false},
	} {
		if _, err := fileURL(tt.word); (err == nil) != tt.ok {
			t.Errorf("fileURL(%q): %v; want ok %v", tt.word, err, tt.ok)
		}
	}
}

// A file arrives whole or not at all; dir shows it, and delete takes it away but
// nothing that is the box's own.
func TestFlashFiles(t *testing.T) {
	b := execBox(t)
	dir := b.opt.Store.Dir()
	data := bytes.Repeat([]byte("system"), 100_000)
	var out bytes.Buffer
	show := func(format string, args ...any) error {
		_, err := fmt.Fprintf(&out, format, args...)
		return err
	}
	if err := receive(dir, "new.bin", bytes.NewReader(data), time.Now, show); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "new.bin")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes on flash, %v; want %d", len(got), err, len(data))
	}
	if want := "600000 bytes copied"; !strings.Contains(out.String(), want) {
		t.Errorf("receive says %q; want %q in it", out.String(), want)
	}
	if err := receive(dir, "half.bin", io.MultiReader(bytes.NewReader(data), brokenReader{}), time.Now, show); err == nil {
		t.Error("receive of half a file: no error")
	}
	left, err := filepath.Glob(filepath.Join(dir, "half*"))
	if err != nil || len(left) > 0 {
		t.Errorf("half a file left %v", left)
	}
	if got := b.do("dir"); !strings.Contains(got, "600000") || !strings.Contains(got, "new.bin") || !strings.Contains(got, "bytes free") {
		t.Errorf("dir:\n%s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "startup-config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Exec(io.Discard, "delete /noconfirm disk0:/startup-config"); err == nil {
		t.Error("delete takes the startup configuration")
	}
	if got := b.do("delete /noconfirm disk0:/new.bin"); got != "" {
		t.Errorf("delete: %q", got)
	}
	if err := b.Exec(io.Discard, "delete /noconfirm disk0:/new.bin"); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("delete of what is gone: %v", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
