package ctl

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1"   // for crypto.SHA1
	_ "crypto/sha256" // for crypto.SHA256
	_ "crypto/sha512" // for crypto.SHA512
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"patchbay/appliance/pki"
)

// Header tags. (reference/ctl-file.md, section 2.)
const (
	tagVersion       = 1
	tagHeaderLength  = 2
	tagSigner        = 3 // container of 4, 5, 6
	tagSignerName    = 4
	tagSignerSerial  = 5
	tagSignerCA      = 6
	tagSignatureInfo = 7 // container of 8, 9
	tagDigest        = 8
	tagAlgorithmInfo = 9 // container of 10, 11
	tagAlgorithm     = 10
	tagModulus       = 11
	tagSignature     = 12
	tagPadding       = 13 // one bare byte
	tagFileName      = 14
	tagTime          = 15
	tagEncryption    = 16 // container, only in encrypted files
	tagSignerVersion = 28
)

const (
	minHeader     = 10   // bytes: version and header length
	maxDN         = 1024 // bytes of a name in the header or in a record
	maxFileName   = 500  // bytes; a TFTP request of 512 holds no longer name
	algorithmRSA  = 0    // PKCS #1 v1.5, the only algorithm
	headerAlign   = 4    // bytes
	maxContainers = 3    // depth; 9 is in 7
)

// A Digest is a hash algorithm by its number in a header.
type Digest uint8

// The digests. Phones of the 7900 series know SHA-1 only, and none uses SHA-256.
const (
	SHA1   Digest = 1
	SHA256 Digest = 2
	SHA512 Digest = 3
)

func (d Digest) hash() (crypto.Hash, error) {
	switch d {
	case SHA1:
		return crypto.SHA1, nil
	case SHA256:
		return crypto.SHA256, nil
	case SHA512:
		return crypto.SHA512, nil
	}
	return 0, fmt.Errorf("digest algorithm %d", uint8(d))
}

// String returns "SHA-1" and so on.
func (d Digest) String() string {
	h, err := d.hash()
	if err != nil {
		return err.Error()
	}
	return h.String()
}

// A Header opens a CTL file and every signed file. It is a multiple of 4 bytes
// long; what follows it (records, or the file as it was) is covered by the
// signature, and so is all of the header but the signature element itself.
// (reference/ctl-file.md, sections 2 and 4.)
//
//	01 version | 02 header length | 03 { 04 signer, 05 serial, 06 CA }
//	07 { 08 digest, 09 { 10 algorithm, 11 modulus } }
//	12 signature | 14 file name | 15 time | 13 padding, 0 to 3 times
type Header struct {
	Version       [2]byte   // major, minor: 1.2 in a CTL, 1.0 in a .sgn, 1.1 in Cisco's firmware
	Length        int       // bytes, padding included
	SignerVersion [2]byte   // zero where the element is absent, as it is for the 7900 series
	SignerName    string    // subject of the signer's certificate; may be ""
	Serial        []byte    // its serial number, magnitude only
	CAName        string    // its issuer
	Digest        Digest    // of the signature
	Algorithm     uint8     // 0 is RSA
	Modulus       uint8     // code of the signature's size; not to be trusted, nor needed
	Signature     []byte    // PKCS #1 v1.5
	FileName      string    // the name the phone asks for, "" where absent
	Time          time.Time // UTC, whole seconds; zero where absent (firmware)
	Encrypted     bool      // the payload is encrypted; such a file is not for us to make

	sigStart, sigEnd int // offsets of the signature element, from the start of the file
}

