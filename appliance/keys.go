package appliance

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/ctl"
	"patchbay/appliance/pki"
)

// makeKeys brings the store to what r says: key pairs and self-signed
// identities that are not there yet are made, CA certificates in the text are
// installed. What is there stays: phones trust it.
func makeKeys(store *pki.Store, r *config.Running, now time.Time, log *slog.Logger) error {
	for _, k := range r.KeyPairs {
		switch err := store.GenerateRSA(k.Label, k.Modulus); {
		case err == nil:
			log.Info("key pair made", "label", k.Label, "bits", k.Modulus)
		case !errors.Is(err, pki.ErrExists):
			return fmt.Errorf("appliance: %s:%d: key pair %s: %w", r.File, k.Line, k.Label, err)
		}
	}
	for i := range r.Trustpoints {
		tp := &r.Trustpoints[i]
		for _, der := range tp.CACertificates {
			if _, err := store.Authenticate(tp.Name, der); err != nil && !errors.Is(err, pki.ErrExists) {
				return fmt.Errorf("appliance: %s:%d: CA certificate of trustpoint %s: %w", r.File, tp.Line, tp.Name, err)
			}
		}
		if tp.Certificate != nil {
			if _, err := store.Identity(tp.Name); errors.Is(err, pki.ErrNotFound) {
				log.Warn("certificate without its private key: import the trustpoint's PKCS #12 export", "trustpoint", tp.Name)
			}
		}
		if tp.Enrollment != "self" || !r.Enrolled(tp.Name) {
			continue
		}
		if err := enroll(store, r, tp, now); err != nil {
			return err
		}
	}
	return nil
}

func enroll(store *pki.Store, r *config.Running, tp *config.Trustpoint, now time.Time) error {
	if _, err := store.Enroll(enrollRequest(r, tp, now)); err != nil && !errors.Is(err, pki.ErrExists) {
		return fmt.Errorf("appliance: %s:%d: enrolling trustpoint %s: %w", r.File, tp.Line, tp.Name, err)
	}
	return nil
}

// enrollRequest returns what tp says of its identity certificate.
func enrollRequest(r *config.Running, tp *config.Trustpoint, now time.Time) pki.EnrollRequest {
	req := pki.EnrollRequest{Name: tp.Name, Subject: tp.Subject, FQDN: tp.FQDN, KeyPair: tp.KeyPair, IP: tp.IP, Now: now}
	if req.FQDN == "" && !tp.NoFQDN && r.Hostname != "" {
		req.FQDN = r.Hostname // the ASA's default
		if r.Domain != "" {
			req.FQDN += "." + r.Domain
		}
	}
	if tp.SerialNumber {
		req.Serial = r.Name() // an ASA has a number on its label; the name of a box is as unique to its owner
	}
	return req
}

// recordCertificate returns what a record shows of its trustpoint: the box's
// identity, or the call manager's real CAPF certificate.
func recordCertificate(store *pki.Store, rec config.Record, role ctl.Role) (*x509.Certificate, error) {
	tp, err := store.Trustpoint(rec.Trustpoint)
	if err != nil {
		return nil, fmt.Errorf("trustpoint %s has no certificate: %w", rec.Trustpoint, err)
	}
	switch {
	case role == ctl.CAPF && tp.CA != nil:
		return tp.CA, nil
	case role == ctl.CAPF:
		return nil, fmt.Errorf("trustpoint %s has no CA certificate: import the call manager's CAPF certificate", rec.Trustpoint)
	case tp.Identity == nil:
		return nil, fmt.Errorf("trustpoint %s has no identity certificate: import its PKCS #12 export, or add \"crypto ca enroll %s\"", rec.Trustpoint, rec.Trustpoint)
	}
	return tp.Identity, nil
}
