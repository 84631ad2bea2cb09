package appliance

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/pki"
)

const (
	expiryWarning = 60 * 24 * time.Hour // before the end of a certificate (the ASA's default)
	expiryEvery   = 24 * time.Hour      // between warnings
	dateFormat    = "15:04:05 MST Jan 2 2006"
)

var showCryptoCommands = []cli.Rule[execFunc]{
	{Syntax: "show crypto key mypubkey {rsa|ecdsa}", Help: "Public halves of key pairs", Do: show(showKeys)},
	{Syntax: "show crypto ca certificates [<trustpoint>]", Help: "Certificates of the box and of CAs", Do: show(showCertificates)},
	{Syntax: "show crypto ca trustpoints [<trustpoint>]", Help: "Trustpoints, and what they hold", Do: show(showTrustpoints)},
}

// A shownKey is the public half of a key pair.
type shownKey struct {
	Name   string `json:"name"`
	Type   string `json:"type"` // "rsa" or "ecdsa"
	Bits   int    `json:"bits"`
	InUse  string `json:"in_use_by,omitempty"`
	Public string `json:"public_key"` // SubjectPublicKeyInfo, hexadecimal
	der    []byte
}

type shownKeys struct {
	Keys cli.List[shownKey] `json:"keys"`
}

func showKeys(x *execution, a cli.Args) (s shownKeys, _ error) {
	kind := "rsa"
	if a.Has("ecdsa") {
		kind = "ecdsa"
	}
	for _, k := range x.opt.Store.Keys() {
		if k.Kind() != kind {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return s, err
		}
		s.Keys = append(s.Keys, shownKey{k.Label, kind, k.Bits, x.keyUser(k.Label), hex.EncodeToString(der), der})
	}
	return s, nil
}

func (s shownKeys) Text(w *bufio.Writer) {
	for _, k := range s.Keys {
		fmt.Fprintf(w, "Key name: %s\n Usage: General Purpose Key\n", k.Name)
		if k.Type == "rsa" {
			fmt.Fprintf(w, " Modulus Size (bits): %d\n", k.Bits)
		} else {
			fmt.Fprintf(w, " EC curve size (bits): %d\n", k.Bits)
		}
		if k.InUse != "" {
			fmt.Fprintf(w, " In use by: %s\n", k.InUse)
		}
		fmt.Fprintf(w, " Key Data:\n\n%s\n", hexLines(k.der))
	}
}

// hexLines returns bytes as the ASA prints a key: lines of eight groups of four.
func hexLines(b []byte) string {
	var s strings.Builder
	for line := range slices.Chunk(b, 32) {
		for group := range slices.Chunk(line, 4) {
			fmt.Fprintf(&s, "  %x", group)
		}
		s.WriteByte('\n')
	}
	return s.String()
}

// trustpoints returns those on flash, or the one named.
func (x *execution) trustpoints(name string) []pki.Trustpoint {
	return slices.DeleteFunc(x.opt.Store.Trustpoints(), func(tp pki.Trustpoint) bool { return name != "" && tp.Name != name })
}

