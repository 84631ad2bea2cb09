package ctl

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// Record tags; not the header's. (reference/ctl-file.md, section 3.)
const (
	tagRecordLength  = 1
	tagDNSName       = 2
	tagSubject       = 3
	tagRole          = 4
	tagIssuer        = 5
	tagSerial        = 6
	tagPublicKey     = 7
	tagCertSignature = 8
	tagCertificate   = 9
	tagIPAddress     = 10
	tagCertHash      = 11
	tagHashAlgorithm = 12
)

const (
	recordHead = 5   // bytes of the record length element, which counts itself
	maxDNSName = 255 // bytes (RFC 1035, section 2.3.4)
)

// A Role says what a record's certificate may do.
type Role uint16

// The roles. (reference/ctl-file.md, section 3, "Function values".)
const (
	SAST      Role = 0 // signs the CTL file
	CCM       Role = 1 // signaling over TLS
	CCMTFTP   Role = 2 // both
	TFTP      Role = 3 // signs files
	CAPF      Role = 4 // issues phone certificates on port 3804
	AppServer Role = 7
	TVS       Role = 21 // ITL files only
)

// String returns the name that "show ctl" prints.
func (r Role) String() string {
	switch r {
	case SAST:
		return "System Administrator Security Token"
	case CCM:
		return "CCM"
	case CCMTFTP:
		return "CCM+TFTP"
	case TFTP:
		return "TFTP"
	case CAPF:
		return "CAPF"
	case AppServer:
		return "APP-SERVER"
	case TVS:
		return "TVS"
	}
	return fmt.Sprintf("role %d", uint16(r))
}

// RoleOf returns the role of a keyword of "record-entry": cucm, cucm-tftp, tftp
// or capf.
func RoleOf(keyword string) (Role, error) {
	switch keyword {
	case "cucm":
		return CCM, nil
	case "cucm-tftp":
		return CCMTFTP, nil
	case "tftp":
		return TFTP, nil
	case "capf":
		return CAPF, nil
	}
	return 0, fmt.Errorf("ctl: record-entry %q: not capf, cucm, cucm-tftp or tftp", keyword)
}

// A Record is one certificate that phones trust, and in which role. Its slices
// are not to be changed.
//
//	01 length | 02 DNS name | 03 subject | 04 role | 05 issuer | 06 serial
//	07 public key | 08 certificate's signature | 09 certificate | 10 IP address
type Record struct {
	Role        Role
	DNSName     string // may be ""
	SubjectName string // as Cisco writes it: CN;OU;O;L;ST;C
	IssuerName  string
	Serial      []byte     // magnitude only
	PublicKey   []byte     // RSAPublicKey (PKCS #1), or an EC point
	Signature   []byte     // of the certificate; nil where absent, as in tokens
	DER         []byte     // the certificate; nil where absent
	IP          netip.Addr // as the phones know the host; invalid where absent

	// Hash and HashAlgorithm are of the certificate, in files where they
	// stand for it. We do not write them.
	Hash          []byte
	HashAlgorithm Digest

	length int // bytes in the file it was parsed from
}

// NewRecord makes a record of a certificate. dns may be "", and ip invalid.
func NewRecord(role Role, cert *x509.Certificate, dns string, ip netip.Addr) (Record, error) {
	r := Record{Role: role, DNSName: dns, Serial: serialBytes(cert), Signature: cert.Signature, DER: cert.Raw, IP: ip.Unmap()}
	err := checkString(dns, maxDNSName)
	if err != nil {
		err = fmt.Errorf("DNS name: %w", err)
	}
	if err == nil {
		r.SubjectName, err = nameString(cert.Subject)
	}
	if err == nil {
		r.IssuerName, err = nameString(cert.Issuer)
	}
	if err == nil {
		r.PublicKey, err = rawKey(cert)
	}
	if n := len(r.appendTo(nil)); err == nil && n > math.MaxUint16 {
		err = fmt.Errorf("%d bytes, over %d", n, math.MaxUint16)
	}
	if err != nil {
		return Record{}, fmt.Errorf("ctl: %v record: %w", role, err)
	}
	return r, nil
}

// rawKey returns what SubjectPublicKeyInfo wraps: for RSA that is RSAPublicKey,
// for an EC key the point.
func rawKey(cert *x509.Certificate) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &info); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("public key: %w", errOr(err, "trailing bytes"))
	}
	return info.Key.RightAlign(), nil
}