// parseHeader reads the header at the front of b. Its Serial and Signature are
// slices of b.
func parseHeader(b []byte) (Header, error) {
	var h Header
	if len(b) < minHeader {
		return h, fmt.Errorf("header: file of %d bytes", len(b))
	}
	if b[0] != tagVersion || b[5] != tagHeaderLength {
		return h, fmt.Errorf("header: begins with tags %d and %d, not 1 and 2", b[0], b[5])
	}
	if n1, n2 := binary.BigEndian.Uint16(b[1:]), binary.BigEndian.Uint16(b[6:]); n1 != 2 || n2 != 2 {
		return h, fmt.Errorf("header: first lengths are %d and %d, not 2 and 2", n1, n2)
	}
	h.Version = [2]byte(b[3:5])
	h.Length = int(binary.BigEndian.Uint16(b[8:]))
	if h.Length < minHeader || h.Length > len(b) {
		return h, fmt.Errorf("header: length %d in a file of %d bytes", h.Length, len(b))
	}
	seen := tagSet{1<<tagVersion | 1<<tagHeaderLength}
	if err := h.parse(b[minHeader:h.Length], minHeader, &seen, 0); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	for _, tag := range []byte{tagSignerSerial, tagDigest, tagSignature} {
		if !seen.has(tag) {
			return h, fmt.Errorf("header: tag %d is missing", tag)
		}
	}
	return h, nil
}

// parse reads elements of the header or of a container in it; off is where b
// stands in the file.
func (h *Header) parse(b []byte, off int, seen *tagSet, depth int) error {
	if depth > maxContainers {
		return errors.New("containers too deep")
	}
	for len(b) > 0 {
		if b[0] == tagPadding {
			b, off = b[1:], off+1
			continue
		}
		tag, v, rest, err := nextElement(b)
		if err != nil {
			return err
		}
		if err := seen.add(tag); err != nil {
			return err
		}
		switch tag {
		case tagSigner, tagSignatureInfo, tagAlgorithmInfo:
			err = h.parse(v, off+elementHead, seen, depth+1)
		case tagSignerVersion:
			if err = fixed(v, 2); err == nil {
				h.SignerVersion = [2]byte(v)
			}
		case tagSignerName:
			h.SignerName, err = textValue(v)
		case tagSignerSerial:
			h.Serial = v
		case tagSignerCA:
			h.CAName, err = textValue(v)
		case tagDigest:
			if err = fixed(v, 1); err == nil {
				h.Digest = Digest(v[0])
			}
		case tagAlgorithm:
			if err = fixed(v, 1); err == nil {
				h.Algorithm = v[0]
			}
		case tagModulus:
			if err = fixed(v, 1); err == nil {
				h.Modulus = v[0]
			}
		case tagSignature:
			h.Signature, h.sigStart, h.sigEnd = v, off, off+elementHead+len(v)
		case tagFileName:
			h.FileName, err = textValue(v)
		case tagTime:
			if err = fixed(v, 4); err == nil {
				h.Time = time.Unix(int64(binary.BigEndian.Uint32(v)), 0).UTC()
			}
		case tagEncryption:
			h.Encrypted = true
		}
		if err != nil {
			return fmt.Errorf("tag %d: %w", tag, err)
		}
		off += len(b) - len(rest)
		b = rest
	}
	return nil
}

// appendTo appends the header in Cisco's order of elements, with its Signature
// if signed is set and without that element otherwise. It sets the Length, and
// the offsets of the signature element for a header at offset 0.
func (h *Header) appendTo(dst []byte, signed bool) []byte {
	start := len(dst)
	dst = appendElement(dst, tagVersion, h.Version[:]...)
	dst = appendUint16(dst, tagHeaderLength, 0) // filled in below
	if h.SignerVersion != [2]byte{} {
		dst = appendElement(dst, tagSignerVersion, h.SignerVersion[:]...)
	}
	var in []byte
	in = appendString(in, tagSignerName, h.SignerName)
	in = appendElement(in, tagSignerSerial, h.Serial...)
	in = appendString(in, tagSignerCA, h.CAName)
	dst = appendElement(dst, tagSigner, in...)

	in = appendElement(in[:0], tagDigest, byte(h.Digest))
	in = appendElement(in, tagAlgorithmInfo, tagAlgorithm, 0, 1, h.Algorithm, tagModulus, 0, 1, h.Modulus)
	dst = appendElement(dst, tagSignatureInfo, in...)

	h.sigStart = len(dst) - start
	h.sigEnd = h.sigStart + elementHead + len(h.Signature)
	absent := h.sigEnd - h.sigStart
	if signed {
		dst = appendElement(dst, tagSignature, h.Signature...)
		absent = 0
	}
	if h.FileName != "" {
		dst = appendString(dst, tagFileName, h.FileName)
	}
	if !h.Time.IsZero() {
		dst = appendElement(dst, tagTime, binary.BigEndian.AppendUint32(nil, uint32(h.Time.Unix()))...)
	}
	for h.Length = len(dst) - start + absent; h.Length%headerAlign != 0; h.Length++ {
		dst = append(dst, tagPadding)
	}
	binary.BigEndian.PutUint16(dst[start+8:], uint16(h.Length))
	return dst
}