// A shownCertificate is one of "show crypto ca certificates": one that is there, or
// that is asked for.
type shownCertificate struct {
	Trustpoint string    `json:"trustpoint"`
	CA         bool      `json:"ca"`
	Status     string    `json:"status"`           // "Available", "Not yet valid", "Expired" or, without what follows, "Pending"
	Serial     string    `json:"serial,omitempty"` // hexadecimal
	Usage      string    `json:"usage,omitempty"`
	PublicKey  string    `json:"public_key_type,omitempty"`
	Algorithm  string    `json:"signature_algorithm,omitempty"`
	Issuer     string    `json:"issuer,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	KeyPair    string    `json:"key_pair,omitempty"`
}

type shownCertificates struct {
	Certificates cli.List[shownCertificate] `json:"certificates"`
}

func showCertificates(x *execution, a cli.Args) (s shownCertificates, _ error) {
	now := x.opt.Now()
	for _, tp := range x.trustpoints(a.Get("trustpoint")) {
		switch {
		case tp.Identity != nil:
			c := certificateOf(tp.Identity, tp.Name, now)
			c.KeyPair = tp.KeyPair
			s.Certificates = append(s.Certificates, c)
		case tp.KeyPair != "":
			s.Certificates = append(s.Certificates, shownCertificate{Trustpoint: tp.Name, Status: "Pending", KeyPair: tp.KeyPair})
		}
		if tp.CA != nil {
			c := certificateOf(tp.CA, tp.Name, now)
			c.CA = true
			s.Certificates = append(s.Certificates, c)
		}
	}
	return s, nil
}

func certificateOf(c *x509.Certificate, trustpoint string, now time.Time) shownCertificate {
	s := shownCertificate{
		Trustpoint: trustpoint, Status: "Available", Serial: fmt.Sprintf("%x", c.SerialNumber), Usage: "General Purpose",
		PublicKey: keyText(c.PublicKey), Algorithm: c.SignatureAlgorithm.String(), Issuer: pki.Name(c.RawIssuer), Subject: pki.Name(c.RawSubject),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
	}
	if now.Before(c.NotBefore) {
		s.Status = "Not yet valid"
	} else if now.After(c.NotAfter) {
		s.Status = "Expired"
	}
	if c.KeyUsage == x509.KeyUsageDigitalSignature || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageKeyEncipherment) == x509.KeyUsageCertSign {
		s.Usage = "Signature"
	}
	return s
}

// Text is in the form of reference/asa-cli-show-debug.md, section 2.14.
func (s shownCertificates) Text(w *bufio.Writer) {
	for _, c := range s.Certificates {
		if c.Status == "Pending" {
			fmt.Fprintf(w, "Certificate\n  Status: Pending terminal enrollment\n  Key Pair: %s\n  Associated Trustpoints: %s\n\n", c.KeyPair, c.Trustpoint)
			continue
		}
		title := "Certificate"
		if c.CA {
			title = "CA Certificate"
		}
		fmt.Fprintf(w, "%s\n  Status: %s\n  Certificate Serial Number: %s\n  Certificate Usage: %s\n", title, c.Status, c.Serial, c.Usage)
		fmt.Fprintf(w, "  Public Key Type: %s\n  Signature Algorithm: %s\n", c.PublicKey, c.Algorithm)
		fmt.Fprintf(w, "  Issuer Name:\n%s  Subject Name:\n%s", nameLines(c.Issuer, "    "), nameLines(c.Subject, "    "))
		fmt.Fprintf(w, "  Validity Date:\n    start date: %s\n    end   date: %s\n", c.NotBefore.Format(dateFormat), c.NotAfter.Format(dateFormat))
		fmt.Fprintf(w, "  Associated Trustpoints: %s\n\n", c.Trustpoint)
	}
}

func keyText(pub any) string {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA (%d bits)", pub.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA (%d bits)", pub.Curve.Params().BitSize)
	}
	return "not known"
}

// nameLines returns a distinguished name, one attribute to a line.
func nameLines(name, indent string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.ReplaceAll(name, `\,`, "\x00"), ",") {
		b.WriteString(indent + strings.ReplaceAll(part, "\x00", `\,`) + "\n")
	}
	return b.String()
}

// A shownTrustpoint is a trustpoint of the configuration, or one on flash alone, such
// as those of CTL files.
type shownTrustpoint struct {
	Name       string    `json:"name"`
	Configured bool      `json:"configured"`
	CA         string    `json:"ca_subject,omitempty"`
	CASerial   string    `json:"ca_serial,omitempty"` // hexadecimal
	Subject    string    `json:"subject,omitempty"`
	KeyPair    string    `json:"key_pair,omitempty"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	Enrollment string    `json:"enrollment,omitempty"` // "self", "terminal" or "url"
	URL        string    `json:"url,omitempty"`
	LDCIssuer  bool      `json:"ldc_issuer"`
}

type shownTrustpoints struct {
	Trustpoints cli.List[shownTrustpoint] `json:"trustpoints"`
	Damaged     cli.List[string]          `json:"damaged"` // why those on flash are not shown
}

