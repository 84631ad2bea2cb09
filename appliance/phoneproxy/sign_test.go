package phoneproxy

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"testing"
	"time"

	"patchbay/appliance/ctl"
	"patchbay/appliance/pki"
)

func TestSign(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	store, err := pki.Open(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	internal, err := store.Enroll(pki.EnrollRequest{Name: "internal", Subject: "CN=internal", Bits: 1024, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	token, err := store.Enroll(pki.EnrollRequest{Name: "token", Subject: "CN=token", Bits: 1024, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	record, err := ctl.NewRecord(ctl.CCMTFTP, internal.Cert, "", netip.MustParseAddr("203.0.113.10"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := ctl.Build(ctl.Params{SASTs: []*x509.Certificate{token.Cert}, Records: []ctl.Record{record}, Signer: token, Time: now})
	if err != nil {
		t.Fatal(err)
	}
	list, err := ctl.Parse(data)
	if err != nil {
		t.Fatal(err)
	}

	const name = "New_Zealand/g3-tones.xml.sgn"
	payloads := map[string][]byte{
		"empty":  {},
		"text":   []byte("\xef\xbb\xbf<tones/>\r\n\x00"),
		"binary": bytes.Repeat([]byte{0, 0xff, 0x0d}, 4000),
	}
	for what, payload := range payloads {
		for _, digest := range []ctl.Digest{0, ctl.SHA1, ctl.SHA512} {
			file, err := Sign([]byte("before"), name, payload, internal, now, digest)
			if err != nil {
				t.Fatalf("%s, digest %v: %v", what, digest, err)
			}
			file, ok := bytes.CutPrefix(file, []byte("before"))
			if !ok {
				t.Fatalf("%s: dst was not kept", what)
			}
			got, err := VerifySigned(file, name, list)
			if err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%s, digest %v: VerifySigned = %d bytes, %v; want %d", what, digest, len(got), err, len(payload))
			}
			if _, err := VerifySigned(file, "g3-tones.xml.sgn", list); err == nil {
				t.Errorf("%s: another name was accepted", what)
			}
			file[len(file)-1] ^= 1
			if _, err := VerifySigned(file, name, list); err == nil {
				t.Errorf("%s: a changed file was accepted", what)
			}
		}
	}

	// The token signs the CTL file and no other; its signature must not hold.
	file, err := Sign(nil, name, payloads["text"], token, now, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifySigned(file, name, list); err == nil {
		t.Error("a file signed by a token was accepted")
	}
	if _, err := VerifySigned(payloads["text"], name, list); err == nil {
		t.Error("an unsigned file was accepted")
	}
	if _, err := Sign(nil, "", nil, internal, now, 0); err == nil {
		t.Error("a file without name was signed")
	}
}
