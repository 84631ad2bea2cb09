package appliance

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
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
	{Syntax: "show crypto key mypubkey {rsa|ecdsa}", Help: "Public halves of key pairs", Do: showKeys},
	{Syntax: "show crypto ca certificates [<trustpoint>]", Help: "Certificates of the box and of CAs", Do: showCertificates},
	{Syntax: "show crypto ca trustpoints [<trustpoint>]", Help: "Trustpoints, and what they hold", Do: showTrustpoints},
}

func showKeys(x *execution, a cli.Args) error {
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
			return err
		}
		x.printf("Key name: %s\n Usage: General Purpose Key\n", k.Label)
		if kind == "rsa" {
			x.printf(" Modulus Size (bits): %d\n", k.Bits)
		} else {
			x.printf(" EC curve size (bits): %d\n", k.Bits)
		}
		if user := x.keyUser(k.Label); user != "" {
			x.printf(" In use by: %s\n", user)
		}
		x.printf(" Key Data:\n\n%s\n", hexLines(der))
	}
	return nil
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

// showCertificates is in the form of reference/asa-cli-show-debug.md, section
// 2.14.
func showCertificates(x *execution, a cli.Args) error {
	for _, tp := range x.trustpoints(a.Get("trustpoint")) {
		switch {
		case tp.Identity != nil:
			x.certificate("Certificate", tp.Identity, tp.Name)
		case tp.KeyPair != "":
			x.printf("Certificate\n  Status: Pending terminal enrollment\n  Key Pair: %s\n  Associated Trustpoints: %s\n\n", tp.KeyPair, tp.Name)
		}
		if tp.CA != nil {
			x.certificate("CA Certificate", tp.CA, tp.Name)
		}
	}
	return nil
}

func (x *execution) certificate(title string, c *x509.Certificate, name string) {
	status := "Available"
	if now := x.opt.Now(); now.Before(c.NotBefore) {
		status = "Not yet valid"
	} else if now.After(c.NotAfter) {
		status = "Expired"
	}
	usage := "General Purpose"
	if c.KeyUsage == x509.KeyUsageDigitalSignature || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageKeyEncipherment) == x509.KeyUsageCertSign {
		usage = "Signature"
	}
	x.printf("%s\n  Status: %s\n  Certificate Serial Number: %x\n  Certificate Usage: %s\n", title, status, c.SerialNumber, usage)
	x.printf("  Public Key Type: %s\n  Signature Algorithm: %v\n", keyText(c.PublicKey), c.SignatureAlgorithm)
	x.printf("  Issuer Name:\n%s  Subject Name:\n%s", nameLines(c.RawIssuer, "    "), nameLines(c.RawSubject, "    "))
	x.printf("  Validity Date:\n    start date: %s\n    end   date: %s\n", c.NotBefore.UTC().Format(dateFormat), c.NotAfter.UTC().Format(dateFormat))
	x.printf("  Associated Trustpoints: %s\n\n", name)
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
func nameLines(raw []byte, indent string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.ReplaceAll(pki.Name(raw), `\,`, "\x00"), ",") {
		b.WriteString(indent + strings.ReplaceAll(part, "\x00", `\,`) + "\n")
	}
	return b.String()
}

// showTrustpoints lists those of the configuration and those on flash alone, such
// as those of CTL files.
func showTrustpoints(x *execution, a cli.Args) error {
	only := a.Get("trustpoint")
	held := make(map[string]pki.Trustpoint)
	for _, tp := range x.opt.Store.Trustpoints() {
		held[tp.Name] = tp
	}
	show := func(name string, how string) {
		if only != "" && only != name {
			return
		}
		tp := held[name]
		x.printf("Trustpoint %s:\n", name)
		switch {
		case tp.CA != nil:
			x.printf("    Subject Name:\n%s          Serial Number: %x\n", nameLines(tp.CA.RawSubject, "    "), tp.CA.SerialNumber)
		case tp.Identity == nil:
			x.printf("    Not authenticated.\n")
		}
		switch {
		case tp.Identity != nil:
			x.printf("    Certificate configured: %s, key pair %s, until %s\n", pki.Name(tp.Identity.RawSubject), tp.KeyPair, tp.Identity.NotAfter.UTC().Format(time.DateOnly))
		case tp.KeyPair != "":
			x.printf("    Certificate asked for, key pair %s\n", tp.KeyPair)
		}
		x.printf("%s\n", how)
		delete(held, name)
	}
	for _, tp := range x.running.Trustpoints {
		how := "    Enrollment: " + orNone(tp.Enrollment) + "\n"
		if tp.Enrollment == "url" {
			how = "    CEP URL: " + tp.URL + "\n"
		}
		if tp.LDCIssuer {
			how += "    Issues local dynamic certificates.\n"
		}
		show(tp.Name, how)
	}
	for _, tp := range x.opt.Store.Trustpoints() {
		if _, left := held[tp.Name]; left {
			show(tp.Name, "    Not in the configuration.\n")
		}
	}
	for _, err := range x.opt.Store.Damaged() {
		x.printf("%v\n", err)
	}
	return nil
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
