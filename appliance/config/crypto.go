package config

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"patchbay/appliance/cli"
)

const (
	defaultKeyLabel = "<Default-RSA-Key>" // of crypto key generate rsa without label
	defaultModulus  = 1024                // bits (reference/asa-cli.md, section 7)
	maxCertificate  = 64 * 1024           // bytes of text of one certificate; the largest are near 10 KB
	minBase64Line   = 40                  // bytes; certificates come in lines of 64 or 76
)

// cryptoCommands are keys, trustpoints and certificates. (reference/asa-cli.md,
// section 7.)
func cryptoCommands() []command {
	list := []command{
		cmd("crypto key generate rsa [label <name>|modulus <bits:word>|general-keys|noconfirm]...", by("crypto key generate rsa $name"), parseKey),
		cmd("crypto ca trustpoint <name>", each.opens(inTrustpoint), parseTrustpoint),
		cmd("crypto ca enroll <name> [noconfirm]", by("$1 $2 $3 $4"), parseEnroll),
		cmd("crypto ca authenticate <name> [fingerprint {<hex>}...] [nointeractive]", by("$1 $2 $3 $4"), parseAuthenticate),
		cmd("crypto ca certificate chain <name>", each.opens(inChain), func(p *parser, a cli.Args) {
			if i := p.trustpoint(a.Token("name")); i >= 0 {
				p.enter(inChain, i)
			}
		}),
	}
	list = append(list, notYet("a key pair of this kind", "crypto key generate rsa usage-keys [<rest:line>]",
		"crypto key generate {ecdsa|eddsa} [<rest:line>]")...)
	return append(list, notYet("this crypto command in a file", "crypto ca import <rest:line>", "crypto ca export <rest:line>",
		"crypto key zeroize <rest:line>", "crypto ca reference-identity <rest:line>")...)
}

// actionCommands are done once, when they are typed: what they make is kept
// elsewhere than in the text of the configuration. (reference/asa-cli.md,
// section 7.)
func actionCommands() []command {
	var list []command
	for _, syntax := range []string{
		"crypto key generate rsa [label <name>|modulus <bits:512-4096>|{general-keys|usage-keys}|noconfirm]...",
		"crypto key generate ecdsa [label <name>|elliptic-curve {256|384|521}|noconfirm]...",
		"crypto key zeroize {rsa|ecdsa} [label <name>|default|noconfirm]...",
		"crypto ca enroll <tp:name> [noconfirm]",
		"crypto ca authenticate <tp:name> [fingerprint {<hex>}...] [nointeractive]",
		"crypto ca import <tp:name> certificate [nointeractive]",
		"crypto ca import <name> pkcs12 <passphrase:word> [nointeractive]",
		"crypto ca export <tp:name> {pkcs12 <passphrase:word> [legacy]|identity-certificate}",
	} {
		list = append(list, command{Syntax: syntax})
	}
	return list
}

func trustpointCommands() []command {
	list := []command{
		cmd("enrollment self", by("enrollment"), func(p *parser, a cli.Args) { p.tp().Enrollment = "self" }),
		cmd("enrollment terminal", by("enrollment"), func(p *parser, a cli.Args) { p.tp().Enrollment = "terminal" }),
		cmd("enrollment url <at:word>", by("enrollment"), parseEnrollmentURL),
		cmd("keypair <label:name>", one, func(p *parser, a cli.Args) { p.tp().KeyPair = a.Get("label") }),
		cmd("no keypair", one, func(p *parser, a cli.Args) { p.tp().KeyPair = "" }),
		cmd("fqdn {none|<name:word>}", one, parseFQDN),
		cmd("subject-name <name:line>", one, parseSubject),
		cmd("[no] serial-number", one, func(p *parser, a cli.Args) { p.tp().SerialNumber = !a.Has("no") }),
		cmd("ip-address <addr>", one, func(p *parser, a cli.Args) { p.tp().IP, _ = p.addr(a.Get("addr")) }),
		cmd("no ip-address [<addr>]", one, func(p *parser, a cli.Args) { p.tp().IP = netip.Addr{} }),
		cmd("password <challenge:word>", one, func(p *parser, a cli.Args) { p.tp().Password = a.Get("challenge") }),
		cmd("no password", one, func(p *parser, a cli.Args) { p.tp().Password = "" }),
		cmd("{proxy-ldc-issuer|proxy_ldc_issuer}", by("proxy-ldc-issuer").spelled(spellHyphens), func(p *parser, a cli.Args) { p.tp().LDCIssuer = true }),
	}
	list = append(list, inert("revocation of phones' certificates is not checked, as by default", "crl configure", "no crl",
		"revocation-check none", "crl nocheck")...)
	list = append(list, inert("enrollment is asked for once", "enrollment retry {period|count} <n:0-100>")...)
	list = append(list, inert("it is so by default", "id-usage ssl-ipsec", "no email",
		"no fqdn", "validation-usage ipsec-client ssl-client", "no ignore-ipsec-keyusage", "no ignore-ssl-keyusage")...)
	list = append(list, idle("it is so by default", "As by default", "accept-subordinates", "id-cert-issuer", "ca-check")...)
	list = append(list, idle("certificates are taken where revocation cannot be checked, and here it cannot", "Revocation: kept, without effect",
		"revocation-check {crl|ocsp} [crl|ocsp] none", "ocsp <rest:line>", "match certificate <rest:line>")...)
	list = append(list, inert("there is no IPsec, and phones' certificates are held to their key usage", "ignore-ipsec-keyusage", "ignore-ssl-keyusage")...)
	list = append(list, idle("the box warns before a certificate expires; \"crypto ca enroll\" asks for another", "Renewal: kept, without effect", "auto-enroll [<rest:line>]")...)
	return append(list, notYet("this of a trustpoint", "revocation-check <rest:line>", "email <rest:line>",
		"id-usage <rest:line>", "validation-usage <rest:line>", "validation-policy <rest:line>",
		"no <rest:line>", "match <rest:line>", "crl <rest:line>", "signature-key <rest:line>")...)
}

