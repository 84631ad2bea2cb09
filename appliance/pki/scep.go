package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
)

// ErrPending: the CA wants to ask somebody first. Enrolling again with the same
// key pair later asks for the answer, as the transaction is named by the key.
var ErrPending = errors.New("the CA has put the request aside until it is approved; enroll again then")

// A SCEP talks with a CA by the Simple Certificate Enrolment Protocol (RFC 8894).
type SCEP struct {
	URL string // as in "enrollment url"
	// Client reaches the CA. Its Timeout or the caller's context bounds it.
	Client *http.Client
}

const scepPath = "cgi-bin/pkiclient.exe" // where "enrollment url" names no path (RFC 8894, section 4.1)

// CA returns the CA's certificate and those of its registration authorities, if
// it has any: "crypto ca authenticate". Whether the CA is the right one only an
// operator can say, by the fingerprint.
func (c *SCEP) CA(ctx context.Context) (ca *x509.Certificate, others []*x509.Certificate, err error) {
	body, err := c.get(ctx, "GetCACert", nil)
	if err != nil {
		return nil, nil, err
	}
	if ca, others, err = scepCA(body); err != nil {
		return nil, nil, fmt.Errorf("pki: CA %s: GetCACert: %w", c.name(), err)
	}
	return ca, others, nil
}

// scepCA reads the answer to GetCACert: one certificate, or several in PKCS #7.
func scepCA(body []byte) (ca *x509.Certificate, others []*x509.Certificate, err error) {
	certs, err := x509.ParseCertificates(body)
	if err != nil || len(certs) == 0 {
		if certs, err = guarded(func() ([]*x509.Certificate, error) { return scep.CACerts(body) }); err != nil {
			return nil, nil, errors.New("the answer is neither a certificate nor PKCS #7")
		}
	}
	// The one that issues: of several in a chain the lowest.
	signs := func(x, of *x509.Certificate) bool { return of != x && signedBy(of, x) }
	var cas []*x509.Certificate
	for _, x := range certs {
		if len(certs) == 1 || x.IsCA || slices.ContainsFunc(certs, func(o *x509.Certificate) bool { return signs(x, o) }) {
			cas = append(cas, x)
		}
	}
	for _, x := range cas {
		if !slices.ContainsFunc(cas, func(o *x509.Certificate) bool { return signs(x, o) }) {
			ca = x
		}
	}
	if ca == nil {
		return nil, nil, fmt.Errorf("none of its %d certificates is a CA's", len(certs))
	}
	return ca, slices.DeleteFunc(certs, func(o *x509.Certificate) bool { return o == ca }), nil
}

// EnrollSCEP has the CA of a trustpoint, which must be installed, sign the request
// that Request made. The certificate is checked and stored.
func (s *Store) EnrollSCEP(ctx context.Context, c *SCEP, name string, request []byte, now time.Time) (*Identity, error) {
	id, err := s.enrollSCEP(ctx, c, name, request, now)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	return id, nil
}

func (s *Store) enrollSCEP(ctx context.Context, c *SCEP, name string, request []byte, now time.Time) (*Identity, error) {
	tp, err := s.Trustpoint(name)
	if err != nil {
		return nil, err
	}
	if tp.CA == nil {
		return nil, ErrNoCA
	}
	key, err := s.signer(tp.KeyPair)
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return nil, fmt.Errorf("key pair %q is not RSA, which SCEP needs", tp.KeyPair)
	}
	ca, others, err := c.CA(ctx)
	if err != nil {
		return nil, err
	}
	if !ca.Equal(tp.CA) {
		return nil, fmt.Errorf("%s is another CA, %s, than the one installed, %s", c.name(), Name(ca.RawSubject), Name(tp.CA.RawSubject))
	}
	authorities := []*x509.Certificate{ca}
	for _, o := range others {
		if signedBy(o, ca) {
			authorities = append(authorities, o)
		}
	}
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	caps := c.capabilities(ctx)
	if slices.Contains(caps, "DES3") && !slices.Contains(caps, "AES") && !slices.Contains(caps, "SCEPStandard") {
		return nil, fmt.Errorf("CA %s knows 3DES and not AES, which is not supported; use enrollment terminal", c.name())
	}
	self, err := transient(csr, key, now)
	if err != nil {
		return nil, err
	}
	useAES()
	msg, err := scep.NewCSRRequest(csr, &scep.PKIMessage{MessageType: scep.PKCSReq, Recipients: authorities, SignerKey: key, SignerCert: self},
		scep.WithCertsSelector(scep.EnciphermentCertsSelector()))
	if err != nil {
		return nil, errors.New("the SCEP request cannot be made")
	}
	body, err := c.operate(ctx, msg.Raw, caps)
	if err != nil {
		return nil, err
	}
	cert, err := scepReply(body, msg, authorities, self, key)
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", c.name(), err)
	}
	if err := tp.issued(cert, now); err != nil {
		return nil, err
	}
	return s.setIdentity(name, tp.KeyPair, cert, false)
}

