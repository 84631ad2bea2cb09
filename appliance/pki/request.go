package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/smallstep/scep/x509util"
)

const pemRequest = "CERTIFICATE REQUEST"

// ErrNoCA: a CA's certificate must be installed first.
var ErrNoCA = errors.New("no CA certificate is installed")

// Request makes a PKCS #10 request for a trustpoint, DER, and the key pair if
// there is none: the first half of "crypto ca enroll" with another CA than the
// box. password is the CA's challenge, or "". The trustpoint remembers the key
// pair until ImportCertificate.
func (s *Store) Request(req EnrollRequest, password string) ([]byte, error) {
	if err := checkName(req.Name); err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", req.Name, err)
	}
	subject, err := req.subject()
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", req.Name, err)
	}
	if err := s.canEnroll(req); err != nil {
		return nil, err
	}
	key, err := s.keyFor(req)
	if err != nil {
		return nil, err
	}
	if err := s.await(req.Name, req.keyPair()); err != nil {
		return nil, err
	}
	t := x509.CertificateRequest{RawSubject: subject}
	t.DNSNames, t.IPAddresses = req.altNames()
	der, err := x509util.CreateCertificateRequest(s.rand, &x509util.CertificateRequest{CertificateRequest: t, ChallengePassword: password}, key)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: the request cannot be signed", req.Name) // the cause may quote the password
	}
	return der, nil
}

// FormatRequest returns a PKCS #10 request as PEM.
func FormatRequest(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der})
}

// await has a trustpoint remember the key pair that it has asked for a
// certificate of.
func (s *Store) await(name, label string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tp, old, err := s.openTrustpointLocked(name)
	if err != nil || old && tp.KeyPair == label {
		return err
	}
	tp.KeyPair = label
	return s.putLocked(tp, old)
}

// ImportCertificate gives a trustpoint the certificate that its CA, which must
// be installed, has made of Request's: "crypto ca import TP certificate". data is
// PEM, base64 or DER.
func (s *Store) ImportCertificate(name string, data []byte, now time.Time) (*Identity, error) {
	tp, err := s.Trustpoint(name)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(data)
	if err == nil {
		err = tp.issued(cert, now)
	}
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	return s.setIdentity(name, tp.KeyPair, cert, false)
}

// issued reports whether cert may become the identity of tp.
func (tp *Trustpoint) issued(cert *x509.Certificate, now time.Time) error {
	switch {
	case tp.CA == nil:
		return ErrNoCA
	case tp.KeyPair == "":
		return errors.New("no certificate has been asked for")
	case !signedBy(cert, tp.CA):
		return fmt.Errorf("certificate of %s is signed by %s, not by the trustpoint's CA %s", Name(cert.RawSubject), Name(cert.RawIssuer), Name(tp.CA.RawSubject))
	case now.After(cert.NotAfter):
		return fmt.Errorf("certificate of %s ended on %s", Name(cert.RawSubject), cert.NotAfter.UTC().Format(time.DateOnly))
	}
	return nil
}

// An Expiry tells of a certificate that ends soon, or has ended.
type Expiry struct {
	Trustpoint string
	CA         bool // the CA's certificate, else the box's own
	Cert       *x509.Certificate
	Left       time.Duration // below zero: it has ended
}

// Expiring returns the certificates that end before now and within, the box's
// own and the CAs', ordered by trustpoint.
func (s *Store) Expiring(now time.Time, within time.Duration) []Expiry {
	var list []Expiry
	for _, tp := range s.Trustpoints() {
		for _, c := range []*x509.Certificate{tp.Identity, tp.CA} {
			if c == nil {
				continue
			}
			if left := c.NotAfter.Sub(now); left <= within {
				list = append(list, Expiry{tp.Name, c == tp.CA, c, left})
			}
		}
	}
	return list
}

// signer returns the private half of a key pair.
func (s *Store) signer(label string) (crypto.Signer, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keyLocked(label)
}
