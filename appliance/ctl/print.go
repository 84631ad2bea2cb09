package ctl

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxPrinted bounds a name from a file in a print or an error.
const maxPrinted = 256 // bytes

// printable makes a string from a file fit for a terminal and a log.
func printable(s string) string {
	if len(s) > maxPrinted {
		s = s[:maxPrinted] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// octets returns "5C:A1:AB:1E".
func octets(b []byte) string {
	if len(b) > maxPrinted {
		b = b[:maxPrinted]
	}
	return strings.ReplaceAll(fmt.Sprintf("% X", b), " ", ":")
}

// Format prints the file in the manner of the call manager's "show ctl": each
// element with its tag and length, the sums that phones show for a CTL file, and
// whether the file verifies.
func (f *File) Format(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Length of CTL file: %d\n", len(f.data))
	fmt.Fprintf(&b, "MD5:   %x\nSHA-1: %x\n", md5.Sum(f.data), sha1.Sum(f.data))
	f.Header.print(&b)
	for i := range f.Records {
		fmt.Fprintf(&b, "\nCTL Record #:%d\n", i+1)
		f.Records[i].print(&b)
		if r := &f.Records[i]; r.Role == SAST && sameSerial(r.Serial, f.Header.Serial) {
			b.WriteString("This token was used to sign the CTL file.\n")
		}
	}
	if err := f.Verify(); err != nil {
		fmt.Fprintf(&b, "\nThe CTL file was NOT verified: %v\n", err)
	} else {
		b.WriteString("\nThe CTL file was verified successfully.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String returns what Format prints.
func (f *File) String() string {
	var b strings.Builder
	f.Format(&b) // a strings.Builder does not fail
	return b.String()
}

// Format prints the header of a signed file, with the size and the sums of its
// payload.
func (s *Signed) Format(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Length of signed file: %d\n", len(s.data))
	s.Header.print(&b)
	fmt.Fprintf(&b, "\nPayload: %d bytes\nMD5:   %x\nSHA-1: %x\n", len(s.Payload), md5.Sum(s.Payload), sha1.Sum(s.Payload))
	_, err := io.WriteString(w, b.String())
	return err
}

// String returns what Format prints.
func (s *Signed) String() string {
	var b strings.Builder
	s.Format(&b) // a strings.Builder does not fail
	return b.String()
}

// table prints rows of tag, name, length and value in columns.
func table(b *strings.Builder, rows func(row func(tag int, name string, length int, value string))) {
	line := func(tag, name, length, value any) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-4v%-20v%-8v%v", tag, name, length, value), " ") + "\n")
	}
	line("TAG", "NAME", "LENGTH", "VALUE")
	line("---", "----", "------", "-----")
	rows(func(tag int, name string, length int, value string) { line(tag, name, length, value) })
}

func (h *Header) print(b *strings.Builder) {
	fmt.Fprintf(b, "Version: %d.%d\nHeader length: %d\n", h.Version[0], h.Version[1], h.Length)
	if h.Encrypted {
		b.WriteString("Payload is encrypted\n")
	}
	b.WriteByte('\n')
	table(b, func(row func(int, string, int, string)) {
		row(tagSignerName, "SIGNERNAME", len(h.SignerName)+1, printable(h.SignerName))
		row(tagSignerSerial, "SERIALNUMBER", len(h.Serial), octets(h.Serial))
		row(tagSignerCA, "CANAME", len(h.CAName)+1, printable(h.CAName))
		row(tagDigest, "DIGESTALGORITHM", 1, h.Digest.String())
		row(tagAlgorithm, "SIGNATUREALGORITHM", 1, fmt.Sprint(h.Algorithm))
		row(tagModulus, "SIGNATUREMODULUS", 1, fmt.Sprint(h.Modulus))
		row(tagSignature, "SIGNATURE", len(h.Signature), "")
		if h.FileName != "" {
			row(tagFileName, "FILENAME", len(h.FileName)+1, printable(h.FileName))
		}
		if !h.Time.IsZero() {
			row(tagTime, "TIMESTAMP", 4, h.Time.Format(time.UnixDate))
		}
	})
}

func (r *Record) print(b *strings.Builder) {
	table(b, func(row func(int, string, int, string)) {
		row(tagRecordLength, "RECORDLENGTH", 2, fmt.Sprint(r.length))
		row(tagDNSName, "DNSNAME", len(r.DNSName)+1, printable(r.DNSName))
		row(tagSubject, "SUBJECTNAME", len(r.SubjectName)+1, printable(r.SubjectName))
		row(tagRole, "FUNCTION", 2, r.Role.String())
		row(tagIssuer, "ISSUERNAME", len(r.IssuerName)+1, printable(r.IssuerName))
		row(tagSerial, "SERIALNUMBER", len(r.Serial), octets(r.Serial))
		row(tagPublicKey, "PUBLICKEY", len(r.PublicKey), "")
		if r.Signature != nil {
			row(tagCertSignature, "SIGNATURE", len(r.Signature), "")
		}
		if r.DER != nil {
			sum := sha1.Sum(r.DER)
			row(tagCertificate, "CERTIFICATE", len(r.DER), octets(sum[:])+" (SHA-1)")
		}
		if r.IP.IsValid() {
			row(tagIPAddress, "IPADDRESS", len(r.IP.AsSlice()), r.IP.String())
		}
		if r.Hash != nil {
			row(tagCertHash, "CERTIFICATEHASH", len(r.Hash), octets(r.Hash))
		}
	})
	if cert, err := x509.ParseCertificate(r.DER); err == nil {
		fmt.Fprintf(b, "Valid from %s to %s, %v\n", cert.NotBefore.UTC().Format(time.DateTime),
			cert.NotAfter.UTC().Format(time.DateTime), cert.SignatureAlgorithm)
	}
}