// appendTo appends the record in Cisco's order of elements.
func (r *Record) appendTo(dst []byte) []byte {
	start := len(dst)
	dst = appendUint16(dst, tagRecordLength, 0) // filled in below
	dst = appendString(dst, tagDNSName, r.DNSName)
	dst = appendString(dst, tagSubject, r.SubjectName)
	dst = appendUint16(dst, tagRole, uint16(r.Role))
	dst = appendString(dst, tagIssuer, r.IssuerName)
	dst = appendElement(dst, tagSerial, r.Serial...)
	dst = appendElement(dst, tagPublicKey, r.PublicKey...)
	if r.Signature != nil {
		dst = appendElement(dst, tagCertSignature, r.Signature...)
	}
	if r.DER != nil {
		dst = appendElement(dst, tagCertificate, r.DER...)
	}
	if r.IP.IsValid() {
		dst = appendElement(dst, tagIPAddress, r.IP.AsSlice()...)
	}
	if r.Hash != nil {
		dst = appendElement(dst, tagCertHash, r.Hash...)
		dst = appendElement(dst, tagHashAlgorithm, byte(r.HashAlgorithm))
	}
	binary.BigEndian.PutUint16(dst[start+elementHead:], uint16(len(dst)-start))
	return dst
}

// parseRecord cuts the record at the front of b. Its slices are of b.
func parseRecord(b []byte) (r Record, rest []byte, err error) {
	if len(b) < recordHead || b[0] != tagRecordLength || binary.BigEndian.Uint16(b[1:]) != 2 {
		return r, nil, errors.New("does not begin with its length")
	}
	n := uint64(binary.BigEndian.Uint16(b[elementHead:]))
	if n < recordHead || n > uint64(len(b)) {
		return r, nil, fmt.Errorf("length %d where %d bytes are left", n, len(b))
	}
	r.length = int(n)
	b, rest = b[recordHead:r.length], b[r.length:]
	seen := tagSet{1 << tagRecordLength}
	for len(b) > 0 {
		tag, v, after, err := nextElement(b)
		if err == nil {
			err = seen.add(tag)
		}
		if err != nil {
			return r, nil, err
		}
		switch tag {
		case tagDNSName:
			r.DNSName, err = textValue(v)
		case tagSubject:
			r.SubjectName, err = textValue(v)
		case tagRole:
			if err = fixed(v, 2); err == nil {
				r.Role = Role(binary.BigEndian.Uint16(v))
			}
		case tagIssuer:
			r.IssuerName, err = textValue(v)
		case tagSerial:
			r.Serial = v
		case tagPublicKey:
			r.PublicKey = v
		case tagCertSignature:
			r.Signature = v
		case tagCertificate:
			r.DER = v
		case tagIPAddress:
			var ok bool
			if r.IP, ok = netip.AddrFromSlice(v); !ok {
				err = fmt.Errorf("address of %d bytes", len(v))
			}
		case tagCertHash:
			r.Hash = v
		case tagHashAlgorithm:
			if err = fixed(v, 1); err == nil {
				r.HashAlgorithm = Digest(v[0])
			}
		}
		if err != nil {
			return r, nil, fmt.Errorf("tag %d: %w", tag, err)
		}
		b = after
	}
	if !seen.has(tagRole) {
		return r, nil, errors.New("no role") // the zero Role is the most powerful
	}
	return r, rest, nil
}

// Certificate parses the record's certificate.
func (r *Record) Certificate() (*x509.Certificate, error) {
	if r.DER == nil {
		return nil, fmt.Errorf("ctl: %v record %s: no certificate", r.Role, printable(r.SubjectName))
	}
	cert, err := x509.ParseCertificate(r.DER)
	if err != nil {
		return nil, fmt.Errorf("ctl: %v record %s: %w", r.Role, printable(r.SubjectName), err)
	}
	return cert, nil
}

// key returns the record's RSA key, which must be its certificate's where it has
// both.
func (r *Record) key() (*rsa.PublicKey, error) {
	var key *rsa.PublicKey
	if r.DER != nil {
		cert, err := x509.ParseCertificate(r.DER)
		if err != nil {
			return nil, err
		}
		var ok bool
		if key, ok = cert.PublicKey.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("key is %v, not RSA", cert.PublicKeyAlgorithm)
		}
	}
	if r.PublicKey != nil {
		k, err := x509.ParsePKCS1PublicKey(r.PublicKey)
		if err != nil {
			return nil, err
		}
		if key != nil && !key.Equal(k) {
			return nil, errors.New("public key is not the certificate's")
		}
		key = k
	}
	if key == nil {
		return nil, errors.New("neither certificate nor public key")
	}
	return key, nil
}

// is reports whether the record is of cert in one of the roles.
func (r *Record) is(cert *x509.Certificate, roles []Role) bool {
	for _, role := range roles {
		if r.Role == role && bytes.Equal(r.DER, cert.Raw) {
			return true
		}
	}
	return false
}
