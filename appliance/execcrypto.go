package appliance

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
)

const (
	caWait         = 30 * time.Second    // for a CA, all of its answers together
	defaultRSAKey  = "<Default-RSA-Key>" // the labels of key pairs that name none
	defaultECKey   = "<Default-ECDSA-Key>"
	defaultModulus = 1024 // bits (reference/asa-cli.md, section 7)
)

// cryptoCommands make and carry keys and certificates. (reference/asa-cli.md,
// section 7.)
var cryptoCommands = []cli.Rule[execFunc]{
	{Syntax: "crypto key generate rsa [label <name:label>|modulus <bits:1024-4096>|general-keys|noconfirm]...", Help: "Make an RSA key pair", Do: generateRSA},
	{Syntax: "crypto key generate ecdsa [label <name:label>|elliptic-curve {256|384|521}|noconfirm]...", Help: "Make an ECDSA key pair", Do: generateECDSA},
	{Syntax: "crypto key zeroize {rsa|ecdsa} [label <name:label>|default|noconfirm]...", Help: "Destroy key pairs that nothing needs", Do: zeroizeKeys},
	{Syntax: "crypto ca authenticate <trustpoint> [fingerprint {<hex>}...] [nointeractive]", Help: "Install the certificate of a trustpoint's CA", Do: authenticateCA},
	{Syntax: "crypto ca enroll <trustpoint> [noconfirm]", Help: "Get an identity certificate", Do: enrollCA},
	{Syntax: "crypto ca import <trustpoint> certificate [nointeractive]", Help: "Install the certificate that a CA has made", Do: importCertificate},
	{Syntax: "crypto ca import <tp:label> pkcs12 <secret> [nointeractive]", Help: "Install a key pair with its certificates", Do: importPKCS12},
	{Syntax: "crypto ca export <trustpoint> pkcs12 <secret> [legacy]", Help: "Show a key pair with its certificates, encrypted; legacy: as old ASAs read it", Do: exportPKCS12},
	{Syntax: "crypto ca export <trustpoint> identity-certificate", Help: "Show a certificate of the box", Do: exportCertificate},
}

// A NeedText says that a text must follow a command: call ExecText with it.
type NeedText struct {
	Prompt string // what an ASA says before it reads lines up to "quit"
}

// Error returns the prompt.
func (n *NeedText) Error() string { return n.Prompt }

// hideSecrets returns a command with its passphrases struck out letter by letter,
// so that a caret still points at its word.
func hideSecrets(line string) string {
	return redact(line, func(s string) string { return strings.Repeat("*", len(s)) })
}

// Redact returns a command as it may stand in a log: a passphrase is "*****".
func Redact(line string) string { return redact(line, func(string) string { return "*****" }) }

// redact replaces all that follows the sixth word of "crypto ca import|export TP
// pkcs12 PASSPHRASE", however abbreviated.
func redact(line string, hide func(string) string) string {
	words := cli.Split(line)
	begins := func(i int, keywords ...string) bool {
		return slices.ContainsFunc(keywords, func(k string) bool { return strings.HasPrefix(k, strings.ToLower(words[i].Text)) })
	}
	if len(words) < 6 || !begins(0, "crypto") || !begins(1, "ca") || !begins(2, "import", "export") || !begins(4, "pkcs12") {
		return line
	}
	at := words[5].Col - 1
	return line[:at] + hide(line[at:])
}

// hasTrustpoint reports whether the configuration or the flash knows a trustpoint.
func (x *execution) hasTrustpoint(name string) bool {
	if x.running.Trustpoint(name) != nil {
		return true
	}
	_, err := x.opt.Store.Trustpoint(name)
	return !errors.Is(err, pki.ErrNotFound)
}

// refuseCrypto says an error of the store as an ASA begins what it refuses.
func refuseCrypto(err error) error { return refuse("%% %s", strings.TrimPrefix(err.Error(), "pki: ")) }

