package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

const (
	// MinRSABits is the smallest RSA key of a phone or of its CA that is
	// accepted unless VerifyOptions says otherwise. crypto/rsa itself
	// refuses less.
	MinRSABits = 1024 // bits

	maxRSABits    = 4096 // bits; the ASA refuses more (syslog 725015)
	maxDepth      = 5    // certificates from the phone's to the anchor (reference/systems.md, A.2)
	maxSignatures = 64   // signatures checked for one chain
)

// A Reason says what kind of fault VerifyPhone found.
type Reason uint8

// The faults, the more telling one greater: where several issuers were tried,
// the greatest is reported.
const (
	_               Reason = iota
	ReasonNone             // the phone showed no certificate
	ReasonIssuer           // no trustpoint holds the issuer
	ReasonLong             // more certificates than anyone needs, or too deep
	ReasonNotCA            // an issuer says that it may not issue
	ReasonAlgorithm        // a signature by an algorithm that is not accepted
	ReasonSignature        // the trustpoint's CA has the issuer's name but did not sign
	ReasonKey              // a key too small, too large or of another kind
	ReasonDate             // expired or not yet valid
	ReasonCritical         // a critical extension that is not understood
	ReasonName             // the common name is not a phone's
)

// A VerifyError tells why a phone's certificate was refused.
type VerifyError struct {
	Reason  Reason
	Subject string // of the certificate at fault, as Name gives it; "" if there is none
	Issuer  string // of the same
	Serial  string // of the same, in hexadecimal
	Detail  string // what was missing or wrong
}

// Error returns the certificate's subject and issuer and what was wrong.
func (e *VerifyError) Error() string {
	if e.Subject == "" {
		return "pki: verifying phone: " + e.Detail
	}
	return fmt.Sprintf("pki: verifying phone: subject %s, issuer %s: %s", e.Subject, e.Issuer, e.Detail)
}

// VerifyOptions are the policy of VerifyPhone.
type VerifyOptions struct {
	Now time.Time
	// AllowExpired accepts certificates outside their dates, the phone's and
	// its CA's: most manufacturing certificates of the 7900 series have
	// expired. (reference/certificates.md, section 1.)
	AllowExpired bool
	MinRSABits   int // 0 for MinRSABits
}

// Verified is what VerifyPhone learned.
type Verified struct {
	Anchor  string // the trustpoint that vouches for the phone
	Device  string // "SEP" and the MAC in upper-case hexadecimal
	Expired bool   // some certificate of the chain is outside its dates, and that was allowed
}

// VerifyPhone walks a phone's chain, its own certificate first, to one of the
// anchors and takes the device's name from the common name.
//
// It is the recipe of reference/systems.md, A.2, and reference/certificates.md,
// section 7: SHA-1 signatures hold, MD5 ones do not; an anchor need not be
// self-signed and several may have one name, for only the signature decides; a
// CA's basicConstraints count where they are present, but an intermediate that
// the phone brought must have them; no extended key usage is asked for. A phone's
// certificate that is itself an anchor was installed by hand and holds. The error
// is a *VerifyError.
func VerifyPhone(chain []*x509.Certificate, anchors []Anchor, opt VerifyOptions) (Verified, error) {
	if len(chain) == 0 {
		return Verified{}, &VerifyError{Reason: ReasonNone, Detail: "no certificate"}
	}
	if opt.MinRSABits == 0 {
		opt.MinRSABits = MinRSABits
	}
	phone := chain[0]
	if len(chain) > maxDepth {
		return Verified{}, fault(ReasonLong, phone, fmt.Sprintf("chain of %d certificates, over %d", len(chain), maxDepth))
	}
	w := walk{chain: chain, anchors: anchors, opt: opt}
	if err := w.usable(phone); err != nil {
		return Verified{}, err
	}
	anchor, ok := w.up(phone, 0, 1)
	if !ok {
		return Verified{}, w.worst
	}
	device, err := deviceName(phone)
	if err != nil {
		return Verified{}, fault(ReasonName, phone, err.Error())
	}
	return Verified{Anchor: anchor, Device: device, Expired: w.expired}, nil
}

// A walk looks for a path from the phone's certificate to an anchor.
type walk struct {
	chain      []*x509.Certificate
	anchors    []Anchor
	opt        VerifyOptions
	signatures int          // checked so far
	worst      *VerifyError // the most telling fault so far
	expired    bool         // of the path that was found
}

func (w *walk) note(e *VerifyError) {
	if w.worst == nil || e.Reason > w.worst.Reason {
		w.worst = e
	}
}

