package lab

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
)

// CAName is the usual name for NewCA: plainly a laboratory's, not a maker's.
const CAName = "Lab Manufacturing CA"

// certYears is how long certificates of the lab are valid.
const certYears = 10

// A CA issues the certificates that phones are made with (MICs).
type CA struct {
	Cert *x509.Certificate
	Key  *rsa.PrivateKey

	rand io.Reader
	now  func() time.Time
	alg  x509.SignatureAlgorithm
}

// NewCA makes a manufacturing CA "CN=name,O=Example" with an RSA key of bits,
// signing with alg, as the Cisco Manufacturing CA does with SHA1WithRSA
// (reference/certificates.md, section 1). random is used for serial numbers;
// nil is crypto/rand, which keys always come from. now dates the certificates;
// nil is time.Now.
func NewCA(name string, bits int, alg x509.SignatureAlgorithm, random io.Reader, now func() time.Time) (*CA, error) {
	if random == nil {
		random = rand.Reader
	}
	if now == nil {
		now = time.Now
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("lab: key of CA %q: %w", name, err)
	}
	ca := &CA{Key: key, rand: random, now: now, alg: alg}
	t, err := ca.template(pkix.Name{CommonName: name, Organization: []string{"Example"}})
	if err != nil {
		return nil, err
	}
	t.IsCA = true
	t.BasicConstraintsValid = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	ca.Cert, err = create(t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("lab: certificate of CA %q: %w", name, err)
	}
	return ca, nil
}

func (ca *CA) template(subject pkix.Name) (*x509.Certificate, error) {
	serial := make([]byte, 9)
	if _, err := io.ReadFull(ca.rand, serial); err != nil {
		return nil, fmt.Errorf("lab: serial number: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40
	now := ca.now()
	return &x509.Certificate{
		SerialNumber:       new(big.Int).SetBytes(serial),
		Subject:            subject,
		NotBefore:          now.Add(-24 * time.Hour),
		NotAfter:           now.AddDate(certYears, 0, 0),
		SignatureAlgorithm: ca.alg,
	}, nil
}

func create(t, parent *x509.Certificate, pub *rsa.PublicKey, key *rsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// PEM returns the CA's certificate as "crypto ca authenticate" takes it.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
}

// KeyPEM returns the CA's private key, PKCS #1, for LoadCA in another process of
// the same lab.
func (ca *CA) KeyPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(ca.Key)})
}

// LoadCA reads what PEM and KeyPEM have written.
func LoadCA(cert, key []byte) (*CA, error) {
	fail := func(err error) (*CA, error) { return nil, fmt.Errorf("lab: CA: %w", err) }
	c, _ := pem.Decode(cert)
	k, _ := pem.Decode(key)
	if c == nil || k == nil {
		return fail(errors.New("no PEM"))
	}
	ca := &CA{rand: rand.Reader, now: time.Now}
	var err error
	if ca.Cert, err = x509.ParseCertificate(c.Bytes); err != nil {
		return fail(err)
	}
	if ca.Key, err = x509.ParsePKCS1PrivateKey(k.Bytes); err != nil {
		return fail(err)
	}
	if !ca.Key.PublicKey.Equal(ca.Cert.PublicKey) {
		return fail(errors.New("the key is not the certificate's"))
	}
	ca.alg = ca.Cert.SignatureAlgorithm
	return ca, nil
}

// An Identity is a phone's certificate and key.
type Identity struct {
	Cert *x509.Certificate
	Key  *rsa.PrivateKey
}

// IssueMIC makes the identity of the phone with mac, 12 hex digits, of a model
// such as "7962G": CN=CP-7962G-SEP<MAC>. (reference/certificates.md, section 1.)
func (ca *CA) IssueMIC(mac, model string, bits int) (*Identity, error) {
	return ca.issue("CP-"+model+"-SEP"+strings.ToUpper(mac), bits)
}

// IssueLSC makes an identity as CAPF does: CN=SEP<MAC>.
func (ca *CA) IssueLSC(mac string, bits int) (*Identity, error) {
	return ca.issue("SEP"+strings.ToUpper(mac), bits)
}

func (ca *CA) issue(cn string, bits int) (*Identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("lab: key of %s: %w", cn, err)
	}
	t, err := ca.template(pkix.Name{CommonName: cn, Organization: []string{"Example"}})
	if err != nil {
		return nil, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	cert, err := create(t, ca.Cert, &key.PublicKey, ca.Key)
	if err != nil {
		return nil, fmt.Errorf("lab: certificate of %s: %w", cn, err)
	}
	return &Identity{Cert: cert, Key: key}, nil
}

// IssuedBy reports whether ca signed id. crypto/x509 refuses SHA-1, so it is
// done by hand. (reference/certificates.md, section 4.)
func (id *Identity) IssuedBy(ca *CA) bool {
	if id.Cert.SignatureAlgorithm == x509.SHA1WithRSA {
		sum := sha1.Sum(id.Cert.RawTBSCertificate)
		return rsa.VerifyPKCS1v15(&ca.Key.PublicKey, crypto.SHA1, sum[:], id.Cert.Signature) == nil
	}
	return id.Cert.CheckSignatureFrom(ca.Cert) == nil
}

func (id *Identity) certificate() *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{id.Cert.Raw},
		PrivateKey:  id.Key,
		Leaf:        id.Cert,
	}
}

// clientConfig is the TLS of a phone: 1.0 with AES128-SHA as all 79xx loads
// have, or up to 1.2 if modern. Whether the server is trusted is up to check,
// which gets its certificate. (reference/certificates.md, sections 3 and 4.)
func (id *Identity) clientConfig(modern bool, check func(cert *x509.Certificate) error) *tls.Config {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS10,
		MaxVersion:         tls.VersionTLS10,
		CipherSuites:       []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA},
		InsecureSkipVerify: true, // the CTL file takes the place of a chain
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.certificate(), nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return fmt.Errorf("lab: server shows no certificate")
			}
			return check(s.PeerCertificates[0])
		},
	}
	if modern {
		c.MaxVersion = tls.VersionTLS12
		c.CipherSuites = append([]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}, c.CipherSuites...)
	}
	return c
}