// once returns the argument of a keyword that may stand once.
func once(a cli.Args, keyword, name string) (string, error) {
	if len(a.All(keyword)) > 1 {
		return "", refuse("%% %s stands here twice", keyword)
	}
	return a.Get(name), nil
}

func generateRSA(x *execution, a cli.Args) error {
	label, err := once(a, "label", "name")
	if err == nil {
		_, err = once(a, "modulus", "bits")
	}
	if err != nil {
		return err
	}
	if label == "" {
		label = defaultRSAKey
	}
	x.printf("INFO: The name for the keys will be: %s\nKeypair generation process begin. Please wait...\n", label)
	return x.generated(label, x.opt.Store.GenerateRSA(label, a.Int("bits", defaultModulus)))
}

func generateECDSA(x *execution, a cli.Args) error {
	label, err := once(a, "label", "name")
	if err != nil {
		return err
	}
	if label == "" {
		label = defaultECKey
	}
	bits := 0
	for _, curve := range []int{256, 384, 521} {
		if a.Has(strconv.Itoa(curve)) {
			bits = curve
		}
	}
	x.printf("INFO: The name for the keys will be: %s\nKeypair generation process begin. Please wait...\n", label)
	return x.generated(label, x.opt.Store.GenerateECDSA(label, bits))
}

func (x *execution) generated(label string, err error) error {
	if errors.Is(err, pki.ErrExists) {
		return refuse("%% There is a key pair %s already; give this one another label, or zeroize that first", label)
	}
	if err != nil {
		return refuseCrypto(err)
	}
	return nil
}

// zeroizeKeys destroys one key pair, or all of a kind. If anything needs one of
// them none is touched.
func zeroizeKeys(x *execution, a cli.Args) error {
	kind, fallback := "rsa", defaultRSAKey
	if a.Has("ecdsa") {
		kind, fallback = "ecdsa", defaultECKey
	}
	label, err := once(a, "label", "name")
	if err != nil {
		return err
	}
	if label == "" && a.Has("default") {
		label = fallback
	}
	var labels []string
	for _, k := range x.opt.Store.Keys() {
		if k.Kind() == kind && (label == "" || label == k.Label) {
			labels = append(labels, k.Label)
		}
	}
	if len(labels) == 0 {
		return refuse("%% There is no %s key pair%s", strings.ToUpper(kind), prefixed(" ", label))
	}
	for _, l := range labels {
		if user := x.keyUser(l); user != "" {
			return refuse("%% Key pair %s is in use by %s and stays", l, user)
		}
	}
	for _, l := range labels {
		if err := x.opt.Store.RemoveKey(l); err != nil {
			return refuseCrypto(err)
		}
		x.opt.Log.Info("key pair destroyed", "label", l)
	}
	x.printf("INFO: %d key pair(s) destroyed: %s\n", len(labels), strings.Join(labels, ", "))
	return nil
}

func prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

// keyUser names what needs a key pair, by the flash or the configuration; "" if
// nothing does.
func (x *execution) keyUser(label string) string {
	for _, tp := range x.opt.Store.Trustpoints() {
		if tp.KeyPair == label {
			return "trustpoint " + tp.Name
		}
	}
	for _, tp := range x.running.Trustpoints {
		if tp.KeyPair == label {
			return "trustpoint " + tp.Name
		}
	}
	for _, t := range x.running.TLSProxies {
		if t.LDCKeyPair == label {
			return "tls-proxy " + t.Name
		}
	}
	return ""
}

