package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
	"patchbay/stack"
)

// exec has the box do a command of EXEC mode.
func (b *box) exec(line string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.app.Exec(&out, line); err != nil {
		b.t.Fatalf("Exec(%q) = %v", line, err)
	}
	return out.String()
}

// holder is a phone that holds a CTL file when it boots and registers.
func (b *box) holder(list *lab.CTL) *lab.Phone {
	b.t.Helper()
	p := b.lab.Phone(lab.Remote, lab.SCCP)
	b.follow(p, list)
	b.must(p.Register(b.ctx))
	return p
}

// follow has a phone that holds a CTL file fetch the next one, and returns that.
func (b *box) follow(p *lab.Phone, list *lab.CTL) *lab.CTL {
	b.t.Helper()
	p.Trust().Erase()
	b.must(p.Trust().Install(list.Bytes))
	b.must(p.Boot(b.ctx))
	return p.Trust().CTL()
}

// runAndStop starts a box, has a phone fetch its CTL file, and stops it.
func runAndStop(t *testing.T, s setup) (*box, *lab.CTL) {
	t.Helper()
	b := start(t, s)
	list := b.up(lab.Remote, lab.SCCP).Trust().CTL()
	if list == nil {
		t.Fatal("the phone has no trust list")
	}
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	return b, list
}

