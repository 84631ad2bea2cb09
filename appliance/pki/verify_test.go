package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority is a certificate with its key, for tests.
type authority struct {
	cert   *x509.Certificate
	key    *rsa.PrivateKey
	signer crypto.Signer // instead of key
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

type certSpec struct {
	cn       string
	ca       bool // basicConstraints say so
	plain    bool // no basicConstraints at all
	pathLen  int  // -1: none below
	bits     int
	from, to time.Time
	alg      x509.SignatureAlgorithm
	usage    x509.KeyUsage
	critical bool
	name     pkix.RDNSequence
	key      crypto.Signer
}

// keyPool hands out keys again, one for each common name, to spare the time of
// making them.
var keyPool sync.Map

func testKey(t testing.TB, cn string, bits int) *rsa.PrivateKey {
	t.Helper()
	type id struct {
		cn   string
		bits int
	}
	if k, ok := keyPool.Load(id{cn, bits}); ok {
		return k.(*rsa.PrivateKey)
	}
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	keyPool.Store(id{cn, bits}, k)
	return k
}

// issue makes a certificate under by, or a self-signed one.
func issue(t testing.TB, by authority, spec certSpec) authority {
	t.Helper()
	if spec.bits == 0 {
		spec.bits = 1024
	}
	if spec.from.IsZero() {
		spec.from, spec.to = now.AddDate(-1, 0, 0), now.AddDate(9, 0, 0)
	}
	if spec.alg == 0 {
		spec.alg = x509.SHA1WithRSA
	}
	a := authority{key: testKey(t, spec.cn, spec.bits)}
	a.signer = a.key
	if spec.key != nil {
		a.signer = spec.key
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(0x1234), Subject: pkix.Name{CommonName: spec.cn, Organization: []string{"Example"}},
		NotBefore: spec.from, NotAfter: spec.to, SignatureAlgorithm: spec.alg, KeyUsage: spec.usage,
		BasicConstraintsValid: !spec.plain, IsCA: spec.ca, MaxPathLen: spec.pathLen,
	}
	if spec.pathLen < 0 {
		tmpl.MaxPathLen, tmpl.MaxPathLenZero = 0, true
	} else if spec.pathLen == 0 {
		tmpl.MaxPathLen = -1
	}
	if spec.critical {
		tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}}
	}
	if spec.name != nil {
		var err error
		if tmpl.RawSubject, err = asn1.Marshal(spec.name); err != nil {
			t.Fatal(err)
		}
	}
	parent, signer := tmpl, a.signer
	if by.cert != nil {
		parent, signer = by.cert, by.signer
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, a.signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

var caOnce = sync.OnceValue(func() authority { return issue(&testing.T{}, authority{}, manufacturing) })

var manufacturing = certSpec{cn: "Cisco Manufacturing CA", ca: true, usage: x509.KeyUsageCertSign}

func caFixture(testing.TB) authority { return caOnce() }

const mic = "CP-7962G-SEP001122334455"

func TestVerifyPhone(t *testing.T) {
	root := issue(t, authority{}, certSpec{cn: "Root", ca: true})
	mca := issue(t, root, manufacturing)                                                  // not self-signed
	forged := issue(t, authority{}, certSpec{cn: manufacturing.cn, ca: true, bits: 2048}) // same name, another key
	capRTP := issue(t, authority{}, certSpec{cn: "CAP-RTP-001", plain: true})             // no basicConstraints
	notCA := issue(t, authority{}, certSpec{cn: "Phone", ca: false})                      // basicConstraints say no
	noDepth := issue(t, authority{}, certSpec{cn: "NoDepth", ca: true, pathLen: -1})      // none below
	oldCA := issue(t, authority{}, certSpec{cn: "Old", ca: true, from: now.AddDate(-20, 0, 0), to: now.AddDate(-1, 0, 0)})
	sub := issue(t, mca, certSpec{cn: "Sub", ca: true})
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	deep := []authority{root}
	for _, cn := range []string{"D1", "D2", "D3", "D4"} {
		deep = append(deep, issue(t, deep[len(deep)-1], certSpec{cn: cn, ca: true}))
	}
	leaf := issue(t, mca, certSpec{cn: mic})
	lsc := issue(t, capRTP, certSpec{cn: "SEP00AABBCCDDEE", bits: 2048})
	old := certSpec{cn: mic, from: now.AddDate(-11, 0, 0), to: now.AddDate(-1, 0, 0)}

	md5 := *leaf.cert // x509 will not make an MD5 certificate; the name of the algorithm is what counts
	md5.SignatureAlgorithm = x509.MD5WithRSA

	all := []authority{mca, capRTP, notCA, noDepth, oldCA}
	tests := []struct {
		name    string
		chain   []*x509.Certificate
		anchors []authority
		opt     VerifyOptions
		want    Verified
		reason  Reason
	}{
		{"MIC, SHA-1, anchor not self-signed", chain(leaf), all, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"MIC 2048, SHA-256", chain(issue(t, mca, certSpec{cn: mic, bits: 2048, alg: x509.SHA256WithRSA})), all, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"LSC of a CA without basicConstraints", chain(lsc), all, VerifyOptions{}, Verified{"tp1", "SEP00AABBCCDDEE", false}, 0},
		{"two anchors of one name, the second signed", chain(leaf), []authority{forged, mca}, VerifyOptions{}, Verified{"tp1", "SEP001122334455", false}, 0},
		{"two anchors of one name, the first signed", chain(leaf), []authority{mca, forged}, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"lower case, other model", chain(issue(t, mca, certSpec{cn: "cp-7961g-ge-sep00aabbccddee"})), all, VerifyOptions{}, Verified{"tp0", "SEP00AABBCCDDEE", false}, 0},
		{"intermediate sent", chain(issue(t, sub, certSpec{cn: mic}), sub), all, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"chain with the anchor and more", chain(leaf, mca, root), all, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"the phone's own certificate is an anchor", chain(lsc), []authority{lsc}, VerifyOptions{}, Verified{"tp0", "SEP00AABBCCDDEE", false}, 0},
		{"expired, allowed", chain(issue(t, mca, old)), all, VerifyOptions{AllowExpired: true}, Verified{"tp0", "SEP001122334455", true}, 0},
		{"CA expired, allowed", chain(issue(t, oldCA, certSpec{cn: mic})), all, VerifyOptions{AllowExpired: true}, Verified{"tp4", "SEP001122334455", true}, 0},
		{"EC key", chain(issue(t, mca, certSpec{cn: mic, key: ecKey})), all, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},
		{"as deep as allowed", chain(issue(t, deep[3], certSpec{cn: mic}), deep[3], deep[2], deep[1]), []authority{root}, VerifyOptions{}, Verified{"tp0", "SEP001122334455", false}, 0},

		{"no certificate", nil, all, VerifyOptions{}, Verified{}, ReasonNone},
		{"no anchors", chain(leaf), nil, VerifyOptions{}, Verified{}, ReasonIssuer},
		{"issued by the root that nobody imported", chain(issue(t, root, certSpec{cn: mic}), root), all, VerifyOptions{}, Verified{}, ReasonIssuer},
		{"self-signed stranger", chain(issue(t, authority{}, certSpec{cn: mic})), all, VerifyOptions{}, Verified{}, ReasonIssuer},
		{"forged CA of the same name", chain(issue(t, forged, certSpec{cn: mic}), forged), []authority{mca}, VerifyOptions{}, Verified{}, ReasonSignature},
		{"MD5", []*x509.Certificate{&md5}, all, VerifyOptions{}, Verified{}, ReasonAlgorithm},
		{"expired", chain(issue(t, mca, old)), all, VerifyOptions{}, Verified{}, ReasonDate},
		{"not yet valid", chain(issue(t, mca, certSpec{cn: mic, from: now.AddDate(1, 0, 0), to: now.AddDate(2, 0, 0)})), all, VerifyOptions{}, Verified{}, ReasonDate},
		{"CA expired", chain(issue(t, oldCA, certSpec{cn: mic})), all, VerifyOptions{}, Verified{}, ReasonDate},
		{"anchor that is no CA", chain(issue(t, notCA, certSpec{cn: mic})), all, VerifyOptions{}, Verified{}, ReasonNotCA},
		{"a phone that issues", chain(issue(t, leaf, certSpec{cn: "SEP00AABBCCDDEE"}), leaf), all, VerifyOptions{}, Verified{}, ReasonNotCA},
		{"path length of the anchor", chain(issue(t, issue(t, noDepth, certSpec{cn: "Sub2", ca: true}), certSpec{cn: mic}), issue(t, noDepth, certSpec{cn: "Sub2", ca: true})), all, VerifyOptions{}, Verified{}, ReasonNotCA},
		{"small key", chain(leaf), all, VerifyOptions{MinRSABits: 2048}, Verified{}, ReasonKey},
		{"Ed25519 key", chain(issue(t, mca, certSpec{cn: mic, key: edKey})), all, VerifyOptions{}, Verified{}, ReasonKey},
		{"critical extension", chain(issue(t, mca, certSpec{cn: mic, critical: true})), all, VerifyOptions{}, Verified{}, ReasonCritical},
		{"too deep", chain(issue(t, deep[4], certSpec{cn: mic}), deep[4], deep[3], deep[2], deep[1]), []authority{root}, VerifyOptions{}, Verified{}, ReasonLong},
		{"too many certificates", chain(leaf, mca, root, sub, forged, capRTP), all, VerifyOptions{}, Verified{}, ReasonLong},
		{"name of a server", chain(issue(t, mca, certSpec{cn: "ucm.example.com"})), all, VerifyOptions{}, Verified{}, ReasonName},
		{"short MAC", chain(issue(t, mca, certSpec{cn: "SEP00112233445"})), all, VerifyOptions{}, Verified{}, ReasonName},
		{"newline after the MAC", chain(issue(t, mca, certSpec{cn: "SEP001122334455\n"})), all, VerifyOptions{}, Verified{}, ReasonName},
		{"two common names", chain(issue(t, mca, certSpec{cn: "x", name: pkix.RDNSequence{
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "SEP00AABBCCDDEE"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: mic}}}})), all, VerifyOptions{}, Verified{}, ReasonName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opt.Now = now
			got, err := VerifyPhone(tt.chain, anchorsOf(tt.anchors), tt.opt)
			var ve *VerifyError
			if errors.As(err, &ve); (err == nil) != (tt.reason == 0) || ve != nil && ve.Reason != tt.reason {
				t.Fatalf("VerifyPhone: %v, want reason %d", err, tt.reason)
			}
			if got != tt.want {
				t.Errorf("VerifyPhone = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func chain(list ...authority) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, a := range list {
		certs = append(certs, a.cert)
	}
	return certs
}

func anchorsOf(list []authority) []Anchor {
	var anchors []Anchor
	for i, a := range list {
		anchors = append(anchors, Anchor{"tp" + string(rune('0'+i)), a.cert})
	}
	return anchors
}

// TestVerifyBounded: anchors and intermediates of one name make many paths, and
// the work stays bounded.
func TestVerifyBounded(t *testing.T) {
	var loop []authority
	for range maxDepth - 1 { // each could have issued each, by name and key
		loop = append(loop, issue(t, authority{}, certSpec{cn: "Loop", ca: true}))
	}
	leaf := issue(t, loop[0], certSpec{cn: mic})
	var anchors []Anchor
	other := issue(t, authority{}, certSpec{cn: "Loop", ca: true, bits: 2048})
	for range 100 {
		anchors = append(anchors, Anchor{"other", other.cert})
	}
	w := walk{chain: append(chain(leaf), chain(loop...)...), anchors: anchors, opt: VerifyOptions{Now: now, MinRSABits: 1024}}
	if _, ok := w.up(leaf.cert, 0, 1); ok {
		t.Error("a path was found")
	}
	if w.worst == nil || w.worst.Reason < ReasonLong {
		t.Errorf("fault %v", w.worst)
	}
	if _, err := VerifyPhone(w.chain, anchors, VerifyOptions{Now: now}); err == nil {
		t.Error("VerifyPhone found a path")
	}
}

func TestVerifyErrorText(t *testing.T) {
	stranger := issue(t, authority{}, certSpec{cn: mic})
	_, err := VerifyPhone(chain(stranger), anchorsOf([]authority{caFixture(t)}), VerifyOptions{Now: now})
	for _, part := range []string{"subject CN=" + mic, "issuer CN=", "no trustpoint holds the issuer"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not say %q", err, part)
		}
	}
	ugly := issue(t, authority{}, certSpec{cn: "a\n%ASA-0-000000: lie\x1b[2J" + strings.Repeat("x", 400)})
	if got := Name(ugly.cert.RawSubject); len(got) > maxPrinted+8 || strings.ContainsAny(got, "\n\x1b") {
		t.Errorf("Name = %q of %d bytes", got, len(got))
	}
	if got := Name([]byte{0x30, 5}); got != "unreadable name" {
		t.Errorf("Name of garbage = %q", got)
	}
	if !bytes.Equal(stranger.cert.RawSubject, stranger.cert.RawIssuer) {
		t.Error("the stranger is not self-signed")
	}
}

func BenchmarkVerifyPhone(b *testing.B) {
	ca := issue(b, authority{}, manufacturing)
	leaf := issue(b, ca, certSpec{cn: mic})
	anchors := anchorsOf([]authority{ca})
	for b.Loop() {
		if _, err := VerifyPhone(chain(leaf), anchors, VerifyOptions{Now: now}); err != nil {
			b.Fatal(err)
		}
	}
}