// authenticateCA installs a CA's certificate: pasted, or by SCEP.
func authenticateCA(x *execution, a cli.Args) error {
	name := a.Get("trustpoint")
	var want []byte
	if a.Has("fingerprint") {
		var text strings.Builder
		for _, tok := range a.All("hex") {
			text.WriteString(strings.NewReplacer(":", "", ".", "").Replace(strings.TrimPrefix(tok.Text, "0x")))
		}
		var err error
		if want, err = hex.DecodeString(text.String()); err != nil || len(want) != md5.Size && len(want) != sha1.Size && len(want) != sha256.Size {
			return refuse("%% The fingerprint is not MD5, SHA-1 or SHA-256 in hexadecimal")
		}
	}
	tp := x.running.Trustpoint(name)
	var cert *x509.Certificate
	var err error
	switch {
	case x.pasted != nil:
		cert, err = pki.ParseCertificate(x.pasted)
	case tp != nil && tp.Enrollment == "url":
		ctx, cancel := context.WithTimeout(x.ctx, caWait)
		defer cancel()
		cert, _, err = x.scep(tp.URL).CA(ctx)
	case tp != nil && tp.Enrollment == "self":
		return refuse("%% Trustpoint %s signs for itself (enrollment self); it has no CA", name)
	default:
		return &NeedText{"Enter the base 64 encoded CA certificate.\nEnd with the word \"quit\" on a line by itself"}
	}
	if err != nil {
		return refuseCrypto(err)
	}
	md, sha, sha2 := md5.Sum(cert.Raw), sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
	x.printf("INFO: Certificate has the following attributes:\nFingerprint: MD5     %x\nFingerprint: SHA-1   %x\nFingerprint: SHA-256 %x\n", md, sha, sha2)
	switch {
	case want != nil && string(want) != string(md[:]) && string(want) != string(sha[:]) && string(want) != string(sha2[:]):
		return refuse("%% The certificate of %s has another fingerprint, and was not accepted", pki.Name(cert.RawSubject))
	case want == nil && !a.Has("nointeractive") && x.ask != nil:
		if yes, err := x.confirmed("Do you accept this certificate? [yes/no]: "); err != nil {
			return err
		} else if !yes {
			return refuse("%% The CA certificate was not accepted")
		}
	case want == nil && x.pasted == nil && !a.Has("nointeractive"):
		return refuse("%% Compare the fingerprint with the CA's, and repeat the command with \"fingerprint\" or \"nointeractive\"")
	}
	if _, err := x.opt.Store.Authenticate(name, cert.Raw); errors.Is(err, pki.ErrExists) {
		return refuse("%% Trustpoint %s has another CA certificate already", name)
	} else if err != nil {
		return refuseCrypto(err)
	}
	x.opt.Log.Info("CA certificate installed", "trustpoint", name, "subject", pki.Name(cert.RawSubject), "until", cert.NotAfter)
	x.printf("Trustpoint CA certificate accepted.\n")
	return nil
}

// enrollCA gets an identity certificate in the way that the trustpoint says.
func enrollCA(x *execution, a cli.Args) error {
	name := a.Get("trustpoint")
	tp := x.running.Trustpoint(name)
	if tp == nil || tp.Enrollment == "" {
		return refuse("%% Trustpoint %s has no enrollment line in the configuration", name)
	}
	req := enrollRequest(x.running, tp, x.opt.Now())
	question := "Request certificate from CA? [yes/no]: "
	if tp.Enrollment == "self" {
		question = "Generate Self-Signed Certificate? [yes/no]: "
	}
	if !a.Has("noconfirm") && tp.Enrollment != "terminal" {
		if yes, err := x.confirmed(question); err != nil || !yes {
			return err
		}
	}
	if tp.Enrollment == "self" {
		id, err := x.opt.Store.Enroll(req)
		return x.enrolled(name, id, err)
	}
	der, err := x.opt.Store.Request(req, tp.Password)
	if err != nil {
		return x.enrolled(name, nil, err)
	}
	if tp.Enrollment == "terminal" {
		x.printf("%% The certificate request follows; give it to the CA, and install its answer with \"crypto ca import %s certificate\".\n%s", name, pki.FormatRequest(der))
		return nil
	}
	ctx, cancel := context.WithTimeout(x.ctx, caWait)
	defer cancel()
	id, err := x.opt.Store.EnrollSCEP(ctx, x.scep(tp.URL), name, der, x.opt.Now())
	return x.enrolled(name, id, err)
}

