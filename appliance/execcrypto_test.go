package appliance_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromdm/scep/v2/depot"
	scepserver "github.com/micromdm/scep/v2/server"

	"patchbay/appliance"
	"patchbay/appliance/pki"
)

// trustpoints are put into the demo's configuration.
const trustpoints = `crypto ca trustpoint with_ca
 enrollment terminal
 subject-name CN=box,O=Example
 fqdn box.example.com
 ip-address 203.0.113.2
 serial-number
 keypair with_ca
 crl configure
crypto ca trustpoint by_scep
 enrollment url http://10.20.0.77/scep
 subject-name CN=box by SCEP
 password sesame
 crl configure
crypto ca trustpoint by_name
 enrollment url http://ca.example.com/scep
 crl configure
!
ctl-file trust
`

func TestExecCrypto(t *testing.T) {
	b := start(t, setup{keys: &keyRing{}, config: []string{"ctl-file trust\n record", trustpoints + " record"}})
	ca := newCA("Example CA")
	caPEM := pki.FormatCertificate(ca.Cert)
	sum := sha1.Sum(ca.Cert.Raw)
	tests := []struct {
		line, text string
		want       string // of what it shows or refuses; a regular expression
		refused    bool
	}{
		{"crypto key generate rsa label k1 modulus 1024", "", "name for the keys will be: k1", false},
		{"cry key gen rsa label k1", "", "There is a key pair k1 already", true},
		{"crypto key generate rsa label k2 modulus 1500", "", "must be 1024, 2048, 3072 or 4096", true},
		{"crypto key generate rsa label k2 modulus 512", "", "Invalid input", true},
		{"crypto key generate rsa label k2 label k3", "", "label stands here twice", true},
		{"crypto key generate ecdsa label e1 elliptic-curve 256", "", "will be: e1", false},
		{"show crypto key mypubkey rsa", "", `(?s)Key name: _internal_PP_trust\n.*In use by: trustpoint _internal_PP_trust.*Key name: k1\n Usage: General Purpose Key\n Modulus Size \(bits\): 1024\n Key Data:\n\n  30819f30`, false},
		{"show crypto key mypubkey ecdsa", "", `Key name: e1\n Usage: General Purpose Key\n EC curve size \(bits\): 256\n`, false},
		{"crypto key zeroize rsa label ucm_keys noconfirm", "", "ucm_keys is in use by trustpoint ucm_server", true},
		{"crypto key zeroize rsa noconfirm", "", "in use", true},
		{"crypto key zeroize rsa label nobody", "", "There is no RSA key pair nobody", true},
		{"crypto key zeroize rsa label k1 noconfirm", "", `1 key pair\(s\) destroyed: k1`, false},
		{"crypto key zeroize ecdsa noconfirm", "", "destroyed: e1", false},

		{"crypto ca enroll with_ca noconfirm", "", "BEGIN CERTIFICATE REQUEST", false},
		{"crypto key zeroize rsa label with_ca", "", "in use by trustpoint with_ca", true},
		{"show crypto ca certificates with_ca", "", "Status: Pending terminal enrollment", false},
		{"crypto ca import with_ca certificate", string(caPEM), "must be installed first", true},
		{"crypto ca authenticate with_ca fingerprint 00112233 44556677 8899aabb ccddeeff", string(caPEM), "another fingerprint", true},
		{"crypto ca authenticate with_ca fingerprint 0011", string(caPEM), "is not MD5", true},
		{fmt.Sprintf("crypto ca authenticate with_ca fingerprint %X %X", sum[:10], sum[10:]), string(caPEM), "certificate accepted", false},
		{"crypto ca authenticate with_ca", string(pki.FormatCertificate(phoneCA().Cert)), "another CA certificate already", true},
		{"crypto ca authenticate with_ca", "rubbish\nquit\n", "neither PEM, base64 nor DER", true},
		{"crypto ca authenticate ucm_server", "", "enrollment self", true},
		{"crypto ca import with_ca certificate", string(pki.FormatCertificate(phoneCA().Cert)), "not by the trustpoint's CA", true},
		{"show crypto ca certificates with_ca", "", `(?s)CA Certificate\n  Status: Available\n.*Subject Name:\n    CN=Example CA.*Associated Trustpoints: with_ca`, false},

		{"crypto ca enroll ucm_server", "", "has an identity certificate already", true},
		{"crypto ca enroll nobody", "", "there is no trustpoint nobody", true},
		{"crypto ca export ucm_server identity-certificate", "", "BEGIN CERTIFICATE", false},
		{"crypto ca export phone_ca identity-certificate", "", "no identity certificate", true},
		{"crypto ca export ucm_server pkcs12 open-sesame", "", "(?s)Exported pkcs12 follows:\n-----BEGIN PKCS12-----.*-----END PKCS12-----", false},
		{"crypto ca import copy pkcs12 open-sesame", "rubbish", "neither base64 nor DER", true},
		{"crypto ca import copy pkcs12 open-sesame extra", "", `\*{17}`, true},
		{"show crypto ca trustpoints", "", `(?s)Trustpoint ucm_server:\n    Certificate configured: CN=ucm_server.*Trustpoint by_scep:\n    Not authenticated.\n    CEP URL: http://10.20.0.77/scep\n.*Trustpoint _internal_PP_trust:\n.*Not in the configuration`, false},
		{"crypto ca authenticate by_name", "", "ca.example.com: name lookup is off", true},
		{"show ctl-file", "", `(?s)ctl-file trust\n record-entry cucm-tftp trustpoint ucm_server address 203.0.113.10\n sast 2\n no shutdown\n.*verified successfully`, false},
		{"crypto ctl-file renew trust sast 4", "", "there is no token 4", true},
		{"crypto ctl-file renew nobody sast 0", "", "there is no ctl-file nobody", true},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		var text []byte
		if tt.text != "" {
			text = []byte(tt.text)
		}
		err := b.app.ExecText(&out, tt.line, text)
		got := out.String()
		if err != nil {
			got = err.Error()
			var r *appliance.Refusal
			if !errors.As(err, &r) {
				t.Errorf("%s: %v is no refusal", tt.line, err)
			}
			if strings.Contains(got, "open-sesame") {
				t.Errorf("%s: the error has the passphrase: %s", tt.line, got)
			}
		}
		if (err != nil) != tt.refused || !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%s: refused %v:\n%s\nwant %q", tt.line, err != nil, got, tt.want)
		}
	}
	for _, tt := range []struct {
		line, question string
		yes, refused   bool
	}{
		{"crypto ca authenticate with_ca", "Do you accept this certificate? [yes/no]: ", false, true},
		{"crypto ca enroll ucm_server", "Generate Self-Signed Certificate? [yes/no]: ", false, false},
		{"crypto ca enroll ucm_server", "Generate Self-Signed Certificate? [yes/no]: ", true, true},
		{"crypto ca enroll ucm_server noconfirm", "", true, true},
		{"crypto ca authenticate with_ca nointeractive", "", false, false},
		{"crypto ca authenticate with_ca", "Do you accept this certificate? [yes/no]: ", true, false},
	} {
		asked := ""
		err := b.app.ExecAsking(b.ctx, new(bytes.Buffer), tt.line, caPEM, func(question string) (bool, error) {
			asked += question
			return tt.yes, nil
		})
		if asked != tt.question || (err != nil) != tt.refused {
			t.Errorf("%s asks %q and is refused: %v; want %q, %v", tt.line, asked, err, tt.question, tt.refused)
		}
	}
	for line, want := range map[string]string{
		"crypto ca authenticate by_nobody": "", "crypto ca authenticate with_ca": "CA certificate.\nEnd with the word \"quit\"",
		"cry ca imp x pkcs12 y": "encoded pkcs12", "crypto ca import with_ca certificate": "encoded certificate",
	} {
		var need *appliance.NeedText
		if err := b.app.Exec(new(bytes.Buffer), line); errors.As(err, &need) != (want != "") || want != "" && !strings.Contains(need.Prompt, want) {
			t.Errorf("%s: %v; want a prompt with %q", line, err, want)
		}
	}
	if log := b.log.String(); strings.Contains(log, "sesame") || strings.Contains(log, "PRIVATE KEY") {
		t.Error("a secret is in the log")
	}
}

