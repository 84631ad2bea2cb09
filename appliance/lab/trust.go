package lab

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1"   // digest 1 of signed files
	_ "crypto/sha512" // digest 3
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Roles of CTL records. (reference/ctl-file.md, section 3.)
const (
	RoleSAST    = 0 // may sign the next CTL file
	RoleCCM     = 1
	RoleCCMTFTP = 2
	RoleTFTP    = 3
	RoleCAPF    = 4
)

const maxTrustFile = 1 << 20 // bytes; a phone takes 550,001 at most

// A CTL is a trust list as a phone reads it. (reference/ctl-file.md.)
type CTL struct {
	Version   [2]byte
	File      string // embedded file name
	Time      time.Time
	Signer    CTLName // of the certificate that signed it
	Records   []CTLRecord
	Bytes     []byte // the whole file
	digest    crypto.Hash
	signature []byte
	signed    []byte // the file without its signature element
}

// A CTLName names a certificate as the file does.
type CTLName struct {
	Subject, Issuer string
	Serial          []byte // magnitude, big-endian
}

// A CTLRecord is one certificate and what it may do.
type CTLRecord struct {
	CTLName
	Role      int
	DNS       string // host name or dotted address; may be empty
	Addr      netip.Addr
	Cert      *x509.Certificate
	PublicKey *rsa.PublicKey
}

var errTruncated = errors.New("truncated")

// A tlv is one element of a header or record.
type tlv struct {
	tag   byte
	value []byte
	start int // offset of the tag
}

// header elements, see reference/ctl-file.md, section 2.
const (
	hdrVersion    = 1
	hdrLength     = 2
	hdrSigner     = 3 // container of 4, 5, 6
	hdrName       = 4
	hdrSerial     = 5
	hdrIssuer     = 6
	hdrSigInfo    = 7 // container of 8 and 9
	hdrDigest     = 8
	hdrSigAlg     = 9 // container of 10, 11
	hdrAlgorithm  = 10
	hdrModulus    = 11
	hdrSignature  = 12
	hdrPad        = 13 // one bare byte
	hdrFile       = 14
	hdrTimestamp  = 15
	recLength     = 1
	recDNS        = 2
	recSubject    = 3
	recRole       = 4
	recIssuer     = 5
	recSerial     = 6
	recPublicKey  = 7
	recCert       = 9
	recAddress    = 10
	digestSHA1    = 1
	digestSHA512  = 3
	algorithmRSA  = 0
	containerSize = 3 // tag and length
)

// element takes the element at off. header says that tag 13 has no length and
// that the containers 3, 7 and 9 are entered instead of skipped.
func element(b []byte, off int, header bool) (e tlv, next int, err error) {
	e = tlv{tag: b[off], start: off}
	if header && e.tag == hdrPad {
		return e, off + 1, nil
	}
	if len(b)-off < containerSize {
		return e, 0, fmt.Errorf("element 0x%02x at %d: %w", e.tag, off, errTruncated)
	}
	n := int(binary.BigEndian.Uint16(b[off+1:]))
	if n > len(b)-off-containerSize {
		return e, 0, fmt.Errorf("element 0x%02x at %d of %d bytes: %w", e.tag, off, n, errTruncated)
	}
	e.value = b[off+containerSize : off+containerSize+n]
	if header && (e.tag == hdrSigner || e.tag == hdrSigInfo || e.tag == hdrSigAlg) {
		return e, off + containerSize, nil
	}
	return e, off + containerSize + n, nil
}

func (e tlv) text() string { return string(bytes.TrimSuffix(e.value, []byte{0})) }

