package disk

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// KeysFile is where the root of a machine has the public keys of those whose bundles
// it installs, in PEM. Without it the machine installs everybody's.
const KeysFile = "trusted.pem"

// maxKeys bounds how many there may be.
const maxKeys = 16

// Keys are public keys that are trusted.
type Keys []ed25519.PublicKey

// KeyID returns the name that a key is known by: the first 16 hexadecimal digits of
// the SHA-256 of its SubjectPublicKeyInfo, as "openssl pkey -pubout -outform DER |
// sha256sum" prints it.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(spki(key))
	return fmt.Sprintf("%x", sum[:8])
}

// spki returns a key as a SubjectPublicKeyInfo in DER. (RFC 8410.)
func spki(key ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // there is no Ed25519 key that it could not write
	}
	return der
}

// ParseKeys reads public keys in PEM, one block each, as "openssl pkey -pubout" writes
// them. It wants one at least.
func ParseKeys(text []byte) (Keys, error) {
	var keys Keys
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("a PEM block of %.40q: want a PUBLIC KEY, as \"openssl pkey -in KEY.pem -pubout\" writes it", block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("public key: %w", err)
		}
		public, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("a public key of the kind %T: want Ed25519", key)
		}
		keys = keys.With(public)
	}
	if len(bytes.TrimSpace(text)) > 0 {
		return nil, errors.New("there is something else behind the public keys")
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%d public keys: want 1 to %d, in PEM", len(keys), maxKeys)
	}
	return keys, nil
}

// ReadKeys reads the keys in a file, nil if there is no such file.
func ReadKeys(file string) (Keys, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var keys Keys
	if err == nil {
		keys, err = ParseKeys(text)
	}
	if err != nil {
		return nil, fmt.Errorf("the keys that are trusted cannot be read, and so none is: %w", err)
	}
	return keys, nil
}

// With returns k with another key, if it is not there yet.
func (k Keys) With(key ed25519.PublicKey) Keys {
	if slices.ContainsFunc(k, func(x ed25519.PublicKey) bool { return x.Equal(key) }) {
		return k
	}
	return append(slices.Clip(k), key)
}

// PEM returns k as ParseKeys reads it.
func (k Keys) PEM() []byte {
	var b bytes.Buffer
	for _, key := range k {
		pem.Encode(&b, &pem.Block{Type: "PUBLIC KEY", Bytes: spki(key)}) // a Buffer takes all
	}
	return b.Bytes()
}

// String returns the keys' IDs.
func (k Keys) String() string {
	var ids []string
	for _, key := range k {
		ids = append(ids, KeyID(key))
	}
	return strings.Join(ids, ", ")
}

// ParseSigningKey reads a private key in PKCS #8 and PEM, as "openssl genpkey
// -algorithm ed25519" writes it.
func ParseSigningKey(text []byte) (ed25519.PrivateKey, error) {
	const want = "want an Ed25519 private key in PKCS #8, as \"openssl genpkey -algorithm ed25519\" writes it"
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("this is no PEM: " + want)
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted: decrypt it for the build with \"openssl pkey\"")
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("a PEM block of %.40q: "+want, block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is something else behind the key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key cannot be read: " + want) // the cause may quote the key
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a private key of the kind %T: "+want, key)
	}
	return private, nil
}

// A signature is that of a bundle, by the key of an ID, over signedHead and the sums.
// As a file it is a line of three words: the algorithm, the ID, and the 64 bytes in
// base64. (RFC 8032, section 5.1.)
type signature struct {
	key string
	sig []byte
}

const (
	// signedHead is in front of what is signed, so that it is nothing else that
	// the same key signs.
	signedHead = "patchbay bundle\n"

	sigAlgorithm = "ed25519"
)

func sign(key ed25519.PrivateKey, sums string) signature {
	return signature{KeyID(key.Public().(ed25519.PublicKey)), ed25519.Sign(key, []byte(signedHead+sums))}
}

func (s signature) text() []byte {
	return fmt.Appendf(nil, "%s %s %s\n", sigAlgorithm, s.key, base64.StdEncoding.EncodeToString(s.sig))
}

func parseSignature(line []byte) (s signature, err error) {
	f := strings.Fields(string(line))
	if len(f) == 3 && f[0] == sigAlgorithm && len(f[1]) == 16 && strings.Trim(f[1], "0123456789abcdef") == "" {
		s.key = f[1]
		s.sig, err = base64.StdEncoding.DecodeString(f[2])
		if err == nil && len(s.sig) == ed25519.SignatureSize && bytes.Equal(s.text(), line) {
			return s, nil
		}
	}
	return signature{}, errors.New("its signature is damaged, or of a kind that is not known here")
}

// Authentic returns nil if a bundle is signed by one of the keys. What is signed is
// the sums of all that is in it; the keys that the new system will trust are in its
// initramfs. With no keys nothing is authentic.
func (b *Bundle) Authentic(keys Keys) error {
	if len(keys) == 0 {
		return errors.New("no key is trusted here")
	}
	if b.Signer == "" {
		return fmt.Errorf("it is not signed; it must be by %s", keys)
	}
	for _, key := range keys {
		if KeyID(key) != b.Signer {
			continue
		}
		if ed25519.Verify(key, []byte(signedHead+b.sums), b.sig.sig) {
			return nil
		}
		return fmt.Errorf("its signature is not that of the key %s over what is in it", b.Signer)
	}
	return fmt.Errorf("it is signed by the key %s, which is not trusted here; %s would be", b.Signer, keys)
}
