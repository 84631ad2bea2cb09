package ctl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"patchbay/appliance/pki"
)

const (
	internalPrefix = "_internal_PP_"
	formerSuffix   = "_former" // of a token that Renew has replaced
	tokenBits      = 2048      // the most that older phones take (reference/ctl-file.md, section 6)
)

// InternalName returns the trustpoint whose certificate the box shows to phones
// and signs their files with, for a ctl-file instance of that name.
func InternalName(ctlFile string) string { return internalPrefix + ctlFile }

// SASTName returns the trustpoint of token n, counted from 0.
func SASTName(ctlFile string, n int) string {
	return fmt.Sprintf("%s%s_SAST_%d", internalPrefix, ctlFile, n)
}

// A Token is a SAST of a ctl-file instance.
type Token struct {
	Trustpoint string
	Cert       *x509.Certificate
	Identity   *pki.Identity // nil: the key is lost, so phones know the token and it signs no more
	Made       bool          // now: no phone knows it yet
	Former     bool          // Renew has replaced it, and phones may know no other
}

// TokenSet are the tokens and the internal identity of a ctl-file instance.
type TokenSet struct {
	Internal *pki.Identity
	SASTs    []Token
	Lost     []error // why tokens cannot sign, or be listed, any more
}

// Tokens returns the internal identity and the n tokens of a ctl-file instance,
// from store, and the former ones. Those that do not exist are made, which is
// what "no shutdown" does the first time; one that exists is never replaced, for
// phones that hold a CTL file would refuse every later one. A token whose file or
// key is damaged or lost is passed over as long as another can sign. domain ends
// the internal certificate's FQDN, if it is not "". Making a key takes time:
// seconds on a small machine.
func Tokens(store *pki.Store, ctlFile string, n int, domain string, now time.Time) (*TokenSet, error) {
	if n < 1 || n > MaxSASTs {
		return nil, fmt.Errorf("ctl: ctl-file %q: %d tokens, want 1 to %d", ctlFile, n, MaxSASTs)
	}
	name := InternalName(ctlFile)
	fqdn := ""
	if domain != "" {
		fqdn = name + "." + domain
	}
	t := &TokenSet{}
	var err error
	if t.Internal, _, err = identity(store, name, fqdn, now); err != nil {
		return nil, fmt.Errorf("ctl: ctl-file %q: %w", ctlFile, err)
	}
	signers := 0
	add := func(x Token, err error) {
		if err != nil {
			t.Lost = append(t.Lost, fmt.Errorf("ctl: ctl-file %q: token %s: %w", ctlFile, x.Trustpoint, err))
		}
		if x.Identity != nil {
			signers++
		}
		if x.Cert != nil {
			t.SASTs = append(t.SASTs, x)
		}
	}
	for i := range n {
		x := Token{Trustpoint: SASTName(ctlFile, i)}
		x.Identity, x.Made, err = identity(store, x.Trustpoint, "", now)
		if err == nil {
			x.Cert = x.Identity.Cert
		} else if tp, found := store.Trustpoint(x.Trustpoint); found == nil {
			x.Cert = tp.Identity
		}
		add(x, err)
	}
	for i := range MaxSASTs {
		x := Token{Trustpoint: SASTName(ctlFile, i) + formerSuffix, Former: true}
		tp, err := store.Trustpoint(x.Trustpoint)
		if errors.Is(err, pki.ErrNotFound) {
			continue
		}
		x.Cert = tp.Identity
		if err == nil {
			x.Identity, err = store.Identity(x.Trustpoint)
		}
		add(x, err)
	}
	if signers == 0 {
		return nil, errors.Join(t.Lost...)
	}
	if over := len(t.SASTs) - MaxSASTs; over > 0 {
		return nil, fmt.Errorf("ctl: ctl-file %q: %d tokens with the former ones, over %d: remove the former ones when every phone has fetched the list", ctlFile, len(t.SASTs), MaxSASTs)
	}
	return t, nil
}

// Certs returns the tokens' certificates.
func (t *TokenSet) Certs() []*x509.Certificate {
	var certs []*x509.Certificate
	for _, x := range t.SASTs {
		certs = append(certs, x.Cert)
	}
	return certs
}

