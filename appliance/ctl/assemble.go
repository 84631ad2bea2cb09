package ctl

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"

	"patchbay/appliance/pki"
)

// An Entry is one "record-entry" of a ctl-file instance.
type Entry struct {
	Role Role
	// Cert is the identity certificate of the entry's trustpoint; for CAPF
	// the CA certificate, which is the call manager's real one.
	Cert   *x509.Certificate
	Addr   netip.Addr // global: as the phones know the host
	Host   string     // its name, where the address is not known yet: such a record has none
	Domain string     // the entry's domain-name, or ""
}

// DNSName returns the host name of a record: the certificate's FQDN, or else its
// common name with domain behind it. (reference/ctl-file.md, section 6.)
func DNSName(cert *x509.Certificate, domain string) string {
	switch cn := cert.Subject.CommonName; {
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	case cn == "" || domain == "":
		return cn
	default:
		return cn + "." + domain
	}
}

// Assemble returns the records of a CTL file, tokens excluded: first, for every
// distinct address where a call manager or TFTP server is, the internal
// certificate as CCM+TFTP; then the entries as they are configured; then those of
// cluster, an existing CTL file whose hosts the phones know by the same addresses,
// or nil.
//
// So the certificate that signs files is always in a record that may, and the TLS
// server's is in a record that may whether it is the internal one or an entry's.
// The internal record comes first at its address because a phone that should look
// up a host and take the first record must find the signer of its files. Which
// order the ASA has is not known. (reference/ctl-file.md, section 6; asa-cli.md,
// sections 8.1 and 12.)
func Assemble(entries []Entry, cluster *File, internal *pki.Identity) ([]Record, error) {
	var given []Record
	for i, e := range entries {
		r, err := e.record()
		if err != nil {
			return nil, fmt.Errorf("ctl: record-entry %d: %w", i+1, err)
		}
		given = append(given, r)
	}
	if cluster != nil {
		for _, r := range cluster.Records {
			if r.Role != SAST { // its tokens sign for another
				given = append(given, r)
			}
		}
	}
	var records []Record
	host := make(map[string]bool)
	for i := range given {
		r, domain := &given[i], ""
		if i < len(entries) {
			domain = entries[i].Domain
		}
		if r.Role != CCM && r.Role != CCMTFTP && r.Role != TFTP {
			continue
		}
		where, dns := r.IP.String(), DNSName(internal.Cert, domain)
		switch {
		case r.IP.IsValid():
		case i < len(entries): // not resolved yet
			where = entries[i].Host
		default: // in a cluster's file
			where, dns = r.DNSName, r.DNSName
		}
		if host[where] {
			continue
		}
		host[where] = true
		in, err := NewRecord(CCMTFTP, internal.Cert, dns, r.IP)
		if err != nil {
			return nil, err
		}
		records = append(records, in)
	}
	if len(records) == 0 {
		return nil, errors.New("ctl: no record-entry of a call manager or TFTP server")
	}
	for _, r := range given {
		if !covered(records, r, internal.Cert) {
			records = append(records, r)
		}
	}
	return records, nil
}

// covered reports whether r says nothing that records, whose internal certificate
// is in the role CCM+TFTP everywhere, do not say already.
func covered(records []Record, r Record, internal *x509.Certificate) bool {
	for i := range records {
		o := &records[i]
		role := o.Role == r.Role || o.Role == CCMTFTP && (r.Role == CCM || r.Role == TFTP)
		if role && bytes.Equal(o.DER, r.DER) && r.DER != nil && o.IP == r.IP &&
			(o.DNSName == r.DNSName || bytes.Equal(r.DER, internal.Raw)) {
			return true
		}
	}
	return false
}

func (e Entry) record() (Record, error) {
	switch {
	case e.Role != CCM && e.Role != CCMTFTP && e.Role != TFTP && e.Role != CAPF:
		return Record{}, fmt.Errorf("role %v", e.Role)
	case e.Cert == nil:
		return Record{}, errors.New("trustpoint has no certificate")
	case !e.Addr.IsValid() && e.Host == "", e.Addr.IsValid() && e.Addr.IsUnspecified():
		return Record{}, fmt.Errorf("address %v", e.Addr)
	}
	return NewRecord(e.Role, e.Cert, DNSName(e.Cert, e.Domain), e.Addr)
}
