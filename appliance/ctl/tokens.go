package ctl

import (
	"errors"
	"fmt"
	"time"

	"patchbay/appliance/pki"
)

const (
	internalPrefix = "_internal_PP_"
	tokenBits      = 2048 // the most that older phones take (reference/ctl-file.md, section 6)
)

// InternalName returns the trustpoint whose certificate the box shows to phones
// and signs their files with, for a ctl-file instance of that name.
func InternalName(ctlFile string) string { return internalPrefix + ctlFile }

// SASTName returns the trustpoint of token n, counted from 0.
func SASTName(ctlFile string, n int) string {
	return fmt.Sprintf("%s%s_SAST_%d", internalPrefix, ctlFile, n)
}

// Tokens returns the internal identity and the n tokens of a ctl-file instance,
// from store. Those that do not exist are made, which is what "no shutdown" does
// the first time; one that exists is never replaced, for phones that hold a CTL
// file would refuse every later one. domain ends the internal certificate's FQDN,
// if it is not "". Making a key takes time: seconds on a small machine.
func Tokens(store *pki.Store, ctlFile string, n int, domain string, now time.Time) (internal *pki.Identity, sasts []*pki.Identity, err error) {
	if n < 1 || n > MaxSASTs {
		return nil, nil, fmt.Errorf("ctl: ctl-file %q: %d tokens, want 1 to %d", ctlFile, n, MaxSASTs)
	}
	name := InternalName(ctlFile)
	fqdn := ""
	if domain != "" {
		fqdn = name + "." + domain
	}
	if internal, err = identity(store, name, fqdn, now); err != nil {
		return nil, nil, fmt.Errorf("ctl: ctl-file %q: %w", ctlFile, err)
	}
	for i := range n {
		id, err := identity(store, SASTName(ctlFile, i), "", now)
		if err != nil {
			return nil, nil, fmt.Errorf("ctl: ctl-file %q: %w", ctlFile, err)
		}
		sasts = append(sasts, id)
	}
	return internal, sasts, nil
}

func identity(store *pki.Store, name, fqdn string, now time.Time) (*pki.Identity, error) {
	id, found := store.Identity(name)
	if found == nil {
		return id, nil
	}
	if !errors.Is(found, pki.ErrNotFound) {
		return nil, found
	}
	id, err := store.Enroll(pki.EnrollRequest{Name: name, Subject: "CN=" + name, FQDN: fqdn, Bits: tokenBits, Now: now})
	if errors.Is(err, pki.ErrExists) { // the certificate is there and its key is not
		return nil, found
	}
	return id, err
}