func showTrustpoints(x *execution, a cli.Args) (s shownTrustpoints, _ error) {
	only := a.Get("trustpoint")
	held := make(map[string]pki.Trustpoint)
	for _, tp := range x.opt.Store.Trustpoints() {
		held[tp.Name] = tp
	}
	add := func(o shownTrustpoint) {
		tp := held[o.Name]
		delete(held, o.Name)
		if only != "" && only != o.Name {
			return
		}
		if o.KeyPair = tp.KeyPair; tp.CA != nil {
			o.CA, o.CASerial = pki.Name(tp.CA.RawSubject), fmt.Sprintf("%x", tp.CA.SerialNumber)
		}
		if tp.Identity != nil {
			o.Subject, o.NotAfter = pki.Name(tp.Identity.RawSubject), tp.Identity.NotAfter.UTC()
		}
		s.Trustpoints = append(s.Trustpoints, o)
	}
	for _, tp := range x.running.Trustpoints {
		o := shownTrustpoint{Name: tp.Name, Configured: true, Enrollment: tp.Enrollment, LDCIssuer: tp.LDCIssuer}
		if tp.Enrollment == "url" {
			o.URL = tp.URL
		}
		add(o)
	}
	for _, tp := range x.opt.Store.Trustpoints() {
		if _, left := held[tp.Name]; left {
			add(shownTrustpoint{Name: tp.Name})
		}
	}
	for _, err := range x.opt.Store.Damaged() {
		s.Damaged = append(s.Damaged, err.Error())
	}
	return s, nil
}

func (s shownTrustpoints) Text(w *bufio.Writer) {
	for _, tp := range s.Trustpoints {
		fmt.Fprintf(w, "Trustpoint %s:\n", tp.Name)
		asked := tp.NotAfter.IsZero() // it has no certificate yet
		switch {
		case tp.CASerial != "":
			fmt.Fprintf(w, "    Subject Name:\n%s          Serial Number: %s\n", nameLines(tp.CA, "    "), tp.CASerial)
		case asked:
			w.WriteString("    Not authenticated.\n")
		}
		switch {
		case !asked:
			fmt.Fprintf(w, "    Certificate configured: %s, key pair %s, until %s\n", tp.Subject, tp.KeyPair, tp.NotAfter.Format(time.DateOnly))
		case tp.KeyPair != "":
			fmt.Fprintf(w, "    Certificate asked for, key pair %s\n", tp.KeyPair)
		}
		switch {
		case !tp.Configured:
			w.WriteString("    Not in the configuration.\n")
		case tp.Enrollment == "url":
			fmt.Fprintf(w, "    CEP URL: %s\n", tp.URL)
		default:
			fmt.Fprintf(w, "    Enrollment: %s\n", orNone(tp.Enrollment))
		}
		if tp.LDCIssuer {
			w.WriteString("    Issues local dynamic certificates.\n")
		}
		w.WriteString("\n")
	}
	for _, why := range s.Damaged {
		fmt.Fprintf(w, "%s\n", why)
	}
}

// warnOfExpiry logs each certificate that has ended or ends soon, once a day.
func (a *Appliance) warnOfExpiry(now time.Time) {
	a.mu.Lock()
	due := a.expiryTold.IsZero() || now.Sub(a.expiryTold) >= expiryEvery
	if due {
		a.expiryTold = now
	}
	a.mu.Unlock()
	if !due || a.opt.Store == nil {
		return
	}
	for _, e := range a.opt.Store.Expiring(now, expiryWarning) {
		kind := "ID"
		if e.CA {
			kind = "CA"
		}
		names := fmt.Sprintf("Subject Name %s Issuer Name %s Serial Number %x", pki.Name(e.Cert.RawSubject), pki.Name(e.Cert.RawIssuer), e.Cert.SerialNumber)
		if date := e.Cert.NotAfter.UTC().Format(dateFormat); e.Left <= 0 {
			a.opt.Log.Error(fmt.Sprintf("%%ASA-1-717055: The %s certificate in the trustpoint %s has expired. Expiration %s %s", kind, e.Trustpoint, date, names))
		} else {
			days := int((e.Left + 24*time.Hour - 1) / (24 * time.Hour))
			a.opt.Log.Warn(fmt.Sprintf("%%ASA-1-717054: The %s certificate in the trustpoint %s is due to expire in %d days. Expiration %s %s", kind, e.Trustpoint, days, date, names))
		}
	}
}
