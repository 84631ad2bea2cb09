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
	req := pki.EnrollRequest{Name: tp.Name, Subject: tp.Subject, FQDN: tp.FQDN, KeyPair: tp.KeyPair, Now: now}
	if req.FQDN == "" && !tp.NoFQDN && r.Hostname != "" {
		req.FQDN = r.Hostname // the ASA's default
		if r.Domain != "" {
			req.FQDN += "." + r.Domain
		}
	}
	if _, err := store.Enroll(req); err != nil && !errors.Is(err, pki.ErrExists) {
		return fmt.Errorf("appliance: %s:%d: enrolling trustpoint %s: %w", r.File, tp.Line, tp.Name, err)
	}
	return nil
}

// A trustList is the CTL file as it is served, and what signs other files.
type trustList struct {
	file     []byte
	internal *pki.Identity
}

// buildCTL makes the CTL file of c: its tokens and the internal trustpoint from
// the store, made on the first "no shutdown" and kept for ever after, and its
// records.
func buildCTL(store *pki.Store, r *config.Running, c *config.CTLFile, now time.Time) (*trustList, error) {
	where := fmt.Sprintf("appliance: %s:%d: ctl-file %s", r.File, c.Line, c.Name)
	internal, sasts, err := ctl.Tokens(store, c.Name, c.SAST, r.Domain, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	var entries []ctl.Entry
	for _, rec := range c.Records {
		role, err := ctl.RoleOf(rec.Role)
		if err != nil {
			return nil, fmt.Errorf("appliance: %s:%d: record-entry: %w", r.File, rec.Line, err)
		}
		cert, err := recordCertificate(store, rec, role)
		if err != nil {
			return nil, fmt.Errorf("appliance: %s:%d: record-entry %s: %w", r.File, rec.Line, rec.Role, err)
		}
		domain := rec.Domain
		if domain == "" {
			domain = r.Domain
		}
		entries = append(entries, ctl.Entry{Role: role, Cert: cert, Addr: rec.Addr, Domain: domain})
	}
	records, err := ctl.Assemble(entries, nil, internal)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	p := ctl.Params{Records: records, Signer: sasts[0], Time: now}
	for _, s := range sasts {
		p.SASTs = append(p.SASTs, s.Cert)
	}
	file, err := ctl.Build(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return &trustList{file, internal}, nil
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
		return nil, fmt.Errorf("trustpoint %s is not enrolled: add \"crypto ca enroll %s\"", rec.Trustpoint, rec.Trustpoint)
	}
	return tp.Identity, nil
}