// parseHeader reads the header that begins trust lists and signed files, and
// returns what follows it.
func parseHeader(b []byte) (h *CTL, body []byte, err error) {
	fail := func(err error) (*CTL, []byte, error) {
		return nil, nil, fmt.Errorf("lab: signed header: %w", err)
	}
	if len(b) > maxTrustFile {
		return fail(fmt.Errorf("file of %d bytes", len(b)))
	}
	if len(b) < 10 || b[0] != hdrVersion || binary.BigEndian.Uint16(b[1:]) != 2 ||
		b[5] != hdrLength || binary.BigEndian.Uint16(b[6:]) != 2 {
		return fail(errors.New("does not begin with version and length"))
	}
	end := int(binary.BigEndian.Uint16(b[8:]))
	if end < 10 || end > len(b) {
		return fail(fmt.Errorf("length %d of %d bytes", end, len(b)))
	}
	h = &CTL{Version: [2]byte(b[3:5]), Bytes: b}
	seen := make(map[byte]bool)
	for off := 10; off < end; {
		e, next, err := element(b[:end], off, true)
		if err != nil {
			return fail(err)
		}
		off = next
		if e.tag == hdrPad {
			continue
		}
		if seen[e.tag] {
			return fail(fmt.Errorf("element 0x%02x twice", e.tag))
		}
		seen[e.tag] = true
		switch e.tag {
		case hdrName:
			h.Signer.Subject = e.text()
		case hdrSerial:
			h.Signer.Serial = e.value
		case hdrIssuer:
			h.Signer.Issuer = e.text()
		case hdrDigest:
			switch {
			case len(e.value) != 1:
				return fail(fmt.Errorf("digest of %d bytes", len(e.value)))
			case e.value[0] == digestSHA1:
				h.digest = crypto.SHA1
			case e.value[0] == digestSHA512:
				h.digest = crypto.SHA512
			default:
				return fail(fmt.Errorf("digest %d", e.value[0]))
			}
		case hdrAlgorithm:
			if len(e.value) != 1 || e.value[0] != algorithmRSA {
				return fail(fmt.Errorf("signature algorithm % x", e.value))
			}
		case hdrSignature:
			h.signature = e.value
			h.signed = append(append([]byte{}, b[:e.start]...), b[e.start+containerSize+len(e.value):]...)
		case hdrFile:
			h.File = e.text()
		case hdrTimestamp:
			if len(e.value) == 4 {
				h.Time = time.Unix(int64(binary.BigEndian.Uint32(e.value)), 0).UTC()
			}
		}
	}
	switch {
	case h.signature == nil:
		return fail(errors.New("no signature"))
	case h.digest == 0:
		return fail(errors.New("no digest"))
	case h.Signer.Serial == nil:
		return fail(errors.New("no signer"))
	}
	return h, b[end:], nil
}

// ParseCTL reads a CTL file. It checks the form only; Trust checks signatures.
func ParseCTL(b []byte) (*CTL, error) {
	c, body, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	for n := 1; len(body) > 0; n++ {
		if len(body) < 5 || body[0] != recLength || binary.BigEndian.Uint16(body[1:]) != 2 {
			return nil, fmt.Errorf("lab: ctl record %d: does not begin with its length", n)
		}
		size := int(binary.BigEndian.Uint16(body[3:]))
		if size < 5 || size > len(body) {
			return nil, fmt.Errorf("lab: ctl record %d: %d bytes: %w", n, size, errTruncated)
		}
		r, err := parseRecord(body[:size])
		if err != nil {
			return nil, fmt.Errorf("lab: ctl record %d: %w", n, err)
		}
		c.Records = append(c.Records, r)
		body = body[size:]
	}
	return c, nil
}

func parseRecord(b []byte) (r CTLRecord, err error) {
	r.Role = -1
	for off := 5; off < len(b); {
		e, next, err := element(b, off, false)
		if err != nil {
			return r, err
		}
		off = next
		switch e.tag {
		case recDNS:
			r.DNS = e.text()
		case recSubject:
			r.Subject = e.text()
		case recIssuer:
			r.Issuer = e.text()
		case recSerial:
			r.Serial = e.value
		case recRole:
			if len(e.value) != 2 {
				return r, fmt.Errorf("function of %d bytes", len(e.value))
			}
			r.Role = int(binary.BigEndian.Uint16(e.value))
		case recPublicKey:
			if r.PublicKey, err = x509.ParsePKCS1PublicKey(e.value); err != nil {
				return r, fmt.Errorf("public key: %w", err)
			}
		case recCert:
			if r.Cert, err = x509.ParseCertificate(e.value); err != nil {
				return r, fmt.Errorf("certificate: %w", err)
			}
		case recAddress:
			if a, ok := netip.AddrFromSlice(e.value); ok {
				r.Addr = a
			}
		}
	}
	switch {
	case r.Role < 0:
		return r, errors.New("no function")
	case r.PublicKey == nil:
		return r, errors.New("no public key")
	case r.Cert != nil && !r.PublicKey.Equal(r.Cert.PublicKey):
		return r, errors.New("public key is not the certificate's")
	}
	return r, nil
}

