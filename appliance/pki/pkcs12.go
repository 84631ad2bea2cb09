package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

const (
	pemPKCS12 = "PKCS12" // the marker lines that "crypto ca export" writes

	// maxIterations bounds what deriving a key from a passphrase may cost:
	// exports have 1 to 600,000.
	maxIterations = 2_000_000
	maxNesting    = 32 // of DER in a PKCS #12 file
)

// ErrPassphrase: the passphrase does not open the file.
var ErrPassphrase = errors.New("passphrase does not open the file")

// An Imported is what ImportPKCS12 put where.
type Imported struct {
	Trustpoint Trustpoint
	Unused     []*x509.Certificate // of the file: more than the identity and its issuer
}

// ImportPKCS12 gives a trustpoint, which it makes if need be, the key pair, the
// identity certificate and its issuer's from a PKCS #12 file: "crypto ca import
// TP pkcs12". data is DER, or base64 with or without the marker lines of
// "crypto ca export"; a last line "quit" is not part of it. The key pair gets the
// trustpoint's name. What is there already stays: the same file again changes
// nothing, another one is refused with ErrExists. No error quotes the passphrase
// or what it opened.
func (s *Store) ImportPKCS12(name, passphrase string, data []byte) (Imported, error) {
	fail := func(err error) (Imported, error) {
		return Imported{}, fmt.Errorf("pki: trustpoint %q: PKCS #12 file: %w", name, err)
	}
	if err := checkName(name); err != nil {
		return Imported{}, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	bag, err := openPKCS12(data, passphrase)
	if err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tp, old, err := s.openTrustpointLocked(name)
	if err != nil {
		return Imported{}, err
	}
	if tp.Identity != nil && !tp.Identity.Equal(bag.cert) {
		return fail(fmt.Errorf("identity certificate: %w", ErrExists))
	}
	if tp.CA != nil && bag.issuer != nil && !tp.CA.Equal(bag.issuer) {
		return fail(fmt.Errorf("CA certificate: %w", ErrExists))
	}
	label := name
	if tp.Identity != nil {
		label = tp.KeyPair
	}
	switch key, err := s.keyLocked(label); {
	case errors.Is(err, ErrNotFound):
		if err := s.importKeyLocked(label, bag.key); err != nil {
			return Imported{}, err
		}
	case err != nil:
		return Imported{}, err
	case !samePublic(key.Public(), bag.key.Public()):
		return fail(fmt.Errorf("key pair %q: %w", label, ErrExists))
	}
	tp.Identity, tp.KeyPair = bag.cert, label
	if tp.CA == nil {
		tp.CA = bag.issuer
	}
	if err := s.putLocked(tp, old); err != nil {
		return Imported{}, err
	}
	return Imported{tp, bag.rest}, nil
}

// ExportPKCS12 returns a trustpoint's key pair and certificates as a PKCS #12
// file, DER. legacy asks for the encryption that an old ASA can read, 3DES and
// SHA-1, in place of AES-256.
func (s *Store) ExportPKCS12(name, passphrase string, legacy bool) ([]byte, error) {
	if passphrase == "" {
		return nil, fmt.Errorf("pki: trustpoint %q: exporting: no passphrase", name)
	}
	id, err := s.Identity(name)
	if err != nil {
		return nil, err
	}
	tp, err := s.Trustpoint(name)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	if tp.CA != nil && !tp.CA.Equal(id.Cert) {
		cas = append(cas, tp.CA)
	}
	enc := pkcs12.Modern2023
	if legacy {
		enc = pkcs12.LegacyDES
	}
	der, err := enc.Encode(id.Key, id.Cert, cas, passphrase)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: exporting: the passphrase or the key cannot be encoded", name) // the cause may quote them
	}
	return der, nil
}

// FormatPKCS12 returns a PKCS #12 file as "crypto ca export" writes it.
func FormatPKCS12(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemPKCS12, Bytes: der})
}

// FormatCertificate returns a certificate as PEM.
func FormatCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})
}

// A safe is what a PKCS #12 file holds.
type safe struct {
	key    crypto.Signer
	cert   *x509.Certificate   // of key
	issuer *x509.Certificate   // nil if the file has none, or cert signed itself
	rest   []*x509.Certificate // all others
}

