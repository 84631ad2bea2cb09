package console

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"

	"golang.org/x/crypto/ssh"
)

// hostKeyFiles are the keys by which clients know the box, on flash.
var hostKeyFiles = []struct {
	name string
	make func(random io.Reader) (crypto.Signer, error)
}{
	{"ssh_host_ed25519_key", func(random io.Reader) (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(random)
		return key, err
	}},
	{"ssh_host_ecdsa_key", func(random io.Reader) (crypto.Signer, error) {
		return ecdsa.GenerateKey(elliptic.P256(), random)
	}},
}

// hostKeys reads the keys, and makes those that are not there. One that is
// damaged is not replaced: clients would take the box for another. A new one that
// does not go to flash serves until the box ends: who is to make room there must
// get in.
func hostKeys(s *Startup, random io.Reader, log *slog.Logger) ([]ssh.Signer, error) {
	var keys []ssh.Signer
	for _, f := range hostKeyFiles {
		data, err := s.read(f.name)
		if errors.Is(err, fs.ErrNotExist) {
			data, err = makeHostKey(f.make, random)
			if err == nil {
				if kept := s.replace(f.name, data); kept != nil {
					log.Error("SSH host key not kept on flash", "file", f.name, "reason", kept)
				}
			}
		}
		if err != nil {
			return nil, fmt.Errorf("console: %s: %w", f.name, err)
		}
		key, err := ssh.ParsePrivateKey(data)
		if err != nil {
			return nil, fmt.Errorf("console: %s on flash is damaged; restore it, or remove it to have a new one made: %w", f.name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// makeHostKey makes a key as its file has it.
func makeHostKey(generate func(io.Reader) (crypto.Signer, error), random io.Reader) ([]byte, error) {
	key, err := generate(random)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
