package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
)

// rsaBits are the moduli of key pairs that are made. (reference/asa-cli.md,
// section 7; 512 and 768 are too weak.)
var rsaBits = []int{1024, 2048, 3072, 4096}

// A KeyPair tells of a key pair without giving it away.
type KeyPair struct {
	Label  string
	Bits   int              // of the modulus, or of the curve
	Public crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
}

// Kind returns the keyword of "crypto key generate" for the key pair: rsa or
// ecdsa.
func (k KeyPair) Kind() string {
	if _, ok := k.Public.(*ecdsa.PublicKey); ok {
		return "ecdsa"
	}
	return "rsa"
}

func keyPair(label string, key crypto.Signer) KeyPair {
	k := KeyPair{Label: label, Public: key.Public()}
	switch pub := k.Public.(type) {
	case *rsa.PublicKey:
		k.Bits = pub.N.BitLen()
	case *ecdsa.PublicKey:
		k.Bits = pub.Curve.Params().BitSize
	}
	return k
}

// samePublic reports whether two public keys are one. Keys of a kind that is not
// known are not.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Keys returns every key pair that can be read, ordered by label.
func (s *Store) Keys() []KeyPair {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]KeyPair, 0, len(s.keys))
	for _, label := range sortedKeys(s.keys) {
		list = append(list, keyPair(label, s.keys[label]))
	}
	return list
}

// HasKey reports whether there is a key pair of that label that can be read.
func (s *Store) HasKey(label string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keys[label] != nil
}

func (s *Store) keyLocked(label string) (crypto.Signer, error) {
	if key := s.keys[label]; key != nil {
		return key, nil
	}
	if err := s.damaged[fileName(keyPrefix, label)]; err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("pki: key pair %q: %w", label, ErrNotFound)
}

// GenerateRSA makes a key pair of 1024, 2048, 3072 or 4096 bits, 0 for
// DefaultRSABits, and stores it. It may take seconds and holds no lock in them.
func (s *Store) GenerateRSA(label string, bits int) error {
	if bits == 0 {
		bits = DefaultRSABits
	}
	if !slices.Contains(rsaBits, bits) {
		return fmt.Errorf("pki: key pair %q: modulus of %d bits: must be 1024, 2048, 3072 or 4096", label, bits)
	}
	if err := checkName(label); err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	if err := s.freeKey(label); err != nil {
		return err
	}
	key, err := s.newKey(bits)
	if err != nil {
		return fmt.Errorf("pki: key pair %q: generating: %w", label, err)
	}
	if n := key.N.BitLen(); n != bits {
		return fmt.Errorf("pki: key pair %q: generated %d bits, not %d", label, n, bits)
	}
	return s.ImportKey(label, key)
}

// GenerateECDSA makes a key pair on the NIST curve of 256, 384 or 521 bits, 0
// for 384, and stores it. Phones of the 7900 series know RSA only.
func (s *Store) GenerateECDSA(label string, bits int) error {
	var curve elliptic.Curve
	switch bits {
	case 256:
		curve = elliptic.P256()
	case 0, 384: // the ASA's default
		curve = elliptic.P384()
	case 521:
		curve = elliptic.P521()
	default:
		return fmt.Errorf("pki: key pair %q: curve of %d bits: must be 256, 384 or 521", label, bits)
	}
	if err := s.freeKey(label); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return fmt.Errorf("pki: key pair %q: generating: %w", label, err)
	}
	return s.ImportKey(label, key)
}

func (s *Store) freeKey(label string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.freeKeyLocked(label)
}

func (s *Store) freeKeyLocked(label string) error {
	_, err := s.keyLocked(label)
	switch {
	case err == nil:
		return fmt.Errorf("pki: key pair %q: %w", label, ErrExists)
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}

// ImportKey stores a key pair made elsewhere, an *rsa.PrivateKey or an
// *ecdsa.PrivateKey.
func (s *Store) ImportKey(label string, key crypto.Signer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.importKeyLocked(label, key)
}

func (s *Store) importKeyLocked(label string, key crypto.Signer) error {
	if err := checkName(label); err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	if err := checkKey(key); err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	data, err := formatKey(label, key)
	if err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	if err := s.freeKeyLocked(label); err != nil {
		return err
	}
	if err := createFile(s.dir, fileName(keyPrefix, label), data); err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	s.keys[label] = key
	return nil
}

// checkKey holds a key from elsewhere to what the box can use. Its errors have
// no cause, which may quote the key.
func checkKey(key crypto.Signer) error {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if n := key.N.BitLen(); n < MinRSABits || n > maxRSABits {
			return fmt.Errorf("RSA key of %d bits: must have %d to %d", n, MinRSABits, maxRSABits)
		}
		if key.Validate() != nil {
			return errors.New("invalid RSA key")
		}
	case *ecdsa.PrivateKey:
		if _, err := key.ECDH(); err != nil {
			return errors.New("invalid ECDSA key, or of a curve other than P-256, P-384 and P-521")
		}
	default:
		return errors.New("key of a kind that is not known, neither RSA nor ECDSA")
	}
	return nil
}

// RemoveKey deletes a key pair that no trustpoint needs.
func (s *Store) RemoveKey(label string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.keyLocked(label); err != nil {
		return err
	}
	for _, name := range sortedKeys(s.trustpoints) {
		if s.trustpoints[name].KeyPair == label {
			return fmt.Errorf("pki: key pair %q: trustpoint %q: %w", label, name, ErrInUse)
		}
	}
	if err := removeFile(s.dir, fileName(keyPrefix, label)); err != nil {
		return fmt.Errorf("pki: key pair %q: %w", label, err)
	}
	delete(s.keys, label)
	return nil
}
