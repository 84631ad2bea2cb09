package ctl

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
)

// The attributes that Cisco writes, in its order, and then others that
// certificates of call managers are known to have.
// (reference/ctl-file.md, section 3, "Distinguished-name strings".)
var nameOrder = []struct {
	label string
	oid   asn1.ObjectIdentifier
}{
	{"CN", asn1.ObjectIdentifier{2, 5, 4, 3}},
	{"OU", asn1.ObjectIdentifier{2, 5, 4, 11}},
	{"O", asn1.ObjectIdentifier{2, 5, 4, 10}},
	{"L", asn1.ObjectIdentifier{2, 5, 4, 7}},
	{"ST", asn1.ObjectIdentifier{2, 5, 4, 8}},
	{"C", asn1.ObjectIdentifier{2, 5, 4, 6}},
	{"serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}},
	{"emailAddress", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}},
	{"DC", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}},
}

// nameString writes a distinguished name as Cisco does: "CN=ucm;OU=Voice;O=Example".
// Attributes that nameOrder does not list come last, by number.
func nameString(n pkix.Name) (string, error) {
	var parts []string
	value := func(a pkix.AttributeTypeAndValue) string { return strings.ReplaceAll(fmt.Sprint(a.Value), ";", `\;`) }
	for _, t := range nameOrder {
		for _, a := range n.Names {
			if a.Type.Equal(t.oid) {
				parts = append(parts, t.label+"="+value(a))
			}
		}
	}
	for _, a := range n.Names {
		if !slices.ContainsFunc(nameOrder, func(t struct {
			label string
			oid   asn1.ObjectIdentifier
		}) bool {
			return a.Type.Equal(t.oid)
		}) {
			parts = append(parts, a.Type.String()+"="+value(a))
		}
	}
	s := strings.Join(parts, ";")
	if err := checkString(s, maxDN); err != nil {
		return "", fmt.Errorf("distinguished name: %w", err)
	}
	return s, nil
}