func openPKCS12(data []byte, passphrase string) (*safe, error) {
	der, err := pkcs12DER(data)
	if err != nil {
		return nil, err
	}
	if err := checkWork(der, 0); err != nil {
		return nil, err
	}
	k, first, others, err := pkcs12.DecodeChain(der, passphrase)
	if err != nil {
		return nil, explainPKCS12(err)
	}
	key, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key is neither RSA nor ECDSA")
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	certs := append([]*x509.Certificate{first}, others...)
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return samePublic(key.Public(), c.PublicKey) })
	if i < 0 {
		return nil, errors.New("no certificate in it is of its key")
	}
	b := &safe{key: key, cert: certs[i]}
	for j, c := range certs {
		switch {
		case j == i || c.Equal(b.cert):
		case b.issuer == nil && signedBy(b.cert, c):
			b.issuer = c
		default:
			b.rest = append(b.rest, c)
		}
	}
	return b, nil
}

// signedBy reports whether ca signed cert.
func signedBy(cert, ca *x509.Certificate) bool {
	return bytes.Equal(cert.RawIssuer, ca.RawSubject) &&
		ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// pkcs12DER undoes base64.
func pkcs12DER(data []byte) ([]byte, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("over %d bytes", maxFile)
	}
	if len(data) > 0 && data[0] == 0x30 { // SEQUENCE; base64 of one begins with 'M'
		return data, nil
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		block, _ := pem.Decode(data)
		if block == nil {
			return nil, errors.New("its base64 is broken")
		}
		if block.Type != pemPKCS12 {
			return nil, fmt.Errorf("it is a PEM file of %.40q", block.Type)
		}
		return block.Bytes, nil
	}
	der, err := base64.StdEncoding.DecodeString(string(pastedText(data)))
	if err != nil || len(der) == 0 {
		return nil, errors.New("neither base64 nor DER")
	}
	return der, nil
}

// pastedText returns the lines before "quit", joined without white space.
func pastedText(data []byte) []byte {
	var text []byte
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if bytes.EqualFold(line, []byte("quit")) {
			break
		}
		text = append(text, line...)
	}
	return text
}

// explainPKCS12 says what an operator can do about an error of the library, whose
// other errors are not shown: they come from behind the passphrase.
func explainPKCS12(err error) error {
	var not pkcs12.NotImplementedError
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword), errors.Is(err, pkcs12.ErrDecryption):
		return ErrPassphrase
	case errors.As(err, &not):
		return fmt.Errorf("%s is not supported; convert the file with \"openssl pkcs12\" and import that", strings.TrimPrefix(not.Error(), "pkcs12: "))
	case strings.HasSuffix(err.Error(), "private key missing"):
		return errors.New("no private key is in it; install a CA's certificate with \"crypto ca authenticate\"")
	case strings.HasSuffix(err.Error(), "certificate missing"):
		return errors.New("no certificate is in it")
	}
	return errors.New("damaged, or not PKCS #12 in DER; convert the file with \"openssl pkcs12\" and import that")
}

// checkWork refuses a file that asks for more derivation than maxIterations: an
// INTEGER after the OCTET STRING of a salt (RFC 7292, appendix B and 4; RFC 8018,
// appendix A.2). It sees what stands before decryption.
func checkWork(der []byte, depth int) error {
	if depth > maxNesting {
		return errors.New("nested too deep")
	}
	if depth == 0 && len(der) > 1 && der[1] == 0x80 {
		return errors.New("BER of indefinite length is not supported; convert the file with \"openssl pkcs12\" and import that")
	}
	salt := false
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return nil // encrypted, or nothing that is read as DER later on
		}
		octets := v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString
		if salt && v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger {
			var n int
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || n > maxIterations {
				return fmt.Errorf("its key derivation has over %d iterations", maxIterations)
			}
		}
		if v.IsCompound || octets {
			if err := checkWork(v.Bytes, depth+1); err != nil {
				return err
			}
		}
		salt, der = octets, rest
	}
	return nil
}
