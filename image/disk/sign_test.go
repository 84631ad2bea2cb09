package disk

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestKeys(t *testing.T) {
	keys := Keys{}.With(publicOf(testKey(1))).With(publicOf(testKey(2))).With(publicOf(testKey(1)))
	if len(keys) != 2 {
		t.Fatalf("%d keys, want 2", len(keys))
	}
	got, err := ParseKeys(keys.PEM())
	if err != nil || got.String() != keys.String() || !strings.Contains(got.String(), KeyID(publicOf(testKey(2)))) {
		t.Errorf("%s reads as %s, %v", keys, got, err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var many Keys
	for n := range byte(maxKeys + 1) {
		many = many.With(publicOf(testKey(n)))
	}
	for name, text := range map[string]string{
		"nothing":              "",
		"no PEM":               "ssh-ed25519 AAAA",
		"a private key":        pemOf("PRIVATE KEY", pkcs8(t, testKey(1))),
		"another kind":         pemOf("PUBLIC KEY", der),
		"damaged":              pemOf("PUBLIC KEY", spki(publicOf(testKey(1)))[1:]),
		"something at its end": string(keys.PEM()) + "x",
		"too many":             string(many.PEM()),
	} {
		if got, err := ParseKeys([]byte(text)); err == nil {
			t.Errorf("%s: read as %s", name, got)
		}
	}
	dir := t.TempDir()
	if got, err := ReadKeys(filepath.Join(dir, "none")); got != nil || err != nil {
		t.Errorf("no file: %s, %v", got, err)
	}
	file := filepath.Join(dir, KeysFile)
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeys(file); err == nil {
		t.Error("a damaged file is taken for no file")
	}
}

func TestSigningKey(t *testing.T) {
	der := pkcs8(t, testKey(1))
	if got, err := ParseSigningKey([]byte(pemOf("PRIVATE KEY", der))); err != nil || !got.Equal(testKey(1)) {
		t.Errorf("a good key: %v", err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"":                                  "no PEM",
		pemOf("PRIVATE KEY", der) + "more":  "something else behind",
		pemOf("PRIVATE KEY", der[:20]):      "cannot be read",
		pemOf("PRIVATE KEY", pkcs8(t, ec)):  "Ed25519",
		pemOf("ENCRYPTED PRIVATE KEY", der): "encrypted",
		pemOf("PUBLIC KEY", der):            "PUBLIC KEY",
	} {
		if _, err := ParseSigningKey([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %q", text, err, want)
		}
	}
}

// OpenSSL makes the key, names it as KeyID does, and finds the signature good.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl, the Debian package of that name")
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command("openssl", args...)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	run("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	run("pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem")
	run("pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "pub.der")
	key, err := ParseSigningKey(read("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeys(read("pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(keys.PEM(), read("pub.pem")) {
		t.Errorf("the public key is written as\n%s", keys.PEM())
	}
	_, found, err := readBundle(bundleOf(t, testSystem, key))
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Authentic(keys); err != nil {
		t.Error(err)
	}
	if id := run("dgst", "-sha256", "-r", "pub.der"); !strings.HasPrefix(id, found.Signer) || len(found.Signer) != 16 {
		t.Errorf("OpenSSL names the key %s, and KeyID %s", id, found.Signer)
	}
	f := strings.Fields(string(found.sig.text()))
	sig, err := base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(sig) != ed25519.SignatureSize {
		t.Fatalf("%d bytes, %v", len(sig), err)
	}
	for name, data := range map[string][]byte{"signed": []byte("patchbay bundle\n" + testSystem.sums()), "sig": sig} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := run("pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-rawin", "-in", "signed", "-sigfile", "sig"); !strings.Contains(out, "Successfully") {
		t.Errorf("OpenSSL: %s", out)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add(Keys{publicOf(testKey(1)), publicOf(testKey(2))}.PEM())
	f.Add([]byte(pemOf("PRIVATE KEY", pkcs8(f, testKey(1)))))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ParseKeys(b)
		ParseSigningKey(b)
		if err != nil {
			return
		}
		if again, err := ParseKeys(keys.PEM()); err != nil || again.String() != keys.String() {
			t.Errorf("%s becomes %s, %v", keys, again, err)
		}
	})
}
