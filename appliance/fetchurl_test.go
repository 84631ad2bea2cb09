package appliance

import (
	"strings"
	"testing"
)

func TestFileURL(t *testing.T) {
	for _, tt := range []struct {
		word string
		port uint16 // 0 is refused
	}{
		{"tftp://10.20.0.11/patchbay.bin", 69}, {"http://10.20.0.11:8080/a/b.bin", 8080}, {"http://cucm.example.com/a", 80},
		{"tftp://10.20.0.11/", 0}, {"tftp://10.20.0.11", 0}, {"tftp:///x", 0}, {"https://10.20.0.11/a", 0}, {"ftp://10.20.0.11/a", 0}, {"tftp:a", 0},
		{"running-config", 0}, {"http://user:secret@10.20.0.11/a", 0}, {"disk0:/a.bin", 0}, {"http://10.20.0.11:0/a", 0}, {"http://10.20.0.11:65536/a", 0},
		{"tftp://10.20.0.11/a%00octet", 0}, {"tftp://10.20.0.11/a?b", 0}, {"tftp://10.20.0.11/a#b", 0}, {"tftp://10.20.0.11/;int=inside", 0},
		{"tftp://10.20.0.11/a.cfg;int=inside", 69}, {"tftp://10.20.0.11/" + strings.Repeat("x", maxURL), 0},
	} {
		if f, err := fileURL(tt.word); (err == nil) != (tt.port > 0) || err == nil && f.port != tt.port {
			t.Errorf("fileURL(%.60q): port %d, %v; want %d", tt.word, f.port, err, tt.port)
		}
	}
}

// FuzzFileURL reads anything as a URL: what is one can be asked for by TFTP and HTTP.
func FuzzFileURL(f *testing.F) {
	for _, s := range []string{"tftp://10.20.0.11/a/b.cfg;int=inside", "http://ucm.example.com:8080/a?b#c", "tftp://[::1]/a", "tftp://h:69/%00", "tftp:a", "tftp://h//;int=", "TFTP://h/%2f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		u, err := fileURL(word)
		if err != nil {
			return
		}
		if u.port == 0 || u.url.Hostname() == "" || strings.Trim(u.name, "/") == "" || strings.ContainsAny(u.name, "\x00\r\n") || u.url.User != nil {
			t.Errorf("fileURL(%q) = %+v of %v", word, u, u.url)
		}
	})
}