// verify checks the signature of h with key.
func (c *CTL) verify(key *rsa.PublicKey) error {
	d := c.digest.New()
	d.Write(c.signed)
	return rsa.VerifyPKCS1v15(key, c.digest, d.Sum(nil), c.signature)
}

// signer finds the record among those with one of roles that h names as its
// signer and whose key verifies it.
func (c *CTL) signer(h *CTL, roles ...int) (*CTLRecord, error) {
	var last error
	for i := range c.Records {
		r := &c.Records[i]
		for _, role := range roles {
			if r.Role != role || !bytes.Equal(r.Serial, h.Signer.Serial) {
				continue
			}
			if last = h.verify(r.PublicKey); last == nil {
				return r, nil
			}
		}
	}
	if last != nil {
		return nil, fmt.Errorf("signature of %q: %w", h.Signer.Subject, last)
	}
	return nil, fmt.Errorf("signer %q with serial %x is not trusted", h.Signer.Subject, h.Signer.Serial)
}

// A Trust is what a phone has installed. The zero value is a phone that has
// never seen a CTL file.
type Trust struct {
	ctl *CTL
}

// CTL returns the installed list, nil if there is none.
func (t *Trust) CTL() *CTL { return t.ctl }

// Erase forgets the list, as a user does on the phone's security menu.
func (t *Trust) Erase() { t.ctl = nil }

// Install takes a CTL file as a phone does: the first is trusted if one of its
// own SASTs has signed it, a later one only if a SAST of the installed list
// has. On error the installed list stays. (reference/ctl-file.md, section 5.)
func (t *Trust) Install(b []byte) error {
	c, err := ParseCTL(b)
	if err != nil {
		return err
	}
	by := t.ctl
	if by == nil {
		by = c
	}
	if _, err := by.signer(c, RoleSAST); err != nil {
		return fmt.Errorf("lab: ctl file: %w", err)
	}
	t.ctl = c
	return nil
}

// Signs reports whether signed files can be asked for: the list has a TFTP
// server with a certificate.
func (t *Trust) Signs() bool {
	if t.ctl == nil {
		return false
	}
	for _, r := range t.ctl.Records {
		if (r.Role == RoleTFTP || r.Role == RoleCCMTFTP) && r.Cert != nil {
			return true
		}
	}
	return false
}

// Open verifies a signed file that was asked for as name, ".sgn" included, and
// returns its content. (reference/signed-files.md, section 1.)
func (t *Trust) Open(name string, b []byte) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("lab: signed file %q: %w", name, err)
	}
	if t.ctl == nil {
		return fail(errors.New("no CTL file is installed"))
	}
	h, body, err := parseHeader(b)
	if err != nil {
		return fail(err)
	}
	if _, err := t.ctl.signer(h, RoleTFTP, RoleCCMTFTP); err != nil {
		return fail(err)
	}
	if h.File != name {
		return fail(fmt.Errorf("header is for %q", h.File))
	}
	return body, nil
}

// CheckServer says whether the peer of a signaling connection may be the call
// manager: its certificate is, byte for byte, one in the list.
func (t *Trust) CheckServer(cert *x509.Certificate) error {
	if t.ctl == nil {
		return errors.New("lab: server certificate: no CTL file is installed")
	}
	for _, r := range t.ctl.Records {
		if (r.Role == RoleCCM || r.Role == RoleCCMTFTP) && r.Cert != nil && r.Cert.Equal(cert) {
			return nil
		}
	}
	return fmt.Errorf("lab: server certificate %q is not in the CTL file", cert.Subject)
}

// CheckAddress says whether the list knows a server of one of roles under
// addr, by address or name. (reference/ctl-file.md, section 5, item 7.)
func (t *Trust) CheckAddress(addr netip.Addr, roles ...int) error {
	if t.ctl != nil {
		for _, r := range t.ctl.Records {
			for _, role := range roles {
				if r.Role == role && (r.Addr == addr || r.DNS == addr.String()) {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("lab: server %v is not in the CTL file", addr)
}