// newHeader returns the header of a file that id is to sign.
func newHeader(version [2]byte, id *pki.Identity, fileName string, t time.Time, d Digest) (Header, error) {
	var h Header
	if id == nil || id.Cert == nil {
		return h, errors.New("no signer")
	}
	key, ok := id.Key.Public().(*rsa.PublicKey)
	if !ok || !key.Equal(id.Cert.PublicKey) {
		return h, fmt.Errorf("signer %v: not an RSA key, or not the certificate's", id)
	}
	modulus, err := modulusCode(key.Size())
	if err != nil {
		return h, fmt.Errorf("signer %v: %w", id, err)
	}
	if d == 0 {
		d = SHA1
	}
	if _, err := d.hash(); err != nil {
		return h, err
	}
	if err := checkString(fileName, maxFileName); err != nil || fileName == "" {
		return h, fmt.Errorf("file name %q: %w", fileName, errOr(err, "empty"))
	}
	if s := t.Unix(); s < 0 || s > math.MaxUint32 {
		return h, fmt.Errorf("time %v does not fit 32 bits", t)
	}
	h = Header{
		Version: version, Serial: serialBytes(id.Cert), Digest: d, Algorithm: algorithmRSA, Modulus: modulus,
		Signature: make([]byte, key.Size()), FileName: fileName, Time: t.UTC().Truncate(time.Second),
	}
	if h.SignerName, err = nameString(id.Cert.Subject); err == nil {
		h.CAName, err = nameString(id.Cert.Issuer)
	}
	return h, err
}

// errOr returns err, or if there is none an error of text.
func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

// modulusCode returns tag 11 for a signature of n bytes.
func modulusCode(n int) (uint8, error) {
	for code, size := range []int{64, 128, 256, 512} {
		if n == size {
			return uint8(code), nil
		}
	}
	return 0, fmt.Errorf("RSA key of %d bits: the format has 512, 1024, 2048 and 4096", 8*n)
}

// appendSigned appends h, signed by key, and body. h must be of newHeader.
func (h *Header) appendSigned(dst []byte, key crypto.Signer, body ...[]byte) ([]byte, error) {
	hash, err := h.Digest.hash()
	if err != nil {
		return nil, err
	}
	d := hash.New()
	d.Write(h.appendTo(nil, false))
	for _, b := range body {
		d.Write(b)
	}
	sig, err := key.Sign(nil, d.Sum(nil), hash) // PKCS #1 v1.5 needs no randomness
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if len(sig) != len(h.Signature) {
		return nil, fmt.Errorf("signing: signature of %d bytes, want %d", len(sig), len(h.Signature))
	}
	h.Signature = sig
	dst = h.appendTo(dst, true)
	for _, b := range body {
		dst = append(dst, b...)
	}
	return dst, nil
}

// verify checks the signature of file, which h opens, with key.
func (h *Header) verify(key *rsa.PublicKey, file []byte) error {
	if h.Algorithm != algorithmRSA {
		return fmt.Errorf("signature algorithm %d", h.Algorithm)
	}
	hash, err := h.Digest.hash()
	if err != nil {
		return err
	}
	d := hash.New()
	d.Write(file[:h.sigStart])
	d.Write(file[h.sigEnd:])
	return rsa.VerifyPKCS1v15(key, hash, d.Sum(nil), h.Signature)
}

// serialBytes returns a certificate's serial number as headers and records hold
// it: big-endian, without the sign byte of DER.
func serialBytes(c *x509.Certificate) []byte {
	if b := c.SerialNumber.Bytes(); len(b) > 0 {
		return b
	}
	return []byte{0}
}

func sameSerial(a, b []byte) bool {
	return bytes.Equal(bytes.TrimLeft(a, "\x00"), bytes.TrimLeft(b, "\x00"))
}
