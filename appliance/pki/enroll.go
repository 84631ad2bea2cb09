package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	serialLen       = 8              // bytes of a serial number; a CTL record holds at most 16 with ease
	validityYears   = 10             // years that a self-signed certificate holds
	backdate        = 24 * time.Hour // before now, for clocks that are behind
	maxCertValidity = 50             // years
)

// An EnrollRequest asks for a self-signed identity certificate, which is what
// "crypto ca enroll" makes of a trustpoint with "enrollment self".
type EnrollRequest struct {
	Name    string     // the trustpoint's
	Subject string     // as subject-name takes it; "" for CN=FQDN
	FQDN    string     // goes into subjectAltName; "" for none
	Serial  string     // of the device, goes into the subject; "" for none
	IP      netip.Addr // goes into subjectAltName, if it is valid
	KeyPair string     // label; made if there is none of that name; "" for Name
	Bits    int        // of a key pair that is made; 0 for DefaultRSABits

	// SignatureAlgorithm is SHA1WithRSA if zero: the certificate is compared
	// by phones with their CTL file and old loads know no other. For an
	// ECDSA key it is ECDSAWithSHA256. (reference/certificates.md, section 2.)
	SignatureAlgorithm x509.SignatureAlgorithm

	Now   time.Time // the certificate begins one day before
	Years int       // it lasts; 0 for 10

	// Replace allows an identity certificate that the trustpoint already
	// has to be given up.
	Replace bool
}

// Enroll makes and stores a self-signed certificate for a trustpoint, with the
// key usage of a server of RSA key exchange and no CA. A trustpoint that has one
// keeps it, and the error wraps ErrExists, unless the request says Replace.
func (s *Store) Enroll(req EnrollRequest) (*Identity, error) {
	if err := checkName(req.Name); err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", req.Name, err)
	}
	subject, err := req.subject()
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", req.Name, err)
	}
	if req.Now.IsZero() || req.Years < 0 || req.Years > maxCertValidity {
		return nil, fmt.Errorf("pki: trustpoint %q: validity of %d years from %v", req.Name, req.Years, req.Now)
	}
	if err := s.canEnroll(req); err != nil {
		return nil, err
	}
	key, err := s.keyFor(req)
	if err != nil {
		return nil, err
	}
	der, err := s.selfSign(req, subject, key)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: signing: %w", req.Name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", req.Name, err)
	}
	return s.setIdentity(req.Name, req.keyPair(), cert, req.Replace)
}

// SetIdentity gives a trustpoint a certificate made elsewhere for one of the
// store's key pairs.
func (s *Store) SetIdentity(name, keyPair string, cert *x509.Certificate) (*Identity, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	return s.setIdentity(name, keyPair, cert, false)
}

func (s *Store) setIdentity(name, keyPair string, cert *x509.Certificate, replace bool) (*Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tp, old, err := s.openTrustpointLocked(name)
	if err != nil {
		return nil, err
	}
	if tp.Identity != nil && !replace {
		return nil, fmt.Errorf("pki: identity certificate of trustpoint %q: %w", name, ErrExists)
	}
	key, err := s.keyLocked(keyPair)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	if !samePublic(key.Public(), cert.PublicKey) {
		return nil, fmt.Errorf("pki: trustpoint %q: certificate is not of key pair %q", name, keyPair)
	}
	tp.Identity, tp.KeyPair = cert, keyPair
	if err := s.putLocked(tp, old); err != nil {
		return nil, err
	}
	return s.identityLocked(tp)
}

func (s *Store) canEnroll(req EnrollRequest) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tp, _, err := s.openTrustpointLocked(req.Name)
	if err == nil && tp.Identity != nil && !req.Replace {
		err = fmt.Errorf("pki: identity certificate of trustpoint %q: %w", req.Name, ErrExists)
	}
	return err
}

// altNames returns what subjectAltName shall hold.
func (req EnrollRequest) altNames() (names []string, addrs []net.IP) {
	if req.FQDN != "" {
		names = []string{req.FQDN}
	}
	if req.IP.IsValid() {
		addrs = []net.IP{req.IP.AsSlice()}
	}
	return names, addrs
}

func (req EnrollRequest) keyPair() string {
	if req.KeyPair == "" {
		return req.Name
	}
	return req.KeyPair
}

func (req EnrollRequest) subject() ([]byte, error) {
	if req.FQDN != "" && !validFQDN(req.FQDN) {
		return nil, fmt.Errorf("FQDN %q is not a host name", req.FQDN)
	}
	if req.Subject == "" {
		if req.FQDN == "" {
			return nil, errors.New("neither subject name nor FQDN")
		}
		// The upper bound of 64 bytes on a CN is checked by ParseSubject.
		req.Subject = "CN=" + req.FQDN
	}
	name, err := ParseSubject(req.Subject)
	if err != nil {
		return nil, err
	}
	if req.Serial != "" {
		if len(req.Serial) > 64 || strings.ContainsFunc(req.Serial, unicode.IsControl) {
			return nil, fmt.Errorf("device serial number %.64q", req.Serial)
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: oidSerial, Value: req.Serial}})
	}
	return asn1.Marshal(name)
}

// validFQDN holds a name to letters, digits, '-', '_' and '.'. The underscore is
// for _internal_PP_ names.
func validFQDN(s string) bool {
	if len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return notLetter(r) && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// keyFor returns the request's key pair, made if it does not exist.
func (s *Store) keyFor(req EnrollRequest) (crypto.Signer, error) {
	label := req.keyPair()
	find := func() (crypto.Signer, error) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.keyLocked(label)
	}
	key, err := find()
	if !errors.Is(err, ErrNotFound) {
		return key, err
	}
	if err := s.GenerateRSA(label, req.Bits); err != nil && !errors.Is(err, ErrExists) {
		return nil, err
	}
	return find()
}

func (s *Store) selfSign(req EnrollRequest, subject []byte, key crypto.Signer) ([]byte, error) {
	serial := make([]byte, serialLen)
	if _, err := io.ReadFull(s.rand, serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x3f | 0x40 // positive, never shorter, no 00 in front
	t := x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		RawSubject:            subject,
		NotBefore:             req.Now.Add(-backdate).UTC().Truncate(time.Second),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		BasicConstraintsValid: true,
		SignatureAlgorithm:    req.SignatureAlgorithm,
	}
	years := req.Years
	if years == 0 {
		years = validityYears
	}
	t.NotAfter = req.Now.AddDate(years, 0, 0).UTC().Truncate(time.Second)
	allowed := []x509.SignatureAlgorithm{x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA}
	if _, ok := key.(*ecdsa.PrivateKey); ok {
		allowed = []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}
		t.KeyUsage = x509.KeyUsageDigitalSignature
	}
	if t.SignatureAlgorithm == x509.UnknownSignatureAlgorithm {
		t.SignatureAlgorithm = allowed[0]
	}
	if !slices.Contains(allowed, t.SignatureAlgorithm) {
		return nil, fmt.Errorf("signature algorithm %v", t.SignatureAlgorithm)
	}
	t.DNSNames, t.IPAddresses = req.altNames()
	return x509.CreateCertificate(s.rand, &t, &t, key.Public(), key)
}