// up finds who vouches for cert, which has below intermediates under it. used
// has a bit for each certificate of the chain that is on the path.
func (w *walk) up(cert *x509.Certificate, below int, used uint) (anchor string, ok bool) {
	for _, a := range w.anchors {
		if a.Cert.Equal(cert) {
			w.expired = outside(cert, w.opt.Now)
			return a.Trustpoint, true
		}
	}
	w.note(fault(ReasonIssuer, cert, "no trustpoint holds the issuer"))
	if below+2 > maxDepth {
		w.note(fault(ReasonLong, cert, fmt.Sprintf("over %d certificates to a trustpoint", maxDepth)))
		return "", false
	}
	for _, a := range w.anchors {
		if bytes.Equal(a.Cert.RawSubject, cert.RawIssuer) && w.issued(a.Cert, cert, below, "trustpoint "+a.Trustpoint) {
			w.expired = outside(cert, w.opt.Now) || outside(a.Cert, w.opt.Now)
			return a.Trustpoint, true
		}
	}
	for i, c := range w.chain {
		if used&(1<<i) != 0 || !bytes.Equal(c.RawSubject, cert.RawIssuer) {
			continue
		}
		if !c.BasicConstraintsValid || !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			w.note(fault(ReasonNotCA, c, "the phone sent it as an issuer, and it is no CA"))
			continue
		}
		if !w.issued(c, cert, below, "the phone") {
			continue
		}
		if anchor, ok = w.up(c, below+1, used|1<<i); ok {
			w.expired = w.expired || outside(cert, w.opt.Now)
			return anchor, true
		}
	}
	return "", false
}

// issued reports whether ca, which came from where, may have issued cert and did.
func (w *walk) issued(ca, cert *x509.Certificate, below int, where string) bool {
	if w.signatures++; w.signatures > maxSignatures {
		w.note(fault(ReasonLong, cert, fmt.Sprintf("over %d possible issuers", maxSignatures)))
		return false
	}
	if ca.BasicConstraintsValid {
		if !ca.IsCA {
			w.note(fault(ReasonNotCA, cert, "the certificate of "+where+" has the issuer's name, and is no CA"))
			return false
		}
		if ca.MaxPathLen >= 0 && (ca.MaxPathLen > 0 || ca.MaxPathLenZero) && below > ca.MaxPathLen {
			w.note(fault(ReasonNotCA, cert, fmt.Sprintf("the certificate of %s allows %d below it", where, ca.MaxPathLen)))
			return false
		}
	}
	if err := w.usable(ca); err != nil {
		w.note(err)
		return false
	}
	// Not CheckSignatureFrom, which refuses SHA-1. This refuses MD5.
	switch err := ca.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); {
	case err == nil:
		return true
	case errors.As(err, new(x509.InsecureAlgorithmError)) || errors.Is(err, x509.ErrUnsupportedAlgorithm):
		w.note(fault(ReasonAlgorithm, cert, fmt.Sprintf("signature algorithm %v", cert.SignatureAlgorithm)))
	default:
		w.note(fault(ReasonSignature, cert, "the certificate of "+where+" has the issuer's name, and did not sign it"))
	}
	return false
}

// usable checks what every certificate of a path must meet.
func (w *walk) usable(c *x509.Certificate) *VerifyError {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < w.opt.MinRSABits || n > maxRSABits {
			return fault(ReasonKey, c, fmt.Sprintf("RSA key of %d bits: must be %d to %d", n, w.opt.MinRSABits, maxRSABits))
		}
	case *ecdsa.PublicKey: // of P-224 or better, or it would not have parsed
	default:
		return fault(ReasonKey, c, fmt.Sprintf("key of algorithm %v", c.PublicKeyAlgorithm))
	}
	if len(c.UnhandledCriticalExtensions) != 0 {
		return fault(ReasonCritical, c, fmt.Sprintf("critical extension %v", c.UnhandledCriticalExtensions[0]))
	}
	if w.opt.AllowExpired || !outside(c, w.opt.Now) {
		return nil
	}
	if w.opt.Now.Before(c.NotBefore) {
		return fault(ReasonDate, c, "not valid before "+c.NotBefore.UTC().Format(time.DateTime))
	}
	return fault(ReasonDate, c, "expired at "+c.NotAfter.UTC().Format(time.DateTime))
}

func outside(c *x509.Certificate, now time.Time) bool {
	return now.Before(c.NotBefore) || now.After(c.NotAfter)
}

func fault(r Reason, c *x509.Certificate, detail string) *VerifyError {
	serial := c.SerialNumber.Text(16)
	if len(serial) > maxPrinted {
		serial = serial[:maxPrinted]
	}
	return &VerifyError{Reason: r, Subject: Name(c.RawSubject), Issuer: Name(c.RawIssuer), Serial: serial, Detail: detail}
}

// A manufacturing certificate has CN=CP-7962G-SEP001122334455, a locally
// significant one CN=SEP001122334455. (reference/certificates.md, sections 1 and 7.)
var phoneName = regexp.MustCompile(`^(?i)(?:CP-[0-9A-Z-]+-)?SEP([0-9A-F]{12})$`)

func deviceName(c *x509.Certificate) (string, error) {
	n := 0
	for _, a := range c.Subject.Names {
		if a.Type.Equal(asn1.ObjectIdentifier{2, 5, 4, 3}) {
			n++
		}
	}
	if n != 1 {
		return "", fmt.Errorf("%d common names", n)
	}
	m := phoneName.FindStringSubmatch(c.Subject.CommonName)
	if m == nil {
		return "", errors.New("common name is neither CP-<model>-SEP<MAC> nor SEP<MAC>")
	}
	return "SEP" + strings.ToUpper(m[1]), nil
}