// A box that was given the PKCS #12 exports of an old one and the same
// configuration is the old one to a phone that holds its CTL file.
func TestPKCS12KeepsTrust(t *testing.T) {
	old := start(t, setup{})
	list := old.up(lab.Remote, lab.SCCP).Trust().CTL()
	exports := make(map[string]string)
	for _, tp := range []string{"_internal_PP_trust", "_internal_PP_trust_SAST_0", "_internal_PP_trust_SAST_1", "ucm_server"} {
		exports[tp] = old.exec("crypto ca export " + tp + " pkcs12 cisco123 legacy")
	}
	if err := old.stop(); err != nil {
		t.Fatal(err)
	}

	// newFlash is that of a box with those exports, and the phones' CA.
	newFlash := func(names ...string) string {
		dir := t.TempDir()
		store, err := pki.Open(dir, pki.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Authenticate("phone_ca", phoneCA().Cert.Raw); err != nil {
			t.Fatal(err)
		}
		for _, tp := range names {
			if _, err := store.ImportPKCS12(tp, "cisco123", []byte(exports[tp])); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	t.Run("all", func(t *testing.T) {
		b := start(t, setup{flash: newFlash("_internal_PP_trust", "_internal_PP_trust_SAST_0", "_internal_PP_trust_SAST_1", "ucm_server")})
		p := b.holder(list)
		now := p.Trust().CTL()
		if len(now.Records) != len(list.Records) {
			t.Fatalf("%d records, want %d", len(now.Records), len(list.Records))
		}
		for i := range now.Records {
			if !bytes.Equal(now.Records[i].Cert.Raw, list.Records[i].Cert.Raw) {
				t.Errorf("record %d has another certificate", i)
			}
		}
		inside := b.up(lab.Inside, lab.SCCP)
		b.call(inside, p)
		b.must(p.HangUp(b.ctx))
		b.must(inside.Wait(b.ctx, lab.Idle))
		b.honest()
		b.idle()
	})
	t.Run("one token only", func(t *testing.T) {
		b := start(t, setup{flash: newFlash("_internal_PP_trust_SAST_1")})
		now := b.holder(list).Trust().CTL() // the internal trustpoint is new, and vouched for
		if now.Signer.Subject != "CN=_internal_PP_trust_SAST_1" {
			t.Errorf("signed by %q, want the token that phones know", now.Signer.Subject)
		}
	})
	t.Run("no token", func(t *testing.T) {
		b := start(t, setup{flash: newFlash("_internal_PP_trust", "ucm_server")})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Trust().Install(list.Bytes))
		if err := p.Boot(b.ctx); err == nil || !strings.Contains(err.Error(), "sign") {
			t.Errorf("Boot: %v, want the list refused", err)
		}
	})
}

// When the first token is lost the second signs, and phones follow.
func TestSecondTokenSigns(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(flash string) error
		says string
	}{
		{"key damaged", func(flash string) error {
			return os.Truncate(filepath.Join(flash, "key-_internal_PP_trust_SAST_0.pem"), 100)
		}, "damaged"},
		{"key gone", func(flash string) error {
			return os.Remove(filepath.Join(flash, "key-_internal_PP_trust_SAST_0.pem"))
		}, "not found"},
		{"both files gone", func(flash string) error {
			return errors.Join(os.Remove(filepath.Join(flash, "key-_internal_PP_trust_SAST_0.pem")),
				os.Remove(filepath.Join(flash, "trustpoint-_internal_PP_trust_SAST_0.pem")))
		}, ""},
		{"all gone but the second", func(flash string) error {
			return errors.Join(os.Remove(filepath.Join(flash, "key-_internal_PP_trust_SAST_0.pem")),
				os.Remove(filepath.Join(flash, "trustpoint-_internal_PP_trust_SAST_0.pem")),
				os.Remove(filepath.Join(flash, "trustpoint-_internal_PP_trust.pem")),
				os.Remove(filepath.Join(flash, "key-_internal_PP_trust.pem")),
				os.Remove(filepath.Join(flash, "CTLFile.tlv")))
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, list := runAndStop(t, setup{})
			if list.Signer.Subject != "CN=_internal_PP_trust_SAST_0" {
				t.Fatalf("first signed by %q", list.Signer.Subject)
			}
			if err := tt.lose(first.flash); err != nil {
				t.Fatal(err)
			}
			b := start(t, setup{flash: first.flash})
			if now := b.holder(list).Trust().CTL(); now.Signer.Subject != "CN=_internal_PP_trust_SAST_1" {
				t.Errorf("signed by %q, want the second token", now.Signer.Subject)
			}
			if !strings.Contains(b.log.String(), tt.says) || tt.says != "" && !strings.Contains(b.exec("show ctl-file trust"), "Lost: ") {
				t.Errorf("nothing is said of the token that is lost, want %q", tt.says)
			}
		})
	}
}

// Tokens are renewed one by one while the box runs, and phones of every
// generation that is remembered follow.
func TestRenewTokens(t *testing.T) {
	var shift atomic.Int64 // of the clock
	b := start(t, setup{opt: func(o *appliance.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	}})
	p, inside := b.up(lab.Remote, lab.SCCP), b.up(lab.Inside, lab.SCCP)
	first := p.Trust().CTL()
	b.call(inside, p) // goes on through all of it
	signer := func(l *lab.CTL) string { return l.Signer.Subject + " " + string(l.Signer.Serial) }

	shift.Store(int64(2 * time.Second)) // or the tokens are equally old
	b.exec("crypto ctl-file renew trust sast 0")
	second := b.follow(p, first)
	if signer(second) != signer(first) {
		t.Errorf("after the renewal %q signs, want the old token", second.Signer.Subject)
	}
	if n := len(second.Records); n != len(first.Records)+1 {
		t.Errorf("%d records after the renewal, want one token more than %d", n, len(first.Records))
	}
	var refused *appliance.Refusal
	if err := b.app.Exec(new(bytes.Buffer), "crypto ctl-file renew trust sast 0"); !errors.As(err, &refused) {
		t.Errorf("renewed again before the old token was forgotten: %v", err)
	}
	b.exec("crypto ctl-file forget trust")
	if err := b.app.Exec(new(bytes.Buffer), "crypto ctl-file forget trust"); !errors.As(err, &refused) {
		t.Errorf("forgotten twice: %v", err)
	}
	third := b.follow(p, second)
	if signer(third) == signer(first) || len(third.Records) != len(first.Records) {
		t.Errorf("the old token is still there: %q, %d records", third.Signer.Subject, len(third.Records))
	}
	b.follow(p, first) // the second token is of the first list

	b.exec("crypto ctl-file renew trust sast 1")
	b.exec("crypto ctl-file forget trust")
	b.follow(p, third)
	b.heard(p, inside)
	b.must(p.HangUp(b.ctx))
	b.must(inside.Wait(b.ctx, lab.Idle))
	b.honest()
}

// A record-entry may have a name. There is no file before it resolves, and a new
// address makes a new one.
func TestRecordByName(t *testing.T) {
	replace := []string{
		"ucm_server address 203.0.113.10", "ucm_server address ucm.example.com",
		"pager lines 24", "dns domain-lookup inside\ndns name-server 10.20.0.53\npager lines 24",
	}
	var shift atomic.Int64 // of the clock
	var answer atomic.Pointer[[]netip.Addr]
	b := start(t, setup{config: replace, opt: func(o *appliance.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
			if a := answer.Load(); a != nil && host == "ucm.example.com" {
				return *a, nil
			}
			return nil, errors.New("no such host")
		}
	}})
	p := b.lab.Phone(lab.Remote, lab.SCCP)
	if err := p.Boot(b.ctx); err == nil {
		t.Error("a phone got a CTL file before the name had an address")
	}
	if !strings.Contains(b.log.String(), "ucm.example.com: no such host") {
		t.Error("the log does not name the name")
	}
	answer.Store(&[]netip.Addr{netip.MustParseAddr("203.0.113.10")})
	shift.Add(int64(time.Minute))
	b.must(p.Boot(b.ctx))
	b.must(p.Register(b.ctx))
	answer.Store(nil) // what was known holds
	shift.Add(int64(time.Minute))
	b.must(p.Boot(b.ctx))
	if err := p.Trust().CheckAddress(netip.MustParseAddr("203.0.113.10"), lab.RoleCCMTFTP); err != nil {
		t.Error(err)
	}
	if out := b.exec("show ctl-file"); !strings.Contains(out, "address ucm.example.com") || !strings.Contains(out, "203.0.113.10") {
		t.Errorf("show ctl-file:\n%s", out)
	}
	answer.Store(&[]netip.Addr{netip.MustParseAddr("203.0.113.11")})
	shift.Add(int64(time.Minute))
	_ = p.Boot(b.ctx) // its TFTP server is no more in the list
	if err := p.Trust().CheckAddress(netip.MustParseAddr("203.0.113.11"), lab.RoleCCMTFTP); err != nil {
		t.Error(err)
	}
}