func (x *execution) enrolled(name string, id *pki.Identity, err error) error {
	switch {
	case errors.Is(err, pki.ErrExists):
		return refuse("%% Trustpoint %s has an identity certificate already, and phones may know it", name)
	case errors.Is(err, pki.ErrNoCA):
		return refuse("%% The certificate of the CA must be installed first: crypto ca authenticate %s", name)
	case err != nil:
		return refuseCrypto(err)
	}
	x.opt.Log.Info("identity certificate installed", "trustpoint", name, "subject", pki.Name(id.Cert.RawSubject), "until", id.Cert.NotAfter)
	x.printf("%% Certificate of %s, valid until %s\nINFO: Certificate successfully imported\n", pki.Name(id.Cert.RawSubject), id.Cert.NotAfter.UTC().Format(time.DateOnly))
	return nil
}

func importCertificate(x *execution, a cli.Args) error {
	if x.pasted == nil {
		return &NeedText{"Enter the base 64 encoded certificate.\nEnd with the word \"quit\" on a line by itself"}
	}
	name := a.Get("trustpoint")
	id, err := x.opt.Store.ImportCertificate(name, x.pasted, x.opt.Now())
	return x.enrolled(name, id, err)
}

func importPKCS12(x *execution, a cli.Args) error {
	if x.pasted == nil {
		return &NeedText{"Enter the base 64 encoded pkcs12.\nEnd with the word \"quit\" on a line by itself:"}
	}
	name := a.Get("tp")
	got, err := x.opt.Store.ImportPKCS12(name, a.Get("secret"), x.pasted)
	if errors.Is(err, pki.ErrExists) {
		return refuse("%% Trustpoint %s has other keys or certificates already, and phones may know them", name)
	}
	if err != nil {
		return refuseCrypto(err)
	}
	x.opt.Log.Info("PKCS #12 file imported", "trustpoint", name, "subject", pki.Name(got.Trustpoint.Identity.RawSubject))
	for _, c := range got.Unused {
		x.printf("INFO: not needed and left out: the certificate of %s\n", pki.Name(c.RawSubject))
	}
	x.printf("INFO: Import PKCS12 operation completed successfully\n")
	return nil
}

func exportPKCS12(x *execution, a cli.Args) error {
	name := a.Get("trustpoint")
	der, err := x.opt.Store.ExportPKCS12(name, a.Get("secret"), a.Has("legacy"))
	if err != nil {
		return refuseCrypto(err)
	}
	x.opt.Log.Warn("key pair exported", "trustpoint", name)
	x.printf("\nExported pkcs12 follows:\n%s", pki.FormatPKCS12(der))
	return nil
}

func exportCertificate(x *execution, a cli.Args) error {
	tp, err := x.opt.Store.Trustpoint(a.Get("trustpoint"))
	if err != nil {
		return refuseCrypto(err)
	}
	if tp.Identity == nil {
		return refuse("%% Trustpoint %s has no identity certificate", tp.Name)
	}
	x.printf("The PEM encoded identity certificate follows:\n%s", pki.FormatCertificate(tp.Identity))
	return nil
}

// scep returns a client for a CA, which is reached through the box's own
// interfaces.
func (a *Appliance) scep(url string) *pki.SCEP {
	return &pki.SCEP{URL: url, Client: &http.Client{
		Transport: &http.Transport{DialContext: a.dial, DisableKeepAlives: true, ResponseHeaderTimeout: caWait},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the CA sends elsewhere; write that address in enrollment url")
		},
	}}
}

// dial connects the box itself to a host, from the address of the interface that
// faces it.
func (a *Appliance) dial(ctx context.Context, _, to string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	port, err := config.ParsePort(portText)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addrs, err := a.opt.Lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		if len(addrs) == 0 {
			return nil, fmt.Errorf("%.80s has no address", host)
		}
		addr = addrs[0]
	}
	i := a.facing(addr.Unmap())
	if i == nil {
		return nil, fmt.Errorf("no route to %v", addr)
	}
	return a.host.DialTCP(ctx, netip.AddrPortFrom(i.Addr.Addr(), 0), netip.AddrPortFrom(addr.Unmap(), port))
}
