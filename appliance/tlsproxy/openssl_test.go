package tlsproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOpenSSL is TestHandshake with somebody else's client, which can also be
// told to sign with SHA-1 only.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs the program openssl")
	}
	w := theWorld()
	tests := []struct {
		name    string
		cert    *cert
		args    string
		version uint16 // 0 if refused
		cipher  string
		log     string
	}{
		{"TLS 1.0", w.mic, "-tls1 -cipher AES128-SHA:@SECLEVEL=0", tls.VersionTLS10, "AES128-SHA", "725002"},
		{"TLS 1.1", w.mic, "-tls1_1 -cipher AES256-SHA:@SECLEVEL=0", tls.VersionTLS11, "AES256-SHA", "725002"},
		{"TLS 1.2", w.mic, "-tls1_2 -cipher AES128-SHA:@SECLEVEL=0", tls.VersionTLS12, "AES128-SHA", "725002"},
		{"TLS 1.2, ECDHE", w.lsc, "-tls1_2 -cipher ALL:@SECLEVEL=0", tls.VersionTLS12, "ECDHE-RSA-AES128-GCM-SHA256", "725002"},
		{"TLS 1.3", w.lsc, "-tls1_3 -cipher ALL:@SECLEVEL=0", tls.VersionTLS13, "TLS_AES_128_GCM_SHA256", "725002"},
		{"whatever it likes", w.lsc, "-cipher ALL:@SECLEVEL=0", tls.VersionTLS13, "TLS_AES_128_GCM_SHA256", "725002"},
		{"up to 1.2, SHA-1 signatures only", w.mic, "-no_tls1_3 -cipher AES128-SHA:@SECLEVEL=0 -sigalgs RSA+SHA1 -client_sigalgs RSA+SHA1", tls.VersionTLS11, "AES128-SHA", "725002"},

		{"none", nil, "-tls1 -cipher AES128-SHA:@SECLEVEL=0", 0, "", "no certificate returned"},
		{"none, TLS 1.3", nil, "-tls1_3 -cipher ALL:@SECLEVEL=0", 0, "", "no certificate returned"},
		{"stranger", w.stranger, "-tls1 -cipher AES128-SHA:@SECLEVEL=0", 0, "", "717009"},
		{"stranger, TLS 1.3", w.stranger, "-tls1_3 -cipher ALL:@SECLEVEL=0", 0, "", "717009"},
		{"forged", w.forged, "-tls1 -cipher AES128-SHA:@SECLEVEL=0", 0, "", "did not sign it"},
		{"NULL-SHA", w.mic, "-tls1 -cipher NULL-SHA:@SECLEVEL=0", 0, "", "no shared cipher"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"s_client", "-quiet", "-connect", ""}, strings.Fields(tt.args)...)
			if tt.cert != nil {
				args = append(args, "-cert", pemFile(t, tt.cert))
			}
			var said bytes.Buffer
			p, l := newProxy(t, Config{})
			phone, err := serve(t, p, func(addr net.Addr) {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				args[3] = addr.String()
				cmd := exec.CommandContext(ctx, openssl, args...)
				cmd.Stdin = strings.NewReader("ping\n")
				cmd.Stdout, cmd.Stderr = &said, &said
				cmd.Run() // it fails where the box refuses; said tells
			})
			if (err == nil) != (tt.version != 0) {
				t.Fatalf("Handshake: %v, want version %#x; openssl: %s", err, tt.version, &said)
			}
			if err == nil {
				if phone.State.Version != tt.version || phone.Cipher() != tt.cipher {
					t.Errorf("Handshake = %s %s, want %s %s", versionName(phone.State.Version), phone.Cipher(), versionName(tt.version), tt.cipher)
				}
				if !strings.Contains(said.String(), "ping") {
					t.Errorf("openssl got no answer: %s", &said)
				}
			}
			if !strings.Contains(l.String(), tt.log) {
				t.Errorf("the log has not %q:\n%s", tt.log, l)
			}
		})
	}
}

func pemFile(t *testing.T, c *cert) string {
	t.Helper()
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	pem.Encode(&b, &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(c.key)})
	path := filepath.Join(t.TempDir(), "phone.pem")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