// transient returns the self-signed certificate that a request is signed with
// (RFC 8894, section 2.3).
func transient(csr *x509.CertificateRequest, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: csr.RawSubject,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(backdate),
		KeyUsage:           x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		SignatureAlgorithm: x509.SHA256WithRSA,
	}
	if string(csr.RawSubject) == "0\x00" {
		t.Subject = pkix.Name{CommonName: "SCEP"} // an issuer must have a name
	}
	der, err := x509.CreateCertificate(nil, t, t, key.Public(), key)
	if err != nil {
		return nil, errors.New("the SCEP request cannot be signed")
	}
	return x509.ParseCertificate(der)
}

// useAES has the library encrypt with AES: its own default is single DES, and it
// has no 3DES. It is set once, for the library reads it without a lock.
var useAES = sync.OnceFunc(func() { pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmAES128CBC })

// scepReply takes the certificate from the answer to msg. One of authorities
// must have signed it, for self.
func scepReply(body []byte, msg *scep.PKIMessage, authorities []*x509.Certificate, self *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	reply, err := guarded(func() (*scep.PKIMessage, error) { return scep.ParsePKIMessage(body, scep.WithCACerts(authorities)) })
	switch {
	case err != nil:
		return nil, errors.New("it is not a SCEP message signed by the CA")
	case reply.MessageType != scep.CertRep || reply.CertRepMessage == nil:
		return nil, errors.New("it is not a CertRep message")
	case reply.TransactionID != msg.TransactionID || !bytes.Equal(reply.RecipientNonce, msg.SenderNonce):
		return nil, errors.New("it is to another request")
	}
	switch reply.PKIStatus {
	case scep.SUCCESS:
	case scep.PENDING:
		return nil, ErrPending
	default:
		return nil, fmt.Errorf("the CA refuses: %s", failInfo(reply.FailInfo))
	}
	if _, err := guarded(func() (struct{}, error) { return struct{}{}, reply.DecryptPKIEnvelope(self, key) }); err != nil {
		return nil, errors.New("it cannot be decrypted, or holds no certificate")
	}
	return reply.Certificate, nil
}

// failInfo explains RFC 8894, section 3.2.1.4.
func failInfo(f scep.FailInfo) string {
	switch f {
	case scep.BadAlg:
		return "badAlg, an algorithm that it does not accept"
	case scep.BadMessageCheck:
		return "badMessageCheck, it could not verify the request"
	case scep.BadRequest:
		return "badRequest, not permitted or not understood: look at the challenge password and the subject name"
	case scep.BadTime:
		return "badTime, the clocks differ too much"
	case scep.BadCertID:
		return "badCertId, no certificate of that kind"
	}
	return "no reason given"
}

// guarded calls into the PKCS #7 library, which indexes some lists of a message
// that may be empty.
func guarded[T any](f func() (T, error)) (v T, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("malformed")
		}
	}()
	return f()
}

// capabilities returns what GetCACaps answers, nothing for a CA that does not
// know it.
func (c *SCEP) capabilities(ctx context.Context) []string {
	body, err := c.get(ctx, "GetCACaps", nil)
	if err != nil {
		return nil
	}
	return strings.Fields(string(body))
}

// operate sends a message by POST if the CA takes that, else by GET.
func (c *SCEP) operate(ctx context.Context, raw []byte, caps []string) ([]byte, error) {
	if !slices.Contains(caps, "POSTPKIOperation") && !slices.Contains(caps, "SCEPStandard") {
		return c.get(ctx, "PKIOperation", raw)
	}
	at, err := c.address("PKIOperation", nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-pki-message")
	return c.do(req, "PKIOperation")
}

func (c *SCEP) get(ctx context.Context, operation string, message []byte) ([]byte, error) {
	at, err := c.address(operation, message)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	return c.do(req, operation)
}

func (c *SCEP) address(operation string, message []byte) (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("pki: enrollment url %q: not an address as in http://ca.example.com/certsrv/mscep/mscep.dll", c.URL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/" + scepPath
	}
	q := url.Values{"operation": {operation}}
	if message != nil {
		q.Set("message", base64.StdEncoding.EncodeToString(message))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func (c *SCEP) do(req *http.Request, operation string) ([]byte, error) {
	resp, err := c.Client.Do(req)
	if err != nil {
		var at *url.Error // has the whole query
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("pki: CA %s: %s: %w", c.name(), operation, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("pki: CA %s: %s: %w", c.name(), operation, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("pki: CA %s: %s: it answers %d %s", c.name(), operation, resp.StatusCode, http.StatusText(resp.StatusCode))
	case len(body) > maxFile:
		return nil, fmt.Errorf("pki: CA %s: %s: the answer is over %d bytes", c.name(), operation, maxFile)
	}
	return body, nil
}

// name returns the CA's host.
func (c *SCEP) name() string {
	if u, err := url.Parse(c.URL); err == nil && u.Host != "" {
		return u.Host
	}
	return "without address"
}