// Signer returns the token to sign with so that phones follow: a former one, which
// phones know that have missed the renewal; else one of before, the CTL file that
// was served last, or nil; else one that was not made just now; of several the one
// that is the longest known. follow reports whether phones that hold before take
// what it signs.
func (t *TokenSet) Signer(before *File) (id *pki.Identity, follow bool) {
	best := -1
	for _, x := range t.SASTs {
		if x.Identity == nil {
			continue
		}
		known := before == nil || before.lists(x.Cert)
		worth := 0
		if known {
			worth += 4
		}
		if x.Former {
			worth += 2
		}
		if !x.Made {
			worth++
		}
		if worth > best || worth == best && x.Cert.NotBefore.Before(id.Cert.NotBefore) {
			id, follow, best = x.Identity, known, worth
		}
	}
	return id, follow
}

// lists reports whether cert is one of the file's tokens.
func (f *File) lists(cert *x509.Certificate) bool {
	for i := range f.Records {
		if r := &f.Records[i]; r.Role == SAST && bytes.Equal(r.DER, cert.Raw) {
			return true
		}
	}
	return false
}

// Renew replaces token n of a ctl-file instance by a new one. The old one becomes
// a former token, which Tokens still returns: phones take the next CTL file as it
// signs that, and learn the new token from it. Forget ends that. The instance has
// sasts tokens beside the former ones.
func Renew(store *pki.Store, ctlFile string, n, sasts int, now time.Time) error {
	if n < 0 || n >= sasts {
		return fmt.Errorf("ctl: ctl-file %q: there is no token %d: it has 0 to %d", ctlFile, n, sasts-1)
	}
	name, former := SASTName(ctlFile, n), 0
	for i := range MaxSASTs {
		if _, err := store.Trustpoint(SASTName(ctlFile, i) + formerSuffix); i != n && !errors.Is(err, pki.ErrNotFound) {
			former++
		}
	}
	if sasts+former+1 > MaxSASTs {
		return fmt.Errorf("ctl: ctl-file %q: renewing token %d: with the old one there would be %d tokens, over %d; lower \"sast\" or forget former tokens first",
			ctlFile, n, sasts+former+1, MaxSASTs)
	}
	if err := store.RenameTrustpoint(name, name+formerSuffix); err != nil {
		return fmt.Errorf("ctl: ctl-file %q: renewing token %d: %w", ctlFile, n, err)
	}
	if _, _, err := identity(store, name, "", now); err != nil {
		return fmt.Errorf("ctl: ctl-file %q: renewing token %d: %w", ctlFile, n, err)
	}
	return nil
}

// Forget removes the former tokens of a ctl-file instance with their keys, and
// returns their names. Phones that know no other must have their CTL file erased
// by hand.
func Forget(store *pki.Store, ctlFile string) ([]string, error) {
	var names []string
	for i := range MaxSASTs {
		name := SASTName(ctlFile, i) + formerSuffix
		tp, err := store.Trustpoint(name)
		if errors.Is(err, pki.ErrNotFound) {
			continue
		}
		if err == nil {
			err = store.RemoveTrustpoint(name)
		}
		if err == nil && tp.KeyPair != "" {
			err = store.RemoveKey(tp.KeyPair)
		}
		if err != nil && !errors.Is(err, pki.ErrNotFound) {
			return names, fmt.Errorf("ctl: ctl-file %q: forgetting a token: %w", ctlFile, err)
		}
		names = append(names, name)
	}
	return names, nil
}

func identity(store *pki.Store, name, fqdn string, now time.Time) (id *pki.Identity, made bool, err error) {
	id, found := store.Identity(name)
	if found == nil {
		return id, false, nil
	}
	if !errors.Is(found, pki.ErrNotFound) {
		return nil, false, found
	}
	id, err = store.Enroll(pki.EnrollRequest{Name: name, Subject: "CN=" + name, FQDN: fqdn, KeyPair: freeLabel(store, name), Bits: tokenBits, Now: now})
	if errors.Is(err, pki.ErrExists) { // the certificate is there and its key is not
		return nil, false, found
	}
	return id, err == nil, err
}

// freeLabel returns a label for the key pair of a token: its name, unless a
// former token has that.
func freeLabel(store *pki.Store, name string) string {
	former, err := store.Trustpoint(name + formerSuffix)
	if err != nil || former.KeyPair != name {
		return name
	}
	return name + "_2"
}
