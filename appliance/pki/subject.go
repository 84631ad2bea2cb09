package pki

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxSubject = 500 // bytes of a subject-name line
	maxPrinted = 256 // bytes of a name in a log or error
)

// attribute types that a subject-name line may name, with the ASA's keywords
// first. SP, ST and S are the state or province; EA, E and EMAIL an address.
var subjectTypes = []struct {
	words string // separated by spaces
	oid   asn1.ObjectIdentifier
	max   int // bytes; the upper bounds of RFC 5280, appendix A.1
}{
	{"CN", asn1.ObjectIdentifier{2, 5, 4, 3}, 64},
	{"SN", asn1.ObjectIdentifier{2, 5, 4, 4}, 64},
	{"SER SERIALNUMBER", oidSerial, 64},
	{"C", asn1.ObjectIdentifier{2, 5, 4, 6}, 2},
	{"L", asn1.ObjectIdentifier{2, 5, 4, 7}, 128},
	{"SP ST S", asn1.ObjectIdentifier{2, 5, 4, 8}, 128},
	{"STREET", asn1.ObjectIdentifier{2, 5, 4, 9}, 128},
	{"O", asn1.ObjectIdentifier{2, 5, 4, 10}, 64},
	{"OU", asn1.ObjectIdentifier{2, 5, 4, 11}, 64},
	{"T", asn1.ObjectIdentifier{2, 5, 4, 12}, 64},
	{"GN", asn1.ObjectIdentifier{2, 5, 4, 42}, 64},
	{"I", asn1.ObjectIdentifier{2, 5, 4, 43}, 64},
	{"GENQ", asn1.ObjectIdentifier{2, 5, 4, 44}, 64},
	{"DNQ", asn1.ObjectIdentifier{2, 5, 4, 46}, 64},
	{"EA E EMAIL", oidEmail, 255},
	{"UID", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, 256},
	{"DC", oidDC, 64},
}

var (
	oidSerial = asn1.ObjectIdentifier{2, 5, 4, 5}
	oidEmail  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	oidDC     = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

// ParseSubject reads a subject name as the ASA's subject-name command takes it,
// such as "CN=ucm.example.com,OU=Voice,O=Example": attributes separated by commas,
// a value quoted where it holds one, or the comma escaped with a backslash. The
// name comes back in the order of a certificate, which is the last attribute
// first (RFC 4514, section 2.1), one attribute to an RDN.
func ParseSubject(s string) (pkix.RDNSequence, error) {
	if len(s) > maxSubject {
		return nil, fmt.Errorf("pki: subject name of %d bytes, over %d", len(s), maxSubject)
	}
	var name pkix.RDNSequence
	for rest := s; ; {
		var part string
		var more bool
		var err error
		part, rest, more, err = cutAttribute(rest)
		if err != nil {
			return nil, fmt.Errorf("pki: subject name %q: %w", s, err)
		}
		word, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("pki: subject name %q: %q is not TYPE=value", s, part)
		}
		attr, err := parseAttribute(strings.TrimSpace(word), strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("pki: subject name %q: %w", s, err)
		}
		name = append(name, pkix.RelativeDistinguishedNameSET{attr})
		if !more {
			break
		}
	}
	slices.Reverse(name)
	return name, nil
}

// cutAttribute cuts s at the first comma that is neither quoted nor escaped.
func cutAttribute(s string) (part, rest string, more bool, err error) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				return s[:i], s[i+1:], true, nil
			}
		}
	}
	if quoted {
		return "", "", false, errors.New("quotation mark without its end")
	}
	return s, "", false, nil
}

func parseAttribute(word, value string) (pkix.AttributeTypeAndValue, error) {
	var none pkix.AttributeTypeAndValue
	v, err := unescape(value)
	if err != nil {
		return none, err
	}
	for _, t := range subjectTypes {
		if !slices.Contains(strings.Fields(t.words), strings.ToUpper(word)) {
			continue
		}
		switch {
		case v == "":
			return none, fmt.Errorf("%s is empty", word)
		case len(v) > t.max:
			return none, fmt.Errorf("%s of %d bytes, over %d", word, len(v), t.max)
		case t.max == 2 && (len(v) != 2 || strings.ContainsFunc(v, notLetter)):
			return none, fmt.Errorf("%s must be two letters", word)
		}
		if t.oid.Equal(oidEmail) || t.oid.Equal(oidDC) { // IA5String: RFC 5280, 4.1.2.6
			if strings.ContainsFunc(v, func(r rune) bool { return r > unicode.MaxASCII }) {
				return none, fmt.Errorf("%s is not ASCII", word)
			}
			return pkix.AttributeTypeAndValue{Type: t.oid,
				Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(v)}}, nil
		}
		// encoding/asn1 makes it a PrintableString, or a UTF8String where
		// a character such as '_' needs one.
		return pkix.AttributeTypeAndValue{Type: t.oid, Value: v}, nil
	}
	return none, fmt.Errorf("attribute %q not known", word)
}

func notLetter(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') }

func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
		case '\\':
			if i++; i == len(s) {
				return "", errors.New("backslash at the end")
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	v := b.String()
	if !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
		return "", fmt.Errorf("value %q is not printable", v)
	}
	return v, nil
}

// Name returns a certificate's RawSubject or RawIssuer for a log line or an
// error: most specific attribute first, separated by commas, never longer than
// 256 bytes and free of control characters, whoever wrote the certificate.
func Name(raw []byte) string {
	var rdn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &rdn); err != nil || len(rest) != 0 {
		return "unreadable name"
	}
	s := rdn.String()
	if s == "" {
		return "empty name"
	}
	var b strings.Builder
	for _, r := range s {
		if b.Len() > maxPrinted-8 {
			b.WriteString("...")
			break
		}
		if unicode.IsPrint(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			b.WriteByte('?')
		}
	}
	return b.String()
}
