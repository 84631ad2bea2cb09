package pki

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromdm/scep/v2/depot"
	scepserver "github.com/micromdm/scep/v2/server"
	"github.com/smallstep/scep"
)

// A memoryDepot is where the SCEP server keeps what it has made.
type memoryDepot struct {
	ca authority

	mu     sync.Mutex
	serial int64
}

// noLog is the logger of a server that is silent.
type noLog struct{}

func (noLog) Log(...any) error { return nil }

func (d *memoryDepot) CA([]byte) ([]*x509.Certificate, *rsa.PrivateKey, error) {
	return []*x509.Certificate{d.ca.cert}, d.ca.key, nil
}
func (d *memoryDepot) Put(string, *x509.Certificate) error { return nil }
func (d *memoryDepot) Serial() (*big.Int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	return big.NewInt(1000 + d.serial), nil
}
func (d *memoryDepot) HasCN(string, int, *x509.Certificate, bool) (bool, error) { return false, nil }

// scepCAServer runs micromdm's SCEP server, which wants a challenge password.
func scepCAServer(t *testing.T, ca authority, challenge string, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	useAES() // the server's library is the same, and it must not see the change
	signer := scepserver.StaticChallengeMiddleware(challenge, scepserver.SignCSRAdapter(depot.NewSigner(&memoryDepot{ca: ca}, depot.WithValidityDays(100))))
	svc, err := scepserver.NewService(ca.cert, ca.key, signer)
	if err != nil {
		t.Fatal(err)
	}
	h := scepserver.MakeHTTPHandler(scepserver.MakeServerEndpoints(svc), svc, noLog{})
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL + "/scep"
}

func TestSCEP(t *testing.T) {
	ca := issue(t, authority{}, certSpec{cn: "SCEP CA", ca: true, bits: 2048, usage: x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		from: time.Now().AddDate(-1, 0, 0), to: time.Now().AddDate(1, 0, 0)})
	at := scepCAServer(t, ca, "let me in", nil)
	client := &SCEP{URL: at, Client: &http.Client{Timeout: 20 * time.Second}}
	ctx := context.Background()
	for _, bits := range []int{1024, 2048} {
		s := open(t, t.TempDir())
		got, others, err := client.CA(ctx)
		if err != nil || !got.Equal(ca.cert) || len(others) != 0 {
			t.Fatalf("CA: %v, %d others, %v", got, len(others), err)
		}
		if _, err := s.Authenticate("tp", got.Raw); err != nil {
			t.Fatal(err)
		}
		req := EnrollRequest{Name: "tp", Subject: "CN=box,O=Example", FQDN: "box.example.com", Bits: bits, Now: time.Now()}
		der, err := s.Request(req, "wrong password")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.EnrollSCEP(ctx, client, "tp", der, time.Now()); err == nil || !strings.Contains(err.Error(), "badRequest") || strings.Contains(err.Error(), "wrong password") {
			t.Errorf("wrong challenge password: %v", err)
		}
		if der, err = s.Request(req, "let me in"); err != nil {
			t.Fatal(err)
		}
		id, err := s.EnrollSCEP(ctx, client, "tp", der, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !signedBy(id.Cert, ca.cert) || Name(id.Cert.RawSubject) != "CN=box,O=Example" || len(id.Cert.DNSNames) != 1 || !samePublic(id.Key.Public(), id.Cert.PublicKey) {
			t.Errorf("%d bits: got %v", bits, id)
		}
		if _, err := s.Request(req, ""); !errors.Is(err, ErrExists) {
			t.Errorf("a second request: %v", err)
		}
	}
}

// TestSCEPRefuses: what a CA or somebody in between answers cannot put another
// certificate in.
func TestSCEPRefuses(t *testing.T) {
	spec := certSpec{cn: "SCEP CA", ca: true, bits: 2048, usage: x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		from: time.Now().AddDate(-1, 0, 0), to: time.Now().AddDate(1, 0, 0)}
	ca := issue(t, authority{}, spec)
	spec.cn = "Another CA"
	other := issue(t, authority{}, spec)
	only := func(operation string, answer func(w http.ResponseWriter)) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("operation") == operation {
					answer(w)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	var replay bytes.Buffer // of an earlier enrollment
	tests := []struct {
		name string
		ca   authority
		wrap func(http.Handler) http.Handler
		want string
	}{
		{"another CA", other, nil, "another CA"},
		{"garbage", ca, only("PKIOperation", func(w http.ResponseWriter) { w.Write([]byte("hello")) }), "not a SCEP message"},
		{"answer to another", ca, only("PKIOperation", func(w http.ResponseWriter) { w.Write(replay.Bytes()) }), "another request"},
		{"error", ca, only("PKIOperation", func(w http.ResponseWriter) { w.WriteHeader(500) }), "500"},
		{"no CA", ca, only("GetCACert", func(w http.ResponseWriter) { w.Write([]byte{0x30, 0}) }), "neither a certificate"},
		{"3DES only", ca, only("GetCACaps", func(w http.ResponseWriter) { w.Write([]byte("POSTPKIOperation\nDES3\n")) }), "3DES"},
		{"endless", ca, only("PKIOperation", func(w http.ResponseWriter) { w.Write(make([]byte, maxFile+1)) }), "over"},
	}
	enrollAt := func(at string) error {
		s := open(t, t.TempDir())
		if _, err := s.Authenticate("tp", ca.cert.Raw); err != nil {
			t.Fatal(err)
		}
		der, err := s.Request(EnrollRequest{Name: "tp", Subject: "CN=box", Bits: 1024, Now: time.Now()}, "x")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.EnrollSCEP(context.Background(), &SCEP{URL: at, Client: &http.Client{Timeout: 20 * time.Second}}, "tp", der, time.Now())
		return err
	}
	record := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			if r.URL.Query().Get("operation") == "PKIOperation" {
				replay.Write(rec.Body.Bytes())
			}
			w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
			w.Write(rec.Body.Bytes())
		})
	}
	if err := enrollAt(scepCAServer(t, ca, "x", record)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		if err := enrollAt(scepCAServer(t, tt.ca, "x", tt.wrap)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
	for _, at := range []string{"", "ftp://ca.example.com", "http://", "%zz"} {
		if _, _, err := (&SCEP{URL: at, Client: http.DefaultClient}).CA(context.Background()); err == nil {
			t.Errorf("URL %q was accepted", at)
		}
	}
}

// TestTerminalEnrollment: openssl reads the request and signs it.
func TestTerminalEnrollment(t *testing.T) {
	dir := t.TempDir()
	ca, _ := exported(t, dir)
	s := open(t, t.TempDir())
	req := EnrollRequest{Name: "tp", Subject: "CN=box,O=Example", FQDN: "box.example.com", Serial: "JMX0001", Bits: 1024, Now: now}
	if _, err := s.ImportCertificate("tp", ca.cert.Raw, now); !errors.Is(err, ErrNotFound) {
		t.Errorf("no trustpoint: %v", err)
	}
	der, err := s.Request(req, "")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "req.pem", FormatRequest(der))
	if out := openssl(t, dir, "req", "-in", "req.pem", "-noout", "-verify", "-text"); !bytes.Contains(out, []byte("DNS:box.example.com")) || !bytes.Contains(out, []byte("JMX0001")) {
		t.Errorf("openssl reads\n%s", out)
	}
	if err := s.RemoveKey("tp"); !errors.Is(err, ErrInUse) {
		t.Errorf("removing the key of a request: %v", err)
	}
	caKey, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.key", caKey)
	cert := openssl(t, dir, "x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAkeyform", "DER", "-CAcreateserial", "-days", "3000", "-sha256")
	if _, err := s.ImportCertificate("tp", cert, now); !errors.Is(err, ErrNoCA) {
		t.Errorf("without the CA: %v, want ErrNoCA", err)
	}
	if _, err := s.Authenticate("tp", FormatCertificate(ca.cert)); err != nil {
		t.Fatal(err)
	}
	stranger := issue(t, authority{}, certSpec{cn: "box"})
	if _, err := s.ImportCertificate("tp", FormatCertificate(stranger.cert), now); err == nil || !strings.Contains(err.Error(), "not by the trustpoint's CA") {
		t.Errorf("a stranger's certificate: %v", err)
	}
	if _, err := s.ImportCertificate("tp", FormatCertificate(issue(t, ca, certSpec{cn: "box"}).cert), now); err == nil || !strings.Contains(err.Error(), "not of key pair") {
		t.Errorf("a certificate of another key: %v", err)
	}
	id, err := s.ImportCertificate("tp", cert, now)
	if err != nil || !signedBy(id.Cert, ca.cert) {
		t.Errorf("got %v, %v", id, err)
	}
}

