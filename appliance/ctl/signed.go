package ctl

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"patchbay/appliance/pki"
)

// MaxPayload is the largest file that is signed or read as a signed one. Phones
// take less: 550,001 bytes of XML on one model. (reference/signed-files.md, 2.)
const MaxPayload = 4 << 20 // bytes

var signedVersion = [2]byte{1, 0}

// A Signed is a file with a header in front: what a phone fetches with ".sgn"
// after the name. (reference/signed-files.md, section 1.)
type Signed struct {
	Header  Header
	Payload []byte // the file as it was, byte for byte; a slice of what was parsed

	data []byte
}

// IsSigned reports whether data begins as a signed file does, ours or Cisco's
// firmware. (reference/signed-files.md, section 3.)
func IsSigned(data []byte) bool {
	return len(data) >= minHeader && string(data[:4]) == "\x01\x00\x02\x01" && string(data[5:8]) == "\x02\x00\x02"
}

// BuildSigned returns payload behind a header signed by id, whose certificate
// must be in the phone's CTL file in the role TFTP or CCMTFTP. name is the name
// the phone asked for, ".sgn" and any directory included. digest is SHA1 if zero.
func BuildSigned(name string, payload []byte, id *pki.Identity, t time.Time, digest Digest) ([]byte, error) {
	return AppendSigned(nil, name, payload, id, t, digest)
}

// AppendSigned appends to dst what BuildSigned returns.
func AppendSigned(dst []byte, name string, payload []byte, id *pki.Identity, t time.Time, digest Digest) ([]byte, error) {
	if len(payload) > MaxPayload {
		return nil, fmt.Errorf("ctl: signing %s: %d bytes, over %d", printable(name), len(payload), MaxPayload)
	}
	h, err := newHeader(signedVersion, id, name, t, digest)
	if err == nil {
		dst, err = h.appendSigned(dst, id.Key, payload)
	}
	if err != nil {
		return nil, fmt.Errorf("ctl: signing %s: %w", printable(name), err)
	}
	return dst, nil
}

// ParseSigned reads the header of a signed file. It checks the form and nothing
// else. The result holds slices of data.
func ParseSigned(data []byte) (*Signed, error) {
	if n := len(data); n > MaxPayload+MaxSize {
		return nil, fmt.Errorf("ctl: signed file of %d bytes, over %d", n, MaxPayload+MaxSize)
	}
	h, err := parseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("ctl: signed file: %w", err)
	}
	return &Signed{h, data[h.Length:], data}, nil
}

// Verify reports whether cert's key signed the file.
func (s *Signed) Verify(cert *x509.Certificate) error {
	err := errors.New("not the signer's serial number")
	if sameSerial(serialBytes(cert), s.Header.Serial) {
		if key, ok := cert.PublicKey.(*rsa.PublicKey); ok {
			err = s.Header.verify(key, s.data)
		} else {
			err = fmt.Errorf("key is %v, not RSA", cert.PublicKeyAlgorithm)
		}
	}
	if err != nil {
		return fmt.Errorf("ctl: verifying %s: certificate %s: %w", printable(s.Header.FileName), pki.Name(cert.RawSubject), err)
	}
	return nil
}

// VerifyBy reports whether a phone with the CTL file f takes the file: a record
// of f in the role TFTP or CCMTFTP must verify it.
func (s *Signed) VerifyBy(f *File) error {
	return s.Header.verifyByRecords(s.data, f.Records, TFTP, CCMTFTP)
}