func TestRedact(t *testing.T) {
	for _, tt := range [][2]string{
		{"crypto ca import tp pkcs12 secret", "crypto ca import tp pkcs12 *****"},
		{"cr ca e tp p secret nointeractive", "cr ca e tp p *****"},
		{"  CRYPTO CA EXPORT tp  PKCS12   a b", "  CRYPTO CA EXPORT tp  PKCS12   *****"},
		{"crypto ca import tp certificate nointeractive", "crypto ca import tp certificate nointeractive"},
		{"show version", "show version"},
		{"", ""},
	} {
		if got := appliance.Redact(tt[0]); got != tt[1] {
			t.Errorf("Redact(%q) = %q, want %q", tt[0], got, tt[1])
		}
	}
}

// A depot keeps what the SCEP server below has made.
type scepDepot struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey

	mu     sync.Mutex
	serial int64
}

// noLog is the logger of a server that is silent.
type noLog struct{}

func (noLog) Log(...any) error { return nil }

func (d *scepDepot) CA([]byte) ([]*x509.Certificate, *rsa.PrivateKey, error) {
	return []*x509.Certificate{d.cert}, d.key, nil
}
func (d *scepDepot) Put(string, *x509.Certificate) error { return nil }
func (d *scepDepot) Serial() (*big.Int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	return big.NewInt(d.serial), nil
}
func (d *scepDepot) HasCN(string, int, *x509.Certificate, bool) (bool, error) { return false, nil }