func FuzzSCEPReply(f *testing.F) {
	useAES()
	ca := issue(f, authority{}, certSpec{cn: "SCEP CA", ca: true, usage: x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		from: time.Now().AddDate(-1, 0, 0), to: time.Now().AddDate(1, 0, 0)}) // the library looks at the clock
	s, err := Open(f.TempDir(), Options{})
	if err != nil {
		f.Fatal(err)
	}
	der, err := s.Request(EnrollRequest{Name: "tp", Subject: "CN=box", Bits: 1024, Now: now}, "x")
	if err != nil {
		f.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		f.Fatal(err)
	}
	key, err := s.signer("tp")
	if err != nil {
		f.Fatal(err)
	}
	self, err := transient(csr, key, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	authorities := []*x509.Certificate{ca.cert}
	msg, err := scep.NewCSRRequest(csr, &scep.PKIMessage{MessageType: scep.PKCSReq, Recipients: authorities, SignerKey: key, SignerCert: self})
	if err != nil {
		f.Fatal(err)
	}
	asked, err := scep.ParsePKIMessage(msg.Raw)
	if err != nil {
		f.Fatal(err)
	}
	asked.SenderNonce = msg.SenderNonce
	if err := asked.DecryptPKIEnvelope(ca.cert, ca.key); err != nil {
		f.Fatal(err)
	}
	good, err := asked.Success(ca.cert, ca.key, ca.cert)
	if err != nil {
		f.Fatal(err)
	}
	bad, err := asked.Fail(ca.cert, ca.key, scep.BadRequest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Raw)
	f.Add(bad.Raw)
	f.Add(msg.Raw)
	f.Add(ca.cert.Raw)
	if _, err := scepReply(good.Raw, msg, authorities, self, key); err != nil {
		f.Fatalf("the good reply: %v", err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		scepCA(data)
		cert, err := scepReply(data, msg, authorities, self, key)
		if err == nil && cert == nil {
			t.Error("neither certificate nor error")
		}
	})
}
