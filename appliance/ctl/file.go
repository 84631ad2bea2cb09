// Package ctl reads, writes and signs CTL files, the lists of whom a phone
// trusts, and the header that turns any file into a signed one.
//
// What a reader would get wrong: header and records share the encoding and not
// the tags (5 is a serial number in one and an issuer in the other); and a phone
// that holds a CTL file takes a new one only from a key that the old one lists, so
// tokens are made once and never again.
package ctl

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"patchbay/appliance/pki"
)

const (
	// FileName is the name inside every CTL file, whatever name it is
	// fetched by.
	FileName = "CTLFile.tlv"
	// MaxSize is the largest CTL file that is read or built. What phones
	// take is not known; real files are below 20 KB.
	MaxSize = 128 << 10 // bytes
	// MaxRecords is the largest number of records of a file, tokens included.
	MaxRecords = 100
	// MaxSASTs is the largest number of tokens (reference/asa-cli.md, 8.1).
	MaxSASTs = 5
)

var fileVersion = [2]byte{1, 2}

// A File is a CTL or ITL file. It does not change once parsed.
type File struct {
	Header  Header
	Records []Record

	data []byte
}

// Parse reads a CTL or ITL file. It checks the form and nothing else: see Verify.
// data is copied.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("ctl: file of %d bytes, over %d", len(data), MaxSize)
	}
	f := &File{data: bytes.Clone(data)}
	var err error
	if f.Header, err = parseHeader(f.data); err != nil {
		return nil, fmt.Errorf("ctl: %w", err)
	}
	for rest := f.data[f.Header.Length:]; len(rest) > 0; {
		n := len(f.Records) + 1
		if n > MaxRecords {
			return nil, fmt.Errorf("ctl: over %d records", MaxRecords)
		}
		var r Record
		if r, rest, err = parseRecord(rest); err != nil {
			return nil, fmt.Errorf("ctl: record %d: %w", n, err)
		}
		f.Records = append(f.Records, r)
	}
	return f, nil
}

// Bytes returns the file as it was parsed. It must not be changed.
func (f *File) Bytes() []byte { return f.data }

// Verify reports whether the file is consistent, which is what a phone without a
// CTL file asks of its first one: a SAST record of its own has the signer's serial
// number, and its key verifies the signature. (reference/ctl-file.md, section 5.)
func (f *File) Verify() error { return f.VerifyBy(f) }

// VerifyBy reports whether a phone that holds installed would take f: a SAST
// record of installed must verify it.
func (f *File) VerifyBy(installed *File) error {
	return f.Header.verifyByRecords(f.data, installed.Records, SAST)
}

// verifyByRecords looks for a record of one of the roles that has the signer's
// serial number and verifies the signature.
func (h *Header) verifyByRecords(file []byte, records []Record, roles ...Role) error {
	err := errors.New("no record has that serial number in the role that signs")
	for i := range records {
		r := &records[i]
		for _, role := range roles {
			if r.Role != role || !sameSerial(r.Serial, h.Serial) {
				continue
			}
			var key *rsa.PublicKey
			if key, err = r.key(); err != nil {
				err = fmt.Errorf("record %d: %w", i+1, err)
			} else if err = h.verify(key, file); err == nil {
				return nil
			}
		}
	}
	return fmt.Errorf("ctl: verifying %s: signer %s, serial %s: %w", printable(h.FileName), printable(h.SignerName), octets(h.Serial), err)
}

// Trusts reports whether phones with this file accept cert in one of the roles:
// CCM or CCMTFTP for the certificate of a TLS server, TFTP or CCMTFTP for the one
// that signs files. (reference/ctl-file.md, section 6.)
func (f *File) Trusts(cert *x509.Certificate, roles ...Role) bool {
	for i := range f.Records {
		if f.Records[i].is(cert, roles) {
			return true
		}
	}
	return false
}

// Params say what Build makes.
type Params struct {
	SASTs    []*x509.Certificate // the tokens' certificates, 1 to MaxSASTs; they come first
	Records  []Record            // all others, in this order
	Signer   *pki.Identity       // one of the tokens, with its key
	FileName string              // "" for CTLFile.tlv
	Time     time.Time           // of signing
	Digest   Digest              // 0 for SHA1; SHA512 for newer phones only
}

// Build makes a CTL file and signs it. The same parameters give the same bytes.
func Build(p Params) ([]byte, error) {
	data, err := p.build()
	if err != nil {
		return nil, fmt.Errorf("ctl: building: %w", err)
	}
	// A phone that takes a bad file must be reset by hand, so look first.
	f, err := Parse(data)
	if err == nil {
		err = f.Verify()
	}
	if err != nil {
		return nil, fmt.Errorf("ctl: building: result: %w", err)
	}
	return data, nil
}

func (p *Params) build() ([]byte, error) {
	if n := len(p.SASTs); n < 1 || n > MaxSASTs {
		return nil, fmt.Errorf("%d tokens, want 1 to %d", n, MaxSASTs)
	}
	if p.FileName == "" {
		p.FileName = FileName
	}
	if p.Digest == SHA256 {
		return nil, errors.New("SHA-256: no phone verifies it")
	}
	h, err := newHeader(fileVersion, p.Signer, p.FileName, p.Time, p.Digest)
	if err != nil {
		return nil, err
	}
	var body []byte
	signer := false
	for _, cert := range p.SASTs {
		r, err := NewRecord(SAST, cert, "", netip.Addr{})
		if err != nil {
			return nil, err
		}
		signer = signer || cert.Equal(p.Signer.Cert)
		body = r.appendTo(body)
	}
	if !signer {
		return nil, fmt.Errorf("signer %v is not one of the tokens", p.Signer)
	}
	if n := len(p.SASTs) + len(p.Records); n > MaxRecords {
		return nil, fmt.Errorf("%d records, over %d", n, MaxRecords)
	}
	capf := 0
	for i := range p.Records {
		r := &p.Records[i]
		switch r.Role {
		case SAST:
			return nil, fmt.Errorf("record %s: a token that is not ours", printable(r.SubjectName))
		case CAPF:
			capf++
		}
		body = r.appendTo(body)
	}
	if capf > 1 {
		return nil, fmt.Errorf("%d CAPF records, want at most one", capf)
	}
	data, err := h.appendSigned(nil, p.Signer.Key, body)
	if err == nil && len(data) > MaxSize {
		err = fmt.Errorf("file of %d bytes, over %d", len(data), MaxSize)
	}
	return data, err
}