// newBox makes a box that does not run.
func newBox(t *testing.T, flash string, replace ...string) error {
	t.Helper()
	l, err := lab.NewMemoryLab(lab.Options{CA: phoneCA(), KeyBits: 1024})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	app, err := appliance.New(demoConfig(t, replace...), appliance.Options{
		Links: map[string]stack.Link{"outside": l.Outside(), "inside": l.Inside()}, Store: openStore(t, flash),
	})
	if err == nil {
		app.Close()
	}
	return err
}

func openStore(t *testing.T, dir string) *pki.Store {
	t.Helper()
	s, err := pki.Open(dir, pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A CTL file may be built on an existing one, which says whom phones trust
// beside the entries.
func TestClusterCTLFile(t *testing.T) {
	_, list := runAndStop(t, setup{})
	replace := []string{" sast 2", " cluster-ctl-file disk0:/old_ctlfile.tlv\n sast 2"}
	flash := func(name string, data []byte) string {
		dir := t.TempDir()
		if _, err := openStore(t, dir).Authenticate("phone_ca", phoneCA().Cert.Raw); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	b := start(t, setup{config: replace, flash: flash("old_ctlfile.tlv", list.Bytes)})
	now := b.up(lab.Remote, lab.SCCP).Trust().CTL()
	for _, r := range list.Records {
		found := false
		for _, n := range now.Records {
			found = found || n.Role == r.Role && n.Addr == r.Addr && bytes.Equal(n.Cert.Raw, r.Cert.Raw)
		}
		if found != (r.Role != lab.RoleSAST) {
			t.Errorf("record of %q, role %d: taken over %v", r.Subject, r.Role, found)
		}
	}
	bent := bytes.Clone(list.Bytes)
	bent[len(bent)-1]++
	for _, tt := range []struct {
		name, file string
		data       []byte
		want       string
	}{
		{"missing", "other.tlv", list.Bytes, "not found"},
		{"not one", "old_ctlfile.tlv", []byte("hello"), "ctl"},
		{"changed", "old_ctlfile.tlv", bent, "verifying"},
	} {
		err := newBox(t, flash(tt.file, tt.data), replace...)
		if err == nil || !strings.Contains(err.Error(), "cluster-ctl-file disk0:/old_ctlfile.tlv") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}

// Phones of the time know RSA only: a TLS server with another key is refused
// where it is configured.
func TestECDSAServerRefused(t *testing.T) {
	flash := t.TempDir()
	store := openStore(t, flash)
	if err := store.GenerateECDSA("ucm_server", 256); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Enroll(pki.EnrollRequest{Name: "ucm_server", Subject: "CN=ucm_server", Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	err := newBox(t, flash, "server trust-point _internal_PP_trust", "server trust-point ucm_server")
	if err == nil || !strings.Contains(err.Error(), "tls-proxy phones shows the certificate of trustpoint ucm_server, whose key is not RSA") {
		t.Errorf("New: %v", err)
	}
}
