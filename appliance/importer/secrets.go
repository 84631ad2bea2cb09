package importer

import (
	"cmp"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"patchbay/appliance/config"
)

// A Secret is a private key that the ASA has and its text has not.
// (reference/asa-cli.md, section 2.1.)
type Secret struct {
	Trustpoint string
	KeyPair    string // its label, "" if the text does not say
	Uses       []string
	File       string // the PKCS#12 file that has its name, "" if there is none
	// Made says that without the file the box makes a key by itself; what that
	// costs is in Lost.
	Made bool
	Lost string
}

// Export is the command for the ASA that shows the PKCS#12 file.
func (s Secret) Export() string { return "crypto ca export " + s.Trustpoint + " pkcs12 PASSPHRASE" }

const signer = "_internal_PP_" // begins the trustpoints that an ASA makes for a CTL file

// secrets finds the trustpoints whose private key the ASA has.
func (r *Result) secrets(files []string) []Secret {
	var list []Secret
	need := func(tp, use, lost string, made bool) {
		i := slices.IndexFunc(list, func(s Secret) bool { return s.Trustpoint == tp })
		if i < 0 {
			i = len(list)
			list = append(list, Secret{Trustpoint: tp, File: match(tp, files), Made: true})
			for _, t := range r.Running.Trustpoints {
				if t.Name == tp {
					list[i].KeyPair = t.KeyPair
				}
			}
		}
		s := &list[i]
		s.Made = s.Made && made
		s.Lost = cmp.Or(s.Lost, lost)
		if !slices.Contains(s.Uses, use) {
			s.Uses = append(s.Uses, use)
		}
	}
	const phones = "phones that hold the old CTL file refuse this box until it is deleted on each of them"
	for _, c := range r.Running.CTLs {
		need(signer+c.Name, "signs files for the phones and serves their TLS; CTL file "+c.Name, phones, true)
		for n := range c.SAST {
			need(signer+c.Name+"_SAST_"+string(rune('0'+n)), "signs CTL file "+c.Name, phones, true)
		}
		for _, rec := range c.Records {
			if rec.Role != "capf" {
				need(rec.Trustpoint, "record-entry "+rec.Role+" of CTL file "+c.Name, phones, r.selfSigned(rec.Trustpoint))
			}
		}
	}
	for _, p := range r.Running.TLSProxies {
		if p.ServerTrustpoint != "" {
			need(p.ServerTrustpoint, "server trust-point of TLS proxy "+p.Name, "", r.selfSigned(p.ServerTrustpoint))
		}
		if p.LDCIssuer != "" {
			need(p.LDCIssuer, "issues the certificates of TLS proxy "+p.Name, "the call manager must be given the new issuer's certificate", r.selfSigned(p.LDCIssuer))
		}
	}
	for _, t := range r.Running.Trustpoints {
		if t.KeyPair != "" || t.Enrollment == "self" || t.Certificate != nil || strings.HasPrefix(t.Name, signer) {
			need(t.Name, "identity of the box", "", t.Enrollment == "self" || strings.HasPrefix(t.Name, signer))
		}
	}
	return list
}

// selfSigned reports whether the box signs the trustpoint's certificate itself.
func (r *Result) selfSigned(name string) bool {
	if strings.HasPrefix(name, signer) {
		return true
	}
	i := slices.IndexFunc(r.Running.Trustpoints, func(t config.Trustpoint) bool { return t.Name == name })
	return i >= 0 && r.Running.Trustpoints[i].Enrollment == "self"
}

// match returns the file with the name of a trustpoint: exactly, or in other case
// and with what else file names do to underscores and blanks.
func match(trustpoint string, files []string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("-", "_", " ", "_").Replace(s)) }
	best := ""
	for _, f := range files {
		base := filepath.Base(f)
		ext := strings.ToLower(filepath.Ext(base))
		if !slices.Contains([]string{".p12", ".pfx", ".pkcs12", ".b64", ".pem", ".txt"}, ext) {
			continue
		}
		name := base[:len(base)-len(ext)]
		if name == trustpoint {
			return f
		}
		if best == "" && plain(name) == plain(trustpoint) {
			best = f
		}
	}
	return best
}

// A Masked is a line in which the ASA showed asterisks for a secret.
type Masked struct {
	Line int
	Text string
	Left bool // the line is left out or has no effect: the secret is not needed here
}

var masked = regexp.MustCompile(`(?:^|\s)\*+(?:\s|$)`)

// masked finds the lines with asterisks for a secret.
func (r *Result) masked() []Masked {
	var list []Masked
	for _, l := range r.Lines {
		if l.Kind != config.Comment && masked.MatchString(l.Text) {
			list = append(list, Masked{l.Line.Line, strings.TrimSpace(l.Text), l.Kind != config.Obeyed})
		}
	}
	return list
}