func chainCommands() []command {
	list := []command{cmd("certificate [ca] <serial:hex>", each, func(p *parser, a cli.Args) {
		p.block = &certBlock{line: p.line, tp: p.item, ca: a.Has("ca"), hex: true}
	})}
	list = append(list, inert("what ends a certificate has ended", "quit")...)
	return append(list, notYet("a certificate of this kind", "certificate {rsa-ra|ra-sign|ra-encrypt|ra-general} <rest:line>", "crl <rest:line>")...)
}

// tp returns the trustpoint that the mode is about.
func (p *parser) tp() *Trustpoint { return &p.run.Trustpoints[p.item] }

// trustpoint returns the index of the trustpoint that tok names, -1 and refuses
// the line if there is none.
func (p *parser) trustpoint(tok cli.Token) int {
	i := slices.IndexFunc(p.run.Trustpoints, func(t Trustpoint) bool { return t.Name == tok.Text })
	if i < 0 {
		p.refuse(tok, "V04", "there is no trustpoint %s yet; %s", tok.Text, nearestOf(tok.Text, p.run.trustpointNames()))
	}
	return i
}

func (r *Running) trustpointNames() []string {
	var names []string
	for _, t := range r.Trustpoints {
		names = append(names, t.Name)
	}
	return names
}

func parseKey(p *parser, a cli.Args) {
	key := KeyPair{Line: p.line, Label: defaultKeyLabel, Modulus: defaultModulus}
	for _, what := range []string{"label", "modulus"} {
		if toks := a.All(what); len(toks) > 1 {
			p.refuse(toks[1], "", "%s stands here twice", what)
			return
		}
	}
	if a.Has("label") {
		key.Label = a.Get("name")
	}
	if a.Has("bits") {
		switch bits := a.Get("bits"); bits {
		case "1024", "2048", "3072", "4096":
			key.Modulus = a.Int("bits", defaultModulus)
		case "512", "768":
			p.refuse(a.Token("bits"), "", "keys of %s bits are too weak to be made; write 1024, 2048, 3072 or 4096", bits)
		default:
			p.refuse(a.Token("bits"), "", "%s is no modulus; write 1024, 2048, 3072 or 4096", bits)
		}
	}
	i := findOrAdd(&p.run.KeyPairs, func(k *KeyPair) bool { return k.Label == key.Label }, func() KeyPair { return key })
	if before := p.run.KeyPairs[i]; before.Line != p.line {
		p.refuse(a.Token("generate"), "", "there is a key pair %s already (line %d); give this one another label", key.Label, before.Line)
	}
}

func parseTrustpoint(p *parser, a cli.Args) {
	name := a.Token("name")
	if len(name.Text) > maxTrustpoint {
		p.refuse(name, "", "a trustpoint's name of %d bytes is too long: %d at most", len(name.Text), maxTrustpoint)
		return
	}
	p.enter(inTrustpoint, findOrAdd(&p.run.Trustpoints, func(t *Trustpoint) bool { return t.Name == name.Text },
		func() Trustpoint { return Trustpoint{Line: p.line, Name: name.Text} }))
}

func parseEnrollmentURL(p *parser, a cli.Args) {
	u, err := url.Parse(a.Get("at"))
	if err != nil || u.Scheme != "http" || u.Host == "" {
		p.refuse(a.Token("at"), "", "%s is not an address of a CA as in http://ca.example.com/certsrv/mscep/mscep.dll", a.Get("at"))
		return
	}
	p.tp().Enrollment, p.tp().URL = "url", a.Get("at")
}

func parseFQDN(p *parser, a cli.Args) {
	t := p.tp()
	t.NoFQDN, t.FQDN = a.Has("none"), a.Get("name")
	if t.FQDN != "" && !isHostname(t.FQDN) {
		p.refuse(a.Token("name"), "", "%s is no name in the DNS as in ucm.example.com; write that or none", t.FQDN)
	}
}