// The box enrolls with a SCEP server behind its inside interface, through its own
// netstack.
func TestEnrollBySCEP(t *testing.T) {
	b := start(t, setup{keys: &keyRing{}, config: []string{"ctl-file trust\n record", trustpoints + " record"}})
	ca := openStore(t, t.TempDir())
	id, err := ca.Enroll(pki.EnrollRequest{Name: "ca", Subject: "CN=SCEP CA", Bits: 2048, SignatureAlgorithm: x509.SHA256WithRSA, Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	signer := scepserver.SignCSRAdapter(depot.NewSigner(&scepDepot{cert: id.Cert, key: id.Key.(*rsa.PrivateKey)}, depot.WithValidityDays(100)))
	svc, err := scepserver.NewService(id.Cert, id.Key.(*rsa.PrivateKey), scepserver.StaticChallengeMiddleware("sesame", signer))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := b.host(b.lab.LAN, "10.20.0.77").ListenTCP(netip.MustParseAddrPort("0.0.0.0:80"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: scepserver.MakeHTTPHandler(scepserver.MakeServerEndpoints(svc), svc, noLog{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})

	var refused *appliance.Refusal
	if err := b.app.Exec(new(bytes.Buffer), "crypto ca enroll by_scep"); !errors.As(err, &refused) || !strings.Contains(err.Error(), "must be installed first") {
		t.Errorf("enrolling before authenticating: %v", err)
	}
	var out bytes.Buffer
	if err := b.app.Exec(&out, "crypto ca authenticate by_scep"); !errors.As(err, &refused) || !strings.Contains(err.Error(), "Compare the fingerprint") {
		t.Errorf("authenticating without a look at the fingerprint: %v", err)
	}
	sum := sha1.Sum(id.Cert.Raw)
	b.exec(fmt.Sprintf("crypto ca authenticate by_scep fingerprint %x", sum))
	if out := b.exec("crypto ca enroll by_scep noconfirm"); !strings.Contains(out, "successfully imported") {
		t.Errorf("enroll:\n%s", out)
	}
	if out := b.exec("show crypto ca certificates by_scep"); !strings.Contains(out, "CN=box by SCEP") || strings.Count(out, "CN=SCEP CA") != 3 {
		t.Errorf("show crypto ca certificates:\n%s", out)
	}
	if strings.Contains(b.log.String(), "sesame") {
		t.Error("the challenge password is in the log")
	}
}

// A certificate that ends is told of before it does, and after.
func TestExpiryIsTold(t *testing.T) {
	for _, tt := range []struct {
		years, days int
		want        string
	}{
		{9, 330, "%ASA-1-717054: The ID certificate in the trustpoint _internal_PP_trust is due to expire in "},
		{10, 10, "%ASA-1-717055: The ID certificate in the trustpoint _internal_PP_trust has expired. Expiration "},
	} {
		t.Run(fmt.Sprintf("%d years", tt.years), func(t *testing.T) {
			first := start(t, setup{})
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			b := start(t, setup{flash: first.flash, opt: func(o *appliance.Options) {
				o.Now = func() time.Time { return time.Now().AddDate(tt.years, 0, tt.days) }
			}})
			b.eventually("no warning of "+tt.want, func() bool { return strings.Contains(b.log.String(), tt.want) })
		})
	}
	b := start(t, setup{})
	time.Sleep(1200 * time.Millisecond) // longer than between looks
	if log := b.log.String(); strings.Contains(log, "71705") {
		t.Error("warned of certificates that are new")
	}
}
