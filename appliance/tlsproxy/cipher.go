package tlsproxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A suite is a cipher suite of TLS 1.2 or older.
type suite struct {
	word  string // of "ssl encryption", or "" for those that the ASA did not have
	name  string // as OpenSSL and the ASA print it
	id    uint16
	ecdhe bool
	only  bool // TLS 1.2 only
}

// all that crypto/tls has, those of an RSA certificate, in our order.
// (reference/systems.md, A.1.)
var allSuites = []suite{
	{"", "ECDHE-RSA-AES128-GCM-SHA256", tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, true, true},
	{"", "ECDHE-RSA-AES256-GCM-SHA384", tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, true, true},
	{"", "ECDHE-RSA-CHACHA20-POLY1305", tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, true, true},
	{"", "ECDHE-RSA-AES128-SHA", tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true, false},
	{"", "ECDHE-RSA-AES256-SHA", tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, true, false},
	{"", "AES128-GCM-SHA256", tls.TLS_RSA_WITH_AES_128_GCM_SHA256, false, true},
	{"", "AES256-GCM-SHA384", tls.TLS_RSA_WITH_AES_256_GCM_SHA384, false, true},
	{"aes128-sha1", "AES128-SHA", tls.TLS_RSA_WITH_AES_128_CBC_SHA, false, false},
	{"aes256-sha1", "AES256-SHA", tls.TLS_RSA_WITH_AES_256_CBC_SHA, false, false},
	{"3des-sha1", "DES-CBC3-SHA", tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, false, false},
	{"rc4-sha1", "RC4-SHA", tls.TLS_RSA_WITH_RC4_128_SHA, false, false},
}

// absent are words of "ssl encryption" for suites that crypto/tls does not have.
var absent = []string{"null-sha1", "rc4-md5", "des-sha1", "dhe-aes128-sha1", "dhe-aes256-sha1"}

// obsolete are not in use unless a word asks for them.
var obsolete = []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_RC4_128_SHA}

// suitesOf returns the suites that words name, in their order. A word is the
// ASA's or the suite's own name; case does not matter. skip is told of each word
// that is left out.
func suitesOf(words []string, skip func(word, why string)) ([]suite, error) {
	var list []suite
	if len(words) == 0 {
		for _, s := range allSuites {
			if !slices.Contains(obsolete, s.id) {
				list = append(list, s)
			}
		}
		return list, nil
	}
	for _, word := range words {
		i := slices.IndexFunc(allSuites, func(s suite) bool {
			return strings.EqualFold(word, s.word) && word != "" || strings.EqualFold(word, s.name)
		})
		switch {
		case i >= 0:
			if !slices.Contains(list, allSuites[i]) {
				list = append(list, allSuites[i])
			}
		case slices.Contains(absent, strings.ToLower(word)):
			skip(word, "not supported by this version")
		default:
			return nil, fmt.Errorf("cipher %q not known", word)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no cipher of the list is supported by this version")
	}
	return list, nil
}

func ids(list []suite) []uint16 {
	var out []uint16
	for _, s := range list {
		out = append(out, s.id)
	}
	return out
}

// suiteName returns the name the ASA prints, or crypto/tls's own.
func suiteName(id uint16) string {
	for _, s := range allSuites {
		if s.id == id {
			return s.name
		}
	}
	return tls.CipherSuiteName(id)
}

// choose returns the first of list that the client offers and that version, 1.2
// or older, has. crypto/tls would choose by an order of its own.
func choose(list []suite, hello *tls.ClientHelloInfo, version uint16) (suite, bool) {
	curve := slices.ContainsFunc(hello.SupportedCurves, func(c tls.CurveID) bool {
		return c == tls.X25519 || c == tls.CurveP256 || c == tls.CurveP384 || c == tls.CurveP521
	})
	for _, s := range list {
		if slices.Contains(hello.CipherSuites, s.id) && (curve || !s.ecdhe) && (version == tls.VersionTLS12 || !s.only) {
			return s, true
		}
	}
	return suite{}, false
}

// weakSignatures reports whether a TLS 1.2 client signs with nothing better than
// SHA-1, which crypto/tls does not take in TLS 1.2. TLS 1.1, where the hash is
// fixed, is the way to take such a client. (reference/systems.md, A.2.)
func weakSignatures(hello *tls.ClientHelloInfo) bool {
	return !slices.ContainsFunc(hello.SignatureSchemes, func(s tls.SignatureScheme) bool {
		switch s {
		case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512,
			tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
			tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512:
			return true
		}
		return false
	})
}

// CipherWords returns the words of "ssl encryption" that are in use, in their
// order, if the configuration has these or none, and those that are not.
func CipherWords(words []string) (enabled, disabled []string) {
	list, err := suitesOf(words, func(string, string) {})
	if err != nil {
		list = nil
	}
	has := func(id uint16) bool { return slices.ContainsFunc(list, func(s suite) bool { return s.id == id }) }
	for _, s := range list {
		if s.word != "" {
			enabled = append(enabled, s.word)
		}
	}
	for _, s := range allSuites {
		if s.word != "" && !has(s.id) {
			disabled = append(disabled, s.word)
		}
	}
	for _, w := range absent {
		if !strings.HasPrefix(w, "dhe") {
			disabled = append(disabled, w)
		}
	}
	return enabled, disabled
}