// parseSubject checks that the X.500 name is a list of attribute=value.
func parseSubject(p *parser, a cli.Args) {
	subject := strings.Trim(a.Get("name"), `"`)
	for part := range strings.SplitSeq(strings.ReplaceAll(subject, `\,`, ""), ",") {
		if attr, value, ok := strings.Cut(part, "="); !ok || strings.TrimSpace(attr) == "" || strings.TrimSpace(value) == "" {
			p.refuse(a.Token("name"), "", "%q in the subject is not attribute=value as in CN=ucm,O=Example", strings.TrimSpace(part))
			return
		}
	}
	p.tp().Subject = subject
}

// parseEnroll asks for an identity certificate, which the box can sign only
// for itself.
func parseEnroll(p *parser, a cli.Args) {
	name := a.Token("name")
	i := p.trustpoint(name)
	if i < 0 || slices.Contains(p.run.Enroll, name.Text) {
		return
	}
	enrollment := p.run.Trustpoints[i].Enrollment
	if enrollment != "self" {
		p.run.broken[stanza{inTrustpoint, name.Text}] = true
	}
	switch enrollment {
	case "self":
		p.run.Enroll = append(p.run.Enroll, name.Text)
	case "":
		p.refuse(name, "V34", "trustpoint %s has no enrollment line; write enrollment self in it", name.Text)
	default:
		p.refuse(name, "V34", "%s", "another CA's certificate is asked for at the console, not in a file; remove the line")
	}
}

// A certBlock is a certificate being read, up to a line "quit".
type certBlock struct {
	line int // of the command that began it
	tp   int // index of the trustpoint
	ca   bool
	hex  bool // else base-64, PEM or bare
	text []byte
}

func parseAuthenticate(p *parser, a cli.Args) {
	if i := p.trustpoint(a.Token("name")); i >= 0 {
		p.block = &certBlock{line: p.line, tp: i, ca: true}
	}
}

// readBlock takes a line of the certificate. It returns false for a line that
// cannot be one, which ends the certificate unfinished.
func (p *parser) readBlock(text string) bool {
	b, line := p.block, strings.TrimSpace(text)
	if strings.EqualFold(line, "quit") {
		p.endBlock("")
		return true
	}
	if b.hex {
		line = strings.Join(strings.Fields(line), "")
	}
	begin, end := strings.HasPrefix(line, "-----BEGIN"), strings.HasPrefix(line, "-----END")
	ok := strings.Trim(strings.ToLower(line), "0123456789abcdef") == ""
	if !b.hex {
		ok = begin || end || strings.Trim(line, base64Alphabet) == "" && (len(b.text) > 0 || len(line) >= minBase64Line || line == "")
	}
	switch {
	case !ok:
		p.endBlock(fmt.Sprintf("line %d is not part of one, and there is no line quit before it", p.line))
		return false
	case len(b.text)+len(line) > maxCertificate:
		p.endBlock(fmt.Sprintf("it is longer than %d bytes", maxCertificate))
		return false
	case begin || end || line == "":
	default:
		b.text = append(b.text, line...)
	}
	return true
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

// endBlock keeps the certificate, or reports why it is none on the line that
// began it. The current line stays.
func (p *parser) endBlock(why string) {
	b := p.block
	p.block = nil
	der, err := b.decode()
	if why == "" && err != nil {
		why = err.Error()
	}
	if why != "" {
		line, text := p.line, p.text
		p.at(b.line)
		what := "a certificate in hexadecimal and a line quit must follow"
		if !b.hex {
			what = "the CA's certificate in base-64 and a line quit must follow"
		}
		p.refuse(cli.Split(p.text)[0], "", "%s: %s", what, why)
		p.run.broken[stanza{inTrustpoint, p.run.Trustpoints[b.tp].Name}] = true
		p.line, p.text = line, text
		return
	}
	t := &p.run.Trustpoints[b.tp]
	if p.certify != nil {
		p.certify(t.Name, b.ca, der)
	}
	switch {
	case !b.ca:
		t.Certificate = der
	case !slices.ContainsFunc(t.CACertificates, func(c []byte) bool { return bytes.Equal(c, der) }):
		t.CACertificates = append(t.CACertificates, der)
	}
}

// decode returns the certificate as DER. Only its outer form is looked at:
// phones' CAs are old and not all to the letter of the standard.
func (b *certBlock) decode() (der []byte, err error) {
	if b.hex {
		der, err = hex.DecodeString(string(b.text))
	} else {
		der, err = base64.StdEncoding.DecodeString(string(b.text))
	}
	if err != nil {
		return nil, err
	}
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("it is not DER: %v", err)
	case outer.Tag != asn1.TagSequence || !outer.IsCompound:
		return nil, fmt.Errorf("it is not a certificate, which begins with 30")
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes follow it", len(rest))
	}
	return der, nil
}
